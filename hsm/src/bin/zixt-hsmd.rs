//! `zixt-hsmd`, the custody daemon.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use zixt_hsm::config::{Config, DEFAULT_PATH};
use zixt_hsm::lab::{LabToken, init_token};
use zixt_hsm::{daemon, lab};

/// Keeps the appliance's private keys and signs with them, for named purposes only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, env = "ZIXT_HSMD_CONFIG")]
    config: PathBuf,
    /// Lab only: make the configured software token if it does not exist, and end. PIN files that do not exist are
    /// made with random PINs
    #[arg(long, requires = "so_pin_file")]
    lab_init_token: bool,
    /// Lab only: file of the security officer's PIN of the new token
    #[arg(long, value_name = "FILE")]
    so_pin_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    daemon::main(|| {
        let config = Config::read(&arguments.config)?;
        match (arguments.lab_init_token, arguments.so_pin_file) {
            (true, Some(so_pin_file)) => Ok(make_lab_token(&config, &so_pin_file)?),
            _ => Ok(daemon::run(&config)?),
        }
    })
}

fn make_lab_token(config: &Config, so_pin_file: &std::path::Path) -> Result<(), lab::LabError> {
    match init_token(config, so_pin_file)? {
        LabToken::Made(token) => println!("made the lab token {} (serial {})", token.label, token.serial),
        LabToken::Found(token) => println!("found the token {} (serial {})", token.label, token.serial),
    }
    Ok(())
}
