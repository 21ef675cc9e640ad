//! Which rows the store does not have yet as they are in memory.

use std::collections::BTreeMap;

/// Keys of rows that have changed. A key stays until the store says that it has what was handed to it, so that a write
/// that fails is tried again, and a change meanwhile is not taken for written.
#[derive(Clone, Debug)]
pub(crate) struct Pending<K> {
    keys: BTreeMap<K, u64>,
    now: u64,
}

impl<K> Default for Pending<K> {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), now: 0 }
    }
}

impl<K: Ord + Copy> Pending<K> {
    pub(crate) fn insert(&mut self, key: K) {
        self.now = self.now.saturating_add(1);
        self.keys.insert(key, self.now);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.keys.retain(|key, _| keep(key));
    }

    pub(crate) fn batch<C>(&self, change: impl Fn(K) -> C) -> Batch<C> {
        Batch { changes: self.keys.keys().map(|key| change(*key)).collect(), until: Written(self.now) }
    }

    pub(crate) fn stored(&mut self, written: Written) {
        self.keys.retain(|_, at| *at > written.0);
    }
}

/// How far the store has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written(u64);

/// What the store has to write, as one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Batch<C> {
    /// The changes. Each says how a row is, not how it was, so to write one twice does no harm.
    pub changes: Vec<C>,
    /// To be given back once they are durable, and not before.
    pub until: Written,
}
