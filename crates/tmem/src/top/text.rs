//! One picture as text, for scripts.

use std::{env, thread, time::Duration};

use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};
use tmem_control::AdminClient;
use unicode_width::UnicodeWidthStr;

use super::{
    draw::{Now, draw, wanted},
    look::look,
    view::View,
};
use crate::failure::Failure;

/// Where nobody says how wide.
const WIDTH: u16 = 120;
/// As wide as somebody may say.
const WIDTHS: std::ops::RangeInclusive<u16> = 20..=500;
/// Of decisions, with their heading.
const DECISIONS: u16 = 11;

/// One picture, as wide as `$COLUMNS` says or 120, and as high as it has to be. It takes an interval, since rates need two looks.
///
/// # Errors
/// No daemon, or it broke off.
pub(crate) fn once(client: &AdminClient, interval: Duration) -> Result<String, Failure> {
    let mut view = View::new(look(client)?, interval);
    thread::sleep(interval);
    view.take(Ok(look(client)?));
    let said = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = said.unwrap_or(WIDTH).clamp(*WIDTHS.start(), *WIDTHS.end());
    Ok(picture(&mut view, Now::read(), width))
}

/// So wide, and without what only keys are for.
fn picture(view: &mut View, now: Now, width: u16) -> String {
    let wanted = wanted(view, now, width);
    let detail_and_chart = if view.guests.is_empty() { 0 } else { 2 };
    let lines = [wanted.list, detail_and_chart, wanted.decisions.min(DECISIONS)];
    let height = lines.iter().fold(wanted.head, |sum, lines| sum.saturating_add(*lines));
    // Drawing to memory does not fail, and the line for keys is the last.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height.saturating_add(1)));
    let Ok(_) = terminal.draw(|frame| draw(frame, view, now));
    lines_of(terminal.backend().buffer(), height)
}

/// The first lines, without what is empty at their ends.
fn lines_of(buffer: &Buffer, lines: u16) -> String {
    let width = buffer.area.width;
    let mut text = String::new();
    for y in 0..lines {
        let mut line = String::new();
        let mut x = 0;
        while let Some(cell) = (x < width).then(|| buffer.cell((x, y))).flatten() {
            line.push_str(cell.symbol());
            // A wide character takes the cells after it, too.
            x = x.saturating_add(u16::try_from(cell.symbol().width()).unwrap_or(1).max(1));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::samples::{SECOND, balanced, client, look, report};

    #[test]
    fn a_picture_as_text_has_every_guest_and_no_line_for_keys() {
        let names: Vec<_> = (0..60).map(|number| format!("vm{number:02}")).collect();
        let mut seen = look(names.iter().map(|name| client(name, 7)).collect());
        seen.status.balance = Some(report(vec![balanced("東京\u{1b}[2J")]));
        let mut view = View::new(seen, SECOND);
        for width in [20, 40, 80, 500] {
            let text = picture(&mut view, Now::read(), width);
            for name in &names {
                assert!(text.lines().any(|line| line.starts_with(name)), "{name} at {width}:\n{text}");
            }
            assert!(text.contains("\n東京"), "{text}");
            assert!(
                !text.contains(|c: char| c.is_control() && c != '\n') && !text.contains("q quit"),
                "{text}"
            );
            let widest = text.lines().map(UnicodeWidthStr::width).max();
            assert!(widest <= Some(width.into()), "{widest:?} at {width}:\n{text}");
        }
    }

    #[test]
    fn a_daemon_without_guests_says_what_to_do() {
        let text = picture(&mut View::new(look(Vec::new()), SECOND), Now::read(), 120);
        assert!(text.ends_with("no guests yet; `tmem disk add` makes a disk for one\n\n"), "{text}");
    }
}
