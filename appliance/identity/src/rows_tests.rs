use super::*;
use crate::attempts::{AttemptChange, Attempts};
use crate::factor::Factor;
use crate::outcome::Grant;
use crate::place::{Channel, Now, Origin};
use crate::policy::PolicyDocument;
use crate::sample::{Someone, active, both};
use crate::session::{SessionChange, Sessions};
use zixt_crypto::fill_random;
use zixt_types::Role;
use zixt_types::Timestamp;

fn session() -> SessionRow {
    let now = Now { wall: Timestamp(1), ledger: Timestamp(1) };
    let channel = Channel::ClientKey(Hash([1; 48])).binding();
    let mut all = Sessions::default();
    let grant = Grant::sample(&active(1, &[Role::User]), Factor::Password, channel, now);
    all.open(grant, &mut fill_random).unwrap();
    match all.changes().changes.remove(0) {
        SessionChange::Put(row) => *row,
        SessionChange::Remove(_) => panic!(),
    }
}

fn attempt() -> AttemptRow {
    let mut all = Attempts::load(&[1; 32], []);
    let tag = all.account(AccountId([1; 16]));
    let origin = Origin { network: None, held: None };
    let rules = PolicyDocument::default().attempts;
    let admission = all.admit(&rules, tag, &origin, false, Timestamp(1)).unwrap();
    all.failed(admission);
    match all.changes().changes.remove(0) {
        AttemptChange::Put(row) => row,
        AttemptChange::Remove(_) => panic!(),
    }
}

/// A row opens under its key, its kind and its id, and with none of its bytes changed.
fn check<I: Copy>(id: I, other: I, sealed: &[u8], open: impl Fn(&RowKey, I, &[u8]) -> Option<OpenRowError>) {
    let key = RowKey::from_bytes(&[7; 32]);
    assert_eq!(open(&key, id, sealed), None);
    assert!(matches!(open(&key, other, sealed), Some(OpenRowError::Rejected(_))));
    assert!(matches!(open(&RowKey::from_bytes(&[8; 32]), id, sealed), Some(OpenRowError::Rejected(_))));
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1 << bit;
            assert!(open(&key, id, &changed).is_some(), "byte {at}, bit {bit}");
        }
    }
    for length in 0..sealed.len() {
        assert!(open(&key, id, &sealed[..length]).is_some());
    }
}

#[test]
fn a_row_that_somebody_else_wrote_is_refused() {
    let key = RowKey::from_bytes(&[7; 32]);
    let admin = Someone::new(9, &[Role::Administrator]);
    let record = active(1, &[Role::User]);
    let recovery = Recovery::request(&admin.actor(), &record, both(1), &mut fill_random).unwrap();
    let (session, attempt) = (session(), attempt());
    check(record.id(), AccountId([2; 16]), &record.seal(&key), |key, id, bytes| {
        AccountRecord::open(key, id, bytes).err()
    });
    check(session.id(), SessionId([2; 16]), &session.seal(&key), |key, id, bytes| {
        SessionRow::open(key, id, bytes).err()
    });
    check(recovery.id(), RecoveryId([2; 16]), &recovery.seal(&key), |key, id, bytes| {
        Recovery::open(key, id, bytes).err()
    });
    check(attempt.key, AttemptKey::sample(3), &attempt.seal(&key), |key, id, bytes| {
        AttemptRow::open(key, id, bytes).err()
    });
    // One kind is not another, whatever the bytes are.
    let as_recovery = seal(&key, record.id().as_bytes(), &record);
    assert!(matches!(
        Recovery::open(&key, RecoveryId([1; 16]), &as_recovery),
        Err(OpenRowError::Rejected(_))
    ));
    // And what stands under the id of another row is not that row, even if it was sealed so.
    let lent = seal(&key, AccountId([2; 16]).as_bytes(), &record);
    assert!(AccountRecord::open(&key, AccountId([2; 16]), &lent).is_err());
}
