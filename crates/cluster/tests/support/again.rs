//! Says again what was understood. Shared with the fuzz target.

use tmem_cluster::wire::{Encoder, Message, PutResult, Run, WireError};
use tmem_store::TierCopy;

/// The frame of a message that came.
pub fn again(id: u64, message: Message<'_>) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    let mut say = Encoder::new(&mut out);
    match message {
        Message::Put(puts) => {
            let puts: Vec<_> =
                puts.iter().map(|put| (put.copy, put.runs.iter().collect(), put.bytes)).collect();
            let puts: Vec<_> = puts
                .iter()
                .map(|(copy, runs, bytes): &(TierCopy, Vec<Run>, _)| (*copy, &runs[..], *bytes))
                .collect();
            say.put(id, &puts)
        }
        Message::Get(gets) => say.get(id, &gets.iter().collect::<Vec<_>>()),
        Message::Flush(dead) => {
            let dead: Vec<(TierCopy, Vec<Run>)> =
                dead.iter().map(|dead| (dead.copy, dead.runs.iter().collect())).collect();
            let dead: Vec<_> = dead.iter().map(|(copy, runs)| (*copy, &runs[..])).collect();
            say.flush(id, &dead)
        }
        Message::Ping => say.ping(id),
        Message::Offer { free_bytes, lent_bytes } => say.offer(free_bytes, lent_bytes),
        Message::Recall { deadline_ms, copies } => {
            say.recall(deadline_ms, &copies.iter().collect::<Vec<_>>())
        }
        Message::List { from_place } => say.list(id, from_place),
        Message::Fetch(copy) => say.fetch(id, copy),
        Message::Listed(copies) => say.listed(id, copies.iter()),
        Message::Fetched(copy) => say.fetched(id, copy.iter()),
        Message::PutDone(results) => say.put_done(id, &results.iter().collect::<Vec<PutResult>>()),
        Message::Got(found) => say.got(id, &found.iter().collect::<Vec<_>>()),
        Message::Flushed => say.flushed(id),
        Message::Pong => say.pong(id),
        Message::Refused(reason) => say.refused(id, reason),
    }?;
    Ok(out)
}
