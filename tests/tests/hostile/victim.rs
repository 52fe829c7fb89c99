//! A client that minds its own business: writes pages, reads them, compares every byte, all the time.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{guest::Guest, nbd::Nbd};

/// Pages it has, each written anew in every round.
pub const PAGES: u64 = 256;

/// Guards against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Its disk, over whatever transport.
pub trait Disk: Send + 'static {
    fn put(&mut self, page: u64, bytes: &[u8]) -> io::Result<()>;
    fn get(&mut self, page: u64) -> io::Result<Vec<u8>>;
}

impl Disk for Nbd {
    fn put(&mut self, page: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(page, bytes)
    }

    fn get(&mut self, page: u64) -> io::Result<Vec<u8>> {
        self.read(page)
    }
}

/// A wrong answer makes it panic, which ends its thread as an error would.
impl Disk for Guest {
    fn put(&mut self, page: u64, bytes: &[u8]) -> io::Result<()> {
        self.write((page % 2) as usize, page * 8, bytes);
        Ok(())
    }

    fn get(&mut self, page: u64) -> io::Result<Vec<u8>> {
        Ok(self.read((page / 2 % 2) as usize, page * 8, 4096))
    }
}

pub struct Victim {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

/// Its page of a round: another one each time.
pub fn page(number: u64, round: u64) -> Vec<u8> {
    super::guest::pages(number * 1_000_003 + round, 1)
}

impl Victim {
    pub fn over_nbd(socket: &Path, name: &str) -> Result<Victim> {
        Ok(Victim::start(Nbd::open(socket, name)?))
    }

    pub fn over_vhost_user(socket: &Path) -> Result<Victim> {
        Ok(Victim::start(Guest::connect(socket, 2)?))
    }

    fn start(mut disk: impl Disk) -> Victim {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, done) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            for round in 0.. {
                for number in 0..PAGES {
                    if round > 0 {
                        expect(&mut disk, number, round - 1)?;
                    }
                    disk.put(number, &page(number, round))?;
                }
                done.store(round + 1, Ordering::SeqCst);
                if stopped.load(Ordering::SeqCst) {
                    return (0..PAGES).try_for_each(|number| expect(&mut disk, number, round));
                }
            }
            Ok(())
        });
        Victim { stop, rounds, thread }
    }

    /// Waits until it has written and read all of its pages anew.
    pub fn goes_on(&self, case: &str) -> Result<()> {
        let before = self.rounds.load(Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        while self.rounds.load(Ordering::SeqCst) < before + 2 {
            ensure!(!self.thread.is_finished(), "{case}: the victim has failed");
            ensure!(Instant::now() < deadline, "{case}: the victim is held up");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Has it look at everything once more and end.
    pub fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the victim has panicked"),
        }
    }
}

fn expect(disk: &mut impl Disk, number: u64, round: u64) -> io::Result<()> {
    let found = disk.get(number)?;
    if found == page(number, round) {
        return Ok(());
    }
    Err(io::Error::other(format!("page {number} is not what was written in round {round}")))
}
