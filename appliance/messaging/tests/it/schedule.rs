//! Random schedules over four members: messages, commits at the same time, joins, removals, crashes between storing
//! and sending, envelopes that are lost, late, doubled or altered. After each, everybody agrees and everything that
//! should be read was read exactly once. A failure prints the seed; `ZIXT_MESSAGING_SEED` runs it again.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::*;
use zixt_crypto::digest::envelope_digest;
use zixt_messaging::{Change, CommitDraft, CommitEntry, CommitError, DecryptError, MessageEntry};
use zixt_types::{Member, SuiteId};

const SCHEDULES: u64 = 24;
const STEPS: usize = 60;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

struct Schedule {
    world: World,
    random: Random,
    /// Per member: what waits to be read, and what was.
    inbox: BTreeMap<Member, Vec<Sent>>,
    read: BTreeMap<Member, BTreeSet<String>>,
    /// Commits that have been made in this epoch and not decided.
    drafts: Vec<(u8, CommitDraft)>,
    epoch: u64,
    said: usize,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let suite = if seed.is_multiple_of(4) { SuiteId::Cnsa } else { SuiteId::Standard };
        let world = World::talking(suite, 4);
        let names: Vec<_> = world.roster.iter().copied().collect();
        let inbox = names.iter().map(|name| (*name, Vec::new())).collect();
        let read = names.iter().map(|name| (*name, BTreeSet::new())).collect();
        Self { world, random: Random(seed), inbox, read, drafts: Vec::new(), epoch: 1, said: 0 }
    }

    fn members(&self) -> Vec<u8> {
        self.world.roster.iter().map(|name| name.account.0[0]).collect()
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..=2 => self.say(),
            3..=5 => self.receive(),
            6 => self.alter(),
            7 | 8 => self.draft(),
            _ => self.decide(),
        }
    }

    fn say(&mut self) {
        let author = self.random.one_of(&self.members());
        self.said += 1;
        let text = format!("message {}", self.said);
        // Now and then the program dies after storing the state and before the envelope is in the outbox, or the
        // server loses it: a gap in the author's ratchet.
        let sent = self.world.say(author, &text);
        if self.random.below(6) == 0 {
            return;
        }
        for name in self.world.roster.clone() {
            if name != member(author) {
                self.inbox.get_mut(&name).unwrap().push(sent.clone());
            }
        }
    }

    /// Reads some waiting message, not the oldest; sometimes leaves it in the inbox, so that it comes again.
    fn receive(&mut self) {
        let reader = member(self.random.one_of(&self.members()));
        if self.inbox[&reader].is_empty() {
            return;
        }
        let at = self.random.below(self.inbox[&reader].len());
        let sent = self.inbox[&reader][at].clone();
        if self.random.below(4) > 0 {
            self.inbox.get_mut(&reader).unwrap().remove(at);
        }
        self.read_one(reader, &sent);
    }

    fn read_one(&mut self, reader: Member, sent: &Sent) {
        let age = self.epoch - sent.entry.epoch.0;
        let result = self.world.peers.get_mut(&reader).unwrap().read(&sent.envelope, &sent.entry);
        let first_time = !self.read[&reader].contains(&sent.text);
        match result {
            Ok(received) => {
                assert!(first_time, "{} twice", sent.text);
                assert_eq!(received.content.text, sent.text);
                self.read.get_mut(&reader).unwrap().insert(sent.text.clone());
            }
            Err(DecryptError::AlreadyDecrypted) => assert!(!first_time, "{}", sent.text),
            // Three past epochs are kept. (What waits for a member who leaves is dropped with its state.)
            Err(DecryptError::EpochGone { .. }) => assert!(age > 3, "age {age}"),
            Err(DecryptError::AuthorGone) => {
                assert!(age > 0, "only late messages lose their author");
            }
            Err(other) => panic!("{}: {other:?}", sent.text),
        }
    }

    /// An altered envelope changes nothing for its reader.
    fn alter(&mut self) {
        let reader = member(self.random.one_of(&self.members()));
        if self.inbox[&reader].is_empty() {
            return;
        }
        let at = self.random.below(self.inbox[&reader].len());
        let Sent { mut envelope, entry, .. } = self.inbox[&reader][at].clone();
        let byte = self.random.below(envelope.len());
        envelope[byte] ^= 1 << self.random.below(8);
        let entry = MessageEntry { envelope: envelope_digest(&envelope), ..entry };
        assert!(self.world.peers.get_mut(&reader).unwrap().read(&envelope, &entry).is_err(), "byte {byte}");
    }

    fn draft(&mut self) {
        let members = self.members();
        let author = self.random.one_of(&members);
        if self.drafts.iter().any(|(by, _)| *by == author) {
            return;
        }
        let others: Vec<u8> = members.iter().copied().filter(|n| *n != author).collect();
        let absent: Vec<u8> = (1..=4).filter(|n| !members.contains(n)).collect();
        let add: Vec<u8> = absent.into_iter().filter(|_| self.random.below(2) == 0).collect();
        let remove = if members.len() > 2 && self.random.below(3) == 0 {
            vec![member(self.random.one_of(&others))]
        } else {
            vec![]
        };
        let change = Change { add: self.world.packages(&add), remove };
        let thread = self.world.thread;
        let draft = self.world.peer(author).commit(thread, &change).unwrap();
        self.drafts.push((author, draft));
    }

    /// The ledger takes one of the commits that compete; the others lose.
    fn decide(&mut self) {
        if self.drafts.is_empty() {
            return;
        }
        let winner = self.random.below(self.drafts.len());
        let (author, draft) = self.drafts.swap_remove(winner);
        let entry = CommitEntry::of(self.world.thread, member(author), NOW, &draft.payload).unwrap();
        // A member hears of it twice, or of a loser's commit: nothing happens.
        let _ = self.world.deliver(author, &draft);
        self.epoch += 1;
        for name in &entry.removed {
            self.inbox.get_mut(name).unwrap().clear();
        }
        let witness = self.random.one_of(&self.members());
        let again = self.world.peer(witness).process(&draft.envelope, &entry);
        assert!(matches!(again, Err(CommitError::Epoch { .. })), "{again:?}");
        for (loser, draft) in std::mem::take(&mut self.drafts) {
            let entry = CommitEntry::of(self.world.thread, member(loser), NOW, &draft.payload).unwrap();
            if self.world.roster.contains(&member(loser)) {
                assert!(matches!(self.world.peer(loser).confirm(&entry), Err(CommitError::NotPending)));
            }
            let refused = self.world.peer(witness).process(&draft.envelope, &entry);
            assert!(matches!(refused, Err(CommitError::Epoch { .. })), "{refused:?}");
        }
        self.world.agree();
    }

    fn finish(&mut self) {
        self.decide();
        self.world.agree();
        for name in self.world.roster.clone() {
            for sent in std::mem::take(self.inbox.get_mut(&name).unwrap()) {
                self.read_one(name, &sent);
            }
        }
        let author = self.members()[0];
        let sent = self.world.say(author, "the end");
        self.world.all_read(&sent);
    }
}

#[test]
fn any_schedule_ends_in_agreement() {
    let seeds = match std::env::var("ZIXT_MESSAGING_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SCHEDULES).collect(),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut schedule = Schedule::new(seed);
            for _ in 0..STEPS {
                schedule.step();
            }
            schedule.finish();
        });
        if run.is_err() {
            panic!("ZIXT_MESSAGING_SEED={seed}");
        }
    }
}
