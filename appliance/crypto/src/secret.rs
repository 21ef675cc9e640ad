//! Owned secrets: erased on drop, never printed, compared in constant time.
//!
//! The bytes live on the heap, so that moving a value does not leave copies of them on the stack.
//! There is no `Clone`: whoever needs a second owner says so with `from_slice(secret.as_bytes())`.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A byte string of the wrong length where a key or secret was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes, got {actual}")]
pub struct LengthError {
    /// The only length accepted.
    pub expected: usize,
    /// The length received.
    pub actual: usize,
}

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct RandomError;

/// Fills `out` from the operating system's generator (getrandom(2) on Linux).
///
/// # Errors
/// [`RandomError`] if the generator fails; `out` must not be used then.
pub fn fill_random(out: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(out).map_err(|_| RandomError)
}

/// Defines a fixed-size secret.
macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        pub struct $name(Box<Zeroizing<[u8; $bytes]>>);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// A fresh secret from the operating system's generator.
            ///
            /// # Errors
            /// [`RandomError`] if the generator fails.
            pub fn generate() -> Result<Self, RandomError> {
                let mut secret = Self(Box::new(Zeroizing::new([0; $bytes])));
                fill_random(&mut secret.0[..])?;
                Ok(secret)
            }

            /// Copies a secret. The caller remains responsible for erasing its own copy.
            pub fn from_bytes(bytes: &[u8; $bytes]) -> Self {
                let mut secret = Self(Box::new(Zeroizing::new([0; $bytes])));
                secret.0.copy_from_slice(bytes);
                secret
            }

            /// Copies a secret of a length that is only known now.
            ///
            /// # Errors
            /// [`LengthError`] unless `bytes` has exactly [`Self::BYTES`] bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, LengthError> {
                let array: &[u8; $bytes] =
                    bytes.try_into().map_err(|_| LengthError { expected: $bytes, actual: bytes.len() })?;
                Ok(Self::from_bytes(array))
            }

            /// The secret itself. Do not log, format or store it unwrapped.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> subtle::Choice {
                self.0.as_slice().ct_eq(other.0.as_slice())
            }
        }

        /// Constant time.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.ct_eq(other).into()
            }
        }

        impl Eq for $name {}

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret! {
    /// The seed ξ of an ML-DSA key pair (FIPS 204, Algorithm 6; the same 32 bytes for every parameter set).
    SigningSeed, 32
}
secret! {
    /// The seed d ‖ z of an ML-KEM key pair (FIPS 203, Algorithm 16).
    KemSeed, 64
}
secret! {
    /// The shared secret K of one ML-KEM encapsulation (FIPS 203, Algorithms 17 and 18). Key material for a
    /// KDF, not a key.
    SharedSecret, 32
}
secret! {
    /// An AES-256-GCM key.
    AeadKey, 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        let seed = SigningSeed::from_bytes(&[0xab; 32]);
        assert_eq!(format!("{seed:?}"), "SigningSeed(redacted)");
        assert_eq!(format!("{:?}", KemSeed::from_bytes(&[1; 64])), "KemSeed(redacted)");
    }

    #[test]
    fn length_is_exact() {
        for len in [0, 31, 33, 64] {
            let error = SigningSeed::from_slice(&vec![0; len]).unwrap_err();
            assert_eq!(error, LengthError { expected: 32, actual: len });
        }
        assert!(SigningSeed::from_slice(&[7; 32]).unwrap() == SigningSeed::from_bytes(&[7; 32]));
        assert!(SigningSeed::from_slice(&[7; 32]).unwrap() != SigningSeed::from_bytes(&[8; 32]));
    }

    #[test]
    fn generated_secrets_differ() {
        assert!(KemSeed::generate().unwrap() != KemSeed::generate().unwrap());
    }
}
