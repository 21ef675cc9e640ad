//! Accounts: looked up, replayed, compared with what was known.

use super::Engine;
use crate::error::ClientError;
use crate::model::ClientEvent;
use crate::records::{self, AccountRecord};
use crate::store::Batch;
use crate::trust::{CheckedAccount, TrustError};
use std::time::Duration;
use tokio::time::Instant;
use zixt_api::ErrorCode;
use zixt_crypto::Keyring;
use zixt_types::{AccountId, DeviceId, Member, Timestamp};

/// What is known of an account counts for so long when something is encrypted to it.
const ACCOUNT_AGE_MAX: Duration = Duration::from_secs(60);

impl Engine {
    /// The account as this device knows it; looked up if it does not.
    pub async fn account(&mut self, account: AccountId) -> Result<AccountRecord, ClientError> {
        match self.core.account(account).await? {
            Some(record) => Ok(record),
            None => self.refresh(account).await,
        }
    }

    /// The account of a device, looked up anew if this device does not know it as active.
    pub async fn account_of(&mut self, member: &Member) -> Result<AccountRecord, ClientError> {
        let record = self.account(member.account).await?;
        if record.account.device(member.device).is_some() {
            return Ok(record);
        }
        self.refresh(member.account).await
    }

    /// Looks an account up, checks everything, and demands that it continues what was known.
    pub async fn refresh(&mut self, account: AccountId) -> Result<AccountRecord, ClientError> {
        let api = self.core.api.clone();
        let view = match api.account(account).await {
            // It was there: no account ever goes away.
            Err(ClientError::Refused(problem))
                if problem.code == ErrorCode::UnknownAccount
                    && self.core.account(account).await?.is_some() =>
            {
                return Err(TrustError::AccountHistory(account).into());
            }
            view => view?,
        };
        let header = self.ledger.accept(&api, &view.proof.certified).await?;
        let checked = self.ledger.account(&api, account, &view, &header).await?;
        self.looked_up.insert(account, Instant::now());
        let known = self.core.account(account).await?;
        let mut changes = Vec::new();
        if let Some(known) = &known {
            let at = usize::try_from(known.head.seq.0).unwrap_or(usize::MAX);
            if checked.chain.get(at) != Some(&known.head.hash) {
                // A proof of an older height is no lie, only late: what is known stays.
                let late = checked.head.seq < known.head.seq
                    && self.ledger.tip().is_some_and(|tip| tip.height() > header.height());
                if late {
                    return Ok(known.clone());
                }
                return Err(TrustError::AccountHistory(account).into());
            }
            changes = differences(known, &checked);
        }
        let strange = self.strange_devices(known.as_ref(), &checked);
        let record = merged(known.as_ref(), checked, &changes);
        let mut batch = Batch::new();
        let mut events = Vec::new();
        if known.as_ref() != Some(&record) {
            self.core.put_account(&mut batch, &record);
            self.core.directory.learn(&record);
        }
        if !changes.is_empty() {
            events.push(ClientEvent::KeyChange {
                account,
                name: record.name.as_ref().map_or_else(|| account.to_string(), |(name, _)| name.clone()),
                was_verified: record.verified.is_some(),
            });
        }
        self.commit(batch, events).await?;
        for device in strange {
            self.alarm(&TrustError::OwnDevice(device), None, None).await?;
        }
        Ok(record)
    }

    /// Looks everybody up in a conversation whom this device has not looked up for [`ACCOUNT_AGE_MAX`], so that
    /// nothing is encrypted to a device that was revoked before that.
    pub(super) async fn refresh_members(&mut self, members: &[Member]) -> Result<(), ClientError> {
        self.refresh_accounts(members.iter().map(|member| member.account).collect()).await
    }

    /// [`Engine::refresh_members`], of accounts.
    pub(super) async fn refresh_accounts(&mut self, mut accounts: Vec<AccountId>) -> Result<(), ClientError> {
        accounts.sort_unstable();
        accounts.dedup();
        for account in accounts {
            if self.looked_up.get(&account).is_none_or(|at| at.elapsed() >= ACCOUNT_AGE_MAX) {
                self.refresh(account).await?;
            }
        }
        Ok(())
    }

    /// Looks everybody up who is in a conversation with this device.
    pub async fn refresh_people(&mut self) -> Result<(), ClientError> {
        let mut people: Vec<AccountId> = vec![self.core.me().account];
        for thread in self.core.threads().await? {
            if !thread.removed {
                people.extend(thread.state.members.iter().map(|member| member.account));
            }
        }
        people.sort_unstable();
        people.dedup();
        for account in people {
            if let Err(error) = self.refresh(account).await {
                match &error {
                    ClientError::Trust(fault) if !fault.is_ledger_wide() => {
                        self.alarm(fault, None, None).await?;
                    }
                    _ => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The account of a name: one that is known, or what the appliance says and the ledger proves.
    pub async fn named(&mut self, name: &str) -> Result<AccountRecord, ClientError> {
        let same = |record: &AccountRecord| {
            record.name.as_ref().is_some_and(|(own, _)| own.to_lowercase() == name.to_lowercase())
        };
        if let Some(known) = self.core.accounts().await?.into_iter().find(|record| same(record)) {
            return self.refresh(known.account.id).await;
        }
        let found = match self.core.api.account_named(name).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => {
                return Err(ClientError::UnknownPerson(name.to_owned()));
            }
            found => found?,
        };
        let record = self.refresh(found.account.0).await?;
        if same(&record) { Ok(record) } else { Err(TrustError::Name(found.account.0).into()) }
    }

    /// Active devices of this account that this device did not add and had not seen.
    fn strange_devices(&self, known: Option<&AccountRecord>, checked: &CheckedAccount) -> Vec<DeviceId> {
        let me = self.core.me();
        if checked.account.id != me.account {
            return Vec::new();
        }
        let seen = |id: DeviceId| known.is_some_and(|known| known.account.device(id).is_some());
        checked
            .account
            .active_devices()
            .map(|device| device.id)
            .filter(|id| *id != me.device && !seen(*id))
            .collect()
    }
}

fn merged(
    known: Option<&AccountRecord>,
    checked: CheckedAccount,
    changes: &[(Timestamp, DeviceId, bool)],
) -> AccountRecord {
    let mut keys = Keyring::default();
    for device in &checked.account.devices {
        if let Some(key) = checked.keys.get(&device.keys.identity) {
            keys.insert(key.suite, &key.key);
        }
    }
    let mut all = known.map(|known| known.changes.clone()).unwrap_or_default();
    all.extend_from_slice(changes);
    AccountRecord {
        version: records::VERSION,
        // A name that was proven once stays proven.
        name: checked.name.or_else(|| known.and_then(|known| known.name.clone())),
        account: checked.account,
        keys,
        head: checked.head,
        changes: all,
        verified: known.and_then(|known| known.verified.clone()),
    }
}

/// Devices that were added or revoked since.
fn differences(known: &AccountRecord, checked: &CheckedAccount) -> Vec<(Timestamp, DeviceId, bool)> {
    let mut changes = Vec::new();
    for device in &checked.account.devices {
        let before = known.account.device(device.id);
        if before.is_none() {
            changes.push((device.added_at, device.id, true));
        }
        if let (Some((at, _)), None) = (device.revoked, before.and_then(|before| before.revoked)) {
            changes.push((at, device.id, false));
        }
    }
    changes
}
