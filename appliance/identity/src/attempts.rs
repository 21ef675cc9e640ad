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
//!
//! Memory is bounded without ever forgetting a failure that protects an account. Rows of accounts and of their known
//! sources are never pushed out: there are as many as there are accounts and sources. Names without an account have a
//! bound of their own; what makes room there protects nothing. Networks have theirs, too: one that was quiet makes
//! room, and when none was, all further networks share one row and its back-off.

use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use zixt_crypto::hash::hmac_sha384;
use zixt_crypto::{RandomError, labels};
use zixt_types::{AccountId, Timestamp, limits};

use crate::pending::{Batch, Pending, Written};
use crate::place::{HeldSource, Network, Origin};
use crate::policy::AttemptPolicy;
use crate::random::Random;
use crate::role::Permission;
use crate::secret::{Secret, SecretForm};
use crate::session::{Actor, Forbidden};

/// Under what failed attempts are counted: a keyed hash of an account's id, or of a name that no account has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttemptTag {
    kind: u8,
    hash: [u8; 16],
}

/// What is counted: a kind and a keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct AttemptKey(#[cbor(n(0), with = "crate::secret::fixed")] [u8; 17]);

const ACCOUNT: u8 = 0;
const KNOWN_SOURCE: u8 = 1;
const NETWORK: u8 = 2;
const STRANGER: u8 = 3;
/// What all networks share that there is no room for.
const OTHER_NETWORKS: AttemptKey = AttemptKey([NETWORK; 17]);

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

impl AttemptKey {
    /// Its bytes, under which the store keeps the row.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what [`Self::as_bytes`] gave. `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    #[cfg(test)]
    pub(crate) const fn sample(n: u8) -> Self {
        Self([n; 17])
    }
}

impl AttemptRow {
    pub(crate) const fn key(&self) -> AttemptKey {
        self.key
    }
}

// Read and written by this crate only, authenticated: see `rows`.
impl SecretForm for AttemptRow {
    const WHAT: &'static str = "attempt row";
    const BYTES_MAX: usize = 64;

    fn check(&self) -> Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is 1");
        }
        if self.key.0[0] > STRANGER || self.failures == 0 {
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
    counted: Vec<Counted>,
    /// The known source's own count, if it was spent and the attempt went the way of unknown sources.
    spent: Option<AttemptKey>,
}

#[derive(Debug)]
struct Counted {
    key: AttemptKey,
    series: u64,
    at: Timestamp,
    before: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    last: Timestamp,
    /// Another one for each row that begins, so that an attempt is not taken back from a count that it is not in.
    series: u64,
}

/// The counts. One for an appliance, in memory, with its rows in the store.
#[derive(Debug)]
pub struct Attempts {
    key: Secret<32>,
    rows_max: usize,
    rows: BTreeMap<AttemptKey, Count>,
    /// Names without an account, those first that are forgotten with the least harm: few failures, long ago.
    strangers: BTreeSet<(u32, Timestamp, AttemptKey)>,
    /// Networks, by their last failure.
    networks: BTreeSet<(Timestamp, AttemptKey)>,
    series: u64,
    changed: Pending<AttemptKey>,
}

impl Attempts {
    /// A key for the hashes. Kept by the server, sealed. With another key all counts begin anew, and the stored rows
    /// have to be removed: nothing finds them any more.
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
            strangers: BTreeSet::new(),
            networks: BTreeSet::new(),
            series: 0,
            changed: Pending::default(),
        };
        for row in rows {
            all.put(row.key, row.failures, row.last);
        }
        // What found no room has to leave the store, too.
        let kept = &all.rows;
        all.changed.retain(|key| !kept.contains_key(key));
        all
    }

    /// What the store has to write before the sign-in is answered. It stays here until [`Self::stored`].
    pub fn changes(&self) -> Batch<AttemptChange> {
        self.changed.batch(|key| match self.rows.get(&key) {
            Some(count) => {
                AttemptChange::Put(AttemptRow { version: 1, key, failures: count.failures, last: count.last })
            }
            None => AttemptChange::Remove(key),
        })
    }

    /// The store has written a batch, durably.
    pub fn stored(&mut self, until: Written) {
        self.changed.stored(until);
    }

    /// The tag of an account, whatever name it was called by.
    #[must_use]
    pub fn account(&self, account: AccountId) -> AttemptTag {
        AttemptTag { kind: ACCOUNT, hash: self.hash(b"account", account.as_bytes()) }
    }

    /// The tag of a name that no account has, in the spelling by which accounts are looked up.
    #[must_use]
    pub fn stranger(&self, name: &str) -> AttemptTag {
        AttemptTag { kind: STRANGER, hash: self.hash(b"stranger", name.as_bytes()) }
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
        let source = origin.held.filter(|_| known).map(|source| self.known_source(tag, &source));
        if let Some(key) = source
            && self.rows.get(&key).is_none_or(|count| count.failures < u32::from(rules.known_free))
        {
            return Ok(Admission { counted: vec![self.count(key, wall)], spent: None });
        }
        let account = key_of(tag.kind, tag.hash);
        let mut keys = vec![account];
        self.check(rules, account, rules.account_free, Some(rules.account_hard), wall)?;
        if let Some(network) = origin.network {
            keys.push(self.admit_network(rules, &network, wall)?);
        }
        let counted = keys.into_iter().map(|key| self.count(key, wall)).collect();
        Ok(Admission { counted, spent: source })
    }

    /// Counts an attempt with what cannot be guessed, a key: against the network alone, so that no lockout of the account
    /// keeps its owner's devices out.
    ///
    /// # Errors
    /// [`Locked`]
    pub fn admit_key(
        &mut self,
        rules: &AttemptPolicy,
        origin: &Origin,
        wall: Timestamp,
    ) -> Result<Admission, Locked> {
        let counted = match origin.network {
            Some(network) => {
                let key = self.admit_network(rules, &network, wall)?;
                vec![self.count(key, wall)]
            }
            None => vec![],
        };
        Ok(Admission { counted, spent: None })
    }

    /// An attempt that is counted nowhere: with a key that cannot be guessed, of a device that the ledger knows. Whoever
    /// shares its address with somebody who guesses is not kept out by that.
    #[must_use]
    pub(crate) const fn admit_device() -> Admission {
        Admission { counted: Vec::new(), spent: None }
    }

    /// Under which key a network's attempt is counted, unless it has to wait.
    fn admit_network(
        &mut self,
        rules: &AttemptPolicy,
        network: &Network,
        wall: Timestamp,
    ) -> Result<AttemptKey, Locked> {
        // A network is forgotten after a quiet time: many people may share it, and some of them mistype.
        let quiet = u64::from(rules.backoff_ms_max);
        let was_quiet = |last: Timestamp| wall.0.saturating_sub(last.0) >= quiet;
        let mut key = key_of(NETWORK, self.hash(b"network", network.as_bytes()));
        if !self.rows.contains_key(&key) && self.networks.len() >= self.rows_max {
            match self.networks.first().copied() {
                Some((last, oldest)) if was_quiet(last) => {
                    self.remove(oldest);
                }
                _ => key = OTHER_NETWORKS,
            }
        }
        if self.rows.get(&key).is_some_and(|count| was_quiet(count.last)) {
            self.remove(key);
        }
        self.check(rules, key, rules.network_free, None, wall)?;
        Ok(key)
    }

    /// The proof was good, and more are to come: the attempt was no failure. Earlier ones still are.
    pub fn passed(&mut self, admission: Admission) {
        for counted in admission.counted {
            self.take_back(&counted);
        }
    }

    /// The sign-in is complete: what was counted against the account on this way is forgotten. The network's count only
    /// loses this attempt, or whoever has an account could guess at others without end. A known source whose own tries
    /// were spent has them again.
    pub fn succeeded(&mut self, admission: Admission) {
        if let Some(spent) = admission.spent {
            self.remove(spent);
        }
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

    /// Forgets what was done to an account, by unknown sources and by known ones: by an administrator or a security
    /// officer, or by the account from a session of its own. True if there was something.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn lift(&mut self, by: &Actor<'_>, account: AccountId) -> Result<bool, Forbidden> {
        let own = by.account() == account;
        by.require(if own { Permission::ManageOwnAccess } else { Permission::LiftLockouts })?;
        let tag = self.account(account);
        let (mut first, mut last) = ([0; 16], [u8::MAX; 16]);
        first[..8].copy_from_slice(&tag.hash[..8]);
        last[..8].copy_from_slice(&tag.hash[..8]);
        let sources = key_of(KNOWN_SOURCE, first)..=key_of(KNOWN_SOURCE, last);
        let mut keys: Vec<_> = self.rows.range(sources).map(|(key, _)| *key).collect();
        keys.push(key_of(tag.kind, tag.hash));
        Ok(keys.into_iter().filter(|key| self.remove(*key)).count() > 0)
    }

    /// Failures in succession of an account by unknown sources: for its owner to see, and for alerts.
    #[must_use]
    pub fn failures(&self, tag: AttemptTag) -> u32 {
        self.rows.get(&key_of(tag.kind, tag.hash)).map_or(0, |count| count.failures)
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
            self.put(key, count.failures, wall);
        }
        let most = u64::from(rules.backoff_ms_max);
        let wait = u64::from(rules.backoff_ms).saturating_mul(1 << beyond.min(32)).min(most);
        let until = Timestamp(count.last.0.saturating_add(wait));
        if wall < until { Err(Locked { until: Some(until) }) } else { Ok(()) }
    }

    fn count(&mut self, key: AttemptKey, wall: Timestamp) -> Counted {
        let before = self.rows.get(&key).copied();
        let failures = before.map_or(0, |count| count.failures).saturating_add(1);
        let series = self.put(key, failures, wall);
        Counted { key, series, at: wall, before: before.map(|count| count.last) }
    }

    fn take_back(&mut self, counted: &Counted) {
        let count = self.rows.get(&counted.key).copied();
        let Some(count) = count.filter(|count| count.series == counted.series) else { return };
        let failures = count.failures.saturating_sub(1);
        if failures == 0 {
            self.remove(counted.key);
            return;
        }
        // Unless somebody else has failed since, the back-off goes on from where it was.
        let last = counted.before.filter(|_| count.last == counted.at).unwrap_or(count.last);
        self.put(counted.key, failures, last);
    }

    /// Writes a row and gives its series. The one place where rows begin, and where names without an account make room.
    fn put(&mut self, key: AttemptKey, failures: u32, last: Timestamp) -> u64 {
        let old = self.rows.get(&key).copied();
        let series = old.map_or(self.series, |old| old.series);
        if old.is_none() {
            self.series = self.series.wrapping_add(1);
        }
        self.unlist(key, old);
        self.rows.insert(key, Count { failures, last, series });
        self.changed.insert(key);
        match key.0[0] {
            NETWORK => {
                self.networks.insert((last, key));
            }
            STRANGER => {
                self.strangers.insert((failures, last, key));
                while self.strangers.len() > self.rows_max {
                    let least = self.strangers.iter().map(|(_, _, least)| *least).find(|least| *least != key);
                    match least {
                        Some(least) => self.remove(least),
                        None => break,
                    };
                }
            }
            _ => {}
        }
        series
    }

    fn remove(&mut self, key: AttemptKey) -> bool {
        let Some(old) = self.rows.remove(&key) else { return false };
        self.unlist(key, Some(old));
        self.changed.insert(key);
        true
    }

    fn unlist(&mut self, key: AttemptKey, old: Option<Count>) {
        if let Some(old) = old {
            self.networks.remove(&(old.last, key));
            self.strangers.remove(&(old.failures, old.last, key));
        }
    }

    /// Half of the key names the account, so that [`Self::lift`] finds its sources.
    fn known_source(&self, tag: AttemptTag, source: &HeldSource) -> AttemptKey {
        let both = [&tag.hash[..], source.hash().as_bytes()].concat();
        let mut key = self.hash(b"known-source", &both);
        key[..8].copy_from_slice(&tag.hash[..8]);
        key_of(KNOWN_SOURCE, key)
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
