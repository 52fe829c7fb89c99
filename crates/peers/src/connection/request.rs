//! One request, by whoever asked.

use std::{sync::Arc, time::Instant};

use tmem_cluster::wire::Message;

use super::Connection;

/// A request that is under way. Dropped before its answer came, nobody waits for that any more.
#[derive(Debug)]
pub(crate) struct Request {
    connection: Arc<Connection>,
    id: u64,
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
        Self { connection, id }
    }

    /// Waits for the answer, and has `take` read it.
    pub(crate) fn wait<R>(&self, until: Instant, take: impl FnOnce(Message<'_>) -> R) -> Waited<R> {
        self.connection.wait(self.id, until, take)
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.connection.requests().forget(self.id);
    }
}
