//! What the tests share.
#![allow(dead_code)] // no test uses all of it

pub mod again;
pub mod lenders;
