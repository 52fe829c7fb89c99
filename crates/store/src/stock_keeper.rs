//! The thread that finds memory ahead of the puts that need it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{engine::Engine, patient_lock::touch_stack, stock::ASK_AGAIN_AFTER, store::Store};

/// While nothing is taken the stock is looked at so often, to give back what it does not need.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A running thread that finds the memory which the next puts will need, and gives back what they did not.
///
/// As long as it runs, puts leave finding memory to it and never ask the OS themselves: a put that finds nothing prepared waits while
/// the thread gets memory, and when it got none for 250 ms does with what the store holds, or is refused. Without it a put has the OS find memory as it needs it.
/// Dropping it ends the thread and gives back what was found ahead.
#[derive(Debug)]
pub struct StockKeeper {
    store: Arc<Store>,
    is_ended: Arc<AtomicBool>,
    has_found: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StockKeeper {
    /// Starts the thread. `available_bytes` says how much memory the host can spare just now: the OS is never asked for more. It is
    /// asked before anything is found, which can be thousands of times a second.
    ///
    /// # Errors
    /// The OS gives no thread.
    pub fn start(
        store: Arc<Store>,
        mut available_bytes: impl FnMut() -> u64 + Send + 'static,
    ) -> io::Result<Self> {
        let is_ended = Arc::new(AtomicBool::new(false));
        let has_found = Arc::new(AtomicBool::new(false));
        let (of_thread, ended, found) = (Arc::clone(&store), Arc::clone(&is_ended), Arc::clone(&has_found));
        store.engine().begin_stock();
        let thread = thread::Builder::new().name("stock".to_owned()).spawn(move || {
            touch_stack();
            let engine = Keeping(of_thread.engine());
            let mut wait = Duration::ZERO;
            while !ended.load(Ordering::Acquire) {
                engine.0.stock.wait_for_want(wait);
                engine.0.stock.note_asking();
                let is_stocked = engine.0.stock_up(available_bytes());
                engine.0.stock.note_asked();
                if is_stocked {
                    found.store(true, Ordering::Release);
                }
                wait = if is_stocked { LOOK_EVERY } else { ASK_AGAIN_AFTER };
            }
        });
        match thread {
            Ok(thread) => Ok(Self { store, is_ended, has_found, thread: Some(thread) }),
            Err(error) => {
                store.engine().end_stock();
                Err(error)
            }
        }
    }

    /// Whether it has found all that the first puts need. On a busy machine that can take longer than a put waits.
    pub fn has_found(&self) -> bool {
        self.has_found.load(Ordering::Acquire)
    }
}

/// That somebody finds memory. However the thread ends, puts find it themselves again.
struct Keeping<'a>(&'a Engine);

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        self.0.end_stock();
    }
}

impl Drop for StockKeeper {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Release);
        self.store.engine().stock.set_kept(false); // also wakes it
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
