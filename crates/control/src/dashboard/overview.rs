//! The host, the pool and swapping: numbers, and charts.

use super::{
    Scene,
    chart::{Chart, Reach, Series, Shape, Unit},
    html::{self, put},
    ink::Ink,
};
use crate::history::{History, HostPoint, Line, Span};

const CHART: (u32, u32) = (380, 190);
/// Points of a line: more than that no eye can tell apart at this size.
const POINTS: usize = 160;

/// Numbers and charts.
pub(super) fn put(html: &mut String, scene: &Scene<'_>) {
    let pool = &scene.status.pool;
    html.push_str("<section class=\"tiles\" aria-label=\"At a glance\">");
    match scene.host {
        Some(host) => tile(
            html,
            "Host memory",
            &format!("{} left", html::size(host.available_bytes)),
            &format!("of {}", html::size(host.total_bytes)),
            Some((host.total_bytes.saturating_sub(host.available_bytes), host.total_bytes, Ink::Other)),
        ),
        None => tile(html, "Host memory", "–", "not looked at yet", None),
    }
    tile(
        html,
        "Pool",
        &format!("{} used", html::size(pool.used_bytes)),
        &format!("holds {} of at most {}", html::size(pool.held_bytes), html::size(pool.limit_bytes)),
        Some((pool.held_bytes, pool.limit_bytes, Ink::Pool)),
    );
    tile(
        html,
        "Uncompressed",
        &html::size(pool.logical_bytes),
        &format!(
            "{}, {}",
            html::ratio(pool.logical_bytes, in_use(scene)),
            html::of(pool.stored_pages, "page")
        ),
        Some((in_use(scene), pool.logical_bytes.max(in_use(scene)), Ink::Logical)),
    );
    let [swap_ins, swap_outs, refused] =
        [HostPoint::SwapIns, HostPoint::SwapOuts, HostPoint::Refused].map(|of| scene.history.host_now(of));
    tile(
        html,
        "Swapping",
        &format!("{}/s in", html::rate(swap_ins)),
        &format!("{}/s out, {}/s refused", html::rate(swap_outs), html::rate(refused)),
        None,
    );
    html.push_str("</section>\n");
    html.push_str("<section class=\"charts\" aria-label=\"Over time\">");
    html.push_str(&scene.drawn.overview);
    html.push_str("</section>\n");
}

/// What all pages take, wherever they are.
fn in_use(scene: &Scene<'_>) -> u64 {
    let tiers = scene.status.tiers.iter().fold(0u64, |sum, tier| sum.saturating_add(tier.live_bytes));
    scene.status.pool.used_bytes.saturating_add(tiers)
}

/// A number with what it means, and maybe a bar: so much of so much.
fn tile(html: &mut String, title: &str, number: &str, rest: &str, bar: Option<(u64, u64, Ink)>) {
    put!(
        html,
        "<div class=\"tile\"><h2>{title}</h2><p class=\"number\">{number}</p><p class=\"rest\">{rest}</p>"
    );
    if let Some((part, whole, ink)) = bar {
        let width = (100.0 * part as f64 / whole.max(1) as f64).clamp(0.0, 100.0);
        put!(
            html,
            "<svg class=\"bar\" viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <rect class=\"area ink-{}\" width=\"{width:.1}\" height=\"1\"/></svg>",
            ink.class()
        );
    }
    html.push_str("</div>");
}

/// The three charts of one look.
pub(super) fn charts(history: &History, span: Span) -> String {
    let line = |reading| history.host(span, reading, POINTS);
    let now = |reading| history.host_now(reading);
    let reach = Reach::of(history, span);
    let mut html = String::new();
    // Each stands on the ones after it.
    let other = line(HostPoint::Other);
    let guests = on(line(HostPoint::Guests), &other);
    let pool = on(line(HostPoint::Pool), &guests);
    let area = |label, ink, line, now| Series { label, ink, shape: Shape::Area, line, now };
    Chart {
        title: "Host memory, and who has it",
        unit: Unit::Bytes,
        size: CHART,
        reach,
        least_top: f64::from(now(HostPoint::Total).unwrap_or(0.0)) / 1.05,
        series: vec![
            area("pool", Ink::Pool, pool, now(HostPoint::Pool)),
            area("guests", Ink::Guests, guests, now(HostPoint::Guests)),
            area("others", Ink::Other, other, now(HostPoint::Other)),
        ],
    }
    .put(&mut html);
    let mut series = vec![
        area("uncompressed", Ink::Logical, line(HostPoint::Logical), now(HostPoint::Logical)),
        area("pool used", Ink::Pool, line(HostPoint::Used), now(HostPoint::Used)),
    ];
    if now(HostPoint::Tiered).is_some() {
        series.push(Series {
            label: "in the tier",
            ink: Ink::Tier,
            shape: Shape::Line,
            line: line(HostPoint::Tiered),
            now: now(HostPoint::Tiered),
        });
    }
    Chart {
        title: "Pool, and its pages uncompressed",
        unit: Unit::Bytes,
        size: CHART,
        reach,
        least_top: 1024.0 * 1024.0,
        series,
    }
    .put(&mut html);
    Chart {
        title: "Pages swapped, each second",
        unit: Unit::PagesPerSecond,
        size: CHART,
        reach,
        least_top: 10.0,
        series: swapping(
            [line(HostPoint::Refused), line(HostPoint::SwapOuts), line(HostPoint::SwapIns)],
            [now(HostPoint::Refused), now(HostPoint::SwapOuts), now(HostPoint::SwapIns)],
        ),
    }
    .put(&mut html);
    html
}

/// Refused, out, in: each over time, and now.
pub(super) fn swapping(lines: [Line; 3], now: [Option<f32>; 3]) -> Vec<Series> {
    let inks = [("refused", Ink::Refused), ("out", Ink::Out), ("in", Ink::In)];
    let series = inks.into_iter().zip(lines).zip(now);
    series.map(|(((label, ink), line), now)| Series { label, ink, shape: Shape::Line, line, now }).collect()
}

/// A line on top of another: both are known at the same moments.
fn on(mut line: Line, below: &Line) -> Line {
    for (piece, below) in line.pieces.iter_mut().zip(&below.pieces) {
        for (reading, below) in piece.iter_mut().zip(below) {
            reading.value += below.value;
        }
    }
    line
}
