//! The whole protector, as the custody daemon uses it.

use crate::common::{PIN, REFERENCE, Ready, measure};
use std::time::Instant;
use zixt_tpm::{
    Binding, COUNTER_INDEX_DEFAULT, Enrolment, PcrSelection, PinTry, PolicyRef, PolicySigner, Profile, Tpm,
    TpmError, TpmProtector,
};
use zixt_types::Canonical;

const ROOT: [u8; 32] = [0x42; 32];
/// What a root is wrapped as.
const AAD: &[u8] = b"root 1";

fn protector(ready: &mut Ready) -> TpmProtector {
    let tpm = std::mem::replace(&mut ready.tpm, Tpm::new("device:/nowhere").unwrap());
    let binding = ready.binding();
    let selection = PcrSelection::DEFAULT;
    let values = tpm.pcrs(selection).unwrap();
    let protector =
        TpmProtector::create(tpm, &ready.provisioned, COUNTER_INDEX_DEFAULT, selection, binding, PIN)
            .unwrap();
    protector.add_approval(ready.signer.approve(values, REFERENCE).unwrap()).unwrap();
    protector
}

#[test]
fn it_wraps_roots_while_it_is_open() {
    let mut ready = Ready::new();
    let first = protector(&mut ready);
    let epoch = first.enrolment().epoch();
    assert_eq!(first.wrap_root(epoch, AAD, &ROOT), Err(TpmError::NotOpen));
    assert_eq!(first.read_anchor(), Err(TpmError::NotOpen));
    first.open(PIN, PinTry::Attended).unwrap();
    let blob = first.wrap_root(epoch, AAD, &ROOT).unwrap();
    assert_ne!(blob, first.wrap_root(epoch, AAD, &ROOT).unwrap());
    let anchored = first.advance_anchor().unwrap();
    first.close();
    assert_eq!(first.unwrap_root(epoch, AAD, &blob), Err(TpmError::NotOpen));
    let (stored, id) = (first.enrolment().to_bytes(), first.id());
    assert!(!format!("{first:?}").contains("42, 42"));
    drop(first);

    // After a restart.
    let again = TpmProtector::new(ready.swtpm.tpm(), Enrolment::parse(&stored).unwrap());
    assert_eq!(again.id(), id);
    assert_eq!(again.open(b"wrong", PinTry::Attended), Err(TpmError::PinIncorrect { tries_left: 4 }));
    again.open(PIN, PinTry::Attended).unwrap();
    assert_eq!(*again.unwrap_root(epoch, AAD, &blob).unwrap(), ROOT);
    for other in [&b"root 2"[..], b"root ", b""] {
        let opened = again.unwrap_root(epoch, other, &blob);
        assert!(matches!(opened, Err(TpmError::CorruptBlob { .. })), "as another root it does not open");
    }
    assert_eq!(again.read_anchor(), Ok(anchored));
    for at in 0..blob.len() {
        let mut bad = blob.clone();
        bad[at] ^= 1;
        assert!(
            matches!(again.unwrap_root(epoch, AAD, &bad), Err(TpmError::CorruptBlob { .. })),
            "byte {at}"
        );
    }
}

#[test]
fn a_new_pin_makes_the_old_one_and_old_wrappings_worthless() {
    let mut ready = Ready::new();
    let protector = protector(&mut ready);
    protector.open(PIN, PinTry::Attended).unwrap();
    let epoch = protector.enrolment().epoch();
    let old = protector.wrap_root(epoch, AAD, &ROOT).unwrap();
    let anchored = protector.read_anchor().unwrap();
    let (selection, binding) = (PcrSelection::DEFAULT, ready.binding());
    let wrong = protector.reseal(b"wrong", b"new", selection, binding.clone());
    assert!(matches!(wrong, Err(TpmError::PinIncorrect { .. })), "{wrong:?}");
    protector.reseal(PIN, b"a new one", selection, binding).unwrap();
    assert!(matches!(protector.unwrap_root(epoch, AAD, &old), Err(TpmError::CorruptBlob { .. })));
    assert_eq!(protector.read_anchor(), Ok(anchored));
    let new = protector.wrap_root(epoch, AAD, &ROOT).unwrap();
    protector.close();
    let refused = protector.open(PIN, PinTry::Attended);
    assert!(matches!(refused, Err(TpmError::PinIncorrect { .. })), "{refused:?}");
    protector.open(b"a new one", PinTry::Attended).unwrap();
    assert_eq!(*protector.unwrap_root(epoch, AAD, &new).unwrap(), ROOT);
}

/// The TPM opens what it sealed for ever. What it wrapped in an epoch that is over it does not, whoever asks with whatever
/// copy: the same enrolment, the same PIN, a power cycle later.
#[test]
fn nothing_opens_what_was_wrapped_in_an_epoch_that_is_over() {
    let mut ready = Ready::new();
    let protector = protector(&mut ready);
    protector.open(PIN, PinTry::Attended).unwrap();
    let (kept, first) = (protector.enrolment(), protector.enrolment().epoch());
    let old = protector.wrap_root(first, AAD, &ROOT).unwrap();
    let second = protector.begin_epoch(first).unwrap();
    let new = protector.wrap_root(second, AAD, &ROOT).unwrap();
    assert_eq!(*protector.unwrap_root(first, AAD, &old).unwrap(), ROOT, "until it is ended");
    for (epoch, blob) in [(first, &new), (second, &old)] {
        assert!(matches!(protector.unwrap_root(epoch, AAD, blob), Err(TpmError::CorruptBlob { .. })));
    }
    protector.end_epoch(first).unwrap();
    protector.end_epoch(first).unwrap();
    drop(protector);
    ready.swtpm.kill();
    ready.swtpm.power_on();
    measure(&ready.swtpm.tpm());

    let copy = TpmProtector::new(ready.swtpm.tpm(), kept);
    copy.open(PIN, PinTry::Attended).unwrap();
    let over = |epoch, blob: &[u8]| {
        let opened = copy.unwrap_root(epoch, AAD, blob);
        assert!(matches!(opened, Err(TpmError::EpochOver { .. })), "{opened:?}");
    };
    over(first, &old);
    assert_eq!(*copy.unwrap_root(second, AAD, &new).unwrap(), ROOT);
    // The place is used again, and the old name means nothing there.
    let third = copy.begin_epoch(second).unwrap();
    over(first, &old);
    copy.end_epoch(first).unwrap();
    let newest = copy.wrap_root(third, AAD, &ROOT).unwrap();
    copy.end_epoch(second).unwrap();
    over(second, &new);
    assert_eq!(
        *copy.unwrap_root(third, AAD, &newest).unwrap(),
        ROOT,
        "the end of others' epochs does it no harm"
    );
}

#[test]
fn approvals_are_revoked_by_another_reference() {
    let mut ready = Ready::new();
    let protector = protector(&mut ready);
    let before = protector.enrolment();
    let stranger = PolicySigner::generate(Profile::P384).unwrap();
    let values = before.approvals()[0].values.clone();
    let refused = protector.add_approval(stranger.approve(values.clone(), REFERENCE).unwrap());
    assert!(matches!(refused, Err(TpmError::ApprovalRefused(_))), "{refused:?}");

    let next = PolicyRef([0x5B; 32]);
    let binding = Binding::Approved { key: ready.signer.public().unwrap(), reference: next };
    protector.reseal(PIN, PIN, PcrSelection::DEFAULT, binding).unwrap();
    protector.close();
    assert!(protector.enrolment().approvals().is_empty());
    let refused = protector.add_approval(before.approvals()[0].clone());
    assert!(matches!(refused, Err(TpmError::ApprovalRefused(_))), "{refused:?}");
    protector.add_approval(ready.signer.approve(values, next).unwrap()).unwrap();
    protector.open(PIN, PinTry::Attended).unwrap();
}

#[test]
fn an_enrolment_is_parsed_strictly_and_any_edit_fails_closed() {
    let mut ready = Ready::new();
    let protector = protector(&mut ready);
    let bytes = protector.enrolment().to_bytes();
    protector.open(PIN, PinTry::Attended).unwrap();
    let blob = protector.wrap_root(protector.enrolment().epoch(), AAD, &ROOT).unwrap();
    drop(protector);
    let mut parsed = 0;
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x01;
        let Ok(enrolment) = Enrolment::parse(&bad) else { continue };
        parsed += 1;
        let selection_kept = enrolment.selection() == PcrSelection::DEFAULT;
        let epoch = enrolment.epoch();
        let edited = TpmProtector::new(ready.swtpm.tpm(), enrolment);
        let opened = edited.open(PIN, PinTry::Attended);
        // The counter's Name is compared when the counter is used, the epoch's when a root is opened.
        let refused = opened.and_then(|()| edited.read_anchor());
        let refused = refused.and_then(|_| edited.unwrap_root(epoch, AAD, &blob));
        assert!(refused.is_err() || !selection_kept, "byte {at}");
        if matches!(refused, Err(TpmError::PinIncorrect { .. })) {
            // The salt of the PIN: indistinguishable from a wrong PIN.
            ready.swtpm.tpm().end_lockout(&ready.provisioned.srk, &ready.provisioned.lockout).unwrap();
        }
    }
    assert!(parsed > 100, "{parsed}");
}

/// How long unlocking takes. Run with `--nocapture`; the limit is the one that custody has to keep.
#[test]
fn unlocking_takes_less_than_half_a_second() {
    const ROUNDS: usize = 20;
    let mut ready = Ready::new();
    let protector = protector(&mut ready);
    let enrolment = protector.enrolment();
    drop(protector);
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let protector = TpmProtector::new(ready.swtpm.tpm(), enrolment.clone());
            protector.open(PIN, PinTry::Attended).unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort();
    let median = times[ROUNDS / 2];
    println!("unlock through swtpm, connection included: median {median:?}, worst {:?}", times[ROUNDS - 1]);
    assert!(median.as_millis() < 500, "{times:?}");
}

#[test]
fn another_image_is_refused_until_it_is_approved() {
    let mut ready = Ready::new();
    let protector = protector(&mut ready);
    measure(protector.tpm());
    let refused = protector.open(PIN, PinTry::Attended);
    assert_eq!(refused, Err(TpmError::PcrMismatch { changed: vec![7, 11] }));
    let values = protector.tpm().pcrs(PcrSelection::DEFAULT).unwrap();
    protector.add_approval(ready.signer.approve(values, REFERENCE).unwrap()).unwrap();
    protector.open(PIN, PinTry::Attended).unwrap();
}
