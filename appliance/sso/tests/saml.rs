//! SAML: the corpus of hostile responses, and what becomes of a good one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::saml::{Ended, manifest, run};
use std::collections::BTreeSet;
use zixt_identity::Role;

#[tokio::test]
async fn every_hostile_response_is_refused_and_every_good_one_is_not() {
    let manifest = manifest();
    let names: BTreeSet<_> = manifest.cases.iter().map(lab::saml::Case::name).collect();
    assert_eq!(names.len(), manifest.cases.len(), "a name twice");
    let mut wrong = Vec::new();
    let mut hostile = 0;
    for case in &manifest.cases {
        let ended = run(&manifest, case).await;
        if case.expected == "signed-in" {
            match &ended {
                Ended::Signed(assertion) => {
                    assert_eq!(assertion.unchanging_id(), b"alice-1", "{}", case.name());
                    assert_eq!(assertion.roles(), &BTreeSet::from([Role::User]), "{}", case.name());
                    assert_eq!(assertion.session(), Some("session-1"), "{}", case.name());
                }
                other => wrong.push(format!("{}: {other:?}", case.name())),
            }
        } else {
            hostile += 1;
            if ended.code() != case.expected {
                wrong.push(format!("{}: expected {}, got {ended:?}", case.name(), case.expected));
            }
        }
    }
    assert!(hostile >= 40, "{hostile}");
    assert!(wrong.is_empty(), "{} of {hostile}:\n{}", wrong.len(), wrong.join("\n"));
}
