//! Children that confine themselves and then try things.
// Every test file uses another part of it, and a failed step is a failed test.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used)]

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use tmem_sandbox::{Confined, Confinement};

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(i32),
}

/// Of a child whose steps all went as they should.
pub const FINE: i32 = 0;
const PANICKED: i32 = 101;

/// Runs `steps` in a child of this process that has one thread. Gives how it ended, and what it died of if it panicked.
pub fn child(steps: impl FnOnce()) -> (End, String) {
    // One at a time: a lock that another test's thread held at that moment would stay locked in the child.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut reading, mut writing) = pipe();
    // SAFETY: the child runs on a copy of this thread's stack and ends below, by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        // Nothing hangs for longer than that.
        // SAFETY: takes a number only.
        unsafe { libc::alarm(30) };
        drop(reading);
        std::panic::set_hook(Box::new(|_| ()));
        let code = match catch_unwind(AssertUnwindSafe(steps)) {
            Ok(()) => FINE,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
                let _ = writing.write_all(text.as_bytes());
                PANICKED
            }
        };
        // SAFETY: ends the process at once, without what its parent's copy would do at its end.
        unsafe { libc::_exit(code) };
    }
    drop(writing);
    let mut said = String::new();
    reading.read_to_string(&mut said).expect("pipe");
    let mut status = 0;
    // SAFETY: our own child, and a number that lives until the call returns.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    let end = match libc::WIFSIGNALED(status) {
        true => End::Killed(libc::WTERMSIG(status)),
        false => End::Exited(libc::WEXITSTATUS(status)),
    };
    (end, said)
}

/// Runs `steps` in a child that has confined itself.
pub fn confined(confinement: &Confinement, steps: impl FnOnce(Confined)) {
    let (end, said) = child(|| {
        let confined = confinement.apply().unwrap_or_else(|error| panic!("{error}"));
        assert!(confined.refused.is_empty(), "{:?}", confined.refused);
        steps(confined);
    });
    assert_eq!(end, End::Exited(FINE), "{said}");
}

/// Runs a step that is deadly for a confined process.
pub fn dies(confinement: &Confinement, what: &str, step: impl FnOnce()) {
    let (end, said) = child(|| {
        confinement.apply().unwrap_or_else(|error| panic!("{error}"));
        step();
    });
    assert_eq!(end, End::Killed(libc::SIGSYS), "{what}: {said}");
}

/// What a system call that returns -1 for errors said.
pub fn errno(result: i64) -> Option<i32> {
    if result == -1 { io::Error::last_os_error().raw_os_error() } else { None }
}

/// A system call with numbers, and no memory that it writes to.
pub fn call(number: libc::c_long, arguments: [u64; 5]) -> Option<i32> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: callers pass numbers, or addresses that are valid or deliberately none; the kernel checks them.
    errno(unsafe { libc::syscall(number, a, b, c, d, e) })
}

pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The error of something that was not to succeed.
pub fn refused<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: two numbers are written to an array of two.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both are new and nobody else's.
    let [reading, writing] = ends.map(|end| unsafe { File::from_raw_fd(end) });
    assert!(reading.as_raw_fd() != writing.as_raw_fd());
    (reading, writing)
}
