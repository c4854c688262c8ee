use std::{
    path::PathBuf,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

use futures_util::future::{Either, select};
use glommio::timer::sleep;

use super::{
    Adjustable,
    meeting::Meeting,
    memory::{self, Load, Tide},
    settle::Cashier,
};
use crate::runtime::{Disk, Environment, Live, WallClock, quiet};
use crate::{
    admin::{self, Mailbox},
    coin::ShardId,
    mesh::{Checkpoints, Inbox, Mesh},
    net::{self, Drained, Limits, Sockets, Stop},
    peer::{Book, PeerSettings, Peers},
    protocol::{AdminKey, Rules, lockers::Currency},
    service::{DatagramRules, Healing, KeyHealing, QuestionRates, Rate, Service, Trading},
    settlement::Settlement,
    shard::{Shard, ShardSettings},
    store::recovery::Recovered,
};

/// Time that the last checkpoint of a node that stops may take; the end of its logs may take as
/// long again. What the checkpoint does not get done is in the logs. With the 5 s that clients have
/// for their answers, the node ends within 10 s whatever its disk does.
const LAST_CHECKPOINT: Duration = Duration::from_secs(2);
/// How often a core looks whether settings have changed, which they do on an operator's signal, and
/// whether a flood is over. Nobody waits for either.
const SETTINGS_LOOK: Duration = Duration::from_secs(1);

/// What a core needs to become part of a node.
pub(super) struct Core {
    pub data: PathBuf,
    pub clock: WallClock,
    pub shard: ShardSettings,
    pub recovered: Arc<Recovered>,
    pub inboxes: Arc<[Inbox<Live>]>,
    pub mailboxes: Arc<[Mailbox]>,
    pub sockets: Sockets,
    pub limits: Arc<Limits>,
    pub stop: Stop,
    pub rules: Rules,
    pub admin_key: AdminKey,
    /// Coins of a ticket and of a fix, at most.
    pub ticket_coins_max: usize,
    /// Requests for healing from one address.
    pub healing_rate: Rate,
    /// Wrong claims in a server's name from one address.
    pub wrong_claims_per_min: u32,
    pub datagrams: DatagramRules,
    pub key_healing: KeyHealing,
    pub peers: PeerSettings,
    pub settlement: Settlement,
    /// What coins may be offered for.
    pub currencies: Vec<Currency>,
    pub question_rates: QuestionRates,
    pub book: Book,
    pub adjustable: Arc<Mutex<Adjustable>>,
    /// Told once whether the shard is open.
    pub ready: Sender<std::io::Result<()>>,
    /// Told twice how the core ends.
    pub ending: Sender<LastWord>,
    /// Where cores meet when all have answered their last request.
    pub drained: Meeting,
    /// Where cores meet when the last checkpoint is made.
    pub checkpointed: Meeting,
}

/// What a core says when it ends.
pub(super) enum LastWord {
    /// The core serves no more; with what was cut off.
    Served(std::io::Result<Drained>),
    /// The disk does nothing more either; the core's thread ends now.
    Quiet,
}

impl Core {
    /// Runs on a core until the node stops.
    pub async fn run(self) {
        let ending = self.ending.clone();
        // A node that nobody waits for does not use the last words.
        let _ = ending.send(LastWord::Served(self.serve().await));
        quiet().await;
        let _ = ending.send(LastWord::Quiet);
    }

    async fn serve(self) -> std::io::Result<Drained> {
        let environment = Live::with_clock(Disk::new(&self.data), self.clock);
        let opened = Shard::open(environment, self.shard.clone(), &self.recovered).await;
        let shard = match opened {
            Ok(shard) => shard,
            Err(error) => {
                // The starter hears of it, and stops the others.
                let _ = self.ready.send(Err(error));
                self.stop.stopped().await;
                self.drained.attend().await;
                self.checkpointed.attend().await;
                return Ok(Drained::default());
            }
        };
        let round = self.recovered.round;
        drop(self.recovered);
        let mesh = Mesh::join(shard.clone(), self.inboxes);
        let healing = Healing {
            max_coins: self.ticket_coins_max,
            rate: self.healing_rate,
            wrong_claims_per_min: self.wrong_claims_per_min,
            keys: self.key_healing,
            others: Peers::new(self.peers, self.book),
        };
        let cashier = Cashier {
            raida: self.rules.raida,
            settlement: self.settlement,
        };
        let trading = Trading {
            settlement: Rc::new(cashier),
            accepted: self.currencies,
            questions: self.question_rates,
        };
        let service = Service::new(
            mesh.clone(),
            self.rules,
            self.admin_key,
            self.datagrams,
            healing,
            trading,
        );
        service.budget().change(self.limits.waiting());
        let adjustable = *lock(&self.adjustable);
        let checkpoints = Rc::new(Checkpoints::new(adjustable.checkpoint_interval, round));
        let is_first = shard.id == ShardId::new(0);
        if is_first {
            shard
                .environment
                .spawn(checkpoints.clone().run(mesh.clone()));
        } else {
            shard
                .environment
                .spawn(Checkpoints::forward_wishes(mesh.clone()));
        }
        shard.environment.spawn(follow(
            self.adjustable,
            self.limits.clone(),
            service.clone(),
            shard.clone(),
            checkpoints.clone(),
        ));
        shard.environment.spawn(admin::answer(
            self.mailboxes.clone(),
            shard.id.index(),
            service.clone(),
            shard.environment.clone(),
        ));
        // A starter that has gone away has no more use for the news.
        let _ = self.ready.send(Ok(()));

        let drained = net::serve(self.sockets, service, self.limits, self.stop.clone()).await;
        if drained.is_err() {
            // A core that cannot serve takes the node down with it, in order.
            self.stop.stop();
        }
        // From here on the core may end at any time, so new questions would get no answer.
        self.mailboxes[shard.id.index()].close();
        self.drained.attend().await;
        if is_first {
            let last = pin!(checkpoints.make(&mesh));
            if let Either::Right(_) = select(last, pin!(sleep(LAST_CHECKPOINT))).await {
                tracing::warn!(
                    "the last checkpoint was not done in time: the next start reads the logs"
                );
            }
        }
        self.checkpointed.attend().await;
        let closed = pin!(shard.log.close());
        if let Either::Right(_) = select(closed, pin!(sleep(LAST_CHECKPOINT))).await {
            tracing::error!(
                shard = shard.id.index(),
                "the log could not be written to its end"
            );
        }
        mesh.stop();
        drained
    }
}

/// Takes over changed settings, and gives back memory that a flood of requests took, for as long as
/// the node runs.
async fn follow(
    adjustable: Arc<Mutex<Adjustable>>,
    limits: Arc<Limits>,
    service: Service<Live>,
    shard: Rc<Shard<Live>>,
    checkpoints: Rc<Checkpoints>,
) {
    let mut known = *lock(&adjustable);
    let mut tide = Tide::default();
    loop {
        sleep(SETTINGS_LOOK).await;
        let (bytes, most_bytes) = service.budget().take_peak();
        if tide.is_out(Load {
            bytes,
            most_bytes,
            connections: limits.open_connections(),
        }) {
            glommio::executor().spawn_blocking(memory::give_back).await;
        }
        service.set_max_body_bytes(limits.max_body_bytes());
        service.budget().change(limits.waiting());
        let now = *lock(&adjustable);
        if now != known {
            known = now;
            shard.log.set_flush_interval(now.flush_interval);
            checkpoints.set_interval(now.checkpoint_interval);
        }
    }
}

/// Locks the settings. They are copied in and out whole, so a panic elsewhere leaves them sound.
pub(super) fn lock(adjustable: &Mutex<Adjustable>) -> std::sync::MutexGuard<'_, Adjustable> {
    adjustable.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until every core has said that it is ready.
///
/// # Errors
/// The first core's that is not.
pub(super) fn all_ready(ready: &Receiver<std::io::Result<()>>, cores: u16) -> std::io::Result<()> {
    for _ in 0..cores {
        let gone = |_| std::io::Error::other("a core ended before it was ready");
        ready.recv().map_err(gone)??;
    }
    Ok(())
}
