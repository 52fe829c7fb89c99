//! Decides how much memory each guest and cgroup keeps, so that a host's memory goes where it saves the most swap-ins.
//!
//! | file | job |
//! |---|---|
//! | `subject` | whom it is about, and what is known of them |
//! | `demand` | how many swap-ins more memory would have saved |
//! | `policy` | what a policy is, and the reasons it gives |
//! | `reuse`, `committed_as`, `fixed` | the three policies |
//! | `balancer` | what holds whatever a policy says |
//! | `trace` | what was seen, a line each time, and policies run over it |
//!
//! Nothing here looks at a clock or talks to anybody.

mod balancer;
mod committed_as;
mod demand;
mod fixed;
mod policy;
mod reuse;
mod subject;
mod trace;

pub use balancer::{Balancer, Verdict};
pub use committed_as::CommittedAs;
pub use demand::Demand;
pub use fixed::Static;
pub use policy::{Decision, Policy, Reason};
pub use reuse::{Reuse, ReuseOptions};
pub use subject::{Limits, Report, Scene, Subject};
pub use trace::{TraceError, read_trace, write_scene};
