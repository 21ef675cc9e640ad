//! The system thread: what officers decided about the appliances' keys, and the validators and enrollers that follow
//! from it. The network begins with those of its genesis.

use crate::evidence::Signature;
use crate::state::Refusal;
use minicbor::{Decode, Encode};
use std::sync::Arc;
use thiserror::Error;
use zixt_ceremony::{CeremonyError, OfficerRule, judge};
use zixt_crypto::{Backend, digest};
use zixt_types::{
    Action, ApplianceId, Approval, Author, Body, Canonical, CustodyMode, Decision, EntryPosition, Genesis,
    Hash, Head, KeyPurpose, MessageId, ParseError, Payload, Seq, Timestamp, Transcript, Validator,
};

/// An enroller, present or past.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Enroller {
    /// Hash of its key.
    #[n(0)]
    pub key: Hash,
    /// Ledger time of its activation; `None` for one of the genesis.
    #[n(1)]
    pub from: Option<Timestamp>,
    /// Ledger time at which another key took its place.
    #[n(2)]
    pub until: Option<Timestamp>,
}

/// Validators and enrollers after the officers' decisions so far. Built only by replaying the system thread, on the
/// server, on clients and in evidence alike.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct System {
    /// The validator set, ascending by appliance. The height whose batch records an activation is certified by the set
    /// after it.
    #[n(0)]
    pub validators: Vec<Validator>,
    /// All enrollers that there are and were, in order of appointment.
    #[n(1)]
    pub enrollers: Vec<Enroller>,
    /// Every key that was ever activated. With the keys of the genesis: none of them comes back.
    #[n(2)]
    activated: Vec<Hash>,
    /// The number of each appliance's last decision, ascending by appliance.
    #[n(3)]
    sequences: Vec<(ApplianceId, u64)>,
}

impl System {
    /// As the genesis has it.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        let enroller = |key: &Hash| Enroller { key: *key, from: None, until: None };
        Self {
            validators: genesis.validators.clone(),
            enrollers: genesis.enrollers.iter().map(enroller).collect(),
            activated: Vec::new(),
            sequences: Vec::new(),
        }
    }

    /// A validator.
    #[must_use]
    pub fn validator(&self, appliance: &ApplianceId) -> Option<&Validator> {
        self.validators.iter().find(|validator| validator.appliance == *appliance)
    }

    /// Whether a key was an enroller's when an entry of this ledger time was judged. What a height records counts from
    /// the next one on, which has a later time.
    #[must_use]
    pub fn appoints(&self, key: &Hash, time: Timestamp) -> bool {
        self.enrollers.iter().any(|enroller| {
            enroller.key == *key
                && enroller.from.is_none_or(|from| from < time)
                && enroller.until.is_none_or(|until| time <= until)
        })
    }

    /// The number of an appliance's last decision.
    #[must_use]
    pub fn sequence(&self, appliance: &ApplianceId) -> Option<u64> {
        self.sequences.iter().find(|(known, _)| known == appliance).map(|(_, sequence)| *sequence)
    }

    /// Applies a decision that officers approved. Activations of consensus and enroller keys change who may act; all
    /// other decisions are facts of a key's life, and only count.
    ///
    /// # Errors
    /// The decision is not valid in this state; nothing is changed.
    pub fn apply(&mut self, genesis: &Genesis, action: &Action, time: Timestamp) -> Result<(), Refusal> {
        let appliance = action.appliance;
        let validator = self.validator(&appliance).ok_or(Refusal::UnknownAppliance(appliance))?;
        if let Some(last) = self.sequence(&appliance).filter(|last| action.sequence <= *last) {
            return Err(Refusal::DecisionReplayed { last, got: action.sequence });
        }
        if let Decision::ActivateKey { purpose, retires, activates, suite, custody } = &action.decision {
            if !genesis.suites.contains(suite) {
                return Err(Refusal::SuiteNotAllowed);
            }
            if self.is_used(genesis, activates) {
                return Err(Refusal::KeyUsedBefore(*activates));
            }
            if *custody == CustodyMode::Software && !genesis.lab {
                return Err(Refusal::SoftwareKey);
            }
            match purpose {
                KeyPurpose::Consensus => {
                    if *suite != genesis.suite() {
                        return Err(Refusal::SuiteNotAllowed);
                    }
                    if validator.consensus != *retires {
                        return Err(Refusal::NotThePresentKey { present: validator.consensus });
                    }
                    let next = Validator { consensus: *activates, custody: *custody, ..validator.clone() };
                    for validator in self.validators.iter_mut().filter(|v| v.appliance == appliance) {
                        validator.clone_from(&next);
                    }
                }
                KeyPurpose::Enroller => {
                    let present = self.enrollers.iter_mut().find(|enroller| enroller.until.is_none());
                    let present_key = present.map_or(Hash::ZERO, |enroller| enroller.key);
                    let retired = self
                        .enrollers
                        .iter_mut()
                        .find(|enroller| enroller.key == *retires && enroller.until.is_none())
                        .ok_or(Refusal::NotThePresentKey { present: present_key })?;
                    retired.until = Some(time);
                    self.enrollers.push(Enroller { key: *activates, from: Some(time), until: None });
                }
                // Recorded; the genesis' TLS pins and identities stand until clients can follow a change of them.
                KeyPurpose::Identity | KeyPurpose::Tls => {}
            }
            self.activated.push(*activates);
        }
        match self.sequences.iter_mut().find(|(known, _)| *known == appliance) {
            Some((_, sequence)) => *sequence = action.sequence,
            None => self.sequences.push((appliance, action.sequence)),
        }
        self.sequences.sort_unstable_by_key(|(appliance, _)| *appliance);
        Ok(())
    }

    /// Whether the genesis names this key, or it was activated before.
    fn is_used(&self, genesis: &Genesis, key: &Hash) -> bool {
        let identity = digest::appliance_id(*key);
        genesis.organisation == *key
            || genesis.officers.iter().any(|officer| officer.key == *key)
            || genesis.enrollers.contains(key)
            || genesis
                .validators
                .iter()
                .any(|known| known.consensus == *key || known.tls == *key || known.appliance == identity)
            || self.activated.contains(key)
    }
}

/// The transcript that an entry of the system thread carries: the action stands in its body, the approvals in the place
/// of its signature. A prefix of the transcript's encoding and they are the whole of it.
#[must_use]
pub fn transcript_bytes(action: &Action, approvals: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    let begun =
        encoder.array(3).and_then(|e| e.u64(Transcript::VERSION)).and_then(|e| e.bytes(&action.to_bytes()));
    if begun.is_err() {
        unreachable!("encoding to memory");
    }
    bytes.extend_from_slice(approvals);
    bytes
}

/// The approvals of a transcript as they stand in the place of an entry's signature.
#[must_use]
pub fn approvals_bytes(approvals: &[Approval]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(approvals, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => unreachable!("encoding to memory"),
    }
}

/// The body under which a decision is recorded as entry `seq` of the system thread. Nothing in it is left to choose.
#[must_use]
pub fn decision_body(genesis: &Genesis, genesis_hash: Hash, seq: Seq, action: Action) -> Body {
    let mut message_id = [0; MessageId::LEN];
    let named = digest::action_hash(&action);
    message_id.iter_mut().zip(named.as_ref()).for_each(|(to, from)| *to = *from);
    Body {
        version: Body::VERSION,
        suite: genesis.suite(),
        genesis: genesis_hash,
        thread: digest::system_thread(genesis_hash),
        author: Author::Officers,
        counter: seq.0,
        message_id: MessageId(message_id),
        sent_at: Timestamp(0),
        last_seen: None,
        payload: Payload::Decision { action },
    }
}

/// Why an entry does not continue the system thread.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SystemFault {
    /// The body is malformed.
    #[error(transparent)]
    Body(#[from] ParseError),
    /// It is no decision of this network's officers.
    #[error("it is no entry of this network's system thread")]
    OtherThread,
    /// It does not follow the entry before it.
    #[error("it does not follow the entry before it: one is missing, was changed or stands out of order")]
    BrokenChain,
    /// The officers' approvals are not good or not enough.
    #[error("the officers' approvals: {0}")]
    Approvals(#[source] CeremonyError),
    /// The approvals are given as a digest only, but the decision changes who may act.
    #[error("its approvals are given as digest only, but it changes who may act")]
    ApprovalsLeftOut,
    /// The ledger's rules refuse it.
    #[error("the ledger's rules refuse it: {0}")]
    Refused(#[source] Refusal),
}

/// The activation of a key, as a reader of the system thread knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Activation {
    /// The appliance.
    pub appliance: ApplianceId,
    /// What the key is for.
    pub purpose: KeyPurpose,
    /// Hash of the key.
    pub key: Hash,
    /// Ledger time of its activation.
    pub time: Timestamp,
    /// Who approved: hashes of the officers' keys, ascending.
    pub officers: Vec<Hash>,
}

/// The system thread as somebody follows it who has its entries: every approval is checked, every rule applied. That the
/// chain is the certified one is for the caller to compare.
#[derive(Clone, Debug)]
pub struct SystemThread {
    system: System,
    head: Option<Head>,
    /// The sets so far, each with the ledger time from which on it certifies; the first from the beginning.
    sets: Vec<(Timestamp, Arc<Vec<Validator>>)>,
    activations: Vec<Activation>,
}

impl SystemThread {
    /// Before its first entry.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        Self {
            system: System::new(genesis),
            head: None,
            sets: vec![(Timestamp(0), Arc::new(genesis.validators.clone()))],
            activations: Vec::new(),
        }
    }

    /// Takes the next entry. `approvals` may be a digest where the decision changes nothing of who may act.
    ///
    /// # Errors
    /// See [`SystemFault`]; nothing is changed.
    pub fn append(
        &mut self,
        genesis: &Genesis,
        body: &[u8],
        approvals: &Signature,
        position: &EntryPosition,
        backend: &dyn Backend,
    ) -> Result<(), SystemFault> {
        let genesis_hash = digest::genesis_hash(genesis);
        let parsed = Body::parse(body)?;
        let Payload::Decision { action } = &parsed.payload else { return Err(SystemFault::OtherThread) };
        let (seq, prev) = self.head.map_or((Seq(0), Hash::ZERO), |head| (head.seq.next(), head.hash));
        let later = self.sets.last().is_none_or(|(since, _)| *since <= position.time);
        if (position.seq, position.prev) != (seq, prev) || !later {
            return Err(SystemFault::BrokenChain);
        }
        if parsed != decision_body(genesis, genesis_hash, seq, action.clone()) {
            return Err(SystemFault::OtherThread);
        }
        let officers = match approvals {
            Signature::Full(approvals) => {
                let transcript = transcript_bytes(action, approvals);
                let approved = judge(&transcript, &OfficerRule::of(genesis), genesis_hash, backend);
                approved.map_err(SystemFault::Approvals)?.officers().to_vec()
            }
            Signature::Digest(_) if changes_sets(&action.decision) => {
                return Err(SystemFault::ApprovalsLeftOut);
            }
            Signature::Digest(_) => Vec::new(),
        };
        self.system.apply(genesis, action, position.time).map_err(SystemFault::Refused)?;
        if let Decision::ActivateKey { purpose, activates, .. } = &action.decision {
            self.activations.push(Activation {
                appliance: action.appliance,
                purpose: *purpose,
                key: *activates,
                time: position.time,
                officers,
            });
            if *purpose == KeyPurpose::Consensus {
                self.sets.push((position.time, Arc::new(self.system.validators.clone())));
            }
        }
        let hash = digest::entry_hash(body, approvals.digest(), None, position);
        self.head = Some(Head { seq, hash });
        Ok(())
    }

    /// The state after the last entry.
    #[must_use]
    pub const fn system(&self) -> &System {
        &self.system
    }

    /// The last entry.
    #[must_use]
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// The validators who certify a header of this ledger time, as far as the entries so far tell.
    #[must_use]
    pub fn validators_at(&self, time: Timestamp) -> &Arc<Vec<Validator>> {
        // Of several activations at one height the last counts: the set after its batch.
        let since = self.sets.iter().rev().find(|(since, _)| *since <= time);
        let (_, set) = since.unwrap_or(&self.sets[0]);
        set
    }

    /// All sets so far, the genesis' first.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<Vec<Validator>>> {
        self.sets.iter().map(|(_, set)| set)
    }

    /// How a key was activated; `None` for one of the genesis.
    #[must_use]
    pub fn activation(&self, key: &Hash) -> Option<&Activation> {
        self.activations.iter().find(|activation| activation.key == *key)
    }

    /// All activations, in order.
    #[must_use]
    pub fn activations(&self) -> &[Activation] {
        &self.activations
    }
}

/// Whether a decision changes who may certify or invite.
#[must_use]
pub const fn changes_sets(decision: &Decision) -> bool {
    matches!(decision, Decision::ActivateKey { purpose: KeyPurpose::Consensus | KeyPurpose::Enroller, .. })
}
