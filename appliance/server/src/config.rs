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
        let run = flags.run.or(file.run).unwrap_or_else(|| "/run/zixt".into());
        let listen = flags.listen.or(file.listen);
        Ok(Self {
            state: flags.state.or(file.state).unwrap_or_else(|| "/var/lib/zixt".into()),
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7443))),
            hsmd: flags.hsmd.or(file.hsmd).unwrap_or_else(|| run.join("hsmd.sock")),
            run,
            admin_uids: if flags.admin_uids.is_empty() { file.admin_uids } else { flags.admin_uids },
            log: flags.log.or(level).unwrap_or(log::LevelFilter::Info),
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
}
