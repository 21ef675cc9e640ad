//! Key packages: what they say, and which are refused.

use crate::world::*;
use zixt_crypto::{Backend, Reference, SigningSeed};
use zixt_messaging::key_package::{CLOCK_SKEW_MS, LIFETIME_MS_MAX};
use zixt_messaging::{IdentityError, KeyPackageError, KeyPackageInfo, KeyPackageUse, welcome_key_packages};
use zixt_types::{Hash, SuiteId, Timestamp, limits};

#[test]
fn a_package_says_whose_it_is_until_when_and_how_often() {
    for suite in SuiteId::ALL {
        let mut world = World::new(suite, 2);
        for usage in [KeyPackageUse::OneTime, KeyPackageUse::LastResort] {
            let package = world.peer(2).package(usage);
            let info = world.peer(1).device.check_key_package(&package.public, &member(2), NOW).unwrap();
            assert_eq!(info, package.info);
            assert_eq!((info.suite, info.member, info.usage), (suite, member(2), usage));
            assert_eq!(info.expires_at, Timestamp(NOW.0 + 30 * DAY_MS));
            assert!(package.public.len() <= limits::KEY_PACKAGE_BYTES_MAX);
        }
    }
}

#[test]
fn packages_that_do_not_fit_are_refused() {
    let mut world = World::new(SuiteId::Standard, 2);
    let package = world.peer(2).package(KeyPackageUse::OneTime);
    let checker = world.peer(1).device.clone();
    let check = |bytes: &[u8], now: u64| {
        checker.check_key_package(bytes, &member(2), Timestamp(now)).map(|_| ()).unwrap_err()
    };
    let good = &package.public;
    let error = checker.check_key_package(good, &member(1), NOW).unwrap_err();
    assert!(matches!(error, KeyPackageError::OtherMember { got } if got == member(2)), "{error:?}");
    let end = package.info.expires_at.0;
    assert!(checker.check_key_package(good, &member(2), Timestamp(end - CLOCK_SKEW_MS)).is_ok());
    assert!(matches!(check(good, end - CLOCK_SKEW_MS + 1), KeyPackageError::Expired { .. }));
    assert!(checker.check_key_package(good, &member(2), Timestamp(NOW.0 - CLOCK_SKEW_MS)).is_ok());
    assert!(matches!(check(good, NOW.0 - CLOCK_SKEW_MS - 1000), KeyPackageError::Mls(_)), "not yet");
    assert!(matches!(check(good, NOW.0 - LIFETIME_MS_MAX), KeyPackageError::TooLongLived { .. }));
    let too_long =
        world.peer(2).device.generate_key_package(KeyPackageUse::OneTime, NOW, LIFETIME_MS_MAX + 1);
    assert!(matches!(too_long, Err(KeyPackageError::TooLongLived { .. })));

    for at in (0..good.len()).step_by(61) {
        let mut altered = good.clone();
        altered[at] ^= 1;
        assert!(checker.check_key_package(&altered, &member(2), NOW).is_err(), "byte {at}");
    }
    assert!(matches!(check(&good[..good.len() - 1], NOW.0), KeyPackageError::Malformed));
    assert!(matches!(check(&[good.as_slice(), b"x"].concat(), NOW.0), KeyPackageError::Malformed));
    let long = vec![0; limits::KEY_PACKAGE_BYTES_MAX + 1];
    assert!(matches!(check(&long, NOW.0), KeyPackageError::TooLong { .. }));
    assert!(matches!(KeyPackageInfo::parse(b""), Err(KeyPackageError::Malformed)));

    // The ledger has another key, then none.
    world.directory.record(member(2), Hash([9; 48]));
    let other = KeyPackageError::Identity(IdentityError::OtherKey(member(2)));
    assert_eq!(check(good, NOW.0).to_string(), other.to_string());
    world.directory.revoke(&member(2));
    let unknown = check(good, NOW.0);
    assert!(matches!(unknown, KeyPackageError::Identity(IdentityError::Unknown(_))), "{unknown:?}");
}

#[test]
fn suites_do_not_mix() {
    let world = World::new(SuiteId::Standard, 1);
    let mut cnsa = Peer::new(SuiteId::Cnsa, 2, &world.directory);
    let package = cnsa.package(KeyPackageUse::OneTime);
    let checked = world.peers[&member(1)].device.check_key_package(&package.public, &member(2), NOW);
    assert!(matches!(checked, Err(KeyPackageError::OtherSuite { got: 0xF0A2 })), "{checked:?}");
}

#[test]
fn a_package_for_a_stolen_name_is_refused() {
    let mut world = World::new(SuiteId::Standard, 2);
    let key = Reference.signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[3; 32])).unwrap();
    // The thief's own directory says what the thief likes.
    let theirs = std::sync::Arc::new(Directory::default());
    theirs.record(member(2), zixt_crypto::digest::key_hash(SuiteId::Standard, key.public_key()));
    let package = Peer::with_signer(key, 2, &theirs).package(KeyPackageUse::OneTime);
    let checked = world.peer(1).device.check_key_package(&package.public, &member(2), NOW);
    assert!(matches!(checked, Err(KeyPackageError::Identity(IdentityError::OtherKey(_)))), "{checked:?}");
}

#[test]
fn a_welcome_names_the_packages_that_it_is_for() {
    let mut world = World::new(SuiteId::Standard, 3);
    let draft = world.draft(1, &[2, 3], &[]);
    let mut named = welcome_key_packages(draft.welcome.as_deref().unwrap()).unwrap();
    named.sort();
    let mut expected: Vec<_> =
        [2, 3].iter().flat_map(|n| world.peers[&member(*n)].packages.keys().copied()).collect();
    expected.sort();
    assert_eq!(named, expected);
    assert!(welcome_key_packages(&draft.envelope).unwrap().is_empty());
    assert!(welcome_key_packages(b"x").is_err());
}
