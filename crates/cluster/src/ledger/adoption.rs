//! A ledger that is begun anew: what nodes say that they have becomes what is known.

use tmem_store::TierCopy;

use super::{
    Ledger,
    record::{Copy, CopyState, Record},
};
use crate::ids::{Epoch, NodeId};

impl Ledger {
    /// A node says that it has a copy of this borrower's, which nobody here knew of: the one who did is gone. Of two writings at one place
    /// the later one counts, and whoever has the other is to forget it. Memory is not taken to have the extent.
    pub fn adopt(&mut self, copy: TierCopy, node: NodeId, epoch: Epoch) {
        let known_writing = self.records.get(&copy.place).map(|record| record.writing);
        if known_writing.is_some_and(|writing| writing > copy.writing) {
            self.owe(copy, node, epoch);
            return;
        }
        if known_writing.is_some_and(|writing| writing < copy.writing) {
            self.flush(copy.place);
        }
        if self.nodes.get(&node).is_none_or(|known| known.epoch != epoch) {
            return;
        }
        let record = self
            .records
            .entry(copy.place)
            .or_insert_with(|| Record { is_home: false, ..Record::new(copy.writing) });
        if record.copy_at(node).is_none() {
            record.copies.push(Copy { node, epoch, state: CopyState::Held });
            if let Some(known) = self.nodes.get_mut(&node) {
                known.places.insert(copy.place);
                known.owes_no_more((copy.place, copy.writing));
            }
        }
        self.review(copy.place);
    }

    /// A node has taken a copy that nobody wants there any more, because its acknowledgement came late: it is to forget it, unless it
    /// was sent to it again.
    pub fn owe(&mut self, copy: TierCopy, node: NodeId, epoch: Epoch) {
        let is_wanted = (self.records.get(&copy.place))
            .is_some_and(|record| record.writing == copy.writing && record.copy_at(node).is_some());
        if let Some(known) = self.nodes.get_mut(&node).filter(|known| known.epoch == epoch && !is_wanted) {
            known.owes((copy.place, copy.writing));
        }
    }

    /// Forgets all extents but those that `is_needed` says, and those that memory has still. Gives how many they were.
    pub fn retain(&mut self, is_needed: impl Fn(TierCopy) -> bool) -> usize {
        let is_over = |(place, record): (&u32, &Record)| {
            let copy = TierCopy { place: *place, writing: record.writing };
            (!record.is_home && !is_needed(copy)).then_some(*place)
        };
        let over: Vec<u32> = self.records.iter().filter_map(is_over).collect();
        over.iter().for_each(|place| self.flush(*place));
        over.len()
    }

    /// How many extents are known.
    pub fn extents(&self) -> usize {
        self.records.len()
    }

    /// How many copies a node has, those among them that are on their way.
    pub fn copies_at(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, |node| node.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Read;

    const EPOCH: Epoch = Epoch(1);

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(2);
        for node in 1..=3 {
            ledger.join(NodeId(node), EPOCH);
        }
        ledger
    }

    fn copy(place: u32, writing: u64) -> TierCopy {
        TierCopy { place, writing }
    }

    fn owed(ledger: &mut Ledger, node: u64) -> Vec<TierCopy> {
        ledger.take_flushes(NodeId(node), 100).map_or(Vec::new(), |(_, copies)| copies)
    }

    #[test]
    fn what_two_nodes_say_is_known_again_and_nothing_is_wanting() {
        let mut ledger = ledger();
        ledger.adopt(copy(5, 9), NodeId(1), EPOCH);
        assert_eq!(ledger.read(copy(5, 9)), Read::Peers(vec![NodeId(1)]));
        assert_eq!(ledger.wanting_extents(), 1);
        ledger.adopt(copy(5, 9), NodeId(2), EPOCH);
        ledger.adopt(copy(5, 9), NodeId(2), EPOCH);
        assert_eq!(ledger.read(copy(5, 9)), Read::Peers(vec![NodeId(1), NodeId(2)]));
        assert_eq!((ledger.wanting_extents(), ledger.extents(), ledger.copies_at(NodeId(2))), (0, 1, 1));
        assert_eq!(ledger.take_settled(), [], "memory is asked for nothing that it does not have");
    }

    #[test]
    fn a_copy_that_is_on_its_way_is_wanting_until_it_is_acknowledged() {
        let mut ledger = ledger();
        ledger.adopt(copy(5, 9), NodeId(1), EPOCH);
        let [(_, ticket)] = ledger.send(copy(5, 9), &[NodeId(2)])[..] else { panic!("one sending") };
        assert_eq!((ledger.next_want(0), ledger.wanting_extents()), (None, 1), "nothing to do, but not done");
        ledger.acknowledge(ticket, EPOCH);
        assert_eq!(ledger.wanting_extents(), 0);
    }

    #[test]
    fn of_two_writings_the_later_one_counts_whatever_comes_first() {
        for (first, second) in [((1, 9), (2, 8)), ((2, 8), (1, 9))] {
            let mut ledger = ledger();
            for (node, writing) in [first, second] {
                ledger.adopt(copy(5, writing), NodeId(node), EPOCH);
            }
            assert_eq!(ledger.read(copy(5, 9)), Read::Peers(vec![NodeId(1)]));
            assert_eq!(ledger.read(copy(5, 8)), Read::Unknown);
            assert_eq!((owed(&mut ledger, 1), owed(&mut ledger, 2)), (vec![], vec![copy(5, 8)]));
        }
    }

    #[test]
    fn a_put_since_then_counts_and_an_earlier_epoch_does_not() {
        let mut ledger = ledger();
        ledger.put(copy(5, 10)).unwrap();
        ledger.adopt(copy(5, 9), NodeId(3), EPOCH);
        assert_eq!(ledger.read(copy(5, 10)), Read::Home);
        assert_eq!(owed(&mut ledger, 3), [copy(5, 9)]);
        ledger.fence(NodeId(1), Epoch(2));
        ledger.adopt(copy(6, 1), NodeId(1), EPOCH);
        assert_eq!(ledger.read(copy(6, 1)), Read::Unknown);
    }

    #[test]
    fn what_is_not_needed_is_flushed_and_what_is_home_stays() {
        let mut ledger = ledger();
        ledger.put(copy(1, 1)).unwrap();
        for place in 2..6 {
            ledger.adopt(copy(place, 1), NodeId(1), EPOCH);
        }
        assert_eq!(ledger.retain(|copy| copy.place % 2 == 0), 2);
        assert_eq!(owed(&mut ledger, 1), [copy(3, 1), copy(5, 1)]);
        assert_eq!(ledger.extents(), 3);
    }

    #[test]
    fn a_late_copy_is_owed_unless_it_is_under_way_again() {
        let mut ledger = ledger();
        ledger.put(copy(1, 1)).unwrap();
        let [(node, ticket)] = ledger.send(copy(1, 1), &[NodeId(1)])[..] else { panic!("one sending") };
        ledger.owe(copy(1, 1), node, EPOCH);
        assert_eq!(owed(&mut ledger, 1), []);
        ledger.flush(1);
        assert_eq!(owed(&mut ledger, 1), [copy(1, 1)]);
        assert_eq!(ledger.acknowledge(ticket, EPOCH), crate::ledger::Acknowledged::Late);
        ledger.owe(copy(1, 1), node, EPOCH);
        assert_eq!(owed(&mut ledger, 1), [copy(1, 1)]);
    }
}
