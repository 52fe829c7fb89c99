//! Rule 5: writing to the tier must not need memory. It is what makes room when the host has none left.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use support::{extent, open, options};
use tmem_store::{MAX_TIER_BATCH, Tier, TierCopy, TierWrite};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn r5_writes_and_reads_allocate_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(&options(&directory.path().join("tier"), 16 << 20));
    let extents: Vec<_> = (0..MAX_TIER_BATCH as u64).map(extent).collect();
    let mut block = [0; 4000];
    let before = ALLOCATIONS.get();
    for batch in 0..7u32 {
        // Some side by side, some not.
        let place = |at: usize| batch * MAX_TIER_BATCH as u32 + at as u32 / 3 * 3 + [2, 0, 1][at % 3] % 16;
        let copies: [_; MAX_TIER_BATCH - 1] = std::array::from_fn(|at| {
            let copy = TierCopy { place: place(at), writing: u64::from(batch) * 100 + at as u64 };
            TierWrite::whole(copy, &extents[at])
        });
        tier.write(&copies).unwrap();
        for TierWrite { copy, extent, .. } in &copies {
            for start in [0, 4000, 8000, 60_000, 64_000, 120_000] {
                tier.read(*copy, start, &mut block).unwrap();
                assert!(block == extent[start..start + 4000]);
            }
        }
        tier.discard(copies[3].copy.place);
    }
    assert_eq!(ALLOCATIONS.get(), before);
    // The counter counts.
    drop(std::hint::black_box(vec![1; 100]));
    assert_eq!(ALLOCATIONS.get(), before + 1);
}
