//! The disks that can be had at one address, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tmem_disk::SwapDisk;

use crate::{
    attendance::{Attendance, Refused, Ticket},
    counters::Counters,
    socket::Socket,
};

/// Connections to one export at one time. Each has a thread and up to 1 MiB of buffers. A kernel client with one for each CPU of a large
/// guest gets along.
const MAX_CONNECTIONS: usize = 64;

/// A disk that is exported.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) disk: Arc<SwapDisk>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) attendance: Arc<Attendance>,
}

/// The disks of one address.
#[derive(Debug, Default)]
pub struct Exports(Mutex<BTreeMap<String, Arc<Export>>>);

impl Exports {
    /// An address with one disk, for what serves single connections.
    pub fn with_disk(disk: Arc<SwapDisk>) -> Self {
        let exports = Self::default();
        let _new = exports.add(disk);
        exports
    }

    /// Adds a disk under its own name. None: the name is taken.
    pub(crate) fn add(&self, disk: Arc<SwapDisk>) -> Option<Arc<Export>> {
        let mut by_name = self.by_name();
        let name = disk.name().to_owned();
        if by_name.contains_key(&name) {
            return None;
        }
        let attendance = Attendance::new(MAX_CONNECTIONS);
        let export = Arc::new(Export { disk, counters: Arc::default(), attendance });
        by_name.insert(name, Arc::clone(&export));
        Some(export)
    }

    pub(crate) fn remove(&self, name: &str) {
        self.by_name().remove(name);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name().is_empty()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.by_name().keys().cloned().collect()
    }

    /// The export of that name; the only one, if the name is empty.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Export>> {
        let by_name = self.by_name();
        if name.is_empty() && by_name.len() == 1 {
            return by_name.values().next().cloned();
        }
        by_name.get(name).cloned()
    }

    /// Each change is one call to the map.
    fn by_name(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Export>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An export in use by one connection.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Declared first, and so dropped first: whoever waits for the connection to leave then has the disk's last owner.
    export: Arc<Export>,
    _ticket: Ticket,
}

impl Attached {
    pub(crate) fn new(export: Arc<Export>, socket: Option<Socket>) -> Result<Self, Refused> {
        let ticket = export.attendance.enter(socket)?;
        Counters::add(&export.counters.connections, 1);
        Ok(Self { export, _ticket: ticket })
    }

    pub(crate) fn disk(&self) -> &SwapDisk {
        &self.export.disk
    }

    /// Whether the export is being removed.
    pub(crate) fn is_closing(&self) -> bool {
        self.export.attendance.is_closed()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.export.counters
    }
}
