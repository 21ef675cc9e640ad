//! The sharing layer: Shamir's scheme over GF(2^8), byte by byte, by crate `vsss-rs`. Nothing of the scheme is written
//! here; this module bounds its inputs and erases what it leaves behind.

use thiserror::Error;
use vsss_rs::Gf256;
use zeroize::{Zeroize as _, Zeroizing};
use zixt_crypto::{Drawn, RandomError};

/// Bytes of what is shared, and of each share: an ML-KEM seed.
pub(crate) const SECRET_BYTES: usize = 64;
/// Shares at most: as many as the field has points besides 0, where the secret stands.
#[cfg(test)]
const SHARES_MAX: u8 = 255;

/// A share's value. Where it stands (its index) is no secret.
pub(crate) type Value = Box<Zeroizing<[u8; SECRET_BYTES]>>;

/// Why nothing was split or combined.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SharingError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The library refused: too few shares, a threshold that makes no sense, an index of 0 or one that repeats.
    #[error("the secret sharing refused its input: {0}")]
    Refused(String),
}

fn refused(error: vsss_rs::Error) -> SharingError {
    SharingError::Refused(error.to_string())
}

/// Splits a secret into `count` shares of which any `threshold` give it back. The first share has index 1.
pub(crate) fn split(
    secret: &[u8; SECRET_BYTES],
    threshold: u8,
    count: u8,
) -> Result<Vec<Value>, SharingError> {
    // The library's polynomial is not erased when it is dropped. It has room for one byte at a time and overwrites
    // itself, so what stays behind is of the last byte: that one is a zero and no secret.
    let mut padded = Zeroizing::new([0; SECRET_BYTES + 1]);
    padded[..SECRET_BYTES].copy_from_slice(secret);
    // A word for each coefficient but the secret's, for each byte.
    let mut random = Drawn::new(4 * usize::from(threshold.saturating_sub(1)) * padded.len())?;
    let raw = Gf256::split_bytes(usize::from(threshold), usize::from(count), padded.as_slice(), &mut random)
        .map_err(refused)?;
    let mut shares = Vec::with_capacity(raw.len());
    for (mut share, index) in raw.into_iter().zip(1u8..=u8::MAX) {
        // A share of the library is its index, then its bytes.
        let value = share.split_first().filter(|(at, _)| **at == index).and_then(|(_, value)| {
            let mut copy: Value = Box::new(Zeroizing::new([0; SECRET_BYTES]));
            copy.copy_from_slice(value.get(..SECRET_BYTES)?);
            Some(copy)
        });
        share.zeroize();
        shares.extend(value);
    }
    if random.overdrawn() {
        return Err(RandomError.into());
    }
    if shares.len() != usize::from(count) {
        return Err(SharingError::Refused("it made other shares than were asked for".to_owned()));
    }
    Ok(shares)
}

/// Puts shares together. With fewer than the threshold, or a wrong one among them, the result is some other secret:
/// the caller has to know what it looks for.
pub(crate) fn combine(shares: &[(u8, &[u8; SECRET_BYTES])]) -> Result<Value, SharingError> {
    let mut raw = Zeroizing::new(Vec::with_capacity(shares.len()));
    for (index, value) in shares {
        let mut share = Vec::with_capacity(1 + SECRET_BYTES);
        share.push(*index);
        share.extend_from_slice(*value);
        raw.push(share);
    }
    let combined = Zeroizing::new(Gf256::combine_bytes(&*raw).map_err(refused)?);
    let mut secret: Value = Box::new(Zeroizing::new([0; SECRET_BYTES]));
    if combined.len() != SECRET_BYTES {
        return Err(SharingError::Refused("it made a secret of another length".to_owned()));
    }
    secret.copy_from_slice(&combined);
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen<'a>(shares: &'a [Value], indices: &[usize]) -> Vec<(u8, &'a [u8; SECRET_BYTES])> {
        indices.iter().map(|i| (u8::try_from(i + 1).unwrap(), &**shares[*i])).collect()
    }

    /// A threshold, a count and an order of the shares.
    fn plans() -> impl Strategy<Value = (u8, u8, Vec<usize>)> {
        (2u8..=9).prop_flat_map(|count| (2..=count, Just(count))).prop_flat_map(|(m, n)| {
            (Just(m), Just(n), Just((0..usize::from(n)).collect::<Vec<_>>()).prop_shuffle())
        })
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (threshold, count) in [(0, 3), (1, 3), (4, 3), (2, 0), (2, 1)] {
            assert!(
                matches!(split(&[1; SECRET_BYTES], threshold, count), Err(SharingError::Refused(_))),
                "{threshold} of {count}"
            );
        }
        let shares = split(&[1; SECRET_BYTES], 2, 3).unwrap();
        assert!(combine(&[]).is_err());
        assert!(combine(&chosen(&shares, &[0])).is_err());
        assert!(combine(&chosen(&shares, &[0, 0])).is_err());
        assert!(combine(&[(0, &shares[0]), (1, &shares[1])]).is_err());
        assert!(split(&[1; SECRET_BYTES], SHARES_MAX, SHARES_MAX).is_ok());
    }

    /// With the secret fixed, one share alone is spread evenly over all bytes, 0 included: a coefficient that is never
    /// 0 would show here, and would tell which secrets a share excludes.
    #[test]
    fn a_share_of_a_known_secret_is_uniform() {
        const SPLITS: u32 = 2_000;
        let mut seen = [0u32; 256];
        for _ in 0..SPLITS {
            let shares = split(&[0x5A; SECRET_BYTES], 2, 2).unwrap();
            shares[1].iter().for_each(|byte| seen[usize::from(*byte)] += 1);
        }
        let expected = f64::from(SPLITS) * 64.0 / 256.0;
        let chi: f64 = seen.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: mean 255, standard deviation 22.6; beyond 420 is seven of them.
        assert!(chi < 420.0, "{chi}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_threshold_of_them_combine(
            secret in prop::array::uniform32(any::<u8>()),
            (threshold, count, order) in plans(),
        ) {
            let secret: [u8; SECRET_BYTES] = [secret, secret.map(|b| !b)].concat().try_into().unwrap();
            let shares = split(&secret, threshold, count).unwrap();
            for taken in usize::from(threshold)..=usize::from(count) {
                prop_assert_eq!(**combine(&chosen(&shares, &order[..taken])).unwrap(), secret);
            }
        }

        /// Perfect secrecy, shown and not believed: with all but one of the shares needed, each of the 256 values of a
        /// byte of the missing share completes them to another value of the secret's byte, and so to all 256. Whatever
        /// the secret is, there is one share that fits: who holds the others has learnt nothing.
        #[test]
        fn one_share_fewer_leaves_every_secret_possible(
            secret in prop::array::uniform32(any::<u8>()),
            (threshold, count, order) in plans(),
        ) {
            let secret: [u8; SECRET_BYTES] = [secret, secret].concat().try_into().unwrap();
            let shares = split(&secret, threshold, count).unwrap();
            let known = chosen(&shares, &order[..usize::from(threshold) - 1]);
            let missing = u8::try_from(order[usize::from(threshold) - 1] + 1).unwrap();
            let mut possible = vec![[false; 256]; SECRET_BYTES];
            for value in 0..=u8::MAX {
                // All 64 bytes at once, each with another value.
                let guess: [u8; SECRET_BYTES] = std::array::from_fn(|at| value.wrapping_add(at as u8));
                let mut with_guess = known.clone();
                with_guess.push((missing, &guess));
                let completed = combine(&with_guess).unwrap();
                for (at, byte) in completed.iter().enumerate() {
                    possible[at][usize::from(*byte)] = true;
                }
            }
            prop_assert!(possible.iter().all(|of_byte| of_byte.iter().all(|reached| *reached)));
        }

        #[test]
        fn a_changed_share_gives_another_secret(
            (threshold, count, order) in plans(),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let secret = [7; SECRET_BYTES];
            let mut shares = split(&secret, threshold, count).unwrap();
            let at = at.index(SECRET_BYTES);
            shares[order[0]][at] ^= 1 << bit;
            let combined = combine(&chosen(&shares, &order[..usize::from(threshold)])).unwrap();
            prop_assert_ne!(combined[at], secret[at]);
        }
    }
}
