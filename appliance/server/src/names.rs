//! Names at rest: sealed under a key that only custody can give, found by a keyed hash.

use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead, hash, labels};
use zixt_types::{AccountId, Hash, Salt, limits};

/// The keys of the names.
pub struct Names {
    seal: AeadKey,
    tag: AeadKey,
}

/// A name that could not be sealed or opened.
#[derive(Debug, Error)]
#[error("a name at rest cannot be sealed or opened")]
pub struct NameSealError;

impl Names {
    /// Derives the keys from the row key.
    #[must_use]
    pub fn new(row_key: &AeadKey) -> Self {
        let derive = |label| hash::derive_key(b"", row_key.as_bytes(), label, &[]);
        Self { seal: derive(labels::NAME_SEAL), tag: derive(labels::NAME_TAG) }
    }

    /// What the store finds a name by. Upper and lower case are the same.
    #[must_use]
    pub fn tag(&self, name: &str) -> Hash {
        let folded = Zeroizing::new(name.to_lowercase());
        hash::hmac_sha384(self.tag.as_bytes(), labels::NAME_TAG, &[folded.as_bytes()])
    }

    /// Seals a name with its salt for an account.
    ///
    /// # Errors
    /// The random number generator failed.
    pub fn seal(&self, account: AccountId, name: &str, salt: &Salt) -> Result<Vec<u8>, NameSealError> {
        let plain = Zeroizing::new([salt.as_ref(), name.as_bytes()].concat());
        aead::seal(&self.seal, &aad(account), &plain).map_err(|_| NameSealError)
    }

    /// Opens what [`Self::seal`] made for this account.
    ///
    /// # Errors
    /// It was made for another account or with another key, or was changed.
    pub fn open(&self, account: AccountId, sealed: &[u8]) -> Result<(String, Salt), NameSealError> {
        let plain = aead::open(&self.seal, &aad(account), sealed).map_err(|_| NameSealError)?;
        let (salt, name) = plain.split_first_chunk::<{ Salt::LEN }>().ok_or(NameSealError)?;
        let name = std::str::from_utf8(name).map_err(|_| NameSealError)?;
        Ok((name.to_owned(), Salt(*salt)))
    }
}

fn aad(account: AccountId) -> Vec<u8> {
    [labels::NAME_SEAL, account.as_ref()].concat()
}

/// Whether a name may be given: what people can read out to each other, and nothing that could pass for another.
#[must_use]
pub fn is_allowed(name: &str) -> bool {
    let good = |letter: char| letter.is_alphanumeric() || " ._-@".contains(letter);
    !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && name.chars().all(good) && name.trim() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_opens_for_its_own_account_only() {
        let names = Names::new(&AeadKey::from_bytes(&[1; 32]));
        let (account, salt) = (AccountId([2; 16]), Salt([3; 32]));
        let sealed = names.seal(account, "Ada", &salt).unwrap();
        assert_eq!(names.open(account, &sealed).unwrap(), ("Ada".to_owned(), salt));
        assert!(names.open(AccountId([4; 16]), &sealed).is_err());
        assert_eq!(names.tag("Ada"), names.tag("aDA"));
        assert_ne!(names.tag("Ada"), names.tag("Adb"));
    }

    #[test]
    fn misleading_names_are_not_allowed() {
        for good in ["ada", "Ada Lovelace", "j.doe@example", "Łukasz", "a-b_c"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["", " ada", "ada ", "a\nb", "a\u{202e}b", "a/b", &"x".repeat(65)] {
            assert!(!is_allowed(bad), "{bad:?}");
        }
    }
}
