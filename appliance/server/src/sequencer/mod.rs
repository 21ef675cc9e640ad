//! Orders entries, has consensus certify them, commits them, and answers. One thread; it alone changes the ledger.

mod host;
mod queue;

pub use queue::{Queue, Recorded, Unrecorded};

use crate::custody::CustodyWatch;
use crate::health::{Vitals, now};
use crate::push::Push;
use crate::view::View;
use host::Host;
use queue::{Pending, Ticket};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zixt_api::CustodyState;
use zixt_consensus::{
    Config, Content, Decision as Decided, DiskFile, Engine, EngineError, Flush, HeightStart, Proposed,
    Timeouts, Validator, ValidatorSet, ValidatorSetError, Wal, WalError,
};
use zixt_crypto::{Backend, RandomError, fill_random};
use zixt_ledger::{BlockBuilder, LedgerState, ProposedBlock};
use zixt_storage::{CommitError, Staged, Store, StoreError};
use zixt_types::{AccountId, ApplianceId, Canonical, Hash, KeyPurpose, Member, Payload, Salt, ThreadId};

/// Zeros that a new log is made of: the batch of a height with fifty messages, so that the usual height changes no
/// metadata of the file.
const WAL_PREALLOCATE_BYTES: u64 = 1024 * 1024;
/// Between tries to commit while the disk is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Why the ledger stops for good. Start-up repairs what can be repaired.
#[derive(Debug, Error)]
pub enum SequencerError {
    /// Consensus.
    #[error("the consensus stopped")]
    Engine(#[from] EngineError),
    /// The consensus log.
    #[error("the consensus log {}", path.display())]
    Wal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WalError,
    },
    /// The consensus log's file.
    #[error("the consensus log {}", path.display())]
    WalFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The validators of the ledger are none that consensus can work with.
    #[error("the ledger's validators")]
    Validators(#[from] ValidatorSetError),
    /// A validator's key is not in the keyring.
    #[error("the keyring lacks the consensus key of validator {0}")]
    KeyMissing(ApplianceId),
    /// The store did not take a certified height.
    #[error("a certified height could not be committed")]
    Commit(#[from] CommitError),
    /// Consensus decided a header whose block is not at hand. A fault of this program.
    #[error("header {0} was decided, but its block is not at hand")]
    BlockMissing(Hash),
    /// Consensus neither decided nor waits for anything. A fault of this program.
    #[error("consensus came to no decision and waits for nothing")]
    Stalled,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Everything that the sequencer works with.
pub struct Sequencer {
    /// The ledger as everybody reads it.
    pub view: Arc<View>,
    /// The store.
    pub store: Store,
    /// Custody.
    pub custody: Arc<CustodyWatch>,
    /// For signatures.
    pub backend: Arc<dyn Backend>,
    /// Whom to wake.
    pub push: Arc<Push>,
    /// What to tell of one's health.
    pub vitals: Arc<Vitals>,
    /// This appliance.
    pub me: ApplianceId,
    /// The consensus log.
    pub wal: PathBuf,
    /// The runtime on which the store works.
    pub runtime: Handle,
    /// Ends the work after the height that is under way.
    pub shutdown: CancellationToken,
}

/// What to do after a height came to nothing.
enum Setback {
    /// Open the log anew and replay, as soon as custody signs again.
    Reopen,
    /// Stop for good.
    Fatal(SequencerError),
}

impl<E: Into<SequencerError>> From<E> for Setback {
    fn from(error: E) -> Self {
        match error.into() {
            // Custody was locked or went away in the middle: the log has the height, custody has its votes.
            SequencerError::Engine(EngineError::Refused(reason)) => {
                log::warn!("custody does not sign: {reason}");
                Self::Reopen
            }
            SequencerError::Engine(error @ EngineError::Host { .. })
                if crate::custody::is_passing(&error) =>
            {
                log::warn!("{}", crate::logging::chain(&error));
                Self::Reopen
            }
            error => Self::Fatal(error),
        }
    }
}

impl Sequencer {
    /// Works until shutdown. Blocks: to be run on a thread of its own.
    ///
    /// # Errors
    /// See [`SequencerError`]; the process has to end, start-up repairs.
    pub fn run(self, mut queue: mpsc::Receiver<Pending>) -> Result<(), SequencerError> {
        let mut waiting = VecDeque::new();
        let result = loop {
            if !self.wait_for_custody(&mut queue) {
                break Ok(());
            }
            match self.work(&mut queue, &mut waiting) {
                Ok(()) => break Ok(()),
                Err(Setback::Reopen) => {
                    self.custody.refresh();
                    refuse(waiting.drain(..), &Unrecorded::Custody(self.custody.state()));
                    // If custody is well again at once, something else is wrong: do not spin.
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(Setback::Fatal(error)) => break Err(error),
            }
        };
        if let Err(error) = &result {
            self.vitals.stop(crate::logging::chain(error));
        }
        let unrecorded = if result.is_ok() { Unrecorded::ShuttingDown } else { Unrecorded::Stopped };
        queue.close();
        while let Ok(pending) = queue.try_recv() {
            waiting.push_back(pending);
        }
        refuse(waiting.drain(..), &unrecorded);
        result
    }

    /// `false` on shutdown. Entries that come meanwhile are refused at once.
    fn wait_for_custody(&self, queue: &mut mpsc::Receiver<Pending>) -> bool {
        let mut states = self.custody.subscribe();
        loop {
            if self.shutdown.is_cancelled() {
                return false;
            }
            let state = *states.borrow_and_update();
            if state.has_keys() {
                return true;
            }
            while let Ok(pending) = queue.try_recv() {
                refuse([pending], &Unrecorded::Custody(state));
            }
            self.runtime.block_on(async {
                tokio::select! {
                    _ = states.changed() => {}
                    // The queue is looked at again now and then.
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                    () = self.shutdown.cancelled() => {}
                }
            });
        }
    }

    /// Opens the log and works, height after height.
    fn work(
        &self,
        queue: &mut mpsc::Receiver<Pending>,
        waiting: &mut VecDeque<Pending>,
    ) -> Result<(), Setback> {
        let mut engine = self.open_engine()?;
        let mut host = Host::new(self);
        if self.custody.refresh() == CustodyState::AwaitingActivation
            && engine.abandon_unfinished(&mut host)?
        {
            log::warn!(
                "the unfinished height in the consensus log is dropped: the key that began it is retired"
            );
        }
        if engine.has_unfinished_height() {
            log::info!("the consensus log has an unfinished height; finishing it");
            self.one_height(&mut engine, &mut host, None, waiting)?;
        }
        loop {
            // An idle appliance waits here and makes no heights.
            if waiting.is_empty() {
                let next = self.runtime.block_on(async {
                    tokio::select! {
                        biased;
                        next = queue.recv() => next,
                        () = self.shutdown.cancelled() => None,
                    }
                });
                match next {
                    Some(pending) => waiting.push_back(pending),
                    None => return Ok(()),
                }
            }
            // Natural batching: whatever came while the last height was under way goes into this one.
            while let Ok(pending) = queue.try_recv() {
                waiting.push_back(pending);
            }
            let batch = match self.custody.state() {
                CustodyState::Operational => self.order(waiting)?,
                CustodyState::AwaitingActivation => self.order_activation(queue, waiting)?,
                _ => return Err(Setback::Reopen),
            };
            if let Some(batch) = batch {
                self.one_height(&mut engine, &mut host, Some(batch), waiting)?;
            }
            self.vitals.queued.store(waiting.len() as u64, Ordering::Relaxed);
        }
    }

    /// The one batch that can be certified while the ledger does not know custody's key: this appliance's decisions up to
    /// the activation of that key, as one request brings them, whole or not at all. Everything else is refused.
    fn order_activation(
        &self,
        queue: &mut mpsc::Receiver<Pending>,
        waiting: &mut VecDeque<Pending>,
    ) -> Result<Option<Batch>, Setback> {
        let refusal = Unrecorded::Custody(CustodyState::AwaitingActivation);
        let mut decisions = self.own_decisions(queue, waiting);
        refuse(waiting.drain(..), &refusal);
        let Some(Batch { block, tickets, refused }) = self.order(&mut decisions)? else { return Ok(None) };
        let present = self.custody.present(KeyPurpose::Consensus).map(|key| key.hash);
        let me = block.validators.iter().find(|validator| validator.appliance == self.me);
        // A part of them could end at a key that signs nothing any more, and no height would ever follow.
        if decisions.is_empty() && refused.is_empty() && me.map(|me| me.consensus) == present {
            return Ok(Some(Batch { block, tickets, refused }));
        }
        refuse(decisions, &refusal);
        tickets.into_iter().for_each(|ticket| ticket.answer(Err(refusal.clone())));
        refused.into_iter().for_each(|(ticket, why)| ticket.answer(Err(why)));
        Ok(None)
    }

    /// Takes the first request that brings decisions of this appliance from those that wait, whole.
    fn own_decisions(
        &self,
        queue: &mut mpsc::Receiver<Pending>,
        waiting: &mut VecDeque<Pending>,
    ) -> VecDeque<Pending> {
        let is_own = |pending: &Pending| match &pending.submission.body.payload {
            Payload::Decision { action } => action.appliance == self.me,
            _ => false,
        };
        let Some(group) = waiting.iter().find(|pending| is_own(pending)).map(|own| own.ticket.group.clone())
        else {
            return VecDeque::new();
        };
        // It is put into the queue entry by entry, and the end of it may be on its way still.
        let is_whole = |waiting: &VecDeque<Pending>| {
            waiting.iter().any(|pending| pending.ticket.group.is(&group) && pending.ticket.last)
        };
        while !is_whole(waiting) {
            match self.runtime.block_on(queue.recv()) {
                Some(pending) => waiting.push_back(pending),
                None => break,
            }
        }
        let (own, others) =
            std::mem::take(waiting).into_iter().partition(|pending| pending.ticket.group.is(&group));
        *waiting = others;
        own
    }

    /// Puts waiting entries in order, as many as fit. Refusals are kept until the height is committed: they may rest on
    /// what it records (a replayed counter, a lost race of two commits), and whoever is refused may ask for that.
    fn order(&self, waiting: &mut VecDeque<Pending>) -> Result<Option<Batch>, Setback> {
        let inner = self.view.read();
        let mut builder = BlockBuilder::new(&inner.state, now());
        let (mut tickets, mut refused) = (Vec::new(), Vec::new());
        while let Some(Pending { submission, ticket }) = waiting.pop_front() {
            if !builder.has_room(&submission) {
                waiting.push_front(Pending { submission, ticket });
                break;
            }
            if ticket.group.is_broken() {
                refused.push((ticket, Unrecorded::NotTried));
                continue;
            }
            let mut salt = Salt([0; Salt::LEN]);
            fill_random(&mut salt.0)?;
            // The signature was checked when the entry came, under a key that its author cannot change; whether the
            // author may still write is judged anew.
            match inner.state.signer(&submission).and_then(|_| builder.add(submission, salt)) {
                Ok(_) => tickets.push(ticket),
                Err(refusal) => {
                    ticket.group.set_broken();
                    refused.push((ticket, Unrecorded::Refused(refusal)));
                }
            }
        }
        if tickets.is_empty() {
            refused.into_iter().for_each(|(ticket, why)| ticket.answer(Err(why)));
            return Ok(None);
        }
        Ok(Some(Batch { block: builder.finish(), tickets, refused }))
    }

    /// The whole life of a height: of a new batch, or, without one, of what the consensus log holds after a restart.
    fn one_height(
        &self,
        engine: &mut Engine,
        host: &mut Host<'_>,
        batch: Option<Batch>,
        waiting: &mut VecDeque<Pending>,
    ) -> Result<(), Setback> {
        let (block, tickets, mut refused) = match batch {
            Some(Batch { block, tickets, refused }) => (Some(Arc::new(block)), tickets, refused),
            None => (None, Vec::new(), Vec::new()),
        };
        let ours = block.as_ref().map(|block| block.header_hash);
        // What can be written before the decision is written beside it.
        let staged = block.clone().map(|block| {
            let store = self.store.clone();
            self.runtime.spawn(async move { store.stage_batch(block).await })
        });

        // 1. Decide. The engine writes the batch to its log and has custody sign both votes; each is durable before it
        //    is released. Until the precommit, a crash loses the batch, and nobody was told otherwise.
        let Decided { header, certificate, .. } = match self.decide(engine, host, block) {
            Ok(Some(decision)) => decision,
            // The log had nothing that could be decided: the next batch will be.
            Ok(None) => return Ok(()),
            Err(error) => {
                self.discard(staged);
                let setback = Setback::from(error);
                let why = match &setback {
                    // Whoever waits may ask again with the same message id: if the log brings the batch back, the entry
                    // is found.
                    Setback::Reopen => Unrecorded::Custody(self.custody.refresh()),
                    Setback::Fatal(_) => Unrecorded::Stopped,
                };
                let all = tickets.into_iter().chain(refused.into_iter().map(|(ticket, _)| ticket));
                all.for_each(|ticket| ticket.answer(Err(why.clone())));
                return Err(setback);
            }
        };
        // POINT OF NO RETURN: custody's precommit makes the header certified. After a crash the log leads to the same
        // decision, and this function goes on from here.

        let mut blocks = host.take_blocks();
        let block = blocks.remove(&header).ok_or(SequencerError::BlockMissing(header))?;

        // 2. Commit: entries, envelopes, header, certificate; one transaction, one fsync.
        let mut staged = staged.filter(|_| ours == Some(header));
        loop {
            let committed = self.runtime.block_on(async {
                if let Some(staged) = staged.take() {
                    match staged.await {
                        Ok(Ok(staged)) => return self.store.commit_staged(staged, &certificate).await,
                        Ok(Err(error)) => log::debug!("not staged: {}", crate::logging::chain(&error)),
                        Err(error) => log::debug!("not staged: {error}"),
                    }
                }
                // Nothing is staged, or it could not be: that is tried again, and reported, here.
                self.store.commit_batch(&block, &certificate).await
            });
            match committed {
                Ok(_) => break,
                Err(CommitError::Store(error @ StoreError::Full)) if !self.shutdown.is_cancelled() => {
                    // The log keeps the height; room may be made while we wait.
                    self.vitals.commit_failed();
                    log::error!("height {}: {error}", block.header().height);
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(error) => {
                    self.vitals.commit_failed();
                    let all = tickets.into_iter().chain(refused.into_iter().map(|(ticket, _)| ticket));
                    all.for_each(|ticket| ticket.answer(Err(Unrecorded::StoreFailed)));
                    return Err(SequencerError::from(error).into());
                }
            }
        }
        // POINT OF NO RETURN: the height is durable. From here on it may be acknowledged, and the log may forget it.

        // 3. Publish: readers see it, recipients are woken, authors get their receipts. Start-up needs no part of this
        //    again: state is loaded from the store, receipts are found by message id, streams read the store.
        self.view.publish(&block, &certificate);
        if let Some(me) = block.validators.iter().find(|validator| validator.appliance == self.me) {
            self.custody.record(me.consensus);
        }
        self.vitals.committed(now());
        for entry in &block.entries {
            self.push.wake(&entry.recipients);
            if let Payload::DeviceRevoke { device, .. } = entry.body.payload
                && let Some(account) = self.account_of(&entry.body.thread)
            {
                // Its streams have to notice that they end.
                self.push.wake([&Member { account, device }]);
            }
        }
        if ours == Some(header) {
            for (entry, ticket) in block.entries.iter().zip(tickets) {
                ticket.answer(Ok(Recorded::at(block.header().height, entry)));
            }
        } else if let Some(ours) = ours.and_then(|ours| blocks.remove(&ours)) {
            // The log brought an older batch back, and that was decided instead of ours: ours comes next. Refusals rest on
            // what ours would have recorded, and it may yet record something else.
            refused.iter_mut().for_each(|(_, why)| *why = Unrecorded::Undone);
            for (entry, ticket) in Arc::unwrap_or_clone(ours).entries.into_iter().zip(tickets).rev() {
                waiting.push_front(Pending { submission: queue::resubmit(entry), ticket });
            }
        }
        refused.into_iter().for_each(|(ticket, why)| ticket.answer(Err(why)));
        let (height, entries) = (block.header().height, block.header().entries);
        log::debug!("height {height}: {entries} entries, header {header}");
        Ok(())
    }

    /// Ends the transaction of a height that is not decided now: nobody may write for long.
    fn discard(&self, staged: Option<tokio::task::JoinHandle<Result<Staged, CommitError>>>) {
        if let Some(staged) = staged {
            self.runtime.block_on(async {
                if let Ok(Ok(staged)) = staged.await {
                    self.store.discard(staged).await;
                }
            });
        }
    }

    /// Drives the engine to a decision at the next height. `None` if there is nothing to decide.
    fn decide(
        &self,
        engine: &mut Engine,
        host: &mut Host<'_>,
        block: Option<Arc<ProposedBlock>>,
    ) -> Result<Option<Decided>, SequencerError> {
        let proposed = block.map(|block| {
            let content = Content { header: block.header().to_bytes(), batch: block.batch.to_bytes() };
            let proposed = Proposed { header: block.header_hash, content: Arc::new(content) };
            host.offer(proposed.clone(), block);
            proposed
        });
        match (engine.running().and(engine.round()), &proposed) {
            (None, _) => {
                let start = height_start(&self.view.read().state)?;
                engine.start_height(start, host)?;
            }
            (Some(round), Some(proposed)) => {
                engine.propose(round, proposed.clone(), host)?;
            }
            (Some(_), None) => {}
        }
        loop {
            if let Some(decision) = host.decision.take() {
                return Ok(Some(decision));
            }
            if proposed.is_none() {
                return Ok(None);
            }
            let (timer, at) = host.next_timer().ok_or(SequencerError::Stalled)?;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            host.forget_timer(timer);
            engine.timeout(timer, host)?;
        }
    }

    fn open_engine(&self) -> Result<Engine, SequencerError> {
        let path = || self.wal.clone();
        let file = DiskFile::open(&self.wal, WAL_PREALLOCATE_BYTES)
            .map_err(|source| SequencerError::WalFile { path: path(), source })?;
        let mut salt = [0; 8];
        fill_random(&mut salt)?;
        let wal = Wal::open(Arc::new(file), u64::from_be_bytes(salt), Flush::Beside)
            .map_err(|source| SequencerError::Wal { path: path(), source })?;
        let inner = self.view.read();
        let config = Config {
            me: self.me,
            genesis: inner.state.genesis_hash,
            timeouts: Timeouts::default(),
            verify_own_votes: true,
        };
        Ok(Engine::new(config, Arc::clone(&self.backend), wal, height_start(&inner.state)?))
    }

    fn account_of(&self, thread: &ThreadId) -> Option<AccountId> {
        self.view.read().state.thread(thread).and_then(|thread| thread.account()).map(|account| account.id)
    }
}

fn refuse(pending: impl IntoIterator<Item = Pending>, why: &Unrecorded) {
    for Pending { ticket, .. } in pending {
        ticket.answer(Err(why.clone()));
    }
}

/// A block, those who wait for it, and those whose entries did not get into it.
struct Batch {
    block: ProposedBlock,
    tickets: Vec<Ticket>,
    refused: Vec<(Ticket, Unrecorded)>,
}

fn height_start(state: &LedgerState) -> Result<HeightStart, SequencerError> {
    let validators = state.validators.iter().map(|validator| {
        let key =
            state.keyring.get(&validator.consensus).ok_or(SequencerError::KeyMissing(validator.appliance))?;
        Ok(Validator::new(validator.appliance, &key.key, validator.stake))
    });
    Ok(HeightStart {
        height: state.height.next(),
        suite: state.genesis.suite(),
        validators: ValidatorSet::new(validators.collect::<Result<_, SequencerError>>()?)?,
    })
}
