//! Commits: conversations begin, people join and leave, keys are renewed.

use super::outbox::{Answer, TRIES};
use super::{Engine, with_sources};
use crate::error::ClientError;
use crate::records::{Blob, OutboxRecord, Outgoing, Prepared};
use crate::shared::{now, random};
use crate::store::{Batch, Space};
use crate::trust::TrustError;
use crate::views;
use zixt_api::{ErrorCode, Problem};
use zixt_ledger::Device;
use zixt_messaging::{Change, CommitDraft, Conversation, KeyPackageInfo, TITLE_BYTES_MAX};
use zixt_types::{AccountId, Member, MessageId, ThreadId, ThreadKind};

impl Engine {
    /// Begins a conversation.
    pub async fn start(&mut self, names: &[&str], title: Option<&str>) -> Result<ThreadId, ClientError> {
        if let Some(text) = &self.stopped {
            return Err(ClientError::Blocked(text.clone()));
        }
        let title = title.and_then(views::title_of);
        if let Some(got) = title.as_ref().map(String::len).filter(|got| *got > TITLE_BYTES_MAX) {
            return Err(ClientError::TextTooLong { got, max: TITLE_BYTES_MAX });
        }
        let add = self.accounts_named(names).await?;
        let me = self.core.me().account;
        if add.is_empty() || add == [me] {
            return Err(ClientError::NobodyNamed);
        }
        let thread = ThreadId::new(ThreadKind::Conversation, &random()?);
        let what = Outgoing::Change { start: true, title, add, remove: Vec::new(), rotate: false };
        self.change_now(thread, what).await?;
        self.tell_titles(thread).await?;
        Ok(thread)
    }

    /// Adds people.
    pub async fn add(&mut self, thread: ThreadId, names: &[&str]) -> Result<(), ClientError> {
        let record = self.writable(thread).await?;
        let add = self.accounts_named(names).await?;
        for (account, name) in add.iter().zip(names) {
            if record.state.members.iter().any(|member| member.account == *account) {
                return Err(ClientError::AlreadyIn((*name).to_owned()));
            }
        }
        self.change_now(thread, change(add, Vec::new(), false)).await?;
        self.tell_titles(thread).await
    }

    /// Removes people with all their devices.
    pub async fn remove(&mut self, thread: ThreadId, names: &[&str]) -> Result<(), ClientError> {
        let record = self.writable(thread).await?;
        let remove = self.accounts_named(names).await?;
        for (account, name) in remove.iter().zip(names) {
            if *account == self.core.me().account {
                return Err(ClientError::OwnRemoval);
            }
            if !record.state.members.iter().any(|member| member.account == *account) {
                return Err(ClientError::NotIn((*name).to_owned()));
            }
        }
        self.change_now(thread, change(Vec::new(), remove, false)).await
    }

    /// Renews the keys, and removes devices that the ledger does not know any more.
    pub async fn rotate(&mut self, thread: ThreadId) -> Result<(), ClientError> {
        self.change_now(thread, change(Vec::new(), Vec::new(), true)).await
    }

    async fn accounts_named(&mut self, names: &[&str]) -> Result<Vec<AccountId>, ClientError> {
        if names.is_empty() {
            return Err(ClientError::NobodyNamed);
        }
        let mut accounts = Vec::with_capacity(names.len());
        for name in names {
            let account = self.named(name).await?.account.id;
            if !accounts.contains(&account) {
                accounts.push(account);
            }
        }
        Ok(accounts)
    }

    async fn change_now(&mut self, thread: ThreadId, what: Outgoing) -> Result<(), ClientError> {
        let item = OutboxRecord::new(thread, MessageId(random()?), now(), what);
        let order = self.core.outbox_key();
        self.change(order, Some(item)).await
    }

    /// Makes a change happen. `fresh` is one that is not stored yet: it is stored when its bytes are, so that a change
    /// that could not even be made leaves nothing behind.
    pub(super) async fn change(
        &mut self,
        order: u64,
        mut fresh: Option<OutboxRecord>,
    ) -> Result<(), ClientError> {
        for _ in 0..TRIES {
            let stored = self.core.outbox_item(order).await?;
            // Gone: the entry that came meanwhile was this change.
            let Some(mut item) = stored.or_else(|| fresh.take()) else { return Ok(()) };
            let thread = item.thread;
            let prepared = match item.prepared.clone() {
                Some(prepared) => prepared,
                None => match self.prepare_change(order, item.clone()).await? {
                    Some(prepared) => prepared,
                    None => return self.drop_change(order).await,
                },
            };
            item.prepared = Some(prepared.clone());
            let problem = match self.submit(thread, &prepared).await? {
                Answer::Recorded => return Ok(()),
                Answer::Refused(problem) => problem,
            };
            match problem.code {
                ErrorCode::StaleEpoch
                | ErrorCode::CounterGap
                | ErrorCode::CounterReplayed
                | ErrorCode::AlreadyAMember
                | ErrorCode::RemovedNobody
                | ErrorCode::OtherHistory => {
                    self.learn(order, thread, &problem).await?;
                    let voided = match self.core.outbox_item(order).await? {
                        None => return Ok(()),
                        Some(item) => item.prepared.is_none(),
                    };
                    if !voided {
                        // Refused although nothing stood in the way: it will never be taken as it is.
                        self.abandon(order, &item, None).await?;
                    }
                }
                ErrorCode::NotAMember => {
                    self.learn_of_removal(order, thread, &problem).await?;
                    self.abandon(order, &item, Some(&problem)).await?;
                    return Err(ClientError::Removed);
                }
                code if !code.is_final() => return Err((*problem).into()),
                _ => {
                    self.abandon(order, &item, Some(&problem)).await?;
                    return Err((*problem).into());
                }
            }
        }
        Err(ClientError::Moving)
    }

    /// Drafts the commit against the conversation as it is now and stores it. `None`: nothing is left to do.
    async fn prepare_change(
        &mut self,
        order: u64,
        mut item: OutboxRecord,
    ) -> Result<Option<Prepared>, ClientError> {
        let thread = item.thread;
        let Outgoing::Change { start, add, remove, rotate, .. } = &item.what else { return Ok(None) };
        let (mut conversation, counter, head) = if *start {
            let conversation = self
                .core
                .device
                .create(thread, now())
                .map_err(|error| ClientError::Messaging(with_sources(&error)))?;
            (conversation, 0, None)
        } else {
            let record = self.writable(thread).await?;
            self.refresh_members(&record.state.members).await?;
            (self.conversation(thread).await?, record.counter, Some(record.head))
        };
        let members = conversation.members();
        let add: Vec<AccountId> = add
            .iter()
            .filter(|account| *start || !members.iter().any(|member| member.account == **account))
            .copied()
            .collect();
        let mut leaving: Vec<Member> =
            members.iter().filter(|member| remove.contains(&member.account)).copied().collect();
        leaving.extend(conversation.stale_members());
        leaving.sort_unstable();
        leaving.dedup();
        leaving.retain(|member| *member != self.core.me());
        if add.is_empty() && leaving.is_empty() && !rotate {
            self.put_back(conversation);
            return Ok(None);
        }
        let packages = self.claim(&add, *start).await?;
        let draft = match conversation.commit(&Change { add: packages, remove: leaving }, now()) {
            Ok(draft) => draft,
            Err(error) => {
                if !*start {
                    self.put_back(conversation);
                }
                return Err(ClientError::Messaging(with_sources(&error)));
            }
        };
        let CommitDraft { envelope, welcome, tree, payload, state } = draft;
        let (body, signature) = self.core.sign(thread, item.id, (counter, now(), head), payload)?;
        let attachments = [Some(envelope), welcome, tree].into_iter().flatten().map(Blob).collect();
        let prepared = Prepared { body, signature, possession: None, attachments, disclosure: None };
        item.prepared = Some(prepared.clone());
        let mut batch = Batch::new();
        self.core.put_state(&mut batch, thread, state);
        self.core.put_outbox(&mut batch, order, &item);
        self.commit(batch, Vec::new()).await?;
        self.put_back(conversation);
        Ok(Some(prepared))
    }

    /// Key packages of every device of these accounts, each checked against the ledger.
    ///
    /// One that nobody asked for, or that is another's than the ledger says, is a lie and raises an alarm: see
    /// [`mismatch`]. Any other that cannot be used (not a package, expired, its signature not good) is its device's
    /// fault as likely as not: the appliance reads no more of a package than whose key signs it, and giving out a broken one wins it no
    /// more than giving out none, which nobody can prove. Such a device is left out, as if it had published nothing. So
    /// is one that was revoked a moment ago.
    async fn claim(&mut self, accounts: &[AccountId], start: bool) -> Result<Vec<Vec<u8>>, ClientError> {
        let me = self.core.me();
        let mut wanted = accounts.to_vec();
        // This account's other devices take part from the start.
        let own = self.account(me.account).await?;
        if start && own.account.active_devices().count() > 1 && !wanted.contains(&me.account) {
            wanted.push(me.account);
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        // A change may have waited long: packages are judged by what their devices are now.
        self.refresh_accounts(wanted.clone()).await?;
        let claimed = self.core.api.claim_key_packages(&wanted).await?;
        let mut packages = Vec::new();
        let mut reached = Vec::new();
        let mut given: Vec<Member> = Vec::new();
        for package in claimed.key_packages {
            let member = Member { account: package.member.account.0, device: package.member.device.0 };
            if member == me {
                continue;
            }
            // The appliance alone says which packages are the answer.
            let false_answer = |reason: &str| TrustError::KeyPackage { member, reason: reason.to_owned() };
            if !wanted.contains(&member.account) {
                return Err(false_answer("nobody asked for it").into());
            }
            if given.contains(&member) {
                return Err(false_answer("it is the second one for the same device").into());
            }
            given.push(member);
            let record = self.account_of(&member).await?;
            let device = record.account.device(member.device);
            if let Some(reason) = mismatch(&package.key_package.0, &member, device) {
                return Err(TrustError::KeyPackage { member, reason }.into());
            }
            match self.core.device.check_key_package(&package.key_package.0, &member, now()) {
                Ok(_) => {
                    reached.push(member.account);
                    packages.push(package.key_package.0);
                }
                Err(error) => log::warn!("key package of {}: {}", member.device, with_sources(&error)),
            }
        }
        for account in accounts {
            if !reached.contains(account) {
                let record = self.account(*account).await?;
                let name = record.name.map_or_else(|| account.to_string(), |(name, _)| name);
                return Err(ClientError::NoKeys(name));
            }
        }
        Ok(packages)
    }

    async fn drop_change(&mut self, order: u64) -> Result<(), ClientError> {
        let mut batch = Batch::new();
        batch.delete(Space::Outbox, order.to_be_bytes());
        self.commit(batch, Vec::new()).await
    }

    /// Drops a commit that the ledger will not take. It is to be made anew, or was refused for good; then its body stays,
    /// so that it is known again if it comes to be recorded.
    async fn abandon(
        &mut self,
        order: u64,
        item: &OutboxRecord,
        refused: Option<&Problem>,
    ) -> Result<(), ClientError> {
        let mut batch = Batch::new();
        let start = matches!(item.what, Outgoing::Change { start: true, .. });
        let mut kept: Option<Conversation> = None;
        if start {
            self.conversations.remove(&item.thread);
            self.core.erase_state(&mut batch, item.thread);
        } else if self.core.state(item.thread).await?.is_some() {
            let mut conversation = self.conversation(item.thread).await?;
            if conversation.pending_commit().is_some() {
                let state = conversation
                    .abandon_commit()
                    .map_err(|error| ClientError::Messaging(with_sources(&error)))?;
                self.core.put_state(&mut batch, item.thread, state);
            }
            kept = Some(conversation);
        }
        let mut item = item.clone();
        match refused {
            None => item.prepared = None,
            Some(problem) => item.fail(problem.to_string(), Some(problem.code)),
        }
        self.core.put_outbox(&mut batch, order, &item);
        self.commit(batch, Vec::new()).await?;
        if let Some(conversation) = kept {
            self.put_back(conversation);
        }
        Ok(())
    }
}

fn change(add: Vec<AccountId>, remove: Vec<AccountId>, rotate: bool) -> Outgoing {
    Outgoing::Change { start: false, title: None, add, remove, rotate }
}

/// Why a package that was given out for `member` is not the one of the `device` that the ledger has under this id.
///
/// A package names its device and carries its MLS key. A true device's client puts there what its own entry in the
/// ledger says, and cannot do otherwise. So a package that is whole and names another device, or has another key, was
/// swapped: by the appliance, which has everybody's packages and could thus read what is meant for somebody else, or by
/// the owner of the device, as far as the appliance lets him (it takes packages with the uploader's own key only). Nobody
/// can tell which of the two, but it is never an accident.
///
/// A package that cannot even be read says nothing about whose it is. One of another suite cannot have the device's key:
/// it is of no use, whoever made it.
fn mismatch(bytes: &[u8], member: &Member, device: Option<&Device>) -> Option<String> {
    let Some(device) = device else { return Some("the ledger has no such device".to_owned()) };
    let info = KeyPackageInfo::parse(bytes).ok()?;
    if info.member != *member {
        let Member { account, device } = info.member;
        return Some(format!("it is the one of device {device} of account {account}"));
    }
    (info.suite == device.keys.suite && info.key != device.keys.mls)
        .then(|| "it has another key than the ledger has for this device".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Directory;
    use std::sync::Arc;
    use zixt_crypto::secret::AeadKey;
    use zixt_crypto::{Backend as _, SigningSeed, digest};
    use zixt_crypto_fast::AwsLc;
    use zixt_ledger::DeviceKeys;
    use zixt_messaging::KeyPackageUse;
    use zixt_types::{DeviceId, Hash, SuiteId, Timestamp};

    const BOB: Member = Member { account: AccountId([1; 16]), device: DeviceId([2; 16]) };
    const CAY: Member = Member { account: AccountId([3; 16]), device: DeviceId([4; 16]) };

    /// What a device published, and the hash of its MLS key.
    fn package(member: Member, seed: u8, life_ms: u64) -> (Vec<u8>, Hash) {
        let key = AwsLc.signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[seed; 32])).unwrap();
        let hash = digest::key_hash(SuiteId::Standard, key.public_key());
        let device = zixt_messaging::Device::new(
            Arc::new(AwsLc),
            member,
            Arc::from(key),
            Arc::new(Directory::default()),
            AeadKey::from_bytes(&[9; 32]),
        );
        let made = device.generate_key_package(KeyPackageUse::OneTime, Timestamp(1_000_000_000), life_ms);
        (made.unwrap().public, hash)
    }

    fn in_ledger(member: Member, mls: Hash, suite: SuiteId) -> Device {
        let keys = DeviceKeys { suite, identity: Hash([1; 48]), mls, tls: Hash([3; 48]) };
        Device { id: member.device, keys, added_at: Timestamp(1), revoked: None }
    }

    #[test]
    fn a_swapped_package_is_told_from_one_that_its_device_made_badly() {
        let (bytes, key) = package(BOB, 1, 60_000);
        let bob = in_ledger(BOB, key, SuiteId::Standard);
        // Good, or only expired: whether it can be used is not asked here.
        assert_eq!(mismatch(&bytes, &BOB, Some(&bob)), None);
        // Nobody's word about whose it is.
        assert_eq!(mismatch(b"no package", &BOB, Some(&bob)), None);
        assert_eq!(mismatch(&bytes[..bytes.len() / 2], &BOB, Some(&bob)), None);
        let cnsa = in_ledger(BOB, Hash([7; 48]), SuiteId::Cnsa);
        assert_eq!(mismatch(&bytes, &BOB, Some(&cnsa)), None);

        let reason = |bytes: &[u8], device| mismatch(bytes, &BOB, device).unwrap();
        assert!(reason(&package(CAY, 2, 60_000).0, Some(&bob)).contains(&CAY.device.to_string()));
        // Made by somebody who can sign in Bob's name only for himself.
        assert!(reason(&package(BOB, 3, 60_000).0, Some(&bob)).contains("another key"));
        assert!(reason(&bytes, None).contains("no such device"));
    }

    #[test]
    fn a_false_key_package_stops_nothing_but_the_change() {
        let fault = TrustError::KeyPackage { member: BOB, reason: "x".to_owned() };
        assert_eq!((fault.code(), fault.stops_its_conversation()), ("key-package", false));
        assert!(!fault.is_ledger_wide() && TrustError::Receipt.stops_its_conversation());
    }
}
