//! `tmem status`.

use std::fmt::Write;

use clap::Args;
use tmem_control::{AdminClient, Status};

use super::print;
use crate::{
    Outcome,
    figures::{ratio, size, uptime},
    table::{Align, Table},
};

/// `tmem status`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The daemon's JSON instead of a table; sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub(crate) fn run(arguments: &Arguments, client: &AdminClient) -> Outcome {
    if arguments.json { print(&client.status_json()?) } else { print(&table(&client.status()?)) }
}

fn table(status: &Status) -> String {
    let pool = &status.pool;
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "tmem {}, pid {}, up {}{}{}{}\n",
        status.version,
        status.pid,
        uptime(status.uptime_seconds),
        match status.worker_deaths {
            0 => String::new(),
            1 => ", 1 worker died".to_owned(),
            deaths => format!(", {deaths} workers died"),
        },
        if status.spare_pid.is_some() { ", a spare worker stands by" } else { "" },
        status.http.map_or(String::new(), |address| format!(", http://{address}/"))
    );
    let _ = writeln!(
        text,
        "pool: {} used of {} ({} held from the host), {} pages, {} uncompressed, ratio {}\n",
        size(pool.used_bytes),
        size(pool.limit_bytes),
        size(pool.held_bytes),
        pool.stored_pages,
        size(pool.logical_bytes),
        ratio(pool.logical_bytes, pool.used_bytes)
    );
    for tier in &status.tiers {
        let _ = writeln!(text, "tier {tier}\n");
    }
    text.push_str(&clients(status));
    text
}

fn clients(status: &Status) -> String {
    use Align::{Left, Right};
    if status.clients.is_empty() {
        return "no clients; `tmem disk add` makes one\n".to_owned();
    }
    let mut table = Table::new(&[
        ("CLIENT", Left),
        ("KIND", Left),
        ("GUEST", Left),
        ("STATE", Left),
        ("USED", Right),
        ("CAP", Right),
        ("WEIGHT", Right),
        ("PAGES", Right),
        ("PEAK", Right),
        ("SAME", Right),
        ("DEDUP", Right),
        ("RAW", Right),
        ("RECOMPRESSED", Right),
        ("TIERED", Right),
        ("RATIO", Right),
        ("PUTS", Right),
        ("GETS", Right),
        ("FLUSHES", Right),
        ("REFUSED", Right),
        ("DAMAGED", Right),
    ]);
    for client in &status.clients {
        let guest =
            client.disk.as_ref().map_or("-", |disk| if disk.connected { "connected" } else { "none" });
        table.row(vec![
            client.name.clone(),
            client.kind.clone(),
            guest.to_owned(),
            if client.frozen { "frozen" } else { "-" }.to_owned(),
            size(client.used_bytes),
            client.cap_bytes.map_or("-".to_owned(), size),
            client.weight.to_string(),
            client.stored_pages.to_string(),
            client.peak_stored_pages.to_string(),
            client.same_filled_pages.to_string(),
            client.dedup_pages.to_string(),
            client.raw_pages.to_string(),
            client.recompressed_pages.to_string(),
            client.tiered_pages.to_string(),
            ratio(client.logical_bytes, client.used_bytes),
            client.puts.to_string(),
            client.gets.to_string(),
            client.flushes.to_string(),
            client.refused_puts.to_string(),
            client.checksum_errors.to_string(),
        ]);
    }
    table.render()
}
