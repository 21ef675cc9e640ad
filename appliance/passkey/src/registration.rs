//! Registering: section 7.1.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::json;
use std::collections::HashMap;
use thiserror::Error;
use webauthn_rs_core::error::WebauthnError as Library;
use webauthn_rs_core::proto::{
    AuthenticatorAttestationResponseRaw, Credential, RegisterPublicKeyCredential, RegistrationState,
};
use zixt_crypto::RandomError;
use zixt_identity::{Actor, Forbidden, Permission, Random, SessionId, WebAuthnCredential};
use zixt_types::{AccountId, Timestamp, limits};

use crate::authenticator::{AuthenticatorData, attestation_object};
use crate::browser::{Ceremony, Registration, check_client_data};
use crate::kept::{Algorithm, Kept};
use crate::options::{
    AuthenticatorSelection, CreationOptions, CredentialParameters, CredentialType, RelyingPartyEntity,
    Requirement, UserEntity,
};
use crate::refused::Refused;
use crate::relying_party::{RelyingParty, TIMEOUT_MS, descriptor};

/// How long a registration is open, in milliseconds of the wall clock: what a browser waits, and the way there and back.
pub const REGISTRATION_MS: u64 = TIMEOUT_MS as u64 + 30 * 1000;
/// Accounts that register at once. Only who has a session begins one, and each account has one at a time.
pub const REGISTRATIONS_MAX: usize = 4096;
/// A name of an account or a person, in bytes, as an authenticator gets it; it may keep the first 64.
pub const PERSON_BYTES_MAX: usize = 256;

/// Who registers, as their authenticator shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Person<'a> {
    /// The account's name.
    pub name: &'a str,
    /// The person's name; the account's if there is no other.
    pub display_name: &'a str,
}

/// Why no registration began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BeginError {
    /// The caller may not change what they sign in with.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The account has as many credentials as it can have.
    #[error("an account has at most {max} passkeys", max = limits::WEBAUTHN_CREDENTIALS_MAX)]
    TooMany,
    /// A name that no account has.
    #[error("a name has 1 to {PERSON_BYTES_MAX} bytes without control characters")]
    Name,
    /// Too many people register at once.
    #[error("{REGISTRATIONS_MAX} accounts register passkeys already")]
    Crowded,
    /// No randomness for the challenge.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why nothing was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FinishError {
    /// The caller may not change what they sign in with.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// This session has no registration open: none was begun, it took too long, or it was tried before.
    #[error("no registration is open")]
    NotOpen,
    /// The owner's name for it.
    #[error("a passkey's name has 1 to {max} bytes without control characters", max = limits::WEBAUTHN_NAME_BYTES_MAX)]
    Name,
    /// What the browser sent is not taken. The reason is for the audit record.
    #[error(transparent)]
    Refused(#[from] Refused),
}

#[derive(Debug)]
struct Open {
    session: SessionId,
    challenge: [u8; 32],
    begun_at: Timestamp,
}

impl Open {
    /// Also if the clock was set back beyond its beginning, because nobody can say how long it was open then.
    fn ended(&self, wall: Timestamp) -> bool {
        wall.0.checked_sub(self.begun_at.0).is_none_or(|open| open > REGISTRATION_MS)
    }
}

/// Registrations under way. One for an appliance, in memory; who loses theirs begins anew.
#[derive(Debug, Default)]
pub struct Registrations(HashMap<AccountId, Open>);

impl Registrations {
    /// Begins a registration, for the caller's own account and this session alone. One that was open for the account
    /// is closed. `registered` are the account's credentials.
    ///
    /// # Errors
    /// [`BeginError`]
    pub fn begin(
        &mut self,
        party: &RelyingParty,
        actor: &Actor<'_>,
        person: Person<'_>,
        registered: &[WebAuthnCredential],
        random: &mut dyn Random,
    ) -> Result<CreationOptions, BeginError> {
        require_own(actor)?;
        if registered.len() >= limits::WEBAUTHN_CREDENTIALS_MAX {
            return Err(BeginError::TooMany);
        }
        let names = [person.name, person.display_name];
        if names.iter().any(|name| !is_name(name, PERSON_BYTES_MAX)) {
            return Err(BeginError::Name);
        }
        let (account, wall) = (actor.account(), actor.wall());
        if self.0.len() >= REGISTRATIONS_MAX && !self.0.contains_key(&account) {
            self.0.retain(|_, open| !open.ended(wall));
            if self.0.len() >= REGISTRATIONS_MAX {
                return Err(BeginError::Crowded);
            }
        }
        let mut challenge = [0; 32];
        random.fill(&mut challenge)?;
        let options = creation_options(party, account, person, &challenge, registered);
        self.0.insert(account, Open { session: actor.session(), challenge, begun_at: wall });
        Ok(options)
    }

    /// Takes what the browser sent (`RegistrationResponseJSON`, section 5.1) and makes a credential of it, which the
    /// caller adds by [`zixt_identity::CredentialChange::AddWebAuthn`]. An answer that is looked at closes the registration,
    /// whatever comes out. `name` is what the owner calls it, `registered` are the account's credentials now.
    ///
    /// # Errors
    /// [`FinishError`]
    pub fn finish(
        &mut self,
        party: &RelyingParty,
        actor: &Actor<'_>,
        text: &[u8],
        name: &str,
        registered: &[WebAuthnCredential],
    ) -> Result<WebAuthnCredential, FinishError> {
        require_own(actor)?;
        if !is_name(name, limits::WEBAUTHN_NAME_BYTES_MAX) {
            return Err(FinishError::Name);
        }
        let (account, wall) = (actor.account(), actor.wall());
        if self.0.get(&account).is_none_or(|open| open.session != actor.session()) {
            return Err(FinishError::NotOpen);
        }
        let open = self.0.remove(&account).filter(|open| !open.ended(wall)).ok_or(FinishError::NotOpen)?;
        let made = party.register(&open, account, text, name, wall)?;
        // The browser was given the list, and is not trusted to have read it.
        if registered.iter().any(|credential| credential.id() == made.id()) {
            return Err(Refused::Registered.into());
        }
        Ok(made)
    }

    /// Closes what a session has open, at its end.
    pub fn forget(&mut self, session: SessionId) {
        self.0.retain(|_, open| open.session != session);
    }
}

/// A passkey is a way in for good: only the owner adds one, from a recent sign-in with a proof of their own.
fn require_own(actor: &Actor<'_>) -> Result<(), Forbidden> {
    actor.require(Permission::ManageOwnAccess)?;
    actor.require_recent()
}

fn is_name(name: &str, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && !name.chars().any(char::is_control)
}

fn creation_options(
    party: &RelyingParty,
    account: AccountId,
    person: Person<'_>,
    challenge: &[u8; 32],
    registered: &[WebAuthnCredential],
) -> CreationOptions {
    let settings = party.settings();
    let parameter = |algorithm: Algorithm| CredentialParameters {
        kind: CredentialType::PublicKey,
        alg: algorithm.number(),
    };
    CreationOptions {
        rp: RelyingPartyEntity { id: settings.rp_id.clone(), name: settings.name.clone() },
        user: UserEntity {
            id: BASE64URL.encode(party.user(account)),
            name: person.name.to_owned(),
            display_name: person.display_name.to_owned(),
        },
        challenge: BASE64URL.encode(challenge),
        pub_key_cred_params: Algorithm::OFFERED.map(parameter).to_vec(),
        timeout: TIMEOUT_MS,
        exclude_credentials: registered.iter().map(|credential| descriptor(credential.id())).collect(),
        authenticator_selection: AuthenticatorSelection {
            resident_key: Requirement::Preferred,
            require_resident_key: false,
            user_verification: Requirement::Required,
        },
        attestation: "none".to_owned(),
    }
}

impl RelyingParty {
    fn register(
        &self,
        open: &Open,
        account: AccountId,
        text: &[u8],
        name: &str,
        wall: Timestamp,
    ) -> Result<WebAuthnCredential, Refused> {
        let registration = Registration::parse(text, limits::WEBAUTHN_REGISTRATION_BYTES_MAX)?;
        check_client_data(self, &registration.client_data, Ceremony::Create, &open.challenge)?;
        let (data, attestation) = attestation_object(&registration.attestation_object)?;
        let data = AuthenticatorData::parse(data)?;
        data.check(self)?;
        let attested = data.attested.ok_or(Refused::NotAuthenticatorData)?;
        if attested.id != registration.id {
            return Err(Refused::IdsDiffer);
        }
        let (id, aaguid, algorithm) = (attested.id.to_vec(), attested.aaguid, attested.algorithm);
        let credential = self.register_again(open, registration)?;
        // Two readers of one text have to have read the same.
        if credential.cred_id != id
            || credential.cred.type_ != algorithm.of_library()
            || credential.backup_eligible
        {
            return Err(Refused::SecondVerifier);
        }
        let sign_count = credential.counter;
        let kept = Kept::new(&self.user(account), algorithm, attestation, aaguid, credential).write()?;
        WebAuthnCredential::new(&id, &kept, sign_count, name, wall).ok_or(Refused::TooLong)
    }

    /// The second verifier, which has the key itself and its own signature, if there is one.
    fn register_again(&self, open: &Open, registration: Registration) -> Result<Credential, Refused> {
        // It draws challenges itself and takes no other. What it remembers of one is a document, which is written here.
        let state: RegistrationState = serde_json::from_value(json!({
            "policy": "required",
            "exclude_credentials": [],
            "challenge": BASE64URL.encode(open.challenge),
            "credential_algorithms": Algorithm::OFFERED.map(Algorithm::of_library),
            "require_resident_key": false,
            "authenticator_attachment": null,
            "extensions": {},
            "allow_synchronised_authenticators": false,
        }))
        .map_err(|_| Refused::SecondVerifier)?;
        let Registration { id, client_data, attestation_object } = registration;
        let answer = RegisterPublicKeyCredential {
            id: BASE64URL.encode(&id),
            raw_id: id,
            response: AuthenticatorAttestationResponseRaw {
                attestation_object,
                client_data_json: client_data,
                transports: None,
            },
            type_: "public-key".to_owned(),
            // The outputs of extensions that a page reports; none is used.
            extensions: Default::default(),
        };
        self.library.register_credential(&answer, &state, None).map_err(|error| match error {
            Library::EcdsaPointInvalid | Library::RsaParametersInvalid => Refused::NotAKey,
            Library::AttestationStatementSigInvalid | Library::SignatureInvalid => Refused::Signature,
            _ => Refused::SecondVerifier,
        })
    }
}
