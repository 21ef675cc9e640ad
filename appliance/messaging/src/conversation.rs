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
use zixt_crypto::aead::{self, SealError};
use zixt_crypto::hash::constant_time_eq;
use zixt_crypto::{AeadKey, RandomError, digest};
use zixt_types::{
    Canonical, Epoch, Hash, Member, MessageId, ParseError, Payload, RotationPolicy, SuiteId, ThreadId,
    Timestamp, limits,
};

use crate::content::{Content, ContentKey, Plaintext, content_commitment};
use crate::device::{Config, Device, mls_time, tree_aad, tree_key_extension};
use crate::entry::{CommitEntry, MessageEntry};
use crate::fault::{MlsFault, StateFault};
use crate::identity::{IdentityError, member_of};
use crate::key_package::{KeyPackageError, message};
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
    group: Group<Config>,
    /// Leaf index, member and hash of the MLS key.
    roster: Arc<Vec<(u32, Member, Hash)>>,
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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

/// Why no commit was made.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// A commit of this device still waits for the ledger.
    #[error("a commit of this device still waits for the ledger")]
    Pending,
    /// The first commit has to add somebody.
    #[error("the first commit of a conversation has to add somebody")]
    Alone,
    /// More members leave or join than one commit may change.
    #[error("{got} members change at once; at most {} may", limits::ROSTER_CHANGE_MAX)]
    ChangeTooLarge {
        /// How many.
        got: usize,
    },
    /// The conversation would have too many members.
    #[error("the conversation would have {got} members; at most {} are allowed", limits::MEMBERS_MAX)]
    TooManyMembers {
        /// How many.
        got: usize,
    },
    /// A key package is not good.
    #[error("a key package was refused")]
    KeyPackage(#[from] KeyPackageError),
    /// Somebody who is to join is a member or stands twice in the list.
    #[error("device {} of account {} is a member already or is added twice", .0.device, .0.account)]
    AlreadyMember(Member),
    /// Somebody who is to leave is no member or stands twice in the list.
    #[error("device {} of account {} is no member or is removed twice", .0.device, .0.account)]
    NoMember(Member),
    /// MLS does not let a device remove itself: another member has to.
    #[error("a device cannot remove itself")]
    OwnRemoval,
    /// A member who stays is no longer in the ledger: the commit has to remove that device too.
    #[error("a member who would stay is not in the ledger")]
    Stale(#[source] IdentityError),
    /// The commit, its Welcome or its tree would be too long.
    #[error("the {what} has {got} bytes; at most {max} are allowed")]
    TooLong {
        /// Which of them.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// No randomness for the key of the tree.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The tree could not be encrypted.
    #[error("the tree could not be encrypted")]
    Seal(#[from] SealError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for DraftError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why a commit was not taken. The conversation is as before.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It belongs to another conversation.
    #[error("the commit belongs to another conversation")]
    OtherThread,
    /// It is longer than any commit.
    #[error("the commit has {got} bytes; at most {} are allowed", limits::COMMIT_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The envelope is not the one that the entry names.
    #[error("the envelope is not the one that the entry names")]
    Digest,
    /// It ends another epoch than the current one.
    #[error("the commit ends epoch {got}; the conversation is in epoch {current}")]
    Epoch {
        /// The conversation's.
        current: Epoch,
        /// The commit's.
        got: Epoch,
    },
    /// It is a commit of this device: [`Conversation::confirm_commit`] takes those.
    #[error("the commit is of this device")]
    Own,
    /// No commit of this device waits, or another one.
    #[error("no such commit of this device waits for the ledger")]
    NotPending,
    /// The envelope is not an encrypted commit of this conversation and epoch.
    #[error("the envelope is not an encrypted commit of this conversation and epoch")]
    Malformed,
    /// Another member than the entry's author made it.
    #[error("another member than the author of the entry made the commit")]
    Author {
        /// Who made it.
        got: Member,
    },
    /// It adds or removes others than the entry says.
    #[error("the commit adds or removes others than the entry says")]
    Roster {
        /// Whom it adds.
        added: Vec<Member>,
        /// Whom it removes.
        removed: Vec<Member>,
    },
    /// The conversation would have too many members.
    #[error("the conversation would have {got} members; at most {} are allowed", limits::MEMBERS_MAX)]
    TooManyMembers {
        /// How many.
        got: usize,
    },
    /// It leads to another epoch authenticator than the entry says.
    #[error("the commit leads to another epoch authenticator than the entry says")]
    Authenticator,
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for CommitError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why nothing was encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// The conversation does not exist yet: its first commit is not in the ledger.
    #[error("the conversation has no first commit yet")]
    Alone,
    /// The content breaks a rule of its format.
    #[error("the content breaks a rule")]
    Content(#[source] ParseError),
    /// A member is no longer in the ledger and would read the message: remove that device first.
    #[error("a member is not in the ledger")]
    Stale(#[source] IdentityError),
    /// The envelope would be too long.
    #[error("the envelope has {got} bytes; at most {} are allowed", limits::ENVELOPE_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// No randomness for k.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for EncryptError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why a message was not taken. The conversation is as before.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// It belongs to another conversation.
    #[error("the message belongs to another conversation")]
    OtherThread,
    /// It is longer than any message.
    #[error("the envelope has {got} bytes; at most {} are allowed", limits::ENVELOPE_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The envelope is not the one that the entry names.
    #[error("the envelope is not the one that the entry names")]
    Digest,
    /// It is a message of this device, which keeps what it sent.
    #[error("the message is of this device")]
    Own,
    /// The envelope is not an encrypted message of this conversation and epoch.
    #[error("the envelope is not an encrypted message of this conversation and of the entry's epoch")]
    Malformed,
    /// Its epoch has not begun here: commits are missing.
    #[error("the message is of epoch {got}; the conversation is in epoch {current}")]
    FutureEpoch {
        /// The conversation's.
        current: Epoch,
        /// The message's.
        got: Epoch,
    },
    /// The keys of its epoch are gone, or this device was not a member in it.
    #[error("the keys of epoch {got} are gone; the conversation is in epoch {current}")]
    EpochGone {
        /// The conversation's.
        current: Epoch,
        /// The message's.
        got: Epoch,
    },
    /// It was decrypted before: its key is gone.
    #[error("the message was decrypted before")]
    AlreadyDecrypted,
    /// More than 1024 messages of its author are missing before it.
    #[error("too many messages of its author are missing before it")]
    TooFarAhead,
    /// A late message of somebody who is no longer a member.
    #[error("the author of this late message is no longer a member")]
    AuthorGone,
    /// Another member than the entry's author sent it.
    #[error("another member than the author of the entry sent the message")]
    Author {
        /// Who sent it.
        got: Member,
    },
    /// It names another conversation or message than the entry.
    #[error("the message is bound to another message id")]
    MessageId,
    /// The plaintext is malformed.
    #[error("the plaintext is malformed")]
    Plaintext(#[source] ParseError),
    /// The content is not the one that the entry commits to.
    #[error("the content is not the one that the entry commits to")]
    Commitment,
    /// MLS refused: altered bytes or a signature that does not hold.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
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

    /// Takes a commit of another member that the ledger has taken.
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

    fn epoch(&self) -> Epoch {
        Epoch(self.group.context().epoch)
    }

    pub(crate) fn member(&self, leaf: u32) -> Option<Member> {
        self.roster.iter().find(|(index, ..)| *index == leaf).map(|entry| entry.1)
    }

    fn leaf(&self, member: &Member) -> Option<u32> {
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

    fn check_members(&self, device: &Device, leaving: &[Member]) -> Result<(), IdentityError> {
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

struct Draft {
    envelope: Vec<u8>,
    welcome: Option<Vec<u8>>,
    tree: Option<Vec<u8>>,
    payload: Payload,
}

fn draft(
    live: &mut Live,
    device: &Device,
    thread: ThreadId,
    change: &Change,
    now: Timestamp,
) -> Result<Draft, DraftError> {
    let epoch = live.epoch();
    if live.pending.is_some() {
        return Err(DraftError::Pending);
    }
    if epoch == Epoch(0) && change.add.is_empty() {
        return Err(DraftError::Alone);
    }
    let (added, removed) = check_change(live, device, change, now)?;

    let tree_key = AeadKey::generate()?;
    let leaves: Vec<u32> = removed.iter().filter_map(|member| live.leaf(member)).collect();
    let mut builder = live.group.commit_builder().commit_time(mls_time(now));
    for package in &change.add {
        builder = builder.add_member(message(package)?)?;
    }
    for leaf in leaves {
        builder = builder.remove_member(leaf)?;
    }
    if !added.is_empty() {
        builder = builder.set_group_info_ext(tree_key_extension(&tree_key));
    }
    let (output, secrets) = builder.build_detached()?;
    let secret_bytes = Zeroizing::new(secrets.to_bytes()?);

    // The entry names the authenticator of the epoch that is not there yet: look ahead on a copy.
    let mut ahead = live.clone();
    ahead.group.apply_detached_commit(secrets)?;
    let authenticator = ahead.authenticator()?;

    let envelope = bounded("commit", limits::COMMIT_BYTES_MAX, output.commit_message().to_bytes()?)?;
    let (mut welcome, mut tree) = (None, None);
    if !added.is_empty() {
        let [message] = output.welcome_messages() else {
            return Err(MlsError::InvalidWelcomeMessage.into());
        };
        let exported = output.ratchet_tree().ok_or(MlsError::RatchetTreeNotFound)?;
        let sealed = aead::seal(&tree_key, &tree_aad(thread), &exported.to_bytes()?)?;
        welcome = Some(bounded("Welcome", limits::WELCOME_BYTES_MAX, message.to_bytes()?)?);
        tree = Some(bounded("ratchet tree", limits::TREE_BYTES_MAX, sealed)?);
    }
    let payload = Payload::Commit {
        epoch,
        envelope: digest::envelope_digest(&envelope),
        welcome: welcome.as_deref().map(digest::attachment_digest),
        tree: tree.as_deref().map(digest::attachment_digest),
        authenticator,
        added,
        removed,
    };
    live.pending = Some(Arc::new(Pending { payload: payload.clone(), secrets: secret_bytes }));
    live.stored.pending = None;
    Ok(Draft { envelope, welcome, tree, payload })
}

/// Whom a change adds and removes, ascending.
fn check_change(
    live: &Live,
    device: &Device,
    change: &Change,
    now: Timestamp,
) -> Result<(Vec<Member>, Vec<Member>), DraftError> {
    let got = change.add.len().max(change.remove.len());
    if got > limits::ROSTER_CHANGE_MAX {
        return Err(DraftError::ChangeTooLarge { got });
    }
    let mut removed = change.remove.clone();
    removed.sort_unstable();
    if removed.contains(&device.member()) {
        return Err(DraftError::OwnRemoval);
    }
    let repeated = removed.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    if let Some(member) = repeated.or_else(|| removed.iter().find(|member| live.leaf(member).is_none())) {
        return Err(DraftError::NoMember(*member));
    }
    let mut added = Vec::with_capacity(change.add.len());
    for package in &change.add {
        added.push(device.check_any_key_package(package, now)?.member);
    }
    added.sort_unstable();
    let repeated = added.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    if let Some(member) = repeated.or_else(|| added.iter().find(|member| live.leaf(member).is_some())) {
        return Err(DraftError::AlreadyMember(*member));
    }
    let got = live.roster.len() + added.len() - removed.len();
    if got > limits::MEMBERS_MAX {
        return Err(DraftError::TooManyMembers { got });
    }
    live.check_members(device, &removed).map_err(DraftError::Stale)?;
    Ok((added, removed))
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

fn bounded(what: &'static str, max: usize, bytes: Vec<u8>) -> Result<Vec<u8>, DraftError> {
    if bytes.len() > max { Err(DraftError::TooLong { what, got: bytes.len(), max }) } else { Ok(bytes) }
}
