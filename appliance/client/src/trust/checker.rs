//! Pure checks of one object each, against the genesis.

use super::TrustError;
use std::sync::Arc;
use zixt_api::{Entry, EntryProof, HashHex, HeadProof, Network, Receipt, ShardProof};
use zixt_crypto::{Backend, Keyring, cose, digest};
use zixt_ledger::certificate::verify_certificate;
use zixt_ledger::map::MapProof;
use zixt_ledger::{Account, SystemThread, label_for, tree};
use zixt_types::{
    Author, Body, Canonical, Certificate, EntryPosition, Genesis, Hash, Head, Header, Height, Member, Salt,
    Seq, ShardId, ShardState, ThreadId, Timestamp,
};

/// A header whose certificate was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedHeader {
    /// The header.
    pub header: Header,
    /// Its hash.
    pub hash: Hash,
    /// What makes it final.
    pub certificate: Certificate,
}

impl VerifiedHeader {
    /// Its height.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.header.height
    }
}

/// An entry whose form and hash were checked. Its signature and its place in ledger and chain were not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedEntry {
    /// The body.
    pub body: Body,
    /// The body as signed.
    pub body_bytes: Vec<u8>,
    /// The author's signature.
    pub signature: Vec<u8>,
    /// The new device's own signature, in device additions.
    pub possession: Option<Vec<u8>>,
    /// Its place.
    pub position: EntryPosition,
    /// What blinds its leaf.
    pub salt: Salt,
    /// The height that added it, as the appliance says; 0 if it does not say.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
}

impl CheckedEntry {
    /// Its place in the thread.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.position.seq
    }

    /// What the thread's head is after it.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head { seq: self.position.seq, hash: self.hash }
    }
}

/// Checks objects of one network.
#[derive(Clone)]
pub struct Checker {
    /// What the network is.
    pub genesis: Arc<Genesis>,
    /// Its hash.
    pub genesis_hash: Hash,
    /// The keys that the genesis names, and those that officers activated.
    pub keyring: Arc<Keyring>,
    /// What officers decided, as far as this device knows: who certifies and invites, and since when.
    pub system: Arc<SystemThread>,
    /// What checks signatures.
    pub backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checker({})", self.genesis_hash)
    }
}

impl Checker {
    /// The checker of the network that `expected` names, if `network` is that.
    ///
    /// # Errors
    /// [`TrustError::OtherGenesis`], [`TrustError::KeyMissing`], [`TrustError::Malformed`].
    pub fn bootstrap(
        network: &Network,
        expected: Hash,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, TrustError> {
        let genesis = Genesis::parse(&network.genesis.0)?;
        let keyring = Keyring::parse(&network.keyring.0)?;
        Self::new(genesis, keyring, expected, backend)
    }

    /// The checker of a network whose genesis and keys are at hand.
    ///
    /// # Errors
    /// [`TrustError::OtherGenesis`], [`TrustError::KeyMissing`].
    pub fn new(
        genesis: Genesis,
        keyring: Keyring,
        expected: Hash,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, TrustError> {
        let genesis_hash = digest::genesis_hash(&genesis);
        if genesis_hash != expected {
            return Err(TrustError::OtherGenesis { what: "appliance" });
        }
        let named = genesis.enrollers.iter().chain(genesis.validators.iter().map(|v| &v.consensus));
        for hash in named {
            if keyring.get(hash).is_none() {
                return Err(TrustError::KeyMissing(*hash));
            }
        }
        let system = Arc::new(SystemThread::new(&genesis));
        Ok(Self { genesis: Arc::new(genesis), genesis_hash, keyring: Arc::new(keyring), system, backend })
    }

    /// Checks that a header is certified by this network's validators: those of its ledger time.
    ///
    /// # Errors
    /// [`TrustError::OtherValidators`] if it names others: officers may have decided since; see [`TrustError`].
    pub fn header(&self, certified: &zixt_api::CertifiedHeader) -> Result<VerifiedHeader, TrustError> {
        let header = Header::parse(&certified.header.0)?;
        let certificate = Certificate::parse(&certified.certificate.0)?;
        let height = header.height;
        if height.0 != certified.height {
            return Err(TrustError::OtherHeader(height));
        }
        if header.genesis != self.genesis_hash {
            return Err(TrustError::OtherGenesis { what: "header" });
        }
        let validators = self.system.validators_at(header.time);
        if header.validators != digest::validator_set_hash(validators) {
            return Err(TrustError::OtherValidators(height));
        }
        verify_certificate(&header, &certificate, validators, &self.keyring, &*self.backend)
            .map_err(|source| TrustError::Certificate { height, source })?;
        if header.policy != digest::policy_hash(&self.genesis) || !self.genesis.suites.contains(&header.suite)
        {
            return Err(TrustError::Policy(height));
        }
        Ok(VerifiedHeader { hash: digest::header_hash(&header), header, certificate })
    }

    /// Checks that an older header is in the past of a newer one.
    ///
    /// # Errors
    /// [`TrustError::History`].
    pub fn in_history(
        &self,
        older: (Height, Hash),
        newer: &VerifiedHeader,
        path: &[HashHex],
    ) -> Result<(), TrustError> {
        let path: Vec<Hash> = path.iter().map(|hash| hash.0).collect();
        let leaf = tree::history_leaf(&older.1);
        let (index, size) = (older.0.0.saturating_sub(1), newer.height().0.saturating_sub(1));
        tree::verify_inclusion(leaf, index, size, &path, newer.header.history)
            .map_err(|source| TrustError::History { older: older.0, newer: newer.height(), source })
    }

    /// Checks that a header commits to a shard's state.
    ///
    /// # Errors
    /// [`TrustError::Shard`].
    pub fn shard(&self, proof: &ShardProof, header: &Header) -> Result<ShardState, TrustError> {
        let state = ShardState { shard: ShardId(proof.shard), size: proof.size, root: proof.root.0 };
        let path: Vec<Hash> = proof.path.iter().map(|hash| hash.0).collect();
        let (index, count) = (u64::from(proof.shard), u64::from(self.genesis.shard_count));
        tree::verify_inclusion(tree::shard_leaf(&state), index, count, &path, header.shards)
            .map_err(TrustError::Shard)?;
        Ok(state)
    }

    /// Checks that a newer state of a shard continues an older one.
    ///
    /// # Errors
    /// [`TrustError::ShardHistory`].
    pub fn shard_grew(
        &self,
        older: &ShardState,
        newer: &ShardState,
        path: &[HashHex],
    ) -> Result<(), TrustError> {
        let path: Vec<Hash> = path.iter().map(|hash| hash.0).collect();
        tree::verify_consistency(older.size, older.root, newer.size, newer.root, &path)
            .map_err(|source| TrustError::ShardHistory { shard: older.shard.0, source })
    }

    /// Checks that an entry is in the ledger under a verified header; returns its shard's state there.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn recorded(
        &self,
        thread: ThreadId,
        entry: (&EntryPosition, &Salt, &Hash, Height),
        proof: &EntryProof,
        header: &VerifiedHeader,
    ) -> Result<ShardState, TrustError> {
        let (position, salt, hash, height) = entry;
        let state = self.shard(&proof.shard, &header.header)?;
        if state.shard != thread.shard(self.genesis.shard_count) {
            return Err(TrustError::OtherProof);
        }
        let path: Vec<Hash> = proof.path.iter().map(|hash| hash.0).collect();
        tree::verify_inclusion(tree::leaf_hash(salt, hash), proof.leaf, state.size, &path, state.root)
            .map_err(|source| TrustError::NotRecorded { seq: position.seq, source })?;
        let time_fits = match height {
            // A receipt does not say which height added the entry.
            Height(0) => position.time <= header.header.time,
            height if height == header.height() => position.time == header.header.time,
            height => height < header.height() && position.time < header.header.time,
        };
        if time_fits { Ok(state) } else { Err(TrustError::Time(position.seq)) }
    }

    /// Checks an entry's form: its body, thread, network, suite and hash.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn entry(&self, entry: &Entry) -> Result<CheckedEntry, TrustError> {
        let seq = Seq(entry.seq);
        let body = Body::parse(&entry.body.0)?;
        if body.genesis != self.genesis_hash {
            return Err(TrustError::OtherGenesis { what: "entry" });
        }
        if body.thread != entry.thread.0 {
            return Err(TrustError::OtherThread { seq, got: body.thread });
        }
        if !self.genesis.suites.contains(&body.suite) {
            return Err(TrustError::Suite { seq, suite: body.suite });
        }
        let position = EntryPosition { seq, prev: entry.prev.0, time: Timestamp(entry.time) };
        let possession = entry.possession.as_ref().map(|possession| possession.0.clone());
        let hash = digest::entry_hash(
            &entry.body.0,
            digest::signature_digest(&entry.signature.0),
            possession.as_deref().map(digest::signature_digest),
            &position,
        );
        if hash != entry.entry.0 {
            return Err(TrustError::OtherEntry(seq));
        }
        Ok(CheckedEntry {
            body,
            body_bytes: entry.body.0.clone(),
            signature: entry.signature.0.clone(),
            possession,
            position,
            salt: entry.salt.0,
            height: Height(entry.height),
            hash,
        })
    }

    /// Checks that a device wrote an entry of a conversation, and could at that time. Of what stands outside of the
    /// thread the state at the height before counts, and every height has a later time.
    ///
    /// # Errors
    /// [`TrustError::UnknownAuthor`], [`TrustError::AuthorInactive`], [`TrustError::Signature`].
    pub fn written_by(
        &self,
        entry: &CheckedEntry,
        author: Member,
        account: &Account,
        keys: &Keyring,
    ) -> Result<(), TrustError> {
        let seq = entry.seq();
        let unknown = TrustError::UnknownAuthor { seq, author };
        if account.id != author.account || entry.body.author != Author::Device(author) {
            return Err(unknown);
        }
        let Some(device) = account.device(author.device) else { return Err(unknown) };
        let time = entry.position.time;
        if device.added_at >= time || device.revoked.is_some_and(|(revoked, _)| revoked < time) {
            return Err(TrustError::AuthorInactive { seq, author });
        }
        let key = keys.get(&device.keys.identity).ok_or(unknown)?;
        if key.suite != entry.body.suite {
            return Err(TrustError::Suite { seq, suite: entry.body.suite });
        }
        let label = label_for(&entry.body.author);
        cose::verify(&*self.backend, key.suite, &key.key, label, &entry.body_bytes, &entry.signature)
            .map_err(|source| TrustError::Signature { seq, source })
    }

    /// The head of a thread that a proof shows under a verified header.
    ///
    /// # Errors
    /// [`TrustError::MapProof`].
    pub fn head(
        &self,
        thread: ThreadId,
        proof: &HeadProof,
        header: &VerifiedHeader,
    ) -> Result<(MapProof, Option<Head>), TrustError> {
        let map = MapProof::parse(&proof.map.0)?;
        let head = map.verify(&header.header.map, &thread).map_err(TrustError::MapProof)?;
        Ok((map, head))
    }

    /// Reads a receipt as the entry that it is for.
    ///
    /// # Errors
    /// [`TrustError::Receipt`] if it is for something else.
    pub fn receipt(
        &self,
        receipt: &Receipt,
        body_bytes: &[u8],
        signature: &[u8],
        possession: Option<&[u8]>,
    ) -> Result<CheckedEntry, TrustError> {
        let body = Body::parse(body_bytes)?;
        if receipt.message_id.0 != body.message_id || receipt.thread.0 != body.thread {
            return Err(TrustError::Receipt);
        }
        let position =
            EntryPosition { seq: Seq(receipt.seq), prev: receipt.prev.0, time: Timestamp(receipt.time) };
        let hash = digest::entry_hash(
            body_bytes,
            digest::signature_digest(signature),
            possession.map(digest::signature_digest),
            &position,
        );
        if hash != receipt.entry.0 {
            return Err(TrustError::Receipt);
        }
        Ok(CheckedEntry {
            body,
            body_bytes: body_bytes.to_vec(),
            signature: signature.to_vec(),
            possession: possession.map(<[u8]>::to_vec),
            position,
            salt: receipt.salt.0,
            height: Height(0),
            hash,
        })
    }
}
