//! A device or a disk that fails while the daemon works, and kill -9 while officers' decisions are carried out.

use crate::common::{Lab, Officers, pin, refused, stderr, stdout, tls_content, vote};
use crate::kill::Random;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zixt_ceremony::file::from_file;
use zixt_hsm_protocol::{
    BlockingHsmClient, KeyPurpose, KeyStatus, NamedPin, Request, Response, StateKind, Status, VoteOutcome,
};
use zixt_types::{Action, Canonical as _, Decision, Timestamp, Transcript, UnlockMode, VoteStep};

#[test]
fn a_token_that_is_taken_away_while_it_signs_is_missed_at_the_next_unlock() {
    let lab = Lab::new();
    let (daemon, ..) = lab.operational(zixt_types::SuiteId::Standard, UnlockMode::Attended);
    let content = tls_content("TLS 1.3, server CertificateVerify", &[1; 48]);
    let (gone, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let signer = BlockingHsmClient::new(lab.socket());
    std::thread::scope(|scope| {
        let signing = scope.spawn(|| {
            let mut after = 0;
            while !done.load(Ordering::Relaxed) {
                signer.sign_tls(&content).unwrap();
                after += usize::from(gone.load(Ordering::Relaxed));
            }
            after
        });
        std::thread::sleep(Duration::from_millis(50));
        fs::rename(lab.path("tokens"), lab.path("pulled")).unwrap();
        gone.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(200));
        done.store(true, Ordering::Relaxed);
        assert!(signing.join().unwrap() > 0, "what is unlocked signs on");
    });
    daemon.client.lock().unwrap();
    let error = refused(daemon.client.unlock(pin("123456")));
    assert_eq!(error.code(), "custody-token-absent", "{error}");
    let status = daemon.client.status().unwrap();
    assert!(status.state == StateKind::Locked && status.advice.contains("Plug the token in"), "{status:?}");
    daemon.stop();
    fs::rename(lab.path("pulled"), lab.path("tokens")).unwrap();
    let daemon = lab.start();
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
}

/// Mounts a small disk for the state, fills it when a file says so, and becomes the daemon.
const SMALL_DISK: &str = r#"
    mkdir -p "$1/state" && mount -t tmpfs -o size=2m,mode=700 tmpfs "$1/state" || exit 9
    (
        exec >/dev/null 2>&1
        while [ ! -e "$1/fill" ]; do sleep 0.05; [ -d "$1" ] || exit; done
        dd if=/dev/zero of="$1/state/filling" bs=4k
        touch "$1/filled"
        while [ -e "$1/fill" ]; do sleep 0.05; [ -d "$1" ] || exit; done
        rm "$1/state/filling"
        touch "$1/emptied"
    ) &
    exec "$2"
"#;

#[test]
fn a_full_disk_stops_changes_and_loses_nothing() {
    let may_mount = |arguments: &[&str]| {
        let tried =
            Command::new("unshare").args(arguments).args(["mount", "-t", "tmpfs", "x", "/mnt"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let namespaces: &[&str] = if may_mount(&["-m"]) { &["-m"] } else { &["-Urm"] };
    if !may_mount(namespaces) {
        let line = "ZIXT-SKIP: a_full_disk_stops_changes_and_loses_nothing: no right to mount a small disk\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let (officers, lab) = (Officers::three(), Lab::new());
    let mut command = lab.command("unshare");
    command.args(namespaces).args(["sh", "-c", SMALL_DISK, "sh"]);
    command.arg(lab.folder.path()).arg(env!("CARGO_BIN_EXE_zixt-hsmd"));
    let daemon = lab.start_by(command);
    let keys = daemon.client.provision(zixt_types::SuiteId::Standard, true).unwrap();
    let mut genesis = crate::common::genesis(&keys, UnlockMode::Attended);
    (genesis.officers, genesis.officers_required) = (officers.named(), 2);
    daemon.client.bind_genesis(&genesis.to_bytes()).unwrap();
    let wait_for = |name: &str| {
        let begun = Instant::now();
        while !lab.path(name).exists() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    fs::write(lab.path("fill"), "").unwrap();
    wait_for("filled");
    // The votes' file has all its blocks from the beginning.
    let first = vote(&genesis, 1, 0, VoteStep::Precommit, 1);
    let VoteOutcome::Signed { signature } = daemon.client.sign_vote(&first).unwrap() else { panic!() };
    let transcript = lab.approved(&officers, &[0, 1], &["rotate-root"]);
    let full = lab.admin(&["apply", &transcript]);
    assert!(stderr(&full).contains("custody-storage"), "{full:?}");
    let doctor = stdout(&lab.admin(&["doctor"]));
    assert!(doctor.contains("a full disk stops"), "{doctor}");
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational, "it signs on");
    daemon.client.lock().unwrap();
    assert_eq!(refused(daemon.client.unlock(pin("123456"))).code(), "custody-storage");
    fs::remove_file(lab.path("fill")).unwrap();
    wait_for("emptied");
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    let other = vote(&genesis, 1, 0, VoteStep::Precommit, 2);
    let VoteOutcome::AlreadySigned { signature: kept, .. } = daemon.client.sign_vote(&other).unwrap() else {
        panic!("the vote was lost")
    };
    assert_eq!(kept, signature);
    let said = lab.must(&["apply", &transcript]);
    assert!(said.contains("the root has version 2"), "{said}");
}

/// SoftHSM empties the file that describes a token before it writes it anew, at every login: a kill in between loses the
/// whole token, which is why a software token is for labs. What it lost of its own is put back; objects are not touched.
fn mend_softhsm(lab: &Lab) {
    for entry in fs::read_dir(lab.path("tokens")).unwrap() {
        let token = entry.unwrap().path();
        let (file, kept) = (token.join("token.object"), token.join("token.kept"));
        match fs::metadata(&file).map_or(0, |file| file.len()) {
            0 => drop(fs::copy(&kept, &file).unwrap()),
            _ => drop(fs::copy(&file, &kept).unwrap()),
        }
    }
}

/// One of the changes that officers can decide, or that lead to one.
fn change(status: &Status, officers: &Officers, random: &mut Random) -> (Request, Option<Decision>) {
    let pending =
        |purpose| status.keys.iter().find(|k| k.purpose == purpose && k.status == KeyStatus::Pending);
    let second = status.protectors.iter().find(|protector| protector.name == "second").unwrap();
    let consensus = status.key(KeyPurpose::Consensus).unwrap();
    let retired = status.keys.iter().find(|key| key.status == KeyStatus::Retired);
    let decision = match (random.next(5), pending(KeyPurpose::Consensus), retired) {
        (0, None, _) => return (Request::GenerateKey { purpose: KeyPurpose::Consensus }, None),
        (0 | 1, Some(new), _) => Decision::ActivateKey {
            purpose: KeyPurpose::Consensus,
            retires: consensus.hash,
            activates: new.hash,
            suite: new.suite,
            custody: new.custody,
        },
        (2, _, Some(old)) => Decision::DestroyKey { purpose: old.purpose, key: old.hash },
        (3, ..) if second.enrolled => Decision::RemoveProtector { protector: second.id.unwrap() },
        (3, ..) => Decision::AddProtector {
            protector: second.id.unwrap(),
            kind: second.kind,
            description: zixt_hsm::service::description(second.token.as_ref().unwrap()),
        },
        _ => Decision::RotateRoot,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let action = Action {
        version: 1,
        genesis: status.genesis.unwrap(),
        appliance: status.appliance.unwrap(),
        sequence: status.sequence,
        expires_at: Timestamp(u64::try_from(now).unwrap() + 60_000),
        decision: decision.clone(),
    };
    let transcript: Transcript = from_file(&officers.transcript(&action.to_bytes(), &[0, 1])).unwrap();
    let transcript = transcript.to_bytes();
    let request = match &decision {
        Decision::AddProtector { .. } => Request::AddProtector {
            name: "second".to_owned(),
            pin: pin("123456"),
            transcript: Some(transcript),
        },
        _ => {
            let named = |name: &str| NamedPin { protector: name.to_owned(), pin: pin("123456") };
            Request::Decide { transcript, pins: ["zixt", "second"].map(named).to_vec(), cards: Vec::new() }
        }
    };
    (request, Some(decision))
}

/// Whether a status shows that a decision was carried out.
fn is_done(status: &Status, decision: &Decision) -> Option<bool> {
    match decision {
        Decision::ActivateKey { activates, .. } => {
            Some(status.key(KeyPurpose::Consensus).unwrap().hash == *activates)
        }
        Decision::DestroyKey { key, .. } => Some(!status.keys.iter().any(|known| known.hash == *key)),
        Decision::AddProtector { .. } | Decision::RemoveProtector { .. } => {
            let second = status.protectors.iter().find(|protector| protector.name == "second").unwrap();
            Some(second.enrolled == matches!(decision, Decision::AddProtector { .. }))
        }
        _ => None,
    }
}

#[test]
fn killed_while_officers_decide_it_has_the_old_or_the_new_state() {
    let kills = if std::env::var_os("ZIXT_TEST_FULL").is_some() { 200 } else { 20u64 };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    let (officers, lab) = (Officers::three(), Lab::empty());
    let second = lab.softhsm().replace("\"zixt\"", "\"second\"");
    for part in [&second, &lab.softhsm()] {
        lab.configure_with(true, &[part]);
        lab.init_token();
    }
    lab.configure_with(true, &[&lab.softhsm(), &second]);
    let (daemon, _, genesis) = lab.operational_by(&officers, UnlockMode::Unattended);
    let mut before = daemon.client.status().unwrap();
    daemon.stop();
    let mut wanted: Option<Decision> = None;
    let (mut taken, mut given) = (0, 0);
    // Follows the machine's speed, so that about half of the decisions are taken before the kill.
    let mut window = 100;
    for kill in 1..=kills {
        mend_softhsm(&lab);
        let daemon = lab.start();
        let status = daemon.client.status().unwrap();
        let protectors: Vec<_> =
            status.protectors.iter().map(|p| (&p.name, p.enrolled, &p.problem)).collect();
        let case =
            format!("kill {kill}, seed {seed}: {wanted:?} {} {} {protectors:?}", status.state, status.reason);
        assert_eq!(status.state, StateKind::Operational, "{case}");
        assert!(status.protectors.iter().all(|protector| protector.problem.is_empty()), "{case}");
        for purpose in KeyPurpose::ALL {
            let of =
                |wanted| status.keys.iter().filter(|k| k.purpose == purpose && k.status == wanted).count();
            assert!(of(KeyStatus::Active) == 1 && of(KeyStatus::Pending) <= 1, "{case}");
        }
        let done = status.sequence - before.sequence;
        assert!(done <= u64::from(wanted.is_some()), "{case}");
        if let Some(decision) = &wanted {
            given += 1;
            taken += done;
            window = if done == 0 { window * 3 / 2 } else { (window / 2).max(20) };
            assert!(is_done(&status, decision).is_none_or(|seen| seen == (done == 1)), "{case}");
        }
        let Response::Decisions(kept) =
            daemon.client.call(&Request::Decisions { from: before.sequence }).unwrap()
        else {
            panic!("{case}")
        };
        assert_eq!(kept.len() as u64, done, "what was taken is kept for the ledger: {case}");
        // Every height is voted on once, whatever key is the active one.
        let height = kill;
        let outcome = daemon.client.sign_vote(&vote(&genesis, height, 0, VoteStep::Precommit, 1)).unwrap();
        assert!(matches!(outcome, VoteOutcome::Signed { .. }), "{case} {outcome:?}");
        if kill > 1 {
            let earlier = vote(&genesis, height - 1, 0, VoteStep::Precommit, 2);
            let outcome = daemon.client.sign_vote(&earlier).unwrap();
            assert!(!matches!(outcome, VoteOutcome::Signed { .. }), "{case} {outcome:?}");
        }
        let (request, decision) = change(&status, &officers, &mut random);
        (before, wanted) = (status, decision);
        let client = BlockingHsmClient::new(lab.socket());
        std::thread::scope(|scope| {
            // Its answer, if one comes, is what the next round finds.
            scope.spawn(|| drop(client.call(&request)));
            std::thread::sleep(Duration::from_millis(random.next(window)));
            daemon.kill();
        });
    }
    println!("{given} decisions, {taken} of them taken before the kill");
}
