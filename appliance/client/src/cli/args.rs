//! The command line.

use super::exit::Exit;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;
use zixt_api::RoleName;

/// Post-quantum messages on the record, through your own appliance.
#[derive(Parser, Debug)]
#[command(name = "zixt", version, after_help = Exit::table(), arg_required_else_help = true)]
pub struct Arguments {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// Folder of the local store [default: ~/.zixt].
    #[arg(long, global = true, value_name = "DIR", env = "ZIXT_STORE")]
    pub store: Option<PathBuf>,
    /// Read the passphrase from the first line of a file. Whoever reads that file can open your account. The variable
    /// ZIXT_PASSPHRASE works too and is worse: other programs of yours can read it.
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Print JSON: one document, or one a line where events follow each other.
    #[arg(long, global = true)]
    pub json: bool,
    /// Seconds to wait for the appliance.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
}

/// A text argument that is not empty.
fn text() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make this device yours with an invitation.
    Enrol {
        /// The invitation's text, a file that holds it, or - for the standard input. As an argument it stays in your
        /// shell's history; that is harmless once it is used.
        #[arg(value_name = "INVITATION", default_value = "-", value_parser = text())]
        invitation: String,
    },
    /// Show who you are and in which network.
    Whoami,
    /// Show the appliance's and the ledger's state as this device sees it.
    Status,
    /// List the people you know.
    Contacts,
    /// Talk with one person; opens the terminal chat.
    Chat {
        /// Whom to talk with.
        #[arg(value_parser = text())]
        name: String,
        /// Send this and end, without the terminal chat.
        #[arg(long, short, value_name = "TEXT", value_parser = text())]
        message: Option<String>,
    },
    /// Make a group and change who is in it.
    #[command(subcommand)]
    Group(GroupCommand),
    /// List the conversations.
    Threads,
    /// Send a message.
    Send {
        /// A person's name, a conversation's title or id, or the first six or more digits of its id.
        #[arg(value_parser = text())]
        to: String,
        /// The text, or - for the standard input.
        #[arg(value_parser = text(), allow_hyphen_values = true)]
        text: String,
        /// Wait until the message is recorded (this is the default).
        #[arg(long, conflicts_with = "queue")]
        wait: bool,
        /// Only queue it; it is sent by the next command that reaches the appliance.
        #[arg(long)]
        queue: bool,
    },
    /// Print messages from the local store. Needs no appliance.
    Read {
        /// A name, title or id; everything if absent.
        #[arg(value_parser = text())]
        to: Option<String>,
        /// How many of the last messages of each conversation.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Stay connected and print what comes, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },
    /// Send what is queued and fetch what is new.
    Sync,
    /// Stay connected and print every event as a line of JSON, until Ctrl-C.
    Watch,
    /// Open the terminal chat.
    Tui {
        /// A name, title or id to open first.
        #[arg(value_parser = text())]
        to: Option<String>,
    },
    /// Prove what was said.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Show a person's devices and fingerprints, to compare with them by another way.
    Verify {
        /// Whose.
        #[arg(value_parser = text())]
        name: String,
        /// Record that you compared the fingerprints with the person.
        #[arg(long)]
        mark: bool,
    },
    /// List your own devices.
    Devices,
    /// Show what this device found wrong: forks, strange keys, broken proofs.
    Alarms {
        /// Write the proof of the fork to a file, for an administrator or auditor.
        #[arg(long, value_name = "FILE")]
        export_fork: Option<PathBuf>,
    },
    /// Take up a conversation that an alarm stopped: everything is fetched and checked again.
    Recheck {
        /// A name, title or id.
        #[arg(value_parser = text())]
        to: String,
    },
    /// Your access: sessions, password, authenticator app, backup codes, pre-shared key.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Other people's accounts, as your roles allow.
    #[command(subcommand)]
    People(PeopleCommand),
    /// Change the passphrase of the local store.
    Passphrase {
        /// Read the new one from the first line of a file instead of asking.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// What to do about one's own access.
#[derive(Subcommand, Debug)]
pub enum AccountCommand {
    /// Show roles and factors.
    Show,
    /// List your open sessions.
    Sessions,
    /// End one of your sessions, or all but this one.
    EndSessions {
        /// Which one, as `sessions` lists it.
        session: Option<String>,
    },
    /// Set a password, to sign in without a device.
    Password {
        /// Remove it instead.
        #[arg(long)]
        remove: bool,
        /// Read the new one from the first line of a file instead of asking.
        #[arg(long, value_name = "FILE", conflicts_with = "remove")]
        new_password_file: Option<PathBuf>,
    },
    /// Enrol an authenticator app (TOTP).
    Totp {
        /// Remove it instead.
        #[arg(long)]
        remove: bool,
    },
    /// Make new backup codes; those of before are void.
    BackupCodes,
    /// Link your account to who you are at a directory: its password then signs you in, and it can hold your account.
    Link {
        /// The directory, by its name or issuer.
        #[arg(value_parser = text())]
        directory: String,
        /// Your login name there.
        #[arg(value_parser = text())]
        login: String,
        /// Read the password from the first line of a file instead of asking.
        #[arg(long, value_name = "FILE")]
        directory_password_file: Option<PathBuf>,
    },
    /// Take a link away.
    Unlink {
        /// Whose, as `show` lists it: 32 hexadecimal digits.
        #[arg(value_parser = super::access::issuer)]
        issuer: String,
    },
    /// Make a pre-shared key as a further factor.
    Psk {
        /// Remove it instead.
        #[arg(long)]
        remove: bool,
    },
}

/// What to do about other people's accounts. PERSON is a name or an account's id.
#[derive(Subcommand, Debug)]
pub enum PeopleCommand {
    /// List the accounts.
    List,
    /// Show an account.
    Show {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// Hold an account: its sessions and streams end at once.
    Suspend {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// Let a held account in again.
    Resume {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// End an account for good.
    Offboard {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// Give an account other roles. Officers and administrators are made by a ceremony: zixt-hsm propose set-roles.
    Roles {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
        /// All its roles from then on.
        #[arg(required = true, value_parser = super::access::role)]
        roles: Vec<RoleName>,
    },
    /// End all sessions of an account.
    EndSessions {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// Take somebody's link to a directory away (administrators).
    Unlink {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
        /// To which issuer: 32 hexadecimal digits.
        #[arg(value_parser = super::access::issuer)]
        issuer: String,
    },
    /// Show how the appliance's clocks stand.
    Clock,
    /// Set the appliance's wall clock (security officers). It is on record; sessions of a later time end.
    SetClock {
        /// The time, in UTC: 2026-11-28T06:30:00Z.
        #[arg(value_parser = super::access::utc)]
        time: u64,
        /// A time is meant that is more than 31 days away from all clocks there.
        #[arg(long)]
        far: bool,
    },
    /// Make a token for a program (administrators): its account has the role service and no other. It is shown once.
    MakeToken {
        /// Whose: the program's account.
        #[arg(value_parser = text())]
        person: String,
        /// What it is called in lists.
        #[arg(long, value_parser = text())]
        name: String,
        /// What it is for: accounts:read, accounts:hold, health:read, events:read. Several may be named.
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// For how many days it is good.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
        /// An address whose network it is good from; may be repeated. Without one, from everywhere.
        #[arg(long = "network", value_name = "ADDRESS")]
        networks: Vec<String>,
    },
    /// List the tokens of a program (administrators).
    Tokens {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// End a token of a program (administrators).
    EndToken {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
        /// Which, as `tokens` lists it.
        token: String,
    },
    /// Show how directories are.
    Directories,
    /// Have a directory read now (administrators).
    ReadDirectory {
        /// Its issuer, as `directories` lists it.
        #[arg(value_parser = super::access::issuer)]
        issuer: String,
    },
    /// Let happen what a directory was kept from, because it takes much from many (security officers). Look first.
    Release {
        /// The directory's issuer, as `directories` lists it.
        #[arg(value_parser = super::access::issuer)]
        issuer: String,
        /// The digest of what it would take, as `directories` shows it.
        digest: String,
    },
    /// Forgive the failed attempts at an account.
    LiftLockout {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// Ask for the recovery of an account whose person lost every factor (administrators).
    Recover {
        /// Whose.
        #[arg(value_parser = text())]
        person: String,
    },
    /// List the recoveries that wait.
    Recoveries,
    /// Approve a recovery (security officers): prints the code for the person.
    Approve {
        /// Which, as `recoveries` lists it.
        recovery: String,
    },
}

/// What to do with a group.
#[derive(Subcommand, Debug)]
pub enum GroupCommand {
    /// Make a group.
    Create {
        /// Its title. All members see it.
        #[arg(value_parser = text())]
        title: String,
        /// Who is in it besides you.
        #[arg(required = true, value_name = "NAME", value_parser = text())]
        names: Vec<String>,
    },
    /// Add people. They read what is said from now on.
    Add {
        /// The group's title or id.
        #[arg(value_parser = text())]
        thread: String,
        /// Whom.
        #[arg(required = true, value_name = "NAME", value_parser = text())]
        names: Vec<String>,
    },
    /// Call a conversation by a title of your own, which stays on this device.
    Alias {
        /// Its title or id.
        #[arg(value_parser = text())]
        thread: String,
        /// Your title for it; without one, what its members call it.
        #[arg(value_parser = text())]
        title: Option<String>,
    },
    /// Remove people. They read nothing that is said from now on.
    Remove {
        /// The group's title or id.
        #[arg(value_parser = text())]
        thread: String,
        /// Whom.
        #[arg(required = true, value_name = "NAME", value_parser = text())]
        names: Vec<String>,
    },
}

/// What to do with evidence.
#[derive(Subcommand, Debug)]
pub enum EvidenceCommand {
    /// Write a file that zixt-verify checks without a network.
    Export {
        /// A name, title or id.
        #[arg(value_parser = text())]
        to: String,
        /// Only the entry with this number; the whole conversation if absent.
        #[arg(long, value_name = "N")]
        seq: Option<u64>,
        /// Disclose what was said. Without it the file proves who sent when, not what.
        #[arg(long)]
        with_content: bool,
        /// The file to write.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("zixt").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        for line in [
            "enrol zixt-invite:abc",
            "enrol -",
            "enrol",
            "--store /tmp/a --passphrase-file /tmp/p --json whoami",
            "status --json --timeout 5",
            "contacts",
            "chat bob",
            "chat bob --message hi",
            "group create team bob carol",
            "group add team dave",
            "group remove 02ab34 dave",
            "threads",
            "send bob hi",
            "send bob hi --wait",
            "send bob --queue hi",
            "send bob -",
            "read",
            "read bob --limit 5 --follow",
            "sync",
            "watch",
            "tui",
            "tui bob",
            "evidence export bob -o f",
            "evidence export bob --seq 3 --with-content --output f",
            "verify bob --mark",
            "devices",
            "alarms --export-fork f",
            "recheck bob",
            "passphrase --new-passphrase-file f",
            "completions bash",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn other_lines_do_not() {
        for line in [
            "",
            "sing",
            "chat",
            "send bob",
            "send bob hi --wait --queue",
            "group create team",
            "evidence export bob",
            "--timeout 0 sync",
            "read --limit 0",
            "completions tcsh2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(Arguments::try_parse_from(["zixt", "send", "", "hi"]).is_err());
    }

    #[test]
    fn a_text_may_begin_with_a_hyphen() {
        let Command::Send { text, .. } =
            Arguments::try_parse_from(["zixt", "send", "bob", "-1 is less"]).unwrap().command
        else {
            panic!("not send");
        };
        assert_eq!(text, "-1 is less");
    }

    #[test]
    fn help_lists_the_exit_codes() {
        let help = Arguments::command().render_help().to_string();
        for exit in Exit::ALL {
            assert!(help.contains(exit.meaning().split(';').next().unwrap()), "{help}");
        }
    }
}
