//! The hostile OpenID Connect sign-ins: each is a good one with one thing changed, and says how it has to end.

use super::oidc::{Answer, Attempt, Ended, Lab, NOW_MS, NOW_S, SECRET, Signer, keys, object, sign_in};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};
use zixt_identity::LoginId;

/// A case.
pub struct Case {
    pub name: &'static str,
    /// How it ends: [`Ended::code`].
    pub expected: &'static str,
    /// What is served, before the provider is found.
    serve: fn(&Lab),
    change: fn(&mut Attempt),
}

const fn token(name: &'static str, expected: &'static str, change: fn(&mut Attempt)) -> Case {
    Case { name, expected, serve: |_| (), change }
}

const fn served(name: &'static str, expected: &'static str, serve: fn(&Lab)) -> Case {
    Case { name, expected, serve, change: |_| () }
}

/// HMAC over the token as it stands, under something that is public.
fn hs256(attempt: &mut Attempt, key: &[u8]) {
    attempt.head("alg", "HS256");
    let part = |map| B64.encode(serde_json::to_vec(map).unwrap());
    let signed = format!("{}.{}", part(&attempt.header), part(&attempt.claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    attempt.token = Some(format!("{signed}.{}", B64.encode(tag)));
}

fn unsigned(attempt: &mut Attempt, alg: &str) {
    attempt.head("alg", alg);
    let token = attempt.make_token();
    attempt.token = token.rsplit_once('.').map(|(signed, _)| format!("{signed}."));
}

/// The token with its header written by hand, signed over those bytes.
fn header_text(attempt: &mut Attempt, header: &str) {
    let claims = B64.encode(serde_json::to_vec(&attempt.claims).unwrap());
    attempt.token = Some(attempt.signer.token_of("RS256", &B64.encode(header), &claims));
}

/// The token with another text in its claims, signed over those bytes.
fn claims_text(attempt: &mut Attempt, from: &str, to: &str) {
    let text = serde_json::to_string(&attempt.claims).unwrap().replacen(from, to, 1);
    let header = B64.encode(serde_json::to_vec(&attempt.header).unwrap());
    attempt.token = Some(attempt.signer.token_of("RS256", &header, &B64.encode(text)));
}

fn serve_keys(lab: &Lab, change: impl Fn(&mut Vec<Value>)) {
    let mut set = keys();
    change(set["keys"].as_array_mut().unwrap());
    lab.set("/jwks", Answer::json(&set));
}

fn serve_metadata(lab: &Lab, name: &str, value: Value) {
    let mut metadata = lab.metadata();
    metadata.insert(name.to_owned(), value);
    lab.set("/.well-known/openid-configuration", Answer::json(&Value::Object(metadata)));
}

pub const CASES: &[Case] = &[
    // The algorithm
    token("alg-none", "sso-token-algorithm", |a| unsigned(a, "none")),
    token("alg-none-spelled-otherwise", "sso-token-algorithm", |a| unsigned(a, "nOnE")),
    token("alg-none-with-the-signature-left", "sso-token-algorithm", |a| a.head("alg", "none")),
    token("alg-missing", "sso-token-algorithm", |a| {
        a.header.remove("alg");
    }),
    token("alg-hs256-with-the-modulus", "sso-token-algorithm", |a| {
        let modulus = a.signer.jwk("one")["n"].as_str().unwrap().to_owned();
        hs256(a, &B64.decode(modulus).unwrap());
    }),
    token("alg-hs256-with-the-key-as-text", "sso-token-algorithm", |a| {
        let jwk = a.signer.jwk("one").to_string();
        hs256(a, jwk.as_bytes());
    }),
    token("alg-hs256-with-the-clients-secret", "sso-token-algorithm", |a| hs256(a, SECRET.as_bytes())),
    token("alg-hs256-with-an-empty-key", "sso-token-algorithm", |a| hs256(a, b"")),
    token("alg-rs512-not-pinned", "sso-token-algorithm", |a| a.head("alg", "RS512")),
    token("alg-es256-for-an-rsa-key", "sso-token-key-mismatch", |a| a.head("alg", "ES256")),
    token("alg-es384-for-a-p256-key", "sso-token-key-mismatch", |a| {
        a.head("alg", "ES384");
        a.head("kid", "p256");
        a.signer = Signer::p384();
    }),
    token("alg-ps256-over-a-pkcs1-signature", "sso-token-signature", |a| {
        a.head("alg", "PS256");
        let part = |map| B64.encode(serde_json::to_vec(map).unwrap());
        a.token = Some(a.signer.token_of("RS256", &part(&a.header), &part(&a.claims)));
    }),
    // The key
    token("signed-by-another-key", "sso-token-signature", |a| a.signer = Signer::two()),
    token("kid-unknown", "sso-token-unknown-key", |a| {
        a.signer = Signer::two();
        a.head("kid", "two");
    }),
    token("kid-missing-among-several-keys", "sso-token-unknown-key", |a| {
        a.header.remove("kid");
    }),
    token("kid-of-another-key", "sso-token-key-mismatch", |a| a.head("kid", "p256")),
    token("kid-as-a-path", "sso-token-unknown-key", |a| a.head("kid", "../../../../dev/null")),
    token("kid-as-a-statement", "sso-token-unknown-key", |a| a.head("kid", "x' UNION SELECT 'key")),
    token("kid-as-a-url", "sso-token-unknown-key", |a| a.head("kid", "https://evil.test/jwks#two")),
    token("kid-too-long", "sso-token-unknown-key", |a| a.head("kid", "a".repeat(10_000))),
    token("kid-as-a-list", "sso-token-malformed", |a| a.head("kid", json!(["one"]))),
    token("jwk-in-the-header", "sso-token-key-in-header", |a| {
        a.signer = Signer::two();
        let jwk = a.signer.jwk("one");
        a.head("jwk", jwk);
    }),
    token("jku-in-the-header", "sso-token-key-in-header", |a| {
        a.signer = Signer::two();
        a.head("jku", "https://evil.test/jwks");
    }),
    token("jku-of-the-provider-itself", "sso-token-key-in-header", |a| {
        let jku = format!("{}/jwks", a.issuer);
        a.head("jku", jku);
    }),
    token("x5u-in-the-header", "sso-token-key-in-header", |a| a.head("x5u", "https://evil.test/cert")),
    token("x5c-in-the-header", "sso-token-key-in-header", |a| a.head("x5c", json!(["MIIB"]))),
    // The form
    token("crit-with-an-unknown-extension", "sso-token-critical", |a| {
        a.head("crit", json!(["exp"]));
        a.head("exp", NOW_S + 300);
    }),
    token("b64-false", "sso-token-form", |a| a.head("b64", false)),
    token("zip-in-the-header", "sso-token-form", |a| a.head("zip", "DEF")),
    token("nested-token", "sso-token-form", |a| a.head("cty", "JWT")),
    token("typ-of-an-access-token", "sso-token-type", |a| a.head("typ", "at+jwt")),
    token("typ-of-a-logout-token", "sso-token-type", |a| a.head("typ", "logout+jwt")),
    token("alg-twice", "sso-token-malformed", |a| {
        header_text(a, r#"{"alg":"none","kid":"one","alg":"RS256"}"#)
    }),
    token("kid-twice-once-escaped", "sso-token-malformed", |a| {
        header_text(a, r#"{"alg":"RS256","kid":"two","k\u0069d":"one"}"#);
    }),
    token("sub-twice", "sso-token-malformed", |a| {
        claims_text(a, r#""sub":"alice-1""#, r#""sub":"alice-1","sub":"admin""#);
    }),
    token("sub-twice-once-escaped", "sso-token-malformed", |a| {
        claims_text(a, r#""sub":"alice-1""#, r#""s\u0075b":"admin","sub":"alice-1""#);
    }),
    token("signature-cut-off", "sso-token-malformed", |a| {
        a.token = a.make_token().rsplit_once('.').map(|(signed, _)| signed.to_owned());
    }),
    token("signature-empty", "sso-token-signature", |a| {
        a.token = a.make_token().rsplit_once('.').map(|(signed, _)| format!("{signed}."));
    }),
    token("signature-of-zeros", "sso-token-signature", |a| {
        a.head("alg", "ES256");
        a.head("kid", "p256");
        a.signer = Signer::p256();
        let token = a.make_token();
        a.token = token.rsplit_once('.').map(|(signed, _)| format!("{signed}.{}", B64.encode([0; 64])));
    }),
    token("signature-padded", "sso-token-malformed", |a| a.token = Some(format!("{}==", a.make_token()))),
    token("four-parts", "sso-token-malformed", |a| a.token = Some(format!("{}.e30", a.make_token()))),
    token("claims-changed-after-signing", "sso-token-signature", |a| {
        let token = a.make_token();
        let parts: Vec<_> = token.split('.').collect();
        a.claim("sub", "admin");
        let claims = B64.encode(serde_json::to_vec(&a.claims).unwrap());
        a.token = Some(format!("{}.{claims}.{}", parts[0], parts[2]));
    }),
    token("claims-are-no-object", "sso-token-malformed", |a| {
        let header = B64.encode(serde_json::to_vec(&a.header).unwrap());
        a.token = Some(a.signer.token_of("RS256", &header, &B64.encode(r#"["alice-1"]"#)));
    }),
    token("claims-nested-without-end", "sso-token-malformed", |a| {
        let header = B64.encode(serde_json::to_vec(&a.header).unwrap());
        let claims = format!("{{\"a\":{}", "[".repeat(20_000));
        a.token = Some(a.signer.token_of("RS256", &header, &B64.encode(claims)));
    }),
    token("token-of-a-megabyte", "sso-unreachable", |a| a.claim("x", "y".repeat(1 << 20))),
    token("token-of-a-hundred-kilobytes", "sso-token-too-long", |a| a.claim("x", "y".repeat(100_000))),
    // Who, and for whom
    token("iss-another", "sso-token-issuer", |a| a.claim("iss", "https://evil.test")),
    token("iss-with-a-slash", "sso-token-issuer", |a| {
        let issuer = format!("{}/", a.issuer);
        a.claim("iss", issuer);
    }),
    token("iss-missing", "sso-token-claim", |a| {
        a.claims.remove("iss");
    }),
    token("aud-another", "sso-token-audience", |a| a.claim("aud", "another-client")),
    token("aud-of-two", "sso-token-audience", |a| {
        a.claim("aud", json!([super::oidc::CLIENT, "another-client"]))
    }),
    token("aud-that-begins-alike", "sso-token-audience", |a| {
        a.claim("aud", format!("{}-2", super::oidc::CLIENT))
    }),
    token("aud-missing", "sso-token-audience", |a| {
        a.claims.remove("aud");
    }),
    token("aud-empty", "sso-token-audience", |a| a.claim("aud", json!([]))),
    token("azp-another", "sso-token-authorized-party", |a| a.claim("azp", "another-client")),
    token("sub-missing", "sso-token-claim", |a| {
        a.claims.remove("sub");
    }),
    token("sub-empty", "sso-token-claim", |a| a.claim("sub", "")),
    token("sub-a-number", "sso-token-claim", |a| a.claim("sub", 1)),
    token("sub-with-a-zero-byte", "sso-token-claim", |a| a.claim("sub", "admin\0-1")),
    token("sub-of-other-scripts", "sso-token-claim", |a| a.claim("sub", "аlice-1")),
    token("sub-too-long", "sso-token-claim", |a| a.claim("sub", "a".repeat(256))),
    // When
    token("exp-passed", "sso-token-expired", |a| a.claim("exp", NOW_S - 60)),
    token("exp-missing", "sso-token-claim", |a| {
        a.claims.remove("exp");
    }),
    token("exp-as-a-text", "sso-token-claim", |a| a.claim("exp", (NOW_S + 300).to_string())),
    token("exp-as-a-fraction", "sso-token-claim", |a| a.claim("exp", 1.9e9)),
    token("iat-in-the-future", "sso-token-not-yet-valid", |a| a.claim("iat", NOW_S + 100)),
    token("iat-before-the-sign-in", "sso-token-too-old", |a| a.claim("iat", NOW_S - 100)),
    token("iat-missing", "sso-token-claim", |a| {
        a.claims.remove("iat");
    }),
    token("nbf-in-the-future", "sso-token-not-yet-valid", |a| a.claim("nbf", NOW_S + 100)),
    token("auth-time-in-the-future", "sso-token-not-yet-valid", |a| a.claim("auth_time", NOW_S + 100)),
    // For which sign-in
    token("nonce-another", "sso-token-nonce", |a| a.claim("nonce", "another")),
    token("nonce-missing", "sso-token-claim", |a| {
        a.claims.remove("nonce");
    }),
    token("nonce-a-list-with-the-right-one", "sso-token-claim", |a| {
        let nonce = a.claims["nonce"].clone();
        a.claim("nonce", json!([nonce]));
    }),
    token("at-hash-of-another-access-token", "sso-token-access-token-hash", |a| {
        a.answer.insert("access_token".to_owned(), "access-token-2".into());
    }),
    token("logout-token-as-an-id-token", "sso-token-type", |a| {
        a.claim("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}}));
    }),
    // The callback
    token("callback-from-another-provider", "sso-issuer-mismatch", |a| {
        a.parameter("iss", "https://evil.test")
    }),
    token("callback-without-the-promised-iss", "sso-issuer-missing", |a| {
        a.callback.retain(|(name, _)| name != "iss")
    }),
    token("callback-with-another-state", "no-pending", |a| a.parameter("state", "another")),
    token("callback-without-a-state", "no-pending", |a| a.callback.retain(|(name, _)| name != "state")),
    token("callback-with-two-codes", "sso-callback", |a| {
        a.callback.push(("code".to_owned(), "code-2".to_owned()))
    }),
    token("callback-with-a-token", "sso-callback", |a| {
        let token = a.make_token();
        a.callback.push(("id_token".to_owned(), token));
    }),
    token("callback-twice", "no-pending", |a| a.times = 2),
    token("callback-in-another-browser", "sso-other-browser", |a| a.browser = [8; 32]),
    token("callback-for-another-login", "sso-other-login", |a| a.login = LoginId([4; 16])),
    token("callback-after-eleven-minutes", "sso-ended", |a| a.clock_ms = NOW_MS + 11 * 60 * 1000),
    token("callback-before-it-began", "sso-ended", |a| a.clock_ms = NOW_MS - 1),
    token("access-denied", "sso-denied", |a| {
        a.callback.retain(|(name, _)| name != "code");
        a.parameter("error", "access_denied");
    }),
    // The token endpoint
    token("code-used-before", "sso-code-refused", |a| {
        a.raw_answer = Some(Answer::of(400, "application/json", r#"{"error":"invalid_grant"}"#));
    }),
    token("answer-without-an-id-token", "sso-answer", |a| {
        a.answer.insert("id_token".to_owned(), Value::Null);
    }),
    token("answer-with-another-token-type", "sso-answer", |a| {
        a.answer.insert("token_type".to_owned(), "mac".into());
    }),
    token("answer-with-two-id-tokens", "sso-answer", |a| {
        let token = a.make_token();
        let text = format!(
            r#"{{"token_type":"Bearer","access_token":"x","id_token":"{token}","id_token":"{token}"}}"#
        );
        a.raw_answer = Some(Answer::of(200, "application/json", text));
    }),
    token("answer-as-a-page", "sso-unreachable", |a| {
        let mut answer = a.answer.clone();
        answer.insert("id_token".to_owned(), a.make_token().into());
        a.raw_answer = Some(Answer::of(200, "text/html", Value::Object(answer).to_string()));
    }),
    token("answer-is-a-redirect", "sso-unreachable", |a| {
        let mut answer = Answer::of(307, "application/json", "{}");
        answer.headers.push(("location", "https://evil.test/token".to_owned()));
        a.raw_answer = Some(answer);
    }),
    token("answer-is-compressed", "sso-unreachable", |a| {
        let mut answer = a.answer.clone();
        answer.insert("id_token".to_owned(), a.make_token().into());
        let mut answer = Answer::json(&Value::Object(answer));
        answer.headers.push(("content-encoding", "gzip".to_owned()));
        a.raw_answer = Some(answer);
    }),
    // The provider's own documents
    served("jwks-at-another-origin", "discover-elsewhere", |lab| {
        serve_metadata(lab, "jwks_uri", "https://evil.test/jwks".into());
    }),
    served("token-endpoint-at-another-origin", "discover-elsewhere", |lab| {
        serve_metadata(lab, "token_endpoint", "https://evil.test/token".into());
    }),
    served("metadata-of-another-issuer", "discover-issuer", |lab| {
        serve_metadata(lab, "issuer", "https://evil.test".into());
    }),
    served("jwks-with-one-id-twice", "discover-keys", |lab| {
        serve_keys(lab, |keys| keys.push(Signer::two().jwk("one")));
    }),
    served("jwks-with-a-shared-key", "discover-keys", |lab| {
        serve_keys(lab, |keys| keys.push(json!({"kty": "oct", "kid": "shared", "k": "AQAB"})));
    }),
    served("jwks-with-a-private-key", "discover-keys", |lab| {
        serve_keys(lab, |keys| keys[0]["d"] = "AQAB".into());
    }),
    served("jwks-swapped", "sso-token-unknown-key", |lab| {
        lab.set("/jwks", Answer::json(&json!({"keys": [Signer::two().jwk("two")]})));
    }),
    served("jwks-with-another-key-under-the-same-id", "sso-token-signature", |lab| {
        lab.set("/jwks", Answer::json(&json!({"keys": [Signer::two().jwk("one")]})));
    }),
];

/// Runs one case after its good twin. The twin is the same sign-in without the change, and has to succeed.
pub async fn run(lab: &Lab, case: &Case) -> (Ended, Ended) {
    lab.reset();
    let twin = sign_in(lab, &lab.document(), |_| ()).await;
    (case.serve)(lab);
    let hostile = sign_in(lab, &lab.document(), case.change).await;
    (twin, hostile)
}

/// Claims of a good logout token.
pub fn logout_claims(lab: &Lab) -> serde_json::Map<String, Value> {
    object(json!({
        "iss": lab.issuer, "aud": super::oidc::CLIENT, "iat": NOW_S, "exp": NOW_S + 120, "jti": "logout-1",
        "sub": "alice-1", "sid": "session-1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    }))
}
