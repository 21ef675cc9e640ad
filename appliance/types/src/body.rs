//! The signed body: what an author signs and the ledger keeps for ever. It holds commitments, never content.

use crate::{
    AccountId, Action, Canonical, DeviceId, Epoch, Hash, Head, MessageId, Seq, SuiteId, ThreadId, ThreadKind,
    Timestamp, limits,
};
use minicbor::{Decode, Encode};

/// Who signed a body, and thereby which key has to verify it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum Author {
    /// A device of an account, with its identity key.
    #[n(0)]
    Device(#[n(0)] Member),
    /// An enroller that the genesis or the officers appointed, named by the hash of its key.
    #[n(1)]
    Enroller(#[n(0)] Hash),
    /// The holder of an invitation, with the key whose hash the invitation recorded. Signs one first device.
    #[n(2)]
    Invitation(#[n(0)] AccountId),
    /// As many officers as the genesis requires: their approvals of the action stand in the place of the signature.
    #[n(3)]
    Officers,
}

/// A device as a member of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Member {
    /// The account.
    #[n(0)]
    pub account: AccountId,
    /// The account's device.
    #[n(1)]
    pub device: DeviceId,
}

/// What an entry says. Every digest is a labelled SHA-384 (`zixt-crypto` holds the labels).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Payload {
    /// An application message of a conversation.
    #[n(0)]
    Message {
        /// The MLS epoch whose keys encrypt it; must be the conversation's epoch.
        #[n(0)]
        epoch: Epoch,
        /// Digest of the envelope (the MLS PrivateMessage).
        #[n(1)]
        envelope: Hash,
        /// HMAC-SHA384(k, canonical content); k travels only inside the MLS plaintext.
        #[n(2)]
        content: Hash,
    },
    /// An MLS commit of a conversation; the first one creates it. At most one per (thread, epoch).
    #[n(1)]
    Commit {
        /// The epoch that it ends; 0 creates the conversation.
        #[n(0)]
        epoch: Epoch,
        /// Digest of the envelope (the MLS commit as PrivateMessage).
        #[n(1)]
        envelope: Hash,
        /// Digest of the Welcome, when members join.
        #[n(2)]
        welcome: Option<Hash>,
        /// Digest of the encrypted ratchet tree, when members join.
        #[n(3)]
        tree: Option<Hash>,
        /// Labelled hash of the new epoch's `epoch_authenticator` (RFC 9420 section 8.7). Members check it.
        #[n(4)]
        authenticator: Hash,
        /// Members who join, ascending, without repeats.
        #[n(5)]
        added: Vec<Member>,
        /// Members who leave, ascending, without repeats.
        #[n(6)]
        removed: Vec<Member>,
    },
    /// Creates an account: the first entry of the account's thread, signed by an enroller.
    #[n(2)]
    Invite {
        /// The account; the thread's id is derived from it.
        #[n(0)]
        account: AccountId,
        /// Labelled hash of a random salt and the name.
        #[n(1)]
        name: Hash,
        /// Hash of the invitation's public key; its seed goes to the user out of band.
        #[n(2)]
        key: Hash,
        /// Last ledger time at which it may be used.
        #[n(3)]
        expires_at: Timestamp,
    },
    /// Adds a device to an account: signed by the invitation (first device) or by an active device of the account.
    /// A second signature, by the new device's identity key over the same bytes, proves possession and
    /// cross-certifies the other two keys.
    #[n(3)]
    DeviceAdd {
        /// The device; derived from the identity key.
        #[n(0)]
        device: DeviceId,
        /// Hash of the key that signs ledger bodies.
        #[n(1)]
        identity: Hash,
        /// Hash of the MLS signature key.
        #[n(2)]
        mls: Hash,
        /// Hash of the TLS key.
        #[n(3)]
        tls: Hash,
    },
    /// Ends a device of the account. Signed by an active device of the account (itself included) or an enroller.
    #[n(4)]
    DeviceRevoke {
        /// The device.
        #[n(0)]
        device: DeviceId,
        /// Why, as said by the author.
        #[n(1)]
        reason: RevokeReason,
    },
    /// What officers decided about an appliance's keys: an entry of the system thread.
    #[n(5)]
    Decision {
        /// The action; its encoding is the bytes that the officers approved.
        #[n(0)]
        action: Action,
    },
}

/// Why a device was revoked (the names follow RFC 5280 section 5.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum RevokeReason {
    /// Replaced or no longer used.
    #[n(0)]
    CessationOfOperation,
    /// Lost or stolen: assume that its keys are known.
    #[n(1)]
    KeyCompromise,
    /// The person left.
    #[n(2)]
    AffiliationChanged,
}

/// The kinds of [`Payload`], for indexes and reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BodyKind {
    /// [`Payload::Message`]
    Message = 0,
    /// [`Payload::Commit`]
    Commit = 1,
    /// [`Payload::Invite`]
    Invite = 2,
    /// [`Payload::DeviceAdd`]
    DeviceAdd = 3,
    /// [`Payload::DeviceRevoke`]
    DeviceRevoke = 4,
    /// [`Payload::Decision`]
    Decision = 5,
}

impl BodyKind {
    /// The word for it in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Commit => "commit",
            Self::Invite => "invite",
            Self::DeviceAdd => "device-add",
            Self::DeviceRevoke => "device-revoke",
            Self::Decision => "decision",
        }
    }
}

impl Payload {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> BodyKind {
        match self {
            Self::Message { .. } => BodyKind::Message,
            Self::Commit { .. } => BodyKind::Commit,
            Self::Invite { .. } => BodyKind::Invite,
            Self::DeviceAdd { .. } => BodyKind::DeviceAdd,
            Self::DeviceRevoke { .. } => BodyKind::DeviceRevoke,
            Self::Decision { .. } => BodyKind::Decision,
        }
    }
}

/// What an author signs (as COSE_Sign1 payload, RFC 9052).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Body {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The suite of the signature.
    #[n(1)]
    pub suite: SuiteId,
    /// Hash of the genesis: a body is valid in one network only.
    #[n(2)]
    pub genesis: Hash,
    /// The thread that it extends.
    #[n(3)]
    pub thread: ThreadId,
    /// The author.
    #[n(4)]
    pub author: Author,
    /// Counts the author's bodies in this thread: 0, 1, 2, … without gaps.
    #[n(5)]
    pub counter: u64,
    /// Random; a retry keeps it.
    #[n(6)]
    pub message_id: MessageId,
    /// The author's clock.
    #[n(7)]
    pub sent_at: Timestamp,
    /// The thread's head that the author had verified, if any.
    #[n(8)]
    pub last_seen: Option<Head>,
    /// What it says.
    #[n(9)]
    pub payload: Payload,
}

impl Body {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// Officers sign the action alone. So nothing else in their body is left to whoever hands it in.
    fn check_decision(&self, action: &Action) -> Result<(), &'static str> {
        if action.version != Action::VERSION {
            return Err("its action has a version that this program does not know");
        }
        if action.genesis != self.genesis {
            return Err("its action is for another network");
        }
        if self.sent_at != Timestamp(0) || self.last_seen.is_some() {
            return Err("officers say neither a time nor a head that they saw");
        }
        action.check()
    }
}

/// Where the sequencer put an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct EntryPosition {
    /// Its place in the thread.
    #[n(0)]
    pub seq: Seq,
    /// Hash of the entry before it; [`Hash::ZERO`] for the first.
    #[n(1)]
    pub prev: Hash,
    /// Ledger time: the validators' clock, monotone; equal to the header's.
    #[n(2)]
    pub time: Timestamp,
}

fn strictly_ascending(members: &[Member]) -> bool {
    members.windows(2).all(|pair| pair[0] < pair[1])
}

impl Canonical for Body {
    const WHAT: &'static str = "signed body";
    const BYTES_MAX: usize = limits::BODY_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        let wanted = match &self.payload {
            Payload::Message { .. } | Payload::Commit { .. } => ThreadKind::Conversation,
            Payload::Invite { .. } | Payload::DeviceAdd { .. } | Payload::DeviceRevoke { .. } => {
                ThreadKind::Account
            }
            Payload::Decision { .. } => ThreadKind::System,
        };
        if self.thread.kind() != Some(wanted) {
            return Err("this kind does not belong into this thread");
        }
        let author_fits = match (&self.payload, &self.author) {
            (Payload::Invite { .. }, author) => matches!(author, Author::Enroller(_)),
            (Payload::DeviceAdd { .. }, author) => {
                matches!(author, Author::Device(_) | Author::Invitation(_))
            }
            (Payload::DeviceRevoke { .. }, author) => {
                matches!(author, Author::Device(_) | Author::Enroller(_))
            }
            (Payload::Message { .. } | Payload::Commit { .. }, author) => matches!(author, Author::Device(_)),
            (Payload::Decision { .. }, author) => matches!(author, Author::Officers),
        };
        if !author_fits {
            return Err("this author may not sign this kind");
        }
        if let Payload::Decision { action } = &self.payload {
            self.check_decision(action)?;
        }
        if let Payload::Commit { welcome, tree, added, removed, .. } = &self.payload {
            if added.len() > limits::ROSTER_CHANGE_MAX || removed.len() > limits::ROSTER_CHANGE_MAX {
                return Err("the roster change has too many members");
            }
            if !strictly_ascending(added) || !strictly_ascending(removed) {
                return Err("the roster change is not sorted or repeats a member");
            }
            if added.iter().any(|member| removed.binary_search(member).is_ok()) {
                return Err("the roster change adds and removes the same member");
            }
            if (welcome.is_some(), tree.is_some()) != (!added.is_empty(), !added.is_empty()) {
                return Err("a Welcome and a tree go with added members, and only with them");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApplianceId, Decision, ParseError};

    fn member(n: u8) -> Member {
        Member { account: AccountId([n; 16]), device: DeviceId([n; 16]) }
    }

    fn body(payload: Payload) -> Body {
        let kind = match payload.kind() {
            BodyKind::Message | BodyKind::Commit => ThreadKind::Conversation,
            BodyKind::Decision => ThreadKind::System,
            _ => ThreadKind::Account,
        };
        Body {
            version: 1,
            suite: SuiteId::Standard,
            genesis: Hash([1; 48]),
            thread: ThreadId::new(kind, &[2; 31]),
            author: Author::Device(member(3)),
            counter: 4,
            message_id: MessageId([5; 16]),
            sent_at: Timestamp(6),
            last_seen: Some(Head { seq: Seq(7), hash: Hash([8; 48]) }),
            payload,
        }
    }

    fn commit(added: Vec<Member>, removed: Vec<Member>) -> Payload {
        let blob = (!added.is_empty()).then_some(Hash([9; 48]));
        Payload::Commit {
            epoch: Epoch(1),
            envelope: Hash([1; 48]),
            welcome: blob,
            tree: blob,
            authenticator: Hash([2; 48]),
            added,
            removed,
        }
    }

    #[test]
    fn every_kind_round_trips() {
        let message = Payload::Message { epoch: Epoch(1), envelope: Hash([1; 48]), content: Hash([2; 48]) };
        let add = Payload::DeviceAdd {
            device: DeviceId([1; 16]),
            identity: Hash([2; 48]),
            mls: Hash([3; 48]),
            tls: Hash([4; 48]),
        };
        let revoke = Payload::DeviceRevoke { device: DeviceId([1; 16]), reason: RevokeReason::KeyCompromise };
        for payload in [message, commit(vec![member(1), member(2)], vec![member(3)]), add, revoke] {
            let body = body(payload);
            assert_eq!(Body::parse(&body.to_bytes()), Ok(body));
        }
    }

    fn decision() -> Body {
        let action = Action {
            version: 1,
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            sequence: 3,
            expires_at: Timestamp(4),
            decision: Decision::RotateRoot,
        };
        let author = Author::Officers;
        Body { author, sent_at: Timestamp(0), last_seen: None, ..body(Payload::Decision { action }) }
    }

    #[test]
    fn nothing_in_an_officers_body_is_left_to_who_hands_it_in() {
        assert_eq!(Body::parse(&decision().to_bytes()), Ok(decision()));
        let changes: [fn(&mut Body); 6] = [
            |body| body.sent_at = Timestamp(1),
            |body| body.last_seen = Some(Head { seq: Seq(0), hash: Hash::ZERO }),
            |body| body.genesis = Hash([2; 48]),
            |body| body.author = Author::Device(member(1)),
            |body| body.thread = ThreadId::new(ThreadKind::Account, &[2; 31]),
            |body| match &mut body.payload {
                Payload::Decision { action } => action.version = 2,
                _ => unreachable!("a decision"),
            },
        ];
        for change in changes {
            let mut body = decision();
            change(&mut body);
            assert!(matches!(Body::parse(&body.to_bytes()), Err(ParseError::Invalid { .. })), "{body:?}");
        }
    }

    #[test]
    fn a_roster_change_is_sorted_and_consistent() {
        for (added, removed) in [
            (vec![member(2), member(1)], vec![]),
            (vec![member(1), member(1)], vec![]),
            (vec![member(1)], vec![member(1)]),
        ] {
            let parsed = Body::parse(&body(commit(added, removed)).to_bytes());
            assert!(matches!(parsed, Err(ParseError::Invalid { .. })), "{parsed:?}");
        }
    }

    #[test]
    fn an_unknown_suite_and_version_are_named() {
        let mut bytes = body(commit(vec![], vec![])).to_bytes();
        assert_eq!(bytes[2], 1, "the suite follows the version");
        bytes[2] = 9;
        assert!(matches!(Body::parse(&bytes), Err(ParseError::UnknownSuite { suite, .. }) if suite.0 == 9));
        bytes[1] = 7;
        assert!(matches!(Body::parse(&bytes), Err(ParseError::UnknownVersion { got: 7, .. })));
    }

    #[test]
    fn kinds_stay_in_their_threads_and_with_their_authors() {
        let mut wrong_thread = body(commit(vec![], vec![]));
        wrong_thread.thread = ThreadId::new(ThreadKind::Account, &[0; 31]);
        assert!(Body::parse(&wrong_thread.to_bytes()).is_err());
        let mut wrong_author = body(commit(vec![], vec![]));
        wrong_author.author = Author::Invitation(AccountId([0; 16]));
        assert!(Body::parse(&wrong_author.to_bytes()).is_err());
    }
}
