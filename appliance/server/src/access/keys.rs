//! What rows about who may come in are authenticated and sealed under, from custody's row key.

use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead, hash, labels};
use zixt_identity::RowKey;
use zixt_passkey::PasskeySecret;
use zixt_storage::AccessKind;

/// The keys. There are none while custody is locked.
pub(crate) struct AccessKeys {
    pub(crate) rows: RowKey,
    pub(crate) seal: AeadKey,
    passkeys: AeadKey,
}

/// A secret at rest that does not open: another key, another place, or altered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret of sign-in at rest cannot be sealed or opened")]
pub(crate) struct SealedError;

impl AccessKeys {
    pub(crate) fn new(row_key: &AeadKey) -> Self {
        let derive = |label| hash::derive_key(b"", row_key.as_bytes(), label, &[]);
        let rows = derive(labels::ACCESS_ROWS);
        Self {
            rows: RowKey::from_bytes(rows.as_bytes()),
            seal: derive(labels::ACCESS_SEAL),
            passkeys: derive(labels::ACCESS_PASSKEYS),
        }
    }

    /// What decoys of passkeys are derived from.
    pub(crate) fn passkeys(&self) -> PasskeySecret {
        PasskeySecret::from_bytes(self.passkeys.as_bytes())
    }

    /// Seals a secret for its place in the store.
    pub(crate) fn seal(&self, kind: AccessKind, id: &[u8], secret: &[u8]) -> Result<Vec<u8>, SealedError> {
        aead::seal(&self.seal, &aad(kind, id), secret).map_err(|_| SealedError)
    }

    /// Opens what [`Self::seal`] made for this place.
    pub(crate) fn open(
        &self,
        kind: AccessKind,
        id: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        aead::open(&self.seal, &aad(kind, id), sealed).map_err(|_| SealedError)
    }
}

fn aad(kind: AccessKind, id: &[u8]) -> Vec<u8> {
    [labels::ACCESS_SEAL, &(kind as i64).to_be_bytes(), id].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_in_its_own_place_only() {
        let keys = AccessKeys::new(&AeadKey::from_bytes(&[1; 32]));
        let sealed = keys.seal(AccessKind::Setting, b"key", b"secret").unwrap();
        assert_eq!(keys.open(AccessKind::Setting, b"key", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(keys.open(AccessKind::VaultShare, b"key", &sealed), Err(SealedError));
        assert_eq!(keys.open(AccessKind::Setting, b"kez", &sealed), Err(SealedError));
        let others = AccessKeys::new(&AeadKey::from_bytes(&[2; 32]));
        assert_eq!(others.open(AccessKind::Setting, b"key", &sealed), Err(SealedError));
    }
}
