//! What a tier may know of the blocks that it keeps: whether they are whole.

use crate::block;

/// Whether these bytes are one whole block or several, up to the last byte or the end of the list. A tier that has other copies asks
/// before it gives out what came from a peer.
pub fn are_whole_blocks(bytes: &[u8]) -> bool {
    whole_blocks_bytes(bytes).is_some()
}

/// How many of these bytes are blocks, up to the end of the list. `None`: one of them is not whole, or there is none.
pub fn whole_blocks_bytes(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    loop {
        let (header, _) = block::read(rest).ok()?;
        let block_bytes = usize::from(block::block_bytes(header.payload_bytes));
        rest = rest.get(block_bytes..).unwrap_or_default();
        if block::is_end(rest) {
            return Some(bytes.len() - rest.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_a_flipped_bit_is_seen_and_what_follows_the_end_is_not_looked_at() {
        let mut bytes = vec![7; 4000];
        block::write_filler(&mut bytes[..2000], 2000);
        block::write_filler(&mut bytes[2000..], 1000);
        block::write_end(&mut bytes[3000..]);
        assert!(
            are_whole_blocks(&bytes)
                && are_whole_blocks(&bytes[..2000])
                && are_whole_blocks(&bytes[2000..3000])
        );
        assert_eq!(
            (whole_blocks_bytes(&bytes), whole_blocks_bytes(&bytes[..2000])),
            (Some(3000), Some(2000))
        );
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
