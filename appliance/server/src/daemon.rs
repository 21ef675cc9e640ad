//! `zixtd` from start to end.

use crate::access::{Access, AccessError, AccessParts};
use crate::app::{About, App, Parts};
use crate::audit::{Audit, AuditError, Prepared};
use crate::config::{Config, WebConfig};
use crate::custody::{Custody, CustodyWatch, Hsmd, HsmdTlsKey};
use crate::health::Vitals;
use crate::http::listener::{self, AnyKey};
use crate::http::{Web, admin_router, starting_router};
use crate::push::Push;
use crate::sequencer::{Queue, Sequencer, SequencerError};
use crate::view::View;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zixt_api::CustodyState;
use zixt_api::endpoints::{self, fill};
use zixt_crypto::{Backend, digest, selftest};
use zixt_crypto_fast::tls;
use zixt_hsm_protocol::{KeyPurpose, Status};
use zixt_ledger::Keyring;
use zixt_storage::{LoadError, OpenError, Store, StoreError};
use zixt_types::{ApplianceId, Canonical, Genesis, Hash, ParseError, Validator};

/// Requests that are under way get this long at shutdown.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Sinks of the audit journal get this long for the last records at shutdown.
const SINKS_WAIT_MAX: Duration = Duration::from_secs(3);

/// Why the server did not start, or stopped.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The cryptography does not do what it should.
    #[error("a self-test failed; nothing was started")]
    SelfTest(#[from] selftest::SelfTestError),
    /// There is no network here yet.
    #[error("there is no genesis at {}; make a network with zixt-provision, or correct --state", .0.display())]
    NoGenesis(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is damaged.
    #[error("{} is damaged", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The genesis names a key that the keyring lacks.
    #[error("the keyring lacks key {0}, which the genesis names")]
    KeyMissing(Hash),
    /// Custody belongs to another network.
    #[error("custody is bound to network {pinned}, but the state folder holds network {ours}")]
    OtherNetwork {
        /// The network that custody is bound to.
        pinned: Hash,
        /// The state folder's.
        ours: Hash,
    },
    /// Custody's keys are no validator's.
    #[error("the keys in custody belong to no validator of this network")]
    NotAValidator,
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Open(#[from] OpenError),
    /// The store is inconsistent.
    #[error("the store cannot be used; run zixt-admin fsck")]
    Load(#[from] LoadError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] tls::ConfigError),
    /// An address cannot be listened at.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system refused something else.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The ledger stopped.
    #[error("the ledger stopped")]
    Sequencer(#[from] SequencerError),
    /// The audit journal.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Who may come in cannot be read.
    #[error("nobody can be let in")]
    Access(#[from] AccessError),
    /// The web listener.
    #[error(transparent)]
    Web(#[from] crate::web::WebError),
    /// A directory of the configuration is of no use.
    #[error(transparent)]
    Directory(#[from] crate::directories::DirectoryError),
    /// Another process works with this state folder.
    #[error("another zixtd (or fsck) works with {}", .0.display())]
    InUse(PathBuf),
    /// A recovery did not finish.
    #[error(
        "{} holds a part of a backup: `zixt-hsm recover files BACKUP --server {}` finishes it. Start nothing on it before",
        .0.display(), .0.display()
    )]
    HalfUnpacked(PathBuf),
    /// A thread ended without an answer. A fault of this program.
    #[error("the ledger's thread ended unexpectedly")]
    Vanished,
}

/// Runs until SIGTERM or SIGINT, with the cryptography of this backend.
///
/// # Errors
/// See [`DaemonError`].
pub async fn run(config: Config, backend: Arc<dyn Backend>) -> Result<(), DaemonError> {
    selftest::run(&*backend)?;
    let sinks = Prepared::new(&config.audit).map_err(AuditError::from)?;
    let directories = crate::directories::open(&config.directories)?;
    let providers = crate::directories::open_providers(&config.sso)?;
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;

    let (genesis, keyring) = read_network(&config.server())?;
    let _lock = Lock::take(&config.server())?;
    let genesis_hash = digest::genesis_hash(&genesis);
    let suite = genesis.suite();
    log::info!(
        "network {} ({genesis_hash}), suite {suite}{}",
        genesis.network,
        if genesis.lab { ", LAB: not for production" } else { "" }
    );
    let vitals = Arc::new(Vitals::new(config.server()));
    let hsmd = Arc::new(Hsmd::new(&config.hsmd, Some(config.server())));
    let custody: Arc<dyn Custody> = Arc::clone(&hsmd) as _;
    let custody =
        blocking(move || CustodyWatch::new(custody)).await.map(Arc::new).ok_or(DaemonError::Vanished)?;
    let connections = TaskTracker::new();

    let path = config.admin_socket();
    let admin = listener::bind_admin(&path)
        .map(Arc::new)
        .map_err(|source| DaemonError::Listen { address: path.display().to_string(), source })?;
    let allowed: Arc<[u32]> = config.admin_uids.clone().into();

    // 1. The ledger as the store has it. Needs no custody, and says early what is wrong.
    let store = Store::open(&config.server().join("ledger.sqlite")).await?;
    let state = store.load(genesis.clone(), keyring, &*backend).await?;
    let last = store.last_header().await?;
    log::info!("ledger at height {}, header {}", state.height, state.header_hash);
    let view = Arc::new(View::new(state, last.as_ref()));

    let audit = {
        let (state, view) = (config.state.clone(), Arc::clone(&view));
        let opened = blocking(move || {
            let audit = Audit::open(&state, view, zixt_audit::limits::SEGMENT_BYTES)?;
            audit.started()?;
            audit.start_sinks(sinks).map(|()| Arc::new(audit))
        });
        opened.await.ok_or(DaemonError::Vanished)??
    };
    tokio::spawn(Arc::clone(&audit).watch(custody.subscribe(), shutdown.clone()));

    // 2. Custody: without it nobody can connect and nothing can be recorded. /healthz on the admin socket says so.
    tokio::spawn(Arc::clone(&custody).run(shutdown.clone()));
    let starting = starting_router(Arc::clone(&vitals), Arc::clone(&custody));
    let waited = shutdown.child_token();
    let interim = tokio::spawn(listener::serve_admin(
        Arc::clone(&admin),
        starting,
        Arc::clone(&allowed),
        Arc::clone(&audit),
        connections.clone(),
        waited.clone(),
    ));
    let unlocked = wait_for_custody(&custody, &shutdown).await;
    waited.cancel();
    // The socket is ours again only when nobody else accepts from it.
    let _ = interim.await;
    if !unlocked {
        return remove(&path, end_audit(audit).await);
    }
    let status = blocking(move || hsmd.status()).await.flatten();
    let validators = Arc::clone(&view.read().state.validators);
    let (me, tls_key) = identify(&validators, genesis_hash, status.as_ref())?;
    if let Some(validator) = validators.iter().find(|validator| validator.appliance == me) {
        custody.record(validator.consensus);
    }
    if custody.state() == CustodyState::AwaitingActivation {
        log::warn!("custody is {}", crate::problem::describe(CustodyState::AwaitingActivation));
    }

    // 3. The parts, from the inside out.
    let push = Arc::new(Push::default());
    let (queue, receiver) = Queue::new();
    let sequencer = Sequencer {
        view: Arc::clone(&view),
        store: store.clone(),
        custody: Arc::clone(&custody),
        backend: Arc::clone(&backend),
        push: Arc::clone(&push),
        vitals: Arc::clone(&vitals),
        me,
        wal: config.server().join("consensus.wal"),
        runtime: tokio::runtime::Handle::current(),
        shutdown: shutdown.clone(),
    };
    let (ended, end) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("sequencer".to_owned()).spawn(move || {
        let result = sequencer.run(receiver);
        // The daemon waits for this as long as it lives.
        let _ = ended.send(result);
    });
    spawned.map_err(|source| DaemonError::System { doing: "start a thread", source })?;

    let tcp = listener::bind_clients(config.listen)
        .await
        .map_err(|source| DaemonError::Listen { address: config.listen.to_string(), source })?;
    let listen = tcp.local_addr().unwrap_or(config.listen);
    let tls_hash = digest::key_hash(suite, &tls_key);
    let signer = Arc::new(HsmdTlsKey::new(&config.hsmd, suite, tls_key));
    let server_config = tls::server_config(suite, signer, Arc::new(AnyKey))?;
    let web = match &config.web {
        None => None,
        Some(web) => {
            let server = crate::web::open(web, &config.server())?;
            let bound = listener::bind_clients(web.listen).await;
            let tcp =
                bound.map_err(|source| DaemonError::Listen { address: web.listen.to_string(), source })?;
            let origin = crate::web::origin(web, tcp.local_addr().unwrap_or(web.listen));
            Some((tcp, server, origin))
        }
    };
    for provider in &providers {
        let issuer = crate::access::issuer_text(provider.issuer.id());
        let origin = web.as_ref().map_or("", |(_, _, origin)| origin);
        let wanted = format!("{origin}{}", fill(endpoints::SSO_CALLBACK, &[&issuer]));
        if provider.config.redirect_uri().as_str() != wanted {
            return Err(
                crate::directories::DirectoryError::Redirect { name: provider.name.clone(), wanted }.into()
            );
        }
    }
    let passkeys = match (&config.web, &web) {
        (Some(WebConfig { host: Some(host), .. }), Some((_, _, origin))) => Some(zixt_passkey::Settings {
            rp_id: host.clone(),
            name: format!("Zixt {}", genesis.network),
            origins: vec![origin.clone()],
        }),
        _ => None,
    };
    let about = About {
        listen: listen.to_string(),
        tls: tls_hash,
        me,
        web: web.as_ref().map(|(_, server, origin)| (origin.clone(), server.fingerprint.clone())),
    };
    let watched = Arc::clone(&custody);
    let access = Arc::new(Access::new(AccessParts {
        store: store.clone(),
        custody: Arc::clone(&custody),
        view: Arc::clone(&view),
        backend: Arc::clone(&backend),
        me,
        directories,
        providers,
        passkeys,
    }));
    // If custody was locked again meanwhile, later.
    access.load().await?;
    let app = Arc::new(App::new(Parts {
        view,
        store: store.clone(),
        custody,
        backend,
        push,
        queue,
        vitals,
        audit: Arc::clone(&audit),
        access,
        about,
        shutdown: shutdown.clone(),
    }));
    // What officers decided while nobody was here to do it, before anybody comes in.
    if let Err(problem) = app.follow_decisions(None).await {
        log::warn!("officers' decisions about roles are not carried out yet: {}", problem.detail);
    }
    let tending = tokio::spawn(Arc::clone(&app).tend(shutdown.clone()));
    let tasks = app.tasks.clone();
    tokio::spawn(listener::serve_clients(
        tcp,
        server_config,
        suite,
        Arc::clone(&app),
        connections.clone(),
        shutdown.clone(),
    ));
    if let Some((tcp, server, origin)) = web {
        log::info!("web: {origin}, certificate {}", server.fingerprint);
        let (web, config) = (Web { listener: server.id, origin: origin.into() }, server.config);
        tokio::spawn(listener::serve_web(
            tcp,
            config,
            web,
            Arc::clone(&app),
            connections.clone(),
            shutdown.clone(),
        ));
    }
    crate::app::directories::watch(&app, &shutdown);
    crate::app::directories::discover(&app, &shutdown);
    tokio::spawn(crate::app::leavers::run(Arc::clone(&app), shutdown.clone()));
    tokio::spawn(crate::decisions::run(Arc::clone(&app), watched, shutdown.clone()));
    tokio::spawn(serve_admin(admin, app, allowed, connections.clone(), shutdown.clone()));
    log::info!("ready: clients connect to {listen}");

    // 4. Until the end: a signal, or the ledger stops for good. Requests that are under way are answered first.
    let ended = end.await;
    shutdown.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN_WAIT_MAX, connections.wait()).await.is_err() {
        log::warn!("some connections did not end in time");
    }
    tasks.close();
    if tokio::time::timeout(DRAIN_WAIT_MAX, tasks.wait()).await.is_err() {
        log::warn!("some requests did not end in time");
    }
    // What waits to be written down is written.
    let _ = tending.await;
    store.close().await?;
    end_audit(audit).await?;
    log::info!("stopped");
    remove(&path, ended.map_err(|_| DaemonError::Vanished)?.map_err(Into::into))
}

async fn end_audit(audit: Arc<Audit>) -> Result<(), DaemonError> {
    let ended = blocking(move || {
        let stopped = audit.stopped();
        audit.stop_sinks(SINKS_WAIT_MAX);
        stopped
    });
    Ok(ended.await.ok_or(DaemonError::Vanished)??)
}

async fn serve_admin(
    admin: Arc<UnixListener>,
    app: Arc<App>,
    allowed: Arc<[u32]>,
    connections: TaskTracker,
    shutdown: CancellationToken,
) {
    let audit = Arc::clone(&app.audit);
    listener::serve_admin(admin, admin_router(app), allowed, audit, connections, shutdown).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn remove<T>(socket: &Path, result: T) -> T {
    // Left behind, it would only make the next start look twice.
    let _ = std::fs::remove_file(socket);
    result
}

fn stop_on_signal(shutdown: CancellationToken) -> Result<(), DaemonError> {
    let listen =
        |kind| signal(kind).map_err(|source| DaemonError::System { doing: "listen for signals", source });
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log::info!("stopping");
        shutdown.cancel();
    });
    Ok(())
}

/// `false` on shutdown.
async fn wait_for_custody(custody: &CustodyWatch, shutdown: &CancellationToken) -> bool {
    let mut states = custody.subscribe();
    loop {
        let state = *states.borrow_and_update();
        if state.has_keys() {
            return true;
        }
        log::warn!("waiting: custody is {}", crate::problem::describe(state));
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return false },
            () = shutdown.cancelled() => return false,
        }
    }
}

/// Which validator we are, and the TLS key. The consensus key may be one that the ledger does not know yet.
fn identify(
    validators: &[Validator],
    ours: Hash,
    status: Option<&Status>,
) -> Result<(ApplianceId, Vec<u8>), DaemonError> {
    let status = status.ok_or(DaemonError::NotAValidator)?;
    if let Some(pinned) = status.genesis.filter(|pinned| *pinned != ours) {
        return Err(DaemonError::OtherNetwork { pinned, ours });
    }
    let key = |purpose| status.key(purpose).ok_or(DaemonError::NotAValidator);
    let me = digest::appliance_id(key(KeyPurpose::Identity)?.hash);
    let tls = key(KeyPurpose::Tls)?;
    let validator = validators.iter().find(|validator| validator.appliance == me);
    if validator.is_none_or(|validator| validator.tls != tls.hash) {
        return Err(DaemonError::NotAValidator);
    }
    Ok((me, tls.public_key.clone()))
}

/// What `zixt-hsm recover` has in the state folder until everything of a backup is in it.
const UNPACKING: &str = ".unpacking";

/// The right to work with a state folder; given back on drop, and by the system if the process dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holds the lock")] Flock<File>);

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// Another process has it, or a backup is being unpacked there: what there is may be a part, or older than it looks.
    pub fn take(server: &Path) -> Result<Self, DaemonError> {
        if server.join(UNPACKING).symlink_metadata().is_ok() {
            return Err(DaemonError::HalfUnpacked(server.to_owned()));
        }
        let path = server.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file =
            file.map_err(|source| DaemonError::System { doing: "open the state folder's lock", source })?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map(Self)
            .map_err(|_| DaemonError::InUse(server.to_owned()))
    }
}

/// Reads genesis and keyring.
///
/// # Errors
/// They are absent, damaged, or do not belong together.
pub fn read_network(server: &Path) -> Result<(Genesis, Keyring), DaemonError> {
    let path = server.join("genesis.cbor");
    let genesis = match std::fs::read(&path) {
        Ok(bytes) => Genesis::parse(&bytes).map_err(|source| DaemonError::Parse { path, source })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DaemonError::NoGenesis(path));
        }
        Err(source) => return Err(DaemonError::Read { path, source }),
    };
    let path = server.join("keyring.cbor");
    let bytes = std::fs::read(&path).map_err(|source| DaemonError::Read { path: path.clone(), source })?;
    let keyring = Keyring::parse(&bytes).map_err(|source| DaemonError::Parse { path, source })?;
    let named = genesis.validators.iter().map(|validator| validator.consensus);
    for hash in named.chain(genesis.enrollers.iter().copied()) {
        if keyring.get(&hash).is_none() {
            return Err(DaemonError::KeyMissing(hash));
        }
    }
    Ok((genesis, keyring))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;
    use zixt_crypto_fast::AwsLc;

    #[test]
    fn a_folder_that_is_half_unpacked_is_not_worked_with() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(UNPACKING)).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert!(refused.to_string().contains("recover files"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is made in it");
        std::fs::remove_dir(folder.path().join(UNPACKING)).unwrap();
        assert!(Lock::take(folder.path()).is_ok());
    }

    #[tokio::test]
    async fn a_failed_self_test_stops_before_anything_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let config = || Config {
            state: folder.path().to_owned(),
            run: folder.path().to_owned(),
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            hsmd: folder.path().join("hsmd.sock"),
            admin_uids: Vec::new(),
            log: log::LevelFilter::Off,
            audit: crate::config::AuditConfig::default(),
            directories: Vec::new(),
            sso: Vec::new(),
            web: None,
        };
        let stopped = run(config(), Arc::new(Broken)).await;
        assert!(
            matches!(&stopped, Err(DaemonError::SelfTest(error)) if error.backend == "broken"),
            "{stopped:?}"
        );
        // The control: otherwise what is missing is the network.
        let other = run(config(), Arc::new(AwsLc)).await;
        assert!(matches!(other, Err(DaemonError::NoGenesis(_))), "{other:?}");
    }
}
