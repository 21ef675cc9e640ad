//! Sign-in: one state machine for all ways in.
//!
//! Each proof takes three steps, each of which needs what the one before gave:
//! 1. [`Login::admit`] counts the attempt, or says how long to wait. Quick; under the lock of [`Attempts`].
//! 2. [`Login::examine`] looks at the proof. Slow (Argon2id); needs no lock but the sign-in's own, and a snapshot of
//!    the account.
//! 3. [`Login::conclude`] asks again whether what the proof used is still unused and the account still active, uses it
//!    up and moves on. Quick; under the lock of the account, whose credentials are stored before the step is answered.
//!
//! A directory is asked between the first two: only an attempt that is admitted gets as far as a bind, and only for an
//! admitted attempt an issuer vouches ([`crate::Issuer::vouch`]).
//!
//! A caller without an account goes the same way with the same work and gets the same answers.

use zixt_crypto::RandomError;
use zixt_types::{AccountId, DeviceId, Hash, LoginId, Timestamp};

use crate::account::AccountRecord;
use crate::attempts::{Admission, AttemptTag, Attempts, Locked};
use crate::challenge::{self, Challenge, DeviceProofError, KnownDevice};
use crate::credentials::Credentials;
use crate::factor::{Factor, FactorSet, met};
use crate::outcome::{Because, Grant, Step, Unavailable};
use crate::password::{self, PasswordRecord};
use crate::place::{Now, Origin};
use crate::policy::Policy;
use crate::proof::{Desk, Incoming, Named, Proof, Start, Subject, Tools};
use crate::random::{Random, draw};
use crate::role::Roles;
use crate::totp::{TotpError, TotpRecord};
use crate::voucher::Vouched;
use crate::webauthn::{self, WebAuthnError};

/// An attempt that has been counted, of one sign-in and for one kind of proof. Goes to [`Login::examine`]; if it is
/// lost, it was a failure.
#[derive(Debug)]
pub struct Admitted {
    login: LoginId,
    factor: Factor,
    admission: Admission,
}

impl Admitted {
    /// The sign-in.
    #[must_use]
    pub const fn login(&self) -> LoginId {
        self.login
    }
}

/// Why a proof is not looked at. Nothing is counted then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAdmitted {
    /// Too many failures.
    Locked(Locked),
    /// It comes from elsewhere than the sign-in began. Told like a refused proof; worth an alert.
    OtherConnection,
}

/// What a good proof uses up or rests on; asked again when the step is concluded.
#[derive(Debug)]
enum Finding {
    Password { record: PasswordRecord, renewed: Option<PasswordRecord>, long_enough: bool },
    Voucher(Vouched),
    DeviceKey(DeviceId),
    Totp { seen: TotpRecord, step: u64 },
    Psk { id: Hash, confirmation: Hash },
    BackupCode { salt: [u8; 16], at: usize },
    WebAuthn { credential: Vec<u8>, state: Vec<u8>, sign_count: u32 },
}

#[derive(Debug)]
enum Verdict {
    Good(Finding),
    Bad(Because),
    Unavailable(Unavailable),
}

/// A proof that was looked at. Goes to [`Login::conclude`]; if it is lost, the attempt was a failure.
#[derive(Debug)]
pub struct Examined {
    login: LoginId,
    turn: u32,
    factor: Factor,
    admission: Admission,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    First,
    Further { first: Factor, passed: FactorSet, roles: Roles, epoch: u64 },
    Over,
}

/// One sign-in under way. Lives in the server's memory; whoever loses it begins anew.
#[derive(Debug)]
pub struct Login {
    challenge: Challenge,
    begun_at: Timestamp,
    account: Option<AccountId>,
    tag: AttemptTag,
    origin: Origin,
    turn: u32,
    proofs_left: u8,
    stage: Stage,
    psk_confirmation: Option<Hash>,
    vouched: Option<Vouched>,
}

impl Login {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn begin(
        policy: &Policy,
        attempts: &Attempts,
        start: &Start<'_>,
        now: Now,
        random: &mut dyn Random,
    ) -> Result<Self, RandomError> {
        let (account, tag) = match start.who {
            Named::Account(account) => (Some(account), attempts.account(account)),
            Named::Nobody(name) => (None, attempts.stranger(name)),
        };
        let challenge = Challenge {
            version: 1,
            genesis: start.genesis,
            appliance: start.appliance,
            login: LoginId(draw(random)?),
            nonce: draw(random)?,
            channel: start.channel.binding(),
            expires_at: Timestamp(now.wall.0.saturating_add(u64::from(policy.login.lifetime_ms))),
        };
        Ok(Self {
            challenge,
            begun_at: now.wall,
            account,
            tag,
            origin: start.origin,
            turn: 0,
            proofs_left: policy.login.proofs_max,
            stage: Stage::First,
            psk_confirmation: None,
            vouched: None,
        })
    }

    /// Its name among those that are under way.
    #[must_use]
    pub const fn id(&self) -> LoginId {
        self.challenge.login
    }

    /// Whether its first proof was taken: only then is anything told that depends on whose account it is.
    #[must_use]
    pub const fn has_first(&self) -> bool {
        matches!(self.stage, Stage::Further { .. })
    }

    /// What device keys, pre-shared keys and authenticators answer. One for the whole sign-in: a factor is taken
    /// once, and a sign-in that is over takes none.
    #[must_use]
    pub const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// The account that the caller named, if there is one.
    #[must_use]
    pub const fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// Whether it takes no more proofs.
    #[must_use]
    pub fn is_over(&self, wall: Timestamp) -> bool {
        matches!(self.stage, Stage::Over) || wall > self.challenge.expires_at || wall < self.begun_at
    }

    /// The server's proof that it knows the pre-shared key too, once the client has given its.
    #[must_use]
    pub const fn psk_confirmation(&self) -> Option<&Hash> {
        self.psk_confirmation.as_ref()
    }

    /// Counts the attempt. `credentials` are those of the account, which know its sources.
    ///
    /// A device's key cannot be guessed, so a proof with one is counted against the network alone, and no lockout of
    /// the account keeps its owner's devices out.
    ///
    /// # Errors
    /// [`NotAdmitted`]
    pub fn admit(
        &self,
        policy: &Policy,
        attempts: &mut Attempts,
        credentials: Option<&Credentials>,
        incoming: &Incoming,
        now: Now,
    ) -> Result<Admitted, NotAdmitted> {
        if incoming.channel != self.challenge.channel || incoming.origin != self.origin {
            return Err(NotAdmitted::OtherConnection);
        }
        let rules = &policy.attempts;
        let admission = if incoming.factor == Factor::DeviceKey && incoming.device {
            Ok(Attempts::admit_device())
        } else if incoming.factor == Factor::DeviceKey {
            attempts.admit_key(rules, &self.origin, now.wall)
        } else {
            let knows = |source| credentials.is_some_and(|credentials| credentials.knows(&source));
            let known = self.origin.held.is_some_and(knows);
            attempts.admit(rules, self.tag, &self.origin, known, now.wall)
        };
        let admission = admission.map_err(NotAdmitted::Locked)?;
        Ok(Admitted { login: self.id(), factor: incoming.factor, admission })
    }

    /// The proof of an admitted attempt could not be looked at: it was no failure of anybody.
    pub fn give_back(&self, admitted: Admitted, attempts: &mut Attempts) {
        attempts.passed(admitted.admission);
    }

    /// Looks at a proof. `subject` is the account as it is now, if there is one; nothing of it is changed.
    #[must_use]
    pub fn examine(
        &self,
        admitted: Admitted,
        proof: Proof,
        subject: Option<Subject<'_>>,
        tools: &Tools<'_>,
        now: Now,
        random: &mut dyn Random,
    ) -> Examined {
        let Admitted { login, factor, admission } = admitted;
        let verdict = if login == self.id() && factor == proof.factor() {
            self.judge(proof, subject, tools, now, random)
        } else {
            Verdict::Bad(Because::NotAdmitted)
        };
        Examined { login, turn: self.turn, factor, admission, verdict }
    }

    fn judge(
        &self,
        proof: Proof,
        subject: Option<Subject<'_>>,
        tools: &Tools<'_>,
        now: Now,
        random: &mut dyn Random,
    ) -> Verdict {
        let factor = proof.factor();
        // These depend on the sign-in alone, so they tell nothing about an account.
        if self.is_over(now.wall) {
            let over = matches!(self.stage, Stage::Over);
            return Verdict::Bad(if over { Because::Over } else { Because::Expired });
        }
        let in_turn = match self.stage {
            Stage::First => Factor::FIRST.has(factor),
            Stage::Further { first, passed, .. } => {
                Factor::FURTHER.has(factor) && first != factor && !passed.has(factor)
            }
            Stage::Over => false,
        };
        if !in_turn {
            return Verdict::Bad(Because::OutOfTurn(factor));
        }
        if subject.map(|subject| subject.record.id()) != self.account {
            return Verdict::Bad(Because::Changed);
        }
        // The work comes first, and only then what is known about the account: the time tells nothing.
        let found = self.find(proof, subject, tools, now, random);
        match (found, subject) {
            (Verdict::Good(_) | Verdict::Bad(_), None) => Verdict::Bad(Because::NoAccount),
            (Verdict::Good(_), Some(subject)) if !subject.record.is_active() => {
                Verdict::Bad(Because::NotActive(subject.record.status().name()))
            }
            (found, _) => found,
        }
    }

    fn find(
        &self,
        proof: Proof,
        subject: Option<Subject<'_>>,
        tools: &Tools<'_>,
        now: Now,
        random: &mut dyn Random,
    ) -> Verdict {
        let (factor, policy) = (proof.factor(), tools.policy);
        let credentials = subject.map(|subject| subject.credentials);
        let not_enrolled = || Verdict::Bad(Because::NotEnrolled(factor));
        match proof {
            Proof::Password(password) => {
                let record = credentials.and_then(Credentials::password);
                match (password::check(record, policy.password.cost.0, &password), record) {
                    (Err(error), _) => Verdict::Unavailable(error.into()),
                    (Ok(true), Some(record)) => Verdict::Good(Finding::Password {
                        // Only where the password leads somewhere, or the time would tell that it is right.
                        renewed: subject
                            .map(|subject| subject.record)
                            .filter(|record| {
                                let way = policy.requirements(record.roles(), factor);
                                record.is_active() && way.is_some()
                            })
                            .and_then(|_| record.renewed(policy, &password, random)),
                        long_enough: record.stands_alone()
                            && password.chars() >= usize::from(policy.password.chars_min_alone),
                        record: record.clone(),
                    }),
                    (Ok(_), None) => not_enrolled(),
                    (Ok(false), Some(_)) => Verdict::Bad(Because::WrongPassword),
                }
            }
            Proof::Voucher(voucher) => {
                let age = now.wall.0.checked_sub(voucher.at().0);
                if age.is_none_or(|ms| ms > u64::from(policy.login.voucher_age_ms_max)) {
                    return Verdict::Bad(Because::VoucherExpired);
                }
                if voucher.login() != self.id() {
                    return Verdict::Bad(Because::OtherSignIn);
                }
                let link = voucher.link();
                if subject.is_some_and(|subject| subject.record.link_to(link.issuer) == Some(&link)) {
                    Verdict::Good(Finding::Voucher(voucher.vouched()))
                } else {
                    Verdict::Bad(Because::NotLinked)
                }
            }
            Proof::NotVouched(kind) => Verdict::Bad(Because::NotVouched(kind)),
            Proof::DeviceKey(proof) => {
                let devices = subject.map_or(&[][..], |subject| subject.devices);
                match challenge::check(&proof, &self.challenge, self.account, devices, tools.backend) {
                    Ok(device) => Verdict::Good(Finding::DeviceKey(device)),
                    Err(error) => Verdict::Bad(error.into()),
                }
            }
            Proof::Totp(code) => {
                let Some(record) = credentials.and_then(Credentials::totp).filter(|totp| totp.is_confirmed())
                else {
                    return not_enrolled();
                };
                match record.find(policy, code, now.wall) {
                    Ok(step) => Verdict::Good(Finding::Totp { seen: record.clone(), step }),
                    Err(error) => Verdict::Bad(error.into()),
                }
            }
            Proof::Psk(proof) => {
                let (Some(record), Some(account)) = (credentials.and_then(Credentials::psk), self.account)
                else {
                    return not_enrolled();
                };
                if !record.is_answered(&self.challenge, account, &proof) {
                    return Verdict::Bad(Because::WrongPsk);
                }
                let confirmation = record.confirmation(&self.challenge, account, &proof);
                Verdict::Good(Finding::Psk { id: *record.id(), confirmation })
            }
            Proof::BackupCode(code) => {
                let Some(record) = credentials.and_then(Credentials::backup) else { return not_enrolled() };
                match record.find(&code) {
                    Ok(Some(at)) => Verdict::Good(Finding::BackupCode { salt: *record.salt(), at }),
                    Ok(None) => Verdict::Bad(Because::WrongBackupCode),
                    Err(error) => Verdict::Unavailable(error.into()),
                }
            }
            Proof::WebAuthn(proof) => {
                let Some(verifier) = tools.webauthn else {
                    return Verdict::Unavailable(Unavailable::WebAuthn);
                };
                let known = credentials.map_or(&[][..], Credentials::webauthn);
                match webauthn::check(&proof, &self.challenge, known, verifier) {
                    Ok((known, sign_count)) => Verdict::Good(Finding::WebAuthn {
                        state: known.state().to_vec(),
                        credential: proof.credential,
                        sign_count,
                    }),
                    Err(error) => Verdict::Bad(error.into()),
                }
            }
        }
    }

    /// Uses the proof up and moves on. `desk` is the account as it is now, if there is one.
    ///
    /// From here on a used code, step or counter is used: the desk's credentials are stored even if the sign-in goes no
    /// further.
    pub fn conclude(
        &mut self,
        policy: &Policy,
        examined: Examined,
        desk: Option<Desk<'_>>,
        attempts: &mut Attempts,
        now: Now,
    ) -> Step {
        let Examined { login, turn, factor, admission, verdict } = examined;
        if login != self.id() || turn != self.turn {
            attempts.failed(admission);
            return Step::Refused { because: Because::Overtaken, over: self.is_over(now.wall) };
        }
        self.turn = self.turn.saturating_add(1);
        let finding = match verdict {
            Verdict::Good(finding) => finding,
            Verdict::Bad(because) => return self.refuse(because, admission, attempts, now),
            Verdict::Unavailable(why) => {
                attempts.passed(admission);
                return Step::Unavailable(why);
            }
        };
        let Some(desk) = desk else { return self.refuse(Because::Changed, admission, attempts, now) };
        if self.is_over(now.wall) {
            return self.refuse(Because::Expired, admission, attempts, now);
        }
        match self.advance(policy, factor, finding, desk, now) {
            Ok(Step::Done(grant)) => {
                attempts.succeeded(admission);
                Step::Done(grant)
            }
            Ok(step) => {
                attempts.passed(admission);
                self.spend();
                step
            }
            Err(because) => self.refuse(because, admission, attempts, now),
        }
    }

    /// All three steps at once, from where the sign-in began.
    #[cfg(test)]
    fn step(
        &mut self,
        proof: Proof,
        desk: Option<Desk<'_>>,
        attempts: &mut Attempts,
        tools: &Tools<'_>,
        now: Now,
        random: &mut dyn Random,
    ) -> Step {
        let subject = desk.as_ref().map(|desk| Subject {
            record: desk.record,
            credentials: desk.credentials,
            devices: desk.devices,
        });
        let credentials = subject.map(|subject| subject.credentials);
        let incoming = self.incoming(proof.factor());
        let admitted = match self.admit(tools.policy, attempts, credentials, &incoming, now) {
            Ok(admitted) => admitted,
            Err(NotAdmitted::Locked(locked)) => return Step::LockedUntil(locked),
            Err(NotAdmitted::OtherConnection) => unreachable!("it comes from where the sign-in began"),
        };
        let examined = self.examine(admitted, proof, subject, tools, now, random);
        self.conclude(tools.policy, examined, desk, attempts, now)
    }

    #[cfg(test)]
    const fn incoming(&self, factor: Factor) -> Incoming {
        Incoming { factor, origin: self.origin, channel: self.challenge.channel, device: false }
    }

    fn advance(
        &mut self,
        policy: &Policy,
        factor: Factor,
        finding: Finding,
        desk: Desk<'_>,
        now: Now,
    ) -> Result<Step, Because> {
        let record = desk.record;
        if Some(record.id()) != self.account {
            return Err(Because::Changed);
        }
        if !record.is_active() {
            return Err(Because::NotActive(record.status().name()));
        }
        let credentials = desk.credentials;
        let long_enough = matches!(finding, Finding::Password { long_enough: true, .. });
        self.use_up(policy, finding, record, credentials, desk.devices, now)?;
        let (first, passed) = match self.stage {
            Stage::First => (factor, FactorSet::EMPTY),
            Stage::Further { first, passed, roles, epoch } => {
                if record.roles() != roles || record.epoch() != epoch {
                    self.stage = Stage::Over;
                    return Err(Because::Changed);
                }
                (first, passed.with(factor))
            }
            Stage::Over => return Err(Because::Over),
        };
        let requirements = policy.requirements(record.roles(), first).ok_or(Because::NotThisWay(first))?;
        let open =
            |passed: FactorSet| requirements.iter().map(|then| then.len() - met(then, passed)).sum::<usize>();
        let left = open(passed);
        if left == 0 {
            // Each requirement has a factor of its own. A password that is the only one has to be long enough for that,
            // as the policy is now and as it was when it was chosen.
            if first == Factor::Password && passed.is_empty() && !long_enough {
                return Err(Because::PasswordNotEnough);
            }
            self.stage = Stage::Over;
            if let Some(source) = self.origin.held {
                credentials.remember(source, now.wall);
            }
            return Ok(Step::Done(Box::new(Grant {
                account: record.id(),
                roles: record.roles(),
                epoch: record.epoch(),
                first,
                further: passed,
                channel: self.challenge.channel,
                network: self.origin.network,
                backup_low: credentials.backup().and_then(|set| set.low(policy)),
                vouched: self.vouched,
                at: now,
            })));
        }
        let mut enrolled = credentials.enrolled();
        if !desk.devices.is_empty() {
            enrolled = enrolled.with(Factor::DeviceKey);
        }
        let candidates = enrolled.and(Factor::FURTHER).without(passed).without(FactorSet::EMPTY.with(first));
        let useful: FactorSet =
            candidates.iter().filter(|factor| open(passed.with(*factor)) < left).collect();
        if useful.is_empty() {
            // The sign-in stands where it stood, as after a wrong proof: nobody learns from it that this one was right.
            return Err(Because::CannotComplete);
        }
        self.stage = Stage::Further { first, passed, roles: record.roles(), epoch: record.epoch() };
        Ok(Step::Need(useful))
    }

    /// Asks again, against the account as it is now, and takes what is good once.
    fn use_up(
        &mut self,
        policy: &Policy,
        finding: Finding,
        record: &AccountRecord,
        credentials: &mut Credentials,
        devices: &[KnownDevice],
        now: Now,
    ) -> Result<(), Because> {
        match finding {
            Finding::Password { record: seen, renewed, long_enough: _ } => {
                if credentials.password() != Some(&seen) {
                    return Err(Because::Changed);
                }
                if renewed.is_some() {
                    credentials.set_password(renewed);
                }
            }
            Finding::Voucher(vouched) => {
                if record.link_to(vouched.link.issuer) != Some(&vouched.link) {
                    return Err(Because::NotLinked);
                }
                self.vouched = Some(vouched);
            }
            Finding::DeviceKey(device) => {
                if !devices.iter().any(|known| known.id == device) {
                    return Err(DeviceProofError::UnknownDevice.into());
                }
            }
            Finding::Totp { seen, step } => {
                let totp = credentials.totp_mut().ok_or(Because::NotEnrolled(Factor::Totp))?;
                if !totp.is_of_the_seed_of(&seen) {
                    return Err(Because::Changed);
                }
                if !totp.is_confirmed() || !totp.take(policy, step, now.wall) {
                    return Err(TotpError::Used.into());
                }
            }
            Finding::Psk { id, confirmation } => {
                if credentials.psk().map(crate::PskRecord::id) != Some(&id) {
                    return Err(Because::Changed);
                }
                self.psk_confirmation = Some(confirmation);
            }
            Finding::BackupCode { salt, at } => {
                if !credentials.backup_mut().is_some_and(|set| set.take(&salt, at)) {
                    return Err(Because::WrongBackupCode);
                }
            }
            Finding::WebAuthn { credential, state, sign_count } => {
                let known = credentials.webauthn_mut(&credential).ok_or(WebAuthnError::UnknownCredential)?;
                if known.state() != state {
                    return Err(Because::Changed);
                }
                if !known.advance(sign_count, now.wall) {
                    return Err(WebAuthnError::CounterWentBack.into());
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, because: Because, admission: Admission, attempts: &mut Attempts, now: Now) -> Step {
        attempts.failed(admission);
        self.spend();
        Step::Refused { because, over: self.is_over(now.wall) }
    }

    fn spend(&mut self) {
        self.proofs_left = self.proofs_left.saturating_sub(1);
        if self.proofs_left == 0 {
            self.stage = Stage::Over;
        }
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
