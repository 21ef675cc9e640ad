//! A TPM as the only protector, and everything that can be wrong with one.

use crate::common::{Lab, Officers, key, measure, pin, refused, tls_content, tpm};
use crate::search::{opened_by, recovery_record};
use crate::swtpm::Swtpm;
use std::fs;
use zixt_crypto::{Backend as _, Reference, digest};
use zixt_hsm::state::CustodyRecord;
use zixt_hsm_protocol::{CustodyError, KeyPurpose, StateKind};
use zixt_measured::{Attestation, AttestationError, QuoteError};
use zixt_tpm::{Enrolment, Pcr, PcrValues, PinTry, PolicyRef, PolicySigner, TpmError, TpmProtector, predict};
use zixt_types::{Canonical as _, CustodyMode, SuiteId, UnlockMode};

/// A measured TPM, and a lab that has nothing else.
fn lab(pin_file: bool) -> (Swtpm, Lab) {
    let (swtpm, lab) = (Swtpm::start(), Lab::empty());
    measure(&swtpm, 11);
    lab.configure_with(pin_file, &[&tpm(&swtpm)]);
    (swtpm, lab)
}

/// The appliance was switched off and on again, and starts this image. Its TPM has another port then.
fn power_cycle(swtpm: &mut Swtpm, lab: &Lab, pin_file: bool, image: u8) {
    swtpm.kill();
    swtpm.power_on();
    measure(swtpm, image);
    lab.configure_with(pin_file, &[&tpm(swtpm)]);
}

#[test]
fn a_tpm_alone_keeps_the_keys_of_a_lab() {
    let (mut swtpm, lab) = lab(false);
    let daemon = lab.start();
    let status = daemon.client.status().unwrap();
    assert_eq!((status.state, status.protectors[0].name.as_str()), (StateKind::Unprovisioned, "tpm"));
    assert!(status.protectors[0].token.as_ref().unwrap().software, "a simulator says so");
    assert_eq!(refused(daemon.client.provision(SuiteId::Standard, true)), CustodyError::TokenLocked);
    lab.must(&["unlock", "--pin-file", &lab.arg("pin")]);
    let production = refused(daemon.client.provision(SuiteId::Standard, false));
    assert!(matches!(production, CustodyError::LabOnly { .. }), "{production}");
    drop(daemon);

    lab.configure_with(true, &[&tpm(&swtpm)]);
    let (daemon, keys, _) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    assert!(keys.iter().all(|key| key.custody == CustodyMode::SealedByTpm));
    let content = tls_content("TLS 1.3, server CertificateVerify", &[1; 48]);
    let public_key = &key(&keys, KeyPurpose::Tls).public_key;
    let signs = |client: &zixt_hsm_protocol::BlockingHsmClient| {
        let signature = client.sign_tls(&content).unwrap();
        Reference.verify(SuiteId::Standard, public_key, &content, &signature).unwrap();
    };
    signs(&daemon.client);
    let said = lab.must(&["list"]);
    assert!(said.contains(CustodyMode::SealedByTpm.describe()), "{said}");
    daemon.stop();

    // Attended: the PIN file is not used, and a person unlocks.
    let daemon = lab.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Locked);
    assert_eq!(refused(daemon.client.unlock(pin("654321"))), CustodyError::PinIncorrect);
    assert!(matches!(refused(daemon.client.unlock(pin("123456"))), CustodyError::PinBackoff { .. }));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    signs(&daemon.client);

    // The TPM dies: what is unlocked goes on, and the doctor says what it is that does not answer.
    swtpm.kill();
    signs(&daemon.client);
    let doctor = lab.admin(&["doctor"]);
    let text = crate::common::stdout(&doctor);
    assert!(doctor.status.code() == Some(3) && text.contains("BAD  counter tpm"), "{text}");
    daemon.client.lock().unwrap();
    let absent = refused(daemon.client.unlock(pin("123456")));
    assert_eq!(absent.code(), "custody-token-absent");
    assert!(absent.to_string().contains("127.0.0.1"), "{absent}");
    drop(daemon);
    power_cycle(&mut swtpm, &lab, true, 11);
    let daemon = lab.start();
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational, "nothing was lost");
    signs(&daemon.client);
}

#[test]
fn another_image_does_not_open_the_root_and_nothing_is_tried_again() {
    let (mut swtpm, lab) = lab(true);
    lab.operational(SuiteId::Standard, UnlockMode::Unattended).0.stop();
    power_cycle(&mut swtpm, &lab, true, 99);
    for start in 1..=3 {
        let mut daemon = lab.start();
        let status = daemon.client.status().unwrap();
        assert_eq!(status.state, StateKind::Locked, "start {start}");
        assert!(status.reason.contains("registers [11] differ"), "{status:?}");
        assert!(status.advice.contains("install the approval"), "{status:?}");
        let refused = refused(daemon.client.unlock(pin("123456")));
        assert_eq!(refused.code(), "custody-tpm-pcr-mismatch");
        assert!(daemon.child.try_wait().unwrap().is_none(), "it stays up and says so");
        let doctor = crate::common::stdout(&lab.admin(&["doctor"]));
        assert!(doctor.contains("treat the machine as tampered with"), "{doctor}");
    }
    // Nor do registers that nothing was measured into.
    swtpm.kill();
    swtpm.power_on();
    lab.configure_with(true, &[&tpm(&swtpm)]);
    assert_eq!(lab.start().client.status().unwrap().state, StateKind::Locked);
    // No try of the PIN was spent on all this.
    power_cycle(&mut swtpm, &lab, true, 11);
    let daemon = lab.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational);
    assert_eq!(daemon.client.status().unwrap().reason, "");
}

#[test]
fn an_exchanged_tpm_is_named_and_gets_no_pin() {
    let (_first, lab) = lab(true);
    lab.operational(SuiteId::Standard, UnlockMode::Unattended).0.stop();
    let second = Swtpm::start();
    measure(&second, 11);
    lab.configure_with(true, &[&tpm(&second)]);
    let replaced = |words: &str| {
        let daemon = lab.start();
        let status = daemon.client.status().unwrap();
        assert!(status.state == StateKind::Locked && status.reason.contains(words), "{status:?}");
        assert!(status.advice.contains("exchanged"), "{status:?}");
        assert_eq!(refused(daemon.client.unlock(pin("123456"))).code(), "custody-tpm-replaced");
    };
    replaced("no storage key");
    // One that another appliance uses has a key at the same place.
    second.tpm().provision(zixt_tpm::ProvisionOptions::default()).unwrap();
    replaced("not the pinned one");
}

#[test]
fn a_lockout_is_waited_for_and_never_brought_about() {
    let (mut swtpm, lab) = lab(true);
    let (daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    daemon.stop();
    // Somebody who took a copy of the state tries PINs past the daemon.
    let record = CustodyRecord::parse(&std::fs::read(lab.state("custody.cbor")).unwrap()).unwrap();
    let enrolment = || Enrolment::parse(&record.protectors[0].enrolment).unwrap();
    let tries =
        |swtpm: &Swtpm, pin: &[u8]| TpmProtector::new(swtpm.tpm(), enrolment()).open(pin, PinTry::Attended);
    let left = loop {
        match tries(&swtpm, b"guess") {
            Err(TpmError::PinIncorrect { tries_left }) => assert!(tries_left > 0),
            other => break other,
        }
    };
    assert!(matches!(left, Err(TpmError::LastTry { .. })), "{left:?}");
    let daemon = lab.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Locked);
    assert_eq!(refused(daemon.client.unlock(pin("123456"))), CustodyError::PinFinalTry);
    daemon.stop();
    // A power cut after a PIN was used takes the last one.
    power_cycle(&mut swtpm, &lab, true, 11);
    let daemon = lab.start();
    let status = daemon.client.status().unwrap();
    assert_eq!(status.state, StateKind::Locked);
    assert!(status.reason.contains("in lockout") && status.advice.contains("switched on"), "{status:?}");
    let locked = refused(daemon.client.unlock(pin("123456")));
    assert!(matches!(locked, CustodyError::TpmLockout { .. }), "{locked}");
}

#[test]
fn the_pin_of_a_tpm_changes() {
    let (_swtpm, lab) = lab(true);
    let (daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    lab.must(&["change-pin", "tpm", "--pin-file", &lab.arg("pin"), "--new-pin-file", &lab.arg("new-pin")]);
    daemon.client.lock().unwrap();
    assert_eq!(refused(daemon.client.unlock(pin("123456"))), CustodyError::PinIncorrect);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(daemon.client.unlock(pin("135790")).unwrap(), StateKind::Operational);
}

/// Puts back what the state file held, and tries to open it by the TPM.
fn opens_a_copy(lab: &Lab, copy: &[u8], with: &str) -> CustodyError {
    fs::write(lab.state("custody.cbor"), copy).unwrap();
    let daemon = lab.start();
    let refused = refused(daemon.client.unlock(pin(with)));
    daemon.stop();
    refused
}

/// A key is destroyed when no copy of any state gives it back: not with the TPM, its PIN and the file of the day before.
/// Where something still does, the answer names it, and it is true.
#[test]
fn a_destroyed_key_comes_back_from_no_copy_and_what_still_opens_one_is_said() {
    let officers = Officers::three();
    let (_swtpm, lab) = lab(true);
    let (daemon, keys, _) = lab.operational_by(&officers, UnlockMode::Attended);
    let retired = key(&keys, KeyPurpose::Consensus).hash.to_string();
    lab.activate_consensus(&officers);
    let copy = fs::read(lab.state("custody.cbor")).unwrap();
    let said = lab.decide(&officers, &["destroy", "consensus", &retired], &[]);
    assert!(said.contains("tpm: its old wrapping key is destroyed"), "{said}");
    assert!(said.contains(&format!("the consensus key {retired} is destroyed")), "{said}");
    daemon.stop();
    let newest = fs::read(lab.state("custody.cbor")).unwrap();
    assert_eq!(opens_a_copy(&lab, &copy, "123456").code(), "custody-kek-missing");
    fs::write(lab.state("custody.cbor"), &newest).unwrap();
    let daemon = lab.start();
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational, "it did no harm");

    // Officers keep their shares over a rotation. So does whoever has M of them, and the file.
    let said = officers.set_recovery(&lab, &[]);
    assert!(said.contains("which stays the same"), "nobody had shares yet: {said}");
    let retired = daemon.client.status().unwrap().key(KeyPurpose::Consensus).unwrap().hash.to_string();
    lab.activate_consensus(&officers);
    let copy = fs::read(lab.state("custody.cbor")).unwrap();
    let said = lab.decide(&officers, &["destroy", "consensus", &retired], &[]);
    assert!(said.contains("taken out, but not destroyed"), "{said}");
    assert!(said.contains("2 of the officers' 3 shares of before opens it"), "{said}");
    let shared = recovery_record(&copy);
    let shares: Vec<_> = (0..2)
        .map(|n| {
            let officer = digest::key_hash(SuiteId::Standard, officers.signing(n).public_key());
            shared.share_of(&officer).unwrap().open(officers.opening(n)).unwrap()
        })
        .collect();
    let record = CustodyRecord::parse(&copy).unwrap();
    let seeds = opened_by(&copy, &shares);
    assert_eq!(seeds.len(), 1 + record.keys.len(), "the root and every seed, the retired one too");
    daemon.stop();
    assert_eq!(opens_a_copy(&lab, &copy, "123456").code(), "custody-kek-missing", "by the TPM it does not");
}

#[test]
fn a_changed_pin_leaves_nothing_that_the_old_one_opens() {
    let (_swtpm, lab) = lab(true);
    let (daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    let copy = fs::read(lab.state("custody.cbor")).unwrap();
    lab.must(&["change-pin", "tpm", "--pin-file", &lab.arg("pin"), "--new-pin-file", &lab.arg("new-pin")]);
    daemon.stop();
    assert_eq!(opens_a_copy(&lab, &copy, "123456").code(), "custody-kek-missing");
}

/// What the registers hold once an image was started that is measured as [`measure`] does.
fn registers_of(image: u8) -> PcrValues {
    let held = |index, event| Pcr { index, value: predict([0; 32], &[[event; 32]]) };
    PcrValues::new(vec![held(7, 7), held(11, image)]).unwrap()
}

fn write_approval(path: &std::path::Path, signer: &PolicySigner, image: u8) {
    let approval = signer.approve(registers_of(image), PolicyRef::images()).unwrap();
    std::fs::write(path, approval.to_bytes()).unwrap();
}

#[test]
fn an_approved_update_opens_the_root_and_no_other_image_does() {
    let (mut swtpm, lab) = (Swtpm::start(), Lab::empty());
    let signer = PolicySigner::generate(zixt_tpm::Profile::P384).unwrap();
    std::fs::write(lab.path("image.policy-key"), signer.public().unwrap().to_bytes()).unwrap();
    std::fs::create_dir(lab.path("approvals")).unwrap();
    let configure = |swtpm: &Swtpm, lab: &Lab| {
        let (key, folder) = (lab.path("image.policy-key"), lab.path("approvals"));
        let more = format!("policy_key = {key:?}\napprovals = {folder:?}\n");
        lab.configure_with(true, &[&tpm(swtpm), &more]);
    };
    let start_image = |swtpm: &mut Swtpm, lab: &Lab, image: u8| {
        swtpm.kill();
        swtpm.power_on();
        measure(swtpm, image);
        configure(swtpm, lab);
    };
    let install = |lab: &Lab, name: &str, signer: &PolicySigner, image| {
        write_approval(&lab.path(name), signer, image);
        lab.admin(&["install-approval", &lab.arg(name)])
    };
    measure(&swtpm, 11);
    configure(&swtpm, &lab);
    // Nobody approved the image that runs: the TPM is not taken into use, and not lost either.
    let daemon = lab.start();
    let refused_first = refused(daemon.client.provision(SuiteId::Standard, true));
    assert_eq!(refused_first.code(), "custody-tpm-pcr-mismatch");
    daemon.stop();
    assert!(install(&lab, "now.approval", &signer, 11).status.success());
    let daemon = lab.operational(SuiteId::Standard, UnlockMode::Attended).0;
    daemon.stop();

    // An update without an approval, and with a stranger's, past the tool that would have refused it.
    start_image(&mut swtpm, &lab, 99);
    let stranger = PolicySigner::generate(zixt_tpm::Profile::P384).unwrap();
    let forged = install(&lab, "forged.approval", &stranger, 99);
    assert!(crate::common::stderr(&forged).contains("not of this policy key"), "{forged:?}");
    let daemon = lab.start();
    for forged in [false, true] {
        if forged {
            write_approval(&lab.path("approvals/forged.approval"), &stranger, 99);
        }
        let mismatch = refused(daemon.client.unlock(pin("123456")));
        assert_eq!(mismatch, CustodyError::TpmPcrMismatch { registers: vec![11] }, "forged: {forged}");
        let status = daemon.client.status().unwrap();
        assert!(status.advice.contains("install the approval"), "{status:?}");
    }
    // What the advice says, with the daemon as it is.
    assert!(install(&lab, "update.approval", &signer, 99).status.success());
    assert_eq!(
        refused(daemon.client.unlock(pin("654321"))),
        CustodyError::PinIncorrect,
        "the PIN still counts"
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    let log = daemon.stop();
    assert!(log.contains("forged.approval is not used"), "{log}");

    // The former image is still approved; one that nobody approved opens nothing.
    start_image(&mut swtpm, &lab, 11);
    assert_eq!(lab.start().client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    start_image(&mut swtpm, &lab, 55);
    assert_eq!(refused(lab.start().client.unlock(pin("123456"))).code(), "custody-tpm-pcr-mismatch");
}

#[test]
fn without_a_policy_key_the_root_is_sealed_to_the_next_image_before_it_starts() {
    let (mut swtpm, lab) = lab(true);
    let (daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    let text = zixt_measured::registers_to_text(&registers_of(99));
    std::fs::write(lab.path("next"), &text).unwrap();
    std::fs::write(lab.path("half"), text.lines().next().unwrap()).unwrap();
    let (next, half, right, wrong) = (lab.arg("next"), lab.arg("half"), lab.arg("pin"), lab.arg("wrong-pin"));
    let reseal = |registers: &str, pin: &str| {
        let output = lab.admin(&["reseal", "--registers", registers, "--pin-file", pin]);
        (output.status.success(), crate::common::stderr(&output))
    };
    assert!(reseal(&half, &right).1.contains("custody-wrong-protector"), "other registers than configured");
    assert!(reseal(&next, &wrong).1.contains("custody-pin-incorrect"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(reseal(&next, &right), (true, String::new()));
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational, "it goes on");
    daemon.stop();
    power_cycle(&mut swtpm, &lab, true, 11);
    assert_eq!(refused(lab.start().client.unlock(pin("123456"))).code(), "custody-tpm-pcr-mismatch");
    power_cycle(&mut swtpm, &lab, true, 99);
    assert_eq!(lab.start().client.unlock(pin("123456")).unwrap(), StateKind::Operational);
}

#[test]
fn a_quote_tells_what_was_started_and_is_worth_nothing_twice() {
    let (mut swtpm, lab) = lab(true);
    let (daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    let quote = |lab: &Lab, name: &str, nonce: u8| {
        lab.must(&["quote", "--nonce", &format!("{nonce:02x}").repeat(32), "--out", &lab.arg(name)]);
        Attestation::parse(&std::fs::read(lab.path(name)).unwrap()).unwrap()
    };
    let first = quote(&lab, "first", 1);
    assert!(first.endorsement.is_some());
    assert_eq!(first.verify(&[1; 32], None, Some(&registers_of(11))).unwrap().values, registers_of(11));
    let second = quote(&lab, "second", 2);
    assert!(second.verify(&[2; 32], Some(&first), None).is_ok());
    let replayed = first.verify(&[2; 32], Some(&first), None);
    assert_eq!(replayed, Err(AttestationError::Quote(QuoteError::Nonce)));
    daemon.stop();

    // Another image: it is told before a PIN is entered, by the key of before.
    power_cycle(&mut swtpm, &lab, true, 99);
    let daemon = lab.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Locked);
    let third = quote(&lab, "third", 3);
    assert_eq!((third.key == first.key, &third.endorsement), (true, &None));
    let changed = third.verify(&[3; 32], Some(&first), None);
    assert_eq!(changed, Err(AttestationError::Started { changed: vec![11] }));
    assert!(third.verify(&[3; 32], Some(&first), Some(&registers_of(99))).is_ok());
    daemon.stop();

    // A key that somebody put in the place of the TPM's is not the one of the reference.
    std::fs::remove_file(lab.state("attestation-key")).unwrap();
    let daemon = lab.start();
    let other = quote(&lab, "other", 4);
    let refused = other.verify(&[4; 32], Some(&first), Some(&registers_of(99)));
    assert_eq!(refused, Err(AttestationError::OtherKey));
    drop(daemon);
}

#[test]
fn a_state_that_was_set_back_is_quarantined_until_officers_decide() {
    let officers = Officers::three();
    let (_swtpm, lab) = lab(true);
    crate::rollback::set_back(&lab, &officers);
}
