//! Gets and their answers: some blocks at a time, because what a frame costs is as much as what a block does.

use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

use super::{
    error::WireError,
    fields::{COPY_BYTES, Fields, write_copy},
    lists::{count, items, named, whole},
    message::Reason,
};

/// The most blocks of a get.
pub const MAX_GETS: usize = 64;

/// The most bytes that a get asks for, over all its blocks.
pub const MAX_GOT_BYTES: usize = TIER_EXTENT_BYTES;

/// What is asked for in one item of a get.
const GET_BYTES: usize = COPY_BYTES + 8;

/// Length and reason of one item of the answer.
const HEAD_BYTES: usize = 6;

/// Bytes of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get {
    /// Of which.
    pub copy: TierCopy,
    /// From where in the extent, in bytes.
    pub start: u32,
    /// How many: at least one.
    pub bytes: u32,
}

/// What a get asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gets<'a>(&'a [u8]);

/// What there is of it, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gots<'a> {
    heads: &'a [u8],
    bytes: &'a [u8],
}

impl Get {
    fn read(fields: &mut Fields<'_>) -> Result<Self, &'static str> {
        let mut read = || Some(Get { copy: fields.copy()?, start: fields.u32()?, bytes: fields.u32()? });
        let get = read().ok_or("no end")?;
        let end = u64::from(get.start) + u64::from(get.bytes);
        let is_within = get.bytes > 0 && end <= TIER_EXTENT_BYTES as u64;
        if is_within { Ok(get) } else { Err("bytes that no extent has") }
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        write_copy(self.copy, out);
        out.extend(self.start.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
    }
}

impl<'a> Gets<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::of(payload);
        let mut bytes = 0;
        let read = |fields: &mut Fields<'a>| {
            bytes += Get::read(fields)?.bytes as usize;
            if bytes > MAX_GOT_BYTES { Err("more bytes than are given at once") } else { Ok(()) }
        };
        let count = count(&mut fields, MAX_GETS).map_err(named("get"))?;
        whole(&mut fields, count, read).map(Gets).map_err(named("get"))
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Get> + 'a {
        items(self.0, Get::read)
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.0.len() / GET_BYTES
    }
}

impl<'a> Gots<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::of(payload);
        let mut read = || {
            let count = count(&mut fields, MAX_GETS)?;
            let heads = fields.bytes(count * HEAD_BYTES).ok_or("no end")?;
            let mut bytes = 0;
            for head in Self::heads(heads) {
                bytes += head?.unwrap_or(0);
            }
            match fields.rest() {
                rest if rest.len() == bytes && bytes <= MAX_GOT_BYTES => Ok(Gots { heads, bytes: rest }),
                _ => Err("a wrong length"),
            }
        };
        read().map_err(named("get's answer"))
    }

    /// For each block how long it is, or why it is not there.
    fn heads(heads: &'a [u8]) -> impl Iterator<Item = Result<Result<usize, Reason>, &'static str>> {
        items(heads, |fields| Ok((fields.u32().ok_or("no end")?, fields.u16().ok_or("no end")?))).map(
            |(bytes, reason)| match (bytes as usize, reason, Reason::of(reason)) {
                (1..=MAX_GOT_BYTES, 0, _) => Ok(Ok(bytes as usize)),
                (0, _, Some(reason)) => Ok(Err(reason)),
                _ => Err("neither bytes nor a reason"),
            },
        )
    }

    /// Each block, or why it is not there.
    pub fn iter(self) -> impl Iterator<Item = Result<&'a [u8], Reason>> {
        let mut rest = self.bytes;
        Self::heads(self.heads).map_while(move |head| match head.ok()? {
            Ok(bytes) => {
                let (block, more) = rest.split_at_checked(bytes)?;
                rest = more;
                Some(Ok(block))
            }
            Err(reason) => Some(Err(reason)),
        })
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.heads.len() / HEAD_BYTES
    }

    pub(super) fn write(found: &[Result<&[u8], Reason>], out: &mut Vec<u8>) {
        for found in found {
            let (bytes, reason) = match found {
                Ok(bytes) => (u32::try_from(bytes.len()).unwrap_or(u32::MAX), 0),
                Err(reason) => (0, *reason as u16),
            };
            out.extend(bytes.to_le_bytes());
            out.extend(reason.to_le_bytes());
        }
        found.iter().flatten().for_each(|bytes| out.extend_from_slice(bytes));
    }
}
