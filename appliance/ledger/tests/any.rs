//! Whatever comes in, in whatever order: random entries, good ones and faulty ones of devices that sign what they like.
//!
//! The ledger takes some and refuses others. A refused one changes nothing; who follows the stored bytes arrives at the
//! state that was applied live; and what was taken keeps the rules, judged by a second, simpler telling of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use zixt_crypto::{Reference, SigningKey, cose, digest};
use zixt_ledger::testing::{SampleDevice, SampleInvitation, SampleNetwork};
use zixt_ledger::{
    BlockBuilder, LedgerState, ProposedBlock, RecordedEntry, Submission, Thread, ThreadDetail, label_for,
};
use zixt_types::{
    AccountId, Author, Batch, Body, Canonical, DeviceId, Epoch, Hash, Head, Member, MessageId, Payload, Salt,
    Seq, SuiteId, ThreadId, ThreadKind,
};

/// One entry that somebody hands in: what, by whom, about whom, and what is wrong with it.
type Step = (u8, u8, u8, u8, u8);

struct World {
    network: SampleNetwork,
    invitations: Vec<SampleInvitation>,
    devices: Vec<SampleDevice>,
    conversations: Vec<ThreadId>,
    /// An id that was used before.
    used: MessageId,
}

fn pick<T>(all: &[T], number: u8) -> &T {
    &all[usize::from(number) % all.len()]
}

impl World {
    /// Three people and a conversation, so that most of what comes next is about something.
    fn new() -> Self {
        let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1]);
        let (invitation, submission) = network.invite("waits");
        network.seal(vec![submission]);
        let devices: Vec<_> = ["alice", "bob", "carol"].map(|name| network.enrol(name)).into();
        let thread = network.thread_id();
        let commit = network.commit(thread, &devices[0], vec![devices[1].member], vec![]);
        let used = commit.body.message_id;
        network.seal(vec![commit]);
        Self { network, invitations: vec![invitation], devices, conversations: vec![thread], used }
    }

    fn members(&self, mask: u8) -> Vec<Member> {
        let chosen = self.devices.iter().enumerate().filter(|(at, _)| at < &8 && mask >> at & 1 == 1);
        chosen.map(|(_, device)| device.member).collect()
    }

    /// The entry of a step, made from the state as it is. `None` if it is not even well-formed.
    fn entry(&mut self, (kind, by, about, mask, fault): Step) -> Option<Submission> {
        let at = usize::from(by) % self.devices.len();
        match kind {
            0 => {
                let (invitation, submission) = self.network.invite("somebody");
                self.invitations.push(invitation);
                Some(submission)
            }
            // An invitation may be used a second time, and a device may add one to an account that is not its own.
            1 => {
                let invitation = pick(&self.invitations, about);
                let (device, submission) = self.network.device(invitation.account, Ok(invitation));
                self.devices.push(device);
                Some(submission)
            }
            2 => {
                let account = pick(&self.devices, if mask < 64 { about } else { by }).member.account;
                let (device, submission) = self.network.device(account, Err(&self.devices[at]));
                self.devices.push(device);
                Some(submission)
            }
            3 => {
                let device = pick(&self.devices, if mask < 64 { about } else { by }).member.device;
                let submission = self.network.revoke(device, &self.devices[at]);
                self.faulty(submission, at, fault)
            }
            4 => {
                let (thread, added) = (self.network.thread_id(), self.members(mask & !(1 << (at % 8))));
                self.conversations.push(thread);
                let submission = self.network.commit(thread, &self.devices[at], added, vec![]);
                self.faulty(submission, at, fault)
            }
            5 | 6 => {
                let thread = *pick(&self.conversations, about);
                // Mostly what fits: adds who is not in it, removes who is.
                let inside: BTreeSet<Member> = self
                    .network
                    .state
                    .thread(&thread)
                    .and_then(|thread| thread.conversation())
                    .map(|conversation| conversation.members.iter().copied().collect())
                    .unwrap_or_default();
                let chosen = self.members(mask);
                let fits = fault % 8 != 7;
                let (mut removed, mut added): (Vec<_>, Vec<_>) =
                    chosen.into_iter().partition(|member| inside.contains(member) == fits);
                if kind == 6 {
                    removed.clear();
                    added.truncate(1);
                }
                let submission = self.network.commit(thread, &self.devices[at], added, removed);
                self.faulty(submission, at, fault)
            }
            _ => {
                let thread = *pick(&self.conversations, about);
                let unique = self.network.unique().to_be_bytes();
                let submission = self.network.message(thread, &self.devices[at], &unique, Hash([mask; 48]));
                self.faulty(submission, at, fault)
            }
        }
    }

    /// The same entry with something wrong in it, signed by its author, or by somebody else.
    fn faulty(&self, submission: Submission, by: usize, fault: u8) -> Option<Submission> {
        let mut body = submission.body.clone();
        let mut key: &dyn SigningKey = &*self.devices[by].identity;
        let epoch_of = |payload: &mut Payload, change: fn(u64) -> u64| match payload {
            Payload::Message { epoch, .. } | Payload::Commit { epoch, .. } => epoch.0 = change(epoch.0),
            _ => {}
        };
        match fault {
            0 => body.counter += 1,
            1 => body.counter = body.counter.saturating_sub(1),
            2 => epoch_of(&mut body.payload, |epoch| epoch + 1),
            3 => epoch_of(&mut body.payload, |epoch| epoch.saturating_sub(1)),
            4 => body.last_seen = None,
            5 => body.last_seen = Some(Head { seq: Seq(0), hash: Hash([1; 48]) }),
            6 => body.message_id = self.used,
            8 => body.genesis = Hash([2; 48]),
            9 => body.thread = self.conversations[0],
            10 => body.thread = digest::account_thread(self.devices[0].member.account),
            11 => key = &*pick(&self.devices, u8::try_from(by + 1).unwrap()).identity,
            12 => body.counter += 2,
            _ => return Some(submission),
        }
        let bytes = body.to_bytes();
        let signature = cose::sign(key, label_for(&body.author), &bytes).unwrap();
        Submission::parse(bytes, signature, None, submission.attachments).ok()
    }
}

/// Judges an entry as the server does, and puts it into the block if it is good.
fn take(state: &LedgerState, builder: &mut BlockBuilder<'_>, submission: &Submission, salt: Salt) -> bool {
    let Ok(signer) = state.signer(submission) else { return false };
    submission.verify(&signer, &state.keyring, &Reference).is_ok()
        && builder.add(submission.clone(), salt).is_ok()
}

fn threads(state: &LedgerState) -> BTreeMap<ThreadId, Thread> {
    state.threads().map(|(id, thread)| (*id, Thread::clone(thread))).collect()
}

/// The rules, told a second time: what is known of threads, devices and conversations after each entry.
#[derive(Default)]
struct Rules {
    /// Each thread's last entry.
    heads: HashMap<ThreadId, Head>,
    counters: HashMap<(ThreadId, Author), u64>,
    ids: HashSet<(ThreadId, MessageId, u64)>,
    invited: HashMap<AccountId, bool>,
    /// Each device, and whether it is active.
    devices: HashMap<Member, bool>,
    tls: HashSet<Hash>,
    conversations: HashMap<ThreadId, (Epoch, BTreeSet<Member>)>,
}

impl Rules {
    /// One height. Conversations are judged by the devices of the height before.
    fn height(&mut self, height: u64, entries: &[RecordedEntry]) {
        let before = self.devices.clone();
        for entry in entries {
            let (body, position) = (&entry.body, &entry.item.position);
            let (seq, prev) = self
                .heads
                .get(&body.thread)
                .map_or((Seq(0), Hash::ZERO), |head| (head.seq.next(), head.hash));
            assert_eq!((position.seq, position.prev), (seq, prev), "chains have no gap");
            self.heads.insert(body.thread, Head { seq, hash: entry.hash });
            let counter = self.counters.entry((body.thread, body.author)).or_default();
            assert_eq!(body.counter, *counter, "counters have no gap");
            *counter += 1;
            assert!(self.ids.insert((body.thread, body.message_id, height)), "an id stands once in a height");
            match body.thread.kind() {
                Some(ThreadKind::Account) => self.account(body),
                Some(ThreadKind::Conversation) => self.conversation(body, &before),
                kind => panic!("an entry of {kind:?}"),
            }
        }
    }

    fn account(&mut self, body: &Body) {
        match (&body.payload, body.author) {
            (Payload::Invite { account, .. }, Author::Enroller(_)) => {
                assert_eq!(self.invited.insert(*account, false), None, "an account begins once");
            }
            (Payload::DeviceAdd { device, tls, .. }, author) => {
                let account = match author {
                    Author::Invitation(account) => {
                        let used = self.invited.get_mut(&account).expect("an invitation that was made");
                        assert!(!std::mem::replace(used, true), "an invitation works once");
                        account
                    }
                    Author::Device(member) => {
                        assert_eq!(self.devices.get(&member), Some(&true), "an active device adds");
                        member.account
                    }
                    other => panic!("{other:?} adds a device"),
                };
                assert_eq!(body.thread, digest::account_thread(account), "a device adds to its own account");
                assert!(self.tls.insert(*tls), "a TLS key belongs to one device");
                assert_eq!(self.devices.insert(Member { account, device: *device }, true), None);
            }
            (Payload::DeviceRevoke { device, .. }, Author::Device(by)) => {
                assert_eq!(self.devices.get(&by), Some(&true), "an active device revokes");
                self.revoke(by.account, *device);
            }
            other => panic!("an account took {other:?}"),
        }
    }

    fn revoke(&mut self, account: AccountId, device: DeviceId) {
        let member = Member { account, device };
        assert_eq!(
            self.devices.insert(member, false),
            Some(true),
            "an active device of the account is revoked"
        );
    }

    fn conversation(&mut self, body: &Body, before: &HashMap<Member, bool>) {
        let Author::Device(author) = body.author else { panic!("{:?} speaks", body.author) };
        assert_eq!(before.get(&author), Some(&true), "an active device speaks");
        let known = self.conversations.contains_key(&body.thread);
        let begun = || (Epoch(0), BTreeSet::from([author]));
        let (epoch, members) = self.conversations.entry(body.thread).or_insert_with(begun);
        assert!(members.contains(&author), "a member speaks");
        match &body.payload {
            Payload::Message { epoch: said, .. } => {
                assert!(known, "a commit begins a conversation");
                assert_eq!(said, epoch, "a message is of the current epoch");
            }
            Payload::Commit { epoch: said, added, removed, .. } => {
                assert_eq!(said, epoch, "a commit is of the current epoch");
                assert!(known || !added.is_empty(), "nobody talks alone");
                for member in removed {
                    assert!(*member != author && members.remove(member), "a member is removed, by another");
                }
                for member in added {
                    assert_eq!(before.get(member), Some(&true), "an active device is added");
                    assert!(members.insert(*member), "who is added was not there");
                }
                *epoch = epoch.next();
            }
            other => panic!("a conversation took {other:?}"),
        }
    }

    /// What the ledger says now is what this telling arrives at.
    fn agree(&self, state: &LedgerState) {
        for (id, thread) in state.threads() {
            assert_eq!(Some(&thread.head), self.heads.get(id));
            match &thread.detail {
                ThreadDetail::Conversation(conversation) => {
                    let (epoch, members) = &self.conversations[id];
                    assert_eq!(
                        (conversation.epoch, &conversation.members),
                        (*epoch, &members.iter().copied().collect())
                    );
                }
                ThreadDetail::Account(account) => {
                    assert_eq!(Some(&account.invitation_used), self.invited.get(&account.id));
                    for device in &account.devices {
                        let member = Member { account: account.id, device: device.id };
                        assert_eq!(self.devices.get(&member), Some(&device.is_active()));
                        let holder = state.member_by_tls(&device.keys.tls);
                        assert_eq!(
                            holder,
                            device.is_active().then_some(member),
                            "only active devices connect"
                        );
                    }
                }
                ThreadDetail::System(_) => panic!("no officer decided anything"),
            }
        }
        assert_eq!(state.threads().count(), self.heads.len());
    }
}

/// Derives every account again from its own entries, as start-up does.
fn replayed(world: &World, state: &LedgerState) {
    let mut accounts: BTreeMap<ThreadId, Thread> = BTreeMap::new();
    for entry in world.network.blocks.iter().flat_map(|(block, _)| &block.entries) {
        if entry.body.thread.kind() == Some(ThreadKind::Account) {
            let position = &entry.item.position;
            let head = Head { seq: position.seq, hash: entry.hash };
            let own = accounts.get(&entry.body.thread);
            let thread = state.replay_account(own, &entry.body, head, position.time).unwrap();
            accounts.insert(entry.body.thread, thread);
        }
    }
    let all = threads(state);
    assert_eq!(all.iter().filter(|(_, thread)| thread.account().is_some()).count(), accounts.len());
    assert!(accounts.iter().all(|(id, thread)| all.get(id) == Some(thread)));
}

#[test]
fn any_entries_keep_the_rules_and_lead_every_follower_to_one_state() {
    let step = (0u8..9, 0u8..8, 0u8..8, any::<u8>(), 0u8..24);
    let schedules = prop::collection::vec(prop::collection::vec(step, 1..4), 1..12);
    let (taken, refused) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&schedules, |schedule| {
        let mut world = World::new();
        let mut follower =
            LedgerState::new((*world.network.state.genesis).clone(), world.network.keyring.clone());
        let mut rules = Rules::default();
        let follow = |follower: &mut LedgerState, block: &ProposedBlock| {
            let batch = Batch::parse(&block.batch.to_bytes()).unwrap();
            let rebuilt = ProposedBlock::rebuild(follower, batch, &Reference).unwrap();
            assert_eq!(rebuilt.header_hash, block.header_hash);
            follower.apply(&rebuilt);
        };
        for (block, _) in &world.network.blocks {
            follow(&mut follower, block);
            rules.height(block.header().height.0, &block.entries);
        }
        for steps in schedule {
            let offered: Vec<Submission> = steps.into_iter().filter_map(|step| world.entry(step)).collect();
            world.network.now.0 += 1_000;
            let (state, now) = (&world.network.state, world.network.now);
            let salt = |at: usize| Salt([u8::try_from(at).unwrap(); 32]);
            let before = threads(state);
            let mut builder = BlockBuilder::new(state, now);
            let mut good = Vec::new();
            for (at, submission) in offered.iter().enumerate() {
                if take(state, &mut builder, submission, salt(at)) {
                    good.push(at);
                } else {
                    refused.set(refused.get() + 1);
                }
            }
            assert!(before == threads(state), "nothing changes before a height is decided");
            if good.is_empty() {
                continue;
            }
            taken.set(taken.get() + u32::try_from(good.len()).unwrap());
            let block = builder.finish();
            // The refused ones left no trace.
            let mut builder = BlockBuilder::new(state, now);
            for at in good {
                assert!(take(state, &mut builder, &offered[at], salt(at)));
            }
            assert_eq!(builder.finish().header_hash, block.header_hash);
            let certificate = world.network.certify(&block);
            world.network.state.apply(&block);
            follow(&mut follower, &block);
            rules.height(block.header().height.0, &block.entries);
            rules.agree(&world.network.state);
            world.network.blocks.push((block, certificate));
        }
        let state = &world.network.state;
        assert_eq!((state.height, state.header_hash), (follower.height, follower.header_hash));
        assert!(threads(state) == threads(&follower));
        // What a server keeps of the state is enough for the rest of it.
        let mut restored = LedgerState::new((*state.genesis).clone(), world.network.keyring.clone());
        restored.restore_threads(state.threads().map(|(id, thread)| (*id, Arc::clone(thread))));
        for device in &world.devices {
            let tls = digest::key_hash(SuiteId::Standard, &device.tls);
            assert_eq!(restored.member_by_tls(&tls), state.member_by_tls(&tls));
            assert_eq!(restored.holder_of_tls(&tls), state.holder_of_tls(&tls));
        }
        replayed(&world, &follower);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Both halves of what is claimed were tried.
    println!("{} taken, {} refused", taken.get(), refused.get());
    assert!(taken.get() > 50 && refused.get() > 50, "{} taken, {} refused", taken.get(), refused.get());
}
