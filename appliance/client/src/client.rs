//! The one object that a face talks to.

use crate::connection::{Connector, TlsConnector};
use crate::engine::{self, Engine};
use crate::error::ClientError;
use crate::model::{
    Alarm, ClientEvent, ContactView, DeviceView, MessageView, Profile, SyncReport, ThreadSummary,
};
use crate::records::{self, OutboxRecord, Outgoing};
use crate::shared::{Core, OUTBOX_MAX, now, random};
use crate::store::{Batch, Space};
use crate::{enrol, evidence, live, views};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use zixt_api::Invitation;
use zixt_crypto::Backend;
use zixt_crypto::password::Params;
use zixt_crypto_fast::AwsLc;
use zixt_types::{AccountId, MessageId, Seq, ThreadId, limits};

/// A device that talks. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    engine: Arc<Mutex<Engine>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("member", &self.core.me()).finish_non_exhaustive()
    }
}

impl Client {
    /// Enrols this device with an invitation and makes its store in `folder`. Needs the appliance. If it is
    /// interrupted after the store was made, [`Client::open`] finishes it.
    ///
    /// # Errors
    /// See [`ClientError`]; without a connection nothing is left behind.
    pub async fn enrol(
        invitation: &Invitation,
        folder: &Path,
        passphrase: &[u8],
        cost: Params,
    ) -> Result<Self, ClientError> {
        Self::enrol_with(invitation, folder, passphrase, cost, Arc::new(AwsLc), &TlsConnector).await
    }

    /// Opens the account in `folder`. Works offline.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn open(folder: &Path, passphrase: &[u8]) -> Result<Self, ClientError> {
        Self::open_with(folder, passphrase, Arc::new(AwsLc), &TlsConnector).await
    }

    /// [`Client::enrol`] with another backend and another way to the appliance.
    ///
    /// # Errors
    /// See [`Client::enrol`].
    pub async fn enrol_with(
        invitation: &Invitation,
        folder: &Path,
        passphrase: &[u8],
        cost: Params,
        backend: Arc<dyn Backend>,
        connector: &dyn Connector,
    ) -> Result<Self, ClientError> {
        Ok(Self::around(enrol::enrol(invitation, folder, passphrase, cost, backend, connector).await?))
    }

    /// [`Client::open`] with another backend and another way to the appliance.
    ///
    /// # Errors
    /// See [`Client::open`].
    pub async fn open_with(
        folder: &Path,
        passphrase: &[u8],
        backend: Arc<dyn Backend>,
        connector: &dyn Connector,
    ) -> Result<Self, ClientError> {
        Ok(Self::around(enrol::open(folder, passphrase, backend, connector).await?))
    }

    fn around(engine: Engine) -> Self {
        Self { core: Arc::clone(&engine.core), engine: Arc::new(Mutex::new(engine)) }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Who this device is.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.core.profile
    }

    /// Handles everything that the appliance has for this device, sends what is queued, and returns.
    ///
    /// # Errors
    /// See [`ClientError`]. What was handled before stays handled.
    pub async fn sync_once(&self) -> Result<SyncReport, ClientError> {
        live::sync_once(&self.engine).await
    }

    /// Stays connected: handles events as they come, sends what is queued, renews keys, and connects again when the
    /// connection breaks. Runs until the receiver of `events` is dropped; dropping the future stops it too.
    ///
    /// # Errors
    /// Only what no retry cures: the local store, or a trust alarm about the whole ledger.
    pub async fn run(&self, events: mpsc::Sender<ClientEvent>) -> Result<(), ClientError> {
        live::run(&self.core, &self.engine, events).await
    }

    /// Starts a conversation with some people. A title is told to all members as the first message, now or, if the
    /// appliance goes away in between, by the next [`Client::flush`]. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn start_conversation(
        &self,
        names: &[&str],
        title: Option<&str>,
    ) -> Result<ThreadId, ClientError> {
        let mut engine = self.engine.lock().await;
        let result = engine.start(names, title).await;
        noticed(&mut engine, result, None).await
    }

    /// Adds people to a conversation, and tells them its title. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_members(&self, thread: ThreadId, names: &[&str]) -> Result<(), ClientError> {
        let mut engine = self.engine.lock().await;
        let result = engine.add(thread, names).await;
        noticed(&mut engine, result, Some(thread)).await
    }

    /// Removes people, with all their devices, and renews the keys. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_members(&self, thread: ThreadId, names: &[&str]) -> Result<(), ClientError> {
        let mut engine = self.engine.lock().await;
        let result = engine.remove(thread, names).await;
        noticed(&mut engine, result, Some(thread)).await
    }

    /// Queues a message. When this returns it survives a crash; [`Client::flush`], [`Client::sync_once`] or
    /// [`Client::run`] send it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send(&self, thread: ThreadId, text: &str) -> Result<MessageId, ClientError> {
        if text.len() > limits::TEXT_BYTES_MAX {
            return Err(ClientError::TextTooLong { got: text.len(), max: limits::TEXT_BYTES_MAX });
        }
        let record = self.core.thread(thread).await?.ok_or(ClientError::UnknownThread(thread))?;
        if let Some(why) = record.blocked {
            return Err(ClientError::Blocked(why));
        }
        if record.removed {
            return Err(ClientError::Removed);
        }
        if let Some(fork) = engine::alarms(&self.core).await?.into_iter().find(|alarm| alarm.proof.is_some())
        {
            return Err(ClientError::Blocked(fork.text));
        }
        if self.core.store.count(Space::Outbox).await? >= OUTBOX_MAX {
            return Err(ClientError::OutboxFull);
        }
        let id = MessageId(random()?);
        let item = OutboxRecord::new(thread, id, now(), Outgoing::Text(text.to_owned()));
        match self.engine.try_lock() {
            Ok(mut engine) => engine.queue(item).await?,
            // Somebody else is at work; it is encrypted when it is sent.
            Err(_) => {
                let mut batch = Batch::new();
                self.core.put_outbox(&mut batch, self.core.outbox_key(), &item);
                self.core.store.commit(batch).await?;
            }
        }
        self.core.wake.notify_one();
        Ok(id)
    }

    /// Sends what is queued, as far as possible; returns how many messages became recorded.
    ///
    /// # Errors
    /// The first fault; what was sent before stays sent, the rest stays queued.
    pub async fn flush(&self) -> Result<u64, ClientError> {
        self.engine.lock().await.flush().await
    }

    /// Takes up a conversation that an alarm had stopped: everything is fetched and checked again from where it stopped. The
    /// alarm stays on record. Does nothing to one that is not stopped. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`]. A [`ClientError::Trust`] says that it is as bad as before, and the conversation is stopped
    /// again.
    pub async fn recheck(&self, thread: ThreadId) -> Result<(), ClientError> {
        self.engine.lock().await.recheck(thread).await
    }

    /// Calls a conversation by a title that stays on this device, whatever its members call it; `None` takes that back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_local_title(&self, thread: ThreadId, title: Option<&str>) -> Result<(), ClientError> {
        let _engine = self.engine.lock().await;
        let mut record = self.core.thread(thread).await?.ok_or(ClientError::UnknownThread(thread))?;
        record.title = title.and_then(views::title_of);
        let mut batch = Batch::new();
        self.core.put_thread(&mut batch, &record);
        Ok(self.core.store.commit(batch).await?)
    }

    /// All conversations, the latest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn threads(&self) -> Result<Vec<ThreadSummary>, ClientError> {
        views::threads(&self.core).await
    }

    /// The last `limit` lines of a conversation before `before`, in order; lines that wait come last. From the local
    /// store only.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(
        &self,
        thread: ThreadId,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<MessageView>, ClientError> {
        views::history(&self.core, thread, before, limit).await
    }

    /// Says that the user has seen a conversation up to now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn mark_shown(&self, thread: ThreadId) -> Result<(), ClientError> {
        let Some(record) = self.core.thread(thread).await? else { return Ok(()) };
        let mut batch = Batch::new();
        batch.put(Space::Fact, views::shown_key(&self.core, thread), records::encode(&record.received));
        Ok(self.core.store.commit(batch).await?)
    }

    /// Everybody whom this device knows, by name. From the local store only.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn contacts(&self) -> Result<Vec<ContactView>, ClientError> {
        let mut people: Vec<ContactView> =
            self.core.accounts().await?.iter().map(|record| views::contact(&self.core, record)).collect();
        people.sort_by(|a, b| (&a.name, a.account).cmp(&(&b.name, b.account)));
        Ok(people)
    }

    /// A person, looked up anew if the appliance is there, else as this device knows them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn contact(&self, name: &str) -> Result<ContactView, ClientError> {
        let mut engine = self.engine.lock().await;
        let result = engine.named(name).await;
        match noticed(&mut engine, result, None).await {
            Ok(record) => Ok(views::contact(&self.core, &record)),
            Err(error @ ClientError::Connection(_)) => {
                let known = self.contacts().await?;
                let same = |contact: &ContactView| contact.name.to_lowercase() == name.to_lowercase();
                known.into_iter().find(same).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Says that the user compared the fingerprints of this person's active devices, as this device knows them now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn mark_verified(&self, account: AccountId) -> Result<(), ClientError> {
        let _engine = self.engine.lock().await;
        let Some(mut record) = self.core.account(account).await? else {
            return Err(ClientError::UnknownPerson(account.to_string()));
        };
        record.verified = Some(record.account.active_devices().map(|device| device.id).collect());
        let mut batch = Batch::new();
        self.core.put_account(&mut batch, &record);
        Ok(self.core.store.commit(batch).await?)
    }

    /// The devices of this account.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn devices(&self) -> Result<Vec<DeviceView>, ClientError> {
        let own = self.core.account(self.core.me().account).await?;
        Ok(own.map(|record| views::contact(&self.core, &record).devices).unwrap_or_default())
    }

    /// Writes evidence about one message, or about the whole conversation, to `path`. With content, the file discloses
    /// what was said. It is verified before it is written. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`]; no file is written then.
    pub async fn export_evidence(
        &self,
        thread: ThreadId,
        seq: Option<Seq>,
        with_content: bool,
        path: &Path,
    ) -> Result<(), ClientError> {
        let mut engine = self.engine.lock().await;
        let result = engine.evidence(thread, seq, with_content).await;
        let made = noticed(&mut engine, result, Some(thread)).await?;
        evidence::write_evidence(&engine, &made, path).await
    }

    /// All alarms, the oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn alarms(&self) -> Result<Vec<Alarm>, ClientError> {
        let records = engine::alarms(&self.core).await?;
        Ok(records.into_iter().zip(1..).map(|(record, number)| engine::alarm_view(number, record)).collect())
    }

    /// Writes the proof of the first fork that this device found to `path`.
    ///
    /// # Errors
    /// [`ClientError::NoFork`] if it found none.
    pub async fn export_fork(&self, path: &Path) -> Result<(), ClientError> {
        let proof = engine::alarms(&self.core).await?.into_iter().find_map(|alarm| alarm.proof);
        evidence::write_file(path, proof.ok_or(ClientError::NoFork)?).await
    }

    /// Protects the store with another passphrase.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_passphrase(&self, old: &[u8], new: &[u8], cost: Params) -> Result<(), ClientError> {
        Ok(self.core.store.change_passphrase(old, new, cost).await?)
    }
}

/// Raises the alarm that a result asks for.
async fn noticed<T>(
    engine: &mut Engine,
    result: Result<T, ClientError>,
    thread: Option<ThreadId>,
) -> Result<T, ClientError> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(engine.noticed(error, thread).await?),
    }
}
