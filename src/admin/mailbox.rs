use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;

use crate::runtime::Environment;
use crate::{
    protocol::Command,
    service::{
        DatagramCounts, HealingCounts, LockerCounts, Measured, Service, budget::BudgetCounts,
    },
    shard::{ChangeCounts, Counters, IndexCounts, TradeCounts},
};

/// Maximum number of questions that wait for one core: more come only where the core is stuck.
const QUESTIONS_MAX: usize = 4;

/// What one core has measured of the commands that it was asked.
pub(super) type CoreLatency = Vec<(Command, Measured)>;

/// What one core has counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreCounts {
    pub(super) counters: Counters,
    pub(super) waiting: BudgetCounts,
    pub(super) healing: HealingCounts,
    pub(super) datagrams: DatagramCounts,
    /// Tickets that its shard keeps.
    pub(super) tickets: usize,
    pub(super) used_tickets: usize,
    pub(super) repeats: usize,
    /// Requests that got no answer since the disk did not answer.
    pub(super) given_up: u64,
    pub(super) lockers: (LockerCounts, IndexCounts, TradeCounts),
    pub(super) changes: ChangeCounts,
}

/// What a core is asked, and where its answer goes.
enum Question {
    Latency(Sender<CoreLatency>),
    Counts(Sender<CoreCounts>),
}

/// Where a core is asked what it has measured and counted, from a thread that is no core. An answer
/// goes back through a channel of its own.
pub struct Mailbox {
    questions: ArrayQueue<Question>,
    is_closed: AtomicBool,
    waker: AtomicWaker,
}

/// A mailbox a shard.
pub fn mailboxes(shards: u16) -> Arc<[Mailbox]> {
    (0..shards).map(|_| Mailbox::new()).collect()
}

impl Mailbox {
    fn new() -> Mailbox {
        Mailbox {
            questions: ArrayQueue::new(QUESTIONS_MAX),
            is_closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Asks the core how long requests took. The channel is closed without an answer where there
    /// will be none.
    pub(super) fn ask_latency(&self) -> Receiver<CoreLatency> {
        self.ask(Question::Latency)
    }

    /// Asks the core what it counted, likewise.
    pub(super) fn ask_counts(&self) -> Receiver<CoreCounts> {
        self.ask(Question::Counts)
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Receiver<T> {
        let (answer, is_answered) = channel();
        // Where the queue is full, the question is dropped, and with it the sender.
        let _ = self.questions.push(question(answer));
        match self.is_closed.load(Ordering::SeqCst) {
            // The question may have come after the last look of `close`.
            true => self.clear(),
            false => self.waker.wake(),
        }
        is_answered
    }

    /// Notes that the core answers no more, so that nobody waits for it.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.questions.pop().is_some() {}
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Question> {
        // Registered first, so that a question that comes after the look wakes.
        self.waker.register(context.waker());
        self.questions.pop().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Answers what comes to a core's mailbox, on that core, for as long as it runs.
pub async fn answer<E: Environment>(
    mailboxes: Arc<[Mailbox]>,
    shard: usize,
    service: Service<E>,
    environment: E,
) {
    loop {
        match poll_fn(|context| mailboxes[shard].poll_next(context)).await {
            Question::Latency(asker) => {
                let mut answer = Vec::with_capacity(Command::COUNT);
                for command in Command::all() {
                    if let Some(measured) = service.latency(command) {
                        answer.push((command, measured));
                        // A copy is 30 KB: a few microseconds, after which requests have their
                        // turn.
                        environment.turn().await;
                    }
                }
                // The asker may have given up, here and below.
                let _ = asker.send(answer);
            }
            Question::Counts(asker) => {
                let (counters, healing, tickets, used_tickets) = service.counts();
                let _ = asker.send(CoreCounts {
                    counters,
                    waiting: service.budget_counts(),
                    healing,
                    datagrams: service.datagram_counts(),
                    tickets,
                    used_tickets,
                    repeats: service.repeats_kept(),
                    given_up: service.given_up(),
                    lockers: service.locker_counts(),
                    changes: service.change_counts(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{RecvTimeoutError, TryRecvError},
        task::Waker,
        time::Duration,
    };

    use super::*;

    #[test]
    fn nobody_waits_for_a_core_that_is_gone() {
        let mailbox = Mailbox::new();
        let before = mailbox.ask_latency();
        assert_eq!(before.try_recv().err(), Some(TryRecvError::Empty));
        mailbox.close();
        let after = mailbox.ask_latency();
        for answer in [before, after] {
            let end = answer.recv_timeout(Duration::from_secs(10));
            assert_eq!(end.err(), Some(RecvTimeoutError::Disconnected));
        }
    }

    #[test]
    fn a_stuck_core_is_asked_only_so_often() {
        let mailbox = Mailbox::new();
        let waiting: Vec<_> = (0..QUESTIONS_MAX).map(|_| mailbox.ask_latency()).collect();
        assert_eq!(
            mailbox.ask_latency().try_recv().err(),
            Some(TryRecvError::Disconnected)
        );
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Question::Latency(asker)) = mailbox.poll_next(&mut context) else {
            panic!("questions wait");
        };
        asker.send(Vec::new()).unwrap();
        assert!(waiting[0].try_recv().unwrap().is_empty());
        assert_eq!(
            mailbox.ask_latency().try_recv().err(),
            Some(TryRecvError::Empty)
        );
    }
}
