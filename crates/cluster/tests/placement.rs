//! Where copies go, whatever nodes there are.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use tmem_cluster::{
    NodeId,
    placement::{Offer, Placement},
};

const EXTENT: u64 = 128 << 10;

fn offer() -> impl Strategy<Value = Offer> {
    (0u64..6, proptest::option::of(0u8..4), prop::bool::weighted(0.2)).prop_map(
        |(extents, domain, is_leaving)| Offer {
            free_bytes: extents * EXTENT + extents,
            domain: domain.map(|label| format!("rack {label}")),
            is_leaving,
        },
    )
}

/// A node's failure domain, as somebody else would write it down.
fn domain(node: NodeId, offers: &BTreeMap<NodeId, Offer>) -> String {
    offers.get(&node).and_then(|offer| offer.domain.clone()).unwrap_or_else(|| format!("{node}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn copies_are_apart_and_only_where_there_is_room(
        offers in vec(offer(), 1..12),
        seed in any::<u64>(),
        questions in vec((1usize..5, vec(1u64..13, 0..3), vec(1u64..13, 0..3)), 1..30),
    ) {
        let mut offers: BTreeMap<NodeId, Offer> = (1..).map(NodeId).zip(offers).collect();
        let mut placement = Placement::new(seed);
        offers.iter().for_each(|(node, offer)| placement.set_offer(*node, offer));
        for (copies, holders, others) in questions {
            let holders: Vec<NodeId> = holders.into_iter().map(NodeId).collect();
            let others: Vec<NodeId> = others.into_iter().map(NodeId).collect();
            let eligible: Vec<NodeId> = offers
                .iter()
                .filter(|(_, offer)| !offer.is_leaving && offer.free_bytes >= EXTENT)
                .map(|(node, _)| *node)
                .filter(|node| !holders.contains(node) && !others.contains(node))
                .collect();
            let Some(chosen) = placement.choose(copies, EXTENT, &holders, &others) else {
                prop_assert!(eligible.len() < copies);
                continue;
            };
            prop_assert_eq!(chosen.len(), copies);
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), copies, "two on a node");
            prop_assert!(chosen.iter().all(|node| eligible.contains(node)));
            // As many domains as can be had.
            let held: BTreeSet<String> = holders.iter().map(|node| domain(*node, &offers)).collect();
            let all: BTreeSet<String> =
                eligible.iter().map(|node| domain(*node, &offers)).filter(|domain| !held.contains(domain)).collect();
            let new: BTreeSet<String> =
                chosen.iter().map(|node| domain(*node, &offers)).filter(|domain| !held.contains(domain)).collect();
            prop_assert_eq!(new.len(), copies.min(all.len()));
            for node in chosen {
                let offer = offers.get_mut(&node).unwrap();
                offer.free_bytes -= EXTENT;
                prop_assert_eq!(placement.free_bytes(node), offer.free_bytes);
            }
        }
    }

    #[test]
    fn a_seed_says_it_all(seed in any::<u64>()) {
        let choose = || {
            let mut placement = even(16, seed);
            (0..50).map(|_| placement.choose(2, EXTENT, &[], &[]).unwrap()).collect::<Vec<_>>()
        };
        prop_assert_eq!(choose(), choose());
    }

    // With one draw instead of two they would be some 65 extents apart (3.5 standard deviations of 375).
    #[test]
    fn equal_nodes_get_nearly_the_same(seed in any::<u64>(), copies in 1usize..=3) {
        let mut placement = even(16, seed);
        for _ in 0..6000 / copies {
            placement.choose(copies, EXTENT, &[], &[]).unwrap();
        }
        let free: Vec<u64> = (1..=16).map(|node| placement.free_bytes(NodeId(node)) / EXTENT).collect();
        let apart = free.iter().max().unwrap() - free.iter().min().unwrap();
        prop_assert!(apart <= 20, "{apart} extents apart: {free:?}");
    }
}

fn even(nodes: u64, seed: u64) -> Placement {
    let mut placement = Placement::new(seed);
    let offer = Offer { free_bytes: 4096 * EXTENT, domain: None, is_leaving: false };
    (1..=nodes).for_each(|node| placement.set_offer(NodeId(node), &offer));
    placement
}

// Of two that are drawn evenly both are small ones in three cases of fourteen.
#[test]
fn nodes_with_more_get_more_by_what_two_draws_give() {
    let mut placement = even(8, 1);
    let small = Offer { free_bytes: 1024 * EXTENT, domain: None, is_leaving: false };
    (1..=4).for_each(|node| placement.set_offer(NodeId(node), &small));
    let to_small =
        (0..2000).filter(|_| placement.choose(1, EXTENT, &[], &[]).unwrap()[0] <= NodeId(4)).count();
    assert!((380..480).contains(&to_small), "{to_small} of 2000");
}

#[test]
fn a_node_that_went_is_not_chosen_and_keeps_nobody_from_its_domain() {
    let mut placement = even(2, 1);
    placement.remove(NodeId(1));
    assert_eq!(placement.free_bytes(NodeId(1)), 0);
    for _ in 0..100 {
        assert_eq!(placement.choose(1, EXTENT, &[NodeId(1)], &[]), Some(vec![NodeId(2)]));
    }
    assert_eq!(placement.choose(1, EXTENT, &[], &[NodeId(2)]), None);
}
