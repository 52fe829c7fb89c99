//! Carries a request out on the disk, straight from and to the buffer that the kernel copies from and to.

use tmem_disk::{IoError, Segment, SwapDisk};

use crate::{
    lost_pages::LostPages,
    request::{Refused, Request},
};

/// Does what the request says. Gives what the driver gets to hear: the bytes done, or less than 0, an error of the OS's.
pub(crate) fn execute(
    disk: &SwapDisk,
    lost: &LostPages,
    request: Result<Request, Refused>,
    buffer: &mut [u8],
) -> i32 {
    let (offset_bytes, len_bytes, done) = match request {
        Err(Refused(number)) => return -number,
        Ok(Request::Flush) => return disk.flush().map_or(-libc::EIO, |()| 0),
        Ok(Request::Read { offset_bytes, len }) => {
            if lost.has_any(offset_bytes, len as u64) {
                return -libc::EIO;
            }
            return result(len, disk.read(offset_bytes, &[Segment::from_slice(&mut buffer[..len])]));
        }
        Ok(Request::Write { offset_bytes, len }) => {
            let written = disk.write(offset_bytes, &[Segment::from_slice(&mut buffer[..len])]);
            (offset_bytes, len as u64, result(len, written))
        }
        Ok(Request::Discard { offset_bytes, len_bytes }) => {
            (offset_bytes, len_bytes, result(0, disk.discard(offset_bytes, len_bytes)))
        }
        Ok(Request::WriteZeroes { offset_bytes, len_bytes }) => {
            (offset_bytes, len_bytes, result(0, disk.write_zeroes(offset_bytes, len_bytes)))
        }
    };
    // A write that failed may have stored some of its pages; those stay lost with the others.
    if done >= 0 {
        lost.forget(offset_bytes, len_bytes);
    }
    done
}

fn result(len: usize, done: Result<(), IoError>) -> i32 {
    match done {
        Ok(()) => len as i32,
        // A full pool, too: ENOSPC would have some callers wait for space, and swap does not care.
        Err(
            IoError::Refused | IoError::Lost | IoError::Damaged | IoError::TierUnavailable | IoError::Removed,
        ) => -libc::EIO,
        Err(IoError::OutOfRange | IoError::Unaligned) => -libc::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of tests")]
    use tmem_disk::{DiskOptions, Format};
    use tmem_store::{Dedup, Store, StoreOptions, Weight};

    use super::*;

    fn disk(limit_bytes: u64) -> SwapDisk {
        let store = Store::new(StoreOptions { limit_bytes }).unwrap();
        let options = DiskOptions {
            name: "d".to_owned(),
            size_bytes: 8 << 20,
            cap_bytes: None,
            weight: Weight::default(),
            dedup: Dedup::Off,
            format: Format::None,
        };
        SwapDisk::create(&store, options).unwrap()
    }

    fn run(disk: &SwapDisk, request: Result<Request, Refused>, buffer: &mut [u8]) -> i32 {
        execute(disk, &LostPages::default(), request, buffer)
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
        assert_eq!(run(&disk, Ok(Request::Write { offset_bytes, len }), &mut buffer), 32768);
        buffer.fill(7);
        assert_eq!(run(&disk, Ok(Request::Read { offset_bytes, len }), &mut buffer), 32768);
        assert!(buffer == written);
        let discard = Request::Discard { offset_bytes: 65536, len_bytes: 4096 };
        let zeroes = Request::WriteZeroes { offset_bytes: 65536 + 8192, len_bytes: 4096 };
        for request in [discard, zeroes, Request::Flush] {
            assert_eq!(run(&disk, Ok(request), &mut buffer), 0);
        }
        assert_eq!(run(&disk, Ok(Request::Read { offset_bytes, len }), &mut buffer), 32768);
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
        assert_eq!(run(&disk, Ok(write), &mut buffer), -libc::EINVAL);
        assert_eq!(run(&disk, Err(Refused(libc::EOPNOTSUPP)), &mut buffer), -libc::EOPNOTSUPP);
    }

    #[test]
    fn r2_a_full_pool_is_an_i_o_error() {
        let disk = disk(1 << 20);
        let results: Vec<i32> = (0..256)
            .map(|i| {
                let write = Request::Write { offset_bytes: i % 200 * 32768, len: 32768 };
                run(&disk, Ok(write), &mut noise(i))
            })
            .collect();
        assert!(results.contains(&32768) && results.contains(&-libc::EIO));
        assert!(results.iter().all(|result| [32768, -libc::EIO].contains(result)), "{results:?}");
    }

    #[test]
    fn r2_what_was_lost_is_an_error_until_it_is_written_again_and_never_zeroes() {
        let disk = disk(64 << 20);
        let lost = LostPages::all(disk.size_bytes());
        let mut buffer = noise(3);
        let mut run = |request| execute(&disk, &lost, Ok(request), &mut buffer);
        let read = |page: u64, pages: usize| Request::Read { offset_bytes: page * 4096, len: pages * 4096 };
        assert_eq!(run(read(0, 1)), -libc::EIO);
        assert_eq!(run(Request::Write { offset_bytes: 4096, len: 8192 }), 8192);
        assert_eq!((run(read(1, 2)), run(read(1, 3))), (8192, -libc::EIO));
        assert_eq!(run(Request::Discard { offset_bytes: 12288, len_bytes: 4096 }), 0);
        assert_eq!(run(Request::WriteZeroes { offset_bytes: 16384, len_bytes: 4096 }), 0);
        assert_eq!((run(read(1, 4)), run(read(5, 1))), (16384, -libc::EIO));
    }

    #[test]
    fn r2_a_write_that_was_refused_leaves_lost_pages_lost() {
        let disk = disk(1 << 20);
        let lost = LostPages::all(disk.size_bytes());
        let mut refused = 0;
        for page in 0..1024u64 {
            let offset_bytes = page * 4096;
            let written =
                execute(&disk, &lost, Ok(Request::Write { offset_bytes, len: 4096 }), &mut noise(page));
            let read = execute(&disk, &lost, Ok(Request::Read { offset_bytes, len: 4096 }), &mut noise(0));
            assert_eq!(read, written, "page {page}");
            refused += u32::from(written < 0);
        }
        assert!(refused > 100, "{refused} refused");
    }
}
