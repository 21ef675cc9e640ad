//! The unlocked keys, and the only code that signs.

use super::record::Pinned;
use super::tls_content::ServerCertificateVerify;
use super::{DiskFolder, Open, open_guard};
use crate::backend::KeyBackend;
use crate::vote_guard::{DiskFile, Quorum, VoteError, VoteGuard};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zixt_crypto::{AeadKey, SignError, SigningKey, cose, digest, labels};
use zixt_hsm_protocol::{CustodyError, KeyPurpose, Purpose, SignedPrecommit, VoteOutcome, VoteSlot};
use zixt_types::{Author, Body, Canonical, Hash, ParseError, Payload, SuiteId, Vote, VoteStep};

/// Keys in use: they exist only in the operational state. Expanded keys erase themselves on drop.
pub struct Keys {
    open: Open,
    pinned: Pinned,
    suite: SuiteId,
    enroller_hash: Hash,
    consensus: Box<dyn SigningKey>,
    tls: Box<dyn SigningKey>,
    enroller: Box<dyn SigningKey>,
    row_key: AeadKey,
    guard: Mutex<VoteGuard<DiskFile>>,
    /// A precommit that will be asked for next, signed ahead. Released like any other: by the guard, once it is durable.
    ahead: Mutex<Option<(Vote, Vec<u8>)>>,
}

/// Why an open state has no keys in use, and the state.
pub type NotLoaded = Box<(Open, CustodyError)>;

impl Keys {
    /// Loads all active keys of a bound state, and the votes.
    ///
    /// # Errors
    /// The state comes back together with the error: `Quarantined` or `Failed` because of the votes, otherwise as
    /// [`KeyBackend::load`].
    pub fn load(backend: &dyn KeyBackend, folder: &DiskFolder, open: Open) -> Result<Self, NotLoaded> {
        match Self::try_load(backend, folder, &open) {
            Ok(loaded) => Ok(loaded(open)),
            Err(error) => Err(Box::new((open, error))),
        }
    }

    fn try_load(
        backend: &dyn KeyBackend,
        folder: &DiskFolder,
        open: &Open,
    ) -> Result<impl FnOnce(Open) -> Self + use<>, CustodyError> {
        let Open { record, root } = open;
        let pinned = record.pinned.clone().ok_or(CustodyError::Unprovisioned)?;
        let load = |purpose| backend.load(root, record.key(purpose)?);
        // Nothing asks for the identity key's signature yet; that it opens is found out here and not when it is needed.
        drop(load(KeyPurpose::Identity)?);
        let (consensus, tls) = (load(KeyPurpose::Consensus)?, load(KeyPurpose::Tls)?);
        let enroller = load(KeyPurpose::Enroller)?;
        let row_key = record.open_row_key(root)?;
        let guard = open_guard(folder, record.open_guard_key(root)?, pinned.quorum())?;
        if guard.votes() < record.votes {
            return Err(CustodyError::Quarantined {
                reason: format!(
                    "the vote guard was set back: it knows {} votes, {} were signed",
                    guard.votes(),
                    record.votes
                ),
            });
        }
        let guard = Mutex::new(guard);
        let suite = record.key(KeyPurpose::Consensus)?.suite;
        let enroller_hash = record.key(KeyPurpose::Enroller)?.hash();
        Ok(move |open| Self {
            open,
            pinned,
            suite,
            enroller_hash,
            consensus,
            tls,
            enroller,
            row_key,
            guard,
            ahead: Mutex::new(None),
        })
    }

    /// Forgets the keys in use.
    #[must_use]
    pub fn unload(self) -> Open {
        self.open
    }

    /// The state that they are of.
    #[must_use]
    pub const fn open(&self) -> &Open {
        &self.open
    }

    /// The state, to change what is not in use.
    pub const fn open_mut(&mut self) -> &mut Open {
        &mut self.open
    }

    /// Votes that were signed so far.
    #[must_use]
    pub fn votes(&self) -> u64 {
        self.guard().votes()
    }

    /// Signs a handshake as TLS server.
    ///
    /// # Errors
    /// `WrongContent`, `Internal`.
    pub fn sign_tls(&self, content: &[u8]) -> Result<Vec<u8>, CustodyError> {
        let content = ServerCertificateVerify::parse(content)
            .map_err(|why| CustodyError::WrongContent { purpose: Purpose::TlsServer, why: why.to_owned() })?;
        self.tls.sign(&content.to_bytes()).map_err(|error| not_signed(&error))
    }

    /// Signs a vote unless its slot is taken. The vote is durable before its signature is released.
    ///
    /// # Errors
    /// `WrongContent`, `WrongGenesis`, `WrongSuite`, `Storage`, `Internal`.
    pub fn sign_vote(&self, vote: &[u8]) -> Result<VoteOutcome, CustodyError> {
        let vote = Vote::parse(vote).map_err(|error| wrong_content(Purpose::ConsensusVote, &error))?;
        self.check_network(vote.genesis, vote.suite)?;
        let mut guard = self.guard();
        let outcome = guard.vote(&vote, |vote| match self.ahead().take() {
            Some((ahead, signature)) if ahead == *vote => Ok(signature),
            _ => self.consensus.sign(&digest::vote_bytes(vote)),
        });
        outcome.map_err(|error| match error {
            VoteError::Storage(ref source) => CustodyError::Storage { detail: format!("{error}: {source}") },
            VoteError::Stopped => CustodyError::Storage { detail: error.to_string() },
            VoteError::Sign(ref source) => not_signed(source),
            VoteError::TooLong => internal(&error),
        })
    }

    /// Signs ahead what follows a vote that was just released: where one appliance decides alone, the precommit for the
    /// header of its prevote. Takes the time of a signature off every height; whoever calls it has nothing else to do.
    pub fn sign_ahead(&self, vote: &[u8]) {
        let Ok(vote) = Vote::parse(vote) else { return };
        let released = VoteSlot { height: vote.height, round: vote.round, step: vote.step };
        if self.pinned.quorum() != Quorum::Alone
            || vote.step != VoteStep::Prevote
            || vote.header.is_none()
            || self.guard().highest() != Some(released)
        {
            return;
        }
        let next = Vote { step: VoteStep::Precommit, ..vote };
        // Under the lock, so that who asks for it meanwhile waits for it and does not sign it again.
        let mut ahead = self.ahead();
        if let Ok(signature) = self.consensus.sign(&digest::vote_bytes(&next)) {
            *ahead = Some((next, signature));
        }
    }

    /// Signs an invitation as this appliance's enroller.
    ///
    /// # Errors
    /// `WrongContent`, `WrongGenesis`, `WrongSuite`, `Internal`.
    pub fn sign_invite(&self, bytes: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.sign_as_enroller(bytes, Purpose::EnrollerSign, |payload| match payload {
            Payload::Invite { .. } => Ok(()),
            _ => Err("it is not an invitation"),
        })
    }

    /// Signs the revocation of a device as this appliance's enroller.
    ///
    /// # Errors
    /// `WrongContent`, `WrongGenesis`, `WrongSuite`, `Internal`.
    pub fn sign_revocation(&self, bytes: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.sign_as_enroller(bytes, Purpose::EnrollerRevoke, |payload| match payload {
            Payload::DeviceRevoke { .. } => Ok(()),
            _ => Err("it is not the revocation of a device"),
        })
    }

    fn sign_as_enroller(
        &self,
        bytes: &[u8],
        purpose: Purpose,
        check: impl FnOnce(&Payload) -> Result<(), &'static str>,
    ) -> Result<Vec<u8>, CustodyError> {
        let wrong = |why: &str| CustodyError::WrongContent { purpose, why: why.to_owned() };
        let body = Body::parse(bytes).map_err(|error| wrong_content(purpose, &error))?;
        check(&body.payload).map_err(wrong)?;
        if body.author != Author::Enroller(self.enroller_hash) {
            return Err(wrong("its author is not this appliance's enroller"));
        }
        self.check_network(body.genesis, body.suite)?;
        cose::sign(&*self.enroller, labels::BODY, &body.to_bytes()).map_err(|error| not_signed(&error))
    }

    /// A copy of the row data key.
    #[must_use]
    pub fn row_key(&self) -> AeadKey {
        AeadKey::from_bytes(self.row_key.as_bytes())
    }

    /// The highest vote that was signed.
    #[must_use]
    pub fn last_vote(&self) -> Option<VoteSlot> {
        self.guard().highest()
    }

    /// The newest precommit for a header that was signed.
    #[must_use]
    pub fn last_precommit(&self) -> Option<SignedPrecommit> {
        self.guard().precommit()
    }

    fn guard(&self) -> MutexGuard<'_, VoteGuard<DiskFile>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<(Vote, Vec<u8>)>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_network(&self, genesis: Hash, suite: SuiteId) -> Result<(), CustodyError> {
        if genesis != self.pinned.genesis {
            return Err(CustodyError::WrongGenesis { pinned: self.pinned.genesis });
        }
        if suite != self.suite {
            return Err(CustodyError::WrongSuite { key: self.suite });
        }
        Ok(())
    }
}

fn wrong_content(purpose: Purpose, error: &ParseError) -> CustodyError {
    CustodyError::WrongContent { purpose, why: error.to_string() }
}

/// A key inside a token may fail because of the token; whoever asked can do something about that.
fn not_signed(error: &SignError) -> CustodyError {
    match error {
        SignError::Backend { backend } if *backend == zixt_hsm_pkcs11::NATIVE_BACKEND => {
            CustodyError::TokenFailed { detail: "its key did not sign; the log says why".to_owned() }
        }
        error => internal(error),
    }
}

fn internal(error: &impl std::fmt::Display) -> CustodyError {
    CustodyError::Internal { detail: error.to_string() }
}
