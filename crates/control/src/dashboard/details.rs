//! The balancer, tiers, peers, every client's counters, the processes.

use super::{
    Scene, cluster,
    html::{
        self,
        Column::{Plain, Words},
        put,
    },
};
use crate::{BalanceDecision, ClientStatus};

/// Decisions that are shown, the latest first.
const SHOWN_DECISIONS: usize = 12;
/// Rows of the table of counters. The status has all.
const MAX_ROWS: usize = 500;

/// All of these, one after the other.
pub(super) fn put(html: &mut String, scene: &Scene<'_>) {
    balancer(html, scene);
    tiers(html, scene);
    cluster::put(html, scene);
    counters(html, scene);
    processes(html, scene);
}

fn balancer(html: &mut String, scene: &Scene<'_>) {
    html.push_str("<section aria-labelledby=\"balancer\"><h2 id=\"balancer\">Balancer</h2>");
    let Some(balance) = &scene.status.balance else {
        html.push_str(
            "<p class=\"nothing\">No balancer reports. <code>tmem balance start</code> starts one, which gives guests more memory and less as they \
             need it.</p></section>\n",
        );
        return;
    };
    let interval =
        if balance.interval_seconds.is_finite() { balance.interval_seconds.clamp(0.0, 1e6) } else { 0.0 };
    put!(
        html,
        "<p>Policy <b>{}</b>, {}, {} for all together, every {interval} s. Process {}.</p>",
        html::text(&balance.policy),
        html::of(balance.guests.len() as u64, "guest"),
        html::size(balance.budget_bytes),
        balance.pid
    );
    if balance.dry_run {
        html.push_str(
            "<p><span class=\"badge note\">dry run</span> It says what it would do, and does nothing.</p>",
        );
    }
    if balance.decisions.is_empty() {
        html.push_str("<p class=\"nothing\">No decisions yet: nobody needed more or less.</p></section>\n");
        return;
    }
    html::open_table(
        html,
        "scroll decisions",
        "Last decisions",
        "Last decisions",
        &[Words("when"), Words("guest"), Plain("from"), Plain("to"), Words("why")],
    );
    for decision in balance.decisions.iter().rev().take(SHOWN_DECISIONS) {
        row(html, decision, scene.now_ms);
    }
    html.push_str("</tbody></table></div></section>\n");
}

fn row(html: &mut String, decision: &BalanceDecision, now_ms: u64) {
    let direction = if decision.to_bytes >= decision.from_bytes { "▲" } else { "▼" };
    put!(
        html,
        "<tr><td class=\"words\">{} ago</td><th scope=\"row\"><bdi>{}</bdi></th><td>{}</td><td>{direction} {}</td><td class=\"words why\">{}</td></tr>\n",
        html::period(now_ms.saturating_sub(decision.unix_ms) / 1000),
        html::text(&decision.guest),
        html::size(decision.from_bytes),
        html::size(decision.to_bytes),
        html::text(&decision.reason)
    );
}

fn tiers(html: &mut String, scene: &Scene<'_>) {
    html.push_str("<section aria-labelledby=\"tiers\"><h2 id=\"tiers\">Tiers</h2>");
    if scene.status.tiers.is_empty() {
        html.push_str(
            "<p class=\"nothing\">No tier: pages that do not fit into memory are refused. <code>tmem serve --tier /var/lib/tmem/tier --tier-size 16G</code> \
             has them go to a file instead.</p></section>\n",
        );
        return;
    }
    html::open_table(
        html,
        "scroll",
        "Tiers, table",
        "",
        &[
            Words("tier"),
            Words("state"),
            Plain("used"),
            Plain("of"),
            Plain("pages"),
            Plain("reads"),
            Plain("errors"),
        ],
    );
    for tier in &scene.status.tiers {
        let class = if tier.state == "ready" && tier.trouble.is_none() { "good" } else { "warning" };
        put!(
            html,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th><td class=\"words\"><span class=\"badge {class}\">{}</span> {}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            html::text(&tier.name),
            html::text(&tier.state),
            html::text(tier.trouble.as_deref().unwrap_or_default()),
            html::size(tier.used_bytes),
            html::size(tier.limit_bytes),
            html::count(tier.stored_pages),
            html::count(tier.reads),
            html::count(tier.errors)
        );
    }
    html.push_str("</tbody></table></div></section>\n");
}

fn counters(html: &mut String, scene: &Scene<'_>) {
    if scene.status.clients.is_empty() {
        return;
    }
    html.push_str("<details><summary>All counters of the pool's clients</summary>");
    html::open_table(
        html,
        "scroll",
        "Counters, table",
        "",
        &[
            Plain("client"),
            Plain("disk"),
            Words("at"),
            Plain("weight"),
            Plain("cap"),
            Plain("share"),
            Plain("pages"),
            Plain("same-filled"),
            Plain("shared"),
            Plain("raw"),
            Plain("in tier"),
            Plain("puts"),
            Plain("gets"),
            Plain("flushes"),
            Plain("refused"),
            Plain("damaged"),
        ],
    );
    for client in scene.status.clients.iter().take(MAX_ROWS) {
        counter_row(html, client);
    }
    html.push_str("</tbody></table></div></details>\n");
}

fn counter_row(html: &mut String, client: &ClientStatus) {
    let disk = client.disk.as_ref();
    put!(
        html,
        "<tr><th scope=\"row\"><bdi>{}</bdi></th><td>{}</td><td class=\"words\">{}</td><td>{}</td><td>{}</td><td>{}</td>",
        html::text(&client.name),
        disk.map_or_else(|| "–".to_owned(), |disk| html::size(disk.size_bytes)),
        html::text(&disk.map_or_else(|| "–".to_owned(), |disk| disk.place())),
        client.weight,
        client.cap_bytes.map_or_else(|| "–".to_owned(), html::size),
        html::size(client.share_bytes)
    );
    for number in [
        client.stored_pages,
        client.same_filled_pages,
        client.dedup_pages,
        client.raw_pages,
        client.tiered_pages,
        client.puts,
        client.gets,
        client.flushes,
        client.refused_puts,
        client.checksum_errors,
    ] {
        put!(html, "<td>{}</td>", html::count(number));
    }
    html.push_str("</tr>\n");
}

fn processes(html: &mut String, scene: &Scene<'_>) {
    let status = scene.status;
    put!(
        html,
        "<footer><p>tmem {}, up {}. Keeper {}, worker {}{}, {} died. {}</p>\
         <p><a href=\"/metrics\">/metrics</a> for Prometheus, <a href=\"/api/v1/status\">/api/v1/status</a> as JSON, \
         <code>tmem status</code> and <code>tmem top</code> in a terminal.</p></footer>\n",
        html::text(&status.version),
        html::period(status.uptime_seconds),
        status.pid,
        status.worker_pid,
        status.spare_pid.map_or_else(String::new, |pid| format!(", spare worker {pid}")),
        status.worker_deaths,
        match &status.sandbox {
            Some(sandbox) => format!("Confined: {}.", html::text(sandbox)),
            None => "The worker is <b>not confined</b>: the sandbox is off.".to_owned(),
        }
    );
}
