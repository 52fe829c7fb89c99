//! The table by itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

fn crc(number: u32) -> PayloadCrc {
    PayloadCrc(crc32c::crc32c(&number.to_le_bytes()))
}

fn table() -> (Table, Arc<Budget>) {
    let budget = Arc::new(Budget::new(1 << 30, 0));
    (Table::new(budget.clone(), Arc::new(Stock::new())).unwrap(), budget)
}

/// Gives the number of the page that is found no more for it.
fn enter(table: &Table, number: u32) -> Option<u32> {
    table.count(0, 1);
    table.insert(crc(number), number, IfFull::Displace, |number| Some(crc(number)))
}

fn enter_all(table: &Table, numbers: std::ops::Range<u32>) -> Vec<u32> {
    numbers.filter_map(|number| enter(table, number)).collect()
}

fn enter_again(table: &Table, displaced: Vec<u32>) {
    displaced
        .into_iter()
        .for_each(|number| table.insert_moving(crc(number), number, |number| Some(crc(number))));
}

fn leave(table: &Table, number: u32) {
    table.count(1, 0);
    table.remove(crc(number), number);
}

fn found(table: &Table, numbers: impl Iterator<Item = u32>) -> usize {
    numbers.filter(|number| table.candidates(crc(*number)).any(|found| found == *number)).count()
}

#[test]
fn nearly_all_pages_are_found_in_less_than_five_bytes_each() {
    let (table, budget) = table();
    let count = 300_000;
    let displaced = enter_all(&table, 0..count);
    let found_at_once = found(&table, 0..count);
    assert!(found_at_once > count as usize * 88 / 100, "{found_at_once}");
    enter_again(&table, displaced);
    let found = found(&table, 0..count);
    assert!(found > count as usize * 98 / 100, "{found}");
    assert!(table.held_bytes() < u64::from(count) * 5, "{} bytes", table.held_bytes());
    assert_eq!(table.held_bytes(), budget.held_bytes());
    assert_eq!(table.held_bytes(), table.allocated_bytes());
    // A page that is not there costs few looks at others.
    let looks: usize = (count..2 * count).map(|number| table.candidates(crc(number)).count()).sum();
    assert!(looks < count as usize / 4, "{looks} looks");
}

#[test]
fn the_table_shrinks_and_goes_with_its_pages() {
    let (table, budget) = table();
    let displaced = enter_all(&table, 0..100_000);
    enter_again(&table, displaced);
    let full_bytes = table.held_bytes();
    (10_000..100_000).for_each(|number| leave(&table, number));
    assert!(table.held_bytes() < full_bytes / 4, "{} of {full_bytes}", table.held_bytes());
    assert_eq!(table.held_bytes(), table.allocated_bytes());
    let found = found(&table, 0..10_000);
    assert!(found > 9_500, "{found}");
    (0..10_000).for_each(|number| leave(&table, number));
    assert_eq!((table.held_bytes(), budget.held_bytes(), table.allocated_bytes()), (0, 0, 0));
}

#[test]
fn wider_numbers_keep_what_is_entered() {
    let (table, _) = table();
    let _displaced = enter_all(&table, 0..5_000);
    let before = found(&table, 0..5_000);
    assert!(table.widen(1 << 28));
    assert_eq!(found(&table, 0..5_000), before);
    let high = (1 << 28) - 1;
    enter(&table, high);
    assert_eq!(found(&table, [high].into_iter()), 1);
    assert!(!table.widen((1 << 30) + 1));
}

#[test]
fn without_room_the_table_stays_as_small_as_it_is() {
    let budget = Arc::new(Budget::new(PAGE_BYTES as u64, 0));
    let table = Table::new(budget.clone(), Arc::new(Stock::new())).unwrap();
    let _displaced = enter_all(&table, 0..10_000);
    assert_eq!(table.held_bytes(), PAGE_BYTES as u64);
    assert!(found(&table, 0..10_000) > 900);
}
