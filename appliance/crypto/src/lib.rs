//! Cryptography of the appliance: the suites, sealing, key derivation, password hashing, labels and self-tests.
//!
//! Pure Rust, no I/O but the operating system's random numbers, no global state. The faster backend and TLS are
//! in `zixt-crypto-fast`, behind the same [`Backend`].
//!
//! | job | algorithm | standard |
//! |---|---|---|
//! | key encapsulation | ML-KEM-1024 | FIPS 203 |
//! | signature | ML-DSA-65 (`standard`), ML-DSA-87 (`cnsa`) | FIPS 204, RFC 9964 |
//! | encryption | AES-256-GCM | SP 800-38D |
//! | hash, MAC, KDF | SHA-384, HMAC, HKDF | FIPS 180-4, RFC 2104, RFC 5869 |
//! | sealing to a key | HPKE, base mode | RFC 9180, draft-ietf-hpke-pq |
//! | passwords | Argon2id | RFC 9106 |

pub mod aead;
pub mod cose;
pub mod digest;
mod drawn;
pub mod hash;
pub mod hazmat;
pub mod hpke;
mod keyring;
pub mod labels;
pub mod password;
pub mod reference;
pub mod secret;
pub mod selftest;
pub mod suite;
#[cfg(feature = "testing")]
pub mod testing;
pub mod traits;

pub use drawn::Drawn;
pub use keyring::{Keyring, KeyringEntry};
pub use reference::Reference;
pub use secret::{AeadKey, KemSeed, LengthError, RandomError, SharedSecret, SigningSeed, fill_random};
pub use suite::{SuiteParams, suite_params};
pub use traits::{
    Backend, Ciphertext, DecapsulateError, DecapsulationKey, EncapsulateError, KeyError, SignError,
    SigningKey, VerifyError,
};
pub use zixt_types::{Hash, SuiteId};
