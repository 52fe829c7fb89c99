//! Each guest: its numbers in a table, its memory and its swapping over time. A guest is what the balancer looks after, a client of the
//! pool, or both.

use std::collections::BTreeMap;

use super::{
    Scene,
    chart::{Chart, Reach, Series, Shape, Unit},
    html::{
        self,
        Column::{Plain, Words},
        put,
    },
    ink::Ink,
    overview::swapping,
};
use crate::{
    BalancedGuest, ClientStatus, Status,
    history::{GuestPoint, History, Line, Span},
};

const CHART: (u32, u32) = (380, 170);
/// Points of a line of these small charts. There may be sixty-four times two of them.
const POINTS: usize = 90;
/// Rows of the table. The status has all.
const MAX_ROWS: usize = 500;

#[derive(Clone, Copy, Default)]
struct Guest<'a> {
    client: Option<&'a ClientStatus>,
    balanced: Option<&'a BalancedGuest>,
}

fn all(status: &Status) -> BTreeMap<&str, Guest<'_>> {
    let mut guests: BTreeMap<&str, Guest<'_>> = BTreeMap::new();
    for client in &status.clients {
        guests.entry(&client.name).or_default().client = Some(client);
    }
    for guest in status.balance.iter().flat_map(|balance| &balance.guests) {
        guests.entry(&guest.name).or_default().balanced = Some(guest);
    }
    guests
}

/// Names of all guests.
pub(super) fn names(status: &Status) -> Vec<&str> {
    all(status).into_keys().collect()
}

/// The table, and charts of those that have a history.
pub(super) fn put(html: &mut String, scene: &Scene<'_>) {
    let guests = all(scene.status);
    html.push_str("<section aria-labelledby=\"guests\"><h2 id=\"guests\">Guests</h2>");
    if guests.is_empty() {
        html.push_str(
            "<p class=\"nothing\">No guests yet. <code>tmem disk add web1 --size 8G --vhost-user /run/tmem/web1.sock</code> makes a swap disk, \
             <code>tmem guest-config web1 --vmm qemu</code> prints what its guest needs.</p></section>\n",
        );
        return;
    }
    html::open_table(
        html,
        "scroll",
        "Guests, table",
        "",
        &[
            Plain("guest"),
            Words("state"),
            Plain("memory"),
            Plain("target"),
            Plain("in the pool"),
            Plain("uncompressed"),
            Plain("ratio"),
            Plain("in/s"),
            Plain("out/s"),
            Plain("refused"),
        ],
    );
    for (name, guest) in guests.iter().take(MAX_ROWS) {
        row(html, scene, name, *guest);
    }
    html.push_str("</tbody></table></div>\n");
    if guests.len() > MAX_ROWS {
        put!(
            html,
            "<p class=\"nothing\">and {}</p>",
            html::of((guests.len() - MAX_ROWS) as u64, "more guest")
        );
    }
    html.push_str("<div class=\"cards\">");
    for (name, guest) in guests.iter().take(MAX_ROWS) {
        let charts = scene.drawn.guests.get(*name).map(String::as_str);
        if charts.is_some() || guest.balanced.is_some() {
            card(
                html,
                name,
                *guest,
                charts.unwrap_or("<p class=\"nothing\">No charts: it has no history yet.</p>"),
            );
        }
    }
    html.push_str("</div></section>\n");
}

fn row(html: &mut String, scene: &Scene<'_>, name: &str, guest: Guest<'_>) {
    let dash = || "–".to_owned();
    let balanced = |of: fn(&BalancedGuest) -> u64| guest.balanced.map_or_else(dash, |it| html::size(of(it)));
    let client = |of: fn(&ClientStatus) -> String| guest.client.map_or_else(dash, of);
    let now = |reading| html::rate(scene.history.guest_now(name, reading));
    put!(html, "<tr><th scope=\"row\"><bdi>{}</bdi></th><td class=\"words\">", html::text(name));
    states(html, guest);
    put!(
        html,
        "</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        balanced(|it| it.size_bytes),
        balanced(|it| it.target_bytes),
        client(|it| html::size(it.used_bytes)),
        client(|it| html::size(it.logical_bytes)),
        client(|it| html::ratio(it.logical_bytes, it.used_bytes.saturating_add(it.tiered_bytes))),
        now(GuestPoint::SwapIns),
        now(GuestPoint::SwapOuts),
        client(|it| html::count(it.refused_puts)),
    );
}

fn states(html: &mut String, guest: Guest<'_>) {
    let mut badge = |class: &str, text: &str| put!(html, "<span class=\"badge {class}\">{text}</span> ");
    if let Some(balanced) = guest.balanced {
        if balanced.trouble.is_some() {
            badge("warning", "trouble");
        } else if !balanced.answers {
            badge("warning", "no answer");
        }
        if balanced.pressure.is_some_and(|pressure| pressure >= 0.01) {
            badge("warning", &format!("waits for memory {:.0}%", balanced.pressure.unwrap_or(0.0) * 100.0));
        }
    }
    if let Some(client) = guest.client {
        if client.frozen {
            badge("note", "frozen");
        }
        match client.disk.as_ref().map(|disk| disk.connected) {
            Some(true) => badge("good", "connected"),
            Some(false) => badge("", "nobody connected"),
            None => badge("", "no disk"),
        }
    } else {
        badge("", "no swap disk");
    }
}

fn card(html: &mut String, name: &str, guest: Guest<'_>, charts: &str) {
    put!(html, "<article><h3><bdi>{}</bdi>", html::text(name));
    if let Some(balanced) = guest.balanced {
        put!(
            html,
            " <small>{}, {} to {}</small>",
            html::text(&balanced.kind),
            html::size(balanced.floor_bytes),
            html::size(balanced.ceiling_bytes)
        );
    } else if let Some(disk) = guest.client.and_then(|client| client.disk.as_ref()) {
        put!(html, " <small>{}, {}</small>", html::text(&disk.transport), html::size(disk.size_bytes));
    }
    html.push_str("</h3>");
    match guest.balanced {
        Some(balanced) => {
            let why = balanced.trouble.as_ref().unwrap_or(&balanced.reason);
            put!(html, "<p class=\"why\">{}</p>", html::text(why));
        }
        None => html.push_str("<p class=\"why\">not balanced</p>"),
    }
    html.push_str(charts);
    html.push_str("</article>\n");
}

/// Charts of one guest.
pub(super) fn charts(history: &History, span: Span, name: &str) -> String {
    let line = |reading| history.guest(span, name, reading, POINTS).unwrap_or_default();
    let now = |reading| history.guest_now(name, reading);
    let reach = Reach::of(history, span);
    let series =
        |label, ink, shape, reading| Series { label, ink, shape, line: line(reading), now: now(reading) };
    let is_balanced = !line(GuestPoint::Size).pieces.is_empty();
    let is_client = !line(GuestPoint::Used).pieces.is_empty();
    let mut memory = Vec::new();
    if is_balanced {
        memory.push(series("memory", Ink::Guests, Shape::Area, GuestPoint::Size));
        if is_client {
            memory.push(series("swapped out", Ink::Logical, Shape::Line, GuestPoint::Logical));
        }
        memory.push(series("target", Ink::Target, Shape::Line, GuestPoint::Target));
    } else {
        memory.push(series("swapped out", Ink::Logical, Shape::Area, GuestPoint::Logical));
    }
    if is_client {
        let shape = if is_balanced { Shape::Line } else { Shape::Area };
        memory.push(series("in the pool", Ink::Pool, shape, GuestPoint::Used));
    }
    let mut html = String::new();
    let chart = |title: &str, unit, least_top, series| {
        Chart { title, unit, size: CHART, reach, least_top, series }.put(&mut html)
    };
    let mut chart = chart;
    chart("Memory", Unit::Bytes, 1024.0 * 1024.0, memory);
    if is_client {
        let of = [GuestPoint::Refused, GuestPoint::SwapOuts, GuestPoint::SwapIns];
        let lines: [Line; 3] = of.map(line);
        chart("Pages swapped, each second", Unit::PagesPerSecond, 10.0, swapping(lines, of.map(now)));
    }
    html
}
