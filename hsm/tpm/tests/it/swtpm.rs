//! A real TPM 2.0 simulator of one test: own state, own ports.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zixt_tpm::Tpm;

/// Tries to start it: another process may take the free ports in between.
const STARTS_MAX: usize = 20;

pub struct Swtpm {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Swtpm {
    /// Manufactures a TPM, with an endorsement key and its certificate, and starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        std::fs::create_dir(&config).unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        // The local CA's files and its configuration stay in the test's folder.
        run(&config, &["--create-config-files", "overwrite,root"]);
        let state_argument = state.display().to_string();
        run(&config, &["--tpm2", "--tpmstate", &state_argument, "--ecc", "--create-ek-cert", "--lock-nvram"]);
        let (port, process) = launch(&state);
        Self { folder, port, process }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tcti(&self) -> String {
        tcti(self.port)
    }

    pub fn tpm(&self) -> Tpm {
        Tpm::new(&self.tcti()).unwrap()
    }

    /// Pulls the plug.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Powers it on again, with the state that it had. Registers start anew, as after a boot.
    pub fn power_on(&mut self) {
        (self.port, self.process) = launch(&self.folder.path().join("state"));
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program that gets none of this process's open files. The software stack opens its sockets without close-on-exec, so
/// a program that another test starts just then would keep them open, and the simulator would wait for its client to go.
pub fn program(name: &str) -> Command {
    const CLOSE_AND_RUN: &str = r#"
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || eval "exec $fd>&-"
        done
        exec "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE_AND_RUN, "bash", name]);
    command
}

pub fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

fn run(config: &Path, arguments: &[&str]) {
    let output = program("swtpm_setup")
        .env("XDG_CONFIG_HOME", config)
        .args(arguments)
        .output()
        .expect("swtpm_setup starts (Debian: swtpm-tools)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "swtpm_setup {arguments:?}: {text} {output:?}");
}

/// Two free ports, one after the other: the TCTI expects the control channel beside the data channel.
pub fn free_ports() -> (TcpListener, TcpListener) {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Some(next) = port.checked_add(1)
            && let Ok(second) = TcpListener::bind(("127.0.0.1", next))
        {
            return (first, second);
        }
    }
}

fn launch(state: &Path) -> (u16, Child) {
    for _ in 0..STARTS_MAX {
        let (data, control) = free_ports();
        let port = data.local_addr().unwrap().port();
        drop((data, control));
        let mut process = program("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", state.display())])
            .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
            .args(["--ctrl", &format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm starts (Debian: swtpm)");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
                return (port, process);
            }
            if process.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = process.kill();
        let _ = process.wait();
    }
    panic!("swtpm does not start");
}
