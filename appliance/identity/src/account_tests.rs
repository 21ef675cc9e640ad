use super::*;
use crate::recovery::{Recovery, RecoveryError};
use crate::voucher::Issuer;
use proptest::prelude::*;
use zixt_crypto::fill_random;

const MANY: Population = Population { officers: 3, administrators: 3 };
const DAY: u64 = 86_400_000;

fn roles(roles: &[Role]) -> Roles {
    Roles::new(roles).unwrap()
}

fn code() -> InvitationCode {
    InvitationCode::generate(&mut fill_random).unwrap()
}

fn admin() -> Caller {
    Caller::sample(100, &[Role::Administrator], true)
}

fn officer() -> Caller {
    Caller::sample(101, &[Role::SecurityOfficer], true)
}

fn active(n: u8, of: &[Role]) -> AccountRecord {
    let (by, code) = (Authority::Ceremony(Hash([1; 48])), code());
    let id = AccountId([n; 16]);
    let invited = AccountRecord::invite(&by, id, roles(of), &code, Timestamp(0), Timestamp(DAY)).unwrap();
    invited.accept(&code, Timestamp(1)).unwrap().record
}

#[test]
fn an_invitation_is_for_one_account_once_and_for_a_time() {
    let (admin, right) = (admin(), code());
    let by = Authority::Caller(&admin);
    let id = AccountId([1; 16]);
    let invite =
        |expires| AccountRecord::invite(&by, id, roles(&[Role::User]), &right, Timestamp(10), expires);
    for wrong in [10, 9, 10 + 32 * DAY] {
        assert_eq!(invite(Timestamp(wrong)), Err(AccountError::Lifetime));
    }
    let invited = invite(Timestamp(10 + DAY)).unwrap();
    assert!(!invited.is_active());
    assert_eq!(invited.accept(&code(), Timestamp(11)), Err(AccountError::WrongCode));
    assert_eq!(invited.accept(&right, Timestamp(11 + DAY)), Err(AccountError::Expired));
    let typed = InvitationCode::parse(&right.to_text().to_lowercase()).unwrap();
    let accepted = invited.accept(&typed, Timestamp(11)).unwrap().record;
    assert!(accepted.is_active());
    let again = accepted.accept(&right, Timestamp(12));
    assert_eq!(again, Err(AccountError::Status { got: "active", expected: "invited" }));
    // Another account's code is another code, even if the digits were the same.
    assert_ne!(right.hash(id), right.hash(AccountId([2; 16])));
}

#[test]
fn privileged_roles_take_an_officer() {
    let (admin, officer, code) = (admin(), officer(), code());
    let invite = |by: &Caller, of: &[Role]| {
        let by = Authority::Caller(by);
        AccountRecord::invite(&by, AccountId([1; 16]), roles(of), &code, Timestamp(0), Timestamp(DAY))
    };
    for role in [Role::SecurityOfficer, Role::Administrator, Role::Auditor] {
        let forbidden = Forbidden::Role(Permission::ChangePrivilegedRoles);
        assert_eq!(invite(&admin, &[role]), Err(AccountError::Forbidden(forbidden)));
        assert!(invite(&officer, &[role]).is_ok());
    }
    assert!(invite(&admin, &[Role::Operator, Role::User]).is_ok());
    assert!(invite(&officer, &[Role::User]).is_err());
    let user = active(1, &[Role::User]);
    let up = |by: &Caller| {
        user.change_roles(&Authority::Caller(by), roles(&[Role::User, Role::Administrator]), MANY)
    };
    assert!(up(&admin).is_err());
    let change = up(&officer).unwrap();
    assert_eq!((change.effects, change.record.epoch()), (vec![Effect::EndSessions], 1));
    // Down is as privileged as up.
    let down = change.record.change_roles(&Authority::Caller(&admin), roles(&[Role::User]), MANY);
    assert!(down.is_err());
    // A session on an identity provider's word alone does none of this.
    let vouched = Caller::sample(100, &[Role::Administrator], false);
    let forbidden = Forbidden::VouchedOnly(Permission::InviteAccounts);
    assert_eq!(invite(&vouched, &[Role::User]), Err(AccountError::Forbidden(forbidden)));
}

#[test]
fn nobody_acts_on_themselves_and_the_last_one_stays() {
    let officer_account = active(101, &[Role::SecurityOfficer]);
    let admin_account = active(100, &[Role::Administrator]);
    let (admin, officer) = (admin(), officer());
    let (by_admin, by_officer) = (Authority::Caller(&admin), Authority::Caller(&officer));
    let wall = Timestamp(5);
    assert_eq!(admin_account.suspend(&by_admin, MANY, wall), Err(AccountError::OwnAccount));
    assert_eq!(officer_account.offboard(&by_officer, MANY, wall), Err(AccountError::OwnAccount));
    let user = roles(&[Role::User]);
    assert_eq!(officer_account.change_roles(&by_officer, user, MANY), Err(AccountError::OwnAccount));
    let last = Population { officers: 1, administrators: 1 };
    let no_officer = AccountError::LastOf(Role::SecurityOfficer);
    let no_admin = AccountError::LastOf(Role::Administrator);
    assert_eq!(officer_account.suspend(&by_admin, last, wall), Err(no_officer));
    assert_eq!(admin_account.offboard(&by_officer, last, wall), Err(no_admin));
    assert_eq!(admin_account.change_roles(&by_officer, user, last), Err(no_admin));
    let more = roles(&[Role::Administrator, Role::User]);
    let other = Caller::sample(102, &[Role::Administrator], true);
    assert!(admin_account.change_roles(&Authority::Caller(&other), more, last).is_ok());
    assert!(admin_account.suspend(&by_officer, MANY, wall).is_ok());
}

#[test]
fn a_directory_holds_its_own_and_lifts_only_what_it_imposed() {
    let (admin, officer) = (admin(), officer());
    let (by_admin, wall) = (Authority::Caller(&admin), Timestamp(5));
    let issuer = Issuer::directory(IssuerId([1; 16]));
    let (here, elsewhere) = (Authority::Directory(issuer.id()), Authority::Directory(IssuerId([2; 16])));
    let user = active(1, &[Role::User]);
    assert_eq!(user.suspend(&here, MANY, wall), Err(AccountError::NotLinked));
    let linked = user.link(&by_admin, issuer.link(b"guid")).unwrap().record;
    assert_eq!(linked.link(&by_admin, issuer.link(b"other")), Err(AccountError::Links));
    assert_eq!(linked.suspend(&elsewhere, MANY, wall), Err(AccountError::NotLinked));
    let held = linked.suspend(&here, MANY, wall).unwrap();
    assert_eq!(held.effects, [Effect::EndSessions]);
    assert!(held.record.resume(&here).unwrap().record.is_active());
    // An administrator's hand is heavier than the sync's.
    let by_hand = linked.suspend(&Authority::Caller(&officer), MANY, wall).unwrap().record;
    assert_eq!(by_hand.resume(&here), Err(AccountError::SuspendedByOthers));
    assert!(by_hand.resume(&by_admin).is_ok());
    for permission in [
        linked.offboard(&here, MANY, wall).unwrap_err(),
        linked.change_roles(&here, roles(&[Role::Operator]), MANY).unwrap_err(),
        linked.link(&here, issuer.link(b"x")).unwrap_err(),
    ] {
        assert!(matches!(permission, AccountError::Forbidden(Forbidden::DirectoryMayNot(_))));
    }
    let unlinked = linked.unlink(&by_admin, issuer.id()).unwrap();
    assert_eq!((unlinked.record.links().len(), unlinked.effects), (0, vec![Effect::EndSessions]));
}

#[test]
fn who_leaves_is_gone() {
    let officer = officer();
    let by = Authority::Caller(&officer);
    let change = active(1, &[Role::User]).offboard(&by, MANY, Timestamp(5)).unwrap();
    assert_eq!(
        change.effects,
        [
            Effect::EndSessions,
            Effect::RevokeDevices(RevokeReason::AffiliationChanged),
            Effect::EraseCredentials
        ]
    );
    let gone = change.record;
    assert!(!gone.is_active());
    assert!(gone.resume(&by).is_err() && gone.suspend(&by, MANY, Timestamp(6)).is_err());
    assert!(gone.offboard(&by, MANY, Timestamp(6)).is_err());
    assert!(gone.change_roles(&Authority::Ceremony(Hash([1; 48])), roles(&[Role::User]), MANY).is_err());
    assert!(gone.recover(By::Ceremony(Hash([1; 48])), &code(), Timestamp(9)).is_err());
}

#[test]
fn a_recovery_takes_two_others() {
    let user = active(1, &[Role::User]);
    let (admin, officer, right) = (admin(), officer(), code());
    let request = |by: &Caller, record| Recovery::request(by, record, Timestamp(100), &mut fill_random);
    let approve = |request: &Recovery, by: &Caller, record: &AccountRecord, wall| {
        let end = Timestamp(wall + DAY);
        request.clone().approve(by, record, &right, Timestamp(wall), end)
    };
    let asked = request(&admin, &user).unwrap();
    assert_eq!(Recovery::parse(&asked.to_bytes()), Ok(asked.clone()));
    let change = approve(&asked, &officer, &user, 200).unwrap();
    assert_eq!(change.effects, [Effect::EndSessions, Effect::EraseCredentials]);
    assert!(matches!(change.record.status(), Status::Invited { recovery: true, .. }));
    assert!(change.record.accept(&right, Timestamp(300)).unwrap().record.is_active());
    // It is used up: the account has another epoch.
    assert_eq!(approve(&asked, &officer, &change.record, 201), Err(RecoveryError::Changed));

    // Neither half by the wrong role, by the account itself, or by one person.
    assert!(matches!(request(&officer, &user), Err(RecoveryError::Forbidden(_))));
    assert!(matches!(approve(&asked, &admin, &user, 200), Err(RecoveryError::Forbidden(_))));
    let admin_account = active(100, &[Role::Administrator]);
    assert_eq!(request(&admin, &admin_account), Err(RecoveryError::OwnAccount));
    let officer_account = active(101, &[Role::SecurityOfficer]);
    let of_officer = request(&admin, &officer_account).unwrap();
    assert_eq!(approve(&of_officer, &officer, &officer_account, 200), Err(RecoveryError::OwnAccount));
    let once_admin = Caller::sample(100, &[Role::SecurityOfficer], true);
    assert_eq!(approve(&asked, &once_admin, &user, 200), Err(RecoveryError::SamePerson));
    assert_eq!(approve(&asked, &officer, &active(2, &[Role::User]), 200), Err(RecoveryError::OtherAccount));
    for wall in [99, 101 + 72 * 3_600_000] {
        assert_eq!(approve(&asked, &officer, &user, wall), Err(RecoveryError::Expired));
    }
    // A suspension is not lifted in this way.
    let held = user.suspend(&Authority::Caller(&officer), MANY, Timestamp(50)).unwrap().record;
    let expected = AccountError::Status { got: "suspended", expected: "active or invited" };
    assert_eq!(request(&admin, &held), Err(RecoveryError::Account(expected)));
    let vouched = Caller::sample(101, &[Role::SecurityOfficer], false);
    assert!(matches!(approve(&asked, &vouched, &user, 200), Err(RecoveryError::Forbidden(_))));
}

proptest! {
    #[test]
    fn records_round_trip(n: u8, links in prop::collection::btree_set(any::<u8>(), 0..4), suspended: bool) {
        let admin = admin();
        let by = Authority::Caller(&admin);
        let mut record = active(n.clamp(0, 99), &[Role::User]);
        for link in links {
            record = record.link(&by, Issuer::directory(IssuerId([link; 16])).link(b"guid")).unwrap().record;
        }
        if suspended {
            record = record.suspend(&by, MANY, Timestamp(7)).unwrap().record;
        }
        prop_assert_eq!(AccountRecord::parse(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
        for bytes in [bytes, {
            let mut changed = active(1, &[Role::User]).to_bytes();
            let at = at.index(changed.len());
            changed[at] = to;
            changed
        }] {
            if let Ok(record) = AccountRecord::parse(&bytes) {
                prop_assert_eq!(record.to_bytes(), &*bytes);
            }
            if let Ok(recovery) = Recovery::parse(&bytes) {
                prop_assert_eq!(recovery.to_bytes(), &*bytes);
            }
        }
    }
}
