//! The algorithms of one TPM: chosen once, when it is provisioned, and kept with the pin of its storage key.

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256, Sha384};

/// Curve, hash and cipher that belong together. A TPM 2.0 has no post-quantum algorithm: see docs/decisions/0010-protectors.md
/// for what that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Profile {
    /// NIST P-384, SHA-384, AES-256: taken wherever the TPM has it.
    #[n(0)]
    P384,
    /// NIST P-256, SHA-256, AES-128: what every TPM of the PC Client profile has.
    #[n(1)]
    P256,
}

impl Profile {
    /// Bytes of a digest, and of a coordinate of the curve.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::P384 => 48,
            Self::P256 => 32,
        }
    }

    /// The plain hash of the parts one after another, as the TPM computes it. Formats of the TCG carry no label of ours.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        fn over<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut hasher = D::new();
            parts.iter().for_each(|part| hasher.update(part));
            hasher.finalize().to_vec()
        }
        match self {
            Self::P384 => over::<Sha384>(parts),
            Self::P256 => over::<Sha256>(parts),
        }
    }

    /// TPM_ALG_ID of the hash (TCG algorithm registry).
    pub(crate) const fn hash_id(self) -> u16 {
        match self {
            Self::P384 => 0x000C,
            Self::P256 => 0x000B,
        }
    }

    /// TPM_ECC_CURVE (TCG algorithm registry).
    pub(crate) const fn curve_id(self) -> u16 {
        match self {
            Self::P384 => 0x0004,
            Self::P256 => 0x0003,
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::P384 => "P-384, SHA-384, AES-256",
            Self::P256 => "P-256, SHA-256, AES-128",
        })
    }
}
