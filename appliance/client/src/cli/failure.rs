//! Which exit code a fault of the client ends with, and what the person is told.

use super::exit::{Exit, Failure};
use zixt_client::connection::ConnectionError;
use zixt_client::store::StoreError;
use zixt_client::{Advice, ClientError};
use zixt_crypto::selftest::SelfTestError;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(problem) => Some(problem.code.code().to_owned()),
            _ => None,
        };
        let what = match &error {
            // The title is the advice; what happened this time is the detail.
            ClientError::Refused(problem) if !problem.detail.is_empty() => {
                format!("the appliance refused: {} ({})", problem.detail, problem.code)
            }
            ClientError::Refused(problem) => format!("the appliance refused: {}", problem.code),
            // A library's error does not repeat its source; a person needs it.
            ClientError::Store(StoreError::Database(source)) => format!("the local store failed: {source}"),
            other => other.to_string(),
        };
        Self { exit: exit_of(&error), code, what, advice: advice_of(&error).to_owned() }
    }
}

impl From<SelfTestError> for Failure {
    fn from(error: SelfTestError) -> Self {
        Self::new(
            Exit::Internal,
            format!("{error}; nothing was done"),
            "The program or the machine is damaged: install it again, or use another machine.",
        )
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Store(StoreError::WrongPassphrase) => Exit::WrongPassphrase,
        ClientError::Store(StoreError::Absent(_) | StoreError::Exists(_)) => Exit::Account,
        ClientError::Store(StoreError::InUse) => Exit::InUse,
        ClientError::Store(StoreError::Altered { .. }) => Exit::Trust,
        ClientError::Store(_) | ClientError::File { .. } => Exit::Disk,
        ClientError::Refused(_) => match error.kind() {
            Advice::Alarm => Exit::Trust,
            Advice::Wait => Exit::Away,
            _ => Exit::Refused,
        },
        ClientError::NoKeys(_) | ClientError::Removed | ClientError::Invitation(_) => Exit::Refused,
        _ => match error.kind() {
            Advice::Usage => Exit::Usage,
            Advice::Wait => Exit::Away,
            Advice::Local => Exit::Disk,
            Advice::Administrator => Exit::Refused,
            Advice::Alarm => Exit::Trust,
            Advice::Fault => Exit::Internal,
        },
    }
}

fn advice_of(error: &ClientError) -> &'static str {
    match error {
        ClientError::Store(StoreError::Exists(_)) => {
            "Use another folder (--store DIR), or go on with the account that is there: zixt whoami"
        }
        ClientError::Store(StoreError::Absent(_)) => {
            "Run: zixt enrol INVITATION  (or name its folder with --store)"
        }
        // The message says it already.
        ClientError::Store(StoreError::InUse | StoreError::DiskFull | StoreError::NewerSchema { .. }) => "",
        ClientError::Store(StoreError::Database(_)) => {
            "Check the disk and the folder's permissions, then try again. Nothing that was confirmed is lost."
        }
        ClientError::Connection(ConnectionError::Unreachable { .. } | ConnectionError::Timeout) => {
            "Check the network, or wait until an administrator has started it. `zixt read` works without it, and \
             `zixt send --queue` keeps a message until it returns."
        }
        other => other.advice(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use zixt_api::{ErrorCode, Problem};
    use zixt_client::store::Space;
    use zixt_client::trust::TrustError;
    use zixt_types::{AccountId, DeviceId, Member, Seq};

    #[test]
    fn each_failure_has_its_exit_code() {
        let refused = |code| ClientError::from(Problem::new(code, "detail"));
        let member = Member { account: AccountId([1; 16]), device: DeviceId([2; 16]) };
        let unreachable = ConnectionError::Unreachable { address: "a:1".into(), reason: "refused".into() };
        for (error, exit) in [
            (ClientError::Store(StoreError::WrongPassphrase), Exit::WrongPassphrase),
            (ClientError::Store(StoreError::Absent(PathBuf::new())), Exit::Account),
            (ClientError::Store(StoreError::Exists(PathBuf::new())), Exit::Account),
            (ClientError::Store(StoreError::InUse), Exit::InUse),
            (ClientError::Store(StoreError::DiskFull), Exit::Disk),
            (ClientError::Store(StoreError::Altered { space: Space::Fact }), Exit::Trust),
            (ClientError::Connection(unreachable), Exit::Away),
            (ClientError::Connection(ConnectionError::WrongKey), Exit::Trust),
            (ClientError::Connection(ConnectionError::Protocol("x".into())), Exit::Internal),
            (refused(ErrorCode::Busy), Exit::Away),
            (refused(ErrorCode::CustodyLocked), Exit::Refused),
            (refused(ErrorCode::CallerRevoked), Exit::Refused),
            (refused(ErrorCode::StaleEpoch), Exit::Refused),
            (refused(ErrorCode::InvitationUsed), Exit::Refused),
            (refused(ErrorCode::InvitationExpired), Exit::Refused),
            (refused(ErrorCode::CounterReplayed), Exit::Trust),
            (ClientError::Blocked("fork".into()), Exit::Trust),
            (ClientError::UnknownPerson("x".into()), Exit::Usage),
            (ClientError::NoKeys("x".into()), Exit::Refused),
            (ClientError::Evidence("x".into()), Exit::Internal),
            (TrustError::Evidence("x".into()).into(), Exit::Trust),
            (TrustError::Withheld { from: Seq(1), upto: Seq(2) }.into(), Exit::Trust),
            (TrustError::KeyPackage { member, reason: "x".into() }.into(), Exit::Trust),
            (TrustError::FalseRefusal { code: "stale-epoch".into(), reason: "x".into() }.into(), Exit::Trust),
        ] {
            let text = error.to_string();
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit, "{text}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_and_says_what_to_do() {
        let failure = Failure::from(ClientError::from(Problem::new(ErrorCode::InvitationUsed, "ada")));
        assert_eq!(failure.code.as_deref(), Some("invitation-used"));
        assert!(failure.advice.contains("tell an administrator at once"), "{failure}");
        let document = failure.to_json();
        assert_eq!(document["error"]["exit"], 5);
        assert_eq!(document["error"]["code"], "invitation-used");
    }
}
