//! Random sessions with libraries that die at random moments, against the same session with one library.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod model;

use model::{Death, PROTOCOL, REPLY_ACK, Sent, check};
use proptest::prelude::*;

fn number(code: u32, number: u64) -> Sent {
    Sent { code, flags: 1, payload: number.to_ne_bytes().to_vec(), descriptors: Vec::new() }
}

fn ring(code: u32, ring: u32, value: u32) -> Sent {
    number(code, u64::from(ring) | u64::from(value) << 32)
}

/// One of eight regions. The first four do not overlap.
fn region(which: u64, base: u64) -> Vec<u8> {
    let start = if which < 4 { which * 0x10000 } else { which * 0x5000 };
    [start, 0x8000 + (which & 4) * 0x1000, base + start, 0].map(u64::to_ne_bytes).concat()
}

fn lone(code: u32, which: u64, base: u64, descriptors: Vec<usize>) -> Sent {
    let payload = [vec![0; 8], region(which, base)].concat();
    Sent { code, flags: 1, payload, descriptors }
}

const BASE: u64 = 0x7000_0000;

fn any_message() -> impl Strategy<Value = Sent> {
    let protocol = prop_oneof![
        3 => Just(REPLY_ACK | 0x8221),
        1 => 0u64..1 << 16,
    ];
    let features =
        prop_oneof![4 => (0u64..8).prop_map(|bits| bits | PROTOCOL), 1 => 0u64..8, 1 => any::<u64>()];
    let files =
        || prop_oneof![8 => prop::collection::vec(0usize..4, 1), 1 => prop::collection::vec(0usize..4, 0..3)];
    let bare = prop::sample::select(vec![1u32, 3, 4, 15, 17, 36, 43]);
    let message = prop_oneof![
        4 => bare.prop_map(|code| Sent { code, flags: 1, payload: Vec::new(), descriptors: Vec::new() }),
        2 => features.prop_map(|features| number(2, features)),
        2 => protocol.prop_map(|protocol| number(16, protocol)),
        3 => prop::collection::vec((0u64..8, 0usize..4), 0..4).prop_map(|regions| {
            let table = regions.iter().flat_map(|(which, _)| region(*which, BASE));
            let payload = (regions.len() as u64).to_ne_bytes().into_iter().chain(table).collect();
            let descriptors = regions.iter().map(|(_, file)| *file).collect();
            Sent { code: 5, flags: 1, payload, descriptors }
        }),
        4 => (0u64..8, files()).prop_map(|(which, files)| lone(37, which, BASE, files)),
        2 => (0u64..8, any::<bool>()).prop_map(|(which, odd)| {
            lone(38, which, BASE + u64::from(odd) * 0x1000, Vec::new())
        }),
        3 => (0u32..5, prop::sample::select(vec![0, 1, 64, 100, 256, 257])).prop_map(|(at, size)| ring(8, at, size)),
        3 => (0u32..5, any::<u32>()).prop_map(|(at, base)| ring(10, at, base)),
        4 => (0u32..5, 0u64..4, 0u64..9).prop_map(|(at, which, page)| {
            let base = BASE + which * 0x10000 + page * 0x1000;
            let parts = [u64::from(at), base, base + 4, base + 8, 0].map(u64::to_ne_bytes);
            Sent { code: 9, flags: 1, payload: parts.concat(), descriptors: Vec::new() }
        }),
        3 => (0u32..5).prop_map(|at| ring(11, at, 0)),
        8 => (12u32..15, 0u64..5, prop::bool::weighted(0.2), files()).prop_map(|(code, at, none, files)| {
            let descriptors = if none { Vec::new() } else { files };
            Sent { descriptors, ..number(code, at | u64::from(none) << 8) }
        }),
        4 => (0u32..5, prop_oneof![6 => 0u32..2, 1 => 0u32..4]).prop_map(|(at, enable)| ring(18, at, enable)),
        2 => files().prop_map(|descriptors| Sent { code: 21, flags: 1, payload: Vec::new(), descriptors }),
        1 => prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|payload| Sent { code: 24, flags: 1, payload, descriptors: Vec::new() }),
        2 => (0u32..48, prop::collection::vec(any::<u8>(), 0..100), prop::collection::vec(0usize..4, 0..3))
            .prop_map(|(code, payload, descriptors)| Sent { code, flags: 1, payload, descriptors }),
    ];
    let flags = prop_oneof![5 => Just(1u32), 4 => Just(9), 1 => 0u32..32];
    (message, flags).prop_map(|(message, flags)| Sent { flags, ..message })
}

fn any_death() -> impl Strategy<Value = (usize, Death)> {
    let ways =
        prop::sample::select(vec![Death::Unread, Death::Unanswered, Death::HalfAnswered, Death::Answered]);
    (0usize..40, ways)
}

/// `PROPTEST_CASES` says how many, for longer runs.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r1_a_guest_and_its_last_library_never_learn_of_deaths(
        // Most sessions begin with an agreement, so that acknowledgements are common.
        agreed in any::<bool>(),
        messages in prop::collection::vec(any_message(), 0..60),
        wrong in prop::option::of(any_message()),
        deaths in prop::collection::vec(any_death(), 0..8),
        piece in prop_oneof![Just(4096usize), 1usize..20],
    ) {
        let bare = |code| Sent { code, flags: 1, payload: Vec::new(), descriptors: Vec::new() };
        let agreement = [bare(1), number(16, REPLY_ACK | 0x8221), bare(3), number(2, PROTOCOL)];
        let messages: Vec<Sent> = agreement.into_iter().filter(|_| agreed).chain(messages).collect();
        check(&messages, wrong.as_ref(), &deaths, piece);
    }
}
