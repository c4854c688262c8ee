use serde::{Deserialize, Serialize};

use super::{
    mailbox::{CoreLatency, Mailbox},
    server::all,
};
use crate::{protocol::Command, service::Measured};

/// How long a node's requests took since it started, from being handed to the service to the answer
/// being there to send: what sockets and network add is not in it.
///
/// Of requests that were answered at once, the first 1,000 of a command and shard are measured and
/// then one in 64, which counts as 64; those that had to wait are all measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Shards of the node.
    pub shards: u16,
    /// The commands that were asked at all, in the order of groups and codes.
    pub commands: Vec<CommandLatency>,
}

/// How long requests of one command took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandLatency {
    /// What it is called.
    pub command: String,
    /// On all shards.
    #[serde(flatten)]
    pub all: Times,
    /// On each shard that was asked, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_shard: Vec<ShardLatency>,
}

/// How long requests of one command took on the core of one shard: the one that received them,
/// which may have asked others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardLatency {
    /// Its number.
    pub shard: u16,
    /// There.
    #[serde(flatten)]
    pub times: Times,
}

/// How many requests there were, and how long they took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// All requests, measured or not.
    pub requests: u64,
    /// In microseconds, right to 1 %.
    pub latency_us: Quantiles,
}

/// Percentiles of the times: each is the time that this percentage of requests took at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// 50.
    pub p50: f64,
    /// 90.
    pub p90: f64,
    /// 99.
    pub p99: f64,
    /// 99.9.
    pub p99_9: f64,
    /// All that were measured.
    pub max: f64,
}

/// Asks every core, and puts their answers together.
///
/// # Errors
/// What to tell the asker where a core does not answer.
pub(super) fn report(cores: &[Mailbox]) -> Result<LatencyReport, String> {
    all(cores, Mailbox::ask_latency).map(|answers| merge(&answers))
}

fn merge(answers: &[CoreLatency]) -> LatencyReport {
    let of = |command| {
        let mut all: Option<Measured> = None;
        let mut by_shard = Vec::new();
        for (shard, answer) in (0..).zip(answers) {
            let Some((_, measured)) = answer.iter().find(|(of, _)| *of == command) else {
                continue;
            };
            by_shard.push(ShardLatency {
                shard,
                times: Times::of(measured),
            });
            match &mut all {
                None => all = Some(measured.clone()),
                Some(all) => all.add(measured),
            }
        }
        Some(CommandLatency {
            command: command.name().to_owned(),
            all: Times::of(&all?),
            by_shard,
        })
    };
    LatencyReport {
        shards: answers.len() as u16,
        commands: Command::all().filter_map(of).collect(),
    }
}

impl Times {
    fn of(Measured { requests, times_ns }: &Measured) -> Times {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(times_ns.value_at_quantile(quantile));
        Times {
            requests: *requests,
            latency_us: Quantiles {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p99_9: at(0.999),
                max: micros(times_ns.max()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn times(nanos: impl IntoIterator<Item = u64>) -> Measured {
        let mut times_ns = Histogram::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        for nanos in nanos {
            times_ns.record(nanos).unwrap();
        }
        Measured {
            requests: times_ns.len(),
            times_ns,
        }
    }

    #[test]
    fn shards_are_put_together_by_request_not_by_shard() {
        let quick = (Command::Detect, times(vec![1_000; 990]));
        let slow = (Command::Detect, times(vec![100_000; 10]));
        let pown = (Command::Pown, times([80_000]));
        let report = merge(&[vec![quick], vec![], vec![slow, pown]]);
        assert_eq!(report.shards, 3);
        let [detect, pown] = &report.commands[..] else {
            panic!("two commands were asked: {report:?}");
        };
        let near = |is: f64, of: f64| (is / of - 1.0).abs() < 0.01;
        let all = &detect.all;
        assert_eq!(all.requests, 1_000);
        assert!(near(all.latency_us.p50, 1.0) && near(all.latency_us.p99, 1.0));
        assert!(near(all.latency_us.p99_9, 100.0) && near(all.latency_us.max, 100.0));
        let shards: Vec<_> = detect.by_shard.iter().map(|of| of.shard).collect();
        assert_eq!(shards, [0, 2]);
        assert_eq!((pown.command.as_str(), pown.all.requests), ("pown", 1));
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = merge(&[vec![(Command::PownSum, times([12_345, 1]))]]);
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains('\n'));
        let read: LatencyReport = serde_json::from_str(&text).unwrap();
        assert_eq!(read, report);
    }
}
