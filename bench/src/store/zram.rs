//! zram as a keeper: a device of its own, made for the run and removed after it.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::keeper::Keeper;
use crate::{
    error::BenchError,
    page::{PAGE_BYTES, Page},
};

const CONTROL: &str = "/sys/class/zram-control";

/// What zram's own figure leaves out: an entry of its table is a handle and a word of flags (`struct zram_table_entry`).
const TABLE_BYTES_PER_PAGE: u64 = 16;

/// Something that has just closed the device, as udev does, may still hold it: how often and how long to wait for that.
const TRIES: u32 = 50;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A zram device of our own. Dropping it resets and removes it.
pub(super) struct Zram {
    number: u32,
    pages: usize,
    /// Open while there is something in it.
    disk: Option<File>,
    /// A node of our own, for where /dev has none.
    folder: Option<TempDir>,
}

impl Zram {
    /// Makes an empty device with lz4 for that many pages. Errors, in words: why there can be none here.
    pub(super) fn new(pages: usize) -> Result<Self, String> {
        let hot_add = format!("{CONTROL}/hot_add");
        // Reading adds a device: once, and no more than once.
        let mut number = [0; 16];
        let read =
            File::open(&hot_add).and_then(|mut file| file.read(&mut number)).map_err(|error| match error
                .kind()
            {
                io::ErrorKind::NotFound => {
                    format!(
                        "{CONTROL} is missing; load the module first (modprobe zram), if this kernel has it"
                    )
                }
                io::ErrorKind::PermissionDenied => format!("{hot_add}: {error}; run this as root"),
                _ => format!("{hot_add}: {error}"),
            })?;
        let number = str::from_utf8(&number[..read]).ok().and_then(|number| number.trim().parse().ok());
        let number = number.ok_or_else(|| format!("{hot_add} does not say which device it made"))?;
        let mut zram = Self { number, pages, disk: None, folder: None };
        zram.start().map_err(|(doing, error)| format!("zram{number}: {doing} failed: {error}"))?;
        Ok(zram)
    }

    /// Forgets everything: an empty device again.
    pub(super) fn restart(&mut self) -> Result<(), BenchError> {
        let stopped = self.stop().map_err(|error| ("reset".to_owned(), error));
        stopped.and_then(|()| self.start()).map_err(|(doing, error)| BenchError::Zram {
            doing: format!("{doing} of zram{}", self.number),
            error,
        })
    }

    /// Memory held for what is in it, its table included, in bytes; and what that would take as it is.
    pub(super) fn held_and_logical_bytes(&self) -> Result<(u64, u64), BenchError> {
        let path = self.setting("mm_stat");
        let failed = |error| BenchError::Zram { doing: format!("reading {}", path.display()), error };
        let figures = fs::read_to_string(&path).map_err(failed)?;
        let figures: Vec<u64> = figures.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
        // orig_data_size, compr_data_size, mem_used_total, ...
        let [logical_bytes, _, used_bytes, ..] = figures[..] else {
            return Err(failed(io::Error::other("not the figures of a zram device")));
        };
        Ok((used_bytes + self.pages as u64 * TABLE_BYTES_PER_PAGE, logical_bytes))
    }

    fn start(&mut self) -> Result<(), (String, io::Error)> {
        let bytes = (self.pages * PAGE_BYTES).to_string();
        for (name, value) in [("comp_algorithm", "lz4"), ("disksize", &bytes)] {
            let doing = |error| (format!("setting {name} to {value}"), error);
            fs::write(self.setting(name), value).map_err(doing)?;
        }
        let node = self.node().map_err(|error| ("making a device node".to_owned(), error))?;
        let disk = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&node);
        self.disk = Some(disk.map_err(|error| (format!("opening {}", node.display()), error))?);
        Ok(())
    }

    fn stop(&mut self) -> io::Result<()> {
        self.disk = None;
        patiently(|| fs::write(self.setting("reset"), "1"))
    }

    fn setting(&self, name: &str) -> PathBuf {
        format!("/sys/block/zram{}/{name}", self.number).into()
    }

    /// The device's node: the system's, if it is this device's, else one of our own that nobody else can open.
    fn node(&mut self) -> io::Result<PathBuf> {
        let numbers = fs::read_to_string(self.setting("dev"))?;
        let numbers = numbers.trim().split_once(':');
        let numbers = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = numbers.ok_or_else(|| io::Error::other("no device number"))?;
        let device = libc::makedev(major, minor);
        let node = PathBuf::from(format!("/dev/zram{}", self.number));
        if fs::metadata(&node)
            .is_ok_and(|found| found.file_type().is_block_device() && found.rdev() == device)
        {
            return Ok(node);
        }
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => tempfile::Builder::new().prefix("tmem-bench-").tempdir()?,
        };
        let node = self.folder.insert(folder).path().join("zram");
        if !node.exists() {
            make_node(&node, device)?;
        }
        Ok(node)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let number = self.number;
        let removed = self
            .stop()
            .and_then(|()| patiently(|| fs::write(format!("{CONTROL}/hot_remove"), number.to_string())));
        if let Err(error) = removed {
            eprintln!(
                "zram{number} could not be removed: {error}; when nothing uses it any more: \
                 echo 1 > /sys/block/zram{number}/reset; echo {number} > {CONTROL}/hot_remove"
            );
        }
    }
}

impl Keeper for Zram {
    const NAME: &'static str = "zram";

    fn put(&self, place: usize, page: &Page) -> Result<(), BenchError> {
        let wrote = self.disk().and_then(|disk| disk.write_all_at(&page.0, offset(place)));
        wrote.map_err(|error| self.failed("writing", place, error))
    }

    fn get(&self, place: usize, target: &mut Page) -> Result<(), BenchError> {
        let read = self.disk().and_then(|disk| disk.read_exact_at(&mut target.0, offset(place)));
        read.map_err(|error| self.failed("reading", place, error))
    }
}

impl Zram {
    fn disk(&self) -> io::Result<&File> {
        self.disk.as_ref().ok_or_else(|| io::Error::other("the device is not open"))
    }

    fn failed(&self, doing: &str, place: usize, error: io::Error) -> BenchError {
        BenchError::Zram { doing: format!("{doing} page {place} of zram{}", self.number), error }
    }
}

fn offset(place: usize) -> u64 {
    (place * PAGE_BYTES) as u64
}

/// Tries again for a while as long as the device is busy.
fn patiently(mut action: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..TRIES {
        match action() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(TRY_AGAIN_AFTER),
            done => return done,
        }
    }
    action()
}

fn make_node(path: &Path, device: libc::dev_t) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string that ends with 0 and lives until the call is over.
    if unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, device) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
