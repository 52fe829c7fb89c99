//! Benchmarks of tmem against its peers, and the pages they take.
//!
//! [`vhost`] is the load generator behind `tmem bench vhost`. It knows nothing of tmem: it drives whatever serves a
//! vhost-user-blk socket, so that a rival gets exactly the same requests. [`nbd`] is the same for NBD servers. [`store`] is `tmem bench store`: the page store by itself,
//! beside zram. [`sample`] is `tmem sample`: the pages of a running process, which every benchmark takes. The scripts beside this
//! crate start rival and tmem in turn and print both (`bench/vhost`, `bench/nbd`, `bench/uml-swap-in`, `bench/idle`) or make a file of pages
//! (`bench/corpus`).

mod error;
mod interrupt;
mod load;
pub mod nbd;
mod page;
mod progress;
pub mod random;
pub mod sample;
pub mod store;
pub mod vhost;

pub use error::BenchError;
