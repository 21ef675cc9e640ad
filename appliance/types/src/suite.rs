//! Cryptographic suites. The id is inside every signed object; a verifier takes the suite from the object and then
//! asks the ledger's policy whether it was allowed.

use core::fmt;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// A suite: ML-KEM-1024 (FIPS 203), AES-256-GCM, SHA-384 and a signature algorithm of FIPS 204.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum SuiteId {
    /// `standard`: ML-KEM-1024 with ML-DSA-65.
    Standard = 1,
    /// `cnsa`: ML-KEM-1024 with ML-DSA-87 (CNSA 2.0).
    Cnsa = 2,
}

/// A suite id that this version does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownSuite(pub u16);

impl fmt::Display for UnknownSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown suite {}; this version knows 1 (standard) and 2 (cnsa)", self.0)
    }
}

impl std::error::Error for UnknownSuite {}

impl SuiteId {
    /// Every suite that this version knows.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Cnsa];

    /// The number that stands in signed objects.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }

    /// The name that configuration files and people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Cnsa => "cnsa",
        }
    }

    /// Reads what [`Self::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }
}

impl fmt::Display for SuiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<u16> for SuiteId {
    type Error = UnknownSuite;
    fn try_from(id: u16) -> Result<Self, UnknownSuite> {
        Self::ALL.into_iter().find(|suite| suite.id() == id).ok_or(UnknownSuite(id))
    }
}

impl<C> Encode<C> for SuiteId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u16(self.id())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SuiteId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        Self::try_from(d.u16()?).map_err(|unknown| decode::Error::custom(unknown).at(at))
    }
}
