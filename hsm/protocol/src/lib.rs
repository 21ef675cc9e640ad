//! The custody protocol: what may be asked of `zixt-hsmd`, how it answers, and clients for both sorts of caller.
//!
//! A request names its purpose and carries the whole object that is to be signed, so that the daemon can read what it
//! signs. There is no request that signs raw bytes, and none that returns a signing key.
//!
//! On the socket: a length (u32, big-endian) and a deterministic CBOR array `[version, request]` or
//! `[version, response]`, one response to each request, in order.

mod blocking;
mod client;
mod codec;
mod error;
mod frame;
mod pin;
mod request;
mod response;

pub use blocking::BlockingHsmClient;
pub use client::HsmClient;
pub use codec::{CodecError, PROTOCOL_VERSION, decode, encode};
pub use error::{ClientError, CustodyError};
pub use frame::{
    FRAME_BYTES_MAX, FRAME_BYTES_SMALL, FrameError, read_frame, read_frame_blocking, read_frame_within,
    write_frame, write_frame_blocking,
};
pub use pin::{PIN_BYTES_MAX, Pin, PinError};
pub use request::{Blob, Card, NamedPin, Purpose, Request};
pub use response::{
    BackupHead, Finding, KeyInfo, KeyStatus, ProtectorInfo, Response, RowKey, SignedPrecommit, StateKind,
    Status, TakenDecision, TokenInfo, VoteOutcome, VoteRefusal, VoteSlot,
};
pub use zixt_types::KeyPurpose;
