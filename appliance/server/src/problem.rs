//! Where every error of the server becomes a code of the API. Nothing else chooses one.

use crate::sequencer::Unrecorded;
use crate::view::ProofFault;
use zixt_api::{CustodyState, ErrorCode, Problem};
use zixt_ceremony::CeremonyError;
use zixt_ledger::{Refusal, SubmissionError};
use zixt_storage::{PutKeyPackagesError, PutNameError, StoreError};
use zixt_types::ParseError;

pub(crate) fn of_submission(error: &SubmissionError) -> Problem {
    let code = match error {
        SubmissionError::Body(parse) => of_parse(parse),
        SubmissionError::AttachmentCount { .. } => ErrorCode::AttachmentCount,
        SubmissionError::AttachmentTooLong { .. } => ErrorCode::AttachmentTooLong,
        SubmissionError::AttachmentDigest { .. } => ErrorCode::AttachmentDigest,
        SubmissionError::DeviceId => ErrorCode::DeviceIdMismatch,
        SubmissionError::Possession => ErrorCode::PossessionMissing,
        SubmissionError::SignatureLength { .. } => ErrorCode::SignatureLength,
        SubmissionError::KeyUnknown(_) => ErrorCode::KeyUnknown,
        SubmissionError::Signature(_) => ErrorCode::BadSignature,
        SubmissionError::PossessionSignature(_) => ErrorCode::BadPossession,
        SubmissionError::Transcript(_) => ErrorCode::TranscriptMalformed,
        SubmissionError::Approvals(_) => ErrorCode::NotApproved,
    };
    Problem::new(code, error.to_string())
}

const fn of_parse(error: &ParseError) -> ErrorCode {
    match error {
        ParseError::TooLong { .. } => ErrorCode::BodyTooLong,
        ParseError::Malformed { .. } => ErrorCode::BodyMalformed,
        ParseError::NotCanonical { .. } => ErrorCode::BodyNotCanonical,
        ParseError::TooDeep { .. } => ErrorCode::BodyTooDeep,
        ParseError::UnknownVersion { .. } => ErrorCode::UnknownVersion,
        ParseError::UnknownSuite { .. } => ErrorCode::UnknownSuite,
        ParseError::Invalid { .. } => ErrorCode::BodyInvalid,
    }
}

pub(crate) fn of_refusal(refusal: &Refusal) -> Problem {
    let code = match refusal {
        Refusal::WrongGenesis => ErrorCode::WrongGenesis,
        Refusal::SuiteNotAllowed => ErrorCode::SuiteNotAllowed,
        Refusal::UnknownThread => ErrorCode::UnknownThread,
        Refusal::UnknownAccount => ErrorCode::UnknownAccount,
        Refusal::AccountExists => ErrorCode::AccountExists,
        Refusal::WrongThread => ErrorCode::WrongThread,
        Refusal::NotAMember => ErrorCode::NotAMember,
        Refusal::UnknownDevice => ErrorCode::UnknownDevice,
        Refusal::DeviceRevoked => ErrorCode::DeviceRevoked,
        Refusal::DeviceExists => ErrorCode::DeviceExists,
        Refusal::TlsKeyInUse => ErrorCode::TlsKeyInUse,
        Refusal::TooManyDevices { .. } => ErrorCode::TooManyDevices,
        Refusal::TooManyDevicesEver { .. } => ErrorCode::TooManyDevicesEver,
        Refusal::UnknownEnroller => ErrorCode::UnknownEnroller,
        Refusal::InvitationUsed => ErrorCode::InvitationUsed,
        Refusal::InvitationExpired { .. } => ErrorCode::InvitationExpired,
        Refusal::InvitationKey => ErrorCode::InvitationKey,
        Refusal::CounterReplayed { .. } => ErrorCode::CounterReplayed,
        Refusal::CounterGap { .. } => ErrorCode::CounterGap,
        Refusal::MessageIdInUse => ErrorCode::MessageIdConflict,
        Refusal::StaleEpoch { .. } => ErrorCode::StaleEpoch,
        Refusal::NobodyAdded => ErrorCode::NobodyAdded,
        Refusal::AlreadyAMember(_) => ErrorCode::AlreadyAMember,
        Refusal::RemovedNobody(_) => ErrorCode::RemovedNobody,
        Refusal::RemovedSelf => ErrorCode::RemovedSelf,
        Refusal::AddedInactive(_) => ErrorCode::AddedInactive,
        Refusal::GroupTooLarge { .. } => ErrorCode::GroupTooLarge,
        Refusal::OtherHistory => ErrorCode::OtherHistory,
        Refusal::UnknownAppliance(_) => ErrorCode::UnknownAppliance,
        Refusal::DecisionReplayed { .. } => ErrorCode::DecisionReplayed,
        Refusal::NotThePresentKey { .. } => ErrorCode::NotThePresentKey,
        Refusal::KeyUsedBefore(_) => ErrorCode::KeyUsedBefore,
        Refusal::SoftwareKey => ErrorCode::SoftwareKey,
    };
    let mut problem = Problem::new(code, refusal.to_string());
    match refusal {
        Refusal::CounterReplayed { expected, .. } | Refusal::CounterGap { expected, .. } => {
            problem.expected = Some(*expected);
        }
        Refusal::StaleEpoch { current, since, .. } => {
            problem.expected = Some(current.0);
            problem.since = Some(since.0);
        }
        _ => {}
    }
    problem
}

pub(crate) fn of_unrecorded(why: &Unrecorded) -> Problem {
    match why {
        Unrecorded::Refused(refusal) => of_refusal(refusal),
        Unrecorded::NotTried => {
            Problem::new(ErrorCode::Busy, "an entry before it was refused, so it was not tried")
        }
        Unrecorded::Undone => {
            Problem::new(ErrorCode::Busy, "the height that it was tried for came to nothing; try again")
        }
        Unrecorded::Busy => Problem::new(ErrorCode::Busy, "too many entries wait for their height"),
        Unrecorded::Custody(state) => of_custody(*state),
        Unrecorded::StoreFailed => {
            Problem::new(ErrorCode::StoreFailed, "the height that holds the entry could not be stored yet")
        }
        Unrecorded::Stopped => Problem::new(ErrorCode::LedgerStopped, "nothing is recorded any more"),
        Unrecorded::ShuttingDown => Problem::new(ErrorCode::ShuttingDown, "the appliance is about to stop"),
    }
}

pub(crate) fn of_custody(state: CustodyState) -> Problem {
    match state {
        CustodyState::Locked => Problem::new(ErrorCode::CustodyLocked, "the custody daemon is locked"),
        CustodyState::AwaitingActivation => Problem::new(
            ErrorCode::AwaitingActivation,
            "the custody daemon has a consensus key that the ledger does not know yet",
        ),
        other => {
            Problem::new(ErrorCode::CustodyUnavailable, format!("the custody daemon is {}", describe(other)))
        }
    }
}

/// Why a transcript was not taken.
pub(crate) fn of_transcript(error: &CeremonyError) -> Problem {
    let code = match error {
        CeremonyError::Parse(_) => ErrorCode::TranscriptMalformed,
        CeremonyError::OtherNetwork { .. } => ErrorCode::WrongGenesis,
        _ => ErrorCode::NotApproved,
    };
    Problem::new(code, error.to_string())
}

pub(crate) const fn describe(state: CustodyState) -> &'static str {
    match state {
        CustodyState::Absent => "not running or cannot be reached",
        CustodyState::Unprovisioned => "not provisioned",
        CustodyState::Locked => "locked",
        CustodyState::Operational => "busy or has just changed its state",
        CustodyState::AwaitingActivation => {
            "using a consensus key that the ledger does not know yet; record the officers' decision with zixt-admin \
             decide"
        }
        CustodyState::Quarantined => "quarantined until officers decide",
        CustodyState::Failed => "broken",
    }
}

pub(crate) fn of_store(error: &StoreError) -> Problem {
    // What exactly is wrong with the store is for the administrator's eyes.
    log::error!("store: {}", crate::logging::chain(error));
    Problem::new(ErrorCode::StoreFailed, "the store did not answer as it should")
}

/// Of one attachment, whose entry was read. What is wrong with it concerns nothing else.
pub(crate) fn of_attachment(error: &StoreError) -> Problem {
    match error {
        StoreError::Corrupt { .. } => {
            log::error!("store: {error}");
            Problem::new(ErrorCode::AttachmentDamaged, "it is not what its entry names")
        }
        other => of_store(other),
    }
}

pub(crate) fn of_proof(fault: &ProofFault) -> Problem {
    match fault {
        ProofFault::Absent => Problem::new(ErrorCode::UnknownHeight, fault.to_string()),
        ProofFault::Store(error) => of_store(error),
        // What is on record and cannot be proven is the store's fault, never the caller's.
        ProofFault::Misplaced { .. } | ProofFault::Node(_) => {
            log::error!("proof: {fault}");
            Problem::new(ErrorCode::StoreFailed, "a proof cannot be built")
        }
    }
}

pub(crate) fn of_key_packages(error: &PutKeyPackagesError) -> Problem {
    match error {
        PutKeyPackagesError::TooMany { .. } => Problem::new(ErrorCode::TooManyKeyPackages, error.to_string()),
        PutKeyPackagesError::TooLong { .. } => Problem::new(ErrorCode::KeyPackageTooLong, error.to_string()),
        PutKeyPackagesError::Store(error) => of_store(error),
    }
}

pub(crate) fn of_name(error: &PutNameError) -> Problem {
    match error {
        PutNameError::Taken(_) => Problem::new(ErrorCode::NameTaken, "the name is taken"),
        PutNameError::Store(error) => of_store(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client gives a message up, or accuses the appliance, only by what is final.
    #[test]
    fn only_the_ledgers_own_word_is_final() {
        assert!(of_unrecorded(&Unrecorded::Refused(Refusal::NotAMember)).code.is_final());
        for why in [
            // The height that it rests on came to nothing.
            Unrecorded::Undone,
            Unrecorded::NotTried,
            Unrecorded::Busy,
            Unrecorded::Custody(CustodyState::Locked),
            Unrecorded::StoreFailed,
            Unrecorded::Stopped,
            Unrecorded::ShuttingDown,
        ] {
            assert!(!of_unrecorded(&why).code.is_final(), "{why:?}");
        }
        assert_eq!(of_unrecorded(&Unrecorded::Undone).code, ErrorCode::Busy);
    }
}
