//! Verification of evidence: every verdict on its own, so that one changed byte does not hide what is still proven.

use super::report::{EntryReport, Fault, Finding, Place, Report, Signer, SignerActivation, Verdict};
use super::{AccountEvidence, Anchor, Evidence, EvidenceEntry, LeafProof, Signature};
use crate::certificate::verify_certificate;
use crate::map::MapProof;
use crate::{Account, Conversation, Counters, SystemThread, label_for, tree};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;
use zixt_crypto::{Backend, cose, digest};
use zixt_types::cbor::scan;
use zixt_types::{
    AccountId, Author, Body, Canonical, DeviceId, Hash, Head, Member, MessageId, Payload, Seq, SuiteId,
    ThreadId,
};

/// The evidence is about another network than the one asked for. Nothing else was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the evidence is about network {got}, not {expected}")]
pub struct OtherGenesis {
    /// The genesis hash that the verifier trusts.
    pub expected: Hash,
    /// The hash of the genesis in the file.
    pub got: Hash,
}

impl Evidence {
    /// Verifies the evidence for somebody who trusts the network named by `genesis` and nothing else.
    ///
    /// # Errors
    /// [`OtherGenesis`]; everything else is a verdict of the report.
    pub fn verify(&self, genesis: Hash, backend: &dyn Backend) -> Result<Report, OtherGenesis> {
        let got = digest::genesis_hash(&self.genesis);
        if got != genesis {
            return Err(OtherGenesis { expected: genesis, got });
        }
        Ok(Verification::new(self, genesis, backend).run().0)
    }

    /// [`Self::verify`], with the hashes of all keys that it made use of.
    pub(super) fn verify_with_keys(&self, backend: &dyn Backend) -> (Report, BTreeSet<Hash>) {
        Verification::new(self, digest::genesis_hash(&self.genesis), backend).run()
    }
}

struct Verification<'a> {
    evidence: &'a Evidence,
    genesis: Hash,
    backend: &'a dyn Backend,
    /// What the officers decided, as far as it is proven: who may certify and invite, and since when.
    system: SystemThread,
    /// Keys that a signature was checked with.
    used: BTreeSet<Hash>,
    /// Keys that an account names; a file may hold them even if nothing here is signed with them.
    named: BTreeSet<Hash>,
    suites: Vec<Finding>,
    certificate: Vec<Finding>,
    recorded: Vec<Finding>,
    author: Vec<Finding>,
    envelope: Vec<Finding>,
    content: Vec<Finding>,
    time: Vec<Finding>,
    complete: Vec<Finding>,
}

/// An account as its evidence proves it.
struct ProvenAccount {
    account: Account,
    /// Devices with an unbroken chain of signatures from the genesis.
    proven: BTreeSet<DeviceId>,
}

impl<'a> Verification<'a> {
    fn new(evidence: &'a Evidence, genesis: Hash, backend: &'a dyn Backend) -> Self {
        Self {
            evidence,
            genesis,
            backend,
            system: SystemThread::new(&evidence.genesis),
            used: BTreeSet::new(),
            named: BTreeSet::new(),
            suites: Vec::new(),
            certificate: Vec::new(),
            recorded: Vec::new(),
            author: Vec::new(),
            envelope: Vec::new(),
            content: Vec::new(),
            time: Vec::new(),
            complete: Vec::new(),
        }
    }

    fn run(mut self) -> (Report, BTreeSet<Hash>) {
        let evidence = self.evidence;
        self.check_system();
        let stake = self.check_header();
        let accounts: BTreeMap<AccountId, ProvenAccount> = evidence
            .accounts
            .iter()
            .filter_map(|account| Some((account.account, self.check_account(account)?)))
            .collect();
        let bodies = self.check_thread(&accounts);
        self.check_parts(&bodies);
        let unused: Vec<Hash> = evidence
            .keyring
            .iter()
            .map(|(hash, _)| *hash)
            .filter(|hash| !self.used.contains(hash) && !self.named.contains(hash))
            .collect();
        self.author.extend(unused.into_iter().map(|key| finding(Place::Keyring, Fault::KeyUnused(key))));
        (self.report(stake, &bodies), self.used)
    }

    /// Genesis to validators: what officers decided, in order. Whether this is the certified thread, the header says that
    /// the validators at its end certify: a chain that is not fails the certificate.
    fn check_system(&mut self) {
        let evidence = self.evidence;
        let Some(system) = &evidence.system else { return };
        for entry in &system.entries {
            let place = Place::SystemEntry(entry.position.seq);
            let extra = entry.possession.is_some() || entry.envelope.is_some() || entry.disclosure.is_some();
            let appended = self.system.append(
                &evidence.genesis,
                &entry.body,
                &entry.signature,
                &entry.position,
                self.backend,
            );
            let fault = match appended {
                Err(fault) => Some(Fault::System(fault)),
                Ok(()) if extra => Some(Fault::NoSuchPart),
                Ok(()) => None,
            };
            self.certificate.extend(fault.map(|fault| finding(place, fault)));
        }
        let fault = match self.system.head() {
            Some(head) => self.check_head(&system.head, &digest::system_thread(self.genesis), head),
            None => Some(Fault::NoSuchThread),
        };
        self.certificate.extend(fault.map(|fault| finding(Place::System, fault)));
        self.check_times(&system.entries, &Place::SystemEntry);
    }

    /// Genesis to header: the certificate, the policy, the suite.
    fn check_header(&mut self) -> Option<crate::certificate::SignedStake> {
        let Evidence { genesis, header, certificate, keyring, .. } = self.evidence;
        if header.genesis != self.genesis {
            self.certificate.push(finding(Place::Header, Fault::OtherGenesis(header.genesis)));
        }
        if header.policy != digest::policy_hash(genesis) {
            self.suites.push(finding(Place::Header, Fault::OtherPolicy));
        }
        self.check_suite(Place::Header, header.suite);
        let validators = Arc::clone(self.system.validators_at(header.time));
        for signature in &certificate.signatures {
            let signer = validators.iter().find(|validator| validator.appliance == signature.validator);
            self.used.extend(signer.map(|validator| validator.consensus));
        }
        match verify_certificate(header, certificate, &validators, keyring, self.backend) {
            Ok(stake) => Some(stake),
            Err(error) => {
                self.certificate.push(finding(Place::Certificate, Fault::Certificate(error)));
                None
            }
        }
    }

    fn check_suite(&mut self, place: Place, suite: SuiteId) {
        if !self.evidence.genesis.suites.contains(&suite) {
            self.suites.push(finding(place, Fault::SuiteNotAllowed(suite)));
        }
    }

    /// Header to account: the whole chain up to the certified head, replayed by the ledger's own rules, with the
    /// signatures that lead to the devices.
    fn check_account(&mut self, evidence: &AccountEvidence) -> Option<ProvenAccount> {
        let id = evidence.account;
        let thread = digest::account_thread(id);
        let place = |seq| Place::AccountEntry(id, seq);
        let mut faults = Vec::new();
        let head = check_chain(&evidence.entries, Seq(0), &place, &mut faults);
        faults.extend(
            self.check_head(&evidence.head, &thread, head).map(|fault| finding(Place::Account(id), fault)),
        );
        self.check_times(&evidence.entries, &place);

        let mut state: Option<ProvenAccount> = None;
        let mut counters = Counters::default();
        for entry in &evidence.entries {
            let place = place(entry.position.seq);
            let result = self.read_body(entry, thread, place).and_then(|body| {
                check_counter(&mut counters, &body)?;
                self.replay(&mut state, &body, entry)
            });
            if let Err(fault) = result {
                faults.push(finding(place, fault));
            }
        }
        if let (Some(given), Some(state)) = (&evidence.name, &state)
            && digest::name_commitment(&given.salt, &given.name) != state.account.name
        {
            faults.push(finding(Place::Account(id), Fault::OtherName));
        }
        let broken = !faults.is_empty();
        self.author.append(&mut faults);
        // A chain that is not the certified one proves no device at all.
        state.filter(|_| !broken)
    }

    fn replay(
        &mut self,
        state: &mut Option<ProvenAccount>,
        body: &Body,
        entry: &EvidenceEntry,
    ) -> Result<(), Fault> {
        match body.payload {
            Payload::Invite { key, .. } => self.named.insert(key),
            Payload::DeviceAdd { identity, .. } => self.named.insert(identity),
            _ => false,
        };
        if matches!(body.payload, Payload::DeviceAdd { .. }) != entry.possession.is_some() {
            return Err(Fault::Possession);
        }
        if let Author::Enroller(key) = body.author
            && !self.system.system().appoints(&key, entry.position.time)
        {
            return Err(Fault::UnknownEnroller(key));
        }
        let Some(ProvenAccount { account, proven }) = state else {
            let account = Account::invited(body).map_err(Fault::Refused)?;
            let signed = self.check_signature(entry, body, account.enroller)?;
            if !signed {
                return Err(Fault::SignatureLeftOut);
            }
            *state = Some(ProvenAccount { account, proven: BTreeSet::new() });
            return Ok(());
        };
        let key = account.author_key(&body.author, entry.position.time).map_err(Fault::Refused)?;
        account.apply(body, entry.position.time).map_err(Fault::Refused)?;
        let signed = self.check_signature(entry, body, key)?;
        if let Payload::DeviceAdd { device, identity, .. } = body.payload {
            if device != digest::device_id(identity) {
                return Err(Fault::DeviceId);
            }
            // The invitation's entry is signed, or there were no account. A device passes on what it has itself.
            let authorised = match body.author {
                Author::Device(member) => proven.contains(&member.device),
                Author::Invitation(_) => true,
                Author::Enroller(_) | Author::Officers => false,
            };
            if signed && authorised {
                proven.insert(device);
            }
        }
        Ok(())
    }

    /// Whether the signature is given; an error if it is not good.
    fn check_signature(&mut self, entry: &EvidenceEntry, body: &Body, key: Hash) -> Result<bool, Fault> {
        let Signature::Full(signature) = &entry.signature else { return Ok(false) };
        self.used.insert(key);
        let public = self
            .evidence
            .keyring
            .get(&key)
            .filter(|public| public.suite == body.suite)
            .ok_or(Fault::KeyMissing(key))?;
        let label = label_for(&body.author);
        cose::verify(self.backend, body.suite, &public.key, label, &entry.body, signature)
            .map_err(Fault::Signature)?;
        // An addition's second signature adds nothing to the first for a verifier, and is given only as a digest
        // where size counts; where it is given, it is checked.
        if let (Some(Signature::Full(possession)), Payload::DeviceAdd { identity, .. }) =
            (&entry.possession, &body.payload)
        {
            self.used.insert(*identity);
            let public = self.evidence.keyring.get(identity).ok_or(Fault::KeyMissing(*identity))?;
            let label = zixt_crypto::labels::DEVICE_CROSS_CERT;
            cose::verify(self.backend, body.suite, &public.key, label, &entry.body, possession)
                .map_err(Fault::Signature)?;
        }
        Ok(true)
    }

    /// Header to conversation: the chain, what anchors it, who wrote each entry.
    fn check_thread(&mut self, accounts: &BTreeMap<AccountId, ProvenAccount>) -> Vec<Option<Body>> {
        let thread = &self.evidence.thread;
        let first = thread.entries.first().map_or(Seq(0), |entry| entry.position.seq);
        let mut recorded = Vec::new();
        let head = check_chain(&thread.entries, first, &Place::Entry, &mut recorded);
        self.recorded.append(&mut recorded);
        match &thread.anchor {
            Anchor::Leaf(proof) => {
                let place = Place::Entry(head.seq);
                let fault = self.check_leaf(proof, &thread.thread, head.hash).err();
                self.recorded.extend(fault.map(|fault| finding(place, fault)));
            }
            Anchor::Head(proof) => {
                let fault = self.check_head(proof, &thread.thread, head);
                let fault = fault.map(|fault| finding(Place::Thread, fault));
                self.recorded.extend(fault.clone());
                self.complete.extend(fault);
                // A gap in the middle is as incomplete as one at the end.
                let gaps = self.recorded.iter().filter(|finding| matches!(finding.place, Place::Entry(_)));
                self.complete.extend(gaps.cloned());
            }
        }
        self.check_times(&thread.entries, &Place::Entry);

        let whole = first == Seq(0);
        let mut conversation: Option<Conversation> = None;
        let mut counters = Counters::default();
        let mut bodies = Vec::with_capacity(thread.entries.len());
        for entry in &thread.entries {
            let seq = entry.position.seq;
            let body = match self.read_body(entry, thread.thread, Place::Entry(seq)) {
                Ok(body) => body,
                Err(fault) => {
                    // A body that does not even parse has no author and is none of the recorded ones either.
                    self.author.push(finding(Place::Entry(seq), fault));
                    bodies.push(Body::parse(&entry.body).ok());
                    continue;
                }
            };
            let mut faults = Vec::new();
            faults.extend(self.check_author(entry, &body, accounts).err());
            if whole {
                // From the first entry on, the rules themselves can be checked: roster, epochs, counters.
                faults.extend(check_counter(&mut counters, &body).err());
                let applied = match &mut conversation {
                    None => Conversation::begun(&body).map(|begun| conversation = Some(begun)),
                    Some(conversation) => conversation.apply(&body, seq),
                };
                faults.extend(applied.err().map(Fault::Refused));
            }
            self.author.extend(faults.into_iter().map(|fault| finding(Place::Entry(seq), fault)));
            bodies.push(Some(body));
        }
        bodies
    }

    /// Genesis to enroller to invitation to device was checked with the account; this is the last step.
    fn check_author(
        &mut self,
        entry: &EvidenceEntry,
        body: &Body,
        accounts: &BTreeMap<AccountId, ProvenAccount>,
    ) -> Result<(), Fault> {
        if entry.possession.is_some() {
            return Err(Fault::Possession);
        }
        // `Body::check` lets only devices write into conversations.
        let Author::Device(Member { account, device: id }) = body.author else { return Ok(()) };
        let known = accounts.get(&account).ok_or(Fault::AccountMissing(account))?;
        let device = known.account.device(id).ok_or(Fault::UnknownDevice(id))?;
        if !self.check_signature(entry, body, device.keys.identity)? {
            return Err(Fault::SignatureLeftOut);
        }
        if !known.proven.contains(&id) {
            return Err(Fault::DeviceUnproven(id));
        }
        // Valid is what the state at the height before allowed, and every height has a later time than the one
        // before: an addition counts from the next time on, and so does a revocation.
        let time = entry.position.time;
        if device.added_at >= time {
            return Err(Fault::NotYetActive { device: id, added: device.added_at, time });
        }
        match device.revoked {
            Some((revoked, _)) if revoked < time => Err(Fault::Revoked { device: id, revoked, time }),
            _ => Ok(()),
        }
    }

    fn read_body(&mut self, entry: &EvidenceEntry, thread: ThreadId, place: Place) -> Result<Body, Fault> {
        let body = Body::parse(&entry.body).map_err(Fault::Body)?;
        self.check_suite(place, body.suite);
        if body.genesis != self.genesis {
            return Err(Fault::OtherGenesis(body.genesis));
        }
        if body.thread != thread {
            return Err(Fault::OtherThread(body.thread));
        }
        Ok(body)
    }

    fn check_head(&self, proof: &MapProof, thread: &ThreadId, found: Head) -> Option<Fault> {
        match proof.verify(&self.evidence.header.map, thread) {
            Ok(Some(certified)) if certified == found => None,
            Ok(Some(certified)) => Some(Fault::OtherHead { certified, found }),
            Ok(None) => Some(Fault::NoSuchThread),
            Err(error) => Some(Fault::MapProof(error)),
        }
    }

    fn check_leaf(&self, proof: &LeafProof, thread: &ThreadId, entry: Hash) -> Result<(), Fault> {
        let Evidence { genesis, header, .. } = self.evidence;
        let LeafProof { salt, index, path, shard, shards } = proof;
        if shard.shard != thread.shard(genesis.shard_count) {
            return Err(Fault::OtherShard);
        }
        let leaf = tree::leaf_hash(salt, &entry);
        tree::verify_inclusion(leaf, *index, shard.size, path, shard.root).map_err(Fault::NotInShard)?;
        let (leaf, index) = (tree::shard_leaf(shard), u64::from(shard.shard.0));
        tree::verify_inclusion(leaf, index, u64::from(genesis.shard_count), shards, header.shards)
            .map_err(Fault::NotInHeader)
    }

    fn check_times(&mut self, entries: &[EvidenceEntry], place: &dyn Fn(Seq) -> Place) {
        let header = self.evidence.header.time;
        let mut earliest = self.evidence.genesis.created_at;
        for entry in entries {
            let time = entry.position.time;
            let place = place(entry.position.seq);
            if time < earliest {
                self.time.push(finding(place, Fault::TimeBackwards { time, earliest }));
            }
            if time > header {
                self.time.push(finding(place, Fault::TimeAfterHeader { time, header }));
            }
            earliest = time;
        }
    }

    /// Envelopes and contents, where they are given.
    fn check_parts(&mut self, bodies: &[Option<Body>]) {
        for (entry, body) in self.evidence.thread.entries.iter().zip(bodies) {
            let place = Place::Entry(entry.position.seq);
            let (envelope, content) = match body.as_ref().map(|body| &body.payload) {
                Some(Payload::Message { envelope, content, .. }) => (Some(*envelope), Some(*content)),
                Some(Payload::Commit { envelope, .. }) => (Some(*envelope), None),
                _ => (None, None),
            };
            if let Some(given) = &entry.envelope {
                let fault = match envelope {
                    None => Some(Fault::NoSuchPart),
                    Some(recorded) => {
                        (digest::envelope_digest(given) != recorded).then_some(Fault::OtherEnvelope)
                    }
                };
                self.envelope.extend(fault.map(|fault| finding(place, fault)));
            }
            if let Some(given) = &entry.disclosure {
                let fault = match content {
                    None => Some(Fault::NoSuchPart),
                    Some(recorded) if digest::content_commitment(&given.k, &given.content) != recorded => {
                        Some(Fault::OtherContent)
                    }
                    Some(_) => {
                        let id = body.as_ref().map(|body| body.message_id);
                        (content_message_id(&given.content) != id).then_some(Fault::RefusedContent)
                    }
                };
                self.content.extend(fault.map(|fault| finding(place, fault)));
            }
        }
        // The accounts' entries have no such parts.
        for account in &self.evidence.accounts {
            for entry in &account.entries {
                let place = Place::AccountEntry(account.account, entry.position.seq);
                if entry.envelope.is_some() {
                    self.envelope.push(finding(place, Fault::NoSuchPart));
                }
                if entry.disclosure.is_some() {
                    self.content.push(finding(place, Fault::NoSuchPart));
                }
            }
        }
    }

    fn name_of(&self, author: &Author) -> Option<String> {
        let Author::Device(member) = author else { return None };
        let account = self.evidence.accounts.iter().find(|account| account.account == member.account)?;
        account.name.as_ref().map(|given| given.name.clone())
    }

    fn report(&mut self, stake: Option<crate::certificate::SignedStake>, bodies: &[Option<Body>]) -> Report {
        let Evidence { genesis, header, certificate, thread, .. } = self.evidence;
        let mut custody = Vec::new();
        if !self.certificate.is_empty() {
            for verdict in
                [&mut self.recorded, &mut self.author, &mut self.time, &mut self.complete, &mut custody]
            {
                verdict.insert(0, finding(Place::Header, Fault::NotCertified));
            }
        }
        let validators = Arc::clone(self.system.validators_at(header.time));
        let signers = certificate.signatures.iter().filter_map(|signature| {
            let validator = validators.iter().find(|validator| validator.appliance == signature.validator)?;
            let (appliance, stake, custody) = (validator.appliance, validator.stake, validator.custody);
            let activated = self.system.activation(&validator.consensus).map(|activation| {
                let name = |key: &Hash| {
                    let officer = genesis.officers.iter().find(|officer| officer.key == *key)?;
                    Some(officer.name.clone())
                };
                SignerActivation {
                    time: activation.time,
                    officers: activation.officers.iter().filter_map(name).collect(),
                }
            });
            Some(Signer { appliance, stake, custody, activated })
        });
        let signers: Vec<Signer> = signers.collect();
        let entries: Vec<EntryReport> = thread
            .entries
            .iter()
            .zip(bodies)
            .map(|(entry, body)| EntryReport {
                seq: entry.position.seq,
                hash: entry.hash(),
                ledger_time: entry.position.time,
                sent_at: body.as_ref().map(|body| body.sent_at),
                kind: body.as_ref().map(|body| body.payload.kind()),
                author: body.as_ref().map(|body| body.author),
                name: body.as_ref().and_then(|body| self.name_of(&body.author)),
                has_envelope: entry.envelope.is_some(),
                content: entry.disclosure.as_ref().map(|disclosure| disclosure.content.clone()),
            })
            .collect();
        let included = |any: bool, findings: &mut Vec<Finding>| match Verdict::of(std::mem::take(findings)) {
            Verdict::Ok if !any => Verdict::NotIncluded,
            verdict => verdict,
        };
        let any_envelope = entries.iter().any(|entry| entry.has_envelope);
        let any_content = entries.iter().any(|entry| entry.content.is_some());
        let reaches_head = matches!(thread.anchor, Anchor::Head(_));
        if !reaches_head {
            self.complete.clear();
        }
        Report {
            network: genesis.network.clone(),
            genesis: self.genesis,
            lab: genesis.lab,
            height: header.height,
            header: digest::header_hash(header),
            header_time: header.time,
            suite: header.suite,
            round: certificate.round,
            stake: stake.filter(|_| self.certificate.is_empty()),
            signers,
            thread: thread.thread,
            suites: Verdict::of(std::mem::take(&mut self.suites)),
            certificate: Verdict::of(std::mem::take(&mut self.certificate)),
            recorded: Verdict::of(std::mem::take(&mut self.recorded)),
            author: Verdict::of(std::mem::take(&mut self.author)),
            envelope: included(any_envelope, &mut self.envelope),
            content: included(any_content, &mut self.content),
            time: Verdict::of(std::mem::take(&mut self.time)),
            custody: Verdict::of(custody),
            complete: included(reaches_head, &mut self.complete),
            entries,
        }
    }
}

/// Checks that entries follow one another from `first` on, and returns the last one.
fn check_chain(
    entries: &[EvidenceEntry],
    first: Seq,
    place: &dyn Fn(Seq) -> Place,
    faults: &mut Vec<Finding>,
) -> Head {
    let mut expected = first;
    let mut before = (first == Seq(0)).then_some(Hash::ZERO);
    let mut head = Head { seq: first, hash: Hash::ZERO };
    for entry in entries {
        let position = &entry.position;
        if position.seq != expected {
            faults.push(finding(place(position.seq), Fault::OutOfOrder { expected }));
        } else if before.is_some_and(|before| before != position.prev) {
            faults.push(finding(place(position.seq), Fault::BrokenLink));
        }
        head = Head { seq: position.seq, hash: entry.hash() };
        before = Some(head.hash);
        expected = position.seq.next();
    }
    head
}

/// Checks the author's counter against the ledger's rule: 0, 1, 2, … for each author in a thread.
fn check_counter(counters: &mut Counters, body: &Body) -> Result<(), Fault> {
    counters.take(&body.author, body.counter).map_err(Fault::Refused)
}

const fn finding(place: Place, fault: Fault) -> Finding {
    Finding { place, fault }
}

/// The message that a content says it belongs to: the third item of its array. What a content is beyond that is the
/// clients' affair; they refuse one that names another message than its entry.
fn content_message_id(content: &[u8]) -> Option<MessageId> {
    scan("message content", content).ok()?;
    let mut decoder = minicbor::Decoder::new(content);
    decoder.array().ok()?;
    let (version, _kind) = (decoder.u64().ok()?, decoder.u64().ok()?);
    (version == 1).then(|| decoder.decode().ok()).flatten()
}
