//! What lies in lockers, is on offer and was paid: it must agree with the coins and the answers, in
//! the order in which it was stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use raida::client::{Client, Outcome as Done, Purchase};
use raida::coin::{An, Coin};
use raida::protocol::lockers::{
    Currency, Listed, Offer, Price, TradeKey, TradeName, Value as Worth,
};

use super::{Book, Change, Outcome, Value, an, locker, trade, value};

/// Purchases of earlier rounds that are asked about again.
const OLD_PURCHASES_ASKED: usize = 40;

/// Since when a coin lies where it lies, or an offer is on offer.
#[derive(Clone, Copy)]
enum Since {
    /// Since before the load, behind this many others.
    Before(usize),
    /// Since this part of this change.
    Change(usize, usize),
}

impl Since {
    /// Whether this was surely before the other. Changes of two connections that overlapped may
    /// have come in either order.
    fn precedes(self, other: Since, history: &[Change]) -> bool {
        match (self, other) {
            (Since::Before(mine), Since::Before(other)) => mine < other,
            (Since::Before(_), Since::Change(..)) => true,
            (Since::Change(..), Since::Before(_)) => false,
            (Since::Change(mine, my_part), Since::Change(other, other_part)) => {
                let (change, others) = (&history[mine], &history[other]);
                match mine == other {
                    true => my_part < other_part,
                    false if change.connection == others.connection => mine < other,
                    false => change.answered.is_some_and(|at| at < others.sent),
                }
            }
        }
    }
}

/// Whether things may stand in this order.
fn is_in_order(since: &[Since], history: &[Change]) -> bool {
    (0..since.len()).all(|later| {
        let mut earlier = since[..later].iter();
        earlier.all(|&earlier| !since[later].precedes(earlier, history))
    })
}

impl Book {
    /// Looks into every locker that there was or may be, and at what is on offer, holds both
    /// against the coins' values and the changes, and takes them over. Says which of the changes
    /// that only changed an order were made.
    pub(super) fn settle_lockers(
        &mut self,
        client: &mut Client,
        history: &[Change],
        found: &[Option<Value>],
        applied: &mut [Vec<bool>],
    ) {
        let mut under: BTreeMap<Value, BTreeSet<Coin>> = BTreeMap::new();
        let proposed = history.iter().flat_map(|change| &change.parts);
        let keys = proposed.filter_map(|part| part.new);
        let keys = keys.chain(self.lockers.keys().copied());
        keys.filter(|&key| an(key).is_marked()).for_each(|key| {
            under.entry(key).or_default();
        });
        for (&coin, found) in self.coins.iter().zip(found) {
            if let Some(there) = found.and_then(|found| under.get_mut(&found)) {
                there.insert(coin);
            }
        }
        let since = self.since(history, applied);
        let mut again: HashMap<Value, Vec<usize>> = HashMap::new();
        for (index, change) in history.iter().enumerate() {
            if change.stores_again() {
                again.entry(change.parts[0].old).or_default().push(index);
            }
        }
        let mut lockers = BTreeMap::new();
        for (key, there) in under {
            let told = look(client, key);
            let set: BTreeSet<Coin> = told.iter().copied().collect();
            assert_eq!(set.len(), told.len(), "a locker lists a coin twice");
            assert_eq!(set, there, "a locker lists what detect says");
            let again = again.get(&key).map_or(&[][..], |again| again);
            self.settle_order(key, &told, history, again, &since, applied);
            if !told.is_empty() {
                lockers.insert(key, told);
            }
        }
        self.settle_offers(client, history, &lockers, &since);
        self.lockers = lockers;
    }

    /// Since when each coin lies under each key that it came under.
    fn since(&self, history: &[Change], applied: &[Vec<bool>]) -> HashMap<(Value, Coin), Since> {
        let mut since = HashMap::new();
        for (&key, coins) in &self.lockers {
            let before = coins.iter().enumerate();
            since.extend(before.map(|(at, &coin)| ((key, coin), Since::Before(at))));
        }
        for (index, (change, applied)) in history.iter().zip(applied).enumerate() {
            // One connection's changes come in their order, so where its coins were stored once
            // more, the newest counts.
            let again = change.stores_again();
            for (part, coin) in change.parts.iter().enumerate() {
                let is_made = match &change.outcome {
                    Outcome::Answered(passed) if again => passed[part],
                    _ => applied[part],
                };
                if let Some(new) = coin.new.filter(|_| is_made) {
                    let place = (new, self.coins[coin.coin]);
                    since.insert(place, Since::Change(index, part));
                }
            }
        }
        since
    }

    /// Asserts that coins lie in the order in which they came. Changes `again` stored coins where
    /// they were; those without an answer may have been made or not.
    fn settle_order(
        &self,
        key: Value,
        told: &[Coin],
        history: &[Change],
        again: &[usize],
        since: &HashMap<(Value, Coin), Since>,
        applied: &mut [Vec<bool>],
    ) {
        for &index in again {
            if let Outcome::Answered(passed) = &history[index].outcome {
                applied[index].clone_from(passed);
            }
        }
        let again = again.iter().copied();
        let open = again.filter(|&index| history[index].outcome == Outcome::Open);
        let open: Vec<usize> = open.collect();
        for made in 0..1_u32 << open.len() {
            let made = (open.iter().enumerate()).filter(|(bit, _)| made >> bit & 1 == 1);
            let made: Vec<usize> = made.map(|(_, &index)| index).collect();
            let mut newest: HashMap<Coin, Since> = HashMap::new();
            for &index in &made {
                let parts = history[index].parts.iter().enumerate();
                let parts = parts.map(|(at, part)| (self.coins[part.coin], at));
                newest.extend(parts.map(|(coin, at)| (coin, Since::Change(index, at))));
            }
            let order = told.iter();
            let order = order.map(|coin| newest.get(coin).unwrap_or_else(|| &since[&(key, *coin)]));
            let order: Vec<Since> = order.copied().collect();
            if is_in_order(&order, history) {
                made.iter().for_each(|&index| applied[index].fill(true));
                return;
            }
        }
        let tell = told.iter().map(|&coin| match since[&(key, coin)] {
            Since::Before(at) => format!("\n  {coin}: was number {at}"),
            Since::Change(index, part) => {
                let Change {
                    command,
                    connection,
                    outcome,
                    ..
                } = &history[index];
                format!(
                    "\n  {coin}: part {part} of change {index}, {command:?} on connection \
                     {connection}, {outcome:?}"
                )
            }
        });
        panic!("a locker is out of order:{}", tell.collect::<String>());
    }

    /// Asserts that what lies under trade keys is listed, each under a name that opens it, in the
    /// order in which it was offered.
    fn settle_offers(
        &mut self,
        client: &mut Client,
        history: &[Change],
        lockers: &BTreeMap<Value, Vec<Coin>>,
        since: &HashMap<(Value, Coin), Since>,
    ) {
        let before: HashMap<Value, usize> = self
            .offers
            .iter()
            .enumerate()
            .map(|(at, key)| (value(key.an()), at))
            .collect();
        let listed = assert_listed(client, lockers);
        for currency in Currency::ALL {
            let of_it = listed.iter().filter(|key| key.currency() == currency);
            let since: Vec<Since> = of_it
                .map(|key| {
                    let key = value(key.an());
                    let by_coin = since[&(key, lockers[&key][0])];
                    before.get(&key).map_or(by_coin, |&at| Since::Before(at))
                })
                .collect();
            assert!(is_in_order(&since, history), "offers are out of order");
        }
        self.offers = listed;
    }

    /// Asserts that lockers and offers are what they were when they were last looked at.
    pub(super) fn assert_lockers_kept(&self, client: &mut Client) {
        for (&key, coins) in &self.lockers {
            assert_eq!(look(client, key), *coins);
        }
        let listed = assert_listed(client, &self.lockers);
        assert!(listed == self.offers, "offers have changed");
        self.assert_paid(
            client,
            self.bought.len().saturating_sub(OLD_PURCHASES_ASKED),
        );
    }

    /// Holds what payments are remembered against what was bought.
    pub(super) fn settle_purchases(
        &mut self,
        client: &mut Client,
        history: &[Change],
        applied: &[Vec<bool>],
    ) {
        let old = self.bought.len().saturating_sub(OLD_PURCHASES_ASKED);
        for (change, applied) in history.iter().zip(applied) {
            let Some(bought) = change.bought else {
                continue;
            };
            if applied.contains(&true) {
                self.bought.push(bought);
                continue;
            }
            // It was not made, so its payment has paid for nothing yet: not what nobody offers
            // either.
            let mut other = bought.buy();
            other.offer = nobody_offers(other.offer);
            assert_eq!(client.buy(&other).unwrap(), Purchase::NoSuchOffer);
        }
        self.assert_paid(client, old);
    }

    /// Asserts that payments from this one on have paid for just what they have bought.
    fn assert_paid(&self, client: &mut Client, first: usize) {
        for bought in &self.bought[first..] {
            assert_eq!(client.buy(&bought.buy()).unwrap(), Purchase::Paid);
            let mut other = bought.buy();
            other.offer = nobody_offers(other.offer);
            assert_eq!(client.buy(&other).unwrap(), Purchase::Refused);
            let mut other = bought.buy();
            let into = value(other.into.an()) ^ 1 << 64;
            other.into = locker(into).expect("another locker");
            assert_eq!(client.buy(&other).unwrap(), Purchase::Refused);
        }
    }

    /// Asserts that a client that knows the key of an offer can move no coin with it.
    pub(super) fn assert_offers_are_kept_from_others(&self, client: &mut Client) {
        for key in &self.offers {
            let coin = self.lockers[&value(key.an())][0];
            let new = An::new([1; 16]);
            let (outcomes, error) = client.pown(&[(coin, key.an(), new)]);
            assert!(error.is_none() && outcomes == [Done::Failed], "pown");
            let delta = key.an() ^ new;
            assert!(!client.pown_sum(&[coin], key.an(), delta).unwrap(), "sum");
        }
    }
}

/// Looks into a locker or a trade locker.
fn look(client: &mut Client, key: Value) -> Vec<Coin> {
    match (locker(key), trade(key)) {
        (Some(key), _) => client.peek(key).unwrap(),
        (None, Some(key)) => client.peek_trade(key.into()).unwrap(),
        (None, None) => panic!("no key of a locker"),
    }
}

/// Asserts that what is listed is what lies under trade keys, at its value and price, and that each
/// name in the list opens it. Gives the keys in the order of the lists.
fn assert_listed(client: &mut Client, lockers: &BTreeMap<Value, Vec<Coin>>) -> Vec<TradeKey> {
    let mut offered: HashMap<(Currency, Price, Worth), TradeKey> = HashMap::new();
    for (key, coins) in lockers
        .iter()
        .filter_map(|(&key, c)| Some((trade(key)?, c)))
    {
        let offer = (key.currency(), key.price(), worth(coins));
        assert!(offered.insert(offer, key).is_none(), "prices are random");
    }
    let mut keys = Vec::new();
    for currency in Currency::ALL {
        for Listed { id, offer } in client.list_for_sale(currency, u8::MAX).unwrap() {
            let key = offered.remove(&(offer.currency, offer.price, offer.value));
            let key = key.expect("what is listed lies under a trade key, once");
            let id = id.expect("this dialect says it");
            let coins = client.peek_trade(TradeName::from(id)).unwrap();
            assert_eq!(coins, lockers[&value(key.an())]);
            keys.push(key);
        }
    }
    assert!(offered.is_empty(), "what is on offer is listed");
    keys
}

pub(super) fn worth(coins: &[Coin]) -> Worth {
    Worth::of(coins.iter().copied()).expect("few coins")
}

/// No coin is worth nothing.
fn nobody_offers(offer: Offer) -> Offer {
    Offer {
        value: Worth::from_units(0),
        ..offer
    }
}
