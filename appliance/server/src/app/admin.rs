//! What administrators ask for.

use super::App;
use super::submit::parse;
use crate::sequencer::Unrecorded;
use crate::{names, problem};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zixt_api::{
    AdminDecision, AdminInvitation, AdminStatus, Bytes64, ErrorCode, HeaderInfo, Problem, Receipt,
};
use zixt_ceremony::{CeremonyError, OfficerRule, judge};
use zixt_crypto::digest;
use zixt_ledger::{Submission, ThreadDetail, system};
use zixt_types::{
    Action, Attachment, Author, Canonical as _, Decision, Hash, KeyPurpose, Payload, Seq, Transcript,
};

impl App {
    /// Creates an account.
    ///
    /// # Errors
    /// The name is taken or is not the one that the entry commits to, or the entry was refused.
    pub async fn create_account(&self, request: AdminInvitation) -> Result<Receipt, Problem> {
        let submission = parse(request.submission)?;
        let (Payload::Invite { account, name: commitment, .. }, Author::Enroller(_)) =
            (&submission.body.payload, submission.body.author)
        else {
            return Err(Problem::new(
                ErrorCode::WrongKind,
                "an account begins with an enroller's invitation",
            ));
        };
        let (account, salt) = (*account, request.salt.0);
        if !names::is_allowed(&request.name) {
            return Err(Problem::new(ErrorCode::NameInvalid, "the name has letters that are not allowed"));
        }
        if digest::name_commitment(&salt, &request.name) != *commitment {
            return Err(Problem::new(ErrorCode::NameMismatch, "name and salt do not open the commitment"));
        }
        self.check_can_record()?;
        let sealing = self.custody.names().ok_or_else(|| problem::of_custody(self.custody.state()))?;
        let tag = sealing.tag(&request.name);
        let sealed = sealing.seal(account, &request.name, &salt).map_err(|error| {
            log::error!("{error}");
            Problem::new(ErrorCode::StoreFailed, "the name cannot be sealed")
        })?;

        let _alone = self.naming.lock().await;
        let holder = self.store.name_by_tag(tag.as_ref()).await.map_err(|error| problem::of_store(&error))?;
        if holder.is_some_and(|holder| holder.account != account) {
            return Err(Problem::new(ErrorCode::NameTaken, "the name is taken"));
        }
        // The entry first: a name without an account could never be given again. After a crash in between, the same
        // request repairs it.
        let receipt = self.record_one(submission).await?;
        let named = self.store.put_name(account, &sealed, tag.as_ref()).await;
        named.map_err(|error| problem::of_name(&error))?;
        log::info!("account {account} was created");
        Ok(receipt)
    }

    /// Records what officers decided. Handed in again, it gets its receipt again.
    ///
    /// # Errors
    /// Too few officers approved, the ledger does not take the decision, or custody has not carried it out.
    pub async fn decide(&self, request: AdminDecision) -> Result<Receipt, Problem> {
        let bytes = request.transcript.0;
        let (genesis, genesis_hash) = {
            let state = &self.view.read().state;
            (Arc::clone(&state.genesis), state.genesis_hash)
        };
        let backend = Arc::clone(&self.backend);
        let rule = OfficerRule::of(&genesis);
        let judged = tokio::task::spawn_blocking(move || {
            let approved = judge(&bytes, &rule, genesis_hash, &*backend)?;
            Ok::<_, CeremonyError>((approved.action().clone(), Transcript::parse(&bytes)?))
        });
        let judged = judged.await.map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        let (action, transcript) = judged.map_err(|error| problem::of_transcript(&error))?;
        let attachments = self.activated_key(&action, request.key).await?;
        let thread = digest::system_thread(genesis_hash);
        let seq = self.view.read().state.thread(&thread).map_or(Seq(0), |thread| thread.head.seq.next());
        let body = system::decision_body(&genesis, genesis_hash, seq, action.clone());
        let recorded = self.store.receipt_source(&thread, &body.message_id).await;
        if let Some(entry) = recorded.map_err(|error| problem::of_store(&error))?
            && matches!(&entry.body.payload, Payload::Decision { action: recorded } if *recorded == action)
        {
            return self.receipt((&entry).into()).await;
        }
        self.check_can_decide()?;
        let approvals = system::approvals_bytes(&transcript.approvals);
        let submission = Submission::parse(body.to_bytes(), approvals, None, attachments)
            .map_err(|error| problem::of_submission(&error))?;
        let answers = self.queue.put(vec![submission]).map_err(|why| problem::of_unrecorded(&why))?;
        let mut recorded = Err(Unrecorded::Stopped);
        for answer in answers {
            recorded = answer.await.unwrap_or(Err(Unrecorded::Stopped));
        }
        let recorded = recorded.map_err(|why| problem::of_unrecorded(&why))?;
        log::info!("appliance {}: {} is recorded", action.appliance, action.decision.name());
        self.receipt(recorded).await
    }

    /// The public key that an action activates, as the entry brings it. A consensus key of this appliance has to be in
    /// use: it certifies the height that records it.
    async fn activated_key(
        &self,
        action: &Action,
        given: Option<Bytes64>,
    ) -> Result<Vec<Attachment>, Problem> {
        let Decision::ActivateKey { purpose, activates, suite, .. } = action.decision else {
            return Ok(Vec::new());
        };
        let own = (action.appliance == self.about.me).then_some(purpose);
        let custody = Arc::clone(&self.custody);
        // What was last seen may be some seconds old.
        let asked = tokio::task::spawn_blocking(move || {
            custody.refresh();
            own.and_then(|purpose| custody.present(purpose))
        });
        let present = asked.await.ok().flatten().filter(|key| key.hash == activates);
        match (present, given) {
            (Some(present), _) => Ok(vec![Attachment(present.public_key)]),
            (None, _) if own == Some(KeyPurpose::Consensus) => {
                let known = self.view.read().state.system.validator(&self.about.me).map(|me| me.consensus);
                // Recorded long ago: the receipt needs no key.
                if known == Some(activates) { Ok(Vec::new()) } else { Err(not_active(&activates)) }
            }
            (None, Some(Bytes64(key))) if digest::key_hash(suite, &key) == activates => {
                Ok(vec![Attachment(key)])
            }
            (None, _) => {
                let detail = format!("the decision activates key {activates}");
                Err(Problem::new(ErrorCode::KeyMissing, detail))
            }
        }
    }

    /// The appliance in short.
    #[must_use]
    pub fn status(&self) -> AdminStatus {
        let inner = self.view.read();
        let state = &inner.state;
        let (mut accounts, mut devices, mut conversations) = (0, 0, 0);
        for (_, thread) in state.threads() {
            match &thread.detail {
                ThreadDetail::Account(account) => {
                    accounts += 1;
                    devices += account.active_devices().count() as u64;
                }
                ThreadDetail::Conversation(_) => conversations += 1,
                ThreadDetail::System(_) => {}
            }
        }
        AdminStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: state.genesis.network.clone(),
            genesis: state.genesis_hash.into(),
            lab: state.genesis.lab,
            suite: state.genesis.suite().name().to_owned(),
            suite_id: state.genesis.suite().id(),
            listen: self.about.listen.clone(),
            tls: self.about.tls.into(),
            latest: HeaderInfo { height: state.height.0, hash: state.header_hash.into(), time: state.time.0 },
            custody: self.custody.state(),
            custody_mode: self
                .custody
                .present(KeyPurpose::Consensus)
                .map_or_else(|| "not known".to_owned(), |key| key.custody.describe().to_owned()),
            store_writable: self.vitals.store_writable(),
            accounts,
            devices,
            conversations,
            connections: self.vitals.connections.load(Ordering::Relaxed),
            streams: self.push.count() as u64,
            queued: self.vitals.queued.load(Ordering::Relaxed),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn not_active(key: &Hash) -> Problem {
    Problem::new(ErrorCode::KeyNotActive, format!("the custody daemon does not use consensus key {key}"))
}
