//! What both ways promise: any page comes back, whichever processor packs and unpacks it; nothing but the page is touched;
//! any bytes at all are refused or make a page.

use proptest::prelude::*;

use crate::*;

type Page = Box<[u8; PAGE_BYTES]>;

fn pack(compressor: &mut Compressor, page: &Page) -> Option<Vec<u8>> {
    // SAFETY: the page is ours.
    unsafe { compressor.compress(page.as_ptr()) }.map(<[u8]>::to_vec)
}

/// Some pages of memory between two that nobody may touch.
struct Guarded {
    start: *mut u8,
    bytes: usize,
}

impl Guarded {
    fn new(bytes: usize) -> Self {
        let all = bytes + 2 * PAGE_BYTES;
        // SAFETY: a mapping of its own, of which the middle is opened.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let start = start.cast::<u8>().add(PAGE_BYTES);
            assert_eq!(libc::mprotect(start.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE), 0);
            Self { start, bytes }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.start.sub(PAGE_BYTES).cast(), self.bytes + 2 * PAGE_BYTES) };
    }
}

/// Unpacks a payload that ends where memory ends into a page with no memory around it.
fn unpack(decompressor: &mut Decompressor, payload: &[u8]) -> Result<Page, BadPayload> {
    let (from, to) = (Guarded::new(2 * PAGE_BYTES), Guarded::new(PAGE_BYTES));
    // SAFETY: a payload of the tests fits into two pages; both mappings live until the end.
    unsafe {
        let from = from.start.add(from.bytes - payload.len());
        from.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        to.start.write_bytes(0xa5, PAGE_BYTES);
        let payload = std::slice::from_raw_parts(from, payload.len());
        let result = decompressor.decompress(payload, to.start);
        let page: Page = Box::new(to.start.cast::<[u8; PAGE_BYTES]>().read());
        assert!(result.is_ok() || page.iter().all(|byte| *byte == 0xa5), "a bad payload reached the page");
        result.map(|()| page)
    }
}

/// Packs and unpacks with all that the processor has and with little; they must agree. Returns the payload.
fn round_trip(page: &Page) -> Option<Vec<u8>> {
    let payload = pack(&mut Compressor::default(), page);
    assert_eq!(payload, pack(&mut Compressor::default().plain(), page));
    if let Some(payload) = &payload {
        assert!(payload.len() <= WORTHWHILE_BYTES);
        assert!(unpack(&mut Decompressor::default(), payload).unwrap() == *page);
        assert!(unpack(&mut Decompressor::default().plain(), payload).unwrap() == *page);
    }
    payload
}

fn page_of(bytes: impl Iterator<Item = u8>) -> Page {
    bytes.take(PAGE_BYTES).collect::<Vec<u8>>().into_boxed_slice().try_into().unwrap()
}

fn noise(mut state: u64) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

/// Pages as memory has them: runs of pointers, small numbers, text, zeroes, noise and copies of what came before.
fn memory_page() -> impl Strategy<Value = Page> {
    let piece = (0..7u8, any::<u64>(), 1..400usize);
    proptest::collection::vec(piece, 1..120).prop_map(|pieces| {
        let mut page = Vec::with_capacity(2 * PAGE_BYTES);
        for (kind, seed, len) in pieces {
            match kind {
                0 => page.extend(
                    noise(seed)
                        .take(len % 64)
                        .flat_map(|low| (0x7f12_3456_0000 + u64::from(low) * 16).to_le_bytes()),
                ),
                1 => page.extend(noise(seed).take(len % 64).flat_map(|low| u64::from(low).to_le_bytes())),
                2 => page.extend(
                    b"the quick brown fox jumps over the lazy dog, "
                        .iter()
                        .cycle()
                        .skip(seed as usize % 45)
                        .take(len),
                ),
                3 => page.extend(std::iter::repeat_n(0, len)),
                4 => page.extend(noise(seed).take(len % 80)),
                5 => page.extend(std::iter::repeat_n(seed as u8, len)),
                _ if page.is_empty() => page.push(seed as u8),
                _ => {
                    let from = seed as usize % page.len();
                    page.extend_from_within(from..(from + len).min(page.len()));
                }
            }
        }
        page_of(page.into_iter().chain(std::iter::repeat(0)))
    })
}

#[test]
fn zeroes_and_repetitions_shrink_and_noise_does_not() {
    let size = |bytes: &mut dyn Iterator<Item = u8>| round_trip(&page_of(bytes)).map(|payload| payload.len());
    assert!(size(&mut std::iter::repeat(0)).unwrap() < 20);
    assert!(size(&mut std::iter::repeat(7)).unwrap() < 160);
    assert!(size(&mut b"the quick brown fox ".iter().copied().cycle()).unwrap() < 200);
    assert!(size(&mut (0..).flat_map(|i: u64| (0x7f00_1234_0000 + 24 * i).to_le_bytes())).unwrap() < 2600);
    assert_eq!(size(&mut noise(1)), None);
}

#[test]
fn runs_of_any_length_at_any_place_come_back() {
    for at in (0..PAGE_BYTES).step_by(61) {
        for len in [1, 5, 6, 7, 30, 31, 32, 63, 64, 65, 69, 254, 255, 260, 261, 262, 300, 2047, 2048, 4000] {
            let mut page = page_of(noise(at as u64));
            page[at..].iter_mut().take(len).for_each(|byte| *byte = 0);
            round_trip(&page);
            let mut page = page_of(std::iter::repeat(0));
            page[at..].iter_mut().take(len).zip(noise(1)).for_each(|(byte, noise)| *byte = noise);
            assert_eq!(
                round_trip(&page).is_some(),
                len.min(PAGE_BYTES - at) < 3950,
                "{len} bytes of noise at {at}"
            );
        }
    }
}

#[test]
fn a_match_too_near_is_refused() {
    // One token in each half: a match of 6 bytes at that distance, then the half's literals; zeroes over the whole second half.
    for (distance, good) in [(60, false), (64, true)] {
        let mut payload = vec![1, 0, 1, 0, 0, distance / 4, 0xf8, 0];
        payload.extend([9; HALF_BYTES - MIN_MATCH]);
        payload.extend([12, 255]);
        payload.extend(((HALF_BYTES - MIN_MATCH) as u16).to_le_bytes());
        let result = unpack(&mut Decompressor::default(), &payload);
        assert_eq!(result.is_ok(), good, "distance {distance}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_page_comes_back(page in memory_page()) {
        round_trip(&page);
    }

    // Nothing of a page may leak into the payload of the next.
    #[test]
    fn what_came_before_makes_no_difference(pages in proptest::collection::vec(memory_page(), 2..6)) {
        let (mut compressor, mut decompressor) = (Compressor::default(), Decompressor::default());
        for page in &pages {
            let payload = pack(&mut compressor, page);
            prop_assert_eq!(&payload, &pack(&mut Compressor::default(), page));
            if let Some(payload) = payload {
                prop_assert!(unpack(&mut decompressor, &payload).unwrap() == *page);
            }
        }
    }

    // Whatever arrives, both ways of unpacking agree on it, and what a thread unpacked before does not shine through.
    #[test]
    fn damaged_payloads_are_refused_or_make_a_page(
        page in memory_page(),
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<u16>()),
    ) {
        let Some(mut payload) = pack(&mut Compressor::default(), &page) else { return Ok(()) };
        for (at, byte) in damage {
            let at = usize::from(at) % payload.len();
            payload[at] ^= byte;
        }
        if let Some(cut) = cut {
            payload.truncate(usize::from(cut) % (payload.len() + 1));
        }
        let mut used = Decompressor::default();
        let before = pack(&mut Compressor::default(), &page_of(b"secret".iter().copied().cycle())).unwrap();
        unpack(&mut used, &before).unwrap();
        let result = unpack(&mut Decompressor::default(), &payload);
        prop_assert!(result == unpack(&mut Decompressor::default().plain(), &payload));
        prop_assert!(result == unpack(&mut used, &payload));
    }

    #[test]
    fn cut_payloads_are_refused(page in memory_page(), cut in any::<u16>()) {
        let Some(payload) = pack(&mut Compressor::default(), &page) else { return Ok(()) };
        let cut = usize::from(cut) % payload.len();
        prop_assert_eq!(unpack(&mut Decompressor::default(), &payload[..cut]), Err(BadPayload));
    }

    #[test]
    fn garbage_is_refused_or_makes_a_page(
        counts in (0..1200u16, 0..1200u16),
        garbage in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut payload = [counts.0.to_le_bytes(), counts.1.to_le_bytes()].concat();
        payload.extend(&garbage);
        let result = unpack(&mut Decompressor::default(), &payload);
        prop_assert!(result == unpack(&mut Decompressor::default().plain(), &payload));
        let _ = unpack(&mut Decompressor::default(), &garbage);
    }
}
