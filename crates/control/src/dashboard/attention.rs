//! What is wrong, and what to do: the first thing on the page.

use super::{
    Scene,
    html::{self, put},
};
use crate::history::{LOOK_EVERY, MAX_GUESTS};

/// Refused puts are news for so long.
const RECENT_LOOKS: usize = 300 / LOOK_EVERY.as_secs() as usize;
/// A worker's death is news for so long.
const DEATH_IS_NEWS_SECONDS: u64 = 3600;
/// Lines at most: the rest is counted.
const MAX_LINES: usize = 12;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Weight {
    /// Pages may be lost, or guests get errors.
    Bad,
    /// Somebody should look.
    Warning,
    /// Somebody chose it, maybe a while ago.
    Note,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Self::Bad => "Trouble",
            Self::Warning => "Warning",
            Self::Note => "Note",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// The list, or the line that says that there is nothing.
pub(super) fn put(html: &mut String, scene: &Scene<'_>) {
    let mut lines = Vec::new();
    processes(&mut lines, scene);
    pool(&mut lines, scene);
    tiers(&mut lines, scene);
    peers(&mut lines, scene);
    clients(&mut lines, scene);
    balancer(&mut lines, scene);
    lines.sort_by_key(|(weight, _)| *weight);
    html.push_str("<section class=\"attention\" aria-label=\"What needs attention\">");
    if lines.is_empty() {
        html.push_str("<p class=\"good\">Nothing needs attention.</p>");
    } else {
        html.push_str("<ul>");
        for (weight, line) in lines.iter().take(MAX_LINES) {
            put!(html, "<li class=\"{}\"><b>{}</b> <span>{line}</span></li>", weight.class(), weight.word());
        }
        if let more @ 1.. = lines.len().saturating_sub(MAX_LINES) {
            put!(
                html,
                "<li class=\"note\"><b>Note</b> <span>and {} like these</span></li>",
                html::of(more as u64, "more line")
            );
        }
        html.push_str("</ul>");
    }
    html.push_str("</section>\n");
}

type Lines = Vec<(Weight, String)>;

fn processes(lines: &mut Lines, scene: &Scene<'_>) {
    let status = scene.status;
    let serves_for = scene.serves_for.as_secs();
    if status.worker_deaths > 0 && serves_for < DEATH_IS_NEWS_SECONDS {
        let deaths = html::of(status.worker_deaths.into(), "worker");
        let have = if status.worker_deaths == 1 { "has" } else { "have" };
        let line = format!(
            "{deaths} {have} died; the one that serves now began {} ago. Pages are kept. The daemon's log says why.",
            html::period(serves_for)
        );
        lines.push((Weight::Warning, line));
    }
}

fn pool(lines: &mut Lines, scene: &Scene<'_>) {
    let pool = &scene.status.pool;
    // The headroom: clients over their share do not grow any more.
    if pool.held_bytes > pool.limit_bytes - pool.limit_bytes / 16 && pool.used_bytes > pool.limit_bytes / 2 {
        let has_tier = scene.status.tiers.iter().any(|tier| tier.state == "ready");
        let what = if has_tier { "pages go to the tier" } else { "new pages are refused soon" };
        let line = format!(
            "The pool holds {} of the {} that it may: {what}.",
            html::size(pool.held_bytes),
            html::size(pool.limit_bytes)
        );
        lines.push((Weight::Warning, line));
    }
}

fn tiers(lines: &mut Lines, scene: &Scene<'_>) {
    for tier in &scene.status.tiers {
        let weight = match (tier.state.as_str(), &tier.trouble) {
            ("ready", None) => continue,
            ("ready" | "full", _) => Weight::Warning,
            _ => Weight::Bad,
        };
        let line = format!("Tier {} is {}", html::text(&tier.name), html::text(&tier.state));
        lines.push((weight, with_trouble(line, tier.trouble.as_deref())));
    }
}

/// What is wrong behind what is said of somebody.
fn with_trouble(mut line: String, trouble: Option<&str>) -> String {
    if let Some(trouble) = trouble {
        put!(line, ": {}", html::text(trouble));
    }
    line
}

fn peers(lines: &mut Lines, scene: &Scene<'_>) {
    let Some(cluster) = &scene.status.cluster else { return };
    if let Some(trouble) = &cluster.trouble {
        lines.push((Weight::Warning, format!("Cluster: {}", html::text(trouble))));
    }
    let Some(borrowing) = &cluster.borrowing else { return };
    if borrowing.lost_extents > 0 {
        let line = format!(
            "{} lost: all nodes that had a copy are gone. Gets of their pages are I/O errors.",
            html::of(borrowing.lost_extents, "extent")
        );
        lines.push((Weight::Bad, line));
    }
    let away = borrowing.peers.iter().filter(|peer| peer.state != "connected");
    for peer in away {
        let line = format!("Peer <bdi>{}</bdi> is {}", html::text(&peer.name), html::text(&peer.state));
        lines.push((Weight::Warning, with_trouble(line, peer.trouble.as_deref())));
    }
    if borrowing.wanting_extents > 0 {
        let line =
            format!("{} with too few copies; repair goes on.", html::of(borrowing.wanting_extents, "extent"));
        lines.push((Weight::Note, line));
    }
}

fn clients(lines: &mut Lines, scene: &Scene<'_>) {
    for client in &scene.status.clients {
        let name = html::text(&client.name);
        if client.checksum_errors > 0 {
            let damaged = html::of(client.checksum_errors, "damaged page");
            let line = format!(
                "<bdi>{name}</bdi>: {damaged}; each was an I/O error for the guest. Check the host's memory."
            );
            lines.push((Weight::Bad, line));
        }
        if client.tier_errors > 0 {
            let missed = html::of(client.tier_errors, "page");
            lines.push((Weight::Bad, format!("<bdi>{name}</bdi>: {missed} could not be read from the tier")));
        }
        let refused = scene.history.refused_within(&client.name, RECENT_LOOKS);
        if client.frozen {
            let line = format!(
                "<bdi>{name}</bdi> is frozen: its new pages are refused until <code>tmem thaw</code>"
            );
            lines.push((Weight::Note, line));
        } else if refused > 0 {
            let refused = html::of(refused, "page");
            let line = format!(
                "<bdi>{name}</bdi>: {refused} refused in the last five minutes; the guest keeps them in its own memory"
            );
            lines.push((Weight::Warning, line));
        }
    }
}

fn balancer(lines: &mut Lines, scene: &Scene<'_>) {
    let Some(balance) = &scene.status.balance else { return };
    for guest in &balance.guests {
        let name = html::text(&guest.name);
        match &guest.trouble {
            Some(trouble) => {
                lines.push((Weight::Warning, format!("<bdi>{name}</bdi>: {}", html::text(trouble))));
            }
            None if !guest.answers => {
                let line =
                    format!("<bdi>{name}</bdi> does not answer the balancer; its memory is left as it is");
                lines.push((Weight::Warning, line));
            }
            None => {}
        }
    }
    let without =
        super::guests::names(scene.status).into_iter().filter(|name| !scene.history.knows(name)).count();
    if scene.history.looks() > 0 && super::guests::names(scene.status).len() > MAX_GUESTS {
        let guests = html::of(without as u64, "guest");
        lines.push((Weight::Note, format!("{guests} without charts: {MAX_GUESTS} have a history, no more")));
    }
}
