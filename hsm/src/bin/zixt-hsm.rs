//! `zixt-hsm`, the admin tool of the custody daemon.

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use zixt_hsm::config::{Config, DEFAULT_PATH, read_pin};
use zixt_hsm::logging::chain;
use zixt_hsm_protocol::{BlockingHsmClient, ClientError, Pin, StateKind, Status};
use zixt_types::UnlockMode;

/// Looks at and unlocks the custody of the appliance's private keys.
///
/// Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 `status`: custody does not sign.
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
    /// Show state, keys, genesis and advice
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Enter the token's PIN
    Unlock {
        /// Read the PIN from a file instead of the terminal
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
    },
    /// Forget the keys until the next unlock
    Lock,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
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

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
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
                serde_json::to_writer_pretty(&mut out, &as_json(&status))?;
                writeln!(out)?;
            } else {
                write!(out, "{}", as_text(&status))?;
            }
            Ok(if status.state == StateKind::Operational { ExitCode::SUCCESS } else { ExitCode::from(3) })
        }
        Command::Unlock { pin_file } => {
            let pin = match pin_file {
                Some(path) => read_pin(path)?,
                None => Pin::new(rpassword::prompt_password("PIN of the token: ")?)?,
            };
            writeln!(out, "{}", client.unlock(pin)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Lock => {
            client.lock()?;
            writeln!(out, "locked")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

const fn unlock_name(mode: UnlockMode) -> &'static str {
    match mode {
        UnlockMode::Attended => "attended",
        UnlockMode::Unattended => "unattended",
    }
}

/// What a thief gets who takes the switched-off appliance and its token, in the words for officers.
const fn unlock_text(mode: UnlockMode) -> &'static str {
    match mode {
        UnlockMode::Attended => "attended: after a power-on it signs only when a person has entered the PIN",
        UnlockMode::Unattended => {
            "unattended: whoever takes box and token and switches it on has an appliance that signs"
        }
    }
}

fn as_text(status: &Status) -> String {
    let mut lines = vec![format!("state      {}", status.state)];
    if !status.reason.is_empty() {
        lines.push(format!("reason     {}", status.reason));
    }
    if !status.advice.is_empty() {
        lines.push(format!("to do      {}", status.advice));
    }
    if let Some(genesis) = status.genesis {
        lines.push(format!("genesis    {genesis}"));
    }
    if status.lab == Some(true) {
        lines.push("lab        yes: these keys are not for production".to_owned());
    }
    lines.push(format!("unlock     {}", unlock_text(status.unlock)));
    if let Some(token) = &status.token {
        let software = if token.software { ", SOFTWARE: no hardware protects its keys" } else { "" };
        lines
            .push(format!("token      {} (serial {}, {}{software})", token.label, token.serial, token.model));
    }
    if let Some(vote) = status.last_vote {
        lines.push(format!("last vote  {vote}"));
    }
    if let Some(precommit) = status.last_precommit {
        lines.push(format!("precommit  {precommit}"));
    }
    for key in &status.keys {
        let what = format!("{}, {}", key.suite, key.custody.describe());
        lines.push(format!("key        {:<9} {} ({what})", key.purpose.name(), key.hash));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn as_json(status: &Status) -> serde_json::Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys = status.keys.iter().map(|key| {
        serde_json::json!({
            "purpose": key.purpose.name(),
            "hash": key.hash.to_hex(),
            "suite": key.suite.name(),
            "public_key": hex(&key.public_key),
            "custody": key.custody.describe(),
        })
    });
    serde_json::json!({
        "state": status.state.name(),
        "reason": status.reason,
        "advice": status.advice,
        "genesis": status.genesis.map(|genesis| genesis.to_hex()),
        "lab": status.lab,
        "unlock": unlock_name(status.unlock),
        "last_vote": status.last_vote.map(|vote| serde_json::json!({
            "height": vote.height.0,
            "round": vote.round.0,
            "step": format!("{:?}", vote.step).to_lowercase(),
        })),
        "last_precommit": status.last_precommit.map(|precommit| serde_json::json!({
            "height": precommit.height.0,
            "round": precommit.round.0,
            "header": precommit.header.to_hex(),
        })),
        "token": status.token.as_ref().map(|token| serde_json::json!({
            "label": token.label,
            "serial": token.serial,
            "model": token.model,
            "software": token.software,
        })),
        "keys": keys.collect::<Vec<_>>(),
    })
}
