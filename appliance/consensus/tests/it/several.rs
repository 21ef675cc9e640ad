//! Several validators on a simulated network: messages are reordered and lost, nodes are down or crash, time is virtual.

use crate::harness::*;
use std::collections::BTreeMap;
use zixt_consensus::*;
use zixt_crypto::Reference;
use zixt_types::{ApplianceId, Canonical, Hash, Height, Round, Vote, VoteStep};

pub struct World {
    pub nodes: Vec<Node>,
    pub engines: Vec<Option<Engine>>,
    set: ValidatorSet,
    /// Messages under way, as bytes: from, to.
    pub wire: Vec<(usize, usize, Vec<u8>)>,
    chance: Chance,
    /// Messages lost, in percent.
    lossy: u64,
    pub heights: usize,
    now: u64,
    pub decided: BTreeMap<Height, Hash>,
    refused: Vec<&'static str>,
}

impl World {
    fn new(stakes: &[u64], heights: usize, seed: u64, key: impl Fn(u8) -> Key) -> Self {
        println!("stakes {stakes:?}, seed {seed}");
        let nodes: Vec<_> = (0..).take(stakes.len()).map(|number| Node::new(number, key(number))).collect();
        let set =
            ValidatorSet::new(nodes.iter().zip(stakes).map(|(node, stake)| node.validator(*stake)).collect())
                .unwrap();
        Self {
            engines: nodes.iter().map(|_| None).collect(),
            nodes,
            set,
            wire: Vec::new(),
            chance: Chance(seed),
            lossy: 0,
            heights,
            now: 0,
            decided: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    pub fn dummy(stakes: &[u64], heights: usize, seed: u64) -> Self {
        Self::new(stakes, heights, seed, |number| Key::Dummy(vec![number; 8]))
    }

    pub fn boot(&mut self, node: usize) {
        self.nodes[node].now = self.now;
        let engine = self.nodes[node].boot(&self.set, Flush::Inline).unwrap();
        self.engines[node] = Some(engine);
        self.go_on(node);
    }

    pub fn boot_all(&mut self, down: &[usize]) {
        for node in (0..self.nodes.len()).filter(|node| !down.contains(node)) {
            self.boot(node);
        }
    }

    pub fn kill(&mut self, node: usize) {
        self.engines[node] = None;
        self.nodes[node].timers.clear();
        self.nodes[node].outbox.clear();
        self.nodes[node].disk.crash(Loss::Some, &mut self.chance);
    }

    /// After anything that a node did: sends what it said, starts its next height.
    fn go_on(&mut self, node: usize) {
        loop {
            for message in std::mem::take(&mut self.nodes[node].outbox) {
                let bytes = message.to_bytes();
                for to in (0..self.nodes.len()).filter(|to| *to != node) {
                    self.wire.push((node, to, bytes.clone()));
                }
            }
            for (height, header) in &self.nodes[node].told {
                assert_eq!(self.decided.entry(*height).or_insert(*header), header, "fork at height {height}");
            }
            let Some(engine) = &mut self.engines[node] else { return };
            if engine.running().is_some() || self.nodes[node].stored.len() >= self.heights {
                return;
            }
            let start = self.nodes[node].start(&self.set);
            engine.start_height(start, &mut self.nodes[node]).unwrap();
        }
    }

    /// Delivers one message, or lets the time pass to the next timer.
    pub fn step(&mut self) {
        if !self.wire.is_empty() {
            let at = self.chance.below(self.wire.len().min(12) as u64) as usize;
            let (from, to, bytes) = self.wire.remove(at);
            if self.chance.below(100) >= self.lossy {
                self.deliver(from, to, Message::parse(&bytes).unwrap());
            }
            return;
        }
        // Whoever is behind fetches what others have stored, as the host does with the ledger.
        let up: Vec<_> = (0..self.nodes.len()).filter(|node| self.engines[*node].is_some()).collect();
        let longest = up.iter().copied().max_by_key(|node| self.nodes[*node].stored.len());
        let Some(first) = longest else { return };
        for node in up {
            let at = self.nodes[node].stored.len();
            if at < self.nodes[first].stored.len() {
                let fetched = self.nodes[first].stored[at..].to_vec();
                self.nodes[node].stored.extend(fetched);
                if self.nodes[node].stored.len() < self.heights {
                    let start = self.nodes[node].start(&self.set);
                    let engine = self.engines[node].as_mut().unwrap();
                    engine.start_height(start, &mut self.nodes[node]).unwrap();
                    self.go_on(node);
                } else {
                    self.kill(node);
                }
                return;
            }
        }
        let next = self
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(node, state)| state.timers.iter().map(move |(timer, at)| (*at, node, *timer)));
        let Some((at, node, timer)) = next.min() else { return };
        self.now = self.now.max(at);
        for node in &mut self.nodes {
            node.now = self.now;
        }
        self.nodes[node].timers.remove(&timer);
        self.engines[node].as_mut().unwrap().timeout(timer, &mut self.nodes[node]).unwrap();
        self.go_on(node);
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let sender = self.nodes[from].me;
        if let Some(engine) = &mut self.engines[to] {
            match engine.received(sender, message, &mut self.nodes[to]).unwrap() {
                Received::Refused(reason) => self.refused.push(reason),
                Received::Taken | Received::Waiting | Received::Stale | Received::Ahead(_) => {}
            }
            self.go_on(to);
        }
    }

    /// Runs until all nodes that are up have all heights; panics after too many steps.
    pub fn run(&mut self) {
        for _ in 0..200_000 {
            let done = |(node, engine): (&Node, &Option<Engine>)| {
                engine.is_none() || node.stored.len() >= self.heights
            };
            if self.nodes.iter().zip(&self.engines).all(done) {
                return;
            }
            self.step();
        }
        let at: Vec<_> = self
            .nodes
            .iter()
            .zip(&self.engines)
            .map(|(node, engine)| (node.stored.len(), engine.as_ref().and_then(Engine::round)))
            .collect();
        panic!("no progress: {at:?}");
    }

    fn check(&self, backend: &dyn zixt_crypto::Backend) {
        let nodes: Vec<_> = self.nodes.iter().collect();
        for node in &self.nodes {
            for decision in &node.stored {
                check_certificate(backend, &nodes, &self.set, decision);
                assert_eq!(self.decided.get(&decision.height), Some(&decision.header));
            }
            let precommits = node.custody.conflicts.iter().filter(|slot| slot.2 == VoteStep::Precommit);
            assert_eq!(precommits.count(), 0);
        }
    }
}

#[test]
fn four_decide_with_ml_dsa() {
    let mut world = World::new(&[1; 4], 3, 1, Key::ml_dsa);
    world.boot_all(&[]);
    world.run();
    world.check(&Reference);
    assert!(world.nodes.iter().all(|node| node.stored.len() == 3));
    assert_eq!(world.refused, Vec::<&str>::new());
}

#[test]
fn unequal_stake_decides_and_large_stake_suffices() {
    for seed in 0..5 {
        let mut world = World::dummy(&[10, 5, 3, 2], 10, seed);
        world.boot_all(&[]);
        world.run();
        world.check(&Dummy);
    }
    let mut world = World::dummy(&[50, 1, 1, 1], 10, 6);
    world.boot_all(&[2, 3]);
    world.run();
    world.check(&Dummy);
}

#[test]
fn one_of_four_may_be_down() {
    for down in 0..4 {
        let mut world = World::dummy(&[1; 4], 6, down as u64);
        world.boot_all(&[down]);
        world.run();
        world.check(&Dummy);
        assert_eq!(world.nodes.iter().filter(|node| node.stored.len() == 6).count(), 3);
    }
}

#[test]
fn more_than_a_third_down_decides_nothing_until_they_return() {
    for (stakes, down) in [(&[1; 4][..], &[1, 2][..]), (&[10, 5, 3, 2], &[0]), (&[10, 5, 3, 2], &[1, 2])] {
        let mut world = World::dummy(stakes, 4, 9);
        world.boot_all(down);
        for _ in 0..3000 {
            world.step();
        }
        assert!(world.decided.is_empty(), "{:?}", world.decided);
        for node in down {
            world.boot(*node);
        }
        world.run();
        world.check(&Dummy);
    }
}

#[test]
fn lost_messages_are_said_again() {
    for seed in 0..15 {
        let mut world = World::dummy(&[1; 4], 4, seed);
        world.lossy = 15;
        world.boot_all(&[]);
        world.run();
        world.check(&Dummy);
    }
}

#[test]
fn crashes_never_fork() {
    let mut abstained = 0;
    for seed in 0..60 {
        let mut world = World::dummy(&[3, 3, 2, 2], 5, seed);
        world.lossy = 5;
        world.boot_all(&[]);
        for _ in 0..30 {
            for _ in 0..world.chance.below(40) {
                world.step();
            }
            let node = world.chance.below(4) as usize;
            world.kill(node);
            for _ in 0..world.chance.below(20) {
                world.step();
            }
            if world.nodes[node].stored.len() < world.heights {
                world.boot(node);
            }
        }
        for node in 0..4 {
            if world.engines[node].is_none() && world.nodes[node].stored.len() < world.heights {
                world.boot(node);
            }
        }
        world.lossy = 0;
        world.run();
        world.check(&Dummy);
        abstained += world.nodes.iter().map(|node| node.custody.abstained).sum::<u64>();
    }
    assert_eq!(abstained, 0, "the log leads back to the round in which custody signed last");
}

/// Custody has signed in a later round, and the log has lost that we went there: earlier slots stay empty.
#[test]
fn a_forgotten_round_is_abstained_from() {
    let mut world = World::dummy(&[1; 4], 3, 11);
    let mut later = vote_of(&world.nodes[0], None);
    later.vote.round = Round(1);
    let signature = world.nodes[0].custody.key.sign(&later.vote);
    world.nodes[0].custody.signed.insert(later.vote.slot(), (later.vote, signature));
    world.boot_all(&[]);
    world.run();
    world.check(&Dummy);
    assert!(world.nodes[0].custody.abstained > 0);
    assert_eq!(world.nodes[0].stored.len(), 3);
}

#[test]
fn a_validator_that_finds_everything_invalid_stops_nobody() {
    let mut world = World::dummy(&[1; 4], 5, 3);
    world.nodes[2].rejects = true;
    world.boot_all(&[]);
    world.run();
    world.check(&Dummy);
}

#[test]
fn double_votes_become_evidence() {
    let mut world = World::dummy(&[1; 4], 1, 4);
    world.boot_all(&[3]);
    for header in [None, Some(Hash([1; 48])), Some(Hash([2; 48]))] {
        let vote = vote_of(&world.nodes[3], header);
        for to in 0..3 {
            world.deliver(3, to, Message::Vote(vote.clone()));
        }
    }
    world.run();
    world.check(&Dummy);
    for node in &world.nodes[..3] {
        let evidence = &node.equivocations[..];
        assert!(!evidence.is_empty());
        for Equivocation { first, second } in evidence {
            assert_eq!(first.validator, world.nodes[3].me);
            assert_eq!((first.validator, first.vote.slot()), (second.validator, second.vote.slot()));
            assert_ne!(first.vote.header, second.vote.header);
            for signed in [first, second] {
                assert_eq!(world.nodes[3].custody.key.sign(&signed.vote), signed.signature);
            }
        }
    }
}

fn vote_of(node: &Node, header: Option<Hash>) -> SignedVote {
    let (height, round) = (Height(1), Round(0));
    let vote =
        Vote { version: 1, suite: SUITE, genesis: GENESIS, height, round, step: VoteStep::Prevote, header };
    let signature = node.custody.key.sign(&vote);
    SignedVote { validator: node.me, vote, signature }
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let mut world = World::dummy(&[1; 4], 1, 5);
    world.boot(0);
    let genuine = vote_of(&world.nodes[1], None);
    let refused = |world: &mut World, from: usize, message: Message| {
        let sender = world.nodes[from].me;
        let engine = world.engines[0].as_mut().unwrap();
        engine.received(sender, message, &mut world.nodes[0]).unwrap()
    };
    let mut other_chain = genuine.clone();
    other_chain.vote.genesis = Hash::ZERO;
    let mut other_suite = genuine.clone();
    other_suite.vote.suite = zixt_types::SuiteId::Cnsa;
    let mut stranger = genuine.clone();
    stranger.validator = ApplianceId([99; 48]);
    let mut long = genuine.clone();
    long.signature = vec![0; 100_000];
    for bad in [other_chain, other_suite, stranger, long] {
        let change = RoundChange {
            height: Height(1),
            round: Round(0),
            kind: RoundChangeKind::Skip,
            votes: vec![bad.clone()],
        };
        for message in [Message::Vote(bad), Message::RoundChange(change)] {
            assert!(matches!(refused(&mut world, 1, message), Received::Refused(_)));
        }
    }
    // Bad signatures are found by the core, and count for nothing; nor do certificates without a quorum.
    let records = world.engines[0].as_ref().unwrap().wal_stats().records;
    let mut forged = genuine.clone();
    forged.signature = vec![1; 8];
    refused(&mut world, 1, Message::Vote(forged.clone()));
    let one = |vote: &SignedVote| zixt_types::CertificateSignature {
        validator: vote.validator,
        signature: vote.signature.clone(),
    };
    for signatures in [vec![], vec![one(&genuine)], vec![one(&genuine); 4], vec![one(&forged)]] {
        let polka = Polka { height: Height(1), round: Round(0), header: Hash([1; 48]), signatures };
        refused(&mut world, 1, Message::Polka(polka));
    }
    for votes in [vec![], vec![genuine.clone()], vec![genuine.clone(); 4]] {
        for kind in [RoundChangeKind::Skip, RoundChangeKind::Precommits] {
            let votes = votes.clone();
            let change = RoundChange { height: Height(1), round: Round(0), kind, votes };
            refused(&mut world, 1, Message::RoundChange(change));
        }
    }
    assert_eq!(world.engines[0].as_ref().unwrap().wal_stats().records, records);
    assert_eq!(world.engines[0].as_ref().unwrap().round(), Some(Round(0)));

    // Proposals: only the proposer's own link counts, and only one round's worth.
    let proposer = world.set.proposer(Height(1), Round(0)).appliance();
    let index = world.nodes.iter().position(|node| node.me == proposer).unwrap();
    let content = std::sync::Arc::new(Content { header: vec![1], batch: vec![2] });
    let head = ProposalHead {
        height: Height(1),
        round: Round(0),
        polka: None,
        proposer,
        header: header_hash(&content),
    };
    let heads = [
        (1 - usize::from(index == 1), head),
        (index, ProposalHead { polka: Some(Round(0)), ..head }),
        (index, ProposalHead { proposer: ApplianceId([99; 48]), ..head }),
        (index, ProposalHead { round: Round(u32::MAX), ..head }),
    ];
    for (from, head) in heads {
        let message = Message::Proposal(head, content.clone());
        assert!(matches!(refused(&mut world, from, message), Received::Refused(_)), "{head:?}");
    }
    // Heights: over, next, far ahead.
    let at = |height: u64| {
        let mut vote = genuine.clone();
        vote.vote.height = Height(height);
        Message::Vote(vote)
    };
    assert_eq!(refused(&mut world, 1, at(0)), Received::Stale);
    assert_eq!(refused(&mut world, 1, at(2)), Received::Waiting);
    assert_eq!(refused(&mut world, 1, at(3)), Received::Ahead(Height(3)));
    let mut flood = Vec::new();
    for round in 0..100 {
        let mut vote = genuine.clone();
        (vote.vote.height, vote.vote.round) = (Height(2), Round(round));
        flood.push(refused(&mut world, 1, Message::Vote(vote)));
    }
    assert!(flood.iter().filter(|one| **one == Received::Waiting).count() <= 8);
}

/// A validator set may change at every height; whoever leaves no longer votes, whoever comes does.
#[test]
fn the_validator_set_changes_with_the_height() {
    let mut world = World::dummy(&[1; 4], 3, 8);
    world.boot_all(&[]);
    world.run();
    world.set = ValidatorSet::new(vec![world.nodes[1].validator(7), world.nodes[2].validator(8)]).unwrap();
    world.heights = 6;
    world.wire.clear();
    for node in 0..4 {
        world.go_on(node);
    }
    world.run();
    for decision in &world.nodes[0].stored[3..] {
        let signers: Vec<_> = decision.certificate.signatures.iter().map(|one| one.validator).collect();
        assert_eq!(signers, [world.nodes[1].me, world.nodes[2].me]);
    }
}
