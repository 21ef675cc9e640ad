//! kill -9 at random moments during a stream of votes: no slot ever has two values.

use crate::common::{Lab, key, vote};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zixt_crypto::{Backend as _, Reference, digest};
use zixt_hsm_protocol::{BlockingHsmClient, KeyPurpose, StateKind, VoteOutcome, VoteSlot};
use zixt_types::{Canonical, Genesis, SuiteId, UnlockMode, Vote, VoteStep};

type Released = Mutex<BTreeMap<VoteSlot, (Vote, Vec<u8>)>>;

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Asks for votes, conflicting ones among them, until the daemon is gone.
fn vote_until_killed(client: &BlockingHsmClient, genesis: &Genesis, released: &Released, mut random: Random) {
    loop {
        let highest = released.lock().unwrap().last_key_value().map_or(0, |(slot, _)| slot.height.0);
        let height = (highest + random.next(3)).saturating_sub(1).max(1);
        let step = if random.next(2) == 0 { VoteStep::Prevote } else { VoteStep::Precommit };
        let round = u32::try_from(random.next(2)).unwrap();
        let wanted = vote(genesis, height, round, step, u8::try_from(random.next(3)).unwrap());
        let (vote, signature) = match client.sign_vote(&wanted) {
            Ok(VoteOutcome::Signed { signature }) => (wanted, signature),
            Ok(VoteOutcome::AlreadySigned { vote, signature }) => (Vote::parse(&vote).unwrap(), signature),
            Ok(VoteOutcome::Refused(_)) => continue,
            Err(_) => return,
        };
        let slot = VoteSlot { height: vote.height, round: vote.round, step: vote.step };
        let mut released = released.lock().unwrap();
        let before = released.entry(slot).or_insert((vote.clone(), signature.clone()));
        assert_eq!(*before, (vote, signature), "two values of {slot}");
    }
}

#[test]
fn killed_at_random_moments_it_never_signs_two_values_of_one_slot() {
    let kills = if std::env::var_os("ZIXT_TEST_FULL").is_some() { 200 } else { 20 };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    let lab = Lab::new();
    let (daemon, keys, genesis) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    daemon.stop();
    let released = Released::default();
    for kill in 0..kills {
        let daemon = lab.start();
        assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational, "kill {kill}, seed {seed}");
        let clients = [BlockingHsmClient::new(lab.socket()), BlockingHsmClient::new(lab.socket())];
        std::thread::scope(|scope| {
            for client in &clients {
                let random = Random(random.next(u64::MAX >> 33));
                let (genesis, released) = (&genesis, &released);
                scope.spawn(move || vote_until_killed(client, genesis, released, random));
            }
            std::thread::sleep(Duration::from_millis(random.next(80)));
            daemon.kill();
        });
    }
    let released = released.into_inner().unwrap();
    println!("{} votes", released.len());
    assert!(released.len() > kills, "the test has to reach votes");
    let consensus = &key(&keys, KeyPurpose::Consensus).public_key;
    // A sole validator's precommit is a certificate.
    let mut certified = BTreeMap::new();
    for (vote, signature) in released.values() {
        if let (VoteStep::Precommit, Some(header)) = (vote.step, vote.header) {
            assert_eq!(*certified.entry(vote.height).or_insert(header), header, "seed {seed}");
        }
        Reference.verify(SuiteId::Standard, consensus, &digest::vote_bytes(vote), signature).unwrap();
    }
}
