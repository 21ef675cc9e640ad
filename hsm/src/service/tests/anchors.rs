//! Several protectors, each with a counter of its own: which of them vouches for a state, and when.

use super::*;
use crate::state::VOTES_FILE;

type Files = Vec<(&'static str, Vec<u8>)>;

fn keep(of: &Box_) -> Files {
    [STATE_FILE, VOTES_FILE].map(|name| (name, std::fs::read(of.folder().path(name)).unwrap())).to_vec()
}

fn put_back(of: &Box_, kept: &Files) {
    kept.iter().for_each(|(name, bytes)| std::fs::write(of.folder().path(name), bytes).unwrap());
}

/// Two protectors that wrap one root.
fn two(protectors: [TestProtector; 2]) -> (Box_, Service, Genesis) {
    let of = Box_::with(protectors);
    let (service, genesis) = of.operational();
    add_second(&of, &service);
    (of, service, genesis)
}

fn unlock_by(service: &Service, name: &str) -> StateKind {
    service.unlock(&pin(), Some(name), PinTry::Attended).unwrap()
}

fn counters(of: &Box_) -> [u64; 2] {
    [of.protectors[0].counter(), of.protectors[1].counter()]
}

fn unseen(service: &Service) -> Vec<bool> {
    service.read().record().unwrap().protectors.iter().map(|enrolled| enrolled.unseen).collect()
}

fn rollback(service: &Service) -> (bool, String) {
    let found = service.doctor().into_iter().find(|finding| finding.what == "rollback").unwrap();
    (found.good, found.found)
}

/// Whichever protector opens the root, the counter of the other one is advanced and asked.
#[test]
fn the_counter_of_a_closed_protector_notices_a_state_that_was_set_back() {
    for by in ["first", "second"] {
        let other = if by == "first" { "second" } else { "first" };
        let (of, service, genesis) = two(["first", "second"].map(TestProtector::counting));
        service.shut_down();
        let kept = keep(&of);
        let service = of.start();
        let before = counters(&of);
        assert_eq!(unlock_by(&service, by), StateKind::Operational);
        assert!(counters(&of).iter().zip(before).all(|(now, before)| *now > before), "both advance");
        assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok());
        service.lock().unwrap();
        put_back(&of, &kept);
        let service = of.start();
        assert_eq!(unlock_by(&service, other), StateKind::Quarantined, "unlocked by {other}");
        assert!(sign(&service, &vote(&genesis, 7, 2)).is_err());
        assert_eq!(
            rollback(&service),
            (true, "an older state is noticed by first, second at every unlock".to_owned())
        );
    }
}

/// What a token cannot tell without its PIN is said.
#[test]
fn of_two_tokens_only_the_one_in_use_notices_it_and_the_doctor_says_so() {
    let (of, service, _) = two(["first", "second"].map(TestProtector::named));
    let (good, found) = rollback(&service);
    assert!(!good && found.contains("(first, second)"), "{found}");
    let closed: Vec<_> =
        service.status().protectors.iter().map(|p| (p.anchored, p.anchored_closed)).collect();
    assert_eq!(closed, [(true, false), (true, false)]);
    service.shut_down();
    let before = counters(&of);
    let service = of.start();
    unlock_by(&service, "first");
    assert_eq!(counters(&of)[1], before[1], "nobody can advance the second one's");

    let (_, service, _) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    let (good, found) = rollback(&service);
    assert!(good && found.contains("by second at every unlock, and by first"), "{found}");
}

/// A token was in the safe while the state was set back and officers ended that. It knows a history that is not this state's.
#[test]
fn a_protector_that_was_closed_during_a_rollback_vouches_for_nothing_until_it_is_corrected() {
    let (of, service, genesis) = two(["first", "second"].map(TestProtector::named));
    service.shut_down();
    let kept = keep(&of);
    let service = of.start();
    unlock_by(&service, "first");
    service.shut_down();
    put_back(&of, &kept);
    let service = of.start();
    assert_eq!(unlock_by(&service, "first"), StateKind::Quarantined);
    assert_eq!(unseen(&service), [false, true]);
    let set_apart = keep(&of);
    let transcript = activate_consensus(&service);
    let with_pending = keep(&of);
    service.decide(&transcript, &[], &[]).unwrap();
    assert_eq!(service.status().state, StateKind::Operational);
    assert!(matches!(sign(&service, &vote(&genesis, 9, 1)), Ok(VoteOutcome::Signed { .. })));
    service.shut_down();
    let newest = keep(&of);

    // The second one's number fits every copy since. It must not make one of them current.
    for copy in [&set_apart, &with_pending] {
        put_back(&of, copy);
        let service = of.start();
        assert_eq!(unlock_by(&service, "second"), StateKind::Quarantined);
        let replayed = service.decide(&transcript, &[], &[]);
        assert!(matches!(replayed, Err(CustodyError::NoSuchKey { .. })), "{replayed:?}");
        assert_eq!(service.status().state, StateKind::Quarantined);
        service.shut_down();
    }
    put_back(&of, &newest);
    let service = of.start();
    assert_eq!(unlock_by(&service, "second"), StateKind::Quarantined);
    assert!(service.status().reason.contains("second was not there"), "{}", service.status().reason);
    assert!(sign(&service, &vote(&genesis, 9, 2)).is_err());
    // Nothing was written: the one that was there makes it work again.
    service.lock().unwrap();
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
    // A rotation needs both, and corrects it.
    service.decide(&approved(&service, Decision::RotateRoot, &[1, 2]), &pins(), &[]).unwrap();
    assert_eq!(unseen(&service), [false, false]);
    service.shut_down();
    for name in ["second", "first"] {
        let service = of.start();
        assert_eq!(unlock_by(&service, name), StateKind::Operational, "{name}");
        service.shut_down();
    }
}

/// The one that could vouch is lost for good: officers decide.
#[test]
fn officers_end_a_quarantine_that_nothing_vouches_against() {
    let (of, service, genesis) = two(["first", "second"].map(TestProtector::named));
    service.shut_down();
    let kept = keep(&of);
    let service = of.start();
    unlock_by(&service, "first");
    service.shut_down();
    put_back(&of, &kept);
    let service = of.start();
    unlock_by(&service, "first");
    let transcript = activate_consensus(&service);
    service.decide(&transcript, &[], &[]).unwrap();
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock_by(&service, "second"), StateKind::Quarantined);
    let transcript = activate_consensus(&service);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(sign(&service, &vote(&genesis, 9, 1)).is_ok());
    assert_eq!(unseen(&service), [true, false]);
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock_by(&service, "second"), StateKind::Operational);
}

/// A counter that could be asked, and is not there, is missed until it answers; a device that is only slow at the start takes
/// nobody to an officer.
#[test]
fn a_silent_counter_is_missed_until_it_answers() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.generate_key(KeyPurpose::Consensus).unwrap();
    service.lock().unwrap();
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    assert_eq!(unlock_by(&service, "first"), StateKind::Quarantined);
    let status = service.status();
    assert!(status.reason.contains("second does not tell its counter"), "{}", status.reason);
    assert!(status.reason.contains("goes on by itself") && status.advice.contains("Switch the device on"));
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_err());
    // By the next look.
    of.protectors[1].gone.store(false, Ordering::Relaxed);
    service.tend();
    assert_eq!(service.status().state, StateKind::Quarantined, "it is left alone for a while");
    service.look_back(watch::LEFT_ALONE);
    service.tend();
    assert_eq!(service.status().state, StateKind::Operational);
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok());
    assert_eq!(of.protectors[1].counter(), service.read().record().unwrap().protectors[1].anchored.unwrap());
    // And by the next unlock, with all that it had.
    service.lock().unwrap();
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    assert_eq!(unlock_by(&service, "first"), StateKind::Quarantined);
    service.lock().unwrap();
    of.protectors[1].gone.store(false, Ordering::Relaxed);
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
    assert!(service.status().keys.iter().any(|key| key.status == KeyStatus::Pending));
}

/// The token goes to another machine with a copy of the folder, and the TPM stays: the copy must not vote beside it. Nor does
/// it help to take the TPM out of the configuration.
#[test]
fn a_copy_with_the_token_and_without_the_tpm_does_not_vote() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.shut_down();
    let kept = keep(&of);
    let service = of.start();
    assert_eq!(unlock_by(&service, "second"), StateKind::Operational);
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok());

    let token = || of.protectors[0].of_another_program();
    let other = Box_::with([token(), TestProtector::counting("second")]);
    other.protectors[1].gone.store(true, Ordering::Relaxed);
    put_back(&other, &kept);
    for devices in [&other.protectors[..], &other.protectors[..1]] {
        let copy = other.start_with(devices);
        assert_eq!(unlock_by(&copy, "first"), StateKind::Quarantined);
        assert!(sign(&copy, &vote(&genesis, 7, 2)).is_err());
        copy.tend();
        assert_eq!(copy.status().state, StateKind::Quarantined);
    }
}

/// Without its TPM a state that was set back is not believed, and once the TPM is there it is found out.
#[test]
fn a_tpm_that_is_switched_off_hides_no_rollback() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.shut_down();
    let kept = keep(&of);
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    let service = of.start();
    assert_eq!(unlock_by(&service, "first"), StateKind::Quarantined);
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_err());
    service.shut_down();
    of.protectors[1].gone.store(false, Ordering::Relaxed);
    put_back(&of, &kept);
    assert_eq!(unlock_by(&of.start(), "second"), StateKind::Operational, "nothing was signed in between");
}

/// A dead TPM is removed by officers, who decide besides what the next key is.
#[test]
fn officers_remove_a_dead_protector_that_is_missed() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    assert_eq!(unlock_by(&service, "first"), StateKind::Quarantined);
    set_recovery(&service);
    let id = service.status().protectors[1].id.unwrap();
    let remove = approved(&service, Decision::RemoveProtector { protector: id }, &[1, 2]);
    service.decide(&remove, &[], &[]).unwrap();
    assert_eq!(service.status().state, StateKind::Quarantined, "what it knew is still not known");
    let transcript = activate_consensus(&service);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(sign(&service, &vote(&genesis, 9, 1)).is_ok());
    service.lock().unwrap();
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
}

/// Both are open after a rotation. The token is taken to another machine: that the TPM is read says nothing about it.
#[test]
fn every_open_device_has_to_tell_its_counter() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.decide(&approved(&service, Decision::RotateRoot, &[1, 2]), &pins(), &[]).unwrap();
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    for _ in 0..watch::UNREAD_MAX {
        service.look_back(watch::WATCH_ANCHORS_EVERY);
        service.look_at_open();
    }
    assert_eq!(sign(&service, &vote(&genesis, 7, 1)), Err(CustodyError::Locked));
}

/// A closed TPM that hangs is asked beside the votes, and left alone then.
#[test]
fn a_closed_device_that_hangs_holds_up_no_vote() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
    of.protectors[1].slow_ms.store(12_000, Ordering::Relaxed);
    let begun = Instant::now();
    for height in 1..=10 {
        service.look_back(2 * watch::ANCHORS_SEEN_MAX);
        let answer = service.answer(&Request::SignVote { vote: vote(&genesis, height, 1) });
        assert!(matches!(answer, Response::Vote(VoteOutcome::Signed { .. })), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    of.protectors[1].slow_ms.store(300, Ordering::Relaxed);
    of.protectors[1].mute.store(true, Ordering::Relaxed);
    service.look_at_closed();
    let begun = Instant::now();
    service.look_at_closed();
    service.generate_key(KeyPurpose::Enroller).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(service.status().state, StateKind::Operational);
}

/// A TPM that is silent for minutes may be in another machine: nothing is signed until it is back.
#[test]
fn a_closed_device_that_is_silent_for_long_stops_the_votes_until_it_answers() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    unlock_by(&service, "first");
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    for wanted in [StateKind::Operational, StateKind::Operational, StateKind::Quarantined] {
        service.look_at_closed();
        assert_eq!(service.status().state, wanted);
        service.look_back(watch::LEFT_ALONE);
    }
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_err());
    of.protectors[1].gone.store(false, Ordering::Relaxed);
    service.tend();
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok());
}

/// What was made while nothing vouched is put to use once, whatever copies there are and whoever comes back.
#[test]
fn a_key_from_before_the_officers_decided_is_not_put_to_use_twice() {
    let (of, service, genesis) = two(["first", "second"].map(TestProtector::named));
    service.shut_down();
    let kept = keep(&of);
    let service = of.start();
    unlock_by(&service, "first");
    service.shut_down();
    put_back(&of, &kept);
    let service = of.start();
    unlock_by(&service, "first");
    let transcript = activate_consensus(&service);
    service.decide(&transcript, &[], &[]).unwrap();
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock_by(&service, "second"), StateKind::Quarantined);
    let transcript = activate_consensus(&service);
    let with_pending = keep(&of);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(sign(&service, &vote(&genesis, 100, 1)).is_ok());
    service.shut_down();

    put_back(&of, &with_pending);
    let service = of.start();
    assert_eq!(unlock_by(&service, "first"), StateKind::Quarantined);
    let replayed = service.decide(&transcript, &[], &[]);
    assert!(matches!(replayed, Err(CustodyError::NoSuchKey { .. })), "{replayed:?}");
    assert!(sign(&service, &vote(&genesis, 100, 2)).is_err());
}

/// The token is in another machine with a copy of this folder. That the TPM of this one did not move says nothing about it.
#[test]
fn a_closed_protectors_counter_does_not_stand_in_for_an_open_one() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    for _ in 0..watch::UNREAD_MAX {
        service.look_back(watch::WATCH_ANCHORS_EVERY);
        service.look_at_open();
    }
    assert_eq!(sign(&service, &vote(&genesis, 7, 1)), Err(CustodyError::Locked));
}

/// A server asks the doctor all the time; a device is not asked for that.
#[test]
fn the_doctor_of_a_server_asks_no_closed_device() {
    let (of, service, _) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    unlock_by(&service, "first");
    let told = |found: Vec<zixt_hsm_protocol::Finding>| {
        found.into_iter().find(|finding| finding.what == "counter second").map(|finding| finding.good)
    };
    of.protectors[1].mute.store(true, Ordering::Relaxed);
    assert_eq!(told(service.doctor_as_last_seen()), None, "nobody knows yet");
    service.look_at_closed();
    assert_eq!(told(service.doctor_as_last_seen()), Some(false));
    assert_eq!(told(service.doctor()), Some(false));
}
