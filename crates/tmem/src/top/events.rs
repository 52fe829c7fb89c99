//! What there is to wait for: keys, looks, signals. Each has a thread that does nothing but wait for it.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use ratatui::crossterm::event::{self, KeyEvent};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};
use tmem_control::AdminClient;

use super::look::{Look, look};

/// Something happened.
pub(super) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size, or something else that only asks for a new picture.
    Changed,
    /// The daemon was asked: what was seen, or why nothing was.
    Seen(Result<Box<Look>, String>),
    /// A signal asks for the end, or whoever waits has ended.
    End,
}

/// A thread's end of the line. When the thread ends, for whatever reason, so does the view.
struct Line(Sender<Event>);

impl Line {
    /// Says it. False: nobody listens any more.
    fn say(&self, event: Event) -> bool {
        self.0.send(event).is_ok()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.say(Event::End);
    }
}

/// Starts to wait. The daemon is asked each interval, the first time after one.
///
/// # Errors
/// The OS has no thread for it, or takes no handler.
pub(super) fn start(client: AdminClient, interval: Duration) -> io::Result<Receiver<Event>> {
    let (sender, receiver) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])?;
    let line = || Line(sender.clone());
    waiter("signals", line(), move |line| {
        if signals.forever().next().is_some() {
            line.say(Event::End);
        }
    })?;
    waiter("keys", line(), |line| {
        while let Ok(event) = event::read() {
            let event = match event {
                event::Event::Key(key) => Event::Key(key),
                _ => Event::Changed,
            };
            if !line.say(event) {
                break;
            }
        }
    })?;
    waiter("looks", line(), move |line| {
        loop {
            thread::sleep(interval);
            let seen = look(&client).map(Box::new).map_err(|error| error.to_string());
            if !line.say(Event::Seen(seen)) {
                break;
            }
        }
    })?;
    Ok(receiver)
}

fn waiter(name: &str, line: Line, wait: impl FnOnce(&Line) + Send + 'static) -> io::Result<()> {
    // It ends with the process.
    thread::Builder::new().name(name.to_owned()).spawn(move || wait(&line)).map(drop)
}
