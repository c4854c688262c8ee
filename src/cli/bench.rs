use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::CliError;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::{Answer, print, print_json};
use crate::client::{
    Client, ClientError, CoinListReader, CoinListWriter, CoinRecord, Existing, Months,
};
use crate::load::kind::{DetectKind, EchoKind, PownKind};
use crate::load::{
    Addressee, Contender, Kind, LoadError, Measured, Plan, Purse, Settled, Stream, Tally,
};
use crate::protocol::AdminKey;

/// Put a load on a node, and say how many right answers came a second.
///
/// The loop is closed: a request goes out when an earlier one is answered. So the rate is what the
/// node can do with that many requests under way, and the times are those of this load only, not what
/// a client sees who asks when it likes. Every answer is checked; one in 64 detects names a wrong
/// authenticity number on purpose, and powns go back and forth between two numbers of each coin.
/// Coins of a file have their own numbers again afterwards; while powns run, their other numbers are
/// in FILE.spare.csv. Without a file, coins are minted and deleted again. Exit status 1 if any answer
/// was wrong, or none was right.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida bench echo --udp
  raida bench detect --data raida-data --udp --cpus 1 --baseline echo --node-cpus 0
  raida bench pown --data raida-data --connections 64 --baseline disk --seconds 20 --json")]
pub struct BenchCommand {
    /// What to ask
    kind: KindName,
    #[command(flatten)]
    node: NodeArgs,
    /// Requests under way over UDP
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = up_to_million)]
    in_flight: usize,
    /// Connections over TCP
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = up_to_million)]
    connections: usize,
    /// Requests under way on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to_million)]
    depth: usize,
    /// Coins a request
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = coins_a_request)]
    coins: usize,
    /// CSV of the coins to ask about
    #[arg(long, value_name = "FILE.csv")]
    coins_file: Option<PathBuf>,
    /// Without a file: coins to mint, evenly of all denominations
    #[arg(long, value_name = "N", default_value_t = 15_360, value_parser = coins_to_mint)]
    mint: usize,
    #[command(flatten)]
    admin: AdminKeyArgs,
    /// Seconds that are counted
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Seconds before that
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    warm_up_s: u32,
    /// Parts of the counted time: they show the spread, and take turns with the baselines'
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slices: u32,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    threads: usize,
    /// CPUs of the generator's threads, the first thread on the first
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// What to measure beside the node in the same run: an echo server without any protocol, writes
    /// of 4 KiB to the disk with a sync after each
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    baseline: Vec<Baseline>,
    /// CPUs of the node, for the bare echo to run on: a thread on each
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    node_cpus: Vec<usize>,
    /// The node's process, to say what an answer costs in CPU time, which other programs on the
    /// machine disturb less than the rate
    #[arg(long, value_name = "PID")]
    node_pid: Option<u32>,
    /// Folder on the disk to compare with, if not the data folder
    #[arg(long, value_name = "DIR")]
    disk_folder: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindName {
    Echo,
    Detect,
    Pown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Baseline {
    Echo,
    Disk,
}

/// Coins, and what has to be done to leave them as they were.
struct Coins {
    purse: Purse,
    client: Client,
    minted_with: Option<AdminKey>,
    spare_file: Option<PathBuf>,
}

impl BenchCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// There are no coins, the node cannot be reached, or the coins cannot be left as they were.
    pub fn run(self) -> Result<Answer, CliError> {
        let plan = self.plan()?;
        let threads = plan.cpus.len();
        let slots = plan.slots_per_thread();
        let mut coins = match self.kind {
            KindName::Echo => None,
            KindName::Detect | KindName::Pown => Some(self.coins(slots * threads)?),
        };
        let mut dealt = match &mut coins {
            Some(coins) => coins.purse.deal(threads),
            None => vec![vec![]; threads],
        };
        let kinds = dealt.drain(..).map(|held| -> Box<dyn Kind> {
            match self.kind {
                KindName::Echo => Box::new(EchoKind),
                KindName::Detect => Box::new(DetectKind::new(held, self.coins, slots)),
                KindName::Pown => Box::new(PownKind::new(held, self.coins, slots)),
            }
        });
        let (measured, held) = plan.run(kinds.collect())?;
        let settled = match coins {
            Some(mut coins) => {
                coins.purse.collect(held);
                Some(coins.settle()?)
            }
            None => None,
        };
        match self.json {
            true => print_json(&self.report_json(&plan, &measured, settled))?,
            false => print(&self.report(&plan, &measured, settled))?,
        }
        let total = measured[0].whole();
        let is_settled = settled.is_none_or(|s| s.wrong == 0 && s.astray == 0);
        match total.wrong == 0 && total.right > 0 && is_settled {
            true => Ok(Answer::Yes),
            false => Ok(Answer::No),
        }
    }

    fn plan(&self) -> Result<Plan, CliError> {
        let refused = |what: &str| Err(LoadError::Plan(what.to_owned()).into());
        let node = self.address()?;
        let threads = self.threads.max(self.cpus.len());
        let on =
            |cpus: &[usize], thread: usize| (!cpus.is_empty()).then(|| cpus[thread % cpus.len()]);
        let has = |baseline| self.baseline.contains(&baseline);
        if has(Baseline::Echo) && !node.ip().is_loopback() {
            return refused(
                "a bare echo on this machine says nothing about a node on another; leave --baseline echo away",
            );
        }
        let disk = match (has(Baseline::Disk), &self.disk_folder) {
            (false, _) => None,
            (true, Some(folder)) => Some(folder.clone()),
            (true, None) => match self.admin.data_folder()? {
                Some(folder) => Some(folder),
                None => {
                    return refused(
                        "which disk is to be compared with? name the data folder with --data, or any with --disk-folder",
                    );
                }
            },
        };
        Ok(Plan {
            node,
            addressee: Addressee {
                raida: self.node.raida,
                coin_id: self.node.coin_id,
            },
            stream: match self.node.udp {
                true => Stream::Udp {
                    in_flight: self.in_flight,
                },
                false => Stream::Tcp {
                    connections: self.connections,
                    depth: self.depth,
                },
            },
            cpus: (0..threads).map(|i| on(&self.cpus, i)).collect(),
            node_pid: self.node_pid,
            echo: has(Baseline::Echo).then(|| {
                let threads = self.node_cpus.len().max(1);
                (0..threads).map(|i| on(&self.node_cpus, i)).collect()
            }),
            disk,
            warm_up: Duration::from_secs(self.warm_up_s.into()),
            duration: Duration::from_secs(self.seconds.into()),
            slices: self.slices,
            timeout: Duration::from_millis(self.node.timeout_ms),
        })
    }

    fn address(&self) -> Result<SocketAddr, CliError> {
        let host = &self.node.host;
        let unreachable = |cause| ClientError::Unreachable(host.to_string(), cause);
        let mut addresses = (host.host(), host.port())
            .to_socket_addrs()
            .map_err(unreachable)?;
        let none = || unreachable(std::io::Error::other("the name has no address"));
        Ok(addresses.next().ok_or_else(none)?)
    }

    /// The coins to ask about; `slots` requests are under way at a time.
    fn coins(&self, slots: usize) -> Result<Coins, CliError> {
        let mut client = self.node.connect_tcp()?;
        let needed = match self.kind {
            // Some more than are under way, so that none is missed when one rests.
            KindName::Pown => slots * self.coins * 2,
            KindName::Echo | KindName::Detect => slots,
        };
        let too_few = |what: String, found: usize| {
            LoadError::Plan(format!(
                "{what} {found} coins where {needed} are needed for this many requests under way"
            ))
        };
        let Some(file) = &self.coins_file else {
            let key = self.admin.read()?;
            let purse = Purse::mint(&mut client, &key, self.mint)?;
            let coins = Coins {
                purse,
                client,
                minted_with: Some(key),
                spare_file: None,
            };
            if coins.purse.len() < needed {
                let found = coins.purse.len();
                coins.settle()?;
                return Err(too_few("the node made".to_owned(), found).into());
            }
            return Ok(coins);
        };
        let list = CoinListReader::open(file, Months::Optional)?
            .map(|record| record.map(|CoinRecord { coin, an, .. }| (coin, an)))
            .collect::<Result<Vec<_>, _>>()?;
        let purse = Purse::new(list)?;
        if purse.len() < needed {
            return Err(too_few(format!("{} holds", file.display()), purse.len()).into());
        }
        let mut spare_file = None;
        if self.kind == KindName::Pown {
            let mut name = file.clone().into_os_string();
            name.push(".spare.csv");
            let name = PathBuf::from(name);
            let mut writer = CoinListWriter::create(&name, Existing::Keep)?;
            for (coin, an) in purse.spares() {
                writer.write(&CoinRecord {
                    coin,
                    an,
                    mfs: None,
                })?;
            }
            writer.finish()?;
            spare_file = Some(name);
        }
        Ok(Coins {
            purse,
            client,
            minted_with: None,
            spare_file,
        })
    }

    fn load_in_words(&self, plan: &Plan) -> String {
        let kind = match (self.kind, self.coins) {
            (KindName::Echo, _) => "echo".to_owned(),
            (kind, 1) => format!("{} of one coin", name_of(kind)),
            (kind, coins) => format!("{} of {coins} coins", name_of(kind)),
        };
        let carried = match plan.stream {
            Stream::Udp { in_flight } => format!("UDP, {in_flight} in flight"),
            Stream::Tcp { connections, depth } => {
                format!("TCP, {connections} connections, {depth} deep")
            }
        };
        let (seconds, slices) = (self.seconds, self.slices);
        format!("{kind} over {carried}, closed loop, {seconds} s in {slices} slices")
    }

    fn report(&self, plan: &Plan, measured: &[Measured], settled: Option<Settled>) -> String {
        let mut text = self.load_in_words(plan) + "\n";
        text += "               a second (least to most of the slices)      p50      p99    p99.9      max µs\n";
        for one in measured {
            let (least, median, most) = spread(one.rates());
            let latency = one.total().latency_ns;
            let micros = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
            let _ = writeln!(
                text,
                "{:<12} {median:>10.0} ({least:.0} to {most:.0}){:>pad$} {:>8.1} {:>8.1} {:>8.1} {:>8.0}",
                name_of_contender(one.contender),
                "",
                micros(0.5),
                micros(0.99),
                micros(0.999),
                latency.max() as f64 / 1e3,
                pad = 27usize.saturating_sub(format!("{least:.0} to {most:.0}").len() + 2),
            );
        }
        for one in &measured[1..] {
            let (least, median, most) = spread(ratios(&measured[0], one));
            let of = name_of_contender(one.contender);
            let _ = writeln!(text, "node / {of}: {median:.3} ({least:.3} to {most:.3})");
            let by_cpu = ratios_by_cpu(&measured[0], one);
            if !by_cpu.is_empty() {
                let (least, median, most) = spread(by_cpu);
                let _ = writeln!(
                    text,
                    "node / {of}, for each second on a CPU: {median:.3} ({least:.3} to {most:.3})"
                );
            }
        }
        for one in measured {
            let by_cpu = one.rates_by_cpu();
            if !by_cpu.is_empty() {
                let (least, median, most) = spread(by_cpu.iter().map(|rate| 1e6 / rate).collect());
                let _ = writeln!(
                    text,
                    "{}: {median:.3} µs of CPU an answer ({least:.3} to {most:.3})",
                    name_of_contender(one.contender)
                );
            }
        }
        let total = measured[0].whole();
        let Tally {
            right,
            wrong,
            refused,
            lost,
            stray,
            ..
        } = total;
        let _ = writeln!(
            text,
            "warm-up included: {right} right, {wrong} wrong, {refused} refused, {lost} lost, {stray} stray answers"
        );
        for (what, first) in [
            ("wrong", total.first_wrong),
            ("refused", total.first_refused),
        ] {
            if let Some(first) = first {
                let _ = writeln!(text, "the first that was {what}: {first}");
            }
        }
        if let Some(Settled { wrong, astray }) = settled
            && wrong + astray > 0
        {
            let _ = writeln!(
                text,
                "{wrong} coins had another number afterwards than the node's answers made it, {astray} did not get their own back"
            );
        }
        text
    }

    fn report_json(&self, plan: &Plan, measured: &[Measured], settled: Option<Settled>) -> Value {
        let contenders: Vec<Value> = (measured.iter())
            .map(|one| {
                let (total, whole) = (one.total(), one.whole());
                let latency = &total.latency_ns;
                let micros = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
                let (_, median, _) = spread(one.rates());
                json!({
                    "name": name_of_contender(one.contender),
                    "per_second": median,
                    "per_second_by_slice": one.rates(),
                    "per_cpu_second_by_slice": one.rates_by_cpu(),
                    "latency_us": {
                        "mean": latency.mean() / 1e3,
                        "p50": micros(0.5),
                        "p99": micros(0.99),
                        "p99_9": micros(0.999),
                        "max": latency.max() as f64 / 1e3,
                    },
                    "right": total.right,
                    "with_warm_up": {
                        "right": whole.right,
                        "wrong": whole.wrong,
                        "refused": whole.refused,
                        "lost": whole.lost,
                        "stray": whole.stray,
                    },
                    "first_wrong": whole.first_wrong,
                    "first_refused": whole.first_refused,
                })
            })
            .collect();
        let ratios: Vec<Value> = (measured[1..].iter())
            .map(|one| {
                let all = |values: Vec<f64>| {
                    let (least, median, most) = spread(values);
                    json!({ "least": least, "median": median, "most": most })
                };
                let by_cpu = ratios_by_cpu(&measured[0], one);
                json!({
                    "to": name_of_contender(one.contender),
                    "of_rates": all(ratios(&measured[0], one)),
                    "of_rates_by_cpu": (!by_cpu.is_empty()).then(|| all(by_cpu)),
                })
            })
            .collect();
        json!({
            "load": self.load_in_words(plan),
            "loop": "closed",
            "contenders": contenders,
            "ratios": ratios,
            "coins_wrong_afterwards": settled.map(|s| s.wrong),
            "coins_astray": settled.map(|s| s.astray),
        })
    }
}

impl Coins {
    fn settle(mut self) -> Result<Settled, CliError> {
        let settled = self.purse.settle(&mut self.client)?;
        if settled.astray > 0 {
            return Ok(settled);
        }
        if let Some(key) = &self.minted_with {
            self.purse.delete(&mut self.client, key)?;
        }
        if let Some(file) = &self.spare_file {
            std::fs::remove_file(file)?;
        }
        Ok(settled)
    }
}

fn name_of(kind: KindName) -> &'static str {
    match kind {
        KindName::Echo => "echo",
        KindName::Detect => "detect",
        KindName::Pown => "pown",
    }
}

fn name_of_contender(contender: Contender) -> &'static str {
    match contender {
        Contender::Node => "node",
        Contender::Echo => "bare echo",
        Contender::Disk => "bare disk",
    }
}

/// The node's rate by another's, slice by slice.
fn ratios(node: &Measured, other: &Measured) -> Vec<f64> {
    (node.rates().into_iter().zip(other.rates()))
        .map(|(node, other)| node / other)
        .collect()
}

fn ratios_by_cpu(node: &Measured, other: &Measured) -> Vec<f64> {
    (node.rates_by_cpu().into_iter().zip(other.rates_by_cpu()))
        .map(|(node, other)| node / other)
        .collect()
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => (0.0, 0.0, 0.0),
        [least, ..] => (least, values[values.len() / 2], values[values.len() - 1]),
    }
}

fn up_to_million(text: &str) -> Result<usize, String> {
    within(text, 1_000_000)
}

/// A body has 65,535 bytes at most in the short form: pown needs 37 for each coin.
fn coins_a_request(text: &str) -> Result<usize, String> {
    within(text, 1_700)
}

fn coins_to_mint(text: &str) -> Result<usize, String> {
    within(text, 15_360)
}

fn threads(text: &str) -> Result<usize, String> {
    within(text, 256)
}

fn within(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("permitted is a whole number from 1 to {most}")),
    }
}
