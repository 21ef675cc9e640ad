//! The program as an auditor runs it: exit codes, and files that were tampered with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use zixt_crypto::Reference;
use zixt_ledger::evidence::{CertifiedHeader, Contradiction, Evidence, ForkProof, Signature};
use zixt_ledger::testing::{SampleNetwork, opaque_parts, places_to_change};
use zixt_types::{Hash, SuiteId};
use zixt_verify::{Checked, check};

struct Files {
    folder: tempfile::TempDir,
    genesis: Hash,
    one: Evidence,
    whole: Evidence,
}

impl Files {
    fn new() -> Self {
        let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1]);
        let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
        let thread = network.thread_id();
        let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
        network.seal(vec![commit]);
        network.say(thread, &alice, "is it so?");
        network.say(thread, &bob, "it is\x1b[2J");
        Self {
            folder: tempfile::tempdir().unwrap(),
            genesis: network.state.genesis_hash,
            one: network.evidence(thread, 2..=2, false, false),
            whole: network.evidence(thread, 0..=2, true, true),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn verify(&self, path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
        let genesis = self.genesis.to_hex();
        run(&[&["--genesis", &genesis, path.to_str().unwrap()], more].concat())
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_zixt-verify")).args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn good_files_pass() {
    let files = Files::new();
    let one = files.write("one.zixt-evidence", &files.one.to_bytes());
    let (code, out, _) = files.verify(&one, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("content      not included"), "{out}");
    assert!(out.contains("LAB network"), "{out}");

    let whole = files.write("whole.zixt-evidence", &files.whole.to_bytes());
    let (code, out, _) = files.verify(&whole, &["--content"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("nothing is missing from entry 0 to entry 2"), "{out}");
    assert!(out.contains(r#""it is\u{1b}[2J""#) && !out.contains('\x1b'), "{out}");
    let (_, out, _) = files.verify(&whole, &[]);
    assert!(!out.contains("is it so?"), "content is shown only when asked for");

    let (code, out, _) = files.verify(&whole, &["--json", "--content"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"], &report["kind"]), (Some(0), &true.into(), &"evidence".into()));
    assert_eq!(report["verdicts"]["complete"]["verdict"], "ok");
    assert_eq!(report["entries"][2]["content"], "it is\x1b[2J");
}

#[test]
fn tampered_files_fail_and_say_where() {
    let files = Files::new();
    let mut dropped = files.whole.clone();
    dropped.thread.entries.pop();
    let path = files.write("dropped.zixt-evidence", &dropped.to_bytes());
    let (code, out, _) = files.verify(&path, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(report["verdicts"]["complete"]["findings"][0]["code"], "other-head");
    assert_eq!(report["verdicts"]["author"]["verdict"], "ok");

    let mut edited = files.whole.clone();
    edited.thread.entries[1].disclosure.as_mut().unwrap().content[0] = b'I';
    let path = files.write("edited.zixt-evidence", &edited.to_bytes());
    let (code, out, _) = files.verify(&path, &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("entry 1: the content is not what the author committed to"), "{out}");
    assert!(out.contains("VERIFICATION FAILED"), "{out}");
}

/// Before and after a rotation, with the same genesis hash; and what a forger of the officers' decision gets.
#[test]
fn custody_says_by_whom_a_key_was_activated() {
    let mut network = SampleNetwork::with_officers(Arc::new(Reference), SuiteId::Standard, &[1], 3, 2);
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let thread = network.thread_id();
    let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    network.say(thread, &alice, "before");
    let before = network.evidence(thread, 1..=1, false, false);
    network.rotate(0);
    network.say(thread, &bob, "after");
    let after = network.evidence(thread, 2..=2, false, false);

    let folder = tempfile::tempdir().unwrap();
    let genesis = network.state.genesis_hash.to_hex();
    let verify = |evidence: &Evidence, more: &[&str]| {
        let path = folder.path().join("file.zixt-evidence");
        std::fs::write(&path, evidence.to_bytes()).unwrap();
        run(&[&["--genesis", genesis.as_str(), path.to_str().unwrap()], more].concat())
    };
    let (code, out, _) = verify(&before, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(!out.contains("activated"), "{out}");
    let (code, out, _) = verify(&after, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("seed sealed by the TPM") && out.contains("(key activated 1970-"), "{out}");
    assert!(out.contains("by officers ") && out.contains("officer 1"), "{out}");
    let (_, out, _) = verify(&after, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["signers"][0]["activated"]["officers"].as_array().unwrap().len(), 2);

    let mut forged = after.clone();
    if let Signature::Full(approvals) = &mut forged.system.as_mut().unwrap().entries[0].signature {
        let last = approvals.len() - 1;
        approvals[last] ^= 1;
    }
    let (code, out, _) = verify(&forged, &[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("officers' decision 0: the officers' approvals"), "{out}");
    let (code, out, _) = verify(&Evidence { system: None, ..after }, &[]);
    assert_eq!(code, Some(1), "{out}");
}

#[test]
fn the_other_exit_codes_are_as_documented() {
    let files = Files::new();
    let bytes = files.one.to_bytes();
    let cut = files.write("cut.zixt-evidence", &bytes[..1000]);
    assert_eq!(files.verify(&cut, &[]).0, Some(2));
    let (code, out, _) = files.verify(&cut, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["exit"]), (Some(2), &2.into()));
    assert_eq!(files.verify(&files.write("other", b"%PDF-1.7"), &[]).0, Some(2));
    assert_eq!(files.verify(&files.write("empty", b""), &[]).0, Some(2));
    assert_eq!(files.verify(&files.folder.path().join("absent"), &[]).0, Some(2));

    let one = files.write("one.zixt-evidence", &bytes);
    let one = one.to_str().unwrap();
    assert_eq!(run(&["--genesis", &"00".repeat(48), one]).0, Some(3));
    let (code, _, said) = run(&[one]);
    assert_eq!(code, Some(64));
    assert!(said.contains("ceremony"), "{said}");
    assert_eq!(run(&["--genesis", "abc", one]).0, Some(64));
    assert_eq!(run(&["--genesis", &files.genesis.to_hex()]).0, Some(64));
    assert_eq!(run(&["--unknown", one]).0, Some(64));
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn a_fork_proof_is_checked() {
    let network = |name: &str| {
        let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1]);
        network.enrol(name);
        network
    };
    let (one, other) = (network("alice"), network("mallory"));
    let certified = |network: &SampleNetwork| {
        let (block, certificate) = &network.blocks[0];
        CertifiedHeader { header: block.header().clone(), certificate: certificate.clone() }
    };
    let mut keyring = zixt_ledger::Keyring::default();
    let validator = one.keyring.get(&one.state.genesis.validators[0].consensus).unwrap();
    keyring.insert(validator.suite, &validator.key);
    let fork = ForkProof {
        genesis: (*one.state.genesis).clone(),
        keyring,
        first: certified(&one),
        second: certified(&other),
        contradiction: Contradiction::SameHeight,
        activations: Vec::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.zixt-fork");
    let path = path.to_str().unwrap();
    let genesis = one.state.genesis_hash.to_hex();
    std::fs::write(path, fork.to_bytes()).unwrap();
    let (code, out, _) = run(&["--genesis", &genesis, path]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("PROVEN"), "{out}");
    let honest = ForkProof { second: fork.first.clone(), ..fork };
    std::fs::write(path, honest.to_bytes()).unwrap();
    assert_eq!(run(&["--genesis", &genesis, path]).0, Some(1));
    assert_eq!(run(&["--genesis", &"11".repeat(48), path]).0, Some(3));
}

/// The whole way from bytes to exit code, with bytes changed one at a time.
#[test]
fn no_changed_byte_passes() {
    let files = Files::new();
    let bytes = files.whole.to_bytes();
    for at in places_to_change(&bytes, &opaque_parts(&files.whole)) {
        let mut forged = bytes.clone();
        forged[at] ^= 0x80 >> (at % 8);
        if let Ok(Checked::Evidence(report)) = check(&forged, files.genesis, &Reference) {
            assert!(!report.is_ok(), "byte {at}");
        }
    }
}
