//! The main job as a story, told by real programs: two people talk, then a group of five, one of whom is removed; the
//! talk becomes evidence; four forgeries of it are refused, and so is a second history that was certified. `make demo`
//! prints it, `make test` runs it.

use crate::{Appliance, Person, text};
use std::fs;
use std::path::Path;
use zixt_ledger::evidence::{Anchor, Evidence};
use zixt_types::{Body, Canonical as _, Hash, Payload, RevokeReason, ThreadKind};

/// Tells the story on a running appliance. `say` gets every line as it happens.
///
/// # Panics
/// Something does not go as the story says.
pub fn tell(appliance: &Appliance, say: &mut dyn FnMut(&str)) {
    say("Five people enrol with invitations that the administrator made.");
    let people: Vec<Person<'_>> =
        ["alice", "bob", "carol", "dora", "emil"].map(|name| appliance.person(name)).into();
    let [alice, bob, carol, dora, emil] = &people[..] else { unreachable!("five people") };
    for person in &people {
        say(&format!("  {} has an account and a device of its own", person.name));
    }

    say("");
    say("One to one: alice and bob.");
    for (from, to, line) in [
        (alice, bob, "Are you coming to the commissioning?"),
        (bob, alice, "Yes, at nine. Who brings the second key card?"),
        (alice, bob, "Officer 2 does."),
    ] {
        speak(from, &to.name, line, say);
        hear(to, &from.name, line, say);
    }

    say("");
    say("A group of five.");
    let group = "commissioning";
    alice.must(&["group", "create", group, "bob", "carol", "dora", "emil"]);
    say("  alice  creates 'commissioning' with bob, carol, dora and emil");
    for (from, line) in
        [(alice, "Welcome, all."), (carol, "Here."), (emil, "Here too."), (dora, "Ready when you are.")]
    {
        from.must(&["sync"]);
        speak(from, group, line, say);
    }
    for person in &people {
        hear(person, group, "Ready when you are.", &mut |_| {});
    }
    say("  everybody has read all four messages");
    alice.must(&["sync"]);
    alice.must(&["group", "remove", group, "emil"]);
    say("  alice  removes emil; the group's keys change at once");
    let secret = "The new code word is heron.";
    speak(alice, group, secret, say);
    for person in [bob, carol, dora] {
        hear(person, group, secret, say);
    }
    emil.must(&["sync"]);
    let left = emil.must(&["read", group]);
    assert!(left.contains("Ready when you are."), "emil keeps what was said before: {left}");
    assert!(!left.contains("heron"), "emil must not read what is said after: {left}");
    let refused = emil.run(&["send", group, "Am I still in?"]);
    assert!(!refused.status.success(), "emil must not write any more: {}", text(&refused));
    say("  emil   reads nothing of it, and cannot write any more");

    say("");
    say("Evidence: alice exports the talk with bob, with its content.");
    let genesis = genesis_of(alice);
    let file = appliance.folder().join("talk.zixt-evidence");
    let path = file.to_str().expect("a path");
    alice.must(&["evidence", "export", "bob", "--with-content", "-o", path]);
    let size = fs::metadata(&file).expect("the file").len();
    say(&format!(
        "  {} has {size} bytes; the auditor has it, the genesis hash and zixt-verify, no network",
        name(&file)
    ));
    let report = verify(appliance, &genesis, &file, 0);
    for line in report.lines() {
        say(&format!("  | {line}"));
    }
    assert!(report.contains("Officer 2 does."), "the content is in the report: {report}");

    let one = appliance.folder().join("one.zixt-evidence");
    alice.must(&["evidence", "export", "bob", "--seq", "1", "-o", one.to_str().expect("a path")]);
    let size = fs::metadata(&one).expect("the file").len();
    verify(appliance, &genesis, &one, 0);
    say(&format!("  one message without content is {size} bytes, and verifies"));

    say("");
    say("Forgeries:");
    let forge = |what: &str, forged: Vec<u8>, code: i32, say: &mut dyn FnMut(&str)| {
        let path = appliance.folder().join("forged.zixt-evidence");
        fs::write(&path, forged).expect("a write");
        let report = verify(appliance, &genesis, &path, code);
        let why = report.lines().find(|line| line.to_lowercase().contains("fail")).unwrap_or_default();
        say(&format!("  {what}: refused ({})", why.trim()));
    };
    let bytes = fs::read(&file).expect("the file");
    let evidence = Evidence::parse(&bytes).expect("evidence");

    let mut flipped = evidence.clone();
    let last = flipped.thread.entries.last_mut().expect("an entry");
    let at = last.body.len() - 1;
    last.body[at] ^= 1;
    forge("a flipped byte", flipped.to_bytes(), 1, say);

    let mut dropped = evidence.clone();
    dropped.thread.entries.pop();
    forge("the last message dropped", dropped.to_bytes(), 1, say);

    let mut relabelled = evidence.clone();
    let entry = relabelled.thread.entries.last_mut().expect("an entry");
    entry.body = relabel(&entry.body);
    entry.envelope = None;
    entry.disclosure = None;
    forge("a message relabelled as something else", relabelled.to_bytes(), 1, say);

    let mut forked = evidence;
    forked.header.map = Hash([0x42; 48]);
    if let Anchor::Leaf(_) = forked.thread.anchor {
        unreachable!("a whole thread is proven by its head");
    }
    forge("another history under the same certificate", forked.to_bytes(), 1, say);
}

/// Tells what happens when an appliance is copied with its keys and both copies go on: two histories, each certified, of
/// which one person has seen the first. The appliance is stopped at the end.
///
/// # Panics
/// Something does not go as the story says.
pub fn fork(appliance: &mut Appliance, say: &mut dyn FnMut(&str)) {
    say("");
    say("A fork: the appliance is copied with its keys, and both copies go on.");
    appliance.stop_zixtd();
    appliance.stop_hsmd();
    let mut copy = appliance.copy();
    appliance.start_hsmd();
    appliance.start_zixtd();
    let (first, second) = ("The vote was three to two.", "The vote was two to three.");
    speak(&appliance.known("alice"), "bob", first, say);
    hear(&appliance.known("bob"), "alice", first, say);
    appliance.stop_zixtd();
    appliance.stop_hsmd();
    say("  the copy takes its place at the same address, with the same keys");
    copy.start_hsmd();
    copy.start_zixtd();
    let alice = copy.known("alice");
    speak(&alice, "bob", second, say);
    let genesis = genesis_of(&alice);
    let file = copy.folder().join("second.zixt-evidence");
    let export = ["evidence", "export", "bob", "--with-content", "-o", file.to_str().expect("a path")];
    alice.must(&export);
    let report = verify(&copy, &genesis, &file, 0);
    assert!(report.contains(second) && !report.contains(first), "{report}");
    say("  what it certifies verifies by itself: one file does not show that there is another history");
    let bob = appliance.known("bob");
    let _said = bob.refused(&["sync"], 6);
    let history = bob.must(&["read", "alice"]);
    assert!(history.contains(first) && !history.contains(second), "{history}");
    let alarms = bob.json(&["alarms"]);
    let alarm = alarms["alarms"].as_array().and_then(|all| all.last()).expect("an alarm");
    assert_eq!(alarm["code"], "fork", "{alarms}");
    let why = alarm["text"].as_str().unwrap_or_default();
    say(&format!("  bob's device saw the first, and refuses the second ({why})"));
    let proof = copy.folder().join("fork.zixt-fork");
    bob.must(&["alarms", "--export-fork", proof.to_str().expect("a path")]);
    let report = verify(&copy, &genesis, &proof, 0);
    for line in report.lines() {
        say(&format!("  | {line}"));
    }
}

/// The same body with another kind: a message that claims to be a commit without changes.
fn relabel(body: &[u8]) -> Vec<u8> {
    let mut body = Body::parse(body).expect("a body");
    assert_eq!(body.thread.kind(), Some(ThreadKind::Conversation));
    body.payload = match body.payload {
        Payload::Message { epoch, envelope, content } => Payload::Commit {
            epoch,
            envelope,
            welcome: None,
            tree: None,
            authenticator: content,
            added: Vec::new(),
            removed: Vec::new(),
        },
        _ => Payload::DeviceRevoke {
            device: zixt_types::DeviceId([0; 16]),
            reason: RevokeReason::CessationOfOperation,
        },
    };
    body.to_bytes()
}

/// Runs the verifier as an auditor does, without any network, and checks how it ends.
fn verify(appliance: &Appliance, genesis: &str, file: &Path, code: i32) -> String {
    let mut command = appliance.command("zixt-verify");
    command.args(["--genesis", genesis, "--content"]).arg(file);
    let output = command.output().expect("zixt-verify runs");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// The genesis hash that a person's client pinned.
pub fn genesis_of(person: &Person<'_>) -> String {
    person.json(&["whoami"])["genesis"].as_str().expect("the genesis hash").to_owned()
}

fn speak(from: &Person<'_>, to: &str, line: &str, say: &mut dyn FnMut(&str)) {
    from.must(&["send", to, line]);
    say(&format!("  {:<6} writes to {to}: {line}", from.name));
}

fn hear(person: &Person<'_>, from: &str, line: &str, say: &mut dyn FnMut(&str)) {
    person.must(&["sync"]);
    let history = person.must(&["read", from]);
    assert!(history.contains(line), "{} does not read {line:?}: {history}", person.name);
    say(&format!("  {:<6} reads it", person.name));
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
