//! Frames: a header that proves itself, and a payload that the header proves.

use super::{error::WireError, fields::Fields};

/// Before the payload, in bytes.
pub(super) const HEADER_BYTES: usize = 24;

/// The longest payload, in bytes: room for a put of 16 whole extents with the most runs.
pub const MAX_PAYLOAD_BYTES: usize = 2_359_296;

/// A frame whose checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which message it is.
    pub kind: u16,
    /// Which request it is, or answers.
    pub id: u64,
    /// What it says.
    pub payload: &'a [u8],
}

/// A header whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    payload_bytes: usize,
    kind: u16,
    id: u64,
    payload_crc: u32,
}

impl Header {
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        const DAMAGED: WireError = WireError::Damaged("header");
        let mut fields = Fields::of(bytes);
        let mut read = || {
            Some((fields.u32()?, fields.u16()?, fields.u16()?, fields.u64()?, fields.u32()?, fields.u32()?))
        };
        let (payload_bytes, kind, zero, id, payload_crc, crc) = read().ok_or(DAMAGED)?;
        if crc != crc32c::crc32c(&bytes[..HEADER_BYTES - 4]) || zero != 0 {
            return Err(DAMAGED);
        }
        if payload_bytes as usize > MAX_PAYLOAD_BYTES {
            return Err(WireError::TooLong(payload_bytes));
        }
        Ok(Header { payload_bytes: payload_bytes as usize, kind, id, payload_crc })
    }
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, and what it takes of them. `Err` within: so many bytes are needed from the start on.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Result<(Frame<'a>, usize), usize>, WireError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Err(HEADER_BYTES));
        };
        let header = Header::decode(header)?;
        let frame_bytes = HEADER_BYTES + header.payload_bytes;
        let Some(payload) = rest.get(..header.payload_bytes) else { return Ok(Err(frame_bytes)) };
        if crc32c::crc32c(payload) != header.payload_crc {
            return Err(WireError::Damaged("payload"));
        }
        Ok(Ok((Frame { kind: header.kind, id: header.id, payload }, frame_bytes)))
    }
}

/// Leaves room for a header at the end of `out`; [`end`] fills it in.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    start
}

/// Writes the header of the frame that began at `start` and ends with `out`.
pub(super) fn end(out: &mut [u8], start: usize, kind: u16, id: u64) {
    let (header, payload) = out[start..].split_at_mut(HEADER_BYTES);
    debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES);
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..6].copy_from_slice(&kind.to_le_bytes());
    header[8..16].copy_from_slice(&id.to_le_bytes());
    header[16..20].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut bytes = vec![0xaa; 3];
        let start = begin(&mut bytes);
        bytes.extend(b"payload");
        end(&mut bytes, start, 77, 1 << 63);
        bytes.split_off(3)
    }

    #[test]
    fn a_frame_says_what_it_needs_and_then_what_was_said() {
        let bytes = example();
        for len in 0..bytes.len() {
            let needed = if len < HEADER_BYTES { HEADER_BYTES } else { bytes.len() };
            assert_eq!(Frame::decode(&bytes[..len]), Ok(Err(needed)), "{len} bytes");
        }
        let frame = Frame { kind: 77, id: 1 << 63, payload: b"payload" };
        assert_eq!(Frame::decode(&bytes), Ok(Ok((frame, bytes.len()))));
    }

    #[test]
    fn r4_every_flipped_bit_is_found_at_once() {
        let whole = example();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&bytes).is_err(), "bit {bit}");
            // A wrong length is not waited for.
            if bit < HEADER_BYTES * 8 {
                assert!(Frame::decode(&bytes[..HEADER_BYTES]).is_err(), "bit {bit} of the header alone");
            }
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_though_its_checksum_is_right() {
        let mut bytes = example();
        let long = MAX_PAYLOAD_BYTES as u32 + 1;
        bytes[..4].copy_from_slice(&long.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Frame::decode(&bytes), Err(WireError::TooLong(long)));
    }
}
