//! A keeper in a thread: relays guests' connections for a program that does not outlive itself.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread,
};

use rustix::net::RecvFlags;

use crate::{client::Client, errands::Errands, holder::Holder, wire};

/// Starts the thread. It ends when the client is dropped.
///
/// # Errors
/// No sockets or no thread are to be had.
pub fn in_process() -> io::Result<Client> {
    let (ours, theirs) = wire::pair()?;
    let client = Client::new(theirs)?;
    let holder = Holder::new(None, Errands::new(None, false)?);
    thread::Builder::new().name("keeper".to_owned()).spawn(move || run(holder, &ours))?;
    Ok(client)
}

fn run(mut holder: Holder, worker: &OwnedFd) {
    let mut polled = Vec::with_capacity(1 + Holder::MAX_POLLED);
    loop {
        polled.clear();
        polled.push(libc::pollfd { fd: worker.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        holder.add_to(&mut polled);
        // SAFETY: the set is valid for its length.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) } < 0 {
            continue; // interrupted
        }
        holder.pass_on(&polled[1..], &mut |label, error| {
            log::warn!("guest of {}: {error}", String::from_utf8_lossy(label));
        });
        if polled[0].revents != 0 {
            let Ok(Some(call)) = wire::receive(worker.as_fd(), RecvFlags::DONTWAIT) else { return };
            if holder.serve(call, worker.as_fd()).is_err() {
                return;
            }
        }
    }
}
