//! How the bytes of a connection come and go, whatever is beneath.

use std::io;

/// Whether to wait for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Until there are some.
    Yes,
    /// Not at all: `WouldBlock` where there are none.
    No,
}

/// A stream of bytes both ways.
pub trait Link {
    /// Takes some of the bytes that have come; 0 says that none will come any more. `buffer` is not empty.
    ///
    /// # Errors
    /// `WouldBlock` as asked for; anything else ends the connection.
    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> io::Result<usize>;

    /// Sends all of these bytes.
    ///
    /// # Errors
    /// Any ends the connection.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Fills `buffer` and takes not a byte more. Errors: `UnexpectedEof` where the bytes end before.
pub(crate) fn receive_exactly(link: &mut impl Link, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match link.receive(&mut buffer[filled..], Wait::Yes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => filled += received,
        }
    }
    Ok(())
}
