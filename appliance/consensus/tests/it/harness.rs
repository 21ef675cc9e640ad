//! The simulated world of a validator: a disk that forgets, a custody daemon that does not, a store of decided heights.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zixt_consensus::*;
use zixt_crypto::digest::vote_bytes;
use zixt_crypto::traits::*;
use zixt_crypto::{Reference, SigningSeed};
use zixt_types::{ApplianceId, Hash, Height, Round, SuiteId, Vote, VoteStep};

pub const GENESIS: Hash = Hash([7; 48]);
pub const SUITE: SuiteId = SuiteId::Standard;

/// SplitMix64: enough chance for a simulation, and the seed is all there is to print.
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Signatures that cost nothing: a checksum over key and message.
#[derive(Clone, Copy)]
pub struct Dummy;

pub fn dummy_signature(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.iter().chain(message) {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    sum.to_le_bytes().to_vec()
}

impl Backend for Dummy {
    fn name(&self) -> &'static str {
        "dummy"
    }

    fn verify(&self, _: SuiteId, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        if signature == dummy_signature(key, message) { Ok(()) } else { Err(VerifyError::Rejected) }
    }

    fn signing_key(&self, _: SuiteId, _: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
        Err(KeyError::Malformed)
    }

    fn decapsulation_key(&self, _: &zixt_crypto::KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
        Err(KeyError::Malformed)
    }

    fn validate_encapsulation_key(&self, _: &[u8]) -> Result<(), KeyError> {
        Err(KeyError::Malformed)
    }

    fn encapsulate(&self, _: &[u8]) -> Result<(Ciphertext, zixt_crypto::SharedSecret), EncapsulateError> {
        Err(EncapsulateError::Key(KeyError::Malformed))
    }
}

/// What a validator signs with.
pub enum Key {
    Dummy(Vec<u8>),
    MlDsa(Box<dyn SigningKey>),
}

impl Key {
    pub fn ml_dsa(seed: u8) -> Self {
        Self::MlDsa(Reference.signing_key(SUITE, &SigningSeed::from_bytes(&[seed; 32])).unwrap())
    }

    pub fn public(&self) -> &[u8] {
        match self {
            Self::Dummy(key) => key,
            Self::MlDsa(key) => key.public_key(),
        }
    }

    pub fn sign(&self, vote: &Vote) -> Vec<u8> {
        match self {
            Self::Dummy(key) => dummy_signature(key, &vote_bytes(vote)),
            Self::MlDsa(key) => key.sign(&vote_bytes(vote)).unwrap(),
        }
    }
}

/// Counts down operations to a crash. After it everything fails, until `repair`.
#[derive(Clone)]
pub struct Fuse(Arc<AtomicU64>);

impl Fuse {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// The operation after `operations` more fails, and all after it.
    pub fn light(&self, operations: u64) {
        self.0.store(operations, Ordering::SeqCst);
    }

    pub fn repair(&self) {
        self.light(u64::MAX);
    }

    /// Operations done since `light`, given what it was lit with.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn burn(&self) -> io::Result<()> {
        let burnt = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        burnt.map(|_| ()).map_err(|_| io::Error::other("crash"))
    }
}

/// A disk: what is synced stays, what is not may go.
#[derive(Clone)]
pub struct Disk {
    pub fuse: Fuse,
    state: Arc<Mutex<DiskState>>,
}

#[derive(Default)]
struct DiskState {
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

/// What a crash does to writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process dies, the machine does not.
    Nothing,
    /// Everything.
    All,
    /// Any sectors, in any combination.
    Some,
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

impl Disk {
    pub fn new(fuse: Fuse) -> Self {
        Self { fuse, state: Arc::default() }
    }

    pub fn crash(&self, loss: Loss, chance: &mut Chance) {
        let mut state = self.state.lock().unwrap();
        for (at, part) in std::mem::take(&mut state.pending) {
            let mut done = 0;
            while done < part.len() {
                let end = (((at + done) / 512 + 1) * 512 - at).min(part.len());
                let stays = match loss {
                    Loss::Nothing => true,
                    Loss::All => false,
                    Loss::Some => chance.below(2) == 0,
                };
                if stays {
                    put(&mut state.durable, at + done, &part[done..end]);
                }
                done = end;
            }
        }
    }

    /// Overwrites a byte of what is durable.
    pub fn damage(&self, at: usize) {
        self.state.lock().unwrap().durable[at] ^= 0x40;
    }

    /// Everything back to what it was when the disk was new.
    pub fn wipe(&self) {
        *self.state.lock().unwrap() = DiskState::default();
    }
}

impl WalFile for Disk {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let mut bytes = state.durable.clone();
        for (at, part) in &state.pending {
            put(&mut bytes, *at, part);
        }
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        if let Err(crash) = self.fuse.burn() {
            // A write that fails may have been done in part.
            if self.fuse.left() == 0 {
                state.pending.push((offset, bytes[..bytes.len() / 2].to_vec()));
            }
            return Err(crash);
        }
        state.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.burn()?;
        let mut state = self.state.lock().unwrap();
        for (at, part) in std::mem::take(&mut state.pending) {
            put(&mut state.durable, at, &part);
        }
        Ok(())
    }
}

/// A custody daemon: never forgets, never signs two votes for one slot.
pub struct Custody {
    pub key: Key,
    pub signed: BTreeMap<(Height, Round, VoteStep), (Vote, Vec<u8>)>,
    pub signatures: u64,
    /// Asked for a slot below the highest signed one.
    pub abstained: u64,
    pub locked: bool,
    /// It cannot tell what it has signed.
    pub mute: bool,
    /// Slots for which another vote was asked for than the one signed.
    pub conflicts: Vec<(Height, Round, VoteStep)>,
}

/// A validator's surroundings. They outlive its engine.
pub struct Node {
    pub me: ApplianceId,
    pub fuse: Fuse,
    pub disk: Disk,
    pub custody: Custody,
    /// Every decision that the engine has told, by height; the host may have crashed before it was stored.
    pub told: BTreeMap<Height, Hash>,
    /// Decided heights that are durable.
    pub stored: Vec<Decision>,
    pub equivocations: Vec<Equivocation>,
    pub outbox: Vec<Message>,
    pub timers: BTreeMap<Timer, u64>,
    pub now: u64,
    pub built: u64,
    pub batch_bytes: usize,
    /// `build` answers None.
    pub idle: bool,
    /// `validate` answers false for other validators' headers.
    pub rejects: bool,
    /// Validators and their keys before the first height, where keys are replaced; else empty.
    pub base: Vec<(ApplianceId, Vec<u8>, u64)>,
    /// The officers' decision that waits to be recorded: whose key, and which.
    pub activation: Option<(ApplianceId, Vec<u8>)>,
    /// The header that was built last.
    pub built_last: Option<Hash>,
    /// Content that was built or judged good.
    seen: BTreeMap<Hash, Arc<Content>>,
}

impl Node {
    pub fn new(number: u8, key: Key) -> Self {
        let fuse = Fuse::new();
        Self {
            me: ApplianceId([number; 48]),
            disk: Disk::new(fuse.clone()),
            fuse,
            custody: Custody {
                key,
                signed: BTreeMap::new(),
                signatures: 0,
                abstained: 0,
                locked: false,
                mute: false,
                conflicts: Vec::new(),
            },
            told: BTreeMap::new(),
            stored: Vec::new(),
            equivocations: Vec::new(),
            outbox: Vec::new(),
            timers: BTreeMap::new(),
            now: 0,
            built: 0,
            batch_bytes: 300,
            idle: false,
            rejects: false,
            base: Vec::new(),
            activation: None,
            built_last: None,
            seen: BTreeMap::new(),
        }
    }

    /// The keys after the stored heights, and after one more content.
    pub fn keys_after(&self, heights: usize, more: Option<&Content>) -> Vec<(ApplianceId, Vec<u8>, u64)> {
        let mut keys = self.base.clone();
        let stored = self.stored[..heights].iter().map(|decision| &*decision.content);
        for (id, key) in stored.chain(more).filter_map(activation_in) {
            keys.iter_mut().filter(|known| known.0 == id).for_each(|known| known.1.clone_from(&key));
        }
        keys
    }

    fn key_for(&self, header: &Hash) -> Option<Vec<u8>> {
        let keys = self.keys_after(self.stored.len(), self.seen.get(header).map(|content| &**content));
        keys.into_iter().find(|known| known.0 == self.me).map(|known| known.1)
    }

    pub fn next(&self) -> Height {
        Height(self.stored.len() as u64 + 1)
    }

    pub fn validator(&self, stake: u64) -> Validator {
        Validator::new(self.me, self.custody.key.public(), stake)
    }

    /// A process starts: opens the log and makes an engine.
    pub fn boot(&self, set: &ValidatorSet, flush: Flush) -> Result<Engine, WalError> {
        self.boot_with(set, flush, Timeouts::default())
    }

    pub fn boot_with(
        &self,
        set: &ValidatorSet,
        flush: Flush,
        timeouts: Timeouts,
    ) -> Result<Engine, WalError> {
        let wal = Wal::open(Arc::new(self.disk.clone()), 0x5A17, flush)?;
        let backend: Arc<dyn Backend> = match self.custody.key {
            Key::Dummy(_) => Arc::new(Dummy),
            Key::MlDsa(_) => Arc::new(Reference),
        };
        let config = Config { me: self.me, genesis: GENESIS, timeouts, verify_own_votes: true };
        Ok(Engine::new(config, backend, wal, self.start(set)))
    }

    pub fn start(&self, set: &ValidatorSet) -> HeightStart {
        let validators = match self.keys_after(self.stored.len(), None) {
            keys if keys.is_empty() => set.clone(),
            keys => set_of(&keys),
        };
        HeightStart { height: self.next(), suite: SUITE, validators }
    }
}

pub fn set_of(keys: &[(ApplianceId, Vec<u8>, u64)]) -> ValidatorSet {
    ValidatorSet::new(keys.iter().map(|(id, key, stake)| Validator::new(*id, key, *stake)).collect()).unwrap()
}

/// The activation that a content records.
pub fn activation_in(content: &Content) -> Option<(ApplianceId, Vec<u8>)> {
    let rest = content.batch.strip_prefix(b"activate")?;
    let (id, key) = rest.split_at(48);
    Some((ApplianceId(id.try_into().unwrap()), key.to_vec()))
}

pub fn header_hash(content: &Content) -> Hash {
    let mut hash = [0; 48];
    let sum = dummy_signature(&content.header, &content.batch);
    for (to, from) in hash.iter_mut().zip(sum.iter().cycle()) {
        *to = *from;
    }
    Hash(hash)
}

impl Host for Node {
    fn build(&mut self, height: Height, round: Round) -> Result<Option<Proposed>, HostError> {
        self.fuse.burn()?;
        if self.idle {
            return Ok(None);
        }
        self.built += 1;
        let header = format!("{} {height} {round} {}", self.me, self.built).into_bytes();
        let recorded = |(_, key): &(ApplianceId, Vec<u8>)| {
            self.keys_after(self.stored.len(), None).iter().any(|known| known.1 == *key)
        };
        let batch = match &self.activation {
            Some(activation) if !recorded(activation) => {
                [b"activate", activation.0.as_ref(), activation.1.as_slice()].concat()
            }
            _ => vec![self.built as u8; self.batch_bytes],
        };
        let content = Arc::new(Content { header, batch });
        self.seen.insert(header_hash(&content), Arc::clone(&content));
        self.built_last = Some(header_hash(&content));
        Ok(Some(Proposed { header: header_hash(&content), content }))
    }

    fn validate(
        &mut self,
        _: Height,
        header: &Hash,
        content: &Content,
        _: Source,
    ) -> Result<bool, HostError> {
        if header_hash(content) == *header && !self.rejects {
            self.seen.insert(*header, Arc::new(content.clone()));
            return Ok(true);
        }
        Ok(false)
    }

    fn certifiers(&mut self, _: Height, header: &Hash) -> Result<Option<ValidatorSet>, HostError> {
        let content = self.seen.get(header);
        let changes = content.is_some_and(|content| activation_in(content).is_some());
        Ok(changes.then(|| set_of(&self.keys_after(self.stored.len(), content.map(|content| &**content)))))
    }

    fn signs_for(&mut self, header: &Hash) -> Result<bool, HostError> {
        Ok(self.key_for(header).is_none_or(|needed| needed == self.custody.key.public()))
    }

    fn sign_vote(&mut self, vote: &Vote) -> Result<SignOutcome, HostError> {
        self.fuse.burn()?;
        if let Some(needed) = self.key_for(&vote.header.unwrap_or(Hash::ZERO))
            && needed != self.custody.key.public()
            && !self.custody.signed.contains_key(&vote.slot())
            && (vote.header.is_some() || self.base.len() > 1)
        {
            return Ok(SignOutcome::OtherKey("the ledger does not know the key yet".into()));
        }
        let custody = &mut self.custody;
        if custody.locked {
            return Ok(SignOutcome::Refused("locked".into()));
        }
        if let Some((earlier, signature)) = custody.signed.get(&vote.slot()) {
            if earlier != vote {
                custody.conflicts.push(vote.slot());
            }
            return Ok(SignOutcome::AlreadySigned { vote: earlier.clone(), signature: signature.clone() });
        }
        if custody.signed.last_key_value().is_some_and(|(highest, _)| *highest > vote.slot()) {
            custody.abstained += 1;
            return Ok(SignOutcome::BelowHighest);
        }
        let signature = custody.key.sign(vote);
        custody.signatures += 1;
        custody.signed.insert(vote.slot(), (vote.clone(), signature.clone()));
        // A crash here: the daemon has noted the vote, and the engine does not know.
        self.fuse.burn()?;
        Ok(SignOutcome::Signed(signature))
    }

    fn signed_precommit(&mut self, height: Height) -> Result<Option<(Round, Hash)>, HostError> {
        if self.custody.mute {
            return Ok(None);
        }
        let newest = self.custody.signed.values().rev().find(|(vote, _)| {
            vote.height == height && vote.step == VoteStep::Precommit && vote.header.is_some()
        });
        Ok(newest.and_then(|(vote, _)| vote.header.map(|header| (vote.round, header))))
    }

    fn publish(&mut self, message: Message) {
        self.outbox.push(message);
    }

    fn schedule(&mut self, timer: Timer, after: Duration) {
        self.timers.insert(timer, self.now + u64::try_from(after.as_millis()).unwrap());
    }

    fn cancel(&mut self, timer: Timer) {
        self.timers.remove(&timer);
    }

    fn decided(&mut self, decision: Decision) -> Result<(), HostError> {
        let told = *self.told.entry(decision.height).or_insert(decision.header);
        assert_eq!(told, decision.header, "two headers are decided at height {}", decision.height);
        assert_eq!(header_hash(&decision.content), decision.header);
        assert_eq!(decision.height, self.next());
        self.fuse.burn()?;
        self.stored.push(decision);
        self.fuse.burn()?;
        Ok(())
    }

    fn equivocation(&mut self, evidence: Equivocation) {
        self.equivocations.push(evidence);
    }
}

/// A certificate is what the ledger will check: quorum of all stake, each signature good.
pub fn check_certificate(backend: &dyn Backend, nodes: &[&Node], set: &ValidatorSet, decision: &Decision) {
    let certificate = &decision.certificate;
    assert_eq!((certificate.height, certificate.header), (decision.height, decision.header));
    assert!(certificate.signatures.windows(2).all(|pair| pair[0].validator < pair[1].validator));
    let vote = Vote {
        version: 1,
        suite: SUITE,
        genesis: GENESIS,
        height: certificate.height,
        round: certificate.round,
        step: VoteStep::Precommit,
        header: Some(certificate.header),
    };
    let mut stake = 0;
    for one in &certificate.signatures {
        let node = nodes.iter().find(|node| node.me == one.validator).unwrap();
        let key = node.custody.key.public();
        backend.verify(SUITE, key, &vote_bytes(&vote), &one.signature).unwrap();
        stake += set.get(&one.validator).unwrap().stake();
    }
    assert!(stake * 3 > set.total() * 2);
}
