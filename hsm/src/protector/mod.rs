//! Protectors: what wraps the root key, each on its own, so that any one of them opens custody.
//!
//! What a protector has to remember is its *enrolment*: bytes that the state file keeps and only the protector reads. It
//! holds no secret; that it was not exchanged is known once the root is open, by the state file's MAC.

mod pkcs11;
mod software;
#[cfg(test)]
pub(crate) mod testing;
mod tpm;

pub use pkcs11::Pkcs11Protector;
pub(crate) use pkcs11::custody_error;
pub use software::SoftwareProtector;
pub use tpm::{APPROVAL_EXTENSION, TpmProtector, TpmSettings, read_approval};

use crate::root::ROOT_BYTES;
use zeroize::Zeroizing;
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_measured::{NONCE_BYTES, PcrValues};
use zixt_types::ProtectorKind;

/// A root key on its way out of a protector.
pub type Unwrapped = Zeroizing<Vec<u8>>;

/// What becomes of the key of a protector that is no longer used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erased {
    /// It is gone: nothing that it wrapped can be opened any more, wherever a copy is.
    Destroyed,
    /// It may still exist, for this reason. What it wrapped is worthless only because the root was rotated.
    Kept(String),
}

/// What wraps the root key. Chosen by the configuration; any number of them at a time.
pub trait Protector: Send + Sync {
    /// The name in the configuration: a token's label, `tpm`.
    fn name(&self) -> &str;

    /// Its kind.
    fn kind(&self) -> ProtectorKind;

    /// The token or TPM, if it can be seen. Needs no PIN.
    ///
    /// # Errors
    /// Why it cannot be seen.
    fn describe(&self) -> Result<TokenInfo, CustodyError>;

    /// Whether it was opened.
    fn is_open(&self) -> bool;

    /// Opens it with its PIN: with what it remembers, or without, to be enrolled.
    ///
    /// # Errors
    /// `TokenAbsent`, `PinIncorrect`, `PinLocked`, `PinFinalTry`, `TpmPcrMismatch`, `TokenFailed` and others.
    fn open(&self, enrolment: Option<&[u8]>, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError>;

    /// Closes it.
    fn close(&self);

    /// Makes the wrapping key of a new enrolment in an open protector. The `previous` one stays valid until
    /// [`Self::erase`]; its anchor goes on.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenFailed`.
    fn enrol(&self, previous: Option<&[u8]>) -> Result<Enrolled, CustodyError>;

    /// Wraps a root key.
    ///
    /// # Errors
    /// `TokenLocked`, `KekMissing`, `TokenFailed`.
    fn wrap(&self, enrolment: &[u8], aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, CustodyError>;

    /// Opens what [`Self::wrap`] made under the same `aad`.
    ///
    /// # Errors
    /// `TokenLocked`, `KekMissing`, `UnsealFailed`, `TokenFailed`.
    fn unwrap(&self, enrolment: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Unwrapped, CustodyError>;

    /// A number that cannot be set back, to notice state that was; `None` if it has none. Of a device that is not open by
    /// what [`Enrolled::counter_auth`] was, where there is that.
    ///
    /// # Errors
    /// `TokenLocked` if it needs to be open, `AnchorMissing`, `TokenFailed`.
    fn anchor(&self, enrolment: &[u8], counter_auth: Option<&[u8]>) -> Result<Option<u64>, CustodyError>;

    /// Sets the anchor to a number that is one more than what it was.
    ///
    /// # Errors
    /// As [`Self::anchor`].
    fn advance(&self, enrolment: &[u8], counter_auth: Option<&[u8]>, to: u64) -> Result<(), CustodyError>;

    /// Destroys the wrapping key of an enrolment that is no longer used, as far as the device can; if the protector is
    /// given up as a whole, with everything else. What is gone already is destroyed.
    ///
    /// # Errors
    /// `TokenLocked` if it needs to be open, `TokenAbsent`, `TokenFailed`: to be tried again.
    fn erase(&self, enrolment: &[u8], auths: Auths<'_>) -> Result<Erased, CustodyError>;

    /// What else of ours is in the open device, in words: wrapping keys of none of these enrolments.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenFailed`.
    fn strays(&self, _: &[&[u8]]) -> Result<Vec<String>, CustodyError> {
        Ok(Vec::new())
    }

    /// Signs what the machine measured, by the attestation key that is given or, if there is none or another device made it,
    /// by a new one. `authorisation` is what [`Enrolled::authorisation`] was, where it is known.
    ///
    /// # Errors
    /// `WrongProtector` for everything that measures nothing; `TokenAbsent`, `TpmReplaced`, `TokenFailed`.
    fn attest(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Option<&[u8]>,
        _: &[u8; NONCE_BYTES],
    ) -> Result<Attested, CustodyError> {
        Err(CustodyError::WrongProtector {
            name: self.name().to_owned(),
            why: "only a TPM measures what was started".to_owned(),
        })
    }

    /// Seals its wrapping key anew: to these values of registers, or to what the configuration says now.
    ///
    /// # Errors
    /// `WrongProtector` for everything that is not sealed to registers; `PinIncorrect` and others as [`Self::open`].
    fn reseal(&self, _: &[u8], _: &Pin, _: Option<&PcrValues>) -> Result<PinChange, CustodyError> {
        Err(CustodyError::WrongProtector {
            name: self.name().to_owned(),
            why: "only a TPM is sealed to registers".to_owned(),
        })
    }

    /// Gives it another PIN. What it remembers may change with it.
    ///
    /// # Errors
    /// `PinIncorrect` and others as [`Self::open`].
    fn change_pin(&self, enrolment: &[u8], old: &Pin, new: &Pin) -> Result<PinChange, CustodyError>;
}

/// What a device may be asked with that is closed, or to be given up.
#[derive(Clone, Copy, Default)]
pub struct Auths<'a> {
    /// What [`Enrolled::authorisation`] was: given where the protector is given up as a whole.
    pub device: Option<&'a [u8]>,
    /// What [`Enrolled::counter_auth`] was.
    pub counter: Option<&'a [u8]>,
}

/// What a new enrolment consists of.
pub struct Enrolled {
    /// What the protector has to remember.
    pub enrolment: Vec<u8>,
    /// The anchor's number at the beginning, if there is one.
    pub anchor: Option<u64>,
    /// Authorisations of the device that exist nowhere else: to be sealed under the root.
    pub authorisation: Option<Zeroizing<Vec<u8>>>,
    /// What lets the anchor be asked and advanced without the PIN, if the device can do that: to be sealed under the root.
    pub counter_auth: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Enrolled {
    /// Without the authorisations.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolled").field("anchor", &self.anchor).finish_non_exhaustive()
    }
}

/// A device's word for what was started.
#[derive(Debug)]
pub struct Attested {
    /// The attestation key, to be kept for the next one. Not secret: only its device can use it.
    pub key: Vec<u8>,
    /// A `zixt_measured::Attestation`.
    pub attestation: Vec<u8>,
}

/// What a change of PIN leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum PinChange {
    /// Nothing else changed.
    Done,
    /// The protector remembers something else now, and the root has to be wrapped again before that is stored.
    Enrolment(Vec<u8>),
}
