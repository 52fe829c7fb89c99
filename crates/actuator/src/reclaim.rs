//! Has a cgroup keep so much: a limit for what it will use, and what it has beyond it reclaimed.
//!
//! Both can take the kernel long, as the pages are swapped out, and cannot be given up. So it is done step by step, on a thread that may wait,
//! and whoever told goes on after a while. A later target takes the place of an earlier one.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{
    ActuatorError,
    cgroup::{current_bytes, file_error},
};

/// What is reclaimed at once, in bytes: a tenth of a second on a disk of 160 MB/s, after which a later target is seen.
const STEP_BYTES: u64 = 16 << 20;
/// How many threads may wait for the kernel: one that reclaims, and one with a later target.
const MAX_TURNS: usize = 2;

/// A cgroup that is told targets.
pub(crate) struct Reclaim {
    directory: PathBuf,
    /// How often it was told.
    told: AtomicU64,
    /// How many are at it.
    turns: AtomicUsize,
}

/// One telling.
pub(crate) struct Turn {
    reclaim: Arc<Reclaim>,
    number: u64,
}

impl Reclaim {
    pub(crate) fn new(directory: PathBuf) -> Reclaim {
        Reclaim { directory, told: AtomicU64::new(0), turns: AtomicUsize::new(0) }
    }

    /// From here on earlier ones end as soon as they can.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Turn, ActuatorError> {
        if self.turns.fetch_add(1, Ordering::SeqCst) >= MAX_TURNS {
            self.turns.fetch_sub(1, Ordering::SeqCst);
            return Err(ActuatorError::Busy { place: self.directory.clone() });
        }
        let number = self.told.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Turn { reclaim: Arc::clone(self), number })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.reclaim.turns.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Turn {
    /// What there is beyond the target is reclaimed until then, and the limit set. Without a target there is no limit. The kernel reclaims what is left
    /// when the limit is set, and goes on whenever the cgroup takes more.
    pub(crate) fn tell(self, target: Option<u64>, until: Instant) -> Result<(), ActuatorError> {
        let directory = &self.reclaim.directory;
        if let Some(target_bytes) = target {
            self.reclaim_to(target_bytes, until)?;
        }
        if !self.is_last() {
            return Ok(());
        }
        let limit = target.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        let path = directory.join("memory.high");
        write(&path, &limit).map_err(|error| file_error(&path, error))
    }

    fn reclaim_to(&self, target_bytes: u64, until: Instant) -> Result<(), ActuatorError> {
        let path = self.reclaim.directory.join("memory.reclaim");
        let mut before_bytes = u64::MAX;
        while self.is_last() && Instant::now() < until {
            let more_bytes = current_bytes(&self.reclaim.directory)?.saturating_sub(target_bytes);
            // What takes as fast as it is taken from only the limit can hold.
            if more_bytes == 0 || more_bytes >= before_bytes {
                break;
            }
            before_bytes = more_bytes;
            match write(&path, &more_bytes.min(STEP_BYTES).to_string()) {
                Ok(()) => {}
                // Less could be reclaimed than was asked for: what is left stays for the limit.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Kernels before 5.19 have the limit alone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(file_error(&path, error)),
            }
        }
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.reclaim.told.load(Ordering::SeqCst) == self.number
    }
}

/// Since Linux 6.16 a limit that is set so does not wait until what is beyond it is reclaimed.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[test]
    fn a_later_target_takes_the_place_of_an_earlier_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name| directory.path().join(name);
        for (name, text) in [("memory.current", "9\n"), ("memory.high", "max"), ("memory.reclaim", "")] {
            fs::write(file(name), text).expect("a file");
        }
        let read = |name| fs::read_to_string(file(name)).expect("a file");
        let until = Instant::now() + Duration::from_secs(60);
        let reclaim = Arc::new(Reclaim::new(directory.path().into()));
        let earlier = reclaim.begin().expect("a turn");
        let later = reclaim.begin().expect("a turn");
        // The kernel is still at both: no third thread waits for it.
        assert!(matches!(reclaim.begin(), Err(ActuatorError::Busy { .. })));
        later.tell(Some(7), until).expect("told");
        assert_eq!((read("memory.high"), read("memory.reclaim")), ("7".into(), "2".into()));
        earlier.tell(Some(5), until).expect("nothing to tell");
        assert_eq!((read("memory.high"), read("memory.reclaim")), ("7".into(), "2".into()));
        reclaim.begin().expect("a turn").tell(None, until).expect("told");
        assert_eq!(read("memory.high"), "max");
    }
}
