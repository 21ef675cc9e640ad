//! The parser's process: what it can no longer do, and what becomes of one that does not answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::saml::{NOW_MS, document};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zixt_sso::saml::{
    Config, LogoutMessage, MEMORY_BYTES_MAX, ProcessError, Refusal, ServiceProvider, confine,
};
use zixt_types::Timestamp;

const CONFINED: &str = "ZIXT_TEST_SAML_CONFINED";

/// The test runs itself again as that process: confinement is for ever.
#[test]
fn a_confined_process_opens_starts_and_reaches_nothing() {
    if std::env::var_os(CONFINED).is_none() {
        let this = "a_confined_process_opens_starts_and_reaches_nothing";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([this, "--exact", "--nocapture", "--test-threads=1"])
            .env(CONFINED, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("confined"), "{said}{output:?}");
        return;
    }
    let mut open_before = std::fs::File::open("/etc/passwd").unwrap();
    confine().unwrap();
    let mut byte = [0];
    assert_eq!(open_before.read(&mut byte).unwrap(), 1, "what is open can be read: nothing secret may be");
    assert!(std::fs::File::open("/etc/passwd").is_err());
    assert!(std::fs::read_dir("/").is_err());
    assert!(std::fs::write("/tmp/zixt-saml-confined", "x").is_err());
    assert!(Command::new("/bin/true").spawn().is_err());
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "no second thread");
    for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Unix] {
        assert_eq!(socket(family, SockType::Stream, SockFlag::empty(), None).unwrap_err(), Errno::EPERM);
    }
    assert_eq!(nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None), Err(Errno::EPERM));
    let mut long: Vec<u8> = Vec::new();
    assert!(long.try_reserve_exact(usize::try_from(MEMORY_BYTES_MAX).unwrap()).is_err(), "bounded memory");
    println!("confined");
    // The harness would go on in ways that are no longer open.
    std::process::exit(0);
}

#[test]
fn it_reads_one_question_and_nothing_that_is_too_long() {
    let ask = |input: &[u8]| {
        let mut child = Command::new(lab::saml::program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended before it has read everything.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let question = "zixt-saml: this is no question\n".to_owned();
    assert_eq!(ask(b"\0\0\0\x04\xff\xff\xff\xff"), (Some(1), question.clone()));
    assert_eq!(ask(b"\0\0\0\0"), (Some(1), question.clone()));
    assert_eq!(ask(b"\xff\xff\xff\xff"), (Some(1), question));
    assert_eq!(ask(b"").0, Some(1));
}

/// A program. It is copied into its place by another process: this one starts others meanwhile, which could hold the
/// file open for writing, and then it could not be started.
fn script(folder: &Path, text: &str) -> PathBuf {
    let (source, path) = (folder.join("source"), folder.join("parser"));
    std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copied = Command::new("cp").arg("--remove-destination").args([&source, &path]).status().unwrap();
    assert!(copied.success());
    path
}

async fn ask(program: &Path) -> Result<String, Refusal> {
    let service = ServiceProvider::new(Config::new(&document()).unwrap(), None, program.to_owned());
    service.metadata(Timestamp(NOW_MS)).await
}

#[tokio::test]
async fn a_parser_that_does_not_answer_well_signs_nobody_in() {
    assert!(ask(&lab::saml::program()).await.unwrap().contains("EntityDescriptor"));
    let folder = tempfile::tempdir().unwrap();
    let missing = ask(&folder.path().join("nothing")).await;
    assert!(matches!(missing, Err(Refusal::Process(ProcessError::Start(_)))), "{missing:?}");
    for (text, answers) in [
        ("exit 0", false),
        ("exec cat", true),
        ("kill -SEGV $$", false),
        // An answer of four gigabytes, of three bytes too few, and of no meaning.
        ("cat >/dev/null; printf '\\377\\377\\377\\377'", true),
        ("cat >/dev/null; printf '\\000\\000\\000\\004x'", false),
        ("cat >/dev/null; printf '\\000\\000\\000\\004xxxx'", true),
    ] {
        let refused = ask(&script(folder.path(), text)).await;
        match refused {
            Err(Refusal::Process(ProcessError::Answer)) => assert!(answers, "{text}"),
            Err(Refusal::Process(ProcessError::Ended)) => assert!(!answers, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    // A good answer from a process that fails after it is none.
    let program = lab::saml::program();
    let failing = format!("{}\nexit 3", program.display());
    let refused = ask(&script(folder.path(), &failing)).await;
    assert!(matches!(refused, Err(Refusal::Process(ProcessError::Ended))), "{refused:?}");
}

#[tokio::test]
async fn a_parser_that_hangs_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let program =
        script(folder.path(), &format!("echo $$ >{}.new; mv {0}.new {0}; exec sleep 3600", pid.display()));
    let service = ServiceProvider::new(Config::new(&document()).unwrap(), None, program);
    let asking = tokio::spawn(async move { service.metadata(Timestamp(NOW_MS)).await });
    while !pid.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let pid = std::fs::read_to_string(pid).unwrap();
    // From here on time does not pass but jumps to the time-out.
    tokio::time::pause();
    let refused = asking.await.unwrap();
    assert!(matches!(refused, Err(Refusal::Process(ProcessError::Slow))), "{refused:?}");
    tokio::time::resume();
    let process = format!("/proc/{}/stat", pid.trim());
    // Gone, or dead and about to be waited for.
    let alive = || std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn strangers_wait_for_nobody_and_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    // A logout request hangs the first process; all others go on.
    let text = format!(
        "if mkdir {} 2>/dev/null; then exec sleep 3600; fi; exec {}",
        started.display(),
        lab::saml::program().display()
    );
    let config = Config::new(&document()).unwrap();
    let service = ServiceProvider::new(config, Some(lab::saml::key()), script(folder.path(), &text));
    let service = std::sync::Arc::new(service);
    let message = || LogoutMessage::from_query("SAMLRequest=AA&SigAlg=x&Signature=x").unwrap();
    let hanging = std::sync::Arc::clone(&service);
    let first =
        tokio::spawn(async move { hanging.logout(&message(), &|| Timestamp(NOW_MS)).await.map(drop) });
    while !started.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let second = service.logout(&message(), &|| Timestamp(NOW_MS)).await;
    assert!(matches!(second, Err(Refusal::Process(ProcessError::Busy))), "{second:?}");
    assert!(service.metadata(Timestamp(NOW_MS)).await.is_ok());
    first.abort();
    drop(first.await);
    let third = service.logout(&message(), &|| Timestamp(NOW_MS)).await;
    assert!(matches!(third, Err(Refusal::Message(_))), "{third:?}");
}
