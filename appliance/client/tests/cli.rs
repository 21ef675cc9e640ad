//! The program `zixt` as it is run: what can be said without an appliance, and the exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; helpers outside #[test] functions count as well"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use zixt_api::{Checkpoint, InvitationSeed};
use zixt_client::store::Store;
use zixt_client::{Invitation, PassphraseCost};
use zixt_types::{AccountId, Hash, Height, Salt, SuiteId};

const PASSPHRASE: &str = "correct horse battery staple";

fn zixt(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zixt"));
    command.env_clear().env("HOME", folder).arg("--store").arg(folder.join("store"));
    command.stdin(Stdio::null());
    command
}

/// Runs it with a passphrase from the environment.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    zixt(folder).env("ZIXT_PASSPHRASE", PASSPHRASE).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn error_json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("no JSON: {}", error(output)))
}

/// A store that a program of this version made, with nothing in it.
fn empty_store(folder: &Path) -> Store {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = folder.join("store");
    runtime.block_on(Store::create(&folder, PASSPHRASE.as_bytes(), PassphraseCost::MIN)).unwrap()
}

fn invitation(address: &str, lab: bool) -> Invitation {
    Invitation {
        version: 1,
        network: "test\u{202e}net".into(),
        address: address.into(),
        suite: SuiteId::Standard,
        tls: Hash([1; 48]),
        genesis: Hash([2; 48]),
        checkpoint: Checkpoint { height: Height(0), header: Hash::ZERO },
        account: AccountId([5; 16]),
        name: "ada".into(),
        salt: Salt([6; 32]),
        seed: InvitationSeed::new([7; 32]),
        lab,
    }
}

#[test]
fn without_an_account_every_command_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "whoami",
        "status",
        "contacts",
        "chat bob",
        "group create t bob",
        "group add t bob",
        "group remove t bob",
        "group alias t bob",
        "threads",
        "send bob hi",
        "read",
        "sync",
        "watch",
        "tui",
        "evidence export bob -o f",
        "verify bob",
        "devices",
        "alarms",
        "passphrase",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        // No passphrase is asked for in vain.
        let output = zixt(folder.path()).args(&arguments).output().unwrap();
        assert_eq!(code(&output), 8, "{line}: {}", error(&output));
        assert!(error(&output).contains("zixt enrol"), "{line}: {}", error(&output));
    }
    let output = run(folder.path(), &["whoami", "--json"]);
    let document = error_json(&output);
    assert_eq!(document["error"]["exit"], 8);
    assert_eq!(document["error"]["kind"], "account");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_wrong_passphrase_is_said() {
    let folder = tempfile::tempdir().unwrap();
    drop(empty_store(folder.path()));
    let output = zixt(folder.path()).env("ZIXT_PASSPHRASE", "wrong").arg("threads").output().unwrap();
    assert_eq!(code(&output), 3, "{}", error(&output));
    let file = folder.path().join("passphrase");
    std::fs::write(&file, "wrong too\n").unwrap();
    // The file goes before the variable.
    let output = run(folder.path(), &["threads", "--passphrase-file", file.to_str().unwrap()]);
    assert_eq!(code(&output), 3, "{}", error(&output));
    assert!(error(&output).contains("Nobody can recover"), "{}", error(&output));
}

#[test]
fn without_a_terminal_a_passphrase_has_to_be_given() {
    let folder = tempfile::tempdir().unwrap();
    drop(empty_store(folder.path()));
    // A session of its own has no terminal to ask at.
    let output = Command::new("setsid")
        .arg("--wait")
        .arg(env!("CARGO_BIN_EXE_zixt"))
        .args(["--store", folder.path().join("store").to_str().unwrap(), "threads"])
        .env_remove("ZIXT_PASSPHRASE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(code(&output), 64, "{}", error(&output));
    assert!(error(&output).contains("--passphrase-file"), "{}", error(&output));
}

#[test]
fn one_program_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _held = empty_store(folder.path());
    let output = run(folder.path(), &["threads"]);
    assert_eq!(code(&output), 9, "{}", error(&output));
}

#[test]
fn a_damaged_store_is_not_taken_for_another_fault() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("store")).unwrap();
    std::fs::write(folder.path().join("store/store.sqlite"), "this is no database".repeat(100)).unwrap();
    let output = run(folder.path(), &["threads"]);
    assert_eq!(code(&output), 7, "{}", error(&output));
}

#[test]
fn what_is_no_invitation_is_refused_before_a_passphrase_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let good = invitation("127.0.0.1:9", false).to_text();
    let cut = &good[..good.len() - 6];
    for text in ["hello", "zixt-invite:", "zixt-invite:%%%", cut, "/no/such/file"] {
        let output = zixt(folder.path()).args(["enrol", text]).output().unwrap();
        assert_eq!(code(&output), 64, "{text}: {}", error(&output));
    }
    let output = zixt(folder.path()).args(["enrol", "-"]).output().unwrap();
    assert_eq!(code(&output), 64, "{}", error(&output));
    assert!(!folder.path().join("store").exists());
}

#[test]
fn enrolment_needs_a_long_passphrase_except_in_a_lab() {
    let folder = tempfile::tempdir().unwrap();
    let enrol = |lab| {
        let text = invitation("127.0.0.1:9", lab).to_text();
        zixt(folder.path()).env("ZIXT_PASSPHRASE", "short").args(["enrol", &text]).output().unwrap()
    };
    let output = enrol(false);
    assert_eq!(code(&output), 64, "{}", error(&output));
    assert!(error(&output).contains("at least 15"), "{}", error(&output));
    // The lab's goes on to the appliance, which is not there.
    let output = enrol(true);
    assert_eq!(code(&output), 4, "{}", error(&output));
    assert!(error(&output).contains("LAB NETWORK"), "{}", error(&output));
}

#[test]
fn enrolment_shows_what_it_is_about_and_leaves_nothing_without_an_appliance() {
    let folder = tempfile::tempdir().unwrap();
    let text = invitation("127.0.0.1:9", false).to_text();
    let mut child = zixt(folder.path())
        .env("ZIXT_PASSPHRASE", PASSPHRASE)
        .args(["enrol", "--timeout", "20"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = error(&output);
    assert_eq!(code(&output), 4, "{said}");
    assert!(said.contains("on the record") && said.contains(&"02".repeat(48)), "{said}");
    assert!(said.contains("test<U+202E>net") && !said.contains('\u{202e}'), "{said}");
    assert!(!said.contains("LAB"), "{said}");
    assert!(!folder.path().join("store/store.sqlite").exists());

    let file = folder.path().join("invitation");
    std::fs::write(&file, text.as_bytes()).unwrap();
    let output = run(folder.path(), &["enrol", "--json", file.to_str().unwrap()]);
    assert_eq!(error_json(&output)["error"]["kind"], "appliance-away");
}

#[test]
fn an_account_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    drop(empty_store(folder.path()));
    let text = invitation("127.0.0.1:9", true).to_text();
    let output = run(folder.path(), &["enrol", &text]);
    assert_eq!(code(&output), 8, "{}", error(&output));
}

#[test]
fn a_command_line_that_is_not_understood_is_64_and_help_is_0() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["sing", "send bob", "read --limit 0", "group", "--timeout x sync"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        assert_eq!(code(&run(folder.path(), &arguments)), 64, "{line}");
    }
    let output = run(folder.path(), &["--help"]);
    assert_eq!(code(&output), 0);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Exit codes:") && help.contains("64  the command line"), "{help}");
    assert_eq!(code(&run(folder.path(), &["--version"])), 0);
}

#[test]
fn completions_need_no_account() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &["completions", shell]);
        assert_eq!(code(&output), 0, "{}", error(&output));
        assert!(String::from_utf8(output.stdout).unwrap().contains("evidence"));
    }
}
