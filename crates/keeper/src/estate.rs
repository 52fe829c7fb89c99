//! What a worker was left by the one before it, until somebody wants it; and where it leaves things itself.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::client::{Bound, Client, GuestEnds, Inventory};

/// Names of listening sockets begin like this, and no other's.
const SOCKET_PREFIX: &str = "socket ";

/// What a listening socket is called where it is left to the next process.
pub fn socket_name(address: impl fmt::Display) -> String {
    format!("{SOCKET_PREFIX}{address}")
}

/// See the module. A program without a keeper has one, too: it keeps nothing, and relays guests itself.
#[derive(Default)]
pub struct Estate {
    /// Made when it is needed, where there is no keeper.
    client: OnceLock<Client>,
    is_kept: bool,
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    files: BTreeMap<String, OwnedFd>,
    connections: BTreeMap<String, u32>,
}

impl Estate {
    /// With a keeper that holds this.
    pub fn new(client: Client, inventory: Inventory) -> Estate {
        let connections = inventory.connections.into_iter().map(|kept| (kept.label, kept.number)).collect();
        let left = Left { files: inventory.files.into_iter().collect(), connections };
        Estate { client: client.into(), is_kept: true, left: Mutex::new(left) }
    }

    /// Takes what was left under a name.
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        self.left().files.remove(name)
    }

    /// Takes everything that was left under a name that begins like that.
    pub fn take_all(&self, prefix: &str) -> Vec<(String, OwnedFd)> {
        let mut left = self.left();
        let names: Vec<String> = left.files.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.into_iter().filter_map(|name| left.files.remove(&name).map(|file| (name, file))).collect()
    }

    /// The names of what was left and not taken.
    pub fn left_names(&self) -> Vec<String> {
        self.left().files.keys().cloned().collect()
    }

    /// Leaves something to the next worker, in the place of what had that name.
    ///
    /// # Errors
    /// The keeper is full, or gone.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        match self.keeper() {
            Some(keeper) => keeper.keep(name, descriptor),
            None => Ok(()),
        }
    }

    /// Nothing is left under this name any more.
    pub fn release(&self, name: &str) {
        if let Some(keeper) = self.keeper()
            && let Err(error) = keeper.release(name)
        {
            log::warn!("cannot release {name}: {error}");
        }
    }

    /// Makes a listening Unix socket; see [`Client::bind`].
    ///
    /// # Errors
    /// As said there.
    pub fn bind(&self, path: &Path, mode: u32) -> io::Result<Bound> {
        self.client()?.bind(path, mode)
    }

    /// Removes the file of one that was made; see [`Client::unbind`].
    ///
    /// # Errors
    /// As said there.
    pub fn unbind(&self, path: &Path) -> io::Result<()> {
        self.client()?.unbind(path)
    }

    /// Makes a listening socket on TCP.
    ///
    /// # Errors
    /// What the OS says.
    pub fn bind_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.client()?.bind_tcp(address)
    }

    /// Takes the number of a guest's connection that was left under a label.
    pub fn take_guest(&self, label: &str) -> Option<u32> {
        self.left().connections.remove(label)
    }

    /// Has a new guest's messages passed on; see [`Client::adopt`].
    ///
    /// # Errors
    /// As said there.
    pub fn adopt(&self, label: &str, guest: BorrowedFd<'_>, ends: GuestEnds) -> io::Result<u32> {
        self.client()?.adopt(label, guest, ends)
    }

    /// Serves a guest that was left; see [`Client::attach`].
    ///
    /// # Errors
    /// The guest has left.
    pub fn attach(&self, number: u32, ends: GuestEnds) -> io::Result<()> {
        self.client()?.attach(number, ends)
    }

    /// Turns a guest away.
    pub fn close(&self, number: u32) {
        if let Err(error) = self.client().and_then(|client| client.close(number)) {
            log::warn!("cannot close a guest's connection: {error}");
        }
    }

    /// Lets go of what nobody wanted. Gives how much that was.
    pub fn release_rest(&self) -> usize {
        let Left { files, connections } = std::mem::take(&mut *self.left());
        for name in files.keys() {
            if let Some(path) = name.strip_prefix(SOCKET_PREFIX) {
                // One on TCP has no file, and one of another worker may have lost it.
                let _ = self.unbind(Path::new(path));
            }
            self.release(name);
        }
        connections.values().for_each(|number| self.close(*number));
        files.len() + connections.len()
    }

    /// The keeper, if there is one.
    pub fn keeper(&self) -> Option<&Client> {
        self.client.get().filter(|_| self.is_kept)
    }

    fn client(&self) -> io::Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = crate::in_process()?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Whole between any two operations.
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Estate").field("is_kept", &self.is_kept).finish_non_exhaustive()
    }
}
