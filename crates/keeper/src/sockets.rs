//! Listening sockets, and the files that those of Unix have.
//!
//! Whoever asks for one is not trusted, nor is whoever the directory belongs to. What is looked at and what is removed is in one directory
//! that is open meanwhile, and links are not followed there: whoever changes names under us can only lose a file of that directory, which was
//! his to remove. Only a socket without a listener is replaced, and only the file that was made here is removed.

use std::{
    ffi::CStr,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use arrayvec::ArrayVec;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::wire::errno;

/// The longest path of a Unix socket, without the final zero.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Connections that wait to be accepted. A client that does not wait itself is turned away beyond that.
const BACKLOG: i32 = 128;

/// What of a mode is of use for a socket.
const PERMISSIONS: u32 = 0o777;

/// A file: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    fn of(stat: &Stat) -> Identity {
        Identity { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A path that a socket can have, without memory of its own from the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPath(ArrayVec<u8, { MAX_SOCKET_PATH_BYTES + 1 }>);

impl SocketPath {
    /// Errors: it is too long (`NAMETOOLONG`), or leads to no name in a directory (`INVAL`).
    pub(crate) fn new(path: &[u8]) -> Result<SocketPath, Errno> {
        if path.len() > MAX_SOCKET_PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let path = SocketPath(path.iter().copied().chain([0]).collect());
        match path.name().to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            _ if path.0.iter().filter(|byte| **byte == 0).count() > 1 => Err(Errno::INVAL),
            _ => Ok(path),
        }
    }

    fn whole(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }

    fn name_at(&self) -> usize {
        self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1)
    }

    fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0[self.name_at()..]).unwrap_or_default()
    }

    fn open_directory(&self) -> Result<OwnedFd, Errno> {
        let mut directory = self.0.clone();
        directory.truncate(self.name_at());
        if directory.is_empty() {
            directory.push(b'.');
        }
        directory.push(0);
        let directory = CStr::from_bytes_until_nul(&directory).unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, directory, flags, Mode::empty())
    }
}

/// A socket that listens, and its file.
pub(crate) struct Bound {
    pub(crate) listener: OwnedFd,
    pub(crate) identity: Identity,
    /// It is in the place of one that nobody listened on.
    pub(crate) has_replaced: bool,
}

/// Makes a Unix socket that listens. Its file never has more permission bits than `mode`, not even for a moment. Errors: `NOENT` and
/// `NOTDIR` say that there is no such directory, `NOTSOCK` and `ADDRINUSE` that something else or a listener is there.
pub(crate) fn bind(path: &SocketPath, mode: u32) -> Result<Bound, Errno> {
    let directory = path.open_directory()?;
    let mode = Mode::from_raw_mode(mode & PERMISSIONS);
    let has_replaced = clear_the_way(&directory, path)?;
    let listener = socket(SocketFlags::CLOEXEC)?;
    // On Linux the file inherits the mode that the socket has when it is bound.
    rustix::fs::fchmod(&listener, mode)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path.whole())?)?;
    let found = look(&directory, path)?;
    if !is_socket(&found) {
        return Err(Errno::STALE);
    }
    let bound = Bound { listener, identity: Identity::of(&found), has_replaced };
    // The mask of the process may have taken bits away.
    let is_masked = Mode::from_raw_mode(found.st_mode & PERMISSIONS) != mode;
    let widened = if is_masked { set_mode(&directory, path, mode) } else { Ok(()) };
    match widened.and_then(|()| rustix::net::listen(&bound.listener, BACKLOG)) {
        Ok(()) => Ok(bound),
        Err(error) => remove(path, bound.identity).and(Err(error)),
    }
}

/// Removes a socket's file, if it is still the one that was made. Says whether it was.
pub(crate) fn remove(path: &SocketPath, made: Identity) -> Result<bool, Errno> {
    let directory = path.open_directory()?;
    match look(&directory, path) {
        Ok(found) if is_socket(&found) && Identity::of(&found) == made => {
            rustix::fs::unlinkat(&directory, path.name(), AtFlags::empty()).map(|()| true)
        }
        Ok(_) | Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Which file a socket has. Errors: `NOTSOCK` says that it is another's by now.
pub(crate) fn identity(path: &SocketPath) -> Result<Identity, Errno> {
    let found = look(&path.open_directory()?, path)?;
    if is_socket(&found) { Ok(Identity::of(&found)) } else { Err(Errno::NOTSOCK) }
}

/// A socket that listens on TCP.
pub(crate) fn bind_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    TcpListener::bind(address).map(OwnedFd::from).map_err(|error| errno(&error))
}

/// Removes a socket that nobody listens on. Says whether there was one.
fn clear_the_way(directory: &OwnedFd, path: &SocketPath) -> Result<bool, Errno> {
    match look(directory, path) {
        Ok(found) if is_socket(&found) => {}
        Ok(_) => return Err(Errno::NOTSOCK),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error),
    }
    match knock(path) {
        Err(Errno::CONNREFUSED) => {
            rustix::fs::unlinkat(directory, path.name(), AtFlags::empty()).map(|()| true)
        }
        Err(Errno::ACCESS) => Err(Errno::ACCESS),
        _ => Err(Errno::ADDRINUSE),
    }
}

/// Connects without waiting: a listener that is stopped and whose queue is full would keep the caller for as long as it likes. It is there
/// all the same (`AGAIN`).
fn knock(path: &SocketPath) -> Result<OwnedFd, Errno> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.whole())?)?;
    Ok(socket)
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn look(directory: &OwnedFd, path: &SocketPath) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, path.name(), AtFlags::SYMLINK_NOFOLLOW)
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn set_mode(directory: &OwnedFd, path: &SocketPath, mode: Mode) -> Result<(), Errno> {
    let (directory, name) = (directory.as_fd().as_raw_fd(), path.name().as_ptr());
    // The C library's, which does it on kernels older than the call, too.
    // SAFETY: the name ends with a zero and lives until the call returns.
    match unsafe { libc::fchmodat(directory, name, mode.as_raw_mode(), libc::AT_SYMLINK_NOFOLLOW) } {
        0 => Ok(()),
        _ => Err(errno(&std::io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, symlink},
            net::UnixListener,
        },
        path::Path,
    };

    use super::*;

    fn path(path: &Path) -> SocketPath {
        SocketPath::new(path.as_os_str().as_bytes()).unwrap()
    }

    fn refused(at: &Path) -> Errno {
        bind(&path(at), 0o600).err().unwrap()
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_away() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("s");
        for mode in [0o600, 0o660, 0o666, 0o777] {
            let bound = bind(&path(&at), mode | 0o4000).unwrap();
            let metadata = fs::metadata(&at).unwrap();
            assert_eq!(metadata.mode() & 0o7777, mode);
            assert!(!bound.has_replaced && bound.identity.inode == metadata.ino());
            assert_eq!(remove(&path(&at), bound.identity), Ok(true));
            assert_eq!(remove(&path(&at), bound.identity), Ok(false));
        }
        assert!(!at.exists());
    }

    #[test]
    fn only_sockets_of_programs_that_are_gone_are_replaced() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("s");
        fs::write(&at, "precious").unwrap();
        assert_eq!(refused(&at), Errno::NOTSOCK);
        assert_eq!(fs::read(&at).unwrap(), b"precious");
        fs::remove_file(&at).unwrap();

        let live = UnixListener::bind(&at).unwrap();
        assert_eq!(refused(&at), Errno::ADDRINUSE);
        symlink(&at, home.path().join("link")).unwrap();
        drop(live);
        assert_eq!(refused(&home.path().join("link")), Errno::NOTSOCK);
        assert!(bind(&path(&at), 0o600).unwrap().has_replaced);

        symlink("/nowhere", home.path().join("dangling")).unwrap();
        assert_eq!(refused(&home.path().join("dangling")), Errno::NOTSOCK);
        assert_eq!(refused(home.path()), Errno::NOTSOCK);
        assert_eq!(refused(&home.path().join("no/s")), Errno::NOENT);
        assert_eq!(refused(&at.join("s")), Errno::NOTDIR);
    }

    #[test]
    fn a_program_that_accepts_nothing_is_there_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("hung");
        let _hung = bind(&path(&at), 0o600).unwrap();
        let waiting: Vec<_> = (0..2 * BACKLOG).map_while(|_| knock(&path(&at)).ok()).collect();
        assert!(waiting.len() < 2 * BACKLOG as usize, "its queue is full");
        assert_eq!(refused(&at), Errno::ADDRINUSE);
    }

    #[test]
    fn what_was_not_made_here_is_not_removed() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("s");
        let bound = bind(&path(&at), 0o600).unwrap();
        fs::rename(&at, home.path().join("moved")).unwrap();
        let _another = UnixListener::bind(&at).unwrap();
        assert_eq!(remove(&path(&at), bound.identity), Ok(false));
        fs::remove_file(&at).unwrap();
        symlink(home.path().join("moved"), &at).unwrap();
        assert_eq!(remove(&path(&at), bound.identity), Ok(false));
        assert!(at.is_symlink() && home.path().join("moved").exists());
    }

    #[test]
    fn paths_that_name_nothing_are_refused() {
        for (bytes, error) in [
            (&b""[..], Errno::INVAL),
            (b"/", Errno::INVAL),
            (b"/run/", Errno::INVAL),
            (b"/run/..", Errno::INVAL),
            (b"/run/a\0b", Errno::INVAL),
            (b"\0abstract", Errno::INVAL),
            (&[b'x'; MAX_SOCKET_PATH_BYTES + 1], Errno::NAMETOOLONG),
        ] {
            assert_eq!(SocketPath::new(bytes).err(), Some(error), "{}", bytes.escape_ascii());
        }
        let whole = SocketPath::new(&[b'x'; MAX_SOCKET_PATH_BYTES]).unwrap();
        assert_eq!(whole.name().to_bytes().len(), MAX_SOCKET_PATH_BYTES);
        SocketPath::new(b"/s").unwrap().open_directory().unwrap();
        SocketPath::new(b"s").unwrap().open_directory().unwrap();
    }
}
