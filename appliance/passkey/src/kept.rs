//! What is kept of a credential, inside of the account's sealed credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Serialize};
use webauthn_rs_core::proto::{COSEAlgorithm, Credential};
use zixt_identity::WebAuthnCredential;
use zixt_types::Timestamp;

use crate::refused::Refused;

/// Algorithms of authenticators that are taken: those that `webauthn-rs-core` verifies, and no others. All are
/// classical.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256 (RFC 9053 section 2.1).
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA with P-384 and SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// RSASSA-PKCS1-v1_5 of 2048 bits with SHA-256 (RFC 8812 section 2): older authenticators in computers have no other.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// What is offered, the strongest first.
    pub(crate) const OFFERED: [Self; 3] = [Self::Es384, Self::Es256, Self::Rs256];

    /// Its number in the registry of COSE algorithms.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Es256 => -7,
            Self::Es384 => -35,
            Self::Rs256 => -257,
        }
    }

    pub(crate) const fn of_library(self) -> COSEAlgorithm {
        match self {
            Self::Es256 => COSEAlgorithm::ES256,
            Self::Es384 => COSEAlgorithm::ES384,
            Self::Rs256 => COSEAlgorithm::RS256,
        }
    }
}

/// What came as attestation. None is asked for, so it proves nothing about the make of the authenticator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attestation {
    /// No statement (section 8.7).
    None,
    /// A statement signed by the new key itself (section 8.2), which browsers let through.
    OwnKey,
}

/// The verifier's part of a credential.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    version: u8,
    /// The account's name for authenticators.
    pub(crate) user: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) attestation: Attestation,
    /// Make and model as the authenticator says; all zero if it says none.
    aaguid: [u8; 16],
    pub(crate) credential: Credential,
}

impl Kept {
    const VERSION: u8 = 1;

    pub(crate) fn new(
        user: &[u8; 32],
        algorithm: Algorithm,
        attestation: Attestation,
        aaguid: [u8; 16],
        credential: Credential,
    ) -> Self {
        Self {
            version: Self::VERSION,
            user: BASE64URL.encode(user),
            algorithm,
            attestation,
            aaguid,
            credential,
        }
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>, Refused> {
        serde_json::to_vec(self).map_err(|_| Refused::Kept)
    }

    pub(crate) fn read(credential: &WebAuthnCredential) -> Result<Self, Refused> {
        let kept: Self = serde_json::from_slice(credential.state()).map_err(|_| Refused::Kept)?;
        let sound = kept.version == Self::VERSION && kept.credential.cred_id == credential.id();
        if sound { Ok(kept) } else { Err(Refused::Kept) }
    }
}

/// A credential as its owner sees it in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Passkey {
    /// The authenticator's name for it, base64url: by it the owner removes it.
    pub id: String,
    /// The owner's name for it.
    pub name: String,
    /// When it was registered, in milliseconds of the wall clock since 1970.
    pub created_at: u64,
    /// When it was last taken for a sign-in.
    pub last_used_at: Option<u64>,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// What came as attestation.
    pub attestation: Attestation,
    /// Make and model as the authenticator says, and nothing proves: 32 hexadecimal digits; none if it says none.
    pub model: Option<String>,
}

impl Passkey {
    /// Of a credential of an account.
    ///
    /// # Errors
    /// [`Refused::Kept`], for a credential that this crate has not made.
    pub fn of(credential: &WebAuthnCredential) -> Result<Self, Refused> {
        let kept = Kept::read(credential)?;
        let model = || kept.aaguid.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            id: BASE64URL.encode(credential.id()),
            name: credential.name().to_owned(),
            created_at: credential.created_at().0,
            last_used_at: credential.last_used_at().map(|Timestamp(ms)| ms),
            algorithm: kept.algorithm,
            attestation: kept.attestation,
            model: (kept.aaguid != [0; 16]).then(model),
        })
    }
}
