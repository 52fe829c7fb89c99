//! Pages as a lender gets to see them: encrypted with ChaCha20, under a key that never leaves this host.
//!
//! Each copy has a stream of its own, as long as an extent: bytes at a place of the extent always meet the same bytes of it. So blocks keep their
//! places and lengths, each is read by itself, and repair copies what it cannot read. The nonce is place and number of the writing, and nothing
//! else is ever written under these.
//!
//! This hides pages from who lends, and no more than that: their checksums are against accidents, and somebody who means it can change
//! a page that he cannot read.

use chacha20::{
    ChaCha20, KeyIvInit,
    cipher::{StreamCipher, StreamCipherSeek},
};
use tmem_store::{TierCopy, TierKey, are_whole_blocks};

/// What the key is for, so that it is not the one of pages on a disk.
const PURPOSE: &[u8] = b"tmem pages at peers";

/// The key, and whether what goes out is encrypted. What comes in may be either, as a process before this one was told.
pub(super) struct Seal {
    key: [u8; 32],
    is_used: bool,
}

impl Seal {
    pub(super) fn new(key: &TierKey, is_used: bool) -> Self {
        let derived = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key.0), PURPOSE);
        Self { key: derived.as_ref().first_chunk().copied().unwrap_or_default(), is_used }
    }

    /// Whether what goes out is encrypted.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Bytes of a copy, from `start` of its extent on, as they go out. False: they must not.
    pub(super) fn close(&self, copy: TierCopy, start: usize, bytes: &mut [u8]) -> bool {
        !self.is_used || self.turn(copy, start, bytes)
    }

    /// The same, as they came, made plain. False: they are no whole blocks.
    pub(super) fn open(&self, copy: TierCopy, start: usize, bytes: &mut [u8]) -> bool {
        let is_open = (!self.is_used || self.turn(copy, start, bytes)) && are_whole_blocks(bytes);
        is_open || self.turn(copy, start, bytes) && are_whole_blocks(bytes)
    }

    /// Plain to encrypted, and back.
    fn turn(&self, copy: TierCopy, start: usize, bytes: &mut [u8]) -> bool {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&copy.place.to_le_bytes());
        nonce[4..].copy_from_slice(&copy.writing.to_le_bytes());
        let mut stream = ChaCha20::new(&self.key.into(), &nonce.into());
        stream.try_seek(start as u64).and_then(|()| stream.try_apply_keystream(bytes)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tmem_store::TIER_EXTENT_BYTES;

    use super::*;

    const KEY: TierKey = TierKey([7; 32]);

    fn closed(seal: &Seal, copy: TierCopy, start: usize, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        assert!(seal.close(copy, start, &mut bytes));
        bytes
    }

    #[test]
    fn it_is_chacha20_as_others_have_it() {
        // RFC 8439, appendix A.1, vectors 1 and 2: a key and a nonce of zeroes.
        let seal = Seal { key: [0; 32], is_used: true };
        let stream = closed(&seal, TierCopy { place: 0, writing: 0 }, 0, &[0; 128]);
        assert_eq!(stream[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
        assert_eq!(stream[64..72], [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]);
    }

    #[test]
    fn each_key_place_and_writing_has_a_stream_of_its_own_and_off_is_off() {
        let copy = TierCopy { place: 3, writing: 1 << 40 };
        let others = [(4, 1 << 40), (3, (1 << 40) + 1), (1, 3)];
        let seal = Seal::new(&KEY, true);
        let mut streams = vec![closed(&seal, copy, 0, &[0; 64])];
        streams
            .extend(others.map(|(place, writing)| closed(&seal, TierCopy { place, writing }, 0, &[0; 64])));
        streams.push(closed(&Seal::new(&TierKey([8; 32]), true), copy, 0, &[0; 64]));
        streams.push(closed(&Seal::new(&KEY, false), copy, 0, &[0; 64]));
        assert!(streams.pop().is_some_and(|plain| plain == [0; 64]));
        for (number, stream) in streams.iter().enumerate() {
            assert!(!streams[..number].contains(stream) && *stream != [0; 64] && stream[..32] != KEY.0);
        }
    }

    proptest! {
        #[test]
        fn any_part_is_closed_as_it_is_within_the_whole(
            start in 0..TIER_EXTENT_BYTES,
            len in 0..9000usize,
            place in any::<u32>(),
            writing in any::<u64>(),
        ) {
            let (seal, copy) = (Seal::new(&KEY, true), TierCopy { place, writing });
            let extent: Vec<u8> = (0..TIER_EXTENT_BYTES).map(|at| (at / 5) as u8).collect();
            let whole = closed(&seal, copy, 0, &extent);
            let end = (start + len).min(TIER_EXTENT_BYTES);
            prop_assert!(closed(&seal, copy, start, &extent[start..end]) == whole[start..end]);
            prop_assert!(seal.turn(copy, start, &mut whole[start..end].to_vec()));
            prop_assert!(closed(&seal, copy, start, &whole[start..end]) == extent[start..end]);
        }
    }
}
