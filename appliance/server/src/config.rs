//! Flags and the configuration file of `zixtd`.

use clap::Parser;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The Zixt appliance's server: takes messages, records them in the ledger, passes them on.
#[derive(Parser, Clone, Debug)]
#[command(name = "zixtd", version, about)]
pub struct Flags {
    /// A TOML file with the same settings; flags come before it
    #[arg(long, env = "ZIXTD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The state folder; `server/` in it is ours [default: /var/lib/zixt]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The folder for sockets [default: /run/zixt]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:7443]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The custody daemon's socket [default: hsmd.sock in the folder for sockets]
    #[arg(long, value_name = "SOCKET")]
    pub hsmd: Option<PathBuf>,
    /// A user id that may use the admin socket beside our own and root; may be repeated
    #[arg(long = "admin-uid", value_name = "UID")]
    pub admin_uids: Vec<u32>,
    /// How much to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<log::LevelFilter>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    state: Option<PathBuf>,
    run: Option<PathBuf>,
    listen: Option<SocketAddr>,
    hsmd: Option<PathBuf>,
    admin_uids: Vec<u32>,
    log: Option<String>,
    audit: AuditConfig,
    directory: Vec<DirectoryFiles>,
    sso: Vec<SsoFiles>,
    web: Option<WebConfig>,
}

/// An OpenID provider that people sign in with: `[[sso]]` in the file.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SsoFiles {
    /// What people call it.
    pub name: String,
    /// The issuer's id here, in 32 hexadecimal digits: drawn at random once, and never again for this provider.
    pub issuer: String,
    /// Its settings, in TOML.
    pub settings: PathBuf,
    /// The client's secret: the file's only line. Nobody but its owner and its group may read it.
    pub secret: PathBuf,
}

/// Where browsers and other programs connect: `[web]` in the file. Nowhere, unless it says so.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WebConfig {
    /// The loopback or an address of the management network. Not all addresses at once.
    pub listen: SocketAddr,
    /// The name in its URL; without it, the address.
    pub host: Option<String>,
    /// Its certificate and what leads to an authority, in PEM. Without one the appliance makes its own.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
}

impl WebConfig {
    fn check(&self) -> Result<(), String> {
        if self.listen.ip().is_unspecified() {
            return Err(
                "web: listen is every address; name the loopback or the management interface's".into()
            );
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("web: certificate and key belong together".into());
        }
        let named = self.host.as_ref().filter(|host| {
            rustls::pki_types::DnsName::try_from(host.as_str()).is_err() || host.to_lowercase() != **host
        });
        named.map_or(Ok(()), |host| Err(format!("web: host = {host:?} is no host's name in small letters")))
    }
}

/// A directory that people sign in with: `[[directory]]` in the file.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DirectoryFiles {
    /// Its settings, in TOML.
    pub settings: PathBuf,
    /// The password of the account that reads: the file's only line. Nobody but its owner and its group may read it.
    pub password: PathBuf,
    /// The authorities that its certificates may come from, in PEM. No others are trusted.
    pub ca: PathBuf,
}

/// Where audit records go beside the journal on the box: `[audit]` in the file. Nowhere, unless it says so.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AuditConfig {
    /// Whether systemd's journal gets them.
    pub journald: bool,
    /// Its socket.
    pub journald_socket: PathBuf,
    /// The name that records bear as their host; the machine's if absent.
    pub hostname: Option<String>,
    /// The private enterprise number in the name of the structured data (RFC 5424 section 6.3.2).
    pub enterprise: u32,
    /// Receivers of syslog over TLS: `[[audit.syslog]]`.
    pub syslog: Vec<SyslogTarget>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            journald: false,
            journald_socket: "/run/systemd/journal/socket".into(),
            hostname: None,
            enterprise: DOCUMENTATION_ENTERPRISE,
            syslog: Vec::new(),
        }
    }
}

/// The private enterprise number for documentation (RFC 5612).
const DOCUMENTATION_ENTERPRISE: u32 = 32473;
/// Each sink is a thread, and reads the journal on its own.
const SYSLOG_TARGETS_MAX: usize = 8;

/// A receiver of syslog over TLS (RFC 5425).
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SyslogTarget {
    /// Its name in health and of its cursor: small letters, digits and dashes. Under another name it gets everything again.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// The name or address that its certificate must have.
    pub server_name: String,
    /// The authorities that its certificate may come from, in PEM. No others are trusted.
    pub ca: PathBuf,
    /// The certificate that we show, in PEM, if it asks for one.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
    /// The form of messages.
    pub form: SyslogForm,
}

/// The form of messages.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum SyslogForm {
    /// RFC 5424, framed by octet counts.
    Rfc5424,
}

impl AuditConfig {
    /// What the parser does not see.
    fn check(&self) -> Result<(), String> {
        if self.syslog.len() > SYSLOG_TARGETS_MAX {
            return Err(format!("audit.syslog: at most {SYSLOG_TARGETS_MAX} receivers"));
        }
        for (at, target) in self.syslog.iter().enumerate() {
            let name = &target.name;
            if zixt_audit::Code::new(name).is_err() {
                return Err(format!("audit.syslog: name = {name:?} is not made of a-z, 0-9 and -"));
            }
            if name == "journald" || self.syslog[..at].iter().any(|other| other.name == *name) {
                return Err(format!("audit.syslog: there are two sinks named {name}"));
            }
            let port = target.address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(1..))) if !host.is_empty()) {
                return Err(format!("audit.syslog {name}: address = {:?} is not HOST:PORT", target.address));
            }
            if rustls::pki_types::ServerName::try_from(target.server_name.as_str()).is_err() {
                let server = &target.server_name;
                return Err(format!(
                    "audit.syslog {name}: server-name = {server:?} is no name and no address"
                ));
            }
            if target.certificate.is_some() != target.key.is_some() {
                return Err(format!("audit.syslog {name}: certificate and key belong together"));
            }
        }
        Ok(())
    }
}

/// Everything that is set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state folder.
    pub state: PathBuf,
    /// The folder for sockets.
    pub run: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The custody daemon's socket.
    pub hsmd: PathBuf,
    /// Users who may use the admin socket beside our own and root.
    pub admin_uids: Vec<u32>,
    /// How much to log.
    pub log: log::LevelFilter,
    /// Where audit records go beside the journal.
    pub audit: AuditConfig,
    /// Directories that people sign in with.
    pub directories: Vec<DirectoryFiles>,
    /// Identity providers that people sign in with.
    pub sso: Vec<SsoFiles>,
    /// Where browsers connect.
    pub web: Option<WebConfig>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration {} is wrong: {why}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        why: String,
    },
}

impl Config {
    /// Puts flags and file together.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(flags: Flags) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let level = match (&file.log, &flags.config) {
            (Some(text), Some(path)) => Some(text.parse().map_err(|_| ConfigError::Parse {
                path: path.clone(),
                why: format!("log = \"{text}\" is not one of error, warn, info, debug, trace"),
            })?),
            _ => None,
        };
        if let (Err(why), Some(path)) = (file.audit.check(), &flags.config) {
            return Err(ConfigError::Parse { path: path.clone(), why });
        }
        if let (Some(Err(why)), Some(path)) = (file.web.as_ref().map(WebConfig::check), &flags.config) {
            return Err(ConfigError::Parse { path: path.clone(), why });
        }
        if let (true, None, Some(path)) = (!file.sso.is_empty(), &file.web, &flags.config) {
            let why = "sso: people come by a browser, so [web] is needed".to_owned();
            return Err(ConfigError::Parse { path: path.clone(), why });
        }
        let run = flags.run.or(file.run).unwrap_or_else(|| "/run/zixt".into());
        let listen = flags.listen.or(file.listen);
        Ok(Self {
            state: flags.state.or(file.state).unwrap_or_else(|| "/var/lib/zixt".into()),
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7443))),
            hsmd: flags.hsmd.or(file.hsmd).unwrap_or_else(|| run.join("hsmd.sock")),
            run,
            admin_uids: if flags.admin_uids.is_empty() { file.admin_uids } else { flags.admin_uids },
            log: flags.log.or(level).unwrap_or(log::LevelFilter::Info),
            audit: file.audit,
            directories: file.directory,
            sso: file.sso,
            web: file.web,
        })
    }

    /// The server's own folder.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.state.join("server")
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), why: error.message().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zixtd.toml");
        std::fs::write(&path, "run = \"/r\"\nlisten = \"[::1]:1\"\nadmin-uids = [7]\nlog = \"debug\"\n")
            .unwrap();
        let config = path.to_str().unwrap();
        let flags = Flags::parse_from(["zixtd", "--config", config, "--listen", "127.0.0.1:9"]);
        let config = Config::new(flags).unwrap();
        assert_eq!(config.listen.port(), 9);
        assert_eq!(config.hsmd, Path::new("/r/hsmd.sock"));
        assert_eq!(config.state, Path::new("/var/lib/zixt"));
        assert_eq!((config.admin_uids, config.log), (vec![7], log::LevelFilter::Debug));

        std::fs::write(&path, "listne = \"[::1]:1\"\n").unwrap();
        let flags = Flags::parse_from(["zixtd", "--config", path.to_str().unwrap()]);
        assert!(matches!(Config::new(flags), Err(ConfigError::Parse { .. })));
    }

    #[test]
    fn the_web_listener_is_where_the_file_says_and_not_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zixtd.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::new(Flags::parse_from(["zixtd", "--config", path.to_str().unwrap()]))
        };
        assert_eq!(read("").unwrap().web, None);
        let web = read("[web]\nlisten = \"127.0.0.1:8443\"\nhost = \"zixt.test\"\n").unwrap().web.unwrap();
        assert_eq!((web.listen.port(), web.host.as_deref()), (8443, Some("zixt.test")));
        for (wrong, told) in [
            ("listen = \"0.0.0.0:443\"", "every address"),
            ("listen = \"[::]:443\"", "every address"),
            ("listen = \"127.0.0.1:443\"\nkey = \"/k\"", "belong together"),
            ("listen = \"127.0.0.1:443\"\nhost = \"a/b\"", "no host's name"),
            ("listen = \"127.0.0.1:443\"\nhost = \"Zixt.test\"", "small letters"),
            ("listen = \"127.0.0.1:443\"\nports = 1", "unknown field"),
        ] {
            let refused = read(&format!("[web]\n{wrong}\n")).unwrap_err().to_string();
            assert!(refused.contains(told), "{told}: {refused}");
        }
    }

    #[test]
    fn audit_records_go_nowhere_unless_the_file_says_so_and_wrong_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zixtd.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::new(Flags::parse_from(["zixtd", "--config", path.to_str().unwrap()]))
        };
        let config = read("").unwrap();
        assert!(!config.audit.journald && config.audit.syslog.is_empty());
        let target = |name: &str, rest: &str| {
            format!(
                "[[audit.syslog]]\nname = \"{name}\"\naddress = \"siem.example:6514\"\n\
                 server-name = \"siem.example\"\nca = \"/ca.pem\"\nform = \"rfc5424\"\n{rest}"
            )
        };
        let good = format!("[audit]\njournald = true\n{}{}", target("a", ""), target("b", ""));
        let config = read(&good).unwrap();
        assert!(config.audit.journald);
        assert_eq!(config.audit.syslog.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        for (wrong, told) in [
            (target("a", "") + &target("a", ""), "two sinks named a"),
            (target("journald", ""), "two sinks named journald"),
            (target("A b", ""), "a-z"),
            (target("a", "").replace(":6514", ""), "HOST:PORT"),
            (target("a", "").replace(":6514", ":0"), "HOST:PORT"),
            (target("a", "").replace("\"siem.example\"", "\"not a name\""), "no name and no address"),
            (target("a", "certificate = \"/c.pem\"\n"), "belong together"),
            (target("a", "verify = false\n"), "unknown field"),
            (target("a", "").replace("rfc5424", "rfc3164"), "rfc3164"),
            (target("a", "").replace("ca = \"/ca.pem\"\n", ""), "ca"),
        ] {
            let refused = read(&wrong).unwrap_err().to_string();
            assert!(refused.contains(told), "{told}: {refused}");
        }
    }
}
