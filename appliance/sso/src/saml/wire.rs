//! What the appliance and the parser's process say to each other: one question, one answer, each a frame of a u32
//! big-endian length and CBOR.

use minicbor::{Decode, Encode};
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a message's XML. Responses with hundreds of groups have some 60 KiB.
pub const XML_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a question: a message in base64, the configuration and the key.
pub const QUESTION_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why a message is refused. The order is about that of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error, Encode, Decode)]
#[cbor(index_only)]
pub enum Cause {
    /// Too many bytes, elements, attributes or levels; also of what a compressed message becomes.
    #[n(0)]
    #[error("the message is too long")]
    TooLong,
    /// No base64, or no DEFLATE where the binding has it.
    #[n(1)]
    #[error("the message is not encoded as its binding says")]
    Encoding,
    /// No UTF-8, another declared encoding, or characters that XML does not have.
    #[n(2)]
    #[error("the message is not plain UTF-8")]
    Text,
    /// A document type, comment, CDATA section, processing instruction or entity.
    #[n(3)]
    #[error("the message has markup that is not read here")]
    Markup,
    /// No well-formed XML.
    #[n(4)]
    #[error("the message is not well-formed XML")]
    Xml,
    /// Not one response, one assertion, one subject; encryption; two ids that are the same.
    #[n(5)]
    #[error("the message has not one of each")]
    Structure,
    /// What SAML demands of elements and attributes.
    #[n(6)]
    #[error("the message is not as SAML 2.0 says")]
    Profile,
    /// There is no signature where one has to be: on the assertion, on a logout message.
    #[n(7)]
    #[error("a signature is missing")]
    SignatureMissing,
    /// A signature is not good, or not of a pinned key.
    #[n(8)]
    #[error("a signature is not good")]
    Signature,
    /// An algorithm other than RSA with SHA-256, SHA-384 or SHA-512, or a transform that is not allowed.
    #[n(9)]
    #[error("a signature's algorithm is not allowed")]
    Algorithm,
    /// What is signed is not what would be read.
    #[n(10)]
    #[error("what is signed is not what would be read")]
    Coverage,
    /// From somebody else.
    #[n(11)]
    #[error("the message is from another issuer")]
    Issuer,
    /// `Destination` or `Recipient` is somewhere else.
    #[n(12)]
    #[error("the message is for another place")]
    Destination,
    /// `InResponseTo` is not the request of this sign-in.
    #[n(13)]
    #[error("the message answers another request")]
    InResponseTo,
    /// The audience is somebody else.
    #[n(14)]
    #[error("the message is for another audience")]
    Audience,
    /// The provider says that nobody signed in.
    #[n(15)]
    #[error("the provider refused")]
    Status,
    /// Before its time, after it, or without an end.
    #[n(16)]
    #[error("the message is not valid at this time")]
    Time,
    /// No bearer confirmation that is good here and now.
    #[n(17)]
    #[error("the subject is not confirmed for here and now")]
    Confirmation,
    /// An id twice in one message.
    #[n(18)]
    #[error("an id is there twice")]
    Repeated,
    /// `RelayState` is another sign-in's.
    #[n(19)]
    #[error("the relay state is another one")]
    RelayState,
    /// The configuration: an unusable certificate or key, a place that is not configured.
    #[n(20)]
    #[error("the configuration does not allow it")]
    Configuration,
    /// Anything else that the library refuses.
    #[n(21)]
    #[error("the message is refused")]
    Other,
}

/// The key and the certificate that this appliance signs its requests with.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SpKey {
    #[n(0)]
    #[cbor(with = "secret")]
    pub(crate) key_pem: Zeroizing<String>,
    #[n(1)]
    pub(crate) certificate_pem: String,
}

impl fmt::Debug for SpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpKey(..)")
    }
}

/// Both sides, as they are configured.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Parties {
    #[n(0)]
    pub(crate) sp_entity: String,
    #[n(1)]
    pub(crate) acs: String,
    #[n(2)]
    pub(crate) sp_slo: Option<String>,
    #[n(3)]
    pub(crate) idp_entity: String,
    #[n(4)]
    pub(crate) idp_sso: String,
    #[n(5)]
    pub(crate) idp_slo: Option<String>,
    /// Base64 of the DER of each pinned certificate.
    #[n(6)]
    pub(crate) certificates: Vec<String>,
    #[n(7)]
    pub(crate) key: Option<SpKey>,
    /// Clock skew, in milliseconds.
    #[n(8)]
    pub(crate) skew_ms: u32,
    #[n(9)]
    pub(crate) force_authn: bool,
}

/// What the appliance asks.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Question {
    #[n(0)]
    pub(crate) parties: Parties,
    /// Unix time, in milliseconds.
    #[n(1)]
    pub(crate) now_ms: u64,
    #[n(2)]
    pub(crate) task: Task,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum Task {
    /// Make an AuthnRequest (HTTP-Redirect).
    #[n(0)]
    Begin {
        #[n(0)]
        relay_state: String,
    },
    /// Verify a Response (HTTP-POST).
    #[n(1)]
    Finish {
        #[n(0)]
        response: String,
        #[n(1)]
        relay_state: String,
        #[n(2)]
        request_id: String,
        /// The attributes whose values are wanted.
        #[n(3)]
        attributes: Vec<String>,
    },
    /// Verify a LogoutRequest of the provider, and make the response to it.
    #[n(2)]
    Logout {
        #[n(0)]
        incoming: Incoming,
    },
    /// Make a LogoutRequest (HTTP-Redirect).
    #[n(3)]
    BeginLogout {
        #[n(0)]
        name_id: String,
        #[n(1)]
        name_format: Option<String>,
        #[n(2)]
        session: Option<String>,
        #[n(3)]
        relay_state: String,
    },
    /// Verify the LogoutResponse to it.
    #[n(4)]
    FinishLogout {
        #[n(0)]
        incoming: Incoming,
        #[n(1)]
        relay_state: String,
        #[n(2)]
        request_id: String,
    },
    /// Print this side's metadata.
    #[n(5)]
    Metadata,
}

/// A logout message as the browser brought it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Incoming {
    /// The query, as it came.
    #[n(0)]
    Redirect(#[n(0)] String),
    /// The fields of the form.
    #[n(1)]
    Post {
        #[n(0)]
        message: String,
        #[n(1)]
        relay_state: Option<String>,
    },
}

/// What the parser's process answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Answer {
    #[n(0)]
    Refused(#[n(0)] Cause),
    /// Where the browser goes, and the id of the request.
    #[n(1)]
    Go {
        #[n(0)]
        url: String,
        #[n(1)]
        id: String,
    },
    #[n(2)]
    Verified(#[n(0)] Box<Verified>),
    #[n(3)]
    Logout {
        #[n(0)]
        id: String,
        #[n(1)]
        issuer: String,
        #[n(2)]
        name_id: Option<String>,
        #[n(3)]
        sessions: Vec<String>,
        #[n(4)]
        issued: String,
        #[n(5)]
        ends: Option<String>,
        /// Where the browser takes the response.
        #[n(6)]
        response_url: String,
    },
    #[n(4)]
    LoggedOut {
        #[n(0)]
        in_response_to: Option<String>,
        #[n(1)]
        issuer: String,
    },
    #[n(5)]
    Metadata(#[n(0)] String),
}

/// Everything in a verified response that the appliance compares itself once more. Times are texts as they stand in the
/// message.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Verified {
    #[n(0)]
    pub(crate) response_id: String,
    #[n(1)]
    pub(crate) assertion_id: String,
    #[n(2)]
    pub(crate) issuer: String,
    #[n(3)]
    pub(crate) in_response_to: Option<String>,
    #[n(4)]
    pub(crate) destination: Option<String>,
    #[n(5)]
    pub(crate) audiences: Vec<String>,
    #[n(6)]
    pub(crate) not_before: Option<String>,
    #[n(7)]
    pub(crate) not_on_or_after: Option<String>,
    #[n(8)]
    pub(crate) confirmations: Vec<Confirmation>,
    #[n(9)]
    pub(crate) name_id: String,
    #[n(10)]
    pub(crate) name_format: Option<String>,
    /// The wanted attributes, in the order in which they were asked for.
    #[n(11)]
    pub(crate) attributes: Vec<Vec<String>>,
    #[n(12)]
    pub(crate) session: Option<String>,
    #[n(13)]
    pub(crate) authenticated: Option<String>,
    #[n(14)]
    pub(crate) session_ends: Option<String>,
    #[n(15)]
    pub(crate) context: Option<String>,
    /// The algorithms of the signatures that were verified.
    #[n(16)]
    pub(crate) algorithms: Vec<String>,
    /// Whether one of them covers the assertion directly.
    #[n(17)]
    pub(crate) assertion_signed: bool,
    /// The issuer of the message around the assertion, which may leave it out.
    #[n(18)]
    pub(crate) response_issuer: Option<String>,
    /// Whose name it is (`NameQualifier`, `SPNameQualifier`), if the provider says so.
    #[n(19)]
    pub(crate) name_qualifier: Option<String>,
    #[n(20)]
    pub(crate) sp_name_qualifier: Option<String>,
}

impl fmt::Debug for Verified {
    /// Without the person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("response_id", &self.response_id).finish_non_exhaustive()
    }
}

/// One bearer confirmation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Confirmation {
    #[n(0)]
    pub(crate) method: Option<String>,
    #[n(1)]
    pub(crate) recipient: Option<String>,
    #[n(2)]
    pub(crate) in_response_to: Option<String>,
    #[n(3)]
    pub(crate) not_on_or_after: Option<String>,
}

/// A text that is wiped.
mod secret {
    use minicbor::{Decoder, Encoder};
    use zeroize::Zeroizing;

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        text: &Zeroizing<String>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(text)?.ok()
    }

    pub(super) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Zeroizing<String>, minicbor::decode::Error> {
        Ok(Zeroizing::new(d.str()?.to_owned()))
    }
}

/// A frame: the length of what follows, and that.
pub(crate) fn frame(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    Zeroizing::new([&length.to_be_bytes(), message].concat())
}
