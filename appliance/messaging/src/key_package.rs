//! Key packages: what a device publishes so that others can add it while it is away.

use std::sync::Arc;

use mls_rs::MlsMessage;
use mls_rs::error::MlsError;
use mls_rs_core::extension::ExtensionType;
use zixt_crypto::aead::SealError;
use zixt_crypto::{Reference, digest};
use zixt_types::{Hash, Member, SuiteId, Timestamp, limits};

use crate::fault::MlsFault;
use crate::identity::{IdentityError, member_of};
use crate::provider::{MlsCrypto, suite_of};

/// Marks a package that the server may hand out again when no other is left (draft-ietf-mls-extensions).
pub(crate) const LAST_RESORT: ExtensionType = ExtensionType::LAST_RESORT_KEY_PACKAGE;

/// How far the clocks of author and user of a package may differ.
pub const CLOCK_SKEW_MS: u64 = 60 * 60 * 1000;

/// The longest validity of a package: its private part lies on the device that long.
pub const LIFETIME_MS_MAX: u64 = 90 * 24 * 60 * 60 * 1000;

/// The name of a key package: its KeyPackageRef (RFC 9420 section 5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyPackageId(pub Hash);

/// How often a package may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyPackageUse {
    /// Once: the server hands it out once and the device deletes the private part when it has joined.
    OneTime,
    /// When no other is left. The private part stays until a new one replaces it, so what is sent to it has no
    /// forward secrecy until the joiner's first commit: [`crate::Conversation::rotation_due`] asks for that at once.
    LastResort,
}

/// What a key package says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPackageInfo {
    /// Its name.
    pub id: KeyPackageId,
    /// Its suite.
    pub suite: SuiteId,
    /// The device.
    pub member: Member,
    /// Hash of the device's MLS key.
    pub key: Hash,
    /// The end of its validity.
    pub expires_at: Timestamp,
    /// How often it may be used.
    pub usage: KeyPackageUse,
}

/// A package that was just made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewKeyPackage {
    /// What it says.
    pub info: KeyPackageInfo,
    /// What the server gets.
    pub public: Vec<u8>,
    /// The private part, sealed. Store it before the public part is sent; delete it after its use
    /// ([`crate::Joined::delete_key_package`]) or its end.
    pub private: SealedKeyPackage,
}

/// The private part of a key package, as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKeyPackage {
    /// The package.
    pub id: KeyPackageId,
    /// The encrypted bytes.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedKeyPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedKeyPackage").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a key package was not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyPackageError {
    /// It is longer than any key package.
    #[error("the key package has {got} bytes; at most {} are allowed", limits::KEY_PACKAGE_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The bytes are not a key package.
    #[error("these bytes are not a key package")]
    Malformed,
    /// It is of a suite that this version or this device does not use.
    #[error("the key package is of the MLS cipher suite {got:#06x}")]
    OtherSuite {
        /// Its MLS cipher suite.
        got: u16,
    },
    /// It is another device's.
    #[error("the key package is of another device than the one asked for")]
    OtherMember {
        /// Whose it is.
        got: Member,
    },
    /// It ends before others could use it, or ended.
    #[error("the key package is valid until {}, which is too soon", .expires_at.0)]
    Expired {
        /// Its end.
        expires_at: Timestamp,
    },
    /// It is, or was asked to be, valid for longer than [`LIFETIME_MS_MAX`].
    #[error("the key package is valid until {}, which is too far away", .expires_at.0)]
    TooLongLived {
        /// Its end.
        expires_at: Timestamp,
    },
    /// The ledger does not know this device or this key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its signature or one of its keys is invalid.
    #[error(transparent)]
    Mls(MlsFault),
    /// The private part could not be sealed.
    #[error("the private part could not be sealed")]
    Seal(#[from] SealError),
}

impl From<MlsError> for KeyPackageError {
    fn from(error: MlsError) -> Self {
        match MlsFault::from(error) {
            MlsFault::Identity(identity) => Self::Identity(identity),
            other => Self::Mls(other),
        }
    }
}

impl KeyPackageInfo {
    /// Reads a package without judging it: [`crate::Device::check_key_package`] does.
    ///
    /// # Errors
    /// [`KeyPackageError`] if it is not one, of an unknown suite, or does not name a ledger member.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyPackageError> {
        let package = message(bytes)?.into_key_package().ok_or(KeyPackageError::Malformed)?;
        let raw_suite = package.cipher_suite();
        let suite = suite_of(raw_suite).ok_or(KeyPackageError::OtherSuite { got: raw_suite.raw_value() })?;
        let identity = package.signing_identity();
        // The reference is a hash and needs no particular backend.
        let provider = MlsCrypto::verify_only(Arc::new(Reference), suite).suite_provider();
        let reference = package.to_reference(&provider)?;
        let last_resort = package.extensions.has_extension(LAST_RESORT);
        Ok(Self {
            id: KeyPackageId(Hash::try_from(&*reference).map_err(|_| KeyPackageError::Malformed)?),
            suite,
            member: member_of(identity)?,
            key: digest::key_hash(suite, &identity.signature_key),
            expires_at: Timestamp(package.expiration()?.seconds_since_epoch().saturating_mul(1000)),
            usage: if last_resort { KeyPackageUse::LastResort } else { KeyPackageUse::OneTime },
        })
    }
}

/// The key packages that a Welcome is for: the joiner looks for one of its own.
///
/// # Errors
/// [`KeyPackageError::Malformed`] if the bytes are not a Welcome.
pub fn welcome_key_packages(welcome: &[u8]) -> Result<Vec<KeyPackageId>, KeyPackageError> {
    if welcome.len() > limits::WELCOME_BYTES_MAX {
        return Err(KeyPackageError::Malformed);
    }
    let welcome = MlsMessage::from_bytes(welcome).map_err(|_| KeyPackageError::Malformed)?;
    let ids = welcome.welcome_key_package_references().into_iter();
    ids.map(|id| Hash::try_from(&**id).map(KeyPackageId).map_err(|_| KeyPackageError::Malformed)).collect()
}

pub(crate) fn message(bytes: &[u8]) -> Result<MlsMessage, KeyPackageError> {
    if bytes.len() > limits::KEY_PACKAGE_BYTES_MAX {
        return Err(KeyPackageError::TooLong { got: bytes.len() });
    }
    MlsMessage::from_bytes(bytes).map_err(|_| KeyPackageError::Malformed)
}
