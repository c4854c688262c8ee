use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::attack::{Attack, OWNER, Victim, attackers, honest};
use crate::crowd::{Crowd, Datagrams};
use crate::site::{Site, coins};
use crate::wire::{
    ALL_PASS, BUY, LIST_FOR_SALE, Number, Owned, PAYMENT_PENDING, PUT_FOR_SALE, REMOVE_TRADE, ask,
    detect, locker_key, request, sum, without_numbers,
};

const PER_SECOND: f64 = 500.0;
/// Offers, each of one coin of 1,000.
const OFFERS: usize = 250;
/// A coin of denomination 3, in the smallest unit.
const VALUE: u64 = 100_000_000_000;
/// Offers that may be reserved while a node finds out whether somebody has paid for them.
const HELD_MAX: usize = 16;
const BITCOIN: u8 = 1;
const PATIENCE: Duration = Duration::from_secs(2);
/// How long somebody who has paid asks again while the payment is said to be pending.
const PAID_PATIENCE: Duration = Duration::from_secs(3);
/// What a memo says when the payment is there.
const PAID: &[u8] = b"paid";
const BUYER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 220);

/// Purchases of everything on offer, which nobody pays.
pub struct UnpaidBuys;

/// An offer of one coin.
struct Offer {
    coin: Owned,
    trade_key: Number,
    price: u32,
}

impl Offer {
    /// Offer `number`, the same on every node.
    fn new(number: usize) -> Offer {
        let price = price(number);
        let mut trade_key = [number as u8; 16];
        trade_key[8] = 0x5a;
        trade_key[9..13].copy_from_slice(&price.to_be_bytes());
        trade_key[13] = BITCOIN;
        trade_key[14..].fill(0xee);
        Offer {
            coin: coins().aimed_at[number],
            trade_key,
            price,
        }
    }

    fn put(&self, node: SocketAddr) {
        let mut address = [0; 129];
        address[0] = 42;
        address[1..43].copy_from_slice(b"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq");
        let coin = [self.coin];
        let payload = [
            &without_numbers(&coin)[..],
            &sum(&coin),
            &self.trade_key,
            &address,
        ];
        let put = request(PUT_FOR_SALE, &payload.concat());
        let answer = ask(OWNER, node, &put, PATIENCE).expect("an answer to an offer");
        assert_eq!(answer.status, ALL_PASS, "an offer");
    }

    /// A purchase of it, as anybody can write it who has read the list.
    fn buy(price: u32, transaction: [u8; 32], memo: &[u8]) -> Vec<u8> {
        let (key, receipt): (Number, Number) = (locker_key(), rand::random());
        let payload: [&[u8]; 7] = [
            &key,
            &[BITCOIN],
            &VALUE.to_be_bytes(),
            &price.to_be_bytes(),
            &transaction,
            &receipt,
            memo,
        ];
        request(BUY, &payload.concat())
    }
}

/// A node whose settlement is a program: a memo stands for the payment, and `otherwise` is what the
/// program says without it.
fn settings(folder: &Path, otherwise: u8) -> Vec<(&'static str, String)> {
    let script = folder.join("settle.sh");
    let paid = "read -r line\ncase \"$line\" in *'\"memo\":\"paid\"'*) exit 0;; esac\n";
    fs::write(&script, format!("{paid}exit {otherwise}\n")).expect("a file in a temporary folder");
    let command = format!("[\"/bin/sh\", \"{}\"]", script.display());
    vec![
        ("trade.settlement", "command".to_owned()),
        ("trade.command", command),
    ]
}

fn send(site: &Site, requests: Vec<Vec<u8>>) -> Box<dyn Crowd> {
    let (node, from) = (site.address(), attackers(1));
    Box::new(Datagrams::new(node, &from, requests, PER_SECOND))
}

fn detects(site: &Site, per_second: f64) -> Box<dyn Crowd> {
    let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
    let (node, from) = (site.address(), honest(1));
    Box::new(Datagrams::new(node, &from, requests, per_second))
}

/// Somebody reads the list, buys the dearest offer and pays; the seller takes the cheapest back.
/// The payments are named in turn.
fn trade(site: &Site, transactions: impl Iterator<Item = [u8; 32]> + Send + 'static) -> Victim {
    let node = site.address();
    let mut open: VecDeque<Offer> = (0..OFFERS).map(Offer::new).collect();
    open.iter().for_each(|offer| offer.put(node));
    let mut transactions = transactions;
    Box::new(move || {
        let offered = open.len();
        let (Some(cheapest), Some(dearest)) = (open.pop_front(), open.pop_back()) else {
            return Ok(());
        };
        let listed = listed(node)?;
        let mut faults = Vec::new();
        if listed + HELD_MAX < offered {
            faults.push(format!("{listed} of {offered} offers are listed"));
        }
        let transaction = transactions.next().expect("there are always more");
        faults.extend(buy(node, &dearest, transaction).err());
        faults.extend(take_back(node, &cheapest).err());
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults.join("; ")),
        }
    })
}

impl Attack for UnpaidBuys {
    fn name(&self) -> &'static str {
        "unpaid-buys"
    }

    fn what(&self) -> &'static str {
        "11: 500 purchases a second that nobody pays, of 250 offers, UDP, one address"
    }

    fn settings(&self, folder: &Path) -> Vec<(&'static str, String)> {
        settings(folder, 1)
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let unpaid = |number| Offer::buy(price(number), rand::random(), b"soon");
        send(site, (0..4 * OFFERS).map(unpaid).collect())
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        detects(site, per_second)
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        let transactions = std::iter::repeat_with(rand::random);
        Some(trade(site, transactions))
    }
}

/// Purchases with the payments of others, whose names everybody can read before they are confirmed.
pub struct PaymentsOfOthers;

impl PaymentsOfOthers {
    /// Payments that are about to be used.
    const ABOUT: usize = OFFERS / 2;

    fn transaction(number: usize) -> [u8; 32] {
        [number as u8; 32]
    }
}

impl Attack for PaymentsOfOthers {
    fn name(&self) -> &'static str {
        "payments-of-others"
    }

    fn what(&self) -> &'static str {
        "11, a relative: 500 purchases a second with payments that others are about to use, which the \
         settlement refuses, UDP, one address"
    }

    fn is_relative(&self) -> bool {
        true
    }

    fn settings(&self, folder: &Path) -> Vec<(&'static str, String)> {
        settings(folder, 2)
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let mine = |number| {
            Offer::buy(
                price(number),
                Self::transaction(number % Self::ABOUT),
                b"mine",
            )
        };
        send(site, (0..4 * OFFERS).map(mine).collect())
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        detects(site, per_second)
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        let transactions = (0..Self::ABOUT).cycle().map(Self::transaction);
        Some(trade(site, transactions))
    }
}

/// The price of an offer.
fn price(number: usize) -> u32 {
    1_000 + (number % OFFERS) as u32
}

fn listed(node: SocketAddr) -> Result<usize, String> {
    let list = request(LIST_FOR_SALE, &[BITCOIN, 255]);
    match ask(BUYER, node, &list, PATIENCE) {
        Ok(answer) if answer.status == ALL_PASS => Ok(answer.payload.len() / 29),
        Ok(answer) => Err(format!("status {} for a list", answer.status)),
        Err(error) => Err(format!("no list: {error}")),
    }
}

fn buy(node: SocketAddr, offer: &Offer, transaction: [u8; 32]) -> Result<(), String> {
    let buy = Offer::buy(offer.price, transaction, PAID);
    let until = Instant::now() + PAID_PATIENCE;
    loop {
        match ask(BUYER, node, &buy, PATIENCE) {
            Ok(answer) if answer.status == ALL_PASS => return Ok(()),
            Ok(answer) if answer.status == PAYMENT_PENDING && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(answer) => return Err(format!("status {} for a paid purchase", answer.status)),
            Err(error) => return Err(format!("no answer to a paid purchase: {error}")),
        }
    }
}

fn take_back(node: SocketAddr, offer: &Offer) -> Result<(), String> {
    let back = request(REMOVE_TRADE, &[offer.trade_key, locker_key()].concat());
    match ask(OWNER, node, &back, PATIENCE) {
        Ok(answer) if answer.status == ALL_PASS => Ok(()),
        Ok(answer) => Err(format!("status {} for taking back", answer.status)),
        Err(error) => Err(format!("no answer to taking back: {error}")),
    }
}
