//! The background thread: compaction, recompression, ages, equal pages and huge pages, within a share of one CPU.
//!
//! It runs at the priority of everything else: a put that needs room waits for the extent that is just being emptied, and with a lower
//! priority that took tens of milliseconds on a busy host instead of tens of microseconds. To leave a busy host alone all the same,
//! it pauses for longer after it had to wait for a CPU.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tmem_control::BackgroundCpu;
use tmem_store::{Compaction, Recompression, Store};

use crate::{huge_pages::HugePages, join::join, own_swap::OwnSwap};

/// How often the thread looks whether there is something to gain. Looking takes some microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Work and pause alternate as long as there is something to gain. The time is for each kind of work.
const WORK: Duration = Duration::from_millis(5);

/// A slice that took so much longer than the CPU it got had to wait for one: others need it more.
const WAITED_FACTOR: u32 = 2;

/// After such a slice the pause is so many times as long.
const STEP_BACK_FACTOR: u32 = 4;

/// The running thread. Dropping it ends the thread.
pub(crate) struct Maintenance {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told while it waits.
enum Message {
    /// The pool holds more than it may.
    Work,
    End,
}

/// Has the thread work at once.
#[derive(Clone)]
pub(crate) struct Waker(Sender<Message>);

impl Waker {
    pub(crate) fn wake(&self) {
        let _ended = self.0.send(Message::Work);
    }
}

/// What a slice of work did, and what it took.
struct Slice {
    compaction: Compaction,
    recompression: Recompression,
    /// Pages still have to be made to be found by their contents.
    more_to_find: bool,
    made_huge_page: bool,
    wall: Duration,
    cpu: Duration,
}

impl Maintenance {
    /// Starts the thread. It asks for its budget after each slice of work.
    pub(crate) fn start(
        store: Arc<Store>,
        budget: impl Fn() -> BackgroundCpu + Send + 'static,
        own_swap: OwnSwap,
    ) -> io::Result<Self> {
        let (messages, told) = mpsc::channel();
        let thread = thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
            let (mut wait, mut looked, mut compacting, mut finding) =
                (LOOK_EVERY, Instant::now(), false, false);
            let mut huge_pages = HugePages::new(looked);
            loop {
                match told.recv_timeout(wait) {
                    Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Message::Work) => compacting = true,
                }
                // Ages and the search for dead bytes look at everything, so not in every slice.
                let look = looked.elapsed() >= LOOK_EVERY;
                if look {
                    looked = Instant::now();
                }
                // Where the host swaps to the daemon there are no huge pages: when one is split again, the kernel has to find memory for
                // page tables before any page of it can be touched.
                let huge_pages = (!own_swap.is_possible()).then_some(&mut huge_pages);
                let slice = Slice::work(&store, huge_pages, look, look || compacting, look || finding);
                slice.log();
                finding = slice.more_to_find;
                compacting = slice.compaction.emptied_extents > 0;
                // What the host lacks is given back as fast as one CPU can.
                let hurry = store.is_over_limit() && slice.gained_something();
                wait = if hurry { Duration::ZERO } else { slice.pause(budget()) };
            }
        })?;
        Ok(Self { messages, thread: Some(thread) })
    }

    /// What has the thread work at once.
    pub(crate) fn waker(&self) -> Waker {
        Waker(self.messages.clone())
    }
}

impl Slice {
    fn work(
        store: &Store,
        huge_pages: Option<&mut HugePages>,
        tend: bool,
        compact: bool,
        find: bool,
    ) -> Self {
        let (wall, cpu) = (Instant::now(), thread_cpu_time());
        if tend {
            store.tend_ages(WORK);
        }
        let more_to_find = find && store.tend_dedup(WORK);
        let compaction = if compact { store.compact(WORK) } else { Compaction::default() };
        // Compaction gains the same memory for less work.
        // So does write-back, for a tenth of it: the CPU that is there is left to it.
        let recompression =
            if compaction.emptied_extents > 0 || store.is_over_limit() && store.is_tier_taking() {
                Recompression { more: true, ..Recompression::default() }
            } else {
                store.recompress(WORK)
            };
        // Recompression empties extents, which would split huge pages again.
        let is_idle = compaction.emptied_extents == 0 && !recompression.more;
        let made_huge_page = is_idle && huge_pages.is_some_and(|huge_pages| huge_pages.make_one(store));
        Self {
            compaction,
            recompression,
            more_to_find,
            made_huge_page,
            wall: wall.elapsed(),
            cpu: thread_cpu_time().saturating_sub(cpu),
        }
    }

    fn gained_something(&self) -> bool {
        self.compaction.emptied_extents > 0 || self.recompression.saved_bytes > 0
    }

    fn log(&self) {
        let (compaction, recompression) = (&self.compaction, &self.recompression);
        if compaction.emptied_extents > 0 {
            log::debug!(
                "compaction: {} pages moved, {} extents emptied",
                compaction.moved_pages,
                compaction.emptied_extents
            );
        }
        if recompression.recompressed_pages + recompression.kept_pages > 0 {
            log::debug!(
                "recompression: {} pages gained {} bytes, {} were left as they are",
                recompression.recompressed_pages,
                recompression.saved_bytes,
                recompression.kept_pages
            );
        }
    }

    /// How long to wait before the next slice, so that all of them together stay within the budget.
    fn pause(&self, budget: BackgroundCpu) -> Duration {
        let is_done = self.compaction.emptied_extents == 0 && !self.recompression.more;
        if is_done && !self.more_to_find && !self.made_huge_page {
            return LOOK_EVERY;
        }
        let others_wait = self.wall > self.cpu * WAITED_FACTOR;
        let pause = self.cpu * (100 - budget.percent()) / budget.percent();
        if others_wait { (pause * STEP_BACK_FACTOR).max(WORK) } else { pause }
    }
}

/// What this thread has had of CPUs.
fn thread_cpu_time() -> Duration {
    // The clock of the calling thread always exists and never shows less than nothing.
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        let _ended = self.messages.send(Message::End);
        join(&mut self.thread, "maintenance");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(wall_ms: u64, cpu_ms: u64, emptied_extents: u64, more: bool) -> Slice {
        Slice {
            compaction: Compaction { emptied_extents, moved_pages: 0 },
            recompression: Recompression { more, ..Recompression::default() },
            more_to_find: false,
            made_huge_page: false,
            wall: Duration::from_millis(wall_ms),
            cpu: Duration::from_millis(cpu_ms),
        }
    }

    fn percent(text: &str) -> BackgroundCpu {
        text.parse().expect("a share")
    }

    #[test]
    fn work_and_pause_stay_within_the_budget() {
        assert_eq!(slice(5, 5, 1, false).pause(percent("20")), Duration::from_millis(20));
        assert_eq!(slice(6, 5, 0, true).pause(percent("50")), Duration::from_millis(5));
        assert_eq!(slice(5, 5, 0, true).pause(percent("100")), Duration::ZERO);
        assert_eq!(slice(5, 5, 0, false).pause(percent("100")), LOOK_EVERY);
    }

    #[test]
    fn a_thread_that_waited_for_a_cpu_steps_back() {
        assert_eq!(slice(11, 5, 0, true).pause(percent("20")), Duration::from_millis(80));
        assert_eq!(slice(11, 5, 0, true).pause(percent("100")), WORK);
    }

    #[test]
    fn what_a_lowered_limit_asks_for_is_given_back_at_once() {
        use tmem_store::{
            ClientKind, ClientOptions, Dedup, Keys, ObjectId, PageIndex, Persistence, StoreOptions, Weight,
        };

        let store = Store::new(StoreOptions { limit_bytes: 64 << 20 }).expect("store");
        let options = ClientOptions {
            name: "a".into(),
            kind: ClientKind::Native,
            cap_bytes: None,
            weight: Weight::default(),
            dedup: Dedup::Alone,
        };
        let client = store.create_client(options).expect("client");
        let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 10_000 }).expect("pool");
        for i in 0..4000u64 {
            // Eight hexadecimal digits of a number at a time, as text is.
            let words = (0..512u64).map(|word| (i << 9 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40);
            let text: Vec<u8> = words.flat_map(|word| format!("{word:08x}").into_bytes()).collect();
            let page: &[u8; 4096] = text.as_slice().try_into().expect("a page");
            pool.put(ObjectId(0), PageIndex(i), page.into()).expect("put");
        }
        let maintenance =
            Maintenance::start(store.clone(), || percent("1"), OwnSwap::default()).expect("thread");
        let before = store.held_bytes();
        store.set_limit_bytes(before * 9 / 10).expect("limit");
        // Pages as young as these, and one percent of a CPU, would take minutes.
        let deadline = Instant::now() + Duration::from_secs(60);
        while store.is_over_limit() {
            maintenance.waker().wake();
            assert!(Instant::now() < deadline, "{} of {before} bytes are still held", store.held_bytes());
            thread::sleep(Duration::from_millis(10));
        }
        drop(maintenance);
    }
}
