//! The token of a lab: made by the daemon's own binary, so that a lab needs no vendor's tool.

use crate::config::{Config, ConfigError, read_pin};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zixt_crypto::RandomError;
use zixt_hsm_pkcs11::{AuthPin, Module, TokenDescription, TokenError, TokenSelector, init_token_for_lab};
use zixt_hsm_protocol::Pin;

/// Random bytes of a new PIN; it is written in hexadecimal.
const PIN_RANDOM_BYTES: usize = 8;

/// Why there is no lab token.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A PIN file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has no token.
    #[error("there is no [[token]] in the configuration")]
    NoToken,
    /// The configuration has no place for the PIN.
    #[error("a lab token's PIN is kept in a file: set `pin_file` in the configuration")]
    NoPinFile,
    /// A PIN file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No random numbers for a PIN.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// What a lab has after the call.
#[derive(Debug)]
pub enum LabToken {
    /// A new token.
    Made(TokenDescription),
    /// The token that was there before.
    Found(TokenDescription),
}

/// Makes the first configured token if there is none. PIN files that do not exist are made with random PINs.
///
/// # Errors
/// See [`LabError`].
pub fn init_token(config: &Config, so_pin_file: &Path) -> Result<LabToken, LabError> {
    let token = config.token.first().ok_or(LabError::NoToken)?;
    let module = Module::load(&token.module)?;
    let selector = TokenSelector { label: token.label.clone(), serial: token.serial.clone() };
    match module.describe(&selector) {
        Ok(found) => return Ok(LabToken::Found(found)),
        Err(TokenError::TokenAbsent { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let pin = pin_in(&config.pin_path().ok_or(LabError::NoPinFile)?)?;
    let so_pin = pin_in(so_pin_file)?;
    let secret = |pin: &Pin| AuthPin::new(pin.expose().into());
    Ok(LabToken::Made(init_token_for_lab(&module, &token.label, &secret(&so_pin), &secret(&pin))?))
}

fn pin_in(path: &Path) -> Result<Pin, LabError> {
    if path.exists() {
        return Ok(read_pin(path)?);
    }
    let mut random = [0; PIN_RANDOM_BYTES];
    zixt_crypto::fill_random(&mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{text}")?;
        file.sync_all()
    };
    write().map_err(|source| LabError::Write { path: path.to_owned(), source })?;
    Ok(read_pin(path)?)
}
