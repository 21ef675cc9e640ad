//! What a machine says it started, as a file: a quote, the key that signed it, and the TPM's endorsement key.
//!
//! The key is compared with the one of an earlier file, which an officer took at the machine when it was provisioned. So a
//! check proves that the same TPM speaks, now, and what its registers hold. That it is a TPM of a known maker is not
//! proven: nobody reads its certificate.

use crate::pcr::PcrValues;
use crate::quote::{AttestationPublic, NONCE_BYTES, Quote, QuoteError, Quoted};
use minicbor::{Decode, Encode};
use zixt_types::Canonical;

/// Most bytes of an endorsement key; real ones are below 300.
const ENDORSEMENT_BYTES_MAX: usize = 1_100;

/// The end of its file's name.
pub const QUOTE_EXTENSION: &str = "zixt-quote";

/// A quote with the keys that it is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Attestation {
    #[n(0)]
    version: u64,
    /// The key that signed it.
    #[n(1)]
    pub key: AttestationPublic,
    /// The TPM's endorsement key, which custody can tell only while it is open.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub endorsement: Option<Vec<u8>>,
    /// The quote.
    #[n(3)]
    pub quote: Quote,
}

impl Canonical for Attestation {
    const WHAT: &'static str = "quote of a machine";
    const BYTES_MAX: usize = 5_000;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.endorsement.as_ref().is_some_and(|key| key.len() > ENDORSEMENT_BYTES_MAX) {
            return Err("its endorsement key is too long");
        }
        self.key.check()?;
        self.quote.check()
    }
}

/// Why a machine's word is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// The quote itself.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// Another attestation key than in the reference.
    #[error("another attestation key than the reference's signed it: another TPM, or one that was cleared")]
    OtherKey,
    /// Another endorsement key than in the reference.
    #[error("the endorsement key is not the reference's: another TPM")]
    OtherTpm,
    /// The machine started something else than was expected.
    #[error("the machine started something else than was expected: registers {changed:?} differ")]
    Started {
        /// The registers that differ.
        changed: Vec<u8>,
    },
}

impl Attestation {
    /// What custody hands out.
    #[must_use]
    pub fn new(key: AttestationPublic, endorsement: Option<Vec<u8>>, quote: Quote) -> Self {
        Self { version: 1, key, endorsement, quote }
    }

    /// Checks it: against the nonce, an earlier file of the same machine, and what the registers are expected to hold; the
    /// reference's values if nothing else is expected.
    ///
    /// # Errors
    /// [`AttestationError`].
    pub fn verify(
        &self,
        nonce: &[u8; NONCE_BYTES],
        reference: Option<&Self>,
        expected: Option<&PcrValues>,
    ) -> Result<Quoted, AttestationError> {
        let key = reference.map_or(&self.key, |reference| &reference.key);
        if *key != self.key {
            return Err(AttestationError::OtherKey);
        }
        let known = reference.and_then(|reference| reference.endorsement.as_ref());
        if matches!((known, &self.endorsement), (Some(known), Some(told)) if known != told) {
            return Err(AttestationError::OtherTpm);
        }
        let expected = expected.or(reference.map(|reference| reference.quote.values()));
        let about = expected.unwrap_or(self.quote.values());
        let selection = about.selection().map_err(|_| QuoteError::Registers)?;
        let quoted = self.quote.verify(key, nonce, selection)?;
        match about.changed_from(&quoted.values) {
            changed if changed.is_empty() => Ok(quoted),
            changed => Err(AttestationError::Started { changed }),
        }
    }
}
