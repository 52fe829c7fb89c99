//! The log of decisions, and traces.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use tmem_balance::{Scene, Verdict};
use tmem_control::BalanceDecision;

use crate::figures::size;

/// Where is written what was seen and decided, beside stderr.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Decisions, one a line, as JSON.
    log: Option<File>,
    /// What was seen, for `tmem balance replay`.
    trace: Option<File>,
}

impl Records {
    /// In these files: the log behind what is in it, the trace anew, since its times begin anew.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(crate) fn open(log: Option<&Path>, trace: Option<&Path>) -> Result<Records> {
        let open = |path: &Path, options: &mut OpenOptions| {
            options.create(true).open(path).with_context(|| format!("cannot write to {}", path.display()))
        };
        let log = log.map(|path| open(path, OpenOptions::new().append(true))).transpose()?;
        let trace =
            trace.map(|path| open(path, OpenOptions::new().write(true).truncate(true))).transpose()?;
        Ok(Records { log, trace })
    }

    pub(super) fn see(&mut self, scene: &Scene) {
        if let Some(trace) = &mut self.trace
            && let Err(error) = tmem_balance::write_scene(&mut *trace, scene)
        {
            log::error!("the trace ends here: {error}");
            self.trace = None;
        }
    }

    pub(super) fn decide(&mut self, decision: &BalanceDecision, is_dry_run: bool) {
        log::info!(
            "guest {}: {}{} -> {}: {}",
            decision.guest,
            if is_dry_run { "would go " } else { "" },
            size(decision.from_bytes),
            size(decision.to_bytes),
            decision.reason
        );
        if let Some(log) = &mut self.log
            && let Err(error) = write_line(log, decision)
        {
            log::error!("the log of decisions ends here: {error}");
            self.log = None;
        }
    }
}

fn write_line(mut log: &File, decision: &BalanceDecision) -> io::Result<()> {
    let mut line = serde_json::to_vec(decision)?;
    line.push(b'\n');
    log.write_all(&line)
}

/// What was decided just now.
pub(super) fn decision(verdict: &Verdict) -> BalanceDecision {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    BalanceDecision {
        unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        guest: verdict.name.clone(),
        from_bytes: verdict.size_bytes,
        to_bytes: verdict.target_bytes,
        reason: verdict.reason.to_string(),
    }
}
