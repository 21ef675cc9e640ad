//! A conversation as the server sees it: who is in it and which epoch it is in. What is said in it, it never sees.

use crate::state::Refusal;
use minicbor::{Decode, Encode};
use zixt_types::{Author, Body, Epoch, Member, Payload, Seq, limits};

/// The roster and epoch of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Conversation {
    /// The current MLS epoch.
    #[n(0)]
    pub epoch: Epoch,
    /// Where the commit stands that began it.
    #[n(1)]
    pub epoch_since: Seq,
    /// The members, ascending.
    #[n(2)]
    pub members: Vec<Member>,
}

impl Conversation {
    /// The conversation after its first entry, a commit of epoch 0 by its first member.
    ///
    /// # Errors
    /// The entry cannot begin a conversation.
    pub fn begun(body: &Body) -> Result<Self, Refusal> {
        let Payload::Commit { epoch: Epoch(0), added, .. } = &body.payload else {
            return Err(Refusal::UnknownThread);
        };
        let Author::Device(author) = body.author else { return Err(Refusal::NotAMember) };
        if added.is_empty() {
            return Err(Refusal::NobodyAdded);
        }
        let mut conversation = Self { epoch: Epoch(0), epoch_since: Seq(0), members: vec![author] };
        conversation.apply(body, Seq(0))?;
        Ok(conversation)
    }

    /// Whether this device is in it.
    #[must_use]
    pub fn has(&self, member: &Member) -> bool {
        self.members.binary_search(member).is_ok()
    }

    /// Applies an entry.
    ///
    /// # Errors
    /// The entry is not valid in this state; the conversation is unchanged.
    pub fn apply(&mut self, body: &Body, seq: Seq) -> Result<(), Refusal> {
        let Author::Device(author) = body.author else { return Err(Refusal::NotAMember) };
        if !self.has(&author) {
            return Err(Refusal::NotAMember);
        }
        match &body.payload {
            Payload::Message { epoch, .. } => self.check_epoch(*epoch),
            Payload::Commit { epoch, added, removed, .. } => {
                self.check_epoch(*epoch)?;
                if let Some(member) = added.iter().find(|member| self.has(member)) {
                    return Err(Refusal::AlreadyAMember(*member));
                }
                if let Some(member) = removed.iter().find(|member| !self.has(member)) {
                    return Err(Refusal::RemovedNobody(*member));
                }
                if removed.contains(&author) {
                    return Err(Refusal::RemovedSelf);
                }
                if self.members.len() + added.len() - removed.len() > limits::MEMBERS_MAX {
                    return Err(Refusal::GroupTooLarge { max: limits::MEMBERS_MAX });
                }
                self.members.retain(|member| removed.binary_search(member).is_err());
                self.members.extend_from_slice(added);
                self.members.sort_unstable();
                self.epoch = self.epoch.next();
                self.epoch_since = seq;
                Ok(())
            }
            _ => Err(Refusal::WrongThread),
        }
    }

    fn check_epoch(&self, got: Epoch) -> Result<(), Refusal> {
        if got == self.epoch {
            Ok(())
        } else {
            Err(Refusal::StaleEpoch { current: self.epoch, got, since: self.epoch_since })
        }
    }
}
