//! The engine: one event, one message or one commit at a time. Each is one transaction of the store that holds
//! everything it changes (MLS state, message, chain, cursor), so that a crash leaves all of it or nothing.

mod accounts;
mod changes;
mod join;
mod keys;
mod outbox;
mod receive;
mod verdict;

use crate::error::ClientError;
use crate::model::{Alarm, ClientEvent, SyncReport};
use crate::records::{self, AlarmRecord, ThreadRecord};
use crate::shared::{Core, now};
use crate::store::{Batch, Space};
use crate::trust::{Ledger, TrustError};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;
use zixt_messaging::Conversation;
use zixt_types::{AccountId, ThreadId, ThreadKind};

const CURSOR: &[u8] = b"stream/cursor";

/// Moves conversations and the outbox. There is one, behind a lock.
pub struct Engine {
    pub core: Arc<Core>,
    pub ledger: Ledger,
    /// Open conversations. One is dropped whenever its state was not stored, and opened again from the store.
    conversations: HashMap<ThreadId, Conversation>,
    /// The last position of the stream that was handled durably.
    cursor: u64,
    /// When people's accounts were looked up last.
    looked_up: HashMap<AccountId, Instant>,
    /// Set by a proven fork: nothing is sent any more.
    stopped: Option<String>,
    /// What happened since the last call of [`Engine::report`].
    counts: SyncReport,
}

impl Engine {
    /// The engine as the store left it.
    pub async fn load(core: Arc<Core>) -> Result<Self, ClientError> {
        let ledger = Ledger::load(core.checker()?, core.store.clone()).await?;
        let cursor = match core.store.get(Space::Fact, CURSOR).await? {
            Some(bytes) => records::decode(Space::Fact, &bytes)?,
            None => 0,
        };
        let stopped = alarms(&core).await?.into_iter().find(|alarm| alarm.proof.is_some());
        Ok(Self {
            core,
            ledger,
            conversations: HashMap::new(),
            cursor,
            looked_up: HashMap::new(),
            stopped: stopped.map(|alarm| alarm.text),
            counts: SyncReport::default(),
        })
    }

    /// The last position that was handled durably.
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// What happened since the last report.
    pub async fn report(&mut self) -> Result<SyncReport, ClientError> {
        let mut report = std::mem::take(&mut self.counts);
        report.height = self.ledger.tip().map(|tip| tip.height()).unwrap_or_default();
        let outbox = self.core.outbox().await?;
        report.queued = outbox.iter().filter(|(_, item)| item.failed.is_none()).count() as u64;
        Ok(report)
    }

    /// Stores a batch together with what the ledger learnt, then tells who listens.
    async fn commit(&mut self, mut batch: Batch, events: Vec<ClientEvent>) -> Result<(), ClientError> {
        // What the ledger learnt stays there until it is stored: if nobody waits for the end of this, it is stored with
        // the next batch.
        let mut all = self.ledger.changes().clone();
        all.append(std::mem::take(&mut batch));
        if let Err(error) = self.core.store.commit(all).await {
            // The memory is ahead of the store now.
            self.conversations.clear();
            self.ledger = Ledger::load(self.core.checker()?, self.core.store.clone()).await?;
            return Err(error.into());
        }
        self.ledger.stored();
        for event in events {
            self.core.emit(event);
        }
        Ok(())
    }

    fn put_cursor(batch: &mut Batch, position: u64) {
        batch.put(Space::Fact, CURSOR, records::encode(&position));
    }

    /// Moves the cursor past an event that changed nothing else.
    async fn skip(&mut self, position: Option<u64>) -> Result<(), ClientError> {
        let Some(position) = position else { return self.commit(Batch::new(), Vec::new()).await };
        let mut batch = Batch::new();
        Self::put_cursor(&mut batch, position);
        self.commit(batch, Vec::new()).await?;
        self.cursor = position;
        Ok(())
    }

    /// An open conversation, taken out: put it back when its state is stored.
    async fn conversation(&mut self, thread: ThreadId) -> Result<Conversation, ClientError> {
        if let Some(conversation) = self.conversations.remove(&thread) {
            return Ok(conversation);
        }
        let state = self.core.state(thread).await?.ok_or(ClientError::UnknownThread(thread))?;
        self.core.device.open(thread, &state).map_err(|error| ClientError::Messaging(with_sources(&error)))
    }

    fn put_back(&mut self, conversation: Conversation) {
        self.conversations.insert(conversation.thread(), conversation);
    }

    /// The record of a conversation in which this device may write.
    async fn writable(&self, thread: ThreadId) -> Result<ThreadRecord, ClientError> {
        if let Some(text) = &self.stopped {
            return Err(ClientError::Blocked(text.clone()));
        }
        let record = self.core.thread(thread).await?.ok_or(ClientError::UnknownThread(thread))?;
        if let Some(text) = &record.blocked {
            return Err(ClientError::Blocked(text.clone()));
        }
        if record.removed { Err(ClientError::Removed) } else { Ok(record) }
    }

    /// Raises an alarm and stops the conversation that it concerns, if it has to stop. An alarm that was raised before
    /// is not repeated.
    pub async fn alarm(
        &mut self,
        error: &TrustError,
        thread: Option<ThreadId>,
        position: Option<u64>,
    ) -> Result<(), ClientError> {
        let mut batch = Batch::new();
        let mut events = Vec::new();
        let record = self.note_alarm(error, thread, (&mut batch, &mut events)).await?;
        if let Some(thread) = thread
            && error.stops_its_conversation()
            && let Some(mut own) = self.stopping(thread, position.is_some()).await?
        {
            own.blocked = Some(record.text.clone());
            self.core.put_thread(&mut batch, &own);
            self.conversations.remove(&thread);
        }
        if let Some(position) = position {
            Self::put_cursor(&mut batch, position);
        }
        if record.proof.is_some() {
            self.stopped = Some(record.text);
        }
        self.commit(batch, events).await?;
        self.cursor = position.unwrap_or(self.cursor);
        Ok(())
    }

    /// The record of a conversation that goes on until now. If the stream told of one that this device has not joined,
    /// what it told is not told again: the record says that something is still to be done, and [`Engine::recheck`] does
    /// it.
    async fn stopping(&self, thread: ThreadId, was_told: bool) -> Result<Option<ThreadRecord>, ClientError> {
        let is_conversation = thread.kind() == Some(ThreadKind::Conversation);
        Ok(match self.core.thread(thread).await? {
            Some(record) => Some(record).filter(|record| record.blocked.is_none()),
            None => (was_told && is_conversation).then(|| ThreadRecord::not_begun(thread)),
        })
    }

    /// Puts an alarm into a batch, unless it was raised before.
    async fn note_alarm(
        &mut self,
        error: &TrustError,
        thread: Option<ThreadId>,
        (batch, events): (&mut Batch, &mut Vec<ClientEvent>),
    ) -> Result<AlarmRecord, ClientError> {
        let record = AlarmRecord {
            version: records::VERSION,
            at: now(),
            thread,
            code: error.code().to_owned(),
            text: error.to_string(),
            proof: match error {
                TrustError::Fork(proof) => Some(proof.to_bytes()),
                _ => None,
            },
            author: error.author(),
            repeats: error.repeats(),
        };
        let known = alarms(&self.core).await?;
        if !known.iter().any(|old| old.is_same(&record)) {
            let number = known.len() as u64 + 1;
            batch.put(Space::Fact, alarm_key(number), records::encode(&record));
            events.push(ClientEvent::Alarm(alarm_view(number, record.clone())));
            self.counts.alarms += 1;
        }
        Ok(record)
    }

    /// Raises an alarm if `error` is a violation of trust; gives the error back.
    pub async fn noticed(
        &mut self,
        error: ClientError,
        thread: Option<ThreadId>,
    ) -> Result<ClientError, ClientError> {
        if let ClientError::Trust(fault) = &error {
            let thread = thread.filter(|_| !fault.is_ledger_wide());
            self.alarm(fault, thread, None).await?;
        }
        Ok(error)
    }
}

/// The key of an alarm.
pub fn alarm_key(number: u64) -> Vec<u8> {
    [ALARM, &number.to_be_bytes()].concat()
}

const ALARM: &[u8] = b"alarm/";

/// All alarms, in order.
pub async fn alarms(core: &Core) -> Result<Vec<AlarmRecord>, ClientError> {
    let rows = core.store.scan(Space::Fact, ALARM, &[], u32::MAX).await?;
    Ok(rows.iter().map(|(_, bytes)| records::decode(Space::Fact, bytes)).collect::<Result<_, _>>()?)
}

/// An alarm as it is shown.
pub fn alarm_view(number: u64, record: AlarmRecord) -> Alarm {
    Alarm {
        number,
        at: record.at,
        thread: record.thread,
        code: record.code,
        text: record.text,
        has_proof: record.proof.is_some(),
    }
}

/// An error with what caused it.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
