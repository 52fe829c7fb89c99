//! What the keys are called.

use tmem_cluster::NodeName;

use crate::ClusterId;

/// The keys of one cluster: `/tmem/CLUSTER/nodes/NAME` and `/tmem/CLUSTER/epochs/NAME`.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A node is there.
    Node(NodeName),
    /// Which epoch a node reached at last.
    Epoch(NodeName),
}

impl Keys {
    pub(crate) fn of(cluster: ClusterId) -> Self {
        Self { prefix: format!("/tmem/{cluster}/") }
    }

    /// What all of them begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn node(&self, name: NodeName) -> String {
        format!("{}nodes/{name}", self.prefix)
    }

    pub(crate) fn epoch(&self, name: NodeName) -> String {
        format!("{}epochs/{name}", self.prefix)
    }

    /// What a key is. `None`: nothing that is known here.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Key> {
        let (kind, name) = str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.split_once('/')?;
        let name = name.parse().ok()?;
        match kind {
            "nodes" => Some(Key::Node(name)),
            "epochs" => Some(Key::Epoch(name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_no_other_is() {
        let (keys, name) = (Keys::of(ClusterId(7)), "host-b.x".parse().unwrap());
        assert_eq!(keys.read(keys.node(name).as_bytes()), Some(Key::Node(name)));
        assert_eq!(keys.read(keys.epoch(name).as_bytes()), Some(Key::Epoch(name)));
        let other = Keys::of(ClusterId(8)).node(name);
        let (deep, unknown) = (format!("{}/x", keys.node(name)), format!("{}leases/a", keys.prefix()));
        for key in
            [other.as_bytes(), deep.as_bytes(), unknown.as_bytes(), b"\xff", b"", keys.prefix().as_bytes()]
        {
            assert_eq!(keys.read(key), None, "{key:?}");
        }
    }
}
