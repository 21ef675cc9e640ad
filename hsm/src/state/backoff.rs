//! Back-off after wrong PINs. Some tokens never lock, others lock for ever: this counts on its own, on disk, so that a
//! restart does not start anew.

use super::folder::Folder;
use minicbor::{Decode, Encode};
use std::io;
use zixt_types::{Canonical, Timestamp};

const FILE: &str = "pin-tries";
/// Longest wait between two tries.
const WAIT_S_MAX: u64 = 900;
/// Tries in a row of which nobody knows the outcome (the power failed in between), before an unattended start gives up.
const UNKNOWN_MAX: u32 = 5;

/// What is known about tries of the PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(array)]
pub struct PinTries {
    #[n(0)]
    version: u64,
    /// Wrong PINs since the last right one.
    #[n(1)]
    pub wrong: u32,
    /// Tries that were begun since, without a known outcome.
    #[n(2)]
    pub unknown: u32,
    /// When the last one began.
    #[n(3)]
    last: Timestamp,
}

impl Canonical for PinTries {
    const WHAT: &'static str = "count of PIN tries";
    const BYTES_MAX: usize = 64;
    const VERSION: Option<u64> = Some(1);
}

impl PinTries {
    /// Reads the count. A damaged file counts as one wrong PIN now: a person can go on after a second.
    ///
    /// # Errors
    /// The system's error.
    pub fn read(folder: &impl Folder, now: Timestamp) -> io::Result<Self> {
        let Some(bytes) = folder.read(FILE, Self::BYTES_MAX)? else {
            return Ok(Self { version: 1, ..Self::default() });
        };
        Ok(Self::parse(&bytes).unwrap_or(Self { version: 1, wrong: 1, unknown: 0, last: now }))
    }

    /// Seconds until a person's next try. One without a known outcome counts like a wrong one: whoever cuts the power
    /// before the outcome is written gets no free ones.
    #[must_use]
    pub fn wait_s(&self, now: Timestamp) -> u64 {
        let Some(doublings) = self.wrong.saturating_add(self.unknown).checked_sub(1) else { return 0 };
        let wait = 1u64.checked_shl(doublings).unwrap_or(WAIT_S_MAX).min(WAIT_S_MAX);
        // A clock that was set back makes it wait the whole time again, never longer.
        let waited_ms = now.0.saturating_sub(self.last.0);
        (wait * 1000).saturating_sub(waited_ms).div_ceil(1000)
    }

    /// Whether a start without a person may try.
    #[must_use]
    pub fn may_try_unattended(&self) -> bool {
        self.wrong == 0 && self.unknown < UNKNOWN_MAX
    }

    /// Counts a try before it is made, so that cutting the power does not give free ones.
    ///
    /// # Errors
    /// The system's error; the try must not be made then.
    pub fn begin(&mut self, folder: &impl Folder, now: Timestamp) -> io::Result<()> {
        self.unknown = self.unknown.saturating_add(1);
        self.last = now;
        folder.replace(FILE, &self.to_bytes())
    }

    /// Counts the outcome: right, wrong, or none (the token was absent, say).
    ///
    /// # Errors
    /// The system's error.
    pub fn end(&mut self, folder: &impl Folder, right: Option<bool>) -> io::Result<()> {
        match right {
            Some(true) => *self = Self { version: 1, ..Self::default() },
            Some(false) => {
                self.wrong = self.wrong.saturating_add(1);
                self.unknown = 0;
            }
            None => self.unknown = self.unknown.saturating_sub(1),
        }
        folder.replace(FILE, &self.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::testing::TestFolder;
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1000)
    }

    #[test]
    fn waits_double_and_survive_restarts() {
        let folder = TestFolder::default();
        for wrong in 1..=12u32 {
            let mut tries = PinTries::read(&folder, at(0)).unwrap();
            tries.begin(&folder, at(0)).unwrap();
            tries.end(&folder, Some(false)).unwrap();
            folder.restart(false);
            let tries = PinTries::read(&folder, at(0)).unwrap();
            let expected = (1 << (wrong - 1)).min(WAIT_S_MAX);
            assert_eq!(tries.wait_s(at(0)), expected);
            assert_eq!(tries.wait_s(at(expected)), 0);
            assert_eq!(tries.wait_s(Timestamp(0)), expected, "a clock set back");
            assert!(!tries.may_try_unattended());
        }
        let mut tries = PinTries::read(&folder, at(0)).unwrap();
        tries.begin(&folder, at(0)).unwrap();
        tries.end(&folder, Some(true)).unwrap();
        assert_eq!(PinTries::read(&folder, at(0)).unwrap().wait_s(at(0)), 0);
    }

    #[test]
    fn a_try_is_counted_before_it_is_made() {
        let folder = TestFolder::default();
        for _ in 0..UNKNOWN_MAX {
            let mut tries = PinTries::read(&folder, at(0)).unwrap();
            assert!(tries.may_try_unattended());
            tries.begin(&folder, at(0)).unwrap();
            folder.restart(false);
        }
        assert!(!PinTries::read(&folder, at(0)).unwrap().may_try_unattended());
    }

    #[test]
    fn cutting_the_power_gives_no_free_tries() {
        let folder = TestFolder::default();
        for cut in 1..=12u32 {
            let mut tries = PinTries::read(&folder, at(0)).unwrap();
            tries.begin(&folder, at(0)).unwrap();
            folder.restart(false);
            let tries = PinTries::read(&folder, at(0)).unwrap();
            assert_eq!(tries.wait_s(at(0)), (1 << (cut - 1)).min(WAIT_S_MAX));
        }
    }

    #[test]
    fn a_damaged_file_is_no_free_try() {
        let folder = TestFolder::default();
        folder.replace(FILE, b"nonsense").unwrap();
        let tries = PinTries::read(&folder, at(0)).unwrap();
        assert_eq!((tries.wait_s(at(0)), tries.may_try_unattended()), (1, false));
    }
}
