//! The service manager's file descriptor store: systemd holds parcels for us, and gives them to the keeper that it starts after this one has
//! died (sd_notify(3), `FDSTORE=1`; sd_listen_fds(3)).
//!
//! The manager never answers, and may be busy. So it is told of a parcel when it takes that, and never has to be told of what changes in one.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write},
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use arrayvec::ArrayVec;

use crate::{
    manager::{Busy, Manager},
    parcel::Parcel,
};

/// Which process is given descriptors, how many, and what they are called.
const LISTEN_PID: &str = "LISTEN_PID";
const LISTEN_COUNT: &str = "LISTEN_FDS";
const LISTEN_NAMES: &str = "LISTEN_FDNAMES";
/// They are this process's alone, not its workers'.
pub(crate) const LISTEN_VARIABLES: [&str; 3] = [LISTEN_PID, LISTEN_COUNT, LISTEN_NAMES];
/// The number of the first one.
const FIRST: RawFd = 3;
/// A parcel's ends are called like this, with its number behind it.
const PREFIX: &str = "tmem-";

/// See the module.
#[derive(Debug)]
pub(crate) struct FdStore {
    manager: Manager,
    last_number: u32,
}

/// A parcel and what the manager knows of it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) parcel: Parcel,
    number: u32,
    pub(crate) is_told: bool,
}

impl FdStore {
    /// The manager that started this process, if one did, and what it held.
    ///
    /// # Errors
    /// Its address makes no sense, or there are no descriptors left.
    pub(crate) fn from_environment() -> io::Result<Option<(FdStore, Vec<Stored>)>> {
        // It may be busy, and nobody waits for it.
        let Some(manager) = Manager::from_environment(Busy::Skip)? else { return Ok(None) };
        let mut store = FdStore { manager, last_number: 0 };
        let mut left = Vec::new();
        for (number, parcel) in ends_left() {
            store.last_number = store.last_number.max(number);
            match parcel {
                Some(parcel) => left.push(Stored { parcel, number, is_told: true }),
                None => store.remove(number),
            }
        }
        Ok(Some((store, left)))
    }

    /// A void parcel that the manager is to hold.
    pub(crate) fn add(&mut self) -> io::Result<Stored> {
        self.last_number = self.last_number.wrapping_add(1);
        let mut stored = Stored { parcel: Parcel::new()?, number: self.last_number, is_told: false };
        self.tell(&mut stored);
        Ok(stored)
    }

    /// Tells the manager of a parcel, if it has not heard of it and is not busy now. False: it is.
    pub(crate) fn tell(&self, stored: &mut Stored) -> bool {
        if !stored.is_told {
            // Ends that nobody reads from would wake the manager up, and it would let go of them.
            let text = format_args!("FDSTORE=1\nFDPOLL=0\nFDNAME={PREFIX}{}", stored.number);
            stored.is_told = self.send(text, Some(&stored.parcel)).is_ok();
        }
        stored.is_told
    }

    /// Has the manager let go of a parcel.
    pub(crate) fn withdraw(&self, stored: Stored) {
        stored.parcel.empty();
        self.remove(stored.number);
    }

    fn remove(&self, number: u32) {
        // A manager that is too busy keeps a parcel that is void.
        let _ = self.send(format_args!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{number}"), None);
    }

    fn send(&self, text: std::fmt::Arguments<'_>, parcel: Option<&Parcel>) -> io::Result<()> {
        let mut bytes = ArrayVec::<u8, 64>::new();
        bytes.write_fmt(text)?;
        match parcel.map(Parcel::ends) {
            Some(ends) => self.manager.tell_with(&bytes, &ends),
            None => self.manager.tell(&bytes),
        }
    }
}

fn is_for_us() -> bool {
    env::var(LISTEN_PID).is_ok_and(|pid| pid == std::process::id().to_string())
}

/// Whether a keeper before this process has left something to it.
pub fn is_heir() -> bool {
    let names = env::var(LISTEN_NAMES).unwrap_or_default();
    is_for_us() && names.split(':').any(|name| name.starts_with(PREFIX))
}

/// The parcels that were given to this process, with their numbers; `None` for what is void. Others' descriptors stay as they are.
fn ends_left() -> Vec<(u32, Option<Parcel>)> {
    if !is_for_us() {
        return Vec::new();
    }
    let count = env::var(LISTEN_COUNT).ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = env::var(LISTEN_NAMES).unwrap_or_default();
    let numbers = names.split(':').map(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
    let mut ends: BTreeMap<u32, Vec<OwnedFd>> = BTreeMap::new();
    for (descriptor, number) in (FIRST..).take(count).zip(numbers) {
        let Some(number) = number else { continue };
        // SAFETY: only looks at a number; a descriptor that is not open is an error.
        if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            continue;
        }
        // SAFETY: open, as was just seen, and given to this process under a name that is ours.
        ends.entry(number).or_default().push(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    ends.into_iter()
        .map(|(number, ends)| (number, ends.try_into().ok().and_then(Parcel::from_ends)))
        .collect()
}
