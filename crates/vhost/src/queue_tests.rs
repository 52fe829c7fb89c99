//! Random descriptor chains through a real queue, onto a real disk.
//!
//! A guest may write anything at all into its descriptor table, its indirect tables and its request headers.
//! Whatever it is: the device comes to an end, hands every chain back or declares the queue broken, and
//! writes nowhere but into the descriptors that the chain marks as writable.

use std::sync::Arc;

use proptest::prelude::*;
use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_store::{Dedup, Store, StoreOptions};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;

const ENTRIES: u16 = 16;
/// Two regions that touch each other, so that a buffer may span them, and nothing behind.
const MEMORY_BYTES: u64 = 0x4_0000;
const BORDER: u64 = 0x2_0000;
/// The descriptor table is at the start, then come the rings.
const AVAIL: u64 = 0x400;
const USED: u64 = 0x800;
const USED_END: u64 = USED + 6 + 8 * ENTRIES as u64;
const BUFFERS: u64 = 0x2000;
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
const INDIRECT: u16 = 4;

struct Device {
    disk: SwapDisk,
    counters: Counters,
    log_limit: LogLimit,
}

impl Device {
    fn new() -> Device {
        let store: Arc<Store> = Store::new(StoreOptions { limit_bytes: 8 << 20 }).unwrap();
        let options = DiskOptions {
            name: "fuzzed".into(),
            size_bytes: 1 << 20,
            cap_bytes: None,
            weight: tmem_store::Weight::default(),
            dedup: Dedup::Alone,
            format: Format::None,
        };
        let disk = SwapDisk::create(&store, options).unwrap();
        Device { disk, counters: Counters::default(), log_limit: LogLimit::default() }
    }

    fn serve(&self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<u16, BrokenQueue> {
        let server = QueueServer::new(&self.disk, &self.counters, &self.log_limit, ENTRIES);
        let served = server.serve(queue, memory, &mut RequestRoom::default(), u16::MAX, || false)?;
        Ok(served.requests)
    }
}

fn memory() -> GuestMemoryMmap {
    let size = BORDER as usize;
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size), (GuestAddress(BORDER), size)]).unwrap()
}

/// A descriptor as a guest might write it: mostly inside memory, with links that mostly lead on.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        8 => BUFFERS..MEMORY_BYTES,
        2 => BORDER - 4096..BORDER + 4096,
        1 => 0..BUFFERS,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![
        4 => Just(16u32),
        4 => Just(1u32),
        4 => Just(4096u32),
        2 => 0u32..9000,
        1 => Just(20u32),
        1 => Just(0u32),
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![
        4 => Just(NEXT),
        4 => Just(NEXT | WRITABLE),
        2 => Just(WRITABLE),
        1 => Just(INDIRECT),
        1 => any::<u16>(),
    ];
    let next = prop_oneof![8 => 0..ENTRIES, 1 => any::<u16>()];
    (address, len, flags, next)
}

/// A header as it may stand at the start of a buffer.
fn header() -> impl Strategy<Value = (u64, u32, u64)> {
    let kind = prop_oneof![8 => 0u32..16, 1 => any::<u32>()];
    let sector = prop_oneof![8 => (0u64..260).prop_map(|block| block * 8), 1 => any::<u64>()];
    (BUFFERS..MEMORY_BYTES - 16, kind, sector)
}

/// A guest's side of a queue.
struct Ring<'a>(&'a GuestMemoryMmap);

impl Ring<'_> {
    fn queue(&self) -> Queue {
        let mut queue = Queue::new(ENTRIES).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAIL)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.try_set_desc_table_address(GuestAddress(0)).unwrap();
        queue.set_ready(true);
        queue
    }

    fn set_table(&self, at: u64, table: &[(u64, u32, u16, u16)]) {
        for (slot, (address, len, flags, next)) in table.iter().enumerate() {
            let descriptor = Descriptor::new(*address, *len, *flags, *next);
            self.0.write_obj(descriptor, GuestAddress(at + slot as u64 * 16)).unwrap();
        }
    }

    fn offer(&self, heads: &[u16]) {
        let start = self.index(AVAIL);
        for (head, index) in heads.iter().zip(start..) {
            let slot = u64::from(index % ENTRIES);
            self.0.write_obj(head.to_le(), GuestAddress(AVAIL + 4 + slot * 2)).unwrap();
        }
        self.set_available(start + heads.len() as u16);
    }

    fn set_available(&self, index: u16) {
        self.0.write_obj(index.to_le(), GuestAddress(AVAIL + 2)).unwrap();
    }

    fn index(&self, ring: u64) -> u16 {
        u16::from_le(self.0.read_obj(GuestAddress(ring + 2)).unwrap())
    }

    /// Chain and length of an entry of the used ring.
    fn used(&self, slot: usize) -> (u32, u32) {
        let at = USED + 4 + slot as u64 * 8;
        let word = |at| u32::from_le(self.0.read_obj(GuestAddress(at)).unwrap());
        (word(at), word(at + 4))
    }
}

fn contents(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY_BYTES as usize];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// Marks what the device may write: every writable descriptor of every table it may have followed.
fn mark_writable(table: &[(u64, u32, u16, u16)], allowed: &mut [bool]) {
    for (address, len, flags, _) in table {
        if flags & WRITABLE != 0 && flags & INDIRECT == 0 && *address < MEMORY_BYTES {
            let end = (address + u64::from(*len)).min(MEMORY_BYTES);
            allowed[*address as usize..end as usize].fill(true);
        }
    }
}

fn link(table: &mut [(u64, u32, u16, u16)]) {
    for (slot, (_, _, _, next)) in table.iter_mut().enumerate() {
        *next = slot as u16 + 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_chains(
        mut table in prop::collection::vec(descriptor(), ENTRIES as usize),
        mut indirect in prop::collection::vec(descriptor(), 1..24),
        headers in prop::collection::vec(header(), 0..8),
        aimed in any::<bool>(),
        linked in prop::bool::weighted(0.7),
        heads in prop::collection::vec(prop_oneof![30 => 0..ENTRIES, 1 => any::<u16>()], 1..ENTRIES as usize),
        jump in prop::bool::weighted(0.03),
    ) {
        let device = Device::new();
        let memory = memory();
        let ring = Ring(&memory);
        let mut queue = ring.queue();
        if linked {
            link(&mut table);
            link(&mut indirect);
        }
        // Indirect tables stand high in memory, away from the rings.
        let indirect_at = MEMORY_BYTES - 0x1000;
        for entry in table.iter_mut().filter(|entry| entry.2 & INDIRECT != 0) {
            (entry.0, entry.1) = (indirect_at, indirect.len() as u32 * 16);
        }
        if aimed {
            // The first descriptors are good headers, so that more of the chains mean something.
            for (entry, (address, _, _)) in table.iter_mut().step_by(3).zip(&headers) {
                (entry.0, entry.1, entry.2) = (*address, 16, NEXT);
            }
        }
        for (address, kind, sector) in &headers {
            memory.write_obj(*kind, GuestAddress(*address)).unwrap();
            memory.write_obj(*sector, GuestAddress(*address + 8)).unwrap();
        }
        ring.set_table(indirect_at, &indirect);
        ring.set_table(0, &table);
        ring.offer(&heads);
        if jump {
            ring.set_available(ENTRIES + 1);
        }

        // Buffers that overlap the rings or tables could change what the test reasons about.
        let clobbers = table.iter().chain(&indirect).any(|(address, len, flags, _)| {
            let end = address.saturating_add(u64::from(*len));
            let tables = *address < BUFFERS || (end > indirect_at && *address < MEMORY_BYTES);
            flags & WRITABLE != 0 && tables
        });
        let before = contents(&memory);
        let result = device.serve(&mut queue, &memory);
        let after = contents(&memory);
        if clobbers {
            // Then it is enough to have come here.
            return Ok(());
        }

        let bad_head = heads.iter().position(|head| *head >= ENTRIES);
        let served = match (jump, bad_head) {
            (true, _) => {
                prop_assert_eq!(result, Err(BrokenQueue::AvailIndex));
                0
            }
            (false, Some(at)) => {
                prop_assert_eq!(result, Err(BrokenQueue::Head(heads[at])));
                at
            }
            (false, None) => {
                prop_assert_eq!(result, Ok(heads.len() as u16));
                heads.len()
            }
        };
        prop_assert_eq!(queue.next_used(), served as u16);
        prop_assert_eq!(ring.index(USED), served as u16);
        for (slot, head) in heads.iter().take(served).enumerate() {
            prop_assert_eq!(ring.used(slot).0, u32::from(*head));
        }

        let mut allowed = vec![false; MEMORY_BYTES as usize];
        mark_writable(&table, &mut allowed);
        mark_writable(&indirect, &mut allowed);
        let used_ring = USED as usize..USED_END as usize;
        for at in 0..before.len() {
            let free = allowed[at] || used_ring.contains(&at);
            prop_assert!(free || before[at] == after[at], "byte {:#x} changed", at);
        }
    }
}

/// One good chain after another, so that the property above is not about errors alone.
#[test]
fn a_buffer_across_two_regions_is_one_buffer() {
    let device = Device::new();
    let memory = memory();
    let ring = Ring(&memory);
    let mut queue = ring.queue();
    let data: Vec<u8> = (0..8192u32).map(|byte| (byte * 7 / 8) as u8).collect();
    let (at, status) = (BORDER - 3000, 0x3_0000u64);
    for (kind, data_flags) in [(1u32, NEXT), (0, NEXT | WRITABLE)] {
        memory.write_obj(kind, GuestAddress(BUFFERS)).unwrap();
        memory.write_obj(8u64, GuestAddress(BUFFERS + 8)).unwrap();
        let fill = if kind == 1 { data.clone() } else { vec![0; data.len()] };
        memory.write_slice(&fill, GuestAddress(at)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
        // The header in two parts.
        let chain = [
            (BUFFERS, 5, NEXT, 1),
            (BUFFERS + 5, 11, NEXT, 2),
            (at, data.len() as u32, data_flags, 3),
            (status, 1, WRITABLE, 0),
        ];
        ring.set_table(0, &chain);
        ring.offer(&[0]);
        assert_eq!(device.serve(&mut queue, &memory), Ok(1));
        assert_eq!(memory.read_obj::<u8>(GuestAddress(status)).unwrap(), 0);
    }
    let mut got = vec![0; data.len()];
    memory.read_slice(&mut got, GuestAddress(at)).unwrap();
    assert_eq!(got, data);
    assert_eq!(ring.used(1), (0, data.len() as u32 + 1));
}

/// A chain that loops, ends nowhere or has no place for a status goes back with nothing written.
#[test]
fn chains_that_cannot_be_answered_go_back() {
    let cases: [&[(u64, u32, u16, u16)]; 5] = [
        // A loop.
        &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, NEXT, 0)],
        // A link beyond the table.
        &[(BUFFERS, 16, NEXT, ENTRIES)],
        // Nothing writable.
        &[(BUFFERS, 16, 0, 0)],
        // A status outside memory.
        &[(BUFFERS, 16, NEXT, 1), (MEMORY_BYTES, 1, WRITABLE, 0)],
        // An indirect table outside memory.
        &[(MEMORY_BYTES, 32, INDIRECT, 0)],
    ];
    for table in cases {
        let device = Device::new();
        let memory = memory();
        let ring = Ring(&memory);
        let mut queue = ring.queue();
        ring.set_table(0, table);
        ring.offer(&[0]);
        assert_eq!(device.serve(&mut queue, &memory), Ok(1));
        assert_eq!(ring.used(0), (0, 0), "{table:?}");
        assert_eq!(device.counters.snapshot().bad_requests, 1);
    }
}

/// The arithmetic of the specification, also where the indices wrap around.
#[test]
fn a_signal_is_sent_when_the_used_index_passes_the_event() {
    let memory = memory();
    let ring = Ring(&memory);
    let mut queue = ring.queue();
    queue.set_event_idx(true);
    let event_at = AVAIL + 4 + 2 * u64::from(ENTRIES);
    let mut signal = |event: u16, before: u16, used: u16| {
        memory.write_obj(event.to_le(), GuestAddress(event_at)).unwrap();
        queue.set_next_used(used);
        needs_signal(&queue, &memory, before).unwrap()
    };
    assert!(signal(0, 0, 1));
    assert!(signal(4, 0, 5));
    assert!(!signal(5, 0, 5), "the guest waits for a later one");
    assert!(!signal(4, 5, 6), "it has been told");
    assert!(signal(u16::MAX, u16::MAX, 0));
    assert!(signal(u16::MAX, u16::MAX - 3, 2));
    assert!(!signal(2, u16::MAX, 2));

    queue.set_event_idx(false);
    assert!(needs_signal(&queue, &memory, 2).unwrap());
    memory.write_obj(1u16.to_le(), GuestAddress(AVAIL)).unwrap();
    assert!(!needs_signal(&queue, &memory, 2).unwrap(), "the guest wants no signals");
}
