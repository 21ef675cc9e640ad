//! Public keys beside the hashes that name them.

use crate::{digest, suite_params};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use zixt_types::{Canonical, Hash, SuiteId, limits};

/// A public key with its suite.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct KeyringEntry {
    /// The suite.
    #[n(0)]
    pub suite: SuiteId,
    /// The encoded ML-DSA public key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: Vec<u8>,
}

/// Public keys by their hash. A key cannot be put under another hash than its own, so a keyring from anywhere is as
/// good as one's own: what a hash names, it names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keyring(BTreeMap<Hash, KeyringEntry>);

impl Keyring {
    /// Puts a key in and returns its hash.
    pub fn insert(&mut self, suite: SuiteId, key: &[u8]) -> Hash {
        let hash = digest::key_hash(suite, key);
        self.0.entry(hash).or_insert_with(|| KeyringEntry { suite, key: key.to_vec() });
        hash
    }

    /// The key that `hash` names.
    #[must_use]
    pub fn get(&self, hash: &Hash) -> Option<&KeyringEntry> {
        self.0.get(hash)
    }

    /// All keys, ascending by hash.
    pub fn iter(&self) -> impl Iterator<Item = (&Hash, &KeyringEntry)> {
        self.0.iter()
    }

    /// Adds all keys of another keyring.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(hash, entry)| (*hash, entry.clone())));
    }
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    version: u64,
    #[n(1)]
    keys: Vec<KeyringEntry>,
}

impl<C> Encode<C> for Keyring {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        Wire { version: 1, keys: self.0.values().cloned().collect() }.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Keyring {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut keyring = Self::default();
        for entry in Wire::decode(d, ctx)?.keys {
            keyring.insert(entry.suite, &entry.key);
        }
        Ok(keyring)
    }
}

impl Canonical for Keyring {
    const WHAT: &'static str = "keyring";
    const BYTES_MAX: usize = limits::GENESIS_KEYS_MAX * 4 * 4096;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        let fits = |entry: &KeyringEntry| entry.key.len() == suite_params(entry.suite).public_key_bytes;
        if self.0.values().all(fits) { Ok(()) } else { Err("a key does not have the length of its suite") }
    }
}
