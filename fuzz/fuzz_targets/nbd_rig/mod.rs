//! A disk, and a link whose peer has said everything already.

use std::{io, sync::Arc};

use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_nbd::{Exports, Link, Wait};
use tmem_store::{Dedup, Store, StoreOptions, Weight};

/// One small disk, in a pool that it can fill.
pub fn exports() -> Exports {
    let store = Store::new(StoreOptions { limit_bytes: 4 << 20 }).expect("a store");
    let options = DiskOptions {
        name: "fuzzed".into(),
        size_bytes: 8 << 20,
        cap_bytes: None,
        weight: Weight::default(),
        dedup: Dedup::Alone,
        format: Format::None,
    };
    Exports::with_disk(Arc::new(SwapDisk::create(&store, options).expect("a disk")))
}

/// Gives the peer's bytes in pieces of a size that the input chooses, and keeps what is sent.
pub struct Said<'a> {
    pub rest: &'a [u8],
    pub piece: usize,
    pub sent: Vec<u8>,
}

impl Link for Said<'_> {
    fn receive(&mut self, buffer: &mut [u8], _wait: Wait) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "room for nothing");
        let len = self.rest.len().min(buffer.len()).min(self.piece);
        let (piece, rest) = self.rest.split_at(len);
        buffer[..len].copy_from_slice(piece);
        self.rest = rest;
        Ok(len)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sent.extend(bytes);
        Ok(())
    }
}
