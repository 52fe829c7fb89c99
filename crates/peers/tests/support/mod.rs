//! Peers on loopback, and extents of whole blocks.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod client;
pub mod disk;
pub mod fake_lender;

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use tmem_cluster::{Epoch, NodeName};
use tmem_peers::{
    BorrowingStatus, Identity, Lender, LendingOptions, LendingServer, Member, PeerTier, PeerTierOptions,
    Security,
};
use tmem_store::{
    TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierRead, TierRun, TierState, TierWrite,
};

use disk::Disk;
use fake_lender::{CLUSTER, FakeLender};

pub const EXTENT: u64 = TIER_EXTENT_BYTES as u64;

/// Waits until it is so.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn options(copies: usize) -> PeerTierOptions {
    PeerTierOptions {
        name: "peers".to_owned(),
        identity: Identity { cluster: CLUSTER, name: "borrower".parse().unwrap(), epoch: Epoch(1) },
        security: Security::Plain,
        copies,
        encrypt: false,
        repair_bytes_per_second: 0,
        repair_delay: Duration::from_millis(200),
        more_members_may_come: false,
    }
}

/// A tier, and lenders with room for so many extents.
pub fn tier_over(lenders: &[Arc<FakeLender>], copies: usize) -> PeerTier {
    open(lenders, options(copies))
}

pub fn open(lenders: &[Arc<FakeLender>], options: PeerTierOptions) -> PeerTier {
    open_again(lenders, options, [])
}

/// The tier of another process, whose store has these copies there.
pub fn open_again(
    lenders: &[Arc<FakeLender>],
    options: PeerTierOptions,
    copies: impl IntoIterator<Item = TierCopy>,
) -> PeerTier {
    let tier = PeerTier::new(options).unwrap();
    tier.adopt(copies);
    assert_eq!(tier.state(), TierState::Missing, "before there is a key nobody is spoken to");
    tier.set_members(&members(lenders));
    tier.use_key(&TierKey([7; 32]));
    tier
}

pub fn members(lenders: &[Arc<FakeLender>]) -> Vec<Member> {
    lenders.iter().map(|lender| lender.member()).collect()
}

pub fn lenders(count: usize, extents: u64) -> Vec<Arc<FakeLender>> {
    (0..count).map(|number| FakeLender::start(&format!("lender-{number}"), extents * EXTENT)).collect()
}

/// Lenders with room for so many extents each, and a tier that is ready.
pub fn ready(count: usize, extents: u64, copies: usize) -> (Vec<Arc<FakeLender>>, PeerTier) {
    ready_with(count, extents, options(copies))
}

pub fn ready_with(count: usize, extents: u64, options: PeerTierOptions) -> (Vec<Arc<FakeLender>>, PeerTier) {
    let lenders = lenders(count, extents);
    let tier = open(&lenders, options);
    wait_until_heard(&tier);
    assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
    (lenders, tier)
}

fn wait_until_heard(tier: &PeerTier) {
    wait_until("all are heard", || {
        let status = tier.status();
        status.is_complete && status.peers.iter().all(|peer| peer.free_bytes > 0)
    });
}

/// The same over a disk that has everything, too.
pub fn backed_with(
    count: usize,
    extents: u64,
    options: PeerTierOptions,
    disk: &Arc<Disk>,
) -> (Vec<Arc<FakeLender>>, PeerTier) {
    let lenders = lenders(count, extents);
    let tier = open_backed(&lenders, options, disk, []);
    if extents > 0 {
        wait_until_heard(&tier);
    }
    (lenders, tier)
}

/// The same of another process, whose store has these copies there.
pub fn open_backed(
    lenders: &[Arc<FakeLender>],
    options: PeerTierOptions,
    disk: &Arc<Disk>,
    copies: impl IntoIterator<Item = TierCopy>,
) -> PeerTier {
    let tier = PeerTier::backed(options, Arc::clone(disk) as Arc<dyn Tier>).unwrap();
    tier.adopt(copies);
    tier.set_members(&members(lenders));
    tier.use_key(&TierKey([7; 32]));
    tier
}

pub fn copy(place: u32, writing: u64) -> TierCopy {
    TierCopy { place, writing }
}

/// An extent of whole blocks, and where they are: start and length.
pub fn extent(seed: u64) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(TIER_EXTENT_BYTES).collect();
    let (mut at, mut blocks) = (0, Vec::new());
    loop {
        let payload_bytes = random.usize(12..=4096);
        let len = (12 + payload_bytes).next_multiple_of(8);
        if at + len > bytes.len() - 64 {
            bytes[at..at + 12].fill(0); // the end of the list
            return (bytes, blocks);
        }
        write_block(&mut bytes[at..at + 12 + payload_bytes]);
        blocks.push((at, len));
        at += len;
    }
}

/// Makes a block of what is there: a page as it is, of some pool.
fn write_block(block: &mut [u8]) {
    let (header, payload) = block.split_at_mut(12);
    let length_and_codec = (payload.len() as u16 - 1) << 4 | 1;
    header[10..].copy_from_slice(&length_and_codec.to_le_bytes());
    let checksum = crc32c::crc32c(payload) ^ crc32c::crc32c(&header[4..]);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The runs of these blocks.
pub fn needed(blocks: &[(usize, usize)]) -> Vec<TierRun> {
    blocks.iter().map(|(start, len)| TierRun { start: *start as u32, bytes: *len as u32 }).collect()
}

/// Writes the extent of a seed.
pub fn write(tier: &PeerTier, copy: TierCopy, seed: u64) -> Result<(), TierError> {
    let (extent, blocks) = extent(seed);
    tier.write(&[TierWrite { copy, extent: &extent, needed: &needed(&blocks) }])
}

/// Reads a block, any will do, of the extent of a seed. `Ok(false)`: something else is there.
pub fn reads(tier: &PeerTier, copy: TierCopy, seed: u64) -> Result<bool, TierError> {
    let (bytes, blocks) = extent(seed);
    let (start, len) = blocks[fastrand::usize(..blocks.len())];
    let mut into = vec![0; len];
    tier.read(copy, start, &mut into).map(|()| into == bytes[start..start + len])
}

/// All blocks of the extent of a seed, read with one call, are as they were written.
pub fn assert_read_together(tier: &PeerTier, copy: TierCopy, seed: u64) {
    let (bytes, blocks) = extent(seed);
    let mut buffers: Vec<Vec<u8>> = blocks.iter().map(|(_, len)| vec![0; *len]).collect();
    let mut reads: Vec<TierRead<'_>> = (blocks.iter().zip(&mut buffers))
        .map(|((start, _), into)| TierRead::new(copy, *start, into))
        .collect();
    tier.read_many(&mut reads);
    for (read, (start, len)) in reads.into_iter().zip(&blocks) {
        assert_eq!(read.result, Ok(()), "{copy:?}, byte {start}");
        assert!(*read.into == bytes[*start..start + len], "{copy:?}, byte {start}");
    }
}

/// Waits until all extents have as many copies as promised.
pub fn wait_for_repair(tier: &PeerTier) -> BorrowingStatus {
    wait_until("all extents have their copies", || tier.status().wanting_extents == 0);
    tier.status()
}

/// A lender of that name, on a host with as much memory as `available_bytes` says.
pub fn lend(
    name: NodeName,
    options: LendingOptions,
    available_bytes: impl Fn() -> u64 + Send + 'static,
) -> LendingServer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let identity = Identity { cluster: CLUSTER, name, epoch: Epoch(1) };
    LendingServer::start(listener, identity, Security::Plain, options, Lender::default(), available_bytes)
        .unwrap()
}
