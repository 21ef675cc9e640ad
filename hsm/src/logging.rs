//! Logs to the journal under systemd, otherwise as text to standard error.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_types::Timestamp;

/// Starts logging.
///
/// # Errors
/// The journal cannot be reached, or a logger runs already.
pub fn start() -> Result<(), Box<dyn std::error::Error>> {
    if systemd_journal_logger::connected_to_journal() {
        log::set_boxed_logger(Box::new(Ours(systemd_journal_logger::JournalLog::new()?)))?;
    } else {
        log::set_boxed_logger(Box::new(Ours(Text)))?;
    }
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

/// Passes on what this program says, and of what its libraries say only what is wrong: the TPM's says of every connection
/// that it was closed.
struct Ours<L>(L);

impl<L: Log> Log for Ours<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn || metadata.target().starts_with("zixt")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

struct Text;

/// A record as text; zixtd writes the same form.
fn line(at: Timestamp, record: &Record<'_>) -> String {
    let level = record.level().as_str().to_lowercase();
    format!("{} zixt-hsmd {level:5} {}", at.utc(), record.args())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Log for Text {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody is left to be told when standard error is gone.
        let _ = writeln!(std::io::stderr().lock(), "{}", line(now(), record));
    }

    fn flush(&self) {}
}

/// An error with its causes, as one line for the edge of the program.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn libraries_are_heard_only_when_something_is_wrong() {
        let passed = |target: &str, level| {
            Ours(Text).enabled(&Metadata::builder().target(target).level(level).build())
        };
        assert!(passed("zixt_hsm::service", Level::Info) && passed("tss_esapi::context", Level::Warn));
        assert!(!passed("tss_esapi::context", Level::Info));
    }

    #[test]
    fn a_line_says_when_who_and_how_bad() {
        let at = Timestamp(1_795_389_745_123);
        for (level, text) in [
            (Level::Info, "2026-11-22T23:22:25.123Z zixt-hsmd info  text"),
            (Level::Error, "2026-11-22T23:22:25.123Z zixt-hsmd error text"),
        ] {
            let said = line(at, &Record::builder().level(level).args(format_args!("text")).build());
            assert_eq!(said, text);
        }
    }
}
