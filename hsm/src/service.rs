//! Decides what to do with a request in the state that custody is in.

use crate::backend::Backend;
use crate::state::{Custody, CustodyRecord, DiskFolder, Folder, Keys, PinTries, Sealed, store_new};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_crypto::digest;
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{
    CustodyError, KeyInfo, Pin, Request, Response, RowKey, StateKind, Status, VoteOutcome,
};
use zixt_types::{Canonical, Genesis, Hash, SuiteId, Timestamp, UnlockMode};

/// The custody of one appliance. Signing takes a read lock and runs in parallel; changes of state are exclusive.
pub struct Service {
    folder: DiskFolder,
    backend: Box<dyn Backend>,
    /// What the configuration offers; a pinned genesis decides.
    configured_unlock: UnlockMode,
    custody: RwLock<Custody>,
    /// Changes of state, one at a time, so that two unlocks do not spend two tries.
    change: Mutex<()>,
}

impl Service {
    /// Custody of what the folder holds.
    #[must_use]
    pub fn new(
        folder: DiskFolder,
        backend: Box<dyn Backend>,
        configured_unlock: UnlockMode,
        custody: Custody,
    ) -> Self {
        Self { folder, backend, configured_unlock, custody: RwLock::new(custody), change: Mutex::new(()) }
    }

    /// Answers a request of a peer that may make it.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Response {
        let answer = match request {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Provision { suite, lab } => self.provision(*suite, *lab).map(Response::Provisioned),
            Request::BindGenesis { genesis } => self.bind_genesis(genesis).map(Response::Bound),
            Request::Unlock { pin } => self.unlock(pin, PinTry::Attended).map(Response::Unlocked),
            Request::Lock => self.lock().map(|()| Response::Locked),
            Request::SignTls { content } => {
                self.with_keys(|keys| keys.sign_tls(content)).map(Response::TlsSignature)
            }
            Request::SignVote { vote } => self.with_keys(|keys| keys.sign_vote(vote)).map(Response::Vote),
            Request::SignInvite { body } => {
                self.with_keys(|keys| keys.sign_invite(body)).map(Response::InviteSignature)
            }
            Request::UnsealRowKey => {
                self.with_keys(|keys| Ok(keys.row_key())).map(|key| Response::RowKey(RowKey(key)))
            }
        };
        answer.unwrap_or_else(Response::Error)
    }

    /// Does ahead, once a request was answered, what the next one will ask for.
    pub fn prepare(&self, answered: &Request, with: &Response) {
        if let (Request::SignVote { vote }, Response::Vote(VoteOutcome::Signed { .. })) = (answered, with)
            && let Ok(keys) = self.read().keys()
        {
            keys.sign_ahead(vote);
        }
    }

    /// State, keys and advice.
    #[must_use]
    pub fn status(&self) -> Status {
        let custody = self.read();
        let token = self.backend.describe();
        let (reason, advice) = match &*custody {
            Custody::Operational(_) => (String::new(), String::new()),
            Custody::Quarantined(reason) => {
                (reason.clone(), CustodyError::Quarantined { reason: String::new() }.advice().to_owned())
            }
            Custody::Failed(reason) => {
                (reason.clone(), CustodyError::Failed { reason: String::new() }.advice().to_owned())
            }
            Custody::Unprovisioned(_) | Custody::Locked(_) => match &token {
                Err(error) => (error.to_string(), error.advice().to_owned()),
                Ok(_) if matches!(*custody, Custody::Locked(_)) || !self.backend.is_open() => {
                    (self.last_try_text(), CustodyError::Locked.advice().to_owned())
                }
                Ok(_) => (String::new(), CustodyError::Unprovisioned.advice().to_owned()),
            },
        };
        let sealed = custody.sealed();
        Status {
            state: custody.kind(),
            reason,
            advice,
            keys: sealed.map(|sealed| sealed.record.public_keys()).unwrap_or_default(),
            genesis: sealed.and_then(|sealed| sealed.record.pinned).map(|pinned| pinned.genesis),
            lab: sealed.map(|sealed| sealed.record.lab),
            unlock: self.unlock_mode(&custody),
            last_vote: custody.keys().ok().and_then(Keys::last_vote),
            token: token.ok(),
            last_precommit: custody.keys().ok().and_then(Keys::last_precommit),
        }
    }

    /// Tries the PIN of a start without a person: once, and only where the genesis allows it and no PIN was wrong.
    ///
    /// # Errors
    /// As an unlock by a person; `PinFinalTry` where it was not tried.
    pub fn unlock_unattended(&self, pin: &Pin) -> Result<StateKind, CustodyError> {
        if self.unlock_mode(&self.read()) == UnlockMode::Attended {
            log::warn!("the genesis says that a person unlocks this appliance: the PIN file is not used");
            return Ok(self.read().kind());
        }
        self.unlock(pin, PinTry::Unattended)
    }

    /// Forgets the keys and closes the token: the last thing that a daemon does.
    pub fn shut_down(&self) {
        let _change = self.changing();
        let mut custody = self.write();
        seal(&mut custody);
        self.backend.close();
    }

    fn provision(&self, suite: SuiteId, lab: bool) -> Result<Vec<KeyInfo>, CustodyError> {
        let _change = self.changing();
        match &*self.read() {
            Custody::Unprovisioned(None) => {}
            Custody::Unprovisioned(Some(_)) | Custody::Locked(_) | Custody::Operational(_) => {
                return Err(CustodyError::AlreadyProvisioned);
            }
            broken => return broken.keys().map(|_| Vec::new()),
        }
        if !self.backend.is_open() {
            return Err(CustodyError::TokenLocked);
        }
        if self.backend.describe()?.software && !lab {
            return Err(CustodyError::TokenFailed {
                detail: "it is a software token, which a lab may use and nobody else".to_owned(),
            });
        }
        let record = CustodyRecord::generate(&*self.backend, suite, lab)?;
        let guard_key = record.open_guard_key(&*self.backend)?;
        let sealed = store_new(&self.folder, record, &guard_key)?;
        let keys = sealed.record.public_keys();
        log::info!("made {} keys of the suite {suite}{}", keys.len(), if lab { " for a lab" } else { "" });
        *self.write() = Custody::Unprovisioned(Some(sealed));
        Ok(keys)
    }

    fn bind_genesis(&self, bytes: &[u8]) -> Result<Hash, CustodyError> {
        let _change = self.changing();
        let genesis =
            Genesis::parse(bytes).map_err(|error| CustodyError::GenesisRefused { why: error.to_string() })?;
        let hash = digest::genesis_hash(&genesis);
        let mut custody = self.write();
        let record = match (&*custody, custody.sealed()) {
            (Custody::Unprovisioned(_), Some(sealed)) => &sealed.record,
            (Custody::Unprovisioned(_), None) => return Err(CustodyError::Unprovisioned),
            (_, Some(sealed)) => {
                // Pinned once and for ever; the same one again is what a repeated call sends.
                let pinned = sealed.record.pinned.ok_or(CustodyError::Unprovisioned)?.genesis;
                return if pinned == hash { Ok(hash) } else { Err(CustodyError::WrongGenesis { pinned }) };
            }
            (broken, None) => return broken.keys().map(|_| hash),
        };
        let pinned = record.check_genesis(&genesis)?;
        if !self.backend.is_open() {
            return Err(CustodyError::TokenLocked);
        }
        record.check_seal(&*self.backend)?;
        let bound = record.with_pinned(&*self.backend, pinned)?;
        // The point of no return: from here on these keys serve this network only.
        self.folder
            .replace(crate::state::STATE_FILE, &bound.to_bytes())
            .map_err(|error| CustodyError::Storage { detail: error.to_string() })?;
        log::info!("pinned the genesis {hash}");
        if let Some(mut sealed) = seal(&mut custody) {
            sealed.record = bound;
            self.load(&mut custody, sealed)?;
        }
        Ok(hash)
    }

    fn unlock(&self, pin: &Pin, pin_try: PinTry) -> Result<StateKind, CustodyError> {
        let _change = self.changing();
        match &*self.read() {
            Custody::Operational(_) => return Ok(StateKind::Operational),
            Custody::Unprovisioned(_) | Custody::Locked(_) => {}
            broken => return broken.keys().map(|_| StateKind::Operational),
        }
        if !self.backend.is_open() {
            self.try_pin(pin, pin_try)?;
        }
        let mut custody = self.write();
        match std::mem::replace(&mut *custody, in_between()) {
            Custody::Locked(sealed) => self.load(&mut custody, sealed)?,
            other => *custody = other,
        }
        Ok(custody.kind())
    }

    fn lock(&self) -> Result<(), CustodyError> {
        let _change = self.changing();
        let mut custody = self.write();
        if let Some(sealed) = seal(&mut custody) {
            *custody = if sealed.record.pinned.is_some() {
                Custody::Locked(sealed)
            } else {
                Custody::Unprovisioned(Some(sealed))
            };
        }
        // In every state: where something is broken, a token that stays logged in is the last thing to leave behind.
        self.backend.close();
        log::info!("locked");
        Ok(())
    }

    /// Loads keys and votes with an open token. What the token did not seal is quarantined, and so are votes that may be
    /// forgotten; votes that cannot be read now are a failure; anything else leaves it locked.
    fn load(&self, custody: &mut Custody, sealed: Sealed) -> Result<(), CustodyError> {
        match Keys::open(&*self.backend, &self.folder, sealed) {
            Ok(keys) => {
                *custody = Custody::Operational(Box::new(keys));
                log::info!("operational");
                Ok(())
            }
            Err(failed) => {
                let (sealed, error) = *failed;
                self.backend.close();
                *custody = match &error {
                    CustodyError::Quarantined { reason } => Custody::Quarantined(reason.clone()),
                    CustodyError::Failed { reason } => Custody::Failed(reason.clone()),
                    CustodyError::UnsealFailed => Custody::Quarantined(format!(
                        "{} is not what this token sealed: it was edited, or belongs to another token",
                        self.folder.path(crate::state::STATE_FILE).display()
                    )),
                    _ => Custody::Locked(sealed),
                };
                log::error!("cannot load the keys: {error}");
                Err(error)
            }
        }
    }

    fn try_pin(&self, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
        let storage = |error: std::io::Error| CustodyError::Storage { detail: error.to_string() };
        let mut tries = PinTries::read(&self.folder, now()).map_err(storage)?;
        if pin_try == PinTry::Unattended && !tries.may_try_unattended() {
            log::warn!("a PIN was wrong before: the PIN file is not tried again until a person has unlocked");
            return Err(CustodyError::PinIncorrect);
        }
        match tries.wait_s(now()) {
            0 => {}
            retry_after_s => return Err(CustodyError::PinBackoff { retry_after_s }),
        }
        tries.begin(&self.folder, now()).map_err(storage)?;
        let opened = self.backend.open(pin, pin_try);
        let right = match &opened {
            Ok(()) => Some(true),
            Err(CustodyError::PinIncorrect) => Some(false),
            Err(_) => None,
        };
        tries.end(&self.folder, right).map_err(storage)?;
        opened
    }

    fn with_keys<T>(&self, run: impl FnOnce(&Keys) -> Result<T, CustodyError>) -> Result<T, CustodyError> {
        let outcome = run(self.read().keys()?);
        if let Err(CustodyError::Storage { detail }) = &outcome {
            // The guard signs nothing more; the state says so, and a start reads from the disk what is durable.
            log::error!("stopped signing: {detail}");
            let _change = self.changing();
            *self.write() = Custody::Failed(detail.clone());
            self.backend.close();
        }
        outcome
    }

    fn unlock_mode(&self, custody: &Custody) -> UnlockMode {
        let pinned = custody.sealed().and_then(|sealed| sealed.record.pinned);
        pinned.map_or(self.configured_unlock, |pinned| pinned.unlock)
    }

    fn last_try_text(&self) -> String {
        match PinTries::read(&self.folder, now()) {
            Ok(tries) if tries.wrong > 0 => format!("{} wrong PINs since the last right one", tries.wrong),
            _ => String::new(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Custody> {
        self.custody.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Custody> {
        self.custody.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the sealed state out and drops the keys; the caller puts the next state in. `None` (and nothing changed) where
/// there is none.
fn seal(custody: &mut Custody) -> Option<Sealed> {
    match std::mem::replace(custody, in_between()) {
        Custody::Operational(keys) => Some(keys.seal()),
        Custody::Locked(sealed) | Custody::Unprovisioned(Some(sealed)) => Some(sealed),
        other => {
            *custody = other;
            None
        }
    }
}

/// Stands in while a state changes under the write lock; nobody ever sees it.
fn in_between() -> Custody {
    Custody::Failed("interrupted while it changed its state; restart zixt-hsmd".to_owned())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::{PIN, TestProtector};
    use crate::backend::{KekName, StoredKey, WrappedSeed};
    use std::sync::Arc;
    use zeroize::Zeroizing;
    use zixt_crypto::{Reference, SigningKey};
    use zixt_hsm_protocol::{KeyPurpose, TokenInfo};
    use zixt_types::CustodyMode;

    /// A backend that the test can look at while the service has it.
    struct Shared(Arc<WrappedSeed>);

    impl Backend for Shared {
        fn describe(&self) -> Result<TokenInfo, CustodyError> {
            self.0.describe()
        }
        fn mode(&self) -> CustodyMode {
            self.0.mode()
        }
        fn is_open(&self) -> bool {
            self.0.is_open()
        }
        fn open(&self, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
            self.0.open(pin, pin_try)
        }
        fn close(&self) {
            self.0.close();
        }
        fn create_kek(&self) -> Result<KekName, CustodyError> {
            self.0.create_kek()
        }
        fn generate(
            &self,
            kek: &KekName,
            purpose: KeyPurpose,
            suite: SuiteId,
        ) -> Result<StoredKey, CustodyError> {
            self.0.generate(kek, purpose, suite)
        }
        fn load(&self, kek: &KekName, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError> {
            self.0.load(kek, key)
        }
        fn seal(&self, kek: &KekName, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, CustodyError> {
            self.0.seal(kek, aad, data)
        }
        fn unseal(
            &self,
            kek: &KekName,
            aad: &[u8],
            sealed: &[u8],
        ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
            self.0.unseal(kek, aad, sealed)
        }
    }

    fn service(custody: Custody) -> (tempfile::TempDir, Arc<WrappedSeed>, Service) {
        let dir = tempfile::tempdir().unwrap();
        let backend = WrappedSeed::new(Box::new(TestProtector::open_one()), Box::new(Reference));
        let backend = Arc::new(backend);
        let folder = DiskFolder(dir.path().to_owned());
        let shared = Box::new(Shared(Arc::clone(&backend)));
        (dir, backend, Service::new(folder, shared, UnlockMode::Attended, custody))
    }

    #[test]
    fn locking_closes_the_token_in_every_state() {
        for custody in [
            Custody::Unprovisioned(None),
            Custody::Quarantined("votes".to_owned()),
            Custody::Failed("disk".to_owned()),
        ] {
            let kind = custody.kind();
            let (_dir, backend, service) = service(custody);
            assert!(backend.is_open());
            assert_eq!(service.answer(&Request::Lock), Response::Locked);
            assert_eq!((backend.is_open(), service.status().state), (false, kind));
        }
        let (_dir, backend, service) = service(Custody::Unprovisioned(None));
        let provisioned = service.answer(&Request::Provision { suite: SuiteId::Standard, lab: true });
        assert!(matches!(provisioned, Response::Provisioned(_)), "{provisioned:?}");
        assert_eq!(service.answer(&Request::Lock), Response::Locked);
        assert_eq!((backend.is_open(), service.status().state), (false, StateKind::Unprovisioned));
        let unlocked = service.answer(&Request::Unlock { pin: Pin::new(PIN.to_owned()).unwrap() });
        assert_eq!((unlocked, backend.is_open()), (Response::Unlocked(StateKind::Unprovisioned), true));
    }

    #[test]
    fn a_guard_that_fails_closes_the_token() {
        let (_dir, backend, service) = service(Custody::Unprovisioned(None));
        service.provision(SuiteId::Standard, true).unwrap();
        let mut custody = service.write();
        let Some(sealed) = seal(&mut custody) else { panic!("it has keys") };
        let pinned =
            crate::state::Pinned { genesis: Hash([1; 48]), unlock: UnlockMode::Attended, alone: true };
        let record = sealed.record.with_pinned(&*backend, pinned).unwrap();
        service.load(&mut custody, Sealed { record }).unwrap();
        drop(custody);
        assert_eq!(service.status().state, StateKind::Operational);
        let failed = service.with_keys::<()>(|_| Err(CustodyError::Storage { detail: "disk".to_owned() }));
        assert!(failed.is_err());
        assert_eq!((backend.is_open(), service.status().state), (false, StateKind::Failed));
    }
}
