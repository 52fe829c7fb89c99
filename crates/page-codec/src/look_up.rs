//! The first pass over a page: where did the bytes of every place stand last?
//!
//! Three loops that never branch: hashes of all places, the table, and what it said against what was asked. The first and the
//! last are vector code where the processor has it. The middle one is bound by the number of its stores, hence the packing.

use crate::{MIN_MATCH, NEAREST_BYTES, PAGE_BYTES, SLACK, START};

/// Places where a match may begin: every second byte. Every byte would gain 5% in size and double this pass.
pub(crate) const PLACES: usize = PAGE_BYTES / 2;
/// Entries of the table. 4096 gain 0.5% in size and cost as much in time.
const TABLE_BITS: u32 = 11;
/// Places of one step, in the order of two vectors: first those with even numbers, then the others.
const STEP: usize = 16;
const STEPS: usize = PLACES / STEP;
/// Places nearer than NEAREST_BYTES are not to be found, so they come into the table so many steps late.
const LATE_STEPS: usize = NEAREST_BYTES / 2 / STEP;
/// What the table holds where no such bytes came before: zeroes within reach of every place that a whole key fits behind.
const NOWHERE: u32 = (START - MIN_MATCH) as u32;
/// Odd factors for the three 16-bit parts of a key, and one (2^32 divided by the golden ratio) that spreads their sum.
const FACTORS: [i16; 3] = [0x5b21, 0x6a3f, 0x4d35];
const SPREAD: u32 = 0x9e37_79b1;

/// A page between the zeroes before it and bytes of no meaning.
pub(crate) type PageBytes = [u8; START + PAGE_BYTES + SLACK];

/// An entry is a place's position in its low half and more of the key's hash in its high half.
#[repr(C, align(64))]
pub(crate) struct LookUp {
    table: [u32; 1 << TABLE_BITS],
    /// Of every place: where in the table it belongs. The first steps are no places and stand for NOWHERE.
    hashes: [[u32; STEP]; LATE_STEPS + STEPS],
    /// Of every place: its own entry.
    own: [[u32; STEP]; LATE_STEPS + STEPS],
    /// Of every place: the entry that was in the table.
    seen: [[u32; STEP]; STEPS],
    /// Of every place: where such bytes stood last (always an even number), and in bit 0 whether it is worth looking.
    pub(crate) found: [u16; PLACES],
}

impl LookUp {
    pub(crate) fn new() -> Self {
        Self {
            table: [0; 1 << TABLE_BITS],
            hashes: [[0; STEP]; LATE_STEPS + STEPS],
            own: [[NOWHERE; STEP]; LATE_STEPS + STEPS],
            seen: [[0; STEP]; STEPS],
            found: [0; PLACES],
        }
    }

    /// Fills `found`. What is worth looking at is a match of [`MIN_MATCH`] bytes but for a rare coincidence of hashes.
    #[inline(always)]
    pub(crate) fn look_up<const AVX2: bool>(&mut self, bytes: &PageBytes) {
        self.table.fill(NOWHERE);
        #[cfg(target_arch = "x86_64")]
        if AVX2 {
            // SAFETY: whoever says AVX2 has made sure that the processor has it.
            unsafe { self.hash_avx2(bytes) };
            self.exchange();
            // SAFETY: as above.
            unsafe { self.compare_avx2() };
            return;
        }
        self.hash(bytes);
        self.exchange();
        self.compare();
    }

    fn hash(&mut self, bytes: &PageBytes) {
        for place in 0..PLACES {
            let at = START + 2 * place;
            let part = |i: usize| i32::from(i16::from_le_bytes([bytes[at + 2 * i], bytes[at + 2 * i + 1]]));
            let sum = (0..3).fold(0, |sum: i32, i| sum.wrapping_add(part(i) * i32::from(FACTORS[i])));
            let hash = (sum as u32).wrapping_mul(SPREAD);
            let (step, slot) = (LATE_STEPS + place / STEP, place % STEP / 2 + place % 2 * (STEP / 2));
            self.hashes[step][slot] = hash >> (32 - TABLE_BITS);
            self.own[step][slot] = (hash << TABLE_BITS) & 0xffff_0000 | at as u32;
        }
    }

    /// Takes every place's entry out of the table and puts in that of the place before which is far enough.
    #[inline(always)]
    fn exchange(&mut self) {
        let table = self.table.as_mut_ptr();
        for step in 0..STEPS {
            let (hashes, late, own) = (&self.hashes[LATE_STEPS + step], &self.hashes[step], &self.own[step]);
            let seen = &mut self.seen[step];
            let exchange = |i: usize| {
                // SAFETY: all hashes were made to have TABLE_BITS bits.
                unsafe {
                    let seen = u64::from(*table.add(hashes[i] as usize));
                    *table.add(late[i] as usize) = own[i];
                    seen
                }
            };
            for i in [0, 2, 4, 6] {
                let (a, b) = (exchange(i), exchange(i + 8));
                let (c, d) = (exchange(i + 1), exchange(i + 9));
                // Two entries in one store.
                // SAFETY: i + 9 < STEP.
                unsafe {
                    seen.as_mut_ptr().add(i).cast::<u64>().write_unaligned((a | c << 32).to_le());
                    seen.as_mut_ptr().add(i + 8).cast::<u64>().write_unaligned((b | d << 32).to_le());
                }
            }
        }
    }

    fn compare(&mut self) {
        for place in 0..PLACES {
            let (step, slot) = (place / STEP, place % STEP / 2 + place % 2 * (STEP / 2));
            let seen = u32::from_le(self.seen[step][slot]);
            let equal = (seen ^ self.own[LATE_STEPS + step][slot]) >> 16 == 0;
            self.found[place] = seen as u16 | u16::from(equal);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    fn hash_avx2(&mut self, bytes: &PageBytes) {
        use core::arch::x86_64::*;
        let [low, middle, high] = FACTORS.map(i32::from);
        let low_factors = _mm256_set1_epi32(middle << 16 | low);
        let high_factor = _mm256_set1_epi32(high);
        let spread = _mm256_set1_epi32(SPREAD as i32);
        let top = _mm256_set1_epi32(!0xffff);
        let even = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        for step in 0..STEPS {
            for odd in 0..2 {
                let at = START + 2 * STEP * step + 2 * odd;
                let (hashes, own) = (&mut self.hashes[LATE_STEPS + step], &mut self.own[LATE_STEPS + step]);
                // SAFETY: SLACK is more than what a vector at the last place and 4 bytes on reads beyond the page; both arrays
                // have two vectors.
                unsafe {
                    let low = _mm256_loadu_si256(bytes.as_ptr().add(at).cast());
                    let high = _mm256_loadu_si256(bytes.as_ptr().add(at + 4).cast());
                    let low = _mm256_madd_epi16(low, low_factors);
                    let sum = _mm256_add_epi32(low, _mm256_madd_epi16(high, high_factor));
                    let hash = _mm256_mullo_epi32(sum, spread);
                    let index = _mm256_srli_epi32(hash, 32 - TABLE_BITS as i32);
                    let more = _mm256_and_si256(_mm256_slli_epi32(hash, TABLE_BITS as i32), top);
                    let position = _mm256_add_epi32(even, _mm256_set1_epi32(at as i32));
                    _mm256_storeu_si256(hashes.as_mut_ptr().add(8 * odd).cast(), index);
                    _mm256_storeu_si256(
                        own.as_mut_ptr().add(8 * odd).cast(),
                        _mm256_or_si256(more, position),
                    );
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    fn compare_avx2(&mut self) {
        use core::arch::x86_64::*;
        let position = _mm256_set1_epi32(0xffff);
        for step in 0..STEPS {
            let (seen, own) = (&self.seen[step], &self.own[LATE_STEPS + step]);
            // SAFETY: both arrays have two vectors, and a step's places are one vector of `found`.
            unsafe {
                let even = _mm256_loadu_si256(seen.as_ptr().cast());
                let odd = _mm256_loadu_si256(seen.as_ptr().add(8).cast());
                // All ones where the high halves are equal.
                let equal = |seen, own: *const u32| {
                    let differ = _mm256_xor_si256(seen, _mm256_loadu_si256(own.cast()));
                    _mm256_cmpeq_epi32(_mm256_srli_epi32(differ, 16), _mm256_setzero_si256())
                };
                let even_bit = _mm256_srli_epi32(equal(even, own.as_ptr()), 31);
                let odd_bit = _mm256_slli_epi32(_mm256_srli_epi32(equal(odd, own.as_ptr().add(8)), 31), 16);
                let even = _mm256_or_si256(_mm256_and_si256(even, position), even_bit);
                let odd = _mm256_or_si256(_mm256_slli_epi32(odd, 16), odd_bit);
                let found = self.found.as_mut_ptr().add(STEP * step);
                _mm256_storeu_si256(found.cast(), _mm256_or_si256(even, odd));
            }
        }
    }
}
