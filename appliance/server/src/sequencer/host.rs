//! What consensus asks of the server.

use super::{Sequencer, SequencerError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zixt_consensus::{
    Content, Decision, Equivocation, HostError, Message, Proposed, SignOutcome, Source, Timer, Validator,
    ValidatorSet,
};
use zixt_ledger::ProposedBlock;
use zixt_types::{Batch, Canonical, Hash, Height, KeyPurpose, Round, Vote};

/// The state folder is older than custody's memory: to vote on could make a second ledger.
#[derive(Debug, thiserror::Error)]
#[error(
    "custody has precommitted height {signed}, but the store and the log lead only to height {height}: they were set back"
)]
struct SetBack {
    signed: Height,
    height: Height,
}

/// The server as the engine sees it, during one opening of the log.
pub(super) struct Host<'a> {
    sequencer: &'a Sequencer,
    /// What we would propose.
    offered: Option<Proposed>,
    /// Blocks that were built or judged good at this height.
    blocks: HashMap<Hash, Arc<ProposedBlock>>,
    timers: BTreeMap<Timer, Instant>,
    /// What was decided and not yet committed.
    pub decision: Option<Decision>,
}

impl<'a> Host<'a> {
    pub fn new(sequencer: &'a Sequencer) -> Self {
        Self { sequencer, offered: None, blocks: HashMap::new(), timers: BTreeMap::new(), decision: None }
    }

    /// What to propose at the next height.
    pub fn offer(&mut self, proposed: Proposed, block: Arc<ProposedBlock>) {
        self.blocks.insert(proposed.header, block);
        self.offered = Some(proposed);
    }

    /// All blocks of the height, which is over.
    pub fn take_blocks(&mut self) -> HashMap<Hash, Arc<ProposedBlock>> {
        self.offered = None;
        self.timers.clear();
        std::mem::take(&mut self.blocks)
    }

    /// Why a vote must not be asked for: custody's key is not the one that certifies the header, and its guard would take
    /// the vote for signed all the same. What it has precommitted before, it may give back.
    fn other_key(&self, vote: &Vote) -> Result<Option<String>, HostError> {
        let custody = &self.sequencer.custody;
        let (Some(header), Some(present)) = (vote.header, custody.present(KeyPurpose::Consensus)) else {
            return Ok(None);
        };
        if self.key_for(&header) == Some(present.hash) {
            return Ok(None);
        }
        let signed = custody.custody().last_precommit()?;
        if signed == Some((vote.height, vote.round, header)) {
            return Ok(None);
        }
        Ok(Some(format!("custody uses consensus key {}, which does not certify this header", present.hash)))
    }

    /// The key of this appliance that certifies a header.
    fn key_for(&self, header: &Hash) -> Option<Hash> {
        let me = |validators: &[zixt_types::Validator]| {
            let me = validators.iter().find(|validator| validator.appliance == self.sequencer.me);
            me.map(|validator| validator.consensus)
        };
        match self.blocks.get(header) {
            Some(block) => me(&block.validators),
            None => me(&self.sequencer.view.read().state.validators),
        }
    }

    pub fn next_timer(&self) -> Option<(Timer, Instant)> {
        self.timers.iter().map(|(timer, at)| (*timer, *at)).min_by_key(|(_, at)| *at)
    }

    pub fn forget_timer(&mut self, timer: Timer) {
        self.timers.remove(&timer);
    }
}

impl zixt_consensus::Host for Host<'_> {
    fn build(&mut self, _: Height, _: Round) -> Result<Option<Proposed>, HostError> {
        Ok(self.offered.clone())
    }

    fn validate(
        &mut self,
        height: Height,
        header: &Hash,
        content: &Content,
        _: Source,
    ) -> Result<bool, HostError> {
        if self.blocks.contains_key(header) {
            return Ok(true);
        }
        let reject = |why: &dyn std::fmt::Display| {
            log::warn!("height {height}: a proposed batch is refused: {why}");
            Ok(false)
        };
        let batch = match Batch::parse(&content.batch) {
            Ok(batch) => batch,
            Err(error) => return reject(&error),
        };
        let inner = self.sequencer.view.read();
        match ProposedBlock::rebuild(&inner.state, batch, &*self.sequencer.backend) {
            Ok(block) if block.header_hash == *header && block.header().to_bytes() == content.header => {
                self.blocks.insert(*header, Arc::new(block));
                Ok(true)
            }
            Ok(_) => reject(&"its entries lead to another header"),
            Err(error) => reject(&error),
        }
    }

    fn certifiers(&mut self, _: Height, header: &Hash) -> Result<Option<ValidatorSet>, HostError> {
        let Some(block) = self.blocks.get(header) else { return Ok(None) };
        let inner = self.sequencer.view.read();
        if block.validators == inner.state.validators {
            return Ok(None);
        }
        let validators = block.validators.iter().map(|validator| {
            let key = block.validator_key(&inner.state, validator);
            let key = key.ok_or(SequencerError::KeyMissing(validator.appliance))?;
            Ok(Validator::new(validator.appliance, key, validator.stake))
        });
        let validators = validators.collect::<Result<_, SequencerError>>()?;
        Ok(Some(ValidatorSet::new(validators)?))
    }

    fn signs_for(&mut self, header: &Hash) -> Result<bool, HostError> {
        let present = self.sequencer.custody.present(KeyPurpose::Consensus);
        Ok(present.is_some_and(|present| self.key_for(header) == Some(present.hash)))
    }

    fn sign_vote(&mut self, vote: &Vote) -> Result<SignOutcome, HostError> {
        let custody = &self.sequencer.custody;
        if let Some(reason) = self.other_key(vote)? {
            return Ok(SignOutcome::OtherKey(reason));
        }
        custody.custody().sign_vote(vote)
    }

    fn signed_precommit(&mut self, height: Height) -> Result<Option<(Round, Hash)>, HostError> {
        match self.sequencer.custody.custody().last_precommit()? {
            Some((signed, round, header)) if signed == height => Ok(Some((round, header))),
            Some((signed, ..)) if signed > height => Err(Box::new(SetBack { signed, height })),
            _ => Ok(None),
        }
    }

    fn publish(&mut self, message: Message) {
        // There is no link to other validators yet; a sole validator never publishes.
        log::warn!("height {}: a message for other validators has no way to them", message.height());
    }

    fn schedule(&mut self, timer: Timer, after: Duration) {
        self.timers.insert(timer, Instant::now() + after);
    }

    fn cancel(&mut self, timer: Timer) {
        self.timers.remove(&timer);
    }

    fn decided(&mut self, decision: Decision) -> Result<(), HostError> {
        // Committed by `Sequencer::one_height` when the engine has returned.
        self.decision = Some(decision);
        Ok(())
    }

    fn equivocation(&mut self, evidence: Equivocation) {
        log::error!(
            "validator {} voted twice at height {}",
            evidence.first.validator,
            evidence.first.vote.height
        );
    }
}
