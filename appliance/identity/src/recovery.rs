//! Recovery of an account whose person has lost every factor: two other people, of two roles.
//!
//! An administrator asks, a security officer approves, and neither is the account in question. The roles exclude each
//! other, and the two accounts are compared all the same. What comes of it is an invitation by hand: old credentials,
//! sessions and known sources are gone. Devices and keys are another matter, of the ledger: a recovery gives access,
//! and no group lets a new device in because of it.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_types::{AccountId, RecoveryId, Timestamp};

use crate::account::{AccountError, AccountRecord, By, Change, InvitationCode, Lifetime};
use crate::place::Now;
use crate::random::{Random, draw};
use crate::role::Permission;
use crate::secret::SecretForm;
use crate::session::{Actor, Forbidden};
use zixt_crypto::RandomError;

/// Hours for which a request waits.
pub const RECOVERY_HOURS_MAX: u64 = 72;

/// A request that waits for its second person.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Recovery {
    #[n(0)]
    version: u64,
    #[n(1)]
    id: RecoveryId,
    #[n(2)]
    account: AccountId,
    #[n(3)]
    epoch: u64,
    #[n(4)]
    requested_by: AccountId,
    #[n(5)]
    requested_at: Timestamp,
    #[n(6)]
    requested_ledger: Timestamp,
}

// Read and written by this crate only, authenticated: see `rows`.
impl SecretForm for Recovery {
    const WHAT: &'static str = "recovery";
    const BYTES_MAX: usize = 128;

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        if self.requested_by == self.account {
            return Err("nobody requests their own recovery");
        }
        Ok(())
    }
}

/// Why a recovery is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The caller is the account in question.
    #[error("nobody takes part in the recovery of their own account")]
    OwnAccount,
    /// The caller made the request.
    #[error("a recovery needs two people")]
    SamePerson,
    /// Who asked is no longer somebody who could.
    #[error("whoever asked may no longer ask")]
    Requester,
    /// The request is about another account.
    #[error("the request is about another account")]
    OtherAccount,
    /// The request is too old.
    #[error("the request has expired")]
    Expired,
    /// The account was changed since: somebody has to look again.
    #[error("the account has changed since the request")]
    Changed,
    /// The account cannot be recovered.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl Recovery {
    /// The first person: an administrator who has seen who it is.
    ///
    /// # Errors
    /// [`RecoveryError`]
    pub fn request(
        by: &Actor<'_>,
        record: &AccountRecord,
        now: Now,
        random: &mut dyn Random,
    ) -> Result<Self, RecoveryError> {
        by.require(Permission::RequestRecovery)?;
        if by.account() == record.id() {
            return Err(RecoveryError::OwnAccount);
        }
        record.check_recoverable()?;
        Ok(Self {
            version: 1,
            id: RecoveryId(draw(random)?),
            account: record.id(),
            epoch: record.epoch(),
            requested_by: by.account(),
            requested_at: now.wall,
            requested_ledger: now.ledger,
        })
    }

    /// The second person. Uses the request up: the account waits for its person with the code from now on. `requester`
    /// is the first person's record as it is now: who has lost the role since has asked for nothing.
    ///
    /// # Errors
    /// [`RecoveryError`]; the request then has to be removed or asked for again.
    pub fn approve(
        self,
        by: &Actor<'_>,
        requester: &AccountRecord,
        record: &AccountRecord,
        code: &InvitationCode,
        now: Now,
        expires_at: Timestamp,
    ) -> Result<Change, RecoveryError> {
        by.require(Permission::ApproveRecovery)?;
        if by.account() == self.account {
            return Err(RecoveryError::OwnAccount);
        }
        if by.account() == self.requested_by {
            return Err(RecoveryError::SamePerson);
        }
        if requester.id() != self.requested_by
            || !requester.is_active()
            || !requester.roles().may(Permission::RequestRecovery)
        {
            return Err(RecoveryError::Requester);
        }
        if record.id() != self.account {
            return Err(RecoveryError::OtherAccount);
        }
        if record.epoch() != self.epoch {
            return Err(RecoveryError::Changed);
        }
        // Set back or gone on too far, by either clock: nobody knows how old the request is, or it is too old.
        for (now, requested) in [(now.wall, self.requested_at), (now.ledger, self.requested_ledger)] {
            let age = now.0.checked_sub(requested.0).ok_or(RecoveryError::Expired)?;
            if age > RECOVERY_HOURS_MAX * 3_600_000 {
                return Err(RecoveryError::Expired);
            }
        }
        let end = Lifetime::until(now, expires_at)?;
        Ok(record.recover(By::Account(by.account()), code, end)?)
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> RecoveryId {
        self.id
    }

    /// Whose account.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// Who asked.
    #[must_use]
    pub const fn requested_by(&self) -> AccountId {
        self.requested_by
    }

    /// When, by the wall clock.
    #[must_use]
    pub const fn requested_at(&self) -> Timestamp {
        self.requested_at
    }
}
