//! This side of SAML: begins and ends sign-ins and log-outs. It parses no XML; it asks the parser's process, and
//! compares what that says with what it knows itself.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use url::Url;
use zeroize::Zeroizing;
use zixt_crypto::{hash, labels};
use zixt_identity::{LoginId, Random, Role};
use zixt_types::Timestamp;

use super::config::Config;
use super::forms::{LogoutMessage, ResponseForm};
use super::instant;
use super::process::Parser;
use super::refusal::Refusal;
use super::wire::{Answer, Cause, Parties, Question, SpKey, Task, Verified};
use crate::assertion::Assertion;
use crate::oidc::Clock;
use crate::replay::Seen;
use crate::waiting::{Browser, Waits};

/// How old a LogoutRequest of the provider's may be, in milliseconds.
pub const LOGOUT_AGE_MS_MAX: u64 = 5 * 60 * 1000;
/// Bytes of a name or of the attribute that is the id.
const SUBJECT_BYTES_MAX: usize = 256;
/// Bytes of a session index.
const SESSION_BYTES_MAX: usize = 256;

const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
const PERSISTENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
/// The algorithms that may have signed (RFC 9231 section 2.3.2): RSA with SHA-2.
const ALGORITHMS: [&str; 3] = [
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
];

/// The RSA key with which this side signs its requests, and its certificate for the provider. It signs nothing else.
pub struct SigningKey {
    /// PKCS#8, PEM.
    pub key_pem: SecretString,
    /// The certificate, PEM.
    pub certificate_pem: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// This side, towards one provider.
#[derive(Debug)]
pub struct ServiceProvider {
    config: Config,
    key: Option<SigningKey>,
    parser: Parser,
    seen: Mutex<Seen>,
}

/// One sign-in that waits. Not `Clone`: [`ServiceProvider::finish`] uses it up.
pub struct Pending {
    login: LoginId,
    browser: Browser,
    relay_state: SecretString,
    request_id: String,
    begun_at: Timestamp,
}

impl Waits for Pending {
    fn handle(&self) -> &str {
        self.relay_state.expose_secret()
    }

    fn login(&self) -> LoginId {
        self.login
    }

    fn begun_at(&self) -> Timestamp {
        self.begun_at
    }
}

impl Pending {
    /// The id of the AuthnRequest, which the answer has to name.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Waits again for a request whose id and relay state are known: for a corpus of answers that were recorded.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn recorded(
        login: LoginId,
        browser: Browser,
        relay_state: &str,
        request_id: &str,
        begun_at: Timestamp,
    ) -> Self {
        Self { login, browser, relay_state: relay_state.into(), request_id: request_id.to_owned(), begun_at }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("login", &self.login).finish_non_exhaustive()
    }
}

/// The first half of a sign-in.
pub struct Begun {
    /// Where the browser goes.
    pub url: Url,
    /// What waits for it to come back.
    pub pending: Pending,
}

impl fmt::Debug for Begun {
    /// Without the URL, which has the relay state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// What the provider wants ended.
pub struct Logout {
    name: String,
    sessions: Vec<String>,
    response_url: Url,
}

impl Logout {
    /// Whose sessions: the name (`NameID`). It is [`Assertion::unchanging_id`] unless an attribute is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of them ([`Assertion::session`]); if there are none, all.
    #[must_use]
    pub fn sessions(&self) -> &[String] {
        &self.sessions
    }

    /// Where the browser goes once they have ended: it takes this side's response along.
    #[must_use]
    pub fn response_url(&self) -> &Url {
        &self.response_url
    }
}

impl fmt::Debug for Logout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logout(..)")
    }
}

/// A log-out that began here and waits for the provider's word.
pub struct PendingLogout {
    relay_state: SecretString,
    request_id: String,
    begun_at: Timestamp,
    login: LoginId,
}

impl Waits for PendingLogout {
    fn handle(&self) -> &str {
        self.relay_state.expose_secret()
    }

    fn login(&self) -> LoginId {
        self.login
    }

    fn begun_at(&self) -> Timestamp {
        self.begun_at
    }
}

impl fmt::Debug for PendingLogout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingLogout(..)")
    }
}

impl ServiceProvider {
    /// `program` is where `zixt-saml` is installed. Without a key requests are not signed, and there is no single
    /// logout.
    #[must_use]
    pub fn new(config: Config, key: Option<SigningKey>, program: PathBuf) -> Self {
        Self { config, key, parser: Parser::new(program), seen: Mutex::default() }
    }

    /// This side's metadata, for the provider's people.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn metadata(&self, now: Timestamp) -> Result<String, Refusal> {
        match self.ask(Task::Metadata, now).await? {
            Answer::Metadata(xml) => Ok(xml),
            _ => Err(Refusal::Answer),
        }
    }

    /// Begins a sign-in with an AuthnRequest (SAML Profiles 2.0 section 4.1).
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn begin(
        &self,
        login: LoginId,
        browser: Browser,
        now: Timestamp,
        random: &mut (dyn Random + Send),
    ) -> Result<Begun, Refusal> {
        let relay_state = draw(random)?;
        let task = Task::Begin { relay_state: relay_state.expose_secret().to_owned() };
        let (url, request_id) = self.go(task, &self.config.document.idp_sso_url, now).await?;
        Ok(Begun { url, pending: Pending { login, browser, relay_state, request_id, begun_at: now } })
    }

    /// Ends a sign-in: has the response verified, compares everything in it once more, and takes its ids once. The
    /// pending sign-in is used up whatever comes of it.
    ///
    /// # Errors
    /// [`Refusal`]; the server then gives [`zixt_identity::Issuer::refuse`] to the sign-in.
    pub async fn finish(
        &self,
        pending: Pending,
        login: LoginId,
        browser: &Browser,
        form: &ResponseForm,
        clock: Clock<'_>,
    ) -> Result<Assertion, Refusal> {
        let now = clock();
        if pending.ended(now) {
            return Err(Refusal::Ended);
        }
        if pending.login != login {
            return Err(Refusal::OtherLogin);
        }
        if !pending.browser.is(browser) {
            return Err(Refusal::OtherBrowser);
        }
        let relay_state = pending.relay_state.expose_secret();
        if !hash::constant_time_eq(form.relay_state().as_bytes(), relay_state.as_bytes()) {
            return Err(Cause::RelayState.into());
        }
        let document = &self.config.document;
        let attributes =
            [&document.subject_attribute, &document.roles_attribute].into_iter().flatten().cloned();
        let task = Task::Finish {
            response: form.response.clone(),
            relay_state: relay_state.to_owned(),
            request_id: pending.request_id.clone(),
            attributes: attributes.collect(),
        };
        let Answer::Verified(verified) = self.ask(task, now).await? else { return Err(Refusal::Answer) };
        let now = clock();
        let until = self.check(&verified, &pending, now)?;
        let assertion = self.read(&verified, &pending, now)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take(id(b"assertion", &verified.assertion_id), until, now)?;
        seen.take(id(b"response", &verified.response_id), until, now)?;
        Ok(assertion)
    }

    /// Everything that the parser has checked, once more, by plain comparison. Gives the moment until which the
    /// assertion could be shown again.
    fn check(&self, verified: &Verified, pending: &Pending, now: Timestamp) -> Result<Timestamp, Cause> {
        let document = &self.config.document;
        // The library compares the assertion's issuer only.
        let issuers = [Some(&verified.issuer), verified.response_issuer.as_ref()];
        if issuers.into_iter().flatten().any(|issuer| *issuer != document.idp_entity_id) {
            return Err(Cause::Issuer);
        }
        if verified.in_response_to.as_ref() != Some(&pending.request_id) {
            return Err(Cause::InResponseTo);
        }
        if verified.destination.as_ref().is_some_and(|destination| *destination != document.acs_url) {
            return Err(Cause::Destination);
        }
        if verified.audiences != [document.sp_entity_id.as_str()] {
            return Err(Cause::Audience);
        }
        let strong = |algorithm: &String| ALGORITHMS.contains(&algorithm.as_str());
        if verified.algorithms.is_empty() || !verified.algorithms.iter().all(strong) {
            return Err(Cause::Algorithm);
        }
        if !verified.assertion_signed {
            return Err(Cause::Coverage);
        }
        let ends = self.ends(verified.not_on_or_after.as_deref(), now)?;
        if let Some(from) = &verified.not_before {
            self.begins(from, now)?;
        }
        if verified.session_ends.is_some() {
            self.ends(verified.session_ends.as_deref(), now)?;
        }
        let [confirmation] = verified.confirmations.as_slice() else { return Err(Cause::Confirmation) };
        let good = confirmation.method.as_deref() == Some(BEARER)
            && confirmation.recipient.as_ref() == Some(&document.acs_url)
            && confirmation.in_response_to.as_ref() == Some(&pending.request_id);
        if !good {
            return Err(Cause::Confirmation);
        }
        Ok(ends.max(self.ends(confirmation.not_on_or_after.as_deref(), now)?))
    }

    /// An end that is there and has not passed, with the skew.
    fn ends(&self, text: Option<&str>, now: Timestamp) -> Result<Timestamp, Cause> {
        let end = text.and_then(instant::parse).ok_or(Cause::Time)?;
        let end = Timestamp(end.0.saturating_add(self.config.skew_ms()));
        if now < end { Ok(end) } else { Err(Cause::Time) }
    }

    fn begins(&self, text: &str, now: Timestamp) -> Result<Timestamp, Cause> {
        let begin = instant::parse(text).ok_or(Cause::Time)?;
        if begin.0 <= now.0.saturating_add(self.config.skew_ms()) { Ok(begin) } else { Err(Cause::Time) }
    }

    fn read(&self, verified: &Verified, pending: &Pending, now: Timestamp) -> Result<Assertion, Refusal> {
        let document = &self.config.document;
        let mut attributes = verified.attributes.iter();
        let subject = match &document.subject_attribute {
            Some(_) => match attributes.next().map(Vec::as_slice) {
                Some([only]) => only,
                _ => return Err(Refusal::Subject),
            },
            None => {
                // The same name of another provider's, or for another service, is another person (SAML Core 2.0
                // section 8.3.7).
                let theirs = verified.name_qualifier.as_ref().is_none_or(|of| *of == document.idp_entity_id);
                let ours = verified.sp_name_qualifier.as_ref().is_none_or(|of| *of == document.sp_entity_id);
                if verified.name_format.as_deref() != Some(PERSISTENT) || !theirs || !ours {
                    return Err(Refusal::Subject);
                }
                &verified.name_id
            }
        };
        if !is_id(subject) {
            return Err(Refusal::Subject);
        }
        let roles = match &document.roles_attribute {
            Some(_) => {
                let values = attributes.next().ok_or(Refusal::Answer)?;
                self.config.roles.wanted(values.iter().map(String::as_str))
            }
            None => BTreeSet::<Role>::new(),
        };
        let accepted = &document.authn_contexts;
        if !accepted.is_empty()
            && !verified.context.as_ref().is_some_and(|context| accepted.contains(context))
        {
            return Err(Refusal::AuthenticationTooWeak);
        }
        // Without it nobody has authenticated (SAML Core 2.0 section 2.7.2).
        let authenticated_at = self.begins(verified.authenticated.as_deref().ok_or(Cause::Profile)?, now)?;
        if let Some(age_s) = document.max_age_s {
            let allowed = u64::from(age_s) * 1000 + self.config.skew_ms();
            if authenticated_at.0.saturating_add(allowed) < now.0 {
                return Err(Refusal::AuthenticationTooOld);
            }
        }
        let session = verified.session.clone();
        if session.as_ref().is_some_and(|session| session.is_empty() || session.len() > SESSION_BYTES_MAX) {
            return Err(Cause::Profile.into());
        }
        Ok(Assertion {
            login: pending.login,
            unchanging_id: subject.as_bytes().to_vec(),
            session,
            roles,
            authenticated_at: Some(authenticated_at),
            hint: Some(SecretString::from(verified.name_id.as_str())),
        })
    }

    /// Verifies the provider's LogoutRequest, once, and makes the response to it (SAML Profiles 2.0 section 4.4). The
    /// server ends the sessions, and then sends the browser to [`Logout::response_url`].
    ///
    /// # Errors
    /// [`Refusal`]; nothing ends.
    pub async fn logout(&self, message: &LogoutMessage, clock: Clock<'_>) -> Result<Logout, Refusal> {
        if message.is_response {
            return Err(Refusal::Form);
        }
        let idp_slo = self.logout_place()?;
        let task = Task::Logout { incoming: message.incoming.clone() };
        let answer = self.ask(task, clock()).await?;
        let Answer::Logout { id: request, issuer, name_id, sessions, issued, ends, response_url } = answer
        else {
            return Err(Refusal::Answer);
        };
        let now = clock();
        if issuer != self.config.document.idp_entity_id {
            return Err(Cause::Issuer.into());
        }
        let issued = self.begins(&issued, now)?;
        let old = Timestamp(issued.0.saturating_add(LOGOUT_AGE_MS_MAX).saturating_add(self.config.skew_ms()));
        if now > old {
            return Err(Cause::Time.into());
        }
        if ends.is_some() {
            self.ends(ends.as_deref(), now)?;
        }
        let name = name_id.filter(|name| is_id(name)).ok_or(Refusal::Subject)?;
        let response_url = at(&response_url, idp_slo)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take(id(b"logout", &request), old, now)?;
        Ok(Logout { name, sessions, response_url })
    }

    /// Begins a log-out at the provider, for somebody whose session here has ended: with [`Assertion::hint`] and
    /// [`Assertion::session`] of the assertion that opened it. `login` names the log-out among those that wait.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn begin_logout(
        &self,
        hint: &SecretString,
        session: Option<&str>,
        login: LoginId,
        now: Timestamp,
        random: &mut (dyn Random + Send),
    ) -> Result<(Url, PendingLogout), Refusal> {
        let idp_slo = self.logout_place()?;
        let relay_state = draw(random)?;
        let persistent = self.config.document.subject_attribute.is_none();
        let task = Task::BeginLogout {
            name_id: hint.expose_secret().to_owned(),
            name_format: persistent.then(|| PERSISTENT.to_owned()),
            session: session.map(str::to_owned),
            relay_state: relay_state.expose_secret().to_owned(),
        };
        let (url, request_id) = self.go(task, idp_slo, now).await?;
        Ok((url, PendingLogout { relay_state, request_id, begun_at: now, login }))
    }

    /// Verifies the provider's response to a log-out that began here: its session has ended too.
    ///
    /// # Errors
    /// [`Refusal`]; nobody knows then whether the provider's session has ended.
    pub async fn finish_logout(
        &self,
        pending: PendingLogout,
        message: &LogoutMessage,
        clock: Clock<'_>,
    ) -> Result<(), Refusal> {
        if pending.ended(clock()) {
            return Err(Refusal::Ended);
        }
        if !message.is_response {
            return Err(Refusal::Form);
        }
        self.logout_place()?;
        let task = Task::FinishLogout {
            incoming: message.incoming.clone(),
            relay_state: pending.relay_state.expose_secret().to_owned(),
            request_id: pending.request_id.clone(),
        };
        let Answer::LoggedOut { in_response_to, issuer } = self.ask(task, clock()).await? else {
            return Err(Refusal::Answer);
        };
        if issuer != self.config.document.idp_entity_id {
            return Err(Cause::Issuer.into());
        }
        if in_response_to.as_ref() != Some(&pending.request_id) {
            return Err(Cause::InResponseTo.into());
        }
        Ok(())
    }

    fn logout_place(&self) -> Result<&str, Refusal> {
        let place = self.config.document.idp_slo_url.as_deref();
        place.filter(|_| self.key.is_some()).ok_or(Refusal::NoLogout)
    }

    /// A request that the browser takes to the provider.
    async fn go(&self, task: Task, place: &str, now: Timestamp) -> Result<(Url, String), Refusal> {
        match self.ask(task, now).await? {
            Answer::Go { url, id } => Ok((at(&url, place)?, id)),
            _ => Err(Refusal::Answer),
        }
    }

    async fn ask(&self, task: Task, now: Timestamp) -> Result<Answer, Refusal> {
        let document = &self.config.document;
        let key = self.key.as_ref().map(|key| SpKey {
            key_pem: Zeroizing::new(key.key_pem.expose_secret().to_owned()),
            certificate_pem: key.certificate_pem.clone(),
        });
        // What verifies a response needs no key: the process gets none then.
        let key = key.filter(|_| !matches!(task, Task::Finish { .. }));
        let parties = Parties {
            sp_entity: document.sp_entity_id.clone(),
            acs: document.acs_url.clone(),
            sp_slo: document.slo_url.clone(),
            idp_entity: document.idp_entity_id.clone(),
            idp_sso: document.idp_sso_url.clone(),
            idp_slo: document.idp_slo_url.clone(),
            certificates: self.config.certificates.clone(),
            key,
            skew_ms: document.skew_s.saturating_mul(1000),
            force_authn: document.force_authn,
        };
        // Answers to sign-ins and log-outs that began here name one that waits; this one anybody can send.
        let from_stranger = matches!(task, Task::Logout { .. });
        match self.parser.ask(&Question { parties, now_ms: now.0, task }, from_stranger).await? {
            Answer::Refused(cause) => Err(cause.into()),
            answer => Ok(answer),
        }
    }
}

/// A URL of the parser's that leads to the provider's place and nowhere else.
fn at(url: &str, place: &str) -> Result<Url, Refusal> {
    let url = Url::parse(url).map_err(|_| Refusal::Answer)?;
    let mut bare = url.clone();
    bare.set_query(Url::parse(place).map_err(|_| Refusal::Answer)?.query());
    if bare.as_str() == place { Ok(url) } else { Err(Refusal::Answer) }
}

/// Whether a text can be an id: some characters, none of them a control character, no space around it that somebody
/// might cut off.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= SUBJECT_BYTES_MAX
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

fn id(kind: &[u8], value: &str) -> zixt_types::Hash {
    hash::sha384(labels::SSO_REPLAY, &[kind, value.as_bytes()])
}

fn draw(random: &mut (dyn Random + Send)) -> Result<SecretString, Refusal> {
    let mut bytes = Zeroizing::new([0; 32]);
    random.fill(bytes.as_mut_slice()).map_err(|_| Refusal::Random)?;
    Ok(SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}
