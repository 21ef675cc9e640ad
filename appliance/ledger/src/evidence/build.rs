//! Making evidence from what a client or a server has at hand.

use super::report::Report;
use super::{
    AccountEvidence, AccountName, Evidence, EvidenceEntry, Signature, SystemEvidence, ThreadEvidence,
};
use crate::Keyring;
use crate::map::MapProof;
use crate::system::changes_sets;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use zixt_crypto::Backend;
use zixt_types::{AccountId, Author, Body, Canonical, Certificate, DeviceId, Genesis, Header, Payload};

/// Why no evidence was made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BuildError {
    /// The parts do not prove what they should. Better to learn it now than from the auditor.
    #[error("the evidence would not pass verification")]
    WouldFail(Box<Report>),
}

/// Puts evidence together and leaves out what proves nothing.
#[derive(Clone, Debug)]
pub struct EvidenceBuilder {
    genesis: Genesis,
    header: Header,
    certificate: Certificate,
    keyring: Keyring,
    accounts: BTreeMap<AccountId, AccountEvidence>,
    names: BTreeMap<AccountId, AccountName>,
    system: Option<SystemEvidence>,
}

impl EvidenceBuilder {
    /// Begins evidence under a certified header. The keyring may hold more keys than are needed.
    #[must_use]
    pub const fn new(genesis: Genesis, header: Header, certificate: Certificate, keyring: Keyring) -> Self {
        Self {
            genesis,
            header,
            certificate,
            keyring,
            accounts: BTreeMap::new(),
            names: BTreeMap::new(),
            system: None,
        }
    }

    /// Adds the system thread: every entry, and the proof under the same header that the last one is the thread's head.
    /// It is left out again where no key was ever replaced.
    #[must_use]
    pub fn system(mut self, mut entries: Vec<EvidenceEntry>, head: MapProof) -> Self {
        let mut needed = false;
        for entry in &mut entries {
            let changes = Body::parse(&entry.body).is_ok_and(|body| match &body.payload {
                Payload::Decision { action } => changes_sets(&action.decision),
                _ => false,
            });
            needed |= changes;
            if !changes {
                entry.signature = entry.signature.to_digest();
            }
        }
        self.system = needed.then_some(SystemEvidence { entries, head });
        self
    }

    /// Adds an author's account: every entry of its thread, and the proof under the same header that the last one is
    /// the thread's head.
    #[must_use]
    pub fn account(mut self, account: AccountId, entries: Vec<EvidenceEntry>, head: MapProof) -> Self {
        self.accounts.insert(account, AccountEvidence { account, entries, head, name: None });
        self
    }

    /// Discloses an author's name.
    #[must_use]
    pub fn name(mut self, account: AccountId, name: AccountName) -> Self {
        self.names.insert(account, name);
        self
    }

    /// Finishes the evidence: leaves out the signatures and keys that lead to no author, and verifies the rest.
    ///
    /// # Errors
    /// [`BuildError::WouldFail`] with the verdicts.
    pub fn finish(self, thread: ThreadEvidence, backend: &dyn Backend) -> Result<Evidence, BuildError> {
        let Self { genesis, header, certificate, keyring, mut accounts, mut names, system } = self;
        let authors = authors(&thread.entries);
        for account in accounts.values_mut() {
            strip(&mut account.entries, &authors);
            account.name = names.remove(&account.account);
        }
        let accounts = accounts.into_values().collect();
        let mut evidence = Evidence { genesis, header, certificate, keyring, accounts, thread, system };
        let (_, used) = evidence.verify_with_keys(backend);
        let mut keyring = Keyring::default();
        for (_, entry) in evidence.keyring.iter().filter(|(hash, _)| used.contains(hash)) {
            keyring.insert(entry.suite, &entry.key);
        }
        evidence.keyring = keyring;
        let (report, _) = evidence.verify_with_keys(backend);
        if report.is_ok() { Ok(evidence) } else { Err(BuildError::WouldFail(Box::new(report))) }
    }
}

/// The devices that wrote these entries.
fn authors(entries: &[EvidenceEntry]) -> BTreeSet<DeviceId> {
    let author = |entry: &EvidenceEntry| match Body::parse(&entry.body).ok()?.author {
        Author::Device(member) => Some(member.device),
        Author::Enroller(_) | Author::Invitation(_) | Author::Officers => None,
    };
    entries.iter().filter_map(author).collect()
}

/// Reduces signatures of an account's thread to digests unless they lead to one of these devices: the invitation's, and
/// from device to device. The chain and its proof stay whole.
fn strip(entries: &mut [EvidenceEntry], authors: &BTreeSet<DeviceId>) {
    let mut wanted = authors.clone();
    // Backwards: whoever signed a wanted addition is wanted too, and was added before.
    for entry in entries.iter_mut().rev() {
        entry.possession = entry.possession.as_ref().map(Signature::to_digest);
        let Ok(body) = Body::parse(&entry.body) else { continue };
        let needed = match body.payload {
            Payload::Invite { .. } => true,
            Payload::DeviceAdd { device, .. } => wanted.contains(&device),
            _ => false,
        };
        match body.author {
            Author::Device(member) if needed => {
                wanted.insert(member.device);
            }
            _ if needed => {}
            _ => entry.signature = entry.signature.to_digest(),
        }
    }
}
