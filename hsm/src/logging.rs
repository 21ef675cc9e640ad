//! Logs to the journal under systemd, otherwise as text to standard error.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write as _;

/// Starts logging.
///
/// # Errors
/// The journal cannot be reached, or a logger runs already.
pub fn start() -> Result<(), Box<dyn std::error::Error>> {
    if systemd_journal_logger::connected_to_journal() {
        systemd_journal_logger::JournalLog::new()?.install()?;
    } else {
        log::set_logger(&Text)?;
    }
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

struct Text;

impl Log for Text {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody is left to be told when standard error is gone.
        let _ = writeln!(std::io::stderr(), "zixt-hsmd: {}: {}", record.level(), record.args());
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
