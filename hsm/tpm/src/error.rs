//! What can go wrong with a TPM, and how the response codes of the TPM and of the software stack map to it.

use bitfield::BitRange;
use tss_esapi::Error;
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind as Kind};
use zixt_measured::ApprovalError;

/// Why the TPM did not do what was asked. [`TpmError::advice`] says what a person can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// There is no TPM at the configured place, or the connection to it broke.
    #[error("no TPM answers at {tcti}: {why}")]
    TpmAbsent {
        /// The configured TCTI.
        tcti: String,
        /// What the software stack said.
        why: String,
    },
    /// The TPM took a command and did not answer in time.
    #[error("the TPM did not answer within {seconds} seconds")]
    NoAnswer {
        /// How long was waited.
        seconds: u64,
    },
    /// The thread that owns the TPM has ended.
    #[error("the thread that owns the TPM has ended")]
    OwnerGone,
    /// The TPM's dictionary-attack counter is full; it takes no PIN, right or wrong.
    #[error("the TPM is in lockout; it takes a try again in at most {wait_s} seconds")]
    Lockout {
        /// Seconds of running time after which the TPM forgives one wrong try, at most.
        wait_s: u64,
    },
    /// One try is left before lockout. It is never used up by this program.
    #[error("the TPM has one try left before lockout; it regains one in at most {wait_s} seconds")]
    LastTry {
        /// Seconds of running time after which the TPM forgives one wrong try, at most.
        wait_s: u64,
    },
    /// Half of the tries are gone; what is left is for people.
    #[error("{left} of {max} tries are left; they are not used unattended")]
    KeptForPeople {
        /// Tries left.
        left: u32,
        /// Tries that the TPM allows.
        max: u32,
    },
    /// The TPM refused the PIN.
    #[error("the TPM refused the PIN; {tries_left} tries are left before lockout")]
    PinIncorrect {
        /// Tries left.
        tries_left: u32,
    },
    /// Empty or longer than any PIN.
    #[error("a PIN has 1 to {max} bytes, this one has {got}")]
    PinUnusable {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The registers do not hold what the secret is sealed to. No try was spent.
    #[error(
        "the machine did not start the software that the secret is sealed to: registers {changed:?} differ"
    )]
    PcrMismatch {
        /// The registers that differ from the newest approved values.
        changed: Vec<u8>,
    },
    /// Nothing was measured into the registers, so that sealing to them protects nothing.
    #[error("nothing is measured into the registers {pcrs}: sealing to them would protect nothing")]
    PcrsUnmeasured {
        /// The selection.
        pcrs: String,
    },
    /// An approval of register values is not the policy key's, or is about something else.
    #[error("the approval of register values is refused: {0}")]
    ApprovalRefused(ApprovalError),
    /// The key at the storage key's place is not the one that was pinned.
    #[error("the TPM's storage key is not the pinned one: expected {expected}, found {found}")]
    SrkChanged {
        /// The pinned Name in hexadecimal.
        expected: String,
        /// The Name of what is there now.
        found: String,
    },
    /// There is no key at the storage key's place.
    #[error("the TPM holds no storage key at {handle:#010x}")]
    SrkMissing {
        /// Its persistent handle.
        handle: u32,
    },
    /// What the TPM answered was changed on its way, or comes from something else than the pinned TPM.
    #[error("the TPM's answer does not authenticate ({call})")]
    AnswerForged {
        /// The command.
        call: &'static str,
    },
    /// The TPM has an owner already, or the place of a key or counter is taken.
    #[error("the TPM is in use already: {what}")]
    AlreadyOwned {
        /// What is taken.
        what: String,
    },
    /// The owner, endorsement or lockout authorisation is not the TPM's.
    #[error("the TPM refused the authorisation ({call})")]
    AuthIncorrect {
        /// The command.
        call: &'static str,
    },
    /// The sealed secret was changed, or belongs to another TPM.
    #[error("the sealed secret does not open: {why}")]
    CorruptBlob {
        /// What does not fit.
        why: String,
    },
    /// The state is older than the TPM's counter says.
    #[error(
        "the state was rolled back: it was written at {recorded}, the TPM's counter stands at {anchored}"
    )]
    CounterRollback {
        /// The counter in the state.
        recorded: u64,
        /// The TPM's.
        anchored: u64,
    },
    /// The state is from further on than the TPM's counter, so the counter is not the one that it was written with.
    #[error(
        "the state was written at {recorded}, but the TPM's counter stands at {anchored}: it is another counter"
    )]
    CounterReplaced {
        /// The counter in the state.
        recorded: u64,
        /// The TPM's.
        anchored: u64,
    },
    /// The TPM holds no such counter, or something else in its place.
    #[error("the TPM holds no counter of ours at {index:#010x}")]
    CounterMissing {
        /// Its NV index.
        index: u32,
    },
    /// The TPM has no places for the keys of epochs, or something else is there.
    #[error("the TPM holds no wrapping key of ours at {index:#010x}")]
    EpochsMissing {
        /// Its NV index.
        index: u32,
    },
    /// What is to be opened was wrapped in an epoch whose key the TPM has erased.
    #[error("the root was rotated since, and the TPM has erased the wrapping key {epoch} of before")]
    EpochOver {
        /// The epoch's name in hexadecimal.
        epoch: String,
    },
    /// All session slots are taken.
    #[error("the TPM has no free session slot")]
    NoSessionSlots,
    /// All object slots are taken.
    #[error("the TPM has no room for another object")]
    NoObjectSlots,
    /// The protector is closed.
    #[error("the TPM protector is locked")]
    NotOpen,
    /// No random numbers.
    #[error("no random numbers from the operating system")]
    Random,
    /// The TPM lacks an algorithm or answers in a form that is not expected.
    #[error("the TPM cannot do {what}")]
    Unsupported {
        /// What is missing.
        what: String,
    },
    /// Anything else.
    #[error("the TPM failed: {call}: response code {code:#x}")]
    Failed {
        /// The command.
        call: &'static str,
        /// Response code with its layer (TPM 2.0 Library, Part 2, Section 6.6; TSS 2.0 Overview); 0 if the wrapper
        /// itself refused.
        code: u32,
    },
}

impl TpmError {
    /// What to do about it, for an officer.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::TpmAbsent { .. } => {
                "Is the TPM enabled in the firmware's set-up? Is /dev/tpmrm0 there, and may this user read and write it? \
                 Use another protector meanwhile."
            }
            Self::NoAnswer { .. } | Self::OwnerGone => {
                "Restart the custody daemon; if it happens again, power the machine off completely and on again."
            }
            Self::Lockout { .. } | Self::LastTry { .. } => {
                "Leave the machine switched on and wait: the TPM forgives wrong tries one by one. An officer who has the \
                 lockout authorisation can end it at once. Somebody tried wrong PINs: find out who."
            }
            Self::KeptForPeople { .. } => "A person has to enter the PIN. Find out who tried wrong PINs.",
            Self::PinIncorrect { .. } => "Check the PIN before the next try; the TPM counts them.",
            Self::PinUnusable { .. } => "Choose another PIN.",
            Self::PcrMismatch { .. } => {
                "Was firmware, its Secure Boot keys or the image updated? Then install the approval that came with the \
                 update, or start the former image. If nothing was updated, treat the machine as tampered with and use \
                 another protector."
            }
            Self::PcrsUnmeasured { .. } => {
                "Enable measured boot in the firmware's set-up and start the machine through the signed image."
            }
            Self::ApprovalRefused(_) => "Get the approval again from those who sign images.",
            Self::SrkChanged { .. } | Self::SrkMissing { .. } => {
                "The TPM was cleared or exchanged, or something sits between it and the processor. Do not enter the PIN. \
                 Use another protector and provision the TPM anew."
            }
            Self::AnswerForged { .. } => {
                "Something sits between the processor and the TPM, or the TPM was exchanged. Do not enter the PIN again \
                 before the machine was inspected."
            }
            Self::AlreadyOwned { .. } => {
                "Clear the TPM in the firmware's set-up, or release it with its authorisations; everything sealed in it \
                 is lost then."
            }
            Self::AuthIncorrect { .. } => {
                "Use the authorisations that were handed out when this TPM was provisioned."
            }
            Self::CorruptBlob { .. } => {
                "Restore the custody state from a backup of this machine, or use another protector."
            }
            Self::CounterRollback { .. } | Self::CounterReplaced { .. } | Self::CounterMissing { .. } => {
                "Keys stay unused until officers decide: the state was restored, or somebody put an old one in its place."
            }
            Self::EpochsMissing { .. } => {
                "The TPM was changed by somebody who has its owner authorisation. Use another protector, and remove this one."
            }
            Self::EpochOver { .. } => {
                "This is a state from before a rotation, and is not to be opened any more. Restore the newest one."
            }
            Self::NoSessionSlots | Self::NoObjectSlots => {
                "Another program holds the TPM's slots. Use /dev/tpmrm0, not /dev/tpm0; restarting the machine frees them."
            }
            Self::NotOpen => "Unlock it with the PIN.",
            Self::Random => "Restart the machine.",
            Self::Unsupported { .. } => "This TPM cannot be a protector; use a PKCS#11 token.",
            Self::Failed { .. } => {
                "Restart the custody daemon; if it happens again, keep the log for support."
            }
        }
    }

    /// Whether the connection is of no use any more.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::TpmAbsent { .. } | Self::AnswerForged { .. } => true,
            // Below the TPM's own codes something is wrong with the stack's state.
            Self::Failed { code, .. } => layer(*code) != LAYER_TPM,
            _ => false,
        }
    }
}

impl From<zixt_crypto::RandomError> for TpmError {
    fn from(_: zixt_crypto::RandomError) -> Self {
        Self::Random
    }
}

/// Layers of response codes (TSS 2.0 Overview, Section 3.2).
const LAYER_TPM: u32 = 0;
const LAYER_ESYS: u32 = 7;
const LAYER_TCTI: u32 = 10;
/// The kernel's resource manager answers with the TPM's codes in layers of its own.
const LAYER_RESOURCE_MANAGER: [u32; 2] = [11, 12];
const BASE_RSP_AUTH_FAILED: u32 = 27;

fn layer(code: u32) -> u32 {
    code >> 16 & 0xFF
}

/// The number of a response code, which the wrapper only prints.
fn code(error: Error) -> u32 {
    match error {
        Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.bit_range(31, 0),
        Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.bit_range(31, 0),
        _ => 0,
    }
}

/// What the TPM itself said, if it was the TPM.
pub(crate) fn kind(error: Error) -> Option<Kind> {
    let code = code(error);
    let from_tpm = layer(code) == LAYER_TPM || LAYER_RESOURCE_MANAGER.contains(&layer(code));
    match error {
        Error::Tss2Error(code) if from_tpm => code.kind(),
        _ => None,
    }
}

/// The error of a command, where no other reading fits better.
pub(crate) fn of(call: &'static str) -> impl Fn(Error) -> TpmError {
    move |error| of_code(call, code(error), kind(error))
}

/// [`of`] for a number.
pub(crate) fn of_code(call: &'static str, code: u32, kind: Option<Kind>) -> TpmError {
    match kind {
        Some(Kind::Lockout) => TpmError::Lockout { wait_s: 0 },
        Some(Kind::SessionMemory | Kind::SessionHandles | Kind::TooManyContexts) => TpmError::NoSessionSlots,
        Some(Kind::ObjectMemory | Kind::ObjectHandles) => TpmError::NoObjectSlots,
        Some(Kind::AuthFail | Kind::BadAuth) => TpmError::AuthIncorrect { call },
        _ if layer(code) == LAYER_TCTI => {
            TpmError::TpmAbsent { tcti: String::new(), why: format!("{call}: response code {code:#x}") }
        }
        _ if layer(code) == LAYER_ESYS && code & 0xFFFF == BASE_RSP_AUTH_FAILED => {
            TpmError::AnswerForged { call }
        }
        _ => TpmError::Failed { call, code },
    }
}

/// A value of our own that the wrapper refuses, or one of the TPM that it does not know.
pub(crate) fn unexpected(what: &'static str) -> impl Fn(Error) -> TpmError {
    move |_| TpmError::Unsupported { what: what.to_owned() }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
