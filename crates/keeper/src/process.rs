//! Starting workers and ending them, without asking for memory.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::{
    fd_store::LISTEN_VARIABLES,
    log_lines::say,
    signals::Signals,
    wire::{self, Reason},
};

/// The environment variable that tells a worker the number of its socket.
pub const SOCKET_VARIABLE: &str = "TMEM_KEEPER";
/// The number that its socket has in a worker.
const SOCKET_NUMBER: RawFd = 3;

/// A worker that does not take an answer for so long is not waited for any more. Others wait meanwhile.
const ANSWER: Duration = Duration::from_secs(5);

/// What is started: a program file with its arguments and environment.
#[derive(Debug)]
pub struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The program as it was, whatever is put in its place: the next worker after a death is of the same version.
    file: File,
}

impl Program {
    /// The program at `path`, with this process's environment and what is to be added to it. The first argument is its own name.
    ///
    /// # Errors
    /// It cannot be opened, or there is a zero in a text.
    pub fn new(
        path: PathBuf,
        arguments: impl IntoIterator<Item = OsString>,
        added: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Program> {
        let file = File::open(&path)?;
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
        let variable = |(name, value): (OsString, OsString)| {
            let mut pair = name.into_vec();
            pair.push(b'=');
            pair.extend(value.into_vec());
            CString::new(pair).map_err(io::Error::other)
        };
        let ours = |(name, _): &(OsString, OsString)| {
            name != SOCKET_VARIABLE && !LISTEN_VARIABLES.iter().any(|variable| name == variable)
        };
        let mut environment: Vec<CString> =
            std::env::vars_os().filter(ours).chain(added).map(variable).collect::<io::Result<_>>()?;
        environment
            .push(CString::new(format!("{SOCKET_VARIABLE}={SOCKET_NUMBER}")).map_err(io::Error::other)?);
        Ok(Program {
            path: text(path.as_os_str())?,
            arguments: arguments.into_iter().map(|argument| text(&argument)).collect::<io::Result<_>>()?,
            environment,
            file,
        })
    }

    /// The lists that exec wants, which end with a null.
    pub(crate) fn prepare(&self) -> Prepared<'_> {
        let list = |texts: &[CString]| {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Prepared { program: self, arguments: list(&self.arguments), environment: list(&self.environment) }
    }
}

/// Everything that starting a worker needs.
pub(crate) struct Prepared<'p> {
    program: &'p Program,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
}

impl Prepared<'_> {
    /// The program as it was when it was opened.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        clear_of_socket(&self.program.file)
    }

    /// The program that is at its path now.
    pub(crate) fn newest(&self) -> io::Result<OwnedFd> {
        open(&self.program.path)
    }

    /// Starts a worker. It ends when this process does.
    pub(crate) fn start(&self, file: &OwnedFd, signals: &Signals) -> io::Result<Worker> {
        let (ours, theirs) = wire::pair()?;
        set_socket_timeout(&ours, Timeout::Send, Some(ANSWER))?;
        let keeper = std::process::id();
        // SAFETY: this process has one thread, so the child may do anything; what it does asks for no memory.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => self.become_worker(file, theirs.as_raw_fd(), signals, keeper),
            pid => Ok(Worker { pid, socket: ours, started: Instant::now() }),
        }
    }

    /// In the child. Does not return.
    fn become_worker(&self, file: &OwnedFd, socket: RawFd, signals: &Signals, keeper: u32) -> ! {
        // SAFETY: all pointers are to texts and lists that live as long as the program does, the lists end with a null.
        unsafe {
            let alive = dies_with(keeper);
            let placed = if socket == SOCKET_NUMBER {
                libc::fcntl(socket, libc::F_SETFD, 0)
            } else {
                libc::dup2(socket, SOCKET_NUMBER)
            };
            libc::sigprocmask(libc::SIG_SETMASK, signals.before(), std::ptr::null_mut());
            if alive && placed >= 0 {
                let (arguments, environment) = (self.arguments.as_ptr(), self.environment.as_ptr());
                libc::syscall(
                    libc::SYS_execveat,
                    file.as_raw_fd(),
                    c"".as_ptr(),
                    arguments,
                    environment,
                    libc::AT_EMPTY_PATH,
                );
                let error = io::Error::last_os_error();
                say(format_args!("error: cannot run the program: {}", Reason(&error)));
            }
            libc::_exit(127)
        }
    }
}

/// Has this process die when its parent does. False: that was another than this one, so it is gone already. For use after fork().
pub(crate) fn dies_with(parent: u32) -> bool {
    // SAFETY: both take numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        libc::getppid() as u32 == parent
    }
}

/// The same file under a number that is not another's in a worker.
fn clear_of_socket(file: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, SOCKET_NUMBER + 1)?)
}

fn open(path: &CStr) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the path ends with a zero; a new descriptor, or -1.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    clear_of_socket(unsafe { OwnedFd::from_raw_fd(file) })
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(u8),
    Signal(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Exit(code) => write!(f, "it exited with {code}"),
            End::Signal(signal) => write!(f, "it was killed by signal {signal}"),
        }
    }
}

/// A worker that was started.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) pid: libc::pid_t,
    pub(crate) socket: OwnedFd,
    pub(crate) started: Instant,
}

impl Worker {
    /// Sends it a signal. It is a child that nobody has waited for, so its number is its own.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes two numbers.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        let mut status = 0;
        // SAFETY: the status is valid.
        if unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) } != self.pid {
            return None;
        }
        Some(if libc::WIFSIGNALED(status) {
            End::Signal(libc::WTERMSIG(status))
        } else {
            End::Exit(libc::WEXITSTATUS(status) as u8)
        })
    }
}
