use std::time::{Duration, Instant};

use crate::attack::{Attack, OWNER, Victim, attackers, honest};
use crate::crowd::{Crowd, Datagrams, Streams};
use crate::site::{Site, coins};
use crate::wire::{
    ALL_PASS, Number, Owned, POWN_DERIVE, POWN_SUM, PUT_FOR_SALE, STORE_MULTIPLE, STORE_SUM, ask,
    detect, locker_key, pown, random_number, request, sum, without_numbers,
};

/// Powns of one coin a second.
const POWNS_PER_SECOND: f64 = 10_000.0;
const CONNECTIONS: usize = 40;
/// Requests of a connection that have no answer yet.
const DEPTH: usize = 256;
/// How long the owner of a coin waits for the answer to a pown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Powns of one coin to the number that it has, over UDP.
pub struct OneCoinUdp;

impl Attack for OneCoinUdp {
    fn name(&self) -> &'static str {
        "one-coin"
    }

    fn what(&self) -> &'static str {
        "7: 10,000 powns a second of one coin to itself, UDP, one address"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let coin = coins().attacker[0];
        let requests = vec![pown(&coin, coin.number)];
        let (node, from) = (site.address(), attackers(1));
        Box::new(Datagrams::new(node, &from, requests, POWNS_PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, there_and_back(), per_second))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(owner_powns(site))
    }
}

/// Powns of one coin to and fro over many connections.
pub struct OneCoinTcp;

impl Attack for OneCoinTcp {
    fn name(&self) -> &'static str {
        "one-coin-tcp"
    }

    fn what(&self) -> &'static str {
        "7: 10,000 powns a second of one coin to and fro, 40 TCP connections of one address"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let coin = coins().attacker[0];
        let other = random_number();
        let requests = vec![pown(&coin, other), pown(&coin.under(other), coin.number)];
        Box::new(Streams::new(
            site.address(),
            &attackers(1),
            CONNECTIONS,
            DEPTH,
            requests,
            POWNS_PER_SECOND,
        ))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        Box::new(Streams::new(
            site.address(),
            &honest(1),
            CONNECTIONS,
            DEPTH,
            there_and_back(),
            per_second,
        ))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(owner_powns(site))
    }
}

/// Powns of each coin of the honest crowd to another number, and then of each back again.
fn there_and_back() -> Vec<Vec<u8>> {
    let crowd = &coins().crowd;
    let there: Vec<Number> = crowd.iter().map(|_| random_number()).collect();
    let pairs = || crowd.iter().zip(&there);
    let forth = pairs().map(|(coin, &there)| pown(coin, there));
    let back = pairs().map(|(coin, &there)| pown(&coin.under(there), coin.number));
    forth.chain(back).collect()
}

/// The owner of a coin that the attack is aimed at powns it.
pub fn owner_powns(site: &Site) -> Victim {
    let node = site.address();
    let mut coin = coins().aimed_at[0];
    Box::new(move || {
        let new = random_number();
        let start = Instant::now();
        let answer = ask(OWNER, node, &pown(&coin, new), PATIENCE);
        let took = start.elapsed();
        match answer {
            Ok(answer) if answer.status == ALL_PASS => {
                coin = coin.under(new);
                Ok(())
            }
            Ok(answer) => Err(format!("status {} for a pown", answer.status)),
            Err(error) => {
                // A detect of the two numbers shows which one is in force.
                for candidate in [coin, coin.under(new)] {
                    let detected = ask(OWNER, node, &detect(&[candidate]), PATIENCE);
                    if detected.is_ok_and(|answer| answer.status == ALL_PASS) {
                        coin = candidate;
                    }
                }
                Err(format!(
                    "a pown failed after {} ms: {error}",
                    took.as_millis()
                ))
            }
        }
    })
}

/// Every request that proves ownership by a sum, with wrong sums of somebody else's coins.
pub struct WrongSums;

impl WrongSums {
    const PER_SECOND: f64 = 5_000.0;
    const COINS: usize = 20;

    fn requests() -> Vec<Vec<u8>> {
        let aimed_at = &coins().aimed_at;
        let mut requests = Vec::new();
        for some in aimed_at.chunks_exact(Self::COINS - 1) {
            // The coin that its owner is about to pown is in each of them.
            let mut list: Vec<Owned> = vec![aimed_at[0]];
            list.extend(some.iter().filter(|coin| coin.serial != aimed_at[0].serial));
            let names = without_numbers(&list);
            let mut wrong = sum(&list);
            wrong[0] ^= 1;
            let delta = random_number();
            let key = locker_key();
            let one = without_numbers(&list[..1]);
            let mut trade_key: Number = rand::random();
            trade_key[13] = 1;
            trade_key[14..].fill(0xee);
            let mut address = [0; 129];
            address[0] = 34;
            address[1..35].fill(b'a');
            let count = (list.len() as u16).to_be_bytes();
            requests.extend([
                request(POWN_SUM, &[&one[..], &wrong, &delta].concat()),
                request(POWN_DERIVE, &[&names[..], &delta, &wrong].concat()),
                request(STORE_SUM, &[&names[..], &wrong, &key].concat()),
                request(
                    STORE_MULTIPLE,
                    &[&[1], &count[..], &names, &wrong, &key].concat(),
                ),
                request(
                    PUT_FOR_SALE,
                    &[&names[..], &wrong, &trade_key, &address].concat(),
                ),
            ]);
        }
        requests
    }
}

impl Attack for WrongSums {
    fn name(&self) -> &'static str {
        "wrong-sums"
    }

    fn what(&self) -> &'static str {
        "10: 5,000 wrong sums a second (pown sum, derive, store, store multiple, put for sale) of \
         others' coins, UDP, one address"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), attackers(1));
        Box::new(Datagrams::new(
            node,
            &from,
            Self::requests(),
            Self::PER_SECOND,
        ))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins()
            .crowd
            .chunks_exact(Self::COINS)
            .map(detect)
            .collect();
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, requests, per_second))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(owner_powns(site))
    }
}
