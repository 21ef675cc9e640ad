//! WebAuthn as a factor (Web Authentication level 2). The assertion is verified by a module of the caller; this crate
//! demands that it is about this sign-in and about a credential of this account, and that its counter goes forward.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_types::limits;

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
    /// Not an assertion, or not about this challenge, origin or credential.
    #[error("the assertion does not verify")]
    Rejected,
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
}

impl WebAuthnCredential {
    /// A credential that the verifier has registered, with what it wants kept. `None` if it is larger than any.
    #[must_use]
    pub fn new(id: &[u8], state: &[u8], sign_count: u32) -> Option<Self> {
        let credential = Self { id: id.to_vec(), state: state.to_vec(), sign_count };
        credential.check().ok().map(|()| credential)
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
    pub(crate) fn advance(&mut self, sign_count: u32) -> bool {
        let forward = self.goes_forward(sign_count);
        if forward {
            self.sign_count = sign_count;
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
        let mut credential = WebAuthnCredential::new(b"id", b"key", 5).unwrap();
        assert!(credential.advance(6));
        assert!(!credential.advance(6) && !credential.advance(0) && credential.sign_count() == 6);
        let mut without = WebAuthnCredential::new(b"id", b"key", 0).unwrap();
        assert!(without.advance(0) && without.advance(0) && without.advance(1) && !without.advance(0));
        assert!(WebAuthnCredential::new(b"", b"", 0).is_none());
        assert!(WebAuthnCredential::new(&[1; 1024], b"", 0).is_none());
    }
}
