//! A conversation: an MLS group that moves only when the ledger does.
//!
//! Every operation works on a copy of the group and keeps it only if everything holds; after an error the
//! conversation is exactly as before (MLS by itself would have spent a message key on a forged envelope).

use std::sync::Arc;

use mls_rs::error::MlsError;
use mls_rs::group::proposal::Proposal;
use mls_rs::group::{
    ApplicationMessageDescription, CommitEffect, CommitMessageDescription, CommitSecrets, ContentType,
    NewEpoch, ReceivedMessage,
};
use mls_rs::mls_rules::ProposalInfo;
use mls_rs::{Group, MlsMessage, MlsMessageDescription};
use zeroize::Zeroizing;
use zixt_crypto::digest;
use zixt_crypto::hash::constant_time_eq;
use zixt_types::{
    Canonical, Epoch, Hash, Member, MessageId, Payload, RotationPolicy, SuiteId, ThreadId, Timestamp, limits,
};

use crate::content::{Content, ContentKey, Plaintext, content_commitment};
use crate::device::{Config, Device};
use crate::draft::{Draft, draft};
use crate::entry::{CommitEntry, MessageEntry};
use crate::fault::{MlsFault, StateFault};
use crate::identity::{IdentityError, member_of};
use crate::refusal::{CommitError, DecryptError, DraftError, EncryptError};
use crate::staging::Staging;
use crate::state::{self, STATE_VERSION, SavedCore, SavedEpoch, SavedPending, SealedState, StatePart};

/// A conversation as one device sees it.
pub struct Conversation {
    device: Device,
    thread: ThreadId,
    staging: Staging,
    /// `None`: this device was removed.
    live: Option<Live>,
}

/// The part that an operation replaces.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) group: Group<Config>,
    /// Leaf index, member and hash of the MLS key.
    pub(crate) roster: Arc<Vec<(u32, Member, Hash)>>,
    epoch_started_at: Timestamp,
    pub(crate) epoch_messages: u64,
    pub(crate) rotate_first: bool,
    pub(crate) pending: Option<Arc<Pending>>,
    pub(crate) stored: Stored,
}

/// A commit of this device that the ledger has not yet decided about.
pub(crate) struct Pending {
    pub(crate) payload: Payload,
    pub(crate) secrets: Zeroizing<Vec<u8>>,
}

/// Which parts the store has; `None`: to be written with the next state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stored {
    pub(crate) tree: Option<Hash>,
    pub(crate) past: Option<Hash>,
    pub(crate) pending: Option<Hash>,
}

/// What a commit changes. Nothing at all is a change too: new keys for this device.
#[derive(Clone, Default, Debug)]
pub struct Change {
    /// Key packages of those who join, each checked with [`Device::check_key_package`].
    pub add: Vec<Vec<u8>>,
    /// Those who leave.
    pub remove: Vec<Member>,
}

/// A commit that waits for the ledger. Store `state` and the rest in one transaction, then submit.
#[derive(Clone)]
#[must_use = "the state has to be stored before the envelope leaves the device"]
pub struct CommitDraft {
    /// What the members get.
    pub envelope: Vec<u8>,
    /// What those who join get, if any.
    pub welcome: Option<Vec<u8>>,
    /// The encrypted ratchet tree, for those who join.
    pub tree: Option<Vec<u8>>,
    /// The [`Payload::Commit`] to sign and submit.
    pub payload: Payload,
    /// What to store.
    pub state: SealedState,
}

/// A message that waits for the ledger. Store `state` and the rest in one transaction, then submit.
#[derive(Clone)]
#[must_use = "the state has to be stored before the envelope leaves the device"]
pub struct OutgoingMessage {
    /// What the members get.
    pub envelope: Vec<u8>,
    /// The [`Payload::Message`] to sign and submit.
    pub payload: Payload,
    /// The key of the content commitment.
    pub key: ContentKey,
    /// The canonical content: keep it to show it, or to disclose it in evidence.
    pub content: Vec<u8>,
    /// What to store.
    pub state: SealedState,
}

/// A message that was received. Store `state` and the content in one transaction: the envelope cannot be decrypted
/// again.
#[derive(Clone)]
#[must_use = "the state has to be stored with the content"]
pub struct Received {
    /// What was said.
    pub content: Content,
    /// Its canonical bytes.
    pub content_bytes: Vec<u8>,
    /// The key of the content commitment.
    pub key: ContentKey,
    /// What to store.
    pub state: SealedState,
}

impl std::fmt::Debug for CommitDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitDraft").field("payload", &self.payload).finish_non_exhaustive()
    }
}

/// Content does not show in logs.
impl std::fmt::Debug for OutgoingMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingMessage").field("payload", &self.payload).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received").field("content", &self.content).finish_non_exhaustive()
    }
}

/// What became of a commit.
#[derive(Clone, Debug)]
#[must_use = "the state has to be stored or erased"]
pub enum CommitOutcome {
    /// A new epoch began.
    NewEpoch {
        /// Its number.
        epoch: Epoch,
        /// A commit of this device lost against this one and was dropped: make it again if it is still wanted.
        lost: Option<Box<Payload>>,
        /// What to store.
        state: SealedState,
    },
    /// This device was removed. Erase the stored state; the conversation takes no more calls.
    Removed {
        /// The epoch that it is not part of.
        epoch: Epoch,
    },
}

/// Why keys have to be rotated by [`Conversation::update`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RotationReason {
    /// This device joined through its last-resort key package.
    LastResort,
    /// The epoch has as many messages as policy allows.
    Messages,
    /// The epoch is as old as policy allows.
    Age,
}

impl Conversation {
    pub(crate) fn new(device: Device, thread: ThreadId, staging: Staging, live: Live) -> Self {
        Self { device, thread, staging, live: Some(live) }
    }

    /// Its thread, which is its MLS group id.
    #[must_use]
    pub fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Its epoch; `None` after this device was removed.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.live.as_ref().map(Live::epoch)
    }

    /// Its members, ascending; empty after this device was removed.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.live.as_ref().map(Live::members).unwrap_or_default()
    }

    /// Members whom the ledger no longer knows with their key: revoked devices. Nothing is encrypted while there are
    /// any; remove them.
    #[must_use]
    pub fn stale_members(&self) -> Vec<Member> {
        let roster = self.live.iter().flat_map(|live| live.roster.iter());
        roster
            .filter(|(_, member, key)| self.device.check_key(member, *key).is_err())
            .map(|entry| entry.1)
            .collect()
    }

    /// The commit of this device that waits for the ledger.
    #[must_use]
    pub fn pending_commit(&self) -> Option<&Payload> {
        self.live.as_ref()?.pending.as_ref().map(|pending| &pending.payload)
    }

    /// Digest of the epoch's authenticator: what the commit entry that began the epoch records.
    ///
    /// # Errors
    /// [`StateFault::NotAMember`] after this device was removed.
    pub fn authenticator(&self) -> Result<Hash, StateFault> {
        Ok(self.live.as_ref().ok_or(StateFault::NotAMember)?.authenticator()?)
    }

    /// Whether this device should rotate the conversation's keys now. A removal rotates by itself.
    #[must_use]
    pub fn rotation_due(&self, policy: &RotationPolicy, now: Timestamp) -> Option<RotationReason> {
        let live = self.live.as_ref().filter(|live| live.pending.is_none() && live.epoch() != Epoch(0))?;
        if live.rotate_first {
            Some(RotationReason::LastResort)
        } else if live.epoch_messages >= u64::from(policy.messages_max) {
            Some(RotationReason::Messages)
        } else if now.0.saturating_sub(live.epoch_started_at.0) >= policy.age_ms_max {
            Some(RotationReason::Age)
        } else {
            None
        }
    }

    /// [`Self::commit`] that only adds.
    ///
    /// # Errors
    /// [`DraftError`]
    pub fn add(&mut self, key_packages: Vec<Vec<u8>>, now: Timestamp) -> Result<CommitDraft, DraftError> {
        self.commit(&Change { add: key_packages, remove: Vec::new() }, now)
    }

    /// [`Self::commit`] that only removes.
    ///
    /// # Errors
    /// [`DraftError`]
    pub fn remove(&mut self, members: Vec<Member>, now: Timestamp) -> Result<CommitDraft, DraftError> {
        self.commit(&Change { add: Vec::new(), remove: members }, now)
    }

    /// [`Self::commit`] that only rotates keys.
    ///
    /// # Errors
    /// [`DraftError`]
    pub fn update(&mut self, now: Timestamp) -> Result<CommitDraft, DraftError> {
        self.commit(&Change::default(), now)
    }

    /// Makes a commit. It takes effect with [`Self::confirm_commit`]; until then the conversation goes on in its
    /// epoch.
    ///
    /// # Errors
    /// [`DraftError`]
    pub fn commit(&mut self, change: &Change, now: Timestamp) -> Result<CommitDraft, DraftError> {
        let (thread, device) = (self.thread, self.device.clone());
        let (draft, state) = self.attempt(|live| draft(live, &device, thread, change, now))?;
        let Draft { envelope, welcome, tree, payload } = draft;
        Ok(CommitDraft { envelope, welcome, tree, payload, state })
    }

    /// The ledger has taken the commit of this device: begins the new epoch.
    ///
    /// # Errors
    /// [`CommitError`] if `entry` is not exactly the commit that waits.
    pub fn confirm_commit(&mut self, entry: &CommitEntry) -> Result<CommitOutcome, CommitError> {
        if entry.thread != self.thread {
            return Err(CommitError::OtherThread);
        }
        let (me, suite) = (self.device.member(), self.device.suite());
        let (epoch, state) = self.attempt(|live| {
            let pending = live.pending.take().filter(|pending| pending.payload == entry.payload());
            let pending = pending.filter(|_| entry.author == me).ok_or(CommitError::NotPending)?;
            live.group.apply_detached_commit(CommitSecrets::from_bytes(&pending.secrets)?)?;
            live.rotate_first = false;
            live.epoch_began(suite, entry.time)?;
            Ok::<_, CommitError>(live.epoch())
        })?;
        Ok(CommitOutcome::NewEpoch { epoch, lost: None, state })
    }

    /// Drops the commit that waits, because the server refused it for good. If another commit won the epoch,
    /// [`Self::process_commit`] does this by itself. Never drop one that the ledger may have taken.
    ///
    /// # Errors
    /// [`CommitError::NotPending`] if none waits.
    pub fn abandon_commit(&mut self) -> Result<SealedState, CommitError> {
        let (_, state) = self.attempt(|live| {
            live.pending.take().ok_or(CommitError::NotPending)?;
            live.stored.pending = None;
            Ok::<_, CommitError>(())
        })?;
        Ok(state)
    }

    /// Takes a commit of another member that the ledger has taken. The validity in time of added key packages is not
    /// judged again: the one who adds does, and members whose clocks differ must not part ways over it.
    ///
    /// A device that is removed cannot compute the new epoch, and so not compare its authenticator.
    ///
    /// # Errors
    /// [`CommitError`] if it does not do exactly what `entry` says.
    pub fn process_commit(
        &mut self,
        envelope: &[u8],
        entry: &CommitEntry,
    ) -> Result<CommitOutcome, CommitError> {
        let mut next = self.live.clone().ok_or(StateFault::NotAMember)?;
        let current = next.epoch();
        if entry.thread != self.thread {
            return Err(CommitError::OtherThread);
        }
        if envelope.len() > limits::COMMIT_BYTES_MAX {
            return Err(CommitError::TooLong { got: envelope.len() });
        }
        if digest::envelope_digest(envelope) != entry.envelope {
            return Err(CommitError::Digest);
        }
        if entry.epoch != current {
            return Err(CommitError::Epoch { current, got: entry.epoch });
        }
        if entry.author == self.device.member() {
            return Err(CommitError::Own);
        }
        let message = private_message(envelope, self.thread, current, ContentType::Commit)
            .ok_or(CommitError::Malformed)?;
        let lost = next.pending.take();
        let ReceivedMessage::Commit(commit) = next.group.process_incoming_message(message)? else {
            return Err(CommitError::Malformed);
        };
        let removed = next.check_commit(&commit, entry)?;
        if removed {
            self.live = None;
            self.staging.restore(Default::default());
            return Ok(CommitOutcome::Removed { epoch: current.next() });
        }
        next.epoch_began(self.device.suite(), entry.time)?;
        if next.roster.len() > limits::MEMBERS_MAX {
            return Err(CommitError::TooManyMembers { got: next.roster.len() });
        }
        if next.authenticator()? != entry.authenticator {
            return Err(CommitError::Authenticator);
        }
        let epoch = next.epoch();
        let state = self.replace(next)?;
        Ok(CommitOutcome::NewEpoch { epoch, lost: lost.map(|lost| Box::new(lost.payload.clone())), state })
    }

    /// Encrypts a message for the current epoch.
    ///
    /// # Errors
    /// [`EncryptError`]
    pub fn encrypt(&mut self, content: &Content) -> Result<OutgoingMessage, EncryptError> {
        let bytes = content.to_bytes();
        Content::parse(&bytes).map_err(EncryptError::Content)?;
        let key = ContentKey::generate()?;
        let commitment = content_commitment(&key, &bytes);
        let plaintext = state::encode(&Plaintext { content: &bytes, key: key.as_bytes() }, bytes.len());
        let aad = message_aad(self.thread, content.message_id);
        let device = self.device.clone();
        let ((envelope, epoch), state) = self.attempt(|live| {
            if live.epoch() == Epoch(0) {
                return Err(EncryptError::Alone);
            }
            live.check_members(&device, &[]).map_err(EncryptError::Stale)?;
            let message = live.group.encrypt_application_message(&plaintext, aad)?;
            let envelope = message.to_bytes()?;
            if envelope.len() > limits::ENVELOPE_BYTES_MAX {
                return Err(EncryptError::TooLong { got: envelope.len() });
            }
            live.epoch_messages = live.epoch_messages.saturating_add(1);
            Ok((envelope, live.epoch()))
        })?;
        let payload =
            Payload::Message { epoch, envelope: digest::envelope_digest(&envelope), content: commitment };
        Ok(OutgoingMessage { envelope, payload, key, content: bytes, state })
    }

    /// Decrypts a message of another member and checks it against its entry. Messages may come out of order, within
    /// 1024 of their author and [`crate::PAST_EPOCHS_MAX`] past epochs.
    ///
    /// # Errors
    /// [`DecryptError`] if it is not exactly what `entry` says, or its key is gone.
    pub fn decrypt(&mut self, envelope: &[u8], entry: &MessageEntry) -> Result<Received, DecryptError> {
        let current = self.live.as_ref().ok_or(StateFault::NotAMember)?.epoch();
        if entry.thread != self.thread {
            return Err(DecryptError::OtherThread);
        }
        if envelope.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(DecryptError::TooLong { got: envelope.len() });
        }
        if digest::envelope_digest(envelope) != entry.envelope {
            return Err(DecryptError::Digest);
        }
        if entry.author == self.device.member() {
            return Err(DecryptError::Own);
        }
        let message = private_message(envelope, self.thread, entry.epoch, ContentType::Application)
            .ok_or(DecryptError::Malformed)?;
        if entry.epoch > current {
            return Err(DecryptError::FutureEpoch { current, got: entry.epoch });
        }
        let ((content_bytes, content, key), state) = self.attempt(|live| {
            let received = live.group.process_incoming_message(message).map_err(|error| match error {
                MlsError::KeyMissing(_) => DecryptError::AlreadyDecrypted,
                MlsError::InvalidFutureGeneration(_) => DecryptError::TooFarAhead,
                MlsError::MemberNotFound => DecryptError::AuthorGone,
                MlsError::CantProcessMessageFromSelf => DecryptError::Own,
                MlsError::EpochNotFound | MlsError::InvalidEpoch => {
                    DecryptError::EpochGone { current, got: entry.epoch }
                }
                other => DecryptError::Mls(other.into()),
            })?;
            let ReceivedMessage::ApplicationMessage(message) = received else {
                return Err(DecryptError::Malformed);
            };
            let opened = live.check_message(&message, entry)?;
            if entry.epoch == current {
                live.epoch_messages = live.epoch_messages.saturating_add(1);
            }
            Ok(opened)
        })?;
        Ok(Received { content, content_bytes, key, state })
    }

    /// The whole state, as after the last operation.
    pub(crate) fn save(&mut self) -> Result<SealedState, StateFault> {
        let next = self.live.clone().ok_or(StateFault::NotAMember)?;
        self.replace(next)
    }

    /// Runs an operation on a copy and keeps the copy only if the operation and saving succeed.
    fn attempt<T, E: From<StateFault>>(
        &mut self,
        operation: impl FnOnce(&mut Live) -> Result<T, E>,
    ) -> Result<(T, SealedState), E> {
        let mut next = self.live.clone().ok_or(StateFault::NotAMember)?;
        let value = operation(&mut next)?;
        Ok((value, self.replace(next)?))
    }

    fn replace(&mut self, mut next: Live) -> Result<SealedState, StateFault> {
        let before = self.staging.snapshot();
        match seal(&self.device, self.thread, &self.staging, &mut next) {
            Ok(state) => {
                self.staging.taken();
                self.live = Some(next);
                Ok(state)
            }
            Err(fault) => {
                self.staging.restore(before);
                Err(fault)
            }
        }
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("thread", &self.thread)
            .field("epoch", &self.epoch())
            .field("members", &self.live.as_ref().map_or(0, |live| live.roster.len()))
            .finish_non_exhaustive()
    }
}

impl Live {
    pub(crate) fn new(group: Group<Config>, suite: SuiteId, now: Timestamp) -> Result<Self, MlsFault> {
        let mut live = Self {
            group,
            roster: Arc::default(),
            epoch_started_at: now,
            epoch_messages: 0,
            rotate_first: false,
            pending: None,
            stored: Stored::default(),
        };
        live.epoch_began(suite, now)?;
        Ok(live)
    }

    fn epoch_began(&mut self, suite: SuiteId, now: Timestamp) -> Result<(), MlsFault> {
        self.epoch_started_at = now;
        self.epoch_messages = 0;
        self.stored = Stored::default();
        let members = self.group.roster().members_iter();
        let roster = members.map(|leaf| {
            let key = digest::key_hash(suite, &leaf.signing_identity.signature_key);
            Ok((leaf.index, member_of(&leaf.signing_identity)?, key))
        });
        self.roster = Arc::new(roster.collect::<Result<_, _>>().map_err(MlsFault::Identity)?);
        Ok(())
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.group.context().epoch)
    }

    pub(crate) fn member(&self, leaf: u32) -> Option<Member> {
        self.roster.iter().find(|(index, ..)| *index == leaf).map(|entry| entry.1)
    }

    pub(crate) fn leaf(&self, member: &Member) -> Option<u32> {
        self.roster.iter().find(|entry| entry.1 == *member).map(|(index, ..)| *index)
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.roster.iter().map(|entry| entry.1).collect();
        members.sort_unstable();
        members
    }

    pub(crate) fn authenticator(&self) -> Result<Hash, MlsFault> {
        Ok(digest::authenticator_digest(&self.group.epoch_authenticator()?))
    }

    pub(crate) fn check_members(&self, device: &Device, leaving: &[Member]) -> Result<(), IdentityError> {
        let mut staying = self.roster.iter().filter(|entry| !leaving.contains(&entry.1));
        staying.try_for_each(|(_, member, key)| device.check_key(member, *key))
    }

    /// Compares a processed commit with its entry; says whether it removed this device. Called before the roster is
    /// read anew: leaf indices of the commit are those of the epoch that it ends.
    fn check_commit(
        &self,
        commit: &CommitMessageDescription,
        entry: &CommitEntry,
    ) -> Result<bool, CommitError> {
        let (new_epoch, removed_me) = match &commit.effect {
            CommitEffect::NewEpoch(new_epoch) => (new_epoch, false),
            CommitEffect::Removed { new_epoch, .. } => (new_epoch, true),
            // The rules refuse it before.
            CommitEffect::ReInit(_) => return Err(CommitError::Malformed),
        };
        if commit.is_external || !commit.authenticated_data.is_empty() {
            return Err(CommitError::Malformed);
        }
        let got = self.member(commit.committer).ok_or(CommitError::Malformed)?;
        if got != entry.author {
            return Err(CommitError::Author { got });
        }
        let (added, removed) = self.roster_change(new_epoch)?;
        if added != entry.added || removed != entry.removed {
            return Err(CommitError::Roster { added, removed });
        }
        Ok(removed_me)
    }

    /// Whom the proposals of a commit add and remove, ascending. Not the difference of the rosters: that would not
    /// show a device that is removed and added again with another leaf.
    fn roster_change(&self, new_epoch: &NewEpoch) -> Result<(Vec<Member>, Vec<Member>), CommitError> {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for ProposalInfo { proposal, .. } in new_epoch.applied_proposals() {
            match proposal {
                Proposal::Add(add) => {
                    added.push(member_of(add.signing_identity()).map_err(MlsFault::Identity)?);
                }
                Proposal::Remove(remove) => {
                    removed.push(self.member(remove.to_remove()).ok_or(CommitError::Malformed)?);
                }
                _ => return Err(CommitError::Malformed),
            }
        }
        added.sort_unstable();
        removed.sort_unstable();
        Ok((added, removed))
    }

    fn check_message(
        &self,
        message: &ApplicationMessageDescription,
        entry: &MessageEntry,
    ) -> Result<(Vec<u8>, Content, ContentKey), DecryptError> {
        // Of a past epoch too: mls-rs has checked that the leaf still has the key that signed.
        let got = self.member(message.sender_index).ok_or(DecryptError::AuthorGone)?;
        if got != entry.author {
            return Err(DecryptError::Author { got });
        }
        if message.authenticated_data != message_aad(entry.thread, entry.message_id) {
            return Err(DecryptError::MessageId);
        }
        let (bytes, key) = Plaintext::parse(message.data()).map_err(DecryptError::Plaintext)?;
        if !constant_time_eq(content_commitment(&key, bytes).as_ref(), entry.content.as_ref()) {
            return Err(DecryptError::Commitment);
        }
        let content = Content::parse(bytes).map_err(DecryptError::Plaintext)?;
        if content.message_id != entry.message_id {
            return Err(DecryptError::MessageId);
        }
        Ok((bytes.to_vec(), content, key))
    }
}

/// Encrypts the parts of the state that changed.
fn seal(
    device: &Device,
    thread: ThreadId,
    staging: &Staging,
    live: &mut Live,
) -> Result<SealedState, StateFault> {
    let key = device.state_key();
    live.group.write_to_storage_without_ratchet_tree()?;
    let staged = staging.snapshot();
    if staged.epochs_changed {
        live.stored.past = None;
    }
    let part =
        |stored: &mut Option<Hash>, part, plaintext: &dyn Fn() -> Result<Zeroizing<Vec<u8>>, MlsError>| {
            Ok::<_, StateFault>(match *stored {
                Some(hash) => (hash, None),
                None => {
                    let sealed = state::seal(key, part, &thread, &plaintext()?)?;
                    let hash = state::part_hash(&sealed);
                    *stored = Some(hash);
                    (hash, Some(sealed))
                }
            })
        };
    let (tree_hash, tree) = part(&mut live.stored.tree, StatePart::Tree, &|| {
        live.group.export_tree().to_bytes().map(Zeroizing::new)
    })?;
    let (past_hash, past) = part(&mut live.stored.past, StatePart::Past, &|| {
        let epochs: Vec<_> =
            staged.epochs.iter().map(|(id, data)| SavedEpoch { id: *id, data: data.as_slice() }).collect();
        let bytes = epochs.iter().map(|epoch| epoch.data.len()).sum();
        Ok(state::encode(&epochs, bytes))
    })?;
    let (pending_hash, pending) = part(&mut live.stored.pending, StatePart::Pending, &|| {
        Ok(live.pending.as_ref().map_or_else(Zeroizing::default, |pending| {
            let saved = SavedPending { payload: pending.payload.clone(), secrets: &pending.secrets };
            state::encode(&saved, pending.secrets.len())
        }))
    })?;
    let core = SavedCore {
        version: STATE_VERSION,
        suite: device.suite(),
        member: device.member(),
        epoch_started_at: live.epoch_started_at,
        epoch_messages: live.epoch_messages,
        rotate_first: live.rotate_first,
        mls: &staged.state,
        tree: tree_hash,
        past: past_hash,
        pending: pending_hash,
    };
    let core = state::seal(key, StatePart::Core, &thread, &state::encode(&core, staged.state.len()))?;
    Ok(SealedState { core, tree, past, pending })
}

/// An envelope, if it is an encrypted message of this kind, conversation and epoch. Everything else that MLS could
/// take (plaintext, proposals, group information) ends here.
fn private_message(
    envelope: &[u8],
    thread: ThreadId,
    epoch: Epoch,
    wanted: ContentType,
) -> Option<MlsMessage> {
    let message = MlsMessage::from_bytes(envelope).ok()?;
    let MlsMessageDescription::PrivateProtocolMessage { group_id, epoch_id, content_type } =
        message.description()
    else {
        return None;
    };
    let fits = group_id == thread.as_ref() && epoch_id == epoch.0 && content_type == wanted;
    fits.then_some(message)
}

/// What MLS authenticates beside a message.
fn message_aad(thread: ThreadId, message_id: MessageId) -> Vec<u8> {
    [thread.as_ref(), message_id.as_ref()].concat()
}
