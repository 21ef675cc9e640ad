//! What is written here is read back by a strict reader of the grammar of RFC 5424 section 6.

use super::*;
use crate::testing::{any_event, event};
use crate::{Details, Event, Gap, GapReason, Record, Sequence, Text, Value};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use zixt_types::Canonical as _;

fn format() -> Format {
    Format {
        hostname: "box-1".to_owned(),
        program: "zixtd".to_owned(),
        process: "42".to_owned(),
        enterprise: 32473,
        chain: Hash([1; 48]),
    }
}

fn record(event: &Event) -> Record {
    Record::new(Sequence(7), Hash::ZERO, event.to_bytes())
}

fn message(event: &Event) -> Vec<u8> {
    format().message(Delivery::Event(&record(event), event))
}

#[derive(Debug)]
struct Parsed {
    header: Vec<String>,
    params: Vec<(String, String)>,
    text: String,
}

impl Parsed {
    fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one message and refuses everything that the grammar or our own promises do not allow.
fn parse(message: &[u8]) -> Parsed {
    assert!(message.len() <= limits::SYSLOG_BYTES_MAX);
    let message = std::str::from_utf8(message).unwrap();
    let (header, rest) = message.split_once(" [").unwrap();
    let header: Vec<String> = header.split(' ').map(str::to_owned).collect();
    assert_eq!(header.len(), 6, "{header:?}");
    assert!(header.iter().all(|field| !field.is_empty() && field.bytes().all(|b| (33..=126).contains(&b))));
    let mut chars = rest.strip_prefix("zixt@32473").unwrap().chars();
    let mut params = Vec::new();
    loop {
        match chars.next().unwrap() {
            ']' => break,
            ' ' => {}
            other => panic!("{other:?} between parameters"),
        }
        let name: String = chars.by_ref().take_while(|c| *c != '=').collect();
        assert!(
            (1..=32).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_graphic() && !b"]\"".contains(&b))
        );
        assert_eq!(chars.next(), Some('"'));
        let mut value = String::new();
        loop {
            match chars.next().unwrap() {
                '"' => break,
                ']' => panic!("an open bracket in a value"),
                '\\' => match chars.next().unwrap() {
                    c @ ('"' | '\\' | ']') => value.push(c),
                    other => panic!("\\{other}"),
                },
                c => value.push(c),
            }
        }
        assert!(!params.iter().any(|(other, _)| *other == name), "{name} twice");
        params.push((name, value));
    }
    let text = chars.as_str().strip_prefix(' ').unwrap().strip_prefix(BOM).unwrap();
    // Nothing hidden anywhere but that one mark: no line end, no NUL, no direction mark.
    assert!(!message.replacen(BOM, "", 1).chars().any(crate::text::is_hidden), "{message:?}");
    Parsed { header, params, text: text.to_owned() }
}

#[test]
fn a_message_as_a_receiver_reads_it() {
    let mut event = event(5);
    event.outcome = Outcome::Refused(crate::Code::new("wrong-password").unwrap());
    let parsed = parse(&message(&event));
    assert_eq!(parsed.header, ["<108>1", "2026-11-22T23:22:25.123Z", "box-1", "zixtd", "42", "sign-in"]);
    for (name, value) in [("seq", "7"), ("outcome", "refused"), ("code", "wrong-password"), ("d_number", "5")]
    {
        assert_eq!(parsed.get(name), Some(value), "{name}");
    }
    assert_eq!(parsed.text, "sign-in refused (wrong-password) by nobody known at the console");
}

#[test]
fn nothing_that_is_logged_breaks_out() {
    for attack in [
        "a\n<13>1 - fake fake - - - forged",
        "\r\n\r\n",
        "]",
        "\"",
        "\\",
        "\\\"]",
        "\"] \u{feff}forged",
        "\0",
        "\u{1b}[2J",
        "\u{202e}gpj.exe",
        "\u{2028}\u{2029}\u{85}\u{7f}",
    ] {
        let escaped = Text::escaped(attack);
        let details = Details::none().with("user_name", Value::Text(escaped.clone())).unwrap();
        let parsed = parse(&message(&Event { details, ..event(1) }));
        assert_eq!(parsed.get("d_user_name"), Some(escaped.as_str()), "{attack:?}");
        // Also where no type stands in front: the appliance's own name, an error's text, a gap's reason.
        let evil = Format { hostname: attack.to_owned(), program: attack.to_owned(), ..format() };
        parse(&evil.message(Delivery::Event(&record(&event(1)), &event(1))));
        let gap =
            Gap { first: Sequence(1), last: Sequence(2), reason: GapReason::Damaged(attack.to_owned()) };
        let parsed = parse(&format().message(Delivery::Gap(&gap)));
        assert_eq!((parsed.get("gap_first"), parsed.get("gap_last")), (Some("1"), Some("2")));
        let name = param("x", attack);
        assert!(!name.chars().any(crate::text::is_hidden));
    }
    let invalid = Text::escaped_bytes(b"\xff\xfe\xc0\x80");
    let details = Details::none().with("user_name", Value::Text(invalid)).unwrap();
    let parsed = parse(&message(&Event { details, ..event(1) }));
    assert_eq!(parsed.get("d_user_name"), Some("\\x{ff}\\x{fe}\\x{c0}\\x{80}"));
}

#[test]
fn a_message_that_is_too_long_leaves_out_details_whole_and_says_how_many() {
    // A backslash takes two bytes in a value: sixteen such texts do not fit.
    let mut details = Details::none();
    for place in 0..16 {
        let text = Text::new(&"\\".repeat(limits::TEXT_BYTES_MAX)).unwrap();
        details = details.with(&format!("text_{place:02}"), Value::Text(text)).unwrap();
    }
    let parsed = parse(&message(&Event { details, ..event(1) }));
    let omitted: usize = parsed.get("omitted").unwrap().parse().unwrap();
    let kept = parsed.params.iter().filter(|(name, _)| name.starts_with("d_")).collect::<Vec<_>>();
    assert_eq!(kept.len() + omitted, 16);
    assert!(omitted > 0 && kept.iter().all(|(_, value)| value.len() == limits::TEXT_BYTES_MAX));
}

#[test]
fn a_clock_beyond_every_calendar_has_no_timestamp() {
    let event = Event { when: crate::testing::when(u64::MAX), ..event(1) };
    assert_eq!(parse(&message(&event)).header[1], "-");
}

#[test]
fn frames_tell_their_length() {
    assert_eq!(octet_counted("ä".as_bytes()), b"2 \xc3\xa4");
}

/// Splits a stream by its octet counts.
fn frames(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let space = stream.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&stream[..space]).unwrap().parse().unwrap();
        frames.push(stream[space + 1..space + 1 + length].to_vec());
        stream = &stream[space + 1 + length..];
    }
    frames
}

#[derive(Clone, Default)]
struct Network {
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The connection breaks after so many bytes.
    breaks_after: Arc<Mutex<Option<usize>>>,
}

impl Connect for Network {
    fn connect(&mut self) -> io::Result<Box<dyn Write + Send>> {
        self.connections.lock().unwrap().push(Vec::new());
        Ok(Box::new(self.clone()))
    }
}

impl Write for Network {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut connections = self.connections.lock().unwrap();
        let connection = connections.last_mut().unwrap();
        let room =
            self.breaks_after.lock().unwrap().map_or(bytes.len(), |max| max.saturating_sub(connection.len()));
        if room == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(room);
        connection.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_connection_is_not_used_again() {
    let network = Network::default();
    let mut sink = SyslogSink::new(format(), network.clone());
    let event = event(1);
    let record = record(&event);
    *network.breaks_after.lock().unwrap() = Some(100);
    assert!(sink.deliver(Delivery::Event(&record, &event)).is_err());
    *network.breaks_after.lock().unwrap() = None;
    sink.deliver(Delivery::Event(&record, &event)).unwrap();
    sink.deliver(Delivery::Event(&record, &event)).unwrap();
    sink.flush().unwrap();
    let connections = network.connections.lock().unwrap();
    assert_eq!((connections.len(), connections[0].len()), (2, 100));
    let frames = frames(&connections[1]);
    assert_eq!(frames.len(), 2);
    frames.iter().for_each(|frame| drop(parse(frame)));
}

proptest! {
    #[test]
    fn every_event_is_one_strict_message(event in any_event()) {
        let parsed = parse(&message(&event));
        prop_assert_eq!(parsed.header[5].as_str(), event.action.name());
        let omitted = parsed.get("omitted").map_or(0, |omitted| omitted.parse().unwrap());
        let told = parsed.params.iter().filter(|(name, _)| name.starts_with("d_")).count();
        prop_assert_eq!(told + omitted, event.details.list().len());
        for (key, value) in event.details.list() {
            if let Some(told) = parsed.get(&format!("d_{key}")) {
                prop_assert_eq!(told, value.to_string());
            }
        }
    }
}
