//! Entries that come: each is checked, continues its chain, and is stored with everything that it changes.

use super::verdict::{self, Verdict};
use super::{Engine, with_sources};
use crate::error::ClientError;
use crate::model::{ClientEvent, Mark};
use crate::records::{
    self, Disclosed, EntryRecord, LineRecord, MessageRecord, OutboxRecord, Outgoing, ThreadRecord,
};
use crate::shared::{now, random};
use crate::store::{Batch, Space};
use crate::trust::{CheckedEntry, TrustError};
use crate::views;
use zixt_api::{Entry, EntryProof, ErrorCode, StreamLine};
use zixt_messaging::{CommitEntry, CommitOutcome, Conversation, DecryptError, MessageEntry, SeenHeader};
use zixt_types::{
    AccountId, Author, Body, Canonical as _, Member, MessageId, Payload, Seq, ThreadId, ThreadKind,
};

/// What one entry does to the store and to who listens.
#[derive(Default)]
pub(super) struct Effect {
    pub batch: Batch,
    pub events: Vec<ClientEvent>,
    /// The conversation as it is when the batch is stored, and not before: if nobody waits for that, it is dropped.
    conversation: Option<Conversation>,
}

impl Engine {
    /// Handles a line of the stream. The cursor is past it when this returns without an error.
    pub async fn handle(&mut self, line: StreamLine) -> Result<(), ClientError> {
        let StreamLine::Event { position, entry, attachment, proof } = line else { return Ok(()) };
        if position <= self.cursor {
            return Ok(());
        }
        let thread = entry.thread.0;
        self.counts.events += 1;
        let attachment = attachment.map(|bytes| bytes.0);
        let Err(error) = self.event(position, &entry, attachment, &proof).await else {
            self.cursor = self.cursor.max(position);
            return Ok(());
        };
        self.conversations.remove(&thread);
        match verdict::of(error, Seq(entry.seq)) {
            Verdict::Conversation(fault) => self.alarm(&fault, Some(thread), Some(position)).await,
            Verdict::Everything(error) | Verdict::Later(error) => Err(self.noticed(error, None).await?),
        }
    }

    /// Takes up a conversation that an alarm had stopped: everything that came since is fetched and checked again. It stays
    /// stopped until all of that is good. The alarm stays on record.
    pub async fn recheck(&mut self, thread: ThreadId) -> Result<(), ClientError> {
        if let Some(text) = &self.stopped {
            return Err(ClientError::Blocked(text.clone()));
        }
        let record = self.core.thread(thread).await?.ok_or(ClientError::UnknownThread(thread))?;
        if record.blocked.is_none() {
            return Ok(());
        }
        self.conversations.remove(&thread);
        let checked = self.fetch_all(thread).await;
        let mut record = self.core.thread(thread).await?.unwrap_or(record);
        let Err(error) = checked else {
            record.blocked = None;
            let mut batch = Batch::new();
            self.core.put_thread(&mut batch, &record);
            return self.commit(batch, Vec::new()).await;
        };
        self.conversations.remove(&thread);
        match verdict::of(error, record.next().0) {
            Verdict::Conversation(fault) => {
                self.alarm(&fault, Some(thread), None).await?;
                Err(ClientError::Trust(fault))
            }
            Verdict::Everything(error) | Verdict::Later(error) => Err(self.noticed(error, None).await?),
        }
    }

    /// Fetches and applies a conversation up to the head that the ledger certifies.
    async fn fetch_all(&mut self, thread: ThreadId) -> Result<(), ClientError> {
        let api = self.core.api.clone();
        let upto = match api.thread(thread).await {
            Ok(view) => {
                let header = self.ledger.accept(&api, &view.proof.certified).await?;
                self.ledger.checker.head(thread, &view.proof, &header)?.1.map(|head| head.seq)
            }
            // Who was removed meanwhile reads up to that, and not where the others are.
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::UnknownThread => None,
            Err(error) => return Err(error),
        };
        self.catch_up(thread, upto).await?;
        let Some(record) = self.core.thread(thread).await? else { return Ok(()) };
        // The stream told of it, so there is something to be shown; and whoever may not see the head was removed.
        let shown = if upto.is_none() { record.removed } else { record.has_begun() };
        let (from, _) = record.next();
        if shown { Ok(()) } else { Err(TrustError::Withheld { from, upto: upto.unwrap_or(from) }.into()) }
    }

    async fn event(
        &mut self,
        position: u64,
        entry: &Entry,
        attachment: Option<Vec<u8>>,
        proof: &EntryProof,
    ) -> Result<(), ClientError> {
        let checked = self.ledger.checker.entry(entry)?;
        let thread = checked.body.thread;
        if thread.kind() == Some(ThreadKind::Account) {
            // Only this account's own entries come this way.
            self.refresh(self.core.me().account).await?;
            return self.skip(Some(position)).await;
        }
        let record = self.core.thread(thread).await?;
        if record.as_ref().is_some_and(|record| record.blocked.is_some()) {
            return self.skip(Some(position)).await;
        }
        self.anchor(&checked, proof).await?;
        let known = record.as_ref().filter(|record| record.is_inside());
        match known {
            None if adds(&checked, &self.core.me()) => self.join(record, checked, position).await,
            // Own commits that begin a conversation are known by the outbox.
            None if self.own_start(&checked).await? => {
                self.apply(None, checked, attachment, Some(position)).await
            }
            None => {
                // What was recorded before this device left, or comes too late for it.
                if let Some(record) = &record
                    && checked.seq() <= record.head.seq
                {
                    self.compare_with_stored(&checked).await?;
                }
                self.skip(Some(position)).await
            }
            Some(known) if checked.seq() <= known.head.seq => {
                self.compare_with_stored(&checked).await?;
                self.skip(Some(position)).await
            }
            Some(known) if checked.seq() == known.head.seq.next() => {
                self.apply(record, checked, attachment, Some(position)).await
            }
            Some(_) => {
                // The stream left something out. Whatever it was, it is fetched and checked now.
                self.catch_up(thread, Some(checked.seq())).await?;
                self.compare_with_stored(&checked).await?;
                self.skip(Some(position)).await
            }
        }
    }

    /// Checks that an entry is recorded under a header that belongs to the ledger.
    pub(super) async fn anchor(
        &mut self,
        entry: &CheckedEntry,
        proof: &EntryProof,
    ) -> Result<(), ClientError> {
        let api = self.core.api.clone();
        let header = self.ledger.accept(&api, &proof.certified).await?;
        let place = (&entry.position, &entry.salt, &entry.hash, entry.height);
        let state = self.ledger.checker.recorded(entry.body.thread, place, proof, &header)?;
        self.ledger.saw_shard(state);
        if self.ledger.shards_wait() {
            self.ledger.advance(&api).await?;
        }
        Ok(())
    }

    /// An entry at a place that this device has passed must be the one it saw there.
    async fn compare_with_stored(&self, entry: &CheckedEntry) -> Result<(), ClientError> {
        match self.stored_entry(entry.body.thread, entry.seq()).await? {
            Some(known) if known.hash != entry.hash => Err(TrustError::BrokenChain(entry.seq()).into()),
            _ => Ok(()),
        }
    }

    pub async fn stored_entry(&self, thread: ThreadId, seq: Seq) -> Result<Option<EntryRecord>, ClientError> {
        let bytes = self.core.store.get(Space::Entry, &self.core.place_key(thread, seq)).await?;
        Ok(bytes.map(|bytes| records::decode(Space::Entry, &bytes)).transpose()?)
    }

    /// Fetches and applies what a conversation has beyond this device's head. The proof of the last entry carries the
    /// others: they are its chain.
    pub async fn catch_up(&mut self, thread: ThreadId, upto: Option<Seq>) -> Result<(), ClientError> {
        let Some(record) = self.core.thread(thread).await? else { return Ok(()) };
        let (from, prev) = record.next();
        let entries = self.fetch_entries(thread, from, prev).await?;
        let last = entries.last().map(CheckedEntry::seq);
        if let Some(upto) = upto.filter(|upto| last.is_none_or(|last| last < *upto))
            && upto >= from
        {
            return Err(TrustError::Withheld { from: last.map_or(from, Seq::next), upto }.into());
        }
        let Some(last) = entries.last() else { return Ok(()) };
        let proof = self.proof(thread, last.seq()).await?;
        self.anchor(last, &proof).await?;
        self.follow(thread, &entries).await
    }

    /// Applies entries that continue what this device has of a conversation. Where they remove it and add it again, it
    /// joins again. If it cannot, that is an alarm, and the next addition counts: whoever adds it anew helps.
    async fn follow(&mut self, thread: ThreadId, entries: &[CheckedEntry]) -> Result<(), ClientError> {
        let me = self.core.me();
        let mut rest = entries;
        // How many of the rest were recorded while this device was outside.
        let mut outside = 0;
        while let Some(entry) = rest.get(outside) {
            let record = self.core.thread(thread).await?;
            if record.as_ref().is_some_and(ThreadRecord::is_inside) {
                self.apply(record, entry.clone(), None, None).await?;
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            outside += 1;
            if !adds(entry, &me) {
                continue;
            }
            let (known, later) = rest.split_at(outside);
            match self.join_by(record, known, None).await {
                Ok(()) => (rest, outside) = (later, 0),
                Err(error) => match verdict::of(error, entry.seq()) {
                    Verdict::Conversation(fault) if later.iter().any(|entry| adds(entry, &me)) => {
                        let (mut batch, mut events) = (Batch::new(), Vec::new());
                        self.note_alarm(&fault, Some(thread), (&mut batch, &mut events)).await?;
                        self.commit(batch, events).await?;
                    }
                    Verdict::Conversation(fault) => return Err(fault.into()),
                    Verdict::Everything(error) | Verdict::Later(error) => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Whether an entry after `from` that this device has verified removed it.
    pub(super) async fn was_removed_since(
        &self,
        thread: ThreadId,
        from: Option<&ThreadRecord>,
    ) -> Result<bool, ClientError> {
        let Some(record) = self.core.thread(thread).await? else { return Ok(false) };
        let mut seq = from.map_or(Seq(0), |record| record.next().0);
        while seq <= record.head.seq {
            if let Some(entry) = self.stored_entry(thread, seq).await? {
                let body = Body::parse(&entry.body).map_err(TrustError::Malformed)?;
                if matches!(&body.payload, Payload::Commit { removed, .. } if removed.contains(&self.core.me()))
                {
                    return Ok(true);
                }
            }
            seq = seq.next();
        }
        Ok(false)
    }

    /// The proof of an entry that the appliance has shown before.
    pub(crate) async fn proof(&self, thread: ThreadId, seq: Seq) -> Result<EntryProof, ClientError> {
        match self.core.api.proof(thread, seq).await {
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::UnknownEntry => {
                Err(TrustError::Withheld { from: seq, upto: seq }.into())
            }
            proof => proof,
        }
    }

    /// The entries of a thread from `from` to its end; each links to the one before. The last is not proven yet.
    pub(super) async fn fetch_entries(
        &self,
        thread: ThreadId,
        from: Seq,
        prev: zixt_types::Hash,
    ) -> Result<Vec<CheckedEntry>, ClientError> {
        let mut entries: Vec<CheckedEntry> = Vec::new();
        let (mut next, mut prev) = (from, prev);
        loop {
            let page = match self.core.api.entries(thread, next).await {
                // Nothing there (yet).
                Err(ClientError::Refused(problem)) if problem.code == ErrorCode::UnknownEntry => break,
                page => page?,
            };
            if page.entries.is_empty() {
                break;
            }
            for entry in &page.entries {
                let entry = self.ledger.checker.entry(entry)?;
                let seq = entry.seq();
                if entry.body.thread != thread || seq != next || entry.position.prev != prev {
                    return Err(TrustError::BrokenChain(seq).into());
                }
                if entries.last().is_some_and(|before| before.position.time > entry.position.time) {
                    return Err(TrustError::Time(seq).into());
                }
                (next, prev) = (seq.next(), entry.hash);
                entries.push(entry);
            }
            if page.next.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    /// Applies the entry that follows a conversation's head, in one transaction.
    pub(super) async fn apply(
        &mut self,
        record: Option<ThreadRecord>,
        entry: CheckedEntry,
        attachment: Option<Vec<u8>>,
        position: Option<u64>,
    ) -> Result<(), ClientError> {
        let thread = entry.body.thread;
        let result = self.try_apply(record, entry, attachment, position).await;
        if result.is_err() {
            // Its memory may be ahead of the store.
            self.conversations.remove(&thread);
        }
        result
    }

    async fn try_apply(
        &mut self,
        record: Option<ThreadRecord>,
        entry: CheckedEntry,
        attachment: Option<Vec<u8>>,
        position: Option<u64>,
    ) -> Result<(), ClientError> {
        let (thread, seq) = (entry.body.thread, entry.seq());
        let (expected, prev) = record.as_ref().map_or((Seq(0), zixt_types::Hash::ZERO), ThreadRecord::next);
        if seq != expected || entry.position.prev != prev {
            return Err(TrustError::BrokenChain(seq).into());
        }
        if record.as_ref().is_some_and(|record| entry.position.time < record.time) {
            return Err(TrustError::Time(seq).into());
        }
        let Author::Device(author) = entry.body.author else {
            return Err(TrustError::OtherEntry(seq).into());
        };
        let account = self.account_of(&author).await?;
        self.ledger.checker.written_by(&entry, author, &account.account, &account.keys)?;

        let rules = |source| TrustError::Rules { seq, source };
        let mut effect = Effect::default();
        let mut record = match record {
            None => ThreadRecord {
                state: zixt_ledger::Conversation::begun(&entry.body).map_err(rules)?,
                ..ThreadRecord::not_begun(thread)
            },
            Some(mut record) => {
                let before = record.state.members.clone();
                record.state.apply(&entry.body, seq).map_err(rules)?;
                if record.state.members != before {
                    record.seen.retain(|(member, _)| record.state.has(member));
                }
                record
            }
        };
        record.head = entry.head();
        record.time = entry.position.time;
        if author == self.core.me() {
            self.apply_own(&mut effect, &mut record, &entry).await?;
        } else {
            self.apply_other(&mut effect, &mut record, &entry, author, attachment).await?;
        }
        self.core.put_thread(&mut effect.batch, &record);
        self.put_entry(&mut effect.batch, &entry);
        if let Some(position) = position {
            Self::put_cursor(&mut effect.batch, position);
        }
        let Effect { batch, events, conversation } = effect;
        self.commit(batch, events).await?;
        if let Some(conversation) = conversation {
            self.put_back(conversation);
        }
        self.cursor = position.unwrap_or(self.cursor);
        Ok(())
    }

    pub(super) fn put_entry(&self, batch: &mut Batch, entry: &CheckedEntry) {
        let record = EntryRecord {
            version: records::VERSION,
            body: entry.body_bytes.clone(),
            signature: entry.signature.clone(),
            position: entry.position,
            salt: entry.salt,
            hash: entry.hash,
        };
        let key = self.core.place_key(entry.body.thread, entry.seq());
        batch.put(Space::Entry, key, records::encode(&record));
    }

    /// Whether the author saw the entries that this device has. If not, an alarm says so, and the conversation goes on:
    /// any member can sign a false claim, and must not be able to end a conversation with it. The entry, which is
    /// stored with its signature, proves who signed it.
    async fn has_seen_the_same(
        &mut self,
        effect: &mut Effect,
        entry: &CheckedEntry,
        author: Member,
    ) -> Result<bool, ClientError> {
        let Some(seen) = entry.body.last_seen else { return Ok(true) };
        let is_same = if seen.seq.next() == entry.seq() {
            // The usual case, and this device's head until now: the chain was checked.
            entry.position.prev == seen.hash
        } else {
            seen.seq < entry.seq()
                && self
                    .stored_entry(entry.body.thread, seen.seq)
                    .await?
                    .is_none_or(|known| known.hash == seen.hash)
        };
        if !is_same {
            let name = views::Names::load(&self.core).await?.of(author.account);
            let other = TrustError::OtherLastSeen { seq: entry.seq(), seen: seen.seq, author, name };
            let sink = (&mut effect.batch, &mut effect.events);
            self.note_alarm(&other, Some(entry.body.thread), sink).await?;
        }
        Ok(is_same)
    }

    /// An entry of this device: what waited in the outbox is recorded now.
    async fn apply_own(
        &mut self,
        effect: &mut Effect,
        record: &mut ThreadRecord,
        entry: &CheckedEntry,
    ) -> Result<(), ClientError> {
        let seq = entry.seq();
        let Some((order, item)) = self.waiting(entry).await? else {
            return Err(TrustError::NotMine(seq).into());
        };
        // It had been refused, for good, and was recorded all the same.
        let lie = item
            .refused
            .clone()
            .map(|code| TrustError::FalseRefusal { code, reason: format!("it is recorded as entry {seq}") });
        record.counter = entry.body.counter + 1;
        effect.batch.delete(Space::Outbox, order.to_be_bytes());
        self.core.settled(item.id);
        match &item.what {
            Outgoing::Text(_) | Outgoing::Title(_) => {
                let Some(disclosed) = item.prepared.as_ref().and_then(|it| it.disclosure.clone()) else {
                    return Err(TrustError::NotMine(seq).into());
                };
                let line = views::line_of(disclosed);
                noted(record, &line);
                if matches!(line, LineRecord::Text(_)) {
                    self.counts.sent += 1;
                }
                self.put_message(effect, record, entry, line).await?;
                effect.events.push(ClientEvent::Mark {
                    thread: record.thread,
                    message: entry.body.message_id,
                    seq: Some(seq),
                    mark: Mark::Recorded,
                });
                if let Some(lie) = lie {
                    let sink = (&mut effect.batch, &mut effect.events);
                    let alarm = self.note_alarm(&lie, Some(record.thread), sink).await?;
                    record.blocked.get_or_insert(alarm.text);
                }
            }
            Outgoing::Change { title, add, .. } => {
                // The keys that it made were dropped when it was refused.
                if let Some(lie) = lie {
                    return Err(lie.into());
                }
                if seq == Seq(0) {
                    record.shared_title.clone_from(title);
                }
                // Who has just come has not heard the title. It is queued in the same transaction, so that it is
                // told whatever happens.
                if record.shared_title.is_some() && (seq == Seq(0) || !add.is_empty()) {
                    self.queue_title(effect, record.thread, title.clone())?;
                }
                let commit =
                    CommitEntry::new(&entry.body, &entry.position).ok_or(TrustError::NotMine(seq))?;
                let mut conversation = self.conversation(record.thread).await?;
                let outcome = conversation
                    .confirm_commit(&commit)
                    .map_err(|error| TrustError::Commit { seq, reason: with_sources(&error) })?;
                if let CommitOutcome::NewEpoch { state, .. } = outcome {
                    self.void_changes(effect, record.thread, false).await?;
                    self.core.put_state(&mut effect.batch, record.thread, state);
                    effect.conversation = Some(conversation);
                }
                self.members_line(effect, record, entry).await?;
            }
        }
        Ok(())
    }

    /// The item of the outbox that became this entry.
    async fn waiting(&self, entry: &CheckedEntry) -> Result<Option<(u64, OutboxRecord)>, ClientError> {
        let same = |item: &OutboxRecord| {
            item.prepared.as_ref().is_some_and(|prepared| prepared.body == entry.body_bytes)
        };
        // Nearly always the first.
        self.core.find_in_outbox(false, same).await
    }

    async fn own_start(&self, entry: &CheckedEntry) -> Result<bool, ClientError> {
        Ok(entry.seq() == Seq(0)
            && entry.body.author == Author::Device(self.core.me())
            && self.waiting(entry).await?.is_some())
    }

    async fn apply_other(
        &mut self,
        effect: &mut Effect,
        record: &mut ThreadRecord,
        entry: &CheckedEntry,
        author: Member,
        attachment: Option<Vec<u8>>,
    ) -> Result<(), ClientError> {
        if self.has_seen_the_same(effect, entry, author).await? {
            self.note_seen(effect, record, entry, author).await?;
        }
        let envelope = match attachment {
            Some(envelope) => Some(envelope),
            None => self.fetch_attachment(record.thread, entry.seq(), 0).await?,
        };
        match &entry.body.payload {
            Payload::Message { .. } => self.apply_message(effect, record, entry, author, envelope).await,
            Payload::Commit { .. } => self.apply_commit(effect, record, entry, envelope).await,
            _ => Err(TrustError::OtherEntry(entry.seq()).into()),
        }
    }

    pub async fn fetch_attachment(
        &self,
        thread: ThreadId,
        seq: Seq,
        index: usize,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        match self.core.api.attachment(thread, seq, index).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::UnknownAttachment => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn apply_message(
        &mut self,
        effect: &mut Effect,
        record: &mut ThreadRecord,
        entry: &CheckedEntry,
        author: Member,
        envelope: Option<Vec<u8>>,
    ) -> Result<(), ClientError> {
        let seq = entry.seq();
        let message = MessageEntry::new(&entry.body).ok_or(TrustError::OtherEntry(seq))?;
        let line = match envelope {
            None => LineRecord::Unreadable("its content was deleted by policy".to_owned()),
            Some(envelope) => {
                let mut conversation = self.conversation(record.thread).await?;
                match conversation.decrypt(&envelope, &message) {
                    Ok(received) => {
                        self.core.put_state(&mut effect.batch, record.thread, received.state);
                        if let Some(seen) = received.content.seen_header {
                            self.compare_header(effect, entry, author, seen).await?;
                        }
                        effect.conversation = Some(conversation);
                        views::line_of(Disclosed {
                            content: received.content_bytes,
                            k: *received.key.as_bytes(),
                        })
                    }
                    // The appliance gave another envelope than the one that was recorded.
                    Err(DecryptError::Digest) => return Err(TrustError::OtherEntry(seq).into()),
                    Err(DecryptError::State(fault)) => {
                        return Err(ClientError::Messaging(with_sources(&fault)));
                    }
                    // Its author's fault, or lost keys: the chain goes on.
                    Err(error) => {
                        self.put_back(conversation);
                        LineRecord::Unreadable(with_sources(&error))
                    }
                }
            }
        };
        noted(record, &line);
        // Nobody has to read a title: like a change of members, it is no unread message.
        if !matches!(line, LineRecord::Title(_)) {
            record.received += 1;
            self.counts.messages += 1;
        }
        self.put_message(effect, record, entry, line).await
    }

    fn queue_title(
        &self,
        effect: &mut Effect,
        thread: ThreadId,
        title: Option<String>,
    ) -> Result<(), ClientError> {
        let item = OutboxRecord::new(thread, MessageId(random()?), now(), Outgoing::Title(title));
        self.core.put_outbox(&mut effect.batch, self.core.outbox_key(), &item);
        Ok(())
    }

    async fn apply_commit(
        &mut self,
        effect: &mut Effect,
        record: &mut ThreadRecord,
        entry: &CheckedEntry,
        envelope: Option<Vec<u8>>,
    ) -> Result<(), ClientError> {
        let seq = entry.seq();
        let commit = CommitEntry::new(&entry.body, &entry.position).ok_or(TrustError::OtherEntry(seq))?;
        for member in &commit.added {
            self.account_of(member).await?;
        }
        let fault = |reason: String| TrustError::Commit { seq, reason };
        let envelope = envelope.ok_or_else(|| fault("its envelope is gone".to_owned()))?;
        let mut conversation = self.conversation(record.thread).await?;
        let outcome = self
            .core
            .directory
            .following(|| conversation.process_commit(&envelope, &commit))
            .map_err(|error| fault(with_sources(&error)))?;
        match outcome {
            CommitOutcome::NewEpoch { lost, state, .. } => {
                self.core.put_state(&mut effect.batch, record.thread, state);
                effect.conversation = Some(conversation);
                self.void_changes(effect, record.thread, lost.is_some()).await?;
            }
            CommitOutcome::Removed { .. } => {
                self.core.erase_state(&mut effect.batch, record.thread);
                record.removed = true;
                effect.events.push(ClientEvent::Removed { thread: record.thread });
            }
        }
        self.members_line(effect, record, entry).await
    }

    /// An epoch is over. What was refused in it can never be recorded any more; a commit of this device that `lost` against
    /// another has to be made again, if it is still wanted.
    async fn void_changes(
        &self,
        effect: &mut Effect,
        thread: ThreadId,
        lost: bool,
    ) -> Result<(), ClientError> {
        for (order, mut item) in self.core.outbox().await? {
            if item.thread != thread || !matches!(item.what, Outgoing::Change { .. }) {
                continue;
            }
            if item.failed.is_some() {
                effect.batch.delete(Space::Outbox, order.to_be_bytes());
            } else if lost {
                item.prepared = None;
                self.core.put_outbox(&mut effect.batch, order, &item);
            }
        }
        Ok(())
    }

    /// A line that says who came and went, if anybody did.
    pub(super) async fn members_line(
        &mut self,
        effect: &mut Effect,
        record: &ThreadRecord,
        entry: &CheckedEntry,
    ) -> Result<(), ClientError> {
        let Payload::Commit { added, removed, .. } = &entry.body.payload else { return Ok(()) };
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let accounts = |members: &[Member]| {
            let mut accounts: Vec<AccountId> = members.iter().map(|member| member.account).collect();
            accounts.sort_unstable();
            accounts.dedup();
            accounts
        };
        let line = LineRecord::Members { added: accounts(added), removed: accounts(removed) };
        effect.events.push(ClientEvent::MembersChanged { thread: record.thread });
        self.put_message(effect, record, entry, line).await
    }

    async fn put_message(
        &self,
        effect: &mut Effect,
        record: &ThreadRecord,
        entry: &CheckedEntry,
        line: LineRecord,
    ) -> Result<(), ClientError> {
        let Author::Device(author) = entry.body.author else { return Ok(()) };
        let message = MessageRecord {
            version: records::VERSION,
            id: entry.body.message_id,
            seq: entry.seq(),
            author,
            sent_at: entry.body.sent_at,
            ledger_time: entry.position.time,
            line,
        };
        let key = self.core.place_key(record.thread, entry.seq());
        effect.batch.put(Space::Message, key, records::encode(&message));
        let names = views::Names::of_line(&self.core, &message).await?;
        let view = views::message(&self.core, record, message, &names);
        effect.events.push(ClientEvent::Message(Box::new(view)));
        Ok(())
    }

    /// Notes what an author had verified, and tells of own messages that everybody has seen now.
    async fn note_seen(
        &self,
        effect: &mut Effect,
        record: &mut ThreadRecord,
        entry: &CheckedEntry,
        author: Member,
    ) -> Result<(), ClientError> {
        let Some(seen) = entry.body.last_seen else { return Ok(()) };
        let before = views::read_upto(record, self.core.me().account);
        match record.seen.iter_mut().find(|(member, _)| *member == author) {
            Some((_, seq)) => *seq = (*seq).max(seen.seq),
            None => record.seen.push((author, seen.seq)),
        }
        let after = views::read_upto(record, self.core.me().account);
        let (Some(after), from) = (after, before.map_or(Seq(0), Seq::next)) else { return Ok(()) };
        if after < from {
            return Ok(());
        }
        let prefix = self.core.thread_key(record.thread);
        let start = self.core.place_key(record.thread, from);
        // Older ones show their mark when the history is read.
        for (_, bytes) in self.core.store.scan(Space::Message, &prefix, &start, 256).await? {
            let message: MessageRecord = records::decode(Space::Message, &bytes)?;
            if message.seq > after {
                break;
            }
            if message.author == self.core.me() && matches!(message.line, LineRecord::Text(_)) {
                effect.events.push(ClientEvent::Mark {
                    thread: record.thread,
                    message: message.id,
                    seq: Some(message.seq),
                    mark: Mark::Read,
                });
            }
        }
        Ok(())
    }

    /// Compares the header that an author says it had verified with this device's ledger. Another one raises an alarm, and
    /// the conversation goes on: see [`Engine::has_seen_the_same`]. If the appliance can show it as certified, that is a
    /// fork, which stops everything.
    async fn compare_header(
        &mut self,
        effect: &mut Effect,
        entry: &CheckedEntry,
        author: Member,
        seen: SeenHeader,
    ) -> Result<(), ClientError> {
        let tip = self.ledger.tip().map(|tip| tip.height()).unwrap_or_default();
        let own = match self.ledger.known(seen.height).await? {
            Some(own) => Some(own),
            // The author signed before the entry was recorded, and this device knows a later header.
            None if seen.height > tip => None,
            None => {
                let api = self.core.api.clone();
                match api.header(seen.height).await {
                    // The appliance has every header below the tip. What it does not show, nobody can compare.
                    Err(ClientError::Refused(problem)) if problem.code.is_final() => None,
                    shown => Some(self.ledger.accept(&api, &shown?).await?),
                }
            }
        };
        if own.is_none_or(|own| own.hash != seen.hash) {
            let name = views::Names::load(&self.core).await?.of(author.account);
            let split = TrustError::SplitView { seq: entry.seq(), height: seen.height, author, name };
            let sink = (&mut effect.batch, &mut effect.events);
            self.note_alarm(&split, Some(entry.body.thread), sink).await?;
        }
        Ok(())
    }
}

/// What a line changes in what is known of its conversation.
fn noted(record: &mut ThreadRecord, line: &LineRecord) {
    match line {
        LineRecord::Text(disclosed) => record.last_text = views::text_of(&disclosed.content),
        LineRecord::Title(disclosed) => {
            record.shared_title = views::text_of(&disclosed.content).as_deref().and_then(views::title_of);
        }
        LineRecord::Members { .. } | LineRecord::Unreadable(_) => {}
    }
}

/// Whether an entry adds this device to a conversation.
fn adds(entry: &CheckedEntry, me: &Member) -> bool {
    matches!(&entry.body.payload, Payload::Commit { added, .. } if added.binary_search(me).is_ok())
}
