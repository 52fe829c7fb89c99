//! Who waits for which answer, and who reads.
//!
//! Answers for others are handed over many at a time, and each of them wakes one who waits. Until the last of these has run, nobody else is woken to
//! read, and what is asked meanwhile is not sent by itself: whoever takes the last answer sees to both.

use std::{
    collections::HashMap,
    thread::{self, Thread},
};

/// The requests of a connection that are under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    under_way: HashMap<u64, Waiting>,
    last_id: u64,
    /// Whether somebody reads.
    is_read: bool,
    /// How many were woken for their answers and have not taken them.
    untaken: usize,
    /// Why the connection has ended.
    pub(super) ended: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    /// The answer, once somebody has read it.
    answer: Option<Answer>,
    /// Whoever waits. `None`: nobody does.
    waiter: Option<Thread>,
}

/// An answer that somebody else has read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) id: u64,
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

/// What is to be done by whoever wants an answer.
pub(super) enum Role {
    /// It is there.
    Answered(Answer),
    /// It reads, until [`Requests::stop_reading`].
    Reads {
        /// Nobody else waits for an answer.
        is_alone: bool,
    },
    /// Somebody else reads: it sleeps until it is woken, and asks again.
    Waits,
    /// None will come.
    Ended,
}

impl Requests {
    /// A new request's id. `None`: the connection has ended.
    pub(super) fn add(&mut self) -> Option<u64> {
        if self.ended.is_some() {
            return None;
        }
        self.last_id += 1;
        self.under_way.insert(self.last_id, Waiting { answer: None, waiter: None });
        Some(self.last_id)
    }

    /// Whether there is nobody who was woken and is about to run.
    pub(super) fn is_quiet(&self) -> bool {
        self.untaken == 0
    }

    pub(super) fn role(&mut self, id: u64) -> Role {
        let Some(waiting) = self.under_way.get_mut(&id) else { return Role::Ended };
        if waiting.answer.is_some() {
            let was_woken = waiting.waiter.is_some();
            self.untaken -= usize::from(was_woken);
            return self
                .under_way
                .remove(&id)
                .and_then(|taken| taken.answer)
                .map_or(Role::Ended, Role::Answered);
        }
        if self.ended.is_some() {
            return Role::Ended;
        }
        if !self.is_read {
            self.is_read = true;
            waiting.waiter = None;
            let is_alone = self.under_way.values().all(|waiting| waiting.waiter.is_none());
            return Role::Reads { is_alone };
        }
        waiting.waiter.get_or_insert_with(thread::current);
        Role::Waits
    }

    /// Whoever read does so no more.
    pub(super) fn stop_reading(&mut self) {
        self.is_read = false;
    }

    /// Nobody waits for that request for now.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(waiting) = self.under_way.get_mut(&id) {
            let was_woken = waiting.answer.is_some() && waiting.waiter.is_some();
            waiting.waiter = None;
            self.untaken -= usize::from(was_woken);
        }
    }

    /// One of those who wait, if nobody reads and nobody is about to who was woken for something else.
    pub(super) fn next_reader(&self) -> Option<Thread> {
        if self.is_read || !self.is_quiet() {
            return None;
        }
        let waits = |waiting: &Waiting| waiting.waiter.clone().filter(|_| waiting.answer.is_none());
        self.under_way.values().find_map(waits)
    }

    /// Nobody wants that answer any more.
    pub(super) fn forget(&mut self, id: u64) {
        self.leave(id);
        self.under_way.remove(&id);
    }

    /// Answers for others than who read them: whom to wake. What nobody waits for any more is dropped.
    pub(super) fn hand_over(&mut self, answers: Vec<Answer>) -> Vec<Thread> {
        let mut woken = Vec::with_capacity(answers.len());
        for answer in answers {
            let Some(waiting) = self.under_way.get_mut(&answer.id) else { continue };
            let is_first = waiting.answer.replace(answer).is_none();
            if let Some(waiter) = waiting.waiter.clone().filter(|_| is_first) {
                self.untaken += 1;
                woken.push(waiter);
            }
        }
        woken
    }

    /// No answer will come any more. False: that was known.
    pub(super) fn end(&mut self, why: &str) -> bool {
        let is_new = self.ended.is_none();
        self.ended.get_or_insert_with(|| why.to_owned());
        self.under_way.values().filter_map(|waiting| waiting.waiter.as_ref()).for_each(Thread::unpark);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u64) -> Answer {
        Answer { id, kind: 7, payload: vec![id as u8] }
    }

    #[test]
    fn one_reads_and_the_last_who_takes_an_answer_finds_the_next() {
        let mut requests = Requests::default();
        let ids: Vec<u64> = (0..4).filter_map(|_| requests.add()).collect();
        assert!(matches!(requests.role(ids[0]), Role::Reads { is_alone: true }));
        assert!(ids[1..].iter().all(|id| matches!(requests.role(*id), Role::Waits)));
        // Two answers at once, and that of whoever reads.
        assert_eq!(requests.hand_over(vec![answer(ids[1]), answer(ids[2])]).len(), 2);
        requests.stop_reading();
        requests.forget(ids[0]);
        assert!(!requests.is_quiet() && requests.next_reader().is_none(), "two are about to run");
        assert!(matches!(requests.role(ids[1]), Role::Answered(taken) if taken.payload == [ids[1] as u8]));
        assert!(!requests.is_quiet() && requests.next_reader().is_none(), "one is");
        assert!(matches!(requests.role(ids[2]), Role::Answered(_)));
        assert!(requests.is_quiet() && requests.next_reader().is_some(), "the last one is still waiting");
        assert!(matches!(requests.role(ids[3]), Role::Reads { is_alone: true }));
        assert!(requests.next_reader().is_none());
    }

    #[test]
    fn nobody_is_expected_who_gave_up_or_was_not_asleep() {
        let mut requests = Requests::default();
        let ids: Vec<u64> = (0..4).filter_map(|_| requests.add()).collect();
        assert!(matches!(requests.role(ids[0]), Role::Reads { .. }));
        assert!(matches!(requests.role(ids[1]), Role::Waits));
        assert!(matches!(requests.role(ids[2]), Role::Waits));
        // The second of an answer is a peer's mistake, and the fourth waits for nothing yet.
        let woken = requests.hand_over(vec![answer(ids[1]), answer(ids[1]), answer(ids[2]), answer(ids[3])]);
        assert_eq!(woken.len(), 2);
        requests.leave(ids[1]);
        assert!(!requests.is_quiet());
        requests.forget(ids[2]);
        assert!(requests.is_quiet());
        // What came while nobody waited is there for whoever does then.
        assert!(matches!(requests.role(ids[1]), Role::Answered(_)));
        assert!(matches!(requests.role(ids[3]), Role::Answered(_)));
        assert!(requests.is_quiet() && matches!(requests.role(ids[2]), Role::Ended));
    }
}
