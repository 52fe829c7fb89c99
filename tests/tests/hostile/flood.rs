//! Thousands of connections that do nothing.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Connects without waiting. Errors: `WouldBlock` where those that were not accepted yet are as many as the socket takes.
fn knock(socket: &Path) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: makes a new descriptor, or returns -1.
    let descriptor = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(socket.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is valid for its length.
    match unsafe { libc::connect(descriptor.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(descriptor),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes so many connections, waiting for the server to accept where it has to, and keeps all of them.
pub fn connections(socket: &Path, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        match knock(socket) {
            Ok(connection) => held.push(connection),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}
