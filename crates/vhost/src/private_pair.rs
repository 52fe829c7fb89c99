//! A socket pair for a library that insists on accepting.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
};

/// Others may be faster so often.
const TRIES: usize = 16;

/// A listener with one connection to it already waiting, for a library that insists on accepting. It has a name that the kernel has
/// chosen, and no file: so it takes no right on any directory.
pub(crate) fn private_pair() -> io::Result<(UnixListener, UnixStream)> {
    for _ in 0..TRIES {
        let listener = socket(SocketFlags::CLOEXEC)?;
        bind(&listener, &SocketAddrUnix::new_unnamed())?;
        // Any program of this host can connect there, but there is room for one connection in the queue: if it is not ours, we don't get in.
        listen(&listener, 0)?;
        let stream = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        match connect(&stream, &getsockname(&listener)?) {
            Ok(()) => {
                rustix::io::ioctl_fionbio(&stream, false)?;
                return Ok((listener.into(), stream.into()));
            }
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("other programs take every connection that is made in this one"))
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_pair_is_connected_and_nobody_else_gets_in() {
        let (listener, mut stream) = private_pair().unwrap();
        let address = listener.local_addr().unwrap();
        let other = socket(SocketFlags::NONBLOCK).unwrap();
        assert_eq!(connect(&other, &getsockname(&listener).unwrap()), Err(Errno::AGAIN), "{address:?}");
        let (mut accepted, _) = listener.accept().unwrap();
        io::Write::write_all(&mut stream, b"!").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut accepted, &mut byte).unwrap();
        drop(stream);
        assert_eq!((byte, io::Read::read(&mut accepted, &mut [0]).unwrap()), (*b"!", 0));
    }
}
