use super::*;
use crate::place::HeldSource;
use crate::policy::{Policy, PolicyDocument};
use crate::sample::{MANY, Someone};
use crate::session::RECENT_MS;
use crate::totp;
use zixt_crypto::fill_random;
use zixt_types::Role;
use zixt_types::Timestamp;

fn known() -> Credentials {
    let mut credentials = Credentials::default();
    credentials.remember(HeldSource::browser(&[5; 32]), Timestamp(1));
    credentials
}

#[test]
fn only_the_owner_changes_credentials_and_only_after_a_recent_sign_in() {
    let owner = Someone::new(1, &[Role::User]);
    let admin = Someone::new(2, &[Role::Administrator]);
    let vouched = Someone::vouched(1, &[Role::User]);
    let try_as = |who: &Someone, wall| {
        let mut credentials = known();
        let change = CredentialChange::Password(None);
        let changed = owner.record.change_credentials(&who.actor_at(wall), &mut credentials, change);
        // Nothing has changed if it was refused; and no source is known after a change.
        assert_eq!(credentials.knows(&HeldSource::browser(&[5; 32])), changed.is_err());
        changed
    };
    assert_eq!(try_as(&admin, 10), Err(ChangeError::Forbidden(Forbidden::OtherAccount)));
    let needs_more = Forbidden::VouchedOnly(Permission::ManageOwnAccess);
    assert_eq!(try_as(&vouched, 10), Err(ChangeError::Forbidden(needs_more)));
    assert_eq!(try_as(&owner, RECENT_MS + 1), Err(ChangeError::Forbidden(Forbidden::NotRecent)));
    let change = try_as(&owner, RECENT_MS).unwrap();
    assert_eq!(change.record.epoch(), owner.record.epoch() + 1);
    let held = owner.record.suspend(&admin.by(), MANY, Timestamp(5)).unwrap().record;
    assert!(owner.caller.acting(&held, Timestamp(5)).is_err());
}

#[test]
fn an_authenticator_app_takes_the_place_of_another_when_it_is_confirmed() {
    let owner = Someone::new(1, &[Role::User]);
    let policy = Policy::new(PolicyDocument::default()).unwrap();
    let mut credentials = known();
    let old = totp::tests::enrolled(&mut fill_random);
    credentials.set_totp(Some(old.clone()));
    let fresh = TotpRecord::enrol(&policy, &mut fill_random).unwrap();
    let change = CredentialChange::Totp(Some(fresh));
    let changed = owner.record.change_credentials(&owner.actor(), &mut credentials, change);
    assert_eq!(changed, Err(ChangeError::NotConfirmed));
    assert_eq!(credentials.totp(), Some(&old));
}
