//! A server with a good certificate and bad intentions: whatever it sends, it is refused, in bounds and without a panic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a failure is a failed test")]

mod common;
mod peers;

use common::{directory, now, refusal, settings, unavailable};
use peers::certificates::Authority;
use peers::slapd::{SUFFIX, rss_kib};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use zixt_directory::{
    Accounts, ApplyError, BindError, Clock, Directory, HeldPlan, Linked, Mode, Plan, Refusal, Snapshot,
    Unavailable, Watch, What,
};

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[tag, 0x84][..], &length, &body].concat()
}

fn message(number: u8, body: &[u8], controls: &[u8]) -> Vec<u8> {
    element(0x30, &[&element(0x02, &[&[number]]), body, controls])
}

fn result(tag: u8, code: u8) -> Vec<u8> {
    element(tag, &[&element(0x0a, &[&[code]]), &element(0x04, &[]), &element(0x04, &[])])
}

fn entry(dn: &str, uuid: u32, more: usize) -> Vec<u8> {
    let attribute = |name: &str, value: &[u8]| {
        element(0x30, &[&element(0x04, &[name.as_bytes()]), &element(0x31, &[&element(0x04, &[value])])])
    };
    let uuid = format!("00000000-0000-0000-0000-{uuid:012x}");
    let attributes = [
        attribute("entryUUID", uuid.as_bytes()),
        attribute("uid", b"somebody"),
        attribute("entryCSN", b"1"),
        attribute("cn", &vec![b'x'; more]),
    ];
    element(0x64, &[&element(0x04, &[dn.as_bytes()]), &element(0x30, &[&attributes.concat()])])
}

fn page(cookie: &[u8]) -> Vec<u8> {
    let value = element(0x30, &[&element(0x02, &[&[0]]), &element(0x04, &[cookie])]);
    let control = element(0x30, &[&element(0x04, &[b"1.2.840.113556.1.4.319"]), &element(0x04, &[&value])]);
    element(0xa0, &[&control])
}

/// The end of a search, and of its pages.
fn done(number: u8) -> Vec<u8> {
    message(number, &result(0x65, 0), &page(b""))
}

/// What a server does with a search; the sign-in of the account that reads has succeeded.
type Behaviour = fn(u8) -> Vec<Vec<u8>>;

/// Reads one request, and gives its number and its kind.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u8)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let length = match head[1] {
        short @ 0..=0x7f => usize::from(short),
        long => {
            let mut bytes = vec![0; usize::from(long & 0x7f)];
            stream.read_exact(&mut bytes).await.ok()?;
            bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        }
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    assert_eq!(body[..2], [0x02, 0x01], "numbers stay below 128 here");
    Some((body[2], body[3]))
}

async fn serve(mut stream: TlsStream<TcpStream>, user_code: u8, behaviour: Behaviour) {
    let mut binds = 0;
    while let Some((number, kind)) = request(&mut stream).await {
        match kind {
            0x60 => {
                binds += 1;
                assert_eq!(binds, 1);
                let _ = stream.write_all(&message(number, &result(0x61, user_code), &[])).await;
            }
            0x63 => {
                // At once, and to the end: what TLS keeps back would never be sent.
                if stream.write_all(&behaviour(number).concat()).await.is_err()
                    || stream.flush().await.is_err()
                {
                    return;
                }
            }
            _ => return,
        }
    }
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    acceptor_with(authority, &[kx_group::X25519, kx_group::X25519MLKEM768])
}

fn acceptor_with(authority: &Authority, groups: &[&'static dyn SupportedKxGroup]) -> TlsAcceptor {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..default_provider() };
    let (certificate, key) = authority.issue("hostile", "IP:127.0.0.1");
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A server that behaves so, and a directory that trusts its certificate.
async fn with(behaviour: Behaviour, more: &str) -> Directory {
    let authority = Authority::new();
    let acceptor = acceptor(&authority);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    serve(tls, 0, behaviour).await;
                }
            });
        }
    });
    directory(&settings(&[format!("ldaps://127.0.0.1:{port}")], more), authority.pem())
}

async fn refused_with(behaviour: Behaviour, expected: &str) {
    let directory = with(behaviour, "answer_timeout_s = 2").await;
    match directory.sync(None, now()).await {
        Err(Unavailable::NoServer { tried }) => {
            let text = tried[0].1.to_string();
            assert!(text.contains(expected), "expected {expected:?}, got {text:?}");
        }
        other => panic!("{expected}: {other:?}"),
    }
    assert!(directory.bind("somebody", b"password", now()).await.is_err());
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    refused_with(|_| vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], "a message begins with a sequence")
        .await;
    refused_with(|_| vec![vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]], "a message of 2147483647 bytes").await;
    refused_with(|_| vec![vec![0x30, 0x80, 0x02, 0x01, 0x02, 0, 0]], "a length of the definite form").await;
    refused_with(|number| vec![message(number, &result(0x61, 0), &[])], "an entry, a reference or the end")
        .await;
    refused_with(|_| vec![message(0, &result(0x78, 52), &[])], "the number of a request").await;
    refused_with(|_| vec![vec![0x30, 0x03, 0x02, 0x01, 0x05]], "an operation").await;
    // A server that ends in the middle of a message; and one that ends, having said nothing.
    let torn: Behaviour = |number| {
        let whole = message(number, &entry("uid=a", 1, 10), &[]);
        vec![whole[..whole.len() - 3].to_vec()]
    };
    refused_with(torn, "no answer to a search within 2 s").await;
    refused_with(|_| vec![], "no answer to a search within 2 s").await;
    // The answer to another request.
    refused_with(|number| vec![message(number + 1, &result(0x65, 0), &[])], "no answer to a search").await;
}

#[tokio::test]
async fn nesting_without_end_is_refused() {
    let nested: Behaviour = |number| {
        // As deep as a message may be long; a parser that follows it has no stack left.
        let depth: u32 = 400_000;
        let mut body = Vec::new();
        for level in (0..depth).rev() {
            body.extend([0x30, 0x84]);
            body.extend((level * 6).to_be_bytes());
        }
        vec![message(number, &body, &[])]
    };
    refused_with(nested, "an entry, a reference or the end").await;
}

#[tokio::test]
async fn entries_without_end_are_refused_and_not_kept() {
    let authority = Authority::new();
    let acceptor = acceptor(&authority);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let before = rss_kib(std::process::id());
    let most = Arc::new(AtomicUsize::new(0));
    let grown = most.clone();
    tokio::spawn(async move {
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let (number, _) = request(&mut tls).await.unwrap();
        tls.write_all(&message(number, &result(0x61, 0), &[])).await.unwrap();
        let (number, _) = request(&mut tls).await.unwrap();
        // Five GB, if anybody took them.
        for count in 0..500 {
            if tls.write_all(&message(number, &entry("uid=a", count, 10_000_000), &[])).await.is_err() {
                return;
            }
            let now = rss_kib(std::process::id()).saturating_sub(before);
            grown.fetch_max(now as usize / 1024, Ordering::Relaxed);
        }
    });
    let settings = settings(&[format!("ldaps://127.0.0.1:{port}")], "answer_timeout_s = 60");
    let error = directory(&settings, authority.pem()).sync(None, now()).await.unwrap_err().to_string();
    assert!(error.contains("more than 1073741824 bytes in one exchange"), "{error}");
    // A message in each hand on the way, the server's own included, and what other tests need meanwhile.
    let grown = most.load(Ordering::Relaxed);
    assert!(grown < 200, "{grown} MiB");
}

#[tokio::test]
async fn pages_without_end_are_refused() {
    refused_with(
        |number| vec![message(number, &result(0x65, 0), &page(b"more"))],
        "more than 16 pages without an entry",
    )
    .await;
    let long: Behaviour = |number| vec![message(number, &result(0x65, 0), &page(&[b'c'; 5_000]))];
    refused_with(long, "a message of 5000 bytes").await;
}

#[tokio::test]
async fn a_referral_leads_nowhere() {
    static PORT: AtomicUsize = AtomicUsize::new(0);
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    PORT.store(elsewhere.local_addr().unwrap().port().into(), Ordering::Relaxed);
    fn url() -> String {
        format!("ldap://127.0.0.1:{}/{SUFFIX}", PORT.load(Ordering::Relaxed))
    }
    let behaviour: Behaviour = |number| {
        let reference = element(0x73, &[&element(0x04, &[url().as_bytes()])]);
        vec![
            message(number, &reference, &[]),
            message(number, &entry(&format!("uid=a,{SUFFIX}"), 7, 10), &[]),
            done(number),
        ]
    };
    // What is here is not all that there is.
    refused_with(behaviour, "a part of the tree is at").await;
    let referred: Behaviour = |number| {
        let referral = element(0xa3, &[&element(0x04, &[url().as_bytes()])]);
        let done =
            element(0x65, &[&element(0x0a, &[&[10]]), &element(0x04, &[]), &element(0x04, &[]), &referral]);
        vec![message(number, &done, &[])]
    };
    refused_with(referred, "a search was refused with result 10").await;
    let visited = tokio::time::timeout(std::time::Duration::from_millis(1), elsewhere.accept()).await;
    assert!(visited.is_err(), "nobody went there");
}

#[tokio::test]
async fn an_entry_without_a_name_of_its_own_is_nobody() {
    // To sign in with an empty name is to sign in as nobody, which succeeds.
    let nameless: Behaviour = |number| vec![message(number, &entry("", 7, 10), &[]), done(number)];
    let directory = with(nameless, "").await;
    assert_eq!(refusal(directory.bind("somebody", b"password", now()).await), Refusal::NoId);
    let read = directory.sync(None, now()).await.unwrap();
    assert_eq!((read.snapshot.people().len(), read.faults.count()), (0, 1));
}

#[tokio::test]
async fn one_id_in_two_entries_is_nobodys() {
    let twice: Behaviour = |number| {
        vec![
            message(number, &entry("uid=a,dc=x", 7, 10), &[]),
            message(number, &entry("uid=b,dc=x", 7, 10), &[]),
            message(number, &entry("uid=c,dc=x", 8, 10), &[]),
            done(number),
        ]
    };
    let read = with(twice, "").await.sync(None, now()).await.unwrap();
    assert_eq!((read.snapshot.people().len(), read.faults.count()), (2, 1));
    let [twice, once] = read.snapshot.people() else { panic!() };
    assert!(!twice.is_enabled(now()) && twice.login().is_none());
    assert!(once.is_enabled(now()));
}

/// Somebody who is moved while the tree is read is in the list twice, or not at all.
#[tokio::test]
async fn whoever_is_moved_meanwhile_is_asked_for_by_their_id() {
    static SEARCHES: AtomicUsize = AtomicUsize::new(0);
    let moving: Behaviour = |number| {
        let found: &[(&str, u32)] = match SEARCHES.fetch_add(1, Ordering::Relaxed) {
            // Everybody; the second of them twice.
            0 => &[("uid=a,dc=x", 1), ("uid=b,dc=x", 2), ("uid=b,ou=new,dc=x", 2), ("uid=c,dc=x", 3)],
            // By the id of the second.
            1 => &[("uid=b,ou=new,dc=x", 2)],
            // The list; the second is in it no more, and the third moved.
            2 => &[("uid=a,dc=x", 1), ("uid=c,ou=new,dc=x", 3)],
            // The third by its name: gone from there already.
            3 => &[],
            // By the ids of both: the second has come back, the third is gone.
            _ => &[("uid=b,dc=x", 2)],
        };
        let entries = found.iter().map(|(dn, id)| message(number, &entry(dn, *id, 1), &[]));
        entries.chain([done(number)]).collect()
    };
    let directory = with(moving, "").await;
    let dns = |snapshot: &zixt_directory::Snapshot| -> Vec<String> {
        snapshot.people().iter().map(|person| person.dn().to_owned()).collect()
    };
    let first = directory.sync(None, now()).await.unwrap();
    assert_eq!(
        (dns(&first.snapshot), first.faults.count()),
        (["uid=a,dc=x", "uid=b,ou=new,dc=x", "uid=c,dc=x"].map(str::to_owned).to_vec(), 0)
    );
    let second = directory.sync(Some(&first.snapshot), now()).await.unwrap();
    assert_eq!(dns(&second.snapshot), ["uid=a,dc=x", "uid=b,dc=x"]);
    assert_eq!(SEARCHES.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn update_numbers_count_at_one_controller() {
    static SEARCHES: AtomicUsize = AtomicUsize::new(0);
    fn controller(number: u8, attributes: &[(&str, &[u8])]) -> Vec<Vec<u8>> {
        let attribute = |(name, value): &(&str, &[u8])| {
            element(0x30, &[&element(0x04, &[name.as_bytes()]), &element(0x31, &[&element(0x04, &[value])])])
        };
        let attributes: Vec<u8> = attributes.iter().flat_map(attribute).collect();
        let entry = element(0x64, &[&element(0x04, &[b"CN=x"]), &element(0x30, &[&attributes])]);
        vec![message(number, &entry, &[]), done(number)]
    }
    let behaviour: Behaviour = |number| {
        let root = |usn: &[u8]| {
            controller(number, &[("dsServiceName", b"CN=NTDS Settings,CN=DC1"), ("highestCommittedUSN", usn)])
        };
        let person: &[(&str, &[u8])] = &[
            ("objectGUID", &[7; 16]),
            ("uSNChanged", b"5"),
            ("sAMAccountName", b"a"),
            ("userAccountControl", b"512"),
        ];
        match SEARCHES.fetch_add(1, Ordering::Relaxed) {
            // Everybody, when the highest number is 10.
            0 => root(b"10"),
            1 => controller(number, &[("invocationId", b"first")]),
            2 => controller(number, person),
            // Nothing since.
            3 => root(b"10"),
            4 => controller(number, &[("invocationId", b"first")]),
            // Something since, but not this person.
            5 => root(b"11"),
            6 => controller(number, &[("invocationId", b"first")]),
            7 => controller(number, person),
            // The number went back, and the id did not change.
            8 => root(b"9"),
            9 => controller(number, &[("invocationId", b"first")]),
            10 => controller(number, person),
            // Set back from a backup: the same number means something else.
            11 => root(b"9"),
            12 => controller(number, &[("invocationId", b"second")]),
            13 => controller(number, person),
            // One that does not tell who it is, or since when: nothing can be compared.
            14 | 16 => controller(number, &[("highestCommittedUSN", b"9")]),
            15 | 17 => controller(number, person),
            18 | 21 => root(b"9"),
            19 | 22 => controller(number, &[]),
            20 | 23 => controller(number, person),
            more => panic!("search {more}"),
        }
    };
    let directory = with(behaviour, "kind = \"active-directory\"").await;
    let mut snapshot = None;
    let mut modes = Vec::new();
    for _ in 0..9 {
        let read = directory.sync(snapshot.as_ref(), now()).await.unwrap();
        assert_eq!(read.snapshot.people().len(), 1);
        modes.push(read.mode);
        snapshot = Some(read.snapshot);
    }
    use Mode::{Full, Incremental, Unchanged};
    assert_eq!(modes, [Full, Unchanged, Incremental { entries: 0 }, Full, Full, Full, Full, Full, Full]);
}

#[tokio::test]
async fn the_hybrid_exchange_is_used_where_it_is_known_and_can_be_demanded() {
    for (groups, expected) in [
        (&[kx_group::X25519, kx_group::X25519MLKEM768][..], [true, true]),
        (&[kx_group::X25519], [true, false]),
    ] {
        let authority = Authority::new();
        let acceptor = acceptor_with(&authority, groups);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let names = seen.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                names.lock().unwrap().push(tls.get_ref().1.negotiated_key_exchange_group().unwrap().name());
                tokio::spawn(serve(tls, 0, |number| vec![done(number)]));
            }
        });
        let url = format!("ldaps://127.0.0.1:{port}");
        for (exchange, expected) in ["hybrid-preferred", "hybrid-required"].into_iter().zip(expected) {
            let settings = settings(std::slice::from_ref(&url), &format!("key_exchange = \"{exchange}\""));
            let read = directory(&settings, authority.pem()).sync(None, now()).await;
            assert_eq!(read.is_ok(), expected, "{exchange}: {read:?}");
            assert!(expected || read.unwrap_err().to_string().contains("TLS"));
        }
        // Whatever both know and is better.
        let best = groups.last().unwrap().name();
        assert!(seen.lock().unwrap().iter().all(|name| *name == best));
    }
}

/// A server that is asked for TLS, and does this instead.
async fn instead_of_tls(answer: Vec<u8>, continues: bool) -> String {
    let authority = Authority::new();
    let acceptor = acceptor(&authority);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (number, kind) = request(&mut tcp).await.unwrap();
            assert_eq!((number, kind), (1, 0x77), "nothing but StartTLS in plain text");
            tcp.write_all(&answer).await.unwrap();
            if continues && let Ok(tls) = acceptor.accept(tcp).await {
                serve(tls, 0, |_| vec![]).await;
            }
        }
    });
    let directory =
        directory(&settings(&[format!("ldap://127.0.0.1:{port}")], "connect_timeout_s = 2"), authority.pem());
    unavailable(directory.bind("somebody", b"password", now()).await)
}

#[tokio::test]
async fn nothing_is_said_before_tls() {
    let good = message(1, &result(0x78, 0), &[]);
    for (answer, continues, expected) in [
        (message(1, &result(0x78, 52), &[]), true, "StartTLS was refused with result 52"),
        (message(1, &result(0x61, 0), &[]), true, "the answer that was asked for"),
        (message(2, &result(0x78, 0), &[]), true, "an answer to another request"),
        (good.clone(), false, "TLS"),
        // An answer to a sign-in, put in before TLS begins.
        ([good, message(1, &result(0x61, 0), &[])].concat(), true, "TLS"),
    ] {
        let text = instead_of_tls(answer, continues).await;
        assert!(text.contains(expected), "expected {expected:?}, got {text:?}");
    }
}

/// What a server answers to its nth sign-in, and the number of its request; nothing is no answer.
type Answer = fn(usize, u8) -> Vec<u8>;

fn good(number: u8) -> Vec<u8> {
    message(number, &result(0x61, 0), &[])
}

fn found(number: u8) -> Vec<Vec<u8>> {
    vec![message(number, &entry(&format!("uid=somebody,{SUFFIX}"), 7, 10), &[]), done(number)]
}

/// A server that counts sign-ins: its URL and their number.
async fn counting(authority: &Authority, answer: Answer, behaviour: Behaviour) -> (String, Arc<AtomicUsize>) {
    let acceptor = acceptor(authority);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ldaps://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let binds = Arc::new(AtomicUsize::new(0));
    let counted = binds.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                while let Some((number, kind)) = request(&mut tls).await {
                    let parts = match kind {
                        0x60 => vec![answer(counted.fetch_add(1, Ordering::SeqCst) + 1, number)],
                        0x63 => behaviour(number),
                        _ => return,
                    };
                    if tls.write_all(&parts.concat()).await.is_err() || tls.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, binds)
}

#[tokio::test]
async fn values_without_bytes_are_counted() {
    let empty: Behaviour = |number| {
        let values = [0x04, 0].repeat(300_000);
        let attribute = element(0x30, &[&element(0x04, &[b"cn"]), &element(0x31, &[&values])]);
        let entry = element(0x64, &[&element(0x04, &[b"uid=a"]), &element(0x30, &[&attribute])]);
        vec![message(number, &entry, &[])]
    };
    refused_with(empty, "a message of more than 250000 elements").await;
}

#[tokio::test]
async fn a_sign_in_takes_less_than_a_round() {
    let long: Behaviour = |number| vec![message(number, &entry("uid=a", 7, 300_000), &[]), done(number)];
    let directory = with(long, "").await;
    assert_eq!(directory.sync(None, now()).await.unwrap().snapshot.people().len(), 1);
    let error = unavailable(directory.bind("somebody", b"password", now()).await);
    assert!(error.contains("at most 262144 are taken"), "{error}");
    // Somebody who has not heard of the limit that was asked for.
    let many: Behaviour = |number| {
        (0..30).map(|id| message(number, &entry("uid=a", id, 1), &[])).chain([done(number)]).collect()
    };
    let error = unavailable(with(many, "").await.bind("somebody", b"password", now()).await);
    assert!(error.contains("entries beyond a limit"), "{error}");
}

#[tokio::test]
async fn a_list_without_pages_may_not_be_whole() {
    let silent: Behaviour = |number| vec![message(number, &result(0x65, 0), &[])];
    refused_with(silent, "the control of a page, which was asked for").await;
}

#[tokio::test]
async fn many_who_are_missing_are_asked_for() {
    static SEARCHES: AtomicUsize = AtomicUsize::new(0);
    static THERE: AtomicUsize = AtomicUsize::new(1);
    let shrinking: Behaviour = |number| {
        let people = |ids: std::ops::Range<u32>| {
            let entries = ids.map(|id| message(number, &entry(&format!("uid=p{id},dc=x"), id, 1), &[]));
            entries.chain([done(number)]).collect()
        };
        match SEARCHES.fetch_add(1, Ordering::SeqCst) {
            0 => people(0..1_100),
            // The list is empty; and then the first of them is there all the same, or not.
            1 => people(0..0),
            2 if THERE.load(Ordering::SeqCst) == 1 => people(0..1),
            _ => people(0..0),
        }
    };
    let directory = with(shrinking, "").await;
    let first = directory.sync(None, now()).await.unwrap().snapshot;
    assert_eq!(first.people().len(), 1_100);
    let error = directory.sync(Some(&first), now()).await.unwrap_err().to_string();
    assert!(error.contains("1100 people are missing from the list, and one of them is there"), "{error}");
    THERE.store(0, Ordering::SeqCst);
    SEARCHES.store(1, Ordering::SeqCst);
    let read = directory.sync(Some(&first), now()).await.unwrap();
    assert_eq!(read.snapshot.people().len(), 0);
    assert!(SEARCHES.load(Ordering::SeqCst) > 20, "they were asked for");
}

#[tokio::test]
async fn a_slow_server_keeps_nobody_from_the_next() {
    let authority = Authority::new();
    // Says something often enough, and never ends.
    let acceptor = acceptor(&authority);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let slow = format!("ldaps://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let (number, _) = request(&mut tls).await.unwrap();
                tls.write_all(&good(number)).await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (number, _) = request(&mut tls).await.unwrap();
                for id in 0.. {
                    if tls.write_all(&message(number, &entry("uid=a,dc=x", id, 1), &[])).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            });
        }
    });
    let (quick, _) = counting(&authority, |_, number| good(number), found).await;
    let settings = settings(&[slow, quick.clone()], "sync_timeout_s = 20");
    let directory = directory(&settings, authority.pem());
    assert_eq!(directory.sync(None, now()).await.unwrap().server, quick);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(directory.sync(None, now()).await.unwrap().server, quick);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the one that answered is asked first");
}

#[tokio::test]
async fn a_password_goes_to_one_server() {
    let authority = Authority::new();
    // Takes the password of the person, and says nothing.
    let silent: Answer = |nth, number| if nth == 2 { Vec::new() } else { good(number) };
    let (one, _) = counting(&authority, silent, found).await;
    let (two, binds) = counting(&authority, |_, number| good(number), found).await;
    let settings = settings(&[one.clone(), two], "answer_timeout_s = 2");
    let directory = directory(&settings, authority.pem());
    match directory.bind("somebody", b"password", now()).await {
        Err(BindError::Unavailable(error @ Unavailable::Unclear { .. })) => {
            assert!(error.counts() && !error.refused_the_reader());
            assert!(error.to_string().contains(&one), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(binds.load(Ordering::SeqCst), 0, "the password went no further");
    // The next sign-in begins at the other one.
    let bound = directory.bind("somebody", b"password", now()).await.unwrap();
    assert_eq!((bound.login(), binds.load(Ordering::SeqCst)), ("somebody", 2));
    // A server that says that it cannot say has the password, too.
    let busy: Answer = |nth, number| message(number, &result(0x61, if nth == 2 { 51 } else { 0 }), &[]);
    let (three, _) = counting(&authority, busy, found).await;
    let directory = common::directory(&common::settings(&[three], ""), authority.pem());
    match directory.bind("somebody", b"password", now()).await {
        Err(BindError::Unavailable(error)) => {
            assert!(error.counts() && error.to_string().contains("result 51"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reader_that_was_refused_is_not_tried_by_everybody() {
    let authority = Authority::new();
    let answer: Answer = |nth, number| message(number, &result(0x61, if nth == 1 { 49 } else { 0 }), &[]);
    let (url, binds) = counting(&authority, answer, found).await;
    let directory = directory(&settings(&[url], ""), authority.pem());
    let tried = async || match directory.bind("somebody", b"password", now()).await {
        Err(BindError::Unavailable(error)) => {
            assert!(error.refused_the_reader() && !error.counts());
            error
        }
        other => panic!("{other:?}"),
    };
    assert!(matches!(tried().await, Unavailable::NoServer { .. }));
    for _ in 0..3 {
        assert!(matches!(tried().await, Unavailable::ReaderRefused { seconds } if seconds <= 900));
    }
    assert_eq!(binds.load(Ordering::SeqCst), 1, "each try may lock the account");
    // A round that succeeds lets people in again.
    let read: Snapshot = directory.sync(None, now()).await.unwrap().snapshot;
    assert_eq!(read.people().len(), 1);
    assert!(directory.bind("somebody", b"password", now()).await.is_ok());
}

#[tokio::test]
async fn success_with_a_word_about_the_password_is_none() {
    let authority = Authority::new();
    let control = |name: &str, value: &[u8]| {
        element(0xa0, &[&element(0x30, &[&element(0x04, &[name.as_bytes()]), &element(0x04, &[value])])])
    };
    static CONTROL: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    let answer: Answer = |nth, number| {
        let control = if nth % 2 == 0 { CONTROL.lock().unwrap().clone() } else { Vec::new() };
        message(number, &result(0x61, 0), &control)
    };
    let (url, _) = counting(&authority, answer, found).await;
    let directory = directory(&settings(&[url], ""), authority.pem());
    let policy = "1.3.6.1.4.1.42.2.27.8.5.1";
    for (control, expected) in [
        (control("2.16.840.1.113730.3.4.4", b"0"), Refusal::PasswordExpired),
        (control(policy, &element(0x30, &[&element(0xa0, &[&[0x81, 1, 2]])])), Refusal::PasswordExpired),
        (control(policy, &element(0x30, &[&[0x81, 1, 0]])), Refusal::PasswordExpired),
        (control(policy, &element(0x30, &[&[0x81, 1, 2]])), Refusal::MustChangePassword),
    ] {
        *CONTROL.lock().unwrap() = control;
        assert_eq!(refusal(directory.bind("somebody", b"password", now()).await), expected);
    }
    CONTROL.lock().unwrap().clear();
    assert!(directory.bind("somebody", b"password", now()).await.is_ok());
}

/// Accounts of which one is suspended by the directory, from some time on.
#[derive(Default)]
struct OneSuspended {
    suspended: Mutex<Vec<zixt_identity::Link>>,
    /// How often accounts were asked for since, and how often by the time when somebody was resumed.
    asked: AtomicUsize,
    resumed_at: AtomicUsize,
}

#[async_trait::async_trait]
impl Accounts for OneSuspended {
    async fn linked(&self) -> Result<Linked, ApplyError> {
        let suspended = self.suspended.lock().unwrap().clone();
        if !suspended.is_empty() {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Linked { active: Vec::new(), suspended })
    }

    async fn apply(&self, plan: &Plan, _: &Snapshot) -> Result<(), ApplyError> {
        if !self.suspended.lock().unwrap().is_empty() && plan.count(What::resumes) > 0 {
            self.resumed_at.store(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
            self.suspended.lock().unwrap().clear();
        }
        Ok(())
    }

    async fn held(&self, held: &HeldPlan) -> Result<(), ApplyError> {
        panic!("{held}")
    }
}

struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> zixt_types::Timestamp {
        now()
    }
}

#[tokio::test]
async fn another_server_resumes_nobody_at_once() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    let authority = Authority::new();
    let leaving: Answer = |_, number| {
        message(number, &result(0x61, if GONE.load(Ordering::SeqCst) == 1 { 52 } else { 0 }), &[])
    };
    let (one, _) = counting(&authority, leaving, found).await;
    let (two, _) = counting(&authority, |_, number| good(number), found).await;
    let settings = settings(&[one.clone(), two.clone()], "interval_s = 3600");
    let directory = Arc::new(directory(&settings, authority.pem()));
    let accounts = Arc::new(OneSuspended::default());
    let watch = Watch::new(directory.clone(), accounts.clone(), Arc::new(WallClock), None);
    let handle = watch.handle();
    let running = tokio::spawn(watch.run());
    let id = [&[0; 15][..], &[7]].concat();
    let suspend = || {
        accounts.asked.store(0, Ordering::SeqCst);
        *accounts.suspended.lock().unwrap() = vec![directory.issuer().link(&id)];
    };
    handle.settled().await;
    assert_eq!(handle.health().server, Some(one));
    // At the same server: in the same round, which asks before and after it reads.
    suspend();
    handle.settled().await;
    assert!(accounts.suspended.lock().unwrap().is_empty());
    assert!(accounts.resumed_at.load(Ordering::SeqCst) <= 2);
    // At another one: in the round after that.
    GONE.store(1, Ordering::SeqCst);
    suspend();
    handle.settled().await;
    assert_eq!(handle.health().server, Some(two));
    assert!(accounts.suspended.lock().unwrap().is_empty());
    assert!(accounts.resumed_at.load(Ordering::SeqCst) > 2);
    running.abort();
}
