//! Benchmarks of tmem against its peers.
//!
//! [`vhost`] is the load generator behind `tmem bench vhost`. It knows nothing of tmem: it drives whatever serves a
//! vhost-user-blk socket, so that a rival gets exactly the same requests. The scripts beside this crate (`bench/vhost`,
//! `bench/uml-swap-in`, `bench/idle`) start rival and tmem in turn and print both.

mod sample;
pub mod vhost;
