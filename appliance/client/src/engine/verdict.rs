//! What a fault means that was found while an event of the stream was handled: the one table of what moves the cursor.
//!
//! | fault | conversation | cursor | why |
//! |---|---|---|---|
//! | a member's bare claim (`stops_its_conversation` is false) | goes on | moves | any member can sign it |
//! | a lie about, or in, one conversation | stops | moves | the others are not concerned |
//! | the appliance refuses what belongs to an entry that it announced | stops | moves | it withholds something |
//! | this device's own state of the conversation does not work | stops | moves | the next attempt finds the same |
//! | the appliance says that what belongs to an entry is damaged | stops | moves | the others are not concerned |
//! | the appliance does not take a question as it was asked | stops | moves | the next attempt asks the same |
//! | a lie about the whole ledger | all wait | stays | with an honest answer everything goes on |
//! | the connection, a busy appliance, the local store, too much asked at once | all wait | stays | it passes, or the user has to act |
//!
//! So no single entry, whoever wrote it, can hold up what comes after it.

use super::with_sources;
use crate::error::ClientError;
use crate::trust::TrustError;
use zixt_api::ErrorCode;
use zixt_types::Seq;

/// What has to happen.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The conversation stops, if the fault asks for it, and the cursor moves.
    Conversation(Box<TrustError>),
    /// Nothing that the appliance says can be relied on. The cursor stays.
    Everything(ClientError),
    /// The same event may be handled well later. The cursor stays.
    Later(ClientError),
}

/// The verdict on a fault that was found at entry `seq` of a conversation.
pub(super) fn of(error: ClientError, seq: Seq) -> Verdict {
    match error {
        ClientError::Trust(fault) if fault.is_ledger_wide() => Verdict::Everything(ClientError::Trust(fault)),
        ClientError::Trust(fault) => Verdict::Conversation(fault),
        // About this device, or all that it knows of the ledger, whatever the entry is.
        ClientError::Refused(problem)
            if matches!(
                problem.code,
                ErrorCode::CallerRevoked
                    | ErrorCode::UnknownCaller
                    | ErrorCode::TooManyItems
                    | ErrorCode::SignInLocked
            ) =>
        {
            Verdict::Later(ClientError::Refused(problem))
        }
        // A fault of one of the two programs. Nothing is withheld.
        ClientError::Refused(problem)
            if matches!(problem.code, ErrorCode::MalformedRequest | ErrorCode::RequestTooLarge) =>
        {
            Verdict::Conversation(Box::new(TrustError::Unusable { seq, reason: problem.to_string() }))
        }
        ClientError::Refused(problem) if problem.code == ErrorCode::AttachmentDamaged => {
            Verdict::Conversation(Box::new(TrustError::Damaged(seq)))
        }
        // Who gets an event may read what belongs to it.
        ClientError::Refused(problem) if problem.code.is_final() => {
            log::warn!("entry {seq} was announced, and what belongs to it is refused: {problem}");
            Verdict::Conversation(Box::new(TrustError::Withheld { from: seq, upto: seq }))
        }
        ClientError::Refused(_)
        | ClientError::MoreFactors(_)
        | ClientError::Relayed(_)
        | ClientError::Connection(_)
        | ClientError::Moving
        | ClientError::Store(_)
        | ClientError::File { .. } => Verdict::Later(error),
        error => Verdict::Conversation(Box::new(TrustError::Unusable { seq, reason: with_sources(&error) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ConnectionError;
    use crate::store::StoreError;
    use zixt_api::Problem;
    use zixt_types::Height;

    fn refused(code: ErrorCode) -> ClientError {
        Problem::new(code, "x").into()
    }

    #[test]
    fn only_what_passes_or_concerns_everything_holds_the_cursor() {
        let seq = Seq(3);
        for error in [ConnectionError::Timeout.into(), ClientError::Store(StoreError::DiskFull)] {
            let text = ClientError::to_string(&error);
            assert!(matches!(of(error, seq), Verdict::Later(_)), "{text}");
        }
        let wide = TrustError::OtherHeader(Height(1)).into();
        assert!(matches!(of(wide, seq), Verdict::Everything(_)));
        for (error, code) in [
            (TrustError::OtherEntry(seq).into(), "other-entry"),
            (ClientError::Messaging("damaged".into()), "unusable"),
            (ClientError::Removed, "unusable"),
        ] {
            let Verdict::Conversation(fault) = of(error, seq) else { panic!("{code} holds the cursor") };
            assert_eq!(fault.code(), code);
        }
    }

    /// Whoever adds a code decides here what it means.
    #[test]
    fn every_code_has_a_verdict() {
        const LATER: &[ErrorCode] = &[
            ErrorCode::UnknownEndpoint,
            ErrorCode::MethodNotAllowed,
            ErrorCode::RequestTimeout,
            ErrorCode::TooManyItems,
            ErrorCode::UnknownCaller,
            ErrorCode::CallerRevoked,
            ErrorCode::SignInNeeded,
            ErrorCode::SignInRefused,
            ErrorCode::SignInLocked,
            ErrorCode::UnknownSignIn,
            ErrorCode::SignInUnavailable,
            ErrorCode::SignInNotRecent,
            ErrorCode::VaultShareSpent,
            ErrorCode::TooManyRequests,
            ErrorCode::Busy,
            ErrorCode::CustodyLocked,
            ErrorCode::CustodyUnavailable,
            ErrorCode::AwaitingActivation,
            ErrorCode::Starting,
            ErrorCode::ShuttingDown,
            ErrorCode::SlowConsumer,
            ErrorCode::TooManyStreams,
            ErrorCode::StoreFailed,
            ErrorCode::AuditUnavailable,
            ErrorCode::LedgerStopped,
            ErrorCode::Unknown,
        ];
        const UNUSABLE: &[ErrorCode] = &[ErrorCode::MalformedRequest, ErrorCode::RequestTooLarge];
        for code in ErrorCode::ALL.iter().chain(&[ErrorCode::Unknown]) {
            match of(refused(*code), Seq(3)) {
                Verdict::Later(_) => assert!(LATER.contains(code), "{code} holds the cursor"),
                Verdict::Conversation(fault) => {
                    let expected = match code {
                        ErrorCode::AttachmentDamaged => "damaged",
                        code if UNUSABLE.contains(code) => "unusable",
                        _ => "withheld",
                    };
                    assert_eq!(fault.code(), expected, "{code}");
                    assert!(!LATER.contains(code), "{code} does not hold the cursor");
                }
                Verdict::Everything(_) => panic!("{code} is no lie about the ledger"),
            }
        }
    }
}
