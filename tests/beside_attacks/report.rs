//! What came of the attacks, for people: tables, and what does not hold.

use std::fmt::Write as _;

use crate::attack::Attack;
use crate::honest::Manner;
use crate::machine::load_average;
use crate::measure::{Extent, Measured, Memory, Pair, Side};
use crate::site::Cores;

/// Least rate of the client's answers beside an attack, as a part of its rate beside as many honest
/// requests.
const RATE_MIN: f64 = 0.5;
/// Most that its slowest hundredth takes, as a multiple of the same beside honest requests.
const P99_MAX: f64 = 3.0;
/// Maximum number of bytes that a node takes beside its pages.
const MEMORY_MAX: u64 = 256_000_000;
/// Most memory that it holds 10 s after the attack, as a multiple of what it held at rest.
const BACK_MAX: f64 = 1.2;
/// A crowd or a client that takes more of its CPU may be what is measured.
const CLIENTS_CPU_MAX: f64 = 0.95;
/// Least part of the honest crowd's requests that must be answered; below it the comparison has no
/// crowd.
const ANSWERED_MIN: f64 = 0.9;

/// The page on all attacks that were measured.
pub struct Page {
    served: String,
    crowds: String,
    memory: String,
    what: String,
    /// What does not hold.
    pub broken: Vec<String>,
    notes: Vec<String>,
}

impl Page {
    pub fn new() -> Page {
        Page {
            served: "| attack | the client asks by | crowd's requests/s: honest, attack | client's \
                     answers/s beside honest | beside the attack | ratio, at least 0.5 | p99 beside \
                     honest, µs | beside the attack, µs | times, at most 3 | unanswered beside the \
                     attack |\n|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned(),
            crowds: "| attack | sent | answers by status | bytes back by bytes sent | connections \
                     that the node closed | TCP's buffers, MB | node's CPU: honest, attack | clients' CPU: honest, \
                     attack | of it the crowd | what the honest one did meanwhile: failed, asked \
                     |\n|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned(),
            memory: "| attack | shards | at rest, MB | most beside pages, MB, at most 256 | pages, MB \
                     | within 10 s by rest, at most 1.2 |\n|---|---|---|---|---|---|\n"
                .to_owned(),
            what: String::new(),
            broken: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes in an attack. Returns the text to show at once.
    pub fn add(&mut self, attack: &dyn Attack, measured: &Measured) -> String {
        let name = attack.name();
        writeln!(self.what, "- `{name}`: row {}", attack.what()).expect("a String takes all");
        let already_broken = self.broken.len();
        let mut shown = String::new();
        for (manner, pairs) in &measured.manners {
            shown.push_str(&self.add_served(name, *manner, pairs, measured));
        }
        self.add_crowds(name, attack, measured);
        for memory in &measured.memory {
            shown.push_str(&self.add_memory(name, memory));
        }
        let faults = measured
            .faults
            .iter()
            .map(|fault| format!("{name}: {fault}"));
        self.broken.extend(faults);
        if measured.restless > 0 {
            let restless = measured.restless;
            self.broken.push(format!(
                "{name}: the node still worked 5 s after the attackers had gone, {restless} times"
            ));
        }
        for broken in &self.broken[already_broken..] {
            writeln!(shown, "  DOES NOT HOLD: {broken}").expect("a String takes all");
        }
        shown
    }

    /// Takes in an attack that could not be measured.
    pub fn add_failed(&mut self, attack: &dyn Attack, why: &str) {
        let name = attack.name();
        self.broken.push(format!("{name}: not measured: {why}"));
    }

    fn add_served(
        &mut self,
        name: &str,
        manner: Manner,
        pairs: &[Pair],
        measured: &Measured,
    ) -> String {
        let each = |of: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(of).collect());
        let calm = each(&|pair| pair.beside_honest.per_second);
        let attacked = each(&|pair| pair.beside_attack.per_second);
        let ratio =
            each(&|pair| pair.beside_attack.per_second / pair.beside_honest.per_second.max(1.0));
        let p99_calm = each(&|pair| pair.beside_honest.p99 as f64);
        let p99 = each(&|pair| pair.beside_attack.p99 as f64);
        let times =
            each(&|pair| pair.beside_attack.p99 as f64 / (pair.beside_honest.p99 as f64).max(1.0));
        let unanswered: u64 = pairs.iter().map(|p| p.beside_attack.unanswered).sum();
        let crowd = per_second(&measured.beside_honest);
        let attackers = per_second(&measured.beside_attack);
        let asks = manner.name();
        let served = &mut self.served;
        writeln!(
            served,
            "| {name} | {asks} | {crowd:.0}, {attackers:.0} | {calm:.0} | {attacked:.0} | \
             {ratio:.2} | {p99_calm:.0} | {p99:.0} | {times:.2} | {unanswered} |"
        )
        .expect("a String takes all");
        if ratio < RATE_MIN {
            self.broken.push(format!(
                "{name}, {asks}: the client got {ratio:.2} of the answers that it gets beside as \
                 many honest requests, {RATE_MIN} is the least"
            ));
        }
        if times > P99_MAX {
            self.broken.push(format!(
                "{name}, {asks}: its p99 is {times:.2} times that beside as many honest requests, \
                 {P99_MAX} is the most"
            ));
        }
        format!(
            "  {asks}: {calm:.0} answers a second beside {crowd:.0} honest requests, {attacked:.0} \
             beside {attackers:.0} of the attack: {ratio:.2}; p99 {p99_calm:.0} and {p99:.0} µs: \
             {times:.2} times\n"
        )
    }

    fn add_crowds(&mut self, name: &str, attack: &dyn Attack, measured: &Measured) {
        let attacked = &measured.beside_attack;
        let calm = &measured.beside_honest;
        let mut load = attacked[0].load.clone();
        for side in &attacked[1..] {
            load.tally.add(&side.load.tally);
            load.seconds += side.load.seconds;
        }
        let mean = |sides: &[Side], of: &dyn Fn(&Side) -> f64| {
            sides.iter().map(of).sum::<f64>() / sides.len() as f64
        };
        let node = |sides| 100.0 * mean(sides, &|side| side.node_cpu);
        let clients = |sides| 100.0 * mean(sides, &|side| side.clients_cpu);
        let crowd = |sides| 100.0 * mean(sides, &|side| side.load.cpu);
        let asked: u32 = attacked.iter().map(|side| side.asked).sum();
        let failed: Vec<&String> = attacked.iter().flat_map(|side| &side.failed).collect();
        let tally = &load.tally;
        let back = tally.bytes_in as f64 / (tally.bytes_out as f64).max(1.0);
        writeln!(
            self.crowds,
            "| {name} | {} | {} | {back:.2} | {} | {:.0} | {:.0} %, {:.0} % | {:.0} %, {:.0} % | {:.0} %, \
             {:.0} % | {}, {asked} |",
            tally.sent,
            tally.statuses(),
            tally.closed,
            mean(attacked, &|side| side.socket_buffers as f64) / 1e6,
            node(calm),
            node(attacked),
            clients(calm),
            clients(attacked),
            crowd(calm),
            crowd(attacked),
            failed.len(),
        )
        .expect("a String takes all");
        if let Some(first) = failed.first() {
            let count = failed.len();
            self.broken.push(format!(
                "{name}: what the honest one did meanwhile failed {count} of {asked} times: {first}"
            ));
        }
        if attacked.iter().any(|side| !side.load.has_sent) {
            self.broken
                .push(format!("{name}: in a round the attackers sent nothing"));
        }
        let fault = attack.fault_in(&load);
        self.broken
            .extend(fault.map(|fault| format!("{name}: {fault}")));
        let answered: u64 = calm.iter().map(|side| side.load.tally.answered()).sum();
        let sent: u64 = calm.iter().map(|side| side.load.tally.sent).sum();
        if (answered as f64) < ANSWERED_MIN * sent as f64 {
            self.notes.push(format!(
                "{name}: of the honest crowd's {sent} requests {answered} were answered."
            ));
        }
        for (sides, beside) in [(calm, "the honest crowd"), (attacked, "the attack")] {
            if clients(sides) > 100.0 * CLIENTS_CPU_MAX {
                self.notes.push(format!(
                    "{name}: beside {beside} the clients had their CPU in use all the time: their \
                     own use of it is the limit, not the node."
                ));
            }
        }
    }

    fn add_memory(&mut self, name: &str, memory: &Memory) -> String {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let shards = match memory.cores {
            Cores::One => "1",
            Cores::All => "as it comes",
        };
        let back = memory.after.map(|after| after as f64 / memory.rest as f64);
        let over = memory.over_pages();
        writeln!(
            self.memory,
            "| {name} | {shards} | {:.0} | {:.0} | {:.0} | {} |",
            mb(memory.rest),
            mb(over),
            mb(memory.pages),
            back.map_or("".to_owned(), |times| format!("{times:.2}")),
        )
        .expect("a String takes all");
        if over > MEMORY_MAX {
            let over = mb(over);
            self.broken.push(format!(
                "{name}: a node (shards: {shards}) took {over:.0} MB beside its pages, 256 is the most"
            ));
        }
        if back.is_some_and(|times| times > BACK_MAX) {
            let times = back.unwrap_or_default();
            self.broken.push(format!(
                "{name}: 10 s after the attack the node holds {times:.2} times what it held at rest, \
                 {BACK_MAX} is the most"
            ));
        }
        format!(
            "  memory (shards: {shards}): {:.0} MB at rest, at most {:.0} beside {:.0} of pages{}\n",
            mb(memory.rest),
            mb(over),
            mb(memory.pages),
            back.map_or(String::new(), |times| format!(
                ", {times:.2} times rest within 10 s"
            )),
        )
    }

    /// The page as Markdown.
    pub fn text(&self, extent: Extent, load_before: &str) -> String {
        let list = |items: &[String], none: &str| match items {
            [] => format!("{none}\n"),
            items => items.iter().map(|item| format!("- {item}\n")).collect(),
        };
        let (rounds, closed, paced) = (
            extent.rounds,
            extent.closed.as_secs_f64(),
            extent.paced.as_secs_f64(),
        );
        format!(
            "# One honest client beside each attack\n\n\
             Written by `perf/attacks`. The node runs with one shard on one CPU, client and crowd on \
             another; the client runs first there. In each of {rounds} rounds the client detects its \
             coin beside the attack and then beside a crowd that sends as many honest requests: for \
             {closed} s as fast as it is answered, for {paced} s at a steady pace, where time counts \
             from when a request was due. Figures are medians of the rounds; ratios are taken within \
             a round. Load average of the machine: {load_before} before, {} after.\n\n\
             ## What does not hold\n\n{}\n## Client\n\n{}\n## Crowds\n\n{}\n## Memory\n\n\
             The node that was measured, and for attacks on memory one as it comes, with a shard for \
             each CPU.\n\n{}\n## Attacks\n\n{}\n## Notes\n\n{}",
            load_average(),
            list(&self.broken, "All of it holds."),
            self.served,
            self.crowds,
            self.memory,
            self.what,
            list(&self.notes, "None."),
        )
    }
}

fn per_second(sides: &[Side]) -> f64 {
    median(
        sides
            .iter()
            .map(|side| side.load.sent_per_second())
            .collect(),
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
