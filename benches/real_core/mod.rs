//! The parts of a node's core, on the benchmark's own thread and on a real disk: an executor, a
//! data folder in target/tmp, and the settings that a node has by default.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::{rc::Rc, sync::Arc, time::Duration};

use criterion::{BenchmarkGroup, measurement::WallTime};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use raida::runtime::Disk;
use raida::{
    coin::{An, Coin, Denomination, Mfs, PageId, ShardId},
    protocol::{Dialect, RaidaId, ResponseCounter, Rules},
    service::{Healing, KeyHealing, NoOthers, Rate},
    shard::{ShardSettings, TicketSettings, TradeSettings},
    store::{
        DataFolder, NodeSecret,
        import::{Import, OnConflict},
        log::{Durability, LogSettings},
        offline::OfflineFolder,
        recovery::{Recovered, recover},
    },
};

/// Pages of all denominations.
pub const PAGES: usize = 1_000 * Denomination::COUNT;

/// A data folder, removed when this is dropped.
pub struct Folder {
    /// What holds it.
    pub at: tempfile::TempDir,
    _open: DataFolder,
}

impl Folder {
    /// A folder in which these coins are in circulation.
    pub fn with(coins: impl IntoIterator<Item = (Coin, An)>) -> Folder {
        // Not the system's folder for temporary files, which may be memory.
        let at = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut import = Import::default();
        for (coin, an) in coins {
            import.add_coin(coin, an, Mfs::new(1));
        }
        let path = at.path().to_owned();
        // On a thread of its own, since an executor leaves its mark on the thread it ran on.
        let imported = std::thread::spawn(move || {
            let folder = OfflineFolder::open(&path, true).expect("a data folder");
            folder
                .import(&import, OnConflict::Refuse, || ())
                .expect("coins go into a new folder");
        });
        imported.join().expect("an import without a panic");
        let open = DataFolder::open(at.path(), true).expect("a data folder");
        Folder { at, _open: open }
    }

    /// Its files, for the executor that this runs on.
    pub fn disk(&self) -> Disk {
        Disk::new(self.at.path())
    }
}

/// The executor of a core that is pinned nowhere.
pub fn executor() -> LocalExecutor {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(1 << 20)
        .make()
        .expect("an executor: io_uring is there, and memory may be locked")
}

/// What the folder holds, as a start finds it.
pub async fn recovered(disk: &Disk) -> Arc<Recovered> {
    Arc::new(recover(disk, &secret()).await.expect("a sound folder"))
}

/// A shard as a node sets it up.
pub fn shard_settings(shard: u16, shards: u16, cache_pages: usize) -> ShardSettings {
    ShardSettings {
        id: ShardId::new(shard),
        shards,
        cache_pages,
        secret: secret(),
        log: log_settings(shard),
        tickets: TicketSettings {
            pool: 65_536,
            lifetime: Duration::from_secs(300),
            shares: 8,
            per_coin: 128,
        },
        trades: TradeSettings {
            pending: Duration::from_secs(60),
            holds: 1_024,
            holds_per_address: 16,
            questions_per_address: 4,
            questions_by_datagram: 32,
            payments_max: 1_024,
        },
        repeats_max: 131_072,
        disk_timeout: Duration::from_secs(10),
    }
}

/// Healing of a node that stands alone.
pub fn healing() -> Healing {
    Healing {
        max_coins: 4_096,
        rate: Rate { per_s: 0, burst: 1 },
        wrong_claims_per_min: 0,
        keys: KeyHealing::default(),
        others: Rc::new(NoOthers),
    }
}

/// Its log.
pub fn log_settings(shard: u16) -> LogSettings {
    LogSettings {
        shard,
        segment_bytes: 16 << 20,
        durability: Durability::Commit,
        flush_interval: Duration::from_millis(100),
        run: 1,
        round: 0,
    }
}

/// The limits of requests.
pub fn rules() -> Rules {
    Rules {
        raida: RaidaId::new(0).expect("0 is a server's number"),
        coin_id: 6,
        dialect: Dialect::Spec,
        response_counter: ResponseCounter::Restart,
        max_body_bytes: 1 << 20,
    }
}

/// A coin on the page with this index, and its authenticity number.
pub fn coin_on(page: usize, place: usize) -> (Coin, An) {
    let page = PageId::from_index(page).expect("there are so many pages");
    let an = (page.index() as u128) << 64 | (place as u128) << 32 | 0x5eed;
    (page.coin(place), An::new(an.to_be_bytes()))
}

/// Long enough for a steady figure, short enough for all of them to take minutes.
pub fn set_pace(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
}

fn secret() -> NodeSecret {
    NodeSecret::new(*b"a measured core!")
}
