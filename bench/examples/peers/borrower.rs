//! Our side: a tier that borrows, and lenders in processes of their own.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tmem_cluster::Epoch;
use tmem_peers::{Identity, Member, PeerTier, PeerTierOptions, Security};
use tmem_store::{MAX_TIER_BATCH, Tier, TierCopy, TierKey, TierRead, TierWrite};

use crate::{
    certificates::Certificates,
    content::{Block, Content, MAX_BLOCK_BYTES},
    interrupt,
    lender::{CLUSTER, Lender},
    network::Network,
    side::{Memory, Side, UNDER_WAY, by_threads},
};

/// How long peers have to be found, and to forget.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Borrowing {
    name: String,
    /// Before its lenders, so that it ends before them.
    tier: PeerTier,
    lenders: Vec<Lender>,
    content: Arc<Content>,
    /// How often all was written.
    writings: u64,
}

impl Borrowing {
    pub(crate) fn start(
        name: &str,
        copies: usize,
        encrypt: bool,
        certificates: Option<&Certificates>,
        network: &Network,
        content: &Arc<Content>,
    ) -> Result<Self> {
        let lenders: Vec<Lender> = (0..copies)
            .map(|number| Lender::start(&format!("lender-{number}"), certificates, network))
            .collect::<Result<_>>()?;
        let tier = PeerTier::new(PeerTierOptions {
            name: name.to_owned(),
            identity: Identity { cluster: CLUSTER, name: "borrower".parse()?, epoch: Epoch(1) },
            security: certificates.map_or(Ok(Security::Plain), Certificates::security)?,
            copies,
            encrypt,
            repair_bytes_per_second: 0,
            repair_delay: PeerTierOptions::REPAIR_DELAY,
            more_members_may_come: false,
        })?;
        tier.use_key(&TierKey([7; 32]));
        let member = |lender: &Lender| {
            let (name, address) = (lender.name.parse()?, lender.address.clone());
            Ok(Member { name, address, domain: None, epoch: None })
        };
        tier.set_members(&lenders.iter().map(member).collect::<Result<Vec<_>>>()?);
        let mut side =
            Self { name: name.to_owned(), tier, lenders, content: Arc::clone(content), writings: 0 };
        side.wait_until("the lenders are there", |side| {
            let status = side.tier.status();
            Ok(status.is_complete && status.peers.iter().all(|peer| peer.free_bytes > 0))
        })?;
        side.lenders.iter_mut().try_for_each(Lender::set_base)?;
        Ok(side)
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&mut Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            interrupt::check()?;
            if Instant::now() >= deadline {
                bail!("{}: not in {PATIENCE:?}: {what} ({:?})", self.name, self.tier.trouble());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn copy(&self, extent: u32) -> TierCopy {
        TierCopy { place: extent, writing: self.writings << 32 | u64::from(extent) }
    }

    /// Reads a block and compares it: how long the read took.
    fn read(&self, block: Block, into: &mut [u8]) -> Result<Duration> {
        interrupt::check()?;
        let into = &mut into[..block.run.bytes as usize];
        let start = Instant::now();
        self.tier.read(self.copy(block.extent), block.run.start as usize, into)?;
        let took = start.elapsed();
        ensure!(*into == *self.content.bytes(block), "{}: another block came", self.name);
        Ok(took)
    }
}

impl Side for Borrowing {
    fn name(&self) -> &str {
        &self.name
    }

    fn empty(&mut self) -> Result<()> {
        (0..self.content.extents.len() as u32).for_each(|place| self.tier.discard(place));
        self.wait_until("everything is forgotten", |side| {
            side.lenders
                .iter_mut()
                .try_fold(true, |is_so, lender| Ok(is_so && lender.holds()?.needed_bytes == 0))
        })
    }

    fn put(&mut self) -> Result<f64> {
        self.writings += 1;
        let numbered: Vec<_> = (0..).zip(&self.content.extents).collect();
        let start = Instant::now();
        // As write-back does.
        for batch in numbered.chunks(MAX_TIER_BATCH) {
            interrupt::check()?;
            let writes: Vec<TierWrite<'_>> = batch
                .iter()
                .map(|(place, extent)| TierWrite {
                    copy: self.copy(*place),
                    extent: &extent.bytes,
                    needed: &extent.needed,
                })
                .collect();
            self.tier.write(&writes)?;
        }
        Ok(self.content.blocks.len() as f64 / start.elapsed().as_secs_f64())
    }

    fn get_alone(&mut self, blocks: &[usize]) -> Result<Vec<u64>> {
        let mut into = [0; MAX_BLOCK_BYTES];
        let read = |number: &usize| Ok(self.read(self.content.blocks[*number], &mut into)?.as_nanos() as u64);
        blocks.iter().map(read).collect()
    }

    fn get_together(&mut self, blocks: &[usize]) -> Result<f64> {
        let mut buffers = vec![[0; MAX_BLOCK_BYTES]; UNDER_WAY];
        let start = Instant::now();
        for part in blocks.chunks(UNDER_WAY) {
            interrupt::check()?;
            let wanted = part.iter().map(|number| self.content.blocks[*number]);
            let mut reads: Vec<TierRead<'_>> = wanted
                .clone()
                .zip(&mut buffers)
                .map(|(block, into)| {
                    let into = &mut into[..block.run.bytes as usize];
                    TierRead::new(self.copy(block.extent), block.run.start as usize, into)
                })
                .collect();
            self.tier.read_many(&mut reads);
            for (read, block) in reads.into_iter().zip(wanted) {
                read.result?;
                ensure!(*read.into == *self.content.bytes(block), "{}: another block came", self.name);
            }
        }
        Ok(blocks.len() as f64 / start.elapsed().as_secs_f64())
    }

    fn get_by_threads(&mut self, blocks: &[usize]) -> Result<f64> {
        by_threads(blocks, |part, barrier| {
            let mut into = [0; MAX_BLOCK_BYTES];
            barrier.wait();
            part.iter().try_for_each(|number| self.read(self.content.blocks[*number], &mut into).map(|_| ()))
        })
    }

    fn release(&mut self, blocks: &[usize]) -> Result<()> {
        let dead: Vec<_> = blocks
            .iter()
            .map(|number| self.content.blocks[*number])
            .map(|block| (self.copy(block.extent), block.run))
            .collect();
        self.tier.release(&dead);
        Ok(())
    }

    fn memory(&mut self) -> Result<Memory> {
        // What has died is said within a quarter of a second.
        thread::sleep(Duration::from_millis(600));
        let lender = self.lenders.first_mut().context("no lender")?;
        let holds = lender.settle()?;
        Ok(Memory {
            blocks_bytes: holds.needed_bytes,
            said_bytes: holds.held_bytes,
            resident_bytes: holds.resident_bytes,
        })
    }
}
