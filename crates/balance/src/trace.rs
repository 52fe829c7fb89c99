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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        demand::Demand,
        subject::{Limits, Report, Subject},
    };

    fn scene(seconds: u64) -> Scene {
        let subject = Subject {
            name: "vm \"1\"".to_owned(),
            limits: Limits { floor_bytes: 1, ceiling_bytes: 1 << 40, weight: 100 },
            size_bytes: 7,
            demand: Some(Demand::new([(64, 3), (80, 9)], 2)),
            swapped_bytes: 5,
            report: Some(Report { pressure: Some(0.25), ..Report::default() }),
            cpus: Some(0.5),
            answers: true,
        };
        Scene { at: Duration::from_secs(seconds), budget_bytes: 99, subjects: vec![subject] }
    }

    #[test]
    fn what_was_written_is_read() {
        let scenes = [scene(5), Scene { subjects: Vec::new(), ..scene(10) }];
        let mut bytes = Vec::new();
        scenes.iter().for_each(|scene| write_scene(&mut bytes, scene).unwrap());
        assert_eq!(read_trace(&bytes[..]).unwrap(), scenes);
    }

    #[test]
    fn the_line_that_makes_no_sense_is_named() {
        let mut bytes = Vec::new();
        write_scene(&mut bytes, &scene(5)).unwrap();
        let before = bytes.len();
        write_scene(&mut bytes, &scene(5)).unwrap();
        assert_eq!(
            read_trace(&bytes[..]).unwrap_err().to_string(),
            "line 2 is not later than the one before it"
        );
        bytes.truncate(before + 20);
        assert!(read_trace(&bytes[..]).unwrap_err().to_string().starts_with("line 2: "));
    }
}
