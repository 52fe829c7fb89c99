//! What is held: descriptors by name, and guests' connections.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{io::Errno, net::SendFlags};

use crate::{
    errands::Errands,
    relay::{Flow, Relay},
    wire::{self, Code, Datagram, Exactly, Name},
};

/// Most files and sockets: two for each of some thousand disks.
pub const MAX_FILES: usize = 8192;
/// Most guests at one time, one for each label. Each takes 40 KiB of memory from when it comes.
pub const MAX_CONNECTIONS: usize = 256;

struct Kept {
    name: Name,
    descriptor: OwnedFd,
}

struct Guest {
    number: u32,
    relay: Relay,
}

/// See the module.
pub(crate) struct Holder {
    files: Vec<Kept>,
    guests: Vec<Guest>,
    last_number: u32,
    errands: Errands,
}

impl Holder {
    /// Takes all the memory it will ever need. `tier` is the path that may be opened; `is_process`: this process is a keeper and nothing else.
    pub(crate) fn new(tier: Option<PathBuf>, is_process: bool) -> io::Result<Holder> {
        Ok(Holder {
            files: Vec::with_capacity(MAX_FILES),
            guests: Vec::with_capacity(MAX_CONNECTIONS),
            last_number: 0,
            errands: Errands::new(tier, is_process)?,
        })
    }

    /// Some child has ended.
    pub(crate) fn reap(&mut self) {
        self.errands.reap();
    }

    /// The worker is gone.
    pub(crate) fn detach_all(&mut self) {
        self.guests.iter_mut().for_each(|guest| guest.relay.detach());
    }

    /// Adds what the connections wait for, two entries each.
    pub(crate) fn add_to(&self, polled: &mut Vec<libc::pollfd>) {
        self.guests.iter().for_each(|guest| polled.extend(guest.relay.poll_set()));
    }

    /// How many entries that may be at most.
    pub(crate) const MAX_POLLED: usize = 2 * MAX_CONNECTIONS;

    /// Passes on what is there. `polled` is what [`Holder::add_to`] added, after waiting. `told` is called for each guest that was turned away.
    pub(crate) fn pass_on(
        &mut self,
        polled: &[libc::pollfd],
        told: &mut dyn FnMut(&Name, &dyn std::fmt::Display),
    ) {
        let mut entries = polled.chunks_exact(2);
        self.guests.retain_mut(|guest| {
            let Some(entries) = entries.next() else { return true };
            if entries.iter().all(|entry| entry.revents == 0) {
                return true;
            }
            match guest.relay.pass_on(entries) {
                Ok(flow) => flow == Flow::Open,
                Err(error) => {
                    guest.relay.tell_broken();
                    told(&guest.relay.label, &error);
                    false
                }
            }
        });
    }

    /// Does what a worker asks for and answers. Errors: the worker cannot be answered.
    pub(crate) fn serve(&mut self, call: Datagram, worker: BorrowedFd<'_>) -> io::Result<()> {
        let result = match call.code {
            Code::List => return self.list(worker),
            Code::Keep => self.keep(call),
            Code::Release => {
                self.files.retain(|file| file.name != call.name);
                Ok(0)
            }
            Code::Adopt => self.adopt(call),
            Code::Attach => self.attach(call),
            Code::Close => {
                self.guests.retain(|guest| guest.number != call.number);
                Ok(0)
            }
            Code::Bind | Code::Unbind | Code::BindTcp | Code::OpenTier => self.errands.start(call),
            _ => Err(Errno::OPNOTSUPP),
        };
        answer(worker, result)
    }

    fn keep(&mut self, call: Datagram) -> Result<u32, Errno> {
        let Datagram { name, descriptors, .. } = call;
        let [descriptor] = descriptors.exactly()?;
        if let Some(file) = self.files.iter_mut().find(|file| file.name == name) {
            file.descriptor = descriptor;
        } else if self.files.len() < MAX_FILES {
            self.files.push(Kept { name, descriptor });
        } else {
            return Err(Errno::NOSPC);
        }
        Ok(0)
    }

    fn adopt(&mut self, call: Datagram) -> Result<u32, Errno> {
        let Datagram { name, descriptors, .. } = call;
        let [guest, library, life] = descriptors.exactly()?;
        // A label has one guest. Whoever brings another has lost sight of the one before, and so would every worker to come.
        self.guests.retain(|guest| guest.relay.label != name);
        if self.guests.len() >= MAX_CONNECTIONS {
            return Err(Errno::NOSPC);
        }
        // A late word about one that is gone must not meet another, so a number comes again after all others.
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if self.guests.iter().all(|guest| guest.number != self.last_number) {
                break;
            }
        }
        let relay = Relay::new(name, guest, library, life);
        self.guests.push(Guest { number: self.last_number, relay });
        Ok(self.last_number)
    }

    fn attach(&mut self, call: Datagram) -> Result<u32, Errno> {
        let [library, life] = call.descriptors.exactly()?;
        let guest = self.guests.iter_mut().find(|guest| guest.number == call.number).ok_or(Errno::NOENT)?;
        guest.relay.attach(library, life);
        Ok(call.number)
    }

    /// Says everything that is held. A worker that does not read it is waited for as long as its socket says.
    fn list(&self, worker: BorrowedFd<'_>) -> io::Result<()> {
        for file in &self.files {
            wire::send(worker, Code::File, 0, &file.name, &[file.descriptor.as_fd()], SendFlags::empty())?;
        }
        for guest in &self.guests {
            wire::send(worker, Code::Connection, guest.number, &guest.relay.label, &[], SendFlags::empty())?;
        }
        answer(worker, Ok(0))
    }
}

/// Answers a call.
pub(crate) fn answer(worker: BorrowedFd<'_>, result: Result<u32, Errno>) -> io::Result<()> {
    let (code, number) = match result {
        Ok(number) => (Code::Done, number),
        Err(error) => (Code::Refused, error.raw_os_error() as u32),
    };
    wire::send(worker, code, number, &[], &[], SendFlags::empty())
}
