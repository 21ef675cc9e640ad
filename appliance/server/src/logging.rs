//! Logging: to the journal when systemd listens there, else readable text on standard error. Names, bodies and keys
//! are never logged; ids and hashes are.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write as _;

struct Text(&'static str);

impl Log for Text {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody is left to be told when standard error is gone.
        let _ = writeln!(
            std::io::stderr().lock(),
            "{} {:5} {}",
            self.0,
            record.level().as_str().to_lowercase(),
            record.args()
        );
    }

    fn flush(&self) {}
}

/// Starts logging as `program`.
pub fn start(program: &'static str, level: LevelFilter) {
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| systemd_journal_logger::JournalLog::new().ok())
        .is_some_and(|journal| journal.install().is_ok());
    // A second start (tests) keeps the first logger.
    if journal || log::set_boxed_logger(Box::new(Text(program))).is_ok() {
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
