//! Reading blocks of copies.

use redis::{RedisError, RedisResult, Value, cmd};
use tmem_store::TierCopy;
use tmem_tier::TAG_BYTES;

use crate::{connection::Link, keys::Keys};

/// What is no longer than this is read for one block, which is there whole or not at all; what is longer is read for all blocks in it.
const MAX_BLOCK_BYTES: usize = 8192;

/// What became of a read that the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is what was written.
    Right,
    /// The server has something else there.
    Damaged,
    /// The server has no such copy.
    Gone,
}

/// Reads `into.len()` bytes of a copy from byte `start`. Of more than a block what was never written, or is needed no more, is zeroes.
pub(crate) fn read(
    link: &mut Link,
    keys: &Keys,
    copy: TierCopy,
    start: usize,
    into: &mut [u8],
) -> RedisResult<Found> {
    let key = keys.key(copy);
    if into.len() <= MAX_BLOCK_BYTES
        && let Value::BulkString(mut sealed) = link.ask(cmd("HGET").arg(&key).arg(start))?
        && sealed.len() == into.len() + TAG_BYTES
    {
        return Ok(match keys.open(copy, start as u32, &mut sealed) {
            Ok(block) => {
                into.copy_from_slice(block);
                Found::Right
            }
            Err(_) => Found::Damaged,
        });
    }
    let fields = match link.ask(cmd("HGETALL").arg(&key))? {
        Value::Map(fields) => fields,
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            std::iter::from_fn(|| flat.next().zip(flat.next())).collect()
        }
        other => return Err(unexpected(&other)),
    };
    if fields.is_empty() {
        return Ok(Found::Gone);
    }
    Ok(assemble(keys, copy, fields, start, into))
}

fn assemble(
    keys: &Keys,
    copy: TierCopy,
    fields: Vec<(Value, Value)>,
    start: usize,
    into: &mut [u8],
) -> Found {
    into.fill(0);
    let end = start + into.len();
    let mut found_bytes = 0;
    for (name, sealed) in fields {
        let (Some(at), Value::BulkString(mut sealed)) = (number(&name), sealed) else {
            return Found::Damaged;
        };
        let field_end = at as usize + sealed.len().saturating_sub(TAG_BYTES);
        if field_end <= start || at as usize >= end {
            continue;
        }
        let Ok(block) = keys.open(copy, at, &mut sealed) else { return Found::Damaged };
        let (from, to) = (start.max(at as usize), end.min(field_end));
        into[from - start..to - start].copy_from_slice(&block[from - at as usize..to - at as usize]);
        found_bytes += to - from;
    }
    match found_bytes == into.len() || found_bytes > 0 && into.len() > MAX_BLOCK_BYTES {
        true => Found::Right,
        false => Found::Damaged,
    }
}

fn number(name: &Value) -> Option<u32> {
    let Value::BulkString(bytes) = name else { return None };
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn unexpected(value: &Value) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no answer to HGETALL", format!("{value:?}")))
}
