//! A virtqueue shared by its worker and the control thread, and the descriptors that wake each side.
//!
//! The ring itself is the library's `VringMutex`. What is added here:
//! - The worker holds the lock for a batch of requests at a time, and a std mutex lets a thread that
//!   releases and takes it in a loop starve all others. So control messages announce themselves, and the
//!   worker stands back until they are through.
//! - No call on a descriptor that the peer gave us may block: the peer has the other end, and it may have
//!   given us anything at all. The lock is held during the call, so blocking would hang the connection.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error as QueueError;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::lost_memory;

/// The guest's memory, replaced as a whole when the peer sends another table.
pub(crate) type SharedMemory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Wake-ups without a kick to read before the descriptor counts as broken. An honest eventfd has none.
const MAX_EMPTY_KICKS: u32 = 100;

/// One virtqueue.
#[derive(Clone)]
pub(crate) struct BlkVring {
    ring: VringMutex<SharedMemory>,
    memory: SharedMemory,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Control messages that hold the lock or wait for it.
    control: AtomicU32,
    /// Grows with every control message.
    changes: AtomicU32,
    /// The ring made no sense. Cleared when the ring is started anew.
    broken: AtomicBool,
    /// Wake-ups in a row that had no kick behind them.
    empty_kicks: AtomicU32,
    /// The call descriptor is a socket, not an eventfd.
    call_is_socket: AtomicBool,
    /// The guest has yet to be told of what is used.
    owes_signal: AtomicBool,
}

impl BlkVring {
    /// The lock, for the worker: after all control messages that wait for it.
    pub(crate) fn lock_to_serve(&self) -> <BlkVring as VringStateMutGuard<'_, SharedMemory>>::G {
        while self.control_waits() {
            std::thread::yield_now();
        }
        self.ring.get_mut()
    }

    /// Whether a control message waits for the lock.
    pub(crate) fn control_waits(&self) -> bool {
        self.shared.control.load(Ordering::Relaxed) != 0
    }

    /// A number that changes with every control message.
    pub(crate) fn changes(&self) -> u32 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Stops serving the ring until it is set up again.
    pub(crate) fn set_broken(&self) {
        self.shared.broken.store(true, Ordering::Relaxed);
    }

    /// Whether the ring made no sense.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// The guest is to be told of used buffers: at the next [`Self::pay_signal`], or when a control message comes, which may end the ring.
    pub(crate) fn owe_signal(&self) {
        self.shared.owes_signal.store(true, Ordering::Relaxed);
    }

    pub(crate) fn owes_signal(&self) -> bool {
        self.shared.owes_signal.load(Ordering::Relaxed)
    }

    /// Tells the guest, if that is owed.
    pub(crate) fn pay_signal(&self, ring: &VringState<SharedMemory>) -> io::Result<()> {
        if self.shared.owes_signal.swap(false, Ordering::Relaxed) { self.signal(ring) } else { Ok(()) }
    }

    /// Tells the guest of used buffers, for whoever holds the lock.
    fn signal(&self, ring: &VringState<SharedMemory>) -> io::Result<()> {
        match ring.get_call() {
            Some(call) => signal(call.as_raw_fd(), self.shared.call_is_socket.load(Ordering::Relaxed)),
            None => Ok(()),
        }
    }

    /// Runs a control message's part.
    fn control<R>(&self, message: impl FnOnce(&VringMutex<SharedMemory>) -> R) -> R {
        self.shared.control.fetch_add(1, Ordering::Relaxed);
        if self.owes_signal() {
            // Whoever sends such messages has ended the descriptor if this fails.
            let _ = self.pay_signal(&self.ring.get_ref());
        }
        let result = message(&self.ring);
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
        self.shared.control.fetch_sub(1, Ordering::Relaxed);
        result
    }
}

impl<'a> VringStateGuard<'a, SharedMemory> for BlkVring {
    type G = <VringMutex<SharedMemory> as VringStateGuard<'a, SharedMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, SharedMemory> for BlkVring {
    type G = <VringMutex<SharedMemory> as VringStateMutGuard<'a, SharedMemory>>::G;
}

impl VringT<SharedMemory> for BlkVring {
    fn new(memory: SharedMemory, max_queue_size: u16) -> Result<BlkVring, QueueError> {
        let ring = VringMutex::new(memory.clone(), max_queue_size)?;
        Ok(BlkVring { ring, memory, shared: Arc::default() })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, SharedMemory>>::G {
        self.shared.control.fetch_add(1, Ordering::Relaxed);
        let guard = self.ring.get_ref();
        self.shared.control.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, SharedMemory>>::G {
        self.shared.control.fetch_add(1, Ordering::Relaxed);
        let guard = self.ring.get_mut();
        self.shared.control.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), QueueError> {
        self.ring.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.signal(&self.ring.get_ref())
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.ring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.ring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.ring.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.control(|ring| ring.set_enabled(enabled));
    }

    fn set_queue_info(&self, descriptors: u64, available: u64, used: u64) -> Result<(), QueueError> {
        self.control(|ring| ring.set_queue_info(descriptors, available, used))
    }

    fn queue_next_avail(&self) -> u16 {
        self.control(|ring| ring.queue_next_avail())
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.control(|ring| ring.set_queue_next_avail(base));
    }

    /// Requests are served in order, so those that the used index counts are done and those after it are not, whatever the peer or a
    /// process before this one remembers. A base that is set after the addresses wins.
    fn set_queue_next_used(&self, index: u16) {
        self.control(|ring| {
            ring.set_queue_next_used(index);
            ring.set_queue_next_avail(index);
        });
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        let (memory, lost) = (self.memory.memory(), AtomicBool::new(false));
        let index = lost_memory::watch(&memory, &lost, || self.control(|ring| ring.queue_used_idx()))?;
        if lost.into_inner() {
            self.set_broken();
            return Err(QueueError::InvalidChain);
        }
        Ok(index)
    }

    fn set_queue_size(&self, size: u16) {
        self.control(|ring| ring.set_queue_size(size));
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.control(|ring| ring.set_queue_event_idx(enabled));
    }

    fn set_queue_ready(&self, ready: bool) {
        self.control(|ring| {
            self.shared.broken.store(false, Ordering::Relaxed);
            ring.set_queue_ready(ready);
        });
    }

    fn set_kick(&self, file: Option<File>) {
        self.control(|ring| ring.set_kick(file));
    }

    /// Takes the kick that woke the worker. An error ends the worker, so it is one only where the
    /// descriptor would otherwise wake it again and again.
    fn read_kick(&self) -> io::Result<bool> {
        let ring = self.ring.get_ref();
        if let Some(kick) = ring.get_kick() {
            if take_kick(kick.as_raw_fd())? {
                self.shared.empty_kicks.store(0, Ordering::Relaxed);
            } else if self.shared.empty_kicks.fetch_add(1, Ordering::Relaxed) >= MAX_EMPTY_KICKS {
                return Err(io::Error::other("the kick descriptor wakes without a kick"));
            }
        }
        Ok(ring.is_enabled())
    }

    fn set_call(&self, file: Option<File>) {
        let socket = file.as_ref().is_some_and(is_socket);
        self.control(|ring| {
            self.shared.call_is_socket.store(socket, Ordering::Relaxed);
            ring.set_call(file);
        });
    }

    fn set_err(&self, file: Option<File>) {
        self.control(|ring| ring.set_err(file));
    }
}

fn is_socket(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Tells the guest that there are used buffers, through an eventfd, or a socket as user-mode Linux has it.
/// A descriptor that is full has told it already.
fn signal(call: RawFd, socket: bool) -> io::Result<()> {
    let one = 1u64.to_ne_bytes();
    let written = if socket {
        // SAFETY: the buffer is valid for its length.
        unsafe { libc::send(call, one.as_ptr().cast(), one.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    } else {
        // The descriptor's flags are the peer's, who may count on blocking reads. So they stay as they are,
        // and a write that would block is not begun.
        let mut poll = libc::pollfd { fd: call, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid pollfd; a timeout of 0 returns at once.
        if unsafe { libc::poll(&mut poll, 1, 0) } == 0 {
            return Ok(());
        }
        // SAFETY: the buffer is valid for its length.
        unsafe { libc::write(call, one.as_ptr().cast(), one.len()) }
    };
    if written >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EAGAIN) { Ok(()) } else { Err(error) }
}

/// Reads the kick without ever waiting for one. Whether there was one.
fn take_kick(kick: RawFd) -> io::Result<bool> {
    let mut count = [0u8; 8];
    let buffer = libc::iovec { iov_base: count.as_mut_ptr().cast(), iov_len: count.len() };
    // SAFETY: the buffer is valid for its length. Offset -1 is the file's own position.
    let read = unsafe { libc::preadv2(kick, &buffer, 1, -1, libc::RWF_NOWAIT) };
    if read == count.len() as isize {
        return Ok(true);
    }
    if read >= 0 {
        return Err(io::Error::other("the kick descriptor is no eventfd, or was closed"));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn eventfd(count: u32, flags: libc::c_int) -> OwnedFd {
        // SAFETY: makes a new descriptor that nobody else owns.
        unsafe { OwnedFd::from_raw_fd(libc::eventfd(count, flags)) }
    }

    #[test]
    fn a_kick_is_taken_once_and_never_waited_for() {
        for flags in [0, libc::EFD_NONBLOCK] {
            let kick = eventfd(3, flags);
            assert!(take_kick(kick.as_raw_fd()).unwrap());
            assert!(!take_kick(kick.as_raw_fd()).unwrap());
        }
    }

    #[test]
    fn a_closed_or_wrong_kick_descriptor_is_an_error() {
        let (ours, theirs) = std::io::pipe().unwrap();
        drop(theirs);
        assert!(take_kick(ours.as_raw_fd()).is_err());
        let directory = File::open("/").unwrap();
        assert!(take_kick(directory.as_raw_fd()).is_err());
    }

    #[test]
    fn signals_never_block() {
        let full = eventfd(0, 0);
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: the buffer is valid for its length.
        assert_eq!(unsafe { libc::write(full.as_raw_fd(), most.as_ptr().cast(), 8) }, 8);
        signal(full.as_raw_fd(), false).unwrap();

        let (ours, _theirs) = UnixStream::pair().unwrap();
        for _ in 0..100_000 {
            signal(ours.as_raw_fd(), true).unwrap();
        }
    }
}
