//! Percentiles as text, as HdrHistogram's own tools print them: the plotter at
//! <https://hdrhistogram.github.io/HdrHistogram/plotFiles.html> reads these files.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Number of lines from one halving of the distance to 100 % to the next, as HdrHistogram's tools
/// print them.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// The plotter's unit when a file does not state another, which these files cannot.
const NANOS_PER_MILLISECOND: f64 = 1e6;

/// Writes the percentiles of latencies given in nanoseconds; `about` is a line for people at the
/// end.
///
/// Values are milliseconds, but with six decimals instead of the usual three: an answer from memory
/// takes ten microseconds.
pub fn percentiles(latency_ns: &Histogram<u64>, about: &str) -> String {
    let mut text = String::new();
    let mut line = |value: &str, percentile: &str, count: &str, inverse: &str| {
        let _ = writeln!(
            text,
            "{value:>14} {percentile:>14} {count:>12} {inverse:>16}"
        );
    };
    line("Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    line("", "", "", "");
    let millis = |nanos: u64| nanos as f64 / NANOS_PER_MILLISECOND;
    let mut count = 0;
    for step in latency_ns.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        // The last line has no fourth column: it would be infinite.
        let inverse = match quantile < 1.0 {
            true => format!("{:.2}", 1.0 / (1.0 - quantile)),
            false => String::new(),
        };
        line(
            &format!("{:.6}", millis(step.value_iterated_to())),
            &format!("{quantile:.12}"),
            &count.to_string(),
            &inverse,
        );
    }
    let _ = write!(
        text,
        "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]\n\
         #[Max     = {max:>12.6}, Total count    = {total:>12}]\n\
         #[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]\n\
         # in milliseconds: {about}\n",
        mean = latency_ns.mean() / NANOS_PER_MILLISECOND,
        deviation = latency_ns.stdev() / NANOS_PER_MILLISECOND,
        max = millis(latency_ns.max()),
        total = latency_ns.len(),
        buckets = latency_ns.buckets(),
        sub_buckets = sub_buckets(latency_ns),
        about = about.replace('\n', " "),
    );
    text.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// Number of places of a bucket: twice as many values as its digits distinguish, as a power of two.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10u64.pow(histogram.sigfig().into())).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Tally;

    /// Reads a text as the plotter does: lines of four columns that do not begin with '#'. The
    /// first and the last column are numbers.
    fn plotted(text: &str) -> Vec<(f64, f64)> {
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let columns = rows.map(|line| line.split_whitespace().collect::<Vec<_>>());
        columns
            .filter(|columns| columns.len() == 4)
            .filter_map(|columns| Some((columns[3].parse().ok()?, columns[0].parse().ok()?)))
            .collect()
    }

    #[test]
    fn the_plotter_finds_each_percentile_where_the_histogram_has_it() {
        let mut latency = Tally::default().latency_ns;
        for micros in 1..=100_000 {
            latency.record(micros * 1_000).unwrap();
        }
        let text = percentiles(&latency, "detect");
        let points = plotted(&text);
        assert!(points.len() > 40, "{text}");
        for &(inverse, millis) in &points {
            let nanos = latency.value_at_quantile(1.0 - 1.0 / inverse) as f64;
            // The column has two decimals, the histogram three digits.
            assert!(
                (millis * 1e6 / nanos - 1.0).abs() < 0.01,
                "{inverse} {millis} {nanos}"
            );
        }
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        let counted = |column: usize| -> f64 {
            let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
            last.split_whitespace()
                .nth(column)
                .unwrap()
                .parse()
                .unwrap()
        };
        assert_eq!((counted(1), counted(2)), (1.0, 100_000.0));
        assert!(text.contains("#[Mean    =    50.0"), "{text}");
        assert!(text.contains("Total count    =       100000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn nothing_measured_is_a_table_without_rows() {
        let text = percentiles(&Tally::default().latency_ns, "nothing");
        assert!(plotted(&text).is_empty());
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}
