//! A member whose program is not ours: it speaks MLS and signs as it should, and says what it likes.

use super::{Appliance, now};
use std::sync::Arc;
use zixt_crypto::secret::AeadKey;
use zixt_crypto::{Backend as _, SigningKey, SigningSeed, digest};
use zixt_crypto_fast::AwsLc;
use zixt_ledger::RecordedEntry;
use zixt_messaging::{
    CommitEntry, Content, Conversation, Device, KeyDirectory, KeyPackageUse, SealedKeyPackage, SeenHeader,
};
use zixt_types::{Author, DeviceId, Hash, Height, Member, MessageId, Payload, ThreadId, Timestamp};

pub struct Liar {
    appliance: Arc<Appliance>,
    pub member: Member,
    identity: Box<dyn SigningKey>,
    device: Device,
    package: SealedKeyPackage,
    conversation: Option<Conversation>,
}

/// What the ledger says, asked when it is needed.
struct Keys(Arc<Appliance>);

impl KeyDirectory for Keys {
    fn mls_key(&self, member: &Member) -> Option<Hash> {
        let inner = self.0.lock();
        inner.net.state.account(member.account)?.device(member.device).map(|device| device.keys.mls)
    }
}

impl Appliance {
    pub fn enrol_liar(self: &Arc<Self>, name: &str) -> Liar {
        let invitation = self.invite(name);
        let mut inner = self.lock();
        let suite = inner.net.suite;
        let by = AwsLc.signing_key(suite, &SigningSeed::from_bytes(invitation.seed.as_bytes())).unwrap();
        let (identity, mls, tls) = (inner.net.key(), inner.net.key(), inner.net.key());
        let hash = |key: &dyn SigningKey| digest::key_hash(suite, key.public_key());
        let id: DeviceId = digest::device_id(hash(&*identity));
        let payload =
            Payload::DeviceAdd { device: id, identity: hash(&*identity), mls: hash(&*mls), tls: hash(&*tls) };
        let thread = digest::account_thread(invitation.account);
        let body = inner.net.body(thread, Author::Invitation(invitation.account), payload);
        let keys = [identity.public_key(), mls.public_key(), tls.public_key(), by.public_key()];
        let submission = inner.net.sign(&body, &*by, Some(&*identity), &keys);
        inner.record(submission).unwrap();
        drop(inner);

        let member = Member { account: invitation.account, device: id };
        let directory = Arc::new(Keys(Arc::clone(self)));
        let state_key = AeadKey::from_bytes(&[9; 32]);
        let device = Device::new(Arc::new(AwsLc), member, Arc::from(mls), directory, state_key);
        let made = device.generate_key_package(KeyPackageUse::LastResort, Timestamp(now()), 86_400_000);
        let made = made.unwrap();
        self.lock().packages.entry(id).or_default().1 = Some(made.public);
        let (appliance, package) = (Arc::clone(self), made.private);
        Liar { appliance, member, identity, device, package, conversation: None }
    }
}

impl Liar {
    /// Joins by the entry that adds this member.
    pub fn join(&mut self, thread: ThreadId) {
        let adds = |entry: &&RecordedEntry| matches!(&entry.body.payload, Payload::Commit { added, .. } if added.contains(&self.member));
        let inner = self.appliance.lock();
        let entry = inner.net.entries_of(thread).filter(adds).last().unwrap().clone();
        let members = inner.net.state.thread(&thread).unwrap().conversation().unwrap().members.clone();
        drop(inner);
        let commit = CommitEntry::new(&entry.body, &entry.item.position).unwrap();
        let [_, welcome, tree] = entry.item.attachments.as_slice() else { panic!("no invitation") };
        let packages = std::slice::from_ref(&self.package);
        let joined = self.device.join(&welcome.0, &tree.0, packages, &commit, &members).unwrap();
        self.conversation = Some(joined.conversation);
    }

    /// Says something, and that it saw a header.
    pub fn say(&mut self, thread: ThreadId, text: &str, seen: Option<(u64, Hash)>) {
        let mut inner = self.appliance.lock();
        let mut id = [0x11; 16];
        id[..8].copy_from_slice(&inner.net.unique().to_be_bytes());
        drop(inner);
        let id = MessageId(id);
        let seen = seen.map(|(height, hash)| SeenHeader { height: Height(height), hash });
        let content = Content::text(id, text, seen).unwrap();
        let made = self.conversation.as_mut().unwrap().encrypt(&content).unwrap();
        let mut inner = self.appliance.lock();
        let mut body = inner.net.body(thread, Author::Device(self.member), made.payload);
        body.message_id = id;
        let submission = inner.net.sign(&body, &*self.identity, None, &[&made.envelope]);
        inner.record(submission).unwrap();
        drop(inner);
        self.appliance.version.send_modify(|version| *version += 1);
    }
}
