//! One guest's connection: the device, the library that drives it, and the relay in front.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tmem_disk::SwapDisk;
use tmem_transport::thread_name;
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as LibraryError, VhostUserDaemon};

use crate::counters::Counters;
use crate::device::BlkDevice;
use crate::options::VhostOptions;
use crate::private_pair::private_pair;
use crate::relay::{Flow, Relay, RelayError};

/// A connection and everything that lives as long as it does.
pub(crate) struct Connection {
    relay: Relay,
    daemon: VhostUserDaemon<Arc<BlkDevice>>,
    device: Arc<BlkDevice>,
    counters: Arc<Counters>,
    socket: PathBuf,
}

impl Connection {
    /// Makes a fresh device for a guest that has just connected.
    pub(crate) fn open(
        guest: UnixStream,
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
        let started = start(&mut daemon, guest, &options.socket);
        match started {
            Ok(relay) => {
                let socket = options.socket.clone();
                Ok(Connection { relay, daemon, device, counters: counters.clone(), socket })
            }
            Err(error) => {
                drop(daemon);
                device.close_exit_consumers();
                Err(error)
            }
        }
    }

    /// What to wait for.
    pub(crate) fn poll_set(&self) -> [libc::pollfd; 2] {
        self.relay.poll_set()
    }

    /// Passes messages on.
    pub(crate) fn pass_on(&mut self, polled: &[libc::pollfd]) -> Result<Flow, RelayError> {
        self.relay.pass_on(polled)
    }

    /// Ends the threads of the connection and closes its descriptors. `error` is why, if something was wrong
    /// with the connection itself.
    pub(crate) fn close(mut self, error: Option<RelayError>) {
        let socket = self.socket.display();
        self.device.stop_serving();
        // The library's thread sees the end of its socket and returns.
        drop(self.relay);
        let library_error = match self.daemon.wait() {
            Ok(()) => None,
            Err(LibraryError::HandleRequest(
                ProtocolError::Disconnected | ProtocolError::SocketBroken(_) | ProtocolError::PartialMessage,
            )) => None,
            Err(error) => Some(error),
        };
        // Ends and joins the queues' threads, and unmaps the guest's memory.
        drop(self.daemon);
        self.device.close_exit_consumers();
        let why = error.map(|e| e.to_string()).or(library_error.map(|e| e.to_string()));
        match why {
            Some(why) => {
                Counters::count(&self.counters.protocol_errors);
                log::warn!("socket {socket}: connection closed: {why}");
            }
            None => log::info!("socket {socket}: guest disconnected"),
        }
    }
}

/// Connects the library to the relay.
fn start(
    daemon: &mut VhostUserDaemon<Arc<BlkDevice>>,
    guest: UnixStream,
    socket: &Path,
) -> io::Result<Relay> {
    let (listener, library) = private_pair(socket)?;
    let relay = Relay::new(guest, library)?;
    daemon.start(&mut Listener::from(listener)).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(relay)
}
