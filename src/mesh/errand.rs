use std::{
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::LocalBoxFuture;

use crate::runtime::Environment;
use crate::shard::{Answered, Question, Shard};

/// A question on its way to another core. It knows the place for its answer.
pub(super) trait Errand<E: Environment>: Send {
    /// Answers the question on the shard's core. Where that takes longer, returns the future that
    /// answers.
    fn run(self: Box<Self>, shard: &Rc<Shard<E>>) -> Option<LocalBoxFuture<'static, ()>>;
}

/// The place where one core puts the answer to a question and another core takes it, never at the
/// same time.
pub(super) struct Slot<A>(Arc<Mutex<Option<A>>>);

struct To<Q: Question> {
    question: Q,
    slot: Slot<Q::Answer>,
}

impl<A: Send + 'static> Slot<A> {
    /// A question with the place of its answer in it, and that place.
    pub(super) fn of<E: Environment, Q: Question<Answer = A>>(
        question: Q,
    ) -> (Box<dyn Errand<E>>, Slot<A>) {
        let slot = Slot(Arc::new(Mutex::new(None)));
        let answer = Slot(slot.0.clone());
        (Box::new(To { question, slot }), answer)
    }

    /// The answer.
    ///
    /// # Panics
    /// When it is not there.
    pub(super) fn take(self) -> A {
        self.open()
            .take()
            .expect("an answer is told of when it is there")
    }

    fn put(self, answer: A) {
        *self.open() = Some(answer);
    }

    fn open(&self) -> MutexGuard<'_, Option<A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Environment, Q: Question> Errand<E> for To<Q> {
    fn run(self: Box<Self>, shard: &Rc<Shard<E>>) -> Option<LocalBoxFuture<'static, ()>> {
        let To { question, slot } = *self;
        match question.begin(shard) {
            Answered::Now(answer) => {
                slot.put(answer);
                None
            }
            Answered::Later(answer) => Some(Box::pin(async move { slot.put(answer.await) })),
        }
    }
}
