use crate::attack::{Attack, OnMemory, attackers, honest};
use crate::crowd::{Crowd, Datagrams, Held, Streams};
use crate::site::{Site, coins};
use crate::wire::{
    DETECT, HEADER, Owned, PEEK, POWN, PUT_FOR_SALE, detect, header, random_number, request,
    with_numbers,
};

/// The longest body that a node takes by default.
const BODY_MAX: usize = 1 << 20;

/// Peeks of a large locker, whose answers nobody reads.
pub struct Peeks;

impl Peeks {
    /// An answer takes 1 MB.
    const COINS: u32 = 200_000;
    const CONNECTIONS: usize = 16;
    const DEPTH: usize = 256;
    /// Each connection is closed and opened again about once in two seconds.
    const RENEWED_PER_SECOND: f64 = 8.0;
    const KEY: [u8; 16] = [
        0x70, 0x65, 0x65, 0x6b, 0, 1, 2, 3, 4, 5, 6, 7, 0xff, 0xff, 0xff, 0xff,
    ];
}

impl Attack for Peeks {
    fn name(&self) -> &'static str {
        "peeks"
    }

    fn what(&self) -> &'static str {
        "8: peeks of a locker of 200,000 coins, 256 deep on 16 connections of one address that do \
         not read"
    }

    fn coins(&self) -> Vec<Owned> {
        let coin = |serial| Owned {
            denomination: 4,
            serial,
            number: Self::KEY,
        };
        (0..Self::COINS).map(coin).collect()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let crowd = Streams::new(
            site.address(),
            &attackers(1),
            Self::CONNECTIONS,
            Self::DEPTH,
            vec![request(PEEK, &Self::KEY)],
            50_000.0,
        );
        Box::new(crowd.without_reading(Self::RENEWED_PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
        Box::new(Streams::new(
            site.address(),
            &honest(1),
            Self::CONNECTIONS,
            Self::DEPTH,
            requests,
            per_second,
        ))
    }

    fn on_memory(&self) -> OnMemory {
        OnMemory::GivenBack
    }
}

/// Peeks of the same locker in datagrams, in which its coins do not fit.
pub struct PeeksUdp;

impl PeeksUdp {
    const PER_SECOND: f64 = 2_000.0;
}

impl Attack for PeeksUdp {
    fn name(&self) -> &'static str {
        "peeks-udp"
    }

    fn what(&self) -> &'static str {
        "8, a relative: 2,000 peeks a second of a locker of 200,000 coins, UDP, one address"
    }

    fn is_relative(&self) -> bool {
        true
    }

    fn coins(&self) -> Vec<Owned> {
        Peeks.coins()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), attackers(1));
        let peek = vec![request(PEEK, &Peeks::KEY)];
        Box::new(Datagrams::new(node, &from, peek, Self::PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, requests, per_second))
    }
}

/// Offers of more coins under a trade key that has very many.
pub struct PutsUdp;

impl PutsUdp {
    const PER_SECOND: f64 = 2_000.0;
    /// 1,000 bitcoin units as price.
    const KEY: [u8; 16] = [
        0x70, 0x75, 0x74, 1, 2, 3, 4, 5, 6, 0, 0, 3, 0xe8, 1, 0xee, 0xee,
    ];
}

impl Attack for PutsUdp {
    fn name(&self) -> &'static str {
        "puts-udp"
    }

    fn what(&self) -> &'static str {
        "10, a relative: 2,000 offers a second of one more coin under a trade key with 200,000, half of \
         them wrong sums, UDP, one address"
    }

    fn is_relative(&self) -> bool {
        true
    }

    fn coins(&self) -> Vec<Owned> {
        let coins = Peeks.coins().into_iter();
        coins.map(|coin| coin.under(Self::KEY)).collect()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let mut address = [0; 129];
        address[0] = 34;
        address[1..35].fill(b'a');
        let put = |coin: Owned, sum: [u8; 16]| {
            let payload = [&coin.coin()[..], &sum, &Self::KEY, &address].concat();
            request(PUT_FOR_SALE, &payload)
        };
        // The attacker may not put its own coins there either: others lie there already.
        let own = coins().attacker[0];
        let put = vec![put(coins().aimed_at[0], [7; 16]), put(own, own.number)];
        let (node, from) = (site.address(), attackers(1));
        Box::new(Datagrams::new(node, &from, put, Self::PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        PeeksUdp.honest_crowd(site, per_second)
    }
}

/// Peeks on many connections that do not read: what their answers take of the kernel's memory.
pub struct PeeksWide;

impl PeeksWide {
    const CONNECTIONS: usize = 200;
    const DEPTH: usize = 8;
}

impl Attack for PeeksWide {
    fn name(&self) -> &'static str {
        "peeks-wide"
    }

    fn what(&self) -> &'static str {
        "8, a relative: the same 8 deep on 200 connections of one address: see the socket buffers"
    }

    fn is_relative(&self) -> bool {
        true
    }

    fn coins(&self) -> Vec<Owned> {
        Peeks.coins()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let crowd = Streams::new(
            site.address(),
            &attackers(1),
            Self::CONNECTIONS,
            Self::DEPTH,
            vec![request(PEEK, &Peeks::KEY)],
            50_000.0,
        );
        Box::new(crowd.without_reading(0.0))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        Peeks.honest_crowd(site, per_second)
    }
}

/// Powns as long as a node takes them, of coins that the attackers do not own.
pub struct WrongPowns;

impl WrongPowns {
    const CONNECTIONS: usize = 20;
    const DEPTH: usize = 8;
    const PER_SECOND: f64 = 300.0;
    /// As many as fit into the longest body.
    const COINS: usize = (BODY_MAX - 18) / 37;

    fn requests() -> Vec<Vec<u8>> {
        let record = |coin: &Owned| {
            let (wrong, new) = (random_number(), random_number());
            [&coin.coin()[..], &wrong, &new].concat()
        };
        let some = |start| coins().many[start..].iter().take(Self::COINS);
        let payload = |start| some(start).flat_map(record).collect::<Vec<u8>>();
        (0..4).map(|i| request(POWN, &payload(i * 1_000))).collect()
    }
}

impl Attack for WrongPowns {
    fn name(&self) -> &'static str {
        "wrong-powns"
    }

    fn what(&self) -> &'static str {
        "8: powns of 1 MiB without a coin, up to 300 a second, 8 deep on 20 connections of one \
         address; beside: detects of as many coins"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        Box::new(Streams::new(
            site.address(),
            &attackers(1),
            Self::CONNECTIONS,
            Self::DEPTH,
            Self::requests(),
            Self::PER_SECOND,
        ))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let some = |start| detect(&coins().many[start..start + Self::COINS]);
        Box::new(Streams::new(
            site.address(),
            &honest(1),
            Self::CONNECTIONS,
            Self::DEPTH,
            (0..4).map(|i| some(i * 1_000)).collect(),
            per_second,
        ))
    }

    fn on_memory(&self) -> OnMemory {
        OnMemory::GivenBack
    }
}

/// Bodies whose last byte never comes.
pub struct SlowBodies;

impl SlowBodies {
    const CONNECTIONS: usize = 1_000;
    const BYTES_PER_SECOND: f64 = 150e6;
    /// As many as fit into the longest body.
    const COINS: usize = (BODY_MAX - 18) / 21;
}

impl Attack for SlowBodies {
    fn name(&self) -> &'static str {
        "slow-bodies"
    }

    fn what(&self) -> &'static str {
        "8: 1 MiB of a body but for its last byte, slowly, on 1,000 connections of one address; \
         beside: detects of as many bytes"
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let mut says = header(0, DETECT, BODY_MAX);
        says.resize(HEADER + BODY_MAX - 1, 0x55);
        let bytes = Self::BYTES_PER_SECOND;
        let crowd = Held::new(site.address(), attackers(1), Self::CONNECTIONS, says, bytes);
        Box::new(crowd.counting_whole_requests())
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let many = with_numbers(&coins().many[..Self::COINS]);
        Box::new(Streams::new(
            site.address(),
            &honest(1),
            Self::CONNECTIONS,
            1,
            vec![request(DETECT, &many)],
            per_second,
        ))
    }

    fn on_memory(&self) -> OnMemory {
        OnMemory::GivenBack
    }
}
