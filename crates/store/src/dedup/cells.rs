//! The memory of a domain's table: a file of buckets, which the OS holds where they are in use. For loom, which counts every way that
//! threads can take turns, a few small buckets.

#[cfg(not(loom))]
pub(super) use in_a_file::{BUCKETS_PER_PAGE, CELLS, Cells};

#[cfg(loom)]
pub(super) use modelled::{BUCKETS_PER_PAGE, CELLS, Cells};

/// What the table takes from the OS and gives back at once, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

#[cfg(not(loom))]
mod in_a_file {
    use std::io;

    use super::{super::bucket::Bucket, PAGE_BYTES};
    use crate::memory_file::MemoryFile;

    /// Cells in a bucket, which is a cache line.
    pub(in super::super) const CELLS: usize = 16;
    pub(in super::super) const BUCKETS_PER_PAGE: u32 = (PAGE_BYTES / (CELLS * 4)) as u32;

    #[derive(Debug)]
    pub(in super::super) struct Cells(MemoryFile);

    impl Cells {
        /// So many buckets, all of them free.
        pub(in super::super) fn create(buckets: u32) -> io::Result<Self> {
            Ok(Self(MemoryFile::create("tmem-dedup", buckets as usize * CELLS * 4)?))
        }

        pub(in super::super) fn bucket(&self, bucket: u32) -> &Bucket {
            let (buckets, _) = self.0.as_u32s().as_chunks::<CELLS>();
            &buckets[bucket as usize]
        }

        /// Makes the OS find the memory of a page of buckets.
        pub(in super::super) fn populate(&self, page: u32) -> io::Result<()> {
            self.0.populate(page as usize * PAGE_BYTES, PAGE_BYTES)
        }

        /// Frees the buckets of a page. It only fails for lack of kernel memory, and old cells do no harm.
        pub(in super::super) fn give_back(&self, page: u32) {
            let _ = self.0.give_back(page as usize * PAGE_BYTES, PAGE_BYTES);
        }

        #[cfg(test)]
        pub(in super::super) fn allocated_bytes(&self) -> u64 {
            self.0.allocated_bytes().unwrap()
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::io;

    use super::super::bucket::Bucket;
    use crate::sync::{AtomicU32, Ordering};

    pub(in super::super) const CELLS: usize = 2;
    pub(in super::super) const BUCKETS_PER_PAGE: u32 = 2;

    const MOST_BUCKETS: u32 = 3 * BUCKETS_PER_PAGE;

    #[derive(Debug)]
    pub(in super::super) struct Cells(Box<[Bucket]>);

    impl Cells {
        pub(in super::super) fn create(buckets: u32) -> io::Result<Self> {
            let bucket = |_| std::array::from_fn(|_| AtomicU32::new(0));
            Ok(Self((0..buckets.min(MOST_BUCKETS)).map(bucket).collect()))
        }

        pub(in super::super) fn bucket(&self, bucket: u32) -> &Bucket {
            &self.0[bucket as usize]
        }

        pub(in super::super) fn populate(&self, _page: u32) -> io::Result<()> {
            Ok(())
        }

        pub(in super::super) fn give_back(&self, page: u32) {
            let buckets = page * BUCKETS_PER_PAGE..(page + 1) * BUCKETS_PER_PAGE;
            buckets.flat_map(|bucket| self.bucket(bucket)).for_each(|cell| cell.store(0, Ordering::Relaxed));
        }
    }
}
