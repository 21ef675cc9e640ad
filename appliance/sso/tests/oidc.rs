//! The OpenID Connect half against a provider of the test's own, over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::hostile_oidc::{CASES, logout_claims, run};
use lab::oidc::{
    Answer, BROWSER, CLIENT, Ended, LOGIN, Lab, NOW_MS, NOW_S, SECRET, Signer, keys, now, object, sign_in,
    sign_in_with,
};
use lab::{Authority, random};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use zixt_identity::{Issuer, IssuerId, Role};
use zixt_sso::oidc::{
    ConfigDocument, DiscoverError, Introspector, KEYS_AGAIN_MS_MIN, KEYS_AGE_MS_MAX, KEYS_RETRY_MS_MIN,
    NoIntrospection, Refusal,
};
use zixt_sso::{Browser, WEB_BODY_BYTES_MAX, WebError};
use zixt_types::Timestamp;

fn signed(ended: Ended) -> zixt_sso::Assertion {
    match ended {
        Ended::Signed(assertion) => assertion,
        other => panic!("nobody signed in: {other:?}"),
    }
}

#[tokio::test]
async fn a_good_sign_in_yields_the_person_and_nothing_else() {
    let lab = Lab::start().await;
    let assertion = signed(sign_in(&lab, &lab.document(), |_| ()).await);
    assert_eq!(assertion.unchanging_id(), b"alice-1");
    assert_eq!(assertion.session(), Some("session-1"));
    assert_eq!(assertion.roles(), &BTreeSet::from([Role::User]));
    assert_eq!(assertion.authenticated_at(), Some(Timestamp((NOW_S - 5) * 1000)));
    assert_eq!(assertion.login(), LOGIN);
    let issuer = Issuer::sso(IssuerId([1; 16]));
    assert_eq!(assertion.link(&issuer), issuer.link(b"alice-1"));
    let shown = format!("{assertion:?}");
    assert!(!shown.contains("alice") && !shown.contains("eyJ"), "{shown}");
}

#[tokio::test]
async fn every_pinned_algorithm_signs_and_no_other() {
    let lab = Lab::start().await;
    let signers = [("RS256", "one"), ("PS256", "one"), ("ES256", "p256"), ("ES384", "p384")];
    let signer = |kid: &str| match kid {
        "p256" => Signer::p256(),
        "p384" => Signer::p384(),
        _ => Signer::one(),
    };
    for (algorithm, kid) in signers {
        let change = |attempt: &mut lab::oidc::Attempt| {
            attempt.head("alg", algorithm);
            attempt.head("kid", kid);
            attempt.signer = signer(kid);
            attempt.claims.remove("at_hash");
        };
        let ended = sign_in(&lab, &lab.document(), change).await;
        assert_eq!(ended.code(), "signed-in", "{algorithm}");
        let others: Vec<_> =
            signers.iter().map(|(name, ..)| (*name).to_owned()).filter(|name| name != algorithm).collect();
        let document = ConfigDocument { algorithms: others, ..lab.document() };
        let ended = sign_in(&lab, &document, change).await;
        assert_eq!(ended.code(), "sso-token-algorithm", "{algorithm} is not pinned");
    }
}

#[tokio::test]
async fn the_request_carries_pkce_state_and_nonce_and_the_secret_goes_to_the_provider_alone() {
    let lab = Lab::start().await;
    let document = ConfigDocument { max_age_s: Some(600), acr: vec!["strong".into()], ..lab.document() };
    let provider = lab.provider(&document).await.unwrap();
    let begun = provider.begin(LOGIN, Browser::of(&BROWSER), now(), &mut random).unwrap();
    let query: HashMap<String, String> = begun.url.query_pairs().into_owned().collect();
    assert!(begun.url.as_str().starts_with(&format!("{}/auth?", lab.issuer)));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", "https://zixt.test/sso/callback"),
        ("scope", "openid profile"),
        ("code_challenge_method", "S256"),
        ("max_age", "600"),
        ("acr_values", "strong"),
    ] {
        assert_eq!(query[name], value, "{name}");
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(query[name].len(), 43, "{name} has 256 bits");
    }
    assert!(!begun.url.as_str().contains("secret"));
    let shown = format!("{begun:?} {provider:?}");
    assert!(!shown.contains(SECRET) && !shown.contains(&query["nonce"]), "{shown}");

    sign_in_with(&lab, &lab.provider(&lab.document()).await.unwrap(), |_| ()).await;
    let form = lab.form("/token");
    assert_eq!(form["grant_type"], "authorization_code");
    assert_eq!((form["code"].as_str(), form["code_verifier"].len()), ("code-1", 43));
    assert!(!form.contains_key("client_secret"), "the secret is in the header");
    assert!(lab.script.lock().unwrap().authorization.as_deref().unwrap_or_default().starts_with("Basic "));
}

#[tokio::test]
async fn every_hostile_sign_in_is_refused_and_its_good_twin_is_not() {
    let lab = Lab::start().await;
    let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len(), "a name twice");
    assert!(CASES.len() >= 30, "{}", CASES.len());
    for case in CASES {
        let (twin, hostile) = run(&lab, case).await;
        assert_eq!(signed(twin).unchanging_id(), b"alice-1", "the twin of {}", case.name);
        assert_eq!(hostile.code(), case.expected, "{}: {hostile:?}", case.name);
    }
}

#[tokio::test]
async fn what_is_demanded_of_the_sign_in_at_the_provider_is_checked() {
    let lab = Lab::start().await;
    let fresh = ConfigDocument { max_age_s: Some(30), skew_s: 0, ..lab.document() };
    let at = |seconds: u64| {
        move |a: &mut lab::oidc::Attempt| {
            a.claim("auth_time", NOW_S - seconds);
            a.claim("iat", NOW_S);
        }
    };
    assert_eq!(sign_in(&lab, &fresh, at(27)).await.code(), "signed-in");
    assert_eq!(sign_in(&lab, &fresh, at(28)).await.code(), "sso-authentication-too-old");
    let without = |a: &mut lab::oidc::Attempt| {
        a.claim("iat", NOW_S);
        a.claims.remove("auth_time");
    };
    assert_eq!(sign_in(&lab, &fresh, without).await.code(), "sso-authentication-too-old");
    let strong = ConfigDocument {
        acr: vec!["urn:strong".into()],
        amr: vec!["hwk".into(), "pin".into()],
        ..lab.document()
    };
    let with = |acr: Value, amr: Value| {
        move |a: &mut lab::oidc::Attempt| {
            a.claim("acr", acr.clone());
            a.claim("amr", amr.clone());
        }
    };
    let all = json!(["pin", "hwk", "x"]);
    assert_eq!(sign_in(&lab, &strong, with("urn:strong".into(), all.clone())).await.code(), "signed-in");
    for (acr, amr) in [
        ("urn:weak".into(), all.clone()),
        (json!("urn:strong"), json!(["pin"])),
        (json!("urn:strong"), json!([])),
        (json!(""), all),
    ] {
        let ended = sign_in(&lab, &strong, with(acr.clone(), amr.clone())).await;
        assert_eq!(ended.code(), "sso-authentication-too-weak", "{acr} {amr}");
    }
}

#[tokio::test]
async fn keys_rotate_and_unknown_ids_do_not_flood_the_provider() {
    let lab = Lab::start().await;
    let provider = lab.provider(&lab.document()).await.unwrap();
    let with_two = |later_ms: u64| {
        move |a: &mut lab::oidc::Attempt| {
            a.signer = Signer::two();
            a.head("kid", "two");
            a.clock_ms = NOW_MS + later_ms;
        }
    };
    assert_eq!(lab.asked("/jwks"), 1);
    // Unknown: asked once, and not again within the wait.
    for _ in 0..5 {
        assert_eq!(sign_in_with(&lab, &provider, with_two(1000)).await.code(), "sso-token-unknown-key");
    }
    assert_eq!(lab.asked("/jwks"), 2);
    let mut rotated = keys();
    rotated["keys"].as_array_mut().unwrap().push(Signer::two().jwk("two"));
    lab.set("/jwks", Answer::json(&rotated));
    assert_eq!(sign_in_with(&lab, &provider, with_two(2000)).await.code(), "sso-token-unknown-key");
    assert_eq!(sign_in_with(&lab, &provider, with_two(1000 + KEYS_AGAIN_MS_MIN)).await.code(), "signed-in");
    assert_eq!(lab.asked("/jwks"), 3);
    // A key that was withdrawn signs until the keys are old, and no longer.
    lab.set("/jwks", Answer::json(&json!({"keys": [Signer::two().jwk("two")]})));
    let soon = |a: &mut lab::oidc::Attempt| a.clock_ms = NOW_MS + 2000 + KEYS_AGAIN_MS_MIN;
    assert_eq!(sign_in_with(&lab, &provider, soon).await.code(), "signed-in");
    let token = Signer::one().token(&object(json!({"alg": "RS256", "kid": "one"})), &logout_claims(&lab));
    let soon = || Timestamp(NOW_MS + 2000 + KEYS_AGAIN_MS_MIN);
    assert!(provider.back_channel_logout(&token, &soon).await.is_ok());
    let later = || Timestamp(NOW_MS + 1000 + KEYS_AGAIN_MS_MIN + KEYS_AGE_MS_MAX + 1);
    let ended = provider.back_channel_logout(&token, &later).await;
    assert_eq!(ended.unwrap_err().code(), "sso-token-unknown-key", "withdrawn an hour ago");
    // A set that cannot be used does not take the place of the one that is known.
    lab.set("/jwks", Answer::of(200, "application/json", "{}"));
    let again = || Timestamp(NOW_MS + 3 * KEYS_AGE_MS_MAX);
    assert_eq!(provider.back_channel_logout(&token, &again).await.unwrap_err().code(), "sso-keys");
    // While they are old and cannot be had, strangers cannot make this side ask without end.
    let asked = lab.asked("/jwks");
    for _ in 0..5 {
        assert_eq!(provider.back_channel_logout(&token, &again).await.unwrap_err().code(), "sso-busy");
    }
    assert_eq!(lab.asked("/jwks"), asked);
    lab.set("/jwks", Answer::json(&keys()));
    let soon = || Timestamp(NOW_MS + 3 * KEYS_AGE_MS_MAX + KEYS_RETRY_MS_MIN);
    assert_eq!(provider.back_channel_logout(&token, &soon).await.unwrap_err().code(), "sso-token-expired");
}

#[tokio::test]
async fn logout_tokens_are_taken_once_and_hostile_ones_never() {
    let lab = Lab::start().await;
    let provider = lab.provider(&lab.document()).await.unwrap();
    let good = object(json!({"alg": "RS256", "kid": "one", "typ": "logout+jwt"}));
    let token = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut claims = logout_claims(&lab);
        change(&mut claims);
        Signer::one().token(&good, &claims)
    };
    let set = |name: &'static str, value: Value| {
        move |claims: &mut serde_json::Map<String, Value>| drop(claims.insert(name.to_owned(), value.clone()))
    };
    let without =
        |name: &'static str| move |claims: &mut serde_json::Map<String, Value>| drop(claims.remove(name));
    let events = |name: &str, value: Value| set("events", json!({ name: value }));
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let cases: Vec<(&str, String, &str)> = vec![
        ("no event", token(&without("events")), "sso-token-no-logout"),
        ("another event", token(&events("urn:x", json!({}))), "sso-token-no-logout"),
        ("an event that is no object", token(&events(event, json!(true))), "sso-token-no-logout"),
        ("a nonce, as an ID token has", token(&set("nonce", "x".into())), "sso-token-no-logout"),
        (
            "nobody and no session",
            token(&|c| {
                c.remove("sub");
                c.remove("sid");
            }),
            "sso-token-no-logout",
        ),
        ("no jti", token(&without("jti")), "sso-token-claim"),
        ("another audience", token(&set("aud", "x".into())), "sso-token-audience"),
        ("another issuer", token(&set("iss", "https://evil.test".into())), "sso-token-issuer"),
        ("three minutes and more old", token(&set("iat", (NOW_S - 181).into())), "sso-token-too-old"),
        ("from the future", token(&set("iat", (NOW_S + 61).into())), "sso-token-not-yet-valid"),
        ("ended", token(&set("exp", (NOW_S - 60).into())), "sso-token-expired"),
        ("signed by another", Signer::two().token(&good, &logout_claims(&lab)), "sso-token-signature"),
        (
            "an ID token's type",
            Signer::one()
                .token(&object(json!({"alg": "RS256", "kid": "one", "typ": "at+jwt"})), &logout_claims(&lab)),
            "sso-token-type",
        ),
    ];
    for (what, token, code) in cases {
        let refused = provider.back_channel_logout(&token, &now).await;
        assert_eq!(refused.unwrap_err().code(), code, "{what}");
    }
    let good = token(&|_| ());
    let logout = provider.back_channel_logout(&good, &now).await.unwrap();
    assert_eq!((logout.unchanging_id(), logout.session()), (Some(&b"alice-1"[..]), Some("session-1")));
    assert_eq!(provider.back_channel_logout(&good, &now).await.unwrap_err().code(), "sso-replay");
    let everywhere = token(&|c| {
        c.remove("sid");
        c.insert("jti".into(), "logout-2".into());
    });
    let logout = provider.back_channel_logout(&everywhere, &now).await.unwrap();
    assert_eq!((logout.unchanging_id(), logout.session()), (Some(&b"alice-1"[..]), None));
}

#[tokio::test]
async fn a_log_out_that_begins_here_names_the_session_to_the_provider() {
    let lab = Lab::start().await;
    let provider = lab.provider(&lab.document()).await.unwrap();
    let assertion = signed(sign_in_with(&lab, &provider, |_| ()).await);
    let url = provider.logout_url(assertion.hint(), Some("back-1")).unwrap();
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    assert!(url.as_str().starts_with(&format!("{}/end?", lab.issuer)));
    assert_eq!(query["client_id"], CLIENT);
    assert_eq!(query["post_logout_redirect_uri"], "https://zixt.test/bye");
    assert_eq!(query["state"], "back-1");
    assert_eq!(query["id_token_hint"], assertion.hint().unwrap().expose_secret());
}

#[tokio::test]
async fn tokens_of_api_clients_are_asked_about_and_answers_live_for_half_a_minute() {
    let lab = Lab::start().await;
    let provider = Arc::new(lab.provider(&lab.document()).await.unwrap());
    assert_eq!(Introspector::new(Arc::clone(&provider), "").err(), Some(NoIntrospection::NoAudience));
    let introspector = Introspector::new(provider, "zixt-api").unwrap();
    let active = json!({
        "active": true, "iss": lab.issuer, "aud": ["zixt-api", "other"], "client_id": "backup-job", "sub": "svc-1",
        "scope": "read write", "exp": NOW_S + 3600, "nbf": NOW_S, "token_type": "Bearer",
    });
    lab.set("/introspect", Answer::json(&active));
    let token = SecretString::from("token-1");
    let at = |ms: u64| move || Timestamp(NOW_MS + ms);
    let client = introspector.check(&token, &at(0)).await.unwrap();
    assert_eq!((client.client_id(), client.subject()), ("backup-job", Some("svc-1")));
    assert_eq!(client.scopes(), ["read", "write"]);
    assert_eq!(lab.form("/introspect")["token"], "token-1");
    // Withdrawn: for half a minute nobody notices, then everybody does.
    lab.set("/introspect", Answer::json(&json!({"active": false})));
    assert!(introspector.check(&token, &at(29_999)).await.is_ok());
    assert_eq!(lab.asked("/introspect"), 1);
    assert!(matches!(introspector.check(&token, &at(30_000)).await, Err(Refusal::Inactive)));
    // That it is not active is not remembered, and a clock that was set back makes no answer live longer.
    lab.set("/introspect", Answer::json(&active));
    assert!(introspector.check(&token, &at(30_001)).await.is_ok());
    let asked = lab.asked("/introspect");
    assert!(introspector.check(&token, &at(0)).await.is_ok());
    assert_eq!(lab.asked("/introspect"), asked + 1);

    let change = |name: &str, value: Value| {
        let mut answer = active.clone();
        answer[name] = value;
        answer
    };
    for (at, bad) in [
        json!({"active": "true"}),
        json!({}),
        change("active", json!(false)),
        change("aud", json!("another-api")),
        change("aud", json!([])),
        change("iss", json!("https://evil.test")),
        change("exp", json!(NOW_S)),
        change("nbf", json!(NOW_S + 100)),
        change("token_type", json!("mac")),
    ]
    .iter()
    .enumerate()
    {
        lab.set("/introspect", Answer::json(bad));
        let refused = introspector.check(&SecretString::from(format!("bad-{at}")), &now).await;
        assert!(matches!(refused, Err(Refusal::Inactive)), "{bad}: {refused:?}");
    }
    // What is no token goes to nobody.
    let asked = lab.asked("/introspect");
    for bad in ["", "a b", "a\nb", "a&token=b", &"a".repeat(20_000)] {
        assert!(matches!(introspector.check(&SecretString::from(bad), &now).await, Err(Refusal::Inactive)));
    }
    assert_eq!(lab.asked("/introspect"), asked);
}

#[tokio::test]
async fn the_provider_is_known_by_its_pinned_authority_alone() {
    let lab = Lab::start().await;
    let other = ConfigDocument { authorities_pem: Authority::new("another").pem, ..lab.document() };
    let refused = lab.provider(&other).await;
    assert!(matches!(refused, Err(DiscoverError::Web(WebError::Tls(_)))), "{refused:?}");
    let name = ConfigDocument { issuer: lab.issuer.replace("127.0.0.1", "127.0.0.2"), ..lab.document() };
    let refused = lab.provider(&name).await;
    assert!(matches!(refused, Err(DiscoverError::Web(_))), "a certificate for another address: {refused:?}");
}

#[tokio::test]
async fn answers_are_bounded_and_redirects_are_not_followed() {
    let lab = Lab::start().await;
    let metadata = "/.well-known/openid-configuration";
    lab.set(metadata, Answer::of(200, "application/json", vec![b' '; WEB_BODY_BYTES_MAX + 1]));
    assert!(matches!(lab.provider(&lab.document()).await, Err(DiscoverError::Web(WebError::TooLong))));
    let mut moved = Answer::of(302, "application/json", "");
    moved.headers.push(("location", format!("{}/elsewhere", lab.issuer)));
    lab.set(metadata, moved);
    assert!(matches!(lab.provider(&lab.document()).await, Err(DiscoverError::Web(WebError::Status(302)))));
    assert_eq!(lab.asked("/elsewhere"), 0);
}

#[tokio::test]
async fn a_provider_that_can_agrees_on_the_hybrid_key_exchange() {
    let lab = Lab::start().await;
    lab.provider(&lab.document()).await.unwrap();
    assert_eq!(lab.script.lock().unwrap().group, Some(rustls::NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn the_secret_goes_into_the_form_where_the_provider_wants_it_there() {
    let lab = Lab::start().await;
    let mut metadata = lab.metadata();
    metadata.insert("token_endpoint_auth_methods_supported".to_owned(), json!(["client_secret_post"]));
    lab.set("/.well-known/openid-configuration", Answer::json(&Value::Object(metadata)));
    assert_eq!(sign_in(&lab, &lab.document(), |_| ()).await.code(), "signed-in");
    let form = lab.form("/token");
    assert_eq!((form["client_id"].as_str(), form["client_secret"].as_str()), (CLIENT, SECRET));
    assert_eq!(lab.script.lock().unwrap().authorization, None);
}

#[tokio::test]
async fn the_issuer_parameter_can_be_demanded_of_a_provider_that_does_not_promise_it() {
    let lab = Lab::start().await;
    let mut metadata = lab.metadata();
    metadata.remove("authorization_response_iss_parameter_supported");
    lab.set("/.well-known/openid-configuration", Answer::json(&Value::Object(metadata)));
    let without = |attempt: &mut lab::oidc::Attempt| attempt.callback.retain(|(name, _)| name != "iss");
    assert_eq!(sign_in(&lab, &lab.document(), without).await.code(), "signed-in");
    let demanding = ConfigDocument { require_iss: true, ..lab.document() };
    assert_eq!(sign_in(&lab, &demanding, without).await.code(), "sso-issuer-missing");
    assert_eq!(sign_in(&lab, &demanding, |_| ()).await.code(), "signed-in");
    // If it is there, it is compared in any case.
    let other = |attempt: &mut lab::oidc::Attempt| attempt.parameter("iss", "https://evil.test");
    assert_eq!(sign_in(&lab, &lab.document(), other).await.code(), "sso-issuer-mismatch");
}
