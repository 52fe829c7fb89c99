//! Tells a session to a worker that knows nothing of it: its messages, one after the other, in an order that the library takes.

use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;

use crate::{
    session::{MAX_RINGS, RingDescriptor, Session},
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
const HEAD_STEPS: usize = 8;
/// Messages for each ring.
const RING_STEPS: usize = 7;
/// Messages after those of rings.
const TAIL_STEPS: usize = 5;

impl Replay {
    /// The next message, if there is one more.
    pub(crate) fn next<'s>(&mut self, session: &'s Session) -> Option<Told<'s>> {
        let regions = HEAD_STEPS + session.regions.len();
        let rings = regions + MAX_RINGS * RING_STEPS;
        while self.step < rings + TAIL_STEPS {
            let step = self.step;
            self.step += 1;
            let told = if step < HEAD_STEPS {
                head(session, step)
            } else if step < regions {
                lone_region(session, step - HEAD_STEPS)
            } else if step < rings {
                ring_step(session, (step - regions) / RING_STEPS, (step - regions) % RING_STEPS)
            } else {
                tail(session, step - rings)
            };
            if told.is_some() {
                return told;
            }
        }
        None
    }
}

fn number<'s>(code: u32, number: Option<u64>) -> Option<Told<'s>> {
    number.map(|number| tell(code, &number.to_ne_bytes()))
}

fn head(session: &Session, step: usize) -> Option<Told<'_>> {
    let enabled_all = session.enabled_all.then_some(!FEATURE_PROTOCOL);
    match step {
        0 => session.asked_features.then(|| tell(GET_FEATURES, &[]).answered()),
        1 => (session.owned && session.reset.is_none()).then(|| tell(SET_OWNER, &[])),
        // Enables all rings. What was said of single ones since is told with them.
        2 => number(SET_FEATURES, enabled_all.zip(session.features).map(|(without, all)| all & without)),
        3 => number(SET_FEATURES, session.features),
        4 => session.protocol_features.map(|_| tell(GET_PROTOCOL_FEATURES, &[]).answered()),
        5 => number(SET_PROTOCOL_FEATURES, session.protocol_features.map(|_| session.all_protocol_features)),
        6 => session
            .backend_requests
            .as_ref()
            .map(|channel| tell(SET_BACKEND_REQ_FD, &[]).with(channel.as_fd())),
        _ => session.regions.iter().any(|region| region.in_table).then(|| table(session)),
    }
}

/// Last, because rings cannot be enabled between RESET_OWNER and the next SET_FEATURES, and stay as they are through both.
fn tail(session: &Session, step: usize) -> Option<Told<'_>> {
    if step == 0 {
        let now = session.protocol_features.filter(|features| *features != session.all_protocol_features);
        return number(SET_PROTOCOL_FEATURES, now);
    }
    let since = session.reset.as_ref()?;
    match step {
        1 => Some(tell(RESET_OWNER, &[])),
        2 => session.owned.then(|| tell(SET_OWNER, &[])),
        3 => number(SET_FEATURES, session.features.filter(|_| since.features)),
        _ => number(SET_PROTOCOL_FEATURES, session.protocol_features.filter(|_| since.protocol_features)),
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

fn ring_step(session: &Session, index: usize, step: usize) -> Option<Told<'_>> {
    let ring = session.rings.get(index)?;
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
        // A ring that was stopped may have been in memory that is gone.
        2 => ring
            .address
            .as_ref()
            .filter(|address| session.has_in_memory(address))
            .map(|address| tell(SET_VRING_ADDR, address)),
        3 => descriptor(SET_VRING_ERR, &ring.error),
        4 => descriptor(SET_VRING_CALL, &ring.call),
        5 => descriptor(SET_VRING_KICK, &ring.kick),
        _ => state(
            SET_VRING_ENABLE,
            ring.enabled
                .filter(|_| session.features.is_some_and(|features| features & FEATURE_PROTOCOL != 0)),
        ),
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

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::OwnedFd, unix::fs::MetadataExt},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::session::Descriptors;

    /// A message with its payload, and which of some files come with it.
    type Said = (u32, Vec<u8>, Vec<usize>);

    fn any_message() -> impl Strategy<Value = Said> {
        let files = |count| prop::collection::vec(0usize..4, count);
        let words = |words: Vec<u64>| words.into_iter().flat_map(u64::to_ne_bytes).collect::<Vec<_>>();
        let region = |which: u64| [which << 16, 0x8000, which << 16, 0];
        prop_oneof![
            2 => prop::sample::select(vec![GET_FEATURES, SET_OWNER, RESET_OWNER, GET_PROTOCOL_FEATURES])
                .prop_map(|code| (code, vec![], vec![])),
            2 => prop_oneof![Just(FEATURE_PROTOCOL | 1), 0u64..4].prop_map(move |bits| (SET_FEATURES, words(vec![bits]), vec![])),
            1 => (0u64..16).prop_map(move |bits| (SET_PROTOCOL_FEATURES, words(vec![bits]), vec![])),
            1 => files(1).prop_map(|files| (SET_BACKEND_REQ_FD, vec![], files)),
            1 => (1usize..5).prop_flat_map(files).prop_map(move |files| {
                let regions = (0..files.len() as u64).flat_map(region);
                (SET_MEM_TABLE, words(std::iter::once(files.len() as u64).chain(regions).collect()), files)
            }),
            1 => (0u64..6, files(1)).prop_map(move |(which, files)| {
                (ADD_MEM_REG, words(std::iter::once(0).chain(region(which)).collect()), files)
            }),
            1 => (0u64..6).prop_map(move |which| (REM_MEM_REG, words(std::iter::once(0).chain(region(which)).collect()), vec![])),
            5 => (prop::sample::select(vec![SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE]), 0u64..3, 0u64..9)
                .prop_map(move |(code, ring, value)| (code, words(vec![ring | value << 32]), vec![])),
            2 => (0u64..3, 0u64..6).prop_map(move |(ring, which)| {
                let start = which << 16;
                (SET_VRING_ADDR, words(vec![ring, start, start + 64, start + 128, 0]), vec![])
            }),
            5 => (SET_VRING_KICK..SET_VRING_ERR + 1, 0u64..3, any::<bool>(), files(1)).prop_map(move |(code, ring, none, files)| {
                let files = if none { vec![] } else { files };
                (code, words(vec![ring | if none { NO_DESCRIPTOR } else { 0 }]), files)
            }),
            1 => (0u64..3).prop_map(move |ring| (GET_VRING_BASE, words(vec![ring]), vec![])),
        ]
    }

    /// All that a session tells, with the files by their inodes.
    fn told(session: &Session) -> Vec<(Vec<u8>, Vec<u64>)> {
        let mut replay = Replay::default();
        std::iter::from_fn(|| replay.next(session))
            .map(|told| (told.bytes.to_vec(), told.descriptors.iter().map(inode).collect()))
            .collect()
    }

    fn inode(descriptor: impl AsFd) -> u64 {
        File::from(descriptor.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
    }

    proptest! {
        #[test]
        fn a_session_that_is_made_from_what_another_tells_tells_the_same(said in prop::collection::vec(any_message(), 0..60)) {
            let files: Vec<_> = (0..4).map(|_| tempfile::tempfile().unwrap()).collect();
            let mut session = Session::default();
            for (code, payload, which) in said {
                let message = tell(code, &payload);
                let mut descriptors: Descriptors = which.iter().map(|file| OwnedFd::from(files[*file].try_clone().unwrap())).collect();
                let answer = (code == GET_VRING_BASE).then(|| tell(code, &payload));
                session.note(MessageView(&message.bytes), &mut descriptors, answer.as_ref().map(|answer| MessageView(&answer.bytes)));
            }
            let mut second = Session::default();
            let mut replay = Replay::default();
            while let Some(told) = replay.next(&session) {
                let mut descriptors = told.descriptors.iter().map(|file| file.try_clone_to_owned().unwrap()).collect();
                second.note_told(&told.bytes, &mut descriptors);
            }
            prop_assert_eq!(told(&session), told(&second));
        }
    }
}
