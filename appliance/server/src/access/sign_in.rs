//! Sign-in: from the first request to the session.

use super::directories::{self, DirectoryName};
use super::logins::Beginner;
use super::{Access, AccessKeys, problems, put, remove};
use crate::{names, problem};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use zixt_api::{
    Bytes64, ErrorCode, FactorKind, Hex, Problem, RoleName, Secret, SignInBegun, SignInProof, SignInRequest,
    SignInStep,
};
use zixt_crypto::fill_random;
use zixt_directory::login_key;
use zixt_identity::{
    BackupCode, Channel, Credentials, Desk, DeviceProof, Factor, FactorSet, HeldSource, Incoming, Login,
    Named, Network, NotAdmitted, Origin, Password, Proof, PskProof, Roles, Start, Step, Subject, Tools,
    TotpCode,
};
use zixt_storage::AccessKind;
use zixt_types::{AccountId, Canonical as _, Hash, LoginId, Role, SessionId};

/// Hashes that wait for their turn. What comes beyond them is told to come again.
pub(super) const WAITING_MAX: usize = 64;
/// No hash waits longer.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// How somebody stands before the door: over what, from where, and with which key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// What a session is bound to.
    channel: Channel,
    /// What whoever stands there has proven to hold.
    held: Option<HeldSource>,
    /// The network that the connection comes from.
    pub(crate) network: Option<Network>,
    /// The connection's key, if it is an active device's.
    pub(crate) device: Option<Hash>,
}

impl Door {
    /// On the clients' listener, with a TLS key.
    pub(crate) fn of_client(tls: Hash, network: Option<Network>, is_device: bool) -> Self {
        let held = Some(HeldSource::tls_key(&tls));
        Self { channel: Channel::ClientKey(tls), held, network, device: is_device.then_some(tls) }
    }

    /// On the web listener, perhaps with a secret of before.
    pub(crate) fn of_web(listener: Hash, network: Option<Network>, browser: Option<&[u8; 32]>) -> Self {
        let held = browser.map(HeldSource::browser);
        Self { channel: Channel::Listener(listener), held, network, device: None }
    }

    /// What a session is bound to.
    pub(crate) const fn channel(&self) -> Channel {
        self.channel
    }

    pub(super) const fn origin(&self) -> Origin {
        Origin { network: self.network, held: self.held }
    }

    pub(super) const fn beginner(&self) -> Beginner {
        match self.device {
            Some(device) => Beginner::Device(device),
            None => Beginner::Stranger(self.network),
        }
    }
}

/// What came of a proof, for the answer and for the audit record.
pub(crate) struct Proven {
    /// The account that the sign-in is about, if there is one.
    pub(crate) account: Option<AccountId>,
    /// What was shown.
    pub(crate) factor: Factor,
    /// Why it was not taken, for the audit record alone.
    pub(crate) because: Option<String>,
    /// Whether it came from a source that the account does not know.
    pub(crate) unknown_source: bool,
    /// Whether it was not even looked at, which anybody can have as often as they like.
    pub(crate) unseen: bool,
    /// The roles that groups of an identity provider have just given the account.
    pub(crate) mapped: Option<Roles>,
    /// The session, if the sign-in is complete.
    pub(crate) session: Option<SessionId>,
    /// The answer.
    pub(crate) answer: Result<SignInStep, Problem>,
}

impl Access {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// The request names nobody, or the store or custody cannot be asked.
    pub(crate) async fn begin(&self, door: &Door, request: SignInRequest) -> Result<SignInBegun, Problem> {
        let mut at = None;
        let (account, spelling) = match (request.account, request.name, request.directory) {
            (Some(account), None, None) => (self.known(account.0)?, account.0.to_hex()),
            (None, Some(name), None) if names::is_allowed(&name) => {
                (self.named(&name).await?, name.to_lowercase())
            }
            (None, Some(login), Some(directory)) => {
                let (account, named) = self.named_at(&directory, &login)?;
                let key = login_key(&login).unwrap_or_default();
                let spelling = format!("{}/{key}", directories::issuer_text(named.issuer));
                at = Some(named);
                (account, spelling)
            }
            (None, Some(_), None) => {
                return Err(Problem::new(
                    ErrorCode::NameInvalid,
                    "the name has letters that are not allowed",
                ));
            }
            _ => {
                return Err(Problem::new(
                    ErrorCode::MalformedRequest,
                    "either `account` or `name` is needed, and `directory` goes with `name`",
                ));
            }
        };
        let who = account.map_or(Named::Nobody(&spelling), Named::Account);
        let now = self.now();
        let start = Start {
            genesis: self.genesis,
            appliance: self.me,
            who,
            origin: door.origin(),
            channel: door.channel(),
        };
        let mut inner = self.inner()?;
        let login = Login::begin(&self.policy, &inner.attempts, &start, now, &mut fill_random)
            .map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
        let challenge = login.challenge();
        let begun = SignInBegun {
            sign_in: Hex(login.id()),
            challenge: Bytes64(challenge.to_bytes()),
            expires_at: challenge.expires_at.0,
        };
        let named = super::logins::Named { spelling: spelling.as_str().into(), at: at.map(Arc::new) };
        inner.logins.begin(door.beginner(), login, named);
        Ok(begun)
    }

    fn known(&self, account: AccountId) -> Result<Option<AccountId>, Problem> {
        Ok(self.inner()?.accounts.contains_key(&account).then_some(account))
    }

    async fn named(&self, name: &str) -> Result<Option<AccountId>, Problem> {
        let sealing = self.custody.names().ok_or_else(|| problem::of_custody(self.custody.state()))?;
        let tag = sealing.tag(name);
        let found = self.store.name_by_tag(tag.as_ref()).await.map_err(|error| problem::of_store(&error))?;
        found.map_or(Ok(None), |found| self.known(found.account))
    }

    /// Takes one proof of a sign-in.
    pub(crate) async fn prove(&self, door: &Door, id: LoginId, proof: SignInProof) -> Proven {
        let factor = factor_of(&proof);
        self.prove_shown(door, id, factor, parse(proof)).await
    }

    /// Takes what was shown.
    pub(super) async fn prove_shown(
        &self,
        door: &Door,
        id: LoginId,
        factor: Factor,
        shown: Result<Shown, Problem>,
    ) -> Proven {
        let mut proven = Proven {
            account: None,
            factor,
            because: None,
            unknown_source: false,
            unseen: false,
            mapped: None,
            session: None,
            answer: Err(Problem::new(ErrorCode::UnknownSignIn, "no such sign-in is under way")),
        };
        let under_way = match self.inner() {
            Ok(inner) => inner.logins.get(&id),
            Err(problem) => return Proven { answer: Err(problem), ..proven },
        };
        let Some(under_way) = under_way else { return proven };
        // One proof at a time for each sign-in.
        let login = under_way.login.lock_owned().await;
        proven.account = login.account();
        match self.step(door, login, under_way.named.at.as_deref(), shown, &mut proven).await {
            Ok(()) => {}
            Err(problem) => proven.answer = Err(problem),
        }
        proven
    }

    async fn step(
        &self,
        door: &Door,
        login: tokio::sync::OwnedMutexGuard<Login>,
        at: Option<&DirectoryName>,
        shown: Result<Shown, Problem>,
        proven: &mut Proven,
    ) -> Result<(), Problem> {
        let factor = proven.factor;
        let keys = self.keys()?;
        let shown = shown?;
        let account = login.account();
        let credentials = match account {
            Some(account) => Some(self.credentials(&keys, account).await?),
            None => None,
        };
        let now = self.now();
        let channel = door.channel().binding();
        let incoming = Incoming { factor, origin: door.origin(), channel, device: door.device.is_some() };
        proven.unknown_source = !credentials
            .as_ref()
            .zip(door.origin().held.as_ref())
            .is_some_and(|(credentials, held)| credentials.knows(held));
        let admitted = {
            let mut inner = self.inner()?;
            login.admit(&self.policy, &mut inner.attempts, credentials.as_ref(), &incoming, now)
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(NotAdmitted::Locked(locked)) => {
                proven.because = Some("too many failed attempts".to_owned());
                proven.unseen = true;
                return Err(problems::locked(locked, now.wall));
            }
            Err(NotAdmitted::OtherConnection) => {
                proven.because = Some("another connection than the sign-in began on".to_owned());
                proven.unseen = true;
                return Err(problems::refused());
            }
        };
        // Counted durably before it is looked at: a crash forgives no guess. A device's key cannot be guessed.
        if factor != Factor::DeviceKey {
            let _alone = self.writing.lock().await;
            self.write_pending(&keys, Vec::new()).await?;
        }
        let mut vouched_not = None;
        let proof = match shown {
            Shown::Proof(proof) => proof,
            Shown::Word(word) => word.proof(&admitted, now.wall),
            Shown::DirectoryPassword(password) => {
                match self.ask_directory(account, at, &admitted, &password, now.wall).await {
                    Ok((proof, because)) => {
                        vouched_not = because;
                        proof
                    }
                    Err(problem) => {
                        // Nobody looked at it: it is no guess.
                        login.give_back(admitted, &mut self.inner()?.attempts);
                        return Err(problem);
                    }
                }
            }
        };
        let turn = match is_slow(factor) {
            false => None,
            true => match self.turn().await {
                Ok(turn) => Some(turn),
                Err(problem) => {
                    // Nobody looked at it: it is no guess.
                    login.give_back(admitted, &mut self.inner()?.attempts);
                    return Err(problem);
                }
            },
        };
        let record = {
            let inner = self.inner()?;
            account.and_then(|account| inner.accounts.get(&account).cloned())
        };
        let devices = account.map(|account| self.devices(account)).unwrap_or_default();
        let (policy, backend, party) = (Arc::clone(&self.policy), Arc::clone(&self.backend), self.party()?);
        let looked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let subject = record.as_ref().zip(credentials.as_ref()).map(|(record, credentials)| Subject {
                record,
                credentials,
                devices: &devices,
            });
            let webauthn = party.as_deref().map(|party| party as &dyn zixt_identity::WebAuthnVerifier);
            let tools = Tools { policy: &policy, backend: &*backend, webauthn };
            let examined = login.examine(admitted, proof, subject, &tools, now, &mut fill_random);
            (login, examined)
        });
        let (mut login, examined) = looked.await.map_err(|_| problems::refused())?;

        let _alone = self.writing.lock().await;
        let now = self.now();
        let mut current = match account {
            Some(account) => Some(self.credentials(&keys, account).await?),
            None => None,
        };
        let before = current.clone();
        let devices = account.map(|account| self.devices(account)).unwrap_or_default();
        let (step, opened) = {
            let mut inner = self.inner()?;
            let record = account.and_then(|account| inner.accounts.get(&account).cloned());
            let desk = record.as_ref().zip(current.as_mut()).map(|(record, credentials)| Desk {
                record,
                credentials,
                devices: &devices,
            });
            let step = login.conclude(&self.policy, examined, desk, &mut inner.attempts, now);
            match step {
                Step::Done(grant) => {
                    let summary = (grant.account(), grant.roles(), grant.backup_low());
                    let opened = inner.sessions.open(*grant, &mut fill_random);
                    (None, Some((summary, opened)))
                }
                step => (Some(step), None),
            }
        };
        let mut rows = Vec::new();
        if let (Some(account), Some(credentials)) = (account, &current)
            && before.as_ref() != Some(credentials)
        {
            rows.push(self.credentials_row(&keys, account, credentials)?);
        }
        self.write_pending(&keys, rows).await?;
        let confirmation = login.psk_confirmation().copied().map(Hex);
        proven.answer = match (step, opened) {
            (_, Some(((account, roles, low), opened))) => {
                self.inner()?.logins.end(&login.id());
                // The oldest of too many has made room.
                self.ended.send_replace(());
                let (token, session) =
                    opened.map_err(|error| Problem::new(ErrorCode::SignInUnavailable, error.to_string()))?;
                proven.session = Some(session);
                Ok(SignInStep::Done {
                    token: token.to_text().into(),
                    session: Hex(session),
                    account: Hex(account),
                    roles: role_names(roles),
                    backup_codes_left: low,
                    psk_confirmation: confirmation,
                })
            }
            (Some(Step::Need(factors)), None) => {
                Ok(SignInStep::Need { factors: factor_kinds(factors), psk_confirmation: confirmation })
            }
            (Some(Step::Refused { because, over }), None) => {
                if over {
                    self.inner()?.logins.end(&login.id());
                }
                proven.because = Some(vouched_not.unwrap_or_else(|| because.to_string()));
                Err(problems::refused())
            }
            (Some(Step::LockedUntil(locked)), None) => Err(problems::locked(locked, now.wall)),
            (Some(Step::Unavailable(why)), None) => Err(problems::unavailable(why)),
            (Some(Step::Done(_)) | None, None) => unreachable!("a grant opens a session"),
        };
        Ok(())
    }

    /// The row with an account's credentials, sealed.
    pub(super) fn credentials_row(
        &self,
        keys: &AccessKeys,
        account: AccountId,
        credentials: &Credentials,
    ) -> Result<zixt_storage::AccessChange, Problem> {
        if *credentials == Credentials::default() {
            return Ok(remove(AccessKind::Credentials, account.as_bytes()));
        }
        let sealed = credentials.seal(&keys.seal, account, &mut fill_random);
        let sealed = sealed.map_err(|error| Problem::new(ErrorCode::StoreFailed, error.to_string()))?;
        Ok(put(AccessKind::Credentials, account.as_bytes(), sealed))
    }

    /// A turn to hash.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || Problem::new(ErrorCode::SignInUnavailable, "too many people sign in at the same time");
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(TURN_WAIT_MAX, Arc::clone(&self.hashing).acquire_owned()).await;
        drop(waiting);
        turn.map_err(|_| busy())?.map_err(|_| busy())
    }
}

/// Whether it takes a hash that is slow on purpose.
const fn is_slow(factor: Factor) -> bool {
    matches!(factor, Factor::Password | Factor::BackupCode)
}

const fn factor_of(proof: &SignInProof) -> Factor {
    match proof {
        SignInProof::Password { .. } => Factor::Password,
        SignInProof::Directory { .. } => Factor::Directory,
        SignInProof::DeviceKey { .. } => Factor::DeviceKey,
        SignInProof::Totp { .. } => Factor::Totp,
        SignInProof::Psk { .. } => Factor::Psk,
        SignInProof::BackupCode { .. } => Factor::BackupCode,
        SignInProof::Webauthn { .. } => Factor::WebAuthn,
    }
}

/// What somebody showed.
pub(super) enum Shown {
    Proof(Proof),
    /// What an identity provider says of them.
    Word(super::sso::Word),
    /// What a directory has to be asked about, once the attempt is admitted.
    DirectoryPassword(Secret),
}

/// Reads a proof. What is none is malformed, and no attempt.
fn parse(proof: SignInProof) -> Result<Shown, Problem> {
    let malformed = |why: &str| Problem::new(ErrorCode::MalformedRequest, why);
    Ok(Shown::Proof(match proof {
        SignInProof::Password { password } => Proof::Password(
            Password::parse(password.expose()).map_err(|error| malformed(&error.to_string()))?,
        ),
        SignInProof::Directory { password } => return Ok(Shown::DirectoryPassword(password)),
        SignInProof::DeviceKey { proof } => Proof::DeviceKey(Box::new(
            DeviceProof::parse(&proof.0).map_err(|error| malformed(&error.to_string()))?,
        )),
        SignInProof::Totp { code } => {
            Proof::Totp(TotpCode::parse(code.expose()).ok_or_else(|| malformed("a code has 6 to 8 digits"))?)
        }
        SignInProof::Psk { nonce, mac } => Proof::Psk(PskProof {
            nonce: nonce.0.as_slice().try_into().map_err(|_| malformed("a nonce has 32 bytes"))?,
            mac: mac.0,
        }),
        SignInProof::BackupCode { code } => Proof::BackupCode(
            BackupCode::parse(code.expose()).ok_or_else(|| malformed("this is no backup code"))?,
        ),
        SignInProof::Webauthn { response } => Proof::WebAuthn(super::passkeys::proof(&response)),
    }))
}

/// Roles as they travel.
pub(super) fn role_names(roles: Roles) -> Vec<RoleName> {
    roles
        .iter()
        .map(|role| match role {
            Role::SecurityOfficer => RoleName::SecurityOfficer,
            Role::Administrator => RoleName::Administrator,
            Role::Operator => RoleName::Operator,
            Role::Auditor => RoleName::Auditor,
            Role::User => RoleName::User,
            Role::Service => RoleName::Service,
        })
        .collect()
}

/// Roles as they came.
pub(super) fn roles_of(names: &[RoleName]) -> Result<Roles, Problem> {
    let roles: Vec<Role> = names
        .iter()
        .map(|name| match name {
            RoleName::SecurityOfficer => Role::SecurityOfficer,
            RoleName::Administrator => Role::Administrator,
            RoleName::Operator => Role::Operator,
            RoleName::Auditor => Role::Auditor,
            RoleName::User => Role::User,
            RoleName::Service => Role::Service,
        })
        .collect();
    Roles::new(&roles).map_err(|error| Problem::new(ErrorCode::RolesInvalid, error.to_string()))
}

/// Kinds of proof as they travel.
pub(super) fn factor_kinds(factors: FactorSet) -> Vec<FactorKind> {
    factors
        .iter()
        .map(|factor| match factor {
            Factor::Password => FactorKind::Password,
            Factor::Directory => FactorKind::Directory,
            Factor::Sso => FactorKind::Sso,
            Factor::DeviceKey => FactorKind::DeviceKey,
            Factor::Totp => FactorKind::Totp,
            Factor::Psk => FactorKind::Psk,
            Factor::BackupCode => FactorKind::BackupCode,
            Factor::WebAuthn => FactorKind::Webauthn,
        })
        .collect()
}
