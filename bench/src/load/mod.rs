//! Random 4 KiB requests to any disk, whatever is between: fill, measure, verify.
//!
//! | file | job |
//! |---|---|
//! | `args` | what the command line says of it |
//! | `measure` | the run from the first request to the last |
//! | `content` | the pages to write |
//! | `requests` | which request comes next, and what the disk should hold |
//! | `phase` | the figures |
//!
//! What carries the requests is a [`Target`].

mod args;
mod content;
mod measure;
mod phase;
mod requests;

pub use args::LoadArgs;
pub(crate) use content::Content;
pub(crate) use measure::{measure, print};
pub use phase::Phase;
pub(crate) use phase::{table, verdict};
use requests::Load;

#[cfg(test)]
pub(crate) use phase::tests::sample as phase_sample;

use crate::error::BenchError;

/// How long a server may take for any request before the run is given up.
pub(crate) const ANSWER_SECONDS: u64 = 10;

/// How the benchmark learns that a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Completion {
    /// Look for answers without pause: measures the server alone.
    Poll,
    /// Sleep until the server notifies, as a guest does.
    Event,
}

impl Completion {
    /// In a sentence.
    pub(crate) fn adjective(self) -> &'static str {
        match self {
            Completion::Poll => "polled",
            Completion::Event => "notified",
        }
    }
}

/// What a slot asks of the disk; blocks are pages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Read a block into the slot's buffer.
    Read { block: u64 },
    /// Write a page of the content.
    Write { block: u64, page: u32 },
}

impl Request {
    pub(crate) fn block(self) -> u64 {
        match self {
            Request::Read { block } | Request::Write { block, .. } => block,
        }
    }

    pub(crate) fn operation(self) -> &'static str {
        match self {
            Request::Read { .. } => "read",
            Request::Write { .. } => "write",
        }
    }
}

/// An answered request: its slot, and 0 or an error number.
pub(crate) struct Done {
    pub(crate) slot: usize,
    pub(crate) status: i32,
}

/// A disk with slots for requests, each with a buffer of a page, and with the pages to write.
pub(crate) trait Target {
    /// How many pages of content there are.
    fn content_pages(&self) -> usize;
    /// Whether the buffer of a slot holds a page of the content. The slot's read must be done.
    fn holds(&self, slot: usize, page: usize) -> bool;
    /// Fills the buffer of a slot with a byte that the disk will have to overwrite.
    fn soil(&mut self, slot: usize);
    /// Gets a request ready. The slot must have no other in flight.
    fn submit(&mut self, slot: usize, request: Request) -> Result<(), BenchError>;
    /// Sends off what was submitted.
    fn announce(&mut self) -> Result<(), BenchError>;
    /// Takes what is done, without waiting.
    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), BenchError>;
    /// Sleeps until something may be done. False when nothing was in time.
    fn sleep(&mut self) -> Result<bool, BenchError>;
}
