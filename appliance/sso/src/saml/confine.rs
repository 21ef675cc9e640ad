//! What the kernel refuses the parser's process, whatever code a message makes it run: every file, every socket, every
//! process and thread, more memory and time than a message needs.
//!
//! Custody confines itself in the same way (`hsm/src/sandbox.rs`); this process needs far less than that one.

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetError, Scope};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::collections::BTreeMap;
use thiserror::Error;

/// Address space, in bytes. The parser takes some tens of MiB for the longest message.
pub const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Processor time, in seconds. A good response takes a hundredth of one.
pub const CPU_S_MAX: u64 = 5;

/// The newest version of Landlock whose rights are asked for. An older kernel enforces what it knows.
const LANDLOCK: ABI = ABI::V6;

/// The kernel refused to confine the process; it must not parse anything then.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// A limit or an attribute of the process.
    #[error("limits of the process")]
    Limits(#[from] nix::Error),
    /// Landlock.
    #[error("Landlock")]
    Landlock(#[from] RulesetError),
    /// The filter could not be made.
    #[error("the filter of system calls")]
    Filter(#[from] seccompiler::BackendError),
    /// The filter was not taken.
    #[error("the kernel does not take the filter of system calls")]
    Seccomp(#[from] seccompiler::Error),
}

/// Confines the calling process, which has one thread. A kernel without Landlock is no error: the filter of system
/// calls alone opens no file and no socket.
///
/// # Errors
/// [`ConfineError`]
pub fn confine() -> Result<(), ConfineError> {
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX)?;
    setrlimit(Resource::RLIMIT_CPU, CPU_S_MAX, CPU_S_MAX)?;
    // Every right is handled, and none is given.
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    // After Landlock, which opens a descriptor of its own.
    setrlimit(Resource::RLIMIT_NOFILE, 0, 0)?;
    seccompiler::apply_filter(&filter()?)?;
    Ok(())
}

fn filter() -> Result<BpfProgram, ConfineError> {
    let rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or_default());
    let target = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, target)?.try_into()?)
}

/// What reading a question, computing and writing an answer takes.
const ALLOWED: &[i64] = &[
    // The two pipes.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // The one thread, and its end.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];
