//! Carries a request out on the disk, straight from and to the buffer that the kernel copies from and to.

use tmem_disk::{IoError, Segment, SwapDisk};

use crate::request::{Refused, Request};

/// Does what the request says. Gives what the driver gets to hear: the bytes done, or less than 0, an error of the OS's.
pub(crate) fn execute(disk: &SwapDisk, request: Result<Request, Refused>, buffer: &mut [u8]) -> i32 {
    let (len, done) = match request {
        Err(Refused(number)) => return -number,
        Ok(Request::Read { offset_bytes, len }) => {
            (len, disk.read(offset_bytes, &[Segment::from_slice(&mut buffer[..len])]))
        }
        Ok(Request::Write { offset_bytes, len }) => {
            (len, disk.write(offset_bytes, &[Segment::from_slice(&mut buffer[..len])]))
        }
        Ok(Request::Flush) => (0, disk.flush()),
        Ok(Request::Discard { offset_bytes, len_bytes }) => (0, disk.discard(offset_bytes, len_bytes)),
        Ok(Request::WriteZeroes { offset_bytes, len_bytes }) => {
            (0, disk.write_zeroes(offset_bytes, len_bytes))
        }
    };
    match done {
        Ok(()) => len as i32,
        // A full pool, too: ENOSPC would have some callers wait for space, and swap does not care.
        Err(IoError::Refused | IoError::Lost | IoError::Damaged | IoError::Removed) => -libc::EIO,
        Err(IoError::OutOfRange | IoError::Unaligned) => -libc::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of tests")]
    use tmem_disk::{DiskOptions, Format};
    use tmem_store::{Dedup, Store, StoreOptions};

    use super::*;

    fn disk(limit_bytes: u64) -> SwapDisk {
        let store = Store::new(StoreOptions { limit_bytes }).unwrap();
        let options = DiskOptions {
            name: "d".to_owned(),
            size_bytes: 8 << 20,
            cap_bytes: None,
            dedup: Dedup::Off,
            format: Format::None,
        };
        SwapDisk::create(&store, options).unwrap()
    }

    fn noise(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(32768).collect()
    }

    #[test]
    fn r1_what_is_written_is_read_back_and_what_is_discarded_is_zeroes() {
        let disk = disk(64 << 20);
        let mut buffer = noise(1);
        let written = buffer.clone();
        let at = |offset_bytes| (offset_bytes, 32768);
        let (offset_bytes, len) = at(65536);
        assert_eq!(execute(&disk, Ok(Request::Write { offset_bytes, len }), &mut buffer), 32768);
        buffer.fill(7);
        assert_eq!(execute(&disk, Ok(Request::Read { offset_bytes, len }), &mut buffer), 32768);
        assert!(buffer == written);
        let discard = Request::Discard { offset_bytes: 65536, len_bytes: 4096 };
        let zeroes = Request::WriteZeroes { offset_bytes: 65536 + 8192, len_bytes: 4096 };
        for request in [discard, zeroes, Request::Flush] {
            assert_eq!(execute(&disk, Ok(request), &mut buffer), 0);
        }
        assert_eq!(execute(&disk, Ok(Request::Read { offset_bytes, len }), &mut buffer), 32768);
        let expected = |page: usize| {
            if page == 0 || page == 2 { vec![0; 4096] } else { written[page * 4096..][..4096].to_vec() }
        };
        for page in 0..8 {
            assert!(buffer[page * 4096..][..4096] == expected(page), "page {page}");
        }
    }

    #[test]
    fn a_request_beyond_the_disk_is_an_error_of_the_callers() {
        let disk = disk(64 << 20);
        let mut buffer = noise(2);
        let write = Request::Write { offset_bytes: (8 << 20) - 4096, len: 8192 };
        assert_eq!(execute(&disk, Ok(write), &mut buffer), -libc::EINVAL);
        assert_eq!(execute(&disk, Err(Refused(libc::EOPNOTSUPP)), &mut buffer), -libc::EOPNOTSUPP);
    }

    #[test]
    fn r2_a_full_pool_is_an_i_o_error() {
        let disk = disk(1 << 20);
        let results: Vec<i32> = (0..256)
            .map(|i| {
                let write = Request::Write { offset_bytes: i % 200 * 32768, len: 32768 };
                execute(&disk, Ok(write), &mut noise(i))
            })
            .collect();
        assert!(results.contains(&32768) && results.contains(&-libc::EIO));
        assert!(results.iter().all(|result| [32768, -libc::EIO].contains(result)), "{results:?}");
    }
}
