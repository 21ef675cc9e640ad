//! Failed sign-ins: back-off and lockout, in bounded memory, across restarts.
//!
//! Three things are counted, each under a keyed hash, so that the rows tell no names:
//! - an *account* by unknown sources. After a few failures each further one doubles a back-off; at the hard limit
//!   unknown sources are refused until somebody lifts it;
//! - an account by one *known source* (a key or a browser that it has signed in from). That source is asked for nothing
//!   else, so strangers cannot lock out a person from their own device. After a few failures it counts as unknown;
//! - a *network*, whatever the account, against guessing one password at many accounts.
//!
//! Over all sources an account sees at most 100 failures in succession (SP 800-63B-4 section 3.2.2): the policy's
//! check adds them up. An attempt is counted *before* its proof is looked at, and the count is taken back if the
//! proof was good, so that many attempts at the same time are as many as one after the other.
//!
//! A name without an account is counted like one with: the answers are the same.

use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use zixt_crypto::hash::hmac_sha384;
use zixt_crypto::{RandomError, labels};
use zixt_types::{AccountId, Canonical, Timestamp, limits};

use crate::place::{HeldSource, Origin};
use crate::policy::AttemptPolicy;
use crate::random::Random;
use crate::secret::Secret;

/// Under what failed attempts are counted: a keyed hash of an account's id, or of a name that no account has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttemptTag([u8; 16]);

/// What is counted: a kind and a keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct AttemptKey(#[cbor(n(0), with = "crate::secret::fixed")] [u8; 17]);

const ACCOUNT: u8 = 0;
const KNOWN_SOURCE: u8 = 1;
const NETWORK: u8 = 2;

/// A count, as the store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AttemptRow {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// What is counted.
    #[n(1)]
    pub key: AttemptKey,
    /// Failures in succession.
    #[n(2)]
    pub failures: u32,
    /// The last one, by the wall clock.
    #[n(3)]
    pub last: Timestamp,
}

impl Canonical for AttemptRow {
    const WHAT: &'static str = "attempt row";
    const BYTES_MAX: usize = 64;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        if self.key.0[0] > NETWORK || self.failures == 0 {
            return Err("a row counts failures of a known kind");
        }
        Ok(())
    }
}

/// What the store has to do so that the counts survive a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptChange {
    /// Write this row in the place of one with the same key.
    Put(AttemptRow),
    /// Remove the row with this key.
    Remove(AttemptKey),
}

/// Refused before the proof was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Locked {
    /// By the wall clock; `None` if an administrator has to lift it.
    pub until: Option<Timestamp>,
}

/// An attempt that has been counted. Goes back to [`Attempts`] when its proof is judged; if it is lost, it was a
/// failure.
#[derive(Debug)]
pub struct Admission {
    tag: AttemptTag,
    counted: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    key: AttemptKey,
    at: Timestamp,
    before: Option<Timestamp>,
}

impl Admission {
    pub(crate) const fn tag(&self) -> AttemptTag {
        self.tag
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    last: Timestamp,
}

/// The counts. One for an appliance, in memory, with its rows in the store.
#[derive(Debug)]
pub struct Attempts {
    key: Secret<32>,
    rows_max: usize,
    rows: BTreeMap<AttemptKey, Count>,
    /// The same rows, those first that can be forgotten with the least harm: few failures, long ago. Whoever fills the
    /// table with made-up names pushes out such names, and not the account that they are really after.
    by_worth: BTreeSet<(u32, Timestamp, AttemptKey)>,
    changed: BTreeSet<AttemptKey>,
}

impl Attempts {
    /// A key for the hashes. Kept by the server, sealed; with another key all counts begin anew.
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn generate_key(random: &mut dyn Random) -> Result<zeroize::Zeroizing<[u8; 32]>, RandomError> {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        random.fill(key.as_mut_slice())?;
        Ok(key)
    }

    /// The counts as they were stored.
    #[must_use]
    pub fn load(key: &[u8; 32], rows: impl IntoIterator<Item = AttemptRow>) -> Self {
        Self::with_room(key, rows, limits::ATTEMPT_ROWS_MAX)
    }

    fn with_room(key: &[u8; 32], rows: impl IntoIterator<Item = AttemptRow>, rows_max: usize) -> Self {
        let mut all = Self {
            key: Secret::from_bytes(key),
            rows_max,
            rows: BTreeMap::new(),
            by_worth: BTreeSet::new(),
            changed: BTreeSet::new(),
        };
        for row in rows {
            all.put(row.key, Count { failures: row.failures, last: row.last });
        }
        all.changed.clear();
        all
    }

    /// What the store has to write before the sign-in is answered.
    #[must_use]
    pub fn take_changes(&mut self) -> Vec<AttemptChange> {
        let changed = std::mem::take(&mut self.changed);
        let change = |key| match self.rows.get(&key) {
            Some(count) => {
                AttemptChange::Put(AttemptRow { version: 1, key, failures: count.failures, last: count.last })
            }
            None => AttemptChange::Remove(key),
        };
        changed.into_iter().map(change).collect()
    }

    /// The tag of an account, whatever name it was called by.
    #[must_use]
    pub fn account(&self, account: AccountId) -> AttemptTag {
        AttemptTag(self.hash(b"account", account.as_bytes()))
    }

    /// The tag of a name that no account has.
    #[must_use]
    pub fn stranger(&self, name: &str) -> AttemptTag {
        AttemptTag(self.hash(b"stranger", name.as_bytes()))
    }

    /// Counts an attempt, unless it has to wait. `known` says that the account has signed in from this source.
    ///
    /// # Errors
    /// [`Locked`]; nothing is counted then, so that waiting is never made longer by those who do not wait.
    pub fn admit(
        &mut self,
        rules: &AttemptPolicy,
        tag: AttemptTag,
        origin: &Origin,
        known: bool,
        wall: Timestamp,
    ) -> Result<Admission, Locked> {
        if let Some(source) = origin.held.filter(|_| known) {
            let key = self.known_source(tag, &source);
            if self.rows.get(&key).is_none_or(|count| count.failures < u32::from(rules.known_free)) {
                return Ok(Admission { tag, counted: vec![self.count(key, wall)] });
            }
        }
        let account = key_of(ACCOUNT, tag.0);
        let mut keys = vec![account];
        self.check(rules, account, rules.account_free, Some(rules.account_hard), wall)?;
        if let Some(network) = origin.network {
            let key = key_of(NETWORK, self.hash(b"network", network.as_bytes()));
            // A network is forgotten after a quiet time: many people may share it, and some of them mistype.
            let quiet = u64::from(rules.backoff_ms_max);
            if self.rows.get(&key).is_some_and(|count| wall.0.saturating_sub(count.last.0) >= quiet) {
                self.remove(key);
            }
            self.check(rules, key, rules.network_free, None, wall)?;
            keys.push(key);
        }
        Ok(Admission { tag, counted: keys.into_iter().map(|key| self.count(key, wall)).collect() })
    }

    /// The proof was good, and more are to come: the attempt was no failure. Earlier ones still are.
    pub fn passed(&mut self, admission: Admission) {
        for counted in admission.counted {
            self.take_back(&counted);
        }
    }

    /// The sign-in is complete: what was counted against the account on this way is forgotten. The network's count only
    /// loses this attempt, or whoever has an account could guess at others without end.
    pub fn succeeded(&mut self, admission: Admission) {
        for counted in admission.counted {
            if counted.key.0[0] == NETWORK {
                self.take_back(&counted);
            } else {
                self.remove(counted.key);
            }
        }
    }

    /// The proof was bad: the attempt stays counted.
    pub fn failed(&mut self, admission: Admission) {
        drop(admission);
    }

    /// Forgets what unknown sources did to an account: by an administrator, or by the account from a session of its
    /// own. True if there was something.
    pub fn lift(&mut self, tag: AttemptTag) -> bool {
        self.remove(key_of(ACCOUNT, tag.0))
    }

    /// Failures in succession of an account by unknown sources: for its owner to see, and for alerts.
    #[must_use]
    pub fn failures(&self, tag: AttemptTag) -> u32 {
        self.rows.get(&key_of(ACCOUNT, tag.0)).map_or(0, |count| count.failures)
    }

    fn check(
        &mut self,
        rules: &AttemptPolicy,
        key: AttemptKey,
        free: u16,
        hard: Option<u16>,
        wall: Timestamp,
    ) -> Result<(), Locked> {
        let Some(mut count) = self.rows.get(&key).copied() else { return Ok(()) };
        if hard.is_some_and(|hard| count.failures >= u32::from(hard)) {
            return Err(Locked { until: None });
        }
        let Some(beyond) = count.failures.checked_sub(u32::from(free)) else { return Ok(()) };
        if count.last > wall {
            // The clock was set back. The back-off begins again now; it does not last until the old time returns.
            count.last = wall;
            self.put(key, count);
        }
        let most = u64::from(rules.backoff_ms_max);
        let wait = u64::from(rules.backoff_ms).saturating_mul(1 << beyond.min(32)).min(most);
        let until = Timestamp(count.last.0.saturating_add(wait));
        if wall < until { Err(Locked { until: Some(until) }) } else { Ok(()) }
    }

    fn count(&mut self, key: AttemptKey, wall: Timestamp) -> Counted {
        let before = self.rows.get(&key).copied();
        let failures = before.map_or(0, |count| count.failures).saturating_add(1);
        self.put(key, Count { failures, last: wall });
        Counted { key, at: wall, before: before.map(|count| count.last) }
    }

    fn take_back(&mut self, counted: &Counted) {
        let Some(mut count) = self.rows.get(&counted.key).copied() else { return };
        count.failures = count.failures.saturating_sub(1);
        if count.failures == 0 {
            self.remove(counted.key);
            return;
        }
        // Unless somebody else has failed since, the back-off goes on from where it was.
        if let Some(before) = counted.before.filter(|_| count.last == counted.at) {
            count.last = before;
        }
        self.put(counted.key, count);
    }

    fn put(&mut self, key: AttemptKey, count: Count) {
        if let Some(old) = self.rows.insert(key, count) {
            self.by_worth.remove(&(old.failures, old.last, key));
        }
        self.by_worth.insert((count.failures, count.last, key));
        self.changed.insert(key);
        while self.rows.len() > self.rows_max {
            let least = self.by_worth.iter().map(|(_, _, least)| *least).find(|least| *least != key);
            match least {
                Some(least) => self.remove(least),
                None => break,
            };
        }
    }

    fn remove(&mut self, key: AttemptKey) -> bool {
        let Some(old) = self.rows.remove(&key) else { return false };
        self.by_worth.remove(&(old.failures, old.last, key));
        self.changed.insert(key);
        true
    }

    fn known_source(&self, tag: AttemptTag, source: &HeldSource) -> AttemptKey {
        let both = [&tag.0[..], source.hash().as_bytes()].concat();
        key_of(KNOWN_SOURCE, self.hash(b"known-source", &both))
    }

    fn hash(&self, kind: &[u8], what: &[u8]) -> [u8; 16] {
        let hash = hmac_sha384(self.key.as_bytes(), labels::ATTEMPT_TAG, &[kind, what]);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        short
    }
}

fn key_of(kind: u8, hash: [u8; 16]) -> AttemptKey {
    let mut key = [kind; 17];
    key[1..].copy_from_slice(&hash);
    AttemptKey(key)
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
