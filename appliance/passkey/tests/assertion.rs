//! Assertions of authenticators, also hostile ones, and whole sign-ins with them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::{AT, BE, BS, CHANNEL, ED, Made, PASSWORD, Server, Soft, UP, UV, cbor, encode};
use proptest::prelude::*;
use std::sync::LazyLock;
use zixt_crypto::fill_random;
use zixt_identity::{
    Because, Challenge, Channel, CredentialChange, Factor, FactorSet, Login, Password, Proof, Role, Step,
    WebAuthnCredential, WebAuthnError, WebAuthnProof,
};
use zixt_passkey::{Refused, RequestOptions, parse_assertion};
use zixt_types::{Hash, Timestamp};

/// A server with an account that has a passkey, its authenticator, and a sign-in under way.
struct Scene {
    server: Server,
    soft: Soft,
    credential: WebAuthnCredential,
    login: Login,
}

impl Scene {
    fn new(mut soft: Soft) -> Self {
        let mut server = Server::new(7, Role::SecurityOfficer);
        let credential = server.register(&mut soft);
        let login = server.begin();
        Self { server, soft, credential, login }
    }

    fn challenge(&self) -> &Challenge {
        self.login.challenge()
    }

    fn options(&self) -> RequestOptions {
        self.server.ask(&self.login)
    }

    fn answer(&mut self, change: impl FnOnce(&mut Made)) -> Vec<u8> {
        let options = self.options();
        self.soft.get(&options, change)
    }

    fn check(&self, text: &[u8]) -> Result<u32, Refused> {
        self.server.party.check(self.challenge(), &self.credential, text)
    }
}

fn refused(change: impl FnOnce(&Soft, &mut Made)) -> Option<Refused> {
    let other = Soft::es256();
    let mut scene = Scene::new(Soft::es256());
    let text = scene.answer(|made| change(&other, made));
    scene.check(&text).err()
}

#[test]
fn each_algorithm_signs_in() {
    for soft in [Soft::es256(), Soft::es384(), Soft::rs256()] {
        let mut scene = Scene::new(soft);
        for count in 1..=3 {
            let text = scene.answer(|_| ());
            assert_eq!(scene.check(&text), Ok(count));
        }
    }
}

#[test]
fn what_a_page_asks_for_is_what_is_demanded() {
    let scene = Scene::new(Soft::es256());
    let json = serde_json::to_value(scene.options()).unwrap();
    assert_eq!(json["rpId"], "zixt.test");
    assert_eq!(json["userVerification"], "required");
    assert_eq!(json["allowCredentials"][0]["type"], "public-key");
    assert_eq!(json["allowCredentials"][0]["id"], encode(&scene.soft.id));
    // The browser waits no longer than the sign-in is open.
    let late = Timestamp(scene.challenge().expires_at.0 - 1234);
    let options = scene.server.party.options(scene.challenge(), "ada", &[], late);
    assert_eq!(options.timeout, 1234);
    let ended = Timestamp(scene.challenge().expires_at.0 + 1);
    assert_eq!(scene.server.party.options(scene.challenge(), "ada", &[], ended).timeout, 0);
}

#[test]
fn hostile_assertions_are_refused_for_what_is_wrong_with_them() {
    type Change = fn(&Soft, &mut Made);
    let cases: &[(&str, Change, Refused)] = &[
        ("origin", |_, m| m.origin = "https://evil.test".into(), Refused::OtherOrigin),
        ("sub-domain", |_, m| m.origin = "https://a.zixt.test".into(), Refused::OtherOrigin),
        ("http", |_, m| m.origin = "http://zixt.test".into(), Refused::OtherOrigin),
        ("port", |_, m| m.origin = "https://zixt.test:444".into(), Refused::OtherOrigin),
        ("an app", |_, m| m.origin = "android:apk-key-hash:AAAA".into(), Refused::OtherOrigin),
        ("no origin", |_, m| m.origin = "null".into(), Refused::OtherOrigin),
        ("cross-origin", |_, m| m.cross_origin = Some(true), Refused::CrossOrigin),
        ("top origin", |_, m| m.top_origin = Some("https://evil.test".into()), Refused::CrossOrigin),
        ("create", |_, m| m.kind = "webauthn.create".into(), Refused::OtherCeremony),
        ("challenge", |_, m| m.challenge = encode(&[0; 48]), Refused::OtherChallenge),
        ("no challenge", |_, m| m.challenge.clear(), Refused::OtherChallenge),
        ("padded challenge", |_, m| m.challenge.push('='), Refused::OtherChallenge),
        ("client data is no JSON", |_, m| m.client_data = Some(b"x".to_vec()), Refused::NotClientData),
        (
            "client data goes on",
            |_, m| {
                let mut data = m.client_data();
                data.extend(b"{}");
                m.client_data = Some(data);
            },
            Refused::NotClientData,
        ),
        (
            "a member twice",
            |_, m| {
                let text = String::from_utf8(m.client_data()).unwrap();
                let challenge = ",\"challenge\":\"AAAA\"}";
                m.client_data = Some(text.replace('}', challenge).into_bytes());
            },
            Refused::NotClientData,
        ),
        ("relying party", |_, m| m.rp_id = "evil.test".into(), Refused::OtherRelyingParty),
        ("origin as relying party", |_, m| m.rp_id = "https://zixt.test".into(), Refused::OtherRelyingParty),
        ("nobody present", |_, m| m.flags = UV, Refused::UserNotPresent),
        ("nobody verified", |_, m| m.flags = UP, Refused::UserNotVerified),
        ("can be copied", |_, m| m.flags |= BE, Refused::Synchronised),
        ("was copied", |_, m| m.flags |= BE | BS, Refused::Synchronised),
        ("a key, announced only", |_, m| m.flags |= AT, Refused::NotAuthenticatorData),
        (
            "a key",
            |other, m| {
                m.flags |= AT;
                m.key = other.public_key();
            },
            Refused::NotAuthenticatorData,
        ),
        ("bytes behind the end", |_, m| m.tail = vec![0], Refused::NotAuthenticatorData),
        (
            "huge extensions",
            |_, m| {
                m.flags |= ED;
                m.tail = cbor(|e| {
                    e.map(1).unwrap().str("x").unwrap().bytes(&[0; 2000]).unwrap();
                });
            },
            Refused::NotAuthenticatorData,
        ),
        (
            "extensions nested a thousand times",
            |_, m| {
                m.flags |= ED;
                m.tail = [vec![0xa1, 0x61, b'x'], vec![0x81; 1020], vec![0x00]].concat();
            },
            Refused::NotAuthenticatorData,
        ),
        (
            "extensions of a length beyond the end",
            |_, m| {
                m.flags |= ED;
                m.tail = vec![0xa1, 0x61, b'x', 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
            },
            Refused::NotAuthenticatorData,
        ),
        ("data cut off", |_, m| m.cut = Some(36), Refused::NotAuthenticatorData),
        ("no data", |_, m| m.cut = Some(0), Refused::NotAuthenticatorData),
        (
            "another id",
            |_, m| {
                m.outer_id = encode(b"other");
                m.outer_raw_id = encode(b"other");
            },
            Refused::OtherCredential,
        ),
        ("two ids", |_, m| m.outer_raw_id = encode(b"other"), Refused::IdsDiffer),
        ("another type", |_, m| m.outer_kind = "password".into(), Refused::NotAnAnswer),
        ("another user", |_, m| m.user = Some(encode(&[1; 32])), Refused::OtherUser),
        ("a user of no bytes", |_, m| m.user = Some(String::new()), Refused::OtherUser),
        ("a user that is not base64url", |_, m| m.user = Some("+".into()), Refused::NotAnAnswer),
        (
            "another key's signature",
            |other, m| m.signature = Some(other.sign(&m.signed())),
            Refused::Signature,
        ),
        (
            "a signature of another key's kind",
            |_, m| {
                m.signature = Some(Soft::rs256().sign(&m.signed()));
            },
            Refused::Signature,
        ),
        ("a signature of fixed length", |_, m| m.signature = Some(vec![1; 64]), Refused::Signature),
        (
            "a signature of zeros",
            |_, m| {
                // r = s = 0 in DER: the forgery that careless verifiers took.
                m.signature = Some(vec![0x30, 6, 2, 1, 0, 2, 1, 0]);
            },
            Refused::Signature,
        ),
        ("no signature", |_, m| m.signature = Some(Vec::new()), Refused::Signature),
        ("a huge signature", |_, m| m.signature = Some(vec![0x30; 4096]), Refused::TooLong),
    ];
    for (name, change, expected) in cases {
        assert_eq!(refused(change), Some(*expected), "{name}");
    }
    assert_eq!(cases.len(), 41);
}

#[test]
fn nothing_that_is_signed_can_be_changed() {
    let mut scene = Scene::new(Soft::es256());
    // Signed as it was, sent as it is now.
    for change in [
        (|made: &mut Made| made.counter += 1) as fn(&mut Made),
        |made| made.cross_origin = None,
        |made| made.flags |= 1 << 1,
        |made| {
            made.flags |= ED;
            made.tail = vec![0xa0];
        },
    ] {
        let options = scene.options();
        let mut signed = Vec::new();
        scene.soft.get(&options, |made| signed = made.signed());
        let signature = scene.soft.sign(&signed);
        scene.soft.counter -= 1;
        let text = scene.soft.get(&options, |made| {
            change(made);
            made.signature = Some(signature);
        });
        assert_eq!(scene.check(&text), Err(Refused::Signature));
    }
}

#[test]
fn a_copied_key_is_told_from_a_forged_one() {
    let mut scene = Scene::new(Soft::es256());
    let counted = |sign_count| {
        WebAuthnCredential::new(
            scene.credential.id(),
            scene.credential.state(),
            sign_count,
            "key",
            Timestamp(0),
        )
        .unwrap()
    };
    let kept = counted(5);
    for (counter, expected) in [
        (4, Err(Refused::CounterWentBack)),
        (5, Err(Refused::CounterWentBack)),
        (6, Ok(6)),
        (u32::MAX, Ok(u32::MAX)),
    ] {
        let text = scene.answer(|made| made.counter = counter);
        assert_eq!(scene.server.party.check(scene.challenge(), &kept, &text), expected, "{counter}");
    }
    let none = scene.answer(|made| made.counter = 0);
    assert_eq!(scene.server.party.check(scene.challenge(), &kept, &none), Err(Refused::CounterWentBack));
    // An authenticator without a counter.
    assert_eq!(scene.check(&none), Ok(0));
    // Without the key there is no word about a copy: nobody raises that alarm from outside.
    let other = Soft::es256();
    let forged = scene.answer(|made| {
        made.counter = 1;
        made.signature = Some(other.sign(&made.signed()));
    });
    assert_eq!(scene.server.party.check(scene.challenge(), &kept, &forged), Err(Refused::Signature));
}

#[test]
fn an_assertion_is_good_for_one_sign_in_on_one_channel() {
    let mut scene = Scene::new(Soft::es256());
    let text = scene.answer(|_| ());
    assert!(scene.check(&text).is_ok());
    let other = scene.server.begin();
    let checked = scene.server.party.check(other.challenge(), &scene.credential, &text);
    assert_eq!(checked, Err(Refused::OtherChallenge), "another sign-in");
    let changed = |change: fn(&mut Challenge)| {
        let mut challenge = scene.challenge().clone();
        change(&mut challenge);
        scene.server.party.check(&challenge, &scene.credential, &text)
    };
    for change in [
        (|c: &mut Challenge| c.channel = Channel::Listener(Hash([5; 48])).binding()) as fn(&mut Challenge),
        |c| c.login.0[0] ^= 1,
        |c| c.nonce[0] ^= 1,
        |c| c.genesis.0[0] ^= 1,
        |c| c.appliance.0[0] ^= 1,
        |c| c.expires_at.0 += 1,
    ] {
        assert_eq!(changed(change), Err(Refused::OtherChallenge));
    }
}

#[test]
fn a_credential_of_another_account_or_relying_party_is_none() {
    let mut scene = Scene::new(Soft::es256());
    let mut eve = Server::new(8, Role::User);
    let mut hers = Soft::es256();
    let of_eve = eve.register(&mut hers);
    // Her authenticator answers ada's sign-in.
    let options = scene.options();
    let text = hers.get(&options, |_| ());
    assert_eq!(scene.check(&text), Err(Refused::OtherCredential));
    // It calls itself by the id of ada's: the key is another, and the account that it was made for.
    let id = encode(&scene.soft.id);
    let posing = |user| {
        move |made: &mut Made| {
            (made.outer_id, made.outer_raw_id, made.user) = (id.clone(), id.clone(), user);
        }
    };
    let text = hers.get(&options, posing.clone()(hers.user.clone()));
    assert_eq!(scene.check(&text), Err(Refused::OtherUser));
    let text = hers.get(&options, posing(None));
    assert_eq!(scene.check(&text), Err(Refused::Signature));
    // Ada's own answers for a credential of eve's that has her id.
    let stolen = WebAuthnCredential::new(&scene.soft.id, of_eve.state(), 0, "key", Timestamp(0)).unwrap();
    let text = scene.answer(|_| ());
    assert_eq!(scene.server.party.check(scene.challenge(), &stolen, &text), Err(Refused::Kept));
}

#[test]
fn names_without_passkeys_are_asked_like_others() {
    let scene = Scene::new(Soft::es256());
    let ask = |who: &str| scene.server.party.options(scene.challenge(), who, &[], Timestamp(lab::START));
    let (nobody, again) = (ask("nobody"), ask("nobody"));
    assert_eq!(nobody, again, "the same each time");
    assert_ne!(nobody.allow_credentials, ask("somebody").allow_credentials);
    let ada = scene.options();
    assert_eq!(nobody.challenge, ada.challenge);
    assert!(!nobody.allow_credentials.is_empty());
    let shape = |options: RequestOptions| {
        let json = serde_json::to_value(options).unwrap();
        json.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(shape(nobody), shape(ada));
}

#[test]
fn answers_are_bounded() {
    let scene = Scene::new(Soft::es256());
    let cases: [(Vec<u8>, Refused); 7] = [
        (vec![b' '; 16 * 1024 + 1], Refused::TooLong),
        (vec![b'['; 16 * 1024], Refused::NotAnAnswer),
        (b"{\"id\":".repeat(2_000), Refused::NotAnAnswer),
        (Vec::new(), Refused::NotAnAnswer),
        (b"{}".to_vec(), Refused::NotAnAnswer),
        (br#"{"id":"","rawId":"","type":"public-key","response":null}"#.to_vec(), Refused::NotAnAnswer),
        (br#"{"id":"AA","id":"AB","rawId":"AA"}"#.to_vec(), Refused::NotAnAnswer),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_assertion(&text).unwrap_err(), expected);
        assert_eq!(scene.check(&text), Err(expected));
    }
}

fn need(factors: &[Factor]) -> FactorSet {
    factors.iter().copied().collect()
}

/// A sign-in of an officer at which the password was taken.
fn after_the_password(server: &mut Server) -> Login {
    let mut login = server.begin();
    let password = Proof::Password(Password::parse(PASSWORD).unwrap());
    let step = server.step(&mut login, password);
    let Step::Need(factors) = step else { panic!("{step:?}") };
    assert_eq!(factors, need(&[Factor::DeviceKey, Factor::WebAuthn]));
    login
}

fn because(step: Step) -> Because {
    match step {
        Step::Refused { because, .. } => because,
        step => panic!("{step:?}"),
    }
}

#[test]
fn an_officer_signs_in_and_a_replay_opens_nothing() {
    let mut scene = Scene::new(Soft::es256());
    scene.server.set_password();
    let server = &mut scene.server;
    let mut login = after_the_password(server);
    let options = server.ask(&login);
    let text = scene.soft.get(&options, |_| ());
    let proof = || Proof::WebAuthn(parse_assertion(&text).unwrap());
    server.wall += 1000;
    let Step::Done(grant) = server.step(&mut login, proof()) else { panic!("no session") };
    assert_eq!((grant.first(), grant.further()), (Factor::Password, need(&[Factor::WebAuthn])));
    let kept = &server.credentials.webauthn()[0];
    assert_eq!((kept.sign_count(), kept.last_used_at()), (1, Some(Timestamp(server.wall))));
    let (token, _) = server.sessions.open(*grant, &mut fill_random).unwrap();
    let now = server.now();
    let caller = server
        .sessions
        .check(&server.policy, &token, &CHANNEL.binding(), now, |_| Some(&server.record))
        .unwrap();
    assert_eq!(caller.account(), server.record.id());
    // The same answer in the same sign-in, and in another one.
    assert_eq!(because(server.step(&mut login, proof())), Because::Over);
    let mut next = after_the_password(server);
    let refused = Because::WebAuthn(WebAuthnError::Rejected("other-challenge"));
    assert_eq!(because(server.step(&mut next, proof())), refused);
}

#[test]
fn the_audit_record_is_told_why() {
    let mut scene = Scene::new(Soft::es256());
    scene.server.set_password();
    let server = &mut scene.server;
    let mut login = after_the_password(server);
    let options = server.ask(&login);
    let counted = scene.soft.get(&options, |made| made.counter = 9);
    let proof = |text: &[u8]| Proof::WebAuthn(parse_assertion(text).unwrap());
    assert!(matches!(server.step(&mut login, proof(&counted)), Step::Done(_)));
    let mut login = after_the_password(server);
    let options = server.ask(&login);
    let unknown = Soft::es256().get(&options, |_| ());
    let unverified = scene.soft.get(&options, |made| made.flags = UP);
    let elsewhere = scene.soft.get(&options, |made| made.origin = "https://evil.test".into());
    let copied = scene.soft.get(&options, |made| made.counter = 9);
    for (text, why) in [
        (unknown, WebAuthnError::UnknownCredential),
        (unverified, WebAuthnError::UserNotVerified),
        (elsewhere, WebAuthnError::Rejected("other-origin")),
        (copied, WebAuthnError::CounterWentBack),
    ] {
        assert_eq!(because(server.step(&mut login, proof(&text))), Because::WebAuthn(why));
    }
    // What is no assertion counts as one that is wrong.
    let nothing = WebAuthnProof { credential: Vec::new(), assertion: Vec::new() };
    let step = server.step(&mut login, Proof::WebAuthn(nothing));
    assert_eq!(because(step), Because::WebAuthn(WebAuthnError::UnknownCredential));
}

#[test]
fn a_passkey_that_was_removed_signs_nobody_in() {
    let mut scene = Scene::new(Soft::es256());
    scene.server.set_password();
    let server = &mut scene.server;
    let mut login = after_the_password(server);
    let options = server.ask(&login);
    let text = scene.soft.get(&options, |_| ());
    server.change(CredentialChange::RemoveWebAuthn(scene.soft.id.clone()));
    let step = server.step(&mut login, Proof::WebAuthn(parse_assertion(&text).unwrap()));
    assert_eq!(because(step), Because::WebAuthn(WebAuthnError::UnknownCredential));
}

#[test]
fn a_sign_in_that_has_ended_takes_no_assertion() {
    let mut scene = Scene::new(Soft::es256());
    scene.server.set_password();
    let server = &mut scene.server;
    let mut login = after_the_password(server);
    let options = server.ask(&login);
    let text = scene.soft.get(&options, |_| ());
    server.wall += 300_001;
    let step = server.step(&mut login, Proof::WebAuthn(parse_assertion(&text).unwrap()));
    assert_eq!(because(step), Because::Expired);
}

/// One account with a passkey, and one good answer: for many changes of it.
static GOOD: LazyLock<(Challenge, WebAuthnCredential, Vec<u8>)> = LazyLock::new(|| {
    let mut scene = Scene::new(Soft::es256());
    let text = scene.answer(|_| ());
    assert!(scene.check(&text).is_ok());
    (scene.challenge().clone(), scene.credential, text)
});

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text: Vec<u8>) {
        let party = lab::party(&[lab::ORIGIN]);
        let (challenge, credential, _) = &*GOOD;
        prop_assert!(parse_assertion(&text).is_err());
        prop_assert!(party.check(challenge, credential, &text).is_err());
    }

    /// Any bytes in the place of each part: nothing but the good ones is taken.
    #[test]
    fn any_parts_are_refused_without_a_panic(
        data: Vec<u8>,
        client: Vec<u8>,
        signature: Vec<u8>,
        which in 0..8_u8,
    ) {
        let party = lab::party(&[lab::ORIGIN]);
        let (challenge, credential, good) = &*GOOD;
        let mut answer: serde_json::Value = serde_json::from_slice(good).unwrap();
        let good_count = party.check(challenge, credential, good);
        prop_assert!(good_count.is_ok());
        if which & 1 != 0 {
            answer["response"]["authenticatorData"] = encode(&data).into();
        }
        if which & 2 != 0 {
            answer["response"]["clientDataJSON"] = encode(&client).into();
        }
        if which & 4 != 0 {
            answer["response"]["signature"] = encode(&signature).into();
        }
        let text = serde_json::to_vec(&answer).unwrap();
        prop_assert_eq!(party.check(challenge, credential, &text).is_ok(), which == 0);
    }

    /// One bit of the authenticator's data, or one character of the client data, is another one.
    #[test]
    fn one_changed_bit_is_noticed(at: prop::sample::Index, bit in 0..8_u8, of_client: bool) {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
        let party = lab::party(&[lab::ORIGIN]);
        let (challenge, credential, good) = &*GOOD;
        let mut answer: serde_json::Value = serde_json::from_slice(good).unwrap();
        let name = if of_client { "clientDataJSON" } else { "authenticatorData" };
        let part = &mut answer["response"][name];
        let mut bytes = BASE64URL.decode(part.as_str().unwrap()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        *part = encode(&bytes).into();
        let text = serde_json::to_vec(&answer).unwrap();
        prop_assert!(party.check(challenge, credential, &text).is_err());
    }
}
