//! Whom this node lends to and from whom it borrows, as metrics. Outside a cluster there are none.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::{BorrowerReport, BorrowingReport, ClusterReport, LendingReport, PeerReport};

/// One family of numbers: its name behind the prefix, what it says, and where it is found.
type Family<T> = (&'static str, &'static str, fn(&T) -> u64);

const LENDING: [Family<LendingReport>; 3] = [
    ("limit_bytes", "The most that all borrowers may have at this moment", |it| it.limit_bytes),
    ("lent_bytes", "Blocks that borrowers need", |it| it.lent_bytes),
    ("held_bytes", "Memory that this takes, with all that is known of it", |it| it.held_bytes),
];

const BORROWERS: [Family<BorrowerReport>; 4] = [
    ("connected", "1 while the borrower is connected", |it| u64::from(it.address.is_some())),
    ("lent_bytes", "Blocks that the borrower needs", |it| it.lent_bytes),
    ("copies", "Copies of extents that the borrower has here", |it| it.copies),
    ("recalled_copies", "Copies that the borrower was asked to take back", |it| it.recalled_copies),
];

const BORROWING: [Family<BorrowingReport>; 6] = [
    ("copies", "On how many nodes each extent is to be", |it| it.copies),
    ("extents", "Extents that peers have, or are about to get", |it| it.extents),
    ("wanting_extents", "Extents with fewer copies than they should have", |it| it.wanting_extents),
    ("lost_extents", "Extents that nobody has any more", |it| it.lost_extents),
    ("repair_bytes_per_second", "What repair fetches a second", |it| it.repair_bytes_per_second),
    ("is_complete", "1 when all peers have said what they have", |it| u64::from(it.is_complete)),
];

const REPAIRED: [Family<BorrowingReport>; 2] = [
    ("repaired_copies", "Copies made anew", |it| it.repaired_copies),
    ("repaired_bytes", "What the copies had that were made anew", |it| it.repaired_bytes),
];

const PEERS: [Family<PeerReport>; 4] = [
    ("connected", "1 while the peer can be reached", |it| u64::from(it.state == "connected")),
    ("free_bytes", "What may still be borrowed from the peer", |it| it.free_bytes),
    ("lent_bytes", "What this node has at the peer", |it| it.lent_bytes),
    ("copies", "Copies of extents that the peer has", |it| it.copies),
];

/// Of the last reads from a peer: the part of them, and what it did not exceed.
type RoundTrip = (&'static str, fn(&PeerReport) -> u64);

const ROUND_TRIPS: [RoundTrip; 2] =
    [("0.5", |peer| peer.round_trip_p50_us), ("0.99", |peer| peer.round_trip_p99_us)];

/// All of it.
pub(super) fn encode(report: &ClusterReport, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "1, with the node's name and cluster, and who says who is there, as labels";
    encoder
        .encode_descriptor("tmem_cluster_info", help, None, MetricType::Gauge)?
        .encode_family(&[
            ("node", report.node.as_str()),
            ("cluster", report.cluster.as_str()),
            ("membership", report.membership.as_str()),
        ])?
        .encode_gauge(&1u64)?;
    for (name, help, value) in [
        ("tmem_cluster_epoch", "The stretch of the node's life that it is in", report.epoch),
        (
            "tmem_cluster_is_current",
            "1 while what is known of who is there is so now",
            u64::from(report.is_current),
        ),
    ] {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    if let Some(lending) = &report.lending {
        single(encoder, "tmem_lending_", &LENDING, lending)?;
        each(encoder, ("tmem_borrower_", "node"), &BORROWERS, &lending.borrowers, |it| &it.name)?;
    }
    if let Some(borrowing) = &report.borrowing {
        single(encoder, "tmem_borrowing_", &BORROWING, borrowing)?;
        for (name, help, value) in REPAIRED {
            let name = format!("tmem_borrowing_{name}");
            encoder
                .encode_descriptor(&name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value(borrowing), None)?;
        }
        peers(encoder, &borrowing.peers)?;
    }
    Ok(())
}

fn single<T>(
    encoder: &mut DescriptorEncoder<'_>,
    prefix: &str,
    families: &[Family<T>],
    of: &T,
) -> fmt::Result {
    for (name, help, value) in families {
        let name = format!("{prefix}{name}");
        encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?.encode_gauge(&value(of))?;
    }
    Ok(())
}

fn each<T>(
    encoder: &mut DescriptorEncoder<'_>,
    (prefix, label): (&str, &str),
    families: &[Family<T>],
    all: &[T],
    name_of: impl Fn(&T) -> &str,
) -> fmt::Result {
    for (name, help, value) in families {
        let name = format!("{prefix}{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for it in all {
            family.encode_family(&[(label, name_of(it))])?.encode_gauge(&value(it))?;
        }
    }
    Ok(())
}

fn peers(encoder: &mut DescriptorEncoder<'_>, peers: &[PeerReport]) -> fmt::Result {
    each(encoder, ("tmem_peer_", "node"), &PEERS, peers, |peer| &peer.name)?;
    let help = "What the peer did not answer as it should";
    let mut family = encoder.encode_descriptor("tmem_peer_errors", help, None, MetricType::Counter)?;
    for peer in peers {
        family
            .encode_family(&[("node", peer.name.as_str())])?
            .encode_counter::<NoLabelSet, _, u64>(&peer.errors, None)?;
    }
    let help = "What a part of the last 256 reads from the peer did not exceed; absent without reads";
    let mut family =
        encoder.encode_descriptor("tmem_peer_round_trip_seconds", help, None, MetricType::Gauge)?;
    for peer in peers {
        for (quantile, value) in ROUND_TRIPS {
            let us = value(peer);
            if us > 0 {
                let labels = [("node", peer.name.as_str()), ("quantile", quantile)];
                family.encode_family(&labels)?.encode_gauge(&(us as f64 / 1e6))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{
        ClusterReport, Status, cluster_report::tests::sample as cluster, encode_metrics,
        status::tests::sample,
    };

    fn page(cluster: ClusterReport) -> String {
        encode_metrics(&Status { cluster: Some(cluster), ..sample() })
    }

    #[test]
    fn a_node_has_every_number_and_none_outside_a_cluster() {
        let told = page(cluster());
        for line in [
            "tmem_cluster_info{node=\"a\",cluster=\"c0ffee\",membership=\"etcd\"} 1",
            "tmem_cluster_epoch 7",
            "tmem_cluster_is_current 1",
            "tmem_lending_limit_bytes 1000",
            "tmem_lending_lent_bytes 600",
            "tmem_lending_held_bytes 630",
            "tmem_borrower_connected{node=\"b\"} 1",
            "tmem_borrower_connected{node=\"gone\"} 0",
            "tmem_borrower_lent_bytes{node=\"b\"} 500",
            "tmem_borrower_copies{node=\"b\"} 5",
            "tmem_borrower_recalled_copies{node=\"b\"} 2",
            "tmem_borrowing_copies 2",
            "tmem_borrowing_extents 90",
            "tmem_borrowing_wanting_extents 3",
            "tmem_borrowing_lost_extents 1",
            "tmem_borrowing_repaired_copies_total 11",
            "tmem_borrowing_repaired_bytes_total 12",
            "tmem_borrowing_repair_bytes_per_second 13",
            "tmem_borrowing_is_complete 0",
            "tmem_peer_connected{node=\"b\"} 1",
            "tmem_peer_connected{node=\"c\"} 0",
            "tmem_peer_free_bytes{node=\"b\"} 21",
            "tmem_peer_lent_bytes{node=\"b\"} 22",
            "tmem_peer_copies{node=\"b\"} 23",
            "tmem_peer_errors_total{node=\"b\"} 24",
            "tmem_peer_round_trip_seconds{node=\"b\",quantile=\"0.5\"} 0.000045",
            "tmem_peer_round_trip_seconds{node=\"b\",quantile=\"0.99\"} 0.00012",
        ] {
            assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
        }
        assert!(!told.contains("tmem_peer_round_trip_seconds{node=\"c\""), "{told}");
        let outside = encode_metrics(&sample());
        for prefix in ["tmem_cluster_", "tmem_lending_", "tmem_borrow", "tmem_peer_"] {
            assert!(!outside.contains(prefix), "{prefix}");
        }
    }

    #[test]
    fn what_a_node_does_not_do_is_absent() {
        let told = page(ClusterReport { lending: None, ..cluster() });
        assert!(!told.contains("tmem_lending_") && told.contains("tmem_peer_copies{"), "{told}");
        let told = page(ClusterReport { borrowing: None, ..cluster() });
        assert!(told.contains("tmem_lending_") && !told.contains("tmem_peer_"), "{told}");
    }
}
