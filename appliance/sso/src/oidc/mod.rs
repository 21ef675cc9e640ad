//! OpenID Connect: the code flow with PKCE, log-outs, and tokens of API clients.
//!
//! ```text
//! Config ── Provider::discover ── begin ── Pending ── (browser at the provider) ── Callback ── finish ── Assertion
//!                    │                                                                            │
//!                    └── keys, refreshed                                        Assertion::vouch ── Voucher
//! ```
//! An ID token is verified twice, by this module over aws-lc and by the `openidconnect` library over RustCrypto, and
//! nobody is signed in unless both agree.

mod algorithm;
mod callback;
mod config;
mod introspect;
mod keys;
mod logout;
mod metadata;
mod pending;
mod provider;
mod refusal;
mod token;

pub use algorithm::Algorithm;
pub use callback::{CALLBACK_BYTES_MAX, Callback, CallbackError};
pub use config::{Config, ConfigDocument, ConfigError, SKEW_S_MAX};
pub use introspect::{
    ApiClient, INTROSPECTION_ANSWERS_MAX, INTROSPECTION_MS_MAX, INTROSPECTION_QUESTIONS_MAX, Introspector,
    NoIntrospection,
};
pub use keys::{KEYS_MAX, KeySetError};
pub use logout::{LOGOUT_AGE_S_MAX, Logout};
pub use metadata::DiscoverError;
pub use pending::Pending;
pub use provider::{Begun, Clock, KEYS_AGAIN_MS_MIN, KEYS_AGE_MS_MAX, KEYS_RETRY_MS_MIN, Provider};
pub use refusal::Refusal;
pub use token::{TOKEN_BYTES_MAX, TokenError};
