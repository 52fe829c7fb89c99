//! A process that stands by to serve swap when the one that does dies.
//!
//! By then the host may have no memory left: what there could be waits to be written to the very device that nobody serves. So everything that can
//! be had ahead is: what a process must be that serves swap, free memory in the heap, stacks of the threads to come, buffers of the queues. What
//! cannot, the kernel's own (page tables, threads, rings), is to find the memory that is held in reserve until then.

use std::{
    io,
    sync::{Arc, Barrier},
    thread,
};

use crate::{
    buffers::{Mapping, make_ahead},
    error::UblkError,
    locked_memory,
    options::{MAX_REQUEST_BYTES, QUEUE_DEPTH},
    process,
};

/// What opening a store takes of the heap, in queues' shares of it.
const OPENING: u16 = 12;
/// Threads beside the queues': stock, background, sizing, heartbeat, write-back and one more.
const OTHER_THREADS: u16 = 6;
/// The allocator keeps stacks of 40 MiB in all for threads to come, and each of them is 2 MiB, touched or not.
const MOST_STACKS: u16 = 18;
/// What is given back to the kernel, in parts: each step of taking over finds some, whoever else is waiting.
const RESERVE_PART_BYTES: usize = 2 << 20;
const RESERVE_PARTS: usize = 6;

/// Memory that the kernel gets back.
#[derive(Debug, Default)]
pub struct Reserve {
    parts: Vec<Mapping>,
}

impl Reserve {
    /// Gives a part of it back. What is left goes when this is dropped.
    pub fn give_back_some(&mut self) {
        drop(self.parts.pop());
    }
}

/// Makes this process, which has one thread, ready to take over devices with so many queues in all.
///
/// # Errors
/// The process may not serve swap, or there is no memory for it.
pub fn stand_by(queues: u16) -> Result<Reserve, UblkError> {
    process::prepare_process()?;
    process::make_fit(queues.saturating_add(OPENING))?;
    locked_memory::touch_stack();
    let memory = |error| UblkError::Memory { error };
    make_stacks(queues.saturating_add(OTHER_THREADS).min(MOST_STACKS))
        .map_err(|error| UblkError::Thread { error })?;
    for _ in 0..queues {
        make_ahead(QUEUE_DEPTH, MAX_REQUEST_BYTES as usize).map_err(memory)?;
    }
    let parts = (0..RESERVE_PARTS).map(|_| Mapping::populated(RESERVE_PART_BYTES));
    Ok(Reserve { parts: parts.collect::<io::Result<_>>().map_err(memory)? })
}

/// Has so many threads run at the same time, and touch their stacks. The C library keeps those for the next threads, and since they are locked, the
/// kernel takes nothing of them back.
fn make_stacks(threads: u16) -> io::Result<()> {
    let barrier = Arc::new(Barrier::new(usize::from(threads) + 1));
    let mut running = Vec::new();
    for _ in 0..threads {
        let barrier = Arc::clone(&barrier);
        running.push(thread::Builder::new().spawn(move || {
            locked_memory::touch_stack();
            barrier.wait();
        })?);
    }
    barrier.wait();
    for thread in running {
        // They do nothing that could panic.
        let _ = thread.join();
    }
    Ok(())
}
