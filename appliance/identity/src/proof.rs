//! What goes into a sign-in: where it begins, proofs, and the account that they are about.

use zixt_crypto::Backend;
use zixt_types::{AccountId, ApplianceId, Hash};

use crate::account::AccountRecord;
use crate::backup::BackupCode;
use crate::challenge::{DeviceProof, KnownDevice};
use crate::credentials::Credentials;
use crate::factor::Factor;
use crate::password::Password;
use crate::place::{Channel, ChannelBinding, Origin};
use crate::policy::Policy;
use crate::psk::PskProof;
use crate::totp::TotpCode;
use crate::voucher::Voucher;
use crate::webauthn::{WebAuthnProof, WebAuthnVerifier};

/// Whom a caller named.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// An account, whatever it was called by.
    Account(AccountId),
    /// Nobody: a name that no account has, in the spelling by which accounts are looked up. Attempts at it are counted
    /// like those at an account.
    Nobody(&'a str),
}

/// Where and for whom a sign-in begins.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The network.
    pub genesis: Hash,
    /// This appliance.
    pub appliance: ApplianceId,
    /// Whom the caller named.
    pub who: Named<'a>,
    /// Where the caller comes from.
    pub origin: Origin,
    /// What the session will be bound to.
    pub channel: Channel,
}

/// What arrives for a sign-in that is under way, and how. It has to come from where the sign-in began: its id is no
/// secret, and nobody continues what somebody else has begun.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// The kind of the proof.
    pub factor: Factor,
    /// Where it comes from.
    pub origin: Origin,
    /// What it comes over.
    pub channel: ChannelBinding,
    /// Whether the connection's key is an active device's of the ledger. Its proof with its identity key is not counted
    /// against the network that it comes from.
    pub device: bool,
}

/// A proof, parsed.
#[derive(Debug)]
pub enum Proof {
    /// A password.
    Password(Password),
    /// The word of a directory or identity provider.
    Voucher(Voucher),
    /// A bind that failed, or an assertion that did not verify: it counts like a wrong password. Admit the attempt
    /// before the bind, or people are locked out at the directory by guesses that nobody here counts.
    NotVouched(Factor),
    /// A device's signature over the challenge.
    DeviceKey(Box<DeviceProof>),
    /// A one-time password.
    Totp(TotpCode),
    /// An answer to the challenge with a pre-shared key.
    Psk(PskProof),
    /// A backup code.
    BackupCode(BackupCode),
    /// An assertion of an authenticator.
    WebAuthn(WebAuthnProof),
}

impl Proof {
    /// Its kind.
    #[must_use]
    pub const fn factor(&self) -> Factor {
        match self {
            Self::Password(_) => Factor::Password,
            Self::Voucher(voucher) => voucher.kind(),
            Self::NotVouched(kind) => *kind,
            Self::DeviceKey(_) => Factor::DeviceKey,
            Self::Totp(_) => Factor::Totp,
            Self::Psk(_) => Factor::Psk,
            Self::BackupCode(_) => Factor::BackupCode,
            Self::WebAuthn(_) => Factor::WebAuthn,
        }
    }
}

/// The account as it is while a proof is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its standing.
    pub record: &'a AccountRecord,
    /// What it signs in with.
    pub credentials: &'a Credentials,
    /// Its active devices, from the ledger.
    pub devices: &'a [KnownDevice],
}

/// The account while a step is concluded, under its lock.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Its standing.
    pub record: &'a AccountRecord,
    /// What it signs in with. To be stored, if the step changed it, before the step is answered.
    pub credentials: &'a mut Credentials,
    /// Its active devices, from the ledger.
    pub devices: &'a [KnownDevice],
}

/// What proofs are verified with.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// For signatures of devices.
    pub backend: &'a dyn Backend,
    /// For assertions; without one no assertion is taken.
    pub webauthn: Option<&'a dyn WebAuthnVerifier>,
}
