//! Membership with real etcd servers that want a login, on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use etcd_client::{ConnectOptions, Permission};
use support::{
    authority::{Authority, SERVER},
    etcd::Etcd,
    node::{Cluster, Node},
    users::ways,
    wait_until,
};
use tmem_membership::{EtcdSettings, View};

/// Seconds after which nobody's login ends during a test.
const LONG: u32 = 300;

fn login(etcd: &Etcd, user: &str, password: &str) -> EtcdSettings {
    EtcdSettings::new(&etcd.endpoints()).unwrap().with_login(user, password).unwrap()
}

/// etcd with one user for all hosts, who may read and write the cluster's keys and nothing else.
fn with_user(cluster: &Cluster, token_seconds: u32) -> Etcd {
    let mut etcd = Etcd::start_with(ways(token_seconds));
    etcd.enable_users(ConnectOptions::new());
    etcd.add_user("tmem", "secret", &[Permission::read_write(cluster.prefix()).with_prefix()]);
    etcd
}

/// Each says that, and that the others are who they were, as far as is known.
#[track_caller]
fn assert_out(nodes: &[Node; 2], before: &[View], trouble: &str) {
    for (node, before) in nodes.iter().zip(before) {
        node.wait_for_trouble(trouble);
        assert_eq!((node.view().members, node.view().is_current), (before.members.clone(), false));
    }
}

/// All is as it was, and nobody was given up meanwhile.
#[track_caller]
fn assert_back(nodes: &[Node; 2], before: &[View]) {
    for (node, before) in nodes.iter().zip(before) {
        wait_until("all is as it was", || node.view() == *before);
        assert_eq!((node.fenced(), node.running().trouble()), (vec![], None));
    }
}

/// Each has something to lend that is news, and the other one hears of it.
fn news_arrives([a, b]: &[Node; 2], bytes: u64) {
    a.running().set_free_bytes(bytes);
    b.running().set_free_bytes(bytes);
    for (node, other) in [(a, "host-b"), (b, "host-a")] {
        let hears = || node.member(other).is_some_and(|other| other.free_bytes == Some(bytes));
        wait_until("the other one hears of it", hears);
    }
}

#[test]
fn a_user_with_the_clusters_keys_alone_is_enough() {
    let cluster = Cluster::new();
    let etcd = with_user(&cluster, LONG);
    let nodes = Node::two(&cluster, &login(&etcd, "tmem", "secret"));
    news_arrives(&nodes, 64 << 20);
    // What is outside is not theirs.
    let as_user = ConnectOptions::new().with_user("tmem", "secret");
    let outside = etcd.ask_with(as_user, async |mut client| client.get("/tmem/", None).await.map(drop));
    assert!(outside.unwrap_err().to_string().contains("permission denied"));
    let [a, b] = nodes;
    b.leave();
    // With its lease, and not because that ran out.
    assert_eq!(etcd.get(&cluster.key("nodes", "host-b")), None);
    a.wait_to_see(&[]);
    assert_eq!((a.fenced(), a.running().trouble()), (vec![], None));
}

/// Each host may have a user of its own, who reads all of the cluster's keys and writes those of that host.
#[test]
fn a_user_of_each_host_need_not_write_what_is_anothers() {
    let cluster = Cluster::new();
    let mut etcd = Etcd::start_with(ways(LONG));
    etcd.enable_users(ConnectOptions::new());
    for host in ["host-a", "host-b"] {
        etcd.add_user(
            host,
            "secret",
            &[
                Permission::read(cluster.prefix()).with_prefix(),
                Permission::read_write(cluster.key("nodes", host)),
                Permission::read_write(cluster.key("epochs", host)),
            ],
        );
    }
    let nodes = [
        Node::start_with(&cluster.directory("host-a"), 7001, login(&etcd, "host-a", "secret")),
        Node::start_with(&cluster.join("host-b", "host-b"), 7002, login(&etcd, "host-b", "secret")),
    ];
    nodes[0].wait_to_see(&["host-b"]);
    nodes[1].wait_to_see(&["host-a"]);
    news_arrives(&nodes, 64 << 20);
    // As another host it may not be there.
    let wrong = Node::start_with(&cluster.join("host-c", "host-c"), 7003, login(&etcd, "host-b", "secret"));
    wrong.wait_for_trouble("permission denied");
    let [a, b] = nodes;
    b.leave();
    assert_eq!(etcd.get(&cluster.key("nodes", "host-b")), None);
    a.wait_to_see(&[]);
}

#[test]
fn a_session_goes_on_after_its_token_has_expired() {
    let cluster = Cluster::new();
    let etcd = with_user(&cluster, 1);
    let nodes = Node::two(&cluster, &login(&etcd, "tmem", "secret"));
    let views: Vec<_> = nodes.iter().map(|node| node.views().len()).collect();
    for round in 1..=2 {
        // One for each node: neither has one any more that is good.
        let expired = 2 * round;
        wait_until("the tokens have expired", || etcd.expired_tokens("tmem") >= expired);
        news_arrives(&nodes, (round as u64) << 26);
    }
    for (node, views) in nodes.iter().zip(views) {
        assert!(node.views()[views - 1..].iter().all(|view| view.is_current), "the session went on");
        assert_eq!((node.fenced(), node.running().trouble()), (vec![], None));
    }
}

#[test]
fn etcd_that_is_restarted_is_logged_in_to_again() {
    let cluster = Cluster::new();
    let mut etcd = with_user(&cluster, LONG);
    let nodes = Node::two(&cluster, &login(&etcd, "tmem", "secret"));
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.kill(0);
    assert_out(&nodes, &before, "tried again");
    etcd.restart(0);
    assert_back(&nodes, &before);
}

#[test]
fn a_wrong_password_is_said_until_it_is_right() {
    let cluster = Cluster::new();
    let etcd = with_user(&cluster, LONG);
    for user in ["tmem", "nobody"] {
        let node = Node::start_with(&cluster.directory("host-a"), 7001, login(&etcd, user, "another secret"));
        let trouble = node.wait_for_trouble("wrong user or password");
        assert!(trouble.contains(&etcd.endpoints()[0]) && !trouble.contains("secret"), "{trouble}");
        assert_eq!(node.sees(), None);
        if user == "tmem" {
            etcd.change_password("tmem", "another secret");
            node.wait_to_see(&[]);
            assert_eq!(node.running().trouble(), None);
        }
    }
}

/// Nodes that are in the cluster lose nothing when somebody changes the password under them.
#[test]
fn a_password_that_is_changed_is_an_outage_and_no_change() {
    let cluster = Cluster::new();
    let mut etcd = with_user(&cluster, LONG);
    let nodes = Node::two(&cluster, &login(&etcd, "tmem", "secret"));
    let before: Vec<_> = nodes.iter().map(Node::view).collect();
    etcd.change_password("tmem", "another");
    etcd.kill(0);
    etcd.restart(0);
    assert_out(&nodes, &before, "wrong user or password");
    etcd.change_password("tmem", "secret");
    assert_back(&nodes, &before);
}

#[test]
fn a_login_that_is_missing_or_of_no_use_is_named() {
    let cluster = Cluster::new();
    let etcd = with_user(&cluster, LONG);
    let node = Node::start(&cluster.directory("host-a"), 7001, &etcd.endpoints());
    node.wait_for_trouble("give etcd-user and etcd-password-file");
    let open = Etcd::start();
    let node = Node::start_with(&cluster.directory("host-a"), 7001, login(&open, "tmem", "secret"));
    node.wait_for_trouble("leave out etcd-user and etcd-password-file");
}

#[test]
fn what_a_user_may_not_do_is_named_with_the_keys_that_it_needs() {
    let cluster = Cluster::new();
    let mut etcd = Etcd::start_with(ways(LONG));
    etcd.enable_users(ConnectOptions::new());
    etcd.add_user("tmem", "secret", &[Permission::read(cluster.prefix()).with_prefix()]);
    let node = Node::start_with(&cluster.directory("host-a"), 7001, login(&etcd, "tmem", "secret"));
    let trouble = node.wait_for_trouble("permission denied");
    assert!(trouble.contains("user tmem") && trouble.contains(&cluster.prefix()), "{trouble}");
    etcd.grant("tmem", &[Permission::read_write(cluster.prefix()).with_prefix()]);
    node.wait_to_see(&[]);
    assert_eq!(node.running().trouble(), None);
}

/// With certificates etcd takes the common name as the user, and nobody has a password.
#[test]
fn a_certificate_may_be_the_login() {
    let (cluster, authority) = (Cluster::new(), Authority::new());
    let mut ways = authority.ways(&authority.sign(SERVER, 1), true);
    let options = ways.options.clone();
    ways.arguments.extend(support::users::ways(LONG).arguments);
    let mut etcd = Etcd::start_with(ways);
    etcd.enable_users(options);
    etcd.add_user("tmem", "secret", &[Permission::read_write(cluster.prefix()).with_prefix()]);
    let settings = |user: &str| {
        let settings = EtcdSettings::new(&etcd.endpoints()).unwrap();
        settings.with_tls(authority.tls(Some(&authority.sign(user, 1))))
    };
    Node::two(&cluster, &settings("tmem"));
    let node = Node::start_with(&cluster.directory("host-a"), 7001, settings("nobody"));
    node.wait_for_trouble("permission denied");
    // A password counts more than the certificate.
    let settings = settings("nobody").with_login("tmem", "secret").unwrap();
    let node = Node::start_with(&cluster.directory("host-a"), 7001, settings);
    wait_until("it is there", || node.sees().is_some());
}
