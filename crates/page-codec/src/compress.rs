//! Packing a page, in two passes.
//!
//! The first ([`look_up`](crate::look_up)) looks at every second byte: where did the same [`MIN_MATCH`] bytes stand last? It
//! never branches, so it costs the same for every page. The second, here, walks from match to match by counting zero bits, on
//! both halves of the page in turn: a walk is one long chain of dependent instructions, and two chains run in the time of one.

use crate::{
    CHUNK, HALF_BYTES, HALVES, LONG, MANY_LITERALS, MANY_MATCHED, MIN_MATCH, PAGE_BYTES, SHORT_MATCH, SLACK,
    START, WORTHWHILE_BYTES, copy_chunk,
    look_up::{LookUp, PLACES, PageBytes},
};

/// More tokens than matches fit into a half.
const HALF_TOKENS: usize = HALF_BYTES / MIN_MATCH + 1;
/// More than a half's literals and what its tokens take: a byte and two numbers of up to 3 bytes each.
const HALF_REST: usize = HALF_BYTES + HALF_TOKENS * 7 + SLACK;

/// The working memory of a thread that packs pages: 60 KiB.
#[repr(C, align(64))]
pub struct Compressor {
    /// Zeroes, then the page, then bytes of no meaning.
    bytes: PageBytes,
    look_up: LookUp,
    /// Bit 0 of `found`, packed; and zeroes behind.
    matches: [u8; PLACES / 8 + 8],
    tokens: [[u16; HALF_TOKENS]; HALVES],
    rest: [[u8; HALF_REST]; HALVES],
    payload: [u8; PAGE_BYTES],
    avx2: bool,
}

/// How far a half is packed.
struct Half {
    /// The place to look for a match next.
    place: usize,
    /// The place behind the half.
    last_place: usize,
    /// Where in the bytes the literals begin that are not packed yet.
    anchor: usize,
    /// Where in the bytes the half ends.
    end: usize,
    token: *mut u16,
    rest: *mut u8,
}

impl Default for Compressor {
    fn default() -> Self {
        #[cfg(target_arch = "x86_64")]
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt");
        #[cfg(not(target_arch = "x86_64"))]
        let avx2 = false;
        Self {
            bytes: [0; START + PAGE_BYTES + SLACK],
            look_up: LookUp::new(),
            matches: [0; PLACES / 8 + 8],
            tokens: [[0; HALF_TOKENS]; HALVES],
            rest: [[0; HALF_REST]; HALVES],
            payload: [0; PAGE_BYTES],
            avx2,
        }
    }
}

impl Compressor {
    /// Packs the page at `page`. `None`: the payload would be larger than [`WORTHWHILE_BYTES`].
    ///
    /// # Safety
    /// 4096 bytes from `page` are readable. Others may write to them meanwhile; then the payload is that of some mix.
    pub unsafe fn compress(&mut self, page: *const u8) -> Option<&[u8]> {
        // SAFETY: readable by the caller's promise; `bytes` has a page's room at START. One copy is all that is read of the page,
        // so it cannot change under the passes.
        unsafe { page.copy_to_nonoverlapping(self.bytes.as_mut_ptr().add(START), PAGE_BYTES) };
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: the processor has what is asked for.
            return unsafe { self.pack_avx2() };
        }
        self.pack::<false>()
    }

    /// Does without what not every processor has.
    #[cfg(test)]
    pub(crate) fn plain(mut self) -> Self {
        self.avx2 = false;
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    fn pack_avx2(&mut self) -> Option<&[u8]> {
        self.pack::<true>()
    }

    #[inline(always)]
    fn pack<const AVX2: bool>(&mut self) -> Option<&[u8]> {
        self.look_up.look_up::<AVX2>(&self.bytes);
        self.pack_matches();
        let halves = self.walk::<AVX2>();
        self.put_together(&halves)
    }

    #[inline(always)]
    fn pack_matches(&mut self) {
        #[cfg(target_arch = "x86_64")]
        for (sixteen, bits) in
            self.look_up.found.as_chunks::<16>().0.iter().zip(self.matches.as_chunks_mut::<2>().0)
        {
            use core::arch::x86_64::*;
            // SAFETY: 16 places are two loads of 16 bytes. SSE2 belongs to the architecture.
            let mask = unsafe {
                let low = _mm_loadu_si128(sixteen.as_ptr().cast());
                let high = _mm_loadu_si128(sixteen.as_ptr().add(8).cast());
                _mm_movemask_epi8(_mm_packs_epi16(_mm_slli_epi16(low, 15), _mm_slli_epi16(high, 15)))
            };
            *bits = (mask as u16).to_le_bytes();
        }
        #[cfg(not(target_arch = "x86_64"))]
        for (eight, bits) in self.look_up.found.as_chunks::<8>().0.iter().zip(&mut self.matches) {
            *bits = (0..8).fold(0, |bits, i| bits | ((u16::from_le(eight[i]) & 1) as u8) << i);
        }
    }

    /// The second pass.
    #[inline(always)]
    fn walk<const AVX2: bool>(&mut self) -> [Half; HALVES] {
        let mut tokens = self.tokens.iter_mut().map(|tokens| tokens.as_mut_ptr());
        let mut rest = self.rest.iter_mut().map(|rest| rest.as_mut_ptr());
        let mut half = |i: usize| Half {
            place: i * PLACES / HALVES,
            last_place: (i + 1) * PLACES / HALVES,
            anchor: START + i * HALF_BYTES,
            end: START + (i + 1) * HALF_BYTES,
            token: tokens.next().unwrap_or(core::ptr::null_mut()),
            rest: rest.next().unwrap_or(core::ptr::null_mut()),
        };
        let [mut first, mut second] = [half(0), half(1)];
        // SAFETY: each half has its own tokens and rest, which have room for all that a half can hold.
        unsafe {
            while first.place < first.last_place && second.place < second.last_place {
                self.step::<AVX2>(&mut first);
                self.step::<AVX2>(&mut second);
            }
            while first.place < first.last_place {
                self.step::<AVX2>(&mut first);
            }
            while second.place < second.last_place {
                self.step::<AVX2>(&mut second);
            }
        }
        [first, second]
    }

    /// Packs the next match of a half and the literals before it.
    ///
    /// # Safety
    /// The half is one of this page, its place before its last, and its pointers have room for one match more.
    #[inline(always)]
    unsafe fn step<const AVX2: bool>(&self, half: &mut Half) {
        let bytes = self.bytes.as_ptr();
        // SAFETY: the bits of all places, and 8 bytes more.
        let bits = unsafe { word(self.matches.as_ptr().add(half.place / 8)) } >> (half.place % 8);
        if bits == 0 {
            half.place += 57; // What the word has at least after the shift.
            return;
        }
        let place = half.place + bits.trailing_zeros() as usize;
        let at = START + 2 * place;
        if at + MIN_MATCH > half.end {
            half.place = half.last_place;
            return;
        }
        // Zeroes are taken from before the page: that never waits for bytes just written when it is unpacked.
        // SAFETY: `at` is before the half's end, so `place` is one; what was found lies in `bytes`, before `at`.
        let from = unsafe {
            let found = usize::from(*self.look_up.found.get_unchecked(place) & !1);
            if key(bytes, at) == 0 { at - PAGE_BYTES } else { found }
        };
        // SAFETY: both lie in `bytes`, with more than 8 bytes behind.
        if unsafe { key(bytes, at) != key(bytes, from) } {
            half.place = place + 1;
            return;
        }
        let distance = at - from;
        // SAFETY: both are at least 64 bytes behind the start of `bytes`, or 8 where that is what START leaves.
        let before = unsafe { word(bytes.add(at - 8)) ^ word(bytes.add(from - 8)) };
        let back = (before.leading_zeros() as usize / 8).min(at - half.anchor);
        let mut end = at + MIN_MATCH;
        loop {
            // SAFETY: `end` is before the page's end here, and SLACK lies behind.
            let equal = unsafe { equal_bytes::<AVX2>(bytes.add(end), bytes.add(end - distance)) };
            end += equal;
            if equal < CHUNK || end >= half.end {
                break;
            }
        }
        let end = end.min(half.end);
        half.place = (end - START).div_ceil(2);
        let literals_at = half.anchor;
        half.anchor = end;
        // SAFETY: by the caller's promise about the room; the literals are bytes of the page.
        unsafe { put(half, bytes.add(literals_at), at - back - literals_at, end - (at - back), distance) };
    }

    #[inline(always)]
    fn put_together(&mut self, halves: &[Half; HALVES]) -> Option<&[u8]> {
        let mut counts = [0; HALVES];
        let mut sizes = [0; HALVES];
        for (i, half) in halves.iter().enumerate() {
            let left = half.end - half.anchor;
            // SAFETY: the rest has room for all literals of the half; both pointers were made from these arrays.
            unsafe {
                self.bytes.as_ptr().add(half.anchor).copy_to_nonoverlapping(half.rest, left);
                counts[i] = half.token.offset_from_unsigned(self.tokens[i].as_ptr());
                sizes[i] = half.rest.add(left).offset_from_unsigned(self.rest[i].as_ptr());
            }
        }
        let len = 4 + 2 * (counts[0] + counts[1]) + sizes[0] + sizes[1];
        if len > WORTHWHILE_BYTES {
            return None;
        }
        let mut to = self.payload.as_mut_ptr();
        // SAFETY: what is written is `len` bytes, which the payload has.
        unsafe {
            for count in counts {
                to.cast::<[u8; 2]>().write((count as u16).to_le_bytes());
                to = to.add(2);
            }
            for (tokens, count) in self.tokens.iter().zip(counts) {
                tokens.as_ptr().cast::<u8>().copy_to_nonoverlapping(to, 2 * count);
                to = to.add(2 * count);
            }
            for (rest, size) in self.rest.iter().zip(sizes) {
                rest.as_ptr().copy_to_nonoverlapping(to, size);
                to = to.add(size);
            }
        }
        Some(&self.payload[..len])
    }
}

/// Writes one token and what it takes.
///
/// # Safety
/// The half's pointers have room for it, 32 literals at least can be read.
#[inline(always)]
unsafe fn put(half: &mut Half, literals_at: *const u8, literals: usize, matched: usize, distance: usize) {
    let more = matched - MIN_MATCH;
    let many = more > SHORT_MATCH;
    let more_bits = if many { MANY_MATCHED } else { more };
    let literals_bits = literals.min(MANY_LITERALS);
    let distance = distance % PAGE_BYTES;
    let long = distance & !0x3fc != 0 || more_bits > 15 || literals_bits > 7;
    let low = if long { distance & 0xff } else { distance >> 2 };
    let token = (literals_bits & 7) | ((more_bits & 15) << 3) | (usize::from(long) * LONG) | (low << 8);
    // SAFETY: by the caller's promise.
    unsafe {
        half.token.write((token as u16).to_le());
        half.token = half.token.add(1);
        let mut rest = half.rest;
        rest.write(((literals_bits >> 3) | ((more_bits >> 4) << 2) | ((distance >> 8) << 4)) as u8);
        rest = rest.add(usize::from(long));
        if literals >= MANY_LITERALS || many {
            if literals >= MANY_LITERALS {
                rest = put_number(rest, literals);
            }
            if many {
                rest = put_number(rest, more);
            }
            literals_at.copy_to_nonoverlapping(rest, literals);
        } else {
            copy_chunk::<CHUNK>(rest, literals_at);
        }
        half.rest = rest.add(literals);
    }
}

/// # Safety
/// `to` has room for 3 bytes.
unsafe fn put_number(to: *mut u8, number: usize) -> *mut u8 {
    // SAFETY: by the caller's promise.
    unsafe {
        if number < 255 {
            to.write(number as u8);
            return to.add(1);
        }
        let [low, high] = (number as u16).to_le_bytes();
        to.cast::<[u8; 3]>().write([255, low, high]);
        to.add(3)
    }
}

/// How many of 32 bytes are equal before the first that is not.
///
/// # Safety
/// Both can be read; with `AVX2` the processor has it.
#[inline(always)]
unsafe fn equal_bytes<const AVX2: bool>(a: *const u8, b: *const u8) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: by the caller's promise; SSE2 belongs to the architecture.
    unsafe {
        use core::arch::x86_64::*;
        let equal = if AVX2 {
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(
                _mm256_loadu_si256(a.cast()),
                _mm256_loadu_si256(b.cast()),
            ))
        } else {
            let half = |i: usize| {
                let equal =
                    _mm_cmpeq_epi8(_mm_loadu_si128(a.add(i).cast()), _mm_loadu_si128(b.add(i).cast()));
                _mm_movemask_epi8(equal)
            };
            half(0) | half(16) << 16
        };
        (!equal).trailing_zeros() as usize
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        for i in (0..CHUNK).step_by(8) {
            // SAFETY: by the caller's promise.
            let differ = unsafe { word(a.add(i)) ^ word(b.add(i)) };
            if differ != 0 {
                return i + differ.trailing_zeros() as usize / 8;
            }
        }
        CHUNK
    }
}

/// # Safety
/// 8 bytes from `at` can be read.
#[inline(always)]
unsafe fn word(at: *const u8) -> u64 {
    // SAFETY: by the caller's promise.
    u64::from_le(unsafe { at.cast::<u64>().read_unaligned() })
}

/// The [`MIN_MATCH`] bytes from `at`, moved to the top.
///
/// # Safety
/// 8 bytes from `bytes + at` can be read.
#[inline(always)]
unsafe fn key(bytes: *const u8, at: usize) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { word(bytes.add(at)) << (64 - 8 * MIN_MATCH) }
}
