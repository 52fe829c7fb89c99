//! The first page of a Linux swap area.
//!
//! Layout: `union swap_header` in the kernel's `include/linux/swap.h`; the label and UUID as mkswap writes them.

use tmem_store::PAGE_BYTES;

/// The label every disk is born with, so that a guest's fstab can say `LABEL=tmem`.
pub(crate) const LABEL: &[u8] = b"tmem";

const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;
const UUID_AT: usize = 1036;
const LABEL_AT: usize = 1052;
const MAGIC: &[u8] = b"SWAPSPACE2";

/// The header of a swap area of `pages` pages, this one included. `uuid` tells areas apart.
pub(crate) fn swap_header(pages: u64, uuid: [u8; 16]) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    page[VERSION_AT..][..4].copy_from_slice(&1u32.to_le_bytes());
    // The field has 32 bits; the kernel uses no more pages than it says.
    let last_page = u32::try_from(pages - 1).unwrap_or(u32::MAX);
    page[LAST_PAGE_AT..][..4].copy_from_slice(&last_page.to_le_bytes());
    page[UUID_AT..][..16].copy_from_slice(&uuid);
    page[LABEL_AT..][..LABEL.len()].copy_from_slice(LABEL);
    page[PAGE_BYTES - MAGIC.len()..].copy_from_slice(MAGIC);
    page
}

/// A random UUID (version 4, RFC 9562) from the kernel's generator.
pub(crate) fn random_uuid() -> std::io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
