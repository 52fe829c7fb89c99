//! The worker's end.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{
    RecvFlags, SendFlags,
    sockopt::{Timeout, set_socket_timeout},
};

use crate::{
    upgrading::Upgrading,
    wire::{self, Code, Datagram},
};

/// What has to do with paths and takes longer is not waited for: as long as a tier's disk may take for a write.
const ERRAND: Duration = Duration::from_secs(10);

/// Talks to the keeper. Calls wait for one another and for the keeper's answer, which takes some tens of microseconds.
#[derive(Debug)]
pub struct Client {
    /// Locked from a call to its answer.
    socket: Mutex<OwnedFd>,
    /// The same, for what is not answered.
    beats: OwnedFd,
}

/// A guest's connection that the keeper holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptConnection {
    /// The keeper's number for it.
    pub number: u32,
    /// What it was called when it was handed over.
    pub label: String,
}

/// A Unix socket that the keeper has made.
#[derive(Debug)]
pub struct Bound {
    /// It listens.
    pub listener: UnixListener,
    /// It is in the place of one that nobody listened on.
    pub has_replaced: bool,
}

/// What the keeper holds.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Files and sockets by name. Both processes have them.
    pub files: Vec<(String, OwnedFd)>,
    /// Guests' connections.
    pub connections: Vec<KeptConnection>,
}

/// The sockets that tie a guest to a worker.
#[derive(Debug)]
pub struct GuestEnds {
    /// What the keeper says and hears in the guest's place.
    pub library: UnixStream,
    /// Closed by the keeper with the guest's connection. It writes a byte before: `H` when the library has hung up, `B` when the guest has
    /// sent what cannot be passed on.
    pub life: UnixStream,
}

impl Client {
    /// Over a socket that leads to a keeper.
    pub fn new(socket: OwnedFd) -> io::Result<Client> {
        let beats = socket.try_clone()?;
        Ok(Client { socket: Mutex::new(socket), beats })
    }

    /// The same keeper once more. Only one of the two may call at a time.
    ///
    /// # Errors
    /// This process has no descriptors left.
    pub fn try_clone(&self) -> io::Result<Client> {
        Client::new(self.lock().try_clone()?)
    }

    /// Over the socket that this process was started with; `None`: it was not started by a keeper. To be called once, before there are
    /// other threads.
    ///
    /// # Errors
    /// The variable does not name a socket.
    pub fn from_environment() -> io::Result<Option<Client>> {
        let Some(value) = std::env::var_os(crate::SOCKET_VARIABLE) else { return Ok(None) };
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "it is not the number of a socket");
        let number: RawFd = value.to_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        // SAFETY: only looks at a number; a descriptor that is not open is an error.
        if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(wrong());
        }
        // SAFETY: open, as was just seen, and whoever started this process left it to us.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::net::sockopt::socket_type(&socket).map_err(|_| wrong())?;
        Client::new(socket).map(Some)
    }

    /// Says that this process is there. True: another one serves, and [`Client::take`] will put this one in its place.
    ///
    /// # Errors
    /// The keeper speaks an older language, or is gone.
    pub fn hello(&self) -> io::Result<bool> {
        Ok(self.call(Code::Hello, wire::VERSION, "", &[])? != 0)
    }

    /// Waits until nobody else serves; from then on this process does. Gives how many workers have died so far.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn take(&self) -> io::Result<u32> {
        self.call(Code::Take, 0, "", &[])
    }

    /// What is held.
    ///
    /// # Errors
    /// The keeper is gone, or this process has no descriptors left.
    pub fn list(&self) -> io::Result<Inventory> {
        let socket = self.lock();
        wire::send(socket.as_fd(), Code::List, 0, &[], &[], SendFlags::empty())?;
        let mut inventory = Inventory::default();
        loop {
            let Datagram { code, number, name, mut descriptors } = receive(socket.as_fd())?;
            let name = String::from_utf8_lossy(&name).into_owned();
            match (code, descriptors.pop()) {
                (Code::File, Some(descriptor)) => inventory.files.push((name, descriptor)),
                (Code::Connection, _) => inventory.connections.push(KeptConnection { number, label: name }),
                (Code::Done, _) => return Ok(inventory),
                _ => return Err(io::Error::other("the keeper's list makes no sense")),
            }
        }
    }

    /// Says that this process serves, so that its end from now on is the death of a worker and not a failed start.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn ready(&self) -> io::Result<()> {
        self.call(Code::Ready, 0, "", &[]).map(drop)
    }

    /// Says that this process is alive. Never waits.
    ///
    /// # Errors
    /// The keeper is gone, or does not listen.
    pub fn beat(&self) -> io::Result<()> {
        wire::send(self.beats.as_fd(), Code::Beat, 0, &[], &[], SendFlags::DONTWAIT)
    }

    /// Has a descriptor held under a name of at most [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES), in the place of what had that name.
    ///
    /// # Errors
    /// The name is too long, the keeper is full or gone.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.call(Code::Keep, 0, name, &[descriptor]).map(drop)
    }

    /// Says that what has a name is not needed any more.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn release(&self, name: &str) -> io::Result<()> {
        self.call(Code::Release, 0, name, &[]).map(drop)
    }

    /// Hands a guest's connection over. Gives its number. If `guest` is a socket that listens, it is the next one there: a worker that accepted it
    /// itself could die before it has handed it over.
    ///
    /// # Errors
    /// Nobody waits there (`WouldBlock`); the keeper has no room for another, or is gone.
    pub fn adopt(&self, label: &str, guest: BorrowedFd<'_>, ends: GuestEnds) -> io::Result<u32> {
        self.call(Code::Adopt, 0, label, &[guest, ends.library.as_fd(), ends.life.as_fd()])
    }

    /// Serves a guest again whose connection is held; its whole session comes through `ends.library`.
    ///
    /// # Errors
    /// The guest has left meanwhile (`NotFound`), or the keeper is gone.
    pub fn attach(&self, number: u32, ends: GuestEnds) -> io::Result<()> {
        self.call(Code::Attach, number, "", &[ends.library.as_fd(), ends.life.as_fd()]).map(drop)
    }

    /// Turns a guest away, if it is still there.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn close(&self, number: u32) -> io::Result<()> {
        self.call(Code::Close, number, "", &[]).map(drop)
    }

    /// Asks for the program on disk to take over. This process is ended when that one is ready to.
    ///
    /// # Errors
    /// It cannot be started, or one is just being, or the keeper is gone.
    pub fn upgrade(&self) -> io::Result<()> {
        self.call(Code::Upgrade, 0, "", &[]).map(drop)
    }

    /// What has become of the last [`Client::upgrade`], or SIGHUP.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn upgrading(&self) -> io::Result<Upgrading> {
        Ok(Upgrading::of(self.call(Code::Upgrading, 0, "", &[])?))
    }

    /// Asks for a spare worker that stands by, to follow this one at once when it dies. What it finds held when it starts is what it can make ready for, so
    /// with another number another one is started. 0: none is wanted.
    ///
    /// # Errors
    /// The keeper knows of no spare workers, or is gone.
    pub fn want_spare(&self, number: u32) -> io::Result<()> {
        self.call(Code::WantSpare, number, "", &[]).map(drop)
    }

    /// The process that stands by as the spare worker, if one does.
    ///
    /// # Errors
    /// As [`Client::want_spare`].
    pub fn spare_pid(&self) -> io::Result<Option<u32>> {
        Ok(Some(self.call(Code::SparePid, 0, "", &[])?).filter(|pid| *pid != 0))
    }

    /// Has a listening Unix socket made at a path; what is in the way is replaced only if it is a socket that nobody listens on.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR`: no such directory. `ENOTSOCK`: something else is there. `EADDRINUSE`: somebody listens. `ENAMETOOLONG`. And
    /// what the OS says.
    pub fn bind(&self, path: &Path, mode: u32) -> io::Result<Bound> {
        let answer = self.errand(Code::Bind, mode, path.as_os_str().as_bytes())?;
        let has_replaced = answer.number != 0;
        Ok(Bound { listener: descriptor(answer)?.into(), has_replaced })
    }

    /// Has the file of a socket removed that [`Client::bind`] made, by this process or one before it, if it is still there. The socket
    /// listens as long as somebody has it.
    ///
    /// # Errors
    /// None was made there (`NotFound`), or what the OS says.
    pub fn unbind(&self, path: &Path) -> io::Result<()> {
        self.errand(Code::Unbind, 0, path.as_os_str().as_bytes()).map(drop)
    }

    /// Has a listening socket made on TCP.
    ///
    /// # Errors
    /// What the OS says.
    pub fn bind_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let answer = self.errand(Code::BindTcp, 0, address.to_string().as_bytes())?;
        Ok(descriptor(answer)?.into())
    }

    /// Has the tier opened that the keeper was told of, with flags of open(2): `O_PATH`, `O_WRONLY | O_CREAT | O_EXCL`, or `O_DIRECT` with
    /// `O_RDONLY`, `O_RDWR` or `O_RDWR | O_EXCL`.
    ///
    /// # Errors
    /// Other flags or no tier (`PermissionDenied`), no answer (`TimedOut`), or what the OS says.
    pub fn open_tier(&self, flags: i32) -> io::Result<File> {
        let answer = self.errand(Code::OpenTier, flags as u32, &[])?;
        Ok(descriptor(answer)?.into())
    }

    fn call(&self, code: Code, number: u32, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<u32> {
        let socket = self.lock();
        wire::send(socket.as_fd(), code, number, name.as_bytes(), descriptors, SendFlags::empty())?;
        Ok(done(receive(socket.as_fd())?)?.number)
    }

    /// A call whose answer may take a while, in which others can call.
    fn errand(&self, code: Code, number: u32, name: &[u8]) -> io::Result<Datagram> {
        let (ours, theirs) = wire::pair()?;
        set_socket_timeout(&ours, Timeout::Recv, Some(ERRAND))?;
        let socket = self.lock();
        wire::send(socket.as_fd(), code, number, name, &[theirs.as_fd()], SendFlags::empty())?;
        done(receive(socket.as_fd())?)?;
        drop((socket, theirs));
        match wire::receive(ours.as_fd(), RecvFlags::empty()) {
            Ok(Some(answer)) => done(answer),
            Ok(None) => Err(io::Error::other("the keeper could not do it: the process that was to has died")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OwnedFd> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Client {
    /// To be polled for the keeper's end.
    fn as_raw_fd(&self) -> RawFd {
        self.beats.as_raw_fd()
    }
}

/// Whether the keeper did it.
fn done(answer: Datagram) -> io::Result<Datagram> {
    match answer.code {
        Code::Done => Ok(answer),
        Code::Refused => Err(io::Error::from_raw_os_error(answer.number as i32)),
        _ => Err(io::Error::other("the keeper's answer makes no sense")),
    }
}

/// The one that came with an answer.
fn descriptor(mut answer: Datagram) -> io::Result<OwnedFd> {
    let missing = || io::Error::other("no descriptor came: this process has none left");
    answer.descriptors.pop().ok_or_else(missing)
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Datagram> {
    let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the keeper is gone");
    wire::receive(socket, RecvFlags::empty())?.ok_or_else(gone)
}
