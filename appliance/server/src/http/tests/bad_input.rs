//! What foreign bytes get for an answer: a stable code each.

use crate::testing::{Stack, altered, item, tls_of};
use http::StatusCode;
use zixt_api::{Bytes64, ENDPOINTS, EntryPage, Listener, SubmissionItem, SubmitRequest, Who, endpoints};
use zixt_types::{Author, Canonical as _, Epoch, Hash, Payload, Seq, ShardId, limits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_an_entry_has_its_code() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let eve = stack.person("eve").await;
    let thread = stack.conversation(&ada, &bob).await;
    let good = stack.message(thread, &ada, "good");
    let wire = item(&good);
    let with_body = |body: Vec<u8>| SubmissionItem { body: Bytes64(body), ..wire.clone() };
    let bytes = &good.body_bytes;
    let replace = |at: usize, byte: u8| {
        let mut changed = bytes.clone();
        changed[at] = byte;
        with_body(changed)
    };
    let resigned =
        |change: &dyn Fn(&mut zixt_types::Body)| item(&altered(&stack, &good, &ada, |body| change(body)));

    let cases: Vec<(&str, SubmissionItem, &str)> = vec![
        ("empty", with_body(vec![]), "body-malformed"),
        ("truncated", with_body(bytes[..bytes.len() - 3].to_vec()), "body-malformed"),
        ("a byte too many", with_body([bytes.as_slice(), &[0]].concat()), "body-malformed"),
        ("oversized", with_body(vec![0x80; limits::BODY_BYTES_MAX + 1]), "body-too-long"),
        ("a million levels deep", with_body(vec![0x81; 1_000_000]), "body-too-long"),
        ("forty thousand levels deep", with_body(vec![0x81; 40_000]), "body-too-deep"),
        ("unknown version", replace(1, 9), "unknown-version"),
        ("unknown suite", replace(2, 9), "unknown-suite"),
        ("another suite than the signature's", replace(2, 2), "signature-length"),
        ("indefinite length", with_body([&[0x9F], &bytes[1..], &[0xFF]].concat()), "body-not-canonical"),
        ("flipped bit in the body", replace(10, bytes[10] ^ 1), "bad-signature"),
        ("another network", resigned(&|body| body.genesis = Hash([0; 48])), "wrong-genesis"),
        ("no attachment", SubmissionItem { attachments: vec![], ..wire.clone() }, "attachment-count"),
        (
            "another attachment",
            SubmissionItem { attachments: vec![Bytes64(b"other".to_vec())], ..wire.clone() },
            "attachment-digest",
        ),
        (
            "a huge attachment",
            SubmissionItem {
                attachments: vec![Bytes64(vec![0; limits::ENVELOPE_BYTES_MAX + 1])],
                ..wire.clone()
            },
            "attachment-too-long",
        ),
        (
            "short signature",
            SubmissionItem { signature: Bytes64(vec![0; 12]), ..wire.clone() },
            "signature-length",
        ),
        (
            "wrong signature",
            SubmissionItem { signature: Bytes64(vec![1; 3309]), ..wire.clone() },
            "bad-signature",
        ),
        (
            "a second signature",
            SubmissionItem { possession: Some(wire.signature.clone()), ..wire.clone() },
            "possession-missing",
        ),
        ("signed by another device", item(&stack.message_of(&bob, thread)), "author-mismatch"),
        ("replayed counter", resigned(&|body| replay(body)), "counter-replayed"),
        ("skipped counter", resigned(&|body| body.counter = 7), "counter-gap"),
        ("stale epoch", resigned(&|body| set_epoch(body, 0)), "stale-epoch"),
        (
            "another history",
            resigned(&|body| {
                body.last_seen = body.last_seen.map(|head| zixt_types::Head { seq: Seq(9), ..head })
            }),
            "other-history",
        ),
        (
            "author as invitation",
            resigned(&|body| body.author = Author::Device(eve.member)),
            "author-mismatch",
        ),
    ];
    for (what, item, code) in cases {
        let answer =
            stack.post(&ada, endpoints::SUBMISSIONS, &SubmitRequest { submissions: vec![item] }).await;
        assert_eq!(answer.code(), code, "{what}: {}", String::from_utf8_lossy(&answer.body));
    }

    // Somebody who is not in the conversation, under her own name.
    let outsider = stack.message_of(&eve, thread);
    assert_eq!(stack.submit(&eve, &[&outsider]).await.code(), "not-a-member");
    for path in [
        endpoints::fill(endpoints::THREAD, &[&thread]),
        endpoints::fill(endpoints::ENTRIES, &[&thread]),
        endpoints::fill(endpoints::ATTACHMENT, &[&thread, &0, &0]),
        endpoints::fill(endpoints::PROOF, &[&thread, &0]),
    ] {
        assert_eq!(stack.get(&eve, &path).await.code(), "unknown-thread", "{path}");
    }

    // After all that the conversation goes on.
    assert_eq!(stack.submit(&ada, &[&good]).await.status, StatusCode::OK);
    stack.follow();

    // A removed member says nothing more, and reads nothing that came after the removal.
    let removal = stack.net.commit(thread, &ada, vec![], vec![bob.member]);
    assert_eq!(stack.submit(&ada, &[&removal]).await.status, StatusCode::OK);
    stack.follow();
    let late = stack.message_of(&bob, thread);
    assert_eq!(stack.submit(&bob, &[&late]).await.code(), "not-a-member");
    let after = stack.message(thread, &ada, "without bob");
    assert_eq!(stack.submit(&ada, &[&after]).await.status, StatusCode::OK);
    stack.follow();
    let entries = endpoints::fill(endpoints::ENTRIES, &[&thread]);
    for (from, limit, seqs, next) in
        [(0, 256, vec![0, 1, 2], None), (0, 2, vec![0, 1], Some(2)), (3, 9, vec![], None)]
    {
        let page: EntryPage = stack.get(&bob, &format!("{entries}?from={from}&limit={limit}")).await.json();
        assert_eq!((page.entries.iter().map(|entry| entry.seq).collect(), page.next), (seqs, next));
    }
    for (seq, proof, attachment) in [(2, None, None), (3, Some("unknown-entry"), Some("unknown-attachment"))]
    {
        let answer = stack.get(&bob, &endpoints::fill(endpoints::PROOF, &[&thread, &seq])).await;
        assert_eq!((answer.status != StatusCode::OK).then(|| answer.code()), proof);
        let answer = stack.get(&bob, &endpoints::fill(endpoints::ATTACHMENT, &[&thread, &seq, &0])).await;
        assert_eq!((answer.status != StatusCode::OK).then(|| answer.code()), attachment);
    }
    // Who is in it, and what it stands at, is no longer his to know.
    assert_eq!(
        stack.get(&bob, &endpoints::fill(endpoints::THREAD, &[&thread])).await.code(),
        "unknown-thread"
    );
    assert_eq!(stack.get(&eve, &entries).await.code(), "unknown-thread");

    // The loser of two commits learns who won.
    let stale = altered(&stack, &removal, &ada, |body| {
        body.counter = 4;
        body.message_id.0[15] ^= 1;
    });
    let problem = stack.submit(&ada, &[&stale]).await.problem();
    assert_eq!((problem.code.code(), problem.expected, problem.since), ("stale-epoch", Some(2), Some(2)));
    stack.stop().await;
}

fn replay(body: &mut zixt_types::Body) {
    body.counter = 0;
    body.message_id.0[15] ^= 1;
}

fn set_epoch(body: &mut zixt_types::Body, to: u64) {
    if let Payload::Message { epoch, .. } = &mut body.payload {
        *epoch = Epoch(to);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_at_its_first_bad_entry() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let good = stack.message(thread, &ada, "good");
    let gap = altered(&stack, &good, &ada, |body| {
        body.counter += 5;
        body.message_id.0[15] ^= 1;
    });
    let third = altered(&stack, &good, &ada, |body| {
        body.counter += 1;
        body.message_id.0[15] ^= 2;
    });
    let answer: zixt_api::SubmitResponse = stack.submit(&ada, &[&good, &gap, &third]).await.json();
    assert_eq!(answer.receipts.len(), 1);
    let refused = answer.refused.unwrap();
    assert_eq!((refused.code.code(), refused.index), ("counter-gap", Some(1)));
    stack.follow();
    assert_eq!(stack.net.head(&thread).unwrap().seq, Seq(1), "the third was not tried");

    let elsewhere = stack.conversation(&ada, &bob).await;
    let (here, there) = (stack.message(thread, &ada, "a"), stack.message(elsewhere, &ada, "b"));
    assert_eq!(stack.submit(&ada, &[&here, &there]).await.code(), "mixed-threads");
    assert_eq!(stack.submit(&ada, &[]).await.code(), "too-many-items");
    let many = vec![&here; limits::SUBMISSIONS_MAX + 1];
    assert_eq!(stack.submit(&ada, &many).await.code(), "too-many-items");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_bounded_and_faults_of_form_are_named() {
    let mut stack = Stack::new().await;
    let ada = stack.person("ada").await;
    let tls = Some(tls_of(&ada));
    let post = async |path: &str, body: Vec<u8>| stack.call(tls, "POST", path, body).await.code();
    assert_eq!(post(endpoints::SUBMISSIONS, vec![]).await, "malformed-request");
    assert_eq!(
        post(endpoints::SUBMISSIONS, b"{\"submissions\":[{\"body\":\"?\"}]}".to_vec()).await,
        "malformed-request"
    );
    assert_eq!(post(endpoints::SUBMISSIONS, vec![b'['; 1_000_000]).await, "malformed-request");
    assert_eq!(
        post(endpoints::SUBMISSIONS, vec![b' '; limits::REQUEST_BYTES_MAX + 1]).await,
        "request-too-large"
    );
    assert_eq!(post(endpoints::ENROL, vec![b' '; 300_000]).await, "request-too-large");
    assert_eq!(post(endpoints::KEY_PACKAGES, br#"{"one_time":[""]}"#.to_vec()).await, "key-package-too-long");
    let unknown = format!(r#"{{"accounts":["{}"]}}"#, "00".repeat(16));
    assert_eq!(post(endpoints::KEY_PACKAGES_CLAIM, unknown.into()).await, "unknown-account");
    assert_eq!(post(endpoints::NETWORK, vec![]).await, "method-not-allowed");

    let get = async |path: &str| stack.call(tls, "GET", path, vec![]).await.code();
    assert_eq!(get("/v2/network").await, "unknown-endpoint");
    assert_eq!(get("/v1/headers/999").await, "unknown-height");
    assert_eq!(get("/v1/headers/first").await, "malformed-request");
    assert_eq!(get("/v1/consistency").await, "malformed-request");
    assert_eq!(get("/v1/consistency?from_height=99").await, "unknown-height");
    assert_eq!(get("/v1/consistency?from_height=1&shards=a").await, "malformed-request");
    assert_eq!(get("/v1/consistency?from_height=1&shards=9:0").await, "unknown-height");
    assert_eq!(get("/v1/accounts/zz").await, "malformed-request");
    assert_eq!(get(&format!("/v1/threads/{}", "00".repeat(32))).await, "unknown-thread");
    assert_eq!(get("/v1/accounts").await, "malformed-request");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_call_nothing_that_is_for_devices() {
    let stack = Stack::new().await;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.listener() == Listener::Clients) {
        let path = endpoints::fill(endpoint.path, &[&"00".repeat(32), &"0", &"0"]);
        let method = crate::testing::method(endpoint.method);
        for tls in [None, Some(Hash([9; 48]))] {
            let answer = stack.call(tls, method, &path, vec![]).await;
            match endpoint.who {
                Who::Device => assert_eq!(answer.code(), "unknown-caller", "{path}"),
                // Whoever has no key at all has no connection.
                _ if tls.is_none() && endpoint.who != Who::Anyone => {
                    assert_eq!(answer.code(), "unknown-caller", "{path}");
                }
                Who::Account | Who::Roles(_) => assert_eq!(answer.code(), "sign-in-needed", "{path}"),
                _ if tls.is_none()
                    && endpoint.method == zixt_api::Method::Post
                    && (path.starts_with(endpoints::SIGN_IN) || path == endpoints::ACCEPT) =>
                {
                    assert_eq!(answer.code(), "unknown-caller", "{path}");
                }
                _ => assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{path}"),
            }
        }
    }
    for path in [endpoints::ADMIN_STATUS, endpoints::ADMIN_INVITATIONS] {
        assert_eq!(stack.call(None, "GET", path, vec![]).await.code(), "unknown-endpoint");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_works_once_and_names_are_unique() {
    let mut stack = Stack::new().await;
    let invitation = stack.invite("ada").await;
    let (_, again) = stack.net.invite("ADA");
    let mut request = zixt_api::AdminInvitation {
        submission: item(&again),
        name: "ADA".into(),
        salt: zixt_types::Salt([9; 32]).into(),
        link: None,
    };
    for (name, code) in [("ADA", "name-taken"), ("other", "name-mismatch"), ("a\u{202e}b", "name-invalid")] {
        request.name = name.into();
        let answer = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await;
        assert_eq!(answer.code(), code, "{name}");
    }

    // A key that is not the invitation's.
    let stranger =
        zixt_ledger::testing::SampleInvitation { account: invitation.account, key: stack.net.key() };
    let (device, forged) = stack.net.device(invitation.account, Ok(&stranger));
    let enrol = |submission: &zixt_ledger::Submission, name: Option<&str>| zixt_api::EnrolRequest {
        submission: item(submission),
        name: name.map(Into::into),
    };
    let answer = stack.post(&device, endpoints::ENROL, &enrol(&forged, None)).await;
    assert_eq!(answer.code(), "invitation-key");

    let (first, submission) = stack.net.device(invitation.account, Ok(&invitation));
    let wrong_name = stack.post(&first, endpoints::ENROL, &enrol(&submission, Some("eve"))).await;
    assert_eq!(wrong_name.code(), "name-mismatch");
    let receipt: zixt_api::Receipt =
        stack.post(&first, endpoints::ENROL, &enrol(&submission, Some("ada"))).await.json();
    let again: zixt_api::Receipt =
        stack.post(&first, endpoints::ENROL, &enrol(&submission, None)).await.json();
    assert_eq!(receipt.entry, again.entry, "a repeated enrolment is no second one");
    let (second, submission) = stack.net.device(invitation.account, Ok(&invitation));
    let answer = stack.post(&second, endpoints::ENROL, &enrol(&submission, None)).await;
    assert_eq!(answer.code(), "invitation-used");
    stack.follow();
    let message = stack.message_of(&first, stack.net.state.threads().next().map(|(id, _)| *id).unwrap());
    assert!(message.body.to_bytes().len() < 1000);
    let answer = stack.post(&first, endpoints::ENROL, &enrol(&message, None)).await;
    assert_ne!(answer.status, StatusCode::OK);
    stack.stop().await;
}

/// The room for strangers is made for the largest enrolment that there is.
#[test]
fn the_largest_enrolment_fits() {
    use std::sync::Arc;
    let backend = Arc::new(zixt_crypto_fast::AwsLc);
    let mut net = zixt_ledger::testing::SampleNetwork::new(backend, zixt_types::SuiteId::Cnsa, &[1]);
    let (invitation, _) = net.invite("ada");
    let (_, submission) = net.device(invitation.account, Ok(&invitation));
    let name = Some("x".repeat(zixt_types::limits::NAME_BYTES_MAX));
    let bytes = serde_json::to_vec(&zixt_api::EnrolRequest { submission: item(&submission), name }).unwrap();
    assert!(bytes.len() > 26_000 && bytes.len() <= crate::room::ENROL_BYTES_MAX, "{}", bytes.len());
}

/// A row that says another shard or leaf than its entry has is the store's fault, not the caller's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_record_but_not_where_its_row_says_is_the_stores_fault() {
    let mut stack = Stack::new().await;
    stack.person("ada").await;
    let latest = stack.app.view.latest().unwrap();
    let shards = stack.net.state.genesis.shard_count;
    for (shard, leaf) in [(shards, 0), (u16::MAX, 0), (0, 1_000), (0, u64::MAX)] {
        let proof = stack.app.view.prove_entry(&stack.app.store, latest.height, ShardId(shard), leaf).await;
        let problem = crate::problem::of_proof(&proof.unwrap_err());
        assert_eq!((problem.status, problem.code.code()), (500, "store-failed"), "{shard} {leaf}");
    }
    stack.stop().await;
}
