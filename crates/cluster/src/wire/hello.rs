//! The handshake: who is there, and which version it speaks.

use super::{error::WireError, fields::Fields};
use crate::ids::{Epoch, NAME_BYTES, NodeId, NodeName};

/// The version of the protocol that is spoken here.
pub const VERSION: u16 = 2;

/// What a hello takes, in bytes.
pub const HELLO_BYTES: usize = 56 + NAME_BYTES;

const MAGIC: &[u8; 8] = b"tmemPEER";

/// What both sides say first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Drawn with the cluster.
    pub cluster: u128,
    /// Who speaks. Its id is made of it.
    pub name: NodeName,
    /// In which stretch of its life.
    pub epoch: Epoch,
    /// Drawn with its store: copies of an earlier one are nobody's.
    pub store: u64,
}

impl Hello {
    /// Who speaks, as a number.
    pub fn node(&self) -> NodeId {
        self.name.node_id()
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.node().0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.store.to_le_bytes());
        bytes[56..].copy_from_slice(self.name.padded());
        let checksum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads what has come so far. `None`: more has to come. What is wrong is said as early as it is seen: another version may have
    /// a hello of another length.
    pub fn decode(bytes: &[u8], cluster: u128) -> Result<Option<Hello>, WireError> {
        let magic_bytes = bytes.len().min(MAGIC.len());
        if bytes[..magic_bytes] != MAGIC[..magic_bytes] {
            return Err(WireError::NoPeer);
        }
        if let Some([low, high]) = bytes.get(8..10) {
            let theirs = u16::from_le_bytes([*low, *high]);
            if theirs != VERSION {
                return Err(WireError::Version { theirs });
            }
        }
        let Some(bytes) = bytes.first_chunk::<HELLO_BYTES>() else { return Ok(None) };
        Self::read(bytes).and_then(|hello| match hello.cluster == cluster {
            true => Ok(Some(hello)),
            false => Err(WireError::OtherCluster),
        })
    }

    fn read(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, WireError> {
        let mut fields = Fields::of(&bytes[10..]);
        if fields.u16() != Some(0) {
            return Err(WireError::Hello("reserved bytes"));
        }
        if fields.u32() != Some(checksum(bytes)) {
            return Err(WireError::Hello("checksum"));
        }
        let mut read =
            || Some((fields.u128()?, fields.u64()?, fields.u64()?, fields.u64()?, fields.array()?));
        let (cluster, node, epoch, store, name) = read().ok_or(WireError::Hello("end"))?;
        let name = NodeName::from_padded(name).ok_or(WireError::Hello("name"))?;
        if node != name.node_id().0 {
            return Err(WireError::Hello("node"));
        }
        if epoch == 0 {
            return Err(WireError::Hello("epoch"));
        }
        Ok(Hello { cluster, name, epoch: Epoch(epoch), store })
    }
}

fn checksum(bytes: &[u8; HELLO_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Hello {
        let name = "host-1.rack2".parse().unwrap();
        Hello { cluster: 5 << 100, name, epoch: Epoch(9), store: u64::MAX }
    }

    /// The same with its checksum made right.
    fn sealed(mut bytes: [u8; HELLO_BYTES]) -> [u8; HELLO_BYTES] {
        let checksum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_hello_says_what_was_said_and_nothing_before_its_end() {
        let hello = example();
        let bytes = hello.encode();
        for len in 0..HELLO_BYTES {
            assert_eq!(Hello::decode(&bytes[..len], hello.cluster), Ok(None), "{len} bytes");
        }
        assert_eq!(Hello::decode(&bytes, hello.cluster), Ok(Some(hello)));
        assert_eq!(Hello::decode(&bytes, 1), Err(WireError::OtherCluster));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for bit in 0..HELLO_BYTES * 8 {
            let mut bytes = example().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&bytes, example().cluster).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_told_by_ten_bytes_and_named() {
        let mut bytes = example().encode();
        bytes[8..10].copy_from_slice(&3u16.to_le_bytes());
        let error = Hello::decode(&bytes[..10], example().cluster).unwrap_err();
        assert_eq!(error, WireError::Version { theirs: 3 });
        assert!(error.to_string().contains("version 3") && !error.to_string().contains('\n'));
    }

    #[test]
    fn noise_is_no_peer_from_its_first_byte() {
        assert_eq!(Hello::decode(b"GET / HTTP/1.1", 1), Err(WireError::NoPeer));
        assert_eq!(Hello::decode(b"S", 1), Err(WireError::NoPeer));
    }

    #[test]
    fn nobody_is_in_epoch_0() {
        let bytes = Hello { epoch: Epoch(0), ..example() }.encode();
        assert_eq!(Hello::decode(&bytes, example().cluster), Err(WireError::Hello("epoch")));
    }

    #[test]
    fn a_node_is_the_one_of_its_name() {
        let mut bytes = example().encode();
        bytes[32] ^= 1;
        assert_eq!(Hello::decode(&sealed(bytes), example().cluster), Err(WireError::Hello("node")));
    }

    #[test]
    fn a_name_is_one_and_nothing_is_hidden_behind_it() {
        for (at, byte) in [(56, b'H'), (56, b'\n'), (56, 0), (58, 0), (119, b'x'), (90, 0xff)] {
            let mut bytes = example().encode();
            bytes[at] = byte;
            assert_eq!(
                Hello::decode(&sealed(bytes), example().cluster),
                Err(WireError::Hello("name")),
                "{at}"
            );
        }
    }
}
