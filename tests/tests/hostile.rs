//! Hostile clients: whatever they do to their own disks, the pages of others stay right and their answers come, and the daemon runs on and
//! holds no more afterwards than before (rules 1, 6 and 8).
//!
//! | file | job |
//! |---|---|
//! | `hostile/bench` | a daemon with a victim |
//! | `hostile/victim` | a client that compares every byte |
//! | `hostile/footprint` | what the daemon holds of its host |
//! | `hostile/nbd`, `hostile/wire`, `hostile/flood` | what a hostile client sends |
#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed step is a failed test

#[path = "../../crates/vhost/tests/guest/mod.rs"]
mod guest;
mod hostile {
    pub mod bench;
    pub mod flood;
    pub mod footprint;
    pub mod nbd;
    pub mod victim;
    pub mod wire;

    pub(crate) use super::guest;
}

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{FromRawFd, IntoRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guest::pages;
use hostile::{
    bench::Bench,
    flood,
    nbd::{self, Nbd, READ, TRIM, WRITE, WRITE_ZEROES, is_hung_up_on},
    wire::{self, Region},
};
use vhost::{VhostBackend, VringConfigData, vhost_user::VhostUserFrontend};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const DISK_BYTES: u64 = 64 << 20;
/// As many as one who wants to exhaust a server makes.
const FLOOD: usize = 10_000;

#[test]
fn r1_r6_nbd_clients_that_break_off_or_ask_for_what_is_not_theirs() -> Result<()> {
    let bench = Bench::new("nbd", "64M")?;
    let socket = bench.nbd();

    // A conversation cut off at every byte; the connection goes at once, or stays for a while.
    let mut whole = nbd::hello("hostile-nbd");
    whole.extend(nbd::request(WRITE, 4096, 4096));
    whole.extend([7; 100]);
    let cut_off: Vec<UnixStream> = (0..whole.len())
        .map(|len| {
            let mut stream = nbd::connect(&socket)?;
            // Those that were there first are asked to leave when there are too many.
            let _ = stream.write_all(&whole[..len]);
            Ok(stream)
        })
        .collect::<io::Result<_>>()?;
    bench.goes_on("half-sent conversations")?;
    drop(cut_off);
    bench.all_is_well("half-sent conversations")?;

    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 600]].concat();
    let garbage = [
        tls,
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 70_000],
        [&3u32.to_be_bytes()[..], b"IHAVEOPT", &[0, 0, 0, 6], &[0xff; 4]].concat(),
        [&3u32.to_be_bytes()[..], b"IHAVEOPT", &[0, 0, 0, 7], &[0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0, 0]]
            .concat(),
    ];
    for bytes in garbage {
        let mut stream = nbd::connect(&socket)?;
        let _ = stream.write_all(&bytes);
        stream.shutdown(std::net::Shutdown::Write)?;
        ensure!(is_hung_up_on(&stream), "{bytes:.20?}");
    }
    bench.all_is_well("garbage instead of a handshake")?;

    let mut client = Nbd::open(&socket, "hostile-nbd")?;
    let most = u32::MAX;
    for command in [READ, TRIM, WRITE_ZEROES] {
        for (offset, len) in [
            (DISK_BYTES, 1),
            (DISK_BYTES - 1, 2),
            (u64::MAX, 1),
            (u64::MAX - 4095, 4096),
            (1, most),
            (0, most),
        ] {
            ensure!(
                client.ask(command, offset, len, &[])? != 0,
                "command {command}: {len} bytes at {offset}"
            );
        }
        ensure!(client.ask(command, 0, 0, &[])? == 0 || command != READ, "a read of nothing");
    }
    ensure!(client.ask(WRITE, DISK_BYTES - 4096, 8192, &[1; 8192])? != 0, "a write across the end");
    ensure!(client.ask(WRITE, u64::MAX - 8191, 8192, &[1; 8192])? != 0, "a write that wraps around");
    client.write(3, &pages(3, 1))?;
    ensure!(client.read(3)? == pages(3, 1), "the connection is in order after all that");
    // Nobody waits for 4 GiB that were announced.
    client.send(WRITE, 0, most, &[])?;
    ensure!(is_hung_up_on(&client.0), "4 GiB with one request");
    bench.all_is_well("requests outside of the export")?;
    bench.finish()
}

#[test]
fn r8_replies_that_nobody_reads_hold_nobody_up() -> Result<()> {
    let bench = Bench::new("nbd", "64M")?;
    let memory = bench.memory_kib()?[0];
    let clients = 64;
    let mut flooding = Vec::new();
    for _ in 0..clients {
        let mut client = Nbd::open(&bench.nbd(), "hostile-nbd")?;
        // As much as the sockets take.
        client.0.set_nonblocking(true)?;
        let requests = nbd::request(READ, 0, 1 << 20).repeat(1000);
        for _ in 0..100 {
            match client.0.write(&requests) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        flooding.push(client);
    }
    bench.goes_on("replies that nobody reads")?;
    let more_kib = bench.memory_kib()?[0].saturating_sub(memory);
    ensure!(more_kib < clients * 1024 + (8 << 10), "{more_kib} KiB for {clients} connections");
    // The export has as many connections as it takes, its disk can be removed all the same, and others have their own places.
    ensure!(Nbd::open(&bench.nbd(), "hostile-nbd").is_err(), "one connection too many");
    drop(Nbd::open(&bench.nbd(), "victim")?);
    bench.daemon.tmem_ok(&["disk", "rm", "hostile-nbd", "--force"])?;
    for client in &flooding {
        client.0.set_nonblocking(false)?;
        ensure!(is_hung_up_on(&client.0), "its export is gone");
    }
    drop(flooding);
    bench.all_is_well("replies that nobody reads")?;
    bench.finish()
}

/// To one address after the other, each while the connections to the one before are still held.
#[test]
fn r8_ten_thousand_connections_leave_room_for_others() -> Result<()> {
    let bench = Bench::new("nbd", "64M")?;
    for (case, socket) in [("NBD", bench.nbd()), ("vhost-user", bench.vhost_user()), ("admin", bench.admin())]
    {
        let held = flood::connections(&socket, FLOOD)?;
        bench.goes_on(case)?;
        // A client that comes now gets in: those that say nothing have to go first.
        let mut late = Nbd::open(&bench.nbd(), "victim").context(case)?;
        late.read(1)?;
        drop(late);
        let [descriptors, _] = bench.descriptors()?;
        ensure!(
            descriptors < 400,
            "{case}: {descriptors} descriptors are held for {} connections",
            held.len()
        );
        drop(held);
        bench.all_is_well(case)?;
    }
    bench.finish()
}

#[test]
fn r8_admin_connections_that_dawdle_keep_nobody_out() -> Result<()> {
    let bench = Bench::new("nbd", "64M")?;
    let say = |text: &[u8]| -> io::Result<UnixStream> {
        let mut stream = nbd::connect(&bench.admin())?;
        let _ = stream.write_all(text); // it may be hung up on
        Ok(stream)
    };
    // Heads that never end.
    let slow: Vec<_> = (0..200)
        .map(|_| say(b"GET /api/v1/status HTTP/1.1\r\nHost: tmem\r\nX: "))
        .collect::<io::Result<_>>()?;
    bench.goes_on("heads that never end")?;
    drop(slow);
    // Many headers, a long one, a body that claims to be long, one without end, and one that does not come.
    let head = b"GET /api/v1/status HTTP/1.1\r\nHost: tmem\r\n".to_vec();
    let post = "POST /api/v1/disks HTTP/1.1\r\nHost: tmem\r\n";
    let floods: [(&str, Vec<u8>); 4] = [
        ("many headers", [head.clone(), b"A: b\r\n".repeat(100_000), b"\r\n".to_vec()].concat()),
        ("a long header", [head, b"A: ".to_vec(), vec![b'x'; 8 << 20], b"\r\n\r\n".to_vec()].concat()),
        ("a long body", format!("{post}Content-Length: {}\r\n\r\n", u64::MAX).into_bytes()),
        ("a body without end", {
            let mut bytes = format!("{post}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            bytes.extend([&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat().repeat(64));
            bytes
        }),
    ];
    for (case, bytes) in floods {
        let stream = say(&bytes)?;
        ensure!(is_hung_up_on(&stream), "{case}");
        bench.all_is_well(case)?;
    }
    let mut waits = say(format!("{post}Content-Length: 100\r\n\r\n{{").as_bytes())?;
    let mut answer = String::new();
    waits.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    bench.all_is_well("a body that does not come")?;
    bench.finish()
}

#[test]
fn r1_r6_vhost_user_guests_with_rings_that_make_no_sense() -> Result<()> {
    let bench = Bench::new("vhost-user", "64M")?;
    let connect = || bench.hostile_guest();
    let descriptor = |address: u64, len: u32, flags: u16, next: u16| {
        [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let (next, write, indirect) = (1, 2, 4);
    let base = guest::BASE;
    let chains: &[(&str, Vec<u8>)] = &[
        ("a descriptor that is its own next", descriptor(base, 16, next, 0)),
        (
            "two that follow each other",
            [descriptor(base, 16, next, 1), descriptor(base, 16, next, 0)].concat(),
        ),
        ("next beyond the table", descriptor(base, 16, next, 999)),
        ("an indirect table that is itself", descriptor(base, 16, indirect, 0)),
        (
            "an indirect table in which each entry is one",
            [descriptor(base, 32, indirect, 0), descriptor(base, 32, indirect | next, 0)].concat(),
        ),
        ("an indirect table of 4 GiB", descriptor(base, u32::MAX, indirect, 0)),
        ("an indirect table outside of memory", descriptor(1 << 60, 160, indirect, 0)),
        (
            "data that wraps around",
            [
                descriptor(base + 0x4000, 16, next, 1),
                descriptor(u64::MAX - 100, 4096, next, 2),
                descriptor(base + 0x5000, 1, write, 0),
            ]
            .concat(),
        ),
        (
            "data over the rings",
            [
                descriptor(base + 0x4000, 16, next, 1),
                descriptor(base, 0x3000, next | write, 2),
                descriptor(base + 0x1000, 1, write, 0),
            ]
            .concat(),
        ),
    ];
    let mut guest = connect()?;
    for (case, table) in chains {
        // A header that asks for a read of page 0, where one is looked for.
        guest.memory.write_slice(&[0; 16], GuestAddress(base + 0x4000))?;
        guest.memory.write_slice(table, GuestAddress(base))?;
        for _ in 0..8 {
            guest.offer(0, 0);
            guest.kick(0);
        }
        guest.wait(0, Duration::from_millis(100)); // answered or not
        bench.goes_on(case)?;
        let _stopped = guest.frontend.get_vring_base(0);
        guest.start_queue(0);
        guest.write(0, 8, &pages(1, 1));
    }
    // An index that leaps.
    guest.set_available(0, 40_000);
    guest.kick(0);
    bench.goes_on("an index that leaps")?;
    drop(guest);
    bench.all_is_well("chains that make no sense")?;

    // Rings over each other, over data, outside.
    let guest = connect()?;
    let rings = |table: u64, available: u64, used: u64| VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: 0,
        desc_table_addr: table,
        used_ring_addr: used,
        avail_ring_addr: available,
        log_addr: None,
    };
    let at = |offset| guest.host_address(offset);
    guest.memory.write_slice(&[0x41; 0x4000], GuestAddress(base))?;
    for rings in [
        rings(at(0), at(0), at(0)),
        rings(at(0x100), at(0x108), at(0x104)),
        rings(at(0), at(0x1000), at(0xf_fffc)),
        rings(0, 0, 0),
        rings(u64::MAX - 15, u64::MAX - 1, u64::MAX - 3),
        rings(at(1), at(3), at(5)),
    ] {
        let _refused = guest.frontend.set_vring_addr(0, &rings);
        guest.kick(0);
        guest.kick(1);
    }
    bench.goes_on("rings that make no sense")?;
    drop(guest);
    bench.all_is_well("rings that make no sense")?;

    // Stopped and started again in the middle of requests, over and over.
    let mut guest = connect()?;
    for round in 0..300 {
        guest.prepare(0, guest::WRITE, 8 * (round % 100), &pages(round, 4), 0);
        (0..32).for_each(|_| guest.offer(0, 0));
        let _stopped = guest.frontend.get_vring_base(0);
        guest.start_queue(0);
    }
    guest.write(0, 0, &pages(5, 1));
    drop(guest);
    bench.all_is_well("rings that are stopped under load")?;
    bench.finish()
}

#[test]
fn r1_r6_vhost_user_guests_that_lie_about_memory_or_take_it_away() -> Result<()> {
    let bench = Bench::new("vhost-user", "64M")?;
    let socket = bench.vhost_user();
    let good = Region { guest: 1 << 20, bytes: 1 << 20, user: 1 << 30, offset: 0 };
    let tables: &[(&str, Vec<Region>)] = &[
        ("no size", vec![Region { bytes: 0, ..good }]),
        ("the whole address space", vec![Region { bytes: u64::MAX, ..good }]),
        ("guest addresses that wrap around", vec![Region { guest: u64::MAX - 4095, ..good }]),
        ("the peer's addresses wrap around", vec![Region { user: u64::MAX - 4095, ..good }]),
        ("more than the file", vec![Region { bytes: 1 << 40, ..good }]),
        ("an offset beyond the file", vec![Region { offset: 1 << 40, ..good }]),
        ("an offset that wraps around", vec![Region { offset: u64::MAX - 4095, ..good }]),
        ("an odd offset", vec![Region { offset: 1, ..good }]),
        ("an odd size", vec![Region { bytes: 4097, ..good }]),
        ("the same twice", vec![good, good]),
        ("overlapping", vec![good, Region { guest: (1 << 20) + 4096, ..good }]),
        ("overlapping for the peer", vec![good, Region { guest: 1 << 30, ..good }]),
    ];
    for (case, regions) in tables {
        let stream = nbd::connect(&socket).context(*case)?;
        wire::begin(&stream)?;
        wire::set_table(&stream, regions, wire::memory(1 << 20)?)?;
        // Rings where the table says that memory is.
        wire::start_ring(&stream, 0, good.user)?;
        bench.goes_on(case)?;
        drop(stream);
        bench.all_is_well(case)?;
    }

    let mut guest = bench.hostile_guest()?;
    let descriptors = bench.descriptors()?;
    (0..3000).for_each(|_| guest.share_memory());
    guest.write(0, 0, &pages(1, 1));
    let now = bench.descriptors()?;
    ensure!(
        now.iter().zip(descriptors).all(|(now, before)| *now <= before + 4),
        "{descriptors:?}, then {now:?}"
    );
    drop(guest);
    bench.all_is_well("thousands of memory tables")?;

    // Its file cut short: before a request that needs what is gone, under the rings, and while requests run.
    for keeps in [0x1_0000, 0] {
        let mut guest = bench.hostile_guest()?;
        guest.write(0, 0, &pages(2, 1));
        guest.prepare(0, guest::WRITE, 8, &pages(3, 4), 0);
        if keeps > 0 {
            guest.truncate_memory(keeps);
            guest.offer(0, 0);
        } else {
            (0..50).for_each(|_| guest.offer(0, 0));
            guest.truncate_memory(keeps);
        }
        guest.kick(0);
        guest.kick(1);
        let gone = |daemon: &tmem_tests::Daemon| Ok(!daemon.is_connected("hostile")?);
        bench.daemon.wait_until("the guest is turned away", Duration::from_secs(20), gone)?;
        drop(guest);
        bench.all_is_well("memory that is taken away")?;
    }
    let mut guest = bench.hostile_guest()?;
    ensure!(guest.read(0, 0, 4096) == pages(2, 1), "what it wrote before is there");
    drop(guest);
    bench.finish()
}

#[test]
fn r1_r6_vhost_user_messages_and_descriptors_that_make_no_sense() -> Result<()> {
    let bench = Bench::new("vhost-user", "64M")?;
    let socket = bench.vhost_user();
    let message = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let garbage: &[(&str, Vec<u8>)] = &[
        ("4 GiB", message(&[5, 1, u32::MAX])),
        ("as much as an i32 has", message(&[5, 1, i32::MAX as u32])),
        ("half a header", message(&[1, 1])),
        ("half a message", message(&[5, 1, 40, 1])),
        ("no such message", message(&[9999, 1, 0])),
        ("another version", message(&[1, 2, 0])),
        ("an answer", message(&[1, 5, 8, 0, 0])),
        ("ones", vec![0xff; 5000]),
    ];
    for (case, bytes) in garbage {
        let mut stream = nbd::connect(&socket).context(*case)?;
        stream.write_all(bytes)?;
        bench.victim.goes_on(case)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        ensure!(is_hung_up_on(&stream), "{case}");
    }
    bench.all_is_well("messages that make no sense")?;

    // A conversation that ends after each of its messages.
    for messages in 0..12 {
        let stream = nbd::connect(&socket)?;
        wire::converse(&stream, messages)?;
    }
    bench.all_is_well("conversations that break off")?;

    // Descriptors where none belong, with every message there is, as many as fit.
    for code in 1..45 {
        let stream = nbd::connect(&socket)?;
        wire::begin(&stream)?;
        let files: Vec<_> = (0..32).map(|_| wire::memory(4096)).collect::<io::Result<_>>()?;
        for _ in 0..20 {
            if wire::send(&stream, code, &[0; 8], &files).is_err() {
                break; // it is hung up on
            }
        }
        drop(stream);
    }
    bench.all_is_well("descriptors where none belong")?;

    odd_descriptors(&bench, &socket)?;
    bench.all_is_well("kick and call descriptors of odd kinds")?;
    bench.finish()
}

/// Each kind of descriptor as kick, as call and as both, while requests are offered.
fn odd_descriptors(bench: &Bench, socket: &Path) -> Result<()> {
    type Make<'a> = (&'static str, &'a dyn Fn() -> io::Result<OwnedFd>);
    let file = || tempfile::tempfile().map(OwnedFd::from);
    let reading_end = || std::io::pipe().map(|(reading, _)| reading.into());
    let writing_end = || std::io::pipe().map(|(_, writing)| writing.into());
    // SAFETY: makes a new descriptor that nobody else has, or -1.
    let epoll = || unsafe { wire::owned(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    let daemons_own = || UnixStream::connect(bench.nbd()).map(OwnedFd::from);
    let its_socket = || UnixStream::connect(socket).map(OwnedFd::from);
    let zeroes = || File::open("/dev/zero").map(OwnedFd::from);
    let directory = || File::open("/").map(OwnedFd::from);
    let full = || {
        let event = EventFd::new(0)?;
        event.write(u64::MAX - 1)?;
        // SAFETY: it was just made, and is given away.
        unsafe { wire::owned(event.into_raw_fd()) }
    };
    let kinds: [Make<'_>; 9] = [
        ("a file", &file),
        ("the reading end of a closed pipe", &reading_end),
        ("the writing end of one", &writing_end),
        ("an epoll descriptor", &epoll),
        ("a connection to NBD", &daemons_own),
        ("a connection to its own socket", &its_socket),
        ("endless zeroes", &zeroes),
        ("a directory", &directory),
        ("an eventfd that is full", &full),
    ];
    for (case, make) in kinds {
        for (kick, call) in [(true, false), (false, true), (true, true)] {
            let mut guest = bench.hostile_guest().context(case)?;
            let _stopped = guest.frontend.get_vring_base(0);
            // SAFETY: the descriptor was just made, and is given away.
            let event = || make().map(|descriptor| unsafe { EventFd::from_raw_fd(descriptor.into_raw_fd()) });
            if call {
                let _refused = guest.frontend.set_vring_call(0, &event()?);
            }
            if kick {
                let _refused = guest.frontend.set_vring_kick(0, &event()?);
            }
            let _refused = guest.frontend.set_vring_enable(0, true);
            guest.want_call(0);
            guest.prepare(0, guest::READ, 0, &[], 4096);
            (0..20).for_each(|_| guest.offer(0, 0));
            bench.victim.goes_on(case)?;
        }
    }
    Ok(())
}

#[test]
fn r6_noise_at_full_speed_takes_no_page_of_the_victims_out_of_memory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let tier = directory.path().join("tier");
    let more = ["--tier", tier.to_str().context("UTF-8")?, "--tier-size", "256M"].map(str::to_owned);
    let bench = Bench::with("nbd", "32M", &more)?;
    let mut noisy = Nbd::open(&bench.nbd(), "hostile-nbd")?;
    // Four times the pool, and none of it compresses.
    let mut noise = vec![0; 1 << 20];
    for round in 0..128u64 {
        File::open("/dev/urandom")?.read_exact(&mut noise)?;
        // Writes may be refused. That is its own loss.
        noisy.ask(WRITE, (round % 64) << 20, 1 << 20, &noise)?;
    }
    bench.goes_on("noise at full speed")?;
    ensure!(bench.daemon.client("hostile-nbd", "puts")? > 8192, "{:#}", bench.daemon.status()?);
    for counter in ["refused_puts", "tier_gets"] {
        ensure!(bench.daemon.client("victim", counter)? == 0, "{counter}: {:#}", bench.daemon.status()?);
    }
    drop(noisy);
    bench.finish()
}
