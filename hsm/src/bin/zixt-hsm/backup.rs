//! Backups: custody's part in front, then the server's files, encrypted.
//!
//! `ZIXTBKP1`, the length of custody's part (u32, big-endian), that part, then chunks: length (u32) and AES-256-GCM of one
//! CBOR `Piece`, whose associated data are its number and whether it is the last, so that nothing can be cut off, moved or
//! put in.

use crate::{Failure, read, read_transcript, unexpected, write_new};
use clap::Subcommand;
use minicbor::{Decode, Encode};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zixt_ceremony::file::{from_file, to_file};
use zixt_ceremony::{RecoveryRequest, ShareRelease};
use zixt_crypto::{AeadKey, aead, labels};
use zixt_hsm::service::CustodyBackup;
use zixt_hsm_protocol::{Blob, BlockingHsmClient, FRAME_BYTES_MAX, Request, Response};
use zixt_types::Canonical as _;

const MAGIC: &[u8; 8] = b"ZIXTBKP1";
/// Bytes of a file in one piece.
const PIECE_BYTES: usize = 1 << 20;
/// Where files are unpacked, in the server's folder: there for as long as that is not finished.
const UNPACKING: &str = ".unpacking";
/// A sealed piece, with its name.
const CHUNK_BYTES_MAX: usize = PIECE_BYTES + 4096;

/// A part of a file.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Piece {
    /// The file's name in the server's folder; empty in the last piece, which holds nothing.
    #[n(0)]
    name: String,
    /// Where the bytes belong.
    #[n(1)]
    offset: u64,
    /// The bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

#[derive(Subcommand)]
pub(crate) enum Recover {
    /// Say to custody what is to be recovered, and write the request for the officers
    Begin {
        /// The backup
        backup: PathBuf,
        /// The request
        #[arg(short, long, value_name = "FILE", default_value = "recovery.zixt-request")]
        out: PathBuf,
    },
    /// Recover with the officers' approvals and shares
    Finish {
        /// The backup
        backup: PathBuf,
        /// What the officers approved
        #[arg(long, value_name = "FILE")]
        transcript: PathBuf,
        /// Officers' releases of their shares
        #[arg(long = "release", value_name = "FILE", required = true)]
        releases: Vec<PathBuf>,
        /// The server's state folder, which must not exist or be empty
        #[arg(long, value_name = "FOLDER")]
        server: PathBuf,
    },
    /// Unpack the server's files, where `finish` recovered custody and then could not; or find that all of them are there
    Files {
        /// The backup
        backup: PathBuf,
        /// The server's state folder: what is in it must be what the backup holds
        #[arg(long, value_name = "FOLDER")]
        server: PathBuf,
    },
}

pub(crate) fn backup(
    client: &BlockingHsmClient,
    server: &Path,
    path: &Path,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let decisions = decisions(client)?;
    let mut names = files(server)?;
    // From a recovery before; custody has some of them as well.
    names.retain(|name| decisions.iter().all(|(known, _)| known != name));
    // Held until the end: a server that runs would change its files under us.
    let lock = File::open(server.join("lock")).map_err(|error| format!("{}: {error}", server.display()))?;
    let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|_| "the server runs: stop zixtd first, so that its files hold still")?;
    let Response::Backup(head) = client.call(&Request::Backup)? else { return unexpected() };
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(MAGIC)?;
    file.write_all(&u32::try_from(head.custody.len())?.to_be_bytes())?;
    file.write_all(&head.custody)?;
    let mut number = 0;
    for name in &names {
        write_file(&mut file, &head.key.0, &mut number, name, File::open(server.join(name))?)?;
    }
    for (name, transcript) in &decisions {
        write_file(&mut file, &head.key.0, &mut number, name, transcript.as_slice())?;
    }
    let last = Piece { name: String::new(), offset: 0, bytes: Vec::new() };
    write_piece(&mut file, &head.key.0, number, true, &last)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    writeln!(out, "{} files of the server and custody's sealed keys are in {}", names.len(), path.display())?;
    writeln!(
        out,
        "It opens with the officers' shares. Rehearse that: zixt-hsm recover, on another machine."
    )?;
    Ok(())
}

/// The decisions that custody took, as files for the server: on a recovered machine custody has them no more, and the
/// ledger may lack some.
fn decisions(client: &BlockingHsmClient) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let (mut files, mut from) = (Vec::new(), 0);
    loop {
        let Response::Decisions(taken) = client.call(&Request::Decisions { from })? else {
            return unexpected();
        };
        let Some(last) = taken.last() else { return Ok(files) };
        from = last.sequence + 1;
        for decision in &taken {
            files.push(crate::decision_file(decision)?);
        }
    }
}

/// The server's files; no file of a folder below, and not its lock.
fn files(server: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(server).map_err(|error| format!("{}: {error}", server.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != "lock" {
            names.push(entry.file_name().into_string().map_err(|name| format!("odd file name {name:?}"))?);
        }
    }
    names.sort();
    Ok(names)
}

fn write_file(
    out: &mut impl Write,
    key: &AeadKey,
    number: &mut u64,
    name: &str,
    mut from: impl Read,
) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let mut bytes = Vec::new();
        (&mut from).take(PIECE_BYTES as u64).read_to_end(&mut bytes)?;
        let end = bytes.len() < PIECE_BYTES;
        let len = bytes.len() as u64;
        write_piece(out, key, *number, false, &Piece { name: name.to_owned(), offset, bytes })?;
        *number += 1;
        offset += len;
        if end {
            return Ok(());
        }
    }
}

fn write_piece(
    out: &mut impl Write,
    key: &AeadKey,
    number: u64,
    last: bool,
    piece: &Piece,
) -> Result<(), Failure> {
    let sealed = aead::seal(key, &aad(number, last), &minicbor::to_vec(piece)?)?;
    out.write_all(&u32::try_from(sealed.len())?.to_be_bytes())?;
    out.write_all(&sealed)?;
    Ok(())
}

fn aad(number: u64, last: bool) -> Vec<u8> {
    [labels::CUSTODY_BACKUP, &number.to_be_bytes(), &[u8::from(last)]].concat()
}

/// Opens a backup and reads custody's part.
fn open(path: &Path) -> Result<(File, Vec<u8>), Failure> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(said)?;
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(said)?;
    if magic != *MAGIC {
        return Err(format!("{} is no backup of zixt-hsm", path.display()).into());
    }
    let custody = read_block(&mut file, FRAME_BYTES_MAX).map_err(said)?;
    Ok((file, custody))
}

fn read_block(file: &mut File, max: usize) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 4];
    file.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > max {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a part is longer than its format"));
    }
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn recover(
    client: &BlockingHsmClient,
    step: &Recover,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match step {
        Recover::Begin { backup, out: path } => {
            let (_, custody) = open(backup)?;
            let request = Request::BeginRecovery { backup: custody };
            let Response::RecoveryBegun(bytes) = client.call(&request)? else { return unexpected() };
            let request = RecoveryRequest::parse(&bytes)?;
            write_new(path, &to_file(&request))?;
            write!(out, "{}", zixt_ceremony::describe_text(&zixt_ceremony::describe(&request.action()?)))?;
            writeln!(
                out,
                "\nwritten to {}; officers: zixt-officer approve, zixt-officer share release",
                path.display()
            )?;
            writeln!(
                out,
                "Do not restart zixt-hsmd before `recover finish`: it holds the key that shares are sealed to."
            )?;
        }
        Recover::Finish { backup, transcript, releases, server } => {
            free(server)?;
            let (file, custody) = open(backup)?;
            let releases = releases.iter().map(|path| -> Result<Blob, Failure> {
                let release: ShareRelease =
                    from_file(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(Blob(release.to_bytes()))
            });
            let request = Request::FinishRecovery {
                transcript: read_transcript(transcript)?,
                releases: releases.collect::<Result<_, _>>()?,
            };
            let Response::Recovered { state, key } = client.call(&request)? else { return unexpected() };
            writeln!(out, "custody is {state}")?;
            unpack_recovered(client, (file, &custody), &key.0, server, out).map_err(|error| {
                format!(
                    "{error}. Custody is recovered and keeps the backup's key: with a whole copy of this backup, and room, \
                     `zixt-hsm recover files BACKUP --server FOLDER` goes on"
                )
            })?;
            writeln!(out, "next: zixt-hsm generate consensus, zixt-hsm propose activate consensus")?;
        }
        Recover::Files { backup, server } => {
            let (file, custody) = open(backup)?;
            let request = Request::BackupKey { backup: CustodyBackup::hash(&custody) };
            let Response::BackupKey(key) = client.call(&request)? else { return unexpected() };
            unpack_recovered(client, (file, &custody), &key.0, server, out)?;
        }
    }
    Ok(())
}

/// Whether a folder may take the server's files: it has none, or the rest of an earlier try, which is replaced.
fn free(server: &Path) -> Result<(), Failure> {
    let has_files = std::fs::read_dir(server).is_ok_and(|mut entries| entries.next().is_some());
    if has_files && !server.join(UNPACKING).is_dir() {
        return Err(format!("{} is not empty; nothing was recovered", server.display()).into());
    }
    Ok(())
}

/// Unpacks, and lets custody forget the key.
fn unpack_recovered(
    client: &BlockingHsmClient,
    (mut file, custody): (File, &[u8]),
    key: &AeadKey,
    server: &Path,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let count = unpack(&mut file, key, server)?;
    writeln!(out, "{count} files of the server are in {}", server.display())?;
    let request = Request::BackupUnpacked { backup: CustodyBackup::hash(custody) };
    let Response::BackupUnpacked = client.call(&request)? else { return unexpected() };
    Ok(())
}

/// Writes the server's files. Nothing is believed before it authenticates, and a backup that ends too early is refused: none
/// of its files is in its place then. What is in its place already has to be the same, so that nothing newer is lost.
fn unpack(file: &mut File, key: &AeadKey, server: &Path) -> Result<usize, Failure> {
    let apart = server.join(UNPACKING);
    // A server that runs has it; one that starts sees the folder that is made next.
    let _lock = match File::open(server.join("lock")) {
        Ok(lock) => Some(
            nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
                .map_err(|_| "the server runs: stop zixtd first")?,
        ),
        Err(_) => None,
    };
    // An earlier try's stays where it is: it says that the folder is not whole.
    let began = apart.is_dir();
    std::fs::create_dir_all(&apart)?;
    File::open(server)?.sync_all()?;
    for entry in std::fs::read_dir(&apart)? {
        std::fs::remove_file(entry?.path())?;
    }
    let names = unpack_apart(file, key, &apart)?;
    if let Some(other) = other_file(server, &apart, &names)? {
        if !began {
            std::fs::remove_dir_all(&apart)?;
        }
        return Err(format!(
            "{} is not what the backup holds; nothing was written over it. If the server worked with that folder, keep it; \
             otherwise move it away, and unpack into an empty one",
            server.join(other).display()
        )
        .into());
    }
    for name in &names {
        std::fs::rename(apart.join(name), server.join(name))?;
    }
    // Before the folder that says that this is not finished goes.
    File::open(server)?.sync_all()?;
    std::fs::remove_dir(&apart)?;
    File::open(server)?.sync_all()?;
    Ok(names.len())
}

/// A file that the backup does not have, or has otherwise.
fn other_file(server: &Path, apart: &Path, names: &[String]) -> Result<Option<String>, Failure> {
    for entry in std::fs::read_dir(server)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == UNPACKING || name == "lock" {
            continue;
        }
        if !names.contains(&name) || !same(&server.join(&name), &apart.join(&name))? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether two files hold the same.
fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    loop {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        (&mut one).take(PIECE_BYTES as u64).read_to_end(&mut a)?;
        (&mut other).take(PIECE_BYTES as u64).read_to_end(&mut b)?;
        if a != b {
            return Ok(false);
        }
        if a.is_empty() {
            return Ok(true);
        }
    }
}

fn unpack_apart(file: &mut File, key: &AeadKey, folder: &Path) -> Result<Vec<String>, Failure> {
    let mut number = 0;
    let mut current: Option<(String, File, u64)> = None;
    let mut names = Vec::new();
    loop {
        let sealed =
            read_block(file, CHUNK_BYTES_MAX).map_err(|error| format!("the backup is damaged: {error}"))?;
        let (last, piece) = match aead::open(key, &aad(number, false), &sealed) {
            Ok(piece) => (false, piece),
            Err(_) => (
                true,
                aead::open(key, &aad(number, true), &sealed).map_err(|_| {
                    format!("the backup is damaged at piece {number}: it does not authenticate")
                })?,
            ),
        };
        let piece: Piece = minicbor::decode(&piece)?;
        if last {
            break;
        }
        number += 1;
        let goes_on = matches!(&current, Some((name, _, end)) if *name == piece.name && *end == piece.offset);
        if !goes_on {
            if piece.offset != 0 || piece.name.contains(['/', '\0']) || piece.name.starts_with('.') {
                return Err("the backup was made by another program".into());
            }
            let path = folder.join(&piece.name);
            let new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            names.push(piece.name.clone());
            current = Some((piece.name.clone(), new, 0));
        }
        if let Some((_, file, end)) = &mut current {
            file.write_all(&piece.bytes)?;
            *end += piece.bytes.len() as u64;
            file.sync_all()?;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(key: &AeadKey, pieces: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut number = 0;
        for (name, content) in pieces {
            let piece = Piece { name: (*name).to_owned(), offset: 0, bytes: content.to_vec() };
            write_piece(&mut bytes, key, number, false, &piece).unwrap();
            number += 1;
        }
        let last = Piece { name: String::new(), offset: 0, bytes: Vec::new() };
        write_piece(&mut bytes, key, number, true, &last).unwrap();
        bytes
    }

    fn unpacked(key: &AeadKey, bytes: &[u8]) -> Result<(tempfile::TempDir, usize), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        std::fs::write(&path, bytes).unwrap();
        let count = unpack(&mut File::open(path).unwrap(), key, &folder.path().join("server"));
        count.map(|count| (folder, count)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_packed_comes_back_and_nothing_else_does() {
        let key = AeadKey::generate().unwrap();
        let bytes = packed(&key, &[("a", b"one"), ("b", b"")]);
        let (folder, count) = unpacked(&key, &bytes).unwrap();
        assert_eq!(count, 2);
        assert_eq!(std::fs::read(folder.path().join("server/a")).unwrap(), b"one");
        assert_eq!(std::fs::read(folder.path().join("server/b")).unwrap(), b"");
        assert!(unpacked(&AeadKey::generate().unwrap(), &bytes).is_err());
        for cut in [bytes.len() - 1, bytes.len() / 2, 3, 0] {
            assert!(unpacked(&key, &bytes[..cut]).is_err(), "{cut}");
        }
        for at in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(unpacked(&key, &bad).is_err(), "{at}");
        }
        for name in ["../x", "/x", ".x"] {
            assert!(unpacked(&key, &packed(&key, &[(name, b"x")])).is_err(), "{name}");
        }
    }

    /// What an earlier try left is replaced, and until all of it is good nothing is where a server would find it.
    #[test]
    fn unpacking_can_be_repeated_after_it_failed() {
        let (key, folder) = (AeadKey::generate().unwrap(), tempfile::tempdir().unwrap());
        let bytes = packed(&key, &[("a", b"one"), ("b", b"two")]);
        let (path, server) = (folder.path().join("backup"), folder.path().join("server"));
        let try_with = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            free(&server).unwrap();
            unpack(&mut File::open(&path).unwrap(), &key, &server).map_err(|error| error.to_string())
        };
        for cut in [bytes.len() - 1, bytes.len() / 2] {
            assert!(try_with(&bytes[..cut]).is_err());
            assert!(!folder.path().join("server/a").exists(), "{cut}");
        }
        // As if the power had failed between two of the last steps.
        std::fs::write(folder.path().join("server/a"), b"one").unwrap();
        assert_eq!(try_with(&bytes), Ok(2));
        assert_eq!(std::fs::read(folder.path().join("server/a")).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path().join("server")).unwrap().count(), 2);
        assert!(free(&folder.path().join("server")).is_err(), "`finish` begins with an empty folder");
    }

    /// All of it is there and custody was not told, or the server went on with a part: the one is found, the other refused.
    #[test]
    fn a_whole_folder_is_verified_and_nothing_newer_is_written_over() {
        let (key, folder) = (AeadKey::generate().unwrap(), tempfile::tempdir().unwrap());
        let (path, server) = (folder.path().join("backup"), folder.path().join("server"));
        std::fs::write(&path, packed(&key, &[("a", b"one"), ("b", b"two")])).unwrap();
        let again =
            || unpack(&mut File::open(&path).unwrap(), &key, &server).map_err(|error| error.to_string());
        assert_eq!((again(), again()), (Ok(2), Ok(2)));
        assert!(!server.join(UNPACKING).exists());
        for (name, content) in [("a", b"newer"), ("c", b"other")] {
            for half in [false, true] {
                if half {
                    std::fs::create_dir(server.join(UNPACKING)).unwrap();
                }
                let before = std::fs::read(server.join(name)).ok();
                std::fs::write(server.join(name), content).unwrap();
                let refused = again().unwrap_err();
                assert!(refused.contains("is not what the backup holds"), "{refused}");
                assert_eq!(std::fs::read(server.join(name)).unwrap(), content);
                assert_eq!(server.join(UNPACKING).is_dir(), half, "it still says that it is not whole");
                drop(std::fs::remove_dir_all(server.join(UNPACKING)));
                match before {
                    Some(before) => std::fs::write(server.join(name), before).unwrap(),
                    None => std::fs::remove_file(server.join(name)).unwrap(),
                }
            }
        }
        let lock = File::create(server.join("lock")).unwrap();
        let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
        assert!(again().unwrap_err().contains("the server runs"));
    }
}
