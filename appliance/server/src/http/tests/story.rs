//! What works when everybody behaves.

use crate::testing::{Stack, item, tls_of};
use http::StatusCode;
use http_body_util::BodyExt as _;
use zixt_api::{
    AccountName, AccountView, Bytes64, ClaimRequest, ClaimResponse, Consistency, EntryPage, EntryProof,
    Health, KeyPackageCounts, KeyPackageUpload, Network, Receipt, StreamLine, SubmitResponse, ThreadView,
    endpoints,
};
use zixt_crypto::digest;
use zixt_ledger::testing::{SampleDevice, SampleNetwork};
use zixt_ledger::{Keyring, certificate, map::MapProof, tree};
use zixt_types::{
    Attachment, Canonical as _, Certificate, EntryPosition, Genesis, Hash, Head, Header, Seq, ShardId,
    ShardState, Timestamp,
};

/// What a client does with a certified header.
fn check_header(net: &SampleNetwork, certified: &zixt_api::CertifiedHeader) -> Header {
    let header = Header::parse(&certified.header.0).unwrap();
    let certified_by = Certificate::parse(&certified.certificate.0).unwrap();
    let validators = &net.state.genesis.validators;
    certificate::verify_certificate(&header, &certified_by, validators, &net.keyring, &*net.backend).unwrap();
    header
}

fn hashes(path: &[zixt_api::HashHex]) -> Vec<Hash> {
    path.iter().map(|hash| hash.0).collect()
}

fn check_shard(header: &Header, proof: &zixt_api::ShardProof) {
    let state = ShardState { shard: ShardId(proof.shard), size: proof.size, root: proof.root.0 };
    let leaf = tree::shard_leaf(&state);
    tree::verify_inclusion(leaf, u64::from(proof.shard), 4, &hashes(&proof.path), header.shards).unwrap();
}

/// What a client does with a proof of an entry.
fn check_entry(net: &SampleNetwork, salt: zixt_types::Salt, entry: Hash, proof: &EntryProof) {
    let header = check_header(net, &proof.certified);
    check_shard(&header, &proof.shard);
    let leaf = tree::leaf_hash(&salt, &entry);
    tree::verify_inclusion(leaf, proof.leaf, proof.shard.size, &hashes(&proof.path), proof.shard.root.0)
        .unwrap();
}

fn check_receipt(net: &SampleNetwork, submission: &zixt_ledger::Submission, receipt: &Receipt) {
    let position =
        EntryPosition { seq: Seq(receipt.seq), prev: receipt.prev.0, time: Timestamp(receipt.time) };
    let possession = submission.possession.as_deref().map(digest::signature_digest);
    let signature = digest::signature_digest(&submission.signature);
    let hash = digest::entry_hash(&submission.body_bytes, signature, possession, &position);
    assert_eq!(receipt.entry.0, hash);
    assert_eq!(receipt.message_id.0, submission.body.message_id);
    check_entry(net, receipt.salt.0, hash, &receipt.proof);
}

/// Lines of a device's stream until `count` events came.
async fn events(stack: &Stack, device: &SampleDevice, after: Option<u64>, count: usize) -> Vec<StreamLine> {
    let path =
        after.map_or(endpoints::STREAM.to_owned(), |after| format!("{}?after={after}", endpoints::STREAM));
    let mut body = stack.open_stream(device, &path).await;
    let mut lines = Vec::new();
    while lines.len() < count {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        match serde_json::from_slice(&frame.into_data().unwrap()).unwrap() {
            StreamLine::Heartbeat { .. } => {}
            line => lines.push(line),
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_meet_and_every_proof_holds() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("Ada").await, stack.person("bob").await);

    let health: Health = stack.get(&ada, endpoints::HEALTHZ).await.json();
    assert!(health.ok && health.height == 4 && health.last_commit_at.is_some(), "{health:?}");

    // Whoever connects learns what the network is, and checks it against the pin.
    let network: Network = stack.call(None, "GET", endpoints::NETWORK, vec![]).await.json();
    let genesis = Genesis::parse(&network.genesis.0).unwrap();
    assert_eq!(digest::genesis_hash(&genesis), stack.net.state.genesis_hash);
    let keyring = Keyring::parse(&network.keyring.0).unwrap();
    assert!(keyring.get(&genesis.enrollers[0]).is_some());
    let old = check_header(&stack.net, network.latest.as_ref().unwrap());

    // Names are found whatever their case.
    let found: AccountName = stack.get(&bob, "/v1/accounts?name=aDA").await.json();
    assert_eq!((found.account.0, found.name.as_str()), (ada.member.account, "Ada"));
    assert_eq!(stack.get(&bob, "/v1/accounts?name=eve").await.code(), "unknown-name");

    // Key packages go out once; the one of last resort again and again.
    let upload = KeyPackageUpload {
        one_time: vec![Bytes64(bob.key_package(1))],
        last_resort: Some(Bytes64(bob.key_package(2))),
    };
    // Nobody else's, not even to somebody's harm.
    assert_eq!(stack.post(&ada, endpoints::KEY_PACKAGES, &upload).await.code(), "key-package-foreign");
    let counts: KeyPackageCounts = stack.post(&bob, endpoints::KEY_PACKAGES, &upload).await.json();
    assert_eq!(counts, KeyPackageCounts { one_time: 1, last_resort: true });
    let claim = ClaimRequest { accounts: vec![bob.member.account.into(), ada.member.account.into()] };
    for (bytes, last_resort) in [(bob.key_package(1), false), (bob.key_package(2), true)] {
        let claimed: ClaimResponse = stack.post(&ada, endpoints::KEY_PACKAGES_CLAIM, &claim).await.json();
        let [package] = &claimed.key_packages[..] else { panic!("{claimed:?}") };
        assert_eq!((&package.key_package.0, package.last_resort), (&bytes, last_resort));
        assert_eq!(claimed.missing, []);
    }

    // Ada checks Bob's account: chain, keys and head.
    let path = endpoints::fill(endpoints::ACCOUNT, &[&bob.member.account]);
    let view: AccountView = stack.get(&ada, &path).await.json();
    assert_eq!(view.name.as_ref().unwrap().name, "bob");
    assert_eq!((view.entries.len(), view.keys.len()), (2, 5));
    let header = check_header(&stack.net, &view.proof.certified);
    let proof = MapProof::parse(&view.proof.map.0).unwrap();
    let thread = digest::account_thread(bob.member.account);
    let head = Head { seq: Seq(1), hash: view.entries[1].entry.0 };
    assert_eq!(proof.verify(&header.map, &thread), Ok(Some(head)));
    for key in &view.keys {
        assert_eq!(digest::key_hash(zixt_types::SuiteId::Standard, &key.key.0), key.hash.0);
    }

    // One request begins the conversation and says the first word.
    let thread = stack.net.thread_id();
    let commit = stack.net.commit(thread, &ada, vec![bob.member], vec![]);
    // The message follows the commit, so it is in epoch 1 with counter 1.
    let mut message = stack.message(thread, &ada, "hello");
    message = crate::testing::altered(&stack, &message, &ada, |body| {
        body.counter = 1;
        if let zixt_types::Payload::Message { epoch, .. } = &mut body.payload {
            *epoch = zixt_types::Epoch(1);
        }
    });
    let answer: SubmitResponse = stack.submit(&ada, &[&commit, &message]).await.json();
    assert_eq!(answer.refused, None);
    check_receipt(&stack.net, &commit, &answer.receipts[0]);
    check_receipt(&stack.net, &message, &answer.receipts[1]);
    assert_eq!(answer.receipts[1].prev, answer.receipts[0].entry);
    stack.follow();

    // Bob is told, with the envelope and the proof: his own two account entries... and the conversation.
    let lines = events(&stack, &bob, None, 3).await;
    let mut positions = Vec::new();
    for line in &lines {
        let StreamLine::Event { position, entry, proof, .. } = line else { panic!("{line:?}") };
        check_entry(&stack.net, entry.salt.0, entry.entry.0, proof);
        positions.push(*position);
    }
    assert!(positions.is_sorted());
    let StreamLine::Event { attachment, entry, .. } = &lines[2] else { panic!() };
    assert_eq!(attachment.as_ref().unwrap().0, b"hello");
    assert_eq!(entry.body.0, message.body_bytes);

    // He acknowledges the second; the next stream begins after it, even without a cursor.
    let resumed = events(&stack, &bob, Some(positions[1]), 1).await;
    assert_eq!(resumed[..], lines[2..]);
    let resumed = events(&stack, &bob, None, 1).await;
    assert_eq!(resumed[..], lines[2..]);

    // The thread, its entries, attachments and proofs.
    let view: ThreadView = stack.get(&bob, &endpoints::fill(endpoints::THREAD, &[&thread])).await.json();
    assert_eq!((view.seq, view.epoch, view.next_counter, view.members.len()), (1, Some(1), 0, 2));
    let page: EntryPage =
        stack.get(&bob, &(endpoints::fill(endpoints::ENTRIES, &[&thread]) + "?limit=1")).await.json();
    assert_eq!((page.entries.len(), page.next), (1, Some(1)));
    let Attachment(welcome) = &commit.attachments[1];
    let got = stack.get(&bob, &endpoints::fill(endpoints::ATTACHMENT, &[&thread, &0, &1])).await;
    assert_eq!((got.status, &got.body), (StatusCode::OK, welcome));
    let proof: EntryProof = stack.get(&bob, &endpoints::fill(endpoints::PROOF, &[&thread, &0])).await.json();
    check_entry(&stack.net, page.entries[0].salt.0, page.entries[0].entry.0, &proof);

    // The ledger only grew.
    let path = format!("/v1/consistency?from_height={}&shards=0:0,1:0,2:0,3:0", old.height);
    let grown: Consistency = stack.call(None, "GET", &path, vec![]).await.json();
    let latest = check_header(&stack.net, &grown.latest);
    let leaf = tree::history_leaf(&digest::header_hash(&old));
    let size = latest.height.0 - 1;
    tree::verify_inclusion(leaf, old.height.0 - 1, size, &hashes(&grown.history), latest.history).unwrap();
    for shard in &grown.shards {
        check_shard(&latest, &shard.latest);
        let (size, root) = (shard.latest.size, shard.latest.root.0);
        tree::verify_consistency(0, tree::empty_root(), size, root, &hashes(&shard.path)).unwrap();
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_submission_gets_the_same_receipt() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let message = stack.message(thread, &ada, "once");

    // Twice at the same time, and once more later.
    let twice = [&message];
    let (a, b) = tokio::join!(stack.submit(&ada, &twice), stack.submit(&ada, &twice));
    let (a, b): (SubmitResponse, SubmitResponse) = (a.json(), b.json());
    let c: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
    for again in [&b, &c] {
        assert_eq!(again.receipts[0].entry, a.receipts[0].entry);
        check_receipt(&stack.net, &message, &again.receipts[0]);
    }
    stack.follow();
    assert_eq!(stack.net.head(&thread).unwrap().seq, Seq(1));

    // Also after a restart, and even while nothing can be recorded.
    stack.stop().await;
    stack.start_again().await;
    stack.custody.set(zixt_api::CustodyState::Locked);
    stack.refresh_custody().await;
    let again: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
    assert_eq!(again.receipts[0].entry, a.receipts[0].entry);

    // The same id with another body is a fault.
    let other = crate::testing::altered(&stack, &message, &ada, |body| body.sent_at.0 += 1);
    assert_eq!(stack.submit(&ada, &[&other]).await.code(), "message-id-conflict");

    // Who started without custody knows nobody, and says why.
    stack.stop().await;
    stack.start_again().await;
    assert_eq!(stack.submit(&ada, &[&message]).await.code(), "custody-locked");
    stack.custody.unlock();
    stack.refresh_custody().await;
    assert!(stack.app.access.load().await.unwrap());
    let again: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
    assert_eq!(again.receipts[0].entry, a.receipts[0].entry);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_makes_no_heights_and_a_busy_one_batches() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let mut threads = Vec::new();
    for _ in 0..8 {
        threads.push(stack.conversation(&ada, &bob).await);
    }
    let before = stack.net.state.height;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    stack.follow();
    assert_eq!(stack.net.state.height, before);

    let messages: Vec<_> = threads.iter().map(|thread| stack.message(*thread, &ada, "x")).collect();
    let stack = std::sync::Arc::new(stack);
    let sends = messages.into_iter().map(|message| {
        let stack = std::sync::Arc::clone(&stack);
        let tls = tls_of(&ada);
        let body = zixt_api::SubmitRequest { submissions: vec![item(&message)] };
        tokio::spawn(async move {
            stack.call(Some(tls), "POST", endpoints::SUBMISSIONS, serde_json::to_vec(&body).unwrap()).await
        })
    });
    let sends: Vec<_> = sends.collect();
    for send in sends {
        let _: SubmitResponse = send.await.unwrap().json();
    }
    let heights = stack.app.view.read().state.height.0 - before.0;
    assert!((1..=8).contains(&heights), "{heights}");
}
