//! The owner of the database as attacker, against the whole appliance. Each attack changes a copy of the server's
//! state and derives again whatever can be derived without a key of custody; then it is written down who finds it:
//! `fsck`, the server when it starts or reads, a client, or the verifier of the evidence that was made from it.
#![allow(clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "attacker/attacks.rs"]
mod attacks;
#[path = "attacker/database.rs"]
mod database;

use attacks::{ATTACKS, Attack, HARMLESS, Look, Tamper, put_back};
use database::Database;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use zixt_ledger::evidence::Evidence;
use zixt_tests::copy::copy_folder;
use zixt_tests::story::genesis_of;
use zixt_tests::{Appliance, Person, text};
use zixt_types::{AccountId, Author, Body, Canonical as _, DeviceId, Member, ThreadId, Timestamp};

/// What alice, bob and carol had said when the attacker came.
pub struct World {
    /// The appliance, stopped.
    appliance: Appliance,
    genesis: String,
    /// alice and bob.
    pub talk: ThreadId,
    /// alice, bob and carol.
    pub group: ThreadId,
    /// The people's devices.
    pub alice: Member,
    /// Has not fetched the last messages.
    pub bob: Member,
    /// In the group only.
    pub carol: Member,
    /// In no conversation.
    pub dora: Member,
    /// The server's folder before alice's last message.
    pub before_last: PathBuf,
    /// The server's folder before everything that bob and carol have not fetched yet.
    pub long_before: PathBuf,
    evidence: PathBuf,
}

/// The last two messages of the conversation, which bob has not fetched yet.
const WAITING: [&str; 2] = ["Bring the second card.", "And nobody else."];

impl World {
    fn new() -> Self {
        let mut appliance = Appliance::lab();
        let [alice, bob, carol, dora] = ["alice", "bob", "carol", "dora"].map(|name| appliance.person(name));
        for (from, to, line) in
            [(&alice, &bob, "Are you coming?"), (&bob, &alice, "At nine."), (&alice, &bob, "Good.")]
        {
            from.must(&["send", &to.name, line]);
            to.must(&["sync"]);
        }
        alice.must(&["group", "create", "crew", "bob", "carol"]);
        alice.must(&["send", "crew", "Welcome."]);
        bob.must(&["sync"]);
        carol.must(&["sync"]);
        let genesis = genesis_of(&alice);
        let evidence = appliance.folder().join("before.zixt-evidence");
        let path = evidence.to_str().expect("a path");
        alice.must(&["evidence", "export", "bob", "--with-content", "-o", path]);

        let members = [&alice, &bob, &carol, &dora].map(member);
        let threads = alice.json(&["threads"]);
        let thread = |people: usize| {
            let threads = threads["threads"].as_array().expect("threads");
            let found = threads.iter().find(|it| it["people"].as_array().map(Vec::len) == Some(people));
            let id = found.expect("the conversation")["thread"].as_str().expect("its id");
            ThreadId::from_hex(id).expect("an id")
        };
        let (talk, group) = (thread(2), thread(3));

        let server = appliance.state().join("server");
        let (long_before, before_last) = (appliance.folder().join("old"), appliance.folder().join("new"));
        let [first, second] = WAITING;
        appliance.stop_zixtd();
        copy_folder(&server, &long_before);
        appliance.start_zixtd();
        appliance.known("alice").must(&["send", "crew", "News for all."]);
        appliance.known("alice").must(&["send", "bob", first]);
        appliance.stop_zixtd();
        copy_folder(&server, &before_last);
        appliance.start_zixtd();
        appliance.known("alice").must(&["send", "bob", second]);
        appliance.stop_zixtd();
        appliance.stop_hsmd();
        let [alice, bob, carol, dora] = members;
        Self { appliance, genesis, talk, group, alice, bob, carol, dora, before_last, long_before, evidence }
    }

    /// Makes the attack on a copy and says who finds it.
    fn suffer(&self, attack: &Attack) -> Vec<String> {
        let mut copy = self.appliance.copy();
        let server = copy.state().join("server");
        match attack.tamper {
            Tamper::Rows(tamper) => {
                let mut database = Database::open(&copy.state());
                tamper(self, &mut database);
                database.close();
            }
            Tamper::Files(tamper) => tamper(self, &server),
        }

        let mut found = Vec::new();
        // Custody has the key that fsck needs for names.
        copy.start_hsmd();
        let fsck = copy.admin(&["fsck", "--json"]);
        match fsck.status.code() {
            Some(0) => {}
            Some(4) => {
                let report: serde_json::Value = serde_json::from_slice(&fsck.stdout).expect("JSON");
                assert!(report["names_unchecked"].is_null(), "{report}");
                let findings = report["findings"].as_array().expect("findings");
                let first = findings.iter().find(|it| it["kind"] != "content-deleted").expect("a finding");
                found.push(format!("fsck: {}", first["table"].as_str().expect("a table")));
            }
            _ => panic!("{}: fsck: {}", attack.name, text(&fsck)),
        }

        copy.spawn_zixtd();
        if !copy.comes_up() {
            let log = copy.logged("zixtd.log");
            let last = log.lines().rev().find(|line| line.contains("error")).unwrap_or("no word");
            println!("  {}: {last}", attack.name);
            found.push("start".to_owned());
            return found;
        }
        for look in attack.looks {
            found.extend(self.look(&copy, *look));
        }
        let log = copy.logged("zixtd.log");
        assert!(!log.contains("panicked"), "{}: {log}", attack.name);
        found
    }

    /// Lets people work with the copy; says what they find.
    fn look(&self, copy: &Appliance, look: Look) -> Option<String> {
        match look {
            Look::Sync(name) => complaint(&copy.known(name), &["sync"], "sync"),
            Look::Mail => {
                let bob = copy.known("bob");
                complaint(&bob, &["sync"], "sync").or_else(|| {
                    let history = bob.must(&["read", "alice"]);
                    let all = WAITING.iter().all(|line| history.contains(line));
                    (!all).then(|| {
                        let said = history.contains("its content was deleted by policy");
                        format!("bob read: {}", if said { "deleted by policy" } else { "missing" })
                    })
                })
            }
            Look::Begin(name) => complaint(&copy.known(name), &["send", "bob", "Hello."], "begin"),
            Look::Named(name) => complaint(&copy.known("dora"), &["verify", name], "verify"),
            Look::Send(name, to) => complaint(&copy.known(name), &["send", to, "Hello again."], "send"),
            Look::Evidence(name, with) => {
                let file = copy.folder().join("after.zixt-evidence");
                let path = file.to_str().expect("a path");
                let export = ["evidence", "export", with, "--with-content", "-o", path];
                complaint(&copy.known(name), &export, "evidence").or_else(|| {
                    let mut command = copy.command("zixt-verify");
                    command.args(["--genesis", &self.genesis, "--content"]).arg(&file);
                    let output = command.output().expect("zixt-verify runs");
                    let report = String::from_utf8_lossy(&output.stdout).into_owned();
                    let whole = WAITING.iter().all(|line| report.contains(line));
                    (output.status.code() != Some(0) || !whole).then(|| "zixt-verify".to_owned())
                })
            }
        }
    }
}

/// Runs `zixt`; if it refuses, what it says: who, doing what, the exit code, and the code of the alarm or refusal.
fn complaint(person: &Person<'_>, arguments: &[&str], doing: &str) -> Option<String> {
    let mut all = vec!["--json", "--timeout", "5"];
    all.extend_from_slice(arguments);
    let output = person.run(&all);
    let code = output.status.code().expect("an exit code");
    if code == 0 {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = said.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let error = error.unwrap_or_else(|| panic!("{} {arguments:?}: {code}: {said}", person.name));
    let refusal = error["error"]["code"].as_str().or(error["error"]["kind"].as_str()).map(str::to_owned);
    let alarms = person.json(&["alarms"]);
    let alarm = alarms["alarms"].as_array().and_then(|all| all.last()).cloned();
    let alarm = alarm.as_ref().and_then(|alarm| alarm["code"].as_str()).map(str::to_owned);
    println!("  {}: {}", person.name, error["error"]["message"]);
    // An alarm of before is no answer to this command.
    let why = alarm.filter(|_| code == 6).or(refusal).unwrap_or_default();
    Some(format!("{} {doing}: {code} {why}", person.name))
}

fn member(person: &Person<'_>) -> Member {
    let me = person.json(&["whoami"]);
    Member {
        account: AccountId::from_hex(me["account"].as_str().expect("an account")).expect("an id"),
        device: DeviceId::from_hex(me["device"].as_str().expect("a device")).expect("an id"),
    }
}

#[test]
fn every_attack_of_the_database_owner_is_found() {
    let world = World::new();
    // The control: nobody complains of a copy that nobody changed.
    let untouched = Attack {
        name: "nothing",
        tamper: Tamper::Files(|_, _| {}),
        looks: &[
            Look::Mail,
            Look::Sync("alice"),
            Look::Sync("carol"),
            Look::Begin("dora"),
            Look::Evidence("alice", "bob"),
        ],
        found_by: &[],
    };
    assert_eq!(world.suffer(&untouched), Vec::<String>::new());

    let mut table = String::new();
    let mut wrong = Vec::new();
    for attack in ATTACKS {
        let found = world.suffer(attack);
        let _ = writeln!(table, "{:<66} {}", attack.name, found.join("; "));
        if found.is_empty() || !as_wanted(&found, attack.found_by) {
            wrong.push(format!("{}: wanted {:?}, got {found:?}", attack.name, attack.found_by));
        }
    }
    println!("attack -> found by\n{table}");

    // What was exported before stays good without any of this.
    let mut command = world.appliance.command("zixt-verify");
    command.args(["--genesis", &world.genesis]).arg(&world.evidence);
    assert!(command.output().expect("zixt-verify runs").status.success());
    assert!(fs::metadata(&world.long_before).is_ok());
    assert!(wrong.is_empty(), "{} attack(s):\n  {}", wrong.len(), wrong.join("\n  "));
}

/// What can be deleted unseen costs nobody anything: everybody still reads and proves everything, once, and without a word
/// from anybody. A device that lost all its key packages offers new ones by itself.
#[test]
fn deletions_that_nobody_sees_do_no_harm() {
    let world = World::new();
    for attack in HARMLESS {
        assert_eq!(world.suffer(attack), Vec::<String>::new(), "{}", attack.name);
    }

    let mut copy = world.appliance.copy();
    let mut database = Database::open(&copy.state());
    database.run("DELETE FROM cursors");
    database.run(&format!("DELETE FROM key_packages WHERE device = x'{}'", world.bob.device));
    database.close();
    copy.start_hsmd();
    copy.start_zixtd();
    let (bob, dora) = (copy.known("bob"), copy.known("dora"));
    assert_eq!(
        complaint(&dora, &["send", "bob", "Hello."], "begin"),
        Some("dora begin: 5 refused".to_owned())
    );
    bob.must(&["sync"]);
    for line in WAITING {
        assert_eq!(bob.must(&["read", "alice"]).matches(line).count(), 1, "{line}");
    }
    dora.must(&["send", "bob", "Hello."]);
    bob.must(&["sync"]);
    assert!(bob.must(&["read", "dora"]).contains("Hello."));
}

/// Whoever has the database but not the consensus log cannot even cut off the last height: the log holds it until the
/// next one, and the server puts it back when it starts.
#[test]
fn a_height_cut_off_is_put_back_from_the_consensus_log() {
    let world = World::new();
    let undone = Attack {
        name: "the last height cut off, the consensus log kept",
        tamper: Tamper::Files(|world, server| put_back(&world.before_last, server, &["ledger.sqlite"])),
        looks: &[Look::Sync("alice"), Look::Mail, Look::Evidence("bob", "alice")],
        found_by: &[],
    };
    assert_eq!(world.suffer(&undone), Vec::<String>::new());
}

/// What an attacker would show to an auditor: evidence in which the same was done to the entries as to the rows above.
#[test]
fn evidence_made_of_altered_rows_is_refused() {
    let mut appliance = Appliance::lab();
    let (alice, bob) = (appliance.person("alice"), appliance.person("bob"));
    let file = appliance.folder().join("talk.zixt-evidence");
    let path = file.to_str().expect("a path");
    alice.must(&["send", "bob", WAITING[0]]);
    bob.must(&["sync"]);
    bob.must(&["send", "alice", "At nine."]);
    alice.must(&["sync"]);
    let export = ["evidence", "export", "bob", "--with-content", "-o", path];
    alice.must(&export);
    let older = Evidence::parse(&fs::read(&file).expect("the file")).expect("evidence");
    alice.must(&["send", "bob", WAITING[1]]);
    alice.must(&export);
    let good = Evidence::parse(&fs::read(&file).expect("the file")).expect("evidence");
    let (genesis, bob) = (genesis_of(&alice), member(&bob));
    appliance.stop_zixtd();

    let mut wrong = Vec::new();
    for (name, tamper, verdicts) in FORGERIES {
        let mut forged = good.clone();
        tamper(&mut forged, &older, bob);
        fs::write(&file, forged.to_bytes()).expect("a write");
        let mut command = appliance.command("zixt-verify");
        command.args(["--genesis", &genesis, "--json"]).arg(&file);
        let output = command.output().expect("zixt-verify runs");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let failed: Vec<&str> = VERDICTS
            .iter()
            .copied()
            .filter(|verdict| report["verdicts"][verdict]["verdict"] == "failed")
            .collect();
        println!("{name:<58} {:?} {}", output.status.code(), failed.join(", "));
        if output.status.code() != Some(i32::from(*name != "nothing")) || failed != *verdicts {
            wrong.push(format!("{name}: wanted {verdicts:?}, got {failed:?}: {}", text(&output)));
        }
    }
    assert!(wrong.is_empty(), "{} forgeries:\n  {}", wrong.len(), wrong.join("\n  "));
}

const VERDICTS: [&str; 9] =
    ["recorded", "author", "envelope", "content", "time", "complete", "certificate", "custody", "suite"];

type Forgery = (&'static str, fn(&mut Evidence, &Evidence, Member), &'static [&'static str]);

/// What falls with the certificate: nothing holds that it does not.
const CERTIFICATE: &[&str] = &["recorded", "author", "time", "complete", "certificate", "custody"];

const FORGERIES: &[Forgery] = &[
    ("nothing", |_, _, _| {}, &[]),
    (
        "a message's own clock set back",
        |evidence, _, _| change(evidence, |body| body.sent_at = Timestamp(body.sent_at.0 - 3_600_000)),
        &["recorded", "author", "complete"],
    ),
    (
        "a message given to another author",
        |evidence, _, bob| change(evidence, |body| body.author = Author::Device(bob)),
        &["recorded", "author", "complete"],
    ),
    (
        "a signature replaced by another's",
        |evidence, _, _| {
            let entries = &mut evidence.thread.entries;
            let other = entries[1].signature.clone();
            entries.last_mut().expect("an entry").signature = other;
        },
        &["recorded", "author", "complete"],
    ),
    (
        "a message's ledger time changed",
        |evidence, _, _| {
            let last = evidence.thread.entries.last_mut().expect("an entry");
            last.position.time = Timestamp(last.position.time.0 - 1);
        },
        &["recorded", "complete"],
    ),
    (
        "the last two messages reordered",
        |evidence, _, _| {
            let entries = &mut evidence.thread.entries;
            let last = entries.len() - 1;
            let (a, b) = (entries[last - 1].position, entries[last].position);
            entries.swap(last - 1, last);
            (entries[last - 1].position, entries[last].position) = (a, b);
        },
        &["recorded", "complete"],
    ),
    (
        "the envelopes of two messages swapped",
        |evidence, _, _| {
            let entries = &mut evidence.thread.entries;
            let last = entries.len() - 1;
            let other = entries[last - 1].envelope.take();
            entries[last - 1].envelope = std::mem::replace(&mut entries[last].envelope, other);
        },
        &["envelope"],
    ),
    (
        "the last message cut off",
        |evidence, _, _| drop(evidence.thread.entries.pop()),
        &["recorded", "complete"],
    ),
    (
        "the last message cut off, under the header before it",
        |evidence, older, _| {
            evidence.thread = older.thread.clone();
            evidence.header = older.header.clone();
        },
        CERTIFICATE,
    ),
    (
        "the header replaced by an older one",
        |evidence, older, _| evidence.header = older.header.clone(),
        CERTIFICATE,
    ),
    (
        "the certificate replaced by an older one",
        |evidence, older, _| evidence.certificate = older.certificate.clone(),
        CERTIFICATE,
    ),
];

fn change(evidence: &mut Evidence, change: impl FnOnce(&mut Body)) {
    let last = evidence.thread.entries.last_mut().expect("an entry");
    let mut body = Body::parse(&last.body).expect("a body");
    change(&mut body);
    last.body = body.to_bytes();
}

/// Whether an attack was found by whom it should be. A `*` ends what depends on where chance put a thread.
fn as_wanted(found: &[String], wanted: &[&str]) -> bool {
    found.len() == wanted.len()
        && found.iter().zip(wanted).all(|(found, wanted)| match wanted.strip_suffix('*') {
            Some(start) => found.starts_with(start),
            None => found == wanted,
        })
}
