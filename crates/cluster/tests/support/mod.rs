//! What the tests share.
#![allow(dead_code, clippy::unwrap_used)] // tests, and none of them uses all of it

pub mod again;
pub mod borrower;
pub mod keeper;
pub mod lenders;
