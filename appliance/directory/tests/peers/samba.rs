//! Samba as a domain controller of Active Directory. It has fixed ports, so it lives in a network namespace that the
//! whole test program moves into.

use super::certificates::Authority;
use super::{run, wait_until};
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub const DOMAIN_DN: &str = "DC=zixt,DC=test";
pub const ADMIN_DN: &str = "CN=Administrator,CN=Users,DC=zixt,DC=test";
pub const ADMIN_PASSWORD: &str = "Passw0rd.of.the.administrator";
pub const URL: &str = "ldaps://127.0.0.1:636";

const INSIDE: &str = "ZIXT_TEST_NETWORK";

/// Whether this is root. Setting up a domain switches between users, which a namespace of one user's own does not allow.
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line == "Uid:\t0\t0\t0\t0")
}

/// Runs a test again in a network of its own. `false` in the outer run, which has then succeeded.
pub fn in_a_network_of_its_own(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        return true;
    }
    let output = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let ran = said.contains("1 passed");
    assert!(output.status.success() && ran, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// A domain controller of a new domain.
pub struct Samba {
    folder: TempDir,
    child: Child,
    authority: PathBuf,
}

impl Samba {
    pub fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // Without a file of its own it would take the system's.
        let base = path("base.conf");
        let dirs: String = [
            ("state directory", "state"),
            ("cache directory", "cache"),
            ("lock directory", "lock"),
            ("pid directory", "pid"),
            ("private dir", "private"),
            ("ncalrpc dir", "ncalrpc"),
            ("ntp signd socket directory", "ntp"),
            ("winbindd socket directory", "winbind"),
        ]
        .iter()
        .map(|(setting, name)| {
            fs::create_dir_all(path(name)).unwrap();
            format!("{setting} = {}\n", path(name).display())
        })
        .collect();
        let (certificate, key) = authority.issue("samba", "IP:127.0.0.1,DNS:dc.zixt.test");
        // Samba wants a key that nobody else reads.
        run(Command::new("chmod").arg("600").arg(&key));
        let more = format!(
            "{dirs}log file = {}\nvfs objects = dfs_samba4 acl_xattr xattr_tdb\nxattr_tdb:file = {}\n\
             server services = ldap, cldap\ninterfaces = lo\nbind interfaces only = yes\n\
             tls enabled = yes\ntls certfile = {}\ntls keyfile = {}\ntls cafile = {}\n",
            path("log").display(),
            path("xattr.tdb").display(),
            certificate.display(),
            key.display(),
            authority.pem_file().display()
        );
        fs::write(&base, format!("[global]\nnetbios name = DC\nworkgroup = ZIXT\nrealm = ZIXT.TEST\n{more}"))
            .unwrap();
        run(Command::new("samba-tool").args(["domain", "provision", "-s"]).arg(&base).args([
            "--realm=ZIXT.TEST",
            "--domain=ZIXT",
            "--host-name=dc",
            "--host-ip=127.0.0.1",
            "--server-role=dc",
            "--dns-backend=NONE",
            &format!("--adminpass={ADMIN_PASSWORD}"),
            &format!("--targetdir={}", folder.path().join("domain").display()),
        ]));
        // The domain's own file, with what the base said where it left that out.
        let conf = folder.path().join("domain/etc/smb.conf");
        let written = fs::read_to_string(&conf).unwrap();
        let missing: String = more
            .lines()
            .filter(|line| {
                let setting = line.split(" =").next().unwrap_or_default();
                !written.lines().any(|have| have.trim().starts_with(setting))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&conf, written.replacen("[global]\n", &format!("[global]\n{missing}"), 1)).unwrap();
        let log = fs::File::create(folder.path().join("samba.log")).unwrap();
        let mut child = Command::new("samba")
            .args(["--interactive", "--no-process-group", "--debug-stdout", "-s"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("samba is installed; scripts/install-deps.sh --test does it");
        let ready = wait_until(&mut child, || TcpStream::connect(("127.0.0.1", 636)).is_ok());
        let samba = Self { folder, child, authority: authority.pem_file() };
        assert!(ready, "samba does not start: {}", fs::read_to_string(samba.path("samba.log")).unwrap());
        samba
    }

    /// Runs `samba-tool` on the domain.
    pub fn tool(&self, arguments: &[&str]) {
        run(Command::new("samba-tool").args(arguments).arg("-s").arg(self.conf()));
    }

    /// Adds, changes, renames and deletes as an LDIF file says (RFC 2849).
    pub fn change(&self, ldif: &str) {
        let file = self.path("change.ldif");
        fs::write(&file, ldif).unwrap();
        run(Command::new("ldapmodify")
            .env("LDAPTLS_CACERT", &self.authority)
            .args(["-a", "-x", "-H", URL, "-D", ADMIN_DN, "-w", ADMIN_PASSWORD, "-f"])
            .arg(&file));
    }

    fn conf(&self) -> PathBuf {
        self.path("domain/etc/smb.conf")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        // It and its children are a group of their own.
        let group = format!("kill -KILL -{}", self.child.id());
        let _ = Command::new("sh").args(["-c", &group]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
