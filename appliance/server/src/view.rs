//! The ledger after the last committed height, for everybody who reads. The sequencer alone changes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;
use zixt_api::{CertifiedHeader, Consistency, EntryProof, HeadProof, ShardConsistency, ShardProof};
use zixt_ledger::tree::{self, MemoryTree, NodeId, Plan};
use zixt_ledger::{LedgerState, ProposedBlock, TreeId, shard_states};
use zixt_storage::{Store, StoreError};
use zixt_types::{Canonical, Certificate, Hash, Header, Height, ShardId, ShardState, ThreadId};

/// Nodes kept from recent heights, so that the receipt of a new entry needs no read of the store.
const NODES_MAX: usize = 16_384;

/// A height is durable before it is published, and readers of the store see it in between. Longer than this it can only
/// be missing.
const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(5);

/// The last committed height, ready to be sent.
#[derive(Debug)]
pub struct Latest {
    /// Its height.
    pub height: Height,
    /// Its header's hash.
    pub hash: Hash,
    certified: CertifiedHeader,
    shards: Vec<ShardState>,
    shards_tree: MemoryTree,
}

impl Latest {
    fn new(header: &Header, hash: Hash, certificate: &Certificate, shards: Vec<ShardState>) -> Self {
        Self {
            height: header.height,
            hash,
            certified: certified(header, certificate),
            shards_tree: shards.iter().map(tree::shard_leaf).collect(),
            shards,
        }
    }

    /// The header with its certificate.
    #[must_use]
    pub const fn certified(&self) -> &CertifiedHeader {
        &self.certified
    }

    fn shard(&self, shard: ShardId) -> Option<ShardProof> {
        let state = self.shards.get(usize::from(shard.0))?;
        let count = self.shards_tree.size();
        let path = self.shards_tree.prove_inclusion(u64::from(shard.0), count)?;
        Some(ShardProof { shard: shard.0, size: state.size, root: state.root.into(), path: hex(path) })
    }
}

/// A header and its certificate as they travel.
#[must_use]
pub fn certified(header: &Header, certificate: &Certificate) -> CertifiedHeader {
    CertifiedHeader {
        height: header.height.0,
        header: header.to_bytes().into(),
        certificate: certificate.to_bytes().into(),
    }
}

/// The ledger as everybody reads it.
pub struct View {
    inner: RwLock<Inner>,
    /// The height that was published last.
    published: watch::Sender<Height>,
    nodes: Mutex<HashMap<(TreeId, NodeId), Hash>>,
}

/// State and last header, of the same height.
pub struct Inner {
    /// The state.
    pub state: LedgerState,
    /// The last height; `None` before the first.
    pub latest: Option<Arc<Latest>>,
}

impl Inner {
    /// Proves a thread's head at the last height; `None` before the first.
    #[must_use]
    pub fn prove_head(&self, thread: &ThreadId) -> Option<HeadProof> {
        let latest = self.latest.as_ref()?;
        Some(HeadProof {
            thread: (*thread).into(),
            map: self.state.heads.prove(thread).to_bytes().into(),
            certified: latest.certified.clone(),
        })
    }
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofFault {
    /// What was asked for is not in the ledger.
    #[error("the ledger has no such entry, shard or height")]
    Absent,
    /// An entry is on record, but not where its row says: the row is not what was committed.
    #[error(
        "an entry's row says height {height}, {shard:?}, leaf {leaf}, where the ledger has none. Run zixt-admin fsck"
    )]
    Misplaced {
        /// The height that the row says.
        height: Height,
        /// The shard that the row says.
        shard: ShardId,
        /// The leaf that the row says.
        leaf: u64,
    },
    /// The store lost a node.
    #[error("the store lacks a tree node: {0}. Run zixt-admin fsck")]
    Node(#[from] tree::MissingNode),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl View {
    /// The view of a state that was just loaded, with the last stored header.
    #[must_use]
    pub fn new(state: LedgerState, last: Option<&zixt_storage::StoredHeader>) -> Self {
        let latest = last.map(|last| {
            Arc::new(Latest::new(&last.header, last.hash, &last.certificate, shard_states(&state.shards)))
        });
        let published = watch::Sender::new(state.height);
        Self { inner: RwLock::new(Inner { state, latest }), published, nodes: Mutex::default() }
    }

    /// Reads state and last header together. Not to be held for long: the next height waits.
    pub fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic in `publish` would have ended the sequencer and with it the process.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last height.
    pub fn latest(&self) -> Option<Arc<Latest>> {
        self.read().latest.clone()
    }

    /// Makes a committed block part of what everybody reads.
    pub(crate) fn publish(&self, block: &ProposedBlock, certificate: &Certificate) {
        {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            if nodes.len() > NODES_MAX {
                nodes.clear();
            }
            nodes.extend(block.nodes.iter().map(|(tree, node)| ((*tree, node.id()), node.hash)));
        }
        let latest = Latest::new(block.header(), block.header_hash, certificate, block.shard_states());
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.state.apply(block);
        inner.latest = Some(Arc::new(latest));
        drop(inner);
        self.published.send_replace(block.header().height);
    }

    /// The last height, once it is at least `height`. Whoever has read the store may be ahead of it for a moment.
    async fn latest_from(&self, height: Height) -> Option<Arc<Latest>> {
        if let Some(latest) = self.latest()
            && latest.height >= height
        {
            return Some(latest);
        }
        let mut published = self.published.subscribe();
        let published = published.wait_for(|published| *published >= height);
        tokio::time::timeout(PUBLISH_WAIT_MAX, published).await.ok()?.ok()?;
        self.latest()
    }

    async fn build(&self, store: &Store, tree: TreeId, plan: &Plan) -> Result<Vec<Hash>, ProofFault> {
        let mut known: HashMap<NodeId, Hash> = HashMap::new();
        let mut wanted = Vec::new();
        {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            for id in plan.nodes() {
                match nodes.get(&(tree, id)) {
                    Some(hash) => drop(known.insert(id, *hash)),
                    None => wanted.push((tree, id)),
                }
            }
        }
        if !wanted.is_empty() {
            let fetched = store.nodes(&wanted).await?;
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, hash) in fetched {
                known.insert(id.1, hash);
                if nodes.len() <= NODES_MAX {
                    nodes.insert(id, hash);
                }
            }
        }
        Ok(plan.build(|id| known.get(&id).copied())?)
    }

    /// Proves an entry that is on record since `height`, at the last height.
    ///
    /// # Errors
    /// See [`ProofFault`].
    pub async fn prove_entry(
        &self,
        store: &Store,
        height: Height,
        shard: ShardId,
        leaf: u64,
    ) -> Result<EntryProof, ProofFault> {
        let misplaced = || ProofFault::Misplaced { height, shard, leaf };
        let latest = self.latest_from(height).await.ok_or_else(misplaced)?;
        let shard_proof = latest.shard(shard).ok_or_else(misplaced)?;
        let plan = tree::inclusion_plan(leaf, shard_proof.size).map_err(|_| misplaced())?;
        let path = self.build(store, TreeId::Shard(shard), &plan).await?;
        Ok(EntryProof { certified: latest.certified.clone(), shard: shard_proof, leaf, path: hex(path) })
    }

    /// Proves that the ledger only grew since `from`.
    ///
    /// # Errors
    /// See [`ProofFault`].
    pub async fn prove_consistency(
        &self,
        store: &Store,
        from: Height,
        shards: &[(ShardId, u64)],
    ) -> Result<Consistency, ProofFault> {
        let latest = self.latest().ok_or(ProofFault::Absent)?;
        if from > latest.height {
            return Err(ProofFault::Absent);
        }
        let history = if from.0 == 0 || from == latest.height {
            Vec::new()
        } else {
            let plan =
                tree::inclusion_plan(from.0 - 1, latest.height.0 - 1).map_err(|_| ProofFault::Absent)?;
            self.build(store, TreeId::History, &plan).await?
        };
        let mut proofs = Vec::with_capacity(shards.len());
        for (shard, from_size) in shards {
            let proof = latest.shard(*shard).ok_or(ProofFault::Absent)?;
            let plan = tree::consistency_plan(*from_size, proof.size).map_err(|_| ProofFault::Absent)?;
            let path = self.build(store, TreeId::Shard(*shard), &plan).await?;
            proofs.push(ShardConsistency { from_size: *from_size, latest: proof, path: hex(path) });
        }
        Ok(Consistency {
            from_height: from.0,
            latest: latest.certified.clone(),
            history: hex(history),
            shards: proofs,
        })
    }
}

fn hex(path: Vec<Hash>) -> Vec<zixt_api::HashHex> {
    path.into_iter().map(Into::into).collect()
}
