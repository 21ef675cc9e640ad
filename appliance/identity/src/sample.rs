//! People for the tests.

use zixt_crypto::fill_random;
use zixt_types::{AccountId, Hash, Timestamp};

use crate::account::{AccountRecord, Approved, Authority, InvitationCode, Population};
use crate::place::Now;
use crate::role::Roles;
use crate::session::{Actor, Caller};
use zixt_types::Role;

pub(crate) const MANY: Population = Population { officers: 3, administrators: 3, auditors: 3 };

/// Both clocks at the same time.
pub(crate) fn both(ms: u64) -> Now {
    Now { wall: Timestamp(ms), ledger: Timestamp(ms) }
}

/// What officers decide in a ceremony.
pub(crate) fn ceremony() -> Authority<'static> {
    Authority::Ceremony(Approved::danger_of(Hash([1; 48])))
}

/// An account that is in use.
pub(crate) fn active(n: u8, roles: &[Role]) -> AccountRecord {
    let code = InvitationCode::generate(&mut fill_random).unwrap();
    let (id, roles) = (AccountId([n; 16]), Roles::new(roles).unwrap());
    let invited = AccountRecord::invite(&ceremony(), id, roles, &code, both(0), Timestamp(1_000)).unwrap();
    invited.accept(&code, both(1)).unwrap().change.record
}

/// Somebody with a session.
pub(crate) struct Someone {
    pub(crate) caller: Caller,
    pub(crate) record: AccountRecord,
}

impl Someone {
    pub(crate) fn new(n: u8, roles: &[Role]) -> Self {
        let record = active(n, roles);
        Self { caller: Caller::sample(&record, true), record }
    }

    /// With a session on the word of an identity provider alone.
    pub(crate) fn vouched(n: u8, roles: &[Role]) -> Self {
        let record = active(n, roles);
        Self { caller: Caller::sample(&record, false), record }
    }

    pub(crate) fn actor(&self) -> Actor<'_> {
        self.actor_at(0)
    }

    pub(crate) fn actor_at(&self, wall: u64) -> Actor<'_> {
        self.caller.acting(&self.record, Timestamp(wall)).unwrap()
    }

    pub(crate) fn by(&self) -> Authority<'_> {
        Authority::Caller(self.actor())
    }
}
