//! What is done is in the audit journal before anybody is told that it was done.

use crate::http::{LocalUser, Peer, Remote, listener};
use crate::testing::{Stack, item, read};
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use tower::ServiceExt as _;
use zixt_api::{AdminStatus, AuditPage, EnrolRequest, Health, endpoints};
use zixt_audit::Export;
use zixt_audit::export::{Finding, verify};
use zixt_types::Hash;

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
        link: None,
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
        link: None,
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
async fn on_a_full_disk_nothing_is_begun_that_cannot_be_recorded() {
    let mut stack = Stack::new().await;
    let invite = |stack: &mut Stack, name: &str| {
        let (_, submission) = stack.net.invite(name);
        zixt_api::AdminInvitation {
            submission: item(&submission),
            name: name.into(),
            salt: crate::testing::NAME_SALT.into(),
            link: None,
        }
    };
    stack.disk.fill(true);
    let record = |stack: &Stack| {
        let event = stack.app.audit.event(
            zixt_audit::Action::Alert,
            zixt_audit::Actor::Appliance,
            zixt_audit::Origin::Inside,
        );
        let audit = std::sync::Arc::clone(&stack.app.audit);
        async move { audit.record(event).await }
    };
    while stack.app.audit.health().reserved {
        record(&stack).await.unwrap();
    }
    // On the reserve: what is routine is refused, what concerns security is done, and the status says so.
    assert_eq!(stack.call_admin("GET", endpoints::ADMIN_AUDIT, &()).await.code(), "audit-unavailable");
    let request = invite(&mut stack, "ada");
    let done = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await;
    assert_eq!(done.status, StatusCode::OK);
    stack.follow();
    let status: AdminStatus = stack.call_admin("GET", endpoints::ADMIN_STATUS, &()).await.json();
    assert!(!status.audit.reserved && status.audit.reserve_error.is_some(), "{status:?}");
    assert!(status.audit.room_bytes > 0 && status.audit.refused > 0, "{status:?}");
    let health: Health =
        serde_json::from_slice(&stack.call(None, "GET", endpoints::HEALTHZ, vec![]).await.body).unwrap();
    assert!(health.ok, "{health:?}");

    // Used up: nothing is begun, although the event itself might still find room.
    while stack.app.audit.check().is_ok() {
        record(&stack).await.unwrap();
    }
    let height = stack.app.view.read().state.height;
    let request = invite(&mut stack, "bob");
    let refused = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await;
    assert_eq!(refused.code(), "audit-unavailable");
    assert_eq!(stack.app.view.read().state.height, height, "it was not done");
    record(&stack).await.unwrap();
    let answer = stack.call(None, "GET", endpoints::HEALTHZ, vec![]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let health: Health = serde_json::from_slice(&answer.body).unwrap();
    assert!(health.reason.as_ref().unwrap().contains("audit journal"), "{health:?}");

    // There is room again: that is noticed although everybody is refused before they hand anything in.
    stack.disk.fill(false);
    crate::audit::testing::until("room", || stack.app.audit.check().ok());
    let done = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await;
    assert_eq!(done.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_receiver_holds_up_no_request_and_the_status_names_it() {
    let mut stack = Stack::new().await;
    let authority = crate::audit::testing::Authority::new();
    // Connected to, and silent as long as this test runs: whoever waited for it would never end.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = authority.config(silent.local_addr().unwrap());
    stack.app.audit.start_sinks(crate::audit::Prepared::new(&config).unwrap()).unwrap();
    let began = std::time::Instant::now();
    let ada = stack.person("ada").await;
    let (_, added) = stack.net.device(ada.member.account, Err(&ada));
    assert_eq!(stack.submit(&ada, &[&added]).await.status, StatusCode::OK);
    let took = began.elapsed();
    let status: AdminStatus = stack.call_admin("GET", endpoints::ADMIN_STATUS, &()).await.json();
    let sink = &status.audit_sinks[0];
    assert_eq!((sink.name.as_str(), sink.delivered), ("siem", 0), "{sink:?} after {took:?}");
    assert_eq!(sink.events_behind, status.audit.head, "{sink:?}");
    let recorded = events(&stack).await;
    assert!(short(&recorded).ends_with(&[("device-added", "ok")]), "{recorded:#?}");
    stack.app.audit.stop_sinks(std::time::Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_before_anybody_is_known_are_recorded_and_fill_nothing() {
    let stack = Stack::new().await;
    let from = "192.0.2.7:4711".parse().unwrap();
    for _ in 0..100 {
        stack.app.audit.refused_locally(4242);
        let mut asked = Request::get(endpoints::ACCOUNTS).body(Body::empty()).unwrap();
        asked.extensions_mut().insert(Remote(from));
        asked.extensions_mut().insert(Peer(Hash([9; 48])));
        let refused = read(stack.clients.clone().oneshot(asked).await.unwrap()).await;
        assert_eq!(refused.code(), "unknown-caller");
    }
    let recorded = crate::audit::testing::until("the records", || {
        let events = stack.app.audit.events();
        let refused: Vec<_> =
            events.into_iter().filter(|event| event.action == zixt_audit::Action::AccessRefused).collect();
        (refused.len() >= 2).then_some(refused)
    });
    assert_eq!(recorded.len(), 2, "{recorded:#?}");
    assert_eq!(recorded[0].actor, zixt_audit::Actor::LocalUser(4242));
    assert_eq!(recorded[0].outcome.code().unwrap().as_str(), "not-an-administrator");
    assert_eq!(recorded[1].outcome.code().unwrap().as_str(), "unknown-caller");

    // On the reserve knocking leaves nothing behind.
    stack.disk.fill(true);
    while stack.app.audit.health().reserved {
        stack.app.audit.stopped().unwrap();
    }
    stack.app.audit.refused_locally(4243);
    // What was noted before an event is written with it or before it.
    stack.app.audit.stopped().unwrap();
    let knocked = zixt_audit::Actor::LocalUser(4243);
    assert!(stack.app.audit.events().iter().all(|event| event.actor != knocked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whom_the_admin_socket_refuses_is_recorded() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "ZIXT-SKIP: a_user_whom_the_admin_socket_refuses_is_recorded: only root can become another user"
        );
        return;
    }
    let stack = Stack::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let socket = listener::bind_admin(&path).unwrap();
    for (path, mode) in [(folder.path(), 0o755), (path.as_path(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(listener::serve_admin(
        std::sync::Arc::new(socket),
        stack.admin.clone(),
        [7].into(),
        std::sync::Arc::clone(&stack.app.audit),
        tokio_util::task::TaskTracker::new(),
        shutdown.clone(),
    ));
    // Somebody who may not: what they are shown is the end of the connection.
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 9; \
                  my $n = sysread($s, my $b, 1); exit($n ? 8 : 0)";
    let knock = || {
        let mut perl = tokio::process::Command::new("perl");
        perl.args(["-e", script]).arg(&path).uid(65534).gid(65534);
        perl
    };
    for _ in 0..3 {
        assert!(knock().status().await.unwrap().success());
    }
    let recorded = crate::audit::testing::until("the record", || {
        let events = stack.app.audit.events();
        let refused: Vec<_> =
            events.into_iter().filter(|event| event.action == zixt_audit::Action::AccessRefused).collect();
        (!refused.is_empty()).then_some(refused)
    });
    assert_eq!(recorded.len(), 1, "{recorded:#?}");
    assert_eq!(recorded[0].origin, zixt_audit::Origin::Socket(65534));
    shutdown.cancel();
    serving.await.unwrap();
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
