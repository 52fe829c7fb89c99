//! Pages with equal contents share a block, within a dedup domain.
//!
//! A domain's [table](table) leads from a payload's checksum to pages that may have the same contents. A put that finds one and
//! compares equal, byte for byte, gets no block of its own: both pages' index entries then name a cell of the [shared
//! blocks](shared_blocks), and the cell says where the block is. Domains have nothing in common but the arena, so that what one of
//! them does tells nothing about the pages of another.

mod bucket;
mod cells;
mod domain;
mod place;
mod shared_blocks;
mod table;

pub(crate) use domain::{Domain, DomainId, DomainScope, DomainUsage, NumberRange};
pub(crate) use shared_blocks::{Homes, SHARED_POOL, SharedBlocks};
pub(crate) use table::IfFull;
