//! Reads what the configuration says of directories and identity providers. Nobody is asked.

use crate::access::SsoProvider;
use crate::config::{DirectoryFiles, SsoFiles};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_directory::{Config, ConfigError, Directory, Document, Secrets};
use zixt_identity::Issuer;

/// Settings, a password or some certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a directory is of no use. Nothing is started: people whom it has disabled would stay in.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Everybody on this machine can read the password.
    #[error("{} is open to every user of this machine; chmod o-rwx it", .0.display())]
    Open(PathBuf),
    /// Not what it should be.
    #[error("{} is wrong: {why}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A setting.
    #[error("directory: {} is of no use", path.display())]
    Config {
        /// The settings.
        path: PathBuf,
        /// Which one.
        source: ConfigError,
    },
    /// The provider would send browsers somewhere else.
    #[error("sso {name}: redirect_uri has to be {wanted}, here and at the provider")]
    Redirect {
        /// Which one.
        name: String,
        /// What it has to be.
        wanted: String,
    },
    /// Two of one name or issuer.
    #[error("{} has the name or the issuer of another one", .0.display())]
    Twice(PathBuf),
}

/// Reads and checks everything that the configuration names.
///
/// # Errors
/// See [`DirectoryError`].
pub fn open(files: &[DirectoryFiles]) -> Result<Vec<Directory>, DirectoryError> {
    let mut directories: Vec<Directory> = Vec::new();
    for DirectoryFiles { settings, password, ca } in files {
        let parse = |path: &Path, why: String| DirectoryError::Parse { path: path.to_owned(), why };
        let text = String::from_utf8(read(settings)?.to_vec());
        let text = text.map_err(|_| parse(settings, "it is no text".to_owned()))?;
        let document: Document =
            toml::from_str(&text).map_err(|error| parse(settings, error.message().to_owned()))?;
        let of_config = |source| DirectoryError::Config { path: settings.clone(), source };
        let config = Config::new(&document).map_err(of_config)?;
        let secrets = Secrets { password: secret(password)?, authority_pem: read(ca)?.to_vec() };
        let issuer = Issuer::directory(config.issuer());
        let directory = Directory::new(config, issuer, secrets).map_err(of_config)?;
        let same = |other: &Directory| {
            other.config().name() == directory.config().name()
                || other.config().issuer() == directory.config().issuer()
        };
        if directories.iter().any(same) {
            return Err(DirectoryError::Twice(settings.clone()));
        }
        directories.push(directory);
    }
    Ok(directories)
}

/// The same for identity providers.
///
/// # Errors
/// See [`DirectoryError`].
pub fn open_providers(files: &[SsoFiles]) -> Result<Vec<SsoProvider>, DirectoryError> {
    let mut providers: Vec<SsoProvider> = Vec::new();
    for SsoFiles { name, issuer, settings, secret: file } in files {
        let parse = |why: String| DirectoryError::Parse { path: settings.clone(), why };
        let text =
            String::from_utf8(read(settings)?.to_vec()).map_err(|_| parse("it is no text".to_owned()))?;
        let document: zixt_sso::oidc::ConfigDocument =
            toml::from_str(&text).map_err(|error| parse(error.message().to_owned()))?;
        let config =
            zixt_sso::oidc::Config::new(&document).map_err(|error| parse(crate::logging::chain(&error)))?;
        let issuer = crate::access::parse_issuer(issuer).map_err(|problem| parse(problem.detail.into()))?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(parse("the name is empty, or has letters that do not show".to_owned()));
        }
        if providers.iter().any(|other| other.name == *name || other.issuer.id() == issuer) {
            return Err(DirectoryError::Twice(settings.clone()));
        }
        let (name, issuer, secret) = (name.clone(), Issuer::sso(issuer), secret(file)?);
        providers.push(SsoProvider { name, issuer, config, secret });
    }
    Ok(providers)
}

/// A secret, which is its file's only line and not for everybody on this machine to read.
fn secret(path: &Path) -> Result<secrecy::SecretString, DirectoryError> {
    let meta =
        std::fs::metadata(path).map_err(|source| DirectoryError::Read { path: path.to_owned(), source })?;
    if meta.mode() & 0o007 != 0 {
        return Err(DirectoryError::Open(path.to_owned()));
    }
    let secret = read(path)?;
    let text = std::str::from_utf8(&secret);
    let why = "it is no text".to_owned();
    let text = text.map_err(|_| DirectoryError::Parse { path: path.to_owned(), why })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned().into())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DirectoryError> {
    bounded(path, FILE_BYTES_MAX).map_err(|source| DirectoryError::Read { path: path.to_owned(), source })
}

/// Reads a file that may be a secret, and not more of it than it can have.
pub(crate) fn bounded(path: &Path, max: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path)?;
    // As much as it has at once: what grows leaves copies behind.
    let length = file.metadata()?.len().min(max);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}
