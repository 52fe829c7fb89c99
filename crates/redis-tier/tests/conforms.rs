//! The Redis tier does what every tier has to do, in servers of both kinds and in a cluster.
#![allow(clippy::unwrap_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{process::Command, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use support::{
    BINARIES, RedisRig, Server,
    conformance::{
        Extent, Rig, agrees_with_a_map, assert_kept, many_threads_read_while_one_writes,
        refuses_what_is_no_batch, steps,
    },
    eventually, open, wait_until_ready,
};
use tmem_redis_tier::RedisTierOptions;
use tmem_store::{Tier, TierCopy, TierState};

/// Any traffic, and whatever was written is either needed or gone.
fn any_traffic(servers: &[&Server], options: &RedisTierOptions, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            servers.iter().for_each(|server| drop(server.ask(&["FLUSHALL"])));
            let mut rig = RedisRig::new(options.clone());
            agrees_with_a_map(&mut rig, steps)?;
            let tier = rig.redis_tier();
            let keys = || servers.iter().map(|server| server.keys().len()).sum::<usize>();
            prop_assert_eq!(keys(), tier.copies());
            prop_assert_eq!(tier.counters().lost_copies, 0);
            tier.clear();
            prop_assert_eq!(keys(), 0);
            Ok(())
        })
        .unwrap();
}

#[test]
fn one_server_of_each_kind() {
    for binary in BINARIES {
        let server = Server::start(binary, &[]);
        refuses_what_is_no_batch(RedisRig::new(server.options()).tier());
        many_threads_read_while_one_writes(&RedisRig::new(server.options()));
        any_traffic(&[&server], &server.options(), 12);
    }
}

/// Three masters of a cluster, all slots among them.
fn cluster(servers: &[Server]) -> RedisTierOptions {
    let hosts: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let made = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&hosts)
        .args(["--cluster-yes", "--cluster-replicas", "0"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    for server in servers {
        eventually("the cluster is whole", || {
            let info = server.ask(&["CLUSTER", "INFO"]);
            redis::from_redis_value::<String>(info).unwrap().contains("cluster_state:ok")
        });
    }
    let address = format!("redis-cluster://{}", hosts[..2].join(",")).parse().unwrap();
    RedisTierOptions { outage_patience: Duration::ZERO, ..RedisTierOptions::new(address, 16 << 20) }
}

fn members() -> Vec<Server> {
    let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes"];
    (0..3).map(|_| Server::redis(&arguments)).collect()
}

#[test]
fn a_cluster_of_three() {
    let mut servers = members();
    let options = cluster(&servers);
    refuses_what_is_no_batch(RedisRig::new(options.clone()).tier());
    many_threads_read_while_one_writes(&RedisRig::new(options.clone()));
    any_traffic(&servers.iter().collect::<Vec<_>>(), &options, 6);

    let tier = open(&options);
    let copies: Vec<_> = (0..16).map(|place| TierCopy { place, writing: 1 + u64::from(place) }).collect();
    let extents: Vec<_> = copies.iter().map(|copy| Extent::new(copy.writing)).collect();
    let writes: Vec<_> = copies.iter().zip(&extents).map(|(copy, extent)| extent.write(*copy)).collect();
    tier.write(&writes).unwrap();
    let held: Vec<_> = servers.iter().map(|server| server.keys().len()).collect();
    assert!(held.iter().sum::<usize>() == 16 && held.iter().all(|keys| *keys < 16), "{held:?}");
    // One of them ends and comes back with what it had.
    servers[1].kill();
    let others = TierCopy { place: 20, writing: 100 };
    eventually("a write is refused", || {
        tier.write(&writes).is_err() || tier.write(&[extents[0].write(others)]).is_err()
    });
    servers[1].start_again();
    wait_until_ready(&tier);
    eventually("all can be written", || tier.write(&writes).is_ok());
    copies.iter().zip(&extents).for_each(|(copy, extent)| assert_kept(&tier, *copy, extent));
}

#[test]
fn a_member_of_a_cluster_is_no_server_by_itself() {
    let servers = members();
    cluster(&servers);
    let tier = open(&servers[0].options());
    let copies: Vec<_> = (0..16).map(|place| TierCopy { place, writing: 1 + u64::from(place) }).collect();
    let extent = Extent::new(1);
    let writes: Vec<_> = copies.iter().map(|copy| extent.write(*copy)).collect();
    let text = tier.write(&writes).unwrap_err().to_string();
    assert!(text.contains("redis-cluster://"), "{text}");
    assert_eq!(tier.state(), TierState::Failing);
}
