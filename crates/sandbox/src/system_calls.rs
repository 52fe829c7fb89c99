//! Which system calls there are for a confined process. Three answers, decided by what a call is for:
//!
//! - **Deadly**: no version of any library makes these in a program like ours; whoever does has taken it over. The process is killed.
//! - **Refused**: known, harmless to ask for, and not for us: EPERM.
//! - **Unknown**: everything that is in no list: ENOSYS, as an older kernel would say. A library that tries a newer call than we know of
//!   then does without it.
//!
//! The allowed ones are those that the daemon was seen to make, by strace(1), under all of its tests; and their older and newer forms.

use libc::{c_long, *};

/// Made by every confined process.
pub(crate) const ALLOWED: &[c_long] = &[
    // Descriptors.
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_close,
    SYS_close_range,
    SYS_dup,
    SYS_dup3,
    SYS_fcntl,
    SYS_lseek,
    SYS_pipe2,
    SYS_eventfd2,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_signalfd4,
    // Files, as far as paths allow it.
    SYS_openat,
    SYS_statx,
    SYS_fstat,
    SYS_newfstatat,
    SYS_fstatfs,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_flock,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    // Sockets of the families that are let through. Addresses and files for them somebody else makes.
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_connect,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_shutdown,
    // Memory.
    SYS_brk,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_mincore,
    SYS_msync,
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    SYS_memfd_create,
    // Threads, time, signals, and what the process may know of itself.
    SYS_futex,
    SYS_futex_waitv,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_rseq,
    SYS_membarrier,
    SYS_set_tid_address,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_exit,
    SYS_exit_group,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigtimedwait,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_getrusage,
    SYS_sysinfo,
    SYS_uname,
    SYS_getcpu,
    SYS_gettid,
    SYS_getpid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_capget,
];

/// The same in older forms, which newer architectures never had.
#[cfg(target_arch = "x86_64")]
pub(crate) const ALLOWED_OLD: &[c_long] = &[
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_dup2,
    SYS_pipe,
    SYS_eventfd,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_poll,
    SYS_select,
    SYS_getrlimit,
    SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const ALLOWED_OLD: &[c_long] = &[];

/// Carrying out requests on rings that were made before.
pub(crate) const ALLOWED_WITH_RINGS: &[c_long] = &[SYS_io_uring_enter];

/// Serving block devices of this host: rings of their own, and memory that stays.
pub(crate) const ALLOWED_WITH_UBLK: &[c_long] =
    &[SYS_io_uring_enter, SYS_io_uring_setup, SYS_io_uring_register, SYS_mlockall, SYS_munlockall];

/// Becoming somebody else, changing what is confined how, making and removing files, changing whose one is, what it is called and who may open
/// it (about which Landlock has no say), and reaching other processes.
pub(crate) const REFUSED: &[c_long] = &[
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_setgroups,
    SYS_capset,
    SYS_seccomp,
    SYS_setsid,
    SYS_setpgid,
    SYS_setpriority,
    SYS_sched_setscheduler,
    SYS_sched_setattr,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_unlinkat,
    SYS_renameat,
    SYS_renameat2,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_umask,
    SYS_fchown,
    SYS_fchownat,
    SYS_truncate,
    SYS_setxattr,
    SYS_fsetxattr,
    SYS_kill,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
];

/// The same in older forms.
#[cfg(target_arch = "x86_64")]
pub(crate) const REFUSED_OLD: &[c_long] = &[
    SYS_mkdir,
    SYS_rmdir,
    SYS_mknod,
    SYS_link,
    SYS_symlink,
    SYS_unlink,
    SYS_rename,
    SYS_chmod,
    SYS_chown,
    SYS_lchown,
    SYS_fork,
    SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const REFUSED_OLD: &[c_long] = &[];

/// Running other programs, looking into other processes, changing the kernel or the view of the file system, and what has mostly been of
/// use to attackers.
pub(crate) const DEADLY: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_open_by_handle_at,
    SYS_setns,
    SYS_unshare,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_personality,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_acct,
    SYS_syslog,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_vhangup,
];

/// Those of one architecture alone.
#[cfg(target_arch = "x86_64")]
pub(crate) const DEADLY_HERE: &[c_long] = &[SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const DEADLY_HERE: &[c_long] = &[];

/// Settings of the process: names of threads and mappings, and reading what the kernel told the program at its start.
pub(crate) const PRCTLS: &[c_int] = &[PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_GET_AUXV];
/// Of `include/uapi/linux/prctl.h`.
const PR_GET_AUXV: c_int = 0x4155_5856;

/// The same for whoever serves block devices. Of `include/uapi/linux/prctl.h`.
pub(crate) const PRCTLS_WITH_UBLK: &[c_int] = &[57, 58]; // PR_SET_IO_FLUSHER, PR_GET_IO_FLUSHER

/// Blocking and inheritance of descriptors, how much there is to read, and whether it is a terminal.
pub(crate) const IOCTLS: &[Ioctl] = &[FIONBIO, FIOCLEX, FIONCLEX, FIONREAD, TCGETS];

/// Ways to reach the kernel by a socket that guests and clients have no use for (netlink, packet, vsock and some fifty more) are left out.
pub(crate) const SOCKET_FAMILIES: &[c_int] = &[AF_UNIX, AF_INET, AF_INET6];

/// What a new thread or process may not have for itself.
pub(crate) const NAMESPACES: &[c_int] =
    &[CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_has_two_answers() {
        let allowed = [ALLOWED, ALLOWED_OLD, ALLOWED_WITH_UBLK].concat();
        let lists = [allowed, [REFUSED, REFUSED_OLD].concat(), [DEADLY, DEADLY_HERE].concat()];
        let all = lists.concat();
        for (at, call) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(call), "system call {call} is listed twice");
        }
        assert!(ALLOWED_WITH_RINGS.iter().all(|call| ALLOWED_WITH_UBLK.contains(call)));
    }
}
