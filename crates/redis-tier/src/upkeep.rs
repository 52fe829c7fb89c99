//! Keeping the tier in order: trying again, removing what is not needed, telling copies to live on.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use redis::{RedisResult, Value, cmd};
use tmem_store::{Tier, TierCopy, TierState};
use tmem_tier::Trouble;

use crate::{
    inspection,
    keys::Keys,
    redis_tier::{RedisTier, Writing},
    trouble, writer,
};

/// How often a server that works is asked whether it would throw pages away.
const INSPECT_EVERY: Duration = Duration::from_secs(60);

/// A copy is told to live on when a quarter of its time is over: three chances are left.
const RENEWALS_PER_EXPIRY: u64 = 4;

/// Commands that are sent together, and copies that are looked at for them.
pub(crate) const COMMANDS: usize = 512;
const LOOK_AT: usize = 8192;

/// What one [`RedisTier::probe`] may take.
pub(crate) const PROBE: Duration = Duration::from_millis(200);
/// What removing everything may take at the end: the rest expires.
const CLEARING: Duration = Duration::from_secs(10);

impl RedisTier {
    /// What the daemon's background thread does for it, once a second or so: tries again if the tier does not work, removes what is not
    /// needed, tells copies to live on, and looks at the server's settings now and then. May wait for the server. Does nothing while
    /// another thread writes.
    pub fn probe(&self) {
        let Ok(mut writing) = self.writing.try_lock() else { return };
        let is_due = match self.health.state() {
            TierState::Ready => writing.inspected.is_none_or(|at| at.elapsed() >= INSPECT_EVERY),
            _ => self.health.is_due(),
        };
        if is_due {
            self.try_again(&mut writing);
        }
        if let Some(keys) = self.keys.get().filter(|_| self.health.state().is_giving()) {
            let deadline = Instant::now() + PROBE;
            let kept = self
                .remove_dead(&mut writing, keys, deadline)
                .and_then(|()| self.remove_dead_blocks(&mut writing, keys, deadline))
                .and_then(|()| self.renew(&mut writing, keys, deadline));
            if let Err(error) = kept {
                self.health.fail(trouble::of("keeping it in order", &error));
            }
        }
    }

    /// Nobody needs any of its copies: removes them. For an orderly end, when the key goes. What is left then expires.
    pub fn clear(&self) {
        let mut writing = self.lock_writing();
        let Some(keys) = self.keys.get() else { return };
        self.lock_live().discard_all();
        if let Err(error) = self.remove_dead(&mut writing, keys, Instant::now() + CLEARING) {
            let left = trouble::of("removing what is there", &error).1;
            log::warn!("tier {} keeps its copies until they expire: {left}", self.name());
        }
    }

    /// Finds out how the tier is now.
    pub(crate) fn try_again(&self, writing: &mut Writing) {
        let was_full = self.health.state() == TierState::Full;
        if self.health.state() != TierState::Ready {
            writing.link = None;
            self.pool.clear();
            if let Some(keys) = self.keys.get().filter(|_| was_full) {
                // What was refused is partly there.
                let _ = self.remove_dead(writing, keys, Instant::now() + PROBE);
            }
        }
        writing.inspected = Some(Instant::now());
        match self.inspect(writing, was_full) {
            Ok(None) => {
                self.outage.end();
                if self.health.state() != TierState::Ready {
                    self.health.recover();
                }
            }
            Ok(Some(objection)) => self.health.fail(objection),
            Err(error) => self.health.fail(trouble::of("connecting", &error)),
        }
    }

    fn inspect(&self, writing: &mut Writing, was_full: bool) -> RedisResult<Option<Trouble>> {
        let facts = self.with_link(writing, inspection::ask)?;
        if facts.iter().any(|facts| !facts.is_persistent()) && !self.is_forgetful_known.swap(true, Relaxed) {
            log::info!(
                "tier {} has no append-only file: pages in it are gone when a server ends",
                self.name()
            );
        }
        if let Some(objection) = facts.iter().find_map(|facts| facts.objection(was_full)) {
            return Ok(Some(objection));
        }
        if let Some(keys) = self.keys.get() {
            let mut trial = cmd("SET");
            trial.arg(keys.trial()).arg(1).arg("EX").arg(10);
            self.with_link(writing, |link| link.ask(&trial))?;
        }
        Ok(None)
    }

    pub(crate) fn remove_dead(
        &self,
        writing: &mut Writing,
        keys: &Keys,
        deadline: Instant,
    ) -> RedisResult<()> {
        loop {
            let dead = self.lock_live().take_dead(COMMANDS);
            if dead.is_empty() || Instant::now() > deadline {
                dead.into_iter().for_each(|copy| self.lock_live().bury(copy));
                return Ok(());
            }
            let mut batch = self.server.batch();
            writer::add_removals(&mut batch, keys, &dead);
            if let Err(error) = self.run(writing, &batch) {
                dead.into_iter().for_each(|copy| self.lock_live().bury(copy));
                return Err(error);
            }
            self.counts.removed_copies.fetch_add(dead.len() as u64, Relaxed);
        }
    }

    fn remove_dead_blocks(&self, writing: &mut Writing, keys: &Keys, deadline: Instant) -> RedisResult<()> {
        while Instant::now() <= deadline {
            let blocks = self.lock_live().take_dead_blocks(COMMANDS);
            if blocks.is_empty() {
                break;
            }
            let mut batch = self.server.batch();
            writer::add_lengths(&mut batch, keys, &blocks);
            let lengths = self.run(writing, &batch)?;
            let mut batch = self.server.batch();
            let removed = writer::add_block_removals(&mut batch, keys, &blocks, &lengths);
            if !removed.is_empty() {
                self.run(writing, &batch)?;
                self.counts.removed_blocks.fetch_add(removed.len() as u64, Relaxed);
                let mut live = self.lock_live();
                removed.into_iter().for_each(|(copy, run)| live.shrink(copy, run.bytes));
            }
        }
        Ok(())
    }

    /// Tells copies to live on whose time is partly over.
    fn renew(&self, writing: &mut Writing, keys: &Keys, deadline: Instant) -> RedisResult<()> {
        let every_s = (self.options.expiry.as_secs() / RENEWALS_PER_EXPIRY) as u32;
        // All come round at least four times in that time, if this is done once a second.
        let mut budget = LOOK_AT + 4 * self.lock_live().len() / every_s.max(1) as usize;
        while budget > 0 && Instant::now() <= deadline {
            let now_s = self.now_s();
            let (due, looked_at) = self.lock_live().due(now_s, every_s, COMMANDS, budget);
            budget -= looked_at.min(budget);
            if due.is_empty() {
                break;
            }
            let mut batch = self.server.batch();
            for copy in &due {
                writer::add_expiry(&mut batch, &keys.key(*copy), self.options.expiry.as_secs());
            }
            let answers = self.run(writing, &batch)?;
            self.counts.renewed_copies.fetch_add(due.len() as u64, Relaxed);
            for (copy, answer) in due.into_iter().zip(answers) {
                match answer {
                    Value::Int(0) => self.lose(copy),
                    _ => self.lock_live().told(copy, now_s),
                }
            }
        }
        Ok(())
    }

    /// The server does not have a copy that is needed.
    pub(crate) fn lose(&self, copy: TierCopy) {
        let mut live = self.lock_live();
        if live.has(copy) {
            live.forget(copy);
            if self.counts.lost_copies.fetch_add(1, Relaxed) == 0 {
                log::error!(
                    "tier {} has lost pages: the server was flushed, ended without a disk, or throws keys away; reading them is an I/O error",
                    self.health.name()
                );
            }
        }
    }
}
