//! What a person does about access: their own sessions and factors, and, as their roles allow, other people's accounts.

use crate::client::Client;
use crate::error::ClientError;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use zeroize::Zeroizing;
use zixt_api::endpoints::{self, fill};
use zixt_api::{
    AccountInfo, AccountPage, BackupCodes, ClockInfo, DirectoryList, DirectoryRelease, Done, ErrorCode, Hex,
    Me, Method, NewClock, NewLink, NewPassword, NewRoles, NewServiceToken, PskVerifier, RecoveryCode,
    RecoveryInfo, RecoveryList, Renewed, RoleName, Secret, ServiceTokenList, ServiceTokenMade, SessionList,
    SessionsEnded, TotpConfirmation, TotpEnrolment,
};
use zixt_crypto::fill_random;
use zixt_identity::Psk;
use zixt_types::{AccountId, Hash, RecoveryId, SessionId, Timestamp};

use crate::connection::{ConnectionError, Factors};

/// What is done to somebody's account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Hold it: its sessions end.
    Suspend,
    /// Let it in again.
    Resume,
    /// End it for good.
    Offboard,
    /// Forgive the failed attempts.
    LiftLockout,
    /// Give it these roles, in the place of those that it has.
    Roles(Vec<RoleName>),
}

impl Client {
    /// Says who gives the further factors that a sign-in may ask for.
    pub fn ask_for_factors(&self, factors: Arc<dyn Factors>) {
        if let Some(sign_in) = self.core().api.sign_in() {
            sign_in.ask(factors);
        }
    }

    /// Who the appliance says that the caller is.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all of these.
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.ask(Method::Get, endpoints::ME.to_owned()).await
    }

    /// The caller's open sessions.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn sessions(&self) -> Result<SessionList, ClientError> {
        self.ask(Method::Get, endpoints::MY_SESSIONS.to_owned()).await
    }

    /// Ends one of the caller's sessions, or all others.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn end_sessions(&self, one: Option<SessionId>) -> Result<u32, ClientError> {
        let path = one.map_or_else(
            || endpoints::MY_SESSIONS.to_owned(),
            |session| fill(endpoints::MY_SESSION, &[&session]),
        );
        let SessionsEnded { ended } = self.ask(Method::Delete, path).await?;
        Ok(ended)
    }

    /// Sets the caller's password, or removes it. All other sessions end.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn set_password(&self, password: Option<Zeroizing<String>>) -> Result<(), ClientError> {
        let path = endpoints::MY_PASSWORD.to_owned();
        let renewed = match password {
            Some(password) => {
                let request = NewPassword { password: password.into() };
                self.change::<Renewed>(Method::Put, path, Some(&request)).await
            }
            None => self.change::<Renewed>(Method::Delete, path, None::<&()>).await,
        };
        self.renew(renewed?.token);
        Ok(())
    }

    /// Begins to enrol an authenticator app: what its QR code says.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn begin_totp(&self) -> Result<Secret, ClientError> {
        let path = endpoints::MY_TOTP.to_owned();
        let TotpEnrolment { uri } = self.change(Method::Post, path, None::<&()>).await?;
        Ok(uri)
    }

    /// Shows the first code of the new authenticator app.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn confirm_totp(&self, code: Zeroizing<String>) -> Result<(), ClientError> {
        let request = TotpConfirmation { code: code.into() };
        // Not asked twice: the app waits in the session that it was begun in.
        let body = encode(&request)?;
        let path = endpoints::MY_TOTP_CONFIRM.to_owned();
        let renewed: Renewed = self.core().api.ask(Method::Post, path, Some(body)).await?;
        self.renew(renewed.token);
        Ok(())
    }

    /// Removes the authenticator app.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn remove_totp(&self) -> Result<(), ClientError> {
        let path = endpoints::MY_TOTP.to_owned();
        let renewed: Renewed = self.change(Method::Delete, path, None::<&()>).await?;
        self.renew(renewed.token);
        Ok(())
    }

    /// Makes new backup codes. Those of before are void.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn make_backup_codes(&self) -> Result<Vec<Secret>, ClientError> {
        let path = endpoints::MY_BACKUP_CODES.to_owned();
        let BackupCodes { codes, token, .. } = self.change(Method::Post, path, None::<&()>).await?;
        self.renew(token);
        Ok(codes)
    }

    /// Makes a pre-shared key and hands its verifier in, or takes it away. The key itself never leaves this device but
    /// by who carries it.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn make_psk(&self) -> Result<Psk, ClientError> {
        let psk = Psk::generate(&mut fill_random).map_err(|error| ClientError::Crypto(error.to_string()))?;
        let record = psk.verifier();
        let verifier = Zeroizing::new(BASE64_STANDARD.encode(record.danger_verifier()));
        let request = PskVerifier { id: Hex(*record.id()), verifier: verifier.into() };
        let path = endpoints::MY_PSK.to_owned();
        let renewed: Renewed = self.change(Method::Put, path, Some(&request)).await?;
        self.renew(renewed.token);
        Ok(psk)
    }

    /// Takes the pre-shared key away.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn remove_psk(&self) -> Result<(), ClientError> {
        let path = endpoints::MY_PSK.to_owned();
        let renewed: Renewed = self.change(Method::Delete, path, None::<&()>).await?;
        self.renew(renewed.token);
        Ok(())
    }

    /// Links the caller to who they are at a directory. All other sessions end.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn link(
        &self,
        directory: String,
        login: String,
        password: Zeroizing<String>,
    ) -> Result<(), ClientError> {
        let request = NewLink { directory, login, password: password.into() };
        let path = endpoints::MY_LINKS.to_owned();
        let renewed: Renewed = self.change(Method::Post, path, Some(&request)).await?;
        self.renew(renewed.token);
        Ok(())
    }

    /// Takes a link of the caller away, by its issuer. All other sessions end.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn unlink(&self, issuer: &str) -> Result<(), ClientError> {
        let path = fill(endpoints::MY_LINK, &[&issuer]);
        let renewed: Renewed = self.change(Method::Delete, path, None::<&()>).await?;
        self.renew(renewed.token);
        Ok(())
    }

    /// Takes a link of somebody away.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn unlink_somebody(&self, account: AccountId, issuer: &str) -> Result<(), ClientError> {
        let Done {} = self.ask(Method::Delete, fill(endpoints::PERSON_LINK, &[&account, &issuer])).await?;
        Ok(())
    }

    /// How the appliance's clocks stand.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn clock(&self) -> Result<ClockInfo, ClientError> {
        self.ask(Method::Get, endpoints::CLOCK.to_owned()).await
    }

    /// Sets the appliance's wall clock, as a security officer. `far` says that a time is meant which is far from all
    /// clocks there.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn set_clock(&self, wall: Timestamp, far: bool) -> Result<ClockInfo, ClientError> {
        let new = NewClock { wall: wall.0, far };
        self.change(Method::Put, endpoints::CLOCK.to_owned(), Some(&new)).await
    }

    /// Makes a token for a program, as an administrator. It is shown once.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn make_token(
        &self,
        account: AccountId,
        new: &NewServiceToken,
    ) -> Result<ServiceTokenMade, ClientError> {
        self.change(Method::Post, fill(endpoints::PERSON_TOKENS, &[&account]), Some(new)).await
    }

    /// The tokens of a program.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn tokens(&self, account: AccountId) -> Result<ServiceTokenList, ClientError> {
        self.ask(Method::Get, fill(endpoints::PERSON_TOKENS, &[&account])).await
    }

    /// Ends a token of a program.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn end_token(&self, account: AccountId, token: SessionId) -> Result<(), ClientError> {
        let Done {} = self.ask(Method::Delete, fill(endpoints::PERSON_TOKEN, &[&account, &token])).await?;
        Ok(())
    }

    /// How directories are.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn directories(&self) -> Result<DirectoryList, ClientError> {
        self.ask(Method::Get, endpoints::DIRECTORIES.to_owned()).await
    }

    /// Has a directory read now.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn read_directory(&self, issuer: &str) -> Result<(), ClientError> {
        let Done {} = self.ask(Method::Post, fill(endpoints::DIRECTORY_READ, &[&issuer])).await?;
        Ok(())
    }

    /// Lets happen what a directory was kept from, as a security officer.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn release_directory(&self, issuer: &str, digest: Hash) -> Result<(), ClientError> {
        let path = fill(endpoints::DIRECTORY_RELEASE, &[&issuer]);
        let Done {} =
            self.change(Method::Post, path, Some(&DirectoryRelease { digest: Hex(digest) })).await?;
        Ok(())
    }

    /// Accounts after one, ascending by id.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn people(&self, after: Option<AccountId>) -> Result<AccountPage, ClientError> {
        let path = after.map_or_else(
            || endpoints::PEOPLE.to_owned(),
            |after| format!("{}?after={after}", endpoints::PEOPLE),
        );
        self.ask(Method::Get, path).await
    }

    /// An account.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn person(&self, account: AccountId) -> Result<AccountInfo, ClientError> {
        self.ask(Method::Get, fill(endpoints::PERSON, &[&account])).await
    }

    /// Does something to an account, and gives it as it is then.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn deal(&self, account: AccountId, deed: &Deed) -> Result<AccountInfo, ClientError> {
        let path = |path| fill(path, &[&account]);
        match deed {
            Deed::Suspend => self.ask(Method::Post, path(endpoints::PERSON_SUSPEND)).await,
            Deed::Resume => self.ask(Method::Post, path(endpoints::PERSON_RESUME)).await,
            Deed::Offboard => self.ask(Method::Post, path(endpoints::PERSON_OFFBOARD)).await,
            Deed::LiftLockout => {
                let Done {} = self.ask(Method::Post, path(endpoints::PERSON_LOCKOUT_LIFT)).await?;
                self.person(account).await
            }
            Deed::Roles(roles) => {
                let body = encode(&NewRoles { roles: roles.clone() })?;
                self.core().api.ask(Method::Put, path(endpoints::PERSON_ROLES), Some(body)).await
            }
        }
    }

    /// Ends all sessions of an account.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn end_sessions_of(&self, account: AccountId) -> Result<u32, ClientError> {
        let SessionsEnded { ended } =
            self.ask(Method::Delete, fill(endpoints::PERSON_SESSIONS, &[&account])).await?;
        Ok(ended)
    }

    /// Asks for the recovery of an account, as an administrator.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn request_recovery(&self, account: AccountId) -> Result<RecoveryInfo, ClientError> {
        self.ask(Method::Post, fill(endpoints::PERSON_RECOVERY, &[&account])).await
    }

    /// The recoveries that wait.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn recoveries(&self) -> Result<RecoveryList, ClientError> {
        self.ask(Method::Get, endpoints::RECOVERIES.to_owned()).await
    }

    /// Approves a recovery, as a security officer: the code is for the person, by hand.
    ///
    /// # Errors
    /// See [`Client::me`].
    pub async fn approve_recovery(&self, recovery: RecoveryId) -> Result<RecoveryCode, ClientError> {
        self.ask(Method::Post, fill(endpoints::RECOVERY_APPROVE, &[&recovery])).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: String) -> Result<T, ClientError> {
        self.core().api.ask(method, path, None).await
    }

    /// A change that takes a recent sign-in: if the session is older, this device signs in anew.
    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = body.map(encode).transpose()?;
        let api = &self.core().api;
        match api.ask(method, path.clone(), body.clone()).await {
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::SignInNotRecent => {
                if let Some(sign_in) = api.sign_in() {
                    sign_in.renew(None);
                }
                api.ask(method, path, body).await
            }
            answer => answer,
        }
    }

    fn renew(&self, token: Secret) {
        if let Some(sign_in) = self.core().api.sign_in() {
            sign_in.renew(Some(token));
        }
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    Ok(serde_json::to_vec(value).map_err(|error| ConnectionError::Protocol(error.to_string()))?)
}
