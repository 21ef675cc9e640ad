//! Why a sign-in or a log-out is refused, as the audit record has it.

use thiserror::Error;

use super::process::ProcessError;
use super::wire::Cause;
use crate::replay::ReplayError;

/// Why nobody was signed in, or nothing ended. There is no identity in any of these.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It waited longer than [`crate::PENDING_MS`], or the clock was set back.
    #[error("the sign-in has waited too long")]
    Ended,
    /// The answer is for another sign-in.
    #[error("the answer is for another sign-in")]
    OtherLogin,
    /// The answer came from another browser than the sign-in began in.
    #[error("the answer came from another browser")]
    OtherBrowser,
    /// The form or query that the browser brought cannot be read.
    #[error("what the browser brought has not each parameter once")]
    Form,
    /// The message.
    #[error(transparent)]
    Message(#[from] Cause),
    /// The response or its assertion was used before, or too many are remembered.
    #[error("the response: {0}")]
    Replay(#[from] ReplayError),
    /// The parser's process has no answer.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The parser answered another question.
    #[error("the parser answered another question")]
    Answer,
    /// The name is not of the persistent format, or the attribute with the id is not there once.
    #[error("the response has no id that never changes")]
    Subject,
    /// The authentication context is not one that is accepted.
    #[error("the person has not signed in as strongly as is demanded")]
    AuthenticationTooWeak,
    /// The person has proven who they are too long ago, or it does not say when.
    #[error("the person has to prove to the provider anew who they are")]
    AuthenticationTooOld,
    /// Single logout needs a key and places on both sides.
    #[error("single logout is not configured")]
    NoLogout,
    /// Random numbers.
    #[error("no random numbers")]
    Random,
}

impl Refusal {
    /// A stable word for the audit record.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended => "sso-ended",
            Self::OtherLogin => "sso-other-login",
            Self::OtherBrowser => "sso-other-browser",
            Self::Form => "sso-callback",
            Self::Message(cause) => cause.code(),
            Self::Replay(_) => "sso-replay",
            Self::Process(_) => "saml-process",
            Self::Answer => "saml-answer",
            Self::Subject => "saml-subject",
            Self::AuthenticationTooWeak => "sso-authentication-too-weak",
            Self::AuthenticationTooOld => "sso-authentication-too-old",
            Self::NoLogout => "saml-no-logout",
            Self::Random => "saml-random",
        }
    }
}

impl Cause {
    /// A stable word for the audit record.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "saml-too-long",
            Self::Encoding => "saml-encoding",
            Self::Text => "saml-text",
            Self::Markup => "saml-markup",
            Self::Xml => "saml-xml",
            Self::Structure => "saml-structure",
            Self::Profile => "saml-profile",
            Self::SignatureMissing => "saml-signature-missing",
            Self::Signature => "saml-signature",
            Self::Algorithm => "saml-algorithm",
            Self::Coverage => "saml-coverage",
            Self::Issuer => "saml-issuer",
            Self::Destination => "saml-destination",
            Self::InResponseTo => "saml-in-response-to",
            Self::Audience => "saml-audience",
            Self::Status => "saml-status",
            Self::Time => "saml-time",
            Self::Confirmation => "saml-confirmation",
            Self::Repeated => "saml-repeated",
            Self::RelayState => "saml-relay-state",
            Self::Configuration => "saml-configuration",
            Self::Other => "saml-other",
        }
    }
}
