//! What clients and the appliance say to each other over HTTP: request and response types, the one error map, the
//! list of endpoints, and the invitation. Types only: no I/O and no cryptography.
//!
//! Ids and hashes are lower-case hexadecimal ([`Hex`]), other bytes are base64 ([`Bytes64`]), times are milliseconds
//! since 1970. `openapi.json` beside this crate is generated from it; a test compares.

mod access;
mod account;
mod admin;
pub mod endpoints;
mod error;
mod health;
mod invitation;
mod key_package;
mod ledger;
pub mod openapi;
mod service;
mod stream;
mod submission;
mod text;
mod thread;

pub use access::{
    Acceptance, AccountInfo, AccountPage, AccountStatus, BackupCodes, ClockInfo, DirectoryInfo,
    DirectoryList, DirectoryRelease, Done, FactorKind, HeldPlanInfo, IdpInfo, LinkInfo, Me, NewClock,
    NewLink, NewPasskey, NewPassword, NewRoles, NewSsoLink, PasskeyCreation, PasskeyInfo, PasskeyList,
    PasskeyRequest, PskVerifier, RecoveryCode, RecoveryInfo, RecoveryList, Renewed, RoleName, Secret,
    SessionInfo, SessionList, SessionsEnded, SignInBegun, SignInProof, SignInRequest, SignInStep, SignInWay,
    SignInWays, SsoRedirect, TotpConfirmation, TotpEnrolment, VaultFile, VaultShareGiven,
};
pub use account::{AccountName, AccountView, PublicKey};
pub use admin::{
    AdminDecision, AdminInvitation, AdminStatus, AuditHealth, AuditPage, AuditSink, AuditSinkKind,
    AuditSinkState, HeaderInfo, InvitationLink, WebAddress,
};
pub use endpoints::{ENDPOINTS, Endpoint, Listener, Method, Who};
pub use error::{ErrorCode, PROBLEM_CONTENT_TYPE, Problem};
pub use health::{CustodyState, Health};
pub use invitation::{Checkpoint, Invitation, InvitationError, InvitationSeed};
pub use key_package::{ClaimRequest, ClaimResponse, ClaimedKeyPackage, KeyPackageCounts, KeyPackageUpload};
pub use ledger::{
    CertifiedHeader, Consistency, EntryProof, HeadProof, Network, ShardConsistency, ShardProof,
};
pub use service::{
    EventInfo, EventPage, NewServiceToken, ServiceTokenInfo, ServiceTokenList, ServiceTokenMade,
};
pub use stream::{LINE_BYTES_MAX, StreamLine};
pub use submission::{EnrolRequest, Receipt, SubmissionItem, SubmitRequest, SubmitResponse};
pub use text::{
    AccountHex, Bytes64, DeviceHex, HashHex, Hex, HexId, LoginHex, MessageHex, RecoveryHex, SaltHex,
    SessionHex, ThreadHex,
};
pub use thread::{Entry, EntryPage, MemberRef, SystemView, ThreadView};
