//! Recently used entries and envelopes. Nothing depends on what is in here: a miss reads the store.

use crate::{Delivery, Position};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Where recently used entries are kept.
#[derive(Debug)]
pub enum Cache {
    /// In this process.
    InProcess(InProcess),
}

impl Cache {
    /// A cache in this process of at most about `bytes_max` bytes.
    #[must_use]
    pub fn in_process(bytes_max: usize) -> Self {
        Self::InProcess(InProcess { bytes_max, generations: Mutex::default() })
    }

    /// The entry at this place, if it is here.
    #[must_use]
    pub fn get(&self, position: Position) -> Option<Delivery> {
        match self {
            Self::InProcess(cache) => cache.get(position),
        }
    }

    /// Remembers an entry for a while.
    pub fn put(&self, delivery: Delivery) {
        match self {
            Self::InProcess(cache) => cache.put(delivery),
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        match self {
            Self::InProcess(cache) => *cache.lock() = Generations::default(),
        }
    }
}

/// Two generations: what is used moves to the young one, and when that is full, the old one is dropped and the young
/// one grows old. Close to "least recently used" without a list to maintain.
#[derive(Debug)]
pub struct InProcess {
    bytes_max: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Position, Delivery>,
    young_bytes: usize,
    old: HashMap<Position, Delivery>,
}

impl InProcess {
    // A panic while it was locked cannot leave anything wrong behind: entries are whole or absent.
    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, position: Position) -> Option<Delivery> {
        let mut generations = self.lock();
        if let Some(found) = generations.young.get(&position) {
            return Some(found.clone());
        }
        let found = generations.old.remove(&position)?;
        self.insert(&mut generations, found.clone());
        Some(found)
    }

    fn put(&self, delivery: Delivery) {
        self.insert(&mut self.lock(), delivery);
    }

    fn insert(&self, generations: &mut Generations, delivery: Delivery) {
        let bytes = size(&delivery);
        if bytes > self.bytes_max / 4 {
            return;
        }
        if generations.young_bytes + bytes > self.bytes_max / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
        let replaced = generations.young.insert(delivery.entry.position, delivery);
        generations.young_bytes += bytes - replaced.as_ref().map_or(0, size).min(bytes);
    }
}

/// What an entry takes, roughly.
fn size(delivery: &Delivery) -> usize {
    let entry = &delivery.entry;
    1024 + entry.body_bytes.len()
        + entry.signature.len()
        + entry.possession.as_ref().map_or(0, Vec::len)
        + delivery.envelope.as_ref().map_or(0, |envelope| envelope.len())
}
