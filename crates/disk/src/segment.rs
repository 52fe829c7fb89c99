//! Memory that a request reads from or writes to.

use std::{marker::PhantomData, ptr::NonNull};

/// A stretch of somebody else's memory: of a guest, say, who may read and write it at any time.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    start: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Segment<'a> {
    /// A stretch of memory at any address, aligned or not.
    ///
    /// # Safety
    /// `len` bytes from `start` stay mapped, readable and (where a request writes to them) writable for `'a`, and nothing in this
    /// program holds a reference to them. Others may change them meanwhile.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, memory: PhantomData }
    }

    /// Memory of this program.
    pub fn from_slice(memory: &'a mut [u8]) -> Self {
        Self { start: NonNull::from(&mut *memory).cast(), len: memory.len(), memory: PhantomData }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where byte `offset` is. `offset` is at most `len`.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset <= self.len);
        // SAFETY: inside the segment, or one past its end.
        unsafe { self.start.add(offset) }
    }
}
