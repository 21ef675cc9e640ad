//! Who may come in, as the server keeps it: sign-in, sessions, accounts and their credentials (decision 0014).
//!
//! Accounts, sessions and counts of failures are in memory, as the store has them; credentials are read when they are
//! needed. Whatever changes is durable before it is answered. One change is made at a time, on the state as it is then:
//! [`Access::writing`] is held from the reading of what it rests on to the end of its write.

mod clock;
mod directories;
mod keys;
mod logins;
mod me;
mod passkeys;
mod people;
mod problems;
mod sign_in;
mod sso;
mod tokens;

pub(crate) use directories::{Here, issuer_text, parse_issuer};
pub(crate) use keys::AccessKeys;
pub(crate) use passkeys::passkey_id;
pub(crate) use people::Deed;
pub(crate) use problems::{of_forbidden, sign_in_needed};
pub(crate) use sign_in::{Door, Proven};
pub use sso::SsoProvider;
pub(crate) use sso::{Ended, Flow, Idp};

use crate::custody::CustodyWatch;
use crate::health;
use crate::problem;
use crate::view::View;
use logins::Logins;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use zixt_api::{ErrorCode, Problem};
use zixt_crypto::{Backend, RandomError, digest, fill_random};
use zixt_directory::Directory;
use zixt_identity::{
    AccountRecord, Approved, AttemptChange, AttemptKey, AttemptRow, Attempts, Authority, Blocklist, Caller,
    Change, Credentials, Effect, KnownDevice, Link, Now, Policy, PolicyDocument, Population, Recovery, Roles,
    ServiceTokens, SessionChange, SessionRow, Sessions, Token, TokenRow, TotpRecord,
};
use zixt_passkey::{Registrations, RelyingParty};
use zixt_storage::{AccessChange, AccessKind, Store, StoreError};
use zixt_types::{
    AccountId, ApplianceId, Decision, Hash, Payload, RecoveryId, Role, Seq, SessionId, Timestamp, limits,
};

/// Accounts that one appliance keeps.
const ACCOUNTS_MAX: usize = 200_000;
/// Tokens of programs.
const TOKENS_MAX: usize = 10_000;
/// Requests to recover an account that wait.
const RECOVERIES_MAX: usize = 1_000;
/// The setting that is the key of the counts of failures.
const ATTEMPT_KEY: &[u8] = b"attempt-key";
/// The setting that says how far the officers' decisions are carried out.
const DECISIONS: &[u8] = b"decisions";

/// A decision about roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Undone {
    /// Behind it in the system thread.
    next: Seq,
    /// The hash of the action.
    pub(crate) decision: Hash,
    /// Whose roles.
    pub(crate) account: AccountId,
    /// Which.
    pub(crate) roles: Vec<Role>,
}

/// Why nobody can be let in.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The store failed.
    #[error("who may come in cannot be read")]
    Store(#[from] StoreError),
    /// A setting does not open.
    #[error("the setting {0} of sign-in does not authenticate: somebody else wrote to the store")]
    Damaged(&'static str),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Who may come in.
pub struct Access {
    store: Store,
    custody: Arc<CustodyWatch>,
    view: Arc<View>,
    backend: Arc<dyn Backend>,
    genesis: Hash,
    me: ApplianceId,
    directories: Vec<Arc<Here>>,
    idps: Vec<Arc<Idp>>,
    passkeys: Option<zixt_passkey::Settings>,
    policy: Arc<Policy>,
    blocklist: Arc<Blocklist>,
    /// `None` until custody has given the keys.
    inner: Mutex<Option<Inner>>,
    /// One change at a time.
    writing: tokio::sync::Mutex<()>,
    /// Hashes with Argon2id at the same time.
    hashing: Arc<Semaphore>,
    /// Hashes that wait for that.
    waiting: Arc<Semaphore>,
    /// Told whenever a session ends.
    ended: watch::Sender<()>,
    /// Up to where the system thread was looked at.
    followed: AtomicU64,
}

struct Inner {
    accounts: People,
    sessions: Sessions,
    tokens: ServiceTokens,
    attempts: Attempts,
    logins: Logins,
    recoveries: BTreeMap<RecoveryId, Recovery>,
    /// Authenticator apps that have still to show a code.
    apps: HashMap<SessionId, TotpRecord>,
    /// What verifies passkeys.
    party: Option<Arc<RelyingParty>>,
    /// Passkeys that are being registered.
    registrations: Registrations,
}

impl Inner {
    /// Nothing outlives its session.
    fn forget(&mut self, session: SessionId) {
        self.apps.remove(&session);
        self.registrations.forget(session);
    }
}

/// All accounts, found by their id and by whom they are linked to.
#[derive(Default)]
struct People {
    records: BTreeMap<AccountId, AccountRecord>,
    by_link: BTreeMap<Link, AccountId>,
}

impl People {
    fn insert(&mut self, id: AccountId, record: AccountRecord) {
        if let Some(before) = self.records.get(&id) {
            for link in before.links() {
                if self.by_link.get(link) == Some(&id) {
                    self.by_link.remove(link);
                }
            }
        }
        for link in record.links() {
            self.by_link.entry(*link).or_insert(id);
        }
        self.records.insert(id, record);
    }

    /// Whose this person of a directory or identity provider is.
    fn linked(&self, link: &Link) -> Option<AccountId> {
        self.by_link.get(link).copied()
    }
}

impl Deref for People {
    type Target = BTreeMap<AccountId, AccountRecord>;
    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

impl FromIterator<(AccountId, AccountRecord)> for People {
    fn from_iter<I: IntoIterator<Item = (AccountId, AccountRecord)>>(records: I) -> Self {
        let mut people = Self::default();
        records.into_iter().for_each(|(id, record)| people.insert(id, record));
        people
    }
}

/// What everything here works with.
pub struct AccessParts {
    /// The store.
    pub store: Store,
    /// Custody, unlocked.
    pub custody: Arc<CustodyWatch>,
    /// The ledger.
    pub view: Arc<View>,
    /// For signatures of devices.
    pub backend: Arc<dyn Backend>,
    /// This appliance.
    pub me: ApplianceId,
    /// The directories that people can sign in with.
    pub directories: Vec<Directory>,
    /// The identity providers that people can sign in with.
    pub providers: Vec<SsoProvider>,
    /// For which pages passkeys are; none without a web listener that has a name.
    pub passkeys: Option<zixt_passkey::Settings>,
}

impl Access {
    /// Nobody yet: see [`Self::load`].
    #[must_use]
    pub fn new(parts: AccessParts) -> Self {
        let AccessParts { store, custody, view, backend, me, directories, providers, passkeys } = parts;
        let genesis = view.read().state.genesis_hash;
        let policy = match Policy::new(PolicyDocument::default()) {
            Ok(policy) => Arc::new(policy),
            Err(error) => unreachable!("the default keeps its own floors: {error}"),
        };
        // One core is left for those who are in already.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            store,
            custody,
            view,
            backend,
            genesis,
            me,
            directories: directories.into_iter().map(|directory| Arc::new(Here::new(directory))).collect(),
            idps: providers.into_iter().map(|set| Arc::new(Idp::new(set))).collect(),
            passkeys,
            policy,
            blocklist: Arc::new(Blocklist::new("")),
            inner: Mutex::new(None),
            writing: tokio::sync::Mutex::new(()),
            hashing: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))),
            waiting: Arc::new(Semaphore::new(sign_in::WAITING_MAX)),
            ended: watch::Sender::new(()),
            followed: AtomicU64::new(0),
        }
    }

    /// Reads everything, as soon as custody gives the keys; `false` while it does not. Rows that do not authenticate let
    /// nobody in, and are named in the log.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn load(&self) -> Result<bool, AccessError> {
        if self.lock().is_some() {
            return Ok(true);
        }
        let Some(keys) = self.custody.access() else { return Ok(false) };
        let _alone = self.writing.lock().await;
        let read = self.read(&keys).await?;
        *self.lock() = Some(read);
        Ok(true)
    }

    async fn read(&self, keys: &AccessKeys) -> Result<Inner, AccessError> {
        let store = &self.store;
        self.read_clock(keys).await?;
        let attempt_key = attempt_key(store, keys).await?;
        let given = given_by_officers(store, self.genesis, self.me).await?;
        let mut accounts = BTreeMap::new();
        for (id, row) in store.access_all(AccessKind::Account, ACCOUNTS_MAX).await? {
            let Ok(id) = AccountId::try_from(id.as_slice()) else { continue };
            match AccountRecord::open(&keys.rows, id, &row) {
                Ok(record) if !is_backed(&record, &given) => {
                    log::error!("account {id} has roles that the officers' last decision does not give it");
                    // A row of before that decision, or one that somebody put there. What they decided counts.
                    accounts.extend(
                        given.get(&id).and_then(|roles| as_decided(&record, roles)).map(|it| (id, it)),
                    );
                }
                Ok(record) => {
                    accounts.insert(id, record);
                }
                Err(error) => log::error!("account {id}: {error}: nobody comes in by it"),
            }
        }
        let sessions = rows(store, AccessKind::Session, limits::SESSIONS_MAX, |id, row| {
            SessionRow::open(&keys.rows, SessionId::try_from(id).ok()?, row).ok()
        });
        let sessions = Sessions::load(sessions.await?);
        let tokens = rows(store, AccessKind::ServiceToken, TOKENS_MAX, |id, row| {
            TokenRow::open(&keys.rows, SessionId::try_from(id).ok()?, row).ok()
        });
        let tokens = ServiceTokens::load(tokens.await?);
        let attempts = rows(store, AccessKind::Attempts, 4 * limits::ATTEMPT_ROWS_MAX, |id, row| {
            AttemptRow::open(&keys.rows, AttemptKey::from_bytes(id)?, row).ok()
        });
        let attempts = Attempts::load(&attempt_key, attempts.await?);
        let recoveries = rows(store, AccessKind::Recovery, RECOVERIES_MAX, |id, row| {
            Recovery::open(&keys.rows, RecoveryId::try_from(id).ok()?, row).ok()
        });
        let recoveries =
            recoveries.await?.into_iter().map(|recovery: Recovery| (recovery.id(), recovery)).collect();
        self.read_snapshots(keys).await?;
        let accounts: People = accounts.into_iter().collect();
        self.name_unknown_issuers(&accounts);
        let (logins, apps) = (Logins::default(), HashMap::new());
        let party = match &self.passkeys {
            Some(settings) => RelyingParty::new(settings.clone(), keys.passkeys())
                .inspect_err(|error| log::error!("passkeys: {error}"))
                .ok()
                .map(Arc::new),
            None => None,
        };
        let registrations = Registrations::default();
        Ok(Inner { accounts, sessions, tokens, attempts, logins, recoveries, apps, party, registrations })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Inner>> {
        // Whoever panicked while it was locked left a change that is not stored: then memory is ahead of the store, never
        // behind what was acknowledged.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in memory. Before it was read there is nobody, and nobody is let in.
    fn inner(&self) -> Result<MappedGuard<'_>, Problem> {
        MappedGuard::of(self.lock()).ok_or_else(|| match self.custody.state() {
            zixt_api::CustodyState::Operational => {
                Problem::new(ErrorCode::Starting, "accounts are being read")
            }
            state => problem::of_custody(state),
        })
    }

    fn keys(&self) -> Result<Arc<AccessKeys>, Problem> {
        self.custody.access().ok_or_else(|| problem::of_custody(self.custody.state()))
    }

    fn now(&self) -> Now {
        Now { wall: health::now(), ledger: self.view.read().state.time }
    }

    /// The account's active devices in the ledger.
    fn devices(&self, account: AccountId) -> Vec<KnownDevice> {
        let inner = self.view.read();
        let devices = inner.state.account(account).into_iter().flat_map(|known| known.active_devices());
        devices
            .map(|device| KnownDevice {
                id: device.id,
                suite: device.keys.suite,
                identity: device.keys.identity,
            })
            .collect()
    }

    /// Who shows this token at this door: a person's session, or a program's token.
    ///
    /// # Errors
    /// [`ErrorCode::SignInNeeded`], whatever is wrong with it.
    pub(crate) fn check(&self, token: &str, door: &Door) -> Result<Caller, Problem> {
        let channel = &door.channel().binding();
        let Some(token) = Token::parse(token) else { return Err(problems::sign_in_needed()) };
        let now = self.now();
        let mut inner = self.inner()?;
        let Inner { accounts, sessions, tokens, .. } = &mut *inner;
        if let Ok(caller) = tokens.check(&token, door.network, now, |account| accounts.get(&account)) {
            return Ok(caller);
        }
        let before = sessions.len();
        let checked = sessions.check(&self.policy, &token, channel, now, |account| accounts.get(&account));
        let ended = sessions.len() != before;
        drop(inner);
        if ended {
            self.ended.send_replace(());
        }
        checked.map_err(|error| {
            log::debug!("session: {error}");
            problems::sign_in_needed()
        })
    }

    /// Whether a session is still open: for what lasts longer than a request.
    pub(crate) fn is_open(&self, session: SessionId) -> bool {
        self.inner().is_ok_and(|inner| inner.sessions.is_open(session))
    }

    /// Waits until a session has ended.
    pub(crate) fn ended(self: &Arc<Self>, session: SessionId) -> impl Future<Output = ()> + Send + use<> {
        let (access, mut endings) = (Arc::clone(self), self.ended.subscribe());
        async move {
            while access.is_open(session) {
                if endings.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Lets the person come in whom an enroller invited into the ledger. Done again, it changes nothing.
    ///
    /// # Errors
    /// Custody is locked, or the store failed.
    pub(crate) async fn create(&self, account: AccountId, link: Option<Link>) -> Result<(), Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        {
            let accounts = &self.inner()?.accounts;
            if accounts.contains_key(&account) {
                return Ok(());
            }
            if accounts.len() >= ACCOUNTS_MAX {
                return Err(Problem::new(ErrorCode::Busy, "the appliance has as many accounts as it may"));
            }
            if link.is_some_and(|link| accounts.linked(&link).is_some()) {
                return Err(directories::taken());
            }
        }
        let record = match link {
            Some(link) => {
                let record = AccountRecord::of_the_ledger_linked(account, link);
                match self.mapped(&record, &link) {
                    Some(change) => change.record,
                    None => record,
                }
            }
            None => AccountRecord::of_the_ledger(account),
        };
        self.write(&[account_row(&keys, &record)]).await?;
        self.inner()?.accounts.insert(account, record);
        Ok(())
    }

    async fn write(&self, changes: &[AccessChange]) -> Result<(), Problem> {
        self.store.write_access(changes).await.map_err(|error| problem::of_store(&error))
    }

    /// Makes durable what changed in sessions and counts. Under [`Self::writing`].
    async fn write_pending(&self, keys: &AccessKeys, mut changes: Vec<AccessChange>) -> Result<(), Problem> {
        let (attempts, sessions) = {
            let inner = self.inner()?;
            (inner.attempts.changes(), inner.sessions.changes())
        };
        changes.extend(attempts.changes.iter().map(|change| match change {
            AttemptChange::Put(row) => put(AccessKind::Attempts, row.key.as_bytes(), row.seal(&keys.rows)),
            AttemptChange::Remove(key) => remove(AccessKind::Attempts, key.as_bytes()),
        }));
        changes.extend(sessions.changes.iter().map(|change| match change {
            SessionChange::Put(row) => put(AccessKind::Session, row.id().as_bytes(), row.seal(&keys.rows)),
            SessionChange::Remove(id) => remove(AccessKind::Session, id.as_bytes()),
        }));
        self.write(&changes).await?;
        let mut inner = self.inner()?;
        inner.attempts.stored(attempts.until);
        inner.sessions.stored(sessions.until);
        Ok(())
    }

    /// What an account signs in with.
    async fn credentials(&self, keys: &AccessKeys, account: AccountId) -> Result<Credentials, Problem> {
        let row = self.store.access(AccessKind::Credentials, account.as_bytes()).await;
        match row.map_err(|error| problem::of_store(&error))? {
            None => Ok(Credentials::default()),
            Some(sealed) => Credentials::open(&keys.seal, account, &sealed).map_err(|error| {
                log::error!("account {account}: {error}: somebody else wrote to the store");
                Problem::new(ErrorCode::StoreFailed, "the account's credentials do not authenticate")
            }),
        }
    }

    /// Stores what a change of an account leads to, and does what follows. Under [`Self::writing`].
    async fn carry_out(
        &self,
        keys: &AccessKeys,
        change: Change,
        mut rows: Vec<AccessChange>,
    ) -> Result<(), Problem> {
        let Change { record, effects } = change;
        let account = record.id();
        rows.push(account_row(keys, &record));
        for effect in &effects {
            match effect {
                Effect::EraseCredentials if rows.iter().all(|row| row.kind != AccessKind::Credentials) => {
                    rows.push(remove(AccessKind::Credentials, account.as_bytes()));
                }
                // Who had the passphrase may have had the device: the vault opens for nobody any more.
                Effect::RevokeDevices(_) => rows.push(remove(AccessKind::VaultShare, account.as_bytes())),
                Effect::EraseCredentials | Effect::EndSessions => {}
            }
        }
        self.write(&rows).await?;
        {
            let mut inner = self.inner()?;
            inner.accounts.insert(account, record);
            if effects.contains(&Effect::EndSessions) {
                for session in inner.sessions.revoke_account(account, None) {
                    inner.forget(session);
                }
            }
        }
        self.ended.send_replace(());
        // The record's epoch ends them already, so a failure brings none of them back.
        if let Err(problem) = self.write_pending(keys, Vec::new()).await {
            log::warn!("ended sessions of {account} are still in the store: {}", problem.detail);
        }
        Ok(())
    }

    /// The first decision of officers about roles that is not carried out yet, as far as the ledger has them.
    ///
    /// # Errors
    /// Custody is locked, or the store failed: then it is done later.
    pub(crate) async fn next_decision(&self) -> Result<Option<Undone>, Problem> {
        let keys = self.keys()?;
        let store_failed = |error: StoreError| problem::of_store(&error);
        let row = self.store.access(AccessKind::Setting, DECISIONS).await.map_err(store_failed)?;
        let mut next = match row {
            None => Seq(0),
            Some(sealed) => {
                let opened = keys.open(AccessKind::Setting, DECISIONS, &sealed).ok();
                let number =
                    opened.and_then(|bytes| bytes.as_slice().try_into().ok().map(u64::from_be_bytes));
                let damaged =
                    || Problem::new(ErrorCode::StoreFailed, "the mark of officers' decisions is damaged");
                Seq(number.ok_or_else(damaged)?)
            }
        };
        let (thread, marked) = (digest::system_thread(self.genesis), next);
        loop {
            let entries = self.store.entries(&thread, next, limits::ENTRIES_PAGE_MAX).await;
            let entries = entries.map_err(store_failed)?;
            if entries.is_empty() {
                if next != marked {
                    self.write(&[decisions_mark(&keys, next)?]).await?;
                }
                self.followed.store(next.0, Ordering::Relaxed);
                return Ok(None);
            }
            for entry in &entries {
                next = entry.place.seq.next();
                if let Payload::Decision { action } = &entry.body.payload
                    && let Decision::SetRoles { account, roles } = &action.decision
                    && action.appliance == self.me
                {
                    let (decision, account) = (digest::action_hash(action), *account);
                    return Ok(Some(Undone { next, decision, account, roles: roles.clone() }));
                }
            }
        }
    }

    /// Says that it is carried out and recorded, so that it is not again.
    ///
    /// # Errors
    /// Custody is locked, or the store failed: then it is done once more, which changes nothing.
    pub(crate) async fn mark_decision(&self, undone: &Undone) -> Result<(), Problem> {
        let keys = self.keys()?;
        self.write(&[decisions_mark(&keys, undone.next)?]).await
    }

    /// Whether the ledger has decisions that were not looked at.
    pub(crate) fn is_behind_decisions(&self) -> bool {
        let view = self.view.read();
        let head = view.state.thread(&digest::system_thread(self.genesis)).map(|thread| thread.head.seq);
        head.is_some_and(|head| head.next().0 > self.followed.load(Ordering::Relaxed))
    }

    /// Reads everything if that was not possible at the start, and ends what is over.
    pub(crate) async fn tend(&self) {
        match self.load().await {
            Ok(true) => {
                if let Err(problem) = self.sweep().await {
                    log::warn!("sessions are not written down now: {}", problem.detail);
                }
            }
            Ok(false) => {}
            Err(error) => log::error!("{}", crate::logging::chain(&error)),
        }
    }

    async fn sweep(&self) -> Result<(), Problem> {
        let now = self.now();
        let ended = {
            let mut inner = self.inner()?;
            inner.logins.sweep(now.wall);
            let ended = inner.sessions.sweep(&self.policy, now);
            for session in &ended {
                inner.apps.remove(session);
            }
            let Inner { apps, sessions, .. } = &mut *inner;
            apps.retain(|session, _| sessions.is_open(*session));
            !ended.is_empty()
        };
        if ended {
            self.ended.send_replace(());
        }
        let Ok(keys) = self.keys() else { return Ok(()) };
        let _alone = self.writing.lock().await;
        {
            let mut inner = self.inner()?;
            let Inner { tokens, accounts, .. } = &mut *inner;
            tokens.sweep(now, |account| accounts.get(&account));
        }
        self.write_tokens(&keys).await?;
        self.write_pending(&keys, Vec::new()).await
    }
}

/// What is in memory, locked.
struct MappedGuard<'a>(MutexGuard<'a, Option<Inner>>);

impl<'a> MappedGuard<'a> {
    fn of(guard: MutexGuard<'a, Option<Inner>>) -> Option<Self> {
        guard.is_some().then_some(Self(guard))
    }
}

impl Deref for MappedGuard<'_> {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        match &*self.0 {
            Some(inner) => inner,
            None => unreachable!("looked at when it was locked"),
        }
    }
}

impl DerefMut for MappedGuard<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        match &mut *self.0 {
            Some(inner) => inner,
            None => unreachable!("looked at when it was locked"),
        }
    }
}

impl Inner {
    /// How many can do what the appliance cannot do without.
    fn population(&self) -> Population {
        let mut all = Population { officers: 0, administrators: 0, auditors: 0 };
        for record in self.accounts.values().filter(|record| record.is_active()) {
            let roles = record.roles();
            all.officers += u32::from(roles.has(Role::SecurityOfficer));
            all.administrators += u32::from(roles.has(Role::Administrator));
            all.auditors += u32::from(roles.has(Role::Auditor));
        }
        all
    }

    /// The record of who asks, whose session is still open: a request that waited does nothing that was ended meanwhile.
    fn own(&self, caller: &Caller) -> Result<&AccountRecord, Problem> {
        if !self.sessions.is_open(caller.session()) && !self.tokens.is_open(caller.session()) {
            return Err(sign_in_needed());
        }
        self.record(caller.account())
    }

    fn record(&self, account: AccountId) -> Result<&AccountRecord, Problem> {
        self.accounts
            .get(&account)
            .ok_or_else(|| Problem::new(ErrorCode::UnknownAccount, format!("there is no account {account}")))
    }
}

fn put(kind: AccessKind, id: &[u8], row: Vec<u8>) -> AccessChange {
    AccessChange { kind, id: id.to_vec(), row: Some(row) }
}

fn remove(kind: AccessKind, id: &[u8]) -> AccessChange {
    AccessChange { kind, id: id.to_vec(), row: None }
}

fn account_row(keys: &AccessKeys, record: &AccountRecord) -> AccessChange {
    put(AccessKind::Account, record.id().as_bytes(), record.seal(&keys.rows))
}

/// Reads the rows of a kind. One that does not authenticate is left out and named: what it opened, it opens no more.
async fn rows<R>(
    store: &Store,
    kind: AccessKind,
    max: usize,
    open: impl Fn(&[u8], &[u8]) -> Option<R>,
) -> Result<Vec<R>, StoreError> {
    let stored = store.access_all(kind, max).await?;
    let total = stored.len();
    let opened: Vec<R> = stored.iter().filter_map(|(id, row)| open(id, row)).collect();
    if opened.len() < total {
        log::error!("{} rows of kind {kind:?} do not authenticate and are ignored", total - opened.len());
    }
    Ok(opened)
}

/// The key under which failures are counted; drawn once.
async fn attempt_key(store: &Store, keys: &AccessKeys) -> Result<zeroize::Zeroizing<[u8; 32]>, AccessError> {
    let damaged = || AccessError::Damaged("attempt-key");
    if let Some(sealed) = store.access(AccessKind::Setting, ATTEMPT_KEY).await? {
        let opened = keys.open(AccessKind::Setting, ATTEMPT_KEY, &sealed).map_err(|_| damaged())?;
        let key: &[u8; 32] = opened.as_slice().try_into().map_err(|_| damaged())?;
        return Ok(zeroize::Zeroizing::new(*key));
    }
    let key = Attempts::generate_key(&mut fill_random)?;
    let sealed = keys.seal(AccessKind::Setting, ATTEMPT_KEY, key.as_slice()).map_err(|_| damaged())?;
    store.write_access(&[put(AccessKind::Setting, ATTEMPT_KEY, sealed)]).await?;
    Ok(key)
}

fn decisions_mark(keys: &AccessKeys, next: Seq) -> Result<AccessChange, Problem> {
    let sealed = keys.seal(AccessKind::Setting, DECISIONS, &next.0.to_be_bytes());
    let sealed = sealed.map_err(|error| Problem::new(ErrorCode::StoreFailed, error.to_string()))?;
    Ok(put(AccessKind::Setting, DECISIONS, sealed))
}

/// The roles that officers gave last, by account.
async fn given_by_officers(
    store: &Store,
    genesis: Hash,
    me: ApplianceId,
) -> Result<HashMap<AccountId, Vec<Role>>, StoreError> {
    let thread = digest::system_thread(genesis);
    let (mut given, mut next) = (HashMap::new(), Seq(0));
    loop {
        let entries = store.entries(&thread, next, limits::ENTRIES_PAGE_MAX).await?;
        let Some(last) = entries.last() else { return Ok(given) };
        next = last.place.seq.next();
        for entry in &entries {
            if let Payload::Decision { action } = &entry.body.payload
                && let Decision::SetRoles { account, roles } = &action.decision
                && action.appliance == me
            {
                given.insert(*account, roles.clone());
            }
        }
    }
}

/// Whether an account has of the roles that only officers give none that they did not give last.
fn is_backed(record: &AccountRecord, given: &HashMap<AccountId, Vec<Role>>) -> bool {
    [Role::SecurityOfficer, Role::Administrator]
        .into_iter()
        .filter(|role| record.roles().has(*role))
        .all(|role| given.get(&record.id()).is_some_and(|roles| roles.contains(&role)))
}

/// The record with the roles that officers gave last.
fn as_decided(record: &AccountRecord, roles: &[Role]) -> Option<AccountRecord> {
    let by = Authority::Ceremony(Approved::danger_of(Hash::ZERO));
    let nobody = Population { officers: 0, administrators: 0, auditors: 0 };
    Some(record.change_roles(&by, Roles::new(roles).ok()?, nobody).ok()?.record)
}

/// Milliseconds from now until then, as seconds that a client waits.
fn seconds_until(now: Timestamp, until: Timestamp) -> u32 {
    u32::try_from(until.0.saturating_sub(now.0).div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}
