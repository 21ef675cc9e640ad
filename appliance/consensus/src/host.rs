//! What the engine needs from the process around it: the ledger's rules, the custody daemon, the mesh, a clock.

use crate::message::{Content, Message, SignedVote};
use crate::validators::ValidatorSet;
use core::time::Duration;
use minicbor::{Decode, Encode};
use std::sync::Arc;
use zixt_types::{Certificate, Hash, Height, Round, Vote};

/// A failure of the host that consensus cannot work around. The engine stops; the process starts again and replays.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// A header to propose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// Hash of the header: what is voted on.
    pub header: Hash,
    /// Header and batch.
    pub content: Arc<Content>,
}

/// Where content to be judged comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Another validator proposed it.
    Peer,
    /// This appliance's log, after a restart. It was valid before; the disk is not trusted, so it is judged again.
    /// The judgement must not depend on the time at which it is made.
    Log,
}

/// What the custody daemon answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignOutcome {
    /// It has durably noted the vote and signed it.
    Signed(Vec<u8>),
    /// It has signed another vote for the same height, round and step before, and gives that one back.
    AlreadySigned {
        /// The earlier vote.
        vote: Vote,
        /// Its signature.
        signature: Vec<u8>,
    },
    /// It has signed a later slot, and nothing in this one; it never goes back. We abstain: the state machine goes on
    /// as if our vote had been lost. Does not come unless a disk breaks its promise: what leads to a later round is
    /// durable before a vote in it is asked for.
    BelowHighest,
    /// The key that it has is not the one under which this vote would count: another is active since, and the ledger does
    /// not know it yet. We abstain; a sole validator cannot, and stops. The reason is for people.
    OtherKey(String),
    /// It does not sign: locked, quarantined, unprovisioned, or the request is not allowed. For people.
    Refused(String),
}

/// What has been decided at a height.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The height.
    pub height: Height,
    /// The round that the certificate is of.
    pub round: Round,
    /// Hash of the header.
    pub header: Hash,
    /// Header and batch.
    pub content: Arc<Content>,
    /// Precommits of more than two thirds of all stake.
    pub certificate: Certificate,
}

/// Two votes of one validator for the same height, round and step: proof of misconduct by themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Equivocation {
    /// The vote that arrived first.
    pub first: SignedVote,
    /// The conflicting one.
    pub second: SignedVote,
}

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum TimerKind {
    /// No proposal came: prevote nil.
    #[n(0)]
    Propose,
    /// Prevotes of two thirds came, but not for one header: precommit nil.
    #[n(1)]
    Prevote,
    /// Precommits of two thirds came, but not for one header: next round.
    #[n(2)]
    Precommit,
    /// Nothing happens: say again what was said.
    #[n(3)]
    Rebroadcast,
}

/// A timer. The host gives it back through [`crate::Engine::timeout`] when it runs out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timer {
    /// The height it belongs to.
    pub height: Height,
    /// The round it belongs to.
    pub round: Round,
    /// What it is for.
    pub kind: TimerKind,
}

/// The process around the engine. All calls come from within a call of the engine, on the same thread, and must not
/// call the engine.
pub trait Host {
    /// We propose: makes a header over the entries that wait. `None` if there is nothing yet; then
    /// [`crate::Engine::propose`] may bring it until the round's timer runs out.
    ///
    /// # Errors
    /// Stops the engine.
    fn build(&mut self, height: Height, round: Round) -> Result<Option<Proposed>, HostError>;

    /// Judges content by the state at the height before: does it hash to `header`, does the batch lead to it, is every
    /// entry valid? A pure function of that state and the bytes, on every appliance.
    ///
    /// # Errors
    /// Stops the engine. Bad content is `Ok(false)`.
    fn validate(
        &mut self,
        height: Height,
        header: &Hash,
        content: &Content,
        source: Source,
    ) -> Result<bool, HostError>;

    /// Who certifies a header, if its own batch gives a validator another key: then that key signs every vote for it, the
    /// present one none. Asked when content was judged good, built or logged. Appliances and stakes are the height's.
    /// A pure function of the state at the height before and the content, on every appliance.
    ///
    /// # Errors
    /// Stops the engine.
    fn certifiers(&mut self, height: Height, header: &Hash) -> Result<Option<ValidatorSet>, HostError> {
        let _ = (height, header);
        Ok(None)
    }

    /// Whether custody's key is the one of ours that votes for a header which [`Host::certifiers`] gave another set. It
    /// may have been replaced once more since.
    ///
    /// # Errors
    /// Stops the engine: the daemon cannot be reached.
    fn signs_for(&mut self, header: &Hash) -> Result<bool, HostError> {
        let _ = header;
        Ok(true)
    }

    /// Has the custody daemon sign a vote. It notes (height, round, step, header) durably before it answers, and
    /// never signs two votes for one slot.
    ///
    /// # Errors
    /// Stops the engine: the daemon cannot be reached.
    fn sign_vote(&mut self, vote: &Vote) -> Result<SignOutcome, HostError>;

    /// The newest precommit for a header (not nil) that the custody daemon has signed at `height`. Asked once, at
    /// start. If the log does not lead back to it, we have forgotten a lock and must not vote; the engine then stops
    /// with [`crate::EngineError::LockLost`]. `None` if there is none, or if the daemon cannot tell (then only a
    /// conflict in the same slot is noticed).
    ///
    /// # Errors
    /// Stops the engine.
    fn signed_precommit(&mut self, height: Height) -> Result<Option<(Round, Hash)>, HostError>;

    /// Sends a message to all other validators. Never called by a sole validator.
    fn publish(&mut self, message: Message);

    /// Starts a timer.
    fn schedule(&mut self, timer: Timer, after: Duration);

    /// Stops a timer. One that fires nevertheless is ignored.
    fn cancel(&mut self, timer: Timer);

    /// The height is decided. May come again after a restart, until [`crate::Engine::start_height`] is called for the
    /// next one; the host calls that only when the decision is durable in its own store.
    ///
    /// # Errors
    /// Stops the engine.
    fn decided(&mut self, decision: Decision) -> Result<(), HostError>;

    /// A validator has voted twice. Comes after the height is decided.
    fn equivocation(&mut self, evidence: Equivocation);
}
