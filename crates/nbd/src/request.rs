//! The header of a request, read.

use crate::{
    handshake::Headers,
    protocol::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC, command, command_flag},
};

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset_bytes: u64,
    /// How much of the export it is about. With a payload, as much as that.
    pub(crate) len_bytes: u64,
    /// How many bytes follow the header.
    pub(crate) payload_bytes: u64,
}

/// What came is no request. Where the next one begins is then unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRequest;

impl Request {
    /// How long a header is, in bytes.
    pub(crate) fn header_bytes(headers: Headers) -> usize {
        if headers == Headers::Extended { 32 } else { 28 }
    }

    /// Reads the header that `bytes` begin with. None: it is not all there yet.
    pub(crate) fn read(bytes: &[u8], headers: Headers) -> Result<Option<Self>, NoRequest> {
        let extended = headers == Headers::Extended;
        let Some(header) = bytes.get(..Self::header_bytes(headers)) else { return Ok(None) };
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u64::from(half(at)) << 16 | u64::from(half(at + 2));
        let double = |at: usize| word(at) << 32 | word(at + 4);
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        if word(0) != u64::from(magic) {
            return Err(NoRequest);
        }
        let (flags, command) = (half(4), half(6));
        let len_bytes = if extended { double(24) } else { word(24) };
        // A write always carries what it writes. With extended headers it is to say so by a flag, which QEMU's client does not.
        let flagged = extended && flags & command_flag::PAYLOAD_LEN != 0;
        let has_payload = command == command::WRITE || flagged;
        Ok(Some(Self {
            flags,
            command,
            cookie: double(8),
            offset_bytes: double(16),
            len_bytes,
            payload_bytes: if has_payload { len_bytes } else { 0 },
        }))
    }

    /// Whether its flags are among these.
    pub(crate) fn has_only(&self, flags: u16) -> bool {
        self.flags & !flags == 0
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(extended: bool, flags: u16, command: u16, cookie: u64, offset: u64, len: u64) -> Vec<u8> {
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        if extended {
            bytes.extend(len.to_be_bytes());
        } else {
            bytes.extend((len as u32).to_be_bytes());
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(extended: bool, flags: u16, command in 0..9u16, cookie: u64, offset_bytes: u64, len: u64) {
            let headers = if extended { Headers::Extended } else { Headers::Structured };
            let bytes = header(extended, flags, command, cookie, offset_bytes, len);
            let len_bytes = if extended { len } else { len & 0xffff_ffff };
            let has_payload = command == command::WRITE || (extended && flags & command_flag::PAYLOAD_LEN != 0);
            let payload_bytes = if has_payload { len_bytes } else { 0 };
            let request = Request { flags, command, cookie, offset_bytes, len_bytes, payload_bytes };
            prop_assert_eq!(Request::read(&bytes, headers), Ok(Some(request)));
            prop_assert_eq!(Request::read(&bytes[..bytes.len() - 1], headers), Ok(None));
        }
    }

    #[test]
    fn the_other_magic_is_no_request() {
        let bytes = header(false, 0, 0, 1, 2, 3);
        assert_eq!(Request::read(&[bytes, vec![0; 4]].concat(), Headers::Extended), Err(NoRequest));
        assert_eq!(Request::read(&header(true, 0, 0, 1, 2, 3), Headers::Simple), Err(NoRequest));
    }
}
