//! A software token for a lab, without the token's own tools.

use crate::error::TokenError;
use crate::module::{Module, TokenDescription, TokenSelector};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

/// Makes a new software token with a label, a security officer's PIN and a user PIN. Takes a slot that was never
/// initialised, so that it cannot wipe a token; refuses hardware, which is initialised in a ceremony.
///
/// # Errors
/// [`TokenError::LabelTaken`], [`TokenError::NoLabSlot`], or what the module says.
pub fn init_token_for_lab(
    module: &Module,
    label: &str,
    so_pin: &AuthPin,
    pin: &AuthPin,
) -> Result<TokenDescription, TokenError> {
    let selector = TokenSelector { label: label.to_owned(), serial: None };
    match module.find(&selector) {
        Err(TokenError::TokenAbsent { .. }) => {}
        Ok(_) | Err(TokenError::TokenAmbiguous { .. }) => {
            return Err(TokenError::LabelTaken { label: label.to_owned() });
        }
        Err(error) => return Err(error),
    }
    let (slot, _) = module
        .tokens()?
        .into_iter()
        .find(|(_, info)| !info.token_initialized() && TokenDescription::of(info).software)
        .ok_or(TokenError::NoLabSlot)?;
    let failed = |error: cryptoki::error::Error| TokenError::of(&error);
    module.pkcs11.init_token(slot, so_pin, label).map_err(failed)?;
    // The token may have moved to another slot.
    let (slot, info) = module.find(&selector)?;
    let session = module.pkcs11.open_rw_session(slot).map_err(failed)?;
    session.login(UserType::So, Some(so_pin)).map_err(failed)?;
    session.init_pin(pin).map_err(failed)?;
    session.logout().map_err(failed)?;
    Ok(TokenDescription::of(&info))
}
