//! Whatever one of three lenders does, at any moment: with two copies, what was written is read as it was until it is discarded. So it is with one copy and a
//! disk, whatever all of the lenders do, or the disk.
//!
//! `TMEM_PEER_RUNS=N` tries N runs instead of some.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use support::{
    EXTENT, backed_with, copy,
    disk::Disk,
    extent,
    fake_lender::{FakeLender, Mischief},
    needed, options, ready_with, wait_until,
};
use tmem_peers::{PeerState, PeerTier, PeerTierOptions};
use tmem_store::{Tier, TierCopy, TierRun, TierWrite};

#[derive(Clone, Debug)]
enum Step {
    /// To so many free places, of which so many at most are in use.
    Write(u32),
    /// The block of the place with these numbers, counted from what there is.
    Read(usize, usize),
    Discard(usize),
    /// Blocks of a place die: each that such a number divides.
    Release(usize, usize),
    /// What is wrong before is over, all copies are back, and then this lender does this.
    Fault(usize, Fault),
    /// What is wrong is over.
    Heal,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Does(Mischief),
    IsKilled,
    IsStale,
    IsFull,
    Recalls,
    /// Not the lender's but the disk's, if there is one: it does not read, or not write.
    OfDisk(bool),
}

const PLACES: u32 = 24;
const ROOM: u64 = 60;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![
        3 => Just(Fault::Does(Mischief::Away)),
        1 => Just(Fault::Does(Mischief::Mute)),
        1 => Just(Fault::Does(Mischief::Stuck)),
        1 => Just(Fault::Does(Mischief::OnlyPings)),
        2 => Just(Fault::Does(Mischief::WrongBits)),
        2 => Just(Fault::Does(Mischief::TooShort)),
        1 => Just(Fault::Does(Mischief::TooFew)),
        2 => Just(Fault::Does(Mischief::Slow(200))),
        2 => Just(Fault::Does(Mischief::CutsOff)),
        2 => Just(Fault::Does(Mischief::Confused)),
        2 => Just(Fault::Does(Mischief::DamagedFrames)),
        4 => Just(Fault::IsKilled),
        4 => Just(Fault::IsStale),
        2 => Just(Fault::IsFull),
        3 => Just(Fault::Recalls),
        4 => any::<bool>().prop_map(Fault::OfDisk),
    ];
    let step = prop_oneof![
        6 => (1..=4u32).prop_map(Step::Write),
        10 => any::<(usize, usize)>().prop_map(|(place, block)| Step::Read(place, block)),
        3 => any::<usize>().prop_map(Step::Discard),
        3 => (any::<usize>(), 2..6usize).prop_map(|(place, each)| Step::Release(place, each)),
        2 => (0..3usize, fault).prop_map(|(lender, fault)| Step::Fault(lender, fault)),
        1 => Just(Step::Heal),
    ];
    prop::collection::vec(step, 10..60)
}

struct Run {
    lenders: Vec<Arc<FakeLender>>,
    tier: PeerTier,
    /// `None`: each extent is at two lenders.
    disk: Option<Arc<Disk>>,
    /// Whether what is wrong now is the disk.
    disk_fails: bool,
    /// By place: the writing, and the blocks that are needed.
    model: BTreeMap<u32, (u64, Vec<(usize, usize)>)>,
    next_writing: u64,
}

impl Run {
    fn begin() -> Self {
        let (lenders, tier) = ready_with(3, ROOM, PeerTierOptions { encrypt: true, ..options(2) });
        Self { lenders, tier, disk: None, disk_fails: false, model: BTreeMap::new(), next_writing: 1 }
    }

    fn backed() -> Self {
        let disk = Disk::new(PLACES.into());
        let options = PeerTierOptions { encrypt: true, ..options(1) };
        let (lenders, tier) = backed_with(3, ROOM, options, &disk);
        let disk = Some(disk);
        Self { lenders, tier, disk, disk_fails: false, model: BTreeMap::new(), next_writing: 1 }
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Write(count) => self.write(*count),
            Step::Read(place, block) => {
                if let Some((copy, blocks)) = self.pick(*place)
                    && !blocks.is_empty()
                {
                    self.check(copy, blocks[block % blocks.len()]);
                }
            }
            Step::Discard(place) => {
                if let Some((copy, _)) = self.pick(*place) {
                    self.model.remove(&copy.place);
                    self.tier.discard(copy.place);
                }
            }
            Step::Release(place, each) => {
                if let Some((copy, blocks)) = self.pick(*place) {
                    let dead: Vec<_> = blocks.iter().copied().step_by(*each).collect();
                    self.model
                        .entry(copy.place)
                        .and_modify(|(_, kept)| kept.retain(|block| !dead.contains(block)));
                    let dead: Vec<(TierCopy, TierRun)> =
                        needed(&dead).into_iter().map(|run| (copy, run)).collect();
                    self.tier.release(&dead);
                }
            }
            Step::Fault(lender, fault) => {
                let is_of_disk = matches!(fault, Fault::OfDisk(_));
                // Where there is a disk, all lenders may fail at once.
                if self.disk.is_none() || is_of_disk || self.disk_fails {
                    self.heal();
                }
                self.disk_fails = is_of_disk;
                self.fault(*lender, *fault);
            }
            Step::Heal => {
                self.heal();
                self.disk_fails = false;
            }
        }
    }

    fn pick(&self, number: usize) -> Option<(TierCopy, Vec<(usize, usize)>)> {
        let (place, (writing, blocks)) = self.model.iter().nth(number % self.model.len().max(1))?;
        Some((copy(*place, *writing), blocks.clone()))
    }

    fn write(&mut self, count: u32) {
        let places: Vec<u32> =
            (0..PLACES).filter(|place| !self.model.contains_key(place)).take(count as usize).collect();
        let first = self.next_writing;
        self.next_writing += places.len() as u64;
        let copies: Vec<TierCopy> =
            places.iter().zip(first..).map(|(place, writing)| copy(*place, writing)).collect();
        let extents: Vec<_> = copies.iter().map(|copy| extent(copy.writing)).collect();
        // Every third block is dead already.
        let alive: Vec<Vec<(usize, usize)>> = extents
            .iter()
            .map(|(_, blocks)| {
                let alive = blocks.iter().enumerate().filter(|(number, _)| number % 3 > 0);
                alive.map(|(_, block)| *block).collect()
            })
            .collect();
        let runs: Vec<_> = alive.iter().map(|blocks| needed(blocks)).collect();
        let writes: Vec<_> = (copies.iter().zip(&extents).zip(&runs))
            .map(|((copy, (extent, _)), needed)| TierWrite { copy: *copy, extent, needed })
            .collect();
        if self.tier.write(&writes).is_ok() {
            self.model
                .extend(copies.iter().zip(alive).map(|(copy, blocks)| (copy.place, (copy.writing, blocks))));
        }
    }

    fn check(&self, copy: TierCopy, (start, len): (usize, usize)) {
        let (bytes, _) = extent(copy.writing);
        let mut into = vec![0; len];
        assert_eq!(self.tier.read(copy, start, &mut into), Ok(()), "{copy:?}: {:#?}", self.tier.status());
        assert_eq!(into, bytes[start..start + len], "r1 {copy:?}");
    }

    fn fault(&self, lender: usize, fault: Fault) {
        let lender = &self.lenders[lender];
        match fault {
            Fault::Does(mischief) => lender.misbehave(mischief),
            Fault::IsKilled => lender.kill(),
            Fault::IsStale => lender.come_back_stale(),
            Fault::IsFull => lender.set_room(0),
            Fault::OfDisk(reads) => {
                if let Some(disk) = &self.disk {
                    if reads { disk.refuse_reads(true) } else { disk.refuse_writes(true) }
                }
            }
            Fault::Recalls => {
                let copies = lender.copies();
                lender.set_room(0);
                if !copies.is_empty() {
                    // Long enough for repair on a busy machine: what is dropped before that is another fault.
                    lender.recall(&copies, 20_000);
                }
            }
        }
    }

    fn heal(&self) {
        for lender in &self.lenders {
            lender.misbehave(Mischief::None);
            lender.set_room(ROOM * EXTENT);
        }
        if let Some(disk) = &self.disk {
            disk.refuse_reads(false);
            disk.refuse_writes(false);
        }
        wait_until("all are there, and all extents have their copies", || {
            let status = self.tier.status();
            status.wanting_extents == 0
                && (status.peers.iter())
                    .all(|peer| peer.state == PeerState::Connected && peer.free_bytes > 0)
                // A fault may not have been heard of yet.
                && status.peers.iter().zip(&self.epochs()).all(|(peer, epoch)| {
                    peer.epoch.is_some_and(|known| (peer.name.as_str(), known.0) == (&epoch.0, epoch.1))
                })
        });
    }

    fn epochs(&self) -> Vec<(String, u64)> {
        let mut lenders: Vec<_> = self.lenders.iter().collect();
        lenders.sort_by_key(|lender| lender.member().name.node_id());
        lenders.iter().map(|lender| (lender.member().name.to_string(), lender.epoch())).collect()
    }

    fn end(self) {
        self.heal();
        for (place, (writing, blocks)) in &self.model {
            blocks.iter().for_each(|block| self.check(copy(*place, *writing), *block));
        }
        assert_eq!(self.tier.status().lost_extents, 0);
        self.model.keys().for_each(|place| self.tier.discard(*place));
        wait_until("r7 nobody keeps what nobody needs", || {
            self.lenders.iter().all(|lender| lender.is_empty())
        });
    }
}

fn runs() -> u32 {
    std::env::var("TMEM_PEER_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::with_cases(runs()) })]
    #[test]
    fn r1_no_page_is_lost_or_wrong_while_one_of_three_fails(steps in steps()) {
        let mut run = Run::begin();
        steps.iter().for_each(|step| run.carry_out(step));
        run.end();
    }

    #[test]
    fn r1_nor_while_any_of_them_or_the_disk_that_has_a_copy_fails(steps in steps()) {
        let mut run = Run::backed();
        steps.iter().for_each(|step| run.carry_out(step));
        run.end();
    }
}
