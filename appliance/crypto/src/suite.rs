//! What a suite id stands for: algorithms and sizes.

use zixt_types::SuiteId;

/// Bytes of an ML-DSA seed (FIPS 204, Algorithm 6), in every parameter set.
pub const SIGNING_SEED_BYTES: usize = 32;
/// Bytes of an ML-DSA-65 public key (FIPS 204, Table 2).
pub const ML_DSA_65_PUBLIC_KEY_BYTES: usize = 1952;
/// Bytes of an ML-DSA-65 signature (FIPS 204, Table 2).
pub const ML_DSA_65_SIGNATURE_BYTES: usize = 3309;
/// Bytes of an ML-DSA-87 public key (FIPS 204, Table 2).
pub const ML_DSA_87_PUBLIC_KEY_BYTES: usize = 2592;
/// Bytes of an ML-DSA-87 signature (FIPS 204, Table 2).
pub const ML_DSA_87_SIGNATURE_BYTES: usize = 4627;
/// Bytes of an ML-KEM seed d ‖ z (FIPS 203, Algorithm 16).
pub const KEM_SEED_BYTES: usize = 64;
/// Bytes of an ML-KEM-1024 encapsulation key (FIPS 203, Table 3).
pub const ML_KEM_1024_ENCAPSULATION_KEY_BYTES: usize = 1568;
/// Bytes of an ML-KEM-1024 ciphertext (FIPS 203, Table 3).
pub const ML_KEM_1024_CIPHERTEXT_BYTES: usize = 1568;
/// Bytes of an expanded ML-KEM-1024 decapsulation key (FIPS 203, Table 3). Never stored: seeds are.
pub const ML_KEM_1024_EXPANDED_KEY_BYTES: usize = 3168;
/// Bytes of an ML-KEM shared secret (FIPS 203, Table 3).
pub const SHARED_SECRET_BYTES: usize = 32;
/// Bytes of a SHA-384 hash, in both suites.
pub const HASH_BYTES: usize = 48;

/// Algorithms and sizes of a suite. Everything that is not here is the same in all suites: ML-KEM-1024,
/// AES-256-GCM, SHA-384.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuiteParams {
    /// Name of the signature algorithm.
    pub signature_algorithm: &'static str,
    /// Bytes of a signature public key.
    pub public_key_bytes: usize,
    /// Bytes of a signature.
    pub signature_bytes: usize,
    /// COSE algorithm number (RFC 9964).
    pub cose_alg: i64,
}

/// The parameters of a suite.
pub const fn suite_params(suite: SuiteId) -> SuiteParams {
    match suite {
        SuiteId::Standard => SuiteParams {
            signature_algorithm: "ML-DSA-65",
            public_key_bytes: ML_DSA_65_PUBLIC_KEY_BYTES,
            signature_bytes: ML_DSA_65_SIGNATURE_BYTES,
            cose_alg: -49,
        },
        SuiteId::Cnsa => SuiteParams {
            signature_algorithm: "ML-DSA-87",
            public_key_bytes: ML_DSA_87_PUBLIC_KEY_BYTES,
            signature_bytes: ML_DSA_87_SIGNATURE_BYTES,
            cose_alg: -50,
        },
    }
}
