//! Evidence that a client writes is what an auditor accepts.

use crate::appliance::{Appliance, flip};
use serde_json::{Value, json};
use zixt_client::{Advice, ClientError};
use zixt_crypto::Reference;
use zixt_ledger::evidence::{Evidence, Verdict};
use zixt_types::Seq;

#[tokio::test]
async fn a_message_or_a_conversation_with_or_without_content() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    for n in 0..3 {
        ada.say(thread, &format!("ada {n}")).await.unwrap();
        bob.sync().await;
        bob.say(thread, &format!("bob {n}")).await.unwrap();
        ada.sync().await;
    }
    let genesis = ada.client().profile().genesis_hash;
    let folder = tempfile::tempdir().unwrap();
    for (seq, with_content, entries) in
        [(Some(Seq(1)), false, 1), (Some(Seq(2)), true, 1), (None, false, 7), (None, true, 7)]
    {
        let path = folder.path().join("it.zixt-evidence");
        ada.client().export_evidence(thread, seq, with_content, &path).await.unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let report = Evidence::parse(&bytes).unwrap().verify(genesis, &Reference).unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(report.entries.len(), entries);
        assert_eq!(report.recorded, Verdict::Ok);
        assert_eq!(report.author, Verdict::Ok);
        let disclosed = report.entries.iter().filter(|entry| entry.content.is_some()).count();
        assert_eq!(disclosed, if with_content { entries.min(6) } else { 0 });
        assert_eq!(report.complete == Verdict::Ok, seq.is_none());
        if !with_content && seq.is_some() {
            assert!(bytes.len() <= 24_000, "{} bytes", bytes.len());
        }
    }
    let path = folder.path().join("no.zixt-evidence");
    let absent = ada.client().export_evidence(thread, Some(Seq(99)), false, &path).await;
    assert!(matches!(absent, Err(ClientError::UnknownMessage(99))), "{absent:?}");
    let change = ada.client().export_evidence(thread, Some(Seq(0)), true, &path).await;
    assert!(matches!(change, Err(ClientError::NoContent(0))), "{change:?}");
    appliance.offline(true);
    let away = ada.client().export_evidence(thread, None, false, &path).await;
    assert!(matches!(away, Err(ClientError::Connection(_))), "{away:?}");
    assert!(!path.exists());
}

/// Who was removed can still prove what was said before.
#[tokio::test]
async fn who_was_removed_proves_what_they_read() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let _cay = appliance.enrol("cay").await;
    let thread = ada.client().start_conversation(&["bob", "cay"], None).await.unwrap();
    ada.say(thread, "said").await.unwrap();
    ada.client().remove_members(thread, &["bob"]).await.unwrap();
    ada.say(thread, "not for bob").await.unwrap();
    bob.sync().await;
    let file = bob.folder.path().join("it.zixt-evidence");
    bob.client().export_evidence(thread, Some(Seq(1)), true, &file).await.unwrap();
    let genesis = bob.client().profile().genesis_hash;
    let report =
        Evidence::parse(&std::fs::read(&file).unwrap()).unwrap().verify(genesis, &Reference).unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert!(report.entries[0].content.is_some());
    // Where the others are is not for him, so neither is a proof that it is all.
    let whole = bob.client().export_evidence(thread, None, true, &file).await;
    assert!(matches!(&whole, Err(ClientError::Removed)), "{whole:?}");
    assert!(bob.alarms().await.is_empty());
}

#[tokio::test]
async fn what_the_appliance_withholds_or_alters_is_a_violation_of_trust() {
    type Lie = (&'static str, Option<Seq>, &'static str, fn(&mut Value));
    let lies: [Lie; 7] = [
        ("withheld", None, "/v1/threads/", |value| {
            if value.get("entries").is_some() {
                value["entries"] = json!([]);
            }
        }),
        ("shard", Some(Seq(1)), "/v1/threads/", |value| {
            if value.get("shard").is_some() {
                flip(&mut value["shard"]["root"]);
            }
        }),
        ("not-recorded", Some(Seq(1)), "/v1/threads/", |value| {
            if value.get("leaf").is_some() {
                value["leaf"] = json!(value["leaf"].as_u64().unwrap() - 1);
            }
        }),
        ("key-missing", Some(Seq(1)), "/v1/accounts/", |view| view["keys"] = json!([])),
        ("account-head", Some(Seq(1)), "/v1/accounts/", |view| {
            view["entries"].as_array_mut().unwrap().pop();
        }),
        ("account-head", Some(Seq(1)), "/v1/accounts/", |view| view["entries"] = json!([])),
        ("other-entry", None, "/v1/accounts/", |view| flip(&mut view["entries"][1]["possession"])),
    ];
    for (code, seq, path, lie) in lies {
        let appliance = Appliance::new();
        let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
        let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
        ada.say(thread, "one").await.unwrap();
        bob.sync().await;
        ada.say(thread, "two").await.unwrap();
        appliance.lock().tamper = Some(Box::new(move |asked, value| {
            if asked.starts_with(path) {
                lie(value);
            }
        }));
        let file = bob.folder.path().join("it.zixt-evidence");
        let error = bob.client().export_evidence(thread, seq, true, &file).await.unwrap_err();
        assert!(matches!(&error, ClientError::Trust(fault) if fault.code() == code), "{code}: {error}");
        assert_eq!((error.kind(), bob.alarms().await), (Advice::Alarm, vec![code.to_owned()]));
        assert!(!file.exists());
        if path == "/v1/threads/" {
            // It stopped the conversation; the whole of it cannot be proven from here any more.
            appliance.lock().tamper = None;
            let error = bob.client().export_evidence(thread, None, false, &file).await.unwrap_err();
            assert!(matches!(error, ClientError::Blocked(_)), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_written_while_proofs_are_collected_is_fetched() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    bob.sync().await;
    ada.say(thread, "meanwhile").await.unwrap();
    // The first question was asked before it was recorded, the proofs after.
    let mut asked_before = false;
    appliance.lock().tamper = Some(Box::new(move |_, value| {
        if value.get("entries").is_some() && value.get("proof").is_none() && !asked_before {
            asked_before = true;
            value["entries"] = json!([]);
        }
    }));
    let file = bob.folder.path().join("it.zixt-evidence");
    bob.client().export_evidence(thread, None, true, &file).await.unwrap();
    let genesis = bob.client().profile().genesis_hash;
    let report =
        Evidence::parse(&std::fs::read(&file).unwrap()).unwrap().verify(genesis, &Reference).unwrap();
    assert_eq!((report.entries.len(), report.complete), (2, Verdict::Ok));
    assert!(bob.alarms().await.is_empty());
}
