//! The state of the ledger after a height, and the rules by which an entry extends it.

use crate::map::HeadMap;
use crate::system::System;
use crate::tree::Frontier;
use crate::{Account, Conversation, Keyring, Submission};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use thiserror::Error;
use zixt_ceremony::OfficerRule;
use zixt_crypto::digest;
use zixt_types::{
    AccountId, ApplianceId, Author, Body, Decision, Epoch, Genesis, Hash, Head, Height, Member, Payload, Seq,
    ThreadId, ThreadKind, Timestamp, Validator,
};

/// Why the ledger does not take an entry. Each has a stable code in the API's error map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The body was made for another network.
    #[error("the body names another network (genesis)")]
    WrongGenesis,
    /// Policy does not allow the suite.
    #[error("this network's policy does not allow the suite")]
    SuiteNotAllowed,
    /// No such conversation, and the entry does not begin one.
    #[error("there is no such conversation")]
    UnknownThread,
    /// No such account.
    #[error("there is no such account")]
    UnknownAccount,
    /// The account exists already.
    #[error("the account exists already")]
    AccountExists,
    /// The kind of entry does not belong into this thread.
    #[error("this kind of entry does not belong into this thread")]
    WrongThread,
    /// The author is no member of the conversation (or not any more).
    #[error("the author is not a member of this conversation")]
    NotAMember,
    /// The author's or a named device is not known.
    #[error("the device is not in the ledger")]
    UnknownDevice,
    /// The author's or a named device was revoked.
    #[error("the device was revoked")]
    DeviceRevoked,
    /// The device was added before.
    #[error("the device is in the ledger already")]
    DeviceExists,
    /// Another device has this TLS key, or had it. Connections are told apart by it, so it never changes hands.
    #[error("another device has this TLS key, or had it; make a new one")]
    TlsKeyInUse,
    /// The account has as many devices as it may.
    #[error("the account has {max} active devices already")]
    TooManyDevices {
        /// How many it may have.
        max: usize,
    },
    /// The account had as many devices as it ever may, the revoked ones counted.
    #[error("the account has had {max} devices, the revoked ones counted; it can have no more")]
    TooManyDevicesEver {
        /// How many it may ever have.
        max: usize,
    },
    /// The enroller is not one that the genesis names.
    #[error("the enroller is not appointed in this network")]
    UnknownEnroller,
    /// The invitation was used.
    #[error("the invitation was used already; ask for a new one")]
    InvitationUsed,
    /// The invitation has expired.
    #[error("the invitation has expired; ask for a new one")]
    InvitationExpired {
        /// Ledger time of its end.
        expired_at: Timestamp,
    },
    /// The key that came with the device is not the invitation's.
    #[error("the key is not the one of this invitation")]
    InvitationKey,
    /// The counter was used before: a replay.
    #[error("counter {got} was used before; the next one is {expected}")]
    CounterReplayed {
        /// The author's next counter.
        expected: u64,
        /// The counter in the body.
        got: u64,
    },
    /// The counter skips some.
    #[error("counter {got} leaves a gap; the next one is {expected}")]
    CounterGap {
        /// The author's next counter.
        expected: u64,
        /// The counter in the body.
        got: u64,
    },
    /// Another entry of this thread in the same block has this message id. Ids of earlier heights the ledger does not
    /// keep: the server compares them with its store when an entry comes in.
    #[error("another entry of this thread has this message id")]
    MessageIdInUse,
    /// The MLS epoch is not the conversation's: another commit was recorded first.
    #[error("the conversation is in epoch {current}, not {got}")]
    StaleEpoch {
        /// The conversation's epoch.
        current: Epoch,
        /// The epoch in the body.
        got: Epoch,
        /// Where the commit stands that began the current epoch.
        since: Seq,
    },
    /// A conversation needs somebody to talk to.
    #[error("a new conversation has to add somebody")]
    NobodyAdded,
    /// An added member is in the conversation already.
    #[error("device {} is in the conversation already", .0.device)]
    AlreadyAMember(Member),
    /// A removed member is not in the conversation.
    #[error("device {} is not in the conversation", .0.device)]
    RemovedNobody(Member),
    /// An author cannot remove itself (RFC 9420 section 12.2).
    #[error("a member cannot remove itself")]
    RemovedSelf,
    /// An added member's device may not act.
    #[error("device {} is not an active device of that account", .0.device)]
    AddedInactive(Member),
    /// The conversation would have too many members.
    #[error("the conversation would have more than {max} members")]
    GroupTooLarge {
        /// How many it may have.
        max: usize,
    },
    /// The author claims to have seen a head that this thread never had.
    #[error("the author saw another history of this thread")]
    OtherHistory,
    /// Officers decided about an appliance that is no validator.
    #[error("appliance {0} is no validator of this network")]
    UnknownAppliance(ApplianceId),
    /// The decision was recorded before, or one that came after it.
    #[error("decision {got} of this appliance is not after its last one, {last}: it is recorded, or too old")]
    DecisionReplayed {
        /// The number of the appliance's last decision.
        last: u64,
        /// The number of this one.
        got: u64,
    },
    /// The key that the decision retires is not the one in use.
    #[error("the decision does not retire the present key, {present}")]
    NotThePresentKey {
        /// The present key.
        present: Hash,
    },
    /// The key that the decision activates is or was another one of the network.
    #[error("key {0} is or was in use in this network; a key is activated once")]
    KeyUsedBefore(Hash),
    /// A software key outside of a lab.
    #[error("a key in software is allowed in a lab only")]
    SoftwareKey,
}

/// What must stand behind a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The signature of this key.
    Key(Hash),
    /// The approvals of officers.
    Officers(OfficerRule),
}

/// What a thread is about, beyond its chain.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ThreadDetail {
    /// An account.
    #[n(0)]
    Account(#[n(0)] Account),
    /// A conversation.
    #[n(1)]
    Conversation(#[n(0)] Conversation),
    /// The network itself.
    #[n(2)]
    System(#[n(0)] System),
}

/// A thread after its last entry.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Thread {
    /// Its last entry.
    #[n(0)]
    pub head: Head,
    /// Each author's next counter.
    #[n(1)]
    pub counters: Counters,
    /// What it is about.
    #[n(2)]
    pub detail: ThreadDetail,
}

/// Each author's next counter in a thread, as a list: an author has one as soon as it wrote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Counters(#[n(0)] Vec<(Author, u64)>);

impl Counters {
    fn next(&self, author: &Author) -> u64 {
        self.0.iter().find(|(known, _)| known == author).map_or(0, |(_, next)| *next)
    }

    /// Takes the author's next counter, if `got` is that.
    ///
    /// # Errors
    /// [`Refusal::CounterReplayed`], [`Refusal::CounterGap`].
    pub(crate) fn take(&mut self, author: &Author, got: u64) -> Result<(), Refusal> {
        let expected = self.next(author);
        match got.cmp(&expected) {
            std::cmp::Ordering::Less => return Err(Refusal::CounterReplayed { expected, got }),
            std::cmp::Ordering::Greater => return Err(Refusal::CounterGap { expected, got }),
            std::cmp::Ordering::Equal => {}
        }
        match self.0.iter_mut().find(|(known, _)| known == author) {
            Some((_, next)) => *next += 1,
            None => self.0.push((*author, 1)),
        }
        Ok(())
    }
}

impl Thread {
    /// The counter that the author's next body has to have.
    #[must_use]
    pub fn counter(&self, author: &Author) -> u64 {
        self.counters.next(author)
    }

    /// The account, if it is one.
    #[must_use]
    pub const fn account(&self) -> Option<&Account> {
        match &self.detail {
            ThreadDetail::Account(account) => Some(account),
            ThreadDetail::Conversation(_) | ThreadDetail::System(_) => None,
        }
    }

    /// The conversation, if it is one.
    #[must_use]
    pub const fn conversation(&self) -> Option<&Conversation> {
        match &self.detail {
            ThreadDetail::Conversation(conversation) => Some(conversation),
            ThreadDetail::Account(_) | ThreadDetail::System(_) => None,
        }
    }

    /// The network's validators and enrollers, if it is the system thread.
    #[must_use]
    pub const fn system(&self) -> Option<&System> {
        match &self.detail {
            ThreadDetail::System(system) => Some(system),
            ThreadDetail::Account(_) | ThreadDetail::Conversation(_) => None,
        }
    }
}

/// The ledger after a height. Cheap to read from many tasks: threads are shared, and a new height replaces few.
#[derive(Clone, Debug)]
pub struct LedgerState {
    /// The network.
    pub genesis: Arc<Genesis>,
    /// Its hash.
    pub genesis_hash: Hash,
    /// The validators who certify the next header, unless its batch activates another key of theirs.
    pub validators: Arc<Vec<Validator>>,
    /// Validators and enrollers, and what led to them.
    pub system: Arc<System>,
    /// Height of the last header; 0 before the first.
    pub height: Height,
    /// Hash of the last header; [`Hash::ZERO`] before the first.
    pub header_hash: Hash,
    /// Ledger time of the last header.
    pub time: Timestamp,
    /// The tree over all header hashes.
    pub history: Frontier,
    /// The shards' trees, in order of shard.
    pub shards: Vec<Frontier>,
    /// The head map.
    pub heads: HeadMap,
    /// Public keys of enrollers, validators and devices' identities.
    pub keyring: Keyring,
    threads: HashMap<ThreadId, Arc<Thread>>,
    /// Devices by the hash of their TLS key, with the time of their addition: how a connection becomes a member.
    by_tls: HashMap<Hash, (Timestamp, Member)>,
}

impl LedgerState {
    /// The ledger of a new network. `keyring` has to hold the keys of its enrollers and validators.
    #[must_use]
    pub fn new(genesis: Genesis, keyring: Keyring) -> Self {
        let genesis_hash = digest::genesis_hash(&genesis);
        let shards = vec![Frontier::default(); usize::from(genesis.shard_count)];
        Self {
            validators: Arc::new(genesis.validators.clone()),
            system: Arc::new(System::new(&genesis)),
            time: genesis.created_at,
            genesis: Arc::new(genesis),
            genesis_hash,
            height: Height(0),
            header_hash: Hash::ZERO,
            history: Frontier::default(),
            shards,
            heads: HeadMap::new(),
            keyring,
            threads: HashMap::new(),
            by_tls: HashMap::new(),
        }
    }

    /// A thread.
    #[must_use]
    pub fn thread(&self, id: &ThreadId) -> Option<&Arc<Thread>> {
        self.threads.get(id)
    }

    /// All threads.
    pub fn threads(&self) -> impl Iterator<Item = (&ThreadId, &Arc<Thread>)> {
        self.threads.iter()
    }

    /// An account.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.threads.get(&digest::account_thread(id)).and_then(|thread| thread.account())
    }

    /// The active device that holds a TLS key.
    #[must_use]
    pub fn member_by_tls(&self, tls: &Hash) -> Option<Member> {
        self.holder_of_tls(tls).filter(|member| self.active_device(member).is_some())
    }

    /// The device that was added with a TLS key, revoked or not.
    #[must_use]
    pub fn holder_of_tls(&self, tls: &Hash) -> Option<Member> {
        self.by_tls.get(tls).map(|(_, member)| *member)
    }

    fn active_device(&self, member: &Member) -> Option<&crate::Device> {
        self.account(member.account)?.device(member.device).filter(|device| device.is_active())
    }

    /// Puts a thread in place; its head is in the head map already.
    pub(crate) fn place_thread(&mut self, id: ThreadId, thread: Arc<Thread>) {
        if let Some(account) = thread.account() {
            for device in &account.devices {
                self.claim_tls(device, Member { account: account.id, device: device.id });
            }
        }
        if let Some(system) = thread.system() {
            self.adopt_system(system.clone());
        }
        self.threads.insert(id, thread);
    }

    /// A TLS key stays with the device that was added first. [`Refusal::TlsKeyInUse`] leaves two claims possible only
    /// at one height, in different accounts; then the smaller member has it, in whatever order they are put in place.
    fn claim_tls(&mut self, device: &crate::Device, member: Member) {
        let claim = (device.added_at, member);
        let held = self.by_tls.entry(device.keys.tls).or_insert(claim);
        *held = claim.min(*held);
    }

    /// Replaces all threads, as a store does at start-up: a million heads cost a few hashes each, not a way to the
    /// root each.
    pub fn restore_threads(&mut self, threads: impl IntoIterator<Item = (ThreadId, Arc<Thread>)>) {
        self.threads.clear();
        self.by_tls.clear();
        for (id, thread) in threads {
            self.place_thread(id, thread);
        }
        self.heads = self.threads.iter().map(|(id, thread)| (*id, thread.head)).collect();
    }

    /// Takes validators and enrollers over from the system thread that a store's entries lead to, before its threads are
    /// restored: they are what everything else is measured by.
    pub fn adopt_system(&mut self, system: System) {
        self.validators = Arc::new(system.validators.clone());
        self.system = Arc::new(system);
    }

    /// Puts a public key in place that entries name by hash.
    pub fn insert_key(&mut self, suite: zixt_types::SuiteId, key: &[u8]) -> Hash {
        self.keyring.insert(suite, key)
    }

    /// Who must have signed this submission, judged by this state: enough to check signatures before the submission
    /// waits for its place in a block.
    ///
    /// # Errors
    /// The author may not write now.
    pub fn signer(&self, submission: &Submission) -> Result<Signer, Refusal> {
        let author = &submission.body.author;
        let account = match author {
            // What comes next is recorded at a later time than this state's.
            Author::Enroller(key) if self.system.appoints(key, Timestamp(self.time.0.saturating_add(1))) => {
                return Ok(Signer::Key(*key));
            }
            Author::Enroller(_) => return Err(Refusal::UnknownEnroller),
            Author::Officers => return Ok(Signer::Officers(OfficerRule::of(&self.genesis))),
            Author::Device(member) => member.account,
            Author::Invitation(account) => *account,
        };
        let account = self.account(account).ok_or(Refusal::UnknownAccount)?;
        account.author_key(author, self.time).map(Signer::Key)
    }

    /// Judges an entry: `own` is the thread as this block left it so far, everything else is the state at the height
    /// before. Returns the thread without its new head.
    pub(crate) fn extend(
        &self,
        own: Option<&Thread>,
        submission: &Submission,
        seq: Seq,
        time: Timestamp,
    ) -> Result<(Counters, ThreadDetail), Refusal> {
        let body = &submission.body;
        if body.genesis != self.genesis_hash {
            return Err(Refusal::WrongGenesis);
        }
        if !self.genesis.suites.contains(&body.suite) {
            return Err(Refusal::SuiteNotAllowed);
        }
        let mut counters = own.map(|thread| thread.counters.clone()).unwrap_or_default();
        counters.take(&body.author, body.counter)?;
        if let Some(seen) = body.last_seen {
            match own {
                Some(thread) if seen.seq < thread.head.seq => {}
                Some(thread) if seen == thread.head => {}
                _ => return Err(Refusal::OtherHistory),
            }
        }
        let detail = match body.thread.kind() {
            Some(ThreadKind::Account) => self.extend_account(own, submission, time)?,
            Some(ThreadKind::Conversation) => self.extend_conversation(own, body, seq)?,
            Some(ThreadKind::System) => self.extend_system(own, body, seq, time)?,
            None => return Err(Refusal::WrongThread),
        };
        Ok((counters, detail))
    }

    fn extend_system(
        &self,
        own: Option<&Thread>,
        body: &Body,
        seq: Seq,
        time: Timestamp,
    ) -> Result<ThreadDetail, Refusal> {
        let Payload::Decision { action } = &body.payload else { return Err(Refusal::WrongThread) };
        // Officers sign the action alone; whoever hands it in has no choice in the rest.
        if *body != crate::system::decision_body(&self.genesis, self.genesis_hash, seq, action.clone()) {
            return Err(Refusal::WrongThread);
        }
        let mut system = match own {
            Some(thread) => thread.system().ok_or(Refusal::WrongThread)?.clone(),
            None => System::new(&self.genesis),
        };
        system.apply(&self.genesis, action, time)?;
        if let Decision::ActivateKey { activates, .. } = &action.decision
            && self.holds_key(activates)
        {
            return Err(Refusal::KeyUsedBefore(*activates));
        }
        Ok(ThreadDetail::System(system))
    }

    /// Whether somebody in the accounts has or had this key. Asked once in the life of an appliance's key, so that no
    /// index of all keys is worth its memory.
    fn holds_key(&self, key: &Hash) -> bool {
        self.keyring.get(key).is_some()
            || self.by_tls.contains_key(key)
            || self.threads.values().filter_map(|thread| thread.account()).any(|account| {
                account.invitation == *key
                    || account
                        .devices
                        .iter()
                        .any(|device| [device.keys.identity, device.keys.mls, device.keys.tls].contains(key))
            })
    }

    fn extend_account(
        &self,
        own: Option<&Thread>,
        submission: &Submission,
        time: Timestamp,
    ) -> Result<ThreadDetail, Refusal> {
        let body = &submission.body;
        let (account, key) = self.account_after(own, body, time)?;
        if submission.invitation_key().is_some_and(|carried| digest::key_hash(body.suite, carried) != key) {
            return Err(Refusal::InvitationKey);
        }
        if let Payload::DeviceAdd { tls, .. } = &body.payload
            && self.by_tls.contains_key(tls)
        {
            return Err(Refusal::TlsKeyInUse);
        }
        Ok(ThreadDetail::Account(account))
    }

    /// An account after an entry, and the hash of the key that had to sign it: what its thread alone decides.
    fn account_after(
        &self,
        own: Option<&Thread>,
        body: &Body,
        time: Timestamp,
    ) -> Result<(Account, Hash), Refusal> {
        if let Author::Enroller(key) = &body.author
            && !self.system.appoints(key, time)
        {
            return Err(Refusal::UnknownEnroller);
        }
        let Some(thread) = own else {
            let account = Account::invited(body)?;
            let enroller = account.enroller;
            return Ok((account, enroller));
        };
        let mut account = thread.account().ok_or(Refusal::WrongThread)?.clone();
        let key = account.author_key(&body.author, time)?;
        account.apply(body, time)?;
        Ok((account, key))
    }

    /// An account's thread with one entry more, whose place in the chain is the caller's to compare. For entries that a
    /// certified head binds, so that they were judged before: signatures are not looked at, nor what other threads held.
    ///
    /// # Errors
    /// The ledger would never have taken the entry.
    pub fn replay_account(
        &self,
        own: Option<&Thread>,
        body: &Body,
        head: Head,
        time: Timestamp,
    ) -> Result<Thread, Refusal> {
        let mut counters = own.map(|thread| thread.counters.clone()).unwrap_or_default();
        counters.take(&body.author, body.counter)?;
        let (account, _) = self.account_after(own, body, time)?;
        Ok(Thread { head, counters, detail: ThreadDetail::Account(account) })
    }

    fn extend_conversation(
        &self,
        own: Option<&Thread>,
        body: &Body,
        seq: Seq,
    ) -> Result<ThreadDetail, Refusal> {
        let Author::Device(author) = body.author else { return Err(Refusal::NotAMember) };
        match self.account(author.account).and_then(|account| account.device(author.device)) {
            None => return Err(Refusal::UnknownDevice),
            Some(device) if !device.is_active() => return Err(Refusal::DeviceRevoked),
            Some(_) => {}
        }
        if let Payload::Commit { added, .. } = &body.payload
            && let Some(member) = added.iter().find(|member| self.active_device(member).is_none())
        {
            return Err(Refusal::AddedInactive(*member));
        }
        let conversation = match own {
            None => Conversation::begun(body)?,
            Some(thread) => {
                let mut conversation = thread.conversation().ok_or(Refusal::WrongThread)?.clone();
                conversation.apply(body, seq)?;
                conversation
            }
        };
        Ok(ThreadDetail::Conversation(conversation))
    }

    /// Members who are told of an entry: everybody who was or is in the conversation, or the account's own devices.
    pub(crate) fn recipients(before: Option<&Thread>, after: &ThreadDetail) -> Vec<Member> {
        match after {
            ThreadDetail::Account(account) => account.active_members(),
            // Every client asks for it when a header names validators that it does not know.
            ThreadDetail::System(_) => Vec::new(),
            ThreadDetail::Conversation(conversation) => {
                let mut all: BTreeMap<Member, ()> =
                    conversation.members.iter().map(|member| (*member, ())).collect();
                if let Some(before) = before.and_then(Thread::conversation) {
                    all.extend(before.members.iter().map(|member| (*member, ())));
                }
                all.into_keys().collect()
            }
        }
    }
}
