//! Sign-ins that wait for their browser to come back from the provider.

use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::{hash, labels};
use zixt_identity::LoginId;
use zixt_types::{Hash, Timestamp};

/// How long a browser may be away, in milliseconds: long enough for a person to find a second factor.
pub const PENDING_MS: u64 = 10 * 60 * 1000;
/// Sign-ins that wait at once, for one provider. Beyond that new ones are refused; waiting ones are not pushed out.
pub const PENDING_MAX: usize = 10_000;

/// The hash of the secret that a browser got as a cookie (`__Host-`, `HttpOnly`, `Secure`, `SameSite=Lax`) when its
/// sign-in began: whoever sends a stolen callback has not got it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Browser(Hash);

impl Browser {
    /// The browser that holds this secret of 32 random bytes.
    #[must_use]
    pub fn of(cookie_secret: &[u8; 32]) -> Self {
        Self(hash::sha384(labels::SSO_BROWSER, &[cookie_secret]))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        hash::constant_time_eq(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Browser(..)")
    }
}

/// One sign-in that waits. Not `Clone`: [`super::Provider::finish`] uses it up, whatever comes of it.
pub struct Pending {
    pub(crate) login: LoginId,
    pub(crate) browser: Browser,
    pub(crate) state: SecretString,
    pub(crate) nonce: SecretString,
    pub(crate) verifier: Zeroizing<String>,
    pub(crate) begun_at: Timestamp,
}

impl Pending {
    pub(crate) fn ended(&self, now: Timestamp) -> bool {
        // Also if the clock was set back beyond its beginning: nobody can say how long it has waited then.
        now < self.begun_at || now.0 - self.begun_at.0 > PENDING_MS
    }

    /// The sign-in.
    #[must_use]
    pub fn login(&self) -> LoginId {
        self.login
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("login", &self.login).finish_non_exhaustive()
    }
}

/// No further sign-in can wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{PENDING_MAX} sign-ins wait for the identity provider already")]
pub struct Crowded;

/// All that wait for one provider, found by the `state` of the callback. Each is given out once.
#[derive(Debug, Default)]
pub struct Waiting(HashMap<Hash, Pending>);

impl Waiting {
    /// Keeps one.
    ///
    /// # Errors
    /// [`Crowded`]
    pub fn keep(&mut self, pending: Pending, now: Timestamp) -> Result<(), Crowded> {
        if self.0.len() >= PENDING_MAX {
            self.0.retain(|_, pending| !pending.ended(now));
        }
        if self.0.len() >= PENDING_MAX {
            return Err(Crowded);
        }
        self.0.insert(name(pending.state.expose_secret()), pending);
        Ok(())
    }

    /// The one that a callback is for, once: a second callback with the same state finds nothing.
    pub fn take(&mut self, callback: &super::Callback) -> Option<Pending> {
        self.0.remove(&name(callback.state()?))
    }

    /// Forgets one whose sign-in was given up.
    pub fn forget(&mut self, login: LoginId) {
        self.0.retain(|_, pending| pending.login != login);
    }
}

/// By its hash, so that a look-up tells nothing about the states that wait.
fn name(state: &str) -> Hash {
    hash::sha384(labels::SSO_REPLAY, &[b"state", state.as_bytes()])
}
