//! vhost-user messages by hand, right or wrong.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::net::UnixStream,
};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// VERSION_1 and the protocol's own features.
const FEATURES: u64 = 1 << 32 | 1 << 30;

/// A part of memory as a table names it.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub guest: u64,
    pub bytes: u64,
    pub user: u64,
    pub offset: u64,
}

pub fn send(stream: &UnixStream, code: u32, payload: &[u8], files: &[OwnedFd]) -> io::Result<()> {
    let header = [code, 1, payload.len() as u32].map(u32::to_ne_bytes).concat();
    let files: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let sent = stream.send_with_fds(&[&[header.as_slice(), payload].concat()[..]], &files);
    sent.map(drop).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// SET_OWNER and SET_FEATURES.
pub fn begin(stream: &UnixStream) -> io::Result<()> {
    send(stream, 3, &[], &[])?;
    send(stream, 2, &FEATURES.to_ne_bytes(), &[])
}

/// SET_MEM_TABLE, each region in a file of its own: as many times the same one.
pub fn set_table(stream: &UnixStream, regions: &[Region], file: OwnedFd) -> io::Result<()> {
    let mut payload = [regions.len() as u32, 0].map(u32::to_ne_bytes).concat();
    for Region { guest, bytes, user, offset } in regions {
        payload.extend([*guest, *bytes, *user, *offset].map(u64::to_ne_bytes).concat());
    }
    let files: Vec<_> = regions.iter().map(|_| file.try_clone()).collect::<io::Result<_>>()?;
    quietly(send(stream, 5, &payload, &files))
}

/// A ring whose parts are at the start of a region, with a descriptor that has been kicked.
pub fn start_ring(stream: &UnixStream, ring: u32, user: u64) -> io::Result<()> {
    let state = |number: u32| [ring, number].map(u32::to_ne_bytes).concat();
    quietly(send(stream, 8, &state(64), &[]))?;
    quietly(send(stream, 10, &state(0), &[]))?;
    let addresses = [user, user + 0x2000, user + 0x1000, 0].map(u64::to_ne_bytes).concat();
    quietly(send(stream, 9, &[state(0), addresses].concat(), &[]))?;
    for code in [13, 12] {
        // SAFETY: makes a new descriptor, or -1.
        let event = unsafe { owned(libc::eventfd(1, libc::EFD_CLOEXEC)) }?;
        quietly(send(stream, code, &u64::from(ring).to_ne_bytes(), &[event]))?;
    }
    quietly(send(stream, 18, &state(1), &[]))
}

/// So many messages of a session that begins as it should.
pub fn converse(stream: &UnixStream, messages: usize) -> io::Result<()> {
    let table = {
        let region = [1u64 << 20, 1 << 20, 1 << 30, 0].map(u64::to_ne_bytes).concat();
        [[1u32, 0].map(u32::to_ne_bytes).concat(), region].concat()
    };
    let state = |number: u32| [0, number].map(u32::to_ne_bytes).concat();
    let steps: [(u32, Vec<u8>, bool); 11] = [
        (3, vec![], false),
        (1, vec![], false),
        (2, FEATURES.to_ne_bytes().to_vec(), false),
        (15, vec![], false),
        (16, 9u64.to_ne_bytes().to_vec(), false),
        (5, table, true),
        (8, state(64), false),
        (10, state(0), false),
        (13, 0u64.to_ne_bytes().to_vec(), true),
        (12, 0u64.to_ne_bytes().to_vec(), true),
        (18, state(1), false),
    ];
    for (code, payload, has_file) in steps.into_iter().take(messages) {
        let files = if has_file { vec![memory(1 << 20)?] } else { Vec::new() };
        quietly(send(stream, code, &payload, &files))?;
    }
    Ok(())
}

/// A file of so many bytes that only memory has.
pub fn memory(bytes: u64) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a zero; makes a new descriptor, or -1.
    let file = unsafe { owned(libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC)) }?;
    std::fs::File::from(file.try_clone()?).set_len(bytes)?;
    Ok(file)
}

/// What a system call gave. Errors: its own.
///
/// # Safety
/// Nobody else has the descriptor.
pub unsafe fn owned(descriptor: i32) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as the caller says.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whoever is hung up on in the middle of it has been answered.
fn quietly(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(())
        }
        result => result,
    }
}
