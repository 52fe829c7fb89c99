//! Random calls of a worker, against a model of what the keeper holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod calls;

use calls::{
    ADDRESSES, ADOPT, ATTACH, BIND, BIND_TCP, CLOSE, Call, KEEP, LIST, OPEN_TIER, RELEASE, Thing, UNBIND,
    check, is_call,
};
use proptest::prelude::*;

fn any_call() -> impl Strategy<Value = Call> {
    let code = prop_oneof![
        8 => prop::sample::select(vec![LIST, KEEP, RELEASE, ADOPT, ADOPT, ATTACH, CLOSE, BIND, BIND, UNBIND, BIND_TCP, OPEN_TIER]),
        1 => any::<u8>(),
    ];
    let name = prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c"]).prop_map(|name| name.as_bytes().to_vec()),
        2 => prop::sample::select(ADDRESSES.to_vec()).prop_map(|(address, _)| address.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    let number = prop_oneof![8 => 0u32..6, 1 => any::<u32>()];
    let thing = || prop::sample::select(Thing::ALL.to_vec());
    let errands = prop::collection::vec(prop_oneof![4 => Just(Thing::Answers), 1 => thing()], 1);
    let things = prop_oneof![4 => prop::collection::vec(thing(), 2..4), 4 => errands, 1 => prop::collection::vec(thing(), 0..40)];
    (code, number, name, things).prop_map(|(code, number, name, things)| Call::Whole {
        code,
        number,
        name,
        things,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn r4_whatever_a_worker_says_the_keeper_holds_what_it_should(
        mut calls in prop::collection::vec(any_call(), 0..60),
        last in prop::option::weighted(0.2, (0usize..400).prop_filter("no call", |bytes| !is_call(*bytes))),
    ) {
        calls.extend(last.map(Call::Bytes));
        check(&calls);
    }
}
