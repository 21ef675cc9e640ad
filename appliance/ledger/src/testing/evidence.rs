//! Evidence from a [`SampleNetwork`], under its last header.

use super::SampleNetwork;
use crate::evidence::{
    Anchor, Disclosure, Evidence, EvidenceBuilder, EvidenceEntry, LeafProof, Signature, ThreadEvidence,
};
use crate::tree::{self, MemoryTree, NodeId, Plan};
use crate::{RecordedEntry, TreeId, shard_states};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use zixt_crypto::digest;
use zixt_types::{AccountId, Author, Hash, Head, MessageId, Payload, Seq, ThreadId};

impl SampleNetwork {
    /// Everything that was recorded, in order.
    pub fn recorded(&self) -> impl Iterator<Item = &RecordedEntry> {
        self.blocks.iter().flat_map(|(block, _)| &block.entries)
    }

    /// The entries of a thread, with their places.
    pub fn entries_of(&self, thread: ThreadId) -> impl Iterator<Item = &RecordedEntry> {
        self.recorded().filter(move |entry| entry.body.thread == thread)
    }

    /// A builder under the last header that knows every account.
    #[must_use]
    pub fn evidence_builder(&self) -> EvidenceBuilder {
        let (block, certificate) = self.blocks.last().expect("a sealed block");
        let genesis = (*self.state.genesis).clone();
        let mut keyring = self.state.keyring.clone();
        for entry in self.recorded() {
            // The invitation's key came with the first device.
            if let Author::Invitation(_) = entry.body.author {
                keyring.insert(entry.body.suite, &entry.item.attachments[3].0);
            }
        }
        let builder = EvidenceBuilder::new(genesis, block.header().clone(), certificate.clone(), keyring);
        let thread = digest::system_thread(self.state.genesis_hash);
        let system: Vec<_> = self.entries_of(thread).map(|entry| EvidenceEntry::from(&entry.item)).collect();
        if system.is_empty() { builder } else { builder.system(system, self.state.heads.prove(&thread)) }
    }

    /// The builder with an account.
    #[must_use]
    pub fn with_account(&self, builder: EvidenceBuilder, account: AccountId) -> EvidenceBuilder {
        let thread = digest::account_thread(account);
        let entries = self.entries_of(thread).map(|entry| EvidenceEntry::from(&entry.item)).collect();
        builder.account(account, entries, self.state.heads.prove(&thread))
    }

    /// The proof that a recorded entry is in its shard.
    #[must_use]
    pub fn prove_leaf(&self, entry: &RecordedEntry) -> LeafProof {
        let states = shard_states(&self.state.shards);
        let shard = states[usize::from(entry.shard.0)];
        let plan = tree::inclusion_plan(entry.leaf, shard.size).expect("a recorded leaf");
        let shards: MemoryTree = states.iter().map(tree::shard_leaf).collect();
        LeafProof {
            salt: entry.item.salt,
            index: entry.leaf,
            path: self.build(&plan, TreeId::Shard(entry.shard)),
            shard,
            shards: shards.prove_inclusion(u64::from(entry.shard.0), shards.size()).expect("a shard"),
        }
    }

    /// Builds a proof from the nodes that the blocks completed.
    #[must_use]
    pub fn build(&self, plan: &Plan, tree: TreeId) -> Vec<Hash> {
        let nodes: HashMap<NodeId, Hash> = self
            .blocks
            .iter()
            .flat_map(|(block, _)| &block.nodes)
            .filter(|(id, _)| *id == tree)
            .map(|(_, node)| (node.id(), node.hash))
            .collect();
        plan.build(|id| nodes.get(&id).copied()).expect("every node is kept")
    }

    /// Evidence about the entries `seqs` of a conversation: with `head`, that nothing follows them; with `contents`,
    /// envelopes and what [`SampleNetwork::say`] put into them.
    #[must_use]
    pub fn evidence(
        &self,
        thread: ThreadId,
        seqs: RangeInclusive<u64>,
        head: bool,
        contents: bool,
    ) -> Evidence {
        let chosen: Vec<&RecordedEntry> =
            self.entries_of(thread).filter(|entry| seqs.contains(&entry.item.position.seq.0)).collect();
        let last = chosen.last().expect("an entry");
        let anchor = if head {
            Anchor::Head(self.state.heads.prove(&thread))
        } else {
            Anchor::Leaf(self.prove_leaf(last))
        };
        let mut builder = self.evidence_builder();
        for entry in &chosen {
            if let Author::Device(member) = entry.body.author {
                builder = self.with_account(builder, member.account);
            }
        }
        let entries = chosen
            .iter()
            .map(|entry| {
                let mut evidence = EvidenceEntry::from(&entry.item);
                if contents {
                    evidence.envelope = Some(entry.item.attachments[0].0.clone());
                    evidence.disclosure = self.said.get(&entry.body.message_id).cloned();
                }
                evidence
            })
            .collect();
        builder.finish(ThreadEvidence { thread, entries, anchor }, &*self.backend).expect("good evidence")
    }

    /// Records a message whose content the author can disclose; returns its place.
    pub fn say(&mut self, thread: ThreadId, author: &super::SampleDevice, text: &str) -> Head {
        let mut k = [0x4B; 32];
        k[..8].copy_from_slice(&self.unique().to_be_bytes());
        let envelope = format!("sealed {}", text.len()).into_bytes();
        // The content names its message, so the body comes first and gets its commitment afterwards.
        let mut body = self.message(thread, author, &envelope, Hash::ZERO).body;
        let disclosure = Disclosure { content: sample_content(&body.message_id, text), k };
        if let Payload::Message { content, .. } = &mut body.payload {
            *content = digest::content_commitment(&k, &disclosure.content);
        }
        let submission = self.sign(&body, &*author.identity, None, &[&envelope]);
        self.said.insert(submission.body.message_id, disclosure);
        self.seal(vec![submission]);
        self.head(&thread).unwrap_or(Head { seq: Seq(0), hash: Hash::ZERO })
    }

    /// Records `count` messages in a conversation of its own, so that trees and map have some depth.
    pub fn fill(&mut self, people: usize, messages: usize) {
        let mut devices = Vec::new();
        for n in 0..people {
            devices.push(self.enrol(&format!("person {n}")));
        }
        for pair in devices.chunks_exact(2) {
            let thread = self.thread_id();
            let commit = self.commit(thread, &pair[0], vec![pair[1].member], vec![]);
            self.seal(vec![commit]);
            for n in 0..messages {
                let message = self.message(thread, &pair[n % 2], b"filler", Hash([3; 48]));
                self.seal(vec![message]);
            }
        }
    }
}

/// Where a test should change bytes of a file: everywhere, but inside of keys and signatures (`opaque`), where every
/// byte is like the others, at one place in 41, unless `ZIXT_TEST_FULL` is set.
#[must_use]
pub fn places_to_change(file: &[u8], opaque: &[&[u8]]) -> Vec<usize> {
    let mut alike = vec![false; file.len()];
    for part in opaque.iter().filter(|part| part.len() > 100) {
        let start = file.windows(part.len()).position(|window| window == *part).expect("a part of the file");
        alike[start + 8..start + part.len() - 8].fill(std::env::var_os("ZIXT_TEST_FULL").is_none());
    }
    (0..file.len()).filter(|at| !alike[*at] || at % 41 == 0).collect()
}

/// The keys and signatures in an evidence.
#[must_use]
pub fn opaque_parts(evidence: &Evidence) -> Vec<&[u8]> {
    let entries =
        evidence.accounts.iter().flat_map(|account| &account.entries).chain(&evidence.thread.entries);
    let signatures = entries.filter_map(|entry| match &entry.signature {
        Signature::Full(signature) => Some(signature.as_slice()),
        Signature::Digest(_) => None,
    });
    let certificate = evidence.certificate.signatures.iter().map(|signature| signature.signature.as_slice());
    let keys = evidence.keyring.iter().map(|(_, entry)| entry.key.as_slice());
    signatures.chain(certificate).chain(keys).collect()
}

/// A content as clients write it: version, kind (text), message, no header seen, text, no attachments.
#[must_use]
pub fn sample_content(message: &MessageId, text: &str) -> Vec<u8> {
    let none: Option<u8> = None;
    let empty: [u8; 0] = [];
    minicbor::to_vec((1u64, 0u64, message, none, text, empty)).expect("encoding to memory")
}
