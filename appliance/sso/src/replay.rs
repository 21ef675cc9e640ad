//! Ids that were seen, for as long as what carries them is good.

use std::collections::{BTreeSet, HashMap};
use thiserror::Error;
use zixt_types::{Hash, Timestamp};

/// Ids remembered at once. One is added only for what an identity provider has signed; at a hundred sign-ins a second
/// and ten minutes of validity there are 60 000.
pub const REPLAY_IDS_MAX: usize = 131_072;

/// Why an id is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ReplayError {
    /// It was seen before.
    #[error("it was used before")]
    Seen,
    /// No room is left: nothing is forgotten while it could still be replayed, so new ones wait until old ones end.
    #[error("{REPLAY_IDS_MAX} ids are remembered, and none of them has ended")]
    Full,
}

/// The ids, by the hash of the id.
#[derive(Debug)]
pub(crate) struct Seen {
    until: HashMap<Hash, Timestamp>,
    ends: BTreeSet<(Timestamp, Hash)>,
    max: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self::with_room(REPLAY_IDS_MAX)
    }
}

impl Seen {
    pub(crate) fn with_room(max: usize) -> Self {
        Self { until: HashMap::new(), ends: BTreeSet::new(), max }
    }

    /// Takes an id that is good until `until`, once.
    pub(crate) fn take(&mut self, id: Hash, until: Timestamp, now: Timestamp) -> Result<(), ReplayError> {
        self.forget(now);
        if self.until.contains_key(&id) {
            return Err(ReplayError::Seen);
        }
        if self.until.len() >= self.max {
            return Err(ReplayError::Full);
        }
        self.until.insert(id, until);
        self.ends.insert((until, id));
        Ok(())
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.ends.first().copied().filter(|(until, _)| *until < now) {
            self.ends.remove(&(until, id));
            self.until.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> Hash {
        Hash([n; 48])
    }

    #[test]
    fn an_id_is_taken_once_until_it_ends() {
        let mut seen = Seen::with_room(2);
        let take = |seen: &mut Seen, n, now| seen.take(id(n), Timestamp(100), Timestamp(now));
        assert_eq!(take(&mut seen, 1, 0), Ok(()));
        assert_eq!(take(&mut seen, 1, 99), Err(ReplayError::Seen));
        assert_eq!(take(&mut seen, 1, 100), Err(ReplayError::Seen), "good until and with its end");
        assert_eq!(take(&mut seen, 2, 100), Ok(()));
        assert_eq!(take(&mut seen, 3, 100), Err(ReplayError::Full), "nothing good is forgotten");
        assert_eq!(seen.take(id(3), Timestamp(300), Timestamp(101)), Ok(()));
        assert_eq!(seen.until.len(), 1);
        assert_eq!(seen.ends.len(), 1);
    }

    #[test]
    fn a_clock_that_goes_back_forgets_nothing() {
        let mut seen = Seen::default();
        seen.take(id(1), Timestamp(100), Timestamp(50)).unwrap();
        assert_eq!(seen.take(id(1), Timestamp(100), Timestamp(0)), Err(ReplayError::Seen));
    }
}
