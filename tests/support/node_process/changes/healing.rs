//! Fixes of encryption in a load. The test plays the other servers, whose secrets it gave to the
//! node: it issues tickets itself, presents them, and presents them again.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use raida::client::Reply;
use raida::coin::Coin;
use raida::protocol::key_healing::{
    FixEncryption, Half, Minute, Presented, SharedSecret, Verdict, Voucher, split,
};
use raida::protocol::{Command, RaidaId, Status, key_file};
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::load::{Load, Means, parts};
use super::{Book, Change, Outcome, Value, an, draw, value};

/// A new number of a coin, and the tickets that vouch for it.
#[derive(Clone, Copy)]
pub(super) struct KeyFix {
    coin: Coin,
    old: Value,
    new: Value,
    tickets: [Presented; 2],
}

/// Writes the secrets that the node, number 0, shares with the others.
pub fn write_secrets(file: &Path) {
    let own = RaidaId::new(0).expect("the first");
    let secrets = std::array::from_fn(|number| match number {
        0 => [0; SharedSecret::SIZE],
        _ => secret(number as u8),
    });
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(file);
    let text = key_file::compose(own, &secrets);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn secret(server: u8) -> [u8; SharedSecret::SIZE] {
    [server; SharedSecret::SIZE]
}

impl KeyFix {
    fn payload(&self, more: &[Presented]) -> Vec<u8> {
        let tickets = [more, &self.tickets].concat();
        let mut payload = Vec::new();
        FixEncryption::compose(self.coin, &tickets, &mut payload);
        payload
    }
}

impl Book {
    /// Notes which tickets are spent for good, and which tickets of this load are in doubt.
    pub(super) fn settle_key_fixes(&mut self, history: &[Change], applied: &[Vec<bool>]) {
        self.open_key_fixes.clear();
        let fixes = history.iter().zip(applied);
        for (change, applied) in fixes.filter(|(change, _)| !change.is_forbidden) {
            let Some(fix) = change.key_fix else {
                continue;
            };
            match &change.outcome {
                _ if applied[0] => self.key_fixes.push(fix),
                Outcome::Open => self.open_key_fixes.push(fix),
                _ => {}
            }
        }
    }
}

impl Load {
    /// Has a coin's number fixed, or presents tickets for the second time. `None` where there is
    /// nothing just now to do that with.
    pub fn ask_to_fix_key(&mut self) -> Option<bool> {
        match self.random.random_range(0..10) {
            0..5 => self.fix_key(),
            5 => self.fix_key_again(),
            _ => self.replay(),
        }
    }

    fn fix_key(&mut self) -> Option<bool> {
        let coin = self.settled_coin()?;
        let one_less = |left: usize| left.checked_sub(1);
        (self.commons.to_fix)
            .fetch_update(SeqCst, SeqCst, one_less)
            .ok()?;
        let new = match self.random.random_bool(0.2) {
            true => value(self.locker_for(&[coin]).an()),
            false => draw(&mut self.random, &[]),
        };
        let fix = KeyFix {
            coin: self.coins[coin],
            old: self.predicted[&coin],
            new,
            tickets: self.issue(self.coins[coin], new),
        };
        // One of another number, which was used, takes nothing from the two.
        let known = self.commons.key_fixes.lock().unwrap();
        let of_coin = known.iter().filter(|used| used.coin == fix.coin);
        let used: Vec<Presented> = of_coin.map(|used| used.tickets[0]).take(1).collect();
        drop(known);
        Some(self.send_fix(fix, coin, &used))
    }

    /// Presents tickets again that may or may not be spent: the coin did not change.
    fn fix_key_again(&mut self) -> Option<bool> {
        let mut open = self.commons.open_key_fixes.lock().unwrap();
        let mine = |(at, fix): (usize, &KeyFix)| {
            let coin = self.coins.iter().position(|&coin| coin == fix.coin)?;
            (self.is_settled(coin) && !an(fix.new).is_marked()).then_some((at, coin))
        };
        let (at, coin) = open.iter().enumerate().find_map(mine)?;
        let mut fix = open.swap_remove(at);
        drop(open);
        fix.old = self.predicted[&coin];
        Some(self.send_fix(fix, coin, &[]))
    }

    fn send_fix(&mut self, fix: KeyFix, coin: usize, used: &[Presented]) -> bool {
        let parts = parts(&[coin], &[fix.old], [Some(fix.new)]);
        let mut change = self.change(Command::FixEncryption, parts);
        change.key_fix = Some(fix);
        // Whether the node takes the tickets is uncertain in a minute some of whose tickets it has
        // forgotten.
        self.at_risk.insert(coin);
        let means = Means::KeyFixed(used.len());
        let payload = fix.payload(used);
        self.send_changes(Command::FixEncryption, &payload, vec![change], means)
    }

    /// Presents tickets that were accepted, of this load or an earlier one, no matter who has the
    /// coin by now.
    fn replay(&mut self) -> Option<bool> {
        let fixes = self.commons.key_fixes.lock().unwrap();
        // The newest ones are of this minute, and those of the run before may be.
        let newest = fixes.len().saturating_sub(100);
        let fix = *fixes[newest..].choose(&mut self.random)?;
        drop(fixes);
        let coin = self.coins.iter().position(|&coin| coin == fix.coin)?;
        let parts = parts(&[coin], &[fix.old], [Some(fix.new)]);
        let mut change = self.change(Command::FixEncryption, parts);
        change.is_forbidden = true;
        change.key_fix = Some(fix);
        // In another order: the same request once more is a repeat, and answered as the first.
        let mut other = fix;
        other.tickets.reverse();
        let payload = other.payload(&[]);
        let means = Means::KeyFixed(0);
        Some(self.send_changes(Command::FixEncryption, &payload, vec![change], means))
    }

    /// Two tickets of different servers, of about now by the node's clock.
    fn issue(&mut self, coin: Coin, new: Value) -> [Presented; 2] {
        let others: Vec<u8> = (1..RaidaId::COUNT as u8).collect();
        let servers: Vec<u8> = others.sample(&mut self.random, 2).copied().collect();
        let clock = self.commons.clock.as_ref();
        let now = clock.expect("a clock that the test moves").unix_seconds();
        let now = Minute::of_unix_seconds(now).0;
        let minute = Minute(now - self.random.random_range(0..2)).low_bits();
        let halves = split(an(new));
        std::array::from_fn(|half| Presented {
            helper: RaidaId::new(servers[half]).expect("one of them"),
            half: [Half::First, Half::Second][half],
            ticket: SharedSecret::new(&secret(servers[half])).seal(&Voucher {
                part: halves[half],
                coin,
                minute,
            }),
        })
    }

    /// One of its own coins with no change under way: a fix asks for no old number, so it would
    /// hide that a change had failed.
    fn settled_coin(&mut self) -> Option<usize> {
        let mut coins = self.some_coins();
        coins.retain(|&coin| self.is_settled(coin));
        coins.first().copied()
    }

    fn is_settled(&self, coin: usize) -> bool {
        let predicted = self.predicted.get(&coin);
        predicted.is_some()
            && predicted == self.confirmed.get(&coin)
            && !self.at_risk.contains(&coin)
    }

    /// The number of presented tickets that had been used before; all of them where the request is
    /// forbidden.
    pub fn note_key_fixed(&mut self, index: usize, used: usize, reply: &Reply) {
        let change = &mut self.changes[index];
        let fix = change.key_fix.expect("tickets were presented");
        let coin = change.parts[0].coin;
        let verdicts = FixEncryption::read(&reply.payload, used + fix.tickets.len());
        change.outcome = match verdicts.filter(|_| reply.status == Status::SUCCESS) {
            Some(verdicts) => {
                let (used, fresh) = verdicts.split_at(used);
                assert!(
                    !used.contains(&Verdict::Accepted),
                    "a used ticket is accepted"
                );
                assert_eq!(fresh[0], fresh[1], "of one minute, never presented apart");
                Outcome::Answered(vec![fresh[0] == Verdict::Accepted])
            }
            None => Outcome::Refused(reply.status),
        };
        let is_done = change.outcome == Outcome::Answered(vec![true]);
        if change.is_forbidden {
            assert!(!is_done, "tickets are accepted for the second time");
            return;
        }
        self.at_risk.remove(&coin);
        match is_done {
            true => {
                self.confirmed.insert(coin, fix.new);
                self.commons.key_fixes.lock().unwrap().push(fix);
            }
            false => self.resync = true,
        }
    }
}
