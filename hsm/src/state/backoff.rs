//! Back-off after wrong PINs. Some tokens never lock, others lock for ever: this counts on its own, on disk, so that a
//! restart does not start anew. Each protector has a count of its own: who knows one PIN gets no free tries of another.

use super::folder::Folder;
use minicbor::{Decode, Encode};
use std::io;
use zixt_types::{Canonical, Timestamp};

const FILE: &str = "pin-tries";
/// Longest wait between two tries.
const WAIT_S_MAX: u64 = 900;
/// Tries in a row of which nobody knows the outcome (the power failed in between), before an unattended start gives up.
const UNKNOWN_MAX: u32 = 5;
/// Protectors that are counted: more than a configuration has. A right PIN takes its protector off.
const PROTECTORS_MAX: usize = 16;

/// What is known about tries of the PINs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinTries {
    counted: Counted,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Counted {
    /// Format version: 3.
    #[n(0)]
    version: u64,
    #[n(1)]
    tries: Vec<Tries>,
    /// When the file was found damaged, or of a former version: no protector gets a free try by that, and each waits only
    /// once for it.
    #[n(2)]
    damaged: Option<Timestamp>,
}

/// The tries of one protector's PIN.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(array)]
pub struct Tries {
    /// Its name in the configuration.
    #[n(0)]
    pub protector: String,
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

impl Canonical for Counted {
    const WHAT: &'static str = "count of PIN tries";
    const BYTES_MAX: usize = 4096;
    const VERSION: Option<u64> = Some(3);
}

impl Tries {
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
}

impl PinTries {
    /// Reads the counts. A damaged file counts as one wrong PIN of each protector at the time when it was found, which is
    /// written down, so that a person can go on after a second.
    ///
    /// # Errors
    /// The system's error.
    pub fn read(folder: &impl Folder, now: Timestamp) -> io::Result<Self> {
        let none = |damaged| Counted { version: 3, tries: Vec::new(), damaged };
        let counted = match folder.read(FILE, Counted::BYTES_MAX) {
            Ok(None) => none(None),
            Ok(Some(bytes)) => match Counted::parse(&bytes) {
                Ok(counted) => counted,
                Err(_) => Self::damaged(folder, none(Some(now)))?,
            },
            // Too long for a count.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Self::damaged(folder, none(Some(now)))?
            }
            Err(error) => return Err(error),
        };
        Ok(Self { counted })
    }

    /// What the file holds, without writing: for who only looks. Nothing of a damaged one.
    ///
    /// # Errors
    /// The system's error.
    pub fn peek(folder: &impl Folder) -> io::Result<Self> {
        let bytes = folder.read(FILE, Counted::BYTES_MAX)?;
        let counted = bytes.and_then(|bytes| Counted::parse(&bytes).ok());
        Ok(Self { counted: counted.unwrap_or(Counted { version: 3, tries: Vec::new(), damaged: None }) })
    }

    fn damaged(folder: &impl Folder, anew: Counted) -> io::Result<Counted> {
        log::warn!("the count of PIN tries is damaged, or of a former version; it is begun anew");
        folder.replace(FILE, &anew.to_bytes())?;
        Ok(anew)
    }

    /// The tries of one protector's PIN.
    #[must_use]
    pub fn of(&self, protector: &str) -> Tries {
        let found = self.counted.tries.iter().find(|tries| tries.protector == protector);
        let unread = || Tries {
            protector: protector.to_owned(),
            wrong: u32::from(self.counted.damaged.is_some()),
            unknown: 0,
            last: self.counted.damaged.unwrap_or_default(),
        };
        found.cloned().unwrap_or_else(unread)
    }

    /// Those of whose PIN some were wrong.
    pub fn wrong(&self) -> impl Iterator<Item = &Tries> {
        self.counted.tries.iter().filter(|tries| tries.wrong > 0)
    }

    /// Counts a try before it is made, so that cutting the power does not give free ones.
    ///
    /// # Errors
    /// The system's error; the try must not be made then.
    pub fn begin(&mut self, folder: &impl Folder, protector: &str, now: Timestamp) -> io::Result<()> {
        let tries = self.of(protector);
        self.put(Tries { unknown: tries.unknown.saturating_add(1), last: now, ..tries });
        folder.replace(FILE, &self.counted.to_bytes())
    }

    /// Counts the outcome: right, wrong, or none (the token was absent, say).
    ///
    /// # Errors
    /// The system's error.
    pub fn end(&mut self, folder: &impl Folder, protector: &str, right: Option<bool>) -> io::Result<()> {
        let tries = self.of(protector);
        match right {
            // Where the file was damaged, its entry says that it waited for that.
            Some(true) if self.counted.damaged.is_some() => {
                self.put(Tries { protector: tries.protector, ..Tries::default() });
            }
            Some(true) => self.counted.tries.retain(|tries| tries.protector != protector),
            Some(false) => self.put(Tries { wrong: tries.wrong.saturating_add(1), unknown: 0, ..tries }),
            None => self.put(Tries { unknown: tries.unknown.saturating_sub(1), ..tries }),
        }
        folder.replace(FILE, &self.counted.to_bytes())
    }

    fn put(&mut self, new: Tries) {
        let all = &mut self.counted.tries;
        match all.iter_mut().find(|tries| tries.protector == new.protector) {
            Some(tries) => *tries = new,
            None => all.push(new),
        }
        if all.len() > PROTECTORS_MAX {
            // Long out of the configuration.
            all.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::testing::TestFolder;
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1000)
    }

    fn tries_of(folder: &TestFolder) -> Tries {
        tries_of_named(folder, "tpm")
    }

    fn tries_of_named(folder: &TestFolder, name: &str) -> Tries {
        PinTries::read(folder, at(0)).unwrap().of(name)
    }

    #[test]
    fn waits_double_and_survive_restarts() {
        let folder = TestFolder::default();
        for wrong in 1..=12u32 {
            let mut tries = PinTries::read(&folder, at(0)).unwrap();
            tries.begin(&folder, "tpm", at(0)).unwrap();
            tries.end(&folder, "tpm", Some(false)).unwrap();
            folder.restart(false);
            let tries = tries_of(&folder);
            let expected = (1 << (wrong - 1)).min(WAIT_S_MAX);
            assert_eq!(tries.wait_s(at(0)), expected);
            assert_eq!(tries.wait_s(at(expected)), 0);
            assert_eq!(tries.wait_s(Timestamp(0)), expected, "a clock set back");
            assert!(!tries.may_try_unattended());
        }
        let mut tries = PinTries::read(&folder, at(0)).unwrap();
        tries.begin(&folder, "tpm", at(0)).unwrap();
        tries.end(&folder, "tpm", Some(true)).unwrap();
        assert_eq!(tries_of(&folder).wait_s(at(0)), 0);
    }

    #[test]
    fn a_right_pin_gives_no_free_tries_of_another_protectors() {
        let folder = TestFolder::default();
        let mut tries = PinTries::read(&folder, at(0)).unwrap();
        for (protector, right) in
            [("tpm", false), ("token", true), ("token", false), ("tpm", false), ("token", true)]
        {
            tries.begin(&folder, protector, at(0)).unwrap();
            tries.end(&folder, protector, Some(right)).unwrap();
        }
        let tries = PinTries::read(&folder, at(0)).unwrap();
        assert_eq!((tries.of("tpm").wrong, tries.of("token").wrong), (2, 0));
        assert_eq!((tries.of("tpm").wait_s(at(0)), tries.of("token").wait_s(at(0))), (2, 0));
        assert_eq!(tries.wrong().map(|tries| tries.protector.as_str()).collect::<Vec<_>>(), ["tpm"]);
    }

    #[test]
    fn names_that_come_and_go_do_not_fill_the_file() {
        let folder = TestFolder::default();
        let mut tries = PinTries::read(&folder, at(0)).unwrap();
        for n in 0..100 {
            let name = format!("{n:0>32}");
            tries.begin(&folder, &name, at(0)).unwrap();
            tries.end(&folder, &name, Some(false)).unwrap();
        }
        assert_eq!(tries_of_named(&folder, &format!("{:0>32}", 99)).wrong, 1);
        assert_eq!(PinTries::read(&folder, at(0)).unwrap(), tries);
    }

    #[test]
    fn a_try_is_counted_before_it_is_made() {
        let folder = TestFolder::default();
        for _ in 0..UNKNOWN_MAX {
            let mut tries = PinTries::read(&folder, at(0)).unwrap();
            assert!(tries.of("tpm").may_try_unattended());
            tries.begin(&folder, "tpm", at(0)).unwrap();
            folder.restart(false);
        }
        assert!(!tries_of(&folder).may_try_unattended());
    }

    #[test]
    fn cutting_the_power_gives_no_free_tries() {
        let folder = TestFolder::default();
        for cut in 1..=12u32 {
            let mut tries = PinTries::read(&folder, at(0)).unwrap();
            tries.begin(&folder, "tpm", at(0)).unwrap();
            folder.restart(false);
            let tries = tries_of(&folder);
            assert_eq!(tries.wait_s(at(0)), (1 << (cut - 1)).min(WAIT_S_MAX));
        }
    }

    #[test]
    fn a_damaged_file_is_no_free_try() {
        let folder = TestFolder::default();
        folder.replace(FILE, b"nonsense").unwrap();
        let tries = tries_of(&folder);
        assert_eq!((tries.wait_s(at(0)), tries.may_try_unattended()), (1, false));
    }

    #[test]
    fn the_wait_for_a_damaged_file_ends_for_each_protector() {
        let mut former = Vec::new();
        minicbor::encode((2u64, Vec::<u64>::new()), &mut former).unwrap();
        for content in [b"nonsense".to_vec(), former, vec![0; 5000]] {
            let folder = TestFolder::default();
            folder.replace(FILE, &content).unwrap();
            let waits =
                |name, seconds| PinTries::read(&folder, at(seconds)).unwrap().of(name).wait_s(at(seconds));
            assert_eq!((waits("tpm", 0), waits("token", 0)), (1, 1));
            folder.restart(false);
            assert_eq!((waits("tpm", 2), waits("token", 2)), (0, 0));
            let mut tries = PinTries::read(&folder, at(2)).unwrap();
            tries.begin(&folder, "tpm", at(2)).unwrap();
            tries.end(&folder, "tpm", Some(true)).unwrap();
            let tries = PinTries::read(&folder, at(2)).unwrap();
            assert!(tries.of("tpm").may_try_unattended());
            assert!(!tries.of("token").may_try_unattended(), "it is kept for the others");
        }
    }
}
