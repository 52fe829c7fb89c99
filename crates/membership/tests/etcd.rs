//! Membership with real etcd servers, on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{thread, time::Duration};

use support::{
    etcd::Etcd,
    node::{Cluster, LEASE, Node},
    wait_until,
    wire::Wire,
};
use tmem_membership::{Epoch, Identity};

/// Three nodes that see each other.
fn three(cluster: &Cluster, etcd: &Etcd) -> [Node; 3] {
    let endpoints = etcd.endpoints();
    let nodes = [
        Node::start(&cluster.directory("host-a"), 7001, &endpoints),
        Node::start(&cluster.join("host-b", "host-b"), 7002, &endpoints),
        Node::start(&cluster.join("host-c", "host-c"), 7003, &endpoints),
    ];
    nodes[0].wait_to_see(&["host-b", "host-c"]);
    nodes[1].wait_to_see(&["host-a", "host-c"]);
    nodes[2].wait_to_see(&["host-a", "host-b"]);
    nodes
}

#[test]
fn nodes_see_each_other_and_see_one_leave() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, c] = three(&cluster, &etcd);
    let seen = a.member("host-b").unwrap();
    assert_eq!((seen.id, seen.epoch), (b.identity.node_id(), Some(b.identity.epoch())));
    assert_eq!(
        (seen.address, seen.domain.as_deref()),
        ("127.0.0.1:7002".parse().unwrap(), Some("rack-7002"))
    );
    assert_eq!(seen.free_bytes, Some(1 << 20));
    let reached = (c.identity.node_id(), c.identity.epoch());
    assert!(a.view().epochs.contains(&reached));

    c.leave();
    a.wait_to_see(&["host-b"]);
    b.wait_to_see(&["host-a"]);
    // Where it was is still known, so that nothing older is believed.
    assert!(a.view().epochs.contains(&reached));
    assert_eq!((a.fenced(), b.fenced(), a.running().trouble()), (vec![], vec![], None));
}

#[test]
fn a_node_that_says_nothing_more_is_gone_when_its_lease_is() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, c] = three(&cluster, &etcd);
    drop(c);
    a.wait_to_see(&["host-b"]);
    b.wait_to_see(&["host-a"]);
    assert!(etcd.get(&cluster.key("nodes", "host-c")).is_none());
}

#[test]
fn the_next_process_of_a_host_takes_over_without_being_missed() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    let (views, epoch) = (a.views().len(), b.identity.epoch());
    drop(b);
    let next = Node::go_on(&cluster.directory("host-b"), 7002, &etcd.endpoints());
    next.wait_to_see(&["host-a", "host-c"]);
    thread::sleep(2 * LEASE);
    for view in &a.views()[views - 1..] {
        let seen = view.members.iter().find(|member| member.name.as_str() == "host-b");
        assert_eq!(seen.and_then(|member| member.epoch), Some(epoch), "{view:?}");
    }
    assert_eq!((next.identity.epoch(), next.fenced()), (epoch, vec![]));
}

#[test]
fn etcd_that_is_killed_changes_nothing_and_comes_back() {
    let (cluster, mut etcd) = (Cluster::new(), Etcd::start());
    let nodes = three(&cluster, &etcd);
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.kill(0);
    for (node, before) in nodes.iter().zip(&before) {
        node.wait_for_trouble("tried again");
        let view = node.view();
        assert!(!view.is_current);
        assert_eq!((view.members, view.epochs), (before.members.clone(), before.epochs.clone()));
    }
    // Longer than the lease.
    thread::sleep(2 * LEASE);
    etcd.restart(0);
    for (node, before) in nodes.iter().zip(&before) {
        wait_until("all is as it was", || node.view() == *before);
        assert_eq!((node.fenced(), node.running().trouble()), (vec![], None));
    }
}

#[test]
fn etcd_that_is_stopped_is_noticed_and_goes_on() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let nodes = three(&cluster, &etcd);
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.signal(0, "-STOP");
    for (node, before) in nodes.iter().zip(&before) {
        node.wait_for_trouble("no answer");
        assert_eq!((node.view().members, node.view().is_current), (before.members.clone(), false));
    }
    thread::sleep(2 * LEASE);
    etcd.signal(0, "-CONT");
    for (node, before) in nodes.iter().zip(&before) {
        // Leases may have run out meanwhile; each registers again in the epoch it was in.
        wait_until("all is as it was", || node.view() == *before);
        assert_eq!(node.fenced(), []);
    }
}

#[test]
fn an_etcd_that_lost_everything_is_told_it_again() {
    let (cluster, mut etcd) = (Cluster::new(), Etcd::start());
    let nodes = three(&cluster, &etcd);
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.forget();
    for (node, before) in nodes.iter().zip(&before) {
        wait_until("all is as it was", || node.view() == *before);
        assert_eq!(node.fenced(), []);
    }
}

/// Cut off from etcd alone it still has what it was lent: others see it go and come back with all that.
#[test]
fn a_node_that_was_cut_off_from_etcd_comes_back_in_its_epoch() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let wire = Wire::to(etcd.address(0));
    let a = Node::start(&cluster.directory("host-a"), 7001, &etcd.endpoints());
    let b = Node::start(&cluster.join("host-b", "host-b"), 7002, &[wire.endpoint()]);
    a.wait_to_see(&["host-b"]);
    b.wait_to_see(&["host-a"]);
    wire.cut();
    a.wait_to_see(&[]);
    b.wait_for_trouble("no answer");
    assert_eq!((b.view().members.len(), b.view().is_current), (1, false));
    wire.mend();
    a.wait_to_see(&["host-b"]);
    b.wait_to_see(&["host-a"]);
    assert_eq!((a.member("host-b").unwrap().epoch, b.fenced()), (Some(b.identity.epoch()), vec![]));
}

#[test]
fn an_etcd_that_is_not_there_at_the_start_is_waited_for() {
    let (cluster, mut etcd) = (Cluster::new(), Etcd::not_yet());
    let a = Node::start(&cluster.directory("host-a"), 7001, &etcd.endpoints());
    let trouble = a.wait_for_trouble("tried again");
    assert!(trouble.contains(&etcd.endpoints()[0]) && trouble.contains("refused"), "{trouble}");
    assert_eq!((a.view().is_current, a.view().members.len()), (false, 0));
    etcd.restart(0);
    a.wait_to_see(&[]);
    assert_eq!(a.running().trouble(), None);
}

#[test]
fn a_second_node_of_one_name_is_refused_and_told_where_the_first_is() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, c] = three(&cluster, &etcd);
    let views = a.views().len();
    let second = Node::start(&cluster.join("another", "host-b"), 7009, &etcd.endpoints());
    let trouble = second.wait_for_trouble("duplicate node name: host-b");
    assert!(trouble.contains("127.0.0.1:7002") && trouble.contains("127.0.0.1:7009"), "{trouble}");
    thread::sleep(2 * LEASE);
    assert_eq!((second.sees(), a.views().len(), b.fenced().len()), (None, views, 0));

    // When the first has gone for good, the name is free, and what the first held is not taken for the second's.
    let first = b.identity.epoch();
    b.leave();
    a.wait_to_see(&["host-b", "host-c"]);
    second.wait_to_see(&["host-a", "host-c"]);
    c.wait_to_see(&["host-a", "host-b"]);
    let seen = c.member("host-b").unwrap();
    assert_eq!(seen.address.port(), 7009);
    assert!(seen.epoch > Some(first) && seen.epoch == Some(second.identity.epoch()));
}

#[test]
fn a_copied_directory_is_a_second_node_of_its_name() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    let copy = Node::start(&cluster.copy("host-b", "copy"), 7009, &etcd.endpoints());
    let trouble = copy.wait_for_trouble("duplicate node name: host-b");
    assert!(trouble.contains("127.0.0.1:7002"), "{trouble}");
    assert_eq!((copy.sees(), a.member("host-b").unwrap().address.port()), (None, 7002));
    assert_eq!((b.fenced(), b.running().trouble()), (vec![], None));
}

/// Another process of the host has registered, and the first still runs: it does not take its name back.
#[test]
fn whoever_was_succeeded_gives_way() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    let next = Node::go_on(&cluster.directory("host-b"), 7002, &etcd.endpoints());
    next.wait_to_see(&["host-a", "host-c"]);
    b.wait_for_trouble("host-b is at 127.0.0.1:7002");
    thread::sleep(2 * LEASE);
    assert_eq!((next.running().trouble(), next.fenced()), (None, vec![]));
    assert!(a.member("host-b").is_some());
}

#[test]
fn an_epoch_that_was_ended_elsewhere_ends_here_at_once() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, c] = three(&cluster, &etcd);
    let old = b.identity.epoch();
    let ended = Epoch(old.0 + 5);
    etcd.put(&cluster.key("epochs", "host-b"), &format!("{{\"epoch\": {}}}", ended.0));
    wait_until("host-b is back in a later epoch", || {
        a.member("host-b").is_some_and(|b| b.epoch > Some(ended))
    });
    assert_eq!((b.fenced(), b.identity.epoch()), (vec![Epoch(ended.0 + 1)], Epoch(ended.0 + 1)));
    assert_eq!(Identity::load(b.identity.directory()).unwrap().epoch(), b.identity.epoch());
    // Nobody sees the old one any more once the end was said.
    for node in [&a, &c] {
        let of_b = |view: &tmem_membership::View| {
            view.epochs.iter().find(|(id, _)| *id == b.identity.node_id()).map(|(_, epoch)| *epoch)
        };
        for view in node.views().iter().filter(|view| of_b(view) > Some(old)) {
            let seen = view.members.iter().find(|member| member.name.as_str() == "host-b");
            assert!(seen.is_none_or(|member| member.epoch > Some(ended)), "{view:?}");
        }
    }
    assert_eq!((a.fenced(), c.fenced()), (vec![], vec![]));
}

#[test]
fn a_node_that_cannot_begin_another_epoch_is_not_there() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    b.fail_epochs(true);
    etcd.put(&cluster.key("epochs", "host-b"), &format!("{{\"epoch\": {}}}", b.identity.epoch().0 + 1));
    b.wait_for_trouble("the disk is full");
    a.wait_to_see(&["host-c"]);
    b.fail_epochs(false);
    a.wait_to_see(&["host-b", "host-c"]);
    assert_eq!(a.member("host-b").unwrap().epoch, Some(b.identity.epoch()));
}

/// A host that was set up anew has forgotten in which epoch it was. etcd has not.
#[test]
fn a_node_never_begins_below_the_epoch_that_etcd_knows() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    etcd.put(&cluster.key("epochs", "host-a"), "{\"epoch\": 1000000000000, \"drawn\": \"ab\"}");
    let a = Node::start(&cluster.directory("host-a"), 7001, &etcd.endpoints());
    a.wait_to_see(&[]);
    assert_eq!(a.identity.epoch(), Epoch(1_000_000_000_001));
    let record = etcd.get(&cluster.key("epochs", "host-a")).unwrap();
    assert!(record.contains("1000000000001"), "{record}");
}

#[test]
fn a_key_that_somebody_deleted_is_put_back() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    for kind in ["nodes", "epochs"] {
        etcd.delete(&cluster.key(kind, "host-b"));
        wait_until("it is there again", || etcd.get(&cluster.key(kind, "host-b")).is_some());
    }
    a.wait_to_see(&["host-b", "host-c"]);
    assert_eq!(b.fenced(), []);
}

#[test]
fn what_a_node_has_to_lend_is_told_when_it_is_news() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    b.running().set_free_bytes(64 << 20);
    wait_until("host-a hears of it", || a.member("host-b").is_some_and(|b| b.free_bytes == Some(64 << 20)));
    // A sixteenth less is no news.
    b.running().set_free_bytes(60 << 20);
    thread::sleep(Duration::from_secs(7));
    assert_eq!(a.member("host-b").and_then(|b| b.free_bytes), Some(64 << 20));
}

#[test]
fn keys_that_are_noise_are_left_out() {
    let (cluster, etcd) = (Cluster::new(), Etcd::start());
    let [a, b, _c] = three(&cluster, &etcd);
    for (key, value) in [("nodes/host-x", "noise"), ("nodes/host-y", "{}"), ("nodes/A B", "{}"), ("else", "")]
    {
        etcd.put(&cluster.key("", "").replace("//", &format!("/{key}")), value);
    }
    etcd.put(&cluster.key("epochs", "host-x"), "noise");
    b.running().set_free_bytes(64 << 20);
    wait_until("later news arrives", || a.member("host-b").is_some_and(|b| b.free_bytes == Some(64 << 20)));
    a.wait_to_see(&["host-b", "host-c"]);
    assert_eq!((a.fenced(), a.running().trouble()), (vec![], None));
}

#[test]
fn of_three_etcds_one_may_fail() {
    let (cluster, mut etcd) = (Cluster::new(), Etcd::start_members(3));
    let nodes = three(&cluster, &etcd);
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    let all_as_before = |what: &str| {
        for (node, before) in nodes.iter().zip(&before) {
            wait_until(what, || node.view() == *before && node.running().trouble().is_none());
            assert_eq!(node.fenced(), []);
        }
    };
    // All of them are connected to the first.
    etcd.kill(0);
    all_as_before("another member is asked");
    etcd.kill(1);
    for node in &nodes {
        node.wait_for_trouble("tried again");
        assert_eq!(node.view().members.len(), 2);
    }
    etcd.restart(1);
    all_as_before("two of three are enough again");
}
