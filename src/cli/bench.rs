mod coins;
mod fix;
mod result;
mod table;

use rustix::thread::CpuSet;
use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, ValueEnum};

use self::coins::Coins;
use self::fix::FixPlan;
use super::CliError;
use super::interrupt;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::{Answer, print, print_json, warn};
use crate::client::heal::FIX_TIMEOUT;
use crate::client::{ClientError, CoinListWriter, HostPort, Hosts, PerRaida, Raidas};
use crate::coin::Coin;
use crate::load::kind::{EncryptionTicketKind, FixKind, KINDS, Mix, PownSumKind, Setup};
use crate::load::report::live::Live;
use crate::load::report::{Trace, folder};
use crate::load::{
    Addressee, Choice, Io, Keyring, Kind, LoadError, Measured, MintJournal, Outcome, Pace, Plan,
    Progress, Purse, PurseError, RedisPlan, Settled, Spacing, Stop, Stream, Sweep,
};
use crate::plain_file;
use crate::protocol::executive::SessionId;
use crate::shown::Shown;

/// Maximum number of key coins.
const KEYS: usize = 64;
/// Requests under way over UDP: in a closed loop, and in an open one, for each thread.
const IN_FLIGHT_CLOSED: usize = 64;
const IN_FLIGHT_OPEN_A_THREAD: usize = 1_024;
/// Coins that a node offers at once: 1,024 of each denomination.
const MINT_AT_ONCE: usize = 15_360;
/// Maximum number of coins to mint: this program can hold and compare them in a few seconds.
const MINT_MAX: usize = 2_000_000;

/// Put a load on a node, and say how many right answers came per second and how long they took.
///
/// WHAT IS ASKED. KIND, or several with their shares (--mix). detect and detect-sum ask about
/// coins; one request in 64 is wrong on purpose and has to be noticed. pown and pown-sum go back
/// and forth between two authenticity numbers of each coin; pown-derive gives numbers that the node
/// derives from those before, pown-sum is for one coin a request. A coin is in one request at a
/// time, so the right answer to each is known. find asks which of two numbers coins have: the
/// first, the second or, now and then, neither. ticket asks for tickets, one request in 64 with a
/// wrong number in it; validate asks for one and claims it in the names of all 25 servers. A node
/// keeps each ticket for tickets.lifetime_s and has room for tickets.pool of them on each shard,
/// for one address an eighth of that and for one coin 128: start it with --set tickets.shares=1
/// --set tickets.per_coin=0 if it has to give out more. It accepts claims from any address only
/// without a list of peers, or with peers.verify_source = false. encryption-ticket asks for tickets
/// that vouch for one coin each to another server, one request in 64 with a wrong number; the node
/// needs the secrets that it shares with the others (raida keys new, and its file in keys.file) and
/// gives tickets only under encryption: type 4 unless --encryption says otherwise. From one address
/// it takes limits.healing_per_s requests for find, tickets and fix on each core, 1000 unless set,
/// and refuses the rest ("too many requests"): start it with --set limits.healing_per_s=0. Over UDP
/// it sends few refusals, and it must refuse one encryption ticket in 64: start it with --set
/// limits.udp_refusals_per_s=0 too. Every answer is checked: its length, its challenge answer or
/// HMAC, its verdict. Without --coins-file coins are minted and deleted again. Coins of a file have
/// their own numbers again afterwards; while powns run, their other numbers are in FILE.spare.csv.
/// With --encryption 1 or 4 some of the coins are kept aside for keys, with 2 in a locker each.
///
/// LOCKERS AND TRADES, always of --coins coins. put stores coins that lie in no locker, each
/// request in one of its own under a new key. peek looks into lockers that were filled before the
/// first slice; a right answer lists their coins in the order in which they were stored; one
/// request in 64 is about a locker that does not exist. Over UDP a node answers peek and list with
/// at most three times the bytes of the request: start it with --set
/// network.udp_amplification=10000 for more. If all coins of --coins-file lie in lockers already,
/// these are looked into as they are. take gives all coins of a locker new numbers. offer puts
/// coins up for sale (in cloudcoin), at a price that nothing else has. list asks for 255 lockers
/// that are for sale, and puts up as many before the first slice. buy buys with a new transaction
/// id each time, on a node with trade.settlement = "trusted". Before each slice, the program
/// prepares all coins for put, take, offer and buy, over a connection of its own: it stores them
/// for take and puts them up for sale for buy; for put and offer it takes them out of the lockers
/// of the slice before and gives each coin its own number again, since a node takes no sum as a
/// proof where coins of one locker are in it in pairs. A slice ends when all coins are used up:
/// more coins (--mint) make longer slices. Offers are taken back in the end.
///
/// FIX (--network DIR, a network that `raida network` runs; not in a --mix) has RAIDA --raida
/// repair coins, and measures that alone. Coins are made on all nodes that answer and deleted again
/// in the end. The program gets tickets of the others before each slice, about twice as many as a
/// slice has taken so far; within a slice only when three quarters are used up, and a WARNING says
/// when a fix had to wait for them. Take more --slices if one slice takes more than 3,000 fixes. A
/// node has room for tickets.pool tickets of 64 coins on each shard, for one address an eighth of
/// that (tickets.shares), and 128 tickets may list the same coin (tickets.per_coin). Tickets stay
/// for tickets.lifetime_s: start the network with --set tickets.per_coin=0, and there is room for
/// 5,000 fixes of 100 coins in 300 s. For each of the others that are down, 11 at most, a fix names
/// a ticket that was never given out, so that the node tries to claim from all 24. With 12 or more
/// of them down no fix succeeds: --expect-refusal measures how long a node takes to say that.
/// limits.healing_per_s bounds fixes as well (`raida network --set`). A fix counts as lost after 40
/// s, or --timeout-ms where that is more.
///
/// CLOSED LOOP (unless --rate or --sweep is given). A request goes out when an earlier one is
/// answered, so that --in-flight (UDP) or --connections times --depth (TCP) requests are always
/// under way. This is for throughput: the rate is what the node can do with that many at a time.
/// Its latencies are those of this load only: while the node stalls nothing is asked, and what
/// would have waited is missing (coordinated omission). Do not quote them as what a client sees.
///
/// OPEN LOOP (--rate). Each request is due at a time drawn beforehand, whatever became of earlier
/// ones: at random like people who know nothing of each other (--spacing poisson), or evenly.
/// Latency counts from when a request was DUE to when its answer was read, also when it went out
/// later because the node, or this program, was behind. Requests that cannot be sent for
/// --timeout-ms are lost. This is for latency; choose a rate that the node can do, such as half of
/// its peak. --sweep goes through rising rates, --seconds each, until the node is saturated: less
/// than 95 % of the rate is reached, or p99 is 20 times the best one so far and over 5 ms. auto
/// takes 10 % to 110 % of the closed loop's peak.
///
/// WHAT IS COUNTED. right: as it must be, in time. wrong: what cannot be, or cannot be read; one of
/// them makes the exit status 1. refused: the node said that it did not do it. late: right, but
/// later than --late-ms after it was due; no part of the rate, but of the latencies. lost: no
/// answer within --timeout-ms; no part of the latencies, so look at both. stray: datagrams nobody
/// waited for. Warm-up and the first tenth of each slice are checked but not part of rates and
/// latencies.
///
/// BASELINES run in the same program run, in slices that take turns with the node's, so that other
/// work of the machine hits both; compare ratios. echo: a server that sends back what it gets, by
/// recvmmsg and sendmmsg (UDP) or epoll (TCP). echo-uring: the same by io_uring. redis:
/// redis-server from PATH, with the same connections and depth; GET of 16 bytes beside requests
/// that read, SET with appendfsync always beside those that change (MGET and MSET for several
/// coins), each answer checked; no persistence where nothing changes. disk: 4 KiB written and
/// synced, one after the other.
///
/// A FAIR TEST. Keep the node and this program on CPUs of their own (raida serve with shards.pin =
/// true; --cpus here, --node-cpus for the baselines to have the node's). Give --node-pid: then the
/// result has the cost in CPU time, which other programs disturb less than the rate, and says
/// whether the node or this program was at its limit. A warning says when this program was: then
/// add --threads and --cpus. Its own cost is printed beside each contender. Take enough slices to
/// see the spread.
///
/// Exit status 1 if any answer was wrong, any request was refused, none was right, or a coin was
/// not what the answers made it. Ctrl-C ends a run: coins that were made are taken out of
/// circulation.
#[derive(clap::Args, Debug)]
#[command(group = ArgGroup::new("load").required(true).args(["kind", "mix", "plot"]))]
#[command(after_help = "Examples:
  Throughput against the echo, node on CPU 0, generator on CPU 1:
    raida bench detect --udp --data raida-data --cpus 1 --node-cpus 0 --node-pid $PID --baseline echo
  Durable pown against Redis with fsync always, on the data folder's disk:
    raida bench pown --data raida-data --connections 64 --cpus 1 --node-cpus 0 --node-pid $PID --baseline redis
  Latency at half load (half of what the first example said):
    raida bench detect --udp --data raida-data --cpus 1 --rate 100000 --seconds 30
  Rates up to saturation:
    raida bench detect --udp --data raida-data --cpus 1 --sweep auto --seconds 10
  Fixes of 100 coins by RAIDA 0, one after the other, in a network on this machine:
    raida bench fix --network raida-network --raida 0 --coins 100 --connections 1 --seconds 10
  Stores of 1,000 coins; looks into lockers of 10, of a million coins minted for it:
    raida bench put --coins 1000 --connections 4 --mint 2000000 --data raida-data
    raida bench peek --coins 10 --mint 1000000 --data raida-data --cpus 1
  A mix, encrypted, some coins far more often than others:
    raida bench --mix detect=90,pown=10 --encryption 4 --choose zipf --data raida-data
  Two results beside each other:
    raida bench --plot before/result.json,after/result.json --out both")]
pub struct BenchCommand {
    /// What to ask: echo, detect, detect-sum, pown, pown-sum, pown-derive, ticket, find, validate,
    /// encryption-ticket, put, peek, take, offer, list, buy or fix
    #[arg(value_parser = kind)]
    kind: Option<Load>,
    /// Kinds with their shares instead, as detect=90,pown=10, or a file with one a line; each kind
    /// has coins of its own
    #[arg(long, value_name = "KIND=SHARE,...|FILE", value_parser = mix)]
    mix: Option<Load>,
    #[command(flatten)]
    node: NodeArgs,
    /// For fix: the folder of a network on this machine; the node of --raida is measured
    #[arg(long, value_name = "DIR", conflicts_with = "host")]
    network: Option<PathBuf>,
    /// For fix, with 12 or more of the others down: the right answer is that nothing was repaired
    #[arg(long)]
    expect_refusal: bool,
    /// Encryption type of every request: 0 none; 1 AES-128; 2 AES-128 by locker; 4 AES-256 with
    /// HMAC
    /// [default: 0; with encryption-ticket 4]
    #[arg(long, value_name = "TYPE", value_parser = encryption_type)]
    encryption: Option<u8>,
    /// Over TCP: a connection for each request: connect, ask, read the answer, close
    #[arg(long, conflicts_with = "udp")]
    connect_each: bool,
    /// Requests under way over UDP, at most [default: 64; open loop: 1024 a thread]
    #[arg(long, value_name = "N", value_parser = up_to_million, requires = "udp")]
    in_flight: Option<usize>,
    /// Connections over TCP
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = up_to_million, conflicts_with = "udp")]
    connections: usize,
    /// Requests under way on each connection, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = up_to_million, conflicts_with_all = ["udp", "connect_each"])]
    depth: usize,
    /// Coins a request
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = coins_a_request)]
    coins: usize,
    /// Which coins: all alike; some far more often (zipf); of one page; of one shard; each
    /// request's from one shard after the other (across). With several threads each has its part of
    /// the coins
    #[arg(long, value_name = "HOW", default_value = "uniform")]
    choose: Choose,
    /// The k-th most asked about coin comes in proportion to 1 / k^S
    #[arg(long, value_name = "S", default_value_t = 0.99, value_parser = exponent)]
    zipf_exponent: f64,
    /// Shards of the node, for --choose shard and across
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    shards: Option<u16>,
    /// CSV of the coins to ask about
    #[arg(long, value_name = "FILE.csv")]
    coins_file: Option<PathBuf>,
    /// Without a file: coins to mint, evenly of all denominations [default: 15360; for fix, no more
    /// than that: those of twice as many requests as are under way]
    #[arg(long, value_name = "N", value_parser = coins_to_mint)]
    mint: Option<usize>,
    #[command(flatten)]
    admin: AdminKeyArgs,
    /// Open loop: requests due a second, all threads together
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// How requests of an open loop follow each other
    #[arg(long, value_name = "HOW", default_value = "poisson")]
    spacing: SpacingName,
    /// A right answer that comes later than this after its request was due is late
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    late_ms: u64,
    /// Open loop at rising rates until the node is saturated, each for --seconds
    #[arg(long, value_name = "FROM:TO:STEPS|auto", value_parser = sweep, conflicts_with_all = ["rate", "baseline"])]
    sweep: Option<Sweep>,
    /// Seconds that are counted, of each contender; of each step of a sweep
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Seconds before that
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    warm_up_s: u32,
    /// Parts of the counted time: they show the spread, and take turns with the baselines'
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slices: u32,
    /// Threads of the generator [default: 1, or as many as --cpus]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    threads: usize,
    /// CPUs of the generator's threads, the first thread on the first
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// How the generator speaks to the kernel: by calls, which cost it less over UDP, or by
    /// io_uring (Linux 6.1), which costs it less over TCP with many requests on a connection
    #[arg(long, value_name = "HOW", default_value = "syscalls")]
    io: IoName,
    /// What to measure beside the node in the same run
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    baseline: Vec<Baseline>,
    /// CPUs of the node, for the baselines to run on: of the bare echo, a thread on each
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    node_cpus: Vec<usize>,
    /// The node's process, to say what an answer costs in CPU time, which other programs on the
    /// machine disturb less than the rate
    #[arg(long, value_name = "PID")]
    node_pid: Option<u32>,
    /// Folder on the disk for --baseline disk and redis, if not the data folder's
    #[arg(long, value_name = "DIR")]
    disk_folder: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Folder for the run's results: result.json; for each contender its percentiles (.hgrm, for
    /// HdrHistogram's plotter) and its latencies over time (.hlog); pictures (.svg)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Do not show the line on the terminal that follows the run
    #[arg(long)]
    no_live: bool,
    /// Put no load on anything: draw results of earlier runs beside each other into the folder of
    /// --out. A result that lies in its own folder brings its logs along
    #[arg(
        long,
        value_name = "RESULT.json,...",
        value_delimiter = ',',
        requires = "out"
    )]
    plot: Vec<PathBuf>,
}

/// What is asked.
#[derive(Clone, Debug)]
enum Load {
    /// Kinds that need no more than one node.
    Mix(Mix),
    /// Fixes, which take a network.
    Fix,
}

/// What came of a run.
struct Ran {
    /// What was asked, and how.
    words: String,
    start: SystemTime,
    outcome: Outcome,
    settled: Option<Settled>,
    /// What could not be restored, or ended early: reported after everything else.
    fault: Result<(), CliError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choose {
    Uniform,
    Zipf,
    Page,
    Shard,
    Across,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SpacingName {
    Poisson,
    Even,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IoName {
    Syscalls,
    Uring,
}

impl IoName {
    fn name(self) -> &'static str {
        match self {
            IoName::Syscalls => "syscalls",
            IoName::Uring => "uring",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Baseline {
    Echo,
    EchoUring,
    Redis,
    Disk,
}

impl BenchCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// There are no coins, the node cannot be reached, or the coins cannot be left as they were.
    pub fn run(mut self) -> Result<Answer, CliError> {
        if !self.plot.is_empty() {
            return self.draw();
        }
        if self.network.is_none() {
            self.node.name_by(&self.admin)?;
        }
        let stop = Stop::default();
        let ran = match self.load() {
            Load::Mix(mix) => self.run_mix(mix, &stop)?,
            Load::Fix => self.run_fixes(&stop)?,
        };
        self.tell(ran)
    }

    /// Asks one node.
    fn run_mix(&self, mix: &Mix, stop: &Stop) -> Result<Ran, CliError> {
        if self.network.is_some() || self.expect_refusal {
            return refused("--network and --expect-refusal are for fix alone: leave them away");
        }
        if mix.asks_for(EncryptionTicketKind::NAME) && self.coins != 1 {
            return refused("an encryption ticket is for one coin: leave --coins away");
        }
        if mix.asks_for(PownSumKind::NAME) && self.coins != 1 {
            return refused(
                "a pown by sum is of one coin, since of several it proves nothing to their next owner: leave --coins away, or ask for pown-derive",
            );
        }
        let needs_coins = mix.is_about_coins() || self.encryption() != 0;
        match (needs_coins, &self.coins_file) {
            (false, _) => self.ask_mix(mix, None, stop),
            (true, Some(file)) => {
                let back = "gives the coins their own numbers back";
                let spare = coins::spare_file(file);
                let left = match mix.changing_share() > 0.0 {
                    true => format!(
                        "coins of {} may have the numbers of {}",
                        file.shown(),
                        spare.shown()
                    ),
                    false => "no coin was changed".to_owned(),
                };
                self.listen(stop, back, left)?;
                let ran = self.ask_mix(mix, None, stop);
                ended(ran, Ok(()), stop)
            }
            (true, None) => {
                let host = self
                    .address(&self.node.host()?)?
                    .to_string()
                    .replace(':', "-");
                let file = PathBuf::from(format!("raida-bench-coins-{host}.csv"));
                let how = self.node_flags();
                let there = |coins: &[Coin]| self.in_circulation(coins);
                let mut journal = self.journal(&file, &how, there, stop)?;
                let ran = self.ask_mix(mix, Some(&mut journal), stop);
                ended(ran, self.take_out(journal, &how), stop)
            }
        }
    }

    fn ask_mix(
        &self,
        mix: &Mix,
        journal: Option<&mut MintJournal>,
        stop: &Stop,
    ) -> Result<Ran, CliError> {
        let mut plan = self.plan(self.address(&self.node.host()?)?, stop)?;
        let (threads, slots) = (plan.cpus.len(), plan.slots_per_thread());
        let choice = self.choice()?;
        let needs_coins = mix.is_about_coins() || self.encryption() != 0;
        let mut coins = match needs_coins {
            true => Some(self.coins(mix, choice, &plan, journal)?),
            false => None,
        };
        if let Some(coins) = &mut coins {
            let keys = std::mem::take(&mut coins.keys);
            plan.keyring = match self.encryption() {
                1 => Keyring::aes(keys),
                2 => Keyring::aes_locker(keys),
                4 => Keyring::aes_hmac(keys),
                _ => Keyring::PLAIN,
            };
        }
        if self.has(Baseline::Redis) {
            plan.redis = Some(RedisPlan {
                folder: self.disk_folder()?,
                coins: match &coins {
                    Some(coins) => coins.purse.coins().collect(),
                    None => coins::any(self.mint.unwrap_or(MINT_AT_ONCE)),
                },
                choice,
                per_request: self.coins,
                writes: mix.changing_share(),
            });
        }
        let dealt = match &mut coins {
            Some(coins) => coins.purse.deal(threads),
            None => vec![vec![]; threads],
        };
        let kinds = dealt.into_iter().map(|coins| -> Box<dyn Kind> {
            mix.kind(Setup {
                coins,
                coins_per_request: self.coins,
                slots,
                choice,
                side_door: plan.side_door(),
            })
        });
        let kinds = kinds.collect();
        let (start, outcome) = self.carry_out(&mut plan, kinds);
        let mut outcome = outcome?;
        let settled = match coins {
            Some(mut coins) => {
                coins.purse.collect(std::mem::take(&mut outcome.coins));
                Some(coins.settle()?)
            }
            None => None,
        };
        let words = match mix.is_about_coins() {
            true => format!("{} of {}", mix.words(), self.coins_in_words()),
            false => mix.words(),
        };
        Ok(Ran {
            words: self.in_words(&words, &plan),
            start,
            fault: outcome
                .fault
                .take()
                .map_or(Ok(()), |fault| Err(fault.into())),
            outcome,
            settled,
        })
    }

    /// Ends a run in order at the first signal, at once at the second; `left` is so then.
    fn listen(&self, stop: &Stop, back: &str, left: String) -> Result<(), CliError> {
        let first = format!(
            "stops: waits for what is under way, and {back}; a second signal ends it at once"
        );
        interrupt::listen(stop.clone(), first, format!("ended at once: {left}"))?;
        Ok(())
    }

    /// Those of these coins that are in circulation on the node.
    fn in_circulation(&self, coins: &[Coin]) -> Result<Vec<Coin>, CliError> {
        let (mut client, key) = (self.node.connect_tcp()?, self.admin.read()?);
        Ok(client.in_circulation(&key, coins.iter().copied())?)
    }

    /// Begins the list of coins that are made. Says which lists killed runs left, unless none of
    /// their coins is in circulation.
    fn journal(
        &self,
        file: &Path,
        how: &str,
        in_circulation: impl Fn(&[Coin]) -> Result<Vec<Coin>, CliError>,
        stop: &Stop,
    ) -> Result<MintJournal, CliError> {
        for (left, lock) in CoinListWriter::left_over(file)? {
            if lock.is_none() {
                continue; // of a bench that runs
            }
            let made = CoinListWriter::read_left_over(&left)?;
            let made: Vec<Coin> = made.into_iter().map(|record| record.coin).collect();
            let there = in_circulation(&made)?;
            if there.is_empty() {
                std::fs::remove_file(&left)?;
                continue;
            }
            warn(&format!(
                "{} coins that a bench made which was killed are in circulation; where nobody has made coins of these serial numbers since, `raida delete {} {how}` takes them out",
                there.len(),
                left.shown()
            ));
        }
        let journal = MintJournal::create(file, stop.clone())?;
        let left = format!(
            "coins that it made may be in circulation, `raida delete {} {how}` takes them out",
            journal.path().shown()
        );
        let back = "takes the coins that it made out of circulation";
        self.listen(stop, back, left)?;
        Ok(journal)
    }

    /// The flags by which `raida delete` takes out of circulation what was made on this node.
    fn node_flags(&self) -> String {
        format!(
            "--whatever-number{}{}",
            self.node.flags(),
            self.admin.flags()
        )
    }

    /// Takes coins out of circulation that were made on the node.
    fn take_out(&self, journal: MintJournal, how: &str) -> Result<(), CliError> {
        let free = || -> Result<(), CliError> {
            if journal.coins().is_empty() {
                return Ok(());
            }
            let mut session = [0; SessionId::SIZE];
            getrandom::fill(&mut session)?;
            let session = SessionId::new(u32::from_be_bytes(session));
            let mut client = self.node.connect_tcp()?;
            Ok(client.free_coins(session, &self.admin.read()?, journal.coins())?)
        };
        match free() {
            Ok(()) => Ok(journal.discard()?),
            Err(error) => Err(left_there(&error, &journal, how)),
        }
    }

    /// Has one node of a network repair coins.
    fn run_fixes(&self, stop: &Stop) -> Result<Ran, CliError> {
        let Some(network) = &self.network else {
            return refused(
                "a fix takes the other servers' tickets: name the folder of a network on this machine with --network (`raida network` starts one)",
            );
        };
        let leave_away = [
            (self.encryption() != 0, "--encryption"),
            (self.coins_file.is_some(), "--coins-file"),
            (self.choose != Choose::Uniform, "--choose"),
            (self.has(Baseline::Redis), "--baseline redis"),
            (self.mint > Some(MINT_AT_ONCE), "so many coins (--mint)"),
        ];
        if let Some((_, what)) = leave_away.iter().find(|(is_given, _)| *is_given) {
            return refused(&format!("fix goes without {what}: leave it away"));
        }
        let hosts = Hosts::read(&network.join("hosts"))?;
        let mut plan = self.plan(self.address(&hosts.0[self.node.raida()])?, stop)?;
        // An earlier time-out would leave the outcome of a fix unknown.
        plan.timeout = plan.timeout.max(FIX_TIMEOUT);
        let (threads, slots) = (plan.cpus.len(), plan.slots_per_thread());
        let groups = match self.mint {
            Some(coins) => coins / self.coins,
            None => (2 * slots * threads).min(MINT_AT_ONCE / self.coins),
        };
        if groups < slots * threads {
            return refused(&format!(
                "{} coins are enough for {groups} requests, and {} may be under way: take fewer with --in-flight or --connections, fewer --coins, or more coins with --mint",
                groups * self.coins,
                slots * threads
            ));
        }
        let fixes = FixPlan {
            network,
            raidas: Raidas::new(
                hosts,
                self.node.coin_id,
                Duration::from_millis(self.node.timeout_ms),
            ),
            raida: self.node.raida(),
            groups,
            coins_per_request: self.coins,
            expects_refusal: self.expect_refusal,
        };
        let is_up = fixes.probe()?;
        let how = format!("--network {} --whatever-number", network.shown());
        let there = |coins: &[Coin]| fixes.in_circulation(&is_up, coins);
        let file = network.join("bench-coins.csv");
        let mut journal = self.journal(&file, &how, there, stop)?;
        let ran = self.ask_fixes(&fixes, &is_up, plan, &mut journal);
        let freed = fixes.free(&is_up, journal.coins());
        let left = match freed {
            Ok(()) => journal.discard().map_err(CliError::from),
            Err(error) => Err(left_there(&error, &journal, &how)),
        };
        ended(ran, left, stop)
    }

    fn ask_fixes(
        &self,
        fixes: &FixPlan<'_>,
        is_up: &PerRaida<bool>,
        mut plan: Plan,
        journal: &mut MintJournal,
    ) -> Result<Ran, CliError> {
        let (threads, slots) = (plan.cpus.len(), plan.slots_per_thread());
        let mut fixes = fixes.prepare(is_up, journal)?;
        let words = format!(
            "{} of {} {}",
            FixKind::NAME,
            self.coins_in_words(),
            fixes.words()
        );
        let kinds = fixes.kinds(threads, slots);
        let (start, outcome) = self.carry_out(&mut plan, kinds);
        let mut outcome = outcome?;
        let ended = fixes.end(std::mem::take(&mut outcome.coins));
        Ok(Ran {
            words: self.in_words(&words, &plan),
            start,
            outcome,
            settled: ended.settled,
            fault: ended.fault,
        })
    }

    fn carry_out(
        &self,
        plan: &mut Plan,
        kinds: Vec<Box<dyn Kind>>,
    ) -> (SystemTime, Result<Outcome, CliError>) {
        let live = self.live(plan);
        let start = SystemTime::now();
        let outcome = plan.run(kinds);
        drop(live);
        (start, outcome.map_err(CliError::from))
    }

    /// Prints what came of a run, and leaves it in files.
    fn tell(&self, ran: Ran) -> Result<Answer, CliError> {
        let Ran {
            words,
            start,
            outcome,
            settled,
            fault,
        } = ran;
        let result = result::report(self, &words, &outcome, settled);
        if let Some(folder) = &self.out {
            let traces: Vec<Trace> = outcome.measured.iter().map(Trace::of).collect();
            folder::write(folder, &result, &traces, &result::steps(&outcome), start)?;
        }
        match self.json {
            true => print_json(&result)?,
            false => print(&table::report(&words, &outcome, settled))?,
        }
        fault?;
        let node = outcome.measured[0].whole();
        // A wrong answer of something it is compared with makes the comparison worthless as well.
        let is_wrong = outcome.measured.iter().any(|one| one.whole().wrong > 0);
        let is_settled = settled.is_none_or(|s| s.wrong == 0 && s.astray == 0);
        // What a node refuses is a limit of it, and no rate that it can do.
        let is_refused = node.refused > 0;
        match !is_wrong && !is_refused && node.right > 0 && is_settled {
            true => Ok(Answer::Yes),
            false => Ok(Answer::No),
        }
    }

    /// Draws earlier results.
    fn draw(&self) -> Result<Answer, CliError> {
        let results = self.plot.iter().map(|file| folder::read(file));
        let results = results.collect::<Result<Vec<_>, _>>()?;
        let into = self.out.as_deref().expect("the parser asks for it");
        let pictures = folder::compare(into, &results)?;
        match self.json {
            true => print_json(&pictures)?,
            false => {
                let lines = pictures
                    .iter()
                    .map(|picture| format!("{}\n", picture.shown()));
                print(&lines.collect::<String>())?;
            }
        }
        Ok(Answer::Yes)
    }

    /// Shows the run on the terminal.
    fn live(&self, plan: &mut Plan) -> Option<Live> {
        if self.no_live || !std::io::stderr().is_terminal() {
            return None;
        }
        let progress = Arc::new(Progress::new(plan.cpus.len()));
        plan.progress = Some(progress.clone());
        Some(Live::follow(progress))
    }

    fn load(&self) -> &Load {
        let load = self.kind.as_ref().or(self.mix.as_ref());
        load.expect("the parser asks for one of them")
    }

    /// The encryption type of every request. Nodes give encryption tickets only under encryption.
    fn encryption(&self) -> u8 {
        let default = match self.load() {
            Load::Mix(mix) if mix.asks_for(EncryptionTicketKind::NAME) => 4,
            _ => 0,
        };
        self.encryption.unwrap_or(default)
    }

    fn has(&self, baseline: Baseline) -> bool {
        self.baseline.contains(&baseline)
    }

    fn plan(&self, node: SocketAddr, stop: &Stop) -> Result<Plan, CliError> {
        let threads = self.threads.max(self.cpus.len());
        let on =
            |cpus: &[usize], thread: usize| (!cpus.is_empty()).then(|| cpus[thread % cpus.len()]);
        check_cpus("--cpus", &self.cpus)?;
        check_cpus("--node-cpus", &self.node_cpus)?;
        let is_beside =
            [Baseline::Echo, Baseline::EchoUring, Baseline::Redis].map(|one| self.has(one));
        if is_beside.contains(&true) && !node.ip().is_loopback() {
            return refused(
                "a server on this machine says nothing about a node on another; leave --baseline echo, echo-uring and redis away",
            );
        }
        if self.has(Baseline::Redis) && self.node.udp {
            return refused("Redis does not speak UDP: leave --udp or --baseline redis away");
        }
        Ok(Plan {
            node,
            addressee: Addressee {
                raida: self.node.raida(),
                coin_id: self.node.coin_id,
            },
            keyring: Keyring::PLAIN,
            stream: self.stream(threads),
            io: match self.io {
                IoName::Syscalls => Io::Syscalls,
                IoName::Uring => Io::Uring,
            },
            cpus: (0..threads).map(|i| on(&self.cpus, i)).collect(),
            node_pid: self.node_pid,
            node_cpus: self.node_cpus.clone(),
            echo: self.has(Baseline::Echo),
            echo_uring: self.has(Baseline::EchoUring),
            redis: None,
            disk: match self.has(Baseline::Disk) {
                true => Some(self.disk_folder()?),
                false => None,
            },
            pace: match self.rate {
                Some(rate) => Pace::Open {
                    rate,
                    spacing: self.spacing(),
                },
                None => Pace::Closed,
            },
            sweep: self.sweep,
            sweep_spacing: self.spacing(),
            late_after: Duration::from_millis(self.late_ms),
            warm_up: Duration::from_secs(self.warm_up_s.into()),
            duration: Duration::from_secs(self.seconds.into()),
            slices: self.slices,
            timeout: Duration::from_millis(self.node.timeout_ms),
            progress: None,
            stop: stop.clone(),
        })
    }

    fn stream(&self, threads: usize) -> Stream {
        let is_open = self.rate.is_some() || self.sweep.is_some();
        let in_flight = match is_open {
            // No more than there are coins for where each is in one request at a time.
            true => {
                let for_coins = self.mint.unwrap_or(MINT_AT_ONCE) / (4 * self.coins * threads);
                for_coins.clamp(1, IN_FLIGHT_OPEN_A_THREAD) * threads
            }
            false => IN_FLIGHT_CLOSED,
        };
        match (self.node.udp, self.connect_each) {
            (true, _) => Stream::Udp {
                in_flight: self.in_flight.unwrap_or(in_flight),
            },
            (false, true) => Stream::TcpEach {
                connections: self.connections,
            },
            (false, false) => Stream::Tcp {
                connections: self.connections,
                depth: self.depth,
            },
        }
    }

    fn choice(&self) -> Result<Choice, CliError> {
        let shards = || {
            self.shards.ok_or_else(|| {
                let what = "how many shards has the node? say it with --shards";
                CliError::from(LoadError::Plan(what.to_owned()))
            })
        };
        Ok(match self.choose {
            Choose::Uniform => Choice::Uniform,
            Choose::Zipf => Choice::Zipf {
                exponent: self.zipf_exponent,
            },
            Choose::Page => Choice::Page,
            Choose::Shard => Choice::Shard { shards: shards()? },
            Choose::Across => Choice::Across { shards: shards()? },
        })
    }

    fn spacing(&self) -> Spacing {
        match self.spacing {
            SpacingName::Poisson => Spacing::Poisson,
            SpacingName::Even => Spacing::Even,
        }
    }

    /// The folder that baselines write to.
    fn disk_folder(&self) -> Result<PathBuf, CliError> {
        let folder = match &self.disk_folder {
            Some(folder) => Some(folder.clone()),
            None => self.admin.data_folder()?,
        };
        folder.ok_or_else(|| {
            let what = "which disk is to be compared with? name the data folder with --data, or any with --disk-folder";
            LoadError::Plan(what.to_owned()).into()
        })
    }

    fn address(&self, host: &HostPort) -> Result<SocketAddr, CliError> {
        let unreachable = |cause| ClientError::Unreachable(host.to_string(), cause);
        let mut addresses = (host.host(), host.port())
            .to_socket_addrs()
            .map_err(unreachable)?;
        let none = || unreachable(std::io::Error::other("the name has no address"));
        Ok(addresses.next().ok_or_else(none)?)
    }

    /// Coins to ask about, and for keys.
    fn coins(
        &self,
        load: &Mix,
        choice: Choice,
        plan: &Plan,
        journal: Option<&mut MintJournal>,
    ) -> Result<Coins, CliError> {
        let mut coins = match &self.coins_file {
            Some(file) => {
                let mut coins = Coins::from_file(file, &self.node)?;
                self.check_file(file, load, &coins.purse)?;
                if load.changing_share() > 0.0 {
                    coins.write_spares(file)?;
                }
                coins
            }
            None => {
                let count = self.mint.unwrap_or(MINT_AT_ONCE);
                let journal = journal.expect("coins are minted with a journal");
                Coins::mint(&self.node, &self.admin.read()?, count, journal)?
            }
        };
        coins.purse.narrow(choice);
        if self.encryption() != 0 {
            let lockers = coins.purse.locker_sizes();
            let found = lockers.map_or(coins.purse.len(), |sizes| sizes.len());
            let keys = KEYS.min(found / 8).max(1);
            let found = match self.encryption() {
                2 => (coins.purse).keys_in_lockers(keys, &plan.side_door()),
                _ => Ok(coins.purse.keys(keys)),
            };
            coins.keys = match found {
                Ok(found) => found,
                Err(error) => {
                    coins.settle()?;
                    return Err(LoadError::from(error).into());
                }
            };
        }
        let threads = plan.cpus.len();
        let slots = plan.slots_per_thread() * threads;
        let needed = load.coins_needed(slots, threads, self.coins);
        let found = coins.purse.len();
        let has_keys = self.encryption() == 0 || !coins.keys.is_empty();
        let lockers = coins.purse.locker_sizes().filter(|_| load.takes_lockers());
        let has_lockers = lockers.is_none_or(|sizes| sizes.len() >= load.lockers_needed(threads));
        if found >= needed && has_keys && has_lockers {
            return Ok(coins);
        }
        coins.settle()?;
        let what = match has_lockers {
            true => format!(
                "{found} coins can be asked about where {needed} are needed for so many requests under way, keys aside; take fewer with --in-flight or --connections, fewer --coins, or more coins with --mint or --coins-file"
            ),
            false => format!(
                "{} lockers are needed, keys aside, one for each kind about coins on each thread: put more into the file of --coins-file, or take fewer --threads",
                load.lockers_needed(threads)
            ),
        };
        Err(LoadError::Plan(what).into())
    }

    /// Whether the coins of a file are fit for a load: a load must not lose them, and it knows a
    /// locker's content only if all of the locker's coins are in the file.
    fn check_file(&self, file: &Path, load: &Mix, purse: &Purse) -> Result<(), CliError> {
        let lockers = purse.locker_sizes();
        let in_lockers = lockers.is_some();
        if let Some(kind) = load.drawing(in_lockers) {
            let unless = match load.drawing(true) {
                None => ", or name one whose coins all lie in lockers",
                Some(_) => "",
            };
            return refused(&format!(
                "{kind} gives coins numbers that are drawn on the way, and whoever loses this program loses them: leave --coins-file away{unless}"
            ));
        }
        if self.encryption() == 2 && !in_lockers {
            return refused(
                "encryption type 2 takes lockers, under keys that are drawn on the way: leave --coins-file away, or name one whose coins all lie in lockers",
            );
        }
        if let Some(kind) = load.summing().filter(|_| self.coins > 1)
            && purse.share_a_number()
        {
            return refused(&format!(
                "{kind} proves coins by the sum of their numbers, and a node takes none for a proof where coins that share a number, as those of a locker do, are in it in pairs: ask about one coin at a time (--coins 1), or name a file whose coins have a number each",
            ));
        }
        let Some(lockers) = lockers.filter(|_| load.takes_lockers()) else {
            return Ok(());
        };
        if !matches!(self.choose, Choose::Uniform | Choose::Zipf) {
            return refused(
                "lockers of a file are looked into as they lie: leave --choose away, or take zipf",
            );
        }
        let (least, most) = (lockers.iter().min(), lockers.iter().max());
        match (least, most) {
            (Some(&least), Some(&most)) if least != self.coins || most != self.coins => {
                refused(&format!(
                    "the lockers of {} have {least} to {most} coins, and --coins asks for {}: let all have the same number, and say it",
                    file.shown(),
                    self.coins
                ))
            }
            _ => Ok(()),
        }
    }

    fn coins_in_words(&self) -> String {
        match self.coins {
            1 => "one coin".to_owned(),
            coins => format!("{coins} coins"),
        }
    }

    /// What is asked, and how.
    fn in_words(&self, kinds: &str, plan: &Plan) -> String {
        let chosen = match self.choose {
            Choose::Uniform => String::new(),
            Choose::Zipf => format!(", zipf {}", self.zipf_exponent),
            Choose::Page => ", one page".to_owned(),
            Choose::Shard => ", one shard".to_owned(),
            Choose::Across => ", across shards".to_owned(),
        };
        let encrypted = match self.encryption() {
            0 => String::new(),
            kind => format!(", encryption type {kind}"),
        };
        let carried = match plan.stream {
            Stream::Udp { in_flight } => format!("UDP, {in_flight} in flight"),
            Stream::Tcp { connections, depth } => {
                format!("TCP, {connections} connections, {depth} deep")
            }
            Stream::TcpEach { connections } => {
                format!("TCP, a connection a request, {connections} at a time")
            }
        };
        let paced = match (plan.pace, plan.sweep) {
            (_, Some(_)) => format!("open loop ({})", name_of(plan.sweep_spacing)),
            (Pace::Open { rate, spacing }, None) => {
                format!("open loop at {rate} a second ({})", name_of(spacing))
            }
            (Pace::Closed, None) => "closed loop".to_owned(),
        };
        let (seconds, slices) = (self.seconds, self.slices);
        let time = match plan.sweep {
            Some(_) => format!("{seconds} s a rate"),
            None => format!("{seconds} s in {slices} slices"),
        };
        format!("{kinds}{chosen}{encrypted} over {carried}, {paced}, {time}")
    }
}

/// What came of a run, with what became of the coins that were made for it.
fn ended(
    ran: Result<Ran, CliError>,
    left: Result<(), CliError>,
    stop: &Stop,
) -> Result<Ran, CliError> {
    if stop.is_asked() {
        let what = match (ran.and_then(|ran| ran.fault), left) {
            (Err(error), _) if !matches!(error, CliError::Purse(PurseError::Stopped)) => {
                format!(": {error}")
            }
            (_, Err(error)) => format!(": {error}"),
            (_, Ok(())) => ", and the coins are as they were before".to_owned(),
        };
        return Err(CliError::Unfinished(format!("interrupted{what}")));
    }
    match (ran, left) {
        (Ok(ran), left) => Ok(Ran {
            fault: ran.fault.and(left),
            ..ran
        }),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => Err(CliError::Unfinished(format!("{error}; {left}"))),
    }
}

fn left_there(error: &CliError, journal: &MintJournal, how: &str) -> CliError {
    CliError::Unfinished(format!(
        "{error}; the coins that were made for this may be in circulation, {} of them: `raida delete {} {how}` takes them out",
        journal.coins().len(),
        journal.path().shown()
    ))
}

fn name_of(spacing: Spacing) -> &'static str {
    match spacing {
        Spacing::Poisson => "poisson",
        Spacing::Even => "even",
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

/// Whether this program may run there.
fn check_cpus(flag: &str, cpus: &[usize]) -> Result<(), CliError> {
    let allowed = rustix::thread::sched_getaffinity(None)
        .map_err(|error| CliError::System("list of CPUs", error.into()))?;
    let is_allowed = |cpu: usize| cpu < CpuSet::MAX_CPU && allowed.is_set(cpu);
    let Some(cpu) = cpus.iter().find(|&&cpu| !is_allowed(cpu)) else {
        return Ok(());
    };
    let permitted: Vec<String> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| is_allowed(cpu))
        .map(|cpu| cpu.to_string())
        .collect();
    refused(&format!(
        "{flag} names CPU {cpu}, and this program may run on {}: name some of those",
        permitted.join(" ")
    ))
}

fn refused<T>(what: &str) -> Result<T, CliError> {
    Err(LoadError::Plan(what.to_owned()).into())
}

fn kind(text: &str) -> Result<Load, String> {
    if text == FixKind::NAME {
        return Ok(Load::Fix);
    }
    Mix::one(text).map(Load::Mix).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|entry| entry.name).collect();
        format!("permitted are {}, {}", names.join(", "), FixKind::NAME)
    })
}

/// Shares as they are written on the command line, or in a file: only shares have a `=`.
fn mix(text: &str) -> Result<Load, String> {
    if text.contains('=') {
        return Mix::parse(text).map(Load::Mix);
    }
    let read = plain_file::read_text(Path::new(text), plain_file::TEXT_BYTES_MAX);
    let read = read.map_err(|error| format!("no KIND=SHARE, and no file either: {error}"))?;
    Mix::parse(&read).map(Load::Mix)
}

fn sweep(text: &str) -> Result<Sweep, String> {
    if text == "auto" {
        return Ok(Sweep::Auto);
    }
    let wrong = || "permitted are auto and FROM:TO:STEPS, as 10000:100000:10".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let [from, to, steps] = parts[..] else {
        return Err(wrong());
    };
    let steps = steps.parse().map_err(|_| wrong())?;
    match (rate(from)?, rate(to)?) {
        (from, to) if from <= to && (1..=1_000).contains(&steps) => {
            Ok(Sweep::Range { from, to, steps })
        }
        _ => Err(wrong()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=1e9).contains(&rate) => Ok(rate),
        _ => Err("permitted is a number of requests a second from 0.01 to 1e9".to_owned()),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => Err("permitted is a number from 0 to 10".to_owned()),
    }
}

fn encryption_type(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(kind @ (0 | 1 | 2 | 4)) => Ok(kind),
        _ => Err("permitted are 0, 1, 2 and 4".to_owned()),
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
    within(text, MINT_MAX)
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
