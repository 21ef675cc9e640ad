//! What a browser sends back: the JSON of section 5.1 (`toJSON()` of a `PublicKeyCredential`), and the client data inside
//! of it. Members that are not used are not looked at; a used one that stands twice is refused, and nothing here is
//! longer than what came.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::refused::Refused;
use crate::relying_party::RelyingParty;

/// The one type of credential.
const PUBLIC_KEY: &str = "public-key";

/// What a page is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ceremony {
    Create,
    Get,
}

impl Ceremony {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "webauthn.create",
            Self::Get => "webauthn.get",
        }
    }
}

/// A new credential, decoded.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: Vec<u8>,
    pub(crate) client_data: Vec<u8>,
    pub(crate) attestation_object: Vec<u8>,
}

/// An assertion, decoded.
#[derive(Debug)]
pub(crate) struct Assertion {
    pub(crate) id: Vec<u8>,
    pub(crate) client_data: Vec<u8>,
    pub(crate) authenticator_data: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) user: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct Answer<R> {
    id: String,
    #[serde(rename = "rawId")]
    raw_id: String,
    #[serde(rename = "type")]
    kind: String,
    response: R,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestationResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    attestation_object: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssertionResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    authenticator_data: String,
    signature: String,
    user_handle: Option<String>,
}

impl<R> Answer<R> {
    /// The credential's id, which stands there twice.
    fn credential(&self) -> Result<Vec<u8>, Refused> {
        if self.kind != PUBLIC_KEY {
            return Err(Refused::NotAnAnswer);
        }
        if self.id != self.raw_id {
            return Err(Refused::IdsDiffer);
        }
        bytes(&self.raw_id)
    }
}

impl Registration {
    pub(crate) fn parse(text: &[u8], bytes_max: usize) -> Result<Self, Refused> {
        let answer: Answer<AttestationResponse> = read(text, bytes_max)?;
        Ok(Self {
            id: answer.credential()?,
            client_data: bytes(&answer.response.client_data)?,
            attestation_object: bytes(&answer.response.attestation_object)?,
        })
    }
}

impl Assertion {
    pub(crate) fn parse(text: &[u8], bytes_max: usize) -> Result<Self, Refused> {
        let answer: Answer<AssertionResponse> = read(text, bytes_max)?;
        Ok(Self {
            id: answer.credential()?,
            client_data: bytes(&answer.response.client_data)?,
            authenticator_data: bytes(&answer.response.authenticator_data)?,
            signature: bytes(&answer.response.signature)?,
            user: answer.response.user_handle.as_deref().map(bytes).transpose()?,
        })
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8], bytes_max: usize) -> Result<T, Refused> {
    if text.len() > bytes_max {
        return Err(Refused::TooLong);
    }
    serde_json::from_slice(text).map_err(|_| Refused::NotAnAnswer)
}

fn bytes(text: &str) -> Result<Vec<u8>, Refused> {
    BASE64URL.decode(text).map_err(|_| Refused::NotAnAnswer)
}

/// Section 5.8.1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    cross_origin: Option<bool>,
    top_origin: Option<IgnoredAny>,
}

/// Sections 7.1 and 7.2, steps about the client data.
pub(crate) fn check_client_data(
    party: &RelyingParty,
    client_data: &[u8],
    ceremony: Ceremony,
    challenge: &[u8],
) -> Result<(), Refused> {
    let data: ClientData = serde_json::from_slice(client_data).map_err(|_| Refused::NotClientData)?;
    if data.kind != ceremony.name() {
        return Err(Refused::OtherCeremony);
    }
    if data.challenge != BASE64URL.encode(challenge) {
        return Err(Refused::OtherChallenge);
    }
    if !party.is_ours(&data.origin) {
        return Err(Refused::OtherOrigin);
    }
    if data.cross_origin == Some(true) || data.top_origin.is_some() {
        return Err(Refused::CrossOrigin);
    }
    Ok(())
}
