//! Names of keys and fields, and what is in them.

use std::fmt::Write;

use ring::digest::{Context, SHA256};
use tmem_store::{TierCopy, TierError, TierKey, TierRun};
use tmem_tier::{CopyCipher, TAG_BYTES};

/// What is no longer than this is written and read as one block; what is longer are several.
pub(crate) const MAX_BLOCK_BYTES: usize = 8192;

/// Several blocks are kept in parts that begin at multiples of this, in bytes, so that any of them can be read by itself.
pub(crate) const PART_BYTES: u32 = 4096;

/// What one store's keys are called, and what it encrypts with.
pub(crate) struct Keys {
    prefix: String,
    /// Which store's, as in the keys: nobody finds the encryption key by it.
    store: [u8; 16],
    cipher: CopyCipher,
}

impl Keys {
    pub(crate) fn new(prefix: &str, key: &TierKey) -> Result<Self, TierError> {
        let mut context = Context::new(&SHA256);
        context.update(b"tmem: the store of a Redis tier");
        context.update(&key.0);
        let mut store = [0; 16];
        let digest = context.finish();
        store.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        let mut name = format!("{prefix}:");
        for byte in &store[..8] {
            let _ = write!(name, "{byte:02x}"); // a String takes everything
        }
        Ok(Self { prefix: name, store, cipher: CopyCipher::new(key)? })
    }

    /// A copy's key.
    pub(crate) fn key(&self, copy: TierCopy) -> String {
        format!("{}:{}:{}", self.prefix, copy.place, copy.writing)
    }

    /// A key for a value that says whether the server takes any.
    pub(crate) fn trial(&self) -> String {
        format!("{}:trial", self.prefix)
    }

    /// A block as it is kept. Errors: it must not be written.
    pub(crate) fn seal(&self, copy: TierCopy, run: TierRun, extent: &[u8]) -> Result<Vec<u8>, TierError> {
        let start = run.start as usize;
        let block = extent
            .get(start..start + run.bytes as usize)
            .ok_or_else(|| TierError::Unavailable("a block is not inside of its extent".into()))?;
        let mut sealed = Vec::with_capacity(block.len() + TAG_BYTES);
        sealed.extend_from_slice(block);
        let tag = self.cipher.seal(&self.store, copy, run.start, &mut sealed)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// The block that begins at `start`, from how it is kept. Errors: it is not that block.
    pub(crate) fn open<'a>(
        &self,
        copy: TierCopy,
        start: u32,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], TierError> {
        self.cipher.open(&self.store, copy, start, sealed)
    }
}
