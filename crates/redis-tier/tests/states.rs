//! Servers that end, hang, are full, are emptied or unfit: nothing wrong is ever read, the state is told with a way out, and the tier comes
//! back by itself.
#![allow(clippy::unwrap_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{net::TcpListener, time::Duration};

use support::{
    BINARIES, Server,
    conformance::{Extent, KEY, assert_kept, read},
    eventually, open, wait_until_ready,
};
use tmem_redis_tier::{Password, RedisTier, RedisTierError, RedisTierOptions};
use tmem_store::{TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierRun, TierState, TierWrite};

fn copy(place: u32, writing: u64) -> TierCopy {
    TierCopy { place, writing }
}

fn write(tier: &RedisTier, copy: TierCopy) -> Result<(), TierError> {
    tier.write(&[Extent::new(copy.writing).write(copy)])
}

fn assert_has(tier: &RedisTier, copy: TierCopy) {
    assert_kept(tier, copy, &Extent::new(copy.writing));
}

fn read_one(tier: &RedisTier, copy: TierCopy) -> Result<Vec<u8>, TierError> {
    read(tier, copy, Extent::new(copy.writing).blocks[3])
}

fn assert_refused(tier: &RedisTier, copy: TierCopy, state: TierState, way_out: &str) {
    let refused = write(tier, copy);
    let Err(TierError::Unavailable(text)) = refused else { panic!("{refused:?} instead of {state:?}") };
    assert_eq!(tier.state(), state, "{text}");
    assert!(text.contains(tier.name()) && text.contains(state.as_str()), "{text}");
    assert!(text.contains(way_out), "{text}");
    assert!(tier.trouble().is_some());
}

#[test]
fn a_server_that_was_killed_comes_back_with_what_it_had() {
    for binary in BINARIES {
        let mut server = Server::start(binary, &["--appendonly", "yes", "--appendfsync", "always"]);
        let tier = open(&server.options());
        (0..4).for_each(|place| write(&tier, copy(place, 1)).unwrap());
        assert_has(&tier, copy(2, 1));
        server.kill();
        assert!(matches!(read_one(&tier, copy(2, 1)), Err(TierError::Unavailable(_))));
        assert_refused(&tier, copy(9, 2), TierState::Missing, "nobody listens there");
        server.start_again();
        wait_until_ready(&tier);
        (0..4).for_each(|place| assert_has(&tier, copy(place, 1)));
        write(&tier, copy(9, 3)).unwrap();
        assert_has(&tier, copy(9, 3));
        assert_eq!((tier.counters().lost_copies, tier.trouble()), (0, None));
    }
}

#[test]
fn readers_wait_for_a_server_that_restarts() {
    let mut server = Server::redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let tier = open(&RedisTierOptions { outage_patience: Duration::from_secs(30), ..server.options() });
    write(&tier, copy(2, 1)).unwrap();
    server.kill();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_one(&tier, copy(2, 1)));
        eventually("a read has failed", || tier.state() == TierState::Missing);
        server.start_again();
        assert_eq!(reader.join().unwrap().unwrap(), Extent::new(1).block(Extent::new(1).blocks[3]));
    });
}

#[test]
fn a_server_without_a_disk_that_ends_loses_pages_and_gives_no_others() {
    let mut server = Server::redis(&[]);
    let tier = open(&server.options());
    (0..4).for_each(|place| write(&tier, copy(place, 1)).unwrap());
    server.kill();
    server.start_again();
    wait_until_ready(&tier);
    assert_eq!(read_one(&tier, copy(2, 1)), Err(TierError::Damaged));
    assert_eq!(read_one(&tier, copy(2, 1)), Err(TierError::Damaged));
    assert_eq!(tier.counters().lost_copies, 1, "once for each copy");
    assert!(tier.trouble().unwrap().contains("gone from the server"));
    write(&tier, copy(2, 2)).unwrap();
    assert_has(&tier, copy(2, 2));
    assert_eq!(tier.state(), TierState::Ready);
}

#[test]
fn what_was_flushed_is_noticed_without_a_read() {
    let server = Server::redis(&[]);
    let tier = open(&server.options());
    (0..4).for_each(|place| write(&tier, copy(place, 1)).unwrap());
    // Another process, which does not know when these were last told to live on.
    let next = open(&server.options());
    next.adopt(&[(copy(0, 1), 100_000), (copy(1, 1), 100_000)]);
    server.ask(&["DEL", &server.keys()[1]]);
    eventually("the loss is noticed", || {
        next.probe();
        next.counters().lost_copies == 1
    });
    server.ask(&["FLUSHALL"]);
    assert_eq!(read_one(&tier, copy(0, 1)), Err(TierError::Damaged));
    assert_eq!(read_one(&tier, copy(3, 1)), Err(TierError::Damaged));
}

#[test]
fn a_server_that_hangs_is_noticed_and_what_it_does_later_hurts_nobody() {
    let server = Server::redis(&[]);
    let tier = open(&server.options());
    (0..4).for_each(|place| write(&tier, copy(place, 1)).unwrap());
    server.signal("STOP");
    assert_refused(&tier, copy(5, 5), TierState::Failing, "does not answer");
    assert!(matches!(read_one(&tier, copy(2, 1)), Err(TierError::Unavailable(_))));
    tier.discard(5);
    server.signal("CONT");
    wait_until_ready(&tier);
    // The same place again: what the server still had to do for it may be done by now, or not.
    write(&tier, copy(5, 6)).unwrap();
    assert_has(&tier, copy(5, 6));
    assert_has(&tier, copy(2, 1));
    assert_has(&tier, copy(5, 6));
}

#[test]
fn a_full_server_gives_what_it_has_and_is_used_again_when_there_is_room() {
    for binary in BINARIES {
        let server = Server::start(binary, &["--maxmemory", "8mb"]);
        let tier = open(&server.options());
        let mut written = 0;
        while write(&tier, copy(written, u64::from(written) + 1)).is_ok() {
            written += 1;
        }
        assert_refused(&tier, copy(100, 1000), TierState::Full, "maxmemory");
        assert!(written >= 20, "{written}");
        (0..written).for_each(|place| assert_has(&tier, copy(place, u64::from(place) + 1)));
        // What was refused leaves nothing behind.
        eventually("the rest of what was refused is gone", || {
            tier.probe();
            server.keys().len() == written as usize
        });
        (0..written).filter(|place| place % 2 == 0).for_each(|place| tier.discard(place));
        wait_until_ready(&tier);
        write(&tier, copy(100, 1001)).unwrap();
        assert_has(&tier, copy(100, 1001));
        assert_has(&tier, copy(1, 2));
        server.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
        write(&tier, copy(101, 1002)).unwrap();
    }
}

#[test]
fn a_server_that_may_throw_pages_away_gets_none() {
    let server = Server::redis(&["--maxmemory", "50mb", "--maxmemory-policy", "volatile-lru"]);
    let tier = open(&server.options());
    assert_eq!(tier.state(), TierState::ReadOnly);
    assert_refused(&tier, copy(1, 1), TierState::ReadOnly, "set it to noeviction");
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    wait_until_ready(&tier);
    write(&tier, copy(1, 2)).unwrap();
    assert_has(&tier, copy(1, 2));
}

#[test]
fn a_replica_is_no_place_for_pages() {
    let master = Server::redis(&[]);
    let replica = Server::redis(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let tier = open(&replica.options());
    assert_refused(&tier, copy(1, 1), TierState::ReadOnly, "master");
}

#[test]
fn a_copy_counts_as_written_when_replicas_have_it() {
    let master = Server::redis(&[]);
    let mut replica = Server::redis(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let synced = |server: &Server| {
        redis::from_redis_value::<String>(server.ask(&["INFO", "replication"]))
            .unwrap()
            .contains("state=online")
    };
    eventually("the replica follows", || synced(&master));
    let options = RedisTierOptions { replicas: 1, ..master.options() };
    let tier = open(&options);
    write(&tier, copy(1, 1)).unwrap();
    assert_eq!(replica.keys(), master.keys());
    replica.signal("STOP");
    assert_refused(&tier, copy(2, 2), TierState::Failing, "redis-replicas");
    replica.signal("CONT");
    wait_until_ready(&tier);
    eventually("the replica has it", || write(&tier, copy(2, 3)).is_ok());
    replica.kill();
    assert_refused(&tier, copy(3, 4), TierState::Failing, "0 of 1");
    replica.start_again();
    eventually("the replica follows again", || {
        tier.probe();
        write(&tier, copy(3, 5)).is_ok()
    });
    [copy(1, 1), copy(2, 3), copy(3, 5)].iter().for_each(|copy| assert_has(&tier, *copy));
}

#[test]
fn a_server_that_is_away_at_the_start_is_used_when_it_comes() {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let address = format!("redis://127.0.0.1:{port}").parse().unwrap();
    let tier = open(&RedisTierOptions {
        outage_patience: Duration::ZERO,
        ..RedisTierOptions::new(address, 4 << 20)
    });
    assert_eq!((tier.state(), tier.limit_bytes()), (TierState::Missing, 4 << 20));
    let mut server = Server::redis(&[]);
    drop(tier);
    server.kill();
    let tier = open(&server.options());
    assert_eq!(tier.state(), TierState::Missing);
    server.start_again();
    wait_until_ready(&tier);
    write(&tier, copy(0, 1)).unwrap();
}

#[test]
fn passwords_are_asked_for() {
    let server = Server::redis(&[]);
    server.ask(&["CONFIG", "SET", "requirepass", "open"]);
    let tier = open(&server.options());
    assert_refused(&tier, copy(0, 1), TierState::Failing, "redis-password-file");
    assert!(read_one(&tier, copy(0, 1)).is_err());
    let options = RedisTierOptions { password: Some(Password("wrong".into())), ..server.options() };
    assert_refused(&open(&options), copy(0, 1), TierState::Failing, "redis-password-file");
    let options = RedisTierOptions { password: Some(Password("open".into())), ..server.options() };
    assert!(!format!("{options:?}").contains("open"), "{options:?}");
    let tier = open(&options);
    write(&tier, copy(0, 1)).unwrap();
    assert_has(&tier, copy(0, 1));
    let text = format!("redis://:open@127.0.0.1:{}", server.port);
    let tier = open(&RedisTierOptions { address: text.parse().unwrap(), ..server.options() });
    assert_has(&tier, copy(0, 1));
    assert!(!tier.name().contains("open"));
}

#[test]
fn connections_that_the_server_closed_are_no_failure() {
    let server = Server::redis(&[]);
    let tier = open(&server.options());
    write(&tier, copy(0, 1)).unwrap();
    for writing in 2..6 {
        assert_has(&tier, copy(0, writing - 1));
        server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_has(&tier, copy(0, writing - 1));
        server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        write(&tier, copy(0, writing)).unwrap();
        assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
    }
}

#[test]
fn only_the_key_opens_a_copy_and_nothing_in_the_server_is_readable() {
    let server = Server::redis(&[]);
    let tier = open(&server.options());
    let secret = b"the secret of a guest's page...!";
    let extent = Extent { bytes: secret.repeat(4096), blocks: vec![TierRun { start: 0, bytes: 4096 }] };
    tier.write(&[extent.write(copy(0, 1)), extent.write(copy(1, 2))]).unwrap();
    let values: Vec<Vec<u8>> = server
        .keys()
        .iter()
        .map(|key| redis::from_redis_value(server.ask(&["HGET", key, "0"])).unwrap())
        .collect();
    assert_eq!(values.len(), 2);
    assert_ne!(values[0], values[1], "the same contents look different");
    assert!(values.iter().all(|value| !value.windows(8).any(|part| secret.windows(8).any(|of| of == part))));
    let other = RedisTier::new(server.options()).unwrap();
    assert!(matches!(other.read(copy(0, 1), 0, &mut [0; 10]), Err(TierError::Unavailable(_))), "no key yet");
    other.use_key(&TierKey([8; 32]));
    assert_eq!(read(&other, copy(0, 1), extent.blocks[0]), Err(TierError::Damaged));
    assert_eq!(other.counters().lost_copies, 0, "it never had one");
    // What somebody changes is found, wherever it is put.
    let keys = server.keys();
    let raw = |key: &str, value: &[u8]| {
        let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        redis::cmd("HSET").arg(key).arg(0).arg(value).exec(&mut connection).unwrap();
    };
    raw(&keys[0], &values[1]);
    let mut wrong = values[1].clone();
    wrong[4000] ^= 1;
    raw(&keys[1], &wrong);
    for copy in [copy(0, 1), copy(1, 2)] {
        assert_eq!(read(&tier, copy, extent.blocks[0]), Err(TierError::Damaged));
    }
    raw(&keys[0], &values[0]);
    assert_eq!(read(&tier, copy(0, 1), extent.blocks[0]).unwrap(), extent.block(extent.blocks[0]));
    assert_eq!(KEY, TierKey([7; 32]));
}

#[test]
fn every_key_expires_and_needed_ones_are_told_to_live_on() {
    let server = Server::redis(&[]);
    let options = RedisTierOptions { expiry: Duration::from_secs(60), ..server.options() };
    let tier = open(&options);
    (0..3).for_each(|place| write(&tier, copy(place, 1)).unwrap());
    let keys = server.keys();
    for key in &keys {
        assert!((1..=60).contains(&server.number(&["TTL", key])), "{key}");
        server.ask(&["EXPIRE", key, "20"]);
    }
    // As they are young, nothing is told to them; another process does not know how old they are.
    tier.probe();
    assert_eq!(tier.counters().renewed_copies, 0);
    let next = open(&options);
    next.adopt(&[(copy(0, 1), 100_000), (copy(1, 1), 100_000)]);
    next.probe();
    assert_eq!(next.counters().renewed_copies, 2);
    let left: Vec<_> = keys.iter().map(|key| server.number(&["TTL", key])).collect();
    assert!(left[0] > 20 && left[1] > 20 && left[2] <= 20, "{left:?}");
}

#[test]
fn blocks_that_are_not_needed_go_and_no_others() {
    let server = Server::redis(&[]);
    let tier = open(&server.options());
    let extent = Extent::new(1);
    tier.write(&[extent.write(copy(0, 1))]).unwrap();
    let key = server.keys().remove(0);
    let (dead, needed) = extent.blocks.split_at(5);
    let release: Vec<_> = dead.iter().map(|run| (copy(0, 1), *run)).collect();
    tier.release(&release);
    // Neither a block of another writing, nor what was not written as one.
    tier.release(&[
        (copy(0, 2), needed[0]),
        (copy(0, 1), TierRun { bytes: needed[1].bytes - 8, ..needed[1] }),
    ]);
    tier.probe();
    assert_eq!(server.number(&["HLEN", &key]), needed.len() as i64);
    assert_eq!(tier.counters().removed_blocks, 5);
    assert_kept(&tier, copy(0, 1), &Extent { blocks: needed.to_vec(), ..extent.clone() });
    assert_eq!(read(&tier, copy(0, 1), dead[2]), Err(TierError::Damaged));
}

#[test]
fn no_more_is_written_than_tier_size_says() {
    let server = Server::redis(&[]);
    let tier = open(&RedisTierOptions { size_bytes: 4 << 20, ..server.options() });
    let extent = Extent::new(1);
    let mut written = 0;
    while tier.write(&[extent.write(copy(written, 1 + u64::from(written)))]).is_ok() {
        written += 1;
    }
    assert_eq!(written, (4 << 20) / extent.needed_bytes());
    assert_eq!(tier.state(), TierState::Full);
    assert!(tier.trouble().unwrap().contains("tier-size"));
    assert_kept(&tier, copy(3, 4), &extent);
    // Copies, and blocks of others.
    (0..written / 2).for_each(|place| tier.discard(place));
    assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
    let rest = written - written / 2;
    let dead: Vec<_> = (written / 2..written)
        .flat_map(|place| extent.blocks[1..].iter().map(move |run| (copy(place, 1 + u64::from(place)), *run)))
        .collect();
    tier.release(&dead);
    eventually("the blocks are removed", || {
        tier.probe();
        tier.counters().removed_blocks == dead.len() as u64
    });
    assert_eq!(server.keys().len(), rest as usize);
    (100..100 + written - 2).for_each(|place| {
        tier.write(&[extent.write(copy(place, 1000 + u64::from(place)))]).unwrap();
    });
    assert_eq!(tier.state(), TierState::Full);
}

#[test]
fn a_copy_of_which_any_part_may_be_read_is_kept_in_parts() {
    let server = Server::redis(&[]);
    let tier = open(&server.options());
    let extent = Extent::new(9);
    tier.write(&[TierWrite::whole(copy(0, 1), &extent.bytes)]).unwrap();
    assert_kept(&tier, copy(0, 1), &extent);
    for start in (0..TIER_EXTENT_BYTES as u32).step_by(2040) {
        let run = TierRun { start, bytes: (24 + start % 8160).min(TIER_EXTENT_BYTES as u32 - start) };
        assert!(read(&tier, copy(0, 1), run).as_deref() == Ok(extent.block(run)), "{run:?}");
    }
    // Blocks of it die with it.
    tier.release(&[(copy(0, 1), extent.blocks[0]), (copy(0, 1), extent.blocks[1])]);
    tier.probe();
    assert_kept(&tier, copy(0, 1), &extent);
    assert_eq!(tier.counters().removed_blocks, 0);
    assert_eq!(server.number(&["HLEN", &server.keys()[0]]), 32);
}

#[test]
fn stores_do_not_meet_in_one_server() {
    let server = Server::redis(&[]);
    let tiers: Vec<_> = [(1, "a"), (2, "a"), (1, "b")]
        .iter()
        .map(|(key, prefix)| {
            let options = RedisTierOptions { prefix: (*prefix).to_owned(), ..server.options() };
            let tier = RedisTier::new(options).unwrap();
            tier.use_key(&TierKey([*key; 32]));
            tier
        })
        .collect();
    for (seed, tier) in tiers.iter().enumerate() {
        tier.write(&[Extent::new(seed as u64).write(copy(0, 1))]).unwrap();
    }
    for (seed, tier) in tiers.iter().enumerate() {
        assert_kept(tier, copy(0, 1), &Extent::new(seed as u64));
    }
    server.ask(&["SET", "somebody's", "data"]);
    tiers.iter().for_each(RedisTier::clear);
    assert_eq!(server.keys(), ["somebody's"]);
}

#[test]
fn wrong_options_are_refused() {
    let options = || RedisTierOptions::new("redis://127.0.0.1:1".parse().unwrap(), 16 << 20);
    let refused = |options: RedisTierOptions| RedisTier::new(options).unwrap_err();
    assert!(matches!(
        refused(RedisTierOptions { prefix: "a{b}".into(), ..options() }),
        RedisTierError::Prefix { .. }
    ));
    assert!(matches!(
        refused(RedisTierOptions { expiry: Duration::from_secs(5), ..options() }),
        RedisTierError::Expiry { seconds: 5 }
    ));
    assert!(matches!(
        refused(RedisTierOptions { size_bytes: 1000, ..options() }),
        RedisTierError::TooSmall { .. }
    ));
    let tls = RedisTierOptions::new("rediss://127.0.0.1:1".parse().unwrap(), 16 << 20);
    assert!(matches!(
        refused(RedisTierOptions { ca_pem: Some(b"nothing".to_vec()), ..tls }),
        RedisTierError::Tls { .. }
    ));
}

/// The command of docs/redis.md for a user who may do no more than the tier has to.
const ACL: &str = include_str!("../../../docs/redis.md");

#[test]
fn the_documented_user_may_do_all_that_is_needed() {
    for binary in BINARIES {
        let server = Server::start(binary, &[]);
        let command = ACL.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
        server.ask(&command.split_whitespace().collect::<Vec<_>>());
        let address = format!("redis://tmem:PASSWORD@127.0.0.1:{}", server.port).parse().unwrap();
        let tier = open(&RedisTierOptions { address, ..server.options() });
        assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
        write(&tier, copy(1, 1)).unwrap();
        assert_has(&tier, copy(1, 1));
        tier.release(&[(copy(1, 1), Extent::new(1).blocks[0])]);
        tier.adopt(&[(copy(2, 2), 10)]);
        tier.discard(1);
        tier.probe();
        tier.clear();
        assert_eq!(tier.state(), TierState::Ready);
        assert!(server.keys().is_empty());
        server.ask(&["ACL", "SETUSER", "tmem", "-hset"]);
        assert_refused(&tier, copy(1, 3), TierState::Failing, "docs/redis.md");
    }
}
