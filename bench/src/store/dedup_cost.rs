//! What looking for an equal page costs a put that finds none.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tmem_store::Dedup;

use super::{drive::Driver, keeper::Keeper, tmem::Tmem};
use crate::{error::BenchError, page::Page};

/// Two stores take turns in so small steps that both see the same machine: some hundred microseconds each.
const PAGES_AT_ONCE: usize = 64;

/// How much longer a put into a store with dedup takes, as a part of one without, with the pages that are stored as blocks and differ
/// from all others: the median over all steps of `rounds` passes.
pub(super) fn dedup_cost(driver: &Driver<'_>, rounds: usize) -> Result<f64, BenchError> {
    let mut seen = HashSet::new();
    let unique: Vec<usize> = (0..driver.pages.len())
        .filter(|&i| !driver.pages[i].is_same_filled() && seen.insert(&driver.pages[i].0[..]))
        .collect();
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (with, without) =
            (Tmem::new(driver.pages.len(), Dedup::Alone)?, Tmem::new(driver.pages.len(), Dedup::Off)?);
        for (step, places) in unique.chunks(PAGES_AT_ONCE).enumerate() {
            driver.interrupt().check()?;
            let mut times = [Duration::ZERO; 2];
            // What comes second finds the pages in the cache.
            let order = if step % 2 == 0 { [(0, &with), (1, &without)] } else { [(1, &without), (0, &with)] };
            places.iter().for_each(|place| load(&driver.pages[*place]));
            for (which, store) in order {
                let start = Instant::now();
                for place in places {
                    store.put(*place, &driver.pages[*place])?;
                }
                times[which] = start.elapsed();
            }
            ratios.push(times[0].as_secs_f64() / times[1].as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios.get(ratios.len() / 2).map_or(f64::NAN, |median| median - 1.0))
}

/// Reads a page, so that it is in the cache for whoever comes first, too.
fn load(page: &Page) {
    std::hint::black_box(page.0.iter().step_by(64).fold(0, |sum, byte| sum ^ byte));
}
