use super::*;
use crate::place::Network;
use crate::policy::PolicyDocument;
use crate::sample::Someone;
use proptest::prelude::*;
use zixt_types::Role;

fn rules() -> AttemptPolicy {
    PolicyDocument::default().attempts
}

fn attempts() -> Attempts {
    Attempts::load(&[1; 32], [])
}

fn lift(all: &mut Attempts) -> bool {
    all.lift(&Someone::new(101, &[Role::SecurityOfficer]).actor(), AccountId([1; 16])).unwrap()
}

fn from(network: u8) -> Origin {
    Origin { network: Some(Network::of([192, 0, 2, network].into())), held: None }
}

fn known() -> Origin {
    Origin { held: Some(HeldSource::browser(&[9; 32])), ..from(1) }
}

fn fail(all: &mut Attempts, tag: AttemptTag, origin: &Origin, known: bool, wall: u64) -> Result<(), Locked> {
    all.admit(&rules(), tag, origin, known, Timestamp(wall)).map(|admission| all.failed(admission))
}

#[test]
fn back_off_doubles_and_then_it_is_hard() {
    let mut all = attempts();
    let tag = all.account(AccountId([1; 16]));
    let mut now = 1_000_000;
    let mut waits = Vec::new();
    for n in 0..60u8 {
        match fail(&mut all, tag, &from(n), false, now) {
            Ok(()) => {}
            Err(locked) => panic!("{n}: {locked:?}"),
        }
        if all.failures(tag) < 5 || all.failures(tag) == 60 {
            continue;
        }
        if let Err(Locked { until: Some(until) }) = fail(&mut all, tag, &from(100), false, now) {
            waits.push(until.0 - now);
            // Waiting is not made longer by those who do not wait.
            assert_eq!(
                fail(&mut all, tag, &from(100), false, until.0 - 1),
                Err(Locked { until: Some(until) })
            );
            now = until.0;
        }
    }
    assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits.last(), Some(&900_000));
    assert_eq!(fail(&mut all, tag, &from(100), false, now + 1_000_000_000), Err(Locked { until: None }));
    assert!(lift(&mut all) && !lift(&mut all));
    assert_eq!(fail(&mut all, tag, &from(100), false, now), Ok(()));
}

#[test]
fn strangers_do_not_lock_out_a_known_source_and_it_has_no_more_tries_than_it_should() {
    let mut all = attempts();
    let tag = all.account(AccountId([1; 16]));
    let mut now = 0;
    for _ in 0..60 {
        now += 1_000_000;
        assert_eq!(fail(&mut all, tag, &from(1), false, now), Ok(()));
    }
    assert_eq!(fail(&mut all, tag, &from(1), false, now), Err(Locked { until: None }));
    // The same network, and still no wait.
    for _ in 0..5 {
        assert_eq!(fail(&mut all, tag, &known(), true, now), Ok(()));
    }
    // From now on it is like any other.
    assert_eq!(fail(&mut all, tag, &known(), true, now), Err(Locked { until: None }));
    // Who only says that it is known is not.
    let other = all.account(AccountId([2; 16]));
    let admission = all.admit(&rules(), other, &known(), true, Timestamp(now)).unwrap();
    all.succeeded(admission);
    assert_eq!(all.failures(other), 0);
}

#[test]
fn many_at_once_are_as_many_as_one_after_the_other() {
    let mut all = attempts();
    let tag = all.stranger("nobody");
    let admitted: Vec<_> =
        (0..100u8).map(|n| all.admit(&rules(), tag, &from(n), false, Timestamp(5_000))).collect();
    assert_eq!(admitted.iter().filter(|admitted| admitted.is_ok()).count(), 5);
    // One of them was right: the others were not.
    let mut good = admitted.into_iter().flatten();
    all.passed(good.next().unwrap());
    good.for_each(|admission| all.failed(admission));
    assert_eq!(all.failures(tag), 4);
}

#[test]
fn a_network_that_guesses_at_many_accounts_is_slowed_and_forgotten_after_a_quiet_time() {
    let mut all = attempts();
    for n in 0..30u8 {
        let tag = all.account(AccountId([n; 16]));
        assert_eq!(fail(&mut all, tag, &from(1), false, 10), Ok(()));
    }
    let tag = all.account(AccountId([200; 16]));
    assert!(fail(&mut all, tag, &from(1), false, 10).is_err());
    assert_eq!(fail(&mut all, tag, &from(2), false, 10), Ok(()));
    // An account of one's own does not buy more guesses at others.
    let own = all.account(AccountId([201; 16]));
    let admission = all.admit(&rules(), own, &from(1), false, Timestamp(2_000)).unwrap();
    all.succeeded(admission);
    assert!(fail(&mut all, tag, &from(1), false, 500).is_err());
    assert_eq!(fail(&mut all, tag, &from(1), false, 900_010), Ok(()));
}

#[test]
fn a_clock_that_is_set_back_does_not_lock_for_ever() {
    let mut all = attempts();
    let tag = all.account(AccountId([1; 16]));
    for _ in 0..5 {
        assert_eq!(fail(&mut all, tag, &from(1), false, 10_000_000_000), Ok(()));
    }
    let locked = fail(&mut all, tag, &from(1), false, 1_000).unwrap_err();
    assert_eq!(locked, Locked { until: Some(Timestamp(2_000)) });
    assert_eq!(fail(&mut all, tag, &from(1), false, 2_000), Ok(()));
}

#[test]
fn a_flood_of_names_does_not_wash_an_account_out() {
    let mut all = Attempts::with_room(&[1; 32], [], 50);
    let tag = all.account(AccountId([1; 16]));
    for _ in 0..3 {
        assert_eq!(fail(&mut all, tag, &from(1), false, 1), Ok(()));
    }
    for n in 0..5_000u32 {
        let name = all.stranger(&n.to_string());
        let network = Origin { network: None, held: None };
        assert_eq!(fail(&mut all, name, &network, false, 100), Ok(()));
        assert!(all.strangers.len() <= 50 && all.rows.len() <= 52);
    }
    assert_eq!(all.failures(tag), 3);
}

fn anywhere(n: u32) -> Origin {
    let [a, b, c, d] = n.to_be_bytes();
    Origin { network: Some(Network::of([10 + a, b, c, d].into())), held: None }
}

/// Rows of two failures each fill the table; the counts of an account that has none yet begin all the same.
#[test]
fn a_table_that_is_full_admits_no_more_than_an_empty_one() {
    let mut all = Attempts::with_room(&[1; 32], [], 50);
    for n in 0..50u32 {
        let name = all.stranger(&n.to_string());
        for _ in 0..2 {
            assert_eq!(fail(&mut all, name, &anywhere(n), false, 10), Ok(()));
        }
    }
    // Two accounts in turn, so that neither's row could push out the other's.
    let tags = [1, 2].map(|n| all.account(AccountId([n; 16])));
    let tries = (100..300u32).map(|n| fail(&mut all, tags[n as usize % 2], &anywhere(n), false, 20));
    assert_eq!(tries.filter(Result::is_ok).count(), 10);
    assert_eq!(tags.map(|tag| all.failures(tag)), [5, 5]);
}

#[test]
fn networks_beyond_the_room_share_one_back_off_until_others_were_quiet() {
    let mut all = Attempts::with_room(&[1; 32], [], 50);
    let mut admitted = 0;
    for n in 0..1_000u32 {
        let tag = all.account(AccountId(u128::from(n).to_be_bytes()));
        admitted += u32::from(fail(&mut all, tag, &anywhere(n), false, 10).is_ok());
        assert!(all.networks.len() <= 51);
    }
    assert_eq!(admitted, 80);
    let tag = all.account(AccountId([255; 16]));
    assert!(fail(&mut all, tag, &anywhere(5_000), false, 500).is_err());
    // A known source does not wait, and the others do until there is room.
    assert_eq!(fail(&mut all, tag, &known(), true, 500), Ok(()));
    assert_eq!(fail(&mut all, tag, &anywhere(5_000), false, 900_010), Ok(()));
    assert!(all.networks.len() <= 51);
}

#[test]
fn a_known_source_that_mistyped_is_known_again_after_a_good_sign_in() {
    for lifted in [false, true] {
        let mut all = attempts();
        let tag = all.account(AccountId([1; 16]));
        for _ in 0..5 {
            assert_eq!(fail(&mut all, tag, &known(), true, 10), Ok(()));
        }
        if lifted {
            assert!(lift(&mut all));
        } else {
            let admission = all.admit(&rules(), tag, &known(), true, Timestamp(20)).unwrap();
            all.succeeded(admission);
        }
        let mut now = 0;
        for _ in 0..60 {
            now += 1_000_000;
            assert_eq!(fail(&mut all, tag, &from(2), false, now), Ok(()));
        }
        assert_eq!(fail(&mut all, tag, &from(2), false, now + 1_000_000), Err(Locked { until: None }));
        assert_eq!(fail(&mut all, tag, &known(), true, now), Ok(()));
    }
}

#[test]
fn a_lockout_is_lifted_by_its_owner_or_by_who_may() {
    let mut all = attempts();
    let account = AccountId([1; 16]);
    for (n, role, may) in [
        (1, Role::User, true),
        (2, Role::User, false),
        (2, Role::Operator, false),
        (2, Role::Administrator, true),
        (2, Role::SecurityOfficer, true),
    ] {
        assert_eq!(all.lift(&Someone::new(n, &[role]).actor(), account).is_ok(), may, "{role}");
    }
    assert!(all.lift(&Someone::vouched(1, &[Role::User]).actor(), account).is_err());
}

#[test]
fn an_attempt_is_not_taken_back_from_a_count_that_it_is_not_in() {
    let mut all = attempts();
    let tag = all.account(AccountId([1; 16]));
    let late = all.admit(&rules(), tag, &from(1), false, Timestamp(10)).unwrap();
    assert!(lift(&mut all));
    assert_eq!(fail(&mut all, tag, &from(2), false, 20), Ok(()));
    all.passed(late);
    assert_eq!(all.failures(tag), 1);
}

#[test]
fn what_finds_no_room_at_a_restart_leaves_the_store() {
    let mut all = attempts();
    for n in 0..9u32 {
        let name = all.stranger(&n.to_string());
        assert_eq!(fail(&mut all, name, &Origin { network: None, held: None }, false, 10), Ok(()));
    }
    let rows = all.changes().changes.into_iter().filter_map(|change| match change {
        AttemptChange::Put(row) => Some(row),
        AttemptChange::Remove(_) => None,
    });
    let again = Attempts::with_room(&[1; 32], rows, 8);
    assert!(matches!(again.changes().changes[..], [AttemptChange::Remove(_)]));
}

proptest! {
    /// Whatever happens, what the store was told is what the counts are.
    #[test]
    fn counts_survive_a_restart(events in prop::collection::vec(any::<(u8, u8, u16)>(), 1..80)) {
        let mut all = Attempts::with_room(&[1; 32], [], 8);
        let mut stored = BTreeMap::new();
        for (who, what, wall) in events {
            let tag = match who % 8 {
                n @ 0..4 => all.account(AccountId([n; 16])),
                _ => all.stranger(&who.to_string()),
            };
            let origin = if what % 2 == 0 { known() } else { from(who % 3) };
            let wall = Timestamp(u64::from(wall) * 1_000);
            if let Ok(admission) = all.admit(&rules(), tag, &origin, what % 3 == 0, wall) {
                match what % 5 {
                    0 => all.succeeded(admission),
                    1 => all.passed(admission),
                    _ => all.failed(admission),
                }
            }
            // Now and then the store fails.
            let batch = all.changes();
            if what % 7 == 0 {
                continue;
            }
            all.stored(batch.until);
            for change in batch.changes {
                match change {
                    AttemptChange::Put(row) => {
                        prop_assert_eq!(AttemptRow::parse_secret(&row.to_secret_bytes()), Ok(row));
                        stored.insert(row.key, row);
                    }
                    AttemptChange::Remove(key) => {
                        stored.remove(&key);
                    }
                }
            }
            let again = Attempts::with_room(&[1; 32], stored.values().copied(), 8);
            prop_assert!(again.changes().changes.is_empty());
            prop_assert_eq!(&again.strangers, &all.strangers);
            prop_assert_eq!(&again.networks, &all.networks);
        }
    }

    #[test]
    fn rows_of_any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        if let Ok(row) = AttemptRow::parse_secret(&bytes) {
            prop_assert_eq!(&*row.to_secret_bytes(), &bytes);
        }
    }
}
