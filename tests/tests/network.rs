//! No program of an appliance goes out: the verifier needs no network at all, the custody daemon has no network socket,
//! and the server has its one listener and whoever came to it.
#![allow(clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use zixt_tests::story::{self, genesis_of};
use zixt_tests::{Appliance, text};

/// An IP socket of a process.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    protocol: &'static str,
    /// As the kernel writes it: address and port in hexadecimal.
    local: String,
    remote: String,
    state: String,
}

/// What the kernel calls a listening socket.
const LISTEN: &str = "0A";

/// The IP sockets that a process holds, of every kind that the kernel lists.
fn sockets(pid: u32) -> BTreeSet<Socket> {
    let held: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its files")
        .filter_map(|file| {
            let link = fs::read_link(file.ok()?.path()).ok()?;
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    assert!(!held.is_empty(), "a daemon without any socket: its files were not read");
    let kinds = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6", "udplite", "udplite6"];
    let mut found = BTreeSet::new();
    for protocol in kinds {
        // A kernel without IPv6 has no such file, and no such socket.
        let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")) else { continue };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, state, _, _, _, _, _, inode, ..] = fields[..] else { continue };
            if held.contains(inode) {
                let [local, remote, state] = [local, remote, state].map(str::to_owned);
                found.insert(Socket { protocol, local, remote, state });
            }
        }
    }
    // Packet sockets see every frame of an interface.
    let packets = fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
    for line in packets.lines().skip(1) {
        let inode = line.split_whitespace().last().unwrap_or_default();
        assert!(!held.contains(inode), "process {pid} holds a packet socket: {line}");
    }
    found
}

#[test]
fn the_daemons_open_no_connection() {
    let appliance = Appliance::lab();
    story::tell(&appliance, &mut |_| {});
    let (zixtd, hsmd) = appliance.pids();
    let (zixtd, hsmd) = (zixtd.expect("zixtd"), hsmd.expect("zixt-hsmd"));

    assert_eq!(sockets(hsmd), BTreeSet::new(), "custody has no business on any network");

    // Whoever is connected came to the listener: its port is the local one. A connection that zixtd had opened itself
    // would have a port of its own.
    let own = sockets(zixtd);
    let port = format!(":{:04X}", appliance.listen().port());
    let listening: Vec<_> = own.iter().filter(|socket| socket.state == LISTEN).collect();
    assert_eq!(listening.len(), 1, "{own:#?}");
    for socket in &own {
        assert!(socket.protocol.starts_with("tcp") && socket.local.ends_with(&port), "{socket:?}");
    }
    assert!(listening[0].local.starts_with("0100007F:"), "a lab listens on loopback only: {own:?}");
}

#[test]
fn the_verifier_works_in_an_empty_network_namespace() {
    let appliance = Appliance::lab();
    let (alice, bob) = (appliance.person("alice"), appliance.person("bob"));
    alice.must(&["send", "bob", "No network is needed for this."]);
    bob.must(&["sync"]);
    let file = appliance.folder().join("talk.zixt-evidence");
    let path = file.to_str().expect("a path");
    alice.must(&["evidence", "export", "bob", "--with-content", "-o", path]);
    let verify = appliance.command("zixt-verify");
    let arguments = ["--genesis", &genesis_of(&alice), "--content", path];

    if !isolated(&["true"]).output().is_ok_and(|output| output.status.success()) {
        let line = "ZIXT-SKIP: the_verifier_works_in_an_empty_network_namespace: this user may not make namespaces\n";
        std::io::stderr().write_all(line.as_bytes()).expect("past the test harness");
        let output = appliance.command("zixt-verify").args(arguments).output().expect("zixt-verify runs");
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    // The control: in there, not even the appliance on loopback can be reached.
    let reach = format!("exec 3<>/dev/tcp/127.0.0.1/{}", appliance.listen().port());
    assert!(!isolated(&["bash", "-c", &reach]).output().expect("bash runs").status.success());
    let here = Command::new("bash").args(["-c", &reach]).output().expect("bash runs");
    assert!(here.status.success(), "{}", text(&here));

    let program = verify.get_program().to_str().expect("a path");
    let output = isolated(&[program]).args(arguments).output().expect("zixt-verify runs");
    assert!(output.status.success(), "{}", text(&output));
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("No network is needed for this."), "{report}");
}

/// A program in a network namespace that has nothing in it, not even a loopback interface that is up.
fn isolated(program: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").args(program);
    command
}
