//! What every part of the client shares: the keys, the store and where things lie in it.

use crate::connection::{Api, Connector, SignIn, Target};
use crate::error::ClientError;
use crate::model::{ClientEvent, Profile};
use crate::records::{self, AccountRecord, OutboxRecord, Prepared, ProfileRecord, ThreadRecord};
use crate::store::{Batch, Space, Store, StoreError};
use crate::trust::Checker;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc};
use zixt_api::{Bytes64, SubmissionItem};
use zixt_crypto::{AeadKey, Backend, SigningKey, SigningSeed, cose, digest, fill_random};
use zixt_crypto_fast::tls::PinnedKey;
use zixt_ledger::label_for;
use zixt_messaging::{Device, KeyDirectory, SealedState, StatePart, StoredState};
use zixt_types::{
    AccountId, Author, Body, Canonical, Genesis, Hash, Head, Member, MessageId, Payload, Seq, ThreadId,
    Timestamp,
};

/// Most messages that may wait: what a person or a program queues while the appliance is away.
pub const OUTBOX_MAX: usize = 10_000;

/// What every part shares.
pub struct Core {
    pub profile: Profile,
    pub store: Store,
    pub backend: Arc<dyn Backend>,
    pub identity: Arc<dyn SigningKey>,
    pub device: Device,
    pub directory: Arc<Directory>,
    pub api: Api,
    /// The key of the next item of the outbox.
    next: AtomicU64,
    /// Something was queued.
    pub wake: Notify,
    /// Messages that this process has handed to the appliance.
    handed_in: Mutex<HashSet<MessageId>>,
    /// Where events go while the client runs.
    sink: Mutex<Option<mpsc::UnboundedSender<ClientEvent>>>,
}

/// What the verified accounts say about MLS keys, and whether the device is active.
#[derive(Default)]
pub struct Directory {
    keys: RwLock<HashMap<Member, (Hash, bool)>>,
    /// Revoked devices count: an entry is followed that was recorded before.
    follows: AtomicBool,
}

impl KeyDirectory for Directory {
    fn mls_key(&self, member: &Member) -> Option<Hash> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (key, active) = keys.get(member).copied()?;
        (active || self.follows.load(Ordering::Relaxed)).then_some(key)
    }
}

impl Directory {
    /// Takes over what an account says now.
    pub fn learn(&self, record: &AccountRecord) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for device in &record.account.devices {
            let member = Member { account: record.account.id, device: device.id };
            keys.insert(member, (device.keys.mls, device.is_active()));
        }
    }

    /// Follows what was recorded: devices that are revoked by now were members then. Whatever is sent afterwards
    /// removes them first.
    pub fn following<T>(&self, work: impl FnOnce() -> T) -> T {
        self.follows.store(true, Ordering::Relaxed);
        let done = work();
        self.follows.store(false, Ordering::Relaxed);
        done
    }
}

impl Core {
    /// Assembles the shared parts from a stored profile.
    pub async fn assemble(
        store: Store,
        record: &ProfileRecord,
        backend: Arc<dyn Backend>,
        connector: &dyn Connector,
    ) -> Result<Self, ClientError> {
        let crypto = |error: &dyn std::fmt::Display| ClientError::Crypto(error.to_string());
        let genesis = Genesis::parse(&record.genesis).map_err(|error| crypto(&error))?;
        let key = |seed: &[u8; 32]| {
            backend.signing_key(record.suite, &SigningSeed::from_bytes(seed)).map_err(|error| crypto(&error))
        };
        let target =
            Target { address: record.address.clone(), suite: record.suite, pin: PinnedKey(record.tls_pin) };
        let tls = key(&record.tls)?;
        let tls_hash = digest::key_hash(record.suite, tls.public_key());
        let transport = connector.transport(&target, Arc::new(tls))?;
        let identity: Arc<dyn SigningKey> = Arc::from(key(&record.identity)?);
        let appliance = genesis.validators.iter().find(|validator| validator.tls == record.tls_pin);
        let sign_in = SignIn::new(
            digest::genesis_hash(&genesis),
            appliance.map(|validator| validator.appliance),
            record.member,
            Arc::clone(&identity),
            tls_hash,
        );
        let directory = Arc::new(Directory::default());
        let device = Device::new(
            Arc::clone(&backend),
            record.member,
            Arc::from(key(&record.mls)?),
            Arc::clone(&directory) as Arc<dyn KeyDirectory>,
            AeadKey::from_bytes(&record.state_key),
        );
        let profile = Profile {
            genesis_hash: digest::genesis_hash(&genesis),
            genesis,
            keyring: record.keyring.clone(),
            address: record.address.clone(),
            tls_pin: record.tls_pin,
            suite: record.suite,
            name: record.name.clone(),
            member: record.member,
        };
        let last = store.scan_back(Space::Outbox, &[], None, 1).await?;
        let next = last.first().and_then(|(key, _)| <[u8; 8]>::try_from(key.as_slice()).ok());
        let core = Self {
            profile,
            identity,
            backend,
            device,
            directory,
            api: Api::of_device(transport, Arc::new(sign_in)),
            next: AtomicU64::new(next.map_or(0, |key| u64::from_be_bytes(key) + 1)),
            wake: Notify::new(),
            handed_in: Mutex::default(),
            sink: Mutex::new(None),
            store,
        };
        for account in core.accounts().await? {
            core.directory.learn(&account);
        }
        Ok(core)
    }

    /// The checker of this network.
    pub fn checker(&self) -> Result<Checker, ClientError> {
        let Profile { genesis, keyring, genesis_hash, .. } = &self.profile;
        let backend = Arc::clone(&self.backend);
        Ok(Checker::new(genesis.clone(), keyring.clone(), *genesis_hash, backend)?)
    }

    /// This device.
    pub const fn me(&self) -> Member {
        self.profile.member
    }

    /// Tells whoever listens.
    pub fn emit(&self, event: ClientEvent) {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = &*sink {
            // Nobody listens any more: the same as nobody listening.
            let _gone = sink.send(event);
        }
    }

    /// Sets who listens.
    pub fn listen(&self, sink: Option<mpsc::UnboundedSender<ClientEvent>>) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
    }

    /// Notes that a message is on its way to the appliance; `false` if it was before.
    pub fn hand_in(&self, message: MessageId) -> bool {
        self.handed_in.lock().unwrap_or_else(PoisonError::into_inner).insert(message)
    }

    /// Whether a message was handed to the appliance. After a restart it counts as waiting until it is handed in again.
    pub fn was_handed_in(&self, message: MessageId) -> bool {
        self.handed_in.lock().unwrap_or_else(PoisonError::into_inner).contains(&message)
    }

    /// Forgets a message that is recorded, or given up.
    pub fn settled(&self, message: MessageId) {
        self.handed_in.lock().unwrap_or_else(PoisonError::into_inner).remove(&message);
    }

    /// A key for the next item of the outbox.
    pub fn outbox_key(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn thread_key(&self, thread: ThreadId) -> [u8; 16] {
        self.store.hidden(&[b"thread", thread.as_ref()])
    }

    pub fn account_key(&self, account: AccountId) -> [u8; 16] {
        self.store.hidden(&[b"account", account.as_ref()])
    }

    pub fn place_key(&self, thread: ThreadId, seq: Seq) -> Vec<u8> {
        [&self.thread_key(thread)[..], &seq.0.to_be_bytes()].concat()
    }

    fn state_key(&self, thread: ThreadId, part: StatePart) -> Vec<u8> {
        [&self.thread_key(thread)[..], &[part as u8]].concat()
    }

    pub async fn thread(&self, thread: ThreadId) -> Result<Option<ThreadRecord>, ClientError> {
        let bytes = self.store.get(Space::Thread, &self.thread_key(thread)).await?;
        Ok(bytes.map(|bytes| records::decode(Space::Thread, &bytes)).transpose()?)
    }

    pub async fn threads(&self) -> Result<Vec<ThreadRecord>, ClientError> {
        let rows = self.store.scan(Space::Thread, &[], &[], u32::MAX).await?;
        Ok(rows.iter().map(|(_, bytes)| records::decode(Space::Thread, bytes)).collect::<Result<_, _>>()?)
    }

    pub async fn account(&self, account: AccountId) -> Result<Option<AccountRecord>, ClientError> {
        let bytes = self.store.get(Space::Account, &self.account_key(account)).await?;
        Ok(bytes.map(|bytes| records::decode(Space::Account, &bytes)).transpose()?)
    }

    pub async fn accounts(&self) -> Result<Vec<AccountRecord>, ClientError> {
        let rows = self.store.scan(Space::Account, &[], &[], u32::MAX).await?;
        Ok(rows.iter().map(|(_, bytes)| records::decode(Space::Account, bytes)).collect::<Result<_, _>>()?)
    }

    /// The outbox, in order.
    pub async fn outbox(&self) -> Result<Vec<(u64, OutboxRecord)>, ClientError> {
        let rows = self.store.scan(Space::Outbox, &[], &[], u32::MAX).await?;
        rows.iter().map(|(key, bytes)| outbox_row(key, bytes)).collect()
    }

    /// The first item of the outbox that is `wanted`, in order or from the end. Thousands may wait: they are not copied, and
    /// looked at no further than to that one.
    pub async fn find_in_outbox(
        &self,
        from_end: bool,
        wanted: impl Fn(&OutboxRecord) -> bool,
    ) -> Result<Option<(u64, OutboxRecord)>, ClientError> {
        let look = |key: &[u8], bytes: &[u8]| match outbox_row(key, bytes) {
            Ok((_, item)) if !wanted(&item) => None,
            found => Some(found),
        };
        self.store.find(Space::Outbox, from_end, look).await?.transpose()
    }

    pub async fn outbox_item(&self, order: u64) -> Result<Option<OutboxRecord>, ClientError> {
        let bytes = self.store.get(Space::Outbox, &order.to_be_bytes()).await?;
        Ok(bytes.map(|bytes| records::decode(Space::Outbox, &bytes)).transpose()?)
    }

    /// The MLS state of a conversation.
    pub async fn state(&self, thread: ThreadId) -> Result<Option<StoredState>, ClientError> {
        let mut parts = Vec::with_capacity(4);
        for part in [StatePart::Core, StatePart::Tree, StatePart::Past, StatePart::Pending] {
            match self.store.get(Space::MlsState, &self.state_key(thread, part)).await? {
                Some(bytes) => parts.push(bytes.to_vec()),
                None => return Ok(None),
            }
        }
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        Ok(Some(StoredState { core: next(), tree: next(), past: next(), pending: next() }))
    }

    /// Puts what changed of an MLS state into a batch.
    pub fn put_state(&self, batch: &mut Batch, thread: ThreadId, state: SealedState) {
        let parts = [
            (StatePart::Core, Some(state.core)),
            (StatePart::Tree, state.tree),
            (StatePart::Past, state.past),
            (StatePart::Pending, state.pending),
        ];
        for (part, bytes) in parts {
            if let Some(bytes) = bytes {
                batch.put(Space::MlsState, self.state_key(thread, part), bytes);
            }
        }
    }

    /// Erases an MLS state.
    pub fn erase_state(&self, batch: &mut Batch, thread: ThreadId) {
        for part in [StatePart::Core, StatePart::Tree, StatePart::Past, StatePart::Pending] {
            batch.delete(Space::MlsState, self.state_key(thread, part));
        }
    }

    pub fn put_thread(&self, batch: &mut Batch, record: &ThreadRecord) {
        batch.put(Space::Thread, self.thread_key(record.thread), records::encode(record));
    }

    pub fn put_account(&self, batch: &mut Batch, record: &AccountRecord) {
        batch.put(Space::Account, self.account_key(record.account.id), records::encode(record));
    }

    pub fn put_outbox(&self, batch: &mut Batch, order: u64, record: &OutboxRecord) {
        batch.put(Space::Outbox, order.to_be_bytes(), records::encode(record));
    }

    /// Signs an entry of a conversation.
    pub fn sign(
        &self,
        thread: ThreadId,
        message_id: MessageId,
        at: (u64, Timestamp, Option<Head>),
        payload: Payload,
    ) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
        let (counter, sent_at, last_seen) = at;
        let body = Body {
            version: Body::VERSION,
            suite: self.profile.suite,
            genesis: self.profile.genesis_hash,
            thread,
            author: Author::Device(self.me()),
            counter,
            message_id,
            sent_at,
            last_seen,
            payload,
        };
        let bytes = body.to_bytes();
        let signature = cose::sign(&*self.identity, label_for(&body.author), &bytes)
            .map_err(|error| ClientError::Crypto(error.to_string()))?;
        Ok((bytes, signature))
    }
}

fn outbox_row(key: &[u8], bytes: &[u8]) -> Result<(u64, OutboxRecord), ClientError> {
    let altered = |_| StoreError::Altered { space: Space::Outbox };
    let key = <[u8; 8]>::try_from(key).map_err(altered)?;
    Ok((u64::from_be_bytes(key), records::decode(Space::Outbox, bytes)?))
}

/// A prepared submission as it travels.
pub fn wire(prepared: &Prepared) -> SubmissionItem {
    SubmissionItem {
        body: Bytes64(prepared.body.clone()),
        signature: Bytes64(prepared.signature.clone()),
        possession: prepared.possession.clone().map(Bytes64),
        attachments: prepared.attachments.iter().map(|blob| Bytes64(blob.0.clone())).collect(),
    }
}

/// This device's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random bytes for an id.
pub fn random<const N: usize>() -> Result<[u8; N], ClientError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes).map_err(|error| ClientError::Crypto(error.to_string()))?;
    Ok(bytes)
}
