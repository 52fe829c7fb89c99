//! The policy `static`: everybody keeps what they have. What the others are compared with.

use crate::{
    policy::{Decision, Policy, Reason},
    subject::Scene,
};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Static;

impl Policy for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn decide(&mut self, scene: &Scene) -> Vec<Decision> {
        let keep = |size_bytes| Decision { target_bytes: size_bytes, reason: Reason::Fixed };
        scene.subjects.iter().map(|subject| keep(subject.size_bytes)).collect()
    }
}
