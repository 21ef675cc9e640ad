//! What happens when something around the server fails.

use crate::custody::Custody as _;
use crate::room::{ENROL_BYTES_MAX, LARGE_BYTES, STRANGERS_MAX};
use crate::testing::{Stack, tls_of};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::ServiceExt as _;
use zixt_api::{CustodyState, EntryProof, Health, StreamLine, SubmitResponse, endpoints};
use zixt_ledger::BlockBuilder;
use zixt_ledger::testing::SampleDevice;
use zixt_types::{Certificate, Hash, Round, Salt, Seq, ThreadKind, limits};

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
                tokio::time::sleep(Duration::from_millis(20)).await;
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
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), locked_again).await.unwrap();
    stack.custody.unlock();
    loop {
        stack.refresh_custody().await;
        let answer = stack.submit(&ada, &[&message]).await;
        if answer.status == StatusCode::OK {
            break;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.problem());
        assert_ne!(answer.code(), "ledger-stopped", "{}", answer.problem());
        tokio::time::sleep(Duration::from_millis(20)).await;
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
    stack.sign_in(&second).await;
    assert_eq!(stack.get(&second, endpoints::KEY_PACKAGES).await.status, StatusCode::OK);

    let mut request = Request::builder().uri(endpoints::STREAM).body(Body::empty()).unwrap();
    stack.sign(&mut request, tls_of(&second));
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
        stack.sign(&mut request, tls_of(&ada));
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
    let files = |folder: &std::path::Path| -> Vec<_> {
        let paths = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        paths.filter(|path| path.is_file()).collect()
    };
    let old: Vec<_> =
        files(stack.folder()).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();

    stack.start_again().await;
    let thread = stack.conversation(&ada, &bob).await;
    for text in ["a", "b"] {
        let message = stack.message(thread, &ada, text);
        assert_eq!(stack.submit(&ada, &[&message]).await.status, StatusCode::OK);
        stack.follow();
    }
    stack.stop().await;
    for file in files(stack.folder()) {
        std::fs::remove_file(file).unwrap();
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

/// A height is durable before it is published. Who reads the store in between waits for that, and is told no fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_durable_and_not_yet_published_is_waited_for() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let message = stack.message(thread, &ada, "hello");
    let mut builder = BlockBuilder::new(&stack.net.state, stack.net.now);
    builder.add(message.clone(), Salt([1; 32])).unwrap();
    let block = Arc::new(builder.finish());
    let certificate = Certificate {
        version: Certificate::VERSION,
        height: block.header().height,
        round: Round(0),
        header: block.header_hash,
        signatures: Vec::new(),
    };
    stack.app.store.commit_batch(&block, &certificate).await.unwrap();

    let mut stream = open_stream(&stack, &bob, "").await;
    let ask = |method: &'static str, path: String, body: Vec<u8>| {
        let mut request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        stack.sign(&mut request, tls_of(&ada));
        let router = stack.clients.clone();
        tokio::spawn(async move { crate::testing::read(router.oneshot(request).await.unwrap()).await })
    };
    let proof = ask("GET", endpoints::fill(endpoints::PROOF, &[&thread, &1]), Vec::new());
    let again = zixt_api::SubmitRequest { submissions: vec![crate::testing::item(&message)] };
    let again = ask("POST", endpoints::SUBMISSIONS.to_owned(), serde_json::to_vec(&again).unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!proof.is_finished() && !again.is_finished());
    stack.app.view.publish(&block, &certificate);
    let proof: EntryProof = proof.await.unwrap().json();
    assert_eq!(proof.certified.height, block.header().height.0);
    let again: SubmitResponse = again.await.unwrap().json();
    assert_eq!(again.receipts[0].entry.0, block.entries[0].hash);
    let seqs: Vec<u64> = [next_event(&mut stream).await, next_event(&mut stream).await].map(|e| e.seq).into();
    assert_eq!(seqs, [0, 1]);
    stack.stop().await;
}

/// Whoever only announces a large request takes no room from others, and only one at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_requests_do_not_stand_in_the_way() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let others = [stack.person("eve").await, stack.person("mallory").await, stack.person("trudy").await];
    let thread = stack.conversation(&ada, &bob).await;
    let idle = |device: &SampleDevice| {
        let mut request = Request::builder()
            .method("POST")
            .uri(endpoints::SUBMISSIONS)
            .body(Body::from_stream(tokio_stream::pending::<Result<bytes::Bytes, Infallible>>()))
            .unwrap();
        stack.sign(&mut request, tls_of(device));
        tokio::spawn(stack.clients.clone().oneshot(request))
    };
    let waiting: Vec<_> = others.iter().flat_map(|device| [idle(device), idle(device)]).collect();
    let mut busy = 0;
    let first_answers = async {
        while busy < others.len() {
            busy = waiting.iter().filter(|request| request.is_finished()).count();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), first_answers).await.unwrap();
    assert_eq!(busy, others.len(), "each has one that waits");
    // A large request, small ones, and an administrator's.
    let tls = Some(tls_of(&ada));
    let large = stack.call(tls, "POST", endpoints::SUBMISSIONS, vec![b' '; limits::REQUEST_BYTES_MAX]).await;
    assert_eq!(large.code(), "malformed-request");
    let message = stack.message(thread, &ada, "hello");
    assert_eq!(stack.submit(&ada, &[&message]).await.status, StatusCode::OK);
    stack.follow();
    stack.invite("newcomer").await;
    for request in waiting {
        if request.is_finished() {
            let answer = crate::testing::read(request.await.unwrap().unwrap()).await;
            assert_eq!(answer.code(), "busy");
        } else {
            request.abort();
        }
    }
    stack.stop().await;
}

/// A body that announces so many bytes, sends some, and then nothing any more.
struct Stalling {
    announced: u64,
    sent: Option<bytes::Bytes>,
}

impl http_body::Body for Stalling {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        self.sent.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.announced)
    }
}

/// Whoever sends most of a request and stops takes no room from others: neither strangers nor a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_stop_half_way_do_not_stand_in_the_way() {
    let mut stack = Stack::new().await;
    let (ada, bob, mallory) =
        (stack.person("ada").await, stack.person("bob").await, stack.person("mal").await);
    let thread = stack.conversation(&ada, &bob).await;
    let stall = |tls: Hash, path: &'static str, announced: usize| {
        let sent = Some(vec![b' '; announced - 1].into());
        let body = Body::new(Stalling { announced: announced as u64, sent });
        let mut request = Request::builder().method("POST").uri(path).body(body).unwrap();
        stack.sign(&mut request, tls);
        tokio::spawn(stack.clients.clone().oneshot(request))
    };
    let mut stalled = Vec::new();
    // As many strangers as may be connected, each with as much as they may send, and with more.
    for number in 0..STRANGERS_MAX {
        let tls = Hash([u8::try_from(number).unwrap(); 48]);
        stalled.push(stall(tls, endpoints::ENROL, ENROL_BYTES_MAX));
        stalled.push(stall(tls, endpoints::ENROL, 256 * 1024));
    }
    // All connections of a member.
    for _ in 0..16 {
        stalled.push(stall(tls_of(&mallory), endpoints::SUBMISSIONS, LARGE_BYTES));
    }
    let waiting = || stalled.iter().filter(|request| !request.is_finished()).count();
    let settled = async {
        while waiting() > STRANGERS_MAX + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), settled).await.unwrap();
    assert_eq!(waiting(), STRANGERS_MAX + 1, "each stranger has one that waits, and so has the member");
    let full = stack.call(Some(tls_of(&ada)), "POST", endpoints::SUBMISSIONS, vec![b' '; LARGE_BYTES]).await;
    assert_eq!(full.code(), "malformed-request");
    let message = stack.message(thread, &ada, "hello");
    assert_eq!(stack.submit(&ada, &[&message]).await.status, StatusCode::OK);
    stack.follow();
    // They are given up soon.
    for request in stalled {
        let answer = crate::testing::read(request.await.unwrap().unwrap()).await;
        let code = answer.code();
        assert!(["busy", "request-too-large", "request-timeout"].contains(&code), "{code}");
    }
    stack.person("newcomer").await;
    stack.stop().await;
}

/// An answer waits for the room that it takes, and not for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_answer_does_not_wait_for_large_ones() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let all = stack.app.rooms.answers.wait(tls_of(&bob), u64::MAX).await;
    // A commit may have eight MiB. This one has not.
    let path = endpoints::fill(endpoints::ATTACHMENT, &[&thread, &0, &0]);
    let answer = tokio::time::timeout(Duration::from_secs(5), stack.get(&ada, &path)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    drop(all);
    stack.stop().await;
}

/// An account that has had many devices is a large answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_account_waits_for_room() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    for _ in 0..26 {
        let (other, added) = stack.net.device(ada.member.account, Err(&ada));
        assert_eq!(stack.submit(&ada, &[&added]).await.status, StatusCode::OK);
        stack.follow();
        let revoked = stack.net.revoke(other.member.device, &ada);
        assert_eq!(stack.submit(&ada, &[&revoked]).await.status, StatusCode::OK);
        stack.follow();
    }
    let all = stack.app.rooms.answers.wait(tls_of(&ada), u64::MAX).await;
    let path = |device: &SampleDevice| endpoints::fill(endpoints::ACCOUNT, &[&device.member.account]);
    let small = tokio::time::timeout(Duration::from_secs(5), stack.get(&bob, &path(&bob))).await.unwrap();
    assert_eq!(small.status, StatusCode::OK);
    let waits = tokio::time::timeout(Duration::from_millis(300), stack.get(&bob, &path(&ada))).await;
    assert!(waits.is_err(), "there is no room");
    drop(all);
    let view: zixt_api::AccountView = stack.get(&bob, &path(&ada)).await.json();
    assert_eq!(view.entries.len(), 2 + 52);
    stack.stop().await;
}

/// A position that does not exist yet acknowledges nothing that is still to come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_acknowledges_what_is_not_there() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    for after in [1_000, u64::MAX] {
        let mut stream = open_stream(&stack, &bob, &format!("?after={after}")).await;
        let end = stack.app.store.last_position().await.unwrap();
        assert_eq!(stack.app.store.acknowledged(&bob.member).await.unwrap(), end);
        let message = stack.message(thread, &ada, "hello");
        assert_eq!(stack.submit(&ada, &[&message]).await.status, StatusCode::OK);
        stack.follow();
        assert_eq!(next_event(&mut stream).await.entry.0, stack.net.head(&thread).unwrap().hash);
    }
    stack.stop().await;
}

async fn open_stream(stack: &Stack, device: &SampleDevice, query: &str) -> Body {
    let path = format!("{}{query}", endpoints::STREAM);
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    stack.sign(&mut request, tls_of(device));
    stack.clients.clone().oneshot(request).await.unwrap().into_body()
}

/// The next entry of a conversation.
async fn next_event(stream: &mut Body) -> zixt_api::Entry {
    loop {
        let frame = stream.frame().await.expect("the stream goes on").unwrap();
        match serde_json::from_slice(&frame.into_data().unwrap()).unwrap() {
            StreamLine::Heartbeat { .. } => {}
            StreamLine::Event { entry, .. } if entry.thread.0.kind() == Some(ThreadKind::Account) => {}
            StreamLine::Event { entry, .. } => return entry,
            StreamLine::End { problem } => panic!("{problem}"),
        }
    }
}
