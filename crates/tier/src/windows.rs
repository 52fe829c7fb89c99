//! Read-ahead: what stands beside a block that was read, kept for a while.
//!
//! Pages that were swapped out together were written together, and their owner wants them back together. A copy is divided into
//! windows. The first read of a copy reads its sectors alone; when another one follows before long, it reads the window, and its
//! neighbours are then found here. Windows are kept as the disk has them, encrypted; each sector is decrypted, and so checked, when
//! it is asked for.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tmem_store::TierCopy;

use crate::{
    buffer::Buffer,
    layout::{COPY_SECTORS, SECTOR_BYTES},
    sectors::Sector,
};

/// Sectors of a window: three windows make a copy.
pub(crate) const WINDOW_SECTORS: usize = 11;

/// A window in bytes, 44 KiB.
pub(crate) const WINDOW_BYTES: usize = WINDOW_SECTORS * SECTOR_BYTES;

const _: () = assert!(COPY_SECTORS.is_multiple_of(WINDOW_SECTORS));

/// Locks. Copies with neighbouring places have different ones.
const SHARDS: usize = 16;
/// Windows behind a lock: 64 in all, 2.8 MiB.
const SHARD_WINDOWS: usize = 4;
/// How many copies are remembered as read lately. Guests that come back together read some dozen copies in turn.
const RECENT_COPIES: usize = 256;

/// The windows that were read last.
pub(crate) struct Windows {
    shards: Vec<Mutex<Shard>>,
    /// Writing numbers, plus 1, by place.
    recent: Vec<AtomicU64>,
}

struct Shard {
    windows: Vec<Window>,
    uses: u64,
}

struct Window {
    /// Which one it is. `None`: none.
    of: Option<(TierCopy, usize)>,
    bytes: Buffer,
    last_use: u64,
}

impl Windows {
    /// All memory it will ever have. Errors: there is none.
    pub(crate) fn new() -> io::Result<Self> {
        let window = || Ok(Window { of: None, bytes: Buffer::new(WINDOW_BYTES)?, last_use: 0 });
        let shard = || {
            let windows = (0..SHARD_WINDOWS).map(|_| window()).collect::<io::Result<_>>()?;
            Ok(Mutex::new(Shard { windows, uses: 0 }))
        };
        Ok(Self {
            shards: (0..SHARDS).map(|_| shard()).collect::<io::Result<_>>()?,
            recent: (0..RECENT_COPIES).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Copies a sector out of its window. `false`: it is not here.
    pub(crate) fn get(&self, copy: TierCopy, number: usize, into: &mut Sector) -> bool {
        let mut shard = self.shard(copy.place);
        shard.uses += 1;
        let uses = shard.uses;
        let wanted = Some((copy, number / WINDOW_SECTORS));
        let Some(window) = shard.windows.iter_mut().find(|window| window.of == wanted) else {
            return false;
        };
        window.last_use = uses;
        let at = number % WINDOW_SECTORS * SECTOR_BYTES;
        let Some(bytes) = window.bytes.as_slice().get(at..at + SECTOR_BYTES) else { return false };
        into.copy_from_slice(bytes);
        true
    }

    /// Takes a window's bytes in exchange for those of one that was not used for long.
    pub(crate) fn keep(&self, copy: TierCopy, window: usize, bytes: &mut Buffer) {
        let mut shard = self.shard(copy.place);
        shard.uses += 1;
        let uses = shard.uses;
        let key = Some((copy, window));
        // The same one may have been read by two threads at once.
        let oldest = shard.windows.iter_mut().min_by_key(|window| match window.of {
            of if of == key => 0,
            None => 1,
            Some(_) => window.last_use + 1,
        });
        if let Some(oldest) = oldest {
            std::mem::swap(&mut oldest.bytes, bytes);
            oldest.of = key;
            oldest.last_use = uses;
        }
    }

    /// Forgets a window: what it has is wrong.
    pub(crate) fn forget(&self, copy: TierCopy, number: usize) {
        let wanted = Some((copy, number / WINDOW_SECTORS));
        let mut shard = self.shard(copy.place);
        shard.windows.iter_mut().filter(|window| window.of == wanted).for_each(|window| window.of = None);
    }

    /// Forgets what was at a place.
    pub(crate) fn forget_place(&self, place: u32) {
        let mut shard = self.shard(place);
        for window in &mut shard.windows {
            if window.of.is_some_and(|(copy, _)| copy.place == place) {
                window.of = None;
            }
        }
    }

    /// Whether this copy was read lately. From now on it was.
    pub(crate) fn is_wanted_again(&self, copy: TierCopy) -> bool {
        let mark = copy.writing.wrapping_add(1);
        self.recent[copy.place as usize % RECENT_COPIES].swap(mark, Ordering::Relaxed) == mark
    }

    fn shard(&self, place: u32) -> MutexGuard<'_, Shard> {
        // A shard is whole between any two of its changes.
        self.shards[place as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> Buffer {
        let mut buffer = Buffer::new(WINDOW_BYTES).unwrap();
        buffer.as_mut_slice().fill(byte);
        buffer
    }

    fn byte(windows: &Windows, copy: TierCopy, number: usize) -> Option<u8> {
        let mut sector = [0; SECTOR_BYTES];
        windows.get(copy, number, &mut sector).then(|| sector[0])
    }

    #[test]
    fn a_window_is_found_for_its_own_copy_alone() {
        let windows = Windows::new().unwrap();
        let copy = TierCopy { place: 3, writing: 10 };
        windows.keep(copy, 1, &mut filled(7));
        assert_eq!(byte(&windows, copy, WINDOW_SECTORS), Some(7));
        assert_eq!(byte(&windows, copy, 2 * WINDOW_SECTORS - 1), Some(7));
        assert_eq!(byte(&windows, copy, 0), None, "another window");
        assert_eq!(byte(&windows, TierCopy { writing: 11, ..copy }, WINDOW_SECTORS), None, "another writing");
        let same_shard = TierCopy { place: 3 + SHARDS as u32, ..copy };
        assert_eq!(byte(&windows, same_shard, WINDOW_SECTORS), None, "another place");
        windows.forget_place(same_shard.place);
        assert_eq!(byte(&windows, copy, WINDOW_SECTORS), Some(7));
        windows.forget_place(copy.place);
        assert_eq!(byte(&windows, copy, WINDOW_SECTORS), None, "its place was discarded");
    }

    #[test]
    fn what_was_not_used_for_long_goes_first() {
        let windows = Windows::new().unwrap();
        let copy = |writing| TierCopy { place: 0, writing };
        for writing in 0..SHARD_WINDOWS as u64 {
            windows.keep(copy(writing), 0, &mut filled(writing as u8 + 1));
        }
        assert_eq!(byte(&windows, copy(0), 0), Some(1));
        windows.keep(copy(90), 0, &mut filled(90));
        windows.keep(copy(90), 0, &mut filled(91));
        assert_eq!(byte(&windows, copy(0), 0), Some(1));
        assert_eq!(byte(&windows, copy(1), 0), None);
        assert_eq!(byte(&windows, copy(2), 0), Some(3), "the same window again takes no other's room");
        assert_eq!(byte(&windows, copy(90), 0), Some(91));
    }

    #[test]
    fn a_copy_is_wanted_again_the_second_time() {
        let windows = Windows::new().unwrap();
        let copy = TierCopy { place: 9, writing: 0 };
        assert!(!windows.is_wanted_again(copy));
        assert!(windows.is_wanted_again(copy));
        assert!(!windows.is_wanted_again(TierCopy { writing: 1, ..copy }));
        assert!(!windows.is_wanted_again(copy));
    }
}
