//! The audit journal: who did what, when, from where, and how it ended.
//!
//! ```text
//! action ── Event ── Journal::append ── hash chain in segments, fsynced ── Receipt ── the action goes on
//!                                             │
//!                                             ├── AuditRoot ── system thread of the ledger (the server's work)
//!                                             ├── Follower ── Sink (syslog, JSON lines, CEF), never in the way
//!                                             └── Export ── verify, offline
//! ```
//! An action waits for its event to be durable in the local journal, and for nothing else. It waits no longer than it
//! says. If the event cannot be recorded, the action is refused. Decision 0015 gives the reasons.
//!
//! No secret belongs into an event: there is no type for bytes, and a key that is called like one is refused.

mod action;
mod event;
pub mod export;
mod fields;
pub mod folder;
mod follow;
mod journal;
pub mod journald;
pub mod limits;
pub mod lines;
mod record;
mod segment;
pub mod syslog;
mod text;

pub use action::{Action, Weight};
pub use event::{
    Actor, Address, Details, Event, EventError, LedgerTime, Officers, Origin, Outcome, Target, Value, When,
};
pub use export::{Export, ExportError, Finding, Report, verify};
pub use follow::{Delivery, Failing, Follower, FollowerHealth, FollowerThread, Sink, Step};
pub use journal::{
    AnchorError, AppendError, Clock, Damage, Fault, Gap, GapReason, Journal, JournalHealth, OpenError,
    Opened, Pending, Read, Reader, Receipt, RemoveError, Room, SetAside, Settings, set_aside,
};
pub use record::{AuditRoot, Head, LinkError, Record, RootError, Sequence, chain_name};
pub use text::{Code, Key, NameError, Text, TextError};

#[cfg(test)]
mod testing;
