//! An account as its thread tells it: who invited it, which devices it has and had.

use crate::state::Refusal;
use minicbor::{Decode, Encode};
use zixt_crypto::digest;
use zixt_types::{
    AccountId, Author, Body, DeviceId, Hash, Member, Payload, RevokeReason, SuiteId, Timestamp, limits,
};

/// The hashes of a device's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct DeviceKeys {
    /// The suite of all three.
    #[n(0)]
    pub suite: SuiteId,
    /// The key that signs ledger bodies.
    #[n(1)]
    pub identity: Hash,
    /// The MLS signature key.
    #[n(2)]
    pub mls: Hash,
    /// The TLS key.
    #[n(3)]
    pub tls: Hash,
}

/// A device of an account.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Device {
    /// Its id, derived from the identity key.
    #[n(0)]
    pub id: DeviceId,
    /// Its keys.
    #[n(1)]
    pub keys: DeviceKeys,
    /// Ledger time of its addition.
    #[n(2)]
    pub added_at: Timestamp,
    /// Ledger time and reason of its revocation.
    #[n(3)]
    pub revoked: Option<(Timestamp, RevokeReason)>,
}

impl Device {
    /// Whether it may act.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.revoked.is_none()
    }
}

/// An account. Built only by replaying its thread, on the server, on clients and in evidence alike.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Account {
    /// The account.
    #[n(0)]
    pub id: AccountId,
    /// Commitment to its name.
    #[n(1)]
    pub name: Hash,
    /// The enroller who invited it.
    #[n(2)]
    pub enroller: Hash,
    /// Hash of the invitation's key.
    #[n(3)]
    pub invitation: Hash,
    /// Last ledger time for using the invitation.
    #[n(4)]
    pub expires_at: Timestamp,
    /// Whether the invitation was used.
    #[n(5)]
    pub invitation_used: bool,
    /// All devices, past and present, in order of addition.
    #[n(6)]
    pub devices: Vec<Device>,
}

impl Account {
    /// The account after its first entry.
    ///
    /// # Errors
    /// [`Refusal::UnknownAccount`] if the entry is no invitation, [`Refusal::WrongThread`] if it stands in another
    /// account's thread.
    pub fn invited(body: &Body) -> Result<Self, Refusal> {
        match (&body.payload, body.author) {
            (Payload::Invite { account, .. }, _) if body.thread != digest::account_thread(*account) => {
                Err(Refusal::WrongThread)
            }
            (Payload::Invite { account, name, key, expires_at }, Author::Enroller(enroller)) => Ok(Self {
                id: *account,
                name: *name,
                enroller,
                invitation: *key,
                expires_at: *expires_at,
                invitation_used: false,
                devices: Vec::new(),
            }),
            _ => Err(Refusal::UnknownAccount),
        }
    }

    /// The device with this id.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// The devices that may act.
    pub fn active_devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.is_active())
    }

    /// These devices as members of a conversation.
    #[must_use]
    pub fn active_members(&self) -> Vec<Member> {
        self.active_devices().map(|device| Member { account: self.id, device: device.id }).collect()
    }

    /// The key that must have signed a body of this account's thread; also judges whether its author may act.
    ///
    /// # Errors
    /// The author may not extend this thread now.
    pub fn author_key(&self, author: &Author, time: Timestamp) -> Result<Hash, Refusal> {
        match author {
            Author::Enroller(key) => Ok(*key),
            // They decide about appliances, not about people.
            Author::Officers => Err(Refusal::WrongThread),
            Author::Invitation(account) if *account != self.id => Err(Refusal::UnknownAccount),
            Author::Invitation(_) if self.invitation_used => Err(Refusal::InvitationUsed),
            Author::Invitation(_) if time > self.expires_at => {
                Err(Refusal::InvitationExpired { expired_at: self.expires_at })
            }
            Author::Invitation(_) => Ok(self.invitation),
            Author::Device(member) if member.account != self.id => Err(Refusal::UnknownDevice),
            Author::Device(member) => match self.device(member.device) {
                None => Err(Refusal::UnknownDevice),
                Some(device) if device.is_active() => Ok(device.keys.identity),
                Some(_) => Err(Refusal::DeviceRevoked),
            },
        }
    }

    /// Applies an entry that follows the first. The author has been judged by [`Account::author_key`].
    ///
    /// # Errors
    /// The entry is not valid in this state; the account is unchanged.
    pub fn apply(&mut self, body: &Body, time: Timestamp) -> Result<(), Refusal> {
        if body.thread != digest::account_thread(self.id) {
            return Err(Refusal::WrongThread);
        }
        match &body.payload {
            Payload::DeviceAdd { device, identity, mls, tls } => {
                if self.device(*device).is_some() {
                    return Err(Refusal::DeviceExists);
                }
                if self.devices.len() >= limits::DEVICES_EVER_MAX {
                    return Err(Refusal::TooManyDevicesEver { max: limits::DEVICES_EVER_MAX });
                }
                if self.active_devices().count() >= limits::DEVICES_MAX {
                    return Err(Refusal::TooManyDevices { max: limits::DEVICES_MAX });
                }
                if self.devices.iter().any(|known| known.keys.tls == *tls) {
                    return Err(Refusal::TlsKeyInUse);
                }
                if matches!(body.author, Author::Invitation(_)) {
                    self.invitation_used = true;
                }
                let keys = DeviceKeys { suite: body.suite, identity: *identity, mls: *mls, tls: *tls };
                self.devices.push(Device { id: *device, keys, added_at: time, revoked: None });
                Ok(())
            }
            Payload::DeviceRevoke { device, reason } => {
                let device = self
                    .devices
                    .iter_mut()
                    .find(|candidate| candidate.id == *device)
                    .ok_or(Refusal::UnknownDevice)?;
                if !device.is_active() {
                    return Err(Refusal::DeviceRevoked);
                }
                device.revoked = Some((time, *reason));
                Ok(())
            }
            Payload::Invite { .. } => Err(Refusal::AccountExists),
            Payload::Message { .. } | Payload::Commit { .. } | Payload::Decision { .. } => {
                Err(Refusal::WrongThread)
            }
        }
    }
}
