//! Custody mode 1: keys that live and sign inside a PKCS#11 3.2 token.
//!
//! The state file keeps a key's name in the token and its public key. A key that has to survive the token is escrowed
//! before: its seed, sealed to the officers' recovery key, so that only M of them open it again.

use super::{KeyBackend, NewKey, OpenEscrow, StoredKey};
use crate::protector::{Erased, Pkcs11Protector, Protector as _, custody_error};
use crate::root::Root;
use minicbor::{Decode, Encode};
use std::sync::Arc;
use zixt_crypto::hpke;
use zixt_crypto::{SigningKey, SigningSeed, labels, selftest};
use zixt_hsm_pkcs11::{
    Algorithm, Destruction, KeyId, NativeError, NativeKey, ObjectDescription, ObjectKind, Origin,
};
use zixt_hsm_protocol::CustodyError;
use zixt_types::{Canonical, CustodyMode, KeyPurpose};

/// Bytes of a key's CKA_ID: random, so that keys of two tries never share one.
const KEY_ID_BYTES: usize = 16;

/// What the state file keeps of a key in a token.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct NativeBlob {
    /// Format version: 1.
    #[n(0)]
    version: u64,
    /// The protector whose token it is in.
    #[n(1)]
    token: String,
    /// Its CKA_ID.
    #[cbor(n(2), with = "minicbor::bytes")]
    id: Vec<u8>,
    /// Its seed, sealed to the officers' recovery key, if it was escrowed; it was imported then.
    #[cbor(n(3), with = "minicbor::bytes")]
    escrow: Option<Vec<u8>>,
}

impl Canonical for NativeBlob {
    const WHAT: &'static str = "name of a key in a token";
    const BYTES_MAX: usize = 4096;
    const VERSION: Option<u64> = Some(1);
}

/// The keys in one token.
pub struct NativeToken {
    token: Arc<Pkcs11Protector>,
    /// Which keys are to be made in it.
    purposes: Vec<KeyPurpose>,
}

impl NativeToken {
    /// Keys of these purposes are to be made in this token, if it can hold them.
    #[must_use]
    pub fn new(token: Arc<Pkcs11Protector>, purposes: Vec<KeyPurpose>) -> Self {
        Self { token, purposes }
    }

    /// Whether a new key is made here: it is asked for, the token is open, and it passes the known-answer test. A key that
    /// has to be recoverable needs the officers' recovery key.
    fn takes(&self, new: &NewKey, recovery: Option<&[u8]>) -> bool {
        if !self.purposes.contains(&new.purpose) || !self.token.is_open() {
            return false;
        }
        if recovery.is_none() && new.purpose != KeyPurpose::Consensus {
            log::warn!(
                "the {} key is not made in the token: without the officers' recovery key it would be lost with it",
                new.purpose.name()
            );
            return false;
        }
        let supported =
            self.token.with_token(|token| token.supports(Algorithm::MlDsa(new.suite)), native_error);
        if let Err(error) = &supported {
            log::warn!("the {} key is not made in the token: {error}", new.purpose.name());
        }
        supported.is_ok()
    }

    fn generate(&self, new: NewKey, recovery: Option<&[u8]>) -> Result<StoredKey, CustodyError> {
        let mut id = vec![0; KEY_ID_BYTES];
        zixt_crypto::fill_random(&mut id).map_err(|error| internal(&error))?;
        let mut blob = NativeBlob { version: 1, token: self.token.name().to_owned(), id, escrow: None };
        let id = KeyId(blob.id.clone());
        // A consensus key is never recovered: officers activate a new one, so that there are never two signers.
        let made = match recovery.filter(|_| new.purpose != KeyPurpose::Consensus) {
            None => {
                self.token.with_token(|token| token.generate_signing_key(&id, new.suite), native_error)?
            }
            Some(recovery) => {
                let (seed, key) = selftest::generate_signing_key(&zixt_crypto::Reference, new.suite)
                    .map_err(|error| internal(&error))?;
                let aad = escrow_aad(new.purpose, key.public_key());
                let sealed = hpke::seal(recovery, labels::HPKE_KEY_ESCROW, &aad, seed.as_bytes());
                blob.escrow = Some(sealed.map_err(|error| internal(&error))?);
                let import = |token: &zixt_hsm_pkcs11::Token| token.import_signing_key(&id, new.suite, &seed);
                self.token.with_token(import, native_error)?
            }
        };
        Ok(StoredKey {
            purpose: new.purpose,
            version: new.version,
            suite: new.suite,
            mode: CustodyMode::Token,
            public_key: made.public_key,
            blob: blob.to_bytes(),
            status: new.status,
        })
    }

    fn load(&self, key: &StoredKey, blob: NativeBlob) -> Result<Box<dyn SigningKey>, CustodyError> {
        let origin = if blob.escrow.is_some() { Origin::Imported } else { Origin::MadeInside };
        let algorithm = Algorithm::MlDsa(key.suite);
        let native = NativeKey { id: KeyId(blob.id), algorithm, origin, public_key: key.public_key.clone() };
        let signer = self.token.with_token(|token| token.signer(&native), native_error)?;
        Ok(Box::new(signer))
    }
}

/// Every way in which a key is kept: in a token where one is configured and can, else as a sealed seed.
pub struct KeyStore {
    wrapped: super::WrappedSeed,
    native: Option<NativeToken>,
}

impl KeyStore {
    /// Sealed seeds, and keys in a token if there is one.
    #[must_use]
    pub fn new(wrapped: super::WrappedSeed, native: Option<NativeToken>) -> Self {
        Self { wrapped, native }
    }

    fn native_of(&self, key: &StoredKey) -> Result<(&NativeToken, NativeBlob), CustodyError> {
        let blob = NativeBlob::parse(&key.blob).map_err(|_| CustodyError::UnsealFailed)?;
        match &self.native {
            Some(native) if native.token.name() == blob.token => Ok((native, blob)),
            _ => Err(CustodyError::TokenAbsent {
                detail: format!(
                    "the {} key is in the token {:?}, which is not configured for native keys",
                    key.purpose.name(),
                    blob.token
                ),
            }),
        }
    }
}

impl KeyBackend for KeyStore {
    fn generate(&self, root: &Root, new: NewKey, recovery: Option<&[u8]>) -> Result<StoredKey, CustodyError> {
        match self.native.as_ref().filter(|native| native.takes(&new, recovery)) {
            Some(native) => native.generate(new, recovery),
            None => self.wrapped.generate(root, new, recovery),
        }
    }

    fn load(&self, root: &Root, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError> {
        if key.mode != CustodyMode::Token {
            return self.wrapped.load(root, key);
        }
        let (native, blob) = self.native_of(key)?;
        native.load(key, blob)
    }

    fn rewrap(&self, old: &Root, new: &Root, key: &StoredKey) -> Result<Vec<u8>, CustodyError> {
        match key.mode {
            CustodyMode::Token => Ok(key.blob.clone()),
            _ => self.wrapped.rewrap(old, new, key),
        }
    }

    fn recover(
        &self,
        root: &Root,
        key: &StoredKey,
        mode: CustodyMode,
        open: &OpenEscrow<'_>,
    ) -> Result<StoredKey, CustodyError> {
        let escrow = match key.mode {
            CustodyMode::Token => NativeBlob::parse(&key.blob).ok().and_then(|blob| blob.escrow),
            _ => None,
        };
        // Without an escrow the key is lost with its token, and stays in the record for what it once was.
        let Some(escrow) = escrow else { return Ok(key.clone()) };
        let aad = escrow_aad(key.purpose, &key.public_key);
        let seed = open(labels::HPKE_KEY_ESCROW, &aad, &escrow).ok_or(CustodyError::UnsealFailed)?;
        let seed = SigningSeed::from_slice(&seed).map_err(|_| CustodyError::UnsealFailed)?;
        self.wrapped.restore(root, key, mode, &seed)
    }

    fn destroy(&self, key: &StoredKey) -> Result<Erased, CustodyError> {
        if key.mode != CustodyMode::Token {
            return self.wrapped.destroy(key);
        }
        let (native, blob) = self.native_of(key)?;
        match native.token.with_token(|token| token.destroy_native(&KeyId(blob.id)), native_error) {
            Ok(Destruction::Destroyed) | Err(CustodyError::KekMissing { .. }) => Ok(Erased::Destroyed),
            Ok(Destruction::NotDestroyable) => {
                Ok(Erased::Kept("the token does not delete such keys".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    fn strays(&self, known: &[&StoredKey]) -> Result<Vec<String>, CustodyError> {
        let Some(native) = &self.native else { return Ok(Vec::new()) };
        let known: Vec<_> =
            known.iter().filter_map(|key| Some(NativeBlob::parse(&key.blob).ok()?.id)).collect();
        let objects = native.token.with_token(zixt_hsm_pkcs11::Token::objects, custody_error)?;
        let stray =
            |object: &ObjectDescription| object.kind == ObjectKind::PrivateKey && !known.contains(&object.id);
        Ok(objects.into_iter().filter(stray).map(|object| format!("key {}", KeyId(object.id))).collect())
    }
}

fn escrow_aad(purpose: KeyPurpose, public_key: &[u8]) -> Vec<u8> {
    [labels::HPKE_KEY_ESCROW, &[purpose as u8], public_key].concat()
}

fn internal(error: &impl std::fmt::Display) -> CustodyError {
    CustodyError::Internal { detail: error.to_string() }
}

fn native_error(error: NativeError) -> CustodyError {
    match error {
        NativeError::Token(error) => custody_error(error),
        NativeError::KeyMissing { key } => CustodyError::KekMissing { kek: key.to_string() },
        error @ (NativeError::Unsupported { .. }
        | NativeError::KeyUnsafe { .. }
        | NativeError::KeyExists { .. }
        | NativeError::Mismatch { .. }) => CustodyError::TokenFailed { detail: error.to_string() },
    }
}
