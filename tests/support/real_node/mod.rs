//! A whole node in the test's process: real sockets on a free port of the loopback, real files in a
//! folder of its own. It knows nothing about commands.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod plain;
pub mod wire;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use raida::runtime::WallClock;
use raida::{
    client::{CoinListReader, CoinRecord, Months},
    coin::{An, Coin, Mfs},
    net::{self, Drained},
    node::{Adjustable, Durability, Ended, Node, OnLoss, Settings},
    peer::PeerSettings,
    protocol::{Dialect, RaidaId, ResponseCounter, Rules, lockers::Currency},
    service::{DatagramRules, QuestionRates, Rate},
    settlement::Method,
    shard::{TicketSettings, TradeSettings},
    store::{
        import::{Import, OnConflict, Outcome},
        offline::OfflineFolder,
    },
};

/// Far beyond what an answer takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A node stops within this time, whatever its clients do.
pub const STOP_MAX: Duration = Duration::from_secs(10);
/// The number of the server that the recorded conversation was held with.
pub const RAIDA: RaidaId = match RaidaId::new(14) {
    Some(raida) => raida,
    None => panic!("14 is a server's number"),
};
/// The coin it serves.
pub const COIN_ID: u16 = 6;
/// The admin key of the recorded conversation.
pub const ADMIN_KEY: [u8; 16] = 0x6de9_4398_34c9_1475_6974_1d3c_9c9f_c010_u128.to_be_bytes();

const SEGMENT_BYTES: u64 = 4 << 20;
const ALL_PAGES: usize = 15_000;

/// A node, from its start to its stop; its data outlives it.
pub struct RealNode {
    settings: Settings,
    running: Option<Node>,
    _folder: tempfile::TempDir,
}

impl RealNode {
    /// Puts these coins into a new data folder and starts a node on it.
    pub fn start(coins: &[(Coin, An, Mfs)], change: impl FnOnce(&mut Settings)) -> RealNode {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let mut settings = Settings {
            rules: Rules {
                raida: RAIDA,
                coin_id: COIN_ID,
                dialect: Dialect::Raidax,
                response_counter: ResponseCounter::Restart,
                max_body_bytes: 1 << 20,
            },
            admin_key_file: data.join("admin.key"),
            data,
            on_loss: OnLoss::Refuse,
            network: net::Settings {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                ..net::Settings::default()
            },
            shards: 1,
            pin: false,
            spin: Duration::ZERO,
            durability: Durability::Commit,
            disk_timeout: Duration::from_secs(10),
            cache_pages: ALL_PAGES,
            segment_bytes: SEGMENT_BYTES,
            tickets: TicketSettings {
                pool: 65_536,
                lifetime: Duration::from_secs(300),
                shares: 8,
                per_coin: 128,
            },
            ticket_coins_max: 4_096,
            healing_rate: Rate { per_s: 0, burst: 1 },
            wrong_claims_per_min: 6_000,
            datagrams: DatagramRules {
                amplification: 10,
                refusals_per_s: 0,
            },
            keys_file: None,
            allow_unencrypted_tickets: false,
            clock: WallClock::Machine,
            servers: vec![],
            peers: PeerSettings::new(RAIDA, COIN_ID),
            settlement: Method::None,
            currencies: Currency::ALL.to_vec(),
            question_rates: QuestionRates::UNLIMITED,
            trades: TradeSettings {
                pending: Duration::from_secs(7_200),
                holds: 1_024,
                holds_per_address: 16,
                questions_per_address: 4,
                questions_by_datagram: 32,
                payments_max: 1 << 20,
            },
            repeats_max: 4_096,
            adjustable: Adjustable {
                flush_interval: Duration::from_millis(100),
                checkpoint_interval: Duration::from_secs(30),
            },
        };
        change(&mut settings);
        put_coins(&settings, coins);
        raida::store::write_secret(&settings.admin_key_file, &ADMIN_KEY).expect("the admin key");
        let mut node = RealNode {
            settings,
            running: None,
            _folder: folder,
        };
        node.run();
        node
    }

    /// Stops the node and starts another on the same data.
    pub fn restart(&mut self, change: impl FnOnce(&mut Settings)) {
        self.stop();
        change(&mut self.settings);
        self.run();
    }

    fn run(&mut self) {
        let node = Node::start(&self.settings).expect("the node starts");
        assert_eq!(node.summary().faults, [] as [String; 0]);
        self.running = Some(node);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.node().summary().address
    }

    /// The node itself.
    pub fn node(&self) -> &Node {
        self.running.as_ref().expect("the node runs")
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Stops the node, which has to end in time and with everything answered.
    pub fn stop(&mut self) {
        let node = self.running.take().expect("the node runs");
        let start = Instant::now();
        node.control().stop();
        let ended = node.join().expect("the node ends in order");
        assert_eq!(
            ended,
            Ended {
                cut: Drained::default()
            }
        );
        assert!(start.elapsed() < STOP_MAX, "it took {:?}", start.elapsed());
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        // After a failed test: its executors must not outlive the folder.
        if let Some(node) = self.running.take() {
            node.control().stop();
            let _ = node.join();
        }
    }
}

/// The coins of a list in tests/data.
pub fn coin_list(name: &str) -> Vec<(Coin, An, Mfs)> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let list = CoinListReader::open(path.as_ref(), Months::Required).expect("a list of coins");
    list.map(|record| {
        let CoinRecord { coin, an, mfs } = record.expect("a coin");
        (coin, an, mfs.expect("months are required"))
    })
    .collect()
}

/// Puts coins into a new data folder.
fn put_coins(settings: &Settings, coins: &[(Coin, An, Mfs)]) {
    let mut import = Import::default();
    for &(coin, an, mfs) in coins {
        import.add_coin(coin, an, mfs);
    }
    // On a thread of its own, since an executor leaves its mark on the thread it ran on.
    let done = std::thread::scope(|scope| {
        let work = || {
            let folder = OfflineFolder::open(&settings.data, true).expect("a data folder");
            folder.import(&import, OnConflict::Refuse, || ())
        };
        scope.spawn(work).join()
    });
    match done.expect("an import without a panic").expect("an import") {
        Outcome::Done(counts) => assert_eq!(counts.new, coins.len() as u64),
        Outcome::Refused(conflicts) => panic!("an empty folder refuses {conflicts:?}"),
    }
}
