//! Password hashing: Argon2id, version 0x13 (RFC 9106).
//!
//! The cost is stored beside each hash as plain numbers, so that it can rise later. Stored numbers are not
//! trusted: [`Params::new`] refuses a cost too low to protect anyone and one high enough to stall the appliance.

use argon2::{Algorithm, Argon2, Version};
use zeroize::Zeroizing;

use crate::hash::constant_time_eq;

/// Bytes of a salt (RFC 9106, Section 3.1 recommends 16).
pub const SALT_BYTES: usize = 16;
/// Bytes of the derived value.
pub const OUTPUT_BYTES: usize = 32;

/// The cost of one derivation, within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Params {
    /// What new hashes use: 64 MiB, 3 passes, 1 lane. The second choice of RFC 9106, Section 4, on one lane,
    /// because a server derives for several users at once.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// The least that is accepted: 8 MiB, 1 pass, 1 lane. Enough that tests of other parts may use it; people's
    /// passwords get [`Params::DEFAULT`].
    pub const MIN: Self = Self { memory_kib: 8 * 1024, passes: 1, lanes: 1 };
    /// The most that is accepted, so that a forged record cannot exhaust memory or time: 1 GiB, 16 passes,
    /// 8 lanes.
    pub const MAX: Self = Self { memory_kib: 1024 * 1024, passes: 16, lanes: 8 };

    /// Checks a cost that was stored or configured.
    ///
    /// # Errors
    /// [`ParamsError`] if any number is outside [`Params::MIN`] to [`Params::MAX`].
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, ParamsError> {
        if memory_kib < Self::MIN.memory_kib || memory_kib > Self::MAX.memory_kib {
            return Err(ParamsError::MemoryKib(memory_kib));
        }
        if passes < Self::MIN.passes || passes > Self::MAX.passes {
            return Err(ParamsError::Passes(passes));
        }
        if lanes < Self::MIN.lanes || lanes > Self::MAX.lanes {
            return Err(ParamsError::Lanes(lanes));
        }
        Ok(Self { memory_kib, passes, lanes })
    }

    /// Memory in KiB (m).
    #[must_use]
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory (t).
    #[must_use]
    pub const fn passes(self) -> u32 {
        self.passes
    }

    /// Lanes (p).
    #[must_use]
    pub const fn lanes(self) -> u32 {
        self.lanes
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A cost outside the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Memory is out of range.
    #[error("Argon2id memory: expected {min} to {max} KiB, got {0}", min = Params::MIN.memory_kib, max = Params::MAX.memory_kib)]
    MemoryKib(u32),
    /// The number of passes is out of range.
    #[error("Argon2id passes: expected {min} to {max}, got {0}", min = Params::MIN.passes, max = Params::MAX.passes)]
    Passes(u32),
    /// The number of lanes is out of range.
    #[error("Argon2id lanes: expected {min} to {max}, got {0}", min = Params::MIN.lanes, max = Params::MAX.lanes)]
    Lanes(u32),
}

/// Why nothing was derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The working memory could not be had.
    #[error("no {memory_kib} KiB of memory for Argon2id")]
    OutOfMemory {
        /// What was asked for.
        memory_kib: u32,
    },
    /// The password has 4 GiB or more.
    #[error("the password is too long")]
    PasswordTooLong,
}

/// Derives 32 bytes from a password. Takes tens of milliseconds and tens of megabytes on purpose: do not call it
/// on a thread that others wait for.
///
/// # Errors
/// [`DeriveError`] if memory is short or the password absurdly long.
pub fn derive(
    params: Params,
    salt: &[u8; SALT_BYTES],
    password: &[u8],
) -> Result<Zeroizing<[u8; OUTPUT_BYTES]>, DeriveError> {
    let mut out = Zeroizing::new([0; OUTPUT_BYTES]);
    run(params, salt, password, out.as_mut_slice())?;
    Ok(out)
}

/// Derives and compares in constant time.
///
/// # Errors
/// [`DeriveError`], as [`derive`].
pub fn verify(
    params: Params,
    salt: &[u8; SALT_BYTES],
    password: &[u8],
    expected: &[u8; OUTPUT_BYTES],
) -> Result<bool, DeriveError> {
    let derived = derive(params, salt, password)?;
    Ok(constant_time_eq(derived.as_slice(), expected))
}

fn run(params: Params, salt: &[u8], password: &[u8], out: &mut [u8]) -> Result<(), DeriveError> {
    let built = argon2::Params::new(params.memory_kib, params.passes, params.lanes, Some(out.len()))
        .and_then(|cost| {
            Argon2::new(Algorithm::Argon2id, Version::V0x13, cost).hash_password_into(password, salt, out)
        });
    built.map_err(|error| match error {
        argon2::Error::PwdTooLong => DeriveError::PasswordTooLong,
        _ => DeriveError::OutOfMemory { memory_kib: params.memory_kib },
    })
}

/// The Argon2id test vector of RFC 9106, Section 5.3, which needs inputs that [`derive`] does not offer.
pub(crate) fn known_answer_holds() -> bool {
    const TAG: [u8; 32] = [
        0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b, 0x53, 0xc9, 0xd0,
        0x1e, 0xf0, 0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9, 0x6b, 0x01, 0xe6, 0x59,
    ];
    let mut tag = [0; 32];
    let filled = argon2::ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(match argon2::AssociatedData::new(&[4; 12]) {
            Ok(data) => data,
            Err(_) => return false,
        })
        .build()
        .and_then(|params| Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params))
        .and_then(|argon| argon.hash_password_into(&[1; 32], &[2; 16], &mut tag));
    filled.is_ok() && tag == TAG
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test program of the reference implementation (phc-winner-argon2, src/test.c, version 0x13).
    #[test]
    fn reference_implementation_vectors() {
        let cases: [(u32, u32, &str, &str, &str); 3] = [
            (
                1,
                16,
                "password",
                "somesalt",
                "f6a5adc1ba723dddef9b5ac1d464e180fcd9dffc9d1cbf76cca2fed795d9ca98",
            ),
            (
                2,
                16,
                "password",
                "diffsalt",
                "bdf32b05ccc42eb15d58fd19b1f856b113da1e9a5874fdcc544308565aa8141c",
            ),
            (
                2,
                16,
                "differentpassword",
                "somesalt",
                "0b84d652cf6b0c4beaef0dfe278ba6a80df6696281d7e0d2891b817d8c458fde",
            ),
        ];
        for (passes, log_kib, password, salt, expected) in cases {
            let mut out = [0; 32];
            run(
                Params::new(1 << log_kib, passes, 1).unwrap(),
                salt.as_bytes(),
                password.as_bytes(),
                &mut out,
            )
            .unwrap();
            assert_eq!(out.iter().map(|b| format!("{b:02x}")).collect::<String>(), expected);
        }
        assert!(known_answer_holds());
    }

    #[test]
    fn limits_hold() {
        let (min, max) = (Params::MIN, Params::MAX);
        assert_eq!(Params::new(min.memory_kib, 1, 1), Ok(min));
        assert_eq!(Params::new(max.memory_kib, 16, 8), Ok(max));
        assert_eq!(Params::new(min.memory_kib - 1, 1, 1), Err(ParamsError::MemoryKib(8191)));
        assert_eq!(Params::new(max.memory_kib + 1, 1, 1), Err(ParamsError::MemoryKib(1_048_577)));
        assert_eq!(Params::new(65_536, 0, 1), Err(ParamsError::Passes(0)));
        assert_eq!(Params::new(65_536, 17, 1), Err(ParamsError::Passes(17)));
        assert_eq!(Params::new(65_536, 3, 0), Err(ParamsError::Lanes(0)));
        assert_eq!(Params::new(65_536, 3, 9), Err(ParamsError::Lanes(9)));
        assert_eq!(
            ParamsError::MemoryKib(1).to_string(),
            "Argon2id memory: expected 8192 to 1048576 KiB, got 1"
        );
    }

    #[test]
    fn verify_tells_right_from_wrong() {
        let salt = [9; SALT_BYTES];
        let hash = derive(Params::MIN, &salt, b"correct horse").unwrap();
        assert!(verify(Params::MIN, &salt, b"correct horse", &hash).unwrap());
        assert!(!verify(Params::MIN, &salt, b"correct horsf", &hash).unwrap());
        assert!(!verify(Params::MIN, &[8; SALT_BYTES], b"correct horse", &hash).unwrap());
        assert!(!verify(Params::new(8192, 2, 1).unwrap(), &salt, b"correct horse", &hash).unwrap());
    }
}
