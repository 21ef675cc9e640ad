//! Where the passphrase comes from, and where invitations come from.

use super::exit::{Exit, Failure};
use std::fs::File;
use std::io::{Read, stdin};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use zeroize::Zeroizing;
use zixt_client::Invitation;

/// Length of a new passphrase: 15 characters, as NIST SP 800-63B-4 asks of a sole secret. A lab may be careless.
pub const PASSPHRASE_CHARS_MIN: usize = 15;
/// What is read of a passphrase or invitation file: a wrong file must not fill the memory.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A passphrase. It is wiped when it is dropped.
pub type Passphrase = Zeroizing<Vec<u8>>;

/// The passphrase of an account that exists: from the file, the variable `ZIXT_PASSPHRASE`, or the terminal.
pub fn passphrase(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match given(file)? {
        Some(passphrase) => Ok(passphrase),
        None => ask("Passphrase: "),
    }
}

/// The passphrase of a new account: asked for twice when a person types it.
pub fn new_passphrase(file: Option<&Path>, lab: bool) -> Result<Passphrase, Failure> {
    let passphrase = match given(file)? {
        Some(passphrase) => passphrase,
        None => ask_twice()?,
    };
    long_enough(passphrase, lab)
}

/// The passphrase that replaces another one. The variable holds the old one, so it is not asked here.
pub fn replacement(file: Option<&Path>, lab: bool) -> Result<Passphrase, Failure> {
    let passphrase = match file {
        Some(path) => first_line(path)?,
        None => ask_twice()?,
    };
    long_enough(passphrase, lab)
}

/// The password that a directory knows.
pub fn of_directory(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let password = match file {
        Some(path) => first_line(path)?,
        None => ask("Password at the directory: ")?,
    };
    let text = String::from_utf8(password.to_vec());
    text.map(Zeroizing::new)
        .map_err(|_| Failure::usage("the password is not UTF-8", "Directories take no other."))
}

fn given(file: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    if let Some(path) = file {
        return first_line(path).map(Some);
    }
    let variable = std::env::var_os("ZIXT_PASSPHRASE").map(|value| Zeroizing::new(value.into_vec()));
    Ok(variable.filter(|value| !value.is_empty()))
}

fn first_line(path: &Path) -> Result<Passphrase, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| Failure::file(path, &error))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Failure::usage(
            format!("{}: the first line is empty", path.display()),
            "Write the passphrase into its first line.",
        ));
    }
    Ok(Zeroizing::new(line.to_vec()))
}

fn ask(prompt: &str) -> Result<Passphrase, Failure> {
    let text = rpassword::prompt_password(prompt).map_err(|error| {
        Failure::usage(
            format!("the passphrase cannot be asked for: {error}"),
            "Run this in a terminal, or use --passphrase-file.",
        )
    })?;
    Ok(Zeroizing::new(text.into_bytes()))
}

fn ask_twice() -> Result<Passphrase, Failure> {
    let first = ask("New passphrase: ")?;
    if first != ask("The same again: ")? {
        return Err(Failure::usage("the two passphrases differ", "Try again."));
    }
    Ok(first)
}

fn long_enough(passphrase: Passphrase, lab: bool) -> Result<Passphrase, Failure> {
    let count = String::from_utf8_lossy(&passphrase).chars().count();
    let least = if lab { 1 } else { PASSPHRASE_CHARS_MIN };
    if count < least {
        return Err(Failure::usage(
            format!("the passphrase has {count} characters; at least {least} are needed"),
            "Several random words make a good one. Nobody can recover it.",
        ));
    }
    Ok(passphrase)
}

/// Reads an invitation: the text itself, a file, or `-` for the standard input.
pub fn invitation(argument: &str) -> Result<Invitation, Failure> {
    let text = if argument == "-" {
        read_text(stdin().lock(), Path::new("standard input"))?
    } else if argument.trim_start().starts_with(Invitation::PREFIX) {
        Zeroizing::new(argument.to_owned())
    } else {
        let path = Path::new(argument);
        match File::open(path) {
            Ok(file) => read_text(file, path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::usage(
                    "this is neither an invitation nor a file",
                    format!("An invitation begins with {}", Invitation::PREFIX),
                ));
            }
            Err(error) => return Err(Failure::file(path, &error)),
        }
    };
    Invitation::from_text(&text)
        .map_err(|error| Failure::usage(error.to_string(), "Copy the invitation again, as a whole."))
}

fn read_text(from: impl Read, name: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    from.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Failure::usage(format!("{} is not text", name.display()), "Give the invitation's text.")
        }
        _ => Failure::new(Exit::Disk, format!("{}: {error}", name.display()), "Check the path and the disk."),
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        std::fs::write(&path, "correct horse battery\r\nsecond\n").unwrap();
        assert_eq!(passphrase(Some(&path)).unwrap().as_slice(), b"correct horse battery");
        std::fs::write(&path, "\nsecond").unwrap();
        assert_eq!(passphrase(Some(&path)).unwrap_err().exit, Exit::Usage);
        assert_eq!(passphrase(Some(&folder.path().join("none"))).unwrap_err().exit, Exit::Disk);
    }

    #[test]
    fn a_short_one_is_only_for_labs() {
        let short = || Zeroizing::new("vierzehn Zeiße".as_bytes().to_vec());
        assert!(long_enough(short(), true).is_ok());
        let refused = long_enough(short(), false).unwrap_err();
        assert!(refused.what.contains("14 characters; at least 15"), "{refused}");
        assert!(long_enough(Zeroizing::new(Vec::new()), true).is_err());
        assert!(long_enough(Zeroizing::new(vec![b'x'; 15]), false).is_ok());
    }

    #[test]
    fn what_is_no_invitation_is_a_usage_error() {
        for text in ["zixt-invite:!!", "zixt-invite:abc", "/no/such/file", "hello"] {
            assert_eq!(invitation(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
