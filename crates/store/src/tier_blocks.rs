//! What a tier may know of the blocks in the extents that it keeps: whether they are whole, and what to put where one is missing.

use crate::block;

/// Whether these bytes are one whole block or several, up to the last byte or the end of the list. A tier that has other copies asks
/// before it gives out what came from a peer.
pub fn are_whole_blocks(mut bytes: &[u8]) -> bool {
    loop {
        let Ok((header, _)) = block::read(bytes) else { return false };
        let block_bytes = usize::from(block::block_bytes(header.payload_bytes));
        bytes = bytes.get(block_bytes..).unwrap_or_default();
        if block::is_end(bytes) {
            return true;
        }
    }
}

/// Makes a gap between blocks, whose own ones nobody needs any more, blocks that belong to nobody: the list of blocks goes on
/// behind it. A gap is as long as one block or several; what is shorter than any block is left as it is.
pub fn fill_with_nobodys_blocks(mut gap: &mut [u8]) {
    let (least, most) = (usize::from(block::MIN_BLOCK_BYTES), usize::from(block::MAX_BLOCK_BYTES));
    while gap.len() >= least {
        let bytes = match gap.len() {
            all if all <= most => all,
            // What is left must be a block, too.
            all if all < most + least => most - least,
            _ => most,
        };
        // The longest block fits.
        block::write_filler(gap, bytes as u16);
        gap = &mut gap[bytes..];
    }
}

/// Ends the list of blocks of an extent: from here on there are none.
pub fn end_blocks(rest: &mut [u8]) {
    block::write_end(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_any_length_are_whole_blocks_of_nobody() {
        for bytes in (24..=131_072).step_by(8).filter(|bytes| *bytes < 13_000 || bytes % 4096 < 64) {
            let mut gap = vec![0xa5; bytes];
            fill_with_nobodys_blocks(&mut gap);
            assert!(are_whole_blocks(&gap), "{bytes} bytes");
            let (mut at, mut blocks) = (0, 0);
            while at < bytes {
                let (header, _) = block::read(&gap[at..]).unwrap();
                assert_eq!(header.pool, block::NOBODY);
                at += usize::from(block::block_bytes(header.payload_bytes));
                blocks += 1;
            }
            assert_eq!((at, blocks > 0), (bytes, true));
        }
    }

    #[test]
    fn r4_a_flipped_bit_is_seen_and_what_follows_the_end_is_not_looked_at() {
        let mut bytes = vec![7; 4000];
        fill_with_nobodys_blocks(&mut bytes[..2000]);
        fill_with_nobodys_blocks(&mut bytes[2000..3000]);
        end_blocks(&mut bytes[3000..]);
        assert!(are_whole_blocks(&bytes));
        for at in (0..3000).step_by(7) {
            bytes[at] ^= 0x10;
            assert!(!are_whole_blocks(&bytes), "byte {at}");
            bytes[at] ^= 0x10;
        }
        bytes[3500] ^= 1;
        assert!(are_whole_blocks(&bytes));
        assert!(!are_whole_blocks(&[0; 4000]) && !are_whole_blocks(&[]), "nothing is no block");
    }
}
