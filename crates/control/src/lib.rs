//! Control plane of tmem: the configuration, the documents that describe the daemon's state, the admin API that
//! serves and changes it, and the client that the command line uses.
//!
//! This crate knows the store's counters but no transport. What a disk is made of is behind [`DiskService`], which
//! the binary implements.
//!
//! | module | one job |
//! |---|---|
//! | [`ByteSize`] | sizes as people write them |
//! | [`DiskName`] | names that are safe everywhere a disk's name goes |
//! | [`DedupChoice`] | with whose pages a disk's may share memory |
//! | [`NbdAddress`], [`NbdTls`] | where disks are exported over NBD, and the files that TLS takes |
//! | [`Config`] | the TOML file |
//! | [`Recompress`] and the like | what it says of background work |
//! | [`MaxCompressed`] | how well a page must compress to be kept |
//! | [`TierMode`], [`WriteBackAge`] | when pages go to the tier |
//! | [`RedisPrefix`], [`RedisExpiry`], [`RedisReplicas`] | how they are kept where the tier is Redis |
//! | [`Sandbox`] | whether the process that serves confines itself |
//! | [`SpareWorker`] | whether another one stands by for it |
//! | [`Knobs`] | settings that can be changed while the daemon runs |
//! | `client_knobs` | those of single clients among them |
//! | [`ClientChanges`] | what can be changed of a client |
//! | [`DiskService`] | disks, as the admin API sees them |
//! | [`BalanceSettings`] | what the balancer is told |
//! | [`ClusterSettings`] | what the daemon is told of the cluster |
//! | [`ClusterReport`], [`ClusterView`] | whom this node lends to, and from whom it borrows |
//! | [`BalanceReport`], [`BalanceOrder`] | what the balancer and the daemon tell each other |
//! | [`Status`] | the status document |
//! | `metrics` | the same numbers for Prometheus |
//! | [`Dashboard`] | the same numbers for a browser, as charts |
//! | `history` | what they were during the last day |
//! | `routes` | which request gets which answer |
//! | `one_line` | errors are one line |
//! | [`Server`], [`serve_stream`] | the two listeners, and one connection without them |
//! | [`AdminClient`] | the other end of the admin socket |
//! | [`ZeroOnFlush`] | whether blocks of forgotten pages are overwritten |

mod background;
mod balance_settings;
mod balancing;
mod byte_size;
mod client;
mod client_changes;
mod client_knobs;
mod cluster_report;
mod cluster_settings;
mod config;
mod dashboard;
mod dedup_choice;
mod disk_name;
mod disk_service;
mod error;
mod etcd_keys;
mod history;
mod host_memory;
mod knobs;
mod listen;
mod log_level;
mod max_compressed;
mod memory_cgroup;
mod metrics;
mod nbd_address;
mod nbd_tls;
mod on_off;
mod one_line;
mod pool_ceiling;
mod pool_size;
mod pool_sizing;
mod reaction;
mod redis_settings;
mod reserve;
mod routes;
mod sandbox;
mod server;
mod spare_worker;
mod status;
mod succession;
mod tier_settings;
mod written;
mod zero_on_flush;

pub use background::{BackgroundCpu, Recompress, RecompressAge, RecompressLevel};
pub use balance_settings::{
    BalanceSettings, Budget, GuestAddress, GuestParts, GuestSpec, IdlePressure, IdleSwapIns, Interval,
    Percent, PolicyName, Step, check_names,
};
pub use balancing::{
    BalanceDecision, BalanceOrder, BalanceOrders, BalanceReport, BalancedGuest, LimitChanges, NumberedOrder,
    StopHow,
};
pub use byte_size::ByteSize;
pub use client::AdminClient;
pub use client_changes::ClientChanges;
pub use cluster_report::{
    BorrowerReport, BorrowingReport, ClusterReport, ClusterView, ForgottenReport, LendingReport, PeerReport,
};
pub use cluster_settings::{ClusterCopies, ClusterSettings, EncryptPages, Lend};
pub use config::{Config, MAX_POLL_US, poll_us};
pub use dashboard::Dashboard;
pub use dedup_choice::DedupChoice;
pub use disk_name::DiskName;
pub use disk_service::{
    AdminError, DiskFormat, DiskInfo, DiskList, DiskService, DiskSpec, Frontend, TRANSPORT_NBD,
    TRANSPORT_UBLK, TRANSPORT_VHOST_USER_BLK,
};
pub use error::ControlError;
pub use history::Span as DashboardSpan;
pub use host_memory::{HostMemory, WholeHost, free_memory_bytes, host_memory_bytes};
pub use knobs::{KnobChanges, KnobInfo, KnobList, KnobValues, Knobs};
pub use listen::HttpListen;
pub use log_level::LogLevel;
pub use max_compressed::MaxCompressed;
pub use metrics::encode as encode_metrics;
pub use nbd_address::NbdAddress;
pub use nbd_tls::NbdTls;
pub use pool_ceiling::PoolCeiling;
pub use pool_size::PoolSize;
pub use pool_sizing::{PoolSizing, look_within};
pub use reaction::Reaction;
pub use redis_settings::{RedisExpiry, RedisPrefix, RedisReplicas};
pub use reserve::Reserve;
pub use routes::Control;
pub use sandbox::Sandbox;
pub use server::{ADMIN_SOCKET, Access, Server, serve_stream};
pub use spare_worker::SpareWorker;
pub use status::{ClientStatus, DiskStatus, PoolStatus, ReuseBucket, ReuseStatus, Status, TierStatus};
pub use succession::{Processes, Succession, UpgradeState, UpgradeStatus, Watchdog, WorkerDeaths};
pub use tier_settings::{TierMode, WriteBackAge};
pub use zero_on_flush::ZeroOnFlush;
