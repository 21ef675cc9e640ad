//! Records as systemd's journal takes them: one datagram of fields (systemd's native journal protocol). A value with a
//! line end in it is sent with its length, so that no value can begin a field.

use crate::fields::{fields, sentence};
use crate::text::visible;
use crate::{Delivery, Outcome};
use zixt_types::Hash;

/// RFC 5424 table 1: log audit.
const FACILITY_LOG_AUDIT: u8 = 13;
/// The longest name of a field that systemd's journal takes.
const NAME_BYTES_MAX: usize = 64;

/// One datagram. Its fields are `MESSAGE`, `PRIORITY`, `SYSLOG_FACILITY`, `SYSLOG_IDENTIFIER`, and `ZIXT_…` for everything
/// that the other forms have; `ZIXT_CHAIN` and `ZIXT_SEQ` name the record.
#[must_use]
pub fn datagram(program: &str, chain: Hash, delivery: Delivery<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let (priority, message) = match delivery {
        Delivery::Event(_, event) => {
            let priority = match event.outcome {
                Outcome::Ok => 5,
                Outcome::Refused(_) => 4,
                Outcome::Failed(_) => 3,
            };
            (priority, sentence(event))
        }
        Delivery::Unreadable(record, error) => {
            (4, format!("record {} cannot be read: {error}", record.sequence))
        }
        Delivery::Gap(gap) => {
            (3, format!("records {} to {} are not delivered: {}", gap.first, gap.last, gap.reason))
        }
    };
    field(&mut out, "MESSAGE", &visible(&message));
    field(&mut out, "PRIORITY", &priority.to_string());
    field(&mut out, "SYSLOG_FACILITY", &FACILITY_LOG_AUDIT.to_string());
    field(&mut out, "SYSLOG_IDENTIFIER", program);
    let mut ours = |name: &str, value: &str| field(&mut out, &field_name(name), &visible(value));
    ours("chain", &chain.to_string());
    match delivery {
        Delivery::Event(record, event) => {
            for (key, value) in fields(record, event) {
                ours(key, &value.to_string());
            }
            for (key, value) in event.details.list() {
                ours(&format!("d_{key}"), &value.to_string());
            }
        }
        Delivery::Unreadable(record, _) => {
            ours("seq", &record.sequence.to_string());
            ours("hash", &record.hash.to_string());
        }
        Delivery::Gap(gap) => {
            ours("gap_first", &gap.first.to_string());
            ours("gap_last", &gap.last.to_string());
        }
    }
    out
}

/// `ZIXT_` and the name in capitals. The journal takes letters, digits and underscores; a field of another name is dropped
/// silently.
fn field_name(name: &str) -> String {
    let capital = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    "ZIXT_".chars().chain(name.chars().map(capital)).take(NAME_BYTES_MAX).collect()
}

/// `NAME=value`, or the name, the length in 64 bits little-endian and the value. Each ends its line.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_event;
    use crate::{Gap, GapReason, Record, Sequence};
    use proptest::prelude::*;
    use zixt_types::Canonical as _;

    /// The datagram taken apart as the protocol's text says.
    fn parse(mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')).unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let (value, rest) = if bytes[end] == b'=' {
                let length = bytes[end + 1..].iter().position(|byte| *byte == b'\n').unwrap();
                (&bytes[end + 1..end + 1 + length], &bytes[end + 1 + length..])
            } else {
                let (length, rest) = bytes[end + 1..].split_first_chunk::<8>().unwrap();
                rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap())
            };
            found.push((name, String::from_utf8(value.to_vec()).unwrap()));
            bytes = rest.strip_prefix(b"\n").unwrap();
        }
        found
    }

    #[test]
    fn a_value_with_a_line_end_begins_no_field() {
        let mut out = Vec::new();
        field(&mut out, "A", "one\nPRIORITY=0\n");
        field(&mut out, "B", "two");
        let expected = [("A".to_owned(), "one\nPRIORITY=0\n".to_owned()), ("B".to_owned(), "two".to_owned())];
        assert_eq!(parse(&out), expected);
    }

    #[test]
    fn a_gap_and_an_unreadable_record_name_their_numbers() {
        let gap = Gap { first: Sequence(3), last: Sequence(9), reason: GapReason::Removed };
        let fields = parse(&datagram("zixt-audit", Hash::ZERO, Delivery::Gap(&gap)));
        for field in [("ZIXT_GAP_FIRST", "3"), ("ZIXT_GAP_LAST", "9"), ("PRIORITY", "3")] {
            assert!(
                fields.iter().any(|(name, value)| (name.as_str(), value.as_str()) == field),
                "{fields:?}"
            );
        }
        let record = Record::new(Sequence(4), Hash::ZERO, vec![0x80]);
        let error = record.event().unwrap_err();
        let fields = parse(&datagram("zixt-audit", Hash::ZERO, Delivery::Unreadable(&record, &error)));
        assert!(fields.contains(&("ZIXT_SEQ".to_owned(), "4".to_owned())), "{fields:?}");
    }

    proptest! {
        #[test]
        fn every_event_has_its_fields_once_and_under_names_that_are_taken(event in any_event()) {
            let record = Record::new(Sequence(7), Hash::ZERO, event.to_bytes());
            let fields = parse(&datagram("zixt-audit", Hash([1; 48]), Delivery::Event(&record, &event)));
            for (name, value) in &fields {
                prop_assert!(name.len() <= NAME_BYTES_MAX && name.starts_with(|c: char| c.is_ascii_uppercase()));
                prop_assert!(name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
                prop_assert!(!value.contains('\n'));
            }
            let with = |name: &str| fields.iter().filter(|(found, _)| found == name).count();
            for name in ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "ZIXT_SEQ", "ZIXT_CHAIN", "ZIXT_ACTION"] {
                prop_assert_eq!(with(name), 1, "{}", name);
            }
            let details = fields.iter().filter(|(name, _)| name.starts_with("ZIXT_D_")).count();
            prop_assert_eq!(details, event.details.list().len());
        }
    }
}
