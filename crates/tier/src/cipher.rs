//! Encryption of what a tier keeps: AES-256-GCM, whose tag is also the checksum.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tmem_store::{TierCopy, TierError, TierKey};

/// What a sealed part has beyond what was sealed, in bytes.
pub const TAG_BYTES: usize = 16;

/// Encrypts the parts of copies and decrypts them. A part's nonce is its copy's writing number and its own number in the copy; no
/// writing number is used twice under a key, so no nonce is. Where it is kept is authenticated with it: a part that is found elsewhere than
/// where it was written, or was there before, does not decrypt.
pub struct CopyCipher(LessSafeKey);

impl CopyCipher {
    /// With the store's key. Errors: there is no such cipher.
    pub fn new(key: &TierKey) -> Result<Self, TierError> {
        let key = UnboundKey::new(&AES_256_GCM, &key.0)
            .map_err(|_| TierError::Unavailable("this is no key for AES-256-GCM".into()))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts part `number` of a copy in place, which is kept at `home`, and returns its tag. Errors: it must not be written.
    pub fn seal(
        &self,
        home: &[u8; 16],
        copy: TierCopy,
        number: u32,
        data: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TierError> {
        let not_encrypted = || TierError::Unavailable("a part of a copy was not encrypted".into());
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(copy, number), address(home, copy), data)
            .map_err(|_| not_encrypted())?;
        tag.as_ref().try_into().map_err(|_| not_encrypted())
    }

    /// Decrypts part `number` of a copy, its tag behind it, in place and returns its data. Errors: it is anything else than what was sealed
    /// so.
    pub fn open<'a>(
        &self,
        home: &[u8; 16],
        copy: TierCopy,
        number: u32,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], TierError> {
        self.0
            .open_in_place(nonce(copy, number), address(home, copy), sealed)
            .map(|data| &*data)
            .map_err(|_| TierError::Damaged)
    }
}

fn nonce(copy: TierCopy, number: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&copy.writing.to_le_bytes());
    nonce[8..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn address(home: &[u8; 16], copy: TierCopy) -> Aad<[u8; 20]> {
    let mut address = [0; 20];
    address[..16].copy_from_slice(home);
    address[16..].copy_from_slice(&copy.place.to_le_bytes());
    Aad::from(address)
}
