//! Policies over what a balancer saw of two real guests that change roles (docs/rebalance.md). What comes of a decision is what came of the decision that was
//! made then, so this shows what a policy does, not what it gains.

#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, fs::File, io::BufReader, time::Duration};

use tmem_balance::{Balancer, CommittedAs, Policy, Reason, Reuse, Scene, Static, Verdict, read_trace};

const MIB: u64 = 1 << 20;
/// Under which policy each was recorded.
const TRACES: [&str; 3] = ["reuse", "committed-as", "static"];

fn trace(name: &str) -> Vec<Scene> {
    let path = format!("{}/tests/traces/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let scenes = read_trace(BufReader::new(File::open(&path).unwrap())).unwrap();
    assert!(scenes.len() > 100 && scenes.iter().all(|scene| scene.subjects.len() == 2), "{path}");
    scenes
}

fn policies() -> [Box<dyn Policy>; 3] {
    [Box::<Reuse>::default(), Box::new(CommittedAs), Box::new(Static)]
}

fn run(policy: Box<dyn Policy>, scenes: &[Scene]) -> Vec<Vec<Verdict>> {
    let mut balancer = Balancer::new(policy);
    scenes.iter().map(|scene| balancer.decide(scene)).collect()
}

#[test]
fn the_sum_of_targets_is_within_the_budget_and_nobody_is_below_the_floor() {
    for name in TRACES {
        let scenes = trace(name);
        for policy in policies() {
            let policy_name = policy.name();
            for (scene, verdicts) in scenes.iter().zip(run(policy, &scenes)) {
                let held: u64 = scene.subjects.iter().map(|subject| subject.size_bytes).sum();
                let sum: u64 = verdicts.iter().map(|verdict| verdict.target_bytes).sum();
                assert!(sum <= scene.budget_bytes, "{name} under {policy_name}: {verdicts:?}");
                let at_worst: u64 =
                    verdicts.iter().map(|verdict| verdict.target_bytes.max(verdict.size_bytes)).sum();
                assert!(at_worst <= scene.budget_bytes.max(held), "{name} under {policy_name}: {verdicts:?}");
                for (subject, verdict) in scene.subjects.iter().zip(&verdicts) {
                    assert!(verdict.target_bytes >= subject.limits.floor_bytes, "{name}: {verdict:?}");
                }
            }
        }
    }
}

#[test]
fn no_target_of_reuse_changes_its_direction_twice_in_a_minute() {
    for name in TRACES {
        let scenes = trace(name);
        let mut changes: HashMap<String, Vec<Duration>> = HashMap::new();
        let mut before: HashMap<String, (u64, bool)> = HashMap::new();
        for (scene, verdicts) in scenes.iter().zip(run(Box::<Reuse>::default(), &scenes)) {
            for Verdict { name: guest, size_bytes, target_bytes, .. } in verdicts {
                let (last_bytes, rose) = before.get(&guest).copied().unwrap_or((target_bytes, false));
                // What a guest is told, not that it is left with what it has.
                if target_bytes.abs_diff(last_bytes) < MIB || target_bytes.abs_diff(size_bytes) < MIB {
                    continue;
                }
                let rises = target_bytes > size_bytes;
                if before.contains_key(&guest) && rises != rose {
                    let turns = changes.entry(guest.clone()).or_default();
                    turns.retain(|turn| scene.at - *turn < Duration::from_secs(60));
                    turns.push(scene.at);
                    assert!(turns.len() <= 1, "{name}: {guest} turns at {turns:?}");
                }
                before.insert(guest, (target_bytes, rises));
            }
        }
    }
}

#[test]
fn reuse_gives_to_who_is_busy() {
    let scenes = trace("reuse");
    let verdicts = run(Box::<Reuse>::default(), &scenes);
    let grown = |guest: usize, from: u64, to: u64| {
        let range = Duration::from_secs(from)..Duration::from_secs(to);
        let within = scenes.iter().zip(&verdicts).filter(|(scene, _)| range.contains(&scene.at));
        within.filter(|(_, verdicts)| matches!(verdicts[guest].reason, Reason::Grows { .. })).count()
    };
    let [large, small] = [0, 1];
    assert!(grown(small, 0, 60) >= 3 && grown(large, 0, 60) == 0, "the small one is busy first");
    assert!(grown(large, 300, 360) >= 3 && grown(small, 320, 600) == 0, "then the large one is");
}
