//! The head map: thread to the last entry of its chain, as a Merkle map with one root.
//!
//! It is a binary radix tree over the 384 bits of `SHA-384(MAP_KEY, thread)` in which every inner node has two children
//! (a critical-bit tree). An inner node stands at the first bit in which the keys below it differ, and its hash binds
//! that bit; a leaf binds its whole key and value. So the shape, and with it the root, depends on the contents only,
//! and a root commits to exactly one answer for every thread: walk down by the bits that the inner nodes name; the leaf
//! at the end holds the thread's head or, by holding another key, shows that the thread is not there.
//!
//! ```text
//! leaf  = SHA-384(MAP_LEAF, key, CBOR of head)
//! inner = SHA-384(MAP_NODE, bit as two bytes, left, right)
//! empty = SHA-384(MAP_EMPTY)
//! ```
//!
//! Nodes are immutable and shared: a copy of the map costs a pointer, and a proposed block that is dropped leaves
//! nothing behind. A head takes about 260 bytes.

use minicbor::{Decode, Encode};
use std::sync::Arc;
use thiserror::Error;
use zixt_crypto::{hash::sha384, labels};
use zixt_types::{Canonical, Hash, Head, ThreadId};

/// The head of every thread.
#[derive(Clone, Debug, Default)]
pub struct HeadMap {
    root: Option<Node>,
    len: usize,
}

/// The map as a proposed block would leave it.
#[derive(Clone, Debug)]
pub struct StagedHeads(HeadMap);

impl HeadMap {
    /// The empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Threads in the map.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no thread.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The root, as it stands in a header. Costs nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root.as_ref().map_or_else(empty_hash, Node::hash)
    }

    /// The thread's head.
    #[must_use]
    pub fn get(&self, thread: &ThreadId) -> Option<Head> {
        let key = key_of(thread);
        let leaf = self.root.as_ref()?.walk(&key, |_| ());
        (leaf.key == key).then_some(leaf.head)
    }

    /// Sets the thread's head.
    pub fn insert(&mut self, thread: ThreadId, head: Head) {
        self.update(&[(thread, head)]);
    }

    /// The root that these heads would lead to, and what [`Self::apply`] needs to get there. Changes nothing; nodes
    /// that several heads share are hashed once. Of a repeated thread the last head counts.
    #[must_use]
    pub fn stage(&self, updates: &[(ThreadId, Head)]) -> (Hash, StagedHeads) {
        let mut next = self.clone();
        next.update(updates);
        (next.root(), StagedHeads(next))
    }

    /// Takes over what [`Self::stage`] of this very map computed.
    pub fn apply(&mut self, staged: &StagedHeads) {
        self.clone_from(&staged.0);
    }

    /// Proves the thread's head, or that it has none.
    #[must_use]
    pub fn prove(&self, thread: &ThreadId) -> MapProof {
        let key = key_of(thread);
        let mut path = Vec::new();
        let Some(root) = &self.root else { return MapProof { end: PathEnd::Empty, path } };
        let leaf = root.walk(&key, |inner| {
            let sibling = inner.children[usize::from(!bit(&key, inner.bit))].hash();
            path.push(PathStep { bit: inner.bit, sibling });
        });
        let end = if leaf.key == key {
            PathEnd::This(leaf.head)
        } else {
            PathEnd::Other { key: leaf.key, head: leaf.head }
        };
        MapProof { end, path }
    }

    fn update(&mut self, updates: &[(ThreadId, Head)]) {
        let mut leaves: Vec<Leaf> =
            updates.iter().map(|(thread, head)| Leaf { key: key_of(thread), head: *head }).collect();
        // The sort is stable; of equal keys the last one has to stay.
        leaves.sort_by_key(|leaf| leaf.key);
        leaves.reverse();
        leaves.dedup_by_key(|leaf| leaf.key);
        leaves.reverse();
        if leaves.is_empty() {
            return;
        }
        let (root, added) = match &self.root {
            None => (build(&leaves), leaves.len()),
            Some(root) => merge(root, &leaves, 0),
        };
        self.root = Some(root);
        self.len += added;
    }
}

/// Builds the map at once: a few hashes for each thread, where inserting one by one hashes every way to the root.
impl FromIterator<(ThreadId, Head)> for HeadMap {
    fn from_iter<I: IntoIterator<Item = (ThreadId, Head)>>(heads: I) -> Self {
        let mut map = Self::new();
        map.update(&heads.into_iter().collect::<Vec<_>>());
        map
    }
}

/// A proof that a thread has a certain head under a root, or has none.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct MapProof {
    /// What stands where the thread belongs.
    #[n(0)]
    end: PathEnd,
    /// The inner nodes on the way, from the root.
    #[n(1)]
    path: Vec<PathStep>,
}

#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
enum PathEnd {
    /// The thread's head.
    #[n(0)]
    This(#[n(0)] Head),
    /// Another thread's leaf: this thread is not in the map.
    #[n(1)]
    Other {
        #[n(0)]
        key: Hash,
        #[n(1)]
        head: Head,
    },
    /// Nothing: the map is empty.
    #[n(2)]
    Empty,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct PathStep {
    /// The bit of the key that decides the way.
    #[n(0)]
    bit: u16,
    /// The child that is not on the way.
    #[n(1)]
    sibling: Hash,
}

/// Why a proof says nothing about a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MapProofError {
    /// It leads to another root: a hash, the thread or the head is not the proven one.
    #[error("the proof does not lead to the map's root")]
    OtherRoot,
    /// The bits of its path do not ascend.
    #[error("the proof's path is not one from a root to a leaf")]
    Path,
    /// It shows a leaf that does not stand on this thread's way.
    #[error("the proof ends at a leaf that is not where this thread belongs")]
    Elsewhere,
}

impl MapProof {
    /// What the map with this root says about `thread`: its head, or `None` if it has none.
    ///
    /// # Errors
    /// [`MapProofError`]: the proof says nothing about the thread.
    pub fn verify(&self, root: &Hash, thread: &ThreadId) -> Result<Option<Head>, MapProofError> {
        if !self.path.windows(2).all(|pair| pair[0].bit < pair[1].bit) {
            return Err(MapProofError::Path);
        }
        let key = key_of(thread);
        let (mut hash, head) = match &self.end {
            PathEnd::Empty if self.path.is_empty() => (empty_hash(), None),
            PathEnd::Empty => return Err(MapProofError::Path),
            PathEnd::This(head) => (leaf_hash(&key, head), Some(*head)),
            PathEnd::Other { key: other, head } => {
                let on_the_way = self.path.iter().all(|step| bit(&key, step.bit) == bit(other, step.bit));
                if *other == key || !on_the_way {
                    return Err(MapProofError::Elsewhere);
                }
                (leaf_hash(other, head), None)
            }
        };
        for step in self.path.iter().rev() {
            hash = match bit(&key, step.bit) {
                false => inner_hash(step.bit, &hash, &step.sibling),
                true => inner_hash(step.bit, &step.sibling, &hash),
            };
        }
        if hash == *root { Ok(head) } else { Err(MapProofError::OtherRoot) }
    }
}

impl Canonical for MapProof {
    const WHAT: &'static str = "head map proof";
    const BYTES_MAX: usize = 160 + KEY_BITS * 56;

    fn check(&self) -> Result<(), &'static str> {
        if self.path.iter().any(|step| usize::from(step.bit) >= KEY_BITS) {
            return Err("it names a bit that no key has");
        }
        Ok(())
    }
}

const KEY_BITS: usize = Hash::LEN * 8;

/// Leaves hold no cached hash: that of a sibling costs one hash, and 48 bytes for every thread would cost more.
#[derive(Clone, Debug)]
enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

#[derive(Clone, Debug)]
struct Leaf {
    key: Hash,
    head: Head,
}

#[derive(Debug)]
struct Inner {
    /// The first bit in which the keys below differ.
    bit: u16,
    children: [Node; 2],
    hash: Hash,
}

impl Node {
    fn leaf(leaf: Leaf) -> Self {
        Self::Leaf(Arc::new(leaf))
    }

    fn inner(bit: u16, left: Self, right: Self) -> Self {
        let hash = inner_hash(bit, &left.hash(), &right.hash());
        Self::Inner(Arc::new(Inner { bit, children: [left, right], hash }))
    }

    fn hash(&self) -> Hash {
        match self {
            Self::Leaf(leaf) => leaf_hash(&leaf.key, &leaf.head),
            Self::Inner(inner) => inner.hash,
        }
    }

    /// The leaf where the bits of `key` lead; tells every inner node on the way.
    fn walk(&self, key: &Hash, mut pass: impl FnMut(&Inner)) -> &Leaf {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf,
                Self::Inner(inner) => {
                    pass(inner);
                    node = &inner.children[usize::from(bit(key, inner.bit))];
                }
            }
        }
    }
}

/// The tree over leaves that ascend by key without repeats. There is at least one.
fn build(leaves: &[Leaf]) -> Node {
    match leaves {
        [leaf] => Node::leaf(leaf.clone()),
        _ => {
            // The keys ascend, so the first and the last differ first.
            let at = first_difference(&leaves[0].key, &leaves[leaves.len() - 1].key);
            let (left, right) = split(leaves, at);
            Node::inner(at, build(left), build(right))
        }
    }
}

/// `node` with leaves, ascending by key without repeats, put in; and how many of them are new threads. All keys below
/// `node` and in `leaves` agree in the bits before `from`.
fn merge(node: &Node, leaves: &[Leaf], from: u16) -> (Node, usize) {
    let [first, .., last] = leaves else {
        return match leaves {
            [leaf] => merge_between(node, leaves, leaf, leaf, from),
            _ => (node.clone(), 0),
        };
    };
    merge_between(node, leaves, first, last, from)
}

fn merge_between(node: &Node, leaves: &[Leaf], first: &Leaf, last: &Leaf, from: u16) -> (Node, usize) {
    match node {
        Node::Leaf(old) => match leaves.binary_search_by_key(&old.key, |leaf| leaf.key) {
            Ok(_) => (build(leaves), leaves.len() - 1),
            Err(at) => {
                let mut all = leaves.to_vec();
                all.insert(at, Leaf::clone(old));
                (build(&all), leaves.len())
            }
        },
        Node::Inner(inner) => {
            // Bits that the node skips are the same in all keys below it, but perhaps not in the new ones. Skips are
            // rare and short except near the leaves, so looking for some key below costs little.
            if from < inner.bit {
                let below = node.walk(&first.key, |_| ()).key;
                let at = first_difference(&below, &first.key).min(first_difference(&below, &last.key));
                if at < inner.bit {
                    let (left, right) = split(leaves, at);
                    return if bit(&below, at) {
                        let (node, added) = merge(node, right, at + 1);
                        (Node::inner(at, build(left), node), added + left.len())
                    } else {
                        let (node, added) = merge(node, left, at + 1);
                        (Node::inner(at, node, build(right)), added + right.len())
                    };
                }
            }
            let (left, right) = split(leaves, inner.bit);
            let (left, added_left) = merge(&inner.children[0], left, inner.bit + 1);
            let (right, added_right) = merge(&inner.children[1], right, inner.bit + 1);
            (Node::inner(inner.bit, left, right), added_left + added_right)
        }
    }
}

/// Splits ascending leaves that agree before bit `at` into those without and those with it.
fn split(leaves: &[Leaf], at: u16) -> (&[Leaf], &[Leaf]) {
    leaves.split_at(leaves.partition_point(|leaf| !bit(&leaf.key, at)))
}

fn bit(key: &Hash, at: u16) -> bool {
    let at = usize::from(at);
    key.0.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}

/// The first bit in which two keys differ; 384 if they are equal.
fn first_difference(a: &Hash, b: &Hash) -> u16 {
    let bytes = a.0.iter().zip(&b.0).take_while(|(a, b)| a == b).count();
    let bits = if bytes < Hash::LEN { (a.0[bytes] ^ b.0[bytes]).leading_zeros() as usize } else { 0 };
    (bytes * 8 + bits) as u16
}

fn key_of(thread: &ThreadId) -> Hash {
    sha384(labels::MAP_KEY, &[thread.as_ref()])
}

fn leaf_hash(key: &Hash, head: &Head) -> Hash {
    let mut value = Vec::with_capacity(64);
    match minicbor::encode(head, &mut value) {
        Ok(()) => sha384(labels::MAP_LEAF, &[key.as_ref(), &value]),
        Err(_) => unreachable!("encoding to memory"),
    }
}

fn inner_hash(bit: u16, left: &Hash, right: &Hash) -> Hash {
    sha384(labels::MAP_NODE, &[&bit.to_be_bytes(), left.as_ref(), right.as_ref()])
}

fn empty_hash() -> Hash {
    sha384(labels::MAP_EMPTY, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use zixt_types::{Seq, ThreadKind};

    fn thread(n: u64) -> ThreadId {
        let mut rest = [0; 31];
        rest[..8].copy_from_slice(&n.to_be_bytes());
        ThreadId::new(ThreadKind::Conversation, &rest)
    }

    fn head(n: u64) -> Head {
        Head { seq: Seq(n), hash: sha384(labels::ENTRY, &[&n.to_be_bytes()]) }
    }

    /// The definition at the top of the file, word by word.
    fn root_of(model: &BTreeMap<ThreadId, Head>) -> Hash {
        fn node(leaves: &[(Hash, Head)]) -> Hash {
            if let [(key, head)] = leaves {
                return leaf_hash(key, head);
            }
            let at =
                (0..384).find(|at| leaves.iter().any(|(key, _)| bit(key, *at) != bit(&leaves[0].0, *at)));
            let at = at.unwrap();
            let (right, left): (Vec<_>, Vec<_>) = leaves.iter().copied().partition(|(key, _)| bit(key, at));
            inner_hash(at, &node(&left), &node(&right))
        }
        let leaves: Vec<_> = model.iter().map(|(thread, head)| (key_of(thread), *head)).collect();
        if leaves.is_empty() { empty_hash() } else { node(&leaves) }
    }

    fn map_of(count: u64) -> HeadMap {
        (0..count).map(|n| (thread(n), head(n))).collect()
    }

    #[test]
    fn the_first_difference_and_the_bits_agree() {
        let a = Hash([0b1010_0000; 48]);
        let mut b = a;
        assert_eq!(first_difference(&a, &b), 384);
        b.0[47] ^= 1;
        assert_eq!(first_difference(&a, &b), 383);
        assert!(bit(&b, 383) && !bit(&a, 383));
        assert!(bit(&a, 0) && !bit(&a, 1) && bit(&a, 2) && !bit(&a, 384));
    }

    #[test]
    fn an_empty_map_proves_that_nobody_is_in_it() {
        let map = HeadMap::new();
        let proof = map.prove(&thread(1));
        assert_eq!(proof.verify(&map.root(), &thread(1)), Ok(None));
        assert_eq!(proof.verify(&map_of(1).root(), &thread(1)), Err(MapProofError::OtherRoot));
    }

    #[test]
    fn a_staged_block_can_be_dropped_or_applied() {
        let mut map = map_of(100);
        let before = map.root();
        let (root, staged) = map.stage(&[(thread(5), head(500)), (thread(1000), head(1000))]);
        assert_eq!((map.root(), map.len()), (before, 100));
        assert_ne!(root, before);
        map.apply(&staged);
        assert_eq!((map.root(), map.len()), (root, 101));
        assert_eq!(map.get(&thread(5)), Some(head(500)));
        assert_eq!(map.stage(&[]).0, root);
    }

    #[test]
    fn keys_that_share_long_prefixes_keep_the_shape() {
        // Real keys are hashes; here the leaves are made by hand, so that many bits are skipped.
        let keys: Vec<Hash> = (0..384u16)
            .map(|at| {
                let mut key = Hash::ZERO;
                key.0[usize::from(at) / 8] |= 1 << (7 - at % 8);
                key
            })
            .chain([Hash::ZERO])
            .collect();
        let mut sorted: Vec<Leaf> =
            keys.iter().enumerate().map(|(n, key)| Leaf { key: *key, head: head(n as u64) }).collect();
        let mut one_by_one = Node::leaf(sorted[0].clone());
        for leaf in &sorted[1..] {
            let (node, added) = merge(&one_by_one, std::slice::from_ref(leaf), 0);
            assert_eq!(added, 1);
            one_by_one = node;
        }
        sorted.sort_by_key(|leaf| leaf.key);
        assert_eq!(one_by_one.hash(), build(&sorted).hash());
        let (odd, even): (Vec<_>, Vec<_>) = sorted.iter().enumerate().partition(|(n, _)| n % 3 == 0);
        let leaves =
            |part: Vec<(usize, &Leaf)>| part.into_iter().map(|(_, leaf)| leaf.clone()).collect::<Vec<_>>();
        let (node, added) = merge(&build(&leaves(odd)), &leaves(even), 0);
        assert_eq!(node.hash(), one_by_one.hash());
        assert_eq!(added, 256);
    }

    #[test]
    fn every_changed_byte_of_a_proof_is_noticed() {
        let map = map_of(40);
        for (name, expected) in [(thread(7), Some(head(7))), (thread(4711), None)] {
            let bytes = map.prove(&name).to_bytes();
            for at in 0..bytes.len() {
                for mask in [1, 0x80, 0xFF] {
                    let mut forged = bytes.clone();
                    forged[at] ^= mask;
                    if let Ok(proof) = MapProof::parse(&forged) {
                        let verdict = proof.verify(&map.root(), &name);
                        assert!(verdict.is_err(), "byte {at}: {verdict:?} instead of {expected:?}");
                    }
                }
            }
            for cut in 0..bytes.len() {
                assert!(MapProof::parse(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn forged_proofs_fail() {
        let map = map_of(200);
        let root = map.root();
        let honest = map.prove(&thread(3));
        let refused = |proof: &MapProof, name| proof.verify(&root, &thread(name)).is_err();
        // Another value, another thread.
        assert!(refused(&MapProof { end: PathEnd::This(head(4)), ..honest.clone() }, 3));
        assert!(refused(&honest, 4));
        // A member cannot be proven absent by its own leaf, by another's, or by an empty map.
        let own = PathEnd::Other { key: key_of(&thread(3)), head: head(3) };
        assert!(refused(&MapProof { end: own, ..honest.clone() }, 3));
        assert!((0..200).filter(|n| *n != 3).all(|n| {
            let MapProof { end, path } = map.prove(&thread(n));
            let PathEnd::This(head) = end else { unreachable!() };
            let end = PathEnd::Other { key: key_of(&thread(n)), head };
            refused(&MapProof { end: end.clone(), path }, 3)
                && refused(&MapProof { end, path: honest.path.clone() }, 3)
        }));
        assert!(refused(&MapProof { end: PathEnd::Empty, path: Vec::new() }, 3));
        // Siblings swapped, a step dropped, a step repeated.
        for at in 0..honest.path.len() - 1 {
            let mut swapped = honest.clone();
            let (a, b) = (swapped.path[at].sibling, swapped.path[at + 1].sibling);
            (swapped.path[at].sibling, swapped.path[at + 1].sibling) = (b, a);
            assert!(refused(&swapped, 3));
            let mut shorter = honest.clone();
            shorter.path.remove(at);
            assert!(refused(&shorter, 3));
            let mut longer = honest.clone();
            longer.path.insert(at, longer.path[at]);
            assert_eq!(longer.verify(&root, &thread(3)), Err(MapProofError::Path));
        }
        // An inner node is no leaf: its hash may not end a path.
        let mut cut = honest.clone();
        cut.path.pop();
        assert!(refused(&cut, 3));
    }

    proptest! {
        #[test]
        fn the_root_depends_on_the_contents_only(
            updates in prop::collection::vec((0u64..60, any::<u64>()), 0..120),
            sizes in prop::collection::vec(1usize..20, 1..40),
        ) {
            let updates: Vec<_> = updates.into_iter().map(|(n, value)| (thread(n), head(value))).collect();
            let model: BTreeMap<_, _> = updates.iter().copied().collect();
            let mut map = HeadMap::new();
            let mut rest = &updates[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (batch, after) = rest.split_at((*size).min(rest.len()));
                let (root, staged) = map.stage(batch);
                map.apply(&staged);
                prop_assert_eq!(map.root(), root);
                rest = after;
            }
            prop_assert_eq!(map.root(), root_of(&model));
            prop_assert_eq!(map.len(), model.len());
            let mut backwards = HeadMap::new();
            for (name, value) in model.iter().rev() {
                backwards.insert(*name, *value);
            }
            prop_assert_eq!(backwards.root(), map.root());
            for n in 0..80 {
                let expected = model.get(&thread(n)).copied();
                prop_assert_eq!(map.get(&thread(n)), expected);
                let proof = map.prove(&thread(n));
                prop_assert_eq!(MapProof::parse(&proof.to_bytes()), Ok(proof.clone()));
                prop_assert_eq!(proof.verify(&map.root(), &thread(n)), Ok(expected));
            }
        }

        #[test]
        fn a_forged_proof_never_says_something_else(
            size in 1u64..50, name in 0u64..60, other in 0u64..60, seed: u64, absent: bool,
        ) {
            let map = map_of(size);
            let truth = map.get(&thread(name));
            let mut proof = map.prove(&thread(other));
            if absent {
                proof.end = PathEnd::Other { key: key_of(&thread(seed)), head: head(seed) };
            }
            if let Ok(said) = proof.verify(&map.root(), &thread(name)) {
                prop_assert_eq!(said, truth);
            }
        }
    }
}
