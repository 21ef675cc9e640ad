//! `zixt-verify`: checks an evidence file or a fork proof offline.

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zixt_crypto::{Backend, Reference, selftest};
use zixt_types::Hash;
use zixt_verify::{Exit, Options, check, json, read, text};

/// Checks a .zixt-evidence or .zixt-fork file: who said what when, that nothing was changed, that nothing is missing.
///
/// Needs no network and trusts nothing but the genesis hash that you give it.
#[derive(Parser)]
#[command(name = "zixt-verify", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The hash that names the network, as 96 hexadecimal digits, from a source that you trust
    #[arg(long, value_name = "HASH", value_parser = genesis_hash)]
    genesis: Option<Hash>,
    /// The file
    file: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Print what was said, where the file discloses it
    #[arg(long)]
    content: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   every verdict that the file allows is OK (a fork proof: the fork is proven)
  1   something failed verification (a fork proof: it proves nothing)
  2   the file cannot be read or is neither evidence nor a fork proof
  3   the file is about another network than --genesis names
  64  wrong usage
  70  this program failed its self-test; nothing was checked";

const NO_GENESIS: &str = "\
zixt-verify: --genesis is missing.

The genesis hash names the network whose validators you trust. A file cannot vouch for itself: whoever forges one can
make up a network around it. So take the hash from a source that you trust and that is not the sender of the file:
  * the minutes of the network's founding ceremony, signed by its officers;
  * the console of an appliance, or `zixt-admin status` on it;
  * a member's client, which pinned it when the member enrolled.
Then: zixt-verify --genesis HASH FILE";

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Proven };
            // Nobody is left to tell if even this cannot be printed.
            let _ = error.print();
            return exit.into();
        }
    };
    let Some(genesis) = arguments.genesis else {
        eprintln!("{NO_GENESIS}");
        return Exit::Usage.into();
    };
    let options = Options { content: arguments.content };
    match run(&arguments.file, genesis, arguments.json, options, &Reference) {
        Ok((report, exit)) => {
            print!("{report}");
            exit.into()
        }
        Err(error) => {
            if arguments.json {
                print!("{}", json::error(&error));
            }
            eprintln!(
                "zixt-verify: {}: {}",
                text::escape(&arguments.file.display().to_string()),
                error.explain()
            );
            error.exit().into()
        }
    }
}

fn run(
    file: &Path,
    genesis: Hash,
    json: bool,
    options: Options,
    backend: &dyn Backend,
) -> Result<(String, Exit), zixt_verify::Error> {
    selftest::run(backend)?;
    let checked = check(&read(file)?, genesis, backend)?;
    let report = if json { json::report(&checked, options) } else { text::report(&checked, options) };
    Ok((report, checked.exit()))
}

fn genesis_hash(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).ok_or_else(|| "expected 96 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::testing::Broken;

    #[test]
    fn a_failed_self_test_stops_before_anything_is_read() {
        let genesis = Hash([0; Hash::LEN]);
        let absent = Path::new("there is no such file");
        let run =
            |backend: &dyn Backend| run(absent, genesis, false, Options::default(), backend).unwrap_err();
        let error = run(&Broken);
        assert_eq!(error.exit(), Exit::Internal);
        assert!(error.explain().starts_with("self-test of backend broken failed: ML-DSA-65"), "{error}");
        // The control: otherwise the file is looked for.
        assert_eq!(run(&Reference).exit(), Exit::Unreadable);
    }
}
