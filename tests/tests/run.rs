//! `make run` as a new user meets it: scripts/run.sh with the programs as built, and exactly the commands that it prints,
//! typed into two terminals.
#![allow(clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zixt_tests::terminal::Terminal;
use zixt_tests::{PATIENCE, processes_of, program, text};

const PASSPHRASE: &str = "four words that nobody guesses";

/// A machine on which somebody types `make run`: a folder for its data, a port, and the script while it runs.
struct Machine {
    folder: TempDir,
    listen: String,
    script: Option<Child>,
}

impl Machine {
    fn new() -> Self {
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let folder = tempfile::Builder::new().prefix("zixt-run-").tempdir().expect("a folder");
        Self { folder, listen: listen.expect("a free port").to_string(), script: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the script as a terminal would: in a process group of its own, which gets its Ctrl-C.
    fn spawn(&mut self, custody: &str) {
        let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the crate"));
        let root = root.parent().expect("the repository").to_owned();
        let output = fs::File::create(self.path("output")).expect("a file");
        // Tests that were started in the background ignore SIGINT, and a shell cannot trap what it was told to ignore.
        let script = Command::new("env")
            .args(["--default-signal=INT", "bash", "scripts/run.sh"])
            .current_dir(root)
            .env("ZIXT_PROGRAMS", program("zixtd").parent().expect("its folder"))
            .env("ZIXT_STATE", self.path("state"))
            .env("ZIXT_RUN", self.path("run"))
            .env("ZIXT_LISTEN", &self.listen)
            .env("ZIXT_CUSTODY", custody)
            .env_remove("SOFTHSM2_CONF")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("bash runs");
        self.script = Some(script);
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// Starts the script and waits until it says how to stop it, which it says last. Gives back what it printed.
    fn start(&mut self, custody: &str) -> String {
        self.spawn(custody);
        let start = Instant::now();
        while !self.printed().contains("Ctrl-C stops it.") {
            let script = self.script.as_mut().expect("it was started");
            if let Some(status) = script.try_wait().expect("its status") {
                panic!("run.sh ended with {status}:\n{}", self.told());
            }
            assert!(start.elapsed() < PATIENCE * 2, "run.sh does not get ready:\n{}", self.told());
            sleep(Duration::from_millis(50));
        }
        self.printed()
    }

    /// Presses Ctrl-C and waits for the end.
    fn interrupt(&mut self) {
        let pid = self.script.as_ref().expect("it runs").id();
        killpg(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGINT).expect("a signal");
        let status = self.wait();
        let printed = self.printed();
        assert_eq!(status.code(), Some(0), "{}", self.told());
        assert!(printed.contains("Stopped. Everything is kept in"), "{}", self.told());
        assert_eq!(self.daemons(), [""; 0], "still there:\n{}", self.told());
    }

    fn wait(&mut self) -> ExitStatus {
        let mut script = self.script.take().expect("it runs");
        let start = Instant::now();
        loop {
            if let Some(status) = script.try_wait().expect("its status") {
                return status;
            }
            if start.elapsed() > PATIENCE {
                self.script = Some(script);
                panic!("run.sh does not end:\n{}", self.told());
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Which of the appliance's programs run, whatever people have open.
    fn daemons(&self) -> Vec<String> {
        let name = |line: &str| {
            let path = Path::new(line.split(' ').next().unwrap_or_default());
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let running = processes_of(self.folder.path());
        running.iter().map(|(_, line)| name(line)).filter(|name| name != "zixt").collect()
    }

    /// Everything that says why something went wrong.
    fn told(&self) -> String {
        let log = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!(
            "--- run.sh\n{}\n--- zixtd\n{}\n--- zixt-hsmd\n{}\n--- processes\n{:?}",
            self.printed(),
            log("run/zixtd.log"),
            log("run/zixt-hsmd.log"),
            processes_of(self.folder.path())
        )
    }

    /// Runs a printed command as a person pastes it, in a folder where what it writes disturbs nobody.
    fn paste(&self, command: &str) -> Output {
        Command::new("bash")
            .args(["-c", command])
            .current_dir(self.folder.path())
            .env("ZIXT_PASSPHRASE", PASSPHRASE)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// [`Machine::paste`], which has to succeed.
    fn must(&self, command: &str) -> String {
        let output = self.paste(command);
        assert!(output.status.success(), "{command}: {}\n{}", text(&output), self.told());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A terminal that is opened in the folder of [`Machine::paste`]. Passphrases are typed.
    fn terminal(&self) -> Terminal {
        let terminal = Terminal::open((100, 30), &[]);
        terminal.enter(&format!("cd {}; unset ZIXT_PASSPHRASE; clear", self.folder.path().display()));
        terminal
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut script) = self.script.take() {
            let _gone_already = script.kill();
            let _reaped = script.wait();
        }
        for (pid, _) in processes_of(self.folder.path()) {
            let _gone_already = kill(pid, Signal::SIGKILL);
        }
    }
}

/// The printed command that has these words, whole and once.
fn command<'a>(printed: &'a str, words: &str) -> &'a str {
    let mut found = printed.lines().filter(|line| line.starts_with("    ") && line.contains(words));
    let line = found.next().unwrap_or_else(|| panic!("no command with '{words}' is printed:\n{printed}"));
    assert_eq!(found.next(), None, "two commands with '{words}':\n{printed}");
    line.trim()
}

/// Types a printed command of a person, and the passphrase where it is asked for.
fn enter(terminal: &Terminal, command: &str, asks: &[&str]) {
    terminal.enter(command);
    for prompt in asks {
        terminal.sees(prompt);
        terminal.enter(PASSPHRASE);
    }
}

#[test]
fn a_new_user_follows_what_run_prints() {
    let mut machine = Machine::new();
    let printed = machine.start("");
    assert!(printed.contains("THIS IS A LAB") && printed.contains("software token (SoftHSM)"), "{printed}");
    let daemons = machine.daemons();
    assert!(["zixt-hsmd", "zixtd"].iter().all(|name| daemons.iter().any(|it| it == name)), "{daemons:?}");

    // Two terminals, in the order that is printed: bob enrols before alice writes to him.
    let (at_alice, at_bob) = (machine.terminal(), machine.terminal());
    let new = ["New passphrase:", "The same again:"];
    for (terminal, invitation) in [(&at_alice, "invitation-alice"), (&at_bob, "invitation-bob")] {
        enter(terminal, command(&printed, invitation), &new);
        terminal.sees("This device is enrolled as");
        assert_eq!(terminal.ended(), 0);
    }
    enter(&at_alice, command(&printed, "chat bob"), &["Passphrase:"]);
    enter(&at_bob, command(&printed, "/bob tui"), &["Passphrase:"]);
    at_alice.sees("connected");
    at_alice.enter("The first line of a new user.");
    at_bob.sees("alice: The first line of a new user.");
    at_bob.enter("And its answer.");
    at_alice.sees("bob: And its answer.");
    at_alice.press("C-c");
    assert_eq!(at_alice.ended(), 0);

    // The evidence, as printed.
    enter(&at_alice, command(&printed, "evidence export"), &["Passphrase:"]);
    at_alice.until("it is written", |_| machine.path("talk.zixt-evidence").exists());
    assert_eq!(at_alice.ended(), 0);
    let report = machine.must(command(&printed, "zixt-verify"));
    assert!(report.contains("The first line of a new user."), "{report}");
    let third = machine.must(&command(&printed, "zixt-admin invite").replace("NAME", "carol"));
    assert!(third.starts_with("zixt-invite:"), "{third}");
    let doctor = printed.split('`').find(|text| text.contains("zixt-hsm doctor")).expect("it is printed");
    let doctor = machine.paste(doctor);
    assert!(text(&doctor).contains("SoftHSM"), "{}", text(&doctor));

    // The other way of custody is refused in words, and nothing is lost by it.
    machine.interrupt();
    machine.spawn("tpm");
    assert!(!machine.wait().success(), "{}", machine.told());
    assert!(machine.printed().contains("was made with CUSTODY=token"), "{}", machine.told());

    // A second run goes on with the same people and messages; bob's chat was open all the time, and connects again.
    let printed = machine.start("");
    assert!(printed.contains("This appliance was made before"), "{printed}");
    let status = machine.must(command(&printed, "zixt-admin status"));
    assert!(status.starts_with("healthy"), "{status}");
    enter(&at_alice, command(&printed, "chat bob"), &["Passphrase:"]);
    at_alice.sees("bob: And its answer.");
    at_alice.sees("connected");
    at_alice.enter("After a night.");
    at_bob.sees("alice: After a night.");
    for terminal in [&at_alice, &at_bob] {
        terminal.press("C-c");
        assert_eq!(terminal.ended(), 0);
    }
    machine.interrupt();
}

#[test]
fn run_works_with_a_tpm_and_goes_on_with_it() {
    let mut machine = Machine::new();
    for first in [true, false] {
        // The second run knows by itself what the lab was made with.
        let printed = machine.start(if first { "tpm" } else { "" });
        assert!(printed.contains("simulated TPM (swtpm)"), "{printed}");
        assert_eq!(printed.contains("This appliance was made before"), !first, "{printed}");
        let hsm = program("zixt-hsm");
        let status = format!("{} status --socket {}", hsm.display(), machine.path("run/hsmd.sock").display());
        let status = machine.must(&status);
        assert!(status.contains("operational"), "{status}");
        let daemons = machine.daemons();
        assert!(daemons.iter().any(|name| name == "swtpm"), "{daemons:?}");
        machine.interrupt();
    }
}
