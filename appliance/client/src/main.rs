//! `zixt`: messages on the record, from a command line or a terminal chat.

mod cli;
mod tui;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
