//! The settings of one directory. [`Document`] is what an administrator writes; [`Config`] is what has been checked.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zixt_crypto::{hash, labels};
use zixt_identity::{IssuerId, Role};
use zixt_types::Hash;

use crate::dn::Dn;
use crate::limits;
use crate::tls::{AuthorityError, KeyExchange};

/// What kind of directory it is. It decides what is assumed where the settings say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// LDAP version 3 with `entryUUID` (RFC 4530): OpenLDAP, 389 Directory Server, FreeIPA and others.
    Ldap,
    /// Active Directory, or Samba in its place.
    ActiveDirectory,
}

/// How the id that never changes is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdSyntax {
    /// As the text of a UUID (RFC 9562 section 4). It counts as its 16 bytes.
    Uuid,
    /// As bytes that mean nothing else.
    Octets,
}

/// A group of the directory whose members are wanted in a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// The group's distinguished name.
    pub group: String,
    /// `user` or `operator`. A directory maps to no privileged role.
    pub role: String,
}

/// The settings as they are written. Every field that is left out has the value that its comment names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What people call it.
    pub name: String,
    /// The issuer's id, in 32 hexadecimal digits: drawn at random once, and never again for this directory.
    pub issuer: String,
    /// What kind it is.
    pub kind: Kind,
    /// Where it answers, in the order of preference: `ldaps://host[:636]`, or `ldap://host[:389]` with StartTLS, which
    /// is mandatory there. Hosts are checked against the certificates.
    pub servers: Vec<String>,
    /// Which key exchange it has to offer. `hybrid-preferred`
    #[serde(default)]
    pub key_exchange: KeyExchange,
    /// The account that reads.
    pub bind_dn: String,
    /// Below which entries people are.
    pub people: Vec<String>,
    /// Below which entries groups are. The same as people's
    #[serde(default)]
    pub groups: Vec<String>,
    /// Which entries are people. `(objectClass=inetOrgPerson)`; in Active Directory
    /// `(&(objectCategory=person)(objectClass=user))`
    pub person_filter: Option<String>,
    /// Which entries are groups. Groups of names, of unique names, and of RFC 2307 (`posixGroup`, whose members are values of
    /// `uid`); Active Directory resolves members itself, by its matching rule.
    pub group_filter: Option<String>,
    /// The attribute with the id that never changes. `entryUUID`; `objectGUID`
    pub id_attribute: Option<String>,
    /// How it is written. `uuid`; `octets` in Active Directory
    pub id_syntax: Option<IdSyntax>,
    /// The attribute that people type. `uid`; `sAMAccountName`
    pub login_attribute: Option<String>,
    /// The attribute with the name that is shown. `cn`; `displayName`
    pub name_attribute: Option<String>,
    /// The attribute with the mail address. `mail`
    pub mail_attribute: Option<String>,
    /// The attribute that another version of an entry has another value of. `entryCSN`, which OpenLDAP has;
    /// `uSNChanged` in Active Directory. Elsewhere `modifyTimestamp`: see [`Config::version_attribute`].
    pub version_attribute: Option<String>,
    /// An entry that a sign-in under an unknown name is tried on, so that it takes as long as any other: one that
    /// exists, with a password that nobody knows. Without it, a name below the first of `people`.
    pub decoy_dn: Option<String>,
    /// Groups that stand for roles. None
    #[serde(default)]
    pub roles: Vec<RoleRule>,
    /// Entries in one page (RFC 2696). 500; servers of Active Directory give at most 1,000.
    pub page_size: Option<u32>,
    /// Bytes of one answer. 24 MiB
    pub message_bytes_max: Option<usize>,
    /// Seconds between synchronisations. 60
    pub interval_s: Option<u64>,
    /// Seconds for a connection with TLS and sign-in. 5
    pub connect_timeout_s: Option<u64>,
    /// Seconds for one answer. 30
    pub answer_timeout_s: Option<u64>,
    /// Seconds for a whole synchronisation. 600
    pub sync_timeout_s: Option<u64>,
    /// Sign-ins at one time. 8
    pub binds_max: Option<usize>,
    /// People who may lose something in one synchronisation without an officer's word, whatever the share. 10
    pub safe_people: Option<u32>,
    /// The same, in percent of all who had something to lose. 20
    pub safe_percent: Option<u32>,
}

/// Why settings are refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A setting has a value that it cannot have.
    #[error("{setting}: {why}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What it would have to be.
        why: &'static str,
    },
    /// A URL is none of those that are spoken.
    #[error("servers: {url:?} is not ldaps://host[:port] or ldap://host[:port]")]
    Url {
        /// As it was written.
        url: String,
    },
    /// A role that no directory gives.
    #[error("roles: {role:?} is not a role that a directory may map to; known are user and operator")]
    Role {
        /// As it was written.
        role: String,
    },
    /// A name or filter that cannot be read.
    #[error("{setting}: {value:?} is no {what}")]
    Syntax {
        /// Its name.
        setting: &'static str,
        /// As it was written.
        value: String,
        /// What it would have to be.
        what: &'static str,
    },
    /// The authority's certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// How TLS begins on a connection. There is no third way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// At once, on a port of its own.
    Ldaps,
    /// By the extended operation of RFC 4511 section 4.14, before anything else.
    StartTls,
}

/// A server, as its URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub(crate) security: Security,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            Security::Ldaps => "ldaps",
            Security::StartTls => "ldap",
        };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

impl Server {
    fn parse(url: &str) -> Option<Self> {
        let (security, rest, port) = match url.split_once("://")? {
            ("ldaps", rest) => (Security::Ldaps, rest, 636),
            ("ldap", rest) => (Security::StartTls, rest, 389),
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, rest.strip_prefix(':').map_or_else(|| rest.is_empty().then_some(port), number)?)
            }
            None => match rest.split_once(':') {
                Some((host, text)) => (host, number(text)?),
                None => (rest, port),
            },
        };
        // What rustls can check a certificate against: a DNS name or an address.
        rustls::pki_types::ServerName::try_from(host).ok()?;
        Some(Self { security, host: host.to_owned(), port })
    }
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Which attribute is what.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) id: String,
    pub(crate) id_syntax: IdSyntax,
    pub(crate) login: String,
    pub(crate) name: String,
    pub(crate) mail: String,
    pub(crate) version: String,
}

/// How much may be taken away in one synchronisation without an officer's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Safety {
    /// People, whatever the share.
    pub people: u32,
    /// Percent of all who had something to lose.
    pub percent: u32,
}

impl Default for Safety {
    fn default() -> Self {
        Self { people: 10, percent: 20 }
    }
}

impl Safety {
    /// How many of `all` may lose something.
    #[must_use]
    pub fn allowed(self, all: usize) -> usize {
        let share = (all as u64).saturating_mul(u64::from(self.percent)) / 100;
        usize::try_from(share).unwrap_or(usize::MAX).max(self.people as usize)
    }
}

/// Settings that have been checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) name: String,
    pub(crate) issuer: IssuerId,
    pub(crate) kind: Kind,
    pub(crate) servers: Vec<Server>,
    pub(crate) key_exchange: KeyExchange,
    pub(crate) bind_dn: String,
    pub(crate) people: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) person_filter: String,
    pub(crate) group_filter: String,
    pub(crate) attributes: Attributes,
    pub(crate) decoy_dn: Option<String>,
    pub(crate) roles: Vec<(String, Role)>,
    pub(crate) page_size: u32,
    pub(crate) message_bytes_max: usize,
    pub(crate) interval: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) sync_timeout: Duration,
    pub(crate) binds_max: usize,
    pub(crate) safety: Safety,
    settings: Hash,
}

impl Config {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn new(document: &Document) -> Result<Self, ConfigError> {
        let active = document.kind == Kind::ActiveDirectory;
        let default = |value: &Option<String>, ldap: &str, ad: &str| {
            value.clone().unwrap_or_else(|| if active { ad } else { ldap }.to_owned())
        };
        let servers = document.servers.iter().map(|url| {
            Server::parse(url).ok_or_else(|| ConfigError::Url { url: url.chars().take(200).collect() })
        });
        let people = names("people", &document.people)?;
        let groups =
            if document.groups.is_empty() { people.clone() } else { names("groups", &document.groups)? };
        let roles = document.roles.iter().map(|rule| {
            let role = Role::ALL.into_iter().find(|role| role.name() == rule.role);
            match role {
                // Those who decide and those who look on are made by people (decision 0014), and a program is no person.
                Some(role @ (Role::User | Role::Operator)) => {
                    Ok((name("roles", &rule.group)?.to_owned(), role))
                }
                _ => Err(ConfigError::Role { role: rule.role.chars().take(40).collect() }),
            }
        });
        let config = Self {
            name: bounded("name", &document.name, 64)?.to_owned(),
            issuer: issuer(&document.issuer)?,
            kind: document.kind,
            servers: servers.collect::<Result<_, _>>()?,
            key_exchange: document.key_exchange,
            bind_dn: name("bind_dn", &document.bind_dn)?.to_owned(),
            people,
            groups,
            person_filter: filter(
                "person_filter",
                default(
                    &document.person_filter,
                    "(objectClass=inetOrgPerson)",
                    "(&(objectCategory=person)(objectClass=user))",
                ),
            )?,
            group_filter: filter(
                "group_filter",
                default(
                    &document.group_filter,
                    "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup))",
                    "(objectClass=group)",
                ),
            )?,
            attributes: Attributes {
                id: attribute("id_attribute", default(&document.id_attribute, "entryUUID", "objectGUID"))?,
                id_syntax: document.id_syntax.unwrap_or(if active {
                    IdSyntax::Octets
                } else {
                    IdSyntax::Uuid
                }),
                login: attribute(
                    "login_attribute",
                    default(&document.login_attribute, "uid", "sAMAccountName"),
                )?,
                name: attribute("name_attribute", default(&document.name_attribute, "cn", "displayName"))?,
                mail: attribute("mail_attribute", default(&document.mail_attribute, "mail", "mail"))?,
                version: attribute(
                    "version_attribute",
                    default(&document.version_attribute, "entryCSN", "uSNChanged"),
                )?,
            },
            decoy_dn: document
                .decoy_dn
                .as_deref()
                .map(|dn| name("decoy_dn", dn).map(str::to_owned))
                .transpose()?,
            roles: roles.collect::<Result<_, _>>()?,
            page_size: within("page_size", document.page_size, 500, 10, 10_000)?,
            message_bytes_max: within(
                "message_bytes_max",
                document.message_bytes_max,
                limits::MESSAGE_BYTES_MAX,
                64 * 1024,
                limits::MESSAGE_BYTES_MAX,
            )?,
            interval: seconds("interval_s", document.interval_s, 60, 5, 3_600)?,
            connect_timeout: seconds("connect_timeout_s", document.connect_timeout_s, 5, 1, 60)?,
            answer_timeout: seconds("answer_timeout_s", document.answer_timeout_s, 30, 1, 300)?,
            sync_timeout: seconds("sync_timeout_s", document.sync_timeout_s, 600, 10, 3_600)?,
            binds_max: within("binds_max", document.binds_max, 8, 1, limits::BINDS_MAX)?,
            safety: Safety {
                people: within("safe_people", document.safe_people, 10, 0, 10_000)?,
                percent: within("safe_percent", document.safe_percent, 20, 0, 50)?,
            },
            settings: Hash([0; 48]),
        };
        bounded_list("servers", config.servers.len(), limits::SERVERS_MAX)?;
        bounded_list("people", config.people.len(), limits::BASES_MAX)?;
        bounded_list("groups", config.groups.len(), limits::BASES_MAX)?;
        if config.roles.len() > limits::ROLE_RULES_MAX {
            return Err(ConfigError::Setting { setting: "roles", why: "at most 64 rules" });
        }
        Ok(Self { settings: config.settings_hash(), ..config })
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Under which name it vouches.
    #[must_use]
    pub const fn issuer(&self) -> IssuerId {
        self.issuer
    }

    /// Whether groups stand for roles. Where none does, a directory says nothing about anybody's.
    #[must_use]
    pub const fn maps_roles(&self) -> bool {
        !self.roles.is_empty()
    }

    /// What may be taken away without an officer's word.
    #[must_use]
    pub const fn safety(&self) -> Safety {
        self.safety
    }

    /// The attribute by which changes are seen. With `modifyTimestamp`, which counts seconds, entries that changed in
    /// the last ten minutes are read again each time; nothing is missed unless clocks are further apart than that.
    #[must_use]
    pub fn version_attribute(&self) -> &str {
        &self.attributes.version
    }

    /// Hash of what a snapshot depends on: with other settings, an earlier one says nothing about changes.
    pub(crate) const fn settings(&self) -> Hash {
        self.settings
    }

    fn settings_hash(&self) -> Hash {
        let attributes = &self.attributes;
        let mut hasher = hash::Hasher::new(labels::DIRECTORY_SETTINGS);
        let mut list = |items: &mut dyn Iterator<Item = &str>| {
            for item in items {
                hasher.part(item.as_bytes());
            }
            // An attribute or a DN is never empty, so this ends the list.
            hasher.part(b"");
        };
        list(&mut self.people.iter().map(String::as_str));
        list(&mut self.groups.iter().map(String::as_str));
        list(&mut self.roles.iter().flat_map(|(group, role)| [group.as_str(), role.name()]));
        let (kind, syntax) = (format!("{:?}", self.kind), format!("{:?}", attributes.id_syntax));
        list(&mut [kind.as_str(), &syntax, &self.person_filter, &self.group_filter].into_iter());
        let names =
            [&attributes.id, &attributes.login, &attributes.name, &attributes.mail, &attributes.version];
        list(&mut names.into_iter().map(String::as_str));
        hasher.part(&self.issuer.0);
        hasher.finish()
    }
}

/// What only `main` has: the secrets and certificates that settings name, but do not hold.
pub struct Secrets {
    /// The password of the account that reads. Never empty.
    pub password: SecretString,
    /// The authority's certificates, in PEM. The only ones that count.
    pub authority_pem: Vec<u8>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(redacted)")
    }
}

fn issuer(text: &str) -> Result<IssuerId, ConfigError> {
    let refused = ConfigError::Setting { setting: "issuer", why: "32 hexadecimal digits, drawn at random" };
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let Some(Ok(digits)) = digits.map(<[u8; 32]>::try_from) else { return Err(refused) };
    let id: [u8; 16] = std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1]);
    if id == [0; 16] { Err(refused) } else { Ok(IssuerId(id)) }
}

fn bounded<'a>(setting: &'static str, text: &'a str, max: usize) -> Result<&'a str, ConfigError> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(ConfigError::Setting { setting, why: "a text, not empty, not too long, on one line" });
    }
    Ok(text)
}

fn bounded_list(setting: &'static str, length: usize, max: usize) -> Result<(), ConfigError> {
    match length {
        0 => Err(ConfigError::Setting { setting, why: "at least one" }),
        length if length > max => Err(ConfigError::Setting { setting, why: "fewer of them" }),
        _ => Ok(()),
    }
}

fn name<'a>(setting: &'static str, text: &'a str) -> Result<&'a str, ConfigError> {
    let text = bounded(setting, text, limits::SETTING_BYTES_MAX)?;
    let refused =
        || ConfigError::Syntax { setting, value: text.into(), what: "distinguished name (RFC 4514)" };
    Dn::parse(text).map(|_| text).ok_or_else(refused)
}

fn names(setting: &'static str, texts: &[String]) -> Result<Vec<String>, ConfigError> {
    bounded_list(setting, texts.len(), limits::BASES_MAX)?;
    let texts: Vec<String> =
        texts.iter().map(|text| name(setting, text).map(str::to_owned)).collect::<Result<_, _>>()?;
    let spelled: Vec<_> = texts.iter().filter_map(|text| Dn::parse(text)).collect();
    let overlap = |(at, one): (usize, &Dn)| {
        spelled.iter().enumerate().any(|(i, other)| i != at && one.is_within(other))
    };
    if spelled.iter().enumerate().any(overlap) {
        // An entry that is found twice would look like two entries with one id.
        return Err(ConfigError::Setting { setting, why: "none of them within another one" });
    }
    Ok(texts)
}

fn filter(setting: &'static str, text: String) -> Result<String, ConfigError> {
    bounded(setting, &text, limits::SETTING_BYTES_MAX)?;
    let whole = text.starts_with('(') && ldap3::parse_filter(&text).is_ok();
    if whole {
        Ok(text)
    } else {
        Err(ConfigError::Syntax { setting, value: text, what: "filter (RFC 4515)" })
    }
}

fn attribute(setting: &'static str, text: String) -> Result<String, ConfigError> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let what = "attribute's name (RFC 4512 section 2.5)";
    if is_name { Ok(text) } else { Err(ConfigError::Syntax { setting, value: text, what }) }
}

fn within<N: Copy + PartialOrd>(
    setting: &'static str,
    value: Option<N>,
    default: N,
    min: N,
    max: N,
) -> Result<N, ConfigError> {
    let value = value.unwrap_or(default);
    if value < min || value > max {
        return Err(ConfigError::Setting {
            setting,
            why: "not within the range of docs/operating/directory.md",
        });
    }
    Ok(value)
}

fn seconds(
    setting: &'static str,
    value: Option<u64>,
    default: u64,
    min: u64,
    max: u64,
) -> Result<Duration, ConfigError> {
    within(setting, value, default, min, max).map(Duration::from_secs)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
