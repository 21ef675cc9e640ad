//! From rows to the state of the ledger, with every root compared to the last certified header, and every account and
//! the system thread derived again from their entries: who may act here must not rest on what a row claims.

use crate::{LoadError, Store, StoreError, StoredEntry};
use minicbor::Encode;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use zixt_crypto::{Backend, digest};
use zixt_ledger::evidence::Signature;
use zixt_ledger::tree::{Frontier, MemoryTree, NodeId, shard_leaf};
use zixt_ledger::{Keyring, LedgerState, SystemThread, Thread, TreeId, certificate, shard_states};
use zixt_types::{
    Canonical, Decision, Genesis, Hash, Head, Height, Payload, Seq, ShardId, SuiteId, ThreadId, ThreadKind,
    limits,
};

pub(crate) async fn load(
    store: &Store,
    genesis: Genesis,
    keyring: Keyring,
    backend: &dyn Backend,
) -> Result<LedgerState, LoadError> {
    let mut state = LedgerState::new(genesis, keyring);
    let Some(last) = store.last_header().await? else {
        store.each_thread(|id, _| Err(StoreError::corrupt("threads", id, "there is no header yet"))).await?;
        return Ok(state);
    };
    if last.header.genesis != state.genesis_hash {
        return Err(LoadError::OtherNetwork { expected: state.genesis_hash, stored: last.header.genesis });
    }
    // Officers' approvals lead to the validators, so that these need no header to stand on.
    let system = system(store, &mut state, backend).await?;
    state.adopt_system(system.system().clone());
    certificate::verify_certificate(
        &last.header,
        &last.certificate,
        &state.validators,
        &state.keyring,
        backend,
    )?;
    // From here on the header is true, and everything is measured by it.
    let header = &last.header;
    let previous = match header.height {
        Height(0 | 1) => Hash::ZERO,
        Height(height) => {
            let previous = store.header(Height(height - 1)).await?;
            previous.ok_or_else(|| inconsistent("the header before the last one is missing"))?.hash
        }
    };
    same("the header before the last one", previous, header.previous)?;

    state.history = frontier(store, TreeId::History).await?;
    if state.history.size() != header.height.0 - 1 {
        return Err(inconsistent("the history tree has another size than there are headers"));
    }
    same("the history tree", state.history.root(), header.history)?;
    for (shard, tree) in (0..).zip(&mut state.shards) {
        *tree = frontier(store, TreeId::Shard(ShardId(shard))).await?;
    }
    let shards: MemoryTree = shard_states(&state.shards).iter().map(shard_leaf).collect();
    same("the shards' trees", shards.root(), header.shards)?;

    store
        .each_device_key(|entry, key| {
            state.insert_key(entry.body.suite, &key);
            Ok(())
        })
        .await?;
    let (mut missing, mut threads) = (None, HashMap::new());
    store
        .each_thread(|id, thread| {
            if let Some(account) = thread.account() {
                let lacks = |hash: &Hash| state.keyring.get(hash).is_none();
                missing = account.devices.iter().map(|device| device.keys.identity).find(lacks).or(missing);
                if digest::account_thread(account.id) != id {
                    return Err(StoreError::corrupt("threads", id, "it holds another account"));
                }
            }
            threads.insert(id, Arc::new(thread));
            Ok(())
        })
        .await?;
    if let Some(key) = missing {
        return Err(inconsistent(format!("an account names the key {key}, which no entry brought")));
    }
    accounts(store, &state, &threads).await?;
    let stored = threads.get(&digest::system_thread(state.genesis_hash));
    if stored.map(|thread| thread.head) != system.head()
        || stored.is_some_and(|thread| thread.system() != Some(system.system()))
        || threads.keys().filter(|id| id.kind() == Some(ThreadKind::System)).count() > 1
    {
        return Err(inconsistent("the system thread is not what its entries lead to"));
    }
    state.restore_threads(threads);
    same("the threads", state.heads.root(), header.map)?;
    state.height = header.height;
    state.header_hash = last.hash;
    state.time = header.time;
    Ok(state)
}

/// Follows the system thread from its first entry, with every approval and rule, and puts the keys that it brings into
/// the keyring.
async fn system(
    store: &Store,
    state: &mut LedgerState,
    backend: &dyn Backend,
) -> Result<SystemThread, LoadError> {
    let (genesis, thread) = (Arc::clone(&state.genesis), digest::system_thread(state.genesis_hash));
    let mut system = SystemThread::new(&genesis);
    let mut from = Seq(0);
    loop {
        let page = store.entries(&thread, from, limits::ENTRIES_PAGE_MAX).await?;
        let Some(last) = page.last() else { return Ok(system) };
        from = last.place.seq.next();
        for entry in &page {
            let approvals = Signature::Full(entry.signature.clone());
            let appended = system.append(&genesis, &entry.body_bytes, &approvals, &entry.place, backend);
            appended.map_err(|fault| {
                inconsistent(format!("entry {} of the system thread: {fault}", entry.place.seq))
            })?;
            if let Some((suite, key)) = brought_key(store, entry).await? {
                state.insert_key(suite, &key);
            }
        }
    }
}

/// The public key that an activation brought.
async fn brought_key(store: &Store, entry: &StoredEntry) -> Result<Option<(SuiteId, Vec<u8>)>, LoadError> {
    let Payload::Decision { action } = &entry.body.payload else { return Ok(None) };
    let Decision::ActivateKey { suite, activates, .. } = &action.decision else { return Ok(None) };
    let key = store.attachment(entry, 0).await?;
    let key = key
        .ok_or_else(|| inconsistent(format!("the key {activates}, which officers activated, is missing")))?;
    Ok(Some((*suite, key)))
}

/// Derives every account from the entries of its thread and compares it with the stored one. The chain of the entries
/// ends in the thread's head, which the caller compares with the header: so it certifies them, without a signature.
async fn accounts(
    store: &Store,
    state: &LedgerState,
    stored: &HashMap<ThreadId, Arc<Thread>>,
) -> Result<(), LoadError> {
    let mut replay = Replay { state, stored, current: None, derived: HashSet::new(), fault: None };
    store
        .each_account_entry(|entry| {
            replay.take(&entry);
            Ok(())
        })
        .await?;
    replay.close();
    let mut accounts = stored.keys().filter(|id| id.kind() == Some(ThreadKind::Account));
    if let Some(id) = accounts.find(|id| !replay.derived.contains(id)) {
        replay.fail(*id, "it has no entries".to_owned());
    }
    replay.fault.map_or(Ok(()), |fault| Err(inconsistent(fault)))
}

/// Accounts under derivation, one after the other.
struct Replay<'a> {
    state: &'a LedgerState,
    stored: &'a HashMap<ThreadId, Arc<Thread>>,
    current: Option<(ThreadId, Thread)>,
    derived: HashSet<ThreadId>,
    /// The first thing that does not fit.
    fault: Option<String>,
}

impl Replay<'_> {
    fn take(&mut self, entry: &StoredEntry) {
        let id = entry.thread();
        if self.current.as_ref().is_some_and(|(current, _)| *current != id) {
            self.close();
        }
        if self.fault.is_some() {
            return;
        }
        let own = self.current.as_ref().map(|(_, thread)| thread);
        let (seq, prev) = own.map_or((Seq(0), Hash::ZERO), |own| (own.head.seq.next(), own.head.hash));
        let place = entry.place;
        if (place.seq, place.prev) != (seq, prev) {
            self.fail(id, format!("its entry {seq} is missing, or the next one does not follow it"));
            return;
        }
        let head = Head { seq, hash: entry.hash };
        match self.state.replay_account(own, &entry.body, head, place.time) {
            Ok(thread) => self.current = Some((id, thread)),
            Err(refusal) => self.fail(id, format!("its entry {seq} is not valid: {refusal}")),
        }
    }

    /// The account's entries are all there.
    fn close(&mut self) {
        let Some((id, thread)) = self.current.take() else { return };
        self.derived.insert(id);
        if self.stored.get(&id).is_none_or(|stored| **stored != thread) {
            self.fail(id, "its stored state is not what its entries lead to".to_owned());
        }
    }

    fn fail(&mut self, id: ThreadId, why: String) {
        let named = |account: &zixt_ledger::Account| format!("account {}", account.id);
        let account = self.stored.get(&id).and_then(|thread| thread.account()).map(named);
        let account = account.unwrap_or_else(|| format!("the account in thread {id}"));
        self.fault.get_or_insert(format!("{account}: {why}"));
    }
}

/// The right edge of a tree, from its complete nodes.
async fn frontier(store: &Store, tree: TreeId) -> Result<Frontier, LoadError> {
    // The format of a frontier (see its fields), so that its own parser makes it.
    #[derive(Encode)]
    #[cbor(array)]
    struct Parts {
        #[n(0)]
        size: u64,
        #[n(1)]
        peaks: Vec<Hash>,
    }
    let size = store.tree_size(tree).await?;
    let ids: Vec<_> = (0..64u8)
        .rev()
        .filter(|level| size >> level & 1 == 1)
        .map(|level| (tree, NodeId { level, index: (size >> level) - 1 }))
        .collect();
    let nodes = store.nodes(&ids).await?;
    let peak =
        |id| nodes.get(id).copied().ok_or_else(|| inconsistent(format!("a node of {tree:?} is missing")));
    let peaks = ids.iter().map(peak).collect::<Result<_, _>>()?;
    let mut bytes = Vec::new();
    if minicbor::encode(Parts { size, peaks }, &mut bytes).is_err() {
        unreachable!("encoding to memory");
    }
    Frontier::parse(&bytes).map_err(|error| inconsistent(format!("{tree:?}: {error}")))
}

fn same(what: &str, got: Hash, certified: Hash) -> Result<(), LoadError> {
    if got == certified {
        Ok(())
    } else {
        Err(inconsistent(format!("{what}: {got} is stored, {certified} is certified")))
    }
}

fn inconsistent(what: impl Into<String>) -> LoadError {
    LoadError::Inconsistent { what: what.into() }
}
