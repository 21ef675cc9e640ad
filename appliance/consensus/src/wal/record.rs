//! What the log says: the inputs that changed the state machine, in order.

use crate::host::TimerKind;
use crate::message::{Content, Polka, ProposalHead, SignedVote};
use minicbor::{Decode, Encode};
use std::sync::Arc;
use zixt_types::{ApplianceId, Hash, Round};

/// One input of the state machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// A header that was proposed, with its content if the host found it valid.
    Value { about: ValueHead, content: Option<Arc<Content>> },
    /// A proposal, ours or another's.
    Proposal(ProposalHead),
    /// A vote, ours or another's.
    Vote(SignedVote),
    /// A timer that ran out.
    Timeout(TimerKind, Round),
    /// Prevotes of more than two thirds, in one piece.
    Polka(Polka),
}

/// What stands in the log about a value, before its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ValueHead {
    #[n(0)]
    pub round: Round,
    #[n(1)]
    pub polka: Option<Round>,
    #[n(2)]
    pub proposer: ApplianceId,
    #[n(3)]
    pub header: Hash,
}

/// The encoded part of a record. The content's bytes follow it as they are: a batch is too large to copy twice.
#[derive(Encode, Decode)]
enum Encoded {
    #[n(0)]
    Value(#[n(0)] ValueHead, #[n(1)] Option<ContentLength>),
    #[n(1)]
    Proposal(#[n(0)] ProposalHead),
    #[n(2)]
    Vote(#[n(0)] SignedVote),
    #[n(3)]
    Timeout(#[n(0)] TimerKind, #[n(1)] Round),
    #[n(4)]
    Polka(#[n(0)] Polka),
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct ContentLength {
    #[n(0)]
    header: u32,
    #[n(1)]
    batch: u32,
}

impl Record {
    /// The encoding: one part that is made here and the content's own bytes.
    pub fn to_parts(&self) -> (Vec<u8>, Vec<&[u8]>) {
        let (encoded, tail) = match self {
            Self::Value { about, content: None } => (Encoded::Value(*about, None), Vec::new()),
            Self::Value { about, content: Some(content) } => {
                // Lengths beyond 4 GiB are refused by the log's own bound right after this.
                let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let lengths =
                    ContentLength { header: length(&content.header), batch: length(&content.batch) };
                (Encoded::Value(*about, Some(lengths)), vec![&content.header[..], &content.batch[..]])
            }
            Self::Proposal(proposal) => (Encoded::Proposal(*proposal), Vec::new()),
            Self::Vote(vote) => (Encoded::Vote(vote.clone()), Vec::new()),
            Self::Timeout(kind, round) => (Encoded::Timeout(*kind, *round), Vec::new()),
            Self::Polka(polka) => (Encoded::Polka(polka.clone()), Vec::new()),
        };
        let mut head = Vec::new();
        match minicbor::encode(&encoded, &mut head) {
            Ok(()) => (head, tail),
            // Writing to a Vec cannot fail and no `Encode` of ours returns an error of its own.
            Err(_) => unreachable!("encoding to memory"),
        }
    }

    /// Reads what [`Record::to_parts`] wrote. The error is for people.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let encoded: Encoded = decoder.decode().map_err(|error| error.to_string())?;
        let tail = &bytes[decoder.position().min(bytes.len())..];
        let record = match encoded {
            Encoded::Value(about, Some(lengths)) => {
                let header = usize::try_from(lengths.header).map_err(|error| error.to_string())?;
                let batch = usize::try_from(lengths.batch).map_err(|error| error.to_string())?;
                if header.checked_add(batch) != Some(tail.len()) {
                    return Err(format!("{} bytes of content, expected {header} + {batch}", tail.len()));
                }
                let (header, batch) = tail.split_at(header);
                let content = Content { header: header.to_vec(), batch: batch.to_vec() };
                return Ok(Self::Value { about, content: Some(Arc::new(content)) });
            }
            Encoded::Value(about, None) => Self::Value { about, content: None },
            Encoded::Proposal(proposal) => Self::Proposal(proposal),
            Encoded::Vote(vote) => Self::Vote(vote),
            Encoded::Timeout(kind, round) => Self::Timeout(kind, round),
            Encoded::Polka(polka) => Self::Polka(polka),
        };
        if tail.is_empty() { Ok(record) } else { Err(format!("{} bytes too many", tail.len())) }
    }
}
