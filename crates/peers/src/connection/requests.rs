//! Who waits for which answer, and who reads.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar},
};

use tmem_cluster::wire::Frame;

/// The requests of a connection that are under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    under_way: HashMap<u64, Waiting>,
    last_id: u64,
    /// Whether somebody reads.
    is_read: bool,
    /// Why the connection has ended.
    pub(super) ended: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    /// Kind and payload of the answer, once somebody has read it.
    answer: Option<(u16, Vec<u8>)>,
    /// Rung for whoever waits. `None`: nobody does.
    bell: Option<Arc<Condvar>>,
}

/// What is to be done by whoever wants an answer.
pub(super) enum Role {
    /// It is there: kind and payload.
    Answered(u16, Vec<u8>),
    /// It reads, until [`Requests::stop_reading`].
    Reads,
    /// Somebody else reads: it waits for the bell, and asks again.
    Waits(Arc<Condvar>),
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
        self.under_way.insert(self.last_id, Waiting { answer: None, bell: None });
        Some(self.last_id)
    }

    pub(super) fn role(&mut self, id: u64) -> Role {
        let Some(waiting) = self.under_way.get_mut(&id) else { return Role::Ended };
        if let Some((kind, payload)) = waiting.answer.take() {
            self.under_way.remove(&id);
            return Role::Answered(kind, payload);
        }
        if self.ended.is_some() {
            return Role::Ended;
        }
        if !self.is_read {
            self.is_read = true;
            waiting.bell = None;
            return Role::Reads;
        }
        Role::Waits(Arc::clone(waiting.bell.get_or_insert_default()))
    }

    /// Whoever read for that request does so no more.
    pub(super) fn stop_reading(&mut self, id: u64) {
        self.is_read = false;
        self.leave(id);
    }

    /// Nobody waits for that request any more, or for now.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(waiting) = self.under_way.get_mut(&id) {
            waiting.bell = None;
        }
        self.pass_on();
    }

    /// If nobody reads, one of those who wait does. Called by all who stop waiting: they may be the one who was to read.
    pub(super) fn pass_on(&self) {
        if !self.is_read {
            let waits = |waiting: &&Waiting| waiting.answer.is_none() && waiting.bell.is_some();
            if let Some(bell) = self.under_way.values().find(waits).and_then(|next| next.bell.as_ref()) {
                bell.notify_one();
            }
        }
    }

    /// Nobody wants that answer any more.
    pub(super) fn forget(&mut self, id: u64) {
        self.under_way.remove(&id);
    }

    /// An answer for somebody else than who read it. One that nobody waits for any more is dropped.
    pub(super) fn hand_over(&mut self, frame: Frame<'_>) {
        if let Some(waiting) = self.under_way.get_mut(&frame.id) {
            waiting.answer = Some((frame.kind, frame.payload.to_vec()));
            if let Some(bell) = &waiting.bell {
                bell.notify_one();
            }
        }
    }

    /// No answer will come any more. False: that was known.
    pub(super) fn end(&mut self, why: &str) -> bool {
        let is_new = self.ended.is_none();
        self.ended.get_or_insert_with(|| why.to_owned());
        self.under_way
            .values()
            .filter_map(|waiting| waiting.bell.as_ref())
            .for_each(|bell| bell.notify_one());
        is_new
    }
}
