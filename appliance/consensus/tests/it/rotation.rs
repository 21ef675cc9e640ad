//! Officers replace a validator's key: the height that records it is certified by the new one.

use crate::harness::*;
use crate::several::World;
use zixt_consensus::*;
use zixt_crypto::digest::vote_bytes;
use zixt_types::{ApplianceId, Canonical as _, Hash, Height, Round, Vote, VoteStep};

const NEW: &[u8] = &[0xAA; 8];

fn precommit(decision: &Decision) -> Vote {
    Vote {
        version: 1,
        suite: SUITE,
        genesis: GENESIS,
        height: decision.height,
        round: decision.certificate.round,
        step: VoteStep::Precommit,
        header: Some(decision.header),
    }
}

/// Every certificate is good under the keys after its own height. Returns the height of the activation.
fn check(node: &Node) -> Option<Height> {
    let mut activated = None;
    for (at, decision) in node.stored.iter().enumerate() {
        let keys = node.keys_after(at + 1, None);
        let message = vote_bytes(&precommit(decision));
        let mut stake = 0;
        for one in &decision.certificate.signatures {
            let (_, key, weight) = keys.iter().find(|known| known.0 == one.validator).unwrap();
            assert_eq!(one.signature, dummy_signature(key, &message), "height {}", decision.height);
            stake += weight;
        }
        assert!(stake * 3 > keys.iter().map(|known| known.2).sum::<u64>() * 2);
        if activation_in(&decision.content).is_some() {
            assert_eq!(activated.replace(decision.height), None, "recorded once");
        }
    }
    activated
}

fn alone() -> (Node, ValidatorSet) {
    let mut node = Node::new(1, Key::Dummy(vec![1; 8]));
    let set = ValidatorSet::new(vec![node.validator(5)]).unwrap();
    node.base = vec![(node.me, vec![1; 8], 5)];
    (node, set)
}

/// One life of the process: finishes or drops what the log has, then decides up to `heights`.
fn live(node: &mut Node, set: &ValidatorSet, heights: usize) -> Result<(), EngineError> {
    let mut engine = node.boot(set, Flush::Beside)?;
    engine.abandon_unfinished(node)?;
    while node.stored.len() < heights {
        engine.start_height(node.start(set), node)?;
    }
    Ok(())
}

/// The old key dies at any operation of a height, the new one's heights are cut at any operation, in all combinations.
#[test]
fn alone_a_rotation_survives_a_crash_at_any_operation() {
    let mut sooner = 0;
    loop {
        let mut crashed_before;
        let mut later = 0;
        loop {
            let (mut node, set) = alone();
            let mut chance = Chance(sooner * 1000 + later);
            live(&mut node, &set, 1).unwrap();
            node.fuse.light(sooner);
            crashed_before = live(&mut node, &set, 2).is_err();
            node.fuse.repair();
            node.disk.crash(Loss::Some, &mut chance);
            let certified = node.stored.len();
            // Officers decide, custody retires the old key at once.
            node.custody.key = Key::Dummy(NEW.to_vec());
            node.activation = Some((node.me, NEW.to_vec()));
            node.fuse.light(later);
            let crashed = live(&mut node, &set, certified + 2).is_err();
            node.fuse.repair();
            node.disk.crash(Loss::Some, &mut chance);
            live(&mut node, &set, 4).unwrap();
            let activated = check(&node).unwrap();
            assert!(activated >= Height(2), "sooner {sooner}, later {later}");
            if !crashed {
                break;
            }
            later += 1;
        }
        assert!(later > 5);
        if !crashed_before {
            break;
        }
        sooner += 1;
    }
    assert!(sooner > 5);
}

/// What the retired key has prevoted and not precommitted, nobody can finish: it is dropped, and the activation comes
/// in the same height. What it has precommitted is certified, and stands.
#[test]
fn what_the_retired_key_began_is_dropped_unless_it_is_certified() {
    for steps in [&[][..], &[VoteStep::Prevote], &[VoteStep::Prevote, VoteStep::Precommit]] {
        let (mut node, set) = alone();
        // The log gets the value, and the process dies before it hears of a vote.
        node.custody.locked = true;
        let mut engine = node.boot(&set, Flush::Inline).unwrap();
        engine.start_height(node.start(&set), &mut node).unwrap_err();
        drop(engine);
        node.custody.locked = false;
        let header = node.built_last.unwrap();
        for step in steps {
            let vote = Vote {
                version: 1,
                suite: SUITE,
                genesis: GENESIS,
                height: Height(1),
                round: Round(0),
                step: *step,
                header: Some(header),
            };
            let signature = node.custody.key.sign(&vote);
            node.custody.signed.insert(vote.slot(), (vote, signature));
        }
        node.custody.key = Key::Dummy(NEW.to_vec());
        node.activation = Some((node.me, NEW.to_vec()));
        let mut engine = node.boot(&set, Flush::Inline).unwrap();
        assert_eq!(engine.abandon_unfinished(&mut node).unwrap(), steps.len() < 2, "{steps:?}");
        while node.stored.len() < 2 {
            engine.start_height(node.start(&set), &mut node).unwrap();
        }
        let certified = steps.len() == 2;
        assert_eq!(check(&node), Some(Height(if certified { 2 } else { 1 })), "{steps:?}");
        assert_eq!(node.stored[0].header == header, certified);
    }
}

/// Four validators; the last one's key is replaced while they work. The others go on without it; as soon as one of them
/// proposes the activation, it votes again.
#[test]
fn one_of_four_rotates_while_the_others_go_on() {
    let mut rejoined = 0;
    for seed in 0..40 {
        let mut world = World::dummy(&[1; 4], 12, seed);
        let base: Vec<_> =
            world.nodes.iter().map(|node| (node.me, node.custody.key.public().to_vec(), 1)).collect();
        for node in &mut world.nodes {
            node.base.clone_from(&base);
        }
        world.boot_all(&[]);
        while world.nodes.iter().any(|node| node.stored.len() < 3) {
            world.step();
        }
        let rotating = usize::try_from(seed % 4).unwrap();
        let me = world.nodes[rotating].me;
        let last = world.nodes[rotating].custody.signed.keys().last().copied();
        world.nodes[rotating].custody.key = Key::Dummy(NEW.to_vec());
        let before = world.nodes[rotating].stored.len();
        // The decision reaches one of them first, the rest some heights later; the rotating one is not asked.
        let first = (rotating + 1) % 4;
        world.nodes[first].activation = Some((me, NEW.to_vec()));
        while world.nodes.iter().any(|node| node.stored.len() < before + 2) {
            world.step();
        }
        for node in &mut world.nodes {
            node.activation = Some((me, NEW.to_vec()));
        }
        world.run();
        for node in &world.nodes {
            let activated = check(node).unwrap();
            assert!(activated.0 > 3);
            // The retired key signed nothing after its end.
            let after = node.stored.iter().filter(|decision| Some(decision.height) > last.map(|slot| slot.0));
            let signed = after
                .filter(|decision| decision.certificate.signatures.iter().any(|one| one.validator == me));
            rejoined += signed.filter(|decision| decision.height >= activated).count();
        }
    }
    assert!(rejoined > 100, "the new key voted in {rejoined} certificates only");
}

/// The retired key's vote for the header that records its end counts nowhere, whether it comes before the content or after.
#[test]
fn a_retired_keys_vote_is_refused_and_never_reaches_a_certificate() {
    for early in [false, true] {
        let mut nodes: Vec<_> = (0..4).map(|n| Node::new(n, Key::Dummy(vec![n; 8]))).collect();
        let base: Vec<_> =
            nodes.iter().map(|node| (node.me, node.custody.key.public().to_vec(), 1)).collect();
        let set = set_of(&base);
        for node in &mut nodes {
            node.base.clone_from(&base);
            node.activation = Some((ApplianceId([3; 48]), NEW.to_vec()));
        }
        let proposer = set.proposer(Height(1), Round(0)).appliance();
        let at = usize::from(proposer.0[0]);
        if at == 3 {
            continue;
        }
        let proposed = nodes[at].build(Height(1), Round(0)).unwrap().unwrap();
        let to = (0..3).find(|n| *n != at).unwrap();
        let mut engine = nodes[to].boot(&set, Flush::Inline).unwrap();
        engine.start_height(nodes[to].start(&set), &mut nodes[to]).unwrap();
        let vote = |step, header: Hash| Vote {
            version: 1,
            suite: SUITE,
            genesis: GENESIS,
            height: Height(1),
            round: Round(0),
            step,
            header: Some(header),
        };
        let signed = |n: u8, key: &[u8], step| {
            let vote = vote(step, proposed.header);
            let signature = dummy_signature(key, &vote_bytes(&vote));
            Message::Vote(SignedVote { validator: ApplianceId([n; 48]), vote, signature })
        };
        let head = ProposalHead {
            height: Height(1),
            round: Round(0),
            polka: None,
            proposer,
            header: proposed.header,
        };
        let content = Message::Proposal(head, proposed.content.clone());
        let old = || signed(3, &[3; 8], VoteStep::Precommit);
        let send = |engine: &mut Engine, node: &mut Node, from: u8, message: Message| {
            let message = Message::parse(&message.to_bytes()).unwrap();
            engine.received(ApplianceId([from; 48]), message, node).unwrap();
        };
        let node = &mut nodes[to];
        if early {
            // Before the content the retired key is the present one: the vote is counted, and with it the header cannot
            // be decided here any more.
            send(&mut engine, node, 3, old());
            send(&mut engine, node, 3, signed(3, NEW, VoteStep::Prevote));
        }
        send(&mut engine, node, proposer.0[0], content);
        if !early {
            send(&mut engine, node, 3, old());
        }
        let others: Vec<u8> = (0..3).filter(|n| usize::from(*n) != to).collect();
        for step in [VoteStep::Prevote, VoteStep::Precommit] {
            for n in &others {
                send(&mut engine, node, *n, signed(*n, &[*n; 8], step));
            }
        }
        match early {
            // Three honest validators are a quorum, and the retired key's vote is not among theirs.
            false => {
                assert_eq!(node.stored.len(), 1);
                let signers: Vec<_> =
                    node.stored[0].certificate.signatures.iter().map(|one| one.validator.0[0]).collect();
                assert_eq!(signers, [0, 1, 2]);
                check(node);
            }
            true => assert!(node.stored.is_empty(), "it fetches the decision from the others"),
        }
    }
}

/// A vote of the new key that overtakes the proposal waits for it.
#[test]
fn the_new_keys_vote_may_come_before_the_content() {
    let mut nodes: Vec<_> = (0..4).map(|n| Node::new(n, Key::Dummy(vec![n; 8]))).collect();
    let base: Vec<_> = nodes.iter().map(|node| (node.me, node.custody.key.public().to_vec(), 1)).collect();
    let set = set_of(&base);
    let proposer = usize::from(set.proposer(Height(1), Round(0)).appliance().0[0]);
    let rotating = (0..4_u8).find(|n| usize::from(*n) != proposer).unwrap();
    let to = (0..4).find(|n| *n != proposer && *n != usize::from(rotating)).unwrap();
    let silent = (0..4).find(|n| *n != proposer && *n != usize::from(rotating) && *n != to).unwrap();
    for node in &mut nodes {
        node.base.clone_from(&base);
        node.activation = Some((ApplianceId([rotating; 48]), NEW.to_vec()));
    }
    let proposed = nodes[proposer].build(Height(1), Round(0)).unwrap().unwrap();
    let mut engine = nodes[to].boot(&set, Flush::Inline).unwrap();
    engine.start_height(nodes[to].start(&set), &mut nodes[to]).unwrap();
    let proposer_id = ApplianceId([u8::try_from(proposer).unwrap(); 48]);
    for step in [VoteStep::Prevote, VoteStep::Precommit] {
        let vote = Vote {
            version: 1,
            suite: SUITE,
            genesis: GENESIS,
            height: Height(1),
            round: Round(0),
            step,
            header: Some(proposed.header),
        };
        for (n, key) in [(rotating, NEW), (proposer_id.0[0], &[proposer_id.0[0]; 8][..])] {
            let signature = dummy_signature(key, &vote_bytes(&vote));
            let vote = SignedVote { validator: ApplianceId([n; 48]), vote: vote.clone(), signature };
            engine.received(ApplianceId([n; 48]), Message::Vote(vote), &mut nodes[to]).unwrap();
        }
    }
    assert!(nodes[to].stored.is_empty());
    let head = ProposalHead {
        height: Height(1),
        round: Round(0),
        polka: None,
        proposer: proposer_id,
        header: proposed.header,
    };
    engine.received(proposer_id, Message::Proposal(head, proposed.content), &mut nodes[to]).unwrap();
    assert_eq!(nodes[to].stored.len(), 1, "validator {silent} is not needed");
    assert_eq!(check(&nodes[to]), Some(Height(1)));
}
