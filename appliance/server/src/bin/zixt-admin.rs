//! `zixt-admin`: the administrator's tool on the box.

use clap::{CommandFactory as _, Parser, Subcommand};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixStream;
use zixt_api::{
    AccountPage, AdminDecision, AdminInvitation, AdminStatus, AuditPage, Bytes64, Checkpoint, Health,
    Invitation, InvitationLink, InvitationSeed, Problem, Receipt, SubmissionItem, endpoints,
};
use zixt_audit::Export;
use zixt_audit::export::Finding;
use zixt_ceremony::file;
use zixt_crypto::{Backend, RandomError, digest, fill_random, selftest};
use zixt_crypto_fast::AwsLc;
use zixt_hsm_protocol::{ClientError, HsmClient, KeyPurpose};
use zixt_server::audit::PAGE_MAX;
use zixt_server::{fsck, logging};
use zixt_types::{
    AccountId, Author, Body, Canonical, Height, MessageId, Payload, Salt, SuiteId, Timestamp, Transcript,
};

/// Administers the Zixt appliance that runs on this machine.
#[derive(Parser)]
#[command(
    name = "zixt-admin",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the appliance answers but cannot work \
                  (status); 4 the store is damaged (fsck); 5 the appliance or the custody daemon cannot be reached."
)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates an account and prints the invitation for its first device, once. Whoever has it can enrol: pass it on
    /// by a way that you trust.
    Invite {
        /// The account's name, as other people will write it
        name: String,
        /// For how long the invitation is good
        #[arg(long, default_value_t = 72, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=8760))]
        valid_hours: u64,
        /// Where clients reach the appliance, if it is not the address that it listens at
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// The directory that the person is known at: the account is linked to them
        #[arg(long, value_name = "NAME", requires = "login")]
        directory: Option<String>,
        /// Their login name there
        #[arg(long, value_name = "LOGIN", requires = "directory")]
        login: Option<String>,
        #[command(flatten)]
        sockets: Sockets,
        /// The custody daemon's socket [default: hsmd.sock in the folder for sockets]
        #[arg(long, value_name = "SOCKET")]
        hsmd: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Records what officers decided: the transcript of their approvals. An appliance whose consensus key was replaced
    /// waits for this, and certifies nothing before.
    Decide {
        /// The transcript, as zixt-officer made it
        transcript: PathBuf,
        /// The public key that the decision activates, if it is another appliance's
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        #[command(flatten)]
        sockets: Sockets,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Says how the appliance is.
    Status {
        #[command(flatten)]
        sockets: Sockets,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Lists the accounts: who they are, how they stand, and what their roles are. That you read it is recorded.
    People {
        #[command(flatten)]
        sockets: Sockets,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Reads the audit journal: who did what, when, from where, and how it ended. That you read it is recorded too.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Derives the whole store again from its entries and compares. The server must not run; names are checked too if
    /// custody is unlocked and gives this user the key that they are sealed with.
    Fsck {
        /// The state folder
        #[arg(long, value_name = "DIR", default_value = "/var/lib/zixt")]
        state: PathBuf,
        /// The custody daemon's socket
        #[arg(long, value_name = "SOCKET", default_value = "/run/zixt/hsmd.sock")]
        hsmd: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints completions for a shell.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Prints records, one a line, as JSON lines
    Show {
        /// The first record
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        from: u64,
        /// How many; all there are if absent
        #[arg(long, value_name = "NUMBER")]
        limit: Option<u64>,
        /// Print them in the Common Event Format
        #[arg(long)]
        cef: bool,
        #[command(flatten)]
        sockets: Sockets,
    },
    /// Sets damage aside that keeps the server from starting. The damaged file stays, under another name; the journal goes
    /// on behind it with a jump in its numbers, and says so for ever. The server must not run. Make a copy of the folder
    /// before: it is evidence
    SetAside {
        /// The state folder
        #[arg(long, value_name = "DIR", default_value = "/var/lib/zixt")]
        state: PathBuf,
    },
    /// Writes a range to a file, with its hash chain, and checks that
    Export {
        /// The file; there must be none yet
        file: PathBuf,
        /// The first record
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        first: u64,
        /// The last record; the newest if absent
        #[arg(long, value_name = "NUMBER")]
        last: Option<u64>,
        #[command(flatten)]
        sockets: Sockets,
    },
}

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// An answer in JSON.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An export of the audit journal.
const FILE_BYTES_MAX: usize = zixt_audit::limits::EXPORT_BYTES_MAX + 1024;

#[derive(clap::Args)]
struct Sockets {
    /// The folder for sockets
    #[arg(long, value_name = "DIR", default_value = "/run/zixt")]
    run: PathBuf,
}

/// Why a command did not do what was asked.
#[derive(Debug, Error)]
enum AdminError {
    #[error("the appliance cannot be reached at {}; is zixtd running?", path.display())]
    Unreachable { path: PathBuf, source: std::io::Error },
    #[error("the appliance broke the connection")]
    Connection(#[from] hyper::Error),
    #[error("the appliance did not answer in time")]
    TimedOut,
    #[error("the appliance answered with something else than was asked for: {0}")]
    Answer(String),
    #[error("{0}")]
    Refused(Box<Problem>),
    #[error("custody: {}", error.advice())]
    Custody {
        #[source]
        error: ClientError,
    },
    #[error("the custody daemon has no enroller key")]
    NoEnroller,
    #[error("the new account's key cannot be made")]
    Key(#[from] selftest::GenerateError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the invitation cannot be made: {0}; use --address HOST:PORT")]
    Invitation(&'static str),
    #[error(transparent)]
    File(#[from] file::FileError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Fsck(#[from] fsck::FsckError),
    #[error(transparent)]
    SetAside(#[from] zixt_server::audit::SetAsideError),
    #[error("a self-test failed; nothing was done")]
    SelfTest(#[from] selftest::SelfTestError),
}

impl AdminError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::TimedOut => 5,
            Self::Custody { error: ClientError::Connect { .. } } => 5,
            _ => 1,
        }
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, 1),
    };
    match runtime.block_on(perform(flags.command, &AwsLc)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error, error.exit_code()),
    }
}

/// Performs a command. `backend` is what keys are made and entries checked with; the commands that do so try it first.
async fn perform(command: Command, backend: &dyn Backend) -> Result<u8, AdminError> {
    if matches!(command, Command::Invite { .. } | Command::Fsck { .. }) {
        selftest::run(backend)?;
    }
    match command {
        Command::Invite { name, valid_hours, address, directory, login, sockets, hsmd, json } => {
            let hsmd = hsmd.unwrap_or_else(|| sockets.run.join("hsmd.sock"));
            let link = directory.zip(login).map(|(directory, login)| InvitationLink { directory, login });
            invite(&sockets.run, &hsmd, name, valid_hours, address, link, json).await
        }
        Command::Decide { transcript, key, sockets, json } => {
            decide(&sockets.run, &transcript, key.as_deref(), json).await
        }
        Command::People { sockets, json } => people(&sockets.run, json).await,
        Command::Status { sockets, json } => status(&sockets.run, json).await,
        Command::Audit { command: AuditCommand::Show { from, limit, cef, sockets } } => {
            show_audit(&sockets.run, from, limit.unwrap_or(u64::MAX), cef).await
        }
        Command::Audit { command: AuditCommand::Export { file, first, last, sockets } } => {
            export_audit(&sockets.run, &file, first, last).await
        }
        Command::Audit { command: AuditCommand::SetAside { state } } => set_aside(&state),
        Command::Fsck { state, hsmd, json } => check(&state, &hsmd, json).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Flags::command(), "zixt-admin", &mut std::io::stdout());
            Ok(0)
        }
    }
}

fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("zixt-admin: {}", logging::chain(error));
    ExitCode::from(code)
}

async fn invite(
    run: &Path,
    hsmd: &Path,
    name: String,
    valid_hours: u64,
    address: Option<String>,
    link: Option<InvitationLink>,
    json: bool,
) -> Result<u8, AdminError> {
    let status: AdminStatus = get(run, endpoints::ADMIN_STATUS).await?;
    let suite =
        SuiteId::try_from(status.suite_id).map_err(|unknown| AdminError::Answer(unknown.to_string()))?;
    let custody = HsmClient::new(hsmd);
    let keys = custody.status().await.map_err(|error| AdminError::Custody { error })?;
    let enroller = keys.key(KeyPurpose::Enroller).ok_or(AdminError::NoEnroller)?.hash;

    // The seed signs the first device. It exists here and in the printed text, nowhere else.
    let (seed, key) = selftest::generate_signing_key(&AwsLc, suite)?;
    let mut account = AccountId([0; AccountId::LEN]);
    let mut salt = Salt([0; Salt::LEN]);
    let mut message_id = MessageId([0; MessageId::LEN]);
    fill_random(&mut account.0)?;
    fill_random(&mut salt.0)?;
    fill_random(&mut message_id.0)?;
    // The appliance's clock, which an officer may have set, and not this machine's.
    let now = Timestamp(status.clock.wall);
    // Ledger time decides whether the invitation is still good, and it may be ahead of the clock.
    let from = now.0.max(status.latest.time);
    let expires_at = Timestamp(from.saturating_add(valid_hours.saturating_mul(3_600_000)));
    let body = Body {
        version: Body::VERSION,
        suite,
        genesis: status.genesis.0,
        thread: digest::account_thread(account),
        author: Author::Enroller(enroller),
        counter: 0,
        message_id,
        sent_at: now,
        last_seen: None,
        payload: Payload::Invite {
            account,
            name: digest::name_commitment(&salt, &name),
            key: digest::key_hash(suite, key.public_key()),
            expires_at,
        },
    };
    let invitation = Invitation {
        version: Invitation::VERSION,
        network: status.network,
        address: address.unwrap_or(status.listen),
        suite,
        tls: status.tls.0,
        genesis: status.genesis.0,
        checkpoint: Checkpoint { height: Height(status.latest.height), header: status.latest.hash.0 },
        account,
        name: name.clone(),
        salt,
        seed: InvitationSeed::new(*seed.as_bytes()),
        lab: status.lab,
    };
    // Before anything is recorded: a wrong address or name should not leave an account behind.
    invitation.check().map_err(AdminError::Invitation)?;
    let signature = custody.sign_invite(&body).await.map_err(|error| AdminError::Custody { error })?;
    let submission = SubmissionItem {
        body: Bytes64(body.to_bytes()),
        signature: Bytes64(signature),
        possession: None,
        attachments: Vec::new(),
    };
    let request = AdminInvitation { submission, name: name.clone(), salt: salt.into(), link };
    let _: Receipt = call(run, "POST", endpoints::ADMIN_INVITATIONS, Some(&request)).await?;

    let text = invitation.to_text();
    let mut out = std::io::stdout().lock();
    let printed = if json {
        #[derive(Serialize)]
        struct Created<'a> {
            account: String,
            name: &'a str,
            invitation: &'a str,
            expires_at: u64,
            lab: bool,
        }
        let created = Created {
            account: account.to_hex(),
            name: &name,
            invitation: &text,
            expires_at: expires_at.0,
            lab: status.lab,
        };
        writeln!(
            out,
            "{}",
            zeroize::Zeroizing::new(serde_json::to_string(&created).unwrap_or_default()).as_str()
        )
    } else {
        writeln!(out, "{}", text.as_str())
    };
    printed.map_err(|error| AdminError::Answer(error.to_string()))?;
    if !json {
        eprintln!(
            "Invitation of {name}, good for {valid_hours} h and one device. It is shown only now, and is secret."
        );
    }
    Ok(0)
}

async fn decide(run: &Path, transcript: &Path, key: Option<&Path>, json: bool) -> Result<u8, AdminError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| AdminError::Read { path: path.to_owned(), source })
    };
    let decided: Transcript = file::from_file(&read(transcript)?)?;
    let request = AdminDecision {
        transcript: Bytes64(decided.to_bytes()),
        key: key.map(read).transpose()?.map(Bytes64),
    };
    let receipt: Receipt = call(run, "POST", endpoints::ADMIN_DECISIONS, Some(&request)).await?;
    if json {
        println!("{}", serde_json::to_string(&receipt).unwrap_or_default());
    } else {
        println!("recorded as entry {} of the system thread: {}", receipt.seq, receipt.entry);
    }
    Ok(0)
}

async fn status(run: &Path, json: bool) -> Result<u8, AdminError> {
    let health: Health = get(run, endpoints::HEALTHZ).await?;
    let status: Option<AdminStatus> = match get(run, endpoints::ADMIN_STATUS).await {
        Ok(status) => Some(status),
        // It waits for custody; health says why.
        Err(AdminError::Refused(_)) => None,
        Err(error) => return Err(error),
    };
    if json {
        #[derive(Serialize)]
        struct Both<'a> {
            health: &'a Health,
            status: &'a Option<AdminStatus>,
        }
        println!("{}", serde_json::to_string(&Both { health: &health, status: &status }).unwrap_or_default());
    } else {
        match &health.reason {
            None => println!("healthy"),
            Some(reason) => println!("NOT WORKING: {reason}"),
        }
        if let Some(status) = &status {
            let lab = if status.lab { "  (LAB: not for production)" } else { "" };
            println!("network      {}{lab}", status.network);
            println!("genesis      {}", status.genesis);
            println!("suite        {}", status.suite);
            println!("listens at   {}", status.listen);
            println!("TLS key      {}", status.tls);
            println!("custody      {}; consensus key: {}", word(status.custody), status.custody_mode);
            println!("ledger       height {}, header {}", status.latest.height, status.latest.hash);
            println!("accounts     {} with {} active devices", status.accounts, status.devices);
            println!("threads      {} conversations", status.conversations);
            println!(
                "now          {} connections, {} streams, {} entries wait",
                status.connections, status.streams, status.queued
            );
            print_audit(status);
            print_clock(status);
            print_directories(status);
            println!("up           {} s, version {}", status.uptime_ms / 1000, status.version);
        }
    }
    Ok(if health.ok { 0 } else { 3 })
}

async fn people(run: &Path, json: bool) -> Result<u8, AdminError> {
    let mut path = endpoints::ADMIN_PEOPLE.to_owned();
    loop {
        let page: AccountPage = get(run, &path).await?;
        for info in &page.accounts {
            if json {
                println!("{}", serde_json::to_string(info).unwrap_or_default());
                continue;
            }
            let roles: Vec<_> = info.roles.iter().map(|role| role.name()).collect();
            println!(
                "{}  {:?}  {}  [{}]  {} device(s), {} session(s)",
                info.account,
                info.status,
                info.name.as_deref().unwrap_or("(no name)"),
                roles.join(" "),
                info.devices.len(),
                info.sessions
            );
        }
        match page.next {
            Some(next) => path = format!("{}?after={next}", endpoints::ADMIN_PEOPLE),
            None => return Ok(0),
        }
    }
}

async fn show_audit(run: &Path, mut from: u64, mut left: u64, cef: bool) -> Result<u8, AdminError> {
    let form = if cef { "cef" } else { "json" };
    // What this reading itself leaves in the journal comes behind what was there, a record for each page.
    while left > 0 {
        let limit = left.min(PAGE_MAX as u64);
        let path = format!("{}?from={from}&limit={limit}&form={form}", endpoints::ADMIN_AUDIT);
        let page: AuditPage = get(run, &path).await?;
        for line in &page.lines {
            println!("{line}");
        }
        if !page.more || page.lines.is_empty() {
            break;
        }
        from = page.next;
        left -= page.lines.len() as u64;
    }
    Ok(0)
}

async fn export_audit(run: &Path, file: &Path, first: u64, last: Option<u64>) -> Result<u8, AdminError> {
    let last = last.map(|last| format!("&last={last}")).unwrap_or_default();
    let path = format!("{}?first={first}{last}", endpoints::ADMIN_AUDIT_EXPORT);
    let bytes = raw(run, "GET", &path, Vec::new()).await?;
    let export = Export::from_file(&bytes).map_err(|error| AdminError::Answer(error.to_string()))?;
    let report = zixt_audit::export::verify(&export, &[]);
    let wrong = report.findings.iter().filter(|finding| **finding != Finding::NotAnchored);
    let wrong: Vec<String> = wrong.map(ToString::to_string).collect();
    let write = || {
        let mut file = std::fs::File::create_new(file)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(|source| AdminError::Write { path: file.to_owned(), source })?;
    let (first, last) = (report.first.map_or(0, |first| first.0), report.last.map_or(0, |last| last.0));
    println!("{}: records {first} to {last} of journal {}", file.display(), report.chain);
    for finding in &wrong {
        println!("  {finding}");
    }
    println!(
        "The ledger anchors no heads of the journal yet: the chain shows what was changed inside of it, not whether its end is whole."
    );
    Ok(if wrong.is_empty() { 0 } else { 4 })
}

fn set_aside(state: &Path) -> Result<u8, AdminError> {
    let done = zixt_server::audit::set_aside(state)?;
    for fault in &done.faults {
        println!("{fault}");
    }
    for kept in &done.kept_as {
        println!("kept as {kept}");
    }
    match done.goes_on_at {
        Some(sequence) => println!("the journal goes on at record {sequence}; the next start records that"),
        None if done.faults.is_empty() => println!("nothing is damaged, and nothing was changed"),
        None => println!("the journal goes on behind what is left; the next start records what is missing"),
    }
    Ok(0)
}

/// A state as JSON has it, too.
fn word<T: Serialize + std::fmt::Debug>(state: T) -> String {
    match serde_json::to_value(&state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{state:?}"),
    }
}

fn print_audit(status: &AdminStatus) {
    let audit = &status.audit;
    let how = match (&audit.failed, audit.reserved) {
        (Some(why), _) => format!("FAILED: {why}"),
        (None, true) => "sound".to_owned(),
        (None, false) => format!(
            "DISK FULL: {} kB left for what concerns security; {} actions were refused{}",
            audit.room_bytes / 1024,
            audit.refused,
            audit.reserve_error.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
        ),
    };
    println!("audit        records {} to {}, {how}", audit.first, audit.head);
    for sink in &status.audit_sinks {
        let error = sink.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let since = sink.since.map(|at| format!(" since {}", Timestamp(at).utc())).unwrap_or_default();
        println!(
            "  sink       {} ({}) is {}, {} records and {} s behind{since}{error}",
            sink.name,
            word(sink.kind),
            word(sink.state),
            sink.events_behind,
            sink.seconds_behind
        );
    }
}

fn print_clock(status: &AdminStatus) {
    let clock = &status.clock;
    let set = match clock.offset_ms {
        0 => "as the machine's".to_owned(),
        ms => format!("{ms} ms from the machine's"),
    };
    let behind =
        if clock.ahead_of_ledger_ms < 0 { "; it is BEHIND ledger time, which waits for it" } else { "" };
    println!(
        "clock        {}, {set}; ledger time {}{behind}",
        Timestamp(clock.wall).utc(),
        Timestamp(clock.ledger).utc()
    );
}

fn print_directories(status: &AdminStatus) {
    if let Some(web) = &status.web {
        println!("web          {}, certificate SHA-256 {}", web.origin, web.fingerprint);
    }
    for directory in &status.directories {
        let read = directory.last_success.map_or_else(
            || "not read yet".to_owned(),
            |at| format!("{} people, read {}", directory.people, Timestamp(at).utc()),
        );
        let error =
            directory.last_error.as_ref().map(|error| format!(": FAILING: {error}")).unwrap_or_default();
        println!("directory    {} ({}): {read}{error}", directory.name, directory.issuer);
        for fault in &directory.faults {
            println!("  fault      {fault}");
        }
        if let Some(held) = &directory.held {
            println!(
                "  HELD BACK  {}. If that is right, a security officer: zixt people release {} {}",
                held.reasons.join("; "),
                directory.issuer,
                held.digest
            );
            println!("             would lose their access: {}", held.logins.join(", "));
        }
    }
}

async fn check(state: &Path, hsmd: &Path, json: bool) -> Result<u8, AdminError> {
    let report = fsck::fsck(state, hsmd).await?;
    if json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        for finding in &report.findings {
            println!("{}: table {}, row {}: {}", finding.kind, finding.table, finding.key, finding.what);
        }
        if report.more > 0 {
            println!("and {} more", report.more);
        }
        if let Some(why) = &report.names_unchecked {
            println!("names were not checked: {why}");
        }
        for known in &report.appliances {
            let last = known.last_decision.map_or_else(|| "none".to_owned(), |last| last.to_string());
            println!(
                "appliance {}: consensus key {}, last decision {last}",
                known.appliance, known.consensus
            );
        }
        for enroller in &report.enrollers {
            println!("enroller {enroller}");
        }
        let verdict = if report.clean { "clean" } else { "DAMAGED" };
        println!(
            "{verdict}: {} heights, {} entries; derived up to height {}",
            report.heights, report.entries, report.derived_to
        );
    }
    Ok(if report.clean { 0 } else { 4 })
}

async fn get<T: DeserializeOwned>(run: &Path, path: &str) -> Result<T, AdminError> {
    call::<(), T>(run, "GET", path, None).await
}

/// One request over the admin socket. An answer of the type asked for counts whatever its status (health is 503 when
/// it is bad); a problem is an error.
async fn call<B: Serialize, T: DeserializeOwned>(
    run: &Path,
    method: &str,
    path: &str,
    body: Option<&B>,
) -> Result<T, AdminError> {
    let body = body.map(|body| serde_json::to_vec(body).unwrap_or_default()).unwrap_or_default();
    let (_, bytes) = exchange(run, method, path, body, ANSWER_BYTES_MAX).await?;
    match serde_json::from_slice(&bytes) {
        Ok(answer) => Ok(answer),
        Err(error) => Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => AdminError::Refused(Box::new(problem)),
            Err(_) => AdminError::Answer(error.to_string()),
        }),
    }
}

/// One request whose answer is no JSON.
async fn raw(run: &Path, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>, AdminError> {
    let (status, bytes) = exchange(run, method, path, body, FILE_BYTES_MAX).await?;
    if status.is_success() {
        return Ok(bytes.into());
    }
    Err(match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => AdminError::Refused(Box::new(problem)),
        Err(error) => AdminError::Answer(error.to_string()),
    })
}

async fn exchange(
    run: &Path,
    method: &str,
    path: &str,
    body: Vec<u8>,
    bytes_max: usize,
) -> Result<(http::StatusCode, bytes::Bytes), AdminError> {
    let socket = run.join("admin.sock");
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|source| AdminError::Unreachable { path: socket, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "zixtd")
        .body(Full::new(bytes::Bytes::from(body)))
        .map_err(|error| AdminError::Answer(error.to_string()))?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let bytes = body.map_err(|error| AdminError::Answer(error.to_string()))?.to_bytes();
        Ok::<_, AdminError>((status, bytes))
    };
    tokio::time::timeout(ANSWER_WAIT_MAX, answered).await.map_err(|_| AdminError::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[tokio::test]
    async fn a_failed_self_test_stops_what_makes_or_checks_keys() {
        let folder = tempfile::tempdir().unwrap();
        let command = |words: &str| {
            let path = folder.path().to_str().unwrap();
            let line = ["zixt-admin"].into_iter().chain(words.split(' ')).map(|word| match word {
                "FOLDER" => path,
                word => word,
            });
            Flags::try_parse_from(line).unwrap().command
        };
        for words in ["invite ada --run FOLDER", "fsck --state FOLDER"] {
            let stopped = perform(command(words), &Broken).await;
            assert!(matches!(stopped, Err(AdminError::SelfTest(_))), "{words}: {stopped:?}");
            // The control: otherwise nobody answers, or there is no network.
            let other = perform(command(words), &AwsLc).await;
            assert!(other.is_err() && !matches!(other, Err(AdminError::SelfTest(_))), "{words}: {other:?}");
        }
    }
}
