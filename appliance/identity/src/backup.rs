//! Backup codes (SP 800-63B-4 section 3.1.2, look-up secrets): printed once, each good once, hashed at rest.
//!
//! A code has 80 random bits. That is below the 112 bits at which a plain hash would do, so they are hashed with
//! Argon2id. One salt serves a set: a thief tries a guess against ten codes at once, which takes three bits off
//! eighty, and the server checks a code with one derivation instead of ten.

use minicbor::{Decode, Encode};
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::RandomError;
use zixt_crypto::hash::constant_time_eq;
use zixt_crypto::password::{DeriveError, OUTPUT_BYTES, SALT_BYTES, derive};
use zixt_types::limits;

use crate::policy::{Cost, Policy};
use crate::random::{Random, draw};
use crate::secret::{Secret, for_people, from_people};

/// One code.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupCode(Secret<10>);

impl BackupCode {
    /// As it is printed: 16 characters in groups of four.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        for_people(self.0.as_bytes())
    }

    /// Reads what somebody typed: any case, spaces and hyphens anywhere, O for 0, I and L for 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_people(text).map(Self)
    }
}

impl fmt::Debug for BackupCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupCode(redacted)")
    }
}

/// Why no set was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BackupError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A hash could not be made.
    #[error(transparent)]
    Derive(#[from] DeriveError),
}

/// A set of codes as the server keeps it. A new set replaces the old one as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct BackupRecord {
    #[n(0)]
    cost: Cost,
    #[cbor(n(1), with = "crate::secret::fixed")]
    salt: [u8; SALT_BYTES],
    /// `None` where a code was used: what is gone cannot be accepted again.
    #[n(2)]
    hashes: Vec<Option<Secret<OUTPUT_BYTES>>>,
}

impl BackupRecord {
    /// A new set, and the codes for the user, which nobody sees again. Takes one Argon2id derivation for each code.
    ///
    /// # Errors
    /// [`BackupError`]
    pub fn generate(
        policy: &Policy,
        random: &mut dyn Random,
    ) -> Result<(Self, Vec<BackupCode>), BackupError> {
        let (cost, salt) = (policy.backup.cost, draw(random)?);
        let (mut codes, mut hashes) = (Vec::new(), Vec::new());
        for _ in 0..policy.backup.codes {
            let code = BackupCode(Secret::draw(random)?);
            hashes.push(Some(Secret::from_bytes(&*derive(cost.0, &salt, code.0.as_bytes())?)));
            codes.push(code);
        }
        Ok((Self { cost, salt, hashes }, codes))
    }

    /// Codes that are left.
    #[must_use]
    pub fn left(&self) -> u8 {
        u8::try_from(self.hashes.iter().flatten().count()).unwrap_or(u8::MAX)
    }

    /// The codes that are left, if they are so few that the user has to be told.
    #[must_use]
    pub fn low(&self, policy: &Policy) -> Option<u8> {
        Some(self.left()).filter(|left| *left <= policy.backup.low)
    }

    /// Names the set.
    pub(crate) const fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// The place of a code that is left. One derivation, and all places are compared.
    pub(crate) fn find(&self, code: &BackupCode) -> Result<Option<usize>, DeriveError> {
        let derived = derive(self.cost.0, &self.salt, code.0.as_bytes())?;
        let mut found = None;
        for (at, hash) in self.hashes.iter().enumerate() {
            if hash.as_ref().is_some_and(|hash| constant_time_eq(hash.as_bytes(), derived.as_slice())) {
                found = Some(at);
            }
        }
        Ok(found)
    }

    /// Uses up a code of the set with this salt; false if it is used already, or the set another one.
    #[must_use]
    pub(crate) fn take(&mut self, salt: &[u8; SALT_BYTES], at: usize) -> bool {
        self.salt == *salt && self.hashes.get_mut(at).is_some_and(|hash| hash.take().is_some())
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if (1..=limits::BACKUP_CODES_MAX).contains(&self.hashes.len()) {
            Ok(())
        } else {
            Err("a set has 1 to 20 backup codes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyDocument;
    use zixt_crypto::password::Params;

    #[test]
    fn each_code_is_good_once() {
        let mut document = PolicyDocument::default();
        document.backup.cost = Cost(Params::MIN);
        let policy = Policy::cheap(document).unwrap();
        let (mut record, codes) = BackupRecord::generate(&policy, &mut zixt_crypto::fill_random).unwrap();
        assert_eq!((record.left(), codes.len(), record.low(&policy)), (10, 10, None));
        assert_eq!(record.check(), Ok(()));
        let salt = *record.salt();
        for (at, code) in codes.iter().enumerate() {
            let typed = BackupCode::parse(&code.to_text().to_lowercase()).unwrap();
            assert_eq!(record.find(&typed), Ok(Some(at)));
            assert!(!record.take(&[0; SALT_BYTES], at));
            assert!(record.take(&salt, at));
            assert!(!record.take(&salt, at));
            assert_eq!(record.find(&typed), Ok(None));
        }
        assert_eq!(record.low(&policy), Some(0));
        assert_eq!(format!("{:?}", codes[0]), "BackupCode(redacted)");
    }
}
