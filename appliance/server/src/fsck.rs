//! Checking the whole store while the server does not run.

use crate::daemon::{DaemonError, Lock, read_network};
use serde::Serialize;
use std::path::Path;
use thiserror::Error;
use zixt_crypto_fast::AwsLc;
use zixt_storage::{FindingKind, FsckReport, OpenError, Store, StoreError};

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
    /// The findings.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
}

impl From<FsckReport> for Report {
    fn from(report: FsckReport) -> Self {
        Self {
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

/// Derives everything in the store of a state folder again and compares.
///
/// # Errors
/// The store cannot be read at all; everything else is in the report.
pub async fn fsck(state: &Path) -> Result<Report, FsckError> {
    let server = state.join("server");
    let (genesis, keyring) = read_network(&server)?;
    let _lock = Lock::take(&server)?;
    let path = server.join("ledger.sqlite");
    if !path.exists() {
        return Err(FsckError::Absent(path.display().to_string()));
    }
    let store = Store::open(&path).await?;
    let report = zixt_storage::fsck(&store, genesis, keyring, &AwsLc).await;
    store.close().await?;
    Ok(report?.into())
}
