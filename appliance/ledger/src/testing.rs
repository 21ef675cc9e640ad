//! A whole network in memory, with real keys and signatures, for tests of this and other crates. Behind the feature
//! `testing`, which only dev-dependencies switch on.
#![expect(clippy::expect_used, clippy::panic, reason = "test support: a failure here is a failed test")]

mod evidence;

pub use evidence::{opaque_parts, places_to_change, sample_content};

use crate::evidence::Disclosure;
use crate::{BlockBuilder, Keyring, LedgerState, ProposedBlock, Refusal, Submission, label_for};
use std::collections::HashMap;
use std::sync::Arc;
use zixt_crypto::{Backend, SigningKey, SigningSeed, cose, digest, labels};
use zixt_types::{
    AccountId, Action, ApplianceId, Attachment, Author, Body, Canonical, Certificate, CertificateSignature,
    CustodyMode, Decision, DeviceId, Epoch, Genesis, Hash, Head, KeyPurpose, Member, MessageId, Officer,
    Payload, RevokeReason, RotationPolicy, Round, Salt, Seq, SuiteId, ThreadId, ThreadKind, Timestamp,
    Transcript, UnlockMode, Validator, Vote, VoteStep,
};

/// A device with its private keys.
pub struct SampleDevice {
    /// Account and device.
    pub member: Member,
    /// Signs ledger bodies.
    pub identity: Box<dyn SigningKey>,
    /// MLS public key (never used to sign here).
    pub mls: Vec<u8>,
    /// TLS public key (never used to sign here).
    pub tls: Vec<u8>,
}

impl SampleDevice {
    /// What looks like a key package of this device as far as [`crate::key_package`] reads; `number` tells them apart.
    #[must_use]
    pub fn key_package(&self, number: u8) -> Vec<u8> {
        let length = u32::try_from(self.mls.len()).expect("a short key") | 2 << 30;
        let head = [0, 1, 0, 5, 0, 1, 0xF0, 0xA1, 1, number, 1, 0];
        [&head[..], &length.to_be_bytes(), &self.mls].concat()
    }
}

/// An invitation with its private key.
pub struct SampleInvitation {
    /// The invited account.
    pub account: AccountId,
    /// The invitation's key.
    pub key: Box<dyn SigningKey>,
}

/// A network with one or more validators whose keys are all here. Everything derives from `seed`, but signatures are
/// hedged, so that hashes differ from run to run.
pub struct SampleNetwork {
    /// The backend of all signatures.
    pub backend: Arc<dyn Backend>,
    /// The suite of all keys.
    pub suite: SuiteId,
    /// The ledger after the last sealed block.
    pub state: LedgerState,
    /// The genesis' keys.
    pub keyring: Keyring,
    /// Consensus keys, in order of validator.
    pub validators: Vec<(ApplianceId, Box<dyn SigningKey>)>,
    /// The enroller's key.
    pub enroller: Arc<dyn SigningKey>,
    /// The officers' keys, in order of the genesis. The first alone is enough unless the network says otherwise.
    pub officers: Vec<Box<dyn SigningKey>>,
    /// The clock.
    pub now: Timestamp,
    /// Every sealed block with its certificate.
    pub blocks: Vec<(ProposedBlock, Certificate)>,
    /// What [`SampleNetwork::say`] said.
    said: HashMap<MessageId, Disclosure>,
    next: u8,
    counter: u64,
}

impl SampleNetwork {
    /// A network of `stakes.len()` validators with these stakes and four shards.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, suite: SuiteId, stakes: &[u64]) -> Self {
        Self::with_officers(backend, suite, stakes, 1, 1)
    }

    /// The same, with officers of whom some have to approve.
    #[must_use]
    pub fn with_officers(
        backend: Arc<dyn Backend>,
        suite: SuiteId,
        stakes: &[u64],
        officers_count: usize,
        officers_required: u8,
    ) -> Self {
        let mut next = 1u8;
        let mut key = || {
            let seed = SigningSeed::from_bytes(&[next; 32]);
            next += 1;
            backend.signing_key(suite, &seed).expect("a key from a seed")
        };
        let mut keyring = Keyring::default();
        let enroller = key();
        let mut officers = vec![key()];
        let organisation = key();
        let mut validators: Vec<(Validator, Box<dyn SigningKey>)> = stakes
            .iter()
            .map(|&stake| {
                let (identity, consensus, tls) = (key(), key(), key());
                let hash = |key: &dyn SigningKey| digest::key_hash(suite, key.public_key());
                let validator = Validator {
                    appliance: digest::appliance_id(hash(&*identity)),
                    consensus: keyring.insert(suite, consensus.public_key()),
                    tls: hash(&*tls),
                    stake,
                    custody: CustodyMode::WrappedByToken,
                };
                (validator, consensus)
            })
            .collect();
        validators.sort_by_key(|(validator, _)| validator.appliance);
        officers.extend((1..officers_count).map(|_| key()));
        let officer = |(n, key): (usize, &dyn SigningKey)| Officer {
            name: if n == 0 { "officer".to_owned() } else { format!("officer {n}") },
            key: digest::key_hash(suite, key.public_key()),
        };
        let genesis = Genesis {
            version: Genesis::VERSION,
            suites: vec![suite],
            network: "sample".to_owned(),
            organisation: digest::key_hash(suite, organisation.public_key()),
            officers: officers.iter().map(|key| &**key).enumerate().map(officer).collect(),
            officers_required,
            enrollers: vec![keyring.insert(suite, enroller.public_key())],
            validators: validators.iter().map(|(validator, _)| validator.clone()).collect(),
            shard_count: 4,
            unlock: UnlockMode::Attended,
            lab: true,
            rotation: RotationPolicy { messages_max: 100, age_ms_max: 86_400_000 },
            created_at: Timestamp(1_000_000),
            nonce: [7; 32],
        };
        let validators = validators.into_iter().map(|(v, key)| (v.appliance, key)).collect();
        Self {
            backend,
            suite,
            state: LedgerState::new(genesis, keyring.clone()),
            keyring,
            validators,
            enroller: Arc::from(enroller),
            officers,
            now: Timestamp(1_000_000),
            blocks: Vec::new(),
            said: HashMap::new(),
            next,
            counter: 0,
        }
    }

    /// A fresh key.
    pub fn key(&mut self) -> Box<dyn SigningKey> {
        let mut seed = [0xEE; 32];
        seed[0] = self.next;
        seed[1..9].copy_from_slice(&self.unique().to_be_bytes());
        self.backend.signing_key(self.suite, &SigningSeed::from_bytes(&seed)).expect("a key from a seed")
    }

    /// A number that was not used before.
    pub fn unique(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Signs a payload as `author`; the counter and the head seen are the ones of the current state.
    pub fn body(&mut self, thread: ThreadId, author: Author, payload: Payload) -> Body {
        let known = self.state.thread(&thread);
        let (counter, last_seen) =
            known.map_or((0, None), |thread| (thread.counter(&author), Some(thread.head)));
        let mut message_id = [0; 16];
        message_id[..8].copy_from_slice(&self.unique().to_be_bytes());
        Body {
            version: Body::VERSION,
            suite: self.suite,
            genesis: self.state.genesis_hash,
            thread,
            author,
            counter,
            message_id: MessageId(message_id),
            sent_at: self.now,
            last_seen,
            payload,
        }
    }

    /// Signs a body and parses it back with its attachments.
    #[must_use]
    pub fn sign(
        &self,
        body: &Body,
        key: &dyn SigningKey,
        possession: Option<&dyn SigningKey>,
        attachments: &[&[u8]],
    ) -> Submission {
        let bytes = body.to_bytes();
        let signature = cose::sign(key, label_for(&body.author), &bytes).expect("a signature");
        let possession =
            possession.map(|key| cose::sign(key, labels::DEVICE_CROSS_CERT, &bytes).expect("a signature"));
        let attachments = attachments.iter().map(|bytes| Attachment(bytes.to_vec())).collect();
        Submission::parse(bytes, signature, possession, attachments).expect("a well-formed submission")
    }

    /// An invitation for a new account, and its submission.
    pub fn invite(&mut self, name: &str) -> (SampleInvitation, Submission) {
        let key = self.key();
        let mut account = [0xAC; 16];
        account[..8].copy_from_slice(&self.unique().to_be_bytes());
        let account = AccountId(account);
        let payload = Payload::Invite {
            account,
            name: digest::name_commitment(&Salt([9; 32]), name),
            key: digest::key_hash(self.suite, key.public_key()),
            expires_at: Timestamp(self.now.0 + 86_400_000),
        };
        let author = Author::Enroller(digest::key_hash(self.suite, self.enroller.public_key()));
        let body = self.body(digest::account_thread(account), author, payload);
        let submission = self.sign(&body, &*self.enroller, None, &[]);
        (SampleInvitation { account, key }, submission)
    }

    /// A device for an account, authorised by the invitation or by another device, and its submission.
    pub fn device(
        &mut self,
        account: AccountId,
        by: Result<&SampleInvitation, &SampleDevice>,
    ) -> (SampleDevice, Submission) {
        let (identity, mls, tls) = (self.key(), self.key(), self.key());
        let hash = |key: &dyn SigningKey| digest::key_hash(self.suite, key.public_key());
        let id: DeviceId = digest::device_id(hash(&*identity));
        let payload =
            Payload::DeviceAdd { device: id, identity: hash(&*identity), mls: hash(&*mls), tls: hash(&*tls) };
        let (author, key) = match by {
            Ok(invitation) => (Author::Invitation(account), &*invitation.key),
            Err(device) => (Author::Device(device.member), &*device.identity),
        };
        let body = self.body(digest::account_thread(account), author, payload);
        let mut attachments = vec![identity.public_key(), mls.public_key(), tls.public_key()];
        if by.is_ok() {
            attachments.push(key.public_key());
        }
        let submission = self.sign(&body, key, Some(&*identity), &attachments);
        let member = Member { account, device: id };
        let (mls, tls) = (mls.public_key().to_vec(), tls.public_key().to_vec());
        (SampleDevice { member, identity, mls, tls }, submission)
    }

    /// A revocation of `device` by `by`, a device of the same account.
    pub fn revoke(&mut self, device: DeviceId, by: &SampleDevice) -> Submission {
        let thread = digest::account_thread(by.member.account);
        let payload = Payload::DeviceRevoke { device, reason: RevokeReason::CessationOfOperation };
        let body = self.body(thread, Author::Device(by.member), payload);
        self.sign(&body, &*by.identity, None, &[])
    }

    /// Enrols a person: invitation and first device, each in a block of its own.
    pub fn enrol(&mut self, name: &str) -> SampleDevice {
        let (invitation, submission) = self.invite(name);
        self.seal(vec![submission]);
        let (device, submission) = self.device(invitation.account, Ok(&invitation));
        self.seal(vec![submission]);
        device
    }

    /// A commit by `author`; epoch 0 begins the conversation. The MLS bytes are made up.
    pub fn commit(
        &mut self,
        thread: ThreadId,
        author: &SampleDevice,
        mut added: Vec<Member>,
        mut removed: Vec<Member>,
    ) -> Submission {
        added.sort_unstable();
        removed.sort_unstable();
        let epoch = self
            .state
            .thread(&thread)
            .and_then(|thread| thread.conversation())
            .map_or(Epoch(0), |conversation| conversation.epoch);
        let unique = self.unique();
        let envelope = format!("commit {unique}").into_bytes();
        let (welcome, tree) =
            (format!("welcome {unique}").into_bytes(), format!("tree {unique}").into_bytes());
        let joins = !added.is_empty();
        let payload = Payload::Commit {
            epoch,
            envelope: digest::envelope_digest(&envelope),
            welcome: joins.then(|| digest::attachment_digest(&welcome)),
            tree: joins.then(|| digest::attachment_digest(&tree)),
            authenticator: Hash([u8::try_from(unique % 251).unwrap_or(0); 48]),
            added,
            removed,
        };
        let body = self.body(thread, Author::Device(author.member), payload);
        let attachments: &[&[u8]] = if joins { &[&envelope, &welcome, &tree] } else { &[&envelope] };
        self.sign(&body, &*author.identity, None, attachments)
    }

    /// A message of `author` in the thread's current epoch with this commitment to its content.
    pub fn message(
        &mut self,
        thread: ThreadId,
        author: &SampleDevice,
        envelope: &[u8],
        content: Hash,
    ) -> Submission {
        let epoch = self
            .state
            .thread(&thread)
            .and_then(|thread| thread.conversation())
            .map_or(Epoch(0), |conversation| conversation.epoch);
        let payload = Payload::Message { epoch, envelope: digest::envelope_digest(envelope), content };
        let body = self.body(thread, Author::Device(author.member), payload);
        self.sign(&body, &*author.identity, None, &[envelope])
    }

    /// A new conversation's id.
    pub fn thread_id(&mut self) -> ThreadId {
        let mut rest = [0x7E; 31];
        rest[..8].copy_from_slice(&self.unique().wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        ThreadId::new(ThreadKind::Conversation, &rest)
    }

    /// Builds the next block without applying it. Signatures are checked as the server does.
    ///
    /// # Errors
    /// The ledger refuses an entry.
    pub fn propose(&mut self, submissions: Vec<Submission>) -> Result<ProposedBlock, Refusal> {
        self.now.0 += 1_000;
        let mut salts = self.counter;
        let mut builder = BlockBuilder::new(&self.state, self.now);
        for submission in submissions {
            let signer = self.state.signer(&submission)?;
            if let Err(error) = submission.verify(&signer, &self.state.keyring, &*self.backend) {
                panic!("sample signature: {error}");
            }
            salts += 1;
            let mut salt = [0x5A; 32];
            salt[..8].copy_from_slice(&salts.to_be_bytes());
            builder.add(submission, Salt(salt))?;
        }
        let block = builder.finish();
        self.counter = salts;
        Ok(block)
    }

    /// Certifies a block with all validators.
    #[must_use]
    pub fn certify(&self, block: &ProposedBlock) -> Certificate {
        let header = block.header();
        let vote = Vote {
            version: Vote::VERSION,
            suite: header.suite,
            genesis: header.genesis,
            height: header.height,
            round: Round(0),
            step: VoteStep::Precommit,
            header: Some(block.header_hash),
        };
        let message = digest::vote_bytes(&vote);
        Certificate {
            version: Certificate::VERSION,
            height: header.height,
            round: Round(0),
            header: block.header_hash,
            signatures: self
                .validators
                .iter()
                .map(|(validator, key)| CertificateSignature {
                    validator: *validator,
                    signature: key.sign(&message).expect("a signature"),
                })
                .collect(),
        }
    }

    /// Builds, certifies and applies the next block.
    pub fn seal(&mut self, submissions: Vec<Submission>) -> (ProposedBlock, Certificate) {
        let block = match self.propose(submissions) {
            Ok(block) => block,
            Err(refusal) => panic!("sample entry refused: {refusal}"),
        };
        let certificate = self.certify(&block);
        self.state.apply(&block);
        self.blocks.push((block.clone(), certificate.clone()));
        (block, certificate)
    }

    /// An action for the validator at this place, with the next number after `self.state`'s.
    #[must_use]
    pub fn action(&self, validator: usize, decision: Decision) -> Action {
        let appliance = self.state.genesis.validators[validator].appliance;
        Action {
            version: Action::VERSION,
            genesis: self.state.genesis_hash,
            appliance,
            sequence: self.state.system.sequence(&appliance).map_or(0, |last| last + 1),
            expires_at: Timestamp(self.now.0 + 86_400_000),
            decision,
        }
    }

    /// An action that the first `officers` officers approved.
    #[must_use]
    pub fn approve(&self, action: &Action, officers: usize) -> Transcript {
        let bytes = action.to_bytes();
        let approvals = self.officers[..officers]
            .iter()
            .map(|key| zixt_ceremony::approve(&bytes, &**key).expect("a signature"))
            .collect();
        zixt_ceremony::assemble(&bytes, approvals, &*self.backend).expect("good approvals")
    }

    /// The entry that records a decision next. `key` is the public key that it activates, if it does.
    #[must_use]
    pub fn decision(&self, transcript: &Transcript, key: Option<&[u8]>) -> Submission {
        let seq = self.head(&digest::system_thread(self.state.genesis_hash));
        self.decision_at(seq.map_or(Seq(0), |head| head.seq.next()), transcript, key)
    }

    fn decision_at(&self, seq: Seq, transcript: &Transcript, key: Option<&[u8]>) -> Submission {
        let action = Action::parse(&transcript.action).expect("an action");
        let body = crate::system::decision_body(&self.state.genesis, self.state.genesis_hash, seq, action);
        let approvals = crate::system::approvals_bytes(&transcript.approvals);
        let attachments = key.map(|key| Attachment(key.to_vec())).into_iter().collect();
        Submission::parse(body.to_bytes(), approvals, None, attachments).expect("a well-formed submission")
    }

    /// The activation of another consensus key for the validator at this place, approved, with the key.
    pub fn activation(&mut self, validator: usize) -> (Box<dyn SigningKey>, Transcript, Submission) {
        self.activations(validator, 1).remove(0)
    }

    /// Activations of one consensus key after the other, to be recorded in one height, which the last key certifies.
    pub fn activations(
        &mut self,
        validator: usize,
        count: usize,
    ) -> Vec<(Box<dyn SigningKey>, Transcript, Submission)> {
        let appliance = self.state.genesis.validators[validator].appliance;
        let required = usize::from(self.state.genesis.officers_required);
        let mut retires = self.state.system.validator(&appliance).expect("a validator").consensus;
        let head = self.head(&digest::system_thread(self.state.genesis_hash));
        let mut seq = head.map_or(Seq(0), |head| head.seq.next());
        let mut activations = Vec::new();
        while activations.len() < count {
            let key = self.key();
            let activates = digest::key_hash(self.suite, key.public_key());
            let decision = Decision::ActivateKey {
                purpose: KeyPurpose::Consensus,
                retires,
                activates,
                suite: self.suite,
                custody: CustodyMode::SealedByTpm,
            };
            let mut action = self.action(validator, decision);
            action.sequence += activations.len() as u64;
            let transcript = self.approve(&action, required);
            let submission = self.decision_at(seq, &transcript, Some(key.public_key()));
            activations.push((key, transcript, submission));
            (retires, seq) = (activates, seq.next());
        }
        activations
    }

    /// Rotates a validator's consensus key: records the activation in a height that the new key certifies.
    pub fn rotate(&mut self, validator: usize) -> (ProposedBlock, Certificate) {
        self.rotate_often(validator, 1)
    }

    /// The same by several activations in one height.
    pub fn rotate_often(&mut self, validator: usize, count: usize) -> (ProposedBlock, Certificate) {
        let appliance = self.state.genesis.validators[validator].appliance;
        let mut submissions = Vec::new();
        for (key, _, submission) in self.activations(validator, count) {
            if let Some(known) = self.validators.iter_mut().find(|(known, _)| *known == appliance) {
                known.1 = key;
            }
            submissions.push(submission);
        }
        self.seal(submissions)
    }

    /// The head of a thread.
    #[must_use]
    pub fn head(&self, thread: &ThreadId) -> Option<Head> {
        self.state.thread(thread).map(|thread| thread.head)
    }
}
