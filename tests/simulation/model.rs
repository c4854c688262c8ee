//! What the node was asked, what it answered, and whether what it holds can be explained by that.
//!
//! A coin's values form a path: from the value it had when the node started, each change leads to
//! the next. Every value but "free" is proposed once in a history, so a value says which change
//! made it. What was answered as done must be on the path, what was answered as refused must not,
//! and what was not answered may be.

use std::collections::{BTreeMap, BTreeSet};

use raida::coin::{An, Coin};

/// The AN of a coin in circulation; `None` for a free coin.
pub type Value = Option<u128>;

/// Attempts on one coin in one run, at most: clients make far fewer.
const ATTEMPTS_MAX: usize = 256;
/// Number of states after which a search for a path gives up; a history has far fewer.
const STATES_MAX: usize = 1_000_000;

pub struct Model {
    pub coins: Vec<CoinModel>,
    next_together: u64,
    /// Which coins somebody asked to free, and by which AN.
    freed: BTreeSet<(usize, u128)>,
    /// What was answered may be lost.
    is_loose: bool,
}

pub struct CoinModel {
    pub coin: Coin,
    base: Value,
    attempts: Vec<Attempt>,
    /// Values that a reader saw.
    seen: Vec<u128>,
    /// The value, as far as answers tell.
    pub current: Value,
    /// Asked and not answered.
    waiting: usize,
}

struct Attempt {
    what: What,
    state: State,
    is_linked: bool,
}

enum What {
    /// Records of one request, in its order: what the AN must be, and what it becomes.
    Exchange(Vec<(u128, Value)>),
    /// Part of a change of several coins together.
    Together { number: u64, from: Value, to: Value },
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    /// Not answered.
    Open,
    /// Answered: which records passed.
    Done(Vec<bool>),
    /// Answered: nothing changed.
    Refused,
}

/// What a request does to one coin, to be told how it ended.
#[derive(Clone, Copy)]
pub struct Ticket {
    pub coin: usize,
    attempt: usize,
}

/// What is known of a coin when a request starts.
#[derive(Clone, Copy)]
pub struct Glance {
    coin: usize,
    attempts: usize,
    is_quiet: bool,
    pub value: Value,
}

impl Model {
    pub fn new(coins: impl Iterator<Item = Coin>) -> Model {
        let coins = coins.map(|coin| CoinModel {
            coin,
            base: None,
            attempts: Vec::new(),
            seen: Vec::new(),
            current: None,
            waiting: 0,
        });
        Model {
            coins: coins.collect(),
            next_together: 0,
            freed: BTreeSet::new(),
            is_loose: false,
        }
    }

    pub fn glance(&self, coin: usize) -> Glance {
        let model = &self.coins[coin];
        Glance {
            coin,
            attempts: model.attempts.len(),
            is_quiet: model.waiting == 0 && model.is_linked(),
            value: model.current,
        }
    }

    /// Whether nobody has tried to change the coin since: then its value is known. `own` attempts
    /// are the asker's.
    pub fn is_settled(&self, glance: Glance, own: usize) -> bool {
        glance.is_quiet && self.coins[glance.coin].attempts.len() == glance.attempts + own
    }

    pub fn exchange(&mut self, coin: usize, records: Vec<(u128, Value)>) -> Ticket {
        self.attempt(coin, What::Exchange(records))
    }

    /// Whether nobody has asked to free the coin by this AN. The same once more is a repeat, which
    /// is answered as the first and changes nothing.
    pub fn frees_first(&mut self, coin: usize, an: u128) -> bool {
        self.freed.insert((coin, an))
    }

    /// A change of several coins together was decided: coin, old value, new value.
    pub fn together(&mut self, changes: &[(usize, Value, Value)]) -> Vec<Ticket> {
        let number = self.next_together;
        self.next_together += 1;
        let changes = changes.iter();
        changes
            .map(|&(coin, from, to)| self.attempt(coin, What::Together { number, from, to }))
            .collect()
    }

    fn attempt(&mut self, coin: usize, what: What) -> Ticket {
        let model = &mut self.coins[coin];
        model.waiting += 1;
        model.attempts.push(Attempt {
            what,
            state: State::Open,
            is_linked: false,
        });
        Ticket {
            coin,
            attempt: model.attempts.len() - 1,
        }
    }

    pub fn refused(&mut self, ticket: Ticket) {
        self.end(ticket, State::Refused);
    }

    /// An answer came: which of the coin's records passed.
    pub fn done(&mut self, ticket: Ticket, passed: Vec<bool>) {
        let state = match passed.contains(&true) {
            true => State::Done(passed),
            false => State::Refused,
        };
        self.end(ticket, state);
    }

    fn end(&mut self, ticket: Ticket, state: State) {
        let model = &mut self.coins[ticket.coin];
        model.attempts[ticket.attempt].state = state;
        model.waiting -= 1;
        model.link();
    }

    pub fn saw(&mut self, coin: usize, value: u128) {
        let seen = &mut self.coins[coin].seen;
        if !seen.contains(&value) {
            seen.push(value);
        }
    }

    /// From here to the next start, what was answered may be lost: a crash in the periodic mode. A
    /// change that rests on a lost one may be there all the same, since logs are written one by
    /// one.
    pub fn loosen(&mut self) {
        self.is_loose = true;
    }

    /// The values that the coins have after a start. Gives what cannot be explained, and takes
    /// them as the new beginning.
    pub fn restart(&mut self, values: &[Value]) -> Result<(), String> {
        // For each change of several coins: may it have happened, may it not have?
        let mut together: BTreeMap<u64, (bool, bool, String)> = BTreeMap::new();
        let is_loose = std::mem::take(&mut self.is_loose);
        for (model, &value) in self.coins.iter().zip(values) {
            if is_loose {
                if !model.was_proposed(value) {
                    let (coin, value, told) = (model.coin, show(value), model.tell());
                    return Err(format!(
                        "{coin} has {value}, which nobody proposed:\n{told}"
                    ));
                }
                continue;
            }
            let ways = model.ways(Some(value));
            if !ways.is_any {
                return Err(format!(
                    "{} has {}, which nothing explains:\n{}",
                    model.coin,
                    show(value),
                    model.tell()
                ));
            }
            for (index, attempt) in model.attempts.iter().enumerate() {
                let What::Together { number, .. } = attempt.what else {
                    continue;
                };
                let (may, may_not, text) =
                    together
                        .entry(number)
                        .or_insert((true, true, String::new()));
                *may &= ways.with[index];
                *may_not &= ways.without[index];
                *text += &format!("{} has {}:\n{}", model.coin, show(value), model.tell());
            }
        }
        if let Some((number, (.., text))) = together.iter().find(|(_, (a, b, _))| !a && !b) {
            return Err(format!("change {number} is there in part:\n{text}"));
        }
        for (model, &value) in self.coins.iter_mut().zip(values) {
            model.base = value;
            model.current = value;
            model.attempts.clear();
            model.seen.clear();
            model.waiting = 0;
        }
        Ok(())
    }

    /// Whether answers contradict each other, seen at a time when none is under way.
    pub fn contradiction(&self) -> Option<String> {
        let torn = self
            .coins
            .iter()
            .find(|model| model.waiting == 0 && !model.is_linked() && !model.ways(None).is_any);
        torn.map(|model| {
            format!(
                "answers about {} contradict each other:\n{}",
                model.coin,
                model.tell()
            )
        })
    }
}

/// A set of attempts on a coin.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Attempts([u64; ATTEMPTS_MAX / 64]);

impl Attempts {
    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn with(mut self, index: usize) -> Attempts {
        self.0[index / 64] |= 1 << (index % 64);
        self
    }
}

/// How a coin can have got its value.
struct Ways {
    /// Where a path may be: its end and the attempts it took, which are all that matters of it.
    states: BTreeSet<(Value, Attempts)>,
    is_any: bool,
    /// By attempt: there is a way with it.
    with: Vec<bool>,
    /// By attempt: there is a way without it.
    without: Vec<bool>,
}

impl CoinModel {
    /// Whether all that was answered leads to the current value: answers may come out of turn.
    fn is_linked(&self) -> bool {
        let is_loose = |a: &Attempt| !a.is_linked && matches!(a.state, State::Done(_));
        !self.attempts.iter().any(is_loose)
    }

    /// Follows answered changes from the current value.
    fn link(&mut self) {
        loop {
            let current = self.current;
            let next = self.attempts.iter_mut().find(|attempt| {
                !attempt.is_linked
                    && matches!(attempt.state, State::Done(_))
                    && attempt.leads_from(current).is_some()
            });
            let Some(attempt) = next else { return };
            self.current = attempt.leads_from(current).expect("it was found by that");
            attempt.is_linked = true;
        }
    }

    /// Whether some change that was not refused leads to this value, or none is needed.
    fn was_proposed(&self, value: Value) -> bool {
        let leads_here = |attempt: &Attempt| match &attempt.what {
            _ if attempt.state == State::Refused => false,
            What::Together { to, .. } => *to == value,
            What::Exchange(records) => records.iter().any(|(_, becomes)| *becomes == value),
        };
        self.base == value || self.attempts.iter().any(leads_here)
    }

    /// Paths that hold all that was answered and seen, and end at `end` where there is one.
    fn ways(&self, end: Option<Value>) -> Ways {
        let count = self.attempts.len();
        assert!(count <= ATTEMPTS_MAX, "{count} attempts on a coin");
        let mut ways = Ways {
            states: BTreeSet::new(),
            is_any: false,
            with: vec![false; count],
            without: vec![false; count],
        };
        let mut open = vec![(self.base, Attempts::default())];
        while let Some((here, used)) = open.pop() {
            if !ways.states.insert((here, used)) {
                continue;
            }
            assert!(ways.states.len() < STATES_MAX, "a history of too many ways");
            if end.is_none_or(|end| end == here) && self.is_complete(used) {
                ways.is_any = true;
                for index in 0..count {
                    ways.with[index] |= used.contains(index);
                    ways.without[index] |= !used.contains(index);
                }
            }
            for (index, attempt) in self.attempts.iter().enumerate() {
                if !used.contains(index)
                    && let Some(next) = attempt.leads_from(here)
                {
                    open.push((next, used.with(index)));
                }
            }
        }
        ways
    }

    /// Whether a path of these attempts holds all that was answered and seen. The values on it are
    /// those that the attempts lead to, and the first.
    fn is_complete(&self, used: Attempts) -> bool {
        let all_done = self.attempts.iter().enumerate().all(|(index, attempt)| {
            used.contains(index) || !matches!(attempt.state, State::Done(_))
        });
        let was_there = |&value: &u128| {
            let leads_there = |(index, attempt): (usize, &Attempt)| {
                used.contains(index) && attempt.may_lead_to(Some(value))
            };
            self.base == Some(value) || self.attempts.iter().enumerate().any(leads_there)
        };
        all_done && self.seen.iter().all(was_there)
    }

    fn tell(&self) -> String {
        let mut text = format!("  from {}\n", show(self.base));
        for attempt in &self.attempts {
            let state = match &attempt.state {
                State::Open => "unanswered".to_owned(),
                State::Refused => "refused".to_owned(),
                State::Done(passed) => format!("answered {passed:?}"),
            };
            text += &match &attempt.what {
                What::Exchange(records) => {
                    let records = records.iter();
                    let steps: Vec<String> = records
                        .map(|(an, becomes)| format!("{} -> {}", show(Some(*an)), show(*becomes)))
                        .collect();
                    format!("  exchange {}: {state}\n", steps.join(", "))
                }
                What::Together { number, from, to } => {
                    let (from, to) = (show(*from), show(*to));
                    format!("  together {number} {from} -> {to}: {state}\n")
                }
            };
        }
        let seen: Vec<String> = self.seen.iter().map(|&v| show(Some(v))).collect();
        text + &format!("  seen: {}\n", seen.join(", "))
    }
}

impl Attempt {
    /// Whether the attempt, where it happened, may have left this value. Of records of one request
    /// only the last that passed is ever seen.
    fn may_lead_to(&self, value: Value) -> bool {
        match &self.what {
            What::Together { to, .. } => *to == value,
            What::Exchange(records) => {
                let starts = records.iter().map(|(an, _)| Some(*an));
                let mut ends = starts.filter_map(|from| self.leads_from(from));
                ends.any(|end| end == value)
            }
        }
    }

    /// The value that this attempt changes `from` to, where it may have done so.
    fn leads_from(&self, from: Value) -> Option<Value> {
        match (&self.what, &self.state) {
            (_, State::Refused) => None,
            (What::Together { from: old, to, .. }, _) => (*old == from).then_some(*to),
            (What::Exchange(records), state) => {
                let (value, passed) = try_records(records, from);
                let agrees = match state {
                    State::Done(answered) => *answered == passed,
                    _ => passed.contains(&true),
                };
                agrees.then_some(value)
            }
        }
    }
}

/// What records of one request make of a coin, and which of them pass.
pub fn try_records(records: &[(u128, Value)], from: Value) -> (Value, Vec<bool>) {
    let mut value = from;
    let mut passed = Vec::with_capacity(records.len());
    for &(an, becomes) in records {
        let is_right = value == Some(an);
        passed.push(is_right);
        if is_right {
            value = becomes;
        }
    }
    (value, passed)
}

pub fn an(value: u128) -> An {
    An::new(value.to_be_bytes())
}

pub fn number(an: An) -> u128 {
    u128::from_be_bytes(*an.expose())
}

fn show(value: Value) -> String {
    match value {
        Some(value) => format!("{:08x}", (value >> 96) as u32),
        None => "free".to_owned(),
    }
}
