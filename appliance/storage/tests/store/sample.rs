//! Blocks to store: a small network with real keys and signatures.

use std::sync::Arc;
use zixt_crypto::{cose, digest};
use zixt_ledger::testing::{SampleDevice, SampleNetwork};
use zixt_ledger::{ProposedBlock, Submission, label_for};
use zixt_types::{Attachment, Author, Canonical, Certificate, Hash, MessageId, Payload, SuiteId, ThreadId};

/// A certified block.
pub(crate) type Sealed = (Arc<ProposedBlock>, Certificate);

/// Two people, a device more, a conversation, and every block so far.
pub(crate) struct World {
    pub(crate) network: SampleNetwork,
    pub(crate) alice: SampleDevice,
    pub(crate) bob: SampleDevice,
    pub(crate) thread: ThreadId,
    pub(crate) blocks: Vec<Sealed>,
}

impl World {
    /// Enrols Alice (whose second device is added and revoked) and Bob and begins their conversation.
    pub(crate) fn new() -> Self {
        let mut network = SampleNetwork::new(Arc::new(zixt_crypto_fast::AwsLc), SuiteId::Standard, &[1]);
        let mut blocks = Vec::new();
        let (alice_invitation, first) = network.invite("alice");
        let (bob_invitation, second) = network.invite("bob");
        blocks.push(shared(network.seal(vec![first, second])));
        let (alice, first) = network.device(alice_invitation.account, Ok(&alice_invitation));
        let (bob, second) = network.device(bob_invitation.account, Ok(&bob_invitation));
        blocks.push(shared(network.seal(vec![first, second])));
        let (laptop, submission) = network.device(alice.member.account, Err(&alice));
        blocks.push(shared(network.seal(vec![submission])));
        let thread = network.thread_id();
        let submission = network.commit(thread, &alice, vec![bob.member, laptop.member], Vec::new());
        blocks.push(shared(network.seal(vec![submission])));
        let submission = network.commit(thread, &alice, Vec::new(), vec![laptop.member]);
        blocks.push(shared(network.seal(vec![submission])));
        let submission = network.revoke(laptop.member.device, &alice);
        blocks.push(shared(network.seal(vec![submission])));
        Self { network, alice, bob, thread, blocks }
    }

    /// A block of `count` messages of Alice's, with envelopes of `bytes` bytes.
    pub(crate) fn messages(&mut self, count: usize, bytes: usize) -> &Sealed {
        let submissions = (0..count as u64).map(|later| self.message(later, bytes)).collect();
        let sealed = shared(self.network.seal(submissions));
        self.blocks.push(sealed);
        self.blocks.last().unwrap()
    }

    /// A block that replaces the validator's key.
    pub(crate) fn rotate(&mut self) {
        let sealed = shared(self.network.rotate(0));
        self.blocks.push(sealed);
    }

    /// A block of one entry.
    pub(crate) fn record(&mut self, submission: Submission) {
        let sealed = shared(self.network.seal(vec![submission]));
        self.blocks.push(sealed);
    }

    /// Alice's message that follows `later` others in the same block.
    fn message(&mut self, later: u64, bytes: usize) -> Submission {
        let unique = self.network.unique();
        let mut envelope = vec![0xE0; bytes.max(8)];
        envelope[..8].copy_from_slice(&unique.to_be_bytes());
        let epoch = self.network.state.thread(&self.thread).unwrap().conversation().unwrap().epoch;
        let payload =
            Payload::Message { epoch, envelope: digest::envelope_digest(&envelope), content: Hash([1; 48]) };
        let mut body = self.network.body(self.thread, Author::Device(self.alice.member), payload);
        body.counter += later;
        let mut id = [0xD0; 16];
        id[..8].copy_from_slice(&unique.to_be_bytes());
        body.message_id = MessageId(id);
        let bytes = body.to_bytes();
        let signature = cose::sign(&*self.alice.identity, label_for(&body.author), &bytes).unwrap();
        Submission::parse(bytes, signature, None, vec![Attachment(envelope)]).unwrap()
    }
}

fn shared((block, certificate): (ProposedBlock, Certificate)) -> Sealed {
    (Arc::new(block), certificate)
}
