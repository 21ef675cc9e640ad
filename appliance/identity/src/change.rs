//! Changes of what an account signs in with.

use thiserror::Error;
use zixt_types::AccountId;

use crate::account::{AccountRecord, Change};
use crate::backup::BackupRecord;
use crate::credentials::Credentials;
use crate::password::PasswordRecord;
use crate::psk::PskRecord;
use crate::role::Permission;
use crate::session::{Actor, Forbidden};
use crate::totp::TotpRecord;
use crate::webauthn::WebAuthnCredential;

/// One change.
#[derive(Debug)]
pub enum CredentialChange {
    /// Sets, replaces or removes the password.
    Password(Option<PasswordRecord>),
    /// Sets, replaces or removes the authenticator app. A new one is confirmed before it takes the place of the old one.
    Totp(Option<TotpRecord>),
    /// Sets, replaces or removes the pre-shared key.
    Psk(Option<PskRecord>),
    /// Sets, replaces or removes the backup codes.
    Backup(Option<BackupRecord>),
    /// Adds a WebAuthn credential.
    AddWebAuthn(WebAuthnCredential),
    /// Removes the WebAuthn credential with this id.
    RemoveWebAuthn(Vec<u8>),
    /// Nothing but what every change does: the sources that the account knows are forgotten.
    ForgetSources,
}

/// Why credentials were not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// An authenticator app has to show a code before it counts.
    #[error("the authenticator app is not confirmed")]
    NotConfirmed,
    /// Too many WebAuthn credentials, or this one is there already.
    #[error("the account has too many WebAuthn credentials, or this one already")]
    WebAuthn,
    /// There is no such credential.
    #[error("the account has no such credential")]
    NoSuchCredential,
}

impl AccountRecord {
    /// Changes what the account signs in with. Only its owner does, from a recent sign-in with a proof of their own.
    /// All sessions end and all sources are forgotten, because one of them may be who the change is against; the
    /// session that made it goes on by [`crate::Sessions::rotate`].
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub fn change_credentials(
        &self,
        by: &Actor<'_>,
        credentials: &mut Credentials,
        change: CredentialChange,
    ) -> Result<Change, ChangeError> {
        if by.account() != self.id() {
            return Err(Forbidden::OtherAccount.into());
        }
        by.require(Permission::ManageOwnAccess)?;
        by.require_recent()?;
        apply(credentials, change)?;
        credentials.forget_sources();
        Ok(self.credentials_changed())
    }
}

/// What an accepted invitation gives: the right to set the account's credentials once, from nothing. Only
/// [`AccountRecord::accept`] makes one.
#[derive(Debug)]
pub struct Enrolment {
    account: AccountId,
}

impl Enrolment {
    pub(crate) const fn new(account: AccountId) -> Self {
        Self { account }
    }

    /// Whose credentials they are.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The account's credentials, with nothing of what was there before. Seal and store them in one step with the
    /// record.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn credentials(
        self,
        changes: impl IntoIterator<Item = CredentialChange>,
    ) -> Result<Credentials, ChangeError> {
        let mut credentials = Credentials::default();
        changes.into_iter().try_for_each(|change| apply(&mut credentials, change))?;
        Ok(credentials)
    }
}

fn apply(credentials: &mut Credentials, change: CredentialChange) -> Result<(), ChangeError> {
    match change {
        CredentialChange::Password(password) => credentials.set_password(password),
        CredentialChange::Totp(Some(totp)) if !totp.is_confirmed() => return Err(ChangeError::NotConfirmed),
        CredentialChange::Totp(totp) => credentials.set_totp(totp),
        CredentialChange::Psk(psk) => credentials.set_psk(psk),
        CredentialChange::Backup(backup) => credentials.set_backup(backup),
        CredentialChange::AddWebAuthn(credential) => {
            if !credentials.add_webauthn(credential) {
                return Err(ChangeError::WebAuthn);
            }
        }
        CredentialChange::RemoveWebAuthn(id) => {
            if !credentials.remove_webauthn(&id) {
                return Err(ChangeError::NoSuchCredential);
            }
        }
        CredentialChange::ForgetSources => {}
    }
    Ok(())
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
