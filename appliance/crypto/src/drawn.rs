//! Randomness drawn before a library asks for it, so that a failing generator is an error and not a panic.

use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;
use zeroize::Zeroizing;

use crate::secret::{RandomError, fill_random};

/// A generator with a fixed amount of randomness from the operating system, for libraries whose generators may not
/// fail. Whoever hands it out knows how much will be taken, and asks [`Drawn::overdrawn`] afterwards.
pub struct Drawn {
    bytes: Zeroizing<Vec<u8>>,
    used: usize,
    overdrawn: bool,
}

impl Drawn {
    /// Draws so many bytes.
    ///
    /// # Errors
    /// [`RandomError`] if the operating system's generator fails.
    pub fn new(bytes: usize) -> Result<Self, RandomError> {
        let mut drawn = Zeroizing::new(vec![0; bytes]);
        fill_random(drawn.as_mut_slice())?;
        Ok(Self { bytes: drawn, used: 0, overdrawn: false })
    }

    /// Whether more was taken than was drawn. What was made with it must be thrown away then.
    #[must_use]
    pub const fn overdrawn(&self) -> bool {
        self.overdrawn
    }
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        match self.bytes.get(self.used..self.used + out.len()) {
            Some(fresh) => {
                out.copy_from_slice(fresh);
                self.used += out.len();
            }
            // The caller sees the flag and throws the result away.
            None => self.overdrawn = true,
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

impl std::fmt::Debug for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drawn(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng as _;

    #[test]
    fn it_gives_what_was_drawn_and_no_more() {
        let mut drawn = Drawn::new(12).unwrap();
        let (a, b) = (drawn.next_u32(), drawn.next_u64());
        assert!(!drawn.overdrawn());
        assert!(u64::from(a) != b);
        assert_eq!(drawn.next_u32(), 0);
        assert!(drawn.overdrawn());
    }
}
