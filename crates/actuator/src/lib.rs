//! Asks guests and cgroups how much memory they have and what they say of it, and tells them how much to keep. Decides nothing.
//!
//! | file | job |
//! |---|---|
//! | `address` | where a guest is told |
//! | `guest` | one guest or cgroup, whatever it runs under |
//! | `qemu` | its balloon, over the monitor |
//! | `monitor` | QEMU's monitor protocol (QMP) |
//! | `agent` | the agent in the guest, which reads two files there |
//! | `json_lines` | what both are made of: a line of JSON each way |
//! | `cloud_hypervisor`, `firecracker` | their balloons, over REST |
//! | `rest` | one HTTP request on a Unix socket |
//! | `cgroup`, `reclaim` | a cgroup of version 2 |
//! | `cpu_time` | whether a guest does anything, as the host counts |
//! | `freshness` | whether what a guest said is of now |
//! | `kernel_text` | numbers in texts of the kernel |
//! | `limits` | what is too late, too long and too much |
//! | `error` | what goes wrong |
//!
//! Everybody here is a stranger: a monitor may hang, die, answer garbage or without end, a guest may lie. So every call has a time limit,
//! every answer a size limit, and every number is checked.

mod address;
mod agent;
mod cgroup;
mod cloud_hypervisor;
mod cpu_time;
mod error;
mod firecracker;
mod freshness;
mod guest;
mod json_lines;
mod kernel_text;
mod limits;
mod monitor;
mod qemu;
mod reclaim;
mod rest;

pub use address::Address;
pub use error::ActuatorError;
pub use guest::{Guest, Seen};
