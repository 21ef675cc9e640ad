//! A directory: its servers, the sign-in of people, and the reading of everybody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zixt_identity::{Admitted, Issuer, Link, Proof, Voucher};
use zixt_types::Timestamp;

use crate::config::{Config, ConfigError, Kind, Secrets, Server};
use crate::connection::{Bounds, Channel, Query, ServerError};
use crate::limits;
use crate::person;
use crate::refusal::{Refusal, Refused, Verdict, verdict};
use crate::snapshot::{Person, PersonId, Snapshot, login_key};
use crate::sync::{self, Read};
use crate::tls;

/// A person whose password a directory has just accepted. Used up by [`Directory::vouch`].
#[derive(Debug)]
pub struct Bound {
    link: Link,
    person: Person,
}

impl Bound {
    /// By which the server finds the account.
    #[must_use]
    pub const fn link(&self) -> Link {
        self.link
    }

    /// The id that never changes.
    #[must_use]
    pub const fn id(&self) -> &PersonId {
        self.person.id()
    }

    /// The login name, as the directory spells it. Everything else of a person, their roles above all, is in the snapshot:
    /// groups are not read when somebody signs in.
    #[must_use]
    pub fn login(&self) -> &str {
        self.person.login().unwrap_or_default()
    }
}

/// Why somebody was not let in.
#[derive(Debug, Error)]
pub enum BindError {
    /// The directory does not let them in. One answer for whatever reason.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No server of the directory could say.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a directory could not be asked.
#[derive(Debug, Error)]
pub enum Unavailable {
    /// None of its servers was of use.
    #[error("no server of the directory is of use: {}", each(.tried))]
    NoServer {
        /// Each with its reason, in the order in which they were asked.
        tried: Vec<(String, ServerError)>,
    },
    /// As many sign-ins as it takes are under way.
    #[error("{max} sign-ins at the directory are under way already")]
    Busy {
        /// How many it takes.
        max: usize,
    },
    /// The account that reads was refused a moment ago. Nothing was asked: each try counts there, and a sign-in of everybody
    /// in the morning would lock it.
    #[error(
        "the account that reads was refused; nobody is signed in for {seconds} s, or until a round succeeds"
    )]
    ReaderRefused {
        /// For how long, from now.
        seconds: u64,
    },
    /// A server has the password, and gave no answer that says anything. No other server was asked. The attempt must not be
    /// given back: the server may have counted it, and who brings about that no answer comes would guess without an end.
    #[error("{server} has the password and gave no clear answer: {error}")]
    Unclear {
        /// Which server.
        server: String,
        /// What came instead.
        error: ServerError,
    },
}

impl Unavailable {
    /// Whether the account that reads was refused: waiting helps nobody, and trying again may lock it.
    #[must_use]
    pub fn refused_the_reader(&self) -> bool {
        match self {
            Self::NoServer { tried } => tried.iter().any(|(_, error)| !error.tries_next()),
            Self::ReaderRefused { .. } => true,
            Self::Busy { .. } | Self::Unclear { .. } => false,
        }
    }

    /// Whether the attempt stays counted as a wrong password. Of all others the password was seen by nobody, and they are
    /// given back.
    #[must_use]
    pub const fn counts(&self) -> bool {
        matches!(self, Self::Unclear { .. })
    }
}

/// The longest pause while the account that reads is refused, in intervals: with the default, a quarter of an hour. Each try
/// is a wrong password to the directory, which may lock the account.
pub(crate) const REFUSED_INTERVALS_MAX: u32 = 16;

/// Somebody who was found, and what the entry says of their password, if that keeps them out.
type Known = (Person, Option<Refusal>);

/// How long the next of `servers` may take, so that something is left for the others.
fn share(deadline: Instant, servers: usize) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left / u32::try_from(servers.max(1)).unwrap_or(u32::MAX)
}

fn each(tried: &[(String, ServerError)]) -> String {
    tried.iter().map(|(server, error)| format!("{server}: {error}")).collect::<Vec<_>>().join("; ")
}

/// One directory. There is one value of it for each, because it has the one [`Issuer`].
pub struct Directory {
    config: Config,
    issuer: Issuer,
    password: SecretString,
    tls: Arc<ClientConfig>,
    binds: Semaphore,
    /// The server from which everybody was read last. Asked first, so that update numbers stay those of one domain controller.
    preferred: AtomicUsize,
    /// The server that answered the last sign-in. Asked first, so that a dead one is not waited for at each.
    preferred_at_sign_in: AtomicUsize,
    /// Until when nobody is signed in, because the account that reads was refused.
    refused_until: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("name", &self.config.name()).finish_non_exhaustive()
    }
}

impl Directory {
    /// Nothing is asked yet. `issuer` is what `main` made for this directory: [`Issuer::directory`] of [`Config::issuer`].
    ///
    /// # Errors
    /// [`ConfigError`], if the certificates or the password are of no use, or the issuer is another one's.
    pub fn new(config: Config, issuer: Issuer, secrets: Secrets) -> Result<Self, ConfigError> {
        if issuer.id() != config.issuer() {
            return Err(ConfigError::Setting {
                setting: "issuer",
                why: "the one that the directory is handed",
            });
        }
        let password = secrets.password.expose_secret();
        if password.is_empty() || password.len() > limits::PASSWORD_BYTES_MAX {
            let why = "a password for the account that reads, not empty and not too long";
            return Err(ConfigError::Setting { setting: "password", why });
        }
        let tls = tls::client_config(&secrets.authority_pem, config.key_exchange)?;
        Ok(Self {
            issuer,
            binds: Semaphore::new(config.binds_max),
            preferred: AtomicUsize::new(0),
            preferred_at_sign_in: AtomicUsize::new(0),
            refused_until: Mutex::new(None),
            password: secrets.password,
            config,
            tls,
        })
    }

    /// Its settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Under which name it vouches. It makes links; vouchers are made by [`Self::vouch`].
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Asks the directory whether this is the password of whoever signs in under this name. Only after the attempt was
    /// admitted: the password counts as a try here and there.
    ///
    /// It takes at most one `connect_timeout` for its turn, three for finding the person at whichever server is of use, and
    /// one `answer_timeout` for the answer.
    ///
    /// # Errors
    /// [`BindError`]
    pub async fn bind(&self, login: &str, password: &[u8], now: Timestamp) -> Result<Bound, BindError> {
        // RFC 4513 section 5.1.2: a name with an empty password is an anonymous sign-in, which succeeds. So it never
        // leaves this function; `Channel::bind` checks it once more.
        if password.is_empty() {
            return Err(Refused::because(Refusal::EmptyPassword).into());
        }
        if password.len() > limits::PASSWORD_BYTES_MAX {
            return Err(Refused::because(Refusal::TooLong).into());
        }
        if password.contains(&0) {
            return Err(Refused::because(Refusal::Nul).into());
        }
        if let Some(left) = self.reader_is_refused() {
            return Err(Unavailable::ReaderRefused { seconds: left.as_secs() }.into());
        }
        let within = self.config.connect_timeout;
        let busy = Unavailable::Busy { max: self.config.binds_max };
        let Ok(Ok(_permit)) = timeout(within, self.binds.acquire()).await else { return Err(busy.into()) };
        let deadline = Instant::now() + within * 3;
        let servers = self.servers(&self.preferred_at_sign_in);
        let mut tried = Vec::new();
        for (place, (at, server)) in servers.iter().enumerate() {
            let within = share(deadline, servers.len() - place);
            let late = ServerError::Timeout { what: "finding somebody", seconds: within.as_secs() };
            match timeout(within, self.find_and_connect(server, login, now)).await.unwrap_or(Err(late)) {
                Ok((found, channel)) => {
                    let answer = self.try_password(channel, found, password, now).await;
                    let prefer = if answer.is_ok() { *at } else { (at + 1) % servers.len() };
                    self.preferred_at_sign_in.store(prefer, Ordering::Relaxed);
                    return match answer {
                        Ok(answer) => answer.map_err(|reason| Refused::because(reason).into()),
                        // The server has the password. Nobody else gets it.
                        Err(error) => {
                            let unclear = Unavailable::Unclear { server: server.to_string(), error };
                            log::warn!(target: "zixt::directory", "{}: {unclear}", self.config.name);
                            Err(unclear.into())
                        }
                    };
                }
                Err(error) => {
                    log::warn!(target: "zixt::directory", "{} {server}: {error}", self.config.name);
                    let next = error.tries_next();
                    tried.push((server.to_string(), error));
                    if !next {
                        self.reader_was_refused();
                        break;
                    }
                }
            }
        }
        Err(Unavailable::NoServer { tried }.into())
    }

    /// Vouches for whoever has just been let in, for the sign-in whose attempt was admitted before.
    #[must_use]
    pub fn vouch(&self, bound: Bound, admitted: &Admitted, wall: Timestamp) -> Voucher {
        self.issuer.vouch(admitted, bound.id().as_bytes(), wall)
    }

    /// What a refused sign-in counts as.
    #[must_use]
    pub const fn refuse(&self) -> Proof {
        self.issuer.refuse()
    }

    /// Reads everybody, by what changed since `old` where that can be told.
    ///
    /// # Errors
    /// [`Unavailable`]. A list that is not complete is never a result.
    pub async fn sync(&self, old: Option<&Snapshot>, now: Timestamp) -> Result<Read, Unavailable> {
        let begun = Instant::now();
        let deadline = begun + self.config.sync_timeout;
        let servers = self.servers(&self.preferred);
        let mut tried = Vec::new();
        for (place, (at, server)) in servers.iter().enumerate() {
            // Each has a share of the time, so that one that is slow keeps nobody from the next.
            let within = share(deadline, servers.len() - place);
            let late = ServerError::Timeout { what: "reading everybody", seconds: within.as_secs() };
            match timeout(within, self.sync_at(server, old, now)).await.unwrap_or(Err(late)) {
                Ok((snapshot, faults, mode)) => {
                    self.preferred.store(*at, Ordering::Relaxed);
                    *self.refused_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Ok(Read {
                        snapshot,
                        faults,
                        mode,
                        server: server.to_string(),
                        took: begun.elapsed(),
                    });
                }
                Err(error) => {
                    let next = error.tries_next();
                    tried.push((server.to_string(), error));
                    if !next {
                        self.reader_was_refused();
                        break;
                    }
                }
            }
        }
        Err(Unavailable::NoServer { tried })
    }

    fn reader_was_refused(&self) {
        let most = Duration::from_secs(limits::READER_REFUSED_S_MAX);
        let pause = self.config.interval.saturating_mul(REFUSED_INTERVALS_MAX).min(most);
        *self.refused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
    }

    /// For how much longer, if it is.
    fn reader_is_refused(&self) -> Option<Duration> {
        let until = *self.refused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now())
    }

    /// The servers, the preferred one first.
    fn servers(&self, preferred: &AtomicUsize) -> Vec<(usize, &Server)> {
        let first = preferred.load(Ordering::Relaxed);
        let all = self.config.servers.iter().enumerate();
        let (mut servers, others): (Vec<_>, Vec<_>) = all.partition(|(at, _)| *at == first);
        servers.extend(others);
        servers
    }

    async fn service(&self, server: &Server) -> Result<Channel, ServerError> {
        let within = self.config.connect_timeout;
        let mut channel = Channel::open(server, &self.tls, within).await?;
        let password = self.password.expose_secret().as_bytes();
        let result = channel.bind(&self.config.bind_dn, password, within).await?;
        match verdict(self.config.kind, &result) {
            Verdict::Accepted => Ok(channel),
            Verdict::Refused(_) => {
                Err(ServerError::Service { code: result.code, diagnostic: result.diagnostic })
            }
            Verdict::CannotSay => {
                let (code, diagnostic) = (result.code, result.diagnostic);
                Err(ServerError::Result { what: "the sign-in of the account that reads", code, diagnostic })
            }
        }
    }

    async fn sync_at(
        &self,
        server: &Server,
        old: Option<&Snapshot>,
        now: Timestamp,
    ) -> Result<(Snapshot, crate::Faults, sync::Mode), ServerError> {
        let channel = self.service(server).await?;
        let bounds =
            Bounds { message_bytes: self.config.message_bytes_max, exchange_bytes: limits::SYNC_BYTES_MAX };
        let (kind, within) = (self.config.kind, self.config.answer_timeout);
        let mut searcher = channel.into_searcher(kind, within, bounds).await?;
        sync::read(&mut searcher, &self.config, old, now).await
    }

    /// The same steps for whoever it is: find, connect, sign in. Nothing here sends the password that is tried.
    async fn find_and_connect(
        &self,
        server: &Server,
        login: &str,
        now: Timestamp,
    ) -> Result<(Result<Known, Refusal>, Channel), ServerError> {
        let found = self.find(server, login, now).await?;
        let channel = Channel::open(server, &self.tls, self.config.connect_timeout).await?;
        Ok((found, channel))
    }

    /// Where nobody is found, the sign-in is tried on the decoy, with a password that is as long, so that the answer takes as
    /// long. After an error the server may have the password.
    async fn try_password(
        &self,
        mut channel: Channel,
        found: Result<Known, Refusal>,
        password: &[u8],
        now: Timestamp,
    ) -> Result<Result<Bound, Refusal>, ServerError> {
        let within = self.config.answer_timeout;
        let answer = match &found {
            Ok((person, _)) => channel.bind(person.dn(), password, within).await?,
            Err(_) => {
                let filler = vec![b'~'; password.len()];
                channel.bind(&self.decoy_dn(), &filler, within).await?
            }
        };
        channel.close().await;
        let (person, of_password) = match found {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        match verdict(self.config.kind, &answer) {
            Verdict::Refused(reason) => Ok(Err(reason)),
            Verdict::CannotSay => Err(ServerError::Result {
                what: "a sign-in",
                code: answer.code,
                diagnostic: answer.diagnostic,
            }),
            // Not every directory asks its own marks when somebody signs in.
            Verdict::Accepted if person.disabled => Ok(Err(Refusal::Disabled)),
            Verdict::Accepted if !person.is_enabled(now) => Ok(Err(Refusal::Expired)),
            Verdict::Accepted if let Some(reason) = of_password => Ok(Err(reason)),
            Verdict::Accepted => Ok(Ok(Bound { link: self.issuer.link(person.id().as_bytes()), person })),
        }
    }

    /// The one person who signs in under this name.
    async fn find(
        &self,
        server: &Server,
        login: &str,
        now: Timestamp,
    ) -> Result<Result<Known, Refusal>, ServerError> {
        let config = &self.config;
        let key = login_key(login);
        let channel = self.service(server).await?;
        let bounds = Bounds {
            message_bytes: config.message_bytes_max.min(limits::SIGN_IN_MESSAGE_BYTES_MAX),
            exchange_bytes: limits::SIGN_IN_BYTES_MAX,
        };
        let mut searcher = channel.into_searcher(config.kind, config.answer_timeout, bounds).await?;
        // What nobody is called is asked for all the same, by a name that is as short as any.
        let login = if key.is_some() { login } else { "\u{fffd}" };
        let filter =
            format!("(&{}({}={}))", config.person_filter, config.attributes.login, ldap3::ldap_escape(login));
        let attributes = person::attributes(config);
        let (mut entries, mut people) = (0, Vec::new());
        for base in &config.people {
            let query = Query { base, whole_subtree: true, filter: &filter, attributes: &attributes };
            let more = searcher
                .few(query, 2, &mut |entry| {
                    entries += 1;
                    let of_password = person::of_password(&entry, config.kind, now);
                    people.extend(person::read(&entry, config, now).map(|person| (person, of_password)));
                    Ok(())
                })
                .await?;
            entries += usize::from(more) * 2;
        }
        Ok(match (entries, people.pop()) {
            (0, _) => Err(Refusal::UnknownLogin),
            // The entry has the name among several, or no id: it is nobody's.
            (1, None) => Err(Refusal::NoId),
            (1, Some((person, _))) if person.login().is_none() => Err(Refusal::SharedLogin),
            // Directories find `p001` by `p001 ` and by other letters that look the same, too. Tries are counted by one
            // spelling, and so one spelling signs in.
            (1, Some((person, of_password)))
                if key.is_some() && person.login().and_then(login_key) == key =>
            {
                Ok((person, of_password))
            }
            (1, Some(_)) => Err(Refusal::UnknownLogin),
            _ => Err(Refusal::SharedLogin),
        })
    }

    fn decoy_dn(&self) -> String {
        let config = &self.config;
        config.decoy_dn.clone().unwrap_or_else(|| {
            let kind = if config.kind == Kind::ActiveDirectory { "CN" } else { "uid" };
            format!("{kind}=zixt-decoy,{}", config.people.first().map_or("", String::as_str))
        })
    }
}
