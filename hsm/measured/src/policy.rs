//! Policies, computed without a TPM: which registers must hold what, who may approve others, and the PIN.
//!
//! A policy digest starts as zeros and takes one command after another (TPM 2.0 Library, Part 3, Section 23). Ours is
//! `PolicyPCR`, then either nothing or `PolicyAuthorize`, then always `PolicyAuthValue`: whoever signs approvals can
//! choose the registers but never leave out the PIN.

use crate::pcr::{PcrSelection, PcrValues};
use crate::profile::Profile;
use crate::wire::{self, Point};
use minicbor::{Decode, Encode};
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use std::fmt;
use zeroize::Zeroizing;
use zixt_crypto::{hash, labels};
use zixt_types::Canonical;

/// TPM_CC_PolicyPCR, TPM_CC_PolicyAuthorize, TPM_CC_PolicyAuthValue.
const CC_POLICY_PCR: u32 = 0x0000_017F;
const CC_POLICY_AUTHORIZE: u32 = 0x0000_016A;
const CC_POLICY_AUTH_VALUE: u32 = 0x0000_016B;

/// Bytes of a policy reference.
pub const POLICY_REF_BYTES: usize = 32;

/// What approvals are for: part of what is signed and of the sealed object's policy, so that an approval for one
/// appliance or purpose is none for another that trusts the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct PolicyRef(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; POLICY_REF_BYTES]);

/// Why an approval is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// A public key that is no point of the curve, or a private one that is no scalar.
    #[error("the policy key is no key of its curve")]
    Key,
    /// The signature is another key's, or of other values.
    #[error("the signature is not of this policy key over these registers and this purpose")]
    Signature,
    /// It approves other registers than the secret is sealed to.
    #[error("the approval is about {approved}, the secret is sealed to {wanted}")]
    Registers {
        /// Registers in the approval.
        approved: PcrSelection,
        /// Registers of the sealed secret.
        wanted: PcrSelection,
    },
    /// Nothing was measured into any of the registers: the policy would hold for every software.
    #[error("nothing is measured into the registers that are to be approved")]
    Unmeasured,
    /// The registers' values are not in the form that is signed.
    #[error("the approval's registers are not sorted, or do not exist")]
    Malformed,
}

/// The public key whose holder approves register values. ECDSA, because no TPM verifies a post-quantum signature.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PolicyKey {
    #[n(0)]
    profile: Profile,
    #[cbor(n(1), with = "minicbor::bytes")]
    x: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    y: Vec<u8>,
}

impl Canonical for PolicyKey {
    const WHAT: &'static str = "policy key";
    const BYTES_MAX: usize = 128;
    const VERSION: Option<u64> = None;

    fn check(&self) -> Result<(), &'static str> {
        if self.is_valid() { Ok(()) } else { Err("it is no point of its curve") }
    }
}

impl PolicyKey {
    /// Reads an uncompressed point (SEC 1: `04`, x, y).
    ///
    /// # Errors
    /// [`ApprovalError::Key`].
    pub fn from_sec1(profile: Profile, bytes: &[u8]) -> Result<Self, ApprovalError> {
        let point = match (bytes.split_first(), profile.bytes()) {
            (Some((4, point)), half) if point.len() == 2 * half => point,
            _ => return Err(ApprovalError::Key),
        };
        let (x, y) = point.split_at(profile.bytes());
        let key = Self { profile, x: x.to_vec(), y: y.to_vec() };
        if key.is_valid() { Ok(key) } else { Err(ApprovalError::Key) }
    }

    /// The uncompressed point (SEC 1).
    #[must_use]
    pub fn to_sec1(&self) -> Vec<u8> {
        [&[4][..], &self.x, &self.y].concat()
    }

    /// Its algorithms.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether it is a point of its curve: a decoded one need not be.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let sizes = [&self.x, &self.y].iter().all(|half| half.len() == self.profile.bytes());
        sizes && verifier(self.profile, &self.to_sec1()).is_some()
    }

    /// TPMT_PUBLIC, as it is loaded to verify.
    #[must_use]
    pub fn public_area(&self) -> Vec<u8> {
        wire::verify_only_public(self.profile, &Point { x: self.x.clone(), y: self.y.clone() })
    }

    /// The Name by which policies mean it.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        wire::name_of(self.profile, &self.public_area())
    }
}

impl fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyKey(")?;
        self.x.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// Which register values open the secret. A PIN is needed in any case.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Binding {
    /// These and no others. An update needs the PIN and a new sealing before the machine starts the new image.
    #[n(0)]
    Fixed(#[n(0)] PcrValues),
    /// Any that this key approves for this purpose.
    #[n(1)]
    Approved {
        /// Whose approvals count.
        #[n(0)]
        key: PolicyKey,
        /// Which of its approvals.
        #[n(1)]
        reference: PolicyRef,
    },
}

/// The digest of `PolicyPCR` over these values.
#[must_use]
pub fn pcr_policy(profile: Profile, selection: PcrSelection, values: &PcrValues) -> Vec<u8> {
    let start = vec![0; profile.bytes()];
    let command = CC_POLICY_PCR.to_be_bytes();
    profile.hash(&[&start, &command, &selection.to_wire(), &values.digest(profile)])
}

/// The policy of a sealed secret.
#[must_use]
pub fn sealing_policy(profile: Profile, selection: PcrSelection, binding: &Binding) -> Vec<u8> {
    let before_pin = match binding {
        Binding::Fixed(values) => pcr_policy(profile, selection, values),
        Binding::Approved { key, reference } => {
            // PolicyAuthorize forgets what was before and takes the key's Name, then the reference.
            let start = vec![0; profile.bytes()];
            let keyed = profile.hash(&[&start, &CC_POLICY_AUTHORIZE.to_be_bytes(), &key.name()]);
            profile.hash(&[&keyed, &reference.0])
        }
    };
    profile.hash(&[&before_pin, &CC_POLICY_AUTH_VALUE.to_be_bytes()])
}

/// A signature that says: with these values in the registers, the secret may be opened. Made offline, by whoever
/// signs images, before the image is installed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Approval {
    #[n(0)]
    version: u64,
    /// What the registers will hold.
    #[n(1)]
    pub values: PcrValues,
    /// What it is for.
    #[n(2)]
    pub reference: PolicyRef,
    #[cbor(n(3), with = "minicbor::bytes")]
    r: Vec<u8>,
    #[cbor(n(4), with = "minicbor::bytes")]
    s: Vec<u8>,
}

impl Canonical for Approval {
    const WHAT: &'static str = "TPM policy approval";
    /// 24 registers of at most 36 bytes, and the signature.
    const BYTES_MAX: usize = 1_200;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        // Also where it is part of something else, whose version is another.
        if Some(self.version) != Self::VERSION {
            return Err("an approval in it has another version");
        }
        self.values.selection().map(|_| ()).map_err(|_| "its registers are not sorted, or do not exist")
    }
}

impl Approval {
    /// Checks it as the TPM will.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub fn verify(
        &self,
        key: &PolicyKey,
        reference: &PolicyRef,
        wanted: PcrSelection,
    ) -> Result<(), ApprovalError> {
        let approved = self.values.selection().map_err(|_| ApprovalError::Malformed)?;
        if approved != wanted {
            return Err(ApprovalError::Registers { approved, wanted });
        }
        if self.values.unmeasured() {
            return Err(ApprovalError::Unmeasured);
        }
        if self.reference != *reference {
            return Err(ApprovalError::Signature);
        }
        let verifier = verifier(key.profile, &key.to_sec1()).ok_or(ApprovalError::Key)?;
        let digest = approval_digest(key.profile, wanted, &self.values, &self.reference);
        if verifier.verify(&digest, &self.r, &self.s) { Ok(()) } else { Err(ApprovalError::Signature) }
    }

    /// The two halves of the signature, big-endian.
    #[must_use]
    pub fn signature(&self) -> (&[u8], &[u8]) {
        (&self.r, &self.s)
    }
}

/// What `PolicyAuthorize` takes a signature of: the hash of the approved policy and the reference.
#[must_use]
pub fn approval_digest(
    profile: Profile,
    selection: PcrSelection,
    values: &PcrValues,
    reference: &PolicyRef,
) -> Vec<u8> {
    profile.hash(&[&pcr_policy(profile, selection, values), &reference.0])
}

/// The private key of approvals. It belongs on the machine that signs images, never on an appliance.
pub struct PolicySigner {
    profile: Profile,
    scalar: Zeroizing<Vec<u8>>,
}

impl PolicySigner {
    /// A new key.
    ///
    /// # Errors
    /// [`zixt_crypto::RandomError`].
    pub fn generate(profile: Profile) -> Result<Self, zixt_crypto::RandomError> {
        loop {
            let mut scalar = Zeroizing::new(vec![0; profile.bytes()]);
            zixt_crypto::fill_random(&mut scalar)?;
            // All but one in 2^32 (P-256) or 2^194 (P-384) are smaller than the order of the curve.
            if let Ok(signer) = Self::from_scalar(profile, scalar) {
                return Ok(signer);
            }
        }
    }

    /// A key from its private scalar, big-endian.
    ///
    /// # Errors
    /// [`ApprovalError::Key`].
    pub fn from_scalar(profile: Profile, scalar: Zeroizing<Vec<u8>>) -> Result<Self, ApprovalError> {
        let signer = Self { profile, scalar };
        signer.public().map(|_| signer)
    }

    /// The private scalar, to be kept.
    #[must_use]
    pub fn scalar(&self) -> &[u8] {
        &self.scalar
    }

    /// The public key.
    ///
    /// # Errors
    /// [`ApprovalError::Key`] never happens for a signer that exists.
    pub fn public(&self) -> Result<PolicyKey, ApprovalError> {
        let point = match self.profile {
            Profile::P384 => p384::ecdsa::SigningKey::from_slice(&self.scalar)
                .map(|key| key.verifying_key().to_sec1_point(false).as_bytes().to_vec()),
            Profile::P256 => p256::ecdsa::SigningKey::from_slice(&self.scalar)
                .map(|key| key.verifying_key().to_sec1_point(false).as_bytes().to_vec()),
        };
        PolicyKey::from_sec1(self.profile, &point.map_err(|_| ApprovalError::Key)?)
    }

    /// Approves register values for a purpose.
    ///
    /// # Errors
    /// [`ApprovalError::Unmeasured`] and [`ApprovalError::Malformed`].
    pub fn approve(&self, values: PcrValues, reference: PolicyRef) -> Result<Approval, ApprovalError> {
        let selection = values.selection().map_err(|_| ApprovalError::Malformed)?;
        if values.unmeasured() {
            return Err(ApprovalError::Unmeasured);
        }
        let digest = approval_digest(self.profile, selection, &values, &reference);
        let signature = match self.profile {
            Profile::P384 => {
                let key =
                    p384::ecdsa::SigningKey::from_slice(&self.scalar).map_err(|_| ApprovalError::Key)?;
                let signature: Result<p384::ecdsa::Signature, _> = key.sign_prehash(&digest);
                signature.map(|signature| signature.to_bytes().to_vec())
            }
            Profile::P256 => {
                let key =
                    p256::ecdsa::SigningKey::from_slice(&self.scalar).map_err(|_| ApprovalError::Key)?;
                let signature: Result<p256::ecdsa::Signature, _> = key.sign_prehash(&digest);
                signature.map(|signature| signature.to_bytes().to_vec())
            }
        }
        .map_err(|_| ApprovalError::Key)?;
        let (r, s) = signature.split_at(self.profile.bytes());
        Ok(Approval { version: 1, values, reference, r: r.to_vec(), s: s.to_vec() })
    }
}

impl PolicyRef {
    /// What keys of image signers approve for us. One for all appliances: an image is approved for all that trust its
    /// signer.
    #[must_use]
    pub fn images() -> Self {
        let mut bytes = [0; POLICY_REF_BYTES];
        let hash = hash::sha384(labels::TPM_POLICY_REFERENCE, &[]);
        bytes.copy_from_slice(&hash.as_bytes()[..POLICY_REF_BYTES]);
        Self(bytes)
    }
}

impl fmt::Debug for PolicySigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicySigner(redacted)")
    }
}

/// An ECDSA key of one of the two curves.
pub(crate) enum Verifier {
    P384(p384::ecdsa::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
}

impl Verifier {
    /// Whether the numbers are a signature of the digest. Numbers of another length are none.
    pub(crate) fn verify(&self, digest: &[u8], r: &[u8], s: &[u8]) -> bool {
        let signature = [r, s].concat();
        match self {
            Self::P384(key) => {
                r.len() == 48
                    && p384::ecdsa::Signature::from_slice(&signature)
                        .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
            }
            Self::P256(key) => {
                r.len() == 32
                    && p256::ecdsa::Signature::from_slice(&signature)
                        .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
            }
        }
    }
}

/// The key of an uncompressed point, if it is one.
pub(crate) fn verifier(profile: Profile, sec1: &[u8]) -> Option<Verifier> {
    match profile {
        Profile::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(sec1).ok().map(Verifier::P384),
        Profile::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(sec1).ok().map(Verifier::P256),
    }
}
