use super::BenchCommand;
use crate::load::report::{GeneratorReport, LoopKind, Report, SweepPoint, Trace};
use crate::load::{Contender, Outcome, Settled};

/// What a run found out, for programs.
pub(super) fn report(
    command: &BenchCommand,
    load: &str,
    outcome: &Outcome,
    settled: Option<Settled>,
) -> Report {
    let own = outcome.generator.cost(Contender::Node);
    let generator = GeneratorReport {
        threads: command.threads.max(command.cpus.len()),
        io: command.io.name().to_owned(),
        cpu_us_per_request: own.map(|own| own.cpu_us_per_request),
        cpu_share: own.map(|own| own.cpu_share),
        is_limit: outcome.generator.is_limit(),
    };
    let is_open = command.rate.is_some() || command.sweep.is_some();
    let sweep = outcome.sweep.as_ref();
    Report {
        loop_kind: match is_open {
            true => LoopKind::Open,
            false => LoopKind::Closed,
        },
        rate_wanted: command.rate,
        spacing: is_open.then(|| super::name_of(command.spacing()).to_owned()),
        shards: command.shards.map(usize::from),
        sweep: sweep.map(|steps| steps.iter().map(SweepPoint::of).collect()),
        coins_wrong_afterwards: settled.map(|settled| settled.wrong as u64),
        coins_astray: settled.map(|settled| settled.astray as u64),
        ..Report::of(load.to_owned(), as_typed(), generator, &outcome.measured)
    }
}

/// The rates of a sweep one by one; none of another run.
pub(super) fn steps(outcome: &Outcome) -> Vec<Trace> {
    let steps = outcome.sweep.iter().flatten();
    steps
        .map(|step| Trace {
            name: format!("node at {:.0} a second", step.rate_wanted),
            ..Trace::of(&step.measured)
        })
        .collect()
}

/// The command as a shell takes it.
fn as_typed() -> String {
    let quoted = |word: String| match word.contains(|c: char| " \t\"'$*\\|&;<>()".contains(c)) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word,
    };
    let words = std::env::args().skip(1).map(quoted);
    ["raida".to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}
