use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Microseconds in words, as short as they get: `850 ns`, `20 µs`, `1.5 ms`, `2 s`.
pub(in crate::load::report) fn micros_in_words(micros: f64) -> String {
    let (value, unit) = match micros {
        m if m < 0.9995 => (m * 1e3, "ns"),
        m if m < 999.5 => (m, "µs"),
        m if m < 999_500.0 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A count in words: `950`, `12.5 k`, `420 k`, `8.7 M`.
pub(in crate::load::report) fn count_in_words(count: f64) -> String {
    match count {
        c if c < 999.5 => three_digits(c),
        c if c < 999_500.0 => format!("{} k", three_digits(c / 1e3)),
        c if c < 999_500_000.0 => format!("{} M", three_digits(c / 1e6)),
        c => format!("{} G", three_digits(c / 1e9)),
    }
}

/// Three digits, without trailing zeros.
fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// An axis: its name, where it begins and ends, which places have a label, and which only a thin
/// line.
pub(super) struct Axis {
    pub name: &'static str,
    pub range: Range<f64>,
    pub labelled: Vec<f64>,
    pub thin: Vec<f64>,
    /// A place in words.
    pub words: fn(f64) -> String,
    /// Logarithmic: each power of ten as wide as the next.
    pub is_logarithmic: bool,
}

/// Microseconds on a logarithmic axis.
pub(super) fn log_of_micros(name: &'static str, values: impl Iterator<Item = f64>) -> Axis {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| value.is_finite() && *value > 0.0) {
        (least, most) = (least.min(value), most.max(value));
    }
    if most == 0.0 {
        (least, most) = (1.0, 1_000.0);
    }
    // Leaves room under the lowest line and above the highest, and never so little that noise fills
    // it.
    let (mut from, mut to) = (least.log10() - 0.12, most.log10() + 0.12);
    if to - from < 1.0 {
        let missing = 1.0 - (to - from);
        (from, to) = (from - missing / 2.0, to + missing / 2.0);
    }
    let range = 10f64.powf(from)..10f64.powf(to);
    let places = |digits: &[f64]| -> Vec<f64> {
        let decades = from.floor() as i32..=to.ceil() as i32;
        let all =
            decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
        all.filter(|place| range.contains(place)).collect()
    };
    Axis {
        name,
        labelled: match to - from {
            span if span <= 3.2 => places(&[1.0, 2.0, 5.0]),
            _ => places(&[1.0]),
        },
        thin: places(&[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
        words: micros_in_words,
        is_logarithmic: true,
        range,
    }
}

/// From zero to somewhat above the highest, with about `labels` round places.
pub(super) fn from_zero(
    name: &'static str,
    most: f64,
    labels: u32,
    words: fn(f64) -> String,
) -> Axis {
    let most = if most > 0.0 { most * 1.06 } else { 1.0 };
    let step = round_step(most / f64::from(labels));
    let count = (most / step).floor() as u32;
    Axis {
        name,
        range: 0.0..most,
        labelled: (0..=count).map(|i| f64::from(i) * step).collect(),
        thin: vec![],
        words,
        is_logarithmic: false,
    }
}

/// The smallest of 1, 2, 2.5 or 5 times a power of ten that is not less than requested.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    let step = steps.iter().find(|&&step| step * power >= least * 0.999);
    step.unwrap_or(&10.0) * power
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let along = |value: f64| match self.is_logarithmic {
            true => value.log10(),
            false => value,
        };
        let (from, to) = (along(self.range.start), along(self.range.end));
        let part = (along(*value) - from) / (to - from);
        first + (f64::from(last - first) * part.clamp(0.0, 1.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => self.thin.clone(),
            false => self.labelled.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.words)(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_three_digits_allow() {
        for (micros, text) in [
            (0.85, "850 ns"),
            (1.0, "1 µs"),
            (20.0, "20 µs"),
            (123.4, "123 µs"),
            (999.7, "1 ms"),
            (1_500.0, "1.5 ms"),
            (2e6, "2 s"),
        ] {
            assert_eq!(micros_in_words(micros), text);
        }
        for (count, text) in [
            (0.0, "0"),
            (950.0, "950"),
            (12_500.0, "12.5 k"),
            (420_000.0, "420 k"),
            (8_700_000.0, "8.7 M"),
            (56e6, "56 M"),
        ] {
            assert_eq!(count_in_words(count), text);
        }
    }

    #[test]
    fn every_value_lies_on_its_axis_and_labels_do_too() {
        for values in [vec![10.0], vec![3.0, 90_000.0], vec![]] {
            let axis = log_of_micros("latency", values.iter().copied());
            assert!(values.iter().all(|value: &f64| axis.range.contains(value)));
            assert!(
                (2..=14).contains(&axis.labelled.len()),
                "{:?}",
                axis.labelled
            );
        }
        let axis = from_zero("rate", 977_024.0, 6, count_in_words);
        assert!(axis.range.contains(&977_024.0));
        assert_eq!(axis.labelled[1], 200_000.0);
    }
}
