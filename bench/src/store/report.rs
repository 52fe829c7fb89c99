//! What a run found out, as tables for people and as JSON for scripts.

use std::fmt::Write;

use serde::Serialize;

use super::timing::Figures;
use crate::page::PAGE_BYTES;

/// One run. A ratio is logical bytes over all memory held for them, metadata and slack included.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The store.
    pub tmem: TmemReport,
    /// zram with lz4; nothing where it was not asked for or cannot be had.
    pub zram: Option<ZramReport>,
}

/// The store's figures. Times are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct TmemReport {
    /// Puts into an empty store, in the order of the file.
    pub put_us: Figures,
    /// Gets in random order.
    pub get_us: Figures,
    /// Gets in random order after all pages were recompressed.
    pub get_recompressed_us: Figures,
    /// Puts of other pages at the same places.
    pub overwrite_us: Figures,
    /// Flushes in random order.
    pub flush_us: Figures,
    /// With every page put once.
    pub ratio: f64,
    /// The same when equal pages are each stored.
    pub ratio_without_dedup: f64,
    /// Huge pages that the OS granted for what was stored.
    pub huge_pages: u64,
    /// The same after all pages were recompressed.
    pub ratio_recompressed: f64,
    /// After every page was put a second time, at another place.
    pub ratio_overwritten: f64,
    /// Memory held beyond the compressed pages themselves, in percent of these.
    pub overhead_percent: f64,
    /// Index and block headers.
    pub metadata_bytes_per_page: f64,
    /// What dedup adds to the time of a put of a page that no other is equal to.
    pub dedup_cost_percent: f64,
    /// Throughput of two threads over that of one: gets and puts in turns, on different pages of one pool.
    pub two_thread_speedup: f64,
    /// The same of bare LZ4, which shares nothing: what this machine's second processor adds at most.
    pub two_thread_speedup_lz4: f64,
    /// Bare LZ4 compression of the same pages, kept nowhere.
    pub lz4_compress_us: Figures,
    /// Bare LZ4 decompression of the same pages in the same random order, and a copy.
    pub lz4_decompress_us: Figures,
    /// How memory came back; of the round in which that took longest.
    pub after_flush: AfterFlush,
    /// Resident memory of the whole program before the store was made, the file's pages included.
    pub rss_before_bytes: u64,
    /// The most of it while the store was in use.
    pub rss_peak_bytes: u64,
    /// What was left of it with everything flushed and the store still open.
    pub rss_final_bytes: u64,
    /// The file of pages.
    pub file: String,
    /// Pages in it.
    pub pages: u64,
    /// Those that repeat one word; store and zram keep them without memory.
    pub same_filled_pages: u64,
    /// Threads that shared the work.
    pub threads: usize,
    /// How often all steps were done.
    pub rounds: usize,
    /// What reading the clock takes; subtracted from each time.
    pub clock_us: f64,
}

/// Memory after a random 90% of the pages were flushed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AfterFlush {
    /// Pages that were left.
    pub left_pages: u64,
    /// Memory held right after the last flush.
    pub held_at_first_bytes: u64,
    /// Memory held after compaction.
    pub held_bytes: u64,
    /// What a fresh store holds with nothing but the pages that were left.
    pub needed_bytes: u64,
    /// Held after compaction over needed.
    pub held_to_needed: f64,
    /// How long compaction ran until it did not pay any more.
    pub compact_seconds: f64,
    /// Pages it moved.
    pub moved_pages: u64,
    /// Extents it gave back.
    pub emptied_extents: u64,
}

/// zram's figures, by 4 KiB O_DIRECT requests.
#[derive(Clone, Debug, Serialize)]
pub struct ZramReport {
    /// Writes to an empty device, in the order of the file.
    pub put_us: Figures,
    /// Reads in random order.
    pub get_us: Figures,
    /// `orig_data_size` over `mem_used_total` and the 16 bytes a page of the device's table.
    pub ratio: f64,
}

impl Report {
    /// The report as one JSON object.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The report as aligned tables.
    pub fn to_text(&self) -> String {
        let TmemReport { file, pages, same_filled_pages, threads, rounds, .. } = &self.tmem;
        let mut text = format!(
            "{file}: {pages} pages ({:.1} MiB), {same_filled_pages} of them same-filled; {threads} thread(s), {rounds} round(s)\n\n",
            mib(pages * PAGE_BYTES as u64),
        );
        self.beside_zram(&mut text);
        text.push('\n');
        self.by_itself(&mut text);
        text.push('\n');
        self.memory(&mut text);
        text.truncate(text.trim_end().len());
        text
    }

    /// Writing to a string does not fail; so its results are left alone here and below.
    fn beside_zram(&self, text: &mut String) {
        let tmem = &self.tmem;
        let _ = writeln!(text, "{:<18}{:>10}{:>10}{:>13}", "", "tmem", "zram", "tmem : zram");
        let mut row = |name: &str, tmem: f64, zram: Option<f64>| {
            let (zram, ratio) = match zram {
                Some(zram) => (format!("{zram:.2}"), format!("{:.2}", tmem / zram)),
                None => ("-".into(), "-".into()),
            };
            let _ = writeln!(text, "{name:<18}{tmem:>10.2}{zram:>10}{ratio:>13}");
        };
        let zram = self.zram.as_ref();
        for (step, own, other) in [
            ("put", tmem.put_us, zram.map(|zram| zram.put_us)),
            ("get", tmem.get_us, zram.map(|zram| zram.get_us)),
        ] {
            row(&format!("{step}, mean us"), own.mean, other.map(|other| other.mean));
            row(&format!("{step}, p50 us"), own.p50, other.map(|other| other.p50));
            row(&format!("{step}, p99 us"), own.p99, other.map(|other| other.p99));
        }
        let held = |ratio: f64| mib(tmem.pages * PAGE_BYTES as u64) / ratio;
        row("memory held, MiB", held(tmem.ratio), zram.map(|zram| held(zram.ratio)));
        row("  without dedup", held(tmem.ratio_without_dedup), zram.map(|zram| held(zram.ratio)));
        row("  recompressed", held(tmem.ratio_recompressed), zram.map(|zram| held(zram.ratio)));
        row("ratio", tmem.ratio, zram.map(|zram| zram.ratio));
    }

    fn by_itself(&self, text: &mut String) {
        let tmem = &self.tmem;
        let _ = writeln!(text, "{:<28}{:>10}{:>10}{:>10}", "", "mean us", "p50 us", "p99 us");
        for (step, Figures { mean, p50, p99 }) in [
            ("get, recompressed", tmem.get_recompressed_us),
            ("overwrite", tmem.overwrite_us),
            ("flush", tmem.flush_us),
            ("bare LZ4, compress", tmem.lz4_compress_us),
            ("bare LZ4, decompress + copy", tmem.lz4_decompress_us),
        ] {
            let _ = writeln!(text, "{step:<28}{mean:>10.2}{p50:>10.2}{p99:>10.2}");
        }
        let _ = writeln!(
            text,
            "put : bare LZ4 {:.2}, get : bare LZ4 {:.2} (means); the clock's own {:.3} us are subtracted from each time",
            tmem.put_us.mean / tmem.lz4_compress_us.mean,
            tmem.get_us.mean / tmem.lz4_decompress_us.mean,
            tmem.clock_us,
        );
        let _ = writeln!(
            text,
            "dedup adds {:.1}% to the put of a page that no other is equal to",
            tmem.dedup_cost_percent,
        );
        let _ = writeln!(
            text,
            "two threads do {:.2} times the work of one; bare LZ4, which shares nothing, {:.2} times",
            tmem.two_thread_speedup, tmem.two_thread_speedup_lz4,
        );
    }

    fn memory(&self, text: &mut String) {
        let tmem = &self.tmem;
        let _ = writeln!(
            text,
            "ratio {:.3}; every page overwritten {:.3}; all pages recompressed {:.3}",
            tmem.ratio, tmem.ratio_overwritten, tmem.ratio_recompressed,
        );
        let _ = writeln!(
            text,
            "held beyond the compressed pages: {:.1}%; metadata {:.1} bytes a page",
            tmem.overhead_percent, tmem.metadata_bytes_per_page,
        );
        let flush = &tmem.after_flush;
        let _ = writeln!(
            text,
            "a random 90% flushed: {:.1} MiB held, {:.1} after compaction ({:.3} s, {} pages moved, {} extents given back); \
             the {} pages left need {:.1}: {:.2} times that is held",
            mib(flush.held_at_first_bytes),
            mib(flush.held_bytes),
            flush.compact_seconds,
            flush.moved_pages,
            flush.emptied_extents,
            flush.left_pages,
            mib(flush.needed_bytes),
            flush.held_to_needed,
        );
        let _ = writeln!(
            text,
            "everything flushed: nothing held; resident {:.1} MiB before the store, {:.1} at most, {:.1} after",
            mib(tmem.rss_before_bytes),
            mib(tmem.rss_peak_bytes),
            mib(tmem.rss_final_bytes),
        );
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(zram: Option<ZramReport>) -> Report {
        let times = Figures { mean: 2.0, p50: 1.5, p99: 5.0 };
        let after_flush = AfterFlush {
            left_pages: 26,
            held_at_first_bytes: 1 << 20,
            held_bytes: 3 << 18,
            needed_bytes: 1 << 19,
            held_to_needed: 1.5,
            compact_seconds: 0.5,
            moved_pages: 25,
            emptied_extents: 4,
        };
        let tmem = TmemReport {
            put_us: times,
            get_us: times,
            get_recompressed_us: times,
            overwrite_us: times,
            flush_us: times,
            ratio: 4.0,
            ratio_without_dedup: 2.8,
            huge_pages: 7,
            ratio_recompressed: 4.5,
            ratio_overwritten: 3.9,
            overhead_percent: 2.5,
            metadata_bytes_per_page: 20.0,
            dedup_cost_percent: 3.0,
            two_thread_speedup: 1.9,
            two_thread_speedup_lz4: 1.95,
            lz4_compress_us: times,
            lz4_decompress_us: Figures { mean: 1.6, ..times },
            after_flush,
            rss_before_bytes: 1 << 20,
            rss_peak_bytes: 3 << 20,
            rss_final_bytes: 1 << 20,
            file: "f".into(),
            pages: 256,
            same_filled_pages: 6,
            threads: 1,
            rounds: 3,
            clock_us: 0.025,
        };
        Report { tmem, zram }
    }

    fn has(text: &str, line: &str) -> bool {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().any(|other| words(other) == words(line))
    }

    #[test]
    fn the_peer_stands_beside_the_store() {
        let times = Figures { mean: 4.0, p50: 3.0, p99: 4.0 };
        let text = report(Some(ZramReport { put_us: times, get_us: times, ratio: 2.0 })).to_text();
        for line in [
            "tmem zram tmem : zram",
            "get, mean us 2.00 4.00 0.50",
            "get, p99 us 5.00 4.00 1.25",
            "memory held, MiB 0.25 0.50 0.50",
            "ratio 4.00 2.00 2.00",
        ] {
            assert!(has(&text, line), "{line}: {text}");
        }
        assert!(text.contains("get : bare LZ4 1.25") && text.contains("1.50 times that is held"), "{text}");
    }

    #[test]
    fn without_a_peer_its_columns_are_empty() {
        let report = report(None);
        assert!(has(&report.to_text(), "put, p50 us 1.50 - -"), "{}", report.to_text());
        assert!(report.to_text().contains("\n  recompressed "));
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["tmem"]["get_us"], serde_json::json!({"mean": 2.0, "p50": 1.5, "p99": 5.0}));
        assert_eq!(json["tmem"]["ratio_recompressed"], 4.5);
        assert_eq!(json["zram"], serde_json::Value::Null);
    }
}
