//! What the relay has to know of vhost-user messages: docs/interop/vhost-user.rst of QEMU.
//!
//! ```text
//! | code, 4 bytes | flags, 4 bytes | payload bytes, 4 bytes | payload |
//! ```
//! All in the machine's byte order.

/// Code, flags and payload size, 4 bytes each.
pub(crate) const HEADER_BYTES: usize = 12;
/// The longest payload the worker's library takes; no message that the device understands is longer.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 4096;
/// The longest message.
pub(crate) const MAX_MESSAGE_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;
/// Most descriptors with one message: as many as the library takes.
pub(crate) const MAX_DESCRIPTORS: usize = 32;

/// Version 1 of the protocol, in the flags of every message.
pub(crate) const FLAG_VERSION: u32 = 1;
/// The message answers another.
pub(crate) const FLAG_REPLY: u32 = 1 << 2;
/// The sender wants to know how it went, if that was agreed upon.
pub(crate) const FLAG_NEED_REPLY: u32 = 1 << 3;

pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_OWNER: u32 = 3;
pub(crate) const RESET_OWNER: u32 = 4;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const SET_VRING_ADDR: u32 = 9;
pub(crate) const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const SET_VRING_ERR: u32 = 14;
pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(crate) const GET_QUEUE_NUM: u32 = 17;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
pub(crate) const GET_CONFIG: u32 = 24;
pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
pub(crate) const ADD_MEM_REG: u32 = 37;
pub(crate) const REM_MEM_REG: u32 = 38;

/// Protocol feature: messages are answered where the sender asks for it.
pub(crate) const PROTOCOL_REPLY_ACK: u64 = 1 << 3;

/// In the payload of the messages that carry a ring's descriptor: there is none.
pub(crate) const NO_DESCRIPTOR: u64 = 1 << 8;
/// In the same payload: the ring.
pub(crate) const RING_MASK: u64 = 0xff;

/// A memory table starts with the number of regions and padding.
pub(crate) const TABLE_HEADER_BYTES: usize = 8;
/// Guest address, size, address in the peer, and offset in the file.
pub(crate) const REGION_BYTES: usize = 32;
/// Ring, flags, and four addresses.
pub(crate) const RING_ADDRESS_BYTES: usize = 40;

/// A whole message or the beginning of one.
#[derive(Clone, Copy)]
pub(crate) struct MessageView<'a>(pub(crate) &'a [u8]);

impl<'a> MessageView<'a> {
    pub(crate) fn code(self) -> u32 {
        u32_at(self.0, 0).unwrap_or(0)
    }

    pub(crate) fn flags(self) -> u32 {
        u32_at(self.0, 4).unwrap_or(0)
    }

    /// What the header says, if there is a whole one.
    pub(crate) fn claimed_payload_bytes(self) -> Option<u32> {
        u32_at(self.0, 8)
    }

    pub(crate) fn payload(self) -> &'a [u8] {
        self.0.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// A payload that is one number and nothing else.
    pub(crate) fn number(self) -> Option<u64> {
        let payload = self.payload();
        (payload.len() == 8).then(|| u64_at(payload, 0)).flatten()
    }

    /// A payload that is a ring and a number, and nothing else.
    pub(crate) fn ring_and_number(self) -> Option<(usize, u32)> {
        let payload = self.payload();
        (payload.len() == 8).then_some((u32_at(payload, 0)? as usize, u32_at(payload, 4)?))
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// How long a memory table's message has to be. User-mode Linux sends one with room for two regions that names one, and the
/// library refuses a table whose length is not that of its regions. One that is too short is left for the library to refuse.
pub(crate) fn fitting_bytes(message: &[u8]) -> usize {
    let view = MessageView(message);
    let regions = u32_at(view.payload(), 0).filter(|_| view.code() == SET_MEM_TABLE);
    let Some(regions) = regions else { return message.len() };
    let bytes =
        (regions as usize).saturating_mul(REGION_BYTES).saturating_add(TABLE_HEADER_BYTES + HEADER_BYTES);
    bytes.min(message.len())
}
