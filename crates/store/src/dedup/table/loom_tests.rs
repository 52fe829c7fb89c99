//! The table among threads, with two buckets of two cells a page.

use loom::{model::Builder, thread};

use super::*;

/// Runs a model with all ways to take turns in which threads are interrupted at most so often.
fn model(interruptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(run);
}

/// Page numbers are checksums, so that a test chooses the places.
fn crc(number: u32) -> PayloadCrc {
    PayloadCrc(number)
}

fn table() -> (Arc<Table>, Arc<Budget>) {
    let budget = Arc::new(Budget::new(1 << 20, 0));
    (Arc::new(Table::new(budget.clone(), Arc::new(Stock::new())).unwrap()), budget)
}

fn insert(table: &Table, number: u32) {
    table.insert_moving(crc(number), number, |number| Some(crc(number)));
}

fn enter(table: &Table, number: u32) {
    table.count(0, 1);
    insert(table, number);
}

fn leave(table: &Table, number: u32) {
    table.count(1, 0);
    table.remove(crc(number), number);
}

fn is_found(table: &Table, number: u32) -> bool {
    table.candidates(crc(number)).any(|found| found == number)
}

fn in_thread(table: &Arc<Table>, work: impl FnOnce(&Table) + 'static) -> thread::JoinHandle<()> {
    let table = table.clone();
    thread::spawn(move || work(&table))
}

/// A table of two buckets, and page numbers whose two places are both in the first of them.
fn with_one_bucket_to_fill() -> (Arc<Table>, [u32; 2]) {
    let (table, _) = table();
    table.count(0, 1);
    table.make_room();
    let both_in_first = |number: &u32| hashes(crc(*number)).iter().all(|hash| hash % BUCKETS_PER_PAGE == 0);
    let mut numbers = (1..).filter(both_in_first);
    (table, std::array::from_fn(|_| numbers.next().unwrap()))
}

fn assert_gives_only(table: &Table, numbers: &[u32]) {
    for looked_for in numbers {
        table.candidates(crc(*looked_for)).for_each(|found| assert!(numbers.contains(&found), "{found}"));
    }
}

/// A page is found that was inserted while others of its bucket were looked for and taken out, and the latter are not.
#[test]
fn r1_an_insert_is_lost_to_no_lookup_and_no_removal() {
    model(4, || {
        let (table, [goes, comes]) = with_one_bucket_to_fill();
        insert(&table, goes);
        let other = in_thread(&table, move |table| table.remove(crc(goes), goes));
        insert(&table, comes);
        assert_gives_only(&table, &[comes, goes]);
        other.join().unwrap();
        assert!(is_found(&table, comes) && !is_found(&table, goes));
    });
}

/// Two inserts into one bucket may choose the same cell: one of the pages is found, and nothing that is neither.
#[test]
fn of_two_inserts_into_one_cell_one_stays() {
    model(4, || {
        let (table, [one, two]) = with_one_bucket_to_fill();
        let other = in_thread(&table, move |table| insert(table, two));
        insert(&table, one);
        other.join().unwrap();
        assert!(is_found(&table, one) || is_found(&table, two));
        assert_gives_only(&table, &[one, two]);
    });
}

/// A bucket is split while a page is looked for: nothing is given that was not inserted, and nothing is lost.
#[test]
fn a_lookup_during_a_split_gives_only_what_was_inserted() {
    model(3, || {
        let (table, _) = table();
        (0..3).for_each(|number| enter(&table, number));
        let other = in_thread(&table, |table| enter(table, 3));
        assert_gives_only(&table, &[0, 1, 2, 3]);
        other.join().unwrap();
        assert_eq!(table.buckets.load(Ordering::Relaxed), 3);
        (0..4).for_each(|number| assert!(is_found(&table, number), "{number}"));
    });
}

/// A bucket is split, and one taken away, while a page is inserted: it may be lost, but nothing else is ever given.
#[test]
fn an_insert_during_a_split_or_a_merge_leaves_only_what_was_inserted() {
    for goes in [None, Some(0)] {
        model(2, move || {
            let (table, budget) = table();
            (0..3).for_each(|number| enter(&table, number));
            if goes.is_some() {
                enter(&table, 3);
                (2..4).for_each(|number| leave(&table, number));
            }
            let other = in_thread(&table, move |table| match goes {
                Some(goes) => leave(table, goes),
                None => enter(table, 3),
            });
            insert(&table, 5);
            assert_gives_only(&table, &[0, 1, 2, 3, 5]);
            other.join().unwrap();
            assert_gives_only(&table, &[0, 1, 2, 3, 5]);
            assert_eq!(table.held_bytes(), budget.held_bytes());
        });
    }
}

/// While numbers get wider, a page is inserted and others are looked for: what is given may be any page's number, but it is one.
#[test]
fn a_widening_leaves_nothing_that_is_no_number() {
    model(3, || {
        let (table, _) = table();
        (0..2).for_each(|number| enter(&table, number));
        let other = in_thread(&table, |table| assert!(table.widen(1 << MAX_NUMBER_BITS)));
        insert(&table, 5);
        let check = || {
            [0, 1, 5].into_iter().flat_map(|number| table.candidates(crc(number))).for_each(|found| {
                assert!(found < 1 << MAX_NUMBER_BITS);
            });
        };
        check();
        other.join().unwrap();
        check();
        // A cell that says another number now goes like any other.
        (0..2).for_each(|number| leave(&table, number));
        assert_eq!(table.held_bytes(), 0);
    });
}

/// r7: pages go at the same moment, from a table larger than a page: the one who gives up shrinking it has been heard.
#[test]
fn the_last_pages_take_the_table_along() {
    model(3, || {
        let (table, budget) = table();
        (0..4).for_each(|number| enter(&table, number));
        assert_eq!(table.held_bytes(), 2 * PAGE_BYTES as u64);
        (2..4).for_each(|number| leave(&table, number));
        let other = in_thread(&table, |table| leave(table, 0));
        leave(&table, 1);
        other.join().unwrap();
        assert_eq!((table.held_bytes(), budget.held_bytes()), (0, 0));
    });
}

/// r7: a page goes before whoever put it has entered it.
#[test]
fn a_page_that_is_gone_before_it_is_entered_leaves_nothing() {
    model(3, || {
        let (table, budget) = table();
        table.count(0, 1);
        let other = in_thread(&table, |table| leave(table, 0));
        insert(&table, 0);
        other.join().unwrap();
        assert_eq!((table.held_bytes(), budget.held_bytes()), (0, 0));
    });
}

/// r7: a page goes while numbers get wider.
#[test]
fn a_page_that_goes_during_a_widening_takes_the_table_along() {
    model(3, || {
        let (table, budget) = table();
        enter(&table, 0);
        let other = in_thread(&table, |table| leave(table, 0));
        assert!(table.widen(1 << 24));
        other.join().unwrap();
        assert_eq!((table.held_bytes(), budget.held_bytes()), (0, 0));
    });
}
