//! What the end-to-end tests share: a whole appliance on loopback, made of the real programs, and the `zixt` program in
//! a person's hands. Every appliance has folders, a token and a port of its own and goes away with its value.
#![expect(clippy::expect_used, clippy::panic, reason = "test support: a failure here is a failed test")]

pub mod browser;
pub mod copy;
pub mod custody;
pub mod officers;
pub mod people;
pub mod story;
/// The same TPM simulator that the TPM backend's own tests start.
#[allow(dead_code, clippy::unwrap_used, reason = "test support; those tests use more of it")]
#[path = "../../hsm/tpm/tests/it/swtpm.rs"]
mod swtpm;
pub mod terminal;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a program may take for what normally takes a second. Machines under load are slow; a test that waits for
/// this has failed in any case.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The PKCS#11 module of the tests' tokens.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The passphrase of all stores of the tests.
pub const PASSPHRASE: &str = "a passphrase of the tests";

/// Whether the long variants of tests are asked for (`make test-full`).
#[must_use]
pub fn full() -> bool {
    std::env::var_os("ZIXT_TEST_FULL").is_some_and(|value| value == "1")
}

/// One of our programs, as built beside this test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("the path of this program");
    while folder.pop() {
        let candidate = folder.join(name);
        if candidate.is_file() {
            return candidate;
        }
    }
    panic!("{name} is not built; `make test` builds all programs before the tests");
}

/// A whole appliance.
pub struct Appliance {
    folder: TempDir,
    listen: SocketAddr,
    hsmd: Option<Child>,
    zixtd: Option<Child>,
    profile: Option<PathBuf>,
    tpm: Option<swtpm::Swtpm>,
    token: bool,
}

impl Appliance {
    /// A new lab appliance that runs.
    #[must_use]
    pub fn lab() -> Self {
        Self::lab_with(&[])
    }

    /// A new lab appliance that runs, with more arguments for `zixt-provision lab`.
    #[must_use]
    pub fn lab_with(arguments: &[&str]) -> Self {
        Self::lab_of(None, arguments)
    }

    /// A new lab appliance of programs from another folder (a release build, in benchmarks).
    #[must_use]
    pub fn lab_of(programs: Option<PathBuf>, arguments: &[&str]) -> Self {
        let mut appliance = Self::bare(programs, true, false);
        appliance.provision(arguments);
        appliance
    }

    /// A new lab appliance that runs, with its keys sealed in a TPM simulator and no token.
    #[must_use]
    pub fn lab_on_tpm() -> Self {
        let mut appliance = Self::bare(None, false, true);
        appliance.provision(&[]);
        appliance
    }

    /// A machine whose custody runs, with these devices and without keys. Its TPM has measured what it started.
    #[must_use]
    pub fn bare(programs: Option<PathBuf>, token: bool, tpm: bool) -> Self {
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .expect("a free port");
        let folder = tempfile::Builder::new().prefix("zixt-").tempdir().expect("a folder");
        let tpm = tpm.then(|| {
            let swtpm = swtpm::Swtpm::start();
            // By a program: this process must not have a socket to the simulator when it starts others.
            let measured = swtpm::program("tpm2_pcrextend")
                .args(["-T", &swtpm.tcti()])
                .args(["7", "11"].map(|register| format!("{register}:sha256={}", "5a".repeat(32))))
                .output()
                .expect("tpm2_pcrextend runs (Debian: tpm2-tools)");
            assert!(measured.status.success(), "{}", text(&measured));
            swtpm
        });
        let mut appliance = Self { folder, listen, hsmd: None, zixtd: None, profile: programs, tpm, token };
        appliance.write_configuration();
        if token {
            let so_pin = appliance.state().join("lab/so-pin");
            appliance.checked(
                appliance
                    .command("zixt-hsmd")
                    .args(["--config".as_ref(), appliance.hsmd_config().as_os_str()])
                    .args(["--lab-init-token", "--so-pin-file"])
                    .arg(so_pin),
            );
        }
        appliance.start_hsmd();
        appliance
    }

    /// Makes the keys and the network of a bare machine, and starts the server.
    pub fn provision(&mut self, arguments: &[&str]) {
        self.checked(
            self.command("zixt-provision")
                .args(["lab".as_ref(), "--state".as_ref(), self.state().as_os_str()])
                .args(["--hsmd".as_ref(), self.hsmd_socket().as_os_str()])
                .args(arguments),
        );
        self.start_zixtd();
    }

    fn write_configuration(&self) {
        let (state, run) = (self.state(), self.run());
        for folder in [&run, &state.join("custody"), &state.join("server"), &state.join("lab/tokens")] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let tokens = state.join("lab/tokens");
        let softhsm = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(state.join("lab/softhsm2.conf"), softhsm).expect("a write");
        let pin = state.join("lab/pin");
        let mut hsmd = format!(
            "state = {:?}\nsocket = {:?}\npin_file = {pin:?}\n",
            state.join("custody"),
            self.hsmd_socket(),
        );
        if self.token {
            hsmd += &format!(
                "[[token]]\nmodule = {SOFTHSM:?}\nlabel = \"zixt-lab\"\nread = [{:?}]\nwrite = [{tokens:?}]\n",
                state.join("lab/softhsm2.conf"),
            );
        } else {
            fs::write(&pin, "a PIN of the tests\n").expect("a write");
            fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("its mode");
        }
        if let Some(tpm) = &self.tpm {
            hsmd += &format!("[tpm]\ntcti = {:?}\n", tpm.tcti());
        }
        fs::write(self.hsmd_config(), hsmd).expect("a write");
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder of the sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The appliance's own temporary folder, for whatever a test keeps beside it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Listens where another appliance did, whose people look for it there.
    pub fn listen_at(&mut self, address: SocketAddr) {
        self.listen = address;
    }

    /// The custody daemon's socket.
    #[must_use]
    pub fn hsmd_socket(&self) -> PathBuf {
        self.run().join("hsmd.sock")
    }

    /// The custody daemon's configuration.
    #[must_use]
    pub fn hsmd_config(&self) -> PathBuf {
        self.state().join("lab/hsmd.toml")
    }

    /// Process ids of zixtd and zixt-hsmd.
    #[must_use]
    pub fn pids(&self) -> (Option<u32>, Option<u32>) {
        (self.zixtd.as_ref().map(Child::id), self.hsmd.as_ref().map(Child::id))
    }

    /// One of our programs with this appliance's environment.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let path = match &self.profile {
            Some(folder) => folder.join(name),
            None => program(name),
        };
        let mut command = Command::new(path);
        command
            .env("SOFTHSM2_CONF", self.state().join("lab/softhsm2.conf"))
            .env("ZIXT_PASSPHRASE", PASSPHRASE)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null());
        command
    }

    /// Starts the custody daemon and waits until it answers.
    pub fn start_hsmd(&mut self) {
        let log = self.log("zixt-hsmd.log");
        let child = self
            .command("zixt-hsmd")
            .arg("--config")
            .arg(self.hsmd_config())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("zixt-hsmd starts");
        self.hsmd = Some(child);
        self.until("zixt-hsmd answers", || {
            let answer = self
                .command("zixt-hsm")
                .arg("--socket")
                .arg(self.hsmd_socket())
                .args(["status", "--json"])
                .output()
                .expect("zixt-hsm runs");
            // 3: it answers, but is not operational (a lab that has no keys yet).
            matches!(answer.status.code(), Some(0 | 3))
        });
    }

    /// Starts the server and waits until it is healthy.
    pub fn start_zixtd(&mut self) {
        self.spawn_zixtd();
        self.until("zixtd is healthy", || self.admin(&["status", "--json"]).status.success());
    }

    /// Starts the server without waiting.
    pub fn spawn_zixtd(&mut self) {
        let log = self.log("zixtd.log");
        let child = self
            .command("zixtd")
            .args(["--state".as_ref(), self.state().as_os_str()])
            .args(["--run".as_ref(), self.run().as_os_str()])
            .args(["--hsmd".as_ref(), self.hsmd_socket().as_os_str()])
            .args(["--listen", &self.listen.to_string()])
            .envs(self.config_file().exists().then(|| ("ZIXTD_CONFIG", self.config_file())))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("zixtd starts");
        self.zixtd = Some(child);
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("zixtd.toml")
    }

    /// What the server is configured with from its next start on.
    pub fn configure(&self, toml: &str) {
        fs::write(self.config_file(), toml).expect("a configuration");
    }

    fn log(&self, name: &str) -> fs::File {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(name))
            .expect("a log file")
    }

    /// What a daemon has logged so far.
    #[must_use]
    pub fn logged(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Runs `zixt-admin` with the right folders.
    #[must_use]
    pub fn admin(&self, arguments: &[&str]) -> Output {
        let (first, rest) = arguments.split_first().expect("a command");
        let mut command = self.command("zixt-admin");
        command.arg(first);
        if *first == "fsck" {
            command.arg("--state").arg(self.state());
        } else {
            command.arg("--run").arg(self.run());
        }
        if ["invite", "fsck"].contains(first) {
            command.arg("--hsmd").arg(self.hsmd_socket());
        }
        command.args(rest).output().expect("zixt-admin runs")
    }

    /// An invitation's text for a new account.
    #[must_use]
    pub fn invite(&self, name: &str) -> String {
        let output = self.admin(&["invite", name, "--json"]);
        assert!(output.status.success(), "invite {name}: {}", text(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["invitation"].as_str().expect("an invitation").to_owned()
    }

    /// A person with a store of its own, enrolled.
    #[must_use]
    pub fn person(&self, name: &str) -> Person<'_> {
        let invitation = self.invite(name);
        let person = Person {
            appliance: self,
            name: name.to_owned(),
            store: self.folder.path().join("people").join(name),
        };
        person.must(&["enrol", &invitation]);
        person
    }

    /// Checks the whole store offline; the server must not run.
    pub fn fsck(&self) {
        let output = self.admin(&["fsck"]);
        assert!(output.status.success(), "fsck: {}", text(&output));
    }

    /// Kills the server at once, as a power cut would.
    pub fn kill_zixtd(&mut self) {
        kill_now(&mut self.zixtd);
    }

    /// Kills the custody daemon at once.
    pub fn kill_hsmd(&mut self) {
        kill_now(&mut self.hsmd);
    }

    /// Asks the server to stop and waits.
    pub fn stop_zixtd(&mut self) {
        stop(&mut self.zixtd, "zixtd");
    }

    /// Asks the custody daemon to stop and waits.
    pub fn stop_hsmd(&mut self) {
        stop(&mut self.hsmd, "zixt-hsmd");
    }

    /// Waits until `condition` holds.
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(
                start.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}\n--- zixtd\n{}\n--- zixt-hsmd\n{}",
                self.logged("zixtd.log"),
                self.logged("zixt-hsmd.log")
            );
            sleep(Duration::from_millis(20));
        }
    }

    /// Runs a program, which has to succeed, and gives back what it printed.
    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `zixt-hsm`, which has to succeed.
    pub fn hsm(&self, arguments: &[&str]) -> String {
        let config = self.hsmd_config();
        let config = config.to_str().expect("text");
        self.must("zixt-hsm", &[&["--config", config], arguments].concat())
    }

    fn checked(&self, command: &mut Command) {
        let output = command.output().expect("the program runs");
        assert!(output.status.success(), "{command:?}: {}", text(&output));
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- zixtd\n{}", tail(&self.logged("zixtd.log")));
            eprintln!("--- zixt-hsmd\n{}", tail(&self.logged("zixt-hsmd.log")));
        }
        kill_now(&mut self.zixtd);
        kill_now(&mut self.hsmd);
    }
}

/// A person at a terminal: the `zixt` program with a store.
pub struct Person<'a> {
    /// The appliance.
    pub appliance: &'a Appliance,
    /// The name in the directory.
    pub name: String,
    /// The store's folder.
    pub store: PathBuf,
}

impl Person<'_> {
    /// `zixt` with this person's store.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.appliance.command("zixt");
        command.arg("--store").arg(&self.store);
        command
    }

    /// Runs `zixt`.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("zixt runs")
    }

    /// Runs `zixt`, which has to succeed, and gives back what it printed.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{} {arguments:?}: {}", self.name, text(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `zixt --json`, which has to succeed, and gives back the document.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend_from_slice(arguments);
        serde_json::from_str(&self.must(&all)).expect("JSON")
    }

    /// Runs `zixt`, which has to fail with this exit code, and gives back what it said.
    #[must_use]
    pub fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{} {arguments:?}: {}", self.name, text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// The processes that have this path on their command line, with that line. A test's temporary folder is on no other
/// process's, so these are the test's own.
#[must_use]
pub fn processes_of(path: &Path) -> Vec<(Pid, String)> {
    let path = path.to_str().expect("text");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("the processes") {
        let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok()) else {
            continue;
        };
        // One that ended meanwhile has none.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(path) {
            found.push((Pid::from_raw(pid), line));
        }
    }
    found
}

/// Both outputs of a program, for messages.
#[must_use]
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Kills a process at once and waits for it.
pub fn kill_now(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _gone_already = child.kill();
        let _reaped = child.wait();
    }
}

fn stop(child: &mut Option<Child>, name: &str) {
    let Some(mut child) = child.take() else { return };
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let _gone_already = kill(pid, Signal::SIGTERM);
    let start = Instant::now();
    loop {
        match child.try_wait().expect("its status") {
            Some(status) => {
                assert!(status.success(), "{name} ended with {status}");
                return;
            }
            None if start.elapsed() > PATIENCE => panic!("{name} does not stop"),
            None => sleep(Duration::from_millis(20)),
        }
    }
}

fn tail(log: &str) -> &str {
    log.char_indices().rev().nth(6_000).map_or(log, |(start, _)| &log[start..])
}

/// Reads lines of a child's output until one satisfies `wanted`.
///
/// # Panics
/// The output ends before.
pub fn line_until(child: &mut Child, mut wanted: impl FnMut(&str) -> bool) -> String {
    let mut reader = BufReader::new(child.stdout.as_mut().expect("its output"));
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).expect("a line") == 0 {
            let mut rest = String::new();
            if let Some(stderr) = child.stderr.as_mut() {
                let _best_effort = stderr.read_to_string(&mut rest);
            }
            panic!("the program ended: {rest}");
        }
        if wanted(&line) {
            return line;
        }
    }
}
