//! Traces: what a balancer saw, one scene a line, as JSON. A policy can be run over one without any guest.

use std::io::{self, BufRead, Write};

use crate::subject::Scene;

/// A trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    /// A line makes no sense.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line's time is not after that of the one before.
    #[error("line {line} is not later than the one before it")]
    Time {
        /// Counted from 1.
        line: usize,
    },
}

/// Adds a scene to a trace.
///
/// # Errors
/// It cannot be written.
pub fn write_scene(mut to: impl Write, scene: &Scene) -> io::Result<()> {
    let mut line = serde_json::to_vec(scene)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// All scenes of a trace.
///
/// # Errors
/// See [`TraceError`].
pub fn read_trace(from: impl BufRead) -> Result<Vec<Scene>, TraceError> {
    let mut scenes: Vec<Scene> = Vec::new();
    for (line, text) in (1..).zip(from.lines()) {
        let scene: Scene =
            serde_json::from_str(&text?).map_err(|source| TraceError::Line { line, source })?;
        if scenes.last().is_some_and(|last| last.at >= scene.at) {
            return Err(TraceError::Time { line });
        }
        scenes.push(scene);
    }
    Ok(scenes)
}
