//! Reading blocks of copies.

use redis::{RedisError, RedisResult, Value, cmd};
use tmem_store::TierCopy;
use tmem_tier::TAG_BYTES;

use crate::{
    connection::Link,
    keys::{Keys, MAX_BLOCK_BYTES, PART_BYTES},
};

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
    if into.len() <= MAX_BLOCK_BYTES && !into.is_empty() {
        // The block, if it is kept by itself, and the parts that it is in otherwise.
        let end = (start + into.len()) as u32;
        let parts = (start as u32 / PART_BYTES..end.div_ceil(PART_BYTES)).map(|part| part * PART_BYTES);
        let names: Vec<_> =
            std::iter::once(start as u32).chain(parts.filter(|part| *part != start as u32)).collect();
        let mut command = cmd("HMGET");
        command.arg(&key).arg(&names);
        let Value::Array(values) = link.ask(&command)? else {
            return Err(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no answer to HMGET")));
        };
        let mut fields: Vec<_> = names
            .into_iter()
            .zip(values)
            .filter_map(|(name, value)| match value {
                Value::BulkString(sealed) => Some((name, sealed)),
                _ => None,
            })
            .collect();
        let is_block =
            |field: &(u32, Vec<u8>)| field.0 as usize == start && field.1.len() == into.len() + TAG_BYTES;
        if fields.first().is_some_and(is_block) {
            fields.truncate(1);
        }
        match assemble(keys, copy, fields, start, into) {
            Found::Gone => (),
            found => return Ok(found),
        }
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
    let field = |(name, value): (Value, Value)| match (number(&name), value) {
        (Some(at), Value::BulkString(sealed)) => Some((at, sealed)),
        _ => None,
    };
    let Some(fields) = fields.into_iter().map(field).collect() else { return Ok(Found::Damaged) };
    Ok(match assemble(keys, copy, fields, start, into) {
        // The copy is there, and what is asked for is not.
        Found::Gone => Found::Damaged,
        found => found,
    })
}

/// Puts together what is asked for. [`Found::Gone`]: these fields do not have all of it.
fn assemble(
    keys: &Keys,
    copy: TierCopy,
    fields: Vec<(u32, Vec<u8>)>,
    start: usize,
    into: &mut [u8],
) -> Found {
    into.fill(0);
    let end = start + into.len();
    let mut found_bytes = 0;
    for (at, mut sealed) in fields {
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
        false => Found::Gone,
    }
}

fn number(name: &Value) -> Option<u32> {
    let Value::BulkString(bytes) = name else { return None };
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn unexpected(value: &Value) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no answer to HGETALL", format!("{value:?}")))
}
