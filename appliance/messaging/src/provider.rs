//! MLS over our primitives: the two private-use suites 0xF0A1 (`standard`) and 0xF0A2 (`cnsa`), which differ in the
//! signature only. ML-KEM-1024 with HPKE as in draft-ietf-hpke-pq, HKDF-SHA384, AES-256-GCM.
//!
//! Two things are not as in other providers:
//! * **No signature key passes through MLS.** What mls-rs takes for the private key, keeps in its state and hands
//!   back for signing is a handle: the hash of the public key. The key itself stays where the device holds it,
//!   expanded once, and is in no saved conversation.
//! * **Decapsulation keys are expanded for each use and erased after it.** MLS replaces the key of a tree node after
//!   nearly each use, so a cache would hardly be hit, but would keep keys alive that forward secrecy wants gone.

use std::sync::Arc;

use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, CryptoProvider, HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey,
    SignaturePublicKey, SignatureSecretKey,
};
use mls_rs_core::error::IntoAnyError;
use mls_rs_crypto_hpke::context::{ContextR, ContextS};
use mls_rs_crypto_hpke::hpke::{Hpke, HpkeError};
use mls_rs_crypto_traits::{AeadType, KdfType, KemResult, KemType};
use sha3::digest::{ExtendableOutput, Update, XofReader};
use zeroize::Zeroizing;
use zixt_crypto::hazmat::{self, ExpandError, GcmError, NONCE_BYTES, TAG_BYTES};
use zixt_crypto::secret::{AeadKey, LengthError, RandomError, fill_random};
use zixt_crypto::selftest::{self, GenerateError};
use zixt_crypto::suite::{HASH_BYTES, KEM_SEED_BYTES, ML_KEM_1024_CIPHERTEXT_BYTES};
use zixt_crypto::{
    Backend, DecapsulateError, EncapsulateError, KemSeed, KeyError, SignError, SigningKey, VerifyError,
    digest,
};
use zixt_types::SuiteId;

/// The MLS cipher suite of a suite (RFC 9420 section 17.1 keeps 0xF000 to 0xFFFF for private use).
///
/// draft-ietf-mls-pq-ciphersuites has no ML-KEM-1024 with ML-DSA-65, and no final numbers for the rest.
#[must_use]
pub const fn cipher_suite(suite: SuiteId) -> CipherSuite {
    match suite {
        SuiteId::Standard => CipherSuite::new(0xF0A1),
        SuiteId::Cnsa => CipherSuite::new(0xF0A2),
    }
}

/// The suite of an MLS cipher suite, if it is one of ours.
#[must_use]
pub fn suite_of(cipher_suite: CipherSuite) -> Option<SuiteId> {
    SuiteId::ALL.into_iter().find(|suite| self::cipher_suite(*suite) == cipher_suite)
}

/// Why a primitive failed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A secret, nonce or pseudorandom key does not have its length.
    #[error("a secret has the wrong length")]
    Length(#[from] LengthError),
    /// The operating system gave no randomness.
    #[error("no randomness")]
    Random(#[from] RandomError),
    /// A key was refused.
    #[error("a key was refused")]
    Key(#[from] KeyError),
    /// No key was made.
    #[error("no key was made")]
    Generate(#[from] GenerateError),
    /// Encapsulation failed.
    #[error("encapsulation failed")]
    Encapsulate(#[from] EncapsulateError),
    /// Decapsulation failed.
    #[error("decapsulation failed")]
    Decapsulate(#[from] DecapsulateError),
    /// A ciphertext does not authenticate.
    #[error("a ciphertext does not authenticate")]
    Aead(#[from] GcmError),
    /// More key material was asked for than HKDF can give.
    #[error("key derivation failed")]
    Expand(#[from] ExpandError),
    /// A signature was refused.
    #[error("a signature was refused")]
    Verify(#[from] VerifyError),
    /// Nothing was signed.
    #[error("signing failed")]
    Sign(#[from] SignError),
    /// HPKE failed.
    #[error("HPKE failed")]
    Hpke(#[from] HpkeError),
    /// Asked to sign with a key that this device does not hold.
    #[error("the signature key is not the one of this device")]
    ForeignSigner,
    /// Asked to make a signature key: a device makes its keys elsewhere and the ledger records them.
    #[error("signature keys are not made here")]
    NoKeyGeneration,
}

impl IntoAnyError for ProviderError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// The crypto provider of one device: its suite, its backend and, when it is going to sign, its signature key.
#[derive(Clone)]
pub struct MlsCrypto {
    suite: SuiteId,
    backend: Arc<dyn Backend>,
    signer: Option<Arc<dyn SigningKey>>,
}

impl MlsCrypto {
    /// A provider that signs with `signer` and works in its suite.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, signer: Arc<dyn SigningKey>) -> Self {
        Self { suite: signer.suite(), backend, signer: Some(signer) }
    }

    /// A provider that only verifies and hashes.
    #[must_use]
    pub fn verify_only(backend: Arc<dyn Backend>, suite: SuiteId) -> Self {
        Self { suite, backend, signer: None }
    }

    /// The provider of the device's suite.
    #[must_use]
    pub fn suite_provider(&self) -> MlsSuite {
        let kem = MlKem1024 { backend: Arc::clone(&self.backend) };
        let hpke = Hpke::new(kem.clone(), HkdfSha384, Some(Aes256Gcm));
        MlsSuite { crypto: self.clone(), kem, hpke }
    }
}

impl std::fmt::Debug for MlsCrypto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MlsCrypto")
            .field("suite", &self.suite)
            .field("backend", &self.backend.name())
            .finish_non_exhaustive()
    }
}

impl CryptoProvider for MlsCrypto {
    type CipherSuiteProvider = MlsSuite;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![cipher_suite(self.suite)]
    }

    fn cipher_suite_provider(&self, wanted: CipherSuite) -> Option<MlsSuite> {
        (wanted == cipher_suite(self.suite)).then(|| self.suite_provider())
    }
}

/// What mls-rs takes for the private signature key: the hash of the public one.
pub(crate) fn signer_handle(signer: &dyn SigningKey) -> SignatureSecretKey {
    SignatureSecretKey::new_slice(digest::key_hash(signer.suite(), signer.public_key()).as_ref())
}

/// The primitives of one suite.
#[derive(Clone)]
pub struct MlsSuite {
    crypto: MlsCrypto,
    kem: MlKem1024,
    hpke: Hpke<MlKem1024, HkdfSha384, Aes256Gcm>,
}

impl MlsSuite {
    fn signer(&self, handle: &SignatureSecretKey) -> Result<&dyn SigningKey, ProviderError> {
        let signer = self.crypto.signer.as_deref().ok_or(ProviderError::ForeignSigner)?;
        if signer_handle(signer) == *handle { Ok(signer) } else { Err(ProviderError::ForeignSigner) }
    }
}

impl std::fmt::Debug for MlsSuite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.crypto.fmt(f)
    }
}

impl CipherSuiteProvider for MlsSuite {
    type Error = ProviderError;
    type HpkeContextS = ContextS<HkdfSha384, Aes256Gcm>;
    type HpkeContextR = ContextR<HkdfSha384, Aes256Gcm>;

    fn cipher_suite(&self) -> CipherSuite {
        cipher_suite(self.crypto.suite)
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, ProviderError> {
        Ok(hazmat::sha384(&[data]).to_vec())
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, ProviderError> {
        Ok(hazmat::hmac_sha384(key, &[data]).to_vec())
    }

    fn aead_seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        Aes256Gcm.seal(key, data, aad, nonce)
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        aead_open(key, ciphertext, aad, nonce)
    }

    fn aead_key_size(&self) -> usize {
        AeadKey::BYTES
    }

    fn aead_nonce_size(&self) -> usize {
        NONCE_BYTES
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        HkdfSha384.extract(salt, ikm).map(Zeroizing::new)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        HkdfSha384.expand(prk, info, len).map(Zeroizing::new)
    }

    fn kdf_extract_size(&self) -> usize {
        HASH_BYTES
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        plaintext: &[u8],
    ) -> Result<HpkeCiphertext, ProviderError> {
        Ok(self.hpke.seal(remote_key, info, None, aad, plaintext)?)
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        plaintext: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext, ProviderError> {
        Ok(self.hpke.seal(remote_key, info, Some(psk), aad, plaintext)?)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        Ok(self.hpke.open(ciphertext, local_secret, local_public, info, None, aad)?)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        Ok(self.hpke.open(ciphertext, local_secret, local_public, info, Some(psk), aad)?)
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS), ProviderError> {
        Ok(self.hpke.setup_sender(remote_key, info, None)?)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR, ProviderError> {
        Ok(self.hpke.setup_receiver(kem_output, local_secret, local_public, info, None)?)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), ProviderError> {
        self.kem.generate_deterministic(derive_seed(ikm).as_ref())
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), ProviderError> {
        self.kem.generate()
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<(), ProviderError> {
        self.kem.public_key_validate(key)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<(), ProviderError> {
        Ok(fill_random(out)?)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey), ProviderError> {
        Err(ProviderError::NoKeyGeneration)
    }

    fn signature_key_derive_public(
        &self,
        handle: &SignatureSecretKey,
    ) -> Result<SignaturePublicKey, ProviderError> {
        Ok(SignaturePublicKey::new_slice(self.signer(handle)?.public_key()))
    }

    fn sign(&self, handle: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>, ProviderError> {
        Ok(self.signer(handle)?.sign(data)?)
    }

    fn verify(&self, key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<(), ProviderError> {
        Ok(self.crypto.backend.verify(self.crypto.suite, key, data, signature)?)
    }
}

/// DeriveKeyPair of draft-ietf-hpke-pq section 3: SHAKE256.LabeledDerive(ikm, "DeriveKeyPair", "", 64). The one of
/// mls-rs-crypto-hpke gives 48 bytes, and ML-KEM takes 64.
fn derive_seed(ikm: &[u8]) -> Zeroizing<[u8; KEM_SEED_BYTES]> {
    const LABEL: &[u8] = b"DeriveKeyPair";
    let mut xof = sha3::Shake256::default();
    for part in [
        ikm,
        b"HPKE-v1",
        b"KEM\x00\x42",
        &(LABEL.len() as u16).to_be_bytes(),
        LABEL,
        &(KEM_SEED_BYTES as u16).to_be_bytes(),
    ] {
        xof.update(part);
    }
    let mut seed = Zeroizing::new([0; KEM_SEED_BYTES]);
    xof.finalize_xof().read(seed.as_mut_slice());
    seed
}

/// ML-KEM-1024 as HPKE KEM. A private key is the 64-byte seed.
#[derive(Clone)]
pub struct MlKem1024 {
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for MlKem1024 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MlKem1024")
    }
}

impl KemType for MlKem1024 {
    type Error = ProviderError;

    fn kem_id(&self) -> u16 {
        0x0042
    }

    fn generate_deterministic(&self, seed: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), ProviderError> {
        let key = self.backend.decapsulation_key(&KemSeed::from_slice(seed)?)?;
        Ok((seed.to_vec().into(), key.encapsulation_key().to_vec().into()))
    }

    fn generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), ProviderError> {
        let (seed, key) = selftest::generate_decapsulation_key(&*self.backend)?;
        Ok((seed.as_bytes().to_vec().into(), key.encapsulation_key().to_vec().into()))
    }

    fn public_key_validate(&self, key: &HpkePublicKey) -> Result<(), ProviderError> {
        Ok(self.backend.validate_encapsulation_key(key)?)
    }

    fn encap(&self, remote_key: &HpkePublicKey) -> Result<KemResult, ProviderError> {
        let (ciphertext, secret) = self.backend.encapsulate(remote_key)?;
        Ok(KemResult::new(secret.as_bytes().to_vec(), ciphertext.as_bytes().to_vec()))
    }

    fn decap(&self, enc: &[u8], key: &HpkeSecretKey, _: &HpkePublicKey) -> Result<Vec<u8>, ProviderError> {
        if enc.len() != ML_KEM_1024_CIPHERTEXT_BYTES {
            let expected = ML_KEM_1024_CIPHERTEXT_BYTES;
            return Err(DecapsulateError::CiphertextLength { expected, actual: enc.len() }.into());
        }
        let key = self.backend.decapsulation_key(&KemSeed::from_slice(key)?)?;
        Ok(key.decapsulate(enc)?.as_bytes().to_vec())
    }

    fn seed_length_for_derive(&self) -> usize {
        KEM_SEED_BYTES
    }
}

/// HKDF-SHA384.
#[derive(Clone, Debug)]
pub struct HkdfSha384;

impl KdfType for HkdfSha384 {
    type Error = ProviderError;

    fn kdf_id(&self) -> u16 {
        0x0002
    }

    fn expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Vec<u8>, ProviderError> {
        let prk = prk.try_into().map_err(|_| LengthError { expected: HASH_BYTES, actual: prk.len() })?;
        let mut out = vec![0; len];
        hazmat::hkdf_expand(prk, &[info], &mut out)?;
        Ok(out)
    }

    fn extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, ProviderError> {
        Ok(hazmat::hkdf_extract(salt, ikm).to_vec())
    }

    fn extract_size(&self) -> usize {
        HASH_BYTES
    }
}

/// AES-256-GCM.
#[derive(Clone, Debug)]
pub struct Aes256Gcm;

impl AeadType for Aes256Gcm {
    type Error = ProviderError;

    fn aead_id(&self) -> u16 {
        0x0002
    }

    fn seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        let mut out = Vec::with_capacity(data.len() + TAG_BYTES);
        let key = AeadKey::from_slice(key)?;
        hazmat::aead_seal_into(&key, nonce_of(nonce)?, aad.unwrap_or_default(), data, &mut out)?;
        Ok(out)
    }

    fn open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        aead_open(key, ciphertext, aad, nonce).map(|mut plaintext| std::mem::take(&mut *plaintext))
    }

    fn key_size(&self) -> usize {
        AeadKey::BYTES
    }

    fn nonce_size(&self) -> usize {
        NONCE_BYTES
    }
}

fn aead_open(
    key: &[u8],
    ciphertext: &[u8],
    aad: Option<&[u8]>,
    nonce: &[u8],
) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
    let key = AeadKey::from_slice(key)?;
    Ok(hazmat::aead_open(&key, nonce_of(nonce)?, aad.unwrap_or_default(), ciphertext)?)
}

fn nonce_of(nonce: &[u8]) -> Result<&[u8; NONCE_BYTES], LengthError> {
    nonce.try_into().map_err(|_| LengthError { expected: NONCE_BYTES, actual: nonce.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hpke::{Deserializable, Kem, Serializable};
    use zixt_crypto::testing::Broken;
    use zixt_crypto::{Reference, SigningSeed, hpke as ours, labels};

    fn suites() -> Vec<MlsSuite> {
        let suite = |suite| {
            let signer = Reference.signing_key(suite, &SigningSeed::from_bytes(&[7; 32])).unwrap();
            MlsCrypto::new(Arc::new(Reference), Arc::from(signer)).suite_provider()
        };
        SuiteId::ALL.into_iter().map(suite).collect()
    }

    #[test]
    fn cipher_suites_are_private_use_and_round_trip() {
        for suite in SuiteId::ALL {
            assert!(cipher_suite(suite).raw_value() >= 0xF000);
            assert_eq!(suite_of(cipher_suite(suite)), Some(suite));
        }
        assert_eq!(suite_of(CipherSuite::CURVE25519_AES128), None);
        let [standard, cnsa] = &suites()[..] else { panic!("two suites") };
        assert!(standard.crypto.cipher_suite_provider(cnsa.cipher_suite()).is_none());
    }

    #[test]
    fn key_derivation_is_the_one_of_the_draft() {
        for ikm in [&b""[..], b"ikm", &[0x5A; 64]] {
            let (secret, public) = hpke::kem::MlKem1024::derive_keypair(ikm);
            let (our_secret, our_public) = suites()[0].kem_derive(ikm).unwrap();
            assert_eq!(our_secret.as_ref(), secret.to_bytes().as_slice());
            assert_eq!(our_public.as_ref(), public.to_bytes().as_slice());
        }
    }

    #[test]
    fn hpke_interoperates_both_ways() {
        let suite = &suites()[0];
        let info = labels::HPKE_RATCHET_TREE_KEY;
        let (secret, public) = suite.kem_generate().unwrap();
        let seed = KemSeed::from_slice(&secret).unwrap();

        let sealed = ours::seal(&public, info, b"aad", b"text").unwrap();
        let (enc, ciphertext) = sealed.split_at(ML_KEM_1024_CIPHERTEXT_BYTES);
        let theirs = HpkeCiphertext { kem_output: enc.to_vec(), ciphertext: ciphertext.to_vec() };
        let opened = suite.hpke_open(&theirs, &secret, &public, info, Some(b"aad")).unwrap();
        assert_eq!(*opened, b"text");
        assert!(suite.hpke_open(&theirs, &secret, &public, info, Some(b"other")).is_err());

        let sealed = suite.hpke_seal(&public, info, Some(b"aad"), b"text").unwrap();
        let joined = [sealed.kem_output, sealed.ciphertext].concat();
        assert_eq!(*ours::open(&seed, info, b"aad", &joined).unwrap(), b"text");
        assert!(
            hpke::kem::MlKem1024::sk_to_pk(&Deserializable::from_bytes(&secret).unwrap()).to_bytes()[..]
                == *public
        );
    }

    #[test]
    fn a_new_key_whose_halves_do_not_fit_is_not_used() {
        let suite = MlsCrypto::verify_only(Arc::new(Broken), SuiteId::Standard).suite_provider();
        let refused = suite.kem_generate().map(|_| ());
        assert!(matches!(refused, Err(ProviderError::Generate(GenerateError::Pairwise(_)))), "{refused:?}");
    }

    #[test]
    fn only_the_own_handle_signs() {
        for suite in suites() {
            let handle = signer_handle(suite.crypto.signer.as_deref().unwrap());
            assert_eq!(handle.as_bytes().len(), 48, "a hash, not a seed");
            let signature = suite.sign(&handle, b"data").unwrap();
            let public = suite.signature_key_derive_public(&handle).unwrap();
            suite.verify(&public, &signature, b"data").unwrap();
            assert!(suite.verify(&public, &signature, b"date").is_err());
            assert!(matches!(
                suite.sign(&SignatureSecretKey::new(vec![7; 32]), b"data"),
                Err(ProviderError::ForeignSigner)
            ));
            assert!(matches!(suite.signature_key_generate(), Err(ProviderError::NoKeyGeneration)));
        }
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let suite = &suites()[0];
        assert!(suite.aead_seal(&[0; 31], b"", None, &[0; 12]).is_err());
        assert!(suite.aead_seal(&[0; 32], b"", None, &[0; 11]).is_err());
        assert!(suite.kdf_expand(&[0; 47], b"", 32).is_err());
        assert!(suite.kdf_expand(&[0; 48], b"", 255 * 48 + 1).is_err());
        assert!(suite.kem_public_key_validate(&vec![0xFF; 1568].into()).is_err());
        let (secret, public) = suite.kem_generate().unwrap();
        assert!(suite.hpke_setup_r(&[0; 1567], &secret, &public, b"").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let suite = &suites()[0];
        let (secret, _) = suite.kem_generate().unwrap();
        assert_eq!(format!("{suite:?}"), "MlsCrypto { suite: Standard, backend: \"reference\", .. }");
        assert_eq!(format!("{secret:?}"), "HpkeSecretKey");
    }
}
