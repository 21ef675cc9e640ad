//! Schemathesis, a program of others, calls the web listener as `openapi.json` says, and as it does not: no answer is a fault
//! of the server, and none has a status or a type that the document does not have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use zixt_tests::officers::Officers;
use zixt_tests::{Appliance, full, text};

fn repository() -> PathBuf {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR");
    folder.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from).join("..")
}

/// Calls every operation with this token, and fails with what schemathesis says.
fn call_all(appliance: &Appliance, port: u16, token: &str) {
    let installed = Command::new(repository().join("scripts/install-peers.sh"))
        .args(["--print", "schemathesis"])
        .output()
        .unwrap();
    assert!(installed.status.success(), "schemathesis is not installed: run scripts/install-peers.sh");
    let folder = PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim());
    let output = Command::new(folder.join("venv/bin/schemathesis"))
        .arg("run")
        .arg(repository().join("appliance/api/openapi.json"))
        .args(["--url", &format!("https://127.0.0.1:{port}")])
        .arg("--tls-verify")
        .arg(appliance.state().join("server/web/127.0.0.1.pem"))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic"])
        .args(["--max-examples", if full() { "200" } else { "10" }])
        // Fewer than the listener lets one network ask.
        .args(["--rate-limit", "150/s", "--warnings", "off", "--no-color"])
        .current_dir(appliance.folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_program_of_others_finds_no_fault_and_nothing_undocumented() {
    let mut appliance = Appliance::lab();
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    appliance.stop_zixtd();
    appliance.configure(&format!("[web]\nlisten = \"127.0.0.1:{port}\"\n"));
    appliance.start_zixtd();
    let officers = Officers::of(&appliance);
    let root = appliance.person("root");
    let account = root.json(&["whoami"])["account"].as_str().unwrap().to_owned();
    let transcript = officers.proposed(&appliance, &["set-roles", &account, "administrator"], [1, 3]);
    appliance.hsm(&["apply", &transcript]);
    appliance.until("root is an administrator", || {
        root.json(&["account", "show"])["roles"] == serde_json::json!(["administrator"])
    });
    let invited = appliance.admin(&["invite", "scanner", "--json"]);
    assert!(invited.status.success());
    root.must(&["people", "roles", "scanner", "service"]);
    let scopes = ["accounts:read", "accounts:hold", "health:read", "events:read"];
    let mut command = vec!["people", "make-token", "scanner", "--name", "schemathesis"];
    command.extend(scopes.iter().flat_map(|scope| ["--scope", scope]));
    let made = root.json(&command);
    let tokens = root.must(&["people", "tokens", "scanner"]);
    assert!(tokens.contains("schemathesis") && tokens.contains("events:read"), "{tokens}");
    call_all(&appliance, port, made["token"].as_str().unwrap());
    // Nobody who has signed in.
    call_all(&appliance, port, "0000-0000");
    root.must(&["people", "end-token", "scanner", made["id"].as_str().unwrap()]);
    assert!(!root.must(&["people", "tokens", "scanner"]).contains("schemathesis"));
}
