//! What peers say to each other, to bytes and back: docs/protocol.md, version 2.
//!
//! Nothing here allocates by what a peer says: messages are read where they lie, in the one buffer of a [`FrameReader`], which never
//! becomes larger than a frame may be.
//!
//! | file | job |
//! |---|---|
//! | `hello` | the handshake |
//! | `frame` | headers and checksums |
//! | `reader` | frames out of a stream |
//! | `message` | payloads that come |
//! | `encode` | frames that go |
//! | `lists`, `gets` | the lists in them |
//! | `runs` | stretches of an extent |
//! | `fields` | numbers in a row |
//! | `error` | what is wrong with what was said |

mod encode;
mod error;
mod fields;
mod frame;
mod gets;
mod hello;
mod lists;
mod message;
mod reader;
mod runs;

pub use encode::Encoder;
pub use error::WireError;
pub use frame::{Frame, MAX_PAYLOAD_BYTES};
pub use gets::{Get, Gets, Gots, MAX_GETS, MAX_GOT_BYTES};
pub use hello::{HELLO_BYTES, Hello, VERSION};
pub use lists::{
    Copies, Dead, Fetched, Flushes, Listed, MAX_COPIES, MAX_FLUSHED_RUNS, MAX_FLUSHES, MAX_PUTS, Put, Puts,
};
pub use message::{Message, PutResult, PutResults, Reason};
pub use reader::FrameReader;
pub use runs::{MAX_RUNS, RUN_UNIT_BYTES, Run, Runs};
