//! A quote: the TPM's signed word for what its registers hold. Verified here without a TPM.

use crate::pcr::{PcrSelection, PcrValues};
use crate::policy::verifier;
use crate::profile::Profile;
use crate::wire::{self, Reader, WireError};
use minicbor::{Decode, Encode};
use zixt_types::Canonical;

/// Bytes of the verifier's nonce.
pub const NONCE_BYTES: usize = 32;
/// Most bytes of a signed statement; real ones are below 200.
const STATEMENT_BYTES_MAX: usize = 1_024;

/// TPM_GENERATED_VALUE: a restricted key signs nothing that starts with it unless the TPM made it.
const GENERATED: u32 = 0xFF54_4347;
/// TPM_ST_ATTEST_QUOTE.
const ATTEST_QUOTE: u16 = 0x8018;

/// The public half of an attestation key, as the verifier keeps it after the key was shown to be in a known TPM.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AttestationPublic {
    #[n(0)]
    version: u64,
    /// Its algorithms.
    #[n(1)]
    pub profile: Profile,
    /// TPMT_PUBLIC.
    #[cbor(n(2), with = "minicbor::bytes")]
    public: Vec<u8>,
}

impl AttestationPublic {
    /// A key by its TPMT_PUBLIC, as its TPM gave it out.
    #[must_use]
    pub fn new(profile: Profile, public: Vec<u8>) -> Self {
        Self { version: 1, profile, public }
    }

    /// The first bytes of its Name, in hexadecimal, for people to compare.
    #[must_use]
    pub fn id(&self) -> String {
        // What comes first is the hash's identifier, which all keys of a profile share.
        self.name().iter().skip(2).take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// TPMT_PUBLIC.
    #[must_use]
    pub fn public_area(&self) -> &[u8] {
        &self.public
    }

    /// The Name by which a credential is bound to the key.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        wire::name_of(self.profile, &self.public)
    }
}

impl Canonical for AttestationPublic {
    const WHAT: &'static str = "TPM attestation key";
    const BYTES_MAX: usize = 1_100;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        // Also where it is part of a key pair, whose version is another.
        if Some(self.version) != Self::VERSION {
            return Err("its public half has another version");
        }
        wire::attestation_point(self.profile, &self.public)
            .map(|_| ())
            .map_err(|_| "it is no restricted signing key that was made in a TPM")
    }
}

/// A quote with the values that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Quote {
    #[n(0)]
    version: u64,
    /// TPMS_ATTEST, as it was signed.
    #[cbor(n(1), with = "minicbor::bytes")]
    statement: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    r: Vec<u8>,
    #[cbor(n(3), with = "minicbor::bytes")]
    s: Vec<u8>,
    #[n(4)]
    values: PcrValues,
}

impl Canonical for Quote {
    const WHAT: &'static str = "TPM quote";
    const BYTES_MAX: usize = 2_400;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.statement.len() > STATEMENT_BYTES_MAX {
            return Err("its statement is too long");
        }
        self.values.selection().map(|_| ()).map_err(|_| "its registers are not sorted, or do not exist")
    }
}

/// What a verified quote says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted {
    /// The registers.
    pub values: PcrValues,
    /// Milliseconds that the TPM has been running.
    pub clock_ms: u64,
    /// Starts of the machine that the TPM has seen, and an offset that the TPM adds for this key: what counts is how many
    /// more they are than in an earlier quote of the same key.
    pub resets: u32,
    /// Resumes since the last start, with such an offset.
    pub restarts: u32,
    /// Whether the clock cannot have been set back by a power cut.
    pub clock_is_safe: bool,
    /// The firmware's version, with such an offset.
    pub firmware: u64,
}

/// Why a quote proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// A structure of the TPM's is not one.
    #[error("{0}")]
    Malformed(#[from] WireError),
    /// Another key signed it, or it was changed.
    #[error("the signature is not the attestation key's")]
    Signature,
    /// The TPM signed something else with this key.
    #[error("the signed statement is no quote")]
    NotAQuote,
    /// It answers another challenge.
    #[error("the nonce is not the one that was asked with")]
    Nonce,
    /// It is about other registers than were asked for.
    #[error("the quote is about other registers than were asked for")]
    Registers,
    /// The values that came with it are not those that were signed.
    #[error("the values are not those that the TPM signed")]
    Values,
}

impl Quote {
    /// A quote as its TPM made it, with the values that were read for it.
    #[must_use]
    pub fn new(statement: Vec<u8>, r: &[u8], s: &[u8], values: PcrValues) -> Self {
        Self { version: 1, statement, r: r.to_vec(), s: s.to_vec(), values }
    }

    /// The values that came with it: the TPM's only once they are verified.
    #[must_use]
    pub fn values(&self) -> &PcrValues {
        &self.values
    }

    /// Checks everything that does not depend on what the verifier expects the machine to run: that is a question to
    /// the values it returns.
    ///
    /// # Errors
    /// [`QuoteError`].
    pub fn verify(
        &self,
        key: &AttestationPublic,
        nonce: &[u8; NONCE_BYTES],
        selection: PcrSelection,
    ) -> Result<Quoted, QuoteError> {
        let profile = key.profile;
        let point = wire::attestation_point(profile, &key.public)?;
        let verifier =
            verifier(profile, &[&[4][..], &point.x, &point.y].concat()).ok_or(QuoteError::Signature)?;
        let (r, s) = (wire::padded(profile, &self.r)?, wire::padded(profile, &self.s)?);
        if !verifier.verify(&profile.hash(&[&self.statement]), &r, &s) {
            return Err(QuoteError::Signature);
        }
        let mut reader = Reader::new("the TPM's statement", &self.statement);
        if reader.u32()? != GENERATED || reader.u16()? != ATTEST_QUOTE {
            return Err(QuoteError::NotAQuote);
        }
        let _qualified_signer = reader.sized()?;
        if reader.sized()? != nonce {
            return Err(QuoteError::Nonce);
        }
        let (clock_ms, resets, restarts, safe) = (reader.u64()?, reader.u32()?, reader.u32()?, reader.u8()?);
        let firmware = reader.u64()?;
        let quoted = PcrSelection::from_wire(&mut reader)?;
        let digest = reader.sized()?;
        reader.end()?;
        if quoted != selection || self.values.selection() != Ok(selection) {
            return Err(QuoteError::Registers);
        }
        if digest != self.values.digest(profile) {
            return Err(QuoteError::Values);
        }
        let values = self.values.clone();
        Ok(Quoted { values, clock_ms, resets, restarts, clock_is_safe: safe == 1, firmware })
    }
}
