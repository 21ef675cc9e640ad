//! The module (a vendor's shared library) and the search for a token.

use crate::error::TokenError;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::slot::{Slot, TokenInfo};
use std::path::Path;

/// A loaded PKCS#11 module. Load each module once per process and clone the handle; the module stays initialised
/// until the process ends.
#[derive(Debug, Clone)]
pub struct Module {
    pub(crate) pkcs11: Pkcs11,
}

/// Which token is meant. Never a slot number: those change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSelector {
    /// The token's label.
    pub label: String,
    /// The token's serial number, where the label alone is not unique.
    pub serial: Option<String>,
}

impl std::fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "with the label {:?}", self.label)?;
        match &self.serial {
            Some(serial) => write!(f, " and the serial number {serial:?}"),
            None => Ok(()),
        }
    }
}

/// A token as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDescription {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Manufacturer and model.
    pub model: String,
    /// A known software token: no hardware protects its keys.
    pub software: bool,
}

impl TokenDescription {
    pub(crate) fn of(info: &TokenInfo) -> Self {
        let manufacturer = info.manufacturer_id().trim();
        let model = info.model().trim();
        Self {
            label: info.label().trim_end().to_owned(),
            serial: info.serial_number().trim_end().to_owned(),
            model: format!("{manufacturer} {model}").trim().to_owned(),
            software: is_software(manufacturer) || is_software(model),
        }
    }
}

/// Software tokens call themselves so. A token that lies is indistinguishable from hardware through PKCS#11.
fn is_software(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["softhsm", "kryoptic", "nss", "opencryptoki", "wolfpkcs11", "bouncyhsm"]
        .iter()
        .any(|known| name.contains(known))
}

impl Module {
    /// Loads and initialises a module.
    ///
    /// # Errors
    /// [`TokenError::Module`].
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let failed =
            |error: &Error| TokenError::Module { module: path.display().to_string(), why: error.to_string() };
        let pkcs11 = Pkcs11::new(path).map_err(|e| failed(&e))?;
        match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(Self { pkcs11 }),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Looks at a token without logging in.
    ///
    /// # Errors
    /// [`TokenError::TokenAbsent`], [`TokenError::TokenAmbiguous`] or what the module says.
    pub fn describe(&self, selector: &TokenSelector) -> Result<TokenDescription, TokenError> {
        self.find(selector).map(|(_, info)| TokenDescription::of(&info))
    }

    pub(crate) fn find(&self, selector: &TokenSelector) -> Result<(Slot, TokenInfo), TokenError> {
        let mut found = Vec::new();
        for (slot, info) in self.tokens()? {
            let description = TokenDescription::of(&info);
            let serial_fits = selector.serial.as_ref().is_none_or(|serial| *serial == description.serial);
            if info.token_initialized() && description.label == selector.label && serial_fits {
                found.push((slot, info));
            }
        }
        match (found.pop(), found.len()) {
            (None, _) => Err(TokenError::TokenAbsent { wanted: selector.to_string() }),
            (Some(token), 0) => Ok(token),
            (Some(_), more) => {
                Err(TokenError::TokenAmbiguous { wanted: selector.to_string(), count: more + 1 })
            }
        }
    }

    /// All tokens; one that vanishes or fails while being looked at is no reason to miss the others.
    pub(crate) fn tokens(&self) -> Result<Vec<(Slot, TokenInfo)>, TokenError> {
        let slots = self.pkcs11.get_slots_with_token().map_err(|e| TokenError::of(&e))?;
        Ok(slots
            .into_iter()
            .filter_map(|slot| Some((slot, self.pkcs11.get_token_info(slot).ok()?)))
            .collect())
    }
}
