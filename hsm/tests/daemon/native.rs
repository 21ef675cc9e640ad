//! Keys that sign inside a token, and their recovery where there is none.

use crate::common::{Lab, Officers, key, pin, stderr, stdout, vote};
use crate::requests::invite;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zixt_ceremony::file::{from_file, to_file};
use zixt_ceremony::{RecoveryRequest, release};
use zixt_crypto::{Backend as _, Reference, cose, digest, labels};
use zixt_hsm_protocol::{ClientError, KeyInfo, KeyPurpose, StateKind, VoteOutcome};
use zixt_types::{Canonical as _, CustodyMode, Genesis, SuiteId, UnlockMode, VoteStep};

/// A lab whose token makes and keeps these keys itself; `None`, and the given line, where Kryoptic is not built.
fn kryoptic(native: &[&str], without: &str) -> Option<Lab> {
    let lab = Lab::empty();
    let Some(part) = lab.kryoptic(native) else {
        // In one piece, because other tests write as well.
        std::io::stderr().write_all(format!("{without}\n").as_bytes()).unwrap();
        return None;
    };
    lab.configure_with(true, &[&part]);
    lab.init_token();
    Some(lab)
}

fn votes(client: &zixt_hsm_protocol::BlockingHsmClient, genesis: &Genesis, height: u64) {
    let wanted = vote(genesis, height, 0, VoteStep::Precommit, 1);
    let VoteOutcome::Signed { signature } = client.sign_vote(&wanted).unwrap() else { panic!("{height}") };
    let status = client.status().unwrap();
    let public_key = &status.key(KeyPurpose::Consensus).unwrap().public_key;
    Reference.verify(SuiteId::Standard, public_key, &digest::vote_bytes(&wanted), &signature).unwrap();
}

fn invites(client: &zixt_hsm_protocol::BlockingHsmClient, genesis: &Genesis, enroller: &KeyInfo) {
    let body = invite(genesis, enroller.hash);
    let signature = client.sign_invite(&body).unwrap();
    let (suite, bytes) = (SuiteId::Standard, body.to_bytes());
    cose::verify(&Reference, suite, &enroller.public_key, labels::BODY, &bytes, &signature).unwrap();
}

#[test]
fn native_keys_sign_and_escrowed_ones_are_recovered_without_their_token() {
    let Some(lab) = kryoptic(
        &["consensus", "enroller"],
        "ZIXT-SKIP: native_keys_sign_and_escrowed_ones_are_recovered_without_their_token: Kryoptic is not built",
    ) else {
        return;
    };
    let officers = Officers::three();
    let (daemon, keys, genesis) = lab.operational_by(&officers, UnlockMode::Unattended);
    let mode = |keys: &[KeyInfo], purpose| key(keys, purpose).custody;
    assert_eq!(mode(&keys, KeyPurpose::Consensus), CustodyMode::Token);
    assert_eq!(mode(&keys, KeyPurpose::Tls), CustodyMode::WrappedByToken);
    // Nobody could recover it yet, so it was not made in the token.
    assert_eq!(mode(&keys, KeyPurpose::Enroller), CustodyMode::WrappedByToken);
    assert!(stdout(&lab.admin(&["list"])).contains(CustodyMode::Token.describe()));
    votes(&daemon.client, &genesis, 1);
    assert!(daemon.stop().contains("without the officers' recovery key"));

    let daemon = lab.start();
    votes(&daemon.client, &genesis, 2);
    let said = officers.set_recovery(&lab, &[]);
    assert!(said.contains("the officers' shares open the root"), "{said}");
    let pending = lab.must(&["generate", "enroller"]);
    assert!(pending.contains(CustodyMode::Token.describe()), "{pending}");
    lab.decide(&officers, &["activate", "enroller"], &[]);
    let enroller = daemon.client.status().unwrap().key(KeyPurpose::Enroller).unwrap().clone();
    assert_eq!(enroller.custody, CustodyMode::Token);
    invites(&daemon.client, &genesis, &enroller);
    let test = lab.must(&["self-test"]);
    assert!(test.contains("ok   consensus key, active"), "{test}");
    daemon.stop();
    let daemon = lab.start();
    votes(&daemon.client, &genesis, 3);
    invites(&daemon.client, &genesis, &enroller);

    fs::create_dir(lab.path("server")).unwrap();
    fs::write(lab.path("server").join("lock"), "").unwrap();
    fs::write(lab.path("server").join("ledger"), vec![7; 3_000_000]).unwrap();
    lab.must(&["backup", "--server", &lab.arg("server"), "-o", &lab.arg("all.zixt-backup")]);
    daemon.kill();
    fs::remove_dir_all(lab.path("tokens")).unwrap();

    // A machine with another token, which has no native keys.
    let fresh = Lab::new();
    let daemon = fresh.start();
    let (backup, request) = (lab.arg("all.zixt-backup"), fresh.arg("lost.zixt-request"));
    // The copy that is at hand is damaged behind custody's part.
    let (whole, damaged) = (fs::read(&backup).unwrap(), lab.arg("damaged.zixt-backup"));
    fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();
    fresh.must(&["recover", "begin", &backup, "-o", &request]);
    let asked: RecoveryRequest = from_file(&fs::read(&request).unwrap()).unwrap();
    let transcript = fresh.arg("recover.zixt-transcript");
    fs::write(&transcript, officers.transcript(&asked.action, &[0, 2])).unwrap();
    let mut finish = vec!["recover".to_owned(), "finish".to_owned(), damaged];
    finish.extend(["--transcript".to_owned(), transcript, "--server".to_owned(), fresh.arg("server")]);
    for n in [1, 2] {
        let card = digest::key_hash(SuiteId::Standard, officers.signing(n).public_key());
        let share = asked.record.share_of(&card).unwrap().open(officers.opening(n)).unwrap();
        let file = fresh.arg(&format!("{n}.zixt-release"));
        fs::write(&file, to_file(&release(&share, &asked, officers.signing(n)).unwrap())).unwrap();
        finish.extend(["--release".to_owned(), file]);
    }
    let finish: Vec<&str> = finish.iter().map(String::as_str).collect();
    let failed = fresh.admin(&finish);
    assert!(stdout(&failed).contains("custody is quarantined"), "{failed:?}");
    assert!(!failed.status.success() && stderr(&failed).contains("zixt-hsm recover files"), "{failed:?}");
    assert!(!fresh.path("server").join("ledger").exists());
    assert!(stdout(&fresh.admin(&["doctor"])).contains("BAD  backup"));
    // Custody is recovered once only, and gives the backup's key until the files are there.
    assert!(stderr(&fresh.admin(&finish)).contains("custody-wrong-state"));
    let files = ["recover", "files", &backup, "--server", &fresh.arg("server")];
    let said = fresh.must(&files);
    assert!(said.contains("files of the server are in"), "{said}");
    let again = ["recover", "files", &backup, "--server", &fresh.arg("server-again")];
    assert!(stderr(&fresh.admin(&again)).contains("no backup waits to be unpacked"));
    assert_eq!(fs::read(fresh.path("server").join("ledger")).unwrap(), vec![7; 3_000_000]);
    let old = daemon.client.status().unwrap().key(KeyPurpose::Consensus).unwrap().clone();
    let refused = daemon.client.sign_vote(&vote(&genesis, 4, 0, VoteStep::Precommit, 1));
    assert!(matches!(refused, Err(ClientError::Custody(_))), "{refused:?}");
    fresh.activate_consensus(&officers);
    let status = daemon.client.status().unwrap();
    assert_eq!(status.state, StateKind::Operational, "{status:?}");
    assert_ne!(status.key(KeyPurpose::Consensus).unwrap().hash, old.hash, "it was never to be recovered");
    votes(&daemon.client, &genesis, 4);
    // The enroller key is the same one, and says that it lives elsewhere now.
    let recovered = status.key(KeyPurpose::Enroller).unwrap();
    assert_eq!(recovered.public_key, enroller.public_key);
    assert_eq!(recovered.custody, CustodyMode::WrappedByToken);
    invites(&daemon.client, &genesis, recovered);
    daemon.stop();
    let daemon = fresh.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational);
    invites(&daemon.client, &genesis, &enroller);
}

#[test]
fn a_token_that_is_pulled_out_while_its_key_signs_is_told_apart() {
    let Some(lab) = kryoptic(
        &["consensus"],
        "ZIXT-SKIP: a_token_that_is_pulled_out_while_its_key_signs_is_told_apart: Kryoptic is not built",
    ) else {
        return;
    };
    let officers = Officers::three();
    let (daemon, _, genesis) = lab.operational_by(&officers, UnlockMode::Attended);
    votes(&daemon.client, &genesis, 1);
    fs::rename(lab.path("tokens"), lab.path("pulled")).unwrap();
    daemon.client.lock().unwrap();
    let absent = daemon.client.unlock(pin("123456"));
    let Err(ClientError::Custody(error)) = absent else { panic!("{absent:?}") };
    assert!(["custody-token-absent", "custody-token-failed"].contains(&error.code()), "{error:?}");
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Locked);
    daemon.stop();
    fs::rename(lab.path("pulled"), lab.path("tokens")).unwrap();
    let daemon = lab.start();
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    votes(&daemon.client, &genesis, 2);
}

/// Over and over, while two clients vote with the key inside it, the token's database is taken away or emptied. A vote either
/// comes, or the error is one that the documents name; custody ends locked and says why, and with the token back nothing is
/// lost and nothing was signed twice.
#[test]
fn a_token_that_goes_in_the_midst_of_signatures_is_named_and_nothing_is_lost() {
    let Some(lab) = kryoptic(
        &["consensus"],
        "ZIXT-SKIP: a_token_that_goes_in_the_midst_of_signatures_is_named_and_nothing_is_lost: Kryoptic is not built",
    ) else {
        return;
    };
    let (daemon, _, genesis) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    daemon.stop();
    let database = lab.path("tokens").join("token.sql");
    let height = AtomicU64::new(0);
    let released: Mutex<BTreeMap<u64, zixt_types::Vote>> = Mutex::default();
    let named = ["custody-token-absent", "custody-token-failed", "custody-locked"];
    let mut refused_in_the_midst = 0;
    for round in 0..20 {
        let daemon = lab.start();
        assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational, "round {round}");
        let (begun, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let errors: Vec<String> = std::thread::scope(|scope| {
            let clients = [(); 2].map(|()| {
                scope.spawn(|| {
                    let client = zixt_hsm_protocol::BlockingHsmClient::new(lab.socket());
                    while !done.load(Ordering::Relaxed) {
                        let height = height.fetch_add(1, Ordering::Relaxed) + 1;
                        let value = u8::try_from(round + 1).unwrap();
                        let wanted = vote(&genesis, height, 0, VoteStep::Precommit, value);
                        match client.sign_vote(&wanted) {
                            Ok(VoteOutcome::Signed { .. }) => {
                                assert!(released.lock().unwrap().insert(height, wanted).is_none());
                            }
                            // The other client's vote was higher.
                            Ok(VoteOutcome::Refused(_)) => {}
                            Ok(other) => panic!("{other:?}"),
                            Err(ClientError::Custody(error)) => return Some(error.code().to_owned()),
                            Err(error) => panic!("{error}"),
                        }
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                    None
                })
            });
            let votes = |more: u64| {
                let from = begun.load(Ordering::Relaxed);
                while begun.load(Ordering::Relaxed) < from + more && !clients.iter().all(|c| c.is_finished())
                {
                    std::thread::yield_now();
                }
            };
            votes(4);
            fs::copy(&database, lab.path("kept.sql")).unwrap();
            match round % 2 {
                0 => fs::rename(lab.path("tokens"), lab.path("pulled")).unwrap(),
                _ => fs::OpenOptions::new().write(true).open(&database).unwrap().set_len(0).unwrap(),
            }
            votes(4);
            done.store(true, Ordering::Relaxed);
            clients.into_iter().filter_map(|client| client.join().unwrap()).collect()
        });
        assert!(errors.iter().all(|code| named.contains(&code.as_str())), "round {round}: {errors:?}");
        refused_in_the_midst += errors.len();
        daemon.client.lock().unwrap();
        let Err(ClientError::Custody(error)) = daemon.client.unlock(pin("123456")) else {
            panic!("round {round}")
        };
        assert!(named[..2].contains(&error.code()), "round {round}: {error:?}");
        let status = daemon.client.status().unwrap();
        assert!(status.state == StateKind::Locked && !status.reason.is_empty(), "round {round}: {status:?}");
        daemon.stop();
        match round % 2 {
            0 => fs::rename(lab.path("pulled"), lab.path("tokens")).unwrap(),
            _ => drop(fs::copy(lab.path("kept.sql"), &database).unwrap()),
        }
    }
    println!(
        "{} votes; {refused_in_the_midst} clients were refused in the midst",
        released.lock().unwrap().len()
    );
    let daemon = lab.start();
    daemon.client.unlock(pin("123456")).unwrap();
    let released = released.into_inner().unwrap();
    assert!(released.len() >= 20);
    // What was released stays what it was; what was lost with the token took no slot.
    for (height, vote_of) in released.iter().rev().take(3) {
        let other = vote(&genesis, *height, 0, VoteStep::Precommit, 99);
        let answer = daemon.client.sign_vote(&other).unwrap();
        let kept = matches!(&answer, VoteOutcome::AlreadySigned { vote, .. } if *vote == vote_of.to_bytes());
        assert!(kept || matches!(answer, VoteOutcome::Refused(_)), "{height}: {answer:?}");
    }
    votes(&daemon.client, &genesis, height.into_inner() + 1);
}
