use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::Color;

use super::axis::{from_zero, log_of_micros};
use super::canvas::{self, Entry, Heading, Mark};
use super::latency_from;
use crate::load::report::{LoopKind, ReportError, Trace};

/// One interval of one contender: seconds, and microseconds.
struct Bar {
    from: f64,
    to: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

/// Latencies over the time of the run: for each interval a bar from p50 to p99 and a dot at the
/// longest. Contenders take turns, so their bars stand beside each other.
///
/// # Errors
/// The picture cannot be drawn.
pub fn latency_over_time(
    heading: &Heading,
    loop_kind: Option<LoopKind>,
    traces: &[Trace],
) -> Result<String, ReportError> {
    let bars: Vec<Vec<Bar>> = traces.iter().map(bars).collect();
    let mut legend: Vec<Entry> = (traces.iter().enumerate())
        .map(|(index, trace)| Entry {
            mark: Mark::Block,
            color: canvas::color(index),
            text: trace.name.clone(),
        })
        .collect();
    legend.push(Entry {
        mark: Mark::Dot,
        color: canvas::FAINT,
        text: "a bar reaches from p50 to p99 of its interval, the dot is the longest".to_owned(),
    });
    let all = || bars.iter().flatten();
    let last = all().map(|bar| bar.to).fold(0.0, f64::max);
    let x = from_zero("seconds from the start of the run", last, 10, |s| {
        format!("{s}")
    });
    let y = log_of_micros(
        latency_from(loop_kind),
        all().flat_map(|bar| [bar.p50, bar.max]),
    );
    canvas::draw("latency over time", heading, &legend, |area| {
        let mut chart = canvas::chart(area, x, y)?;
        for (index, bars) in bars.iter().enumerate() {
            let color = canvas::color(index);
            chart.draw_series(bars.iter().map(|bar| {
                Rectangle::new(
                    [(bar.from, bar.p50), (bar.to, bar.p99)],
                    color.mix(0.22).filled(),
                )
            }))?;
            let edges = bars
                .iter()
                .flat_map(|bar| [bar.p50, bar.p99].map(|edge| [(bar.from, edge), (bar.to, edge)]));
            let style = color.stroke_width(canvas::width(2.5));
            chart.draw_series(edges.map(|edge| PathElement::new(edge, style)))?;
            chart.draw_series(bars.iter().map(|bar| {
                let middle = f64::midpoint(bar.from, bar.to);
                Circle::new((middle, bar.max), canvas::width(3.0), color.filled())
            }))?;
        }
        Ok(())
    })
}

fn bars(trace: &Trace) -> Vec<Bar> {
    let measured = (trace.intervals.iter()).filter(|interval| !interval.latency_ns.is_empty());
    let micros = |nanos: u64| nanos.max(1) as f64 / 1e3;
    measured
        .map(|interval| Bar {
            from: interval.from.as_secs_f64(),
            to: (interval.from + interval.length).as_secs_f64(),
            p50: micros(interval.latency_ns.value_at_quantile(0.5)),
            p99: micros(interval.latency_ns.value_at_quantile(0.99)),
            max: micros(interval.latency_ns.max()),
        })
        .collect()
}
