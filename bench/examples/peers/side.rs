//! What every side is asked in a round, and what came of it.

use std::{sync::Barrier, thread, time::Instant};

use anyhow::{Context, Result};
use tmem_bench::random::Random;

use crate::content::Content;

/// How many reads are under way together.
pub(crate) const UNDER_WAY: usize = 32;

/// What is read and dropped in a round, by the numbers of the blocks.
pub(crate) struct Wanted {
    pub(crate) alone: Vec<usize>,
    pub(crate) together: Vec<usize>,
    pub(crate) dead: Vec<usize>,
}

/// What a round came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) pages_per_second_out: f64,
    /// Each read by itself, in nanoseconds, sorted.
    pub(crate) alone_ns: Vec<u64>,
    pub(crate) pages_per_second_in: f64,
    pub(crate) pages_per_second_by_threads: f64,
    /// Memory for all blocks, and for those that are left when a random half has died.
    pub(crate) whole: Memory,
    pub(crate) half: Memory,
}

/// Memory of one copy, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// The blocks that are needed.
    pub(crate) blocks_bytes: u64,
    /// What the server says that it takes for them.
    pub(crate) said_bytes: u64,
    /// What the process has grown by.
    pub(crate) resident_bytes: u64,
}

/// Somebody who keeps blocks elsewhere.
pub(crate) trait Side {
    fn name(&self) -> &str;

    /// Has everything forgotten.
    fn empty(&mut self) -> Result<()>;

    /// Puts all blocks: pages per second, acknowledgements included.
    fn put(&mut self) -> Result<f64>;

    /// Gets one block after the other: nanoseconds of each.
    fn get_alone(&mut self, blocks: &[usize]) -> Result<Vec<u64>>;

    /// One thread gets blocks, [`UNDER_WAY`] at a time: pages per second.
    fn get_together(&mut self, blocks: &[usize]) -> Result<f64>;

    /// [`UNDER_WAY`] threads get one block after the other: pages per second.
    fn get_by_threads(&mut self, blocks: &[usize]) -> Result<f64>;

    /// Has these blocks forgotten.
    fn release(&mut self, blocks: &[usize]) -> Result<()>;

    /// What is taken for the rest, once that does not change any more.
    fn memory(&mut self) -> Result<Memory>;
}

impl Wanted {
    pub(crate) fn draw(content: &Content, random: &mut Random, alone: usize, together: usize) -> Self {
        let count = content.blocks.len() as u64;
        let mut draw = |many: usize| (0..many).map(|_| random.below(count) as usize).collect();
        let (alone, together) = (draw(alone), draw(together / UNDER_WAY * UNDER_WAY));
        let dead = (0..content.blocks.len()).filter(|_| random.below(2) == 0).collect();
        Self { alone, together, dead }
    }
}

/// Has [`UNDER_WAY`] threads read a part of the blocks each: pages per second from the moment when all are there.
pub(crate) fn by_threads(
    blocks: &[usize],
    read_all: impl Fn(&[usize], &Barrier) -> Result<()> + Sync,
) -> Result<f64> {
    let parts: Vec<&[usize]> = blocks.chunks(blocks.len().div_ceil(UNDER_WAY).max(1)).collect();
    let (barrier, read_all) = (&Barrier::new(parts.len() + 1), &read_all);
    let took = thread::scope(|scope| {
        let threads: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || read_all(part, barrier))).collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().ok().context("a reader panicked")??;
        }
        Ok::<_, anyhow::Error>(start.elapsed())
    })?;
    Ok(blocks.len() as f64 / took.as_secs_f64())
}

/// One turn of a side.
pub(crate) fn round(side: &mut dyn Side, wanted: &Wanted) -> Result<Round> {
    side.empty()?;
    let pages_per_second_out = side.put()?;
    let mut alone_ns = side.get_alone(&wanted.alone)?;
    alone_ns.sort_unstable();
    let pages_per_second_in = side.get_together(&wanted.together)?;
    let pages_per_second_by_threads = side.get_by_threads(&wanted.together)?;
    let whole = side.memory()?;
    side.release(&wanted.dead)?;
    let half = side.memory()?;
    Ok(Round {
        pages_per_second_out,
        alone_ns,
        pages_per_second_in,
        pages_per_second_by_threads,
        whole,
        half,
    })
}
