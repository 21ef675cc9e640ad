//! Real directories for tests and measurements, started on free ports of the loopback and stopped on drop.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a failure is a failed test; a peer that cannot be started is one"
)]

pub mod certificates;
pub mod samba;
pub mod slapd;

use std::net::TcpListener;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// How long a peer may take until it answers, on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A port that nobody had a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Runs a program to its end, and fails with all that it said if it does.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}. scripts/install-deps.sh --test installs what is needed")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Waits until `ready` says so. `false` if the program ended before.
pub fn wait_until(child: &mut Child, mut ready: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if ready() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not ready after {PATIENCE:?}");
}
