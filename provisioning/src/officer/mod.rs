//! What a security officer works with, offline: the key file, the words for every file of a ceremony, and the sheet for
//! paper. `zixt-officer` is a thin program around it. Nothing here opens a connection.

mod ask;
mod exit;
mod files;
mod image;
mod key_file;
mod sheet;
mod show;

pub use ask::{PASSPHRASE_CHARS_MIN, Passphrase, confirm, new_passphrase, passphrase};
pub use exit::{Exit, Failure};
pub use files::{read, read_text, write_new};
pub use image::{
    ImageError, approve_registers, check_quote, describe_registers, make_image_key, read_registers,
};
pub use key_file::{KeyFile, KeyFileError, OfficerKey};
pub use sheet::{code, modules, words_table};
pub use show::{Names, Shown, show};
