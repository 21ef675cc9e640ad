//! Identity providers: whoever they vouch for comes in, as the account that is linked to them (decision 0017).
//!
//! A sign-in begins without a name. What waits for the browser is bound to a secret in its cookie; only when the provider's
//! word is verified is the account looked up by its link, and a sign-in of the machine begun, counted and concluded.

use super::directories::issuer_text;
use super::logins::Named as Under;
use super::sign_in::Shown;
use super::{Access, Door};
use crate::access::sign_in::Proven;
use crate::health;
use secrecy::SecretString;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use zixt_api::{ErrorCode, FactorKind, IdpInfo, Problem, Renewed, SignInWay};
use zixt_crypto::fill_random;
use zixt_identity::{Admitted, Caller, Factor, Issuer, IssuerId, Link, Login, Named, Network, Proof, Start};
use zixt_sso::oidc::{Callback, Config, Pending, Provider, Refusal, TokenError};
use zixt_sso::{Assertion, Browser, PENDING_MS, Waiting, Waits as _};
use zixt_types::{AccountId, LoginId, SessionId, Timestamp};

/// Sign-ins of one network that wait for a provider.
const EACH_MAX: usize = 64;
/// Networks whose sign-ins are counted apart.
const NETWORKS_MAX: usize = 4096;

/// What an identity provider is set up with.
pub struct SsoProvider {
    /// What people call it.
    pub name: String,
    /// Under which name it vouches.
    pub issuer: Issuer,
    /// Its settings.
    pub config: Config,
    /// The secret that it knows us by.
    pub secret: SecretString,
}

/// An identity provider, and who is there at the moment.
pub(crate) struct Idp {
    name: String,
    issuer: Issuer,
    config: Config,
    secret: SecretString,
    provider: RwLock<Option<Arc<Provider>>>,
    last_error: Mutex<Option<String>>,
    flows: Mutex<Flows>,
}

#[derive(Default)]
struct Flows {
    waiting: Waiting<Pending>,
    /// Of each network: the names of its flows, the oldest first.
    of: HashMap<Option<Network>, VecDeque<String>>,
    /// Flows that end in a link, with whose.
    links: HashMap<LoginId, (Caller, Timestamp)>,
}

/// What a browser brings back that began here.
pub(crate) struct Flow {
    pub(crate) id: LoginId,
    pub(crate) secret: [u8; 32],
}

/// Where a browser goes, and what it has to bring back.
pub(crate) struct Begun {
    pub(crate) url: String,
    pub(crate) flow: Flow,
}

/// What came of it.
pub(crate) enum Ended {
    /// A sign-in, whatever came of it.
    SignedIn(Box<Proven>),
    /// An account was linked.
    Linked { account: AccountId, done: Result<Renewed, Problem> },
}

/// The word of a provider, or that there is none.
pub(super) struct Word {
    idp: Arc<Idp>,
    assertion: Option<Box<Assertion>>,
}

impl Word {
    pub(super) fn proof(self, admitted: &Admitted, wall: Timestamp) -> Proof {
        let issuer = &self.idp.issuer;
        match self.assertion {
            None => issuer.refuse(),
            Some(assertion) => {
                let voucher = issuer.vouch(admitted, assertion.unchanging_id(), wall);
                Proof::Voucher(match assertion.session() {
                    Some(session) => voucher.of_session(issuer.session(session.as_bytes())),
                    None => voucher,
                })
            }
        }
    }
}

/// Whether it is nobody's fault who signs in: the provider does not answer well, or the person came too late or turned back.
fn blames_nobody(refusal: &Refusal) -> bool {
    refusal.is_unavailable()
        || matches!(
            refusal,
            Refusal::Keys(_)
                | Refusal::Answer(_)
                | Refusal::Denied(_)
                | Refusal::Ended
                | Refusal::OtherBrowser
                | Refusal::Token(TokenError::UnknownKey)
        )
}

fn clock() -> Timestamp {
    health::now()
}

fn unknown() -> Problem {
    Problem::new(ErrorCode::UnknownDirectory, "no identity provider here has this name")
}

impl Idp {
    pub(super) fn new(set: SsoProvider) -> Self {
        let SsoProvider { name, issuer, config, secret } = set;
        let (provider, flows, last_error) = (RwLock::default(), Mutex::default(), Mutex::default());
        Self { name, issuer, config, secret, provider, last_error, flows }
    }

    pub(crate) fn id(&self) -> IssuerId {
        self.issuer.id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        // Only maps are changed under it.
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn provider(&self) -> Result<Arc<Provider>, Problem> {
        let found = self.provider.read().unwrap_or_else(PoisonError::into_inner).clone();
        found.ok_or_else(|| {
            Problem::new(ErrorCode::SignInUnavailable, "the identity provider has not answered yet")
        })
    }

    /// Asks the provider for its metadata, unless it has given them. `true` if it has.
    pub(crate) async fn discover(&self) -> bool {
        if self.provider().is_ok() {
            return true;
        }
        let found = Provider::discover(self.config.clone(), self.secret.clone(), &clock).await;
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(provider) => {
                log::info!("identity provider {}: ready", self.name);
                *last = None;
                *self.provider.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(provider));
                true
            }
            Err(error) => {
                let text = crate::logging::chain(&error);
                if last.as_ref() != Some(&text) {
                    log::warn!("identity provider {}: {text}", self.name);
                }
                *last = Some(text);
                false
            }
        }
    }

    fn info(&self) -> IdpInfo {
        IdpInfo {
            issuer: issuer_text(self.id()),
            name: self.name.clone(),
            ready: self.provider().is_ok(),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn begin(&self, network: Option<Network>, link: Option<Caller>) -> Result<Begun, Problem> {
        let provider = self.provider()?;
        let unavailable = |why: String| Problem::new(ErrorCode::SignInUnavailable, why);
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        fill_random(&mut id).map_err(|error| unavailable(error.to_string()))?;
        fill_random(&mut secret).map_err(|error| unavailable(error.to_string()))?;
        let (id, now) = (LoginId(id), clock());
        let begun = provider.begin(id, Browser::of(&secret), now, &mut fill_random);
        let begun = begun.map_err(|error| unavailable(error.to_string()))?;
        let mut flows = self.flows();
        let flows = &mut *flows;
        // Whoever begins too many loses their own oldest.
        let name = begun.pending.handle().to_owned();
        if flows.of.len() >= NETWORKS_MAX && !flows.of.contains_key(&network) {
            flows.of.clear();
        }
        let own = flows.of.entry(network).or_default();
        own.push_back(name);
        while own.len() > EACH_MAX {
            let oldest = own.pop_front();
            if let Some(pending) = flows.waiting.take(oldest.as_deref()) {
                flows.links.remove(&pending.login());
            }
        }
        flows.waiting.keep(begun.pending, now).map_err(|error| unavailable(error.to_string()))?;
        if let Some(caller) = link {
            flows.links.retain(|_, (_, at)| now.0.saturating_sub(at.0) <= PENDING_MS);
            flows.links.insert(id, (caller, now));
        }
        Ok(Begun { url: begun.url.to_string(), flow: Flow { id, secret } })
    }
}

impl Access {
    /// The identity providers of the configuration.
    pub(crate) fn idps(&self) -> &[Arc<Idp>] {
        &self.idps
    }

    /// One, by its issuer.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn idp(&self, issuer: IssuerId) -> Result<Arc<Idp>, Problem> {
        self.idps.iter().find(|idp| idp.id() == issuer).cloned().ok_or_else(unknown)
    }

    /// How they are.
    pub(crate) fn idp_infos(&self) -> Vec<IdpInfo> {
        self.idps.iter().map(|idp| idp.info()).collect()
    }

    pub(super) fn idp_ways(&self) -> impl Iterator<Item = SignInWay> {
        self.idps.iter().map(|idp| SignInWay {
            issuer: issuer_text(idp.id()),
            name: idp.name.clone(),
            factor: FactorKind::Sso,
        })
    }

    /// Begins a sign-in at a provider.
    ///
    /// # Errors
    /// There is none of this name, it does not answer, or too many wait for it.
    pub(crate) fn begin_sso(&self, door: &Door, issuer: IssuerId) -> Result<Begun, Problem> {
        self.idp(issuer)?.begin(door.network, None)
    }

    /// Begins to link the caller's account to whoever they are at a provider.
    ///
    /// # Errors
    /// The caller may not now, or as for a sign-in.
    pub(crate) fn begin_sso_link(
        &self,
        door: &Door,
        caller: Caller,
        issuer: IssuerId,
    ) -> Result<Begun, Problem> {
        self.require_own(&caller)?;
        self.idp(issuer)?.begin(door.network, Some(caller))
    }

    /// Ends what a browser began: the provider's answer has come back.
    ///
    /// # Errors
    /// It is no answer to anything that began in this browser, or the provider cannot be asked.
    pub(crate) async fn finish_sso(
        &self,
        door: &Door,
        issuer: IssuerId,
        flow: Option<Flow>,
        query: &str,
    ) -> Result<Ended, Problem> {
        let idp = self.idp(issuer)?;
        let provider = idp.provider()?;
        let nothing = |why: &str| Problem::new(ErrorCode::UnknownSignIn, why);
        let callback = Callback::parse(query);
        let callback =
            callback.map_err(|error| Problem::new(ErrorCode::MalformedRequest, error.to_string()))?;
        let flow = flow.ok_or_else(|| nothing("no sign-in has begun in this browser"))?;
        let (pending, link) = {
            let mut flows = idp.flows();
            let pending = flows.waiting.take(callback.state());
            // What was begun as a link ends as one, or not at all: it goes with what waits, and not with the cookie.
            let link = pending.as_ref().and_then(|pending| flows.links.remove(&pending.login()));
            (pending, link)
        };
        let pending = pending.ok_or_else(|| nothing("no sign-in waits for this answer, or no longer"))?;
        let browser = Browser::of(&flow.secret);
        let finished = provider.finish(pending, flow.id, &browser, &callback, &clock).await;
        let assertion = match finished {
            Ok(assertion) => assertion,
            Err(refusal) if blames_nobody(&refusal) => {
                log::warn!("identity provider {}: {}", idp.name, refusal.code());
                return Err(Problem::new(
                    ErrorCode::SignInUnavailable,
                    "the identity provider cannot be asked now",
                ));
            }
            Err(refusal) => {
                let told = Problem::new(ErrorCode::SignInRefused, zixt_identity::Step::REFUSED);
                if let Some((caller, _)) = link {
                    log::info!("identity provider {}: {}", idp.name, refusal.code());
                    return Ok(Ended::Linked { account: caller.account(), done: Err(told) });
                }
                let code = refusal.code().to_owned();
                let mut proven = self.prove_sso(door, &idp, None).await?;
                proven.because = Some(code);
                return Ok(Ended::SignedIn(Box::new(proven)));
            }
        };
        match link {
            Some((caller, _)) => {
                let link = assertion.link(&idp.issuer);
                let done = self.change_links(&caller, |record, authority| record.link(authority, link)).await;
                Ok(Ended::Linked { account: caller.account(), done })
            }
            None => self.prove_sso(door, &idp, Some(assertion)).await.map(|it| Ended::SignedIn(Box::new(it))),
        }
    }

    /// A sign-in of the machine, of whoever is linked to the person of the assertion.
    async fn prove_sso(
        &self,
        door: &Door,
        idp: &Arc<Idp>,
        assertion: Option<Assertion>,
    ) -> Result<Proven, Problem> {
        let link = assertion.as_ref().map(|assertion| assertion.link(&idp.issuer));
        let mapped = match (&link, &assertion) {
            (Some(link), Some(assertion)) => self.map_sso_roles(idp, link, assertion).await?,
            _ => None,
        };
        let id = {
            let now = self.now();
            let mut inner = self.inner()?;
            let account = link.as_ref().and_then(|link| inner.accounts.linked(link));
            // Those whom nobody here is linked to are counted together, with the network that they come from.
            let spelling = format!("{}/", issuer_text(idp.id()));
            let start = Start {
                genesis: self.genesis,
                appliance: self.me,
                who: account.map_or(Named::Nobody(&spelling), Named::Account),
                origin: door.origin(),
                channel: door.channel(),
            };
            let login = Login::begin(&self.policy, &inner.attempts, &start, now, &mut fill_random)
                .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
            let id = login.id();
            inner.logins.begin(door.beginner(), login, Under { spelling: spelling.into(), at: None });
            id
        };
        let word = Word { idp: Arc::clone(idp), assertion: assertion.map(Box::new) };
        let mut proven = self.prove_shown(door, id, Factor::Sso, Ok(Shown::Word(word))).await;
        proven.mapped = mapped;
        Ok(proven)
    }

    /// Gives the account the roles that its person's groups stand for, before they come in.
    async fn map_sso_roles(
        &self,
        idp: &Idp,
        link: &Link,
        assertion: &Assertion,
    ) -> Result<Option<zixt_identity::Roles>, Problem> {
        if !idp.config.maps_roles() {
            return Ok(None);
        }
        let wanted: Vec<_> = assertion.roles().iter().copied().collect();
        let roles = zixt_identity::Roles::new(&wanted).unwrap_or(zixt_identity::Roles::USER);
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let change = {
            let inner = self.inner()?;
            let record = inner.accounts.linked(link).and_then(|account| inner.accounts.get(&account));
            let record = record.filter(|record| record.is_active());
            record.and_then(|record| record.map_roles(idp.id(), roles).ok().flatten())
        };
        match change {
            Some(change) => self.carry_out(&keys, change, Vec::new()).await.map(|()| Some(roles)),
            None => Ok(None),
        }
    }

    /// Ends the sessions that rest on a provider's word about somebody or about one session there. Gives how many.
    ///
    /// # Errors
    /// The token is not the provider's word, or nothing can be ended now.
    pub(crate) async fn end_by_idp(&self, issuer: IssuerId, token: &str) -> Result<Vec<SessionId>, Problem> {
        let idp = self.idp(issuer)?;
        // Before the provider's word is used up: it is asked for again only if it is refused.
        let keys = self.keys()?;
        drop(self.inner()?);
        let logout = idp.provider()?.back_channel_logout(token, &clock).await.map_err(|refusal| {
            log::warn!("identity provider {}: log-out: {}", idp.name, refusal.code());
            let code = if refusal.is_unavailable() {
                ErrorCode::SignInUnavailable
            } else {
                ErrorCode::MalformedRequest
            };
            Problem::new(code, "the log-out is not taken")
        })?;
        let subject = logout.unchanging_id().map(|id| idp.issuer.link(id));
        let session = logout.session().map(|session| idp.issuer.session(session.as_bytes()));
        let _alone = self.writing.lock().await;
        let ended = {
            let mut inner = self.inner()?;
            let ended = inner.sessions.revoke_vouched(issuer, subject.as_ref(), session.as_ref());
            ended.iter().for_each(|session| inner.forget(*session));
            ended
        };
        self.ended.send_replace(());
        self.write_pending(&keys, Vec::new()).await?;
        Ok(ended)
    }

    /// Where a browser goes after its session here has ended, so that the provider's ends too.
    ///
    /// # Errors
    /// There is no such provider, or it has no such place.
    pub(crate) fn idp_logout_url(&self, issuer: IssuerId) -> Result<String, Problem> {
        let url = self.idp(issuer)?.provider()?.logout_url(None, None);
        url.map(String::from).ok_or_else(|| {
            Problem::new(ErrorCode::UnknownDirectory, "the identity provider takes no log-outs")
        })
    }
}
