//! The page for a browser: what a person wants to see at a glance.
//!
//! Everything is drawn here, as HTML and SVG. The page is a frame ([`page`](Dashboard::page)) around what changes
//! ([`fragment`](Dashboard::fragment)); a few lines of script ask for that every five seconds and put in what is new. Without script the browser
//! loads the page again. Numbers are of the moment that they are asked for at; charts and rates of the last look of the history, and drawn once for each look.
//!
//! | module | one job |
//! |---|---|
//! | `html` | text becomes HTML, numbers become text |
//! | `ink` | colours that a style sheet can change |
//! | `chart` | lines become SVG |
//! | `attention` | what is wrong, and what to do |
//! | `overview` | the host, the pool and swapping |
//! | `guests` | each guest: its numbers, its memory over time |
//! | `details` | tiers, the balancer, all counters, the processes |
//! | `page` | the frame |
//!
//! Names and reasons come from guests' owners and from the balancer. None gets into the page but by [`html::text`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    Status, WholeHost,
    history::{History, Span},
};

mod attention;
mod chart;
mod cluster;
mod details;
mod guests;
mod html;
mod ink;
mod overview;
mod page;

pub(crate) use page::{CONTENT_POLICY, SCRIPT, STYLE};

/// The page, and the history that it shows.
#[derive(Debug)]
pub struct Dashboard {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    history: History,
    host: Option<WholeHost>,
    drawn: BTreeMap<Span, Arc<Drawn>>,
}

/// Charts of one look.
#[derive(Debug)]
struct Drawn {
    look: u64,
    overview: String,
    /// By guest, of those that have a history.
    guests: BTreeMap<String, String>,
}

/// What the parts of the page are drawn from.
struct Scene<'a> {
    status: &'a Status,
    history: &'a History,
    host: Option<WholeHost>,
    drawn: &'a Drawn,
    /// How long this process has served.
    serves_for: Duration,
    /// Milliseconds since 1970.
    now_ms: u64,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self { started: Instant::now(), inner: Mutex::default() }
    }
}

impl Dashboard {
    /// Adds what is seen to the history. `at` is the time since any moment, the same one each time.
    pub fn record(&self, at: Duration, status: &Status, host: WholeHost) {
        let mut inner = self.lock();
        inner.history.record(at, status, host);
        inner.host = Some(host);
    }

    /// For how long it has been there: as long as the process serves.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The whole page.
    pub fn page(&self, status: &Status, span: Span) -> String {
        page::page(&self.fragment(status, span), span)
    }

    /// What of the page changes.
    pub fn fragment(&self, status: &Status, span: Span) -> String {
        let mut inner = self.lock();
        let drawn = inner.draw(status, span);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let scene = Scene {
            status,
            history: &inner.history,
            host: inner.host,
            drawn: &drawn,
            serves_for: self.age(),
            now_ms: u64::try_from(now_ms).unwrap_or(u64::MAX),
        };
        let mut html = String::with_capacity(64 << 10);
        page::open(&mut html, status);
        attention::put(&mut html, &scene);
        overview::put(&mut html, &scene);
        guests::put(&mut html, &scene);
        details::put(&mut html, &scene);
        page::close(&mut html);
        html
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The charts, as they were drawn before if nothing came since.
    fn draw(&mut self, status: &Status, span: Span) -> Arc<Drawn> {
        let look = self.history.looks();
        if let Some(drawn) = self.drawn.get(&span)
            && drawn.look == look
        {
            return Arc::clone(drawn);
        }
        let guests = guests::names(status).into_iter().filter(|name| self.history.knows(name));
        let drawn = Arc::new(Drawn {
            look,
            overview: overview::charts(&self.history, span),
            guests: guests.map(|name| (name.to_owned(), guests::charts(&self.history, span, name))).collect(),
        });
        self.drawn.insert(span, Arc::clone(&drawn));
        drawn
    }
}

#[cfg(test)]
mod tests;
