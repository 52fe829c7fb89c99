//! A client over NBD that knows what each of its pages may read as.

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{
    contents::{Content, NOTHING, PAGE},
    model::{Fault, Page},
    nbd::{Command, Connection},
    tally::{Tally, add},
    watch::{Excuse, Watch},
};
use crate::Random;

/// A daemon whose worker died is back by then, however busy the machine.
const BACK: Duration = Duration::from_secs(60);
/// What a daemon says of an error is heard by then.
const HEARD: Duration = Duration::from_secs(20);
/// So many pages that are lost are enough to know.
const HOPELESS: u64 = 5;
/// Requests under way at once.
const MOST_REQUESTS: u64 = 8;
/// Between two batches: this is no benchmark, and others want the CPUs.
const PAUSE: Duration = Duration::from_micros(500);
/// Pages with equal contents are written now and then; after so many batches they get others.
const BATCHES_PER_SHARED_CONTENTS: u64 = 400;

/// Where a client's disk is, and whom it tells what it sees.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) socket: PathBuf,
    pub(super) export: String,
    /// The number of the disk's pool.
    pub(super) pool: u16,
    pub(super) watch: &'a Watch,
    pub(super) tally: &'a Tally,
    pub(super) stop: &'a AtomicBool,
}

/// One of several clients of a disk, each with pages of its own.
pub(super) struct Client<'a> {
    place: Place<'a>,
    connection: Option<Connection>,
    pages: Vec<Page>,
    /// Page n of this client is page `n * stride + first` of the disk.
    first: u32,
    stride: u32,
    random: Random,
    contents_made: u64,
    batches: u64,
}

struct Request {
    command: Command,
    page: usize,
    content: Content,
}

impl<'a> Client<'a> {
    /// Of so many pages in all, those from `first` in steps of `stride`.
    pub(super) fn new(place: Place<'a>, pages: u32, first: u32, stride: u32, seed: u64) -> Self {
        let pages = vec![Page::default(); (pages / stride) as usize];
        let random = Random::new(seed ^ (u64::from(first) << 32));
        Self { place, connection: None, pages, first, stride, random, contents_made: 0, batches: 0 }
    }

    /// Reads and writes at random until it is told to stop, then compares all pages once more.
    pub(super) fn run(&mut self, most_batches: u64) {
        while !self.place.stop.load(Relaxed) && self.batches < most_batches {
            self.batches += 1;
            let requests = self.requests();
            self.carry_out(&requests);
            thread::sleep(PAUSE);
        }
        let all: Vec<usize> = (0..self.pages.len()).collect();
        for pages in all.chunks(MOST_REQUESTS as usize) {
            let read = |page: &usize| Request { command: Command::Read, page: *page, content: NOTHING };
            self.carry_out(&pages.iter().map(read).collect::<Vec<_>>());
        }
    }

    fn number(&self, page: usize) -> u32 {
        page as u32 * self.stride + self.first
    }

    /// Some requests for different pages.
    fn requests(&mut self) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        for _ in 0..1 + self.random.below(MOST_REQUESTS) {
            let page = self.random.below(self.pages.len() as u64) as usize;
            if requests.iter().any(|request| request.page == page) {
                continue;
            }
            let (command, content) = match self.random.below(100) {
                0..50 => (Command::Read, NOTHING),
                50..96 => (Command::Write, self.content()),
                _ => (Command::Trim, NOTHING),
            };
            requests.push(Request { command, page, content });
        }
        requests
    }

    /// One in ten is one of a few.
    fn content(&mut self) -> Content {
        self.contents_made += 1;
        if self.random.below(10) == 0 {
            let epoch = self.batches / BATCHES_PER_SHARED_CONTENTS;
            return Content((1 << 63) | (epoch << 8) | (1 + self.random.below(16)));
        }
        Content((u64::from(self.place.pool) << 52) | (u64::from(self.first) << 44) | self.contents_made)
    }

    /// Sends them and takes the answers. Where the connection is lost, each unanswered one may be done or not.
    fn carry_out(&mut self, requests: &[Request]) {
        self.hear_of_damage();
        let since = Instant::now();
        let mut answered = 0;
        let result = self.exchange(requests, &mut answered, since);
        let Err(error) = result else { return };
        if error.kind() == io::ErrorKind::TimedOut || error.kind() == io::ErrorKind::WouldBlock {
            self.place.tally.lost(&format!("{}: no answer: {error}", self.place.export));
        }
        add(&self.place.tally.reconnects);
        self.connection = None;
        for request in requests[answered..].iter().filter(|request| request.command != Command::Read) {
            self.pages[request.page].may_be_written(request.content);
        }
    }

    fn exchange(&mut self, requests: &[Request], answered: &mut usize, since: Instant) -> io::Result<()> {
        let sent: Vec<_> = requests
            .iter()
            .map(|request| (request.command, self.number(request.page), request.content.bytes()))
            .collect();
        if self.connection.is_none() {
            self.connect();
        }
        for request in requests.iter().filter(|request| request.command != Command::Read) {
            self.pages[request.page].begin(request.content);
        }
        let Some(connection) = &mut self.connection else {
            *answered = requests.len(); // nothing was sent
            return Ok(());
        };
        connection.send(&sent)?;
        let mut unread = Vec::new();
        for (cookie, request) in requests.iter().enumerate() {
            let Some(connection) = &mut self.connection else { break };
            let (error, bytes) = connection.answer(request.command, cookie)?;
            *answered = cookie + 1;
            match request.command {
                Command::Read if error != 0 => unread.push(request.page),
                Command::Read => self.compare(request.page, &bytes),
                Command::Write | Command::Trim => self.note_answer(request, error),
            }
        }
        unread.into_iter().for_each(|page| self.explain(page, since));
        Ok(())
    }

    fn note_answer(&mut self, request: &Request, error: u32) {
        let page = &mut self.pages[request.page];
        match (error, request.command) {
            (0, _) => page.is_written(request.content),
            (_, Command::Trim) => page.may_be_written(NOTHING),
            (_, _) => {
                page.is_refused();
                add(&self.place.tally.refused_puts);
            }
        }
        add(&self.place.tally.written_pages);
    }

    fn compare(&mut self, page: usize, bytes: &[u8; PAGE]) {
        add(&self.place.tally.compared_pages);
        let place = (self.place.export.clone(), self.number(page));
        match self.pages[page].found(bytes) {
            Ok(()) => {}
            Err(Fault::Lost) => {
                let zeroes = if *bytes == [0; PAGE] { "nothing" } else { "what was there before" };
                self.place.tally.lost(&format!("page {place:?} has {zeroes}: {:?}", self.pages[page]));
            }
            Err(Fault::Wrong) => {
                let start = &bytes[..16];
                self.place.tally.wrong(&format!("page {place:?} has {start:?}: {:?}", self.pages[page]));
            }
        }
    }

    /// A read found an error: a put was refused, or damage was told, or the page is lost.
    fn explain(&mut self, page: usize, since: Instant) {
        if self.pages[page].may_be_refused() {
            return self.pages[page].found_refused();
        }
        if self.pages[page].is_damaged {
            return;
        }
        let place = (self.place.pool, self.number(page));
        // Where much is lost, the rest is not waited for.
        let is_hopeless = self.place.tally.lost.load(Relaxed) > HOPELESS;
        let deadline = Instant::now() + if is_hopeless { Duration::ZERO } else { HEARD };
        let excuse = loop {
            self.hear_of_damage();
            let found = self.place.watch.lock().excuse(place, since, self.pages[page].may_hold());
            if found.is_some() || Instant::now() > deadline {
                break found;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let tally = self.place.tally;
        match excuse {
            Some(Excuse::Flipped) => add(&tally.flipped),
            Some(Excuse::Torn) => add(&tally.torn),
            Some(Excuse::Unavailable) => return add(&tally.unavailable), // another time it is there
            None => {
                let export = &self.place.export;
                tally.lost(&format!("page {} of {export} is an error: {:?}", place.1, self.pages[page]));
            }
        }
        self.pages[page].is_damaged = true;
    }

    fn hear_of_damage(&self) {
        let own = |(pool, page): (u16, u32)| pool == self.place.pool && page % self.stride == self.first;
        let mut said = self.place.watch.lock();
        for page in said.take_flipped(own) {
            if let Some(page) = self.pages.get((page / self.stride) as usize) {
                said.taint(page.contents());
            }
        }
    }

    fn connect(&mut self) {
        let deadline = Instant::now() + BACK;
        loop {
            match Connection::open(&self.place.socket, &self.place.export) {
                Ok(connection) => return self.connection = Some(connection),
                Err(error) if Instant::now() > deadline => {
                    return self.place.tally.lost(&format!("{} is not back: {error}", self.place.export));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}
