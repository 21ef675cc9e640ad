//! A lab in a temporary folder: devices of its own, officers, and the daemon as a child process.

use crate::swtpm::Swtpm;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use zixt_ceremony::OfficerCard;
use zixt_ceremony::file::{from_file, to_file};
use zixt_crypto::hpke::OpeningKey;
use zixt_crypto::{Backend as _, KemSeed, Reference, SigningKey, SigningSeed, digest};
use zixt_hsm_protocol::{BlockingHsmClient, ClientError, CustodyError, KeyInfo, KeyPurpose, Pin, StateKind};
use zixt_types::{
    Action, Canonical, Genesis, Hash, Height, Officer, RotationPolicy, Round, SuiteId, Timestamp, UnlockMode,
    Validator, Vote, VoteStep,
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
    /// A lab with PIN files and without a device.
    pub fn empty() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        for (name, pin) in [("pin", "123456"), ("wrong-pin", "654321"), ("new-pin", "135790")] {
            fs::write(lab.path(name), format!("{pin}\n")).unwrap();
            fs::set_permissions(lab.path(name), Permissions::from_mode(0o600)).unwrap();
        }
        fs::create_dir(lab.path("tokens")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            lab.path("tokens").display()
        );
        fs::write(lab.path("softhsm2.conf"), conf).unwrap();
        lab
    }

    /// A lab whose token exists, with the PIN 123456.
    pub fn new() -> Self {
        let lab = Self::empty();
        lab.configure(true, "");
        lab.init_token();
        lab
    }

    /// Makes the first token of the configuration.
    pub fn init_token(&self) {
        let made = self.hsmd(&["--lab-init-token", "--so-pin-file", self.path("so-pin").to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As an argument.
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.path("state").join(name)
    }

    /// With the token alone; `more` comes after it.
    pub fn configure(&self, pin_file: bool, more: &str) {
        self.configure_with(pin_file, &[&self.softhsm(), more]);
    }

    /// With these parts after the folders.
    pub fn configure_with(&self, pin_file: bool, parts: &[&str]) {
        let pin_file = if pin_file { format!("pin_file = {:?}\n", self.path("pin")) } else { String::new() };
        let text = format!(
            "state = {:?}\nsocket = {:?}\n{pin_file}{}",
            self.path("state"),
            self.socket(),
            parts.concat()
        );
        fs::write(self.path("hsmd.toml"), text).unwrap();
    }

    /// The token's part of the configuration.
    pub fn softhsm(&self) -> String {
        format!(
            "[[token]]\nmodule = {MODULE:?}\nlabel = \"zixt\"\nread = [{:?}]\nwrite = [{:?}]\n",
            self.path("softhsm2.conf"),
            self.path("tokens"),
        )
    }

    /// The part of the configuration for Kryoptic with native keys, if it is built.
    pub fn kryoptic(&self, native: &[&str]) -> Option<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-kryoptic.sh");
        let built = Command::new(script).arg("--print").output().unwrap();
        let module = built.status.success().then(|| stdout(&built))?;
        let database = self.path("tokens").join("token.sql");
        let conf = format!("[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = {database:?}\n");
        fs::write(self.path("kryoptic.conf"), conf).unwrap();
        Some(format!(
            "[[token]]\nmodule = {:?}\nlabel = \"zixt\"\nnative = {native:?}\nread = [{:?}]\nwrite = [{:?}]\n",
            module.trim(),
            self.path("kryoptic.conf"),
            self.path("tokens"),
        ))
    }

    pub fn socket(&self) -> PathBuf {
        self.path("hsmd.sock")
    }

    pub fn command(&self, program: &str) -> Command {
        // Without the sockets to simulators that other tests have open just now.
        let mut command = crate::swtpm::program(program);
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf")).env_remove("ZIXT_HSMD_SOCKET");
        command.env("ZIXT_HSMD_CONFIG", self.path("hsmd.toml"));
        command.env("KRYOPTIC_CONF", self.path("kryoptic.conf"));
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

    /// Runs the admin tool, which has to succeed, and returns what it said.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.admin(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        stdout(&output)
    }

    /// Proposes an action and lets officers approve it. Returns the transcript's file.
    pub fn approved(&self, officers: &Officers, who: &[usize], proposal: &[&str]) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let action = self.arg(&format!("{number}.zixt-action"));
        self.must(&[&["propose"], proposal, &["-o", &action]].concat());
        let action: Action = from_file(&fs::read(action).unwrap()).unwrap();
        let transcript = self.arg(&format!("{number}.zixt-transcript"));
        fs::write(&transcript, officers.transcript(&action.to_bytes(), who)).unwrap();
        transcript
    }

    /// Proposes an action, lets the first two officers approve it, and applies it.
    pub fn decide(&self, officers: &Officers, proposal: &[&str], more: &[&str]) -> String {
        let transcript = self.approved(officers, &[0, 1], proposal);
        self.must(&[&["apply", &transcript], more].concat())
    }

    /// Makes a new consensus key and lets the officers activate it: what ends a quarantine.
    pub fn activate_consensus(&self, officers: &Officers) {
        self.must(&["generate", "consensus"]);
        self.decide(officers, &["activate", "consensus"], &[]);
    }

    /// Starts the daemon and waits for its line.
    pub fn start(&self) -> Daemon {
        self.start_by(self.command(env!("CARGO_BIN_EXE_zixt-hsmd")))
    }

    /// As [`Self::start`], by another command.
    pub fn start_by(&self, mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stderr = child.stderr.take();
        let daemon = Daemon { child, client: BlockingHsmClient::new(self.socket()), stderr };
        assert!(line.starts_with("ready state="), "{line:?} {}", daemon.stop());
        daemon
    }

    /// A running daemon with keys and a genesis, two of whose three officers decide.
    pub fn operational_by(&self, officers: &Officers, unlock: UnlockMode) -> (Daemon, Vec<KeyInfo>, Genesis) {
        let daemon = self.start();
        let keys = daemon.client.provision(SuiteId::Standard, true).unwrap();
        let mut genesis = genesis(&keys, unlock);
        genesis.officers = officers.named();
        genesis.officers_required = 2;
        daemon.client.bind_genesis(&genesis.to_bytes()).unwrap();
        assert_eq!(daemon.client.status().unwrap().state, StateKind::Operational);
        (daemon, keys, genesis)
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

/// Security officers with real keys.
pub struct Officers(Vec<(Box<dyn SigningKey>, OpeningKey)>);

impl Officers {
    pub fn three() -> Self {
        let officer = |number: u8| {
            let key = Reference.signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[number; 32]));
            (key.unwrap(), OpeningKey::new(&KemSeed::from_bytes(&[number; 64])))
        };
        Self((1..=3).map(officer).collect())
    }

    pub fn named(&self) -> Vec<Officer> {
        let hashes = self.0.iter().map(|(key, _)| digest::key_hash(key.suite(), key.public_key()));
        hashes.enumerate().map(|(n, key)| Officer { name: format!("officer {n}"), key }).collect()
    }

    /// Approvals of some of them, as a file.
    pub fn transcript(&self, action: &[u8], who: &[usize]) -> Vec<u8> {
        let approvals = who.iter().map(|n| zixt_ceremony::approve(action, &*self.0[*n].0).unwrap()).collect();
        to_file(&zixt_ceremony::assemble(action, approvals, &Reference).unwrap())
    }

    /// Writes their cards and returns the files.
    pub fn cards(&self, lab: &Lab) -> Vec<String> {
        let write = |(n, (key, opening)): (usize, &(Box<dyn SigningKey>, OpeningKey))| {
            let card =
                OfficerCard::new(&format!("officer {n}"), &**key, &opening.encapsulation_key()).unwrap();
            let path = lab.arg(&format!("{n}.zixt-officer"));
            fs::write(&path, to_file(&card)).unwrap();
            path
        };
        self.0.iter().enumerate().map(write).collect()
    }

    /// Gives all three shares, two of which recover, and returns what custody said.
    pub fn set_recovery(&self, lab: &Lab, pins: &[&str]) -> String {
        let cards = self.cards(lab);
        let cards: Vec<&str> = cards.iter().map(String::as_str).collect();
        let given: Vec<&str> = cards.iter().flat_map(|card| ["--card", card]).collect();
        lab.decide(self, &[&["recovery", "--threshold", "2"], &cards[..]].concat(), &[&given, pins].concat())
    }

    /// One of them.
    pub fn opening(&self, number: usize) -> &OpeningKey {
        &self.0[number].1
    }

    /// One of them.
    pub fn signing(&self, number: usize) -> &dyn SigningKey {
        &*self.0[number].0
    }
}

/// The TPM's part of the configuration.
pub fn tpm(swtpm: &Swtpm) -> String {
    format!("[tpm]\ntcti = {:?}\n", swtpm.tcti())
}

/// What firmware and the image measure. `image` tells two images apart.
pub fn measure(swtpm: &Swtpm, image: u8) {
    let tpm = swtpm.tpm();
    tpm.extend(7, [7; 32]).unwrap();
    tpm.extend(11, [image; 32]).unwrap();
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
            custody: key(keys, KeyPurpose::Consensus).custody,
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

/// The daemon's refusal.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> CustodyError {
    match answer {
        Err(ClientError::Custody(error)) => error,
        other => panic!("not refused by custody: {other:?}"),
    }
}

pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}
