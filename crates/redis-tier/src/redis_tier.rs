//! The tier as the store sees it.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use redis::{RedisResult, Value, cmd};
use tmem_store::{
    MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierRun, TierState, TierWrite,
};
use tmem_tier::{Health, Trouble};

use crate::{
    connection::{Batch, Link, Server},
    error::RedisTierError,
    keys::Keys,
    live::Live,
    options::RedisTierOptions,
    outage::Outage,
    pool::Pool,
    reader::{self, Found},
    trouble,
    upkeep::{COMMANDS, PROBE},
    writer,
};

/// What a tier has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisTierCounters {
    /// Copies written.
    pub written_copies: u64,
    /// Copies that were removed because nobody needs them.
    pub removed_copies: u64,
    /// Blocks that were removed because nobody needs them.
    pub removed_blocks: u64,
    /// How often a copy was told to live on.
    pub renewed_copies: u64,
    /// Copies that were needed and that the server did not have any more.
    pub lost_copies: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) written_copies: AtomicU64,
    pub(crate) removed_copies: AtomicU64,
    pub(crate) removed_blocks: AtomicU64,
    pub(crate) renewed_copies: AtomicU64,
    pub(crate) lost_copies: AtomicU64,
}

/// A Redis or Valkey server, or a cluster, that keeps copies of extents.
///
/// A tier whose server is away, full, a replica or otherwise unfit is there all the same, in that [state](Tier::state). It tries again by
/// itself, once a second at most, when something is to be written and in [`RedisTier::probe`].
pub struct RedisTier {
    pub(crate) options: RedisTierOptions,
    pub(crate) health: Health,
    pub(crate) keys: OnceLock<Keys>,
    pub(crate) server: Server,
    pub(crate) pool: Pool,
    pub(crate) outage: Outage,
    pub(crate) live: Mutex<Live>,
    pub(crate) writing: Mutex<Writing>,
    pub(crate) started: Instant,
    /// The log has it that the server forgets everything when it ends.
    pub(crate) is_forgetful_known: AtomicBool,
    pub(crate) counts: Counts,
}

/// What the one thread that writes has to itself.
#[derive(Default)]
pub(crate) struct Writing {
    pub(crate) link: Option<Link>,
    pub(crate) inspected: Option<Instant>,
}

impl RedisTier {
    /// A tier in a server, which may be away for now. Errors: the options are wrong.
    pub fn new(options: RedisTierOptions) -> Result<Self, RedisTierError> {
        options.check()?;
        let tier = Self {
            health: Health::new(options.address.to_string()),
            keys: OnceLock::new(),
            server: Server::new(&options, options.write_patience)?,
            pool: Pool::new(Server::new(&options, options.read_patience)?, options.read_patience),
            outage: Outage::new(options.outage_patience),
            live: Mutex::default(),
            writing: Mutex::default(),
            started: Instant::now(),
            is_forgetful_known: AtomicBool::new(false),
            counts: Counts::default(),
            options,
        };
        tier.try_again(&mut tier.lock_writing());
        Ok(tier)
    }

    /// Copies that the store has from before this process, and how much is needed of each, in bytes: they are kept alive, and removed when they are not needed any more.
    pub fn adopt(&self, copies: &[(TierCopy, u32)]) {
        let mut live = self.lock_live();
        copies.iter().for_each(|(copy, bytes)| live.insert(*copy, *bytes, None));
    }

    /// What it has done.
    pub fn counters(&self) -> RedisTierCounters {
        RedisTierCounters {
            written_copies: self.counts.written_copies.load(Relaxed),
            removed_copies: self.counts.removed_copies.load(Relaxed),
            removed_blocks: self.counts.removed_blocks.load(Relaxed),
            renewed_copies: self.counts.renewed_copies.load(Relaxed),
            lost_copies: self.counts.lost_copies.load(Relaxed),
        }
    }

    /// Copies that it knows to be needed.
    pub fn copies(&self) -> usize {
        self.lock_live().len()
    }

    /// Does something with the writer's connection, as [`Pool::with`].
    pub(crate) fn with_link<T>(
        &self,
        writing: &mut Writing,
        work: impl Fn(&mut Link) -> RedisResult<T>,
    ) -> RedisResult<T> {
        if let Some(mut link) = writing.link.take() {
            match work(&mut link) {
                Err(error) if error.is_connection_dropped() => (),
                outcome => return keep(writing, link, outcome),
            }
        }
        let mut link = self.server.connect(self.options.write_patience)?;
        let outcome = work(&mut link);
        keep(writing, link, outcome)
    }

    pub(crate) fn run(&self, writing: &mut Writing, batch: &Batch) -> RedisResult<Vec<Value>> {
        self.with_link(writing, |link| link.run(batch))
    }

    fn write_failed(&self, writing: &mut Writing, keys: &Keys, writes: &[TierWrite<'_>], trouble: Trouble) {
        // Some may be there now, which nobody needs.
        let mut live = self.lock_live();
        writes.iter().for_each(|write| live.bury(write.copy));
        drop(live);
        self.health.fail(trouble);
        if writing.link.is_some() {
            let _ = self.remove_dead(writing, keys, Instant::now() + PROBE); // or later
        }
    }

    /// Waits until the replicas have what was written. `None`: they have.
    fn await_replicas(&self, writing: &mut Writing) -> RedisResult<Option<Trouble>> {
        let wanted = self.options.replicas;
        if wanted == 0 {
            return Ok(None);
        }
        let mut wait = cmd("WAIT");
        wait.arg(wanted).arg(self.options.replica_patience.as_millis() as u64);
        // On the connection that wrote: it is about that one's writes.
        let answer = match writing.link.as_mut() {
            Some(link) => link.ask(&wait),
            None => return Ok(Some((TierState::Failing, "writing: the connection is gone".to_owned()))),
        };
        let have = match answer {
            Ok(Value::Int(have)) => have,
            Ok(other) => return Ok(Some((TierState::Failing, format!("waiting for replicas: {other:?}")))),
            Err(error) => {
                writing.link = None;
                return Err(error);
            }
        };
        Ok((have < i64::from(wanted)).then(|| {
            let text = format!(
                "{have} of {wanted} replicas have what was written after {} ms; look at them, or set redis-replicas",
                self.options.replica_patience.as_millis()
            );
            (TierState::Failing, text)
        }))
    }

    /// Whether there is no room for a batch in what it may use of the server.
    fn is_used_up(&self) -> bool {
        let batch_bytes = (MAX_TIER_BATCH * TIER_EXTENT_BYTES) as u64;
        self.lock_live().bytes() + batch_bytes > self.options.size_bytes
    }

    fn all_used(&self) -> String {
        let (used, size) = (self.lock_live().bytes(), self.options.size_bytes);
        format!("{used} of {size} bytes are in use; raise tier-size, or remove disks")
    }

    pub(crate) fn now_s(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    pub(crate) fn lock_live(&self) -> MutexGuard<'_, Live> {
        // Whole between any two of its changes.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_writing(&self) -> MutexGuard<'_, Writing> {
        // A connection that is in use is taken out of it.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(writing: &mut Writing, link: Link, outcome: RedisResult<T>) -> RedisResult<T> {
    if outcome.as_ref().err().is_none_or(|error| link.is_sound_after(error)) {
        writing.link = Some(link);
    }
    outcome
}

impl Tier for RedisTier {
    fn name(&self) -> &str {
        self.health.name()
    }

    fn kind(&self) -> &'static str {
        "redis"
    }

    fn places(&self) -> u32 {
        // The server keeps what is needed of copies, and nothing of their places.
        u32::MAX
    }

    fn keeps_blocks(&self) -> bool {
        true
    }

    fn limit_bytes(&self) -> u64 {
        self.options.size_bytes
    }

    fn use_key(&self, key: &TierKey) {
        match Keys::new(&self.options.prefix, key) {
            Ok(keys) => drop(self.keys.set(keys)),
            Err(error) => self.health.fail((TierState::Failing, error.to_string())),
        }
    }

    fn write(&self, writes: &[TierWrite<'_>]) -> Result<(), TierError> {
        let keys = self.keys.get().ok_or_else(no_key)?;
        writer::check(writes)?;
        let mut writing = self.lock_writing();
        if self.health.is_due() {
            self.try_again(&mut writing);
        }
        if self.health.state() != TierState::Ready {
            return Err(self.health.refusal());
        }
        let bytes = |write: &TierWrite<'_>| write.needed.iter().map(|run| run.bytes).sum::<u32>();
        if self.lock_live().bytes() + writes.iter().map(|write| u64::from(bytes(write))).sum::<u64>()
            > self.options.size_bytes
        {
            return Err(TierError::Unavailable(format!(
                "the tier {} is full: {}",
                self.name(),
                self.all_used()
            )));
        }
        let mut batch = self.server.batch();
        let dead = self.lock_live().take_dead(COMMANDS);
        writer::add_removals(&mut batch, keys, &dead);
        let bury_again = || dead.iter().for_each(|copy| self.lock_live().bury(*copy));
        for write in writes {
            writer::add_write(&mut batch, keys, write, self.options.expiry.as_secs())
                .inspect_err(|_| bury_again())?;
        }
        let is_empty = dead.is_empty() && writes.iter().all(|write| write.needed.is_empty());
        let ran = if is_empty { Ok(Vec::new()) } else { self.run(&mut writing, &batch) };
        if ran.is_err() {
            bury_again();
        }
        let trouble = match ran.and_then(|_| self.await_replicas(&mut writing)) {
            Ok(None) => {
                let now_s = self.now_s();
                let mut live = self.lock_live();
                writes
                    .iter()
                    .filter(|write| !write.needed.is_empty())
                    .for_each(|write| live.insert(write.copy, bytes(write), Some(now_s)));
                self.counts.written_copies.fetch_add(writes.len() as u64, Relaxed);
                self.counts.removed_copies.fetch_add(dead.len() as u64, Relaxed);
                return Ok(());
            }
            Ok(Some(trouble)) => trouble,
            Err(error) => trouble::of("writing", &error),
        };
        self.write_failed(&mut writing, keys, writes, trouble);
        Err(self.health.refusal())
    }

    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        let keys = self.keys.get().ok_or_else(no_key)?;
        let end = start.saturating_add(into.len());
        if copy.place == u32::MAX || end > TIER_EXTENT_BYTES {
            return Err(TierError::Unavailable("there is no such place in the tier".into()));
        }
        let (mut tries, mut is_second) = (0, false);
        while self.outage.may_try() {
            match self.pool.with(|link| reader::read(link, keys, copy, start, into)) {
                Ok(found) => {
                    self.outage.end();
                    match found {
                        Found::Right => return Ok(()),
                        Found::Gone => {
                            self.lose(copy);
                            return Err(TierError::Damaged);
                        }
                        // Once more: it may have happened on the way.
                        Found::Damaged if !is_second => is_second = true,
                        Found::Damaged => return Err(TierError::Damaged),
                    }
                }
                Err(error) => {
                    self.pool.clear();
                    self.health.fail(trouble::of("reading", &error));
                    if trouble::is_lasting(&error) {
                        break;
                    }
                    let Some(pause) = self.outage.pause(tries) else { break };
                    tries += 1;
                    thread::sleep(pause);
                }
            }
        }
        Err(self.health.refusal())
    }

    fn discard(&self, place: u32) {
        self.lock_live().discard(place);
    }

    fn release(&self, dead: &[(TierCopy, TierRun)]) {
        let mut live = self.lock_live();
        dead.iter().for_each(|(copy, run)| live.release(*copy, *run));
    }

    fn state(&self) -> TierState {
        match self.health.state() {
            TierState::Ready if self.is_used_up() => TierState::Full,
            state => state,
        }
    }

    fn trouble(&self) -> Option<String> {
        let lost = self.counts.lost_copies.load(Relaxed);
        let lost = (lost > 0).then(|| {
            format!("{lost} extents are gone from the server: it was flushed, ended without a disk, or throws keys away")
        });
        self.health.trouble().or_else(|| self.is_used_up().then(|| self.all_used())).or(lost)
    }
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTier").field("name", &self.name()).field("state", &self.state()).finish()
    }
}

fn no_key() -> TierError {
    TierError::Unavailable("the tier has no key yet".into())
}
