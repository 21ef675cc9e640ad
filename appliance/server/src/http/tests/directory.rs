//! A directory behind sign-in: real OpenLDAP, real store, real streams.

use super::people::{end_of, next_line, secret};
use crate::testing::{Stack, method, tls_of};
use http::StatusCode;
use peers::certificates::Authority;
use peers::slapd::{self, SUFFIX, Slapd, group, password};
use std::sync::Arc;
use std::time::Duration;
use zixt_api::endpoints::{self, fill};
use zixt_api::{
    AccountInfo, AccountStatus, AdminStatus, DirectoryInfo, DirectoryList, DirectoryRelease, FactorKind, Me,
    NewLink, Receipt, RoleName, SignInBegun, SignInProof, SignInRequest, SignInStep, SignInWays,
};
use zixt_audit::Action;
use zixt_directory::{Config, Directory, Document, Secrets};
use zixt_identity::Issuer;
use zixt_ledger::testing::SampleDevice;
use zixt_types::{Hash, Role};

#[path = "../../../../directory/tests/peers/mod.rs"]
mod peers;

const ISSUER: &str = "0f0e0d0c0b0a09080706050403020100";

/// A directory that is read when it is asked for, or more often than anybody waits.
fn directory(url: &str, pem: &[u8], interval_s: u64) -> Directory {
    let text = format!(
        "name = \"office\"\nissuer = \"{ISSUER}\"\nkind = \"ldap\"\nservers = [{url:?}]\nbind_dn = {:?}\n\
         people = [\"ou=people,{SUFFIX}\"]\ngroups = [\"ou=groups,{SUFFIX}\"]\ninterval_s = {interval_s}\n\
         connect_timeout_s = 20\nsafe_people = 1\n\
         roles = [{{ group = \"cn=operators,ou=groups,{SUFFIX}\", role = \"operator\" }},\n\
                  {{ group = \"cn=users,ou=groups,{SUFFIX}\", role = \"user\" }}]\n",
        slapd::READER
    );
    let document: Document = toml::from_str(&text).unwrap();
    let config = Config::new(&document).unwrap();
    let secrets = Secrets { password: slapd::READER_PASSWORD.to_owned().into(), authority_pem: pem.to_vec() };
    let issuer = Issuer::directory(config.issuer());
    Directory::new(config, issuer, secrets).unwrap()
}

fn dn(uid: &str) -> String {
    format!("uid={uid},ou=people,{SUFFIX}")
}

impl Stack {
    async fn directory_info(&self, by: &SampleDevice) -> DirectoryInfo {
        let list: DirectoryList = self.get(by, endpoints::DIRECTORIES).await.json();
        list.directories.into_iter().next().unwrap()
    }

    /// Waits until the directory is as wanted. A round is asked for again and again; nothing depends on how long it takes.
    async fn until(&self, root: &SampleDevice, wanted: impl Fn(&DirectoryInfo) -> bool) -> DirectoryInfo {
        for _ in 0..3_000 {
            let info = self.directory_info(root).await;
            if wanted(&info) {
                return info;
            }
            let path = fill(endpoints::DIRECTORY_READ, &[&ISSUER]);
            assert_eq!(self.post(root, &path, &()).await.status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the directory does not come to it: {:?}", self.directory_info(root).await);
    }

    /// Waits until a change of the directory, made before, has come to its end here.
    async fn settled(&self, root: &SampleDevice) {
        let before = self.directory_info(root).await.last_success;
        let once = self.until(root, |info| info.last_success > before).await.last_success;
        self.until(root, |info| info.last_success > once).await;
    }

    async fn account(&self, by: &SampleDevice, whose: &SampleDevice) -> AccountInfo {
        self.get(by, &fill(endpoints::PERSON, &[&whose.member.account.to_hex()])).await.json()
    }

    /// Signs in with a directory's password, over a key that is no device's.
    async fn bind(&self, login: &str, password: &str) -> crate::testing::Answer {
        let request = SignInRequest {
            account: None,
            name: Some(login.to_owned()),
            directory: Some("office".to_owned()),
        };
        self.prove_directory(&request, password).await
    }

    async fn prove_directory(&self, request: &SignInRequest, password: &str) -> crate::testing::Answer {
        let tls = Some(Hash([5; 48]));
        let begun: SignInBegun =
            self.call(tls, "POST", endpoints::SIGN_IN, serde_json::to_vec(request).unwrap()).await.json();
        let proof = SignInProof::Directory { password: secret(password) };
        let path = fill(endpoints::SIGN_IN_PROOF, &[&begun.sign_in]);
        self.call(tls, "POST", &path, serde_json::to_vec(&proof).unwrap()).await
    }

    fn recorded(&self, wanted: Action) -> Vec<zixt_audit::Event> {
        self.app.audit.events().into_iter().filter(|event| event.action == wanted).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_of_a_directory_come_in_and_lose_their_streams_when_it_says_so() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, ("", ""));
    slapd.load(&["ann", "ben", "cyd", "dot"].map(slapd::person).concat());
    slapd.go();
    slapd.change(&group("users", &[&dn("ann"), &dn("ben"), &dn("cyd"), &dn("dot")]));
    slapd.change(&group("operators", &[&dn("cyd")]));
    let (url, pem) = (slapd.ldaps_url(), authority.pem());
    let mut stack = Stack::with_directories(Arc::new(move || vec![directory(&url, &pem, 3600)])).await;
    let root = stack.person_as("root", &[Role::Administrator]).await;
    let officer = stack.person_as("officer", &[Role::SecurityOfficer]).await;
    stack.until(&root, |info| info.people == 4).await;
    let ways: SignInWays = stack.get(&root, endpoints::SIGN_IN_WAYS).await.json();
    assert_eq!((ways.ways[0].name.as_str(), ways.ways[0].factor), ("office", FactorKind::Directory));

    // Somebody who is there links their account with the directory's password; another account cannot have the person.
    let ann = stack.person("ann").await;
    let link = |login: &str, word: &str| NewLink {
        directory: "office".to_owned(),
        login: login.to_owned(),
        password: secret(word),
    };
    assert_eq!(stack.post(&ann, endpoints::MY_LINKS, &link("ann", "wrong")).await.code(), "sign-in-refused");
    assert_eq!(stack.post(&ann, endpoints::MY_LINKS, &link("ann", "")).await.code(), "sign-in-refused");
    let answer = stack.post(&ann, endpoints::MY_LINKS, &link("ANN", &password("ann"))).await;
    stack.renew(&ann, &answer);
    let me: Me = stack.get(&ann, endpoints::ME).await.json();
    assert_eq!((me.links[0].login.as_deref(), me.links[0].name.as_deref()), (Some("ann"), Some("office")));
    let eve = stack.person("eve").await;
    let taken = stack.post(&eve, endpoints::MY_LINKS, &link("ann", &password("ann"))).await;
    // With the answer that a wrong password gets: nobody learns here whose password is right.
    assert_eq!(taken.code(), "sign-in-refused");
    let twice = stack.post(&ann, endpoints::MY_LINKS, &link("ben", &password("ben"))).await;
    assert_eq!(twice.code(), "account-status");

    // One who is invited by their name there is linked from the beginning, and has the roles of their groups.
    let (invitation, submission) = stack.net.invite("cyd");
    let mut request = zixt_api::AdminInvitation {
        submission: crate::testing::item(&submission),
        name: "cyd".into(),
        salt: crate::testing::NAME_SALT.into(),
        link: Some(zixt_api::InvitationLink { directory: "office".into(), login: "nobody".into() }),
    };
    let refused = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await;
    assert_eq!(refused.code(), "unknown-person");
    request.link.as_mut().unwrap().login = "cyd".into();
    let _: Receipt = stack.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await.json();
    stack.follow();
    let cyd = stack.enrol("cyd", &invitation).await;
    assert_eq!(stack.account(&root, &cyd).await.roles, [RoleName::Operator, RoleName::User]);

    // The password signs in, by the name there and by the name here. Nothing else does.
    assert!(matches!(stack.bind("ann", &password("ann")).await.json(), SignInStep::Done { .. }));
    let by_name = SignInRequest { account: None, name: Some("ann".into()), directory: None };
    let done = stack.prove_directory(&by_name, &password("ann")).await;
    assert!(matches!(done.json(), SignInStep::Done { .. }));
    for (login, word) in [
        ("ann", "wrong"),
        ("ann", ""),
        ("ben", &*password("ben")),
        ("nobody", "x"),
        ("ann*", &*password("ann")),
        ("ann ", &*password("ann")),
        ("", "x"),
    ] {
        assert_eq!(stack.bind(login, word).await.code(), "sign-in-refused", "{login:?}");
    }
    let unknown = SignInRequest { account: None, name: Some("ann".into()), directory: Some("other".into()) };
    let body = serde_json::to_vec(&unknown).unwrap();
    let answer = stack.call(Some(Hash([5; 48])), "POST", endpoints::SIGN_IN, body).await;
    assert_eq!(answer.code(), "unknown-directory");

    // Roles follow groups, once somebody's groups change.
    slapd.change(&format!(
        "dn: cn=operators,ou=groups,{SUFFIX}\nchangetype: modify\nadd: member\nmember: {}\n\n",
        dn("ann")
    ));
    stack.settled(&root).await;
    let roles = stack.account(&root, &ann).await.roles;
    assert_eq!(roles, [RoleName::Operator, RoleName::User]);
    // An operator needs more than the directory's word.
    let step: SignInStep = stack.bind("ann", &password("ann")).await.json();
    assert!(matches!(step, SignInStep::Need { .. }), "{step:?}");
    slapd.change(&format!(
        "dn: cn=operators,ou=groups,{SUFFIX}\nchangetype: modify\ndelete: member\nmember: {}\n\n",
        dn("ann")
    ));
    stack.settled(&root).await;
    assert_eq!(stack.account(&root, &ann).await.roles, [RoleName::User]);

    // Whoever is disabled there is out here: the stream ends, the password and the device no longer open anything.
    stack.sign_in(&ann).await;
    let mut stream = stack.open_stream(&ann, endpoints::STREAM).await;
    next_line(&mut stream).await.unwrap();
    slapd.change(&format!(
        "dn: {}\nchangetype: modify\nreplace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n\n",
        dn("ann")
    ));
    stack.settled(&root).await;
    assert_eq!(end_of(&mut stream).await.code.code(), "sign-in-needed");
    assert_eq!(stack.account(&root, &ann).await.status, AccountStatus::Suspended);
    assert_eq!(stack.try_sign_in(&ann).await.code(), "sign-in-refused");
    assert_eq!(stack.bind("ann", &password("ann")).await.code(), "sign-in-refused");
    let suspended = stack.recorded(Action::AccountSuspended);
    assert_eq!(suspended.len(), 1, "{suspended:?}");
    // And in again, without anybody here.
    slapd.change(&format!("dn: {}\nchangetype: modify\ndelete: pwdAccountLockedTime\n\n", dn("ann")));
    stack.settled(&root).await;
    assert_eq!(stack.account(&root, &ann).await.status, AccountStatus::Active);
    stack.sign_in(&ann).await;

    // Two at once is more than is believed here. An officer looks, and lets it happen.
    slapd.change(&["ann", "cyd"].map(|uid| format!("dn: {}\nchangetype: delete\n\n", dn(uid))).concat());
    let held = stack.until(&root, |info| info.held.is_some()).await.held.unwrap();
    assert_eq!((held.suspends, held.logins.len()), (2, 2));
    assert_eq!(stack.account(&root, &ann).await.status, AccountStatus::Active);
    let status: AdminStatus = stack.call_admin("GET", endpoints::ADMIN_STATUS, &()).await.json();
    assert_eq!(status.directories[0].held.as_ref(), Some(&held));
    let path = fill(endpoints::DIRECTORY_RELEASE, &[&ISSUER]);
    let release = |digest: Hash| DirectoryRelease { digest: digest.into() };
    assert_eq!(stack.post(&root, &path, &release(held.digest.0)).await.code(), "forbidden");
    assert_eq!(stack.post(&officer, &path, &release(Hash([1; 48]))).await.code(), "nothing-held");
    // The server that is started again holds it back as well.
    stack.stop().await;
    stack.start_again().await;
    let again = stack.until(&root, |info| info.held.is_some()).await.held.unwrap();
    assert_eq!(again.digest, held.digest);
    assert_eq!(stack.post(&officer, &path, &release(held.digest.0)).await.status, StatusCode::OK);
    stack.until(&root, |info| info.held.is_none() && info.last_success.is_some()).await;
    for gone in [&ann, &cyd] {
        assert_eq!(stack.account(&root, gone).await.status, AccountStatus::Suspended);
    }
    assert!(!stack.recorded(Action::DirectoryHeld).is_empty());
    assert!(!stack.recorded(Action::DirectoryOverridden).is_empty());

    // A link is taken away by an administrator; then the account is let in by people alone.
    let path = fill(endpoints::PERSON_LINK, &[&ann.member.account.to_hex(), &ISSUER]);
    let answer = stack.call(Some(tls_of(&root)), method(zixt_api::Method::Delete), &path, Vec::new()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    let resume = fill(endpoints::PERSON_RESUME, &[&ann.member.account.to_hex()]);
    assert_eq!(stack.post(&root, &resume, &()).await.status, StatusCode::OK);
    stack.settled(&root).await;
    assert_eq!(stack.account(&root, &ann).await.status, AccountStatus::Active);

    // A directory that does not answer takes nothing from anybody, and is no wrong password.
    slapd.kill();
    stack.until(&root, |info| info.failures > 0 && info.last_error.is_some()).await;
    assert_eq!(stack.account(&root, &ann).await.status, AccountStatus::Active);
    let answer = stack.bind("ben", &password("ben")).await;
    assert_eq!(answer.code(), "sign-in-unavailable");
    stack.stop().await;
}
