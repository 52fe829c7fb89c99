//! Listens at one address.

use std::{
    io::{self, PipeWriter},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use tmem_keeper::{Estate, socket_name};
use tmem_transport::{DEFAULT_SOCKET_MODE, LogLimit, SocketFile};

use crate::{
    address::NbdAddress,
    attendance::Attendance,
    connection::{Connection, Ground},
    error::NbdError,
    exports::Exports,
    handshake::Security,
    places::Places,
    server::NbdOptions,
    socket::Socket,
};

/// Connections without an export at one time. Each has a thread and a few pages of memory for as long as a handshake may take.
const MAX_NEWCOMERS: usize = 32;
/// Pause after a failed accept, so that a lack of descriptors does not turn into a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a thread looks whether connections are accepted again. They wait for some milliseconds, after a worker's death.
const LOOK_EVERY_MS: libc::c_int = 2;

/// A TCP client that was silent for so long is asked whether it is there, and given up after as long again: its disk cannot be removed
/// meanwhile.
const SILENCE_SECONDS: libc::c_int = 60;

/// A listening socket with its thread.
pub(crate) struct Listener {
    pub(crate) ground: Arc<Ground>,
    newcomers: Arc<Attendance>,
    /// Closing it wakes the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// The socket. Dropping it removes it: nobody else will listen there for us.
enum Listening {
    Unix(SocketFile),
    Tcp(TcpListener, Arc<Estate>),
}

impl Listener {
    /// Makes the socket and the thread; gives the address that it came to, too.
    pub(crate) fn start(
        address: &NbdAddress,
        options: &NbdOptions,
        places: &Places,
        is_closed: &Arc<AtomicBool>,
    ) -> Result<(Self, NbdAddress), NbdError> {
        let security = match (&options.tls, address.is_local()) {
            (None, true) => Security::Clear,
            (None, false) => return Err(NbdError::NeedsTls { address: address.clone() }),
            (Some(_), true) => Security::TlsOffered,
            (Some(_), false) => Security::TlsRequired,
        };
        let (listening, address) = Listening::bind(address, &options.estate)?;
        let thread_error = |error| NbdError::Thread { address: address.clone(), error };
        let (stopped, stop) = io::pipe().map_err(thread_error)?;
        let ground = Arc::new(Ground {
            exports: Exports::default(),
            security,
            tls: options.tls.clone(),
            poll_limit: options.poll_limit.clone(),
            log_limit: LogLimit::default(),
            visits: LogLimit::default(),
            leaves: LogLimit::default(),
            address: address.to_string(),
        });
        let newcomers = Attendance::new(MAX_NEWCOMERS);
        let (its_ground, its_newcomers) = (Arc::clone(&ground), Arc::clone(&newcomers));
        let (places, is_closed) = (places.clone(), Arc::clone(is_closed));
        let thread = Builder::new()
            .name("nbd-listen".to_owned())
            .spawn(move || {
                listening.run(stopped.as_raw_fd(), &is_closed, &its_ground, &its_newcomers, &places);
            })
            .map_err(thread_error)?;
        Ok((Self { ground, newcomers, stop: Some(stop), thread: Some(thread) }, address))
    }
}

impl Drop for Listener {
    /// Ends the thread and what has no export yet, and removes the socket.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("NBD on {}: the listening thread panicked", self.ground.address);
        }
        self.newcomers.close();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Self::Tcp(listener, estate) = self
            && let Ok(address) = listener.local_addr()
        {
            estate.release(&socket_name(address));
        }
    }
}

impl Listening {
    fn bind(address: &NbdAddress, estate: &Arc<Estate>) -> Result<(Self, NbdAddress), NbdError> {
        match address {
            NbdAddress::Unix(path) => {
                let file = SocketFile::make_kept(path, DEFAULT_SOCKET_MODE, estate)?;
                Ok((Self::Unix(file), address.clone()))
            }
            NbdAddress::Tcp(wanted) => {
                if let Some(left) = estate.take(&socket_name(wanted)) {
                    return Ok((Self::Tcp(left.into(), estate.clone()), address.clone()));
                }
                let (listener, bound) = bind_tcp(*wanted, estate).map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => NbdError::AddressInUse { address: address.clone() },
                    _ => NbdError::Listen { address: address.clone(), error },
                })?;
                estate
                    .keep(&socket_name(bound), listener.as_fd())
                    .map_err(|error| NbdError::Listen { address: address.clone(), error })?;
                Ok((Self::Tcp(listener, estate.clone()), NbdAddress::Tcp(bound)))
            }
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Unix(file) => file.listener.as_raw_fd(),
            Self::Tcp(listener, _) => listener.as_raw_fd(),
        }
    }

    /// Does not wait.
    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(file) => file.listener.accept().map(|(stream, _)| stream.into()),
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept()?;
                set_up(&stream)?;
                Ok(stream.into())
            }
        }
    }

    /// Accepts connections until the other end of `stopped` is closed.
    fn run(
        &self,
        stopped: RawFd,
        is_closed: &AtomicBool,
        ground: &Arc<Ground>,
        newcomers: &Arc<Attendance>,
        places: &Places,
    ) {
        loop {
            let read = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let (descriptor, timeout_ms) = match is_closed.load(Ordering::Acquire) {
                true => (-1, LOOK_EVERY_MS),
                false => (self.descriptor(), -1),
            };
            let mut polled = [read(stopped), read(descriptor)];
            // SAFETY: the set is valid for its length.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                log::error!("NBD on {}: cannot wait: {error}", ground.address);
                return;
            }
            if polled[0].revents != 0 {
                return;
            }
            if ready == 0 {
                continue; // closed until a moment ago
            }
            match self.accept() {
                Ok(socket) => welcome(socket, ground, newcomers, places),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    complain(ground, &format!("cannot accept a connection: {error}"));
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }
}

fn welcome(socket: Socket, ground: &Arc<Ground>, newcomers: &Arc<Attendance>, places: &Places) {
    let Some(place) = places.take() else {
        let most = places.most();
        return complain(
            ground,
            &format!("refused a connection: there are {most} at all addresses together"),
        );
    };
    // Whoever says nothing shall not keep others out.
    let Ok(newcomer) = newcomers.enter_for_the_oldest(socket.clone()) else {
        return complain(
            ground,
            &format!("refused a connection: more than {MAX_NEWCOMERS} are in their handshake"),
        );
    };
    let connection = Connection { ground: Arc::clone(ground), socket, newcomer, place };
    // Nobody joins it: what waits for its end counts attendance.
    if let Err(error) = Builder::new().name("nbd-new".to_owned()).spawn(move || connection.run()) {
        complain(ground, &format!("cannot start a thread for a connection: {error}"));
    }
}

fn complain(ground: &Ground, what: &str) {
    if let Some(hidden) = ground.log_limit.admit(Instant::now()) {
        log::warn!("NBD on {}: {what} ({hidden} like it not logged)", ground.address);
    }
}

fn bind_tcp(address: SocketAddr, estate: &Estate) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = estate.bind_tcp(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Small packets go out at once, and a client whose machine is gone is found out in the end.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let set = |level, option, value: libc::c_int| {
        // SAFETY: the option's value is an int that is readable for its length.
        let set = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, SILENCE_SECONDS)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, SILENCE_SECONDS / 6)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 6)
}
