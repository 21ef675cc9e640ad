//! What is where: secrets that officers can open are looked for on the disk and in memory.
//!
//! The test is all three officers at once: from the state file and their shares it opens the root and every seed, as a
//! recovery does, on its own and without asking the daemon. So it knows what to look for, and nothing was built into
//! the daemon to tell it. That looking works is shown where the secret has to be: the unlocked daemon holds the root.

use crate::common::{Lab, Officers, files_below, measure, pin, tls_content, tpm};
use crate::search::{found, memory, recovery_record, secrets};
use crate::swtpm::Swtpm;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use zixt_crypto::digest;
use zixt_hsm_protocol::StateKind;
use zixt_types::{SuiteId, UnlockMode};

#[test]
fn secrets_are_in_the_unlocked_daemon_and_nowhere_else() {
    only_in_the_unlocked_daemon(&Lab::new());
}

#[test]
fn nor_are_they_elsewhere_where_a_tpm_keeps_them() {
    let (swtpm, lab) = (Swtpm::start(), Lab::empty());
    measure(&swtpm, 11);
    lab.configure_with(true, &[&tpm(&swtpm)]);
    only_in_the_unlocked_daemon(&lab);
}

fn only_in_the_unlocked_daemon(lab: &Lab) {
    let officers = Officers::three();
    let (daemon, ..) = lab.operational_by(&officers, UnlockMode::Attended);
    officers.set_recovery(lab, &[]);
    let content = tls_content("TLS 1.3, server CertificateVerify", &[1; 48]);
    let use_it = || (0..20).for_each(|_| drop(daemon.client.sign_tls(&content).unwrap()));
    use_it();
    let state = fs::read(lab.state("custody.cbor")).unwrap();
    let shared = recovery_record(&state);
    let shares: Vec<_> = (0..2)
        .map(|n| {
            let officer = digest::key_hash(SuiteId::Standard, officers.signing(n).public_key());
            shared.share_of(&officer).unwrap().open(officers.opening(n)).unwrap()
        })
        .collect();
    let secrets = secrets(&state, &shares);
    let on_disk = |when: &str| {
        for file in files_below(lab.folder.path()) {
            let Ok(bytes) = fs::read(&file) else { continue };
            assert_eq!(found(&bytes, &secrets), [""; 0], "{when}: {}", file.display());
        }
    };
    on_disk("unlocked");
    let pid = daemon.child.id();
    if nix::unistd::geteuid().is_root() {
        assert!(
            found(&memory(pid).unwrap(), &secrets).contains(&"root".to_owned()),
            "the search finds nothing"
        );
        daemon.client.lock().unwrap();
        assert_eq!(found(&memory(pid).unwrap(), &secrets), [""; 0], "locked");
        assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
        use_it();
        daemon.client.lock().unwrap();
        assert_eq!(found(&memory(pid).unwrap(), &secrets), [""; 0], "locked again");
    } else {
        // Not even its own user may look into it; so neither can this test.
        assert!(memory(pid).is_err());
        let line =
            "ZIXT-SKIP: secrets_are_in_the_unlocked_daemon_and_nowhere_else: only root reads its memory\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    on_disk("locked");
    assert_eq!(daemon.client.unlock(pin("123456")).unwrap(), StateKind::Operational);
}

/// The kernel gives what is in /proc of a process that may be dumped to its user, and otherwise to root: nobody who merely
/// runs as the daemon's user attaches to it or reads its memory. As root the daemon is started as somebody else, because
/// of root's own processes this cannot be told.
#[test]
fn its_own_user_does_not_look_into_it() {
    let lab = Lab::new();
    let program = |program: &str| {
        let own = nix::unistd::geteuid();
        if !own.is_root() {
            return (lab.command(program), own.as_raw());
        }
        let copy = lab.path("program");
        fs::copy(program, &copy).unwrap();
        let uid = 65_533;
        let given = std::process::Command::new("chown")
            .arg("-R")
            .arg(uid.to_string())
            .arg(lab.folder.path())
            .status();
        assert!(given.unwrap().success());
        let mut command = lab.command("setpriv");
        command.args(["--reuid", &uid.to_string(), "--clear-groups"]).arg(copy);
        (command, uid)
    };
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    // What may be dumped shows what would be seen.
    let (mut sleep, uid) = program("/bin/sleep");
    let mut sleep = sleep.arg("600").spawn().unwrap();
    // Between fork and the program itself it is this test, then setpriv.
    let began = std::time::Instant::now();
    while owner(sleep.id()) != uid {
        assert!(began.elapsed().as_secs() < 60, "it is seen that a program may be dumped");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    let daemon = lab.start_by(program(env!("CARGO_BIN_EXE_zixt-hsmd")).0);
    assert_eq!(daemon.client.status().unwrap().state, StateKind::Unprovisioned);
    assert_eq!(owner(daemon.child.id()), 0);
}

#[test]
fn a_crash_leaves_no_core_and_the_process_has_given_up_what_it_does_not_need() {
    let lab = Lab::new();
    let (mut daemon, ..) = lab.operational(SuiteId::Standard, UnlockMode::Unattended);
    let pid = daemon.child.id();
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = of("status");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!((value("NoNewPrivs"), value("Seccomp")), ("1".to_owned(), "2".to_owned()));
    assert_ne!(value("VmLck"), "0 kB", "memory is locked");
    let core = of("limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGABRT).unwrap();
    let ended = daemon.child.wait().unwrap();
    assert!(ended.signal().is_some() && !ended.core_dumped(), "{ended:?}");
}
