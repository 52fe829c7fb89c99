//! Encryption of sectors: AES-256-GCM, whose tag is also the checksum.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tmem_store::{TierCopy, TierError, TierKey};

use crate::{
    header::DiskId,
    layout::{SECTOR_BYTES, SECTOR_DATA_BYTES},
};

/// A sector as it is on the disk, or in the clear with its last bytes undefined.
pub(crate) type Sector = [u8; SECTOR_BYTES];

/// Encrypts sectors and decrypts them. A sector's nonce is its copy's writing number and its own number in the copy; no writing
/// number is used twice under a key, so no nonce is. The id of the disk and the place are authenticated with it: a sector that is
/// found elsewhere than where it was written, or was there before, does not decrypt.
pub(crate) struct SectorKey(LessSafeKey);

impl SectorKey {
    pub(crate) fn new(key: &TierKey) -> Result<Self, TierError> {
        let key = UnboundKey::new(&AES_256_GCM, &key.0)
            .map_err(|_| TierError::Unavailable("this is no key for AES-256-GCM".into()))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts sector `number` of a copy in place. Its last bytes get the tag. Errors: it must not be written.
    pub(crate) fn seal(
        &self,
        disk: &DiskId,
        copy: TierCopy,
        number: usize,
        sector: &mut Sector,
    ) -> Result<(), TierError> {
        let (data, tag) = sector.split_at_mut(SECTOR_DATA_BYTES);
        let sealed = self
            .0
            .seal_in_place_separate_tag(nonce(copy, number), address(disk, copy), data)
            .map_err(|_| TierError::Unavailable("a sector was not encrypted".into()))?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Decrypts sector `number` of a copy in place and returns its data. Errors: it is anything else than what was sealed so.
    pub(crate) fn open<'a>(
        &self,
        disk: &DiskId,
        copy: TierCopy,
        number: usize,
        sector: &'a mut Sector,
    ) -> Result<&'a [u8], TierError> {
        self.0
            .open_in_place(nonce(copy, number), address(disk, copy), sector)
            .map(|data| &*data)
            .map_err(|_| TierError::Damaged)
    }
}

fn nonce(copy: TierCopy, number: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&copy.writing.to_le_bytes());
    nonce[8..].copy_from_slice(&(number as u32).to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn address(disk: &DiskId, copy: TierCopy) -> Aad<[u8; 20]> {
    let mut address = [0; 20];
    address[..16].copy_from_slice(disk);
    address[16..].copy_from_slice(&copy.place.to_le_bytes());
    Aad::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: DiskId = [3; 16];
    const COPY: TierCopy = TierCopy { place: 5, writing: 77 };

    fn sealed() -> (SectorKey, Sector, Sector) {
        let key = SectorKey::new(&TierKey([9; 32])).unwrap();
        let mut clear = [0; SECTOR_BYTES];
        for (at, byte) in clear.iter_mut().enumerate() {
            *byte = (at * 7) as u8;
        }
        let mut sector = clear;
        key.seal(&DISK, COPY, 2, &mut sector).unwrap();
        (key, clear, sector)
    }

    #[test]
    fn every_wrong_bit_is_found() {
        let (key, clear, sector) = sealed();
        let mut right = sector;
        assert_eq!(key.open(&DISK, COPY, 2, &mut right).unwrap(), &clear[..SECTOR_DATA_BYTES]);
        for bit in 0..SECTOR_BYTES * 8 {
            let mut wrong = sector;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&DISK, COPY, 2, &mut wrong), Err(TierError::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_sector_of_anything_else_is_found() {
        let (key, _, sector) = sealed();
        let other_key = SectorKey::new(&TierKey([8; 32])).unwrap();
        let open = |key: &SectorKey, disk: &DiskId, copy, number| {
            key.open(disk, copy, number, &mut sector.clone()).is_ok()
        };
        assert!(open(&key, &DISK, COPY, 2));
        assert!(!open(&other_key, &DISK, COPY, 2), "another key");
        assert!(!open(&key, &[4; 16], COPY, 2), "another disk");
        assert!(!open(&key, &DISK, TierCopy { place: 6, ..COPY }, 2), "another place");
        assert!(!open(&key, &DISK, TierCopy { writing: 76, ..COPY }, 2), "an older writing");
        assert!(!open(&key, &DISK, COPY, 3), "another sector");
    }

    #[test]
    fn nothing_of_the_data_is_left_in_the_sector() {
        let (_, clear, sector) = sealed();
        assert!(sector.windows(8).zip(clear.windows(8)).all(|(sealed, clear)| sealed != clear));
    }
}
