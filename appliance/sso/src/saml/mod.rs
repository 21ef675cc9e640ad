//! SAML 2.0, the side of the service provider: sign-in by the Web Browser SSO profile, single logout.
//!
//! ```text
//! zixtd (parses no XML)                      zixt-saml (one process a message; no files, no sockets, bounded)
//! ServiceProvider ── question over a pipe ──> filter ── saml-rs, strict ── answer
//!        │                                                                   │
//!        └── compares everything in the answer once more, takes ids once <───┘
//! ```
//! What is not supported is refused: unsolicited responses, encrypted assertions, signatures other than RSA with SHA-2,
//! responses of which only the envelope is signed, HTTP-Artifact, SimpleSign, ECP.

#[cfg(feature = "parser")]
pub mod child;
mod config;
#[cfg(feature = "parser")]
mod confine;
#[cfg(feature = "parser")]
mod engine;
#[cfg(feature = "parser")]
mod filter;
mod forms;
mod instant;
mod process;
mod refusal;
mod service;
mod wire;

pub use config::{CERTIFICATES_MAX, Config, ConfigDocument, ConfigError};
#[cfg(feature = "parser")]
pub use confine::{CPU_S_MAX, ConfineError, MEMORY_BYTES_MAX, confine};
pub use forms::{FORM_BYTES_MAX, LogoutMessage, ResponseForm};
pub use process::{PROCESS_TIME_MAX, PROCESSES_MAX, ProcessError};
pub use refusal::Refusal;
pub use service::{Begun, LOGOUT_AGE_MS_MAX, Logout, Pending, PendingLogout, ServiceProvider, SigningKey};
pub use wire::{Cause, XML_BYTES_MAX};
