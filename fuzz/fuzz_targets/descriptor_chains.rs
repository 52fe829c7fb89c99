//! Descriptor chains as a hostile guest would write them, through a real queue onto a real disk.
//!
//! The input is the guest's memory in short form: ring entries, the contents of the first buffers, and
//! descriptors of eight bytes that mostly point into memory.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_store::{Dedup, Store, StoreOptions, Weight};
use tmem_transport::LogLimit;
use tmem_vhost::{Counters, QueueServer, RequestRoom, needs_signal};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const ENTRIES: u16 = 16;
const HEADS: usize = 6;
/// Room for some headers and ranges.
const CONTENT_BYTES: usize = 96;
const INDIRECT_ENTRIES: usize = 24;
const REGION_BYTES: usize = 0x1_0000;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x800;
const INDIRECT: u64 = 0x1000;
const BUFFERS: u64 = 0x2000;

struct Rig {
    memory: GuestMemoryMmap,
    disk: SwapDisk,
    counters: Counters,
    log_limit: LogLimit,
}

impl Rig {
    fn new() -> Rig {
        let store = Store::new(StoreOptions { limit_bytes: 4 << 20 }).expect("a store");
        let options = DiskOptions {
            name: "fuzzed".into(),
            size_bytes: 8 << 20,
            cap_bytes: None,
            weight: Weight::default(),
            dedup: Dedup::Alone,
            format: Format::None,
        };
        // Two regions that touch, nothing behind.
        let regions = [(GuestAddress(0), REGION_BYTES), (GuestAddress(REGION_BYTES as u64), REGION_BYTES)];
        Rig {
            memory: GuestMemoryMmap::from_ranges(&regions).expect("memory"),
            disk: SwapDisk::create(&store, options).expect("a disk"),
            counters: Counters::default(),
            log_limit: LogLimit::default(),
        }
    }
}

thread_local!(static RIG: RefCell<Rig> = RefCell::new(Rig::new()));

/// Eight bytes of input: address in units of two, length in units of the flags' choice, flags, next.
fn descriptor(bytes: &[u8; 8], index: usize) -> Descriptor {
    let [a0, a1, l0, l1, flags, next, more, wild] = *bytes;
    let mut address = u64::from(u16::from_le_bytes([a0, a1])) * 2;
    let mut len = u32::from(u16::from_le_bytes([l0, l1]));
    if more & 1 != 0 {
        len *= 4096;
    }
    if flags & 4 != 0 && more & 2 == 0 {
        (address, len) = (INDIRECT, INDIRECT_ENTRIES as u32 * 16);
    }
    if wild == 255 {
        address = u64::MAX - address;
    }
    // Mostly on to the next slot.
    let next = if more & 4 == 0 { index as u16 + 1 } else { u16::from(next) };
    Descriptor::new(address, len, u16::from(flags), next)
}

fuzz_target!(|input: &[u8]| {
    RIG.with_borrow(|rig| {
        let memory = &rig.memory;
        let zeroes = [0u8; BUFFERS as usize];
        memory.write_slice(&zeroes, GuestAddress(0)).expect("in range");
        let Some(([choices, offered, base, length], rest)) = input.split_first_chunk::<4>() else { return };
        let Some((heads, rest)) = rest.split_first_chunk::<HEADS>() else { return };
        for (slot, head) in heads.iter().enumerate() {
            // The first entries of the ring are free, the others stay 0.
            memory.write_obj(u16::from(*head), GuestAddress(AVAIL + 4 + slot as u64 * 2)).expect("in range");
        }
        let (contents, rest) = rest.split_at(rest.len().min(CONTENT_BYTES));
        memory.write_slice(contents, GuestAddress(BUFFERS)).expect("in range");
        let (descriptors, _) = rest.as_chunks::<8>();
        for (slot, bytes) in descriptors.iter().take(ENTRIES as usize + INDIRECT_ENTRIES).enumerate() {
            let (at, index) = match slot.checked_sub(ENTRIES as usize) {
                None => (slot as u64 * 16, slot),
                Some(index) => (INDIRECT + index as u64 * 16, index),
            };
            memory.write_obj(descriptor(bytes, index), GuestAddress(at)).expect("in range");
        }

        let mut queue = Queue::new(ENTRIES).expect("a queue");
        queue.try_set_avail_ring_address(GuestAddress(AVAIL)).expect("aligned");
        queue.try_set_used_ring_address(GuestAddress(USED)).expect("aligned");
        queue.try_set_desc_table_address(GuestAddress(0)).expect("aligned");
        queue.set_event_idx(choices & 1 != 0);
        queue.set_next_avail(u16::from(*base));
        queue.set_next_used(u16::from(*base));
        queue.set_ready(true);
        let index = u16::from(*base).wrapping_add(u16::from(*offered));
        memory.write_obj(index, GuestAddress(AVAIL + 2)).expect("in range");

        let server = QueueServer::new(&rig.disk, &rig.counters, &rig.log_limit, ENTRIES + u16::from(*length));
        let mut room = RequestRoom::default();
        let before = queue.next_used();
        match server.serve(&mut queue, memory, &mut room, 64, || choices & 2 != 0) {
            Ok(served) => {
                assert!(served.requests <= ENTRIES);
                assert_eq!(queue.next_used().wrapping_sub(before), served.requests, "every chain goes back");
            }
            Err(broken) => {
                let _ = broken.to_string();
            }
        }
        let _ = needs_signal(&queue, memory, before);
    });
});
