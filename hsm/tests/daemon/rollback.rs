//! State that was set back, and two daemons that work with one state.

use crate::common::{Daemon, Lab, Officers, copy, key, measure, pin, refused, tpm, vote};
use crate::swtpm::Swtpm;
use std::fs;
use std::time::{Duration, Instant};
use zixt_crypto::{Backend as _, Reference, digest};
use zixt_hsm_protocol::{ClientError, CustodyError, KeyPurpose, KeyStatus, StateKind, VoteOutcome};
use zixt_types::{Genesis, SuiteId, UnlockMode, VoteStep};

fn signs(daemon: &Daemon, genesis: &Genesis, height: u64) {
    let wanted = vote(genesis, height, 0, VoteStep::Precommit, 1);
    let VoteOutcome::Signed { signature } = daemon.client.sign_vote(&wanted).unwrap() else {
        panic!("height {height}")
    };
    let status = daemon.client.status().unwrap();
    let public_key = &status.key(KeyPurpose::Consensus).unwrap().public_key;
    Reference.verify(SuiteId::Standard, public_key, &digest::vote_bytes(&wanted), &signature).unwrap();
}

/// Puts a whole older state folder back; officers end what follows from that. The lab's daemon unlocks itself.
pub fn set_back(lab: &Lab, officers: &Officers) {
    let (daemon, keys, genesis) = lab.operational_by(officers, UnlockMode::Unattended);
    signs(&daemon, &genesis, 1);
    daemon.stop();
    copy(&lab.path("state"), &lab.path("older"));
    let daemon = lab.start();
    signs(&daemon, &genesis, 2);
    daemon.stop();
    fs::remove_dir_all(lab.path("state")).unwrap();
    copy(&lab.path("older"), &lab.path("state"));

    for _ in 0..2 {
        let daemon = lab.start();
        let status = daemon.client.status().unwrap();
        assert_eq!(status.state, StateKind::Quarantined, "{status:?}");
        assert!(!status.reason.is_empty() && status.advice.contains("officers"), "{status:?}");
        for height in [1, 2, 3] {
            let wanted = vote(&genesis, height, 0, VoteStep::Precommit, 9);
            assert_eq!(refused(daemon.client.sign_vote(&wanted)).code(), "custody-quarantined");
        }
        daemon.stop();
    }
    let daemon = lab.start();
    lab.activate_consensus(officers);
    let status = daemon.client.status().unwrap();
    assert_eq!(status.state, StateKind::Operational, "{status:?}");
    let old = key(&keys, KeyPurpose::Consensus).hash;
    assert_ne!(status.key(KeyPurpose::Consensus).unwrap().hash, old);
    let retired = status.keys.iter().find(|key| key.hash == old).unwrap();
    assert_eq!(retired.status, KeyStatus::Retired);
    signs(&daemon, &genesis, 3);
    daemon.stop();
    let daemon = lab.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational);
    signs(&daemon, &genesis, 4);
}

#[test]
fn a_token_notices_it_too() {
    set_back(&Lab::new(), &Officers::three());
}

/// A copy of the state in another folder is not held by the lock. The counter that both need is what finds it.
#[test]
fn a_daemon_on_a_copy_stops_the_first_one() {
    let swtpm = Swtpm::start();
    measure(&swtpm, 11);
    let (lab, twin) = (Lab::empty(), Lab::empty());
    lab.configure_with(true, &[&tpm(&swtpm)]);
    twin.configure_with(true, &[&tpm(&swtpm)]);
    let (daemon, _, genesis) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    signs(&daemon, &genesis, 1);
    copy(&lab.path("state"), &twin.path("state"));
    let second = twin.start();
    assert_eq!(second.client.status().unwrap().state, StateKind::Operational, "nobody can know yet");
    let begun = Instant::now();
    let mut height = 1;
    let error = loop {
        height += 1;
        match daemon.client.sign_vote(&vote(&genesis, height, 0, VoteStep::Precommit, 1)) {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(60), "it votes on"),
            Err(ClientError::Custody(error)) => break error,
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(matches!(error, CustodyError::Quarantined { .. }), "{error}");
    daemon.client.lock().unwrap();
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Quarantined, "for good");
    // Now the counter is past the copy's number too.
    assert_eq!(twin.admin(&["doctor"]).status.code(), Some(3));
    second.client.lock().unwrap();
    assert_eq!(second.client.unlock(pin("123456")).unwrap(), StateKind::Quarantined);
}
