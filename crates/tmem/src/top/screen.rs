//! The terminal, and what is done with events.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use ratatui::DefaultTerminal;
use tmem_control::AdminClient;

use super::{
    draw::{Now, draw},
    events::{self, Event},
    keys::{Wish, press},
    look::look,
    view::View,
};
use crate::Outcome;

/// How old what depends on the clock may be.
const CLOCK: Duration = Duration::from_secs(1);

/// Shows the daemon until somebody wants it to end. The terminal is as before then, also after a panic: the library sees to that.
pub(crate) fn watch(client: AdminClient, interval: Duration) -> Outcome {
    // Without a daemon there is nothing to show, and the error is better read on the terminal as it is.
    let view = View::new(look(&client)?, interval);
    let events = events::start(client, interval)?;
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            ratatui::restore();
            return Err(error.into());
        }
    };
    let shown = show(&mut terminal, view, &events);
    let cursor = terminal.show_cursor();
    ratatui::try_restore()?;
    cursor?;
    shown
}

fn show(terminal: &mut DefaultTerminal, mut view: View, events: &Receiver<Event>) -> Outcome {
    loop {
        terminal.draw(|frame| draw(frame, &mut view, Now::read()))?;
        let mut event = match events.recv_timeout(CLOCK) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // One picture for all that has happened meanwhile.
        loop {
            match event {
                Event::End => return Ok(()),
                Event::Changed => {}
                Event::Seen(seen) => view.take(seen.map(|look| *look)),
                Event::Key(key) => match press(&mut view, key) {
                    Wish::Quit => return Ok(()),
                    Wish::Redraw => terminal.clear()?,
                    Wish::Nothing => {}
                },
            }
            match events.try_recv() {
                Ok(next) => event = next,
                Err(_) => break,
            }
        }
    }
}
