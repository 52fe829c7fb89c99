//! Finding, checking and opening the file or block device.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{FlockOperation, SeekFrom};
use tmem_store::TierState;

use crate::{
    error::FileTierError,
    header::{self, DiskId, Header},
    layout::{HEADER_BYTES, MIN_TIER_BYTES, places_in},
    opener::{self, ByItself, TierOpener},
    queue::{Operation, Outcome, Queue},
    trouble::{self, Trouble},
};

/// What the tier is kept in.
#[derive(Clone, Debug)]
pub struct TierOptions {
    /// A file, which is made if it is not there, or a block device. What is below /dev is never made.
    pub path: PathBuf,
    /// How large a file may become, in bytes; how much of a device is used, if not all.
    pub size_bytes: Option<u64>,
    /// How long the disk may take for a write before the tier counts as failing.
    pub write_patience: Duration,
    /// How long the disk may take for a read before the reader gets an error.
    pub read_patience: Duration,
    /// Who opens it, then and whenever it may have come back.
    pub opener: Arc<dyn TierOpener>,
}

impl TierOptions {
    /// With the usual patience: 10 s for a write, because there are other ways to make room; 30 s for a read, as long as the kernel
    /// gives a disk, because there is no other way to get the page.
    pub fn new(path: impl Into<PathBuf>, size_bytes: Option<u64>) -> Self {
        Self {
            path: path.into(),
            size_bytes,
            write_patience: Duration::from_secs(10),
            read_patience: Duration::from_secs(30),
            opener: Arc::new(ByItself),
        }
    }

    /// Whether the path is one of a device, so that nothing is made there.
    pub(crate) fn is_device(&self) -> bool {
        self.path.starts_with("/dev")
    }
}

/// What is open.
pub(crate) struct Disk {
    pub(crate) file: File,
    pub(crate) id: DiskId,
    pub(crate) places: u32,
    pub(crate) is_device: bool,
    pub(crate) is_writable: bool,
}

/// Why nothing is open.
pub(crate) enum NotOpen {
    /// Somebody has to set it right.
    Refused(FileTierError),
    /// It may pass.
    For(Trouble),
}

impl From<FileTierError> for NotOpen {
    fn from(error: FileTierError) -> Self {
        NotOpen::Refused(error)
    }
}

/// How hard to try.
pub(crate) struct Attempt {
    /// How long one read or write may take.
    pub(crate) patience: Duration,
    /// Until when a lock that is held is waited for: the kernel gives up a dead process's a moment after its end.
    pub(crate) lock_deadline: Instant,
    /// Whether a file is made if there is none.
    pub(crate) may_make: bool,
}

/// How much of the beginning and of the end of a file or device without a header must be zeroes to count as nobody's: file systems,
/// partition tables, RAID and LVM have their marks there.
const BLANK_BYTES: u64 = 1 << 20;

/// Checks what can be checked without a disk.
pub(crate) fn check(options: &TierOptions) -> Result<(), FileTierError> {
    let path = || options.path.clone();
    if !options.path.is_absolute() {
        return Err(FileTierError::Relative { path: path() });
    }
    let Some(size_bytes) = options.size_bytes else { return Ok(()) };
    if size_bytes < MIN_TIER_BYTES {
        return Err(FileTierError::TooSmall { path: path(), size_bytes });
    }
    Ok(())
}

/// Opens the tier, for reading alone if there is no other way. `queue` has one idle slot and is used for the header.
pub(crate) fn open(
    options: &TierOptions,
    queue: &mut Queue,
    attempt: &Attempt,
) -> Result<Arc<Disk>, NotOpen> {
    let patience = attempt.patience;
    let is_device = find(options, attempt.may_make)?;
    let (file, is_writable) = open_file(options, is_device, attempt.lock_deadline)?;
    let path = || options.path.clone();
    let failed = |operation, error: io::Error| NotOpen::For(trouble::of(operation, &error));
    let held_bytes =
        rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| failed(Operation::Read, e.into()))?;
    let size_bytes = match (is_device, options.size_bytes) {
        (true, size_bytes) => size_bytes.unwrap_or(u64::MAX).min(held_bytes),
        (false, Some(size_bytes)) => size_bytes,
        (false, None) => return Err(FileTierError::SizeNeeded { path: path() }.into()),
    };
    if size_bytes < MIN_TIER_BYTES {
        return Err(match size_bytes {
            0 => NotOpen::For((TierState::Missing, "the device is empty".into())),
            _ => FileTierError::TooSmall { path: path(), size_bytes }.into(),
        });
    }
    let mut disk = Disk { file, id: [0; 16], places: places_in(size_bytes), is_device, is_writable };
    // The header is read through a disk of its own, which a read that never ends may keep.
    let nameless =
        Arc::new(Disk { file: disk.file.try_clone().map_err(|e| failed(Operation::Read, e))?, ..disk });
    let first = read_header(queue, &nameless, patience).map_err(|e| failed(Operation::Read, e))?;
    disk.id = match first {
        Header::Ours(id) => id,
        Header::Foreign => return Err(FileTierError::Foreign { path: path() }.into()),
        Header::Damaged => {
            return Err(
                FileTierError::Unreadable { path: path(), why: "whose header is damaged".into() }.into()
            );
        }
        Header::OtherVersion(version) => {
            let why = format!("of another release (layout {version})");
            return Err(FileTierError::Unreadable { path: path(), why }.into());
        }
        Header::Blank => {
            if !is_blank(queue, &nameless, held_bytes, patience).map_err(|e| failed(Operation::Read, e))? {
                return Err(FileTierError::Foreign { path: path() }.into());
            }
            if !is_writable {
                return Err(NotOpen::For((
                    TierState::ReadOnly,
                    "it is empty and can't be written to".into(),
                )));
            }
            let mut id = [0; 16];
            SystemRandom::new().fill(&mut id).map_err(|_| {
                NotOpen::For((TierState::Failing, "the kernel gives no random numbers".into()))
            })?;
            write_header(queue, &nameless, id, patience).map_err(|e| failed(Operation::Write, e))?;
            id
        }
    };
    if !is_device && is_writable && held_bytes < size_bytes {
        // Writes that do not make a file longer can be under way side by side. It takes no space.
        rustix::fs::ftruncate(&disk.file, size_bytes).map_err(|e| failed(Operation::Write, e.into()))?;
    }
    Ok(Arc::new(disk))
}

/// Whether it is a device. A file is made if there is none and it may be.
fn find(options: &TierOptions, may_make: bool) -> Result<bool, NotOpen> {
    let path = &options.path;
    match options.opener.open(path, opener::LOOK).and_then(|found| found.metadata()) {
        Ok(metadata) => {
            let kind = metadata.file_type();
            if kind.is_block_device() {
                return Ok(true);
            }
            if kind.is_file() {
                return check_size(options).map(|()| false);
            }
            let what = match () {
                () if kind.is_dir() => "a directory",
                () if kind.is_socket() => "a socket",
                () if kind.is_fifo() => "a pipe",
                () => "a character device",
            };
            Err(FileTierError::WrongKind { path: path.clone(), what }.into())
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            if !may_make || options.is_device() {
                return Err(missing(path));
            }
            make(options).map(|()| false)
        }
        Err(error) => Err(not_open(path, error)),
    }
}

fn check_size(options: &TierOptions) -> Result<(), NotOpen> {
    let path = options.path.clone();
    let Some(size_bytes) = options.size_bytes else {
        return Err(FileTierError::SizeNeeded { path }.into());
    };
    let limit_bytes = file_size_limit_bytes();
    if size_bytes > limit_bytes {
        // Beyond it there is a signal instead of an error.
        return Err(FileTierError::OverFileSizeLimit { path, size_bytes, limit_bytes }.into());
    }
    Ok(())
}

fn file_size_limit_bytes() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel writes to a value that is valid for it.
    match unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } {
        0 => limit.rlim_cur,
        _ => u64::MAX,
    }
}

fn make(options: &TierOptions) -> Result<(), NotOpen> {
    let path = &options.path;
    check_size(options)?;
    match options.opener.open(path, opener::MAKE) {
        Ok(_) => Ok(()),
        // Somebody else has just made it, and the lock will say who may have it; or it is a link to what is not there.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(missing(path))
        }
        Err(error) => Err(not_open(path, error)),
    }
}

fn missing(path: &Path) -> NotOpen {
    NotOpen::For((TierState::Missing, format!("there is no {}", path.display())))
}

fn open_file(
    options: &TierOptions,
    is_device: bool,
    lock_deadline: Instant,
) -> Result<(File, bool), NotOpen> {
    let path = &options.path;
    let flags = if is_device { opener::WRITE_ALONE } else { opener::WRITE };
    let open = |flags| options.opener.open(path, flags);
    loop {
        match open(flags).and_then(|file| lock(file, is_device)) {
            Ok(file) => return Ok((file, true)),
            Err(error) if is_held(&error) => {
                if Instant::now() >= lock_deadline {
                    return Err(FileTierError::InUse { path: path.clone() }.into());
                }
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) if matches!(trouble::state_after(Operation::Write, &error), TierState::ReadOnly) => {
                // What only reads needs no lock.
                return open(opener::READ).map(|file| (file, false)).map_err(|_| not_open(path, error));
            }
            Err(error) => return Err(not_open(path, error)),
        }
    }
}

fn lock(file: File, is_device: bool) -> io::Result<File> {
    if !is_device {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    }
    Ok(file)
}

fn is_held(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EWOULDBLOCK | libc::ETXTBSY))
}

fn not_open(path: &Path, error: io::Error) -> NotOpen {
    let path = path.to_owned();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => FileTierError::Denied { path, error }.into(),
        Some(libc::EINVAL) => FileTierError::NoDirectIo { path }.into(),
        _ => {
            let text = format!("opening {}: {error}", path.display());
            NotOpen::For((trouble::state_after(Operation::Write, &error), text))
        }
    }
}

/// What the first sector is.
pub(crate) fn read_header(queue: &mut Queue, disk: &Arc<Disk>, patience: Duration) -> io::Result<Header> {
    let len = queue.run(disk, Operation::Read, 0, HEADER_BYTES, patience)?;
    let bytes = queue.bytes(0).and_then(|bytes| bytes.get(..len)).ok_or(ErrorKind::UnexpectedEof)?;
    Ok(header::parse(bytes))
}

/// Writes the first sector.
pub(crate) fn write_header(queue: &mut Queue, disk: &Arc<Disk>, id: DiskId, patience: Duration) -> Outcome {
    let bytes =
        queue.bytes(0).and_then(|bytes| bytes.get_mut(..HEADER_BYTES)).ok_or(ErrorKind::ResourceBusy)?;
    bytes.copy_from_slice(&header::encode(id));
    queue.run(disk, Operation::Write, 0, HEADER_BYTES, patience)
}

fn is_blank(queue: &mut Queue, disk: &Arc<Disk>, held_bytes: u64, patience: Duration) -> io::Result<bool> {
    let step_bytes = queue.bytes(0).ok_or(ErrorKind::ResourceBusy)?.len();
    let last_from = held_bytes.saturating_sub(BLANK_BYTES) / HEADER_BYTES as u64 * HEADER_BYTES as u64;
    for from in [0, last_from.max(BLANK_BYTES)] {
        let mut at = from;
        let end = held_bytes.min(from + BLANK_BYTES + HEADER_BYTES as u64);
        while at < end {
            let len = queue.run(disk, Operation::Read, at, step_bytes, patience)?;
            let bytes = queue.bytes(0).and_then(|bytes| bytes.get(..len)).ok_or(ErrorKind::UnexpectedEof)?;
            if !header::is_blank(bytes) {
                return Ok(false);
            }
            if len == 0 {
                break;
            }
            at += len as u64;
        }
    }
    Ok(true)
}

impl Disk {
    /// Whether there is room for `len_bytes` at `offset`, as far as can be told. Nothing that is there changes.
    pub(crate) fn has_room(&self, offset: u64, len_bytes: usize) -> bool {
        if self.is_device {
            return true;
        }
        match rustix::fs::fallocate(
            self.file.as_fd(),
            rustix::fs::FallocateFlags::KEEP_SIZE,
            offset,
            len_bytes as u64,
        ) {
            Err(error) => trouble::state_after(Operation::Write, &error.into()) != TierState::Full,
            Ok(()) => true,
        }
    }
}
