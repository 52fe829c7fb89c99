//! Sizes, phases, and who is busy when.

use std::time::Duration;

/// Two guests that share what is enough for one of them to be busy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// From booting on, both guests have at most so much, in MiB.
    pub ceiling_mib: u64,
    /// They never have less, in MiB.
    pub floor_mib: u64,
    /// What their programs use, in MiB.
    pub working_set_mib: u64,
    /// What the guest has that is too large at first, in MiB.
    pub large_mib: u64,
    /// What the other one has, in MiB.
    pub small_mib: u64,
    /// For so long the first one is idle and the other busy, and then the other way round for as long.
    pub phase: Duration,
}

/// The guest that has too much at first.
pub const LARGE: usize = 0;
/// The guest that has too little.
pub const SMALL: usize = 1;

impl Scenario {
    /// Long enough to see a policy come to rest.
    pub fn full() -> Scenario {
        Scenario { phase: Duration::from_secs(300), ..Scenario::quick() }
    }

    /// As short as it can be.
    pub fn quick() -> Scenario {
        Scenario {
            ceiling_mib: 256,
            floor_mib: 64,
            working_set_mib: 96,
            large_mib: 208,
            small_mib: 88,
            phase: Duration::from_secs(55),
        }
    }

    /// What both have together, in MiB.
    pub fn budget_mib(&self) -> u64 {
        self.large_mib + self.small_mib
    }

    /// Sizes at the start, in MiB.
    pub fn sizes_mib(&self, arrangement: Arrangement) -> [u64; 2] {
        match arrangement {
            Arrangement::Ideal => [self.small_mib, self.large_mib],
            _ => [self.large_mib, self.small_mib],
        }
    }

    /// Who is busy in each phase.
    pub fn busy(arrangement: Arrangement) -> [usize; 2] {
        match arrangement {
            Arrangement::Ideal => [SMALL, SMALL],
            _ => [SMALL, LARGE],
        }
    }
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// The right sizes from the start, and roles that never change: as much work as there can be.
    Ideal,
    /// No balancer.
    None,
    /// A balancer that changes nothing: what it costs.
    Static,
    /// Xen's formula.
    CommittedAs,
    /// Ours.
    Reuse,
}

impl Arrangement {
    /// In the order of their runs.
    pub fn all(quick: bool) -> Vec<Arrangement> {
        if quick {
            vec![Arrangement::Static, Arrangement::Reuse]
        } else {
            vec![
                Arrangement::Ideal,
                Arrangement::None,
                Arrangement::Static,
                Arrangement::CommittedAs,
                Arrangement::Reuse,
            ]
        }
    }

    /// As people read it; that of its policy, if it has one.
    pub fn name(self) -> &'static str {
        match self {
            Arrangement::Ideal => "ideal",
            Arrangement::None => "none",
            Arrangement::Static => "static",
            Arrangement::CommittedAs => "committed-as",
            Arrangement::Reuse => "reuse",
        }
    }

    /// Whether a balancer runs.
    pub fn has_balancer(self) -> bool {
        !matches!(self, Arrangement::Ideal | Arrangement::None)
    }
}
