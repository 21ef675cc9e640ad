//! Merkle trees of RFC 9162 section 2.1 over SHA-384: the shards' trees, the history of headers, and the list of shards
//! in a header.
//!
//! A tree is never held as a whole. [`Frontier`] is all that appending needs; each append yields the nodes that became
//! complete, which never change again, so that a store can keep them under their [`NodeId`]. A proof is planned first
//! ([`inclusion_plan`], [`consistency_plan`]): the plan lists the complete nodes to fetch, and [`Plan::build`] turns
//! them into the proof.

use minicbor::{Decode, Encode};
use std::collections::HashMap;
use thiserror::Error;
use zixt_crypto::hazmat;
use zixt_types::{Canonical, Hash, Salt, ShardState};

/// Checks that `leaf` is the leaf number `index` of the tree with `size` leaves and `root` (RFC 9162 section 2.1.3.2).
///
/// # Errors
/// [`ProofError`]; only `Ok(())` means that it is.
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { index, size });
    }
    // The names of the RFC: fn and sn are the positions of our node and of the last node in the current level.
    let (mut fn_, mut sn) = (index, size - 1);
    let mut r = leaf;
    for p in proof {
        if sn == 0 {
            return Err(ProofError::TooLong);
        }
        if fn_ & 1 == 1 || fn_ == sn {
            r = node_hash(p, &r);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            r = node_hash(&r, p);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    if sn != 0 {
        return Err(ProofError::TooShort);
    }
    if r == root { Ok(()) } else { Err(ProofError::OtherRoot) }
}

/// Checks that the tree with `to` leaves and `to_root` begins with the `from` leaves of `from_root`
/// (RFC 9162 section 2.1.4.2).
///
/// The RFC leaves two cases out; both have an empty proof here: equal sizes need equal roots, and the empty tree is
/// the beginning of every tree.
///
/// # Errors
/// [`ProofError`]; only `Ok(())` means that it does.
pub fn verify_consistency(
    from: u64,
    from_root: Hash,
    to: u64,
    to_root: Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::Shrunk { from, to });
    }
    if from == 0 || from == to {
        let expected = if from == 0 { empty_root() } else { to_root };
        if !proof.is_empty() {
            return Err(ProofError::TooLong);
        }
        return if from_root == expected { Ok(()) } else { Err(ProofError::OtherOldRoot) };
    }
    let mut path = proof.iter();
    let (mut fn_, mut sn) = (from - 1, to - 1);
    while fn_ & 1 == 1 {
        fn_ >>= 1;
        sn >>= 1;
    }
    // Where the old tree is perfect, its root is the first node, and the proof does not repeat it.
    let first = if from.is_power_of_two() { from_root } else { *path.next().ok_or(ProofError::TooShort)? };
    let (mut fr, mut sr) = (first, first);
    for c in path {
        if sn == 0 {
            return Err(ProofError::TooLong);
        }
        if fn_ & 1 == 1 || fn_ == sn {
            fr = node_hash(c, &fr);
            sr = node_hash(c, &sr);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            sr = node_hash(&sr, c);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    if sn != 0 {
        return Err(ProofError::TooShort);
    }
    if fr != from_root {
        return Err(ProofError::OtherOldRoot);
    }
    if sr == to_root { Ok(()) } else { Err(ProofError::OtherRoot) }
}

/// Why a proof does not prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The leaf would lie outside of the tree.
    #[error("leaf {index} lies outside of a tree of {size} leaves")]
    OutOfRange {
        /// The leaf's number.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The newer tree is the smaller one.
    #[error("a tree cannot shrink from {from} to {to} leaves")]
    Shrunk {
        /// Leaves of the older tree.
        from: u64,
        /// Leaves of the newer tree.
        to: u64,
    },
    /// The proof has fewer hashes than these sizes need.
    #[error("the proof is too short for a tree of this size")]
    TooShort,
    /// The proof has more hashes than these sizes need.
    #[error("the proof is too long for a tree of this size")]
    TooLong,
    /// The proof leads to another root.
    #[error("the proof does not lead to the tree's root")]
    OtherRoot,
    /// The proof leads to another root of the older tree.
    #[error("the proof does not lead to the older tree's root")]
    OtherOldRoot,
}

/// The right edge of a tree: the roots of its perfect subtrees, the largest first. All that appending needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(array)]
pub struct Frontier {
    /// Leaves in the tree.
    #[n(0)]
    size: u64,
    /// One root for each bit that is set in `size`, from the highest.
    #[n(1)]
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves in the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root (RFC 9162 section 2.1.1).
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(self.peaks.iter().copied()).unwrap_or_else(empty_root)
    }

    /// Appends a leaf and adds every node that it completes to `complete`, the leaf first.
    pub fn append(&mut self, leaf: Hash, complete: &mut Vec<TreeNode>) {
        let mut node = TreeNode { level: 0, index: self.size, hash: leaf };
        complete.push(node);
        // Like a carry in an addition: each trailing one of the size is a perfect subtree that ours pairs with.
        while self.size >> node.level & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            node = TreeNode {
                level: node.level + 1,
                index: node.index >> 1,
                hash: node_hash(&left, &node.hash),
            };
            complete.push(node);
        }
        self.peaks.push(node.hash);
        self.size += 1;
    }
}

impl Canonical for Frontier {
    const WHAT: &'static str = "tree frontier";
    const BYTES_MAX: usize = 16 + 64 * (Hash::LEN + 2);

    fn check(&self) -> Result<(), &'static str> {
        // Far beyond any ledger, and far enough below the type's end that appending never overflows.
        if self.size >= 1 << 62 {
            return Err("no tree is that large");
        }
        if u32::try_from(self.peaks.len()) == Ok(self.size.count_ones()) {
            Ok(())
        } else {
            Err("the number of peaks does not fit the size")
        }
    }
}

/// The place of a complete node: the root of the perfect subtree over the leaves
/// `index << level .. (index + 1) << level`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId {
    /// Levels above the leaves.
    pub level: u8,
    /// Number within the level.
    pub index: u64,
}

/// A complete node; it never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeNode {
    /// Levels above the leaves.
    pub level: u8,
    /// Number within the level.
    pub index: u64,
    /// Its hash.
    pub hash: Hash,
}

impl TreeNode {
    /// Its place.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        NodeId { level: self.level, index: self.index }
    }
}

/// Which complete nodes a proof is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// For each hash of the proof, the complete nodes that it is folded from (a single one unless it lies on the
    /// tree's right edge).
    steps: Vec<Vec<NodeId>>,
}

impl Plan {
    /// The nodes to fetch; none is listed twice.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.steps.iter().flatten().copied()
    }

    /// Builds the proof from the nodes.
    ///
    /// # Errors
    /// [`MissingNode`] if `node` does not know one that the plan lists.
    pub fn build(&self, node: impl Fn(NodeId) -> Option<Hash>) -> Result<Vec<Hash>, MissingNode> {
        let mut proof = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let mut peaks = Vec::with_capacity(step.len());
            for id in step {
                peaks.push(node(*id).ok_or(MissingNode(*id))?);
            }
            proof.extend(fold(peaks.into_iter()));
        }
        Ok(proof)
    }
}

/// A store lost a node that a proof needs. `zixt fsck` finds out why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("node {} of level {} is missing", .0.index, .0.level)]
pub struct MissingNode(pub NodeId);

/// Plans the proof that leaf `index` is in the tree of the first `size` leaves (RFC 9162 section 2.1.3.1).
///
/// # Errors
/// [`ProofError::OutOfRange`] if the tree has no such leaf.
pub fn inclusion_plan(index: u64, size: u64) -> Result<Plan, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { index, size });
    }
    let (mut begin, mut end) = (0, size);
    let mut steps = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            steps.push(cover(middle, end));
            end = middle;
        } else {
            steps.push(cover(begin, middle));
            begin = middle;
        }
    }
    // A proof goes from the leaf up.
    steps.reverse();
    Ok(Plan { steps })
}

/// Plans the proof that the tree of the first `to` leaves begins with the tree of the first `from`
/// (RFC 9162 section 2.1.4.1). Empty if `from` is 0 or equals `to`, see [`verify_consistency`].
///
/// # Errors
/// [`ProofError::Shrunk`] if `from` is larger than `to`.
pub fn consistency_plan(from: u64, to: u64) -> Result<Plan, ProofError> {
    if from > to {
        return Err(ProofError::Shrunk { from, to });
    }
    let mut steps = Vec::new();
    if from == 0 || from == to {
        return Ok(Plan { steps });
    }
    let (mut begin, mut end) = (0, to);
    while from != end {
        let middle = begin + split(end - begin);
        if from <= middle {
            steps.push(cover(middle, end));
            end = middle;
        } else {
            steps.push(cover(begin, middle));
            begin = middle;
        }
    }
    // The verifier knows the old root, so it is left out where it is a node of the new tree.
    if begin != 0 {
        steps.push(cover(begin, end));
    }
    steps.reverse();
    Ok(Plan { steps })
}

/// A small tree with all of its nodes in memory: the shards of a header, the history of headers, tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    frontier: Frontier,
    nodes: HashMap<NodeId, Hash>,
}

impl MemoryTree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves in the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Appends a leaf.
    pub fn append(&mut self, leaf: Hash) {
        let mut complete = Vec::new();
        self.frontier.append(leaf, &mut complete);
        self.nodes.extend(complete.into_iter().map(|node| (node.id(), node.hash)));
    }

    /// Proves that leaf `index` is in the tree of the first `size` leaves; `None` if there is no such leaf or tree.
    #[must_use]
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        inclusion_plan(index, size).ok()?.build(|id| self.nodes.get(&id).copied()).ok()
    }

    /// Proves that the tree of the first `to` leaves begins with that of the first `from`; `None` if there is no such
    /// tree.
    #[must_use]
    pub fn prove_consistency(&self, from: u64, to: u64) -> Option<Vec<Hash>> {
        consistency_plan(from, to).ok()?.build(|id| self.nodes.get(&id).copied()).ok()
    }
}

impl FromIterator<Hash> for MemoryTree {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Self::new();
        leaves.into_iter().for_each(|leaf| tree.append(leaf));
        tree
    }
}

/// The leaf of an entry in its shard's tree. The salt keeps proofs for others from revealing a guessable entry.
#[must_use]
pub fn leaf_hash(salt: &Salt, entry_hash: &Hash) -> Hash {
    digest(&[&[0x00], salt.as_ref(), entry_hash.as_ref()])
}

/// The leaf over plain data (RFC 9162 section 2.1.1).
#[must_use]
pub fn leaf_hash_plain(data: &[u8]) -> Hash {
    digest(&[&[0x00], data])
}

/// The leaf of a shard in the tree of [`zixt_types::Header::shards`], which has one for each shard, in order.
#[must_use]
pub fn shard_leaf(state: &ShardState) -> Hash {
    let mut bytes = Vec::with_capacity(64);
    match minicbor::encode(state, &mut bytes) {
        Ok(()) => leaf_hash_plain(&bytes),
        Err(_) => unreachable!("encoding to memory"),
    }
}

/// The leaf of a header, by its hash, in the tree of [`zixt_types::Header::history`]. The header of height h is leaf
/// h - 1, and the history in the header of height h has h - 1 leaves.
#[must_use]
pub fn history_leaf(header_hash: &Hash) -> Hash {
    leaf_hash_plain(header_hash.as_ref())
}

/// The root of the empty tree: SHA-384 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    digest(&[])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    digest(&[&[0x01], left.as_ref(), right.as_ref()])
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The complete nodes, the largest first, that make up the subtree over the leaves `begin..end`.
fn cover(mut begin: u64, end: u64) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    while begin < end {
        let level = (end - begin).ilog2();
        nodes.push(NodeId { level: level as u8, index: begin >> level });
        begin += 1 << level;
    }
    nodes
}

/// Folds the roots of perfect subtrees, the largest first, to the root over all of them.
fn fold(peaks: impl DoubleEndedIterator<Item = Hash>) -> Option<Hash> {
    peaks.rev().reduce(|right, left| node_hash(&left, &right))
}

/// The RFC's prefixes take the place of our labels.
fn digest(parts: &[&[u8]]) -> Hash {
    Hash(hazmat::sha384(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: u64 = 300;

    fn leaf(n: u64) -> Hash {
        leaf_hash_plain(&n.to_be_bytes())
    }

    fn leaves(size: u64) -> Vec<Hash> {
        (0..size).map(leaf).collect()
    }

    /// RFC 9162 section 2.1.1, word by word.
    fn root_of(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(k(leaves.len()));
                node_hash(&root_of(left), &root_of(right))
            }
        }
    }

    /// RFC 9162 section 2.1.3.1, word by word.
    fn path_of(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let k = k(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut path, sibling) =
            if m < k { (path_of(m, left), root_of(right)) } else { (path_of(m - k, right), root_of(left)) };
        path.push(sibling);
        path
    }

    /// RFC 9162 section 2.1.4.1, word by word.
    fn subproof_of(m: usize, leaves: &[Hash], b: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if b { Vec::new() } else { vec![root_of(leaves)] };
        }
        let k = k(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut proof, sibling) = if m <= k {
            (subproof_of(m, left, b), root_of(right))
        } else {
            (subproof_of(m - k, right, false), root_of(left))
        };
        proof.push(sibling);
        proof
    }

    fn k(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }

    #[test]
    fn the_empty_root_is_the_hash_of_nothing() {
        let expected = "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b";
        assert_eq!(empty_root().to_hex(), expected);
        assert_eq!(Frontier::new().root(), empty_root());
    }

    #[test]
    fn roots_and_every_inclusion_proof_are_those_of_the_rfc() {
        let all = leaves(SIZES);
        let tree: MemoryTree = all.iter().copied().collect();
        let mut frontier = Frontier::new();
        for size in 0..=SIZES {
            let part = &all[..size as usize];
            let root = root_of(part);
            assert_eq!(frontier.root(), root, "size {size}");
            for index in 0..size {
                let proof = tree.prove_inclusion(index, size).unwrap();
                // The recursion is slow; every seventh size covers all shapes up to 300.
                if size < 40 || size % 7 == 0 {
                    assert_eq!(proof, path_of(index as usize, part), "{index} of {size}");
                }
                assert_eq!(verify_inclusion(leaf(index), index, size, &proof, root), Ok(()));
            }
            assert!(tree.prove_inclusion(size, size).is_none());
            if size < SIZES {
                frontier.append(leaf(size), &mut Vec::new());
            }
        }
    }

    #[test]
    fn every_consistency_proof_is_that_of_the_rfc() {
        let all = leaves(SIZES);
        let tree: MemoryTree = all.iter().copied().collect();
        let roots: Vec<Hash> = (0..=SIZES).map(|size| root_of(&all[..size as usize])).collect();
        for to in 0..=SIZES {
            for from in 0..=to {
                let proof = tree.prove_consistency(from, to).unwrap();
                if from > 0 && (to < 40 || to % 41 == 0) {
                    assert_eq!(proof, subproof_of(from as usize, &all[..to as usize], true), "{from} {to}");
                }
                let (old, new) = (roots[from as usize], roots[to as usize]);
                assert_eq!(verify_consistency(from, old, to, new, &proof), Ok(()), "{from} {to}");
            }
        }
        assert_eq!(consistency_plan(2, 1), Err(ProofError::Shrunk { from: 2, to: 1 }));
    }

    #[test]
    fn wrong_inclusion_proofs_are_refused() {
        let tree: MemoryTree = leaves(70).into_iter().collect();
        for size in [1, 2, 3, 7, 8, 9, 33, 64, 70] {
            let part: MemoryTree = leaves(size).into_iter().collect();
            let root = part.root();
            for index in 0..size {
                let proof = tree.prove_inclusion(index, size).unwrap();
                let check = |leaf, index, proof: &[Hash]| verify_inclusion(leaf, index, size, proof, root);
                for byte in 0..proof.len() * Hash::LEN {
                    let mut forged = proof.clone();
                    forged[byte / Hash::LEN].0[byte % Hash::LEN] ^= 0x40;
                    assert_eq!(check(leaf(index), index, &forged), Err(ProofError::OtherRoot));
                }
                let mut longer = proof.clone();
                longer.push(Hash::ZERO);
                assert_eq!(check(leaf(index), index, &longer), Err(ProofError::TooLong));
                if let Some((_, shorter)) = proof.split_last() {
                    assert_eq!(check(leaf(index), index, shorter), Err(ProofError::TooShort));
                }
                assert_eq!(check(leaf(index + 1), index, &proof), Err(ProofError::OtherRoot));
                for other in (0..=size).filter(|other| *other != index) {
                    assert!(check(leaf(index), other, &proof).is_err());
                }
            }
        }
    }

    #[test]
    fn wrong_consistency_proofs_are_refused() {
        let tree: MemoryTree = leaves(70).into_iter().collect();
        let root = |size| leaves(size).into_iter().collect::<MemoryTree>().root();
        for to in [1, 2, 3, 8, 9, 33, 70] {
            for from in 0..=to {
                let proof = tree.prove_consistency(from, to).unwrap();
                let check = |proof: &[Hash]| verify_consistency(from, root(from), to, root(to), proof);
                for byte in 0..proof.len() * Hash::LEN {
                    let mut forged = proof.clone();
                    forged[byte / Hash::LEN].0[byte % Hash::LEN] ^= 1;
                    assert!(check(&forged).is_err());
                }
                let mut longer = proof.clone();
                longer.push(Hash::ZERO);
                assert_eq!(check(&longer), Err(ProofError::TooLong));
                if let Some((_, shorter)) = proof.split_last() {
                    assert_eq!(check(shorter), Err(ProofError::TooShort));
                }
                assert!(verify_consistency(from, Hash::ZERO, to, root(to), &proof).is_err());
                if from > 0 {
                    assert!(verify_consistency(from, root(from), to, Hash::ZERO, &proof).is_err());
                }
            }
        }
        assert_eq!(
            verify_consistency(3, root(3), 2, root(2), &[]),
            Err(ProofError::Shrunk { from: 3, to: 2 })
        );
    }

    #[test]
    fn a_lost_node_is_named() {
        let plan = inclusion_plan(5, 7).unwrap();
        let wanted: Vec<NodeId> = plan.nodes().collect();
        let expected = [(0, 4), (0, 6), (2, 0)].map(|(level, index)| NodeId { level, index });
        assert_eq!(wanted, expected);
        let lost = NodeId { level: 0, index: 6 };
        assert_eq!(plan.build(|id| (id != lost).then_some(Hash::ZERO)), Err(MissingNode(lost)));
    }

    #[test]
    fn a_leaf_is_blinded_by_its_salt() {
        let entry = Hash([7; 48]);
        assert_ne!(leaf_hash(&Salt([1; 32]), &entry), leaf_hash(&Salt([2; 32]), &entry));
        assert_eq!(leaf_hash(&Salt([1; 32]), &entry), leaf_hash_plain(&[&[1; 32][..], &[7; 48]].concat()));
    }

    proptest! {
        #[test]
        fn a_frontier_survives_storage(size in 0u64..2000) {
            let mut frontier = Frontier::new();
            for n in 0..size {
                frontier.append(leaf(n), &mut Vec::new());
            }
            let mut stored = Frontier::parse(&frontier.to_bytes()).unwrap();
            prop_assert_eq!(&stored, &frontier);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            stored.append(leaf(size), &mut a);
            frontier.append(leaf(size), &mut b);
            prop_assert_eq!(a, b);
        }

        #[test]
        fn a_frontier_with_other_peaks_is_refused(size in 0u64..1000, peaks in 0usize..12) {
            let odd = Frontier { size, peaks: vec![Hash::ZERO; peaks] };
            prop_assert_eq!(Frontier::parse(&odd.to_bytes()).is_ok(), size.count_ones() as usize == peaks);
        }

        #[test]
        fn large_trees_plan_few_nodes(size in 1u64..1 << 62, pick: u64) {
            let index = pick % size;
            let plan = inclusion_plan(index, size).unwrap();
            prop_assert!(plan.nodes().count() <= 126);
            prop_assert!(plan.nodes().all(|id| (id.index + 1) << id.level <= size));
        }
    }
}
