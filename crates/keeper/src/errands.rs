//! What the keeper does with paths and addresses for a worker that must not: it makes listening sockets, removes the files of those that it
//! made, and opens the tier.
//!
//! A path can lead to a disk that does not answer, and the keeper must not wait for one. So each errand is a process of its own for as long
//! as it takes, and answers on a socket that came with the call; nobody but its caller waits for it. What it leaves to the keeper it notes
//! in memory that they share.

use std::{
    ffi::CString,
    mem::size_of,
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStringExt,
    },
    path::PathBuf,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use arrayvec::ArrayVec;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mm::{MapFlags, ProtFlags},
    net::{SendFlags, SocketAddrUnix},
};

use crate::{
    holder::MAX_FILES,
    process::dies_with,
    sockets::{self, Identity, SocketPath},
    wire::{self, Code, Datagram, Exactly},
};

/// Most files of sockets at one time. Each of them is a file that is held, too.
const MAX_SOCKETS: usize = MAX_FILES / 2;
/// Most errands at one time: a worker has few threads that ask, and one at a time each.
const MAX_AT_ONCE: usize = 64;

/// How the tier may be opened: looked at, made, read, written to.
const TIER_FLAGS: [OFlags; 5] = [
    OFlags::PATH,
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL),
    OFlags::RDONLY.union(OFlags::DIRECT),
    OFlags::RDWR.union(OFlags::DIRECT),
    OFlags::RDWR.union(OFlags::DIRECT).union(OFlags::EXCL),
];

/// See the module.
pub(crate) struct Errands {
    /// The only path that is opened.
    tier: Option<CString>,
    /// Of sockets that were made. Its note says whether it still is.
    paths: Vec<SocketPath>,
    board: Board,
    running: ArrayVec<(libc::pid_t, Option<usize>), MAX_AT_ONCE>,
    /// Errands are done in processes. Where the keeper is a thread, its program can wait.
    is_process: bool,
}

/// One of them.
enum Errand {
    Bind { path: SocketPath, mode: u32 },
    Unbind { path: SocketPath },
    BindTcp(SocketAddr),
    OpenTier(OFlags),
}

/// The note of the errand that opens the tier; those of sockets come after it.
const TIER_NOTE: usize = 0;

impl Errands {
    /// Takes all the memory it will ever need.
    pub(crate) fn new(tier: Option<PathBuf>, is_process: bool) -> std::io::Result<Errands> {
        let tier = tier.map(|path| CString::new(path.into_os_string().into_vec())).transpose()?;
        let (paths, board) = (Vec::with_capacity(MAX_SOCKETS), Board::new(1 + MAX_SOCKETS)?);
        Ok(Errands { tier, paths, board, running: ArrayVec::new(), is_process })
    }

    /// Starts what is asked for. It answers by itself.
    pub(crate) fn start(&mut self, call: Datagram) -> Result<u32, Errno> {
        self.reap();
        let Datagram { code, number, name, descriptors } = call;
        let [answer] = descriptors.exactly()?;
        let (errand, note) = match code {
            Code::Bind => {
                let path = SocketPath::new(&name)?;
                let note = self.note_for(&path)?;
                (Errand::Bind { path, mode: number }, Some(note))
            }
            Code::Unbind => {
                let path = SocketPath::new(&name)?;
                let note = self.note_of(&path).filter(|note| self.board.notes()[*note].made().is_some());
                (Errand::Unbind { path }, Some(note.ok_or(Errno::NOENT)?))
            }
            Code::BindTcp => {
                let address = str::from_utf8(&name).ok().and_then(|text| text.parse().ok());
                (Errand::BindTcp(address.ok_or(Errno::INVAL)?), None)
            }
            Code::OpenTier => {
                let flags = OFlags::from_bits_retain(number);
                let is_known = self.tier.is_some() && TIER_FLAGS.contains(&flags);
                (Errand::OpenTier(if is_known { flags } else { return Err(Errno::PERM) }), Some(TIER_NOTE))
            }
            _ => return Err(Errno::OPNOTSUPP),
        };
        if note.is_some_and(|note| self.board.notes()[note].is_busy.swap(true, SeqCst)) {
            // Another one is at the same, and waits itself.
            return Err(Errno::TIMEDOUT);
        }
        let started = self.start_as_process(&errand, note, &answer);
        if let (Err(_), Some(note)) = (started, note) {
            self.board.notes()[note].is_busy.store(false, SeqCst);
        }
        started.map(|()| 0)
    }

    /// Takes note of what a keeper before this one made, if it is a Unix socket that listens, and its file is there.
    pub(crate) fn know_again(&mut self, listener: BorrowedFd<'_>) {
        let listens = rustix::net::sockopt::socket_acceptconn(listener).unwrap_or(false);
        let address = rustix::net::getsockname(listener).ok().filter(|_| listens);
        let address = address.and_then(|address| SocketAddrUnix::try_from(address).ok());
        let path = address.as_ref().and_then(SocketAddrUnix::path_bytes);
        let Some(Ok(path)) = path.map(SocketPath::new) else { return };
        if let (Ok(made), Ok(note)) = (sockets::identity(&path), self.note_for(&path)) {
            self.board.notes()[note].set_made(Some(made));
        }
    }

    /// Takes note of errands that have ended. One that was killed may have left its note busy.
    pub(crate) fn reap(&mut self) {
        let board = &self.board;
        self.running.retain(|(pid, note)| {
            // SAFETY: a child that nobody has waited for; its status is of no interest.
            let is_there = unsafe { libc::waitpid(*pid, std::ptr::null_mut(), libc::WNOHANG) } == 0;
            if let Some(note) = note.filter(|_| !is_there) {
                board.notes()[note].is_busy.store(false, SeqCst);
            }
            is_there
        });
    }

    /// Where a path is noted.
    fn note_of(&self, path: &SocketPath) -> Option<usize> {
        self.paths.iter().position(|known| known == path).map(|at| TIER_NOTE + 1 + at)
    }

    /// Where it is or can be noted.
    fn note_for(&mut self, path: &SocketPath) -> Result<usize, Errno> {
        if let Some(note) = self.note_of(path) {
            return Ok(note);
        }
        let free = |at: &usize| self.board.notes()[TIER_NOTE + 1 + at].is_free();
        let at = (0..self.paths.len()).find(free);
        match at {
            Some(at) => self.paths[at] = path.clone(),
            None if self.paths.len() == MAX_SOCKETS => return Err(Errno::NOSPC),
            None => self.paths.push(path.clone()),
        }
        Ok(TIER_NOTE + 1 + at.unwrap_or(self.paths.len() - 1))
    }

    fn start_as_process(
        &mut self,
        errand: &Errand,
        note: Option<usize>,
        answer: &OwnedFd,
    ) -> Result<(), Errno> {
        if !self.is_process {
            self.run(errand, note, answer.as_fd());
            return Ok(());
        }
        if self.running.is_full() {
            return Err(Errno::AGAIN);
        }
        // One that was at the same has answered, and only its end is still to come.
        self.running.iter_mut().filter(|one| one.1 == note).for_each(|one| one.1 = None);
        let keeper = std::process::id();
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { libc::fork() } {
            -1 => Err(wire::errno(&std::io::Error::last_os_error())),
            0 => {
                if let Some(answer) = leave_all_but(answer, keeper) {
                    self.run(errand, note, answer);
                }
                // SAFETY: ends the process at once, without what the keeper would do at its end.
                unsafe { libc::_exit(0) }
            }
            pid => {
                self.running.push((pid, note));
                Ok(())
            }
        }
    }

    /// Does it and answers.
    fn run(&self, errand: &Errand, note: Option<usize>, answer: BorrowedFd<'_>) {
        let note = note.map(|note| &self.board.notes()[note]);
        let result = match errand {
            Errand::Bind { path, mode } => sockets::bind(path, *mode).map(|bound| {
                note.into_iter().for_each(|note| note.set_made(Some(bound.identity)));
                (u32::from(bound.has_replaced), Some(bound.listener))
            }),
            Errand::Unbind { path } => {
                let made = note.and_then(Note::made);
                let removed = made.map_or(Ok(false), |made| sockets::remove(path, made));
                note.into_iter().for_each(|note| note.set_made(None));
                removed.map(|removed| (u32::from(removed), None))
            }
            Errand::BindTcp(address) => sockets::bind_tcp(*address).map(|listener| (0, Some(listener))),
            Errand::OpenTier(flags) => self.open_tier(*flags).map(|file| (0, Some(file))),
        };
        // The caller may ask for more as soon as it has the answer.
        note.into_iter().for_each(|note| note.is_busy.store(false, SeqCst));
        let (code, number, descriptor) = match result {
            Ok((number, descriptor)) => (Code::Done, number, descriptor),
            Err(error) => (Code::Refused, error.raw_os_error() as u32, None),
        };
        let descriptors: ArrayVec<_, 1> = descriptor.iter().map(AsFd::as_fd).collect();
        let sent = wire::send(answer, code, number, &[], &descriptors, SendFlags::DONTWAIT);
        if let (Err(_), Code::Done, Errand::Bind { path, .. }, Some(note)) = (sent, code, errand, note)
            && let Some(made) = note.made()
        {
            // Nobody has the listener, and nobody will. As long as it is open here, no other can be made there, so the note is still of this one.
            note.set_made(None);
            let _ = sockets::remove(path, made);
        }
    }

    fn open_tier(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = self.tier.as_ref().ok_or(Errno::NOENT)?;
        if flags.contains(OFlags::CREATE) && path.as_bytes().starts_with(b"/dev/") {
            return Err(Errno::NOENT);
        }
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
    }
}

/// In the child: closes whatever is the keeper's, so that nothing of it stays open for as long as this process waits. `None`: the keeper is
/// gone, or it cannot be done.
fn leave_all_but(answer: &OwnedFd, keeper: u32) -> Option<BorrowedFd<'static>> {
    const ANSWER: RawFd = 3;
    // SAFETY: takes numbers only; whatever is closed is not used any more in this process.
    unsafe {
        if !dies_with(keeper) || libc::dup2(answer.as_raw_fd(), ANSWER) != ANSWER {
            return None;
        }
        let first = ANSWER as libc::c_uint + 1;
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) != 0 {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            (first as RawFd..RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX)).for_each(|fd| {
                libc::close(fd);
            });
        }
        Some(BorrowedFd::borrow_raw(ANSWER))
    }
}

/// What an errand leaves behind.
#[derive(Default)]
struct Note {
    is_busy: AtomicBool,
    device: AtomicU64,
    /// 0: there is no file.
    inode: AtomicU64,
}

impl Note {
    fn made(&self) -> Option<Identity> {
        let inode = self.inode.load(SeqCst);
        (inode != 0).then(|| Identity { device: self.device.load(SeqCst), inode })
    }

    fn set_made(&self, made: Option<Identity>) {
        // One that ends in between leaves none.
        self.inode.store(0, SeqCst);
        if let Some(made) = made {
            self.device.store(made.device, SeqCst);
            self.inode.store(made.inode, SeqCst);
        }
    }

    fn is_free(&self) -> bool {
        !self.is_busy.load(SeqCst) && self.made().is_none()
    }
}

/// Notes, in memory that the keeper and its children share.
struct Board {
    start: NonNull<Note>,
    notes: usize,
}

// SAFETY: it owns the memory, which no thread has a part in.
unsafe impl Send for Board {}

impl Board {
    fn new(notes: usize) -> Result<Board, Errno> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: new memory at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), notes * size_of::<Note>(), access, flags)?
        };
        Ok(Board { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, notes })
    }

    fn notes(&self) -> &[Note] {
        // SAFETY: the memory is there as long as this is, began as zeroes, and is aligned to pages. All of a note is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.notes) }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: as it was mapped; notes are borrowed from this.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.notes * size_of::<Note>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStrExt, path::Path};

    use rustix::net::RecvFlags;

    use super::*;

    /// What it answers; `None`: nobody waits for that.
    fn ask(errands: &mut Errands, code: Code, name: &[u8], waits: bool) -> Option<Result<Datagram, i32>> {
        let (ours, theirs) = wire::pair().unwrap();
        let ours = waits.then_some(ours);
        let name = name.iter().copied().collect();
        let started = errands.start(Datagram {
            code,
            number: 0o600,
            name,
            descriptors: [theirs].into_iter().collect(),
        });
        if let Err(error) = started {
            return Some(Err(error.raw_os_error()));
        }
        let answer = wire::receive(ours?.as_fd(), RecvFlags::DONTWAIT).unwrap().unwrap();
        Some(if answer.code == Code::Done { Ok(answer) } else { Err(answer.number as i32) })
    }

    fn bytes(path: &Path) -> &[u8] {
        path.as_os_str().as_bytes()
    }

    #[test]
    fn what_is_not_there_any_more_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let mut errands = Errands::new(None, false).unwrap();
        for name in ["a", "b", "c"] {
            let path = home.path().join(name);
            ask(&mut errands, Code::Bind, bytes(&path), true).unwrap().unwrap();
            assert!(path.exists());
            ask(&mut errands, Code::Unbind, bytes(&path), true).unwrap().unwrap();
            assert!(!path.exists());
            let again = ask(&mut errands, Code::Unbind, bytes(&path), true).unwrap();
            assert_eq!(again.err(), Some(libc::ENOENT));
        }
        assert_eq!(errands.paths.len(), 1);
        let refused = ask(&mut errands, Code::Bind, b"no/such/s", true).unwrap();
        assert_eq!(refused.err(), Some(libc::ENOENT));
        assert_eq!(ask(&mut errands, Code::OpenTier, b"", true).unwrap().err(), Some(libc::EPERM));
    }

    #[test]
    fn a_socket_that_nobody_waits_for_is_not_left() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let mut errands = Errands::new(None, false).unwrap();
        assert!(ask(&mut errands, Code::Bind, bytes(&path), false).is_none());
        assert!(!path.exists());
        // Nor is one taken away that was there before.
        let _live = ask(&mut errands, Code::Bind, bytes(&path), true).unwrap().unwrap();
        assert!(ask(&mut errands, Code::Bind, bytes(&path), false).is_none());
        assert!(path.exists());
    }

    /// As a kernel would that is short of memory.
    #[test]
    fn an_errand_that_is_killed_leaves_its_note_to_the_next() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let mut errands = Errands::new(None, false).unwrap();
        let note = errands.note_for(&SocketPath::new(bytes(&path)).unwrap()).unwrap();
        errands.board.notes()[note].is_busy.store(true, SeqCst);
        let busy = ask(&mut errands, Code::Bind, bytes(&path), true).unwrap();
        assert_eq!(busy.err(), Some(libc::ETIMEDOUT));
        // A number that is no child's, as one that has ended.
        errands.running.push((libc::pid_t::MAX, Some(note)));
        ask(&mut errands, Code::Bind, bytes(&path), true).unwrap().unwrap();
    }
}
