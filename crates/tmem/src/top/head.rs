//! What is above the list: the daemon, the pool, the host, tiers, the balancer.

use std::time::Instant;

use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    plain::{plain, plain_within},
    view::View,
};
use crate::figures::{ratio, size, uptime};

/// Tiers that have a line each.
const TIERS: usize = 2;
/// A bar of fewer cells says nothing, and one of more says no more.
const BAR: std::ops::RangeInclusive<usize> = 8..=40;

pub(super) const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Its lines, at most so wide.
pub(super) fn lines(view: &View, now: Instant, width: u16) -> Vec<Line<'static>> {
    let width = usize::from(width);
    let mut lines = vec![daemon(view, now, width), pool(view, width)];
    lines.extend(host(view, width));
    let status = &view.look.status;
    for tier in status.tiers.iter().take(TIERS) {
        let style = if tier.state == "ready" { Style::new() } else { BAD };
        lines.push(Line::styled(plain_within(&format!("tier {tier}"), width), style));
    }
    if let Some(more) = status.tiers.len().checked_sub(TIERS + 1) {
        lines.push(Line::raw(format!("and {} more tiers", more + 1)));
    }
    if let Some(balance) = &status.balance {
        let dry_run = if balance.dry_run { " (dry run)" } else { "" };
        let text = format!(
            "balancer {}{dry_run}: {} guests, {} to give",
            balance.policy,
            balance.guests.len(),
            size(balance.budget_bytes),
        );
        lines.push(Line::raw(plain_within(&text, width)));
    }
    lines
}

/// What is wrong comes first, since the end of the line may not fit.
fn daemon(view: &View, now: Instant, width: usize) -> Line<'static> {
    let status = &view.look.status;
    let mut words = vec![Span::styled(format!("tmem {}", plain(&status.version)), STRONG)];
    if let Some(silence) = view.silence(now) {
        words.push(Span::styled(format!("no answer since {} s", silence.as_secs()), BAD));
    }
    if view.paused {
        words.push(Span::styled("paused", BAD));
    }
    match status.worker_deaths {
        0 => {}
        1 => words.push(Span::styled("1 worker died", BAD)),
        deaths => words.push(Span::styled(format!("{deaths} workers died"), BAD)),
    }
    words.push(Span::raw(format!("up {}", uptime(status.uptime_seconds))));
    match view.guests.len() {
        1 => words.push(Span::raw("1 guest")),
        guests => words.push(Span::raw(format!("{guests} guests"))),
    }
    if let Some(failure) = &view.failure {
        words.push(Span::raw(plain(failure)));
    }
    let mut line = Line::default();
    let mut left = width;
    for word in words {
        let gap = if line.spans.is_empty() { "" } else { ", " };
        let text = plain_within(&format!("{gap}{}", word.content), left);
        left = left.saturating_sub(unicode_width::UnicodeWidthStr::width(text.as_str()));
        line.push_span(Span::styled(text, word.style));
    }
    line
}

fn pool(view: &View, width: usize) -> Line<'static> {
    let pool = &view.look.status.pool;
    let (used, held, limit) = (size(pool.used_bytes), size(pool.held_bytes), size(pool.limit_bytes));
    let ratio = ratio(pool.logical_bytes, pool.used_bytes);
    let logical = size(pool.logical_bytes);
    let parts = [(pool.used_bytes, '█'), (pool.held_bytes.saturating_sub(pool.used_bytes), '▒')];
    let texts = [
        format!("{used} used, {held} held of {limit}, ratio {ratio}, {logical} uncompressed"),
        format!("{used} used, {held} held of {limit}, ratio {ratio}"),
        format!("{used}/{held}/{limit}, ratio {ratio}"),
        format!("{used}/{limit}"),
    ];
    bar("pool", &parts, pool.limit_bytes, &texts, width)
}

fn host(view: &View, width: usize) -> Option<Line<'static>> {
    let host = view.look.host?;
    let (total, available) = (size(host.total_bytes), size(host.available_bytes));
    let held_bytes = view.look.status.pool.held_bytes;
    let used_bytes = host.total_bytes.saturating_sub(host.available_bytes);
    // What the pool holds is memory that is in use, too.
    let parts = [(used_bytes.saturating_sub(held_bytes), '█'), (held_bytes.min(used_bytes), '▒')];
    let texts = [
        format!(
            "{} used, {} of it the pool, {available} available of {total}",
            size(used_bytes),
            size(held_bytes)
        ),
        format!("{} used, {available} available of {total}", size(used_bytes)),
        format!("{available} available of {total}"),
        format!("{available} free"),
    ];
    Some(bar("host", &parts, host.total_bytes, &texts, width))
}

/// A name, parts of a whole, and the longest of the texts that leaves room for the bar.
fn bar(name: &str, parts: &[(u64, char)], whole: u64, texts: &[String], width: usize) -> Line<'static> {
    let room = |text: &String| width.checked_sub(name.len() + text.chars().count() + 2);
    let fitting = texts.iter().find_map(|text| Some((text, room(text).filter(|room| room >= BAR.start())?)));
    let Some((text, room)) = fitting else {
        let text = texts.last().map_or("", String::as_str);
        return Line::raw(plain_within(&format!("{name} {text}"), width));
    };
    let cells = room.min(*BAR.end());
    let mut bar = String::with_capacity(cells);
    let mut sum = 0u64;
    for (part, cell) in parts {
        sum = sum.saturating_add(*part);
        let end = if whole == 0 { 0.0 } else { (sum as f64 / whole as f64).clamp(0.0, 1.0) };
        let end = (end * cells as f64).round() as usize;
        bar.extend(std::iter::repeat_n(*cell, end.saturating_sub(bar.chars().count())));
    }
    bar.extend(std::iter::repeat_n('░', cells.saturating_sub(bar.chars().count())));
    Line::from(vec![
        Span::raw(format!("{name} ")),
        Span::styled(bar, Style::new().fg(Color::Cyan)),
        Span::raw(format!(" {text}")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_its_parts_and_leaves_the_text_its_room() {
        let texts = ["a long text".to_owned(), "short".to_owned()];
        let line = |parts: &[(u64, char)], whole, width| bar("x", parts, whole, &texts, width).to_string();
        assert_eq!(line(&[(5, '#'), (3, '=')], 10, 24), "x #####===░░ a long text");
        assert_eq!(line(&[(5, '#'), (30, '=')], 10, 18), "x #####===== short");
        assert_eq!(line(&[(u64::MAX, '#'), (u64::MAX, '=')], 10, 16), "x ######## short");
        assert_eq!(line(&[(1, '#')], 0, 16), "x ░░░░░░░░ short");
        assert_eq!(line(&[(1, '#')], 1, 15), "x short");
        assert_eq!(line(&[(1, '#')], 1, 4), "x s…");
        assert_eq!(line(&[(1, '#')], 1, 0), "");
        assert!(line(&[(1, '#')], 1, 500).chars().count() < 70);
    }
}
