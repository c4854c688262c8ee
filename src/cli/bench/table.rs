use std::fmt::Write as _;
use std::time::Duration;

use super::{ratios, ratios_by_cpu, spread};
use crate::load::kind::KindCount;
use crate::load::{Contender, Measured, Outcome, Settled, SweepStep, Tally};

/// What a run found out, for a person.
pub(super) fn report(load: &str, outcome: &Outcome, settled: Option<Settled>) -> String {
    let mut text = load.to_owned() + "\n";
    match &outcome.sweep {
        Some(steps) => text += &sweep(steps, outcome.peak),
        None => text += &contenders(&outcome.measured),
    }
    for one in &outcome.measured[1..] {
        let of = one.contender.name();
        let (least, median, most) = spread(ratios(&outcome.measured[0], one));
        let _ = writeln!(text, "node / {of}: {median:.3} ({least:.3} to {most:.3})");
        let by_cpu = ratios_by_cpu(&outcome.measured[0], one);
        if !by_cpu.is_empty() {
            let (least, median, most) = spread(by_cpu);
            let _ = writeln!(
                text,
                "node / {of}, for each second on a CPU: {median:.3} ({least:.3} to {most:.3})"
            );
        }
    }
    for one in &outcome.measured {
        text += &costs(one, outcome);
    }
    for one in &outcome.measured {
        text += &counts(one);
    }
    for kind in &outcome.kinds {
        text += &kind_counts(kind);
    }
    if let Some(Settled { wrong, astray }) = settled
        && wrong + astray > 0
    {
        let _ = writeln!(
            text,
            "{wrong} coins had another number afterwards than the node's answers made it, {astray} did not get their own back"
        );
    }
    text += &cut_short(&outcome.measured[0]);
    for limit in &outcome.generator.limits {
        let _ = writeln!(
            text,
            "WARNING: the generator is the limit here, not the node: {limit}"
        );
    }
    text
}

fn contenders(measured: &[Measured]) -> String {
    let mut text = String::from(
        "                      a second (least to most of the slices)      p50      p99    p99.9   p99.99      max µs\n",
    );
    for one in measured {
        let (least, median, most) = spread(one.rates());
        let range = format!("({least:.0} to {most:.0})");
        let _ = writeln!(
            text,
            "{:<19} {median:>10.0} {range:<29} {}",
            one.contender.name(),
            latencies(&one.total())
        );
    }
    text
}

fn sweep(steps: &[SweepStep], peak: Option<f64>) -> String {
    let mut text = String::new();
    if let Some(peak) = peak {
        let _ = writeln!(text, "closed loop before the sweep: {peak:.0} a second");
    }
    text += "   rate wanted      a second      p50      p99    p99.9   p99.99      max µs\n";
    for step in steps {
        let (_, rate, _) = spread(step.measured.rates());
        let saturated = match step.is_saturated {
            true => "  saturated",
            false => "",
        };
        let total = step.measured.total();
        let _ = writeln!(
            text,
            "{:>14.0} {rate:>13.0} {}{saturated}",
            step.rate_wanted,
            latencies(&total)
        );
    }
    text
}

fn latencies(tally: &Tally) -> String {
    let latency = &tally.latency_ns;
    let micros = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
    format!(
        "{:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.0}",
        micros(0.5),
        micros(0.99),
        micros(0.999),
        micros(0.9999),
        latency.max() as f64 / 1e3
    )
}

/// What an answer costs the server and the generator.
fn costs(one: &Measured, outcome: &Outcome) -> String {
    let mut parts = Vec::new();
    let by_cpu = one.rates_by_cpu();
    if !by_cpu.is_empty() && by_cpu.iter().all(|&rate| rate > 0.0) {
        let (least, median, most) = spread(by_cpu.iter().map(|rate| 1e6 / rate).collect());
        parts.push(format!(
            "{median:.3} µs of CPU an answer ({least:.3} to {most:.3})"
        ));
    }
    if let Some(own) = outcome.generator.cost(one.contender)
        && one.contender != Contender::Disk
    {
        parts.push(format!(
            "the generator's own {:.3} µs, {:.0} % of its CPUs",
            own.cpu_us_per_request,
            own.cpu_share * 100.0
        ));
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!("{}: {}\n", one.contender.name(), parts.join("; ")),
    }
}

fn counts(one: &Measured) -> String {
    let Tally {
        right,
        wrong,
        refused,
        late,
        lost,
        stray,
        first_wrong,
        first_refused,
        ..
    } = one.whole();
    let mut text = String::new();
    // Of what a node is compared with, only what should not be.
    if one.contender == Contender::Node || wrong + refused + late + lost > 0 {
        let _ = writeln!(
            text,
            "{}, warm-up included: {right} right, {wrong} wrong, {refused} refused, {late} late, {lost} lost, {stray} stray answers",
            one.contender.name()
        );
    }
    for (what, first) in [("wrong", first_wrong), ("refused", first_refused)] {
        if let Some(first) = first {
            let _ = writeln!(text, "the first that was {what}: {first}");
        }
    }
    text
}

/// By how much slices ended before their time.
fn cut_short(node: &Measured) -> String {
    let lengths = node.cut_short();
    if lengths.is_empty() {
        return String::new();
    }
    let (least, median, most) = spread(lengths.iter().map(Duration::as_secs_f64).collect());
    format!(
        "{} of {} slices ended when all that was made ready was used up, after {median:.3} s ({least:.3} to {most:.3}): rates are of that time; more coins (--mint) make it longer\n",
        lengths.len(),
        node.slices.len()
    )
}

fn kind_counts(kind: &KindCount) -> String {
    let KindCount {
        name,
        right,
        wrong,
        refused,
        lost,
    } = kind;
    format!("{name}: {right} right, {wrong} wrong, {refused} refused, {lost} lost\n")
}
