//! `zixt-provision`: gives an appliance its keys and its network.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use zixt_crypto::{Backend, Reference, selftest};
use zixt_hsm_protocol::BlockingHsmClient;
use zixt_provisioning::{lab, report};
use zixt_types::{RotationPolicy, SuiteId};

#[derive(Parser)]
#[command(version, about = "Gives an appliance its keys and its network")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a lab network on this appliance, or show the one that is there. Never for production.
    Lab {
        /// The appliance's state folder.
        #[arg(long)]
        state: PathBuf,
        /// The custody daemon's socket.
        #[arg(long)]
        hsmd: PathBuf,
        /// standard (ML-DSA-65) or cnsa (ML-DSA-87).
        #[arg(long, default_value = "standard", value_parser = suite)]
        suite: SuiteId,
        /// The network's name.
        #[arg(long, default_value = "zixt lab")]
        network: String,
        /// Shards, for ever.
        #[arg(long, default_value_t = 4)]
        shards: u16,
        /// Conversations rotate their keys after this many messages.
        #[arg(long, default_value_t = 100)]
        rotate_messages: u32,
        /// Conversations rotate their keys after this many hours.
        #[arg(long, default_value_t = 24)]
        rotate_hours: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a genesis file in words.
    Show {
        /// The genesis file.
        genesis: PathBuf,
    },
}

fn suite(name: &str) -> Result<SuiteId, String> {
    SuiteId::from_name(name).ok_or_else(|| "the suites are standard and cnsa".to_owned())
}

fn main() -> ExitCode {
    match run(Arguments::parse().command, &Reference) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zixt-provision: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Performs a command. `backend` is what everything here computes with; it is tried before anything is made.
fn run(command: Command, backend: &dyn Backend) -> Result<(), Box<dyn std::error::Error>> {
    selftest::run(backend)?;
    match command {
        Command::Lab { state, hsmd, suite, network, shards, rotate_messages, rotate_hours, json } => {
            let plan = lab::LabPlan {
                state,
                suite,
                network,
                officers: (3, 2),
                shard_count: shards,
                rotation: RotationPolicy {
                    messages_max: rotate_messages,
                    age_ms_max: u64::from(rotate_hours) * 3_600_000,
                },
            };
            let network = lab::ensure(&plan, &BlockingHsmClient::new(hsmd))?;
            if json {
                let tls = network.genesis.validators.first().map(|validator| validator.tls.to_hex());
                println!(
                    "{}",
                    serde_json::json!({
                        "genesis": network.hash.to_hex(),
                        "network": network.genesis.network,
                        "lab": network.genesis.lab,
                        "created": network.created,
                        "tls": tls,
                    })
                );
            } else {
                println!("{}", if network.created { "A new lab network:" } else { "The lab network:" });
                print!("{}", report::describe(&network.genesis));
            }
            Ok(())
        }
        Command::Show { genesis } => {
            let network = lab::read_genesis(&genesis)?
                .ok_or_else(|| format!("{}: there is no such file", genesis.display()))?;
            print!("{}", report::describe(&network));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[test]
    fn a_failed_self_test_stops_before_anything_is_made() {
        let show = || Command::Show { genesis: PathBuf::from("there is no such file") };
        let said = |backend: &dyn Backend| run(show(), backend).unwrap_err().to_string();
        assert!(said(&Broken).starts_with("self-test of backend broken failed: ML-DSA-65"));
        // The control: otherwise the file is looked for.
        assert!(said(&Reference).contains("there is no such file"));
    }
}
