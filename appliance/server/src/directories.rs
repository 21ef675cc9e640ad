//! Reads what the configuration says of directories. Nobody is asked.

use crate::config::DirectoryFiles;
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
    #[error("directory: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Everybody on this machine can read the password.
    #[error("directory: {} is open to every user of this machine; chmod o-rwx it", .0.display())]
    Open(PathBuf),
    /// Not what it should be.
    #[error("directory: {} is wrong: {why}", path.display())]
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
    /// Two of one name or issuer.
    #[error("directory: {} has the name or the issuer of another one", .0.display())]
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
        let meta = std::fs::metadata(password)
            .map_err(|source| DirectoryError::Read { path: password.clone(), source })?;
        if meta.mode() & 0o007 != 0 {
            return Err(DirectoryError::Open(password.clone()));
        }
        let secret = read(password)?;
        let secret = std::str::from_utf8(&secret).map_err(|_| parse(password, "it is no text".to_owned()))?;
        let secret = secret.trim_end_matches(['\r', '\n']).to_owned().into();
        let secrets = Secrets { password: secret, authority_pem: read(ca)?.to_vec() };
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
