//! Pages with equal contents: what is shared, with whom, and what becomes of it.

use std::{sync::Arc, thread, time::Duration};

use super::pages::{TestKeeper, client_options, flat_pool, get, page, put, store};
use crate::{
    Client, ClientOptions, Dedup, GetError, Keys, ObjectId, PageIndex, Persistence, Pool,
    RecompressionOptions, Store,
    block::HEADER_BYTES,
    dedup::IfFull,
    entry::{Entry, SharedRef},
    ids::IndexSlot,
};

const OBJECT: ObjectId = ObjectId(0);

/// Seeds of pages that compress to half, and differ.
fn seed(i: u64) -> u32 {
    i as u32 * 5 + 3
}

fn pool_in(store: &Store, name: &str, dedup: Dedup) -> (Arc<Client>, Arc<Pool>) {
    let client = store.create_client(ClientOptions { dedup, ..client_options(name, None) }).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 10_000 }).unwrap();
    (client, pool)
}

fn shared_domain() -> Dedup {
    Dedup::Domain("web".to_owned())
}

/// Lets all pages be found by their contents for which there was no time when they were put.
fn find_all(store: &Store) {
    assert!(!store.tend_dedup(Duration::from_secs(60)), "a minute was not enough");
}

/// r7: the sums agree, and nothing is held when nothing is stored.
fn assert_books(store: &Store) {
    let (usage, clients) = store.snapshot();
    assert_eq!(usage.used_bytes, clients.iter().map(|client| client.used_bytes).sum::<u64>());
    assert!(usage.used_bytes <= usage.held_bytes, "{usage:?}");
    assert!(usage.compressed_bytes + usage.metadata_bytes <= usage.used_bytes, "{usage:?}");
    if usage.stored_pages == 0 {
        assert_eq!((usage.used_bytes, usage.held_bytes), (0, 0));
        assert_eq!(store.engine().arena.allocated_bytes().unwrap(), 0);
        assert_eq!(store.engine().shared_blocks.allocated_bytes().unwrap(), 0);
    }
}

#[test]
fn r1_equal_pages_share_a_block_and_go_their_own_ways() {
    for seed in [2, 3, 4] {
        let store = store(64 << 20);
        let pool = flat_pool(&store, "a", 10_000);
        (0..500).for_each(|i| put(&pool, 0, i, seed).unwrap());
        let usage = store.usage();
        let one_block = usage.compressed_bytes;
        assert!(one_block < 4200, "{usage:?}");
        assert_eq!((usage.stored_pages, store.clients()[0].dedup_pages), (500, 500));
        assert_books(&store);
        (0..500).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(seed)));
        // Overwritten and flushed pages leave the others alone.
        (0..400).step_by(2).for_each(|i| put(&pool, 0, i, seed + 5).unwrap());
        (1..400).step_by(2).for_each(|i| pool.flush_page(OBJECT, PageIndex(i)));
        for i in 0..500 {
            let expected = if i >= 400 { Some(seed) } else { (i % 2 == 0).then_some(seed + 5) };
            assert_eq!(
                get(&pool, 0, i).unwrap().map(|page| page.to_vec()),
                expected.map(|seed| page(seed).to_vec())
            );
        }
        assert_eq!(store.clients()[0].dedup_pages, 300);
        assert_books(&store);
        pool.flush_object(OBJECT);
        assert_books(&store);
    }
}

#[test]
fn r1_the_last_page_of_a_shared_block_keeps_it() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 100);
    (0..2).for_each(|i| put(&pool, 0, i, 3).unwrap());
    pool.flush_page(OBJECT, PageIndex(0));
    assert!(*get(&pool, 0, 1).unwrap().unwrap() == page(3));
    // It can still be found, and shared again.
    put(&pool, 0, 50, 3).unwrap();
    assert_eq!(store.clients()[0].dedup_pages, 2);
    pool.flush_page(OBJECT, PageIndex(1));
    assert!(*get(&pool, 0, 50).unwrap().unwrap() == page(3));
    pool.flush_page(OBJECT, PageIndex(50));
    assert_books(&store);
}

#[test]
fn a_page_put_again_with_the_same_contents_is_not_its_own_twin() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 100);
    (0..3).for_each(|_| put(&pool, 0, 7, 3).unwrap());
    assert_eq!((store.clients()[0].dedup_pages, store.clients()[0].stored_pages), (0, 1));
    assert!(*get(&pool, 0, 7).unwrap().unwrap() == page(3));
}

#[test]
fn clients_of_one_domain_share_and_one_that_leaves_takes_nothing_along() {
    let store = store(64 << 20);
    let (first, first_pool) = pool_in(&store, "a", shared_domain());
    let (_second, second_pool) = pool_in(&store, "b", shared_domain());
    (0..1000).for_each(|i| put(&first_pool, 0, i, seed(i)).unwrap());
    find_all(&store);
    let alone = store.usage().compressed_bytes;
    (0..1000).for_each(|i| put(&second_pool, 0, i + 3, seed(i)).unwrap());
    let together = store.usage();
    let clients = store.clients();
    // A hundredth or so of all pages is forgotten by the table.
    assert!(together.compressed_bytes < alone * 11 / 10, "{} of {alone}", together.compressed_bytes);
    assert!(clients.iter().all(|client| client.dedup_pages > 900), "{clients:?}");
    assert!(clients[0].used_bytes.abs_diff(clients[1].used_bytes) < 50_000, "{clients:?}");
    assert_books(&store);
    store.remove_client(&first).unwrap();
    assert_books(&store);
    (0..1000).for_each(|i| assert!(*get(&second_pool, 0, i + 3).unwrap().unwrap() == page(seed(i))));
    second_pool.flush_object(OBJECT);
    assert_books(&store);
}

#[test]
fn r6_across_domains_nothing_is_shared_and_nothing_compared() {
    let store = store(64 << 20);
    let named = Dedup::Domain("db".to_owned());
    for (i, dedup) in [Dedup::Alone, Dedup::Alone, shared_domain(), named, Dedup::Off].into_iter().enumerate()
    {
        let (client, pool) = pool_in(&store, &format!("c{i}"), dedup);
        let before = store.usage().compressed_bytes;
        (0..100).for_each(|i| put(&pool, 0, i, seed(i)).unwrap());
        let gained = store.usage().compressed_bytes - before;
        // What a put of a page does that another domain holds is what it does with any new page: a block of its own is written,
        // and no stored page is looked at.
        assert_eq!(client.usage().dedup_pages, 0);
        assert!(client.compared_pages().is_none_or(|pages| pages == 0));
        assert_eq!(gained, client.usage().compressed_bytes);
        let other = store.clients()[0].compressed_bytes;
        assert_eq!(gained, other, "the same pages take another path");
    }
}

#[test]
fn r6_a_reference_into_another_domain_is_damage() {
    let store = store(64 << 20);
    let (_a, victim) = pool_in(&store, "a", Dedup::Alone);
    let (_b, pool) = pool_in(&store, "b", Dedup::Alone);
    (0..2).for_each(|i| put(&victim, 0, i, 3).unwrap());
    (0..2).for_each(|i| put(&pool, 0, i, 8).unwrap());
    let Ok(stolen @ Entry::Shared(_)) = victim.index().load(IndexSlot(0)) else { panic!("not shared") };
    pool.index().overwrite(IndexSlot(0), stolen);
    assert_eq!(get(&pool, 0, 0), Err(GetError::Damaged));
    pool.flush_page(OBJECT, PageIndex(0)); // takes nothing from the other domain
    (0..2).for_each(|i| assert!(*get(&victim, 0, i).unwrap().unwrap() == page(3)));
    victim.flush_object(OBJECT);
    assert_eq!(victim.index().load(IndexSlot(0)), Ok(Entry::Absent));
}

#[test]
fn r4_a_reference_to_another_cell_of_the_domain_is_damage() {
    let store = store(64 << 20);
    let (_client, pool) = pool_in(&store, "a", Dedup::Alone);
    let noise = |i: u64| (i / 2) as u32 * 5 + 4; // blocks of one size
    (0..100).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    let entry = |i: u32| match pool.index().load(IndexSlot(i)) {
        Ok(Entry::Shared(shared)) => shared,
        other => panic!("page {i} is not shared: {other:?}"),
    };
    let own = entry(0);
    for other in (2..100).step_by(2).map(entry).filter(|other| other.contents != own.contents) {
        assert_eq!(other.block_bytes, own.block_bytes);
        pool.index().overwrite(IndexSlot(0), Entry::Shared(SharedRef { cell: other.cell, ..own }));
        assert_eq!(get(&pool, 0, 0), Err(GetError::Damaged));
    }
    pool.index().overwrite(IndexSlot(0), Entry::Shared(own));
    (0..100).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
}

#[test]
fn r6_opening_a_store_takes_no_reference_into_another_domain() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(64 << 20);
    let domains = [Dedup::Alone, Dedup::Alone, shared_domain(), Dedup::Domain("db".to_owned())];
    let clients: Vec<_> =
        domains.into_iter().enumerate().map(|(i, dedup)| pool_in(&store, &format!("c{i}"), dedup)).collect();
    let noise = |client: usize, i: u64| (client as u64 * 100 + i / 2) as u32 * 5 + 4;
    for (client, (_, pool)) in clients.iter().enumerate() {
        (0..20).for_each(|i| put(pool, 0, i, noise(client, i)).unwrap());
    }
    // Every client's page 0 refers to what is another client's, of the same size, before and after it in the order of opening.
    let stolen: Vec<_> = clients.iter().map(|(_, pool)| pool.index().load(IndexSlot(2)).unwrap()).collect();
    for (client, (_, pool)) in clients.iter().enumerate() {
        pool.index().overwrite(IndexSlot(0), stolen[(client + 1) % clients.len()]);
        pool.index().overwrite(IndexSlot(19), stolen[(client + 3) % clients.len()]);
    }
    store.detach();
    drop((store, clients));
    let (store, recovery) = keeper.open(64 << 20);
    assert_eq!(recovery.damaged_pages, 8);
    for client in 0..4 {
        let pool = store.client(&format!("c{client}")).unwrap().pools().remove(0);
        [0, 19].iter().for_each(|i| assert_eq!(get(&pool, 0, *i), Err(GetError::Damaged), "client {client}"));
        for i in 1..19 {
            assert!(
                *get(&pool, 0, i).unwrap().unwrap() == page(noise(client, i)),
                "page {i} of client {client}"
            );
        }
    }
    assert_books(&store);
}

#[test]
fn r1_what_pages_share_is_found_again_though_the_domain_has_no_numbers_left_for_them() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(64 << 20);
    let half = Keys::Flat { pages: 1 << 28 };
    let client = |name: &str| {
        let client = store
            .create_client(ClientOptions { dedup: shared_domain(), ..client_options(name, None) })
            .unwrap();
        let pool = client.create_pool(Persistence::Persistent, half).unwrap();
        (client, pool)
    };
    // Two take all numbers; a third gets none, and a fourth those of the first, which goes. When the store is opened the third comes
    // before the fourth.
    let [first, _second, (_, third)] = ["first", "second", "third"].map(client);
    store.remove_client(&first.0).unwrap();
    drop(first);
    let (_, fourth) = client("fourth");
    for pool in [&fourth, &third] {
        (0..100).for_each(|i| put(pool, 0, i, seed(i % 10)).unwrap());
    }
    let shared: Vec<_> = store.clients().iter().map(|client| client.dedup_pages).collect();
    assert_eq!(shared, [0, 0, 100]);
    store.detach();
    drop((store, third, fourth));
    let (store, recovery) = keeper.open(64 << 20);
    assert_eq!((recovery.found_pages, recovery.damaged_pages), (200, 0));
    for name in ["third", "fourth"] {
        let pool = store.client(name).unwrap().pools().remove(0);
        (0..100)
            .for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(seed(i % 10)), "{name} {i}"));
        pool.flush_object(OBJECT);
    }
    assert_books(&store);
}

#[test]
fn a_client_without_dedup_shares_nothing() {
    let store = store(64 << 20);
    let (client, pool) = pool_in(&store, "a", Dedup::Off);
    (0..100).for_each(|i| put(&pool, 0, i, 3).unwrap());
    assert_eq!(client.usage().dedup_pages, 0);
    assert!(client.usage().compressed_bytes > 100 * 1500);
    pool.flush_object(OBJECT);
    assert_books(&store);
}

#[test]
fn r8_pools_come_into_a_domain_while_its_table_grows() {
    let store = store(64 << 20);
    // So large that tags have two bits and are made anew at every split, for which pages are looked for.
    let client =
        store.create_client(ClientOptions { dedup: shared_domain(), ..client_options("a", None) }).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 1 << 28 }).unwrap();
    thread::scope(|scope| {
        let putting = scope.spawn(|| (0..10_000).for_each(|i| put(&pool, 0, i, i as u32 * 5 + 2).unwrap()));
        for number in 0.. {
            let (client, _pool) = pool_in(&store, &format!("c{number}"), shared_domain());
            store.remove_client(&client).unwrap();
            if putting.is_finished() {
                break;
            }
        }
    });
    (0..10_000).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32 * 5 + 2)));
}

#[test]
fn r1_numbers_get_wider_while_pages_are_shared() {
    let store = store(64 << 20);
    let (_a, pool) = pool_in(&store, "a", shared_domain());
    (0..5_000).for_each(|i| put(&pool, 0, i, seed(i)).unwrap());
    find_all(&store);
    thread::scope(|scope| {
        scope.spawn(|| (0..5_000).for_each(|i| put(&pool, 0, i + 5_000, seed(i)).unwrap()));
        thread::sleep(Duration::from_millis(2));
        let options = ClientOptions { dedup: shared_domain(), ..client_options("large", None) };
        let client = store.create_client(options).unwrap();
        client.create_pool(Persistence::Persistent, Keys::Flat { pages: 1 << 28 }).unwrap();
    });
    assert!(store.clients()[0].dedup_pages > 9_000, "{:?}", store.clients()[0]);
    (0..10_000).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(seed(i % 5_000))));
}

#[test]
fn r6_sharing_gets_no_client_over_its_cap() {
    let store = store(64 << 20);
    let client = store.create_client(client_options("a", Some(1 << 20))).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 40_000 }).unwrap();
    // Each page has a twin for a moment, and then a shared block to itself.
    for i in (0..2000).take_while(|&i| put(&pool, 0, i, i as u32 * 5 + 4).is_ok()) {
        let _may_be_over = put(&pool, 0, i + 20_000, i as u32 * 5 + 4);
        pool.flush_page(OBJECT, PageIndex(i + 20_000));
    }
    assert!(client.usage().used_bytes <= 1 << 20, "{:?}", client.usage());
}

#[test]
fn r1_compaction_moves_shared_blocks() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 20_000);
    for i in 0..3000 {
        put(&pool, 0, i, seed(i)).unwrap();
        if i % 10 == 0 {
            put(&pool, 0, i + 10_000, seed(i)).unwrap();
        }
    }
    (0..3000).filter(|i| i % 10 != 0).for_each(|i| pool.flush_page(OBJECT, PageIndex(i)));
    let before = store.usage().held_bytes;
    assert!(store.compact(Duration::from_secs(60)).moved_pages > 100);
    assert!(store.usage().held_bytes < before / 3);
    assert_books(&store);
    for i in (0..3000).step_by(10) {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(seed(i)));
        assert!(*get(&pool, 0, i + 10_000).unwrap().unwrap() == page(seed(i)));
    }
    pool.flush_object(OBJECT);
    assert_books(&store);
}

#[test]
fn r1_a_fresh_page_shares_the_block_of_a_recompressed_one() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 20_000);
    (0..3000).for_each(|i| put(&pool, 0, i, i as u32 * 5 + 2).unwrap());
    let options = RecompressionOptions { age: Duration::ZERO, ..RecompressionOptions::default() };
    store.set_recompression(options).unwrap();
    let recompressed = store.recompress(Duration::from_secs(60)).recompressed_pages;
    assert!(recompressed > 2500, "{recompressed}");
    find_all(&store);
    let before = store.usage().compressed_bytes;
    (0..3000).for_each(|i| put(&pool, 0, i + 5000, i as u32 * 5 + 2).unwrap());
    assert!(store.clients()[0].dedup_pages > 2 * 2800, "{:?}", store.clients()[0]);
    assert!(store.usage().compressed_bytes < before * 11 / 10);
    (0..3000).for_each(|i| {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32 * 5 + 2));
        assert!(*get(&pool, 0, i + 5000).unwrap().unwrap() == page(i as u32 * 5 + 2));
    });
    assert_books(&store);
    pool.flush_object(OBJECT);
    assert_books(&store);
}

#[test]
fn r4_any_flipped_bit_of_a_shared_block_is_an_error_for_each_of_its_pages() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    (0..2).for_each(|i| put(&pool, 0, i, 3).unwrap());
    let Ok(entry @ Entry::Shared(shared)) = pool.index().load(IndexSlot(0)) else { panic!("not shared") };
    assert_eq!(pool.index().load(IndexSlot(1)), Ok(entry));
    let block = store.engine().shared_blocks.block(shared.cell).unwrap();
    // SAFETY: this thread is the only one that uses the store.
    let bytes = unsafe { store.engine().arena.block(block) }.unwrap();
    let (header, _) = crate::block::read(bytes).unwrap(); // its padding is not read
    for bit in 0..(HEADER_BYTES + usize::from(header.payload_bytes)) * 8 {
        let flip = || {
            // SAFETY: as above.
            let bytes = unsafe { store.engine().arena.block_mut(block) };
            bytes.unwrap()[bit / 8] ^= 1 << (bit % 8);
        };
        flip();
        (0..2).for_each(|i| assert_eq!(get(&pool, 0, i), Err(GetError::Damaged), "page {i}, bit {bit}"));
        flip();
    }
    for bit in 0..64 {
        store.engine().shared_blocks.flip_bit(shared.cell, bit);
        (0..2).for_each(|i| assert_eq!(get(&pool, 0, i), Err(GetError::Damaged), "page {i}, cell bit {bit}"));
        store.engine().shared_blocks.flip_bit(shared.cell, bit);
    }
    (0..2).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(3)));
}

#[test]
fn r4_a_damaged_page_is_nobodys_twin() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    put(&pool, 0, 0, 3).unwrap();
    let Ok(Entry::Block(block)) = pool.index().load(IndexSlot(0)) else { panic!("no block") };
    // SAFETY: this thread is the only one that uses the store.
    unsafe { store.engine().arena.block_mut(block) }.unwrap()[HEADER_BYTES + 7] ^= 1;
    put(&pool, 0, 1, 3).unwrap();
    assert_eq!(get(&pool, 0, 0), Err(GetError::Damaged));
    assert!(*get(&pool, 0, 1).unwrap().unwrap() == page(3));
    assert_eq!(store.clients()[0].dedup_pages, 0);
}

#[test]
fn r7_a_damaged_page_takes_its_place_in_the_table_along() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    put(&pool, 0, 0, 3).unwrap();
    let Ok(Entry::Block(block)) = pool.index().load(IndexSlot(0)) else { panic!("no block") };
    // SAFETY: this thread is the only one that uses the store.
    unsafe { store.engine().arena.block_mut(block) }.unwrap()[..HEADER_BYTES].fill(0xff);
    pool.flush_page(OBJECT, PageIndex(0));
    assert_books(&store);
}

#[test]
fn r7_the_last_pages_of_a_domain_go_at_the_same_moment() {
    let store = store(64 << 20);
    let pools: Vec<_> = (0..2).map(|i| pool_in(&store, &format!("c{i}"), shared_domain()).1).collect();
    for _ in 0..40 {
        // More than the first 4 KiB of the table have room for.
        pools.iter().for_each(|pool| (0..500).for_each(|i| put(pool, 0, i, seed(i)).unwrap()));
        thread::scope(|scope| {
            for pool in &pools {
                scope.spawn(|| pool.flush_object(OBJECT));
            }
        });
        let usage = store.usage();
        assert_eq!((usage.used_bytes, usage.held_bytes), (0, 0));
    }
}

#[test]
fn r1_hints_that_lead_anywhere_harm_nobody() {
    let store = store(64 << 20);
    let (client, pool) = pool_in(&store, "a", shared_domain());
    let (_other, other_pool) = pool_in(&store, "b", shared_domain());
    (0..200).for_each(|i| put(&pool, 0, i, seed(i)).unwrap());
    (0..100).for_each(|i| put(&other_pool, 0, i * 50, seed(i + 500)).unwrap());
    let domain = client.domain(Persistence::Persistent).unwrap();
    for i in 0..200 {
        let crc = pool.payload_crc(IndexSlot(i as u32)).unwrap();
        // The page itself, others, both ends of the pools' numbers, none.
        for number in [i as u32, 0, 199, 9_999, 10_000, 10_239, 10_240, 10_290, 20_479, 20_480, (1 << 20) - 1]
        {
            domain.remember(crc, number, IfFull::Displace);
            put(&other_pool, 0, 7_000 + i, seed(i)).unwrap();
            assert!(*get(&other_pool, 0, 7_000 + i).unwrap().unwrap() == page(seed(i)));
        }
    }
    (0..200).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(seed(i))));
    (0..100).for_each(|i| assert!(*get(&other_pool, 0, i * 50).unwrap().unwrap() == page(seed(i + 500))));
    assert_books(&store);
    [&pool, &other_pool].iter().for_each(|pool| pool.flush_object(OBJECT));
    assert_books(&store);
}

#[test]
fn r1_threads_that_store_the_same_pages_never_lose_one() {
    let store = store(64 << 20);
    let pools: Vec<_> = (0..2).map(|i| pool_in(&store, &format!("c{i}"), shared_domain())).collect();
    thread::scope(|scope| {
        for number in 0..4u64 {
            let (pool, store) = (pools[number as usize % 2].1.clone(), &store);
            scope.spawn(move || {
                let mut state = number + 1;
                let mut known = vec![None; 300];
                for step in 0..6_000 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number * 2 + 1);
                    let (slot, kind) = ((state >> 33) % 300, (state >> 20) % 10);
                    let index = number * 300 + slot;
                    match kind {
                        0..5 => {
                            let seed = (state >> 48) as u32 % 25;
                            put(&pool, 0, index, seed).unwrap();
                            known[slot as usize] = Some(seed);
                        }
                        5..7 => {
                            pool.flush_page(OBJECT, PageIndex(index));
                            known[slot as usize] = None;
                        }
                        _ => {
                            let found = get(&pool, 0, index).unwrap().map(|page| page.to_vec());
                            let expected = known[slot as usize].map(|seed| page(seed).to_vec());
                            assert!(found == expected, "page {index} at step {step}");
                        }
                    }
                    if step % 1000 == 0 {
                        store.compact(Duration::from_millis(5));
                    }
                }
                for (slot, seed) in known.into_iter().enumerate() {
                    let found = get(&pool, 0, number * 300 + slot as u64).unwrap().map(|page| page.to_vec());
                    assert!(found == seed.map(|seed| page(seed).to_vec()), "page {slot} at the end");
                }
            });
        }
    });
    assert_books(&store);
    pools.iter().for_each(|(_, pool)| pool.flush_object(OBJECT));
    assert_books(&store);
}
