//! Pown derive (docs/protocol.md, "Group 1: authentication") on a real node: several coins get
//! numbers that nobody can know who did not know theirs before.

use crate::real_node::{ADMIN_KEY, RAIDA, RealNode, plain::Client};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    protocol::{
        AdminKey, Command, Dialect, RaidaId, Status,
        authentication::{PownDerive, PownSum, derived_an},
        lockers::{
            Address, Contents, Currency, LockerKey, Peek, Price, PutForSale, StoreSum, TradeKey,
        },
        status_group::{NodeStats, Stats},
    },
};

const COINS: usize = 40;

/// Coins on pages in a row, so on as many shards as there are.
fn coins() -> Vec<Coin> {
    let coin = |index: usize| PageId::from_index(7_000 + index % 9).unwrap().coin(index);
    (0..COINS).map(coin).collect()
}

/// The number that a coin starts with.
fn own(coin: Coin) -> An {
    let mut bytes = [1; 16];
    bytes[..Coin::SIZE].copy_from_slice(&coin.to_bytes());
    An::new(bytes)
}

fn an(number: u8) -> An {
    An::new([number; 16])
}

/// Every dialect, one shard and two, streams and datagrams.
fn everywhere(each: impl Fn(&mut Client, Dialect)) {
    for dialect in [Dialect::Spec, Dialect::Raidax] {
        for shards in [1, 2] {
            for connect in [Client::tcp, Client::udp] {
                let coins: Vec<_> = (coins().into_iter())
                    .map(|coin| (coin, own(coin), Mfs::new(40)))
                    .collect();
                let mut node = RealNode::start(&coins, |settings| {
                    settings.shards = shards;
                    settings.rules.dialect = dialect;
                });
                let mut client = connect(&node);
                each(&mut client, dialect);
                drop(client);
                node.stop();
            }
        }
    }
}

impl Client {
    fn derive(&mut self, coins: &[(Coin, An)], delta: An) -> Status {
        let mut payload = Vec::new();
        PownDerive::compose(RAIDA, coins.iter().copied(), delta, &mut payload);
        self.ask(Command::PownDerive, &payload).status
    }
}

fn known(coins: &[Coin]) -> Vec<(Coin, An)> {
    coins.iter().map(|&coin| (coin, own(coin))).collect()
}

fn derived(coins: &[(Coin, An)], delta: An) -> Vec<(Coin, An)> {
    let derived = coins.iter();
    let derived = derived.map(|&(coin, an)| (coin, derived_an(coin, an, delta)));
    derived.collect()
}

#[test]
fn all_coins_get_the_numbers_that_their_owner_derives_or_none_does() {
    everywhere(|client, _| {
        let mut all = known(&coins());
        // In an order that is none.
        all.rotate_left(17);
        all.swap(3, 11);
        for spoilt in [0, 20, COINS - 1] {
            let mut wrong = all.clone();
            wrong[spoilt].1 = an(9);
            assert_eq!(client.derive(&wrong, an(5)), Status::ALL_FAIL);
        }
        let mut other = Vec::new();
        let another = RaidaId::new(RAIDA.get() + 1);
        PownDerive::compose(another.unwrap(), all.iter().copied(), an(5), &mut other);
        let for_another = client.ask(Command::PownDerive, &other).status;
        assert_eq!(for_another, Status::ALL_FAIL, "the proof is for one server");
        assert!(client.have(&all), "nothing was changed");

        assert_eq!(client.derive(&all, an(5)), Status::ALL_PASS);
        let new = derived(&all, an(5));
        assert!(client.have(&new));
        // Who knew the numbers before, and not the delta, knows nothing now; nor does the XOR.
        assert_eq!(client.derive(&all, an(6)), Status::ALL_FAIL);
        let before = all.iter().fold(An::ZERO, |sum, &(_, an)| sum ^ an);
        let after = new.iter().fold(An::ZERO, |sum, &(_, an)| sum ^ an);
        assert_ne!(before, after);
        assert_eq!(client.derive(&new, an(6)), Status::ALL_PASS);
        assert!(client.have(&derived(&new, an(6))));

        let mut payload = Vec::new();
        Stats::compose(&AdminKey::new(ADMIN_KEY), &mut payload);
        let stats = client.ask(Command::Stats, &payload);
        let stats = NodeStats::read(&stats.payload).expect("stats");
        assert_eq!(stats.coins_powned, 2 * COINS as u64);
    });
}

#[test]
fn a_coin_named_twice_or_free_fails_and_one_that_cannot_be_is_refused() {
    everywhere(|client, _| {
        let all = known(&coins()[..3]);
        let twice = [all[0], all[1], all[0]];
        assert_eq!(client.derive(&twice, an(5)), Status::ALL_FAIL);
        let thrice = [all[0], all[0], all[0]];
        assert_eq!(client.derive(&thrice, an(5)), Status::ALL_FAIL);
        let free = PageId::from_index(3).unwrap().coin(3);
        assert_eq!(
            client.derive(&[all[0], (free, an(7))], an(5)),
            Status::ALL_FAIL
        );
        assert!(client.have(&all));

        let mut payload = Vec::new();
        PownDerive::compose(RAIDA, all.iter().copied(), an(5), &mut payload);
        payload[0] = 7;
        let answer = client.ask(Command::PownDerive, &payload);
        assert_eq!(answer.status, Status::INVALID_COIN);
        payload.push(0);
        let answer = client.ask(Command::PownDerive, &payload);
        assert_eq!(answer.status, Status::UNEVEN_RECORDS);
        let answer = client.ask(Command::PownDerive, &payload[..33]);
        assert_eq!(answer.status, Status::INVALID_LENGTH);
    });
}

#[test]
fn it_takes_coins_out_of_a_locker_and_leaves_what_is_for_sale() {
    everywhere(|client, _| {
        let all = coins();
        let mut key = [0x41; 16];
        key[12..].fill(0xff);
        let locker = LockerKey::new(An::new(key)).unwrap();
        let sum = |coins: &[Coin]| coins.iter().fold(An::ZERO, |sum, &coin| sum ^ own(coin));
        let mut payload = Vec::new();
        StoreSum::compose(
            all[..4].iter().copied(),
            sum(&all[..4]),
            locker,
            &mut payload,
        );
        let stored = client.ask(Command::StoreSum, &payload).status;
        assert_eq!(stored, Status::ALL_PASS);
        // In pairs the numbers would cancel out of a sum; here they do not.
        let out: Vec<_> = all[..2].iter().map(|&coin| (coin, locker.an())).collect();
        assert_eq!(client.derive(&out, an(5)), Status::ALL_PASS);
        assert!(client.have(&derived(&out, an(5))));
        payload.clear();
        Peek::compose(locker, &mut payload);
        let answer = client.ask(Command::Peek, &payload);
        let left = Contents::read(answer.status, &answer.payload).unwrap();
        assert_eq!(left.coins().collect::<Vec<_>>(), all[2..4]);

        let trade = TradeKey::of([7; 9], Price::new(5), Currency::Bitcoin);
        payload.clear();
        let on_sale = &all[4..6];
        let address = Address::new(&[b'a'; 20]).unwrap();
        PutForSale::compose(
            on_sale.iter().copied(),
            sum(on_sale),
            trade,
            &address,
            &mut payload,
        );
        let put = client.ask(Command::PutForSale, &payload).status;
        assert_eq!(put, Status::ALL_PASS);
        let under: Vec<_> = on_sale.iter().map(|&coin| (coin, trade.an())).collect();
        assert_eq!(client.derive(&under, an(5)), Status::ALL_FAIL);
        let with_others = [&under[..], &known(&all[6..8])].concat();
        assert_eq!(client.derive(&with_others, an(5)), Status::ALL_FAIL);
        assert!(client.have(&with_others));
    });
}

/// The XOR of two coins is the same after both were changed by a delta: who knew it knows it still.
#[test]
fn pown_sum_takes_one_coin_where_the_strict_dialect_is_spoken() {
    everywhere(|client, dialect| {
        let all = coins();
        let mut payload = Vec::new();
        let of = &all[..2];
        let sum = own(of[0]) ^ own(of[1]);
        PownSum::compose(of.iter().copied(), sum, an(5), &mut payload);
        let several = client.ask(Command::PownSum, &payload).status;
        assert_eq!(
            several,
            match dialect {
                Dialect::Spec => Status::INVALID_PARAMETER,
                Dialect::Raidax => Status::ALL_PASS,
            }
        );
        payload.clear();
        PownSum::compose([all[2]], own(all[2]), an(5), &mut payload);
        assert_eq!(
            client.ask(Command::PownSum, &payload).status,
            Status::ALL_PASS
        );
        assert!(client.have(&[(all[2], own(all[2]) ^ an(5))]));
    });
}
