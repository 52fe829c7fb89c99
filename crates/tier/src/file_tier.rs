//! The tier as the store sees it.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::fs::FallocateFlags;
use tmem_store::{Tier, TierCopy, TierError, TierKey, TierState, TierWrite};

use crate::{
    discarded::Discarded,
    disk::{self, Attempt, Disk, NotOpen, TierOptions},
    error::FileTierError,
    health::Health,
    layout::{COPY_BYTES, HEADER_BYTES, copy_offset, places_in},
    queue::Operation,
    reader::{ReadFailure, Reader},
    sectors::SectorKey,
    trouble::{self, Trouble},
    writer::{WriteFailure, Writer},
};

/// A process that was killed holds its lock until the kernel is done with its last requests.
const START_LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A test that takes longer tells enough.
const TEST_PATIENCE: Duration = Duration::from_secs(2);

/// Fewer discarded places side by side, 1 MiB, are left for the next copies: to give them back and take them again costs more than it gains.
const MIN_HOLE_PLACES: u32 = 8;
/// What one [`FileTier::probe`] gives back at most, 66 MiB.
const MAX_HOLE_PLACES: u32 = 512;

/// What a tier has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTierCounters {
    /// Copies written.
    pub written_copies: u64,
    /// Reads that went to the disk.
    pub disk_reads: u64,
    /// What these brought, in bytes.
    pub disk_read_bytes: u64,
    /// Sectors that had been read ahead when they were asked for.
    pub window_hits: u64,
}

/// A file or block device that keeps copies of extents.
///
/// A tier whose disk is missing, read-only, full or failing is there all the same, in that [state](Tier::state). It tries again by itself,
/// once a second at most, when something is to be written and in [`FileTier::probe`].
pub struct FileTier {
    options: TierOptions,
    health: Health,
    key: OnceLock<SectorKey>,
    disk: RwLock<Option<Arc<Disk>>>,
    places: AtomicU32,
    reader: Reader,
    writing: Mutex<Writing>,
    discarded: Discarded,
    written_copies: AtomicU64,
}

/// What the one thread that writes has to itself. It is held while the disk writes; nobody else waits for it.
struct Writing {
    writer: Writer,
    /// The places that there was no room for.
    full_at: Vec<u32>,
    /// Where the search for holes goes on. `None`: the file system has no holes.
    hole_at: Option<u32>,
}

/// A disk does not take copies.
struct Fault {
    /// It gives them.
    is_readable: bool,
    trouble: Trouble,
}

impl Writing {
    /// Whether the disk takes copies.
    fn test(&mut self, disk: &Arc<Disk>, patience: Duration) -> Result<(), Fault> {
        let failed = |(operation, error): (Operation, io::Error)| Fault {
            is_readable: operation == Operation::Write,
            trouble: trouble::of(operation, &error),
        };
        self.writer.test(disk, patience).map_err(failed)?;
        if !disk.is_writable {
            return Err(Fault { is_readable: true, trouble: not_writable() });
        }
        if self.full_at.iter().any(|&place| !disk.has_room(copy_offset(place), COPY_BYTES)) {
            return Err(failed((Operation::Write, io::Error::from_raw_os_error(libc::ENOSPC))));
        }
        self.full_at.clear();
        Ok(())
    }
}

impl FileTier {
    /// Opens a tier, or makes it. What it holds stays. Errors: the options are wrong, or what is there is not for tmem to use.
    pub fn new(options: TierOptions) -> Result<Self, FileTierError> {
        disk::check(&options)?;
        let setup = |error| FileTierError::Setup { error };
        let mut writer = Writer::new(options.write_patience).map_err(setup)?;
        let reader = Reader::new(options.read_patience).map_err(setup)?;
        let health = Health::new(options.path.display().to_string());
        let queue = writer.idle_queue().ok_or_else(|| setup(io::ErrorKind::ResourceBusy.into()))?;
        let attempt = Attempt {
            patience: options.write_patience,
            lock_deadline: Instant::now() + START_LOCK_PATIENCE,
            may_make: true,
        };
        let opened = match disk::open(&options, queue, &attempt) {
            Ok(disk) => Some(disk),
            Err(NotOpen::Refused(error)) => return Err(error),
            Err(NotOpen::For(trouble)) => {
                health.fail(trouble);
                None
            }
        };
        // A file has the places that the options say, even if it is not there just now.
        let places = options.size_bytes.filter(|_| !options.is_device()).map_or(0, places_in);
        let holes = !opened.as_ref().is_some_and(|disk| disk.is_device) && places > 0;
        let tier = Self {
            health,
            key: OnceLock::new(),
            disk: RwLock::new(None),
            places: AtomicU32::new(0),
            reader,
            writing: Mutex::new(Writing { writer, full_at: Vec::new(), hole_at: holes.then_some(0) }),
            discarded: Discarded::new(if holes { places } else { 0 }),
            written_copies: AtomicU64::new(0),
            options,
        };
        match opened {
            Some(disk) => tier.use_disk(disk),
            None => tier.places.store(places, Relaxed),
        }
        Ok(tier)
    }

    /// What the daemon's background thread does for it, once a second or so: tries again if the tier does not work, and gives long runs of
    /// discarded places back to the file system. May wait for the disk. Does nothing while another thread writes.
    pub fn probe(&self) {
        self.reader.reap();
        let Ok(mut writing) = self.writing.try_lock() else { return };
        if self.health.is_due() {
            self.try_again(&mut writing);
        }
        self.punch_holes(&mut writing);
    }

    /// Nobody needs any of its copies: gives a file's space back. For a store that is new, whose key opens nothing that may be there, and at
    /// an orderly end, when the key goes. Nothing does so by itself: after any other end the next process may have the key.
    pub fn clear(&self) {
        let mut writing = self.lock_writing();
        let Some(disk) = self.disk().filter(|disk| !disk.is_device && disk.is_writable) else { return };
        if writing.writer.idle_queue().is_none() {
            return;
        }
        let cleared = rustix::fs::fstat(&disk.file).and_then(|found| {
            rustix::fs::ftruncate(&disk.file, HEADER_BYTES as u64)?;
            rustix::fs::ftruncate(&disk.file, found.st_size as u64)
        });
        if let Err(error) = cleared {
            log::warn!("tier {} keeps its space: {error}", self.name());
        }
    }

    /// What it has done.
    pub fn counters(&self) -> FileTierCounters {
        let reads = &self.reader.counts;
        FileTierCounters {
            written_copies: self.written_copies.load(Relaxed),
            disk_reads: reads.disk_reads.load(Relaxed),
            disk_read_bytes: reads.disk_read_bytes.load(Relaxed),
            window_hits: reads.window_hits.load(Relaxed),
        }
    }

    fn disk(&self) -> Option<Arc<Disk>> {
        // One value, whole whatever happened to another thread.
        self.disk.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock_writing(&self) -> MutexGuard<'_, Writing> {
        // The queue knows which of its buffers the kernel has, whatever happened to another thread.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn use_disk(&self, disk: Arc<Disk>) {
        self.places.fetch_max(disk.places, Relaxed);
        let is_writable = disk.is_writable;
        *self.disk.write().unwrap_or_else(PoisonError::into_inner) = Some(disk);
        match is_writable {
            true => self.health.recover(),
            false => self.health.fail(not_writable()),
        }
    }

    /// Finds out how the tier is now.
    fn try_again(&self, writing: &mut Writing) {
        let patience = self.options.write_patience.min(TEST_PATIENCE);
        let old = self.disk();
        let fault = match old.as_ref().map(|disk| writing.test(disk, patience)) {
            Some(Ok(())) => return self.health.recover(),
            Some(Err(fault)) => Some(fault),
            None => None,
        };
        // Another disk may be there now, or the same one in another way. What has been used once is not made again: where its file system
        // should be there may be an empty directory.
        let attempt = Attempt { patience, lock_deadline: Instant::now(), may_make: old.is_none() };
        let opened = match writing.writer.idle_queue() {
            Some(queue) => disk::open(&self.options, queue, &attempt),
            None => Err(NotOpen::For(trouble::of(Operation::Write, &io::ErrorKind::TimedOut.into()))),
        };
        // What can be read is not given up for anything else.
        let is_kept = fault.as_ref().is_some_and(|fault| fault.is_readable);
        match (opened, fault) {
            (Ok(new), _) if !is_kept || (new.is_writable && old.is_some_and(|old| old.id == new.id)) => {
                self.use_disk(new);
            }
            (Err(NotOpen::For(trouble)), fault)
                if !is_kept && (fault.is_none() || trouble.0 == TierState::Missing) =>
            {
                self.health.fail(trouble);
            }
            // What is open says more about it than that it can't be opened twice.
            (_, Some(fault)) => self.health.fail(fault.trouble),
            (Err(NotOpen::Refused(error)), None) => {
                self.health.fail((TierState::Failing, error.to_string()));
            }
            (_, None) => (),
        }
    }

    fn punch_holes(&self, writing: &mut Writing) {
        let (Some(disk), Some(from)) = (self.disk(), writing.hole_at) else { return };
        if !disk.is_writable || disk.is_device {
            return;
        }
        // The kernel may still have writes to places that count as discarded. They would only fill them again.
        // A full disk needs every one.
        let min = if self.health.state() == TierState::Full { 1 } else { MIN_HOLE_PLACES };
        let Some(run) = self.discarded.run_from(from, min, MAX_HOLE_PLACES) else {
            writing.hole_at = Some(0);
            return;
        };
        let (start, end) = (copy_offset(run.start), copy_offset(run.end));
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        writing.hole_at = match rustix::fs::fallocate(&disk.file, punch, start, end - start) {
            Ok(()) => {
                run.clone().for_each(|place| self.discarded.remove(place));
                Some(run.end)
            }
            Err(rustix::io::Errno::OPNOTSUPP) => None,
            Err(_) => Some(run.end),
        };
    }

    fn write_failed(&self, writing: &mut Writing, copies: &[TierWrite<'_>], error: io::Error) -> TierError {
        // There may be something now, which nobody needs.
        copies.iter().for_each(|write| self.discarded.insert(write.copy.place));
        let trouble = trouble::of(Operation::Write, &error);
        if trouble.0 == TierState::Full {
            writing.full_at.clear();
            writing.full_at.extend(copies.iter().map(|write| write.copy.place));
        }
        self.health.fail(trouble);
        self.health.refusal()
    }
}

impl Tier for FileTier {
    fn name(&self) -> &str {
        self.health.name()
    }

    fn kind(&self) -> &'static str {
        "file"
    }

    fn places(&self) -> u32 {
        self.places.load(Relaxed)
    }

    fn use_key(&self, key: &TierKey) {
        match SectorKey::new(key) {
            Ok(key) => drop(self.key.set(key)),
            Err(error) => self.health.fail((TierState::Failing, error.to_string())),
        }
    }

    fn write(&self, copies: &[TierWrite<'_>]) -> Result<(), TierError> {
        let key = self.key.get().ok_or_else(no_key)?;
        let mut writing = self.lock_writing();
        if self.health.is_due() {
            self.try_again(&mut writing);
        }
        let disk = match self.health.state() {
            TierState::Ready => self.disk().ok_or_else(|| self.health.refusal())?,
            _ => return Err(self.health.refusal()),
        };
        for write in copies {
            self.discarded.remove(write.copy.place);
        }
        match writing.writer.write(&disk, key, copies) {
            Ok(()) => {
                self.written_copies.fetch_add(copies.len() as u64, Relaxed);
                Ok(())
            }
            Err(WriteFailure::Never(error)) => Err(error),
            Err(WriteFailure::Disk(error)) => Err(self.write_failed(&mut writing, copies, error)),
        }
    }

    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        let key = self.key.get().ok_or_else(no_key)?;
        let disk = self.disk().ok_or_else(|| self.health.refusal())?;
        match self.reader.read(&disk, key, copy, start, into) {
            Ok(()) => Ok(()),
            Err(ReadFailure::Damaged) => Err(TierError::Damaged),
            // Somebody has cut the file: what is gone does not come back.
            Err(ReadFailure::Disk(error))
                if error.kind() == io::ErrorKind::UnexpectedEof && !disk.is_device =>
            {
                Err(TierError::Damaged)
            }
            Err(ReadFailure::Disk(error)) => {
                self.health.fail(trouble::of(Operation::Read, &error));
                Err(self.health.refusal())
            }
        }
    }

    fn discard(&self, place: u32) {
        self.reader.forget(place);
        self.discarded.insert(place);
    }

    fn state(&self) -> TierState {
        self.health.state()
    }

    fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }
}

impl fmt::Debug for FileTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTier").field("name", &self.name()).field("state", &self.state()).finish()
    }
}

fn not_writable() -> Trouble {
    (TierState::ReadOnly, "it can't be written to".into())
}

fn no_key() -> TierError {
    TierError::Unavailable("the tier has no key yet".into())
}
