//! What somebody is here for. What each role may do, `zixt-identity` says.

use core::fmt;
use minicbor::{Decode, Encode};

/// What somebody is here for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum Role {
    /// Decides about keys, policy and privileged roles.
    #[n(0)]
    SecurityOfficer = 0,
    /// Runs accounts, directories, peers and backups.
    #[n(1)]
    Administrator = 1,
    /// Watches health and alerts, and starts what is prepared.
    #[n(2)]
    Operator = 2,
    /// Reads the audit record and evidence. Changes nothing.
    #[n(3)]
    Auditor = 3,
    /// Writes and reads messages.
    #[n(4)]
    User = 4,
    /// A program.
    #[n(5)]
    Service = 5,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SecurityOfficer,
        Self::Administrator,
        Self::Operator,
        Self::Auditor,
        Self::User,
        Self::Service,
    ];

    /// The word for it in reports and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecurityOfficer => "security-officer",
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::User => "user",
            Self::Service => "service",
        }
    }

    /// Reads what [`Self::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Roles that only a security officer may give or take.
    #[must_use]
    pub const fn is_privileged(self) -> bool {
        matches!(self, Self::SecurityOfficer | Self::Administrator | Self::Auditor)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Pairs that nobody may have together.
pub const EXCLUSIONS: &[(Role, Role)] = &[
    // Who decides about keys and policy does not run the machine: one person could do both halves of a recovery.
    (Role::SecurityOfficer, Role::Administrator),
    (Role::SecurityOfficer, Role::Operator),
    // Who reads the record is not in it.
    (Role::SecurityOfficer, Role::Auditor),
    (Role::Administrator, Role::Auditor),
    (Role::Operator, Role::Auditor),
    // A program is no person.
    (Role::SecurityOfficer, Role::Service),
    (Role::Administrator, Role::Service),
    (Role::Operator, Role::Service),
    (Role::Auditor, Role::Service),
    (Role::User, Role::Service),
];

/// Whether somebody may have these roles together: at least one, and none that exclude each other.
#[must_use]
pub fn are_roles(roles: &[Role]) -> bool {
    let has = |role: &Role| roles.contains(role);
    !roles.is_empty() && !EXCLUSIONS.iter().any(|(one, other)| has(one) && has(other))
}
