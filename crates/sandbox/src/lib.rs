//! Confines a process to what it needs, for good: whoever takes it over by what it parses gains little.
//!
//! [`Confinement::apply`] is called once, when everything that takes privileges is open and before the process has threads. Four walls
//! stand behind each other, so that a hole in one is not a way out:
//!
//! | module | wall |
//! |---|---|
//! | [`User`] | a user of its own, no core dumps, no debugger |
//! | [`Capabilities`] | what is left of root's privileges, by default nothing |
//! | [`PathAccess`] | the paths that can be opened at all (Landlock), no outgoing TCP, no signals to others |
//! | [`Extras`] | the system calls that can be made (seccomp) |
//!
//! | module | one job |
//! |---|---|
//! | `confinement` | the walls in their order |
//! | `user` | users by name, and becoming one |
//! | `capabilities` | dropping capabilities |
//! | `paths` | rules for paths |
//! | `system_calls` | which system calls are allowed, refused, deadly |
//! | `filters` | and the programs for the kernel that say so |
//! | `threads` | whether there are other threads |
//! | `error` | what can go wrong |

mod capabilities;
mod confinement;
mod error;
mod filters;
mod paths;
mod system_calls;
mod threads;
mod user;

pub use capabilities::{Capabilities, Capability};
pub use confinement::{Confined, Confinement};
pub use error::SandboxError;
pub use filters::Extras;
pub use paths::{PathAccess, PathWall};
pub use user::User;
