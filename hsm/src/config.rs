//! The configuration of `zixt-hsmd`: one TOML file, `/etc/zixt/hsmd.toml` unless told otherwise.

use crate::policy::Policy;
use crate::sandbox::Needs;
use serde::Deserialize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zixt_hsm_protocol::{Pin, PinError, Purpose};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/zixt/hsmd.toml";

/// The configuration as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of `custody.cbor` and `votes`.
    pub state: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// File with the token's PIN, for an appliance that unlocks itself. systemd's credential `pin` is used if this is
    /// absent.
    pub pin_file: Option<PathBuf>,
    /// The token.
    pub token: TokenConfig,
    /// Who may do what. Empty: the daemon's own user and root may do everything.
    #[serde(default)]
    pub allow: Vec<Allow>,
}

/// The token's part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// The token's serial number, where the label alone is not unique.
    pub serial: Option<String>,
    /// Files and folders that the module reads, beside `/usr`, `/etc` and its own folder.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// Folders that the module writes to, and devices. They have to exist.
    #[serde(default)]
    pub write: Vec<PathBuf>,
    /// Whether the module talks to its token over the network.
    #[serde(default)]
    pub network: bool,
}

/// One line of the allow-list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// A user by number …
    pub uid: Option<u32>,
    /// … or by name.
    pub user: Option<String>,
    /// Names of purposes.
    pub purposes: Vec<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not a configuration of zixt-hsmd", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A line of the allow-list.
    #[error("allow: {0}")]
    Allow(String),
    /// A PIN file that others can read.
    #[error("{} can be read by others than its owner (mode {mode:o}): chmod 600", path.display())]
    PinFileOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A PIN file without a PIN.
    #[error("{} holds no PIN", path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PinError,
    },
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// What the sandbox has to leave to the daemon and its token.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let folder = |path: &Path| path.parent().map(Path::to_owned);
        let token = &self.token;
        Needs {
            read: token.read.iter().cloned().chain(folder(&token.module)).collect(),
            write: token
                .write
                .iter()
                .cloned()
                .chain([self.state.clone()])
                .chain(folder(&self.socket))
                .collect(),
            network: token.network,
        }
    }

    /// The allow-list, with names looked up.
    ///
    /// # Errors
    /// [`ConfigError::Allow`].
    pub fn policy(&self, own_uid: u32) -> Result<Policy, ConfigError> {
        if self.allow.is_empty() {
            return Ok(Policy::own_user_and_root(own_uid));
        }
        let mut policy = Policy::default();
        for line in &self.allow {
            let mut purposes = Vec::new();
            for name in &line.purposes {
                let known = || Purpose::ALL.map(Purpose::name).join(", ");
                purposes.push(Purpose::from_name(name).ok_or_else(|| {
                    ConfigError::Allow(format!("{name:?} is no purpose; there are {}", known()))
                })?);
            }
            policy.allow(line.uid()?, purposes);
        }
        Ok(policy)
    }

    /// The PIN of an appliance that unlocks itself, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::PinFileOpen`], [`ConfigError::Pin`].
    pub fn pin(&self) -> Result<Option<Pin>, ConfigError> {
        self.pin_path().map(|path| read_pin(&path)).transpose()
    }

    /// The file of [`Config::pin`].
    #[must_use]
    pub fn pin_path(&self) -> Option<PathBuf> {
        self.pin_file.clone().or_else(|| {
            let credential = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("pin");
            credential.exists().then_some(credential)
        })
    }
}

impl Allow {
    fn uid(&self) -> Result<u32, ConfigError> {
        match (self.uid, &self.user) {
            (Some(uid), None) => Ok(uid),
            (None, Some(name)) => match nix::unistd::User::from_name(name) {
                Ok(Some(user)) => Ok(user.uid.as_raw()),
                _ => Err(ConfigError::Allow(format!("there is no user {name:?}"))),
            },
            _ => Err(ConfigError::Allow("each line names either `uid` or `user`".to_owned())),
        }
    }
}

/// Reads a PIN from a file that only its owner can read.
///
/// # Errors
/// [`ConfigError::Read`], [`ConfigError::PinFileOpen`], [`ConfigError::Pin`].
pub fn read_pin(path: &Path) -> Result<Pin, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(read)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::PinFileOpen { path: path.to_owned(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    Pin::new(text).map_err(|source| ConfigError::Pin { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        state = "/var/lib/zixt/custody"
        socket = "/run/zixt/hsmd.sock"
        [token]
        module = "/usr/lib/softhsm/libsofthsm2.so"
        label = "zixt"
        [[allow]]
        uid = 1000
        purposes = ["status", "tls-server"]
        [[allow]]
        user = "root"
        purposes = ["provision"]
    "#;

    #[test]
    fn the_allow_list_is_read_strictly() {
        let config: Config = toml::from_str(TEXT).unwrap();
        let policy = config.policy(7).unwrap();
        assert!(policy.check(1000, Purpose::TlsServer).is_ok());
        assert!(policy.check(0, Purpose::Provision).is_ok());
        assert!(policy.check(0, Purpose::Status).is_err());
        assert!(!policy.knows(7), "a list replaces the default");
        let wrong = TEXT.replace("tls-server", "tls");
        assert!(toml::from_str::<Config>(&wrong).unwrap().policy(7).is_err());
        assert!(
            toml::from_str::<Config>(&TEXT.replace("label", "lable")).is_err(),
            "unknown fields are faults"
        );
        let nobody = TEXT.replace("\"root\"", "\"no-such-user\"");
        assert!(toml::from_str::<Config>(&nobody).unwrap().policy(7).is_err());
    }

    #[test]
    fn the_example_is_a_configuration() {
        let config: Config = toml::from_str(include_str!("../hsmd.example.toml")).unwrap();
        let policy = config.policy(7).unwrap();
        assert!(policy.check(990, Purpose::ConsensusVote).is_ok());
        for purpose in [Purpose::Provision, Purpose::Unlock, Purpose::EnrollerSign] {
            assert!(policy.check(990, purpose).is_err(), "the server's user has the purpose {purpose}");
        }
        assert!(policy.check(991, Purpose::EnrollerSign).is_ok(), "administrators invite");
        assert!(policy.check(991, Purpose::ConsensusVote).is_err());
    }

    #[test]
    fn a_pin_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        std::fs::write(&path, "1234\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_pin(&path), Err(ConfigError::PinFileOpen { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_pin(&path).unwrap().expose(), "1234");
    }
}
