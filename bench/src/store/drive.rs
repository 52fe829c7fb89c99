//! One step at a time over all pages, the same for every keeper.

use std::{
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use super::{
    keeper::Keeper,
    timing::{Clock, Latencies},
};
use crate::{error::BenchError, interrupt::Interrupt, page::Page, random::Random};

/// Pages fetched before they are compared. Their targets take 16 MiB a thread: a guest's page is not in the processor's nearest
/// caches, either. What is compared is out of the timed part.
const BATCH_PAGES: usize = 4096;

/// Runs the steps: on how many threads, with which pages.
pub(super) struct Driver<'a> {
    pub(super) pages: &'a [Page],
    clock: Clock,
    interrupt: Interrupt,
    /// For each thread, where its gets go. Kept, so that they count as this program's own memory from the beginning.
    targets: Vec<Mutex<Vec<Page>>>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(pages: &'a [Page], threads: usize, clock: Clock, interrupt: Interrupt) -> Self {
        let batch = BATCH_PAGES.min(pages.len());
        // Not zero, which the OS would not find memory for before the first get.
        let targets = (0..threads).map(|_| Mutex::new(vec![Page::filled(0xa5); batch])).collect();
        Self { pages, clock, interrupt, targets }
    }

    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Puts every page, in order: at each place the page that lies `shift` further on in the file.
    pub(super) fn put_all<K: Keeper>(&self, keeper: &K, shift: usize) -> Result<Latencies, BenchError> {
        let places: Vec<usize> = (0..self.pages.len()).collect();
        self.each(&places, |place| keeper.put(place, self.content(place, shift)))
    }

    /// Gets these places in this order and compares each with what [`Driver::put_all`] put there.
    pub(super) fn get<K: Keeper>(
        &self,
        keeper: &K,
        places: &[usize],
        shift: usize,
    ) -> Result<Latencies, BenchError> {
        self.on_threads(places, |thread, places| {
            let mut targets = self.targets[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let mut latencies = Latencies::new();
            for batch in places.chunks(targets.len()) {
                self.interrupt.check()?;
                for (place, target) in batch.iter().zip(targets.iter_mut()) {
                    self.clock.time(&mut latencies, || keeper.get(*place, target))?;
                }
                for (place, target) in batch.iter().zip(targets.iter()) {
                    if target.0 != self.content(*place, shift).0 {
                        return Err(BenchError::WrongPage { keeper: K::NAME, place: *place });
                    }
                }
            }
            Ok(latencies)
        })
    }

    /// Times one operation at each of these places, in this order.
    pub(super) fn each(
        &self,
        places: &[usize],
        operation: impl Fn(usize) -> Result<(), BenchError> + Sync,
    ) -> Result<Latencies, BenchError> {
        self.on_threads(places, |_, places| {
            let mut latencies = Latencies::new();
            for batch in places.chunks(BATCH_PAGES) {
                self.interrupt.check()?;
                for place in batch {
                    self.clock.time(&mut latencies, || operation(*place))?;
                }
            }
            Ok(latencies)
        })
    }

    /// Gives each thread an equal part of the places, one behind the other; the times of all threads together.
    fn on_threads(
        &self,
        places: &[usize],
        work: impl Fn(usize, &[usize]) -> Result<Latencies, BenchError> + Sync,
    ) -> Result<Latencies, BenchError> {
        let threads = self.targets.len();
        let parts: Vec<&[usize]> = places.chunks(places.len().div_ceil(threads).max(1)).collect();
        let mut sum = Latencies::new();
        if parts.is_empty() {
            return Ok(sum);
        }
        for latencies in together(parts.len(), |thread| work(thread, parts[thread]))? {
            sum += &latencies?;
        }
        Ok(sum)
    }

    /// What is at a place after [`Driver::put_all`] with this shift.
    pub(super) fn content(&self, place: usize, shift: usize) -> &'a Page {
        &self.pages[(place + shift) % self.pages.len()]
    }
}

/// What threads that are started together wait for.
const WAIT: u8 = 0;
const START: u8 = 1;
const GIVE_UP: u8 = 2;

/// Runs `work` on that many threads, this one among them, and gives what each returned. They start together.
/// Errors: a thread cannot be started; then none of them does anything.
pub(super) fn together<R: Send>(
    threads: usize,
    work: impl Fn(usize) -> R + Sync,
) -> Result<Vec<R>, BenchError> {
    let gate = AtomicU8::new(WAIT);
    let (gate, work) = (&gate, &work);
    thread::scope(|scope| {
        let mut others = Vec::new();
        for thread in 1..threads {
            let run = move || {
                while gate.load(Ordering::Acquire) == WAIT {
                    thread::yield_now();
                }
                (gate.load(Ordering::Acquire) == START).then(|| work(thread))
            };
            match thread::Builder::new().spawn_scoped(scope, run) {
                Ok(other) => others.push(other),
                Err(error) => {
                    gate.store(GIVE_UP, Ordering::Release);
                    return Err(BenchError::Threads(error));
                }
            }
        }
        gate.store(START, Ordering::Release);
        let mut results = vec![work(0)];
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        Ok(results)
    })
}

/// All places in an order that looks random and is the same for the same seed (Fisher and Yates).
pub(super) fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut places: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        places.swap(last, random.below(last as u64 + 1) as usize);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps pages as they are, but for one place.
    struct Forgetful {
        kept: Vec<Mutex<Page>>,
        forgets: Option<usize>,
    }

    impl Keeper for Forgetful {
        const NAME: &'static str = "a vector";

        fn put(&self, place: usize, page: &Page) -> Result<(), BenchError> {
            *self.kept[place].lock().unwrap() = page.clone();
            Ok(())
        }

        fn get(&self, place: usize, target: &mut Page) -> Result<(), BenchError> {
            if self.forgets != Some(place) {
                *target = self.kept[place].lock().unwrap().clone();
            }
            Ok(())
        }
    }

    fn run(threads: usize, forgets: Option<usize>) -> Result<(), BenchError> {
        let pages: Vec<Page> = (0..100).map(Page::filled).collect();
        let driver = Driver::new(&pages, threads, Clock::measure(), Interrupt::default());
        let keeper = Forgetful { kept: (0..100).map(|_| Mutex::new(Page::filled(0))).collect(), forgets };
        driver.put_all(&keeper, 0)?;
        driver.get(&keeper, &shuffled(100, 1), 0)?;
        driver.put_all(&keeper, 33)?;
        driver.get(&keeper, &shuffled(100, 2), 33)?;
        Ok(())
    }

    #[test]
    fn every_page_is_compared() {
        for threads in [1, 3, 200] {
            run(threads, None).unwrap();
            for place in [0, 50, 99] {
                let error = run(threads, Some(place)).unwrap_err();
                assert!(
                    matches!(error, BenchError::WrongPage { place: wrong, .. } if wrong == place),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn a_shuffle_has_every_place_once() {
        let mut places = shuffled(1000, 7);
        assert!(places.iter().enumerate().filter(|(at, place)| at == *place).count() < 20);
        places.sort_unstable();
        assert_eq!(places, (0..1000).collect::<Vec<_>>());
    }
}
