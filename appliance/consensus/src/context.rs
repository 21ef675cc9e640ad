//! Zixt's words for Malachite's [`Context`](malachite_types::Context).
//!
//! We run `ProposalAndParts`: the state machine handles header hashes only; content travels beside it, and the
//! engine keeps it. Why proposals carry no signature is told in the crate's documentation.

use crate::message::{ProposalHead, SignedVote};
use crate::validators::{Validator, ValidatorSet};
use core::fmt;
use malachite_types::{LinearTimeouts, NilOrVal, SignedExtension, VoteType};
use std::sync::Arc;
use zixt_types::{ApplianceId, Hash, SuiteId, VoteStep};

pub(crate) use malachite_types::Round as CoreRound;

/// Names the types. Holds nothing: genesis and suite enter where bytes are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context;

/// A validator's address: its appliance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address(pub ApplianceId);

/// A height.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Height(pub u64);

/// A value to decide: the hash of a header is all that the state machine sees of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Value(pub Hash);

/// A public consensus key, encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(pub Arc<[u8]>);

/// An ML-DSA signature; empty on a proposal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature(pub Arc<[u8]>);

/// ML-DSA, as far as Malachite wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheme;

/// A proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    pub(crate) height: Height,
    pub(crate) round: CoreRound,
    pub(crate) polka: CoreRound,
    pub(crate) proposer: Address,
    pub(crate) value: Value,
}

/// A vote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ballot {
    pub(crate) height: Height,
    pub(crate) round: CoreRound,
    pub(crate) step: VoteType,
    pub(crate) value: NilOrVal<Hash>,
    pub(crate) validator: Address,
}

/// Parts travel beside the state machine; it never sees one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part;

impl malachite_types::Context for Context {
    type Address = Address;
    type Height = Height;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = Validator;
    type ValidatorSet = ValidatorSet;
    type Timeouts = LinearTimeouts;
    type Value = Value;
    type Vote = Ballot;
    type Extension = ();
    type SigningScheme = Scheme;

    fn select_proposer<'a>(
        &self,
        validators: &'a ValidatorSet,
        height: Height,
        round: CoreRound,
    ) -> &'a Validator {
        validators.proposer(zixt_types::Height(height.0), from_core(round))
    }

    fn new_proposal(
        &self,
        height: Height,
        round: CoreRound,
        value: Value,
        polka: CoreRound,
        proposer: Address,
    ) -> Proposal {
        Proposal { height, round, polka, proposer, value }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: CoreRound,
        value: NilOrVal<Hash>,
        validator: Address,
    ) -> Ballot {
        Ballot { height, round, step: VoteType::Prevote, value, validator }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: CoreRound,
        value: NilOrVal<Hash>,
        validator: Address,
    ) -> Ballot {
        Ballot { height, round, step: VoteType::Precommit, value, validator }
    }
}

/// A round that exists. The state machine's "no round yet" occurs only before the first one of a height, in which
/// nothing is voted or proposed.
pub(crate) fn from_core(round: CoreRound) -> zixt_types::Round {
    zixt_types::Round(round.as_u32().unwrap_or(0))
}

pub(crate) const fn to_core(round: zixt_types::Round) -> CoreRound {
    CoreRound::Some(round.0)
}

pub(crate) fn option_to_core(round: Option<zixt_types::Round>) -> CoreRound {
    round.map_or(CoreRound::Nil, to_core)
}

impl Ballot {
    /// The vote as it is signed.
    pub(crate) fn to_vote(&self, suite: SuiteId, genesis: Hash) -> zixt_types::Vote {
        zixt_types::Vote {
            version: zixt_types::Vote::VERSION,
            suite,
            genesis,
            height: zixt_types::Height(self.height.0),
            round: from_core(self.round),
            step: match self.step {
                VoteType::Prevote => VoteStep::Prevote,
                VoteType::Precommit => VoteStep::Precommit,
            },
            header: match self.value {
                NilOrVal::Nil => None,
                NilOrVal::Val(hash) => Some(hash),
            },
        }
    }
}

impl Proposal {
    pub(crate) fn to_head(&self) -> ProposalHead {
        ProposalHead {
            height: zixt_types::Height(self.height.0),
            round: from_core(self.round),
            polka: self.polka.as_u32().map(zixt_types::Round),
            proposer: self.proposer.0,
            header: self.value.0,
        }
    }
}

impl From<&ProposalHead> for malachite_types::SignedProposal<Context> {
    fn from(head: &ProposalHead) -> Self {
        let proposal = Proposal {
            height: Height(head.height.0),
            round: to_core(head.round),
            polka: option_to_core(head.polka),
            proposer: Address(head.proposer),
            value: Value(head.header),
        };
        Self::new(proposal, Signature::none())
    }
}

impl From<&SignedVote> for malachite_types::SignedVote<Context> {
    fn from(signed: &SignedVote) -> Self {
        let ballot = Ballot {
            height: Height(signed.vote.height.0),
            round: to_core(signed.vote.round),
            step: match signed.vote.step {
                VoteStep::Prevote => VoteType::Prevote,
                VoteStep::Precommit => VoteType::Precommit,
            },
            value: signed.vote.header.map_or(NilOrVal::Nil, NilOrVal::Val),
            validator: Address(signed.validator),
        };
        Self::new(ballot, Signature(signed.signature.as_slice().into()))
    }
}

impl malachite_types::Address for Address {}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite_types::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite_types::Value for Value {
    type Id = Hash;

    fn id(&self) -> Hash {
        self.0
    }
}

impl malachite_types::ProposalPart<Context> for Part {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

impl malachite_types::Proposal<Context> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> CoreRound {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> CoreRound {
        self.polka
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

impl malachite_types::Vote<Context> for Ballot {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> CoreRound {
        self.round
    }

    fn value(&self) -> &NilOrVal<Hash> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Hash> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.step
    }

    fn validator_address(&self) -> &Address {
        &self.validator
    }

    // Vote extensions are off at every height.
    fn extension(&self) -> Option<&SignedExtension<Context>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Context>> {
        None
    }

    fn extend(self, _: SignedExtension<Context>) -> Self {
        self
    }
}

impl malachite_types::SigningScheme for Scheme {
    type DecodingError = core::convert::Infallible;
    type Signature = Signature;
    type PublicKey = PublicKey;
    /// Private keys live in the custody daemon.
    type PrivateKey = ();

    fn decode_signature(bytes: &[u8]) -> Result<Signature, Self::DecodingError> {
        Ok(Signature(bytes.into()))
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, Self::DecodingError> {
        Ok(PublicKey(bytes.into()))
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

impl Signature {
    /// What stands on a proposal.
    pub(crate) fn none() -> Self {
        Self(Arc::new([]))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({} bytes)", self.0.len())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bytes)", self.0.len())
    }
}
