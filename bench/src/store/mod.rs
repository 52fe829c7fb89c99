//! The page store by itself: straight calls, no daemon, no guest.
//!
//! The pages are a file's, and so is their order: a guest swaps out neighbours together. Each round puts all of them into an empty
//! store, gets them in a random order, flushes a random nine tenths, compacts, and flushes the rest. A second store recompresses all
//! of them and gets them again; in a third, without dedup, each is put again at another place. A peer gets the same pages and reads them in the same order, step by step in turns with the store, because a machine is
//! not the same from one minute to the next; bare LZ4 takes its turn, too, as the yardstick of what is possible.
//!
//! Every page that comes back is compared with what was put, after the clock was stopped. Memory held is all that the store took
//! from the OS: blocks, slack, index.

mod args;
mod dedup_cost;
mod drive;
mod keeper;
mod lz4;
mod recompressed;
mod report;
mod resident;
mod round;
mod speed_up;
mod timing;
mod tmem;
mod zram;

pub use args::{Peer, StoreArgs};
pub use report::{AfterFlush, Report, TmemReport, ZramReport};
pub use timing::Figures;

use std::{io::Write, time::Instant};

use crate::{error::BenchError, interrupt::Interrupt, page, progress::Progress};
use dedup_cost::dedup_cost;
use drive::Driver;
use lz4::Lz4;
use round::{Memory, Times};
use speed_up::two_thread_speed_up;
use timing::Clock;
use tmem::Tmem;
use zram::Zram;

/// Runs the benchmark and prints its report to standard output: tables, or JSON when asked for.
pub fn run(args: &StoreArgs) -> Result<(), BenchError> {
    let report = measure(args)?;
    let text = if args.json { report.to_json()? } else { report.to_text() };
    // A reader that went away, as `head` does, is no failure of the benchmark.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

/// Runs the benchmark. A peer that cannot be had here is left out, with a line on standard error.
pub fn measure(args: &StoreArgs) -> Result<Report, BenchError> {
    args.check()?;
    let interrupt = Interrupt::catch().map_err(BenchError::Signals)?;
    let pages = page::read_file(&args.pages)?;
    // From here on the device is removed however this ends.
    let mut zram = match args.peer {
        Some(Peer::Zram) => Zram::new(pages.len()).inspect_err(|why| eprintln!("zram: skipped: {why}")).ok(),
        None => None,
    };
    let clock = Clock::measure();
    let driver = Driver::new(&pages, args.threads, clock, interrupt);
    let lz4 = Lz4::new(&pages);
    let mut times = Times::new();
    let mut memory = Vec::new();
    let mut progress = Progress::new(format!("measuring {} pages", pages.len()));
    // Measuring the speed-up takes about as long as a round.
    let turns = (args.rounds + 1) as f64;
    for number in 0..args.rounds {
        progress.update(Instant::now(), number as f64 / turns);
        memory.push(round::run(&driver, number, &lz4, zram.as_mut(), &mut times)?);
    }
    progress.update(Instant::now(), args.rounds as f64 / turns);
    let speed_up = speed_up_of_the_store(&driver)?;
    let speed_up_lz4 = two_thread_speed_up(&driver, &lz4, || Ok(()))?;
    let dedup_cost = dedup_cost(&driver, args.rounds)?;
    drop(progress);

    let median = |figure: fn(&Memory) -> f64| median(memory.iter().map(figure).collect());
    // There is at least one round.
    let last = memory.last().ok_or_else(|| BenchError::Usage("--rounds 0: give at least 1".into()))?;
    Ok(Report {
        tmem: TmemReport {
            put_us: times.tmem_put.figures(),
            get_us: times.tmem_get.figures(),
            get_recompressed_us: times.tmem_get_recompressed.figures(),
            overwrite_us: times.tmem_overwrite.figures(),
            flush_us: times.tmem_flush.figures(),
            ratio: median(|memory| memory.ratio),
            ratio_without_dedup: median(|memory| memory.ratio_without_dedup),
            huge_pages: last.huge_pages,
            ratio_recompressed: median(|memory| memory.ratio_recompressed),
            ratio_overwritten: median(|memory| memory.ratio_overwritten),
            overhead_percent: median(|memory| memory.overhead_percent),
            metadata_bytes_per_page: median(|memory| memory.metadata_bytes_per_page),
            dedup_cost_percent: dedup_cost * 100.0,
            two_thread_speedup: speed_up,
            two_thread_speedup_lz4: speed_up_lz4,
            lz4_compress_us: times.lz4_compress.figures(),
            lz4_decompress_us: times.lz4_decompress.figures(),
            after_flush: slowest(&memory).unwrap_or(last).after_flush,
            rss_before_bytes: last.rss_before_bytes,
            rss_peak_bytes: last.rss_peak_bytes,
            rss_final_bytes: last.rss_final_bytes,
            file: args.pages.display().to_string(),
            pages: pages.len() as u64,
            same_filled_pages: pages.iter().filter(|page| page.is_same_filled()).count() as u64,
            threads: args.threads,
            rounds: args.rounds,
            clock_us: clock.cost_us(),
        },
        zram: last.zram_ratio.map(|ratio| ZramReport {
            put_us: times.zram_put.figures(),
            get_us: times.zram_get.figures(),
            ratio,
        }),
    })
}

/// Every page stored once, then one thread and two in turns. Between turns what was overwritten is compacted, as the daemon does.
fn speed_up_of_the_store(driver: &Driver<'_>) -> Result<f64, BenchError> {
    let tmem = Tmem::new(driver.pages.len(), tmem_store::Dedup::Alone)?;
    driver.put_all(&tmem, 0)?;
    two_thread_speed_up(driver, &tmem, || tmem.compact(driver.interrupt()).map(|_| ()))
}

/// The round in which compaction took longest: giving memory back is a promise about the worst case.
fn slowest(memory: &[Memory]) -> Option<&Memory> {
    memory.iter().max_by(|a, b| a.after_flush.compact_seconds.total_cmp(&b.after_flush.compact_seconds))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
