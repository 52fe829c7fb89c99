//! A peer cuts the file of its memory short while its disk is served: the connection ends, and nothing else does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod guest;

use std::path::Path;
use std::time::{Duration, Instant};

use guest::*;
use tmem_vhost::{VhostFrontend, VhostOptions};

/// The first byte of data to be written, seen from the start of the guest's memory.
const OUT_DATA: u64 = 0x1_0000;
const IN_DATA: u64 = 0x4_0000;

fn ends(frontend: &VhostFrontend, case: &str) {
    let start = Instant::now();
    while frontend.is_connected() {
        assert!(start.elapsed() < Duration::from_secs(20), "{case}: still connected");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One page of a victim is written and read again.
fn is_well(victim: &mut Guest, round: u64) {
    victim.write(0, 8 * round, &pages(round, 1));
    for round in 0..=round {
        assert_eq!(victim.read(0, 8 * round, 4096), pages(round, 1));
    }
}

fn connect(socket: &Path) -> Guest {
    Guest::connect(socket, 2).unwrap()
}

#[test]
fn memory_that_is_gone_ends_only_its_own_connection() {
    let directory = tempfile::tempdir().unwrap();
    let store = store();
    let [victims, socket] = ["victim", "hostile"].map(|name| directory.path().join(name));
    let _serves_the_victim =
        VhostFrontend::start(disk(&store, "victim"), VhostOptions::new(&victims)).unwrap();
    let frontend = VhostFrontend::start(disk(&store, "hostile"), VhostOptions::new(&socket)).unwrap();
    let mut victim = connect(&victims);
    is_well(&mut victim, 0);

    // What it wrote before is there afterwards; what was being written was never answered.
    let mut guest = connect(&socket);
    guest.write(0, 0, &pages(7, 1));
    guest.prepare(0, WRITE, 8, &pages(8, 4), 0);
    guest.truncate_memory(OUT_DATA);
    guest.offer(0, 0);
    ends(&frontend, "data to be written is gone");
    assert_eq!(guest.used_index(0), 1, "a request that read zeroes was answered");
    is_well(&mut victim, 1);

    let mut guest = connect(&socket);
    assert_eq!(guest.read(0, 0, 4096), pages(7, 1));
    guest.prepare(0, READ, 0, &[], 4096);
    guest.truncate_memory(IN_DATA);
    guest.offer(0, 0);
    ends(&frontend, "where data is read to is gone");
    is_well(&mut victim, 2);

    let guest = connect(&socket);
    guest.truncate_memory(0);
    guest.kick(0);
    guest.kick(1);
    ends(&frontend, "the rings are gone, both queues' threads find out");
    is_well(&mut victim, 3);

    // The control thread reads the used ring's index.
    let guest = connect(&socket);
    guest.truncate_memory(0);
    let config = vhost::VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: QUEUE_SIZE,
        flags: 0,
        desc_table_addr: guest.host_address(0),
        used_ring_addr: guest.host_address(0x2000),
        avail_ring_addr: guest.host_address(0x1000),
        log_addr: None,
    };
    let refused = vhost::VhostBackend::set_vring_addr(&guest.frontend, 0, &config);
    assert!(refused.is_err(), "an index that was never there");
    drop(guest);
    ends(&frontend, "the guest has left");
    is_well(&mut victim, 4);

    assert!(frontend.counts().protocol_errors >= 3);
    let mut guest = connect(&socket);
    assert_eq!(guest.read(0, 0, 4096), pages(7, 1));
}
