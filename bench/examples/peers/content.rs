//! What is lent: extents of compressed pages, as the store writes them back. A store gets the pages, and a tier that only remembers gets what the
//! store makes of them.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tmem_store::{
    ClientKind, ClientOptions, Dedup, Keys, ObjectId, PAGE_BYTES, PageIndex, Persistence, Store,
    StoreOptions, Tier, TierCopy, TierError, TierKey, TierRun, TierState, TierWrite, Weight,
    are_whole_blocks,
};

/// How long the store may take to write everything back.
const WRITE_BACK_TIME: Duration = Duration::from_secs(60);

/// A limit below which nearly every page goes.
const SMALL_BYTES: u64 = 2 << 20;

/// Room for any block, in bytes: a page and its header.
pub(crate) const MAX_BLOCK_BYTES: usize = 8192;

/// An extent, and where its blocks are.
pub(crate) struct Extent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) needed: Vec<TierRun>,
}

/// A compressed page, by its extent's number.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) extent: u32,
    pub(crate) run: TierRun,
}

pub(crate) struct Content {
    pub(crate) extents: Vec<Extent>,
    pub(crate) blocks: Vec<Block>,
}

impl Content {
    /// The pages of a file, compressed.
    pub(crate) fn of(file: &Path) -> Result<Self> {
        let pages = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let store = Store::new(StoreOptions { limit_bytes: pages.len() as u64 * 2 + (64 << 20) })?;
        let recorder = Arc::new(Recorder::default());
        store.attach_tier(recorder.clone())?;
        let client = store.create_client(ClientOptions {
            name: "bench".to_owned(),
            kind: ClientKind::Native,
            cap_bytes: None,
            weight: Weight::default(),
            dedup: Dedup::Off,
        })?;
        let count = (pages.len() / PAGE_BYTES) as u64;
        let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: count })?;
        for (index, page) in (0..).map(PageIndex).zip(pages.as_chunks::<PAGE_BYTES>().0) {
            pool.put(ObjectId(0), index, page.into()).with_context(|| format!("put of page {}", index.0))?;
        }
        // Now there is too little room for any of them.
        store.set_limit_bytes(SMALL_BYTES)?;
        let deadline = Instant::now() + WRITE_BACK_TIME;
        while store.write_back(WRITE_BACK_TIME).written_extents > 0 && Instant::now() < deadline {}
        let extents = std::mem::take(&mut *recorder.0.lock().unwrap_or_else(PoisonError::into_inner));
        let blocks: Vec<Block> = (0..)
            .zip(&extents)
            .flat_map(|(number, extent)| {
                extent.needed.iter().map(move |run| Block { extent: number, run: *run })
            })
            .collect();
        ensure!(!blocks.is_empty(), "{}: too few pages to fill an extent", file.display());
        let content = Self { extents, blocks };
        ensure!(
            content.blocks.iter().all(|block| are_whole_blocks(content.bytes(*block))),
            "the store wrote back something else than blocks"
        );
        Ok(content)
    }

    pub(crate) fn bytes(&self, block: Block) -> &[u8] {
        let start = block.run.start as usize;
        &self.extents[block.extent as usize].bytes[start..start + block.run.bytes as usize]
    }

    /// What all blocks are, in bytes.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.run.bytes)).sum()
    }
}

/// A tier that takes everything and gives nothing.
#[derive(Default)]
struct Recorder(Mutex<Vec<Extent>>);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Tier for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    fn kind(&self) -> &'static str {
        "recorder"
    }

    fn places(&self) -> u32 {
        u32::MAX
    }

    fn use_key(&self, _key: &TierKey) {}

    fn keeps_blocks(&self) -> bool {
        true
    }

    fn write(&self, writes: &[TierWrite<'_>]) -> Result<(), TierError> {
        let extents =
            writes.iter().map(|write| Extent { bytes: write.extent.to_vec(), needed: write.needed.to_vec() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(extents);
        Ok(())
    }

    fn read(&self, _copy: TierCopy, _start: usize, _into: &mut [u8]) -> Result<(), TierError> {
        Err(TierError::Unavailable("nothing is read here".to_owned()))
    }

    fn discard(&self, _place: u32) {}

    fn state(&self) -> TierState {
        TierState::Ready
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}
