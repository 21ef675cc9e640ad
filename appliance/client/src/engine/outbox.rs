//! What waits is sent: encrypted once, handed in until it is answered.

use super::{Engine, with_sources};
use crate::error::ClientError;
use crate::model::{ClientEvent, Mark};
use crate::records::{self, Blob, Disclosed, OutboxRecord, Outgoing, Prepared, ThreadRecord};
use crate::shared::{now, wire};
use crate::store::{Batch, Space};
use crate::trust::TrustError;
use zixt_api::{ErrorCode, Problem, Receipt, SubmitRequest};
use zixt_messaging::{Content, SeenHeader};
use zixt_types::{Body, Canonical as _, Seq, ThreadId};

/// How often a message or a commit is made anew because others were faster.
pub(super) const TRIES: usize = 12;

/// What the appliance said to a submission.
pub(super) enum Answer {
    /// It is recorded, and applied here.
    Recorded,
    /// It is refused.
    Refused(Box<Problem>),
}

impl Engine {
    /// Sends what waits, in order. Returns how many messages became recorded.
    pub async fn flush(&mut self) -> Result<u64, ClientError> {
        let before = self.counts.sent;
        // Commits first: messages of the same conversation wait for the epoch that they begin. Then titles, which
        // commits queue, and last what people say.
        for rank in 0..3 {
            self.flush_rank(rank).await?;
        }
        Ok(self.counts.sent - before)
    }

    async fn flush_rank(&mut self, rank: u8) -> Result<(), ClientError> {
        for (order, item) in self.core.outbox().await? {
            let (own, change) = match item.what {
                Outgoing::Change { .. } => (0, true),
                Outgoing::Title(_) => (1, false),
                Outgoing::Text(_) => (2, false),
            };
            if own != rank || item.failed.is_some() {
                continue;
            }
            let result = if change { self.change(order, None).await } else { self.text(order).await };
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
                    self.fail(order, item.thread, error.to_string()).await?;
                }
                Err(error) => {
                    self.conversations.remove(&item.thread);
                    return Err(self.noticed(error, None).await?);
                }
            }
        }
        Ok(())
    }

    /// Sends the titles that a change of members has queued. They are queued for good: whatever stands in the way now,
    /// the next flush sends them.
    pub(super) async fn tell_titles(&mut self, thread: ThreadId) -> Result<(), ClientError> {
        for (order, item) in self.core.outbox().await? {
            if item.thread != thread || !matches!(item.what, Outgoing::Title(_)) {
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
            // What lies encrypted may have to wait, too: a commit overtakes it, and it is encrypted anew.
            self.tidy_before_sending(item.thread, item.prepared.is_none()).await?;
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
                Answer::Recorded => {
                    self.core.settled(item.id);
                    return Ok(());
                }
                Answer::Refused(problem) => self.refused(order, item.thread, *problem).await?,
            }
            if self.core.outbox_item(order).await?.is_some_and(|item| item.failed.is_some()) {
                self.core.settled(item.id);
                return Ok(());
            }
        }
        // Others commit all the time; it stays queued.
        Ok(())
    }

    /// Queues a message durably. If nothing stands before it, it is encrypted in the same transaction; whether it may
    /// go out as it is, is asked again when it is sent.
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
        for (_, item) in self.core.outbox_rows().await? {
            let item: OutboxRecord = records::decode(Space::Outbox, &item)?;
            if item.thread == thread && item.failed.is_none() {
                return Ok(false);
            }
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
        let (next, prev) = record
            .as_ref()
            .map_or((Seq(0), zixt_types::Hash::ZERO), |record| (record.head.seq.next(), record.head.hash));
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

    /// A message was refused. Either the conversation moved on, and the message is made anew; or it is not wanted.
    async fn refused(&mut self, order: u64, thread: ThreadId, problem: Problem) -> Result<(), ClientError> {
        match problem.code {
            ErrorCode::NotAMember => self.fail(order, thread, ClientError::Removed.to_string()).await,
            ErrorCode::StaleEpoch | ErrorCode::CounterGap | ErrorCode::CounterReplayed => {
                let head = self.core.thread(thread).await?.map(|record| record.head);
                self.catch_up(thread, problem.since.map(Seq)).await?;
                let Some(mut item) = self.core.outbox_item(order).await? else { return Ok(()) };
                let record = self.core.thread(thread).await?;
                let moved = record.as_ref().map(|record| record.head) != head;
                if record.as_ref().is_none_or(|record| record.removed) {
                    return self.fail(order, thread, ClientError::Removed.to_string()).await;
                }
                // An own commit that was recorded since has taken its counter.
                let overtaken = item
                    .prepared
                    .as_ref()
                    .and_then(|prepared| Body::parse(&prepared.body).ok())
                    .zip(record.as_ref())
                    .is_some_and(|(body, record)| body.counter < record.counter);
                if !moved && !overtaken && problem.code != ErrorCode::StaleEpoch {
                    // The chain that this device verified says otherwise.
                    return self.fail(order, thread, problem.to_string()).await;
                }
                // The entry names an epoch or a counter that is over: it can never be recorded any more. Its message
                // key is burnt with it; the text is encrypted anew.
                item.prepared = None;
                let mut batch = Batch::new();
                self.core.put_outbox(&mut batch, order, &item);
                self.commit(batch, Vec::new()).await
            }
            _ if problem.status >= 500 || problem.status == 429 => Err(problem.into()),
            ErrorCode::UnknownCaller | ErrorCode::CallerRevoked => Err(problem.into()),
            _ => self.fail(order, thread, problem.to_string()).await,
        }
    }

    /// Gives a message up; it stays visible with its reason.
    async fn fail(&mut self, order: u64, thread: ThreadId, reason: String) -> Result<(), ClientError> {
        let Some(mut item) = self.core.outbox_item(order).await? else { return Ok(()) };
        let mut batch = Batch::new();
        if matches!(item.what, Outgoing::Change { .. } | Outgoing::Title(_)) {
            batch.delete(Space::Outbox, order.to_be_bytes());
        } else {
            item.prepared = None;
            item.failed = Some(reason.clone());
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
                if item.thread == thread && matches!(item.what, Outgoing::Change { .. }) {
                    self.change(order, None).await?;
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
