//! What the catalog says of a client and of a pool, in words of 8 bytes. The first word of a record is not here: see the catalog.

use std::ops::Range;

use crate::{
    catalog::ClientSlot,
    client::{ClientKind, ClientOptions, Dedup},
    pool::{Keys, Persistence},
};

/// Words of a client's record: one for the catalog, then
/// `| serial | kind | has a cap | cap | bytes of the name | name, 32 words | kind of dedup | bytes of the domain | domain, 24 words |`.
pub(crate) const CLIENT_WORDS: usize = 64;

/// Words of a pool's record: one for the catalog, then
/// `| serial | client | persistence | kind of keys | pages | not used yet |`.
pub(crate) const POOL_WORDS: usize = 8;

/// The longest name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// The longest name of a dedup domain, in bytes.
const MAX_DOMAIN_BYTES: usize = 192;

const NAME_WORDS: Range<usize> = 5..5 + MAX_NAME_BYTES / 8;
const DOMAIN_WORDS: Range<usize> = 39..39 + MAX_DOMAIN_BYTES / 8;

#[derive(Clone, Debug)]
pub(crate) struct ClientRecord {
    /// Later clients have higher ones.
    pub(crate) serial: u64,
    pub(crate) options: ClientOptions,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolRecord {
    /// Later pools have higher ones.
    pub(crate) serial: u64,
    pub(crate) client: ClientSlot,
    pub(crate) persistence: Persistence,
    pub(crate) keys: Keys,
}

impl ClientRecord {
    /// `None`: a name is too long.
    pub(crate) fn words(&self) -> Option<[u64; CLIENT_WORDS - 1]> {
        let ClientOptions { name, kind, cap_bytes, dedup } = &self.options;
        let (dedup, domain) = match dedup {
            Dedup::Alone => (0, ""),
            Dedup::Off => (1, ""),
            Dedup::Domain(domain) => (2, domain.as_str()),
        };
        if name.len() > MAX_NAME_BYTES || domain.len() > MAX_DOMAIN_BYTES {
            return None;
        }
        let mut words = [0; CLIENT_WORDS - 1];
        words[0] = self.serial;
        words[1] = match kind {
            ClientKind::Disk => 1,
            ClientKind::Native => 2,
        };
        words[2] = u64::from(cap_bytes.is_some());
        words[3] = cap_bytes.unwrap_or(0);
        words[4] = name.len() as u64;
        write_text(&mut words[NAME_WORDS], name);
        words[37] = dedup;
        words[38] = domain.len() as u64;
        write_text(&mut words[DOMAIN_WORDS], domain);
        Some(words)
    }

    /// `None`: no version of ours wrote this.
    pub(crate) fn parse(words: [u64; CLIENT_WORDS - 1]) -> Option<Self> {
        let kind = match words[1] {
            1 => ClientKind::Disk,
            2 => ClientKind::Native,
            _ => return None,
        };
        let dedup = match words[37] {
            0 => Dedup::Alone,
            1 => Dedup::Off,
            2 => Dedup::Domain(read_text(&words[DOMAIN_WORDS], words[38])?),
            _ => return None,
        };
        let options = ClientOptions {
            name: read_text(&words[NAME_WORDS], words[4])?,
            dedup,
            kind,
            cap_bytes: (words[2] != 0).then_some(words[3]),
        };
        Some(Self { serial: words[0], options })
    }
}

impl PoolRecord {
    pub(crate) fn words(&self) -> [u64; POOL_WORDS - 1] {
        let persistence = match self.persistence {
            Persistence::Persistent => 1,
            Persistence::Ephemeral => 2,
        };
        let (keys, pages) = match self.keys {
            Keys::Flat { pages } => (1, pages),
            Keys::Sparse { max_pages } => (2, max_pages),
        };
        [self.serial, u64::from(self.client.0), persistence, keys, pages, 0, 0]
    }

    /// `None`: no version of ours wrote this.
    pub(crate) fn parse(words: [u64; POOL_WORDS - 1]) -> Option<Self> {
        let persistence = match words[2] {
            1 => Persistence::Persistent,
            2 => Persistence::Ephemeral,
            _ => return None,
        };
        let pages = words[4];
        let keys = match words[3] {
            1 => Keys::Flat { pages },
            2 => Keys::Sparse { max_pages: pages },
            _ => return None,
        };
        let client = ClientSlot(u16::try_from(words[1]).ok()?);
        keys.is_allowed().then_some(Self { serial: words[0], client, persistence, keys })
    }
}

fn write_text(words: &mut [u64], text: &str) {
    for (word, bytes) in words.iter_mut().zip(text.as_bytes().chunks(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
}

fn read_text(words: &[u64], bytes: u64) -> Option<String> {
    let text: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    String::from_utf8(text.get(..usize::try_from(bytes).ok()?)?.to_vec()).ok()
}

/// Of a record's words, and of the place it belongs to.
pub(crate) fn checksum(at: usize, words: &[u64]) -> u32 {
    let start = crc32c::crc32c(&(at as u64).to_le_bytes());
    words.iter().fold(start, |sum, word| crc32c::crc32c_append(sum, &word.to_le_bytes()))
}
