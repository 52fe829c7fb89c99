//! All keys, and the view that they make.

use std::collections::BTreeMap;

use tmem_cluster::NodeName;

use super::{
    keys::{Key, Keys},
    records::{EpochRecord, NodeRecord},
};
use crate::{Member, View};

/// The keys as they were at some time.
#[derive(Debug)]
pub(crate) struct Snapshot {
    keys: Keys,
    own: NodeName,
    nodes: BTreeMap<NodeName, NodeRecord>,
    epochs: BTreeMap<NodeName, EpochRecord>,
}

impl Snapshot {
    pub(crate) fn new(keys: Keys, own: NodeName) -> Self {
        Self { keys, own, nodes: BTreeMap::new(), epochs: BTreeMap::new() }
    }

    /// A key has this value now; `None`: it is gone. One that cannot be read counts as gone: whoever wrote it is not spoken to.
    pub(crate) fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        match self.keys.read(key) {
            Some(Key::Node(name)) => put(&mut self.nodes, name, key, value),
            Some(Key::Epoch(name)) => put(&mut self.epochs, name, key, value),
            None => {}
        }
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What the others are. A node whose epoch is over is not there, whatever it says.
    pub(crate) fn view(&self) -> View {
        let is_over =
            |name, record: &NodeRecord| self.epochs.get(name).is_some_and(|last| last.epoch > record.epoch);
        let others = self.nodes.iter().filter(|(name, record)| **name != self.own && !is_over(*name, record));
        let member = |(name, record): (&NodeName, &NodeRecord)| Member {
            name: *name,
            id: name.node_id(),
            address: record.address,
            domain: record.domain.clone(),
            epoch: Some(tmem_cluster::Epoch(record.epoch)),
            free_bytes: Some(record.free_bytes),
        };
        let reached = self.epochs.iter().filter(|(name, _)| **name != self.own);
        View {
            members: others.map(member).collect(),
            epochs: reached.map(|(name, record)| (name.node_id(), record.epoch())).collect(),
            is_current: true,
        }
    }
}

fn put<T: serde::de::DeserializeOwned>(
    records: &mut BTreeMap<NodeName, T>,
    name: NodeName,
    key: &[u8],
    value: Option<&[u8]>,
) {
    let record = value.and_then(|value| match serde_json::from_slice(value) {
        Ok(record) => Some(record),
        Err(error) => {
            log::warn!(
                "cluster: etcd's key {} is not readable, and {name} is left out: {error}",
                key.escape_ascii()
            );
            None
        }
    });
    match record {
        Some(record) => drop(records.insert(name, record)),
        None => drop(records.remove(&name)),
    }
}

#[cfg(test)]
mod tests {
    use tmem_cluster::Epoch;

    use super::*;
    use crate::ClusterId;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    struct Test {
        keys: Keys,
        snapshot: Snapshot,
    }

    impl Test {
        fn new() -> Self {
            let keys = Keys::of(ClusterId(1));
            Self { snapshot: Snapshot::new(keys.clone(), name("a")), keys }
        }

        fn node(&mut self, text: &str, epoch: u64) {
            let value = format!(
                r#"{{"address":"10.0.0.1:7790","epoch":{epoch},"free_bytes":3,"version":"1","nonce":"n"}}"#
            );
            self.snapshot.set(self.keys.node(name(text)).as_bytes(), Some(value.as_bytes()));
        }

        fn epoch(&mut self, text: &str, epoch: u64) {
            let value = format!(r#"{{"epoch":{epoch}}}"#);
            self.snapshot.set(self.keys.epoch(name(text)).as_bytes(), Some(value.as_bytes()));
        }

        fn seen(&self) -> Vec<(String, Option<Epoch>)> {
            let view = self.snapshot.view();
            assert!(view.is_current);
            view.members.iter().map(|member| (member.name.to_string(), member.epoch)).collect()
        }
    }

    #[test]
    fn others_are_seen_in_order_until_they_are_gone() {
        let mut test = Test::new();
        for (node, epoch) in [("c", 1), ("a", 2), ("b", 3)] {
            test.node(node, epoch);
        }
        let b = ("b".to_owned(), Some(Epoch(3)));
        assert_eq!(test.seen(), [b.clone(), ("c".to_owned(), Some(Epoch(1)))]);
        test.snapshot.set(test.keys.node(name("c")).as_bytes(), None);
        assert_eq!((test.seen(), test.snapshot.nodes()), (vec![b], 2));
        // What cannot be read is not there, and neither is what it was before.
        test.snapshot.set(test.keys.node(name("b")).as_bytes(), Some(b"{}"));
        test.snapshot.set(b"/tmem/elsewhere", Some(b"{}"));
        assert_eq!(test.seen(), []);
    }

    #[test]
    fn a_node_whose_epoch_is_over_is_not_seen() {
        let mut test = Test::new();
        test.node("b", 3);
        test.epoch("b", 3);
        assert_eq!(test.seen(), [("b".to_owned(), Some(Epoch(3)))]);
        test.epoch("b", 4);
        assert_eq!(test.seen(), []);
        assert_eq!(test.snapshot.view().epochs, [(name("b").node_id(), Epoch(4))]);
        test.node("b", 4);
        assert_eq!(test.seen(), [("b".to_owned(), Some(Epoch(4)))]);
    }
}
