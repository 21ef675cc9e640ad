//! What administrators ask for.

use super::App;
use super::submit::parse;
use crate::health::now;
use crate::sequencer::Unrecorded;
use crate::{names, problem};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zixt_api::{
    AdminDecision, AdminInvitation, AdminStatus, AuditPage, Bytes64, CustodyState, ErrorCode, HeaderInfo,
    Problem, Receipt, WebAddress,
};
use zixt_audit::{self as audit, Actor, ExportError, Origin, Sequence, Target, Value};
use zixt_ceremony::{CeremonyError, OfficerRule, judge};
use zixt_crypto::digest;
use zixt_hsm_protocol::TakenDecision;
use zixt_ledger::{Refusal, Submission, ThreadDetail, system};
use zixt_types::{
    AccountId, Action, Attachment, Author, Canonical as _, Decision, Hash, KeyPurpose, Payload, Salt, Seq,
    Transcript,
};

/// A decision that enough officers approved.
struct Decided {
    action: Action,
    transcript: Transcript,
}

impl App {
    /// Creates an account.
    ///
    /// # Errors
    /// The name is taken or is not the one that the entry commits to, or the entry was refused.
    pub async fn create_account(&self, by: Origin, request: AdminInvitation) -> Result<Receipt, Problem> {
        let submission = parse(request.submission)?;
        let (Payload::Invite { account, name: commitment, .. }, Author::Enroller(_)) =
            (&submission.body.payload, submission.body.author)
        else {
            return Err(Problem::new(
                ErrorCode::WrongKind,
                "an account begins with an enroller's invitation",
            ));
        };
        let (account, commitment) = (*account, *commitment);
        let mut event = self.audit.event(audit::Action::AccountInvited, actor_of(by), by);
        event.target = Some(Target::Account(account));
        let link = request.link.map(|link| self.access.link_for(&link.directory, &link.login)).transpose()?;
        crate::audit::with(&mut event, "linked", Value::Flag(link.is_some()));
        let named = NewName { account, commitment, name: request.name, salt: request.salt.0, link };
        self.audited(event, self.create_named(submission, named)).await
    }

    async fn create_named(&self, submission: Submission, named: NewName) -> Result<Receipt, Problem> {
        let NewName { account, commitment, name, salt, link } = named;
        if !names::is_allowed(&name) {
            return Err(Problem::new(ErrorCode::NameInvalid, "the name has letters that are not allowed"));
        }
        if digest::name_commitment(&salt, &name) != commitment {
            return Err(Problem::new(ErrorCode::NameMismatch, "name and salt do not open the commitment"));
        }
        self.check_can_record()?;
        let sealing = self.custody.names().ok_or_else(|| problem::of_custody(self.custody.state()))?;
        let tag = sealing.tag(&name);
        let sealed = sealing.seal(account, &name, &salt).map_err(|error| {
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
        self.access.create(account, link).await?;
        log::info!("account {account} was created");
        Ok(receipt)
    }

    /// Records what officers decided. Handed in again, it gets its receipt again.
    ///
    /// While the appliance awaits the activation of custody's key, a decision of its own brings all that custody has
    /// taken and the ledger lacks with it, up to that activation: only its height can be certified.
    ///
    /// # Errors
    /// Too few officers approved, the ledger does not take the decision, or custody has not carried it out.
    pub async fn decide(&self, by: Origin, request: AdminDecision) -> Result<Receipt, Problem> {
        let mut event = self.audit.event(audit::Action::OfficersDecided, actor_of(by), by);
        let action = Transcript::parse(&request.transcript.0).and_then(|it| Action::parse(&it.action));
        if let Ok(action) = action {
            event.target = Some(Target::Appliance(action.appliance));
            crate::audit::with_text(&mut event, "decision", action.decision.name());
            crate::audit::with(&mut event, "number", Value::Number(action.sequence));
        }
        let _room = self.audit.room(audit::Action::OfficersDecided)?;
        let done = self.record_decision(request).await;
        event.outcome = crate::audit::outcome(&done);
        let again = matches!(done, Ok((_, true)));
        if by == Origin::Inside && (again || done.is_err()) {
            // The appliance hands in everything that custody has, again and again. That something waits is told once.
            let waits =
                done.is_err() && self.repeats.tell((audit::Action::OfficersDecided, None, None)).is_some();
            if !waits {
                return done.map(|(receipt, _)| receipt);
            }
        }
        crate::audit::with(&mut event, "again", Value::Flag(again));
        match self.audit.record(event).await {
            Err(problem) if done.is_ok() => Err(problem),
            _ => done.map(|(receipt, _)| receipt),
        }
    }

    /// Its receipt, and whether the ledger had it already.
    async fn record_decision(&self, request: AdminDecision) -> Result<(Receipt, bool), Problem> {
        let asked = self.judged(request.transcript.0).await?;
        let action = asked.action.clone();
        let _alone = self.deciding.lock().await;
        let first = self.next_of_system();
        let (genesis, genesis_hash) = {
            let state = &self.view.read().state;
            (Arc::clone(&state.genesis), state.genesis_hash)
        };
        let thread = digest::system_thread(genesis_hash);
        let body = |seq, action| system::decision_body(&genesis, genesis_hash, seq, action);
        let message_id = body(first, action.clone()).message_id;
        let recorded = self.store.receipt_source(&thread, &message_id).await;
        if let Some(entry) = recorded.map_err(|error| problem::of_store(&error))?
            && matches!(&entry.body.payload, Payload::Decision { action: recorded } if *recorded == action)
        {
            self.follow(&action).await?;
            return self.receipt((&entry).into()).await.map(|receipt| (receipt, true));
        }
        let custody = Arc::clone(&self.custody);
        // What was last seen may be some seconds old.
        let state = tokio::task::spawn_blocking(move || custody.refresh()).await;
        let state = state.map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        self.check_can_decide()?;
        let awaiting = state == CustodyState::AwaitingActivation && action.appliance == self.about.me;
        let decisions = if awaiting { self.up_to_the_present_key(asked).await? } else { vec![asked] };

        let (mut submissions, mut seq) = (Vec::with_capacity(decisions.len()), first);
        for Decided { action: decided, transcript } in &decisions {
            let given = request.key.as_ref().filter(|_| *decided == action);
            let attachments = self.activated_key(decided, given, awaiting)?;
            let approvals = system::approvals_bytes(&transcript.approvals);
            let body = body(seq, decided.clone()).to_bytes();
            let submission = Submission::parse(body, approvals, None, attachments);
            submissions.push(submission.map_err(|error| problem::of_submission(&error))?);
            seq = seq.next();
        }
        let answers = self.queue.put(submissions).map_err(|why| problem::of_unrecorded(&why))?;
        let mut recorded = Err(Unrecorded::Stopped);
        for (answer, decided) in answers.into_iter().zip(&decisions) {
            let answer = answer.await.unwrap_or(Err(Unrecorded::Stopped));
            let Decided { action: Action { appliance, sequence, decision, .. }, .. } = decided;
            match &answer {
                Ok(_) => {
                    log::info!(
                        "appliance {appliance}: decision {sequence}, {}, is recorded",
                        decision.name()
                    );
                }
                Err(why) => log::debug!("appliance {appliance}: decision {sequence}: {why:?}"),
            }
            if decided.action == action {
                recorded = answer;
            }
        }
        // The consensus log may have brought an older batch back first, and other decisions with it: then the place is
        // taken, and that says nothing about this one.
        if matches!(recorded, Err(Unrecorded::Refused(_))) && self.next_of_system() != first {
            recorded = Err(Unrecorded::Undone);
        }
        let receipt = self.receipt(recorded.map_err(|why| problem::of_unrecorded(&why))?).await?;
        self.follow(&action).await?;
        Ok((receipt, false))
    }

    /// Carries out what an action that is recorded says about roles.
    async fn follow(&self, action: &Action) -> Result<(), Problem> {
        if self.access.is_behind_decisions() {
            self.follow_decisions(Some(digest::action_hash(action))).await?;
        }
        Ok(())
    }

    /// The place of the next decision in the system thread.
    fn next_of_system(&self) -> Seq {
        let state = &self.view.read().state;
        let thread = state.thread(&digest::system_thread(state.genesis_hash));
        thread.map_or(Seq(0), |thread| thread.head.seq.next())
    }

    /// A transcript that enough officers approved.
    async fn judged(&self, bytes: Vec<u8>) -> Result<Decided, Problem> {
        let (rule, genesis) = {
            let state = &self.view.read().state;
            (OfficerRule::of(&state.genesis), state.genesis_hash)
        };
        let backend = Arc::clone(&self.backend);
        let judged = tokio::task::spawn_blocking(move || {
            let approved = judge(&bytes, &rule, genesis, &*backend)?;
            Ok::<_, CeremonyError>(Decided {
                action: approved.action().clone(),
                transcript: Transcript::parse(&bytes)?,
            })
        });
        let judged = judged.await.map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        judged.map_err(|error| problem::of_transcript(&error))
    }

    /// What the ledger lacks of this appliance's decisions, up to the activation of the key that custody uses now: what
    /// custody has carried out, and the one that is handed in, which custody may have lost with its folder.
    async fn up_to_the_present_key(&self, asked: Decided) -> Result<Vec<Decided>, Problem> {
        let me = self.about.me;
        let (genesis, mut system) = {
            let state = &self.view.read().state;
            (Arc::clone(&state.genesis), (*state.system).clone())
        };
        if let Some(last) = system.sequence(&me).filter(|last| asked.action.sequence <= *last) {
            let refusal = Refusal::DecisionReplayed { last, got: asked.action.sequence };
            return Err(problem::of_unrecorded(&Unrecorded::Refused(refusal)));
        }
        let mut taken = self.taken(system.sequence(&me).map_or(0, |last| last.saturating_add(1))).await?;
        let wanted = asked.action.clone();
        if taken.iter().all(|known| known.action.sequence != wanted.sequence) {
            taken.push(asked);
            taken.sort_by_key(|known| known.action.sequence);
        }
        let present = self.custody.present(KeyPurpose::Consensus).map(|key| key.hash);
        let before = system.validator(&me).map(|me| me.consensus);
        let way = way(&taken, before, present);
        let mut decisions = Vec::new();
        for decided in taken {
            if consensus(&decided.action).is_some_and(|(_, activates)| !way.contains(&activates)) {
                continue;
            }
            // As the ledger will judge it, and for ever: what is refused now would keep all others back.
            if let Err(refusal) = system.apply(&genesis, &decided.action, now()) {
                if decided.action == wanted {
                    return Err(problem::of_unrecorded(&Unrecorded::Refused(refusal)));
                }
                log::error!("decision {} is not recorded: {refusal}", decided.action.sequence);
                continue;
            }
            decisions.push(decided);
            if system.validator(&me).map(|me| me.consensus) == present {
                break;
            }
        }
        let (key, before) = (present.unwrap_or(Hash::ZERO), before.unwrap_or(Hash::ZERO));
        if system.validator(&me).map(|me| me.consensus) != present {
            if let Some((_, activates)) = consensus(&wanted)
                && self.custody.key(KeyPurpose::Consensus, &activates).is_none()
            {
                return Err(not_active(&activates));
            }
            let detail = format!(
                "custody uses consensus key {key}, and no decisions at hand lead there from {before}, which the ledger \
                 has: hand in the transcripts that are missing, the last one last"
            );
            return Err(Problem::new(ErrorCode::AwaitingActivation, detail));
        }
        if decisions.iter().any(|decided| decided.action == wanted) {
            return Ok(decisions);
        }
        // It comes after the activation, or officers went another way than its key.
        let passed = decisions.last().is_some_and(|last| last.action.sequence > wanted.sequence);
        Err(if passed {
            let refusal = Refusal::NotThePresentKey { present: before };
            problem::of_unrecorded(&Unrecorded::Refused(refusal))
        } else {
            problem::of_custody(CustodyState::AwaitingActivation)
        })
    }

    /// What custody has carried out, from a number on.
    async fn taken(&self, from: u64) -> Result<Vec<Decided>, Problem> {
        let (mut taken, mut next): (Vec<Decided>, _) = (Vec::new(), from);
        loop {
            let custody = Arc::clone(&self.custody);
            let page = tokio::task::spawn_blocking(move || custody.custody().decisions(next)).await;
            let Ok(Ok(page)) = page else { return Err(problem::of_custody(CustodyState::Absent)) };
            let Some(last) = page.last() else { return Ok(taken) };
            next = last.sequence.saturating_add(1);
            for TakenDecision { sequence, transcript } in page {
                match self.judged(transcript).await {
                    Ok(decided) => taken.push(decided),
                    Err(problem) => log::error!("decision {sequence} is not recorded: {}", problem.detail),
                }
            }
        }
    }

    /// The public key that an action activates, as the entry brings it. A consensus key of this appliance has to be in
    /// use, because it certifies the height that records it, or to have been in use before the one that does.
    fn activated_key(
        &self,
        action: &Action,
        given: Option<&Bytes64>,
        awaiting: bool,
    ) -> Result<Vec<Attachment>, Problem> {
        let Decision::ActivateKey { purpose, activates, suite, .. } = action.decision else {
            return Ok(Vec::new());
        };
        let own = action.appliance == self.about.me;
        let known = self.custody.key(purpose, &activates).filter(|_| own);
        if own
            && purpose == KeyPurpose::Consensus
            && !awaiting
            && !known.as_ref().is_some_and(|key| key.active)
        {
            return Err(not_active(&activates));
        }
        match (known, given) {
            (Some(known), _) => Ok(vec![Attachment(known.public_key)]),
            (None, Some(Bytes64(key))) if digest::key_hash(suite, key) == activates => {
                Ok(vec![Attachment(key.clone())])
            }
            (None, _) => {
                let detail = format!("decision {} activates key {activates}", action.sequence);
                Err(Problem::new(ErrorCode::KeyMissing, detail))
            }
        }
    }

    /// Records of the audit journal from one on. That somebody read them is recorded first.
    ///
    /// # Errors
    /// The journal cannot be read, or takes no events.
    pub async fn audit_page(
        &self,
        by: Origin,
        from: u64,
        limit: usize,
        form: zixt_audit::lines::Form,
    ) -> Result<AuditPage, Problem> {
        let mut event = self.audit.event(audit::Action::JournalRead, actor_of(by), by);
        crate::audit::with(&mut event, "from", Value::Number(from));
        let _room = self.audit.room(event.action)?;
        self.audit.record(event).await?;
        let journal = Arc::clone(&self.audit);
        let page =
            tokio::task::spawn_blocking(move || journal.page(Sequence(from.max(1)), limit, form)).await;
        let page = page.map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        page.map_err(|error| Problem::new(ErrorCode::AuditUnavailable, error.to_string()))
    }

    /// A range of the audit journal as a file. That somebody exported it is recorded first.
    ///
    /// # Errors
    /// The range holds nothing or too much, or the journal cannot be read or takes no events.
    pub async fn audit_export(&self, by: Origin, first: u64, last: u64) -> Result<Vec<u8>, Problem> {
        let mut event = self.audit.event(audit::Action::JournalExported, actor_of(by), by);
        crate::audit::with(&mut event, "first", Value::Number(first));
        crate::audit::with(&mut event, "last", Value::Number(last));
        let _room = self.audit.room(event.action)?;
        self.audit.record(event).await?;
        let _alone = self.exporting.lock().await;
        let journal = Arc::clone(&self.audit);
        let made =
            tokio::task::spawn_blocking(move || journal.export(Sequence(first.max(1)), Sequence(last))).await;
        let made = made.map_err(|_| problem::of_unrecorded(&Unrecorded::Stopped))?;
        made.map_err(|error| match error {
            ExportError::Io(error) => Problem::new(ErrorCode::AuditUnavailable, error.to_string()),
            error => Problem::new(ErrorCode::MalformedRequest, error.to_string()),
        })
    }

    /// The appliance in short.
    #[must_use]
    pub fn status(&self) -> AdminStatus {
        // Before the ledger is held: who reads it twice waits for a writer who waits for the first.
        let (clock, directories) = (self.access.clock(), self.access.directory_list().directories);
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
            audit: self.audit.status(),
            audit_sinks: self.audit.sinks(),
            clock,
            web: self.about.web.clone().map(|(origin, fingerprint)| WebAddress { origin, fingerprint }),
            directories,
        }
    }
}

/// A name for an account, with what opens its commitment.
struct NewName {
    account: AccountId,
    commitment: Hash,
    name: String,
    salt: Salt,
    /// Who its person is at a directory.
    link: Option<zixt_identity::Link>,
}

/// Who acts, as far as their way in tells.
pub(super) const fn actor_of(by: Origin) -> Actor {
    match by {
        Origin::Socket(uid) => Actor::LocalUser(uid),
        _ => Actor::Appliance,
    }
}

/// The consensus key that an action retires and the one that it activates.
const fn consensus(action: &Action) -> Option<(Hash, Hash)> {
    match action.decision {
        Decision::ActivateKey { purpose: KeyPurpose::Consensus, retires, activates, .. } => {
            Some((retires, activates))
        }
        _ => None,
    }
}

/// The keys that lead from the ledger's consensus key to custody's, by decisions ascending by number. Custody's folder may
/// hold others as well, if its state was set back and officers went on elsewhere.
fn way(taken: &[Decided], from: Option<Hash>, to: Option<Hash>) -> HashSet<Hash> {
    let (mut way, mut to) = (HashSet::new(), to);
    for (retires, activates) in taken.iter().rev().filter_map(|decided| consensus(&decided.action)) {
        if to == Some(activates) && to != from {
            way.insert(activates);
            to = Some(retires);
        }
    }
    way
}

fn not_active(key: &Hash) -> Problem {
    Problem::new(ErrorCode::KeyNotActive, format!("the custody daemon does not use consensus key {key}"))
}
