//! What is known of one extent.

use super::Ticket;
use crate::ids::{Epoch, NodeId};

/// An extent. At most one copy is on a node.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) writing: u64,
    /// Whether memory has it still.
    pub(super) is_home: bool,
    /// Those that are under way, and those that are valid. What becomes invalid is taken out.
    pub(super) copies: Vec<Copy>,
}

/// A copy at a node.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) node: NodeId,
    /// The node's when it was sent.
    pub(super) epoch: Epoch,
    pub(super) state: CopyState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyState {
    /// Under way.
    Sent(Ticket),
    /// Acknowledged.
    Held,
    /// Acknowledged, and wanted back by then.
    Recalled(u64),
}

impl Record {
    pub(super) fn new(writing: u64) -> Self {
        Self { writing, is_home: true, copies: Vec::new() }
    }

    pub(super) fn copy_at(&self, node: NodeId) -> Option<&Copy> {
        self.copies.iter().find(|copy| copy.node == node)
    }
}

impl Copy {
    pub(super) fn is_acknowledged(&self) -> bool {
        !matches!(self.state, CopyState::Sent(_))
    }

    pub(super) fn is_recalled(&self) -> bool {
        matches!(self.state, CopyState::Recalled(_))
    }
}
