//! The one error map: every refusal of the appliance has a stable code, one HTTP status and one piece of advice.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// The media type of [`Problem`] (RFC 9457).
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// Defines the codes and everything about them from one table.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $code:tt, $status:literal, $title:literal;)*) => {
        /// A stable code for each way in which a request can fail. Codes are never renamed; a client treats one that
        /// it does not know by the HTTP status.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
            /// A code of a newer appliance.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it stands in JSON.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* Self::Unknown => "unknown" }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let number = match self { $(Self::$name => $status,)* Self::Unknown => 500 };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// What happened and what to do, for people.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $title,)* Self::Unknown => "The appliance is newer than this program; update it." }
            }
        }
    };
}

codes! {
    // The request itself
    /// The request is not what the endpoint takes.
    MalformedRequest, "malformed-request", 400, "The request is malformed. This is a fault of the client program.";
    /// No such endpoint.
    UnknownEndpoint, "unknown-endpoint", 404, "This appliance has no such endpoint. Check that client and appliance have matching versions.";
    /// The endpoint exists, but not with this method.
    MethodNotAllowed, "method-not-allowed", 405, "The endpoint does not take this method.";
    /// The body is larger than the endpoint takes.
    RequestTooLarge, "request-too-large", 413, "The request is larger than allowed. Send less at once.";
    /// The request did not arrive in time.
    RequestTimeout, "request-timeout", 408, "The request did not arrive completely in time. Try again.";
    /// More items than the endpoint takes.
    TooManyItems, "too-many-items", 400, "The request has more items than allowed. Split it.";
    /// A submission's entries are for several threads.
    MixedThreads, "mixed-threads", 400, "Entries of one request must all be for the same thread.";

    // Who asks
    /// The connection's key is no device of the ledger.
    UnknownCaller, "unknown-caller", 401, "This device is not enrolled here. Enrol it with an invitation.";
    /// The connection's device was revoked.
    CallerRevoked, "caller-revoked", 403, "This device was revoked. Ask an administrator or use another device.";
    /// The caller may not see or do this.
    Forbidden, "forbidden", 403, "The caller may not do this.";
    /// The body was signed by another device than the one that sends it.
    AuthorMismatch, "author-mismatch", 403, "The entry was signed by another device than the one that sends it.";
    /// The endpoint takes only some kinds of entries.
    WrongKind, "wrong-kind", 400, "This kind of entry is handed in elsewhere.";

    // Sign-in
    /// The request shows no session that is open on this connection.
    SignInNeeded, "sign-in-needed", 401, "Sign in first, or again: there is no open session here.";
    /// The proof was not taken.
    SignInRefused, "sign-in-refused", 401, "The sign-in was refused.";
    /// Too many failed attempts.
    SignInLocked, "sign-in-locked", 429, "There were too many failed attempts. Wait, or ask an administrator to lift the lock.";
    /// No such sign-in is under way.
    UnknownSignIn, "unknown-sign-in", 404, "This sign-in is over. Begin it again.";
    /// A proof cannot be looked at now.
    SignInUnavailable, "sign-in-unavailable", 503, "The appliance cannot check this now. Try again in a moment, or sign in another way.";
    /// What is asked for needs a recent sign-in.
    SignInNotRecent, "sign-in-not-recent", 403, "This needs a sign-in of the last 15 minutes. Sign in again.";
    /// Officers have to decide it.
    NeedsCeremony, "needs-ceremony", 403, "No single person may do this: it takes a decision of the security officers.";
    /// Nobody does this to themselves.
    OwnAccount, "own-account", 409, "Nobody may do this to their own account.";
    /// The appliance would be left without anybody in a role.
    LastOfRole, "last-of-role", 409, "The appliance would be left without anybody in a role that it cannot do without.";
    /// The account stands elsewhere than it would have to.
    AccountStatusWrong, "account-status", 409, "The account does not stand where it would have to for this.";
    /// The roles cannot be had together.
    RolesInvalid, "roles-invalid", 400, "These roles are none, or exclude each other.";
    /// The password is too short or one that is tried first.
    PasswordRefused, "password-refused", 400, "The password is too short, or one that is tried first. Choose another.";
    /// A code is wrong.
    CodeRefused, "code-refused", 400, "The code is wrong, was used before, or has expired.";
    /// The account has no such factor, or it is not confirmed.
    NotEnrolled, "not-enrolled", 409, "The account has no such factor.";
    /// No such session.
    UnknownSession, "unknown-session", 404, "There is no such session, or it has ended.";
    /// No such request.
    UnknownRecovery, "unknown-recovery", 404, "There is no such request to recover an account.";
    /// The recovery is not possible.
    RecoveryRefused, "recovery-refused", 409, "The account cannot be recovered in this way. Ask for it anew.";
    /// No such directory or identity provider.
    UnknownDirectory, "unknown-directory", 404, "There is no such directory or identity provider here.";
    /// Nobody of this name is at the directory.
    UnknownPerson, "unknown-person", 404, "The directory has nobody of this name, as far as it was read.";
    /// A time that is probably a slip of the hand.
    ClockFar, "clock-far", 409, "The time is far from all clocks here. If it is right, say so.";
    /// The browser's answer is not taken.
    PasskeyRefused, "passkey-refused", 400, "The passkey was not taken. Begin again, on this appliance's own page.";
    /// A token cannot be like that.
    TokenRefused, "token-refused", 400, "A token cannot be like that.";
    /// Too many requests in a short time.
    TooManyRequests, "too-many-requests", 429, "Too many requests in a short time. Slow down.";
    /// Nothing is held back, or something else.
    NothingHeld, "nothing-held", 409, "This is not what is held back now. Look at the directory again.";
    /// The user keeps no vault here.
    UnknownVault, "unknown-vault", 404, "There is no vault of this account.";
    /// The vault is not the next one.
    VaultStale, "vault-stale", 409, "Another device has replaced the vault. Fetch it first.";
    /// The share was given out too often.
    VaultShareSpent, "vault-share-spent", 429, "The vault was asked for too often. Try again tomorrow.";

    // The state of the appliance
    /// The queue is full.
    Busy, "busy", 503, "The appliance is busy. Try again in a moment.";
    /// The keys are locked.
    CustodyLocked, "custody-locked", 503, "The appliance is locked. An administrator has to unlock it; messages wait in the client.";
    /// The keys are not usable for another reason.
    CustodyUnavailable, "custody-unavailable", 503, "The appliance cannot use its keys. An administrator has to look after it.";
    /// The ledger does not know the appliance's consensus key yet.
    AwaitingActivation, "awaiting-activation", 503, "The appliance has a new key that the ledger does not know yet. An administrator has to record the officers' decision (zixt-admin decide); messages wait in the client.";
    /// The appliance is starting.
    Starting, "starting", 503, "The appliance is starting. Try again in a moment.";
    /// The appliance is stopping.
    ShuttingDown, "shutting-down", 503, "The appliance is shutting down. Try again later.";
    /// The client read its stream too slowly.
    SlowConsumer, "slow-consumer", 503, "The stream was read too slowly. Connect again; nothing is lost.";
    /// Too many streams of one device.
    TooManyStreams, "too-many-streams", 429, "This device has too many open streams. Close one.";
    /// The store cannot be used.
    StoreFailed, "store-failed", 500, "The appliance's store failed. An administrator should read its log; try again later.";
    /// The audit journal takes no events.
    AuditUnavailable, "audit-unavailable", 503, "The appliance cannot record what is done, so it does nothing that has to be recorded. An administrator has to look after its disk and read its log.";
    /// The ledger stopped.
    LedgerStopped, "ledger-stopped", 500, "The appliance's ledger has stopped. An administrator should read its log; try again later.";

    // What was asked for
    /// No such header.
    UnknownHeight, "unknown-height", 404, "The ledger has no such height yet.";
    /// No such entry.
    UnknownEntry, "unknown-entry", 404, "The thread has no such entry.";
    /// No such attachment, or it was deleted by policy.
    UnknownAttachment, "unknown-attachment", 404, "The entry has no such attachment, or it was deleted by policy.";
    /// It is there, and is not what its entry names.
    AttachmentDamaged, "attachment-damaged", 500, "The appliance's copy of this is damaged. An administrator should run zixt-admin fsck.";
    /// No account has this name.
    UnknownName, "unknown-name", 404, "Nobody here has this name. Check the spelling.";

    // Names
    /// The name is empty, too long or has characters that could mislead.
    NameInvalid, "name-invalid", 400, "The name is not allowed: 1 to 64 bytes of letters, digits, spaces and . _ - @ only.";
    /// Another account has it.
    NameTaken, "name-taken", 409, "Another account has this name. Choose another.";
    /// It is not the name that the entry commits to.
    NameMismatch, "name-mismatch", 400, "The name is not the one that the account's invitation recorded.";

    // Key packages
    /// A key package is empty or too long.
    KeyPackageTooLong, "key-package-too-long", 400, "A key package is empty or longer than allowed.";
    /// It is another device's, or none at all.
    KeyPackageForeign, "key-package-foreign", 400, "A key package was not made by the device that uploads it.";
    /// As many as allowed wait already.
    TooManyKeyPackages, "too-many-key-packages", 409, "As many key packages as allowed wait already.";

    // Reading a signed body
    /// The bytes end early or are no such structure.
    BodyMalformed, "body-malformed", 400, "The entry's bytes are damaged. This is a fault of the client program.";
    /// Longer than a body may be.
    BodyTooLong, "body-too-long", 413, "The entry is longer than allowed.";
    /// Not the one deterministic encoding.
    BodyNotCanonical, "body-not-canonical", 400, "The entry is not in its one accepted encoding.";
    /// Nested too deep.
    BodyTooDeep, "body-too-deep", 400, "The entry is nested deeper than any of our formats.";
    /// A rule of the format is broken.
    BodyInvalid, "body-invalid", 400, "The entry breaks a rule of its format.";
    /// A version that this appliance does not know.
    UnknownVersion, "unknown-version", 400, "The entry has a version that this appliance does not know. Update the older of the two.";
    /// A suite that this appliance does not know.
    UnknownSuite, "unknown-suite", 400, "The entry names a cryptographic suite that this appliance does not know.";
    /// Another number of attachments than the body names.
    AttachmentCount, "attachment-count", 400, "The attachments are not the ones that the entry names.";
    /// An attachment is too long.
    AttachmentTooLong, "attachment-too-long", 413, "An attachment is larger than allowed.";
    /// An attachment is another than the body names.
    AttachmentDigest, "attachment-digest", 400, "An attachment is not the one that the entry names.";
    /// The device id is not derived from the identity key.
    DeviceIdMismatch, "device-id-mismatch", 400, "The device's id does not belong to its key.";
    /// The new device's signature is missing or out of place.
    PossessionMissing, "possession-missing", 400, "A new device has to sign its own addition, and nothing else is signed twice.";
    /// A signature has the wrong length.
    SignatureLength, "signature-length", 400, "A signature does not have the length of its suite.";
    /// The author's key is not known.
    KeyUnknown, "key-unknown", 400, "The author's key is not known here.";
    /// The author's signature is not good.
    BadSignature, "bad-signature", 400, "The author's signature is not good.";
    /// The new device's signature is not good.
    BadPossession, "bad-possession", 400, "The new device's own signature is not good.";

    // Officers' decisions
    /// The bytes are no transcript.
    TranscriptMalformed, "transcript-malformed", 400, "The file is not a transcript of officers' approvals, or it is damaged.";
    /// The approvals are not good, not the officers', or not enough.
    NotApproved, "not-approved", 403, "Too few officers of this network approved this very action. Collect their approvals again.";
    /// The decision is about an appliance that is no validator here.
    UnknownAppliance, "unknown-appliance", 404, "The decision is about an appliance that does not belong to this network.";
    /// The appliance's later decision is recorded already.
    DecisionReplayed, "decision-replayed", 409, "This decision, or a later one of the appliance, is in the ledger already. An approval is good once.";
    /// The decision retires another key than the present one.
    NotThePresentKey, "not-the-present-key", 409, "The decision retires another key than the one in use. Officers have to decide anew.";
    /// The key was in use before.
    KeyUsedBefore, "key-used-before", 409, "The key was in use in this network before. Make a new one.";
    /// A software key outside a lab.
    SoftwareKey, "software-key", 403, "A key in software is allowed in a lab only.";
    /// The public key that the decision activates is not at hand.
    KeyMissing, "key-missing", 400, "The public key that the decision activates is not known here. Hand it in with the decision.";
    /// Custody does not use the key yet.
    KeyNotActive, "key-not-active", 409, "The custody daemon does not use this key yet. Give it the officers' decision first (zixt-hsm), then record it.";

    // The ledger's rules
    /// The message id was used for another body.
    MessageIdConflict, "message-id-conflict", 409, "The message id was used for another entry.";
    /// Made for another network.
    WrongGenesis, "wrong-genesis", 400, "The entry was made for another network.";
    /// Policy forbids the suite.
    SuiteNotAllowed, "suite-not-allowed", 400, "This network does not allow the entry's cryptographic suite.";
    /// No such conversation.
    UnknownThread, "unknown-thread", 404, "There is no such conversation, or this device is not in it.";
    /// No such account.
    UnknownAccount, "unknown-account", 404, "There is no such account.";
    /// The account exists.
    AccountExists, "account-exists", 409, "The account exists already.";
    /// The kind does not belong there.
    WrongThread, "wrong-thread", 400, "This kind of entry does not belong into this thread.";
    /// The author is not a member.
    NotAMember, "not-a-member", 403, "This device is not in the conversation, or was removed from it.";
    /// No such device.
    UnknownDevice, "unknown-device", 404, "The device is not in the ledger.";
    /// The device was revoked.
    DeviceRevoked, "device-revoked", 403, "The device was revoked.";
    /// The device exists.
    DeviceExists, "device-exists", 409, "The device is in the ledger already.";
    /// The TLS key is another device's.
    TlsKeyInUse, "tls-key-in-use", 409, "Another device has this TLS key, or had it. Make a new one.";
    /// As many devices as allowed.
    TooManyDevices, "too-many-devices", 409, "The account has as many active devices as allowed. Revoke one first.";
    /// As many devices as an account may ever have.
    TooManyDevicesEver, "too-many-devices-ever", 409, "The account has had as many devices as it ever may. Ask for a new account.";
    /// The enroller is not appointed.
    UnknownEnroller, "unknown-enroller", 403, "The enroller is not appointed in this network.";
    /// The invitation was used.
    InvitationUsed, "invitation-used", 409, "The invitation was used already. If it was not you, tell an administrator at once.";
    /// The invitation has expired.
    InvitationExpired, "invitation-expired", 410, "The invitation has expired. Ask for a new one.";
    /// Not the invitation's key.
    InvitationKey, "invitation-key", 403, "The key is not the one of this invitation.";
    /// The counter was used.
    CounterReplayed, "counter-replayed", 409, "The entry's counter was used before: it is a replay, or this device's store was set back.";
    /// The counter skips some.
    CounterGap, "counter-gap", 409, "The entry's counter skips some. Ask for the thread's state and try again.";
    /// Another commit was recorded first.
    StaleEpoch, "stale-epoch", 409, "The conversation has moved on. Process the winning commit (seq `since`), then try again.";
    /// Nobody is added.
    NobodyAdded, "nobody-added", 400, "A new conversation has to add somebody.";
    /// Added a member.
    AlreadyAMember, "already-a-member", 409, "Somebody to be added is in the conversation already.";
    /// Removed somebody who is not in.
    RemovedNobody, "removed-nobody", 409, "Somebody to be removed is not in the conversation.";
    /// Removed oneself.
    RemovedSelf, "removed-self", 400, "A member cannot remove itself; another member has to.";
    /// The added device may not act.
    AddedInactive, "added-inactive", 409, "A device to be added is not active any more. Look the account up again.";
    /// The group would be too large.
    GroupTooLarge, "group-too-large", 409, "The conversation would have more members than allowed.";
    /// The author saw another history.
    OtherHistory, "other-history", 409, "The author saw another history of this thread. Export the fork proof and tell an administrator.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl ErrorCode {
    /// Whether the answer is about what was asked, so that the same question gets the same answer again. `false`: it is
    /// about the moment, the way, or versions that do not fit; what was to be sent waits. A code that this program does
    /// not know settles nothing.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Unknown | Self::UnknownEndpoint | Self::MethodNotAllowed | Self::RequestTimeout => false,
            // About who asks, who may be let in again.
            Self::SignInNeeded | Self::SignInRefused | Self::UnknownSignIn | Self::SignInNotRecent => false,
            // About this one thing, until somebody repairs it.
            Self::AttachmentDamaged => true,
            code => code.status().is_client_error() && code.status() != StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// Why a request was refused (RFC 9457 problem details).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:zixt:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Box<str>,
    /// What happened and what to do, for people; the same for every problem of this code.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// This very occurrence.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// Which submission of the request it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// `counter-replayed`, `counter-gap`: the next counter. `stale-epoch`: the current epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// `stale-epoch`: where the winning commit stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Seconds after which another try makes sense; also the `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// The problem of a code. Codes that pass by themselves say when to try again.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let retry_after = match code {
            ErrorCode::Busy | ErrorCode::Starting | ErrorCode::SignInUnavailable => Some(1),
            ErrorCode::ShuttingDown | ErrorCode::CustodyLocked | ErrorCode::CustodyUnavailable => Some(5),
            _ => None,
        };
        Self {
            kind: format!("urn:zixt:problem:{}", code.code()).into(),
            title: code.advice().into(),
            status: code.status().as_u16(),
            code,
            detail: detail.into().into_boxed_str(),
            index: None,
            expected: None,
            since: None,
            retry_after,
        }
    }

    /// The problem, said of one submission of a request.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = u32::try_from(index).ok();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {})", self.title, self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_kebab_case_and_have_a_status() {
        let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let text = code.code();
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{text}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{text}");
            assert!(code.advice().ends_with('.'), "{text}");
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_code_of_a_newer_appliance_is_read() {
        let json = r#"{"type":"urn:zixt:problem:new","title":"t","status":418,"code":"new","detail":"d"}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!((problem.code, problem.status), (ErrorCode::Unknown, 418));
    }
}
