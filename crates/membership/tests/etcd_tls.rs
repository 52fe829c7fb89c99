//! Membership with real etcd servers that speak TLS, on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{
    authority::{Authority, SERVER, Signed},
    etcd::Etcd,
    node::{Cluster, Node},
    wait_until,
};
use tmem_membership::{EtcdSettings, EtcdTls};

fn settings(etcd: &Etcd, tls: EtcdTls) -> EtcdSettings {
    EtcdSettings::new(&etcd.endpoints()).unwrap().with_tls(tls)
}

/// What a node says that cannot take part: one line that names the endpoint and has this in it.
#[track_caller]
fn trouble(etcd: &Etcd, settings: EtcdSettings, part: &str) -> String {
    let cluster = Cluster::new();
    let node = Node::start_with(&cluster.directory("host-a"), 7001, settings);
    let trouble = node.wait_for_trouble(part);
    let endpoint = etcd.address(0).to_string();
    assert!(trouble.contains(&endpoint) && trouble.contains("tried again"), "{trouble}");
    assert_eq!((node.sees(), node.fenced()), (None, vec![]));
    trouble
}

#[test]
fn nodes_see_each_other_over_tls_and_etcd_may_come_back() {
    let (cluster, authority) = (Cluster::new(), Authority::new());
    let mut etcd = Etcd::start_with(authority.ways(&authority.sign(SERVER, 1), false));
    let nodes = Node::two(&cluster, &settings(&etcd, authority.tls(None)));
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.kill(0);
    for (node, before) in nodes.iter().zip(&before) {
        node.wait_for_trouble("tried again");
        assert_eq!((node.view().members, node.view().is_current), (before.members.clone(), false));
    }
    etcd.restart(0);
    for (node, before) in nodes.iter().zip(&before) {
        wait_until("all is as it was", || node.view() == *before);
        assert_eq!((node.fenced(), node.running().trouble()), (vec![], None));
    }
    let [a, b] = nodes;
    b.leave();
    a.wait_to_see(&[]);
}

#[test]
fn etcd_may_want_a_certificate() {
    let (cluster, authority) = (Cluster::new(), Authority::new());
    let etcd = Etcd::start_with(authority.ways(&authority.sign(SERVER, 1), true));
    Node::two(&cluster, &settings(&etcd, authority.tls(Some(&authority.sign("host-a", 1)))));
    for _ in 0..8 {
        trouble(&etcd, settings(&etcd, authority.tls(None)), "give etcd-certificate and etcd-key");
    }
}

#[test]
fn a_certificate_that_etcd_does_not_accept_is_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let etcd = Etcd::start_with(authority.ways(&authority.sign(SERVER, 1), true));
    let with = |own: Signed| settings(&etcd, authority.tls(Some(&own)));
    trouble(&etcd, with(stranger.sign("host-a", 1)), "etcd-certificate");
    trouble(&etcd, with(authority.sign("host-a", -1)), "expired");
}

#[test]
fn a_server_that_is_not_believed_is_named_with_the_way_out() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (server, client, part) in [
        (authority.sign(SERVER, 1), stranger.tls(None), "etcd-ca"),
        (authority.sign("etcd.example", 1), authority.tls(None), "is for etcd.example and not for 127.0.0.1"),
        (authority.sign("127.0.0.9", 1), authority.tls(None), "is for 127.0.0.9 and not for 127.0.0.1"),
        (authority.sign(SERVER, -1), authority.tls(None), "has expired"),
        (authority.own().clone(), authority.tls(None), "is an authority's own"),
    ] {
        let etcd = Etcd::start_unasked(authority.ways(&server, false));
        trouble(&etcd, settings(&etcd, client), part);
    }
}

#[test]
fn the_wrong_scheme_is_named_with_the_right_one() {
    let authority = Authority::new();
    let plain = Etcd::start();
    let https = plain.endpoints()[0].replace("http://", "https://");
    let settings = EtcdSettings::new(&[https]).unwrap().with_tls(authority.tls(None));
    trouble(&plain, settings, "write http://");
    let secure = Etcd::start_with(authority.ways(&authority.sign(SERVER, 1), false));
    let http = secure.endpoints()[0].replace("https://", "http://");
    trouble(&secure, EtcdSettings::new(&[http]).unwrap(), "write https://");
}

/// A certificate that is replaced by a wrong one is an outage of etcd, and no more than that.
#[test]
fn a_wrong_certificate_of_etcd_changes_nothing_until_it_is_right_again() {
    let (cluster, authority, stranger) = (Cluster::new(), Authority::new(), Authority::new());
    let right = authority.sign(SERVER, 1);
    let mut etcd = Etcd::start_with(authority.ways(&right, false));
    let nodes = Node::two(&cluster, &settings(&etcd, authority.tls(None)));
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.kill(0);
    authority.give(&stranger.sign(SERVER, 1));
    etcd.restart_unasked(0);
    for (node, before) in nodes.iter().zip(&before) {
        node.wait_for_trouble("etcd-ca");
        assert_eq!((node.view().members, node.view().is_current), (before.members.clone(), false));
    }
    etcd.kill(0);
    authority.give(&right);
    etcd.restart(0);
    for (node, before) in nodes.iter().zip(&before) {
        wait_until("all is as it was", || node.view() == *before);
        assert_eq!((node.fenced(), node.running().trouble()), (vec![], None));
    }
}
