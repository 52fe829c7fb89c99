//! Where each thread is, for a worker that hangs: the keeper asks with SIGUSR1 before it kills.
//!
//! Whoever gets the signal says where it is and passes the signal on to all other threads. What a handler does here is not safe in general: it takes
//! memory and locks, and a thread that was stopped while it had one of them waits for itself. Such a worker is killed a moment later in any
//! case; what it can still say is a gain.

use std::{
    backtrace::Backtrace,
    fs,
    io::{self, Write},
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

/// The thread that asked the others; 0: nobody has.
static ASKED_BY: AtomicI32 = AtomicI32::new(0);

/// Has the signal answered.
pub(crate) fn answer_when_asked() -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction, and the handler has the type of a plain one.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = say_where as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        match libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

extern "C" fn say_where(_signal: libc::c_int) {
    // SAFETY: takes nothing and cannot fail.
    let own = unsafe { libc::gettid() };
    let name = fs::read_to_string(format!("/proc/self/task/{own}/comm")).unwrap_or_default();
    // In one piece, so that threads do not mix.
    let text = format!("tmem: error: thread {own} {} is at\n{}\n", name.trim(), Backtrace::force_capture());
    let _nobody_reads = io::stderr().write_all(text.as_bytes());
    if ASKED_BY.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for task in tasks.filter_map(|task| task.file_name().to_str()?.parse::<libc::pid_t>().ok()) {
        if task != own {
            // SAFETY: takes numbers; a thread that has ended meanwhile is an error that nobody minds.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), task, libc::SIGUSR1) };
        }
    }
}
