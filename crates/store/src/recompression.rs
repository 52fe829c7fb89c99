//! Recompression: cold blocks are compressed harder, in the background.
//!
//! Extents are taken in the order in which they were sealed, the one that has been still for longest first. The cold blocks of one
//! are compressed while nothing is held but a pin on the extent, and then moved to a cold extent, as compaction moves blocks. A block
//! that would not get much smaller moves there as it is, so that it is not tried again. What is not cold stays, and its extent waits
//! anew. A shared block is cold when no page that shares it was put or fetched while its extent waited. A block that changed hands meanwhile is found to be no longer referred to when it is to be moved.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    age_table::Milliseconds,
    ages::Cold,
    block::{self, ALIGN_BYTES, BlockHeader, HEADER_BYTES, MIN_BLOCK_BYTES, PayloadCrc},
    budget::Claim,
    codec::{self, Codec, FRESH_CRC_BYTES},
    compaction::Compaction,
    counters::Counters,
    dedup::Domain,
    engine::{Engine, Owner},
    entry::{BlockRef, Place},
    error::StoreError,
    extents::{EXTENT_BYTES, ExtentUse},
    ids::IndexSlot,
    page::PAGE_BYTES,
    patient_lock::touch_stack,
    pool::Pool,
    walk::{Met, Walk},
    zstd::{self, Compressor},
};

/// The levels of Zstandard that recompression can use.
pub const RECOMPRESSION_LEVELS: std::ops::RangeInclusive<i32> = zstd::LEVELS;

/// When and how cold pages are compressed harder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecompressionOptions {
    /// Whether they are at all.
    pub enabled: bool,
    /// A page is cold when it was neither put nor fetched for so long, or up to half as long again: ages are known that well. When
    /// the store is nearly full, no page is too young.
    pub age: Duration,
    /// The level of Zstandard: one of [`RECOMPRESSION_LEVELS`].
    pub level: i32,
}

impl Default for RecompressionOptions {
    /// After a minute, at level 5. On 227 MB of real anonymous pages LZ4 leaves 1381 bytes of a page, level 1 917, 3 898, 5 861, 6
    /// 858, 12 833. Level 5 takes about 2.3 times as long as 1 and unpacks the quickest; 6 takes a quarter longer, 12 eight times as
    /// long.
    fn default() -> Self {
        Self { enabled: true, age: Duration::from_secs(60), level: 5 }
    }
}

/// A block is left as it is unless this part of it can be saved: every later get takes three times as long.
const WORTHWHILE_PART: u16 = 20;

/// The longest payload that makes a block worth replacing. `None`: it is too short.
fn worthwhile_payload_bytes(block_bytes: u16) -> Option<usize> {
    let most_bytes = block_bytes - block_bytes.div_ceil(WORTHWHILE_PART);
    let most_bytes = most_bytes - most_bytes % ALIGN_BYTES;
    (most_bytes >= MIN_BLOCK_BYTES).then(|| usize::from(most_bytes) - HEADER_BYTES)
}

/// With less than 1/16 of the limit left to grow into, nothing is too young: the next thing to happen would be a refused put, or a write to
/// the tier.
const NEARLY_FULL_PART: u64 = 16;

/// What a round of recompression did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recompression {
    /// Pages whose blocks got smaller.
    pub recompressed_pages: u64,
    /// What they gained, in bytes.
    pub saved_bytes: u64,
    /// Pages whose blocks were left as they were, because they gained too little.
    pub kept_pages: u64,
    /// Whether the time was up before the work was done.
    pub more: bool,
}

/// [`RecompressionOptions`], to be changed at any time.
#[derive(Debug)]
pub(crate) struct RecompressionSettings {
    enabled: AtomicBool,
    age_ms: AtomicU64,
    level: AtomicI32,
}

impl Default for RecompressionSettings {
    fn default() -> Self {
        let options = RecompressionOptions::default();
        Self {
            enabled: AtomicBool::new(options.enabled),
            age_ms: AtomicU64::new(options.age.as_millis() as u64),
            level: AtomicI32::new(options.level),
        }
    }
}

impl RecompressionSettings {
    pub(crate) fn get(&self) -> RecompressionOptions {
        RecompressionOptions {
            enabled: self.enabled.load(Ordering::Relaxed),
            age: Duration::from_millis(self.age_ms.load(Ordering::Relaxed)),
            level: self.level.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set(&self, options: RecompressionOptions) -> Result<(), StoreError> {
        if !RECOMPRESSION_LEVELS.contains(&options.level) {
            return Err(StoreError::RecompressionLevel { level: options.level });
        }
        let age_ms = u64::try_from(options.age.as_millis()).unwrap_or(u64::MAX);
        self.age_ms.store(age_ms, Ordering::Relaxed);
        self.level.store(options.level, Ordering::Relaxed);
        self.enabled.store(options.enabled, Ordering::Relaxed);
        Ok(())
    }
}

/// Working memory: what one extent's cold blocks become before they are moved.
#[derive(Debug, Default)]
pub(crate) struct Recompressor {
    /// Made when first needed.
    compressor: Option<Compressor>,
    payloads: Vec<u8>,
}

/// Who is told where a block has gone.
enum Holder {
    Page(Arc<Pool>),
    /// The cell of a shared block; its domain keeps the books.
    Cell(Option<Arc<Domain>>),
}

/// A block that is about to be moved.
struct Move<'a> {
    holder: Holder,
    from: BlockRef,
    header: BlockHeader,
    payload: Payload<'a>,
}

enum Payload<'a> {
    /// As it is, where it is.
    Kept(&'a [u8]),
    /// Where it starts among the new payloads.
    New(usize),
}

impl Recompressor {
    /// Compresses a block's page harder, to the end of the payloads. `None`: it gains too little, or the block cannot be read.
    fn compress(&mut self, met: &Met<'_>, level: i32) -> Option<Payload<'static>> {
        if met.header.codec == Codec::Zstd {
            return None;
        }
        let mut page = [0; PAGE_BYTES];
        codec::decompress(met.header.codec, met.payload, &mut (&mut page).into()).ok()?;
        let most_bytes = worthwhile_payload_bytes(met.place.block_bytes)?.checked_sub(FRESH_CRC_BYTES)?;
        let compressor = self.compressor.get_or_insert_with(Compressor::new);
        let start = self.payloads.len();
        let frame = compressor.compress(&page, level, most_bytes)?;
        self.payloads.extend_from_slice(&PayloadCrc::of(met.payload).0.to_le_bytes());
        self.payloads.extend_from_slice(frame);
        Some(Payload::New(start))
    }
}

impl Engine {
    /// Recompresses cold blocks until there are no more, a put needs room, or about `time` is over.
    pub(crate) fn recompress(&self, time: Duration) -> Recompression {
        touch_stack();
        let mut done = Recompression::default();
        let options = self.recompression.get();
        // Somebody else is at it.
        let Ok(mut recompressor) = self.recompressor.try_lock() else { return done };
        let start = Instant::now();
        // What has to wait anew is not taken again in the same round.
        let waiting = if options.enabled && !self.files.is_detached() {
            self.arena.waiting_to_be_recompressed()
        } else {
            0
        };
        for _ in 0..waiting {
            let nearly_full = self.is_nearly_full();
            let age_ms = if nearly_full { 0 } else { options.age.as_millis() as Milliseconds };
            done.more = start.elapsed() >= time || self.compaction_wanted.load(Ordering::Relaxed) > 0;
            if done.more {
                break;
            }
            let Some(mut walk) = self.arena.pin_longest_still(age_ms) else { break };
            let extent = walk.extent();
            let moves = self.compress_cold(&mut walk, &mut recompressor, Cold::after(age_ms), options.level);
            let payloads = &recompressor.payloads;
            if nearly_full {
                // The extent's blocks may go where compaction's working room is, because all of them go and the extent comes back.
                let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
                self.move_all(moves, payloads, Claim::Compaction, &mut done);
                walk.start_again();
                self.empty_into(ExtentUse::Cold, &mut walk, &mut Compaction::default());
                drop(walk); // the extent comes back before the next one may compact
            } else {
                self.move_all(moves, payloads, Claim::Growth, &mut done);
                drop(walk);
            }
            self.recompressed_extents.fetch_add(1, Ordering::Relaxed);
            self.arena.wait_to_be_recompressed(extent);
        }
        done
    }

    fn is_nearly_full(&self) -> bool {
        let limit_bytes = self.budget.limit_bytes();
        let kept_bytes = (limit_bytes / NEARLY_FULL_PART).max(4 * EXTENT_BYTES as u64);
        // While the OS has nothing to give, what is held is all there is.
        self.budget.held_bytes() + kept_bytes + self.headroom_bytes() > limit_bytes || self.stock.is_starved()
    }

    /// Compresses the cold blocks of an extent. A damaged block ends it: those behind it cannot be found; and so does a put that needs
    /// room.
    fn compress_cold<'a>(
        &self,
        walk: &mut Walk<'a>,
        recompressor: &mut Recompressor,
        cold: Cold,
        level: i32,
    ) -> Vec<Move<'a>> {
        recompressor.payloads.clear();
        let mut moves = Vec::new();
        while self.compaction_wanted.load(Ordering::Relaxed) == 0
            && let Ok(Some(met)) = walk.next()
        {
            let (from, mut header) = (met.place, met.header);
            let holder = match self.owner(header.pool) {
                Owner::Pool(pool) if pool.is_cold(header.slot, from, cold) => Holder::Page(pool),
                Owner::Shared => {
                    match self.shared_blocks.cold_in(header.slot, from, cold.is_whatever_their_use()) {
                        Some(domain) => Holder::Cell(self.domain_of(domain)),
                        None => continue,
                    }
                }
                Owner::Pool(_) | Owner::Changing | Owner::Nobody => continue,
            };
            let payload = recompressor.compress(&met, level).unwrap_or(Payload::Kept(met.payload));
            if let Payload::New(start) = payload {
                header.codec = Codec::Zstd;
                header.payload_bytes = (recompressor.payloads.len() - start) as u16;
            }
            moves.push(Move { holder, from, header, payload });
        }
        moves
    }

    /// Makes a holder refer to what became of its block. False: it does not refer to the block any more.
    fn relocate_held(
        &self,
        holder: &Holder,
        slot: IndexSlot,
        from: BlockRef,
        to: BlockRef,
        note: impl FnOnce(&mut Counters),
    ) -> bool {
        match holder {
            Holder::Page(pool) => pool.relocate_and(slot, from, to, note),
            Holder::Cell(domain) => {
                let is_done = self.exchange_shared(slot, Place::Arena(from), Place::Arena(to));
                if is_done && let Some(domain) = domain {
                    domain.count_recompression(u64::from(from.block_bytes - to.block_bytes), note);
                }
                is_done
            }
        }
    }

    /// Moves blocks to the cold extents, as far as there is room.
    fn move_all(&self, moves: Vec<Move<'_>>, payloads: &[u8], claim: Claim, done: &mut Recompression) {
        for Move { holder, from, header, payload } in moves {
            let block_bytes = block::block_bytes(header.payload_bytes);
            let Some(to) = self.arena.reserve_claiming(block_bytes, ExtentUse::Cold, claim) else { return };
            let (payload, is_new) = match payload {
                Payload::Kept(payload) => (payload, false),
                Payload::New(start) => (&payloads[start..start + usize::from(header.payload_bytes)], true),
            };
            // SAFETY: the block was just reserved here.
            if let Some(block) = unsafe { self.arena.block_mut(to) } {
                header.write(block, payload, PayloadCrc::of(payload));
            }
            let saved_bytes = u64::from(from.block_bytes - to.block_bytes);
            let note = |counters: &mut Counters| {
                counters.recompressed_pages += u64::from(is_new);
                counters.recompression_saved_bytes += saved_bytes;
                counters.recompression_kept_pages += u64::from(!is_new);
            };
            if self.relocate_held(&holder, header.slot, from, to, note) {
                done.recompressed_pages += u64::from(is_new);
                done.saved_bytes += saved_bytes;
                done.kept_pages += u64::from(!is_new);
            } else {
                let _pinned = self.arena.free(to); // overwritten or forgotten meanwhile
            }
            self.arena.commit(to.offset);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
