//! Answering questions about the ledger.

use super::submit::member_ref;
use super::{App, Kept};
use crate::{problem, view};
use std::collections::BTreeMap;
use zixt_api::{
    AccountName, AccountView, CertifiedHeader, Consistency, Entry, EntryPage, EntryProof, ErrorCode, Network,
    Problem, PublicKey, SystemView, ThreadView,
};
use zixt_crypto::digest;
use zixt_ledger::Refusal;
use zixt_storage::{Position, StoredEntry};
use zixt_types::{
    AccountId, Author, Canonical, Decision, Hash, Height, Member, Payload, Seq, ShardId, SuiteId, ThreadId,
    ThreadKind, limits,
};

/// Entries of the system thread in one answer: with ten approvals each, below half a MiB of JSON.
const SYSTEM_PAGE_MAX: usize = 8;
/// An entry of an account's thread with what it brings, at most: a device with three keys, the invitation's key and two
/// signatures of ML-DSA-87.
const ACCOUNT_ENTRY_BYTES: u64 = 20 * 1024;

impl App {
    /// What the network is and where its ledger stands.
    #[must_use]
    pub fn network(&self) -> Network {
        let inner = self.view.read();
        let state = &inner.state;
        // The state's keyring has every device's key too; the genesis' ones are all that a newcomer needs.
        let mut keyring = zixt_ledger::Keyring::default();
        let named =
            state.genesis.validators.iter().flat_map(|validator| [validator.consensus, validator.tls]);
        for hash in named.chain(state.genesis.enrollers.iter().copied()) {
            if let Some(entry) = state.keyring.get(&hash) {
                keyring.insert(entry.suite, &entry.key);
            }
        }
        Network {
            genesis: state.genesis.to_bytes().into(),
            keyring: keyring.to_bytes().into(),
            latest: inner.latest.as_ref().map(|latest| latest.certified().clone()),
        }
    }

    /// Entries of the system thread from a place on, with the keys that they activate.
    ///
    /// # Errors
    /// The store failed.
    pub async fn system(&self, from: Seq) -> Result<SystemView, Problem> {
        let (thread, head, proof) = {
            let inner = self.view.read();
            let thread = digest::system_thread(inner.state.genesis_hash);
            let head = inner.state.thread(&thread).map(|known| known.head.seq);
            (thread, head, inner.prove_head(&thread))
        };
        let mut view = SystemView { entries: Vec::new(), keys: Vec::new(), next: None, proof };
        let Some(head) = head.filter(|head| from <= *head) else { return Ok(view) };
        let page = self.store.entries(&thread, from, SYSTEM_PAGE_MAX).await;
        // Entries that came after the proof are cut off.
        for entry in page.map_err(|error| problem::of_store(&error))? {
            if entry.place.seq > head {
                break;
            }
            if let Payload::Decision { action } = &entry.body.payload
                && let Decision::ActivateKey { suite, activates, .. } = action.decision
            {
                let key =
                    self.store.attachment(&entry, 0).await.map_err(|error| problem::of_store(&error))?;
                let key =
                    key.map(|key| PublicKey { suite: suite.id(), hash: activates.into(), key: key.into() });
                view.keys.extend(key);
            }
            view.next = (entry.place.seq < head).then(|| entry.place.seq.next().0);
            view.entries.push(entry_view(&entry));
        }
        Ok(view)
    }

    /// A header with its certificate.
    ///
    /// # Errors
    /// There is none of this height.
    pub async fn header(&self, height: Height) -> Result<CertifiedHeader, Problem> {
        match self.store.header(height).await {
            Ok(Some(stored)) => Ok(view::certified(&stored.header, &stored.certificate)),
            Ok(None) => Err(Problem::new(ErrorCode::UnknownHeight, format!("there is no header {height}"))),
            Err(error) => Err(problem::of_store(&error)),
        }
    }

    /// Proof that the ledger only grew.
    ///
    /// # Errors
    /// The ledger was never that large.
    pub async fn consistency(&self, from: Height, shards: &[(ShardId, u64)]) -> Result<Consistency, Problem> {
        if shards.len() > usize::from(limits::SHARDS_MAX) {
            return Err(Problem::new(ErrorCode::TooManyItems, "more shards than a network may have"));
        }
        let proof = self.view.prove_consistency(&self.store, from, shards).await;
        proof.map_err(|fault| problem::of_proof(&fault))
    }

    /// The account of a name.
    ///
    /// # Errors
    /// Nobody has it, or names cannot be read because custody is locked.
    pub async fn account_by_name(&self, name: &str) -> Result<AccountName, Problem> {
        let unknown = || Problem::new(ErrorCode::UnknownName, "no account has this name");
        if name.len() > limits::NAME_BYTES_MAX {
            return Err(unknown());
        }
        let names = self.custody.names().ok_or_else(|| problem::of_custody(self.custody.state()))?;
        let found = self.store.name_by_tag(names.tag(name).as_ref()).await;
        let sealed = found.map_err(|error| problem::of_store(&error))?.ok_or_else(unknown)?;
        if self.view.read().state.account(sealed.account).is_none() {
            return Err(unknown());
        }
        open_name(&names, &sealed)
    }

    /// An account's name; `None` if it has none here or custody is locked.
    pub(super) async fn name_of(&self, account: AccountId) -> Result<Option<AccountName>, Problem> {
        let Some(names) = self.custody.names() else { return Ok(None) };
        match self.store.name(account).await {
            Ok(Some(sealed)) => open_name(&names, &sealed).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(problem::of_store(&error)),
        }
    }

    /// An account's whole thread with everything that it takes to check it.
    ///
    /// # Errors
    /// There is no such account, or there is no room for the answer.
    pub async fn account(&self, tls: Hash, account: AccountId) -> Result<Kept<AccountView>, Problem> {
        let thread = digest::account_thread(account);
        // Entries that come after the proof are cut off below.
        let (last, proof) = {
            let inner = self.view.read();
            let known = inner.state.thread(&thread).zip(inner.prove_head(&thread));
            let (known, proof) = known.ok_or_else(|| problem::of_refusal(&Refusal::UnknownAccount))?;
            (known.head.seq, proof)
        };
        // As they are stored and as they are sent.
        let bytes_max = last.0.saturating_add(1).saturating_mul(ACCOUNT_ENTRY_BYTES);
        let room =
            self.room_for(&self.rooms.answers, tls, bytes_max, bytes_max.saturating_mul(7) / 3).await?;
        let mut entries = Vec::new();
        let mut keys: BTreeMap<Hash, (SuiteId, Vec<u8>)> = BTreeMap::new();
        let mut from = Seq(0);
        while from <= last {
            let page = self.store.entries(&thread, from, limits::ENTRIES_PAGE_MAX).await;
            let page = page.map_err(|error| problem::of_store(&error))?;
            let Some(end) = page.last().map(|entry| entry.place.seq) else { break };
            for entry in page.into_iter().take_while(|entry| entry.place.seq <= last) {
                self.collect_keys(&entry, &mut keys).await?;
                entries.push(entry_view(&entry));
            }
            from = end.next();
        }
        let keys = keys
            .into_iter()
            .map(|(hash, (suite, key))| PublicKey { suite: suite.id(), hash: hash.into(), key: key.into() })
            .collect();
        let name = self.name_of(account).await?;
        Ok(Kept { value: AccountView { account: account.into(), name, entries, keys, proof }, room })
    }

    async fn collect_keys(
        &self,
        entry: &StoredEntry,
        keys: &mut BTreeMap<Hash, (SuiteId, Vec<u8>)>,
    ) -> Result<(), Problem> {
        let suite = entry.body.suite;
        if let Author::Enroller(hash) = entry.body.author {
            let inner = self.view.read();
            if let Some(known) = inner.state.keyring.get(&hash) {
                keys.insert(hash, (known.suite, known.key.clone()));
            }
        }
        if matches!(entry.body.payload, Payload::DeviceAdd { .. }) {
            for index in 0..entry.attachment_count() {
                let key = self.store.attachment(entry, index).await;
                if let Some(key) = key.map_err(|error| problem::of_store(&error))? {
                    keys.insert(digest::key_hash(suite, &key), (suite, key));
                }
            }
        }
        Ok(())
    }

    /// A thread as it stands.
    ///
    /// # Errors
    /// There is none, or the caller is not in it.
    pub fn thread(&self, caller: Member, id: ThreadId) -> Result<ThreadView, Problem> {
        if !self.is_open_to(caller, &id) {
            return Err(unknown_thread());
        }
        let inner = self.view.read();
        let (thread, proof) =
            inner.state.thread(&id).zip(inner.prove_head(&id)).ok_or_else(unknown_thread)?;
        let conversation = thread.conversation();
        Ok(ThreadView {
            thread: id.into(),
            seq: thread.head.seq.0,
            head: thread.head.hash.into(),
            next_counter: thread.counter(&Author::Device(caller)),
            epoch: conversation.map(|conversation| conversation.epoch.0),
            epoch_since: conversation.map(|conversation| conversation.epoch_since.0),
            members: conversation
                .map(|conversation| conversation.members.iter().copied().map(member_ref).collect())
                .unwrap_or_default(),
            proof,
        })
    }

    /// Entries of a thread, in order.
    ///
    /// # Errors
    /// There is no such thread, or the caller was never in it.
    pub async fn entries(
        &self,
        caller: Member,
        id: ThreadId,
        from: Seq,
        limit: usize,
    ) -> Result<EntryPage, Problem> {
        let reach = self.reach(caller, &id).await?;
        let limit = limit.clamp(1, limits::ENTRIES_PAGE_MAX);
        let mut page =
            self.store.entries(&id, from, limit).await.map_err(|error| problem::of_store(&error))?;
        page.retain(|entry| reach.covers(entry));
        let head = self.view.read().state.thread(&id).map_or(Seq(0), |thread| thread.head.seq);
        let more = |last: &&StoredEntry| last.place.seq < head && reach.goes_on_after(last);
        let next = page.last().filter(more).map(|last| last.place.seq.next().0);
        Ok(EntryPage { entries: page.iter().map(entry_view).collect(), next })
    }

    /// An attachment's bytes.
    ///
    /// # Errors
    /// There is none, or the caller may not see it.
    pub async fn attachment(
        &self,
        caller: Member,
        tls: Hash,
        id: ThreadId,
        seq: Seq,
        index: usize,
    ) -> Result<Kept<Vec<u8>>, Problem> {
        let reach = self.reach(caller, &id).await?;
        let unknown = || Problem::new(ErrorCode::UnknownAttachment, "the entry has no such attachment");
        let entry = self.store.entry(&id, seq).await.map_err(|error| problem::of_store(&error))?;
        let entry = entry.filter(|entry| reach.covers(entry)).ok_or_else(unknown)?;
        let bytes = self.store.attachment_bytes(&entry, index).await;
        let bytes = bytes.map_err(|error| problem::of_store(&error))?.ok_or_else(unknown)?;
        let room = self.room_for(&self.rooms.answers, tls, bytes, bytes).await?;
        let found = self.store.attachment(&entry, index).await;
        let value = found.map_err(|error| problem::of_attachment(&error))?.ok_or_else(unknown)?;
        Ok(Kept { value, room })
    }

    /// Proof of an entry at the last height.
    ///
    /// # Errors
    /// There is no such entry, or the caller may not see it.
    pub async fn entry_proof(&self, caller: Member, id: ThreadId, seq: Seq) -> Result<EntryProof, Problem> {
        let reach = self.reach(caller, &id).await?;
        let found = self.store.entry(&id, seq).await.map_err(|error| problem::of_store(&error))?;
        let entry = found
            .filter(|entry| reach.covers(entry))
            .ok_or_else(|| Problem::new(ErrorCode::UnknownEntry, format!("there is no entry {seq}")))?;
        self.prove(&entry).await
    }

    pub(super) async fn prove(&self, entry: &StoredEntry) -> Result<EntryProof, Problem> {
        let proof = self.view.prove_entry(&self.store, entry.height, entry.shard, entry.leaf).await;
        proof.map_err(|fault| problem::of_proof(&fault))
    }

    /// Conversations are for their members; accounts are for every device, because devices check each other's keys.
    fn is_open_to(&self, caller: Member, id: &ThreadId) -> bool {
        let inner = self.view.read();
        let Some(thread) = inner.state.thread(id) else { return false };
        match id.kind() {
            Some(ThreadKind::Account) => true,
            Some(ThreadKind::Conversation) => thread.conversation().is_some_and(|c| c.has(&caller)),
            _ => false,
        }
    }

    /// What a device may read of a thread. Who was removed while they were away still reads what they were told of, or
    /// they could not tell a removal from a loss.
    async fn reach(&self, caller: Member, id: &ThreadId) -> Result<Reach, Problem> {
        if self.is_open_to(caller, id) {
            return Ok(Reach::Everything);
        }
        match self.store.last_told(id, &caller).await.map_err(|error| problem::of_store(&error))? {
            Some(last) if id.kind() == Some(ThreadKind::Conversation) => Ok(Reach::UpTo(last)),
            // Outsiders are not told which conversations exist.
            _ => Err(unknown_thread()),
        }
    }
}

/// Which entries of a thread a device may read.
#[derive(Clone, Copy)]
enum Reach {
    Everything,
    /// Nothing after the entry at this place, which removed the device.
    UpTo(Position),
}

impl Reach {
    fn covers(self, entry: &StoredEntry) -> bool {
        match self {
            Self::Everything => true,
            Self::UpTo(last) => entry.position <= last,
        }
    }

    fn goes_on_after(self, entry: &StoredEntry) -> bool {
        match self {
            Self::Everything => true,
            Self::UpTo(last) => entry.position < last,
        }
    }
}

/// An entry as it travels.
pub(super) fn entry_view(entry: &StoredEntry) -> Entry {
    Entry {
        thread: entry.thread().into(),
        seq: entry.place.seq.0,
        prev: entry.place.prev.into(),
        time: entry.place.time.0,
        height: entry.height.0,
        entry: entry.hash.into(),
        salt: entry.salt.into(),
        body: entry.body_bytes.clone().into(),
        signature: entry.signature.clone().into(),
        possession: entry.possession.clone().map(Into::into),
        attachments: u32::try_from(entry.attachment_count()).unwrap_or(u32::MAX),
    }
}

fn unknown_thread() -> Problem {
    problem::of_refusal(&Refusal::UnknownThread)
}

fn open_name(names: &crate::names::Names, sealed: &zixt_storage::SealedName) -> Result<AccountName, Problem> {
    match names.open(sealed.account, &sealed.sealed) {
        Ok((name, salt)) => Ok(AccountName { account: sealed.account.into(), name, salt: salt.into() }),
        Err(error) => {
            log::error!("the name of account {}: {error}", sealed.account);
            Err(Problem::new(ErrorCode::StoreFailed, "a name cannot be read"))
        }
    }
}
