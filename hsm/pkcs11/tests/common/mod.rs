//! Test tokens, each in a process of its own: a module reads its configuration from the environment once, and login
//! state belongs to the process. A test starts itself again as a child that has such an environment.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; each program uses a part of what is here"
)]

pub mod scenarios;

use cryptoki::context::Pkcs11;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use zixt_hsm_pkcs11::{AuthPin, Module, PinTry, Token, TokenError, TokenSelector, init_token_for_lab};

pub const SO_PIN: &str = "so-123456";
pub const PIN: &str = "12345678";
pub const LABEL: &str = "zixt";

/// The folder of a child's token.
const FOLDER: &str = "ZIXT_TEST_FOLDER";
/// The child's module.
const MODULE: &str = "ZIXT_TEST_MODULE";

/// A software token that stands in for an HSM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SoftHSM 2.6: PKCS#11 2.40.
    SoftHsm,
    /// Kryoptic: PKCS#11 3.2 with ML-DSA and ML-KEM.
    Kryoptic,
}

impl Kind {
    pub fn current() -> Self {
        if module_path().ends_with("libsofthsm2.so") { Self::SoftHsm } else { Self::Kryoptic }
    }
}

/// `true` in the child; the parent waits for the child and returns `false`.
pub fn in_softhsm(test: &str) -> bool {
    in_child(test, Path::new("/usr/lib/softhsm/libsofthsm2.so"), |folder| {
        let tokens = folder.join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        ("SOFTHSM2_CONF", text)
    })
}

/// As [`in_softhsm`]. Where Kryoptic is not built, the line goes past the test harness to standard error, where
/// scripts/test.sh finds it.
pub fn in_kryoptic(test: &str, without: &str) -> bool {
    let Some(module) = kryoptic() else {
        // In one piece, because other tests write as well.
        std::io::stderr().write_all(format!("{without}\n").as_bytes()).unwrap();
        return false;
    };
    in_child(test, &module, |folder| {
        let database = folder.join("tokens").join("token.sql");
        std::fs::create_dir(folder.join("tokens")).unwrap();
        let slot = |number: u32, path: &Path| {
            format!("[[slots]]\nslot = {number}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", path.display())
        };
        let second = folder.join("tokens").join("second.sql");
        ("KRYOPTIC_CONF", slot(0, &database) + &slot(1, &second))
    })
}

/// The module that scripts/build-kryoptic.sh built.
pub fn kryoptic() -> Option<PathBuf> {
    if let Some(module) = std::env::var_os(MODULE) {
        return Some(module.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/build-kryoptic.sh");
    let output = Command::new(script).arg("--print").output().unwrap();
    output.status.success().then(|| PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
}

fn in_child(test: &str, module: &Path, configure: impl FnOnce(&Path) -> (&'static str, String)) -> bool {
    if std::env::var_os(FOLDER).is_some() {
        return true;
    }
    let folder = tempfile::tempdir().unwrap();
    let (variable, text) = configure(folder.path());
    let conf = folder.path().join("token.conf");
    std::fs::write(&conf, text).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, &conf)
        .env(FOLDER, folder.path())
        .env(MODULE, module)
        .status()
        .unwrap();
    assert!(status.success(), "the child failed");
    false
}

pub fn module_path() -> PathBuf {
    std::env::var_os(MODULE).unwrap().into()
}

/// Where the child's token keeps its objects.
pub fn storage() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).unwrap()).join("tokens")
}

pub fn pin(text: &str) -> AuthPin {
    AuthPin::new(text.to_owned().into())
}

pub fn selector(label: &str) -> TokenSelector {
    TokenSelector { label: label.to_owned(), serial: None }
}

/// The module with a new token in it.
pub fn module_with_token() -> Module {
    let module = Module::load(&module_path()).unwrap();
    let token = init_token_for_lab(&module, LABEL, &pin(SO_PIN), &pin(PIN)).unwrap();
    assert!(token.software, "{token:?}");
    module
}

pub fn open(module: &Module) -> Result<Token, TokenError> {
    Token::open(module, &selector(LABEL), &pin(PIN), PinTry::Attended)
}

/// The module without our code in between: what a token does, and another part of the same process.
pub struct Raw {
    pub pkcs11: Pkcs11,
}

impl Raw {
    /// The module must be initialised.
    pub fn new() -> Self {
        Self { pkcs11: Pkcs11::new(module_path()).unwrap() }
    }

    pub fn slot(&self) -> Slot {
        let labelled =
            |slot: &Slot| self.pkcs11.get_token_info(*slot).is_ok_and(|info| info.label() == LABEL);
        self.pkcs11.get_slots_with_token().unwrap().into_iter().find(labelled).unwrap()
    }

    pub fn session(&self) -> Session {
        self.pkcs11.open_rw_session(self.slot()).unwrap()
    }

    pub fn logged_in(&self) -> Session {
        let session = self.session();
        session.login(UserType::User, Some(&pin(PIN))).unwrap();
        session
    }
}

/// OpenSC's view of the token, from a process and a code base of its own.
pub fn pkcs11_tool(arguments: &[&str]) -> Output {
    let output = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(module_path())
        .args(["--token-label", LABEL, "--login", "--pin", PIN])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
