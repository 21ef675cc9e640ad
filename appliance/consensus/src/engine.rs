//! The engine: inputs come in, the [`Host`] is called, nothing else happens. It has no thread, clock or network.

use crate::context::{Address, Context, CoreRound, Value, option_to_core, to_core};
use crate::host::{Decision, Host, HostError, Proposed, Source, Timer, TimerKind};
use crate::judge::Judge;
use crate::message::{Content, Message, Polka, ProposalHead, RoundChange, SignedVote};
use crate::shell::{Shell, is_well_formed};
use crate::validators::ValidatorSet;
use crate::wal::{Record, Wal, WalError, WalStats};
use core::time::Duration;
use malachite_consensus::{Input, LocallyProposedValue, Params, ProposedValue, State, process};
use malachite_types::{
    CommitCertificate, Timeout, TimeoutKind, Validity, ValueOrigin, ValuePayload, VoteExtensionPolicy,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use zixt_crypto::Backend;
use zixt_types::{ApplianceId, Certificate, CertificateSignature, Hash, Height, Round, SuiteId, limits};

/// Contents kept of one height: one per round that proposals are taken for (Malachite looks ten rounds ahead), and
/// some for rounds in which the proposer sent two.
const CONTENTS_MAX: usize = 16;
/// Messages for the next height kept of one peer: both votes of the first rounds, and a proposal.
const WAITING_PER_PEER_MAX: usize = 8;
/// Bytes of content kept for the next height.
const WAITING_BYTES_MAX: usize = 2 * limits::BATCH_BYTES_MAX;
/// A signature: ML-DSA-87 has 4627 bytes.
const SIGNATURE_BYTES_MAX: usize = 8 * 1024;

/// How long the state machine waits. Each further round adds `step`, up to `longest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// For a proposal.
    pub propose: Duration,
    /// For prevotes that agree, once two thirds have come.
    pub prevote: Duration,
    /// For precommits that agree, once two thirds have come.
    pub precommit: Duration,
    /// Before everything is said again.
    pub rebroadcast: Duration,
    /// Added in each further round.
    pub step: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Timeouts {
    /// For appliances in one or several buildings: a batch of the largest size crosses a 1 Gbit/s link in 0.6 s.
    fn default() -> Self {
        Self {
            propose: Duration::from_secs(3),
            prevote: Duration::from_secs(1),
            precommit: Duration::from_secs(1),
            rebroadcast: Duration::from_secs(5),
            step: Duration::from_millis(500),
            longest: Duration::from_secs(60),
        }
    }
}

impl Timeouts {
    pub(crate) fn of(&self, timer: Timer) -> Duration {
        let first = match timer.kind {
            TimerKind::Propose => self.propose,
            TimerKind::Prevote => self.prevote,
            TimerKind::Precommit => self.precommit,
            TimerKind::Rebroadcast => self.rebroadcast,
        };
        first.saturating_add(self.step.saturating_mul(timer.round.0)).min(self.longest)
    }
}

/// What stays the same at every height.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// This appliance.
    pub me: ApplianceId,
    /// Hash of the genesis.
    pub genesis: Hash,
    /// Patience.
    pub timeouts: Timeouts,
    /// Verify what the custody daemon signs before it is counted, against a token that has gone wrong, whose height could
    /// otherwise be decided with a certificate that nobody accepts. A sole validator's prevotes are left out: nobody else
    /// ever sees one.
    pub verify_own_votes: bool,
}

/// What a height is decided with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeightStart {
    /// The height.
    pub height: Height,
    /// The suite that the policy at the height before allows for votes.
    pub suite: SuiteId,
    /// Who votes, by the state at the height before.
    pub validators: ValidatorSet,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It was judged and, if good, counted.
    Taken,
    /// It is for the next height and waits for [`Engine::start_height`].
    Waiting,
    /// It is for a height that is over.
    Stale,
    /// Others are further: fetch what was decided, with certificates, then start the height after it.
    Ahead(Height),
    /// It is against the rules; the reason is for the log.
    Refused(&'static str),
}

/// Why the engine stopped. Drop it, and open the log again: replay repairs what can be repaired.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It had stopped before.
    #[error("the engine has stopped")]
    Stopped,
    /// A height was started out of order. The engine goes on.
    #[error("height {asked} cannot be started: {next} is next")]
    WrongHeight {
        /// What was asked for.
        asked: Height,
        /// What could be asked for, or anything later.
        next: Height,
    },
    /// The write-ahead log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The host failed.
    #[error("the host could not {doing}")]
    Host {
        /// What it was asked to do.
        doing: &'static str,
        /// What it said.
        source: HostError,
    },
    /// The custody daemon does not sign: it is locked, quarantined or unprovisioned.
    #[error("the custody daemon refused to sign: {0}")]
    Refused(String),
    /// The custody daemon answered with a vote for something else.
    #[error("the custody daemon answered with a vote of height {height}, round {round}, or of another chain")]
    OtherSlot {
        /// Its height.
        height: Height,
        /// Its round.
        round: Round,
    },
    /// The custody daemon's signature does not verify.
    #[error("our own vote at height {height}, round {round} does not verify")]
    OwnSignature {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
    },
    /// We have precommitted a header and lost what led to it: a disk has lost what was durable, or was rolled back.
    /// Others, or at one validator we ourselves, may have decided it, so voting on would risk a fork. With other
    /// validators: fetch the decision of this height from them. Alone: only officers can decide what stands.
    #[error(
        "height {height}: header {header} was precommitted in round {round}, but the log does not know it"
    )]
    LockLost {
        /// The height.
        height: Height,
        /// The round of the precommit.
        round: Round,
        /// The header.
        header: Hash,
    },
    /// The host names certifiers for a header who are not the height's validators with other keys. A fault of the host.
    #[error("height {height}: the certifiers of header {header} are other appliances or have other stakes")]
    OtherStakes {
        /// The height.
        height: Height,
        /// The header.
        header: Hash,
    },
    /// The log holds content that was valid, and is no longer: the log or the ledger has been tampered with.
    #[error("height {height}: the log's content for header {header} is not valid")]
    LogRefused {
        /// The height.
        height: Height,
        /// The header.
        header: Hash,
    },
    /// The host proposed more than the limits allow.
    #[error("a header of {header} bytes with a batch of {batch} bytes is beyond the limits")]
    ContentTooLarge {
        /// Bytes of the header.
        header: usize,
        /// Bytes of the batch.
        batch: usize,
    },
    /// A header was to be logged or decided without its content. A fault of this crate.
    #[error("a header was to be logged or decided without its content")]
    ContentMissing,
    /// Malachite's core failed. A fault of the core or of this crate.
    #[error("the consensus core failed: {0}")]
    Core(String),
}

impl EngineError {
    pub(crate) fn host(doing: &'static str) -> impl FnOnce(HostError) -> Self {
        move |source| Self::Host { doing, source }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Waits for this height, or a later one, to be started.
    Idle(Height),
    /// Decides this height.
    Running(Height),
    Stopped,
}

/// One validator's consensus.
pub struct Engine {
    phase: Phase,
    core: State<Context>,
    shell: Shell,
    /// The custody daemon has been asked what it remembers.
    asked_custody: bool,
    /// Messages for the next height, with the peer that sent them.
    waiting: Vec<(ApplianceId, Message)>,
}

impl Engine {
    /// An engine whose next height is `next`; it is not started yet, because an appliance without anything to decide
    /// should not go through empty rounds. It must be started at once if [`Engine::has_unfinished_height`].
    #[must_use]
    pub fn new(config: Config, backend: Arc<dyn Backend>, wal: Wal, next: HeightStart) -> Self {
        let params = Params {
            address: Address(config.me),
            threshold_params: malachite_types::ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        // The core's own queue for later heights is not used: `Engine::waiting` is, which is bounded per peer.
        let height = crate::context::Height(next.height.0);
        let core = State::new(Context, height, next.validators.clone(), params, 1, 1);
        let judge = Judge {
            backend,
            genesis: config.genesis,
            suite: next.suite,
            validators: next.validators,
            others: BTreeMap::new(),
        };
        let shell = Shell {
            me: config.me,
            timeouts: config.timeouts,
            verify_own: config.verify_own_votes,
            wal,
            judge,
            height: next.height,
            sole: false,
            replaying: false,
            contents: BTreeMap::new(),
            logged_values: BTreeMap::new(),
            own: BTreeMap::new(),
            logged: BTreeSet::new(),
            must_lock: None,
            locked: None,
            held: Vec::new(),
            early: Vec::new(),
            timers: BTreeMap::new(),
            armed: BTreeSet::new(),
            wants_value: None,
            decision: None,
            evidence: Vec::new(),
        };
        Self { phase: Phase::Idle(next.height), core, shell, asked_custody: false, waiting: Vec::new() }
    }

    /// The log holds records of the height that is next: a process ended in the middle of it.
    #[must_use]
    pub fn has_unfinished_height(&self) -> bool {
        matches!(self.phase, Phase::Idle(next) if self.shell.wal.unfinished() == Some(next))
    }

    /// Others have begun the next height: messages wait for it.
    #[must_use]
    pub fn has_waiting_messages(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The height that is being decided, if any.
    #[must_use]
    pub fn running(&self) -> Option<Height> {
        match self.phase {
            Phase::Running(height) => Some(height),
            Phase::Idle(_) | Phase::Stopped => None,
        }
    }

    /// The round that the running height is in.
    #[must_use]
    pub fn round(&self) -> Option<Round> {
        self.running().and(self.core.round().as_u32()).map(Round)
    }

    /// What the log has done since it was opened.
    #[must_use]
    pub const fn wal_stats(&self) -> WalStats {
        self.shell.wal.stats()
    }

    /// Starts a height: the one after the last decided one, or a later one if the host has fetched what others
    /// decided. The decision before it must be durable in the host's store, because the log forgets it now.
    ///
    /// # Errors
    /// [`EngineError`]; all but [`EngineError::WrongHeight`] stop the engine.
    pub fn start_height<H: Host>(&mut self, start: HeightStart, host: &mut H) -> Result<(), EngineError> {
        let next = match self.phase {
            Phase::Idle(next) => next,
            Phase::Running(height) => height.next(),
            Phase::Stopped => return Err(EngineError::Stopped),
        };
        if start.height < next {
            return Err(EngineError::WrongHeight { asked: start.height, next });
        }
        let begun = self.begin(start, host);
        self.stop_on_error(begun)
    }

    /// Drops what the log holds of the height that is next, for a sole validator whose key was replaced in the middle of
    /// it: what the retired key has prevoted, no key can finish. Nothing is dropped if custody has precommitted a
    /// header there (its signature finishes the height), or if the log holds a header that the present key certifies.
    /// Says whether something was dropped.
    ///
    /// # Errors
    /// [`EngineError`]; it stops the engine.
    pub fn abandon_unfinished<H: Host>(&mut self, host: &mut H) -> Result<bool, EngineError> {
        let Phase::Idle(height) = self.phase else { return Ok(false) };
        let validators = &self.shell.judge.validators;
        let sole = validators.validators().len() == 1 && validators.get(&self.shell.me).is_some();
        if !sole || self.shell.wal.unfinished() != Some(height) {
            return Ok(false);
        }
        let abandoned = self.abandon(height, host);
        self.stop_on_error(abandoned)
    }

    fn abandon<H: Host>(&mut self, height: Height, host: &mut H) -> Result<bool, EngineError> {
        let precommitted = host.signed_precommit(height);
        if precommitted.map_err(EngineError::host("ask what was signed"))?.is_some() {
            return Ok(false);
        }
        for record in self.shell.wal.unreplayed() {
            if let Record::Value { about, content: Some(content) } = record {
                let valid = host.validate(height, &about.header, content, Source::Log);
                if valid.map_err(EngineError::host("validate the log's content"))?
                    && certifiers(height, about.header, host)?.is_some()
                    && host.signs_for(&about.header).map_err(EngineError::host("tell its key"))?
                {
                    return Ok(false);
                }
            }
        }
        self.shell.wal.forget()?;
        Ok(true)
    }

    /// Brings a value for a round in which [`Host::build`] had none. `false` if the round no longer wants one.
    ///
    /// # Errors
    /// [`EngineError`]; it stops the engine.
    pub fn propose<H: Host>(
        &mut self,
        round: Round,
        proposed: Proposed,
        host: &mut H,
    ) -> Result<bool, EngineError> {
        if self.phase == Phase::Stopped {
            return Err(EngineError::Stopped);
        }
        let Phase::Running(height) = self.phase else { return Ok(false) };
        let ours = self.shell.judge.validators.proposer(height, round).appliance() == self.shell.me;
        if !ours || !self.wants_value_in(round) {
            return Ok(false);
        }
        let offered = self.offer(round, proposed, host).and_then(|()| self.settle(host));
        self.stop_on_error(offered).map(|()| true)
    }

    /// Takes a message of a peer. `from` is the appliance at the other end of the authenticated link.
    ///
    /// # Errors
    /// [`EngineError`]; it stops the engine. A bad message is no error.
    pub fn received<H: Host>(
        &mut self,
        from: ApplianceId,
        message: Message,
        host: &mut H,
    ) -> Result<Received, EngineError> {
        let height = message.height();
        match self.phase {
            Phase::Stopped => Err(EngineError::Stopped),
            Phase::Running(running) if height == running => {
                let taken = self.take(from, message, host);
                let settled = taken.and_then(|taken| self.settle(host).map(|()| taken));
                self.stop_on_error(settled)
            }
            Phase::Running(running) if height == running.next() => Ok(self.keep_waiting(from, message)),
            Phase::Idle(next) if height == next => Ok(self.keep_waiting(from, message)),
            Phase::Running(running) if height < running => Ok(Received::Stale),
            Phase::Idle(next) if height < next => Ok(Received::Stale),
            Phase::Running(_) | Phase::Idle(_) => Ok(Received::Ahead(height)),
        }
    }

    /// A timer has run out. One that is no longer wanted is ignored.
    ///
    /// # Errors
    /// [`EngineError`]; it stops the engine.
    pub fn timeout<H: Host>(&mut self, timer: Timer, host: &mut H) -> Result<(), EngineError> {
        if self.phase == Phase::Stopped {
            return Err(EngineError::Stopped);
        }
        if !self.shell.armed.remove(&timer) || self.phase != Phase::Running(timer.height) {
            return Ok(());
        }
        let elapsed = self.elapse(timer, host).and_then(|()| self.settle(host));
        self.stop_on_error(elapsed)
    }

    fn stop_on_error<T>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        result.inspect_err(|_| self.phase = Phase::Stopped)
    }

    /// The whole start of a height, replay included.
    fn begin<H: Host>(&mut self, start: HeightStart, host: &mut H) -> Result<(), EngineError> {
        let records = self.shell.wal.start(start.height)?;
        let replay = !records.is_empty();
        let height = start.height;
        let shell = &mut self.shell;
        shell.height = height;
        shell.sole = start.validators.validators().len() == 1 && start.validators.get(&shell.me).is_some();
        shell.judge.suite = start.suite;
        shell.judge.validators = start.validators.clone();
        shell.judge.others.clear();
        shell.held.clear();
        shell.early.clear();
        shell.contents.clear();
        shell.logged_values.clear();
        shell.own.clear();
        shell.logged.clear();
        shell.must_lock = None;
        shell.locked = None;
        shell.timers.clear();
        shell.wants_value = None;
        shell.decision = None;
        self.phase = Phase::Running(height);

        // Later heights need not ask: whatever was signed for them was signed by this process, which knows.
        if !self.asked_custody {
            let asked = host.signed_precommit(height);
            shell.must_lock = asked.map_err(EngineError::host("ask what was signed"))?;
            self.asked_custody = true;
        }
        shell.replaying = replay;
        self.index_log(&records)?;
        if replay {
            // Tells the core that its bounds against floods do not apply. The index itself stays empty: it would stop
            // at a vote that custody had signed earlier and that differs from the one derived; see `Shell::sign`.
            self.core.index_wal_entries(std::iter::empty());
        }
        let begin = Input::StartHeight(
            crate::context::Height(height.0),
            start.validators,
            replay,
            None,
            VoteExtensionPolicy::Disabled,
        );
        self.feed(begin, host)?;
        for record in records {
            self.replay(record, host)?;
        }
        self.core.reset_entries_index();
        self.shell.replaying = false;
        if let (Some(_), Some((round, header))) = (self.shell.forgotten_lock(), self.shell.must_lock) {
            return Err(EngineError::LockLost { height, round, header });
        }
        self.settle(host)?;
        for (from, message) in std::mem::take(&mut self.waiting) {
            if message.height() == height && self.phase == Phase::Running(height) {
                self.take(from, message, host)?;
                self.settle(host)?;
            } else if message.height() > height {
                self.keep_waiting(from, message);
            }
        }
        Ok(())
    }

    /// Notes what the log knows before any of it is acted upon.
    fn index_log(&mut self, records: &[Record]) -> Result<(), EngineError> {
        for record in records {
            if let Record::Vote(signed) = record
                && signed.validator == self.shell.me
                && signed.vote.height == self.shell.height
            {
                self.shell.logged.insert(signed.vote.slot());
                self.shell.own.entry(signed.vote.slot()).or_insert_with(|| signed.clone());
            }
        }
        // Said before anything is signed: without the header's content the lock cannot come back.
        let known = |header| {
            let is_it =
                |record: &Record| matches!(record, Record::Value { about, .. } if about.header == header);
            records.iter().any(is_it)
        };
        match self.shell.must_lock {
            Some((round, header)) if !known(header) => {
                Err(EngineError::LockLost { height: self.shell.height, round, header })
            }
            _ => Ok(()),
        }
    }

    fn replay<H: Host>(&mut self, record: Record, host: &mut H) -> Result<(), EngineError> {
        let height = self.shell.height;
        let input = match record {
            Record::Value { about, content } => {
                let validity = Validity::from_bool(content.is_some());
                if let Some(content) = content {
                    let valid = host.validate(height, &about.header, &content, Source::Log);
                    if !valid.map_err(EngineError::host("validate the log's content"))? {
                        return Err(EngineError::LogRefused { height, header: about.header });
                    }
                    let admitted = self.shell.admit(about.header, certifiers(height, about.header, host)?)?;
                    if !admitted {
                        return Err(EngineError::LogRefused { height, header: about.header });
                    }
                    if about.proposer == self.shell.me {
                        let proposed = Proposed { header: about.header, content: Arc::clone(&content) };
                        self.shell.logged_values.insert(about.round, proposed);
                    }
                    self.shell.contents.insert(about.header, content);
                }
                let value = self.value(about.header, about.round, about.polka, about.proposer, validity);
                Input::ProposedValue(value, ValueOrigin::Consensus)
            }
            Record::Proposal(head) => Input::Proposal((&head).into()),
            Record::Vote(signed) => Input::Vote((&signed).into()),
            Record::Timeout(kind, round) => Input::TimeoutElapsed(core_timeout(kind, round)),
            Record::Polka(polka) => Input::PolkaCertificate((&polka).into()),
        };
        self.feed(input, host)
    }

    /// Does what the state machine left to be done, until it waits.
    fn settle<H: Host>(&mut self, host: &mut H) -> Result<(), EngineError> {
        loop {
            if let Some(certificate) = self.shell.decision.take() {
                self.decide(certificate, host)?;
                break;
            }
            if let Some(round) = self.shell.wants_value.take() {
                if self.wants_value_in(round) {
                    // A value that was logged before a crash, but not proposed, is proposed now.
                    let proposed = match self.shell.logged_values.remove(&round) {
                        Some(logged) => Some(logged),
                        None => host.build(self.shell.height, round).map_err(EngineError::host("build"))?,
                    };
                    if let Some(proposed) = proposed {
                        self.offer(round, proposed, host)?;
                    }
                }
                continue;
            }
            // A sole validator has nobody to wait for once it has voted. (It gets here only if custody gave an earlier
            // vote back: that round is lost, and the next one begins at once.)
            let pointless = |timer: &Timer| matches!(timer.kind, TimerKind::Prevote | TimerKind::Precommit);
            match self.shell.timers.keys().copied().find(pointless) {
                Some(timer) if self.shell.sole => self.elapse(timer, host)?,
                _ => break,
            }
        }
        for evidence in self.shell.evidence.drain(..) {
            host.equivocation(evidence);
        }
        self.arm(host);
        Ok(())
    }

    fn decide<H: Host>(
        &mut self,
        certificate: CommitCertificate<Context>,
        host: &mut H,
    ) -> Result<(), EngineError> {
        let height = self.shell.height;
        let header = certificate.value_id;
        let content = self.shell.contents.remove(&header).ok_or(EngineError::ContentMissing)?;
        let to_signature = |one: &malachite_types::CommitSignature<Context>| CertificateSignature {
            validator: one.address.0,
            signature: one.signature.0.to_vec(),
        };
        let mut signatures: Vec<_> = certificate.commit_signatures.iter().map(to_signature).collect();
        signatures.sort_unstable_by_key(|one| one.validator);
        let round = crate::context::from_core(certificate.round);
        let certificate = Certificate { version: Certificate::VERSION, height, round, header, signatures };
        self.shell.timers.clear();
        self.shell.contents.clear();
        self.phase = Phase::Idle(height.next());
        let decision = Decision { height, round, header, content, certificate };
        host.decided(decision).map_err(EngineError::host("take the decision"))
    }

    /// Tells the host which timers have changed.
    fn arm<H: Host>(&mut self, host: &mut H) {
        let Shell { timers, armed, .. } = &mut self.shell;
        armed.retain(|timer| {
            let wanted = timers.contains_key(timer);
            if !wanted {
                host.cancel(*timer);
            }
            wanted
        });
        for (timer, after) in timers {
            if armed.insert(*timer) {
                host.schedule(*timer, *after);
            }
        }
    }

    fn take<H: Host>(
        &mut self,
        from: ApplianceId,
        message: Message,
        host: &mut H,
    ) -> Result<Received, EngineError> {
        match message {
            Message::Proposal(head, content) => self.take_proposal(from, head, content, host),
            Message::Vote(signed) => {
                if let Err(reason) = self.fits(&signed) {
                    return Ok(Received::Refused(reason));
                }
                self.feed(Input::Vote((&signed).into()), host).map(|()| Received::Taken)
            }
            Message::Polka(polka) => self.take_polka(&polka, host),
            Message::RoundChange(change) => self.take_round_change(&change, host),
        }
    }

    /// A proposal is genuine if it comes from its proposer, or if a polka shows that others had it from there.
    fn take_proposal<H: Host>(
        &mut self,
        from: ApplianceId,
        head: ProposalHead,
        content: Arc<Content>,
        host: &mut H,
    ) -> Result<Received, EngineError> {
        let height = self.shell.height;
        let proposer = self.shell.judge.validators.proposer(height, head.round).appliance();
        let has_polka = self.core.polka_certificate(to_core(head.round), &head.header).is_some();
        if head.proposer != proposer {
            return Ok(Received::Refused("it does not name the round's proposer"));
        }
        if head.proposer == self.shell.me {
            return Ok(Received::Refused("it is said to be our own proposal"));
        }
        if from != proposer && !has_polka {
            return Ok(Received::Refused("it does not come from the proposer, and no polka vouches for it"));
        }
        if !is_well_formed(&head) {
            return Ok(Received::Refused("its polka is not of an earlier round"));
        }
        let ahead = head.round.0.saturating_sub(self.core.round().as_u32().unwrap_or(0));
        if ahead > malachite_consensus::MAX_FUTURE_ROUND_LOOKAHEAD {
            return Ok(Received::Refused("its round is too far ahead"));
        }
        let is_new = !self.shell.contents.contains_key(&head.header);
        if is_new && self.shell.contents.len() >= CONTENTS_MAX {
            return Ok(Received::Refused("too many contents at this height"));
        }
        // The core takes no more than two proposals of a round, unless a polka vouches for a further one.
        let core_height = crate::context::Height(height.0);
        if is_new && self.core.exceeds_per_round_cap(core_height, to_core(head.round), &head.header) {
            return Ok(Received::Refused("too many proposals in this round"));
        }
        self.feed(Input::Proposal((&head).into()), host)?;
        if is_new && self.phase == Phase::Running(height) {
            let valid = host.validate(height, &head.header, &content, Source::Peer);
            let valid = valid.map_err(EngineError::host("validate a proposal"))?
                && self.shell.admit(head.header, certifiers(height, head.header, host)?)?;
            if valid {
                self.shell.contents.insert(head.header, content);
            }
            let validity = Validity::from_bool(valid);
            let value = self.value(head.header, head.round, head.polka, head.proposer, validity);
            self.feed(Input::ProposedValue(value, ValueOrigin::Consensus), host)?;
            if valid {
                self.release(head.header, host)?;
            }
        }
        Ok(Received::Taken)
    }

    /// Votes that came before their header's content, and may be good under the key that it brings.
    fn release<H: Host>(&mut self, header: Hash, host: &mut H) -> Result<(), EngineError> {
        for signed in self.shell.release(header) {
            if self.phase == Phase::Running(signed.vote.height) && self.shell.decision.is_none() {
                self.feed(Input::Vote((&signed).into()), host)?;
            }
        }
        Ok(())
    }

    fn take_polka<H: Host>(&mut self, polka: &Polka, host: &mut H) -> Result<Received, EngineError> {
        let known = |one: &CertificateSignature| {
            one.signature.len() <= SIGNATURE_BYTES_MAX && self.is_validator(&one.validator)
        };
        if !polka.signatures.iter().all(known) {
            return Ok(Received::Refused("a signature is not a validator's"));
        }
        self.feed(Input::PolkaCertificate(polka.into()), host).map(|()| Received::Taken)
    }

    fn take_round_change<H: Host>(
        &mut self,
        change: &RoundChange,
        host: &mut H,
    ) -> Result<Received, EngineError> {
        for signed in &change.votes {
            if let Err(reason) = self.fits(signed) {
                return Ok(Received::Refused(reason));
            }
            if signed.vote.round != change.round {
                return Ok(Received::Refused("a vote is of another round"));
            }
        }
        self.feed(Input::RoundCertificate(change.into()), host).map(|()| Received::Taken)
    }

    /// What can be said of a vote without verifying it.
    fn fits(&self, signed: &SignedVote) -> Result<(), &'static str> {
        if signed.vote.height != self.shell.height {
            return Err("a vote is of another height");
        }
        if signed.vote.genesis != self.shell.judge.genesis {
            return Err("a vote is of another chain");
        }
        if signed.vote.suite != self.shell.judge.suite {
            return Err("a vote is in another suite than the height's");
        }
        if !self.is_validator(&signed.validator) {
            return Err("a vote is not a validator's");
        }
        if signed.signature.len() > SIGNATURE_BYTES_MAX {
            return Err("a signature is too long");
        }
        Ok(())
    }

    fn is_validator(&self, appliance: &ApplianceId) -> bool {
        self.shell.judge.validators.get(appliance).is_some()
    }

    fn keep_waiting(&mut self, from: ApplianceId, message: Message) -> Received {
        let of = |message: &Message| match message {
            Message::Proposal(_, content) => content.header.len() + content.batch.len(),
            Message::Vote(_) | Message::Polka(_) | Message::RoundChange(_) => 0,
        };
        if !self.is_validator(&from) {
            return Received::Refused("the sender was no validator at the height before");
        }
        if self.waiting.iter().any(|(_, waiting)| *waiting == message) {
            return Received::Waiting;
        }
        if self.waiting.iter().filter(|(peer, _)| *peer == from).count() >= WAITING_PER_PEER_MAX {
            return Received::Refused("too many messages of this peer wait for the next height");
        }
        let bytes: usize = self.waiting.iter().map(|(_, waiting)| of(waiting)).sum();
        if of(&message) > 0 && bytes + of(&message) > WAITING_BYTES_MAX {
            return Received::Refused("too much content waits for the next height");
        }
        self.waiting.push((from, message));
        Received::Waiting
    }

    fn wants_value_in(&self, round: Round) -> bool {
        self.core.round() == to_core(round) && self.core.driver.step_is_propose()
    }

    /// Feeds our own value.
    fn offer<H: Host>(&mut self, round: Round, proposed: Proposed, host: &mut H) -> Result<(), EngineError> {
        let Proposed { header, content } = proposed;
        if content.header.len() > limits::HEADER_BYTES_MAX || content.batch.len() > limits::BATCH_BYTES_MAX {
            let (header, batch) = (content.header.len(), content.batch.len());
            return Err(EngineError::ContentTooLarge { header, batch });
        }
        if !self.shell.admit(header, certifiers(self.shell.height, header, host)?)? {
            return Ok(());
        }
        self.shell.contents.insert(header, content);
        let height = crate::context::Height(self.shell.height.0);
        let value = LocallyProposedValue::new(height, to_core(round), Value(header));
        self.feed(Input::Propose(value), host)?;
        self.release(header, host)
    }

    fn elapse<H: Host>(&mut self, timer: Timer, host: &mut H) -> Result<(), EngineError> {
        self.shell.timers.remove(&timer);
        self.feed(Input::TimeoutElapsed(core_timeout(timer.kind, timer.round)), host)
    }

    fn value(
        &self,
        header: Hash,
        round: Round,
        polka: Option<Round>,
        proposer: ApplianceId,
        validity: Validity,
    ) -> ProposedValue<Context> {
        ProposedValue {
            height: crate::context::Height(self.shell.height.0),
            round: to_core(round),
            valid_round: option_to_core(polka),
            proposer: Address(proposer),
            value: Value(header),
            validity,
        }
    }

    /// Lets the core process one input to its end. Malachite's macro goes on after a failed effect; we do not: a vote
    /// without its log record must never come about.
    fn feed<H: Host>(&mut self, input: Input<Context>, host: &mut H) -> Result<(), EngineError> {
        let Self { core, shell, .. } = self;
        let processed: Result<(), malachite_consensus::Error<Context>> = process!(
            input: input,
            state: core,
            metrics: &(),
            with: effect => match shell.effect(effect, host) {
                Ok(resume) => Ok::<_, core::convert::Infallible>(resume),
                Err(error) => return Err(error),
            }
        );
        processed.map_err(|error| EngineError::Core(error.to_string()))
    }
}

fn certifiers<H: Host>(
    height: Height,
    header: Hash,
    host: &mut H,
) -> Result<Option<ValidatorSet>, EngineError> {
    host.certifiers(height, &header).map_err(EngineError::host("tell who certifies a header"))
}

fn core_timeout(kind: TimerKind, round: Round) -> Timeout {
    let kind = match kind {
        TimerKind::Propose => TimeoutKind::Propose,
        TimerKind::Prevote => TimeoutKind::Prevote,
        TimerKind::Precommit => TimeoutKind::Precommit,
        TimerKind::Rebroadcast => TimeoutKind::Rebroadcast,
    };
    Timeout::new(CoreRound::Some(round.0), kind)
}
