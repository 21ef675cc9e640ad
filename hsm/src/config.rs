//! The configuration of `zixt-hsmd`: one TOML file, `/etc/zixt/hsmd.toml` unless told otherwise.

use crate::backend::NativeToken;
use crate::policy::Policy;
use crate::protector::{Pkcs11Protector, Protector, SoftwareProtector, TpmProtector, TpmSettings};
use crate::sandbox::Needs;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zixt_hsm_pkcs11::TokenSelector;
use zixt_hsm_protocol::{Pin, PinError, Purpose};
use zixt_tpm::{PcrSelection, PolicyKey};
use zixt_types::{Canonical as _, KeyPurpose};

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
    /// PKCS#11 tokens.
    #[serde(default)]
    pub token: Vec<TokenConfig>,
    /// The TPM.
    pub tpm: Option<TpmConfig>,
    /// A key in a file. Lab only.
    pub software: Option<SoftwareConfig>,
    /// Who may do what. Empty: the daemon's own user and root may do everything.
    #[serde(default)]
    pub allow: Vec<Allow>,
}

/// A token's part.
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
    /// Names of keys (`consensus`, `enroller`, …) that are to be made, and to sign, inside this token, if it speaks PKCS#11
    /// 3.2 and passes a known-answer test. Every key says where it lives.
    #[serde(default)]
    pub native: Vec<String>,
}

/// The TPM's part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmConfig {
    /// Where it is: `device:/dev/tpmrm0` (behind the kernel's resource manager) if nothing is said.
    #[serde(default = "tcti_default")]
    pub tcti: String,
    /// The registers (SHA-256 bank) that the root is sealed to: Secure Boot's policy and the image if nothing is said.
    pub registers: Option<Vec<u8>>,
    /// File with the key whose approvals of register values count (`zixt-officer image keygen` makes it). Without
    /// one the root is sealed to the values of the moment, and every update needs a new sealing before it.
    pub policy_key: Option<PathBuf>,
    /// Folder of approvals (`*.approval`) that updates bring along. It has to exist when the daemon starts.
    pub approvals: Option<PathBuf>,
}

fn tcti_default() -> String {
    zixt_tpm::TCTI_DEFAULT.to_owned()
}

/// The software protector's part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftwareConfig {
    /// The key's file, in a folder of its own.
    pub key: PathBuf,
}

/// The configured protectors, and the token whose keys sign inside.
pub type Protectors = (Vec<Arc<dyn Protector>>, Option<NativeToken>);

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
    /// Nothing protects the keys, or two protectors have one name.
    #[error("protectors: {0}")]
    Protectors(String),
    /// A policy key file.
    #[error("{} is not a policy key: {why}", path.display())]
    PolicyKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
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

    /// What the sandbox has to leave to the daemon and its protectors.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let folder = |path: &Path| path.parent().map(Path::to_owned);
        let mut needs = Needs {
            write: [Some(self.state.clone()), folder(&self.socket)].into_iter().flatten().collect(),
            ..Needs::default()
        };
        for token in &self.token {
            needs.read.extend(token.read.iter().cloned().chain(folder(&token.module)));
            needs.write.extend(token.write.iter().cloned());
            needs.network |= token.network;
        }
        if let Some(tpm) = &self.tpm {
            // A device is named after the colon; a simulator is reached over the network.
            match tpm.tcti.strip_prefix("device:") {
                Some(device) => needs.write.push(PathBuf::from(device)),
                None => needs.network = true,
            }
            needs.read.extend(tpm.approvals.iter().filter(|folder| folder.exists()).cloned());
        }
        if let Some(software) = &self.software {
            needs.write.extend(folder(&software.key));
        }
        needs
    }

    /// The protectors in the order in which they are tried, and the token whose keys sign inside.
    ///
    /// # Errors
    /// [`ConfigError::Protectors`], [`ConfigError::Read`], [`ConfigError::PolicyKey`].
    pub fn protectors(&self) -> Result<Protectors, ConfigError> {
        let mut protectors: Vec<Arc<dyn Protector>> = Vec::new();
        let mut native = None;
        for token in &self.token {
            let selector = TokenSelector { label: token.label.clone(), serial: token.serial.clone() };
            let protector = Arc::new(Pkcs11Protector::new(token.module.clone(), selector));
            if !token.native.is_empty() {
                let purposes = token.native.iter().map(|name| {
                    KeyPurpose::ALL.into_iter().find(|purpose| purpose.name() == name).ok_or_else(|| {
                        let known = KeyPurpose::ALL.map(KeyPurpose::name).join(", ");
                        ConfigError::Protectors(format!(
                            "native: there is no {name:?} key; there are {known}"
                        ))
                    })
                });
                let keys = NativeToken::new(Arc::clone(&protector), purposes.collect::<Result<_, _>>()?);
                if native.replace(keys).is_some() {
                    return Err(ConfigError::Protectors("only one token can hold native keys".to_owned()));
                }
            }
            protectors.push(protector);
        }
        if let Some(tpm) = &self.tpm {
            protectors.push(Arc::new(TpmProtector::new(tpm.settings()?)));
        }
        if let Some(software) = &self.software {
            protectors.push(Arc::new(SoftwareProtector::new(software.key.clone())));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = protectors.iter().find(|protector| !names.insert(protector.name())) {
            return Err(ConfigError::Protectors(format!("two of them are called {:?}", twice.name())));
        }
        if protectors.is_empty() {
            return Err(ConfigError::Protectors("there is no [[token]] and no [tpm]".to_owned()));
        }
        Ok((protectors, native))
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

impl TpmConfig {
    /// What the TPM's protector is made from.
    ///
    /// # Errors
    /// [`ConfigError::Protectors`], [`ConfigError::Read`], [`ConfigError::PolicyKey`].
    pub fn settings(&self) -> Result<TpmSettings, ConfigError> {
        let registers = match &self.registers {
            Some(indices) => PcrSelection::new(indices)
                .map_err(|error| ConfigError::Protectors(format!("registers of the TPM: {error}")))?,
            None => PcrSelection::DEFAULT,
        };
        let policy_key = self.policy_key.as_ref().map(|path| {
            let bytes =
                std::fs::read(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            PolicyKey::parse(&bytes)
                .map_err(|error| ConfigError::PolicyKey { path: path.clone(), why: error.to_string() })
        });
        Ok(TpmSettings {
            tcti: self.tcti.clone(),
            registers,
            policy_key: policy_key.transpose()?,
            approvals: self.approvals.clone(),
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
        [[token]]
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
