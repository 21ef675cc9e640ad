//! The word of an identity provider that was verified: the only thing that comes out of this crate's checks.

use secrecy::SecretString;
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;
use zixt_identity::{Admitted, Issuer, Link, LoginId, Role, Voucher};
use zixt_types::Timestamp;

/// What was verified about a person who signs in. Only [`crate::oidc::Provider::finish`] and
/// [`crate::saml::ServiceProvider::finish`] make one, for one sign-in; it is used up when it becomes a voucher.
///
/// It gives *access*. There is no key in it and nothing that could become one: devices and keys come by the ledger,
/// vaults open by their owner's passphrase.
pub struct Assertion {
    pub(crate) login: LoginId,
    pub(crate) unchanging_id: Vec<u8>,
    pub(crate) session: Option<String>,
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) authenticated_at: Option<Timestamp>,
    pub(crate) hint: Option<SecretString>,
}

/// The assertion is about another sign-in than the attempt that was admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the identity provider's word is for another sign-in")]
pub struct OtherLogin;

impl Assertion {
    /// Becomes the voucher that [`zixt_identity::Login::examine`] takes as [`zixt_identity::Proof::Voucher`].
    ///
    /// # Errors
    /// [`OtherLogin`]; then it is refused with [`Issuer::refuse`].
    pub fn vouch(
        &self,
        issuer: &Issuer,
        admitted: &Admitted,
        wall: Timestamp,
    ) -> Result<Voucher, OtherLogin> {
        if admitted.login() != self.login {
            return Err(OtherLogin);
        }
        Ok(issuer.vouch(admitted, &self.unchanging_id, wall))
    }

    /// The sign-in that it is for.
    #[must_use]
    pub fn login(&self) -> LoginId {
        self.login
    }

    /// The id that never changes at the provider: `sub` (OpenID Connect), or what the SAML configuration says.
    #[must_use]
    pub fn unchanging_id(&self) -> &[u8] {
        &self.unchanging_id
    }

    /// The link by which the account is found.
    #[must_use]
    pub fn link(&self, issuer: &Issuer) -> Link {
        issuer.link(&self.unchanging_id)
    }

    /// The provider's name of its session (`sid`, `SessionIndex`), by which it ends it later. To be kept beside the
    /// session that is opened.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The roles that the provider asks for. They widen nothing: an account has the roles of its record, and this may
    /// narrow them for a session, or be shown to whoever decides about the account.
    #[must_use]
    pub fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }

    /// When the person proved to the provider who they are, if it says so.
    #[must_use]
    pub fn authenticated_at(&self) -> Option<Timestamp> {
        self.authenticated_at
    }

    /// What the provider wants to see at a log-out that starts here (`id_token_hint`). It names the person: keep it
    /// sealed, or not at all.
    #[must_use]
    pub fn hint(&self) -> Option<&SecretString> {
        self.hint.as_ref()
    }
}

impl fmt::Debug for Assertion {
    /// Without the person and the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion")
            .field("login", &self.login)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}
