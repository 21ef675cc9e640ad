//! What is done is in the audit journal before anybody is told that it was done.

use crate::http::{LocalUser, Remote};
use crate::testing::{Stack, item, read};
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;
use zixt_api::{AuditPage, EnrolRequest, Health, endpoints};
use zixt_audit::Export;
use zixt_audit::export::{Finding, verify};

/// The events so far, without those of reading them.
async fn events(stack: &Stack) -> Vec<Value> {
    let page: AuditPage = stack.call_admin("GET", endpoints::ADMIN_AUDIT, &()).await.json();
    assert!(!page.more);
    let events = page.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let quiet = ["journal-opened", "journal-read", "journal-exported"];
    events.filter(|event| !quiet.contains(&event["action"].as_str().unwrap())).collect()
}

fn short(events: &[Value]) -> Vec<(&str, &str)> {
    events
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_devices_are_recorded_with_who_and_from_where() {
    let mut stack = Stack::new().await;
    // By a user of the machine, and from an address.
    let (invitation, submission) = stack.net.invite("ada");
    let request = zixt_api::AdminInvitation {
        submission: item(&submission),
        name: "ada".into(),
        salt: crate::testing::NAME_SALT.into(),
    };
    let body = Body::from(serde_json::to_vec(&request).unwrap());
    let mut asked = Request::post(endpoints::ADMIN_INVITATIONS).body(body).unwrap();
    asked.extensions_mut().insert(LocalUser(1234));
    assert_eq!(read(stack.admin.clone().oneshot(asked).await.unwrap()).await.status, StatusCode::OK);
    stack.follow();
    let (ada, submission) = stack.net.device(invitation.account, Ok(&invitation));
    let request = EnrolRequest { submission: item(&submission), name: Some("ada".into()) };
    let body = Body::from(serde_json::to_vec(&request).unwrap());
    let mut asked = Request::post(endpoints::ENROL).body(body).unwrap();
    asked.extensions_mut().insert(Remote("192.0.2.7:4711".parse().unwrap()));
    assert_eq!(read(stack.clients.clone().oneshot(asked).await.unwrap()).await.status, StatusCode::OK);
    stack.follow();
    stack.sign_in(&ada).await;

    let (second, added) = stack.net.device(ada.member.account, Err(&ada));
    assert_eq!(stack.submit(&ada, &[&added]).await.status, StatusCode::OK);
    stack.follow();
    let revoked = stack.net.revoke(second.member.device, &ada);
    assert_eq!(stack.submit(&ada, &[&revoked]).await.status, StatusCode::OK);
    // What a rule is against is recorded too: this device is revoked already.
    stack.follow();
    let again = stack.net.revoke(second.member.device, &ada);
    assert!(stack.submit(&ada, &[&again]).await.status.is_client_error());

    let events = events(&stack).await;
    let actions: Vec<(&str, &str)> = short(&events);
    let expected = [
        ("account-invited", "ok"),
        ("device-added", "ok"),
        ("sign-in", "ok"),
        ("device-added", "ok"),
        ("device-revoked", "ok"),
        ("device-revoked", "refused"),
    ];
    assert_eq!(actions, expected, "{events:#?}");
    let text = |event: usize| events[event].to_string();
    assert!(text(0).contains("1234"), "{}", text(0));
    assert!(text(1).contains("192.0.2.7"), "{}", text(1));
    assert!(text(4).contains(&second.member.device.to_hex()), "{}", text(4));
    assert!(!text(0).contains("ada\""), "names are sealed in the store, and not here in clear: {}", text(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_that_cannot_be_recorded() {
    let mut stack = Stack::new().await;
    let ada = stack.person("ada").await;
    stack.disk.fail();
    let (_, added) = stack.net.device(ada.member.account, Err(&ada));
    // The one that finds it out: it may have been done, and is not acknowledged.
    assert_eq!(stack.submit(&ada, &[&added]).await.code(), "audit-unavailable");
    // From then on nothing is begun any more.
    let height = stack.app.view.read().state.height;
    let (_, submission) = stack.net.invite("bob");
    let request = zixt_api::AdminInvitation {
        submission: item(&submission),
        name: "bob".into(),
        salt: crate::testing::NAME_SALT.into(),
    };
    let refused = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await;
    assert_eq!(refused.code(), "audit-unavailable");
    assert_eq!(stack.app.view.read().state.height, height);
    let answer = stack.call(None, "GET", endpoints::HEALTHZ, vec![]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let health: Health = serde_json::from_slice(&answer.body).unwrap();
    assert!(!health.ok && health.reason.as_ref().unwrap().contains("audit journal"), "{health:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_read_and_exported_and_says_so() {
    let mut stack = Stack::new().await;
    stack.person("ada").await;
    let cef = format!("{}?form=cef", endpoints::ADMIN_AUDIT);
    let page: AuditPage = stack.call_admin("GET", &cef, &()).await.json();
    assert!(page.lines.iter().all(|line| line.starts_with("CEF:0|")), "{page:?}");
    let wrong = format!("{}?form=xml", endpoints::ADMIN_AUDIT);
    assert_eq!(stack.call_admin("GET", &wrong, &()).await.code(), "malformed-request");

    let file = stack.call_admin("GET", endpoints::ADMIN_AUDIT_EXPORT, &()).await;
    assert_eq!(file.status, StatusCode::OK);
    let export = Export::from_file(&file.body).unwrap();
    let actions: Vec<&str> = export.records().map(|record| record.event().unwrap().action.name()).collect();
    assert_eq!(actions.last(), Some(&"journal-exported"), "{actions:?}");
    assert!(actions.contains(&"journal-read"), "{actions:?}");
    assert_eq!(verify(&export, &[]).findings, [Finding::NotAnchored]);

    let nothing = format!("{}?first=1000", endpoints::ADMIN_AUDIT_EXPORT);
    assert_eq!(stack.call_admin("GET", &nothing, &()).await.code(), "malformed-request");

    // A page ends where it is full, and the next one goes on there.
    let first: AuditPage =
        stack.call_admin("GET", &format!("{}?limit=2", endpoints::ADMIN_AUDIT), &()).await.json();
    assert_eq!((first.lines.len(), first.more), (2, true));
    let path = format!("{}?from={}&limit=1", endpoints::ADMIN_AUDIT, first.next);
    let second: AuditPage = stack.call_admin("GET", &path, &()).await.json();
    assert_eq!(second.next, first.next + 1);
}
