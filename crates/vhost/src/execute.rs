//! Carries a request out on the disk, straight from and to guest memory.

use std::ptr::NonNull;

use tmem_disk::{IoError, Segment, SwapDisk};
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;
use vm_memory::VolatileSlice;

use crate::request::{ChainBuffers, Request};

/// Segments of guest memory as the disk takes them. Reused from request to request.
pub(crate) type Segments<'m> = Vec<Segment<'m>>;

/// Does what the request says. On success, the number of data bytes written to the guest.
pub(crate) fn execute<'m>(
    disk: &SwapDisk,
    request: Request,
    buffers: &ChainBuffers<'m>,
    segments: &mut Segments<'m>,
) -> Result<u64, IoError> {
    match request {
        Request::Read { offset_bytes } => {
            let bytes = gather(buffers.writable(), segments);
            disk.read(offset_bytes, segments)?;
            Ok(bytes)
        }
        Request::Write { offset_bytes } => {
            gather(buffers.readable(), segments);
            disk.write(offset_bytes, segments)?;
            Ok(0)
        }
        Request::Flush => disk.flush().map(|()| 0),
        Request::GetId => Ok(write_id(disk.name(), buffers.writable())),
        Request::Discard => {
            for range in buffers.ranges() {
                disk.discard(range.offset_bytes, range.len_bytes)?;
            }
            Ok(0)
        }
        Request::WriteZeroes => {
            for range in buffers.ranges() {
                disk.write_zeroes(range.offset_bytes, range.len_bytes)?;
            }
            Ok(0)
        }
    }
}

/// Hands guest memory to the disk in place. Returns the sum of the lengths.
fn gather<'m>(slices: &[VolatileSlice<'m>], segments: &mut Segments<'m>) -> u64 {
    segments.clear();
    let mut bytes = 0;
    for slice in slices {
        // Mapped memory never starts at zero.
        let Some(start) = NonNull::new(slice.ptr_guard_mut().as_ptr()) else { continue };
        bytes += slice.len() as u64;
        // SAFETY: a `VolatileSlice<'m>` is mapped, readable and writable for `'m`: the guest's regions are
        // mapped so, and they stay mapped while the guest memory borrowed for `'m` lives. The program only
        // ever reaches them through pointers.
        segments.push(unsafe { Segment::from_raw(start, slice.len()) });
    }
    bytes
}

/// The serial number: the disk's name, cut or filled with zeroes to 20 bytes.
fn write_id(name: &str, slices: &[VolatileSlice<'_>]) -> u64 {
    let mut id = [0u8; VIRTIO_BLK_ID_BYTES as usize];
    let len = name.len().min(id.len());
    id[..len].copy_from_slice(&name.as_bytes()[..len]);
    let mut done = 0;
    for slice in slices {
        let len = slice.len().min(id.len() - done);
        slice.copy_from(&id[done..done + len]);
        done += len;
    }
    done as u64
}
