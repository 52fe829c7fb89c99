//! The lists in messages. They are checked as a whole when they come, and read where they lie.

use tmem_store::{MAX_TIER_BATCH, TierCopy};

use super::{
    error::WireError,
    fields::{COPY_BYTES, Fields},
    runs::{Run, Runs},
};

/// The most copies of a put.
pub const MAX_PUTS: usize = MAX_TIER_BATCH;

/// The most copies of a flush.
pub const MAX_FLUSHES: usize = 4096;

/// The most runs of a flush, over all its copies.
pub const MAX_FLUSHED_RUNS: usize = 16_384;

/// The most copies of a recall, and of the answer to a list.
pub const MAX_COPIES: usize = 4096;

/// One copy of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put<'a> {
    /// Which it is.
    pub copy: TierCopy,
    /// What there is of the extent, which may be nothing...
    pub runs: Runs<'a>,
    /// ...and these bytes of it, one run behind the other.
    pub bytes: &'a [u8],
}

/// What died of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead<'a> {
    /// Which copy.
    pub copy: TierCopy,
    /// What of it. None: the whole copy.
    pub runs: Runs<'a>,
}

/// The copies of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Puts<'a>(Items<'a>);

/// The copies of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushes<'a>(Items<'a>);

/// A list of copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies<'a>(Items<'a>);

/// A list of copies in order of place, each at a place of its own. It may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a>(Items<'a>);

/// A whole copy as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// What there is of the extent: nothing when all of it died.
    pub runs: Runs<'a>,
    /// These bytes of it, one run behind the other.
    pub bytes: &'a [u8],
}

/// The items of a list, all of them valid.
type Items<'a> = &'a [u8];

/// How long a list says it is, if that is allowed.
pub(super) fn count(fields: &mut Fields<'_>, most: usize) -> Result<usize, &'static str> {
    match fields.u16().map(usize::from) {
        None => Err("no end"),
        Some(0) => Err("an empty list"),
        Some(count) if count > most => Err("a list that is too long"),
        Some(count) => Ok(count),
    }
}

fn put<'a>(fields: &mut Fields<'a>) -> Result<Put<'a>, &'static str> {
    let copy = fields.copy().ok_or("no end")?;
    let runs = Runs::decode(fields)?;
    let bytes = fields.bytes(runs.total_bytes()).ok_or("no end")?;
    Ok(Put { copy, runs, bytes })
}

fn dead<'a>(fields: &mut Fields<'a>) -> Result<Dead<'a>, &'static str> {
    Ok(Dead { copy: fields.copy().ok_or("no end")?, runs: Runs::decode(fields)? })
}

/// Items for as long as there are bytes of them.
pub(super) fn items<'a, T>(
    bytes: &'a [u8],
    read: impl Fn(&mut Fields<'a>) -> Result<T, &'static str>,
) -> impl Iterator<Item = T> {
    let mut fields = Fields::of(bytes);
    std::iter::from_fn(move || if fields.is_empty() { None } else { read(&mut fields).ok() })
}

/// The bytes of a list of so many items, which has to be all there is.
pub(super) fn whole<'a, T>(
    fields: &mut Fields<'a>,
    count: usize,
    mut read: impl FnMut(&mut Fields<'a>) -> Result<T, &'static str>,
) -> Result<&'a [u8], &'static str> {
    let bytes = fields.rest();
    for _ in 0..count {
        read(fields)?;
    }
    if fields.is_empty() { Ok(bytes) } else { Err("bytes after its end") }
}

pub(super) fn named(message: &'static str) -> impl Fn(&'static str) -> WireError {
    move |what| WireError::Malformed { message, what }
}

impl<'a> Puts<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::of(payload);
        let count = count(&mut fields, MAX_PUTS).map_err(named("put"))?;
        whole(&mut fields, count, put).map(Puts).map_err(named("put"))
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Put<'a>> {
        items(self.0, put)
    }
}

impl<'a> Flushes<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::of(payload);
        let count = count(&mut fields, MAX_FLUSHES).map_err(named("flush"))?;
        let mut runs = 0;
        let read = |fields: &mut Fields<'a>| {
            runs += dead(fields)?.runs.count();
            if runs > MAX_FLUSHED_RUNS { Err("too many runs") } else { Ok(()) }
        };
        whole(&mut fields, count, read).map(Flushes).map_err(named("flush"))
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Dead<'a>> {
        items(self.0, dead)
    }
}

impl<'a> Copies<'a> {
    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<Self, &'static str> {
        let count = count(fields, MAX_COPIES)?;
        whole(fields, count, |fields| fields.bytes(COPY_BYTES).ok_or("no end")).map(Copies)
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = TierCopy> {
        items(self.0, |fields| fields.copy().ok_or("no end"))
    }
}

impl<'a> Listed<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::of(payload);
        let count = match fields.u16() {
            Some(0) => Ok(0),
            _ => count(&mut Fields::of(payload), MAX_COPIES),
        };
        let mut last = None;
        let read = |fields: &mut Fields<'a>| {
            let place = fields.copy().ok_or("no end")?.place;
            let is_next = last.replace(place).is_none_or(|last| last < place);
            if is_next { Ok(()) } else { Err("copies out of order") }
        };
        count.and_then(|count| whole(&mut fields, count, read)).map(Listed).map_err(named("list's answer"))
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = TierCopy> {
        items(self.0, |fields| fields.copy().ok_or("no end"))
    }

    /// How many there are. Fewer than [`MAX_COPIES`]: there are no others behind them.
    pub fn count(self) -> usize {
        self.0.len() / COPY_BYTES
    }
}

impl<'a> Fetched<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::of(payload);
        let read = |fields: &mut Fields<'a>| {
            let runs = Runs::decode(fields)?;
            let bytes = fields.bytes(runs.total_bytes()).ok_or("no end")?;
            if fields.is_empty() { Ok(Fetched { runs, bytes }) } else { Err("bytes after its end") }
        };
        read(&mut fields).map_err(named("fetch's answer"))
    }

    /// Each run and its bytes.
    pub fn iter(self) -> impl Iterator<Item = (Run, &'a [u8])> + Clone {
        let mut rest = self.bytes;
        self.runs.iter().map_while(move |run| {
            let (bytes, more) = rest.split_at_checked(run.bytes())?;
            rest = more;
            Some((run, bytes))
        })
    }
}
