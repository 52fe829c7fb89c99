//! What is below the list: the selected guest, its swap-ins, the balancer's last decisions, and the keys.

use ratatui::{
    style::{Color, Style},
    text::Line,
    widgets::Sparkline,
};
use tmem_control::BalanceDecision;

use super::{
    guests::{Guest, State},
    head::{BAD, STRONG},
    plain::plain_within,
    view::View,
};
use crate::figures::{rate, size};

/// The selected guest in a line: what is wrong with it, or why it has what it has.
pub(super) fn detail(view: &View, width: u16) -> Line<'static> {
    let Some(guest) = view.looked_at() else { return Line::default() };
    let style = if matches!(guest.state(), State::Silent | State::Trouble) { BAD } else { STRONG };
    let text = [swap_ins(view, guest), limits(guest), why(guest), place(guest)].into_iter().flatten();
    let text = format!("{}: {}", guest.name, text.collect::<Vec<_>>().join("; "));
    Line::styled(plain_within(&text, width.into()), style)
}

fn swap_ins(view: &View, guest: &Guest) -> Option<String> {
    guest.client.as_ref()?;
    let most = view.history(guest).flatten().max().unwrap_or(0);
    Some(format!("swap-ins/s {}, at most {most}", rate(guest.rates.swap_ins)))
}

fn limits(guest: &Guest) -> Option<String> {
    let guest = guest.balanced.as_ref()?;
    Some(format!("{} to {}", size(guest.floor_bytes), size(guest.ceiling_bytes)))
}

fn why(guest: &Guest) -> Option<String> {
    let guest = guest.balanced.as_ref()?;
    let text = guest.trouble.as_ref().unwrap_or(&guest.reason);
    (!text.is_empty()).then(|| text.clone())
}

fn place(guest: &Guest) -> Option<String> {
    let disk = guest.client.as_ref()?.disk.as_ref()?;
    Some(format!("{} {}", disk.transport, disk.place()))
}

/// The looked-at guest's swap-ins, the newest at the right.
pub(super) fn chart(view: &View, width: u16) -> Sparkline<'static> {
    let mut rates: Vec<Option<u64>> = view
        .looked_at()
        .map(|guest| view.history(guest).rev().take(width.into()).collect())
        .unwrap_or_default();
    rates.resize(width.into(), None);
    rates.reverse();
    Sparkline::default().data(rates).style(Style::new().fg(Color::Yellow))
}

/// The last decisions, newest first, with a heading. Empty: there is no balancer, or it has decided nothing.
pub(super) fn decisions(view: &View, unix_ms: u64, width: u16) -> Vec<Line<'static>> {
    let decisions = view.look.status.balance.iter().flat_map(|balance| &balance.decisions).rev();
    let mut lines: Vec<_> = decisions.map(|decision| decided(decision, unix_ms, width)).collect();
    if !lines.is_empty() {
        lines.insert(0, Line::styled(plain_within("last decisions", width.into()), STRONG));
    }
    lines
}

fn decided(decision: &BalanceDecision, unix_ms: u64, width: u16) -> Line<'static> {
    let ago = unix_ms.saturating_sub(decision.unix_ms) / 1000;
    let (from, to) = (size(decision.from_bytes), size(decision.to_bytes));
    // Whose name is long does not hide what was decided.
    let name = plain_within(&decision.guest, usize::from(width) / 3);
    let text = format!("{ago:>4}s ago {name} {from} → {to}: {}", decision.reason);
    Line::raw(plain_within(&text, width.into()))
}

/// The last line.
pub(super) fn keys(view: &View, width: u16) -> Line<'static> {
    let pause = if view.paused { "go on" } else { "pause" };
    let text = format!("q quit  ↑↓ select  s sort: {}  p {pause}  ? help", view.sort.word());
    Line::styled(plain_within(&text, width.into()), Style::new().fg(Color::DarkGray))
}
