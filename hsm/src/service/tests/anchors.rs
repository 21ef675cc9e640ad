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

/// A dead protector does not take the custody with it that another one vouches for; where none does, it is missed.
#[test]
fn a_silent_counter_is_missed_where_no_other_one_vouches() {
    let (of, service, _) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
    let told = |service: &Service| {
        service
            .doctor()
            .into_iter()
            .find(|finding| finding.what == "counter second")
            .map(|finding| finding.good)
    };
    assert_eq!(told(&service), Some(false));
    service.lock().unwrap();
    of.protectors[1].gone.store(false, Ordering::Relaxed);
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational, "and it may come back");
    assert_eq!(told(&service), Some(true));
    assert_eq!(of.protectors[1].counter(), service.read().record().unwrap().protectors[1].anchored.unwrap());
}

/// The token is in another machine with a copy of this folder. That the TPM of this one did not move says nothing about it.
#[test]
fn a_closed_protectors_counter_does_not_stand_in_for_an_open_one() {
    let (of, service, genesis) = two([TestProtector::named("first"), TestProtector::counting("second")]);
    service.lock().unwrap();
    assert_eq!(unlock_by(&service, "first"), StateKind::Operational);
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    for _ in 0..UNREAD_MAX {
        service.compare_anchors();
    }
    assert_eq!(sign(&service, &vote(&genesis, 7, 1)), Err(CustodyError::Locked));
}
