//! What the kernel refuses the daemon from its start on, whatever code runs in it: a token's module is foreign C.
//!
//! Landlock leaves it the files that it and its tokens need, and no TCP; a seccomp filter leaves it the system calls
//! that it makes and refuses the rest with `EPERM`: no process is forked, no program is started, no other process is
//! traced or read, no network socket is opened. A module that needs more has to be configured so ([`Needs`]).

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest version of Landlock whose rights are asked for. An older kernel enforces what it knows.
const LANDLOCK: ABI = ABI::V6;

/// Read by the loader, the C library, and modules of tokens.
const READABLE: [&str; 8] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc",
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
    // Where a process learns of itself and of the machine's cores.
    "/proc/self",
];

/// What the daemon and its tokens need beyond what every program does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files and folders that are read.
    pub read: Vec<PathBuf>,
    /// Folders whose files are made, written and removed, and devices.
    pub write: Vec<PathBuf>,
    /// Whether a module talks to its token over the network.
    pub network: bool,
}

/// What is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// Everything.
    Full,
    /// The kernel is too old for some of Landlock's rights.
    Partial,
    /// The kernel has no Landlock, or it is switched off: only the system calls are restricted.
    SystemCallsOnly,
}

/// The kernel refused to confine the process.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A path of [`Needs`].
    #[error(
        "the sandbox cannot allow a path; every folder that a token's `write` and `read` name has to exist"
    )]
    Path(#[from] PathFdError),
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

/// Confines the calling thread and every thread that it starts later: to be called before there are others.
///
/// # Errors
/// See [`SandboxError`]. What a kernel does not know of Landlock is no error; see [`Confinement`].
pub fn confine(needs: &Needs) -> Result<Confinement, SandboxError> {
    let confinement = restrict_files(needs)?;
    // Two, because one filter has one way to refuse. The kernel takes the stricter answer of both.
    seccompiler::apply_filter(&no_clone3()?)?;
    seccompiler::apply_filter(&filter(needs.network)?)?;
    Ok(confinement)
}

fn restrict_files(needs: &Needs) -> Result<Confinement, SandboxError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Neither is a program started nor a device made.
    let write = AccessFs::from_all(LANDLOCK)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSym);
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK))?.scope(Scope::from_all(LANDLOCK))?;
    if !needs.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK))?;
    }
    let mut created = ruleset.create()?;
    for path in READABLE.iter().map(Path::new).filter(|path| path.exists()) {
        created = created.add_rule(PathBeneath::new(PathFd::new(path)?, read))?;
    }
    for path in &needs.read {
        created = created.add_rule(PathBeneath::new(PathFd::new(path)?, read))?;
    }
    for path in &needs.write {
        created = created.add_rule(PathBeneath::new(PathFd::new(path)?, write))?;
    }
    Ok(match created.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::SystemCallsOnly,
    })
}

/// Answers `clone3` as a kernel without it would, so that the C library makes its threads by `clone`, whose flags a filter
/// can see: those of `clone3` lie in memory.
fn no_clone3() -> Result<BpfProgram, SandboxError> {
    let missing = SeccompAction::Errno(u32::try_from(libc::ENOSYS).unwrap_or_default());
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let target = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, missing, target)?.try_into()?)
}

/// Threads of this process, and no process: what a token's module holds is undefined in a child (PKCS#11 3.0, section
/// 5.4), and a child would have a copy of every key.
fn threads_only() -> Result<SeccompRule, SandboxError> {
    let thread = u64::try_from(libc::CLONE_VM | libc::CLONE_THREAD).unwrap_or(u64::MAX);
    let flags = SeccompCmpOp::MaskedEq(thread);
    Ok(SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, flags, thread)?])?)
}

fn filter(network: bool) -> Result<BpfProgram, SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![threads_only()?]);
    if network {
        rules.extend(NETWORK.iter().map(|call| (*call, Vec::new())));
    } else {
        // To the journal and to daemons that modules of smart cards ask.
        let local = u64::try_from(libc::AF_UNIX).unwrap_or_default();
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, local)?;
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![condition])?]);
    }
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or_default());
    let target = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, target)?.try_into()?)
}

/// For sockets of every kind.
const NETWORK: [i64; 1] = [libc::SYS_socket];

/// What the daemon, the C library and the modules of SoftHSM, Kryoptic and OpenSC call, as strace shows it.
const ALLOWED: &[i64] = &[
    // Files.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ioctl,
    libc::SYS_utimensat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_mlockall,
    libc::SYS_memfd_create,
    libc::SYS_membarrier,
    // Threads and signals. `clone` has a rule of its own; `clone3` is refused by the first filter, as if it were missing.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Waiting, and sockets that are there.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // What younger architectures do not have, and older C libraries still call.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];
