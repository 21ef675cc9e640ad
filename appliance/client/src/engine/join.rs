//! Joining a conversation that somebody added this device to.

use super::receive::Effect;
use super::{Engine, with_sources};
use crate::error::ClientError;
use crate::records::{self, KeyPackageRecord, ThreadRecord};
use crate::store::Space;
use crate::trust::{CheckedEntry, TrustError};
use zixt_ledger::Conversation;
use zixt_messaging::{CommitEntry, KeyPackageId, SealedKeyPackage, welcome_key_packages};
use zixt_types::{Author, Hash, Payload, Seq};

impl Engine {
    /// Joins by `entry`, which is recorded. Everything before it is fetched and replayed, because the roster is what
    /// all commits made of it and nobody's word.
    pub(super) async fn join(
        &mut self,
        record: Option<ThreadRecord>,
        entry: CheckedEntry,
        position: u64,
    ) -> Result<(), ClientError> {
        let (thread, seq) = (entry.body.thread, entry.seq());
        let (from, prev) = record.as_ref().map_or((Seq(0), Hash::ZERO), ThreadRecord::next);
        if seq < from {
            return self.skip(Some(position)).await;
        }
        let mut entries = if seq == from {
            if entry.position.prev != prev {
                return Err(TrustError::BrokenChain(seq).into());
            }
            vec![entry.clone()]
        } else {
            self.fetch_entries(thread, from, prev).await?
        };
        entries.truncate(usize::try_from(seq.0 - from.0).unwrap_or(usize::MAX).saturating_add(1));
        match entries.last() {
            Some(last) if last.seq() == seq && last.hash == entry.hash => {}
            Some(last) if last.seq() == seq => return Err(TrustError::BrokenChain(seq).into()),
            last => {
                let from = last.map_or(from, |last| last.seq().next());
                return Err(TrustError::Withheld { from, upto: seq }.into());
            }
        }
        self.join_by(record, &entries, Some(position)).await
    }

    /// Joins by the last of these entries, which are recorded and continue what this device has.
    pub(super) async fn join_by(
        &mut self,
        record: Option<ThreadRecord>,
        entries: &[CheckedEntry],
        position: Option<u64>,
    ) -> Result<(), ClientError> {
        let Some(entry) = entries.last() else { return Ok(()) };
        let (thread, seq) = (entry.body.thread, entry.seq());
        let fault = |reason: String| TrustError::Commit { seq, reason };
        let known = record.as_ref().filter(|record| record.has_begun());
        let mut state: Option<Conversation> = known.map(|record| record.state.clone());
        for entry in entries {
            let rules = |source| TrustError::Rules { seq: entry.seq(), source };
            match &mut state {
                None => state = Some(Conversation::begun(&entry.body).map_err(rules)?),
                Some(state) => state.apply(&entry.body, entry.seq()).map_err(rules)?,
            }
            // Commits make the roster, so their authors' signatures count; messages of before are not this
            // device's business, and their chain is proven.
            if matches!(entry.body.payload, Payload::Commit { .. }) {
                let Author::Device(author) = entry.body.author else {
                    return Err(TrustError::OtherEntry(entry.seq()).into());
                };
                let account = self.account_of(&author).await?;
                self.ledger.checker.written_by(entry, author, &account.account, &account.keys)?;
            }
        }
        let state = state.ok_or(TrustError::OtherEntry(seq))?;
        for member in &state.members {
            self.account_of(member).await?;
        }

        let commit = CommitEntry::new(&entry.body, &entry.position).ok_or(TrustError::OtherEntry(seq))?;
        let welcome = self.fetch_attachment(thread, seq, 1).await?;
        let tree = self.fetch_attachment(thread, seq, 2).await?;
        let (Some(welcome), Some(tree)) = (welcome, tree) else {
            return Err(fault("the invitation to it is gone".to_owned()).into());
        };
        let wanted = welcome_key_packages(&welcome).map_err(|error| fault(with_sources(&error)))?;
        let packages = self.key_packages(&wanted).await?;
        let device = &self.core.device;
        let joined = self
            .core
            .directory
            .following(|| device.join(&welcome, &tree, &packages, &commit, &state.members))
            .map_err(|error| fault(with_sources(&error)))?;

        let mut effect = Effect::default();
        self.core.put_state(&mut effect.batch, thread, joined.state);
        if joined.delete_key_package {
            effect.batch.delete(Space::KeyPackage, joined.key_package.0.as_ref().to_vec());
        }
        let mut record = record.unwrap_or_else(|| ThreadRecord::not_begun(thread));
        record.state = state;
        record.head = entry.head();
        record.time = entry.position.time;
        record.removed = false;
        for entry in entries {
            self.put_entry(&mut effect.batch, entry);
        }
        self.core.put_thread(&mut effect.batch, &record);
        self.members_line(&mut effect, &record, entry).await?;
        if let Some(position) = position {
            Self::put_cursor(&mut effect.batch, position);
        }
        let Effect { batch, events, .. } = effect;
        self.commit(batch, events).await?;
        self.put_back(joined.conversation);
        self.cursor = position.unwrap_or(self.cursor);
        Ok(())
    }

    async fn key_packages(&self, wanted: &[KeyPackageId]) -> Result<Vec<SealedKeyPackage>, ClientError> {
        let mut found = Vec::new();
        for id in wanted {
            if let Some(bytes) = self.core.store.get(Space::KeyPackage, id.0.as_ref()).await? {
                let record: KeyPackageRecord = records::decode(Space::KeyPackage, &bytes)?;
                found.push(SealedKeyPackage { id: *id, sealed: record.sealed });
            }
        }
        Ok(found)
    }
}
