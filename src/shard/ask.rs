//! How a shard is asked. A question is a type of its own, which says of what type its answer is; it
//! stands with what it is about.

use std::{
    future::{Future, Ready},
    rc::Rc,
};

use super::Shard;
use crate::runtime::Environment;

/// A question to a shard. The coins in it are the shard's own.
pub trait Question: Sized + Send + 'static {
    /// What it is answered by.
    type Answer: Send + 'static;

    /// Answers it at once where memory knows the answer, and begins to find it out otherwise.
    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static>;
}

/// What comes of a question.
pub enum Answered<A, F> {
    /// The answer.
    Now(A),
    /// What gives it. Nothing has happened before that is polled.
    Later(F),
}

/// A question that is always answered at once.
pub trait Short: Sized + Send + 'static {
    /// What it is answered by.
    type Answer: Send + 'static;

    /// Answers it.
    fn answer<E: Environment>(self, shard: &Shard<E>) -> Self::Answer;
}

impl<Q: Short> Question for Q {
    type Answer = Q::Answer;

    #[inline]
    #[expect(refining_impl_trait, reason = "there is nothing to wait for")]
    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, Ready<Self::Answer>> {
        Answered::Now(self.answer(shard))
    }
}
