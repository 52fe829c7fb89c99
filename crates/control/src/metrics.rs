//! The status document as metrics: OpenMetrics text, which Prometheus reads.
//!
//! The counters live in the store, so nothing is registered or counted here: one collector encodes the status of the moment.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::{ClientStatus, Status, TierStatus};

mod balance;
mod cluster;

/// What [`encode`] writes, for the Content-Type header.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One family of a client's numbers: its name without `tmem_client_` (and a counter's without `_total`), what it says, and where it is
/// found. The encoder ends what it says with a full stop.
type ClientFamily = (&'static str, &'static str, fn(&ClientStatus) -> Option<u64>);

const CLIENT_GAUGES: [ClientFamily; 15] = [
    ("weight", "Share of the client under pressure, relative to others", |c| Some(u64::from(c.weight))),
    ("share_bytes", "Part of the pool's limit by the client's weight", |c| Some(c.share_bytes)),
    ("frozen", "1 while the client's puts are refused because it is frozen", |c| Some(u64::from(c.frozen))),
    ("cap_bytes", "The most of the pool that the client's pages may take; absent without a cap", |c| {
        c.cap_bytes
    }),
    ("used_bytes", "Memory that the client's pages take, index included", |c| Some(c.used_bytes)),
    ("stored_pages", "Pages of the client in the pool", |c| Some(c.stored_pages)),
    ("peak_stored_pages", "The highest that stored_pages has been", |c| Some(c.peak_stored_pages)),
    ("same_filled_pages", "Stored pages that repeat one value", |c| Some(c.same_filled_pages)),
    ("dedup_pages", "Stored pages that share another page's block", |c| Some(c.dedup_pages)),
    ("raw_pages", "Stored pages that do not compress", |c| Some(c.raw_pages)),
    ("logical_bytes", "What the client's pages would take uncompressed", |c| Some(c.logical_bytes)),
    ("compressed_bytes", "What the contents of the client's pages take compressed", |c| {
        Some(c.compressed_bytes)
    }),
    ("metadata_bytes", "Index and block headers of the client's pages", |c| Some(c.metadata_bytes)),
    ("tiered_pages", "Stored pages that are in a tier and not in memory", |c| Some(c.tiered_pages)),
    ("tiered_bytes", "What those pages take in the tier", |c| Some(c.tiered_bytes)),
];

const CLIENT_COUNTERS: [ClientFamily; 13] = [
    ("puts", "Pages accepted", |c| Some(c.puts)),
    ("gets", "Pages asked for, whether or not they were there", |c| Some(c.gets)),
    ("flushes", "Pages flushed", |c| Some(c.flushes)),
    (
        "refused_puts",
        "Puts refused: pool full, cap or share reached, client frozen, page incompressible",
        |c| Some(c.refused_puts),
    ),
    ("incompressible_puts", "Puts refused because the page does not compress well enough", |c| {
        Some(c.incompressible_puts)
    }),
    ("evicted_pages", "Ephemeral pages dropped to make room", |c| Some(c.evicted_pages)),
    ("checksum_errors", "Blocks that did not match their checksum", |c| Some(c.checksum_errors)),
    ("recompressed_pages", "Pages compressed harder since they were cold", |c| Some(c.recompressed_pages)),
    ("recompression_saved_bytes", "Memory that compressing cold pages harder gave back", |c| {
        Some(c.recompression_saved_bytes)
    }),
    ("recompression_kept_pages", "Cold pages left as they were because too little was to be gained", |c| {
        Some(c.recompression_kept_pages)
    }),
    ("written_back_pages", "Pages moved to a tier", |c| Some(c.written_back_pages)),
    ("tier_gets", "Gets that found their page in a tier", |c| Some(c.tier_gets)),
    ("tier_errors", "Gets that a tier could not serve", |c| Some(c.tier_errors)),
];

const CLIENT_DISKS: [ClientFamily; 2] = [
    ("disk_size_bytes", "What the guest sees as the size of the client's disk", |c| {
        c.disk.as_ref().map(|disk| disk.size_bytes)
    }),
    ("disk_connected", "1 while a guest is connected to the client's disk", |c| {
        c.disk.as_ref().map(|disk| u64::from(disk.connected))
    }),
];

/// Distances from 2^6 to 2^26 pages, as the status document has them.
const LAST_REUSE_BITS: u32 = 26;
const REUSE_BITS: std::ops::RangeInclusive<u32> = 6..=LAST_REUSE_BITS;

/// The whole page for a scraper.
pub fn encode(status: &Status) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(StatusCollector(status.clone())));
    let mut page = String::new();
    // Writing to a String does not fail, and the collector makes no errors of its own.
    let _infallible = text::encode(&mut page, &registry);
    page
}

#[derive(Debug)]
struct StatusCollector(Status);

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = &self.0;
        let help = "1, with the daemon's version as a label";
        encoder
            .encode_descriptor("tmem_build_info", help, None, MetricType::Gauge)?
            .encode_family(&[("version", status.version.as_str())])?
            .encode_gauge(&1u64)?;
        let pool = &status.pool;
        for (name, help, value) in [
            ("tmem_uptime_seconds", "Seconds since the daemon's start", status.uptime_seconds),
            ("tmem_pool_limit_bytes", "The most memory the pool may hold", pool.limit_bytes),
            ("tmem_pool_used_bytes", "Memory that clients' pages take, index included", pool.used_bytes),
            ("tmem_pool_held_bytes", "Memory held from the OS for the pool", pool.held_bytes),
            ("tmem_pool_stored_pages", "Pages in the pool", pool.stored_pages),
            ("tmem_pool_logical_bytes", "What the pages would take uncompressed", pool.logical_bytes),
            ("tmem_pool_compressed_bytes", "What the pages' contents take compressed", pool.compressed_bytes),
            ("tmem_pool_metadata_bytes", "Index and block headers", pool.metadata_bytes),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let help = "Processes of the daemon that served and died; another one took over each time";
        let deaths = u64::from(status.worker_deaths);
        encoder
            .encode_descriptor("tmem_worker_deaths", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&deaths, None)?;
        // Of the clients that there are, so it falls when one goes: no counter.
        for (name, help, value) in [
            (
                "tmem_pool_recompressed_pages",
                "Sum of the clients' recompressed_pages",
                pool.recompressed_pages,
            ),
            (
                "tmem_pool_recompression_saved_bytes",
                "Sum of the clients' recompression_saved_bytes",
                pool.recompression_saved_bytes,
            ),
            (
                "tmem_pool_recompression_kept_pages",
                "Sum of the clients' recompression_kept_pages",
                pool.recompression_kept_pages,
            ),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        tiers(status, &mut encoder)?;
        if let Some(report) = &status.balance {
            balance::encode(report, &mut encoder)?;
        }
        if let Some(report) = &status.cluster {
            cluster::encode(report, &mut encoder)?;
        }
        reuse_distances(status, &mut encoder)?;
        for families in [&CLIENT_GAUGES[..], &CLIENT_DISKS] {
            clients(status, &mut encoder, MetricType::Gauge, families, |metric, value| {
                metric.encode_gauge(&value)
            })?;
        }
        clients(status, &mut encoder, MetricType::Counter, &CLIENT_COUNTERS, |metric, value| {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }
}

type TierFamily = (&'static str, &'static str, fn(&TierStatus) -> u64);

const TIER_GAUGES: [TierFamily; 4] = [
    ("tmem_tier_limit_bytes", "What the tier can hold", |tier| tier.limit_bytes),
    ("tmem_tier_used_bytes", "Space in use in the tier", |tier| tier.used_bytes),
    ("tmem_tier_live_bytes", "What the pages take of it", |tier| tier.live_bytes),
    ("tmem_tier_stored_pages", "Pages that are in the tier and not in memory", |tier| tier.stored_pages),
];

const TIER_COUNTERS: [TierFamily; 3] = [
    ("tmem_tier_written_extents", "Extents of 128 KiB written to the tier", |tier| tier.written_extents),
    ("tmem_tier_reads", "Reads from the tier, whether or not they needed the disk", |tier| tier.reads),
    ("tmem_tier_errors", "Reads and writes that the tier could not do", |tier| tier.errors),
];

/// The tiers' numbers, and the state of each.
fn tiers(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if status.tiers.is_empty() {
        return Ok(());
    }
    for (name, help, value) in TIER_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for tier in &status.tiers {
            family.encode_family(&[("tier", tier.name.as_str())])?.encode_gauge(&value(tier))?;
        }
    }
    for (name, help, value) in TIER_COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for tier in &status.tiers {
            let labels = [("tier", tier.name.as_str())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(tier), None)?;
        }
    }
    let help = "1 for the state that the tier is in: ready, full, read-only, missing or failing";
    let mut family = encoder.encode_descriptor("tmem_tier_state", help, None, MetricType::Gauge)?;
    for tier in &status.tiers {
        let labels = [("tier", tier.name.as_str()), ("state", tier.state.as_str())];
        family.encode_family(&labels)?.encode_gauge(&1u64)?;
    }
    Ok(())
}

/// How far back each client's gets reached, a bucket for each doubling: the status document has four.
fn reuse_distances(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Pages that the client put between a page's put or last get and the get that found it; \
                each get counts as the end of its bucket in the sum, those older than that as the last one's";
    let name = "tmem_client_reuse_distance_pages";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for client in &status.clients {
        let reuse = &client.reuse_distances;
        let mut buckets: Vec<(f64, u64)> = REUSE_BITS.map(|bits| ((1u64 << bits) as f64, 0)).collect();
        let (mut sum, mut count) = (0.0, 0);
        for bucket in &reuse.buckets {
            // Distances are whole numbers, so "below" an end and "not above" it differ by less than they are known to.
            if let Some((_, gets)) = buckets.iter_mut().find(|(end, _)| bucket.below_pages as f64 <= *end) {
                *gets += bucket.gets;
            }
            sum += bucket.below_pages as f64 * bucket.gets as f64;
            count += bucket.gets;
        }
        sum += (1u64 << LAST_REUSE_BITS) as f64 * reuse.older_gets as f64;
        count += reuse.older_gets;
        buckets.push((f64::INFINITY, reuse.older_gets));
        let labels = [("client", client.name.as_str())];
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

/// Encodes families of which every client has a sample, unless it has no such number.
fn clients(
    status: &Status,
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    families: &[ClientFamily],
    encode: impl Fn(&mut MetricEncoder<'_>, u64) -> fmt::Result,
) -> fmt::Result {
    for (name, help, value) in families {
        let name = format!("tmem_client_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
        for client in &status.clients {
            if let Some(value) = value(client) {
                let labels = [("client", client.name.as_str())];
                encode(&mut family.encode_family(&labels)?, value)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReuseBucket, ReuseStatus, status::tests::sample};

    #[test]
    fn a_scraper_reads_every_number() {
        let page = encode(&sample());
        for line in [
            "# TYPE tmem_pool_used_bytes gauge",
            "tmem_pool_used_bytes 303",
            "tmem_pool_limit_bytes 4294967296",
            "tmem_tier_used_bytes{tier=\"/var/lib/tmem/tier\"} 401",
            "tmem_tier_errors_total{tier=\"/var/lib/tmem/tier\"} 406",
            "tmem_tier_state{tier=\"/var/lib/tmem/tier\",state=\"read-only\"} 1",
            "tmem_client_tiered_pages{client=\"vm1\"} 121",
            "tmem_client_tier_gets_total{client=\"vm1\"} 124",
            "# TYPE tmem_client_puts counter",
            "tmem_client_puts_total{client=\"vm1\"} 108",
            "tmem_client_puts_total{client=\"vm2\"} 208",
            "tmem_client_checksum_errors_total{client=\"vm1\"} 112",
            "tmem_client_cap_bytes{client=\"vm1\"} 1073741824",
            "tmem_client_disk_connected{client=\"vm1\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("tmem_client_cap_bytes{client=\"vm2\"}"), "a cap that is not there");
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn names_follow_the_status_document() {
        let text = encode(&sample());
        let status = serde_json::to_value(sample()).expect("json");
        for name in status["pool"].as_object().expect("pool").keys() {
            assert!(text.contains(&format!("\ntmem_pool_{name} ")), "{name}");
        }
        let numbers =
            status["clients"][0].as_object().expect("client").iter().filter(|(_, value)| value.is_u64());
        for (name, _) in numbers {
            let gauge = text.contains(&format!("\ntmem_client_{name}{{client=\"vm1\"}} "));
            let counter = text.contains(&format!("\ntmem_client_{name}_total{{client=\"vm1\"}} "));
            assert!(gauge != counter, "{name} is there, once");
        }
    }

    #[test]
    fn reuse_distances_are_a_histogram() {
        let mut status = sample();
        status.clients[0].reuse_distances = ReuseStatus {
            buckets: [(64, 5), (80, 2), (128, 1), (1 << 26, 3)]
                .map(|(below_pages, gets)| ReuseBucket { below_pages, gets })
                .to_vec(),
            older_gets: 4,
        };
        let page = encode(&status);
        for (le, gets) in [("64.0", 5), ("128.0", 8), ("33554432.0", 8), ("67108864.0", 11), ("+Inf", 15)] {
            let line =
                format!("tmem_client_reuse_distance_pages_bucket{{le=\"{le}\",client=\"vm1\"}} {gets}");
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(page.contains("tmem_client_reuse_distance_pages_count{client=\"vm1\"} 15\n"));
        assert!(page.contains("tmem_client_reuse_distance_pages_count{client=\"vm2\"} 0\n"));
        assert!(page.contains("# TYPE tmem_client_reuse_distance_pages histogram\n"));
    }

    #[test]
    fn a_client_cannot_write_metrics_with_its_name() {
        let mut status = sample();
        status.clients[0].name = "a\"} 1\nevil\\ 2".to_owned();
        let text = encode(&status);
        assert!(!text.lines().any(|line| line.starts_with("evil")));
        assert!(text.contains(r#"tmem_client_puts_total{client="a\"} 1\nevil\\ 2"} 108"#), "{text}");
    }
}
