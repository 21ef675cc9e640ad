//! The one object that a face talks to.

use crate::error::ClientError;
use crate::model::{
    Alarm, ClientEvent, ContactView, DeviceView, MessageView, Profile, SyncReport, ThreadSummary,
};
use std::path::Path;
use tokio::sync::mpsc;
use zixt_api::Invitation;
use zixt_crypto::password::Params;
use zixt_types::{AccountId, MessageId, Seq, ThreadId};

/// A device that talks. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client(std::sync::Arc<Profile>);

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
        let _ = (invitation, folder, passphrase, cost);
        todo!()
    }

    /// Opens the account in `folder`. Works offline.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn open(folder: &Path, passphrase: &[u8]) -> Result<Self, ClientError> {
        let _ = (folder, passphrase);
        todo!()
    }

    /// Who this device is.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.0
    }

    /// Handles everything that the appliance has for this device, sends what is queued, and returns.
    ///
    /// # Errors
    /// See [`ClientError`]. What was handled before stays handled.
    pub async fn sync_once(&self) -> Result<SyncReport, ClientError> {
        todo!()
    }

    /// Stays connected: handles events as they come, sends what is queued, renews keys, and connects again when the
    /// connection breaks. Runs until the receiver of `events` is dropped; dropping the future stops it too.
    ///
    /// # Errors
    /// Only what no retry cures: the local store, or a trust alarm about the whole ledger.
    pub async fn run(&self, events: mpsc::Sender<ClientEvent>) -> Result<(), ClientError> {
        let _ = events;
        todo!()
    }

    /// Starts a conversation with some people. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn start_conversation(
        &self,
        names: &[&str],
        title: Option<&str>,
    ) -> Result<ThreadId, ClientError> {
        let _ = (names, title);
        todo!()
    }

    /// Adds people to a conversation. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_members(&self, thread: ThreadId, names: &[&str]) -> Result<(), ClientError> {
        let _ = (thread, names);
        todo!()
    }

    /// Removes people, with all their devices, and renews the keys. Needs the appliance.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_members(&self, thread: ThreadId, names: &[&str]) -> Result<(), ClientError> {
        let _ = (thread, names);
        todo!()
    }

    /// Queues a message. When this returns it survives a crash; [`Client::flush`], [`Client::sync_once`] or
    /// [`Client::run`] send it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send(&self, thread: ThreadId, text: &str) -> Result<MessageId, ClientError> {
        let _ = (thread, text);
        todo!()
    }

    /// Sends what is queued, as far as possible; returns how many messages became recorded.
    ///
    /// # Errors
    /// The first fault; what was sent before stays sent, the rest stays queued.
    pub async fn flush(&self) -> Result<u64, ClientError> {
        todo!()
    }

    /// All conversations, the latest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn threads(&self) -> Result<Vec<ThreadSummary>, ClientError> {
        todo!()
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
        let _ = (thread, before, limit);
        todo!()
    }

    /// Says that the user has seen a conversation up to now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn mark_shown(&self, thread: ThreadId) -> Result<(), ClientError> {
        let _ = thread;
        todo!()
    }

    /// Everybody whom this device knows, by name. From the local store only.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn contacts(&self) -> Result<Vec<ContactView>, ClientError> {
        todo!()
    }

    /// A person, looked up anew if the appliance is there, else as this device knows them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn contact(&self, name: &str) -> Result<ContactView, ClientError> {
        let _ = name;
        todo!()
    }

    /// Says that the user compared the fingerprints of this person's active devices, as this device knows them now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn mark_verified(&self, account: AccountId) -> Result<(), ClientError> {
        let _ = account;
        todo!()
    }

    /// The devices of this account.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn devices(&self) -> Result<Vec<DeviceView>, ClientError> {
        todo!()
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
        let _ = (thread, seq, with_content, path);
        todo!()
    }

    /// All alarms, the oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn alarms(&self) -> Result<Vec<Alarm>, ClientError> {
        todo!()
    }

    /// Writes the proof of the first fork that this device found to `path`.
    ///
    /// # Errors
    /// [`ClientError::NoFork`] if it found none.
    pub async fn export_fork(&self, path: &Path) -> Result<(), ClientError> {
        let _ = path;
        todo!()
    }

    /// Protects the store with another passphrase.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_passphrase(&self, old: &[u8], new: &[u8], cost: Params) -> Result<(), ClientError> {
        let _ = (old, new, cost);
        todo!()
    }
}
