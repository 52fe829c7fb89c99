//! What the kernel's driver and this program say to each other: `include/uapi/linux/ublk_cmd.h`.

/// The device that takes control commands.
pub(crate) const CONTROL_PATH: &str = "/dev/ublk-control";

/// A request's result, in the driver's words, that ends a tag: no more will come.
pub(crate) const RESULT_ABORT: i32 = -libc::ENODEV;

/// The driver lays out the requests of a queue as if each queue were this deep.
pub(crate) const MAX_QUEUE_DEPTH: u16 = 4096;

/// "No queue", and "the driver chooses the number of the device".
pub(crate) const NO_QUEUE: u16 = u16::MAX;
pub(crate) const ANY_DEVICE: u32 = u32::MAX;

/// Requests by their number in [`Descriptor::op`].
pub(crate) const OP_READ: u32 = 0;
pub(crate) const OP_WRITE: u32 = 1;
pub(crate) const OP_FLUSH: u32 = 2;
pub(crate) const OP_DISCARD: u32 = 3;
pub(crate) const OP_WRITE_ZEROES: u32 = 5;

/// How commands are numbered: plainly up to Linux 6.3, as ioctls are from 6.4 on, where the plain way can be compiled out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Numbering {
    Ioctl,
    Plain,
}

/// Control commands. The device they are for stands in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    AddDevice,
    DeleteDevice,
    /// As the former, without waiting for those who still have the device open.
    DeleteDeviceAsync,
    StartDevice,
    StopDevice,
    SetParameters,
    DeviceInfo,
    Parameters,
    /// Of a device whose process is gone: another begins to take it over.
    StartRecovery,
    /// All of its queues wait for requests again.
    EndRecovery,
}

/// The device outlives its process and can be taken over by another. Requests wait until then.
pub(crate) const FLAG_USER_RECOVERY: u64 = 1 << 3;
/// With the former: the next process gets the requests again that the former one had and did not answer.
pub(crate) const FLAG_USER_RECOVERY_REISSUE: u64 = 1 << 4;

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// No block device.
    Dead,
    Live,
    /// Its process is gone.
    Left,
}

/// Commands of a queue. They come back when there is a request for their tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fetch {
    /// The first of a tag.
    First,
    /// Hands in the result of the tag's request and asks for the next.
    CommitAndFetch,
}

const HEADER_BYTES: usize = 32;
const FETCH_BYTES: usize = 16;

impl Control {
    pub(crate) fn number(self, numbering: Numbering) -> u32 {
        let (plain, reads_only) = match self {
            Self::AddDevice => (0x04, false),
            Self::DeleteDevice => (0x05, false),
            Self::StartDevice => (0x06, false),
            Self::StopDevice => (0x07, false),
            Self::SetParameters => (0x08, false),
            Self::DeviceInfo => (0x02, true),
            Self::Parameters => (0x09, true),
            Self::StartRecovery => (0x10, false),
            Self::EndRecovery => (0x11, false),
            Self::DeleteDeviceAsync => (0x14, true),
        };
        encode(plain, reads_only, HEADER_BYTES, numbering)
    }
}

impl Fetch {
    pub(crate) fn number(self, numbering: Numbering) -> u32 {
        let plain = match self {
            Self::First => 0x20,
            Self::CommitAndFetch => 0x21,
        };
        encode(plain, false, FETCH_BYTES, numbering)
    }

    /// The command's body: which tag of which queue, the result of its last request, and where data is to go next.
    pub(crate) fn body(queue: u16, tag: u16, result: i32, buffer: u64) -> [u8; FETCH_BYTES] {
        let mut body = [0; FETCH_BYTES];
        body[0..2].copy_from_slice(&queue.to_ne_bytes());
        body[2..4].copy_from_slice(&tag.to_ne_bytes());
        body[4..8].copy_from_slice(&result.to_ne_bytes());
        body[8..16].copy_from_slice(&buffer.to_ne_bytes());
        body
    }
}

/// An ioctl's number: direction, size of the argument, the letter `u`, and the plain number.
fn encode(plain: u32, reads_only: bool, bytes: usize, numbering: Numbering) -> u32 {
    let direction = if reads_only { 2 } else { 3 };
    match numbering {
        Numbering::Plain => plain,
        Numbering::Ioctl => direction << 30 | (bytes as u32) << 16 | u32::from(b'u') << 8 | plain,
    }
}

/// What every control command begins with. It takes the place of 80 bytes.
pub(crate) fn control_header(device: u32, buffer: u64, buffer_bytes: u16, data: u64) -> [u8; 80] {
    let mut header = [0; 80];
    header[0..4].copy_from_slice(&device.to_ne_bytes());
    header[4..6].copy_from_slice(&NO_QUEUE.to_ne_bytes());
    header[6..8].copy_from_slice(&buffer_bytes.to_ne_bytes());
    header[8..16].copy_from_slice(&buffer.to_ne_bytes());
    header[16..24].copy_from_slice(&data.to_ne_bytes());
    header
}

/// A device as [`Control::AddDevice`] is told and tells of it.
pub(crate) struct DeviceInfo(pub(crate) [u8; 64]);

impl DeviceInfo {
    /// `mark` is for whoever looks at the device later, and nothing to the driver.
    pub(crate) fn new(queues: u16, depth: u16, max_request_bytes: u32, flags: u64, mark: u64) -> Self {
        let mut info = [0; 64];
        info[0..2].copy_from_slice(&queues.to_ne_bytes());
        info[2..4].copy_from_slice(&depth.to_ne_bytes());
        info[8..12].copy_from_slice(&max_request_bytes.to_ne_bytes());
        info[12..16].copy_from_slice(&ANY_DEVICE.to_ne_bytes());
        info[16..20].copy_from_slice(&std::process::id().to_ne_bytes());
        info[24..32].copy_from_slice(&flags.to_ne_bytes());
        info[32..40].copy_from_slice(&mark.to_ne_bytes());
        Self(info)
    }

    /// Queues that there are. The driver makes no more than there are CPUs.
    pub(crate) fn queues(&self) -> u16 {
        self.u16_at(0)
    }

    /// Requests that a queue has at once, at most.
    pub(crate) fn depth(&self) -> u16 {
        self.u16_at(2)
    }

    /// Its number: the N of `/dev/ublkbN`.
    pub(crate) fn number(&self) -> u32 {
        u32::from_ne_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    pub(crate) fn state(&self) -> State {
        match self.u16_at(4) {
            0 => State::Dead,
            1 => State::Live,
            _ => State::Left,
        }
    }

    /// The process that serves it, or did.
    pub(crate) fn process(&self) -> u32 {
        u32::from_ne_bytes([self.0[16], self.0[17], self.0[18], self.0[19]])
    }

    pub(crate) fn mark(&self) -> u64 {
        let mut mark = [0; 8];
        mark.copy_from_slice(&self.0[32..40]);
        u64::from_ne_bytes(mark)
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]])
    }
}

/// A request as the driver describes it, in memory that it shares.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    op_and_flags: u32,
    /// In units of 512 bytes.
    pub(crate) sectors: u32,
    pub(crate) start_sector: u64,
    _buffer: u64,
}

impl Descriptor {
    #[cfg(test)]
    pub(crate) fn new(op_and_flags: u32, start_sector: u64, sectors: u32) -> Self {
        Self { op_and_flags, sectors, start_sector, _buffer: 0 }
    }

    pub(crate) fn op(self) -> u32 {
        self.op_and_flags & 0xff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as a C compiler makes them of the kernel's header.
    #[test]
    fn numbers_are_the_headers() {
        assert_eq!(Control::AddDevice.number(Numbering::Ioctl), 0xc020_7504);
        assert_eq!(Control::StopDevice.number(Numbering::Ioctl), 0xc020_7507);
        assert_eq!(Control::DeleteDeviceAsync.number(Numbering::Ioctl), 0x8020_7514);
        assert_eq!(Fetch::First.number(Numbering::Ioctl), 0xc010_7520);
        assert_eq!(Fetch::CommitAndFetch.number(Numbering::Ioctl), 0xc010_7521);
        assert_eq!(Control::SetParameters.number(Numbering::Plain), 8);
        assert_eq!(Fetch::First.number(Numbering::Plain), 0x20);
    }

    #[test]
    fn structures_are_laid_out_as_in_the_header() {
        assert_eq!(size_of::<Descriptor>(), 24);
        let header = control_header(3, 0x1122_3344_5566_7788, 64, 9);
        assert_eq!(&header[..8], &[3, 0, 0, 0, 0xff, 0xff, 64, 0]);
        assert_eq!(&header[8..24], &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert!(header[24..].iter().all(|byte| *byte == 0));
        assert_eq!(
            Fetch::body(1, 2, -5, 0x1000),
            [1, 0, 2, 0, 0xfb, 0xff, 0xff, 0xff, 0, 0x10, 0, 0, 0, 0, 0, 0]
        );
        let info = DeviceInfo::new(4, 64, 32 << 10, FLAG_USER_RECOVERY, 0x99);
        assert_eq!((info.queues(), info.depth(), info.number()), (4, 64, u32::MAX));
        assert_eq!((&info.0[8..12], &info.0[24..32]), (&[0, 0x80, 0, 0][..], &[8, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!((info.state(), info.process(), info.mark()), (State::Dead, std::process::id(), 0x99));
    }
}
