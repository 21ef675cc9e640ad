//! Passkeys: Web Authentication (W3C, level 3) for browsers, as the factor [`zixt_identity::Factor::WebAuthn`]. Pure: no
//! I/O, no clock; time and randomness are arguments.
//!
//! ```text
//! register   Registrations::begin  -> CreationOptions -> browser -> Registrations::finish -> WebAuthnCredential
//! sign in    RelyingParty::options -> RequestOptions  -> browser -> parse_assertion -> Proof::WebAuthn -> Login
//! ```
//! The sign-in machine holds what a sign-in may do with an assertion; [`RelyingParty`] is its verifier. What an
//! authenticator signs is a hash of the sign-in's whole challenge: network, appliance, sign-in, nonce, channel and end.
//! So an assertion is good for one sign-in on one channel, and that takes it once.
//!
//! Everything that a browser sends is taken apart here first, strictly and within bounds; then `webauthn-rs-core` verifies
//! it again, with the signature. Both have to agree. Decision 0018 says what each of them checks, and why.
//!
//! The keys of FIDO authenticators are classical (ECDSA, RSA): no authenticator with ML-DSA exists. A passkey gives
//! *access*. It signs no entry of the ledger, opens no message and protects nothing that has to last.

mod assertion;
mod authenticator;
mod browser;
mod decoy;
mod kept;
mod options;
mod refused;
mod registration;
mod relying_party;

pub use assertion::parse_assertion;
pub use kept::{Algorithm, Attestation, Passkey};
pub use options::{
    AuthenticatorSelection, CreationOptions, CredentialDescriptor, CredentialParameters, CredentialType,
    RelyingPartyEntity, RequestOptions, Requirement, UserEntity,
};
pub use refused::Refused;
pub use registration::{
    BeginError, FinishError, PERSON_BYTES_MAX, Person, REGISTRATION_MS, REGISTRATIONS_MAX, Registrations,
};
pub use relying_party::{ORIGINS_MAX, PasskeySecret, RelyingParty, Settings, SettingsError, TIMEOUT_MS};
