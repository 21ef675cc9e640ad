//! The kinds of proof, and sets of them.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::fmt;

/// A kind of proof that somebody is who they say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum Factor {
    /// A password that this appliance knows the hash of (SP 800-63B-4 section 3.1.1).
    #[n(0)]
    Password = 0,
    /// A bind at a directory, verified by the directory module.
    #[n(1)]
    Directory = 1,
    /// An assertion of an identity provider, verified by the single sign-on module.
    #[n(2)]
    Sso = 2,
    /// A signature by the identity key of a device that the ledger knows.
    #[n(3)]
    DeviceKey = 3,
    /// A time-based one-time password (RFC 6238).
    #[n(4)]
    Totp = 4,
    /// The answer to a challenge with a pre-shared key.
    #[n(5)]
    Psk = 5,
    /// A backup code, in the place of a factor that was lost (SP 800-63B-4 section 3.1.2, look-up secrets).
    #[n(6)]
    BackupCode = 6,
    /// An assertion of a WebAuthn authenticator, verified by the caller's module.
    #[n(7)]
    WebAuthn = 7,
}

impl Factor {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Password,
        Self::Directory,
        Self::Sso,
        Self::DeviceKey,
        Self::Totp,
        Self::Psk,
        Self::BackupCode,
        Self::WebAuthn,
    ];
    /// What a sign-in can begin with.
    pub const FIRST: FactorSet =
        FactorSet::EMPTY.with(Self::Password).with(Self::Directory).with(Self::Sso).with(Self::DeviceKey);
    /// What can follow.
    pub const FURTHER: FactorSet = FactorSet::EMPTY
        .with(Self::DeviceKey)
        .with(Self::Totp)
        .with(Self::Psk)
        .with(Self::BackupCode)
        .with(Self::WebAuthn);
    /// What somebody else vouches for. It gives access and nothing that needs a proof of one's own.
    pub const VOUCHED: FactorSet = FactorSet::EMPTY.with(Self::Directory).with(Self::Sso);
    /// What a person cannot be talked into giving to the wrong server, because it is bound to the channel or to the
    /// server's name (SP 800-63B-4 section 3.2.5).
    pub const PHISHING_RESISTANT: FactorSet = FactorSet::EMPTY.with(Self::DeviceKey).with(Self::WebAuthn);

    /// The word for it in reports and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Directory => "directory",
            Self::Sso => "sso",
            Self::DeviceKey => "device-key",
            Self::Totp => "totp",
            Self::Psk => "psk",
            Self::BackupCode => "backup-code",
            Self::WebAuthn => "webauthn",
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of kinds of proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FactorSet(u8);

impl FactorSet {
    /// No factor.
    pub const EMPTY: Self = Self(0);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, factor: Factor) -> Self {
        Self(self.0 | 1 << factor as u8)
    }

    /// Whether it holds this one.
    #[must_use]
    pub const fn has(self, factor: Factor) -> bool {
        self.0 & (1 << factor as u8) != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is here and not there.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of it is in `other`.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Factor> {
        Factor::ALL.into_iter().filter(move |factor| self.has(*factor))
    }
}

impl FromIterator<Factor> for FactorSet {
    fn from_iter<I: IntoIterator<Item = Factor>>(factors: I) -> Self {
        factors.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for FactorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<C> Encode<C> for FactorSet {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

// Every bit names a factor, so every byte is a set.
impl<'b, C> Decode<'b, C> for FactorSet {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.u8().map(Self)
    }
}

/// How many of the requirements can be met at once, each by a factor of its own. Sets are tiny, so all ways are tried.
pub(crate) fn met(requirements: &[FactorSet], passed: FactorSet) -> usize {
    let Some((first, rest)) = requirements.split_first() else { return 0 };
    let without = met(rest, passed);
    let with =
        first.and(passed).iter().map(|factor| 1 + met(rest, passed.without(FactorSet::EMPTY.with(factor))));
    with.max().map_or(without, |best| best.max(without))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_factor_meets_one_requirement() {
        let totp = FactorSet::EMPTY.with(Factor::Totp);
        let either = totp.with(Factor::Psk);
        assert_eq!(met(&[either, totp], totp), 1);
        assert_eq!(met(&[either, totp], either), 2);
        assert_eq!(met(&[totp, either], either), 2);
        assert_eq!(met(&[], either), 0);
        assert_eq!(met(&[either, either, either], either), 2);
    }
}
