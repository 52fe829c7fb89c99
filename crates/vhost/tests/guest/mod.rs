//! A guest for tests: the vhost-user front end of the `vhost` crate, and a virtio-blk driver of our own
//! that can also break every rule.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_store::{Store, StoreOptions};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

pub const READ: u32 = 0;
pub const WRITE: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

pub const QUEUE_SIZE: u16 = 64;
const EVENT_IDX: u64 = 1 << 29;
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;

/// Where the guest's memory starts, and each queue's share of it.
pub const BASE: u64 = 0x10_0000;
pub const QUEUE_BYTES: u64 = 0x8_0000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x5000;
const OUT_DATA: u64 = 0x1_0000;
const IN_DATA: u64 = 0x4_0000;

pub fn store() -> Arc<Store> {
    Store::new(StoreOptions { limit_bytes: 64 << 20 }).unwrap()
}

pub fn disk(store: &Arc<Store>, name: &str) -> Arc<SwapDisk> {
    let options = DiskOptions {
        name: name.into(),
        size_bytes: 64 << 20,
        cap_bytes: None,
        weight: tmem_store::Weight::default(),
        dedup: tmem_store::Dedup::Alone,
        format: Format::None,
    };
    Arc::new(SwapDisk::create(store, options).unwrap())
}

pub struct Queue {
    index: usize,
    at: u64,
    kick: EventFd,
    call: EventFd,
    next: u16,
    last_kicked: u16,
}

pub struct Answer {
    pub status: u8,
    pub data: Vec<u8>,
    pub used_len: u32,
}

pub struct Guest {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap,
    pub queues: Vec<Queue>,
    event_idx: bool,
    /// Kick even where the device said that it is not needed.
    pub always_kick: bool,
}

impl Guest {
    pub fn connect(socket: &Path, queues: usize) -> io::Result<Guest> {
        Guest::connect_with(socket, queues, true)
    }

    pub fn connect_with(socket: &Path, queues: usize, event_idx: bool) -> io::Result<Guest> {
        let fail = |error: vhost::Error| io::Error::other(error.to_string());
        let mut frontend = Frontend::connect(socket, queues as u64).map_err(fail)?;
        frontend.set_owner().map_err(fail)?;
        let offered = frontend.get_features().map_err(fail)?;
        frontend.set_features(if event_idx { offered } else { offered & !EVENT_IDX }).map_err(fail)?;
        let protocol = frontend.get_protocol_features().map_err(fail)?;
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK;
        assert!(protocol.contains(wanted | VhostUserProtocolFeatures::BACKEND_REQ));
        frontend.set_protocol_features(wanted).map_err(fail)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let mut guest =
            Guest { frontend, memory: memory(queues), queues: Vec::new(), event_idx, always_kick: false };
        guest.share_memory();
        for index in 0..queues {
            guest.start_queue(index);
        }
        Ok(guest)
    }

    pub fn share_memory(&mut self) {
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }

    /// Sets the queue up from nothing.
    pub fn start_queue(&mut self, index: usize) {
        let at = BASE + index as u64 * QUEUE_BYTES;
        self.memory.write_slice(&vec![0; HEADER as usize], GuestAddress(at)).unwrap();
        let queue = Queue {
            index,
            at,
            kick: EventFd::new(libc::EFD_CLOEXEC).unwrap(),
            call: EventFd::new(libc::EFD_CLOEXEC).unwrap(),
            next: 0,
            last_kicked: 0,
        };
        if self.queues.len() > index {
            self.queues[index] = queue;
        } else {
            self.queues.push(queue);
        }
        self.configure(index, 0);
    }

    pub fn configure(&mut self, index: usize, base: u16) {
        let queue = &self.queues[index];
        let host = |address| self.memory.get_host_address(GuestAddress(address)).unwrap() as u64;
        self.frontend.set_vring_num(index, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: host(queue.at),
            used_ring_addr: host(queue.at + USED),
            avail_ring_addr: host(queue.at + AVAIL),
            log_addr: None,
        };
        self.frontend.set_vring_addr(index, &config).unwrap();
        self.frontend.set_vring_call(index, &queue.call).unwrap();
        self.frontend.set_vring_kick(index, &queue.kick).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
    }

    fn put<T: vm_memory::ByteValued>(&self, value: T, address: u64) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    fn descriptor(&self, queue: usize, slot: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.queues[queue].at + u64::from(slot) * 16;
        self.put(address, at);
        self.put(len, at + 8);
        self.put(flags, at + 12);
        self.put(next, at + 14);
    }

    /// Writes one request's header, data and descriptors. Its chain starts at descriptor 0.
    pub fn prepare(&self, queue: usize, kind: u32, sector: u64, out: &[u8], in_bytes: u32) {
        let at = self.queues[queue].at;
        self.put(kind, at + HEADER);
        self.put(0u32, at + HEADER + 4);
        self.put(sector, at + HEADER + 8);
        self.put(0xffu8, at + STATUS);
        let mut slot = 0;
        let mut add = |address, len, flags| {
            self.descriptor(queue, slot, address, len, flags, slot + 1);
            slot += 1;
        };
        add(at + HEADER, 16, NEXT);
        // Data in two descriptors, cut at an odd place.
        for (address, len, flags) in
            [(OUT_DATA, out.len() as u32, NEXT), (IN_DATA, in_bytes, NEXT | WRITABLE)]
        {
            let cut = len.min(1001);
            if cut > 0 {
                add(at + address, cut, flags);
            }
            if len > cut {
                add(at + address + u64::from(cut), len - cut, flags);
            }
        }
        add(at + STATUS, 1, WRITABLE);
        self.memory.write_slice(out, GuestAddress(at + OUT_DATA)).unwrap();
    }

    /// Puts a chain's head into the available ring and lets the device know as the specification says.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let q = &self.queues[queue];
        let next = q.next;
        self.put(head, q.at + AVAIL + 4 + u64::from(next % QUEUE_SIZE) * 2);
        self.set_available(queue, next.wrapping_add(1));
        self.kick_if_wanted(queue);
    }

    /// Moves the available index, to anything.
    pub fn set_available(&mut self, queue: usize, index: u16) {
        let at = self.queues[queue].at;
        self.memory.store(index.to_le(), GuestAddress(at + AVAIL + 2), Ordering::Release).unwrap();
        self.queues[queue].next = index;
    }

    pub fn kick_if_wanted(&mut self, queue: usize) {
        fence(Ordering::SeqCst);
        let always = self.always_kick;
        let event_at = self.queues[queue].at + USED + 4 + 8 * u64::from(QUEUE_SIZE);
        let event: u16 = self.memory.load(GuestAddress(event_at), Ordering::Relaxed).unwrap();
        let flags: u16 =
            self.memory.load(GuestAddress(self.queues[queue].at + USED), Ordering::Relaxed).unwrap();
        let q = &mut self.queues[queue];
        let old = std::mem::replace(&mut q.last_kicked, q.next);
        let wanted = if self.event_idx {
            q.next.wrapping_sub(event).wrapping_sub(1) < q.next.wrapping_sub(old)
        } else {
            flags & 1 == 0
        };
        if wanted || always {
            q.kick.write(1).unwrap();
        }
    }

    /// Kicks, whatever is in the ring.
    pub fn kick(&self, queue: usize) {
        self.queues[queue].kick.write(1).unwrap();
    }

    /// Where an offset in the guest's memory is in this process, which is how the peer names addresses of rings.
    pub fn host_address(&self, offset: u64) -> u64 {
        self.memory.get_host_address(GuestAddress(BASE + offset)).unwrap() as u64
    }

    /// Cuts the file of the guest's memory short. The guest itself must keep away from what is gone.
    pub fn truncate_memory(&self, bytes: u64) {
        let region = self.memory.iter().next().unwrap();
        region.file_offset().unwrap().file().set_len(bytes).unwrap();
    }

    pub fn used_index(&self, queue: usize) -> u16 {
        let at = self.queues[queue].at + USED + 2;
        self.memory.load(GuestAddress(at), Ordering::Acquire).unwrap()
    }

    /// Waits until the device has used everything offered.
    pub fn wait(&self, queue: usize, limit: Duration) -> bool {
        let start = Instant::now();
        while self.used_index(queue) != self.queues[queue].next {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Waits for the call descriptor, as a driver that sleeps does.
    pub fn wait_for_call(&self, queue: usize, limit: Duration) -> bool {
        let fd = self.queues[queue].call.as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&mut poll, 1, limit.as_millis() as i32) };
        if ready == 1 {
            self.queues[queue].call.read().unwrap();
        }
        ready == 1
    }

    /// The driver wants a call for the next used entry.
    pub fn want_call(&self, queue: usize) {
        let q = &self.queues[queue];
        let at = q.at + AVAIL + 4 + 2 * u64::from(QUEUE_SIZE);
        let used = self.used_index(queue);
        self.memory.store(used.to_le(), GuestAddress(at), Ordering::Release).unwrap();
        fence(Ordering::SeqCst);
    }

    /// One request from start to end.
    pub fn request(&mut self, queue: usize, kind: u32, sector: u64, out: &[u8], in_bytes: u32) -> Answer {
        self.prepare(queue, kind, sector, out, in_bytes);
        self.offer(queue, 0);
        assert!(self.wait(queue, Duration::from_secs(20)), "request {kind} was not answered");
        self.answer(queue, in_bytes)
    }

    /// What the last request brought.
    pub fn answer(&self, queue: usize, in_bytes: u32) -> Answer {
        let q = &self.queues[queue];
        let slot = u64::from(q.next.wrapping_sub(1) % QUEUE_SIZE);
        let used_len = self.memory.read_obj(GuestAddress(q.at + USED + 4 + slot * 8 + 4)).unwrap();
        let mut data = vec![0; in_bytes as usize];
        self.memory.read_slice(&mut data, GuestAddress(q.at + IN_DATA)).unwrap();
        let status = self.memory.read_obj(GuestAddress(q.at + STATUS)).unwrap();
        Answer { status, data, used_len }
    }

    pub fn write(&mut self, queue: usize, sector: u64, data: &[u8]) {
        let answer = self.request(queue, WRITE, sector, data, 0);
        assert_eq!((answer.status, answer.used_len), (OK, 1));
    }

    pub fn read(&mut self, queue: usize, sector: u64, bytes: u32) -> Vec<u8> {
        let answer = self.request(queue, READ, sector, &[], bytes);
        assert_eq!((answer.status, answer.used_len), (OK, bytes + 1));
        answer.data
    }

    /// The body of a discard or write-zeroes request.
    pub fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    }
}

fn memory(queues: usize) -> GuestMemoryMmap {
    // SAFETY: makes a new descriptor.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just made.
    let file = unsafe { File::from_raw_fd(fd) };
    let bytes = queues as u64 * QUEUE_BYTES;
    file.set_len(bytes).unwrap();
    let range = (GuestAddress(BASE), bytes as usize, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files(&[range]).unwrap()
}

/// Pages that differ from each other and compress somewhat.
pub fn pages(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count * 4096);
    while bytes.len() < count * 4096 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bytes.extend_from_slice(&(state >> 40).to_le_bytes());
    }
    bytes
}
