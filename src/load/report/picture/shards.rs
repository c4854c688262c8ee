use std::collections::BTreeMap;

use plotters::element::{Circle, EmptyElement, PathElement, Text};
use plotters::series::{DashedLineSeries, LineSeries};
use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::axis::{Axis, count_in_words, from_zero};
use super::canvas::{self, Area, Entry, Failed, Heading, Mark};
use crate::load::report::{Report, ReportError, Spread};

/// One load's answers, by shards.
type Line = BTreeMap<usize, Spread>;

/// The gain of more shards: right answers a second, and right answers for each second of the node
/// on a CPU times the shards. The latter does not suffer where shards have to share CPUs with the
/// generator. Dashes show that many times the rate of one shard. One line for each load.
///
/// # Errors
/// The picture cannot be drawn, or no result says how many shards its node had.
pub fn throughput_by_shards(
    heading: &Heading,
    results: &[(String, &Report)],
) -> Result<String, ReportError> {
    let mut by_time: BTreeMap<&str, Line> = BTreeMap::new();
    let mut by_cpu: BTreeMap<&str, Line> = BTreeMap::new();
    for (load, result) in results {
        let (Some(shards), Some(node)) = (result.shards, result.contenders.first()) else {
            continue;
        };
        let times_shards = |rate: &f64| rate * shards as f64;
        let of_cpu = node
            .per_cpu_second_by_slice
            .iter()
            .map(times_shards)
            .collect();
        if let Some(spread) = Spread::of(node.per_second_by_slice.clone()) {
            by_time.entry(load).or_default().insert(shards, spread);
        }
        if let Some(spread) = Spread::of(of_cpu) {
            by_cpu.entry(load).or_default().insert(shards, spread);
        }
    }
    if by_time.is_empty() {
        return Err(ReportError::Picture {
            picture: "throughput by shards",
            what: "no result says how many shards its node had: measure with --shards N".to_owned(),
        });
    }
    let mut legend: Vec<Entry> = (by_time.keys().enumerate())
        .map(|(index, load)| Entry {
            mark: Mark::Line,
            color: canvas::color(index),
            text: (*load).to_owned(),
        })
        .collect();
    legend.push(Entry {
        mark: Mark::Dashes,
        color: canvas::FAINT,
        text: "as many times one shard".to_owned(),
    });
    canvas::draw("throughput by shards", heading, &legend, |area| {
        let names: Vec<&str> = by_time.keys().copied().collect();
        if by_cpu.is_empty() {
            return panel(area, &names, &by_time, "right answers a second");
        }
        let halves = area.split_evenly((1, 2));
        panel(&halves[0], &names, &by_time, "right answers a second")?;
        panel(
            &halves[1],
            &names,
            &by_cpu,
            "for each second of the node on a CPU, times the shards",
        )
    })
}

fn panel(
    area: &Area<'_>,
    names: &[&str],
    lines: &BTreeMap<&str, Line>,
    what: &'static str,
) -> Result<(), Failed> {
    let all = || lines.values().flatten();
    let shards = all().map(|(shards, _)| *shards).max().unwrap_or(1);
    let most = all().map(|(_, spread)| spread.most).fold(0.0, f64::max);
    let x = Axis {
        name: "shards",
        range: 0.5..shards as f64 + 0.5,
        labelled: (1..=shards).map(|shards| shards as f64).collect(),
        thin: vec![],
        words: |shards| format!("{shards}"),
        is_logarithmic: false,
    };
    let y = from_zero(what, most * 1.05, 6, count_in_words);
    let mut chart = canvas::chart(area, x, y)?;
    for (load, line) in lines {
        let color = canvas::color(names.iter().position(|name| name == load).unwrap_or(0));
        if let Some((&first, spread)) = line.first_key_value() {
            let each = spread.median / first as f64;
            let last = line.keys().copied().max().unwrap_or(first);
            let ideal = [first, last].map(|shards| (shards as f64, each * shards as f64));
            let dashes = (canvas::width(6.0), canvas::width(5.0));
            let style = color.mix(0.6).stroke_width(canvas::width(1.5));
            chart.draw_series(DashedLineSeries::new(ideal, dashes.0, dashes.1, style))?;
        }
        let style = color.stroke_width(canvas::width(2.5));
        let points = || {
            line.iter()
                .map(|(shards, spread)| (*shards as f64, *spread))
        };
        chart.draw_series(LineSeries::new(points().map(|(x, s)| (x, s.median)), style))?;
        chart
            .draw_series(points().map(|(x, spread)| {
                PathElement::new([(x, spread.least), (x, spread.most)], style)
            }))?;
        chart.draw_series(points().map(|(x, spread)| {
            EmptyElement::at((x, spread.median))
                + Circle::new((0, 0), canvas::width(4.0), color.filled())
                + Text::new(
                    count_in_words(spread.median),
                    (canvas::px(9.0), canvas::px(11.0)),
                    canvas::label(color, HPos::Left),
                )
        }))?;
    }
    Ok(())
}
