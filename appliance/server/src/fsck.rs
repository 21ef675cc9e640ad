//! Checking the whole store while the server does not run.

use crate::daemon::{DaemonError, Lock, read_network};
use crate::logging::chain;
use crate::names::Names;
use serde::Serialize;
use std::path::Path;
use thiserror::Error;
use zixt_crypto::digest;
use zixt_crypto_fast::AwsLc;
use zixt_hsm_protocol::HsmClient;
use zixt_ledger::{Account, System};
use zixt_storage::{FindingKind, FsckReport, OpenError, Store, StoreError};
use zixt_types::Genesis;

/// Why the store was not checked.
#[derive(Debug, Error)]
pub enum FsckError {
    /// The network's files, or the server runs.
    #[error(transparent)]
    Network(#[from] DaemonError),
    /// There is no store.
    #[error("there is no ledger at {0}")]
    Absent(String),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// One row that is not as it should be.
#[derive(Serialize, Debug)]
pub struct Finding {
    /// `altered`, `missing`, `extra`, `content-deleted` or `structure`.
    pub kind: &'static str,
    /// The table.
    pub table: &'static str,
    /// The row.
    pub key: String,
    /// In words.
    pub what: String,
}

/// The report as programs read it.
#[derive(Serialize, Debug)]
pub struct Report {
    /// Whether everything is as it should be. Content deleted by policy is.
    pub clean: bool,
    /// Heights looked at.
    pub heights: u64,
    /// Entries looked at.
    pub entries: u64,
    /// The last height up to which every header was derived from the entries.
    pub derived_to: u64,
    /// The hash of that header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derived_hash: Option<String>,
    /// Why the names were not checked, if they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names_unchecked: Option<String>,
    /// The findings.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
    /// What officers decided about each appliance, as the ledger has it; nothing of a damaged one.
    pub appliances: Vec<Known>,
    /// The hashes of the enrollers' present keys.
    pub enrollers: Vec<String>,
}

/// How far the ledger has an appliance's decisions: custody whose state is older goes on from there.
#[derive(Serialize, Debug)]
pub struct Known {
    /// The appliance.
    pub appliance: String,
    /// The hash of its consensus key.
    pub consensus: String,
    /// The number of its last decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<u64>,
}

fn known(system: &System) -> Vec<Known> {
    let known = system.validators.iter().map(|validator| Known {
        appliance: validator.appliance.to_string(),
        consensus: validator.consensus.to_hex(),
        last_decision: system.sequence(&validator.appliance),
    });
    known.collect()
}

impl Report {
    fn new(report: FsckReport, names_unchecked: Option<String>) -> Self {
        Self {
            names_unchecked,
            appliances: Vec::new(),
            enrollers: Vec::new(),
            clean: report.is_clean(),
            heights: report.heights,
            entries: report.entries,
            derived_to: report.derived_to.0,
            derived_hash: report.derived_hash.map(|hash| hash.to_hex()),
            more: report.more,
            findings: report
                .findings
                .into_iter()
                .map(|finding| Finding {
                    kind: match finding.kind {
                        FindingKind::Altered => "altered",
                        FindingKind::Missing => "missing",
                        FindingKind::Extra => "extra",
                        FindingKind::ContentDeleted => "content-deleted",
                        FindingKind::Structure => "structure",
                    },
                    table: finding.table,
                    key: finding.key,
                    what: finding.what,
                })
                .collect(),
        }
    }
}

/// Derives everything in the store of a state folder again and compares. Names are sealed under a key of custody: they
/// are checked if the daemon behind `hsmd` gives it.
///
/// # Errors
/// The store cannot be read at all; everything else is in the report.
pub async fn fsck(state: &Path, hsmd: &Path) -> Result<Report, FsckError> {
    let server = state.join("server");
    let (genesis, keyring) = read_network(&server)?;
    let _lock = Lock::take(&server)?;
    let path = server.join("ledger.sqlite");
    if !path.exists() {
        return Err(FsckError::Absent(path.display().to_string()));
    }
    let (names, unchecked) = match unseal_names(hsmd, &genesis).await {
        Ok(names) => (Some(names), None),
        Err(why) => (None, Some(why)),
    };
    let judge = |account: &Account, tag: &[u8], sealed: &[u8]| {
        names.as_ref().map_or(Ok(()), |names| judge_name(names, account, tag, sealed))
    };
    let store = Store::open(&path).await?;
    let report = zixt_storage::fsck(&store, genesis.clone(), keyring.clone(), &AwsLc, Some(&judge)).await;
    let sound = report.as_ref().is_ok_and(FsckReport::is_clean);
    let loaded = if sound { store.load(genesis, keyring, &AwsLc).await.ok() } else { None };
    store.close().await?;
    let mut report = Report::new(report?, unchecked);
    if let Some(state) = loaded {
        report.appliances = known(&state.system);
        let present = state.system.enrollers.iter().filter(|enroller| enroller.until.is_none());
        report.enrollers = present.map(|enroller| enroller.key.to_hex()).collect();
    }
    Ok(report)
}

/// The keys of the names, or why there are none.
async fn unseal_names(hsmd: &Path, genesis: &Genesis) -> Result<Names, String> {
    let custody = HsmClient::new(hsmd);
    let status = custody.status().await.map_err(|error| chain(&error))?;
    let ours = digest::genesis_hash(genesis);
    if let Some(pinned) = status.genesis.filter(|pinned| *pinned != ours) {
        return Err(format!("custody is bound to network {pinned}"));
    }
    let key = custody.unseal_row_key().await.map_err(|error| chain(&error))?;
    Ok(Names::new(&key))
}

/// Whether a row is the name that the account's entry commits to, under what this name is searched by.
fn judge_name(names: &Names, account: &Account, tag: &[u8], sealed: &[u8]) -> Result<(), &'static str> {
    let (name, salt) =
        names.open(account.id, sealed).map_err(|_| "it was not sealed for this account, or changed")?;
    if digest::name_commitment(&salt, &name) != account.name {
        return Err("it is not the name that the account's entry commits to");
    }
    if names.tag(&name).as_ref() != tag {
        return Err("it is searched by another name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::AeadKey;
    use zixt_types::{AccountId, Hash, Salt, Timestamp};

    #[test]
    fn a_name_is_the_one_that_the_entry_commits_to() {
        let names = Names::new(&AeadKey::from_bytes(&[1; 32]));
        let salt = Salt([3; 32]);
        let account = |id: u8, name: &str| Account {
            id: AccountId([id; 16]),
            name: digest::name_commitment(&salt, name),
            enroller: Hash::ZERO,
            invitation: Hash::ZERO,
            expires_at: Timestamp(0),
            invitation_used: true,
            devices: Vec::new(),
        };
        let (ada, bob) = (account(1, "Ada"), account(2, "Bob"));
        let sealed = names.seal(ada.id, "Ada", &salt).unwrap();
        let judge = |account, name, sealed| judge_name(&names, account, names.tag(name).as_ref(), sealed);
        assert_eq!(judge(&ada, "Ada", &sealed), Ok(()));
        assert!(judge(&bob, "Ada", &sealed).unwrap_err().contains("sealed"));
        assert!(judge(&ada, "Bob", &sealed).unwrap_err().contains("searched"));
        let other = names.seal(ada.id, "Bob", &salt).unwrap();
        assert!(judge(&ada, "Bob", &other).unwrap_err().contains("commits"));
        let other = names.seal(ada.id, "Ada", &Salt([4; 32])).unwrap();
        assert!(judge(&ada, "Ada", &other).unwrap_err().contains("commits"));
    }
}
