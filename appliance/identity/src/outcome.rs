//! What comes of a proof: the next step of a sign-in, or its grant.

use thiserror::Error;
use zixt_crypto::password::DeriveError;
use zixt_types::AccountId;

#[cfg(test)]
use crate::account::AccountRecord;
use crate::attempts::Locked;
use crate::challenge::DeviceProofError;
use crate::factor::{Factor, FactorSet};
use crate::place::{ChannelBinding, Network, Now};
use crate::role::Roles;
use crate::totp::TotpError;
use crate::voucher::Vouched;
use crate::webauthn::WebAuthnError;

/// What came of a proof.
#[derive(Debug)]
pub enum Step {
    /// It was good, and one of these is asked for next.
    Need(FactorSet),
    /// The sign-in is complete.
    Done(Box<Grant>),
    /// It was not taken. The caller is told [`Step::REFUSED`] and nothing else; the reason is for the audit record.
    Refused {
        /// Why.
        because: Because,
        /// Whether the sign-in is over and has to begin anew.
        over: bool,
    },
    /// It was not looked at: too many failures.
    LockedUntil(Locked),
    /// It could not be looked at now. No failure of anybody.
    Unavailable(Unavailable),
}

impl Step {
    /// What a caller is told whose proof was not taken, whatever the reason.
    pub const REFUSED: &'static str = "the sign-in was refused";
}

/// Why a proof could not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// No memory for Argon2id.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The caller has no module for WebAuthn.
    #[error("no WebAuthn verifier")]
    WebAuthn,
}

/// Why a proof was not taken: for the audit record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Because {
    /// Nobody has this name.
    #[error("there is no such account")]
    NoAccount,
    /// The account is not active.
    #[error("the account is {0}")]
    NotActive(&'static str),
    /// The policy has no such way in for one of the account's roles.
    #[error("the policy lets nobody with these roles begin with {0}")]
    NotThisWay(Factor),
    /// A kind of proof that is not asked for now, or was given before.
    #[error("{0} is not asked for now")]
    OutOfTurn(Factor),
    /// The account has no such factor.
    #[error("the account has no {0}")]
    NotEnrolled(Factor),
    /// The sign-in took too long, or the clock was set back.
    #[error("the sign-in has expired")]
    Expired,
    /// Too many proofs, or the sign-in is over.
    #[error("the sign-in is over")]
    Over,
    /// Another proof was concluded since this one was looked at.
    #[error("another proof came first")]
    Overtaken,
    /// The account is another one than at the beginning, or has changed since.
    #[error("the account has changed during the sign-in")]
    Changed,
    /// The password is wrong.
    #[error("the password is wrong")]
    WrongPassword,
    /// The password is right, and too short to be the only factor.
    #[error("the password is too short to stand alone")]
    PasswordNotEnough,
    /// The voucher is about somebody else, or of an issuer that the account is not linked to.
    #[error("the voucher is not for this account")]
    NotLinked,
    /// The directory or identity provider did not vouch.
    #[error("{0} did not vouch")]
    NotVouched(Factor),
    /// The voucher was given for another sign-in.
    #[error("the voucher is for another sign-in")]
    OtherSignIn,
    /// The attempt was counted for another sign-in, or for another kind of proof.
    #[error("the attempt was admitted for another proof")]
    NotAdmitted,
    /// The voucher is too old.
    #[error("the voucher has expired")]
    VoucherExpired,
    /// The device's proof.
    #[error(transparent)]
    Device(#[from] DeviceProofError),
    /// The one-time password.
    #[error(transparent)]
    Totp(#[from] TotpError),
    /// The answer with a pre-shared key.
    #[error("the answer with the pre-shared key is wrong")]
    WrongPsk,
    /// The backup code.
    #[error("the backup code is wrong or was used before")]
    WrongBackupCode,
    /// The assertion.
    #[error(transparent)]
    WebAuthn(#[from] WebAuthnError),
    /// All was right, and nothing that the account has could complete it.
    #[error("the account has no factor that could complete the sign-in")]
    CannotComplete,
}

/// A completed sign-in. Only [`crate::Login`] makes one, and [`crate::Sessions::open`] uses it up.
#[derive(Debug)]
pub struct Grant {
    pub(crate) account: AccountId,
    pub(crate) roles: Roles,
    pub(crate) epoch: u64,
    pub(crate) first: Factor,
    pub(crate) further: FactorSet,
    pub(crate) channel: ChannelBinding,
    pub(crate) network: Option<Network>,
    pub(crate) backup_low: Option<u8>,
    pub(crate) vouched: Option<Vouched>,
    pub(crate) at: Now,
}

impl Grant {
    /// Who signed in.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The roles of the account.
    #[must_use]
    pub const fn roles(&self) -> Roles {
        self.roles
    }

    /// The epoch of the account's access.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it began with.
    #[must_use]
    pub const fn first(&self) -> Factor {
        self.first
    }

    /// What followed.
    #[must_use]
    pub const fn further(&self) -> FactorSet {
        self.further
    }

    /// On whose word it rests, if it began with that.
    #[must_use]
    pub const fn vouched(&self) -> Option<Vouched> {
        self.vouched
    }

    /// What the session is bound to.
    #[must_use]
    pub const fn channel(&self) -> ChannelBinding {
        self.channel
    }

    /// Where the caller comes from.
    #[must_use]
    pub const fn network(&self) -> Option<Network> {
        self.network
    }

    /// Backup codes that are left, if they are few: the user has to be told.
    #[must_use]
    pub const fn backup_low(&self) -> Option<u8> {
        self.backup_low
    }

    /// When.
    #[must_use]
    pub const fn at(&self) -> Now {
        self.at
    }

    #[cfg(test)]
    pub(crate) fn sample(record: &AccountRecord, first: Factor, channel: ChannelBinding, at: Now) -> Self {
        Self {
            account: record.id(),
            roles: record.roles(),
            epoch: record.epoch(),
            first,
            further: FactorSet::EMPTY,
            channel,
            network: None,
            vouched: None,
            backup_low: None,
            at,
        }
    }
}
