//! Custody of a whole appliance: officers decide with their own program, the server never holds a seed, and what was lost
//! with its devices is recovered on another machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

/// As custody's own tests search.
#[path = "../../hsm/tests/daemon/search.rs"]
mod search;

use search::{found, memory, recovery_record, secrets};
use std::fs;
use std::io::Write as _;
use zixt_hsm_protocol::{BlockingHsmClient, ClientError, KeyPurpose, StateKind, VoteOutcome};
use zixt_tests::copy::copy_folder;
use zixt_tests::officers::Officers;
use zixt_tests::{Appliance, text};
use zixt_types::{
    Body, Canonical as _, CustodyMode, Decision, Genesis, Hash, Height, Payload, Round, Vote, VoteStep,
};

/// Numbers and names of the decisions in the system thread, as a file of evidence has it.
fn decisions(evidence: &str) -> Vec<(u64, &'static str)> {
    let evidence = zixt_ledger::evidence::Evidence::parse(&fs::read(evidence).unwrap()).unwrap();
    let decision = |body: &[u8]| match Body::parse(body).unwrap().payload {
        Payload::Decision { action } => (action.sequence, action.decision.name()),
        other => panic!("{other:?}"),
    };
    evidence.system.unwrap().entries.iter().map(|entry| decision(&entry.body)).collect()
}

/// The keys that the decisions activate, and where officers were told that each lives.
fn activations(evidence: &str) -> Vec<(Hash, CustodyMode)> {
    let evidence = zixt_ledger::evidence::Evidence::parse(&fs::read(evidence).unwrap()).unwrap();
    let activation = |body: &[u8]| match Body::parse(body).unwrap().payload {
        Payload::Decision { action } => match action.decision {
            Decision::ActivateKey { activates, custody, .. } => Some((activates, custody)),
            _ => None,
        },
        other => panic!("{other:?}"),
    };
    evidence.system.unwrap().entries.iter().filter_map(|entry| activation(&entry.body)).collect()
}

/// A vote of this network that contradicts nothing yet.
fn vote(genesis: &Genesis, height: u64) -> Vote {
    Vote {
        version: 1,
        suite: genesis.suite(),
        genesis: zixt_crypto::digest::genesis_hash(genesis),
        height: Height(height),
        round: Round(0),
        step: VoteStep::Precommit,
        header: Some(Hash([7; 48])),
    }
}

#[test]
fn the_server_never_holds_a_seed() {
    let appliance = Appliance::lab();
    let officers = Officers::of(&appliance);
    officers.set_recovery(&appliance);
    let [alice, bob] = ["alice", "bob"].map(|name| appliance.person(name));
    alice.must(&["send", "bob", "hello"]);
    bob.must(&["sync"]);
    // What officers have on paper opens the root and every seed.
    let state = fs::read(appliance.state().join("custody/custody.cbor")).unwrap();
    let shared = recovery_record(&state);
    appliance.hsm(&["shares", "-o", &officers.arg("shares")]);
    let record = officers.arg("shares/recovery.zixt-recovery");
    let shares: Vec<_> = [1, 3]
        .map(|officer| {
            let shown = officers.with_key(&appliance, officer, &["--json", "share", "show", &record]);
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            shared.share_from_paper(shown["words"].as_str().unwrap()).unwrap()
        })
        .into();
    let secrets = secrets(&state, &shares);
    let (zixtd, hsmd) = appliance.pids();
    match memory(zixtd.unwrap()) {
        Ok(memory) => {
            assert!(memory.len() > 1 << 20, "it has a memory");
            assert_eq!(found(&memory, &secrets), [""; 0], "in the server");
            // The search finds what is there.
            let hsmd = memory_of_root(hsmd.unwrap(), &secrets);
            assert!(hsmd.is_none_or(|names| names.contains(&"root".to_owned())));
        }
        // A machine on which a process may not look into its own child's memory. What is on the disk is searched.
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            let line = "ZIXT-SKIP: the_server_never_holds_a_seed: the server's memory cannot be read here\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
    for folder in ["server", "custody"] {
        for entry in fs::read_dir(appliance.state().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(found(&fs::read(&path).unwrap(), &secrets), [""; 0], "{}", path.display());
        }
    }
}

/// What is found in custody's memory, which only root may read.
fn memory_of_root(pid: u32, secrets: &[(String, Vec<u8>)]) -> Option<Vec<String>> {
    nix::unistd::geteuid().is_root().then(|| found(&memory(pid).unwrap(), secrets))
}

#[test]
fn what_was_lost_with_its_devices_is_recovered_by_officers_elsewhere() {
    let mut appliance = Appliance::bare(None, true, true);
    appliance.provision(&[]);
    let officers = Officers::of(&appliance);
    let transcript = officers.proposed(&appliance, &["add-protector", "tpm"], [1, 3]);
    let pin = appliance.state().join("lab/pin");
    let pin = pin.to_str().unwrap();
    appliance.hsm(&["add-protector", "tpm", "--pin-file", pin, "--transcript", &transcript]);
    officers.set_recovery(&appliance);

    let [alice, bob] = ["alice", "bob"].map(|name| appliance.person(name));
    alice.must(&["send", "bob", "before the fire"]);
    bob.must(&["sync"]);
    let evidence = officers.arg("before.zixt-evidence");
    alice.must(&["evidence", "export", "bob", "--with-content", "-o", &evidence]);
    let genesis = Genesis::parse(&fs::read(officers.path("genesis.cbor")).unwrap()).unwrap();
    let network = zixt_crypto::digest::genesis_hash(&genesis).to_hex();
    let people = officers.path("people");
    let old = BlockingHsmClient::new(appliance.hsmd_socket()).status().unwrap();
    let old_key = old.key(KeyPurpose::Consensus).unwrap().hash;

    appliance.stop_zixtd();
    // Decided while nobody brings it into the ledger: it is lost with the machine, if the backup has it not.
    appliance.hsm(&["generate", "consensus"]);
    let unrecorded = officers.proposed(&appliance, &["activate", "consensus"], [2, 3]);
    appliance.hsm(&["apply", &unrecorded]);
    let server = appliance.state().join("server");
    let backup = officers.arg("all.zixt-backup");
    appliance.hsm(&["backup", "--server", server.to_str().unwrap(), "-o", &backup]);
    // Devices of people outlive the appliance.
    copy_folder(&appliance.folder().join("people"), &people);
    let address = appliance.listen();
    // Token, TPM and disk are gone.
    drop(appliance);

    let mut fresh = Appliance::bare(None, true, false);
    let request = officers.arg("lost.zixt-request");
    fresh.hsm(&["recover", "begin", &backup, "-o", &request]);
    let transcript = officers.approve(&fresh, &request, [2, 3]);
    let network_file = officers.arg("genesis.cbor");
    let server = fresh.state().join("server");
    fs::remove_dir_all(&server).unwrap();
    let mut finish = vec!["recover".to_owned(), "finish".to_owned(), backup.clone()];
    finish.extend(["--transcript", &transcript, "--server", server.to_str().unwrap()].map(str::to_owned));
    for officer in [1, 2] {
        let release = officers.arg(&format!("{officer}.zixt-release"));
        let arguments = ["share", "release", &request, "--yes", "-o", &release, "--genesis", &network_file];
        officers.with_key(&fresh, officer, &arguments);
        finish.extend(["--release".to_owned(), release]);
        if officer == 1 {
            let one =
                fresh.command("zixt-hsm").arg("--config").arg(fresh.hsmd_config()).args(&finish).output();
            let one = one.unwrap();
            assert!(
                !one.status.success() && text(&one).contains("custody-recovery-refused"),
                "{}",
                text(&one)
            );
        }
    }
    let finish: Vec<&str> = finish.iter().map(String::as_str).collect();
    assert!(fresh.hsm(&finish).contains("custody is quarantined"));
    let client = BlockingHsmClient::new(fresh.hsmd_socket());
    let quarantined = client.sign_vote(&vote(&genesis, 1_000_000));
    assert!(matches!(quarantined, Err(ClientError::Custody(_))), "{quarantined:?}");

    fresh.hsm(&["generate", "consensus"]);
    let transcript = officers.proposed(&fresh, &["activate", "consensus"], [1, 2]);
    fresh.hsm(&["apply", &transcript]);
    let status = client.status().unwrap();
    assert_eq!(status.state, StateKind::Operational, "{status:?}");
    let key = status.key(KeyPurpose::Consensus).unwrap().clone();
    assert_ne!(key.hash, old_key, "the old key signs nothing any more");
    // The data opens: names are checked with custody's key.
    fresh.fsck();
    let verify = |fresh: &Appliance, file: &str| {
        let arguments = ["--genesis", network.as_str(), "--content", file];
        fresh.command("zixt-verify").args(arguments).output().unwrap()
    };
    let verdict = verify(&fresh, &evidence);
    assert!(verdict.status.success(), "old evidence still verifies: {}", text(&verdict));
    assert!(text(&verdict).contains("before the fire"));

    // And the appliance goes on, certified by the new key.
    fresh.listen_at(address);
    fresh.start_zixtd();
    copy_folder(&people, &fresh.folder().join("people"));
    let [alice, bob] = ["alice", "bob"].map(|name| fresh.known(name));
    for person in [&alice, &bob] {
        person.must(&["sync"]);
    }
    alice.must(&["send", "bob", "after the fire"]);
    bob.must(&["sync"]);
    assert!(bob.must(&["read", "alice"]).contains("after the fire"));
    let after = officers.arg("after.zixt-evidence");
    alice.must(&["evidence", "export", "bob", "--with-content", "-o", &after]);
    // All that custody decided is in the ledger, in its order, whichever machine it was.
    assert_eq!(
        decisions(&after),
        [(0, "add-protector"), (1, "set-recovery"), (2, "activate-key"), (3, "recover"), (4, "activate-key")]
    );
    let (activated, lives) = activations(&after).pop().unwrap();
    assert_eq!((activated, lives), (key.hash, key.custody), "as custody has it");
    let verdict = verify(&fresh, &after);
    assert!(verdict.status.success() && text(&verdict).contains("after the fire"), "{}", text(&verdict));
    let verdict = verify(&fresh, &evidence);
    assert!(verdict.status.success(), "{}", text(&verdict));
    let signed = client.sign_vote(&vote(&genesis, 1_000_000)).unwrap();
    let VoteOutcome::Signed { signature } = signed else { panic!("{signed:?}") };
    let bytes = zixt_crypto::digest::vote_bytes(&vote(&genesis, 1_000_000));
    zixt_crypto::Backend::verify(
        &zixt_crypto::Reference,
        genesis.suite(),
        &key.public_key,
        &bytes,
        &signature,
    )
    .unwrap();
}
