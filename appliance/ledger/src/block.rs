//! The block of a height: built by the proposer, rebuilt by every validator, applied by all.

use crate::map::StagedHeads;
use crate::tree::{self, Frontier, TreeNode};
use crate::{LedgerState, Refusal, Submission, SubmissionError, Thread};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use thiserror::Error;
use zixt_crypto::{Backend, digest};
use zixt_types::{
    Attachment, Batch, BatchItem, Body, BodyKind, EntryPosition, Hash, Head, Header, Member, MessageId, Salt,
    Seq, ShardId, ShardState, SuiteId, ThreadId, Timestamp, Validator, limits,
};

/// Which append-only tree a node belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TreeId {
    /// The tree over all header hashes. Its leaf for height h joins with the block of height h + 1.
    History,
    /// A shard's tree of entries.
    Shard(ShardId),
}

/// An entry as the ledger recorded it, with everything that a store, a recipient and a proof need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedEntry {
    /// The parsed body.
    pub body: Body,
    /// The body, signatures, position, salt and attachments as they stand in the batch.
    pub item: BatchItem,
    /// Its entry hash.
    pub hash: Hash,
    /// Its shard.
    pub shard: ShardId,
    /// Its leaf's index in the shard's tree.
    pub leaf: u64,
    /// Who is told of it.
    pub recipients: Vec<Member>,
}

impl RecordedEntry {
    /// The kind of its payload.
    #[must_use]
    pub const fn kind(&self) -> BodyKind {
        self.body.payload.kind()
    }

    /// The public key that it brings into the ledger's keyring, with its suite.
    #[must_use]
    pub fn brought_key(&self) -> Option<(SuiteId, &[u8])> {
        crate::submission::brought_key(&self.body, &self.item.attachments)
    }
}

/// A block that nobody has certified yet. Computing it changes no state, so it can be dropped.
#[derive(Clone, Debug)]
pub struct ProposedBlock {
    /// What consensus makes durable.
    pub batch: Batch,
    /// The hash that consensus decides.
    pub header_hash: Hash,
    /// The entries.
    pub entries: Vec<RecordedEntry>,
    /// The threads that it changes, with their new state.
    pub threads: Vec<(ThreadId, Arc<Thread>)>,
    /// The tree nodes that it completes.
    pub nodes: Vec<(TreeId, TreeNode)>,
    /// Every shard's tree after it, in order of shard.
    pub shards: Vec<Frontier>,
    /// The history tree as its header commits to it.
    pub history: Frontier,
    /// Who certifies it: the validators after it. A key that its own entries activate signs it already.
    pub validators: Arc<Vec<Validator>>,
    heads: StagedHeads,
}

/// Why a batch from elsewhere is not the next block.
#[derive(Debug, Error)]
pub enum BlockError {
    /// Entry `index` is malformed.
    #[error("entry {index}: {source}")]
    Submission {
        /// Its place in the batch.
        index: usize,
        /// The fault.
        #[source]
        source: SubmissionError,
    },
    /// Entry `index` is not valid in this state.
    #[error("entry {index}: {source}")]
    Refused {
        /// Its place in the batch.
        index: usize,
        /// The fault.
        #[source]
        source: Refusal,
    },
    /// Entry `index` claims another place than the one that it takes.
    #[error("entry {index} claims another place in its thread than the one that it takes")]
    Position {
        /// Its place in the batch.
        index: usize,
    },
    /// The ledger time does not advance.
    #[error("the ledger time {got} is not after the last header's {last}")]
    Time {
        /// The last header's.
        last: Timestamp,
        /// The batch's.
        got: Timestamp,
    },
    /// The entries do not lead to the header.
    #[error("the entries lead to another header than the batch claims")]
    OtherHeader,
}

/// Collects entries for the next height.
#[derive(Debug)]
pub struct BlockBuilder<'a> {
    base: &'a LedgerState,
    time: Timestamp,
    threads: HashMap<ThreadId, Thread>,
    shards: Vec<Frontier>,
    nodes: Vec<(TreeId, TreeNode)>,
    entries: Vec<RecordedEntry>,
    message_ids: HashSet<(ThreadId, MessageId)>,
    bytes: usize,
}

impl<'a> BlockBuilder<'a> {
    /// Starts the block after `base`. `now` is the proposer's clock; every height has a later time than the one before,
    /// so that the times of two entries tell which height's state the later one was judged by. A clock that is beyond
    /// [`limits::CLOCK_MS_MAX`] is wrong and not taken over: the ledger could never go back.
    #[must_use]
    pub fn new(base: &'a LedgerState, now: Timestamp) -> Self {
        let next = Timestamp(base.time.0.saturating_add(1));
        Self {
            base,
            time: if now.0 > limits::CLOCK_MS_MAX { next } else { now.max(next) },
            threads: HashMap::new(),
            shards: base.shards.clone(),
            nodes: Vec::new(),
            entries: Vec::new(),
            message_ids: HashSet::new(),
            bytes: 0,
        }
    }

    /// Whether another entry of this size still fits.
    #[must_use]
    pub fn has_room(&self, submission: &Submission) -> bool {
        self.entries.len() < limits::BATCH_ENTRIES_MAX
            && (self.entries.is_empty() || self.bytes + size(submission) <= limits::BATCH_BYTES_MAX - 65_536)
    }

    /// The number of entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The state of a thread as this block left it so far.
    #[must_use]
    pub fn thread(&self, id: &ThreadId) -> Option<&Thread> {
        self.threads.get(id).or_else(|| self.base.thread(id).map(Arc::as_ref))
    }

    /// Adds an entry whose signatures were checked. Returns its place in [`ProposedBlock::entries`]. That no entry of an
    /// earlier height has its message id is for the caller to see to: the state keeps none.
    ///
    /// # Errors
    /// The ledger does not take it; the block is unchanged.
    pub fn add(&mut self, submission: Submission, salt: Salt) -> Result<usize, Refusal> {
        let id = submission.body.thread;
        let own = self.thread(&id);
        let position = EntryPosition {
            seq: own.map_or(Seq(0), |thread| thread.head.seq.next()),
            prev: own.map_or(Hash::ZERO, |thread| thread.head.hash),
            time: self.time,
        };
        let (counters, detail) = self.base.extend(own, &submission, position.seq, self.time)?;
        let recipients = LedgerState::recipients(own, &detail);
        // Last, so that the same entry a second time is refused as the replay that it is.
        if !self.message_ids.insert((id, submission.body.message_id)) {
            return Err(Refusal::MessageIdInUse);
        }

        let hash = digest::entry_hash(
            &submission.body_bytes,
            digest::signature_digest(&submission.signature),
            submission.possession.as_deref().map(digest::signature_digest),
            &position,
        );
        let shard = id.shard(self.base.genesis.shard_count);
        let tree = &mut self.shards[usize::from(shard.0)];
        let leaf = tree.size();
        let mut nodes = Vec::new();
        tree.append(tree::leaf_hash(&salt, &hash), &mut nodes);
        self.nodes.extend(nodes.into_iter().map(|node| (TreeId::Shard(shard), node)));
        self.threads.insert(id, Thread { head: Head { seq: position.seq, hash }, counters, detail });
        self.bytes += size(&submission);

        let Submission { body, body_bytes, signature, possession, attachments } = submission;
        let item = BatchItem { body: body_bytes, signature, possession, position, salt, attachments };
        self.entries.push(RecordedEntry { body, item, hash, shard, leaf, recipients });
        Ok(self.entries.len() - 1)
    }

    /// Closes the block.
    #[must_use]
    pub fn finish(self) -> ProposedBlock {
        let base = self.base;
        let mut nodes = self.nodes;
        let mut history = base.history.clone();
        if base.height.0 > 0 {
            let mut complete = Vec::new();
            history.append(tree::history_leaf(&base.header_hash), &mut complete);
            nodes.extend(complete.into_iter().map(|node| (TreeId::History, node)));
        }
        let heads: Vec<_> = self.threads.iter().map(|(id, thread)| (*id, thread.head)).collect();
        let (map, heads) = base.heads.stage(&heads);
        let system = self.threads.get(&digest::system_thread(base.genesis_hash)).and_then(Thread::system);
        let validators = match system {
            Some(system) if system.validators != *base.validators => Arc::new(system.validators.clone()),
            _ => Arc::clone(&base.validators),
        };
        let header = Header {
            version: Header::VERSION,
            suite: base.genesis.suite(),
            genesis: base.genesis_hash,
            height: base.height.next(),
            previous: base.header_hash,
            history: history.root(),
            shards: shards_root(&self.shards),
            map,
            validators: digest::validator_set_hash(&validators),
            policy: digest::policy_hash(&base.genesis),
            time: self.time,
            entries: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
        };
        let header_hash = digest::header_hash(&header);
        let items = self.entries.iter().map(|entry| entry.item.clone()).collect();
        let threads = self.threads.into_iter().map(|(id, thread)| (id, Arc::new(thread))).collect();
        let batch = Batch { version: Batch::VERSION, header, items };
        ProposedBlock {
            batch,
            header_hash,
            entries: self.entries,
            threads,
            nodes,
            shards: self.shards,
            history,
            validators,
            heads,
        }
    }
}

impl ProposedBlock {
    /// Rebuilds a block from a batch and compares: what a validator does before it votes, and what start-up does with
    /// a batch from the write-ahead log. Every signature is checked.
    ///
    /// # Errors
    /// See [`BlockError`].
    pub fn rebuild(base: &LedgerState, batch: Batch, backend: &dyn Backend) -> Result<Self, BlockError> {
        if batch.header.time <= base.time {
            return Err(BlockError::Time { last: base.time, got: batch.header.time });
        }
        let mut builder = BlockBuilder::new(base, batch.header.time);
        for (index, item) in batch.items.into_iter().enumerate() {
            let submission = Submission::parse(item.body, item.signature, item.possession, item.attachments)
                .map_err(|source| BlockError::Submission { index, source })?;
            let signer = base.signer(&submission).map_err(|source| BlockError::Refused { index, source })?;
            submission
                .verify(&signer, &base.keyring, backend)
                .map_err(|source| BlockError::Submission { index, source })?;
            builder.add(submission, item.salt).map_err(|source| BlockError::Refused { index, source })?;
            // The header binds where an entry stands; the batch has to say the same, or two encodings would lead to it.
            if builder.entries.last().is_none_or(|entry| entry.item.position != item.position) {
                return Err(BlockError::Position { index });
            }
        }
        let block = builder.finish();
        if block.batch.header == batch.header { Ok(block) } else { Err(BlockError::OtherHeader) }
    }

    /// The header that it leads to.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.batch.header
    }

    /// The public key of a validator who certifies it. `base` is the state that it was built on.
    #[must_use]
    pub fn validator_key<'a>(&'a self, base: &'a LedgerState, validator: &Validator) -> Option<&'a [u8]> {
        let hash = validator.consensus;
        let own = self.entries.iter().filter_map(RecordedEntry::brought_key);
        let mut own = own.filter(|(suite, key)| digest::key_hash(*suite, key) == hash);
        let known = base.keyring.get(&hash).map(|entry| entry.key.as_slice());
        known.or_else(|| own.next().map(|(_, key)| key))
    }

    /// The shards' states that the header commits to.
    #[must_use]
    pub fn shard_states(&self) -> Vec<ShardState> {
        shard_states(&self.shards)
    }
}

impl LedgerState {
    /// Makes a certified block part of the state. The block must have been built on this very state.
    pub fn apply(&mut self, block: &ProposedBlock) {
        debug_assert_eq!(block.batch.header.previous, self.header_hash);
        self.height = block.batch.header.height;
        self.header_hash = block.header_hash;
        self.time = block.batch.header.time;
        self.history = block.history.clone();
        self.shards.clone_from(&block.shards);
        self.heads.apply(&block.heads);
        for (suite, key) in block.entries.iter().filter_map(RecordedEntry::brought_key) {
            self.insert_key(suite, key);
        }
        for (id, thread) in &block.threads {
            self.place_thread(*id, Arc::clone(thread));
        }
    }
}

/// The shards' states that a header commits to.
#[must_use]
pub fn shard_states(shards: &[Frontier]) -> Vec<ShardState> {
    shards
        .iter()
        .zip(0u16..)
        .map(|(tree, shard)| ShardState { shard: ShardId(shard), size: tree.size(), root: tree.root() })
        .collect()
}

fn shards_root(shards: &[Frontier]) -> Hash {
    let mut frontier = Frontier::default();
    for state in shard_states(shards) {
        frontier.append(tree::shard_leaf(&state), &mut Vec::new());
    }
    frontier.root()
}

fn size(submission: &Submission) -> usize {
    submission.body_bytes.len()
        + submission.signature.len()
        + submission.possession.as_ref().map_or(0, Vec::len)
        + submission.attachments.iter().map(|Attachment(bytes)| bytes.len() + 16).sum::<usize>()
        + 256
}
