//! Making an extent that was being written to one whose blocks can be walked.

use crate::{
    block::{self, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES},
    entry::BlockRef,
};

/// Blocks that overlap, or lie so that nothing fits between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unrepairable;

/// Fills what lies between the live blocks of an extent with blocks of nobody's, and ends the list after the last one. `blocks` are in
/// the order of their places, and inside the extent, which starts at arena offset `start`. The live blocks are not touched, so this
/// can be cut short and done again.
pub(crate) fn fill_gaps(extent: &mut [u8], start: u64, blocks: &[BlockRef]) -> Result<(), Unrepairable> {
    let places =
        || blocks.iter().map(|block| ((block.offset.0 - start) as usize, usize::from(block.block_bytes)));
    let mut at = 0;
    for (place, bytes) in places() {
        let gap = place.checked_sub(at).ok_or(Unrepairable)?;
        if gap != 0 && gap < usize::from(MIN_BLOCK_BYTES) {
            return Err(Unrepairable);
        }
        at = place + bytes;
    }
    let mut at = 0;
    for (place, bytes) in places() {
        while at < place {
            let filler = filler_bytes(place - at);
            block::write_filler(&mut extent[at..place], filler);
            at += usize::from(filler);
        }
        at = place + bytes;
    }
    block::write_end(&mut extent[at..]);
    Ok(())
}

/// The size of the first of the blocks that fill a gap.
fn filler_bytes(gap: usize) -> u16 {
    const MAX: usize = MAX_BLOCK_BYTES as usize;
    const MIN: usize = MIN_BLOCK_BYTES as usize;
    let bytes = if gap <= MAX {
        gap
    } else if gap - MAX < MIN {
        gap - MIN
    } else {
        MAX
    };
    bytes as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        block::BlockHeader,
        codec::Codec,
        extents::EXTENT_BYTES,
        ids::{ArenaOffset, IndexSlot, PoolId},
    };

    /// The blocks met on a walk: (place, bytes, pool).
    fn walk(extent: &[u8]) -> Vec<(usize, u16, PoolId)> {
        let (mut at, mut met) = (0, Vec::new());
        while !block::is_end(&extent[at..]) {
            let (header, _) = block::read(&extent[at..]).expect("a block that proves right");
            let bytes = block::block_bytes(header.payload_bytes);
            met.push((at, bytes, header.pool));
            at += usize::from(bytes);
        }
        met
    }

    proptest! {
        #[test]
        fn any_extent_with_gaps_can_be_walked_afterwards(
            written in proptest::collection::vec((1..=4096u16, any::<bool>()), 0..200),
            garbage in any::<u8>(),
        ) {
            let mut extent = vec![garbage; EXTENT_BYTES];
            let (mut at, mut live) = (0, Vec::new());
            for (payload_bytes, is_live) in written {
                let block_bytes = block::block_bytes(payload_bytes);
                if at + usize::from(block_bytes) > EXTENT_BYTES {
                    break;
                }
                if is_live {
                    let header = BlockHeader { pool: PoolId(3), slot: IndexSlot(7), codec: Codec::Raw, payload_bytes };
                    let payload = vec![1; usize::from(payload_bytes)];
                    header.write(&mut extent[at..], &payload, block::PayloadCrc::of(&payload));
                    live.push(BlockRef { offset: ArenaOffset((1 << 20) + at as u64), block_bytes });
                }
                at += usize::from(block_bytes);
            }
            prop_assert_eq!(fill_gaps(&mut extent, 1 << 20, &live), Ok(()));
            let met = walk(&extent);
            prop_assert!(met.iter().all(|(_, _, pool)| [PoolId(3), block::NOBODY].contains(pool)));
            let owned: Vec<_> = met.iter().filter(|met| met.2 == PoolId(3)).map(|met| (met.0, met.1)).collect();
            let expected: Vec<_> =
                live.iter().map(|live| (live.offset.0 as usize - (1 << 20), live.block_bytes)).collect();
            prop_assert_eq!(owned, expected);
        }
    }

    #[test]
    fn blocks_that_cannot_be_right_are_refused() {
        let block = |offset, block_bytes| BlockRef { offset: ArenaOffset(offset), block_bytes };
        let mut extent = vec![0; EXTENT_BYTES];
        assert_eq!(fill_gaps(&mut extent, 0, &[block(0, 64), block(56, 64)]), Err(Unrepairable));
        assert_eq!(fill_gaps(&mut extent, 0, &[block(0, 64), block(80, 64)]), Err(Unrepairable));
        assert!(extent.iter().all(|byte| *byte == 0));
    }
}
