//! The requests: fill the region, run phases of random reads and writes, read everything back.

use std::time::{Duration, Instant};

use super::{ANSWER_SECONDS, Completion, Done, Phase, Request, Target};
use crate::{error::BenchError, progress::Progress, random::Random};

/// Runs before a phase's figures count: caches, polling and frequencies settle.
const WARM_UP: Duration = Duration::from_millis(200);
/// How often a polling wait looks at the clock: about every millisecond.
const SPINS_PER_LOOK: u32 = 1 << 15;

/// A region of the disk and what it should hold.
pub(crate) struct Load<'a, T> {
    device: &'a mut T,
    slots: usize,
    /// For each block, the page of the content that was last written there.
    written: Vec<u32>,
    /// For each block, whether a request for it is in flight. Two at once would leave open which comes last.
    busy: Vec<bool>,
    /// For each slot, what it asked for.
    asked: Vec<(Request, Instant)>,
    in_flight: usize,
    random: Random,
}

impl<'a, T: Target> Load<'a, T> {
    /// A load on the first `region_blocks` of the disk with up to `slots` requests in flight.
    pub(crate) fn new(device: &'a mut T, slots: u16, region_blocks: u64, seed: u64) -> Self {
        let slots = usize::from(slots);
        let blocks = region_blocks as usize;
        Self {
            device,
            slots,
            written: vec![0; blocks],
            busy: vec![false; blocks],
            asked: vec![(Request::Read { block: 0 }, Instant::now()); slots],
            in_flight: 0,
            random: Random::new(seed),
        }
    }

    /// Writes every block of the region once, neighbours of the content side by side.
    pub(crate) fn fill(&mut self) -> Result<(), BenchError> {
        let pages = self.device.content_pages() as u64;
        self.sweep(
            "filling the disk",
            |block| Request::Write { block, page: (block % pages) as u32 },
            |_, _, _| Ok(()),
        )?;
        for (block, page) in self.written.iter_mut().enumerate() {
            *page = (block as u64 % pages) as u32;
        }
        Ok(())
    }

    /// Reads every block of the region and compares it with what was last written; returns how many.
    pub(crate) fn verify(&mut self) -> Result<u64, BenchError> {
        self.sweep(
            "verifying the disk",
            |block| Request::Read { block },
            |load, slot, block| {
                let right = load.device.holds(slot, load.written[block as usize] as usize);
                load.device.soil(slot);
                if right { Ok(()) } else { Err(BenchError::Wrong { block }) }
            },
        )?;
        Ok(self.written.len() as u64)
    }

    /// One request per block, in order, with all slots in flight; `check` sees each when it is done.
    fn sweep(
        &mut self,
        step: &str,
        request: impl Fn(u64) -> Request,
        check: impl Fn(&mut Self, usize, u64) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let blocks = self.written.len() as u64;
        let mut progress = Progress::new(step.to_string());
        let mut next = 0;
        for slot in 0..self.slots {
            self.device.soil(slot);
            self.start(slot, request(next), Instant::now())?;
            next += 1;
        }
        let mut done = Vec::new();
        while self.in_flight > 0 {
            self.device.announce()?;
            let now = self.wait(Completion::Poll, &mut done)?;
            for answer in done.drain(..) {
                let (asked, _) = self.finish(&answer)?;
                check(self, answer.slot, asked.block())?;
                if next < blocks {
                    self.start(answer.slot, request(next), now)?;
                    next += 1;
                }
            }
            progress.update(now, next as f64 / blocks as f64);
        }
        Ok(())
    }

    /// Random requests for `seconds`, `depth` of them in flight.
    pub(crate) fn phase(
        &mut self,
        completion: Completion,
        depth: u16,
        read_percent: u8,
        seconds: f64,
    ) -> Result<Phase, BenchError> {
        let mut progress = Progress::new(format!("depth {depth}, {read_percent}% reads"));
        let mut latencies = Phase::latencies();
        let begin = Instant::now();
        let counted_from = begin + WARM_UP;
        let end = counted_from + Duration::from_secs_f64(seconds);
        for slot in 0..usize::from(depth) {
            let request = self.choose(read_percent);
            self.start(slot, request, Instant::now())?;
        }
        let mut done = Vec::new();
        while self.in_flight > 0 {
            self.device.announce()?;
            let now = self.wait(completion, &mut done)?;
            for answer in &done {
                let (_, since) = self.finish(answer)?;
                if now >= counted_from && now < end {
                    latencies.saturating_record(now.duration_since(since).as_nanos() as u64);
                }
            }
            progress.update(now, now.duration_since(begin).as_secs_f64() / (seconds + WARM_UP.as_secs_f64()));
            if now < end {
                let requests = done.len();
                let start = Instant::now();
                for answer in done.drain(..requests) {
                    let request = self.choose(read_percent);
                    self.start(answer.slot, request, start)?;
                }
            }
            done.clear();
        }
        Ok(Phase::new(depth, read_percent, &latencies, seconds))
    }

    /// A random request for a block that has none in flight.
    fn choose(&mut self, read_percent: u8) -> Request {
        let block = loop {
            let block = self.random.below(self.written.len() as u64);
            if !self.busy[block as usize] {
                break block;
            }
        };
        if self.random.below(100) < u64::from(read_percent) {
            Request::Read { block }
        } else {
            let page = self.random.below(self.device.content_pages() as u64) as u32;
            Request::Write { block, page }
        }
    }

    fn start(&mut self, slot: usize, request: Request, now: Instant) -> Result<(), BenchError> {
        self.device.submit(slot, request)?;
        self.busy[request.block() as usize] = true;
        self.asked[slot] = (request, now);
        self.in_flight += 1;
        Ok(())
    }

    /// Takes note of an answer; an error of the server ends the run.
    fn finish(&mut self, answer: &Done) -> Result<(Request, Instant), BenchError> {
        let (request, since) = self.asked[answer.slot];
        let block = request.block();
        self.in_flight -= 1;
        self.busy[block as usize] = false;
        if answer.status != 0 {
            return Err(BenchError::Request { operation: request.operation(), block, code: answer.status });
        }
        if let Request::Write { page, .. } = request {
            self.written[block as usize] = page;
        }
        Ok((request, since))
    }

    /// Waits until at least one request is done; returns when that was seen.
    fn wait(&mut self, completion: Completion, done: &mut Vec<Done>) -> Result<Instant, BenchError> {
        let stuck = BenchError::Stuck { in_flight: self.in_flight, seconds: ANSWER_SECONDS };
        let mut asleep_since = None;
        loop {
            for _ in 0..SPINS_PER_LOOK {
                self.device.reap(done)?;
                if !done.is_empty() {
                    return Ok(Instant::now());
                }
                match completion {
                    Completion::Poll => std::hint::spin_loop(),
                    Completion::Event => {
                        if !self.device.sleep()? {
                            return Err(stuck);
                        }
                    }
                }
            }
            let since = *asleep_since.get_or_insert_with(Instant::now);
            if since.elapsed().as_secs() >= ANSWER_SECONDS {
                return Err(stuck);
            }
        }
    }
}
