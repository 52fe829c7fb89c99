//! The protocol against any messages and any bytes.
#![allow(clippy::unwrap_used)] // a test

use std::io::{self, Read};

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
};
use support::again::again;
use tmem_cluster::wire::{
    Encoder, FrameReader, Get, MAX_COPIES, MAX_FLUSHED_RUNS, MAX_FLUSHES, MAX_GETS, MAX_GOT_BYTES,
    MAX_PAYLOAD_BYTES, MAX_PUTS, MAX_RUNS, Message, PutResult, Reason, Run, WireError,
};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

mod support;

/// A stream that gives its bytes in pieces, and now and then says "later".
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
    calls: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(5) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        assert!(!into.is_empty(), "a read of nothing looks like the end");
        let count = self.piece.min(into.len()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(count);
        into[..count].copy_from_slice(piece);
        self.bytes = rest;
        Ok(count)
    }
}

/// All that comes, each frame said again, and what ended it.
fn read_all(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), WireError>) {
    let mut stream = Pieces { bytes, piece, calls: 0 };
    let mut reader = FrameReader::default();
    let mut said = Vec::new();
    loop {
        let next = match reader.next(&mut stream) {
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                continue;
            }
            Ok(next) => next,
        };
        let understood = match next {
            Err(error) => Err(error),
            Ok(None) => return (said, Ok(())),
            Ok(Some(frame)) => Message::decode(frame).and_then(|message| again(frame.id, message)),
        };
        match understood {
            Ok(frame) => said.push(frame),
            Err(error) => return (said, Err(error)),
        }
        assert!(reader.held_bytes() <= FrameReader::MAX_BYTES);
    }
}

fn copy() -> impl Strategy<Value = TierCopy> {
    (any::<u32>(), any::<u64>()).prop_map(|(place, writing)| TierCopy { place, writing })
}

/// Gaps and lengths, as far as they fit.
fn runs(at_least: usize) -> impl Strategy<Value = Vec<Run>> {
    vec((1u16..600, 1u16..600), at_least..20).prop_map(|pairs| {
        let mut next = 0u32;
        let mut runs = Vec::new();
        for (gap, units) in pairs {
            let start = next + u32::from(gap) - 1;
            if start + u32::from(units) > (TIER_EXTENT_BYTES / 8) as u32 {
                break;
            }
            runs.push(Run { start: start as u16, units });
            next = start + u32::from(units) + 1;
        }
        runs
    })
}

/// Any frame, and what it says.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let said = |say: &dyn Fn(&mut Encoder<'_>) -> Result<(), WireError>| {
        let mut out = Vec::new();
        say(&mut Encoder::new(&mut out)).unwrap();
        out
    };
    let put = (any::<u64>(), vec((copy(), runs(0), any::<u8>()), 1..=4)).prop_map(move |(id, puts)| {
        let bytes: Vec<Vec<u8>> = puts
            .iter()
            .map(|(_, runs, fill)| {
                (0..runs.iter().map(|run| run.bytes()).sum()).map(|i| i as u8 ^ fill).collect()
            })
            .collect();
        let puts: Vec<_> =
            puts.iter().zip(&bytes).map(|((copy, runs, _), bytes)| (*copy, &runs[..], &bytes[..])).collect();
        said(&|say| say.put(id, &puts))
    });
    let one = (copy(), 0..TIER_EXTENT_BYTES as u32, any::<u32>()).prop_map(|(copy, start, bytes)| Get {
        copy,
        start,
        bytes: 1 + bytes % (TIER_EXTENT_BYTES as u32 - start),
    });
    let get = (any::<u64>(), vec(one, 1..=MAX_GETS)).prop_map(move |(id, mut gets)| {
        let count = gets.len() as u32;
        gets.iter_mut().for_each(|get| get.bytes = get.bytes.min(MAX_GOT_BYTES as u32 / count));
        said(&|say| say.get(id, &gets))
    });
    let flush = (any::<u64>(), vec((copy(), runs(0)), 1..50)).prop_map(move |(id, dead)| {
        let dead: Vec<_> = dead.iter().map(|(copy, runs)| (*copy, &runs[..])).collect();
        said(&|say| say.flush(id, &dead))
    });
    let recall = (any::<u32>(), vec(copy(), 1..100))
        .prop_map(move |(ms, copies)| said(&|say| say.recall(ms, &copies)));
    let done = (any::<u64>(), vec(select(vec![PutResult::Stored, PutResult::NoRoom]), 1..=MAX_PUTS))
        .prop_map(move |(id, results)| said(&|say| say.put_done(id, &results)));
    let offer = any::<(u64, u64)>().prop_map(move |(free, lent)| said(&|say| say.offer(free, lent)));
    let reasons =
        vec![Reason::NotThere, Reason::Dropped, Reason::TooMany, Reason::NotAllowed, Reason::Fenced];
    let block = prop_oneof![
        3 => vec(any::<u8>(), 1..2000).prop_map(Ok),
        1 => select(reasons.clone()).prop_map(Err),
    ];
    let got = (any::<u64>(), vec(block, 1..=MAX_GETS)).prop_map(move |(id, found)| {
        let found: Vec<_> = found.iter().map(|block| block.as_deref().map_err(|reason| *reason)).collect();
        said(&|say| say.got(id, &found))
    });
    let asked = (any::<u64>(), copy(), any::<bool>()).prop_map(move |(id, copy, is_list)| {
        said(&|say| if is_list { say.list(id, copy.place) } else { say.fetch(id, copy) })
    });
    let listed =
        (any::<u64>(), btree_map(any::<u32>(), any::<u64>(), 0..100)).prop_map(move |(id, copies)| {
            let copies = copies.iter().map(|(place, writing)| TierCopy { place: *place, writing: *writing });
            said(&|say| say.listed(id, copies.clone()))
        });
    let fetched = (any::<u64>(), runs(0), any::<u8>()).prop_map(move |(id, runs, fill)| {
        let bytes: Vec<Vec<u8>> = runs.iter().map(|run| vec![fill; run.bytes()]).collect();
        said(&|say| say.fetched(id, runs.iter().copied().zip(bytes.iter().map(Vec::as_slice))))
    });
    let short = (any::<u64>(), 0..4, select(reasons)).prop_map(move |(id, which, reason)| {
        said(&|say| match which {
            0 => say.ping(id),
            1 => say.pong(id),
            2 => say.flushed(id),
            _ => say.refused(id, reason),
        })
    });
    prop_oneof![put, get, flush, recall, done, got, offer, asked, listed, fetched, short]
}

/// A frame of any kind and payload, whose checksums are right.
fn sealed(kind: u16, id: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(kind.to_le_bytes());
    frame.extend([0; 2]);
    frame.extend(id.to_le_bytes());
    frame.extend(crc32c::crc32c(payload).to_le_bytes());
    frame.extend(crc32c::crc32c(&frame).to_le_bytes());
    frame.extend(payload);
    frame
}

fn one_line(error: &WireError) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 200, "{text:?}");
}

proptest! {
    #[test]
    fn what_is_said_is_understood_however_it_is_cut(frames in vec(frame(), 0..12), piece in 1usize..9000) {
        let (said, end) = read_all(&frames.concat(), piece);
        prop_assert_eq!(end, Ok(()));
        prop_assert!(said == frames);
    }

    #[test]
    fn a_stream_that_ends_early_gives_what_was_whole(frames in vec(frame(), 1..6), cut in any::<proptest::sample::Index>()) {
        let whole = frames.concat();
        let cut = cut.index(whole.len());
        let (said, end) = read_all(&whole[..cut], usize::MAX);
        let ends: Vec<usize> = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
        prop_assert_eq!(said.len(), ends.iter().filter(|end| **end <= cut).count());
        let is_between = cut == 0 || ends.contains(&cut);
        prop_assert_eq!(end, if is_between { Ok(()) } else { Err(WireError::Cut) });
    }

    #[test]
    fn r4_a_flipped_bit_is_never_part_of_a_message(frames in vec(frame(), 1..4), bit in any::<proptest::sample::Index>()) {
        let mut bytes = frames.concat();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (said, end) = read_all(&bytes, usize::MAX);
        prop_assert!(matches!(end, Err(WireError::Damaged(_))), "{end:?}");
        prop_assert!(said.len() < frames.len() && said == frames[..said.len()]);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error_of_one_line(bytes in vec(any::<u8>(), 0..400), piece in 1usize..64) {
        if let (_, Err(error)) = read_all(&bytes, piece) {
            one_line(&error);
        }
    }

    // Small numbers, so that counts and lengths are often nearly right.
    #[test]
    fn any_payload_is_understood_as_it_stands_or_refused(
        kind in prop_oneof![1u16..10, 128u16..136, Just(255)],
        id in any::<u64>(),
        payload in vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..200),
    ) {
        let frame = sealed(kind, id, &payload);
        match read_all(&frame, usize::MAX) {
            (said, Ok(())) => {
                // Offers and recalls have no id that counts.
                let id = if kind == 5 || kind == 6 { 0 } else { id };
                prop_assert!(said == [sealed(kind, id, &payload)]);
            }
            (said, Err(error)) => {
                prop_assert!(said.is_empty());
                one_line(&error);
            }
        }
    }
}

const COPY: TierCopy = TierCopy { place: 1, writing: 2 };

#[test]
fn the_longest_put_fits_a_frame() {
    let units = (TIER_EXTENT_BYTES / 8) as u16;
    let runs: Vec<Run> =
        (0..MAX_RUNS as u16).map(|i| Run { start: i * 6, units: 5.min(units - i * 6) }).collect();
    let bytes = vec![7; runs.iter().map(|run| run.bytes()).sum()];
    let mut out = Vec::new();
    Encoder::new(&mut out).put(1, &vec![(COPY, &runs[..], &bytes[..]); MAX_PUTS]).unwrap();
    let whole = [Run { start: 0, units }];
    let mut wholes = Vec::new();
    Encoder::new(&mut wholes)
        .put(1, &vec![(COPY, &whole[..], &[7; TIER_EXTENT_BYTES][..]); MAX_PUTS])
        .unwrap();
    // No put has both whole extents and the most runs, and a frame has room even for that.
    const { assert!(MAX_PUTS * (TIER_EXTENT_BYTES + 14 + 4 * MAX_RUNS) + 2 <= MAX_PAYLOAD_BYTES) };
    assert_eq!(read_all(&[out.clone(), wholes.clone()].concat(), 4096).0, [out, wholes]);
}

#[test]
fn what_is_beyond_a_bound_is_not_said() {
    let mut out = vec![1, 2, 3];
    let mut say = Encoder::new(&mut out);
    let run = [Run { start: 0, units: 1 }];
    assert!(say.put(1, &[]).is_err());
    assert!(say.put(1, &vec![(COPY, &run[..], &[0; 8][..]); MAX_PUTS + 1]).is_err());
    assert!(say.put(1, &[(COPY, &run, &[0; 7])]).is_err());
    assert!(say.put(1, &[(COPY, &run, &[0; 9])]).is_err());
    assert!(say.put(1, &[(COPY, &[], &[0; 8])]).is_err());
    assert!(say.put(1, &[(COPY, &[Run { start: 16_383, units: 2 }], &[0; 16])]).is_err());
    assert!(say.put(1, &[(COPY, &[run[0], Run { start: 1, units: 1 }], &[0; 16])]).is_err());
    assert!(say.flush(1, &vec![(COPY, &[][..]); MAX_FLUSHES + 1]).is_err());
    assert!(say.flush(1, &vec![(COPY, &[][..]); 70_000]).is_err());
    assert!(say.flush(1, &vec![(COPY, &run[..]); MAX_FLUSHES]).is_ok());
    let runs: Vec<Run> = (0..2049).map(|i| Run { start: i * 3, units: 1 }).collect();
    assert!(MAX_FLUSHED_RUNS < 8 * 2049 && say.flush(1, &vec![(COPY, &runs[..]); 8]).is_err());
    assert!(say.flush(1, &vec![(COPY, &runs[..2048]); 8]).is_ok());
    assert!(say.recall(1, &vec![COPY; MAX_COPIES + 1]).is_err());
    let get = |start, bytes| Get { copy: COPY, start, bytes };
    for wrong in [get(TIER_EXTENT_BYTES as u32, 1), get(u32::MAX, u32::MAX), get(0, 0)] {
        assert!(say.get(1, &[wrong]).is_err() && say.get(1, &[get(0, 1), wrong]).is_err());
    }
    assert!(say.get(1, &[]).is_err());
    assert!(say.get(1, &vec![get(0, 1); MAX_GETS + 1]).is_err());
    assert!(say.get(1, &[get(0, MAX_GOT_BYTES as u32), get(0, 1)]).is_err());
    assert!(say.got(1, &[]).is_err());
    assert!(say.got(1, &[Ok(&[])]).is_err());
    assert!(say.got(1, &vec![Ok(&[0][..]); MAX_GETS + 1]).is_err());
    assert!(say.got(1, &[Ok(&[0; MAX_GOT_BYTES + 1][..])]).is_err());
    assert!(say.got(1, &[Ok(&[0; MAX_GOT_BYTES][..]), Ok(&[0])]).is_err());
    assert!(say.put_done(1, &[]).is_err());
    assert!(say.listed(1, (0..=MAX_COPIES as u32).map(|place| TierCopy { place, writing: 1 })).is_err());
    assert!(say.listed(1, [COPY, COPY].into_iter()).is_err());
    assert!(say.fetched(1, [(run[0], &[0; 7][..])].into_iter()).is_err());
    assert!(say.fetched(1, [(run[0], &[0; 8][..]); 2].into_iter()).is_err());
    // What was refused left nothing behind.
    let (said, end) = read_all(&out[3..], 4096);
    assert_eq!((said.len(), end), (2, Ok(())));
}

#[test]
fn a_buffer_grows_with_what_comes_and_not_with_what_is_promised() {
    let mut frame = sealed(130, 1, &vec![0; MAX_PAYLOAD_BYTES]);
    frame.truncate(100);
    let mut reader = FrameReader::default();
    let before = reader.held_bytes();
    assert_eq!(reader.next(&mut &frame[..]).unwrap(), Err(WireError::Cut));
    assert_eq!(reader.held_bytes(), before);
    // What a long one needed goes back, and what is half there stays.
    let long = sealed(130, 1, &vec![7; MAX_PAYLOAD_BYTES]);
    let stream = [&long[..], &frame[..]].concat();
    let mut reader = FrameReader::default();
    assert!(matches!(reader.next(&mut &stream[..]), Ok(Ok(Some(_)))));
    assert!(reader.held_bytes() > before);
    reader.shrink();
    assert_eq!(reader.held_bytes(), before);
}
