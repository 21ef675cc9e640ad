//! What administrators and officers do about other people's accounts.

use super::sign_in::{role_names, roles_of};
use super::{Access, RECOVERIES_MAX, Undone, problems, put, remove};
use zixt_api::{
    AccountInfo, AccountStatus, ErrorCode, Hex, NewRoles, Problem, RecoveryCode, RecoveryInfo, RecoveryList,
    Secret,
};
use zixt_crypto::fill_random;
use zixt_identity::{
    Accepted, AccountError, AccountRecord, Approved, Authority, Caller, Change, CredentialChange,
    InvitationCode, Network, Now, Password, Permission, Population, Recovery, RecoveryError, Roles, Status,
};
use zixt_storage::AccessKind;
use zixt_types::{AccountId, RecoveryId, RevokeReason, Timestamp};

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
            links: self.link_infos(record.links()),
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
        let (roles, needed) = match deed {
            Deed::Roles(new) => {
                let may = caller.require(Permission::ChangeRoles);
                may.or_else(|_| caller.require(Permission::ChangePrivilegedRoles))
                    .map_err(problems::of_forbidden)?;
                (Some(roles_of(&new.roles)?), None)
            }
            Deed::Suspend | Deed::Resume => (None, Some(Permission::SuspendAccounts)),
            Deed::Offboard => (None, Some(Permission::OffboardAccounts)),
        };
        // Before anything is said about an account, also whether there is one.
        needed.map_or(Ok(()), |needed| caller.require(needed)).map_err(problems::of_forbidden)?;
        self.transition(caller, account, |record, by, population, now| match (deed, roles) {
            // A program lets in again whom it holds, and nobody whom people or a directory do.
            (Deed::Resume, _) if caller.is_program() && !is_held_by(record, caller.account()) => {
                Err(AccountError::SuspendedByOthers)
            }
            (Deed::Roles(_), Some(roles)) => record.change_roles(by, roles, population),
            (Deed::Suspend, _) => record.suspend(by, population, now.wall),
            (Deed::Resume, _) => record.resume(by),
            (Deed::Offboard, _) => record.offboard(by, population, now.wall),
            (Deed::Roles(_), None) => unreachable!("roles were read above"),
        })
        .await?;
        self.account_info(account)
    }

    pub(super) async fn transition(
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
            let own = inner.own(caller)?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            let record = inner.record(account)?;
            change(record, &Authority::Caller(actor), inner.population(), now)
        };
        self.carry_out(&keys, changed.map_err(problems::of_account)?, Vec::new()).await
    }

    /// Gives an account the roles that officers decided. What cannot be is told, and does not keep later decisions back. Done
    /// again, it changes nothing.
    ///
    /// # Errors
    /// Custody is locked, or the store failed.
    pub(crate) async fn carry_out_decision(&self, undone: &Undone) -> Result<Result<(), String>, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let Undone { account, roles, decision, .. } = undone;
        let changed = {
            let inner = self.inner()?;
            match (Roles::new(roles), inner.accounts.get(account)) {
                (Err(error), _) => Err(error.to_string()),
                (_, None) => Err("there is no such account".to_owned()),
                (Ok(roles), Some(record)) if record.roles() == roles => Ok(None),
                (Ok(roles), Some(record)) => {
                    // The ledger has this very action with the approvals of enough officers.
                    let by = Authority::Ceremony(Approved::danger_of(*decision));
                    record
                        .change_roles(&by, roles, inner.population())
                        .map(Some)
                        .map_err(|error| error.to_string())
                }
            }
        };
        match changed {
            Ok(Some(change)) => {
                log::info!("account {account} has roles {roles:?} by decision {decision}");
                self.carry_out(&keys, change, Vec::new()).await?;
                Ok(Ok(()))
            }
            Ok(None) => Ok(Ok(())),
            Err(why) => {
                log::error!(
                    "decision {decision} about the roles of account {account} is not carried out: {why}"
                );
                Ok(Err(why))
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
        caller.require(Permission::RequestRecovery).map_err(problems::of_forbidden)?;
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let (recovery, replaced) = {
            let inner = self.inner()?;
            let own = inner.own(caller)?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            let record = inner.record(account)?;
            self.check_recovery_helps(record)?;
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

    /// A recovery gives a password and takes everything else. It is of no use to whom a password alone does not let in,
    /// and would leave a door open to whom the invitation into the ledger is still unused.
    fn check_recovery_helps(&self, record: &AccountRecord) -> Result<(), Problem> {
        let refused = |why: &str| Err(Problem::new(ErrorCode::RecoveryRefused, why));
        if !self.policy.takes_password_alone(record.roles()) {
            return refused(
                "a password alone lets nobody in with these roles: officers give the roles to another account",
            );
        }
        let view = self.view.read();
        match view.state.account(record.id()) {
            Some(known) if known.invitation_used => Ok(()),
            _ => refused("the account's invitation was never used: offboard it, and invite the person anew"),
        }
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

    /// Whose recovery waits.
    pub(crate) fn recovery_of(&self, id: RecoveryId) -> Option<AccountId> {
        self.inner().ok()?.recoveries.get(&id).map(Recovery::account)
    }

    /// Approves a recovery: the account waits for its person with the code from now on.
    ///
    /// # Errors
    /// There is none such, or it cannot be approved by this caller or any more.
    pub(crate) async fn approve_recovery(
        &self,
        caller: &Caller,
        id: RecoveryId,
    ) -> Result<RecoveryCode, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let now = self.now();
        let code = InvitationCode::generate(&mut fill_random)
            .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
        let expires_at = Timestamp(now.wall.0.saturating_add(RECOVERY_CODE_MS));
        let approved = {
            let inner = self.inner()?;
            let own = inner.own(caller)?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            actor.require(Permission::ApproveRecovery).map_err(problems::of_forbidden)?;
            let recovery = inner.recoveries.get(&id).cloned();
            let recovery =
                recovery.ok_or_else(|| Problem::new(ErrorCode::UnknownRecovery, "no such request waits"))?;
            let requester = inner.record(recovery.requested_by())?;
            let record = inner.record(recovery.account())?;
            recovery.approve(&actor, requester, record, &code, now, expires_at)
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
        Ok(RecoveryCode { code: code.to_text().into(), expires_at: expires_at.0 })
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
        network: Option<Network>,
    ) -> Result<(), Problem> {
        let keys = self.keys()?;
        let password = Password::parse(password.expose())
            .map_err(|error| Problem::new(ErrorCode::PasswordRefused, error.to_string()))?;
        let Some(code) = InvitationCode::parse(code.expose()) else { return Err(problems::refused()) };
        let admission = {
            let mut inner = self.inner()?;
            let now = self.now();
            let origin = zixt_identity::Origin { network, held: None };
            let admitted = inner.attempts.admit_key(&self.policy.attempts, &origin, now.wall);
            admitted.map_err(|locked| problems::locked(locked, now.wall))?
        };
        // The code has 160 random bits, so nobody guesses it; it is asked first, so that nobody has the appliance hash.
        let roles = self.check_code(account, &code)?;
        self.inner()?.attempts.passed(admission);
        let chosen = self.choose(roles, password, name).await?;
        let _alone = self.writing.lock().await;
        self.check_code(account, &code)?;
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

impl Access {
    /// Whether a code is the account's, and nothing of before could come in with it. Tells the account's roles.
    fn check_code(&self, account: AccountId, code: &InvitationCode) -> Result<Roles, Problem> {
        let roles = {
            let now = self.now();
            let inner = self.inner()?;
            let record = inner.accounts.get(&account).ok_or_else(problems::refused)?;
            record.accept(code, now).map_err(|_| problems::refused())?;
            record.roles()
        };
        // Once the person is in, nobody could tell which of the devices are of before.
        if !self.devices(account).is_empty() {
            return Err(Problem::new(
                ErrorCode::Busy,
                "the account's devices of before are still being ended",
            ));
        }
        Ok(roles)
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

fn is_held_by(record: &AccountRecord, account: AccountId) -> bool {
    use zixt_identity::By;
    matches!(record.status(), Status::Suspended { by: By::Account(by), .. } if *by == account)
}
