//! Bytes and the descriptors that come with them, over a Unix socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use arrayvec::ArrayVec;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Most descriptors with one call.
const MAX: usize = crate::vhost_user::MAX_DESCRIPTORS;

/// What one call has received.
pub(crate) struct Received {
    pub(crate) bytes: usize,
    /// A datagram was longer than the buffer.
    pub(crate) is_cut: bool,
    /// Not all descriptors found room, be it in the array or in this process.
    pub(crate) lost_descriptors: bool,
}

/// Sends bytes, as many as are taken, with at most [`MAX`] descriptors. Gives how many.
pub(crate) fn send(
    to: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let parts = [IoSlice::new(bytes)];
    let flags = flags | SendFlags::NOSIGNAL;
    Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(to, &parts, &mut ancillary, flags))?)
}

/// Receives bytes, as many as are there, and adds the descriptors that come with them.
pub(crate) fn receive<const N: usize>(
    from: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut ArrayVec<OwnedFd, N>,
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(from, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)
    })?;
    let mut lost_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for descriptor in rights {
                lost_descriptors |= descriptors.try_push(descriptor).is_err();
            }
        }
    }
    Ok(Received {
        bytes: received.bytes,
        is_cut: received.flags.contains(ReturnFlags::TRUNC),
        lost_descriptors,
    })
}
