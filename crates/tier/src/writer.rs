//! Writing copies.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES, TierError, TierWrite};

use crate::{
    disk::{self, Disk},
    header::{DiskId, Header},
    layout::{COPY_BYTES, SECTOR_BYTES, SECTOR_DATA_BYTES, copy_offset},
    mishap::Mishap,
    queue::{Operation, Outcome, Queue},
    sectors::{Sector, SectorKey},
};

/// Copies of one request, 528 KiB: takes a fifth less CPU than requests of half the size.
const REQUEST_COPIES: usize = 4;
/// Requests that are encrypted or under way at once: while the disk has one, another waits for it.
const REQUESTS: usize = 3;

/// Why copies were not written.
pub(crate) enum WriteFailure {
    /// The disk did not take them.
    Disk(io::Error),
    /// They can't be written anywhere.
    Never(TierError),
}

impl From<io::Error> for WriteFailure {
    fn from(error: io::Error) -> Self {
        WriteFailure::Disk(error)
    }
}

/// Writes copies, one batch after the other: encrypts what comes next while the disk has what came before. Its memory, 1.5 MiB, is there
/// from the start.
pub(crate) struct Writer {
    queue: Queue,
    patience: Duration,
    /// When the disk was given the first request of a batch, or was last done with one.
    progress: Instant,
}

impl Writer {
    /// Errors: as those of [`Queue::new`].
    pub(crate) fn new(patience: Duration) -> io::Result<Self> {
        Ok(Self {
            queue: Queue::new(REQUESTS, REQUEST_COPIES * COPY_BYTES)?,
            patience,
            progress: Instant::now(),
        })
    }

    /// For the header. `None`: the disk still has what it was given earlier, and may write it at any time. Nothing else must be written
    /// until then: an old copy could come down on a new one.
    pub(crate) fn idle_queue(&mut self) -> Option<&mut Queue> {
        if self.queue.settle() { Some(&mut self.queue) } else { None }
    }

    /// Writes copies to different places. Returns when all are written. Errors: some may be.
    pub(crate) fn write(
        &mut self,
        disk: &Arc<Disk>,
        key: &SectorKey,
        copies: &[TierWrite<'_>],
    ) -> Result<(), WriteFailure> {
        let order = order(copies).ok_or_else(|| never("these are no copies for one batch"))?;
        let mut order = &order[..copies.len()];
        if order.last().is_some_and(|&last| copies[last].copy.place >= disk.places) {
            return Err(never("there is no such place"));
        }
        if self.idle_queue().is_none() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        let mishap = Mishap::of_a_batch();
        self.progress = Instant::now();
        let written = loop {
            let Some(&first) = order.first() else { break Ok(()) };
            let slot = match self.idle_slot() {
                Ok(slot) => slot,
                Err(error) => break Err(error.into()),
            };
            let run = run_length(copies, order);
            let (now, later) = order.split_at(run);
            let bytes = self.queue.bytes(slot).unwrap_or_default();
            if let Err(error) = encrypt(key, &disk.id, now.iter().map(|&at| copies[at]), bytes) {
                break Err(WriteFailure::Never(error));
            }
            let offset = copy_offset(copies[first].copy.place);
            let len_bytes = mishap.bytes_that_arrive(now.iter().map(|&at| copies[at].copy));
            if len_bytes > 0
                && let Err(error) = self.queue.start(slot, disk, Operation::Write, offset, len_bytes)
            {
                break Err(error.into());
            }
            self.queue.submit();
            order = later;
        };
        // Whatever was begun ends before anything else begins.
        let ended = self.end().and(mishap.outcome());
        written.and(ended.map_err(WriteFailure::Disk))
    }

    /// Whether the disk works: its header can be read, is what it was, and can be written. Nothing that is there changes.
    pub(crate) fn test(
        &mut self,
        disk: &Arc<Disk>,
        patience: Duration,
    ) -> Result<(), (Operation, io::Error)> {
        let unread = |error| (Operation::Read, error);
        let queue = self.idle_queue().ok_or_else(|| unread(io::ErrorKind::TimedOut.into()))?;
        let header = disk::read_header(queue, disk, patience).map_err(unread)?;
        if header != Header::Ours(disk.id) {
            return Err(unread(io::Error::other("its header is not what it was")));
        }
        if disk.is_writable {
            disk::write_header(queue, disk, disk.id, patience).map_err(|error| (Operation::Write, error))?;
        }
        Ok(())
    }

    fn idle_slot(&mut self) -> io::Result<usize> {
        loop {
            if let Some(slot) = self.queue.idle_slot() {
                return Ok(slot);
            }
            self.finished()??;
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let mut first_error = None;
        while self.queue.is_busy() {
            match self.finished() {
                Ok(Ok(_)) => (),
                Ok(Err(error)) => first_error = first_error.or(Some(error)),
                Err(error) => {
                    self.queue.abandon();
                    return Err(first_error.unwrap_or(error));
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn finished(&mut self) -> io::Result<Outcome> {
        let (_, outcome) = self.queue.finished(self.progress + self.patience)?;
        self.progress = Instant::now();
        Ok(outcome)
    }
}

fn never(why: &str) -> WriteFailure {
    WriteFailure::Never(TierError::Unavailable(why.into()))
}

/// The copies by place. `None`: too many, of the wrong length, or two for the same place.
fn order(copies: &[TierWrite<'_>]) -> Option<[usize; MAX_TIER_BATCH]> {
    if copies.len() > MAX_TIER_BATCH || copies.iter().any(|write| write.extent.len() != TIER_EXTENT_BYTES) {
        return None;
    }
    let mut order: [usize; MAX_TIER_BATCH] = std::array::from_fn(|at| at);
    let used = &mut order[..copies.len()];
    used.sort_unstable_by_key(|&at| copies[at].copy.place);
    let same = used.windows(2).any(|pair| copies[pair[0]].copy.place == copies[pair[1]].copy.place);
    (!same).then_some(order)
}

/// How many of the next copies, by place, stand side by side and fit into a request.
fn run_length(copies: &[TierWrite<'_>], order: &[usize]) -> usize {
    let follows = |pair: &&[usize]| copies[pair[1]].copy.place == copies[pair[0]].copy.place + 1;
    1 + order.windows(2).take(REQUEST_COPIES - 1).take_while(follows).count()
}

/// Lays copies side by side, encrypted.
fn encrypt<'a>(
    key: &SectorKey,
    disk: &DiskId,
    copies: impl Iterator<Item = TierWrite<'a>>,
    bytes: &mut [u8],
) -> Result<(), TierError> {
    for (TierWrite { copy, extent, .. }, room) in copies.zip(bytes.chunks_exact_mut(COPY_BYTES)) {
        let (sectors, _) = room.as_chunks_mut::<SECTOR_BYTES>();
        for (number, (sector, data)) in sectors.iter_mut().zip(extent.chunks(SECTOR_DATA_BYTES)).enumerate() {
            fill(sector, data);
            key.seal(disk, copy, number, sector)?;
        }
    }
    Ok(())
}

fn fill(sector: &mut Sector, data: &[u8]) {
    let (start, rest) = sector.split_at_mut(data.len());
    start.copy_from_slice(data);
    rest.fill(0);
}
