//! The picture.

use std::time::Instant;

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Text},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    columns::{self, Column},
    foot,
    guests::{Guest, State},
    head::{self, BAD, STRONG},
    keys::HELP,
    plan::{Plan, Wanted},
    view::View,
};

const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// When the picture is drawn, by two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// The clock of looks.
    pub(super) at: Instant,
    /// Milliseconds since 1970, the clock of decisions.
    pub(super) unix_ms: u64,
}

impl Now {
    /// It is now.
    pub(super) fn read() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let unix_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Self { at: Instant::now(), unix_ms }
    }
}

/// What there is to show in a picture so wide, in lines.
pub(super) fn wanted(view: &View, now: Now, width: u16) -> Wanted {
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    Wanted {
        head: lines(head::lines(view, now.at, width).len()),
        list: lines(view.guests.len().max(1)).saturating_add(1),
        decisions: lines(foot::decisions(view, now.unix_ms, width).len()),
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, now: Now) {
    let area = frame.area();
    let width = area.width;
    let plan = Plan::new(area.height, wanted(view, now, width));
    let heights = [plan.head, plan.list, plan.detail, plan.chart, plan.decisions, 1];
    let [head, body, detail, chart, decisions, keys] =
        Layout::vertical(heights.map(Constraint::Length)).areas(area);
    frame.render_widget(Text::from(head::lines(view, now.at, width)), head);
    if view.help {
        help(frame, body);
    } else {
        list(frame, view, body);
    }
    frame.render_widget(foot::detail(view, width), detail);
    frame.render_widget(foot::chart(view, width), chart);
    frame.render_widget(Text::from(foot::decisions(view, now.unix_ms, width)), decisions);
    if area.height > 0 {
        frame.render_widget(foot::keys(view, width), keys);
    }
}

fn list(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    if view.guests.is_empty() {
        let text = "no guests yet; `tmem disk add` makes a disk for one";
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let (name_width, columns) = columns::fitting(area.width.into(), &view.guests);
    let names = std::iter::once(Cell::new("GUEST").style(STRONG));
    let headings = columns.iter().map(|column| {
        let style = if column.sort == Some(view.sort) { STRONG.patch(REVERSED) } else { STRONG };
        aligned(column, column.heading.to_owned(), style)
    });
    let header = Row::new(names.chain(headings).collect::<Vec<_>>());
    let rows = view.guests.iter().map(|guest| row(guest, name_width, &columns));
    let cells = |width: usize| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX));
    let widths: Vec<_> =
        std::iter::once(cells(name_width)).chain(columns.iter().map(|column| cells(column.width))).collect();
    let table = Table::new(rows.collect::<Vec<_>>(), widths)
        .header(header)
        .column_spacing(1)
        .row_highlight_style(REVERSED);
    view.table.select(view.selected_place());
    frame.render_stateful_widget(table, area, &mut view.table);
}

fn row(guest: &Guest, name_width: usize, columns: &[&Column]) -> Row<'static> {
    let style = if matches!(guest.state(), State::Silent | State::Trouble) { BAD } else { Style::new() };
    let name = Cell::new(columns::name(guest, name_width).0);
    let figures = columns.iter().map(|column| aligned(column, (column.cell)(guest), Style::new()));
    Row::new(std::iter::once(name).chain(figures).collect::<Vec<_>>()).style(style)
}

/// Words stand at the left, figures at the right.
fn aligned(column: &Column, text: String, style: Style) -> Cell<'static> {
    let alignment = if column.words { Alignment::Left } else { Alignment::Right };
    Cell::new(Line::styled(text, style).alignment(alignment))
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.map(|(keys, effect)| Line::raw(format!("{keys:<10} {effect}")));
    frame.render_widget(Text::from(lines.to_vec()), area);
}

#[cfg(test)]
mod tests;
