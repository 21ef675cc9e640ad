//! Signatures and quorums of others.

use crate::context::{Address, Ballot, Context, CoreRound, Height, Signature};
use crate::validators::ValidatorSet;
use malachite_types::{
    CertificateError, CommitCertificate, NilOrVal, PolkaCertificate, RoundCertificate, RoundCertificateType,
    ThresholdParams, ValidatorSet as _, VoteType,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use zixt_crypto::Backend;
use zixt_crypto::digest::vote_bytes;
use zixt_types::{Hash, SuiteId};

/// Judges for one height: its suite and its validators.
pub(crate) struct Judge {
    pub backend: Arc<dyn Backend>,
    pub genesis: Hash,
    pub suite: SuiteId,
    pub validators: ValidatorSet,
    /// Who certifies a header whose batch gives a validator another key: the height's set with that key.
    pub others: BTreeMap<Hash, ValidatorSet>,
}

type Verdict = Result<(), CertificateError<Context>>;

impl Judge {
    /// Is this the validator's signature over the vote? A vote for a header is judged by the set that certifies it; as
    /// long as nobody has seen the header's content, by the height's. A vote for nothing certifies nothing: it counts
    /// under the present key, and under one that content of this height activates.
    pub fn is_genuine(&self, ballot: &Ballot, signature: &Signature) -> bool {
        match ballot.value {
            NilOrVal::Val(header) => {
                let set = self.others.get(&header).unwrap_or(&self.validators);
                self.is_genuine_in(set, ballot, signature)
            }
            NilOrVal::Nil => {
                let mut sets = std::iter::once(&self.validators).chain(self.others.values());
                sets.any(|set| self.is_genuine_in(set, ballot, signature))
            }
        }
    }

    /// Is this the signature of the key that the validator has in this set?
    pub fn is_genuine_in(&self, set: &ValidatorSet, ballot: &Ballot, signature: &Signature) -> bool {
        let Some(validator) = set.get_by_address(&ballot.validator) else { return false };
        let vote = ballot.to_vote(self.suite, self.genesis);
        self.backend.verify(self.suite, &validator.key.0, &vote_bytes(&vote), &signature.0).is_ok()
    }

    /// A certificate that the state machine made of votes that were verified one by one when they came: only the
    /// stake is counted again.
    pub fn own_certificate(&self, certificate: &CommitCertificate<Context>) -> Verdict {
        let signers = certificate.commit_signatures.iter().map(|one| (one.address, true));
        self.quorum(signers, ThresholdParams::default().quorum, CertificateError::DuplicateVote)
    }

    /// A polka that a peer sent.
    pub fn polka(&self, polka: &PolkaCertificate<Context>) -> Verdict {
        let value = NilOrVal::Val(polka.value_id);
        let signers = polka.polka_signatures.iter().map(|one| {
            let about = (polka.height, polka.round, VoteType::Prevote, value);
            (one.address, self.is_signed(about, one.address, &one.signature))
        });
        self.quorum(signers, ThresholdParams::default().quorum, |_| CertificateError::VerificationError(None))
    }

    /// Votes for a later round that a peer sent.
    pub fn round_change(&self, change: &RoundCertificate<Context>) -> Verdict {
        let threshold = match change.cert_type {
            RoundCertificateType::Precommit => ThresholdParams::default().quorum,
            RoundCertificateType::Skip => ThresholdParams::default().honest,
        };
        let signers = change.round_signatures.iter().map(|one| {
            let fits = change.cert_type == RoundCertificateType::Skip || one.vote_type == VoteType::Precommit;
            let about = (change.height, change.round, one.vote_type, one.value_id);
            (one.address, fits && self.is_signed(about, one.address, &one.signature))
        });
        self.quorum(signers, threshold, |_| CertificateError::VerificationError(None))
    }

    fn is_signed(
        &self,
        (height, round, step, value): (Height, CoreRound, VoteType, NilOrVal<Hash>),
        validator: Address,
        signature: &Signature,
    ) -> bool {
        let ballot = Ballot { height, round, step, value, validator };
        self.is_genuine(&ballot, signature)
    }

    /// Adds up the stake of distinct validators. One bad signature refuses the whole: an honest peer sends none.
    fn quorum(
        &self,
        signers: impl Iterator<Item = (Address, bool)>,
        threshold: malachite_types::ThresholdParam,
        bad: impl Fn(Address) -> CertificateError<Context>,
    ) -> Verdict {
        let mut seen = Vec::new();
        let mut signed = 0_u64;
        for (address, genuine) in signers {
            if seen.contains(&address) {
                return Err(CertificateError::DuplicateVote(address));
            }
            let validator = self
                .validators
                .get_by_address(&address)
                .ok_or(CertificateError::UnknownValidator(address))?;
            if !genuine {
                return Err(bad(address));
            }
            seen.push(address);
            // Distinct members of the set: their stake never exceeds its total.
            signed = signed.saturating_add(validator.stake());
        }
        let total = self.validators.total();
        if threshold.is_met(signed, total) {
            Ok(())
        } else {
            let expected = threshold.min_expected(total);
            Err(CertificateError::NotEnoughVotingPower { signed, total, expected })
        }
    }
}
