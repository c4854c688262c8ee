//! From a request to its response, through shards: one file a command group. Knows commands and
//! statuses; knows no sockets, so that a simulated client speaks to the same code as a real one.
//!
//! A request that memory can answer is answered in one go, with no wait, no copy and no allocation
//! (`now` in each group's file). One about a single coin that waits for the log, or for another
//! shard, has its answer composed at once and held back (`parking`). Everything else is answered by
//! a task of its own (`later`).

mod authentication;
mod ballot;
pub mod budget;
mod datagrams;
mod executive;
mod healing;
mod key_healing;
mod keys;
mod latency;
mod locker_counts;
mod lockers;
mod needs;
mod order;
mod parking;
mod patience;
mod rate;
mod repeats;
mod scatter;
mod session;
mod status;
mod stored;
mod sums;
mod trades;
mod trail;

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use slab::Slab;

use crate::runtime::Environment;
use crate::{
    mesh::Mesh,
    protocol::{
        AdminKey, Command, Rules, Status, header::KeySource, healing::in_dialect,
        status_group::SoftwareVersion,
    },
    shard::{
        ChangeCounts, Counters, IndexCounts, NotChanged, Shard, Stranger, TradeCounts, Unavailable,
    },
};

use budget::{AccountId, Budget, BudgetCounts};
use latency::Latency;
use parking::Parking;

pub use datagrams::{DatagramCounts, DatagramRules};
pub use healing::{Healing, KeyHealing, NoOthers, NoVote, Others};
pub use latency::Measured;
pub use locker_counts::{LockerCounts, Refusals};
pub use parking::Release;
pub use rate::Rate;
pub use session::{Outcome, Session, Transport};
pub use trades::{NoSettlement, Purchase, QuestionRates, Settle, Settled, Trading};
pub use trail::HealingCounts;

/// What the version command answers: eight characters.
pub const SOFTWARE_VERSION: SoftwareVersion = match SoftwareVersion::new(*b"raida0.1") {
    Some(version) => version,
    None => panic!("eight printable characters"),
};

/// The status of a request whose change was not made.
impl From<Unavailable> for Status {
    fn from(_: Unavailable) -> Status {
        Status::UNAVAILABLE
    }
}

impl From<NotChanged> for Status {
    fn from(why: NotChanged) -> Status {
        match why {
            NotChanged::Unavailable => Status::UNAVAILABLE,
            NotChanged::Crowded => Status::OUT_OF_MEMORY,
        }
    }
}

/// The commands of one core.
pub struct Service<E: Environment> {
    node: Rc<Node<E>>,
}

/// Who sent a request, as far as its answer depends on it.
#[derive(Clone, Copy, Debug)]
struct Caller {
    transport: Transport,
    address: IpAddr,
    /// What the request is encrypted with, where that proves something.
    key: KeySource,
    /// Bytes of the datagram that the request came in; 0 for a stream.
    datagram_bytes: usize,
    /// Maximum number of bytes of an answer's payload. Where the answer would have more, the
    /// request is refused with [`Status::ASK_OVER_TCP`], and nothing is changed.
    payload_bytes_max: usize,
    /// Where it tells what it changes, once it is [carried out](Node::once).
    change: Option<usize>,
    /// When it came, where that matters.
    came: Duration,
    /// The account that pays for its bytes; nobody's while it is answered at once.
    account: AccountId,
}

impl Caller {
    /// The account whose share it takes.
    fn stranger(&self) -> Stranger {
        match self.transport {
            Transport::Tcp => Stranger::of(self.address),
            Transport::Udp => Stranger::of_datagram(self.address),
        }
    }

    /// The datagram that the request came as; `None` where it came over a stream.
    fn came_as(&self) -> Option<datagrams::CameAs> {
        (self.transport == Transport::Udp).then_some(datagrams::CameAs {
            address: self.address,
            bytes: self.datagram_bytes,
        })
    }

    /// Refuses a request whose answer would have too many bytes of payload.
    fn takes(&self, payload_bytes: usize) -> Result<(), Status> {
        match payload_bytes <= self.payload_bytes_max {
            true => Ok(()),
            false => Err(Status::ASK_OVER_TCP),
        }
    }
}

struct Node<E: Environment> {
    rules: Cell<Rules>,
    admin_key: AdminKey,
    mesh: Rc<Mesh<E>>,
    parking: Rc<Parking<E>>,
    latency: Rc<Latency>,
    budget: Rc<Budget>,
    healing: Healing,
    healing_rates: rate::Rates,
    wrong_claims: rate::WrongClaims,
    own_claims: rate::OwnClaims,
    datagrams: Rc<datagrams::Datagrams>,
    trail: trail::Trail,
    questions: trades::Questions,
    trading: Trading,
    lockers: locker_counts::Counted,
    /// The changes of requests that are being carried out.
    changes: RefCell<Slab<repeats::Change>>,
    /// Whether the 'payment table full' error was already logged.
    payments_are_full: Cell<bool>,
    /// Requests that got no answer since the disk did not answer.
    given_up: Cell<u64>,
    /// Those requests that are not over, each with a task of its own.
    orphans: Cell<usize>,
}

impl<E: Environment> Clone for Service<E> {
    fn clone(&self) -> Self {
        Service {
            node: self.node.clone(),
        }
    }
}

impl<E: Environment> Service<E> {
    /// The commands, by these rules, on this core's end of the mesh. The mesh end has no other
    /// service.
    pub fn new(
        mesh: Rc<Mesh<E>>,
        rules: Rules,
        admin_key: AdminKey,
        datagrams: DatagramRules,
        healing: Healing,
        trading: Trading,
    ) -> Self {
        let heals = healing.keys.secrets.is_some() || healing.others.are_known();
        mesh.shard().note_changes(heals);
        let latency = Rc::new(Latency::default());
        let datagrams = Rc::new(datagrams::Datagrams::new(datagrams));
        // Half of what the others tolerate, for all cores of this node together.
        let own_claims_per_min = match healing.wrong_claims_per_min {
            0 => 0,
            most => (most / 2 / u32::from(mesh.shards())).max(1),
        };
        let parking = Parking::new(mesh.shard().clone(), latency.clone(), datagrams.clone());
        let requests = parking.clone();
        mesh.listen(Box::new(move |id, passed| requests.end(id, passed)));
        let service = Service {
            node: Rc::new(Node {
                rules: Cell::new(rules),
                admin_key,
                mesh,
                parking,
                latency,
                budget: Budget::new(budget::BudgetLimits::default()),
                healing_rates: rate::Rates::new(healing.rate),
                wrong_claims: rate::WrongClaims::new(healing.wrong_claims_per_min),
                own_claims: rate::OwnClaims::new(own_claims_per_min),
                datagrams,
                healing,
                trail: trail::Trail::new(),
                questions: trades::Questions::new(trading.questions),
                trading,
                lockers: locker_counts::Counted::default(),
                changes: RefCell::default(),
                payments_are_full: Cell::default(),
                given_up: Cell::default(),
                orphans: Cell::default(),
            }),
        };
        let late = service.node.clone().give_up_late_answers();
        service.node.shard().environment.spawn(late);
        service
    }

    /// Requests of this core that were given up without an answer, since the disk did not answer.
    pub fn given_up(&self) -> u64 {
        self.node.given_up.get()
    }

    /// What the node is called and what it accepts.
    pub fn rules(&self) -> Rules {
        self.node.rules.get()
    }

    /// Changes the longest body that is accepted, in bytes, from the next request on.
    pub fn set_max_body_bytes(&self, max_body_bytes: usize) {
        let rules = Rules {
            max_body_bytes,
            ..self.rules()
        };
        self.node.rules.set(rules);
    }

    /// Limits what waiting requests may take of this core.
    pub fn budget(&self) -> &Rc<Budget> {
        &self.node.budget
    }

    /// How much of that is in use, and what was refused for lack of it.
    pub fn budget_counts(&self) -> BudgetCounts {
        self.node.budget.counts()
    }

    /// How long requests of this command took on this core, from being handed over to the answer
    /// being there to send: what the sockets and the network add is not in it. `None` where none
    /// was answered yet. A request that is refused for its header or its length alone is not
    /// counted.
    ///
    /// Of requests that are answered at once, the first 1,000 of a command are measured and then
    /// one in 64, which counts as 64; those that have to wait are all measured.
    pub fn latency(&self, command: Command) -> Option<Measured> {
        self.node.latency.of(command)
    }

    /// What this core has done since the start: of all commands, of healing, and how many tickets
    /// its shard keeps now; and how many encryption tickets it remembers as used.
    pub fn counts(&self) -> (Counters, HealingCounts, usize, usize) {
        let shard = self.node.shard();
        let healing = self.node.trail.counts();
        (
            shard.counters.get(),
            healing,
            shard.ticket_count(),
            shard.used_ticket_count(),
        )
    }

    /// What this core has not sent over UDP since the start.
    pub fn datagram_counts(&self) -> DatagramCounts {
        self.node.datagrams.counts()
    }

    /// Requests that this core's shard remembers as carried out.
    pub fn repeats_kept(&self) -> usize {
        self.node.shard().repeats_kept()
    }

    /// What this core has done about lockers and trades since the start, and what its shard keeps
    /// track of now.
    pub fn locker_counts(&self) -> (LockerCounts, IndexCounts, TradeCounts) {
        let (index, trades) = self.node.shard().locker_counts();
        (self.node.lockers.get(), index, trades)
    }

    /// How changes wait on this core.
    pub fn change_counts(&self) -> ChangeCounts {
        self.node.shard().change_counts()
    }

    /// Waits until answers that were [parked](Outcome::Parked) may go, and replaces the content of
    /// `released` by word of them. Only one task may poll it.
    pub fn poll_released(
        &self,
        context: &mut Context<'_>,
        released: &mut Vec<Release>,
    ) -> Poll<()> {
        self.node.parking.poll_released(context, released)
    }

    /// The requests of one connection, which take effect in the order they came where they touch
    /// the same coins. Or all datagrams of a core, which have no order.
    pub fn session(&self, transport: Transport) -> Session<E> {
        Session::new(self.node.clone(), transport)
    }
}

impl<E: Environment> Node<E> {
    fn shard(&self) -> &Shard<E> {
        self.mesh.shard()
    }

    /// Answers a command from memory, appending the payload to `out`; `None` where it has to wait:
    /// then nothing has happened and `out` may hold rubbish past its old end.
    #[inline]
    fn now(
        &self,
        command: Command,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        match command {
            Command::Echo => Some(self.echo()),
            Command::Version => Some(self.version(out)),
            Command::Detect => self.detect_now(payload, out),
            Command::DetectSum => self.detect_sum_now(payload),
            Command::GetTicket => self.healing_status(self.get_ticket_now(payload, caller, out)),
            Command::Validate => self.healing_status(self.validate_now(payload, caller, out)),
            Command::Find => self.healing_status(self.find_now(payload, out)),
            Command::EncryptionTicket => {
                self.healing_status(self.encryption_ticket_now(payload, caller, out))
            }
            Command::Peek => {
                let status = self.peek_now(payload, out)?;
                self.lockers.answered(command, status);
                Some(status)
            }
            _ => None,
        }
    }

    /// The status of a request of this command where too many wait for the same.
    fn crowded(&self, command: Command) -> Status {
        self.shard().note_crowded();
        self.no_room(command.group())
    }

    #[inline]
    fn healing_status(&self, status: Option<Status>) -> Option<Status> {
        Some(in_dialect(status?, self.rules.get().dialect))
    }

    /// Answers a command, however long it takes; `None` where the request gets no answer.
    ///
    /// A future is as large as the largest command in it, and is allocated for each request. So the
    /// rare commands are in a box of their own.
    async fn later(
        &self,
        command: Command,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        if command.is_carried_out_once() {
            return self.once(command, payload, caller, out).await;
        }
        let answered = Box::pin(self.rarely(command, payload, caller, out)).await;
        Some(answered.unwrap_or_else(|refusal| refusal))
    }

    async fn rarely(
        &self,
        command: Command,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        match command {
            Command::Echo => Ok(self.echo()),
            Command::Version => Ok(self.version(out)),
            Command::Stats => self.stats(payload, out).await,
            Command::Audit => Ok(self.audit(out).await),
            Command::Detect => self.detect(payload, out).await,
            Command::DetectSum => self.detect_sum(payload).await,
            Command::Pown => self.pown(payload, out).await,
            Command::PownSum => self.pown_sum(payload, caller).await,
            Command::PownDerive => self.pown_derive(payload, caller).await,
            Command::GetTicket
            | Command::GetTicketSum
            | Command::Validate
            | Command::Find
            | Command::Fix
            | Command::EncryptionTicket
            | Command::FixEncryption => {
                let healed = self.heal(command, payload, caller, out).await;
                let dialect = self.rules.get().dialect;
                healed
                    .map(|status| in_dialect(status, dialect))
                    .map_err(|status| in_dialect(status, dialect))
            }
            Command::AvailableSns => self.available_sns(payload, out).await,
            Command::CreateCoins => self.create_coins(payload, caller, out).await,
            Command::DeleteCoins => self.delete_coins(payload, out).await,
            Command::FreeCoins => self.free_coins(payload).await,
            Command::AllSns => self.all_sns(payload, caller, out).await,
            Command::PeekTrade
            | Command::StoreSum
            | Command::Peek
            | Command::Remove
            | Command::PutForSale
            | Command::ListForSale
            | Command::Buy
            | Command::StoreMultiple
            | Command::RemoveTrade => {
                let answered = self.keep(command, payload, caller, out).await;
                let status = answered.unwrap_or_else(|refusal| refusal);
                self.lockers.answered(command, status);
                Ok(status)
            }
        }
    }

    /// Answers a command about lockers and trades.
    async fn keep(
        &self,
        command: Command,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        match command {
            Command::StoreSum => self.store_sum(payload).await,
            Command::StoreMultiple => self.store_multiple(payload, out).await,
            Command::Peek => self.peek(payload, caller, out).await,
            Command::Remove => self.remove(payload, out).await,
            Command::PutForSale => self.put_for_sale(payload, caller).await,
            Command::ListForSale => self.list_for_sale(payload, out).await,
            Command::Buy => self.buy(payload, caller).await,
            Command::RemoveTrade => self.remove_trade(payload, caller).await,
            Command::PeekTrade => self.peek_trade(payload, caller, out).await,
            other => unreachable!("{} is of another group", other.name()),
        }
    }
}
