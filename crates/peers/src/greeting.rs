//! Who is there: the hellos that both sides say first.

use std::{
    io,
    time::{Duration, Instant},
};

use tmem_cluster::{
    Epoch, NodeName,
    wire::{HELLO_BYTES, Hello, WireError},
};

use crate::{
    error::{PeerError, readable},
    stream::{Stream, left},
};

/// Who this node is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn with the cluster.
    pub cluster: u128,
    /// Its name.
    pub name: NodeName,
    /// In which stretch of its life it is.
    pub epoch: Epoch,
}

impl Identity {
    /// What this node says first, with the number that was drawn with its store.
    pub fn hello(&self, store: u64) -> Hello {
        Hello { cluster: self.cluster, name: self.name, epoch: self.epoch, store }
    }

    /// Hears the peer's hello, within about `time`, and nothing after it. The stream has no times set after that.
    ///
    /// # Errors
    /// It is none, or of another cluster; the peer has this node's name, or a certificate for another one than it says.
    pub fn hear(&self, stream: &Stream, time: Duration) -> Result<Hello, PeerError> {
        let io = PeerError::io(stream.remote());
        let wire = PeerError::wire(stream.remote());
        let deadline = Instant::now() + time;
        let (mut bytes, mut got) = ([0; HELLO_BYTES], 0);
        let hello = loop {
            match Hello::decode(&bytes[..got], self.cluster) {
                Err(error) => return Err(wire(error)),
                Ok(Some(hello)) => break hello,
                Ok(None) => {}
            }
            stream.set_times(Some(left(deadline).map_err(&io)?), Some(time)).map_err(&io)?;
            match stream.receive(&mut bytes[got..]) {
                Ok(0) => return Err(wire(WireError::Cut)),
                Ok(count) => got += count,
                Err(error) if is_only_later(&error) => {}
                Err(error) => return Err(io(error)),
            }
        };
        stream.set_times(None, None).map_err(&io)?;
        self.check(stream, &hello).map(|()| hello)
    }

    fn check(&self, stream: &Stream, hello: &Hello) -> Result<(), PeerError> {
        if hello.name == self.name {
            return Err(PeerError::DuplicateName {
                name: self.name.to_string(),
                local: readable(stream.local()),
                remote: stream.remote().to_owned(),
            });
        }
        match stream.certified() {
            Some(certified) if certified != hello.name.as_str() => Err(PeerError::Certificate {
                address: stream.remote().to_owned(),
                name: hello.name.to_string(),
                certified: certified.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// Says a hello.
///
/// # Errors
/// The connection is broken.
pub fn say(stream: &Stream, hello: &Hello) -> Result<(), PeerError> {
    stream.send(&hello.encode()).map_err(PeerError::io(stream.remote()))
}

/// Whether an error of a socket says nothing but that a time was up.
pub(crate) fn is_only_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
