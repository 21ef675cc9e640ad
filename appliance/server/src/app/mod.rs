//! What the server does for its callers. Decides; knows nothing of HTTP.

mod admin;
pub(crate) mod directories;
pub(crate) mod leavers;
mod people;
mod read;
mod stream;
mod submit;

pub use people::Signed;
pub(crate) use people::SsoEnd;
pub use stream::Events;

use crate::access::Access;
use crate::audit::{self, Audit};
use crate::custody::CustodyWatch;
use crate::health::Vitals;
use crate::problem;
use crate::push::Push;
use crate::room::{Held, LARGE_BYTES, Room, Rooms};
use crate::sequencer::Queue;
use crate::view::View;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zixt_api::{CustodyState, ErrorCode, Health, Problem};
use zixt_audit::Event;
use zixt_crypto::Backend;
use zixt_storage::Store;
use zixt_types::{ApplianceId, Hash, Member};

/// Requests whose signatures are checked at the same time: one for each core of a small appliance, and one that waits
/// for memory. More would only take turns.
const VERIFICATIONS_MAX: usize = 3;
/// A large answer waits for room no longer than this.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(20);

/// What administrators are told about this appliance.
#[derive(Clone, Debug)]
pub struct About {
    /// Where clients connect.
    pub listen: String,
    /// Hash of the TLS key.
    pub tls: Hash,
    /// This appliance.
    pub me: ApplianceId,
    /// Where browsers connect, and the fingerprint of the certificate there.
    pub web: Option<(String, String)>,
}

/// Everything that the application works with.
pub struct App {
    pub(crate) view: Arc<View>,
    pub(crate) store: Store,
    pub(crate) custody: Arc<CustodyWatch>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) push: Arc<Push>,
    pub(crate) queue: Queue,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) access: Arc<Access>,
    pub(crate) about: About,
    pub(crate) started: Instant,
    pub(crate) shutdown: CancellationToken,
    pub(crate) rooms: Rooms,
    verifications: Arc<Semaphore>,
    /// One account is created at a time, so that no two get the same name.
    naming: Mutex<()>,
    /// One request at a time records decisions: each is bound to its place in the system thread.
    deciding: Mutex<()>,
    /// Requests that change something, which go on when their connection is gone.
    pub(crate) tasks: TaskTracker,
    /// What anybody can do as often as they like, for the journal.
    repeats: people::Repeats,
    /// One request at a time carries out decisions about roles.
    following: Mutex<()>,
    /// One task at a time ends devices of who has left.
    leaving: Mutex<()>,
    /// One export of the audit journal at a time: it is made in memory.
    exporting: Mutex<()>,
}

/// The parts of an [`App`].
pub struct Parts {
    /// The ledger as everybody reads it.
    pub view: Arc<View>,
    /// The store.
    pub store: Store,
    /// Custody.
    pub custody: Arc<CustodyWatch>,
    /// For signatures.
    pub backend: Arc<dyn Backend>,
    /// The open streams.
    pub push: Arc<Push>,
    /// The way to the sequencer.
    pub queue: Queue,
    /// Health.
    pub vitals: Arc<Vitals>,
    /// The audit journal.
    pub audit: Arc<Audit>,
    /// Who may come in.
    pub access: Arc<Access>,
    /// For administrators.
    pub about: About,
    /// Ends streams.
    pub shutdown: CancellationToken,
}

/// An answer, with the memory that is reserved for it if it is a large one. To be dropped once it is sent.
#[derive(Debug)]
pub struct Kept<T> {
    pub(crate) value: T,
    pub(crate) room: Option<Held>,
}

impl<T> Kept<T> {
    const fn small(value: T) -> Self {
        Self { value, room: None }
    }
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { view, store, custody, backend, push, queue, vitals, audit, access, about, shutdown } =
            parts;
        Self {
            view,
            store,
            custody,
            backend,
            push,
            queue,
            vitals,
            audit,
            access,
            about,
            started: Instant::now(),
            shutdown,
            rooms: Rooms::default(),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            naming: Mutex::new(()),
            deciding: Mutex::new(()),
            tasks: TaskTracker::new(),
            repeats: people::Repeats::default(),
            following: Mutex::new(()),
            leaving: Mutex::new(()),
            exporting: Mutex::new(()),
        }
    }

    /// The device that holds a TLS key now. Asked for every request, so that a revocation works at once.
    ///
    /// # Errors
    /// No device holds it, or one that was revoked.
    pub fn caller(&self, tls: &Hash) -> Result<Member, Problem> {
        let inner = self.view.read();
        inner.state.member_by_tls(tls).ok_or_else(|| match inner.state.holder_of_tls(tls) {
            Some(_) => Problem::new(ErrorCode::CallerRevoked, "the device was revoked"),
            None => Problem::new(ErrorCode::UnknownCaller, "the connection's key belongs to no device"),
        })
    }

    /// Refuses a TLS key whose device was revoked: whoever has it may be anybody.
    ///
    /// # Errors
    /// [`ErrorCode::CallerRevoked`]
    pub(crate) fn check_not_revoked(&self, tls: &Hash) -> Result<(), Problem> {
        match self.caller(tls) {
            Err(problem) if problem.code == ErrorCode::CallerRevoked => Err(problem),
            _ => Ok(()),
        }
    }

    /// Whether a TLS key belongs to an active device.
    #[must_use]
    pub fn knows(&self, tls: &Hash) -> bool {
        self.view.read().state.member_by_tls(tls).is_some()
    }

    /// Whether the appliance can do its work.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut health = health(&self.vitals, self.custody.state(), self.view.read().state.height.0);
        if let Err(problem) = self.audit.check() {
            health.ok = false;
            health
                .reason
                .get_or_insert_with(|| format!("the audit journal takes no events: {}", problem.detail));
        }
        health
    }

    /// Room for what is to be sent and holds `bytes` bytes, but takes more on its way. Small ones need none.
    async fn room_for(
        &self,
        room: &Room,
        tls: Hash,
        bytes: u64,
        takes: u64,
    ) -> Result<Option<Held>, Problem> {
        if bytes <= LARGE_BYTES as u64 {
            return Ok(None);
        }
        match tokio::time::timeout(ROOM_WAIT_MAX, room.wait(tls, takes)).await {
            Ok(room) => Ok(room),
            Err(_) => Err(Problem::new(ErrorCode::Busy, "too many large answers at the same time")),
        }
    }

    /// Does what has to be in the audit journal, with how it ended. What was done is acknowledged only when that is durable;
    /// handed in again, it is found done and recorded then.
    async fn audited<T>(
        &self,
        mut event: Event,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let _room = self.audit.room(event.action)?;
        let done = work.await;
        event.outcome = audit::outcome(&done);
        match self.audit.record(event).await {
            Err(problem) if done.is_ok() => Err(problem),
            _ => done,
        }
    }

    /// Refuses at once what could not be recorded anyway.
    fn check_can_record(&self) -> Result<(), Problem> {
        if let Some(reason) = self.vitals.stopped() {
            return Err(Problem::new(ErrorCode::LedgerStopped, reason));
        }
        if self.shutdown.is_cancelled() {
            return Err(Problem::new(ErrorCode::ShuttingDown, "the appliance is about to stop"));
        }
        match self.custody.state() {
            CustodyState::Operational => Ok(()),
            state => Err(problem::of_custody(state)),
        }
    }

    /// The same for an officers' decision, which may be what custody waits for.
    fn check_can_decide(&self) -> Result<(), Problem> {
        match self.check_can_record() {
            Err(problem) if problem.code == ErrorCode::AwaitingActivation => Ok(()),
            checked => checked,
        }
    }
}

/// Health from its facts; also before there is an [`App`].
#[must_use]
pub fn health(vitals: &Vitals, custody: CustodyState, height: u64) -> Health {
    let store_writable = vitals.store_writable();
    let reason = vitals.stopped().map(|reason| format!("the ledger has stopped: {reason}")).or_else(|| {
        if custody != CustodyState::Operational {
            Some(format!("custody is {}", problem::describe(custody)))
        } else if !store_writable {
            Some("the store takes no writes: the disk is full or failed".to_owned())
        } else {
            None
        }
    });
    Health {
        ok: reason.is_none(),
        custody,
        store_writable,
        height,
        last_commit_at: vitals.last_commit_at().map(|at| at.0),
        reason,
    }
}
