//! Reading and writing an officer's files. Media are sticks and discs, so nothing needs more than a plain file system.

use crate::officer::Failure;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// What is read of a file at most: a transcript of 128 officers is the largest, and a wrong file must not fill the memory.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Reads a file.
///
/// # Errors
/// It cannot be read, or is larger than any file of a ceremony.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut read = || File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read().map_err(|error| Failure::file(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::file(path, &io::Error::other("larger than any file of a ceremony")));
    }
    Ok(bytes)
}

/// Reads a text that may be secret; `-` is the standard input.
///
/// # Errors
/// It cannot be read or is no text.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file(path, &error))?;
    Ok(text)
}

/// Writes a file that only its owner may read, and never over another one. If that fails half-way, nothing is left.
///
/// # Errors
/// It is there already, or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::file(path, &error))?;
    out.write_all(bytes).and_then(|()| out.sync_all()).map_err(|error| {
        let _already_failed = fs::remove_file(path);
        Failure::file(path, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::officer::Exit;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn nothing_is_overwritten_and_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_new(&path, b"one").unwrap();
        let again = write_new(&path, b"two").unwrap_err();
        assert_eq!(again.exit, Exit::File);
        assert!(again.advice.contains("overwritten"), "{again}");
        assert_eq!(read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&folder.path().join("none")).unwrap_err().exit, Exit::File);
    }
}
