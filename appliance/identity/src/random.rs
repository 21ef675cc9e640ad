//! Randomness as an argument.

use zixt_crypto::RandomError;

/// A source of random bytes. The server hands in [`zixt_crypto::fill_random`]; a test hands in what it can repeat.
pub trait Random {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`RandomError`] if the source fails; `out` must not be used then.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError>;
}

impl<F: FnMut(&mut [u8]) -> Result<(), RandomError>> Random for F {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        self(out)
    }
}

/// So many bytes. For what is public (nonces, salts, ids); secrets use [`crate::secret::Secret::draw`].
pub(crate) fn draw<const N: usize>(random: &mut dyn Random) -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}
