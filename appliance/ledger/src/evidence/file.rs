//! The file: magic, then deterministic CBOR.

use super::pack::{Known, Packed, pack, unpack};
use super::{
    AccountEvidence, AccountName, Anchor, Disclosure, Evidence, EvidenceEntry, Signature, SystemEvidence,
    ThreadEvidence,
};
use crate::Keyring;
use crate::map::MapProof;
use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::digest;
use zixt_types::{
    AccountId, Canonical, Certificate, EntryPosition, Genesis, Hash, Header, ParseError, Seq, ThreadId,
    ThreadKind, Timestamp, limits,
};

/// Why bytes are no evidence or fork proof.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// The file does not begin with the magic.
    #[error("the file does not begin with {expected}: it is no {what}")]
    Magic {
        /// What was expected to be there.
        expected: &'static str,
        /// What the file was read as.
        what: &'static str,
    },
    /// The file or a part of it is malformed.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A packed part cannot be unfolded.
    #[error("evidence is malformed: {0}")]
    Packing(&'static str),
    /// The file is not the one encoding of what it says.
    #[error("evidence is not in its one encoding")]
    NotCanonical,
}

impl Evidence {
    /// The first bytes of a `.zixt-evidence` file.
    pub const MAGIC: &'static [u8; 8] = b"ZIXTEVD1";

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let genesis_known = known_by_keys(&self.keyring);
        let header_known = known_by_genesis(&genesis_known, &self.genesis);
        let certificate_known = known_by_header(&header_known, &self.genesis, &self.header);
        let accounts: Vec<AccountId> = self.accounts.iter().map(|account| account.account).collect();
        let body_known = known_by_threads(&genesis_known, &self.genesis, &accounts, self.thread.thread);
        let entries = |entries: &[EvidenceEntry]| -> Vec<FileEntry> {
            entries.iter().map(|entry| FileEntry::pack(entry, &body_known)).collect()
        };
        let system = self.system.as_ref().map(|system| {
            let known = known_by_system(&genesis_known, &self.genesis);
            let entries = system.entries.iter().map(|entry| FileEntry::pack(entry, &known)).collect();
            FileSystem { entries, head: system.head.clone() }
        });
        let file = File {
            version: File::FORMAT,
            keyring: self.keyring.clone(),
            genesis: pack(&self.genesis.to_bytes(), &genesis_known, None),
            header: pack(&self.header.to_bytes(), &header_known, None),
            certificate: pack(&self.certificate.to_bytes(), &certificate_known, None),
            accounts: self
                .accounts
                .iter()
                .map(|account| FileAccount {
                    account: account.account,
                    entries: entries(&account.entries),
                    head: account.head.clone(),
                    name: account.name.clone(),
                })
                .collect(),
            thread: self.thread.thread,
            entries: entries(&self.thread.entries),
            anchor: self.thread.anchor.clone(),
            system,
        };
        with_magic(Self::MAGIC, &file)
    }

    /// Reads a file. Nothing in it is verified yet, but what it says is said in one way only.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let file: File = without_magic("ZIXTEVD1", bytes)?;
        let mut budget = limits::EVIDENCE_BYTES_MAX;
        let mut unpack = |packed: &Packed, known: &Known, own: Option<&Hash>| {
            unpack(packed, known, own, &mut budget).map_err(EvidenceError::Packing)
        };

        let genesis_known = known_by_keys(&file.keyring);
        let genesis = Genesis::parse(&unpack(&file.genesis, &genesis_known, None)?)?;
        let header_known = known_by_genesis(&genesis_known, &genesis);
        let header = Header::parse(&unpack(&file.header, &header_known, None)?)?;
        let certificate_known = known_by_header(&header_known, &genesis, &header);
        let certificate = Certificate::parse(&unpack(&file.certificate, &certificate_known, None)?)?;
        let accounts: Vec<AccountId> = file.accounts.iter().map(|account| account.account).collect();
        let body_known = known_by_threads(&genesis_known, &genesis, &accounts, file.thread);
        let system_known = known_by_system(&genesis_known, &genesis);
        let mut unfold = |entries: Vec<FileEntry>, known: &Known| -> Result<Vec<_>, EvidenceError> {
            entries
                .into_iter()
                .map(|entry| {
                    let body = unpack(&entry.body, known, entry.prev.as_ref())?;
                    Ok(entry.with_body(body))
                })
                .collect()
        };
        let system = match file.system {
            Some(FileSystem { entries, head }) => {
                Some(SystemEvidence { entries: unfold(entries, &system_known)?, head })
            }
            None => None,
        };
        let mut entries = |entries| unfold(entries, &body_known);
        let evidence = Self {
            genesis,
            header,
            certificate,
            keyring: file.keyring,
            accounts: file
                .accounts
                .into_iter()
                .map(|account| {
                    let entries = entries(account.entries)?;
                    Ok(AccountEvidence {
                        account: account.account,
                        entries,
                        head: account.head,
                        name: account.name,
                    })
                })
                .collect::<Result<_, EvidenceError>>()?,
            thread: ThreadEvidence {
                thread: file.thread,
                entries: entries(file.entries)?,
                anchor: file.anchor,
            },
            system,
        };
        if evidence.to_bytes() == bytes { Ok(evidence) } else { Err(EvidenceError::NotCanonical) }
    }
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct File {
    #[n(0)]
    version: u64,
    #[n(1)]
    keyring: Keyring,
    #[n(2)]
    genesis: Packed,
    #[n(3)]
    header: Packed,
    #[n(4)]
    certificate: Packed,
    #[n(5)]
    accounts: Vec<FileAccount>,
    #[n(6)]
    thread: ThreadId,
    #[n(7)]
    entries: Vec<FileEntry>,
    #[n(8)]
    anchor: Anchor,
    /// The last item, and left out where no key was ever replaced: such files are as they always were.
    #[n(9)]
    system: Option<FileSystem>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct FileSystem {
    #[n(0)]
    entries: Vec<FileEntry>,
    #[n(1)]
    head: MapProof,
}

impl File {
    const FORMAT: u64 = 1;
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct FileAccount {
    #[n(0)]
    account: AccountId,
    #[n(1)]
    entries: Vec<FileEntry>,
    #[n(2)]
    head: MapProof,
    #[n(3)]
    name: Option<AccountName>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct FileEntry {
    #[n(0)]
    seq: Seq,
    /// Left out where it is [`Hash::ZERO`].
    #[n(1)]
    prev: Option<Hash>,
    #[n(2)]
    time: Timestamp,
    #[n(3)]
    body: Packed,
    #[n(4)]
    signature: Signature,
    #[n(5)]
    possession: Option<Signature>,
    #[cbor(n(6), with = "minicbor::bytes")]
    envelope: Option<Vec<u8>>,
    #[n(7)]
    disclosure: Option<Disclosure>,
}

impl FileEntry {
    fn pack(entry: &EvidenceEntry, known: &Known) -> Self {
        let prev = Some(entry.position.prev).filter(|prev| *prev != Hash::ZERO);
        Self {
            seq: entry.position.seq,
            prev,
            time: entry.position.time,
            // Mostly, the head that an author saw last is the entry before its own.
            body: pack(&entry.body, known, prev.as_ref()),
            signature: entry.signature.clone(),
            possession: entry.possession.clone(),
            envelope: entry.envelope.clone(),
            disclosure: entry.disclosure.clone(),
        }
    }

    fn with_body(self, body: Vec<u8>) -> EvidenceEntry {
        let prev = self.prev.unwrap_or(Hash::ZERO);
        EvidenceEntry {
            body,
            signature: self.signature,
            possession: self.possession,
            position: EntryPosition { seq: self.seq, prev, time: self.time },
            envelope: self.envelope,
            disclosure: self.disclosure,
        }
    }
}

impl Canonical for File {
    const WHAT: &'static str = "evidence";
    const BYTES_MAX: usize = limits::EVIDENCE_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::FORMAT);

    fn check(&self) -> Result<(), &'static str> {
        self.keyring.check()?;
        self.accounts.iter().try_for_each(|account| account.head.check())?;
        if let Anchor::Head(proof) = &self.anchor {
            proof.check()?;
        }
        if let Some(system) = &self.system {
            system.head.check()?;
            if system.entries.is_empty() {
                return Err("a thread has no entries");
            }
        }
        if self.thread.kind() != Some(ThreadKind::Conversation) {
            return Err("its thread is no conversation");
        }
        if self.entries.is_empty() || self.accounts.iter().any(|account| account.entries.is_empty()) {
            return Err("a thread has no entries");
        }
        let names = self.accounts.iter().filter_map(|account| account.name.as_ref());
        if names.into_iter().any(|name| name.name.is_empty() || name.name.len() > limits::NAME_BYTES_MAX) {
            return Err("a name is empty or too long");
        }
        if !self.accounts.windows(2).all(|pair| pair[0].account < pair[1].account) {
            return Err("its accounts are not sorted or repeat one");
        }
        Ok(())
    }
}

pub(super) fn with_magic<T: Canonical>(magic: &[u8; 8], value: &T) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&value.to_bytes());
    bytes
}

pub(super) fn without_magic<T: Canonical>(magic: &'static str, bytes: &[u8]) -> Result<T, EvidenceError> {
    let cbor = bytes
        .strip_prefix(magic.as_bytes())
        .ok_or(EvidenceError::Magic { expected: magic, what: T::WHAT })?;
    Ok(T::parse(cbor)?)
}

/// What the keys of the file make known: their hashes, and the ids of devices that hold them.
fn known_by_keys(keyring: &Keyring) -> Known {
    let mut known = Known::default();
    for (hash, _) in keyring.iter() {
        known.add(hash.as_ref());
        known.add(digest::device_id(*hash).as_ref());
    }
    known
}

fn known_by_genesis(known: &Known, genesis: &Genesis) -> Known {
    let mut known = known.clone();
    known.add(digest::genesis_hash(genesis).as_ref());
    known.add(digest::validator_set_hash(&genesis.validators).as_ref());
    known.add(digest::policy_hash(genesis).as_ref());
    known
}

fn known_by_header(known: &Known, genesis: &Genesis, header: &Header) -> Known {
    let mut known = known.clone();
    known.add(digest::header_hash(header).as_ref());
    for validator in &genesis.validators {
        known.add(validator.appliance.as_ref());
    }
    known
}

fn known_by_threads(known: &Known, genesis: &Genesis, accounts: &[AccountId], thread: ThreadId) -> Known {
    let mut known = known.clone();
    known.add(digest::genesis_hash(genesis).as_ref());
    known.add(thread.as_ref());
    for account in accounts {
        known.add(account.as_ref());
        known.add(digest::account_thread(*account).as_ref());
    }
    known
}

fn known_by_system(known: &Known, genesis: &Genesis) -> Known {
    let mut known = known.clone();
    let genesis_hash = digest::genesis_hash(genesis);
    known.add(genesis_hash.as_ref());
    known.add(digest::system_thread(genesis_hash).as_ref());
    for validator in &genesis.validators {
        known.add(validator.appliance.as_ref());
        known.add(validator.consensus.as_ref());
    }
    known
}
