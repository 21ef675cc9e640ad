//! How fast a native key signs, as a share of what the token itself does: a bare loop over PKCS#11 and a
//! [`NativeSigner`] take turns with the same key, message and token, in one run. Prints one line of JSON.
//!
//! `cargo run --release -p zixt-hsm-pkcs11 --example native_rate` takes Kryoptic; with the path of another module as
//! its argument (and that module's own environment) it takes an uninitialised token of that.
#![expect(clippy::expect_used, reason = "a failed measurement is a failed run")]

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::object::{Attribute, ObjectClass};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use zixt_crypto::{SigningKey as _, SuiteId};
use zixt_hsm_pkcs11::{
    AuthPin, KeyId, Module, NativeSigner, PinTry, Token, TokenSelector, init_token_for_lab,
};

const ROUNDS: usize = 20;
/// Signatures in one turn of one thread.
const TURN: usize = 50;
const LABEL: &str = "zixt-rate";

fn main() -> ExitCode {
    if let Some(module) = std::env::args().nth(1) {
        measure(Path::new(&module));
        return ExitCode::SUCCESS;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/build-kryoptic.sh");
    let output = Command::new(script).arg("--print").output().expect("the script runs");
    if !output.status.success() {
        eprintln!("Kryoptic is not built: scripts/build-kryoptic.sh builds it");
        return ExitCode::FAILURE;
    }
    // A module reads its configuration from the environment of the process: this program starts itself again with one.
    let folder = tempfile::tempdir().expect("a folder");
    let conf = folder.path().join("kryoptic.conf");
    let database = folder.path().join("token.sql");
    let text = format!("[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display());
    std::fs::write(&conf, text).expect("its configuration");
    let module = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let status = Command::new(std::env::current_exe().expect("this program"))
        .arg(module)
        .env("KRYOPTIC_CONF", conf)
        .status()
        .expect("it starts");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(path: &Path) {
    let pin = |text: &str| AuthPin::new(text.to_owned().into());
    let module = Module::load(path).expect("the module");
    init_token_for_lab(&module, LABEL, &pin("so-12345678"), &pin("12345678")).expect("a token");
    let selector = TokenSelector { label: LABEL.to_owned(), serial: None };
    let token = Token::open(&module, &selector, &pin("12345678"), PinTry::Attended).expect("open");
    let id = KeyId(b"rate".to_vec());
    let key = token.generate_signing_key(&id, SuiteId::Standard).expect("a key");
    let signer = token.signer(&key).expect("a signer");
    let bare = Bare::new(path, &id);

    let mut report = Vec::new();
    for threads in [1, 2] {
        let (mut own, mut ours) = (Duration::ZERO, Duration::ZERO);
        bare.run(threads);
        run(&signer, threads);
        for _ in 0..ROUNDS {
            own += bare.run(threads);
            ours += run(&signer, threads);
        }
        let signatures = (ROUNDS * TURN * threads) as f64;
        let (own, ours) = (signatures / own.as_secs_f64(), signatures / ours.as_secs_f64());
        let name = if threads == 1 { String::new() } else { format!("_{threads}_threads") };
        report.push(format!(
            "\"token{name}_per_s\": {own:.0}, \"native{name}_per_s\": {ours:.0}, \"native_over_token{name}\": {:.3}",
            ours / own
        ));
    }
    println!("{{{}}}", report.join(", "));
}

/// The token without our code.
struct Bare {
    pkcs11: Pkcs11,
    id: Vec<u8>,
}

impl Bare {
    fn new(path: &Path, id: &KeyId) -> Self {
        Self { pkcs11: Pkcs11::new(path).expect("the module"), id: id.0.clone() }
    }

    fn run(&self, threads: usize) -> Duration {
        let labelled = |slot: &cryptoki::slot::Slot| {
            self.pkcs11.get_token_info(*slot).is_ok_and(|info| info.label() == LABEL)
        };
        let slot = self.pkcs11.get_slots_with_token().expect("slots").into_iter().find(labelled);
        let slot = slot.expect("the token");
        let sessions: Vec<_> =
            (0..threads).map(|_| self.pkcs11.open_rw_session(slot).expect("a session")).collect();
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(self.id.clone())];
        let key = sessions[0].find_objects(&wanted).expect("found")[0];
        let start = Instant::now();
        std::thread::scope(|scope| {
            for session in sessions {
                scope.spawn(move || {
                    let parameters = SignAdditionalContext::new(HedgeType::Required, None);
                    for n in 0..TURN {
                        session.sign(&Mechanism::MlDsa(parameters), key, &n.to_be_bytes()).expect("signed");
                    }
                });
            }
        });
        start.elapsed()
    }
}

fn run(signer: &NativeSigner, threads: usize) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for n in 0..TURN {
                    signer.sign(&n.to_be_bytes()).expect("signed");
                }
            });
        }
    });
    start.elapsed()
}
