//! Coins whose numbers cancel out (docs/protocol.md, "Sums") on a real node: naming two coins that
//! share a number proves nothing about them, however they came to share it.

use crate::real_node::{ADMIN_KEY, RealNode, plain::Client};
use raida::{
    coin::{An, Coin, Denomination, Mfs, PageId, SerialNumber},
    protocol::{
        AdminKey, Command, Dialect, Status,
        authentication::{DetectSum, PownSum},
        lockers::{
            Address, Currency, LockerKey, Price, PutForSale, StoreMultiple, StoreSum, TradeKey,
        },
        status_group::{NodeStats, Stats},
    },
};

/// Coins on pages in a row, so on as many shards as there are.
fn coins(count: usize) -> Vec<Coin> {
    let coin = |index: usize| {
        PageId::from_index(7_000 + index % 50)
            .unwrap()
            .coin(index / 50)
    };
    (0..count).map(coin).collect()
}

/// The number that a coin starts with.
fn own(coin: Coin) -> An {
    let mut bytes = [1; 16];
    bytes[..Coin::SIZE].copy_from_slice(&coin.to_bytes());
    An::new(bytes)
}

fn sum(coins: &[Coin]) -> An {
    (coins.iter()).fold(An::ZERO, |sum, &coin| sum ^ own(coin))
}

fn an(number: u8) -> An {
    An::new([number; 16])
}

fn locker(first: u8) -> LockerKey {
    let mut bytes = [first; 16];
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}

/// Every dialect, one shard and two, streams and datagrams.
fn everywhere(count: usize, each: impl Fn(&mut Client, Dialect)) {
    for dialect in [Dialect::Spec, Dialect::Raidax] {
        for shards in [1, 2] {
            for connect in [Client::tcp, Client::udp] {
                let coins: Vec<_> = (coins(count).into_iter())
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
    /// Tries every command that takes a sum as a proof; returns what each said.
    fn prove(&mut self, coins: &[Coin], sum: An, dialect: Dialect) -> Vec<(Command, Status)> {
        let named = || coins.iter().copied();
        let mut payload = Vec::new();
        let mut said = vec![];
        DetectSum::compose(named(), sum, &mut payload);
        for command in [Command::DetectSum, Command::GetTicketSum] {
            said.push((command, self.ask(command, &payload).status));
        }
        if dialect == Dialect::Raidax {
            payload.clear();
            PownSum::compose(named(), sum, an(0x66), &mut payload);
            said.push((
                Command::PownSum,
                self.ask(Command::PownSum, &payload).status,
            ));
        }
        payload.clear();
        StoreMultiple::compose([(coins.to_vec(), sum, locker(0x67))], &mut payload);
        let status = self.ask(Command::StoreMultiple, &payload).status;
        said.push((Command::StoreMultiple, status));
        payload.clear();
        StoreSum::compose(named(), sum, locker(0x66), &mut payload);
        said.push((
            Command::StoreSum,
            self.ask(Command::StoreSum, &payload).status,
        ));
        payload.clear();
        let trade = TradeKey::of([7; 9], Price::new(5), Currency::Bitcoin);
        let address = Address::new(&[b'a'; 20]).expect("20 bytes");
        PutForSale::compose(named(), sum, trade, &address, &mut payload);
        let status = self.ask(Command::PutForSale, &payload).status;
        said.push((Command::PutForSale, status));
        said
    }
}

#[test]
fn coins_that_share_a_number_which_is_no_key_are_nobodys_in_pairs() {
    everywhere(8, |client, dialect| {
        let all = coins(8);
        // The owner gave one number to four of them, and another one to two.
        let shared = [
            (0, 0x71),
            (1, 0x71),
            (2, 0x71),
            (3, 0x71),
            (4, 0x72),
            (5, 0x72),
        ];
        let records = shared.map(|(coin, number)| (all[coin], own(all[coin]), an(number)));
        assert_eq!(client.pown(&records), Status::ALL_PASS);
        let now = shared.map(|(coin, number)| (all[coin], an(number)));
        let named = |places: &[usize]| places.iter().map(|&coin| all[coin]).collect::<Vec<_>>();
        for (places, sum) in [
            (&[0, 1][..], An::ZERO),
            (&[3, 0, 2, 1], An::ZERO),
            (&[4, 5], An::ZERO),
            (&[0, 4, 5, 1], An::ZERO),
            // With a coin of one's own, and with some that do not cancel out.
            (&[6, 0, 1], own(all[6])),
            (&[0, 1, 2, 4, 5], an(0x71)),
        ] {
            for (command, status) in client.prove(&named(places), sum, dialect) {
                assert_eq!(status, Status::ALL_FAIL, "{command:?} of {places:?}");
            }
        }
        assert!(client.have(&now), "nothing was moved");
        // A client that knows the numbers proves them where none cancels out.
        for (places, sum) in [
            (&[0, 1, 2][..], an(0x71)),
            (&[6, 7, 4], sum(&all[6..8]) ^ an(0x72)),
        ] {
            let said = client.prove(&named(places), sum, dialect);
            assert!(
                said[..2]
                    .iter()
                    .all(|(_, status)| *status == Status::ALL_PASS),
                "{said:?}"
            );
        }
    });
}

/// More coins than are looked at in one go, over streams.
#[test]
fn two_that_cancel_out_are_found_among_very_many() {
    const COINS: usize = 30_000;
    for shards in [1, 2] {
        let all = coins(COINS);
        let listed = |coin: Coin| (coin, own(coin), Mfs::new(40));
        let listed: Vec<_> = all.iter().copied().map(listed).collect();
        let mut node = RealNode::start(&listed, |settings| settings.shards = shards);
        let mut client = Client::tcp(&node);
        let detect_sum = |client: &mut Client, coins: &[Coin], sum| {
            let mut payload = Vec::new();
            DetectSum::compose(coins.iter().copied(), sum, &mut payload);
            client.ask(Command::DetectSum, &payload).status
        };
        assert_eq!(detect_sum(&mut client, &all, sum(&all)), Status::ALL_PASS);
        let wrong = sum(&all) ^ An::new([1; 16]);
        assert_eq!(detect_sum(&mut client, &all, wrong), Status::ALL_FAIL);
        // One coin three times: its number is in the sum, and it is named too often.
        let mut thrice = all.clone();
        thrice.extend([all[7], all[7]]);
        assert_eq!(
            detect_sum(&mut client, &thrice, sum(&all)),
            Status::ALL_FAIL
        );
        let last = COINS - 1;
        let to_the_same = [(all[last], own(all[last]), own(all[3]))];
        assert_eq!(client.pown(&to_the_same), Status::ALL_PASS);
        let without = sum(&all[..3]) ^ sum(&all[4..last]);
        assert_eq!(detect_sum(&mut client, &all, without), Status::ALL_FAIL);
        let mut payload = Vec::new();
        StoreSum::compose(all.iter().copied(), without, locker(0x66), &mut payload);
        let stored = client.ask(Command::StoreSum, &payload).status;
        assert_eq!(stored, Status::ALL_FAIL);
        payload.clear();
        let others = &all[..last];
        StoreSum::compose(
            others.iter().copied(),
            sum(others),
            locker(0x66),
            &mut payload,
        );
        let stored = client.ask(Command::StoreSum, &payload).status;
        assert_eq!(stored, Status::ALL_PASS);
        drop(client);
        node.stop();
    }
}

/// Of 184,468 coins of a million, the worth in the smallest unit takes more than 64 bits.
#[test]
fn worths_that_64_bits_do_not_hold_are_added_up_all_the_same() {
    const COINS: u32 = 184_468;
    let highest = Denomination::new(6).expect("a million each");
    let million = |number: u32| Coin {
        denomination: highest,
        serial_number: SerialNumber::new(number).expect("below 1,024,000"),
    };
    let all: Vec<Coin> = (0..COINS).map(million).collect();
    let listed = all.iter().map(|&coin| (coin, own(coin), Mfs::new(40)));
    let listed: Vec<_> = listed.collect();
    let mut node = RealNode::start(&listed, |settings| {
        settings.shards = 2;
        // In this dialect a sum is of several coins.
        settings.rules.dialect = Dialect::Raidax;
        settings.segment_bytes = 64 << 20;
    });
    let mut client = Client::tcp(&node);
    let mut payload = Vec::new();
    PownSum::compose(all.iter().copied(), sum(&all), an(0x66), &mut payload);
    let changed = client.ask(Command::PownSum, &payload).status;
    assert_eq!(changed, Status::ALL_PASS);
    payload.clear();
    Stats::compose(&AdminKey::new(ADMIN_KEY), &mut payload);
    let stats = client.ask(Command::Stats, &payload);
    let stats = NodeStats::read(&stats.payload).expect("stats");
    assert_eq!(stats.coins_powned, u64::from(COINS));
    // Eight bytes on the wire: the most that they hold.
    assert_eq!(stats.value_powned, u64::MAX);

    // An offer has eight bytes for it.
    let now = all
        .iter()
        .fold(An::ZERO, |sum, &coin| sum ^ own(coin) ^ an(0x66));
    let trade = TradeKey::of([7; 9], Price::new(5), Currency::Bitcoin);
    let address = Address::new(&[b'a'; 20]).expect("20 bytes");
    payload.clear();
    PutForSale::compose(all.iter().copied(), now, trade, &address, &mut payload);
    let put = client.ask(Command::PutForSale, &payload).status;
    assert_eq!(put, Status::INVALID_PARAMETER);
    drop(client);
    node.stop();
}
