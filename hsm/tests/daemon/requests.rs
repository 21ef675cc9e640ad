//! The daemon as a process, against SoftHSM.

use crate::common::{Lab, copy, files_below, genesis, key, pin, refused, stderr, stdout, tls_content, vote};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;
use zixt_crypto::{Backend as _, Reference, cose, digest, labels};
use zixt_hsm_protocol::{
    ClientError, CustodyError, FrameError, KeyPurpose, Response, SignedPrecommit, StateKind, VoteOutcome,
    VoteRefusal, decode, read_frame_blocking,
};
use zixt_types::{
    AccountId, ApplianceId, Author, Body, Canonical, CustodyMode, DeviceId, Genesis, Hash, Height, MessageId,
    Payload, RevokeReason, Round, SuiteId, ThreadId, ThreadKind, Timestamp, UnlockMode, VoteStep,
};

pub fn invite(genesis: &Genesis, enroller: Hash) -> Body {
    Body {
        version: 1,
        suite: genesis.suite(),
        genesis: digest::genesis_hash(genesis),
        thread: ThreadId::new(ThreadKind::Account, &[5; 31]),
        author: Author::Enroller(enroller),
        counter: 0,
        message_id: MessageId([6; 16]),
        sent_at: Timestamp(7),
        last_seen: None,
        payload: Payload::Invite {
            account: AccountId([4; 16]),
            name: Hash([8; 48]),
            key: Hash([9; 48]),
            expires_at: Timestamp(10),
        },
    }
}

#[test]
fn provisions_binds_signs_every_purpose_and_comes_back_after_a_restart() {
    for suite in SuiteId::ALL {
        let lab = Lab::new();
        let daemon = lab.start();
        let status = daemon.client.status().unwrap();
        assert_eq!((status.state, status.keys.len(), status.lab), (StateKind::Unprovisioned, 0, None));
        assert!(status.protectors[0].token.as_ref().unwrap().software);
        assert_eq!(refused(daemon.client.sign_tls(&[])), CustodyError::Unprovisioned);
        assert_eq!(refused(daemon.client.bind_genesis(&[])).code(), "custody-genesis-refused");
        drop(daemon);

        let (daemon, keys, genesis) = lab.operational(suite, UnlockMode::Unattended);
        let client = &daemon.client;
        assert_eq!(refused(client.provision(suite, true)), CustodyError::AlreadyProvisioned);
        for info in &keys {
            assert_eq!(info.hash, digest::key_hash(suite, &info.public_key));
            assert_eq!((info.suite, info.custody), (suite, CustodyMode::WrappedByToken));
        }

        let content = tls_content("TLS 1.3, server CertificateVerify", &[1; 48]);
        let tls = &key(&keys, KeyPurpose::Tls).public_key;
        Reference.verify(suite, tls, &content, &client.sign_tls(&content).unwrap()).unwrap();

        let consensus = &key(&keys, KeyPurpose::Consensus).public_key;
        let first = vote(&genesis, 3, 1, VoteStep::Precommit, 4);
        let VoteOutcome::Signed { signature } = client.sign_vote(&first).unwrap() else { panic!() };
        Reference.verify(suite, consensus, &digest::vote_bytes(&first), &signature).unwrap();
        let again = VoteOutcome::Signed { signature: signature.clone() };
        assert_eq!(client.sign_vote(&first).unwrap(), again);

        let enroller = key(&keys, KeyPurpose::Enroller);
        let body = invite(&genesis, enroller.hash);
        let invitation = client.sign_invite(&body).unwrap();
        cose::verify(&Reference, suite, &enroller.public_key, labels::BODY, &body.to_bytes(), &invitation)
            .unwrap();

        let row_key = client.unseal_row_key().unwrap();
        let log = daemon.stop();
        assert!(log.contains("stopped"), "{log}");

        let daemon = lab.start();
        let status = daemon.client.status().unwrap();
        assert_eq!(status.state, StateKind::Operational, "{log}");
        assert_eq!(status.keys, keys);
        assert_eq!(status.genesis, Some(digest::genesis_hash(&genesis)));
        assert_eq!(status.last_vote.unwrap().to_string(), "height 3, round 1, precommit");
        let precommit = SignedPrecommit { height: Height(3), round: Round(1), header: Hash([4; 48]) };
        assert_eq!(status.last_precommit, Some(precommit));
        assert!(daemon.client.unseal_row_key().unwrap() == row_key);
        assert_eq!(daemon.client.sign_vote(&first).unwrap(), again, "the same bytes after a restart");
        let conflicting = vote(&genesis, 3, 1, VoteStep::Precommit, 5);
        let kept = VoteOutcome::AlreadySigned { vote: first.to_bytes(), signature };
        assert_eq!(daemon.client.sign_vote(&conflicting).unwrap(), kept);
        let second = daemon.client.sign_vote(&vote(&genesis, 3, 2, VoteStep::Precommit, 5)).unwrap();
        let refusal = VoteRefusal::OtherHeader { signed: precommit };
        assert_eq!(second, VoteOutcome::Refused(refusal), "one certificate for a height");
        // What was signed ahead after a prevote is released only for the very vote, and only through the guard.
        for (height, wanted) in [(4, 7), (5, 8)] {
            let prevote = vote(&genesis, height, 0, VoteStep::Prevote, 7);
            assert!(matches!(daemon.client.sign_vote(&prevote).unwrap(), VoteOutcome::Signed { .. }));
            let highest = daemon.client.status().unwrap().last_vote.unwrap();
            assert_eq!(highest.to_string(), format!("height {height}, round 0, prevote"));
            let precommit = vote(&genesis, height, 0, VoteStep::Precommit, wanted);
            let VoteOutcome::Signed { signature } = daemon.client.sign_vote(&precommit).unwrap() else {
                panic!()
            };
            Reference.verify(suite, consensus, &digest::vote_bytes(&precommit), &signature).unwrap();
            assert_eq!(daemon.client.status().unwrap().last_precommit.unwrap().header, Hash([wanted; 48]));
        }
        let lower = vote(&genesis, 2, 1, VoteStep::Precommit, 5);
        assert!(matches!(daemon.client.sign_vote(&lower).unwrap(), VoteOutcome::Refused(_)));

        // The row key is a secret that this test knows: it must be nowhere on the disk.
        for file in files_below(lab.folder.path()) {
            let Ok(bytes) = fs::read(&file) else { continue };
            for part in row_key.as_bytes().windows(8) {
                assert!(!bytes.windows(8).any(|window| window == part), "{}", file.display());
            }
        }
    }
}

#[test]
fn signs_nothing_but_what_a_purpose_is_for() {
    let lab = Lab::new();
    let (daemon, keys, genesis) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    let client = &daemon.client;
    for content in [
        tls_content("TLS 1.3, client CertificateVerify", &[1; 48]),
        tls_content("TLS 1.3, server CertificateVerify", &[1; 32]),
        tls_content("TLS 1.3, server CertificateVerify", &[1; 49]),
        tls_content("", &[1; 48]),
        digest::vote_bytes(&vote(&genesis, 9, 0, VoteStep::Prevote, 1)),
        vec![],
    ] {
        assert_eq!(refused(client.sign_tls(&content)).code(), "custody-wrong-content");
    }

    let good = vote(&genesis, 9, 0, VoteStep::Prevote, 1);
    let mut foreign = good.clone();
    foreign.genesis = Hash([0; 48]);
    assert_eq!(refused(client.sign_vote(&foreign)).code(), "custody-wrong-genesis");
    let mut other_suite = good.clone();
    other_suite.suite = SuiteId::Cnsa;
    assert_eq!(refused(client.sign_vote(&other_suite)), CustodyError::WrongSuite { key: SuiteId::Standard });
    let mut height_0 = good.clone();
    height_0.height.0 = 0;
    assert_eq!(refused(client.sign_vote(&height_0)).code(), "custody-wrong-content");
    assert_eq!(client.status().unwrap().last_vote, None, "refused votes take no slot");

    let enroller = key(&keys, KeyPurpose::Enroller).hash;
    let good = invite(&genesis, enroller);
    let revoke = Payload::DeviceRevoke { device: DeviceId([1; 16]), reason: RevokeReason::KeyCompromise };
    let not_invite = Body { payload: revoke, ..good.clone() };
    // The other way round: a revocation is signed by its own request, and nothing else is.
    let signature = client.sign_revocation(&not_invite).unwrap();
    let public = &key(&keys, KeyPurpose::Enroller).public_key;
    cose::verify(&Reference, not_invite.suite, public, labels::BODY, &not_invite.to_bytes(), &signature)
        .unwrap();
    assert_eq!(refused(client.sign_revocation(&good)).code(), "custody-wrong-content");
    let other_author = Body { author: Author::Enroller(Hash([1; 48])), ..good.clone() };
    let no_enroller = Body { author: Author::Invitation(AccountId([1; 16])), ..good.clone() };
    for body in [not_invite, other_author, no_enroller] {
        assert_eq!(refused(client.sign_invite(&body)).code(), "custody-wrong-content");
    }
    let foreign = Body { genesis: Hash([1; 48]), ..good.clone() };
    assert_eq!(refused(client.sign_invite(&foreign)).code(), "custody-wrong-genesis");
    let other_suite = Body { suite: SuiteId::Cnsa, ..good };
    assert_eq!(refused(client.sign_invite(&other_suite)).code(), "custody-wrong-suite");
}

#[test]
fn binds_a_genesis_only_if_it_tells_the_truth_and_only_once() {
    let lab = Lab::new();
    let daemon = lab.start();
    let client = &daemon.client;
    let error = refused(client.provision(SuiteId::Standard, false));
    assert!(error.to_string().contains("software token"), "{error}");
    let keys = client.provision(SuiteId::Standard, true).unwrap();
    let good = genesis(&keys, UnlockMode::Unattended);
    type Lie = fn(&mut Genesis);
    let lies: [(&str, Lie); 7] = [
        ("no validator is this appliance", |g| g.validators[0].appliance.0[0] ^= 1),
        ("consensus key is another", |g| g.validators[0].consensus.0[0] ^= 1),
        ("TLS key is another", |g| g.validators[0].tls.0[0] ^= 1),
        ("signs inside the HSM", |g| g.validators[0].custody = CustodyMode::Token),
        ("enroller key is not among", |g| g.enrollers[0].0[0] ^= 1),
        ("does not allow the suite", |g| g.suites = vec![SuiteId::Cnsa]),
        ("made for a lab", |g| g.lab = false),
    ];
    for (words, lie) in lies {
        let mut lying = good.clone();
        lie(&mut lying);
        let error = refused(client.bind_genesis(&lying.to_bytes()));
        assert!(error.code() == "custody-genesis-refused" && error.to_string().contains(words), "{error}");
    }
    let status = client.status().unwrap();
    assert_eq!((status.state, status.genesis, status.keys.len()), (StateKind::Unprovisioned, None, 4));
    // Keys without a genesis survive a restart.
    daemon.kill();
    let daemon = lab.start();
    let client = &daemon.client;
    assert_eq!(client.status().unwrap().keys, keys);
    let hash = client.bind_genesis(&good.to_bytes()).unwrap();
    assert_eq!(client.bind_genesis(&good.to_bytes()).unwrap(), hash, "the same one again is no error");
    let mut other = good;
    other.nonce = [9; 32];
    assert_eq!(refused(client.bind_genesis(&other.to_bytes())), CustodyError::WrongGenesis { pinned: hash });
}

/// Among several validators another round may decide another header.
#[test]
fn a_validator_with_two_thirds_or_less_may_change_its_precommit() {
    let lab = Lab::new();
    let daemon = lab.start();
    let keys = daemon.client.provision(SuiteId::Standard, true).unwrap();
    let mut genesis = genesis(&keys, UnlockMode::Unattended);
    let mut other = genesis.validators[0].clone();
    (other.appliance, other.consensus, other.tls) =
        (ApplianceId([0xFF; 48]), Hash([0xFE; 48]), Hash([0xFD; 48]));
    genesis.validators[0].stake = 2;
    genesis.validators.push(other);
    daemon.client.bind_genesis(&genesis.to_bytes()).unwrap();
    for (round, value) in [(0, 1), (1, 2)] {
        let outcome = daemon.client.sign_vote(&vote(&genesis, 1, round, VoteStep::Precommit, value)).unwrap();
        assert!(matches!(outcome, VoteOutcome::Signed { .. }), "{outcome:?}");
    }
}

#[test]
fn an_attended_appliance_waits_for_the_pin_and_backs_off_after_wrong_ones() {
    let lab = Lab::new();
    let (daemon, _, genesis) = lab.operational(SuiteId::Standard, UnlockMode::Attended);
    daemon.stop();
    // The PIN file is configured, but the genesis says that a person unlocks.
    let daemon = lab.start();
    let status = daemon.client.status().unwrap();
    assert_eq!((status.state, status.unlock), (StateKind::Locked, UnlockMode::Attended));
    assert!(status.advice.contains("unlock"), "{}", status.advice);
    let wanted = vote(&genesis, 1, 0, VoteStep::Prevote, 1);
    assert_eq!(refused(daemon.client.sign_vote(&wanted)), CustodyError::Locked);
    assert_eq!(refused(daemon.client.unlock(pin("654321"))), CustodyError::PinIncorrect);
    daemon.kill();
    let daemon = lab.start();
    let error = refused(daemon.client.unlock(pin("123456")));
    assert!(matches!(error, CustodyError::PinBackoff { .. }), "also after a restart: {error}");
    std::thread::sleep(Duration::from_millis(1100));
    let unlocked = lab.admin(&["unlock", "--pin-file", lab.path("pin").to_str().unwrap()]);
    assert!(unlocked.status.success(), "{unlocked:?}");
    assert_eq!(stdout(&unlocked), "operational\n");
    assert!(matches!(daemon.client.sign_vote(&wanted).unwrap(), VoteOutcome::Signed { .. }));

    assert_eq!(lab.admin(&["lock"]).status.code(), Some(0));
    let status = lab.admin(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(3));
    assert!(stdout(&status).contains("\"state\": \"locked\""), "{status:?}");
    assert_eq!(refused(daemon.client.unseal_row_key()), CustodyError::Locked);
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
    let text = stdout(&lab.admin(&["status"]));
    assert!(text.contains("SOFTWARE") && text.contains("attended: "), "{text}");
}

#[test]
fn a_wrong_pin_file_is_tried_once() {
    let lab = Lab::new();
    let (daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    daemon.stop();
    fs::write(lab.path("pin"), "654321\n").unwrap();
    let log = {
        let daemon = lab.start();
        assert_eq!(daemon.client.status().unwrap().state, StateKind::Locked);
        daemon.stop()
    };
    assert!(log.contains("the PIN is wrong"), "{log}");
    std::thread::sleep(Duration::from_millis(1100));
    let daemon = lab.start();
    assert!(daemon.client.status().unwrap().reason.starts_with("1 wrong PIN"), "no second try");
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
}

#[test]
fn two_daemons_never_share_a_state() {
    let lab = Lab::new();
    let daemon = lab.start();
    let second = lab.hsmd(&[]);
    assert!(!second.status.success());
    assert!(stderr(&second).contains("another zixt-hsmd uses"), "{second:?}");
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Unprovisioned, "the first one goes on");
}

/// Neither of two that start at the same moment waits for the other or takes its place.
#[test]
fn of_two_daemons_that_start_at_once_one_is_ready_and_the_other_says_why_not() {
    let lab = Lab::new();
    for round in 0..20 {
        let mut started = [(); 2].map(|()| {
            let mut command = lab.command(env!("CARGO_BIN_EXE_zixt-hsmd"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        // Each says that it is ready, or ends, which closes its output.
        let said = started.each_mut().map(|child| {
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            line
        });
        let ready = said.iter().filter(|line| line.starts_with("ready state=")).count();
        assert_eq!(
            (ready, said.iter().filter(|line| line.is_empty()).count()),
            (1, 1),
            "round {round}: {said:?}"
        );
        let (mut first, second) = match started {
            [one, other] if said[1].is_empty() => (one, other),
            [one, other] => (other, one),
        };
        let second = second.wait_with_output().unwrap();
        assert!(
            !second.status.success() && stderr(&second).contains("another zixt-hsmd uses"),
            "round {round}: {second:?}"
        );
        let client = zixt_hsm_protocol::BlockingHsmClient::new(lab.socket());
        assert_eq!(
            client.status().unwrap().state,
            StateKind::Unprovisioned,
            "round {round}: the first one serves"
        );
        first.kill().unwrap();
        first.wait().unwrap();
    }
}

#[test]
fn damaged_lost_and_exchanged_files_are_states_with_advice() {
    let lab = Lab::new();
    let (daemon, _, genesis) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    for height in 1..4 {
        daemon.client.sign_vote(&vote(&genesis, height, 0, VoteStep::Prevote, 1)).unwrap();
    }
    daemon.stop();
    let state = fs::read(lab.state("custody.cbor")).unwrap();
    let votes = fs::read(lab.state("votes")).unwrap();
    copy(&lab.path("tokens"), &lab.path("kept"));
    let outcome = |what: &str| {
        let daemon = lab.start();
        let status = daemon.client.status().unwrap();
        assert!(!status.reason.is_empty() && !status.advice.is_empty(), "{what}: {status:?}");
        let signed = daemon.client.sign_vote(&vote(&genesis, 9, 0, VoteStep::Prevote, 1));
        assert!(matches!(signed, Err(ClientError::Custody(_))), "{what}");
        status.state
    };
    let restore = || {
        fs::write(lab.state("custody.cbor"), &state).unwrap();
        fs::write(lab.state("votes"), &votes).unwrap();
        // A software token goes back with its files, its anchor included.
        fs::remove_dir_all(lab.path("tokens")).unwrap();
        copy(&lab.path("kept"), &lab.path("tokens"));
    };

    fs::write(lab.state("custody.cbor"), &state[..state.len() - 1]).unwrap();
    assert_eq!(outcome("truncated state"), StateKind::Failed);
    // The last byte belongs to the seal.
    let mut edited = state.clone();
    *edited.last_mut().unwrap() ^= 1;
    fs::write(lab.state("custody.cbor"), &edited).unwrap();
    assert_eq!(outcome("edited state"), StateKind::Quarantined);
    fs::remove_file(lab.state("custody.cbor")).unwrap();
    assert_eq!(outcome("lost state"), StateKind::Quarantined);
    restore();
    fs::remove_file(lab.state("votes")).unwrap();
    assert_eq!(outcome("lost votes"), StateKind::Quarantined);
    restore();
    let mut damaged = votes.clone();
    damaged[4096 + 100] ^= 1;
    fs::write(lab.state("votes"), &damaged).unwrap();
    {
        let daemon = lab.start();
        assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational, "one copy is enough");
        assert!(daemon.stop().contains("mending"));
        assert!(fs::read(lab.state("votes")).unwrap() == votes);
    }
    damaged[4096 + 64 * 8192 + 100] ^= 1;
    fs::write(lab.state("votes"), &damaged).unwrap();
    assert_eq!(outcome("damaged votes"), StateKind::Quarantined);
    restore();
    lab.start().stop();
    fs::write(lab.state("custody.cbor"), &state).unwrap();
    assert_eq!(outcome("state alone was set back"), StateKind::Quarantined);
    restore();
    fs::rename(lab.path("tokens"), lab.path("gone")).unwrap();
    fs::create_dir(lab.path("tokens")).unwrap();
    assert_eq!(outcome("token absent"), StateKind::Locked);
    let made = lab.hsmd(&["--lab-init-token", "--so-pin-file", lab.path("so-pin").to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    {
        let daemon = lab.start();
        assert_eq!(daemon.client.status().unwrap().state, StateKind::Locked);
        // Another token with the name of the enrolled one is given no PIN.
        assert_eq!(refused(daemon.client.unlock(pin("123456"))).code(), "custody-wrong-protector");
    }
    fs::remove_dir_all(lab.path("tokens")).unwrap();
    fs::rename(lab.path("gone"), lab.path("tokens")).unwrap();
    let daemon = lab.start();
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational, "nothing was lost");
}

#[test]
fn broken_frames_get_an_error_or_a_closed_connection() {
    let lab = Lab::new();
    let daemon = lab.start();
    let send = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(lab.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // A daemon that has answered and closed may not take the rest.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_frame_blocking(&mut stream).map(|frame| decode::<Response>(&frame).unwrap())
    };
    let framed =
        |payload: &[u8]| [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat();
    let malformed = |answer: Result<Response, FrameError>| {
        assert!(matches!(answer, Ok(Response::Error(CustodyError::Malformed { .. }))), "{answer:?}");
    };
    malformed(send(&framed(b"nonsense")));
    malformed(send(&framed(&vec![0x81; 70_000])));
    malformed(send(&framed(&[0x82, 0x07, 0x82, 0x00, 0x80])));
    malformed(send(&framed(&[0x82, 0x01, 0x82, 0x00, 0x81, 0x00])));
    malformed(send(&framed(&[0x82, 0x01, 0x82, 0x18, 0x63, 0x80])));
    malformed(send(&[0xFF, 0xFF, 0xFF, 0xFF, 0x00]));
    malformed(send(&[0, 0, 0, 0]));
    assert!(send(&[0, 0, 1, 0, 0x82]).is_err(), "a truncated frame has no answer");
    assert!(send(&[0, 0]).is_err());
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Unprovisioned, "it lives on");
    assert!(!daemon.stop().contains("panicked"));
}

#[test]
fn an_absent_daemon_and_a_wrong_configuration_are_explained() {
    let lab = Lab::new();
    let status = lab.admin(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(stderr(&status).contains("Start zixt-hsmd"), "{status:?}");
    lab.configure(true, "serial = \"0\"\n");
    let daemon = lab.start();
    let status = daemon.client.status().unwrap();
    assert!(
        status.reason.contains("serial number \"0\"") && status.advice.contains("hsmd.toml"),
        "{status:?}"
    );
    drop(daemon);
    lab.configure(true, "unknown = 1\n");
    assert!(stderr(&lab.hsmd(&[])).contains("unknown field"));
    lab.configure(true, "");
    fs::set_permissions(lab.path("pin"), Permissions::from_mode(0o644)).unwrap();
    assert!(stderr(&lab.hsmd(&[])).contains("chmod 600"));
}

/// The live half of the policy's test; only root can become somebody else.
#[test]
fn a_user_who_is_not_listed_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        let line = "ZIXT-SKIP: a_user_who_is_not_listed_is_refused: only root can become somebody else\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let lab = Lab::new();
    lab.configure(
        true,
        "[[allow]]\nuid = 0\npurposes = [\"status\"]\n[[allow]]\nuid = 65533\npurposes = [\"tls-server\"]\n",
    );
    let daemon = lab.start();
    // The socket's mode alone would keep them out; here it is the allow-list that has to.
    fs::set_permissions(lab.folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(lab.socket(), Permissions::from_mode(0o666)).unwrap();
    let tool = lab.path("zixt-hsm");
    fs::copy(env!("CARGO_BIN_EXE_zixt-hsm"), &tool).unwrap();
    let socket = lab.socket();
    let run_as = |uid: &str, command: &str| {
        lab.command("setpriv")
            .args(["--reuid", uid, "--clear-groups"])
            .arg(&tool)
            .args([command, "--socket", socket.to_str().unwrap()])
            .output()
            .unwrap()
    };
    for uid in ["65534", "65533"] {
        let output = run_as(uid, "status");
        assert!(
            stderr(&output).contains(&format!("user {uid} is not allowed the purpose status")),
            "{output:?}"
        );
    }
    assert_eq!(run_as("0", "status").status.code(), Some(3), "unprovisioned, but told");
    assert!(stderr(&run_as("0", "lock")).contains("custody-not-allowed"));
    assert!(daemon.stop().contains("user 65534"));
}
