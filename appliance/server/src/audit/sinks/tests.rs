//! Sinks before receivers that work, hang, die and lie, and before real ones.

mod real;

use super::super::testing::{Authority, LONG, Received, accept, append, journal, message, sequence, until};
use super::*;
use std::collections::BTreeSet;
use std::net::TcpListener;

/// A sink that loses patience soon.
fn start(config: &AuditConfig, journal: &Journal, step: Duration) -> Sinks {
    let mut prepared = Prepared::new(config).unwrap();
    for (_, target) in &mut prepared.syslog {
        target.waits.step = step;
    }
    prepared.start(journal).unwrap()
}

fn only(sinks: &Sinks) -> AuditSink {
    sinks.status().remove(0)
}

/// Reads until every record up to `last` came at least once, and gives all messages.
fn read_up_to(stream: &mut Received, last: u64, seen: &mut BTreeSet<u64>) -> Vec<String> {
    let mut messages = Vec::new();
    while (1..=last).any(|number| !seen.contains(&number)) {
        let message = message(stream).unwrap().expect("more messages");
        seen.insert(sequence(&message));
        messages.push(message);
    }
    messages
}

#[test]
fn records_go_over_hybrid_tls_one_message_each_and_the_end_is_said() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let journal = journal(folder.path());
    let mut last = 0;
    for text in ["plain", "two\nlines", "<13>1 - - fake - - - [x y=\"z\"] \u{202e}", "é]\"\\"] {
        last = append(&journal, text);
    }
    let sinks = start(&authority.config(listener.local_addr().unwrap()), &journal, LONG);
    let mut stream = accept(&listener, &authority.server(false)).unwrap();
    let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(stream.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let messages = read_up_to(&mut stream, last, &mut BTreeSet::new());
    assert_eq!(messages.len() as u64, last, "each of them once");
    for message in &messages {
        assert!(message.starts_with("<109>1 ") && !message.contains(['\n', '\u{202e}']), "{message}");
        assert!(message.contains(" zixt-audit ") && message.contains("[zixt@32473 chain=\""), "{message}");
    }
    until("that it keeps up", || (only(&sinks).state == AuditSinkState::Ok).then_some(()));
    let stopped = std::thread::spawn(move || sinks.stop(LONG));
    assert_eq!(message(&mut stream).unwrap(), None, "the end is a close_notify");
    stopped.join().unwrap();
}

#[test]
fn a_receiver_that_never_answers_holds_up_nobody_and_is_named() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let journal = journal(folder.path());
    let sinks = start(&authority.config(silent.local_addr().unwrap()), &journal, Duration::from_millis(200));
    // Connections are made by the kernel; nobody ever answers on them.
    let failing = until("a failure", || Some(only(&sinks)).filter(|it| it.state == AuditSinkState::Failing));
    assert!(failing.last_error.unwrap().contains("too slow"), "{:?}", only(&sinks).last_error);
    assert!(failing.since.is_some());
    for _ in 0..20 {
        append(&journal, "goes on");
    }
    let behind = only(&sinks);
    assert_eq!(behind.name, "siem");
    assert_eq!((behind.events_behind, behind.delivered), (journal.head().sequence.0, 0));
    // It hangs, and the end does not wait for it for ever.
    sinks.stop(Duration::from_millis(300));
}

#[test]
fn what_a_receiver_that_dies_in_the_middle_may_have_lost_comes_again() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let journal = journal(folder.path());
    let last = (0..40).fold(0, |_, _| append(&journal, "x"));
    let sinks = start(&authority.config(listener.local_addr().unwrap()), &journal, LONG);
    let server = authority.server(false);
    let mut dies = accept(&listener, &server).unwrap();
    let first = message(&mut dies).unwrap().unwrap();
    // Half a message was read; what the kernels hold of the rest is gone.
    io::Read::read_exact(&mut dies, &mut [0; 100]).unwrap();
    drop(dies);
    // A sink without news finds out at its next look; a record makes it look now.
    let last = last.max(append(&journal, "news"));
    let mut stream = accept(&listener, &server).unwrap();
    let messages = read_up_to(&mut stream, last, &mut BTreeSet::new());
    assert_eq!(messages.first().map(|it| sequence(it)), Some(sequence(&first)), "from the start again");
    until("that it keeps up", || {
        let status = only(&sinks);
        (status.state == AuditSinkState::Ok && status.events_behind == 0).then_some(())
    });
}

#[test]
fn a_slow_receiver_is_behind_by_a_number_until_it_has_everything() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let journal = journal(folder.path());
    let sinks = start(&authority.config(listener.local_addr().unwrap()), &journal, LONG);
    let mut stream = accept(&listener, &authority.server(false)).unwrap();
    // It reads nothing: the buffers of both kernels fill up.
    let mut last = 0;
    let behind = until("that it is behind", || {
        last = append(&journal, &"slow".repeat(60));
        Some(only(&sinks)).filter(|it| it.state == AuditSinkState::Behind && it.events_behind > 0)
    });
    assert!(behind.seconds_behind >= 1 && behind.last_error.is_none(), "{behind:?}");
    let messages = read_up_to(&mut stream, last, &mut BTreeSet::new());
    assert!(messages.len() as u64 >= last);
    until("that it keeps up", || {
        let status = only(&sinks);
        (status.state == AuditSinkState::Ok && status.events_behind == 0).then_some(())
    });
}

#[test]
fn nothing_is_sent_to_whom_the_authority_does_not_vouch_for() {
    let (ours, others) = (Authority::new(), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let wrong_name = {
        let mut config = ours.config(address);
        config.syslog[0].server_name = "other.test".into();
        config
    };
    for (config, server) in [(ours.config(address), &others), (wrong_name, &ours)] {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        append(&journal, "secret");
        let sinks = start(&config, &journal, LONG);
        let refused = accept(&listener, &server.server(false)).map(|mut stream| message(&mut stream));
        assert!(matches!(refused, Err(_) | Ok(Err(_))), "{refused:?}");
        let failing =
            until("a failure", || Some(only(&sinks)).filter(|it| it.state == AuditSinkState::Failing));
        assert!(failing.last_error.unwrap().contains("certificate"), "{:?}", only(&sinks).last_error);
        assert_eq!(failing.delivered, 0);
    }
}

#[test]
fn a_client_certificate_is_shown_to_whom_asks() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let journal = journal(folder.path());
    let last = append(&journal, "x");
    let mut config = authority.config(listener.local_addr().unwrap());
    config.syslog[0].certificate = Some(authority.path("client.pem"));
    config.syslog[0].key = Some(authority.path("client.key"));
    let _sinks = start(&config, &journal, LONG);
    let mut stream = accept(&listener, &authority.server(true)).unwrap();
    assert!(stream.conn.peer_certificates().is_some());
    read_up_to(&mut stream, last, &mut BTreeSet::new());
}

#[test]
fn a_wrong_configuration_is_named_at_the_start() {
    let authority = Authority::new();
    let address = "127.0.0.1:6514".parse().unwrap();
    let refused = |change: &dyn Fn(&mut SyslogTarget)| {
        let mut config = authority.config(address);
        change(&mut config.syslog[0]);
        Prepared::new(&config).err().unwrap()
    };
    let missing = refused(&|target| target.ca = authority.path("none.pem"));
    assert!(missing.to_string().contains("audit sink siem: cannot read"), "{missing}");
    let no_certificate = refused(&|target| target.ca = authority.path("ca.key"));
    assert!(matches!(no_certificate, SinkError::Tls { source: PkixError::NoCertificate(_), .. }));
    let other_key = refused(&|target| {
        target.certificate = Some(authority.path("client.pem"));
        target.key = Some(authority.path("server.key"));
    });
    assert!(matches!(other_key, SinkError::Tls { source: PkixError::Identity(_), .. }), "{other_key:?}");
    let half = refused(&|target| target.key = Some(authority.path("client.key")));
    assert!(matches!(half, SinkError::Wrong { .. }));
}

#[test]
fn a_journal_that_is_away_is_named_and_gets_everything_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let journal = journal(&folder.path().join("audit"));
    let config = AuditConfig { journald: true, journald_socket: path.clone(), ..AuditConfig::default() };
    let sinks = Prepared::new(&config).unwrap().start(&journal).unwrap();
    let last = append(&journal, "x");
    let failing = until("a failure", || Some(only(&sinks)).filter(|it| it.state == AuditSinkState::Failing));
    assert_eq!((failing.kind, failing.name.as_str()), (AuditSinkKind::Journald, "journald"));
    assert!(failing.last_error.is_some() && failing.events_behind > 0);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut seen = BTreeSet::new();
    let mut datagram = vec![0; 64 * 1024];
    while !(1..=last).all(|number| seen.contains(&number)) {
        let length = socket.recv(&mut datagram).unwrap();
        let text = std::str::from_utf8(&datagram[..length]).unwrap();
        assert!(text.starts_with("MESSAGE=") && text.contains("\nSYSLOG_IDENTIFIER=zixt-audit\n"), "{text}");
        let (_, number) = text.split_once("\nZIXT_SEQ=").unwrap();
        seen.insert(number.lines().next().unwrap().parse::<u64>().unwrap());
    }
    until("that it keeps up", || (only(&sinks).state == AuditSinkState::Ok).then_some(()));
}
