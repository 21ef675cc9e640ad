//! Runs both corpora of hostile sign-ins and prints what became of them as one line of JSON, for the measurements:
//! `cargo run -p zixt-sso --example corpora`, after `cargo build -p zixt-sso`. Exit code 1: one of them was not refused
//! as it has to be, or a good one was.

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::process::ExitCode;
use std::time::Instant;

#[tokio::main]
async fn main() -> ExitCode {
    let mut wrong = Vec::new();

    let manifest = lab::saml::manifest();
    let (mut saml_total, mut saml_refused, mut good_total, mut good_taken) = (0, 0, 0, 0);
    let started = Instant::now();
    for case in &manifest.cases {
        let ended = lab::saml::run(&manifest, case).await;
        let as_expected = ended.code() == case.expected;
        if case.is_good() {
            good_total += 1;
            good_taken += usize::from(as_expected);
        } else {
            saml_total += 1;
            // Refused for another reason than the manifest says is a finding, and is not counted.
            saml_refused += usize::from(as_expected);
        }
        if !as_expected {
            wrong.push(format!("{}: {}", case.name(), ended.code()));
        }
    }
    let saml_ms = started.elapsed().as_millis();

    let lab = lab::oidc::Lab::start().await;
    let (mut oidc_total, mut oidc_refused) = (0, 0);
    let started = Instant::now();
    for case in lab::hostile_oidc::CASES {
        let (twin, hostile) = lab::hostile_oidc::run(&lab, case).await;
        oidc_total += 1;
        good_total += 1;
        good_taken += usize::from(twin.code() == "signed-in");
        oidc_refused += usize::from(hostile.code() == case.expected);
        if hostile.code() != case.expected || twin.code() != "signed-in" {
            wrong.push(format!("{}: {}, its twin: {}", case.name, hostile.code(), twin.code()));
        }
    }
    let oidc_ms = started.elapsed().as_millis();

    println!(
        "{}",
        serde_json::json!({
            "people.hostile_saml_refused": saml_refused,
            "people.hostile_saml_total": saml_total,
            "people.hostile_oidc_refused": oidc_refused,
            "people.hostile_oidc_total": oidc_total,
            "people.good_sso_taken": good_taken,
            "people.good_sso_total": good_total,
            "people.sso_saml_ms": saml_ms,
            "people.sso_oidc_ms": oidc_ms,
        })
    );
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{}", wrong.join("\n"));
    ExitCode::FAILURE
}
