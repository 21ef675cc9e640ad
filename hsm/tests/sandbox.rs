//! What a confined process can no longer do. The test runs itself again as that process: confinement is for ever.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a failure is a failed test")]

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use std::io::{ErrorKind, IoSliceMut};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use zixt_hsm::sandbox::{Confinement, Needs, confine};

const FOLDER: &str = "ZIXT_TEST_SANDBOX";

#[test]
fn a_confined_process_reads_writes_and_starts_only_what_it_may() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        let folder = tempfile::tempdir().unwrap();
        for name in ["allowed", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("other/secret"), "secret").unwrap();
        std::fs::write(folder.path().join("settings"), "settings").unwrap();
        let this = "a_confined_process_reads_writes_and_starts_only_what_it_may";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([this, "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("confined"), "{said}{output:?}");
        return;
    };

    nix::sys::prctl::set_no_new_privs().unwrap();
    let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    let needs =
        Needs { read: vec![folder.join("settings")], write: vec![folder.join("allowed")], network: false };
    let mut open_before = std::fs::File::open(folder.join("other/secret")).unwrap();
    let confinement = confine(&needs).unwrap();

    // What it may.
    assert_eq!(std::fs::read(folder.join("settings")).unwrap(), b"settings");
    std::fs::write(folder.join("allowed/new"), "x").unwrap();
    std::fs::rename(folder.join("allowed/new"), folder.join("allowed/newer")).unwrap();
    std::fs::remove_file(folder.join("allowed/newer")).unwrap();
    assert!(std::fs::read("/etc/passwd").is_ok());
    assert!(std::thread::spawn(|| std::fs::read("/etc/passwd")).join().unwrap().is_ok());

    // What it may not: also from a thread that is started later.
    std::thread::spawn(move || {
        assert!(denied(Command::new("/bin/true").spawn().unwrap_err()));
        // By the C library's fork; a child would go on here, and fail.
        assert_eq!(nix::unistd::daemon(true, true), Err(Errno::EPERM));
        let inet = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None);
        assert_eq!(inet.unwrap_err(), Errno::EPERM);
        assert!(denied(TcpListener::bind("127.0.0.1:0").unwrap_err()));
        let (parent, mut byte) = (nix::unistd::getppid(), [0]);
        let there = RemoteIoVec { base: 4096, len: 1 };
        let read = process_vm_readv(parent, &mut [IoSliceMut::new(&mut byte)], &[there]);
        assert_eq!(read.unwrap_err(), Errno::EPERM);
        if confinement == Confinement::SystemCallsOnly {
            println!("this kernel has no Landlock");
            return;
        }
        assert!(denied(std::fs::read(folder.join("other/secret")).unwrap_err()));
        assert!(denied(std::fs::read_dir(&folder).unwrap_err()));
        assert!(denied(std::fs::write(folder.join("other/new"), "x").unwrap_err()));
        assert!(denied(std::fs::write(folder.join("settings"), "x").unwrap_err()));
        assert!(denied(std::fs::write("/etc/zixt-sandbox", "x").unwrap_err()));
        assert!(denied(std::os::unix::fs::symlink("/etc/passwd", folder.join("allowed/link")).unwrap_err()));
    })
    .join()
    .unwrap();
    // What was open stays open: nothing secret may be open before.
    assert!(std::io::Read::read(&mut open_before, &mut [0; 6]).is_ok());
    println!("confined: {confinement:?}");
}
