//! Sign-in and accounts, with what the audit journal says of them.

use super::App;
use crate::access::{Deed, Door, Ended, Flow, Proven, issuer_text};
use crate::audit::{self, with, with_text};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use zixt_api::{
    Acceptance, AccountInfo, AccountPage, BackupCodes, Bytes64, ClockInfo, DirectoryList, EventPage, Hex, Me,
    NewClock, NewLink, NewPasskey, NewServiceToken, PasskeyCreation, Problem, PskVerifier, RecoveryCode,
    RecoveryInfo, RecoveryList, Renewed, Secret, ServiceTokenList, ServiceTokenMade, SessionList,
    SignInBegun, SignInProof, SignInRequest, SignInStep, TotpEnrolment, VaultShareGiven,
};
use zixt_audit::{Action, Actor, Event, Origin, Outcome, Target, Value};
use zixt_identity::{Caller, IssuerId, Permission};
use zixt_types::{AccountId, DeviceId, LoginId, Member, RecoveryId, SessionId};

/// What is over is looked for so often. A stream whose session ends by time closes within this.
const TEND: Duration = Duration::from_secs(10);
/// What anybody can have recorded as often as they like is recorded so often, with how many times it was.
const REPEAT: Duration = Duration::from_secs(60);
/// Of so many kinds and places apart.
const REPEATS_MAX: usize = 1024;

/// What is told again and again.
pub(super) type Repeated = (Action, Option<AccountId>, Option<zixt_identity::Network>);

/// Tells of what repeats once in a while.
#[derive(Default)]
pub(super) struct Repeats(Mutex<HashMap<Repeated, Told>>);

/// When something was told last, and how many times it was since.
struct Told {
    at: Instant,
    since: u64,
}

impl Repeats {
    /// How many times it was since it was told last, if it is to be told now.
    pub(super) fn tell(&self, what: Repeated) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = told.len() >= REPEATS_MAX && !told.contains_key(&what);
        // Too many places at once share one.
        let what = if full { (what.0, None, None) } else { what };
        match told.entry(what) {
            Entry::Vacant(new) => {
                new.insert(Told { at: Instant::now(), since: 0 });
                Some(1)
            }
            Entry::Occupied(mut known) if known.get().at.elapsed() >= REPEAT => {
                let Told { since, .. } = known.insert(Told { at: Instant::now(), since: 0 });
                Some(since + 1)
            }
            Entry::Occupied(mut known) => {
                known.get_mut().since += 1;
                None
            }
        }
    }

    /// What was not told so far and is not going on any more, or of which it is time to tell.
    fn close(&self, all: bool) -> Vec<(Repeated, u64)> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = told.extract_if(|_, told| all || told.at.elapsed() >= REPEAT);
        over.filter(|(_, told)| told.since > 0).map(|(what, told)| (what, told.since)).collect()
    }
}

/// Accounts that one answer lists at most.
const PAGE_MAX: usize = 256;

/// How an errand at an identity provider ended.
pub(crate) enum SsoEnd {
    /// With a step of a sign-in.
    SignedIn(SignInStep),
    /// With a link, and the session under a new token.
    Linked(Renewed),
}

/// Somebody who has signed in, and from where they ask.
pub struct Signed {
    /// Whose session it is.
    pub(crate) caller: Caller,
    /// The device that asks, if the connection's key is one of the account's.
    pub(crate) device: Option<DeviceId>,
    /// From where.
    pub(crate) by: Origin,
}

impl Signed {
    const fn actor(&self) -> Actor {
        match self.device {
            Some(device) => Actor::Device(self.caller.account(), device),
            None => Actor::Account(self.caller.account()),
        }
    }
}

impl App {
    /// Whether a connection's key and a session belong together, for what devices ask.
    ///
    /// # Errors
    /// The session is another account's than the device.
    pub(crate) fn check_device(&self, caller: &Caller, member: &Member) -> Result<(), Problem> {
        if caller.account() != member.account {
            return Err(crate::access::sign_in_needed());
        }
        caller.require(Permission::UseMessages).map_err(crate::access::of_forbidden)
    }

    fn event_of(&self, action: Action, who: &Signed) -> Event {
        let mut event = self.audit.event(action, who.actor(), who.by);
        if who.caller.is_program() {
            with_text(&mut event, "by-token", &who.caller.session().to_hex());
        }
        event
    }

    fn event_on(&self, action: Action, who: &Signed, account: AccountId) -> Event {
        let mut event = self.event_of(action, who);
        event.target = Some(Target::Account(account));
        event
    }

    /// Begins a sign-in.
    ///
    /// # Errors
    /// See [`crate::access::Access`].
    pub(crate) async fn begin_sign_in(
        &self,
        door: &Door,
        request: SignInRequest,
    ) -> Result<SignInBegun, Problem> {
        self.access.begin(door, request).await
    }

    /// Takes one proof. A completed sign-in and one that was not taken are in the journal before they are answered.
    ///
    /// # Errors
    /// The proof was not taken, or nothing can be recorded.
    pub(crate) async fn sign_in_step(
        &self,
        door: &Door,
        by: Origin,
        id: LoginId,
        proof: SignInProof,
    ) -> Result<SignInStep, Problem> {
        let _room = self.audit.room(Action::SignIn)?;
        let proven = self.access.prove(door, id, proof).await;
        self.tell_of_proof(door, by, proven).await
    }

    async fn tell_of_proof(&self, door: &Door, by: Origin, proven: Proven) -> Result<SignInStep, Problem> {
        if let (Some(roles), Some(account)) = (proven.mapped, proven.account) {
            let mut event = self.audit.event(Action::RoleGranted, Actor::Appliance, by);
            event.target = Some(Target::Account(account));
            with_text(
                &mut event,
                "roles",
                &roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(" "),
            );
            with_text(&mut event, "by", "groups of an identity provider");
            self.audit.record(event).await?;
        }
        let told = match &proven.answer {
            Ok(SignInStep::Need { .. }) if !proven.unknown_source => return proven.answer,
            // Somebody elsewhere has the first factor, and perhaps nothing else.
            Ok(SignInStep::Need { .. }) => Outcome::Ok,
            // Nothing was tried.
            Err(problem) if proven.because.is_none() && problem.status >= 400 && problem.status != 401 => {
                return proven.answer;
            }
            Ok(SignInStep::Done { .. }) => Outcome::Ok,
            Err(problem) => audit::outcome_of(problem),
        };
        let actor = match (&proven.answer, proven.account) {
            (Ok(_), Some(account)) => Actor::Account(account),
            _ => Actor::Nobody,
        };
        let action = match &proven.answer {
            Err(problem) if problem.code == zixt_api::ErrorCode::SignInLocked => Action::LockedOut,
            _ => Action::SignIn,
        };
        let mut event = self.audit.event(action, actor, by);
        event.target = proven.account.map(Target::Account);
        event.outcome = told;
        if proven.unseen {
            match self.repeats.tell((action, proven.account, door.network)) {
                Some(repeats) => with(&mut event, "repeats", Value::Number(repeats)),
                None => return proven.answer,
            }
        }
        if matches!(proven.answer, Ok(SignInStep::Need { .. })) {
            with(&mut event, "complete", Value::Flag(false));
        }
        with_text(&mut event, "factor", proven.factor.name());
        if let Some(because) = &proven.because {
            with_text(&mut event, "because", because);
        }
        if let Some(session) = proven.session {
            with_text(&mut event, "session", &session.to_hex());
        }
        match (self.audit.record(event).await, proven.answer) {
            (Err(problem), Ok(_)) => Err(problem),
            (_, answer) => answer,
        }
    }

    /// Sets a password by the code of a recovery.
    ///
    /// # Errors
    /// The code or the password is refused.
    pub(crate) async fn accept(&self, door: &Door, by: Origin, request: Acceptance) -> Result<(), Problem> {
        let account = request.account.0;
        let mut event = self.audit.event(Action::PasswordChanged, Actor::Nobody, by);
        event.target = Some(Target::Account(account));
        let _room = self.audit.room(Action::PasswordChanged)?;
        let name = self.plain_name(account).await?;
        let done = self.access.accept(account, &request.code, &request.password, name, door.network).await;
        event.outcome = audit::outcome(&done);
        if let Err(problem) = &done {
            // Anybody can try as often as they like.
            match self.repeats.tell((Action::PasswordChanged, Some(account), door.network)) {
                Some(repeats) => with(&mut event, "repeats", Value::Number(repeats)),
                None => return Err(problem.clone()),
            }
        }
        match self.audit.record(event).await {
            Err(problem) if done.is_ok() => Err(problem),
            _ => done,
        }
    }

    /// Carries out what officers decided about roles, and says in the journal what became of each. Gives the refusal of
    /// `asked`, if it is among them.
    ///
    /// # Errors
    /// It cannot be done now, or the decision that was asked for is refused.
    pub(crate) async fn follow_decisions(&self, asked: Option<zixt_types::Hash>) -> Result<(), Problem> {
        let _alone = self.following.lock().await;
        let mut refused = None;
        // One after the other, and each marked as done only when the journal has it: a crash loses none.
        while let Some(undone) = self.access.next_decision().await? {
            let _room = self.audit.room(Action::RoleGranted)?;
            let outcome = self.access.carry_out_decision(&undone).await?;
            let mut event = self.audit.event(Action::RoleGranted, Actor::Appliance, Origin::Inside);
            event.target = Some(Target::Account(undone.account));
            let names: Vec<_> = undone.roles.iter().map(|role| role.name()).collect();
            with_text(&mut event, "roles", &names.join(" "));
            with(&mut event, "decision", Value::Digest(undone.decision));
            let problem = outcome.err().map(|why| Problem::new(zixt_api::ErrorCode::AccountStatusWrong, why));
            event.outcome = problem.as_ref().map_or(Outcome::Ok, audit::outcome_of);
            self.audit.record(event).await?;
            self.access.mark_decision(&undone).await?;
            if asked == Some(undone.decision) {
                refused = problem;
            }
        }
        refused.map_or(Ok(()), |problem| {
            let detail = format!("it is recorded, and is not carried out: {}", problem.detail);
            Err(Problem::new(problem.code, detail))
        })
    }

    /// Looks after who may come in, until shutdown: what is over ends, and what officers decided is carried out.
    pub(crate) async fn tend(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            self.access.tend().await;
            if self.access.is_behind_decisions()
                && let Err(problem) = self.follow_decisions(None).await
            {
                log::warn!("officers' decisions about roles are not carried out yet: {}", problem.detail);
            }
            let stops = shutdown.is_cancelled();
            self.tell_of_repeats(stops);
            if stops {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(TEND) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Records how many times something was, of which only the first was recorded.
    fn tell_of_repeats(&self, all: bool) {
        for ((action, account, network), times) in self.repeats.close(all) {
            let mut event = self.audit.event(action, Actor::Nobody, Origin::Inside);
            event.target = account.map(Target::Account);
            event.outcome = Outcome::Refused(audit::code("repeated"));
            with(&mut event, "repeats", Value::Number(times));
            if let Some(network) = network {
                with_text(&mut event, "network", &network.to_string());
            }
            self.audit.note(event);
        }
    }

    async fn plain_name(&self, account: AccountId) -> Result<Option<String>, Problem> {
        Ok(self.name_of(account).await?.map(|name| name.name))
    }

    /// The caller.
    ///
    /// # Errors
    /// Custody or the store cannot be asked.
    pub(crate) async fn me(&self, who: &Signed) -> Result<Me, Problem> {
        let name = self.plain_name(who.caller.account()).await?;
        self.access.me(&who.caller, name).await
    }

    /// Ends the session that asks.
    ///
    /// # Errors
    /// It is not durable.
    pub(crate) async fn sign_out(&self, who: &Signed) -> Result<(), Problem> {
        let mut event = self.event_of(Action::SignOut, who);
        // Whoever leaves may leave, whatever the journal does.
        let done = self.access.sign_out(&who.caller).await;
        event.outcome = audit::outcome(&done);
        self.audit.record(event).await?;
        done
    }

    /// The caller's sessions, or somebody else's.
    ///
    /// # Errors
    /// The caller may not see them.
    pub(crate) async fn sessions(
        &self,
        who: &Signed,
        account: Option<AccountId>,
    ) -> Result<SessionList, Problem> {
        match account {
            None => self.access.sessions(&who.caller, who.caller.account()),
            Some(account) => {
                let event = self.event_on(Action::DataRead, who, account);
                self.audited(event, async { self.access.sessions(&who.caller, account) }).await
            }
        }
    }

    /// Ends one of the caller's sessions.
    ///
    /// # Errors
    /// There is no such one.
    pub(crate) async fn end_session(&self, who: &Signed, session: SessionId) -> Result<u32, Problem> {
        let mut event = self.event_of(Action::SessionsRevoked, who);
        with_text(&mut event, "session", &session.to_hex());
        self.audited(event, self.access.end_session(&who.caller, session)).await
    }

    /// Ends all other sessions of the caller, or all of somebody else.
    ///
    /// # Errors
    /// The caller may not.
    pub(crate) async fn end_sessions(
        &self,
        who: &Signed,
        account: Option<AccountId>,
    ) -> Result<u32, Problem> {
        let account = account.unwrap_or_else(|| who.caller.account());
        let event = self.event_on(Action::SessionsRevoked, who, account);
        self.audited(event, self.access.end_sessions(&who.caller, account)).await
    }

    /// Sets the caller's password, or removes it.
    ///
    /// # Errors
    /// It is refused, or the caller may not now.
    pub(crate) async fn set_password(
        &self,
        who: &Signed,
        password: Option<&Secret>,
    ) -> Result<Renewed, Problem> {
        let mut event = self.event_of(Action::PasswordChanged, who);
        with(&mut event, "removed", Value::Flag(password.is_none()));
        let name = self.plain_name(who.caller.account()).await?;
        self.audited(event, self.access.set_password(&who.caller, name, password)).await
    }

    /// Begins to enrol an authenticator app.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn begin_totp(&self, who: &Signed) -> Result<TotpEnrolment, Problem> {
        let account = who.caller.account();
        let name = self.plain_name(account).await?.unwrap_or_else(|| account.to_hex());
        self.access.begin_totp(&who.caller, &name)
    }

    /// Takes the first code of the new authenticator app.
    ///
    /// # Errors
    /// The code is wrong.
    pub(crate) async fn confirm_totp(&self, who: &Signed, code: &Secret) -> Result<Renewed, Problem> {
        self.audited(
            self.factor_event(who, Action::FactorEnrolled, "totp"),
            self.access.confirm_totp(&who.caller, code),
        )
        .await
    }

    /// Removes the authenticator app.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn remove_totp(&self, who: &Signed) -> Result<Renewed, Problem> {
        self.audited(
            self.factor_event(who, Action::FactorRemoved, "totp"),
            self.access.remove_totp(&who.caller),
        )
        .await
    }

    /// Makes new backup codes.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn make_backup_codes(&self, who: &Signed) -> Result<BackupCodes, Problem> {
        self.audited(self.event_of(Action::BackupCodesMade, who), self.access.make_backup_codes(&who.caller))
            .await
    }

    /// Removes the backup codes.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn remove_backup_codes(&self, who: &Signed) -> Result<Renewed, Problem> {
        let event = self.factor_event(who, Action::FactorRemoved, "backup-code");
        self.audited(event, self.access.remove_backup_codes(&who.caller)).await
    }

    /// Sets the pre-shared key's verifier, or removes it.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn set_psk(
        &self,
        who: &Signed,
        verifier: Option<PskVerifier>,
    ) -> Result<Renewed, Problem> {
        let action = if verifier.is_some() { Action::FactorEnrolled } else { Action::FactorRemoved };
        self.audited(self.factor_event(who, action, "psk"), self.access.set_psk(&who.caller, verifier)).await
    }

    fn factor_event(&self, who: &Signed, action: Action, factor: &str) -> Event {
        let mut event = self.event_of(action, who);
        with_text(&mut event, "factor", factor);
        event
    }

    /// Forgives the failed attempts at the caller's account, or somebody else's.
    ///
    /// # Errors
    /// The caller may not.
    pub(crate) async fn lift_lockout(&self, who: &Signed, account: Option<AccountId>) -> Result<(), Problem> {
        let account = account.unwrap_or_else(|| who.caller.account());
        let mut event = self.event_on(Action::LockedOut, who, account);
        with(&mut event, "lifted", Value::Flag(true));
        self.audited(event, self.access.lift(&who.caller, account)).await
    }

    /// Ends what a browser began at an identity provider.
    ///
    /// # Errors
    /// It is no answer to anything, the provider's word is not taken, or nothing can be recorded.
    pub(crate) async fn finish_sso(
        &self,
        door: &Door,
        by: Origin,
        issuer: IssuerId,
        flow: Option<Flow>,
        query: &str,
    ) -> Result<SsoEnd, Problem> {
        let _room = self.audit.room(Action::SignIn)?;
        match self.access.finish_sso(door, issuer, flow, query).await? {
            Ended::SignedIn(proven) => self.tell_of_proof(door, by, *proven).await.map(SsoEnd::SignedIn),
            Ended::Linked { account, done } => {
                let mut event = self.audit.event(Action::FactorEnrolled, Actor::Account(account), by);
                event.target = Some(Target::Account(account));
                with_text(&mut event, "factor", "sso");
                with_text(&mut event, "issuer", &issuer_text(issuer));
                event.outcome = audit::outcome(&done);
                self.audit.record(event).await?;
                done.map(SsoEnd::Linked)
            }
        }
    }

    /// Ends the sessions that a provider says have ended.
    ///
    /// # Errors
    /// It is not the provider's word, or nothing can be ended or recorded now.
    pub(crate) async fn end_by_idp(&self, by: Origin, issuer: IssuerId, token: &str) -> Result<(), Problem> {
        let _room = self.audit.room(Action::SessionsRevoked)?;
        let done = self.access.end_by_idp(issuer, token).await;
        let mut event = self.audit.event(Action::SessionsRevoked, Actor::Nobody, by);
        with_text(&mut event, "issuer", &issuer_text(issuer));
        if let Ok(ended) = &done {
            with(&mut event, "sessions", Value::Number(ended.len() as u64));
        }
        event.outcome = audit::outcome(&done);
        if done.is_err() && self.repeats.tell((Action::SessionsRevoked, None, door_network(by))).is_none() {
            return done.map(|_| ());
        }
        self.audit.record(event).await?;
        done.map(|_| ())
    }

    /// Begins to register a passkey.
    ///
    /// # Errors
    /// The caller may not now.
    pub(crate) async fn begin_passkey(&self, who: &Signed) -> Result<PasskeyCreation, Problem> {
        let account = who.caller.account();
        let name = self.plain_name(account).await?.unwrap_or_else(|| account.to_hex());
        self.access.begin_passkey(&who.caller, &name).await
    }

    /// Adds a passkey.
    ///
    /// # Errors
    /// The browser's answer is not taken.
    pub(crate) async fn add_passkey(&self, who: &Signed, new: &NewPasskey) -> Result<Renewed, Problem> {
        let mut event = self.factor_event(who, Action::FactorEnrolled, "webauthn");
        with_text(&mut event, "name", &new.name);
        self.audited(event, self.access.add_passkey(&who.caller, &new.name, &new.response)).await
    }

    /// Removes a passkey.
    ///
    /// # Errors
    /// There is none of this id.
    pub(crate) async fn remove_passkey(&self, who: &Signed, id: Vec<u8>) -> Result<Renewed, Problem> {
        let event = self.factor_event(who, Action::FactorRemoved, "webauthn");
        self.audited(event, self.access.remove_passkey(&who.caller, id)).await
    }

    /// Links the caller to who they are at a directory.
    ///
    /// # Errors
    /// The password is wrong, or the caller may not now.
    pub(crate) async fn link(&self, door: &Door, who: &Signed, new: &NewLink) -> Result<Renewed, Problem> {
        let mut event = self.factor_event(who, Action::FactorEnrolled, "directory");
        with_text(&mut event, "directory", &new.directory);
        with_text(&mut event, "login", &new.login);
        let work = self.access.link(door, &who.caller, &new.directory, &new.login, &new.password);
        self.audited(event, work).await
    }

    /// Takes a link of the caller away.
    ///
    /// # Errors
    /// There is none, or the caller may not now.
    pub(crate) async fn unlink(&self, who: &Signed, issuer: IssuerId) -> Result<Renewed, Problem> {
        let mut event = self.factor_event(who, Action::FactorRemoved, "link");
        with_text(&mut event, "issuer", &issuer_text(issuer));
        self.audited(event, self.access.unlink(&who.caller, issuer)).await
    }

    /// Takes a link of somebody away.
    ///
    /// # Errors
    /// There is none, or the caller may not.
    pub(crate) async fn unlink_somebody(
        &self,
        who: &Signed,
        account: AccountId,
        issuer: IssuerId,
    ) -> Result<(), Problem> {
        let mut event = self.event_on(Action::FactorRemoved, who, account);
        with_text(&mut event, "factor", "link");
        with_text(&mut event, "issuer", &issuer_text(issuer));
        self.audited(event, self.access.unlink_somebody(&who.caller, account, issuer)).await
    }

    /// How the clocks stand.
    ///
    /// # Errors
    /// The caller may not see it.
    pub(crate) fn clock(&self, who: &Signed) -> Result<ClockInfo, Problem> {
        who.caller.require(Permission::ViewHealth).map_err(crate::access::of_forbidden)?;
        Ok(self.access.clock())
    }

    /// Sets the appliance's wall clock.
    ///
    /// # Errors
    /// The caller may not now, or the time is far away.
    pub(crate) async fn set_clock(&self, who: &Signed, new: NewClock) -> Result<ClockInfo, Problem> {
        let mut event = self.event_of(Action::ClockSet, who);
        with_text(&mut event, "to", &zixt_types::Timestamp(new.wall).utc());
        let _room = self.audit.room(Action::ClockSet)?;
        let done = self.access.set_clock(&who.caller, zixt_types::Timestamp(new.wall), new.far).await;
        if let Ok((before, after)) = &done {
            with_text(&mut event, "was", &zixt_types::Timestamp(before.wall).utc());
            with_text(&mut event, "offset-ms", &after.offset_ms.to_string());
        }
        event.outcome = audit::outcome(&done);
        match self.audit.record(event).await {
            Err(problem) if done.is_ok() => Err(problem),
            _ => done.map(|(_, after)| after),
        }
    }

    /// Makes a token for a program.
    ///
    /// # Errors
    /// The caller may not now, or the token cannot be like that.
    pub(crate) async fn make_token(
        &self,
        who: &Signed,
        account: AccountId,
        new: NewServiceToken,
    ) -> Result<ServiceTokenMade, Problem> {
        let mut event = self.event_on(Action::TokenIssued, who, account);
        with_text(&mut event, "name", &new.name);
        with_text(&mut event, "scopes", &new.scopes.join(" "));
        self.audited(event, self.access.make_token(&who.caller, account, new)).await
    }

    /// The tokens of a program.
    ///
    /// # Errors
    /// The caller may not see them.
    pub(crate) async fn tokens(&self, who: &Signed, account: AccountId) -> Result<ServiceTokenList, Problem> {
        let event = self.event_on(Action::DataRead, who, account);
        self.audited(event, async { self.access.tokens(&who.caller, account) }).await
    }

    /// Ends a token of a program.
    ///
    /// # Errors
    /// The caller may not, or there is none.
    pub(crate) async fn end_token(
        &self,
        who: &Signed,
        account: AccountId,
        token: SessionId,
    ) -> Result<(), Problem> {
        let mut event = self.event_on(Action::TokenRevoked, who, account);
        with_text(&mut event, "token", &token.to_hex());
        self.audited(event, self.access.end_token(&who.caller, account, token)).await
    }

    /// What happened to accounts, devices and directories after a number.
    ///
    /// # Errors
    /// The caller may not see it, or the journal cannot be read.
    pub(crate) async fn happened(
        &self,
        who: &Signed,
        after: u64,
        limit: Option<usize>,
    ) -> Result<EventPage, Problem> {
        who.caller.require(Permission::ReadEvents).map_err(crate::access::of_forbidden)?;
        let (audit, limit) = (Arc::clone(&self.audit), limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX));
        let read = tokio::task::spawn_blocking(move || audit.happened(after, limit)).await;
        let failed = |why: String| Problem::new(zixt_api::ErrorCode::AuditUnavailable, why);
        read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    /// How directories are.
    ///
    /// # Errors
    /// The caller may not see it.
    pub(crate) async fn directories(&self, who: &Signed) -> Result<DirectoryList, Problem> {
        self.audited(self.event_of(Action::DataRead, who), async {
            who.caller.require(Permission::ViewHealth).map_err(crate::access::of_forbidden)?;
            Ok(self.access.directory_list())
        })
        .await
    }

    /// Reads a directory now.
    ///
    /// # Errors
    /// There is none of this name, or the caller may not.
    pub(crate) fn read_directory(&self, who: &Signed, issuer: IssuerId) -> Result<(), Problem> {
        self.access.hurry(&who.caller, issuer)
    }

    /// Lets happen what a directory was kept from.
    ///
    /// # Errors
    /// Something else is held back, or the caller may not.
    pub(crate) async fn release_directory(
        &self,
        who: &Signed,
        issuer: IssuerId,
        digest: zixt_types::Hash,
    ) -> Result<(), Problem> {
        let mut event = self.event_of(Action::DirectoryOverridden, who);
        with_text(&mut event, "issuer", &issuer_text(issuer));
        with(&mut event, "plan", Value::Digest(digest));
        // What it lets happen comes after the record.
        who.caller.require(Permission::ReleaseDirectoryPlans).map_err(crate::access::of_forbidden)?;
        self.audit.record(event).await?;
        self.access.release(&who.caller, issuer, digest)
    }

    /// The caller's vault.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn vault(&self, who: &Signed) -> Result<Bytes64, Problem> {
        self.audited(self.event_of(Action::VaultRead, who), self.access.vault(&who.caller)).await
    }

    /// Replaces the caller's vault.
    ///
    /// # Errors
    /// It is not the next one.
    pub(crate) async fn put_vault(&self, who: &Signed, vault: &Bytes64) -> Result<(), Problem> {
        self.audited(self.event_of(Action::VaultWritten, who), self.access.put_vault(&who.caller, vault))
            .await
    }

    /// The appliance's share of the caller's vault.
    ///
    /// # Errors
    /// It was given too often.
    pub(crate) async fn vault_share(&self, who: &Signed) -> Result<VaultShareGiven, Problem> {
        let mut event = self.event_of(Action::VaultRead, who);
        with(&mut event, "share", Value::Flag(true));
        self.audited(event, self.access.vault_share(&who.caller)).await
    }

    /// Accounts, for who may list them.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub(crate) async fn people(
        &self,
        who: &Signed,
        after: Option<AccountId>,
        limit: Option<usize>,
    ) -> Result<AccountPage, Problem> {
        let event = self.event_of(Action::DataRead, who);
        self.audited(event, async {
            who.caller.require(Permission::ListAccounts).map_err(crate::access::of_forbidden)?;
            self.account_page(after, limit).await
        })
        .await
    }

    /// Accounts, for the local console.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn people_locally(
        &self,
        by: Origin,
        after: Option<AccountId>,
        limit: Option<usize>,
    ) -> Result<AccountPage, Problem> {
        let event = self.audit.event(Action::DataRead, super::admin::actor_of(by), by);
        self.audited(event, self.account_page(after, limit)).await
    }

    async fn account_page(
        &self,
        after: Option<AccountId>,
        limit: Option<usize>,
    ) -> Result<AccountPage, Problem> {
        let (ids, more) = self.access.accounts(after, limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX))?;
        let next = ids.last().copied().filter(|_| more).map(Hex);
        let mut accounts = Vec::with_capacity(ids.len());
        for id in ids {
            accounts.push(self.with_name(self.access.account_info(id)?).await?);
        }
        Ok(AccountPage { accounts, next })
    }

    async fn with_name(&self, info: AccountInfo) -> Result<AccountInfo, Problem> {
        let name = self.plain_name(info.account.0).await?;
        Ok(AccountInfo { name, ..info })
    }

    /// An account.
    ///
    /// # Errors
    /// The caller may not see it, or there is none.
    pub(crate) async fn person(&self, who: &Signed, account: AccountId) -> Result<AccountInfo, Problem> {
        let event = self.event_on(Action::DataRead, who, account);
        self.audited(event, async {
            who.caller.require(Permission::ListAccounts).map_err(crate::access::of_forbidden)?;
            self.with_name(self.access.account_info(account)?).await
        })
        .await
    }

    /// Does something to an account.
    ///
    /// # Errors
    /// The caller may not, or the account does not stand where it would have to.
    pub(crate) async fn deal(
        &self,
        who: &Signed,
        account: AccountId,
        deed: Deed,
    ) -> Result<AccountInfo, Problem> {
        let action = match &deed {
            Deed::Suspend => Action::AccountSuspended,
            Deed::Resume => Action::AccountResumed,
            Deed::Offboard => Action::AccountRemoved,
            Deed::Roles(_) => Action::RoleGranted,
        };
        let mut event = self.event_on(action, who, account);
        if let Deed::Roles(new) = &deed {
            with_text(&mut event, "roles", &roles_text(new));
        }
        let done = self.audited(event, self.access.deal(&who.caller, account, &deed)).await?;
        if matches!(deed, Deed::Offboard) {
            // What cannot be done now is done later, by a task of its own.
            self.revoke_leavers().await;
            return self.with_name(self.access.account_info(account)?).await;
        }
        self.with_name(done).await
    }

    /// Asks for the recovery of an account.
    ///
    /// # Errors
    /// The caller may not, or the account cannot be recovered.
    pub(crate) async fn request_recovery(
        &self,
        who: &Signed,
        account: AccountId,
    ) -> Result<RecoveryInfo, Problem> {
        let mut event = self.event_on(Action::AccountRecovered, who, account);
        with_text(&mut event, "step", "requested");
        self.audited(event, self.access.request_recovery(&who.caller, account)).await
    }

    /// The recoveries that wait.
    ///
    /// # Errors
    /// The caller may not see them.
    pub(crate) async fn recoveries(&self, who: &Signed) -> Result<RecoveryList, Problem> {
        let event = self.event_of(Action::DataRead, who);
        self.audited(event, async { self.access.recoveries(&who.caller) }).await
    }

    /// Approves a recovery.
    ///
    /// # Errors
    /// The caller may not, or it cannot be approved any more.
    pub(crate) async fn approve_recovery(
        &self,
        who: &Signed,
        id: RecoveryId,
    ) -> Result<RecoveryCode, Problem> {
        let mut event = self.event_of(Action::AccountRecovered, who);
        with_text(&mut event, "step", "approved");
        with_text(&mut event, "recovery", &id.to_hex());
        event.target = self.access.recovery_of(id).map(Target::Account);
        let code = self.audited(event, self.access.approve_recovery(&who.caller, id)).await?;
        self.revoke_leavers().await;
        Ok(code)
    }
}

fn door_network(by: Origin) -> Option<zixt_identity::Network> {
    match by {
        Origin::Network(address) => Some(zixt_identity::Network::of(address.ip())),
        _ => None,
    }
}

fn roles_text(new: &zixt_api::NewRoles) -> String {
    let names: Vec<_> = new.roles.iter().map(|role| role.name()).collect();
    names.join(" ")
}
