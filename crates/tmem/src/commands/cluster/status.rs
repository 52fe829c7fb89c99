//! `tmem cluster status`.

use std::fmt::Write;

use clap::Args;
use tmem_control::{AdminClient, BorrowingReport, ClusterReport, LendingReport, PeerReport};

use crate::{
    Outcome,
    commands::print,
    figures::size,
    table::{
        Align::{Left, Right},
        Table,
    },
};

/// `tmem cluster status`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The daemon's JSON instead of tables; sizes in bytes, times in microseconds
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub(super) fn run(arguments: &Arguments, client: &AdminClient) -> Outcome {
    let Some(report) = client.status()?.cluster else {
        return Err(anyhow::anyhow!(
            "this daemon is in no cluster: it needs a section [cluster] in its configuration (docs/cluster.md); if it has one, its log says what is wrong"
        )
        .into());
    };
    if arguments.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))
    } else {
        print(&text(&report))
    }
}

fn text(report: &ClusterReport) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "node {} of cluster {}, epoch {}{}",
        report.node,
        report.cluster,
        report.epoch,
        report.domain.as_ref().map_or(String::new(), |domain| format!(", domain {domain}")),
    );
    let source = match report.membership.as_str() {
        "list" => "the list in the configuration",
        other => other,
    };
    let _ = match (&report.trouble, report.is_current) {
        (Some(trouble), _) => {
            writeln!(text, "members by {source}, as it was when it was last heard: {trouble}")
        }
        (None, true) => writeln!(text, "members by {source}"),
        (None, false) => writeln!(text, "members by {source}, not heard of yet"),
    };
    match &report.lending {
        Some(lending) => lends(&mut text, lending, report.address.as_deref().unwrap_or("-")),
        None => text.push_str("\nlends nothing: it listens nowhere\n"),
    }
    match &report.borrowing {
        Some(borrowing) => borrows(&mut text, borrowing),
        None => text.push_str("\nborrows nothing: it has a tier of its own\n"),
    }
    text
}

fn lends(text: &mut String, lending: &LendingReport, address: &str) {
    let _ = writeln!(
        text,
        "\nlends at {address}: {} of {}, {} held from the host",
        size(lending.lent_bytes),
        size(lending.limit_bytes),
        size(lending.held_bytes)
    );
    if lending.borrowers.is_empty() {
        text.push_str("nobody is connected\n");
        return;
    }
    let columns =
        [("BORROWER", Left), ("FROM", Left), ("LENT", Right), ("COPIES", Right), ("RECALLED", Right)];
    let mut table = Table::new(&columns);
    for borrower in &lending.borrowers {
        table.row(vec![
            borrower.name.clone(),
            borrower.address.clone().unwrap_or_else(|| "away".to_owned()),
            size(borrower.lent_bytes),
            borrower.copies.to_string(),
            borrower.recalled_copies.to_string(),
        ]);
    }
    text.push_str(&table.render());
}

fn borrows(text: &mut String, borrowing: &BorrowingReport) {
    let lent_bytes: u64 = here(borrowing).map(|peer| peer.lent_bytes).sum();
    let copies = match borrowing.copies {
        1 => "1 copy".to_owned(),
        copies => format!("{copies} copies"),
    };
    let on_disk = borrowing.disk.as_ref().map(|disk| format!(" and one on {disk}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "\nborrows {}: {} extents, {copies} of each{on_disk}{}",
        size(lent_bytes),
        borrowing.extents,
        standing(borrowing)
    );
    if borrowing.peers.is_empty() {
        text.push_str("no other node is known\n");
        return;
    }
    let mut table = Table::new(&[
        ("LENDER", Left),
        ("AT", Left),
        ("STATE", Left),
        ("LENT", Right),
        ("FREE", Right),
        ("COPIES", Right),
        ("P50", Right),
        ("P99", Right),
        ("ERRORS", Right),
        ("TROUBLE", Left),
    ]);
    for peer in &borrowing.peers {
        table.row(vec![
            peer.name.clone(),
            peer.address.clone(),
            peer.state.clone(),
            size(peer.lent_bytes),
            size(peer.free_bytes),
            peer.copies.to_string(),
            time(peer.round_trip_p50_us),
            time(peer.round_trip_p99_us),
            peer.errors.to_string(),
            peer.trouble.clone().unwrap_or_default(),
        ]);
    }
    text.push_str(&table.render());
}

fn here(borrowing: &BorrowingReport) -> impl Iterator<Item = &PeerReport> {
    borrowing.peers.iter().filter(|peer| peer.state == "connected")
}

/// Whether all is as it should be, and what is done about it.
fn standing(borrowing: &BorrowingReport) -> String {
    let mut text = String::new();
    if !borrowing.is_complete {
        text.push_str("; not all peers have said yet what they have");
    }
    if borrowing.lost_extents > 0 {
        let _ = write!(text, "; {} are lost", borrowing.lost_extents);
    }
    if borrowing.wanting_extents > 0 {
        let _ = write!(text, "; {} lack one, ", borrowing.wanting_extents);
        if (here(borrowing).count() as u64) < borrowing.copies {
            text.push_str("and too few hosts are there for another");
        } else {
            let _ = write!(text, "repair fetches {}/s", size(borrowing.repair_bytes_per_second));
        }
    }
    text
}

fn time(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        us if us < 10_000 => format!("{us}us"),
        us => format!("{}ms", us / 1000),
    }
}

#[cfg(test)]
mod tests {
    use tmem_control::BorrowerReport;

    use super::*;

    fn report() -> ClusterReport {
        ClusterReport {
            node: "a".to_owned(),
            cluster: "c0ffee".to_owned(),
            epoch: 7,
            address: Some("10.0.0.1:7790".to_owned()),
            domain: Some("rack-1".to_owned()),
            membership: "etcd".to_owned(),
            is_current: true,
            lending: Some(LendingReport {
                limit_bytes: 4 << 30,
                borrowers: vec![BorrowerReport { name: "b".to_owned(), copies: 5, ..Default::default() }],
                ..Default::default()
            }),
            borrowing: Some(BorrowingReport {
                copies: 2,
                extents: 90,
                is_complete: true,
                peers: vec![PeerReport {
                    name: "b".to_owned(),
                    state: "connected".to_owned(),
                    round_trip_p50_us: 45,
                    round_trip_p99_us: 12_345,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_node_that_is_well_says_so_in_few_lines() {
        let text = text(&report());
        for part in [
            "node a of cluster c0ffee, epoch 7, domain rack-1\nmembers by etcd\n",
            "lends at 10.0.0.1:7790: 0B of 4.0G",
            "90 extents, 2 copies of each\n",
            "45us  12ms",
            "b         away",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut report = report();
        report.trouble = Some("etcd does not answer".to_owned());
        if let Some(borrowing) = &mut report.borrowing {
            (borrowing.lost_extents, borrowing.wanting_extents, borrowing.is_complete) = (1, 3, false);
        }
        let said = text(&report);
        for part in [
            "last heard: etcd does not answer",
            "; 1 are lost",
            "; 3 lack one, and too few",
            "not all peers have said",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        if let Some(borrowing) = &mut report.borrowing {
            (borrowing.copies, borrowing.disk) = (1, Some("/srv/tier".to_owned()));
        }
        assert!(text(&report).contains("extents, 1 copy of each and one on /srv/tier; not all"));
        (report.lending, report.borrowing) = (None, None);
        assert!(text(&report).contains("lends nothing") && text(&report).contains("borrows nothing"));
    }
}
