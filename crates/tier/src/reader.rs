//! Reading blocks of copies.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tmem_store::{TIER_EXTENT_BYTES, TierCopy, TierError};

use crate::{
    buffer::Buffer,
    disk::Disk,
    lanes::Lanes,
    layout::{COPY_SECTORS, SECTOR_BYTES, SECTOR_DATA_BYTES, copy_offset},
    mishap,
    queue::{Operation, Queue},
    sectors::{Sector, SectorKey},
    windows::{WINDOW_BYTES, WINDOW_SECTORS, Windows},
};

/// Why a read failed.
pub(crate) enum ReadFailure {
    /// The disk did not give it.
    Disk(io::Error),
    /// It did, and it was not what was written.
    Damaged,
}

/// How blocks came, since the start.
#[derive(Debug, Default)]
pub(crate) struct ReadCounts {
    pub(crate) disk_reads: AtomicU64,
    pub(crate) disk_read_bytes: AtomicU64,
    pub(crate) window_hits: AtomicU64,
}

/// Reads blocks, many at once. Nobody waits for anybody else's I/O, unless more read than there are lanes; two that want the same
/// block read it twice.
pub(crate) struct Reader {
    lanes: Lanes,
    windows: Windows,
    pub(crate) counts: ReadCounts,
    patience: Duration,
}

/// What one read wants.
struct Wanted<'a> {
    disk: &'a Arc<Disk>,
    key: &'a SectorKey,
    copy: TierCopy,
    /// Of the block, in the extent.
    start: usize,
    end: usize,
}

impl Reader {
    /// With all memory and rings it will ever need. Errors: as those of [`Queue::new`].
    pub(crate) fn new(patience: Duration) -> io::Result<Self> {
        Ok(Self { lanes: Lanes::new()?, windows: Windows::new()?, counts: ReadCounts::default(), patience })
    }

    /// Reads `into.len()` bytes of a copy from byte `start`.
    pub(crate) fn read(
        &self,
        disk: &Arc<Disk>,
        key: &SectorKey,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
    ) -> Result<(), ReadFailure> {
        let end = start.saturating_add(into.len());
        if copy.place >= disk.places || end > TIER_EXTENT_BYTES {
            return Err(ReadFailure::Disk(io::ErrorKind::UnexpectedEof.into()));
        }
        let wanted = Wanted { disk, key, copy, start, end };
        let deadline = Instant::now() + self.patience;
        let mut at = start;
        while at < end {
            at = match self.read_kept(&wanted, at, into) {
                Some(at) => at,
                None => self.read_disk(&wanted, at, into, deadline)?,
            };
        }
        Ok(())
    }

    /// Forgets what was read ahead of a place.
    pub(crate) fn forget(&self, place: u32) {
        self.windows.forget_place(place);
    }

    /// Looks for what the kernel has given back.
    pub(crate) fn reap(&self) {
        self.lanes.reap();
    }

    /// The rest of the sector that byte `at` is in, from its window. Returns where it ends. `None`: it is not there.
    fn read_kept(&self, wanted: &Wanted<'_>, at: usize, into: &mut [u8]) -> Option<usize> {
        let mut sector = [0; SECTOR_BYTES];
        let number = at / SECTOR_DATA_BYTES;
        if !self.windows.get(wanted.copy, number, &mut sector) {
            return None;
        }
        let next = wanted.open(number, &mut sector, into);
        if next.is_err() {
            // The disk may have it right.
            self.windows.forget(wanted.copy, number);
        }
        self.counts.window_hits.fetch_add(1, Relaxed);
        next.ok()
    }

    /// The sectors from the one that byte `at` is in, or their window. Returns where they end.
    fn read_disk(
        &self,
        wanted: &Wanted<'_>,
        at: usize,
        into: &mut [u8],
        deadline: Instant,
    ) -> Result<usize, ReadFailure> {
        let Some(mut lane) = self.lanes.take(deadline) else {
            return Err(ReadFailure::Disk(io::ErrorKind::TimedOut.into()));
        };
        // Whoever reads more than a page goes through the whole copy, and won't come back for it.
        let is_page = wanted.end - wanted.start <= WINDOW_BYTES / 2;
        let is_window = is_page && self.windows.is_wanted_again(wanted.copy);
        let read = self.read_sectors(&mut lane, wanted, at, is_window, into, deadline);
        self.lanes.give_back(lane);
        read
    }

    fn read_sectors(
        &self,
        lane: &mut Queue,
        wanted: &Wanted<'_>,
        at: usize,
        is_window: bool,
        into: &mut [u8],
        deadline: Instant,
    ) -> Result<usize, ReadFailure> {
        let number = at / SECTOR_DATA_BYTES;
        let last = (wanted.end - 1) / SECTOR_DATA_BYTES;
        let window = number / WINDOW_SECTORS;
        let sectors = if is_window {
            window * WINDOW_SECTORS..(window + 1) * WINDOW_SECTORS
        } else {
            number..(last + 1).min(number + WINDOW_SECTORS).min(COPY_SECTORS)
        };
        // Once more if it is damaged: it may have happened on the way.
        let mut is_second = false;
        loop {
            self.fetch(lane, wanted, &sectors, deadline).map_err(ReadFailure::Disk)?;
            match wanted.open_all(lane, sectors.start, number..sectors.end.min(last + 1), at, into) {
                Ok(next) => {
                    if is_window {
                        self.keep(lane, wanted.copy, window);
                    }
                    return Ok(next);
                }
                Err(_) if !is_second => is_second = true,
                Err(_) => return Err(ReadFailure::Damaged),
            }
        }
    }

    fn fetch(
        &self,
        lane: &mut Queue,
        wanted: &Wanted<'_>,
        sectors: &std::ops::Range<usize>,
        deadline: Instant,
    ) -> io::Result<()> {
        let offset = copy_offset(wanted.copy.place) + (sectors.start * SECTOR_BYTES) as u64;
        let len_bytes = sectors.len() * SECTOR_BYTES;
        mishap::of_a_read()?;
        let rest = deadline.saturating_duration_since(Instant::now());
        let read_bytes = lane.run(wanted.disk, Operation::Read, offset, len_bytes, rest)?;
        self.counts.disk_reads.fetch_add(1, Relaxed);
        self.counts.disk_read_bytes.fetch_add(read_bytes as u64, Relaxed);
        if read_bytes < len_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn keep(&self, lane: &mut Queue, copy: TierCopy, window: usize) {
        lane.exchange(0, |bytes: &mut Buffer| self.windows.keep(copy, window, bytes));
    }
}

impl Wanted<'_> {
    /// Decrypts sectors of a lane, whose first one is number `first`, from byte `at` on. Returns where they end.
    fn open_all(
        &self,
        lane: &mut Queue,
        first: usize,
        numbers: std::ops::Range<usize>,
        mut at: usize,
        into: &mut [u8],
    ) -> Result<usize, TierError> {
        let mut sector = [0; SECTOR_BYTES];
        for number in numbers {
            debug_assert_eq!(at.max(number * SECTOR_DATA_BYTES), at);
            let from = (number - first) * SECTOR_BYTES;
            let bytes = lane.bytes(0).and_then(|bytes| bytes.get(from..from + SECTOR_BYTES));
            sector.copy_from_slice(bytes.ok_or(TierError::Damaged)?);
            at = self.open(number, &mut sector, into)?;
        }
        Ok(at)
    }

    /// Decrypts a sector and copies what is wanted of it. Returns where that ends.
    fn open(&self, number: usize, sector: &mut Sector, into: &mut [u8]) -> Result<usize, TierError> {
        let data = self.key.open(&self.disk.id, self.copy, number, sector)?;
        let sector_start = number * SECTOR_DATA_BYTES;
        let from = self.start.max(sector_start);
        let to = self.end.min(sector_start + SECTOR_DATA_BYTES);
        into[from - self.start..to - self.start]
            .copy_from_slice(&data[from - sector_start..to - sector_start]);
        Ok(to)
    }
}
