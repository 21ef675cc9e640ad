//! What lies in the store. Types of their own, versioned by their first field, so that a live type can change.

use crate::store::{Space, StoreError};
use minicbor::{Decode, Encode};
use zixt_api::ErrorCode;
use zixt_crypto::Keyring;
use zixt_ledger::{Account, Conversation};
use zixt_types::{
    AccountId, DeviceId, EntryPosition, Epoch, Hash, Head, Height, Member, MessageId, Salt, Seq, SuiteId,
    ThreadId, Timestamp,
};

/// The version that this program writes and reads.
pub const VERSION: u64 = 1;

/// Encodes a record.
pub fn encode<T: Encode<()>>(record: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(record, &mut bytes) {
        Ok(()) => bytes,
        // Writing to a Vec cannot fail, and no record's encoding has an error of its own.
        Err(_) => unreachable!("encoding to memory"),
    }
}

/// Decodes a record. The store has authenticated the bytes, so that a fault means another program's record.
pub fn decode<T: for<'b> Decode<'b, ()>>(space: Space, bytes: &[u8]) -> Result<T, StoreError> {
    minicbor::decode(bytes).map_err(|_| StoreError::Altered { space })
}

/// Who this device is, with its private keys.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub struct ProfileRecord {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub suite: SuiteId,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub genesis: Vec<u8>,
    #[n(3)]
    pub keyring: Keyring,
    #[n(4)]
    pub address: String,
    #[n(5)]
    pub tls_pin: Hash,
    #[n(6)]
    pub name: String,
    #[n(7)]
    pub member: Member,
    #[cbor(n(8), with = "minicbor::bytes")]
    pub identity: [u8; 32],
    #[cbor(n(9), with = "minicbor::bytes")]
    pub mls: [u8; 32],
    #[cbor(n(10), with = "minicbor::bytes")]
    pub tls: [u8; 32],
    /// Seals MLS state inside the sealed store, as the messaging crate demands.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub state_key: [u8; 32],
    #[n(12)]
    pub checkpoint: (Height, Hash),
    /// The enrolment, as long as its receipt is missing.
    #[n(13)]
    pub enrolling: Option<Prepared>,
}

impl Drop for ProfileRecord {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.identity.zeroize();
        self.mls.zeroize();
        self.tls.zeroize();
        self.state_key.zeroize();
    }
}

/// A submission as it is handed in, again and again until it is answered.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Prepared {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub possession: Option<Vec<u8>>,
    #[n(3)]
    pub attachments: Vec<Blob>,
    /// Canonical content and the key of its commitment, of messages.
    #[n(4)]
    pub disclosure: Option<Disclosed>,
}

/// Bytes in a list.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Blob(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// Content with the key of its commitment.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Disclosed {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub content: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub k: [u8; 32],
}

/// A verified account.
#[derive(Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct AccountRecord {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub account: Account,
    #[n(2)]
    pub name: Option<(String, Salt)>,
    /// Identity keys of its devices.
    #[n(3)]
    pub keys: Keyring,
    #[n(4)]
    pub head: Head,
    /// Additions (`true`) and revocations noticed after the first look.
    #[n(5)]
    pub changes: Vec<(Timestamp, DeviceId, bool)>,
    /// The devices whose fingerprints the user compared.
    #[n(6)]
    pub verified: Option<Vec<DeviceId>>,
}

/// What is known of a conversation.
#[derive(Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct ThreadRecord {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub thread: ThreadId,
    #[n(2)]
    pub title: Option<String>,
    #[n(3)]
    pub head: Head,
    #[n(4)]
    pub time: Timestamp,
    #[n(5)]
    pub state: Conversation,
    #[n(6)]
    pub removed: bool,
    #[n(7)]
    pub blocked: Option<String>,
    /// The counter of this device's next body.
    #[n(8)]
    pub counter: u64,
    /// The last entry that each other member is known to have verified.
    #[n(9)]
    pub seen: Vec<(Member, Seq)>,
    /// Messages of others so far.
    #[n(10)]
    pub received: u64,
    #[n(11)]
    pub last_text: Option<String>,
    /// The title that its members gave it; `title` is this device's own.
    #[n(12)]
    pub shared_title: Option<String>,
}

impl ThreadRecord {
    /// A conversation of which this device has verified nothing yet.
    pub const fn not_begun(thread: ThreadId) -> Self {
        Self {
            version: VERSION,
            thread,
            title: None,
            head: Head { seq: Seq(0), hash: Hash::ZERO },
            time: Timestamp(0),
            state: Conversation { epoch: Epoch(0), epoch_since: Seq(0), members: Vec::new() },
            removed: false,
            blocked: None,
            counter: 0,
            seen: Vec::new(),
            received: 0,
            last_text: None,
            shared_title: None,
        }
    }

    /// Whether an entry of it was verified: no entry has this hash.
    pub fn has_begun(&self) -> bool {
        self.head.hash != Hash::ZERO
    }

    /// Where the next entry stands, and what it follows.
    pub fn next(&self) -> (Seq, Hash) {
        if self.has_begun() { (self.head.seq.next(), self.head.hash) } else { (Seq(0), Hash::ZERO) }
    }

    /// Whether this device is in it, as far as it knows.
    pub fn is_inside(&self) -> bool {
        self.has_begun() && !self.removed
    }
}

/// An entry, as evidence needs it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EntryRecord {
    #[n(0)]
    pub version: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    #[n(3)]
    pub position: EntryPosition,
    #[n(4)]
    pub salt: Salt,
    #[n(5)]
    pub hash: Hash,
}

/// A recorded line of a conversation.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MessageRecord {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub id: MessageId,
    #[n(2)]
    pub seq: Seq,
    #[n(3)]
    pub author: Member,
    #[n(4)]
    pub sent_at: Timestamp,
    #[n(5)]
    pub ledger_time: Timestamp,
    #[n(6)]
    pub line: LineRecord,
}

/// What a line is.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum LineRecord {
    #[n(0)]
    Text(#[n(0)] Disclosed),
    #[n(1)]
    Members {
        #[n(0)]
        added: Vec<AccountId>,
        #[n(1)]
        removed: Vec<AccountId>,
    },
    #[n(2)]
    Unreadable(#[n(0)] String),
    /// A title, as its content.
    #[n(3)]
    Title(#[n(0)] Disclosed),
}

/// What waits to be recorded.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct OutboxRecord {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub thread: ThreadId,
    #[n(2)]
    pub id: MessageId,
    #[n(3)]
    pub at: Timestamp,
    #[n(4)]
    pub what: Outgoing,
    #[n(5)]
    pub prepared: Option<Prepared>,
    /// Why it will not be sent.
    #[n(6)]
    pub failed: Option<String>,
    /// The code with which the appliance refused it for good. What it said then, `prepared` proves false if it comes to be
    /// recorded.
    #[n(7)]
    pub refused: Option<String>,
}

impl OutboxRecord {
    /// What waits from now on.
    pub const fn new(thread: ThreadId, id: MessageId, at: Timestamp, what: Outgoing) -> Self {
        Self { version: VERSION, thread, id, at, what, prepared: None, failed: None, refused: None }
    }

    /// It will not be sent. The bytes that were handed in are remembered by their body: the appliance has all of them.
    pub fn fail(&mut self, reason: String, refused: Option<ErrorCode>) {
        if let Some(prepared) = &mut self.prepared {
            prepared.attachments.clear();
        }
        self.failed = Some(reason);
        self.refused = refused.map(|code| code.code().to_owned());
    }
}

/// What an outgoing entry is for.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outgoing {
    #[n(0)]
    Text(#[n(0)] String),
    #[n(1)]
    Change {
        /// Begins the conversation.
        #[n(0)]
        start: bool,
        #[n(1)]
        title: Option<String>,
        #[n(2)]
        add: Vec<AccountId>,
        #[n(3)]
        remove: Vec<AccountId>,
        /// Renews keys even if nobody joins or leaves.
        #[n(4)]
        rotate: bool,
    },
    /// The title for all members: a new one, or (`None`) the one that it has when this is sent, for newcomers.
    #[n(2)]
    Title(#[n(0)] Option<String>),
}

/// The private part of a key package.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub struct KeyPackageRecord {
    #[n(0)]
    pub version: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    #[n(2)]
    pub expires_at: Timestamp,
}

/// An alarm.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AlarmRecord {
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub at: Timestamp,
    #[n(2)]
    pub thread: Option<ThreadId>,
    #[n(3)]
    pub code: String,
    #[n(4)]
    pub text: String,
    /// A `.zixt-fork` file.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub proof: Option<Vec<u8>>,
    /// The member whom it may be about: it is raised once for each, not for each of its messages.
    #[n(6)]
    pub author: Option<Member>,
    /// What every retry finds again, if the text does not stay the same.
    #[n(7)]
    pub repeats: Option<String>,
}

impl AlarmRecord {
    /// Whether `other` says the same of the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let says = |record: &Self| record.repeats.clone().unwrap_or_else(|| record.text.clone());
        (&self.code, self.thread, self.author) == (&other.code, other.thread, other.author)
            && (self.author.is_some() || says(self) == says(other))
    }
}
