//! Control commands of the driver: each is sent and waited for, on an io_uring of its own, because there are few of them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    path::Path,
    thread,
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::{
    abi::{
        ANY_DEVICE, CONTROL_PATH, Control, DeviceInfo, FLAG_USER_RECOVERY, FLAG_USER_RECOVERY_REISSUE,
        Numbering, State, control_header,
    },
    error::UblkError,
    parameters::{parameters, size_in},
};

/// How long udev may take to make a device's file.
const DEVICE_FILE_TRIES: u32 = 300;
/// How long the kernel may take to be done with a device's dead process. That is work of its own threads, which may have to wait for memory. Who gives up is
/// followed by somebody who tries the same.
const RECOVERY_TRIES: u32 = 6000;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Whether this kernel has ublk, now.
pub fn is_available() -> bool {
    Path::new(CONTROL_PATH).exists()
}

/// A device of the driver's. Dropping one of ours stops and deletes it.
pub(crate) struct Device {
    control: File,
    info: DeviceInfo,
    numbering: Numbering,
    is_ours: bool,
}

impl Device {
    /// Adds a device with so many queues, or as many as there are CPUs if that is less. It is not a block device yet.
    ///
    /// It outlives this process: the next one can take it over, and whoever swaps to it goes on then. Until then its requests wait.
    pub(crate) fn add(queues: u16, depth: u16, max_request_bytes: u32, mark: u64) -> Result<Self, UblkError> {
        let control = open_control()?;
        // Kernels before 6.4 know the plain numbers only. They say so in various ways.
        let mut first_error = None;
        let flags = FLAG_USER_RECOVERY | FLAG_USER_RECOVERY_REISSUE;
        for numbering in [Numbering::Ioctl, Numbering::Plain] {
            let mut info = DeviceInfo::new(queues, depth, max_request_bytes, flags, mark);
            let body = control_header(ANY_DEVICE, info.0.as_mut_ptr() as u64, 64, 0);
            // SAFETY: the header names 64 bytes, which `info` has, and the call returns when the driver is done with them.
            match unsafe { command(&control, Control::AddDevice.number(numbering), body) } {
                Ok(()) => return Ok(Self { control, info, numbering, is_ours: true }),
                Err(error) if is_permission(&error) => return Err(UblkError::NotAllowed { error }),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let error = first_error.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
        Err(UblkError::Command { what: "add a device", error })
    }

    /// The device of that number, whoever made it. It is left alone until it is adopted.
    pub(crate) fn find(number: u32) -> Option<Self> {
        let control = open_control().ok()?;
        let mut info = DeviceInfo([0; 64]);
        let numbering = [Numbering::Ioctl, Numbering::Plain].into_iter().find(|numbering| {
            let body = control_header(number, info.0.as_mut_ptr() as u64, 64, 0);
            // SAFETY: the header names 64 bytes, which `info` has, and the call returns when the driver is done with them.
            unsafe { command(&control, Control::DeviceInfo.number(*numbering), body) }.is_ok()
        })?;
        Some(Self { control, info, numbering, is_ours: false })
    }

    /// From now on it is as if this process had made it.
    pub(crate) fn adopt(self) -> Self {
        let mut ours = self;
        ours.is_ours = true;
        ours
    }

    /// How large the device is, in bytes. `None`: it was never described.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        let mut parameters = [0u8; 64];
        // The driver writes as many bytes as the first four say.
        parameters[..4].copy_from_slice(&64u32.to_ne_bytes());
        let body = control_header(self.info.number(), parameters.as_mut_ptr() as u64, 64, 0);
        // SAFETY: the header names the parameters, which live until the call returns.
        unsafe { command(&self.control, Control::Parameters.number(self.numbering), body) }.ok()?;
        Some(size_in(&parameters))
    }

    /// Begins to take the device over. For a moment after its process has died that may not be possible yet.
    pub(crate) fn start_recovery(&self) -> Result<(), UblkError> {
        let mut tries = 0;
        loop {
            match self.send(Control::StartRecovery, 0) {
                Ok(()) => return Ok(()),
                Err(error) if tries == RECOVERY_TRIES => {
                    return Err(UblkError::Command { what: "let a device be taken over", error });
                }
                Err(_) => thread::sleep(BETWEEN_TRIES),
            }
            tries += 1;
        }
    }

    /// All queues wait for requests: it is a block device again.
    pub(crate) fn end_recovery(&self) -> Result<(), UblkError> {
        self.send(Control::EndRecovery, std::process::id().into())
            .map_err(|error| UblkError::Command { what: "go on with a device that was taken over", error })
    }

    /// Whether nobody serves it any more.
    pub(crate) fn is_left(&self) -> bool {
        self.info.state() != State::Live || !Path::new(&format!("/proc/{}", self.info.process())).exists()
    }

    pub(crate) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(crate) fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Says how large the device is, and what it takes.
    pub(crate) fn describe(&self, size_bytes: u64, max_request_bytes: u32) -> Result<(), UblkError> {
        let mut parameters = parameters(size_bytes, max_request_bytes);
        let body =
            control_header(self.info.number(), parameters.as_mut_ptr() as u64, parameters.len() as u16, 0);
        // SAFETY: the header names the parameters, which live until the call returns.
        unsafe { command(&self.control, Control::SetParameters.number(self.numbering), body) }
            .map_err(|error| UblkError::Command { what: "take the device's parameters", error })
    }

    /// The character device, by which queues get their requests.
    pub(crate) fn open(&self) -> Result<File, UblkError> {
        let path = format!("/dev/ublkc{}", self.info.number());
        let mut tries = 0;
        loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Ok(file),
                Err(error) if tries == DEVICE_FILE_TRIES => return Err(UblkError::Open { path, error }),
                Err(_) => thread::sleep(BETWEEN_TRIES),
            }
            tries += 1;
        }
    }

    /// Makes the block device. All queues wait for requests by now; its first ones come before this returns.
    pub(crate) fn start(&self) -> Result<(), UblkError> {
        self.send(Control::StartDevice, std::process::id().into())
            .map_err(|error| UblkError::Command { what: "start the device", error })
    }

    /// Ends the block device. Queues carry out what they have and are told that nothing more comes.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.send(Control::StopDevice, 0)
    }

    fn send(&self, what: Control, data: u64) -> io::Result<()> {
        let body = control_header(self.info.number(), 0, 0, data);
        // SAFETY: the header names no memory.
        unsafe { command(&self.control, what.number(self.numbering), body) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // It may be stopped already.
        let _ = self.stop();
        // Whoever still has it open, as swap for example, would keep the other way waiting; but that one is from Linux 6.9.
        if self.send(Control::DeleteDeviceAsync, 0).is_err()
            && let Err(error) = self.send(Control::DeleteDevice, 0)
        {
            log::warn!("cannot delete ublk device {}: {error}", self.info.number());
        }
    }
}

fn open_control() -> Result<File, UblkError> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL_PATH);
    control.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => UblkError::NoDriver,
        // A node of a driver that is not there.
        _ if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => UblkError::NoDriver,
        _ => UblkError::NotAllowed { error },
    })
}

fn is_permission(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Sends a command and waits until it is done.
///
/// # Safety
/// What the header names is memory that the driver may read and write until the call returns.
unsafe fn command(control: &File, number: u32, header: [u8; 80]) -> io::Result<()> {
    let mut ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder().build(2)?;
    let entry = opcode::UringCmd80::new(types::Fd(control.as_raw_fd()), number).cmd(header).build();
    // SAFETY: the memory is valid until the call returns by the caller's promise, and it returns when the command is done.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(done) = ring.completion().next() {
            return match done.result() {
                0.. => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            };
        }
    }
}
