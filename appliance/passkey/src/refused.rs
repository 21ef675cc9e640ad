//! Why something that a browser sent was not taken.

use thiserror::Error;
use zixt_identity::WebAuthnError;

/// Why a registration or an assertion was not taken: for the audit record alone. Whoever sent it is told that it was
/// refused, and nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// It has more bytes than any.
    #[error("it is too long")]
    TooLong,
    /// It is no JSON of the form that a browser sends (section 5.1, `RegistrationResponseJSON` and
    /// `AuthenticationResponseJSON`).
    #[error("it is not what a browser sends")]
    NotAnAnswer,
    /// `id` and `rawId`, or the id in the signed data, are not the same.
    #[error("it names more than one credential")]
    IdsDiffer,
    /// The credential is not one that was asked for.
    #[error("it is of another credential")]
    OtherCredential,
    /// The authenticator made it for another account (`userHandle`).
    #[error("it is of another account")]
    OtherUser,
    /// The client data is no JSON of its form (section 5.8.1).
    #[error("the client data is malformed")]
    NotClientData,
    /// It is of a registration instead of a sign-in, or the reverse.
    #[error("it is of another ceremony")]
    OtherCeremony,
    /// It answers another challenge: another sign-in, another channel, or a replay.
    #[error("it answers another challenge")]
    OtherChallenge,
    /// The page was not ours.
    #[error("it comes from a page of another origin")]
    OtherOrigin,
    /// Our page was inside another one.
    #[error("it comes from a page inside a page of another origin")]
    CrossOrigin,
    /// The authenticator's data is cut off, or goes on behind its end (section 6.1).
    #[error("the authenticator's data is malformed")]
    NotAuthenticatorData,
    /// The authenticator made it for another server.
    #[error("it is for another relying party")]
    OtherRelyingParty,
    /// Nobody touched the authenticator.
    #[error("the authenticator's user was not present")]
    UserNotPresent,
    /// The authenticator did not ask for PIN or biometrics.
    #[error("the authenticator did not verify its user")]
    UserNotVerified,
    /// The key is, or may be, on more than one device.
    #[error("the key is not bound to one authenticator")]
    Synchronised,
    /// The attestation object is malformed (section 6.5.4).
    #[error("the attestation object is malformed")]
    NotAnAttestation,
    /// A statement that was not asked for.
    #[error("it has an attestation that was not asked for")]
    AttestationNotAsked,
    /// The public key is malformed, or no point of its curve.
    #[error("the public key is malformed")]
    NotAKey,
    /// An algorithm that was not offered, or a key of another kind than its algorithm says.
    #[error("the public key is for another algorithm")]
    OtherAlgorithm,
    /// The authenticator is registered with the account already.
    #[error("the authenticator is registered already")]
    Registered,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// The signature verifies, and the counter did not go forward: the key was copied, or the authenticator is broken.
    #[error("the authenticator's counter went back: it may be a copy")]
    CounterWentBack,
    /// What was kept of the credential cannot be read.
    #[error("what was kept of the credential cannot be read")]
    Kept,
    /// The second verifier refuses for a reason of its own.
    #[error("the second verifier refuses it")]
    SecondVerifier,
}

impl Refused {
    /// A word for it that does not change, for the audit record.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::NotAnAnswer => "not-an-answer",
            Self::IdsDiffer => "ids-differ",
            Self::OtherCredential => "other-credential",
            Self::OtherUser => "other-user",
            Self::NotClientData => "not-client-data",
            Self::OtherCeremony => "other-ceremony",
            Self::OtherChallenge => "other-challenge",
            Self::OtherOrigin => "other-origin",
            Self::CrossOrigin => "cross-origin",
            Self::NotAuthenticatorData => "not-authenticator-data",
            Self::OtherRelyingParty => "other-relying-party",
            Self::UserNotPresent => "user-not-present",
            Self::UserNotVerified => "user-not-verified",
            Self::Synchronised => "synchronised",
            Self::NotAnAttestation => "not-an-attestation",
            Self::AttestationNotAsked => "attestation-not-asked",
            Self::NotAKey => "not-a-key",
            Self::OtherAlgorithm => "other-algorithm",
            Self::Registered => "registered",
            Self::Signature => "signature",
            Self::CounterWentBack => "counter-went-back",
            Self::Kept => "kept",
            Self::SecondVerifier => "second-verifier",
        }
    }
}

impl From<Refused> for WebAuthnError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLong => Self::TooLong,
            Refused::UserNotVerified => Self::UserNotVerified,
            Refused::OtherCredential => Self::UnknownCredential,
            Refused::CounterWentBack => Self::CounterWentBack,
            other => Self::Rejected(other.code()),
        }
    }
}
