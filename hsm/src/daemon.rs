//! The daemon's life, from the configuration to the last signal.

use crate::backend::{KeyStore, WrappedSeed};
use crate::config::{Config, ConfigError};
use crate::sandbox::{self, Confinement, SandboxError};
use crate::service::{Devices, Service};
use crate::socket::{self, Limits, Server};
use crate::state::{Custody, DiskFolder, FolderLock};
use crate::{harden, logging};
use nix::sys::signal::{SigSet, Signal};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zixt_crypto::{Backend, selftest};
use zixt_crypto_fast::AwsLc;
use zixt_types::UnlockMode;

/// Longest wait for running requests at the end.
const STOP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why the daemon does not start. Everything about keys and tokens is a state instead, which `zixt-hsm status` shows.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another daemon uses the same state.
    #[error("another zixt-hsmd uses {}: two of them would sign twice. Stop it, or use another state folder", folder.display())]
    SecondDaemon {
        /// The state folder.
        folder: PathBuf,
    },
    /// The state folder.
    #[error("cannot use the state folder {}", folder.display())]
    Folder {
        /// The state folder.
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The socket.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The kernel refused to harden the process.
    #[error("cannot harden the process")]
    Harden(#[source] nix::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A signal handler or thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`StartError`].
pub fn run(config: &Config) -> Result<(), StartError> {
    harden::harden().map_err(StartError::Harden)?;
    // Before any thread, so that all of them inherit it and only the last line below sees a signal.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(StartError::Harden)?;

    let own_uid = nix::unistd::geteuid().as_raw();
    let policy = config.policy(own_uid)?;
    let pin = config.pin()?;
    let (protectors, native) = config.protectors()?;
    let folder = open_folder(&config.state)?;
    let _lock = lock(&folder)?;
    // Before the first foreign code, and before any other thread.
    match sandbox::confine(&config.needs())? {
        Confinement::Full => {}
        Confinement::Partial => {
            log::warn!("this kernel knows only a part of Landlock: files are restricted, not all else")
        }
        Confinement::SystemCallsOnly => {
            log::warn!("this kernel has no Landlock: only system calls are restricted, not files");
        }
    }

    let custody = custody(&folder, &AwsLc)
        .map_err(|source| StartError::Folder { folder: config.state.clone(), source })?;
    let configured = if pin.is_some() { UnlockMode::Unattended } else { UnlockMode::Attended };
    let devices = Devices {
        protectors,
        keys: Box::new(KeyStore::new(WrappedSeed::new(Box::new(AwsLc)), native)),
        crypto: Box::new(AwsLc),
    };
    let service = Arc::new(Service::new(folder, devices, configured, custody));
    if let Some(pin) = &pin
        && let Err(error) = service.unlock_unattended(pin)
    {
        log::error!("cannot unlock: {error}. {}", error.advice());
    }
    drop(pin);

    let listener = socket::bind(&config.socket)
        .map_err(|source| StartError::Socket { path: config.socket.clone(), source })?;
    let server = Server::new(Arc::clone(&service), policy, Limits::default());
    let accepting = Arc::clone(&server);
    std::thread::Builder::new()
        .name("accept".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || accepting.accept(&listener))
        .map_err(StartError::Thread)?;
    let tended = Arc::clone(&service);
    std::thread::Builder::new()
        .name("anchors".to_owned())
        // A vendor's module runs on it, as on a connection's.
        .stack_size(512 * 1024)
        .spawn(move || tended.tend_forever())
        .map_err(StartError::Thread)?;
    say_ready(&service, &config.socket);

    let signal = signals.wait().map_err(StartError::Harden)?;
    log::info!("{signal}: stopping");
    server.stop(STOP_WAIT_MAX);
    service.shut_down();
    let _ = std::fs::remove_file(&config.socket);
    log::info!("stopped");
    Ok(())
}

/// What the state folder holds; failed for good if the cryptography does not give its known answers.
fn custody(folder: &DiskFolder, backend: &dyn Backend) -> std::io::Result<Custody> {
    match selftest::run(backend) {
        Ok(()) => Custody::read(folder),
        Err(error) => Ok(Custody::Failed(error.to_string())),
    }
}

fn open_folder(path: &Path) -> Result<DiskFolder, StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| StartError::Folder { folder: path.to_owned(), source })?;
    Ok(DiskFolder(path.to_owned()))
}

fn lock(folder: &DiskFolder) -> Result<FolderLock, StartError> {
    let taken =
        FolderLock::take(folder).map_err(|source| StartError::Folder { folder: folder.0.clone(), source })?;
    taken.ok_or_else(|| StartError::SecondDaemon { folder: folder.0.clone() })
}

/// One line on standard output for whoever started the daemon, and the state's reason in the log.
fn say_ready(service: &Service, socket: &Path) {
    let status = service.status();
    let mut out = std::io::stdout();
    // Whoever closed our output does not read this line.
    let _ = writeln!(out, "ready state={} socket={}", status.state, socket.display());
    let _ = out.flush();
    let reason = if status.reason.is_empty() { String::new() } else { format!(" ({})", status.reason) };
    log::info!("{}{reason}; signs by {}. {}", status.state, AwsLc.name(), status.advice);
}

/// Starts logging and turns an error into its text and an exit code.
#[must_use]
pub fn main(run: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>) -> std::process::ExitCode {
    if let Err(error) = logging::start() {
        eprintln!("zixt-hsmd: cannot start logging: {error}");
        return std::process::ExitCode::FAILURE;
    }
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", logging::chain(&*error));
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[test]
    fn a_failed_self_test_is_a_state_in_which_nothing_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let folder = DiskFolder(folder.path().to_owned());
        let Custody::Failed(why) = custody(&folder, &Broken).unwrap() else { panic!("it did not fail") };
        assert!(why.starts_with("self-test of backend broken failed: ML-DSA-65"), "{why}");
        // The control: an empty folder waits for its first protector.
        assert!(matches!(custody(&folder, &AwsLc).unwrap(), Custody::Unprovisioned(_)));
    }
}
