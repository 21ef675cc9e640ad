//! What people do about their own access.

use super::sign_in::{factor_kinds, role_names};
use super::{Access, AccessKeys, problems, put};
use crate::problem;
use std::sync::Arc;
use zixt_api::{
    BackupCodes, Bytes64, ErrorCode, Hex, Me, Problem, PskVerifier, Renewed, Secret, SessionInfo,
    SessionList, TotpEnrolment, VaultShareGiven,
};
use zixt_crypto::fill_random;
use zixt_identity::{
    BackupRecord, Caller, CredentialChange, Password, PasswordRecord, Permission, PskRecord, SessionRow,
    TotpCode, TotpRecord, Vault, VaultShareRecord,
};
use zixt_storage::AccessKind;
use zixt_types::{AccountId, Canonical as _, SessionId};

impl Access {
    /// The caller.
    ///
    /// # Errors
    /// Custody or the store cannot be asked.
    pub(crate) async fn me(&self, caller: &Caller, name: Option<String>) -> Result<Me, Problem> {
        let keys = self.keys()?;
        let account = caller.account();
        let credentials = self.credentials(&keys, account).await?;
        let (failures, links) = {
            let inner = self.inner()?;
            let links = inner.accounts.get(&account).map(|record| self.link_infos(record.links()));
            (inner.attempts.failures(inner.attempts.account(account)), links.unwrap_or_default())
        };
        let mut factors = factor_kinds(credentials.enrolled());
        if !self.devices(account).is_empty() {
            factors.push(zixt_api::FactorKind::DeviceKey);
        }
        factors.sort_unstable();
        Ok(Me {
            account: Hex(account),
            name,
            roles: role_names(caller.roles()),
            session: Hex(caller.session()),
            factors,
            backup_codes_left: credentials.backup().map_or(0, BackupRecord::left),
            failures,
            links,
        })
    }

    /// Ends the session that asks.
    ///
    /// # Errors
    /// It is not durable; it has ended all the same.
    pub(crate) async fn sign_out(&self, caller: &Caller) -> Result<(), Problem> {
        {
            let mut inner = self.inner()?;
            if inner.tokens.is_open(caller.session()) {
                return Err(Problem::new(
                    ErrorCode::Forbidden,
                    "a program's token is ended by an administrator",
                ));
            }
            inner.sessions.log_out(caller);
            inner.forget(caller.session());
        }
        self.ended.send_replace(());
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        self.write_pending(&keys, Vec::new()).await
    }

    /// The sessions of an account: the caller's, or, for who may see them, somebody else's.
    ///
    /// # Errors
    /// The caller may not.
    pub(crate) fn sessions(&self, caller: &Caller, account: AccountId) -> Result<SessionList, Problem> {
        let needed =
            if account == caller.account() { Permission::ManageOwnAccess } else { Permission::EndSessions };
        caller.require(needed).map_err(problems::of_forbidden)?;
        let now = self.now();
        let inner = self.inner()?;
        let own = inner.own(caller)?;
        inner.record(account)?;
        let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
        let listed = inner.sessions.list(&actor, &self.policy, account, now);
        let listed = listed.map_err(problems::of_forbidden)?;
        Ok(SessionList { sessions: listed.map(|row| session_info(row, caller.session())).collect() })
    }

    /// Ends one session, and tells how many that were.
    ///
    /// # Errors
    /// There is none, or it is somebody else's and the caller may not.
    pub(crate) async fn end_session(&self, caller: &Caller, session: SessionId) -> Result<u32, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let ended = {
            let now = self.now();
            let mut inner = self.inner()?;
            let own = inner.own(caller)?.clone();
            let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
            actor.require(Permission::ManageOwnAccess).map_err(problems::of_forbidden)?;
            let own_one = inner
                .sessions
                .list(&actor, &self.policy, caller.account(), now)
                .map_err(problems::of_forbidden)?
                .any(|row| row.id() == session);
            // Of others' sessions nobody learns here whether there is one.
            if !own_one {
                return Err(Problem::new(ErrorCode::UnknownSession, "the caller has no such session"));
            }
            inner.forget(session);
            inner.sessions.end(&actor, session).map_err(problems::of_forbidden)?
        };
        self.ended.send_replace(());
        self.write_pending(&keys, Vec::new()).await?;
        Ok(u32::from(ended))
    }

    /// Ends all sessions of an account: all but the caller's of their own, or all of somebody else's.
    ///
    /// # Errors
    /// The caller may not.
    pub(crate) async fn end_sessions(&self, caller: &Caller, account: AccountId) -> Result<u32, Problem> {
        let own = account == caller.account();
        let needed = if own { Permission::ManageOwnAccess } else { Permission::EndSessions };
        caller.require(needed).map_err(problems::of_forbidden)?;
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let ended = {
            let now = self.now();
            let mut inner = self.inner()?;
            let own = inner.own(caller)?.clone();
            inner.record(account)?;
            let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
            let keep = (account == caller.account()).then_some(caller.session());
            actor.require(needed).map_err(problems::of_forbidden)?;
            inner.sessions.revoke_account(account, keep).len()
        };
        self.ended.send_replace(());
        self.write_pending(&keys, Vec::new()).await?;
        Ok(u32::try_from(ended).unwrap_or(u32::MAX))
    }

    /// Sets the caller's password, or removes it.
    ///
    /// # Errors
    /// The password or the caller is refused.
    pub(crate) async fn set_password(
        &self,
        caller: &Caller,
        name: Option<String>,
        password: Option<&Secret>,
    ) -> Result<Renewed, Problem> {
        let record = match password {
            None => None,
            Some(password) => {
                self.require_own(caller)?;
                let password = Password::parse(password.expose())
                    .map_err(|error| Problem::new(ErrorCode::PasswordRefused, error.to_string()))?;
                Some(self.choose(caller.roles(), password, name).await?)
            }
        };
        self.change(caller, CredentialChange::Password(record)).await
    }

    pub(super) async fn choose(
        &self,
        roles: zixt_identity::Roles,
        password: Password,
        name: Option<String>,
    ) -> Result<PasswordRecord, Problem> {
        let turn = self.turn().await?;
        let (policy, blocklist) = (Arc::clone(&self.policy), Arc::clone(&self.blocklist));
        let network = self.view.read().state.genesis.network.clone();
        let chosen = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let words = [network.as_str(), name.as_deref().unwrap_or_default()];
            PasswordRecord::choose(&policy, roles, &password, &blocklist, &words, &mut fill_random)
        });
        let chosen = chosen.await.map_err(|_| interrupted())?;
        chosen.map_err(|error| problems::of_choice(&error))
    }

    /// Refuses early, before anything slow is done, whoever may not change what they sign in with.
    pub(super) fn require_own(&self, caller: &Caller) -> Result<(), Problem> {
        let now = self.now();
        let inner = self.inner()?;
        let record = inner.own(caller)?;
        let actor = caller.acting(record, now.wall).map_err(problems::of_forbidden)?;
        actor.require(Permission::ManageOwnAccess).map_err(problems::of_forbidden)?;
        actor.require_recent().map_err(problems::of_forbidden)
    }

    /// Begins to enrol an authenticator app. It counts once it has shown a code.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) fn begin_totp(&self, caller: &Caller, name: &str) -> Result<TotpEnrolment, Problem> {
        self.require_own(caller)?;
        let app = TotpRecord::enrol(&self.policy, &mut fill_random)
            .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
        let issuer = format!("Zixt {}", self.view.read().state.genesis.network);
        let uri = app.uri(&issuer, name).into();
        let mut inner = self.inner()?;
        // Nothing outlives its session.
        if !inner.sessions.is_open(caller.session()) {
            return Err(problems::sign_in_needed());
        }
        inner.apps.insert(caller.session(), app);
        Ok(TotpEnrolment { uri })
    }

    /// Takes the first code of the new authenticator app.
    ///
    /// # Errors
    /// The code is wrong, or no app waits for one.
    pub(crate) async fn confirm_totp(&self, caller: &Caller, code: &Secret) -> Result<Renewed, Problem> {
        let code = TotpCode::parse(code.expose())
            .ok_or_else(|| Problem::new(ErrorCode::CodeRefused, "a code has 6 to 8 digits"))?;
        let now = self.now();
        let app = {
            let mut inner = self.inner()?;
            let app = inner.apps.get_mut(&caller.session());
            let app = app.ok_or_else(|| {
                Problem::new(ErrorCode::NotEnrolled, "no authenticator app waits for a code")
            })?;
            app.confirm(&self.policy, code, now.wall)
                .map_err(|error| Problem::new(ErrorCode::CodeRefused, error.to_string()))?;
            app.clone()
        };
        let renewed = self.change(caller, CredentialChange::Totp(Some(app))).await?;
        self.inner()?.apps.remove(&caller.session());
        Ok(renewed)
    }

    /// Removes the authenticator app.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn remove_totp(&self, caller: &Caller) -> Result<Renewed, Problem> {
        self.change(caller, CredentialChange::Totp(None)).await
    }

    /// Makes new backup codes.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn make_backup_codes(&self, caller: &Caller) -> Result<BackupCodes, Problem> {
        self.require_own(caller)?;
        let turn = self.turn().await?;
        let policy = Arc::clone(&self.policy);
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            BackupRecord::generate(&policy, &mut fill_random)
        });
        let made = made.await.map_err(|_| interrupted())?;
        let (record, codes) =
            made.map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
        let Renewed { token, session } = self.change(caller, CredentialChange::Backup(Some(record))).await?;
        let codes = codes.iter().map(|code| code.to_text().into()).collect();
        Ok(BackupCodes { codes, token, session })
    }

    /// Removes the backup codes.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn remove_backup_codes(&self, caller: &Caller) -> Result<Renewed, Problem> {
        self.change(caller, CredentialChange::Backup(None)).await
    }

    /// Sets the pre-shared key's verifier, or removes it.
    ///
    /// # Errors
    /// The caller may not now, or the verifier is none.
    pub(crate) async fn set_psk(
        &self,
        caller: &Caller,
        verifier: Option<PskVerifier>,
    ) -> Result<Renewed, Problem> {
        let record = match verifier {
            None => None,
            Some(PskVerifier { id, verifier }) => {
                let bytes = verifier32(&verifier)?;
                Some(PskRecord::from_parts(id.0, &bytes))
            }
        };
        self.change(caller, CredentialChange::Psk(record)).await
    }

    /// One change of what the caller signs in with. All their sessions end; the one that asked goes on under a new token.
    pub(super) async fn change(&self, caller: &Caller, change: CredentialChange) -> Result<Renewed, Problem> {
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let account = caller.account();
        let mut credentials = self.credentials(&keys, account).await?;
        let now = self.now();
        let changed = {
            let inner = self.inner()?;
            let record = inner.own(caller)?;
            let actor = caller.acting(record, now.wall).map_err(problems::of_forbidden)?;
            record.change_credentials(&actor, &mut credentials, change).map_err(problems::of_change)?
        };
        let rows = vec![
            self.credentials_row(&keys, account, &credentials)?,
            super::account_row(&keys, &changed.record),
        ];
        self.renewed(&keys, caller, &changed.record, rows).await
    }

    /// Stores a change of the caller's own account that ends sessions: all but the one that asked, which goes on under a new
    /// token. Under [`Self::writing`].
    pub(super) async fn renewed(
        &self,
        keys: &AccessKeys,
        caller: &Caller,
        record: &zixt_identity::AccountRecord,
        rows: Vec<zixt_storage::AccessChange>,
    ) -> Result<Renewed, Problem> {
        let account = caller.account();
        self.write(&rows).await?;
        let rotated = {
            let mut inner = self.inner()?;
            inner.accounts.insert(account, record.clone());
            let rotated = inner.sessions.rotate(caller, record, &mut fill_random);
            let keep = rotated.as_ref().ok().map(|(_, id)| *id);
            for session in inner.sessions.revoke_account(account, keep) {
                inner.forget(session);
            }
            rotated
        };
        self.ended.send_replace(());
        self.write_pending(keys, Vec::new()).await?;
        let (token, session) = rotated.map_err(problems::of_rotation)?;
        Ok(Renewed { token: token.to_text().into(), session: Hex(session) })
    }

    /// Forgives the failed attempts at an account: the caller's own, or, for who may, somebody else's.
    ///
    /// # Errors
    /// The caller may not.
    pub(crate) async fn lift(&self, caller: &Caller, account: AccountId) -> Result<(), Problem> {
        let own = account == caller.account();
        let needed = if own { Permission::ManageOwnAccess } else { Permission::LiftLockouts };
        caller.require(needed).map_err(problems::of_forbidden)?;
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        {
            let now = self.now();
            let mut inner = self.inner()?;
            let own = inner.own(caller)?.clone();
            inner.record(account)?;
            let actor = caller.acting(&own, now.wall).map_err(problems::of_forbidden)?;
            inner.attempts.lift(&actor, account).map_err(problems::of_forbidden)?;
        }
        self.write_pending(&keys, Vec::new()).await
    }

    /// The caller's vault.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn vault(&self, caller: &Caller) -> Result<Bytes64, Problem> {
        caller.require(Permission::UseOwnVault).map_err(problems::of_forbidden)?;
        let keys = self.keys()?;
        Ok(Bytes64(self.stored_vault(&keys, caller.account()).await?.ok_or_else(no_vault)?.to_bytes()))
    }

    async fn stored_vault(&self, keys: &AccessKeys, account: AccountId) -> Result<Option<Vault>, Problem> {
        let row = self.store.access(AccessKind::Vault, account.as_bytes()).await;
        let Some(sealed) = row.map_err(|error| problem::of_store(&error))? else { return Ok(None) };
        let damaged = || Problem::new(ErrorCode::StoreFailed, "the stored vault does not authenticate");
        let bytes = keys.open(AccessKind::Vault, account.as_bytes(), &sealed).map_err(|_| damaged())?;
        Vault::parse(&bytes).map(Some).map_err(|_| damaged())
    }

    /// Replaces the caller's vault by the next generation of it, or makes the first.
    ///
    /// # Errors
    /// It is no vault of the caller's, or not the next one.
    pub(crate) async fn put_vault(&self, caller: &Caller, vault: &Bytes64) -> Result<(), Problem> {
        caller.require(Permission::UseOwnVault).map_err(problems::of_forbidden)?;
        let account = caller.account();
        let vault = Vault::parse(&vault.0)
            .map_err(|error| Problem::new(ErrorCode::MalformedRequest, error.to_string()))?;
        if vault.account() != account {
            return Err(Problem::new(ErrorCode::Forbidden, "the vault is another account's"));
        }
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        {
            let now = self.now();
            let inner = self.inner()?;
            let actor = caller.acting(inner.own(caller)?, now.wall).map_err(problems::of_forbidden)?;
            actor.require(Permission::UseOwnVault).map_err(problems::of_forbidden)?;
        }
        let before = self.stored_vault(&keys, account).await?.map_or(0, |vault| vault.generation());
        if vault.generation() != before.saturating_add(1) {
            let detail = format!("the vault here has generation {before}, the next one has {}", before + 1);
            return Err(Problem::new(ErrorCode::VaultStale, detail));
        }
        let sealed = keys.seal(AccessKind::Vault, account.as_bytes(), &vault.to_bytes());
        let sealed = sealed.map_err(|error| Problem::new(ErrorCode::StoreFailed, error.to_string()))?;
        self.write(&[put(AccessKind::Vault, account.as_bytes(), sealed)]).await
    }

    /// Gives the caller the appliance's share of their vault's key. That it was given is durable before it is sent.
    ///
    /// # Errors
    /// The caller may not, or had it too often.
    pub(crate) async fn vault_share(&self, caller: &Caller) -> Result<VaultShareGiven, Problem> {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let keys = self.keys()?;
        let _alone = self.writing.lock().await;
        let (account, now) = (caller.account(), self.now());
        let failed = |why: String| Problem::new(ErrorCode::StoreFailed, why);
        let row = self.store.access(AccessKind::VaultShare, account.as_bytes()).await;
        let mut record = match row.map_err(|error| problem::of_store(&error))? {
            Some(sealed) => {
                let bytes = keys
                    .open(AccessKind::VaultShare, account.as_bytes(), &sealed)
                    .map_err(|error| failed(error.to_string()))?;
                VaultShareRecord::parse(&bytes).map_err(|error| failed(error.to_string()))?
            }
            None => VaultShareRecord::generate(account, now.wall, &mut fill_random)
                .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?,
        };
        let share = {
            let inner = self.inner()?;
            let own = inner.own(caller)?;
            let actor = caller.acting(own, now.wall).map_err(problems::of_forbidden)?;
            record.give(&actor, now.wall).map_err(problems::of_share)?
        };
        let sealed = keys.seal(AccessKind::VaultShare, account.as_bytes(), &record.danger_to_bytes());
        let sealed = sealed.map_err(|error| failed(error.to_string()))?;
        self.write(&[put(AccessKind::VaultShare, account.as_bytes(), sealed)]).await?;
        let text = zeroize::Zeroizing::new(BASE64_STANDARD.encode(share.as_bytes()));
        Ok(VaultShareGiven { share: text.into() })
    }
}

fn no_vault() -> Problem {
    Problem::new(ErrorCode::UnknownVault, "the account keeps no vault here")
}

fn interrupted() -> Problem {
    Problem::new(ErrorCode::SignInUnavailable, "the work was interrupted")
}

fn verifier32(text: &Secret) -> Result<zeroize::Zeroizing<[u8; 32]>, Problem> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let malformed = || Problem::new(ErrorCode::MalformedRequest, "a verifier is 32 bytes in base64");
    let bytes = zeroize::Zeroizing::new(BASE64_STANDARD.decode(text.expose()).map_err(|_| malformed())?);
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| malformed())?;
    Ok(zeroize::Zeroizing::new(*bytes))
}

fn session_info(row: &SessionRow, current: SessionId) -> SessionInfo {
    SessionInfo {
        session: Hex(row.id()),
        current: row.id() == current,
        factors: factor_kinds(row.factors()),
        network: row.network().map(|network| network.to_string()),
        signed_in_at: row.signed_in().wall.0,
        used_at: row.used().wall.0,
    }
}
