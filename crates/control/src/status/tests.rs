use std::collections::BTreeSet;

use serde_json::Value;

use tmem_store::{Dedup, ReuseDistances, TierState, Weight};

use super::*;
use crate::{DiskFormat, TRANSPORT_VHOST_USER_BLK};
use std::time::Duration;

pub(crate) fn sample() -> Status {
    let client = |name: &str, first: u64| ClientUsage {
        name: name.to_owned(),
        kind: ClientKind::Disk,
        dedup: if first == 100 { Dedup::Domain("web".to_owned()) } else { Dedup::Alone },
        dedup_pages: first + 15,
        cap_bytes: (first == 100).then_some(1 << 30),
        weight: Weight::new(first as u32 + 18).expect("weight"),
        share_bytes: first + 19,
        frozen: first == 100,
        used_bytes: first + 1,
        stored_pages: first + 2,
        same_filled_pages: first + 3,
        raw_pages: first + 4,
        logical_bytes: first + 5,
        compressed_bytes: first + 6,
        peak_stored_pages: first + 7,
        puts: first + 8,
        gets: first + 9,
        flushes: first + 10,
        refused_puts: first + 11,
        incompressible_puts: first + 20,
        checksum_errors: first + 12,
        metadata_bytes: first + 13,
        evicted_pages: first + 14,
        recompressed_pages: first + 15,
        recompression_saved_bytes: first + 16,
        recompression_kept_pages: first + 17,
        tiered_pages: first + 21,
        tiered_bytes: first + 22,
        written_back_pages: first + 23,
        tier_gets: first + 24,
        tier_errors: first + 25,
        reuse_distances: ReuseDistances::default(),
    };
    let pool = StoreUsage {
        limit_bytes: 1 << 32,
        used_bytes: 303,
        held_bytes: 304,
        stored_pages: 305,
        logical_bytes: 306,
        compressed_bytes: 307,
        metadata_bytes: 308,
        recompressed_pages: 309,
        recompression_saved_bytes: 310,
        recompression_kept_pages: 311,
    };
    let disk = DiskInfo {
        name: "vm1".parse().expect("name"),
        size_bytes: 1 << 34,
        cap_bytes: Some(1 << 30),
        weight: 118,
        dedup: crate::DedupChoice::Alone,
        format: DiskFormat::Swap,
        transport: TRANSPORT_VHOST_USER_BLK.to_owned(),
        socket: Some("/run/tmem/vm1.sock".into()),
        address: None,
        device: None,
        queues: Some(1),
        connected: true,
    };
    let tier = TierUsage {
        name: "/var/lib/tmem/tier".to_owned(),
        kind: "file",
        state: TierState::ReadOnly,
        trouble: Some("it is mounted read-only".to_owned()),
        limit_bytes: 1 << 33,
        used_bytes: 401,
        live_bytes: 402,
        stored_pages: 403,
        untold_bytes: 407,
        written_extents: 404,
        reads: 405,
        errors: 406,
    };
    let http = Some(SocketAddr::from(([127, 0, 0, 1], 7780)));
    Status::new(
        Processes {
            keeper: 7,
            worker: 8,
            spare: Some(10),
            worker_deaths: 9,
            uptime: Duration::from_millis(61_999),
        },
        http,
        pool,
        vec![client("vm2", 200), client("vm1", 100)],
        vec![disk],
        Some(tier),
    )
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_names_are_fixed() {
    let json = serde_json::to_value(sample()).expect("json");
    assert_eq!(
        names(&json),
        [
            "balance",
            "clients",
            "cluster",
            "http",
            "pid",
            "pool",
            "sandbox",
            "spare_pid",
            "tiers",
            "uptime_seconds",
            "version",
            "worker_deaths",
            "worker_pid"
        ]
        .into()
    );
    assert_eq!(
        names(&json["pool"]),
        [
            "compressed_bytes",
            "held_bytes",
            "limit_bytes",
            "logical_bytes",
            "metadata_bytes",
            "recompressed_pages",
            "recompression_kept_pages",
            "recompression_saved_bytes",
            "stored_pages",
            "used_bytes"
        ]
        .into()
    );
    assert_eq!(
        names(&json["clients"][0]),
        [
            "cap_bytes",
            "checksum_errors",
            "compressed_bytes",
            "dedup",
            "dedup_pages",
            "evicted_pages",
            "metadata_bytes",
            "disk",
            "flushes",
            "frozen",
            "gets",
            "incompressible_puts",
            "kind",
            "logical_bytes",
            "name",
            "peak_stored_pages",
            "puts",
            "raw_pages",
            "recompressed_pages",
            "recompression_kept_pages",
            "recompression_saved_bytes",
            "refused_puts",
            "reuse_distances",
            "same_filled_pages",
            "share_bytes",
            "stored_pages",
            "tier_errors",
            "tier_gets",
            "tiered_bytes",
            "tiered_pages",
            "used_bytes",
            "weight",
            "written_back_pages",
        ]
        .into()
    );
    assert_eq!(
        names(&json["clients"][0]["disk"]),
        ["address", "connected", "device", "size_bytes", "socket", "transport"].into()
    );
    let tier = &json["tiers"][0];
    assert_eq!(
        names(tier),
        [
            "errors",
            "kind",
            "limit_bytes",
            "live_bytes",
            "name",
            "reads",
            "state",
            "stored_pages",
            "trouble",
            "untold_bytes",
            "used_bytes",
            "written_extents"
        ]
        .into()
    );
}

#[test]
fn each_number_stands_under_its_own_name() {
    let json = serde_json::to_value(sample()).expect("json");
    let client = &json["clients"][0];
    for (name, value) in [
        ("used_bytes", 101),
        ("stored_pages", 102),
        ("same_filled_pages", 103),
        ("raw_pages", 104),
        ("logical_bytes", 105),
        ("compressed_bytes", 106),
        ("peak_stored_pages", 107),
        ("puts", 108),
        ("gets", 109),
        ("flushes", 110),
        ("refused_puts", 111),
        ("incompressible_puts", 120),
        ("tiered_pages", 121),
        ("tiered_bytes", 122),
        ("written_back_pages", 123),
        ("tier_gets", 124),
        ("tier_errors", 125),
        ("checksum_errors", 112),
        ("metadata_bytes", 113),
        ("evicted_pages", 114),
        ("recompressed_pages", 115),
        ("recompression_saved_bytes", 116),
        ("recompression_kept_pages", 117),
        ("weight", 118),
        ("share_bytes", 119),
        ("dedup_pages", 115),
        ("cap_bytes", 1 << 30),
    ] {
        assert_eq!(client[name], value, "{name}");
    }
    assert_eq!((&client["name"], &client["kind"]), (&Value::from("vm1"), &Value::from("disk")));
    assert_eq!(
        (&client["dedup"], &json["clients"][1]["dedup"]),
        (&Value::from("web"), &Value::from("alone"))
    );
    assert_eq!(json["clients"][1]["cap_bytes"], Value::Null);
    assert_eq!(json["clients"][1]["disk"], Value::Null);
    for (name, value) in [
        ("limit_bytes", 1u64 << 32),
        ("used_bytes", 303),
        ("held_bytes", 304),
        ("stored_pages", 305),
        ("logical_bytes", 306),
        ("compressed_bytes", 307),
        ("metadata_bytes", 308),
        ("recompressed_pages", 309),
        ("recompression_saved_bytes", 310),
        ("recompression_kept_pages", 311),
    ] {
        assert_eq!(json["pool"][name], value, "{name}");
    }
    assert_eq!(json["uptime_seconds"], 61);
    let tier = &json["tiers"][0];
    assert_eq!(
        (&tier["state"], &tier["kind"], &tier["used_bytes"]),
        (&"read-only".into(), &"file".into(), &401.into())
    );
    assert_eq!(tier["trouble"], "it is mounted read-only");
}

#[test]
fn it_reads_back() {
    let text = serde_json::to_string(&sample()).expect("json");
    assert_eq!(serde_json::from_str::<Status>(&text).expect("status"), sample());
}

#[test]
fn reuse_distances_show_where_gets_are() {
    let store = tmem_store::Store::new(tmem_store::StoreOptions { limit_bytes: 8 << 20 }).expect("store");
    let options = tmem_store::ClientOptions {
        name: "a".to_owned(),
        kind: ClientKind::Native,
        cap_bytes: None,
        weight: Weight::default(),
        dedup: Dedup::Alone,
    };
    let client = store.create_client(options).expect("client");
    let keys = tmem_store::Keys::Flat { pages: 10 };
    let pool = client.create_pool(tmem_store::Persistence::Persistent, keys).expect("pool");
    let (object, index) = (tmem_store::ObjectId(0), tmem_store::PageIndex(3));
    pool.put(object, index, (&[7; tmem_store::PAGE_BYTES]).into()).expect("put");
    for _ in 0..2 {
        pool.get(object, index, (&mut [0; tmem_store::PAGE_BYTES]).into()).expect("get");
    }
    let json = serde_json::to_value(ReuseStatus::from(&client.usage().reuse_distances)).expect("json");
    assert_eq!(json, serde_json::json!({ "buckets": [{ "below_pages": 64, "gets": 2 }], "older_gets": 0 }));
}
