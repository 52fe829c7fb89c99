//! One request, by whoever asked.

use std::{cell::Cell, sync::Arc, time::Instant};

use tmem_cluster::wire::Message;

use super::Connection;

/// A request that is under way. Dropped before its answer came, nobody waits for that any more.
#[derive(Debug)]
pub(crate) struct Request {
    connection: Arc<Connection>,
    id: u64,
    /// Nothing of it is left with the connection.
    is_over: Cell<bool>,
}

/// What waiting led to.
#[derive(Debug)]
pub(crate) enum Waited<R> {
    /// The answer.
    Answer(R),
    /// None so far: it may be waited for again.
    NotYet,
    /// None will come: the connection has ended.
    Ended,
}

impl Request {
    pub(super) fn new(connection: Arc<Connection>, id: u64) -> Self {
        Self { connection, id, is_over: Cell::new(false) }
    }

    /// Waits for the answer, and has `take` read it.
    pub(crate) fn wait<R>(&self, until: Instant, take: impl FnOnce(Message<'_>) -> R) -> Waited<R> {
        let waited = self.connection.wait(self.id, until, take);
        self.is_over.set(matches!(waited, Waited::Answer(_)));
        waited
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_over.get() {
            self.connection.requests().forget(self.id);
        }
    }
}
