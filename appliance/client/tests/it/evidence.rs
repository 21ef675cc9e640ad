//! Evidence that a client writes is what an auditor accepts.

use crate::appliance::Appliance;
use zixt_client::ClientError;
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
            assert!(bytes.len() <= 24 * 1024, "{} bytes", bytes.len());
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
