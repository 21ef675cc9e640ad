//! Refusals of the daemon, with stable codes, and what else can go wrong between a client and it.

use crate::codec::CodecError;
use crate::frame::FrameError;
use crate::request::Purpose;
use minicbor::{Decode, Encode};
use std::path::PathBuf;
use zixt_types::{Hash, SuiteId};

/// Why the daemon did not do what was asked. The codes never change their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum CustodyError {
    /// The frame or the object in it could not be read.
    #[n(0)]
    #[error("malformed request: {why}")]
    Malformed {
        /// What was found.
        #[n(0)]
        why: String,
    },
    /// The peer's user may not ask for this.
    #[n(1)]
    #[error("user {uid} is not allowed the purpose {purpose}")]
    NotAllowed {
        /// The peer's user id, as the kernel tells it.
        #[n(0)]
        uid: u32,
        /// The purpose that it would need.
        #[n(1)]
        purpose: Purpose,
    },
    /// There are no keys yet, or no genesis is pinned.
    #[n(2)]
    #[error("custody is not provisioned yet")]
    Unprovisioned,
    /// The keys are wrapped.
    #[n(3)]
    #[error("custody is locked")]
    Locked,
    /// Officers have to decide first.
    #[n(4)]
    #[error("custody is quarantined: {reason}")]
    Quarantined {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// The daemon does not work.
    #[n(5)]
    #[error("custody failed: {reason}")]
    Failed {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// Keys exist already.
    #[n(6)]
    #[error("the keys exist already; they are made once")]
    AlreadyProvisioned,
    /// The genesis is not one that these keys can serve.
    #[n(7)]
    #[error("the genesis is refused: {why}")]
    GenesisRefused {
        /// Which statement is not true.
        #[n(0)]
        why: String,
    },
    /// The object belongs to another network.
    #[n(8)]
    #[error("the object names another genesis than the pinned one ({pinned})")]
    WrongGenesis {
        /// The pinned genesis.
        #[n(0)]
        pinned: Hash,
    },
    /// The object is for another suite than the key's.
    #[n(9)]
    #[error("the object is for another suite than the key's ({key})")]
    WrongSuite {
        /// The key's suite.
        #[n(0)]
        key: SuiteId,
    },
    /// The object is well-formed but not what this purpose signs.
    #[n(10)]
    #[error("not signed for {purpose}: {why}")]
    WrongContent {
        /// The purpose.
        #[n(0)]
        purpose: Purpose,
        /// What it would have to be.
        #[n(1)]
        why: String,
    },
    /// No token with the configured label and serial.
    #[n(11)]
    #[error("the token is absent: {detail}")]
    TokenAbsent {
        /// What was looked for.
        #[n(0)]
        detail: String,
    },
    /// The token refused the PIN.
    #[n(12)]
    #[error("the PIN is wrong")]
    PinIncorrect,
    /// The token takes no PIN any more.
    #[n(13)]
    #[error("the token has locked the PIN")]
    PinLocked,
    /// One try is left, and this program does not use it up.
    #[n(14)]
    #[error("only one try of the PIN is left; it is not used")]
    PinFinalTry,
    /// Too soon after a wrong PIN.
    #[n(15)]
    #[error("after a wrong PIN the next try is possible in {retry_after_s} s")]
    PinBackoff {
        /// Seconds to wait.
        #[n(0)]
        retry_after_s: u64,
    },
    /// The token lacks the key that wraps the seeds.
    #[n(16)]
    #[error("the token does not hold the wrapping key {kek}")]
    KekMissing {
        /// Its CKA_ID, in hexadecimal.
        #[n(0)]
        kek: String,
    },
    /// A wrapped key does not open: another token, or an edited file.
    #[n(17)]
    #[error("a wrapped key does not open under the token's key")]
    UnsealFailed,
    /// The token or its library failed.
    #[n(18)]
    #[error("the token failed: {detail}")]
    TokenFailed {
        /// What failed.
        #[n(0)]
        detail: String,
    },
    /// The token must be unlocked for this first.
    #[n(19)]
    #[error("the token is not unlocked")]
    TokenLocked,
    /// A file could not be written; nothing was signed.
    #[n(20)]
    #[error("custody could not store its state: {detail}")]
    Storage {
        /// What failed.
        #[n(0)]
        detail: String,
    },
    /// Something that should not happen; the daemon's log has more.
    #[n(21)]
    #[error("custody failed inside: {detail}")]
    Internal {
        /// What failed.
        #[n(0)]
        detail: String,
    },
    /// The peer has too many connections open.
    #[n(22)]
    #[error("custody serves as many connections as it can")]
    Busy,
    /// The TPM takes no PIN for a while.
    #[n(23)]
    #[error("the TPM is in lockout and takes a try again in at most {wait_s} s")]
    TpmLockout {
        /// Seconds of running time.
        #[n(0)]
        wait_s: u64,
    },
    /// The machine did not start what the root is sealed to.
    #[n(24)]
    #[error(
        "the machine did not start the software that the root is sealed to: TPM registers {registers:?} differ"
    )]
    TpmPcrMismatch {
        /// The registers that differ.
        #[cbor(n(0), with = "minicbor::bytes")]
        registers: Vec<u8>,
    },
    /// It is not the TPM that was provisioned, or somebody sits in between.
    #[n(25)]
    #[error("this is not the TPM that was provisioned: {detail}")]
    TpmReplaced {
        /// What was found.
        #[n(0)]
        detail: String,
    },
    /// What shows that state is the newest is gone.
    #[n(26)]
    #[error("the anchor against rollback is missing: {detail}")]
    AnchorMissing {
        /// What was found.
        #[n(0)]
        detail: String,
    },
    /// Officers did not approve this, or approved something else.
    #[n(27)]
    #[error("officers have not approved this: {why}")]
    NotApproved {
        /// What is missing or wrong.
        #[n(0)]
        why: String,
    },
    /// No protector of this name or id.
    #[n(28)]
    #[error("there is no protector {name}; there are {known}")]
    NoSuchProtector {
        /// What was asked for.
        #[n(0)]
        name: String,
        /// What there is.
        #[n(1)]
        known: String,
    },
    /// The protector wraps the root already, or does not yet.
    #[n(29)]
    #[error("the protector {name} cannot be used for this: {why}")]
    WrongProtector {
        /// Its name.
        #[n(0)]
        name: String,
        /// Why.
        #[n(1)]
        why: String,
    },
    /// Protectors that have to be open are not.
    #[n(30)]
    #[error(
        "the PIN of {names} is needed too: the root can be changed only where every protector wraps the new one"
    )]
    PinsMissing {
        /// Their names.
        #[n(0)]
        names: String,
    },
    /// A key that there is not, or not in this state.
    #[n(31)]
    #[error("there is no such key: {why}")]
    NoSuchKey {
        /// What was looked for.
        #[n(0)]
        why: String,
    },
    /// Nothing that a lab is allowed and production is not.
    #[n(32)]
    #[error("only a lab may use {what}")]
    LabOnly {
        /// What.
        #[n(0)]
        what: String,
    },
    /// A backup, share or release cannot be used.
    #[n(33)]
    #[error("recovery is refused: {why}")]
    RecoveryRefused {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// Custody is not in the state for this.
    #[n(34)]
    #[error("not now: {why}")]
    WrongState {
        /// What state it would have to be in.
        #[n(0)]
        why: String,
    },
    /// This user asks too often.
    #[n(35)]
    #[error("too many requests; the next one is possible in {retry_after_ms} ms")]
    TooManyRequests {
        /// Milliseconds to wait.
        #[n(0)]
        retry_after_ms: u64,
    },
}

impl CustodyError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "custody-malformed",
            Self::NotAllowed { .. } => "custody-not-allowed",
            Self::Unprovisioned => "custody-unprovisioned",
            Self::Locked => "custody-locked",
            Self::Quarantined { .. } => "custody-quarantined",
            Self::Failed { .. } => "custody-failed",
            Self::AlreadyProvisioned => "custody-already-provisioned",
            Self::GenesisRefused { .. } => "custody-genesis-refused",
            Self::WrongGenesis { .. } => "custody-wrong-genesis",
            Self::WrongSuite { .. } => "custody-wrong-suite",
            Self::WrongContent { .. } => "custody-wrong-content",
            Self::TokenAbsent { .. } => "custody-token-absent",
            Self::PinIncorrect => "custody-pin-incorrect",
            Self::PinLocked => "custody-pin-locked",
            Self::PinFinalTry => "custody-pin-final-try",
            Self::PinBackoff { .. } => "custody-pin-backoff",
            Self::KekMissing { .. } => "custody-kek-missing",
            Self::UnsealFailed => "custody-unseal-failed",
            Self::TokenFailed { .. } => "custody-token-failed",
            Self::TokenLocked => "custody-token-locked",
            Self::Storage { .. } => "custody-storage",
            Self::Internal { .. } => "custody-internal",
            Self::Busy => "custody-busy",
            Self::TpmLockout { .. } => "custody-tpm-lockout",
            Self::TpmPcrMismatch { .. } => "custody-tpm-pcr-mismatch",
            Self::TpmReplaced { .. } => "custody-tpm-replaced",
            Self::AnchorMissing { .. } => "custody-anchor-missing",
            Self::NotApproved { .. } => "custody-not-approved",
            Self::NoSuchProtector { .. } => "custody-no-such-protector",
            Self::WrongProtector { .. } => "custody-wrong-protector",
            Self::PinsMissing { .. } => "custody-pins-missing",
            Self::NoSuchKey { .. } => "custody-no-such-key",
            Self::LabOnly { .. } => "custody-lab-only",
            Self::RecoveryRefused { .. } => "custody-recovery-refused",
            Self::WrongState { .. } => "custody-wrong-state",
            Self::TooManyRequests { .. } => "custody-too-many-requests",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::WrongContent { .. } => {
                "The program that asked has a fault or another version: compare the versions of both."
            }
            Self::NotAllowed { .. } => {
                "If this user should be allowed, add it with the purpose to `allow` in hsmd.toml and restart zixt-hsmd."
            }
            Self::Unprovisioned => "Run zixt-provision: it makes the keys and pins the genesis.",
            Self::Locked | Self::TokenLocked => "Run `zixt-hsm unlock` and enter the token's PIN.",
            Self::Quarantined { .. } => {
                "Do not repair files by hand: officers have to activate a new consensus key."
            }
            Self::Failed { .. } => "Read `zixt-hsm status`, remove the cause, and restart zixt-hsmd.",
            Self::AlreadyProvisioned => "Read the public keys with `zixt-hsm status --json`.",
            Self::GenesisRefused { .. } => {
                "Make the genesis again from the keys that `zixt-hsm status --json` shows."
            }
            Self::WrongGenesis { .. } => {
                "zixtd and zixt-hsmd use state folders of different networks: check both configurations."
            }
            Self::WrongSuite { .. } => {
                "Check which suite the genesis names first and which one the keys were made for."
            }
            Self::TokenAbsent { .. } => {
                "Plug the token in, or check `module`, `label` and `serial` under [[token]] in hsmd.toml."
            }
            Self::PinIncorrect => "Check that this is the PIN of the token that `zixt-hsm status` shows.",
            Self::PinLocked => "The security officer has to set a new user PIN with the token's own tool.",
            Self::PinFinalTry => {
                "Let the security officer reset the PIN with the token's own tool before the last try is lost."
            }
            Self::PinBackoff { .. } => "Wait, then try again with the right PIN.",
            Self::KekMissing { .. } | Self::UnsealFailed => {
                "This is not the token that made the keys, or custody.cbor was changed: restore the right pair."
            }
            Self::TokenFailed { .. } => {
                "Look at the token and its library's log; then run `zixt-hsm unlock`."
            }
            Self::Storage { .. } => {
                "Check the disk of the state folder: space, permissions, errors in the kernel log."
            }
            Self::Internal { .. } => "Read the log of zixt-hsmd.",
            Self::Busy => "Close other clients of zixt-hsmd.",
            Self::TpmLockout { .. } => {
                "Leave the machine switched on and wait, or unlock by another protector. Somebody tried wrong PINs: find \
                 out who."
            }
            Self::TpmPcrMismatch { .. } => {
                "Was firmware or the image updated? Then install the approval that came with it and unlock again, or start \
                 the former image. If nothing was updated, treat the machine as tampered with and use another protector."
            }
            Self::TpmReplaced { .. } => {
                "The TPM was cleared or exchanged, or something sits between it and the processor. Do not enter its PIN \
                 again; unlock by another protector and have the machine inspected."
            }
            Self::AnchorMissing { .. } => {
                "The device lost its counter, or it is another device. Unlock by another protector; officers can enrol \
                 this one anew."
            }
            Self::NotApproved { .. } => {
                "Make the action again with `zixt-hsm propose` and let enough officers approve exactly that file."
            }
            Self::NoSuchProtector { .. } => {
                "Names are those of hsmd.toml: labels under [[token]], or `tpm`. `zixt-hsm status` lists them."
            }
            Self::WrongProtector { .. } => "Look at the protectors in `zixt-hsm status`.",
            Self::PinsMissing { .. } => {
                "Give the PINs of all protectors, or remove the one that is lost first."
            }
            Self::NoSuchKey { .. } => "Look at the keys in `zixt-hsm list`.",
            Self::LabOnly { .. } => "Use a hardware token or a TPM, or make the keys for a lab.",
            Self::RecoveryRefused { .. } => {
                "Check that backup, action and releases belong together: `zixt-officer show` tells for each."
            }
            Self::WrongState { .. } => "Look at `zixt-hsm status`.",
            Self::TooManyRequests { .. } => {
                "Wait; if nobody runs a script, find out which program of this user asks so often."
            }
        }
    }
}

/// Why a call had no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon refused.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// Nobody listens.
    #[error("cannot reach zixt-hsmd at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The connection broke, or the answer did not come in time.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The answer could not be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The answer belongs to another request.
    #[error("zixt-hsmd answered something else than was asked")]
    Unexpected,
}

impl ClientError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Custody(error) => error.code(),
            Self::Connect { .. } => "custody-unreachable",
            Self::Frame(_) => "custody-connection",
            Self::Codec(_) | Self::Unexpected => "custody-protocol",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Custody(error) => error.advice(),
            Self::Connect { .. } => "Start zixt-hsmd, or correct the path of its socket.",
            Self::Frame(_) => "zixt-hsmd stopped or is overloaded: look at its log.",
            Self::Codec(_) | Self::Unexpected => "Compare the versions of zixt-hsmd and of this program.",
        }
    }
}
