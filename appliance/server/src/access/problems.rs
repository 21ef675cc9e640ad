//! What refusals of `zixt-identity` are to a caller.

use zixt_api::{ErrorCode, Problem};
use zixt_identity::{
    AccountError, ChangeError, ChooseError, Forbidden, GiveShareError, Locked, RecoveryError, RotateError,
    Unavailable,
};
use zixt_types::Timestamp;

/// Told to everybody whose request shows no open session, whatever is wrong with it.
pub(crate) fn sign_in_needed() -> Problem {
    Problem::new(ErrorCode::SignInNeeded, "the request shows no open session of this connection")
}

/// Told to everybody whose proof was not taken. The reason is for the audit record.
pub(super) fn refused() -> Problem {
    Problem::new(ErrorCode::SignInRefused, zixt_identity::Step::REFUSED)
}

pub(super) fn locked(locked: Locked, wall: Timestamp) -> Problem {
    match locked.until {
        Some(until) => {
            let seconds = super::seconds_until(wall, until);
            let mut problem =
                Problem::new(ErrorCode::SignInLocked, format!("another try is looked at in {seconds} s"));
            problem.retry_after = Some(seconds);
            problem
        }
        None => Problem::new(ErrorCode::SignInLocked, "only somebody who is in can lift the lock"),
    }
}

pub(super) fn unavailable(why: Unavailable) -> Problem {
    Problem::new(ErrorCode::SignInUnavailable, why.to_string())
}

pub(crate) fn of_forbidden(error: Forbidden) -> Problem {
    let code = match error {
        Forbidden::Role(_)
        | Forbidden::VouchedOnly(_)
        | Forbidden::DirectoryMayNot(_)
        | Forbidden::OtherAccount => ErrorCode::Forbidden,
        Forbidden::NeedsCeremony => ErrorCode::NeedsCeremony,
        Forbidden::Ended => return sign_in_needed(),
        Forbidden::NotRecent => ErrorCode::SignInNotRecent,
    };
    Problem::new(code, error.to_string())
}

pub(super) fn of_account(error: AccountError) -> Problem {
    let code = match error {
        AccountError::Forbidden(error) => return of_forbidden(error),
        AccountError::OwnAccount => ErrorCode::OwnAccount,
        AccountError::LastOf(_) => ErrorCode::LastOfRole,
        AccountError::WrongCode | AccountError::Expired => ErrorCode::CodeRefused,
        AccountError::LinkNeedsOwner => ErrorCode::Forbidden,
        AccountError::Status { .. }
        | AccountError::Lifetime
        | AccountError::NotLinked
        | AccountError::SuspendedByOthers
        | AccountError::Links => ErrorCode::AccountStatusWrong,
    };
    Problem::new(code, error.to_string())
}

pub(super) fn of_change(error: ChangeError) -> Problem {
    match error {
        ChangeError::Forbidden(error) => of_forbidden(error),
        ChangeError::NotConfirmed | ChangeError::WebAuthn | ChangeError::NoSuchCredential => {
            Problem::new(ErrorCode::NotEnrolled, error.to_string())
        }
    }
}

pub(super) fn of_choice(error: &ChooseError) -> Problem {
    let code = match error {
        ChooseError::TooShort { .. } | ChooseError::Blocked(_) => ErrorCode::PasswordRefused,
        ChooseError::Random(_) | ChooseError::Derive(_) => ErrorCode::SignInUnavailable,
    };
    Problem::new(code, error.to_string())
}

pub(super) fn of_recovery(error: RecoveryError) -> Problem {
    let code = match error {
        RecoveryError::Forbidden(error) => return of_forbidden(error),
        RecoveryError::Account(error) => return of_account(error),
        RecoveryError::OwnAccount => ErrorCode::OwnAccount,
        RecoveryError::SamePerson
        | RecoveryError::Requester
        | RecoveryError::OtherAccount
        | RecoveryError::Expired
        | RecoveryError::Changed => ErrorCode::RecoveryRefused,
        RecoveryError::Random(_) => ErrorCode::SignInUnavailable,
    };
    Problem::new(code, error.to_string())
}

pub(super) fn of_share(error: GiveShareError) -> Problem {
    match error {
        GiveShareError::Forbidden(error) => of_forbidden(error),
        GiveShareError::TooOften { .. } => Problem::new(ErrorCode::VaultShareSpent, error.to_string()),
    }
}

pub(super) fn of_rotation(error: RotateError) -> Problem {
    match error {
        RotateError::Ended => sign_in_needed(),
        RotateError::Random(error) => Problem::new(ErrorCode::SignInUnavailable, error.to_string()),
    }
}
