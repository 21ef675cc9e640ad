//! Sign-ins that wait for their browser to come back from the provider.

use std::collections::HashMap;
use std::fmt;
use thiserror::Error;
use zixt_crypto::{hash, labels};
use zixt_identity::LoginId;
use zixt_types::{Hash, Timestamp};

/// How long a browser may be away, in milliseconds: long enough for a person to find a second factor.
pub const PENDING_MS: u64 = 10 * 60 * 1000;
/// Sign-ins that wait at once, for one provider. Beyond that new ones are refused; waiting ones are not pushed out.
pub const PENDING_MAX: usize = 10_000;

/// The hash of the secret that a browser got as a cookie when its sign-in began: whoever sends a stolen answer of the
/// provider has not got it.
///
/// The cookie is `__Host-`, `HttpOnly` and `Secure`. `SameSite=Lax` does for OpenID Connect, whose callback is a
/// navigation; SAML's answer is a form that another site posts, and a browser sends only a cookie with `SameSite=None`
/// along with that.
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

/// What waits.
pub trait Waits {
    /// The secret by which the answer names it.
    fn handle(&self) -> &str;
    /// The sign-in.
    fn login(&self) -> LoginId;
    /// When it began.
    fn begun_at(&self) -> Timestamp;
    /// Whether it has waited for longer than [`PENDING_MS`]; also if the clock was set back beyond its beginning,
    /// because nobody can say how long it has waited then.
    fn ended(&self, now: Timestamp) -> bool {
        now.0.checked_sub(self.begun_at().0).is_none_or(|waited| waited > PENDING_MS)
    }
}

/// No further sign-in can wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{PENDING_MAX} sign-ins wait for the identity provider already")]
pub struct Crowded;

/// All that wait for one provider. Each is given out once.
#[derive(Debug)]
pub struct Waiting<P>(HashMap<Hash, P>);

impl<P> Default for Waiting<P> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<P: Waits> Waiting<P> {
    /// Keeps one.
    ///
    /// # Errors
    /// [`Crowded`]
    pub fn keep(&mut self, pending: P, now: Timestamp) -> Result<(), Crowded> {
        if self.0.len() >= PENDING_MAX {
            self.0.retain(|_, pending| !pending.ended(now));
        }
        if self.0.len() >= PENDING_MAX {
            return Err(Crowded);
        }
        self.0.insert(name(pending.handle()), pending);
        Ok(())
    }

    /// The one that an answer names ([`crate::oidc::Callback::state`], or SAML's `RelayState`), once: a second answer
    /// with the same name finds nothing.
    pub fn take(&mut self, handle: Option<&str>) -> Option<P> {
        self.0.remove(&name(handle?))
    }

    /// Forgets one whose sign-in was given up.
    pub fn forget(&mut self, login: LoginId) {
        self.0.retain(|_, pending| pending.login() != login);
    }
}

/// By its hash, so that a look-up tells nothing about the names that wait.
fn name(handle: &str) -> Hash {
    hash::sha384(labels::SSO_REPLAY, &[b"handle", handle.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(String, LoginId, u64);

    impl Waits for One {
        fn handle(&self) -> &str {
            &self.0
        }

        fn login(&self) -> LoginId {
            self.1
        }

        fn begun_at(&self) -> Timestamp {
            Timestamp(self.2)
        }
    }

    fn one(n: usize, begun: u64) -> One {
        One(n.to_string(), LoginId([u8::try_from(n % 256).unwrap(); 16]), begun)
    }

    #[test]
    fn each_is_given_out_once() {
        let mut waiting = Waiting::default();
        waiting.keep(one(1, 0), Timestamp(0)).unwrap();
        waiting.keep(one(2, 0), Timestamp(0)).unwrap();
        assert!(waiting.take(None).is_none() && waiting.take(Some("3")).is_none());
        assert!(waiting.take(Some("1")).is_some());
        assert!(waiting.take(Some("1")).is_none());
        waiting.forget(LoginId([2; 16]));
        assert!(waiting.take(Some("2")).is_none());
    }

    #[test]
    fn a_flood_pushes_nobody_out() {
        let mut waiting = Waiting::default();
        for n in 0..PENDING_MAX {
            waiting.keep(one(n, 0), Timestamp(0)).unwrap();
        }
        assert_eq!(waiting.keep(one(PENDING_MAX, 1), Timestamp(1)), Err(Crowded));
        assert_eq!(waiting.keep(one(PENDING_MAX, 1), Timestamp(PENDING_MS)), Err(Crowded));
        assert!(waiting.take(Some("0")).is_some());
        waiting.keep(one(0, 1), Timestamp(1)).unwrap();
        // Those that have ended make room.
        assert_eq!(waiting.keep(one(PENDING_MAX, 1), Timestamp(PENDING_MS + 1)), Ok(()));
        assert_eq!(waiting.0.len(), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_ends_what_waits() {
        let pending = one(1, 1000);
        assert!(!pending.ended(Timestamp(1000)) && !pending.ended(Timestamp(1000 + PENDING_MS)));
        assert!(pending.ended(Timestamp(999)) && pending.ended(Timestamp(1001 + PENDING_MS)));
    }
}
