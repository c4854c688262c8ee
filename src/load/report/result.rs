use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Machine, Utc};
use crate::load::{Measured, SweepStep, Tally};

/// The value of `format` in results that are written here. It rises when a field changes its
/// meaning or is removed; adding a field does not raise it.
const FORMAT: u32 = 1;

/// A result: what was asked, where, and the outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the fields and their meanings.
    pub format: u32,
    /// The load in words.
    pub load: String,
    /// The command that repeats it.
    pub command: String,
    /// The time at which the run was over.
    pub time_utc: String,
    /// What a request waits for.
    #[serde(rename = "loop")]
    pub loop_kind: LoopKind,
    /// Open loop: requests a second, in all.
    pub rate_wanted: Option<f64>,
    /// Open loop: how requests are spread over time.
    pub spacing: Option<String>,
    /// Shards of the node, where the command says how many there are.
    #[serde(default)]
    pub shards: Option<usize>,
    /// The machine.
    pub machine: Machine,
    /// The generator.
    pub generator: GeneratorReport,
    /// The node first, then the baselines.
    pub contenders: Vec<ContenderReport>,
    /// The ratio of the node to each of the baselines.
    pub ratios: Vec<Ratio>,
    /// The rates of a sweep, rising.
    pub sweep: Option<Vec<SweepPoint>>,
    /// Coins whose number afterwards differed from the one that the node's answers imply.
    pub coins_wrong_afterwards: Option<u64>,
    /// Coins that did not get their own numbers back.
    pub coins_astray: Option<u64>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoopKind {
    /// An answer to an earlier request: latencies count from sending.
    Closed,
    /// The time at which it is due, whatever has been answered: latencies count from then.
    Open,
}

/// The load generator itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorReport {
    /// Its threads.
    pub threads: usize,
    /// How they talk to the kernel.
    pub io: String,
    /// Its cost of a request to the node, microseconds on a CPU.
    pub cpu_us_per_request: Option<f64>,
    /// The part of its threads' time that they were on a CPU.
    pub cpu_share: Option<f64>,
    /// Whether it, not the node, was the limit: the rates then show what the generator can do.
    pub is_limit: bool,
}

/// What one contender did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContenderReport {
    /// The contender.
    pub name: String,
    /// Right answers a second, the median of the slices.
    pub per_second: f64,
    /// `per_second` of each slice.
    pub per_second_by_slice: Vec<f64>,
    /// Right answers for each second that the server was on a CPU, of each slice; empty where that
    /// is not known.
    pub per_cpu_second_by_slice: Vec<f64>,
    /// Latencies of the slices' right and late answers.
    pub latency_us: LatencyMicros,
    /// `latency_us` of each slice.
    #[serde(default)]
    pub latency_us_by_slice: Vec<LatencyMicros>,
    /// Slices that ended before their time because everything prepared for them was used up. Their
    /// rates refer to the time that they took.
    #[serde(default)]
    pub slices_cut_short: usize,
    /// Requests of the slices.
    pub counts: CountsReport,
    /// All requests: those of the slices, between them and before.
    pub with_warm_up: CountsReport,
    /// The first wrong answer.
    pub first_wrong: Option<String>,
    /// The first refusal.
    pub first_refused: Option<String>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "percentiles, named as everywhere")]
pub struct LatencyMicros {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

/// Requests, by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsReport {
    /// Right answers in time.
    pub right: u64,
    /// Wrong answers.
    pub wrong: u64,
    /// Refused.
    pub refused: u64,
    /// Right answers later than the command permits.
    pub late: u64,
    /// Not answered in time, or never sent in an open loop that fell behind.
    pub lost: u64,
    /// Answers to no request under way.
    pub stray: u64,
}

/// The ratio of the node to another contender, slice by slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The other contender.
    pub to: String,
    /// Ratio of right answers a second.
    pub of_rates: Spread,
    /// Ratio of right answers for each second on a CPU, where both are known.
    pub of_rates_by_cpu: Option<Spread>,
}

/// Values of several slices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

/// One rate of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// Requests a second that were due.
    pub rate_wanted: f64,
    /// Right answers a second, the median of the slices.
    pub per_second: f64,
    /// From when a request was due.
    pub latency_us: LatencyMicros,
    /// Their outcome.
    pub counts: CountsReport,
    /// Whether it is more than the node can do.
    pub is_saturated: bool,
}

impl Report {
    /// Makes the result of a run that is over now; the first of `measured` is the node.
    ///
    /// # Panics
    /// When nothing was measured.
    pub fn of(
        load: String,
        command: String,
        generator: GeneratorReport,
        measured: &[Measured],
    ) -> Report {
        Report {
            format: FORMAT,
            load,
            command,
            time_utc: Utc::now().to_string(),
            loop_kind: LoopKind::Closed,
            rate_wanted: None,
            spacing: None,
            shards: None,
            machine: Machine::here(),
            generator,
            contenders: measured.iter().map(ContenderReport::of).collect(),
            ratios: measured[1..]
                .iter()
                .map(|other| Ratio::of(&measured[0], other))
                .collect(),
            sweep: None,
            coins_wrong_afterwards: None,
            coins_astray: None,
        }
    }

    /// Reads a result back.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Report, String> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match version.format {
            FORMAT => {
                check_numbers(&serde_json::from_str(text).map_err(|e| e.to_string())?)?;
                let report: Report = serde_json::from_str(text).map_err(|e| e.to_string())?;
                match report.shards {
                    Some(shards) if shards > SHARDS_MAX => {
                        Err(format!("{shards} shards are more than a node has"))
                    }
                    _ => Ok(report),
                }
            }
            other => Err(format!(
                "it is of format {other}, and this version of raida reads format {FORMAT}"
            )),
        }
    }
}

/// Numbers of a result are 0 or within these bounds, whatever they count or measure, so that an
/// axis can be drawn for them.
const NUMBERS: RangeInclusive<f64> = 1e-9..=1e18;
const SHARDS_MAX: usize = u16::MAX as usize;

/// Checks every number of a result.
fn check_numbers(value: &serde_json::Value) -> Result<(), String> {
    match value {
        serde_json::Value::Number(number) => match number.as_f64() {
            Some(number) if number == 0.0 || NUMBERS.contains(&number.abs()) => Ok(()),
            _ => Err(format!("{number} is no number that a measurement gives")),
        },
        serde_json::Value::Array(values) => values.iter().try_for_each(check_numbers),
        serde_json::Value::Object(fields) => fields.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

impl ContenderReport {
    fn of(measured: &Measured) -> ContenderReport {
        let (total, whole) = (measured.total(), measured.whole());
        let rates = measured.rates();
        ContenderReport {
            name: measured.contender.name().to_owned(),
            per_second: Spread::of(rates.clone()).map_or(0.0, |spread| spread.median),
            per_second_by_slice: rates,
            per_cpu_second_by_slice: measured.rates_by_cpu(),
            latency_us: LatencyMicros::of(&total.latency_ns),
            slices_cut_short: measured.cut_short().len(),
            latency_us_by_slice: (measured.slices.iter())
                .map(|slice| LatencyMicros::of(&slice.tally.latency_ns))
                .collect(),
            counts: CountsReport::of(&total),
            with_warm_up: CountsReport::of(&whole),
            first_wrong: whole.first_wrong,
            first_refused: whole.first_refused,
        }
    }
}

impl SweepPoint {
    /// The result of a step of a sweep.
    pub fn of(step: &SweepStep) -> SweepPoint {
        let total = step.measured.total();
        SweepPoint {
            rate_wanted: step.rate_wanted,
            per_second: Spread::of(step.measured.rates()).map_or(0.0, |spread| spread.median),
            latency_us: LatencyMicros::of(&total.latency_ns),
            counts: CountsReport::of(&total),
            is_saturated: step.is_saturated,
        }
    }
}

impl LatencyMicros {
    /// From latencies in nanoseconds.
    pub fn of(latency_ns: &hdrhistogram::Histogram<u64>) -> LatencyMicros {
        let at = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        LatencyMicros {
            mean: latency_ns.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: latency_ns.max() as f64 / 1e3,
        }
    }
}

impl CountsReport {
    /// From a tally.
    pub fn of(tally: &Tally) -> CountsReport {
        CountsReport {
            right: tally.right,
            wrong: tally.wrong,
            refused: tally.refused,
            late: tally.late,
            lost: tally.lost,
            stray: tally.stray,
        }
    }
}

impl Ratio {
    fn of(node: &Measured, other: &Measured) -> Ratio {
        let by_slice = |node: Vec<f64>, other: Vec<f64>| {
            Spread::of(
                (node.iter().zip(&other))
                    .map(|(node, other)| node / other)
                    .collect(),
            )
        };
        let nothing = Spread {
            least: 0.0,
            median: 0.0,
            most: 0.0,
        };
        Ratio {
            to: other.contender.name().to_owned(),
            of_rates: by_slice(node.rates(), other.rates()).unwrap_or(nothing),
            of_rates_by_cpu: by_slice(node.rates_by_cpu(), other.rates_by_cpu()),
        }
    }
}

impl Spread {
    /// From the values that are numbers (a ratio to nothing is none); `None` where there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        Some(Spread {
            least: *values.first()?,
            median: match values.len() % 2 {
                0 => f64::midpoint(values[half - 1], values[half]),
                _ => values[half],
            },
            most: *values.last()?,
        })
    }
}
