//! Whether a node may take its name, and in which epoch.

use std::net::SocketAddr;

use tmem_cluster::Epoch;

use super::records::{EpochRecord, NodeRecord};
use crate::identity::Life;

/// Who wants the name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) address: SocketAddr,
    pub(crate) life: Life,
    pub(crate) lease: i64,
    /// It has had the name since it was started.
    pub(crate) had_it: bool,
}

/// The node's key.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) lease: i64,
    /// `None`: it cannot be read.
    pub(crate) record: Option<NodeRecord>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The name may be taken in the claimant's epoch.
    Granted,
    /// Somebody else has it.
    Taken(Option<SocketAddr>),
    /// The claimant's epoch is over: it has to begin another one.
    Over {
        /// The first that it may begin.
        at_least: Epoch,
    },
}

/// Decides on a claim, given the two keys of the name as they are.
///
/// A lease that ran out ends no epoch by itself: what the node holds is still what others put there, and every copy is named by a writing that
/// is never used again. An epoch ends when a later one was begun or written down.
pub(crate) fn decide(claimant: Claimant<'_>, holder: Option<&Holder>, epoch: Option<&EpochRecord>) -> Claim {
    if let Some(holder) = holder.filter(|holder| !is_claimants(claimant, holder)) {
        return Claim::Taken(holder.record.as_ref().map(|record| record.address));
    }
    match epoch {
        Some(record) if record.is(claimant.life) => Claim::Granted,
        Some(record) if record.epoch >= claimant.life.epoch.0 => {
            Claim::Over { at_least: Epoch(record.epoch.saturating_add(1)) }
        }
        _ => Claim::Granted,
    }
}

/// A key of the claimant's own lease, or one that the process before it left: of the same directory, at the same address. A copy of the
/// directory on another host is at another one. Of the same host, who had the name and lost it does not take it back.
fn is_claimants(claimant: Claimant<'_>, holder: &Holder) -> bool {
    let is_left = |record: &NodeRecord| record.nonce == claimant.nonce && record.address == claimant.address;
    holder.lease == claimant.lease || (!claimant.had_it && holder.record.as_ref().is_some_and(is_left))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { epoch: Epoch(9), drawn: 1 };

    fn claimant(had_it: bool) -> Claimant<'static> {
        let address = "10.0.0.1:7790".parse().unwrap();
        Claimant { nonce: "own", address, life: LIFE, lease: 5, had_it }
    }

    fn holder(lease: i64, nonce: &str, address: &str) -> Holder {
        let record = NodeRecord {
            address: address.parse().unwrap(),
            domain: None,
            epoch: 9,
            free_bytes: 0,
            version: String::new(),
            nonce: nonce.to_owned(),
        };
        Holder { lease, record: Some(record) }
    }

    #[test]
    fn a_name_is_taken_by_one() {
        let (here, there) = ("10.0.0.1:7790", "10.0.0.2:7790");
        let free = Claim::Granted;
        let taken = |address: &str| Claim::Taken(Some(address.parse().unwrap()));
        for (holder, had_it, claim) in [
            (None, true, free.clone()),
            (Some(holder(5, "own", here)), true, free.clone()),
            (Some(holder(4, "own", here)), false, free),
            // Another process of this host came after this one.
            (Some(holder(6, "own", here)), true, taken(here)),
            // A copy of this host's directory.
            (Some(holder(4, "own", there)), false, taken(there)),
            (Some(holder(4, "other", here)), false, taken(here)),
            (Some(Holder { lease: 0, record: None }), false, Claim::Taken(None)),
        ] {
            assert_eq!(decide(claimant(had_it), holder.as_ref(), None), claim, "{holder:?}");
        }
    }

    #[test]
    fn an_epoch_goes_on_unless_a_later_one_was_begun() {
        let record = |epoch, drawn| EpochRecord::of(Life { epoch: Epoch(epoch), drawn });
        for (epoch, claim) in [
            (record(9, 1), Claim::Granted),
            (record(8, 7), Claim::Granted),
            (record(9, 2), Claim::Over { at_least: Epoch(10) }),
            (record(12, 1), Claim::Over { at_least: Epoch(13) }),
            (EpochRecord { epoch: 9, drawn: String::new() }, Claim::Over { at_least: Epoch(10) }),
        ] {
            assert_eq!(decide(claimant(true), None, Some(&epoch)), claim, "{epoch:?}");
        }
        assert_eq!(decide(claimant(true), None, None), Claim::Granted);
    }
}
