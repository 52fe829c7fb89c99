//! The page codec beside the LZ4 C library and a bare copy, on pages of real programs.
//!
//! `cargo run --release -p tmem-page-codec --example page_codec -- target/bench/corpus.pages [rounds]`: a file of 4096-byte pages. Pages that are all one word are
//! left out. The pages come in random order, 500 at a time, so that they come from cold memory; each 500 go through every codec
//! before the next do, so that a slow moment of the machine meets all of them alike. The payloads lie scattered over as much
//! memory as the corpus has. What counts of every 500 pages is the median round. Every page is compared with what went in.

use std::hint::black_box;

use tmem_page_codec::{Compressor, Decompressor, PAGE_BYTES, WORTHWHILE_BYTES};

const CHUNK_PAGES: usize = 500;
const PARTS: usize = 5;

unsafe extern "C" {
    fn LZ4_compress_fast_extState(
        state: *mut u64,
        source: *const u8,
        to: *mut u8,
        len: i32,
        room: i32,
        acceleration: i32,
    ) -> i32;
}

trait Codec {
    fn name(&self) -> &'static str;
    /// 0: stored as it is.
    fn compress(&mut self, page: &[u8], to: &mut [u8]) -> usize;
    fn decompress(&mut self, payload: &[u8], page: &mut [u8]) -> bool;
}

struct Copy;

impl Codec for Copy {
    fn name(&self) -> &'static str {
        "memcpy"
    }

    fn compress(&mut self, page: &[u8], to: &mut [u8]) -> usize {
        to[..PAGE_BYTES].copy_from_slice(page);
        PAGE_BYTES
    }

    fn decompress(&mut self, payload: &[u8], page: &mut [u8]) -> bool {
        page.copy_from_slice(payload);
        true
    }
}

struct Lz4(Vec<u64>);

impl Codec for Lz4 {
    fn name(&self) -> &'static str {
        "liblz4"
    }

    fn compress(&mut self, page: &[u8], to: &mut [u8]) -> usize {
        // SAFETY: the state is larger than the library's, both buffers are as long as told.
        unsafe {
            let room = WORTHWHILE_BYTES as i32;
            LZ4_compress_fast_extState(self.0.as_mut_ptr(), page.as_ptr(), to.as_mut_ptr(), 4096, room, 1)
                as usize
        }
    }

    fn decompress(&mut self, payload: &[u8], page: &mut [u8]) -> bool {
        // SAFETY: both buffers are as long as told.
        let len = unsafe {
            let from = payload.as_ptr().cast();
            lz4_sys::LZ4_decompress_safe(from, page.as_mut_ptr().cast(), payload.len() as i32, 4096)
        };
        len == 4096
    }
}

#[derive(Default)]
struct Page(Box<Compressor>, Box<Decompressor>);

impl Codec for Page {
    fn name(&self) -> &'static str {
        "page codec"
    }

    fn compress(&mut self, page: &[u8], to: &mut [u8]) -> usize {
        // SAFETY: chunks of the corpus are pages.
        let Some(payload) = (unsafe { self.0.compress(page.as_ptr()) }) else { return 0 };
        to[..payload.len()].copy_from_slice(payload);
        payload.len()
    }

    fn decompress(&mut self, payload: &[u8], page: &mut [u8]) -> bool {
        // SAFETY: the target is a page.
        unsafe { self.1.decompress(payload, page.as_mut_ptr()) }.is_ok()
    }
}

/// Of one codec and 500 pages: microseconds of every round, and bytes.
#[derive(Clone, Default)]
struct Figures {
    compress_us: Vec<f64>,
    decompress_us: Vec<f64>,
    bytes: usize,
    raw_pages: usize,
}

/// The processor time this thread has had, in microseconds: what others on the machine take does not count.
fn cpu_us() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that every Linux has, and room for its answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for i in (1..items.len()).rev() {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(i, (*state >> 33) as usize % (i + 1));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which file of pages?")?;
    let rounds = std::env::args().nth(2).map_or(Ok(5), |rounds| rounds.parse())?;
    let corpus = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    let all: Vec<&[u8]> = corpus.chunks_exact(PAGE_BYTES).collect();
    let part_pages = all.len().div_ceil(PARTS);
    let mut state = 1;
    let mut chunks: Vec<(usize, Vec<&[u8]>)> = Vec::new();
    for (part, pages) in all.chunks(part_pages).enumerate() {
        let mut pages: Vec<&[u8]> =
            pages.iter().copied().filter(|page| page[8..] != page[..PAGE_BYTES - 8]).collect();
        shuffle(&mut pages, &mut state);
        chunks.extend(pages.chunks(CHUNK_PAGES).map(|pages| (part, pages.to_vec())));
    }
    let mut codecs: Vec<Box<dyn Codec>> =
        vec![Box::new(Copy), Box::new(Lz4(vec![0; 4096])), Box::new(Page::default())];
    let mut figures = vec![vec![Figures::default(); chunks.len()]; codecs.len()];
    let mut slots: Vec<usize> = (0..all.len()).collect();
    shuffle(&mut slots, &mut state);
    let mut store = vec![1; all.len() * PAGE_BYTES];
    let (mut payload, mut target) = (vec![0; 2 * PAGE_BYTES], vec![0; PAGE_BYTES]);
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    for round in 0..rounds {
        shuffle(&mut order, &mut state);
        for (turn, &i) in order.iter().enumerate() {
            let pages = &chunks[i].1;
            for (codec, figures) in codecs.iter_mut().zip(&mut figures) {
                let figures = &mut figures[i];
                let start = cpu_us();
                let lens: Vec<usize> =
                    pages.iter().map(|page| black_box(codec.compress(page, &mut payload))).collect();
                figures.compress_us.push(cpu_us() - start);

                // Into the store, then something else through the caches, as much as they would forget in between.
                let slots = &slots[turn * CHUNK_PAGES % (slots.len() - CHUNK_PAGES)..][..pages.len()];
                for (page, slot) in pages.iter().zip(slots) {
                    codec.compress(page, &mut payload);
                    store[slot * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&payload[..PAGE_BYTES]);
                }
                for page in &chunks[(i + 1 + turn) % chunks.len()].1 {
                    target.copy_from_slice(page);
                    black_box(&target);
                }
                let packed = || slots.iter().zip(&lens).zip(pages).filter(|((_, len), _)| **len > 0);
                let start = cpu_us();
                for ((slot, len), _) in packed() {
                    black_box(codec.decompress(&store[slot * PAGE_BYTES..][..*len], &mut target));
                }
                figures.decompress_us.push(cpu_us() - start);
                if round > 0 {
                    continue;
                }
                for ((slot, len), page) in packed() {
                    target.fill(0xee);
                    let good = codec.decompress(&store[slot * PAGE_BYTES..][..*len], &mut target);
                    assert!(good && target == **page, "{}: a page came back changed", codec.name());
                }
                figures.raw_pages = lens.iter().filter(|len| **len == 0).count();
                figures.bytes = lens.iter().sum::<usize>() + figures.raw_pages * PAGE_BYTES;
            }
        }
    }
    println!(
        "| part | codec | compress us | decompress us | ratio | stored raw |\n|---|---|---|---|---|---|"
    );
    for part in (0..PARTS).map(Some).chain([None]) {
        for (codec, figures) in codecs.iter().zip(&figures) {
            let chosen =
                || chunks.iter().zip(figures).filter(|((of, _), _)| part.is_none_or(|part| part == *of));
            let sum =
                |value: &dyn Fn(&Figures) -> f64| chosen().map(|(_, figures)| value(figures)).sum::<f64>();
            let pages: usize = chosen().map(|((_, pages), _)| pages.len()).sum();
            let raw = sum(&|figures| figures.raw_pages as f64);
            println!(
                "| {} | {} | {:.2} | {:.2} | {:.3} | {} |",
                part.map_or("all".into(), |part| format!("{}", part + 1)),
                codec.name(),
                sum(&|figures| median(&figures.compress_us)) / pages as f64,
                sum(&|figures| median(&figures.decompress_us)) / (pages as f64 - raw),
                (pages * PAGE_BYTES) as f64 / sum(&|figures| figures.bytes as f64),
                raw,
            );
        }
    }
    Ok(())
}
