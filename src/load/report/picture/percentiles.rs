use hdrhistogram::Histogram;
use plotters::series::LineSeries;
use plotters::style::Color;

use super::axis::{Axis, log_of_micros, micros_in_words};
use super::canvas::{self, Entry, Heading, Mark};
use super::latency_from;
use crate::load::report::{LoopKind, ReportError};

/// Number of points of a line from one halving of the distance to 100 % to the next.
const TICKS_PER_HALF_DISTANCE: u32 = 24;

/// How long the quickest 50, 90, 99, 99.9... in a hundred took: each decade of the rest is as wide
/// as the one before. Latencies are in nanoseconds.
///
/// # Errors
/// The picture cannot be drawn.
pub fn latency_by_percentile(
    heading: &Heading,
    loop_kind: Option<LoopKind>,
    contenders: &[(String, Histogram<u64>)],
) -> Result<String, ReportError> {
    let measured = || contenders.iter().filter(|(_, latency)| !latency.is_empty());
    let lines: Vec<Vec<(f64, f64)>> = measured().map(|(_, latency)| line(latency)).collect();
    let legend: Vec<Entry> = measured()
        .enumerate()
        .map(|(index, (name, latency))| Entry {
            mark: Mark::Line,
            color: canvas::color(index),
            text: format!(
                "{name}: p50 {}, p99 {}, max {}",
                micros_in_words(latency.value_at_quantile(0.5) as f64 / 1e3),
                micros_in_words(latency.value_at_quantile(0.99) as f64 / 1e3),
                micros_in_words(latency.max() as f64 / 1e3),
            ),
        })
        .collect();
    let all = || lines.iter().flatten();
    // At least to 99.9 %, and as far as there are answers.
    let most = all().map(|&(one_in, _)| one_in).fold(1e3, f64::max);
    let x = Axis {
        name: "of the right answers, so many are at least as quick",
        range: 1.0..most * 1.1,
        labelled: [1.0, 2.0]
            .into_iter()
            .chain((1..=most.log10() as i32).map(|nines| 10f64.powi(nines)))
            .collect(),
        thin: vec![4.0, 20.0, 40.0, 200.0, 400.0],
        words: percentile,
        is_logarithmic: true,
    };
    let y = log_of_micros(latency_from(loop_kind), all().map(|&(_, micros)| micros));
    canvas::draw("latency by percentile", heading, &legend, |area| {
        let mut chart = canvas::chart(area, x, y)?;
        for (index, line) in lines.iter().enumerate() {
            let style = canvas::color(index).stroke_width(canvas::width(2.5));
            chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        }
        Ok(())
    })
}

/// Points (n, t): one answer in n takes longer than t microseconds.
fn line(latency_ns: &Histogram<u64>) -> Vec<(f64, f64)> {
    // The remainder beyond the last answer is less than one answer.
    let most = latency_ns.len() as f64;
    let steps = latency_ns.iter_quantiles(TICKS_PER_HALF_DISTANCE);
    let points = steps.map(|step| {
        let one_in = 1.0 / (1.0 - step.quantile_iterated_to());
        (
            one_in.min(most),
            step.value_iterated_to().max(1) as f64 / 1e3,
        )
    });
    points.collect()
}

/// One in 100 takes longer: 99 %.
fn percentile(one_in: f64) -> String {
    let decimals = (one_in.log10().round() as usize).saturating_sub(2);
    format!("{:.decimals$} %", 100.0 - 100.0 / one_in)
}
