//! The command line: arguments in, one result out, one exit code.

mod access;
mod account;
pub mod args;
pub mod escape;
pub mod exit;
mod failure;
mod output;
mod proof;
mod secret;
mod session;
mod talk;

use args::{Arguments, Command, EvidenceCommand, GroupCommand};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use exit::{Exit, Failure};
use session::Session;
use std::process::ExitCode;
use zixt_crypto::{Backend, selftest};
use zixt_crypto_fast::AwsLc;

/// Runs the program and says how it ended.
pub fn main() -> ExitCode {
    // Keys and texts are in memory: a crash must not write them to the disk.
    let _best_effort = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _best_effort = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    let json = arguments.global.json;
    match run(arguments, &AwsLc) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            if json {
                eprintln!("{}", escape::json(&failure.to_json().to_string()));
            } else {
                eprintln!("zixt: {failure}");
            }
            failure.exit.into()
        }
    }
}

/// Performs a command. `backend` is what the client computes with; it is tried before anything is read or asked.
fn run(arguments: Arguments, backend: &dyn Backend) -> Result<(), Failure> {
    if let Command::Completions { shell } = arguments.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "zixt", &mut script);
        return output::line(String::from_utf8_lossy(&script).trim_end());
    }
    // Every other command opens the store, at the least.
    selftest::run(backend)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, error.to_string(), "Try again."))?;
    // One thread: a person's device does one thing at a time, and the passphrase's hash has a thread of its own.
    let outcome = runtime.block_on(perform(arguments));
    // A read of the terminal may still be blocked in a thread of its own; it must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn perform(Arguments { global, command }: Arguments) -> Result<(), Failure> {
    match command {
        Command::Enrol { invitation } => return account::enrol(&global, &invitation).await,
        Command::Passphrase { new_passphrase_file } => {
            return account::change_passphrase(&global, new_passphrase_file.as_deref()).await;
        }
        _ => {}
    }
    let session = Session::open(&global).await?;
    access::Terminal::of(&session.client);
    match command {
        Command::Enrol { .. } | Command::Passphrase { .. } | Command::Completions { .. } => Ok(()),
        Command::Whoami => account::whoami(&session, &global).await,
        Command::Status => account::status(&session).await,
        Command::Contacts => proof::contacts(&session).await,
        Command::Chat { name, message: Some(text) } => talk::send(&session, &name, &text, false).await,
        Command::Chat { name, message: None } => talk::chat(&session, &name).await,
        Command::Group(GroupCommand::Create { title, names }) => talk::create(&session, &title, &names).await,
        Command::Group(GroupCommand::Add { thread, names }) => talk::add(&session, &thread, &names).await,
        Command::Group(GroupCommand::Alias { thread, title }) => {
            talk::alias(&session, &thread, title.as_deref()).await
        }
        Command::Group(GroupCommand::Remove { thread, names }) => {
            talk::remove(&session, &thread, &names).await
        }
        Command::Account(command) => access::account(&session, command).await,
        Command::People(command) => access::people(&session, command).await,
        Command::Threads => talk::threads(&session).await,
        Command::Send { to, text, wait: _, queue } => talk::send(&session, &to, &text, queue).await,
        Command::Read { to, limit, follow } => talk::read(&session, to.as_deref(), limit, follow).await,
        Command::Sync => talk::sync(&session).await,
        Command::Watch => talk::watch(&session).await,
        Command::Tui { to } => talk::tui(&session, to.as_deref()).await,
        Command::Evidence(EvidenceCommand::Export { to, seq, with_content, output }) => {
            proof::export(&session, &to, seq, with_content, &output).await
        }
        Command::Verify { name, mark } => proof::verify(&session, &name, mark).await,
        Command::Devices => proof::devices(&session).await,
        Command::Recheck { to } => proof::recheck(&session, &to).await,
        Command::Alarms { export_fork } => proof::alarms(&session, export_fork.as_deref()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[test]
    fn a_failed_self_test_stops_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_str().unwrap();
        let arguments = |command| Arguments::try_parse_from(["zixt", "--store", store, command]).unwrap();
        let failure = run(arguments("whoami"), &Broken).unwrap_err();
        assert_eq!(failure.exit, Exit::Internal);
        assert!(failure.what.contains("self-test of backend broken failed: ML-DSA-65"), "{failure}");
        // The control: what stops it otherwise is that there is no account.
        assert_eq!(run(arguments("whoami"), &AwsLc).unwrap_err().exit, Exit::Account);
    }
}
