//! The first sector: whose file this is.

use crate::layout::{HEADER_BYTES, SECTOR_BYTES};

const MAGIC: [u8; 8] = *b"tmemtier";
/// Of layout and encryption. Another one is refused: copies live no longer than the memory that has their key.
const VERSION: u32 = 1;
const CHECKED_BYTES: usize = 28;

/// What tells one file or device from another: 16 random bytes.
pub(crate) type DiskId = [u8; 16];

/// What the first sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A tier of this layout.
    Ours(DiskId),
    /// A tier of another layout.
    OtherVersion(u32),
    /// A tier's, but something else is wrong with it.
    Damaged,
    /// Nothing but zeroes.
    Blank,
    /// Anything else.
    Foreign,
}

/// The header of a tier: magic, version, id, CRC-32C of these.
pub(crate) fn encode(id: DiskId) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; HEADER_BYTES];
    sector[..8].copy_from_slice(&MAGIC);
    sector[8..12].copy_from_slice(&VERSION.to_le_bytes());
    sector[12..CHECKED_BYTES].copy_from_slice(&id);
    let checksum = crc32c::crc32c(&sector[..CHECKED_BYTES]);
    sector[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&checksum.to_le_bytes());
    sector
}

/// What a first sector says. One that was cut short is as good as one with zeroes at its end.
pub(crate) fn parse(bytes: &[u8]) -> Header {
    let mut sector = [0; HEADER_BYTES];
    let len = bytes.len().min(HEADER_BYTES);
    sector[..len].copy_from_slice(&bytes[..len]);
    if is_blank(&sector) {
        return Header::Blank;
    }
    if sector[..8] != MAGIC {
        return Header::Foreign;
    }
    let mut id = [0; 16];
    id.copy_from_slice(&sector[12..CHECKED_BYTES]);
    if sector == encode(id) {
        return Header::Ours(id);
    }
    let version = u32::from_le_bytes([sector[8], sector[9], sector[10], sector[11]]);
    if version == VERSION { Header::Damaged } else { Header::OtherVersion(version) }
}

/// Whether there is nothing.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Also bytes that begin as ours do, and are as long or longer.
        #[test]
        fn any_bytes_are_ours_only_if_we_could_have_written_them(
            start in prop_oneof![Just(0), Just(8), Just(12), Just(CHECKED_BYTES), 0..=HEADER_BYTES],
            rest in proptest::collection::vec(any::<u8>(), 0..HEADER_BYTES + 64),
        ) {
            let mut bytes = encode([7; 16])[..start].to_vec();
            bytes.extend(rest);
            match parse(&bytes) {
                Header::Ours(id) => {
                    let whole = encode(id);
                    prop_assert!(bytes.iter().zip(&whole).all(|(byte, ours)| byte == ours));
                    prop_assert!(is_blank(whole.get(bytes.len()..).unwrap_or_default()));
                }
                Header::Blank => prop_assert!(is_blank(&bytes[..bytes.len().min(HEADER_BYTES)])),
                Header::OtherVersion(version) => prop_assert!(version != VERSION && bytes.starts_with(&MAGIC)),
                Header::Damaged => prop_assert!(bytes.starts_with(&MAGIC)),
                Header::Foreign => prop_assert!(!bytes.starts_with(&MAGIC)),
            }
        }
    }

    #[test]
    fn only_a_whole_header_is_ours() {
        let id = *b"0123456789abcdef";
        let sector = encode(id);
        assert_eq!(parse(&sector), Header::Ours(id));
        for at in 0..HEADER_BYTES {
            for bit in 0..8 {
                let mut wrong = sector;
                wrong[at] ^= 1 << bit;
                assert!(!matches!(parse(&wrong), Header::Ours(_) | Header::Blank), "byte {at}, bit {bit}");
            }
        }
        for len in 1..CHECKED_BYTES + 4 {
            assert!(!matches!(parse(&sector[..len]), Header::Ours(_) | Header::Blank), "cut to {len}");
        }
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        assert_eq!(parse(&[]), Header::Blank);
        assert_eq!(parse(&[0; 4096]), Header::Blank);
        assert_eq!(parse(b"precious"), Header::Foreign);
        let mut late = [0; 4096];
        late[4095] = 1;
        assert_eq!(parse(&late), Header::Foreign);
        let mut newer = encode([7; 16]);
        newer[8] = 2;
        assert_eq!(parse(&newer), Header::OtherVersion(2));
    }
}
