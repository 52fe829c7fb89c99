//! What is held: descriptors by name, and guests' connections.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::OFlags,
    io::Errno,
    net::{SendFlags, SocketFlags},
};

use crate::{
    errands::Errands,
    fd_store::{FdStore, Stored},
    log_lines::say,
    parcel::Kind,
    relay::{Flow, Relay},
    session::Session,
    wire::{self, Code, Datagram, Exactly, Name, Reason},
};

/// Most files and sockets: two for each of some thousand disks.
pub const MAX_FILES: usize = 8192;
/// Most guests at one time, one for each label. Each takes 40 KiB of memory from when it comes.
pub const MAX_CONNECTIONS: usize = 256;

struct Kept {
    name: Name,
    descriptor: OwnedFd,
    stored: Option<Stored>,
}

struct Guest {
    number: u32,
    relay: Relay,
    stored: Option<Stored>,
}

/// See the module.
pub(crate) struct Holder {
    files: Vec<Kept>,
    guests: Vec<Guest>,
    last_number: u32,
    store: Option<FdStore>,
    /// Parcels that the service manager was too busy to take.
    untold: bool,
    errands: Errands,
}

impl Holder {
    /// Takes all the memory it will ever need. What is held is with the service manager, too, if there is one.
    pub(crate) fn new(errands: Errands, store: Option<FdStore>) -> Holder {
        Holder {
            files: Vec::with_capacity(MAX_FILES),
            guests: Vec::with_capacity(MAX_CONNECTIONS),
            last_number: 0,
            store,
            untold: false,
            errands,
        }
    }

    /// Takes up what a keeper before this one has left with the service manager.
    pub(crate) fn take_up(&mut self, left: Vec<Stored>) {
        for stored in left {
            let mut session = Session::default();
            match stored.parcel.look(|message, descriptors| session.note_told(message, descriptors)) {
                Ok(Some((Kind::File, name, descriptor))) if self.files.len() < MAX_FILES => {
                    self.errands.know_again(descriptor.as_fd());
                    self.files.push(Kept { name, descriptor, stored: Some(stored) });
                }
                Ok(Some((Kind::Guest, label, guest))) if self.guests.len() < MAX_CONNECTIONS => {
                    let relay = Relay::with_session(label, guest, session);
                    self.last_number += 1;
                    self.guests.push(Guest { number: self.last_number, relay, stored: Some(stored) });
                }
                Ok(_) => {
                    say(format_args!("warn: something that was held is not understood, and let go of"));
                    withdraw(self.store.as_ref(), Some(stored));
                }
                Err(error) => say(format_args!("error: something that was held is lost: {}", Reason(&error))),
            }
        }
    }

    /// Whether anything is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.guests.is_empty()
    }

    /// How many files and guests are held.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.files.len(), self.guests.len())
    }

    /// Nobody will follow: what the service manager has is of no use.
    pub(crate) fn let_go(&mut self) {
        let stored = self.files.drain(..).map(|file| file.stored);
        let stored = stored.chain(self.guests.drain(..).map(|guest| guest.stored));
        stored.for_each(|stored| withdraw(self.store.as_ref(), stored));
    }

    /// Tells the service manager what it was too busy for. False: it still is.
    pub(crate) fn tell_manager(&mut self) -> bool {
        if let Some(store) = self.store.as_ref().filter(|_| self.untold) {
            let files = self.files.iter_mut().filter_map(|file| file.stored.as_mut());
            let guests = self.guests.iter_mut().filter_map(|guest| guest.stored.as_mut());
            self.untold = !files.chain(guests).all(|stored| store.tell(stored));
        }
        !self.untold
    }

    /// A parcel for something new.
    fn parcel(&mut self, name: &[u8]) -> Option<Stored> {
        match self.store.as_mut()?.add() {
            Ok(stored) => {
                self.untold |= !stored.is_told;
                Some(stored)
            }
            Err(error) => {
                tell_unsafe(name, &error);
                None
            }
        }
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
        let store = self.store.as_ref();
        let mut entries = polled.chunks_exact(2);
        self.guests.retain_mut(|guest| {
            let Some(entries) = entries.next() else { return true };
            if entries.iter().all(|entry| entry.revents == 0) {
                return true;
            }
            // From here on the guest has said something that is not in it.
            guest.stored.iter().for_each(|stored| stored.parcel.empty());
            let stays = match guest.relay.pass_on(entries) {
                Ok(flow) => flow == Flow::Open,
                Err(error) => {
                    guest.relay.tell_broken();
                    told(&guest.relay.label, &error);
                    false
                }
            };
            if stays {
                guest.pack();
            } else {
                withdraw(store, guest.stored.take());
            }
            stays
        });
    }

    /// Does what a worker asks for and answers. Errors: the worker cannot be answered.
    pub(crate) fn serve(&mut self, call: Datagram, worker: BorrowedFd<'_>) -> io::Result<()> {
        let result = match call.code {
            Code::List => return self.list(worker),
            Code::Keep => self.keep(call),
            Code::Release => {
                let gone = self.files.extract_if(.., |file| file.name == call.name);
                gone.for_each(|file| withdraw(self.store.as_ref(), file.stored));
                Ok(0)
            }
            Code::Adopt => self.adopt(call),
            Code::Attach => self.attach(call),
            Code::Close => {
                self.close(|guest| guest.number == call.number);
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
            file.pack();
        } else if self.files.len() < MAX_FILES {
            let stored = self.parcel(&name);
            let file = Kept { name, descriptor, stored };
            file.pack();
            self.files.push(file);
        } else {
            return Err(Errno::NOSPC);
        }
        Ok(0)
    }

    fn adopt(&mut self, call: Datagram) -> Result<u32, Errno> {
        let Datagram { name, descriptors, .. } = call;
        let [guest, library, life] = descriptors.exactly()?;
        let listens = rustix::net::sockopt::socket_acceptconn(&guest)?;
        // A label has one guest. Whoever brings another has lost sight of the one before, and so would every worker to come.
        self.close(|guest| guest.relay.label == name);
        if self.guests.len() >= MAX_CONNECTIONS {
            return Err(Errno::NOSPC);
        }
        let guest = if listens { accept(&guest)? } else { guest };
        // A late word about one that is gone must not meet another, so a number comes again after all others.
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if self.guests.iter().all(|guest| guest.number != self.last_number) {
                break;
            }
        }
        let stored = self.parcel(&name);
        let guest = Guest { number: self.last_number, relay: Relay::new(name, guest, library, life), stored };
        guest.pack();
        self.guests.push(guest);
        Ok(self.last_number)
    }

    fn close(&mut self, is_meant: impl Fn(&Guest) -> bool) {
        let gone = self.guests.extract_if(.., |guest| is_meant(guest));
        gone.for_each(|guest| withdraw(self.store.as_ref(), guest.stored));
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

impl Kept {
    fn pack(&self) {
        let Some(stored) = &self.stored else { return };
        let packed = stored.parcel.fill(Kind::File, &self.name, self.descriptor.as_fd(), |_| Ok(()));
        packed.unwrap_or_else(|error| tell_unsafe(&self.name, &error));
    }
}

impl Guest {
    fn pack(&self) {
        let Some(stored) = &self.stored else { return };
        let packed = self.relay.pack(&stored.parcel);
        packed.unwrap_or_else(|error| tell_unsafe(&self.relay.label, &error));
    }
}

/// Never waits. Whoever waits to be taken is not lost if the worker dies before it has asked for that, and held from then on.
fn accept(listener: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::fcntl_setfl(listener, rustix::fs::fcntl_getfl(listener)? | OFlags::NONBLOCK)?;
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC)
}

fn withdraw(store: Option<&FdStore>, stored: Option<Stored>) {
    if let Some((store, stored)) = store.zip(stored) {
        store.withdraw(stored);
    }
}

fn tell_unsafe(name: &[u8], error: &io::Error) {
    say(format_args!("warn: {} would be lost if the keeper died: {}", name.escape_ascii(), Reason(error)));
}

/// Answers a call.
pub(crate) fn answer(worker: BorrowedFd<'_>, result: Result<u32, Errno>) -> io::Result<()> {
    let (code, number) = match result {
        Ok(number) => (Code::Done, number),
        Err(error) => (Code::Refused, error.raw_os_error() as u32),
    };
    wire::send(worker, code, number, &[], &[], SendFlags::empty())
}
