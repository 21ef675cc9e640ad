//! Roles, what each may do, and which exclude each other.
//!
//! Separation of duties (SP 800-53 AC-5): whoever changes things is not who judges the record of it, and what could
//! take over an account needs two people of two roles. The rules are data; the tests at the end check what they add
//! up to.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::fmt;
use thiserror::Error;
use zixt_types::{EXCLUSIONS, Role};

/// What can be allowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Permission {
    /// Send and receive messages.
    UseMessages,
    /// List one's own sessions, end them, change one's own factors.
    ManageOwnAccess,
    /// Fetch and replace one's own vault.
    UseOwnVault,
    /// Call the API with a scoped token.
    CallApi,
    /// List accounts.
    ListAccounts,
    /// Invite somebody, with roles that are not privileged.
    InviteAccounts,
    /// Suspend an account and resume it.
    SuspendAccounts,
    /// End an account for good.
    OffboardAccounts,
    /// Change roles that are not privileged.
    ChangeRoles,
    /// Give or take a privileged role.
    ChangePrivilegedRoles,
    /// End sessions of others.
    EndSessions,
    /// Lift a lockout.
    LiftLockouts,
    /// Begin a recovery of somebody's account.
    RequestRecovery,
    /// Approve a recovery that somebody else began.
    ApproveRecovery,
    /// Set up directories, identity providers and the mapping to roles.
    ConfigureDirectories,
    /// Let a directory take away what it was kept from taking.
    ReleaseDirectoryPlans,
    /// Change the sign-in policy.
    ChangeSignInPolicy,
    /// Make, scope and end service tokens.
    ManageServiceTokens,
    /// Take part in ceremonies.
    ApproveCeremonies,
    /// Set the wall clock.
    SetClock,
    /// Set up peers and federation.
    ConfigurePeers,
    /// Make and check backups.
    ManageBackups,
    /// Start an update that officers have approved.
    StartUpdates,
    /// See health, alerts and queues.
    ViewHealth,
    /// Follow what happens to accounts, devices and directories.
    ReadEvents,
    /// Acknowledge alerts.
    AcknowledgeAlerts,
    /// Set up where the audit record is copied to.
    ConfigureAuditSinks,
    /// Read the audit record.
    ReadAudit,
    /// Export the audit record and evidence.
    ExportAudit,
}

/// Role by permission. What is not here nobody may do.
pub const PERMISSIONS: &[(Permission, &[Role])] = {
    use Permission as P;
    use Role::{Administrator, Auditor, Operator, SecurityOfficer, Service, User};
    &[
        (P::UseMessages, &[User]),
        (P::ManageOwnAccess, &[SecurityOfficer, Administrator, Operator, Auditor, User]),
        (P::UseOwnVault, &[User]),
        (P::CallApi, &[Service]),
        (P::ListAccounts, &[SecurityOfficer, Administrator, Operator, Auditor]),
        (P::InviteAccounts, &[Administrator]),
        (P::SuspendAccounts, &[SecurityOfficer, Administrator]),
        (P::OffboardAccounts, &[SecurityOfficer, Administrator]),
        (P::ChangeRoles, &[Administrator]),
        (P::ChangePrivilegedRoles, &[SecurityOfficer]),
        (P::EndSessions, &[SecurityOfficer, Administrator]),
        (P::LiftLockouts, &[SecurityOfficer, Administrator]),
        (P::RequestRecovery, &[Administrator]),
        (P::ApproveRecovery, &[SecurityOfficer]),
        (P::ConfigureDirectories, &[Administrator]),
        (P::ReleaseDirectoryPlans, &[SecurityOfficer]),
        (P::ChangeSignInPolicy, &[SecurityOfficer]),
        (P::ManageServiceTokens, &[Administrator]),
        (P::ApproveCeremonies, &[SecurityOfficer]),
        (P::SetClock, &[SecurityOfficer]),
        (P::ConfigurePeers, &[Administrator]),
        (P::ManageBackups, &[Administrator, Operator]),
        (P::StartUpdates, &[Administrator, Operator]),
        (P::ViewHealth, &[SecurityOfficer, Administrator, Operator, Auditor]),
        (P::ReadEvents, &[SecurityOfficer, Administrator, Operator, Auditor]),
        (P::AcknowledgeAlerts, &[Administrator, Operator]),
        (P::ConfigureAuditSinks, &[SecurityOfficer]),
        (P::ReadAudit, &[Auditor]),
        (P::ExportAudit, &[Auditor]),
    ]
};

impl Permission {
    /// Whether it takes more than the word of a directory or an identity provider. An IdP gives access, never identity
    /// keys, and never power over other people's accounts.
    #[must_use]
    pub const fn needs_own_proof(self) -> bool {
        !matches!(
            self,
            Self::UseMessages
                | Self::CallApi
                | Self::ListAccounts
                | Self::ViewHealth
                | Self::ReadEvents
                | Self::AcknowledgeAlerts
                | Self::ReadAudit
        )
    }
}

/// Why a set of roles cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RolesError {
    /// Two of them exclude each other.
    #[error("nobody may be {0} and {1}")]
    Exclusive(Role, Role),
    /// An account without a role could do nothing.
    #[error("an account needs a role")]
    Empty,
}

/// The roles of one account: at least one, and none that exclude each other. Nothing else can be built or read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// A user, and nothing else.
    pub const USER: Self = Self(1 << Role::User as u8);

    /// Checks a set of roles.
    ///
    /// # Errors
    /// [`RolesError`]
    pub fn new(roles: &[Role]) -> Result<Self, RolesError> {
        Self::checked(roles.iter().fold(0, |bits, role| bits | 1 << *role as u8))
    }

    fn checked(bits: u8) -> Result<Self, RolesError> {
        let roles = Self(bits);
        if bits == 0 {
            return Err(RolesError::Empty);
        }
        match EXCLUSIONS.iter().find(|(one, other)| roles.has(*one) && roles.has(*other)) {
            Some((one, other)) => Err(RolesError::Exclusive(*one, *other)),
            None => Ok(roles),
        }
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// Whether one of them may do this.
    #[must_use]
    pub fn may(self, permission: Permission) -> bool {
        PERMISSIONS
            .iter()
            .any(|(listed, roles)| *listed == permission && roles.iter().any(|role| self.has(*role)))
    }

    /// The roles.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }

    /// Whether one of them is privileged.
    #[must_use]
    pub fn are_privileged(self) -> bool {
        self.iter().any(Role::is_privileged)
    }

    /// Whether one of them is half of what takes over an account. To give one takes a ceremony.
    #[must_use]
    pub fn could_take_over(self) -> bool {
        self.has(Role::SecurityOfficer) || self.has(Role::Administrator)
    }

    /// Whether groups of a directory may stand for all of them: user and operator, by a rule of an administrator.
    #[must_use]
    pub fn are_mappable(self) -> bool {
        self.iter().all(|role| matches!(role, Role::User | Role::Operator))
    }

    /// Whether privileged roles differ between the two.
    #[must_use]
    pub fn differ_in_privilege(self, other: Self) -> bool {
        Role::ALL.into_iter().any(|role| role.is_privileged() && self.has(role) != other.has(role))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<C> Encode<C> for Roles {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Roles {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let bits = d.u8()?;
        if bits >> Role::ALL.len() != 0 {
            return Err(decode::Error::message("an unknown role").at(at));
        }
        Self::checked(bits).map_err(|error| decode::Error::custom(error).at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_set() -> impl Iterator<Item = Roles> {
        (0..1u8 << Role::ALL.len()).filter_map(|bits| Roles::checked(bits).ok())
    }

    #[test]
    fn the_table_names_every_permission_once() {
        for (at, (permission, roles)) in PERMISSIONS.iter().enumerate() {
            assert!(!roles.is_empty());
            assert!(PERMISSIONS[..at].iter().all(|(other, _)| other != permission), "{permission:?} twice");
        }
        // The last one of the enum, so that a new one cannot be forgotten.
        assert_eq!(PERMISSIONS.len(), Permission::ExportAudit as usize + 1);
    }

    #[test]
    fn nobody_holds_both_halves_of_a_duty() {
        use Permission as P;
        for roles in every_set() {
            for (one, other) in [
                (P::RequestRecovery, P::ApproveRecovery),
                (P::ReadAudit, P::ChangeRoles),
                (P::ReadAudit, P::ChangePrivilegedRoles),
                (P::ReadAudit, P::ConfigureAuditSinks),
                (P::ReadAudit, P::SetClock),
                (P::ReadAudit, P::SuspendAccounts),
                (P::ChangeRoles, P::ChangePrivilegedRoles),
                (P::InviteAccounts, P::ChangeSignInPolicy),
                (P::StartUpdates, P::ApproveCeremonies),
                (P::CallApi, P::ManageOwnAccess),
            ] {
                assert!(!(roles.may(one) && roles.may(other)), "{roles:?} may {one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn an_auditor_changes_nothing() {
        let auditor = Roles::new(&[Role::Auditor]).unwrap();
        let may: Vec<_> =
            PERMISSIONS.iter().map(|(permission, _)| *permission).filter(|p| auditor.may(*p)).collect();
        use Permission as P;
        let reads = [P::ListAccounts, P::ViewHealth, P::ReadEvents, P::ReadAudit, P::ExportAudit];
        assert_eq!(may[0], P::ManageOwnAccess);
        assert_eq!(may[1..], reads);
    }

    #[test]
    fn sets_are_checked() {
        assert_eq!(Roles::new(&[]), Err(RolesError::Empty));
        assert!(Roles::new(&[Role::Administrator, Role::Operator, Role::User]).is_ok());
        assert_eq!(
            Roles::new(&[Role::Auditor, Role::Administrator]),
            Err(RolesError::Exclusive(Role::Administrator, Role::Auditor))
        );
        for bits in 0..=u8::MAX {
            let bytes = minicbor::to_vec(bits).unwrap();
            let read: Result<Roles, _> = minicbor::decode(&bytes);
            assert_eq!(read.is_ok(), bits < 64 && Roles::checked(bits).is_ok(), "{bits}");
        }
    }

    #[test]
    fn a_service_shares_with_nobody() {
        for roles in every_set().filter(|roles| roles.has(Role::Service)) {
            assert_eq!(roles.iter().count(), 1);
        }
    }
}
