//! What the process gives up before it touches a secret.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Address space that the daemon may come to lock: the C library reserves 64 MiB for the heap of each thread and uses
/// little of it. A smaller limit would not refuse the lock but a later allocation.
const LOCKED_BYTES_MIN: u64 = 4 << 30;

/// Hardens this process: no core dump, no tracing by its own user, no new privileges, files for its owner only, memory
/// that is never swapped.
///
/// # Errors
/// What the kernel refuses, except for the memory lock: that needs a limit which only the init system can give, so
/// its absence is said in the log.
pub fn harden() -> nix::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    if let Err(why) = lock_memory() {
        log::warn!(
            "memory is not locked and may be swapped out ({why}): set LimitMEMLOCK=infinity, or encrypt swap"
        );
    }
    Ok(())
}

fn lock_memory() -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| error.to_string())?;
    if hard < LOCKED_BYTES_MIN && !nix::unistd::geteuid().is_root() {
        return Err(format!("the limit is {hard} bytes"));
    }
    if hard == RLIM_INFINITY || hard >= LOCKED_BYTES_MIN {
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).map_err(|error| error.to_string())?;
    }
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).map_err(|error| error.to_string())
}
