//! The node under attack, and who owns which coins on it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use raida::protocol::AdminKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::attack::Attack;
use crate::honest;
use crate::machine::{Cpus, Process};
use crate::node_process::{NodeProcess, Serve, admin_key, raida};
use crate::wire::{ALL_PASS, Owned, ask, detect};

/// Bytes that a page takes in memory: 1,024 coins with a number and a month each.
const PAGE_BYTES: u64 = 1_024 * 17;

/// How a node is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// One shard on the node's CPU, so that clients and node do not share one.
    One,
    /// The default: a shard for each CPU.
    All,
}

/// A running node, and what it needs.
pub struct Site {
    // The nodes end before their folder goes.
    pub node: NodeProcess,
    /// RAIDA 1, where the attack needs another node.
    pub other: Option<NodeProcess>,
    pub process: Process,
    pages: u64,
    folder: TempDir,
}

/// Coins that every node here has.
pub struct Coins {
    /// The honest client's.
    pub honest: Owned,
    /// Those of the honest crowd.
    pub crowd: Vec<Owned>,
    /// Those of somebody with very many.
    pub many: Vec<Owned>,
    /// Those that an attack is aimed at; their owner is honest.
    pub aimed_at: Vec<Owned>,
    /// The attacker's own.
    pub attacker: Vec<Owned>,
}

/// The coins, the same on every node.
pub fn coins() -> &'static Coins {
    static COINS: OnceLock<Coins> = OnceLock::new();
    COINS.get_or_init(|| {
        let mut random = StdRng::seed_from_u64(13);
        let mut some = |denomination, count| -> Vec<Owned> {
            let coin = |serial| Owned {
                denomination,
                serial,
                number: plain_number(&mut random),
            };
            (0..count).map(coin).collect()
        };
        Coins {
            honest: some(0, 1)[0],
            crowd: some(1, 4_096),
            many: some(2, 50_000),
            aimed_at: some(3, 1_024),
            attacker: some(5, 64),
        }
    })
}

/// A number that is no locker's key.
fn plain_number(random: &mut StdRng) -> [u8; 16] {
    let mut number: [u8; 16] = random.random();
    number[15] = 1;
    number
}

impl Site {
    /// Starts a node with everybody's coins, each page of them in its memory.
    pub fn new(attack: &dyn Attack, cpus: Cpus, cores: Cores) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let mut owned: Vec<Owned> = attack.coins();
        let all = coins();
        for group in [&all.crowd, &all.many, &all.aimed_at, &all.attacker] {
            owned.extend_from_slice(group);
        }
        owned.push(all.honest);
        let data = folder.path().join("node");
        import(folder.path(), &data, &owned);
        let mut serve = Serve::on(&data);
        for (key, value) in attack.settings(folder.path()) {
            serve = serve.with(key, value);
        }
        if let Some(hard) = attack.descriptors() {
            serve = serve.with_descriptors(1_024.min(hard), hard);
        }
        let node = match cores {
            Cores::One => cpus.on_node(|| serve.with("shards.count", 1).start()),
            Cores::All => cpus.on_all(|| serve.start()),
        };
        let other = attack.other_node(node.address).map(|settings| {
            let mut serve = Serve::on(&folder.path().join("other"));
            for (key, value) in settings {
                serve = serve.with(key, value);
            }
            let serve = serve.with("node.raida_id", 1).with("shards.count", 1);
            cpus.on_node(|| serve.start())
        });
        let page = |coin: &Owned| (coin.denomination, coin.serial / 1_024);
        let pages: HashSet<(i8, u32)> = owned.iter().map(page).collect();
        touch(node.address, &owned);
        Site {
            process: Process(node.id()),
            pages: pages.len() as u64,
            node,
            other,
            folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.node.address
    }

    pub fn admin_key(&self) -> AdminKey {
        admin_key(&self.data())
    }

    /// Bytes of the pages that the node can have in its cache.
    pub fn page_bytes(&self) -> u64 {
        self.pages * PAGE_BYTES
    }

    /// CPU time that the node has taken, and the other one.
    pub fn cpu(&self) -> Duration {
        let other = self.other.as_ref().map(|node| Process(node.id()).cpu());
        self.process.cpu() + other.unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }
}

/// Has the node read the pages of these coins.
fn touch(node: SocketAddr, owned: &[Owned]) {
    for some in owned.chunks(20_000) {
        let answer = ask(
            honest::ADDRESS,
            node,
            &detect(some),
            Duration::from_secs(10),
        );
        let status = answer.expect("an answer to a detect").status;
        assert_eq!(status, ALL_PASS, "the coins are as they were put there");
    }
}

fn import(folder: &Path, data: &Path, owned: &[Owned]) {
    let csv = folder.join("coins.csv");
    let mut text =
        String::from("denomination,serial_number,authenticity_number,months_from_start\n");
    for coin in owned {
        let (denomination, serial) = (coin.denomination, coin.serial);
        let number = u128::from_be_bytes(coin.number);
        writeln!(text, "{denomination},{serial},{number:032x},1").expect("a String takes all");
    }
    fs::write(&csv, text).expect("a file in a temporary folder");
    let words: [&OsStr; 5] = [
        "import".as_ref(),
        "--data".as_ref(),
        data.as_ref(),
        "--csv".as_ref(),
        csv.as_ref(),
    ];
    let import = raida(&words);
    assert!(import.status.success(), "{import:?}");
}
