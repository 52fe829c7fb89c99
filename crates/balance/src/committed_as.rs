//! The policy `committed-as`: what Xen's self-ballooning did, as in `drivers/xen/xen-selfballoon.c` of Linux 3.1 to 5.2.
//!
//! Each guest goes by its own numbers alone. Its goal is what its programs have asked for (`Committed_AS`), the kernel's reserve, and what it
//! has swapped out to the pool, which is to come back. It goes up to the goal at once, and down an eighth of the way every five seconds. The
//! driver ran in the guest; this runs where the balancer does, from what the guest reports.

use crate::{
    policy::{Decision, Policy, Reason},
    subject::{Scene, Subject},
};

const MIB: u64 = 1 << 20;
/// `selfballoon_downhysteresis`.
const DOWN: u64 = 8;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommittedAs;

impl Policy for CommittedAs {
    fn name(&self) -> &'static str {
        "committed-as"
    }

    fn decide(&mut self, scene: &Scene) -> Vec<Decision> {
        scene.subjects.iter().map(decide).collect()
    }
}

fn decide(subject: &Subject) -> Decision {
    let size_bytes = subject.size_bytes;
    let committed = subject.report.and_then(|report| report.committed_bytes);
    let Some(committed_bytes) = committed else {
        return Decision { target_bytes: size_bytes, reason: Reason::Uncommitted };
    };
    let reserve_bytes = reserve_bytes(subject.limits.ceiling_bytes);
    let goal_bytes = committed_bytes.saturating_add(reserve_bytes).saturating_add(subject.swapped_bytes);
    let target_bytes = match size_bytes.checked_sub(goal_bytes) {
        Some(more) => size_bytes - more / DOWN,
        None => goal_bytes,
    };
    let floor_bytes = floor_bytes(subject.limits.ceiling_bytes, reserve_bytes);
    Decision { target_bytes: target_bytes.max(floor_bytes), reason: Reason::Committed { goal_bytes } }
}

/// The kernel's `totalreserve_pages`, which a guest does not report: its high watermarks and what lower zones keep. About a 64th of a small guest's
/// memory, 2 MiB at least.
fn reserve_bytes(ceiling_bytes: u64) -> u64 {
    (ceiling_bytes / 64).max(2 * MIB)
}

/// The driver's least size: piecewise linear in what the guest has at most, less the reserve.
fn floor_bytes(ceiling_bytes: u64, reserve_bytes: u64) -> u64 {
    let useful_bytes = ceiling_bytes.saturating_sub(reserve_bytes);
    let above = |mib: u64| useful_bytes.saturating_sub(mib * MIB);
    match useful_bytes / MIB {
        0..16 => ceiling_bytes,
        16..64 => reserve_bytes + 16 * MIB + above(16) / 2,
        64..512 => reserve_bytes + 40 * MIB + above(40) / 8,
        _ => reserve_bytes + 99 * MIB + above(99) / 32,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::subject::{Limits, Report};

    fn decided(size_mib: u64, committed_mib: Option<u64>, swapped_mib: u64) -> Decision {
        let subject = Subject {
            name: "vm".to_owned(),
            limits: Limits { floor_bytes: 0, ceiling_bytes: 1024 * MIB, weight: 100 },
            size_bytes: size_mib * MIB,
            demand: None,
            swapped_bytes: swapped_mib * MIB,
            report: Some(Report { committed_bytes: committed_mib.map(|mib| mib * MIB), ..Report::default() }),
            cpus: Some(0.5),
            answers: true,
        };
        let scene = Scene { at: Duration::ZERO, budget_bytes: u64::MAX, subjects: vec![subject] };
        CommittedAs.decide(&scene).remove(0)
    }

    #[test]
    fn up_at_once_and_down_by_an_eighth() {
        // The reserve of a guest with 1 GiB is 16 MiB here.
        assert_eq!(decided(300, Some(500), 50).target_bytes, 566 * MIB);
        assert_eq!(decided(816, Some(400), 0).target_bytes, 766 * MIB);
        assert_eq!(decided(416, Some(400), 0).target_bytes, 416 * MIB);
        assert_eq!(decided(300, None, 0), Decision { target_bytes: 300 * MIB, reason: Reason::Uncommitted });
    }

    #[test]
    fn the_floor_is_the_drivers() {
        let floor = |ceiling: u64, reserve: u64| floor_bytes(ceiling * MIB, reserve * MIB) / MIB;
        assert_eq!([floor(15, 0), floor(16, 0), floor(63, 0)], [15, 16, 39]);
        assert_eq!([floor(64, 0), floor(511, 0)], [43, 98]);
        assert_eq!([floor(512, 0), floor(4196, 1), floor(99 + 32 * 64, 0)], [111, 100 + 128, 99 + 64]);
        assert!(decided(150, Some(1), 0).target_bytes > 140 * MIB, "never below it at once");
    }
}
