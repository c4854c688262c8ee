use plotters::element::{Circle, EmptyElement, Rectangle, Text};
use plotters::series::{DashedLineSeries, LineSeries};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::axis::{count_in_words, from_zero, log_of_micros};
use super::canvas::{self, Entry, Heading, Mark};
use crate::load::report::{LatencyMicros, ReportError, SweepPoint};

/// A percentile's name, and its field in a latency.
type Percentile = (&'static str, fn(&LatencyMicros) -> f64);

const PERCENTILES: [Percentile; 3] = [
    ("p50", |latency| latency.p50),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p99_9),
];

/// How latencies rise with the requested rate, until there are fewer answers than that. With
/// several sweeps, colours distinguish sweeps and lines percentiles; with one, colours distinguish
/// percentiles.
///
/// # Errors
/// The picture cannot be drawn.
pub fn rate_against_latency(
    heading: &Heading,
    sweeps: &[(String, &[SweepPoint])],
) -> Result<String, ReportError> {
    let is_alone = sweeps.len() == 1;
    let mut legend: Vec<Entry> = Vec::new();
    for (index, (name, _)) in sweeps.iter().enumerate() {
        for (which, (percentile, _)) in PERCENTILES.iter().enumerate() {
            legend.push(Entry {
                mark: if which == 2 { Mark::Dashes } else { Mark::Line },
                color: shade(index, which, is_alone),
                text: match is_alone {
                    true => (*percentile).to_owned(),
                    false => format!("{name} {percentile}"),
                },
            });
        }
    }
    legend.push(Entry {
        mark: Mark::Block,
        color: canvas::paler(canvas::paler(canvas::ALARM)),
        text: "saturated: fewer answers than requests that were due, or a queue that grows"
            .to_owned(),
    });
    let all = || sweeps.iter().flat_map(|(_, points)| points.iter());
    let fastest = all().map(|point| point.rate_wanted).fold(0.0, f64::max);
    let x = from_zero(
        "requests a second that were due",
        fastest,
        8,
        count_in_words,
    );
    let latencies = all().flat_map(|point| PERCENTILES.map(|(_, of)| of(&point.latency_us)));
    let y = log_of_micros("latency, from when due", latencies);
    let (right, bottom, top) = (x.range.end, y.range.start, y.range.end);
    canvas::draw("rate against latency", heading, &legend, |area| {
        let mut chart = canvas::chart(area, x, y)?;
        for (index, (_, points)) in sweeps.iter().enumerate() {
            let first = points.iter().position(|point| point.is_saturated);
            if let Some(first) = first {
                // The border lies somewhere above the last rate that was kept up with, where that
                // is known.
                let from = points[first].rate_wanted;
                let tint = canvas::ALARM.mix(0.08).filled();
                chart.draw_series([Rectangle::new([(from, bottom), (right, top)], tint)])?;
            }
            for (which, (_, of)) in PERCENTILES.iter().enumerate() {
                let color = shade(index, which, is_alone);
                let style = color.stroke_width(canvas::width(2.5));
                let line = points.iter().filter_map(|point| place(point, *of));
                match which {
                    2 => drop(chart.draw_series(DashedLineSeries::new(
                        line.clone(),
                        canvas::width(7.0),
                        canvas::width(5.0),
                        style,
                    ))?),
                    _ => drop(chart.draw_series(LineSeries::new(line.clone(), style))?),
                }
                chart.draw_series(points.iter().filter_map(|point| {
                    let style: ShapeStyle = match point.is_saturated {
                        true => color.stroke_width(canvas::width(2.0)),
                        false => color.filled(),
                    };
                    Some(Circle::new(place(point, *of)?, canvas::width(4.0), style))
                }))?;
            }
            for point in points.iter().filter(|point| point.is_saturated) {
                let words = format!("{} answered", count_in_words(point.per_second));
                // At the bottom, where a saturated node has no line; one row for each sweep.
                let at = (point.rate_wanted, bottom);
                let up = canvas::px(-14.0 - 17.0 * index as f64);
                let (side, gap) = match point.rate_wanted > right * 0.85 {
                    true => (HPos::Right, canvas::px(-8.0)),
                    false => (HPos::Left, canvas::px(8.0)),
                };
                let color = match is_alone {
                    true => canvas::ALARM,
                    false => canvas::color(index),
                };
                let label =
                    EmptyElement::at(at) + Text::new(words, (gap, up), canvas::label(color, side));
                chart.draw_series([label])?;
            }
        }
        Ok(())
    })
}

fn place(point: &SweepPoint, of: fn(&LatencyMicros) -> f64) -> Option<(f64, f64)> {
    let micros = of(&point.latency_us);
    (micros > 0.0).then_some((point.rate_wanted, micros))
}

fn shade(sweep: usize, percentile: usize, is_alone: bool) -> RGBColor {
    match (is_alone, percentile) {
        (true, _) => canvas::color(percentile),
        (false, 0) => canvas::paler(canvas::color(sweep)),
        (false, _) => canvas::color(sweep),
    }
}
