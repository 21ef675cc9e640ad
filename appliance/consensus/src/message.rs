//! What validators say to each other. The mesh carries these as opaque frames; [`Message::parse`] is the way in.

use minicbor::{Decode, Encode};
use std::sync::Arc;
use zixt_types::{ApplianceId, Canonical, CertificateSignature, Hash, Height, Round, Vote, limits};

/// The bytes that a header hash stands for: what is decided, validated and logged, never looked into here.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(array)]
pub struct Content {
    /// The header, as the ledger encodes it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// The batch of entries that leads to the header.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub batch: Vec<u8>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} + {} bytes)", self.header.len(), self.batch.len())
    }
}

/// "In this round I propose this header." Not signed: see the crate's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ProposalHead {
    /// The height.
    #[n(0)]
    pub height: Height,
    /// The round.
    #[n(1)]
    pub round: Round,
    /// If the header was proposed before and more than two thirds prevoted for it: in which round.
    #[n(2)]
    pub polka: Option<Round>,
    /// The proposer of that round.
    #[n(3)]
    pub proposer: ApplianceId,
    /// The header's hash.
    #[n(4)]
    pub header: Hash,
}

/// A vote with its signature.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SignedVote {
    /// Who votes.
    #[n(0)]
    pub validator: ApplianceId,
    /// The vote.
    #[n(1)]
    pub vote: Vote,
    /// ML-DSA over the label `VOTE` and the vote's bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// Proof that more than two thirds of all stake prevoted for a header: it may be proposed again in a later round.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Polka {
    /// The height.
    #[n(0)]
    pub height: Height,
    /// The round of the prevotes.
    #[n(1)]
    pub round: Round,
    /// The header's hash.
    #[n(2)]
    pub header: Hash,
    /// The prevotes' signatures.
    #[n(3)]
    pub signatures: Vec<CertificateSignature>,
}

/// What a [`RoundChange`] proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum RoundChangeKind {
    /// Votes of more than a third of all stake in the round: skip to it.
    #[n(0)]
    Skip,
    /// Precommits of more than two thirds of all stake in the round: go to the next one.
    #[n(1)]
    Precommits,
}

/// Proof that a later round has begun.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RoundChange {
    /// The height.
    #[n(0)]
    pub height: Height,
    /// The round of the votes.
    #[n(1)]
    pub round: Round,
    /// What is proved.
    #[n(2)]
    pub kind: RoundChangeKind,
    /// The votes.
    #[n(3)]
    pub votes: Vec<SignedVote>,
}

/// A message from one validator to the others.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Message {
    /// A proposal with everything needed to judge it.
    #[n(0)]
    Proposal(#[n(0)] ProposalHead, #[cbor(n(1), with = "shared")] Arc<Content>),
    /// A vote.
    #[n(1)]
    Vote(#[n(0)] SignedVote),
    /// Prevotes that allow a header to be proposed again.
    #[n(2)]
    Polka(#[n(0)] Polka),
    /// Votes that justify a later round.
    #[n(3)]
    RoundChange(#[n(0)] RoundChange),
}

impl Message {
    /// The height that the message is about.
    #[must_use]
    pub fn height(&self) -> Height {
        match self {
            Self::Proposal(head, _) => head.height,
            Self::Vote(vote) => vote.vote.height,
            Self::Polka(polka) => polka.height,
            Self::RoundChange(change) => change.height,
        }
    }
}

impl Canonical for Message {
    const WHAT: &'static str = "consensus message";
    const BYTES_MAX: usize =
        limits::BATCH_BYTES_MAX + limits::HEADER_BYTES_MAX + limits::CERTIFICATE_BYTES_MAX;

    fn check(&self) -> Result<(), &'static str> {
        let signatures = match self {
            Self::Proposal(_, content) if content.header.len() > limits::HEADER_BYTES_MAX => {
                return Err("its header is too long");
            }
            Self::Proposal(_, content) if content.batch.len() > limits::BATCH_BYTES_MAX => {
                return Err("its batch is too long");
            }
            Self::Proposal(..) | Self::Vote(_) => 1,
            Self::Polka(polka) => polka.signatures.len(),
            Self::RoundChange(change) => change.votes.len(),
        };
        if signatures > limits::GENESIS_KEYS_MAX {
            return Err("it has more signatures than a network may have validators");
        }
        Ok(())
    }
}

mod shared {
    use super::{Arc, Content};
    use minicbor::{Decode, Decoder, Encode, Encoder};

    pub fn encode<C, W: minicbor::encode::Write>(
        content: &Arc<Content>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        content.as_ref().encode(e, ctx)
    }

    pub fn decode<'b, C>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Arc<Content>, minicbor::decode::Error> {
        Content::decode(d, ctx).map(Arc::new)
    }
}
