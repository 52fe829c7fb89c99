//! Who has the memory of an index page: one atomic word.
//!
//! ```text
//!            find             found            take              use up
//!   nobody ───────▶ finding ─────────▶ ready ─────────▶ taken ─────────────▶ used
//!      ▲  ▲            │                │ ▲               │                   │
//!      │  └── failed ──┘    release     │ └── put back ───┘                   │
//!      ├────────────────────────────────┘                                     │
//!      └────────────────────── give back, with its last entry ────────────────┘
//! ```
//!
//! Its first entry uses a page up from any state. A page that is ready is charged to the budget, a put that has taken it holds that
//! charge, and a used page has one; whoever finds more charges than that releases them. Memory is given to the OS under the lock of the
//! page's stripe only, under which entries are written, too.

use crate::sync::{AtomicU32, Ordering};

/// A cell for the state of one index page; zero is [`PageMemory::Nobodys`].
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct PageState(AtomicU32);

/// Who has an index page's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum PageMemory {
    /// The OS holds none, as far as is known.
    Nobodys = 0,
    /// The thread that finds memory ahead is at it.
    Finding = 1,
    /// It is there and charged, for whoever comes.
    Ready = 2,
    /// It is there, and a put has its charge.
    Taken = 3,
    /// Entries are in it.
    Used = 4,
}

impl PageMemory {
    /// Whether the OS has found it.
    pub(super) fn is_there(self) -> bool {
        matches!(self, PageMemory::Ready | PageMemory::Taken | PageMemory::Used)
    }

    fn of(number: u32) -> Self {
        match number {
            1 => PageMemory::Finding,
            2 => PageMemory::Ready,
            3 => PageMemory::Taken,
            4 => PageMemory::Used,
            _ => PageMemory::Nobodys,
        }
    }
}

impl PageState {
    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(super) fn see(&self) -> PageMemory {
        PageMemory::of(self.0.load(Ordering::Acquire))
    }

    /// Begins to find a page's memory. False: somebody has it.
    #[must_use]
    pub(super) fn find(&self) -> bool {
        self.exchange(PageMemory::Nobodys, PageMemory::Finding)
    }

    /// Says that it was found and charged. False: an entry was quicker, which brought a charge of its own.
    #[must_use]
    pub(super) fn found(&self) -> bool {
        self.exchange(PageMemory::Finding, PageMemory::Ready)
    }

    /// Says that it was not found.
    pub(super) fn failed(&self) {
        let _used_meanwhile = self.exchange(PageMemory::Finding, PageMemory::Nobodys);
    }

    /// Takes a page that is ready, with its charge. False: it is not.
    #[must_use]
    pub(super) fn take(&self) -> bool {
        self.exchange(PageMemory::Ready, PageMemory::Taken)
    }

    /// Makes a page that was taken ready again, with its charge. False: it is used by now, or was, and the charge is one too many.
    #[must_use]
    pub(super) fn put_back(&self) -> bool {
        self.exchange(PageMemory::Taken, PageMemory::Ready)
    }

    /// The page gets its first entry; says who had it. From one that was ready there is a charge besides the one that the entry
    /// brings. Called under the stripe's lock.
    pub(super) fn use_up(&self) -> PageMemory {
        PageMemory::of(self.0.swap(PageMemory::Used as u32, Ordering::AcqRel))
    }

    /// Uses a page that is ready, with its charge. False: it is not. Called under the stripe's lock.
    #[must_use]
    pub(super) fn use_ready(&self) -> bool {
        self.exchange(PageMemory::Ready, PageMemory::Used)
    }

    /// The memory of a page without entries has gone to the OS. Called under the stripe's lock.
    pub(super) fn give_back(&self) {
        self.0.store(PageMemory::Nobodys as u32, Ordering::Release);
    }

    /// Takes a page that is ready from whoever may come. The caller holds the stripe's lock until the memory has gone to the OS. False:
    /// it is not.
    #[must_use]
    pub(super) fn release(&self) -> bool {
        self.exchange(PageMemory::Ready, PageMemory::Nobodys)
    }

    fn exchange(&self, from: PageMemory, to: PageMemory) -> bool {
        self.0.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{
        sync::{Arc, Mutex},
        thread,
    };

    /// Runs a model with all ways to take turns in which threads are interrupted at most three times.
    fn model(run: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(run);
    }

    /// A page, the charges for it, and under the stripe's lock whether it has memory and how many entries.
    struct Page {
        state: PageState,
        charges: AtomicU32,
        stripe: Mutex<(bool, u32)>,
    }

    impl Page {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                state: PageState::new(),
                charges: AtomicU32::new(0),
                stripe: Mutex::new((false, 0)),
            })
        }

        fn charge(&self) {
            self.charges.fetch_add(1, Ordering::SeqCst);
        }

        fn release(&self) {
            assert!(self.charges.fetch_sub(1, Ordering::SeqCst) > 0, "released more than was charged");
        }

        fn find(&self) {
            if !self.state.find() {
                return;
            }
            self.charge();
            self.stripe.lock().unwrap().0 = true;
            if !self.state.found() {
                self.release();
            }
        }

        fn release_ready(&self) {
            let mut stripe = self.stripe.lock().unwrap();
            if self.state.release() {
                stripe.0 = false;
                self.release();
            }
        }

        /// A put, which is refused in the end if it is `in_vain`; a flush of its page follows if it is not.
        fn put_and_flush(&self, in_vain: bool) {
            let taken = self.state.take();
            if !taken {
                self.charge();
            }
            let mut is_paid = true;
            let mut stripe = self.stripe.lock().unwrap();
            if !in_vain && (stripe.1 > 0 || self.state.see().is_there()) {
                if stripe.1 == 0 {
                    if self.state.use_up() == PageMemory::Ready {
                        self.release();
                    }
                    is_paid = false;
                }
                assert!(stripe.0, "an entry is written where there is no memory");
                stripe.1 += 1;
            }
            let stored = !in_vain && stripe.1 > 0;
            drop(stripe);
            if is_paid && !(taken && self.state.put_back()) {
                self.release();
            }
            if stored {
                let mut stripe = self.stripe.lock().unwrap();
                stripe.1 -= 1;
                if stripe.1 == 0 {
                    stripe.0 = false;
                    self.release();
                    self.state.give_back();
                }
            }
        }
    }

    fn settle(page: &Page) {
        page.release_ready();
        assert_eq!(page.charges.load(Ordering::SeqCst), 0, "charges are left");
        assert_eq!(*page.stripe.lock().unwrap(), (false, 0));
        assert_eq!(page.state.see(), PageMemory::Nobodys);
    }

    /// Two puts and the thread that finds the page: no entry without memory, and in the end nothing is charged.
    #[test]
    fn r7_puts_that_race_for_an_index_page_leave_no_charge() {
        model(|| {
            let page = Page::new();
            page.find();
            let other = page.clone();
            let put = thread::spawn(move || other.put_and_flush(false));
            let other = page.clone();
            let finds = thread::spawn(move || other.find());
            page.put_and_flush(false);
            put.join().unwrap();
            finds.join().unwrap();
            settle(&page);
        });
    }

    /// A put that is refused, one that is not, and the thread that gives the page up.
    #[test]
    fn r7_a_refused_put_leaves_no_charge() {
        model(|| {
            let page = Page::new();
            page.find();
            let other = page.clone();
            let refused = thread::spawn(move || other.put_and_flush(true));
            let other = page.clone();
            let releases = thread::spawn(move || other.release_ready());
            page.put_and_flush(false);
            refused.join().unwrap();
            releases.join().unwrap();
            settle(&page);
        });
    }
}
