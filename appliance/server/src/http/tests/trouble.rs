//! What happens when something around the server fails.

use crate::custody::Custody as _;
use crate::testing::{Stack, tls_of};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use zixt_api::{CustodyState, Health, StreamLine, SubmitResponse, endpoints};
use zixt_types::Seq;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_appliance_refuses_at_once_and_says_so() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let message = stack.message(thread, &ada, "hello");

    stack.custody.set(CustodyState::Locked);
    stack.refresh_custody().await;
    let answer = stack.submit(&ada, &[&message]).await;
    assert_eq!(answer.code(), "custody-locked");
    assert_eq!(answer.head.headers["retry-after"], "5");
    assert_eq!(stack.get(&ada, "/v1/accounts?name=bob").await.code(), "custody-locked", "names are sealed");
    let health = stack.get(&ada, endpoints::HEALTHZ).await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    let health: Health = serde_json::from_slice(&health.body).unwrap();
    assert_eq!((health.ok, health.custody), (false, CustodyState::Locked));
    // What is recorded can still be read.
    assert_eq!(stack.get(&ada, &endpoints::fill(endpoints::THREAD, &[&thread])).await.status, StatusCode::OK);

    stack.custody.unlock();
    stack.refresh_custody().await;
    assert_eq!(stack.submit(&ada, &[&message]).await.status, StatusCode::OK);
    stack.stop().await;
}

/// Custody goes away between the two votes of a height. The log has the batch, so it is recorded as soon as custody
/// signs again: in the same process, or after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_height_that_was_interrupted_is_finished() {
    for restart in [false, true] {
        for votes in [0, 1] {
            let mut stack = Stack::new().await;
            let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
            let thread = stack.conversation(&ada, &bob).await;
            let message = stack.message(thread, &ada, "hello");

            stack.custody.lock_after(votes);
            assert_eq!(stack.submit(&ada, &[&message]).await.code(), "custody-locked");
            if restart {
                stack.stop().await;
                stack.custody.unlock();
                stack.start_again().await;
            } else {
                stack.custody.unlock();
                stack.refresh_custody().await;
            }
            // Another message finds the old one recorded before it, or not at all; the retry is recorded once.
            let answer: SubmitResponse = loop {
                let answer = stack.submit(&ada, &[&message]).await;
                if answer.status == StatusCode::OK {
                    break answer.json();
                }
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.problem());
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            };
            assert_eq!(answer.receipts[0].seq, 1, "restart {restart}, votes {votes}");
            stack.follow();
            assert_eq!(stack.net.head(&thread).unwrap().seq, Seq(1));
            let next = stack.message(thread, &ada, "again");
            assert_eq!(stack.submit(&ada, &[&next]).await.status, StatusCode::OK);
            stack.stop().await;
        }
    }
}

/// Custody is asked what it has signed whenever the log is opened. If it goes away just then, the server waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custody_may_go_away_while_it_is_asked_what_it_has_signed() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let message = stack.message(thread, &ada, "hello");
    stack.custody.lock_after(0);
    assert_eq!(stack.submit(&ada, &[&message]).await.code(), "custody-locked");

    stack.custody.lock_when_asked();
    stack.custody.unlock();
    stack.refresh_custody().await;
    let locked_again = async {
        while stack.custody.state() == CustodyState::Operational {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), locked_again).await.unwrap();
    stack.custody.unlock();
    loop {
        stack.refresh_custody().await;
        let answer = stack.submit(&ada, &[&message]).await;
        if answer.status == StatusCode::OK {
            break;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.problem());
        assert_ne!(answer.code(), "ledger-stopped", "{}", answer.problem());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_is_out_at_once() {
    let mut stack = Stack::new().await;
    let first = stack.person("ada").await;
    let (second, submission) = stack.net.device(first.member.account, Err(&first));
    assert_eq!(stack.submit(&first, &[&submission]).await.status, StatusCode::OK);
    stack.follow();
    assert_eq!(stack.get(&second, endpoints::KEY_PACKAGES).await.status, StatusCode::OK);

    let mut request = Request::builder().uri(endpoints::STREAM).body(Body::empty()).unwrap();
    request.extensions_mut().insert(crate::http::Peer(tls_of(&second)));
    let mut stream = stack.clients.clone().oneshot(request).await.unwrap().into_body();

    let revocation = stack.net.revoke(second.member.device, &first);
    assert_eq!(stack.submit(&first, &[&revocation]).await.status, StatusCode::OK);
    let refused = stack.get(&second, endpoints::KEY_PACKAGES).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "caller-revoked"));
    let last = loop {
        let frame = stream.frame().await.expect("the reason comes before the end").unwrap();
        let line: StreamLine = serde_json::from_slice(&frame.into_data().unwrap()).unwrap();
        if let StreamLine::End { problem } = line {
            break problem;
        }
    };
    assert_eq!(last.code.code(), "caller-revoked");
    assert!(stream.frame().await.is_none());
    // The same after a restart: the ledger remembers whose the key was.
    stack.stop().await;
    stack.start_again().await;
    assert_eq!(stack.get(&second, endpoints::KEY_PACKAGES).await.code(), "caller-revoked");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_has_few_streams_and_they_end_with_the_server() {
    let mut stack = Stack::new().await;
    let ada = stack.person("ada").await;
    let open = async |stack: &Stack| {
        let mut request = Request::builder().uri(endpoints::STREAM).body(Body::empty()).unwrap();
        request.extensions_mut().insert(crate::http::Peer(tls_of(&ada)));
        stack.clients.clone().oneshot(request).await.unwrap()
    };
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(open(&stack).await);
    }
    assert_eq!(open(&stack).await.status(), StatusCode::TOO_MANY_REQUESTS);
    stack.stop().await;
    for stream in streams {
        let bytes = stream.into_body().collect().await.unwrap().to_bytes();
        let last = bytes.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap();
        let line: StreamLine = serde_json::from_slice(last).unwrap();
        assert!(matches!(line, StreamLine::End { problem } if problem.code.code() == "shutting-down"));
    }
}

/// Somebody puts an old copy of the folder back. Custody remembers what it has signed, so the ledger stops instead of
/// growing a second history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_set_back_is_not_continued() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    stack.stop().await;
    let old: Vec<_> = std::fs::read_dir(stack.folder()).unwrap().map(|file| file.unwrap().path()).collect();
    let old: Vec<_> = old.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();

    stack.start_again().await;
    let thread = stack.conversation(&ada, &bob).await;
    for text in ["a", "b"] {
        let message = stack.message(thread, &ada, text);
        assert_eq!(stack.submit(&ada, &[&message]).await.status, StatusCode::OK);
        stack.follow();
    }
    stack.stop().await;
    for file in std::fs::read_dir(stack.folder()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    for (bytes, path) in old {
        std::fs::write(path, bytes).unwrap();
    }

    stack.start_again().await;
    stack.follow();
    let other = stack.net.thread_id();
    let commit = stack.net.commit(other, &ada, vec![bob.member], vec![]);
    assert_eq!(stack.submit(&ada, &[&commit]).await.code(), "ledger-stopped");
    let error = crate::logging::chain(&stack.ended().await.unwrap_err());
    assert!(error.contains("set back"), "{error}");
    let health: Health = serde_json::from_slice(&stack.get(&ada, endpoints::HEALTHZ).await.body).unwrap();
    assert!(health.reason.unwrap().contains("the ledger has stopped"));
}
