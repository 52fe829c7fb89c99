//! Requests become what the disk can do.

use tmem_disk::{BLOCK_BYTES, IoError, Stored, SwapDisk, Zeroes};

use crate::{
    counters::Counters,
    handshake::{Headers, MAX_PAYLOAD_BYTES},
    link::Link,
    protocol::{BASE_ALLOCATION_ID, Errno, STATE_HOLE, STATE_ZERO, command, command_flag},
    request::Request,
    transmission::{Broken, Transmission},
};

/// Pages are stored in place of holes so many bytes at a time, between looks whether the export is being removed: about 2 ms.
const ZERO_STEP_BYTES: u64 = 64 << 20;
/// So much is forgotten between such looks: little work where little is stored.
const FORGET_STEP_BYTES: u64 = 16 << 30;
/// The most that is told of what is stored in one answer. Clients ask again.
const MAX_EXTENTS: usize = 2048;
/// The most that is looked through for one answer, in bytes: where all of it is stored, that takes some 200 ms.
const MAX_LOOK_BYTES: u64 = 256 << 30;

impl From<IoError> for Errno {
    fn from(error: IoError) -> Self {
        match error {
            IoError::OutOfRange | IoError::Unaligned => Errno::Invalid,
            // Not "no space": hypervisors stop a guest at that, and one that swaps does better to keep the page and go on.
            IoError::Refused | IoError::Lost | IoError::Damaged | IoError::TierUnavailable => Errno::Io,
            IoError::Removed => Errno::Shutdown,
        }
    }
}

impl<L: Link> Transmission<'_, L> {
    /// Carries out a request and answers it. Its payload, if any, is used up.
    pub(super) fn execute(&mut self, request: &Request) -> Result<(), Broken> {
        let allowed = self.check(request);
        if let (Ok(()), command::READ) = (allowed, request.command) {
            return self.read(request);
        }
        if let (Ok(()), command::BLOCK_STATUS) = (allowed, request.command) {
            return self.block_status(request);
        }
        let result = match (allowed, request.command) {
            (Ok(()), command::WRITE) => self.write(request)?,
            (Ok(()), command::TRIM) => self.in_steps(request, FORGET_STEP_BYTES, SwapDisk::discard_bytes),
            (Ok(()), command::WRITE_ZEROES) => self.write_zeroes(request),
            // What was answered is stored.
            (Ok(()), _) => self.disk_result(|disk| disk.flush()),
            (Err(error), _) => {
                self.skip(request.payload_bytes)?;
                Err(error)
            }
        };
        self.answer(request, result)
    }

    /// Whether the export can do it, whatever is stored.
    fn check(&self, request: &Request) -> Result<(), Errno> {
        use command_flag::*;
        let (flags, beyond) = match request.command {
            command::READ => (DF, Errno::Invalid),
            command::WRITE => (PAYLOAD_LEN, Errno::NoSpace),
            command::FLUSH => return if request.has_only(FUA) { Ok(()) } else { Err(Errno::Invalid) },
            command::TRIM => (0, Errno::Invalid),
            command::WRITE_ZEROES => (NO_HOLE | FAST_ZERO, Errno::NoSpace),
            command::BLOCK_STATUS => (REQ_ONE, Errno::Invalid),
            _ => return Err(Errno::Invalid),
        };
        let headers = self.session.headers;
        let misplaced = (request.has(DF) && headers == Headers::Simple)
            || (request.has(PAYLOAD_LEN) && headers != Headers::Extended);
        if misplaced || !request.has_only(flags | FUA) {
            return Err(Errno::Invalid);
        }
        if request.command == command::READ && request.len_bytes > MAX_PAYLOAD_BYTES.into() {
            return Err(Errno::Invalid);
        }
        let unasked = !self.session.block_status || request.len_bytes == 0;
        if request.command == command::BLOCK_STATUS && unasked {
            return Err(Errno::Invalid);
        }
        let end = request.offset_bytes.checked_add(request.len_bytes);
        if end.is_none_or(|end| end > self.session.export.disk().size_bytes()) { Err(beyond) } else { Ok(()) }
    }

    fn disk_result(&self, work: impl FnOnce(&SwapDisk) -> Result<(), IoError>) -> Result<(), Errno> {
        work(self.session.export.disk()).map_err(Errno::from)
    }

    fn answer(&mut self, request: &Request, result: Result<(), Errno>) -> Result<(), Broken> {
        if result.is_err() {
            Counters::add(&self.session.export.counters().failed_requests, 1);
        }
        Ok(self.replies.done(self.link, request, result)?)
    }

    fn read(&mut self, request: &Request) -> Result<(), Broken> {
        let longest = self.replies.max_data_bytes() as u64;
        if request.len_bytes > longest && request.has(command_flag::DF) {
            return self.answer(request, Err(Errno::Overflow));
        }
        if request.len_bytes == 0 {
            return self.answer(request, Ok(()));
        }
        let disk = self.session.export.disk();
        let end = request.offset_bytes + request.len_bytes;
        let mut at = request.offset_bytes;
        while at < end {
            // Pieces end with pages, so that none is unpacked twice.
            let whole_pages = (at + longest) / BLOCK_BYTES * BLOCK_BYTES;
            let piece_end = if end - at <= longest { end } else { whole_pages };
            let len = (piece_end - at) as usize;
            let read = self.replies.data(self.link, request, at, len, piece_end == end, |target| {
                disk.read_bytes(at, target).map_err(Errno::from)
            })?;
            if let Err(error) = read {
                if at > request.offset_bytes && self.session.headers == Headers::Simple {
                    return Err(Broken::LostInReply);
                }
                return self.answer(request, Err(error));
            }
            at = piece_end;
        }
        Ok(())
    }

    /// Writes as much at a time as has come, in whole pages as far as that goes. Every page of the request is tried, as the disk has it:
    /// each then holds what was written, or not what was there before.
    fn write(&mut self, request: &Request) -> Result<Result<(), Errno>, Broken> {
        let disk = self.session.export.disk();
        let mut result = Ok(());
        let mut at = request.offset_bytes;
        let mut left = request.payload_bytes;
        while left > 0 {
            let available = self.received.available();
            let come = left.min(available.len() as u64);
            let usable = if come == left { come } else { come.saturating_sub((at + come) % BLOCK_BYTES) };
            if usable == 0 {
                if self.receive()? == 0 {
                    return Err(Broken::CutShort);
                }
                continue;
            }
            result = result.and(disk.write_bytes(at, &available[..usable as usize]));
            self.received.consume(usable as usize);
            at += usable;
            left -= usable;
        }
        Ok(result.map_err(Errno::from))
    }

    /// Uses up the payload of a request that is not carried out.
    fn skip(&mut self, payload_bytes: u64) -> Result<(), Broken> {
        let mut left = payload_bytes;
        while left > 0 {
            let come = left.min(self.received.available().len() as u64);
            self.received.consume(come as usize);
            left -= come;
            if left > 0 && self.receive()? == 0 {
                return Err(Broken::CutShort);
            }
        }
        Ok(())
    }

    fn write_zeroes(&mut self, request: &Request) -> Result<(), Errno> {
        let (how, step_bytes) = match request.has(command_flag::NO_HOLE) {
            true => (Zeroes::Store, ZERO_STEP_BYTES),
            false => (Zeroes::Forget, FORGET_STEP_BYTES),
        };
        self.in_steps(request, step_bytes, |disk, offset_bytes, len_bytes| {
            disk.zero_bytes(offset_bytes, len_bytes, how)
        })
    }

    /// Does something to the range of a request, from left to right, as long as the export is there. All of it is tried. Steps end with pages.
    fn in_steps(
        &self,
        request: &Request,
        step_bytes: u64,
        work: impl Fn(&SwapDisk, u64, u64) -> Result<(), IoError>,
    ) -> Result<(), Errno> {
        let export = &self.session.export;
        let (mut at, end) = (request.offset_bytes, request.offset_bytes + request.len_bytes);
        let mut result = Ok(());
        while at < end {
            if export.is_closing() {
                return Err(Errno::Shutdown);
            }
            let step_end = end.min((at + step_bytes) / BLOCK_BYTES * BLOCK_BYTES);
            result = result.and(work(export.disk(), at, step_end - at));
            at = step_end;
        }
        Ok(result?)
    }

    fn block_status(&mut self, request: &Request) -> Result<(), Broken> {
        let disk = self.session.export.disk();
        let most = if request.has(command_flag::REQ_ONE) { 1 } else { MAX_EXTENTS };
        let end = request.offset_bytes + request.len_bytes.min(MAX_LOOK_BYTES);
        let mut extents: Vec<(u64, u32)> = Vec::new();
        let mut at = request.offset_bytes;
        while at < end && extents.len() < most {
            let extent = match disk.extent(at, end - at) {
                Ok(extent) => extent,
                Err(error) => return self.answer(request, Err(error.into())),
            };
            let state = match extent.stored {
                Stored::Nothing => STATE_HOLE | STATE_ZERO,
                Stored::Zeroes => STATE_ZERO,
                Stored::Contents => 0,
            };
            extents.push((extent.len_bytes, state));
            at += extent.len_bytes;
        }
        Ok(self.replies.block_status(self.link, request, BASE_ALLOCATION_ID, &extents)?)
    }
}
