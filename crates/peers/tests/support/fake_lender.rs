//! A lender made of frames and a map, that misbehaves when it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tmem_cluster::{
    Epoch, NodeName,
    wire::{Encoder, Frame, FrameReader, Get, Hello, MAX_COPIES, Message, PutResult, Reason, Run, Runs},
};
use tmem_peers::{Identity, Member, Security, Stream, say};
use tmem_store::TierCopy;

/// All nodes of the tests.
pub const CLUSTER: u128 = 0xfeed << 64;

/// What a lender does instead of what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing: it is a good one.
    None,
    /// It cannot be reached, but keeps what it has.
    Away,
    /// It takes what comes and says nothing at all.
    Mute,
    /// It answers pings alone.
    OnlyPings,
    /// It does not even read.
    Stuck,
    /// A bit of what is got or fetched is wrong.
    WrongBits,
    /// What is got is too short.
    TooShort,
    /// Of what is got the last is missing.
    TooFew,
    /// It takes so long for a get, in milliseconds.
    Slow(u64),
    /// It ends the connection in the middle of an answer to a get.
    CutsOff,
    /// It answers something else than it was asked.
    Confused,
    /// A bit of a frame is wrong.
    DamagedFrames,
}

/// Runs and their bytes.
type Content = Vec<(Run, Vec<u8>)>;

struct State {
    epoch: u64,
    mischief: Mischief,
    room_bytes: u64,
    /// Of which store the copies are.
    store: u64,
    copies: BTreeMap<u32, (u64, Content)>,
    /// Places of copies of an epoch that is over: nobody knows of them any more.
    stale: BTreeSet<u32>,
    /// What is asked back from whoever connects, and in how many milliseconds it is dropped.
    recalled: Option<(u32, Vec<TierCopy>)>,
    connections: Vec<Arc<Stream>>,
    is_over: bool,
}

pub struct FakeLender {
    name: NodeName,
    address: String,
    state: Mutex<State>,
    security: Security,
    pub gets: AtomicU64,
    pub lists: AtomicU64,
}

impl FakeLender {
    pub fn start(name: &str, room_bytes: u64) -> Arc<Self> {
        Self::secure(name, room_bytes, Security::Plain)
    }

    pub fn secure(name: &str, room_bytes: u64, security: Security) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lender = Arc::new(Self {
            name: name.parse().unwrap(),
            address: listener.local_addr().unwrap().to_string(),
            state: Mutex::new(State {
                epoch: 1,
                mischief: Mischief::None,
                room_bytes,
                store: 0,
                copies: BTreeMap::new(),
                stale: BTreeSet::new(),
                recalled: None,
                connections: Vec::new(),
                is_over: false,
            }),
            security,
            gets: AtomicU64::new(0),
            lists: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&lender);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if accepting.state().is_over {
                    return;
                }
                if accepting.state().mischief == Mischief::Away {
                    continue;
                }
                let serving = Arc::clone(&accepting);
                let socket = socket.unwrap();
                std::thread::spawn(move || {
                    let time = Duration::from_secs(5);
                    if let Ok(stream) = Stream::accept(socket, &serving.security, time) {
                        serving.serve(&Arc::new(stream));
                    }
                });
            }
        });
        lender
    }

    pub fn member(&self) -> Member {
        Member { name: self.name, address: self.address.clone(), domain: None, epoch: None }
    }

    pub fn misbehave(&self, mischief: Mischief) {
        let mut state = self.state();
        state.mischief = mischief;
        if mischief == Mischief::Away {
            state.connections.drain(..).for_each(|stream| stream.shut_down());
        }
    }

    /// It is killed, and comes back with nothing, if it comes back.
    pub fn kill(&self) {
        let mut state = self.state();
        state.copies.clear();
        state.epoch += 1;
        state.mischief = Mischief::Away;
        state.connections.drain(..).for_each(|stream| stream.shut_down());
    }

    /// As [`Self::kill`], but what it had is still there, which nobody may read.
    pub fn come_back_stale(&self) {
        let mut state = self.state();
        state.stale = state.copies.keys().copied().collect();
        state.epoch += 1;
        state.mischief = Mischief::None;
        state.connections.drain(..).for_each(|stream| stream.shut_down());
    }

    pub fn set_room(&self, room_bytes: u64) {
        self.state().room_bytes = room_bytes;
    }

    pub fn copies(&self) -> Vec<TierCopy> {
        let state = self.state();
        state
            .copies
            .iter()
            .map(|(place, (writing, _))| TierCopy { place: *place, writing: *writing })
            .collect()
    }

    /// The bytes of all that it has.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let state = self.state();
        let contents = state.copies.values().flat_map(|(_, content)| content);
        contents.map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Whether it has anything that it was given in its epoch.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.copies.keys().all(|place| state.stale.contains(place))
    }

    pub fn epoch(&self) -> u64 {
        self.state().epoch
    }

    pub fn held_bytes(&self) -> u64 {
        self.state().held_bytes()
    }

    /// Turns a bit of all that it has.
    pub fn damage(&self) {
        for (_, content) in self.state().copies.values_mut() {
            content
                .iter_mut()
                .for_each(|(_, bytes)| bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 4));
        }
    }

    /// Has what it got earlier, though it was told to forget it.
    pub fn plant(&self, copy: TierCopy, content: Content) {
        self.state().copies.insert(copy.place, (copy.writing, content));
    }

    /// Forgets a copy on its own.
    pub fn lose(&self, place: u32) {
        self.state().copies.remove(&place);
    }

    pub fn recall(&self, copies: &[TierCopy], deadline_ms: u32) {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes).recall(deadline_ms, copies).unwrap();
        let connections = self.state().connections.clone();
        connections.iter().for_each(|stream| drop(stream.send(&bytes)));
    }

    /// As [`Self::recall`], from whoever connects, before anything else.
    pub fn recall_at_hello(&self, copies: &[TierCopy], deadline_ms: u32) {
        self.state().recalled = Some((deadline_ms, copies.to_vec()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, stream: &Arc<Stream>) {
        let identity = Identity { cluster: CLUSTER, name: self.name, epoch: Epoch(self.state().epoch) };
        let Ok(hello) = identity.hear(stream, Duration::from_secs(5)) else { return };
        {
            let mut state = self.state();
            state.connections.drain(..).for_each(|earlier| earlier.shut_down());
            state.connections.push(Arc::clone(stream));
            if state.store != hello.store {
                state.copies.clear();
                state.store = hello.store;
            }
        }
        let hello = Hello { cluster: CLUSTER, name: self.name, epoch: identity.epoch, store: 1 };
        let mut offer = Vec::new();
        if let Some((deadline_ms, copies)) = &self.state().recalled {
            Encoder::new(&mut offer).recall(*deadline_ms, copies).unwrap();
        }
        self.offer(&mut Encoder::new(&mut offer));
        if say(stream, &hello).is_err() || stream.send(&offer).is_err() {
            return;
        }
        let mut reader = FrameReader::default();
        while let Ok(Ok(Some(frame))) = reader.next(&mut &**stream) {
            if !self.answer(stream, frame) {
                break;
            }
            while self.state().mischief == Mischief::Stuck {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        stream.shut_down();
    }

    fn offer(&self, say: &mut Encoder<'_>) {
        let state = self.state();
        say.offer(state.room_bytes.saturating_sub(state.held_bytes()), state.held_bytes()).unwrap();
    }

    /// False: the connection ends.
    fn answer(&self, stream: &Arc<Stream>, frame: Frame<'_>) -> bool {
        let mischief = self.state().mischief;
        let message = Message::decode(frame).expect("a borrower says only what is in the protocol");
        let (is_ping, is_get) = (message == Message::Ping, matches!(message, Message::Get(_)));
        let mut out = Vec::new();
        if !self.say(stream, &mut Encoder::new(&mut out), frame.id, message) {
            return false;
        }
        match mischief {
            Mischief::Mute | Mischief::Stuck => return true,
            Mischief::Away => return false,
            Mischief::OnlyPings if !is_ping => return true,
            Mischief::Slow(ms) if is_get => std::thread::sleep(Duration::from_millis(ms)),
            Mischief::CutsOff if is_get => {
                let _ = stream.send(&out[..out.len() / 2]);
                return false;
            }
            Mischief::DamagedFrames if is_get => {
                let middle = out.len() / 2;
                out[middle] ^= 1;
            }
            Mischief::Confused if !is_ping => {
                out.clear();
                Encoder::new(&mut out).pong(frame.id).unwrap();
            }
            _ => {}
        }
        if is_ping {
            self.offer(&mut Encoder::new(&mut out));
        }
        stream.send(&out).is_ok()
    }

    /// Carries out what is asked and answers. False: the connection was ended meanwhile, and what came on it is carried out no more.
    fn say(&self, stream: &Arc<Stream>, say: &mut Encoder<'_>, id: u64, message: Message<'_>) -> bool {
        let mut state = self.state();
        if !state.connections.iter().any(|known| Arc::ptr_eq(known, stream)) {
            return false;
        }
        match message {
            Message::Put(puts) => {
                let results: Vec<PutResult> = puts
                    .iter()
                    .map(|put| {
                        let held = state.copies.get(&put.copy.place).map(|(writing, _)| *writing);
                        let is_late = held > Some(put.copy.writing) && !state.stale.contains(&put.copy.place);
                        if is_late || state.held_bytes() + put.bytes.len() as u64 > state.room_bytes {
                            return PutResult::NoRoom;
                        }
                        let content = content(put.runs, put.bytes);
                        state.copies.insert(put.copy.place, (put.copy.writing, content));
                        state.stale.remove(&put.copy.place);
                        PutResult::Stored
                    })
                    .collect();
                say.put_done(id, &results).unwrap();
            }
            Message::Get(gets) => {
                self.gets.fetch_add(gets.count() as u64, SeqCst);
                let found: Vec<Option<Vec<u8>>> = gets.iter().map(|get| state.get(get)).collect();
                let found: Vec<_> =
                    found.iter().map(|found| found.as_deref().ok_or(Reason::NotThere)).collect();
                let most = found.len() - usize::from(state.mischief == Mischief::TooFew);
                match most {
                    0 => say.flushed(id).unwrap(),
                    _ => say.got(id, &found[..most]).unwrap(),
                }
            }
            Message::Flush(dead) => {
                for dead in dead.iter() {
                    if state.content(dead.copy).is_some() {
                        state.forget(dead.copy.place, &dead.runs.iter().collect::<Vec<_>>());
                    }
                }
                say.flushed(id).unwrap();
            }
            Message::Ping => say.pong(id).unwrap(),
            Message::List { from_place } => {
                self.lists.fetch_add(1, SeqCst);
                let copies = state.copies.range(from_place..).take(MAX_COPIES);
                let copies =
                    copies.map(|(place, (writing, _))| TierCopy { place: *place, writing: *writing });
                say.listed(id, copies).unwrap();
            }
            Message::Fetch(copy) => match state.content(copy) {
                Some(content) => {
                    say.fetched(id, content.iter().map(|(run, bytes)| (*run, &bytes[..]))).unwrap();
                }
                None => say.refused(id, Reason::NotThere).unwrap(),
            },
            other => panic!("a borrower says {other:?}"),
        }
        true
    }
}

impl State {
    fn held_bytes(&self) -> u64 {
        let contents = self.copies.values().flat_map(|(_, content)| content);
        contents.map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn content(&self, copy: TierCopy) -> Option<&Content> {
        self.copies
            .get(&copy.place)
            .filter(|(writing, _)| *writing == copy.writing)
            .map(|(_, content)| content)
    }

    fn get(&self, get: Get) -> Option<Vec<u8>> {
        let (start, end) = (get.start as usize, (get.start + get.bytes) as usize);
        let mut found = self.content(get.copy)?.iter().find_map(|(run, held)| {
            let from = start.checked_sub(run.start_bytes())?;
            held.get(from..end - run.start_bytes()).map(<[u8]>::to_vec)
        })?;
        match self.mischief {
            Mischief::WrongBits => found[20] ^= 1,
            Mischief::TooShort => found.truncate(found.len() - 1),
            _ => {}
        }
        Some(found)
    }

    fn forget(&mut self, place: u32, dead: &[Run]) {
        if dead.is_empty() {
            self.copies.remove(&place);
            return;
        }
        let Some((_, content)) = self.copies.get_mut(&place) else { return };
        // By units of 8 bytes, as plainly as it can be said.
        let mut units = BTreeMap::new();
        for (run, bytes) in content.iter() {
            units.extend((run.start..).zip(bytes.chunks(8).map(<[u8]>::to_vec)));
        }
        for run in dead {
            (run.start..run.start + run.units).for_each(|unit| drop(units.remove(&unit)));
        }
        content.clear();
        for (unit, bytes) in units {
            match content.last_mut() {
                Some((run, all)) if run.start + run.units == unit => {
                    run.units += 1;
                    all.extend(bytes);
                }
                _ => content.push((Run { start: unit, units: 1 }, bytes)),
            }
        }
    }
}

/// The threads end with the test's process at the latest.
impl Drop for FakeLender {
    fn drop(&mut self) {
        self.state.get_mut().unwrap().is_over = true;
    }
}

fn content(runs: Runs<'_>, mut bytes: &[u8]) -> Content {
    runs.iter()
        .map(|run| {
            let (of_run, rest) = bytes.split_at(run.bytes());
            bytes = rest;
            (run, of_run.to_vec())
        })
        .collect()
}
