//! What came out of it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{
    run::{Run, Sample},
    scenario::{Arrangement, LARGE, SMALL, Scenario},
};

/// At full speed is who does this part of what the right size does.
const FULL_SPEED: f64 = 0.9;
/// Speed is that of so long.
const WINDOW_SECONDS: f64 = 5.0;

/// The figures of one arrangement.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub arrangement: Arrangement,
    /// Operations of both guests.
    pub work: u64,
    /// Swap-ins of both.
    pub swap_ins: u64,
    /// From the change of roles until the guest that is busy now is at full speed; `None`: never, or nobody knows what that is.
    pub recovery: Option<Duration>,
    /// Of what the guest that is idle first has above its floor, the part that it gave up at most while it was idle.
    pub given_up: f64,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Figures {
    /// In the order of the runs.
    pub rows: Vec<Row>,
}

impl Figures {
    pub(super) fn of(scenario: &Scenario, runs: &[Run]) -> Result<Figures> {
        let ideal = runs.iter().find(|run| run.arrangement == Arrangement::Ideal);
        // Without that run: what the fastest seconds of any busy guest were.
        let full_speed = match ideal {
            Some(run) => mean_speed(run)?,
            None => runs
                .iter()
                .flat_map(|run| [LARGE, SMALL].map(|guest| best_speed(run, guest)))
                .fold(0.0, f64::max),
        };
        let rows = runs.iter().map(|run| row(scenario, run, full_speed)).collect::<Result<_>>()?;
        Ok(Figures { rows })
    }

    /// The work of an arrangement as a part of the ideal one's, or `None` without either.
    pub fn of_ideal(&self, arrangement: Arrangement) -> Option<f64> {
        Some(self.work(arrangement)? as f64 / self.work(Arrangement::Ideal)? as f64)
    }

    fn work(&self, arrangement: Arrangement) -> Option<u64> {
        self.rows.iter().find(|row| row.arrangement == arrangement).map(|row| row.work)
    }

    pub(super) fn reuse_beats_static(&self) -> bool {
        self.work(Arrangement::Reuse) > self.work(Arrangement::Static)
    }

    /// One line that says it all.
    pub(super) fn line(&self) -> String {
        let each: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let part = self
                    .of_ideal(row.arrangement)
                    .map_or(String::new(), |part| format!(" ({part:.2} of ideal)"));
                format!("{} {}{part}", row.arrangement.name(), row.work)
            })
            .collect();
        let reuse = self.rows.iter().find(|row| row.arrangement == Arrangement::Reuse);
        let recovery = reuse.map_or(String::new(), |row| match row.recovery {
            Some(time) => format!("; full speed {} s after the change of roles under reuse", time.as_secs()),
            None => "; never at full speed after the change of roles under reuse".to_owned(),
        });
        let verdict = match self.work(Arrangement::Static) {
            None => "",
            Some(_) if self.reuse_beats_static() => "; reuse beat static",
            Some(_) => "; reuse DID NOT BEAT static",
        };
        format!("operations: {}{recovery}{verdict}", each.join(", "))
    }
}

fn row(scenario: &Scenario, run: &Run, full_speed: f64) -> Result<Row> {
    let last = run.samples.last().context("no samples")?;
    let changed = scenario.phase.as_secs_f64();
    let busy = Scenario::busy(run.arrangement)[1];
    let recovered = run.samples.iter().find(|sample| {
        sample.at >= changed + WINDOW_SECONDS && speed(run, sample, busy) >= FULL_SPEED * full_speed
    });
    let recovery =
        recovered.map(|sample| Duration::from_secs_f64((sample.at - WINDOW_SECONDS - changed).max(0.0)));
    let idle = 1 - Scenario::busy(run.arrangement)[0];
    let start_bytes = scenario.sizes_mib(run.arrangement)[idle] << 20;
    let above_bytes = start_bytes.saturating_sub(scenario.floor_mib << 20);
    let first = run.samples.iter().take_while(|sample| sample.at < changed);
    let least_bytes = first.map(|sample| sample.size_bytes[idle]).min().unwrap_or(start_bytes);
    Ok(Row {
        arrangement: run.arrangement,
        work: last.work.iter().sum(),
        swap_ins: last.swap_ins.iter().sum(),
        recovery,
        given_up: start_bytes.saturating_sub(least_bytes) as f64 / above_bytes.max(1) as f64,
    })
}

/// Operations a second of a guest in the last seconds before a sample.
pub(super) fn speed(run: &Run, sample: &Sample, guest: usize) -> f64 {
    let from = sample.at - WINDOW_SECONDS;
    let before = run.samples.iter().rev().find(|other| other.at <= from).copied().unwrap_or_default();
    (sample.work[guest] - before.work[guest]) as f64 / (sample.at - before.at).max(0.1)
}

fn best_speed(run: &Run, guest: usize) -> f64 {
    run.samples
        .iter()
        .filter(|sample| sample.at >= WINDOW_SECONDS)
        .map(|sample| speed(run, sample, guest))
        .fold(0.0, f64::max)
}

fn mean_speed(run: &Run) -> Result<f64> {
    let last = run.samples.last().context("no samples")?;
    Ok(last.work.iter().sum::<u64>() as f64 / last.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The busy guest does so many operations a second, by second.
    fn made_up(arrangement: Arrangement, speeds: impl Fn(u64) -> u64, idle_mib: u64) -> Run {
        let scenario = Scenario::quick();
        let phase = scenario.phase.as_secs();
        let mut sample = Sample::default();
        let samples = (1..=2 * phase).map(|second| {
            sample.at = second as f64;
            sample.work[Scenario::busy(arrangement)[usize::from(second > phase)]] += speeds(second);
            sample.size_bytes = [idle_mib << 20; 2];
            sample
        });
        Run { arrangement, samples: samples.collect() }
    }

    #[test]
    fn the_line_has_the_figures() {
        let scenario = Scenario::quick();
        let changed = scenario.phase.as_secs();
        let runs = [
            made_up(Arrangement::Ideal, |_| 100, 64),
            made_up(Arrangement::Static, |_| 10, 208),
            made_up(
                Arrangement::Reuse,
                |second| if second > changed && second <= changed + 10 { 20 } else { 100 },
                100,
            ),
        ];
        let figures = Figures::of(&scenario, &runs).unwrap();
        let [_, fixed, reuse] = &figures.rows[..] else { panic!("{figures:?}") };
        assert_eq!((fixed.recovery, reuse.recovery), (None, Some(Duration::from_secs(10))));
        assert_eq!((fixed.given_up, reuse.given_up), (0.0, 0.75));
        assert!(
            figures.line().starts_with(
                "operations: ideal 11000 (1.00 of ideal), static 1100 (0.10 of ideal), reuse 10200 (0.93"
            ),
            "{}",
            figures.line()
        );
        assert!(
            figures
                .line()
                .ends_with("full speed 10 s after the change of roles under reuse; reuse beat static"),
            "{}",
            figures.line()
        );
        let worse = Figures::of(
            &scenario,
            &[made_up(Arrangement::Static, |_| 10, 208), made_up(Arrangement::Reuse, |_| 10, 208)],
        );
        assert!(!worse.unwrap().reuse_beats_static());
    }
}
