//! How the cluster is, for people.

use std::sync::atomic::Ordering::Relaxed;

use tmem_control::{
    AdminError, BorrowerReport, BorrowingReport, ClusterReport, ClusterView, ForgottenReport, LendingReport,
    PeerReport,
};
use tmem_membership::{NameError, NodeName, Source};
use tmem_peers::{BorrowerStatus, BorrowingStatus, LendingServer, LendingStatus, NotForgotten, PeerStatus};

use super::Cluster;

impl ClusterView for Cluster {
    fn report(&self) -> ClusterReport {
        ClusterReport {
            node: self.identity.name().to_string(),
            cluster: self.identity.cluster().to_string(),
            epoch: self.identity.epoch().0,
            address: self.settings.listen.map(|address| address.to_string()),
            domain: self.settings.domain.clone(),
            membership: match self.source {
                Source::Static(_) => "list".to_owned(),
                Source::Etcd(_) => "etcd".to_owned(),
            },
            is_current: self.is_current.load(Relaxed),
            trouble: self.tending.trouble(),
            lending: self.lending.get().map(|lending| lending_report(lending.status())),
            borrowing: self.tier.as_ref().map(|tier| BorrowingReport {
                copies: self.copies as u64,
                disk: self.backing.clone(),
                ..borrowing_report(tier.status())
            }),
        }
    }

    fn forget_borrower(&self, name: &str) -> Result<ForgottenReport, AdminError> {
        forgotten(self.lending.get(), name)
    }
}

fn forgotten(lending: Option<&LendingServer>, text: &str) -> Result<ForgottenReport, AdminError> {
    let name: NodeName = text.parse().map_err(|error: NameError| AdminError::Invalid(error.to_string()))?;
    let nothing =
        || AdminError::NotFound(format!("{name} has nothing here; `tmem cluster status` lists who has"));
    let forgotten = lending.ok_or_else(nothing)?.forget(name).map_err(|why| match why {
        NotForgotten::Unknown => nothing(),
        NotForgotten::Connected => AdminError::Conflict(format!(
            "{name} is connected and uses what it has here; end its daemon first, which has all of it forgotten"
        )),
    })?;
    Ok(ForgottenReport { copies: forgotten.copies as u64, lent_bytes: forgotten.needed_bytes })
}

fn lending_report(status: LendingStatus) -> LendingReport {
    LendingReport {
        limit_bytes: status.limit_bytes,
        lent_bytes: status.needed_bytes,
        held_bytes: status.held_bytes,
        borrowers: status.borrowers.into_iter().map(borrower).collect(),
    }
}

fn borrower(status: BorrowerStatus) -> BorrowerReport {
    BorrowerReport {
        name: status.name.to_string(),
        address: status.address,
        lent_bytes: status.needed_bytes,
        copies: status.copies as u64,
        recalled_copies: status.recalled_copies as u64,
    }
}

fn borrowing_report(status: BorrowingStatus) -> BorrowingReport {
    let mut peers: Vec<PeerReport> = status.peers.into_iter().map(peer).collect();
    peers.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    BorrowingReport {
        extents: status.extents,
        wanting_extents: status.wanting_extents,
        lost_extents: status.lost_extents,
        repaired_copies: status.repaired_copies,
        repaired_bytes: status.repaired_bytes,
        repair_bytes_per_second: status.repair_bytes_per_second,
        is_complete: status.is_complete,
        peers,
        ..BorrowingReport::default()
    }
}

fn peer(status: PeerStatus) -> PeerReport {
    PeerReport {
        name: status.name,
        address: status.address,
        state: status.state.as_str().to_owned(),
        free_bytes: status.free_bytes,
        lent_bytes: status.lent_bytes,
        copies: status.copies,
        round_trip_p50_us: status.round_trip_p50_us.into(),
        round_trip_p99_us: status.round_trip_p99_us.into(),
        errors: status.errors,
        trouble: status.trouble,
    }
}
