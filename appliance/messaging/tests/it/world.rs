//! A small ledger and the devices that talk through it. Every device is opened again from its stored state before each
//! operation, so that each test is a test of saving and loading too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use zixt_crypto::{AeadKey, Backend, Reference, SigningSeed, digest};
use zixt_messaging::{
    Change, CommitDraft, CommitEntry, CommitError, CommitOutcome, Content, Conversation, DecryptError,
    Device, DraftError, EncryptError, JoinError, KeyDirectory, KeyPackageUse, MessageEntry, NewKeyPackage,
    OutgoingMessage, Received, SealedKeyPackage, StoredState,
};
use zixt_types::{AccountId, DeviceId, Hash, Member, MessageId, SuiteId, ThreadId, ThreadKind, Timestamp};

pub const NOW: Timestamp = Timestamp(1_780_000_000_000);
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Default)]
pub struct Directory(RwLock<BTreeMap<Member, Hash>>);

impl Directory {
    pub fn record(&self, member: Member, key: Hash) {
        self.0.write().unwrap().insert(member, key);
    }

    pub fn revoke(&self, member: &Member) {
        self.0.write().unwrap().remove(member);
    }
}

impl KeyDirectory for Directory {
    fn mls_key(&self, member: &Member) -> Option<Hash> {
        self.0.read().unwrap().get(member).copied()
    }
}

pub fn member(n: u8) -> Member {
    Member { account: AccountId([n; 16]), device: DeviceId([n; 16]) }
}

pub fn thread(n: u8) -> ThreadId {
    ThreadId::new(ThreadKind::Conversation, &[n; 31])
}

/// A device with its store.
pub struct Peer {
    pub device: Device,
    pub packages: BTreeMap<zixt_messaging::KeyPackageId, SealedKeyPackage>,
    pub stored: BTreeMap<ThreadId, StoredState>,
}

impl Peer {
    pub fn new(suite: SuiteId, n: u8, directory: &Arc<Directory>) -> Self {
        let signer = Reference.signing_key(suite, &SigningSeed::generate().unwrap()).unwrap();
        directory.record(member(n), digest::key_hash(suite, signer.public_key()));
        Self::with_signer(signer, n, directory)
    }

    pub fn with_signer(signer: Box<dyn zixt_crypto::SigningKey>, n: u8, directory: &Arc<Directory>) -> Self {
        let state_key = AeadKey::generate().unwrap();
        let device =
            Device::new(Arc::new(Reference), member(n), Arc::from(signer), directory.clone(), state_key);
        Self { device, packages: BTreeMap::new(), stored: BTreeMap::new() }
    }

    pub fn package(&mut self, usage: KeyPackageUse) -> NewKeyPackage {
        let package = self.device.generate_key_package(usage, NOW, 30 * DAY_MS).unwrap();
        self.packages.insert(package.info.id, package.private.clone());
        package
    }

    pub fn open(&self, thread: ThreadId) -> Conversation {
        self.device.open(thread, &self.stored[&thread]).unwrap()
    }

    pub fn commit(&mut self, thread: ThreadId, change: &Change) -> Result<CommitDraft, DraftError> {
        let mut conversation = match self.stored.get(&thread) {
            Some(_) => self.open(thread),
            None => self.device.create(thread, NOW).unwrap(),
        };
        let draft = conversation.commit(change, NOW)?;
        self.stored.entry(thread).or_default().update(draft.state.clone());
        Ok(draft)
    }

    pub fn confirm(&mut self, entry: &CommitEntry) -> Result<CommitOutcome, CommitError> {
        let outcome = self.open(entry.thread).confirm_commit(entry)?;
        self.apply(entry.thread, &outcome);
        Ok(outcome)
    }

    pub fn process(&mut self, envelope: &[u8], entry: &CommitEntry) -> Result<CommitOutcome, CommitError> {
        let outcome = self.open(entry.thread).process_commit(envelope, entry)?;
        self.apply(entry.thread, &outcome);
        Ok(outcome)
    }

    fn apply(&mut self, thread: ThreadId, outcome: &CommitOutcome) {
        match outcome {
            CommitOutcome::NewEpoch { state, .. } => {
                self.stored.get_mut(&thread).unwrap().update(state.clone());
            }
            CommitOutcome::Removed { .. } => {
                self.stored.remove(&thread);
            }
        }
    }

    pub fn join(
        &mut self,
        draft: &CommitDraft,
        entry: &CommitEntry,
        roster: &BTreeSet<Member>,
    ) -> Result<Conversation, JoinError> {
        let (welcome, tree) = (draft.welcome.as_deref().unwrap(), draft.tree.as_deref().unwrap());
        let packages: Vec<_> = self.packages.values().cloned().collect();
        let roster: Vec<_> = roster.iter().copied().collect();
        let joined = self.device.join(welcome, tree, &packages, entry, &roster)?;
        if joined.delete_key_package {
            self.packages.remove(&joined.key_package);
        }
        self.stored.insert(entry.thread, joined.state.into());
        Ok(joined.conversation)
    }

    pub fn say(
        &mut self,
        thread: ThreadId,
        id: MessageId,
        text: &str,
    ) -> Result<OutgoingMessage, EncryptError> {
        let message = self.open(thread).encrypt(&Content::text(id, text, None).unwrap())?;
        self.stored.get_mut(&thread).unwrap().update(message.state.clone());
        Ok(message)
    }

    pub fn read(&mut self, envelope: &[u8], entry: &MessageEntry) -> Result<Received, DecryptError> {
        let received = self.open(entry.thread).decrypt(envelope, entry)?;
        self.stored.get_mut(&entry.thread).unwrap().update(received.state.clone());
        Ok(received)
    }
}

/// Peers 1, 2, 3, … and the conversation they have.
pub struct World {
    pub directory: Arc<Directory>,
    pub peers: BTreeMap<Member, Peer>,
    pub thread: ThreadId,
    pub roster: BTreeSet<Member>,
    ids: u64,
}

/// A message with its ledger entry.
#[derive(Clone)]
pub struct Sent {
    pub envelope: Vec<u8>,
    pub entry: MessageEntry,
    pub text: String,
}

impl World {
    pub fn new(suite: SuiteId, peers: u8) -> Self {
        let directory = Arc::new(Directory::default());
        let peers = (1..=peers).map(|n| (member(n), Peer::new(suite, n, &directory))).collect();
        Self { directory, peers, thread: thread(1), roster: BTreeSet::new(), ids: 0 }
    }

    /// Peer 1 creates the conversation and adds all others at once.
    pub fn talking(suite: SuiteId, peers: u8) -> Self {
        let mut world = Self::new(suite, peers);
        let others: Vec<u8> = (2..=peers).collect();
        let _ = world.change(1, &others, &[]);
        world
    }

    pub fn peer(&mut self, n: u8) -> &mut Peer {
        self.peers.get_mut(&member(n)).unwrap()
    }

    pub fn packages(&mut self, of: &[u8]) -> Vec<Vec<u8>> {
        of.iter().map(|n| self.peer(*n).package(KeyPackageUse::OneTime).public).collect()
    }

    pub fn draft(&mut self, by: u8, add: &[u8], remove: &[u8]) -> CommitDraft {
        let change = Change { add: self.packages(add), remove: remove.iter().map(|n| member(*n)).collect() };
        let thread = self.thread;
        self.peer(by).commit(thread, &change).unwrap()
    }

    /// The ledger takes a commit: every member hears of it.
    pub fn deliver(&mut self, by: u8, draft: &CommitDraft) -> CommitEntry {
        let entry = CommitEntry::of(self.thread, member(by), NOW, &draft.payload).unwrap();
        self.roster.insert(member(by));
        let before = self.roster.clone();
        self.roster.extend(&entry.added);
        self.roster.retain(|member| !entry.removed.contains(member));
        for (name, peer) in &mut self.peers {
            if *name == member(by) {
                let _ = peer.confirm(&entry).unwrap();
            } else if entry.added.contains(name) {
                let _ = peer.join(draft, &entry, &self.roster).unwrap();
            } else if before.contains(name) {
                let _ = peer.process(&draft.envelope, &entry).unwrap();
            }
        }
        entry
    }

    pub fn change(&mut self, by: u8, add: &[u8], remove: &[u8]) -> (CommitDraft, CommitEntry) {
        let draft = self.draft(by, add, remove);
        let entry = self.deliver(by, &draft);
        (draft, entry)
    }

    pub fn say(&mut self, by: u8, text: &str) -> Sent {
        self.ids += 1;
        let mut id = MessageId([0; 16]);
        id.0[..8].copy_from_slice(&self.ids.to_be_bytes());
        let thread = self.thread;
        let message = self.peer(by).say(thread, id, text).unwrap();
        let entry = MessageEntry::of(thread, member(by), id, &message.payload).unwrap();
        Sent { envelope: message.envelope, entry, text: text.to_owned() }
    }

    /// Every member but the author reads it.
    pub fn all_read(&mut self, sent: &Sent) {
        for name in self.roster.clone() {
            if name != sent.entry.author {
                let received = self.peers.get_mut(&name).unwrap().read(&sent.envelope, &sent.entry).unwrap();
                assert_eq!(received.content.text, sent.text);
            }
        }
    }

    /// All members are in the same epoch with the same keys and roster.
    pub fn agree(&self) {
        let roster: Vec<_> = self.roster.iter().copied().collect();
        let mut seen = BTreeSet::new();
        for name in &self.roster {
            let conversation = self.peers[name].open(self.thread);
            assert_eq!(conversation.members(), roster);
            assert!(conversation.stale_members().is_empty());
            seen.insert((conversation.epoch(), conversation.authenticator().unwrap()));
        }
        assert_eq!(seen.len(), 1);
    }
}
