//! Real receivers: rsyslog with TLS, and systemd's journal in a mount namespace of its own.

use super::*;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Names that would forge records where lines or brackets count.
const HOSTILE: [&str; 5] = [
    "a\n<13>1 2026-01-01T00:00:00Z host fake - - - forged",
    "a\r\n12 <13>1 - - - ",
    "x] [forged@1 a=\"b\"] \\",
    "\u{1b}[2K\u{202e}\u{0}",
    "PRIORITY=0\nMESSAGE=forged\n",
];

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Rsyslog {
    process: Option<Running>,
    folder: TempDir,
    address: SocketAddr,
}

impl Rsyslog {
    fn new(authority: &Authority) -> Self {
        let mut folder = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let path = |name: &str| authority.path(name).display().to_string();
            let config = format!(
                "global(workDirectory=\"{folder}\" maxMessageSize=\"16k\" defaultNetstreamDriver=\"gtls\"\n\
                 defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{certificate}\"\n\
                 defaultNetstreamDriverKeyFile=\"{key}\")\n\
                 module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\"\n\
                 streamDriver.authMode=\"x509/certvalid\")\n\
                 input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
                 template(name=\"json\" type=\"string\" string=\"%jsonmesg%\\n\")\n\
                 action(type=\"omfile\" file=\"{folder}/got\" template=\"json\" asyncWriting=\"off\")\n",
                folder = folder.path().display(),
                ca = path("ca.pem"),
                certificate = path("server.pem"),
                key = path("server.key"),
                port = address.port(),
            );
            std::fs::write(folder.path().join("rsyslog.conf"), config).unwrap();
            let mut server = Self { process: None, folder, address };
            if server.start() {
                return server;
            }
            // Somebody else got the port: another one.
            folder = server.folder;
        }
        panic!("rsyslogd cannot be started (scripts/install-deps.sh --test)");
    }

    fn start(&mut self) -> bool {
        let file = |name: &str| self.folder.path().join(name);
        let log = std::fs::File::create(file("log")).unwrap();
        let process = Command::new("/usr/sbin/rsyslogd")
            .args(["-n", "-f", file("rsyslog.conf").to_str().unwrap()])
            .args(["-i", file("pid").to_str().unwrap()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let process = process.unwrap_or_else(|error| panic!("rsyslogd: {error}"));
        let mut process = Running(process);
        let up = until("rsyslogd", || match process.0.try_wait().unwrap() {
            Some(_) => Some(false),
            None => TcpStream::connect(self.address).is_ok().then_some(true),
        });
        self.process = up.then_some(process);
        up
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("got")).unwrap_or_default();
        // The last line may be on its way.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        let number = |record: &Value| sequence(&format!(" {}", record["structured-data"].as_str().unwrap()));
        self.records().iter().map(number).collect()
    }
}

fn whole(numbers: &[u64], last: u64) -> bool {
    (1..=last).all(|number| numbers.contains(&number))
}

#[test]
fn rsyslog_gets_one_record_for_each_whatever_is_in_it() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let rsyslog = Rsyslog::new(&authority);
    let journal = journal(folder.path());
    let last = HOSTILE.iter().fold(0, |_, text| append(&journal, text));
    let mut config = authority.config(rsyslog.address);
    config.syslog[0].certificate = Some(authority.path("client.pem"));
    config.syslog[0].key = Some(authority.path("client.key"));
    let sinks = Prepared::new(&config).unwrap().start(&journal).unwrap();
    until("all records", || whole(&rsyslog.numbers(), last).then_some(()));
    sinks.stop(LONG);
    let records = rsyslog.records();
    assert_eq!(rsyslog.numbers(), (1..=last).collect::<Vec<_>>(), "each once, and in order");
    for record in &records {
        assert_eq!(record["programname"], "zixt-audit", "{record}");
        assert_eq!((&record["syslogfacility"], &record["syslogseverity"]), (&"13".into(), &"5".into()));
        assert!(record["structured-data"].as_str().unwrap().starts_with("[zixt@32473 "), "{record}");
    }
}

#[test]
fn rsyslog_that_is_killed_lacks_nothing_when_it_is_back() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let mut rsyslog = Rsyslog::new(&authority);
    let journal = journal(folder.path());
    let mut config = authority.config(rsyslog.address);
    config.syslog[0].certificate = Some(authority.path("client.pem"));
    config.syslog[0].key = Some(authority.path("client.key"));
    let sinks = Prepared::new(&config).unwrap().start(&journal).unwrap();
    let last = append(&journal, "before");
    until("the first records", || whole(&rsyslog.numbers(), last).then_some(()));
    rsyslog.process = None;
    let last = (0..50).fold(0, |_, _| append(&journal, "meanwhile"));
    let failing = until("a failure", || Some(only(&sinks)).filter(|it| it.state == AuditSinkState::Failing));
    assert!(failing.events_behind >= 50, "{failing:?}");
    assert!(rsyslog.start(), "rsyslogd came back at its port");
    until("all records", || whole(&rsyslog.numbers(), last).then_some(()));
    until("that it keeps up", || {
        let status = only(&sinks);
        (status.state == AuditSinkState::Ok && status.events_behind == 0).then_some(())
    });
}

/// systemd's journal in a mount namespace whose `/run` is a folder of ours.
struct Journald {
    process: Option<Running>,
    folder: TempDir,
}

impl Journald {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("run/systemd/journal")).unwrap();
        let config = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n";
        std::fs::write(folder.path().join("conf"), config).unwrap();
        let mut journald = Self { process: None, folder };
        journald.start();
        journald
    }

    fn start(&mut self) {
        let folder = self.folder.path().display();
        let script = format!(
            "mount --bind {folder}/conf /etc/systemd/journald.conf && mount --bind {folder}/run /run && \
             exec /lib/systemd/systemd-journald"
        );
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let mut process = Running(process.unwrap());
        until("systemd-journald", || {
            let ended = process.0.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.folder.path().join("log"));
            assert!(ended.is_none(), "systemd-journald ended: {:?}", log());
            UnixDatagram::unbound().unwrap().connect(self.socket()).is_ok().then_some(())
        });
        self.process = Some(process);
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/systemd/journal/socket")
    }

    fn records(&self) -> Vec<Value> {
        let logs = self.folder.path().join("run/log/journal");
        let matches = ["-o", "json", "--no-pager", "SYSLOG_IDENTIFIER=zixt-audit"];
        let read = Command::new("journalctl").arg("-D").arg(logs).args(matches).output().unwrap();
        let text = String::from_utf8(read.stdout).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        let number = |record: &Value| record["ZIXT_SEQ"].as_str().unwrap().parse().unwrap();
        self.records().iter().map(number).collect()
    }
}

#[test]
fn systemds_journal_gets_fields_and_nothing_breaks_out_of_them() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "ZIXT-SKIP: systemds_journal_gets_fields_and_nothing_breaks_out_of_them: needs root for a mount namespace"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut journald = Journald::new();
    let journal = journal(folder.path());
    let last = HOSTILE.iter().fold(0, |_, text| append(&journal, text));
    let config = AuditConfig { journald: true, journald_socket: journald.socket(), ..AuditConfig::default() };
    let sinks = Prepared::new(&config).unwrap().start(&journal).unwrap();
    until("all records", || whole(&journald.numbers(), last).then_some(()));
    let records = journald.records();
    assert_eq!(journald.numbers(), (1..=last).collect::<Vec<_>>());
    for record in &records {
        assert_eq!(
            (&record["PRIORITY"], &record["SYSLOG_FACILITY"]),
            (&"5".into(), &"13".into()),
            "{record}"
        );
        assert!(record["MESSAGE"].as_str().unwrap().contains(" ok by "), "{record}");
        assert!(record["ZIXT_CHAIN"].is_string() && record["ZIXT_HASH"].is_string(), "{record}");
    }
    let told = records.iter().filter(|record| record["ZIXT_D_TOLD"].is_string()).count();
    assert_eq!(told, HOSTILE.len(), "{records:#?}");

    // Killed, and started again: health says so meanwhile, and nothing is missing after.
    journald.process = None;
    let last = append(&journal, "meanwhile");
    let failing = until("a failure", || Some(only(&sinks)).filter(|it| it.state == AuditSinkState::Failing));
    assert_eq!((failing.name.as_str(), failing.events_behind > 0), ("journald", true));
    journald.start();
    until("all records", || whole(&journald.numbers(), last).then_some(()));
    sinks.stop(LONG);
}
