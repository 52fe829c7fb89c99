//! The signals that a keeper waits for, as a descriptor.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Waited for; a worker is started without them being held back.
const WAITED_FOR: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD];

/// Holds these signals back for this process and hands them out one by one.
pub(crate) struct Signals {
    descriptor: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// To be called before there are other threads.
    pub(crate) fn wait_for() -> io::Result<Signals> {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the set is made here before it is used; all pointers are valid.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in WAITED_FOR {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the set was made above.
        let descriptor = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's; the call above has filled in what was before.
        Ok(unsafe { Signals { descriptor: OwnedFd::from_raw_fd(descriptor), before: before.assume_init() } })
    }

    /// The next one that came.
    pub(crate) fn next(&self) -> Option<libc::c_int> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let bytes = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is valid for its length.
        let read = unsafe { libc::read(self.descriptor.as_raw_fd(), info.as_mut_ptr().cast(), bytes) };
        // SAFETY: a signalfd gives whole records.
        (read == bytes as isize).then(|| unsafe { info.assume_init() }.ssi_signo as libc::c_int)
    }

    /// What a worker is to start with.
    pub(crate) fn before(&self) -> &libc::sigset_t {
        &self.before
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
