//! What the driver asks for, checked.

use crate::{
    abi::{Descriptor, OP_DISCARD, OP_FLUSH, OP_READ, OP_WRITE, OP_WRITE_ZEROES},
    parameters::SECTOR_BYTES,
};

/// A request. Whether it is inside the disk, the disk itself checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Fill the tag's buffer up to `len`.
    Read {
        offset_bytes: u64,
        len: usize,
    },
    /// Store what is in the tag's buffer up to `len`.
    Write {
        offset_bytes: u64,
        len: usize,
    },
    Flush,
    Discard {
        offset_bytes: u64,
        len_bytes: u64,
    },
    WriteZeroes {
        offset_bytes: u64,
        len_bytes: u64,
    },
}

/// Not a request that the device has been described to take. The number is what the driver gets to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused(pub(crate) i32);

impl Request {
    /// Reads a descriptor; `buffer_bytes` is what a tag's buffer has room for.
    pub(crate) fn of(descriptor: Descriptor, buffer_bytes: usize) -> Result<Self, Refused> {
        let offset_bytes = descriptor.start_sector.checked_mul(SECTOR_BYTES).ok_or(Refused(libc::EINVAL))?;
        let len_bytes = u64::from(descriptor.sectors) * SECTOR_BYTES;
        let in_buffer = || usize::try_from(len_bytes).ok().filter(|len| *len <= buffer_bytes);
        let too_long = Refused(libc::EINVAL);
        match descriptor.op() {
            OP_READ => Ok(Self::Read { offset_bytes, len: in_buffer().ok_or(too_long)? }),
            OP_WRITE => Ok(Self::Write { offset_bytes, len: in_buffer().ok_or(too_long)? }),
            OP_FLUSH => Ok(Self::Flush),
            OP_DISCARD => Ok(Self::Discard { offset_bytes, len_bytes }),
            OP_WRITE_ZEROES => Ok(Self::WriteZeroes { offset_bytes, len_bytes }),
            _ => Err(Refused(libc::EOPNOTSUPP)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER_BYTES: usize = 32 << 10;
    /// A flag that the kernel sets for requests of swap.
    const SWAP_FLAG: u32 = 1 << 16;

    fn read(op: u32, start_sector: u64, sectors: u32) -> Result<Request, Refused> {
        Request::of(Descriptor::new(op, start_sector, sectors), BUFFER_BYTES)
    }

    #[test]
    fn each_operation_is_told_in_bytes() {
        assert_eq!(read(OP_READ, 8, 8), Ok(Request::Read { offset_bytes: 4096, len: 4096 }));
        assert_eq!(
            read(OP_WRITE | SWAP_FLAG, 1 << 33, 64),
            Ok(Request::Write { offset_bytes: 1 << 42, len: 32768 })
        );
        assert_eq!(read(OP_FLUSH, 0, 0), Ok(Request::Flush));
        assert_eq!(
            read(OP_DISCARD, 0, 1 << 21),
            Ok(Request::Discard { offset_bytes: 0, len_bytes: 1 << 30 })
        );
        assert_eq!(
            read(OP_WRITE_ZEROES, 16, u32::MAX),
            Ok(Request::WriteZeroes { offset_bytes: 8192, len_bytes: u64::from(u32::MAX) * 512 })
        );
    }

    #[test]
    fn what_does_not_fit_or_is_not_known_is_refused() {
        assert_eq!(read(OP_READ, 0, 65), Err(Refused(libc::EINVAL)));
        assert_eq!(read(OP_WRITE, 0, u32::MAX), Err(Refused(libc::EINVAL)));
        assert_eq!(read(OP_WRITE, u64::MAX, 8), Err(Refused(libc::EINVAL)));
        for zoned_or_unknown in [4, 6, 10, 15, 18, 255] {
            assert_eq!(read(zoned_or_unknown, 0, 8), Err(Refused(libc::EOPNOTSUPP)));
        }
    }
}
