//! Who may come in: sign-in, sessions, roles, accounts. Pure: no I/O, no clock and no network; time and randomness are
//! arguments.
//!
//! A sign-in is one state machine, [`Login`]. It takes one proof after the other, as the [`Policy`] asks, and ends in a
//! [`Grant`], which nothing else makes. [`Sessions::open`] turns a grant into a session, [`Sessions::check`] a
//! session's token into a [`Caller`], and the transitions of an [`AccountRecord`] take a caller as their authority.
//! So no session is opened and no account changed without every factor that the policy demands.
//!
//! | part | standard |
//! |---|---|
//! | passwords, limits of attempts, sessions | NIST SP 800-63B-4 |
//! | password hashes, keys of vaults | Argon2id, RFC 9106 |
//! | one-time passwords | TOTP, RFC 6238 |
//! | device keys | ML-DSA, FIPS 204, over a challenge that is bound to the channel (RFC 9266, RFC 7250) |
//! | pre-shared keys | HMAC-SHA384, RFC 2104; external PSKs of MLS, RFC 9420 |
//!
//! A directory or an identity provider gives *access*, never *identity keys*: its word is a [`Voucher`], which opens a
//! session and none of the permissions that need a proof of one's own ([`Permission::needs_own_proof`]).

mod account;
mod attempts;
mod backup;
mod blocklist;
mod challenge;
mod change;
mod credentials;
mod factor;
mod login;
mod outcome;
mod password;
mod pending;
mod place;
mod policy;
mod proof;
mod psk;
mod random;
mod recovery;
mod role;
mod rows;
#[cfg(test)]
mod sample;
mod secret;
mod session;
mod token;
mod totp;
mod vault;
mod voucher;
mod webauthn;

pub use account::{
    Accepted, AccountError, AccountRecord, Approved, Authority, By, Change, Effect, INVITATION_DAYS_MAX,
    InvitationCode, Population, Status,
};
pub use attempts::{Admission, AttemptChange, AttemptKey, AttemptRow, AttemptTag, Attempts, Locked};
pub use backup::{BackupCode, BackupError, BackupRecord};
pub use blocklist::Blocklist;
pub use challenge::{Challenge, ChallengeError, DeviceProof, DeviceProofError, KnownDevice, Statement};
pub use change::{ChangeError, CredentialChange, Enrolment};
pub use credentials::{Credentials, OpenCredentialsError, SealCredentialsError};
pub use factor::{Factor, FactorSet};
pub use login::{Admitted, Examined, Login, NotAdmitted};
pub use outcome::{Because, Grant, Step, Unavailable};
pub use password::{ChooseError, Password, PasswordError, PasswordRecord};
pub use pending::{Batch, Written};
pub use place::{Channel, ChannelBinding, HeldSource, Network, Now, Origin};
pub use policy::{
    AttemptPolicy, BackupPolicy, Cost, FAILURES_MAX, LoginPolicy, PASSWORD_CHARS_MIN,
    PASSWORD_CHARS_MIN_ALONE, PasswordPolicy, Path, Policy, PolicyDocument, PolicyError, RolePolicy,
    SessionPolicy, Span, TotpAlgorithm, TotpPolicy,
};
pub use proof::{Desk, Incoming, Named, Proof, Start, Subject, Tools};
pub use psk::{ExternalPsk, Psk, PskProof, PskRecord};
pub use random::Random;
pub use recovery::{RECOVERY_HOURS_MAX, Recovery, RecoveryError};
pub use role::{PERMISSIONS, Permission, Roles, RolesError};
pub use rows::{OpenRowError, RowKey};
pub use session::{
    Actor, Caller, Forbidden, RECENT_MS, RotateError, SessionChange, SessionError, SessionRow, Sessions,
    Token,
};
pub use token::{
    NewToken, Scope, Scopes, ServiceTokens, TOKEN_DAYS_MAX, TOKENS_EACH_MAX, TokenChange, TokenError,
    TokenRow,
};
pub use totp::{TotpCode, TotpError, TotpRecord};
pub use vault::{
    ChangeVaultError, ExpectedVault, GiveShareError, OpenVaultError, SHARE_GIVEN_MAX, SHARE_WINDOW_MS,
    SealVaultError, Vault, VaultShare, VaultShareRecord,
};
pub use voucher::{ExternalSubject, Issuer, IssuerId, Link, Vouched, Voucher};
pub use webauthn::{WebAuthnCredential, WebAuthnError, WebAuthnProof, WebAuthnVerdict, WebAuthnVerifier};
// The words that the ledger and the API share with this crate.
pub use zixt_types::{EXCLUSIONS, LoginId, RecoveryId, Role, SessionId};
