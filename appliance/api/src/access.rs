//! Who may come in: sign-in, one's own sessions and factors, and other people's accounts.

use crate::{AccountHex, Bytes64, DeviceHex, HashHex, LoginHex, RecoveryHex, SessionHex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use utoipa::openapi::schema::{SchemaFormat, SchemaType, Type};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use zeroize::Zeroizing;

/// A secret as it travels: a password, a code, a token. Erased on drop and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl PartialSchema for Secret {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
            .into()
    }
}

impl ToSchema for Secret {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Secret")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A kind of proof that somebody is who they say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FactorKind {
    /// A password that this appliance knows.
    Password,
    /// A bind at a directory.
    Directory,
    /// An assertion of an identity provider.
    Sso,
    /// A device's identity key.
    DeviceKey,
    /// A one-time password of an app (RFC 6238).
    Totp,
    /// A pre-shared key.
    Psk,
    /// A backup code.
    BackupCode,
    /// WebAuthn.
    Webauthn,
}

impl FactorKind {
    /// The word for it, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Directory => "directory",
            Self::Sso => "sso",
            Self::DeviceKey => "device-key",
            Self::Totp => "totp",
            Self::Psk => "psk",
            Self::BackupCode => "backup-code",
            Self::Webauthn => "webauthn",
        }
    }
}

/// What somebody is here for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoleName {
    /// Decides about keys, policy and privileged roles.
    SecurityOfficer,
    /// Runs accounts, directories, peers and backups.
    Administrator,
    /// Watches health and alerts.
    Operator,
    /// Reads the audit record and evidence.
    Auditor,
    /// Writes and reads messages.
    User,
    /// A program.
    Service,
}

impl RoleName {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SecurityOfficer,
        Self::Administrator,
        Self::Operator,
        Self::Auditor,
        Self::User,
        Self::Service,
    ];

    /// The word for it, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecurityOfficer => "security-officer",
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::User => "user",
            Self::Service => "service",
        }
    }
}

/// Where an account stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccountStatus {
    /// Waits for its person.
    Invited,
    /// In use.
    Active,
    /// Held for a while.
    Suspended,
    /// Over for good.
    Offboarded,
}

/// Begins a sign-in. One of the two names the account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInRequest {
    /// The account, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountHex>,
    /// The account, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A directory, by its name or issuer: then `name` is a login name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// A directory or identity provider that people can sign in with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignInWay {
    /// Its issuer, in 32 hexadecimal digits.
    pub issuer: String,
    /// What people call it.
    pub name: String,
    /// How it vouches: `directory` or `sso`.
    pub factor: FactorKind,
}

/// What people who are known elsewhere can sign in with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignInWays {
    /// Directories and identity providers.
    pub ways: Vec<SignInWay>,
}

/// An account's link to a person at a directory or identity provider.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LinkInfo {
    /// Who vouches, in 32 hexadecimal digits.
    pub issuer: String,
    /// What people call it; absent if the configuration does not have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Under which name the person signs in there, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
}

/// Links the caller to who they are at a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    /// The directory, by its name or issuer.
    pub directory: String,
    /// The login name there.
    pub login: String,
    /// The password there.
    pub password: Secret,
}

/// How a directory is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DirectoryInfo {
    /// Its issuer, in 32 hexadecimal digits.
    pub issuer: String,
    /// What people call it.
    pub name: String,
    /// How many people it had when accounts were last as it has them.
    pub people: u64,
    /// When that was, by the appliance's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    /// Which of its servers answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How long it took to read, in milliseconds.
    pub took_ms: u64,
    /// Failed rounds since the last that came to something.
    pub failures: u32,
    /// Why the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What is wrong in the directory.
    pub faults: Vec<String>,
    /// What is held back, because it takes too much from too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldPlanInfo>,
}

/// What a directory would take, and is kept from. Until a security officer releases it, nothing that it says is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeldPlanInfo {
    /// By which it is released.
    pub digest: HashHex,
    /// Why it is held back.
    pub reasons: Vec<String>,
    /// How many people would lose their access.
    pub suspends: u64,
    /// The first of them, by their login names.
    pub logins: Vec<String>,
}

/// How the clocks stand, in milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClockInfo {
    /// The appliance's wall clock.
    pub wall: u64,
    /// The clock of its machine.
    pub system: u64,
    /// Ledger time: when the last height was certified. Never goes back, and stands still while nothing is recorded.
    pub ledger: u64,
    /// How far an officer has set the first from the second.
    pub offset_ms: i64,
    /// How far the wall clock is ahead of ledger time. Less than 0: it is behind, and ledger time waits for it.
    pub ahead_of_ledger_ms: i64,
}

/// Sets the appliance's wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClock {
    /// What it is to show now.
    pub wall: u64,
    /// That a time is meant which is more than 31 days away from ledger time and from the machine's clock.
    #[serde(default)]
    pub far: bool,
}

/// How an identity provider is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct IdpInfo {
    /// Its issuer, in 32 hexadecimal digits.
    pub issuer: String,
    /// What people call it.
    pub name: String,
    /// Whether it has answered.
    pub ready: bool,
    /// Why it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Begins to link the caller to who they are at an identity provider.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSsoLink {
    /// The provider's issuer, in 32 hexadecimal digits.
    pub issuer: String,
}

/// Where the browser goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SsoRedirect {
    /// The provider's page.
    pub url: String,
}

/// The directories and identity providers of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DirectoryList {
    /// The directories.
    pub directories: Vec<DirectoryInfo>,
    /// The identity providers.
    pub providers: Vec<IdpInfo>,
}

/// Releases what is held back, if it is still the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectoryRelease {
    /// As [`HeldPlanInfo`] says.
    pub digest: HashHex,
}

/// A sign-in that was begun. The answer is the same whether or not there is such an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignInBegun {
    /// Names it.
    pub sign_in: LoginHex,
    /// The challenge (canonical CBOR) that devices and pre-shared keys answer. Check what it is bound to first.
    pub challenge: Bytes64,
    /// Its end, by the appliance's wall clock, in milliseconds since 1970.
    pub expires_at: u64,
}

/// One proof.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "factor", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SignInProof {
    /// The account's password.
    Password {
        /// As it was typed.
        password: Secret,
    },
    /// The password at the directory.
    Directory {
        /// As it was typed.
        password: Secret,
    },
    /// A device's signature over the challenge.
    DeviceKey {
        /// Canonical CBOR of the proof.
        proof: Bytes64,
    },
    /// A one-time password.
    Totp {
        /// Its digits.
        code: Secret,
    },
    /// The answer with a pre-shared key: HMAC-SHA384 over challenge, account and nonce.
    Psk {
        /// 32 bytes of the client's own.
        nonce: Bytes64,
        /// The answer.
        mac: HashHex,
    },
    /// A backup code.
    BackupCode {
        /// As it was printed.
        code: Secret,
    },
    /// A passkey: what the browser answered (`AuthenticationResponseJSON`, WebAuthn Level 3 section 5.1).
    Webauthn {
        /// The JSON, as it came.
        response: Bytes64,
    },
}

/// What a page asks of an authenticator for a sign-in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PasskeyRequest {
    /// For `PublicKeyCredential.parseRequestOptionsFromJSON`.
    #[schema(value_type = Object)]
    pub options: serde_json::Value,
}

/// What a page asks of an authenticator for a new passkey.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PasskeyCreation {
    /// For `PublicKeyCredential.parseCreationOptionsFromJSON`.
    #[schema(value_type = Object)]
    pub options: serde_json::Value,
}

/// A new passkey.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPasskey {
    /// What its owner calls it.
    pub name: String,
    /// What the browser answered (`RegistrationResponseJSON`), as it came.
    pub response: Bytes64,
}

/// A passkey.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PasskeyInfo {
    /// Names it; in paths as hexadecimal digits.
    pub id: Bytes64,
    /// What its owner calls it.
    pub name: String,
    /// When it was registered, by the appliance's wall clock.
    pub created_at: u64,
    /// When it was last taken for a sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<u64>,
    /// Make and model as the authenticator says, and nothing proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// The caller's passkeys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PasskeyList {
    /// The passkeys.
    pub passkeys: Vec<PasskeyInfo>,
}

/// What came of a proof that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum SignInStep {
    /// More is needed.
    Need {
        /// One of these.
        factors: Vec<FactorKind>,
        /// The appliance's proof that it knows the pre-shared key, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        psk_confirmation: Option<HashHex>,
    },
    /// The sign-in is complete.
    Done {
        /// What later requests show: `Authorization: Bearer …`. Shown once, and good on this channel only.
        token: Secret,
        /// Names the session in lists.
        session: SessionHex,
        /// Whose it is.
        account: AccountHex,
        /// The account's roles.
        roles: Vec<RoleName>,
        /// Backup codes that are left, if they are few.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backup_codes_left: Option<u8>,
        /// The appliance's proof that it knows the pre-shared key, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        psk_confirmation: Option<HashHex>,
    },
}

/// An open session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// Names it.
    pub session: SessionHex,
    /// Whether it is the one that asks.
    pub current: bool,
    /// How it was opened.
    pub factors: Vec<FactorKind>,
    /// The network that it was opened from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// When it was opened, by the appliance's wall clock.
    pub signed_in_at: u64,
    /// When it was last used, by the same clock, to half a minute.
    pub used_at: u64,
}

/// The open sessions of an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
}

/// How many sessions ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionsEnded {
    /// So many.
    pub ended: u32,
}

/// The caller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The account.
    pub account: AccountHex,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// The session that asks.
    pub session: SessionHex,
    /// What the account can sign in with.
    pub factors: Vec<FactorKind>,
    /// Backup codes that are left.
    pub backup_codes_left: u8,
    /// Failed attempts from unknown sources since the last sign-in.
    pub failures: u32,
    /// Who else vouches for the caller.
    pub links: Vec<LinkInfo>,
}

/// The session after a change of what its account signs in with: all others have ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Renewed {
    /// The new token; the old one is void.
    pub token: Secret,
    /// The session's new name.
    pub session: SessionHex,
}

/// A new password.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// As it was typed.
    pub password: Secret,
}

/// An authenticator app that has still to show a code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TotpEnrolment {
    /// What the QR code says (`otpauth://`). Shown once.
    pub uri: Secret,
}

/// A code of a new authenticator app.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpConfirmation {
    /// Its digits.
    pub code: Secret,
}

/// New backup codes, and the session after the change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackupCodes {
    /// The codes. Shown once; those of before are void.
    pub codes: Vec<Secret>,
    /// The new token.
    pub token: Secret,
    /// The session's new name.
    pub session: SessionHex,
}

/// What the appliance keeps of a pre-shared key. The key stays with its people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PskVerifier {
    /// Names the key.
    pub id: HashHex,
    /// Derived from it, 32 bytes in base64.
    pub verifier: Secret,
}

/// An account, for who runs them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountInfo {
    /// The account.
    pub account: AccountHex,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it stands.
    pub status: AccountStatus,
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// Counts every change that ended access.
    pub epoch: u64,
    /// Its active devices in the ledger.
    pub devices: Vec<DeviceHex>,
    /// Its open sessions.
    pub sessions: u32,
    /// Failed attempts from unknown sources since the last sign-in.
    pub failures: u32,
    /// Who else vouches for its person.
    pub links: Vec<LinkInfo>,
}

/// Some accounts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountPage {
    /// The accounts, ascending by id.
    pub accounts: Vec<AccountInfo>,
    /// Where the next page begins: after this one. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<AccountHex>,
}

/// Roles that an account is to have, in the place of those that it has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRoles {
    /// All of them.
    pub roles: Vec<RoleName>,
}

/// A request to recover an account, which waits for its second person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoveryInfo {
    /// Names it.
    pub recovery: RecoveryHex,
    /// Whose account.
    pub account: AccountHex,
    /// Who asked.
    pub requested_by: AccountHex,
    /// When, by the appliance's wall clock.
    pub requested_at: u64,
}

/// The requests that wait.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoveryList {
    /// The requests.
    pub recoveries: Vec<RecoveryInfo>,
}

/// What the person whose account was recovered is given by hand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoveryCode {
    /// The code. Shown once.
    pub code: Secret,
    /// Its end, by the appliance's wall clock.
    pub expires_at: u64,
}

/// A person comes with the code that they were given, and sets a password.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The account.
    pub account: AccountHex,
    /// The code.
    pub code: Secret,
    /// The account's new password.
    pub password: Secret,
}

/// A user's vault, sealed by the user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultFile {
    /// Canonical CBOR.
    pub vault: Bytes64,
}

/// The appliance's share of a vault's key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct VaultShareGiven {
    /// 32 bytes in base64.
    pub share: Secret,
}

/// Nothing to say but that it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Done {}
