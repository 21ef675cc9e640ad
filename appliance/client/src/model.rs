//! What the client shows: plain values for a command line, a terminal or another face. Texts are raw: whoever shows
//! them has to escape them for the place where they are shown.

use zixt_crypto::Keyring;
use zixt_types::{
    AccountId, DeviceId, Epoch, Genesis, Hash, Height, Member, MessageId, RevokeReason, Seq, SuiteId,
    ThreadId, Timestamp,
};

/// Who this device is, and in which network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The network.
    pub genesis: Genesis,
    /// Hash of the genesis, which names the network.
    pub genesis_hash: Hash,
    /// The keys that the genesis names.
    pub keyring: Keyring,
    /// Where the appliance listens: `host:port`.
    pub address: String,
    /// Hash of the appliance's TLS key.
    pub tls_pin: Hash,
    /// The suite of this device's keys.
    pub suite: SuiteId,
    /// This account's name.
    pub name: String,
    /// Account and device.
    pub member: Member,
}

impl Profile {
    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.genesis.network
    }

    /// Whether the network is a lab: not for production.
    #[must_use]
    pub const fn lab(&self) -> bool {
        self.genesis.lab
    }
}

/// How far a message of this device got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mark {
    /// It waits on this device.
    Queued,
    /// It was handed to the appliance, whose answer is missing. After a restart it counts as waiting until it is handed
    /// in again.
    Sent,
    /// It is in the ledger: certified and proven to this device.
    Recorded,
    /// A device of every other person in the conversation has verified an entry at or after it. It means 'seen by
    /// their client' and shows only when they write themselves: there are no read receipts.
    Read,
}

/// What a line of a conversation is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// Something that a person wrote.
    Text,
    /// People joined or left. (Commits that only renew keys are not shown.)
    Members {
        /// Names of those who joined.
        added: Vec<String>,
        /// Names of those who left.
        removed: Vec<String>,
    },
    /// The author named the conversation, for all members. Empty: it has no title any more.
    Title(String),
    /// A recorded message whose text cannot be shown, and why.
    Unreadable(String),
}

/// A line of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageView {
    /// The conversation.
    pub thread: ThreadId,
    /// The message's id.
    pub id: MessageId,
    /// Its place in the thread; `None` until it is recorded.
    pub seq: Option<Seq>,
    /// The author.
    pub author: Member,
    /// The author's name, or the account's id while the name is not known.
    pub author_name: String,
    /// Whether this device wrote it.
    pub own: bool,
    /// What it is.
    pub kind: MessageKind,
    /// What was written; empty unless the kind is [`MessageKind::Text`].
    pub text: String,
    /// The author's clock.
    pub sent_at: Timestamp,
    /// The validators' clock; `None` until it is recorded.
    pub ledger_time: Option<Timestamp>,
    /// How far it got.
    pub mark: Mark,
}

/// A conversation in short.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadSummary {
    /// The conversation.
    pub thread: ThreadId,
    /// The title that this device's user gave it; else the one that its members share; else the names of the others.
    pub title: String,
    /// Whether the title is the one that its members share: any of them may have chosen it.
    pub title_is_shared: bool,
    /// Names of all people in it, this account included, without repeats.
    pub people: Vec<String>,
    /// Its devices.
    pub members: Vec<Member>,
    /// Its MLS epoch.
    pub epoch: Epoch,
    /// The last entry that this device has verified.
    pub last_seq: Option<Seq>,
    /// Ledger time of that entry.
    pub last_time: Option<Timestamp>,
    /// Text of the last message.
    pub last_text: Option<String>,
    /// Messages of others since this device last called [`crate::Client::mark_shown`].
    pub unread: u64,
    /// Messages that wait on this device.
    pub queued: u64,
    /// Whether this device was removed: history stays, nothing can be sent.
    pub removed: bool,
    /// Why nothing can be sent, if a trust alarm stopped the conversation.
    pub blocked: Option<String>,
}

/// A device of a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceView {
    /// The device.
    pub id: DeviceId,
    /// What two people compare: hash of the identity key, in groups of four.
    pub fingerprint: String,
    /// Hash of the identity key.
    pub identity: Hash,
    /// Ledger time of its addition.
    pub added_at: Timestamp,
    /// Ledger time and reason of its revocation.
    pub revoked: Option<(Timestamp, RevokeReason)>,
    /// Whether it is this device.
    pub own: bool,
}

/// A change of a person's devices that this device noticed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyChangeView {
    /// Ledger time.
    pub at: Timestamp,
    /// The device.
    pub device: DeviceId,
    /// Whether it was added; else it was revoked.
    pub added: bool,
}

/// A person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContactView {
    /// The account.
    pub account: AccountId,
    /// Its name, proven to be the one of the invitation.
    pub name: String,
    /// All devices, past and present.
    pub devices: Vec<DeviceView>,
    /// Changes since this device first saw the account.
    pub changes: Vec<KeyChangeView>,
    /// Whether the user compared the fingerprints of exactly the devices that are active now.
    pub verified: bool,
    /// Whether the user verified this person before and the devices have changed since.
    pub changed_since_verified: bool,
}

/// A violation of trust that this device found. Alarms stay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// Its number, from 1.
    pub number: u64,
    /// This device's clock.
    pub at: Timestamp,
    /// The conversation that it concerns, `None` if all. [`ThreadSummary::blocked`] says whether it is stopped.
    pub thread: Option<ThreadId>,
    /// A stable code for programs.
    pub code: String,
    /// What happened, for people.
    pub text: String,
    /// Whether [`crate::Client::export_fork`] has the proof.
    pub has_proof: bool,
}

/// What a synchronisation did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncReport {
    /// Events handled.
    pub events: u64,
    /// New messages of others.
    pub messages: u64,
    /// Own messages that became recorded.
    pub sent: u64,
    /// Messages that still wait.
    pub queued: u64,
    /// Height of the last verified header.
    pub height: Height,
    /// Alarms raised.
    pub alarms: u64,
}

/// What happens while [`crate::Client::run`] runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// A message was recorded: of somebody else, or of this device.
    Message(Box<MessageView>),
    /// People joined or left, or this device joined a conversation.
    MembersChanged {
        /// The conversation.
        thread: ThreadId,
    },
    /// This device was removed.
    Removed {
        /// The conversation.
        thread: ThreadId,
    },
    /// An own message got further.
    Mark {
        /// The conversation.
        thread: ThreadId,
        /// The message.
        message: MessageId,
        /// Its place, once recorded.
        seq: Option<Seq>,
        /// How far it got.
        mark: Mark,
    },
    /// A message of the outbox cannot be sent for a reason that does not pass by itself.
    SendFailed {
        /// The conversation.
        thread: ThreadId,
        /// The message.
        message: MessageId,
        /// Why, for people.
        reason: String,
    },
    /// A person's devices changed.
    KeyChange {
        /// The account.
        account: AccountId,
        /// Its name.
        name: String,
        /// Whether the user had verified the devices as they were.
        was_verified: bool,
    },
    /// Trust was violated.
    Alarm(Alarm),
    /// The appliance is there and everything it had was handled.
    ConnectionUp,
    /// The appliance is away; the client tries again.
    ConnectionDown {
        /// Why, for people.
        reason: String,
    },
}
