use proptest::prelude::*;

use super::*;
use crate::{
    BalanceDecision, BalanceReport, BalancedGuest, ClusterReport, cluster_report::tests::sample as cluster,
    status::tests::sample,
};

const HOST: WholeHost = WholeHost { total_bytes: 8 << 30, available_bytes: 3 << 30 };
const FOREIGN: &str = "<script>alert('\"&\n')</script>";

fn balance() -> BalanceReport {
    let guest = BalancedGuest {
        name: "vm1".to_owned(),
        kind: "qemu".to_owned(),
        size_bytes: 512 << 20,
        target_bytes: 768 << 20,
        floor_bytes: 256 << 20,
        ceiling_bytes: 1 << 30,
        answers: true,
        reason: "it swaps".to_owned(),
        ..BalancedGuest::default()
    };
    let decision = BalanceDecision {
        unix_ms: 0,
        guest: "vm1".to_owned(),
        from_bytes: 512 << 20,
        to_bytes: 768 << 20,
        reason: "thrashing".to_owned(),
    };
    BalanceReport {
        pid: 4711,
        policy: "reuse".to_owned(),
        interval_seconds: 5.0,
        budget_bytes: 3 << 30,
        guests: vec![guest],
        decisions: vec![decision],
        ..BalanceReport::default()
    }
}

/// With this text wherever others say what stands there.
fn said_by_cluster(text: &str) -> ClusterReport {
    let (mut cluster, foreign) = (cluster(), || text.to_owned());
    (cluster.node, cluster.cluster, cluster.membership) = (foreign(), foreign(), foreign());
    cluster.trouble = Some(foreign());
    if let Some(borrowing) = &mut cluster.borrowing {
        for peer in &mut borrowing.peers {
            (peer.name, peer.state, peer.trouble) = (foreign(), format!("z{text}"), Some(foreign()));
        }
    }
    if let Some(lending) = &mut cluster.lending {
        (lending.borrowers[0].name, lending.borrowers[0].address) = (foreign(), Some(foreign()));
    }
    cluster
}

/// One without trouble.
fn quiet() -> Status {
    let mut status = sample();
    status.worker_deaths = 0;
    (status.tiers[0].state, status.tiers[0].trouble) = ("ready".to_owned(), None);
    for client in &mut status.clients {
        (client.frozen, client.checksum_errors, client.tier_errors) = (false, 0, 0);
    }
    status
}

fn looked_at(status: &Status, looks: u32) -> Dashboard {
    let dashboard = Dashboard::default();
    for look in 0..looks {
        dashboard.record(Duration::from_secs(5) * look, status, HOST);
    }
    dashboard
}

fn fragment(status: &Status) -> String {
    looked_at(status, 3).fragment(status, Span::Hour)
}

#[test]
fn every_guest_is_there_once_with_its_numbers() {
    let mut status = Status { balance: Some(balance()), ..quiet() };
    if let Some(balance) = &mut status.balance {
        balance.guests.push(BalancedGuest { name: "no-disk".to_owned(), ..balance.guests[0].clone() });
    }
    let html = fragment(&status);
    for name in ["vm1", "vm2", "no-disk"] {
        assert_eq!(html.matches(&format!("<article><h3><bdi>{name}</bdi>")).count(), 1, "{html}");
    }
    let row = "<tr><th scope=\"row\"><bdi>vm1</bdi></th><td class=\"words\"><span class=\"badge good\">connected</span> </td><td>512M</td><td>768M</td>";
    assert!(html.contains(row), "{html}");
    assert!(
        html.contains("no swap disk") && html.contains("it swaps") && html.contains("thrashing"),
        "{html}"
    );
    assert!(html.contains("qemu, 256M to 1.0G") && html.contains("Policy <b>reuse</b>, 2 guests"), "{html}");
    // Three charts of all, two of each client, one of the guest that is no client.
    assert_eq!(html.matches("<svg class=\"chart\"").count(), 3 + 2 + 2 + 1);
    assert_eq!(html.matches("role=\"img\"><title>").count(), 8);
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
}

/// Rule: names and reasons come from others, and none is markup, wherever it stands.
#[test]
fn no_foreign_text_is_markup() {
    let mut status = sample();
    let foreign = || FOREIGN.to_owned();
    status.version = foreign();
    status.sandbox = Some(foreign());
    for client in &mut status.clients {
        client.name = foreign();
        client.kind = foreign();
        client.dedup = foreign();
        if let Some(disk) = &mut client.disk {
            disk.transport = foreign();
            disk.socket = Some(FOREIGN.into());
        }
    }
    for tier in &mut status.tiers {
        (tier.name, tier.kind, tier.state, tier.trouble) = (foreign(), foreign(), foreign(), Some(foreign()));
    }
    let mut balance = balance();
    balance.policy = foreign();
    for (name, trouble) in [(foreign(), Some(foreign())), (format!("{FOREIGN}2"), None)] {
        let kind = foreign();
        balance.guests.push(BalancedGuest {
            name,
            kind,
            trouble,
            reason: foreign(),
            ..BalancedGuest::default()
        });
    }
    balance.decisions[0].guest = foreign();
    balance.decisions[0].reason = foreign();
    status.balance = Some(balance);
    status.cluster = Some(said_by_cluster(FOREIGN));
    let dashboard = looked_at(&status, 3);
    for html in [dashboard.fragment(&status, Span::Hour), dashboard.fragment(&status, Span::Day)] {
        assert!(!html.contains("<script") && !html.contains("alert('"), "{html}");
        assert!(
            html.matches("&lt;script&gt;alert(&#39;&quot;&amp;\\n&#39;)&lt;/script&gt;").count() >= 15,
            "{html}"
        );
    }
    assert_eq!(dashboard.page(&status, Span::Hour).matches("<script").count(), 1, "our own");
}

#[test]
fn numbers_that_make_no_sense_are_shown_all_the_same() {
    let mut balance = balance();
    balance.interval_seconds = f64::MAX;
    balance.budget_bytes = u64::MAX;
    balance.decisions[0].unix_ms = u64::MAX;
    balance.decisions[0].to_bytes = u64::MAX;
    for number in 0..3 {
        balance.guests.push(BalancedGuest {
            name: number.to_string(),
            size_bytes: u64::MAX,
            target_bytes: u64::MAX,
            floor_bytes: u64::MAX,
            ceiling_bytes: 0,
            pressure: Some(f64::MAX),
            available_bytes: Some(u64::MAX),
            ..BalancedGuest::default()
        });
    }
    let mut status = Status { balance: Some(balance), ..sample() };
    for client in &mut status.clients {
        (client.used_bytes, client.logical_bytes, client.tiered_bytes) = (u64::MAX, u64::MAX, u64::MAX);
        (client.gets, client.puts, client.refused_puts) = (u64::MAX, u64::MAX, u64::MAX);
    }
    status.pool.limit_bytes = 0;
    (status.pool.held_bytes, status.pool.used_bytes, status.pool.logical_bytes) =
        (u64::MAX, u64::MAX, u64::MAX);
    status.tiers[0].live_bytes = u64::MAX;
    let html = fragment(&status);
    assert!(html.contains("16.0E") && !html.contains("NaN") && !html.contains("cannot be drawn"), "{html}");
}

#[test]
fn what_is_wrong_is_on_top() {
    assert!(fragment(&quiet()).contains("Nothing needs attention."));
    let mut status = sample();
    status.tiers[0].trouble = Some("<no space>".to_owned());
    let mut balance = balance();
    balance.guests[0].answers = false;
    balance.guests.push(BalancedGuest {
        trouble: Some("its monitor is silent".to_owned()),
        ..balance.guests[0].clone()
    });
    status.balance = Some(balance);
    let html = fragment(&status);
    let top = html.split_once("class=\"tiles\"").unwrap().0;
    for line in [
        "9 workers have died",
        "Tier /var/lib/tmem/tier is read-only: &lt;no space&gt;",
        "<bdi>vm1</bdi>: 112 damaged pages",
        "<bdi>vm1</bdi>: 125 pages could not be read from the tier",
        "<bdi>vm1</bdi> is frozen",
        "<bdi>vm1</bdi> does not answer the balancer",
        "its monitor is silent",
    ] {
        assert!(top.contains(line), "{line}: {top}");
    }
    let [bad, warning, note] =
        ["class=\"bad\"", "class=\"warning\"", "class=\"note\""].map(|class| top.find(class).unwrap());
    assert!(bad < warning && warning < note, "the worst first: {top}");
}

#[test]
fn peers_are_shown_both_ways_and_what_is_wrong_with_them_on_top() {
    assert!(!fragment(&quiet()).contains("id=\"peers\""));
    let html = fragment(&Status { cluster: Some(cluster()), ..quiet() });
    for text in [
        "Node <b><bdi>a</bdi></b> of cluster c0ffee, epoch 7, by etcd.",
        "90 extents, each on 2 nodes and on this one's disk, <bdi>/srv/tier</bdi>; 3 lack a copy",
        "<bdi>gone</bdi></th><td class=\"words\">not connected",
        "<td>45 µs</td><td>120 µs</td>",
    ] {
        assert!(html.contains(text), "{text}: {html}");
    }
    let top = html.split_once("class=\"tiles\"").unwrap().0;
    for line in [
        "1 extent lost: all nodes that had a copy are gone.",
        "Peer <bdi>c</bdi> is away: connection refused",
        "3 extents with too few copies; repair goes on.",
    ] {
        assert!(top.contains(line), "{line}: {top}");
    }
    assert!(!top.contains("<bdi>b</bdi>"), "{top}");
}

#[test]
fn refused_pages_and_a_full_pool_are_told() {
    let mut status = quiet();
    let dashboard = looked_at(&status, 2);
    assert!(dashboard.fragment(&status, Span::Hour).contains("Nothing needs attention."));
    status.clients[1].refused_puts += 10_000;
    dashboard.record(Duration::from_secs(15), &status, HOST);
    let html = dashboard.fragment(&status, Span::Hour);
    assert!(html.contains("<bdi>vm2</bdi>: 10,000 pages refused in the last five minutes"), "{html}");
    (status.pool.held_bytes, status.pool.used_bytes) = (status.pool.limit_bytes, status.pool.limit_bytes);
    assert!(
        dashboard
            .fragment(&status, Span::Hour)
            .contains("The pool holds 4.0G of the 4.0G that it may: pages go to the tier.")
    );
}

#[test]
fn where_there_is_nothing_it_says_what_to_do() {
    let status = Status { clients: Vec::new(), tiers: Vec::new(), balance: None, ..sample() };
    let html = Dashboard::default().page(&status, Span::Hour);
    for command in ["tmem disk add", "tmem balance start", "tmem serve --tier"] {
        assert!(html.contains(command), "{command}: {html}");
    }
    assert!(
        html.contains("http-equiv=\"refresh\"") && html.contains("aria-current=\"page\">last hour"),
        "{html}"
    );
}

/// Charts cost the most, and change with a look alone.
#[test]
fn charts_are_drawn_once_for_each_look() {
    let status = quiet();
    let dashboard = looked_at(&status, 3);
    let drawn = |span| Arc::as_ptr(&dashboard.lock().draw(&status, span));
    let (hour, day) = (drawn(Span::Hour), drawn(Span::Day));
    assert_eq!((hour, day), (drawn(Span::Hour), drawn(Span::Day)));
    let old = dashboard.lock().draw(&status, Span::Hour);
    dashboard.record(Duration::from_secs(15), &status, HOST);
    assert!(!std::ptr::eq(Arc::as_ptr(&old), drawn(Span::Hour)));
}

/// Inline styles and scripts would be blocked, and colours would not follow light and dark.
#[test]
fn nothing_on_the_page_needs_more_than_its_policy_gives() {
    let status = Status { balance: Some(balance()), ..sample() };
    let html = looked_at(&status, 3).page(&status, Span::Hour);
    for forbidden in [" style=", "<style", " onclick", "javascript:", "=\"#"] {
        assert!(!html.contains(forbidden), "{forbidden}: {html}");
    }
    for ink in html.split("ink-").skip(1).filter_map(|rest| rest.split(['"', ' ']).next()) {
        assert!(STYLE.contains(&format!(".ink-{ink}")), "the style sheet has no {ink}");
    }
}

/// Names of tags, in their order.
fn tags(html: &str) -> Vec<&str> {
    html.split('<').skip(1).map(|rest| rest.split([' ', '>', '\n']).next().unwrap_or_default()).collect()
}

/// With this text wherever others say what stands there.
fn said(text: &str) -> Status {
    let foreign = || text.to_owned();
    let mut balance = balance();
    (balance.policy, balance.decisions[0].guest, balance.decisions[0].reason) =
        (foreign(), foreign(), foreign());
    let guest = BalancedGuest {
        name: format!("z{text}"),
        kind: foreign(),
        reason: foreign(),
        trouble: Some(foreign()),
        ..BalancedGuest::default()
    };
    balance.guests.push(guest);
    let mut status = Status { balance: Some(balance), sandbox: Some(foreign()), ..sample() };
    (status.tiers[0].name, status.tiers[0].trouble) = (foreign(), Some(foreign()));
    status.cluster = Some(said_by_cluster(text));
    status
}

proptest! {
    /// Whatever is said, the page is made of the same elements.
    #[test]
    fn no_text_changes_what_the_page_is_made_of(text in any::<String>()) {
        let (with_text, with_x) = (fragment(&said(&text)), fragment(&said("x")));
        prop_assert_eq!(tags(&with_text), tags(&with_x));
    }
}
