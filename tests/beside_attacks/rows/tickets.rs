use std::path::Path;
use std::time::Duration;

use crate::attack::{Attack, OWNER, OnMemory, Victim, attackers, honest};
use crate::crowd::{Crowd, Datagrams, Streams};
use crate::site::{Site, coins};
use crate::wire::{ALL_PASS, GET_TICKET, Owned, ask, detect, request, with_numbers};

/// Coins that one ticket can name.
const COINS_MAX: usize = 4_096;
const CONNECTIONS: usize = 8;
const DEPTH: usize = 16;
const LONG_PER_SECOND: f64 = 300.0;
const PATIENCE: Duration = Duration::from_secs(1);

/// An honest client asks for a ticket of three coins: of others each time, since each is in few
/// tickets at a time.
fn wants_a_ticket(site: &Site) -> Victim {
    let node = site.address();
    let mut coins = coins().aimed_at.chunks_exact(3).cycle();
    let mut get = move || {
        let three = coins.next().expect("it goes round");
        request(GET_TICKET, &with_numbers(three))
    };
    Box::new(move || match ask(OWNER, node, &get(), PATIENCE) {
        Ok(answer) if answer.status == ALL_PASS => Ok(()),
        Ok(answer) => Err(format!("status {} for a ticket", answer.status)),
        Err(error) => Err(format!("no ticket: {error}")),
    })
}

fn over_streams(
    site: &Site,
    from: &[std::net::Ipv4Addr],
    requests: Vec<Vec<u8>>,
    per_second: f64,
) -> Box<dyn Crowd> {
    let node = site.address();
    Box::new(Streams::new(
        node,
        from,
        CONNECTIONS,
        DEPTH,
        requests,
        per_second,
    ))
}

fn detects_of_many(site: &Site, per_second: f64) -> Box<dyn Crowd> {
    let requests = coins().many.chunks_exact(COINS_MAX).map(detect).collect();
    over_streams(site, &honest(1), requests, per_second)
}

/// Tickets of as many coins as one can name, all of them the attacker's.
pub struct ManyCoins;

impl Attack for ManyCoins {
    fn name(&self) -> &'static str {
        "tickets"
    }

    fn what(&self) -> &'static str {
        "9: 300 tickets of 4,096 coins a second, 8 connections of one address; beside: detects of \
         as many coins"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let lists = coins().many.chunks_exact(COINS_MAX);
        let requests = lists.map(|list| request(GET_TICKET, &with_numbers(list)));
        over_streams(site, &attackers(1), requests.collect(), LONG_PER_SECOND)
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        detects_of_many(site, per_second)
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(wants_a_ticket(site))
    }

    fn on_memory(&self) -> OnMemory {
        OnMemory::Kept
    }
}

/// Tickets that name one coin as often as a ticket has room.
pub struct OneCoinManyTimes;

impl Attack for OneCoinManyTimes {
    fn name(&self) -> &'static str {
        "tickets-of-one-coin"
    }

    fn what(&self) -> &'static str {
        "9: 300 tickets a second that name one coin 4,096 times, 8 connections of one address; \
         beside: detects of as many coins"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let again = |coin: &Owned| vec![*coin; COINS_MAX];
        let lists = coins().attacker.iter().take(16).map(again);
        let requests = lists.map(|list| request(GET_TICKET, &with_numbers(&list)));
        over_streams(site, &attackers(1), requests.collect(), LONG_PER_SECOND)
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        detects_of_many(site, per_second)
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(wants_a_ticket(site))
    }

    fn on_memory(&self) -> OnMemory {
        OnMemory::Kept
    }
}

/// Tickets of one coin at a rate that no limit minds, until they take the pool.
pub struct OneCoinForLong;

impl OneCoinForLong {
    const PER_SECOND: f64 = 219.0;
    /// The default pool of 65,536 is full after 300 s at that rate, which is as long as a ticket
    /// lives: a 64th of it is full within 5 s.
    const POOL: u64 = 1_024;
}

impl Attack for OneCoinForLong {
    fn name(&self) -> &'static str {
        "tickets-for-long"
    }

    fn what(&self) -> &'static str {
        "9: 219 tickets of one coin a second, UDP, one address, on a pool of a 64th of the default \
         (300 s in 5)"
    }

    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        vec![("tickets.pool", Self::POOL.to_string())]
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let one = &coins().attacker[..1];
        let requests = vec![request(GET_TICKET, &with_numbers(one))];
        let (node, from) = (site.address(), attackers(1));
        Box::new(Datagrams::new(node, &from, requests, Self::PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, requests, per_second))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(wants_a_ticket(site))
    }
}
