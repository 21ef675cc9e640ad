//! What waits is sent: encrypted once, handed in until it is answered.

use super::verdict::{self, Verdict};
use super::{Engine, with_sources};
use crate::error::ClientError;
use crate::model::{ClientEvent, Mark};
use crate::records::{Blob, Disclosed, OutboxRecord, Outgoing, Prepared, ThreadRecord};
use crate::shared::{now, wire};
use crate::store::{Batch, Space};
use crate::trust::TrustError;
use std::collections::HashSet;
use zixt_api::{ErrorCode, Problem, Receipt, SubmitRequest};
use zixt_messaging::{Content, SeenHeader};
use zixt_types::{Body, Canonical as _, Epoch, Hash, Member, Payload, Seq, ThreadId};

/// How often a message or a commit is made anew because others were faster.
pub(super) const TRIES: usize = 12;

/// What the appliance said to a submission.
pub(super) enum Answer {
    /// It is recorded, and applied here.
    Recorded,
    /// It is refused.
    Refused(Box<Problem>),
}

/// Conversations in which nothing can be sent now, and why not in the first of them.
#[derive(Default)]
struct Stuck {
    threads: HashSet<ThreadId>,
    first: Option<ClientError>,
}

impl Engine {
    /// Sends what waits, in order. Returns how many messages became recorded.
    pub async fn flush(&mut self) -> Result<u64, ClientError> {
        let before = self.counts.sent;
        // Commits first: messages of the same conversation wait for the epoch that they begin. Then titles, which
        // commits queue, and last what people say.
        let mut stuck = Stuck::default();
        for rank in 0..3 {
            self.flush_rank(rank, &mut stuck).await?;
        }
        match stuck.first {
            Some(error) => Err(error),
            None => Ok(self.counts.sent - before),
        }
    }

    async fn flush_rank(&mut self, rank: u8, stuck: &mut Stuck) -> Result<(), ClientError> {
        for (order, item) in self.core.outbox().await? {
            let (own, change) = match item.what {
                Outgoing::Change { .. } => (0, true),
                Outgoing::Title(_) => (1, false),
                Outgoing::Text(_) => (2, false),
            };
            if own != rank || item.failed.is_some() || stuck.threads.contains(&item.thread) {
                continue;
            }
            let result =
                if change { self.waiting_change(order, item.thread).await } else { self.text(order).await };
            match result {
                Ok(()) => {}
                Err(ClientError::Trust(fault)) if !fault.is_ledger_wide() => {
                    self.conversations.remove(&item.thread);
                    self.alarm(&fault, Some(item.thread), None).await?;
                }
                // Alarmed before; it waits for a decision of its user.
                Err(ClientError::Blocked(_)) => {}
                Err(error @ (ClientError::Messaging(_) | ClientError::Removed)) => {
                    self.conversations.remove(&item.thread);
                    self.fail(order, item.thread, error.to_string(), None).await?;
                }
                // It takes somebody else, or another moment. Other conversations go on.
                Err(error @ (ClientError::NoKeys(_) | ClientError::Moving)) => {
                    self.conversations.remove(&item.thread);
                    stuck.threads.insert(item.thread);
                    stuck.first.get_or_insert(error);
                }
                Err(error) => {
                    self.conversations.remove(&item.thread);
                    return Err(self.noticed(error, None).await?);
                }
            }
        }
        Ok(())
    }

    /// Makes a change of the outbox happen. What can never happen is given up here: whatever waits for it goes on.
    async fn waiting_change(&mut self, order: u64, thread: ThreadId) -> Result<(), ClientError> {
        let reason = match self.change(order, None).await {
            Err(ClientError::Trust(fault)) if !fault.stops_its_conversation() => {
                self.alarm(&fault, Some(thread), None).await?;
                fault.to_string()
            }
            Err(error @ ClientError::Messaging(_)) => error.to_string(),
            done => return done,
        };
        self.conversations.remove(&thread);
        self.fail(order, thread, reason, None).await
    }

    /// Sends the titles that a change of members has queued. They are queued for good: whatever stands in the way now,
    /// the next flush sends them.
    pub(super) async fn tell_titles(&mut self, thread: ThreadId) -> Result<(), ClientError> {
        for (order, item) in self.core.outbox().await? {
            if item.thread != thread || item.failed.is_some() || !matches!(item.what, Outgoing::Title(_)) {
                continue;
            }
            if let Err(error) = self.text(order).await {
                self.conversations.remove(&thread);
                let error = self.noticed(error, Some(thread)).await?;
                log::info!("the title waits: {}", with_sources(&error));
            }
        }
        Ok(())
    }

    /// Sends one message of the outbox.
    async fn text(&mut self, order: u64) -> Result<(), ClientError> {
        for _ in 0..TRIES {
            // Gone: an entry that came meanwhile was this message.
            let Some(item) = self.core.outbox_item(order).await? else { return Ok(()) };
            let record = self.writable(item.thread).await?;
            self.refresh_members(&record.state.members).await?;
            // What lies encrypted may have to wait, too: a commit overtakes it, and it is encrypted anew. What was handed
            // in may be recorded already, and is asked for first.
            let renew = item.prepared.is_none() || !self.core.was_handed_in(item.id);
            self.tidy_before_sending(item.thread, renew).await?;
            let Some(item) = self.core.outbox_item(order).await? else { return Ok(()) };
            let prepared = match item.prepared.clone() {
                Some(prepared) => prepared,
                None => {
                    let record = self.core.thread(item.thread).await?.unwrap_or(record);
                    self.encrypt(order, item.clone(), &record).await?
                }
            };
            if self.core.hand_in(item.id) {
                let (thread, message) = (item.thread, item.id);
                self.core.emit(ClientEvent::Mark { thread, message, seq: None, mark: Mark::Sent });
            }
            match self.submit(item.thread, &prepared).await? {
                Answer::Recorded => return Ok(()),
                Answer::Refused(problem) => self.refused(order, item.thread, *problem).await?,
            }
            if self.core.outbox_item(order).await?.is_some_and(|item| item.failed.is_some()) {
                return Ok(());
            }
        }
        // Others commit all the time; it stays queued.
        Ok(())
    }

    /// Queues a message durably. If nothing stands before it, it is encrypted in the same transaction. If a device was
    /// revoked or the keys have come due until it is sent, that commit comes first, and the message is encrypted anew.
    pub async fn queue(&mut self, item: OutboxRecord) -> Result<(), ClientError> {
        let order = self.core.outbox_key();
        if self.is_next(item.thread).await?
            && let Some(record) = self.core.thread(item.thread).await?
        {
            match self.encrypt(order, item.clone(), &record).await {
                Ok(_) => return Ok(()),
                Err(error @ ClientError::Store(_)) => return Err(error),
                // Sending finds the same, and says it.
                Err(error) => {
                    self.conversations.remove(&item.thread);
                    log::debug!("queued without being encrypted: {}", with_sources(&error));
                }
            }
        }
        let mut batch = Batch::new();
        self.core.put_outbox(&mut batch, order, &item);
        self.commit(batch, Vec::new()).await
    }

    /// Whether a message would be the next entry of this device: nothing of the conversation waits, and no commit is due
    /// before it.
    async fn is_next(&mut self, thread: ThreadId) -> Result<bool, ClientError> {
        // What waits for the same conversation was queued last, as a rule.
        let waits = |item: &OutboxRecord| item.thread == thread && item.failed.is_none();
        if self.core.find_in_outbox(true, waits).await?.is_some() {
            return Ok(false);
        }
        match self.untidy(thread).await {
            Ok(untidy) => Ok(untidy == (false, false, false)),
            Err(ClientError::Messaging(_) | ClientError::UnknownThread(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Encrypts a message and stores the exact bytes with the state that made them, before anything leaves.
    async fn encrypt(
        &mut self,
        order: u64,
        mut item: OutboxRecord,
        record: &ThreadRecord,
    ) -> Result<Prepared, ClientError> {
        let seen = self.ledger.tip().map(|tip| SeenHeader { height: tip.height(), hash: tip.hash });
        let content = match &item.what {
            Outgoing::Text(text) => Content::text(item.id, text.clone(), seen),
            Outgoing::Title(Some(title)) => Content::title(item.id, title.clone(), seen),
            // Others may have chosen another one meanwhile.
            Outgoing::Title(None) => {
                Content::title(item.id, record.shared_title.clone().unwrap_or_default(), seen)
            }
            Outgoing::Change { .. } => return Err(ClientError::UnknownThread(item.thread)),
        };
        let content = content.map_err(|error| ClientError::TextTooLong { got: error.got, max: error.max })?;
        let mut conversation = self.conversation(item.thread).await?;
        let message =
            conversation.encrypt(&content).map_err(|error| ClientError::Messaging(with_sources(&error)))?;
        let at = (record.counter, item.at, Some(record.head));
        let (body, signature) = self.core.sign(item.thread, item.id, at, message.payload)?;
        let prepared = Prepared {
            body,
            signature,
            possession: None,
            attachments: vec![Blob(message.envelope)],
            disclosure: Some(Disclosed { content: message.content, k: *message.key.as_bytes() }),
        };
        item.prepared = Some(prepared.clone());
        let mut batch = Batch::new();
        self.core.put_state(&mut batch, item.thread, message.state);
        self.core.put_outbox(&mut batch, order, &item);
        // Point of no return: from here on these bytes are handed in, or nothing is.
        self.commit(batch, Vec::new()).await?;
        self.put_back(conversation);
        Ok(prepared)
    }

    /// Hands a prepared entry in. A repeated one gets the receipt of the first.
    pub(super) async fn submit(
        &mut self,
        thread: ThreadId,
        prepared: &Prepared,
    ) -> Result<Answer, ClientError> {
        let request = SubmitRequest { submissions: vec![wire(prepared)] };
        let response = match self.core.api.submit(&request).await {
            Ok(response) => response,
            Err(ClientError::Refused(problem)) => return Ok(Answer::Refused(problem)),
            Err(error) => return Err(error),
        };
        match (response.receipts.first(), response.refused) {
            (Some(receipt), _) => {
                self.receipt(thread, prepared, receipt).await?;
                Ok(Answer::Recorded)
            }
            (None, Some(problem)) => Ok(Answer::Refused(Box::new(problem))),
            (None, None) => Err(TrustError::Receipt.into()),
        }
    }

    /// Checks a receipt and applies the entry, after whatever stands between it and this device's head.
    async fn receipt(
        &mut self,
        thread: ThreadId,
        prepared: &Prepared,
        receipt: &Receipt,
    ) -> Result<(), ClientError> {
        let entry = self.ledger.checker.receipt(
            receipt,
            &prepared.body,
            &prepared.signature,
            prepared.possession.as_deref(),
        )?;
        self.anchor(&entry, &receipt.proof).await?;
        let record = self.core.thread(thread).await?;
        let (next, prev) =
            record.as_ref().map_or((Seq(0), Hash::ZERO), |record| (record.head.seq.next(), record.head.hash));
        if entry.seq() < next {
            // It came by the stream already.
            return match self.stored_entry(thread, entry.seq()).await? {
                Some(known) if known.hash != entry.hash => Err(TrustError::BrokenChain(entry.seq()).into()),
                _ => Ok(()),
            };
        }
        if entry.seq() == next && entry.position.prev == prev {
            return self.apply(record, entry, None, None).await;
        }
        self.catch_up(thread, Some(entry.seq())).await
    }

    /// A message was refused. Either the conversation moved on, and the message is made anew; or it is not wanted; or the
    /// appliance lies.
    async fn refused(&mut self, order: u64, thread: ThreadId, problem: Problem) -> Result<(), ClientError> {
        match problem.code {
            ErrorCode::NotAMember => {
                self.learn_of_removal(order, thread, &problem).await?;
                if self.core.thread(thread).await?.is_some_and(|record| record.is_inside()) {
                    // It was added again since.
                    return self.encrypt_anew(order).await;
                }
                self.fail(order, thread, ClientError::Removed.to_string(), Some(problem.code)).await
            }
            ErrorCode::StaleEpoch
            | ErrorCode::CounterGap
            | ErrorCode::CounterReplayed
            | ErrorCode::OtherHistory => {
                self.learn(order, thread, &problem).await?;
                let record = self.core.thread(thread).await?;
                if record.is_none_or(|record| record.removed) {
                    let reason = ClientError::Removed.to_string();
                    return self.fail(order, thread, reason, Some(problem.code)).await;
                }
                self.encrypt_anew(order).await
            }
            ErrorCode::UnknownCaller | ErrorCode::CallerRevoked => Err(problem.into()),
            code if !code.is_final() => Err(problem.into()),
            code => self.fail(order, thread, problem.to_string(), Some(code)).await,
        }
    }

    /// The entry names an epoch or a counter that is over: it can never be recorded any more. Its message key is burnt with
    /// it; the text is encrypted anew.
    async fn encrypt_anew(&mut self, order: u64) -> Result<(), ClientError> {
        let Some(mut item) = self.core.outbox_item(order).await? else { return Ok(()) };
        item.prepared = None;
        let mut batch = Batch::new();
        self.core.put_outbox(&mut batch, order, &item);
        self.commit(batch, Vec::new()).await
    }

    /// Fetches what a refusal may rest on, and demands that it rests on something: see [`contradiction`].
    pub(super) async fn learn(
        &mut self,
        order: u64,
        thread: ThreadId,
        problem: &Problem,
    ) -> Result<(), ClientError> {
        let refused = self.core.outbox_item(order).await?.and_then(|item| item.prepared);
        // Nothing moved since the entry was handed in: entries are applied by this engine only.
        let before = self.core.thread(thread).await?;
        self.catch_up(thread, problem.since.map(Seq)).await?;
        let now = self.core.outbox_item(order).await?.and_then(|item| item.prepared);
        let after = self.core.thread(thread).await?;
        // What came was the entry itself, or made it void.
        let (Some(refused), Some(now)) = (refused, now) else { return Ok(()) };
        if refused.body != now.body || after.as_ref().is_some_and(|record| record.removed) {
            return Ok(());
        }
        let body = Body::parse(&refused.body).map_err(TrustError::Malformed)?;
        match contradiction(problem, &body, before.as_ref(), after.as_ref()) {
            None => Ok(()),
            Some(reason) => {
                Err(TrustError::FalseRefusal { code: problem.code.code().to_owned(), reason }.into())
            }
        }
    }

    /// [`Engine::learn`], of a refusal because this device was removed. Who was, is shown everything up to that: what is
    /// not shown did not happen.
    pub(super) async fn learn_of_removal(
        &mut self,
        order: u64,
        thread: ThreadId,
        problem: &Problem,
    ) -> Result<(), ClientError> {
        let before = self.core.thread(thread).await?;
        let learnt = self.learn(order, thread, problem).await;
        let after = self.core.thread(thread).await?;
        let (next, _) = after.as_ref().map_or((Seq(0), Hash::ZERO), ThreadRecord::next);
        match learnt {
            Err(error @ ClientError::Refused(_)) => match verdict::of(error, next) {
                Verdict::Conversation(fault) => Err(fault.into()),
                Verdict::Everything(error) | Verdict::Later(error) => Err(error),
            },
            Ok(()) if !self.was_removed_since(thread, before.as_ref()).await? => {
                Err(TrustError::Withheld { from: next, upto: next }.into())
            }
            learnt => learnt,
        }
    }

    /// Gives a message up; it stays visible with its reason. What was handed in and refused stays in any case: if it is
    /// recorded after all, it has to be known again.
    async fn fail(
        &mut self,
        order: u64,
        thread: ThreadId,
        reason: String,
        refused: Option<ErrorCode>,
    ) -> Result<(), ClientError> {
        let Some(mut item) = self.core.outbox_item(order).await? else { return Ok(()) };
        if item.failed.is_some() {
            return Ok(());
        }
        self.core.settled(item.id);
        let mut batch = Batch::new();
        if refused.is_none() && matches!(item.what, Outgoing::Change { .. } | Outgoing::Title(_)) {
            batch.delete(Space::Outbox, order.to_be_bytes());
        } else {
            item.fail(reason.clone(), refused);
            self.core.put_outbox(&mut batch, order, &item);
        }
        let event = ClientEvent::SendFailed { thread, message: item.id, reason };
        self.commit(batch, vec![event]).await
    }

    /// Removes revoked devices, and renews keys if that is due and asked for.
    pub(super) async fn tidy_before_sending(
        &mut self,
        thread: ThreadId,
        renew: bool,
    ) -> Result<(), ClientError> {
        let (stale, due, pending) = self.untidy(thread).await?;
        if stale && pending {
            // A commit that was made before somebody was revoked: it comes first.
            for (order, item) in self.core.outbox().await? {
                let waits = item.thread == thread && item.failed.is_none();
                if waits && matches!(item.what, Outgoing::Change { .. }) {
                    self.waiting_change(order, thread).await?;
                }
            }
        }
        let (stale, due, pending) =
            if stale && pending { self.untidy(thread).await? } else { (stale, due, pending) };
        if (stale || (due && renew)) && !pending {
            self.rotate(thread).await?;
        }
        Ok(())
    }

    /// Whether a conversation has revoked devices, keys that are due, and a commit that waits.
    async fn untidy(&mut self, thread: ThreadId) -> Result<(bool, bool, bool), ClientError> {
        let conversation = self.conversation(thread).await?;
        let stale = !conversation.stale_members().is_empty();
        let due = conversation.rotation_due(&self.core.profile.genesis.rotation, now()).is_some();
        let pending = conversation.pending_commit().is_some();
        self.put_back(conversation);
        Ok((stale, due, pending))
    }
}

/// Why a refusal cannot be true, if it cannot. `before` is the conversation as this device had verified it when it
/// handed the entry in, `after` as it is after everything was fetched: the appliance judged by a state that is neither
/// older than the one nor newer than the other, because it refuses by what is recorded only. Whatever such a state may
/// say is no lie: the entry's epoch may have ended, or another entry of this device may have taken its counter, since or
/// without this device's knowledge.
fn contradiction(
    problem: &Problem,
    body: &Body,
    before: Option<&ThreadRecord>,
    after: Option<&ThreadRecord>,
) -> Option<String> {
    let (Some(before), Some(after)) = (before, after) else {
        // The id is random, and the entry its first: there is nothing that it could be late for.
        return Some("nobody but this device knows of the conversation, which this entry begins".to_owned());
    };
    let (epoch, added, removed): (Epoch, &[Member], &[Member]) = match &body.payload {
        Payload::Message { epoch, .. } => (*epoch, &[], &[]),
        Payload::Commit { epoch, added, removed, .. } => (*epoch, added, removed),
        _ => return None,
    };
    let is_current = epoch == after.state.epoch;
    match problem.code {
        ErrorCode::CounterGap if body.counter <= before.counter => {
            Some(format!("{} entries of this device are recorded, so that this is its next", before.counter))
        }
        ErrorCode::CounterReplayed if body.counter >= after.counter => {
            Some(format!("no more than {} entries of this device are recorded", after.counter))
        }
        ErrorCode::StaleEpoch if is_current => Some(format!("epoch {} has not ended", epoch.0)),
        ErrorCode::StaleEpoch => {
            let since = (before.state.epoch_since.0, after.state.epoch_since.0);
            let epochs = (before.state.epoch.0, after.state.epoch.0);
            if let Some(got) = problem.since.filter(|got| *got < since.0 || *got > since.1) {
                return Some(format!("entry {got} began no epoch in which it could be handed in"));
            }
            let got = problem.expected.filter(|got| *got < epochs.0 || *got > epochs.1)?;
            Some(format!("epoch {got} was over, or had not begun, when it was handed in"))
        }
        // An entry names the last one that this device has verified.
        ErrorCode::OtherHistory => Some("the entry that it says its author saw is recorded".to_owned()),
        ErrorCode::AlreadyAMember if is_current && !added.iter().any(|member| after.state.has(member)) => {
            Some("nobody whom it adds is in the conversation".to_owned())
        }
        ErrorCode::RemovedNobody if is_current && removed.iter().all(|member| after.state.has(member)) => {
            Some("everybody whom it removes is in the conversation".to_owned())
        }
        // A removal is a commit, and there was none.
        ErrorCode::NotAMember if before.state.epoch == after.state.epoch => {
            Some("this device was not removed".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_ledger::Conversation;
    use zixt_types::{AccountId, Author, DeviceId, Head, MessageId, SuiteId, ThreadKind, Timestamp};

    const ME: Member = Member { account: AccountId([1; 16]), device: DeviceId([1; 16]) };
    const OTHER: Member = Member { account: AccountId([2; 16]), device: DeviceId([2; 16]) };

    fn thread() -> ThreadId {
        ThreadId::new(ThreadKind::Conversation, &[7; 31])
    }

    /// This device in `epoch`, which entry `since` began, after so many entries of its own.
    fn record(epoch: u64, since: u64, counter: u64) -> ThreadRecord {
        ThreadRecord {
            version: crate::records::VERSION,
            thread: thread(),
            title: None,
            head: Head { seq: Seq(9), hash: Hash([1; 48]) },
            time: Timestamp(1),
            state: Conversation { epoch: Epoch(epoch), epoch_since: Seq(since), members: vec![ME, OTHER] },
            removed: false,
            blocked: None,
            counter,
            seen: Vec::new(),
            received: 0,
            last_text: None,
            shared_title: None,
        }
    }

    fn body(counter: u64, payload: Payload) -> Body {
        Body {
            version: Body::VERSION,
            suite: SuiteId::Standard,
            genesis: Hash([3; 48]),
            thread: thread(),
            author: Author::Device(ME),
            counter,
            message_id: MessageId([4; 16]),
            sent_at: Timestamp(1),
            last_seen: None,
            payload,
        }
    }

    fn message(epoch: u64, counter: u64) -> Body {
        let payload =
            Payload::Message { epoch: Epoch(epoch), content: Hash([5; 48]), envelope: Hash([6; 48]) };
        body(counter, payload)
    }

    fn commit(epoch: u64, added: Vec<Member>, removed: Vec<Member>) -> Body {
        let payload = Payload::Commit {
            epoch: Epoch(epoch),
            envelope: Hash([5; 48]),
            welcome: None,
            tree: None,
            authenticator: Hash([6; 48]),
            added,
            removed,
        };
        body(3, payload)
    }

    fn is_lie(
        code: ErrorCode,
        (since, expected): (Option<u64>, Option<u64>),
        body: &Body,
        (before, after): (&ThreadRecord, &ThreadRecord),
    ) -> bool {
        let mut problem = Problem::new(code, "x");
        (problem.since, problem.expected) = (since, expected);
        contradiction(&problem, body, Some(before), Some(after)).is_some()
    }

    #[test]
    fn only_a_refusal_that_no_state_since_explains_is_a_lie() {
        let (none, quiet) = ((None, None), (&record(2, 5, 3), &record(2, 5, 3)));
        // An own entry came meanwhile, or had come before this one was handed in; a commit came.
        let (own, commit_came) =
            ((&record(2, 5, 3), &record(2, 5, 4)), (&record(2, 5, 3), &record(3, 10, 3)));

        for (lie, code, (since, expected), body, states) in [
            (true, ErrorCode::CounterGap, none, message(2, 3), quiet),
            (true, ErrorCode::CounterGap, none, message(2, 3), own),
            (false, ErrorCode::CounterGap, none, message(2, 4), quiet),
            (true, ErrorCode::CounterReplayed, none, message(2, 3), quiet),
            (true, ErrorCode::CounterReplayed, none, message(2, 3), commit_came),
            (false, ErrorCode::CounterReplayed, none, message(2, 3), own),
            (false, ErrorCode::CounterReplayed, none, message(2, 2), quiet),
            (true, ErrorCode::StaleEpoch, none, message(2, 3), quiet),
            (true, ErrorCode::StaleEpoch, (Some(5), Some(2)), message(2, 3), own),
            (false, ErrorCode::StaleEpoch, (Some(10), Some(3)), message(2, 3), commit_came),
            (false, ErrorCode::StaleEpoch, (None, None), message(2, 3), commit_came),
            // It lay encrypted since the epoch before.
            (false, ErrorCode::StaleEpoch, (Some(5), Some(2)), message(1, 3), quiet),
            (false, ErrorCode::StaleEpoch, (Some(5), Some(2)), message(1, 3), commit_came),
            // It could not be judged by a state older than the one that this device had verified, or one to come.
            (true, ErrorCode::StaleEpoch, (Some(4), Some(2)), message(1, 3), quiet),
            (true, ErrorCode::StaleEpoch, (Some(6), Some(2)), message(1, 3), quiet),
            (true, ErrorCode::StaleEpoch, (Some(5), Some(1)), message(0, 3), quiet),
            (true, ErrorCode::StaleEpoch, (Some(10), Some(4)), message(2, 3), commit_came),
            (true, ErrorCode::OtherHistory, none, message(2, 3), own),
            (true, ErrorCode::NotAMember, none, message(2, 3), own),
            (false, ErrorCode::NotAMember, none, message(2, 3), commit_came),
            (true, ErrorCode::RemovedNobody, none, commit(2, vec![], vec![OTHER]), quiet),
            (true, ErrorCode::AlreadyAMember, none, commit(2, vec![], vec![OTHER]), quiet),
            (false, ErrorCode::AlreadyAMember, none, commit(2, vec![OTHER], vec![]), quiet),
            (false, ErrorCode::RemovedNobody, none, commit(2, vec![], vec![OTHER]), commit_came),
            (false, ErrorCode::Busy, none, message(2, 3), quiet),
        ] {
            let found = is_lie(code, (since, expected), &body, states);
            assert_eq!(found, lie, "{code} {since:?} {expected:?} {body:?}");
        }
    }

    #[test]
    fn nothing_can_be_in_the_way_of_a_conversation_that_begins() {
        let body = commit(0, vec![OTHER], Vec::new());
        let problem = Problem::new(ErrorCode::CounterReplayed, "x");
        assert!(contradiction(&problem, &body, None, None).is_some());
    }
}
