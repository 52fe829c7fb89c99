//! Sectors: what is encrypted, written and read at once.

use tmem_store::{TierCopy, TierError, TierKey};

use crate::{
    cipher::CopyCipher,
    header::DiskId,
    layout::{SECTOR_BYTES, SECTOR_DATA_BYTES},
};

/// A sector as it is on the disk, or in the clear with its last bytes undefined.
pub(crate) type Sector = [u8; SECTOR_BYTES];

/// Encrypts sectors and decrypts them, bound to the id of the disk and to their place: see [`CopyCipher`].
pub(crate) struct SectorKey(CopyCipher);

impl SectorKey {
    pub(crate) fn new(key: &TierKey) -> Result<Self, TierError> {
        CopyCipher::new(key).map(Self)
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
        tag.copy_from_slice(&self.0.seal(disk, copy, number as u32, data)?);
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
        self.0.open(disk, copy, number as u32, sector)
    }
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
