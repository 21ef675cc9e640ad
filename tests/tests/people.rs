//! People are let in and out by those who may, with the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;
use zixt_tests::officers::Officers;
use zixt_tests::{Appliance, PATIENCE, Person};

/// The account of a person, as their own device knows it.
fn account(person: &Person<'_>) -> String {
    person.json(&["whoami"])["account"].as_str().unwrap().to_owned()
}

/// What an administrator's list says of somebody.
fn listed(by: &Person<'_>, name: &str) -> Value {
    by.json(&["people", "show", name])
}

#[test]
fn people_are_let_in_and_out_by_those_who_may() {
    let appliance = Appliance::lab();
    let officers = Officers::of(&appliance);
    let (alice, bob, root) = (appliance.person("alice"), appliance.person("bob"), appliance.person("root"));
    alice.must(&["send", "bob", "before"]);
    bob.must(&["sync"]);
    assert_eq!(root.json(&["account", "show"])["roles"], serde_json::json!(["user"]));
    let refused = root.refused(&["people", "list"], 5);
    assert!(refused.contains("forbidden"), "{refused}");

    // Officers make an administrator: their own programs, the ledger, and the server that follows it.
    let roles = ["set-roles", &account(&root), "administrator", "user"];
    let transcript = officers.proposed(&appliance, &roles, [1, 3]);
    appliance.hsm(&["apply", &transcript]);
    appliance.until("root is an administrator", || {
        root.json(&["account", "show"])["roles"] == serde_json::json!(["administrator", "user"])
    });
    assert_eq!(root.json(&["people", "list"])["people"].as_array().unwrap().len(), 3);
    let refused = root.refused(&["people", "roles", "bob", "security-officer"], 5);
    assert!(refused.contains("forbidden"), "{refused}");
    let local = appliance.admin(&["people"]);
    assert!(String::from_utf8_lossy(&local.stdout).contains("[administrator user]"), "{local:?}");

    // A held account: its open stream ends within moments, nothing goes in or out, and what is queued stays.
    let mut watching = alice.command();
    let mut watching = watching.args(["watch"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let up = lines.by_ref().map(Result::unwrap).find(|line| line.contains("up"));
    assert!(up.is_some(), "the stream stands");
    root.must(&["people", "suspend", "alice"]);
    let begun = Instant::now();
    let down = lines.map(Result::unwrap).find(|line| line.contains("down"));
    assert!(down.is_some_and(|line| line.contains("sign-in")) && begun.elapsed() < PATIENCE);
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(listed(&root, "alice")["status"], "suspended");
    let refused = alice.refused(&["send", "bob", "from outside"], 5);
    assert!(refused.contains("sign-in-refused"), "{refused}");
    root.must(&["people", "resume", "alice"]);
    alice.must(&["sync"]);
    bob.must(&["sync"]);
    let read = bob.must(&["read", "alice"]);
    assert!(read.contains("before") && read.contains("from outside"), "{read}");

    // Who leaves: the devices end in the ledger, and conversations go on without them.
    root.must(&["people", "offboard", "bob"]);
    let gone = listed(&root, "bob");
    assert_eq!((&gone["status"], &gone["devices"]), (&"offboarded".into(), &serde_json::json!([])));
    let refused = bob.refused(&["sync"], 5);
    assert!(refused.contains("caller-revoked"), "{refused}");

    // All of it is on record.
    let audit = appliance.must("zixt-admin", &["audit", "show", "--run", appliance.run().to_str().unwrap()]);
    for action in [
        "sign-in",
        "officers-decided",
        "account-suspended",
        "account-resumed",
        "account-removed",
        "device-revoked",
    ] {
        assert!(audit.contains(&format!("\"{action}\"")), "{action} is not in the journal");
    }
}

/// What one signs in with, from the command line.
#[test]
fn a_password_is_set_and_sessions_are_listed_and_ended() {
    let appliance = Appliance::lab();
    let alice = appliance.person("alice");
    let file = appliance.folder().join("password");
    std::fs::write(&file, "tall trees lean west today\n").unwrap();
    alice.must(&["account", "password", "--new-password-file", file.to_str().unwrap()]);
    let me = alice.json(&["account", "show"]);
    assert_eq!(me["factors"], serde_json::json!(["password", "device-key"]));
    let sessions = alice.json(&["account", "sessions"]);
    let sessions = sessions["sessions"].as_array().unwrap();
    assert!(sessions.iter().any(|session| session["current"] == true), "{sessions:?}");
    let others = sessions.len() - 1;
    assert_eq!(alice.json(&["account", "end-sessions"])["ended"].as_u64().unwrap() as usize, others + 1);
    std::fs::write(&file, "alice\n").unwrap();
    let refused = alice.refused(&["account", "password", "--new-password-file", file.to_str().unwrap()], 5);
    assert!(refused.contains("password-refused"), "{refused}");
    let codes = alice.json(&["account", "backup-codes"]);
    assert_eq!(codes["codes"].as_array().unwrap().len(), 10);
    let psk = alice.json(&["account", "psk"]);
    assert_eq!(psk["psk"].as_str().unwrap().replace('-', "").len(), 52);
    let me = alice.json(&["account", "show"]);
    assert_eq!(me["factors"], serde_json::json!(["password", "device-key", "psk", "backup-code"]));
}
