//! The connection to the server: its queues, and the memory shared with it.

use std::{
    io,
    os::{fd::AsRawFd, unix::fs::FileTypeExt},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue,
    VirtioBlkReqBuf, VirtioBlkTransport, VirtioFeatureFlags, virtio_blk_max_queues,
};

use super::{PAGE_BYTES, memory::SharedMemory};
use crate::{
    error::BenchError,
    load::{ANSWER_SECONDS, Done, Request, Target},
};

/// How long a server may take to answer the first messages. It does nothing but answer: a second is plenty, a guest
/// that is connected already makes it forever.
const CONNECT_SECONDS: u64 = 5;
/// Descriptors of a request: header, data, status.
const DESCRIPTORS_PER_REQUEST: u16 = 3;
/// The queue size guests take when nothing bigger is needed.
const QUEUE_SIZE_LEAST: u16 = 128;

struct Queue {
    /// The context of a request is its slot.
    ring: VirtioBlkQueue<'static, usize>,
    notifier: Box<dyn QueueNotifier>,
    completion: Arc<EventFd>,
    /// Requests were added since the server was last told.
    unannounced: bool,
}

/// A connected disk. One thread drives all of its queues.
pub(super) struct Device {
    // Dropped in this order: the rings lie in memory that the transport owns.
    queues: Vec<Queue>,
    _transport: Box<VirtioBlkTransport>,
    memory: SharedMemory,
    capacity_bytes: u64,
}

impl Device {
    /// Connects to `socket`, shares `content` and `slots` buffers with the server, and sets up `queues` queues.
    pub(super) fn connect(
        socket: &Path,
        queues: u16,
        slots: u16,
        content: &[u8],
    ) -> Result<Self, BenchError> {
        let mut transport = handshake(socket)?;
        let not_a_disk = |reason: String| BenchError::NotADisk { socket: socket.into(), reason };
        let features = transport.get_features();
        if features & VirtioFeatureFlags::VERSION_1.bits() == 0 {
            return Err(not_a_disk("it does not offer VIRTIO 1".into()));
        }
        if features & VirtioBlkFeatureFlags::RO.bits() != 0 {
            return Err(not_a_disk("it is read-only".into()));
        }
        let config =
            transport.get_config().map_err(|error| not_a_disk(format!("no configuration: {error}")))?;
        let capacity_bytes = u64::from(config.capacity).saturating_mul(512);

        let offered =
            virtio_blk_max_queues(transport.as_ref()).map_err(|error| not_a_disk(error.to_string()))?;
        if offered < queues.into() {
            return Err(BenchError::Usage(format!("--queues {queues}: {} has {offered}", socket.display())));
        }
        let queue_size =
            (slots.div_ceil(queues) * DESCRIPTORS_PER_REQUEST).next_power_of_two().max(QUEUE_SIZE_LEAST);
        let rings = VirtioBlkQueue::setup_queues(transport.as_mut(), queues.into(), queue_size)
            .map_err(|error| not_a_disk(format!("{queues} queues of {queue_size}: {error}")))?;
        let memory = SharedMemory::new(content, slots.into())?;
        let (address, bytes, file) = memory.region();
        transport.map_mem_region(address, bytes, file, 0).map_err(|error| {
            not_a_disk(format!("it does not take {bytes} bytes of shared memory: {error}"))
        })?;

        let queues = rings.into_iter().enumerate().map(|(index, ring)| Queue {
            ring,
            notifier: transport.get_submission_notifier(index),
            completion: transport.get_completion_fd(index),
            unannounced: false,
        });
        let mut device = Self { queues: queues.collect(), _transport: transport, memory, capacity_bytes };
        device.set_notified(false);
        Ok(device)
    }

    /// The size of the disk.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Asks for notifications, or asks for none.
    fn set_notified(&mut self, notified: bool) {
        for queue in &mut self.queues {
            queue.ring.set_used_notif_enabled(notified);
        }
    }
}

impl Target for Device {
    fn content_pages(&self) -> usize {
        self.memory.content_pages()
    }

    fn holds(&self, slot: usize, page: usize) -> bool {
        self.memory.buffer_is_page(slot, page)
    }

    fn soil(&mut self, slot: usize) {
        self.memory.soil(slot);
    }

    /// Puts a request into the ring of the slot's queue. The slot must have no other in flight.
    fn submit(&mut self, slot: usize, request: Request) -> Result<(), BenchError> {
        let index = slot % self.queues.len();
        let queue = &mut self.queues[index];
        let offset = request.block() * PAGE_BYTES as u64;
        // SAFETY: both addresses are whole pages of the shared memory, which lives as long as the device; a slot's
        // buffer is touched by nobody until its request is done, pages of the content are only ever read.
        unsafe {
            match request {
                Request::Read { .. } => {
                    queue
                        .ring
                        .read_raw(offset, self.memory.buffer(slot), PAGE_BYTES, slot)
                        .map_err(BenchError::Queue)?;
                }
                Request::Write { page, .. } => {
                    let page = self.memory.content_page(page as usize);
                    queue.ring.write_raw(offset, page, PAGE_BYTES, slot).map_err(BenchError::Queue)?;
                }
            }
        }
        queue.unannounced = true;
        Ok(())
    }

    /// Tells the server of what was submitted, where it wants to be told: once per queue and batch, as a guest does.
    fn announce(&mut self) -> Result<(), BenchError> {
        for queue in &mut self.queues {
            if std::mem::take(&mut queue.unannounced) && queue.ring.avail_notif_needed() {
                queue.notifier.notify().map_err(BenchError::Queue)?;
            }
        }
        Ok(())
    }

    /// Takes what is done out of the rings, without waiting.
    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), BenchError> {
        for queue in &mut self.queues {
            done.extend(
                queue.ring.completions().map(|answer| Done { slot: answer.context, status: answer.ret }),
            );
        }
        Ok(())
    }

    /// Sleeps until a queue has answers. False when none came in time.
    fn sleep(&mut self) -> Result<bool, BenchError> {
        self.set_notified(true);
        // What was done before notifications were on would never be notified.
        if self.queues.iter_mut().any(|queue| queue.ring.completions().has_next()) {
            self.set_notified(false);
            return Ok(true);
        }
        let mut waited: Vec<libc::pollfd> = self.queues.iter().map(readable).collect();
        let timeout_ms = (ANSWER_SECONDS * 1000) as libc::c_int;
        // SAFETY: the array is ours and as long as told.
        let ready = unsafe { libc::poll(waited.as_mut_ptr(), waited.len() as libc::nfds_t, timeout_ms) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            // An interrupted sleep is an early one: the caller looks at the rings and sleeps again.
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(true)
            } else {
                Err(BenchError::Queue(error))
            };
        }
        for (queue, _) in self.queues.iter().zip(&waited).filter(|(_, waited)| waited.revents != 0) {
            queue.completion.read().map_err(BenchError::Queue)?;
        }
        self.set_notified(false);
        Ok(ready > 0)
    }
}

fn readable(queue: &Queue) -> libc::pollfd {
    libc::pollfd { fd: queue.completion.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Opens the connection and agrees on features.
fn handshake(socket: &Path) -> Result<Box<VirtioBlkTransport>, BenchError> {
    match socket.metadata() {
        Ok(found) if !found.file_type().is_socket() => return Err(BenchError::NotASocket(socket.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BenchError::SocketMissing(socket.into()));
        }
        _ => {}
    }
    let path =
        socket.to_str().ok_or_else(|| BenchError::Usage(format!("{}: not UTF-8", socket.display())))?;
    let path = path.to_string();
    let features = VirtioFeatureFlags::VERSION_1.bits()
        | VirtioFeatureFlags::RING_EVENT_IDX.bits()
        | (VirtioBlkFeatureFlags::MQ | VirtioBlkFeatureFlags::BLK_SIZE | VirtioBlkFeatureFlags::RO).bits();
    // The driver waits for its answers without an end, and a server that has a guest may leave us in its backlog: the
    // wait happens on a thread that can be left behind.
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more when the time was up.
        let _ = send.send(VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(&path, features));
    });
    match receive.recv_timeout(Duration::from_secs(CONNECT_SECONDS)) {
        Ok(Ok(transport)) => Ok(Box::new(transport)),
        // The driver's own words for a device that lacks what it needs.
        Ok(Err(error)) if error.to_string().contains("Backend doesn't support") => {
            Err(BenchError::NotADisk {
                socket: socket.into(),
                reason: "it needs the protocol features MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS".into(),
            })
        }
        Ok(Err(error)) => Err(BenchError::Connect { socket: socket.into(), error }),
        Err(_) => Err(BenchError::Silent { socket: socket.into(), seconds: CONNECT_SECONDS }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn error_at(path: &Path) -> String {
        Device::connect(path, 1, 1, &[0; PAGE_BYTES]).err().unwrap().to_string()
    }

    #[test]
    fn each_wrong_socket_has_its_own_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(error_at(&missing).contains("no such socket"), "{}", error_at(&missing));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(error_at(&file).contains("not a socket"));
        let dead = folder.path().join("dead");
        drop(UnixListener::bind(&dead).unwrap());
        assert!(error_at(&dead).contains("cannot connect"), "{}", error_at(&dead));
        let silent = folder.path().join("silent");
        let _listener = UnixListener::bind(&silent).unwrap();
        assert!(error_at(&silent).contains("another guest"), "{}", error_at(&silent));
    }
}
