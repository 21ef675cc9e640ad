//! A token and a TPM over one root: added, unlocked by either, exchanged while the appliance signs.

use crate::common::{
    Daemon, Lab, Officers, copy, key, measure, pin, refused, stderr, stdout, tls_content, tpm, vote,
};
use crate::swtpm::Swtpm;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use zixt_crypto::{Backend as _, Reference};
use zixt_hsm_protocol::{BlockingHsmClient, KeyPurpose, Request, Response, StateKind, VoteOutcome};
use zixt_types::{Genesis, SuiteId, UnlockMode, VoteStep};

/// Longest pause of who signs while the protectors change. It is a fraction of this on an idle machine.
const PAUSE_MAX: Duration = Duration::from_secs(5);

fn unlock_by(client: &BlockingHsmClient, protector: &str) -> StateKind {
    let request = Request::Unlock { pin: pin("123456"), protector: Some(protector.to_owned()) };
    match client.call(&request).unwrap() {
        Response::Unlocked(state) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn officers_let_a_tpm_in_and_a_token_go_while_the_appliance_signs() {
    let (swtpm, lab) = (Swtpm::start(), Lab::new());
    measure(&swtpm, 11);
    let token = move_keys(&lab, [("zixt", &lab.softhsm()), ("tpm", &tpm(&swtpm))]);
    assert!(token.contains("zixt: its old wrapping key is destroyed"), "{token}");
}

/// The other way round, which leaves a TPM that another machine can take into use.
#[test]
fn officers_let_a_token_in_and_a_tpm_go_while_the_appliance_signs() {
    let (swtpm, lab) = (Swtpm::start(), Lab::new());
    measure(&swtpm, 11);
    let said = move_keys(&lab, [("tpm", &tpm(&swtpm)), ("zixt", &lab.softhsm())]);
    assert!(said.contains("tpm: its old wrapping key is destroyed"), "{said}");
    swtpm.tpm().provision(zixt_tpm::ProvisionOptions::default()).unwrap();
}

/// Exchanges one protector for another while the appliance signs. Returns what custody said when the first one went.
fn move_keys(lab: &Lab, [(from, from_part), (to, to_part)]: [(&str, &String); 2]) -> String {
    let officers = Officers::three();
    lab.configure_with(true, &[from_part]);
    let (daemon, keys, genesis) = lab.operational_by(&officers, UnlockMode::Attended);
    daemon.stop();
    lab.configure_with(true, &[from_part, to_part]);
    let daemon = lab.start();
    assert_eq!(unlock_by(&daemon.client, from), StateKind::Operational);
    let pin_file = lab.arg("pin");
    let add = |transcript: Option<&str>| {
        let transcript = transcript.map(|file| ["--transcript", file]).into_iter().flatten();
        let arguments: Vec<&str> =
            ["add-protector", to, "--pin-file", &pin_file].into_iter().chain(transcript).collect();
        lab.admin(&arguments)
    };
    assert!(stderr(&add(None)).contains("custody-not-approved"), "officers have to approve it");
    let one = lab.approved(&officers, &[2], &["add-protector", to]);
    assert!(stderr(&add(Some(&one))).contains("custody-not-approved"), "one is not enough");
    let other = lab.approved(&officers, &[0, 1], &["rotate-root"]);
    assert!(stderr(&add(Some(&other))).contains("something else"), "nor is another decision");
    let status = daemon.client.status().unwrap();
    let new = status.protectors.iter().find(|protector| protector.name == to).unwrap();
    assert!(!new.enrolled && !new.open, "nothing was touched: {status:?}");

    let content = tls_content("TLS 1.3, server CertificateVerify", &[1; 48]);
    let tls = &key(&keys, KeyPurpose::Tls).public_key;
    let done = AtomicBool::new(false);
    let signer = BlockingHsmClient::new(lab.socket());
    let (signatures, pause, said) = std::thread::scope(|scope| {
        let signing = scope.spawn(|| {
            let (mut count, mut pause, mut last) = (0, Duration::ZERO, Instant::now());
            while !done.load(Ordering::Relaxed) {
                let signature = signer.sign_tls(&content).unwrap();
                if count % 100 == 0 {
                    Reference.verify(SuiteId::Standard, tls, &content, &signature).unwrap();
                }
                pause = pause.max(last.elapsed());
                last = Instant::now();
                count += 1;
            }
            (count, pause)
        });
        let transcript = lab.approved(&officers, &[1, 2], &["add-protector", to]);
        let added = add(Some(&transcript));
        assert!(added.status.success(), "{added:?}");
        assert!(stderr(&add(Some(&transcript))).contains("wraps the root already"));
        // Either opens it, whichever is asked for.
        let said = lab.decide(&officers, &["remove-protector", from], &[]);
        assert!(said.contains(&format!("{from} protects nothing any more")), "{said}");
        done.store(true, Ordering::Relaxed);
        let (signatures, pause) = signing.join().unwrap();
        (signatures, pause, said)
    });
    println!("{signatures} signatures; the longest pause was {pause:?}");
    assert!(signatures > 10 && pause < PAUSE_MAX, "{signatures} signatures, a pause of {pause:?}");
    daemon.stop();

    // The other one is not asked for any more.
    lab.configure_with(true, &[to_part]);
    let daemon = lab.start();
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    let status = daemon.client.status().unwrap();
    assert_eq!((status.sequence, status.protectors.len()), (2, 1), "{status:?}");
    daemon.client.sign_vote(&vote(&genesis, 1, 0, VoteStep::Prevote, 1)).unwrap();
    let signature = daemon.client.sign_tls(&content).unwrap();
    Reference.verify(SuiteId::Standard, tls, &content, &signature).unwrap();
    // What officers decided is kept for the ledger.
    let folder = lab.arg("decisions");
    let listed = lab.must(&["decisions", "-o", &folder]);
    assert_eq!(listed, "decision-0.zixt-transcript\ndecision-1.zixt-transcript\n");
    said
}

/// A daemon whose root a token and a TPM wrap.
fn token_and_tpm(lab: &Lab, swtpm: &Swtpm, officers: &Officers) -> (Daemon, Genesis) {
    measure(swtpm, 11);
    lab.configure_with(true, &[&lab.softhsm(), &tpm(swtpm)]);
    let daemon = lab.start();
    daemon.client.provision(SuiteId::Standard, true).unwrap();
    // Before a network is known nothing needs an approval.
    lab.must(&["add-protector", "tpm", "--pin-file", &lab.arg("pin")]);
    let keys = daemon.client.status().unwrap().keys;
    let mut genesis = crate::common::genesis(&keys, UnlockMode::Attended);
    (genesis.officers, genesis.officers_required) = (officers.named(), 2);
    daemon.client.bind_genesis(&zixt_types::Canonical::to_bytes(&genesis)).unwrap();
    (daemon, genesis)
}

/// A copy of the folder is put back that is as old as the last use of the TPM, and the TPM is asked to open it. The days
/// on which the token was used were counted in it too.
#[test]
fn the_tpms_counter_counts_what_the_token_unlocked() {
    let (officers, mut swtpm, lab) = (Officers::three(), Swtpm::start(), Lab::new());
    let (daemon, genesis) = token_and_tpm(&lab, &swtpm, &officers);
    daemon.stop();
    copy(&lab.path("state"), &lab.path("older"));
    let daemon = lab.start();
    assert_eq!(unlock_by(&daemon.client, "zixt"), StateKind::Operational);
    let status = lab.must(&["status"]);
    assert!(
        status.contains("notices rollback while it is open") && status.contains("notices rollback;"),
        "{status}"
    );
    let doctor = stdout(&lab.admin(&["doctor"]));
    assert!(doctor.contains("ok   counter zixt") && doctor.contains("ok   counter tpm"), "{doctor}");
    assert!(doctor.contains("noticed by tpm at every unlock, and by zixt where"), "{doctor}");
    let first = daemon.client.sign_vote(&vote(&genesis, 1, 0, VoteStep::Precommit, 1)).unwrap();
    assert!(matches!(first, VoteOutcome::Signed { .. }), "{first:?}");
    daemon.client.lock().unwrap();
    daemon.stop();
    std::fs::remove_dir_all(lab.path("state")).unwrap();
    copy(&lab.path("older"), &lab.path("state"));

    let daemon = lab.start();
    assert_eq!(unlock_by(&daemon.client, "tpm"), StateKind::Quarantined);
    let second = refused(daemon.client.sign_vote(&vote(&genesis, 1, 0, VoteStep::Precommit, 2)));
    assert_eq!(second.code(), "custody-quarantined");
    lab.activate_consensus(&officers);
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational);
    // The token was away: beside the TPM, which vouches, it opens custody and is corrected.
    daemon.client.lock().unwrap();
    assert_eq!(unlock_by(&daemon.client, "zixt"), StateKind::Operational);
    let doctor = stdout(&lab.admin(&["doctor"]));
    assert!(doctor.contains("ok   counter zixt"), "{doctor}");
    // A TPM that is switched off hides nothing: custody waits for it, and then goes on.
    daemon.client.lock().unwrap();
    swtpm.kill();
    assert_eq!(unlock_by(&daemon.client, "zixt"), StateKind::Quarantined);
    let status = daemon.client.status().unwrap();
    assert!(status.reason.contains("tpm does not tell its counter"), "{}", status.reason);
    let doctor = stdout(&lab.admin(&["doctor"]));
    assert!(doctor.contains("BAD  counter tpm"), "{doctor}");
    daemon.stop();
    swtpm.power_on();
    lab.configure_with(true, &[&lab.softhsm(), &tpm(&swtpm)]);
    let daemon = lab.start();
    assert_eq!(unlock_by(&daemon.client, "zixt"), StateKind::Operational);
}

/// The TPM did not answer when it was removed. Once it does, custody gives it back: nobody else has what that takes.
#[test]
fn a_tpm_that_was_away_when_it_was_removed_is_given_back_later() {
    let (officers, mut swtpm, lab) = (Officers::three(), Swtpm::start(), Lab::new());
    let (daemon, _) = token_and_tpm(&lab, &swtpm, &officers);
    daemon.client.lock().unwrap();
    assert_eq!(unlock_by(&daemon.client, "zixt"), StateKind::Operational);
    swtpm.kill();
    let said = lab.decide(&officers, &["remove-protector", "tpm"], &[]);
    assert!(said.contains("tpm: its old wrapping key is not destroyed yet"), "{said}");
    let doctor = stdout(&lab.admin(&["doctor"]));
    assert!(doctor.contains("leftover tpm"), "{doctor}");
    daemon.stop();
    swtpm.power_on();
    lab.configure_with(true, &[&lab.softhsm(), &tpm(&swtpm)]);
    let taken = swtpm.tpm().provision(zixt_tpm::ProvisionOptions::default());
    assert!(matches!(taken, Err(zixt_tpm::TpmError::AlreadyOwned { .. })), "{taken:?}");
    let daemon = lab.start();
    assert_eq!(unlock_by(&daemon.client, "zixt"), StateKind::Operational);
    let doctor = stdout(&lab.admin(&["doctor"]));
    assert!(!doctor.contains("leftover"), "{doctor}");
    swtpm.tpm().provision(zixt_tpm::ProvisionOptions::default()).unwrap();
}

#[test]
fn either_of_two_protectors_opens_custody() {
    let (officers, swtpm, lab) = (Officers::three(), Swtpm::start(), Lab::new());
    let (daemon, _) = token_and_tpm(&lab, &swtpm, &officers);
    for protector in ["tpm", "zixt", "tpm"] {
        daemon.client.lock().unwrap();
        let open = |daemon: &crate::common::Daemon| {
            daemon
                .client
                .status()
                .unwrap()
                .protectors
                .into_iter()
                .filter(|p| p.open)
                .map(|p| p.name)
                .collect::<Vec<_>>()
        };
        assert!(open(&daemon).is_empty());
        assert_eq!(unlock_by(&daemon.client, protector), StateKind::Operational);
        assert_eq!(open(&daemon), [protector]);
    }
    // A rotation needs both.
    let transcript = lab.approved(&officers, &[0, 1], &["rotate-root"]);
    let missing = lab.admin(&["apply", &transcript]);
    assert!(stderr(&missing).contains("the PIN of zixt is needed too"), "{missing:?}");
    let pins = [format!("zixt={}", lab.arg("pin")), format!("tpm={}", lab.arg("pin"))];
    let said = lab.must(&["apply", &transcript, "--pin", &pins[0], "--pin", &pins[1]]);
    assert!(said.contains("the root has version 2"), "{said}");
    let again = lab.admin(&["apply", &transcript, "--pin", &pins[0]]);
    assert!(stderr(&again).contains("custody-not-approved"), "an approval is good once: {again:?}");
    // One that was set back behind the other's back is found by that other.
    let doctor = lab.admin(&["doctor"]);
    assert!(stdout(&doctor).contains("ok   counter zixt"), "{doctor:?}");
    assert!(stdout(&doctor).contains("ok   counter tpm"), "{doctor:?}");
    // A lost token does not matter.
    daemon.client.lock().unwrap();
    std::fs::rename(lab.path("tokens"), lab.path("gone")).unwrap();
    std::fs::create_dir(lab.path("tokens")).unwrap();
    assert_eq!(unlock_by(&daemon.client, "tpm"), StateKind::Operational);
    assert_eq!(
        refused(daemon.client.provision(SuiteId::Standard, true)).code(),
        "custody-already-provisioned"
    );
    let said = lab.decide(&officers, &["remove-protector", "zixt"], &[]);
    assert!(said.contains("zixt protects nothing any more"), "{said}");
}
