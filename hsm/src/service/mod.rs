//! Decides what to do with a request in the state that custody is in.

mod anchors;
mod attest;
mod decide;
mod doctor;
mod leftovers;
mod provision;
mod recover;
mod root;
#[cfg(test)]
mod schedules;
mod status;
#[cfg(test)]
mod tests;
mod watch;

pub use recover::CustodyBackup;
pub use status::description;

use self::anchors::Verdict;
use crate::backend::KeyBackend;
use crate::protector::Protector;
use crate::root::Root;
use crate::state::{
    Custody, CustodyRecord, DiskFolder, EnrolledProtector, Folder as _, Held, Keys, Open, PinTries,
    STATE_FILE, storage,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, KeyStatus, Pin, Request, Response, RowKey, StateKind, VoteOutcome};
use zixt_types::{Canonical as _, Timestamp, UnlockMode};

/// Votes after which the state file says how many there are, so that a guard that was set back further is noticed
/// even after a crash.
const VOTES_UNCOUNTED_MAX: u64 = 1000;

/// The custody of one appliance. Signing takes a read lock and runs in parallel; changes of state are exclusive.
pub struct Service {
    folder: DiskFolder,
    devices: Devices,
    /// What the configuration offers; a pinned genesis decides.
    configured_unlock: UnlockMode,
    custody: RwLock<Custody>,
    /// Changes of state, one at a time, so that two unlocks do not spend two tries.
    change: Mutex<()>,
    /// A recovery that was begun and waits for the officers.
    recovery: Mutex<Option<recover::Begun>>,
    /// Why the last unlock did not work, until one does.
    failure: Mutex<Option<CustodyError>>,
    /// What the looks at the anchors found.
    watch: watch::Watch,
}

/// What keys live in and are protected by.
pub struct Devices {
    /// The configured protectors.
    pub protectors: Vec<Arc<dyn Protector>>,
    /// Makes and loads signing keys.
    pub keys: Box<dyn KeyBackend>,
    /// Verifies officers' approvals.
    pub crypto: Box<dyn zixt_crypto::Backend>,
}

impl Service {
    /// Custody of what the folder holds.
    #[must_use]
    pub fn new(
        folder: DiskFolder,
        devices: Devices,
        configured_unlock: UnlockMode,
        custody: Custody,
    ) -> Self {
        Self {
            folder,
            devices,
            configured_unlock,
            custody: RwLock::new(custody),
            change: Mutex::default(),
            recovery: Mutex::default(),
            failure: Mutex::default(),
            watch: watch::Watch::default(),
        }
    }

    /// Answers a request of a peer that may make it.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Response {
        let answer = match request {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Provision { suite, lab } => self.provision(*suite, *lab).map(Response::Provisioned),
            Request::BindGenesis { genesis } => self.bind_genesis(genesis).map(Response::Bound),
            Request::Unlock { pin, protector } => {
                self.unlock(pin, protector.as_deref(), PinTry::Attended).map(Response::Unlocked)
            }
            Request::Lock => self.lock().map(|()| Response::Locked),
            Request::SignTls { content } => {
                self.with_keys(|keys| keys.sign_tls(content)).map(Response::TlsSignature)
            }
            Request::SignVote { vote } => self
                .watch_anchors()
                .and_then(|()| self.with_keys(|keys| keys.sign_vote(vote)))
                .map(Response::Vote),
            Request::SignInvite { body } => {
                self.with_keys(|keys| keys.sign_invite(body)).map(Response::InviteSignature)
            }
            Request::SignRevocation { body } => {
                self.with_keys(|keys| keys.sign_revocation(body)).map(Response::InviteSignature)
            }
            Request::UnsealRowKey => {
                self.with_keys(|keys| Ok(keys.row_key())).map(|key| Response::RowKey(RowKey(key)))
            }
            Request::AddProtector { name, pin, transcript } => {
                self.add_protector(name, pin, transcript.as_deref()).map(Response::ProtectorAdded)
            }
            Request::GenerateKey { purpose } => {
                self.generate_key(*purpose).map(|key| Response::Generated(Box::new(key)))
            }
            Request::Decide { transcript, pins, cards } => {
                self.decide(transcript, pins, cards).map(Response::Decided)
            }
            Request::Recovery => self.recovery_record().map(Response::Recovery),
            Request::Backup => self.backup().map(|head| Response::Backup(Box::new(head))),
            Request::BeginRecovery { backup } => self.begin_recovery(backup).map(Response::RecoveryBegun),
            Request::FinishRecovery { transcript, releases } => {
                let recovered = self.finish_recovery(transcript, releases);
                recovered.map(|(state, key)| Response::Recovered { state, key: RowKey(key) })
            }
            Request::BackupKey { backup } => {
                self.backup_key(*backup).map(|key| Response::BackupKey(RowKey(key)))
            }
            Request::BackupUnpacked { backup } => {
                self.backup_unpacked(*backup).map(|()| Response::BackupUnpacked)
            }
            Request::ChangePin { protector, old, new } => {
                self.change_pin(protector, old, new).map(|()| Response::PinChanged)
            }
            Request::Reseal { protector, pin, values } => {
                self.reseal(protector, pin, values.as_deref()).map(|()| Response::Resealed)
            }
            Request::Quote { nonce } => self.quote(nonce).map(Response::Quoted),
            Request::SelfTest => Ok(Response::Findings(self.self_test())),
            Request::Doctor => Ok(Response::Findings(self.doctor())),
            Request::Decisions { from } => self.decisions(*from).map(Response::Decisions),
        };
        answer.unwrap_or_else(Response::Error)
    }

    /// Does ahead, once a request was answered, what the next one will ask for.
    pub fn prepare(&self, answered: &Request, with: &Response) {
        let (Request::SignVote { vote }, Response::Vote(VoteOutcome::Signed { .. })) = (answered, with)
        else {
            return;
        };
        let uncounted = match self.read().keys() {
            Ok(keys) => {
                keys.sign_ahead(vote);
                keys.votes() - keys.open().record.votes
            }
            Err(_) => return,
        };
        self.note_vote();
        if uncounted >= 2 * VOTES_UNCOUNTED_MAX {
            // Who tends does not keep up: the votes that can be taken back unnoticed stay few all the same.
            self.count_votes();
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
        self.unlock(pin, None, PinTry::Unattended)
    }

    /// Forgets the keys and closes every protector: the last thing that a daemon does.
    pub fn shut_down(&self) {
        let _change = self.changing();
        self.seal();
        self.close();
    }

    fn unlock(&self, pin: &Pin, wanted: Option<&str>, pin_try: PinTry) -> Result<StateKind, CustodyError> {
        let _change = self.changing();
        self.ask_anew();
        let outcome = self.try_unlock(pin, wanted, pin_try);
        // A wrong PIN is counted in a file, with the time to wait.
        let failure = outcome
            .as_ref()
            .err()
            .filter(|error| !matches!(error, CustodyError::PinIncorrect | CustodyError::PinBackoff { .. }));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure.cloned();
        outcome
    }

    fn try_unlock(
        &self,
        pin: &Pin,
        wanted: Option<&str>,
        pin_try: PinTry,
    ) -> Result<StateKind, CustodyError> {
        let (protector, enrolled, record) = {
            let custody = self.read();
            match &*custody {
                Custody::Operational(_) => return Ok(StateKind::Operational),
                Custody::Failed(_) => custody.keys().map(|_| ())?,
                Custody::Unprovisioned(Held::Open(_)) | Custody::Quarantined(_, Held::Open(_)) => {
                    return Ok(custody.kind());
                }
                _ => {}
            }
            match custody.record() {
                None => (self.protector(wanted)?, None, None),
                Some(record) => {
                    let (protector, enrolled) = self.enrolled(wanted, record)?;
                    (protector, Some(enrolled.clone()), Some(record.clone()))
                }
            }
        };
        let (Some(enrolled), Some(record)) = (enrolled, record) else {
            self.try_pin(protector, pin_try, || protector.open(None, pin, pin_try))?;
            return Ok(self.read().kind());
        };
        provision::same_device(&record, &enrolled, protector)?;
        let opened = self.try_pin(protector, pin_try, || {
            protector.open(Some(&enrolled.enrolment), pin, pin_try)?;
            record.open_root(&enrolled, protector)
        });
        let root = opened.inspect_err(|error| self.not_opened(error))?;
        self.go_on(Open { record, root }).inspect_err(|_| {
            // What stays open would take any PIN for the right one.
            if self.read().open().is_err() {
                self.close();
            }
        })
    }

    /// What the state is to be after a protector did not open the root.
    fn not_opened(&self, error: &CustodyError) {
        self.close();
        log::error!("cannot open the root: {error}");
        if *error == CustodyError::UnsealFailed {
            let mut custody = self.write();
            let reason = format!(
                "{} is not what this protector sealed: it was edited, or belongs to another one",
                self.folder.path(STATE_FILE).display()
            );
            *custody = Custody::Quarantined(reason, Held::Nothing);
        }
    }

    /// Judges whether an authenticated state is the newest, and puts it to use.
    fn go_on(&self, mut open: Open) -> Result<StateKind, CustodyError> {
        let unmarked = match &*self.read() {
            Custody::Quarantined(reason, _) => Some(reason.clone()),
            _ => None,
        };
        let marked = open.record.quarantine.clone();
        let mut unvouched = None;
        self.set_unvouched(false);
        match (self.verdict(&open)?, unmarked) {
            // Also what was marked before may have been set back since.
            (Verdict::SetBack(why), _) => {
                self.quarantine(&mut open.record, &open.root, marked.unwrap_or(why))?;
            }
            (_, Some(unmarked)) if marked.is_none() => {
                self.quarantine(&mut open.record, &open.root, unmarked)?;
            }
            (Verdict::Newest, _) => {
                self.correct_unseen(&mut open)?;
                drop(self.destroy_leftovers(&mut open.record, &open.root)?);
                self.count(&mut open);
            }
            // Not written down: who can vouch may come. The first change writes it down.
            (Verdict::Unvouched(why), _) => {
                log::error!("quarantined: {why}");
                self.set_unvouched(true);
                unvouched = Some(marked.map(|marked| format!("{marked}. Besides, {why}")).unwrap_or(why));
            }
        }
        if unvouched.is_none() {
            open.record = self.commit(&open.root, open.record.clone())?;
        }
        let mut custody = self.write();
        let before = std::mem::replace(&mut *custody, in_between());
        let quarantine = unvouched.or_else(|| open.record.quarantine.clone());
        *custody = match (before, quarantine) {
            (_, Some(reason)) | (Custody::Quarantined(reason, _), None) => {
                Custody::Quarantined(reason, Held::Open(Box::new(open)))
            }
            _ if !open.record.is_complete() => Custody::Unprovisioned(Held::Open(Box::new(open))),
            _ => {
                self.load(&mut custody, open)?;
                return Ok(custody.kind());
            }
        };
        Ok(custody.kind())
    }

    /// Notes in a state how many votes there are; whether they are too few, loading them finds out.
    fn count(&self, open: &mut Open) {
        let Some(quorum) = open.record.pinned.as_ref().map(|pinned| pinned.quorum()) else { return };
        let key = open.record.open_guard_key(&open.root);
        if let Ok(guard) = key.and_then(|key| crate::state::open_guard(&self.folder, key, quorum)) {
            open.record.votes = open.record.votes.max(guard.votes());
        }
    }

    /// Marks a state so that it stays quarantined until officers decide, whatever is restarted.
    ///
    /// Pending keys are dropped: this state does not tell whether one of them was put to use and has voted, and an
    /// approval to activate it may lie about. What ends the quarantine is a key that is made after it began.
    fn quarantine(
        &self,
        record: &mut CustodyRecord,
        root: &Root,
        reason: String,
    ) -> Result<(), CustodyError> {
        log::error!("quarantined: {reason}");
        record.quarantine = Some(reason);
        record.keys.retain(|key| key.status != KeyStatus::Pending);
        self.set_apart(record, root)
    }

    /// Before the first change of a state that is quarantined and does not say so yet: writes that down, so that no copy of
    /// what the change makes is taken for the newest by a protector that is away.
    fn write_quarantine(&self, custody: &mut Custody) -> Result<(), CustodyError> {
        let Custody::Quarantined(reason, Held::Open(open)) = custody else { return Ok(()) };
        if open.record.quarantine.is_some() && !self.is_unvouched() {
            return Ok(());
        }
        let mut next = open.record.clone();
        self.quarantine(&mut next, &open.root, reason.clone())?;
        open.record = self.commit(&open.root, next)?;
        self.set_unvouched(false);
        Ok(())
    }

    fn lock(&self) -> Result<(), CustodyError> {
        let _change = self.changing();
        self.seal();
        // In every state: where something is broken, a token that stays logged in is the last thing to leave behind.
        self.close();
        log::info!("locked");
        Ok(())
    }

    /// Forgets keys and root, and then writes down how many votes there are: a device may take its time for that.
    fn seal(&self) {
        self.set_unvouched(false);
        let mut uncounted = None;
        {
            let mut custody = self.write();
            *custody = match std::mem::replace(&mut *custody, in_between()) {
                Custody::Operational(keys) => {
                    let votes = keys.votes();
                    let open = keys.unload();
                    let record = self.stored(open.record.clone());
                    uncounted = (open.record.votes != votes).then_some((open, votes));
                    Custody::Locked(record)
                }
                Custody::Unprovisioned(Held::Open(open)) => {
                    Custody::Unprovisioned(Held::Sealed(self.stored(open.record)))
                }
                // For want of a key's token, or of who vouches: it may be back at the next unlock.
                Custody::Quarantined(_, Held::Open(open)) if open.record.quarantine.is_none() => {
                    Custody::Locked(self.stored(open.record))
                }
                Custody::Quarantined(reason, Held::Open(open)) => {
                    Custody::Quarantined(reason, Held::Sealed(self.stored(open.record)))
                }
                other => other,
            };
        }
        let Some((mut open, votes)) = uncounted else { return };
        let counted = CustodyRecord { votes, ..open.record.clone() };
        let sealed = match self.commit(&open.root, counted) {
            Ok(record) => Custody::Locked(Box::new(record)),
            Err(CustodyError::AnchorMissing { detail }) => {
                let marked = self.quarantine(&mut open.record, &open.root, detail.clone());
                let written = marked.and_then(|()| self.commit(&open.root, open.record.clone()));
                if let Err(error) = &written {
                    log::error!("cannot write the quarantine down: {error}");
                }
                Custody::Quarantined(detail, Held::Sealed(self.stored(open.record)))
            }
            Err(error) => {
                log::warn!("cannot write down how many votes there are: {error}");
                return;
            }
        };
        *self.write() = sealed;
    }

    /// A state as the disk has it: one that could not be written is authenticated by nothing, and would not open again.
    fn stored(&self, record: CustodyRecord) -> Box<CustodyRecord> {
        let read = self.folder.read(STATE_FILE, CustodyRecord::BYTES_MAX);
        let stored = read.ok().flatten().and_then(|bytes| CustodyRecord::parse(&bytes).ok());
        Box::new(stored.unwrap_or(record))
    }

    /// Writes down how many votes were signed.
    fn count_votes(&self) {
        let _change = self.changing();
        self.count_votes_now();
    }

    /// The same where nothing else changes the state meanwhile. Devices are asked without the lock, so that others vote on;
    /// what is written is then a few votes less than there are. A failure is no reason to stop: what is written already
    /// stays true.
    fn count_votes_now(&self) {
        self.note_counted();
        let committed = {
            let custody = self.read();
            let Ok(keys) = custody.keys() else { return };
            let (votes, open) = (keys.votes(), keys.open());
            if open.record.votes == votes {
                return;
            }
            self.reach_all(&open.record, &open.root)
                .map(|anchors| (CustodyRecord { votes, ..open.record.clone() }, anchors))
        }
        .and_then(|(mut record, anchors)| {
            let to_advance = anchors::settle_all(&mut record, anchors)?;
            let record = record.authenticated(&self.read().keys()?.open().root);
            self.write_and_advance(record, to_advance)
        });
        let mut custody = self.write();
        match (committed, &mut *custody) {
            (Ok(record), Custody::Operational(keys)) => keys.open_mut().record = record,
            (Err(CustodyError::AnchorMissing { detail }), _) => self.stop_signing(&mut custody, detail),
            (Err(error), _) => log::warn!("cannot write down how many votes there are: {error}"),
            (Ok(_), _) => {}
        }
    }

    /// Takes the keys out of use until officers decide.
    fn stop_signing(&self, custody: &mut Custody, reason: String) {
        *custody = match std::mem::replace(custody, in_between()) {
            Custody::Operational(keys) => {
                let mut open = keys.unload();
                let marked = self.quarantine(&mut open.record, &open.root, reason.clone());
                match marked.and_then(|()| self.commit(&open.root, open.record.clone())) {
                    Ok(record) => open.record = record,
                    // The next unlock finds the same.
                    Err(error) => log::error!("cannot write the quarantine down: {error}"),
                }
                Custody::Quarantined(reason, Held::Open(Box::new(open)))
            }
            other => other,
        };
    }

    /// Loads keys and votes. Votes that may be forgotten are quarantined; votes that cannot be read now are a failure;
    /// anything else leaves it locked.
    fn load(&self, custody: &mut Custody, open: Open) -> Result<(), CustodyError> {
        match Keys::load(&*self.devices.keys, &self.folder, open) {
            Ok(keys) => {
                *custody = Custody::Operational(Box::new(keys));
                self.set_unvouched(false);
                self.watch_anew();
                log::info!("operational");
                Ok(())
            }
            Err(failed) => {
                let (open, error) = *failed;
                *custody = self.not_loaded(open, error.clone())?;
                if !matches!(custody, Custody::Quarantined(_, Held::Open(_))) {
                    self.close();
                }
                Err(error)
            }
        }
    }

    /// The state of custody whose keys could not be loaded.
    fn not_loaded(&self, mut open: Open, error: CustodyError) -> Result<Custody, CustodyError> {
        log::error!("cannot load the keys: {error}");
        Ok(match error {
            CustodyError::Quarantined { reason } => {
                self.quarantine(&mut open.record, &open.root, reason.clone())?;
                open.record = self.commit(&open.root, open.record.clone())?;
                Custody::Quarantined(reason, Held::Open(Box::new(open)))
            }
            CustodyError::Failed { reason } => Custody::Failed(reason),
            CustodyError::UnsealFailed => Custody::Quarantined(
                "a key in the state file does not open under its root".to_owned(),
                Held::Nothing,
            ),
            // Lost for good, perhaps: then officers activate another key. Not written down: it may be back.
            CustodyError::TokenLocked
            | CustodyError::TokenAbsent { .. }
            | CustodyError::KekMissing { .. }
            | CustodyError::TokenFailed { .. } => {
                let reason = format!(
                    "the token that a key lives in cannot be used ({error}). If it comes back, lock and unlock by it. \
                     If it is lost, officers activate new keys that live elsewhere"
                );
                Custody::Quarantined(reason, Held::Open(Box::new(open)))
            }
            _ => Custody::Locked(Box::new(open.record)),
        })
    }

    /// Counts a try, makes it, and counts its outcome.
    fn try_pin<T>(
        &self,
        protector: &dyn Protector,
        pin_try: PinTry,
        attempt: impl FnOnce() -> Result<T, CustodyError>,
    ) -> Result<T, CustodyError> {
        let mut tries = PinTries::read(&self.folder, now()).map_err(|error| storage(&error))?;
        let (name, before) = (protector.name(), tries.of(protector.name()));
        if pin_try == PinTry::Unattended && !before.may_try_unattended() {
            log::warn!("a PIN was wrong before: the PIN file is not tried again until a person has unlocked");
            return Err(CustodyError::PinIncorrect);
        }
        // Without a person there is nobody to wait; that those tries are few was seen above.
        match before.wait_s(now()) {
            retry_after_s if retry_after_s > 0 && pin_try == PinTry::Attended => {
                return Err(CustodyError::PinBackoff { retry_after_s });
            }
            _ => {}
        }
        tries.begin(&self.folder, name, now()).map_err(|error| storage(&error))?;
        let outcome = attempt();
        let right = match &outcome {
            Ok(_) => Some(true),
            Err(CustodyError::PinIncorrect) => Some(false),
            Err(_) => None,
        };
        tries.end(&self.folder, name, right).map_err(|error| storage(&error))?;
        outcome
    }

    fn with_keys<T>(&self, run: impl FnOnce(&Keys) -> Result<T, CustodyError>) -> Result<T, CustodyError> {
        let outcome = run(self.read().keys()?);
        if let Err(CustodyError::Storage { detail }) = &outcome {
            // The guard signs nothing more; the state says so, and a start reads from the disk what is durable.
            log::error!("stopped signing: {detail}");
            let _change = self.changing();
            *self.write() = Custody::Failed(detail.clone());
            self.close();
        }
        if matches!(outcome, Err(CustodyError::TokenFailed { .. }))
            && let Some(gone) = self.pulled_out()
        {
            return Err(gone);
        }
        outcome
    }

    /// After a key inside a token did not sign: if a device that was open is not there any more, custody is locked, so
    /// that a person unlocks it when it is back. Says what is gone.
    fn pulled_out(&self) -> Option<CustodyError> {
        let open = self.devices.protectors.iter().filter(|device| device.is_open());
        let gone = open.filter_map(|device| device.describe().err()).next()?;
        log::error!("locked: {gone}");
        let _change = self.changing();
        self.seal();
        self.close();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone.clone());
        Some(gone)
    }

    /// The configured protector with a name; the first one if none is named.
    fn protector(&self, wanted: Option<&str>) -> Result<&dyn Protector, CustodyError> {
        let mut all = self.devices.protectors.iter();
        let found = match wanted {
            Some(name) => all.find(|protector| protector.name() == name),
            None => all.next(),
        };
        found.map(|protector| &**protector).ok_or_else(|| CustodyError::NoSuchProtector {
            name: wanted.unwrap_or_default().to_owned(),
            known: self.names(),
        })
    }

    /// The enrolled protector with a name; the first one that is configured if none is named.
    fn enrolled<'r>(
        &self,
        wanted: Option<&str>,
        record: &'r CustodyRecord,
    ) -> Result<(&dyn Protector, &'r EnrolledProtector), CustodyError> {
        let mut found =
            record.protectors.iter().filter_map(|enrolled| Some((self.device(enrolled)?, enrolled)));
        let found = match wanted {
            Some(name) => found.find(|(_, enrolled)| enrolled.name == name),
            None => found.next(),
        };
        match (found, wanted) {
            (Some(found), _) => Ok(found),
            (None, Some(name)) if self.protector(wanted).is_ok() => Err(CustodyError::WrongProtector {
                name: name.to_owned(),
                why: "it does not wrap the root".to_owned(),
            }),
            (None, _) => Err(CustodyError::NoSuchProtector {
                name: wanted.unwrap_or("that wraps the root").to_owned(),
                known: self.names(),
            }),
        }
    }

    /// The device of an enrolment, if it is configured.
    fn device(&self, enrolled: &EnrolledProtector) -> Option<&dyn Protector> {
        let mut all = self.devices.protectors.iter();
        all.find(|protector| protector.name() == enrolled.name && protector.kind() == enrolled.kind)
            .map(|protector| &**protector)
    }

    fn names(&self) -> String {
        self.devices.protectors.iter().map(|protector| protector.name()).collect::<Vec<_>>().join(", ")
    }

    /// Why the last unlock did not work, if none did since.
    fn last_failure(&self) -> Option<CustodyError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        self.devices.protectors.iter().for_each(|protector| protector.close());
    }

    fn unlock_mode(&self, custody: &Custody) -> UnlockMode {
        let pinned = custody.record().and_then(|record| record.pinned.as_ref());
        pinned.map_or(self.configured_unlock, |pinned| pinned.unlock)
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

/// Stands in while a state changes under the write lock; nobody ever sees it.
fn in_between() -> Custody {
    Custody::Failed("interrupted while it changed its state; restart zixt-hsmd".to_owned())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[cfg(test)]
    let since = since.saturating_sub(schedules::set_back_by());
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
