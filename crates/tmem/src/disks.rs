//! Swap disks with their frontends: what the admin API adds, removes and lists.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tmem_control::{
    AdminError, DedupChoice, DiskFormat, DiskInfo, DiskName, DiskService, DiskSpec, Frontend,
};
use tmem_disk::{DiskError, DiskOptions, Format, SwapDisk};
use tmem_store::{ClientSettings, Dedup, Store, StoreError};

use crate::{
    memo::Memory,
    own_swap,
    serving::{Serving, Transports},
};

/// That a guest has left is seen by the keeper and told to the disk's thread: two threads that want a CPU on a host that may be busy.
const LEAVING: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Every disk of this daemon.
pub(crate) struct Disks {
    store: Arc<Store>,
    transports: Transports,
    memory: Memory,
    slots: Mutex<Slots>,
}

/// How a disk comes to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    New,
    /// The worker before this one left it.
    Left,
}

/// The lock on this is held for map operations only, never while a disk starts or stops.
#[derive(Default)]
struct Slots {
    closed: bool,
    by_name: BTreeMap<DiskName, Slot>,
}

/// A name is in exactly one of these states, or free.
///
/// ```text
/// free --add--> Changing --started--> Running --remove--> Changing --stopped--> free
///                  '------failed-----------------------------------------------> free
/// ```
enum Slot {
    /// With the frontend that it will have or had.
    Changing(Frontend),
    Running(Box<Running>),
}

impl Slot {
    fn frontend(&self) -> &Frontend {
        match self {
            Self::Changing(frontend) => frontend,
            Self::Running(running) => &running.frontend,
        }
    }
}

struct Running {
    info: DiskInfo,
    /// As it was asked for, but for the frontend.
    spec: DiskSpec,
    frontend: Frontend,
    serving: Serving,
    disk: Arc<SwapDisk>,
}

impl Running {
    fn info(&self) -> DiskInfo {
        let ClientSettings { cap_bytes, weight, .. } = self.disk.client().settings();
        DiskInfo {
            connected: self.serving.is_connected(),
            cap_bytes,
            weight: weight.get(),
            ..self.info.clone()
        }
    }

    /// Ends the frontend's threads first, so that dropping the disk gives its pages back at once.
    fn stop(self) {
        self.serving.stop();
        drop(self.disk);
    }
}

impl Disks {
    /// No disks yet. They will keep their pages in this store.
    pub(crate) fn new(store: Arc<Store>, transports: Transports, memory: Memory) -> Self {
        Self { store, transports, memory, slots: Mutex::default() }
    }

    /// Goes on with the disks that the worker before this one left, and removes what it was just making or taking apart.
    pub(crate) fn go_on_with(&self, specs: &[DiskSpec]) -> Result<()> {
        for client in self.store.clients() {
            let is_known = specs.iter().any(|spec| spec.name.to_string() == client.name);
            if let Some(client) = self.store.client(&client.name).filter(|_| !is_known) {
                self.store.remove_client(&client)?;
            }
        }
        // Clients wait at the addresses already, and find all of their disks.
        let _closed = self.transports.nbd.close();
        // This host's own swap first: others may need memory that it has to give back.
        let is_own = |spec: &&DiskSpec| matches!(spec.frontend, Frontend::Ublk { .. });
        let own = specs.iter().filter(is_own);
        for spec in own.chain(specs.iter().filter(|spec| !is_own(spec))) {
            tmem_faults::pass(tmem_faults::Point::TakeOver);
            let running = self.start(spec, Origin::Left)?;
            self.slots().by_name.insert(spec.name.clone(), Slot::Running(Box::new(running)));
        }
        self.ask_for_spare();
        Ok(())
    }

    /// A host that is its own swap may have no memory for a worker that is started when this one is dead.
    fn ask_for_spare(&self) {
        let Some(keeper) = self.transports.estate.keeper().filter(|_| self.transports.has_spare_worker)
        else {
            return;
        };
        let queues = {
            let slots = self.slots();
            let running = slots.by_name.values().filter(|slot| matches!(slot, Slot::Running(_)));
            own_swap::queues_of(running.map(Slot::frontend))
        };
        if let Err(error) = keeper.want_spare(queues.into()) {
            log::debug!("no spare worker can be had: {error}");
        }
    }

    /// A guest that has just been shut down may not have been seen to leave.
    fn wait_for_leaving(&self, name: &DiskName) {
        let start = Instant::now();
        let is_there = || match self.slots().by_name.get(name) {
            Some(Slot::Running(running)) => running.serving.is_connected(),
            _ => false,
        };
        while is_there() && start.elapsed() < LEAVING {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Leaves the list of disks to the next worker.
    fn remember(&self) -> Result<()> {
        self.memory.change(|memo| {
            let slots = self.slots();
            let running = slots.by_name.values().filter_map(|slot| match slot {
                Slot::Running(running) => {
                    Some(DiskSpec { frontend: running.frontend.clone(), ..running.spec.clone() })
                }
                Slot::Changing(_) => None,
            });
            memo.disks = running.collect();
        })?;
        self.ask_for_spare();
        Ok(())
    }

    /// Stops all disks, guests connected or not, and takes no new ones.
    pub(crate) fn stop_all(&self) {
        let running: Vec<Slot> = {
            let mut slots = self.slots();
            slots.closed = true;
            std::mem::take(&mut slots.by_name).into_values().collect()
        };
        for slot in running {
            if let Slot::Running(disk) = slot {
                disk.stop();
            }
        }
    }

    /// The maps are whole between any two operations on them, so a panic elsewhere does not spoil them.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, spec: &DiskSpec, origin: Origin) -> Result<Running, AdminError> {
        let options = DiskOptions {
            name: spec.name.to_string(),
            size_bytes: spec.size_bytes,
            cap_bytes: spec.cap_bytes,
            weight: spec.weight,
            dedup: match spec.dedup_in_effect() {
                DedupChoice::Alone => Dedup::Alone,
                DedupChoice::Off => Dedup::Off,
                DedupChoice::Domain(name) => Dedup::Domain(name.to_string()),
            },
            format: match spec.format {
                DiskFormat::Swap => Format::Swap,
                DiskFormat::None => Format::None,
            },
        };
        let disk = match origin {
            Origin::New => SwapDisk::create(&self.store, options),
            Origin::Left => SwapDisk::open(&self.store, options),
        };
        let disk = Arc::new(disk.map_err(disk_refused)?);
        let (serving, frontend) = self.transports.serve(&disk, spec, origin)?;
        Ok(Running { info: DiskInfo::new(spec, &frontend), spec: spec.clone(), frontend, serving, disk })
    }
}

fn disk_refused(error: DiskError) -> AdminError {
    let text = error.to_string();
    match error {
        DiskError::Size { .. } => AdminError::Invalid(text),
        DiskError::Store { source: StoreError::NameTaken { .. }, .. } | DiskError::Format { .. } => {
            AdminError::Conflict(text)
        }
        DiskError::Store { .. } | DiskError::NotLeft { .. } => AdminError::Failed(text),
    }
}

impl DiskService for Disks {
    fn add(&self, spec: &DiskSpec) -> Result<DiskInfo, AdminError> {
        let name = &spec.name;
        {
            let mut slots = self.slots();
            if slots.closed {
                return Err(AdminError::Conflict(format!(
                    "disk {name}: the daemon is stopping; start it again first"
                )));
            }
            if slots.by_name.contains_key(name) {
                return Err(AdminError::Conflict(format!(
                    "disk {name} exists; choose another name, or remove it with `tmem disk rm {name}`"
                )));
            }
            // The frontend would find out, too, but by connecting to the other disk as its guest.
            let others = slots.by_name.iter();
            let taken = |slot: &Slot| !slot.frontend().is_compatible(&spec.frontend);
            if let Some((other, _)) = others.into_iter().find(|(_, slot)| taken(slot)) {
                return Err(AdminError::Conflict(format!(
                    "disk {name}: socket {} belongs to disk {other}; choose another path",
                    spec.frontend
                )));
            }
            slots.by_name.insert(name.clone(), Slot::Changing(spec.frontend.clone()));
        }
        let started = self.start(spec, Origin::New);
        let mut slots = self.slots();
        match started {
            Ok(running) if slots.closed => {
                drop(slots);
                running.stop();
                Err(AdminError::Conflict(format!(
                    "disk {name}: the daemon is stopping; start it again first"
                )))
            }
            Ok(running) => {
                let info = running.info.clone();
                let place = running.frontend.to_string();
                slots.by_name.insert(name.clone(), Slot::Running(Box::new(running)));
                drop(slots);
                if let Err(error) = self.remember() {
                    let _already_gone = self.remove(name, true);
                    return Err(AdminError::Failed(format!("disk {name}: {error:#}")));
                }
                log::info!(
                    "disk {name}: {} over {} on {place}",
                    tmem_control::ByteSize::from_bytes(info.size_bytes),
                    info.transport
                );
                Ok(info)
            }
            Err(error) => {
                slots.by_name.remove(name);
                Err(error)
            }
        }
    }

    fn remove(&self, name: &DiskName, force: bool) -> Result<(), AdminError> {
        if !force {
            self.wait_for_leaving(name);
        }
        let running = {
            let mut slots = self.slots();
            let Some(slot) = slots.by_name.get_mut(name) else {
                return Err(AdminError::NotFound(format!(
                    "disk {name} does not exist; `tmem disk ls` shows those that do"
                )));
            };
            match slot {
                Slot::Changing(_) => {
                    return Err(AdminError::Conflict(format!(
                        "disk {name} is being added or removed; try again in a moment"
                    )));
                }
                Slot::Running(running) if running.serving.is_connected() && !force => {
                    return Err(AdminError::Conflict(format!(
                        "disk {name} is in use: {}, or take the disk and its pages away with `tmem disk rm {name} --force`",
                        running.serving.way_out()
                    )));
                }
                Slot::Running(_) => {
                    let changing = Slot::Changing(slot.frontend().clone());
                    std::mem::replace(slot, changing)
                }
            }
        };
        // First, so that no worker goes on with a disk that is half gone.
        if let Err(error) = self.remember() {
            log::warn!("disk {name} is removed, and would be there again if the daemon died now: {error:#}");
        }
        if let Slot::Running(running) = running {
            running.stop();
        }
        self.slots().by_name.remove(name);
        log::info!("disk {name}: removed");
        Ok(())
    }

    fn list(&self) -> Vec<DiskInfo> {
        let running = |slot: &Slot| match slot {
            Slot::Changing(_) => None,
            Slot::Running(running) => Some(running.info()),
        };
        self.slots().by_name.values().filter_map(running).collect()
    }
}
