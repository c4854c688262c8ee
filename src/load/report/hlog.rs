//! Latencies over time, as HdrHistogram's log tools read them (format 1.3, V2 histograms,
//! deflated).

use std::io::Read;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::load::Interval;

use super::Trace;

/// The text that the log's readers look for in its first line.
const FORMAT: &str = "[Histogram log format version 1.3]";

/// The column of maxima is for people: milliseconds, where the histograms have nanoseconds.
const NANOS_PER_MILLISECOND: f64 = 1e6;

/// The trace's intervals; times count from `start`, when the run began.
pub fn write(trace: &Trace, start: SystemTime, about: &str) -> String {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let never = "memory takes every byte, and a histogram of u64 every value";
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(FORMAT)
        .add_comment(&format!(
            "[{}, in nanoseconds; maxima in milliseconds: {}]",
            trace.name,
            about.replace('\n', " ")
        ))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(NANOS_PER_MILLISECOND)
        .begin_log_with(&mut text, &mut serializer)
        .expect(never);
    for interval in &trace.intervals {
        let Interval {
            from,
            length,
            latency_ns,
            ..
        } = interval;
        log.write_histogram(latency_ns, *from, *length, None)
            .expect(never);
    }
    String::from_utf8(text).expect("the log is text")
}

/// Maximum memory for the histograms of a log, bytes: an hour of them, one a second.
const MEMORY_MAX: usize = 512 << 20;
/// Maximum number of bytes of counts that a histogram may state: more than any here has.
const COUNTS_MAX: u32 = 4 << 20;
/// The longest time, in seconds, that a log may state: some 30 years.
const SECONDS_MAX: f64 = 1e9;

/// Checks that the times at the front of a line are times: the reader of the log accepts any
/// number.
fn check_times(line: &str) -> Result<(), String> {
    if line.starts_with(['#', '"']) {
        return Ok(());
    }
    let times = line.split(',').filter(|field| !field.starts_with("Tag="));
    for time in times.take(2).filter_map(|field| field.parse::<f64>().ok()) {
        if !(0.0..=SECONDS_MAX).contains(&time) {
            return Err(format!("{time} is no time of a log, in seconds"));
        }
    }
    Ok(())
}

/// Checks that a deflated histogram is not too long: the reader allocates the memory that the
/// histogram states.
fn check_length(bytes: &[u8]) -> Result<(), String> {
    let cut = || "a histogram is broken: it is too short".to_owned();
    // The front is a cookie and a length; the deflated content begins with another cookie and
    // length.
    let mut front = [0; 8];
    let deflated = bytes.get(8..).ok_or_else(cut)?;
    let read = flate2::read::ZlibDecoder::new(deflated).read_exact(&mut front);
    read.map_err(|_| cut())?;
    let [_, _, _, _, length @ ..] = front;
    match u32::from_be_bytes(length) {
        0..=COUNTS_MAX => Ok(()),
        length => Err(format!(
            "a histogram is broken: it says that it has {length} bytes"
        )),
    }
}

/// Reads back what [`write()`] wrote, or another program's log of nanoseconds.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(name: &str, text: &str) -> Result<Trace, String> {
    let mut deserializer = Deserializer::new();
    let mut intervals = Vec::new();
    let mut memory = 0;
    text.lines().try_for_each(check_times)?;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let entry = entry.map_err(|error| format!("a line of the log is broken: {error:?}"))?;
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let bytes = BASE64_STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| format!("a histogram is no base64: {error}"))?;
        check_length(&bytes)?;
        let latency_ns: hdrhistogram::Histogram<u64> = deserializer
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("a histogram is broken: {error}"))?;
        memory += latency_ns.distinct_values() * size_of::<u64>();
        if memory > MEMORY_MAX {
            return Err(format!(
                "its histograms take more than {} MB",
                MEMORY_MAX >> 20
            ));
        }
        intervals.push(Interval {
            from: interval.start_timestamp(),
            length: interval.duration(),
            right: hdrhistogram::Histogram::len(&latency_ns),
            latency_ns,
        });
    }
    Ok(Trace {
        name: name.to_owned(),
        intervals,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Tally;

    fn interval(second: u64, micros: &[u64]) -> Interval {
        let mut latency_ns = Tally::default().latency_ns;
        for micros in micros {
            latency_ns.record(micros * 1_000).unwrap();
        }
        Interval {
            from: Duration::from_millis(second * 1_000 + 500),
            length: Duration::from_secs(1),
            right: micros.len() as u64,
            latency_ns,
        }
    }

    #[test]
    fn a_log_is_read_back_interval_by_interval() {
        let trace = Trace {
            name: "bare echo".to_owned(),
            intervals: vec![
                interval(0, &[10, 20, 30, 59_999_000]),
                interval(1, &[]),
                interval(7, &[12; 5_000]),
            ],
        };
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_231_955_250);
        let text = write(&trace, start, "detect\nof one coin");
        for line in [
            "#[Histogram log format version 1.3]\n",
            "#[StartTime: 1795231955.250 (seconds since epoch)]\n",
            "#[BaseTime: 1795231955.250 (seconds since epoch)]\n",
            "\n0.500,1.000,",
        ] {
            assert!(text.contains(line), "{line:?} is missing in {text}");
        }
        let back = parse("bare echo", &text).unwrap();
        assert_eq!(back.intervals.len(), 3);
        for (back, was) in back.intervals.iter().zip(&trace.intervals) {
            assert_eq!(
                (back.from, back.length, back.right),
                (was.from, was.length, was.right)
            );
            assert_eq!(back.latency_ns, was.latency_ns);
        }
        assert_eq!(back.whole(), trace.whole());
    }

    #[test]
    fn times_and_lengths_that_no_log_has_are_refused_and_take_no_memory() {
        let line = |from: &str, histogram: &str| {
            let text =
                format!("#[Histogram log format version 1.3]\n{from},1.000,0.1,{histogram}\n");
            parse("node", &text).unwrap_err()
        };
        for from in ["1e300", "-1", "inf", "NaN", "Tag=a,1e40"] {
            let refused = line(from, "HISTFAAAAAB4nAMAAAAAAQ==");
            assert!(refused.contains("no time of a log"), "{from}: {refused}");
        }
        let mut deflated = vec![0x1c, 0x84, 0x93, 0x14, 0, 0, 0, 0];
        let counts = [&[0x1c, 0x84, 0x93, 0x13][..], &[0xff; 4], &[0; 32]].concat();
        let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &counts).unwrap();
        deflated.extend(encoder.finish().unwrap());
        let refused = line("0.5", &BASE64_STANDARD.encode(&deflated));
        assert!(refused.contains("4294967295 bytes"), "{refused}");
        assert!(line("0.5", "HISTFA==").contains("too short"));
    }

    #[test]
    fn a_cut_log_is_refused_with_a_word() {
        let trace = Trace {
            name: "node".to_owned(),
            intervals: vec![interval(0, &[1, 2, 3])],
        };
        let text = write(&trace, SystemTime::UNIX_EPOCH, "detect");
        let cut = &text[..text.len() - 20];
        for (text, word) in [
            (cut.to_owned(), "a line of the log is broken"),
            (cut.to_owned() + "\n", "a histogram is"),
        ] {
            let refused = parse("node", &text).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
