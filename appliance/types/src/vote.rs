//! Votes of the consensus. A validator's key signs nothing else.

use crate::{Canonical, Hash, Height, Round, SuiteId, limits};
use minicbor::{Decode, Encode};

/// The two votes of a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum VoteStep {
    /// The first vote of a round.
    #[n(0)]
    Prevote,
    /// The second vote of a round; more than two thirds of them are the certificate.
    #[n(1)]
    Precommit,
}

/// A vote. What is signed is the label `VOTE` followed by this encoding.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Vote {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The suite of the signature.
    #[n(1)]
    pub suite: SuiteId,
    /// Hash of the genesis.
    #[n(2)]
    pub genesis: Hash,
    /// The height.
    #[n(3)]
    pub height: Height,
    /// The round.
    #[n(4)]
    pub round: Round,
    /// Which of the two votes.
    #[n(5)]
    pub step: VoteStep,
    /// Hash of the header voted for; `None` is a vote for nothing (nil).
    #[n(6)]
    pub header: Option<Hash>,
}

impl Vote {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// The slot that a validator may fill once: height, round and step.
    #[must_use]
    pub const fn slot(&self) -> (Height, Round, VoteStep) {
        (self.height, self.round, self.step)
    }
}

impl Canonical for Vote {
    const WHAT: &'static str = "vote";
    const BYTES_MAX: usize = limits::VOTE_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.height.0 == 0 { Err("height 0 is the genesis; nobody votes on it") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(height in 1u64.., round: u32, precommit: bool, nil: bool, byte: u8) {
            let vote = Vote {
                version: 1,
                suite: SuiteId::Cnsa,
                genesis: Hash([byte; 48]),
                height: Height(height),
                round: Round(round),
                step: if precommit { VoteStep::Precommit } else { VoteStep::Prevote },
                header: (!nil).then_some(Hash([byte ^ 1; 48])),
            };
            prop_assert_eq!(Vote::parse(&vote.to_bytes()), Ok(vote));
        }
    }
}
