//! Registering authenticators, also hostile ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::{ADA, AT, BE, BS, ED, Made, Server, Soft, UP, UV, cbor, ec_key, encode, rsa_key};
use proptest::prelude::*;
use std::sync::{LazyLock, Mutex};
use zixt_crypto::fill_random;
use zixt_identity::{CredentialChange, Forbidden, Role, WebAuthnCredential};
use zixt_passkey::{
    Algorithm, Attestation, BeginError, FinishError, Passkey, Person, REGISTRATION_MS, Refused,
    Registrations, Requirement,
};
use zixt_types::Timestamp;

fn server() -> Server {
    Server::new(7, Role::SecurityOfficer)
}

/// What an answer that was changed is refused for. The change has another authenticator's key at hand.
fn refused(change: impl FnOnce(&Soft, &mut Made)) -> Option<Refused> {
    let other = Soft::es256();
    match server().try_to_register(&mut Soft::es256(), |made| change(&other, made)) {
        Err(FinishError::Refused(refused)) => Some(refused),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    }
}

#[test]
fn each_algorithm_registers_and_is_told_apart() {
    for (mut soft, algorithm) in [
        (Soft::es256(), Algorithm::Es256),
        (Soft::es384(), Algorithm::Es384),
        (Soft::rs256(), Algorithm::Rs256),
    ] {
        let mut server = server();
        let credential = server.register(&mut soft);
        assert_eq!((credential.id(), credential.sign_count()), (&*soft.id, 0));
        let passkey = Passkey::of(&credential).unwrap();
        assert_eq!((passkey.algorithm, passkey.attestation), (algorithm, Attestation::None));
        assert_eq!((&*passkey.name, &*passkey.id), ("blue key", &*encode(&soft.id)));
        assert_eq!(passkey.model.as_deref(), Some(&*"a6".repeat(16)));
        assert_eq!(passkey.created_at, lab::START);
        assert_eq!(server.credentials.webauthn(), [credential]);
    }
}

#[test]
fn what_a_page_asks_for_is_what_is_demanded() {
    let mut server = server();
    let mut soft = Soft::es256();
    server.register(&mut soft);
    let caller = server.session();
    let options = server.options(&caller);
    assert_eq!((&*options.rp.id, &*options.attestation), ("zixt.test", "none"));
    assert_eq!(options.authenticator_selection.user_verification, Requirement::Required);
    assert_eq!(options.authenticator_selection.resident_key, Requirement::Preferred);
    let algorithms: Vec<_> = options.pub_key_cred_params.iter().map(|parameter| parameter.alg).collect();
    assert_eq!(algorithms, [-35, -7, -257]);
    assert_eq!(options.exclude_credentials[0].id, encode(&soft.id));
    // The names that a browser reads (section 5.1.10).
    let json = serde_json::to_value(&options).unwrap();
    for name in ["rp", "user", "challenge", "pubKeyCredParams", "timeout", "excludeCredentials"] {
        assert!(json.get(name).is_some(), "{name}");
    }
    assert_eq!(json["user"]["displayName"], "Ada Lovelace");
    assert_eq!(json["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(json["pubKeyCredParams"][0]["type"], "public-key");
    assert!(!options.user.id.contains("ada") && options.user.id.len() == 43, "{}", options.user.id);
}

#[test]
fn a_statement_of_the_own_key_is_recorded() {
    let statement = |signature: &[u8]| {
        cbor(|e| {
            e.map(2)
                .unwrap()
                .str("alg")
                .unwrap()
                .i64(-7)
                .unwrap()
                .str("sig")
                .unwrap()
                .bytes(signature)
                .unwrap();
        })
    };
    let mut soft = Soft::es256();
    let mut server = server();
    let caller = server.session();
    let options = server.options(&caller);
    // What is signed is the same in each answer to the same options.
    let mut signed = Vec::new();
    soft.create(&options, |made| signed = made.signed());
    let signature = soft.sign(&signed);
    let text = soft.create(&options, |made| {
        made.format = "packed".into();
        made.statement = statement(&signature);
    });
    let credential = server.finish(&caller, &text).unwrap();
    assert_eq!(Passkey::of(&credential).unwrap().attestation, Attestation::OwnKey);
    // Of another key it is worth nothing.
    let forged = refused(|other, made| {
        made.format = "packed".into();
        made.statement = statement(&other.sign(&made.signed()));
    });
    assert_eq!(forged, Some(Refused::Signature));
}

#[test]
fn extensions_that_nobody_asked_for_do_no_harm() {
    // Browsers add credProtect to keys that stay in the authenticator.
    let unasked = refused(|_, made| {
        made.flags |= ED;
        made.tail = cbor(|e| {
            e.map(1).unwrap().str("credProtect").unwrap().u8(2).unwrap();
        });
    });
    assert_eq!(unasked, None);
}

#[test]
fn hostile_answers_are_refused_for_what_is_wrong_with_them() {
    type Change = fn(&Soft, &mut Made);
    let cases: &[(&str, Change, Refused)] = &[
        ("origin", |_, m| m.origin = "https://evil.test".into(), Refused::OtherOrigin),
        ("sub-domain", |_, m| m.origin = "https://a.zixt.test".into(), Refused::OtherOrigin),
        ("begins alike", |_, m| m.origin = "https://zixt.test.evil.test".into(), Refused::OtherOrigin),
        ("ends alike", |_, m| m.origin = "https://evilzixt.test".into(), Refused::OtherOrigin),
        ("http", |_, m| m.origin = "http://zixt.test".into(), Refused::OtherOrigin),
        ("port", |_, m| m.origin = "https://zixt.test:8443".into(), Refused::OtherOrigin),
        ("trailing slash", |_, m| m.origin = "https://zixt.test/".into(), Refused::OtherOrigin),
        ("upper case", |_, m| m.origin = "https://ZIXT.test".into(), Refused::OtherOrigin),
        ("user in the URL", |_, m| m.origin = "https://zixt.test@evil.test".into(), Refused::OtherOrigin),
        ("cross-origin", |_, m| m.cross_origin = Some(true), Refused::CrossOrigin),
        ("top origin", |_, m| m.top_origin = Some("https://evil.test".into()), Refused::CrossOrigin),
        ("get", |_, m| m.kind = "webauthn.get".into(), Refused::OtherCeremony),
        ("payment", |_, m| m.kind = "payment.get".into(), Refused::OtherCeremony),
        ("challenge", |_, m| m.challenge = encode(&[0; 32]), Refused::OtherChallenge),
        ("part of the challenge", |_, m| m.challenge.truncate(20), Refused::OtherChallenge),
        ("no challenge", |_, m| m.challenge.clear(), Refused::OtherChallenge),
        ("client data is no JSON", |_, m| m.client_data = Some(b"{".to_vec()), Refused::NotClientData),
        ("client data is empty", |_, m| m.client_data = Some(Vec::new()), Refused::NotClientData),
        (
            "a member twice",
            |_, m| {
                let text = String::from_utf8(m.client_data()).unwrap();
                let origin = ",\"origin\":\"https://evil.test\"}";
                m.client_data = Some(text.replace('}', origin).into_bytes());
            },
            Refused::NotClientData,
        ),
        (
            "cross-origin is text",
            |_, m| {
                let text = String::from_utf8(m.client_data()).unwrap();
                m.client_data = Some(text.replace("false", "\"false\"").into_bytes());
            },
            Refused::NotClientData,
        ),
        ("relying party", |_, m| m.rp_id = "evil.test".into(), Refused::OtherRelyingParty),
        ("nobody present", |_, m| m.flags = AT | UV, Refused::UserNotPresent),
        ("nobody verified", |_, m| m.flags = AT | UP, Refused::UserNotVerified),
        ("can be copied", |_, m| m.flags |= BE, Refused::Synchronised),
        ("was copied", |_, m| m.flags |= BE | BS, Refused::Synchronised),
        ("was copied and cannot be", |_, m| m.flags |= BS, Refused::Synchronised),
        ("no key", |_, m| m.flags &= !AT, Refused::NotAuthenticatorData),
        ("bytes behind the key", |_, m| m.tail = vec![0xa0], Refused::NotAuthenticatorData),
        ("extensions announced only", |_, m| m.flags |= ED, Refused::NotAuthenticatorData),
        (
            "extensions are no map",
            |_, m| {
                m.flags |= ED;
                m.tail = vec![0x01];
            },
            Refused::NotAuthenticatorData,
        ),
        (
            "huge extensions",
            |_, m| {
                m.flags |= ED;
                m.tail = cbor(|e| {
                    e.map(1).unwrap().str("x").unwrap().bytes(&[0; 4096]).unwrap();
                });
            },
            Refused::NotAuthenticatorData,
        ),
        (
            "bytes behind extensions",
            |_, m| {
                m.flags |= ED;
                m.tail = vec![0xa0, 0x00];
            },
            Refused::NotAuthenticatorData,
        ),
        ("cut in the flags", |_, m| m.cut = Some(32), Refused::NotAuthenticatorData),
        ("cut in the counter", |_, m| m.cut = Some(36), Refused::NotAuthenticatorData),
        ("cut in the id", |_, m| m.cut = Some(60), Refused::NotAuthenticatorData),
        ("cut in the key", |_, m| m.cut = Some(100), Refused::NotAuthenticatorData),
        ("nothing", |_, m| m.cut = Some(0), Refused::NotAuthenticatorData),
        ("no id", |_, m| m.id.clear(), Refused::NotAuthenticatorData),
        ("an id that is too long", |_, m| m.id = vec![1; 1024], Refused::NotAuthenticatorData),
        ("an id beyond the end", |_, m| m.id_length = Some(900), Refused::NotAuthenticatorData),
        ("another id inside", |_, m| m.id[0] ^= 1, Refused::IdsDiffer),
        ("two ids outside", |_, m| m.outer_id = encode(b"other"), Refused::IdsDiffer),
        (
            "another id outside",
            |_, m| {
                m.outer_id = encode(b"other");
                m.outer_raw_id = encode(b"other");
            },
            Refused::IdsDiffer,
        ),
        ("another type", |_, m| m.outer_kind = "password".into(), Refused::NotAnAnswer),
        (
            "an id that is padded",
            |_, m| {
                m.outer_id.push('=');
                m.outer_raw_id.push('=');
            },
            Refused::NotAnAnswer,
        ),
        (
            "key of another curve",
            |_, m| {
                let (x, y) = Soft::es384().point();
                m.key = ec_key(-7, 2, &x, &y);
            },
            Refused::OtherAlgorithm,
        ),
        (
            "curve of another key",
            |other, m| {
                let (x, y) = other.point();
                m.key = ec_key(-35, 1, &x, &y);
            },
            Refused::OtherAlgorithm,
        ),
        (
            "coordinates of another length",
            |other, m| {
                let (x, y) = other.point();
                m.key = ec_key(-7, 1, &x[..31], &y);
            },
            Refused::OtherAlgorithm,
        ),
        (
            "Ed25519, which is not offered",
            |_, m| m.key = Soft::ed25519().public_key(),
            Refused::OtherAlgorithm,
        ),
        (
            "no algorithm of signatures",
            |other, m| {
                let (x, y) = other.point();
                m.key = ec_key(-25, 1, &x, &y);
            },
            Refused::OtherAlgorithm,
        ),
        (
            "RSA with SHA-1",
            |_, m| {
                let key = Soft::rs256().public_key();
                // {1: 3, 3: -257} becomes {1: 3, 3: -65535}.
                assert_eq!(key[..7], [0xa4, 1, 3, 3, 0x39, 1, 0]);
                m.key = [&[0xa4, 1, 3, 3, 0x39, 0xff, 0xfe], &key[7..]].concat();
            },
            Refused::OtherAlgorithm,
        ),
        ("RSA of 1024 bits", |_, m| m.key = rsa_key(&[0xff; 128], &[1, 0, 1]), Refused::NotAKey),
        ("RSA of 2047 bits", |_, m| m.key = rsa_key(&[0x7f; 256], &[1, 0, 1]), Refused::NotAKey),
        ("RSA with the exponent 3", |_, m| m.key = rsa_key(&[0xff; 256], &[0, 0, 3]), Refused::NotAKey),
        ("no point of the curve", |_, m| m.key = ec_key(-7, 1, &[1; 32], &[1; 32]), Refused::NotAKey),
        ("key without numbers", |_, m| m.key = vec![0xa0], Refused::NotAKey),
        ("key is a list", |_, m| m.key = vec![0x80], Refused::NotAKey),
        (
            "key says its kind twice",
            |other, m| {
                let (x, y) = other.point();
                let mut key = ec_key(-7, 1, &x, &y);
                key[3] = 1;
                m.key = key;
            },
            Refused::NotAKey,
        ),
        (
            "key of a million members",
            |_, m| {
                m.key = vec![0xba, 0, 0x0f, 0x42, 0x40];
            },
            Refused::NotAuthenticatorData,
        ),
        (
            "key with a member more",
            |other, m| {
                let (x, y) = other.point();
                let mut key = ec_key(-7, 1, &x, &y);
                key[0] = 0xa6;
                key.extend([0x02, 0x41, 0x00]);
                m.key = key;
            },
            Refused::NotAKey,
        ),
        (
            "statement with certificates",
            |_, m| {
                m.format = "packed".into();
                m.statement = cbor(|e| {
                    e.map(3)
                        .unwrap()
                        .str("alg")
                        .unwrap()
                        .i64(-7)
                        .unwrap()
                        .str("sig")
                        .unwrap()
                        .bytes(&[1; 70])
                        .unwrap();
                    e.str("x5c").unwrap().array(1).unwrap().bytes(&[0x30; 500]).unwrap();
                });
            },
            Refused::AttestationNotAsked,
        ),
        (
            "statement of certificates alone",
            |_, m| {
                m.format = "packed".into();
                m.statement = cbor(|e| {
                    e.map(2).unwrap().str("sig").unwrap().bytes(&[1; 70]).unwrap();
                    e.str("x5c").unwrap().array(1).unwrap().bytes(b"garbage").unwrap();
                });
            },
            Refused::AttestationNotAsked,
        ),
        ("statement of a TPM", |_, m| m.format = "tpm".into(), Refused::AttestationNotAsked),
        ("statement of U2F", |_, m| m.format = "fido-u2f".into(), Refused::AttestationNotAsked),
        ("statement of nobody", |_, m| m.format = "x".repeat(300), Refused::AttestationNotAsked),
        (
            "none with a statement",
            |_, m| m.statement = vec![0xa1, 0x61, b'x', 0x00],
            Refused::AttestationNotAsked,
        ),
        ("statement is no map", |_, m| m.statement = vec![0x00], Refused::NotAnAttestation),
        ("bytes behind the object", |_, m| m.object_tail = vec![0x00], Refused::NotAnAttestation),
        ("object is empty", |_, m| m.object = Some(Vec::new()), Refused::NotAnAttestation),
        ("object is a list", |_, m| m.object = Some(vec![0x83, 0, 0, 0]), Refused::NotAnAttestation),
        ("object without an end", |_, m| m.object = Some(vec![0xbf]), Refused::NotAnAttestation),
        (
            "object with a member twice",
            |_, m| {
                m.object = Some(cbor(|e| {
                    e.map(3).unwrap();
                    for _ in 0..3 {
                        e.str("fmt").unwrap().str("none").unwrap();
                    }
                }));
            },
            Refused::NotAnAttestation,
        ),
        (
            "object with a member more",
            |_, m| {
                let mut object = m.attestation_object();
                object[0] = 0xa4;
                object.extend(cbor(|e| {
                    e.str("epAtt").unwrap().bool(true).unwrap();
                }));
                m.object = Some(object);
            },
            Refused::NotAnAttestation,
        ),
        (
            "object cut off",
            |_, m| {
                let object = m.attestation_object();
                m.object = Some(object[..object.len() - 1].to_vec());
            },
            Refused::NotAnAttestation,
        ),
        (
            "object nested a thousand times",
            |_, m| {
                m.statement = [vec![0xa1, 0x61, b'x'], vec![0x81; 1000], vec![0x00]].concat();
            },
            Refused::NotAnAttestation,
        ),
    ];
    for (name, change, expected) in cases {
        assert_eq!(refused(change), Some(*expected), "{name}");
    }
    assert_eq!(cases.len(), 75);
}

#[test]
fn what_is_no_answer_is_refused() {
    let long = vec![b' '; 16 * 1024 + 1];
    for (text, expected) in [
        (&b""[..], Refused::NotAnAnswer),
        (b"null", Refused::NotAnAnswer),
        (b"{}", Refused::NotAnAnswer),
        (br#"{"id":"","rawId":"","type":"public-key","response":{}}"#, Refused::NotAnAnswer),
        (&[b'['; 16_000], Refused::NotAnAnswer),
        (&[0xff; 100], Refused::NotAnAnswer),
        (&long, Refused::TooLong),
    ] {
        let mut server = server();
        let caller = server.session();
        server.options(&caller);
        assert_eq!(server.finish(&caller, text), Err(FinishError::Refused(expected)));
    }
}

#[test]
fn an_authenticator_registers_once() {
    let mut server = server();
    let mut soft = Soft::es256();
    server.register(&mut soft);
    let again = server.try_to_register(&mut soft, |_| ());
    assert_eq!(again, Err(FinishError::Refused(Refused::Registered)));
}

#[test]
fn an_answer_is_taken_once_in_time_and_from_the_session_that_asked() {
    let mut server = server();
    let mut soft = Soft::es256();
    let caller = server.session();
    let options = server.options(&caller);
    let text = soft.create(&options, |_| ());
    let other = server.session();
    assert_eq!(server.finish(&other, &text), Err(FinishError::NotOpen), "another session");
    assert!(server.finish(&caller, &text).is_ok());
    assert_eq!(server.finish(&caller, &text), Err(FinishError::NotOpen), "a replay");
    // A failure closes it as well.
    let options = server.options(&caller);
    assert!(server.finish(&caller, b"{}").is_err());
    let text = soft.create(&options, |_| ());
    assert_eq!(server.finish(&caller, &text), Err(FinishError::NotOpen), "a second try");
    // An older one is closed by a newer one.
    let options = server.options(&caller);
    server.options(&caller);
    let text = soft.create(&options, |_| ());
    assert_eq!(server.finish(&caller, &text), Err(FinishError::Refused(Refused::OtherChallenge)));
    for (after, result) in [(REGISTRATION_MS, true), (REGISTRATION_MS + 1, false)] {
        let options = server.options(&caller);
        let text = soft.create(&options, |_| ());
        server.wall += after;
        assert_eq!(server.finish(&caller, &text).is_ok(), result, "after {after} ms");
    }
    // The clock is set back.
    let caller = server.session();
    let options = server.options(&caller);
    let text = soft.create(&options, |_| ());
    server.wall -= 1;
    assert!(server.finish(&caller, &text).is_err());
    server.wall += 1;
    // The session ends.
    let options = server.options(&caller);
    let text = soft.create(&options, |_| ());
    server.registrations.forget(caller.session());
    assert_eq!(server.finish(&caller, &text), Err(FinishError::NotOpen));
}

#[test]
fn only_a_recent_session_registers() {
    let mut server = server();
    let caller = server.session();
    let options = server.options(&caller);
    let text = Soft::es256().create(&options, |_| ());
    server.wall += 16 * 60 * 1000;
    let not_recent = Forbidden::NotRecent;
    assert_eq!(server.finish(&caller, &text), Err(FinishError::Forbidden(not_recent)));
    let actor = caller.acting(&server.record, Timestamp(server.wall)).unwrap();
    let begun = Registrations::default().begin(&server.party, &actor, ADA, &[], &mut fill_random);
    assert_eq!(begun, Err(BeginError::Forbidden(not_recent)));
}

#[test]
fn names_and_numbers_are_bounded() {
    let mut server = server();
    for _ in 0..8 {
        server.register(&mut Soft::es256());
    }
    let caller = server.session();
    let actor = caller.acting(&server.record, Timestamp(server.wall)).unwrap();
    let mut registrations = Registrations::default();
    let registered = server.credentials.webauthn();
    let begun = registrations.begin(&server.party, &actor, ADA, registered, &mut fill_random);
    assert_eq!(begun, Err(BeginError::TooMany));
    for name in ["", "a\u{7}", &"n".repeat(257)] {
        let person = Person { name, display_name: "Ada" };
        let begun = registrations.begin(&server.party, &actor, person, &[], &mut fill_random);
        assert_eq!(begun, Err(BeginError::Name), "{name:?}");
    }
    for name in ["", "two\nlines", &"n".repeat(65)] {
        registrations.begin(&server.party, &actor, ADA, &[], &mut fill_random).unwrap();
        let finished = registrations.finish(&server.party, &actor, b"{}", name, &[]);
        assert_eq!(finished, Err(FinishError::Name), "{name:?}");
    }
}

#[test]
fn a_credential_of_another_make_is_no_passkey() {
    let foreign = WebAuthnCredential::new(b"id", b"state", 0, "old", Timestamp(0)).unwrap();
    assert_eq!(Passkey::of(&foreign), Err(Refused::Kept));
    // What was kept of one credential does not stand for another.
    let mut server = server();
    let credential = server.register(&mut Soft::es256());
    let moved = WebAuthnCredential::new(b"id", credential.state(), 0, "moved", Timestamp(0)).unwrap();
    assert_eq!(Passkey::of(&moved), Err(Refused::Kept));
}

#[test]
fn removing_a_passkey_ends_every_session() {
    let mut server = server();
    let mut soft = Soft::es256();
    server.register(&mut soft);
    let caller = server.session();
    let epoch = server.record.epoch();
    server.change(CredentialChange::RemoveWebAuthn(soft.id.clone()));
    assert!(server.record.epoch() > epoch);
    assert!(server.credentials.webauthn().is_empty());
    assert_eq!(caller.acting(&server.record, Timestamp(server.wall)).unwrap_err(), Forbidden::Ended);
}

/// One edit of some bytes.
#[derive(Debug, Clone)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, u8),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let index = any::<prop::sample::Index>;
    let edit = prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (index(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (index(), 1..40_u8).prop_map(|(at, count)| Edit::Remove(at, count)),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let length = bytes.len();
        match edit {
            Edit::Set(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
            Edit::Insert(at, more) => {
                let at = at.index(length + 1);
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Remove(at, count) if length > 0 => {
                let at = at.index(length);
                bytes.drain(at..(at + usize::from(*count)).min(length));
            }
            Edit::Set(..) | Edit::Remove(..) => {}
        }
    }
    bytes
}

/// A server and two authenticators, for many answers.
static SHARED: LazyLock<Mutex<(Server, [Soft; 2])>> =
    LazyLock::new(|| Mutex::new((server(), [Soft::es384(), Soft::rs256()])));

proptest! {
    /// Without attestation nothing of a registration is signed, so what was edited can be another good one. It has the id
    /// that it says, a key that can be read, and nothing else is taken.
    #[test]
    fn edited_answers_are_taken_for_what_they_are_or_refused(edits in edits(), rsa: bool, own_key: bool) {
        let (server, softs) = &mut *SHARED.lock().unwrap();
        let caller = server.session();
        let options = server.options(&caller);
        let soft = &mut softs[usize::from(rsa)];
        let mut good = Vec::new();
        soft.create(&options, |made| {
            if own_key {
                made.format = "packed".into();
                made.statement = cbor(|e| {
                    e.map(2).unwrap().str("alg").unwrap().i64(-7).unwrap().str("sig").unwrap();
                    e.bytes(&[1; 70]).unwrap();
                });
            }
            good = made.attestation_object();
        });
        let object = edited(good, &edits);
        let text = soft.create(&options, |made| made.object = Some(object));
        match server.finish(&caller, &text) {
            Ok(credential) => {
                prop_assert!(!own_key, "a statement that nobody signed");
                prop_assert_eq!(credential.id(), &*soft.id);
                prop_assert!(Passkey::of(&credential).is_ok());
            }
            Err(FinishError::Refused(_)) => {}
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
