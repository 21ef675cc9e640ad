//! One line an event: JSON lines, and CEF (ArcSight Common Event Format, version 0).

use crate::fields::{Field, fields, sentence};
use crate::text::visible;
use crate::{Delivery, Outcome, Sink, Value};
use serde_json::{Map, json};
use std::io::{self, Write};
use zixt_types::Hash;

/// The form of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A JSON object (RFC 8259) on one line.
    Json,
    /// CEF:0.
    Cef,
}

impl Form {
    /// One line, with its end. No value can end it earlier.
    #[must_use]
    pub fn line(self, chain: Hash, delivery: Delivery<'_>) -> String {
        let mut line = match self {
            Self::Json => json(chain, delivery),
            Self::Cef => cef(chain, delivery),
        };
        line.push('\n');
        line
    }
}

fn json(chain: Hash, delivery: Delivery<'_>) -> String {
    let mut object = Map::new();
    object.insert("version".to_owned(), json!(1));
    object.insert("chain".to_owned(), json!(chain.to_hex()));
    match delivery {
        Delivery::Event(record, event) => {
            for (key, field) in fields(record, event) {
                let value = match field {
                    Field::Number(number) => json!(number),
                    Field::Text(text) => json!(visible(&text)),
                };
                object.insert(key.to_owned(), value);
            }
            let detail = |value: &Value| match value {
                Value::Number(number) => json!(number),
                Value::Flag(flag) => json!(flag),
                Value::Text(_) | Value::Digest(_) | Value::Time(_) => json!(visible(&value.to_string())),
            };
            let details: Map<_, _> =
                event.details.list().iter().map(|(key, value)| (key.to_string(), detail(value))).collect();
            object.insert("details".to_owned(), details.into());
        }
        Delivery::Unreadable(record, error) => {
            object.insert("seq".to_owned(), json!(record.sequence.0));
            object.insert("hash".to_owned(), json!(record.hash.to_hex()));
            object.insert("unreadable".to_owned(), json!(visible(&error.to_string())));
        }
        Delivery::Gap(gap) => {
            let reason = visible(&gap.reason.to_string());
            let told = json!({ "first": gap.first.0, "last": gap.last.0, "reason": reason });
            object.insert("gap".to_owned(), told);
        }
    }
    serde_json::Value::from(object).to_string()
}

/// `CEF:0|vendor|product|version|id|name|severity|extension`. The version is that of the event format.
fn cef(chain: Hash, delivery: Delivery<'_>) -> String {
    let header = |id: &str, name: &str, severity: u8| {
        format!("CEF:0|Zixt|Zixt|1|{}|{}|{severity}|", header_value(id), header_value(name))
    };
    let mut extensions = vec![("zixtChain".to_owned(), chain.to_hex())];
    let line = match delivery {
        Delivery::Event(record, event) => {
            let severity = match event.outcome {
                Outcome::Ok => 3,
                Outcome::Refused(_) => 6,
                Outcome::Failed(_) => 8,
            };
            extensions.push(("rt".to_owned(), event.when.wall.0.to_string()));
            for (key, field) in fields(record, event) {
                let key = match key {
                    "seq" => "externalId".to_owned(),
                    "action" => "act".to_owned(),
                    "outcome" => "outcome".to_owned(),
                    "code" => "reason".to_owned(),
                    "address" => "src".to_owned(),
                    "port" => "spt".to_owned(),
                    other => extension_key("zixt", other),
                };
                extensions.push((key, field.to_string()));
            }
            for (key, value) in event.details.list() {
                extensions.push((extension_key("zixtDetail", key.as_str()), value.to_string()));
            }
            header(event.action.name(), &sentence(event), severity)
        }
        Delivery::Unreadable(record, error) => {
            extensions.push(("externalId".to_owned(), record.sequence.to_string()));
            extensions.push(("zixtHash".to_owned(), record.hash.to_string()));
            extensions.push(("reason".to_owned(), error.to_string()));
            header("unreadable", "a record cannot be read", 6)
        }
        Delivery::Gap(gap) => {
            extensions.push(("zixtGapFirst".to_owned(), gap.first.to_string()));
            extensions.push(("zixtGapLast".to_owned(), gap.last.to_string()));
            extensions.push(("reason".to_owned(), gap.reason.to_string()));
            header("gap", "records are not delivered", 8)
        }
    };
    let pairs: Vec<String> =
        extensions.iter().map(|(key, value)| format!("{key}={}", extension_value(value))).collect();
    line + &pairs.join(" ")
}

/// In the header `|` and `\` get a backslash.
fn header_value(text: &str) -> String {
    visible(text).replace('\\', "\\\\").replace('|', "\\|")
}

/// In an extension `=` and `\` get a backslash. Line ends were shown before, so that none is left to be escaped.
fn extension_value(text: &str) -> String {
    visible(text).replace('\\', "\\\\").replace('=', "\\=")
}

/// Letters and digits only: `user_name` becomes `UserName` behind the prefix.
fn extension_key(prefix: &str, key: &str) -> String {
    let mut out = prefix.to_owned();
    for word in key.split('_') {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.extend(chars);
    }
    out
}

/// Writes lines to anything: a file, a pipe.
pub struct LineSink<W> {
    form: Form,
    chain: Hash,
    out: W,
}

impl<W: Write + Send> LineSink<W> {
    /// Writes lines of that form about that chain.
    pub fn new(form: Form, chain: Hash, out: W) -> Self {
        Self { form, chain, out }
    }
}

impl<W: Write + Send> Sink for LineSink<W> {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        self.out.write_all(self.form.line(self.chain, delivery).as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_event, event};
    use crate::{Code, Gap, GapReason, Record, Sequence, Text};
    use proptest::prelude::*;

    fn record(event: &crate::Event) -> Record {
        use zixt_types::Canonical as _;
        Record::new(Sequence(7), Hash::ZERO, event.to_bytes())
    }

    #[test]
    fn a_cef_line_as_a_receiver_reads_it() {
        let mut event = event(5);
        event.outcome = Outcome::Refused(Code::new("wrong-password").unwrap());
        event.details = event.details.with("user_name", Value::Text(Text::new("a=b|c\\d").unwrap())).unwrap();
        let line = Form::Cef.line(Hash([1; 48]), Delivery::Event(&record(&event), &event));
        let start = "CEF:0|Zixt|Zixt|1|sign-in|sign-in refused (wrong-password) by nobody known at the console|6|zixtChain=";
        assert!(line.starts_with(start), "{line}");
        for part in [
            " rt=1795389745123 ",
            " externalId=7 ",
            " act=sign-in outcome=refused reason=wrong-password ",
            " zixtDetailUserName=a\\=b|c\\\\d\n",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn gaps_and_unreadable_records_have_lines_of_their_own() {
        let gap = Gap { first: Sequence(3), last: Sequence(9), reason: GapReason::Removed };
        let line = Form::Json.line(Hash::ZERO, Delivery::Gap(&gap));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["gap"]["first"], &read["gap"]["last"]), (&json!(3), &json!(9)));
        assert!(
            Form::Cef
                .line(Hash::ZERO, Delivery::Gap(&gap))
                .contains("zixtGapFirst=3 zixtGapLast=9 reason=they")
        );
        let record = Record::new(Sequence(4), Hash::ZERO, vec![0x80]);
        let error = record.event().unwrap_err();
        for form in [Form::Json, Form::Cef] {
            let line = form.line(Hash::ZERO, Delivery::Unreadable(&record, &error));
            assert!(line.contains('4') && line.contains("unreadable"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn an_event_is_one_line(event in any_event()) {
            let record = record(&event);
            let line = Form::Json.line(Hash::ZERO, Delivery::Event(&record, &event));
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&read["seq"], &json!(7));
            prop_assert_eq!(&read["action"], &json!(event.action.name()));
            prop_assert_eq!(read["details"].as_object().unwrap().len(), event.details.list().len());
            for line in [line, Form::Cef.line(Hash::ZERO, Delivery::Event(&record, &event))] {
                let body = line.strip_suffix('\n').unwrap();
                prop_assert!(!body.chars().any(crate::text::is_hidden), "{body:?}");
            }
        }
    }
}
