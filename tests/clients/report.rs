//! Results as files: what is written is read back, by this program and as other programs read it.
//! The folders stay in target/tmp/report, so that a person can look at the pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use raida::load::report::{
    CountsReport, GeneratorReport, LatencyMicros, LoopKind, Report, ReportError, SweepPoint, Trace,
    folder,
};
use raida::load::{Contender, Interval, Measured, Slice, Tally};

/// A folder of the test's own, empty.
fn empty_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("report")
        .join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// Latencies around `micros` with a tail, the same at every run.
fn latencies(seed: u64, micros: f64, count: u64) -> hdrhistogram::Histogram<u64> {
    let mut histogram = Tally::default().latency_ns;
    for i in 0..count {
        // Halton's sequence: fills the unit interval evenly, and looks random enough.
        let (mut place, mut part, mut rest) = (0.0, 0.5, i * 7 + seed);
        while rest > 0 {
            place += part * (rest % 2) as f64;
            part /= 2.0;
            rest /= 2;
        }
        let tail = (1.0 - place).powf(-0.45);
        histogram.saturating_record((micros * 1e3 * (0.6 + 0.4 * tail)) as u64);
    }
    histogram
}

/// Five slices of two intervals, in turns with `turns - 1` others.
fn measured(contender: Contender, turn: u32, turns: u32, micros: f64, per_second: u64) -> Measured {
    let slice = |index: u32| {
        let from = Duration::from_millis(2_200) * (index * turns + turn);
        let intervals: Vec<Interval> = (0..2)
            .map(|half| Interval {
                from: from + Duration::from_secs(half),
                length: Duration::from_secs(1),
                right: per_second,
                latency_ns: latencies(u64::from(index) * 31 + half, micros, per_second),
            })
            .collect();
        let mut tally = Tally {
            right: 2 * per_second,
            ..Tally::default()
        };
        for interval in &intervals {
            tally.latency_ns.add(&interval.latency_ns).unwrap();
        }
        Slice {
            tally,
            took: Duration::from_millis(1_960 + 20 * u64::from(index)),
            server_cpu: Some(Duration::from_millis(1_500 + 50 * u64::from(index))),
            started: from,
            is_cut_short: false,
            intervals,
        }
    };
    Measured {
        contender,
        slices: (0..5).map(slice).collect(),
        between: Tally {
            lost: 3,
            ..Tally::default()
        },
    }
}

fn generator() -> GeneratorReport {
    GeneratorReport {
        threads: 1,
        io: "syscalls".to_owned(),
        cpu_us_per_request: Some(0.91),
        cpu_share: Some(0.82),
        is_limit: false,
    }
}

fn two_contenders() -> (Report, Vec<Trace>) {
    let measured = [
        measured(Contender::Node, 0, 2, 31.0, 40_000),
        measured(Contender::Echo, 1, 2, 24.0, 50_000),
    ];
    let report = Report::of(
        "detect of one coin over TCP, 16 connections, 1 deep, closed loop, 10 s in 5 slices"
            .to_owned(),
        "raida bench detect --baseline echo --seconds 10".to_owned(),
        generator(),
        &measured,
    );
    (report, measured.iter().map(Trace::of).collect())
}

fn sweep(factor: f64) -> Vec<SweepPoint> {
    let step = |step: u32| {
        let rate = 50_000.0 * f64::from(step);
        let load: f64 = rate / (420_000.0 * factor);
        let is_saturated = load > 1.0;
        let wait = if is_saturated {
            900.0
        } else {
            1.0 / (1.02 - load)
        };
        let latency = latencies(step.into(), 30.0 * wait, 30_000);
        SweepPoint {
            rate_wanted: rate,
            per_second: rate.min(420_000.0 * factor),
            latency_us: LatencyMicros::of(&latency),
            counts: CountsReport::default(),
            is_saturated,
        }
    };
    (1..=9).map(step).collect()
}

#[test]
fn a_result_is_a_folder_that_is_read_back() {
    let at = empty_folder("one");
    let (report, traces) = two_contenders();
    folder::write(&at, &report, &traces, &[], SystemTime::now()).unwrap();
    let back = folder::read(&at).unwrap();
    assert_eq!(back.report, report);
    assert_eq!(back.name, "one");
    for (back, was) in back.traces.iter().zip(&traces) {
        assert_eq!(back.name, was.name);
        assert_eq!(back.whole(), was.whole());
        assert_eq!(back.whole().len(), 10 * was.intervals[0].right);
    }
    assert_eq!(back.traces.len(), 2);
    for name in ["node.hgrm", "node.hlog", "bare-echo.hgrm", "bare-echo.hlog"] {
        assert!(fs::metadata(at.join(name)).unwrap().len() > 500, "{name}");
    }
}

#[test]
fn a_result_has_the_fields_that_other_programs_look_for() {
    let (report, _) = two_contenders();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["loop"], "closed");
    assert_eq!(json["contenders"][1]["name"], "bare echo");
    assert_eq!(json["contenders"][0]["counts"]["right"], 400_000);
    assert_eq!(json["contenders"][0]["with_warm_up"]["lost"], 3);
    assert!(
        json["contenders"][0]["latency_us"]["p99_9"]
            .as_f64()
            .unwrap()
            > 31.0
    );
    let ratio = &json["ratios"][0];
    assert_eq!(ratio["to"], "bare echo");
    for which in ["of_rates", "of_rates_by_cpu"] {
        let median = ratio[which]["median"].as_f64().unwrap();
        assert!((median - 0.8).abs() < 1e-9, "{which}: {median}");
    }
    assert!(json["sweep"].is_null() && json["coins_astray"].is_null());
}

#[test]
fn every_picture_names_its_contenders_and_units() {
    let at = empty_folder("pictures");
    let (mut report, traces) = two_contenders();
    folder::write(&at, &report, &traces, &[], SystemTime::now()).unwrap();
    let picture = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    let percentiles = picture("latency-by-percentile.svg");
    for text in [
        "bare echo: p50",
        "99.9 %",
        "latency, from sending",
        " µs",
        &report.load[..60],
    ] {
        assert!(percentiles.contains(text), "{text}");
    }
    let over_time = picture("latency-over-time.svg");
    assert!(over_time.contains("bare echo") && over_time.contains("seconds"));
    report.sweep = Some(sweep(1.0));
    folder::write(&at, &report, &traces, &[], SystemTime::now()).unwrap();
    let sweep = picture("rate-against-latency.svg");
    for text in ["p99.9", "400 k", "420 k answered", "saturated"] {
        assert!(sweep.contains(text), "{text}");
    }
}

#[test]
fn several_results_are_drawn_beside_each_other() {
    let at = empty_folder("several");
    let mut files = vec![];
    for (shards, factor) in [(1, 1.0), (2, 1.85), (4, 3.2)] {
        for (load, per_second) in [("UDP", 9_000.0), ("TCP", 5_000.0)] {
            let rate = (per_second * factor) as u64;
            let measured = [
                measured(Contender::Node, 0, 2, 31.0, rate),
                measured(Contender::Echo, 1, 2, 24.0, rate + 1_000),
            ];
            let words = format!("detect of one coin over {load}, closed loop, 10 s in 5 slices");
            let mut report = Report::of(words, "raida bench".to_owned(), generator(), &measured);
            report.shards = Some(shards);
            report.sweep = (load == "TCP").then(|| sweep(factor));
            let folder = at.join(format!("{load} {shards} shards"));
            let traces: Vec<Trace> = measured.iter().map(Trace::of).collect();
            folder::write(&folder, &report, &traces, &[], SystemTime::now()).unwrap();
            files.push(folder.join(folder::RESULT_FILE));
        }
    }
    let results: Vec<_> = (files.iter())
        .map(|file| folder::read(file).unwrap())
        .collect();
    let drawn = folder::compare(&at, &results).unwrap();
    let names: Vec<_> = (drawn.iter())
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "rates.svg",
            "latency-by-percentile.svg",
            "rate-against-latency.svg",
            "throughput-by-shards.svg"
        ]
    );
    let shards = fs::read_to_string(at.join("throughput-by-shards.svg")).unwrap();
    for text in ["detect of one coin over UDP", "as many times one shard"] {
        assert!(shards.contains(text), "{text}");
    }
}

#[test]
fn what_is_no_result_or_of_another_format_is_refused_with_a_word() {
    let at = empty_folder("refused");
    fs::create_dir_all(&at).unwrap();
    let file = at.join("result.json");
    let mut other = serde_json::to_value(two_contenders().0).unwrap();
    other["format"] = 2.into();
    for (text, word) in [
        ("[]", "not a result of `raida bench`"),
        (&*other.to_string(), "format 2"),
    ] {
        fs::write(&file, text).unwrap();
        let refused = folder::read(&file).unwrap_err();
        assert!(matches!(refused, ReportError::NotAResult { .. }));
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

#[test]
fn an_open_loop_says_that_latencies_count_from_when_a_request_was_due() {
    let at = empty_folder("open");
    let (mut report, traces) = two_contenders();
    report.loop_kind = LoopKind::Open;
    folder::write(&at, &report, &traces, &[], SystemTime::now()).unwrap();
    for name in ["latency-by-percentile.svg", "latency-over-time.svg"] {
        let picture = fs::read_to_string(at.join(name)).unwrap();
        assert!(picture.contains("latency, from when due"), "{name}");
    }
}

#[test]
fn the_rates_of_a_sweep_have_percentiles_of_their_own() {
    let at = empty_folder("sweep");
    let (mut report, traces) = two_contenders();
    report.sweep = Some(sweep(1.0));
    let step = Trace {
        name: "node at 50000 a second".to_owned(),
        ..traces[0].clone()
    };
    folder::write(&at, &report, &traces[..1], &[step], SystemTime::now()).unwrap();
    assert!(at.join("node-at-50000-a-second.hgrm").exists() && at.join("node.hlog").exists());
    for of_all_rates in ["node.hgrm", "latency-by-percentile.svg"] {
        assert!(!at.join(of_all_rates).exists(), "{of_all_rates}");
    }
}
