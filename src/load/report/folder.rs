//! A result's folder: `result.json`, and for each contender a `.hgrm` and a `.hlog`, and pictures.

use crate::plain_file;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::picture::{
    Heading, RateBar, latency_by_percentile, latency_over_time, rate_against_latency, rates,
    throughput_by_shards,
};
use super::{Report, ReportError, Spread, Trace, hgrm, hlog};

/// The result in its folder.
pub const RESULT_FILE: &str = "result.json";

/// A result as read back.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name beside others: the name of its folder or file.
    pub name: String,
    /// The result.
    pub report: Report,
    /// The logs beside it; none for contenders without a log there.
    pub traces: Vec<Trace>,
}

/// Writes all files of a run that began at `start`; makes the folder. `steps` are the rates of a
/// sweep one by one: percentiles over all of them would describe no load at all.
///
/// # Errors
/// A file cannot be written, or a picture not drawn.
pub fn write(
    folder: &Path,
    report: &Report,
    traces: &[Trace],
    steps: &[Trace],
    start: SystemTime,
) -> Result<(), ReportError> {
    make(folder)?;
    let json =
        serde_json::to_string_pretty(report).expect("a report has text keys and finite numbers");
    put(folder, RESULT_FILE, &(json + "\n"))?;
    for trace in traces {
        let name = trace.file_stem() + ".hlog";
        put(folder, &name, &hlog::write(trace, start, &report.load))?;
    }
    for trace in if steps.is_empty() { traces } else { steps } {
        let about = format!("{}: {}", trace.name, report.load);
        let name = trace.file_stem() + ".hgrm";
        put(folder, &name, &hgrm::percentiles(&trace.whole(), &about))?;
    }
    draw(folder, report, traces)
}

/// Reads a result, and the logs beside it.
///
/// # Errors
/// The file cannot be read, or has other content.
pub fn read(file: &Path) -> Result<Stored, ReportError> {
    let file = match file.is_dir() {
        true => file.join(RESULT_FILE),
        false => file.to_owned(),
    };
    let not_a_result = |path: &Path| {
        let path = path.to_owned();
        move |what| ReportError::NotAResult { path, what }
    };
    let text = plain_file::read_text(&file, plain_file::RESULT_BYTES_MAX)
        .map_err(failed("read", &file))?;
    let report = Report::parse(&text).map_err(not_a_result(&file))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut traces = Vec::new();
    // Logs beside a result of another name belong to another run.
    let is_whole_folder = file.file_name().is_some_and(|name| name == RESULT_FILE);
    for contender in report.contenders.iter().filter(|_| is_whole_folder) {
        let log = folder.join(super::trace::file_stem(&contender.name) + ".hlog");
        match plain_file::read_text(&log, plain_file::RESULT_BYTES_MAX) {
            Ok(text) => {
                traces.push(hlog::parse(&contender.name, &text).map_err(not_a_result(&log))?);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &log)(error)),
        }
    }
    let named_after = if is_whole_folder { folder } else { &file };
    let name = named_after.file_stem().unwrap_or(named_after.as_os_str());
    Ok(Stored {
        name: name.to_string_lossy().into_owned(),
        report,
        traces,
    })
}

/// Draws several results beside each other: their rates; their latencies and sweeps, where they
/// have any; throughput by shards, where their nodes had different numbers. Returns the pictures.
///
/// # Errors
/// A file cannot be written, or a picture not drawn.
pub fn compare(folder: &Path, results: &[Stored]) -> Result<Vec<PathBuf>, ReportError> {
    make(folder)?;
    let mut drawn = Vec::new();
    let mut keep = |name: &str, svg: String| -> Result<(), ReportError> {
        drawn.push(put(folder, name, &svg)?);
        Ok(())
    };
    let Some(first) = results.first() else {
        return Ok(drawn);
    };
    let heading = |title: String| Heading {
        title,
        below: format!("{}; {}", first.report.machine, days(results)),
    };
    let bars: Vec<RateBar> = (results.iter().flat_map(bars)).collect();
    keep(
        "rates.svg",
        rates(&heading("Right answers a second".to_owned()), &bars)?,
    )?;
    let is_alone = results.len() == 1;
    // Of several results only the nodes, or lines could not be distinguished.
    let latencies: Vec<_> = (results.iter())
        .flat_map(|result| {
            (result.traces.iter())
                .filter(|_| result.report.sweep.is_none())
                .filter(|trace| is_alone || trace.name == first.report.contenders[0].name)
                .map(|trace| match is_alone {
                    true => (trace.name.clone(), trace.whole()),
                    false => (result.name.clone(), trace.whole()),
                })
        })
        .collect();
    let loop_kind = first.report.loop_kind;
    let is_common = (results.iter()).all(|result| result.report.loop_kind == loop_kind);
    let loop_kind = is_common.then_some(loop_kind);
    if !latencies.is_empty() {
        let heading = heading(common_load(results));
        let svg = latency_by_percentile(&heading, loop_kind, &latencies)?;
        keep("latency-by-percentile.svg", svg)?;
    }
    let sweeps: Vec<_> = (results.iter())
        .filter_map(|result| Some((result.name.clone(), result.report.sweep.as_deref()?)))
        .collect();
    if !sweeps.is_empty() {
        let svg = rate_against_latency(&heading(common_load(results)), &sweeps)?;
        keep("rate-against-latency.svg", svg)?;
    }
    let by_shards: Vec<_> = (results.iter())
        .map(|result| (load_without_shards(result), &result.report))
        .collect();
    let mut shards: Vec<usize> = results.iter().filter_map(|r| r.report.shards).collect();
    shards.sort_unstable();
    shards.dedup();
    if shards.len() > 1 {
        let title = "Throughput by shards".to_owned();
        keep(
            "throughput-by-shards.svg",
            throughput_by_shards(&heading(title), &by_shards)?,
        )?;
    }
    Ok(drawn)
}

/// The pictures of one result.
fn draw(folder: &Path, report: &Report, traces: &[Trace]) -> Result<(), ReportError> {
    let heading = Heading {
        title: report.load.clone(),
        below: format!("{}; {}", report.machine, report.time_utc),
    };
    let loop_kind = Some(report.loop_kind);
    let latencies: Vec<_> = (traces.iter())
        .map(|trace| (trace.name.clone(), trace.whole()))
        .collect();
    if latencies.iter().all(|(_, latency)| latency.is_empty()) {
        return Ok(());
    }
    let svg = latency_over_time(&heading, loop_kind, traces)?;
    put(folder, "latency-over-time.svg", &svg)?;
    match &report.sweep {
        Some(sweep) => {
            let svg = rate_against_latency(&heading, &[("node".to_owned(), sweep)])?;
            put(folder, "rate-against-latency.svg", &svg)?;
        }
        None => {
            let svg = latency_by_percentile(&heading, loop_kind, &latencies)?;
            put(folder, "latency-by-percentile.svg", &svg)?;
        }
    }
    Ok(())
}

fn bars(result: &Stored) -> impl Iterator<Item = RateBar> {
    (result.report.contenders.iter()).filter_map(|contender| {
        Some(RateBar {
            result: result.name.clone(),
            contender: contender.name.clone(),
            per_second: Spread::of(contender.per_second_by_slice.clone())?,
        })
    })
}

/// The load that all have, or the number of loads.
fn common_load(results: &[Stored]) -> String {
    let load = &results[0].report.load;
    match results.iter().all(|result| result.report.load == *load) {
        true => load.clone(),
        false => format!("{} loads", results.len()),
    }
}

/// What distinguishes a line of the picture by shards from another: the kinds and the transport,
/// without the time, the number of slices and the number of shards.
fn load_without_shards(result: &Stored) -> String {
    let load = &result.report.load;
    let end = load.find(" loop").and_then(|at| load[..at].rfind(','));
    load[..end.unwrap_or(load.len())].to_owned()
}

/// The first and the last day.
fn days(results: &[Stored]) -> String {
    let day = |result: &Stored| result.report.time_utc.chars().take(10).collect::<String>();
    let mut days: Vec<String> = results.iter().map(day).collect();
    days.sort();
    days.dedup();
    match &days[..] {
        [first, .., last] => format!("{first} to {last}"),
        _ => days.join(""),
    }
}

fn make(folder: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(folder).map_err(failed("make the folder", folder))
}

fn put(folder: &Path, name: &str, text: &str) -> Result<PathBuf, ReportError> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(failed("write", &path))?;
    Ok(path)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ReportError {
    let path = path.to_owned();
    move |cause| ReportError::File { doing, path, cause }
}
