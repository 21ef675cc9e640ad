//! Against OpenLDAP's server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a failure is a failed test")]

mod common;
mod peers;

use common::{directory, now, refusal, settings, step, told, unavailable};
use peers::certificates::Authority;
use peers::slapd::{SUFFIX, Slapd, group, password, person};
use zixt_directory::{Config, Fault, Mode, Refusal, Secrets, Unavailable, What};
use zixt_identity::{Role, Roles};

const NOTHING: (&str, &str) = ("", "");

fn people(count: usize) -> String {
    (0..count).map(|at| person(&format!("p{at:03}"))).collect()
}

#[tokio::test]
async fn a_password_is_right_or_wrong_over_both_kinds_of_tls() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, NOTHING);
    slapd.load(&people(3));
    slapd.go();
    for url in [slapd.ldaps_url(), slapd.starttls_url()] {
        let directory = directory(&settings(&[url], ""), authority.pem());
        let bound = directory.bind("P001", password("p001").as_bytes(), now()).await.unwrap();
        assert_eq!(bound.login(), "p001", "a directory compares names without case");
        assert_eq!(bound.link(), directory.issuer().link(bound.id().as_bytes()));
        assert_eq!(bound.id().as_bytes().len(), 16);
        let try_as = async |login: &str, password: &str| {
            refusal(directory.bind(login, password.as_bytes(), now()).await)
        };
        assert_eq!(try_as("p001", "wrong").await, Refusal::WrongPassword);
        assert_eq!(try_as("p001", &password("p002")).await, Refusal::WrongPassword);
        assert_eq!(try_as("nobody", "wrong").await, Refusal::UnknownLogin);
        assert_eq!(
            try_as("reader", peers::slapd::READER_PASSWORD).await,
            Refusal::UnknownLogin,
            "not among people"
        );
        // RFC 4515 section 3: what has a meaning in a filter has none in a name.
        for login in [
            "*",
            "p*",
            "p001)(uid=*",
            "p001)(|(uid=*",
            "",
            "\\70001",
            "p001 ",
            " p001",
            "\u{ff50}001",
            "p001\0",
            &"p".repeat(300),
        ] {
            assert_eq!(try_as(login, &password("p001")).await, Refusal::UnknownLogin, "{login:?}");
        }
        assert_eq!(try_as("p001", "").await, Refusal::EmptyPassword);
        assert_eq!(try_as("p001", &"x".repeat(2_000)).await, Refusal::TooLong);
        assert_eq!(try_as("p001", &format!("{}\0x", password("p001"))).await, Refusal::Nul);
    }
}

#[tokio::test]
async fn only_the_authority_that_was_named_counts() {
    let (authority, other) = (Authority::new(), Authority::new());
    let slapd = Slapd::start(&authority, NOTHING);
    for url in [slapd.ldaps_url(), slapd.starttls_url()] {
        let error = unavailable(directory(&settings(&[url], ""), other.pem()).bind("a", b"b", now()).await);
        assert!(error.contains("TLS"), "{error}");
    }
    // The right authority, but a name that the certificate does not have.
    let url = format!("ldaps://127.0.0.2:{}", slapd.ldaps);
    let listener = tokio::net::TcpListener::bind(("127.0.0.2", slapd.ldaps)).await.unwrap();
    let ldaps = slapd.ldaps;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(("127.0.0.1", ldaps)).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    });
    let error = unavailable(directory(&settings(&[url], ""), authority.pem()).bind("a", b"b", now()).await);
    assert!(error.contains("TLS") && error.contains("127.0.0.2"), "{error}");
    // A port that speaks no TLS.
    let url = format!("ldaps://127.0.0.1:{}", slapd.ldap);
    let error = unavailable(directory(&settings(&[url], ""), authority.pem()).bind("a", b"b", now()).await);
    assert!(error.contains("TLS") || error.contains("connection"), "{error}");
}

#[tokio::test]
async fn the_account_that_reads_is_tried_once() {
    let authority = Authority::new();
    let (one, two) = (Slapd::start(&authority, NOTHING), Slapd::start(&authority, NOTHING));
    let settings = settings(&[one.ldaps_url(), two.ldaps_url()], "");
    let secrets = Secrets { password: "wrong".to_owned().into(), authority_pem: authority.pem() };
    let directory = common::of(Config::new(&settings).unwrap(), secrets);
    match directory.sync(None, now()).await {
        Err(Unavailable::NoServer { tried }) => {
            assert_eq!(tried.len(), 1, "a wrong password is not carried from server to server: {tried:?}");
            assert!(tried[0].1.to_string().contains("the account that reads was refused with result 49"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn people_come_and_go() {
    let authority = Authority::new();
    // A server that gives at most 100 entries in one answer, but any number in pages.
    let limits = "sizelimit size.soft=100 size.hard=100 size.prtotal=unlimited\n";
    let mut slapd = Slapd::new(&authority, (limits, ""));
    slapd.load(&people(240));
    slapd.go();
    let directory = directory(&settings(&[slapd.ldaps_url()], ""), authority.pem());
    let first = directory.sync(None, now()).await.unwrap();
    assert_eq!((first.mode, first.snapshot.people().len(), first.faults.count()), (Mode::Full, 240, 0));

    let (same, plan) = step(&directory, &first.snapshot).await;
    assert_eq!((same.mode, plan.unwrap().changes()), (Mode::Incremental { entries: 0 }, &[][..]));

    let dn = |uid: &str| format!("dn: uid={uid},ou=people,{SUFFIX}\nchangetype: ");
    let ldif = [
        // Renamed: another login and another name in the tree.
        format!("{}modrdn\nnewrdn: uid=married\ndeleteoldrdn: 1\n\n", dn("p000")),
        // Another mail address.
        format!("{}modify\nreplace: mail\nmail: new@zixt.test\n\n", dn("p001")),
        // Locked by an administrator; and by a date that is over.
        format!("{}modify\nadd: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n\n", dn("p002")),
        format!("{}modify\nadd: shadowExpire\nshadowExpire: 1\n\n", dn("p003")),
        // Gone, and moved out of what is read.
        format!("{}delete\n\n", dn("p004")),
        format!(
            "{}modrdn\nnewrdn: uid=p005\ndeleteoldrdn: 0\nnewsuperior: ou=former,{SUFFIX}\n\n",
            dn("p005")
        ),
        // Another attribute, which says nothing here: the entry is read again, and nothing follows.
        format!("{}modify\nadd: seeAlso\nseeAlso: cn=x\n\n", dn("p006")),
        person("new"),
    ];
    slapd.change(&ldif.concat());
    let (second, plan) = step(&directory, &first.snapshot).await;
    assert_eq!(second.mode, Mode::Incremental { entries: 6 });
    assert_eq!(
        told(&plan.unwrap()),
        [
            "married Renamed",
            "new Appeared { enabled: true }",
            "p001 Renamed",
            "p002 Disabled",
            "p003 Disabled",
            "p004 Vanished",
            "p005 Vanished",
        ]
    );
    // The one who was renamed is the same person, and signs in under the new name with the old password.
    let id = |snapshot: &zixt_directory::Snapshot, login: &str| {
        snapshot.people().iter().find(|person| person.login() == Some(login)).unwrap().id().clone()
    };
    assert_eq!(id(&first.snapshot, "p000"), id(&second.snapshot, "married"));
    let bound = directory.bind("married", password("p000").as_bytes(), now()).await.unwrap();
    assert_eq!(*bound.id(), id(&first.snapshot, "p000"));
    // Without a policy of its own that says so, OpenLDAP lets both of them in. We do not.
    let try_as = async |uid: &str| refusal(directory.bind(uid, password(uid).as_bytes(), now()).await);
    assert_eq!(try_as("p002").await, Refusal::Disabled);
    assert_eq!(try_as("p003").await, Refusal::Expired);
    assert_eq!(try_as("p004").await, Refusal::UnknownLogin);

    // A password that an administrator has set has to be changed first.
    slapd.change(&format!("{}modify\nadd: pwdReset\npwdReset: TRUE\n", dn("p007")));
    assert_eq!(try_as("p007").await, Refusal::MustChangePassword);

    slapd.change(&format!("{}modify\ndelete: pwdAccountLockedTime\n", dn("p002")));
    slapd.change(&format!(
        "dn: uid=p005,ou=former,{SUFFIX}\nchangetype: modrdn\nnewrdn: uid=p005\ndeleteoldrdn: 0\n\
         newsuperior: ou=people,{SUFFIX}\n"
    ));
    let (third, plan) = step(&directory, &second.snapshot).await;
    assert_eq!(told(&plan.unwrap()), ["p002 Enabled", "p005 Appeared { enabled: true }"]);
    assert_eq!(id(&first.snapshot, "p005"), id(&third.snapshot, "p005"), "moved away and back");
}

#[tokio::test]
async fn whoever_no_longer_passes_the_filter_is_gone() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, NOTHING);
    slapd.load(&people(3));
    slapd.go();
    let more = "person_filter = \"(&(objectClass=inetOrgPerson)(!(seeAlso=cn=left)))\"";
    let directory = directory(&settings(&[slapd.ldaps_url()], more), authority.pem());
    let first = directory.sync(None, now()).await.unwrap().snapshot;
    slapd.change(&format!(
        "dn: uid=p001,ou=people,{SUFFIX}\nchangetype: modify\nadd: seeAlso\nseeAlso: cn=left\n"
    ));
    let (read, plan) = step(&directory, &first).await;
    assert_eq!((told(&plan.unwrap()), read.snapshot.people().len()), (vec!["p001 Vanished".to_owned()], 2));
    assert_eq!(
        refusal(directory.bind("p001", password("p001").as_bytes(), now()).await),
        Refusal::UnknownLogin
    );
}

#[tokio::test]
async fn a_list_that_ends_early_is_no_list() {
    let authority = Authority::new();
    let limits = "sizelimit size.soft=100 size.hard=100 size.prtotal=100\n";
    let mut slapd = Slapd::new(&authority, (limits, ""));
    slapd.load(&people(150));
    slapd.go();
    let directory = directory(&settings(&[slapd.ldaps_url()], ""), authority.pem());
    match directory.sync(None, now()).await {
        Err(Unavailable::NoServer { tried }) => {
            let text = tried[0].1.to_string();
            assert!(text.contains("result 4") || text.contains("result 11"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // Nor is one of a part of the tree that does not exist.
    let elsewhere = settings(&[slapd.ldaps_url()], &format!("people = [\"ou=nowhere,{SUFFIX}\"]"));
    assert!(common::directory(&elsewhere, authority.pem()).sync(None, now()).await.is_err());
}

#[tokio::test]
async fn an_empty_directory_takes_nothing_from_anybody() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, NOTHING);
    slapd.load(&people(30));
    slapd.go();
    let directory = directory(&settings(&[slapd.ldaps_url()], ""), authority.pem());
    let first = directory.sync(None, now()).await.unwrap().snapshot;
    let all: String = (0..30)
        .map(|at| {
            format!(
                "dn: uid=p{at:03},ou=people,{SUFFIX}\nchangetype: modrdn\nnewrdn: uid=p{at:03}\ndeleteoldrdn: 0\n\
                 newsuperior: ou=former,{SUFFIX}\n\n"
            )
        })
        .collect();
    slapd.change(&all);
    let (_, plan) = step(&directory, &first).await;
    let held = plan.unwrap_err();
    assert!(held.to_string().contains("the directory lists nobody, and listed 30 before"), "{held}");
    assert_eq!(held.suspends().count(), 30);
    let digest = held.digest();
    let released = held.release(digest).unwrap();
    assert_eq!(released.count(What::suspends), 30);
}

#[tokio::test]
async fn groups_in_groups_stand_for_roles() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, NOTHING);
    let member = |uid: &str| format!("uid={uid},ou=people,{SUFFIX}");
    let of = |name: &str| format!("cn={name},ou=groups,{SUFFIX}");
    slapd.load(&people(6));
    slapd.load(&group("staff", &[&member("p000"), &of("inner"), "cn=somebody,ou=elsewhere,dc=x"]));
    // Each contains the other, and itself.
    slapd.load(&group("inner", &[&member("P001").to_uppercase(), &of("staff"), &of("inner"), &of("deep")]));
    slapd.load(&group("deep", &[&member("p002")]));
    slapd.load(&group("watch", &[&member("p002"), &member("p003")]));
    slapd.load(&group("other", &[&member("p004")]));
    slapd.load(&format!(
        "dn: {}\nobjectClass: posixGroup\ncn: posix\ngidNumber: 100\nmemberUid: P004\nmemberUid: nobody\n",
        of("posix")
    ));
    slapd.go();
    let rules = format!(
        "roles = [{{ group = {:?}, role = \"user\" }}, {{ group = {:?}, role = \"operator\" }}, \
         {{ group = {:?}, role = \"operator\" }}, {{ group = {:?}, role = \"user\" }}]",
        of("staff"),
        of("watch"),
        of("posix"),
        of("missing")
    );
    let directory = directory(&settings(&[slapd.ldaps_url()], &rules), authority.pem());
    let first = directory.sync(None, now()).await.unwrap();
    let wanted = |snapshot: &zixt_directory::Snapshot| -> Vec<(String, Roles)> {
        let mut all: Vec<_> = snapshot
            .people()
            .iter()
            .filter_map(|person| {
                let wanted = Some(person.wanted()).filter(|wanted| *wanted != Default::default())?;
                Some((person.login()?.to_owned(), wanted.roles_or(Roles::USER)))
            })
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    };
    let roles = |roles: &[Role]| Roles::new(roles).unwrap();
    assert_eq!(
        wanted(&first.snapshot),
        [
            ("p000".to_owned(), roles(&[Role::User])),
            ("p001".to_owned(), roles(&[Role::User])),
            ("p002".to_owned(), roles(&[Role::User, Role::Operator])),
            ("p003".to_owned(), roles(&[Role::Operator])),
            ("p004".to_owned(), roles(&[Role::Operator])),
        ]
    );
    assert_eq!(first.faults.named(), [Fault::NoGroup { dn: of("missing") }]);
    // A change of members changes no person's entry.
    slapd.change(&format!(
        "dn: {}\nchangetype: modify\nreplace: member\nmember: {}\n",
        of("watch"),
        member("p005")
    ));
    let (second, plan) = step(&directory, &first.snapshot).await;
    assert_eq!(second.mode, Mode::Incremental { entries: 0 });
    assert_eq!(told(&plan.unwrap()), ["p002 Regrouped", "p003 Regrouped", "p005 Regrouped"]);
}

#[tokio::test]
async fn two_entries_with_one_login_name_both_stay_out() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, NOTHING);
    slapd.load(&people(3));
    slapd.load(&format!("dn: ou=a,ou=people,{SUFFIX}\nobjectClass: organizationalUnit\nou: a\n\n"));
    slapd.load(&person("p001").replace("uid=p001,", "uid=p001,ou=a,"));
    // One entry with two names is neither.
    slapd.load(&person("two").replace("uid: two", "uid: two\nuid: second"));
    slapd.go();
    let directory = directory(&settings(&[slapd.ldaps_url()], ""), authority.pem());
    for login in ["p001", "two", "second"] {
        let secret = password(if login == "second" { "two" } else { login });
        assert_eq!(
            refusal(directory.bind(login, secret.as_bytes(), now()).await),
            Refusal::SharedLogin,
            "{login}"
        );
    }
    assert!(directory.bind("p000", password("p000").as_bytes(), now()).await.is_ok());
    let read = directory.sync(None, now()).await.unwrap();
    let linked = zixt_directory::Linked::default();
    let basis = zixt_directory::Basis { before: None, linked: &linked, recent: Default::default() };
    let safety = directory.config().safety();
    let plan =
        zixt_directory::compare(directory.issuer(), basis, &read.snapshot, read.faults, safety).unwrap();
    assert_eq!((plan.people(), plan.faults().count()), (5, 2));
    assert!(plan.faults().named().contains(&Fault::SharedLogin { login: "p001".into() }));
    assert!(plan.faults().named().contains(&Fault::NoLogin { dn: format!("uid=two,ou=people,{SUFFIX}") }));
}

#[tokio::test]
async fn another_server_answers_for_one_that_is_dead() {
    let authority = Authority::new();
    let mut dead = Slapd::start(&authority, NOTHING);
    let mut alive = Slapd::new(&authority, NOTHING);
    alive.load(&people(2));
    alive.go();
    let urls = [dead.ldaps_url(), alive.starttls_url()];
    dead.kill();
    let directory = directory(&settings(&urls, ""), authority.pem());
    for _ in 0..3 {
        assert!(directory.bind("p001", password("p001").as_bytes(), now()).await.is_ok());
    }
    let read = directory.sync(None, now()).await.unwrap();
    assert_eq!(read.server, alive.starttls_url());
    alive.kill();
    let error = unavailable(directory.bind("p001", password("p001").as_bytes(), now()).await);
    assert!(urls.iter().all(|url| error.contains(url)), "{error}");
    assert!(directory.sync(Some(&read.snapshot), now()).await.is_err());
    // And back again.
    alive.go();
    assert!(directory.bind("p001", password("p001").as_bytes(), now()).await.is_ok());
}

#[tokio::test]
async fn versions_that_count_seconds_miss_nothing() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, NOTHING);
    slapd.load(&people(5));
    slapd.go();
    let more = "version_attribute = \"modifyTimestamp\"";
    let directory = directory(&settings(&[slapd.ldaps_url()], more), authority.pem());
    let mut snapshot = directory.sync(None, now()).await.unwrap().snapshot;
    // Several changes within one second, each of which has to be seen.
    for round in 0..5 {
        slapd.change(&format!(
            "dn: uid=p003,ou=people,{SUFFIX}\nchangetype: modify\nreplace: mail\nmail: {round}@zixt.test\n"
        ));
        let (read, plan) = step(&directory, &snapshot).await;
        assert_eq!(read.mode, Mode::Incremental { entries: 5 }, "all of them are younger than ten minutes");
        assert_eq!(told(&plan.unwrap()), ["p003 Renamed"], "round {round}");
        snapshot = read.snapshot;
    }
}

#[tokio::test]
async fn very_many_changes_are_read_as_everything() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, ("sizelimit size.prtotal=unlimited\n", ""));
    slapd.load(&people(2_100));
    slapd.go();
    // Entries that are younger than ten minutes count as changed where versions are seconds.
    let more = "version_attribute = \"modifyTimestamp\"\npage_size = 1000";
    let directory = directory(&settings(&[slapd.ldaps_url()], more), authority.pem());
    let first = directory.sync(None, now()).await.unwrap().snapshot;
    let (second, plan) = step(&directory, &first).await;
    assert_eq!((second.mode, second.snapshot.people().len()), (Mode::Full, 2_100));
    assert_eq!(plan.unwrap().changes(), []);
}
