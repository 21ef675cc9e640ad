//! Why a sign-in is refused, as the audit record has it.

use thiserror::Error;

use super::callback::CallbackError;
use super::keys::KeySetError;
use super::token::TokenError;
use crate::replay::ReplayError;
use crate::web::WebError;

/// Why nobody was signed in, or nothing ended. There is no identity in any of these. People are told no more than that
/// it failed; [`Refusal::code`] is for the audit record.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It waited longer than [`crate::PENDING_MS`], or the clock was set back.
    #[error("the sign-in has waited too long")]
    Ended,
    /// The callback is for another sign-in.
    #[error("the callback is for another sign-in")]
    OtherLogin,
    /// The callback came from another browser than the sign-in began in.
    #[error("the callback came from another browser")]
    OtherBrowser,
    /// `state` is missing or another one.
    #[error("the callback has not the state of the sign-in")]
    State,
    /// The callback cannot be read.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// `iss` (RFC 9207) is missing, though the provider promises it, or the configuration demands it.
    #[error("the callback does not say which provider it is from")]
    IssuerMissing,
    /// `iss` (RFC 9207) is another provider: a mix-up.
    #[error("the callback is from another provider")]
    IssuerMismatch,
    /// The provider says that nobody signed in (RFC 6749 section 4.1.2.1): its code.
    #[error("the provider refused: {0}")]
    Denied(String),
    /// The provider does not give tokens for the code (RFC 6749 section 5.2): used before, or not ours.
    #[error("the provider does not redeem the code: {0}")]
    CodeRefused(String),
    /// The provider's answer is not what its specification says.
    #[error("the provider's answer has no {0}")]
    Answer(&'static str),
    /// The provider cannot be reached or does not answer well. No word about the person.
    #[error("the identity provider does not answer well")]
    Web(#[from] WebError),
    /// Its key set cannot be used.
    #[error("the provider's key set")]
    Keys(#[from] KeySetError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A logout token a second time, or too many of them.
    #[error("the logout token: {0}")]
    Replay(#[from] ReplayError),
    /// The provider says that the API client's token is not active, or the answer is about another one.
    #[error("the token is not active")]
    Inactive,
    /// Too many questions to the provider are under way, or it was asked a moment ago and did not answer well.
    #[error("the provider cannot be asked now")]
    Busy,
}

impl Refusal {
    /// A stable word for the audit record.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended => "sso-ended",
            Self::OtherLogin => "sso-other-login",
            Self::OtherBrowser => "sso-other-browser",
            Self::State => "sso-state",
            Self::Callback(_) => "sso-callback",
            Self::IssuerMissing => "sso-issuer-missing",
            Self::IssuerMismatch => "sso-issuer-mismatch",
            Self::Denied(_) => "sso-denied",
            Self::CodeRefused(_) => "sso-code-refused",
            Self::Answer(_) => "sso-answer",
            Self::Web(_) => "sso-unreachable",
            Self::Keys(_) => "sso-keys",
            Self::Token(error) => error.code(),
            Self::Replay(_) => "sso-replay",
            Self::Inactive => "sso-inactive",
            Self::Busy => "sso-busy",
        }
    }

    /// Whether the provider could not be asked: nobody's fault, and worth an alert rather than suspicion.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Web(_) | Self::Busy)
    }
}

impl TokenError {
    /// A stable word for the audit record.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "sso-token-too-long",
            Self::Malformed => "sso-token-malformed",
            Self::Algorithm => "sso-token-algorithm",
            Self::Critical => "sso-token-critical",
            Self::KeyInHeader => "sso-token-key-in-header",
            Self::Form => "sso-token-form",
            Self::Type => "sso-token-type",
            Self::UnknownKey => "sso-token-unknown-key",
            Self::KeyMismatch => "sso-token-key-mismatch",
            Self::Signature => "sso-token-signature",
            Self::Claim(_) => "sso-token-claim",
            Self::Issuer => "sso-token-issuer",
            Self::Audience => "sso-token-audience",
            Self::AuthorizedParty => "sso-token-authorized-party",
            Self::Expired => "sso-token-expired",
            Self::NotYetValid => "sso-token-not-yet-valid",
            Self::TooOld => "sso-token-too-old",
            Self::Nonce => "sso-token-nonce",
            Self::AccessTokenHash => "sso-token-access-token-hash",
            Self::AuthenticationTooOld => "sso-authentication-too-old",
            Self::AuthenticationTooWeak => "sso-authentication-too-weak",
            Self::NoLogout => "sso-token-no-logout",
            Self::SecondOpinion => "sso-second-opinion",
        }
    }
}
