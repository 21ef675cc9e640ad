//! The TPM's defence against guessing: its state, and whether a try may be spent.
//!
//! Every wrong PIN takes one of a number of tries; each interval of running time gives one back. A power cut after a PIN
//! was used takes one as well (TPM 2.0 Library, Part 1, Section 19.8), so that a try may be missing though nobody guessed.

use crate::error::TpmError;

/// Parameters that a TPM is provisioned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictionaryParameters {
    /// Wrong tries until lockout.
    pub tries_max: u32,
    /// Seconds of running time after which one wrong try is forgiven.
    pub interval_s: u32,
    /// Seconds after a wrong lockout authorisation until it is taken again.
    pub recovery_s: u32,
}

impl Default for DictionaryParameters {
    /// Ten tries, one more every ten minutes (144 guesses a day at a box that somebody has for weeks), a day for the
    /// lockout authorisation.
    fn default() -> Self {
        Self { tries_max: 10, interval_s: 600, recovery_s: 86_400 }
    }
}

/// Who enters the PIN. A program that tries alone must not use up the tries of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinTry {
    /// A person: allowed while more than one try is left.
    Attended,
    /// A start-up script: allowed while more than half of the tries are left. Not 'while none is missing', because
    /// power cuts take tries too.
    Unattended,
}

/// The defence's state, as the TPM reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictionaryState {
    /// The TPM says that it is in lockout.
    pub in_lockout: bool,
    /// Wrong tries that are not forgiven yet.
    pub failed: u32,
    /// Its parameters.
    pub parameters: DictionaryParameters,
    /// Whether the lockout authorisation is set; anyone can reset the defence if not.
    pub lockout_auth_set: bool,
}

impl DictionaryState {
    /// Tries left before lockout.
    #[must_use]
    pub fn tries_left(&self) -> u32 {
        if self.in_lockout { 0 } else { self.parameters.tries_max.saturating_sub(self.failed) }
    }

    /// Whether a PIN may be tried now.
    ///
    /// # Errors
    /// [`TpmError::Lockout`], [`TpmError::LastTry`], [`TpmError::KeptForPeople`]. No try was spent.
    pub fn judge(&self, pin_try: PinTry) -> Result<(), TpmError> {
        let wait_s = u64::from(self.parameters.interval_s);
        let (left, max) = (self.tries_left(), self.parameters.tries_max);
        match (left, pin_try) {
            (0, _) => Err(TpmError::Lockout { wait_s }),
            (1, _) => Err(TpmError::LastTry { wait_s }),
            (_, PinTry::Unattended) if left <= max / 2 => Err(TpmError::KeptForPeople { left, max }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_is_never_spent() {
        let state = |failed, in_lockout| DictionaryState {
            in_lockout,
            failed,
            parameters: DictionaryParameters { tries_max: 4, interval_s: 7, recovery_s: 9 },
            lockout_auth_set: true,
        };
        for (failed, attended, unattended) in [
            (0, Ok(()), Ok(())),
            (1, Ok(()), Ok(())),
            (2, Ok(()), Err(TpmError::KeptForPeople { left: 2, max: 4 })),
            (3, Err(TpmError::LastTry { wait_s: 7 }), Err(TpmError::LastTry { wait_s: 7 })),
            (4, Err(TpmError::Lockout { wait_s: 7 }), Err(TpmError::Lockout { wait_s: 7 })),
            (9, Err(TpmError::Lockout { wait_s: 7 }), Err(TpmError::Lockout { wait_s: 7 })),
        ] {
            assert_eq!(state(failed, false).judge(PinTry::Attended), attended, "{failed}");
            assert_eq!(state(failed, false).judge(PinTry::Unattended), unattended, "{failed}");
        }
        assert_eq!(state(0, true).judge(PinTry::Attended), Err(TpmError::Lockout { wait_s: 7 }));
    }
}
