//! Single sign-on: OpenID Connect and SAML 2.0.
//!
//! An identity provider gives *access*, never *identity keys*. Its word becomes an [`Assertion`], the assertion becomes
//! a [`zixt_identity::Voucher`] for one sign-in that was admitted, and a voucher opens a session and none of the
//! permissions that need a proof of one's own. There is no key in any of these, and no way from here to one. Decision
//! 0017 gives the reasons.

mod assertion;
mod json;
pub mod oidc;
mod replay;
mod roles;
pub mod saml;
mod waiting;
mod web;

pub use assertion::{Assertion, OtherLogin};
pub use replay::{REPLAY_IDS_MAX, ReplayError};
pub use roles::{ROLE_RULES_MAX, ROLE_VALUES_MAX, RoleRule, RoleRules, RoleRulesError};
pub use waiting::{Browser, Crowded, PENDING_MAX, PENDING_MS, Waiting, Waits};
pub use web::{WEB_BODY_BYTES_MAX, WEB_TIME_MAX, WebClient, WebConfigError, WebError, WebOrigin};
