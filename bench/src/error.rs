//! What can go wrong, and the way out.

use std::{io, path::PathBuf};

use tmem_store::{GetError, PutError, StoreError};

/// Why a benchmark or a sample ended without a report.
///
/// A message is a whole line: the system's words are part of it, not a source behind it.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nothing is at the socket's path.
    #[error("{}: no such socket; start the server first, or give the path it listens on", .0.display())]
    SocketMissing(PathBuf),
    /// The path is something else.
    #[error("{}: not a socket; give the path of a vhost-user-blk socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket is there but the server is not, or turned us away.
    #[error("{}: cannot connect: {error}; is its server running, and no guest connected?", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The server took the connection and said nothing.
    #[error("{}: no answer within {seconds} s; another guest is probably connected, disconnect it first", .socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long the benchmark waited.
        seconds: u64,
    },
    /// The server speaks vhost-user but is no disk we can drive.
    #[error("{}: not a usable vhost-user-blk device: {reason}", .socket.display())]
    NotADisk {
        /// The socket.
        socket: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The server speaks, but not NBD, or not of such an export.
    #[error("{}: no usable NBD export '{export}': {reason}; `nbdinfo --list` shows what a server has", .socket.display())]
    NotAnExport {
        /// The socket.
        socket: PathBuf,
        /// The export asked for.
        export: String,
        /// What is wrong.
        reason: String,
    },
    /// The disk ends before the region does.
    #[error("{}: the disk has {capacity_bytes} bytes, --size asks for {size_bytes}; give a smaller --size", .socket.display())]
    DiskTooSmall {
        /// The socket.
        socket: PathBuf,
        /// What the disk has.
        capacity_bytes: u64,
        /// What was asked for.
        size_bytes: u64,
    },
    /// The file of pages is of no use.
    #[error("{0}; bench/corpus makes a file of real pages, --pages names it")]
    Pages(String),
    /// Memory to share with the server cannot be had.
    #[error("cannot share {bytes} bytes of memory with the server: {error}")]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The ring cannot be written or its notification fails.
    #[error("the virtqueue fails: {0}; the server has probably ended")]
    Queue(io::Error),
    /// A connection to an NBD server breaks.
    #[error("the NBD connection fails: {0}; the server has probably ended")]
    Nbd(io::Error),
    /// The server answers a request with an error.
    #[error(
        "{operation} of block {block} failed with error {code}; a pool that is full refuses writes, see the server's log"
    )]
    Request {
        /// What was asked for.
        operation: &'static str,
        /// Where on the disk, in 4 KiB blocks.
        block: u64,
        /// The status the server gave.
        code: i32,
    },
    /// Requests are in the ring and no answer comes.
    #[error("no answer to {in_flight} requests for {seconds} s; the server has ended or hangs")]
    Stuck {
        /// Requests without an answer.
        in_flight: usize,
        /// How long the benchmark waited.
        seconds: u64,
    },
    /// The disk gave back something else than what was written.
    #[error(
        "block {block} holds other bytes than were last written there; the server loses data, do not use it"
    )]
    Wrong {
        /// Where on the disk, in 4 KiB blocks.
        block: u64,
    },
    /// The store cannot be made.
    #[error("the store cannot be made: {0}")]
    Store(#[from] StoreError),
    /// The store refused a page.
    #[error("page {place} was not stored: {error}; is there memory for the pages twice over?")]
    Put {
        /// Which page.
        place: usize,
        /// What the store said.
        error: PutError,
    },
    /// The store did not give a page back.
    #[error("page {place} did not come back: {error}; the store loses data, do not use it")]
    Get {
        /// Which page.
        place: usize,
        /// What the store said.
        error: GetError,
    },
    /// A page came back with other bytes.
    #[error("page {place} came back from {keeper} with other bytes than were put there; do not use it")]
    WrongPage {
        /// Who kept it.
        keeper: &'static str,
        /// Which page.
        place: usize,
    },
    /// All pages were flushed and memory is still held.
    #[error(
        "the store still holds {held_bytes} bytes after every page was flushed; it loses memory, do not use it"
    )]
    NotEmpty {
        /// What it holds.
        held_bytes: u64,
    },
    /// The zram device fails while it is measured.
    #[error("zram: {doing} failed: {error}; see the kernel's log (dmesg)")]
    Zram {
        /// What was done.
        doing: String,
        /// What the system said.
        error: io::Error,
    },
    /// There is no process of that number.
    #[error("process {0}: there is none of this number; `pgrep -n NAME` prints the number of a running one")]
    NoProcess(u32),
    /// The process is not ours to look into.
    #[error(
        "process {0}: its memory may not be read; run this as root, or as the process's owner with the sysctl kernel.yama.ptrace_scope at 0"
    )]
    NotPermitted(u32),
    /// The process has no memory of its own.
    #[error(
        "process {0} has no anonymous page in memory (a kernel thread has none, nor one that has ended); give another process"
    )]
    NoAnonymousPages(u32),
    /// The process ended under our hands.
    #[error(
        "process {0} ended while it was copied, and nothing was written; start it again, or hold it with --stop"
    )]
    ProcessEnded(u32),
    /// Something in the process's folder under /proc cannot be read.
    #[error("process {pid}: its memory cannot be read: {error}")]
    Process {
        /// The process.
        pid: u32,
        /// What the system said.
        error: io::Error,
    },
    /// The process does not stop.
    #[error(
        "process {pid} cannot be stopped: {error}; is a debugger attached to it? Without --stop it is copied as it runs"
    )]
    Stop {
        /// The process.
        pid: u32,
        /// What the system said.
        error: io::Error,
    },
    /// A file would be overwritten.
    #[error("{}: exists already; give another --out, or --force to replace it", .0.display())]
    OutputExists(PathBuf),
    /// The output's path is something that cannot be replaced.
    #[error("{}: not a regular file; give another --out", .0.display())]
    OutputNotAFile(PathBuf),
    /// The output cannot be written.
    #[error("{}: cannot be written: {error}; {}", .path.display(), output_hint(.error))]
    Output {
        /// The output.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Signals cannot be caught.
    #[error("SIGINT and SIGTERM cannot be caught: {0}")]
    Signals(io::Error),
    /// This program's own memory cannot be looked at.
    #[error("/proc/self/status cannot be read: {0}; mount /proc")]
    Resident(io::Error),
    /// Threads cannot be started.
    #[error("a thread cannot be started: {0}; give fewer --threads")]
    Threads(io::Error),
    /// The program was asked to end.
    #[error("interrupted; nothing was left behind")]
    Interrupted,
    /// The report cannot be put into JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

impl From<serde_json::Error> for BenchError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl BenchError {
    /// What it means that a file under `/proc/PID` cannot be opened or read.
    pub(crate) fn process(pid: u32, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoProcess(pid),
            io::ErrorKind::PermissionDenied => Self::NotPermitted(pid),
            // A kernel thread is there and has no memory.
            _ if error.raw_os_error() == Some(libc::ESRCH) => Self::NoAnonymousPages(pid),
            _ => Self::Process { pid, error },
        }
    }
}

/// What to do about a file that cannot be written.
fn output_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, give an --out elsewhere, or take fewer pages (--max-pages)"
        }
        io::ErrorKind::NotFound => "make its folder first",
        _ => "give an --out in a folder that you may write to",
    }
}
