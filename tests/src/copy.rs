//! A copy of an appliance and of its people, so that each attack begins with the same state.

use crate::{Appliance, Person};
use std::fs;
use std::path::Path;

impl Appliance {
    /// A copy of this appliance, which must not run: custody, token, server and people, in folders of its own. It
    /// listens at the same address, because that is where the people look for it; so one of all copies runs at a time.
    #[must_use]
    pub fn copy(&self) -> Self {
        assert!(self.pids() == (None, None), "a running appliance's files are not all written");
        let folder = tempfile::Builder::new().prefix("zixt-").tempdir().expect("a folder");
        copy_folder(&self.state(), &folder.path().join("state"));
        copy_folder(&self.folder().join("people"), &folder.path().join("people"));
        assert!(self.tpm.is_none(), "a TPM has no copy");
        let copy = Self {
            folder,
            listen: self.listen,
            hsmd: None,
            zixtd: None,
            profile: self.profile.clone(),
            tpm: None,
            token: self.token,
        };
        copy.write_configuration();
        copy
    }

    /// A person who has a store here already.
    #[must_use]
    pub fn known(&self, name: &str) -> Person<'_> {
        Person { appliance: self, name: name.to_owned(), store: self.folder().join("people").join(name) }
    }

    /// Waits until the server is healthy, or has ended; says which.
    #[must_use]
    pub fn comes_up(&mut self) -> bool {
        let mut ended = false;
        let mut child = self.zixtd.take().expect("zixtd was started");
        self.until("zixtd is healthy or ends", || {
            ended = child.try_wait().expect("its status").is_some();
            ended || self.admin(&["status", "--json"]).status.success()
        });
        self.zixtd = (!ended).then_some(child);
        !ended
    }
}

/// Copies a folder with everything in it but sockets.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("its entries");
        let (kind, to) = (entry.file_type().expect("its type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
    let permissions = fs::metadata(from).expect("its permissions").permissions();
    fs::set_permissions(to, permissions).expect("permissions");
}
