//! What this device has verified of the ledger, and the demand that everything new continues it.

use super::{CheckedAccount, Checker, TrustError, VerifiedHeader};
use crate::connection::Api;
use crate::error::ClientError;
use crate::store::{Batch, Space, Store};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use std::sync::Arc;
use zixt_api::{Consistency, ErrorCode};
use zixt_crypto::{Keyring, digest};
use zixt_ledger::evidence::{CertifiedHeader, Contradiction, EvidenceEntry, ForkProof, Signature};
use zixt_ledger::map::MapProof;
use zixt_ledger::system::transcript_bytes;
use zixt_types::{
    AccountId, Body, Canonical, Decision, EntryPosition, Hash, Height, KeyPurpose, Payload, Seq, ShardState,
    SuiteId, Timestamp, limits,
};

/// How often a moving ledger is asked again.
const TRIES: usize = 8;
/// States of one shard that wait for the proof that they continue each other.
const SHARD_STATES_MAX: usize = 16;
/// States in one question, which is what an appliance takes: one of each shard that a network may have.
const STATES_ASKED_MAX: usize = limits::SHARDS_MAX as usize;

/// Headers that stay in memory once they are stored.
const RECENT_MAX: usize = 64;

const SYSTEM: &[u8] = b"ledger/system";
const TIP: &[u8] = b"ledger/tip";
const SHARDS: &[u8] = b"ledger/shards";

/// The verified ledger. Changes wait in a batch for the store's next transaction.
pub struct Ledger {
    /// What checks objects.
    pub checker: Checker,
    store: Store,
    tip: Option<VerifiedHeader>,
    /// The system thread's entries, which led to the checker's validators.
    decisions: Vec<DecisionRecord>,
    /// States seen of each shard; the first of each was proven to continue everything before it.
    shards: BTreeMap<u16, Vec<ShardState>>,
    changes: Batch,
    /// Headers in `changes`, and some of those stored last: others' messages name them.
    recent: BTreeMap<Height, VerifiedHeader>,
}

/// An entry of the system thread, as evidence needs it.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
struct DecisionRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    approvals: Vec<u8>,
    #[n(2)]
    position: EntryPosition,
    /// The public key that it activates, with its suite.
    #[n(3)]
    key: Option<KeyRecord>,
}

#[derive(Clone, Encode, Decode)]
#[cbor(array)]
struct KeyRecord {
    #[n(0)]
    suite: SuiteId,
    #[cbor(n(1), with = "minicbor::bytes")]
    key: Vec<u8>,
}

impl DecisionRecord {
    fn evidence(&self) -> EvidenceEntry {
        EvidenceEntry {
            body: self.body.clone(),
            signature: Signature::Full(self.approvals.clone()),
            possession: None,
            position: self.position,
            envelope: None,
            disclosure: None,
        }
    }

    /// Its transcript, if it activates a consensus key not after `last`.
    fn activation(&self, last: Timestamp) -> Option<Vec<u8>> {
        let Payload::Decision { action } = Body::parse(&self.body).ok()?.payload else { return None };
        let consensus = KeyPurpose::Consensus;
        let activates =
            matches!(&action.decision, Decision::ActivateKey { purpose, .. } if *purpose == consensus);
        (activates && self.position.time <= last).then(|| transcript_bytes(&action, &self.approvals))
    }
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct HeaderRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    header: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    certificate: Vec<u8>,
}

impl Ledger {
    /// Reads what the store holds.
    ///
    /// # Errors
    /// The store is damaged.
    pub async fn load(checker: Checker, store: Store) -> Result<Self, ClientError> {
        let mut ledger = Self {
            checker,
            store,
            tip: None,
            decisions: Vec::new(),
            shards: BTreeMap::new(),
            changes: Batch::new(),
            recent: BTreeMap::new(),
        };
        if let Some(bytes) = ledger.store.get(Space::Fact, SYSTEM).await? {
            let decisions: Vec<DecisionRecord> = crate::records::decode(Space::Fact, &bytes)?;
            for decision in decisions {
                ledger.checker.decide(&decision)?;
                ledger.decisions.push(decision);
            }
        }
        if let Some(bytes) = ledger.store.get(Space::Fact, TIP).await? {
            let height: Height = crate::records::decode(Space::Fact, &bytes)?;
            ledger.tip = ledger.stored_header(height).await?;
        }
        if let Some(bytes) = ledger.store.get(Space::Fact, SHARDS).await? {
            let states: Vec<ShardState> = crate::records::decode(Space::Fact, &bytes)?;
            for state in states {
                ledger.shards.entry(state.shard.0).or_default().push(state);
            }
        }
        Ok(ledger)
    }

    /// The latest verified header.
    #[must_use]
    pub const fn tip(&self) -> Option<&VerifiedHeader> {
        self.tip.as_ref()
    }

    /// What has to be stored.
    pub const fn changes(&self) -> &Batch {
        &self.changes
    }

    /// Says that [`Ledger::changes`] are stored.
    pub fn stored(&mut self) {
        self.changes = Batch::new();
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }

    /// Checks a header. If it names validators that this device does not know, the officers' decisions are asked for:
    /// they lead there, or it is nobody's header.
    async fn header(
        &mut self,
        api: &Api,
        certified: &zixt_api::CertifiedHeader,
    ) -> Result<VerifiedHeader, ClientError> {
        match self.checker.header(certified) {
            Err(TrustError::OtherValidators(_)) => {
                self.follow(api).await?;
                Ok(self.checker.header(certified)?)
            }
            checked => Ok(checked?),
        }
    }

    /// Asks for what officers decided since, checks it, and takes it over if the ledger certifies it. Returns the proof
    /// of the thread's head with its header; `None` before the first height.
    ///
    /// # Errors
    /// [`TrustError::System`], [`TrustError::SystemHead`]; see [`ClientError`].
    pub async fn follow(&mut self, api: &Api) -> Result<Option<(MapProof, VerifiedHeader)>, ClientError> {
        let mut checker = self.checker.clone();
        let mut fresh = Vec::new();
        let proof = loop {
            let from = checker.system.head().map_or(Seq(0), |head| head.seq.next());
            let page = api.system(from).await?;
            for entry in &page.entries {
                let named = |hash: Hash| page.keys.iter().find(|key| key.hash.0 == hash);
                let decision = DecisionRecord {
                    body: entry.body.0.clone(),
                    approvals: entry.signature.0.clone(),
                    position: EntryPosition {
                        seq: Seq(entry.seq),
                        prev: entry.prev.0,
                        time: Timestamp(entry.time),
                    },
                    key: activated(&entry.body.0).and_then(|(suite, hash)| {
                        named(hash).map(|key| KeyRecord { suite, key: key.key.0.clone() })
                    }),
                };
                checker.decide(&decision)?;
                fresh.push(decision);
            }
            if page.next.is_none() || page.entries.is_empty() {
                break page.proof;
            }
        };
        let Some(proof) = proof else {
            return if fresh.is_empty() { Ok(None) } else { Err(TrustError::SystemHead.into()) };
        };
        let header = checker.header(&proof.certified)?;
        let (map, head) = checker.head(digest::system_thread(checker.genesis_hash), &proof, &header)?;
        if head != checker.system.head() {
            return Err(TrustError::SystemHead.into());
        }
        if !fresh.is_empty() {
            self.decisions.append(&mut fresh);
            self.checker = checker;
            self.changes.put(Space::Fact, SYSTEM, crate::records::encode(&self.decisions));
        }
        Ok(Some((map, header)))
    }

    /// Replays an account. If its enroller is not known, the officers' decisions are asked for.
    ///
    /// # Errors
    /// See [`Checker::account`] and [`ClientError`].
    pub async fn account(
        &mut self,
        api: &Api,
        asked: AccountId,
        view: &zixt_api::AccountView,
        header: &VerifiedHeader,
    ) -> Result<CheckedAccount, ClientError> {
        match self.checker.account(asked, view, header) {
            Err(TrustError::Enroller(_)) => {
                self.follow(api).await?;
                Ok(self.checker.account(asked, view, header)?)
            }
            checked => Ok(checked?),
        }
    }

    /// The system thread for evidence; `None` if no key that counts there was ever replaced.
    #[must_use]
    pub fn system_evidence(&self) -> Option<Vec<EvidenceEntry>> {
        let replaced = !self.checker.system.activations().is_empty();
        replaced.then(|| self.decisions.iter().map(DecisionRecord::evidence).collect())
    }

    /// A header that this device has verified before.
    ///
    /// # Errors
    /// The store is damaged.
    pub async fn known(&self, height: Height) -> Result<Option<VerifiedHeader>, ClientError> {
        if let Some(header) = self.tip.as_ref().filter(|tip| tip.height() == height) {
            return Ok(Some(header.clone()));
        }
        if let Some(header) = self.recent.get(&height) {
            return Ok(Some(header.clone()));
        }
        // The usual question is about the header that has just come; the tip is the highest that was ever stored.
        if self.tip.as_ref().is_none_or(|tip| tip.height() < height) {
            return Ok(None);
        }
        self.stored_header(height).await
    }

    async fn stored_header(&self, height: Height) -> Result<Option<VerifiedHeader>, ClientError> {
        let Some(bytes) = self.store.get(Space::Header, &height.0.to_be_bytes()).await? else {
            return Ok(None);
        };
        let record: HeaderRecord = crate::records::decode(Space::Header, &bytes)?;
        let header = zixt_types::Header::parse(&record.header).map_err(TrustError::Malformed)?;
        let certificate =
            zixt_types::Certificate::parse(&record.certificate).map_err(TrustError::Malformed)?;
        Ok(Some(VerifiedHeader { hash: digest::header_hash(&header), header, certificate }))
    }

    /// Accepts the first header of all, which contains the invitation's checkpoint.
    ///
    /// # Errors
    /// [`TrustError::Checkpoint`]; see [`ClientError`].
    pub async fn begin(&mut self, api: &Api, checkpoint: (Height, Hash)) -> Result<(), ClientError> {
        let (height, hash) = checkpoint;
        let answer = match api.consistency(height, &[]).await {
            // The appliance does not have that height at all.
            Err(ClientError::Refused(problem)) if problem.status == 404 => {
                return Err(TrustError::Checkpoint(height).into());
            }
            answer => answer?,
        };
        let latest = self.header(api, &answer.latest).await?;
        let contained = match latest.height().cmp(&height) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => latest.hash == hash,
            std::cmp::Ordering::Greater => {
                height.0 == 0 || self.checker.in_history((height, hash), &latest, &answer.history).is_ok()
            }
        };
        if !contained {
            return Err(TrustError::Checkpoint(height).into());
        }
        self.remember(latest);
        Ok(())
    }

    /// Checks a header and that it belongs to the ledger that this device knows; then it is remembered.
    ///
    /// # Errors
    /// [`TrustError`] if it does not, with the proof if there is a fork; see [`ClientError`].
    pub async fn accept(
        &mut self,
        api: &Api,
        certified: &zixt_api::CertifiedHeader,
    ) -> Result<VerifiedHeader, ClientError> {
        if let Some(own) = self.known(Height(certified.height)).await? {
            if own.header.to_bytes() == certified.header.0 {
                return Ok(own);
            }
            let other = self.header(api, certified).await?;
            return Err(self.fork(own, other, Contradiction::SameHeight));
        }
        let header = self.header(api, certified).await?;
        let Some(tip) = self.tip.clone() else {
            self.remember(header.clone());
            return Ok(header);
        };
        if header.height() == tip.height().next() {
            if header.header.previous != tip.hash {
                return Err(self.fork(tip, header, Contradiction::Previous));
            }
            self.remember(header.clone());
            return Ok(header);
        }
        if header.height() > tip.height() {
            self.advance(api).await?;
        }
        self.place(api, &header).await?;
        self.remember(header.clone());
        Ok(header)
    }

    /// Asks for the latest header and demands that it continues the one that this device has.
    ///
    /// # Errors
    /// See [`Ledger::accept`].
    pub async fn advance(&mut self, api: &Api) -> Result<(), ClientError> {
        for asked in self.questions() {
            self.advance_by(api, asked).await?;
        }
        Ok(())
    }

    /// The states of shards that wait for their proof, as many at a time as an appliance takes; at least one question.
    fn questions(&self) -> Vec<Vec<ShardState>> {
        let mut all: Vec<Vec<ShardState>> = vec![Vec::new()];
        for states in self.shards.values() {
            match all.last_mut() {
                Some(last) if last.len() + states.len() <= STATES_ASKED_MAX => last.extend(states),
                _ => all.push(states.clone()),
            }
        }
        all
    }

    async fn advance_by(&mut self, api: &Api, asked: Vec<ShardState>) -> Result<(), ClientError> {
        let Some(tip) = self.tip.clone() else {
            let network = api.network().await?;
            if let Some(latest) = network.latest {
                let header = self.header(api, &latest).await?;
                self.remember(header);
            }
            return Ok(());
        };
        let answer = match api.consistency(tip.height(), &asked).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => {
                let network = api.network().await?;
                let got = Height(network.latest.map_or(0, |latest| latest.height));
                return Err(TrustError::WentBack { known: tip.height(), got }.into());
            }
            answer => answer?,
        };
        let latest = self.header(api, &answer.latest).await?;
        if latest.height() < tip.height() {
            return Err(TrustError::WentBack { known: tip.height(), got: latest.height() }.into());
        }
        if latest.height() == tip.height() {
            if latest.hash != tip.hash {
                return Err(self.fork(tip, latest, Contradiction::SameHeight));
            }
        } else {
            self.contains(api, &tip, &latest, &answer).await?;
        }
        self.check_shards(&asked, &latest, &answer)?;
        self.remember(latest);
        Ok(())
    }

    /// Whether the last check of the shards lies far back.
    #[must_use]
    pub fn shards_wait(&self) -> bool {
        self.shards.values().any(|states| states.len() >= SHARD_STATES_MAX)
    }

    /// Remembers a shard's state under a verified header, to be compared with the next.
    pub fn saw_shard(&mut self, state: ShardState) {
        let states = self.shards.entry(state.shard.0).or_default();
        if states.iter().any(|known| known.size == state.size && known.root == state.root) {
            return;
        }
        states.push(state);
        if states.len() > SHARD_STATES_MAX {
            // The first stays: it was compared with everything before.
            states.remove(1);
        }
        self.store_shards();
    }

    /// Demands that a header which is not the latest belongs to the ledger of the tip.
    async fn place(&mut self, api: &Api, header: &VerifiedHeader) -> Result<(), ClientError> {
        for _ in 0..TRIES {
            let Some(tip) = self.tip.clone() else { return Ok(()) };
            if tip.height() == header.height() {
                return if tip.hash == header.hash {
                    Ok(())
                } else {
                    Err(self.fork(tip, header.clone(), Contradiction::SameHeight))
                };
            }
            if tip.height() < header.height() {
                self.advance(api).await?;
                continue;
            }
            let answer = match api.consistency(header.height(), &[]).await {
                // It has shown this header itself, or one after it.
                Err(ClientError::Refused(problem)) if problem.code == ErrorCode::UnknownHeight => {
                    return Err(TrustError::Unproven(header.height()).into());
                }
                answer => answer?,
            };
            let latest = self.header(api, &answer.latest).await?;
            if latest.hash == tip.hash {
                return self.contains(api, header, &latest, &answer).await;
            }
            // The ledger moved on meanwhile, or shows another face.
            self.advance(api).await?;
            if self.tip.as_ref().is_some_and(|tip| tip.hash == latest.hash) {
                return self.contains(api, header, &latest, &answer).await;
            }
        }
        Err(TrustError::Unproven(header.height()).into())
    }

    /// Checks the proof that `older` is in the past of `newer`. If it is not, looks for the proof of a fork.
    async fn contains(
        &mut self,
        api: &Api,
        older: &VerifiedHeader,
        newer: &VerifiedHeader,
        answer: &Consistency,
    ) -> Result<(), ClientError> {
        let place = (older.height(), older.hash);
        let Err(fault) = self.checker.in_history(place, newer, &answer.history) else { return Ok(()) };
        // What does the appliance say was there instead? If it shows a certified header, the two prove a fork.
        if let Ok(shown) = api.header(older.height()).await
            && let Ok(other) = self.header(api, &shown).await
            && other.hash != older.hash
        {
            return Err(self.fork(older.clone(), other, Contradiction::SameHeight));
        }
        Err(fault.into())
    }

    fn check_shards(
        &mut self,
        asked: &[ShardState],
        latest: &VerifiedHeader,
        answer: &Consistency,
    ) -> Result<(), TrustError> {
        if answer.shards.len() != asked.len() {
            return Err(TrustError::OtherProof);
        }
        for (older, proof) in asked.iter().zip(&answer.shards) {
            if proof.from_size != older.size || proof.latest.shard != older.shard.0 {
                return Err(TrustError::OtherProof);
            }
            let newer = self.checker.shard(&proof.latest, &latest.header)?;
            self.checker.shard_grew(older, &newer, &proof.path)?;
            self.shards.insert(newer.shard.0, vec![newer]);
        }
        if !asked.is_empty() {
            self.store_shards();
        }
        Ok(())
    }

    fn store_shards(&mut self) {
        let states: Vec<ShardState> = self.shards.values().flatten().copied().collect();
        self.changes.put(Space::Fact, SHARDS, crate::records::encode(&states));
    }

    fn remember(&mut self, header: VerifiedHeader) {
        let height = header.height();
        let record =
            HeaderRecord { header: header.header.to_bytes(), certificate: header.certificate.to_bytes() };
        self.changes.put(Space::Header, height.0.to_be_bytes(), crate::records::encode(&record));
        if self.tip.as_ref().is_none_or(|tip| tip.height() < height) {
            self.changes.put(Space::Fact, TIP, crate::records::encode(&height));
            self.tip = Some(header.clone());
        }
        self.recent.insert(height, header);
    }

    /// The proof that two certified headers cannot both be true.
    fn fork(&self, a: VerifiedHeader, b: VerifiedHeader, contradiction: Contradiction) -> ClientError {
        let certified = |header: VerifiedHeader| CertifiedHeader {
            header: header.header,
            certificate: header.certificate,
        };
        let mut keyring = Keyring::default();
        for signature in a.certificate.signatures.iter().chain(&b.certificate.signatures) {
            for set in [&a, &b].map(|header| self.checker.system.validators_at(header.header.time)) {
                let signer = set.iter().find(|v| v.appliance == signature.validator);
                if let Some(key) = signer.and_then(|v| self.checker.keyring.get(&v.consensus)) {
                    keyring.insert(key.suite, &key.key);
                }
            }
        }
        let last = a.header.time.max(b.header.time);
        let activations = self.decisions.iter().filter_map(|decision| decision.activation(last)).collect();
        TrustError::Fork(Box::new(ForkProof {
            genesis: (*self.checker.genesis).clone(),
            keyring,
            first: certified(a),
            second: certified(b),
            contradiction,
            activations,
        }))
        .into()
    }
}

/// The key that an entry of the system thread activates.
fn activated(body: &[u8]) -> Option<(SuiteId, Hash)> {
    let Payload::Decision { action } = Body::parse(body).ok()?.payload else { return None };
    match action.decision {
        Decision::ActivateKey { suite, activates, .. } => Some((suite, activates)),
        _ => None,
    }
}

impl Checker {
    /// Takes the next decision of the officers over.
    fn decide(&mut self, decision: &DecisionRecord) -> Result<(), TrustError> {
        let approvals = Signature::Full(decision.approvals.clone());
        let mut system = (*self.system).clone();
        system
            .append(&self.genesis, &decision.body, &approvals, &decision.position, &*self.backend)
            .map_err(|source| TrustError::System { seq: decision.position.seq, source })?;
        if let Some((suite, hash)) = activated(&decision.body) {
            let mut keyring = (*self.keyring).clone();
            let brought = decision.key.as_ref().map(|key| keyring.insert(suite, &key.key));
            if brought != Some(hash) {
                return Err(TrustError::KeyMissing(hash));
            }
            self.keyring = Arc::new(keyring);
        }
        self.system = Arc::new(system);
        Ok(())
    }
}
