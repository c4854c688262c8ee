use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::SmallRng;

use super::{Kind, Verdict};
use crate::coin::Coin;
use crate::load::purse::Held;
use crate::load::ticket_stock::{FixTickets, Repair, TicketStock};
use crate::protocol::healing::{Fix, PartialGenerator};
use crate::protocol::{Command, RaidaId, Status};

/// Has a node repair coins, on tickets that were obtained before. The coins are in fixed groups,
/// and only one request at a time is about a group, so it is known at every moment which numbers
/// are in force.
pub struct FixKind {
    raida: RaidaId,
    repair: Repair,
    stock: Arc<TicketStock>,
    groups: Vec<Group>,
    /// Groups that no request is about, the longest rested first.
    at_rest: VecDeque<usize>,
    /// By slot: the group under way, and the data of its request.
    by_slot: Vec<Option<(usize, FixTickets)>>,
    waits: bool,
    waited: u64,
}

struct Group {
    /// Its number in the stock.
    number: usize,
    coins: Vec<Held>,
    /// What the numbers in force were derived from: by the last fix, and by a fix that may or may
    /// not have been done. The numbers themselves are derived when the load is over: deriving a
    /// hundred takes as long as many a request.
    fixed: Option<PartialGenerator>,
    may_be_fixed: Option<PartialGenerator>,
}

impl FixKind {
    /// Its name on the command line.
    pub const NAME: &str = "fix";

    /// Fixes groups of coins on a server, each with its number in the stock.
    pub fn new(
        raida: RaidaId,
        repair: Repair,
        stock: Arc<TicketStock>,
        groups: Vec<(usize, Vec<Held>)>,
        slots: usize,
    ) -> FixKind {
        let group = |(number, coins)| Group {
            number,
            coins,
            fixed: None,
            may_be_fixed: None,
        };
        FixKind {
            raida,
            repair,
            stock,
            at_rest: (0..groups.len()).collect(),
            groups: groups.into_iter().map(group).collect(),
            by_slot: vec![None; slots],
            waits: false,
            waited: 0,
        }
    }

    /// Takes the longest rested group with tickets off the groups at rest.
    fn take(&mut self) -> Option<(usize, FixTickets)> {
        for _ in 0..self.at_rest.len() {
            let group = self.at_rest.pop_front()?;
            match self.stock.take(self.groups[group].number) {
                Some(tickets) => return Some((group, tickets)),
                None => self.at_rest.push_back(group),
            }
        }
        None
    }

    /// Handles that the request in a slot is over.
    fn end(&mut self, slot: usize) -> (usize, FixTickets) {
        let under_way = self.by_slot[slot].take();
        under_way.expect("a request of this slot is under way")
    }
}

impl Kind for FixKind {
    fn request(&mut self, slot: usize, _: &mut SmallRng, payload: &mut Vec<u8>) -> Option<Command> {
        let Some((group, tickets)) = self.take() else {
            let waits = !self.at_rest.is_empty() && self.stock.is_open();
            self.waited += u64::from(waits && !self.waits);
            self.waits = waits;
            return None;
        };
        self.waits = false;
        let coins = self.groups[group].coins.iter().map(|held| held.coin);
        let ticket = |raida| tickets.tickets[raida];
        Fix::compose(coins, &tickets.generator, ticket, payload);
        self.by_slot[slot] = Some((group, tickets));
        Some(Command::Fix)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let (index, tickets) = self.end(slot);
        let group = &mut self.groups[index];
        let verdict = match status {
            Status::ALL_PASS => {
                group.fixed = Some(tickets.generator);
                right_if(self.repair == Repair::All)
            }
            Status::ALL_FAIL => right_if(self.repair == Repair::None),
            status if status.is_verdict() => {
                // Which of its coins passed is no longer relevant.
                group.may_be_fixed = Some(tickets.generator);
                return Verdict::Wrong;
            }
            status => {
                // Refused before anything was claimed.
                if status == Status::TOO_MANY_REQUESTS {
                    self.stock.put_back(group.number, tickets);
                }
                Verdict::Refused
            }
        };
        self.at_rest.push_back(index);
        verdict
    }

    /// The coins stay out of all further requests: this one may be carried out later than the next.
    fn lost(&mut self, slot: usize) {
        let (group, tickets) = self.end(slot);
        self.groups[group].may_be_fixed = Some(tickets.generator);
    }

    fn withdraw(&mut self, slot: usize) {
        let (group, tickets) = self.end(slot);
        self.stock.put_back(self.groups[group].number, tickets);
        self.at_rest.push_front(group);
    }

    fn prepare(&mut self) {
        self.stock.fill();
        self.waits = false;
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn take_waited(&mut self) -> u64 {
        std::mem::take(&mut self.waited)
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        let raida = self.raida;
        let groups = self.groups.into_iter();
        let coins = groups.flat_map(|mut group| {
            let an = |generator: PartialGenerator, coin: Coin| generator.an(raida, coin);
            for held in &mut group.coins {
                if let Some(generator) = group.fixed {
                    held.got(an(generator, held.coin));
                }
                if let Some(generator) = group.may_be_fixed {
                    held.may_have_got(an(generator, held.coin));
                }
            }
            group.coins
        });
        coins.collect()
    }
}

fn right_if(is_right: bool) -> Verdict {
    match is_right {
        true => Verdict::Right,
        false => Verdict::Wrong,
    }
}
