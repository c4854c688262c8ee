use std::{
    cell::{Cell, OnceCell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use futures_util::future::join_all;
use slab::Slab;

use super::{
    errand::Slot,
    inbox::{Envelope, Inbox},
};
use crate::runtime::Environment;
use crate::{
    coin::ShardId,
    protocol::Status,
    shard::{
        Answered, Asked, Asker, Begun, CarriedOut, EndedChange, NotChanged, Outcome, Question,
        Shard, Single,
        question::{BeginChange, Detect, ExchangeEach, Flush, NumberOf},
    },
};

/// Messages handled before the core's other tasks get their turn.
const MESSAGES_A_TURN: usize = 128;

/// One core's end of the mesh: its own shard, reached directly, and the others, reached by message.
pub struct Mesh<E: Environment> {
    shard: Rc<Shard<E>>,
    inboxes: Arc<[Inbox<E>]>,
    asked: RefCell<Slab<Waiting>>,
    on_passed: OnceCell<PassedListener>,
    pub(super) transactions: Cell<u64>,
    is_stopped: Cell<bool>,
}

/// Hears what became of questions about one coin that were [under way](Asked::UnderWay), each once,
/// by the number they were asked under: whether the coin passed. `None` where the same is under way
/// for another request, and this one gets no answer.
pub type PassedListener = Box<dyn Fn(usize, Option<Result<bool, NotChanged>>)>;

/// A question that waits for another core's answer.
enum Waiting {
    Unanswered(Option<Waker>),
    Answered,
}

impl<E: Environment> Mesh<E> {
    /// Joins the mesh and answers the other shards' messages from now on.
    pub fn join(shard: Rc<Shard<E>>, inboxes: Arc<[Inbox<E>]>) -> Rc<Self> {
        assert_eq!(inboxes.len(), shard.shards as usize);
        let mesh = Rc::new(Mesh {
            shard: shard.clone(),
            inboxes,
            asked: RefCell::default(),
            on_passed: OnceCell::new(),
            transactions: Cell::default(),
            is_stopped: Cell::default(),
        });
        let end = Rc::downgrade(&mesh);
        shard.listen(Box::new(move |asker, passed| {
            if let Some(mesh) = end.upgrade() {
                mesh.tell(asker, Some(passed));
            }
        }));
        let end = Rc::downgrade(&mesh);
        shard.listen_to_stalls(Box::new(move |is_stalled| {
            if let Some(mesh) = end.upgrade() {
                mesh.tell_stalled(is_stalled);
            }
        }));
        let end = Rc::downgrade(&mesh);
        shard.flush_all_by(Box::new(move || {
            let end = end.clone();
            Box::pin(async move {
                if let Some(mesh) = end.upgrade() {
                    mesh.ask_all(|| Flush).await;
                }
            })
        }));
        shard.environment.spawn(mesh.clone().run());
        mesh
    }

    /// Asks the owner of one coin about it, without a task that waits for the answer: where that is
    /// not known at once, the [listener](Mesh::listen) is told under `id`.
    ///
    /// [`Asked::HasToWait`] and [`Asked::Repeated`] come only from this core's own shard.
    pub fn ask_one(&self, single: Single, id: usize) -> Asked {
        let owner = single.coin().page().owner(self.shards());
        if owner == self.shard.id {
            return self.shard.ask_one(&single, Asker::Here(id));
        }
        let from = self.shard.id;
        self.inboxes[owner.index()].send(Envelope::Single { from, id, single });
        Asked::UnderWay
    }

    /// Has `listener` told what became of questions about one coin. Call it once, before any is
    /// asked.
    pub fn listen(&self, listener: PassedListener) {
        let first = self.on_passed.set(listener).is_ok();
        assert!(first, "an end of the mesh has one listener");
    }

    /// This core's shard.
    pub fn shard(&self) -> &Rc<Shard<E>> {
        &self.shard
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shard.shards
    }

    /// Asks a shard. The question is on its way when this returns; the future gives the answer.
    pub fn ask<Q: Question>(
        &self,
        shard: ShardId,
        question: Q,
    ) -> impl Future<Output = Q::Answer> + use<'_, E, Q> {
        let asked = if shard == self.shard.id {
            Err(question)
        } else {
            let (errand, answer) = Slot::of(question);
            let mut asked = self.asked.borrow_mut();
            let id = asked.insert(Waiting::Unanswered(None));
            drop(asked);
            let from = self.shard.id;
            self.inboxes[shard.index()].send(Envelope::Question { from, id, errand });
            Ok((id, answer))
        };
        async move {
            match asked {
                Ok((id, answer)) => {
                    self.answered(id).await;
                    answer.take()
                }
                Err(question) => self.ask_own(question).await,
            }
        }
    }

    /// Asks every shard the same at the same time; answers come in the order of the shards.
    pub async fn ask_all<Q: Question>(&self, question: impl Fn() -> Q) -> Vec<Q::Answer> {
        let asked = (0..self.shards()).map(|shard| self.ask(ShardId::new(shard), question()));
        join_all(asked).await
    }

    /// Asks this core's shard.
    async fn ask_own<Q: Question>(&self, question: Q) -> Q::Answer {
        match question.begin(&self.shard) {
            Answered::Now(answer) => answer,
            Answered::Later(answer) => answer.await,
        }
    }

    /// Takes no more messages.
    pub fn stop(&self) {
        self.is_stopped.set(true);
        self.inboxes[self.shard.id.index()].wake();
    }

    /// Waits until the answer to a question is there.
    async fn answered(&self, id: usize) {
        poll_fn(|context| {
            let mut asked = self.asked.borrow_mut();
            match &mut asked[id] {
                Waiting::Unanswered(waker) => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
                Waiting::Answered => {
                    asked.remove(id);
                    Poll::Ready(())
                }
            }
        })
        .await;
    }

    async fn run(self: Rc<Self>) {
        let inbox = &self.inboxes[self.shard.id.index()];
        let mut handled = 0;
        while let Some(envelope) = poll_fn(|context| match self.is_stopped.get() {
            true => Poll::Ready(None),
            false => inbox.poll_next(context).map(Some),
        })
        .await
        {
            self.handle(envelope);
            handled += 1;
            if handled % MESSAGES_A_TURN == 0 {
                self.shard.environment.turn().await;
            }
        }
    }

    /// Takes the messages that have come.
    pub fn look_up(self: &Rc<Self>) {
        let inbox = &self.inboxes[self.shard.id.index()];
        for _ in 0..inbox.len() {
            if let Some(envelope) = inbox.take() {
                self.handle(envelope);
            }
        }
    }

    /// Answers a question about one of this shard's coins, however long it takes; `None` where it
    /// gets no answer.
    async fn answer_one(&self, single: Single) -> Option<Result<bool, NotChanged>> {
        let (exchange, sender) = match single {
            Single::Detect(coin, an) => {
                let passed = self.ask_own(Detect(vec![(coin, an)])).await;
                return Some(passed.map(|passed| passed[0]).map_err(NotChanged::from));
            }
            Single::Exchange(exchange, sender) => (exchange, sender),
        };
        let name = self.shard.name_of(&exchange);
        let waits = sender.waits;
        let known = match self.ask_own(BeginChange { name, waits }).await {
            Ok(Begun::New(known)) => known,
            Ok(Begun::UnderWay) => {
                self.shard
                    .count(|counters| counters.repeats_unanswered += 1);
                return None;
            }
            Ok(Begun::Ended(Outcome { status, .. })) => {
                self.shard.count(|counters| counters.repeats += 1);
                return Some(match status {
                    Status::ALL_PASS => Ok(true),
                    Status::ALL_FAIL => Ok(false),
                    Status::OUT_OF_MEMORY => Err(NotChanged::Crowded),
                    _ => Err(NotChanged::Unavailable),
                });
            }
            Err(refused) => {
                if refused == NotChanged::Crowded {
                    self.shard.note_crowded();
                }
                return Some(Err(refused));
            }
        };
        let is_repeat = known.is_some()
            && matches!(
                self.ask_own(NumberOf(exchange.coin)).await,
                Ok(Some(an)) if self.shard.was_carried_out(&exchange, an)
            );
        let passed = match is_repeat {
            true => Ok(true),
            false => {
                let passed = self.ask_own(ExchangeEach(vec![exchange])).await;
                passed.map(|passed| passed[0])
            }
        };
        let is_carried_out = passed == Ok(true) && !is_repeat;
        if is_carried_out {
            self.shard.count_powned(exchange.coin);
        }
        self.shard.end_change(EndedChange {
            name,
            sender,
            carried_out: is_carried_out.then(CarriedOut::default),
            outcome: Outcome::of_one(passed),
        });
        Some(passed)
    }

    /// Tells the home of a request that changes something, where it [began](BeginChange), that it
    /// is over.
    pub fn end_change(&self, home: ShardId, ended: EndedChange) {
        match home == self.shard.id {
            true => self.shard.end_change(ended),
            false => self.inboxes[home.index()].send(Envelope::Ended(ended)),
        }
    }

    fn tell(&self, asker: Asker, passed: Option<Result<bool, NotChanged>>) {
        match asker {
            Asker::Here(id) => {
                let listener = self.on_passed.get();
                listener.expect("whoever asks listens first")(id, passed);
            }
            Asker::Shard(shard, id) => {
                self.inboxes[shard.index()].send(Envelope::Passed { id, passed });
            }
        }
    }

    /// Tells all others whether this shard's disk answers.
    fn tell_stalled(&self, is_stalled: bool) {
        let from = self.shard.id;
        for (shard, inbox) in self.inboxes.iter().enumerate() {
            if shard != from.index() {
                inbox.send(Envelope::Stalled { from, is_stalled });
            }
        }
    }

    fn handle(self: &Rc<Self>, envelope: Envelope<E>) {
        match envelope {
            Envelope::Answered { id } => {
                let mut asked = self.asked.borrow_mut();
                let waiting = std::mem::replace(&mut asked[id], Waiting::Answered);
                drop(asked);
                if let Waiting::Unanswered(Some(waker)) = waiting {
                    waker.wake();
                }
            }
            Envelope::Passed { id, passed } => self.tell(Asker::Here(id), passed),
            Envelope::Ended(ended) => self.shard.end_change(ended),
            Envelope::Stalled { from, is_stalled } => self.shard.set_stalled(from, is_stalled),
            Envelope::Single { from, id, single } => {
                let asker = Asker::Shard(from, id);
                match self.shard.ask_one(&single, asker) {
                    Asked::Now(passed) => self.tell(asker, Some(passed)),
                    Asked::UnderWay => {}
                    Asked::Repeated => {
                        (self.shard).count(|counters| counters.repeats_unanswered += 1);
                        self.tell(asker, None);
                    }
                    Asked::HasToWait => {
                        let mesh = self.clone();
                        self.shard.environment.spawn(async move {
                            let passed = mesh.answer_one(single).await;
                            mesh.tell(asker, passed);
                        });
                    }
                }
            }
            Envelope::Question { from, id, errand } => {
                let Some(answer) = errand.run(&self.shard) else {
                    self.inboxes[from.index()].send(Envelope::Answered { id });
                    return;
                };
                let mesh = self.clone();
                self.shard.environment.spawn(async move {
                    answer.await;
                    mesh.inboxes[from.index()].send(Envelope::Answered { id });
                });
            }
        }
    }
}
