//! An account's standing: roles, links, invited to offboarded. Pure transitions with typed errors.
//!
//! Each transition takes the record by reference and gives a new one with what else has to happen ([`Effect`]).
//! Access ends by a number: sessions carry the record's `epoch`, and a transition that takes something away raises
//! it. A session row that comes back from a backup or a cache has an old number, and opens nothing.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::hash::constant_time_eq;
use zixt_crypto::{RandomError, hash, labels};
use zixt_types::{AccountId, Hash, RevokeReason, Role, Timestamp, limits};

use crate::change::Enrolment;
use crate::place::Now;
use crate::random::Random;
use crate::role::{Permission, Roles};
use crate::secret::{Secret, SecretForm, for_people, from_people};
use crate::session::{Actor, Forbidden};
use crate::voucher::{IssuerId, Link};

/// Who did something to an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum By {
    /// Somebody with a session.
    #[n(0)]
    Account(#[n(0)] AccountId),
    /// A directory that the account is linked to.
    #[n(1)]
    Directory(#[n(0)] IssuerId),
    /// Officers in a ceremony, by the hash of their action.
    #[n(2)]
    Ceremony(#[n(0)] Hash),
}

/// That officers have approved an action as M of N.
#[derive(Clone, Copy, Debug)]
pub struct Approved(Hash);

impl Approved {
    /// By the hash of the action. Only where `Approved` of `zixt-ceremony` is in the caller's hands, and its action is
    /// this transition of this account: whoever makes one of these may do everything.
    #[must_use]
    pub const fn danger_of(action: Hash) -> Self {
        Self(action)
    }
}

/// On whose authority a transition happens.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// Somebody with a session, whose access is still what it was when the session was checked.
    Caller(Actor<'a>),
    /// A directory's sync: suspends and resumes accounts that are linked to it, and nothing else. See also
    /// [`AccountRecord::map_roles`].
    Directory(IssuerId),
    /// Officers, as M of N.
    Ceremony(Approved),
}

impl Authority<'_> {
    fn require(&self, permission: Permission) -> Result<By, Forbidden> {
        match self {
            Self::Caller(caller) => caller.require(permission).map(|()| By::Account(caller.account())),
            Self::Directory(_) => Err(Forbidden::DirectoryMayNot(permission)),
            Self::Ceremony(Approved(action)) => Ok(By::Ceremony(*action)),
        }
    }

    /// For what no single person does, whatever their role.
    fn require_ceremony(&self) -> Result<(), Forbidden> {
        match self {
            Self::Ceremony(_) => Ok(()),
            Self::Caller(_) | Self::Directory(_) => Err(Forbidden::NeedsCeremony),
        }
    }
}

/// Where an account stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Status {
    /// Waits for its person.
    #[n(0)]
    Invited {
        /// The hash of the code that the person was given.
        #[n(0)]
        code: Hash,
        /// The last moment, by the wall clock.
        #[n(1)]
        expires_at: Timestamp,
        /// By whom.
        #[n(2)]
        by: By,
        /// Whether it is the second half of a recovery.
        #[n(3)]
        recovery: bool,
        /// The last moment by ledger time, which nobody sets back.
        #[n(4)]
        expires_ledger: Timestamp,
    },
    /// In use.
    #[n(1)]
    Active,
    /// Held for a while. Keeps everything, opens nothing.
    #[n(2)]
    Suspended {
        /// By whom.
        #[n(0)]
        by: By,
        /// Since when, by the wall clock.
        #[n(1)]
        at: Timestamp,
    },
    /// Over for good.
    #[n(3)]
    Offboarded {
        /// By whom.
        #[n(0)]
        by: By,
        /// Since when, by the wall clock.
        #[n(1)]
        at: Timestamp,
    },
}

impl Status {
    /// The word for it in reports and errors.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Invited { .. } => "invited",
            Self::Active => "active",
            Self::Suspended { .. } => "suspended",
            Self::Offboarded { .. } => "offboarded",
        }
    }
}

/// An account, as far as sign-in is concerned. Its devices are the ledger's; its credentials are apart.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AccountRecord {
    #[n(0)]
    version: u64,
    #[n(1)]
    id: AccountId,
    #[n(2)]
    roles: Roles,
    #[n(3)]
    status: Status,
    #[n(4)]
    links: Vec<Link>,
    #[n(5)]
    epoch: u64,
}

/// More changes than anybody makes; below it no epoch ever stops counting.
const EPOCH_MAX: u64 = (1 << 62) - 1;

// Read and written by this crate only, authenticated: see `rows`.
impl SecretForm for AccountRecord {
    const WHAT: &'static str = "account record";
    const BYTES_MAX: usize = limits::ACCOUNT_RECORD_BYTES_MAX;

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        if self.links.len() > limits::ACCOUNT_LINKS_MAX {
            return Err("an account has at most 4 links");
        }
        if self.epoch > EPOCH_MAX {
            return Err("an epoch is below 2^62");
        }
        if self.links.windows(2).any(|pair| pair[0].issuer >= pair[1].issuer) {
            return Err("links are sorted, one for each issuer");
        }
        Ok(())
    }
}

/// What else a transition demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// End every session and every stream of the account now.
    EndSessions,
    /// Erase the account's credentials, and let nothing sign in with them meanwhile.
    EraseCredentials,
    /// Revoke every device of the account in the ledger; groups rotate their keys on it.
    RevokeDevices(RevokeReason),
}

/// A record after a transition, with what else has to happen. Store the record first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The record to store.
    pub record: AccountRecord,
    /// What follows, in this order.
    pub effects: Vec<Effect>,
}

/// An invitation that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The record to store, and what follows.
    pub change: Change,
    /// What makes the account's new credentials. They are stored in one step with the record, in the place of all that
    /// were there.
    pub enrolment: Enrolment,
}

/// How many active accounts have the roles that an appliance cannot do without, the one in question counted. Count and
/// store under one lock for all accounts, or two who suspend each other leave nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Population {
    /// Active security officers.
    pub officers: u32,
    /// Active administrators.
    pub administrators: u32,
    /// Active auditors.
    pub auditors: u32,
}

/// Why a transition is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AccountError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The account does not stand where it would have to.
    #[error("the account is {got}; it would have to be {expected}")]
    Status {
        /// Where it stands.
        got: &'static str,
        /// Where it would have to.
        expected: &'static str,
    },
    /// Nobody does this to themselves.
    #[error("nobody may do this to their own account")]
    OwnAccount,
    /// The appliance would be left without.
    #[error("this is the last active {0}")]
    LastOf(Role),
    /// The code is not the invitation's.
    #[error("the invitation's code is wrong")]
    WrongCode,
    /// Too late.
    #[error("the invitation has expired")]
    Expired,
    /// An invitation must end, and not right now.
    #[error("the invitation would end before it begins, or after more than {max} days", max = INVITATION_DAYS_MAX)]
    Lifetime,
    /// The account is not linked to this directory.
    #[error("the account is not linked to this directory")]
    NotLinked,
    /// Somebody with more weight suspended it: a directory lifts only what it imposed, and what officers imposed in a
    /// ceremony only a ceremony lifts.
    #[error("the account was suspended by others")]
    SuspendedByOthers,
    /// A link to somebody who is there already needs their own session.
    #[error("an account in use is linked from a session of its own, or by a ceremony")]
    LinkNeedsOwner,
    /// Too many links, or a second one to the same issuer.
    #[error("the account has too many links, or one to this issuer already")]
    Links,
}

/// Days for which an invitation is good.
pub const INVITATION_DAYS_MAX: u64 = 31;

/// The code of an invitation to sign in: 160 random bits, given to the person by hand. Stored as a hash, which is
/// enough for a secret of more than 112 bits (SP 800-63B-4 section 3.1.2.2).
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationCode(Secret<20>);

impl InvitationCode {
    /// A new code.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn generate(random: &mut dyn Random) -> Result<Self, RandomError> {
        Secret::draw(random).map(Self)
    }

    /// As it is printed: 32 characters in groups of four.
    #[must_use]
    pub fn to_text(&self) -> zeroize::Zeroizing<String> {
        for_people(self.0.as_bytes())
    }

    /// Reads what somebody typed. `None` if it is no code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_people(text).map(Self)
    }

    fn hash(&self, account: AccountId) -> Hash {
        hash::sha384(labels::INVITATION_CODE, &[account.as_bytes(), self.0.as_bytes()])
    }
}

impl std::fmt::Debug for InvitationCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InvitationCode(redacted)")
    }
}

impl AccountRecord {
    /// The record of a person whom an enroller invited into the ledger: a user, who comes in with a device. The authority
    /// is the enroller's signature, which the ledger has checked; it makes nobody more than a user.
    #[must_use]
    pub fn of_the_ledger(id: AccountId) -> Self {
        let status = Status::Active;
        Self { version: 1, id, roles: Roles::USER, status, links: Vec::new(), epoch: 0 }
    }

    /// Invites somebody. An auditor takes a security officer; a security officer or an administrator takes a ceremony,
    /// because one person with two such accounts could do everything that takes two people. `id` is a new one.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`], [`AccountError::Lifetime`]
    pub fn invite(
        by: &Authority<'_>,
        id: AccountId,
        roles: Roles,
        code: &InvitationCode,
        now: Now,
        expires_at: Timestamp,
    ) -> Result<Self, AccountError> {
        let permission = if roles.are_privileged() {
            Permission::ChangePrivilegedRoles
        } else {
            Permission::InviteAccounts
        };
        let giver = by;
        let by = giver.require(permission)?;
        if roles.could_take_over() {
            giver.require_ceremony()?;
        }
        let end = Lifetime::until(now, expires_at)?;
        let status = end.invited(code.hash(id), by, false);
        Ok(Self { version: 1, id, roles, status, links: Vec::new(), epoch: 0 })
    }

    /// The person comes with the code, and sets what they sign in with from now on. Show them the links that are there:
    /// whoever is at the other end of one signs in, too.
    ///
    /// # Errors
    /// [`AccountError::Status`], [`AccountError::Expired`], [`AccountError::WrongCode`]. The code is compared in any
    /// case.
    pub fn accept(&self, code: &InvitationCode, now: Now) -> Result<Accepted, AccountError> {
        let Status::Invited { code: expected, expires_at, expires_ledger, .. } = &self.status else {
            return Err(self.not("invited"));
        };
        if !constant_time_eq(expected.as_bytes(), code.hash(self.id).as_bytes()) {
            return Err(AccountError::WrongCode);
        }
        if now.wall > *expires_at || now.ledger > *expires_ledger {
            return Err(AccountError::Expired);
        }
        let change = self.to(Status::Active, vec![Effect::EndSessions, Effect::EraseCredentials]);
        Ok(Accepted { change, enrolment: Enrolment::new(self.id) })
    }

    /// Holds an account. Directories do so when somebody is disabled or gone there. What a directory imposed, people may
    /// take over, so that it no longer lifts it.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn suspend(
        &self,
        by: &Authority<'_>,
        population: Population,
        wall: Timestamp,
    ) -> Result<Change, AccountError> {
        let by = self.authority(by, Permission::SuspendAccounts)?;
        match self.status {
            Status::Active => self.not_the_last(population, None)?,
            Status::Suspended { by: By::Directory(_), .. } if !matches!(by, By::Directory(_)) => {}
            _ => return Err(self.not("active")),
        }
        Ok(self.to(Status::Suspended { by, at: wall }, vec![Effect::EndSessions]))
    }

    /// Lets a suspended account in again. A directory lifts only what it imposed, and a ceremony's hold only a ceremony.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn resume(&self, by: &Authority<'_>) -> Result<Change, AccountError> {
        let by = self.authority(by, Permission::SuspendAccounts)?;
        match self.status {
            Status::Suspended { by: imposed, .. } if matches!(by, By::Directory(_)) && imposed != by => {
                Err(AccountError::SuspendedByOthers)
            }
            Status::Suspended { by: By::Ceremony(_), .. } if !matches!(by, By::Ceremony(_)) => {
                Err(AccountError::SuspendedByOthers)
            }
            Status::Suspended { .. } => Ok(self.to(Status::Active, vec![])),
            _ => Err(self.not("suspended")),
        }
    }

    /// Ends an account for good. Its entries in the ledger stay, as evidence. Administrators and auditors take a security
    /// officer, and security officers a ceremony: nobody removes alone who would have had to agree or to see it.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn offboard(
        &self,
        by: &Authority<'_>,
        population: Population,
        wall: Timestamp,
    ) -> Result<Change, AccountError> {
        let ender = by;
        let mut by = ender.require(Permission::OffboardAccounts)?;
        if self.roles.are_privileged() {
            by = ender.require(Permission::ChangePrivilegedRoles)?;
        }
        self.not_own(by)?;
        if self.roles.has(Role::SecurityOfficer) {
            ender.require_ceremony()?;
        }
        self.not_gone()?;
        if self.status == Status::Active {
            self.not_the_last(population, None)?;
        }
        let mut change = self.to(
            Status::Offboarded { by, at: wall },
            vec![
                Effect::EndSessions,
                Effect::RevokeDevices(RevokeReason::AffiliationChanged),
                Effect::EraseCredentials,
            ],
        );
        change.record.links.clear();
        Ok(change)
    }

    /// Gives an account other roles. Its sessions end, so that none has what is no longer true. To make somebody a
    /// security officer or an administrator, or to unmake a security officer, takes a ceremony.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn change_roles(
        &self,
        by: &Authority<'_>,
        roles: Roles,
        population: Population,
    ) -> Result<Change, AccountError> {
        let permission = if self.roles.differ_in_privilege(roles) {
            Permission::ChangePrivilegedRoles
        } else {
            Permission::ChangeRoles
        };
        let giver = by;
        let by = giver.require(permission)?;
        self.not_own(by)?;
        let gives = |role| roles.has(role) && !self.roles.has(role);
        let unmakes = self.roles.has(Role::SecurityOfficer) && !roles.has(Role::SecurityOfficer);
        if gives(Role::SecurityOfficer) || gives(Role::Administrator) || unmakes {
            giver.require_ceremony()?;
        }
        self.not_gone()?;
        // Officers who decide together can let somebody in again; and what they have decided is not half done.
        if self.status == Status::Active && !matches!(giver, Authority::Ceremony(_)) {
            self.not_the_last(population, Some(roles))?;
        }
        let mut change = self.to(self.status, vec![Effect::EndSessions]);
        change.record.roles = roles;
        Ok(change)
    }

    /// Gives an account the roles that its groups stand for, by the rules that an administrator has set up for the directory
    /// or identity provider: user and operator, and nothing else. `None` if there is nothing to change; an account that has
    /// any other role keeps its roles.
    ///
    /// # Errors
    /// [`AccountError::NotLinked`], [`AccountError::Status`], or [`AccountError::Forbidden`] for roles that nobody maps to.
    pub fn map_roles(&self, issuer: IssuerId, roles: Roles) -> Result<Option<Change>, AccountError> {
        self.link_to(issuer).ok_or(AccountError::NotLinked)?;
        self.not_gone()?;
        if !roles.are_mappable() {
            return Err(Forbidden::DirectoryMayNot(Permission::ChangePrivilegedRoles).into());
        }
        if roles == self.roles || !self.roles.are_mappable() {
            return Ok(None);
        }
        let mut change = self.to(self.status, vec![Effect::EndSessions]);
        change.record.roles = roles;
        Ok(Some(change))
    }

    /// The record of a person whom an enroller invites, linked to who they are at a directory. Nobody has come yet, so
    /// nothing of anybody's is given away. For the appliance's own console alone.
    #[must_use]
    pub fn of_the_ledger_linked(id: AccountId, link: Link) -> Self {
        Self { links: vec![link], ..Self::of_the_ledger(id) }
    }

    /// Links an account to a person at a directory or identity provider. Whoever is at the other end signs in as this
    /// account, so an administrator links only somebody who has not come yet; an account in use is linked from a
    /// recent session of its own, with a proof of its own, or by a ceremony. All sessions end, so that it is seen.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn link(&self, by: &Authority<'_>, link: Link) -> Result<Change, AccountError> {
        self.not_gone()?;
        match by {
            Authority::Caller(actor) if actor.account() == self.id => {
                actor.require(Permission::ManageOwnAccess)?;
                actor.require_recent()?;
            }
            Authority::Caller(_) | Authority::Directory(_) => {
                by.require(Permission::ConfigureDirectories)?;
                if !matches!(self.status, Status::Invited { recovery: false, .. }) {
                    return Err(AccountError::LinkNeedsOwner);
                }
            }
            Authority::Ceremony(_) => {}
        }
        if self.links.len() >= limits::ACCOUNT_LINKS_MAX || self.link_to(link.issuer).is_some() {
            return Err(AccountError::Links);
        }
        let mut change = self.to(self.status, vec![Effect::EndSessions]);
        change.record.links.push(link);
        change.record.links.sort_unstable();
        Ok(change)
    }

    /// Takes a link away: by the account itself, or by an administrator from somebody else. Sessions that came of it end
    /// with all others.
    ///
    /// # Errors
    /// [`AccountError`]
    pub fn unlink(&self, by: &Authority<'_>, issuer: IssuerId) -> Result<Change, AccountError> {
        self.not_gone()?;
        match by {
            Authority::Caller(actor) if actor.account() == self.id => {
                actor.require(Permission::ManageOwnAccess)?;
                actor.require_recent()?;
            }
            _ => {
                by.require(Permission::ConfigureDirectories)?;
            }
        }
        self.link_to(issuer).ok_or(AccountError::NotLinked)?;
        let mut change = self.to(self.status, vec![Effect::EndSessions]);
        change.record.links.retain(|link| link.issuer != issuer);
        Ok(change)
    }

    /// A password, an authenticator or another credential was replaced: all sessions end. The one that did it goes on
    /// by [`crate::Sessions::rotate`].
    #[must_use]
    pub(crate) fn credentials_changed(&self) -> Change {
        self.to(self.status, vec![Effect::EndSessions])
    }

    /// Whether a recovery can help: somebody lost what they signed in with. A suspended account is let in again by
    /// whoever may, and not in this way.
    pub(crate) fn check_recoverable(&self) -> Result<(), AccountError> {
        match self.status {
            Status::Active | Status::Invited { .. } => Ok(()),
            Status::Suspended { .. } | Status::Offboarded { .. } => Err(self.not("active or invited")),
        }
    }

    /// The second half of a recovery that two people have approved. Whoever lost every factor may have lost a device to
    /// somebody else, and a link may lead to somebody else: neither is a way in any more.
    pub(crate) fn recover(
        &self,
        by: By,
        code: &InvitationCode,
        end: Lifetime,
    ) -> Result<Change, AccountError> {
        self.check_recoverable()?;
        let status = end.invited(code.hash(self.id), by, true);
        let devices = Effect::RevokeDevices(RevokeReason::KeyCompromise);
        let mut change = self.to(status, vec![Effect::EndSessions, Effect::EraseCredentials, devices]);
        change.record.links.clear();
        Ok(change)
    }

    /// The account.
    #[must_use]
    pub const fn id(&self) -> AccountId {
        self.id
    }

    /// Its roles.
    #[must_use]
    pub const fn roles(&self) -> Roles {
        self.roles
    }

    /// Where it stands.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Whether it may sign in.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    /// The number that sessions carry.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its links, sorted by issuer.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Its link to an issuer.
    #[must_use]
    pub fn link_to(&self, issuer: IssuerId) -> Option<&Link> {
        self.links.iter().find(|link| link.issuer == issuer)
    }

    /// A caller needs the permission, and does not do it to themselves; a directory needs the link.
    fn authority(&self, by: &Authority<'_>, permission: Permission) -> Result<By, AccountError> {
        if let Authority::Directory(issuer) = by {
            return self.link_to(*issuer).map(|_| By::Directory(*issuer)).ok_or(AccountError::NotLinked);
        }
        let by = by.require(permission)?;
        self.not_own(by)?;
        Ok(by)
    }

    fn not_own(&self, by: By) -> Result<(), AccountError> {
        if by == By::Account(self.id) { Err(AccountError::OwnAccount) } else { Ok(()) }
    }

    fn not_gone(&self) -> Result<(), AccountError> {
        match self.status {
            Status::Offboarded { .. } => Err(self.not("one that is still there")),
            _ => Ok(()),
        }
    }

    /// Without officers or administrators nobody could ever let one in again, except by a ceremony; without auditors
    /// nobody sees.
    fn not_the_last(&self, population: Population, after: Option<Roles>) -> Result<(), AccountError> {
        let counts = [
            (Role::SecurityOfficer, population.officers),
            (Role::Administrator, population.administrators),
            (Role::Auditor, population.auditors),
        ];
        for (role, count) in counts {
            let leaves = self.roles.has(role) && !after.is_some_and(|roles| roles.has(role));
            if leaves && count <= 1 {
                return Err(AccountError::LastOf(role));
            }
        }
        Ok(())
    }

    fn not(&self, expected: &'static str) -> AccountError {
        AccountError::Status { got: self.status.name(), expected }
    }

    fn to(&self, status: Status, effects: Vec<Effect>) -> Change {
        let ends = effects.contains(&Effect::EndSessions);
        let epoch = self.epoch.saturating_add(u64::from(ends));
        Change { record: Self { status, epoch, ..self.clone() }, effects }
    }
}

/// The end of an invitation by both clocks: the wall clock can be set back, and then ledger time still ends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    wall: Timestamp,
    ledger: Timestamp,
}

impl Lifetime {
    pub(crate) const fn until(now: Now, expires_at: Timestamp) -> Result<Self, AccountError> {
        match expires_at.0.checked_sub(now.wall.0) {
            Some(ms) if ms > 0 && ms <= INVITATION_DAYS_MAX * 86_400_000 => {
                Ok(Self { wall: expires_at, ledger: Timestamp(now.ledger.0.saturating_add(ms)) })
            }
            _ => Err(AccountError::Lifetime),
        }
    }

    const fn invited(self, code: Hash, by: By, recovery: bool) -> Status {
        Status::Invited { code, expires_at: self.wall, by, recovery, expires_ledger: self.ledger }
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
