//! The states, with protectors in memory.

mod anchors;
mod leftovers;
mod officers;
mod rollback;

use super::*;
use crate::backend::WrappedSeed;
use crate::protector::testing::{PIN, TestProtector};
use crate::state::faults;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use zixt_ceremony::RecoveryRequest;
use zixt_crypto::{Reference, SigningKey, SigningSeed, digest};
use zixt_hsm_protocol::{Blob, Card, KeyPurpose, KeyStatus, NamedPin, TokenInfo};
use zixt_types::{
    Action, Canonical, CustodyMode, Decision, Genesis, Hash, Height, Officer, ProtectorKind, RotationPolicy,
    Round, ShareHolder, SuiteId, Validator, Vote, VoteStep,
};

/// A protector that the test can look at while the service has it.
pub(super) struct Shared(pub(super) Arc<TestProtector>);

impl Protector for Shared {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn kind(&self) -> ProtectorKind {
        self.0.kind()
    }
    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        self.0.describe()
    }
    fn is_open(&self) -> bool {
        self.0.is_open()
    }
    fn open(&self, enrolment: Option<&[u8]>, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
        self.0.open(enrolment, pin, pin_try)
    }
    fn close(&self) {
        self.0.close();
    }
    fn enrol(&self, previous: Option<&[u8]>) -> Result<crate::protector::Enrolled, CustodyError> {
        self.0.enrol(previous)
    }
    fn wrap(&self, enrolment: &[u8], aad: &[u8], root: &[u8; 32]) -> Result<Vec<u8>, CustodyError> {
        self.0.wrap(enrolment, aad, root)
    }
    fn unwrap(
        &self,
        enrolment: &[u8],
        aad: &[u8],
        wrapped: &[u8],
    ) -> Result<crate::protector::Unwrapped, CustodyError> {
        self.0.unwrap(enrolment, aad, wrapped)
    }
    fn anchor(&self, enrolment: &[u8], counter_auth: Option<&[u8]>) -> Result<Option<u64>, CustodyError> {
        self.0.anchor(enrolment, counter_auth)
    }
    fn advance(&self, enrolment: &[u8], counter_auth: Option<&[u8]>, to: u64) -> Result<(), CustodyError> {
        self.0.advance(enrolment, counter_auth, to)
    }
    fn erase(
        &self,
        enrolment: &[u8],
        auths: crate::protector::Auths<'_>,
    ) -> Result<crate::protector::Erased, CustodyError> {
        self.0.erase(enrolment, auths)
    }
    fn strays(&self, known: &[&[u8]]) -> Result<Vec<String>, CustodyError> {
        self.0.strays(known)
    }
    fn change_pin(
        &self,
        enrolment: &[u8],
        old: &Pin,
        new: &Pin,
    ) -> Result<crate::protector::PinChange, CustodyError> {
        self.0.change_pin(enrolment, old, new)
    }
}

/// A custody on a disk, with two protectors, that can be restarted.
struct Box_ {
    folder: tempfile::TempDir,
    protectors: Vec<Arc<TestProtector>>,
}

impl Box_ {
    fn new() -> Self {
        Self::with(["first", "second"].map(TestProtector::named))
    }

    fn with(protectors: impl IntoIterator<Item = TestProtector>) -> Self {
        let protectors = protectors.into_iter().map(Arc::new).collect();
        Self { folder: tempfile::tempdir().unwrap(), protectors }
    }

    /// What officers approve of the second protector.
    fn second(&self, service: &Service) -> Decision {
        let info = self.protectors[1].describe().unwrap();
        let custody = service.read().record().unwrap().custody;
        Decision::AddProtector {
            protector: crate::state::protector_id(custody, ProtectorKind::Pkcs11, &info),
            kind: ProtectorKind::Pkcs11,
            description: status::description(&info),
        }
    }

    fn folder(&self) -> DiskFolder {
        DiskFolder(self.folder.path().to_owned())
    }

    /// A daemon that starts now.
    fn start(&self) -> Service {
        self.start_with(&self.protectors)
    }

    fn start_with(&self, protectors: &[Arc<TestProtector>]) -> Service {
        protectors.iter().for_each(|protector| protector.close());
        let shared =
            |protector: &Arc<TestProtector>| Arc::new(Shared(Arc::clone(protector))) as Arc<dyn Protector>;
        let devices = Devices {
            protectors: protectors.iter().map(shared).collect(),
            keys: Box::new(WrappedSeed::new(Box::new(Reference))),
            crypto: Box::new(Reference),
        };
        let custody = Custody::read(&self.folder()).unwrap();
        Service::new(self.folder(), devices, UnlockMode::Attended, custody)
    }

    /// A daemon with keys and a genesis whose officers are 1, 2 and 3, of whom two decide.
    fn operational(&self) -> (Service, Genesis) {
        let service = self.start();
        unlock(&service);
        let genesis = genesis(&service.provision(SuiteId::Standard, true).unwrap(), true);
        service.bind_genesis(&genesis.to_bytes()).unwrap();
        assert_eq!(service.status().state, StateKind::Operational);
        (service, genesis)
    }
}

/// A genesis that tells the truth about these keys.
pub(super) fn genesis(keys: &[zixt_hsm_protocol::KeyInfo], lab: bool) -> Genesis {
    let hash = |purpose| keys.iter().find(|key| key.purpose == purpose).unwrap().hash;
    Genesis {
        version: 1,
        suites: vec![SuiteId::Standard],
        network: "lab".to_owned(),
        organisation: Hash([1; 48]),
        officers: (1..=3).map(|n| Officer { name: format!("officer {n}"), key: officer_hash(n) }).collect(),
        officers_required: 2,
        enrollers: vec![hash(KeyPurpose::Enroller)],
        validators: vec![Validator {
            appliance: digest::appliance_id(hash(KeyPurpose::Identity)),
            consensus: hash(KeyPurpose::Consensus),
            tls: hash(KeyPurpose::Tls),
            stake: 1,
            custody: CustodyMode::WrappedByToken,
        }],
        shard_count: 1,
        unlock: UnlockMode::Attended,
        lab,
        rotation: RotationPolicy { messages_max: 100, age_ms_max: 1000 },
        created_at: Timestamp(1),
        nonce: [3; 32],
    }
}

pub(super) fn pin() -> Pin {
    Pin::new(PIN.to_owned()).unwrap()
}

fn pins() -> Vec<NamedPin> {
    ["first", "second"].map(|name| NamedPin { protector: name.to_owned(), pin: pin() }).to_vec()
}

fn unlock(service: &Service) -> StateKind {
    service.unlock(&pin(), None, PinTry::Attended).unwrap()
}

fn officer(number: u8) -> Box<dyn SigningKey> {
    zixt_crypto::Backend::signing_key(&Reference, SuiteId::Standard, &SigningSeed::from_bytes(&[number; 32]))
        .unwrap()
}

fn officer_hash(number: u8) -> Hash {
    digest::key_hash(SuiteId::Standard, officer(number).public_key())
}

/// A decision that officers approve, for what custody would take now.
fn approved(service: &Service, decision: Decision, officers: &[u8]) -> Vec<u8> {
    let status = service.status();
    let action = Action {
        version: 1,
        genesis: status.genesis.unwrap(),
        appliance: status.appliance.unwrap(),
        sequence: status.sequence,
        expires_at: Timestamp(now().0 + 60_000),
        decision,
    };
    signed(&action, officers)
}

fn signed(action: &Action, officers: &[u8]) -> Vec<u8> {
    let bytes = action.to_bytes();
    let approvals = officers.iter().map(|n| zixt_ceremony::approve(&bytes, &*officer(*n)).unwrap()).collect();
    zixt_ceremony::assemble(&bytes, approvals, &Reference).unwrap().to_bytes()
}

pub(super) fn vote(genesis: &Genesis, height: u64, value: u8) -> Vec<u8> {
    Vote {
        version: 1,
        suite: genesis.suite(),
        genesis: digest::genesis_hash(genesis),
        height: Height(height),
        round: Round(0),
        step: VoteStep::Precommit,
        header: Some(Hash([value; 48])),
    }
    .to_bytes()
}

fn sign(service: &Service, vote: &[u8]) -> Result<VoteOutcome, CustodyError> {
    service.with_keys(|keys| keys.sign_vote(vote))
}

fn activation(service: &Service, purpose: KeyPurpose) -> Decision {
    let status = service.status();
    let of = |wanted| status.keys.iter().find(|key| key.purpose == purpose && key.status == wanted).unwrap();
    let new = of(KeyStatus::Pending);
    Decision::ActivateKey {
        purpose,
        retires: of(KeyStatus::Active).hash,
        activates: new.hash,
        suite: new.suite,
        custody: new.custody,
    }
}

#[test]
fn locking_closes_every_protector_in_every_state() {
    for custody in [
        Custody::Unprovisioned(Held::Nothing),
        Custody::Quarantined("votes".to_owned(), Held::Nothing),
        Custody::Failed("disk".to_owned()),
    ] {
        let (of, kind) = (Box_::new(), custody.kind());
        let service = of.start();
        *service.write() = custody;
        of.protectors[1].open(None, &pin(), PinTry::Attended).unwrap();
        assert_eq!(service.answer(&Request::Lock), Response::Locked);
        assert_eq!((of.protectors[1].is_open(), service.status().state), (false, kind));
    }
    let of = Box_::new();
    let (service, _) = of.operational();
    assert!(of.protectors[0].is_open());
    service.lock().unwrap();
    assert_eq!((of.protectors[0].is_open(), service.status().state), (false, StateKind::Locked));
    assert_eq!(unlock(&service), StateKind::Operational);
}

#[test]
fn a_guard_that_fails_closes_the_protectors() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let failed = service.with_keys::<()>(|_| Err(CustodyError::Storage { detail: "disk".to_owned() }));
    assert!(failed.is_err());
    assert_eq!((of.protectors[0].is_open(), service.status().state), (false, StateKind::Failed));
}

#[test]
fn a_token_whose_key_does_not_sign_is_looked_for() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let fail = |service: &Service| {
        let failed = service.with_keys::<()>(|_| Err(CustodyError::TokenFailed { detail: "key".to_owned() }));
        failed.unwrap_err().code()
    };
    assert_eq!((fail(&service), service.status().state), ("custody-token-failed", StateKind::Operational));
    of.protectors[0].gone.store(true, Ordering::Relaxed);
    assert_eq!((fail(&service), service.status().state), ("custody-token-absent", StateKind::Locked));
    assert!(!of.protectors[0].is_open());
    of.protectors[0].gone.store(false, Ordering::Relaxed);
    assert!(service.status().reason.contains("the token is absent"));
    assert_eq!(unlock(&service), StateKind::Operational);
    assert_eq!(service.status().reason, "");
}

/// An approval is good once, whatever the clock says afterwards; one that was never used is, if it is set back in time.
#[test]
fn a_clock_that_is_set_back_makes_no_decision_good_twice() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let transcript = approved(&service, Decision::RotateRoot, &[1, 2]);
    let record = service.read().record().unwrap().clone();
    let late = Timestamp(now().0 + 120_000);
    let judged =
        |record: &CustodyRecord, at| service.judge(record, &transcript, at).map(|_| ()).map_err(|e| e.code());
    assert_eq!(judged(&record, late), Err("custody-not-approved"), "too late");
    assert_eq!(judged(&record, Timestamp(1)), Ok(()), "a clock that is set back");
    service.decide(&transcript, &pins(), &[]).unwrap();
    let record = service.read().record().unwrap().clone();
    for at in [Timestamp(1), now(), late] {
        assert_eq!(judged(&record, at), Err("custody-not-approved"), "good once");
    }
}

#[test]
fn any_protector_opens_custody() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let info = of.protectors[1].describe().unwrap();
    let custody = service.read().record().unwrap().custody;
    let add = Decision::AddProtector {
        protector: crate::state::protector_id(custody, ProtectorKind::Pkcs11, &info),
        kind: ProtectorKind::Pkcs11,
        description: status::description(&info),
    };
    let none = service.add_protector("second", &pin(), None);
    assert!(matches!(none, Err(CustodyError::NotApproved { .. })), "{none:?}");
    let other = approved(&service, Decision::RotateRoot, &[1, 2]);
    assert!(matches!(
        service.add_protector("second", &pin(), Some(&other)),
        Err(CustodyError::NotApproved { .. })
    ));
    let transcript = approved(&service, add, &[1, 3]);
    service.add_protector("second", &pin(), Some(&transcript)).unwrap();
    let again = service.add_protector("second", &pin(), Some(&transcript));
    assert!(matches!(again, Err(CustodyError::WrongProtector { .. })), "{again:?}");
    assert_eq!(service.decisions(0).unwrap()[0].transcript, transcript);

    for name in ["first", "second"] {
        let service = of.start();
        assert_eq!(
            service.unlock(&pin(), Some(name), PinTry::Attended),
            Ok(StateKind::Operational),
            "{name}"
        );
        assert!(sign(&service, &vote(&genesis, 1, 1)).is_ok());
        service.shut_down();
    }
    let service = of.start();
    let unknown = service.unlock(&pin(), Some("third"), PinTry::Attended);
    assert!(matches!(unknown, Err(CustodyError::NoSuchProtector { .. })), "{unknown:?}");
}

/// Who knows the PIN of one protector gets no free tries of the other's.
#[test]
fn a_right_pin_of_one_protector_forgives_no_wrong_one_of_another() {
    let of = Box_::new();
    let (service, _) = of.operational();
    add_second(&of, &service);
    service.lock().unwrap();
    let wrong = Pin::new("654321".to_owned()).unwrap();
    let by = |name: &str, pin: &Pin| service.unlock(pin, Some(name), PinTry::Attended);
    assert_eq!(by("second", &wrong), Err(CustodyError::PinIncorrect));
    assert_eq!(by("first", &pin()), Ok(StateKind::Operational), "nor has one to wait for the other's");
    service.lock().unwrap();
    assert!(matches!(by("second", &pin()), Err(CustodyError::PinBackoff { .. })));
    assert!(service.status().reason.contains("1 wrong PINs of second"), "{}", service.status().reason);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(by("second", &pin()), Ok(StateKind::Operational));
}

#[test]
fn decisions_need_enough_officers_and_are_taken_once() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let refused = |transcript: &[u8]| match service.decide(transcript, &pins(), &[]) {
        Err(CustodyError::NotApproved { why }) => why,
        other => panic!("{other:?}"),
    };
    refused(&approved(&service, Decision::RotateRoot, &[1]));
    refused(&approved(&service, Decision::RotateRoot, &[1, 9]));
    let mut flipped = approved(&service, Decision::RotateRoot, &[1, 2]);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    refused(&flipped);
    let status = service.status();
    let action = |sequence, expires_at, genesis| Action {
        version: 1,
        genesis,
        appliance: status.appliance.unwrap(),
        sequence,
        expires_at,
        decision: Decision::RotateRoot,
    };
    let (soon, genesis) = (Timestamp(now().0 + 60_000), status.genesis.unwrap());
    refused(&signed(&action(1, soon, genesis), &[1, 2]));
    refused(&signed(&action(0, Timestamp(now().0 - 1), genesis), &[1, 2]));
    refused(&signed(&action(0, soon, Hash([9; 48])), &[1, 2]));
    assert_eq!(service.status().sequence, 0);

    let good = approved(&service, Decision::RotateRoot, &[1, 2]);
    service.decide(&good, &pins(), &[]).unwrap();
    refused(&good);
    assert_eq!(service.status().sequence, 1);
}

#[test]
fn a_rotated_root_leaves_the_old_state_unreadable() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let old = std::fs::read(of.folder().path(STATE_FILE)).unwrap();
    let done = service.decide(&approved(&service, Decision::RotateRoot, &[1, 2]), &[], &[]).unwrap();
    assert!(done.iter().any(|line| line.contains("first: its old wrapping key is destroyed")), "{done:?}");
    assert!(sign(&service, &vote(&genesis, 1, 1)).is_ok(), "it goes on signing");
    service.shut_down();
    assert_eq!(unlock(&of.start()), StateKind::Operational);
    // Whoever kept the old file has nothing that opens it.
    std::fs::write(of.folder().path(STATE_FILE), old).unwrap();
    let opened = of.start().unlock(&pin(), None, PinTry::Attended);
    assert!(matches!(opened, Err(CustodyError::KekMissing { .. })), "{opened:?}");
}

#[test]
fn a_protector_is_removed_and_the_last_one_is_not() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let id = service.status().protectors[0].id.unwrap();
    let last =
        service.decide(&approved(&service, Decision::RemoveProtector { protector: id }, &[1, 2]), &[], &[]);
    assert!(matches!(last, Err(CustodyError::WrongProtector { .. })), "{last:?}");
    let info = of.protectors[1].describe().unwrap();
    let add = Decision::AddProtector {
        protector: service.status().protectors[1].id.unwrap(),
        kind: ProtectorKind::Pkcs11,
        description: status::description(&info),
    };
    service.add_protector("second", &pin(), Some(&approved(&service, add, &[2, 3]))).unwrap();
    service.lock().unwrap();
    service.unlock(&pin(), Some("second"), PinTry::Attended).unwrap();
    // The first one is lost: nobody gives its PIN.
    let done = service
        .decide(&approved(&service, Decision::RemoveProtector { protector: id }, &[1, 2]), &[], &[])
        .unwrap();
    assert!(done.iter().any(|line| line.contains("first")), "{done:?}");
    let status = service.status();
    assert_eq!((status.protectors[0].name.as_str(), status.sequence), ("second", 2));
    let service = of.start();
    let removed = service.unlock(&pin(), Some("first"), PinTry::Attended);
    assert!(matches!(removed, Err(CustodyError::WrongProtector { .. })), "{removed:?}");
    assert_eq!(unlock(&service), StateKind::Operational);
}

#[test]
fn a_rotation_needs_every_protector() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let info = of.protectors[1].describe().unwrap();
    let add = Decision::AddProtector {
        protector: service.status().protectors[1].id.unwrap(),
        kind: ProtectorKind::Pkcs11,
        description: status::description(&info),
    };
    service.add_protector("second", &pin(), Some(&approved(&service, add, &[2, 3]))).unwrap();
    service.lock().unwrap();
    unlock(&service);
    let transcript = approved(&service, Decision::RotateRoot, &[1, 2]);
    let missing = service.decide(&transcript, &[], &[]);
    assert!(matches!(&missing, Err(CustodyError::PinsMissing { names }) if names == "second"), "{missing:?}");
    service.decide(&transcript, &pins(), &[]).unwrap();
    for name in ["first", "second"] {
        assert_eq!(of.start().unlock(&pin(), Some(name), PinTry::Attended), Ok(StateKind::Operational));
    }
}

#[test]
fn a_consensus_key_is_rotated_and_the_guard_goes_on() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let first = vote(&genesis, 7, 1);
    let Ok(VoteOutcome::Signed { .. }) = sign(&service, &first) else { panic!() };
    let old = service.status().key(KeyPurpose::Consensus).unwrap().clone();
    let new = service.generate_key(KeyPurpose::Consensus).unwrap();
    assert_eq!((new.version, new.status), (2, KeyStatus::Pending));
    assert!(
        service.generate_key(KeyPurpose::Tls).is_err() && service.generate_key(KeyPurpose::Identity).is_err()
    );
    let newer = service.generate_key(KeyPurpose::Consensus).unwrap();
    let gone = Decision::ActivateKey {
        purpose: KeyPurpose::Consensus,
        retires: old.hash,
        activates: new.hash,
        suite: new.suite,
        custody: new.custody,
    };
    let gone = service.decide(&approved(&service, gone, &[1, 2]), &[], &[]);
    assert!(matches!(gone, Err(CustodyError::NoSuchKey { .. })), "{gone:?}");
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    let status = service.status();
    assert_eq!(status.key(KeyPurpose::Consensus).unwrap().hash, newer.hash);
    assert_eq!((status.state, status.sequence), (StateKind::Operational, 1));
    let retired: Vec<_> = status.keys.iter().filter(|key| key.status == KeyStatus::Retired).collect();
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].hash, old.hash);

    // The same slots are taken, whatever the key.
    let conflict = sign(&service, &vote(&genesis, 7, 2)).unwrap();
    assert!(matches!(conflict, VoteOutcome::AlreadySigned { .. } | VoteOutcome::Refused(_)), "{conflict:?}");
    let next = vote(&genesis, 8, 1);
    let Ok(VoteOutcome::Signed { signature }) = sign(&service, &next) else { panic!() };
    let signed = digest::vote_bytes(&Vote::parse(&next).unwrap());
    zixt_crypto::Backend::verify(&Reference, SuiteId::Standard, &newer.public_key, &signed, &signature)
        .unwrap();

    let destroy = Decision::DestroyKey { purpose: KeyPurpose::Consensus, key: old.hash };
    service.decide(&approved(&service, destroy, &[1, 2]), &pins(), &[]).unwrap();
    assert!(service.status().keys.iter().all(|key| key.hash != old.hash));
    service.shut_down();
    assert_eq!(unlock(&of.start()), StateKind::Operational);
}

#[test]
fn state_that_was_set_back_is_quarantined_until_officers_decide() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    service.lock().unwrap();
    let old: Vec<_> = [STATE_FILE, crate::state::VOTES_FILE]
        .map(|name| (name, std::fs::read(of.folder().path(name)).unwrap()))
        .to_vec();
    unlock(&service);
    let Ok(VoteOutcome::Signed { .. }) = sign(&service, &vote(&genesis, 7, 1)) else { panic!() };
    service.shut_down();
    for (name, bytes) in &old {
        std::fs::write(of.folder().path(name), bytes).unwrap();
    }
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    assert!(service.status().reason.contains("rolled back"), "{}", service.status().reason);
    assert!(matches!(sign(&service, &vote(&genesis, 7, 2)), Err(CustodyError::Quarantined { .. })));
    service.shut_down();

    // It stays so, until a consensus key that no other machine has takes over.
    let service = of.start();
    assert_eq!(service.status().state, StateKind::Quarantined);
    assert!(matches!(service.generate_key(KeyPurpose::Consensus), Err(CustodyError::Quarantined { .. })));
    assert_eq!(unlock(&service), StateKind::Quarantined);
    let old = service.status().key(KeyPurpose::Consensus).unwrap().hash;
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let transcript = approved(&service, activation(&service, KeyPurpose::Consensus), &[1, 2]);
    service.decide(&transcript, &[], &[]).unwrap();
    assert_eq!(service.status().state, StateKind::Operational);
    assert_ne!(service.status().key(KeyPurpose::Consensus).unwrap().hash, old);
    let Ok(VoteOutcome::Signed { signature }) = sign(&service, &vote(&genesis, 7, 2)) else { panic!() };
    let public_key = service.status().key(KeyPurpose::Consensus).unwrap().public_key.clone();
    let signed = digest::vote_bytes(&Vote::parse(&vote(&genesis, 7, 2)).unwrap());
    zixt_crypto::Backend::verify(&Reference, SuiteId::Standard, &public_key, &signed, &signature).unwrap();
    service.shut_down();
    assert_eq!(unlock(&of.start()), StateKind::Operational);
}

/// It has to open, because only inside of it officers can end the quarantine.
#[test]
fn a_quarantined_state_that_is_set_back_again_opens_and_officers_end_it() {
    let (of, _) = set_back();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    let reason = service.status().reason;
    let kept = std::fs::read(of.folder().path(STATE_FILE)).unwrap();
    for _ in 0..2 {
        service.lock().unwrap();
        assert_eq!(unlock(&service), StateKind::Quarantined);
    }
    service.shut_down();
    std::fs::write(of.folder().path(STATE_FILE), kept).unwrap();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    assert_eq!(service.status().reason, reason, "the first one counts");
    let transcript = activate_consensus(&service);
    service.decide(&transcript, &[], &[]).unwrap();
    assert_eq!(service.status().state, StateKind::Operational);
}

/// Custody's state is older than the ledger: officers name the key that the ledger has, and a number that it takes.
#[test]
fn in_quarantine_officers_go_on_from_where_the_ledger_is() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let of_ledger = Hash([9; 48]);
    let numbered = |service: &Service, sequence, decision| {
        let action = Action {
            version: 1,
            genesis: service.status().genesis.unwrap(),
            appliance: service.status().appliance.unwrap(),
            sequence,
            expires_at: Timestamp(now().0 + 60_000),
            decision,
        };
        signed(&action, &[1, 2])
    };
    let ahead = |service: &Service, sequence, retired: Option<Hash>| {
        let mut decision = activation(service, KeyPurpose::Consensus);
        if let (Decision::ActivateKey { retires, .. }, Some(retired)) = (&mut decision, retired) {
            *retires = retired;
        }
        numbered(service, sequence, decision)
    };
    let next = service.status().sequence;
    // Not while it works.
    let decide = |service: &Service, transcript: &[u8]| service.decide(transcript, &[], &[]);
    assert!(matches!(
        decide(&service, &ahead(&service, next + 3, None)),
        Err(CustodyError::NotApproved { .. })
    ));
    assert!(matches!(
        decide(&service, &ahead(&service, next, Some(of_ledger))),
        Err(CustodyError::NoSuchKey { .. })
    ));
    service.lock().unwrap();
    let old: Vec<_> = [STATE_FILE, crate::state::VOTES_FILE]
        .map(|name| (name, std::fs::read(of.folder().path(name)).unwrap()))
        .to_vec();
    unlock(&service);
    service.shut_down();
    for (name, bytes) in &old {
        std::fs::write(of.folder().path(name), bytes).unwrap();
    }
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Quarantined);
    let made = service.generate_key(KeyPurpose::Consensus).unwrap().hash;
    // Only an activation may leave numbers out, and never go back.
    let rotate = numbered(&service, next + 3, Decision::RotateRoot);
    assert!(matches!(decide(&service, &rotate), Err(CustodyError::NotApproved { .. })));
    if let Some(before) = next.checked_sub(1) {
        let back = ahead(&service, before, Some(of_ledger));
        assert!(matches!(decide(&service, &back), Err(CustodyError::NotApproved { .. })));
    }
    let far = ahead(&service, u64::MAX, Some(of_ledger));
    assert!(matches!(decide(&service, &far), Err(CustodyError::NotApproved { .. })));
    let transcript = ahead(&service, next + 3, Some(of_ledger));
    decide(&service, &transcript).unwrap();
    let status = service.status();
    assert_eq!((status.state, status.sequence), (StateKind::Operational, next + 4));
    assert_eq!(status.key(KeyPurpose::Consensus).unwrap().hash, made);
    let taken: Vec<_> = service.decisions(0).unwrap();
    assert_eq!(taken.last().map(|taken| (taken.sequence, &taken.transcript)), Some((next + 3, &transcript)));
    let Ok(VoteOutcome::Signed { .. }) = sign(&service, &vote(&genesis, 7, 2)) else { panic!() };
}

#[test]
fn votes_that_were_set_back_alone_are_noticed_too() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let path = of.folder().path(crate::state::VOTES_FILE);
    let old = std::fs::read(&path).unwrap();
    let Ok(VoteOutcome::Signed { .. }) = sign(&service, &vote(&genesis, 7, 1)) else { panic!() };
    service.shut_down();
    std::fs::write(&path, old).unwrap();
    let service = of.start();
    let unlocked = service.unlock(&pin(), None, PinTry::Attended);
    assert!(
        matches!(&unlocked, Err(CustodyError::Quarantined { reason }) if reason.contains("set back")),
        "{unlocked:?}"
    );
    assert_eq!(of.start().status().state, StateKind::Quarantined);
}

#[test]
fn a_crash_between_state_and_anchor_is_no_rollback() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    let Ok(VoteOutcome::Signed { .. }) = sign(&service, &vote(&genesis, 7, 1)) else { panic!() };
    of.protectors[0].stuck.store(true, Ordering::Relaxed);
    // Written, and the anchor not advanced: as if the power had failed in between.
    service.lock().unwrap();
    unlock_fails(&service);
    of.protectors[0].stuck.store(false, Ordering::Relaxed);
    assert_eq!(unlock(&of.start()), StateKind::Operational);
}

fn unlock_fails(service: &Service) {
    let failed = service.unlock(&pin(), None, PinTry::Attended);
    assert!(matches!(failed, Err(CustodyError::TokenFailed { .. })), "{failed:?}");
}

#[test]
fn a_state_file_that_was_edited_is_quarantined() {
    let of = Box_::new();
    let (service, _) = of.operational();
    service.shut_down();
    let path = of.folder().path(STATE_FILE);
    let record = CustodyRecord::parse(&std::fs::read(&path).unwrap()).unwrap();
    let mut pinned = record.pinned.clone().unwrap();
    pinned.required = 1;
    std::fs::write(&path, CustodyRecord { pinned: Some(pinned), ..record }.to_bytes()).unwrap();
    let service = of.start();
    assert_eq!(service.unlock(&pin(), None, PinTry::Attended), Err(CustodyError::UnsealFailed));
    assert_eq!(service.status().state, StateKind::Quarantined);
}

#[test]
fn production_signs_with_two_protectors_and_none_of_software() {
    let of = Box_::new();
    let service = of.start();
    unlock(&service);
    let software = service.provision(SuiteId::Standard, false);
    assert!(matches!(software, Err(CustodyError::LabOnly { .. })), "{software:?}");

    let third = TestProtector::named("third");
    let of = Box_::with([TestProtector::hardware("first"), TestProtector::hardware("second"), third]);
    let service = of.start();
    unlock(&service);
    let genesis = genesis(&service.provision(SuiteId::Standard, false).unwrap(), false);
    let lab = service.bind_genesis(&Genesis { lab: true, ..genesis.clone() }.to_bytes());
    assert!(
        matches!(&lab, Err(CustodyError::GenesisRefused { why }) if why.contains("made for production")),
        "{lab:?}"
    );
    service.bind_genesis(&genesis.to_bytes()).unwrap();
    let idle = |service: &Service| {
        assert_eq!(service.status().state, StateKind::Unprovisioned);
        assert_eq!(sign(service, &vote(&genesis, 1, 1)), Err(CustodyError::Unprovisioned));
    };
    idle(&service);
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Unprovisioned, "nor after a restart");
    idle(&service);
    let software = service.add_protector("third", &pin(), None);
    assert!(matches!(software, Err(CustodyError::LabOnly { .. })), "{software:?}");
    idle(&service);
    let transcript = approved(&service, of.second(&service), &[1, 2]);
    service.add_protector("second", &pin(), Some(&transcript)).unwrap();
    assert_eq!(service.status().state, StateKind::Operational);
    assert!(sign(&service, &vote(&genesis, 1, 1)).is_ok());
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Operational);
    let id = service.status().protectors[0].id.unwrap();
    let remove = approved(&service, Decision::RemoveProtector { protector: id }, &[1, 2]);
    let one_left = service.decide(&remove, &pins(), &[]);
    assert!(matches!(one_left, Err(CustodyError::WrongProtector { .. })), "{one_left:?}");
    assert_eq!(service.status().state, StateKind::Operational);
}

/// What the officers hold counts as the second way in.
#[test]
fn in_production_officers_shares_count_as_a_protector() {
    let of = Box_::with([TestProtector::hardware("first")]);
    let service = of.start();
    unlock(&service);
    let genesis = genesis(&service.provision(SuiteId::Standard, false).unwrap(), false);
    service.bind_genesis(&genesis.to_bytes()).unwrap();
    assert_eq!(service.status().state, StateKind::Unprovisioned);
    set_recovery(&service);
    assert_eq!(service.status().state, StateKind::Operational);
    assert!(sign(&service, &vote(&genesis, 1, 1)).is_ok());
}

/// One of two protectors is dead, and there are no shares: it could not be removed, and a rotation would need it.
#[test]
fn in_production_a_dead_protector_is_replaced_by_officers_shares() {
    let of = Box_::with([TestProtector::hardware("first"), TestProtector::hardware("second")]);
    let service = of.start();
    unlock(&service);
    let genesis = genesis(&service.provision(SuiteId::Standard, false).unwrap(), false);
    service.bind_genesis(&genesis.to_bytes()).unwrap();
    add_second(&of, &service);
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Operational);
    of.protectors[1].gone.store(true, Ordering::Relaxed);
    let id = service.status().protectors[1].id.unwrap();
    let remove = |service: &Service| {
        let remove = approved(service, Decision::RemoveProtector { protector: id }, &[1, 2]);
        service.decide(&remove, &[], &[])
    };
    assert!(matches!(remove(&service), Err(CustodyError::WrongProtector { .. })));
    let (decision, cards) = recovery();
    service.decide(&approved(&service, decision.clone(), &[1, 2]), &[], &cards).unwrap();
    assert_eq!((service.status().recovery, service.status().sequence), (Some((2, 3)), 2));
    // Replacing shares withdraws the old ones: that takes every protector.
    let again = service.decide(&approved(&service, decision, &[1, 2]), &[], &cards);
    assert!(matches!(again, Err(CustodyError::PinsMissing { .. })), "{again:?}");
    remove(&service).unwrap();
    assert!(sign(&service, &vote(&genesis, 1, 1)).is_ok());
    service.shut_down();
    let service = of.start();
    assert_eq!(unlock(&service), StateKind::Operational);
    assert!(service.backup().is_ok());
}

#[test]
fn the_doctor_names_what_is_missing() {
    let of = Box_::new();
    let (service, _) = of.operational();
    let bad = |service: &Service| {
        let findings = service.doctor();
        findings.into_iter().filter(|finding| !finding.good).map(|finding| finding.what).collect::<Vec<_>>()
    };
    let found = bad(&service);
    for what in ["spare", "recovery", "protector first"] {
        assert!(found.iter().any(|bad| bad == what), "{what} in {found:?}");
    }
    assert!(!found.iter().any(|bad| bad == "state" || bad == "rollback"), "{found:?}");
    assert!(service.self_test().iter().all(|finding| finding.good), "{:?}", service.self_test());
    service.lock().unwrap();
    assert!(bad(&service).iter().any(|bad| bad == "state"));
}

fn officer_kem(number: u8) -> zixt_crypto::hpke::OpeningKey {
    zixt_crypto::hpke::OpeningKey::new(&zixt_crypto::KemSeed::from_bytes(&[number; 64]))
}

/// Shares for the three officers, any two of which recover.
fn recovery() -> (Decision, Vec<Card>) {
    let cards: Vec<_> =
        (1..=3).map(|n| Card { officer: officer_hash(n), kem: officer_kem(n).encapsulation_key() }).collect();
    let mut holders: Vec<_> = cards
        .iter()
        .map(|card| ShareHolder { officer: card.officer, kem: digest::kem_key_hash(&card.kem) })
        .collect();
    holders.sort();
    (Decision::SetRecovery { threshold: 2, holders }, cards)
}

fn set_recovery(service: &Service) {
    let (decision, cards) = recovery();
    let transcript = approved(service, decision, &[1, 2]);
    assert!(service.decide(&transcript, &pins(), &[]).is_err(), "the cards are missing");
    service.decide(&transcript, &pins(), &cards).unwrap();
}

fn releases(request: &RecoveryRequest, officers: &[u8]) -> Vec<Blob> {
    let release = |n: &u8| {
        let share = request.record.share_of(&officer_hash(*n)).unwrap().open(&officer_kem(*n)).unwrap();
        Blob(zixt_ceremony::release(&share, request, &*officer(*n)).unwrap().to_bytes())
    };
    officers.iter().map(release).collect()
}

#[test]
fn officers_recover_a_lost_machine_and_the_old_key_votes_no_more() {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    assert!(service.backup().is_err(), "nobody could open it");
    set_recovery(&service);
    assert_eq!(service.status().recovery, Some((2, 3)));
    let Ok(VoteOutcome::Signed { .. }) = sign(&service, &vote(&genesis, 7, 1)) else { panic!() };
    let old = service.status().key(KeyPurpose::Consensus).unwrap().hash;
    let row_key = service.with_keys(|keys| Ok(keys.row_key())).unwrap();
    let backup = service.backup().unwrap();
    assert!(service.begin_recovery(&backup.custody).is_err(), "a machine that has keys recovers nothing");
    drop(service);

    let fresh = Box_::new();
    let service = fresh.start_with(&fresh.protectors[..1]);
    assert_eq!(service.begin_recovery(&backup.custody), Err(CustodyError::TokenLocked));
    unlock(&service);
    let request = RecoveryRequest::parse(&service.begin_recovery(&backup.custody).unwrap()).unwrap();
    let transcript = |officers: &[u8]| signed(&request.action().unwrap(), officers);
    let refused = |transcript: &[u8], releases: &[Blob]| match service.finish_recovery(transcript, releases) {
        Ok(_) => panic!("recovered"),
        Err(error) => error.code(),
    };
    assert_eq!(refused(&transcript(&[1]), &releases(&request, &[1, 2])), "custody-not-approved");
    assert_eq!(refused(&transcript(&[1, 2]), &releases(&request, &[1])), "custody-recovery-refused");
    assert_eq!(refused(&transcript(&[1, 2]), &releases(&request, &[1, 1])), "custody-recovery-refused");
    let mut flipped = releases(&request, &[1, 2]);
    let last = flipped[0].0.len() - 1;
    flipped[0].0[last] ^= 1;
    assert_eq!(refused(&transcript(&[1, 2]), &flipped), "custody-recovery-refused");
    let mut other = request.action().unwrap();
    other.expires_at = Timestamp(other.expires_at.0 + 1);
    assert_eq!(refused(&signed(&other, &[1, 2]), &releases(&request, &[1, 2])), "custody-not-approved");
    assert_eq!(service.status().state, StateKind::Unprovisioned);

    let (state, rest) = service.finish_recovery(&transcript(&[1, 3]), &releases(&request, &[2, 3])).unwrap();
    assert_eq!(state, StateKind::Quarantined);
    assert!(rest == backup.key.0);
    assert!(matches!(sign(&service, &vote(&genesis, 8, 1)), Err(CustodyError::Quarantined { .. })));
    service.shut_down();

    let service = fresh.start_with(&fresh.protectors[..1]);
    assert_eq!(unlock(&service), StateKind::Quarantined);
    // Who unpacks the rest may fail: the key is given again, after a restart and another root too, until that worked.
    let hash = recover::CustodyBackup::hash(&backup.custody);
    let waits = |service: &Service| service.doctor().iter().any(|found| found.what == "backup");
    service.decide(&approved(&service, Decision::RotateRoot, &[1, 2]), &[], &[]).unwrap();
    for _ in 0..2 {
        assert!(service.backup_key(hash).unwrap() == rest && waits(&service));
    }
    let other = service.backup_key(Hash([7; 48])).err();
    assert!(matches!(other, Some(CustodyError::RecoveryRefused { .. })), "{other:?}");
    assert!(service.backup_unpacked(Hash([7; 48])).is_err());
    service.backup_unpacked(hash).unwrap();
    assert!(service.backup_key(hash).is_err() && !waits(&service));
    service.generate_key(KeyPurpose::Consensus).unwrap();
    let activate = approved(&service, activation(&service, KeyPurpose::Consensus), &[2, 3]);
    service.decide(&activate, &[], &[]).unwrap();
    assert_eq!(service.status().state, StateKind::Operational);
    assert_ne!(service.status().key(KeyPurpose::Consensus).unwrap().hash, old);
    assert!(service.with_keys(|keys| Ok(keys.row_key())).unwrap() == row_key, "data opens");
    assert!(sign(&service, &vote(&genesis, 8, 1)).is_ok());
    // The officers' shares go on: they open what this machine backs up.
    assert!(service.backup().is_ok());
    assert_eq!(service.status().recovery, Some((2, 3)));
}

#[test]
fn a_backup_with_other_officers_is_another_custody() {
    let of = Box_::new();
    let (service, _) = of.operational();
    set_recovery(&service);
    let backup = recover::CustodyBackup::parse(&service.backup().unwrap().custody).unwrap();
    let mut record = CustodyRecord::parse(&backup.record).unwrap();
    let pinned = record.pinned.as_mut().unwrap();
    pinned.required = 1;
    let forged = recover::CustodyBackup { record: record.to_bytes(), ..backup }.to_bytes();
    let fresh = Box_::new();
    let service = fresh.start();
    unlock(&service);
    let request = RecoveryRequest::parse(&service.begin_recovery(&forged).unwrap()).unwrap();
    let transcript = signed(&request.action().unwrap(), &[1]);
    let opened = service.finish_recovery(&transcript, &releases(&request, &[1, 2]));
    assert_eq!(opened.err(), Some(CustodyError::UnsealFailed));
    assert_eq!(service.status().state, StateKind::Unprovisioned);
}

/// A machine before a change of state, and what the change is.
struct Before {
    of: Box_,
    service: Service,
    genesis: Option<Genesis>,
    change: Box<dyn Fn(&Service)>,
}

fn operational_with(make: impl Fn(&Box_, &Service) -> Box<dyn Fn(&Service)>) -> Before {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok());
    let change = make(&of, &service);
    Before { of, service, genesis: Some(genesis), change }
}

/// A change that officers decide.
fn decided(service: &Service, decision: Decision) -> Box<dyn Fn(&Service)> {
    let transcript = approved(service, decision, &[1, 2]);
    Box::new(move |service| drop(service.decide(&transcript, &pins(), &[])))
}

fn add_second(of: &Box_, service: &Service) {
    let transcript = approved(service, of.second(service), &[1, 2]);
    service.add_protector("second", &pin(), Some(&transcript)).unwrap();
}

fn activate_consensus(service: &Service) -> Vec<u8> {
    service.generate_key(KeyPurpose::Consensus).unwrap();
    approved(service, activation(service, KeyPurpose::Consensus), &[1, 2])
}

/// A machine whose disk was put back to before its last vote.
fn set_back() -> (Box_, Genesis) {
    let of = Box_::new();
    let (service, genesis) = of.operational();
    service.lock().unwrap();
    let old: Vec<_> = [STATE_FILE, crate::state::VOTES_FILE]
        .map(|name| (name, std::fs::read(of.folder().path(name)).unwrap()))
        .to_vec();
    unlock(&service);
    assert!(sign(&service, &vote(&genesis, 7, 1)).is_ok());
    service.shut_down();
    old.iter().for_each(|(name, bytes)| std::fs::write(of.folder().path(name), bytes).unwrap());
    (of, genesis)
}

/// A change of state by its name, the state that it starts from, and the states that it may leave.
type Change = (&'static str, fn() -> Before, &'static [StateKind]);

/// Every one that there is.
fn changes() -> Vec<Change> {
    use StateKind::{Operational, Quarantined, Unprovisioned};
    vec![
        (
            "provision",
            || {
                let of = Box_::new();
                let service = of.start();
                unlock(&service);
                let change = Box::new(|service: &Service| drop(service.provision(SuiteId::Standard, true)));
                Before { of, service, genesis: None, change }
            },
            &[Unprovisioned],
        ),
        (
            "bind",
            || {
                let of = Box_::new();
                let service = of.start();
                unlock(&service);
                let bytes = genesis(&service.provision(SuiteId::Standard, true).unwrap(), true).to_bytes();
                let change = Box::new(move |service: &Service| drop(service.bind_genesis(&bytes)));
                Before { of, service, genesis: None, change }
            },
            &[Unprovisioned, Operational],
        ),
        (
            "unlock",
            || {
                operational_with(|_, service| {
                    service.lock().unwrap();
                    Box::new(|service| drop(service.unlock(&pin(), None, PinTry::Attended)))
                })
            },
            &[Operational],
        ),
        ("lock", || operational_with(|_, _| Box::new(|service| drop(service.lock()))), &[Operational]),
        (
            "add protector",
            || {
                operational_with(|of, service| {
                    let transcript = approved(service, of.second(service), &[1, 2]);
                    Box::new(move |service| drop(service.add_protector("second", &pin(), Some(&transcript))))
                })
            },
            &[Operational],
        ),
        (
            "remove protector",
            || {
                operational_with(|of, service| {
                    add_second(of, service);
                    let id = service.status().protectors[1].id.unwrap();
                    decided(service, Decision::RemoveProtector { protector: id })
                })
            },
            &[Operational],
        ),
        (
            "set recovery",
            || {
                operational_with(|_, service| {
                    let (decision, cards) = recovery();
                    let transcript = approved(service, decision, &[1, 2]);
                    Box::new(move |service| drop(service.decide(&transcript, &pins(), &cards)))
                })
            },
            &[Operational],
        ),
        (
            "rotate root",
            || {
                operational_with(|of, service| {
                    add_second(of, service);
                    decided(service, Decision::RotateRoot)
                })
            },
            &[Operational],
        ),
        (
            "change PIN",
            || {
                operational_with(|_, _| {
                    let new = Pin::new("135790".to_owned()).unwrap();
                    Box::new(move |service| drop(service.change_pin("first", &pin(), &new)))
                })
            },
            &[Operational],
        ),
        (
            "generate",
            || operational_with(|_, _| Box::new(|service| drop(service.generate_key(KeyPurpose::Consensus)))),
            &[Operational],
        ),
        (
            "activate",
            || {
                operational_with(|_, service| {
                    let transcript = activate_consensus(service);
                    Box::new(move |service| drop(service.decide(&transcript, &[], &[])))
                })
            },
            &[Operational],
        ),
        (
            "destroy",
            || {
                operational_with(|_, service| {
                    let old = service.status().key(KeyPurpose::Consensus).unwrap().hash;
                    let transcript = activate_consensus(service);
                    service.decide(&transcript, &[], &[]).unwrap();
                    decided(service, Decision::DestroyKey { purpose: KeyPurpose::Consensus, key: old })
                })
            },
            &[Operational],
        ),
        (
            "quarantine",
            || {
                let (of, _) = set_back();
                let service = of.start();
                let change =
                    Box::new(|service: &Service| drop(service.unlock(&pin(), None, PinTry::Attended)));
                Before { of, service, genesis: None, change }
            },
            &[Quarantined],
        ),
        (
            "end of a quarantine",
            || {
                let (of, _) = set_back();
                let service = of.start();
                assert_eq!(unlock(&service), Quarantined);
                let transcript = activate_consensus(&service);
                let change = Box::new(move |service: &Service| drop(service.decide(&transcript, &[], &[])));
                Before { of, service, genesis: None, change }
            },
            &[Quarantined, Operational],
        ),
        (
            "recover",
            || {
                let lost = Box_::new();
                let (service, _) = lost.operational();
                set_recovery(&service);
                let backup = service.backup().unwrap().custody;
                let of = Box_::new();
                let service = of.start();
                unlock(&service);
                let request = RecoveryRequest::parse(&service.begin_recovery(&backup).unwrap()).unwrap();
                let transcript = signed(&request.action().unwrap(), &[1, 2]);
                let released = releases(&request, &[1, 2]);
                let change =
                    Box::new(move |service: &Service| drop(service.finish_recovery(&transcript, &released)));
                Before { of, service, genesis: None, change }
            },
            &[Unprovisioned, Quarantined],
        ),
    ]
}

/// Every change of state, with the process killed before each step of each file that it writes and before each thing that
/// a device is told to keep or forget: afterwards the old state or the new one is whole and opens, never are two keys of a
/// purpose active, what was voted stays voted, and a decision that counts is there for the ledger.
#[test]
fn a_crash_at_any_write_leaves_the_old_or_the_new_state() {
    for (name, before, leaves) in changes() {
        let mut kinds = std::collections::BTreeSet::new();
        let mut fails_in = 0;
        loop {
            let Before { of, service, genesis, change } = before();
            let at = format!("{name}, step {fails_in}");
            let (sequence, had_keys) = (service.status().sequence, !service.status().keys.is_empty());
            faults::fail_in(fails_in);
            change(&service);
            let crashed = faults::recover();
            drop(service);

            let service = of.start();
            let record = service.read().record().cloned();
            let right =
                record.as_ref().and_then(|record| of.protectors[0].pin_of(&record.protectors[0].enrolment));
            let right = Pin::new(right.unwrap_or_else(|| PIN.to_owned())).unwrap();
            let mut unlocked = service.unlock(&right, None, PinTry::Attended);
            if let Err(CustodyError::PinBackoff { retry_after_s }) = unlocked {
                // A try that was cut off counts like a wrong one.
                std::thread::sleep(Duration::from_secs(retry_after_s));
                unlocked = service.unlock(&right, None, PinTry::Attended);
            }
            let state = unlocked.unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(leaves.contains(&state), "{at}: {state}");
            kinds.insert(state.to_string());
            // Every protector that the state names opens it.
            for enrolled in
                service.read().record().map(|record| record.protectors.clone()).unwrap_or_default()
            {
                if let (Some(device), Ok(open)) = (service.device(&enrolled), service.read().open()) {
                    device.open(Some(&enrolled.enrolment), &right, PinTry::Attended).unwrap();
                    let opened = open.record.open_root(&enrolled, device);
                    assert!(
                        opened.is_ok_and(|root| root.expose() == open.root.expose()),
                        "{at}: {}",
                        enrolled.name
                    );
                }
            }
            let status = service.status();
            if !status.keys.is_empty() {
                for purpose in KeyPurpose::ALL {
                    let active = |key: &&zixt_hsm_protocol::KeyInfo| {
                        key.purpose == purpose && key.status == KeyStatus::Active
                    };
                    assert_eq!(status.keys.iter().filter(active).count(), 1, "{at}");
                }
                if had_keys {
                    let taken: Vec<_> =
                        service.decisions(sequence).unwrap().iter().map(|taken| taken.sequence).collect();
                    let counted: Vec<_> = (sequence..status.sequence).collect();
                    assert!(taken == counted && counted.len() <= 1, "{at}: what counts is kept: {taken:?}");
                }
            }
            if let Some(genesis) = genesis {
                let taken = sign(&service, &vote(&genesis, 7, 2)).unwrap();
                assert!(!matches!(taken, VoteOutcome::Signed { .. }), "{at}: {taken:?}");
                assert!(sign(&service, &vote(&genesis, 8, 1)).is_ok(), "{at}");
            }
            // What failed can be done again, and what was done is refused or does no harm.
            drop(service);
            assert!(of.start().unlock(&right, None, PinTry::Attended).is_ok(), "{at}: a second start");
            if !crashed {
                break;
            }
            fails_in += 1;
        }
        assert!(fails_in >= 4, "{name} writes at least one file");
        assert_eq!(
            kinds.len(),
            leaves.len(),
            "{name}: some steps leave the old state, others the new one: {kinds:?}"
        );
    }
}

/// What happens to a custody.
#[derive(Clone, Copy, Debug)]
enum Event {
    Unlock {
        right: bool,
    },
    Lock,
    Restart,
    Vote {
        height: u64,
        value: u8,
    },
    Rotate {
        enough: bool,
    },
    /// Somebody copies the state folder.
    Save,
    /// Somebody puts the copy back while the daemon does not run.
    SetBack,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Unlock { right: true }),
        1 => Just(Event::Unlock { right: false }),
        2 => Just(Event::Lock),
        2 => Just(Event::Restart),
        8 => (1u64..9, 1u8..4).prop_map(|(height, value)| Event::Vote { height, value }),
        1 => any::<bool>().prop_map(|enough| Event::Rotate { enough }),
        2 => Just(Event::Save),
        2 => Just(Event::SetBack),
    ]
}

/// A copy of the state folder, which a daemon that starts with it finds locked, and where the anchor stood.
struct Saved {
    files: Vec<(std::ffi::OsString, Vec<u8>)>,
    anchor: u64,
}

/// A custody and what it has to be.
struct Tried {
    of: Box_,
    service: Service,
    genesis: Genesis,
    state: StateKind,
    /// The folder is older than the anchor says.
    is_set_back: bool,
    saved: Option<Saved>,
    /// What was signed for each height, ever.
    signed: std::collections::HashMap<u64, Hash>,
}

impl Tried {
    fn new() -> Self {
        let of = Box_::new();
        let (service, genesis) = of.operational();
        let state = StateKind::Operational;
        Self { of, service, genesis, state, is_set_back: false, saved: None, signed: Default::default() }
    }

    fn anchor(&self) -> u64 {
        self.of.protectors[0].counter()
    }

    fn restart(&mut self) {
        self.service.shut_down();
        self.service = self.of.start();
        if self.state == StateKind::Operational {
            self.state = StateKind::Locked;
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Unlock { right } => self.unlock(right),
            Event::Lock => {
                self.service.lock().unwrap();
                if self.state == StateKind::Operational {
                    self.state = StateKind::Locked;
                }
            }
            Event::Restart => self.restart(),
            Event::Vote { height, value } => self.vote(height, value),
            Event::Rotate { enough } => self.rotate(enough),
            Event::Save if self.state != StateKind::Quarantined => {
                let files = std::fs::read_dir(self.of.folder.path()).unwrap().map(|entry| {
                    let entry = entry.unwrap();
                    (entry.file_name(), std::fs::read(entry.path()).unwrap())
                });
                // An older copy of an older state is no newer for having been put back.
                let anchor = if self.is_set_back { u64::MAX } else { self.anchor() };
                self.saved = Some(Saved { files: files.collect(), anchor });
            }
            Event::Save => {}
            Event::SetBack => {
                let Some(saved) = self.saved.take() else { return };
                self.service.shut_down();
                for entry in std::fs::read_dir(self.of.folder.path()).unwrap() {
                    std::fs::remove_file(entry.unwrap().path()).unwrap();
                }
                for (name, bytes) in &saved.files {
                    std::fs::write(self.of.folder.path().join(name), bytes).unwrap();
                }
                self.service = self.of.start();
                (self.state, self.is_set_back) = (StateKind::Locked, saved.anchor != self.anchor());
                self.saved = Some(saved);
            }
        }
    }

    fn unlock(&mut self, right: bool) {
        let pin = if right { pin() } else { Pin::new("654321".to_owned()).unwrap() };
        let unlocked = self.service.unlock(&pin, None, PinTry::Attended);
        match (self.state, &unlocked) {
            // After a wrong PIN the right one has to wait.
            (StateKind::Locked | StateKind::Quarantined, Err(CustodyError::PinBackoff { .. })) => {}
            (StateKind::Locked | StateKind::Quarantined, Err(CustodyError::PinIncorrect)) => assert!(!right),
            (StateKind::Locked, Ok(state)) => {
                assert!(right);
                let wanted = if self.is_set_back { StateKind::Quarantined } else { StateKind::Operational };
                assert_eq!(*state, wanted);
                (self.state, self.is_set_back) = (wanted, false);
            }
            // What is open asks for no PIN.
            (state, Ok(told)) => assert_eq!(*told, state),
            other => panic!("{other:?}"),
        }
    }

    fn vote(&mut self, height: u64, value: u8) {
        let outcome = sign(&self.service, &vote(&self.genesis, height, value));
        if self.state != StateKind::Operational {
            assert!(outcome.is_err(), "{} signed: {outcome:?}", self.state);
            return;
        }
        match outcome.unwrap() {
            VoteOutcome::Signed { .. } => {
                let header = Hash([value; 48]);
                assert_eq!(*self.signed.entry(height).or_insert(header), header, "two headers of {height}");
            }
            VoteOutcome::AlreadySigned { vote, .. } => {
                let vote = Vote::parse(&vote).unwrap();
                assert_eq!(vote.header.as_ref(), self.signed.get(&height));
            }
            VoteOutcome::Refused(_) => {}
        }
    }

    fn rotate(&mut self, enough: bool) {
        let before = self.service.status();
        let officers: &[u8] = if enough { &[1, 3] } else { &[2] };
        let transcript = approved(&self.service, Decision::RotateRoot, officers);
        let decided = self.service.decide(&transcript, &pins(), &[]);
        match self.state {
            StateKind::Operational => assert_eq!(decided.is_ok(), enough, "{decided:?}"),
            StateKind::Locked => assert!(decided.is_err()),
            // Officers decide what becomes of a custody that was set back; its root is theirs to rotate.
            _ => {}
        }
        let after = self.service.status();
        assert_eq!(after.sequence, before.sequence + u64::from(decided.is_ok()), "a decision counts once");
        assert_eq!(after.keys, before.keys, "another root, the same keys");
        if decided.is_ok() {
            // The wrapping key of the root before is destroyed: a copy of then opens nowhere.
            self.saved = None;
        }
    }

    fn holds(&self) {
        let status = self.service.status();
        assert_eq!(status.state, self.state, "{}", status.reason);
        if self.state == StateKind::Locked {
            assert!(
                self.of.protectors.iter().all(|protector| !protector.is_open()),
                "locked, and a token is open"
            );
        }
    }
}

/// Whatever is asked in whatever order, with restarts and copies of the state put back: only an operational custody signs, no
/// height ever gets two headers, what was set back signs nothing any more, and a refused decision changes nothing.
#[test]
fn any_order_of_events_keeps_the_states() {
    let seen = std::cell::RefCell::new(std::collections::BTreeMap::<&str, u32>::new());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&prop::collection::vec(event(), 5..40), |events| {
        let mut tried = Tried::new();
        for event in events {
            tried.happens(event);
            tried.holds();
            *seen.borrow_mut().entry(tried.state.name()).or_default() += 1;
        }
        *seen.borrow_mut().entry("votes").or_default() += u32::try_from(tried.signed.len()).unwrap();
        tried.service.shut_down();
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Every state was there.
    let seen = seen.into_inner();
    assert!(
        ["operational", "locked", "quarantined", "votes"].iter().all(|what| seen.contains_key(what)),
        "{seen:?}"
    );
}
