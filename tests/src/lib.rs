//! The harness of the end-to-end tests: real daemons, real guests, real programs in them.
//!
//! | file | job |
//! |---|---|
//! | `places` | where the binary, the guests' kernel and the programs are |
//! | `process` | a child whose output is watched, and that never outlives its test |
//! | `daemon` | `tmem serve` in a directory of its own, and the commands that talk to it |
//! | `terminal` | a terminal whose screen can be read, with a program in it |
//! | `tool` | programs that are run to their end |
//! | `namespace`, `certificates` | a network of a test's own, and TLS in it |
//! | `network` | several hosts at a switch, whose cables can be pulled |
//! | `cluster` | hosts that lend each other memory, and a client that knows what every page has to be |
//! | `chromium` | a browser, told what to do over the DevTools protocol |
//! | `checker` | builds `guest/check_pages.c`, which compares every byte it swapped, and other programs for guests |
//! | `beyond_memory` | a guest that needs more memory than it and the pool have |
//! | `uml` | boots User-Mode Linux on the host's file system |
//! | `random` | numbers that follow from a seed |
//! | `soak` | clients of daemons that go wrong on purpose, which know what each page may read as |
//! | `rebalance` | guests of the wrong sizes, and whether a policy makes them right |
//! | `qemu`, `initramfs` | boots a 6.12 kernel in QEMU, on an archive made here |
//!
//! The tests are in `tests/`. They take the `tmem` binary that lies beside them in the target folder, or the one
//! that `TMEM_BINARY` names: cargo does not build it for them, `scripts/test` does. It also installs the packages
//! they need and fetches the kernel. Where something is missing a test fails and says so.

mod beyond_memory;
mod certificates;
mod checker;
mod chromium;
mod cluster;
mod daemon;
mod initramfs;
mod namespace;
mod network;
mod places;
mod process;
mod qemu;
mod random;
pub mod rebalance;
mod redis;
pub mod soak;
mod terminal;
mod tool;
mod uml;

pub use beyond_memory::BeyondMemory;
pub use certificates::Certificates;
pub use checker::{build_checker, build_guest_program};
pub use chromium::Chromium;
pub use cluster::{ClusterHosts, Etcd, Membership, Tally, Traffic};
pub use daemon::{Answer, Daemon};
pub use namespace::{FOREIGN_ADDRESS, Namespace};
pub use network::Network;
pub use process::Process;
pub use qemu::{QemuGuest, kernel_and_initramfs};
pub use random::Random;
pub use redis::RedisServer;
pub use terminal::Terminal;
pub use tool::{fail, succeed, tool};
pub use uml::UmlGuest;

/// Memory of a guest in these tests, in MiB: little, so that swapping starts early.
pub const GUEST_MEMORY_MIB: u64 = 192;
