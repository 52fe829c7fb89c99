//! Serves the requests that stand in one virtqueue.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use tmem_disk::SwapDisk;
use tmem_transport::LogLimit;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::counters::Counters;
use crate::execute::{Segments, execute};
use crate::lost_memory;
use crate::request::{ChainBuffers, Fault, Request, parse};

/// Why a queue is not served any further. Only a driver that breaks the rules gets one so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenQueue {
    /// More requests announced than the ring has entries.
    #[error("the available ring claims more requests than the ring has entries")]
    AvailIndex,
    /// A ring entry names a descriptor that is not there.
    #[error("the available ring names descriptor {0}, beyond the table")]
    Head(u16),
    /// The rings themselves are not in the guest's memory.
    #[error("a ring lies outside the guest's memory")]
    RingOutsideMemory,
}

/// Room for the parts of a request. Reused while the guest's memory stays the same.
#[derive(Default)]
pub struct RequestRoom<'m> {
    buffers: ChainBuffers<'m>,
    segments: Segments<'m>,
}

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// How many requests.
    pub requests: u16,
    /// One of them was something else than a write that went well: somebody is likely to wait for it.
    pub is_waited_for: bool,
}

/// Serves queues of one disk. Public so that fuzzers and benchmarks can drive it without a socket.
pub struct QueueServer<'a> {
    /// The disk that requests go to.
    disk: &'a SwapDisk,
    /// Counts what comes.
    counters: &'a Counters,
    /// Limits the lines about requests that make no sense.
    log_limit: &'a LogLimit,
    /// Most descriptors in a chain.
    max_descriptors: u16,
}

impl<'a> QueueServer<'a> {
    /// `max_queue_size` is also the longest chain that the specification allows.
    pub fn new(
        disk: &'a SwapDisk,
        counters: &'a Counters,
        log_limit: &'a LogLimit,
        max_queue_size: u16,
    ) -> QueueServer<'a> {
        QueueServer { disk, counters, log_limit, max_descriptors: max_queue_size }
    }

    /// Serves up to `max_requests` of the requests that the guest has made available, in their order, and
    /// puts each into the used ring as it is done. `leave` is asked after each request. The guest has not been
    /// signalled yet: see [`needs_signal`].
    pub fn serve<'m>(
        &self,
        queue: &mut Queue,
        memory: &'m GuestMemoryMmap,
        room: &mut RequestRoom<'m>,
        max_requests: u16,
        leave: impl Fn() -> bool,
    ) -> Result<Served, BrokenQueue> {
        let available = queue.avail_idx(memory, Ordering::Acquire).map_err(outside)?;
        let waiting = (available - Wrapping(queue.next_avail())).0;
        if waiting > queue.size() {
            return Err(BrokenQueue::AvailIndex);
        }
        let mut served = Served::default();
        while served.requests < waiting.min(max_requests) {
            if served.requests > 0 && leave() {
                break;
            }
            let chain = queue.iter(memory).ok().and_then(|mut chains| chains.next());
            let chain = chain.ok_or(BrokenQueue::RingOutsideMemory)?;
            let head = chain.head_index();
            if head >= queue.size() {
                return Err(BrokenQueue::Head(head));
            }
            let (written, is_waited_for) = self.serve_chain(chain, memory, room);
            if lost_memory::is_lost() {
                break; // it may have worked on zeroes that were never the guest's
            }
            queue.add_used(memory, head, written).map_err(outside)?;
            served.requests += 1;
            served.is_waited_for |= is_waited_for;
        }
        Ok(served)
    }

    /// Serves one chain. Returns the bytes written to it, and whether somebody is likely to wait for it.
    fn serve_chain<'m>(
        &self,
        chain: DescriptorChain<&'m GuestMemoryMmap>,
        memory: &'m GuestMemoryMmap,
        room: &mut RequestRoom<'m>,
    ) -> (u32, bool) {
        Counters::count(&self.counters.requests);
        let parsed = match parse(chain, memory, self.max_descriptors, &mut room.buffers) {
            Ok(parsed) => parsed,
            Err(no_answer) => {
                self.bad(&no_answer);
                return (0, true);
            }
        };
        let (status, data_bytes) = match parsed.request {
            Ok(request) => self.carry_out(request, room),
            Err(fault) => {
                self.bad(&fault);
                let unsupported = matches!(fault, Fault::Type(_) | Fault::Flags);
                (if unsupported { VIRTIO_BLK_S_UNSUPP } else { VIRTIO_BLK_S_IOERR }, 0)
            }
        };
        // The data is in place before the status, and both before the used ring's index.
        parsed.status.copy_from(&[status as u8]);
        let is_plain_write = matches!(parsed.request, Ok(Request::Write { .. })) && status == VIRTIO_BLK_S_OK;
        // Data is bounded far below 4 GiB by the parser.
        (data_bytes as u32 + 1, !is_plain_write)
    }

    fn carry_out<'m>(&self, request: Request, room: &mut RequestRoom<'m>) -> (u32, u64) {
        match execute(self.disk, request, &room.buffers, &mut room.segments) {
            Ok(data_bytes) => (VIRTIO_BLK_S_OK, data_bytes),
            Err(error) => {
                Counters::count(&self.counters.failed_requests);
                if let Some(hidden) = self.log_limit.admit(Instant::now()) {
                    let name = self.disk.name();
                    log::warn!("disk {name}: {request:?} failed: {error} ({hidden} like it not logged)");
                }
                (VIRTIO_BLK_S_IOERR, 0)
            }
        }
    }

    fn bad(&self, what: &dyn std::error::Error) {
        Counters::count(&self.counters.bad_requests);
        if let Some(hidden) = self.log_limit.admit(Instant::now()) {
            let name = self.disk.name();
            log::warn!("disk {name}: the guest sent a bad request: {what} ({hidden} like it not logged)");
        }
    }
}

/// Whether the guest wants to be told of what was added to the used ring since `used_before`, which is what
/// [`QueueT::next_used`] was when this was last asked (virtio 1.3, section 2.7.7.2).
///
/// The library's own answer counts what was added in the queue, and the count survives a ring's restart.
pub fn needs_signal(queue: &Queue, memory: &GuestMemoryMmap, used_before: u16) -> Result<bool, BrokenQueue> {
    // The used index is published before it is read what the guest waits for. The guest does it the other way
    // round, so one of the two sees the other.
    fence(Ordering::SeqCst);
    let used = queue.next_used();
    if !queue.event_idx_enabled() {
        let flags = load_u16(memory, queue.avail_ring())?;
        return Ok(flags & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0);
    }
    // Behind the flags, the index and the entries of the available ring.
    let event = load_u16(memory, queue.avail_ring().saturating_add(4 + 2 * u64::from(queue.size())))?;
    Ok(used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(used_before))
}

fn load_u16(memory: &GuestMemoryMmap, address: u64) -> Result<u16, BrokenQueue> {
    let value = memory.load(GuestAddress(address), Ordering::Relaxed);
    value.map(u16::from_le).map_err(|_| BrokenQueue::RingOutsideMemory)
}

/// Every access to a ring fails for this one reason.
pub(crate) fn outside(_: virtio_queue::Error) -> BrokenQueue {
    BrokenQueue::RingOutsideMemory
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
