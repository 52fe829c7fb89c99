//! The layout of the memory files, in numbers: a store is only opened by a version that agrees on all of them.

use crate::{
    age_table::AGE_TABLE_WORDS,
    block::{ALIGN_BYTES, HEADER_BYTES, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES},
    entry::MAX_ARENA_BYTES,
    extents::EXTENT_BYTES,
    index::INDEX_PAGE_BYTES,
    leaf_records::LEAF_RECORD_WORDS,
    records::{CLIENT_WORDS, POOL_WORDS},
};

/// Raised with every change of what any bit of a memory file means that none of the numbers below shows.
const LAYOUT_VERSION: u64 = 5;

/// "tmem" and a mark that shows the byte order.
const MAGIC: u64 = 0x746d_656d_0102_0304;

/// What the catalog's header holds, one word each.
pub(crate) const LAYOUT: [(&str, u64); 12] = [
    ("the mark of a tmem store", MAGIC),
    ("layout version", LAYOUT_VERSION),
    ("bytes of the arena", MAX_ARENA_BYTES),
    ("bytes of an extent", EXTENT_BYTES as u64),
    ("bytes of a block's header", HEADER_BYTES as u64),
    ("bytes that blocks are aligned to", ALIGN_BYTES as u64),
    ("bytes of the shortest and the longest block", (MIN_BLOCK_BYTES as u64) << 32 | MAX_BLOCK_BYTES as u64),
    ("bytes of a page of an index", INDEX_PAGE_BYTES),
    ("bytes of a leaf's record", LEAF_RECORD_WORDS as u64 * 8),
    ("bytes of a client's record", CLIENT_WORDS as u64 * 8),
    ("bytes of a client's ages", AGE_TABLE_WORDS as u64 * 8),
    ("bytes of a pool's record", POOL_WORDS as u64 * 8),
];
