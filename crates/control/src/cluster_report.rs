//! What a node of a cluster says of itself: whom it lends to, and from whom it borrows.

use serde::{Deserialize, Serialize};

use crate::AdminError;

/// The cluster as this node sees it. Sizes are in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterReport {
    /// The node's name.
    pub node: String,
    /// The cluster's identity, in hexadecimal digits.
    pub cluster: String,
    /// The stretch of the node's life that it is in: what it lent in earlier ones is gone.
    pub epoch: u64,
    /// Where it lends, as IP:PORT; null where it only borrows.
    pub address: Option<String>,
    /// What fails together with it; null: nothing else does.
    pub domain: Option<String>,
    /// Who says who is in the cluster: `list` or `etcd`.
    pub membership: String,
    /// Whether what is known of who is there is so now. If not, it was so when it was last known.
    pub is_current: bool,
    /// What is wrong with that, for people.
    pub trouble: Option<String>,
    /// What others have here; null where it only borrows.
    pub lending: Option<LendingReport>,
    /// What it has at others; null where it only lends.
    pub borrowing: Option<BorrowingReport>,
}

/// What others have here.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LendingReport {
    /// The most that all of them may have at this moment.
    pub limit_bytes: u64,
    /// Blocks that they need.
    pub lent_bytes: u64,
    /// Memory that this takes, with what is dead in it and all that is known of it.
    pub held_bytes: u64,
    /// One for each node that has something here or is connected, by name.
    pub borrowers: Vec<BorrowerReport>,
}

/// A node that borrows from this one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BorrowerReport {
    /// Its name.
    pub name: String,
    /// Where it is connected from; null where it is not.
    pub address: Option<String>,
    /// Blocks that it needs.
    pub lent_bytes: u64,
    /// Copies of extents.
    pub copies: u64,
    /// Those of them that it was asked to take back.
    pub recalled_copies: u64,
}

/// What this node has at others.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BorrowingReport {
    /// On how many other nodes each extent is to be.
    pub copies: u64,
    /// The tier on this node's disk that has a copy of each as well; null where there is none.
    pub disk: Option<String>,
    /// Extents that peers have, or are about to get.
    pub extents: u64,
    /// Those of them with fewer copies than they should have: repair goes on.
    pub wanting_extents: u64,
    /// Those of them that nobody has any more: gets of their pages are I/O errors.
    pub lost_extents: u64,
    /// Copies made anew since the start.
    pub repaired_copies: u64,
    /// What they had.
    pub repaired_bytes: u64,
    /// What repair fetches a second now.
    pub repair_bytes_per_second: u64,
    /// Whether all peers have said what they have: until then what nobody is known to have may be there.
    pub is_complete: bool,
    /// One for each node that lends, by name.
    pub peers: Vec<PeerReport>,
}

/// A node that this one borrows from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerReport {
    /// Its name.
    pub name: String,
    /// Where it lends.
    pub address: String,
    /// `connected` or `away`.
    pub state: String,
    /// What may still be borrowed from it, as it said last.
    pub free_bytes: u64,
    /// What this node has there, as it said last.
    pub lent_bytes: u64,
    /// Copies of extents that it has.
    pub copies: u64,
    /// The middle one of the last reads from it, in microseconds; 0: none yet.
    pub round_trip_p50_us: u64,
    /// What 99 of 100 of the last reads from it did not exceed, in microseconds; 0: none yet.
    pub round_trip_p99_us: u64,
    /// What it did not answer as it should, so far.
    pub errors: u64,
    /// What went wrong last, if it still matters.
    pub trouble: Option<String>,
}

/// What a node had here that was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ForgottenReport {
    /// Copies of extents.
    pub copies: u64,
    /// Blocks of them that it needed.
    pub lent_bytes: u64,
}

/// Whoever knows how the cluster is.
pub trait ClusterView: Send + Sync {
    /// How it is now.
    fn report(&self) -> ClusterReport;

    /// Forgets what a node has here that is not connected.
    ///
    /// # Errors
    /// That is no name, it is connected, or it has nothing here.
    fn forget_borrower(&self, name: &str) -> Result<ForgottenReport, AdminError>;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of a node that lends to `b` and to one that is not connected, and borrows from `b` and from `c`, which is away.
    pub(crate) fn sample() -> ClusterReport {
        let borrower = BorrowerReport {
            name: "b".to_owned(),
            address: Some("10.0.0.2:40000".to_owned()),
            lent_bytes: 500,
            copies: 5,
            recalled_copies: 2,
        };
        let gone = BorrowerReport { name: "gone".to_owned(), lent_bytes: 100, ..BorrowerReport::default() };
        let peer = PeerReport {
            name: "b".to_owned(),
            address: "10.0.0.2:7070".to_owned(),
            state: "connected".to_owned(),
            free_bytes: 21,
            lent_bytes: 22,
            copies: 23,
            round_trip_p50_us: 45,
            round_trip_p99_us: 120,
            errors: 24,
            trouble: None,
        };
        let away = PeerReport {
            name: "c".to_owned(),
            address: "10.0.0.3:7070".to_owned(),
            state: "away".to_owned(),
            trouble: Some("connection refused".to_owned()),
            ..PeerReport::default()
        };
        ClusterReport {
            node: "a".to_owned(),
            cluster: "c0ffee".to_owned(),
            epoch: 7,
            address: Some("10.0.0.1:7070".to_owned()),
            domain: Some("rack1".to_owned()),
            membership: "etcd".to_owned(),
            is_current: true,
            trouble: None,
            lending: Some(LendingReport {
                limit_bytes: 1000,
                lent_bytes: 600,
                held_bytes: 630,
                borrowers: vec![borrower, gone],
            }),
            borrowing: Some(BorrowingReport {
                copies: 2,
                disk: Some("/srv/tier".to_owned()),
                extents: 90,
                wanting_extents: 3,
                lost_extents: 1,
                repaired_copies: 11,
                repaired_bytes: 12,
                repair_bytes_per_second: 13,
                is_complete: false,
                peers: vec![peer, away],
            }),
        }
    }

    #[test]
    fn it_comes_back_as_it_went_and_what_is_not_said_is_nothing() {
        let text = serde_json::to_string(&sample()).expect("json");
        assert_eq!(serde_json::from_str::<ClusterReport>(&text).expect("a report"), sample());
        let bare: ClusterReport = serde_json::from_str("{\"node\":\"x\",\"later\":1}").expect("a report");
        assert_eq!(bare, ClusterReport { node: "x".to_owned(), ..ClusterReport::default() });
    }
}
