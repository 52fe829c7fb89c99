//! The service manager that started this process: datagrams to the socket that it names, as sd_notify(3) says. It never answers.

use std::{
    env,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

/// Where the manager listens.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// What happens while the manager has too much to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Busy {
    /// It is waited for.
    Wait,
    /// It is not told, which is an error.
    Skip,
}

/// See the module.
#[derive(Debug)]
pub struct Manager {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl Manager {
    /// The manager that started this process, if one did.
    ///
    /// # Errors
    /// Its address makes no sense, or there are no descriptors left.
    pub fn from_environment(busy: Busy) -> io::Result<Option<Manager>> {
        env::var_os(VARIABLE).map(|address| Manager::at(address.as_bytes(), busy)).transpose()
    }

    /// The one that listens at a path, or at a name that begins with `@`.
    fn at(address: &[u8], busy: Busy) -> io::Result<Manager> {
        let address = match address {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path => SocketAddrUnix::new(path)?,
        };
        let flags = match busy {
            Busy::Wait => SocketFlags::CLOEXEC,
            Busy::Skip => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Manager { socket, address })
    }

    /// Tells it lines such as `READY=1`.
    ///
    /// # Errors
    /// It does not listen, or is busy.
    pub fn tell(&self, lines: &[u8]) -> io::Result<()> {
        self.tell_with(lines, &[])
    }

    /// The same with descriptors, two at most.
    pub(crate) fn tell_with(&self, lines: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parts = [IoSlice::new(lines)];
        rustix::net::sendmsg_addr(&self.socket, &self.address, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    };

    use super::*;

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("tmem-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            SocketAddr::from_abstract_name(&name).and_then(|a| UnixDatagram::bind_addr(&a)).unwrap();
        let path = path.as_os_str().as_bytes().to_vec();
        for (socket, address) in [(by_path, path), (by_name, format!("@{name}").into_bytes())] {
            for busy in [Busy::Wait, Busy::Skip] {
                Manager::at(&address, busy).unwrap().tell(b"READY=1").unwrap();
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"READY=1");
            }
        }
        assert!(Manager::at(b"/nowhere/notify", Busy::Wait).unwrap().tell(b"READY=1").is_err());
        assert!(Manager::at(&[b'x'; 200], Busy::Wait).is_err());
    }
}
