//! Pictures: memory, work and swap-ins of both guests over time.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Color, DrawingArea, DrawingBackend, IntoDrawingArea, IntoFont, LineSeries, PathElement,
        RGBColor, SVGBackend, WHITE,
    },
};

use super::{
    figures::speed,
    run::Run,
    scenario::{LARGE, SMALL, Scenario},
};

const SIZE: (u32, u32) = (760, 620);
const COLOURS: [RGBColor; 2] = [RGBColor(0x1f, 0x77, 0xb4), RGBColor(0xd6, 0x5f, 0x0e)];
const LABELS: [&str; 2] = ["large at first, idle at first", "small at first, busy at first"];

/// One picture of one run.
pub(super) fn draw(path: &Path, scenario: &Scenario, run: &Run, most: [f64; 3]) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| wrong(&error))?;
    let title = format!("{}: roles change after {} s", run.arrangement.name(), scenario.phase.as_secs());
    let root = root.titled(&title, ("sans-serif", 18)).map_err(|error| wrong(&error))?;
    let panels = root.split_evenly((3, 1));
    for (panel, (name, most)) in
        panels.iter().zip(["memory, MiB", "operations a second", "swap-ins a second"].iter().zip(most))
    {
        let value = |guest: usize, at: usize| value(run, name, guest, at);
        panel_of(panel, scenario, run, name, most, value).map_err(|error| wrong(&error))?;
    }
    root.present().map_err(|error| wrong(&error))
}

/// The highest values of all runs, so that their pictures have the same scales.
pub(super) fn most(runs: &[Run]) -> [f64; 3] {
    ["memory, MiB", "operations a second", "swap-ins a second"].map(|name| {
        let all = runs.iter().flat_map(|run| {
            (0..run.samples.len()).flat_map(move |at| [LARGE, SMALL].map(|guest| value(run, name, guest, at)))
        });
        all.fold(1.0, f64::max) * 1.05
    })
}

fn value(run: &Run, name: &str, guest: usize, at: usize) -> f64 {
    let sample = &run.samples[at];
    match name {
        "memory, MiB" => sample.size_bytes[guest] as f64 / f64::from(1 << 20),
        "operations a second" => speed(run, sample, guest),
        _ => {
            let before = at.checked_sub(5).map(|at| run.samples[at]).unwrap_or_default();
            (sample.swap_ins[guest] - before.swap_ins[guest]) as f64 / (sample.at - before.at)
        }
    }
}

fn panel_of<B: DrawingBackend>(
    panel: &DrawingArea<B, Shift>,
    scenario: &Scenario,
    run: &Run,
    name: &str,
    most: f64,
    value: impl Fn(usize, usize) -> f64,
) -> Result<(), Box<dyn std::error::Error>>
where
    B::ErrorType: 'static,
{
    let seconds = (scenario.phase * 2).as_secs_f64();
    let mut chart = ChartBuilder::on(panel)
        .margin(6)
        .x_label_area_size(22)
        .y_label_area_size(58)
        .caption(name, ("sans-serif", 13).into_font())
        .build_cartesian_2d(0.0..seconds, 0.0..most)?;
    chart.configure_mesh().light_line_style(WHITE).x_labels(8).y_labels(5).x_desc("seconds").draw()?;
    for guest in [LARGE, SMALL] {
        let points = run.samples.iter().enumerate().map(|(at, sample)| (sample.at, value(guest, at)));
        let colour = COLOURS[guest];
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(LABELS[guest])
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    Ok(())
}
