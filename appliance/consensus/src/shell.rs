//! The answers to what Malachite's core asks for while it processes one input.

use crate::context::{Address, Ballot, Context, CoreRound, Signature, from_core};
use crate::engine::{EngineError, Timeouts};
use crate::host::{Equivocation, Host, Proposed, SignOutcome, Timer, TimerKind};
use crate::judge::Judge;
use crate::message::{Content, Message, Polka, ProposalHead, RoundChange, RoundChangeKind, SignedVote};
use crate::validators::ValidatorSet;
use crate::wal::{Record, ValueHead, Wal};
use core::time::Duration;
use malachite_consensus::{
    ConsensusMsg, Effect, Input, LivenessMsg, MisbehaviorEvidence, Resumable, Resume, SignedConsensusMsg,
    VoteExtensionError,
};
use malachite_types::{
    CertificateError, CommitCertificate, NilOrVal, PolkaCertificate, RoundCertificate, RoundCertificateType,
    SignedMessage, Timeout, TimeoutKind, VoteType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use zixt_types::{ApplianceId, CertificateSignature, Hash, Height, Round, Vote, VoteStep};

/// Votes of one validator that wait for content: both steps of two rounds.
const HELD_PER_VALIDATOR_MAX: usize = 4;

/// Slot of a vote.
type Slot = (Height, Round, VoteStep);

/// What surrounds the state machine during one height.
pub(crate) struct Shell {
    pub me: ApplianceId,
    pub timeouts: Timeouts,
    pub verify_own: bool,
    pub wal: Wal,
    pub judge: Judge,
    pub height: Height,
    /// We are the only validator: nobody to send to, nobody to wait for.
    pub sole: bool,
    /// Inputs come from the log: nothing is logged again, and nothing is asked of the host but signatures.
    pub replaying: bool,
    /// Content by header hash.
    pub contents: BTreeMap<Hash, Arc<Content>>,
    /// Values that the log says we were about to propose.
    pub logged_values: BTreeMap<Round, Proposed>,
    /// Our votes at this height, and which of them the log has.
    pub own: BTreeMap<Slot, SignedVote>,
    pub logged: BTreeSet<Slot>,
    /// The newest lock that the custody daemon knows of, and that the state machine has.
    pub must_lock: Option<(Round, Hash)>,
    pub locked: Option<(Round, Hash)>,
    /// Timers that the state machine wants, and that the host has.
    pub timers: BTreeMap<Timer, Duration>,
    pub armed: BTreeSet<Timer>,
    /// Votes for headers whose content nobody has shown yet, not good under the present keys: content may bring another.
    pub held: Vec<SignedVote>,
    /// Precommits for such headers that are good under the present keys, and were counted.
    pub early: Vec<(Ballot, Signature)>,
    /// What is to be done when the input has been processed.
    pub wants_value: Option<Round>,
    pub decision: Option<CommitCertificate<Context>>,
    pub evidence: Vec<Equivocation>,
}

impl Shell {
    /// Answers one effect. An error abandons the input half-way: the engine must not be used after it.
    pub fn effect<H: Host>(
        &mut self,
        effect: Effect<Context>,
        host: &mut H,
    ) -> Result<Resume<Context>, EngineError> {
        Ok(match effect {
            Effect::CancelAllTimeouts(resume) => {
                self.timers.clear();
                resume.resume_with(())
            }
            Effect::CancelTimeout(timeout, resume) => {
                self.timer(timeout).map(|timer| self.timers.remove(&timer));
                resume.resume_with(())
            }
            Effect::ScheduleTimeout(timeout, resume) => {
                if let Some(timer) = self.timer(timeout) {
                    self.timers.insert(timer, self.timeouts.of(timer));
                }
                resume.resume_with(())
            }
            Effect::StartRound(_, _, _, _, resume) => resume.resume_with(()),
            Effect::PublishConsensusMsg(SignedConsensusMsg::Vote(vote), resume) => {
                self.publish(Message::Vote(self.to_signed(&vote)), host);
                resume.resume_with(())
            }
            Effect::PublishConsensusMsg(SignedConsensusMsg::Proposal(proposal), resume) => {
                match self.contents.get(&proposal.message.value.0) {
                    Some(content) => {
                        let message = Message::Proposal(proposal.message.to_head(), Arc::clone(content));
                        self.publish(message, host);
                    }
                    None => log::warn!("height {}: no content for our own proposal", self.height),
                }
                resume.resume_with(())
            }
            Effect::PublishLivenessMsg(message, resume) => {
                let message = match message {
                    LivenessMsg::Vote(vote) => Message::Vote(self.to_signed(&vote)),
                    LivenessMsg::PolkaCertificate(polka) => Message::Polka(to_polka(&polka)),
                    LivenessMsg::SkipRoundCertificate(change) => {
                        Message::RoundChange(self.to_round_change(&change))
                    }
                };
                self.publish(message, host);
                resume.resume_with(())
            }
            Effect::RepublishVote(vote, resume) => {
                self.publish(Message::Vote(self.to_signed(&vote)), host);
                resume.resume_with(())
            }
            Effect::RepublishRoundCertificate(change, resume) => {
                self.publish(Message::RoundChange(self.to_round_change(&change)), host);
                resume.resume_with(())
            }
            // The content goes out with the proposal, which always follows.
            Effect::RestreamProposal(_, _, _, _, _, resume) => resume.resume_with(()),
            Effect::GetValue(_, round, _, resume) => {
                self.wants_value = Some(from_core(round));
                resume.resume_with(())
            }
            Effect::Decide(certificate, _, resume) => {
                self.decision = Some(certificate);
                resume.resume_with(())
            }
            Effect::Finalize(_, _, evidence, resume) => {
                self.note_evidence(&evidence);
                resume.resume_with(())
            }
            Effect::SignVote(ballot, resume) => resume.resume_with(self.sign(&ballot, host)?),
            Effect::SignProposal(proposal, resume) => {
                resume.resume_with(SignedMessage::new(proposal, Signature::none()))
            }
            // The key that the core gives is of the height's set; the judge knows which one counts.
            Effect::VerifySignature(signed, _, resume) => {
                let genuine = match &signed.message {
                    // Judged when it came: see `Engine::take_proposal`.
                    ConsensusMsg::Proposal(_) => true,
                    ConsensusMsg::Vote(ballot) => {
                        self.is_ours(ballot, &signed.signature) || self.is_genuine(ballot, &signed.signature)
                    }
                };
                resume.resume_with(genuine)
            }
            Effect::VerifyCommitCertificate(certificate, _, _, resume) => {
                resume.resume_with(self.judge.own_certificate(&certificate))
            }
            Effect::VerifyPolkaCertificate(polka, _, _, resume) => {
                resume.resume_with(self.judge.polka(&polka))
            }
            Effect::VerifyRoundCertificate(change, _, _, resume) => {
                resume.resume_with(self.judge.round_change(&change))
            }
            Effect::WalAppend(_, input, resume) => {
                self.log(&input)?;
                resume.resume_with(())
            }
            // Not used: decided heights are fetched by the host with their certificates, and votes have no extensions.
            Effect::VerifyExtendedCommitCertificate(_, _, _, _, resume) => {
                resume.resume_with(Err(CertificateError::VerificationError(None)))
            }
            Effect::CertVerifiedSyncValue(_, _, resume) => resume.resume_with(()),
            Effect::CertRejectedSyncValue(_, _, _, resume) => resume.resume_with(()),
            Effect::ExtendVote(_, _, _, _, resume) => resume.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, resume) => {
                resume.resume_with(Err(VoteExtensionError::InvalidVoteExtension))
            }
        })
    }

    /// Gets a vote signed. What comes back may be another vote for the same slot: one that the custody daemon had
    /// signed before a crash in which the log lost what led to it.
    fn sign<H: Host>(
        &mut self,
        ballot: &Ballot,
        host: &mut H,
    ) -> Result<malachite_types::SignedVote<Context>, EngineError> {
        let asked = ballot.to_vote(self.judge.suite, self.judge.genesis);
        if let (Some((round, header)), Some(forgotten)) = (self.must_lock, self.forgotten_lock())
            && asked.round > round
        {
            return Err(EngineError::LockLost { height: self.height, round: forgotten, header });
        }
        match asked.step {
            // The flush runs while the custody daemon makes its own note of the prevote durable.
            VoteStep::Prevote if asked.round == Round(0) => self.wal.flush_begin()?,
            // Custody never goes back to an earlier slot. So what led to a later round must be durable before it signs
            // there, or a crash would leave us in a round in which it no longer votes.
            VoteStep::Prevote => self.wal.flush_wait()?,
            // The rule: no precommit before everything that leads to it is durable here.
            VoteStep::Precommit => self.wal.flush_wait()?,
        }
        let logged = self.own.get(&asked.slot()).filter(|logged| self.is_genuine_own(logged));
        let signed = match logged {
            Some(logged) => logged.clone(),
            None => match self.ask_custody(&asked, host)? {
                Some(signed) => signed,
                // An empty signature never verifies: the vote is not counted, logged or sent.
                None => return Ok(SignedMessage::new(ballot.clone(), Signature::none())),
            },
        };
        if signed.vote != asked {
            self.accept_earlier(&asked, &signed.vote)?;
        }
        if let (VoteStep::Precommit, Some(header)) = (asked.step, asked.header) {
            self.locked = Some((asked.round, header));
        }
        let core = malachite_types::SignedVote::<Context>::from(&signed);
        self.own.insert(asked.slot(), signed);
        Ok(core)
    }

    /// `None`: abstain.
    fn ask_custody<H: Host>(&self, asked: &Vote, host: &mut H) -> Result<Option<SignedVote>, EngineError> {
        let outcome = host.sign_vote(asked).map_err(EngineError::host("sign a vote"))?;
        let (vote, signature) = match outcome {
            SignOutcome::Signed(signature) => (asked.clone(), signature),
            SignOutcome::AlreadySigned { vote, signature } => (vote, signature),
            SignOutcome::BelowHighest if self.sole => {
                return Err(EngineError::Refused("a later slot is signed, and nobody else can vote".into()));
            }
            SignOutcome::BelowHighest => return Ok(None),
            SignOutcome::OtherKey(reason) if self.sole => return Err(EngineError::Refused(reason)),
            SignOutcome::OtherKey(reason) => {
                log::warn!("height {}, round {}: no vote: {reason}", self.height, asked.round);
                return Ok(None);
            }
            SignOutcome::Refused(reason) => return Err(EngineError::Refused(reason)),
        };
        let signed = SignedVote { validator: self.me, vote, signature };
        let is_shown = !self.sole || signed.vote.step == VoteStep::Precommit;
        if self.verify_own && is_shown && !self.is_genuine_own(&signed) {
            return Err(EngineError::OwnSignature { height: self.height, round: asked.round });
        }
        Ok(Some(signed))
    }

    fn is_genuine_own(&self, signed: &SignedVote) -> bool {
        let core = malachite_types::SignedVote::<Context>::from(signed);
        self.judge.is_genuine(&core.message, &core.signature)
    }

    /// Judges a vote of another validator. What comes before its header's content is noted: the content decides which key
    /// counts for it.
    fn is_genuine(&mut self, ballot: &Ballot, signature: &Signature) -> bool {
        let genuine = self.judge.is_genuine(ballot, signature);
        if let NilOrVal::Val(header) = ballot.value
            && !self.contents.contains_key(&header)
        {
            match (genuine, ballot.step) {
                (true, VoteType::Precommit) => self.early.push((ballot.clone(), signature.clone())),
                (true, VoteType::Prevote) => {}
                (false, _) => self.hold(ballot, signature),
            }
        }
        genuine
    }

    fn hold(&mut self, ballot: &Ballot, signature: &Signature) {
        let signed = self.to_signed(&SignedMessage::new(ballot.clone(), signature.clone()));
        let of_theirs = self.held.iter().filter(|held| held.validator == signed.validator).count();
        if of_theirs < HELD_PER_VALIDATOR_MAX && !self.held.contains(&signed) {
            self.held.push(signed);
        }
    }

    /// Takes note of who certifies a header whose content is good. `false` if a precommit for it has been counted under
    /// a key that does not certify it: with that the core would make a certificate that nobody accepts, so that this
    /// appliance must not decide the header.
    pub fn admit(&mut self, header: Hash, certifiers: Option<ValidatorSet>) -> Result<bool, EngineError> {
        if let Some(set) = certifiers {
            if !set.weighs_like(&self.judge.validators) {
                return Err(EngineError::OtherStakes { height: self.height, header });
            }
            let good = |(ballot, signature): &(Ballot, Signature)| {
                ballot.value != NilOrVal::Val(header) || self.judge.is_genuine_in(&set, ballot, signature)
            };
            if !self.early.iter().all(good) {
                log::warn!("height {}: header {header} was precommitted with a retired key", self.height);
                return Ok(false);
            }
            self.judge.others.insert(header, set);
        }
        self.early.retain(|(ballot, _)| ballot.value != NilOrVal::Val(header));
        Ok(true)
    }

    /// Votes that waited for this header's content.
    pub fn release(&mut self, header: Hash) -> Vec<SignedVote> {
        let waiting = std::mem::take(&mut self.held);
        let (released, held) = waiting.into_iter().partition(|held| held.vote.header == Some(header));
        self.held = held;
        released
    }

    /// An earlier vote for the slot stands. Going on with it is safe if it did not lock us: a prevote, or a precommit
    /// for nil. A precommit for a header that the state machine does not ask for means that a lock is forgotten;
    /// others may have decided that header with our vote, so we must not vote for anything else.
    fn accept_earlier(&self, asked: &Vote, earlier: &Vote) -> Result<(), EngineError> {
        let same_slot = Vote { header: asked.header, ..earlier.clone() } == *asked;
        if !same_slot {
            return Err(EngineError::OtherSlot { height: earlier.height, round: earlier.round });
        }
        if let (VoteStep::Precommit, Some(header)) = (earlier.step, earlier.header) {
            return Err(EngineError::LockLost { height: self.height, round: earlier.round, header });
        }
        log::warn!(
            "height {}, round {}: an earlier {:?} stands; the round will be lost if it does not fit",
            earlier.height,
            earlier.round,
            earlier.step
        );
        Ok(())
    }

    /// The round of the lock that the custody daemon knows of and the state machine does not.
    pub fn forgotten_lock(&self) -> Option<Round> {
        let (round, header) = self.must_lock?;
        let kept = self.locked.is_some_and(|locked| locked.0 > round || locked == (round, header));
        (!kept).then_some(round)
    }

    fn is_ours(&self, ballot: &Ballot, signature: &Signature) -> bool {
        let vote = ballot.to_vote(self.judge.suite, self.judge.genesis);
        ballot.validator.0 == self.me
            && self
                .own
                .get(&vote.slot())
                .is_some_and(|own| own.vote == vote && own.signature[..] == signature.0[..])
            // What comes from the log has not been verified yet.
            && !(self.replaying && self.logged.contains(&vote.slot()))
    }

    fn log(&mut self, input: &Input<Context>) -> Result<(), EngineError> {
        let (record, binding) = match input {
            Input::Vote(vote) => {
                let signed = self.to_signed(vote);
                let ours = signed.validator == self.me;
                // The log may have lost one of ours, and the custody daemon gave it back.
                if self.replaying && (!ours || self.logged.contains(&signed.vote.slot())) {
                    return Ok(());
                }
                (Record::Vote(signed), !ours)
            }
            _ if self.replaying => return Ok(()),
            Input::ProposedValue(value, _) => {
                let content = if value.validity.is_valid() {
                    Some(Arc::clone(self.contents.get(&value.value.0).ok_or(EngineError::ContentMissing)?))
                } else {
                    None
                };
                let about = ValueHead {
                    round: from_core(value.round),
                    polka: value.valid_round.as_u32().map(Round),
                    proposer: value.proposer.0,
                    header: value.value.0,
                };
                (Record::Value { about, content }, true)
            }
            Input::Proposal(proposal) => (Record::Proposal(proposal.message.to_head()), true),
            Input::TimeoutElapsed(timeout) => match self.timer(*timeout) {
                Some(timer) => (Record::Timeout(timer.kind, timer.round), true),
                None => return Ok(()),
            },
            Input::PolkaCertificate(polka) => (Record::Polka(to_polka(polka)), true),
            // Malachite persists none of these.
            Input::StartHeight(..)
            | Input::Propose(_)
            | Input::RoundCertificate(_)
            | Input::SyncValueResponse(_) => return Ok(()),
        };
        Ok(self.wal.append(&record, binding)?)
    }

    fn publish<H: Host>(&self, message: Message, host: &mut H) {
        let abstained = matches!(&message, Message::Vote(vote) if vote.signature.is_empty());
        if !self.sole && !abstained {
            host.publish(message);
        }
    }

    fn note_evidence(&mut self, evidence: &MisbehaviorEvidence<Context>) {
        for (first, second) in evidence.votes.iter().flat_map(|(_, pairs)| pairs) {
            let (first, second) = (self.to_signed(first), self.to_signed(second));
            self.evidence.push(Equivocation { first, second });
        }
        if !evidence.proposals.is_empty() {
            log::warn!("height {}: a proposer has sent different headers for one round", self.height);
        }
    }

    fn to_signed(&self, vote: &malachite_types::SignedVote<Context>) -> SignedVote {
        SignedVote {
            validator: vote.message.validator.0,
            vote: vote.message.to_vote(self.judge.suite, self.judge.genesis),
            signature: vote.signature.0.to_vec(),
        }
    }

    fn to_round_change(&self, change: &RoundCertificate<Context>) -> RoundChange {
        let to_vote = |one: &malachite_types::RoundSignature<Context>| {
            let ballot = Ballot {
                height: change.height,
                round: change.round,
                step: one.vote_type,
                value: one.value_id,
                validator: one.address,
            };
            self.to_signed(&SignedMessage::new(ballot, one.signature.clone()))
        };
        RoundChange {
            height: self.height,
            round: from_core(change.round),
            kind: match change.cert_type {
                RoundCertificateType::Skip => RoundChangeKind::Skip,
                RoundCertificateType::Precommit => RoundChangeKind::Precommits,
            },
            votes: change.round_signatures.iter().map(to_vote).collect(),
        }
    }

    /// Our timer for one of the state machine's; `None` if it makes no sense here.
    fn timer(&self, timeout: Timeout) -> Option<Timer> {
        let kind = match timeout.kind {
            TimeoutKind::Propose => TimerKind::Propose,
            TimeoutKind::Prevote => TimerKind::Prevote,
            TimeoutKind::Precommit => TimerKind::Precommit,
            TimeoutKind::Rebroadcast if !self.sole => TimerKind::Rebroadcast,
            // No height has a target time, so there is no finalisation window.
            TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => return None,
        };
        Some(Timer { height: self.height, round: from_core(timeout.round), kind })
    }
}

fn to_polka(polka: &PolkaCertificate<Context>) -> Polka {
    let to_signature = |one: &malachite_types::PolkaSignature<Context>| CertificateSignature {
        validator: one.address.0,
        signature: one.signature.0.to_vec(),
    };
    Polka {
        height: Height(polka.height.0),
        round: from_core(polka.round),
        header: polka.value_id,
        signatures: polka.polka_signatures.iter().map(to_signature).collect(),
    }
}

impl From<&Polka> for PolkaCertificate<Context> {
    fn from(polka: &Polka) -> Self {
        let to_core = |one: &CertificateSignature| malachite_types::PolkaSignature {
            address: Address(one.validator),
            signature: Signature(one.signature.as_slice().into()),
        };
        Self {
            height: crate::context::Height(polka.height.0),
            round: CoreRound::Some(polka.round.0),
            value_id: polka.header,
            polka_signatures: polka.signatures.iter().map(to_core).collect(),
        }
    }
}

impl From<&RoundChange> for RoundCertificate<Context> {
    fn from(change: &RoundChange) -> Self {
        let to_core = |signed: &SignedVote| {
            let core = malachite_types::SignedVote::<Context>::from(signed);
            malachite_types::RoundSignature {
                vote_type: core.message.step,
                value_id: core.message.value,
                address: core.message.validator,
                signature: core.signature,
            }
        };
        Self {
            height: crate::context::Height(change.height.0),
            round: CoreRound::Some(change.round.0),
            cert_type: match change.kind {
                RoundChangeKind::Skip => RoundCertificateType::Skip,
                RoundChangeKind::Precommits => RoundCertificateType::Precommit,
            },
            round_signatures: change.votes.iter().map(to_core).collect(),
        }
    }
}

/// A proposal's head says nothing that its slot does not allow.
pub(crate) fn is_well_formed(head: &ProposalHead) -> bool {
    head.polka.is_none_or(|polka| polka < head.round)
}
