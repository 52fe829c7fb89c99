//! LZ4 on pages of real programs: the C library, called three ways, beside `lz4_flex`.
//!
//! `cargo run --release -p tmem-bench --example lz4 -- target/bench/corpus.pages` (`bench/corpus` makes the file).
//! Every way compresses and decompresses every page, rounds alternate, and the median round counts. Pages that are all one
//! word are left out: a store keeps them without compressing. Each decompressed page is compared with what went in.

use std::time::Instant;

use anyhow::{Context, ensure};

const PAGE_BYTES: usize = 4096;
/// More than any compressor asks for: `lz4_flex` wants 1.1 times the page and a little, the C library less.
const BUFFER_BYTES: usize = 4608;
const ROUNDS: usize = 7;

unsafe extern "C" {
    fn LZ4_compress_fast_extState(
        state: *mut u64,
        src: *const u8,
        dst: *mut u8,
        src_len: i32,
        dst_len: i32,
        acceleration: i32,
    ) -> i32;
    fn LZ4_compress_fast_extState_fastReset(
        state: *mut u64,
        src: *const u8,
        dst: *mut u8,
        src_len: i32,
        dst_len: i32,
        acceleration: i32,
    ) -> i32;
    fn LZ4_sizeofState() -> i32;
}

/// A compressor that keeps what it needs between pages.
trait Codec {
    fn name(&self) -> String;
    fn compress(&mut self, page: &[u8], out: &mut [u8]) -> usize;
    fn decompress(&mut self, block: &[u8], page: &mut [u8]) -> usize;
}

/// The C library with a state of the caller's, reset by the call or (`fast_reset`) only as far as needed.
struct C {
    state: Vec<u64>,
    fast_reset: bool,
    room: usize,
    acceleration: i32,
}

impl C {
    fn new(fast_reset: bool, room: usize, acceleration: i32) -> Self {
        // SAFETY: a function without arguments that returns a constant.
        let bytes = unsafe { LZ4_sizeofState() } as usize;
        // A zeroed state is a valid one for the fast reset.
        Self { state: vec![0; bytes.div_ceil(8)], fast_reset, room, acceleration }
    }
}

impl Codec for C {
    fn name(&self) -> String {
        let call = if self.fast_reset { "extState_fastReset" } else { "extState" };
        let acceleration = self.acceleration;
        format!("C {call}, room {}, acceleration {acceleration}", self.room)
    }

    fn compress(&mut self, page: &[u8], out: &mut [u8]) -> usize {
        let call =
            if self.fast_reset { LZ4_compress_fast_extState_fastReset } else { LZ4_compress_fast_extState };
        let room = self.room.min(out.len());
        // SAFETY: the state has the size the library asks for and its alignment, both buffers are as long as told.
        let len = unsafe {
            call(
                self.state.as_mut_ptr(),
                page.as_ptr(),
                out.as_mut_ptr(),
                page.len() as i32,
                room as i32,
                self.acceleration,
            )
        };
        len as usize
    }

    fn decompress(&mut self, block: &[u8], page: &mut [u8]) -> usize {
        // SAFETY: both buffers are as long as told, and LZ4_decompress_safe stays within them.
        let len = unsafe {
            lz4_sys::LZ4_decompress_safe(
                block.as_ptr().cast(),
                page.as_mut_ptr().cast(),
                block.len() as i32,
                page.len() as i32,
            )
        };
        len as usize
    }
}

/// `lz4_flex` with a hash table kept between pages, in its fast (unsafe) build.
struct Flex {
    table: Option<lz4_flex::block::CompressTable>,
}

impl Codec for Flex {
    fn name(&self) -> String {
        if self.table.is_some() { "lz4_flex, table kept".into() } else { "lz4_flex".into() }
    }

    fn compress(&mut self, page: &[u8], out: &mut [u8]) -> usize {
        match &mut self.table {
            Some(table) => lz4_flex::block::compress_into_with_table(page, out, table).unwrap_or(0),
            None => lz4_flex::block::compress_into(page, out).unwrap_or(0),
        }
    }

    fn decompress(&mut self, block: &[u8], page: &mut [u8]) -> usize {
        lz4_flex::block::decompress_into(block, page).unwrap_or(0)
    }
}

fn same_filled(page: &[u8]) -> bool {
    page[8..] == page[..PAGE_BYTES - 8]
}

#[derive(Default)]
struct Figures {
    compress_us: Vec<f64>,
    decompress_us: Vec<f64>,
    compressed_bytes: u64,
    raw_pages: u64,
}

fn round(codec: &mut dyn Codec, pages: &[&[u8]], figures: &mut Figures) -> anyhow::Result<()> {
    // Compressed blocks lie one behind the other, as they do in a store.
    let mut blocks = vec![0_u8; pages.len() * BUFFER_BYTES];
    let mut spans = Vec::with_capacity(pages.len());
    blocks.fill(1); // The pages of the buffer itself are there before the clock runs.
    let mut end = 0;
    let start = Instant::now();
    for page in pages {
        let len = codec.compress(page, &mut blocks[end..end + BUFFER_BYTES]);
        spans.push(end..end + len);
        end += len;
    }
    figures.compress_us.push(start.elapsed().as_secs_f64() * 1e6 / pages.len() as f64);

    let mut page_out = [0_u8; PAGE_BYTES];
    let packed = spans.iter().filter(|span| !span.is_empty()).count();
    let start = Instant::now();
    for span in spans.iter().filter(|span| !span.is_empty()) {
        let len = codec.decompress(&blocks[span.clone()], &mut page_out);
        ensure!(len == PAGE_BYTES, "{}: a block came back with {len} bytes", codec.name());
    }
    figures.decompress_us.push(start.elapsed().as_secs_f64() * 1e6 / packed.max(1) as f64);

    for (span, page) in spans.iter().zip(pages).filter(|(span, _)| !span.is_empty()) {
        codec.decompress(&blocks[span.clone()], &mut page_out);
        ensure!(page_out == **page, "{}: a page came back changed", codec.name());
    }
    figures.raw_pages = (pages.len() - packed) as u64;
    figures.compressed_bytes = end as u64 + figures.raw_pages * PAGE_BYTES as u64;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "target/bench/corpus.pages".into());
    let content = std::fs::read(&path)
        .with_context(|| format!("{path}: cannot be read; bench/corpus makes a file of pages"))?;
    let all = content.chunks_exact(PAGE_BYTES).count();
    let pages: Vec<&[u8]> = content.chunks_exact(PAGE_BYTES).filter(|page| !same_filled(page)).collect();
    ensure!(!pages.is_empty(), "{path}: no page in it that is worth compressing");
    println!("{path}: {all} pages, {} of them not same-filled; median of {ROUNDS} rounds\n", pages.len());

    let mut codecs: Vec<Box<dyn Codec>> = vec![
        Box::new(C::new(false, BUFFER_BYTES, 1)),
        Box::new(C::new(true, BUFFER_BYTES, 1)),
        Box::new(C::new(true, 3584, 1)),
        Box::new(C::new(true, BUFFER_BYTES, 2)),
        Box::new(C::new(true, BUFFER_BYTES, 4)),
        Box::new(Flex { table: None }),
        Box::new(Flex { table: Some(lz4_flex::block::CompressTable::small()) }),
    ];
    let mut figures: Vec<Figures> = codecs.iter().map(|_| Figures::default()).collect();
    for _ in 0..ROUNDS {
        for (codec, figures) in codecs.iter_mut().zip(&mut figures) {
            round(codec.as_mut(), &pages, figures)?;
        }
    }
    println!("| codec | compress us/page | decompress us/page | ratio | stored raw |");
    println!("|---|---|---|---|---|");
    for (codec, figures) in codecs.iter().zip(&mut figures) {
        println!(
            "| {} | {:.2} | {:.2} | {:.3} | {:.2}% |",
            codec.name(),
            median(&mut figures.compress_us),
            median(&mut figures.decompress_us),
            (pages.len() * PAGE_BYTES) as f64 / figures.compressed_bytes as f64,
            figures.raw_pages as f64 * 100.0 / pages.len() as f64,
        );
    }
    Ok(())
}
