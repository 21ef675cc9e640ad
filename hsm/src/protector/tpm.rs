//! A TPM 2.0 as protector. The one place that maps the TPM's errors to the protocol's.

use super::{Attested, Auths, Enrolled, Erased, PinChange, Protector, Unwrapped};
use crate::root::ROOT_BYTES;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_measured::Attestation;
use zixt_tpm::{
    AUTH_BYTES, Approval, AttestationKey, Binding, COUNTER_AUTH_BYTES, COUNTER_INDEX_DEFAULT, Counter,
    Enrolment, HierarchyAuth, NONCE_BYTES, PcrSelection, PcrValues, PolicyKey, PolicyRef, ProvisionOptions,
    Srk, Tpm, TpmError,
};
use zixt_types::{Canonical as _, ProtectorKind};

/// What a TPM protector seals to.
#[derive(Debug, Clone)]
pub struct TpmSettings {
    /// The TCTI, `device:/dev/tpmrm0` for hardware.
    pub tcti: String,
    /// The registers.
    pub registers: PcrSelection,
    /// Whose approvals of other register values count; none: the values of the moment, and no update without a new
    /// sealing.
    pub policy_key: Option<PolicyKey>,
    /// A folder of approvals (`*.approval`) that updates bring along; read at each unlock.
    pub approvals: Option<PathBuf>,
}

/// The end of an approval's file name.
pub const APPROVAL_EXTENSION: &str = "approval";
/// Approvals that are looked at, the newest ones.
const APPROVAL_FILES_MAX: usize = 64;

/// How long a TPM is believed to be what it last said it is: status is asked often, and a TPM takes its time.
const SEEN_MAX: Duration = Duration::from_secs(10);

/// Seals its wrapping key in the TPM under registers and a PIN.
pub struct TpmProtector {
    settings: TpmSettings,
    /// The one owner of the connection: what one caller gave up is done or dropped before the next one's job.
    tpm: Mutex<Option<Tpm>>,
    state: Mutex<State>,
    /// What it last said it is, and when.
    seen: Mutex<Option<(Instant, TokenInfo)>>,
}

enum State {
    Closed,
    /// Will be enrolled with this PIN.
    New(Pin),
    Open(Box<zixt_tpm::TpmProtector>),
}

impl TpmProtector {
    /// The protector behind a TCTI. Touches no TPM.
    #[must_use]
    pub fn new(settings: TpmSettings) -> Self {
        Self { settings, tpm: Mutex::default(), state: Mutex::new(State::Closed), seen: Mutex::default() }
    }

    fn tpm(&self) -> Result<Tpm, CustodyError> {
        let mut tpm = self.tpm.lock().unwrap_or_else(PoisonError::into_inner);
        match &*tpm {
            Some(tpm) => Ok(tpm.clone()),
            None => {
                let made = Tpm::new(&self.settings.tcti).map_err(custody_error)?;
                Ok(tpm.insert(made).clone())
            }
        }
    }

    fn binding(&self, tpm: &Tpm) -> Result<Binding, CustodyError> {
        match &self.settings.policy_key {
            Some(key) => Ok(Binding::Approved { key: key.clone(), reference: PolicyRef::images() }),
            None => tpm.pcrs(self.settings.registers).map(Binding::Fixed).map_err(custody_error),
        }
    }

    /// Approvals of images that were installed since, the newest last, so that the oldest go where there are too many.
    /// One that is refused is said and left out.
    fn add_approvals(&self, protector: &zixt_tpm::TpmProtector) {
        let (Some(folder), Some(_)) = (&self.settings.approvals, &self.settings.policy_key) else { return };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                log::warn!(
                    "no approvals: {}: {error}. It has to exist when zixt-hsmd starts",
                    folder.display()
                );
                return;
            }
        };
        let files = entries.filter_map(Result::ok).map(|entry| entry.path());
        let mut files: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|end| end == APPROVAL_EXTENSION))
            .map(|path| (path.metadata().and_then(|file| file.modified()).ok(), path))
            .collect();
        files.sort();
        let old = files.len().saturating_sub(APPROVAL_FILES_MAX);
        for (_, path) in files.into_iter().skip(old) {
            let added = read_approval(&path)
                .and_then(|approval| protector.add_approval(approval).map_err(|error| error.to_string()));
            if let Err(why) = added {
                log::warn!("the approval {} is not used: {why}", path.display());
            }
        }
    }

    fn with_open<T>(
        &self,
        run: impl FnOnce(&zixt_tpm::TpmProtector) -> Result<T, TpmError>,
    ) -> Result<T, CustodyError> {
        match &*self.state() {
            State::Open(protector) => run(protector).map_err(custody_error),
            State::New(_) | State::Closed => Err(CustodyError::TokenLocked),
        }
    }

    /// Whether it was opened with its PIN, and is not merely about to be enrolled.
    fn is_unsealed(&self) -> bool {
        matches!(*self.state(), State::Open(_))
    }

    /// Asks or advances the counter of an enrolment without its PIN.
    fn with_counter(
        &self,
        enrolment: &[u8],
        auth: &[u8],
        run: impl FnOnce(&Tpm, &Srk, &Counter, &[u8; COUNTER_AUTH_BYTES]) -> Result<u64, TpmError>,
    ) -> Result<u64, CustodyError> {
        let auth = auth.try_into().map_err(|_| CustodyError::UnsealFailed)?;
        let enrolment = parse(enrolment)?;
        run(&self.tpm()?, enrolment.srk(), enrolment.counter(), auth).map_err(custody_error)
    }

    /// Asks the TPM what it is.
    fn look(&self) -> Result<TokenInfo, CustodyError> {
        let info = self.tpm()?.describe().map_err(custody_error)?;
        let words: Vec<_> =
            info.manufacturer.split_whitespace().chain(info.model.split_whitespace()).collect();
        let info = TokenInfo {
            label: "tpm".to_owned(),
            // A TPM tells none. Which one it is, the pinned storage key decides once it is enrolled.
            serial: "not told".to_owned(),
            model: format!("{}, firmware {:08x}.{:08x}", words.join(" "), info.firmware.0, info.firmware.1),
            software: info.software,
        };
        *self.seen() = Some((Instant::now(), info.clone()));
        Ok(info)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Option<(Instant, TokenInfo)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an approval; not more of a file than an approval has.
///
/// # Errors
/// Why it is none.
pub fn read_approval(path: &Path) -> Result<Approval, String> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(Approval::BYTES_MAX).unwrap_or(u64::MAX);
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    Approval::parse(&bytes).map_err(|error| error.to_string())
}

impl Protector for TpmProtector {
    fn name(&self) -> &str {
        "tpm"
    }

    fn kind(&self) -> ProtectorKind {
        ProtectorKind::Tpm
    }

    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        let seen = self.seen().clone();
        match seen.filter(|(when, _)| when.elapsed() < SEEN_MAX) {
            Some((_, info)) => Ok(info),
            None => self.look(),
        }
    }

    fn is_open(&self) -> bool {
        !matches!(*self.state(), State::Closed)
    }

    fn open(&self, enrolment: Option<&[u8]>, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
        let mut state = self.state();
        match (&*state, enrolment) {
            (State::Open(_), _) => return Ok(()),
            (_, None) => {
                // Nothing is asked of the TPM with it yet; that it is there is.
                self.look()?;
                *state = State::New(pin.clone());
                return Ok(());
            }
            _ => {}
        }
        let enrolment = parse(enrolment.unwrap_or_default())?;
        let protector = zixt_tpm::TpmProtector::new(self.tpm()?, enrolment);
        self.add_approvals(&protector);
        let pin_try = match pin_try {
            PinTry::Attended => zixt_tpm::PinTry::Attended,
            PinTry::Unattended => zixt_tpm::PinTry::Unattended,
        };
        protector.open(pin.expose().as_bytes(), pin_try).map_err(custody_error)?;
        *state = State::Open(Box::new(protector));
        Ok(())
    }

    fn close(&self) {
        *self.state() = State::Closed;
    }

    /// Takes the TPM into use. From then on its authorisations exist only in the state file, sealed.
    fn enrol(&self, previous: Option<&[u8]>) -> Result<Enrolled, CustodyError> {
        let mut state = self.state();
        let pin = match &*state {
            State::New(pin) => pin.clone(),
            // What it sealed stays, because a TPM cannot destroy that. What it keeps in its memory becomes another key, and
            // without the former one the sealed key wraps nothing.
            State::Open(protector) => {
                let anchor = protector.read_anchor().map_err(custody_error)?;
                let present = parse(previous.unwrap_or_default())?.epoch();
                let epoch = protector.begin_epoch(present).map_err(custody_error)?;
                let enrolment = protector.enrolment().in_epoch(epoch).to_bytes();
                let (authorisation, counter_auth) = (None, None);
                return Ok(Enrolled { enrolment, anchor: Some(anchor), authorisation, counter_auth });
            }
            State::Closed => return Err(CustodyError::TokenLocked),
        };
        let tpm = self.tpm()?;
        let binding = self.binding(&tpm)?;
        let provisioned = tpm.provision(ProvisionOptions::default()).map_err(custody_error)?;
        let mut authorisation = Zeroizing::new(Vec::with_capacity(3 * AUTH_BYTES));
        for auth in [&provisioned.owner, &provisioned.endorsement, &provisioned.lockout] {
            authorisation.extend_from_slice(auth.as_bytes());
        }
        let made = zixt_tpm::TpmProtector::create(
            tpm,
            &provisioned,
            COUNTER_INDEX_DEFAULT,
            self.settings.registers,
            binding,
            pin.expose().as_bytes(),
        );
        let opened = made.and_then(|made| {
            self.add_approvals(&made);
            made.open(pin.expose().as_bytes(), zixt_tpm::PinTry::Attended)?;
            let (anchor, counter_auth) = (made.read_anchor()?, made.counter_auth()?);
            Ok((made, anchor, Zeroizing::new(counter_auth.to_vec())))
        });
        let (protector, anchor, counter_auth) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Its authorisations would be lost with this error.
                if let Err(error) =
                    self.tpm()?.release(&provisioned.srk, &provisioned.lockout).map_err(custody_error)
                {
                    log::error!("the TPM could not be given back: {error}");
                }
                return Err(custody_error(error));
            }
        };
        let enrolment = protector.enrolment().to_bytes();
        *state = State::Open(Box::new(protector));
        Ok(Enrolled {
            enrolment,
            anchor: Some(anchor),
            authorisation: Some(authorisation),
            counter_auth: Some(counter_auth),
        })
    }

    fn wrap(&self, enrolment: &[u8], aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, CustodyError> {
        let epoch = parse(enrolment)?.epoch();
        self.with_open(|protector| protector.wrap_root(epoch, aad, root))
    }

    fn unwrap(&self, enrolment: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Unwrapped, CustodyError> {
        let epoch = parse(enrolment)?.epoch();
        let root = self.with_open(|protector| protector.unwrap_root(epoch, aad, wrapped))?;
        Ok(Zeroizing::new(root.to_vec()))
    }

    fn anchor(&self, enrolment: &[u8], counter_auth: Option<&[u8]>) -> Result<Option<u64>, CustodyError> {
        let value = match counter_auth.filter(|_| !self.is_unsealed()) {
            Some(auth) => self.with_counter(enrolment, auth, Tpm::read_counter),
            None => self.with_open(zixt_tpm::TpmProtector::read_anchor),
        };
        value.map(Some)
    }

    fn advance(&self, enrolment: &[u8], counter_auth: Option<&[u8]>, _: u64) -> Result<(), CustodyError> {
        let value = match counter_auth.filter(|_| !self.is_unsealed()) {
            Some(auth) => self.with_counter(enrolment, auth, Tpm::advance_counter),
            None => self.with_open(zixt_tpm::TpmProtector::advance_anchor),
        };
        value.map(|_| ())
    }

    fn erase(&self, enrolment: &[u8], auths: Auths<'_>) -> Result<Erased, CustodyError> {
        let enrolment = parse(enrolment)?;
        let Some(lockout) = auths
            .device
            .and_then(|auths| auths.get(2 * AUTH_BYTES..))
            .and_then(|auth| <&[u8; AUTH_BYTES]>::try_from(auth).ok())
            .map(HierarchyAuth::from_bytes)
        else {
            // It goes on being used, and only what it wrapped so far is not to be opened any more.
            let epoch = enrolment.epoch();
            match auths.counter.filter(|_| !self.is_unsealed()) {
                Some(auth) => {
                    let auth = auth.try_into().map_err(|_| CustodyError::UnsealFailed)?;
                    let (srk, index) = (enrolment.srk(), enrolment.counter().index);
                    self.tpm()?.end_epoch(srk, index, epoch, auth).map_err(custody_error)?;
                }
                None => self.with_open(|protector| protector.end_epoch(epoch))?,
            }
            return Ok(Erased::Destroyed);
        };
        self.close();
        // Another TPM that answers is no proof that this one is gone, and nobody else has its authorisations.
        self.tpm()?.release(enrolment.srk(), &lockout).map_err(custody_error)?;
        Ok(Erased::Destroyed)
    }

    fn attest(
        &self,
        enrolment: &[u8],
        key: Option<&[u8]>,
        authorisation: Option<&[u8]>,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Attested, CustodyError> {
        let enrolment = parse(enrolment)?;
        let (tpm, srk) = (self.tpm()?, enrolment.srk());
        let quote = |key: AttestationKey| {
            let quote = tpm.quote(srk, &key, self.settings.registers, nonce)?;
            Ok((key, quote))
        };
        let kept = key.and_then(|key| AttestationKey::parse(key).ok()).map(quote);
        let quoted = match kept {
            // Officers notice a new key. A TPM that was exchanged has another storage key besides, and fails by that.
            None | Some(Err(TpmError::CorruptBlob { .. })) => tpm.create_attestation_key(srk).and_then(quote),
            Some(quoted) => quoted,
        };
        let (key, quote) = quoted.map_err(custody_error)?;
        let endorsement = authorisation
            .and_then(|auths| auths.get(AUTH_BYTES..2 * AUTH_BYTES))
            .and_then(|auth| <&[u8; AUTH_BYTES]>::try_from(auth).ok())
            .map(|auth| tpm.endorsement_key(srk, &HierarchyAuth::from_bytes(auth)))
            .transpose()
            .map_err(custody_error)?;
        let endorsement = endorsement.map(|key| key.to_bytes());
        let attestation = Attestation::new(key.public.clone(), endorsement, quote);
        Ok(Attested { key: key.to_bytes(), attestation: attestation.to_bytes() })
    }

    /// To the values that are given, or to what the configuration says now.
    fn reseal(
        &self,
        enrolment: &[u8],
        pin: &Pin,
        values: Option<&PcrValues>,
    ) -> Result<PinChange, CustodyError> {
        let wrong = |why: &str| CustodyError::WrongProtector { name: "tpm".to_owned(), why: why.to_owned() };
        let binding = match (values, &self.settings.policy_key) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "whoever holds the policy key approves other values: install their approval",
                ));
            }
            (Some(values), None) if values.selection() != Ok(self.settings.registers) => {
                return Err(wrong(&format!("it is sealed to {}, and to no other", self.settings.registers)));
            }
            (Some(values), None) => Binding::Fixed(values.clone()),
            (None, _) => self.binding(&self.tpm()?)?,
        };
        self.open(Some(enrolment), pin, PinTry::Attended)?;
        let epoch = parse(enrolment)?.epoch();
        self.with_open(|protector| {
            let secret = pin.expose().as_bytes();
            protector.reseal(secret, secret, self.settings.registers, binding)?;
            self.add_approvals(protector);
            let epoch = protector.begin_epoch(epoch)?;
            Ok(PinChange::Enrolment(protector.enrolment().in_epoch(epoch).to_bytes()))
        })
    }

    fn change_pin(&self, enrolment: &[u8], old: &Pin, new: &Pin) -> Result<PinChange, CustodyError> {
        self.open(Some(enrolment), old, PinTry::Attended)?;
        let epoch = parse(enrolment)?.epoch();
        self.with_open(|protector| {
            let sealed = protector.enrolment();
            protector.reseal(
                old.expose().as_bytes(),
                new.expose().as_bytes(),
                sealed.selection(),
                sealed.binding().clone(),
            )?;
            let epoch = protector.begin_epoch(epoch)?;
            Ok(PinChange::Enrolment(protector.enrolment().in_epoch(epoch).to_bytes()))
        })
    }
}

fn parse(enrolment: &[u8]) -> Result<Enrolment, CustodyError> {
    // The state file's MAC is checked with the root only, so this is foreign until then.
    Enrolment::parse(enrolment).map_err(|error| CustodyError::TokenFailed { detail: error.to_string() })
}

/// The protocol's error of a TPM's error.
fn custody_error(error: TpmError) -> CustodyError {
    let detail = error.to_string();
    match error {
        TpmError::TpmAbsent { .. } | TpmError::NoAnswer { .. } | TpmError::OwnerGone => {
            CustodyError::TokenAbsent { detail }
        }
        TpmError::PinIncorrect { .. } => CustodyError::PinIncorrect,
        TpmError::Lockout { wait_s } => CustodyError::TpmLockout { wait_s },
        TpmError::LastTry { .. } | TpmError::KeptForPeople { .. } => CustodyError::PinFinalTry,
        TpmError::PcrMismatch { changed } => CustodyError::TpmPcrMismatch { registers: changed },
        TpmError::SrkChanged { .. } | TpmError::SrkMissing { .. } | TpmError::AnswerForged { .. } => {
            CustodyError::TpmReplaced { detail }
        }
        TpmError::CorruptBlob { .. } => CustodyError::UnsealFailed,
        TpmError::CounterMissing { .. }
        | TpmError::CounterRollback { .. }
        | TpmError::CounterReplaced { .. } => CustodyError::AnchorMissing { detail },
        TpmError::EpochOver { epoch } => CustodyError::KekMissing { kek: epoch },
        TpmError::NotOpen => CustodyError::TokenLocked,
        error => CustodyError::TokenFailed { detail: format!("{detail}. {}", error.advice()) },
    }
}
