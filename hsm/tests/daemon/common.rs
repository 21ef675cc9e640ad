//! A lab in a temporary folder: a SoftHSM token of its own, and the daemon as a child process.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use zixt_crypto::digest;
use zixt_hsm_protocol::{BlockingHsmClient, KeyInfo, KeyPurpose, Pin, StateKind};
use zixt_types::{
    Canonical, CustodyMode, Genesis, Hash, Height, Officer, RotationPolicy, Round, SuiteId, Timestamp,
    UnlockMode, Validator, Vote, VoteStep,
};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub struct Lab {
    pub folder: tempfile::TempDir,
}

pub struct Daemon {
    pub child: Child,
    pub client: BlockingHsmClient,
    stderr: Option<std::process::ChildStderr>,
}

impl Lab {
    /// A lab whose token exists, with the PIN 123456.
    pub fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.path("tokens")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            lab.path("tokens").display()
        );
        fs::write(lab.path("softhsm2.conf"), conf).unwrap();
        fs::write(lab.path("pin"), "123456\n").unwrap();
        fs::set_permissions(lab.path("pin"), Permissions::from_mode(0o600)).unwrap();
        lab.configure(true, "");
        let made = lab.hsmd(&["--lab-init-token", "--so-pin-file", lab.path("so-pin").to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.path("state").join(name)
    }

    pub fn configure(&self, pin_file: bool, more: &str) {
        let pin_file = if pin_file { format!("pin_file = {:?}\n", self.path("pin")) } else { String::new() };
        let text = format!(
            "state = {:?}\nsocket = {:?}\n{pin_file}[[token]]\nmodule = {MODULE:?}\nlabel = \"zixt\"\n\
             read = [{:?}]\nwrite = [{:?}]\n{more}",
            self.path("state"),
            self.socket(),
            self.path("softhsm2.conf"),
            self.path("tokens"),
        );
        fs::write(self.path("hsmd.toml"), text).unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.path("hsmd.sock")
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf")).env_remove("ZIXT_HSMD_SOCKET");
        command.env("ZIXT_HSMD_CONFIG", self.path("hsmd.toml"));
        command
    }

    /// Runs the daemon's binary to its end.
    pub fn hsmd(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_zixt-hsmd")).args(arguments).output().unwrap()
    }

    /// Runs the admin tool to its end.
    pub fn admin(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_zixt-hsm")).args(arguments).output().unwrap()
    }

    /// Starts the daemon and waits for its line.
    pub fn start(&self) -> Daemon {
        let mut child = self
            .command(env!("CARGO_BIN_EXE_zixt-hsmd"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stderr = child.stderr.take();
        let daemon = Daemon { child, client: BlockingHsmClient::new(self.socket()), stderr };
        assert!(line.starts_with("ready state="), "{line:?} {}", daemon.stop());
        daemon
    }

    /// A running daemon with keys and a genesis.
    pub fn operational(&self, suite: SuiteId, unlock: UnlockMode) -> (Daemon, Vec<KeyInfo>, Genesis) {
        let daemon = self.start();
        let keys = daemon.client.provision(suite, true).unwrap();
        let genesis = genesis(&keys, unlock);
        assert_eq!(daemon.client.bind_genesis(&genesis.to_bytes()).unwrap(), digest::genesis_hash(&genesis));
        assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational);
        (daemon, keys, genesis)
    }
}

impl Daemon {
    /// Stops it as the init system does, and returns its log.
    pub fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap();
        self.log()
    }

    /// Kills it at once, and returns its log.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log()
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        self.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

pub fn key(keys: &[KeyInfo], purpose: KeyPurpose) -> &KeyInfo {
    keys.iter().find(|key| key.purpose == purpose).unwrap()
}

/// A genesis that tells the truth about `keys`.
pub fn genesis(keys: &[KeyInfo], unlock: UnlockMode) -> Genesis {
    let hash = |purpose| key(keys, purpose).hash;
    Genesis {
        version: 1,
        suites: vec![keys[0].suite],
        network: "lab".to_owned(),
        organisation: Hash([1; 48]),
        officers: vec![Officer { name: "officer".to_owned(), key: Hash([2; 48]) }],
        officers_required: 1,
        enrollers: vec![hash(KeyPurpose::Enroller)],
        validators: vec![Validator {
            appliance: digest::appliance_id(hash(KeyPurpose::Identity)),
            consensus: hash(KeyPurpose::Consensus),
            tls: hash(KeyPurpose::Tls),
            stake: 1,
            custody: CustodyMode::WrappedByToken,
        }],
        shard_count: 1,
        unlock,
        lab: true,
        rotation: RotationPolicy { messages_max: 100, age_ms_max: 1000 },
        created_at: Timestamp(1),
        nonce: [3; 32],
    }
}

pub fn vote(genesis: &Genesis, height: u64, round: u32, step: VoteStep, value: u8) -> Vote {
    Vote {
        version: 1,
        suite: genesis.suite(),
        genesis: digest::genesis_hash(genesis),
        height: Height(height),
        round: Round(round),
        step,
        header: (value > 0).then_some(Hash([value; 48])),
    }
}

/// The content that a TLS 1.3 server signs.
pub fn tls_content(context: &str, transcript: &[u8]) -> Vec<u8> {
    [&[0x20; 64][..], context.as_bytes(), &[0], transcript].concat()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
