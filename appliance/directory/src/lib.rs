//! LDAP and Active Directory: whether a password is right, and who is there.
//!
//! ```text
//! sign-in ── admitted ── Directory::bind ── find, then sign in as the entry ── Bound ── vouch ── Voucher
//! Watch ── Directory::sync ── Snapshot ─┬─ compare ── Plan ── Accounts::apply ── durable ── the next one
//!          every interval               └─ HeldPlan ── alert ── an officer's word, by its digest
//! ```
//! A directory gives access, never keys, and takes access away: [`Plan`] suspends and resumes accounts that are linked
//! to it, and nothing else (decision 0014). What it says of roles the server maps by
//! the administrator's rules: user and operator, and no other.
//!
//! | part | standard |
//! |---|---|
//! | protocol, TLS, sign-in | RFC 4511, RFC 4513 |
//! | filters, names | RFC 4515, RFC 4514 |
//! | pages | RFC 2696 |
//! | ids | RFC 4530, [MS-ADTS] |
//!
//! There is no connection without TLS, no referral that is followed, and no empty password that is sent. What a server
//! sends is bounded and checked before anything takes it apart. Decision 0016 gives the reasons.

mod config;
mod connection;
mod directory;
mod dn;
mod faults;
mod groups;
pub mod limits;
mod person;
mod plan;
mod refusal;
mod snapshot;
mod sync;
mod tls;
mod watch;
mod wire;

pub use config::{
    Config, ConfigError, Document, IdSyntax, Kind, RoleRule, Safety, Secrets, Security, Server,
};
pub use connection::ServerError;
pub use directory::{BindError, Bound, Directory, Unavailable};
pub use faults::{Fault, Faults};
pub use plan::{Basis, Change, HeldPlan, Linked, LostRoles, Plan, Reason, Taken, What, compare};
pub use refusal::{Refusal, Refused};
pub use snapshot::{Person, PersonId, Snapshot, Wanted, login_key};
pub use sync::{Mode, Read};
pub use tls::{AuthorityError, KeyExchange};
pub use watch::{Accounts, ApplyError, Clock, Health, ReleaseError, Watch, WatchHandle};
pub use wire::WireError;
