//! Taking over an arena: the state of its extents.

use std::{io, sync::atomic::Ordering};

use super::Arena;
use crate::{
    extents::{EXTENT_BYTES, ExtentId, ExtentUse},
    repair,
    survey::{Survey, Surveyed, Unfinished},
};

impl Arena {
    /// What the table of extents says. Changes nothing.
    pub(crate) fn survey(&self) -> io::Result<Survey> {
        self.extents.survey()
    }

    /// Derives the state of all extents once every index was read, repairs those that were being written to, and gives back those
    /// without live bytes; gives the number of those repaired.
    pub(crate) fn recover(&self, survey: Survey) -> io::Result<u64> {
        let (mut repaired, mut end) = (0, 0);
        let mut free = Vec::new();
        for (extent, surveyed) in survey.into_extents() {
            end = extent.0 + 1;
            let usage = match surveyed {
                Surveyed::Unused => {
                    self.extents.clear(extent);
                    free.push(extent);
                    continue;
                }
                Surveyed::Complete { usage, live_bytes } => {
                    self.extents.adopt(extent, usage, live_bytes);
                    usage
                }
                Surveyed::Unfinished(found) => {
                    let usage = found.usage;
                    self.repair(extent, found);
                    repaired += 1;
                    usage
                }
            };
            if usage == ExtentUse::Ephemeral {
                self.order().push_back(extent);
            }
            self.wait_for_its_turn(extent);
            self.wait_to_be_copied(extent);
        }
        self.give_back_leftovers(&free, end);
        self.extents.resume(free, end);
        self.search_from.store(0, Ordering::Relaxed);
        Ok(repaired)
    }

    fn repair(&self, extent: ExtentId, mut found: Unfinished) {
        found.blocks.sort_unstable_by_key(|block| block.offset);
        let start = extent.offset();
        let Some(mut bytes) = self.memory.at(start, EXTENT_BYTES) else { return };
        // SAFETY: the range is inside the mapping, and nobody else uses a store that is just being opened.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut(), EXTENT_BYTES) };
        if repair::fill_gaps(bytes, start as u64, &found.blocks).is_ok() {
            self.extents.adopt(extent, found.usage, found.live_bytes);
        } else {
            self.extents.adopt_damaged(extent, found.usage, found.live_bytes);
        }
    }

    /// Gives back what the OS holds for extents that nobody uses: they were just being taken or given back, or kept to be used again.
    fn give_back_leftovers(&self, free: &[ExtentId], end: u32) {
        let punch = |from: u32, to: u32| {
            // It only fails for lack of kernel memory, and then the extent goes back the next time it was used.
            let _ = self.memory.give_back(ExtentId(from).offset(), (to - from) as usize * EXTENT_BYTES);
        };
        free.chunk_by(|one, next| one.0 + 1 == next.0)
            .for_each(|run| punch(run[0].0, run[run.len() - 1].0 + 1));
        if end < self.extents.count() {
            punch(end, self.extents.count());
        }
    }
}
