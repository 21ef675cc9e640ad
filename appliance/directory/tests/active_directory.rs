//! Against Samba as a domain controller of Active Directory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a failure is a failed test")]

mod common;
mod peers;

use common::{now, refusal, step, told};
use peers::certificates::Authority;
use peers::samba::{self, ADMIN_DN, ADMIN_PASSWORD, DOMAIN_DN, Samba, in_a_network_of_its_own, is_root};
use std::io::Write as _;
use zixt_directory::{Config, Directory, Document, Mode, Refusal, Secrets, Snapshot};
use zixt_identity::{Role, Roles};
use zixt_types::Canonical as _;

fn document() -> Document {
    toml::from_str(&format!(
        "name = \"domain\"\nissuer = \"0f0e0d0c0b0a09080706050403020100\"\nkind = \"active-directory\"\n\
         servers = [\"{}\"]\nbind_dn = \"{ADMIN_DN}\"\npeople = [\"{DOMAIN_DN}\"]\npage_size = 10\n\
         connect_timeout_s = 60\nanswer_timeout_s = 120\n\
         roles = [{{ group = \"CN=staff,CN=Users,{DOMAIN_DN}\", role = \"user\" }},\n\
         {{ group = \"CN=watch,CN=Users,{DOMAIN_DN}\", role = \"operator\" }}]\n",
        samba::URL
    ))
    .unwrap()
}

const PASSWORD: &str = "Passw0rd.of.";

// One test, because a domain takes seconds to set up.
#[test]
fn a_domain_controller() {
    if !is_root() {
        let line = "ZIXT-SKIP: a_domain_controller: only root can set up a domain\n";
        std::io::stderr().write_all(line.as_bytes()).expect("past the test harness");
        return;
    }
    if !in_a_network_of_its_own("a_domain_controller") {
        return;
    }
    let authority = Authority::new();
    let samba = Samba::start(&authority);
    for at in 0..25 {
        let name = format!("p{at:02}");
        samba.tool(&[
            "user",
            "create",
            &name,
            &format!("{PASSWORD}{name}"),
            "--given-name",
            "A",
            "--surname",
            &name,
        ]);
    }
    for group in ["staff", "inner", "watch"] {
        samba.tool(&["group", "add", group]);
    }
    samba.tool(&["group", "addmembers", "staff", "p00,inner"]);
    samba.tool(&["group", "addmembers", "inner", "p01,watch"]);
    samba.tool(&["group", "addmembers", "watch", "p02"]);
    let secrets = Secrets { password: ADMIN_PASSWORD.to_owned().into(), authority_pem: authority.pem() };
    let directory = common::of(Config::new(&document()).unwrap(), secrets);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(story(&samba, &directory));

    let document = Document { servers: vec!["ldap://127.0.0.1:389".to_owned()], ..document() };
    let secrets = Secrets { password: ADMIN_PASSWORD.to_owned().into(), authority_pem: authority.pem() };
    let directory = common::of(Config::new(&document).unwrap(), secrets);
    let bound = runtime.block_on(directory.bind("p09", format!("{PASSWORD}p09").as_bytes(), now())).unwrap();
    assert_eq!(bound.login(), "p09", "by StartTLS");
}

async fn story(samba: &Samba, directory: &Directory) {
    let secret = |name: &str| format!("{PASSWORD}{name}");
    let try_as =
        async |login: &str, password: &str| refusal(directory.bind(login, password.as_bytes(), now()).await);

    let bound = directory.bind("P03", secret("p03").as_bytes(), now()).await.unwrap();
    assert_eq!((bound.login(), bound.id().as_bytes().len()), ("p03", 16));
    let p03 = bound.id().clone();
    assert_eq!(try_as("p03", "wrong").await, Refusal::WrongPassword);
    assert_eq!(try_as("nobody", "wrong").await, Refusal::UnknownLogin);
    assert_eq!(try_as("p*", &secret("p03")).await, Refusal::UnknownLogin);
    assert_eq!(try_as("p03", "").await, Refusal::EmptyPassword);

    let read = directory.sync(None, now()).await.unwrap();
    assert_eq!((read.mode, read.faults.count()), (Mode::Full, 0), "{:?}", read.faults);
    let first = read.snapshot;
    let mut wanted: Vec<_> = first
        .people()
        .iter()
        .filter_map(|person| {
            let wanted = Some(person.wanted()).filter(|wanted| *wanted != Default::default())?;
            Some((person.login()?, wanted.roles_or(Roles::USER)))
        })
        .collect();
    wanted.sort_by_key(|(login, _)| *login);
    let roles = |roles: &[Role]| Roles::new(roles).unwrap();
    assert_eq!(
        wanted,
        [
            ("p00", roles(&[Role::User])),
            ("p01", roles(&[Role::User])),
            ("p02", roles(&[Role::User, Role::Operator])),
        ]
    );
    let enabled = |login: &str| {
        first.people().iter().find(|person| person.login() == Some(login)).unwrap().is_enabled(now())
    };
    assert!(enabled("p03") && enabled("Administrator") && !enabled("Guest"));
    // A sign-in may count as a change of its own (lastLogon, badPwdCount); reading does not.
    let (second, plan) = step(directory, &first).await;
    assert_eq!((second.mode, told(&plan.unwrap())), (Mode::Unchanged, vec![]));

    samba.tool(&["user", "disable", "p04"]);
    samba.tool(&["user", "delete", "p05"]);
    samba.tool(&["user", "create", "new", &secret("new")]);
    samba.tool(&["ou", "add", &format!("OU=moved,{DOMAIN_DN}")]);
    samba.tool(&["user", "move", "p06", &format!("OU=moved,{DOMAIN_DN}")]);
    samba.tool(&["user", "setexpiry", "p07", "--days=-1"]);
    samba.tool(&[
        "user",
        "setpassword",
        "p08",
        &format!("--newpassword={}", secret("p08")),
        "--must-change-at-next-login",
    ]);
    samba.change(&format!(
        "dn: CN=A p03,CN=Users,{DOMAIN_DN}\nchangetype: modify\nreplace: sAMAccountName\nsAMAccountName: married\n\n\
         dn: CN=A p03,CN=Users,{DOMAIN_DN}\nchangetype: modrdn\nnewrdn: CN=Married\ndeleteoldrdn: 1\n"
    ));
    samba.tool(&["group", "removemembers", "inner", "p01"]);
    let (third, plan) = step(directory, &first).await;
    assert!(matches!(third.mode, Mode::Incremental { entries: 1..=10 }), "{:?}", third.mode);
    assert_eq!(
        told(&plan.unwrap()),
        [
            "married Renamed",
            "new Appeared { enabled: true }",
            "p01 Regrouped",
            "p04 Disabled",
            "p05 Vanished",
            "p06 Renamed",
            "p07 Disabled",
        ]
    );
    assert_eq!(third.snapshot.person(&p03).unwrap().login(), Some("married"), "the id is the key");

    let bound = directory.bind("married", secret("p03").as_bytes(), now()).await.unwrap();
    assert_eq!(*bound.id(), p03);
    assert!(directory.bind("p06", secret("p06").as_bytes(), now()).await.is_ok(), "moved, and still there");
    // Samba tells the reasons as Active Directory does: data 533, 701, 773.
    assert_eq!(try_as("p04", &secret("p04")).await, Refusal::Disabled);
    assert_eq!(try_as("p05", &secret("p05")).await, Refusal::UnknownLogin);
    assert_eq!(try_as("p07", &secret("p07")).await, Refusal::Expired);
    assert_eq!(try_as("p08", &secret("p08")).await, Refusal::MustChangePassword);

    // As the server stores it and reads it again.
    let stored = Snapshot::parse(&third.snapshot.to_bytes()).unwrap();
    assert_eq!(stored, third.snapshot);
    let (fourth, plan) = step(directory, &stored).await;
    assert!(!matches!(fourth.mode, Mode::Full), "{:?}", fourth.mode);
    assert_eq!(told(&plan.unwrap()), Vec::<String>::new());
}
