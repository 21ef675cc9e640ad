//! A certification authority of a test's own, made with the `openssl` program.

use super::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// An authority and what it has issued.
pub struct Authority {
    folder: TempDir,
}

const SETTINGS: &str = "\
[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = zixt test\n\
[ca]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n";

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("settings"), SETTINGS).unwrap();
        let authority = Self { folder };
        run(authority.openssl().args([
            "req",
            "-x509",
            "-config",
            "settings",
            "-extensions",
            "ca",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=zixt test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]));
        authority
    }

    /// The authority's certificate, as a setting names it.
    pub fn pem(&self) -> Vec<u8> {
        fs::read(self.pem_file()).unwrap()
    }

    pub fn pem_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Issues a certificate for these names (`IP:127.0.0.1,DNS:localhost`); gives the files of certificate and key.
    pub fn issue(&self, stem: &str, names: &str) -> (PathBuf, PathBuf) {
        let file = |kind: &str| format!("{stem}.{kind}");
        run(self.openssl().args([
            "req",
            "-new",
            "-config",
            "settings",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=zixt test directory",
            "-keyout",
            &file("key"),
            "-out",
            &file("csr"),
        ]));
        fs::write(
            self.path(&file("ext")),
            format!("subjectAltName = {names}\nextendedKeyUsage = serverAuth\n"),
        )
        .unwrap();
        run(self.openssl().args([
            "x509",
            "-req",
            "-in",
            &file("csr"),
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            &file("ext"),
            "-out",
            &file("pem"),
        ]));
        (self.path(&file("pem")), self.path(&file("key")))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path());
        command
    }
}
