//! WebAuthn as a factor (Web Authentication level 2). The assertion is verified by a module of the caller; this crate
//! demands that it is about this sign-in and about a credential of this account, and that its counter goes forward.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_types::{Timestamp, limits};

use crate::challenge::Challenge;

/// Verifies assertions: the server's module.
pub trait WebAuthnVerifier {
    /// Checks an assertion (section 7.2) against what was kept of the credential, the relying party's id and origin,
    /// and the challenge: `challenge.nonce`, or one that the verifier drew for `challenge.login`. User verification
    /// is required.
    ///
    /// # Errors
    /// [`WebAuthnError`]
    fn verify(
        &self,
        challenge: &Challenge,
        credential: &WebAuthnCredential,
        assertion: &[u8],
    ) -> Result<WebAuthnVerdict, WebAuthnError>;
}

/// What a good assertion says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WebAuthnVerdict {
    /// The authenticator's signature counter; 0 if it has none.
    pub sign_count: u32,
}

/// Why an assertion was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WebAuthnError {
    /// Not an assertion, or not about this challenge, origin or credential. The verifier's word for what is wrong with
    /// it, for the audit record.
    #[error("the assertion does not verify: {0}")]
    Rejected(&'static str),
    /// The authenticator did not verify its user.
    #[error("the authenticator did not verify its user")]
    UserNotVerified,
    /// There is no such credential in the account.
    #[error("the credential is not one of the account")]
    UnknownCredential,
    /// The counter did not go forward: the authenticator may have been copied (section 6.1.1).
    #[error("the authenticator's counter went back: it may be a copy")]
    CounterWentBack,
    /// Longer than any assertion.
    #[error("the assertion is too long")]
    TooLong,
}

/// A credential of an account.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct WebAuthnCredential {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    state: Vec<u8>,
    #[n(2)]
    sign_count: u32,
    #[n(3)]
    name: String,
    #[n(4)]
    created_at: Timestamp,
    #[n(5)]
    last_used_at: Option<Timestamp>,
}

impl WebAuthnCredential {
    /// A credential that the verifier has registered, with what it wants kept, and the name by which its owner knows
    /// it. `created_at` is by the wall clock. `None` if it is larger than any, or if the name is none: 1 to 64 bytes
    /// without control characters.
    #[must_use]
    pub fn new(id: &[u8], state: &[u8], sign_count: u32, name: &str, created_at: Timestamp) -> Option<Self> {
        let (id, state, name) = (id.to_vec(), state.to_vec(), name.to_owned());
        let credential = Self { id, state, sign_count, name, created_at, last_used_at: None };
        credential.check().ok().map(|()| credential)
    }

    /// What its owner calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was registered, by the wall clock.
    #[must_use]
    pub const fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When it was last taken for a sign-in, by the wall clock.
    #[must_use]
    pub const fn last_used_at(&self) -> Option<Timestamp> {
        self.last_used_at
    }

    /// The authenticator's name for it.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// What the verifier keeps: the public key.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// The last counter.
    #[must_use]
    pub const fn sign_count(&self) -> u32 {
        self.sign_count
    }

    /// Takes a new counter, unless it went back. An authenticator without a counter always says 0.
    #[must_use]
    pub(crate) fn advance(&mut self, sign_count: u32, wall: Timestamp) -> bool {
        let forward = self.goes_forward(sign_count);
        if forward {
            self.sign_count = sign_count;
            self.last_used_at = Some(wall);
        }
        forward
    }

    pub(crate) const fn goes_forward(&self, sign_count: u32) -> bool {
        sign_count > self.sign_count || (sign_count == 0 && self.sign_count == 0)
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.id.is_empty() || self.id.len() > limits::WEBAUTHN_ID_BYTES_MAX {
            return Err("the id of a WebAuthn credential has 1 to 1023 bytes");
        }
        if self.state.len() > limits::WEBAUTHN_STATE_BYTES_MAX {
            return Err("the state of a WebAuthn credential is too long");
        }
        // A control character in a name could forge what a list of credentials shows.
        if self.name.is_empty()
            || self.name.len() > limits::WEBAUTHN_NAME_BYTES_MAX
            || self.name.chars().any(char::is_control)
        {
            return Err("the name of a WebAuthn credential has 1 to 64 bytes without control characters");
        }
        Ok(())
    }
}

/// An assertion as it came, with the credential that it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebAuthnProof {
    /// The credential's id.
    pub credential: Vec<u8>,
    /// The assertion, for the verifier.
    pub assertion: Vec<u8>,
}

/// The credential and the counter of a verified assertion.
pub(crate) fn check<'a>(
    proof: &WebAuthnProof,
    challenge: &Challenge,
    credentials: &'a [WebAuthnCredential],
    verifier: &dyn WebAuthnVerifier,
) -> Result<(&'a WebAuthnCredential, u32), WebAuthnError> {
    if proof.assertion.len() > limits::WEBAUTHN_ASSERTION_BYTES_MAX {
        return Err(WebAuthnError::TooLong);
    }
    let credential = credentials
        .iter()
        .find(|credential| credential.id == proof.credential)
        .ok_or(WebAuthnError::UnknownCredential)?;
    let verdict = verifier.verify(challenge, credential, &proof.assertion)?;
    if credential.goes_forward(verdict.sign_count) {
        Ok((credential, verdict.sign_count))
    } else {
        Err(WebAuthnError::CounterWentBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_authenticator_is_noticed() {
        let new = |sign_count| {
            WebAuthnCredential::new(b"id", b"key", sign_count, "blue key", Timestamp(3)).unwrap()
        };
        let mut credential = new(5);
        assert_eq!((credential.created_at(), credential.last_used_at()), (Timestamp(3), None));
        assert!(credential.advance(6, Timestamp(9)));
        assert_eq!(credential.last_used_at(), Some(Timestamp(9)));
        assert!(!credential.advance(6, Timestamp(10)) && !credential.advance(0, Timestamp(10)));
        assert_eq!(
            (credential.sign_count(), credential.last_used_at()),
            (6, Some(Timestamp(9))),
            "nothing moved"
        );
        let mut without = new(0);
        let mut to = |sign_count| without.advance(sign_count, Timestamp(9));
        assert!(to(0) && to(0) && to(1) && !to(0));
    }

    #[test]
    fn what_is_no_credential_is_not_made() {
        let new =
            |id: &[u8], state: &[u8], name: &str| WebAuthnCredential::new(id, state, 0, name, Timestamp(0));
        assert!(new(&[1; 1023], &[1; 4096], &"n".repeat(64)).is_some());
        assert!(new(b"", b"", "key").is_none());
        assert!(new(&[1; 1024], b"", "key").is_none());
        assert!(new(b"id", &[1; 4097], "key").is_none());
        for name in ["", "a\u{1b}[2J", "two\nlines", &"n".repeat(65)] {
            assert!(new(b"id", b"", name).is_none(), "{name:?}");
        }
    }
}
