//! One sign-in at an OpenID provider that waits for its callback.

use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use zeroize::Zeroizing;
use zixt_identity::LoginId;
use zixt_types::Timestamp;

use crate::waiting::{Browser, Waits};

/// One sign-in that waits. Not `Clone`: [`super::Provider::finish`] uses it up, whatever comes of it.
pub struct Pending {
    pub(crate) login: LoginId,
    pub(crate) browser: Browser,
    pub(crate) state: SecretString,
    pub(crate) nonce: SecretString,
    pub(crate) verifier: Zeroizing<String>,
    pub(crate) begun_at: Timestamp,
}

impl Waits for Pending {
    fn handle(&self) -> &str {
        self.state.expose_secret()
    }

    fn login(&self) -> LoginId {
        self.login
    }

    fn begun_at(&self) -> Timestamp {
        self.begun_at
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("login", &self.login).finish_non_exhaustive()
    }
}
