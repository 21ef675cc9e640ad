//! The TPM as one protector of an appliance's root key, with everything that it has to remember.
//!
//! The TPM seals a key of its own, drawn when the protector is made; that key wraps root keys, together with one in the
//! TPM's memory that a rotation erases ([`crate::Epoch`]). So a root key can be rotated without the PIN, what was wrapped
//! before opens no more, and opening the protector tries the PIN before any root key is there.

use crate::counter::{COUNTER_AUTH_BYTES, Counter};
use crate::dictionary::{DictionaryState, PinTry};
use crate::epoch::{EPOCH_KEY_BYTES, Epoch};
use crate::error::{TpmError, hex};
use crate::link::Srk;
use crate::owner::Tpm;
use crate::provision::{HierarchyAuth, Provisioned, TpmInfo, fill_auth};
use crate::seal::Sealed;
use minicbor::{Decode, Encode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead, hash, labels};
use zixt_measured::{Approval, ApprovalError, Binding, PcrSelection};
use zixt_types::Canonical;

/// Bytes of a root key.
pub const ROOT_BYTES: usize = 32;
/// Bytes of the wrapping key.
const KEY_BYTES: usize = 32;
/// Approvals that are kept: the image that runs, the next, and two more that an administrator may go back to.
pub const APPROVALS_MAX: usize = 4;
/// Bytes of the id.
const ID_BYTES: usize = 16;

/// What a TPM protector has to remember. Nothing of it is secret; whoever can change it can put another TPM in this
/// one's place, so it belongs where only the custody daemon writes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Enrolment {
    #[n(0)]
    version: u64,
    #[n(1)]
    srk: Srk,
    #[n(2)]
    sealed: Sealed,
    #[n(3)]
    approvals: Vec<Approval>,
    #[n(4)]
    counter: Counter,
    /// Whose key wraps the root. Its place is beside the counter.
    #[n(5)]
    epoch: Epoch,
}

impl Canonical for Enrolment {
    const WHAT: &'static str = "TPM enrolment";
    const BYTES_MAX: usize = 10_000;
    const VERSION: Option<u64> = Some(2);

    fn check(&self) -> Result<(), &'static str> {
        if self.approvals.len() > APPROVALS_MAX {
            return Err("it has too many approvals");
        }
        self.approvals.iter().try_for_each(Approval::check)?;
        self.epoch.check()?;
        self.sealed.check()
    }
}

impl Enrolment {
    /// The pinned storage key.
    #[must_use]
    pub fn srk(&self) -> &Srk {
        &self.srk
    }

    /// The registers that the protector is bound to.
    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        self.sealed.selection
    }

    /// Which of their values open it.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.sealed.binding
    }

    /// The counter that state is anchored to.
    #[must_use]
    pub fn counter(&self) -> &Counter {
        &self.counter
    }

    /// The epoch in which the root is wrapped.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The same in another epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }

    /// The approvals that are kept, oldest first.
    #[must_use]
    pub fn approvals(&self) -> &[Approval] {
        &self.approvals
    }
}

/// A root key, wrapped by a protector's key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct WrappedRoot {
    /// Format version: 2.
    #[n(0)]
    version: u64,
    /// Whose key wraps it.
    #[cbor(n(1), with = "minicbor::bytes")]
    protector: [u8; ID_BYTES],
    /// Nonce, ciphertext and tag of AES-256-GCM.
    #[cbor(n(2), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

impl Canonical for WrappedRoot {
    const WHAT: &'static str = "root key wrapped by a TPM protector";
    const BYTES_MAX: usize = 96;
    const VERSION: Option<u64> = Some(2);
}

/// What the TPM seals.
struct Opened {
    key: Zeroizing<[u8; KEY_BYTES]>,
    counter_auth: Zeroizing<[u8; COUNTER_AUTH_BYTES]>,
}

impl Opened {
    fn generate() -> Result<Self, TpmError> {
        let mut opened = Self { key: Zeroizing::default(), counter_auth: Zeroizing::default() };
        zixt_crypto::fill_random(&mut opened.key[..])?;
        fill_auth(&mut opened.counter_auth[..])?;
        Ok(opened)
    }

    fn parse(secret: &[u8]) -> Result<Self, TpmError> {
        let mut opened = Self { key: Zeroizing::default(), counter_auth: Zeroizing::default() };
        match secret.split_at_checked(KEY_BYTES) {
            Some((key, auth)) if auth.len() == COUNTER_AUTH_BYTES => {
                opened.key.copy_from_slice(key);
                opened.counter_auth.copy_from_slice(auth);
                Ok(opened)
            }
            _ => Err(TpmError::CorruptBlob { why: "the sealed secret has another length".to_owned() }),
        }
    }

    fn to_secret(&self) -> Zeroizing<Vec<u8>> {
        let mut secret = Zeroizing::new(Vec::with_capacity(KEY_BYTES + COUNTER_AUTH_BYTES));
        secret.extend_from_slice(&self.key[..]);
        secret.extend_from_slice(&self.counter_auth[..]);
        secret
    }
}

struct State {
    enrolment: Enrolment,
    opened: Option<Opened>,
}

/// A protector. Locked when it is made from an [`Enrolment`].
pub struct TpmProtector {
    tpm: Tpm,
    state: Mutex<State>,
}

impl TpmProtector {
    /// A new protector in a TPM that was just provisioned, locked. [`TpmProtector::enrolment`] is to be stored.
    ///
    /// # Errors
    /// [`TpmError::PcrsUnmeasured`], [`TpmError::PinUnusable`], [`TpmError::AlreadyOwned`] if the counter's index is
    /// taken, and others.
    pub fn create(
        tpm: Tpm,
        provisioned: &Provisioned,
        counter_index: u32,
        selection: PcrSelection,
        binding: Binding,
        pin: &[u8],
    ) -> Result<Self, TpmError> {
        let srk = provisioned.srk.clone();
        let new = Opened::generate()?;
        let sealed = tpm.seal(&srk, &new.to_secret(), pin, selection, binding)?;
        let (counter, _) = tpm.create_counter(&srk, &provisioned.owner, counter_index, &new.counter_auth)?;
        let epoch = tpm.create_epochs(&srk, &provisioned.owner, counter_index, &new.counter_auth)?;
        Ok(Self::new(tpm, Enrolment { version: 2, srk, sealed, approvals: Vec::new(), counter, epoch }))
    }

    /// The protector of an enrolment, locked. Touches no TPM.
    #[must_use]
    pub fn new(tpm: Tpm, enrolment: Enrolment) -> Self {
        Self { tpm, state: Mutex::new(State { enrolment, opened: None }) }
    }

    /// What to store after anything changed it.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment {
        self.state().enrolment.clone()
    }

    /// A name that is the storage key's own.
    #[must_use]
    pub fn id(&self) -> String {
        format!("tpm-{}", hex(&id(&self.state().enrolment.srk)))
    }

    /// The TPM behind it.
    #[must_use]
    pub fn tpm(&self) -> &Tpm {
        &self.tpm
    }

    /// What the TPM says it is.
    ///
    /// # Errors
    /// [`TpmError::TpmAbsent`] and others.
    pub fn describe(&self) -> Result<TpmInfo, TpmError> {
        self.tpm.describe()
    }

    /// The state of the dictionary-attack defence.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn dictionary(&self) -> Result<DictionaryState, TpmError> {
        let srk = self.state().enrolment.srk.clone();
        self.tpm.dictionary(&srk)
    }

    /// Whether it is unlocked.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().opened.is_some()
    }

    /// Unlocks it.
    ///
    /// # Errors
    /// As [`Tpm::unseal`].
    pub fn open(&self, pin: &[u8], pin_try: PinTry) -> Result<(), TpmError> {
        let mut state = self.state();
        if state.opened.is_none() {
            state.opened = Some(self.unseal(&state.enrolment, pin, pin_try)?);
        }
        Ok(())
    }

    /// Locks it.
    pub fn close(&self) {
        self.state().opened = None;
    }

    /// Wraps a root key in an epoch; `aad` says which one it is and must be given again to open it.
    ///
    /// # Errors
    /// [`TpmError::NotOpen`], [`TpmError::Random`], and as [`Tpm::epoch_key`].
    pub fn wrap_root(&self, epoch: Epoch, aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, TpmError> {
        let (protector, key) = self.wrapping_key(epoch)?;
        let sealed = aead::seal(&key, &wrapping_aad(&protector, aad), root).map_err(|_| TpmError::Random)?;
        Ok(WrappedRoot { version: 2, protector, sealed }.to_bytes())
    }

    /// Opens what [`TpmProtector::wrap_root`] made in that epoch under the same `aad`.
    ///
    /// # Errors
    /// [`TpmError::NotOpen`], [`TpmError::CorruptBlob`], and as [`Tpm::epoch_key`].
    pub fn unwrap_root(
        &self,
        epoch: Epoch,
        aad: &[u8],
        blob: &[u8],
    ) -> Result<Zeroizing<[u8; ROOT_BYTES]>, TpmError> {
        let corrupt = |why: String| TpmError::CorruptBlob { why };
        let blob = WrappedRoot::parse(blob).map_err(|error| corrupt(error.to_string()))?;
        let (protector, key) = self.wrapping_key(epoch)?;
        if blob.protector != protector {
            return Err(corrupt("another protector wrapped it".to_owned()));
        }
        let root = aead::open(&key, &wrapping_aad(&protector, aad), &blob.sealed)
            .map_err(|error| corrupt(error.to_string()))?;
        let mut out = Zeroizing::new([0; ROOT_BYTES]);
        match root.len() {
            ROOT_BYTES => out.copy_from_slice(&root),
            _ => return Err(corrupt("it is no root key".to_owned())),
        }
        Ok(out)
    }

    /// Begins an epoch after the `present` one, which goes on until [`TpmProtector::end_epoch`].
    ///
    /// # Errors
    /// [`TpmError::NotOpen`], and as [`Tpm::begin_epoch`].
    pub fn begin_epoch(&self, present: Epoch) -> Result<Epoch, TpmError> {
        let state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        let (srk, index) = (&state.enrolment.srk, state.enrolment.counter.index);
        self.tpm.begin_epoch(srk, index, Some(present), &opened.counter_auth)
    }

    /// Ends an epoch: what was wrapped in it opens no more, wherever a copy is.
    ///
    /// # Errors
    /// [`TpmError::NotOpen`], and as [`Tpm::end_epoch`].
    pub fn end_epoch(&self, epoch: Epoch) -> Result<(), TpmError> {
        let state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        let (srk, index) = (&state.enrolment.srk, state.enrolment.counter.index);
        self.tpm.end_epoch(srk, index, epoch, &opened.counter_auth)
    }

    /// The key that wraps roots in an epoch, and whose it is.
    fn wrapping_key(&self, epoch: Epoch) -> Result<([u8; ID_BYTES], AeadKey), TpmError> {
        let state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        let (srk, index) = (&state.enrolment.srk, state.enrolment.counter.index);
        let of_epoch = self.tpm.epoch_key(srk, index, epoch, &opened.counter_auth)?;
        let mut both = Zeroizing::new([0; KEY_BYTES + EPOCH_KEY_BYTES]);
        both[..KEY_BYTES].copy_from_slice(&opened.key[..]);
        both[KEY_BYTES..].copy_from_slice(&of_epoch[..]);
        let protector = id(srk);
        Ok((protector, hash::derive_key(&[], &both[..], labels::TPM_ROOT_WRAP, &[&protector])))
    }

    /// What [`Tpm::read_counter`] and [`Tpm::advance_counter`] take, and the memory of epochs: for a caller that asks the
    /// counter where nobody enters the PIN. Stays the same for as long as the counter exists. Do not log or format it.
    ///
    /// # Errors
    /// [`TpmError::NotOpen`].
    pub fn counter_auth(&self) -> Result<Zeroizing<[u8; COUNTER_AUTH_BYTES]>, TpmError> {
        let state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        Ok(opened.counter_auth.clone())
    }

    /// The counter that state is anchored to. See [`crate::judge_state`].
    ///
    /// # Errors
    /// [`TpmError::NotOpen`], [`TpmError::CounterMissing`] and others.
    pub fn read_anchor(&self) -> Result<u64, TpmError> {
        let state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        self.tpm.read_counter(&state.enrolment.srk, &state.enrolment.counter, &opened.counter_auth)
    }

    /// Advances the counter by one, after the state with the next number was stored durably.
    ///
    /// # Errors
    /// As [`TpmProtector::read_anchor`].
    pub fn advance_anchor(&self) -> Result<u64, TpmError> {
        let state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        self.tpm.advance_counter(&state.enrolment.srk, &state.enrolment.counter, &opened.counter_auth)
    }

    /// Makes the counter anew after it was removed. It starts above where it was: every state so far then counts as
    /// rolled back, until officers decide.
    ///
    /// # Errors
    /// [`TpmError::NotOpen`], [`TpmError::AlreadyOwned`], [`TpmError::AuthIncorrect`] and others.
    pub fn recreate_anchor(&self, owner: &HierarchyAuth) -> Result<u64, TpmError> {
        let mut state = self.state();
        let opened = state.opened.as_ref().ok_or(TpmError::NotOpen)?;
        let (srk, index) = (&state.enrolment.srk, state.enrolment.counter.index);
        let (counter, value) = self.tpm.create_counter(srk, owner, index, &opened.counter_auth)?;
        state.enrolment.counter = counter;
        Ok(value)
    }

    /// Keeps an approval, of an image that is to be started next. The oldest goes when there are too many.
    ///
    /// # Errors
    /// [`TpmError::ApprovalRefused`].
    pub fn add_approval(&self, approval: Approval) -> Result<(), TpmError> {
        let mut state = self.state();
        let enrolment = &mut state.enrolment;
        let Binding::Approved { key, reference } = &enrolment.sealed.binding else {
            return Err(TpmError::Unsupported {
                what: "take approvals: the protector is bound to fixed values".to_owned(),
            });
        };
        approval
            .verify(key, reference, enrolment.sealed.selection)
            .map_err(|error: ApprovalError| TpmError::ApprovalRefused(error))?;
        enrolment.approvals.retain(|kept| kept.values != approval.values);
        enrolment.approvals.push(approval);
        if enrolment.approvals.len() > APPROVALS_MAX {
            enrolment.approvals.remove(0);
        }
        Ok(())
    }

    /// Seals anew: another PIN, other registers, another policy key or reference, or fixed values that are predicted
    /// for the next image. Everything that was sealed before stays openable by whoever kept it with the old PIN in this
    /// TPM, so the wrapping key changes as well: root keys have to be wrapped again, and old wrappings thrown away.
    ///
    /// # Errors
    /// As [`Tpm::unseal`] and [`Tpm::seal`]. Nothing changes then.
    pub fn reseal(
        &self,
        pin: &[u8],
        new_pin: &[u8],
        selection: PcrSelection,
        binding: Binding,
    ) -> Result<(), TpmError> {
        let mut state = self.state();
        let old = self.unseal(&state.enrolment, pin, PinTry::Attended)?;
        let mut new = Opened::generate()?;
        new.counter_auth.copy_from_slice(&old.counter_auth[..]);
        let sealed = self.tpm.seal(&state.enrolment.srk, &new.to_secret(), new_pin, selection, binding)?;
        if sealed.binding != state.enrolment.sealed.binding || selection != state.enrolment.sealed.selection {
            state.enrolment.approvals.clear();
        }
        state.enrolment.sealed = sealed;
        state.opened = Some(new);
        Ok(())
    }

    fn unseal(&self, enrolment: &Enrolment, pin: &[u8], pin_try: PinTry) -> Result<Opened, TpmError> {
        let secret =
            self.tpm.unseal(&enrolment.srk, &enrolment.sealed, &enrolment.approvals, pin, pin_try)?;
        Opened::parse(&secret)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TpmProtector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TpmProtector").field("tcti", &self.tpm.tcti()).finish_non_exhaustive()
    }
}

fn id(srk: &Srk) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(&hash::sha384(labels::TPM_PROTECTOR_ID, &[&srk.name]).0[..ID_BYTES]);
    id
}

/// The id has a fixed length, so that what follows it cannot be taken for a part of it.
fn wrapping_aad(protector: &[u8; ID_BYTES], aad: &[u8]) -> Vec<u8> {
    [labels::TPM_ROOT_WRAP, protector, aad].concat()
}
