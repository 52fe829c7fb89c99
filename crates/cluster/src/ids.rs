//! Names of nodes and of stretches of their lives.

use std::{fmt, str::FromStr};

use ring::digest;

/// A node, for as long as it is in the cluster: made of its name. Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A stretch of a node's life. It becomes greater whenever the node may have forgotten what it held, or others gave it up. Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What a name takes in a hello, in bytes: one more than the longest.
pub(crate) const NAME_BYTES: usize = 64;

/// What people call a node: 1 to 63 of the characters `a` to `z`, `0` to `9`, `.` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName {
    /// Zeroes behind the name, at least one.
    padded: [u8; NAME_BYTES],
}

/// What was to be a node's name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a node: it has 1 to 63 of the characters a to z, 0 to 9, '.' and '-'")]
pub struct NameError(pub String);

impl NodeName {
    /// The node of this name: two of one name are one node, and collide.
    pub fn node_id(&self) -> NodeId {
        let hash = digest::digest(&digest::SHA256, self.as_str().as_bytes());
        let first = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        NodeId(first.max(1))
    }

    /// As people write it.
    pub fn as_str(&self) -> &str {
        let len = self.padded.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
        str::from_utf8(&self.padded[..len]).unwrap_or_default()
    }

    pub(crate) fn padded(&self) -> &[u8; NAME_BYTES] {
        &self.padded
    }

    pub(crate) fn from_padded(padded: [u8; NAME_BYTES]) -> Option<Self> {
        let len = padded.iter().position(|byte| *byte == 0)?;
        let (name, zeroes) = padded.split_at(len);
        let is_allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        let is_valid = len > 0 && name.iter().all(is_allowed) && zeroes.iter().all(|byte| *byte == 0);
        is_valid.then_some(Self { padded })
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let mut padded = [0; NAME_BYTES];
        let fits = padded.get_mut(..name.len()).map(|bytes| bytes.copy_from_slice(name.as_bytes()));
        fits.and_then(|()| Self::from_padded(padded))
            .filter(|taken| taken.as_str().len() == name.len())
            .ok_or_else(|| NameError(name.chars().take(NAME_BYTES).collect()))
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({})", self.as_str())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_was_said_and_nothing_else_is_one() {
        let longest = "x".repeat(63);
        for name in ["a", "host-1.example", &longest] {
            let taken: NodeName = name.parse().unwrap();
            assert_eq!((taken.as_str(), taken.to_string().as_str()), (name, name));
            assert_eq!(NodeName::from_padded(*taken.padded()), Some(taken));
        }
        let long = "x".repeat(64);
        for name in ["", "A", "a b", "a\n", "a\0", "\0", "ä", "a_b", &long, &"x".repeat(1000)] {
            let error = name.parse::<NodeName>().unwrap_err().to_string();
            assert!(!error.contains(char::is_control) && error.len() < 250, "{error:?}");
        }
    }

    #[test]
    fn a_node_is_the_start_of_its_names_hash() {
        // printf abc | sha256sum: ba7816bf8f01cfea…
        assert_eq!("abc".parse::<NodeName>().unwrap().node_id(), NodeId(0xeacf_018f_bf16_78ba));
    }
}
