//! What the catalog says of a client and of a pool, in words of 8 bytes. The first word of a record is not here: see the catalog.

use std::ops::Range;

use crate::{
    catalog::ClientSlot,
    client::{ClientKind, ClientOptions, Dedup},
    client_settings::ClientSettings,
    pool::{Keys, Persistence},
};

/// Words of a client's record: one for the catalog, then what stays as it is,
/// `| serial | kind | bytes of the name | name, 32 words | kind of dedup | bytes of the domain | domain, 24 words | not used yet |`,
/// and last the word of its settings, which has a check of its own.
pub(crate) const CLIENT_WORDS: usize = 64;

/// Those that stay as they are.
pub(crate) const FIXED_CLIENT_WORDS: usize = CLIENT_WORDS - 2;

/// Where the settings are in the record.
pub(crate) const SETTINGS_WORD: usize = CLIENT_WORDS - 1;

/// Words of a pool's record: one for the catalog, then
/// `| serial | client | persistence | kind of keys | pages | not used yet |`.
pub(crate) const POOL_WORDS: usize = 8;

/// The longest name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// The longest name of a dedup domain, in bytes.
const MAX_DOMAIN_BYTES: usize = 192;

const SERIAL: usize = 0;
const KIND: usize = 1;
const NAME_BYTES: usize = 2;
const NAME_WORDS: Range<usize> = 3..3 + MAX_NAME_BYTES / 8;
const DEDUP: usize = NAME_WORDS.end;
const DOMAIN_BYTES: usize = DEDUP + 1;
const DOMAIN_WORDS: Range<usize> = DOMAIN_BYTES + 1..DOMAIN_BYTES + 1 + MAX_DOMAIN_BYTES / 8;

#[derive(Clone, Debug)]
pub(crate) struct ClientRecord {
    /// Later clients have higher ones.
    pub(crate) serial: u64,
    pub(crate) options: ClientOptions,
    pub(crate) frozen: bool,
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
    pub(crate) fn settings(&self) -> ClientSettings {
        let ClientOptions { cap_bytes, weight, .. } = self.options;
        ClientSettings { cap_bytes, weight, frozen: self.frozen }
    }

    /// What stays as it is. `None`: a name is too long.
    pub(crate) fn words(&self) -> Option<[u64; FIXED_CLIENT_WORDS]> {
        let ClientOptions { name, kind, dedup, .. } = &self.options;
        let (dedup, domain) = match dedup {
            Dedup::Alone => (0, ""),
            Dedup::Off => (1, ""),
            Dedup::Domain(domain) => (2, domain.as_str()),
        };
        if name.len() > MAX_NAME_BYTES || domain.len() > MAX_DOMAIN_BYTES {
            return None;
        }
        let mut words = [0; FIXED_CLIENT_WORDS];
        words[SERIAL] = self.serial;
        words[KIND] = match kind {
            ClientKind::Disk => 1,
            ClientKind::Native => 2,
        };
        words[NAME_BYTES] = name.len() as u64;
        write_text(&mut words[NAME_WORDS], name);
        words[DEDUP] = dedup;
        words[DOMAIN_BYTES] = domain.len() as u64;
        write_text(&mut words[DOMAIN_WORDS], domain);
        Some(words)
    }

    /// `None`: no version of ours wrote this.
    pub(crate) fn parse(words: [u64; FIXED_CLIENT_WORDS], settings: ClientSettings) -> Option<Self> {
        let kind = match words[KIND] {
            1 => ClientKind::Disk,
            2 => ClientKind::Native,
            _ => return None,
        };
        let dedup = match words[DEDUP] {
            0 => Dedup::Alone,
            1 => Dedup::Off,
            2 => Dedup::Domain(read_text(&words[DOMAIN_WORDS], words[DOMAIN_BYTES])?),
            _ => return None,
        };
        let options = ClientOptions {
            name: read_text(&words[NAME_WORDS], words[NAME_BYTES])?,
            kind,
            cap_bytes: settings.cap_bytes,
            weight: settings.weight,
            dedup,
        };
        Some(Self { serial: words[SERIAL], options, frozen: settings.frozen })
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
