//! What holds whatever a policy says: floors, ceilings, the budget, and that whoever does not answer is left alone.

use crate::{
    policy::{Decision, Policy, Reason},
    subject::{Scene, Subject},
};

/// A policy, and what holds beyond it.
pub struct Balancer {
    policy: Box<dyn Policy>,
}

/// What becomes of one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whose it is.
    pub name: String,
    /// What it has, in bytes.
    pub size_bytes: u64,
    /// What it is to have, in bytes.
    pub target_bytes: u64,
    /// Why.
    pub reason: Reason,
}

impl Balancer {
    /// Goes by this policy.
    pub fn new(policy: Box<dyn Policy>) -> Balancer {
        Balancer { policy }
    }

    /// The policy's name.
    pub fn policy(&self) -> &'static str {
        self.policy.name()
    }

    /// A verdict for each subject, in their order. The sum of all targets is within the budget, if floors and those who do not answer leave it
    /// so; nobody is given what others have not given back yet.
    pub fn decide(&mut self, scene: &Scene) -> Vec<Verdict> {
        let mut verdicts: Vec<_> = scene
            .subjects
            .iter()
            .zip(self.policy.decide(scene))
            .map(|(subject, decision)| verdict(subject, decision))
            .collect();
        // First who has more than there is for them, then who would get what is not there yet: a floor that was raised is given to by the others.
        cut_to_budget(scene, &mut verdicts);
        bound_increases(scene, &mut verdicts);
        verdicts
    }
}

fn verdict(subject: &Subject, Decision { target_bytes, reason }: Decision) -> Verdict {
    let (name, size_bytes) = (subject.name.clone(), subject.size_bytes);
    if !subject.answers {
        return Verdict { name, size_bytes, target_bytes: size_bytes, reason: Reason::Silent };
    }
    let floor_bytes = subject.limits.floor_bytes;
    let ceiling_bytes = subject.limits.ceiling_bytes.max(floor_bytes);
    Verdict { name, size_bytes, target_bytes: target_bytes.clamp(floor_bytes, ceiling_bytes), reason }
}

/// What is given has to be there: what others are to give, they still have.
fn bound_increases(scene: &Scene, verdicts: &mut [Verdict]) {
    let held_bytes: u64 = verdicts.iter().map(|verdict| verdict.size_bytes).sum();
    let asked_bytes: u64 =
        verdicts.iter().map(|verdict| verdict.target_bytes.saturating_sub(verdict.size_bytes)).sum();
    let room_bytes = scene.budget_bytes.saturating_sub(held_bytes);
    if asked_bytes <= room_bytes {
        return;
    }
    for verdict in verdicts {
        let asked = verdict.target_bytes.saturating_sub(verdict.size_bytes);
        verdict.target_bytes -= asked - part(asked, room_bytes, asked_bytes);
    }
}

/// Where all have more than the budget, each gives the same part of what it has above its floor.
fn cut_to_budget(scene: &Scene, verdicts: &mut [Verdict]) {
    let sum: u64 = verdicts.iter().map(|verdict| verdict.target_bytes).sum();
    let excess_bytes = sum.saturating_sub(scene.budget_bytes);
    let above_floor = |subject: &Subject, verdict: &Verdict| {
        if subject.answers { verdict.target_bytes.saturating_sub(subject.limits.floor_bytes) } else { 0 }
    };
    let all_bytes: u64 =
        scene.subjects.iter().zip(&*verdicts).map(|(subject, verdict)| above_floor(subject, verdict)).sum();
    if excess_bytes == 0 || all_bytes == 0 {
        return;
    }
    for (subject, verdict) in scene.subjects.iter().zip(verdicts) {
        let above = above_floor(subject, verdict);
        // Rounded up, so that the sum is within the budget.
        let cut = part(above, excess_bytes.min(all_bytes), all_bytes).saturating_add(1).min(above);
        if cut > 0 {
            verdict.target_bytes -= cut;
            verdict.reason = Reason::OverBudget;
        }
    }
}

/// `of` times `numerator` through `denominator`.
fn part(of: u64, numerator: u64, denominator: u64) -> u64 {
    let part = u128::from(of) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::subject::Limits;

    /// Says whatever it is told to.
    struct Anything(Vec<u64>);

    impl Policy for Anything {
        fn name(&self) -> &'static str {
            "anything"
        }

        fn decide(&mut self, _: &Scene) -> Vec<Decision> {
            self.0
                .iter()
                .map(|target_bytes| Decision { target_bytes: *target_bytes, reason: Reason::Fixed })
                .collect()
        }
    }

    fn subject(floor_bytes: u64, above: u64, size: u64, answers: bool) -> Subject {
        let limits = Limits { floor_bytes, ceiling_bytes: floor_bytes + above, weight: 100 };
        let size_bytes = if answers { size.clamp(floor_bytes, floor_bytes + above) } else { size };
        Subject {
            name: String::new(),
            limits,
            size_bytes,
            demand: None,
            swapped_bytes: 0,
            cpus: None,
            report: None,
            answers,
        }
    }

    proptest! {
        #[test]
        fn whatever_a_policy_says_floors_ceilings_and_the_budget_hold(
            subjects in prop::collection::vec((0u64..1000, 0u64..1000, 0u64..2000, prop::bool::weighted(0.8)), 1..8),
            targets in prop::collection::vec(prop_oneof![0u64..3000, Just(u64::MAX / 16)], 8),
            budget_bytes in 0u64..10_000,
        ) {
            let subjects: Vec<_> = subjects.into_iter().map(|(floor, above, size, answers)| subject(floor, above, size, answers)).collect();
            let scene = Scene { at: Duration::ZERO, budget_bytes, subjects };
            let targets = targets[..scene.subjects.len()].to_vec();
            let verdicts = Balancer::new(Box::new(Anything(targets))).decide(&scene);
            prop_assert_eq!(verdicts.len(), scene.subjects.len());
            for (subject, verdict) in scene.subjects.iter().zip(&verdicts) {
                if subject.answers {
                    prop_assert!((subject.limits.floor_bytes..=subject.limits.ceiling_bytes).contains(&verdict.target_bytes));
                } else {
                    prop_assert_eq!(verdict.target_bytes, subject.size_bytes);
                }
            }
            let least: u64 = scene.subjects.iter().map(|s| if s.answers { s.limits.floor_bytes } else { s.size_bytes }).sum();
            let sum: u64 = verdicts.iter().map(|verdict| verdict.target_bytes).sum();
            prop_assert!(sum <= budget_bytes.max(least), "{sum} of {budget_bytes}");
            // Nobody gets what is not there yet.
            let held: u64 = scene.subjects.iter().map(|subject| subject.size_bytes).sum();
            let at_worst: u64 = verdicts.iter().map(|verdict| verdict.target_bytes.max(verdict.size_bytes)).sum();
            prop_assert!(at_worst <= budget_bytes.max(held), "{at_worst} of {budget_bytes}, held {held}");
        }
    }
}
