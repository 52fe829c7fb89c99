//! The store as a whole, held against plain models. Tests named `r1_` to `r7_` guard the rules of docs/design.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod damage;
mod dedup;
mod garbage;
mod get_many;
mod killed;
mod model;
pub(crate) mod pages;
mod recompression;
mod reopen;
mod room;
mod rules;
mod settings;
mod shares;
mod stock;
pub(crate) mod test_tier;
mod threads;
mod tier_blocks;
mod tier_room;
mod tiers;
mod zeroing;
