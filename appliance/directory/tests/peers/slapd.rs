//! OpenLDAP's server.

use super::certificates::Authority;
use super::{free_port, run, wait_until};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub const SUFFIX: &str = "dc=zixt,dc=test";
pub const READER: &str = "cn=reader,dc=zixt,dc=test";
pub const READER_PASSWORD: &str = "reader's password";
const ADMIN: &str = "cn=admin,dc=zixt,dc=test";
const ADMIN_PASSWORD: &str = "admin's password";

/// A server with a database of its own.
pub struct Slapd {
    folder: TempDir,
    child: Option<Child>,
    pub ldap: u16,
    pub ldaps: u16,
}

impl Slapd {
    /// A server with a certificate of this authority, and with the base of a tree. `settings` go into slapd.conf, the
    /// first part before the database and the second after it.
    pub fn new(authority: &Authority, settings: (&str, &str)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // Debian's AppArmor profile of /usr/sbin/slapd lets it open no other files than those of the system's own
        // server; a profile goes by the path of the program.
        fs::copy("/usr/sbin/slapd", path("slapd"))
            .expect("slapd is installed; scripts/install-deps.sh --test does it");
        fs::create_dir(path("db")).unwrap();
        let (certificate, key) = authority.issue("slapd", "IP:127.0.0.1,DNS:localhost");
        let (before, after) = settings;
        let mut conf = String::new();
        for schema in ["core", "cosine", "nis", "inetorgperson"] {
            writeln!(conf, "include /etc/ldap/schema/{schema}.schema").unwrap();
        }
        write!(
            conf,
            "modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload ppolicy\n\
             TLSCertificateFile {}\nTLSCertificateKeyFile {}\nTLSVerifyClient never\n\
             security simple_bind=64\npidfile {}\n{before}\n\
             database mdb\nsuffix {SUFFIX}\nrootdn {ADMIN}\nrootpw \"{ADMIN_PASSWORD}\"\ndirectory {}\n\
             maxsize 1073741824\ndbnosync\nindex objectClass,uid,entryUUID,entryCSN eq\n{after}\noverlay ppolicy\n",
            certificate.display(),
            key.display(),
            path("pid").display(),
            path("db").display()
        )
        .unwrap();
        fs::write(path("slapd.conf"), conf).unwrap();
        let mut slapd = Self { folder, child: None, ldap: 0, ldaps: 0 };
        slapd.load(&format!(
            "dn: {SUFFIX}\nobjectClass: organization\nobjectClass: dcObject\no: zixt\ndc: zixt\n\n\
             dn: {READER}\nobjectClass: person\ncn: reader\nsn: reader\nuserPassword: {READER_PASSWORD}\n\n\
             dn: ou=people,{SUFFIX}\nobjectClass: organizationalUnit\nou: people\n\n\
             dn: ou=former,{SUFFIX}\nobjectClass: organizationalUnit\nou: former\n\n\
             dn: ou=groups,{SUFFIX}\nobjectClass: organizationalUnit\nou: groups\n"
        ));
        slapd
    }

    /// One that answers.
    pub fn start(authority: &Authority, settings: (&str, &str)) -> Self {
        let mut slapd = Self::new(authority, settings);
        slapd.go();
        slapd
    }

    /// Puts entries into the database of a server that does not run.
    pub fn load(&mut self, ldif: &str) {
        fs::write(self.path("load.ldif"), ldif).unwrap();
        self.load_file();
    }

    /// The file that [`Self::load_file`] reads.
    pub fn ldif_file(&self) -> PathBuf {
        self.path("load.ldif")
    }

    pub fn load_file(&mut self) {
        assert!(self.child.is_none());
        let [program, conf, ldif] = ["slapd", "slapd.conf", "load.ldif"].map(|name| self.path(name));
        run(Command::new(program).args(["-T", "add", "-q", "-f"]).arg(conf).arg("-l").arg(ldif));
    }

    /// Starts it, on ports that are free, or on those that it had.
    pub fn go(&mut self) {
        for _ in 0..10 {
            if self.ldap == 0 {
                (self.ldap, self.ldaps) = (free_port(), free_port());
            }
            let urls = format!(
                "ldap://127.0.0.1:{} ldaps://127.0.0.1:{} {}",
                self.ldap,
                self.ldaps,
                self.socket_url()
            );
            let mut child = Command::new(self.path("slapd"))
                .args(["-d", "0", "-h", &urls, "-f"])
                .arg(self.path("slapd.conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(self.path("log")).unwrap())
                .spawn()
                .unwrap();
            let (ldaps, socket) = (self.ldaps, self.path("socket"));
            if wait_until(&mut child, || TcpStream::connect(("127.0.0.1", ldaps)).is_ok() && socket.exists())
            {
                self.child = Some(child);
                return;
            }
            // Somebody else took the port in between.
            (self.ldap, self.ldaps) = (0, 0);
        }
        panic!("slapd does not start: {}", fs::read_to_string(self.path("log")).unwrap());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn ldaps_url(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.ldaps)
    }

    pub fn starttls_url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.ldap)
    }

    /// Adds, changes, renames and deletes as an LDIF file says (RFC 2849).
    pub fn change(&self, ldif: &str) {
        let mut child = Command::new("ldapmodify")
            .args(["-a", "-x", "-H", &self.socket_url(), "-D", ADMIN, "-w", ADMIN_PASSWORD])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ldapmodify is installed; scripts/install-deps.sh --test does it");
        child.stdin.take().unwrap().write_all(ldif.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{ldif}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn rss_kib(&self) -> u64 {
        rss_kib(self.child.as_ref().unwrap().id())
    }

    fn socket_url(&self) -> String {
        format!("ldapi://{}", self.path("socket").display().to_string().replace('/', "%2F"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process has in memory.
pub fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A person, with the password `password of {uid}`.
pub fn person(uid: &str) -> String {
    format!(
        "dn: uid={uid},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nobjectClass: shadowAccount\nuid: {uid}\n\
         cn: {uid} Person\nsn: Person\nmail: {uid}@zixt.test\nuserPassword: {}\n\n",
        password(uid)
    )
}

pub fn password(uid: &str) -> String {
    format!("password of {uid}")
}

/// A group of these members.
pub fn group(name: &str, members: &[&str]) -> String {
    let members: String = members.iter().map(|member| format!("member: {member}\n")).collect();
    format!("dn: cn={name},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {name}\n{members}\n")
}
