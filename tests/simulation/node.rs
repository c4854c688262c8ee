//! A node in the simulator: recovered, opened, joined.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use raida::runtime::{Environment, Signal};
use raida::{
    coin::{Denomination, ShardId},
    mesh::{Checkpoints, Mesh, inboxes},
    shard::{Asked, NotChanged, Shard, ShardSettings, Single, TicketSettings, TradeSettings},
    store::{
        NodeSecret,
        log::{Durability, LogSettings},
        recovery::{OnLoss, Recovered, RecoveryError, recover, recover_with},
    },
};

use crate::world::{SimEnvironment, World};

/// How a node is set up for one run.
#[derive(Clone, Debug)]
pub struct Setup {
    pub shards: u16,
    pub cache_pages: usize,
    pub segment_bytes: u64,
    pub checkpoint_interval: Duration,
    pub durability: Durability,
    pub flush_interval: Duration,
    pub disk_timeout: Duration,
}

pub struct Node {
    pub meshes: Vec<Rc<Mesh<SimEnvironment>>>,
    /// One a mesh.
    pub singles: Vec<Rc<Singles>>,
    pub checkpoints: Rc<Checkpoints>,
}

/// Asks about one coin without a task, as the service does.
pub struct Singles {
    mesh: Rc<Mesh<SimEnvironment>>,
    next: Cell<usize>,
    answers: RefCell<BTreeMap<usize, Option<Result<bool, NotChanged>>>>,
    answered: Signal,
}

impl Singles {
    fn listen(mesh: &Rc<Mesh<SimEnvironment>>) -> Rc<Singles> {
        let singles = Rc::new(Singles {
            mesh: mesh.clone(),
            next: Cell::default(),
            answers: RefCell::default(),
            answered: Signal::default(),
        });
        let listener = Rc::downgrade(&singles);
        mesh.listen(Box::new(move |id, passed| {
            let Some(listener) = listener.upgrade() else {
                return; // nobody asks any more
            };
            let before = listener.answers.borrow_mut().insert(id, passed);
            assert!(before.is_none(), "a question is answered once");
            listener.answered.notify();
        }));
        singles
    }

    /// Whether the coin passed; `None` where that takes a task, and nothing has happened, or where
    /// the same is under way.
    pub async fn ask(&self, single: Single) -> Option<Result<bool, NotChanged>> {
        let id = self.next.get();
        self.next.set(id + 1);
        match self.mesh.ask_one(single, id) {
            Asked::Now(passed) => return Some(passed),
            Asked::HasToWait | Asked::Repeated => return None,
            Asked::UnderWay => {}
        }
        loop {
            let moment = self.answered.moment();
            if let Some(passed) = self.answers.borrow_mut().remove(&id) {
                return passed;
            }
            self.answered.after(moment).await;
        }
    }
}

pub fn secret() -> NodeSecret {
    NodeSecret::new(*b"a simulated node")
}

/// Brings the data folder in order.
pub async fn recover_folder(world: Rc<World>) -> Result<Recovered, RecoveryError> {
    let environment = SimEnvironment::new(&world);
    recover(environment.storage(), &secret()).await
}

/// The same, where files are gone.
pub async fn recover_accepting_loss(world: Rc<World>) -> Result<Recovered, RecoveryError> {
    let environment = SimEnvironment::new(&world);
    recover_with(environment.storage(), &secret(), OnLoss::Accept).await
}

/// Opens all shards of a recovered folder.
pub async fn open(world: Rc<World>, setup: Setup, recovered: Recovered) -> std::io::Result<Node> {
    let (meshes, checkpoints) = open_meshes(world, setup, recovered).await?;
    Ok(Node {
        singles: meshes.iter().map(Singles::listen).collect(),
        meshes,
        checkpoints,
    })
}

type Meshes = Vec<Rc<Mesh<SimEnvironment>>>;

/// The same, with a listener on the meshes.
pub async fn open_meshes(
    world: Rc<World>,
    setup: Setup,
    recovered: Recovered,
) -> std::io::Result<(Meshes, Rc<Checkpoints>)> {
    let run = world.random(|random| random.next());
    let mut shards = Vec::new();
    for shard in 0..setup.shards {
        let settings = ShardSettings {
            id: ShardId::new(shard),
            shards: setup.shards,
            cache_pages: setup.cache_pages,
            secret: secret(),
            log: LogSettings {
                shard,
                segment_bytes: setup.segment_bytes,
                durability: setup.durability,
                flush_interval: setup.flush_interval,
                run,
                round: recovered.round,
            },
            tickets: TicketSettings {
                pool: 64,
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
            repeats_max: 16_384,
            disk_timeout: setup.disk_timeout,
        };
        shards.push(Shard::open(SimEnvironment::new(&world), settings, &recovered).await?);
    }
    let inboxes = inboxes(setup.shards);
    let meshes: Vec<Rc<Mesh<SimEnvironment>>> = shards
        .into_iter()
        .map(|shard| Mesh::join(shard, inboxes.clone()))
        .collect();
    let checkpoints = Rc::new(Checkpoints::new(setup.checkpoint_interval, recovered.round));
    world.spawn(checkpoints.clone().run(meshes[0].clone()));
    for mesh in &meshes[1..] {
        world.spawn(Checkpoints::forward_wishes(mesh.clone()));
    }
    Ok((meshes, checkpoints))
}

impl Node {
    /// Ends as `raida serve` does when it is told to: what was answered is checkpointed, then the
    /// logs are closed.
    pub async fn stop(&self) {
        // An earlier failure of the disk is told of once more to every shard and page file.
        let mut tries = 0;
        while self.checkpoints.make(&self.meshes[0]).await.is_err() {
            tries += 1;
            assert!(
                tries <= Denomination::COUNT * self.meshes.len(),
                "nothing hinders a checkpoint any more"
            );
        }
        for mesh in &self.meshes {
            mesh.shard().log.close().await;
            mesh.stop();
        }
    }
}
