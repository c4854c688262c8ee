use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use atomic_waker::AtomicWaker;

use super::{NotSetUp, Purchase, Verdict};

/// A purchase that waits for its verdict.
pub(super) struct Question {
    pub purchase: Purchase,
    pub asked: Instant,
    verdict: OnceLock<Verdict>,
    asker: AtomicWaker,
}

/// The verdict on a purchase, once there is one. Giving it up does no harm: a program that runs for
/// it goes on to its end, one that has not started is not started any more.
#[must_use = "nobody hears of the verdict otherwise"]
pub struct Answer(State);

enum State {
    Known(Result<Verdict, NotSetUp>),
    Open(Arc<Question>),
}

impl Question {
    pub fn new(purchase: Purchase) -> Arc<Question> {
        Arc::new(Question {
            purchase,
            asked: Instant::now(),
            verdict: OnceLock::new(),
            asker: AtomicWaker::new(),
        })
    }

    /// Tells the asker. The first verdict is the one that counts.
    pub fn end(&self, verdict: Verdict) {
        let _ = self.verdict.set(verdict);
        self.asker.wake();
    }

    /// Whether the asker still waits. The caller holds the question in one place only.
    pub fn is_wanted(self: &Arc<Question>) -> bool {
        Arc::strong_count(self) > 1
    }
}

impl Answer {
    pub(super) fn known(answer: Result<Verdict, NotSetUp>) -> Answer {
        Answer(State::Known(answer))
    }

    pub(super) fn to(question: Arc<Question>) -> Answer {
        Answer(State::Open(question))
    }
}

impl Future for Answer {
    type Output = Result<Verdict, NotSetUp>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let question = match &self.0 {
            State::Known(answer) => return Poll::Ready(*answer),
            State::Open(question) => question,
        };
        // Before the look: a verdict between the two wakes this task.
        question.asker.register(context.waker());
        match question.verdict.get() {
            Some(&verdict) => Poll::Ready(Ok(verdict)),
            None => Poll::Pending,
        }
    }
}
