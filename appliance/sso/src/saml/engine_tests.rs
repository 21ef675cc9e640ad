//! The library alone, without the filter before it and the comparison after it; and everything that is one step away
//! from a good response.

use super::*;
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::PathBuf;

/// 2026-11-28T01:00:05Z, as in the corpus.
const NOW_MS: u64 = 1_795_827_605_000;

fn corpus() -> PathBuf {
    // At run time, because one build may serve several clones.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR");
    folder.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from).join("tests/corpus/saml")
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(corpus().join(file)).unwrap()
}

fn parties() -> Parties {
    let certificate = CertificateDer::from_pem_slice(&read("keys/idp.cert.pem")).unwrap();
    Parties {
        sp_entity: "https://zixt.test/saml".into(),
        acs: "https://zixt.test/saml/acs".into(),
        sp_slo: None,
        idp_entity: "https://idp.test/metadata".into(),
        idp_sso: "https://idp.test/sso".into(),
        idp_slo: None,
        certificates: vec![BASE64_STANDARD.encode(certificate)],
        key: None,
        skew_ms: 60_000,
        force_authn: false,
    }
}

/// What the library says, without the filter.
fn alone(xml: &[u8]) -> Option<Verified> {
    let parties = parties();
    let (sp, idp) = (service_provider(&parties).unwrap(), provider(&parties).unwrap());
    let mut once = Once::default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW_MS);
    let context = SamlValidationContext::new(now, ReplayPolicy::RequireCache(&mut once))
        .with_clock_skew(ClockSkew::from_millis(-60_000, 60_000));
    match verify(&sp, &idp, &parties, xml, "relay-1", "_request-1", &["groups".to_owned()], context) {
        Ok(Answer::Verified(verified)) => Some(*verified),
        _ => None,
    }
}

/// What the whole process answers.
fn whole(xml: &[u8]) -> Option<Verified> {
    let task = Task::Finish {
        response: BASE64_STANDARD.encode(xml),
        relay_state: "relay-1".into(),
        request_id: "_request-1".into(),
        attributes: vec!["groups".into()],
    };
    match answer(&Question { parties: parties(), now_ms: NOW_MS, task }) {
        Answer::Verified(verified) => Some(*verified),
        _ => None,
    }
}

/// Whether this is the person, with the groups, that the provider signed.
fn is_what_was_signed(verified: &Verified) -> bool {
    verified.name_id == "alice-1"
        && verified.attributes == [["zixt-users"]]
        && verified.session.as_deref() == Some("session-1")
        && verified.audiences == ["https://zixt.test/saml"]
        && verified.not_on_or_after.as_deref() == Some("2026-11-28T01:05:00Z")
}

#[test]
fn the_library_alone_makes_nobody_of_a_hostile_response_whom_the_provider_did_not_sign() {
    saml_rs::initialize_crypto_provider().unwrap();
    assert!(is_what_was_signed(&alone(&read("good-assertion-signed.xml")).unwrap()));
    // Outside of what is signed something may change: such a response is read, so the comparisons below are reached.
    let changed = [read("good-assertion-signed.xml"), b"\n ".to_vec()].concat();
    assert!(is_what_was_signed(&alone(&changed).unwrap()) && is_what_was_signed(&whole(&changed).unwrap()));
    let mut refused = 0;
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if !file.ends_with(".xml") || file.starts_with("good-") || file.starts_with("logout-") {
            continue;
        }
        seen += 1;
        // A signature by the provider over another name is its word; what is wrong there is something else.
        let signed_names = ["alice-1", "bob-1"];
        match alone(&read(&file)) {
            None => refused += 1,
            Some(verified) => {
                let name = verified.name_id.as_str();
                let whole_text = name.starts_with("admin") && name.ends_with(".evil");
                let long = name.len() == 300;
                assert!(signed_names.contains(&name) || whole_text || long, "{file}: {name}");
            }
        }
    }
    assert!(refused >= 80 && seen >= 100, "{refused} of {seen}");
}

/// One change of a text, somewhere.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Cut(usize, usize),
    Copy(usize, usize, usize),
    Swap(usize, usize, usize),
    Insert(usize, &'static str),
}

const PIECES: [&str; 16] = [
    "admin",
    "<!---->",
    "<![CDATA[x]]>",
    "<?x?>",
    "&amp;",
    "&#97;",
    " ",
    "\n",
    "<saml:NameID>admin</saml:NameID>",
    "<saml:Assertion>",
    "</saml:Assertion>",
    " ID=\"_assertion-1\"",
    " xmlns:saml=\"urn:evil\"",
    "<ds:Object>",
    "<saml:AttributeValue>zixt-ops</saml:AttributeValue>",
    "<saml:Audience>https://evil.test</saml:Audience>",
];

fn change() -> impl Strategy<Value = Change> {
    let at = 0..6000_usize;
    let length = 0..600_usize;
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Change::Cut(at, length)),
        (at.clone(), length.clone(), at.clone())
            .prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        (at.clone(), at.clone(), length).prop_map(|(one, other, length)| Change::Swap(one, other, length)),
        (at, 0..PIECES.len()).prop_map(|(at, piece)| Change::Insert(at, PIECES[piece])),
    ]
}

fn apply(mut text: Vec<u8>, change: &Change) -> Vec<u8> {
    let len = text.len().max(1);
    let range = |at: usize, length: usize| {
        let at = at % len;
        at..(at + length).min(len)
    };
    match *change {
        Change::Byte(at, byte) => {
            if let Some(place) = text.get_mut(at % len) {
                *place = byte;
            }
        }
        Change::Cut(at, length) => {
            drop(text.drain(range(at, length).start.min(text.len())..range(at, length).end.min(text.len())))
        }
        Change::Copy(from, length, to) => {
            let piece = text.get(range(from, length)).unwrap_or_default().to_vec();
            let to = (to % len).min(text.len());
            text.splice(to..to, piece);
        }
        Change::Swap(one, other, length) => {
            let (one, other) = (range(one, length), range(other, length));
            if one.end <= other.start && other.end <= text.len() {
                let first = text[one.clone()].to_vec();
                let second: Vec<u8> = text.splice(other.clone(), first).collect();
                text.splice(one, second);
            }
        }
        Change::Insert(at, piece) => {
            let at = (at % len).min(text.len());
            text.splice(at..at, piece.bytes());
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1024)))]

    #[test]
    fn no_change_of_a_signed_response_yields_anything_but_what_was_signed(
        changes in proptest::collection::vec(change(), 1..4),
        both in any::<bool>(),
    ) {
        let _ = saml_rs::initialize_crypto_provider();
        let good = if both { "good-both-signed.xml" } else { "good-assertion-signed.xml" };
        let changed = changes.iter().fold(read(good), apply);
        // Where the library alone panics (saml-rs 0.6 does on some instants), the process would end without an answer.
        // What comes through the filter must not make it panic.
        let alone = std::panic::catch_unwind(|| alone(&changed)).ok().flatten();
        for verified in [alone, whole(&changed)].into_iter().flatten() {
            prop_assert!(is_what_was_signed(&verified), "{}", String::from_utf8_lossy(&changed));
        }
    }
}

/// Where each element of a plain document begins and ends, and where what is in it ends.
fn elements(text: &str) -> Vec<(usize, usize, usize)> {
    let (mut open, mut found) = (Vec::new(), Vec::new());
    for (at, _) in text.match_indices('<') {
        let end = text[at..].find('>').map_or(text.len(), |length| at + length + 1);
        if text[at..].starts_with("</") {
            if let Some(start) = open.pop() {
                found.push((start, end, at));
            }
        } else if text[..end].ends_with("/>") {
            found.push((at, end, end - 2));
        } else {
            open.push(at);
        }
    }
    found
}

/// One step of a wrapping attack: an element, as it is or forged, is put before, into or after another one, or takes
/// its place.
#[derive(Clone, Debug)]
struct Wrap {
    what: usize,
    forged: bool,
    keep_id: bool,
    keep_signature: bool,
    at: usize,
    place: u8,
}

fn wrap() -> impl Strategy<Value = Wrap> {
    (any::<usize>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<usize>(), 0..4_u8).prop_map(
        |(what, forged, keep_id, keep_signature, at, place)| Wrap {
            what,
            forged,
            keep_id,
            keep_signature,
            at,
            place,
        },
    )
}

fn rewrap(text: String, wrap: &Wrap) -> String {
    let elements = elements(&text);
    if elements.is_empty() {
        return text;
    }
    let (start, end, _) = elements[wrap.what % elements.len()];
    let mut piece = text[start..end].to_owned();
    if wrap.forged {
        piece = piece
            .replace("alice-1", "admin")
            .replace("zixt-users", "zixt-ops")
            .replace("session-1", "session-2");
    }
    if !wrap.keep_id {
        piece = piece.replace("ID=\"_", "ID=\"_x");
    }
    if let (false, Some(from), Some(to)) =
        (wrap.keep_signature, piece.find("<ds:Signature "), piece.find("</ds:Signature>"))
        && from < to
    {
        piece.replace_range(from..to + "</ds:Signature>".len(), "");
    }
    let (start, end, inside) = elements[wrap.at % elements.len()];
    let mut text = text;
    match wrap.place {
        0 => text.insert_str(start, &piece),
        1 => text.insert_str(inside, &piece),
        2 => text.insert_str(end, &piece),
        _ => text.replace_range(start..end, &piece),
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1024)))]

    #[test]
    fn no_wrapping_of_a_signed_response_yields_anything_but_what_was_signed(
        wraps in proptest::collection::vec(wrap(), 1..5),
        both in any::<bool>(),
    ) {
        let _ = saml_rs::initialize_crypto_provider();
        let good = if both { "good-both-signed.xml" } else { "good-assertion-signed.xml" };
        let good = String::from_utf8(read(good)).unwrap();
        let wrapped = wraps.iter().fold(good, rewrap);
        // Two groups where one was signed twice are the signed ones still; what is new must not be there.
        let forged = |verified: &Verified| {
            verified.name_id != "alice-1"
                || verified.attributes.iter().flatten().any(|group| group != "zixt-users")
                || verified.session.as_deref().is_some_and(|session| session != "session-1")
        };
        let alone = std::panic::catch_unwind(|| alone(wrapped.as_bytes())).ok().flatten();
        if let Some(verified) = alone {
            prop_assert!(!forged(&verified), "{wrapped}");
        }
        if let Some(verified) = whole(wrapped.as_bytes()) {
            prop_assert!(is_what_was_signed(&verified), "{wrapped}");
        }
    }
}
