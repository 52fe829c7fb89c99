//! Faults on purpose: a process that dies at a named place, a disk that fails, tears or waits, memory that is refused.
//!
//! Everywhere where a fault may happen there is a call of this crate. Without the feature `fault-injection` these do nothing and compile to
//! nothing. With it they do nothing either until a process is armed with a plan; then each fault comes when its dice say so,
//! and writes a line to stderr before it happens, so that whoever watches knows what was damaged.
//!
//! | module | one job |
//! |---|---|
//! | `points` | where a process can be made to die |
//! | `plan` | what a text such as `seed=7,kill=block:1/20000,tier-fail=1/50` asks for |
//! | `dice` | when the next one is due |
//! | `armed` | the plan of this process |

#[cfg(any(test, feature = "fault-injection"))]
mod armed;
#[cfg(any(test, feature = "fault-injection"))]
mod dice;
#[cfg(any(test, feature = "fault-injection"))]
mod plan;
mod points;

#[cfg(any(test, feature = "fault-injection"))]
pub use armed::{Armed, describe, flips, random};
#[cfg(any(test, feature = "fault-injection"))]
pub use plan::{Plan, PlanError};
pub use points::{Fault, Point};

/// A place where this process may die.
#[inline(always)]
pub fn pass(point: Point) {
    #[cfg(any(test, feature = "fault-injection"))]
    armed::pass(point);
    #[cfg(not(any(test, feature = "fault-injection")))]
    let _ = point;
}

/// Whether something is to fail now.
#[inline(always)]
pub fn fails(fault: Fault) -> bool {
    #[cfg(any(test, feature = "fault-injection"))]
    return armed::fails(fault);
    #[cfg(not(any(test, feature = "fault-injection")))]
    {
        let _ = fault;
        false
    }
}

/// A number below `bound`, for what is left to chance when something fails. 0 where nothing ever does.
#[inline(always)]
pub fn below(bound: u64) -> u64 {
    #[cfg(any(test, feature = "fault-injection"))]
    return armed::random() % bound.max(1);
    #[cfg(not(any(test, feature = "fault-injection")))]
    {
        let _ = bound;
        0
    }
}

/// Waits, if that is to be slow now.
#[inline(always)]
pub fn delay(fault: Fault) {
    #[cfg(any(test, feature = "fault-injection"))]
    armed::delay(fault);
    #[cfg(not(any(test, feature = "fault-injection")))]
    let _ = fault;
}

/// Says what was damaged, if this process is armed: one line on stderr that begins with `tmem: fault: `.
#[inline(always)]
pub fn say(what: std::fmt::Arguments<'_>) {
    #[cfg(any(test, feature = "fault-injection"))]
    armed::say(what);
    #[cfg(not(any(test, feature = "fault-injection")))]
    let _ = what;
}
