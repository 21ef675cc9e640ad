//! State and votes that were set back, and devices that went elsewhere.

use super::*;
use crate::state::VOTES_FILE;

/// The files of a custody at one moment.
fn snapshot(of: &Box_) -> Vec<(&'static str, Vec<u8>)> {
    [STATE_FILE, VOTES_FILE].map(|name| (name, std::fs::read(of.folder().path(name)).unwrap())).to_vec()
}

fn restore(of: &Box_, snapshot: &[(&'static str, Vec<u8>)]) {
    for (name, bytes) in snapshot {
        std::fs::write(of.folder().path(name), bytes).unwrap();
    }
}

fn pending(service: &Service) -> usize {
    service.status().keys.iter().filter(|key| key.status == KeyStatus::Pending).count()
}

fn signed_vote(service: &Service, vote: &[u8]) -> bool {
    matches!(sign(service, vote), Ok(VoteOutcome::Signed { .. }))
}

/// A look at open devices, when one is due.
fn look(service: &Service) {
    service.look_back(watch::WATCH_ANCHORS_EVERY);
    service.look_at_open();
}

fn prepare(service: &Service, vote: Vec<u8>) {
    let answer = service.answer(&Request::SignVote { vote: vote.clone() });
    service.prepare(&Request::SignVote { vote }, &answer);
}

/// The approval that put a key to use lies about for ever, and names a number that is due again when the state is set
/// back to before it. The key has voted: with it, a quarantine must not end.
#[test]
fn an_old_approval_does_not_end_a_quarantine() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let before = snapshot(&of);
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(signed_vote(&service, &vote(&genesis, 7, 1)));
    service.shut_down();
    restore(&of, &before);

    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    assert_eq!(pending(&service), 0);
    let again = service.decide(&transcript, &[], &[]);
    assert!(matches!(again, Err(CustodyError::NoSuchKey { .. })), "{again:?}");
    assert_eq!(service.status().state, StateKind::Quarantined);
    assert!(!signed_vote(&service, &vote(&genesis, 7, 2)));
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    let again = service.decide(&transcript, &[], &[]);
    assert!(matches!(again, Err(CustodyError::NoSuchKey { .. })), "whatever is restarted: {again:?}");

    // One that is made now does, and stays while the officers take their time.
    service.generate_key(KeyPurpose::Consensus).unwrap();
    service.shut_down();
    let service = of.start();
    assert_eq!((unlock(&service), pending(&service)), (StateKind::Quarantined, 1));
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(signed_vote(&service, &vote(&genesis, 7, 2)));
}

/// The machine that was lost may have activated the key after the backup.
#[test]
fn a_recovered_machine_has_no_pending_key() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    set_recovery(&service);
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let backup = service.backup().unwrap();
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(signed_vote(&service, &vote(&genesis, 7, 1)));

    let fresh = Box_::new();
    let service = fresh.start_with(&fresh.protectors[..1]);
    unlock(&service);
    let request = RecoveryRequest::parse(&service.begin_recovery(&backup.custody).unwrap()).unwrap();
    let recover = signed(&request.action().unwrap(), &[1, 2]);
    service.finish_recovery(&recover, &releases(&request, &[1, 2])).unwrap();
    assert_eq!(pending(&service), 0);
}

/// Votes that are missing quarantine before anything is open; bringing any votes file back is not what ends that.
#[test]
fn a_quarantine_for_missing_votes_outlives_them() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    service.shut_down();
    let before = snapshot(&of);
    let service = of.start();
    unlock(&service);
    assert!(signed_vote(&service, &vote(&genesis, 7, 1)));
    drop(service);
    std::fs::remove_file(of.folder().path(VOTES_FILE)).unwrap();
    assert_eq!(unlock(&of.start()), StateKind::Quarantined);
    restore(&of, &before[1..]);
    assert_eq!(of.start().status().state, StateKind::Quarantined);
    assert_eq!(unlock(&of.start()), StateKind::Quarantined);
}

#[test]
fn a_quarantined_state_that_is_set_back_once_more_still_opens() {
    let of = Box_::new();
    let (service, _) = of.operational();
    service.shut_down();
    let before = snapshot(&of);
    let service = of.start();
    unlock(&service);
    service.shut_down();
    restore(&of, &before);
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    let quarantined = snapshot(&of);
    service.generate_key(KeyPurpose::Consensus).unwrap();
    service.shut_down();
    restore(&of, &quarantined);
    let service = of.start();
    assert_eq!((unlock(&service), pending(&service)), (StateKind::Quarantined, 0));
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    assert_eq!(service.status().state, StateKind::Operational);
}

/// The power failed, so nobody counted the votes at the end; the next unlock does.
#[test]
fn votes_are_counted_when_custody_is_unlocked() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let path = of.folder().path(VOTES_FILE);
    let old = std::fs::read(&path).unwrap();
    assert!(signed_vote(&service, &vote(&genesis, 7, 1)));
    drop(service);
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Operational);
    drop(service);
    std::fs::write(&path, old).unwrap();
    let unlocked = of.start().unlock(&pin(), None, PinTry::Attended);
    assert!(
        matches!(&unlocked, Err(CustodyError::Quarantined { reason }) if reason.contains("set back")),
        "{unlocked:?}"
    );
}

#[test]
fn votes_are_counted_now_and_then_while_it_votes() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let counted = |service: &Service| service.read().record().unwrap().votes;
    prepare(&service, vote(&genesis, 7, 1));
    service.tend();
    assert_eq!(counted(&service), 0, "not at every vote");
    service.look_back(watch::COUNT_VOTES_EVERY);
    prepare(&service, vote(&genesis, 8, 1));
    assert_eq!(counted(&service), 0, "nor on who votes");
    service.tend();
    assert_eq!(counted(&service), 2);
}

/// A TPM takes a second for its counter, and more when somebody else uses it. Votes go on meanwhile.
#[test]
fn a_slow_device_holds_up_no_vote() {
    const SLOW: Duration = Duration::from_secs(1);
    let of = Box_::new();
    let (service, genesis) = of.operational();
    prepare(&service, vote(&genesis, 1, 1));
    of.protectors[0].slow_ms.store(SLOW.as_millis() as u64, Ordering::Relaxed);
    let counter = of.protectors[0].counter();
    service.look_back(watch::COUNT_VOTES_EVERY);
    service.watch_recently();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (votes, longest) = std::thread::scope(|scope| {
        let tending = scope.spawn(|| {
            service.tend();
            done.store(true, Ordering::Relaxed);
        });
        let (mut height, mut longest) = (1, Duration::ZERO);
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            height += 1;
            prepare(&service, vote(&genesis, height, 1));
            longest = longest.max(begun.elapsed());
        }
        tending.join().unwrap();
        (height, longest)
    });
    assert!(votes > 3 && longest < SLOW / 2, "{votes} votes, the longest took {longest:?}");
    assert_eq!(of.protectors[0].counter(), counter + 1, "they were counted");
    let counted = service.read().record().unwrap().votes;
    assert!((1..=votes).contains(&counted), "{counted} of {votes}");
}

/// A token that tells nothing may be in another machine, with a copy of this state.
#[test]
fn voting_ends_when_no_device_tells_its_counter() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    for _ in 1..watch::UNREAD_MAX {
        look(&service);
        assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok(), "it may be back at once");
    }
    // One good answer, and the counting begins anew.
    of.protectors[0].gone.store(false, Ordering::Relaxed);
    look(&service);
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    for _ in 0..watch::UNREAD_MAX {
        assert_eq!(service.status().state, StateKind::Operational);
        look(&service);
        // Others who look at the same time do not count.
        (0..5).for_each(|_| service.look_at_open());
    }
    assert_eq!(sign(&service, &vote(&genesis, 8, 1)), Err(CustodyError::Locked));
    assert!(service.status().reason.contains("absent"), "{}", service.status().reason);
    assert!(!of.protectors[0].is_open());
    of.protectors[0].gone.store(false, Ordering::Relaxed);
    assert_eq!(unlock(&service), StateKind::Operational);
}

/// A protector that stayed open after an unlock that failed would take any PIN for the right one.
#[test]
fn an_unlock_that_failed_leaves_nothing_open() {
    let of = Box_::new();
    let (service, _) = of.operational();
    service.lock().unwrap();
    of.protectors[0].gone.store(false, Ordering::Relaxed);
    of.protectors[0].mute.store(true, Ordering::Relaxed);
    let failed = service.unlock(&pin(), None, PinTry::Attended);
    assert!(matches!(failed, Err(CustodyError::TokenFailed { .. })), "{failed:?}");
    assert_eq!((of.protectors[0].is_open(), service.status().state), (false, StateKind::Locked));
    of.protectors[0].mute.store(false, Ordering::Relaxed);
    assert_eq!(unlock(&service), StateKind::Operational);
}

/// A look-alike with the name of an enrolled token is given no PIN, and no try is counted.
#[test]
fn another_token_of_the_same_name_is_given_no_pin() {
    let of = Box_::new();
    let (service, _) = of.operational();
    service.shut_down();
    *of.protectors[0].serial.lock().unwrap() = "2".to_owned();
    let service = of.start();
    let refused = service.unlock(&pin(), None, PinTry::Attended);
    assert!(
        matches!(&refused, Err(CustodyError::WrongProtector { why, .. }) if why.contains("serial 2")),
        "{refused:?}"
    );
    assert!(!of.protectors[0].is_open());
    assert_eq!(
        PinTries::read(&of.folder(), now()).unwrap(),
        PinTries::read(&Box_::new().folder(), now()).unwrap()
    );
    *of.protectors[0].serial.lock().unwrap() = "1".to_owned();
    assert_eq!(unlock(&service), StateKind::Operational);
}

/// The network is pinned once, also while a protector is still missing.
#[test]
fn another_genesis_is_refused_before_custody_is_complete() {
    let of = Box_::new();
    let (service, mut genesis) = of.operational();
    {
        let mut custody = service.write();
        let Custody::Operational(keys) = std::mem::replace(&mut *custody, in_between()) else { panic!() };
        let mut open = keys.unload();
        open.record.lab = false;
        *custody = Custody::Unprovisioned(Held::Open(Box::new(open)));
    }
    let pinned = digest::genesis_hash(&genesis);
    assert_eq!(service.bind_genesis(&genesis.to_bytes()), Ok(pinned), "the same again");
    genesis.officers = vec![Officer { name: "mallory".to_owned(), key: officer_hash(9) }];
    genesis.officers_required = 1;
    assert_eq!(service.bind_genesis(&genesis.to_bytes()), Err(CustodyError::WrongGenesis { pinned }));
}

/// A lost token takes its keys with it, and not the custody that another protector opens.
#[test]
fn keys_that_cannot_be_had_are_for_officers_to_replace() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    service.lock().unwrap();
    {
        // As a key inside of a token that is not there: the backend cannot load it.
        let mut custody = service.write();
        let Custody::Locked(record) = &mut *custody else { panic!() };
        let root = {
            of.protectors[0].open(None, &pin(), PinTry::Attended).unwrap();
            record.open_root(&record.protectors[0].clone(), &Shared(Arc::clone(&of.protectors[0]))).unwrap()
        };
        let open = Open { record: (**record).clone(), root };
        *custody = service.not_loaded(open, CustodyError::TokenLocked).unwrap();
    }
    assert_eq!(service.status().state, StateKind::Quarantined);
    assert!(!signed_vote(&service, &vote(&genesis, 7, 1)));
    // It comes back: nothing was decided, and nothing was written down.
    service.lock().unwrap();
    assert_eq!(service.status().state, StateKind::Locked);
    assert_eq!(unlock(&service), StateKind::Operational);
}

/// Who votes rarely releases nothing on the strength of what was true an hour ago.
#[test]
fn no_vote_is_released_where_nothing_was_told_for_long() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let ask = |height| service.answer(&Request::SignVote { vote: vote(&genesis, height, 1) });
    service.look_back(Duration::from_secs(3600));
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    assert!(matches!(ask(7), Response::Error(CustodyError::TokenAbsent { .. })));
    assert_eq!(service.status().state, StateKind::Operational, "one hiccup is no reason to lock");
    of.protectors[0].gone.store(false, Ordering::Relaxed);
    service.look_back(watch::ANCHORS_SEEN_MAX);
    assert!(matches!(ask(7), Response::Vote(VoteOutcome::Signed { .. })));
}

/// The rest of a burst is counted although nobody votes any more.
#[test]
fn a_burst_of_votes_is_counted_when_it_is_over() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    (1..=3).for_each(|height| prepare(&service, vote(&genesis, height, 1)));
    service.look_back(watch::WATCH_ANCHORS_EVERY);
    service.tend();
    assert_eq!(service.read().record().unwrap().votes, 0);
    service.look_back(watch::COUNT_VOTES_EVERY);
    service.tend();
    assert_eq!(service.read().record().unwrap().votes, 3);
}

/// The keys are gone at once, whatever a device takes for what is written down then.
#[test]
fn a_lock_takes_the_keys_away_before_it_counts_votes() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    prepare(&service, vote(&genesis, 1, 1));
    of.protectors[0].slow_ms.store(1000, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let locking = scope.spawn(|| service.lock().unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(sign(&service, &vote(&genesis, 2, 1)), Err(CustodyError::Locked));
        assert!(!locking.is_finished());
    });
    of.protectors[0].slow_ms.store(0, Ordering::Relaxed);
    assert_eq!(service.read().record().unwrap().votes, 1);
    assert_eq!(unlock(&service), StateKind::Operational);
}

/// A copy that has a key from the time when nothing vouched for the state is no state to go on from.
#[test]
fn the_first_change_of_a_state_that_is_not_believed_writes_that_down() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    {
        let mut custody = service.write();
        let Custody::Operational(keys) = std::mem::replace(&mut *custody, in_between()) else { panic!() };
        *custody = service.not_loaded(keys.unload(), CustodyError::TokenLocked).unwrap();
    }
    assert_eq!(service.read().record().unwrap().quarantine, None, "the token may be back");
    service.generate_key(KeyPurpose::Consensus).unwrap();
    assert!(service.read().record().unwrap().quarantine.is_some());
    service.lock().unwrap();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    assert!(!signed_vote(&service, &vote(&genesis, 7, 1)));
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    assert!(signed_vote(&service, &vote(&genesis, 7, 1)));
}

/// A quarantine that the disk did not take leaves nothing in memory that would not open again.
#[test]
fn a_quarantine_that_could_not_be_written_can_be_locked_and_unlocked() {
    let of = Box_::new();
    let (service, _) = of.operational();
    service.generate_key(KeyPurpose::Consensus).unwrap();
    of.protectors[0].mute.store(true, Ordering::Relaxed);
    service.stop_signing(&mut service.write(), "moved".to_owned());
    of.protectors[0].mute.store(false, Ordering::Relaxed);
    assert_eq!(service.status().state, StateKind::Quarantined);
    service.lock().unwrap();
    assert_eq!(unlock(&service), StateKind::Quarantined, "{}", service.status().reason);
    assert!(service.read().open().is_ok());
}

/// An upgrade, or a damaged disk, locks nobody out.
#[test]
fn a_damaged_count_of_tries_is_waited_for_once() {
    let of = Box_::new();
    let (service, _) = of.operational();
    service.lock().unwrap();
    std::fs::write(of.folder().path("pin-tries"), b"nonsense").unwrap();
    let refused = service.unlock(&pin(), None, PinTry::Attended);
    assert!(matches!(refused, Err(CustodyError::PinBackoff { .. })), "{refused:?}");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(unlock(&service), StateKind::Operational);
}
