//! A connected socket, of either kind.

use std::{
    io,
    net::TcpStream,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use crate::link::{Link, Wait};

/// A connected socket that blocks. Clones are the same socket: one may end it while another waits in it.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    descriptor: Arc<OwnedFd>,
    /// From then on nothing is sent or received any more.
    deadline: Option<Instant>,
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { descriptor: Arc::new(stream.into()), deadline: None }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { descriptor: Arc::new(stream.into()), deadline: None }
    }
}

impl Socket {
    /// Receiving and sending fail with `TimedOut` from then on, or never.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Ends the connection: whoever waits in it, or will, learns so at once.
    pub(crate) fn shut_down(&self) {
        // It fails where the peer has ended the connection already.
        // SAFETY: a valid descriptor.
        unsafe { libc::shutdown(self.descriptor.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// Sends some of the bytes.
    pub(crate) fn send_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait_for(libc::POLLOUT)?;
            let flags = libc::MSG_NOSIGNAL | if self.deadline.is_some() { libc::MSG_DONTWAIT } else { 0 };
            // SAFETY: the bytes are readable for their length.
            let sent =
                unsafe { libc::send(self.descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
            match done(sent) {
                // Another thread cannot have taken the room; but it costs nothing to look again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.deadline.is_some() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Receives some bytes.
    pub(crate) fn receive_some(&self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        loop {
            if wait == Wait::Yes {
                self.wait_for(libc::POLLIN)?;
            }
            let flags = if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
            // SAFETY: the buffer is writable for its length.
            let received = unsafe {
                libc::recv(self.descriptor.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags)
            };
            match done(received) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// With a deadline, waits until it or until the socket is ready. Without one, the call itself will wait.
    fn wait_for(&self, events: libc::c_short) -> io::Result<()> {
        let Some(deadline) = self.deadline else { return Ok(()) };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Rounded up, so that it does not wake just before the deadline, over and over.
            let left_ms = (left + Duration::from_millis(1)).as_millis();
            let timeout = libc::c_int::try_from(left_ms).unwrap_or(libc::c_int::MAX);
            let mut polled = libc::pollfd { fd: self.descriptor.as_raw_fd(), events, revents: 0 };
            // SAFETY: a set of one.
            match done(unsafe { libc::poll(&raw mut polled, 1, timeout) } as isize) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }
}

fn done(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl Link for Socket {
    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        self.receive_some(buffer, wait)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.send_some(rest)?..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Socket, Socket) {
        let (one, other) = UnixStream::pair().unwrap();
        (one.into(), other.into())
    }

    #[test]
    fn a_deadline_ends_waiting_either_way() {
        let (mut one, _other) = pair();
        one.set_deadline(Some(Instant::now() + Duration::from_millis(20)));
        let received = one.receive(&mut [0], Wait::Yes).unwrap_err();
        assert_eq!(received.kind(), io::ErrorKind::TimedOut);
        one.set_deadline(Some(Instant::now() + Duration::from_millis(20)));
        let sent = one.send(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(sent.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn shutting_down_wakes_whoever_waits() {
        let (one, _other) = pair();
        let mut same = one.clone();
        let waiting = std::thread::spawn(move || same.receive(&mut [0], Wait::Yes));
        one.shut_down();
        assert_eq!(waiting.join().unwrap().unwrap(), 0);
        assert!(one.clone().send(&[0]).is_err());
    }

    #[test]
    fn what_is_not_there_would_block() {
        let (mut one, mut other) = pair();
        assert_eq!(one.receive(&mut [0; 8], Wait::No).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        other.send(b"abc").unwrap();
        assert_eq!(one.receive(&mut [0; 8], Wait::No).unwrap(), 3);
    }
}
