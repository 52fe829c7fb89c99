use std::collections::BTreeSet;

use proptest::prelude::*;
use tmem_store::{ClientKind, ClientOptions, Dedup, StoreOptions, Weight};

use super::*;

const CONFIGURATION: &str = include_str!("../../../../docs/configuration.md");

/// A store with a client `vm1`, and its knobs.
fn knobs() -> (Arc<Store>, Knobs) {
    let store = Store::new(StoreOptions { limit_bytes: 64 << 20 }).expect("store");
    let options = ClientOptions {
        name: "vm1".to_owned(),
        kind: ClientKind::Native,
        cap_bytes: None,
        weight: Weight::default(),
        dedup: Dedup::Alone,
    };
    store.create_client(options).expect("client");
    let knobs = Knobs::new(Config::default(), store.clone(), Arc::new(AtomicU32::new(1000)));
    (store, knobs)
}

/// Everything that a knob acts on.
fn state(store: &Store, knobs: &Knobs) -> impl PartialEq + std::fmt::Debug {
    let client = store.client("vm1").expect("client").settings();
    let poll_us = knobs.poll_us.load(Ordering::Relaxed);
    (knobs.list(), store.usage().limit_bytes, store.recompression(), client, poll_us, knobs.reaction())
}

/// For each knob, a value that is right and not its default, and one that is wrong.
const VALUES: [(&str, &str, &str); 16] = [
    ("pool-size", "32M", "1K"),
    ("reserve", "1M", "1024T"),
    ("pool-ceiling", "2G", "auto"),
    ("reaction-ms", "50", "5"),
    ("poll-us", "7", "1000001"),
    ("max-compressed", "50", "0"),
    ("recompress", "off", "maybe"),
    ("recompress-age", "5", "0"),
    ("recompress-level", "9", "20"),
    ("background-cpu", "30", "101"),
    ("tier-mode", "write-through", "through"),
    ("write-back-age", "90", "0"),
    ("zero-on-flush", "on", "maybe"),
    ("log-level", "warn", "loud"),
    ("vm1.cap", "16M", "2T"),
    ("vm1.weight", "7", "10001"),
];

fn changes<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> KnobChanges {
    let knobs = values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    KnobChanges { knobs: knobs.collect() }
}

proptest! {
    /// Whatever is right beside it, wherever it stands, one wrong value changes nothing.
    #[test]
    fn one_wrong_value_changes_nothing(right in proptest::sample::subsequence(&VALUES, 0..16), wrong in 0..18usize) {
        let (store, knobs) = knobs();
        let before = state(&store, &knobs);
        let wrong = match wrong {
            16 => ("vm2.cap", "1M"),
            17 => ("no-such-knob", "1"),
            n => (VALUES[n].0, VALUES[n].2),
        };
        let right = right.iter().map(|(name, right, _)| (*name, *right)).filter(|(name, _)| *name != wrong.0);
        let asked = changes(right.chain([wrong]));
        let error = knobs.set(&asked).expect_err("a wrong value").to_string();
        prop_assert!(error.contains(wrong.0.trim_end_matches(".cap")), "{error}");
        prop_assert_eq!(state(&store, &knobs), before);
    }
}

#[test]
fn right_values_are_all_taken_at_once() {
    let (store, knobs) = knobs();
    knobs.set(&changes(VALUES.map(|(name, right, _)| (name, right)))).expect("right values");
    let values: Vec<_> = knobs.list().knobs.into_iter().map(|knob| (knob.name, knob.value)).collect();
    let expected = VALUES.map(|(name, right, _)| (name.to_owned(), right.to_owned()));
    assert_eq!(values, expected);
    assert!(knobs.list().knobs.iter().all(|knob| knob.value != knob.default));
    assert_eq!(store.usage().limit_bytes, 32 << 20);
    // And a client that goes takes its own along.
    store.remove_client(&store.client("vm1").expect("client")).expect("removed");
    assert!(!knobs.list().knobs.iter().any(|knob| knob.name.starts_with("vm1.")));
}

/// The rows of a table under a heading, cell by cell, without marks.
fn rows_under(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = CONFIGURATION.split_once(&format!("\n## {heading}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

#[test]
fn the_documentation_lists_what_the_program_does() {
    let (_store, knobs) = knobs();
    let documented: Vec<_> = rows_under("Knobs");
    let listed = knobs
        .list()
        .knobs
        .into_iter()
        .map(|knob| vec![knob.name.replace("vm1.", "CLIENT."), knob.unit, knob.range, knob.default]);
    assert_eq!(documented, listed.collect::<Vec<_>>());
    // Every knob but those of clients is a key of the file under the same name, with the same default.
    let keys: BTreeSet<_> =
        rows_under("Keys").into_iter().map(|row| (row[0].clone(), row[2].replace('"', ""))).collect();
    for row in documented.iter().filter(|row| !row[0].starts_with("CLIENT.")) {
        assert!(keys.contains(&(row[0].clone(), row[3].clone())), "{row:?} is no key");
    }
}
