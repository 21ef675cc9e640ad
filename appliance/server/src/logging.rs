//! Logging: to the journal when systemd listens there, else readable text on standard error. Names, bodies and keys
//! are never logged; ids and hashes are.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write as _;
use zixt_types::Timestamp;

/// Our own words at every level, other people's only when something is wrong: libraries speak at each height.
struct Filtered<L>(L);

impl<L: Log> Log for Filtered<L> {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.target().starts_with("zixt") || about.level() <= Level::Warn
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

struct Text(&'static str);

/// A record as text; zixt-hsmd writes the same form.
fn line(at: Timestamp, program: &str, record: &Record<'_>) -> String {
    let level = record.level().as_str().to_lowercase();
    format!("{} {program} {level:5} {}", at.utc(), record.args())
}

impl Log for Text {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody is left to be told when standard error is gone.
        let _ = writeln!(std::io::stderr().lock(), "{}", line(crate::health::now(), self.0, record));
    }

    fn flush(&self) {}
}

/// Starts logging as `program`.
pub fn start(program: &'static str, level: LevelFilter) {
    let journal =
        std::env::var_os("JOURNAL_STREAM").and_then(|_| systemd_journal_logger::JournalLog::new().ok());
    let installed = match journal {
        Some(journal) => log::set_boxed_logger(Box::new(Filtered(journal))),
        None => log::set_boxed_logger(Box::new(Filtered(Text(program)))),
    };
    // A second start (tests) keeps the first logger.
    if installed.is_ok() {
        log::set_max_level(level);
    }
}

/// An error with everything that caused it, on one line: printed once, at the edge.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_and_how_bad() {
        let at = Timestamp(1_795_389_745_123);
        for (level, text) in [
            (Level::Info, "2026-11-22T23:22:25.123Z zixtd info  text"),
            (Level::Error, "2026-11-22T23:22:25.123Z zixtd error text"),
        ] {
            let said = line(at, "zixtd", &Record::builder().level(level).args(format_args!("text")).build());
            assert_eq!(said, text);
        }
    }
}
