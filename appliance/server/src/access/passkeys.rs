//! Passkeys (WebAuthn, decision 0018): for browsers, at the web listener's name.

use super::{Access, problems};
use std::sync::Arc;
use zixt_api::{
    Bytes64, ErrorCode, PasskeyCreation, PasskeyInfo, PasskeyList, PasskeyRequest, Problem, Renewed,
};
use zixt_crypto::fill_random;
use zixt_identity::{Caller, CredentialChange, Permission, WebAuthnProof};
use zixt_passkey::{BeginError, FinishError, Passkey, Person, RelyingParty, parse_assertion};
use zixt_types::LoginId;

/// Ids of credentials are shorter (WebAuthn Level 3 section 4).
const ID_BYTES_MAX: usize = 1023;

/// What a browser answered. What cannot be read is a wrong answer, and counts as one.
pub(super) fn proof(response: &Bytes64) -> WebAuthnProof {
    parse_assertion(&response.0)
        .unwrap_or_else(|_| WebAuthnProof { credential: Vec::new(), assertion: Vec::new() })
}

/// Where there are no passkeys: no web listener, or one without a name.
fn none_here() -> Problem {
    Problem::new(ErrorCode::NotEnrolled, "this appliance takes no passkeys: its web listener has no name")
}

fn json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::new(ErrorCode::StoreFailed, error.to_string()))
}

impl Access {
    pub(super) fn party(&self) -> Result<Option<Arc<RelyingParty>>, Problem> {
        Ok(self.inner()?.party.clone())
    }

    /// What a page asks of an authenticator for a sign-in under way. The same for a name that no account has.
    ///
    /// # Errors
    /// No such sign-in is under way, or there are no passkeys here.
    pub(crate) async fn passkey_options(
        &self,
        door: &super::Door,
        id: LoginId,
    ) -> Result<PasskeyRequest, Problem> {
        let party = self.party()?.ok_or_else(none_here)?;
        let unknown = || Problem::new(ErrorCode::UnknownSignIn, "no such sign-in is under way");
        let under_way = self.inner()?.logins.get(&id).ok_or_else(unknown)?;
        let login = under_way.login.lock_owned().await;
        if login.challenge().channel != door.channel().binding() {
            return Err(unknown());
        }
        let keys = self.keys()?;
        // Before the first factor everybody is asked for ids that nobody has.
        let credentials = match login.account().filter(|_| login.has_first()) {
            Some(account) => Some(self.credentials(&keys, account).await?),
            None => None,
        };
        let known = credentials.as_ref().map_or(&[][..], |credentials| credentials.webauthn());
        let options = party.options(login.challenge(), &under_way.named.spelling, known, self.now().wall);
        Ok(PasskeyRequest { options: json(&options)? })
    }

    /// Begins to register a passkey.
    ///
    /// # Errors
    /// The caller may not now, or has as many as may be.
    pub(crate) async fn begin_passkey(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<PasskeyCreation, Problem> {
        self.require_own(caller)?;
        let party = self.party()?.ok_or_else(none_here)?;
        let keys = self.keys()?;
        let credentials = self.credentials(&keys, caller.account()).await?;
        let now = self.now();
        let mut inner = self.inner()?;
        let own = inner.own(caller)?.clone();
        let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
        let person = Person { name, display_name: name };
        let begun =
            inner.registrations.begin(&party, &actor, person, credentials.webauthn(), &mut fill_random);
        Ok(PasskeyCreation { options: json(&begun.map_err(of_begin)?)? })
    }

    /// Takes what the browser answered, and adds the passkey.
    ///
    /// # Errors
    /// The answer is not taken, or the caller may not now.
    pub(crate) async fn add_passkey(
        &self,
        caller: &Caller,
        name: &str,
        response: &Bytes64,
    ) -> Result<Renewed, Problem> {
        let party = self.party()?.ok_or_else(none_here)?;
        let keys = self.keys()?;
        let credentials = self.credentials(&keys, caller.account()).await?;
        let credential = {
            let now = self.now();
            let mut inner = self.inner()?;
            let own = inner.own(caller)?.clone();
            let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
            let taken = inner.registrations.finish(&party, &actor, &response.0, name, credentials.webauthn());
            taken.map_err(of_finish)?
        };
        self.change(caller, CredentialChange::AddWebAuthn(credential)).await
    }

    /// The caller's passkeys.
    ///
    /// # Errors
    /// The caller may not, or they cannot be read.
    pub(crate) async fn passkeys(&self, caller: &Caller) -> Result<PasskeyList, Problem> {
        caller.require(Permission::ManageOwnAccess).map_err(problems::of_forbidden)?;
        let keys = self.keys()?;
        let credentials = self.credentials(&keys, caller.account()).await?;
        let info = |credential: &zixt_identity::WebAuthnCredential| {
            let passkey = Passkey::of(credential).ok();
            PasskeyInfo {
                id: Bytes64(credential.id().to_vec()),
                name: credential.name().to_owned(),
                created_at: credential.created_at().0,
                last_used_at: credential.last_used_at().map(|at| at.0),
                model: passkey.and_then(|passkey| passkey.model),
            }
        };
        Ok(PasskeyList { passkeys: credentials.webauthn().iter().map(info).collect() })
    }

    /// Removes a passkey.
    ///
    /// # Errors
    /// There is none of this id, or the caller may not now.
    pub(crate) async fn remove_passkey(&self, caller: &Caller, id: Vec<u8>) -> Result<Renewed, Problem> {
        self.change(caller, CredentialChange::RemoveWebAuthn(id)).await
    }
}

/// The id of a passkey in a path, in hexadecimal digits.
///
/// # Errors
/// It is none.
pub(crate) fn passkey_id(text: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::new(ErrorCode::MalformedRequest, "a passkey's id is hexadecimal digits");
    let fits = !text.is_empty()
        && text.len() <= 2 * ID_BYTES_MAX
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !fits {
        return Err(malformed());
    }
    let pairs = text.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap_or("x"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).map_err(|_| malformed())).collect()
}

fn of_begin(error: BeginError) -> Problem {
    match error {
        BeginError::Forbidden(error) => problems::of_forbidden(error),
        BeginError::Random(error) => Problem::new(ErrorCode::SignInUnavailable, error.to_string()),
        error => Problem::new(ErrorCode::PasskeyRefused, error.to_string()),
    }
}

fn of_finish(error: FinishError) -> Problem {
    match error {
        FinishError::Forbidden(error) => problems::of_forbidden(error),
        error => Problem::new(ErrorCode::PasskeyRefused, error.to_string()),
    }
}
