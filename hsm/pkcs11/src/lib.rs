//! A PKCS#11 token as the holder of keys, in two ways:
//! * a key-encryption key (AES-256, made in the token, sensitive and never extractable) that wraps secrets with AES-GCM;
//!   the secrets' use lies with the caller (custody mode 2);
//! * [native keys](NativeKey) that sign and decapsulate inside the token (custody mode 1), if it speaks PKCS#11 3.2.
//!
//! Besides them a token holds a [rollback anchor](AnchorId).
//!
//! Rules that every token taught somebody (each has a test or a comment at its place):
//! * Login belongs to the process, not to the session, and ends with the last session: a [`Token`] holds one session
//!   as an anchor for as long as it lives.
//! * Handles become invalid with a logout: the key is found again by its CKA_ID.
//! * Slot numbers change: a token is found by label and serial number.
//! * A forged ciphertext is reported as `CKR_GENERAL_ERROR` by one token and properly by another.
//! * Some tokens accept an IV of no bytes: its length is checked here.
//! * Never fork after [`Module::load`].

mod anchor;
mod error;
mod kek;
mod lab;
mod module;
mod native;
mod objects;
mod pin;
mod sessions;
mod token;

pub use anchor::{AnchorError, AnchorId};
pub use cryptoki::types::AuthPin;
pub use error::TokenError;
pub use kek::{Kek, KekId};
pub use lab::init_token_for_lab;
pub use module::{Module, TokenDescription, TokenSelector};
pub use native::{
    Algorithm, BACKEND as NATIVE_BACKEND, KeyId, NativeDecapsulator, NativeError, NativeKey, NativeSigner,
    Origin,
};
pub use objects::{Destruction, ObjectDescription, ObjectKind};
pub use pin::{ChangePinError, PinState, PinTry};
pub use token::Token;
