//! Tokens of programs.

use super::*;
use crate::rows::RowKey;
use crate::sample::{Someone, active};
use crate::voucher::{Issuer, IssuerId};
use zixt_crypto::fill_random;

const START: Now = Now { wall: Timestamp(500_000), ledger: Timestamp(5_000) };

fn new(scopes: &[Scope]) -> NewToken {
    NewToken { name: "scanner".to_owned(), scopes: Scopes::new(scopes).unwrap(), days: 30, networks: vec![] }
}

fn root() -> Someone {
    Someone::new(200, &[Role::Administrator])
}

fn later(days: u64) -> Now {
    let more = days * DAY_MS;
    Now { wall: Timestamp(START.wall.0 + more), ledger: Timestamp(START.ledger.0 + more) }
}

#[test]
fn a_token_is_for_its_scopes_and_its_time_and_its_networks() {
    let (root, record) = (root(), active(7, &[Role::Service]));
    let mut all = ServiceTokens::default();
    let here = Network::of([192, 0, 2, 1].into());
    let wanted = NewToken { networks: vec![here], ..new(&[Scope::ReadAccounts, Scope::ReadEvents]) };
    let (token, id) =
        all.make(&root.actor_at(START.wall.0), &record, wanted, START, &mut fill_random).unwrap();
    let check = |all: &ServiceTokens, network, now| all.check(&token, network, now, |_| Some(&record));
    let caller = check(&all, Some(here), START).unwrap();
    assert_eq!((caller.account(), caller.session()), (record.id(), id));
    for (permission, may) in [
        (Permission::ListAccounts, true),
        (Permission::ReadEvents, true),
        (Permission::SuspendAccounts, false),
        (Permission::ViewHealth, false),
        (Permission::UseMessages, false),
        (Permission::ManageServiceTokens, false),
        (Permission::ReadAudit, false),
        (Permission::ManageOwnAccess, false),
    ] {
        assert_eq!(caller.require(permission).is_ok(), may, "{permission:?}");
    }
    let elsewhere = Network::of([192, 0, 2, 2].into());
    assert_eq!(check(&all, Some(elsewhere), START).unwrap_err(), SessionError::OtherChannel);
    assert_eq!(check(&all, None, START).unwrap_err(), SessionError::OtherChannel);
    assert!(check(&all, Some(here), later(30)).is_ok());
    // By either clock, and not before it was made.
    for now in [
        Now { wall: later(31).wall, ..START },
        Now { ledger: later(31).ledger, ..START },
        Now { wall: Timestamp(START.wall.0 - 5_001), ..START },
    ] {
        assert_eq!(check(&all, Some(here), now).unwrap_err(), SessionError::Over);
    }
    let other = Token::draw(&mut fill_random).unwrap();
    assert_eq!(all.check(&other, Some(here), START, |_| Some(&record)).unwrap_err(), SessionError::Unknown);

    // What takes the account's access takes the token's.
    let held = active(7, &[Role::Service]).suspend(
        &crate::Authority::Caller(root.actor_at(START.wall.0)),
        crate::Population { officers: 1, administrators: 1, auditors: 1 },
        START.wall,
    );
    let held = held.unwrap().record;
    let user = active(7, &[Role::User]);
    for record in [Some(&held), Some(&user), None] {
        assert_eq!(
            all.check(&token, Some(here), START, |_| record).unwrap_err(),
            SessionError::AccessChanged
        );
    }
    // A clock that is set back by little changes nothing, and by much it waits: nothing is lost for good.
    assert!(check(&all, Some(here), Now { wall: Timestamp(START.wall.0 - 5_000), ..START }).is_ok());
    all.sweep(Now { wall: Timestamp(0), ..START }, |_| Some(&record));
    assert!(all.is_open(id));
    // Suspended, it waits; as somebody else, it is gone.
    all.sweep(START, |_| Some(&held));
    assert!(all.is_open(id));
    all.sweep(START, |_| Some(&user));
    assert!(!all.is_open(id));
}

#[test]
fn tokens_are_made_for_programs_by_administrators_and_few_of_them() {
    let (root, record) = (root(), active(7, &[Role::Service]));
    let mut all = ServiceTokens::default();
    let make = |all: &mut ServiceTokens, by: &Actor<'_>, record: &AccountRecord, new: NewToken| {
        all.make(by, record, new, START, &mut fill_random).map(|(_, id)| id)
    };
    let recent = root.actor_at(START.wall.0);
    let read = || new(&[Scope::ReadHealth]);
    for role in [Role::User, Role::Operator, Role::Administrator, Role::SecurityOfficer, Role::Auditor] {
        let made = make(&mut all, &recent, &active(8, &[role]), read());
        assert_eq!(made, Err(TokenError::NoService), "{role}");
    }
    for (new, error) in [
        (NewToken { name: String::new(), ..read() }, TokenError::Name),
        (NewToken { name: "a\nb".to_owned(), ..read() }, TokenError::Name),
        (NewToken { name: "n".repeat(65), ..read() }, TokenError::Name),
        (NewToken { days: 0, ..read() }, TokenError::Days),
        (NewToken { days: TOKEN_DAYS_MAX + 1, ..read() }, TokenError::Days),
        (NewToken { networks: vec![Network::of([1, 1, 1, 1].into()); 9], ..read() }, TokenError::Networks),
    ] {
        assert_eq!(make(&mut all, &recent, &record, new), Err(error));
    }
    let officer = Someone::new(201, &[Role::SecurityOfficer]);
    let made = make(&mut all, &officer.actor_at(START.wall.0), &record, read());
    assert_eq!(made, Err(Forbidden::Role(Permission::ManageServiceTokens).into()));
    let old = root.actor_at(later(1).wall.0);
    assert_eq!(make(&mut all, &old, &record, read()), Err(Forbidden::NotRecent.into()));
    let ids: Vec<_> =
        (0..TOKENS_EACH_MAX).map(|_| make(&mut all, &recent, &record, read()).unwrap()).collect();
    assert_eq!(make(&mut all, &recent, &record, read()), Err(TokenError::TooMany));
    assert_eq!(all.end(&recent, AccountId([9; 16]), ids[0]), Ok(false));
    assert_eq!(all.end(&recent, record.id(), ids[0]), Ok(true));
    assert_eq!(all.end(&recent, record.id(), ids[0]), Ok(false));
    assert!(make(&mut all, &recent, &record, read()).is_ok());

    // Rows are read as they were written, under their own id alone.
    let key = RowKey::from_bytes(&[7; 32]);
    let mut seen = 0;
    for change in all.changes().changes {
        match change {
            TokenChange::Put(row) => {
                let sealed = row.seal(&key);
                assert_eq!(TokenRow::open(&key, row.id(), &sealed).unwrap(), *row);
                assert!(TokenRow::open(&key, ids[0], &sealed).is_err());
                seen += 1;
            }
            TokenChange::Remove(id) => assert_eq!(id, ids[0]),
        }
    }
    assert_eq!(seen, TOKENS_EACH_MAX);
    // Nobody vouches a program in.
    let issuer = Issuer::sso(IssuerId([1; 16]));
    assert!(record.link_to(issuer.id()).is_none());
}
