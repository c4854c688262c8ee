//! Coins that all clients change at once. Nobody can predict an answer about them, but all answers
//! together must be those of some order of the requests, in which a request takes effect between
//! its sending and its answer.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use raida::coin::{An, Coin};

use crate::races::Races;

/// What an answer says of a register: one coin, or coins that only ever change together.
#[derive(Clone, Copy)]
pub struct Event {
    pub sent: Instant,
    pub answered: Instant,
    pub what: What,
}

/// What happened, without the time.
#[derive(Clone, Copy)]
pub enum What {
    /// The value was this at some moment between.
    Was(An),
    /// It was not this at some moment between.
    WasNot(An),
    /// It was the one and became the other.
    Became(An, An),
}

/// A register's beginning, and what has been seen of it.
pub struct Register {
    /// The coins; where there are several, an odd number.
    pub coins: Vec<Coin>,
    /// The coins' numbers by each value that was ever proposed.
    numbers: HashMap<[u8; 16], Vec<An>>,
    start: An,
    /// What the clients believe the value to be now.
    belief: An,
    events: Vec<Event>,
}

/// All registers, for all clients.
#[derive(Default)]
pub struct Shared {
    /// What is raced for beside them.
    pub races: Races,
    registers: Mutex<Vec<Register>>,
}

impl Shared {
    /// Adds a register of coins with these ANs.
    pub fn add(&self, coins: Vec<Coin>, ans: Vec<An>) {
        assert!(coins.len() % 2 == 1, "an even number of deltas cancels out");
        let start = sum(&ans);
        self.registers().push(Register {
            coins,
            numbers: HashMap::from([(*start.expose(), ans)]),
            start,
            belief: start,
            events: Vec::new(),
        });
    }

    /// How many registers there are.
    pub fn count(&self) -> usize {
        self.registers().len()
    }

    /// A register's coins, and what its value is believed to be.
    pub fn belief(&self, register: usize) -> (Vec<Coin>, An) {
        let registers = self.registers();
        let register = &registers[register];
        (register.coins.clone(), register.belief)
    }

    /// The numbers of a register's coins where its value is this.
    pub fn numbers(&self, register: usize, value: An) -> Vec<An> {
        self.registers()[register].numbers[value.expose()].clone()
    }

    /// A register's coins may get these numbers; gives their value.
    pub fn propose(&self, register: usize, ans: Vec<An>) -> An {
        let value = sum(&ans);
        let mut registers = self.registers();
        registers[register].numbers.insert(*value.expose(), ans);
        value
    }

    /// Notes what an answer said.
    pub fn note(&self, register: usize, event: Event) {
        let mut registers = self.registers();
        let register = &mut registers[register];
        match event.what {
            What::Became(_, new) => register.belief = new,
            What::Was(an) => register.belief = an,
            What::WasNot(_) => {}
        }
        register.events.push(event);
    }

    /// Compares all notes with each other and starts over with the values at the end. Gives each
    /// register's coins and value.
    pub fn explain(&self) -> Vec<(Vec<Coin>, An)> {
        let mut registers = self.registers();
        let explained = registers.iter_mut().map(|register| {
            let end = explain(register.start, &register.events, register.coins.len() == 1);
            register.events.clear();
            (register.start, register.belief) = (end, end);
            (register.coins.clone(), end)
        });
        explained.collect()
    }

    fn registers(&self) -> MutexGuard<'_, Vec<Register>> {
        self.registers.lock().expect("no client has failed")
    }
}

/// What stands for the numbers of a register's coins.
fn sum(ans: &[An]) -> An {
    ans.iter().fold(An::ZERO, |sum, an| sum ^ *an)
}

/// Finds the order of the changes, which follows from their values, since no value comes twice, and
/// asserts that there is a moment for every event. Gives the last value.
///
/// With `at_once`, reads say when changes took effect. Coins on several shards change together but
/// are read one after the other, so there a read that meets a change says nothing.
fn explain(start: An, events: &[Event], at_once: bool) -> An {
    let mut changes: HashMap<[u8; 16], (Event, An)> = HashMap::new();
    for event in events {
        if let What::Became(old, new) = event.what {
            let before = changes.insert(*old.expose(), (*event, new));
            assert!(before.is_none(), "a value was changed twice");
        }
    }
    // Values in order; value k holds from change k - 1 to change k.
    let mut values = vec![start];
    let mut order = Vec::new();
    while let Some((event, new)) = changes.remove(values[values.len() - 1].expose()) {
        order.push(event);
        values.push(new);
    }
    assert!(changes.is_empty(), "a change of a value that never was");
    let place: HashMap<[u8; 16], usize> = values
        .iter()
        .enumerate()
        .map(|(k, an)| (*an.expose(), k))
        .collect();
    // The earliest and the latest moment of each change.
    let mut earliest: Vec<Instant> = order.iter().map(|event| event.sent).collect();
    let mut latest: Vec<Instant> = order.iter().map(|event| event.answered).collect();
    for event in events.iter().filter(|_| at_once) {
        if let What::Was(an) = event.what {
            let k = *place.get(an.expose()).expect("a value that never was");
            if k > 0 {
                latest[k - 1] = latest[k - 1].min(event.answered);
            }
            if k < order.len() {
                earliest[k] = earliest[k].max(event.sent);
            }
        }
    }
    for k in 1..order.len() {
        earliest[k] = earliest[k].max(earliest[k - 1]);
    }
    for k in (1..order.len()).rev() {
        latest[k - 1] = latest[k - 1].min(latest[k]);
    }
    for k in 0..order.len() {
        assert!(earliest[k] <= latest[k], "no moment for change {k}");
    }
    for event in events {
        match event.what {
            What::Became(..) => {}
            What::Was(an) => {
                let k = *place.get(an.expose()).expect("a value that never was");
                let began = k == 0 || earliest[k - 1] <= event.answered;
                let had_not_ended = k == order.len() || latest[k] >= event.sent;
                assert!(began && had_not_ended, "value {k} was not there then");
            }
            What::WasNot(an) => {
                // A value that no change made is never seen.
                let Some(&k) = place.get(an.expose()) else {
                    continue;
                };
                let always = (k == 0 || latest[k - 1] < event.sent)
                    && (k == order.len() || earliest[k] > event.answered);
                assert!(!always, "value {k} was there all the time");
            }
        }
    }
    values[values.len() - 1]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn an(number: u8) -> An {
        An::new([number; 16])
    }

    fn event(start: Instant, sent: u64, answered: u64, what: What) -> Event {
        Event {
            sent: start + Duration::from_secs(sent),
            answered: start + Duration::from_secs(answered),
            what,
        }
    }

    fn is_explained(events: &[(u64, u64, What)]) -> bool {
        let start = Instant::now();
        let events: Vec<Event> = events
            .iter()
            .map(|&(sent, answered, what)| event(start, sent, answered, what))
            .collect();
        std::panic::catch_unwind(|| explain(an(0), &events, true)).is_ok()
    }

    #[test]
    fn histories_without_an_order_are_found() {
        let (a, b, c) = (an(0), an(1), an(2));
        assert!(is_explained(&[
            (1, 5, What::Became(a, b)),
            (2, 3, What::Was(a)),
            (2, 4, What::Was(b)),
            (6, 7, What::WasNot(a)),
        ]));
        let twice = [(1, 2, What::Became(a, b)), (1, 2, What::Became(a, c))];
        let stale = [(1, 2, What::Became(a, b)), (3, 4, What::Was(a))];
        let early = [(3, 4, What::Became(a, b)), (1, 2, What::Was(b))];
        let back = [
            (1, 9, What::Became(a, b)),
            (2, 3, What::Was(b)),
            (4, 5, What::Was(a)),
        ];
        let missed = [(1, 2, What::Became(a, b)), (3, 4, What::WasNot(b))];
        let nowhere = [(1, 2, What::Became(c, b))];
        for history in [&twice[..], &stale, &early, &back, &missed, &nowhere] {
            assert!(!is_explained(history));
        }
    }
}
