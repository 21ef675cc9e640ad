//! Checking the certificate of a height.

use crate::Keyring;
use thiserror::Error;
use zixt_crypto::{Backend, VerifyError, digest};
use zixt_types::{ApplianceId, Certificate, Hash, Header, Validator, Vote, VoteStep};

/// Why a certificate does not make a header final.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is about another height or header.
    #[error("the certificate is for header {certified} at height {height}, not for this header")]
    OtherHeader {
        /// The height that it names.
        height: zixt_types::Height,
        /// The header that it names.
        certified: Hash,
    },
    /// The header names another validator set.
    #[error("the header was made by another validator set")]
    OtherValidators,
    /// A signer is no validator.
    #[error("signer {0} is no validator at this height")]
    UnknownSigner(ApplianceId),
    /// A validator's public key is not at hand.
    #[error("the public key of validator {0} is missing")]
    KeyMissing(ApplianceId),
    /// A signature is not good.
    #[error("the signature of validator {0} is not good: {1}")]
    Signature(ApplianceId, VerifyError),
    /// The signers have too little stake.
    #[error("the signers hold {signed} of {total} stake; more than two thirds are needed")]
    TooLittleStake {
        /// Stake of the signers.
        signed: u64,
        /// Stake of all validators.
        total: u64,
    },
}

/// The stake behind a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedStake {
    /// Stake of the signers.
    pub signed: u64,
    /// Stake of all validators.
    pub total: u64,
}

/// Checks that more than two thirds of the stake of `validators` signed a precommit for `header`.
///
/// # Errors
/// See [`CertificateError`].
pub fn verify_certificate(
    header: &Header,
    certificate: &Certificate,
    validators: &[Validator],
    keyring: &Keyring,
    backend: &dyn Backend,
) -> Result<SignedStake, CertificateError> {
    let header_hash = digest::header_hash(header);
    if certificate.height != header.height || certificate.header != header_hash {
        return Err(CertificateError::OtherHeader {
            height: certificate.height,
            certified: certificate.header,
        });
    }
    if header.validators != digest::validator_set_hash(validators) {
        return Err(CertificateError::OtherValidators);
    }
    let vote = Vote {
        version: Vote::VERSION,
        suite: header.suite,
        genesis: header.genesis,
        height: header.height,
        round: certificate.round,
        step: VoteStep::Precommit,
        header: Some(header_hash),
    };
    let message = digest::vote_bytes(&vote);
    let total = validators.iter().fold(0u64, |sum, validator| sum.saturating_add(validator.stake));
    let mut signed = 0u64;
    // `Certificate::parse` refuses repeated signers; a certificate built in memory is compared here again because
    // counting one stake twice would be fatal.
    let mut last = None;
    for signature in &certificate.signatures {
        let id = signature.validator;
        if last.is_some_and(|last| last >= id) {
            return Err(CertificateError::UnknownSigner(id));
        }
        last = Some(id);
        let validator = validators
            .iter()
            .find(|validator| validator.appliance == id)
            .ok_or(CertificateError::UnknownSigner(id))?;
        let key = keyring
            .get(&validator.consensus)
            .filter(|entry| entry.suite == header.suite)
            .ok_or(CertificateError::KeyMissing(id))?;
        backend
            .verify(header.suite, &key.key, &message, &signature.signature)
            .map_err(|error| CertificateError::Signature(id, error))?;
        signed = signed.saturating_add(validator.stake);
    }
    if u128::from(signed) * 3 > u128::from(total) * 2 {
        Ok(SignedStake { signed, total })
    } else {
        Err(CertificateError::TooLittleStake { signed, total })
    }
}
