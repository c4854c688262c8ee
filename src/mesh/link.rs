use std::{
    cell::{Cell, OnceCell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use futures_util::future::{LocalBoxFuture, join_all};
use slab::Slab;

use super::inbox::{Envelope, Inbox};
use crate::{
    coin::ShardId,
    protocol::Status,
    shard::{
        Asked, Asker, Begun, CarriedOut, EndedChange, NotChanged, Outcome, Reply, Request, Shard,
        Single, Unavailable,
    },
    store::{Environment, Trouble},
};

/// Messages handled before the core's other tasks get their turn.
const MESSAGES_A_TURN: usize = 128;

/// One core's end of the mesh: its own shard, reached directly, and the others, reached by message.
pub struct Mesh<E: Environment> {
    shard: Rc<Shard<E>>,
    inboxes: Arc<[Inbox]>,
    asked: RefCell<Slab<Question>>,
    on_passed: OnceCell<PassedListener>,
    pub(super) transactions: Cell<u64>,
    is_stopped: Cell<bool>,
    failed_checkpoints: Trouble,
}

/// Hears what became of questions about one coin that were [under way](Asked::UnderWay), each once, by
/// the number they were asked under: whether the coin passed. `None` where the same is under way for
/// another request, and this one is to get no answer.
pub type PassedListener = Box<dyn Fn(usize, Option<Result<bool, NotChanged>>)>;

enum Question {
    Waiting(Option<Waker>),
    Answered(Result<Reply, Unavailable>),
}

impl<E: Environment> Mesh<E> {
    /// Joins the mesh and answers the other shards' messages from now on.
    pub fn join(shard: Rc<Shard<E>>, inboxes: Arc<[Inbox]>) -> Rc<Self> {
        assert_eq!(inboxes.len(), shard.shards as usize);
        let mesh = Rc::new(Mesh {
            shard: shard.clone(),
            inboxes,
            asked: RefCell::default(),
            on_passed: OnceCell::new(),
            transactions: Cell::default(),
            is_stopped: Cell::default(),
            failed_checkpoints: Trouble::default(),
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

    /// Has `listener` told what became of questions about one coin. To be called once, before any
    /// is asked.
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
    pub fn ask(
        &self,
        shard: ShardId,
        request: Request,
    ) -> impl Future<Output = Result<Reply, Unavailable>> {
        let id = if shard == self.shard.id {
            Err(request)
        } else {
            let id = self.asked.borrow_mut().insert(Question::Waiting(None));
            let from = self.shard.id;
            self.inboxes[shard.index()].send(Envelope::Request { from, id, request });
            Ok(id)
        };
        async move {
            match id {
                Ok(id) => self.reply(id).await,
                Err(request) => self.answer(request).await,
            }
        }
    }

    /// Asks every shard the same at the same time; answers come in the order of the shards.
    ///
    /// # Errors
    /// Where one of them is unavailable.
    pub async fn ask_all(&self, request: impl Fn() -> Request) -> Result<Vec<Reply>, Unavailable> {
        let questions = (0..self.shards()).map(|shard| self.ask(ShardId::new(shard), request()));
        join_all(questions).await.into_iter().collect()
    }

    /// Takes no more messages.
    pub fn stop(&self) {
        self.is_stopped.set(true);
        self.inboxes[self.shard.id.index()].wake();
    }

    async fn reply(&self, id: usize) -> Result<Reply, Unavailable> {
        poll_fn(|context| {
            let mut asked = self.asked.borrow_mut();
            if let Question::Waiting(waker) = &mut asked[id] {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            match asked.remove(id) {
                Question::Answered(reply) => Poll::Ready(reply),
                Question::Waiting(_) => unreachable!("handled above"),
            }
        })
        .await
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

    /// What this core's shard answers.
    async fn answer(&self, request: Request) -> Result<Reply, Unavailable> {
        match request {
            // Boxed so that no other request has to carry its size.
            Request::Checkpoint(round) => Box::pin(self.checkpoint(round)).await,
            request => self.shard.answer(request).await,
        }
    }

    /// Answers a question about one of this shard's coins, however long it takes; `None` where it is to
    /// get no answer.
    async fn answer_one(&self, single: Single) -> Option<Result<bool, NotChanged>> {
        let passed = |reply| match reply {
            Ok(Reply::Passed(passed)) => Ok(passed[0]),
            Ok(Reply::Crowded) => Err(NotChanged::Crowded),
            Ok(other) => unreachable!("a shard says of a coin whether it passed, not {other:?}"),
            Err(Unavailable) => Err(NotChanged::Unavailable),
        };
        let (exchange, sender) = match single {
            Single::Detect(coin, an) => {
                let request = Request::Detect(vec![(coin, an)]);
                return Some(passed(self.answer(request).await));
            }
            Single::Exchange(exchange, sender) => (exchange, sender),
        };
        let name = self.shard.name_of(&exchange);
        let begun = self.answer(Request::BeginChange(name, sender.waits)).await;
        let known = match begun {
            Ok(Reply::Begun(Begun::New(known))) => known,
            Ok(Reply::Begun(Begun::UnderWay)) => {
                self.shard
                    .count(|counters| counters.repeats_unanswered += 1);
                return None;
            }
            Ok(Reply::Begun(Begun::Ended(Outcome { status, .. }))) => {
                self.shard.count(|counters| counters.repeats += 1);
                return Some(match status {
                    Status::ALL_PASS => Ok(true),
                    Status::ALL_FAIL => Ok(false),
                    Status::OUT_OF_MEMORY => Err(NotChanged::Crowded),
                    _ => Err(NotChanged::Unavailable),
                });
            }
            Ok(Reply::Crowded) => {
                self.shard.note_crowded();
                return Some(Err(NotChanged::Crowded));
            }
            Ok(other) => unreachable!("a request begins or not, and is not {other:?}"),
            Err(unavailable) => return Some(Err(unavailable.into())),
        };
        let is_repeat = known.is_some()
            && matches!(
                self.answer(Request::An(exchange.coin)).await,
                Ok(Reply::An(Some(an))) if self.shard.was_carried_out(&exchange, an)
            );
        let passed = match is_repeat {
            true => Ok(true),
            false => passed(self.answer(Request::Exchange(vec![exchange])).await),
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

    /// Tells the home of a request that changes something, where it [began](Request::BeginChange), that it
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

    async fn checkpoint(&self, round: u64) -> Result<Reply, Unavailable> {
        // Boxed because a flush asks all shards, this one among them.
        let flush = async || {
            let flushed: LocalBoxFuture<'_, _> = Box::pin(self.ask_all(|| Request::Flush));
            let _ = flushed.await;
        };
        let written = self.shard.checkpoint(round, flush).await;
        if written.is_ok()
            && let Some(over) = self
                .failed_checkpoints
                .over(self.shard.environment.monotonic())
        {
            let (shard, times) = (self.shard.id.index(), over.times);
            tracing::warn!(shard, round, times, "pages can be written again");
        }
        let counts = written.map_err(|error| {
            let shard = self.shard.id.index();
            if let Some(times) = self
                .failed_checkpoints
                .met(self.shard.environment.monotonic(), &error)
            {
                tracing::error!(shard, round, times, %error, "pages cannot be written");
            }
            Unavailable
        })?;
        Ok(Reply::Checkpointed(counts))
    }

    fn handle(self: &Rc<Self>, envelope: Envelope) {
        match envelope {
            Envelope::Reply { id, reply } => {
                let mut asked = self.asked.borrow_mut();
                let answered = std::mem::replace(&mut asked[id], Question::Answered(reply));
                drop(asked);
                if let Question::Waiting(Some(waker)) = answered {
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
            Envelope::Request { from, id, request } => {
                if let Some(reply) = self.shard.answer_now(&request) {
                    self.inboxes[from.index()].send(Envelope::Reply { id, reply });
                    return;
                }
                let mesh = self.clone();
                self.shard.environment.spawn(async move {
                    let reply = mesh.answer(request).await;
                    mesh.inboxes[from.index()].send(Envelope::Reply { id, reply });
                });
            }
        }
    }
}
