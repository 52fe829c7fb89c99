//! How much a second thread adds.

use std::time::{Duration, Instant};

use super::{
    drive::{Driver, shuffled, together},
    keeper::Keeper,
};
use crate::{error::BenchError, page::Page};

/// Long enough that starting and ending a thread does not show, short enough that the machine is the same for both of a pair.
const WINDOW: Duration = Duration::from_millis(100);
/// Turns of one thread and of two. Each gives a ratio; the median counts, because single ones are off when something else runs.
const TURNS: usize = 9;
/// Pairs of operations between two looks at the clock.
const OPERATIONS_PER_LOOK: usize = 32;

/// The throughput of two threads over that of one, each on a half of the places of its own: gets and puts in turns, at random
/// places. `rest` runs before each turn, off the clock.
pub(super) fn two_thread_speed_up<K: Keeper>(
    driver: &Driver<'_>,
    keeper: &K,
    rest: impl Fn() -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let places = shuffled(driver.pages.len(), 1);
    let halves = places.split_at(places.len() / 2);
    // A file of one page has no halves: both threads then use that page.
    let halves = [if halves.0.is_empty() { halves.1 } else { halves.0 }, halves.1];
    let mut ratios = Vec::new();
    for turn in 0..TURNS {
        driver.interrupt().check()?;
        rest()?;
        let throughput = |threads| throughput(driver, keeper, &halves[..threads]);
        // Whoever comes second finds warmer caches: take turns in that, too.
        let (one, two) = if turn % 2 == 0 {
            let one = throughput(1)?;
            (one, throughput(2)?)
        } else {
            let two = throughput(2)?;
            (throughput(1)?, two)
        };
        ratios.push(two / one);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios[ratios.len() / 2])
}

/// Operations per second of all threads together, each on its own places.
fn throughput<K: Keeper>(driver: &Driver<'_>, keeper: &K, parts: &[&[usize]]) -> Result<f64, BenchError> {
    let worked = together(parts.len(), |thread| work(driver, keeper, parts[thread]))?;
    worked.into_iter().sum()
}

fn work<K: Keeper>(driver: &Driver<'_>, keeper: &K, places: &[usize]) -> Result<f64, BenchError> {
    let mut target = Page::filled(0);
    let mut pairs = places.iter().zip(places.iter().rev()).cycle();
    let start = Instant::now();
    let mut operations = 0;
    loop {
        for (get, put) in pairs.by_ref().take(OPERATIONS_PER_LOOK) {
            keeper.get(*get, &mut target)?;
            keeper.put(*put, driver.content(*put, 0))?;
            operations += 2;
        }
        let elapsed = start.elapsed();
        if elapsed >= WINDOW {
            return Ok(f64::from(operations) / elapsed.as_secs_f64());
        }
    }
}
