use super::*;
use crate::recovery::{Recovery, RecoveryError};
use crate::sample::{MANY, Someone, active, both, ceremony};
use crate::voucher::Issuer;
use proptest::prelude::*;
use zixt_crypto::fill_random;

const DAY: u64 = 86_400_000;

fn roles(roles: &[Role]) -> Roles {
    Roles::new(roles).unwrap()
}

fn code() -> InvitationCode {
    InvitationCode::generate(&mut fill_random).unwrap()
}

fn admin() -> Someone {
    Someone::new(100, &[Role::Administrator])
}

fn officer() -> Someone {
    Someone::new(101, &[Role::SecurityOfficer])
}

#[test]
fn an_invitation_is_for_one_account_once_and_for_a_time() {
    let (admin, right) = (admin(), code());
    let by = admin.by();
    let id = AccountId([1; 16]);
    let invite = |expires| AccountRecord::invite(&by, id, roles(&[Role::User]), &right, both(10), expires);
    for wrong in [10, 9, 10 + 32 * DAY] {
        assert_eq!(invite(Timestamp(wrong)), Err(AccountError::Lifetime));
    }
    let invited = invite(Timestamp(10 + DAY)).unwrap();
    assert!(!invited.is_active());
    assert_eq!(invited.accept(&code(), both(11)).err(), Some(AccountError::WrongCode));
    assert_eq!(invited.accept(&right, both(11 + DAY)).err(), Some(AccountError::Expired));
    let typed = InvitationCode::parse(&right.to_text().to_lowercase()).unwrap();
    let change = invited.accept(&typed, both(11)).unwrap().change;
    assert_eq!(change.effects, [Effect::EndSessions, Effect::EraseCredentials]);
    let accepted = change.record;
    assert!(accepted.is_active());
    let again = accepted.accept(&right, both(12)).err();
    assert_eq!(again, Some(AccountError::Status { got: "active", expected: "invited" }));
    // Another account's code is another code, even if the digits were the same.
    assert_ne!(right.hash(id), right.hash(AccountId([2; 16])));
}

#[test]
fn a_clock_that_is_set_back_revives_nothing() {
    let (admin, officer, right) = (admin(), officer(), code());
    let (id, user) = (AccountId([1; 16]), roles(&[Role::User]));
    let invited =
        AccountRecord::invite(&admin.by(), id, user, &right, both(10), Timestamp(10 + DAY)).unwrap();
    let back = |ledger| Now { wall: Timestamp(11), ledger: Timestamp(ledger) };
    assert!(invited.accept(&right, back(10 + DAY)).is_ok());
    assert_eq!(invited.accept(&right, back(11 + DAY)).err(), Some(AccountError::Expired));
    let record = active(1, &[Role::User]);
    let asked = Recovery::request(&admin.actor(), &record, both(10), &mut fill_random).unwrap();
    let approve = |now| {
        asked.clone().approve(&officer.actor(), &admin.record, &record, &right, now, Timestamp(DAY)).err()
    };
    assert_eq!(approve(back(10 + 72 * 3_600_000)), None);
    assert_eq!(approve(back(11 + 72 * 3_600_000)), Some(RecoveryError::Expired));
    assert_eq!(approve(back(9)), Some(RecoveryError::Expired));
}

#[test]
fn privileged_roles_take_an_officer_and_what_could_take_over_a_ceremony() {
    let (admin, officer, code) = (admin(), officer(), code());
    let invite = |by: &Authority<'_>, of: &[Role]| {
        AccountRecord::invite(by, AccountId([1; 16]), roles(of), &code, both(0), Timestamp(DAY))
    };
    let needs_ceremony = AccountError::Forbidden(Forbidden::NeedsCeremony);
    for role in [Role::SecurityOfficer, Role::Administrator, Role::Auditor] {
        let forbidden = Forbidden::Role(Permission::ChangePrivilegedRoles);
        assert_eq!(invite(&admin.by(), &[role]), Err(AccountError::Forbidden(forbidden)));
        assert!(invite(&ceremony(), &[role]).is_ok());
        let alone = invite(&officer.by(), &[role]);
        if role == Role::Auditor {
            assert!(alone.is_ok());
        } else {
            assert_eq!(alone, Err(needs_ceremony));
        }
    }
    assert!(invite(&admin.by(), &[Role::Operator, Role::User]).is_ok());
    assert!(invite(&officer.by(), &[Role::User]).is_err());
    let user = active(1, &[Role::User]);
    for more in [&[Role::User, Role::Administrator], &[Role::User, Role::SecurityOfficer]] {
        assert!(user.change_roles(&admin.by(), roles(more), MANY).is_err());
        assert_eq!(user.change_roles(&officer.by(), roles(more), MANY), Err(needs_ceremony));
        let change = user.change_roles(&ceremony(), roles(more), MANY).unwrap();
        assert_eq!((change.effects, change.record.epoch()), (vec![Effect::EndSessions], user.epoch() + 1));
        // Down is as privileged as up.
        assert!(change.record.change_roles(&admin.by(), roles(&[Role::User]), MANY).is_err());
        let down = change.record.change_roles(&officer.by(), roles(&[Role::User]), MANY);
        assert_eq!(down.is_ok(), more[1] == Role::Administrator);
    }
    // A session on an identity provider's word alone does none of this.
    let vouched = Someone::vouched(100, &[Role::Administrator]);
    let forbidden = Forbidden::VouchedOnly(Permission::InviteAccounts);
    assert_eq!(invite(&vouched.by(), &[Role::User]), Err(AccountError::Forbidden(forbidden)));
}

/// Whatever one person can make of their own account, by inviting others in their own hands and changing their roles,
/// they never hold both halves of a recovery.
#[test]
fn one_person_does_not_become_two() {
    let every: Vec<_> = (1..1u8 << Role::ALL.len())
        .filter_map(|bits| {
            let of: Vec<_> = Role::ALL.into_iter().filter(|role| bits >> *role as u8 & 1 == 1).collect();
            Roles::new(&of).is_ok().then_some(of)
        })
        .collect();
    for start in &every {
        let mut mine = vec![start.clone()];
        let mut at = 0;
        while at < mine.len() {
            let one = Someone::new(100, &mine[at]);
            at += 1;
            for next in &every {
                let (id, next_roles, code) = (AccountId([1; 16]), roles(next), code());
                let invited =
                    AccountRecord::invite(&one.by(), id, next_roles, &code, both(0), Timestamp(DAY));
                let changed =
                    mine.iter().any(|of| active(1, of).change_roles(&one.by(), next_roles, MANY).is_ok());
                if (invited.is_ok() || changed) && !mine.contains(next) {
                    mine.push(next.clone());
                }
            }
        }
        let may = |permission| mine.iter().any(|of| roles(of).may(permission));
        assert!(!(may(Permission::RequestRecovery) && may(Permission::ApproveRecovery)), "{start:?}");
    }
}

#[test]
fn an_account_in_use_is_linked_by_its_owner() {
    let (admin, officer) = (admin(), officer());
    let issuer = Issuer::sso(IssuerId([1; 16]));
    let (link, victim) = (issuer.link(b"me"), Someone::new(1, &[Role::User]));
    for by in [admin.by(), officer.by(), Authority::Directory(issuer.id())] {
        assert!(victim.record.link(&by, link).is_err());
    }
    assert_eq!(victim.record.link(&admin.by(), link), Err(AccountError::LinkNeedsOwner));
    let linked = victim.record.link(&victim.by(), link).unwrap();
    assert_eq!(linked.effects, [Effect::EndSessions]);
    let vouched = Someone::vouched(1, &[Role::User]);
    assert!(vouched.record.link(&vouched.by(), link).is_err());
    let late = Authority::Caller(victim.actor_at(crate::session::RECENT_MS + 1));
    let not_recent = Err(AccountError::Forbidden(Forbidden::NotRecent));
    assert_eq!(victim.record.link(&late, link), not_recent);
    // Who has not come yet is linked by an administrator, unless they have been here before.
    let code = code();
    let user = roles(&[Role::User]);
    let invited =
        AccountRecord::invite(&admin.by(), AccountId([2; 16]), user, &code, both(0), Timestamp(DAY));
    assert!(invited.unwrap().link(&admin.by(), link).is_ok());
    let lost = linked
        .record
        .recover(By::Ceremony(Hash([1; 48])), &code, Lifetime::until(both(0), Timestamp(DAY)).unwrap())
        .unwrap()
        .record;
    assert_eq!(lost.link(&admin.by(), link), Err(AccountError::LinkNeedsOwner));
    let gone = linked.record.offboard(&admin.by(), MANY, Timestamp(5)).unwrap().record;
    assert!(gone.link(&ceremony(), link).is_err() && gone.unlink(&admin.by(), link.issuer).is_err());
}

#[test]
fn nobody_removes_alone_who_would_have_to_agree_or_to_see_it() {
    let (admin, officer) = (admin(), officer());
    let wall = Timestamp(5);
    let needs_officer = AccountError::Forbidden(Forbidden::Role(Permission::ChangePrivilegedRoles));
    for role in [Role::SecurityOfficer, Role::Administrator, Role::Auditor] {
        let other = active(1, &[role]);
        assert_eq!(other.offboard(&admin.by(), MANY, wall), Err(needs_officer), "{role}");
        let by_officer = other.offboard(&officer.by(), MANY, wall);
        assert_eq!(by_officer.is_ok(), role != Role::SecurityOfficer, "{role}");
        assert!(other.offboard(&ceremony(), MANY, wall).is_ok(), "{role}");
    }
    let last = Population { auditors: 1, ..MANY };
    let auditor = active(1, &[Role::Auditor]);
    assert_eq!(auditor.suspend(&admin.by(), last, wall), Err(AccountError::LastOf(Role::Auditor)));
    let held = active(1, &[Role::User]).suspend(&ceremony(), MANY, wall).unwrap().record;
    for by in [admin.by(), officer.by()] {
        assert_eq!(held.resume(&by), Err(AccountError::SuspendedByOthers));
    }
    assert!(held.resume(&ceremony()).is_ok());
}

#[test]
fn people_take_a_directorys_hold_over() {
    let officer = officer();
    let (wall, issuer) = (Timestamp(5), Issuer::directory(IssuerId([1; 16])));
    let (here, there) = (Authority::Directory(issuer.id()), Authority::Directory(IssuerId([2; 16])));
    let linked = active(1, &[Role::User]).link(&ceremony(), issuer.link(b"guid")).unwrap().record;
    let linked = linked.link(&ceremony(), Issuer::directory(IssuerId([2; 16])).link(b"x")).unwrap().record;
    let held = linked.suspend(&here, MANY, wall).unwrap().record;
    assert!(held.suspend(&there, MANY, wall).is_err());
    let taken = held.suspend(&officer.by(), MANY, Timestamp(6)).unwrap().record;
    assert_eq!(taken.resume(&here), Err(AccountError::SuspendedByOthers));
    assert!(taken.resume(&officer.by()).unwrap().record.is_active());
}

#[test]
fn nobody_acts_on_themselves_and_the_last_one_stays() {
    let officer_account = active(101, &[Role::SecurityOfficer]);
    let admin_account = active(100, &[Role::Administrator]);
    let (admin, officer) = (admin(), officer());
    let (by_admin, by_officer) = (admin.by(), officer.by());
    let wall = Timestamp(5);
    assert_eq!(admin_account.suspend(&by_admin, MANY, wall), Err(AccountError::OwnAccount));
    assert_eq!(officer_account.offboard(&by_officer, MANY, wall), Err(AccountError::OwnAccount));
    let user = roles(&[Role::User]);
    assert_eq!(officer_account.change_roles(&by_officer, user, MANY), Err(AccountError::OwnAccount));
    let last = Population { officers: 1, administrators: 1, auditors: 1 };
    let no_officer = AccountError::LastOf(Role::SecurityOfficer);
    let no_admin = AccountError::LastOf(Role::Administrator);
    assert_eq!(officer_account.suspend(&by_admin, last, wall), Err(no_officer));
    assert_eq!(admin_account.offboard(&by_officer, last, wall), Err(no_admin));
    assert_eq!(admin_account.change_roles(&by_officer, user, last), Err(no_admin));
    let more = roles(&[Role::Administrator, Role::User]);
    let other = Someone::new(102, &[Role::Administrator]);
    assert!(admin_account.change_roles(&other.by(), more, last).is_ok());
    assert!(admin_account.suspend(&by_officer, MANY, wall).is_ok());
}

#[test]
fn a_directory_holds_its_own_and_lifts_only_what_it_imposed() {
    let (admin, officer) = (admin(), officer());
    let (by_admin, wall) = (admin.by(), Timestamp(5));
    let issuer = Issuer::directory(IssuerId([1; 16]));
    let (here, elsewhere) = (Authority::Directory(issuer.id()), Authority::Directory(IssuerId([2; 16])));
    let user = active(1, &[Role::User]);
    assert_eq!(user.suspend(&here, MANY, wall), Err(AccountError::NotLinked));
    let linked = user.link(&ceremony(), issuer.link(b"guid")).unwrap().record;
    assert_eq!(linked.link(&ceremony(), issuer.link(b"other")), Err(AccountError::Links));
    assert_eq!(linked.suspend(&elsewhere, MANY, wall), Err(AccountError::NotLinked));
    let held = linked.suspend(&here, MANY, wall).unwrap();
    assert_eq!(held.effects, [Effect::EndSessions]);
    assert!(held.record.resume(&here).unwrap().record.is_active());
    // An administrator's hand is heavier than the sync's.
    let by_hand = linked.suspend(&officer.by(), MANY, wall).unwrap().record;
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
    let by = officer.by();
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
    assert!(gone.change_roles(&ceremony(), roles(&[Role::User]), MANY).is_err());
    assert!(
        gone.recover(By::Ceremony(Hash([1; 48])), &code(), Lifetime::until(both(0), Timestamp(9)).unwrap())
            .is_err()
    );
}

#[test]
fn a_recovery_takes_two_others() {
    let user = active(1, &[Role::User]);
    let issuer = Issuer::sso(IssuerId([1; 16]));
    let user = user.link(&ceremony(), issuer.link(b"guid")).unwrap().record;
    let (admin, officer, right) = (admin(), officer(), code());
    let request = |by: &Someone, record| Recovery::request(&by.actor(), record, both(100), &mut fill_random);
    let approve = |request: &Recovery, by: &Someone, record: &AccountRecord, wall| {
        let end = Timestamp(wall + DAY);
        request.clone().approve(&by.actor(), &admin.record, record, &right, both(wall), end)
    };
    let asked = request(&admin, &user).unwrap();
    assert_eq!(Recovery::parse_secret(&asked.to_secret_bytes()), Ok(asked.clone()));
    let change = approve(&asked, &officer, &user, 200).unwrap();
    // Nothing of what could have signed in before does so after.
    let revoke = Effect::RevokeDevices(RevokeReason::KeyCompromise);
    assert_eq!(change.effects, [Effect::EndSessions, Effect::EraseCredentials, revoke]);
    assert_eq!((user.links().len(), change.record.links()), (1, &[][..]));
    assert!(matches!(change.record.status(), Status::Invited { recovery: true, .. }));
    let accepted = change.record.accept(&right, both(300)).unwrap();
    assert!(accepted.change.record.is_active());
    assert_eq!(accepted.change.effects, [Effect::EndSessions, Effect::EraseCredentials]);
    assert!(accepted.enrolment.credentials([]).unwrap().enrolled().is_empty());
    // Who asked may no longer ask.
    let held = admin.record.suspend(&ceremony(), MANY, Timestamp(50)).unwrap().record;
    let user_now = admin.record.change_roles(&ceremony(), roles(&[Role::User]), MANY).unwrap().record;
    for requester in [&held, &user_now, &active(102, &[Role::Administrator])] {
        let late =
            asked.clone().approve(&officer.actor(), requester, &user, &right, both(200), Timestamp(DAY));
        assert_eq!(late, Err(RecoveryError::Requester));
    }
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
    let once_admin = Someone::new(100, &[Role::SecurityOfficer]);
    assert_eq!(approve(&asked, &once_admin, &user, 200), Err(RecoveryError::SamePerson));
    assert_eq!(approve(&asked, &officer, &active(2, &[Role::User]), 200), Err(RecoveryError::OtherAccount));
    for wall in [99, 101 + 72 * 3_600_000] {
        assert_eq!(approve(&asked, &officer, &user, wall), Err(RecoveryError::Expired));
    }
    // A suspension is not lifted in this way.
    let held = user.suspend(&officer.by(), MANY, Timestamp(50)).unwrap().record;
    let expected = AccountError::Status { got: "suspended", expected: "active or invited" };
    assert_eq!(request(&admin, &held), Err(RecoveryError::Account(expected)));
    let vouched = Someone::vouched(101, &[Role::SecurityOfficer]);
    assert!(matches!(approve(&asked, &vouched, &user, 200), Err(RecoveryError::Forbidden(_))));
}

proptest! {
    #[test]
    fn records_round_trip(n: u8, links in prop::collection::btree_set(any::<u8>(), 0..4), suspended: bool) {
        let admin = admin();
        let by = admin.by();
        let mut record = active(n.clamp(0, 99), &[Role::User]);
        for link in links {
            record = record.link(&ceremony(), Issuer::directory(IssuerId([link; 16])).link(b"guid")).unwrap().record;
        }
        if suspended {
            record = record.suspend(&by, MANY, Timestamp(7)).unwrap().record;
        }
        prop_assert_eq!(AccountRecord::parse_secret(&record.to_secret_bytes()), Ok(record));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
        for bytes in [bytes, {
            let mut changed = active(1, &[Role::User]).to_secret_bytes().to_vec();
            let at = at.index(changed.len());
            changed[at] = to;
            changed
        }] {
            if let Ok(record) = AccountRecord::parse_secret(&bytes) {
                prop_assert_eq!(&*record.to_secret_bytes(), &bytes);
            }
            if let Ok(recovery) = Recovery::parse_secret(&bytes) {
                prop_assert_eq!(&*recovery.to_secret_bytes(), &bytes);
            }
        }
    }
}

#[test]
fn groups_of_a_directory_make_users_and_operators_and_nobody_else() {
    let issuer = IssuerId([1; 16]);
    let link = Issuer::directory(issuer).link(b"guid");
    let both = Roles::new(&[Role::User, Role::Operator]).unwrap();
    let ada = AccountRecord::of_the_ledger_linked(AccountId([1; 16]), link);
    let change = ada.map_roles(issuer, both).unwrap().unwrap();
    assert_eq!((change.record.roles(), change.record.epoch()), (both, ada.epoch() + 1));
    assert_eq!(change.effects, [Effect::EndSessions]);
    assert_eq!(change.record.map_roles(issuer, both), Ok(None));
    // Not by others, not to more, and of nobody who has more.
    assert_eq!(ada.map_roles(IssuerId([2; 16]), both), Err(AccountError::NotLinked));
    for role in [Role::SecurityOfficer, Role::Administrator, Role::Auditor, Role::Service] {
        let roles = Roles::new(&[role]).unwrap();
        assert!(matches!(ada.map_roles(issuer, roles), Err(AccountError::Forbidden(_))), "{role}");
        let mut other = ada.clone();
        other.roles = roles;
        assert_eq!(other.map_roles(issuer, both), Ok(None), "{role}");
    }
}
