use super::*;
use crate::account::Change;
use crate::policy::PolicyDocument;
use crate::sample::{MANY, Someone, active, ceremony};
use proptest::prelude::*;
use zixt_crypto::fill_random;
use zixt_types::Role;

const MINUTE: u64 = 60_000;

fn policy() -> Policy {
    Policy::new(PolicyDocument::default()).unwrap()
}

fn channel(n: u8) -> ChannelBinding {
    crate::place::Channel::ClientKey(Hash([n; 48])).binding()
}

fn admin() -> Someone {
    Someone::new(200, &[Role::Administrator])
}

fn record(n: u8) -> AccountRecord {
    active(n, &[Role::User])
}

fn grant(record: &AccountRecord, first: Factor, now: Now) -> Grant {
    Grant::sample(record, first, channel(1), now)
}

fn at(wall: u64, ledger: u64) -> Now {
    Now { wall: Timestamp(wall), ledger: Timestamp(ledger) }
}

#[test]
fn a_token_opens_one_channel_for_one_time() {
    let (policy, record) = (policy(), record(1));
    let mut all = Sessions::default();
    let start = at(1_000_000, 500_000);
    let (token, id) = all.open(grant(&record, Factor::Password, start), &mut fill_random).unwrap();
    let text = token.to_text();
    let token = Token::parse(&text).unwrap();
    let check = |all: &mut Sessions, n, now| all.check(&policy, &token, &channel(n), now, |_| Some(&record));
    assert_eq!(check(&mut all, 1, start).map(|caller| caller.session()), Ok(id));
    assert_eq!(check(&mut all, 2, start), Err(SessionError::OtherChannel));
    // Idle for less than an hour, again and again, until a day is over.
    let mut now = start;
    for _ in 0..24 {
        now = at(now.wall.0 + 59 * MINUTE, 500_000);
        assert!(check(&mut all, 1, now).is_ok());
    }
    now = at(start.wall.0 + 24 * 60 * MINUTE, 500_000);
    assert_eq!(check(&mut all, 1, now), Err(SessionError::Over));
    assert_eq!(check(&mut all, 1, start), Err(SessionError::Unknown));
    assert_eq!(format!("{token:?}"), "Token(redacted)");
}

#[test]
fn idle_ledger_time_and_a_clock_that_is_set_back_end_it() {
    let (policy, record) = (policy(), record(1));
    let start = at(1_000_000_000, 1_000_000_000);
    for now in [
        at(start.wall.0 + 60 * MINUTE, start.ledger.0),
        at(start.wall.0 + 1, start.ledger.0 + 24 * 60 * MINUTE),
        at(start.wall.0 - 6_000, start.ledger.0 + 1),
    ] {
        let mut all = Sessions::default();
        let (token, _) = all.open(grant(&record, Factor::Password, start), &mut fill_random).unwrap();
        let found = all.check(&policy, &token, &channel(1), now, |_| Some(&record));
        assert_eq!(found, Err(SessionError::Over), "{now:?}");
        assert!(all.is_empty());
    }
    let mut all = Sessions::default();
    let (token, _) = all.open(grant(&record, Factor::Password, start), &mut fill_random).unwrap();
    let step = at(start.wall.0 - 2_000, start.ledger.0);
    assert!(all.check(&policy, &token, &channel(1), step, |_| Some(&record)).is_ok());
    assert_eq!(all.sweep(&policy, at(start.wall.0 + 61 * MINUTE, 0)).len(), 1);
}

#[test]
fn what_is_taken_from_an_account_is_taken_from_its_sessions_even_those_that_come_back() {
    let (policy, before) = (policy(), record(1));
    let start = at(1_000_000, 1_000_000);
    let admin = admin();
    let by = admin.by();
    let operator = Roles::new(&[Role::Operator]).unwrap();
    let changes: [Change; 4] = [
        before.suspend(&by, MANY, start.wall).unwrap(),
        before.offboard(&by, MANY, start.wall).unwrap(),
        before.change_roles(&by, operator, MANY).unwrap(),
        before.credentials_changed(),
    ];
    for Change { record: after, .. } in changes {
        let mut all = Sessions::default();
        let (token, _) = all.open(grant(&before, Factor::Password, start), &mut fill_random).unwrap();
        let stale: Vec<_> = all.rows.values().cloned().collect();
        let found = all.check(&policy, &token, &channel(1), start, |_| Some(&after));
        assert_eq!(found, Err(SessionError::AccessChanged));
        // A cache or a backup brings the row back, and the account is let in again.
        let resumed = after.resume(&by).map_or(after, |change| change.record);
        let mut all = Sessions::load(stale);
        let found = all.check(&policy, &token, &channel(1), start, |_| Some(&resumed));
        assert_eq!(found, Err(SessionError::AccessChanged));
        let mut all = Sessions::default();
        let (token, _) = all.open(grant(&before, Factor::Password, start), &mut fill_random).unwrap();
        let found = all.check(&policy, &token, &channel(1), start, |_| None);
        assert_eq!(found, Err(SessionError::AccessChanged));
    }
}

#[test]
fn whoever_changes_a_password_goes_on_with_a_new_token() {
    let (policy, before) = (policy(), record(1));
    let start = at(1_000_000, 1_000_000);
    let mut all = Sessions::default();
    let (other, _) = all.open(grant(&before, Factor::Password, start), &mut fill_random).unwrap();
    let (old, _) = all.open(grant(&before, Factor::Password, start), &mut fill_random).unwrap();
    let caller = all.check(&policy, &old, &channel(1), start, |_| Some(&before)).unwrap();
    let after = before.credentials_changed().record;
    let (new, id) = all.rotate(&caller, &after, &mut fill_random).unwrap();
    for token in [&old, &other] {
        assert!(all.check(&policy, token, &channel(1), start, |_| Some(&after)).is_err());
    }
    assert_eq!(all.check(&policy, &new, &channel(1), start, |_| Some(&after)).unwrap().session(), id);
    // The lifetime goes on: nobody stays for ever by rotating.
    let end = at(start.wall.0 + 24 * 60 * MINUTE, start.ledger.0);
    assert_eq!(all.check(&policy, &new, &channel(1), end, |_| Some(&after)), Err(SessionError::Over));
    assert_eq!(all.rotate(&caller, &after, &mut fill_random).err(), Some(RotateError::Ended));
}

/// The owner sets a new password while somebody else, with the old one, is about to change a factor.
#[test]
fn nobody_rotates_over_what_somebody_else_has_ended() {
    let (policy, before) = (policy(), record(1));
    let start = at(1_000_000, 1_000_000);
    let mut all = Sessions::default();
    let (token, _) = all.open(grant(&before, Factor::Password, start), &mut fill_random).unwrap();
    let caller = all.check(&policy, &token, &channel(1), start, |_| Some(&before)).unwrap();
    let once = before.credentials_changed().record;
    let twice = once.credentials_changed().record;
    for other in [&before, &twice] {
        assert_eq!(all.rotate(&caller, other, &mut fill_random).err(), Some(RotateError::Ended));
    }
    // And the request itself has nothing to act on any more.
    assert!(caller.acting(&before, start.wall).is_ok());
    assert_eq!(caller.acting(&once, start.wall).err(), Some(Forbidden::Ended));
    let held = before.suspend(&ceremony(), MANY, start.wall).unwrap().record;
    assert_eq!(caller.acting(&held, start.wall).err(), Some(Forbidden::Ended));
    assert_eq!(caller.acting(&record(2), start.wall).err(), Some(Forbidden::Ended));
    assert!(all.rotate(&caller, &once, &mut fill_random).is_ok());
}

#[test]
fn sessions_are_listed_and_ended_by_their_owner_and_by_who_may() {
    let (policy, start) = (policy(), at(1_000_000, 1_000_000));
    let owner = Someone::vouched(1, &[Role::User]);
    let cases = [
        (Someone::vouched(1, &[Role::User]), true),
        (Someone::new(2, &[Role::User]), false),
        (Someone::new(2, &[Role::Operator]), false),
        (Someone::new(2, &[Role::Auditor]), false),
        (admin(), true),
        (Someone::new(2, &[Role::SecurityOfficer]), true),
        (Someone::vouched(2, &[Role::SecurityOfficer]), false),
    ];
    for (who, may) in cases {
        let mut all = Sessions::default();
        let grant = grant(&owner.record, Factor::Sso, start);
        let (token, id) = all.open(grant, &mut fill_random).unwrap();
        let listed = all.list(&who.actor(), &policy, owner.record.id(), start).map(Iterator::count);
        assert_eq!(listed.ok(), may.then_some(1));
        assert_eq!(all.end(&who.actor(), id).ok(), may.then_some(true));
        let found = all.check(&policy, &token, &channel(1), start, |_| Some(&owner.record));
        assert_eq!(found.is_err(), may);
        if let Ok(caller) = found {
            assert!(all.log_out(&caller) && all.is_empty());
        }
    }
}

#[test]
fn an_end_that_was_not_written_is_written_later() {
    let (record, start) = (record(1), at(1_000_000, 1_000_000));
    let mut all = Sessions::default();
    let (_, id) = all.open(grant(&record, Factor::Password, start), &mut fill_random).unwrap();
    let opened = all.changes();
    assert!(matches!(opened.changes[..], [SessionChange::Put(_)]));
    // It ends while the store writes that it was opened.
    assert!(all.revoke(id));
    all.stored(opened.until);
    let ended = all.changes();
    assert_eq!(ended.changes, [SessionChange::Remove(id)]);
    // The store fails, and is asked again.
    drop(ended);
    let ended = all.changes();
    assert_eq!(ended.changes, [SessionChange::Remove(id)]);
    all.stored(ended.until);
    assert!(all.changes().changes.is_empty());
}

#[test]
fn a_policy_that_asks_for_more_ends_what_gave_less() {
    let (mut document, record) = (PolicyDocument::default(), record(1));
    let start = at(1_000_000, 1_000_000);
    let mut all = Sessions::default();
    let (token, _) = all.open(grant(&record, Factor::Password, start), &mut fill_random).unwrap();
    let (key, _) = all.open(grant(&record, Factor::DeviceKey, start), &mut fill_random).unwrap();
    assert!(all.check(&policy(), &token, &channel(1), start, |_| Some(&record)).is_ok());
    document.roles[Role::User as usize].paths[0].then = vec![FactorSet::EMPTY.with(Factor::Totp)];
    let stricter = Policy::new(document).unwrap();
    let found = all.check(&stricter, &token, &channel(1), start, |_| Some(&record));
    assert_eq!(found, Err(SessionError::AccessChanged));
    assert!(all.check(&stricter, &key, &channel(1), start, |_| Some(&record)).is_ok());
    // For good, even if the policy is set back.
    let found = all.check(&policy(), &token, &channel(1), start, |_| Some(&record));
    assert_eq!(found, Err(SessionError::Unknown));
}

#[test]
fn rotating_gives_no_roles() {
    let (policy, before) = (policy(), record(1));
    let start = at(1_000_000, 1_000_000);
    let admin = admin();
    let more = Roles::new(&[Role::User, Role::Operator]).unwrap();
    let after = before.change_roles(&admin.by(), more, MANY).unwrap().record;
    let mut all = Sessions::default();
    let (token, _) = all.open(grant(&before, Factor::Password, start), &mut fill_random).unwrap();
    let caller = all.check(&policy, &token, &channel(1), start, |_| Some(&before)).unwrap();
    assert_eq!(all.rotate(&caller, &after, &mut fill_random).err(), Some(RotateError::Ended));
    // A step-up is a sign-in of the same person; the session that asked for it ends.
    let other = all.elevate(&caller, grant(&self::record(2), Factor::DeviceKey, start), &mut fill_random);
    assert_eq!(other.err(), Some(RotateError::Ended));
    let (_, id) = all.elevate(&caller, grant(&after, Factor::DeviceKey, start), &mut fill_random).unwrap();
    assert_eq!(all.rows.keys().collect::<Vec<_>>(), [&id]);
}

#[test]
fn an_idp_gives_access_and_nothing_that_needs_a_proof_of_ones_own() {
    let (policy, record) = (policy(), record(1));
    let start = at(1_000_000, 1_000_000);
    for (first, own) in [(Factor::Sso, false), (Factor::Directory, false), (Factor::Password, true)] {
        let mut all = Sessions::default();
        let (token, _) = all.open(grant(&record, first, start), &mut fill_random).unwrap();
        let caller = all.check(&policy, &token, &channel(1), start, |_| Some(&record)).unwrap();
        assert_eq!(caller.require(Permission::UseMessages), Ok(()));
        for permission in [Permission::UseOwnVault, Permission::ManageOwnAccess] {
            assert_eq!(caller.require(permission).is_ok(), own, "{first}");
        }
        let permission = Permission::ReadAudit;
        assert_eq!(caller.require(permission), Err(Forbidden::Role(permission)));
    }
}

#[test]
fn an_account_has_so_many_sessions_and_the_oldest_goes() {
    let (policy, record) = (policy(), record(1));
    let mut all = Sessions::default();
    let mut tokens = Vec::new();
    for n in 0..20 {
        let now = at(1_000_000 + n, 1_000_000);
        tokens.push(all.open(grant(&record, Factor::Password, now), &mut fill_random).unwrap().0);
    }
    assert_eq!(all.len(), limits::SESSIONS_EACH_MAX);
    let now = at(1_000_100, 1_000_000);
    let open: Vec<_> = tokens
        .iter()
        .map(|token| all.check(&policy, token, &channel(1), now, |_| Some(&record)).is_ok())
        .collect();
    assert_eq!(open, [vec![false; 4], vec![true; 16]].concat());
}

proptest! {
    /// A session that ended never comes back, whatever is done in whatever order; and what the store was told is what
    /// is open.
    #[test]
    fn revoked_sessions_never_come_back(events in prop::collection::vec(any::<(u8, u8, u16)>(), 1..60)) {
        let policy = policy();
        let mut records = [record(1), record(2)];
        let mut all = Sessions::default();
        let mut stored = BTreeMap::new();
        // Every token there ever was, whether it must be dead by now.
        let mut tokens: Vec<(Token, SessionId, usize, bool)> = Vec::new();
        let mut now = at(1_000_000, 1_000_000);
        for (what, which, number) in events {
            let whose = usize::from(which) % 2;
            let index = usize::from(which) % tokens.len().max(1);
            match what % 10 {
                0..=2 => {
                    let grant = grant(&records[whose], Factor::Password, now);
                    let (token, id) = all.open(grant, &mut fill_random).unwrap();
                    tokens.push((token, id, whose, false));
                }
                3 if !tokens.is_empty() => {
                    let token = &mut tokens[index];
                    all.revoke(token.1);
                    token.3 = true;
                }
                4 => {
                    all.revoke_account(records[whose].id(), None);
                    tokens.iter_mut().filter(|token| token.2 == whose).for_each(|token| token.3 = true);
                }
                5 if !tokens.is_empty() => {
                    let (_, keep, owner, _) = tokens[index];
                    all.revoke_account(records[owner].id(), Some(keep));
                    let others = tokens.iter_mut().filter(|token| token.2 == owner && token.1 != keep);
                    others.for_each(|token| token.3 = true);
                }
                6 => {
                    records[whose] = records[whose].credentials_changed().record;
                    tokens.iter_mut().filter(|token| token.2 == whose).for_each(|token| token.3 = true);
                }
                7 if !tokens.is_empty() => {
                    let owner = tokens[index].2;
                    let record = records[owner].clone();
                    let found = all.check(&policy, &tokens[index].0, &channel(1), now, |_| Some(&record));
                    if let Ok(caller) = found {
                        records[owner] = record.credentials_changed().record;
                        let (token, id) = all.rotate(&caller, &records[owner], &mut fill_random).unwrap();
                        for other in tokens.iter_mut().filter(|other| other.2 == owner) {
                            other.3 = true;
                        }
                        tokens.push((token, id, owner, false));
                    }
                }
                8 => now = at(now.wall.0 + u64::from(number) * 100, now.ledger.0 + u64::from(number)),
                // A restart from what the store was told.
                _ => all = Sessions::load(stored.values().cloned()),
            }
            let batch = all.changes();
            all.stored(batch.until);
            for change in batch.changes {
                match change {
                    SessionChange::Put(row) => {
                        let parsed = SessionRow::parse_secret(&row.to_secret_bytes());
                        prop_assert_eq!(parsed.as_ref(), Ok(&*row));
                        stored.insert(row.id(), *row);
                    }
                    SessionChange::Remove(id) => {
                        stored.remove(&id);
                    }
                }
            }
            prop_assert!(stored.keys().eq(all.rows.keys()));
            for (token, _, owner, dead) in &tokens {
                let record = &records[*owner];
                let found = all.check(&policy, token, &channel(1), now, |_| Some(record));
                prop_assert!(!(*dead && found.is_ok()), "a session came back");
            }
        }
    }

    #[test]
    fn rows_of_any_bytes_are_read_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
        if let Ok(row) = SessionRow::parse_secret(&bytes) {
            prop_assert_eq!(&*row.to_secret_bytes(), &bytes);
        }
        let mut all = Sessions::default();
        let now = self::at(1, 1);
        all.open(grant(&record(1), Factor::Password, now), &mut fill_random).unwrap();
        let mut bytes = all.rows.values().next().unwrap().to_secret_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(row) = SessionRow::parse_secret(&bytes) {
            prop_assert_eq!(&*row.to_secret_bytes(), &bytes);
        }
    }

    #[test]
    fn any_text_is_a_token_or_none(text: String) {
        let _ = Token::parse(&text);
    }
}

#[test]
fn what_rests_on_an_issuers_word_ends_with_it() {
    use crate::voucher::{Issuer, IssuerId, Vouched};
    let (policy, record) = (policy(), record(1));
    let now = at(1_000_000, 500_000);
    let (here, there) = (Issuer::sso(IssuerId([1; 16])), Issuer::sso(IssuerId([2; 16])));
    let mut all = Sessions::default();
    let mut open = |issuer: &Issuer, subject: &[u8], session: Option<&[u8]>| {
        let mut grant = grant(&record, Factor::Sso, now);
        let session = session.map(|name| issuer.session(name));
        grant.vouched = Some(Vouched { link: issuer.link(subject), session });
        all.open(grant, &mut fill_random).unwrap()
    };
    let (token, first) = open(&here, b"ada", Some(b"1"));
    let (_, second) = open(&here, b"ada", Some(b"2"));
    let (_, bobs) = open(&here, b"bob", Some(b"1"));
    let (_, elsewhere) = open(&there, b"ada", Some(b"1"));
    let (_, own) = all.open(grant(&record, Factor::DeviceKey, now), &mut fill_random).unwrap();
    assert_eq!(all.revoke_vouched(here.id(), None, None), []);
    let (ada, one) = (here.link(b"ada"), here.session(b"1"));
    // By both: the one. By another provider's word: nobody's here.
    assert_eq!(all.revoke_vouched(there.id(), Some(&ada), None), []);
    assert_eq!(all.revoke_vouched(here.id(), Some(&ada), Some(&one)), [first]);
    assert!(all.check(&policy, &token, &channel(1), now, |_| Some(&record)).is_err());
    assert_eq!(all.revoke_vouched(here.id(), None, Some(&one)), [bobs]);
    assert_eq!(all.revoke_vouched(here.id(), Some(&ada), None), [second]);
    assert!(all.is_open(elsewhere) && all.is_open(own));

    // It is kept with the row, and a row of before it had it is read.
    let key = crate::RowKey::from_bytes(&[7; 32]);
    for change in all.changes().changes {
        if let SessionChange::Put(row) = change {
            let sealed = row.seal(&key);
            assert_eq!(SessionRow::open(&key, row.id(), &sealed).unwrap(), *row);
        }
    }
}
