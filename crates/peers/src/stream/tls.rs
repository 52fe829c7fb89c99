//! TLS of which one half can wait while the other works.
//!
//! rustls keeps both directions in one state. Its lock is held for computation alone, never while a thread waits in the socket: what comes
//! is received into a buffer of the receiver's first, and what goes is encrypted into one of the sender's and sent after that.
//!
//! Locks are taken in the order sender, state; the receiver takes the state alone, and the sender's only if nobody has it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustls::Connection;

use super::recv_if_there;

/// What is received at once, in bytes: a few records.
const RECEIVED_BYTES: usize = 64 << 10;

/// What is encrypted before it is sent, in bytes of what is said. rustls holds no more than this.
const SENT_BYTES: usize = 64 << 10;

pub(super) struct Tls {
    state: Mutex<Connection>,
    incoming: Mutex<Incoming>,
    /// Encrypted and not yet sent. Whoever sends has it.
    outgoing: Mutex<Vec<u8>>,
}

/// What came and rustls has not taken yet.
struct Incoming {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Tls {
    pub(super) fn over(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(2 * SENT_BYTES));
        let buffer = vec![0; RECEIVED_BYTES].into_boxed_slice();
        Self {
            state: Mutex::new(connection),
            incoming: Mutex::new(Incoming { buffer, start: 0, end: 0 }),
            outgoing: Mutex::default(),
        }
    }

    pub(super) fn receive(&self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        self.receive_by(socket, into, |mut socket, into| socket.read(into))
    }

    /// As [`Self::receive`], of what is there already; `WouldBlock`: nothing.
    pub(super) fn receive_if_there(&self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        self.receive_by(socket, into, recv_if_there)
    }

    fn receive_by(
        &self,
        socket: &TcpStream,
        into: &mut [u8],
        receive: impl Fn(&TcpStream, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut incoming = lock(&self.incoming);
        loop {
            match self.decrypt(&mut incoming, socket, into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let incoming = &mut *incoming;
            // After an error there is nothing to be read again.
            (incoming.start, incoming.end) = (0, 0);
            incoming.end = receive(socket, &mut incoming.buffer)?;
            if incoming.end == 0 {
                // Without a goodbye a frame may be cut off; whoever reads frames sees that.
                return Ok(0);
            }
        }
    }

    /// Gives what can be had without waiting; `WouldBlock`: nothing.
    fn decrypt(&self, incoming: &mut Incoming, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.state);
        loop {
            match state.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if incoming.start == incoming.end {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            incoming.start += state.read_tls(&mut &incoming.buffer[incoming.start..incoming.end])?;
            let processed = state.process_new_packets();
            if state.wants_write() {
                // An alert, or an answer to new keys. If somebody is sending, it goes with the next that is sent.
                drop(state);
                if let Ok(mut outgoing) = self.outgoing.try_lock() {
                    self.encrypt(&[], &mut outgoing)?;
                    let sent = (&mut &*socket).write_all(&outgoing);
                    outgoing.clear();
                    sent?;
                }
                state = lock(&self.state);
            }
            processed.map_err(io::Error::other)?;
        }
    }

    pub(super) fn send(&self, socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        for part in bytes.chunks(SENT_BYTES) {
            self.encrypt(part, &mut outgoing)?;
            let sent = (&mut &*socket).write_all(&outgoing);
            outgoing.clear();
            sent?;
        }
        Ok(())
    }

    fn encrypt(&self, mut bytes: &[u8], outgoing: &mut Vec<u8>) -> io::Result<()> {
        let mut state = lock(&self.state);
        while !bytes.is_empty() || state.wants_write() {
            let taken = state.writer().write(bytes)?;
            bytes = &bytes[taken..];
            while state.wants_write() {
                state.write_tls(outgoing)?;
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
