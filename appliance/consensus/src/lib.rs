//! Consensus over headers: Malachite (Tendermint, arXiv:1807.04938) as a synchronous engine.
//!
//! [`Engine`] is a state machine without thread, clock or network: inputs come in, the [`Host`] is called. A single
//! appliance is one validator through the same code; nothing here asks for `n == 1`, except that a sole validator
//! neither publishes nor waits for others. The host is called from within the engine's calls and must not call back.
//!
//! # A height, and what is durable when
//!
//! | # | what is made durable | by whom | when | why |
//! |---|---|---|---|---|
//! | 1 | value (header and batch), proposal, others' votes and timeouts so far | this log, one fdatasync | begun when the prevote is to be signed, **beside** 2; joined before 3 is asked for | a validator precommits only what it can produce again, and a restart must lead back to the same lock |
//! | 2 | (height, round, prevote, header) | custody daemon | before it releases the prevote | no second prevote for the slot |
//! | 3 | (height, round, precommit, header) | custody daemon | before it releases the precommit | no second precommit for the slot |
//! | 4 | batch, header, certificate | the host's store, in [`Host::decided`] or after it | before [`Engine::start_height`] of the next height | the log forgets the height then |
//!
//! 1 and 2 run at the same time, so that a height waits for three flushes in a row, not four. Our own votes are written
//! to the log too, but never flushed for their own sake: the custody daemon has them durably and gives them back.
//! Beginning a height writes and flushes nothing: the log is recycled, and the next record overwrites the old ones.
//! If a round fails, its precommit for nil flushes once more, because a timeout then is what led to it. In later rounds
//! the prevote, too, waits for the log: custody never goes back to an earlier slot, so that a crash must not take us
//! back to an earlier round.
//!
//! # After a crash
//!
//! [`Engine::start_height`] replays what the log has of the height and goes on. It never knowingly asks the custody
//! daemon for a second vote in a slot, but the log may have lost the last records, so that the state machine asks for
//! another vote than the one that was signed. The daemon then gives the earlier one back
//! ([`SignOutcome::AlreadySigned`]), and it takes the place of the one asked for:
//! - an earlier **prevote**: it is counted as ours. At one validator it is a polka for a header whose content is lost;
//!   nothing can come of the round, so that it precommits nil and proposes anew in the next round. With others the
//!   round goes on with our earlier word.
//! - an earlier **precommit for nil**: counted as ours. The state machine keeps the lock that it has just taken, which is
//!   stricter than need be, and proposes the same header in the next round.
//! - an earlier **precommit for a header** that the state machine does not ask for: the header may have been decided with
//!   it, at one validator it has been. By the rule above the log cannot have lost it unless the disk broke its promise
//!   or was rolled back. [`EngineError::LockLost`] stops the engine. [`Host::signed_precommit`] finds the same at start,
//!   before any vote in a later round could break the forgotten lock.
//! - no vote at all, because a **later slot** is signed ([`SignOutcome::BelowHighest`]): we abstain in this one.
//!
//! Replay trusts the disk with nothing but order: votes are verified again, content is judged again by
//! [`Host::validate`]. Checksums are against accidents; a log that was damaged where it had been durable is an error
//! ([`WalError::Damaged`]), a torn tail is cut off.
//!
//! # Proposals are not signed
//!
//! A certificate is the precommits of a quorum, and there is no other signature on a height. Malachite 0.8.2 has no
//! mode without a proposal message and asks the host to sign it; we answer with an empty signature, and take a proposal
//! only from the proposer's own authenticated link, or from anyone if a polka vouches for it. This spares a signature
//! and an fsync per height, and custody never signs anything but votes. No rule of the protocol counts proposals, so
//! safety does not rest on them. What is lost: a proposer that sends different headers to different validators wastes a
//! round and leaves no proof that could slash it. Votes that conflict still do ([`Host::equivocation`]).
//!
//! # A key that the height itself activates
//!
//! Officers may replace a validator's key. The entry that records it is certified by the set after it: the new key signs
//! every vote for such a header, the old one signs nothing any more ([`Host::certifiers`]). Appliances and stakes stay,
//! so that proposers, thresholds and the state machine see no difference; only the key under which a vote counts depends
//! on what is voted for. A vote that comes before its header's content and is not good under the present key waits for
//! it. A precommit under a retired key that was counted before the content came makes this appliance refuse the header:
//! it fetches the decision from the others. A validator whose new key is not recorded yet abstains from everything else
//! ([`SignOutcome::OtherKey`]); alone, it has nothing else to decide.
//!
//! # When to start a height
//!
//! A started height runs its timers and goes through rounds even if nobody has anything to say, and each round costs
//! votes. So the host starts a height when it has entries, or when [`Engine::has_waiting_messages`] tells that others
//! have begun, or at once after a crash if [`Engine::has_unfinished_height`].

mod context;
mod engine;
mod host;
mod judge;
mod message;
mod shell;
mod validators;
mod wal;

pub use engine::{Config, Engine, EngineError, HeightStart, Received, Timeouts};
pub use host::{Decision, Equivocation, Host, HostError, Proposed, SignOutcome, Source, Timer, TimerKind};
pub use message::{Content, Message, Polka, ProposalHead, RoundChange, RoundChangeKind, SignedVote};
pub use validators::{STAKE_TOTAL_MAX, Validator, ValidatorSet, ValidatorSetError};
pub use wal::{DiskFile, Flush, Wal, WalError, WalFile, WalStats};
