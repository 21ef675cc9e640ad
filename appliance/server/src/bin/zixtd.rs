//! `zixtd`: see the crate.

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;
use std::sync::Arc;
use zixt_crypto_fast::AwsLc;
use zixt_server::config::{Config, Flags};
use zixt_server::http::listener;
use zixt_server::{daemon, logging};

fn main() -> ExitCode {
    let config = match Config::new(Flags::parse()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("zixtd: {}", logging::chain(&error));
            return ExitCode::from(2);
        }
    };
    logging::start("zixtd", config.log);
    // What we write is for our own user; the admin socket says itself who else may use it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(error) = allow_open_files() {
        log::warn!("the number of open files stays as it is: {error}");
    }
    // An appliance has few cores, and an idle one should be small.
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(daemon::run(config, Arc::new(AwsLc))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", logging::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Every connection is an open file, and the usual limit of 1,024 is no more than we let in.
fn allow_open_files() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(listener::OPEN_FILES_MAX.min(hard)), hard)
}
