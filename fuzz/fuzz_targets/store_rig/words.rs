//! What is written to the files of a store: any words, and index entries whose check fits.
//!
//! Entries are put together here from what `crates/store/src/entry.rs` says of them, so that it is not asked what it thinks is right.

const KIND_SAME_FILLED: u64 = 2;
const KIND_BLOCK: u64 = 3;
const KIND_SHARED: u64 = 4;
const KIND_TIERED: u64 = 5;

/// How a word is made.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Flip,
    Word,
    Block,
    Shared,
    Tiered,
    Copy,
    Small,
    Stamp,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::Flip,
        Kind::Word,
        Kind::Block,
        Kind::Shared,
        Kind::Tiered,
        Kind::Copy,
        Kind::Small,
        Kind::Stamp,
    ];
}

/// A word, and where it goes: in so manieth file, as so manieth of the words that the OS holds memory for.
#[derive(Debug)]
pub struct Write {
    pub file: u8,
    pub at: u16,
    kind: Kind,
    operand: [u8; 8],
}

impl Write {
    /// What one takes of the input.
    pub const BYTES: usize = 12;

    pub fn read(bytes: &[u8; Self::BYTES]) -> Option<Write> {
        let [file, kind, a0, a1, operand @ ..] = *bytes;
        let kind = *Kind::ALL.get(usize::from(kind) % Kind::ALL.len())?;
        Some(Write { file, at: u16::from_le_bytes([a0, a1]), kind, operand })
    }

    /// Where a copied word comes from.
    pub fn from_file(&self) -> u8 {
        self.operand[0]
    }

    pub fn from_at(&self) -> u16 {
        u16::from_le_bytes([self.operand[1], self.operand[2]])
    }

    /// The word to write where `now` is; `copied` is the one that it can be a copy of.
    pub fn word(&self, now: u64, copied: impl FnOnce() -> u64) -> u64 {
        let operand = u64::from_le_bytes(self.operand);
        let length = (operand & 0x1ff) << 11;
        match self.kind {
            Kind::Flip => now ^ 1 << (operand % 64),
            Kind::Word => operand,
            Kind::Copy => copied(),
            Kind::Small => operand & 0xffff,
            // The arena is used from its start, and so are the tier's places and the cells.
            Kind::Block => checked(KIND_BLOCK << 8 | length | (operand >> 16 & 0x3_ffff) << 27),
            Kind::Tiered => checked(KIND_TIERED << 8 | length | (operand >> 16 & 0x3_ffff) << 27),
            Kind::Shared => {
                checked(KIND_SHARED << 8 | length | (operand >> 16 & 0xff) << 27 | operand >> 24 << 55)
            }
            Kind::Stamp => checked(now & !(0x7f << 20) & !0xff | (operand & 0x7f) << 20),
        }
    }
}

/// A word that no store can be asked to bear: what looks whole and says that a page repeats another word.
pub fn has_to_stay(word: u64) -> bool {
    word >> 8 & 7 == KIND_SAME_FILLED && crc8(word) == word as u8
}

fn checked(body: u64) -> u64 {
    body & !0xff | u64::from(crc8(body))
}

/// CRC-8, polynomial x^8 + x^2 + x + 1, of all bytes but the lowest.
fn crc8(bits: u64) -> u8 {
    bits.to_le_bytes()[1..].iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 })
    })
}
