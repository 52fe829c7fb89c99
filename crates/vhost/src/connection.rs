//! One guest's connection: the device, the library that drives it, and the keeper that passes the guest's messages on.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tmem_disk::SwapDisk;
use tmem_keeper::{Estate, GuestEnds};
use tmem_transport::{LogLimit, thread_name};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as LibraryError, VhostUserDaemon};

use crate::counters::Counters;
use crate::device::BlkDevice;
use crate::options::VhostOptions;
use crate::private_pair::private_pair;

/// A connection and everything that lives as long as it does.
pub(crate) struct Connection {
    /// The keeper's number for it.
    number: u32,
    life: UnixStream,
    daemon: VhostUserDaemon<Arc<BlkDevice>>,
    device: Arc<BlkDevice>,
    counters: Arc<Counters>,
    socket: PathBuf,
    estate: Arc<Estate>,
}

/// Whom a connection is made for.
pub(crate) enum Caller<'l> {
    /// A guest that has connected, and waits to be accepted.
    New(&'l UnixListener),
    /// A guest of the process before this one, by the keeper's number. Its session is told to the library.
    Left(u32),
}

/// What the keeper says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    None,
    /// The guest has left, or the library has hung up.
    Over,
    /// The guest sent what cannot be passed on.
    Broken,
}

impl Connection {
    /// Makes a device for a guest.
    pub(crate) fn open(
        caller: Caller<'_>,
        disk: &Arc<SwapDisk>,
        options: &VhostOptions,
        counters: &Arc<Counters>,
    ) -> io::Result<Connection> {
        let device = Arc::new(BlkDevice::new(disk.clone(), options, counters.clone()));
        let name = thread_name::of("vhost", disk.name(), "-ctl");
        let mut daemon = match VhostUserDaemon::new(name, device.clone(), device.memory()) {
            Ok(daemon) => daemon,
            Err(error) => {
                device.end_orphans();
                return Err(io::Error::other(error.to_string()));
            }
        };
        match start(&mut daemon, &device, caller, disk.name(), options) {
            Ok((number, life)) => {
                let (socket, estate) = (options.socket.clone(), options.estate.clone());
                Ok(Connection { number, life, daemon, device, counters: counters.clone(), socket, estate })
            }
            Err(error) => {
                drop(daemon);
                device.close_exit_consumers();
                Err(error)
            }
        }
    }

    /// What to wait for.
    pub(crate) fn poll_fd(&self) -> RawFd {
        self.life.as_raw_fd()
    }

    /// What has happened.
    pub(crate) fn news(&mut self) -> News {
        let mut word = [0];
        match self.life.read(&mut word) {
            Ok(1) if word == *b"B" => News::Broken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => News::None,
            _ => News::Over,
        }
    }

    /// Ends the threads of the connection and closes its descriptors. `broken`: the guest sent what cannot be passed on.
    pub(crate) fn close(mut self, broken: bool, lines: &LogLimit) {
        let socket = self.socket.display();
        self.device.stop_serving();
        // The library's thread sees the end of its socket and returns.
        self.estate.close(self.number);
        let library_error = match self.daemon.wait() {
            Ok(()) => None,
            Err(LibraryError::HandleRequest(
                ProtocolError::Disconnected | ProtocolError::SocketBroken(_) | ProtocolError::PartialMessage,
            )) => None,
            Err(error) => Some(error.to_string()),
        };
        // Ends and joins the queues' threads, and unmaps the guest's memory.
        drop(self.daemon);
        self.device.close_exit_consumers();
        let lost = self.device.memory_is_lost();
        let why = lost
            .then(|| "a part of the memory that it shared is gone; its file was cut short".to_owned())
            .or(library_error);
        let why = why.or_else(|| broken.then(|| "its messages cannot be passed on".to_owned()));
        if why.is_some() {
            Counters::count(&self.counters.protocol_errors);
        }
        let Some(hidden) = lines.admit(Instant::now()) else { return };
        match why {
            Some(why) => log::warn!("socket {socket}: connection closed: {why} ({hidden} more before it)"),
            None => log::info!("socket {socket}: guest disconnected ({hidden} more before it)"),
        }
    }
}

/// Connects the library to the keeper, and the keeper to the guest.
fn start(
    daemon: &mut VhostUserDaemon<Arc<BlkDevice>>,
    device: &BlkDevice,
    caller: Caller<'_>,
    label: &str,
    options: &VhostOptions,
) -> io::Result<(u32, UnixStream)> {
    let (listener, library) = private_pair()?;
    let (life, keepers_life) = UnixStream::pair()?;
    life.set_nonblocking(true)?;
    let ends = GuestEnds { library, life: keepers_life };
    let number = match caller {
        Caller::New(listener) => {
            let adopted = options.estate.adopt(label, listener.as_fd(), ends);
            adopted.inspect_err(|error| {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // Turned away rather than left to wait for what will not come.
                    drop(listener.accept());
                }
            })?
        }
        Caller::Left(number) => options.estate.attach(number, ends).map(|()| number)?,
    };
    let estate = options.estate.clone();
    device.set_hang_up(Box::new(move || estate.close(number)));
    let started = daemon.start(&mut Listener::from(listener));
    started
        .inspect_err(|_| options.estate.close(number))
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok((number, life))
}
