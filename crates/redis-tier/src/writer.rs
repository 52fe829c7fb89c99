//! The commands that write copies, keep them and remove them.

use redis::{Value, cmd};
use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES, TierCopy, TierError, TierRun, TierWrite};
use tmem_tier::TAG_BYTES;

use crate::{
    connection::Batch,
    keys::{Keys, MAX_BLOCK_BYTES, PART_BYTES},
};

/// Whether these can be written at all: no more than a batch, whole extents, to different places that there are, and blocks inside.
pub(crate) fn check(writes: &[TierWrite<'_>]) -> Result<(), TierError> {
    let never = |why: &str| Err(TierError::Unavailable(why.into()));
    if writes.len() > MAX_TIER_BATCH || writes.iter().any(|write| write.extent.len() != TIER_EXTENT_BYTES) {
        return never("these are no copies for one batch");
    }
    if writes.iter().any(|write| write.copy.place == u32::MAX) {
        return never("there is no such place");
    }
    for (at, write) in writes.iter().enumerate() {
        if writes[..at].iter().any(|other| other.copy.place == write.copy.place) {
            return never("two copies are for the same place");
        }
        let mut end = 0;
        for run in write.needed {
            if run.start < end || run.bytes == 0 {
                return never("the blocks of a copy are not in order");
            }
            end = run.start.saturating_add(run.bytes);
        }
        if end as usize > TIER_EXTENT_BYTES {
            return never("a block is not inside of its extent");
        }
    }
    Ok(())
}

/// Writes a copy, sealed. What a server that dies in between may keep for ever is its first block.
pub(crate) fn add_write(
    batch: &mut Batch,
    keys: &Keys,
    write: &TierWrite<'_>,
    expiry_s: u64,
) -> Result<(), TierError> {
    let key = keys.key(write.copy);
    let seal = |run: &TierRun| keys.seal(write.copy, *run, write.extent);
    let fields: Vec<_> = write.needed.iter().copied().flat_map(fields).collect();
    let Some((first, rest)) = fields.split_first() else { return Ok(()) };
    let mut command = cmd("HSET");
    command.arg(&key).arg(first.start).arg(seal(first)?);
    batch.add(command);
    add_expiry(batch, &key, expiry_s);
    if !rest.is_empty() {
        let mut command = cmd("HSET");
        command.arg(&key);
        for run in rest {
            command.arg(run.start).arg(seal(run)?);
        }
        batch.add(command);
    }
    Ok(())
}

/// What a run is kept as: a block as one field; several, of which any part may be read, as parts that begin at multiples of [`PART_BYTES`].
fn fields(run: TierRun) -> impl Iterator<Item = TierRun> {
    let end = run.start + run.bytes;
    let is_block = run.bytes as usize <= MAX_BLOCK_BYTES;
    let mut start = run.start;
    std::iter::from_fn(move || {
        let next = if is_block { end } else { (start / PART_BYTES + 1) * PART_BYTES };
        let field = TierRun { start, bytes: next.min(end).saturating_sub(start) };
        start = next;
        (field.bytes > 0).then_some(field)
    })
}

/// Tells a copy to live on. The answer is 0 if it is gone.
pub(crate) fn add_expiry(batch: &mut Batch, key: &str, expiry_s: u64) {
    let mut command = cmd("EXPIRE");
    command.arg(key).arg(expiry_s);
    batch.add(command);
}

/// Removes copies. One command each: the keys of a cluster's are at different members.
pub(crate) fn add_removals(batch: &mut Batch, keys: &Keys, dead: &[TierCopy]) {
    for copy in dead {
        let mut command = cmd("UNLINK");
        command.arg(keys.key(*copy));
        batch.add(command);
    }
}

/// Asks how long blocks are that are to be removed.
pub(crate) fn add_lengths(batch: &mut Batch, keys: &Keys, blocks: &[(TierCopy, TierRun)]) {
    for (copy, run) in blocks {
        let mut command = cmd("HSTRLEN");
        command.arg(keys.key(*copy)).arg(run.start);
        batch.add(command);
    }
}

/// Removes the blocks that are as long as they are thought to be: what was written as one is removed as one, or with its copy. Says
/// which these are.
pub(crate) fn add_block_removals(
    batch: &mut Batch,
    keys: &Keys,
    blocks: &[(TierCopy, TierRun)],
    lengths: &[Value],
) -> Vec<(TierCopy, TierRun)> {
    let mut removed = Vec::new();
    for ((copy, run), length) in blocks.iter().zip(lengths) {
        if *length == Value::Int(i64::from(run.bytes) + TAG_BYTES as i64) {
            let mut command = cmd("HDEL");
            command.arg(keys.key(*copy)).arg(run.start);
            batch.add(command);
            removed.push((*copy, *run));
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_whole_and_longer_runs_have_parts() {
        let all = |start, bytes| {
            fields(TierRun { start, bytes }).map(|run| (run.start, run.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(all(8, 4112), [(8, 4112)]);
        assert_eq!(all(4000, 8200), [(4000, 96), (4096, 4096), (8192, 4008)]);
        let whole = all(0, TIER_EXTENT_BYTES as u32);
        assert_eq!((whole.len(), whole[0], whole[31]), (32, (0, 4096), (126_976, 4096)));
    }
}
