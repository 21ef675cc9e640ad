//! The process in which SAML messages are parsed. `zixtd` starts one for each message and talks to it over two pipes;
//! people have nothing to do with it. Exit code 0: it has answered; 1: it has not.

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    match zixt_sso::saml::child::run(&mut input, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing of a message is in any of these.
            eprintln!("zixt-saml: {error}");
            ExitCode::FAILURE
        }
    }
}
