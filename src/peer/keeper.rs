use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use crate::runtime::sleep;

use super::{
    Lost, PeerSettings,
    back_off::BackOff,
    book::{Book, Copied},
    call::Asked,
    conversation::{Conversation, End, Step},
    counters::Counting,
    dial::{dial, within},
};
use crate::protocol::RaidaId;
use crate::runtime::turn;

/// What all servers have in common on a core.
#[derive(Debug)]
pub(super) struct Common {
    pub settings: PeerSettings,
    pub book: Book,
    pub copied: RefCell<Copied>,
    pub counting: Rc<Counting>,
    pub in_flight: Rc<Cell<usize>>,
}

/// One server, as one core sees it.
#[derive(Debug)]
pub(super) struct Peer {
    raida: RaidaId,
    common: Rc<Common>,
    pub in_flight: Rc<Cell<usize>>,
    standing: Cell<Standing>,
    /// Claims that wait for the connection.
    waiting: RefCell<VecDeque<Asked>>,
    /// The task that has the connection.
    task: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing is wrong with it, and nobody needs it: there is no connection and no task.
    Unused,
    /// It is connected, or is going to be.
    InUse,
    /// It has failed: it is tried in the background, and nobody waits for it.
    Down,
}

impl Common {
    /// Where a server is, as the book says now.
    pub fn addresses(&self, raida: RaidaId) -> Option<Arc<[SocketAddr]>> {
        self.refresh();
        self.copied.borrow().addresses(raida).cloned()
    }

    pub fn refresh(&self) {
        if self.book.differs(&self.copied.borrow()) {
            let fresh = self.book.copy();
            self.copied.replace(fresh);
        }
    }
}

impl Peer {
    pub fn new(raida: RaidaId, common: Rc<Common>) -> Rc<Peer> {
        Rc::new(Peer {
            raida,
            common,
            in_flight: Rc::default(),
            standing: Cell::new(Standing::Unused),
            waiting: RefCell::default(),
            task: RefCell::default(),
        })
    }

    /// Has a claim asked; it is lost at once while the server is down.
    pub fn ask(self: &Rc<Peer>, asked: Asked) {
        match self.standing.get() {
            Standing::Down => asked.end(Err(Lost::Down)),
            Standing::InUse => {
                self.waiting.borrow_mut().push_back(asked);
                if let Some(task) = &*self.task.borrow() {
                    task.wake_by_ref();
                }
            }
            Standing::Unused => {
                self.waiting.borrow_mut().push_back(asked);
                self.standing.set(Standing::InUse);
                crate::runtime::spawn_local(keep(self.clone())).detach();
            }
        }
    }

    /// Loses the claims that wait for the connection.
    fn lose(&self, lost: Lost) {
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(|asked| asked.end(Err(lost)));
    }

    async fn connect(&self) -> io::Result<Conversation> {
        let due = Instant::now() + self.common.settings.connect_timeout;
        let mut addresses = self.common.addresses(self.raida).unwrap_or_default();
        if addresses.is_empty() {
            let book = &self.common.book;
            book.look_again(self.raida);
            let looked_up = poll_fn(|context| book.poll_looked_up(self.raida, context));
            // Where the look-up takes too long, there still is no address.
            within(due - Instant::now(), looked_up).await;
            addresses = self.common.addresses(self.raida).unwrap_or_default();
        }
        let settings = &self.common.settings;
        let left = due.saturating_duration_since(Instant::now());
        let connected = dial(&addresses, settings.from, left).await?;
        Ok(Conversation::new(connected, self.raida, settings))
    }

    /// Talks until it is over. A server that is down is tried out first.
    async fn converse(&self, mut with: Conversation, back_off: &mut BackOff) -> End {
        if self.standing.get() == Standing::Down {
            // Nobody waits for the trial, so it may take as long as an answer may.
            with.try_out(Instant::now() + self.common.settings.reply_timeout);
        }
        loop {
            match poll_fn(|context| self.poll_step(&mut with, context)).await {
                // The trial alone does not count: a server that answers nothing else is down.
                Step::Answered => back_off.worked(),
                Step::TrialPassed => {
                    tracing::info!(raida = %self.raida, "a server answers again");
                    self.standing.set(Standing::InUse);
                }
                Step::Turn => {
                    back_off.worked();
                    turn().await;
                }
                Step::Over(end) => return end,
            }
        }
    }

    fn poll_step(&self, with: &mut Conversation, context: &mut Context<'_>) -> Poll<Step> {
        *self.task.borrow_mut() = Some(context.waker().clone());
        if self.is_still_at(with.address) {
            self.hand_over(with);
        } else if with.is_quiet() {
            return Poll::Ready(Step::Over(End::Moved));
        }
        with.poll_step(context)
    }

    fn is_still_at(&self, address: SocketAddr) -> bool {
        self.common.refresh();
        let copied = self.common.copied.borrow();
        let addresses = copied.addresses(self.raida);
        addresses.is_some_and(|addresses| addresses.contains(&address))
    }

    fn hand_over(&self, conversation: &mut Conversation) {
        loop {
            let Some(asked) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            if asked.due <= Instant::now() {
                asked.end(Err(Lost::TimedOut));
            } else if asked.is_wanted() {
                conversation.claim(asked);
            }
        }
    }
}

/// Keeps the connection with a server while there is use for it, and tries the server again and
/// again while it is down.
async fn keep(peer: Rc<Peer>) {
    let Common {
        settings,
        counting,
        book,
        ..
    } = &*peer.common;
    let mut back_off = BackOff::new(settings.back_off_first, settings.back_off_max);
    while peer.common.addresses(peer.raida).is_some() {
        let (lost, reason) = match peer.connect().await {
            Ok(conversation) => {
                counting.count(|counters| counters.connections += 1);
                match peer.converse(conversation, &mut back_off).await {
                    end @ (End::Idle | End::Closed | End::Moved) => {
                        let is_idle = matches!(end, End::Idle);
                        counting.count(|c| c.connections_idle += u64::from(is_idle));
                        if peer.waiting.borrow().is_empty() {
                            peer.standing.set(Standing::Unused);
                            return;
                        }
                        continue;
                    }
                    end => {
                        counting.count(|counters| counters.connections_lost += 1);
                        (Lost::Down, end.to_string())
                    }
                }
            }
            Err(error) => {
                counting.count(|counters| counters.connections_failed += 1);
                match error.kind() {
                    io::ErrorKind::TimedOut => (Lost::TimedOut, error.to_string()),
                    _ => (Lost::Down, error.to_string()),
                }
            }
        };
        match peer.standing.replace(Standing::Down) {
            Standing::Down => {
                tracing::debug!(raida = %peer.raida, reason, "a server is still down")
            }
            _ => tracing::warn!(
                raida = %peer.raida, reason,
                "a server is down: it gives no votes until it answers again"
            ),
        }
        // This comes after the standing has changed: a caller that hears of it and asks again at
        // once is told the same.
        peer.lose(lost);
        book.look_again(peer.raida);
        sleep(back_off.failed()).await;
    }
    peer.standing.set(Standing::Unused);
    peer.lose(Lost::NoSuchPeer);
}
