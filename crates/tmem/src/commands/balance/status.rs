//! `tmem balance status`.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::anyhow;
use clap::Args;
use tmem_control::{AdminClient, BalanceReport, BalancedGuest};

use crate::{
    Outcome,
    commands::print,
    figures::size,
    table::{Align, Table},
};

/// Decisions shown.
const SHOWN_DECISIONS: usize = 10;

/// `tmem balance status`.
#[derive(Args)]
pub(super) struct Arguments {
    /// The balancer's report as JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub(super) fn run(arguments: &Arguments, client: &AdminClient) -> Outcome {
    let Some(report) = client.status()?.balance else {
        return Err(anyhow!("no balancer reports to this daemon; `tmem balance start` starts one").into());
    };
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))
    } else {
        print(&text(&report, SystemTime::now()))
    }
}

fn text(report: &BalanceReport, now: SystemTime) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "balancer, pid {}, policy {}, every {} s{}; {} of {} given\n",
        report.pid,
        report.policy,
        report.interval_seconds,
        if report.dry_run { ", dry run" } else { "" },
        size(report.guests.iter().map(|guest| guest.size_bytes).sum()),
        size(report.budget_bytes)
    );
    text.push_str(&guests(report));
    if !report.decisions.is_empty() {
        let _ = writeln!(text, "\nlast decisions:");
    }
    for decision in report.decisions.iter().rev().take(SHOWN_DECISIONS) {
        let at = UNIX_EPOCH + Duration::from_millis(decision.unix_ms);
        let ago = now.duration_since(at).unwrap_or_default().as_secs();
        let (from, to) = (size(decision.from_bytes), size(decision.to_bytes));
        let _ = writeln!(text, "{ago:>5} s ago  {}: {from} -> {to}: {}", decision.guest, decision.reason);
    }
    text
}

fn guests(report: &BalanceReport) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("GUEST", Left),
        ("KIND", Left),
        ("SIZE", Right),
        ("TARGET", Right),
        ("FLOOR", Right),
        ("CEILING", Right),
        ("WEIGHT", Right),
        ("AVAILABLE", Right),
        ("PRESSURE", Right),
        ("WHY", Left),
    ]);
    for guest in &report.guests {
        table.row(vec![
            guest.name.clone(),
            guest.kind.clone(),
            size(guest.size_bytes),
            size(guest.target_bytes),
            size(guest.floor_bytes),
            size(guest.ceiling_bytes),
            guest.weight.to_string(),
            guest.available_bytes.map_or("-".to_owned(), size),
            guest.pressure.map_or("-".to_owned(), |part| format!("{:.1}%", part * 100.0)),
            why(guest),
        ]);
    }
    table.render()
}

fn why(guest: &BalancedGuest) -> String {
    guest.trouble.clone().unwrap_or_else(|| guest.reason.clone())
}

#[cfg(test)]
mod tests {
    use tmem_control::BalanceDecision;

    use super::*;

    #[test]
    fn a_guest_has_its_reason_or_its_trouble() {
        let guest = |name: &str, trouble: Option<&str>| BalancedGuest {
            name: name.to_owned(),
            kind: "qemu".to_owned(),
            size_bytes: 512 << 20,
            pressure: Some(0.021),
            reason: "at its floor".to_owned(),
            trouble: trouble.map(str::to_owned),
            ..BalancedGuest::default()
        };
        let decision = BalanceDecision {
            unix_ms: 1000,
            guest: "b".to_owned(),
            from_bytes: 1 << 30,
            to_bytes: 512 << 20,
            reason: "tried".to_owned(),
        };
        let report = BalanceReport {
            guests: vec![guest("a", None), guest("b", Some("no answer"))],
            decisions: vec![decision],
            ..BalanceReport::default()
        };
        let text = text(&report, UNIX_EPOCH + Duration::from_secs(4));
        let line =
            |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        assert!(line("a ").ends_with("2.1%  at its floor"), "{text}");
        assert!(line("b ").ends_with("no answer"), "{text}");
        assert!(text.contains("3 s ago  b: 1.0G -> 512M: tried"), "{text}");
    }
}
