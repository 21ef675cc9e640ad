//! What the ledger says about a commit or a message, in the form that a conversation checks against.

use zixt_types::{Author, Body, EntryPosition, Epoch, Hash, Member, MessageId, Payload, ThreadId, Timestamp};

/// A commit entry whose signature and position the caller has verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitEntry {
    /// The conversation.
    pub thread: ThreadId,
    /// The device that signed it.
    pub author: Member,
    /// Ledger time.
    pub time: Timestamp,
    /// The epoch that it ends.
    pub epoch: Epoch,
    /// Digest of the envelope.
    pub envelope: Hash,
    /// Digest of the Welcome.
    pub welcome: Option<Hash>,
    /// Digest of the encrypted tree.
    pub tree: Option<Hash>,
    /// Digest of the new epoch's authenticator.
    pub authenticator: Hash,
    /// Who joins, ascending.
    pub added: Vec<Member>,
    /// Who leaves, ascending.
    pub removed: Vec<Member>,
}

impl CommitEntry {
    /// From an entry; `None` if it is not a commit by a device.
    #[must_use]
    pub fn new(body: &Body, position: &EntryPosition) -> Option<Self> {
        let Author::Device(author) = body.author else { return None };
        Self::of(body.thread, author, position.time, &body.payload)
    }

    /// From the fields of an entry; `None` if the payload is not a commit.
    #[must_use]
    pub fn of(thread: ThreadId, author: Member, time: Timestamp, payload: &Payload) -> Option<Self> {
        let Payload::Commit { epoch, envelope, welcome, tree, authenticator, added, removed } =
            payload.clone()
        else {
            return None;
        };
        Some(Self { thread, author, time, epoch, envelope, welcome, tree, authenticator, added, removed })
    }

    pub(crate) fn payload(&self) -> Payload {
        let Self { epoch, envelope, welcome, tree, authenticator, added, removed, .. } = self.clone();
        Payload::Commit { epoch, envelope, welcome, tree, authenticator, added, removed }
    }
}

/// A message entry whose signature and position the caller has verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageEntry {
    /// The conversation.
    pub thread: ThreadId,
    /// The device that signed it.
    pub author: Member,
    /// The message's id.
    pub message_id: MessageId,
    /// The epoch that encrypts it.
    pub epoch: Epoch,
    /// Digest of the envelope.
    pub envelope: Hash,
    /// Commitment to the content.
    pub content: Hash,
}

impl MessageEntry {
    /// From a signed body; `None` if it is not a message by a device.
    #[must_use]
    pub fn new(body: &Body) -> Option<Self> {
        let Author::Device(author) = body.author else { return None };
        Self::of(body.thread, author, body.message_id, &body.payload)
    }

    /// From the fields of a body; `None` if the payload is not a message.
    #[must_use]
    pub fn of(thread: ThreadId, author: Member, message_id: MessageId, payload: &Payload) -> Option<Self> {
        let Payload::Message { epoch, envelope, content } = *payload else { return None };
        Some(Self { thread, author, message_id, epoch, envelope, content })
    }
}
