//! What a policy is: it sees all subjects, and says how much memory each should have.

use std::fmt;

use crate::subject::Scene;

/// Decides. Whatever it says, the [`Balancer`](crate::Balancer) keeps floors, ceilings and the budget.
pub trait Policy: Send {
    /// Its name in commands and logs.
    fn name(&self) -> &'static str;

    /// A target for each subject, in their order.
    fn decide(&mut self, scene: &Scene) -> Vec<Decision>;
}

/// How much memory a subject should have, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// In bytes.
    pub target_bytes: u64,
    /// For the log.
    pub reason: Reason,
}

/// Why a target is what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Nothing is known of it yet.
    New,
    /// Nobody counts its swap-ins.
    Uncounted,
    /// It does not answer, and is left alone.
    Silent,
    /// The policy leaves all as it is.
    Fixed,
    /// It thrashes: so many swap-ins per second, of which so many would be saved by what it gets.
    Grows {
        /// Swap-ins per second.
        swap_ins: f64,
        /// Of those, what its new memory would save.
        saved: f64,
    },
    /// It thrashes, and there is nothing to be had.
    Waits {
        /// Swap-ins per second.
        swap_ins: f64,
    },
    /// It hardly swaps in, and is tried with less.
    Probed {
        /// Swap-ins per second.
        swap_ins: f64,
    },
    /// It gives to others, who gain more by it.
    Gives {
        /// Swap-ins per second.
        swap_ins: f64,
    },
    /// All together have more than the budget.
    OverBudget,
    /// It got more a short while ago, and would go to and fro.
    Settles,
    /// It swaps in, or waits for memory, but not much.
    Content {
        /// Swap-ins per second.
        swap_ins: f64,
        /// As it says, 0 to 1.
        pressure: Option<f64>,
    },
    /// With less it thrashed a short while ago.
    HurtBelow {
        /// In bytes.
        size_bytes: u64,
    },
    /// It has not come down to what it should have yet.
    Follows,
    /// It does not come down to what it should have, and is asked again later.
    Stuck,
    /// It has its floor.
    AtFloor,
    /// It has its ceiling.
    AtCeiling,
    /// Xen's formula says so.
    Committed {
        /// `Committed_AS`, reserve and what is swapped out, in bytes.
        goal_bytes: u64,
    },
    /// It does not say what Xen's formula needs.
    Uncommitted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes >> 20;
        match self {
            Reason::New => write!(f, "new here"),
            Reason::Uncounted => {
                write!(f, "left alone: no disk of that name in the pool, so its swap-ins are not known")
            }
            Reason::Silent => write!(f, "does not answer: left alone"),
            Reason::Fixed => write!(f, "sizes are fixed"),
            Reason::Grows { swap_ins, saved } => {
                write!(f, "{swap_ins:.1} swap-ins a second, of which this saves {saved:.1}")
            }
            Reason::Waits { swap_ins } => {
                write!(f, "{swap_ins:.1} swap-ins a second, and nobody gives memory yet")
            }
            Reason::Probed { swap_ins } => write!(f, "{swap_ins:.1} swap-ins a second: tried with less"),
            Reason::Gives { swap_ins } => {
                write!(f, "{swap_ins:.1} swap-ins a second: gives to who gains more by it")
            }
            Reason::OverBudget => write!(f, "all together have more than there is"),
            Reason::Settles => write!(f, "got more a short while ago"),
            Reason::Content { swap_ins, pressure: None } => {
                write!(f, "{swap_ins:.1} swap-ins a second: kept")
            }
            Reason::Content { swap_ins, pressure: Some(pressure) } => {
                write!(f, "{swap_ins:.1} swap-ins a second, {:.1}% pressure: kept", pressure * 100.0)
            }
            Reason::HurtBelow { size_bytes } => {
                write!(f, "thrashed with {}M a short while ago", mib(size_bytes))
            }
            Reason::Follows => write!(f, "on its way"),
            Reason::Stuck => write!(f, "does not come down to its target: asked again later"),
            Reason::AtFloor => write!(f, "at its floor"),
            Reason::AtCeiling => write!(f, "at its ceiling"),
            Reason::Committed { goal_bytes } => {
                write!(f, "Committed_AS, reserve and swap are {}M", mib(goal_bytes))
            }
            Reason::Uncommitted => write!(f, "does not say what it has committed"),
        }
    }
}
