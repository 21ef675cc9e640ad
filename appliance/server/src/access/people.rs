//! What administrators and officers do about other people's accounts.

use super::sign_in::{role_names, roles_of};
use super::{Access, AccessKeys, RECOVERIES_MAX, problems, put, remove};
use zixt_api::{
    AccountInfo, AccountStatus, ErrorCode, Hex, NewRoles, Problem, RecoveryCode, RecoveryInfo, RecoveryList,
    Secret,
};
use zixt_crypto::fill_random;
use zixt_identity::{
    Accepted, AccountError, AccountRecord, Approved, Authority, Caller, Change, CredentialChange,
    InvitationCode, Now, Password, Permission, Population, Recovery, RecoveryError, Roles, Status,
};
use zixt_storage::AccessKind;
use zixt_types::{AccountId, Hash, RecoveryId, RevokeReason, Role, Timestamp};

/// For how long the code of a recovery is good: a person comes for it by hand.
const RECOVERY_CODE_MS: u64 = 3 * 86_400_000;

/// What is done to an account.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Suspend,
    Resume,
    Offboard,
    Roles(NewRoles),
}

impl Access {
    /// Accounts after one, ascending, at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// They have not been read yet.
    pub(crate) fn accounts(
        &self,
        after: Option<AccountId>,
        limit: usize,
    ) -> Result<(Vec<AccountId>, bool), Problem> {
        use std::ops::Bound;
        let inner = self.inner()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut ids: Vec<AccountId> =
            inner.accounts.range((from, Bound::Unbounded)).map(|(id, _)| *id).take(limit + 1).collect();
        let more = ids.len() > limit;
        ids.truncate(limit);
        Ok((ids, more))
    }

    /// An account, without its name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn account_info(&self, account: AccountId) -> Result<AccountInfo, Problem> {
        let devices = self.devices(account).into_iter().map(|device| Hex(device.id)).collect();
        let inner = self.inner()?;
        let record = inner.record(account)?;
        let status = match record.status() {
            Status::Invited { .. } => AccountStatus::Invited,
            Status::Active => AccountStatus::Active,
            Status::Suspended { .. } => AccountStatus::Suspended,
            Status::Offboarded { .. } => AccountStatus::Offboarded,
        };
        Ok(AccountInfo {
            account: Hex(account),
            name: None,
            status,
            roles: role_names(record.roles()),
            epoch: record.epoch(),
            devices,
            sessions: u32::try_from(inner.sessions.count(account)).unwrap_or(u32::MAX),
            failures: inner.attempts.failures(inner.attempts.account(account)),
        })
    }

    /// Does something to an account.
    ///
    /// # Errors
    /// The caller may not, or the account does not stand where it would have to.
    pub(crate) async fn deal(
        &self,
        caller: &Caller,
        account: AccountId,
        deed: &Deed,
    ) -> Result<AccountInfo, Problem> {
        let roles = match deed {
            Deed::Roles(new) => Some(roles_of(&new.roles)?),
            _ => None,
        };
        self.transition(caller, account, |record, by, population, now| match (deed, roles) {
            (Deed::Roles(_), Some(roles)) => record.change_roles(by, roles, population),
            (Deed::Suspend, _) => record.suspend(by, population, now.wall),
            (Deed::Resume, _) => record.resume(by),
            (Deed::Offboard, _) => record.offboard(by, population, now.wall),
            (Deed::Roles(_), None) => unreachable!("roles were read above"),
        })
        .await?;
        self.account_info(account)
    }

    async fn transition(
        &self,
        caller: &Caller,
        account: AccountId,
        change: impl FnOnce(&AccountRecord, &Authority<'_>, Population, Now) -> Result<Change, AccountError>,
    ) -> Result<(), Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let changed = {
            let inner = self.inner()?;
            let own = inner.record(caller.account())?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            let record = inner.record(account)?;
            change(record, &Authority::Caller(actor), inner.population(), now)
        };
        self.carry_out(&keys, changed.map_err(problems::of_account)?, Vec::new()).await
    }

    /// Gives an account the roles that officers decided. What cannot be is said in the log, and does not keep later
    /// decisions back. Under [`Self::writing`].
    pub(super) async fn set_roles_by_ceremony(
        &self,
        keys: &AccessKeys,
        account: AccountId,
        roles: &[Role],
        decided: Hash,
    ) -> Result<(), Problem> {
        let refused = |why: &dyn std::fmt::Display| {
            log::error!("decision {decided} about the roles of account {account} is not carried out: {why}");
        };
        let roles = match Roles::new(roles) {
            Ok(roles) => roles,
            Err(error) => {
                refused(&error);
                return Ok(());
            }
        };
        let changed = {
            let inner = self.inner()?;
            match inner.accounts.get(&account) {
                None => {
                    refused(&"there is no such account");
                    return Ok(());
                }
                Some(record) if record.roles() == roles => return Ok(()),
                Some(record) => {
                    // The ledger has this very action with the approvals of enough officers.
                    let by = Authority::Ceremony(Approved::danger_of(decided));
                    record.change_roles(&by, roles, inner.population())
                }
            }
        };
        match changed {
            Ok(change) => {
                log::info!("account {account} has roles {roles:?} by decision {decided}");
                self.carry_out(keys, change, Vec::new()).await
            }
            Err(error) => {
                refused(&error);
                Ok(())
            }
        }
    }

    /// Accounts whose devices have to end in the ledger, with the reason: of who has left, and of who lost everything.
    /// Derived from what is stored, so that a crash or a locked custody forgets none.
    pub(crate) fn devices_to_revoke(&self) -> Vec<(AccountId, RevokeReason)> {
        let Ok(inner) = self.inner() else { return Vec::new() };
        let ended = inner.accounts.values().filter_map(|record| match record.status() {
            Status::Offboarded { .. } => Some((record.id(), RevokeReason::AffiliationChanged)),
            Status::Invited { recovery: true, .. } => Some((record.id(), RevokeReason::KeyCompromise)),
            _ => None,
        });
        let view = self.view.read();
        ended
            .filter(|(account, _)| {
                view.state.account(*account).is_some_and(|known| known.active_devices().next().is_some())
            })
            .collect()
    }

    /// Asks for the recovery of an account.
    ///
    /// # Errors
    /// The caller may not, or the account cannot be recovered.
    pub(crate) async fn request_recovery(
        &self,
        caller: &Caller,
        account: AccountId,
    ) -> Result<RecoveryInfo, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let (recovery, replaced) = {
            let inner = self.inner()?;
            let own = inner.record(caller.account())?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            let record = inner.record(account)?;
            let recovery =
                Recovery::request(&actor, record, now, &mut fill_random).map_err(problems::of_recovery)?;
            // One of an account waits at a time, and not more than a few of all.
            let mut replaced: Vec<RecoveryId> = inner
                .recoveries
                .values()
                .filter(|other| other.account() == account)
                .map(Recovery::id)
                .collect();
            if replaced.is_empty() && inner.recoveries.len() >= RECOVERIES_MAX {
                replaced
                    .extend(inner.recoveries.values().min_by_key(|one| one.requested_at()).map(Recovery::id));
            }
            (recovery, replaced)
        };
        let info = recovery_info(&recovery);
        let mut rows: Vec<_> =
            replaced.iter().map(|id| remove(AccessKind::Recovery, id.as_bytes())).collect();
        rows.push(put(AccessKind::Recovery, recovery.id().as_bytes(), recovery.seal(&keys.rows)));
        self.write(&rows).await?;
        let mut inner = self.inner()?;
        for id in replaced {
            inner.recoveries.remove(&id);
        }
        inner.recoveries.insert(recovery.id(), recovery);
        Ok(info)
    }

    /// The recoveries that wait.
    ///
    /// # Errors
    /// The caller may not see them.
    pub(crate) fn recoveries(&self, caller: &Caller) -> Result<RecoveryList, Problem> {
        let allowed = caller
            .require(Permission::RequestRecovery)
            .or_else(|_| caller.require(Permission::ApproveRecovery));
        allowed.map_err(problems::of_forbidden)?;
        Ok(RecoveryList { recoveries: self.inner()?.recoveries.values().map(recovery_info).collect() })
    }

    /// Approves a recovery: the account waits for its person with the code from now on.
    ///
    /// # Errors
    /// There is none such, or it cannot be approved by this caller or any more.
    pub(crate) async fn approve_recovery(
        &self,
        caller: &Caller,
        id: RecoveryId,
    ) -> Result<(AccountId, RecoveryCode), Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let code = InvitationCode::generate(&mut fill_random)
            .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
        let expires_at = Timestamp(now.wall.0.saturating_add(RECOVERY_CODE_MS));
        let (account, approved) = {
            let inner = self.inner()?;
            let own = inner.record(caller.account())?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            actor.require(Permission::ApproveRecovery).map_err(problems::of_forbidden)?;
            let recovery = inner.recoveries.get(&id).cloned();
            let recovery =
                recovery.ok_or_else(|| Problem::new(ErrorCode::UnknownRecovery, "no such request waits"))?;
            let account = recovery.account();
            let requester = inner.record(recovery.requested_by())?;
            let record = inner.record(account)?;
            (account, recovery.approve(&actor, requester, record, &code, now, expires_at))
        };
        let change = match approved {
            Ok(change) => change,
            Err(error) => {
                // It can never be approved any more, whoever asks.
                if matches!(error, RecoveryError::Expired | RecoveryError::Changed | RecoveryError::Requester)
                {
                    self.write(&[remove(AccessKind::Recovery, id.as_bytes())]).await?;
                    self.inner()?.recoveries.remove(&id);
                }
                return Err(problems::of_recovery(error));
            }
        };
        self.carry_out(&keys, change, vec![remove(AccessKind::Recovery, id.as_bytes())]).await?;
        self.inner()?.recoveries.remove(&id);
        Ok((account, RecoveryCode { code: code.to_text().into(), expires_at: expires_at.0 }))
    }

    /// A person comes with the code of a recovery and sets a password.
    ///
    /// # Errors
    /// Told like a refused sign-in, whatever is wrong with account or code; or the password is refused.
    pub(crate) async fn accept(
        &self,
        account: AccountId,
        code: &Secret,
        password: &Secret,
        name: Option<String>,
    ) -> Result<(), Problem> {
        let keys = self.keys()?;
        let password = Password::parse(password.expose())
            .map_err(|error| Problem::new(ErrorCode::PasswordRefused, error.to_string()))?;
        let Some(code) = InvitationCode::parse(code.expose()) else { return Err(problems::refused()) };
        // Once the person is in, nobody could tell which of the devices are of before.
        if self.devices_to_revoke().iter().any(|(to_revoke, _)| *to_revoke == account) {
            return Err(Problem::new(
                ErrorCode::Busy,
                "the account's devices of before are still being ended",
            ));
        }
        // The code has 160 random bits, so nobody guesses it; it is asked first, so that nobody has the appliance hash.
        let roles = {
            let now = self.now();
            let inner = self.inner()?;
            let record = inner.accounts.get(&account).ok_or_else(problems::refused)?;
            record.accept(&code, now).map_err(|_| problems::refused())?;
            record.roles()
        };
        let chosen = self.choose(roles, password, name).await?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let accepted = {
            let inner = self.inner()?;
            let record = inner.accounts.get(&account).ok_or_else(problems::refused)?;
            record.accept(&code, now)
        };
        let Accepted { change, enrolment } = accepted.map_err(|_| problems::refused())?;
        let credentials = enrolment.credentials([CredentialChange::Password(Some(chosen))]);
        let credentials = credentials.map_err(problems::of_change)?;
        let row = self.credentials_row(&keys, account, &credentials)?;
        self.carry_out(&keys, change, vec![row]).await
    }
}

fn recovery_info(recovery: &Recovery) -> RecoveryInfo {
    RecoveryInfo {
        recovery: Hex(recovery.id()),
        account: Hex(recovery.account()),
        requested_by: Hex(recovery.requested_by()),
        requested_at: recovery.requested_at().0,
    }
}
