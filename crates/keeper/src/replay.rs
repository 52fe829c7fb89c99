//! Tells a session to a worker that knows nothing of it: its messages, one after the other, in an order that the library takes.

use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;

use crate::{
    session::{MAX_RINGS, Ring, RingDescriptor, Session},
    vhost_user::*,
};

/// A message of the replay, with descriptors of the session.
pub(crate) struct Told<'s> {
    pub(crate) bytes: ArrayVec<u8, MAX_MESSAGE_BYTES>,
    pub(crate) descriptors: ArrayVec<BorrowedFd<'s>, MAX_DESCRIPTORS>,
    /// The library answers it, and the guest must not see that.
    pub(crate) is_answered: bool,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replay {
    step: usize,
}

/// Messages before those of regions and rings.
const HEAD_STEPS: usize = 7;
/// Messages for each ring.
const RING_STEPS: usize = 7;

impl Replay {
    /// The next message, if there is one more.
    pub(crate) fn next<'s>(&mut self, session: &'s Session) -> Option<Told<'s>> {
        let single = session.regions.len();
        let end = HEAD_STEPS + single + MAX_RINGS * RING_STEPS;
        while self.step < end {
            let step = self.step;
            self.step += 1;
            let told = match step.checked_sub(HEAD_STEPS) {
                None => head(session, step),
                Some(region) if region < single => lone_region(session, region),
                Some(rest) => {
                    let (ring, step) = ((rest - single) / RING_STEPS, (rest - single) % RING_STEPS);
                    ring_step(&session.rings[ring], ring, step)
                }
            };
            if told.is_some() {
                return told;
            }
        }
        None
    }
}

fn head(session: &Session, step: usize) -> Option<Told<'_>> {
    let number = |code, number: Option<u64>| number.map(|number| tell(code, &number.to_ne_bytes()));
    match step {
        0 => session.asked_features.then(|| tell(GET_FEATURES, &[]).answered()),
        1 => session.owned.then(|| tell(SET_OWNER, &[])),
        2 => number(SET_FEATURES, session.features),
        3 => session.protocol_features.map(|_| tell(GET_PROTOCOL_FEATURES, &[]).answered()),
        4 => number(SET_PROTOCOL_FEATURES, session.protocol_features),
        5 => session
            .backend_requests
            .as_ref()
            .map(|channel| tell(SET_BACKEND_REQ_FD, &[]).with(channel.as_fd())),
        _ => session.had_table.then(|| table(session)),
    }
}

fn table(session: &Session) -> Told<'_> {
    let regions = session.regions.iter().filter(|region| region.in_table);
    let mut payload = ArrayVec::<u8, MAX_PAYLOAD_BYTES>::new();
    extend(&mut payload, &(regions.clone().count() as u64).to_ne_bytes());
    regions.clone().for_each(|region| extend(&mut payload, &region.bytes));
    let mut told = tell(SET_MEM_TABLE, &payload);
    told.descriptors.extend(regions.map(|region| region.file.as_fd()).take(MAX_DESCRIPTORS));
    told
}

fn lone_region(session: &Session, at: usize) -> Option<Told<'_>> {
    let region = session.regions.get(at).filter(|region| !region.in_table)?;
    let mut payload = ArrayVec::<u8, 40>::new();
    extend(&mut payload, &[0; 8]);
    extend(&mut payload, &region.bytes);
    Some(tell(ADD_MEM_REG, &payload).with(region.file.as_fd()))
}

fn ring_step(ring: &Ring, index: usize, step: usize) -> Option<Told<'_>> {
    let state = |code, number: Option<u32>| {
        number.map(|number| {
            let mut payload = [0; 8];
            payload[..4].copy_from_slice(&(index as u32).to_ne_bytes());
            payload[4..].copy_from_slice(&number.to_ne_bytes());
            tell(code, &payload)
        })
    };
    let descriptor = |code, descriptor| match descriptor {
        &RingDescriptor::Unset => None,
        RingDescriptor::Absent => Some(tell(code, &(index as u64 | NO_DESCRIPTOR).to_ne_bytes())),
        RingDescriptor::Present(fd) => Some(tell(code, &(index as u64).to_ne_bytes()).with(fd.as_fd())),
    };
    match step {
        0 => state(SET_VRING_NUM, ring.size),
        // Before the addresses: with them, a worker takes the used index for where to go on.
        1 => state(SET_VRING_BASE, ring.base),
        2 => ring.address.as_ref().map(|address| tell(SET_VRING_ADDR, address)),
        3 => descriptor(SET_VRING_ERR, &ring.error),
        4 => descriptor(SET_VRING_CALL, &ring.call),
        5 => descriptor(SET_VRING_KICK, &ring.kick),
        _ => state(SET_VRING_ENABLE, ring.enabled),
    }
}

fn tell<'s>(code: u32, payload: &[u8]) -> Told<'s> {
    let mut bytes = ArrayVec::new();
    for word in [code, FLAG_VERSION, payload.len() as u32] {
        extend(&mut bytes, &word.to_ne_bytes());
    }
    extend(&mut bytes, payload);
    Told { bytes, descriptors: ArrayVec::new(), is_answered: false }
}

/// Payloads are of bounded parts, so all of it fits.
fn extend<const N: usize>(bytes: &mut ArrayVec<u8, N>, more: &[u8]) {
    bytes.extend(more.iter().copied().take(bytes.remaining_capacity()));
}

impl<'s> Told<'s> {
    fn with(mut self, descriptor: BorrowedFd<'s>) -> Told<'s> {
        self.descriptors.push(descriptor);
        self
    }

    fn answered(mut self) -> Told<'s> {
        self.is_answered = true;
        self
    }
}
