//! Lends this host's idle memory: takes connections of borrowers, and does what they ask.
//!
//! A thread for each connection carries out what comes in its order and answers in few writes: what has come together is answered together. It has the borrower's
//! copies to itself but for two others, which take the same lock for microseconds: one that watches the host's memory, says which copies are asked
//! back, and drops them; and one that moves copies together. Neither ever waits for a peer.
//!
//! | file | job |
//! |---|---|
//! | `gate` | takes connections, and finds out who is there |
//! | `seats` | which node is connected, and what it is to be told |
//! | `serving` | carries out what one borrower asks |
//! | `outgoing` | answers that are about to be sent |
//! | `watching` | the host's memory, and copies that are moved together |
//! | `status` | who has how much, for people |

mod gate;
mod outgoing;
mod seats;
mod serving;
mod status;
mod watching;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tmem_cluster::{
    NodeName,
    lender::{Lender, lock},
};

use crate::{bell::Bell, clock::Clock, greeting::Identity, stream::Security};
use gate::Gate;
use seats::Seats;
pub use status::{BorrowerStatus, LendingCounts, LendingStatus};

/// How often it is looked at the end whether borrowers have taken what is theirs.
const LOOK_UP: Duration = Duration::from_millis(20);

/// How much is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LendingOptions {
    /// The most that is lent, in bytes.
    pub max_bytes: u64,
    /// What stays available on this host, in bytes: when there is less, copies are asked back.
    pub reserve_bytes: u64,
    /// How long borrowers have to take elsewhere what is asked back.
    pub deadline: Duration,
}

impl Default for LendingOptions {
    fn default() -> Self {
        Self { max_bytes: u64::MAX, reserve_bytes: 0, deadline: Duration::from_secs(10) }
    }
}

/// What a node had that was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Copies of extents.
    pub copies: usize,
    /// Bytes of them that it needed.
    pub needed_bytes: u64,
}

/// Why nothing of a node was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForgotten {
    /// It is connected, and uses what it has.
    Connected,
    /// It has nothing here.
    Unknown,
}

/// What all of its threads have.
struct Shared {
    identity: Identity,
    security: Security,
    options: LendingOptions,
    lender: Lender,
    seats: Seats,
    clock: Clock,
    is_over: AtomicBool,
    /// [`LendingOptions::reserve_bytes`], as it is now.
    reserve_bytes: AtomicU64,
    /// Nothing is lent any more: all copies are asked back.
    is_winding_down: AtomicBool,
    /// Rung when copies should be moved together, and at the end.
    cleaning: Bell,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// The lender's clock.
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

/// Lends memory until it is dropped. What it holds is its lender's: memory that another process can go on with, in the same epoch, if somebody keeps it;
/// otherwise it is gone then, and the next one needs a later epoch.
pub struct LendingServer {
    shared: Arc<Shared>,
    listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for LendingServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LendingServer({})", self.shared.identity.name)
    }
}

impl LendingServer {
    /// Lends to whoever connects to `listener` and is of the cluster, and what `lender` has to those whose it is. `available_bytes` says how much memory could be had on this host now, without swapping and
    /// without what is lent; it is asked ten times a second.
    ///
    /// # Errors
    /// No threads.
    pub fn start(
        listener: TcpListener,
        identity: Identity,
        security: Security,
        options: LendingOptions,
        lender: Lender,
        available_bytes: impl Fn() -> u64 + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            identity,
            security,
            reserve_bytes: AtomicU64::new(options.reserve_bytes),
            options,
            lender,
            seats: Seats::default(),
            clock: Clock::start(),
            is_over: AtomicBool::new(false),
            is_winding_down: AtomicBool::new(false),
            cleaning: Bell::default(),
        });
        let accepting = listener.try_clone()?;
        let mut server = Self { shared: Arc::clone(&shared), listener, threads: Vec::new() };
        // There is something to offer before the first one asks.
        watching::look(&shared, &available_bytes);
        let watched = Arc::clone(&shared);
        server.spawn("lend-watch", move || watching::watch(&watched, available_bytes))?;
        let cleaned = Arc::clone(&shared);
        server.spawn("lend-clean", move || watching::clean(&cleaned))?;
        server.spawn("lend-accept", move || Gate::new(shared).run(&accepting))?;
        Ok(server)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is none any more.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Leaves another amount to this host than [`LendingOptions::reserve_bytes`] said.
    pub fn set_reserve_bytes(&self, bytes: u64) {
        self.shared.reserve_bytes.store(bytes, SeqCst);
    }

    /// How much may still be lent, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.shared.lender.free_bytes()
    }

    /// Takes no more copies, asks all back, and waits until borrowers that are connected have taken theirs elsewhere, so long at most. Gives
    /// whether they have.
    pub fn wind_down(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        self.shared.is_winding_down.store(true, SeqCst);
        let mut is_said = false;
        loop {
            let status = self.status();
            let here = status.borrowers.iter().filter(|borrower| borrower.address.is_some());
            let copies: usize = here.map(|borrower| borrower.copies).sum();
            if copies == 0 || Instant::now() >= deadline {
                return copies == 0;
            }
            if !std::mem::replace(&mut is_said, true) {
                log::info!(
                    "lending: {copies} copies of others are here; {} s to take them elsewhere",
                    most.as_secs()
                );
            }
            thread::sleep(LOOK_UP);
        }
    }

    /// Forgets what a node has here that is not connected, as one that will not come back. Gives what it was. If it does come back, it has lost that.
    ///
    /// # Errors
    /// It is connected, or has nothing.
    pub fn forget(&self, name: NodeName) -> Result<Forgotten, NotForgotten> {
        let shared = &self.shared;
        let forgotten = shared.seats.while_away(name.node_id(), || shared.lender.forget(name.node_id()));
        let holding = forgotten.ok_or(NotForgotten::Connected)?.ok_or(NotForgotten::Unknown)?;
        let usage = lock(&holding).usage();
        let forgotten = Forgotten { copies: usage.copies, needed_bytes: usage.needed_bytes };
        log::info!("lending: {} copies of {name} are forgotten by command", forgotten.copies);
        Ok(forgotten)
    }

    /// Who has how much.
    pub fn status(&self) -> LendingStatus {
        status::of(&self.shared)
    }
}

impl Drop for LendingServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        self.shared.cleaning.ring();
        // Whoever waits for connections returns.
        if let Err(error) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            log::warn!("lending: the listening socket could not be shut down: {error}");
        }
        self.shared.seats.end_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("lending: a thread panicked");
            }
        }
        self.shared.seats.wait_until_empty();
    }
}
