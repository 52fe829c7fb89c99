//! The same for two clients in one dedup domain, whose pages share blocks across them.

use super::super::test_tier::TestTier;
use super::*;

/// Some pages of client 3, and some of client 4 with the same contents and with others.
fn shared_pages() -> Vec<Step> {
    let own = |pool, index: u64, seed| Step::Put { key: (pool, 0, index), seed };
    (0..30)
        .map(|i| own(3, i, i as u32 * 5 + 3))
        .chain((0..20).map(|i| own(4, i + 100, i as u32 * 5 + 3)))
        .chain((20..30).map(|i| own(4, i + 100, i as u32 * 5 + 4)))
        .collect()
}

fn twin(pool: usize, index: u64, of: u32) -> Step {
    Step::Put { key: (pool, 0, index), seed: of * 5 + 3 }
}

#[test]
fn clients_of_the_domain_do_share() {
    let mut model = Model::new(TestTier::new(24));
    let mut world = model.start();
    shared_pages().iter().for_each(|step| model.run(&mut world, step));
    let dedup_pages = |world: &World, pool: usize| world.clients[pool].0.usage().dedup_pages;
    assert_eq!((dedup_pages(&world, 3), dedup_pages(&world, 4)), (20, 20));
    model.run(&mut world, &Step::RemoveClient { pool: 3 });
    assert_eq!((dedup_pages(&world, 3), dedup_pages(&world, 4)), (0, 20));
    world.store.detach();
    drop(world);
    let mut world = model.open(&mut 1);
    model.check(&world);
    // They are one domain again, and what was shared can be found.
    model.run(&mut world, &twin(3, 7, 5));
    model.run(&mut world, &twin(4, 8, 5));
    assert_eq!((dedup_pages(&world, 3), dedup_pages(&world, 4)), (1, 21));
    model.check(&world);
    assert_everything_goes_back(&world);
}

#[test]
fn r1_no_operation_on_pages_that_clients_share_can_be_cut_in_two() {
    let shared = shared_pages();
    let flush = |pool, start, end| Step::Flush { pool, object: 0, start, end };
    for step in [
        // Two pages come to share a block, a third comes.
        twin(4, 125, 25),
        twin(3, 26, 20),
        twin(4, 200, 5),
        twin(3, 200, 5),
        // One of them gets other contents, or those of another shared block.
        Step::Put { key: (3, 0, 5), seed: 4 },
        Step::Put { key: (4, 0, 105), seed: 0 },
        twin(4, 105, 6),
        flush(3, 5, 6),
        flush(3, 0, 1000),
        flush(4, 0, 1000),
        Step::DestroyPool { pool: 3 },
        Step::DestroyPool { pool: 4 },
        Step::RemoveClient { pool: 3 },
        Step::RemoveClient { pool: 4 },
    ] {
        die_everywhere_in(&shared, &step);
    }
}

#[test]
fn r1_what_a_client_that_is_gone_shared_stays_with_the_other() {
    for gone in [Step::RemoveClient { pool: 3 }, Step::DestroyPool { pool: 3 }] {
        let left: Vec<_> = shared_pages().into_iter().chain([gone]).collect();
        for step in [
            twin(3, 5, 5),
            twin(4, 200, 5),
            Step::Put { key: (4, 0, 105), seed: 4 },
            Step::Flush { pool: 4, object: 0, start: 105, end: 106 },
            Step::Flush { pool: 4, object: 0, start: 0, end: 1000 },
            Step::DestroyPool { pool: 4 },
            Step::RemoveClient { pool: 4 },
        ] {
            die_everywhere_in(&left, &step);
        }
    }
}

/// Whether compaction moves shared blocks after these steps.
fn moves_shared_blocks(steps: &[Step]) -> bool {
    let mut model = Model::new(TestTier::new(24));
    let mut world = model.start();
    steps.iter().for_each(|step| model.run(&mut world, step));
    let blocks = |world: &World| {
        let shared_blocks = &world.store.engine().shared_blocks;
        (0..36).map(|cell| shared_blocks.block(IndexSlot(cell))).collect::<Vec<_>>()
    };
    let before = blocks(&world);
    model.run(&mut world, &Step::Compact);
    model.check(&world);
    blocks(&world)
        .into_iter()
        .zip(before)
        .any(|(now, before)| before.is_some() && now.is_some() && now != before)
}

/// Compaction moves blocks that clients share, after one of them has gone or forgotten most of its pages.
#[test]
fn r1_shared_blocks_are_moved_whole_or_not_at_all() {
    let put = |pool, index: u64, seed: u64| Step::Put { key: (pool, 0, index), seed: seed as u32 * 5 + 3 };
    // Every fifth page of client 3 is one of client 4's as well.
    let full: Vec<_> =
        (0..180).flat_map(|i| [put(3, i, i), put(4, i, if i % 5 == 0 { i } else { i + 1000 })]).collect();
    for gone in [
        vec![Step::RemoveClient { pool: 3 }],
        vec![
            Step::Flush { pool: 3, object: 0, start: 10, end: 1000 },
            Step::Flush { pool: 4, object: 0, start: 0, end: 120 },
        ],
    ] {
        let half_dead: Vec<_> = full.iter().cloned().chain(gone).collect();
        assert!(moves_shared_blocks(&half_dead));
        die_everywhere_in(&half_dead, &Step::Compact);
        die_everywhere_in(&half_dead, &Step::Recompress);
    }
}
