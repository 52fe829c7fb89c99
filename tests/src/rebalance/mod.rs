//! Guests of the wrong sizes, and whether a policy makes them right: `scripts/rebalance-demo`.
//!
//! | file | job |
//! |---|---|
//! | `scenario` | sizes, phases, and who is busy when |
//! | `machine` | a QEMU guest with a balloon, whose program is busy or idle as it is told |
//! | `monitor` | its monitor, to give it its first size |
//! | `run` | one policy over the whole scenario |
//! | `figures` | what came out of it |
//! | `plot`, `report` | pictures, and the page |

mod figures;
mod machine;
mod monitor;
mod plot;
mod report;
mod run;
mod scenario;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result};

pub use figures::Figures;
pub use machine::Machine;
pub use run::{Run, Sample, run};
pub use scenario::{Arrangement, Scenario};

/// What is asked for.
pub struct Options {
    /// Short phases, and only what is needed to see whether `reuse` beats `static`.
    pub quick: bool,
    /// Of the arrangements only these, by name; empty: all.
    pub only: Vec<String>,
    /// Where the page and its pictures go; `None`: nowhere.
    pub docs: Option<PathBuf>,
    /// Where traces go; `None`: nowhere.
    pub traces: Option<PathBuf>,
}

/// Runs everything. True: `reuse` did more work than `static`.
///
/// # Errors
/// A guest does not come up, dies, or has a wrong page.
pub fn demonstrate(options: &Options, stop: &AtomicBool) -> Result<bool> {
    let scenario = if options.quick { Scenario::quick() } else { Scenario::full() };
    if let Some(traces) = &options.traces {
        fs::create_dir_all(traces).with_context(|| format!("cannot make {}", traces.display()))?;
    }
    let mut runs = Vec::new();
    let wanted = |arrangement: &Arrangement| {
        options.only.is_empty() || options.only.iter().any(|name| name == arrangement.name())
    };
    for arrangement in Arrangement::all(options.quick && options.only.is_empty()).into_iter().filter(wanted) {
        let trace = options.traces.as_deref().map(|traces| trace_path(traces, arrangement));
        runs.push(run(&scenario, arrangement, trace.as_deref(), stop)?);
    }
    let figures = Figures::of(&scenario, &runs)?;
    if let Some(docs) = &options.docs {
        report::write(docs, &scenario, &runs, &figures)?;
    }
    println!("{}", figures.line());
    Ok(figures.reuse_beats_static())
}

fn trace_path(traces: &Path, arrangement: Arrangement) -> PathBuf {
    traces.join(format!("{}.jsonl", arrangement.name()))
}
