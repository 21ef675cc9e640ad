//! The words that every part of Zixt speaks: identifiers, suites, limits, and the byte formats that are signed,
//! hashed or stored. No I/O and no cryptography live here, so that every other crate may depend on it.
//!
//! Every format is deterministic CBOR (RFC 8949 section 4.2.1) read through [`Canonical::parse`], the only way in.

mod action;
mod batch;
mod body;
pub mod cbor;
mod genesis;
mod header;
mod ids;
pub mod limits;
mod role;
mod suite;
mod vote;

pub use action::{
    Action, Approval, Decision, KeyPurpose, ProtectorKind, ShareHolder, Transcript, is_readable,
};
pub use batch::{Attachment, Batch, BatchItem};
pub use body::{Author, Body, BodyKind, EntryPosition, Member, Payload, RevokeReason};
pub use cbor::{Canonical, ParseError};
pub use genesis::{CustodyMode, Genesis, Officer, RotationPolicy, UnlockMode, Validator};
pub use header::{Certificate, CertificateSignature, Head, Header, ShardState};
pub use ids::{
    AccountId, ApplianceId, DeviceId, Epoch, Hash, Height, LoginId, MessageId, ProtectorId, RecoveryId,
    Round, Salt, Seq, SessionId, ShardId, ThreadId, ThreadKind, Timestamp,
};
pub use role::{EXCLUSIONS, Role, are_roles};
pub use suite::{SuiteId, UnknownSuite};
pub use vote::{Vote, VoteStep};
