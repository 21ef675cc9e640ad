//! `zixt-officer` as officers use it: a ceremony with three of them, everything that has to be refused, and a recovery.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests; what is missing is a failed test"
)]

use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_ceremony::file::{from_file, to_file};
use zixt_ceremony::{
    CeremonyError, OfficerCard, OfficerRule, RecoveryKey, RecoveryRequest, ShareRelease, judge, open_release,
};
use zixt_crypto::hpke::OpeningKey;
use zixt_crypto::{KemSeed, Reference, digest};
use zixt_measured::{Pcr, PcrSelection, PcrValues, PolicyKey, PolicyRef, predict, registers_to_text};
use zixt_types::{
    Action, ApplianceId, Approval, Canonical as _, CustodyMode, Decision, Genesis, Hash, RotationPolicy,
    ShareHolder, SuiteId, Timestamp, Transcript, UnlockMode, Validator,
};

const APPLIANCE: ApplianceId = ApplianceId([8; 48]);

/// A room with three officers, a stranger, and a network.
struct Room {
    folder: tempfile::TempDir,
    genesis: Genesis,
    cards: Vec<OfficerCard>,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let passphrase = folder.path().join("passphrase");
        fs::write(&passphrase, "correct horse battery\n").unwrap();
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
        let mut room = Self { folder, genesis: genesis(&[], 0), cards: Vec::new() };
        for (name, suite) in
            [("ada", "standard"), ("bob", "cnsa"), ("eve", "standard"), ("mallory", "standard")]
        {
            let out = format!("{name}.zixt-key");
            let made = room.json(&[
                "keygen",
                "--name",
                name,
                "--suite",
                suite,
                "-o",
                &out,
                "--passphrase-file",
                "passphrase",
            ]);
            let card: OfficerCard = from_file(&room.read(&format!("{name}.zixt-officer"))).unwrap();
            assert_eq!(made["officer"], card.officer().to_hex());
            assert_eq!(made["kem"], card.holder().kem.to_hex());
            room.cards.push(card);
        }
        room.genesis = genesis(&room.cards[..3], 1);
        room.write("genesis.cbor", &room.genesis.to_bytes());
        room.write("other.cbor", &genesis(&room.cards[..3], 2).to_bytes());
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn network(&self) -> Hash {
        digest::genesis_hash(&self.genesis)
    }

    fn rule(&self) -> OfficerRule {
        OfficerRule::of(&self.genesis)
    }

    fn action(&self, decision: Decision) -> Action {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        Action {
            version: 1,
            genesis: self.network(),
            appliance: APPLIANCE,
            sequence: 4,
            expires_at: Timestamp(u64::try_from(now).unwrap() + 3_600_000),
            decision,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zixt-officer"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("ZIXT_OFFICER_KEY")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it and expects success and a JSON document.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs it and expects this exit code and these words.
    fn refused(&self, arguments: &[&str], exit: i32, words: &str) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        // The same for a script.
        let output = self.run(&[&["--json"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        let document = text.lines().last().map(serde_json::from_str::<Value>);
        let Some(Ok(document)) = document else { panic!("{arguments:?}: no JSON in {text}") };
        assert_eq!(document["error"]["exit"], exit);
        assert!(document["error"]["message"].as_str().unwrap().contains(words), "{document}");
    }

    fn approve(&self, name: &str, action: &str, out: &str) {
        let key = format!("{name}.zixt-key");
        self.json(&[
            "approve",
            action,
            "-o",
            out,
            "--yes",
            "--key",
            &key,
            "--passphrase-file",
            "passphrase",
            "--genesis",
            "genesis.cbor",
        ]);
    }
}

fn genesis(cards: &[OfficerCard], nonce: u8) -> Genesis {
    Genesis {
        version: 1,
        suites: SuiteId::ALL.to_vec(),
        network: "room".to_owned(),
        organisation: Hash([1; 48]),
        officers: cards.iter().map(OfficerCard::to_officer).collect(),
        officers_required: 2,
        enrollers: vec![Hash([2; 48])],
        validators: vec![Validator {
            appliance: APPLIANCE,
            consensus: Hash([3; 48]),
            tls: Hash([4; 48]),
            stake: 1,
            custody: CustodyMode::Token,
        }],
        shard_count: 1,
        unlock: UnlockMode::Attended,
        lab: false,
        rotation: RotationPolicy { messages_max: 1, age_ms_max: 1 },
        created_at: Timestamp(0),
        nonce: [nonce; 32],
    }
}

fn own(name: &str) -> Vec<String> {
    vec!["--key".into(), format!("{name}.zixt-key"), "--passphrase-file".into(), "passphrase".into()]
}

fn with<'a>(arguments: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    arguments.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

#[test]
fn two_of_three_officers_approve() {
    let room = Room::new();
    let action = room.action(Decision::RotateRoot);
    room.write("a.zixt-action", &to_file(&action));

    // What is shown is what would be signed.
    let shown = room.run(&["show", "a.zixt-action", "--genesis", "genesis.cbor"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    for words in ["REPLACE THE ROOT KEY", "room", &action.expires_at.utc(), "decision number"] {
        assert!(text.contains(words), "{words}: {text}");
    }

    // Without a yes nothing is signed; with one, it is.
    let ada = own("ada");
    let approve = with(&["approve", "a.zixt-action", "-o", "ada.zixt-approval"], &ada);
    room.refused(&approve, 1, "not confirmed");
    assert!(!room.path("ada.zixt-approval").exists());
    let mut asked = room
        .command(&approve)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    asked.stdin.take().unwrap().write_all(b"y\n").unwrap();
    let output = asked.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("REPLACE THE ROOT KEY") && text.contains("Approved: "), "{text}");

    // One is too few, and what is there is kept for the next.
    let collect = [
        "collect",
        "a.zixt-action",
        "ada.zixt-approval",
        "-o",
        "one.zixt-transcript",
        "--genesis",
        "genesis.cbor",
    ];
    let few = room.run(&collect);
    assert_eq!(few.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&few.stdout).contains("1 of the 2 officers required"), "{few:?}");
    let few: Transcript = from_file(&room.read("one.zixt-transcript")).unwrap();
    let judged =
        |transcript: &Transcript| judge(&transcript.to_bytes(), &room.rule(), room.network(), &Reference);
    assert_eq!(judged(&few), Err(CeremonyError::TooFew { got: 1, required: 2 }));

    room.approve("bob", "a.zixt-action", "bob.zixt-approval");
    let done = room.json(&[
        "collect",
        "a.zixt-action",
        "ada.zixt-approval",
        "bob.zixt-approval",
        "-o",
        "a.zixt-transcript",
        "--genesis",
        "genesis.cbor",
    ]);
    assert_eq!(
        (&done["approvals"], &done["required"], &done["approved"]),
        (&2.into(), &2.into(), &true.into())
    );
    let transcript: Transcript = from_file(&room.read("a.zixt-transcript")).unwrap();
    let approved = judged(&transcript).unwrap();
    assert_eq!(approved.action(), &action);
    assert_eq!(approved.check_due(APPLIANCE, 4, Timestamp(0)), Ok(()));
    let shown = room.run(&["show", "a.zixt-transcript", "--genesis", "genesis.cbor"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("APPROVED by 2 officers"), "{text}");
    assert!(text.contains("ada") && text.contains("bob"), "{text}");
    // Without the genesis nothing is said that was not checked.
    let unknown = room.json(&["collect", "a.zixt-action", "bob.zixt-approval", "-o", "b.zixt-transcript"]);
    assert_eq!((&unknown["required"], &unknown["approved"]), (&Value::Null, &Value::Null));
}

#[test]
fn what_must_not_count_is_refused_by_name() {
    let room = Room::new();
    let action = room.action(Decision::RotateRoot);
    room.write("a.zixt-action", &to_file(&action));
    for name in ["ada", "bob"] {
        room.approve(name, "a.zixt-action", &format!("{name}.zixt-approval"));
    }
    let (ada, mallory) = (own("ada"), own("mallory"));
    let approve = |arguments: &[&'static str]| [&["approve", "-o", "x", "--yes"], arguments].concat();
    let collect = |arguments: &[&'static str]| {
        [&["collect", "-o", "x", "--genesis", "genesis.cbor"], arguments].concat()
    };

    // Another network.
    let other = with(&approve(&["a.zixt-action", "--genesis", "other.cbor"]), &ada);
    room.refused(&other, 5, "the action is for network");
    room.refused(
        &[
            "collect",
            "-o",
            "x",
            "--genesis",
            "other.cbor",
            "a.zixt-action",
            "ada.zixt-approval",
            "bob.zixt-approval",
        ],
        5,
        "the action is for network",
    );
    // No officer.
    let stranger = with(&approve(&["a.zixt-action", "--genesis", "genesis.cbor"]), &mallory);
    room.refused(&stranger, 5, "is no officer's of this network");
    let blind =
        with(&["--json", "approve", "a.zixt-action", "-o", "mallory.zixt-approval", "--yes"], &mallory);
    assert!(room.run(&blind).status.success());
    room.refused(
        &collect(&["a.zixt-action", "ada.zixt-approval", "mallory.zixt-approval", "bob.zixt-approval"]),
        5,
        "is no officer's of this network",
    );
    // Another action than the one that was approved, by one number.
    room.write("b.zixt-action", &to_file(&Action { sequence: 5, ..action.clone() }));
    room.refused(
        &collect(&["b.zixt-action", "ada.zixt-approval"]),
        6,
        "ada.zixt-approval: the approval of officer",
    );
    // Damaged files.
    let mut damaged = room.read("ada.zixt-approval");
    let at = damaged.len() - 40;
    damaged[at] ^= 1;
    room.write("damaged.zixt-approval", &damaged);
    room.refused(&collect(&["a.zixt-action", "damaged.zixt-approval"]), 6, "does not verify");
    let cut = room.read("a.zixt-action");
    room.write("cut.zixt-action", &cut[..50]);
    room.refused(&collect(&["cut.zixt-action", "ada.zixt-approval"]), 6, "malformed");
    room.refused(
        &collect(&["ada.zixt-approval", "ada.zixt-approval"]),
        64,
        "this is approval, not the action",
    );
    // Twice.
    room.write("again.zixt-approval", &room.read("ada.zixt-approval"));
    room.refused(
        &collect(&["a.zixt-action", "ada.zixt-approval", "bob.zixt-approval", "again.zixt-approval"]),
        5,
        "approved twice",
    );
    // Too late.
    room.write("late.zixt-action", &to_file(&Action { expires_at: Timestamp(1_000), ..action }));
    let late = with(&approve(&["late.zixt-action"]), &ada);
    room.refused(&late, 5, "the action expired at 1970-01-01T00:00:01.000Z");
    let late = room.run(&["show", "late.zixt-action"]);
    assert!(String::from_utf8_lossy(&late.stdout).contains("EXPIRED"));
    assert!(!room.path("x").exists(), "nothing that was refused was written");
}

#[test]
fn keys_and_cards_are_guarded() {
    let room = Room::new();
    room.write("a.zixt-action", &to_file(&room.action(Decision::RotateRoot)));
    let approve = |key: &str, passphrase: &str| {
        format!("approve a.zixt-action -o x --yes --key {key} --passphrase-file {passphrase}")
    };
    let refused =
        |line: &str, exit, words: &str| room.refused(&line.split(' ').collect::<Vec<_>>(), exit, words);
    // The passphrase.
    room.write("wrong", b"correct horse batterz\n");
    fs::set_permissions(room.path("wrong"), fs::Permissions::from_mode(0o600)).unwrap();
    refused(&approve("ada.zixt-key", "wrong"), 3, "the passphrase is wrong");
    fs::set_permissions(room.path("wrong"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&approve("ada.zixt-key", "wrong"), 7, "others may read it (mode 0644)");
    room.write("short", b"short\n");
    fs::set_permissions(room.path("short"), fs::Permissions::from_mode(0o600)).unwrap();
    refused("keygen --name x -o x.zixt-key --passphrase-file short", 64, "at least 15");
    refused("keygen --name x -o ada.zixt-key --passphrase-file passphrase", 7, "ada.zixt-key");
    refused("keygen --name x -o x.zixt-officer --passphrase-file passphrase", 64, "at once");
    // The key file.
    refused(
        &approve("ada.zixt-officer", "passphrase"),
        64,
        "this is officer's card, not an officer's key file",
    );
    refused(&approve("a.zixt-action", "passphrase"), 64, "this is action");
    refused(&approve("none", "passphrase"), 7, "none");
    let mut altered = room.read("ada.zixt-key");
    let at = altered.len() - 5;
    altered[at] ^= 1;
    room.write("altered.zixt-key", &altered);
    refused(&approve("altered.zixt-key", "passphrase"), 3, "or the key file was altered");
    assert_eq!(fs::metadata(room.path("ada.zixt-key")).unwrap().permissions().mode() & 0o777, 0o600);
    // The card, from the card and from the key file, is the same.
    let card = room.json(&["card", "show", "ada.zixt-officer"]);
    assert_eq!(card, room.json(&["card", "show", "ada.zixt-key", "-o", "copy.zixt-officer"]));
    assert_eq!(room.read("copy.zixt-officer"), room.read("ada.zixt-officer"));
    let mut forged = room.read("ada.zixt-officer");
    let at = forged.windows(3).position(|window| window == b"ada").unwrap();
    forged[at] = b'A';
    room.write("forged.zixt-officer", &forged);
    room.refused(&["card", "show", "forged.zixt-officer"], 6, "the card of \"Ada\" was altered");
    room.refused(&["show", "passphrase"], 64, "no file of this program");
    room.refused(&["show", "none"], 7, "none");
    let usage = room.run(&["approve"]);
    assert_eq!(usage.status.code(), Some(64));
    assert!(room.run(&["--help"]).status.success());
}

#[test]
fn officers_recover_with_a_file_and_with_paper() {
    let room = Room::new();
    // Custody makes a recovery key and gives each officer a share.
    let mut holders: Vec<ShareHolder> = room.cards[..3].iter().map(OfficerCard::holder).collect();
    holders.sort();
    let kems: Vec<Vec<u8>> = room.cards.iter().map(|card| card.kem.clone()).collect();
    let key = RecoveryKey::generate().unwrap();
    let record = key.share(room.network(), APPLIANCE, 2, &holders, &kems).unwrap();
    room.write("r.zixt-recovery", &to_file(&record));
    let bobs = record.share_of(&room.cards[1].officer()).unwrap();
    room.write("bob.zixt-share", &to_file(bobs));

    // Bob writes his share down and checks the sheet.
    let (bob, ada, mallory) = (own("bob"), own("ada"), own("mallory"));
    let paper = room.json(&with(&["share", "show", "bob.zixt-share"], &bob));
    let words = paper["words"].as_str().unwrap();
    assert_eq!(words.split(' ').count(), 54);
    room.write("words", words.to_uppercase().as_bytes());
    let sheet = room.run(&with(&["share", "show", "r.zixt-recovery"], &bob));
    let sheet = String::from_utf8(sheet.stdout).unwrap();
    assert!(sheet.contains("54. ") && sheet.contains('▀'), "{sheet}");
    room.write("code", paper["code"].as_str().unwrap().as_bytes());
    for paper in ["words", "code"] {
        let right = room.json(&["share", "check", "bob.zixt-share", "--words-file", paper]);
        assert_eq!(right["share"], bobs.index);
    }
    let mut wrong: Vec<&str> = words.split(' ').collect();
    wrong[7] = if wrong[7] == "zoo" { "zone" } else { "zoo" };
    room.write("wrong", wrong.join(" ").as_bytes());
    room.refused(
        &["share", "check", "r.zixt-recovery", "--words-file", "wrong"],
        6,
        "the checksum does not fit",
    );
    let adas = record.share_of(&room.cards[0].officer()).unwrap();
    room.write("ada.zixt-share", &to_file(adas));
    room.refused(&["share", "check", "ada.zixt-share", "--words-file", "words"], 5, "this paper is share");
    room.refused(&with(&["share", "show", "bob.zixt-share"], &ada), 5, "is sealed to the ML-KEM key");
    room.refused(&with(&["share", "show", "r.zixt-recovery"], &mallory), 5, "mallory holds no share");

    // The appliance is lost. A machine asks; officers approve, and release their shares to it.
    let machine = OpeningKey::new(&KemSeed::generate().unwrap());
    let recipient = digest::kem_key_hash(&machine.encapsulation_key());
    let action = room.action(Decision::Recover { backup: Hash([9; 48]), recipient });
    let request = RecoveryRequest::new(&action, &machine.encapsulation_key(), &record).unwrap();
    room.write("q.zixt-request", &to_file(&request));
    for name in ["ada", "eve"] {
        room.approve(name, "q.zixt-request", &format!("{name}.zixt-approval"));
    }
    room.json(&[
        "collect",
        "q.zixt-request",
        "ada.zixt-approval",
        "eve.zixt-approval",
        "-o",
        "q.zixt-transcript",
        "--genesis",
        "genesis.cbor",
    ]);
    let transcript: Transcript = from_file(&room.read("q.zixt-transcript")).unwrap();
    let approved = judge(&transcript.to_bytes(), &room.rule(), room.network(), &Reference).unwrap();
    room.refused(
        &with(&["share", "release", "q.zixt-request", "-o", "bob.zixt-release"], &bob),
        1,
        "not confirmed",
    );
    let release = ["share", "release", "q.zixt-request", "--yes", "-o"];
    room.json(&with(&[&release[..], &["bob.zixt-release", "--words-file", "words"]].concat(), &bob));
    room.json(&with(&[&release[..], &["ada.zixt-release"]].concat(), &ada));
    let not_hers = with(&[&release[..], &["x", "--words-file", "words"]].concat(), &ada);
    room.refused(&not_hers, 5, "is held by officer");
    room.refused(&with(&[&release[..], &["x"]].concat(), &mallory), 5, "mallory holds no share");
    room.refused(&with(&[&release[..3], &["-o", "x"]].concat(), &bob), 1, "not confirmed");

    let shares: Vec<_> = ["bob", "ada"]
        .map(|name| {
            let release: ShareRelease = from_file(&room.read(&format!("{name}.zixt-release"))).unwrap();
            open_release(&record, &approved, &release, &machine, &Reference).unwrap()
        })
        .into();
    assert_eq!(record.combine(&shares).unwrap().id(), key.id());
}

#[test]
fn every_file_is_shown_in_words() {
    let room = Room::new();
    let mut holders: Vec<ShareHolder> = room.cards[..3].iter().map(OfficerCard::holder).collect();
    holders.sort();
    let kems: Vec<Vec<u8>> = room.cards.iter().map(|card| card.kem.clone()).collect();
    let record =
        RecoveryKey::generate().unwrap().share(room.network(), APPLIANCE, 2, &holders, &kems).unwrap();
    room.write("r.zixt-recovery", &to_file(&record));
    room.write("s.zixt-share", &to_file(&record.shares[0]));
    room.write("a.zixt-action", &to_file(&room.action(Decision::SetRecovery { threshold: 2, holders })));
    room.approve("ada", "a.zixt-action", "ada.zixt-approval");
    let _: Approval = from_file(&room.read("ada.zixt-approval")).unwrap();
    let shown = |name: &str, words: &[&str]| {
        let known = ["--genesis", "genesis.cbor", "--card", "bob.zixt-officer"];
        let output = room.run(&[&["show", name], &known[..]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for words in words {
            assert!(text.contains(words), "{name}: {words}: {text}");
        }
        let document = room.json(&["show", name]);
        assert!(document["kind"].is_string());
    };
    shown("a.zixt-action", &["SET THE RECOVERY KEY", "any 2 of 3", "ML-KEM key of bob", "eve"]);
    shown("ada.zixt-approval", &["ada", "checked"]);
    shown("ada.zixt-officer", &["ada", "ask the person"]);
    shown("ada.zixt-key", &["Argon2id with 64 MiB"]);
    shown("r.zixt-recovery", &["any 2 of 3", "bob"]);
    shown("s.zixt-share", &["number 1; any 2"]);
    shown("genesis.cbor", &["officers required"]);
}

#[test]
fn images_are_approved_by_a_key_under_a_passphrase() {
    let room = Room::new();
    let made =
        room.json(&["image", "keygen", "-o", "image.zixt-image-key", "--passphrase-file", "passphrase"]);
    assert_eq!(made["public"], "image.policy-key");
    let key = PolicyKey::parse(&room.read("image.policy-key")).unwrap();
    let text = format!("7 = {}\n11 + {}\n", "07".repeat(32), "0b".repeat(32));
    room.write("next.txt", text.as_bytes());
    let approve = |registers, out| {
        let own = ["--key", "image.zixt-image-key", "--passphrase-file", "passphrase", "--yes"];
        [&["image", "approve", registers, "-o", out][..], &own].concat()
    };
    room.json(&approve("next.txt", "next.approval"));
    let approval = zixt_measured::Approval::parse(&room.read("next.approval")).unwrap();
    assert_eq!(approval.verify(&key, &PolicyRef::images(), PcrSelection::DEFAULT), Ok(()));
    let held = |index, value| Pcr { index, value };
    let expected = vec![held(7, [7; 32]), held(11, predict([0; 32], &[[11; 32]]))];
    assert_eq!(approval.values.pcrs(), expected);

    room.refused(&approve("next.txt", "next.approval"), 7, "next.approval");
    room.refused(&approve("next.txt", "next.cbor"), 64, "would not find");
    room.write("bad.txt", b"7 = 07");
    room.refused(&approve("bad.txt", "bad.approval"), 64, "line 1");
    room.write("zeros.txt", format!("7 = {0}\n11 = {0}", "00".repeat(32)).as_bytes());
    room.refused(&approve("zeros.txt", "zeros.approval"), 5, "nothing is measured");
    let mut own = approve("next.txt", "other.approval");
    own.retain(|argument| *argument != "--yes");
    room.refused(&own, 1, "not confirmed");
    room.write("wrong", b"another passphrase\n");
    fs::set_permissions(room.path("wrong"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut own = approve("next.txt", "other.approval");
    own[8] = "wrong";
    room.refused(&own, 3, "passphrase is wrong");
    assert!(!room.path("other.approval").exists() && !room.path("zeros.approval").exists());
}

#[test]
fn a_quote_is_checked_offline() {
    let room = Room::new();
    // Of a TPM simulator: `first` and `second` by one key with the nonces 01… and 02…, `other` by another key with 02….
    for name in ["first", "second", "other"] {
        let file = format!("{}/tests/quotes/{name}.zixt-quote", env!("CARGO_MANIFEST_DIR"));
        fs::copy(file, room.path(name)).unwrap();
    }
    let held = |image| {
        let pcr = |index, event| Pcr { index, value: predict([0; 32], &[[event; 32]]) };
        registers_to_text(&PcrValues::new(vec![pcr(7, 7), pcr(11, image)]).unwrap())
    };
    room.write("runs.txt", held(11).as_bytes());
    room.write("next.txt", held(99).as_bytes());
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let alone = room.json(&["quote", "check", "first", "--nonce", &one]);
    assert_eq!(alone["compared"], false);
    let check = |file, nonce| ["quote", "check", file, "--nonce", nonce, "--reference", "first"];
    let good = room.json(&[&check("second", &two)[..], &["--registers", "runs.txt"]].concat());
    assert_eq!((&good["compared"], &good["key"]), (&Value::Bool(true), &alone["key"]));
    room.json(&check("second", &two));
    room.refused(&check("first", &two), 6, "the nonce is not");
    room.refused(&check("other", &two), 6, "another attestation key");
    room.refused(
        &[&check("second", &two)[..], &["--registers", "next.txt"]].concat(),
        6,
        "registers [11] differ",
    );
    let mut forged = room.read("second");
    let at = forged.len() - 10;
    forged[at] ^= 1;
    room.write("forged", &forged);
    room.refused(&check("forged", &two), 6, "not those that the TPM signed");
    room.refused(&check("runs.txt", &two), 64, "quote of a machine");
    let nonces = [room.json(&["quote", "nonce"]), room.json(&["quote", "nonce"])];
    assert!(nonces[0] != nonces[1] && nonces[0]["nonce"].as_str().unwrap().len() == 64);
}
