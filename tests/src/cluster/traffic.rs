//! A client of a disk that reads and writes pages, one after the other, and compares what it reads.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    Random,
    daemon::Daemon,
    soak::{
        contents::{Content, NOTHING, PAGE},
        nbd::{Command, Connection},
    },
};

/// What came of some requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Pages that were read.
    pub reads: u64,
    /// Reads that were I/O errors, but for pages of which a write was refused: nobody may get what was there before that.
    pub read_errors: u64,
    /// Pages that were not as they were written.
    pub wrong: u64,
    /// Pages that were written.
    pub writes: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// The longest that a request took.
    pub longest: Duration,
}

/// A disk, and what its pages are.
pub struct Traffic {
    socket: PathBuf,
    name: String,
    connection: Connection,
    /// `None`: a write was refused, which leaves open what is there.
    pages: Vec<Option<Content>>,
    random: Random,
}

impl Traffic {
    /// Adds a disk of so many pages over NBD.
    ///
    /// # Errors
    /// It can't be added.
    pub fn new(daemon: &Daemon, name: &str, pages: u32, seed: u64) -> Result<Self> {
        let socket: PathBuf = daemon.directory().join(format!("{name}.nbd"));
        let size = format!("{}K", pages * 4);
        let place = socket.display().to_string();
        daemon.tmem_ok(&["disk", "add", name, "--size", &size, "--format", "none", "--nbd", &place])?;
        let connection = open(&socket, name)?;
        let (pages, random) = (vec![Some(NOTHING); pages as usize], Random::new(seed));
        Ok(Self { socket, name: name.to_owned(), connection, pages, random })
    }

    /// The same, and writes all of it. What is refused is written again until it is taken.
    ///
    /// # Errors
    /// It can't be added, or a write is refused for good.
    pub fn begin(daemon: &Daemon, name: &str, pages: u32, seed: u64) -> Result<Self> {
        let mut traffic = Self::new(daemon, name, pages, seed)?;
        for page in 0..pages {
            let deadline = Instant::now() + Duration::from_secs(60);
            while traffic.write(page)? != 0 {
                ensure!(Instant::now() < deadline, "page {page} is not taken: {:#}", daemon.status()?);
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(traffic)
    }

    /// Connects anew: the daemon's worker has died.
    ///
    /// # Errors
    /// It can't.
    pub fn connect_again(&mut self) -> Result<()> {
        self.connection = open(&self.socket, &self.name)?;
        Ok(())
    }

    /// Writes all pages once.
    ///
    /// # Errors
    /// The connection ends.
    pub fn write_all(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        for page in 0..self.pages.len() as u32 {
            self.count_write(page, &mut tally)?;
        }
        Ok(tally)
    }

    fn count_write(&mut self, page: u32, tally: &mut Tally) -> Result<()> {
        let begun = Instant::now();
        let error = self.write(page)?;
        tally.longest = tally.longest.max(begun.elapsed());
        tally.writes += 1;
        tally.refused += u64::from(error != 0);
        Ok(())
    }

    fn write(&mut self, page: u32) -> Result<u32> {
        let content = Content(self.random.draw());
        self.pages[page as usize] = None;
        self.connection.send(&[(Command::Write, page, content.bytes())])?;
        let (error, _) = self.connection.answer(Command::Write, 0)?;
        if error == 0 {
            self.pages[page as usize] = Some(content);
        }
        Ok(error)
    }

    /// Reads a page: its errno, and whether it is as it was written.
    fn read(&mut self, page: u32) -> Result<(u32, bool)> {
        self.connection.send(&[(Command::Read, page, [0; PAGE])])?;
        let (error, bytes) = self.connection.answer(Command::Read, 0)?;
        let is_right = self.pages[page as usize].is_none_or(|content| content.bytes() == bytes);
        Ok((error, is_right))
    }

    /// Reads all pages, in their order.
    ///
    /// # Errors
    /// The connection ends.
    pub fn read_all(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        for page in 0..self.pages.len() as u32 {
            self.count_read(page, &mut tally)?;
        }
        Ok(tally)
    }

    fn count_read(&mut self, page: u32, tally: &mut Tally) -> Result<()> {
        let begun = Instant::now();
        let (error, is_right) = self.read(page)?;
        tally.longest = tally.longest.max(begun.elapsed());
        tally.reads += 1;
        let is_open = self.pages[page as usize].is_none();
        tally.read_errors += u64::from(error != 0 && !is_open);
        tally.wrong += u64::from(error == 0 && !is_right);
        Ok(())
    }

    /// Reads random pages, and writes one in four, as long as `meanwhile` takes.
    ///
    /// # Errors
    /// Of either.
    pub fn during<R>(&mut self, meanwhile: impl FnOnce() -> Result<R>) -> Result<(Tally, R)> {
        let is_over = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let over = Arc::clone(&is_over);
            let running = scope.spawn(move || self.run(&over));
            let done = meanwhile();
            is_over.store(true, Relaxed);
            let tally = running.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
            Ok((tally, done?))
        })
    }

    fn run(&mut self, is_over: &AtomicBool) -> Result<Tally> {
        let mut tally = Tally::default();
        while !is_over.load(Relaxed) {
            let page = self.random.below(self.pages.len() as u64) as u32;
            if self.random.below(4) > 0 {
                self.count_read(page, &mut tally)?;
                continue;
            }
            self.count_write(page, &mut tally)?;
        }
        Ok(tally)
    }
}

fn open(socket: &Path, name: &str) -> Result<Connection> {
    let opened: io::Result<Connection> = Connection::open(socket, name);
    opened.with_context(|| format!("cannot connect to {}", socket.display()))
}
