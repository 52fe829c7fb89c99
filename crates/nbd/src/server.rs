//! Which disk is exported where.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tmem_disk::SwapDisk;
use tmem_keeper::Estate;
use tmem_transport::PollLimit;

use crate::{
    address::NbdAddress, counters::NbdCounts, error::NbdError, exports::Export, listener::Listener,
    places::Places, tls::TlsIdentity,
};

/// What all exports of a server have in common.
#[derive(Clone, Debug, Default)]
pub struct NbdOptions {
    /// Limit of adaptive polling.
    pub poll_limit: PollLimit,
    /// What makes TLS possible. Without it, only local addresses are served.
    pub tls: Option<TlsIdentity>,
    /// The listening sockets that the process before this one left.
    pub estate: Arc<Estate>,
}

/// All NBD listeners of a program. Disks at the same address share one.
pub struct NbdServer {
    options: NbdOptions,
    places: Places,
    is_closed: Arc<AtomicBool>,
    /// Held while a listener starts or stops, so that the address is free again when the next wants it.
    listeners: Mutex<BTreeMap<NbdAddress, Listener>>,
}

/// As long as it is there, nobody is let in. They wait.
#[must_use]
pub struct Closed(Arc<AtomicBool>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A disk that is being exported. Dropping it ends that.
pub struct NbdExport {
    server: Arc<NbdServer>,
    address: NbdAddress,
    export: Option<Arc<Export>>,
}

impl NbdServer {
    /// Nothing is exported yet.
    pub fn new(options: NbdOptions) -> Arc<Self> {
        let (places, is_closed, listeners) = (Places::of_this_process(), Arc::default(), Mutex::default());
        Arc::new(Self { options, places, is_closed, listeners })
    }

    /// Lets nobody in for as long as what it gives is there: for whoever exports several disks at an address where clients wait.
    pub fn close(&self) -> Closed {
        self.is_closed.store(true, Ordering::Release);
        Closed(Arc::clone(&self.is_closed))
    }

    /// Exports a disk under its own name. The first at an address makes the listener.
    ///
    /// # Errors
    /// The address needs TLS and there is none, or it cannot be had, or it has an export of that name: see [`NbdError`].
    pub fn export(
        self: &Arc<Self>,
        disk: Arc<SwapDisk>,
        address: &NbdAddress,
    ) -> Result<NbdExport, NbdError> {
        let mut listeners = self.listeners();
        let name = disk.name().to_owned();
        let taken = || NbdError::NameTaken { address: address.clone(), name };
        let (address, export) = match listeners.get(address) {
            Some(listener) => (address.clone(), listener.ground.exports.add(disk).ok_or_else(taken)?),
            None => {
                let (listener, address) =
                    Listener::start(address, &self.options, &self.places, &self.is_closed)?;
                let export = listener.ground.exports.add(disk).ok_or_else(taken)?;
                listeners.insert(address.clone(), listener);
                (address, export)
            }
        };
        Ok(NbdExport { server: Arc::clone(self), address, export: Some(export) })
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<NbdAddress, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NbdExport {
    /// Where it is exported: what was asked for, with the port that the OS chose if it was to.
    pub fn address(&self) -> &NbdAddress {
        &self.address
    }

    /// How many connections use it now.
    pub fn connections(&self) -> usize {
        self.export.as_ref().map_or(0, |export| export.attendance.count())
    }

    /// What has happened on it so far.
    pub fn counts(&self) -> NbdCounts {
        self.export.as_ref().map_or_else(NbdCounts::default, |export| export.counters.snapshot())
    }

    /// Ends its connections and waits for their threads, and its listener's, if it was the last one there.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for NbdExport {
    fn drop(&mut self) {
        let Some(export) = self.export.take() else { return };
        let mut listeners = self.server.listeners();
        let Some(listener) = listeners.get(&self.address) else { return };
        listener.ground.exports.remove(export.disk.name());
        let is_last = listener.ground.exports.is_empty();
        export.attendance.close();
        if is_last {
            listeners.remove(&self.address);
        }
    }
}
