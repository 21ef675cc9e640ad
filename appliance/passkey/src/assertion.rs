//! Signing in: section 7.2.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::json;
use webauthn_rs_core::error::WebauthnError as Library;
use webauthn_rs_core::proto::{
    AuthenticationState, AuthenticatorAssertionResponseRaw, Credential, PublicKeyCredential,
};
use zixt_identity::{
    Challenge, WebAuthnCredential, WebAuthnError, WebAuthnProof, WebAuthnVerdict, WebAuthnVerifier,
};
use zixt_types::limits;

use crate::authenticator::{AuthenticatorData, SIGNATURE_BYTES_MAX};
use crate::browser::{Assertion, Ceremony, check_client_data};
use crate::kept::Kept;
use crate::refused::Refused;
use crate::relying_party::{RelyingParty, expected};

/// Makes a proof of what a browser sent (`AuthenticationResponseJSON`, section 5.1). Only its form is looked at: the
/// sign-in machine counts the attempt first, and verifies then.
///
/// # Errors
/// [`Refused`], if it is no assertion at all. Hand in a proof with an assertion of no bytes then, so that the attempt is
/// counted.
pub fn parse_assertion(text: &[u8]) -> Result<WebAuthnProof, Refused> {
    let assertion = Assertion::parse(text, limits::WEBAUTHN_ASSERTION_BYTES_MAX)?;
    Ok(WebAuthnProof { credential: assertion.id, assertion: text.to_vec() })
}

impl WebAuthnVerifier for RelyingParty {
    fn verify(
        &self,
        challenge: &Challenge,
        credential: &WebAuthnCredential,
        assertion: &[u8],
    ) -> Result<WebAuthnVerdict, WebAuthnError> {
        let sign_count = self.check(challenge, credential, assertion)?;
        Ok(WebAuthnVerdict { sign_count })
    }
}

impl RelyingParty {
    /// The counter of an assertion that answers this challenge with this credential.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn check(
        &self,
        challenge: &Challenge,
        credential: &WebAuthnCredential,
        assertion: &[u8],
    ) -> Result<u32, Refused> {
        let assertion = Assertion::parse(assertion, limits::WEBAUTHN_ASSERTION_BYTES_MAX)?;
        if assertion.id != credential.id() {
            return Err(Refused::OtherCredential);
        }
        let kept = Kept::read(credential)?;
        let user = assertion.user.as_deref().map(|user| BASE64URL.encode(user));
        if user.is_some_and(|user| user != kept.user) {
            return Err(Refused::OtherUser);
        }
        let expected = expected(challenge);
        check_client_data(self, &assertion.client_data, Ceremony::Get, &expected)?;
        let data = AuthenticatorData::parse(&assertion.authenticator_data)?;
        data.check(self)?;
        // A key belongs into a registration alone.
        if data.attested.is_some() {
            return Err(Refused::NotAuthenticatorData);
        }
        if assertion.signature.len() > SIGNATURE_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        self.check_again(&expected, kept.credential, credential.sign_count(), assertion)
    }

    /// The second verifier, which has the signature and the counter to itself.
    fn check_again(
        &self,
        challenge: &[u8; 48],
        mut credential: Credential,
        sign_count: u32,
        assertion: Assertion,
    ) -> Result<u32, Refused> {
        credential.counter = sign_count;
        // It draws challenges itself and takes no other. What it remembers of one is a document, which is written here.
        let state: AuthenticationState = serde_json::from_value(json!({
            "credentials": [],
            "policy": "required",
            "challenge": BASE64URL.encode(challenge),
            "appid": null,
            "allow_backup_eligible_upgrade": false,
        }))
        .map_err(|_| Refused::SecondVerifier)?;
        let Assertion { id, client_data, authenticator_data, signature, user } = assertion;
        let answer = PublicKeyCredential {
            id: BASE64URL.encode(&id),
            raw_id: id,
            response: AuthenticatorAssertionResponseRaw {
                authenticator_data,
                client_data_json: client_data,
                signature,
                user_handle: user,
            },
            // The outputs of extensions that a page reports; none is used.
            extensions: Default::default(),
            type_: "public-key".to_owned(),
        };
        let result = self.library.authenticate_single_credential(&answer, &state, &credential);
        match result {
            Ok(result) if result.user_verified() => Ok(result.counter()),
            Ok(_) => Err(Refused::UserNotVerified),
            Err(Library::CredentialPossibleCompromise) => Err(Refused::CounterWentBack),
            Err(Library::AuthenticationFailure | Library::SignatureInvalid) => Err(Refused::Signature),
            Err(_) => Err(Refused::SecondVerifier),
        }
    }
}
