//! What the officer is asked for: the passphrase, and yes or no.

use crate::officer::{Exit, Failure, read_text};
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// Length of a new passphrase: 15 characters, as NIST SP 800-63B-4 asks of a sole secret.
pub const PASSPHRASE_CHARS_MIN: usize = 15;

/// A passphrase. It is wiped when it is dropped.
pub type Passphrase = Zeroizing<String>;

/// The passphrase of a key file: from a file, or from the terminal.
///
/// # Errors
/// The file may be read by others, is empty or cannot be read; there is no terminal.
pub fn passphrase(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(path) => first_line(path),
        None => ask("Passphrase of your key file: "),
    }
}

/// The passphrase of a new key file: typed twice, or from a file.
///
/// # Errors
/// As [`passphrase`]; and it is too short, or the two differ.
pub fn new_passphrase(file: Option<&Path>) -> Result<Passphrase, Failure> {
    let new = match file {
        Some(path) => first_line(path)?,
        None => {
            let first = ask("New passphrase: ")?;
            if first != ask("The same again: ")? {
                return Err(Failure::new(Exit::Usage, "the two passphrases differ", "Try again."));
            }
            first
        }
    };
    let count = new.chars().count();
    if count < PASSPHRASE_CHARS_MIN {
        return Err(Failure::new(
            Exit::Usage,
            format!("the passphrase has {count} characters; at least {PASSPHRASE_CHARS_MIN} are needed"),
            "Several random words make a good one. Nobody can recover it.",
        ));
    }
    Ok(new)
}

fn first_line(path: &Path) -> Result<Passphrase, Failure> {
    let mode = fs::metadata(path).map_err(|error| Failure::file(path, &error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            Exit::File,
            format!("{}: others may read it (mode {:04o})", path.display(), mode & 0o7777),
            "chmod 600 it, and ask yourself who has read it.",
        ));
    }
    let text = read_text(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("{}: the first line is empty", path.display()),
            "Write the passphrase into its first line.",
        ));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn ask(prompt: &str) -> Result<Passphrase, Failure> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("the passphrase cannot be asked for: {error}"),
            "Run this in a terminal, or use --passphrase-file.",
        )
    })
}

/// Asks a question whose answer is no unless it is yes.
///
/// # Errors
/// [`Exit::Declined`]: the officer said anything else than yes, or nothing.
pub fn confirm(question: &str) -> Result<(), Failure> {
    // The standard error output: what the program answers with may go elsewhere.
    let mut out = io::stderr();
    let mut answer = String::new();
    let read = write!(out, "{question} [y/N] ")
        .and_then(|()| out.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    if answer.is_empty() {
        // Nobody pressed Enter: what follows starts on a line of its own.
        let _no_more_than_looks = writeln!(out);
    }
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Declined, "not confirmed; nothing was signed", "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_file_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let with = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        with("correct horse battery\r\nsecond\n", 0o600);
        assert_eq!(passphrase(Some(&path)).unwrap().as_str(), "correct horse battery");
        for mode in [0o640, 0o604, 0o644, 0o660] {
            with("correct horse battery", mode);
            assert_eq!(passphrase(Some(&path)).unwrap_err().exit, Exit::File, "{mode:o}");
        }
        with("\nsecond", 0o600);
        assert_eq!(passphrase(Some(&path)).unwrap_err().exit, Exit::Usage);
        with("too short", 0o400);
        assert!(passphrase(Some(&path)).is_ok());
        assert_eq!(new_passphrase(Some(&path)).unwrap_err().exit, Exit::Usage);
        assert_eq!(passphrase(Some(&folder.path().join("none"))).unwrap_err().exit, Exit::File);
    }
}
