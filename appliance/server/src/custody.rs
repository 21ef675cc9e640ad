//! The custody daemon as the server sees it: it signs votes and handshakes, and gives the key of sealed columns.

use crate::access::AccessKeys;
use crate::names::Names;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zixt_api::CustodyState;
use zixt_consensus::{HostError, SignOutcome};
use zixt_crypto::{AeadKey, SignError, SuiteId};
use zixt_crypto_fast::tls::TlsSigner;
use zixt_hsm_protocol::{
    BlockingHsmClient, ClientError, KeyStatus, Request, Response, StateKind, Status, TakenDecision,
    VoteOutcome, VoteRefusal,
};
use zixt_types::{Body, Canonical, CustodyMode, Hash, Height, KeyPurpose, Round, Transcript, Vote};

/// How often the state is asked for while keys are usable.
const POLL_OPERATIONAL: Duration = Duration::from_secs(2);
/// How often it is asked for while they are not.
const POLL_WAITING: Duration = Duration::from_millis(250);

/// A key that custody uses, or used before officers replaced it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustodyKey {
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Its hash.
    pub hash: Hash,
    /// The public key.
    pub public_key: Vec<u8>,
    /// Where it lives.
    pub custody: CustodyMode,
    /// Whether custody signs with it; otherwise it is retired.
    pub active: bool,
}

/// What the server asks of custody. All calls block for some milliseconds.
pub trait Custody: Send + Sync + 'static {
    /// Its state, the keys that it uses and those that it used, asked now.
    fn seen(&self) -> (CustodyState, Vec<CustodyKey>);
    /// Its state, asked now.
    fn state(&self) -> CustodyState {
        self.seen().0
    }
    /// Signs a vote.
    ///
    /// # Errors
    /// Custody cannot be reached.
    fn sign_vote(&self, vote: &Vote) -> Result<SignOutcome, HostError>;
    /// The newest precommit for a header that it has signed.
    ///
    /// # Errors
    /// Custody cannot be reached, or cannot tell now.
    fn last_precommit(&self) -> Result<Option<(Height, Round, Hash)>, HostError>;
    /// The key of sealed columns.
    ///
    /// # Errors
    /// Custody refuses or cannot be reached.
    fn row_key(&self) -> Result<AeadKey, HostError>;
    /// Signs, as enroller, that a device has ended.
    ///
    /// # Errors
    /// Custody refuses or cannot be reached.
    fn sign_revocation(&self, body: &Body) -> Result<Vec<u8>, HostError>;
    /// Officers' decisions that it carried out, from a number on: some of them, ascending, with their transcripts.
    ///
    /// # Errors
    /// Custody cannot be reached.
    fn decisions(&self, from: u64) -> Result<Vec<TakenDecision>, HostError>;
}

/// Custody will never sign this vote: it has signed later ones, so our store or log was set back.
#[derive(Debug, thiserror::Error)]
#[error(
    "custody has signed later votes than the ledger knows of: {0}. The state folder is older than custody's"
)]
pub struct NeverSigned(pub VoteRefusal);

/// Custody gives no answer now. It may later: whoever asked waits and asks again.
#[derive(Debug, thiserror::Error)]
pub enum NotNow {
    /// The daemon is away, or went away in the middle.
    #[error(transparent)]
    Unreachable(#[from] ClientError),
    /// It is there and does not use its keys.
    #[error("custody is {0} and cannot tell what it has signed")]
    State(StateKind),
}

/// Whether an error means that custody is to be asked again.
#[must_use]
pub fn is_passing(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<NotNow>())
}

/// The custody daemon behind its socket.
#[derive(Debug)]
pub struct Hsmd {
    client: BlockingHsmClient,
    /// The folder in which a recovery left decisions that the lost machine's custody took.
    kept: Option<PathBuf>,
}

impl Hsmd {
    /// The daemon at this socket. Connects when first asked.
    #[must_use]
    pub fn new(socket: &Path, kept: Option<PathBuf>) -> Self {
        Self { client: BlockingHsmClient::new(socket), kept }
    }

    /// Everything that it tells; `None` if it cannot be reached.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.client.status().ok()
    }
}

impl Custody for Hsmd {
    fn seen(&self) -> (CustodyState, Vec<CustodyKey>) {
        let Some(status) = self.status() else { return (CustodyState::Absent, Vec::new()) };
        let in_use = status.keys.iter().filter(|key| key.status != KeyStatus::Pending);
        let keys = in_use.map(|key| CustodyKey {
            purpose: key.purpose,
            hash: key.hash,
            public_key: key.public_key.clone(),
            custody: key.custody,
            active: key.status == KeyStatus::Active,
        });
        (state_of(status.state), keys.collect())
    }

    fn sign_vote(&self, vote: &Vote) -> Result<SignOutcome, HostError> {
        match self.client.sign_vote(vote) {
            Ok(VoteOutcome::Signed { signature }) => Ok(SignOutcome::Signed(signature)),
            Ok(VoteOutcome::AlreadySigned { vote, signature }) => {
                Ok(SignOutcome::AlreadySigned { vote: Vote::parse(&vote)?, signature })
            }
            Ok(VoteOutcome::Refused(refusal)) => Err(Box::new(NeverSigned(refusal))),
            Err(ClientError::Custody(error)) => Ok(SignOutcome::Refused(error.to_string())),
            Err(error) => Err(NotNow::from(error).into()),
        }
    }

    fn last_precommit(&self) -> Result<Option<(Height, Round, Hash)>, HostError> {
        let status = self.client.status().map_err(NotNow::from)?;
        if status.state != StateKind::Operational {
            // It knows its votes only while unlocked; none must not be taken for an answer. It is asked again then.
            return Err(NotNow::State(status.state).into());
        }
        Ok(status.last_precommit.map(|last| (last.height, last.round, last.header)))
    }

    fn row_key(&self) -> Result<AeadKey, HostError> {
        Ok(self.client.unseal_row_key()?)
    }

    fn sign_revocation(&self, body: &Body) -> Result<Vec<u8>, HostError> {
        Ok(self.client.sign_revocation(body)?)
    }

    fn decisions(&self, from: u64) -> Result<Vec<TakenDecision>, HostError> {
        let Response::Decisions(mut decisions) = self.client.call(&Request::Decisions { from })? else {
            return Err(Box::new(ClientError::Unexpected));
        };
        // What lies beyond this page comes with a later one.
        let until = decisions.last().map_or(u64::MAX, |last| last.sequence);
        if let Some(folder) = &self.kept {
            let taken: Vec<u64> = decisions.iter().map(|decision| decision.sequence).collect();
            let wanted = |sequence: u64| (from..=until).contains(&sequence) && !taken.contains(&sequence);
            decisions.extend(kept(folder, wanted)?);
            decisions.sort_by_key(|decision| decision.sequence);
        }
        Ok(decisions)
    }
}

/// Decisions in files of a folder, as `zixt-hsm recover` leaves them.
fn kept(folder: &Path, wanted: impl Fn(u64) -> bool) -> std::io::Result<Vec<TakenDecision>> {
    let mut decisions = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("decision-"));
        let number = number.and_then(|name| name.strip_suffix(".zixt-transcript"));
        let Some(sequence) = number.and_then(|number| number.parse().ok()).filter(|number| wanted(*number))
        else {
            continue;
        };
        match zixt_ceremony::file::from_file::<Transcript>(&std::fs::read(entry.path())?) {
            Ok(transcript) => decisions.push(TakenDecision { sequence, transcript: transcript.to_bytes() }),
            Err(error) => log::error!("{}: {error}", entry.path().display()),
        }
    }
    Ok(decisions)
}

const fn state_of(state: StateKind) -> CustodyState {
    match state {
        StateKind::Unprovisioned => CustodyState::Unprovisioned,
        StateKind::Locked => CustodyState::Locked,
        StateKind::Operational => CustodyState::Operational,
        StateKind::Quarantined => CustodyState::Quarantined,
        StateKind::Failed => CustodyState::Failed,
    }
}

/// What was last known of custody, and what depends on its keys being usable.
pub struct CustodyWatch {
    custody: Arc<dyn Custody>,
    state: tokio::sync::watch::Sender<CustodyState>,
    names: RwLock<Option<(Arc<Names>, Arc<AccessKeys>)>>,
    /// The keys that custody uses and used, as last seen.
    keys: RwLock<Vec<CustodyKey>>,
    /// The consensus key that the ledger knows of.
    recorded: RwLock<Option<Hash>>,
}

impl CustodyWatch {
    /// Asks custody for the first time. Blocks.
    #[must_use]
    pub fn new(custody: Arc<dyn Custody>) -> Self {
        let watch = Self {
            custody,
            state: tokio::sync::watch::Sender::new(CustodyState::Absent),
            names: RwLock::new(None),
            keys: RwLock::default(),
            recorded: RwLock::new(None),
        };
        watch.refresh();
        watch
    }

    /// What was last known.
    #[must_use]
    pub fn state(&self) -> CustodyState {
        *self.state.borrow()
    }

    /// Tells every change.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<CustodyState> {
        self.state.subscribe()
    }

    /// The custody that is watched.
    #[must_use]
    pub fn custody(&self) -> &Arc<dyn Custody> {
        &self.custody
    }

    /// The key that custody uses for a purpose, as last seen.
    #[must_use]
    pub fn present(&self, purpose: KeyPurpose) -> Option<CustodyKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.purpose == purpose && key.active).cloned()
    }

    /// A key that custody uses or used for a purpose, as last seen.
    #[must_use]
    pub fn key(&self, purpose: KeyPurpose, hash: &Hash) -> Option<CustodyKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.purpose == purpose && key.hash == *hash).cloned()
    }

    /// Says which consensus key the ledger has for this appliance. Custody's may be another: then it awaits its
    /// activation.
    pub fn record(&self, consensus: Hash) {
        *self.recorded.write().unwrap_or_else(PoisonError::into_inner) = Some(consensus);
        let known = self.state();
        self.tell(self.compare(if known.has_keys() { CustodyState::Operational } else { known }));
    }

    /// A state in the light of what the ledger knows.
    fn compare(&self, state: CustodyState) -> CustodyState {
        let recorded = *self.recorded.read().unwrap_or_else(PoisonError::into_inner);
        match (state, recorded, self.present(KeyPurpose::Consensus)) {
            (CustodyState::Operational, Some(recorded), Some(present)) if present.hash != recorded => {
                CustodyState::AwaitingActivation
            }
            _ => state,
        }
    }

    fn tell(&self, state: CustodyState) {
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            if changed {
                log::info!("custody is {state:?}");
            }
            *known = state;
            changed
        });
    }

    pub(crate) fn names(&self) -> Option<Arc<Names>> {
        self.row_keys().map(|(names, _)| names)
    }

    /// What rows about who may come in are authenticated and sealed under.
    pub(crate) fn access(&self) -> Option<Arc<AccessKeys>> {
        self.row_keys().map(|(_, access)| access)
    }

    fn row_keys(&self) -> Option<(Arc<Names>, Arc<AccessKeys>)> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks custody now. Blocks.
    pub fn refresh(&self) -> CustodyState {
        let (mut state, keys) = self.custody.seen();
        let mut names = self.row_keys();
        if state.has_keys() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        match state {
            CustodyState::Operational if names.is_none() => match self.custody.row_key() {
                Ok(key) => names = Some((Arc::new(Names::new(&key)), Arc::new(AccessKeys::new(&key)))),
                Err(error) => {
                    log::warn!("custody gives no row key: {}", crate::logging::chain(&*error));
                    state = self.custody.state();
                }
            },
            CustodyState::Operational => {}
            // The key goes with the state in which it may be had.
            _ => names = None,
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        let state = self.compare(state);
        self.tell(state);
        state
    }

    /// Keeps asking until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let pause = if self.state().has_keys() { POLL_OPERATIONAL } else { POLL_WAITING };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            let this = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || this.refresh()).await.is_err() {
                return;
            }
        }
    }
}

/// The appliance's TLS key, in the custody daemon.
pub struct HsmdTlsKey {
    client: BlockingHsmClient,
    suite: SuiteId,
    public_key: Vec<u8>,
}

impl HsmdTlsKey {
    /// The key that the daemon at `socket` named.
    #[must_use]
    pub fn new(socket: &Path, suite: SuiteId, public_key: Vec<u8>) -> Self {
        // Connections of its own: a crowd of handshakes must not make votes wait.
        Self { client: BlockingHsmClient::new(socket), suite, public_key }
    }
}

impl TlsSigner for HsmdTlsKey {
    fn suite(&self) -> SuiteId {
        self.suite
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        // The library calls this in the middle of a poll. Other tasks of this worker move to another thread meanwhile.
        tokio::task::block_in_place(|| self.client.sign_tls(message)).map_err(|error| {
            log::warn!("no signature for a handshake: {}", crate::logging::chain(&error));
            SignError::Backend { backend: "zixt-hsmd" }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::Approval;

    #[test]
    fn decisions_that_a_recovery_left_are_read_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let approval =
            Approval { suite: zixt_crypto::SuiteId::Standard, public_key: vec![1], signature: vec![2] };
        let transcript = |n| Transcript { version: 1, action: vec![n], approvals: vec![approval.clone()] };
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        for n in [3, 4, 10] {
            put(&format!("decision-{n}.zixt-transcript"), &zixt_ceremony::file::to_file(&transcript(n)));
        }
        put("decision-5.zixt-transcript", b"damaged");
        put("decision-x.zixt-transcript", b"");
        put("ledger.sqlite", b"");
        let mut found = kept(folder.path(), |number| number > 3).unwrap();
        found.sort_by_key(|decision| decision.sequence);
        let found: Vec<_> =
            found.into_iter().map(|decision| (decision.sequence, decision.transcript)).collect();
        assert_eq!(found, [4, 10].map(|n| (u64::from(n), transcript(n).to_bytes())));
    }
}
