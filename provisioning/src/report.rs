//! A genesis in words, as officers and auditors read it.

use std::fmt::Write as _;
use zixt_crypto::digest;
use zixt_types::{Genesis, UnlockMode};

/// The genesis as text, one fact a line.
#[must_use]
pub fn describe(genesis: &Genesis) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _infallible = writeln!(text, "{name:<22} {value}");
    };
    line("network", &genesis.network);
    line("genesis hash", &digest::genesis_hash(genesis));
    if genesis.lab {
        line("LAB", &"not for production: officers' keys and their passphrase lie on this machine");
    }
    let suites: Vec<_> = genesis.suites.iter().map(|suite| suite.name()).collect();
    line("suites", &suites.join(", "));
    line("organisation key", &genesis.organisation);
    for officer in &genesis.officers {
        line(&format!("officer {}", officer.name), &officer.key);
    }
    let required = format!("{} of {}", genesis.officers_required, genesis.officers.len());
    line("officers required", &required);
    for enroller in &genesis.enrollers {
        line("enroller", enroller);
    }
    for validator in &genesis.validators {
        line("validator", &validator.appliance);
        line("  consensus key", &validator.consensus);
        line("  custody", &validator.custody.describe());
        line("  TLS key", &validator.tls);
        line("  stake", &validator.stake);
    }
    line("shards", &genesis.shard_count);
    let unlock = match genesis.unlock {
        UnlockMode::Attended => "attended: a person enters the PIN after each power-on",
        UnlockMode::Unattended => {
            "unattended: whoever steals the box and switches it on has a running appliance"
        }
    };
    line("unlock", &unlock);
    let rotation = format!(
        "after {} messages or {} hours",
        genesis.rotation.messages_max,
        genesis.rotation.age_ms_max / 3_600_000
    );
    line("key rotation", &rotation);
    text
}
