//! `tmem balance replay`: policies over a trace.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;
use tmem_balance::{Balancer, Scene, Verdict, read_trace};
use tmem_control::{BalanceSettings, PolicyName};

use crate::{
    Outcome,
    balancing::{LEAST_CHANGE_BYTES, policy},
    commands::print,
    figures::size,
    table::{Align, Table},
};

/// Changes of direction are counted within this.
const WINDOW: Duration = Duration::from_secs(60);

/// `tmem balance replay`.
#[derive(Args)]
pub(super) struct Arguments {
    /// A trace that `tmem balance start --trace` has written
    trace: PathBuf,
    /// This policy's decisions, one a line; without it a summary of each policy
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyName>,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let path = &arguments.trace;
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let scenes = read_trace(BufReader::new(file)).with_context(|| format!("trace {}", path.display()))?;
    print(&match arguments.policy {
        Some(policy) => decisions(&scenes, policy),
        None => summaries(&scenes),
    })
}

/// What a policy decides at each scene. It is not carried out: sizes are as they were.
fn verdicts(scenes: &[Scene], name: PolicyName) -> Vec<Vec<Verdict>> {
    let mut balancer = Balancer::new(policy(&BalanceSettings { policy: name, ..BalanceSettings::default() }));
    scenes.iter().map(|scene| balancer.decide(scene)).collect()
}

fn decisions(scenes: &[Scene], name: PolicyName) -> String {
    let mut targets = BTreeMap::new();
    let mut text = String::new();
    for (scene, verdicts) in scenes.iter().zip(verdicts(scenes, name)) {
        for verdict in verdicts {
            let before_bytes = targets.insert(verdict.name.clone(), verdict.target_bytes);
            if verdict.target_bytes.abs_diff(before_bytes.unwrap_or(verdict.size_bytes)) >= LEAST_CHANGE_BYTES
            {
                text.push_str(&format!(
                    "{:>7.1} s  {}: {} -> {}: {}\n",
                    scene.at.as_secs_f64(),
                    verdict.name,
                    size(verdict.size_bytes),
                    size(verdict.target_bytes),
                    verdict.reason
                ));
            }
        }
    }
    text
}

fn summaries(scenes: &[Scene]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("POLICY", Left),
        ("DECISIONS", Right),
        ("TURNS A MINUTE", Right),
        ("MOST GIVEN", Right),
    ]);
    for name in [PolicyName::Reuse, PolicyName::CommittedAs, PolicyName::Static] {
        let summary = Summary::of(scenes, &verdicts(scenes, name));
        table.row(vec![
            name.as_str().to_owned(),
            summary.decisions.to_string(),
            summary.turns_a_minute.to_string(),
            size(summary.most_given_bytes),
        ]);
    }
    table.render()
}

/// What is said of a policy.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    decisions: usize,
    /// The most times that a guest's target changed its direction within a minute.
    turns_a_minute: usize,
    /// The most that all targets were together.
    most_given_bytes: u64,
}

impl Summary {
    fn of(scenes: &[Scene], verdicts: &[Vec<Verdict>]) -> Summary {
        let mut summary = Summary::default();
        let mut tracks = BTreeMap::<&str, Track>::new();
        for (scene, verdicts) in scenes.iter().zip(verdicts) {
            let given = verdicts.iter().map(|verdict| verdict.target_bytes).sum();
            summary.most_given_bytes = summary.most_given_bytes.max(given);
            for verdict in verdicts {
                let track = tracks.entry(&verdict.name).or_default();
                summary.decisions += usize::from(track.note(verdict, scene.at));
                summary.turns_a_minute = summary.turns_a_minute.max(track.turns.len());
            }
        }
        summary
    }
}

/// A guest's targets over time.
#[derive(Default)]
struct Track {
    target_bytes: Option<u64>,
    goes_up: Option<bool>,
    turns: Vec<Duration>,
}

impl Track {
    /// Whether the target is another one.
    fn note(&mut self, verdict: &Verdict, at: Duration) -> bool {
        let before_bytes = self.target_bytes.unwrap_or(verdict.size_bytes);
        self.turns.retain(|turn| at.saturating_sub(*turn) < WINDOW);
        if verdict.target_bytes.abs_diff(before_bytes) < LEAST_CHANGE_BYTES {
            return false;
        }
        self.target_bytes = Some(verdict.target_bytes);
        let goes_up = Some(verdict.target_bytes > before_bytes);
        if self.goes_up.is_some() && self.goes_up != goes_up {
            self.turns.push(at);
        }
        self.goes_up = goes_up;
        true
    }
}

#[cfg(test)]
mod tests {
    use tmem_balance::Reason;

    use super::*;

    #[test]
    fn turns_are_counted_within_a_minute() {
        let verdict = |target_bytes: u64| Verdict {
            name: "a".to_owned(),
            size_bytes: 100 << 20,
            target_bytes: target_bytes << 20,
            reason: Reason::Fixed,
        };
        let scene =
            |seconds| Scene { at: Duration::from_secs(seconds), budget_bytes: 0, subjects: Vec::new() };
        let (scenes, verdicts): (Vec<_>, Vec<_>) =
            [(0, 100), (5, 90), (10, 80), (15, 95), (20, 85), (80, 99), (150, 99)]
                .map(|(at, target)| (scene(at), vec![verdict(target)]))
                .into_iter()
                .unzip();
        let summary = Summary::of(&scenes, &verdicts);
        assert_eq!(summary, Summary { decisions: 5, turns_a_minute: 2, most_given_bytes: 100 << 20 });
    }
}
