//! One round: every step once, on an empty store, an empty zram device and bare LZ4 in turns.

use super::{
    drive::{Driver, shuffled},
    keeper::Keeper,
    lz4::Lz4,
    recompressed::ratio_recompressed,
    report::AfterFlush,
    resident::{forget_peak, resident},
    timing::Latencies,
    tmem::Tmem,
    zram::Zram,
};
use crate::error::BenchError;
use tmem_store::Dedup;

/// The times of each step, of all rounds together.
pub(super) struct Times {
    pub(super) tmem_put: Latencies,
    pub(super) tmem_get: Latencies,
    pub(super) tmem_get_recompressed: Latencies,
    pub(super) tmem_overwrite: Latencies,
    pub(super) tmem_flush: Latencies,
    pub(super) zram_put: Latencies,
    pub(super) zram_get: Latencies,
    pub(super) lz4_compress: Latencies,
    pub(super) lz4_decompress: Latencies,
}

impl Times {
    pub(super) fn new() -> Self {
        Self {
            tmem_put: Latencies::new(),
            tmem_get: Latencies::new(),
            tmem_get_recompressed: Latencies::new(),
            tmem_overwrite: Latencies::new(),
            tmem_flush: Latencies::new(),
            zram_put: Latencies::new(),
            zram_get: Latencies::new(),
            lz4_compress: Latencies::new(),
            lz4_decompress: Latencies::new(),
        }
    }
}

/// What memory a round took. It is the same each round, but for chance.
pub(super) struct Memory {
    pub(super) ratio: f64,
    pub(super) ratio_overwritten: f64,
    pub(super) ratio_without_dedup: f64,
    pub(super) huge_pages: u64,
    pub(super) ratio_recompressed: f64,
    pub(super) overhead_percent: f64,
    pub(super) metadata_bytes_per_page: f64,
    pub(super) after_flush: AfterFlush,
    pub(super) rss_before_bytes: u64,
    pub(super) rss_peak_bytes: u64,
    pub(super) rss_final_bytes: u64,
    pub(super) zram_ratio: Option<f64>,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
enum Turn {
    Tmem,
    Zram,
    Lz4,
}

/// Each round another one begins: what comes later finds the machine warmer, or busier.
const TURNS: [[Turn; 3]; 3] = [
    [Turn::Tmem, Turn::Zram, Turn::Lz4],
    [Turn::Zram, Turn::Lz4, Turn::Tmem],
    [Turn::Lz4, Turn::Tmem, Turn::Zram],
];

/// Runs round `number` (from 0).
pub(super) fn run(
    driver: &Driver<'_>,
    number: usize,
    lz4: &Lz4,
    mut zram: Option<&mut Zram>,
    times: &mut Times,
) -> Result<Memory, BenchError> {
    let count = driver.pages.len();
    if let Some(zram) = &mut zram {
        zram.restart()?;
    }
    let zram = zram.as_deref();
    let turns = TURNS[number % TURNS.len()];
    forget_peak();
    let before = resident().map_err(BenchError::Resident)?;
    let tmem = Tmem::new(count, Dedup::Alone)?;

    for turn in turns {
        match (turn, zram) {
            (Turn::Tmem, _) => {
                let _stock = tmem.stocked()?;
                times.tmem_put += &driver.put_all(&tmem, 0)?;
            }
            (Turn::Zram, Some(zram)) => times.zram_put += &driver.put_all(zram, 0)?,
            (Turn::Zram, None) => {}
            (Turn::Lz4, _) => times.lz4_compress += &driver.put_all(lz4, 0)?,
        }
    }
    let full = tmem.usage();
    let huge_pages = tmem.make_huge_pages(driver.interrupt())?;
    let order = shuffled(count, number as u64);
    for turn in turns {
        match (turn, zram) {
            (Turn::Tmem, _) => times.tmem_get += &driver.get(&tmem, &order, 0)?,
            (Turn::Zram, Some(zram)) => times.zram_get += &driver.get(zram, &order, 0)?,
            (Turn::Zram, None) => {}
            (Turn::Lz4, _) => times.lz4_decompress += &driver.get(lz4, &order, 0)?,
        }
    }
    let zram_ratio = zram.map(|zram| zram.held_and_logical_bytes()).transpose()?;
    let after_flush = flush(driver, &tmem, &order, times)?;
    drop(tmem);

    let (ratio_recompressed, get_recompressed) = recompressed(driver, &order)?;
    times.tmem_get_recompressed += &get_recompressed;
    let (ratio_without_dedup, ratio_overwritten, overwrite) = overwritten(driver, &order)?;
    times.tmem_overwrite += &overwrite;
    let after = resident().map_err(BenchError::Resident)?;
    Ok(Memory {
        ratio: ratio(full.logical_bytes, full.held_bytes),
        ratio_overwritten,
        ratio_without_dedup,
        huge_pages,
        ratio_recompressed,
        overhead_percent: (ratio(full.held_bytes, full.compressed_bytes) - 1.0) * 100.0,
        metadata_bytes_per_page: ratio(full.metadata_bytes, full.stored_pages),
        after_flush,
        rss_before_bytes: before.now_bytes,
        rss_peak_bytes: after.peak_bytes,
        rss_final_bytes: after.now_bytes,
        zram_ratio: zram_ratio.map(|(held_bytes, logical_bytes)| ratio(logical_bytes, held_bytes)),
    })
}

/// Flushes a random 90% of the pages, compacts, checks the rest and flushes that, too. Nothing may be held then.
fn flush(
    driver: &Driver<'_>,
    tmem: &Tmem,
    order: &[usize],
    times: &mut Times,
) -> Result<AfterFlush, BenchError> {
    let flush = |place| {
        tmem.flush(place);
        Ok(())
    };
    let (most, rest) = order.split_at(order.len() * 9 / 10);
    times.tmem_flush += &driver.each(most, flush)?;
    let held_at_first_bytes = tmem.usage().held_bytes;
    let compacted = tmem.compact(driver.interrupt())?;
    let held_bytes = tmem.usage().held_bytes;
    driver.get(tmem, rest, 0)?;
    let needed_bytes = needed_bytes(driver, rest)?;
    times.tmem_flush += &driver.each(rest, flush)?;
    let left = tmem.usage();
    if left.held_bytes != 0 {
        return Err(BenchError::NotEmpty { held_bytes: left.held_bytes });
    }
    Ok(AfterFlush {
        left_pages: rest.len() as u64,
        held_at_first_bytes,
        held_bytes,
        needed_bytes,
        held_to_needed: ratio(held_bytes, needed_bytes),
        compact_seconds: compacted.seconds,
        moved_pages: compacted.moved_pages,
        emptied_extents: compacted.emptied_extents,
    })
}

/// What a fresh store holds that was given nothing but these pages, side by side.
fn needed_bytes(driver: &Driver<'_>, places: &[usize]) -> Result<u64, BenchError> {
    let fresh = Tmem::new(places.len(), Dedup::Alone)?;
    for (at, place) in places.iter().enumerate() {
        fresh.put(at, driver.content(*place, 0))?;
    }
    Ok(fresh.usage().held_bytes)
}

/// The ratio after all pages were recompressed, and how long getting them takes then.
fn recompressed(driver: &Driver<'_>, order: &[usize]) -> Result<(f64, Latencies), BenchError> {
    let tmem = Tmem::new(driver.pages.len(), Dedup::Alone)?;
    driver.put_all(&tmem, 0)?;
    let ratio = ratio_recompressed(&tmem.store, driver.interrupt())?;
    Ok((ratio, driver.get(&tmem, order, 0)?))
}

/// The ratios when equal pages are each stored, before and after every page was overwritten, and how long that takes. With dedup there
/// would be little to overwrite: what comes is what another page holds that is not overwritten yet.
fn overwritten(driver: &Driver<'_>, order: &[usize]) -> Result<(f64, f64, Latencies), BenchError> {
    let count = driver.pages.len();
    let tmem = Tmem::new(count, Dedup::Off)?;
    let stock = tmem.stocked()?;
    driver.put_all(&tmem, 0)?;
    drop(stock);
    let before = tmem.usage();
    let shift = (count / 3).max(1);
    let stock = tmem.stocked()?;
    let times = driver.put_all(&tmem, shift)?;
    drop(stock);
    let after = tmem.usage();
    driver.get(&tmem, order, shift)?;
    Ok((ratio(before.logical_bytes, before.held_bytes), ratio(after.logical_bytes, after.held_bytes), times))
}

fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}
