//! Who may come in, and who may do what.

use crate::access::AccessKeys;
use crate::testing::{Answer, Stack, method, tls_of};
use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use zixt_api::endpoints::{self, fill};
use zixt_api::{
    Acceptance, AccountInfo, AccountPage, AccountStatus, BackupCodes, Bytes64, ENDPOINTS, FactorKind, Hex,
    Listener, Me, Method, NewPassword, NewRoles, Problem, RecoveryCode, RecoveryInfo, RecoveryList, Renewed,
    RoleName, Secret, SessionList, SessionsEnded, SignInProof, SignInRequest, SignInStep, StreamLine,
    TotpConfirmation, TotpEnrolment, VaultFile, Who,
};
use zixt_audit::{Action, Actor};
use zixt_crypto::AeadKey;
use zixt_identity::{AccountRecord, Approved, Authority, PERMISSIONS, Permission, Population, Roles};
use zixt_ledger::testing::SampleDevice;
use zixt_storage::{AccessChange, AccessKind};
use zixt_types::{AccountId, Hash, Role};

const GOOD_PASSWORD: &str = "seven tall trees lean west";

pub(super) fn secret(text: &str) -> Secret {
    zeroize::Zeroizing::new(text.to_owned()).into()
}

impl Stack {
    async fn put<T: Serialize>(&self, device: &SampleDevice, path: &str, body: &T) -> Answer {
        self.call(Some(tls_of(device)), "PUT", path, serde_json::to_vec(body).unwrap()).await
    }

    async fn delete(&self, device: &SampleDevice, path: &str) -> Answer {
        self.call(Some(tls_of(device)), "DELETE", path, Vec::new()).await
    }

    async fn does(&self, device: &SampleDevice, path: &str, account: AccountId) -> Answer {
        self.call(Some(tls_of(device)), "POST", &fill(path, &[&account]), Vec::new()).await
    }

    fn token(&self, tls: Hash) -> Option<String> {
        self.tokens.lock().unwrap().get(&tls).cloned()
    }

    fn show(&self, tls: Hash, token: Option<String>) {
        let mut tokens = self.tokens.lock().unwrap();
        match token {
            Some(token) => drop(tokens.insert(tls, token)),
            None => drop(tokens.remove(&tls)),
        }
    }

    pub(super) fn renew(&self, device: &SampleDevice, answer: &Answer) {
        let renewed: Renewed = answer.json();
        self.show(tls_of(device), Some(renewed.token.expose().to_owned()));
    }

    /// Signs in with a key that is no device's, by proofs one after the other.
    async fn come(&self, tls: Hash, name: &str, proofs: &[SignInProof]) -> Vec<Answer> {
        let request = SignInRequest { account: None, name: Some(name.to_owned()), directory: None };
        let request = serde_json::to_vec(&request).unwrap();
        let begun: zixt_api::SignInBegun =
            self.call(Some(tls), "POST", endpoints::SIGN_IN, request).await.json();
        let path = fill(endpoints::SIGN_IN_PROOF, &[&begun.sign_in]);
        let mut answers = Vec::new();
        for proof in proofs {
            let proof = serde_json::to_vec(proof).unwrap();
            answers.push(self.call(Some(tls), "POST", &path, proof).await);
        }
        answers
    }
}

fn password(text: &str) -> SignInProof {
    SignInProof::Password { password: secret(text) }
}

pub(super) async fn next_line(body: &mut Body) -> Option<StreamLine> {
    let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await.expect("in time")?;
    Some(serde_json::from_slice(&frame.unwrap().into_data().unwrap()).unwrap())
}

/// The problem with which a stream ends.
pub(super) async fn end_of(body: &mut Body) -> Problem {
    loop {
        if let StreamLine::End { problem } = next_line(body).await.expect("it says why it ends") {
            assert!(next_line(body).await.is_none());
            return problem;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_good_on_its_own_key_and_for_its_own_account_only() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let counts = |device| stack.get(device, endpoints::KEY_PACKAGES);
    assert_eq!(counts(&ada).await.status, StatusCode::OK);
    let (own, others) = (stack.token(tls_of(&ada)).unwrap(), stack.token(tls_of(&bob)).unwrap());
    for (shown, what) in [
        (None, "none"),
        (Some(others), "another's"),
        (Some("AAAA".to_owned()), "no token"),
        (Some("0000-".repeat(13)), "one that nobody has"),
    ] {
        stack.show(tls_of(&ada), shown);
        assert_eq!(counts(&ada).await.code(), "sign-in-needed", "{what}");
    }
    // The right token over another key.
    stack.show(Hash([9; 48]), Some(own.clone()));
    let stolen = stack.call(Some(Hash([9; 48])), "GET", endpoints::ME, Vec::new()).await;
    assert_eq!(stolen.code(), "sign-in-needed");
    stack.show(tls_of(&ada), Some(own));
    let me: Me = stack.get(&ada, endpoints::ME).await.json();
    assert_eq!((me.account.0, me.name.as_deref()), (ada.member.account, Some("ada")));
    assert_eq!(
        (me.roles.as_slice(), me.factors.as_slice()),
        (&[RoleName::User][..], &[FactorKind::DeviceKey][..])
    );

    // A second session of the same device, listed and ended by the first; and leaving.
    let first = stack.token(tls_of(&ada)).unwrap();
    stack.sign_in(&ada).await;
    let second = stack.token(tls_of(&ada)).unwrap();
    stack.show(tls_of(&ada), Some(first.clone()));
    let list: SessionList = stack.get(&ada, endpoints::MY_SESSIONS).await.json();
    assert_eq!(list.sessions.len(), 2);
    let other = list.sessions.iter().find(|session| !session.current).unwrap();
    let path = fill(endpoints::MY_SESSION, &[&other.session]);
    let ended: SessionsEnded = stack.delete(&ada, &path).await.json();
    assert_eq!(ended.ended, 1);
    assert_eq!(stack.delete(&ada, &path).await.code(), "unknown-session");
    let bobs: SessionList = stack.get(&bob, endpoints::MY_SESSIONS).await.json();
    let path = fill(endpoints::MY_SESSION, &[&bobs.sessions[0].session]);
    assert_eq!(stack.delete(&ada, &path).await.code(), "unknown-session", "nobody ends another's");
    stack.show(tls_of(&ada), Some(second));
    assert_eq!(counts(&ada).await.code(), "sign-in-needed");
    stack.show(tls_of(&ada), Some(first));
    assert_eq!(stack.post(&ada, endpoints::SIGN_OUT, &()).await.status, StatusCode::OK);
    assert_eq!(counts(&ada).await.code(), "sign-in-needed");
    stack.sign_in(&ada).await;
    assert_eq!(counts(&ada).await.status, StatusCode::OK, "no key of anybody was touched");

    // Sessions outlive a restart, as they were.
    stack.stop().await;
    stack.start_again().await;
    assert_eq!(stack.get(&ada, endpoints::ME).await.status, StatusCode::OK);
    let list: SessionList = stack.get(&ada, endpoints::MY_SESSIONS).await.json();
    assert_eq!(list.sessions.len(), 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_suspended_is_out_at_once_and_stays_out() {
    let mut stack = Stack::new().await;
    let root = stack.person_as("root", &[Role::Administrator, Role::User]).await;
    let ada = stack.person("ada").await;
    let mut stream = stack.open_stream(&ada, endpoints::STREAM).await;
    assert!(matches!(next_line(&mut stream).await, Some(StreamLine::Heartbeat { .. })));
    let info: AccountInfo = stack.does(&root, endpoints::PERSON_SUSPEND, ada.member.account).await.json();
    assert_eq!(
        (info.status, info.sessions, info.name.as_deref()),
        (AccountStatus::Suspended, 0, Some("ada"))
    );
    assert_eq!(end_of(&mut stream).await.code.code(), "sign-in-needed");
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "sign-in-needed");
    assert_eq!(stack.try_sign_in(&ada).await.code(), "sign-in-refused");
    assert_eq!(
        stack.does(&root, endpoints::PERSON_SUSPEND, ada.member.account).await.code(),
        "account-status"
    );

    stack.stop().await;
    stack.start_again().await;
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "sign-in-needed");
    assert_eq!(stack.try_sign_in(&ada).await.code(), "sign-in-refused");
    let info: AccountInfo = stack.does(&root, endpoints::PERSON_RESUME, ada.member.account).await.json();
    assert_eq!(info.status, AccountStatus::Active);
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "sign-in-needed", "the old session stays ended");
    stack.sign_in(&ada).await;
    assert_eq!(stack.get(&ada, endpoints::ME).await.status, StatusCode::OK);

    // Nobody does it to themselves, and the last administrator stays.
    assert_eq!(stack.does(&root, endpoints::PERSON_SUSPEND, root.member.account).await.code(), "own-account");
    let officer = stack.person_as("officer", &[Role::SecurityOfficer]).await;
    let last = stack.does(&officer, endpoints::PERSON_SUSPEND, root.member.account).await;
    assert_eq!(last.code(), "last-of-role");
    let info: AccountInfo = stack.does(&root, endpoints::PERSON_OFFBOARD, ada.member.account).await.json();
    assert_eq!((info.status, info.devices.len()), (AccountStatus::Offboarded, 0));
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "caller-revoked");
    stack.follow();
    assert_eq!(stack.net.state.account(ada.member.account).unwrap().active_devices().count(), 0);
    assert_eq!(
        stack.does(&root, endpoints::PERSON_RESUME, ada.member.account).await.code(),
        "account-status"
    );
    assert_eq!(stack.try_sign_in(&ada).await.code(), "sign-in-refused");

    // All of it is on record, with who did it.
    let listed = stack.app.audit.events();
    let by = Actor::Device(root.member.account, root.member.device);
    let did = |action| listed.iter().any(|event| event.action == action && event.actor == by);
    assert!(did(Action::AccountSuspended) && did(Action::AccountResumed) && did(Action::AccountRemoved));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_lets_in_from_elsewhere_and_guesses_lock_nobody_out_of_their_device() {
    let mut stack = Stack::new().await;
    let ada = stack.person("ada").await;
    let browser = Hash([9; 48]);
    for (bad, why) in [("short", "too short"), ("zixtzixtzixtzixt", "the service's name"), ("", "empty")] {
        let answer = stack.put(&ada, endpoints::MY_PASSWORD, &NewPassword { password: secret(bad) }).await;
        assert_eq!(answer.code(), "password-refused", "{why}");
    }
    let mut stream = stack.open_stream(&ada, endpoints::STREAM).await;
    let set = stack.put(&ada, endpoints::MY_PASSWORD, &NewPassword { password: secret(GOOD_PASSWORD) }).await;
    // Every session of before has ended, the one that asked as well: it goes on under a new token.
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "sign-in-needed");
    assert_eq!(end_of(&mut stream).await.code.code(), "sign-in-needed");
    stack.renew(&ada, &set);
    let me: Me = stack.get(&ada, endpoints::ME).await.json();
    assert_eq!(me.factors, [FactorKind::Password, FactorKind::DeviceKey]);

    let answers =
        stack.come(browser, "Ada", &[password("wrong but long enough"), password(GOOD_PASSWORD)]).await;
    assert_eq!(answers[0].code(), "sign-in-refused");
    let SignInStep::Done { token, account, .. } = answers[1].json() else {
        panic!("it is enough for a user")
    };
    assert_eq!(account.0, ada.member.account);
    stack.show(browser, Some(token.expose().to_owned()));
    assert_eq!(stack.call(Some(browser), "GET", endpoints::ME, Vec::new()).await.status, StatusCode::OK);
    // Messages are for devices.
    let answer = stack.call(Some(browser), "GET", endpoints::KEY_PACKAGES, Vec::new()).await;
    assert_eq!(answer.code(), "unknown-caller");

    // Guesses from elsewhere: a back-off, then a lock. A name that nobody has is answered alike.
    for name in ["nobody at all", "ada"] {
        let mut refused = 0;
        for guess in 0..u8::MAX {
            let answers = stack.come(Hash([guess; 48]), name, &[password("wrong but long enough")]).await;
            match answers[0].problem() {
                problem if problem.code.code() == "sign-in-refused" => refused += 1,
                problem if problem.retry_after.is_some_and(|seconds| seconds >= 4) => break,
                _ => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
        assert!((3..10).contains(&refused), "{name}: {refused} guesses before a wait of seconds");
    }
    let good = stack.come(Hash([40; 48]), "ada", &[password(GOOD_PASSWORD)]).await;
    let problem = good[0].problem();
    assert_eq!(problem.code.code(), "sign-in-locked");
    assert!(problem.retry_after.is_some_and(|seconds| seconds >= 1));
    // From where she has signed in before she gets in, and her device does anyway.
    let known = stack.come(browser, "ada", &[password(GOOD_PASSWORD)]).await;
    assert_eq!(known[0].status, StatusCode::OK);
    stack.sign_in(&ada).await;
    let me: Me = stack.get(&ada, endpoints::ME).await.json();
    assert!(me.failures >= 3, "she is told: {}", me.failures);

    // The counts outlive a restart, and their owner lifts them.
    stack.stop().await;
    stack.start_again().await;
    let good = stack.come(Hash([41; 48]), "ada", &[password(GOOD_PASSWORD)]).await;
    assert_eq!(good[0].code(), "sign-in-locked");
    assert_eq!(stack.post(&ada, endpoints::MY_LOCKOUT_LIFT, &()).await.status, StatusCode::OK);
    let good = stack.come(Hash([41; 48]), "ada", &[password(GOOD_PASSWORD)]).await;
    assert_eq!(good[0].status, StatusCode::OK);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_goes_on_only_where_it_began() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let (begun, challenge) = stack.begin_sign_in(&ada).await;
    let sign = |device: &SampleDevice| {
        let member = device.member;
        let proof =
            zixt_identity::DeviceProof::sign(&*device.identity, &challenge, member.account, member.device);
        SignInProof::DeviceKey { proof: Bytes64(zixt_types::Canonical::to_bytes(&proof.unwrap())) }
    };
    // Over another connection, by another device, and a proof that is none.
    assert_eq!(stack.prove(&bob, &begun, &sign(&ada)).await.code(), "sign-in-refused");
    assert_eq!(stack.prove(&ada, &begun, &sign(&bob)).await.code(), "sign-in-refused");
    let none = SignInProof::DeviceKey { proof: Bytes64(vec![1, 2, 3]) };
    assert_eq!(stack.prove(&ada, &begun, &none).await.code(), "malformed-request");
    assert_eq!(stack.prove(&ada, &begun, &sign(&ada)).await.status, StatusCode::OK);
    // It is over, and its proof good for nothing else.
    assert_eq!(stack.prove(&ada, &begun, &sign(&ada)).await.code(), "unknown-sign-in");
    let (again, _) = stack.begin_sign_in(&ada).await;
    assert_eq!(stack.prove(&ada, &again, &sign(&ada)).await.code(), "sign-in-refused");
    // A device that was revoked.
    stack.follow();
    let revoked = stack.net.revoke(bob.member.device, &bob);
    assert_eq!(stack.submit(&bob, &[&revoked]).await.status, StatusCode::OK);
    for path in [endpoints::KEY_PACKAGES, endpoints::ME, endpoints::MY_SESSIONS] {
        assert_eq!(stack.get(&bob, path).await.code(), "caller-revoked", "{path}");
    }
    stack.follow();
    assert_eq!(stack.try_sign_in(&bob).await.code(), "sign-in-refused");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_time_passwords_and_backup_codes_are_good_once() {
    let mut stack = Stack::new().await;
    let ada = stack.person_as("ada", &[Role::Auditor]).await;
    let set = stack.put(&ada, endpoints::MY_PASSWORD, &NewPassword { password: secret("lean west 8") }).await;
    stack.renew(&ada, &set);
    let enrolment: TotpEnrolment = stack.post(&ada, endpoints::MY_TOTP, &()).await.json();
    let uri = enrolment.uri.expose().to_owned();
    assert!(uri.starts_with("otpauth://totp/Zixt%20"), "{uri}");
    // Steps are counted from one moment, however long what follows takes.
    let begun = crate::health::now().0;
    let code = |steps: i64| totp(&uri, begun, steps);
    let wrong = TotpConfirmation { code: secret("000000") };
    assert_eq!(stack.post(&ada, endpoints::MY_TOTP_CONFIRM, &wrong).await.code(), "code-refused");
    let first = TotpConfirmation { code: secret(&code(-1)) };
    let confirmed = stack.post(&ada, endpoints::MY_TOTP_CONFIRM, &first).await;
    stack.renew(&ada, &confirmed);
    assert_eq!(stack.post(&ada, endpoints::MY_TOTP_CONFIRM, &first).await.code(), "not-enrolled");
    let made: BackupCodes = stack.post(&ada, endpoints::MY_BACKUP_CODES, &()).await.json();
    assert_eq!(made.codes.len(), 10);
    stack.show(tls_of(&ada), Some(made.token.expose().to_owned()));

    let elsewhere = Hash([9; 48]);
    let with = |code: &str| SignInProof::Totp { code: secret(code) };
    let now = code(0);
    let answers = stack.come(elsewhere, "ada", &[password("lean west 8"), with(&code(-1)), with(&now)]).await;
    let SignInStep::Need { factors, .. } = answers[0].json() else { panic!("an auditor needs more") };
    assert!(factors.contains(&FactorKind::Totp) && factors.contains(&FactorKind::BackupCode), "{factors:?}");
    assert_eq!(answers[1].code(), "sign-in-refused", "it was used to confirm the app");
    assert!(matches!(answers[2].json(), SignInStep::Done { .. }));
    let answers = stack.come(elsewhere, "ada", &[password("lean west 8"), with(&now)]).await;
    assert_eq!(answers[1].code(), "sign-in-refused", "each step once");
    let backup = SignInProof::BackupCode { code: made.codes[3].clone() };
    let answers = stack.come(elsewhere, "ada", &[password("lean west 8"), backup.clone()]).await;
    assert!(matches!(answers[1].json(), SignInStep::Done { .. }));
    let answers = stack.come(elsewhere, "ada", &[password("lean west 8"), backup]).await;
    assert_eq!(answers[1].code(), "sign-in-refused", "each code once");
    let me: Me = stack.get(&ada, endpoints::ME).await.json();
    assert_eq!(me.backup_codes_left, 9);
    stack.stop().await;
}

/// RFC 6238 with the secret of a key URI: the app of the person, written apart from the server's.
fn totp(uri: &str, now_ms: u64, steps: i64) -> String {
    use hmac::{KeyInit as _, Mac as _};
    let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    let (mut bits, mut held, mut key) = (0u32, 0u32, Vec::new());
    for letter in secret.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            _ => letter - b'2' + 26,
        };
        held = held << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            key.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    let step = u64::try_from(i64::try_from(now_ms / 30_000).unwrap() + steps).unwrap();
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(&key).unwrap();
    mac.update(&step.to_be_bytes());
    let mac = mac.finalize().into_bytes();
    let at = usize::from(mac[19] & 15);
    let word = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7FFF_FFFF;
    format!("{:06}", word % 1_000_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn officers_and_administrators_are_made_by_a_ceremony_alone() {
    let mut stack = Stack::new().await;
    let root = stack.person_as("root", &[Role::Administrator, Role::User]).await;
    let officer = stack.person_as("officer", &[Role::SecurityOfficer]).await;
    let ada = stack.person("ada").await;
    let roles = async |stack: &Stack, by: &SampleDevice, names: &[RoleName]| {
        let path = fill(endpoints::PERSON_ROLES, &[&ada.member.account]);
        stack.put(by, &path, &NewRoles { roles: names.to_vec() }).await
    };
    for by in [&root, &officer] {
        for name in [RoleName::Administrator, RoleName::SecurityOfficer] {
            let code = roles(&stack, by, &[name]).await.code();
            let expected = if std::ptr::eq(by, &raw const officer) { "needs-ceremony" } else { "forbidden" };
            assert_eq!(code, expected, "{name:?}");
        }
    }
    assert_eq!(roles(&stack, &root, &[]).await.code(), "roles-invalid");
    let both = [RoleName::Administrator, RoleName::Auditor];
    assert_eq!(roles(&stack, &root, &both).await.code(), "roles-invalid");
    // What is not privileged an administrator gives; an auditor takes an officer. Sessions end.
    assert_eq!(roles(&stack, &root, &[RoleName::Auditor]).await.code(), "forbidden");
    let info: AccountInfo = roles(&stack, &root, &[RoleName::Operator, RoleName::User]).await.json();
    assert_eq!(info.roles, [RoleName::Operator, RoleName::User]);
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "sign-in-needed");
    let info: AccountInfo = roles(&stack, &officer, &[RoleName::Auditor]).await.json();
    assert_eq!(info.roles, [RoleName::Auditor]);

    // A decision that the ledger has is carried out once, also by a server that was down when it was recorded, and roles
    // that only officers give are not believed from the store.
    stack.stop().await;
    let keys = AccessKeys::new(&AeadKey::from_bytes(&[7; 32]));
    let by = Authority::Ceremony(Approved::danger_of(Hash([1; 48])));
    let (everybody, admin) = (
        Population { officers: 9, administrators: 9, auditors: 9 },
        Roles::new(&[Role::Administrator]).unwrap(),
    );
    let forged =
        AccountRecord::of_the_ledger(ada.member.account).change_roles(&by, admin, everybody).unwrap();
    let row = Some(forged.record.seal(&keys.rows));
    let id = ada.member.account.as_bytes().to_vec();
    let store = zixt_storage::Store::open(&stack.folder().join("ledger.sqlite")).await.unwrap();
    store.write_access(&[AccessChange { kind: AccessKind::Account, id, row }]).await.unwrap();
    store.close().await.unwrap();
    stack.start_again().await;
    assert_eq!(stack.try_sign_in(&ada).await.code(), "sign-in-refused");
    let people: AccountPage = stack.get(&officer, endpoints::PEOPLE).await.json();
    assert!(people.accounts.iter().all(|info| info.account.0 != ada.member.account));
    assert_eq!(people.accounts.len(), 2);
    let me: Me = stack.get(&root, endpoints::ME).await.json();
    assert_eq!(me.roles, [RoleName::Administrator, RoleName::User]);

    // What was decided last counts, whatever row the store has.
    let row = stack.app.store.access(AccessKind::Account, root.member.account.as_bytes()).await.unwrap();
    stack.give_roles(root.member.account, &[Role::User]).await;
    let id = root.member.account.as_bytes().to_vec();
    stack.app.store.write_access(&[AccessChange { kind: AccessKind::Account, id, row }]).await.unwrap();
    stack.stop().await;
    stack.start_again().await;
    stack.sign_in(&root).await;
    let me: Me = stack.get(&root, endpoints::ME).await.json();
    assert_eq!(me.roles, [RoleName::User]);

    // What cannot be is said to who hands it in, and stands in the journal with the account.
    let nobody = AccountId([7; 16]);
    let decision = zixt_types::Decision::SetRoles { account: nobody, roles: vec![Role::Administrator] };
    let transcript = stack.net.approve(&stack.net.action(0, decision), 1);
    let transcript = zixt_types::Canonical::to_bytes(&transcript);
    let request = zixt_api::AdminDecision { transcript: transcript.into(), key: None };
    let answer = stack.call_admin("POST", endpoints::ADMIN_DECISIONS, &request).await;
    assert_eq!(answer.code(), "account-status");
    let events = stack.app.audit.events();
    let told = |account: AccountId, done: bool| {
        events.iter().any(|event| {
            event.action == Action::RoleGranted
                && event.target == Some(zixt_audit::Target::Account(account))
                && (event.outcome == zixt_audit::Outcome::Ok) == done
        })
    };
    assert!(told(nobody, false) && told(root.member.account, true) && !told(nobody, true));
    stack.stop().await;
}

/// A request that waited does nothing on a session that has ended meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waited_acts_for_nobody_who_was_thrown_out() {
    let mut stack = Stack::new().await;
    let ada = stack.person("ada").await;
    let door = crate::access::Door::of_client(tls_of(&ada), None, true);
    let waits = stack.app.access.check(&stack.token(tls_of(&ada)).unwrap(), &door).unwrap();
    assert_eq!(stack.post(&ada, endpoints::SIGN_OUT, &()).await.status, StatusCode::OK);
    let late = stack.app.access.set_password(&waits, None, Some(&secret(GOOD_PASSWORD))).await;
    assert_eq!(late.unwrap_err().code.code(), "sign-in-needed");
    let vault = stack.app.access.put_vault(&waits, &Bytes64(vec![0; 8])).await;
    assert!(vault.is_err());
    stack.sign_in(&ada).await;
    let me: Me = stack.get(&ada, endpoints::ME).await.json();
    assert_eq!(me.factors, [FactorKind::DeviceKey], "nothing was stored");
    stack.stop().await;
}

/// Whoever hangs up in the middle changes nothing about what is recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_finished_and_recorded_when_its_connection_is_gone() {
    let mut stack = Stack::new().await;
    let root = stack.person_as("root", &[Role::Administrator, Role::User]).await;
    for n in 0..20u32 {
        let ada = stack.person(&format!("ada {n}")).await;
        let path = fill(endpoints::PERSON_SUSPEND, &[&ada.member.account]);
        let mut call = Box::pin(stack.does(&root, &path, ada.member.account));
        // So far, and no further.
        let mut left = n;
        std::future::poll_fn(|context| {
            if left == 0 || call.as_mut().poll(context).is_ready() {
                return std::task::Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        drop(call);
        stack.app.tasks.close();
        stack.app.tasks.wait().await;
        stack.app.tasks.reopen();
        let suspended = stack.app.access.account_info(ada.member.account).unwrap().status;
        let target = Some(zixt_audit::Target::Account(ada.member.account));
        let recorded = stack
            .app
            .audit
            .events()
            .iter()
            .any(|event| event.action == Action::AccountSuspended && event.target == target);
        assert_eq!(suspended == AccountStatus::Suspended, recorded, "{n}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_takes_two_people_of_two_roles() {
    let mut stack = Stack::new().await;
    let root = stack.person_as("root", &[Role::Administrator]).await;
    let officer = stack.person_as("officer", &[Role::SecurityOfficer]).await;
    let ada = stack.person("ada").await;
    let account = ada.member.account;
    let asked = stack.does(&officer, endpoints::PERSON_RECOVERY, account).await;
    assert_eq!(asked.code(), "forbidden", "an officer approves, and does not ask");
    let asked: RecoveryInfo = stack.does(&root, endpoints::PERSON_RECOVERY, account).await.json();
    let approve = fill(endpoints::RECOVERY_APPROVE, &[&asked.recovery]);
    assert_eq!(stack.post(&root, &approve, &()).await.code(), "forbidden");
    assert_eq!(stack.post(&ada, &approve, &()).await.code(), "forbidden");
    let listed: RecoveryList = stack.get(&officer, endpoints::RECOVERIES).await.json();
    assert_eq!(listed.recoveries.as_slice(), std::slice::from_ref(&asked));
    stack.stop().await;
    stack.start_again().await;
    let given: RecoveryCode = stack.post(&officer, &approve, &()).await.json();
    assert_eq!(stack.post(&officer, &approve, &()).await.code(), "unknown-recovery");
    // Nothing of before lets in, the device neither, which has ended in the ledger.
    stack.follow();
    assert_eq!(stack.net.state.account(account).unwrap().active_devices().count(), 0);
    assert_eq!(stack.get(&ada, endpoints::ME).await.code(), "caller-revoked");
    assert_eq!(stack.try_sign_in(&ada).await.code(), "sign-in-refused");
    let accept = |code: Secret, account: AccountId| Acceptance {
        account: Hex(account),
        code,
        password: secret(GOOD_PASSWORD),
    };
    for (code, account) in [
        (secret("0000-0000-0000-0000-0000-0000-0000-0000"), account),
        (given.code.clone(), root.member.account),
        (given.code.clone(), AccountId([7; 16])),
    ] {
        let answer = stack.post(&ada, endpoints::ACCEPT, &accept(code, account)).await;
        assert_eq!(answer.code(), "sign-in-refused");
    }
    assert_eq!(
        stack.post(&ada, endpoints::ACCEPT, &accept(given.code.clone(), account)).await.status,
        StatusCode::OK
    );
    assert_eq!(
        stack.post(&ada, endpoints::ACCEPT, &accept(given.code, account)).await.code(),
        "sign-in-refused"
    );
    let answers = stack.come(Hash([9; 48]), "ada", &[password(GOOD_PASSWORD)]).await;
    assert_eq!(answers[0].status, StatusCode::OK);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_replaced_by_its_next_generation_and_its_share_given_a_few_times() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    assert_eq!(stack.get(&ada, endpoints::MY_VAULT).await.code(), "unknown-vault");
    let vault = |account, generation| {
        let phrase = zixt_identity::Password::parse(GOOD_PASSWORD).unwrap();
        let params = zixt_crypto::password::Params::DEFAULT;
        zixt_identity::Vault::create(
            account,
            generation,
            zixt_identity::Cost(params),
            &phrase,
            None,
            b"keys",
            &mut zixt_crypto::fill_random,
        )
    };
    let file = |account, generation| VaultFile {
        vault: Bytes64(zixt_types::Canonical::to_bytes(&vault(account, generation).unwrap())),
    };
    let account = ada.member.account;
    assert_eq!(stack.put(&bob, endpoints::MY_VAULT, &file(account, 1)).await.code(), "forbidden");
    assert_eq!(stack.put(&ada, endpoints::MY_VAULT, &file(account, 2)).await.code(), "vault-stale");
    assert_eq!(stack.put(&ada, endpoints::MY_VAULT, &file(account, 1)).await.status, StatusCode::OK);
    assert_eq!(stack.put(&ada, endpoints::MY_VAULT, &file(account, 1)).await.code(), "vault-stale");
    let second = file(account, 2);
    assert_eq!(stack.put(&ada, endpoints::MY_VAULT, &second).await.status, StatusCode::OK);
    let kept: VaultFile = stack.get(&ada, endpoints::MY_VAULT).await.json();
    assert_eq!(kept, second);
    let mut shares = BTreeSet::new();
    for _ in 0..zixt_identity::SHARE_GIVEN_MAX {
        let given: zixt_api::VaultShareGiven = stack.post(&ada, endpoints::MY_VAULT_SHARE, &()).await.json();
        shares.insert(given.share.expose().to_owned());
    }
    assert_eq!(shares.len(), 1);
    stack.stop().await;
    stack.start_again().await;
    assert_eq!(stack.post(&ada, endpoints::MY_VAULT_SHARE, &()).await.code(), "vault-share-spent");
    stack.stop().await;
}

/// A program of somebody else's, with a token, on the web listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_does_what_its_token_is_for_and_nothing_else() {
    let mut stack = Stack::new().await;
    let root = stack.person_as("root", &[Role::Administrator]).await;
    let robot = stack.person_as("robot", &[Role::Service]).await.member.account;
    let ada = stack.person("ada").await;
    let tokens = fill(endpoints::PERSON_TOKENS, &[&robot.to_hex()]);
    let new = |scopes: &[&str]| zixt_api::NewServiceToken {
        name: "scanner".into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        days: 30,
        networks: vec![],
    };
    assert_eq!(stack.post(&root, &tokens, &new(&[])).await.code(), "token-refused");
    assert_eq!(stack.post(&root, &tokens, &new(&["everything"])).await.code(), "token-refused");
    let of_ada = fill(endpoints::PERSON_TOKENS, &[&ada.member.account.to_hex()]);
    assert_eq!(stack.post(&root, &of_ada, &new(&["health:read"])).await.code(), "account-status");
    assert_eq!(stack.post(&ada, &tokens, &new(&["health:read"])).await.code(), "forbidden");
    let made: zixt_api::ServiceTokenMade =
        stack.post(&root, &tokens, &new(&["accounts:read", "accounts:hold", "events:read"])).await.json();
    let token = made.token.expose().to_owned();

    let page = stack.web(&token, "GET", endpoints::PEOPLE, &[]).await;
    let tag = page.head.headers["etag"].clone();
    let people: AccountPage = page.json();
    assert!(people.accounts.iter().any(|info| info.name.as_deref() == Some("ada")));
    // What has not changed is not sent again.
    let again =
        stack.web(&token, "GET", endpoints::PEOPLE, &[("if-none-match", tag.to_str().unwrap())]).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let held = fill(endpoints::PERSON_SUSPEND, &[&ada.member.account.to_hex()]);
    let info: AccountInfo = stack.web(&token, "POST", &held, &[]).await.json();
    assert_eq!(info.status, AccountStatus::Suspended);
    let changed =
        stack.web(&token, "GET", endpoints::PEOPLE, &[("if-none-match", tag.to_str().unwrap())]).await;
    assert_eq!(changed.status, StatusCode::OK);
    for (verb, path) in [
        ("GET", endpoints::DIRECTORIES.to_owned()),
        ("GET", endpoints::RECOVERIES.to_owned()),
        ("GET", endpoints::MY_SESSIONS.to_owned()),
        ("POST", endpoints::SIGN_OUT.to_owned()),
        ("POST", fill(endpoints::PERSON_OFFBOARD, &[&ada.member.account.to_hex()])),
        ("GET", tokens.clone()),
    ] {
        assert_eq!(stack.web(&token, verb, &path, &[]).await.code(), "forbidden", "{verb} {path}");
    }
    // It follows what happens, from where it was.
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let path = format!("{}?after={after}&limit=2", endpoints::EVENTS);
        let page: zixt_api::EventPage = stack.web(&token, "GET", &path, &[]).await.json();
        assert!(page.next >= after && page.events.len() <= 2);
        after = page.next;
        seen.extend(page.events);
        if !page.more {
            break;
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    let suspended = seen.iter().find(|event| event.action == "account-suspended").unwrap();
    assert_eq!(suspended.account.map(|account| account.0), Some(ada.member.account));
    assert!(seen.iter().any(|event| event.action == "token-issued"));
    assert!(seen.iter().all(|event| event.action != "sign-in" && event.action != "data-read"));
    // Another host's name leads nowhere, and a token that nobody has neither.
    let elsewhere = stack.web(&token, "GET", endpoints::PEOPLE, &[("host", "evil.test")]).await;
    assert_eq!(elsewhere.code(), "malformed-request");
    assert_eq!(stack.web("AAAA", "GET", endpoints::PEOPLE, &[]).await.code(), "sign-in-needed");
    // A browser's cookie is no token of a program's, and changes nothing from elsewhere.
    let cookie = format!("__Host-zixt-session={token}");
    let shown = stack.web("", "POST", &held, &[("cookie", &cookie), ("origin", "https://evil.test")]).await;
    assert_eq!(shown.code(), "forbidden");

    // It is there after a start, listed without what it says, and ends at once.
    stack.stop().await;
    stack.start_again().await;
    assert_eq!(stack.web(&token, "GET", endpoints::PEOPLE, &[]).await.status, StatusCode::OK);
    let list: zixt_api::ServiceTokenList = stack.get(&root, &tokens).await.json();
    assert_eq!((list.tokens.len(), list.tokens[0].id), (1, made.id));
    let one = fill(endpoints::PERSON_TOKEN, &[&robot.to_hex(), &made.id]);
    assert_eq!(stack.delete(&root, &one).await.status, StatusCode::OK);
    assert_eq!(stack.delete(&root, &one).await.code(), "unknown-session");
    assert_eq!(stack.web(&token, "GET", endpoints::PEOPLE, &[]).await.code(), "sign-in-needed");
    // Suspended, the program waits with all its tokens.
    let made: zixt_api::ServiceTokenMade = stack.post(&root, &tokens, &new(&["accounts:read"])).await.json();
    let token = made.token.expose().to_owned();
    assert_eq!(stack.does(&root, endpoints::PERSON_SUSPEND, robot).await.status, StatusCode::OK);
    assert_eq!(stack.web(&token, "GET", endpoints::PEOPLE, &[]).await.code(), "sign-in-needed");
    assert_eq!(stack.does(&root, endpoints::PERSON_RESUME, robot).await.status, StatusCode::OK);
    assert_eq!(stack.web(&token, "GET", endpoints::PEOPLE, &[]).await.status, StatusCode::OK);
    stack.stop().await;
}

/// An officer sets the clock; it is on record, and set again after a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_officer_sets_the_clock_and_nobody_else() {
    let mut stack = Stack::new().await;
    let officer = stack.person_as("officer", &[Role::SecurityOfficer]).await;
    let root = stack.person_as("root", &[Role::Administrator]).await;
    let clock = async |stack: &Stack| stack.get(&root, endpoints::CLOCK).await.json::<zixt_api::ClockInfo>();
    let before = clock(&stack).await;
    assert_eq!(before.offset_ms, 0);
    assert!(before.ahead_of_ledger_ms >= 0 && before.ledger > 0);
    // By little: the other tests of this process go by the same clock.
    let new = zixt_api::NewClock { wall: before.wall + 2_000, far: false };
    assert_eq!(stack.put(&root, endpoints::CLOCK, &new).await.code(), "forbidden");
    let far = zixt_api::NewClock { wall: before.wall + 40 * 86_400_000, far: false };
    assert_eq!(stack.put(&officer, endpoints::CLOCK, &far).await.code(), "clock-far");
    let after: zixt_api::ClockInfo = stack.put(&officer, endpoints::CLOCK, &new).await.json();
    assert!((1..=2_000).contains(&after.offset_ms), "{after:?}");
    stack.stop().await;
    crate::health::set_offset(0);
    stack.start_again().await;
    assert_eq!(clock(&stack).await.offset_ms, after.offset_ms);
    let set = stack.app.audit.events().into_iter().filter(|event| event.action == Action::ClockSet);
    let outcomes: Vec<_> = set.map(|event| event.outcome == zixt_audit::Outcome::Ok).collect();
    assert_eq!(outcomes, [false, false, true]);
    crate::health::set_offset(0);
    stack.stop().await;
}

/// Whoever asks without end is told to slow down; another network is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_network_does_not_take_all_turns() {
    let stack = Stack::new().await;
    let mut slowed = 0;
    for _ in 0..2_000 {
        let answer = stack.web("AAAA", "GET", endpoints::ME, &[]).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.head.headers["retry-after"], "1");
            slowed += 1;
        }
    }
    assert!(slowed > 0);
    let from = std::net::SocketAddr::from(([192, 0, 2, 77], 1));
    assert_eq!(stack.web_from(from, "AAAA", "GET", endpoints::ME, &[]).await.code(), "sign-in-needed");
}

/// Every endpoint with a role, asked by everybody, badly and about what is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_knows_who_may() {
    let mut stack = Stack::new().await;
    let mut people = Vec::new();
    for (name, roles, names) in [
        ("officer", &[Role::SecurityOfficer][..], &[RoleName::SecurityOfficer][..]),
        ("root", &[Role::Administrator], &[RoleName::Administrator]),
        ("operator", &[Role::Operator], &[RoleName::Operator]),
        ("auditor", &[Role::Auditor], &[RoleName::Auditor]),
        ("user", &[Role::User], &[RoleName::User]),
        ("service", &[Role::Service], &[RoleName::Service]),
    ] {
        people.push((stack.person_as(name, roles).await, names));
    }
    let nobody = "00".repeat(16);
    let mut target = stack.person("target").await.member.account.to_hex();
    let mut asked = 0;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.listener() == Listener::Clients) {
        let allowed = match endpoint.who {
            Who::Roles(roles) => roles,
            Who::Account => &[
                RoleName::SecurityOfficer,
                RoleName::Administrator,
                RoleName::Operator,
                RoleName::Auditor,
                RoleName::User,
                RoleName::Service,
            ],
            Who::Device => &[RoleName::User],
            Who::Anyone | Who::Browser | Who::Admin => continue,
        };
        // What ends the session that asks is looked at elsewhere.
        if endpoint.path == endpoints::SIGN_OUT || endpoint.path == endpoints::STREAM {
            continue;
        }
        let verb = method(endpoint.method);
        // About an account that is there; what nobody has is not told to whoever may not know.
        let with_issuer = ["{issuer}", "{token}", "{passkey}"]
            .into_iter()
            .fold(endpoint.path.to_owned(), |path, part| path.replace(part, &nobody));
        let path = fill(&with_issuer, &[&target, &"0", &"0"]);
        let nowhere = fill(&with_issuer, &[&nobody, &"0", &"0"]);
        let bad_path = fill(endpoint.path, &[&"zz", &"zz", &"zz"]);
        let unsigned = stack.call(Some(Hash([8; 48])), verb, &path, Vec::new()).await;
        let expected = if endpoint.who == Who::Device { "unknown-caller" } else { "sign-in-needed" };
        assert_eq!(unsigned.code(), expected, "{verb} {path}");
        for (device, names) in &people {
            let may = allowed.iter().any(|role| names.contains(role));
            let path = fill(&with_issuer, &[&target, &"0", &"0"]);
            let (tls, name) = (Some(tls_of(device)), names[0].name());
            let body = match endpoint.request {
                None => Vec::new(),
                Some("NewRoles") if name == "security-officer" => br#"{"roles":["auditor"]}"#.to_vec(),
                Some("NewRoles") => br#"{"roles":["user"]}"#.to_vec(),
                Some("NewPassword") => format!(r#"{{"password":"{GOOD_PASSWORD}"}}"#).into_bytes(),
                Some("NewServiceToken") => br#"{"name":"n","scopes":["health:read"],"days":1}"#.to_vec(),
                Some("PskVerifier") => {
                    format!(r#"{{"id":"{}","verifier":"{}="}}"#, "0a".repeat(48), "A".repeat(43)).into_bytes()
                }
                Some(_) => b"{".to_vec(),
            };
            let answer = stack.call(tls, verb, &path, body.clone()).await;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert_ne!(answer.status.as_u16() / 100, 5, "{verb} {path} by {name}: {said}");
            let refused = answer.status != StatusCode::OK && answer.code() == "forbidden";
            // A change of what one signs in with goes on under another token.
            if answer.status == StatusCode::OK
                && endpoint.response.1.is_some_and(|name| ["Renewed", "BackupCodes"].contains(&name))
            {
                let value: serde_json::Value = answer.json();
                stack.show(tls_of(device), Some(value["token"].as_str().unwrap().to_owned()));
            }
            // A body that is none is told to whoever sends it, before it is asked who that is.
            let unread = endpoint.request.is_some() && body == b"{";
            if !unread {
                assert_eq!(refused, !may, "{verb} {path} by {name}: {said}");
            } else if may || endpoint.who != Who::Device {
                assert_eq!(answer.code(), "malformed-request", "{verb} {path} by {name}");
            }
            if nowhere != path && !unread {
                let unknown = stack.call(tls, verb, &nowhere, body.clone()).await;
                let code = unknown.code();
                let expected: &[&str] = if !may {
                    &["forbidden"]
                } else {
                    &[
                        "unknown-account",
                        "unknown-session",
                        "unknown-recovery",
                        "unknown-thread",
                        "unknown-directory",
                        "not-enrolled",
                        "account-status",
                        "malformed-request",
                    ]
                };
                assert!(expected.contains(&code), "{verb} {nowhere} by {name}: {code}");
            }
            if bad_path != path && endpoint.who != Who::Device {
                assert_eq!(stack.call(tls, verb, &bad_path, body).await.code(), "malformed-request");
            }
            if endpoint.request.is_some() {
                let bad = stack.call(tls, verb, &path, b"{".to_vec()).await;
                let forbidden = endpoint.who == Who::Device && !may;
                assert_eq!(bad.code(), if forbidden { "forbidden" } else { "malformed-request" });
            }
            asked += 3;
            // Something was done to it: the next caller gets another one.
            if answer.status == StatusCode::OK
                && endpoint.method != Method::Get
                && endpoint.path.starts_with(endpoints::PEOPLE)
            {
                target = stack.person(&format!("target {asked}")).await.member.account.to_hex();
            }
        }
    }
    assert!(asked > 240, "{asked}");
    // The table of endpoints says what the table of permissions says.
    let of = |permission: Permission| {
        let (_, roles) = PERMISSIONS.iter().find(|(listed, _)| *listed == permission).unwrap();
        roles.iter().map(|role| role.name()).collect::<BTreeSet<_>>()
    };
    for (path, verb, permission) in [
        (endpoints::PEOPLE, Method::Get, Permission::ListAccounts),
        (endpoints::PERSON_SUSPEND, Method::Post, Permission::SuspendAccounts),
        (endpoints::PERSON_OFFBOARD, Method::Post, Permission::OffboardAccounts),
        (endpoints::PERSON_SESSIONS, Method::Delete, Permission::EndSessions),
        (endpoints::PERSON_LOCKOUT_LIFT, Method::Post, Permission::LiftLockouts),
        (endpoints::PERSON_RECOVERY, Method::Post, Permission::RequestRecovery),
        (endpoints::RECOVERY_APPROVE, Method::Post, Permission::ApproveRecovery),
        (endpoints::PERSON_LINK, Method::Delete, Permission::ConfigureDirectories),
        (endpoints::DIRECTORIES, Method::Get, Permission::ViewHealth),
        (endpoints::CLOCK, Method::Get, Permission::ViewHealth),
        (endpoints::CLOCK, Method::Put, Permission::SetClock),
        (endpoints::DIRECTORY_READ, Method::Post, Permission::ConfigureDirectories),
        (endpoints::DIRECTORY_RELEASE, Method::Post, Permission::ReleaseDirectoryPlans),
        (endpoints::MY_VAULT, Method::Get, Permission::UseOwnVault),
        (endpoints::MY_SESSIONS, Method::Get, Permission::ManageOwnAccess),
    ] {
        let endpoint = ENDPOINTS.iter().find(|it| it.path == path && it.method == verb).unwrap();
        let Who::Roles(roles) = endpoint.who else { panic!("{path}") };
        assert_eq!(roles.iter().map(|role| role.name()).collect::<BTreeSet<_>>(), of(permission), "{path}");
    }
    stack.stop().await;
}
