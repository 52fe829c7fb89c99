//! From a descriptor chain to a request: everything that a guest wrote is checked here.
//!
//! A virtio-blk request is a 16-byte header the device reads, data it reads or writes, and a status byte it
//! writes, cut over descriptors in any way, but with all it reads before all it writes (virtio 1.3, sections
//! 2.7.4.2 and 5.2.6). Nothing here writes to guest memory, and every byte of the chain's description is
//! read once, so the guest can't change it between check and use.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use crate::config_space::MAX_RANGE_SECTORS;

/// The unit of addresses on the wire, whatever the block size.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Most ranges in one discard or write-zeroes request.
pub(crate) const MAX_RANGES: usize = 64;
/// Bytes of the request header.
const HEADER_BYTES: usize = 16;
/// Bytes of one range of a discard or write-zeroes request.
const RANGE_BYTES: usize = 16;
/// Most data in one request. Linux stops at 1.25 MiB unless told otherwise; the bound keeps one request from
/// occupying its queue for long.
const MAX_DATA_BYTES: u64 = 64 << 20;

/// What a well-formed chain asks for. Its data is in the [`ChainBuffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Fill the data segments from the disk.
    Read { offset_bytes: u64 },
    /// Store the data segments.
    Write { offset_bytes: u64 },
    /// Make what was written durable.
    Flush,
    /// Fill the data segments with the disk's name.
    GetId,
    /// Forget the ranges.
    Discard,
    /// Make the ranges read as zeroes.
    WriteZeroes,
}

/// A part of the disk named by a discard or write-zeroes request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset_bytes: u64,
    pub(crate) len_bytes: u64,
}

/// What is wrong with a request whose status byte can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a buffer lies outside the guest's memory")]
    OutsideMemory,
    #[error("a device-readable buffer follows a device-writable one")]
    Order,
    #[error("the header is shorter than 16 bytes")]
    ShortHeader,
    #[error("the data's length is not what the request needs")]
    DataLength,
    #[error("the sector number is beyond any disk")]
    Sector,
    #[error("a range is longer than the device allows")]
    RangeLength,
    #[error("a flag that the device does not have")]
    Flags,
    #[error("request type {0} is not supported")]
    Type(u32),
}

/// Why a chain can't even be answered with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the descriptor chain does not end within the ring's size, or leaves its table or memory")]
    Endless,
    #[error("the chain has no writable byte for the status")]
    NoStatus,
}

/// A chain as understood.
#[derive(Debug)]
pub(crate) struct Parsed<'m> {
    /// The one byte for the status.
    pub(crate) status: VolatileSlice<'m>,
    /// What to do, or what is wrong.
    pub(crate) request: Result<Request, Fault>,
}

/// Where a chain's parts are gathered. Reused from chain to chain, so that requests allocate nothing.
#[derive(Debug, Default)]
pub(crate) struct ChainBuffers<'m> {
    /// What the device reads, after the header.
    readable: Vec<VolatileSlice<'m>>,
    /// What the device writes, before the status.
    writable: Vec<VolatileSlice<'m>>,
    /// Ranges of a discard or write-zeroes request.
    ranges: Vec<Range>,
}

impl<'m> ChainBuffers<'m> {
    /// The data a write request stores.
    pub(crate) fn readable(&self) -> &[VolatileSlice<'m>] {
        &self.readable
    }

    /// The memory a read or get-id request fills.
    pub(crate) fn writable(&self) -> &[VolatileSlice<'m>] {
        &self.writable
    }

    /// The ranges a discard or write-zeroes request names.
    pub(crate) fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.ranges.clear();
    }
}

/// Takes a chain apart. `max_descriptors` bounds the work, whatever loops and tables the guest made.
pub(crate) fn parse<'m>(
    chain: DescriptorChain<&'m GuestMemoryMmap>,
    memory: &'m GuestMemoryMmap,
    max_descriptors: u16,
    buffers: &mut ChainBuffers<'m>,
) -> Result<Parsed<'m>, NoAnswer> {
    buffers.clear();
    let mut header = Header::default();
    let mut fault = None;
    let mut ended = false;
    let mut status_mapped = false;
    let mut left = max_descriptors;
    for descriptor in chain {
        left = left.checked_sub(1).ok_or(NoAnswer::Endless)?;
        ended = !descriptor.has_next();
        let writable = descriptor.is_write_only();
        if !writable && !buffers.writable.is_empty() {
            fault = fault.or(Some(Fault::Order));
        }
        for slice in GuestMemoryBackend::get_slices(memory, descriptor.addr(), descriptor.len() as usize) {
            match slice {
                Ok(slice) if writable => {
                    buffers.writable.push(slice);
                    status_mapped = true;
                }
                Ok(slice) => header.take(slice, &mut buffers.readable),
                Err(_) => {
                    fault = fault.or(Some(Fault::OutsideMemory));
                    status_mapped &= !writable;
                }
            }
        }
    }
    // The iterator stops without a word at a bad table, a bad index and its own bound on the length.
    if !ended {
        return Err(NoAnswer::Endless);
    }
    if !status_mapped {
        return Err(NoAnswer::NoStatus);
    }
    let status = split_status(&mut buffers.writable).ok_or(NoAnswer::NoStatus)?;
    let request = match fault {
        Some(fault) => Err(fault),
        None => header.request(buffers),
    };
    Ok(Parsed { status, request })
}

/// Takes the last writable byte off the data.
fn split_status<'m>(writable: &mut Vec<VolatileSlice<'m>>) -> Option<VolatileSlice<'m>> {
    let last = writable.pop()?;
    let data_bytes = last.len().checked_sub(1)?;
    let (data, status) = last.split_at(data_bytes).ok()?;
    if data_bytes > 0 {
        writable.push(data);
    }
    Some(status)
}

/// The header, as far as it has been read.
#[derive(Default)]
struct Header {
    bytes: [u8; HEADER_BYTES],
    len: usize,
}

impl Header {
    /// Takes what the header still lacks from the front of `slice`; the rest is data.
    fn take<'m>(&mut self, slice: VolatileSlice<'m>, data: &mut Vec<VolatileSlice<'m>>) {
        if self.len == HEADER_BYTES {
            data.push(slice);
            return;
        }
        let taken = slice.copy_to(&mut self.bytes[self.len..]);
        self.len += taken;
        if taken < slice.len()
            && let Ok(rest) = slice.offset(taken)
        {
            data.push(rest);
        }
    }

    fn request(&self, buffers: &mut ChainBuffers<'_>) -> Result<Request, Fault> {
        if self.len < HEADER_BYTES {
            return Err(Fault::ShortHeader);
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = self.bytes;
        let sector = u64::from_le_bytes(sector);
        let in_bytes = total_bytes(&buffers.readable);
        let out_bytes = total_bytes(&buffers.writable);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => {
                check_data(out_bytes, in_bytes)?;
                Ok(Request::Read { offset_bytes: sector_offset(sector)? })
            }
            VIRTIO_BLK_T_OUT => {
                check_data(in_bytes, out_bytes)?;
                Ok(Request::Write { offset_bytes: sector_offset(sector)? })
            }
            VIRTIO_BLK_T_FLUSH if in_bytes == 0 && out_bytes == 0 => Ok(Request::Flush),
            VIRTIO_BLK_T_GET_ID if in_bytes == 0 && out_bytes >= u64::from(VIRTIO_BLK_ID_BYTES) => {
                Ok(Request::GetId)
            }
            VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_GET_ID => Err(Fault::DataLength),
            VIRTIO_BLK_T_DISCARD => {
                read_ranges(buffers, in_bytes, out_bytes, 0)?;
                Ok(Request::Discard)
            }
            VIRTIO_BLK_T_WRITE_ZEROES => {
                read_ranges(buffers, in_bytes, out_bytes, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)?;
                Ok(Request::WriteZeroes)
            }
            other => Err(Fault::Type(other)),
        }
    }
}

/// The sum can't overflow: a chain has at most 65535 descriptors of less than 4 GiB.
fn total_bytes(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

/// Whole sectors in the direction of the request and nothing in the other.
fn check_data(data_bytes: u64, other_bytes: u64) -> Result<(), Fault> {
    let fits = (1..=MAX_DATA_BYTES).contains(&data_bytes) && data_bytes.is_multiple_of(SECTOR_BYTES);
    if fits && other_bytes == 0 { Ok(()) } else { Err(Fault::DataLength) }
}

fn sector_offset(sector: u64) -> Result<u64, Fault> {
    sector.checked_mul(SECTOR_BYTES).ok_or(Fault::Sector)
}

/// Reads the array of ranges that a discard or write-zeroes request carries as its data.
fn read_ranges(
    buffers: &mut ChainBuffers<'_>,
    in_bytes: u64,
    out_bytes: u64,
    allowed_flags: u32,
) -> Result<(), Fault> {
    let max_bytes = (MAX_RANGES * RANGE_BYTES) as u64;
    let whole = in_bytes.is_multiple_of(RANGE_BYTES as u64);
    if !(1..=max_bytes).contains(&in_bytes) || !whole || out_bytes != 0 {
        return Err(Fault::DataLength);
    }
    let mut bytes = [0u8; MAX_RANGES * RANGE_BYTES];
    let mut len = 0;
    for slice in &buffers.readable {
        len += slice.copy_to(&mut bytes[len..]);
    }
    let (ranges, _) = bytes[..len].as_chunks::<RANGE_BYTES>();
    for range in ranges {
        buffers.ranges.push(read_range(range, allowed_flags)?);
    }
    Ok(())
}

fn read_range(bytes: &[u8; RANGE_BYTES], allowed_flags: u32) -> Result<Range, Fault> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = *bytes;
    let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
    if u32::from_le_bytes(flags) & !allowed_flags != 0 {
        return Err(Fault::Flags);
    }
    if sectors > MAX_RANGE_SECTORS {
        return Err(Fault::RangeLength);
    }
    Ok(Range {
        offset_bytes: sector_offset(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]))?,
        len_bytes: u64::from(sectors) * SECTOR_BYTES,
    })
}
