//! Syslog as RFC 5424 has it, framed by octet counts (RFC 5425 section 4.3, RFC 6587 section 3.4.1). Nothing that is
//! logged can end a message or begin another one: the length says where it ends, and no control character is in it.

use crate::fields::{calendar, fields, sentence};
use crate::text::visible;
use crate::{Delivery, Outcome, Sink, limits};
use std::io::{self, Write};
use zixt_types::Hash;

/// RFC 5424 table 1: log audit.
const FACILITY_LOG_AUDIT: u8 = 13;
/// What stands before a message in UTF-8 (RFC 5424 section 6.4).
const BOM: &str = "\u{feff}";
/// Kept free for the closing bracket, the mark that details were left out, and the sentence's beginning.
const TAIL_BYTES: usize = 1024;

/// How messages of this appliance look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    /// HOSTNAME (RFC 5424 section 6.2.4): the appliance's name or address.
    pub hostname: String,
    /// APP-NAME (section 6.2.5).
    pub program: String,
    /// PROCID (section 6.2.6).
    pub process: String,
    /// The private enterprise number behind the name of our structured data (section 6.3.2). 32473 is the one for
    /// documentation (RFC 5612); an organisation sets its own.
    pub enterprise: u32,
    /// The journal's chain, which tells messages of two journals apart.
    pub chain: Hash,
}

impl Format {
    /// One message, at most [`limits::SYSLOG_BYTES_MAX`] bytes. Details that find no room are left out whole, and
    /// `omitted` says how many; the record's hash tells what they were.
    #[must_use]
    pub fn message(&self, delivery: Delivery<'_>) -> Vec<u8> {
        match delivery {
            Delivery::Event(record, event) => {
                let severity = match event.outcome {
                    Outcome::Ok => 5,
                    Outcome::Refused(_) => 4,
                    Outcome::Failed(_) => 3,
                };
                let mut message = self.start(severity, calendar(event.when.wall), event.action.name());
                for (key, field) in fields(record, event) {
                    message.param(key, &field.to_string());
                }
                let mut omitted = 0_usize;
                for (key, value) in event.details.list() {
                    omitted += usize::from(!message.optional_param(&format!("d_{key}"), &value.to_string()));
                }
                if omitted > 0 {
                    message.param("omitted", &omitted.to_string());
                }
                message.finish(&sentence(event))
            }
            Delivery::Unreadable(record, error) => {
                let mut message = self.start(4, None, "unreadable");
                message.param("seq", &record.sequence.to_string());
                message.param("hash", &record.hash.to_string());
                message.finish(&format!("record {} cannot be read: {error}", record.sequence))
            }
            Delivery::Gap(gap) => {
                let mut message = self.start(3, None, "gap");
                message.param("gap_first", &gap.first.to_string());
                message.param("gap_last", &gap.last.to_string());
                message.finish(&format!(
                    "records {} to {} are not delivered: {}",
                    gap.first, gap.last, gap.reason
                ))
            }
        }
    }

    /// PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP, and the structured data's beginning.
    fn start(&self, severity: u8, time: Option<String>, id: &str) -> Message {
        let head = format!(
            "<{}>1 {} {} {} {} {} [zixt@{}",
            FACILITY_LOG_AUDIT * 8 + severity,
            // The format allows six digits of a second; ours has three (RFC 5424 section 6.2.3).
            time.as_deref().unwrap_or("-"),
            printable(&self.hostname, 255),
            printable(&self.program, 48),
            printable(&self.process, 128),
            printable(id, 32),
            self.enterprise,
        );
        let mut message = Message(head);
        message.param("chain", &self.chain.to_string());
        message
    }
}

struct Message(String);

impl Message {
    fn param(&mut self, name: &str, value: &str) {
        self.0.push_str(&param(name, value));
    }

    fn optional_param(&mut self, name: &str, value: &str) -> bool {
        let param = param(name, value);
        let fits = self.0.len() + param.len() + TAIL_BYTES <= limits::SYSLOG_BYTES_MAX;
        if fits {
            self.0.push_str(&param);
        }
        fits
    }

    fn finish(mut self, sentence: &str) -> Vec<u8> {
        self.0.push_str("] ");
        self.0.push_str(BOM);
        for c in visible(sentence).chars() {
            if self.0.len() + c.len_utf8() > limits::SYSLOG_BYTES_MAX {
                break;
            }
            self.0.push(c);
        }
        self.0.into_bytes()
    }
}

/// One SD-PARAM with its space. `"`, `\` and `]` get a backslash (RFC 5424 section 6.3.3); hidden characters, which that
/// section leaves to the sender, are shown.
fn param(name: &str, value: &str) -> String {
    let mut out = format!(" {name}=\"");
    for c in visible(value).chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// A field of the header: PRINTUSASCII (%d33-126) of bounded length, or NILVALUE (RFC 5424 section 6).
fn printable(text: &str, max: usize) -> String {
    let clean: String = text.chars().take(max).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    if clean.is_empty() { "-".to_owned() } else { clean }
}

/// A message in its frame: MSG-LEN SP SYSLOG-MSG (RFC 5425 section 4.3).
#[must_use]
pub fn octet_counted(message: &[u8]) -> Vec<u8> {
    let mut frame = message.len().to_string().into_bytes();
    frame.push(b' ');
    frame.extend_from_slice(message);
    frame
}

/// Opens the way to the receiver. The server's is TLS with time limits on every operation; without those a receiver that
/// says nothing holds the sink, though nothing else.
pub trait Connect: Send {
    /// A new connection.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn connect(&mut self) -> io::Result<Box<dyn Write + Send>>;
}

/// Syslog over a stream. The receiver acknowledges nothing (RFC 5425 has no way to), so after a broken connection the last
/// [`limits::SYSLOG_OVERLAP_EVENTS`] events come again; `chain` and `seq` tell which were there already.
pub struct SyslogSink<C> {
    format: Format,
    connect: C,
    stream: Option<Box<dyn Write + Send>>,
}

impl<C: Connect> SyslogSink<C> {
    /// Connects with the first message.
    pub fn new(format: Format, connect: C) -> Self {
        Self { format, connect, stream: None }
    }

    fn with_stream(&mut self, act: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect.connect()?,
        };
        // A stream that failed is not used again: half a frame may be on its way.
        act(&mut *stream)?;
        self.stream = Some(stream);
        Ok(())
    }
}

impl<C: Connect> Sink for SyslogSink<C> {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        let frame = octet_counted(&self.format.message(delivery));
        self.with_stream(|stream| stream.write_all(&frame))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with_stream(|stream| stream.flush())
    }

    fn check(&mut self) -> io::Result<()> {
        match self.stream {
            // A stream of ours tells with a flush whether the other end is there.
            Some(_) => self.flush(),
            None => Ok(()),
        }
    }

    fn overlap(&self) -> u64 {
        limits::SYSLOG_OVERLAP_EVENTS
    }
}

#[cfg(test)]
mod tests;
