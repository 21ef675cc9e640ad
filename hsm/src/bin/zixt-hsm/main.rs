//! `zixt-hsm`, the admin tool of the custody daemon.

mod backup;
mod image;
mod propose;
mod text;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zixt_ceremony::file::{from_file, to_file};
use zixt_ceremony::{OfficerCard, RecoveryRecord};
use zixt_crypto::{Backend, Reference, selftest};
use zixt_hsm::config::{Config, DEFAULT_PATH, read_pin};
use zixt_hsm::logging::chain;
use zixt_hsm_protocol::{
    BlockingHsmClient, Card, ClientError, Finding, KeyPurpose, NamedPin, Pin, Request, Response, StateKind,
    TakenDecision,
};
use zixt_measured::{Attestation, NONCE_BYTES, registers_to_text};
use zixt_types::{Canonical as _, Transcript};

/// Looks at, unlocks and changes the custody of the appliance's private keys.
///
/// Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 `status`: custody does not sign, `doctor` and `self-test`:
/// something is wrong.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Socket of zixt-hsmd; taken from the configuration if not given
    #[arg(long, value_name = "PATH", global = true, env = "ZIXT_HSMD_SOCKET")]
    socket: Option<PathBuf>,
    /// Configuration file of zixt-hsmd
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, global = true, env = "ZIXT_HSMD_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show state, protectors, keys, genesis and advice
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List every key, retired ones too
    List,
    /// Say what is wrong and what to do about it
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try every algorithm and key
    SelfTest {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Enter a protector's PIN
    Unlock {
        /// Which one, if not the first
        #[arg(long, value_name = "NAME")]
        protector: Option<String>,
        /// Read the PIN from a file instead of the terminal
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
    },
    /// Forget the keys until the next unlock
    Lock,
    /// Give a protector another PIN
    ChangePin {
        /// The protector
        name: String,
        /// Read the old PIN from a file
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
        /// Read the new PIN from a file
        #[arg(long, value_name = "FILE")]
        new_pin_file: Option<PathBuf>,
    },
    /// Seal the TPM's key anew before an update: to what its registers will hold, or to what the configuration says now
    Reseal {
        /// What they will hold, as a text: `11 = VALUE`, or `11 + DIGEST` for each measured event in its order
        #[arg(long, value_name = "FILE")]
        registers: Option<PathBuf>,
        /// Read the TPM's PIN from a file
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
    },
    /// Let the TPM sign what the machine started, for an officer to check with `zixt-officer quote check`
    Quote {
        /// What `zixt-officer quote nonce` printed on the officer's machine
        #[arg(long, value_name = "HEX", value_parser = image::nonce)]
        nonce: [u8; NONCE_BYTES],
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Put an approval of the next image where custody looks for it. Needs no running zixt-hsmd
    InstallApproval {
        /// What `zixt-officer image approve` wrote
        approval: PathBuf,
    },
    /// Enrol another protector of the configuration. Once the network is known, with the officers' approval
    AddProtector {
        /// Its name: a token's label, or `tpm`
        name: String,
        /// Read its PIN from a file
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
        /// What the officers approved
        #[arg(long, value_name = "FILE")]
        transcript: Option<PathBuf>,
    },
    /// Make a key that officers may activate
    Generate {
        /// consensus or enroller
        #[arg(value_parser = purpose)]
        purpose: KeyPurpose,
    },
    /// Write an action for officers to approve with zixt-officer
    Propose {
        #[command(subcommand)]
        what: propose::What,
        /// The action's file
        #[arg(short, long, value_name = "FILE", global = true, default_value = "custody.zixt-action")]
        out: PathBuf,
    },
    /// Carry out what officers approved
    Apply {
        /// The transcript of zixt-officer collect
        transcript: PathBuf,
        /// A protector's PIN, as NAME=FILE; asked at the terminal where it is missing
        #[arg(long = "pin", value_name = "NAME=FILE")]
        pins: Vec<String>,
        /// Officers' cards, where the decision gives out shares
        #[arg(long = "card", value_name = "FILE")]
        cards: Vec<PathBuf>,
    },
    /// Write the recovery record with the officers' sealed shares, and each officer's share
    Shares {
        /// A folder
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Write the decisions that custody took, for `zixt-admin decide`
    Decisions {
        /// A folder
        #[arg(short, long, value_name = "FOLDER")]
        out: PathBuf,
        /// From this number on
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Back up custody and a stopped server's folder into one encrypted file
    Backup {
        /// The server's state folder (STATE/server)
        #[arg(long, value_name = "FOLDER")]
        server: PathBuf,
        /// The backup
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Recover a backup on a machine without keys
    Recover {
        #[command(subcommand)]
        step: backup::Recover,
    },
}

fn purpose(name: &str) -> Result<KeyPurpose, String> {
    let found = KeyPurpose::ALL.into_iter().find(|purpose| purpose.name() == name);
    found.ok_or_else(|| format!("the keys are {}", KeyPurpose::ALL.map(KeyPurpose::name).join(", ")))
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &Reference) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zixt-hsm: {}", chain(&*error));
            if let Some(error) = error.downcast_ref::<ClientError>() {
                eprintln!("{} [{}]", error.advice(), error.code());
            }
            ExitCode::FAILURE
        }
    }
}

/// Performs a command. The daemon tries its own cryptography; `backend` is what this program seals, opens and checks
/// with, and the commands that do so try it first.
fn run(arguments: &Arguments, backend: &dyn Backend) -> Result<ExitCode, Failure> {
    if let Command::Propose { .. }
    | Command::Apply { .. }
    | Command::Backup { .. }
    | Command::Recover { .. } = arguments.command
    {
        selftest::run(backend)?;
    }
    if let Command::InstallApproval { approval } = &arguments.command {
        return image::install_approval(&Config::read(&arguments.config)?, approval);
    }
    let socket = match &arguments.socket {
        Some(socket) => socket.clone(),
        None => Config::read(&arguments.config)?.socket,
    };
    let client = BlockingHsmClient::new(socket);
    let mut out = std::io::stdout().lock();
    match &arguments.command {
        Command::Status { json } => {
            let status = client.status()?;
            if *json {
                serde_json::to_writer_pretty(&mut out, &text::as_json(&status))?;
                writeln!(out)?;
            } else {
                write!(out, "{}", text::as_text(&status))?;
            }
            return Ok(if status.state == StateKind::Operational {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(3)
            });
        }
        Command::List => write!(out, "{}", text::keys(&client.status()?))?,
        Command::Doctor { json } => return tell(&mut out, &ask(&client, &Request::Doctor)?, *json),
        Command::SelfTest { json } => return tell(&mut out, &ask(&client, &Request::SelfTest)?, *json),
        Command::Unlock { protector, pin_file } => {
            let pin = pin(pin_file.as_deref(), protector.as_deref().unwrap_or("the token"))?;
            let request = Request::Unlock { pin, protector: protector.clone() };
            let Response::Unlocked(state) = client.call(&request)? else { return unexpected() };
            writeln!(out, "{state}")?;
        }
        Command::Lock => {
            client.lock()?;
            writeln!(out, "locked")?;
        }
        Command::ChangePin { name, pin_file, new_pin_file } => {
            let old = pin(pin_file.as_deref(), name)?;
            let new = new_pin(new_pin_file.as_deref(), name)?;
            let request = Request::ChangePin { protector: name.clone(), old, new };
            let Response::PinChanged = client.call(&request)? else { return unexpected() };
            writeln!(out, "{name} has another PIN")?;
        }
        Command::Reseal { registers, pin_file } => {
            let values = registers.as_deref().map(image::read_registers).transpose()?;
            let request = Request::Reseal {
                protector: "tpm".to_owned(),
                pin: pin(pin_file.as_deref(), "tpm")?,
                values: values.as_ref().map(|values| values.to_bytes()),
            };
            let Response::Resealed = client.call(&request)? else { return unexpected() };
            writeln!(out, "the TPM is sealed anew")?;
            if let Some(values) = values {
                write!(out, "after the next start it opens only with\n{}", registers_to_text(&values))?;
            }
        }
        Command::Quote { nonce, out: path } => {
            let Response::Quoted(bytes) = client.call(&Request::Quote { nonce: *nonce })? else {
                return unexpected();
            };
            write_new(path, &bytes)?;
            let attestation = Attestation::parse(&bytes)?;
            writeln!(out, "attestation key {}", attestation.key.id())?;
            write!(out, "{}", registers_to_text(attestation.quote.values()))?;
            writeln!(out, "written to {}; officer: zixt-officer quote check", path.display())?;
        }
        // Above, before there is a client.
        Command::InstallApproval { .. } => return unexpected(),
        Command::AddProtector { name, pin_file, transcript } => {
            let transcript = transcript.as_deref().map(read_transcript).transpose()?;
            // A TPM takes its first PIN from here.
            let pin = if name == "tpm" {
                new_pin(pin_file.as_deref(), name)?
            } else {
                pin(pin_file.as_deref(), name)?
            };
            let request = Request::AddProtector { name: name.clone(), pin, transcript };
            let Response::ProtectorAdded(id) = client.call(&request)? else { return unexpected() };
            writeln!(out, "{name} wraps the root ({id})")?;
        }
        Command::Generate { purpose } => {
            let request = Request::GenerateKey { purpose: *purpose };
            let Response::Generated(key) = client.call(&request)? else { return unexpected() };
            writeln!(out, "{} key {} is pending ({})", purpose.name(), key.hash, key.custody.describe())?;
            writeln!(out, "next: zixt-hsm propose activate {}", purpose.name())?;
        }
        Command::Propose { what, out: path } => {
            let action = propose::action(&client.status()?, what)?;
            write_new(path, &to_file(&action))?;
            write!(out, "{}", zixt_ceremony::describe_text(&zixt_ceremony::describe(&action)))?;
            writeln!(out, "\nwritten to {}; officers: zixt-officer approve", path.display())?;
        }
        Command::Apply { transcript, pins, cards } => {
            let request = Request::Decide {
                transcript: read_transcript(transcript)?,
                pins: pins.iter().map(|text| named_pin(text)).collect::<Result<_, _>>()?,
                cards: cards.iter().map(|path| read_card(path)).collect::<Result<_, _>>()?,
            };
            for line in decide(&client, request)? {
                writeln!(out, "{line}")?;
            }
        }
        Command::Shares { out: folder } => {
            let Response::Recovery(record) = client.call(&Request::Recovery)? else { return unexpected() };
            let Some(record) = record else {
                return Err("no recovery is set: `zixt-hsm propose recovery`".into());
            };
            let record = RecoveryRecord::parse(&record)?;
            std::fs::create_dir_all(folder)?;
            write_new(&folder.join("recovery.zixt-recovery"), &to_file(&record))?;
            for share in &record.shares {
                let name = format!("share-{}.zixt-share", share.index);
                write_new(&folder.join(&name), &to_file(share))?;
                writeln!(out, "{name} is for officer {}", share.officer)?;
            }
        }
        Command::Decisions { out: folder, from } => {
            std::fs::create_dir_all(folder)?;
            let mut from = *from;
            loop {
                let Response::Decisions(taken) = client.call(&Request::Decisions { from })? else {
                    return unexpected();
                };
                let Some(last) = taken.last() else { break };
                from = last.sequence + 1;
                for decision in &taken {
                    let (name, transcript) = decision_file(decision)?;
                    write_new(&folder.join(&name), &transcript)?;
                    writeln!(out, "{name}")?;
                }
            }
        }
        Command::Backup { server, out: path } => backup::backup(&client, server, path, &mut out)?,
        Command::Recover { step } => backup::recover(&client, step, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A decision that custody took, as a file: its name and what is in it.
fn decision_file(decision: &TakenDecision) -> Result<(String, Vec<u8>), Failure> {
    let name = format!("decision-{}.zixt-transcript", decision.sequence);
    Ok((name, to_file(&Transcript::parse(&decision.transcript)?)))
}

/// Carries out a decision; PINs that turn out to be needed are asked for at the terminal, once.
fn decide(client: &BlockingHsmClient, request: Request) -> Result<Vec<String>, Failure> {
    use std::io::IsTerminal as _;
    let missing = match client.call(&request) {
        Ok(Response::Decided(done)) => return Ok(done),
        Err(ClientError::Custody(zixt_hsm_protocol::CustodyError::PinsMissing { names }))
            if std::io::stdin().is_terminal() =>
        {
            names
        }
        Ok(_) => return Err(ClientError::Unexpected.into()),
        Err(error) => return Err(error.into()),
    };
    let Request::Decide { transcript, mut pins, cards } = request else {
        return Err(ClientError::Unexpected.into());
    };
    for name in missing.split(", ") {
        pins.push(NamedPin { protector: name.to_owned(), pin: pin(None, name)? });
    }
    match client.call(&Request::Decide { transcript, pins, cards })? {
        Response::Decided(done) => Ok(done),
        _ => Err(ClientError::Unexpected.into()),
    }
}

fn unexpected<T>() -> Result<T, Failure> {
    Err(ClientError::Unexpected.into())
}

fn ask(client: &BlockingHsmClient, request: &Request) -> Result<Vec<Finding>, Failure> {
    match client.call(request)? {
        Response::Findings(findings) => Ok(findings),
        _ => unexpected(),
    }
}

fn tell(out: &mut impl std::io::Write, findings: &[Finding], json: bool) -> Result<ExitCode, Failure> {
    if json {
        serde_json::to_writer_pretty(&mut *out, &text::findings_json(findings))?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text::findings(findings))?;
    }
    let good = findings.iter().all(|finding| finding.good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn pin(file: Option<&Path>, whose: &str) -> Result<Pin, Failure> {
    match file {
        Some(path) => Ok(read_pin(path)?),
        None => Ok(Pin::new(rpassword::prompt_password(format!("PIN of {whose}: "))?)?),
    }
}

/// A PIN that nobody has typed before: asked twice.
fn new_pin(file: Option<&Path>, whose: &str) -> Result<Pin, Failure> {
    if file.is_some() {
        return pin(file, whose);
    }
    let first = Pin::new(rpassword::prompt_password(format!("New PIN of {whose}: "))?)?;
    let again = Pin::new(rpassword::prompt_password("The same again: ")?)?;
    if first == again { Ok(first) } else { Err("the two are not the same; nothing was changed".into()) }
}

fn named_pin(text: &str) -> Result<NamedPin, Failure> {
    let (name, file) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=FILE"))?;
    Ok(NamedPin { protector: name.to_owned(), pin: read_pin(Path::new(file))? })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn read_transcript(path: &Path) -> Result<Vec<u8>, Failure> {
    let transcript: Transcript =
        from_file(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(transcript.to_bytes())
}

fn read_card(path: &Path) -> Result<Card, Failure> {
    let card: OfficerCard =
        from_file(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    card.verify(&Reference)?;
    Ok(Card { officer: card.officer(), kem: card.kem })
}

/// Writes a file that is not there yet, so that nothing is ever overwritten by mistake.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[test]
    fn a_failed_self_test_stops_what_seals_opens_or_checks() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = |words: &str| {
            let path = folder.path().to_str().unwrap();
            let own = ["zixt-hsm", "--config", path];
            let words = words.split(' ').map(|word| if word == "FILE" { path } else { word });
            Arguments::try_parse_from(own.into_iter().chain(words)).unwrap()
        };
        for words in [
            "propose activate consensus",
            "apply FILE",
            "backup --server FILE -o FILE",
            "recover begin FILE -o FILE",
        ] {
            let arguments = arguments(words);
            let said = |backend: &dyn Backend| run(&arguments, backend).unwrap_err().to_string();
            let stopped = said(&Broken);
            assert!(
                stopped.starts_with("self-test of backend broken failed: ML-DSA-65"),
                "{words}: {stopped}"
            );
            // The control: otherwise the configuration cannot be read.
            assert!(!said(&Reference).contains("self-test"), "{words}");
        }
    }
}
