//! Swap disks with their frontends: what the admin API adds, removes and lists.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tmem_control::{
    AdminError, DedupChoice, DiskFormat, DiskInfo, DiskName, DiskService, DiskSpec, TRANSPORT_VHOST_USER_BLK,
};
use tmem_disk::{DiskError, DiskOptions, Format, SwapDisk};
use tmem_store::{Dedup, Store, StoreError};
use tmem_vhost::{PollLimit, VhostError, VhostFrontend, VhostOptions};

/// Every disk of this daemon.
pub(crate) struct Disks {
    store: Arc<Store>,
    poll_limit: PollLimit,
    slots: Mutex<Slots>,
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
    /// With the socket that it will have or had.
    Changing(PathBuf),
    Running(Running),
}

impl Slot {
    fn socket(&self) -> &Path {
        match self {
            Self::Changing(socket) => socket,
            Self::Running(running) => &running.info.socket,
        }
    }
}

struct Running {
    info: DiskInfo,
    frontend: VhostFrontend,
    disk: Arc<SwapDisk>,
}

impl Running {
    fn info(&self) -> DiskInfo {
        DiskInfo { connected: self.frontend.is_connected(), ..self.info.clone() }
    }

    /// Ends the frontend's threads first, so that dropping the disk gives its pages back at once.
    fn stop(self) {
        self.frontend.stop();
        drop(self.disk);
    }
}

impl Disks {
    /// No disks yet. They will keep their pages in this store and share this polling limit.
    pub(crate) fn new(store: Arc<Store>, poll_limit: PollLimit) -> Self {
        Self { store, poll_limit, slots: Mutex::default() }
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

    fn start(&self, spec: &DiskSpec) -> Result<Running, AdminError> {
        let options = DiskOptions {
            name: spec.name.to_string(),
            size_bytes: spec.size_bytes,
            cap_bytes: spec.cap_bytes,
            dedup: match &spec.dedup {
                DedupChoice::Alone => Dedup::Alone,
                DedupChoice::Off => Dedup::Off,
                DedupChoice::Domain(name) => Dedup::Domain(name.to_string()),
            },
            format: match spec.format {
                DiskFormat::Swap => Format::Swap,
                DiskFormat::None => Format::None,
            },
        };
        let disk = Arc::new(SwapDisk::create(&self.store, options).map_err(disk_refused)?);
        let options = VhostOptions {
            queues: spec.queues,
            poll_limit: self.poll_limit.clone(),
            ..VhostOptions::new(&spec.vhost_user)
        };
        let frontend = VhostFrontend::start(Arc::clone(&disk), options)
            .map_err(|error| frontend_refused(&spec.name, error))?;
        let info = DiskInfo {
            name: spec.name.clone(),
            size_bytes: disk.size_bytes(),
            cap_bytes: spec.cap_bytes,
            dedup: spec.dedup.clone(),
            format: spec.format,
            transport: TRANSPORT_VHOST_USER_BLK.to_owned(),
            socket: spec.vhost_user.clone(),
            queues: spec.queues,
            connected: false,
        };
        Ok(Running { info, frontend, disk })
    }
}

fn disk_refused(error: DiskError) -> AdminError {
    let text = error.to_string();
    match error {
        DiskError::Size { .. } => AdminError::Invalid(text),
        DiskError::Store { source: StoreError::NameTaken { .. }, .. } | DiskError::Format { .. } => {
            AdminError::Conflict(text)
        }
        DiskError::Store { .. } => AdminError::Failed(text),
    }
}

fn frontend_refused(name: &DiskName, error: VhostError) -> AdminError {
    let text = format!("disk {name}: {error}");
    match error {
        VhostError::Queues { .. } | VhostError::QueueSize { .. } | VhostError::PathTooLong { .. } => {
            AdminError::Invalid(text)
        }
        VhostError::NoDirectory { .. } | VhostError::SocketInUse { .. } | VhostError::NotASocket { .. } => {
            AdminError::Conflict(text)
        }
        VhostError::Socket { .. } | VhostError::Thread { .. } => AdminError::Failed(text),
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
            if let Some((other, _)) = slots.by_name.iter().find(|(_, slot)| slot.socket() == spec.vhost_user)
            {
                return Err(AdminError::Conflict(format!(
                    "disk {name}: socket {} belongs to disk {other}; choose another path",
                    spec.vhost_user.display()
                )));
            }
            slots.by_name.insert(name.clone(), Slot::Changing(spec.vhost_user.clone()));
        }
        let started = self.start(spec);
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
                slots.by_name.insert(name.clone(), Slot::Running(running));
                log::info!(
                    "disk {name}: {} on {}",
                    tmem_control::ByteSize::from_bytes(info.size_bytes),
                    info.socket.display()
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
                Slot::Running(running) if running.frontend.is_connected() && !force => {
                    return Err(AdminError::Conflict(format!(
                        "disk {name} is in use: a guest is connected; shut the guest down first, or take the disk and its \
                         pages away from it with `tmem disk rm {name} --force`"
                    )));
                }
                Slot::Running(_) => {
                    let changing = Slot::Changing(slot.socket().to_owned());
                    std::mem::replace(slot, changing)
                }
            }
        };
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
