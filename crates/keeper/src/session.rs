//! What makes up a guest's session: all that its messages have set and that a worker has to be told when it takes the guest over.
//!
//! A message counts once the library has it, or, where it is answered, once it was answered. What does not look as it should is not
//! remembered: the library refuses it, and the connection ends.

use std::os::fd::OwnedFd;

use arrayvec::ArrayVec;

use crate::vhost_user::*;

/// As many as a worker offers its guests.
pub(crate) const MAX_RINGS: usize = 64;
/// As many as the library takes.
pub(crate) const MAX_REGIONS: usize = 509;

/// The descriptors of one message.
pub(crate) type Descriptors = ArrayVec<OwnedFd, MAX_DESCRIPTORS>;

/// A part of the guest's memory.
#[derive(Debug)]
pub(crate) struct Region {
    /// As it came.
    pub(crate) bytes: [u8; REGION_BYTES],
    pub(crate) file: OwnedFd,
    /// It came with a table, not by itself.
    pub(crate) in_table: bool,
}

impl Region {
    /// Whether so many bytes from an address of the peer's lie in it.
    fn has(&self, start: u64, bytes: u64) -> bool {
        let (size, base) = (u64_at(&self.bytes, 8).unwrap_or(0), u64_at(&self.bytes, 16).unwrap_or(0));
        start.checked_sub(base).is_some_and(|offset| offset.saturating_add(bytes) <= size)
    }
}

/// A descriptor of a ring.
#[derive(Debug, Default)]
pub(crate) enum RingDescriptor {
    /// Nothing was said, or the ring was stopped.
    #[default]
    Unset,
    /// There is none.
    Absent,
    Present(OwnedFd),
}

#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) size: Option<u32>,
    pub(crate) base: Option<u32>,
    pub(crate) address: Option<[u8; RING_ADDRESS_BYTES]>,
    pub(crate) error: RingDescriptor,
    pub(crate) call: RingDescriptor,
    pub(crate) kick: RingDescriptor,
    pub(crate) enabled: Option<u32>,
}

/// What was said again after RESET_OWNER.
#[derive(Debug, Default)]
pub(crate) struct SinceReset {
    pub(crate) features: bool,
    pub(crate) protocol_features: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) asked_features: bool,
    /// SET_OWNER has come, and no RESET_OWNER after it.
    pub(crate) owned: bool,
    pub(crate) features: Option<u64>,
    pub(crate) protocol_features: Option<u64>,
    /// All that ever were set. What depends on one that was given up later stays as it is.
    pub(crate) all_protocol_features: u64,
    /// RESET_OWNER has come. The library then forgets what was agreed upon where it is asked for it again, and still goes by it.
    pub(crate) reset: Option<SinceReset>,
    /// Features were set once that leave no say about single rings. All of them were enabled by that.
    pub(crate) enabled_all: bool,
    pub(crate) backend_requests: Option<OwnedFd>,
    pub(crate) regions: ArrayVec<Region, MAX_REGIONS>,
    pub(crate) rings: [Ring; MAX_RINGS],
}

impl Default for Session {
    fn default() -> Session {
        Session {
            asked_features: false,
            owned: false,
            features: None,
            protocol_features: None,
            all_protocol_features: 0,
            reset: None,
            enabled_all: false,
            backend_requests: None,
            regions: ArrayVec::new(),
            rings: std::array::from_fn(|_| Ring::default()),
        }
    }
}

impl Session {
    /// Whether the library answers such a message.
    pub(crate) fn is_answered(&self, message: MessageView<'_>) -> bool {
        if is_question(message.code()) {
            return true;
        }
        // The answer to this one already goes by what it says.
        let own = message.number().filter(|_| message.code() == SET_PROTOCOL_FEATURES);
        let agreed = own.or(self.protocol_features).unwrap_or(0) & PROTOCOL_REPLY_ACK != 0;
        message.flags() & FLAG_NEED_REPLY != 0 && agreed && self.asked_features
    }

    /// Remembers a message of the guest's; what it needs of the descriptors is taken. `answer` is the library's, if it gave one. False:
    /// there is no room for it.
    pub(crate) fn note(
        &mut self,
        message: MessageView<'_>,
        descriptors: &mut Descriptors,
        answer: Option<MessageView<'_>>,
    ) -> bool {
        let code = message.code();
        let acknowledges = message.flags() & FLAG_NEED_REPLY != 0 && !is_question(code);
        if acknowledges && answer.and_then(MessageView::number).is_some_and(|status| status != 0) {
            return true; // it was refused
        }
        match code {
            GET_FEATURES => self.asked_features = true,
            SET_OWNER => self.owned = true,
            RESET_OWNER => (self.owned, self.reset) = (false, Some(SinceReset::default())),
            SET_FEATURES => self.note_features(message.number()),
            SET_PROTOCOL_FEATURES => {
                self.protocol_features = message.number().or(self.protocol_features);
                self.all_protocol_features |= self.protocol_features.unwrap_or(0);
                self.reset.iter_mut().for_each(|since| since.protocol_features = true);
            }
            SET_BACKEND_REQ_FD => self.backend_requests = descriptors.pop().or(self.backend_requests.take()),
            SET_MEM_TABLE => return self.note_table(message.payload(), descriptors),
            ADD_MEM_REG => return self.note_region(message.payload(), descriptors),
            REM_MEM_REG => self.forget_region(message.payload()),
            GET_VRING_BASE => {
                if let Some((ring, base)) = answer.and_then(MessageView::ring_and_number)
                    && let Some(ring) = self.rings.get_mut(ring)
                {
                    ring.base = Some(base);
                    (ring.kick, ring.call) = (RingDescriptor::Unset, RingDescriptor::Unset);
                }
            }
            _ => self.note_ring(message, descriptors),
        }
        true
    }

    /// The session that was told to a library by [`Replay`](crate::replay::Replay): a message of it.
    pub(crate) fn note_told(&mut self, message: &[u8], descriptors: &mut Descriptors) {
        self.note(MessageView(message), descriptors, None);
    }

    fn note_features(&mut self, features: Option<u64>) {
        let Some(features) = features else { return };
        self.features = Some(features);
        self.reset.iter_mut().for_each(|since| since.features = true);
        if features & FEATURE_PROTOCOL == 0 {
            self.enabled_all = true;
            self.rings.iter_mut().for_each(|ring| ring.enabled = None);
        }
    }

    fn note_ring(&mut self, message: MessageView<'_>, descriptors: &mut Descriptors) {
        let (code, payload) = (message.code(), message.payload());
        if code == SET_VRING_ADDR {
            let Ok(address) = <[u8; RING_ADDRESS_BYTES]>::try_from(payload) else { return };
            let ring = u32_at(payload, 0).and_then(|ring| self.rings.get_mut(ring as usize));
            if let Some(ring) = ring {
                ring.address = Some(address);
            }
            return;
        }
        if let (SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR, Some(number)) = (code, message.number()) {
            let Some(ring) = self.rings.get_mut((number & RING_MASK) as usize) else { return };
            let place = match code {
                SET_VRING_KICK => &mut ring.kick,
                SET_VRING_CALL => &mut ring.call,
                _ => &mut ring.error,
            };
            *place = match descriptors.pop() {
                Some(descriptor) if number & NO_DESCRIPTOR == 0 => RingDescriptor::Present(descriptor),
                _ => RingDescriptor::Absent,
            };
            return;
        }
        let Some((ring, number)) = message.ring_and_number() else { return };
        let Some(ring) = self.rings.get_mut(ring) else { return };
        match code {
            // The library passes over any other.
            SET_VRING_NUM if number.is_power_of_two() => ring.size = Some(number),
            SET_VRING_BASE => ring.base = Some(number),
            SET_VRING_ENABLE => ring.enabled = Some(number),
            _ => {}
        }
    }

    fn note_table(&mut self, payload: &[u8], descriptors: &mut Descriptors) -> bool {
        let regions = payload.get(TABLE_HEADER_BYTES..).unwrap_or_default().chunks_exact(REGION_BYTES);
        let named = u32_at(payload, 0).unwrap_or(0) as usize;
        if named != regions.len() || named != descriptors.len() {
            return true; // refused by the library
        }
        self.regions.clear();
        for (bytes, file) in regions.zip(descriptors.drain(..)) {
            let Ok(bytes) = bytes.try_into() else { continue };
            self.regions.push(Region { bytes, file, in_table: true });
        }
        true
    }

    fn note_region(&mut self, payload: &[u8], descriptors: &mut Descriptors) -> bool {
        // 8 bytes of padding come first.
        let bytes = payload.get(8..).and_then(|bytes| bytes.try_into().ok());
        let (Some(bytes), 1) = (bytes, descriptors.len()) else { return true };
        let Some(file) = descriptors.pop() else { return true };
        self.regions.try_push(Region { bytes, file, in_table: false }).is_ok()
    }

    fn forget_region(&mut self, payload: &[u8]) {
        // The library goes by guest address and size, which no two regions share.
        let wanted = payload.get(8..24);
        if let Some(at) = self.regions.iter().position(|region| wanted == Some(&region.bytes[..16])) {
            self.regions.remove(at);
        }
    }

    /// Whether all parts of a ring lie in the memory as it is now. The library hangs up if they do not.
    pub(crate) fn has_in_memory(&self, address: &[u8; RING_ADDRESS_BYTES]) -> bool {
        // Descriptors, used ring with its index, available ring.
        [(8, 1), (16, 4), (24, 1)].into_iter().all(|(at, bytes)| {
            let start = u64_at(address, at).unwrap_or(0);
            self.regions.iter().any(|region| region.has(start, bytes))
        })
    }
}

/// The library answers these in any case, not only where it is asked to acknowledge them.
fn is_question(code: u32) -> bool {
    matches!(
        code,
        GET_FEATURES
            | SET_LOG_BASE
            | GET_VRING_BASE
            | GET_PROTOCOL_FEATURES
            | GET_QUEUE_NUM
            | GET_CONFIG
            | GET_MAX_MEM_SLOTS
            | GET_SHARED_OBJECT
            | SET_DEVICE_STATE_FD
            | CHECK_DEVICE_STATE
            | GET_SHMEM_CONFIG
    )
}
