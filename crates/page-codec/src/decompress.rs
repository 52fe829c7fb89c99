//! Unpacking a payload.
//!
//! The page is put together in this thread's own memory and copied out when it is whole: there, a copy may be longer than asked
//! for, nobody else can change what a match repeats, and a bad payload never reaches the target.

use crate::{
    CHUNK, HALF_BYTES, LONG, MANY_LITERALS, MANY_MATCHED, MATCH_CHUNK, MIN_MATCH, NEAREST_BYTES, PAGE_BYTES,
    SHORT_MATCH, SLACK, START, copy_chunk,
};

/// A payload that does not make a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPayload;

/// The most that is read of a payload's copy, right or wrong: 4096 bytes, a byte for each of up to 2048 tokens that has no room
/// among them, and a half's literals that are found to be too many only behind the last.
const PAYLOAD_ROOM: usize = 3 * PAGE_BYTES + SLACK;

/// The working memory of a thread that unpacks pages: 20 KiB.
#[repr(C, align(64))]
pub struct Decompressor {
    /// Zeroes, then the page, then bytes of no meaning.
    bytes: [u8; START + PAGE_BYTES + SLACK],
    payload: [u8; PAYLOAD_ROOM],
    avx2: bool,
}

impl Default for Decompressor {
    fn default() -> Self {
        #[cfg(target_arch = "x86_64")]
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
        #[cfg(not(target_arch = "x86_64"))]
        let avx2 = false;
        Self { bytes: [0; START + PAGE_BYTES + SLACK], payload: [0; PAYLOAD_ROOM], avx2 }
    }
}

impl Decompressor {
    /// Unpacks a payload into the page at `page`. Errors: it does not make exactly a page; the page is then as it was.
    ///
    /// # Safety
    /// 4096 bytes from `page` are writable and not part of this program's own variables.
    pub unsafe fn decompress(&mut self, payload: &[u8], page: *mut u8) -> Result<(), BadPayload> {
        self.unpack_any(payload)?;
        // SAFETY: writable by the caller's promise, and not this decompressor.
        unsafe { self.bytes.as_ptr().add(START).copy_to_nonoverlapping(page, PAGE_BYTES) };
        Ok(())
    }

    /// Does without what not every processor has.
    #[cfg(test)]
    pub(crate) fn plain(mut self) -> Self {
        self.avx2 = false;
        self
    }

    #[inline(always)]
    fn unpack_any(&mut self, payload: &[u8]) -> Result<(), BadPayload> {
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: the processor has what is asked for.
            return unsafe { self.unpack_avx2(payload) };
        }
        self.unpack(payload)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi2")]
    fn unpack_avx2(&mut self, payload: &[u8]) -> Result<(), BadPayload> {
        self.unpack(payload)
    }

    #[inline(always)]
    fn unpack(&mut self, payload: &[u8]) -> Result<(), BadPayload> {
        let [a, b, c, d, ..] = *payload else { return Err(BadPayload) };
        let counts = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])].map(usize::from);
        let rest_at = 4 + 2 * (counts[0] + counts[1]);
        if payload.len() > PAGE_BYTES || payload.len() < rest_at {
            return Err(BadPayload);
        }
        self.payload[..payload.len()].copy_from_slice(payload);
        let start = self.payload.as_ptr();
        let bytes = self.bytes.as_mut_ptr();
        // SAFETY: all three are inside the payload.
        let (mut token_at, mut rest, payload_end) =
            unsafe { (start.add(4), start.add(rest_at), start.add(payload.len())) };
        let mut at = START;
        let mut nearest = PAGE_BYTES;
        for (half, count) in counts.into_iter().enumerate() {
            let end = START + (half + 1) * HALF_BYTES;
            for _ in 0..count {
                // Here `at` <= `end`, and `rest` is no further behind `payload_end` than by what PAYLOAD_ROOM has: whatever was taken
                // is a byte per token, literals that the page had room for, or was checked.
                // SAFETY: so all reads of the payload are inside its room, with SLACK for a chunk. A distance is at most 4096
                // and START more than that. Writes end less than SLACK behind `end`.
                unsafe {
                    let token = usize::from(u16::from_le(token_at.cast::<u16>().read_unaligned()));
                    token_at = token_at.add(2);
                    let long = (token / LONG) & 1;
                    let extra = usize::from(*rest) & 0usize.wrapping_sub(long);
                    rest = rest.add(long);
                    let literals = (token & 7) | ((extra & 3) << 3);
                    let more = ((token >> 3) & 15) | ((extra & 12) << 2);
                    let distance = ((token >> 8) << (2 - 2 * long)) | ((extra >> 4) << 8);
                    let distance = (distance.wrapping_sub(1) & (PAGE_BYTES - 1)) + 1;
                    nearest = nearest.min(distance);
                    if literals == MANY_LITERALS || more > SHORT_MATCH {
                        (at, rest) = copy_many(bytes, at, end, rest, payload_end, literals, more, distance)?;
                        continue;
                    }
                    copy_chunk::<CHUNK>(bytes.add(at), rest);
                    rest = rest.add(literals);
                    at += literals;
                    let to = bytes.add(at);
                    copy_chunk::<MATCH_CHUNK>(to, to.sub(distance));
                    at += more + MIN_MATCH;
                }
                if at > end {
                    return Err(BadPayload);
                }
            }
            let left = end - at;
            // SAFETY: `at` <= `end`, and what is left of the payload is enough.
            unsafe {
                if (payload_end as usize).wrapping_sub(rest as usize) < left || rest > payload_end {
                    return Err(BadPayload);
                }
                rest.copy_to_nonoverlapping(bytes.add(at), left);
                rest = rest.add(left);
            }
            at = end;
        }
        // Nearer matches would have copied bytes that were not written yet.
        if rest == payload_end && nearest >= NEAREST_BYTES { Ok(()) } else { Err(BadPayload) }
    }
}

/// The long way of a token: numbers of any size. Returns the new `at` and `rest`.
///
/// # Safety
/// `bytes` has a page at START; `at` <= `end`, which is inside the page or its end; `rest` has 8 readable bytes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn copy_many(
    bytes: *mut u8,
    mut at: usize,
    end: usize,
    mut rest: *const u8,
    payload_end: *const u8,
    mut literals: usize,
    mut more: usize,
    distance: usize,
) -> Result<(usize, *const u8), BadPayload> {
    // SAFETY: two numbers are at most 6 bytes; then all is checked before it is copied. Matches are written in chunks, which end
    // less than SLACK behind `end`.
    unsafe {
        if literals == MANY_LITERALS {
            (literals, rest) = number(rest);
        }
        if more == MANY_MATCHED {
            (more, rest) = number(rest);
        }
        let matched = more + MIN_MATCH;
        if rest > payload_end
            || payload_end.offset_from_unsigned(rest) < literals
            || end - at < literals + matched
        {
            return Err(BadPayload);
        }
        rest.copy_to_nonoverlapping(bytes.add(at), literals);
        rest = rest.add(literals);
        at += literals;
        let to = bytes.add(at);
        let from = to.sub(distance);
        for i in (0..matched).step_by(MATCH_CHUNK) {
            copy_chunk::<MATCH_CHUNK>(to.add(i), from.add(i));
        }
        Ok((at + matched, rest))
    }
}

/// # Safety
/// `at` has 3 readable bytes.
unsafe fn number(at: *const u8) -> (usize, *const u8) {
    // SAFETY: by the caller's promise.
    unsafe {
        let [first, low, high] = at.cast::<[u8; 3]>().read();
        if first < 255 {
            return (usize::from(first), at.add(1));
        }
        (usize::from(u16::from_le_bytes([low, high])), at.add(3))
    }
}
