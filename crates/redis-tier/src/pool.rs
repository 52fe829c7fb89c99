//! Connections that wait for readers.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{RedisError, RedisResult};

use crate::connection::{Link, Server};

/// At most so many reads are under way at once; more wait for one of them. A server answers them one after the other.
const MAX_LINKS: usize = 16;

/// Connections, made when they are needed.
pub(crate) struct Pool {
    server: Server,
    patience: Duration,
    inner: Mutex<Inner>,
    returned: Condvar,
}

#[derive(Default)]
struct Inner {
    idle: Vec<Link>,
    in_use: usize,
}

impl Pool {
    pub(crate) fn new(server: Server, patience: Duration) -> Self {
        Self { server, patience, inner: Mutex::default(), returned: Condvar::new() }
    }

    /// Does something with a connection. One that was idle may have been closed by the server meanwhile: then it is done again with a
    /// new one. Errors: what the connection, or connecting, says.
    pub(crate) fn with<T>(&self, mut work: impl FnMut(&mut Link) -> RedisResult<T>) -> RedisResult<T> {
        let _turn = self.take_turn()?;
        let idle = self.lock().idle.pop();
        if let Some(mut link) = idle {
            match work(&mut link) {
                Err(error) if error.is_connection_dropped() => self.clear(),
                outcome => return self.keep(link, outcome),
            }
        }
        let mut link = self.server.connect(self.patience)?;
        let outcome = work(&mut link);
        self.keep(link, outcome)
    }

    /// Closes what is idle.
    pub(crate) fn clear(&self) {
        self.lock().idle.clear();
    }

    fn keep<T>(&self, link: Link, outcome: RedisResult<T>) -> RedisResult<T> {
        if outcome.as_ref().err().is_none_or(|error| link.is_sound_after(error)) {
            self.lock().idle.push(link);
        }
        outcome
    }

    fn take_turn(&self) -> RedisResult<Turn<'_>> {
        let deadline = Instant::now() + self.patience;
        let mut inner = self.lock();
        while inner.in_use >= MAX_LINKS {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)));
            }
            // Counters: whole whatever happened to another thread.
            inner = self.returned.wait_timeout(inner, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.in_use += 1;
        Ok(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the reads that are under way.
struct Turn<'a>(&'a Pool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.returned.notify_one();
    }
}
