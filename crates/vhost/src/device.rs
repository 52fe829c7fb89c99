//! The virtio-blk device of one connection, as the vhost-user library drives it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use tmem_disk::SwapDisk;
use tmem_transport::{LogLimit, thread_name};
use vhost::vhost_user::Backend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::config_space::ConfigSpace;
use crate::counters::Counters;
use crate::options::VhostOptions;
use crate::vring::{BlkVring, SharedMemory};
use crate::worker::{QueueState, Shared, Worker};

/// Data segments per request: what fits a ring of 128 entries beside header and status, the size that
/// hypervisors choose, so that a request also fits where a guest uses no indirect descriptors.
const MAX_SEGMENTS: u16 = 126;
/// More memory than this is no guest's. Mapping it could leave the daemon without addresses.
const MAX_GUEST_BYTES: u64 = 16 << 40;
/// As many regions as the library says it takes. A process can't have any number of mappings, and the daemon
/// needs some for others.
const MAX_REGIONS: usize = 509;

/// Ends a connection from one of its queues' threads.
pub(crate) type HangUp = Box<dyn Fn() + Send + Sync>;

/// The device. Made anew for each connection.
pub(crate) struct BlkDevice {
    disk: Arc<SwapDisk>,
    counters: Arc<Counters>,
    config: ConfigSpace,
    queues: u16,
    queue_size: u16,
    shared: Shared,
    /// One per queue. Only the queue's own thread locks it.
    states: Vec<Mutex<QueueState>>,
    /// Ends the connection.
    hang_up: OnceLock<HangUp>,
    /// The channel for requests of ours to the peer. Unused, but user-mode Linux takes its closing for the
    /// end of the device.
    request_channel: Mutex<Option<Backend>>,
    /// See [`VhostUserBackend::exit_event`] below.
    exit_consumers: Mutex<Vec<RawFd>>,
}

impl BlkDevice {
    pub(crate) fn new(disk: Arc<SwapDisk>, options: &VhostOptions, counters: Arc<Counters>) -> BlkDevice {
        let max_segments = options.queue_size.saturating_sub(2).min(MAX_SEGMENTS);
        BlkDevice {
            config: ConfigSpace::new(disk.size_bytes(), options.queues, max_segments.into()),
            disk,
            counters,
            queues: options.queues,
            queue_size: options.queue_size,
            shared: Shared {
                memory: SharedMemory::new(GuestMemoryMmap::new()),
                memory_changes: AtomicU32::new(0),
                stopping: AtomicBool::new(false),
                memory_lost: AtomicBool::new(false),
                poll_limit: options.poll_limit.clone(),
                log_limit: LogLimit::default(),
            },
            hang_up: OnceLock::new(),
            states: (0..options.queues).map(|_| Mutex::default()).collect(),
            request_channel: Mutex::new(None),
            exit_consumers: Mutex::new(Vec::new()),
        }
    }

    /// The guest's memory, to be shared with the library.
    pub(crate) fn memory(&self) -> SharedMemory {
        self.shared.memory.clone()
    }

    /// Makes the queues' threads stop serving, whatever the guest still puts into its rings.
    pub(crate) fn stop_serving(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// How the connection is ended when the guest's memory is gone. Set once, before there are requests.
    pub(crate) fn set_hang_up(&self, hang_up: HangUp) {
        let _only_the_first = self.hang_up.set(hang_up);
    }

    /// Whether a part of the guest's memory is gone.
    pub(crate) fn memory_is_lost(&self) -> bool {
        self.shared.memory_lost.load(Ordering::Relaxed)
    }

    /// Closes what the library leaves open, once its threads have ended.
    pub(crate) fn close_exit_consumers(&self) {
        for consumer in lock(&self.exit_consumers).drain(..) {
            // SAFETY: the library turned its owner into a plain number and forgot it; the epoll descriptor
            // it was registered with is closed. So this is the only owner.
            drop(unsafe { OwnedFd::from_raw_fd(consumer) });
        }
    }

    /// Ends the queues' threads that the library started before it failed, and could not end itself. Their
    /// descriptors stay open, since nobody can say when the threads have seen them.
    pub(crate) fn end_orphans(&self) {
        self.stop_serving();
        for consumer in lock(&self.exit_consumers).drain(..) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the buffer is valid for its length. The descriptor is an eventfd, both ends in one.
            unsafe { libc::write(consumer, one.as_ptr().cast(), one.len()) };
        }
    }

    fn name_thread_once(&self, queue: usize) {
        thread_local!(static NAMED: Cell<bool> = const { Cell::new(false) });
        if !NAMED.replace(true) {
            thread_name::set(&thread_name::of("vhost", self.disk.name(), &format!("-q{queue}")));
        }
    }
}

/// The locked value. It stays whole when a thread panics: every change to it is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl VhostUserBackend for BlkDevice {
    type Bitmap = ();
    type Vring = BlkVring;

    fn num_queues(&self) -> usize {
        self.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        self.queue_size.into()
    }

    fn features(&self) -> u64 {
        let bits = [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_MQ,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_DISCARD,
            VIRTIO_BLK_F_WRITE_ZEROES,
        ];
        let device = bits.iter().fold(0, |features, bit| features | 1u64 << bit);
        device | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    /// Each ring carries its own flag.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.config.read(offset, size)
    }

    fn update_memory(&self, memory: SharedMemory) -> io::Result<()> {
        self.shared.memory_changes.fetch_add(1, Ordering::Release);
        let memory = memory.memory();
        let regions = memory.num_regions();
        let bytes = memory.iter().fold(0u64, |sum, region| sum.saturating_add(region.len()));
        if bytes > MAX_GUEST_BYTES || regions > MAX_REGIONS {
            let what = format!("{bytes} bytes of memory in {regions} regions are more than a guest can have");
            return Err(io::Error::other(what));
        }
        // A daemon that serves swap locks all that it maps. The guest's memory is not its to keep in memory.
        for region in memory.iter() {
            // SAFETY: the region is mapped while `memory` lives, and its contents stay as they are.
            unsafe { libc::munlock(region.as_ptr().cast(), region.size()) };
        }
        Ok(())
    }

    fn set_backend_req_fd(&self, channel: Backend) {
        *lock(&self.request_channel) = Some(channel);
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.queues).map(|queue| 1 << queue).collect()
    }

    /// The library registers the consumer's descriptor number and never closes it, so it is remembered here
    /// for [`BlkDevice::close_exit_consumers`].
    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        match new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC) {
            Ok((consumer, notifier)) => {
                lock(&self.exit_consumers).push(consumer.as_raw_fd());
                Some((consumer, notifier))
            }
            Err(error) => {
                log::error!("disk {}: cannot make an exit event: {error}", self.disk.name());
                None
            }
        }
    }

    /// Runs on the queue's own thread: after a kick, and when the ring is enabled.
    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        vrings: &[BlkVring],
        thread: usize,
    ) -> io::Result<()> {
        self.name_thread_once(thread);
        let (Some(vring), Some(state)) = (vrings.first(), self.states.get(thread)) else {
            return Ok(());
        };
        let worker = Worker {
            disk: &self.disk,
            counters: &self.counters,
            shared: &self.shared,
            vring,
            max_queue_size: self.queue_size,
        };
        if let Err(broken) = worker.run(&mut lock(state)) {
            vring.set_broken();
            Counters::count(&self.counters.broken_queues);
            let name = self.disk.name();
            if let Some(hidden) = self.shared.log_limit.admit(Instant::now()) {
                log::warn!(
                    "disk {name}: queue {thread} is not served until the guest resets it: {broken} ({hidden} lines not logged)"
                );
            }
        }
        if self.memory_is_lost()
            && let Some(hang_up) = self.hang_up.get()
        {
            hang_up();
        }
        Ok(())
    }
}
