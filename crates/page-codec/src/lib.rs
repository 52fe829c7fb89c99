//! A codec for exactly one page: 4096 bytes of memory in, a payload out, and back.
//!
//! It is of LZ4's family, cut to the page. What memory holds (pointers, small numbers, zeroes, rows of equal structs) makes
//! short matches at aligned distances, hundreds a page, so a sequence mostly costs 2 bytes here where LZ4 needs 3, and both ways
//! avoid branches that cannot be foretold, which are what a sequence costs in time.
//!
//! # Payload
//! All numbers are little-endian. The page is two halves of 2048 bytes, coded one after the other; matches of the second half may
//! reach into the first. Before the page lie 4096 zero bytes, so that every distance is valid and zeroes match from the start.
//!
//! | bytes | what |
//! |---|---|
//! | 2 + 2 | number of tokens of the first and of the second half |
//! | 2 each | tokens of the first half, then of the second |
//! | rest | for each half, what its tokens take in turn, then the literals up to the half's end |
//!
//! A token stands for some literals and a match behind them. Bits of a token, lowest first:
//!
//! | bits | what |
//! |---|---|
//! | 0-2 | number of literals, low bits |
//! | 3-6 | length of the match - [`MIN_MATCH`], low bits |
//! | 7 | long: takes one more byte |
//! | 8-15 | distance / 4, or when long: distance, low bits |
//!
//! The byte that a long token takes: bits 0-1 are bits 3-4 of the literals, bits 2-3 are bits 4-5 of the length, bits 4-7 are
//! bits 8-11 of the distance. A distance of 0 means 4096. 31 literals or a length of 63 mean that the number follows: one byte,
//! or 255 and two bytes; first the literals', then the length's. Then follow the literals.
//!
//! A match may be longer than its distance and then repeats itself, but no distance is less than `NEAREST_BYTES` (64): bytes just
//! written cannot be read back at once, and a match of them would make the processor wait for longer than it saves.

mod compress;
mod decompress;
mod look_up;

pub use compress::Compressor;
pub use decompress::{BadPayload, Decompressor};

/// What goes in and comes out, in bytes.
pub const PAGE_BYTES: usize = 4096;

/// No match is shorter, in bytes.
pub const MIN_MATCH: usize = 6;

/// The largest payload that is worth unpacking at every get: 1/32 less than the page.
pub const WORTHWHILE_BYTES: usize = PAGE_BYTES - PAGE_BYTES / 32;

/// The halves of a page are coded apart, so that a compressor can work on both at the same time.
const HALVES: usize = 2;
const HALF_BYTES: usize = PAGE_BYTES / HALVES;

/// Where the page starts in the buffers of both ways: behind the zeroes that every distance may reach, and a cache line more for
/// a compressor that looks at the 8 bytes before a match.
const START: usize = PAGE_BYTES + 64;

/// Room behind the page (or payload) for copies that are longer than asked for.
const SLACK: usize = 128;

/// Bits of tokens and of the byte that a long token takes.
const LONG: usize = 1 << 7;
/// So many literals: their number follows.
const MANY_LITERALS: usize = 31;
/// A match that long: its length follows.
const MANY_MATCHED: usize = 63;
/// The least distance of a match. Microseconds to unpack a page and mean ratio on pages of five programs: without a limit 1.70
/// and 3.14, with 32 bytes 1.33 and 3.09, 64 bytes 1.12 and 3.01, 128 bytes 1.10 and 2.91; liblz4 in the same run 1.70 and 2.97.
const NEAREST_BYTES: usize = 64;
/// Copied at once by the short way of unpacking: literals.
const CHUNK: usize = 32;
/// Copied at once by the short way of unpacking: a match.
const MATCH_CHUNK: usize = NEAREST_BYTES;
/// The largest length (less [`MIN_MATCH`]) that the short way of unpacking can copy.
const SHORT_MATCH: usize = MATCH_CHUNK - MIN_MATCH;

/// Copies N bytes: all are read before the first is written.
///
/// # Safety
/// Both are valid for N bytes.
#[inline(always)]
unsafe fn copy_chunk<const N: usize>(to: *mut u8, from: *const u8) {
    // SAFETY: by the caller's promise; an array of bytes has no alignment.
    unsafe { to.cast::<[u8; N]>().write(from.cast::<[u8; N]>().read()) }
}

#[cfg(test)]
mod tests;
