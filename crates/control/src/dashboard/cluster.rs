//! Whom this node lends to, and from whom it borrows.

use super::{
    Scene,
    html::{
        self,
        Column::{Plain, Words},
        put,
    },
};
use crate::{BorrowingReport, ClusterReport, LendingReport};

/// Rows of each table. The status has all.
const MAX_ROWS: usize = 200;

/// Outside a cluster nothing.
pub(super) fn put(html: &mut String, scene: &Scene<'_>) {
    let Some(cluster) = &scene.status.cluster else { return };
    html.push_str("<section aria-labelledby=\"peers\"><h2 id=\"peers\">Peers</h2>");
    about(html, cluster);
    if let Some(borrowing) = &cluster.borrowing {
        borrows(html, borrowing);
    }
    if let Some(lending) = &cluster.lending {
        lends(html, lending);
    }
    html.push_str("</section>\n");
}

fn about(html: &mut String, cluster: &ClusterReport) {
    put!(
        html,
        "<p>Node <b><bdi>{}</bdi></b> of cluster {}, epoch {}, by {}.</p>",
        html::text(&cluster.node),
        html::text(&cluster.cluster),
        cluster.epoch,
        html::text(&cluster.membership)
    );
}

fn borrows(html: &mut String, borrowing: &BorrowingReport) {
    let lent_bytes = borrowing.peers.iter().fold(0u64, |sum, peer| sum.saturating_add(peer.lent_bytes));
    put!(
        html,
        "<p>Borrows {} in {}, each on {}",
        html::size(lent_bytes),
        html::of(borrowing.extents, "extent"),
        html::of(borrowing.copies, "node")
    );
    if let Some(disk) = &borrowing.disk {
        put!(html, " and on this one's disk, <bdi>{}</bdi>", html::text(disk));
    }
    if borrowing.wanting_extents > 0 {
        put!(
            html,
            "; {} lack a copy, repair fetches {} a second",
            html::count(borrowing.wanting_extents),
            html::size(borrowing.repair_bytes_per_second)
        );
    }
    html.push_str(".</p>");
    if borrowing.peers.is_empty() {
        html.push_str("<p class=\"nothing\">Nobody lends: no other node is known.</p>");
        return;
    }
    html::open_table(
        html,
        "scroll",
        "Lenders, table",
        "From whom it borrows",
        &[
            Words("node"),
            Words("state"),
            Plain("borrowed"),
            Plain("free there"),
            Plain("copies"),
            Plain("read p50"),
            Plain("p99"),
            Plain("errors"),
        ],
    );
    for peer in borrowing.peers.iter().take(MAX_ROWS) {
        let class = if peer.state == "connected" { "good" } else { "warning" };
        put!(
            html,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th><td class=\"words\"><span class=\"badge {class}\">{}</span> {}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{} µs</td><td>{} µs</td><td>{}</td></tr>\n",
            html::text(&peer.name),
            html::text(&peer.state),
            html::text(peer.trouble.as_deref().unwrap_or_default()),
            html::size(peer.lent_bytes),
            html::size(peer.free_bytes),
            html::count(peer.copies),
            html::count(peer.round_trip_p50_us),
            html::count(peer.round_trip_p99_us),
            html::count(peer.errors)
        );
    }
    html.push_str("</tbody></table></div>");
}

fn lends(html: &mut String, lending: &LendingReport) {
    put!(
        html,
        "<p>Lends {} of {}, in {} of memory.</p>",
        html::size(lending.lent_bytes),
        html::size(lending.limit_bytes),
        html::size(lending.held_bytes)
    );
    if lending.borrowers.is_empty() {
        html.push_str("<p class=\"nothing\">Nobody borrows.</p>");
        return;
    }
    html::open_table(
        html,
        "scroll",
        "Borrowers, table",
        "To whom it lends",
        &[Words("node"), Words("from"), Plain("lent"), Plain("copies"), Plain("recalled")],
    );
    for borrower in lending.borrowers.iter().take(MAX_ROWS) {
        put!(
            html,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th><td class=\"words\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            html::text(&borrower.name),
            html::text(borrower.address.as_deref().unwrap_or("not connected")),
            html::size(borrower.lent_bytes),
            html::count(borrower.copies),
            html::count(borrower.recalled_copies)
        );
    }
    html.push_str("</tbody></table></div>");
}
