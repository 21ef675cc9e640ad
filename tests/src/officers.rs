//! The officers of a lab, with their own program.

use crate::Appliance;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The officers of a lab, with their key files, in a folder that outlives the appliance.
pub struct Officers {
    folder: tempfile::TempDir,
}

impl Officers {
    /// Takes a copy of what the lab made for them.
    #[must_use]
    pub fn of(appliance: &Appliance) -> Self {
        let folder = tempfile::tempdir().expect("the officers' folder");
        for n in 1..=3 {
            for ending in ["zixt-key", "zixt-officer"] {
                let name = format!("officer-{n}.{ending}");
                fs::copy(appliance.state().join("lab").join(&name), folder.path().join(&name))
                    .expect("the officers' folder");
            }
        }
        let (lab, passphrase) = (appliance.state().join("lab"), "officers.passphrase");
        fs::copy(lab.join(passphrase), folder.path().join(passphrase)).expect("the officers' folder");
        let genesis = appliance.state().join("server/genesis.cbor");
        fs::copy(genesis, folder.path().join("genesis.cbor")).expect("the officers' folder");
        Self { folder }
    }

    /// A file of theirs.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as an argument.
    #[must_use]
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("the officers' folder").to_owned()
    }

    /// All cards.
    #[must_use]
    pub fn cards(&self) -> Vec<String> {
        (1..=3).map(|n| self.arg(&format!("officer-{n}.zixt-officer"))).collect()
    }

    /// `zixt-officer` in the hands of an officer.
    pub fn with_key(&self, by: &Appliance, officer: u8, arguments: &[&str]) -> String {
        let (key, passphrase) =
            (self.arg(&format!("officer-{officer}.zixt-key")), self.arg("officers.passphrase"));
        let own = ["--key", &key, "--passphrase-file", &passphrase];
        by.must("zixt-officer", &[arguments, &own].concat())
    }

    /// Two officers approve what a file asks for. Returns the transcript's file.
    #[must_use]
    pub fn approve(&self, by: &Appliance, file: &str, officers: [u8; 2]) -> String {
        let genesis = self.arg("genesis.cbor");
        let transcript = format!("{file}.zixt-transcript");
        let mut collect = vec!["collect".to_owned(), file.to_owned()];
        for officer in officers {
            let approval = format!("{file}.{officer}.zixt-approval");
            let _said = self.with_key(
                by,
                officer,
                &["approve", file, "-o", &approval, "--yes", "--genesis", &genesis],
            );
            collect.push(approval);
        }
        collect.extend(["-o", &transcript, "--genesis", &genesis].map(str::to_owned));
        let collect: Vec<&str> = collect.iter().map(String::as_str).collect();
        by.must("zixt-officer", &collect);
        transcript
    }

    /// Custody proposes, two officers approve.
    #[must_use]
    pub fn proposed(&self, by: &Appliance, proposal: &[&str], officers: [u8; 2]) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let action = self.arg(&format!("{}.zixt-action", NUMBER.fetch_add(1, Ordering::Relaxed)));
        by.hsm(&[&["propose"], proposal, &["-o", &action]].concat());
        self.approve(by, &action, officers)
    }

    /// Gives all three shares, two of which recover.
    pub fn set_recovery(&self, by: &Appliance) {
        let cards = self.cards();
        let cards: Vec<&str> = cards.iter().map(String::as_str).collect();
        let transcript = self.proposed(by, &[&["recovery", "--threshold", "2"], &cards[..]].concat(), [1, 2]);
        let given: Vec<&str> = cards.iter().flat_map(|card| ["--card", card]).collect();
        by.hsm(&[&["apply", &transcript], &given[..]].concat());
    }
}
