//! A directory: its servers, the sign-in of people, and the reading of everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zixt_identity::{Admitted, Issuer, Link, Proof, Voucher};
use zixt_types::Timestamp;

use crate::config::{Config, ConfigError, Kind, Secrets, Server};
use crate::connection::{Channel, Query, ServerError};
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

    /// As the directory has them now, without the roles that groups stand for.
    #[must_use]
    pub const fn person(&self) -> &Person {
        &self.person
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
    /// Reading everybody took longer than it may.
    #[error("the directory was not read within {seconds} s")]
    Slow {
        /// How long it may take.
        seconds: u64,
    },
}

impl Unavailable {
    /// Whether the account that reads was refused: waiting helps nobody, and trying again may lock it.
    #[must_use]
    pub fn refused_the_reader(&self) -> bool {
        matches!(self, Self::NoServer { tried } if tried.iter().any(|(_, error)| !error.tries_next()))
    }
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
    /// The server that answered last. Asked first, so that a dead one is not waited for at each sign-in, and so that
    /// update numbers stay those of one domain controller.
    preferred: AtomicUsize,
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
        let within = self.config.connect_timeout;
        let busy = Unavailable::Busy { max: self.config.binds_max };
        let Ok(Ok(_permit)) = timeout(within, self.binds.acquire()).await else { return Err(busy.into()) };
        let mut tried = Vec::new();
        for (at, server) in self.servers() {
            match self.bind_at(server, login, password, now).await {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return answer.map_err(|reason| Refused::because(reason).into());
                }
                Err(error) => {
                    log::warn!(target: "zixt::directory", "{} {server}: {error}", self.config.name);
                    let next = error.tries_next();
                    tried.push((server.to_string(), error));
                    if !next {
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
        let within = self.config.sync_timeout;
        let read = timeout(within, async {
            let mut tried = Vec::new();
            for (at, server) in self.servers() {
                match self.sync_at(server, old, now).await {
                    Ok((snapshot, faults, mode)) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        let (server, took) = (server.to_string(), begun.elapsed());
                        return Ok(Read { snapshot, faults, mode, server, took });
                    }
                    Err(error) => {
                        let next = error.tries_next();
                        tried.push((server.to_string(), error));
                        if !next {
                            break;
                        }
                    }
                }
            }
            Err(Unavailable::NoServer { tried })
        });
        read.await.unwrap_or(Err(Unavailable::Slow { seconds: within.as_secs() }))
    }

    /// The servers, the one that answered last first.
    fn servers(&self) -> impl Iterator<Item = (usize, &Server)> {
        let first = self.preferred.load(Ordering::Relaxed);
        let all = self.config.servers.iter().enumerate();
        let (preferred, others): (Vec<_>, Vec<_>) = all.partition(|(at, _)| *at == first);
        preferred.into_iter().chain(others)
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
        let mut searcher =
            channel.into_searcher(self.config.answer_timeout, self.config.message_bytes_max).await?;
        sync::read(&mut searcher, &self.config, old, now).await
    }

    /// The same steps for whoever it is: find, connect, sign in. Where nobody is found, the sign-in is tried on the decoy,
    /// with a password that is as long, so that the answer takes as long.
    async fn bind_at(
        &self,
        server: &Server,
        login: &str,
        password: &[u8],
        now: Timestamp,
    ) -> Result<Result<Bound, Refusal>, ServerError> {
        let found = self.find(server, login, now).await?;
        let mut channel = Channel::open(server, &self.tls, self.config.connect_timeout).await?;
        let within = self.config.answer_timeout;
        let answer = match &found {
            Ok((person, _)) => channel.bind(person.dn(), password, within).await?,
            Err(_) => {
                let filler = vec![b'~'; password.len()];
                channel.bind(&self.decoy_dn(), &filler, within).await?
            }
        };
        channel.close().await;
        let (person, must_change) = match found {
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
            Verdict::Accepted if must_change => Ok(Err(Refusal::MustChangePassword)),
            Verdict::Accepted => Ok(Ok(Bound { link: self.issuer.link(person.id().as_bytes()), person })),
        }
    }

    /// The one person who signs in under this name, and whether they have to choose another password first.
    async fn find(
        &self,
        server: &Server,
        login: &str,
        now: Timestamp,
    ) -> Result<Result<(Person, bool), Refusal>, ServerError> {
        let config = &self.config;
        let key = login_key(login);
        let channel = self.service(server).await?;
        let mut searcher = channel.into_searcher(config.answer_timeout, config.message_bytes_max).await?;
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
                    let must_change = person::must_change(&entry, config.kind);
                    people.extend(person::read(&entry, config, now).map(|person| (person, must_change)));
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
            (1, Some((person, must_change)))
                if key.is_some() && person.login().and_then(login_key) == key =>
            {
                Ok((person, must_change))
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
