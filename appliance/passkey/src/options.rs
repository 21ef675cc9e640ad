//! What a page hands to the browser, as JSON: Web Authentication level 3, section 5.1
//! (`PublicKeyCredential.parseCreationOptionsFromJSON` and `parseRequestOptionsFromJSON`).

use serde::{Deserialize, Serialize};

/// The one type of credential (section 5.8.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialType {
    /// A key pair.
    PublicKey,
}

/// How much something is wanted (sections 5.4.6 and 5.8.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requirement {
    /// Not without.
    Required,
    /// Rather with.
    Preferred,
    /// Rather without.
    Discouraged,
}

/// For `navigator.credentials.create()` (`PublicKeyCredentialCreationOptionsJSON`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationOptions {
    /// Who asks.
    pub rp: RelyingPartyEntity,
    /// For which account.
    pub user: UserEntity,
    /// What is to be answered: base64url, drawn for this registration.
    pub challenge: String,
    /// Algorithms that are taken, the best first.
    pub pub_key_cred_params: Vec<CredentialParameters>,
    /// How long the browser waits for its user, in milliseconds. A hint; the server goes by its own clock.
    pub timeout: u32,
    /// Authenticators that are registered already.
    pub exclude_credentials: Vec<CredentialDescriptor>,
    /// What the authenticator has to do.
    pub authenticator_selection: AuthenticatorSelection,
    /// Always `none`: which make it is, is not asked.
    pub attestation: String,
}

/// For `navigator.credentials.get()` (`PublicKeyCredentialRequestOptionsJSON`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestOptions {
    /// What is to be answered: base64url, the hash of the sign-in's challenge.
    pub challenge: String,
    /// How long the browser waits for its user, in milliseconds. A hint; the server goes by its own clock.
    pub timeout: u32,
    /// Who asks.
    pub rp_id: String,
    /// Credentials that are taken; for an account without any, ids that nobody has.
    pub allow_credentials: Vec<CredentialDescriptor>,
    /// Always required.
    pub user_verification: Requirement,
}

/// The appliance, for the authenticator (section 5.4.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelyingPartyEntity {
    /// The host name that credentials are bound to.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// The account, for the authenticator (section 5.4.3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserEntity {
    /// Base64url of a hash of the account's id: authenticators show nobody's name by it.
    pub id: String,
    /// The account's name.
    pub name: String,
    /// The person's name.
    pub display_name: String,
}

/// An algorithm (section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CredentialParameters {
    /// The type of credential.
    #[serde(rename = "type")]
    pub kind: CredentialType,
    /// Its number in the registry of COSE algorithms.
    pub alg: i32,
}

/// A credential, by its id (section 5.8.3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CredentialDescriptor {
    /// The type of credential.
    #[serde(rename = "type")]
    pub kind: CredentialType,
    /// Base64url.
    pub id: String,
}

/// What the authenticator has to do (section 5.4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticatorSelection {
    /// Whether it keeps the key itself.
    pub resident_key: Requirement,
    /// The same for browsers of level 1: true if it is required.
    pub require_resident_key: bool,
    /// Whether it verifies its user by PIN or biometrics.
    pub user_verification: Requirement,
}
