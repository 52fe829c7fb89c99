//! Lines over time become SVG, with a legend that says the latest values in words.

use std::ops::Range;

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    html::{self, put},
    ink::{Ink, with_classes},
};
use crate::history::{History, Line, Span};

/// Ticks at the values' axis are about so many.
const VALUE_TICKS: usize = 4;
/// So are those at the axis of time.
const TIME_TICKS: usize = 5;
/// In pixels of a chart, which is about as wide as a phone; plotters divides it by 1.24.
const FONT: u32 = 17;
/// Space for the labels.
const LEFT: i32 = 50;
const BELOW: i32 = 24;
/// Room for half of the last label.
const RIGHT: i32 = 18;

/// What values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Bytes,
    PagesPerSecond,
}

/// How something is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Line,
    /// Filled down to zero.
    Area,
}

impl Shape {
    /// As [`with_classes`] calls what is drawn like this.
    fn class(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Area => "area",
        }
    }
}

/// One thing over time.
pub(super) struct Series {
    pub(super) label: &'static str,
    pub(super) ink: Ink,
    pub(super) shape: Shape,
    pub(super) line: Line,
    /// Its own value now, which is not what is drawn where it stands on another.
    pub(super) now: Option<f32>,
}

/// A picture to be. What is first lies behind what follows.
pub(super) struct Chart<'a> {
    /// In words, for those who do not see it; foreign text is fine.
    pub(super) title: &'a str,
    pub(super) unit: Unit,
    pub(super) size: (u32, u32),
    /// How far back it reaches.
    pub(super) reach: Reach,
    /// The values' axis ends here, if nothing is larger.
    pub(super) least_top: f64,
    pub(super) series: Vec<Series>,
}

/// How far back a chart reaches: a round time, so that a daemon of five minutes does not have an hour of nothing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reach {
    seconds: f64,
    unit_seconds: f64,
    unit: &'static str,
    /// What one waits for two points in.
    soon: &'static str,
}

impl Reach {
    /// As far as there is anything, within the span.
    pub(super) fn of(history: &History, span: Span) -> Self {
        let age = history.reach(span).map_or(0.0, |(first, last)| last.saturating_sub(first).as_secs_f64());
        let (steps, unit_seconds, unit, soon): (&[f64], _, _, _) = match span {
            Span::Hour => (&[5.0, 10.0, 20.0, 40.0, 60.0], 60.0, "min", "seconds"),
            Span::Day => (&[2.0, 4.0, 8.0, 12.0, 24.0], 3600.0, "h", "minutes"),
        };
        let last = steps.last().copied().unwrap_or(1.0);
        // A look may be late.
        let enough = steps.iter().copied().find(|step| step * unit_seconds + 10.0 >= age).unwrap_or(last);
        Self { seconds: enough * unit_seconds, unit_seconds, unit, soon }
    }

    fn range(self) -> Range<f64> {
        -self.seconds / self.unit_seconds..0.0
    }

    fn label(self, ago: f64) -> String {
        if ago > -0.01 { "now".to_owned() } else { format!("−{} {}", tidy(-ago), self.unit) }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

impl Chart<'_> {
    /// A figure: the picture and its legend.
    pub(super) fn put(&self, html: &mut String) {
        let title = html::text(self.title);
        put!(html, "<figure><figcaption>{title}</figcaption>");
        let has_line =
            self.series.iter().any(|series| series.line.pieces.iter().any(|piece| piece.len() > 1));
        if has_line {
            match self.picture() {
                Some(picture) => {
                    let [width, height] = [self.size.0, self.size.1];
                    put!(
                        html,
                        "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\"><title>{title}</title><desc>"
                    );
                    self.describe(html);
                    put!(html, "</desc>\n{picture}</svg>");
                }
                None => html.push_str("<p class=\"nothing\">This chart cannot be drawn.</p>"),
            }
        } else {
            let soon = self.reach.soon;
            put!(html, "<p class=\"nothing\">The line begins in some {soon}.</p>");
        }
        html.push_str("<ul class=\"legend\">");
        // As they lie: what is on top is first.
        for series in self.series.iter().rev() {
            put!(
                html,
                "<li><i class=\"key {} ink-{}\"></i>{} <b>{}</b></li>",
                series.shape.class(),
                series.ink.class(),
                series.label,
                self.value(series.now)
            );
        }
        html.push_str("</ul></figure>\n");
    }

    fn value(&self, value: Option<f32>) -> String {
        match (self.unit, value) {
            (_, None) => "–".to_owned(),
            (Unit::Bytes, Some(bytes)) => html::size(bytes as u64),
            (Unit::PagesPerSecond, rate) => format!("{}/s", html::rate(rate)),
        }
    }

    fn describe(&self, html: &mut String) {
        put!(html, "The last {} {}.", tidy(self.reach.seconds / self.reach.unit_seconds), self.reach.unit);
        for series in &self.series {
            let most = Some(series.line.max());
            put!(html, " {}: {} now", series.label, self.value(series.now));
            if series.shape == Shape::Line {
                put!(html, ", {} at most", self.value(most));
            }
            html.push('.');
        }
    }

    /// What is in the picture. `None`: plotters refused, which it has no reason to.
    fn picture(&self) -> Option<String> {
        let mut picture = String::new();
        {
            let root = SVGBackend::with_string(&mut picture, self.size).into_drawing_area();
            if let Err(error) = self.draw(&root) {
                log::warn!("a chart of the dashboard cannot be drawn: {error}");
                return None;
            }
        }
        // The caller has an outer element of its own.
        let inner = picture.split_once('>')?.1.trim_end().strip_suffix("</svg>")?;
        Some(with_classes(inner))
    }

    fn draw<'b>(&self, root: &Area<'b>) -> Result<(), Failed<'b>> {
        let most =
            self.series.iter().map(|series| f64::from(series.line.max())).fold(self.least_top, f64::max);
        let (scale, letter) = self.scale(most);
        let top = (most / scale * 1.05).max(1e-3);
        let mut chart = ChartBuilder::on(root)
            .margin_top(8)
            .margin_right(RIGHT)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(self.reach.range(), 0.0..top)?;
        let grid = Ink::Grid.stand_in();
        let label = Ink::Label.stand_in();
        let words = TextStyle::from(("sans-serif", FONT).into_font()).color(&label);
        let centre = Pos::new(HPos::Center, VPos::Top);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(grid)
            .axis_style(grid)
            .set_all_tick_mark_size(3)
            .x_labels(TIME_TICKS)
            .y_labels(VALUE_TICKS)
            .x_label_style(words.clone().pos(centre))
            .y_label_style(words)
            .x_label_formatter(&|ago| self.reach.label(*ago))
            .y_label_formatter(&|value| format!("{}{letter}", tidy(*value)))
            .draw()?;
        for series in &self.series {
            self.draw_series(&mut chart, series, scale)?;
        }
        root.present()
    }

    fn draw_series<'b>(
        &self,
        chart: &mut ChartContext<'_, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
        series: &Series,
        scale: f64,
    ) -> Result<(), Failed<'b>> {
        let first = -self.reach.seconds / self.reach.unit_seconds;
        for piece in &series.line.pieces {
            let points = piece
                .iter()
                .map(|reading| {
                    let ago = -reading.ago.as_secs_f64() / self.reach.unit_seconds;
                    (ago, f64::from(reading.value) / scale)
                })
                .filter(|(ago, _)| *ago >= first);
            let colour = series.ink.stand_in();
            match series.shape {
                Shape::Line => chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?,
                Shape::Area => chart.draw_series(AreaSeries::new(points, 0.0, colour))?,
            };
        }
        Ok(())
    }

    /// What values are divided by, so that round numbers are round in binary units, and the unit's letter.
    fn scale(&self, most: f64) -> (f64, &'static str) {
        if self.unit == Unit::PagesPerSecond {
            return (1.0, "");
        }
        let mut scale = 1.0;
        let mut letter = "B";
        for next in ["K", "M", "G", "T", "P", "E"] {
            if most / scale < 1024.0 {
                break;
            }
            scale *= 1024.0;
            letter = next;
        }
        (scale, letter)
    }
}

/// `5`, `0.5`, `12`, `1,500`: no more digits than the ticks need.
fn tidy(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded.fract() == 0.0 && rounded >= 1000.0 {
        html::count(rounded as u64)
    } else {
        format!("{rounded}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{WholeHost, history::Reading, status::tests::sample};

    const SIZE: (u32, u32) = (380, 190);

    fn line(pieces: &[&[(u64, f32)]]) -> Line {
        let reading = |(ago, value): &(u64, f32)| Reading { ago: Duration::from_secs(*ago), value: *value };
        Line { pieces: pieces.iter().map(|piece| piece.iter().map(reading).collect()).collect() }
    }

    fn drawn(shape: Shape, unit: Unit, line: Line) -> String {
        let reach = Reach { seconds: 300.0, unit_seconds: 60.0, unit: "min", soon: "seconds" };
        let series = vec![Series { label: "in", ink: Ink::In, shape, line, now: Some(7.0) }];
        let mut html = String::new();
        Chart { title: "a <title>", unit, size: SIZE, reach, least_top: 10.0, series }.put(&mut html);
        html
    }

    /// Coordinates of what was drawn with the data's ink.
    fn points(html: &str) -> Vec<Vec<(i64, i64)>> {
        let data = html.lines().filter(|line| line.contains("ink-in") && line.contains("points="));
        let pair = |pair: &str| {
            let (x, y) = pair.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        data.map(|line| {
            let points = line.split_once("points=\"").unwrap().1.split_once('"').unwrap().0;
            points.split_whitespace().map(pair).collect()
        })
        .collect()
    }

    #[test]
    fn where_nothing_is_known_there_is_no_line() {
        let pieces: [&[(u64, f32)]; 2] = [&[(300, 0.0), (200, 5.0)], &[(50, 5.0), (0, 10.0)]];
        let html = drawn(Shape::Line, Unit::PagesPerSecond, line(&pieces));
        let points = points(&html);
        assert_eq!(points.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2], "{html}");
        // From left to right, and upwards.
        assert!(points.concat().is_sorted_by(|a, b| a.0 < b.0 && a.1 >= b.1), "{points:?}");
        assert!(
            html.contains("<title>a &lt;title&gt;</title>") && html.contains("in <b>7.0/s</b>"),
            "{html}"
        );
        assert!(html.contains(">\nnow\n<") && html.contains(">\n−2 min\n<"), "{html}");
    }

    #[test]
    fn nothing_is_drawn_outside_of_the_picture() {
        for most in [0.0, 1e-30, 3.0, 1e6, u64::MAX as f32, f32::MAX] {
            for unit in [Unit::Bytes, Unit::PagesPerSecond] {
                for shape in [Shape::Line, Shape::Area] {
                    let html =
                        drawn(shape, unit, line(&[&[(9_999, most), (300, most), (100, 0.0), (0, most)]]));
                    let points = points(&html).concat();
                    assert!(points.len() >= 3, "{html}");
                    let (width, height) = (i64::from(SIZE.0), i64::from(SIZE.1));
                    assert!(
                        points.iter().all(|(x, y)| (0..=width).contains(x) && (0..=height).contains(y)),
                        "{points:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_chart_reaches_back_in_round_steps() {
        let mut history = History::default();
        let reached = |history: &History| Reach::of(history, Span::Hour).seconds / 60.0;
        assert_eq!(reached(&history), 5.0);
        let host = WholeHost { total_bytes: 2, available_bytes: 1 };
        for (minutes, expected) in [(0, 5.0), (5, 5.0), (6, 10.0), (39, 40.0), (55, 60.0), (600, 60.0)] {
            history.record(Duration::from_secs(60 * minutes), &sample(), host);
            assert_eq!(reached(&history), expected, "{minutes}");
        }
    }
}
