//! The sign-in policy: everything that an organisation decides about sign-in, as one checked document.
//!
//! No setting makes a check lenient: a policy that asks for less than the floors of this file is refused as a whole.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::ops::Deref;
use thiserror::Error;
use zixt_crypto::password::Params;
use zixt_types::{Canonical, ParseError, limits};

use crate::factor::{Factor, FactorSet, met};
use crate::role::Roles;
use zixt_types::Role;

/// Characters of a password that stands alone (SP 800-63B-4 section 3.1.1.2).
pub const PASSWORD_CHARS_MIN_ALONE: u16 = 15;
/// Characters of a password that is only ever used with a second factor (same section).
pub const PASSWORD_CHARS_MIN: u16 = 8;
/// Failed attempts in succession that an account may see, over all sources (SP 800-63B-4 section 3.2.2).
pub const FAILURES_MAX: u32 = 100;

/// Argon2id costs at least so many KiB and passes (OWASP, Password Storage Cheat Sheet): 19 MiB and two.
const COST_MIN: (u32, u32) = (19 * 1024, 2);
/// And at most so many, or sign-ins would starve everything else: 256 MiB and ten.
const COST_MAX: (u32, u32) = (256 * 1024, 10);

/// The cost of Argon2id in a stored form: memory in KiB, passes, lanes (RFC 9106 section 3.1), within the limits of
/// `zixt_crypto::password::Params`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost(pub Params);

impl<C> Encode<C> for Cost {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(3)?.u32(self.0.memory_kib())?.u32(self.0.passes())?.u32(self.0.lanes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Cost {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        if d.array()? != Some(3) {
            return Err(decode::Error::message("a cost has three numbers").at(at));
        }
        Params::new(d.u32()?, d.u32()?, d.u32()?)
            .map(Self)
            .map_err(|error| decode::Error::custom(error).at(at))
    }
}

/// Rules for passwords.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PasswordPolicy {
    /// The cost of new hashes. Older ones are replaced when their password is next given.
    #[n(0)]
    pub cost: Cost,
    /// Characters of a password that some way to sign in takes alone.
    #[n(1)]
    pub chars_min_alone: u16,
    /// Characters of a password that is always followed by another factor.
    #[n(2)]
    pub chars_min: u16,
}

/// The hash of the one-time passwords (RFC 6238 section 1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum TotpAlgorithm {
    /// What every authenticator app knows. HMAC needs no collision resistance (RFC 6194 section 3.3).
    #[n(0)]
    Sha1,
    /// Not known to every app.
    #[n(1)]
    Sha256,
    /// Not known to every app.
    #[n(2)]
    Sha512,
}

/// Rules for TOTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct TotpPolicy {
    /// For new enrolments.
    #[n(0)]
    pub algorithm: TotpAlgorithm,
    /// Digits of a code, for new enrolments: 6 to 8 (RFC 4226 section 5.3).
    #[n(1)]
    pub digits: u8,
    /// Seconds of a step, for new enrolments (RFC 6238 section 5.2 recommends 30).
    #[n(2)]
    pub period_s: u8,
    /// Steps before and after the expected one that are taken (RFC 6238 section 5.2 wants one for the network; more are
    /// for clocks that nobody sets).
    #[n(3)]
    pub window_steps: u8,
    /// Steps that an authenticator may have drifted from the wall clock in all (RFC 6238 section 6).
    #[n(4)]
    pub drift_steps_max: u8,
}

/// Rules for backup codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct BackupPolicy {
    /// The cost of their hashes. A code has 80 random bits, so it may be lower than a password's.
    #[n(0)]
    pub cost: Cost,
    /// Codes in a set.
    #[n(1)]
    pub codes: u8,
    /// At so many unused codes or fewer the user is warned.
    #[n(2)]
    pub low: u8,
}

/// Rules for one sign-in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct LoginPolicy {
    /// It has to be over by then, in milliseconds of the wall clock.
    #[n(0)]
    pub lifetime_ms: u32,
    /// Proofs that it takes, good and bad.
    #[n(1)]
    pub proofs_max: u8,
    /// A directory's or identity provider's word is good for so long, in milliseconds of the wall clock.
    #[n(2)]
    pub voucher_age_ms_max: u32,
}

/// Rules for failed attempts. A back-off doubles with each failure beyond the free ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AttemptPolicy {
    /// Failures of an account from unknown sources before the first back-off.
    #[n(0)]
    pub account_free: u16,
    /// Failures of an account from unknown sources after which unknown sources are refused until it is lifted.
    #[n(1)]
    pub account_hard: u16,
    /// Failures of an account from one known source after which that source counts as unknown.
    #[n(2)]
    pub known_free: u16,
    /// Failures from one network, whatever the account, before the first back-off.
    #[n(3)]
    pub network_free: u16,
    /// The first back-off, in milliseconds.
    #[n(4)]
    pub backoff_ms: u32,
    /// The longest back-off, in milliseconds.
    #[n(5)]
    pub backoff_ms_max: u32,
}

/// A span of time, by one clock or both; it is over when either says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Span {
    /// Milliseconds of the wall clock.
    #[n(0)]
    pub wall_ms: Option<u64>,
    /// Milliseconds of ledger time, which stands still while nothing is recorded.
    #[n(1)]
    pub ledger_ms: Option<u64>,
}

/// How long sessions of a role last (SP 800-63B-4 section 2.2.3). Of several roles the shortest counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SessionPolicy {
    /// Without a request.
    #[n(0)]
    pub idle: Span,
    /// In all.
    #[n(1)]
    pub absolute: Span,
}

/// One way to sign in.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Path {
    /// What it begins with.
    #[n(0)]
    pub first: Factor,
    /// What has to follow: one factor of each set, each factor for one set.
    #[n(1)]
    pub then: Vec<FactorSet>,
}

/// The rules of one role.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct RolePolicy {
    /// The role.
    #[n(0)]
    pub role: Role,
    /// Its ways to sign in; none if it cannot.
    #[n(1)]
    pub paths: Vec<Path>,
    /// Its sessions.
    #[n(2)]
    pub sessions: SessionPolicy,
}

/// A policy as it is written, kept and signed. [`Policy::new`] makes it one that is used.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PolicyDocument {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// Passwords.
    #[n(1)]
    pub password: PasswordPolicy,
    /// TOTP.
    #[n(2)]
    pub totp: TotpPolicy,
    /// Backup codes.
    #[n(3)]
    pub backup: BackupPolicy,
    /// One sign-in.
    #[n(4)]
    pub login: LoginPolicy,
    /// Failed attempts.
    #[n(5)]
    pub attempts: AttemptPolicy,
    /// Every role, in the order of [`Role::ALL`].
    #[n(6)]
    pub roles: Vec<RolePolicy>,
}

impl Canonical for PolicyDocument {
    const WHAT: &'static str = "sign-in policy";
    const BYTES_MAX: usize = limits::SIGN_IN_POLICY_BYTES_MAX;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        self.check_numbers()?;
        if self.roles.len() != Role::ALL.len()
            || self.roles.iter().zip(Role::ALL).any(|(rules, role)| rules.role != role)
        {
            return Err("every role has one entry, in order");
        }
        self.roles.iter().try_for_each(check_role)
    }
}

impl PolicyDocument {
    fn check_numbers(&self) -> Result<(), &'static str> {
        let Self { version, password, totp, backup, login, attempts, roles: _ } = self;
        let costs = |cost: &Cost| {
            (COST_MIN.0..=COST_MAX.0).contains(&cost.0.memory_kib())
                && (COST_MIN.1..=COST_MAX.1).contains(&cost.0.passes())
        };
        let rules = [
            (*version == 1, "the version is 1"),
            (
                costs(&password.cost) && costs(&backup.cost),
                "a hash costs 19 to 256 MiB and 2 to 10 passes of Argon2id",
            ),
            (
                password.chars_min_alone >= PASSWORD_CHARS_MIN_ALONE,
                "a password alone has at least 15 characters",
            ),
            (password.chars_min >= PASSWORD_CHARS_MIN, "a password has at least 8 characters"),
            (password.chars_min <= password.chars_min_alone, "a password alone is the longer one"),
            // SP 800-63B-4 section 3.1.1.2: at least 64 have to be allowed, so no more may be demanded.
            (password.chars_min_alone <= 64, "no password needs more than 64 characters"),
            ((6..=8).contains(&totp.digits), "a one-time password has 6 to 8 digits"),
            ((15..=60).contains(&totp.period_s), "a step of TOTP has 15 to 60 seconds"),
            (totp.window_steps <= 3, "TOTP takes at most 3 steps before and after"),
            (totp.drift_steps_max <= 60, "TOTP follows a drift of at most 60 steps"),
            (
                (5..=limits::BACKUP_CODES_MAX).contains(&usize::from(backup.codes)),
                "a set has 5 to 20 backup codes",
            ),
            (backup.low < backup.codes, "the warning comes after the first backup code is used"),
            ((30_000..=900_000).contains(&login.lifetime_ms), "a sign-in takes half a minute to 15 minutes"),
            ((2..=20).contains(&login.proofs_max), "a sign-in takes 2 to 20 proofs"),
            (
                (1_000..=300_000).contains(&login.voucher_age_ms_max),
                "a voucher is good for 1 second to 5 minutes",
            ),
            (attempts.account_free >= 1 && attempts.network_free >= 1, "one failure is free"),
            (attempts.account_free <= 10, "at most 10 failures of an account are free"),
            (attempts.network_free <= 1_000, "at most 1000 failures of a network are free"),
            (attempts.account_hard > attempts.account_free, "the hard limit comes after the free failures"),
            (attempts.known_free >= 1, "one failure of a known source is free"),
            (
                u32::from(attempts.account_hard)
                    + u32::from(attempts.known_free) * limits::KNOWN_SOURCES_MAX as u32
                    <= FAILURES_MAX,
                "all sources together may fail at most 100 times",
            ),
            (attempts.backoff_ms >= 1_000, "a back-off begins with a second or more"),
            (attempts.backoff_ms_max >= 60_000, "a back-off may grow to a minute or more"),
            (attempts.backoff_ms_max <= 86_400_000, "a back-off ends after a day"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }
}

fn check_role(rules: &RolePolicy) -> Result<(), &'static str> {
    for span in [rules.sessions.idle, rules.sessions.absolute] {
        if span.wall_ms.is_none() && span.ledger_ms.is_none() {
            return Err("a session ends by at least one clock");
        }
    }
    // Ledger time stands still while nothing is recorded, so it alone would leave a session open on an idle appliance.
    if rules.sessions.absolute.wall_ms.is_none_or(|ms| ms > 31 * 86_400_000) {
        return Err("a session ends after at most 31 days of the wall clock");
    }
    if rules.paths.len() > limits::SIGN_IN_PATHS_MAX {
        return Err("a role has too many ways to sign in");
    }
    for (at, path) in rules.paths.iter().enumerate() {
        if !Factor::FIRST.has(path.first) {
            return Err("a sign-in begins with a password, a directory, single sign-on or a device key");
        }
        if rules.paths[..at].iter().any(|other| other.first == path.first) {
            return Err("a role has one way for each first factor");
        }
        if path.then.len() > limits::SIGN_IN_REQUIREMENTS_MAX {
            return Err("a way to sign in asks for too many factors");
        }
        let allowed = Factor::FURTHER.without(FactorSet::EMPTY.with(path.first));
        if path.then.iter().any(|set| set.is_empty() || !set.is_within(allowed)) {
            return Err("a requirement names factors that can follow the first");
        }
        if met(&path.then, allowed) != path.then.len() {
            return Err("a way to sign in can never be completed");
        }
        // The roles that could open the door to everybody else are not opened by a password, a stolen phone or an IdP.
        if matches!(rules.role, Role::SecurityOfficer | Role::Administrator)
            && !Factor::PHISHING_RESISTANT.has(path.first)
            && !path.then.iter().any(|set| set.is_within(Factor::PHISHING_RESISTANT))
        {
            return Err("security officers and administrators need a device key or WebAuthn");
        }
        // Whoever sets up an identity provider could sign in as them, and read the record or start updates.
        if matches!(rules.role, Role::Operator | Role::Auditor)
            && Factor::VOUCHED.has(path.first)
            && path.then.is_empty()
        {
            return Err(
                "operators and auditors need a factor of their own after a directory or single sign-on",
            );
        }
        if rules.role == Role::Service && path.first != Factor::DeviceKey {
            return Err("a service signs in with a key");
        }
    }
    Ok(())
}

/// Why a document is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the sign-in policy is refused: {0}")]
pub struct PolicyError(pub &'static str);

/// A policy that keeps the floors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy(PolicyDocument);

impl Policy {
    /// Checks a document.
    ///
    /// # Errors
    /// [`PolicyError`] with the first rule that it breaks.
    pub fn new(document: PolicyDocument) -> Result<Self, PolicyError> {
        document.check().map_err(PolicyError)?;
        Ok(Self(document))
    }

    /// A policy with hashes that take no time. All other rules are kept.
    #[cfg(test)]
    pub(crate) fn cheap(document: PolicyDocument) -> Result<Self, PolicyError> {
        let mut dear = document.clone();
        (dear.password.cost, dear.backup.cost) = (Cost(Params::DEFAULT), Cost(Params::DEFAULT));
        Self::new(dear).map(|_| Self(document))
    }

    /// Reads and checks a document.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        PolicyDocument::parse(bytes).map(Self)
    }

    /// What sign-in of somebody with these roles asks for after `first`: for each role a list of requirements. `None`
    /// if one of the roles cannot sign in this way.
    #[must_use]
    pub fn requirements(&self, roles: Roles, first: Factor) -> Option<Vec<&[FactorSet]>> {
        self.rules(roles)
            .map(|rules| rules.paths.iter().find(|path| path.first == first).map(|path| path.then.as_slice()))
            .collect()
    }

    /// Whether a password alone signs in somebody with these roles.
    #[must_use]
    pub fn takes_password_alone(&self, roles: Roles) -> bool {
        self.requirements(roles, Factor::Password).is_some_and(|all| all.iter().all(|then| then.is_empty()))
    }

    /// Characters that a password of somebody with these roles needs.
    #[must_use]
    pub fn password_chars_min(&self, roles: Roles) -> u16 {
        if self.takes_password_alone(roles) {
            self.0.password.chars_min_alone
        } else {
            self.0.password.chars_min
        }
    }

    /// The shortest sessions of these roles.
    #[must_use]
    pub fn sessions(&self, roles: Roles) -> SessionPolicy {
        let none = Span { wall_ms: None, ledger_ms: None };
        self.rules(roles).fold(SessionPolicy { idle: none, absolute: none }, |all, rules| SessionPolicy {
            idle: shorter(all.idle, rules.sessions.idle),
            absolute: shorter(all.absolute, rules.sessions.absolute),
        })
    }

    fn rules(&self, roles: Roles) -> impl Iterator<Item = &RolePolicy> {
        self.0.roles.iter().filter(move |rules| roles.has(rules.role))
    }
}

fn shorter(one: Span, other: Span) -> Span {
    let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    Span { wall_ms: least(one.wall_ms, other.wall_ms), ledger_ms: least(one.ledger_ms, other.ledger_ms) }
}

impl Deref for Policy {
    type Target = PolicyDocument;
    fn deref(&self) -> &PolicyDocument {
        &self.0
    }
}

impl Default for PolicyDocument {
    /// What a new appliance begins with: passwords of 15 characters alone for users, a phishing-resistant factor for
    /// officers and administrators, a second factor for operators and auditors.
    fn default() -> Self {
        use Factor::{BackupCode, DeviceKey, Directory, Password, Sso, Totp, WebAuthn};
        const MINUTE: u64 = 60_000;
        let set = |factors: &[Factor]| factors.iter().copied().collect::<FactorSet>();
        let path = |first, then: &[FactorSet]| Path { first, then: then.to_vec() };
        let sessions = |idle: u64, absolute: u64| SessionPolicy {
            idle: Span { wall_ms: Some(idle * MINUTE), ledger_ms: None },
            absolute: Span { wall_ms: Some(absolute * MINUTE), ledger_ms: Some(absolute * MINUTE) },
        };
        let strong = set(&[WebAuthn, DeviceKey]);
        let second = set(&[Totp, BackupCode, WebAuthn, DeviceKey]);
        let rules = |role| match role {
            Role::SecurityOfficer | Role::Administrator => RolePolicy {
                role,
                paths: vec![path(Password, &[strong]), path(DeviceKey, &[])],
                sessions: sessions(15, 8 * 60),
            },
            Role::Operator | Role::Auditor => RolePolicy {
                role,
                paths: vec![
                    path(Password, &[second]),
                    path(Directory, &[second]),
                    path(Sso, &[second]),
                    path(DeviceKey, &[]),
                ],
                sessions: sessions(30, 12 * 60),
            },
            Role::User => RolePolicy {
                role,
                paths: vec![path(Password, &[]), path(Directory, &[]), path(Sso, &[]), path(DeviceKey, &[])],
                sessions: sessions(60, 24 * 60),
            },
            Role::Service => {
                RolePolicy { role, paths: vec![path(DeviceKey, &[])], sessions: sessions(15, 24 * 60) }
            }
        };
        Self {
            version: 1,
            password: PasswordPolicy {
                cost: Cost(Params::DEFAULT),
                chars_min_alone: PASSWORD_CHARS_MIN_ALONE,
                chars_min: PASSWORD_CHARS_MIN,
            },
            totp: TotpPolicy {
                algorithm: TotpAlgorithm::Sha1,
                digits: 6,
                period_s: 30,
                window_steps: 1,
                drift_steps_max: 10,
            },
            backup: BackupPolicy { cost: Cost(Params::DEFAULT), codes: 10, low: 3 },
            login: LoginPolicy { lifetime_ms: 300_000, proofs_max: 10, voucher_age_ms_max: 60_000 },
            attempts: AttemptPolicy {
                account_free: 5,
                account_hard: 60,
                known_free: 5,
                network_free: 30,
                backoff_ms: 1_000,
                backoff_ms_max: 900_000,
            },
            roles: Role::ALL.map(rules).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_policy_and_round_trips() {
        let policy = Policy::new(PolicyDocument::default()).unwrap();
        assert_eq!(Policy::parse(&policy.to_bytes()), Ok(policy.clone()));
        let user = Roles::new(&[Role::User]).unwrap();
        assert!(policy.takes_password_alone(user));
        assert_eq!(policy.password_chars_min(user), 15);
        let both = Roles::new(&[Role::User, Role::Operator]).unwrap();
        assert_eq!(policy.password_chars_min(both), 8);
        assert_eq!(policy.sessions(both), policy.sessions(Roles::new(&[Role::Operator]).unwrap()));
    }

    #[test]
    fn roles_add_their_requirements() {
        let policy = Policy::new(PolicyDocument::default()).unwrap();
        let both = Roles::new(&[Role::User, Role::Administrator]).unwrap();
        assert_eq!(policy.requirements(both, Factor::Password).unwrap().concat().len(), 1);
        // An administrator cannot begin at a directory, so neither can a user who is one.
        assert_eq!(policy.requirements(both, Factor::Directory), None);
    }

    #[test]
    fn less_than_the_floors_is_refused() {
        let admin = Role::Administrator as usize;
        let changes: [fn(&mut PolicyDocument); 16] = [
            |p| p.password.cost = Cost(Params::MIN),
            |p| p.password.cost = Cost(Params::new(19 * 1024, 1, 1).unwrap()),
            |p| p.backup.cost = Cost(Params::new(18 * 1024, 2, 1).unwrap()),
            |p| p.password.cost = Cost(Params::MAX),
            |p| p.password.chars_min_alone = 14,
            |p| p.password.chars_min = 7,
            |p| p.totp.digits = 5,
            |p| p.totp.window_steps = 4,
            |p| p.attempts.account_hard = 61,
            |p| p.attempts.backoff_ms = 0,
            |p| p.roles.truncate(5),
            |p| p.roles[Role::User as usize].paths[0].first = Factor::Totp,
            |p| p.roles[Role::User as usize].sessions.absolute.wall_ms = None,
            |p| p.roles[Role::Operator as usize].paths[0].then = vec![FactorSet::EMPTY],
            |p| p.roles[Role::Service as usize].paths[0].first = Factor::Password,
            |p| {
                let totp = FactorSet::EMPTY.with(Factor::Totp);
                p.roles[Role::User as usize].paths[0].then = vec![totp, totp];
            },
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut document = PolicyDocument::default();
            change(&mut document);
            assert!(Policy::new(document.clone()).is_err(), "change {at}");
            assert!(Policy::parse(&document.to_bytes()).is_err(), "change {at}");
        }
        for first in [Factor::Password, Factor::Sso, Factor::Directory] {
            let mut document = PolicyDocument::default();
            let then = vec![FactorSet::EMPTY.with(Factor::Totp).with(Factor::WebAuthn)];
            document.roles[admin].paths = vec![Path { first, then }];
            assert!(Policy::new(document).is_err(), "{first}");
        }
        for role in [Role::Operator, Role::Auditor] {
            for first in [Factor::Sso, Factor::Directory] {
                let mut document = PolicyDocument::default();
                document.roles[role as usize].paths = vec![Path { first, then: vec![] }];
                assert!(Policy::new(document).is_err(), "{role} {first}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at: proptest::sample::Index, to: u8) {
            let mut changed = PolicyDocument::default().to_bytes();
            let at = at.index(changed.len());
            changed[at] = to;
            for bytes in [bytes, changed] {
                if let Ok(policy) = Policy::parse(&bytes) {
                    proptest::prop_assert_eq!(policy.to_bytes(), &*bytes);
                    proptest::prop_assert!(Policy::new(policy.0).is_ok());
                }
            }
        }
    }
}
