//! A shard's log: records go in, and are durable before anyone hears of them.
//!
//! Group commit: while one write and sync is under way, the records that arrive collect in a buffer
//! and go out together with the next. One batch is under way at a time, so whatever lies behind a
//! torn batch was never promised to anyone.
//!
//! A write that failed leaves its outcome unknown: part of it may be on the disk, and surface after
//! a restart as changes that were refused. So before such a batch is refused, its place is
//! overwritten with zeros and that is made durable; until this succeeds, its requests stay
//! unanswered and new ones are refused.
//!
//! A segment is listed (`segment_list`) before the first answer that rests on it. Where it is
//! removed, or moved, while the node runs, whatever follows would be gone at the next start: so
//! changes are refused from then on, until the node is started again. What was answered is in
//! memory still, and the next checkpoint saves it.
//!
//! In the periodic mode requests are answered before their records are durable. Then a batch that
//! cannot be written is tried until it can, and new requests are refused meanwhile.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io, mem,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::future::select;
use slab::Slab;

use super::{
    book::Notes,
    record::{self, Change, PageSequence},
    segment::{self, BATCH_HEAD_BYTES, FIRST_BATCH_OFFSET, SegmentHeader},
    segment_list::{Checkpointed, Listed, SegmentList},
    trouble::{Over, Trouble},
};
use crate::runtime::{BLOCK_BYTES, Environment, File, Signal, Storage};

/// Segments a log may have; at this many, changes wait for a checkpoint to free one, and are
/// refused where it fails.
pub const SEGMENTS_MAX: usize = 16;
/// Segments in use from which a checkpoint is asked for.
const SEGMENTS_CHECKPOINT: usize = 6;
/// A batch takes no more records beyond this, in bytes: a bound on how long one write takes.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Records that may wait to be written, in bytes; beyond it, appending waits.
pub const BACKLOG_BYTES_MAX: usize = 16 << 20;
/// Records that may wait for room in the backlog; beyond it, they are refused. Each has its changes
/// in memory, and holds their coins.
pub const ROOM_WAITERS_MAX: usize = 256;
/// Memory of the backlog that is kept while nothing waits, in bytes.
const BACKLOG_BYTES_KEPT: usize = 2 << 20;
/// Pause between tries to undo a write that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Time between two looks at whether the segments in use are still where they were.
const PLACE_LOOK: Duration = Duration::from_millis(500);
/// Bytes written at once when a new segment is filled with zeros.
const FILL_BYTES: usize = 1 << 20;

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the change is durable.
    Commit,
    /// At once; the change becomes durable within the flush interval, and a crash may lose it.
    Periodic,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Which shard's log this is.
    pub shard: u16,
    /// Bytes of a segment, a multiple of [`BLOCK_BYTES`].
    pub segment_bytes: u64,
    /// When an answer may leave.
    pub durability: Durability,
    /// With [`Durability::Periodic`], the longest time between two writes.
    pub flush_interval: Duration,
    /// Random, the same for all logs of one run of the node.
    pub run: u64,
    /// The newest checkpoint round known complete.
    pub round: u64,
}

/// A change that the log did not take; nothing of it is on the disk or ever will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The disk is full, or failing, or the log is at its limit and no checkpoint gets through.
    #[error("the log cannot take changes now")]
    Unavailable,
    /// The maximum number of records waits for room already.
    #[error("too many changes wait for the log")]
    Crowded,
    /// The record is larger than a segment.
    #[error("a change of {bytes} bytes does not fit a log segment")]
    TooLarge {
        /// The record's size.
        bytes: usize,
    },
}

/// Counters since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Records made durable.
    pub records: u64,
    /// Batches written: one write and one sync each.
    pub batches: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Batches that could not be written.
    pub failures: u64,
    /// Segments in use now.
    pub segments: u64,
}

/// A record's place in the order of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// A record on its way to the disk. [`Log::settle`] it once its changes are in the pages, or given
/// up: until then no checkpoint can free its segment.
#[must_use]
#[derive(Debug)]
pub struct Appended {
    position: Position,
    waiter: Option<usize>,
}

/// A shard's log. Dropping it loses records that are not durable: [`close`](Log::close) it.
pub struct Log<E: Environment> {
    environment: E,
    settings: Cell<LogSettings>,
    state: RefCell<State<FileOf<E>>>,
    /// Something for the writer to do.
    work: Signal,
    /// A batch was written, or failed.
    drained: Signal,
    /// A record was settled.
    settled: Signal,
    /// A checkpoint ended, well or not.
    recycled: Signal,
    /// A segment was taken into use or given up.
    spare_wanted: Signal,
    /// Records have to be written before their time.
    flush_wanted: Signal,
    /// The writer has ended.
    closed: Signal,
    checkpoint_wanted: Rc<Signal>,
    on_tickets: OnceCell<TicketListener>,
    list: SegmentList,
    failed_writes: Trouble,
    failed_undos: Trouble,
    failed_segments: Trouble,
}

/// Hears of records that were appended with a ticket, all of a batch at once: their tickets, in the
/// order of the records, and whether they are durable.
pub type TicketListener = Box<dyn Fn(&[usize], Result<(), Refusal>)>;

type FileOf<E> = <<E as Environment>::Storage as Storage>::File;

struct State<F> {
    /// Encoded records that wait, back to back from `backlog_start` on, with each one's length,
    /// position and listener.
    backlog: Vec<u8>,
    backlog_start: usize,
    queue: VecDeque<Queued>,
    /// Who waits for room in the backlog, in the order they came.
    line: VecDeque<Standing>,
    next_standing: u64,
    /// Records refused because too many wait for room.
    crowded: u64,
    next_position: u64,
    waiters: Slab<Waiter>,
    /// Segments that hold records, the oldest first; the last is being written.
    used: VecDeque<Segment<F>>,
    /// Files ready for use, taken from the front: the longest unused is overwritten first, so that
    /// a log on disk is always its newest segments without a gap.
    spare: VecDeque<SpareFile<F>>,
    /// The files of segments that the list on the disk may name.
    listed: Vec<u64>,
    /// The newest segment is on the list, durably.
    is_listed: bool,
    /// What checkpoints left, for which the records of freed segments are given up.
    checkpointed: Checkpointed,
    /// Records before this position are in the pages on the disk.
    saved_to: u64,
    /// A segment in use was taken away under the node.
    is_lost: bool,
    /// The disk does not answer: everyone who waits here for it is sent away.
    is_stalled: bool,
    making_spare: bool,
    files: usize,
    next_file: u64,
    next_segment: u64,
    next_batch: u64,
    chain: u32,
    /// One past the position of the last record in the batch under way.
    batch_end: u64,
    /// Since when a batch is under way, and its number of records.
    batch: Option<(Duration, usize)>,
    /// Which records from `settled_from` on are settled.
    unsettled: VecDeque<bool>,
    settled_from: u64,
    /// Records before this position have to be written at once.
    flush_to: u64,
    /// A failed write is being undone.
    undoing: bool,
    /// Records that were answered cannot be written, and are tried again and again.
    failing: bool,
    /// The last checkpoint failed.
    checkpoint_failed: bool,
    closing: bool,
    ended: bool,
    counts: LogCounts,
    /// Empty; kept to use their memory again.
    ended_batch: Vec<Queued>,
    tickets: Vec<usize>,
    wakers: Vec<Waker>,
}

struct Standing {
    number: u64,
    waker: Option<Waker>,
}

/// A place among those who wait for room, until dropped.
struct Place<'a, E: Environment> {
    log: &'a Log<E>,
    number: u64,
}

struct Queued {
    bytes: usize,
    position: u64,
    listener: Listener,
}

/// Who is told that a record is durable, or refused.
#[derive(Clone, Copy)]
enum Listener {
    Nobody,
    /// A task that waits, by its place among the waiters.
    Waiter(usize),
    /// The listener to tickets.
    Ticket(usize),
}

#[derive(Default)]
struct Waiter {
    outcome: Option<Result<(), Refusal>>,
    waker: Option<Waker>,
}

struct Segment<F> {
    file: Rc<F>,
    /// The number in the file's name.
    file_number: u64,
    header: SegmentHeader,
    offset: u64,
    /// One past the last record's position.
    end: u64,
}

struct SpareFile<F> {
    file: Rc<F>,
    number: u64,
}

impl<E: Environment> Log<E> {
    /// Opens the log of a shard, reusing the segment files of that shard that are there (whose
    /// content must have been [recovered](super::recovery) and given up), and starts to write.
    /// `checkpoint_wanted` is notified when the log has grown enough for a checkpoint to be worth
    /// it.
    ///
    /// # Errors
    /// As the storage gives them; a full disk is none: the log then opens and refuses changes until
    /// there is room.
    pub async fn open(
        environment: E,
        settings: LogSettings,
        checkpoint_wanted: Rc<Signal>,
    ) -> io::Result<Rc<Self>> {
        let mut spare = VecDeque::new();
        let mut next_file = 0;
        for name in environment.storage().list(super::LOG_FOLDER).await? {
            let Some((shard, number)) = parse_segment_name(&name) else {
                continue;
            };
            if shard != settings.shard {
                continue;
            }
            next_file = next_file.max(number + 1);
            let path = format!("{}/{name}", super::LOG_FOLDER);
            let file = environment.storage().open(&path, false).await?;
            if file.length().await? == settings.segment_bytes && spare.len() < SEGMENTS_MAX {
                spare.push_back(SpareFile {
                    file: Rc::new(file),
                    number,
                });
            } else {
                drop(file);
                environment.storage().remove(&path).await?;
            }
        }
        let files = spare.len();
        let log = Rc::new(Log {
            environment,
            settings: Cell::new(settings),
            state: RefCell::new(State {
                backlog: Vec::new(),
                backlog_start: 0,
                queue: VecDeque::new(),
                line: VecDeque::new(),
                next_standing: 0,
                crowded: 0,
                next_position: 0,
                waiters: Slab::new(),
                used: VecDeque::new(),
                spare,
                listed: Vec::new(),
                is_listed: true,
                checkpointed: Checkpointed::default(),
                saved_to: 0,
                is_lost: false,
                is_stalled: false,
                making_spare: false,
                files,
                next_file,
                next_segment: 0,
                next_batch: 0,
                chain: 0,
                batch_end: 0,
                batch: None,
                unsettled: VecDeque::new(),
                settled_from: 0,
                flush_to: 0,
                undoing: false,
                failing: false,
                checkpoint_failed: false,
                closing: false,
                ended: false,
                counts: LogCounts::default(),
                ended_batch: Vec::new(),
                tickets: Vec::new(),
                wakers: Vec::new(),
            }),
            work: Signal::default(),
            drained: Signal::default(),
            settled: Signal::default(),
            recycled: Signal::default(),
            spare_wanted: Signal::default(),
            flush_wanted: Signal::default(),
            closed: Signal::default(),
            checkpoint_wanted,
            on_tickets: OnceCell::new(),
            list: SegmentList::new(settings.shard),
            failed_writes: Trouble::default(),
            failed_undos: Trouble::default(),
            failed_segments: Trouble::default(),
        });
        if log.state.borrow().spare.is_empty()
            && let Err(error) = log.make_spare().await
        {
            tracing::warn!(shard = settings.shard, %error, "no room for a log segment: changes are refused until there is");
        }
        log.environment.spawn(log.clone().write_batches());
        log.environment.spawn(log.clone().keep_spare());
        log.environment.spawn(log.clone().watch_places());
        Ok(log)
    }

    /// Puts a record in line. It is durable when [`durable`](Log::durable) returns without an
    /// error.
    ///
    /// # Errors
    /// Where the log takes no changes now; nothing was put in line.
    pub async fn append(
        &self,
        pages: &[PageSequence],
        changes: &[Change],
        notes: &Notes,
    ) -> Result<Appended, Refusal> {
        self.check_size(pages, changes, notes)?;
        if !self.has_room()? {
            self.wait_for_room().await?;
        }
        let durability = self.settings.get().durability;
        let waiter = (durability == Durability::Commit)
            .then(|| self.state.borrow_mut().waiters.insert(Waiter::default()));
        let listener = waiter.map_or(Listener::Nobody, Listener::Waiter);
        let position = self.push(pages, changes, notes, listener);
        Ok(Appended { position, waiter })
    }

    /// Puts a record in line without waiting; `None` where it would have to wait, and nothing has
    /// happened. Whether it became durable is told to the [listener](Log::listen) under `ticket`;
    /// with
    /// [`Durability::Periodic`] nobody is told.
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn append_now(
        &self,
        pages: &[PageSequence],
        changes: &[Change],
        ticket: usize,
    ) -> Result<Option<Appended>, Refusal> {
        let notes = Notes::default();
        self.check_size(pages, changes, &notes)?;
        if !self.has_room()? {
            return Ok(None);
        }
        let listener = match self.settings.get().durability {
            Durability::Commit => Listener::Ticket(ticket),
            Durability::Periodic => Listener::Nobody,
        };
        let position = self.push(pages, changes, &notes, listener);
        Ok(Some(Appended {
            position,
            waiter: None,
        }))
    }

    /// Has `listener` told of records with a ticket. Call it once, before any is appended.
    pub fn listen(&self, listener: TicketListener) {
        let first = self.on_tickets.set(listener).is_ok();
        assert!(first, "a log has one listener");
    }

    fn check_size(
        &self,
        pages: &[PageSequence],
        changes: &[Change],
        notes: &Notes,
    ) -> Result<(), Refusal> {
        let bytes = record::encoded_bytes(pages.len(), changes.len(), notes);
        let room = self.settings.get().segment_bytes;
        match BATCH_HEAD_BYTES as u64 + bytes as u64 + FIRST_BATCH_OFFSET > room {
            true => Err(Refusal::TooLarge { bytes }),
            false => Ok(()),
        }
    }

    /// Whether the log takes changes at all: not while a write that failed is being undone, and not
    /// when it ends.
    pub fn takes_changes(&self) -> bool {
        self.state.borrow().takes_changes()
    }

    /// Records that wait for room now, and how many were refused because too many did.
    pub fn waiting(&self) -> (usize, u64) {
        let state = self.state.borrow();
        (state.line.len(), state.crowded)
    }

    /// Whether a record may be put in line now.
    fn has_room(&self) -> Result<bool, Refusal> {
        let state = self.state.borrow();
        match state.takes_changes() {
            false => Err(Refusal::Unavailable),
            true => Ok(state.line.is_empty() && state.has_room()),
        }
    }

    /// Waits until it is this record's turn and there is room.
    async fn wait_for_room(&self) -> Result<(), Refusal> {
        let place = {
            let mut state = self.state.borrow_mut();
            if state.line.len() >= ROOM_WAITERS_MAX {
                state.crowded += 1;
                return Err(Refusal::Crowded);
            }
            let number = state.next_standing;
            state.next_standing += 1;
            state.line.push_back(Standing {
                number,
                waker: None,
            });
            Place { log: self, number }
        };
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if !state.takes_changes() {
                return Poll::Ready(Err(Refusal::Unavailable));
            }
            let at = state.place_in_line(place.number);
            if at == 0 && state.has_room() {
                return Poll::Ready(Ok(()));
            }
            state.line[at].waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Wakes the next in line for room, where there is some.
    fn wake_next(&self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            if !state.has_room() {
                return;
            }
            let next = state.line.front_mut();
            next.and_then(|next| next.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes all who wait for room: the log refuses them.
    fn wake_line(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.borrow_mut();
            let line = state.line.iter_mut();
            line.filter_map(|standing| standing.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn push(
        &self,
        pages: &[PageSequence],
        changes: &[Change],
        notes: &Notes,
        listener: Listener,
    ) -> Position {
        let mut state = self.state.borrow_mut();
        let position = state.next_position;
        state.next_position += 1;
        state.unsettled.push_back(false);
        record::encode(pages, changes, notes, &mut state.backlog);
        state.queue.push_back(Queued {
            bytes: record::encoded_bytes(pages.len(), changes.len(), notes),
            position,
            listener,
        });
        drop(state);
        self.work.notify();
        Position(position)
    }

    /// Waits until the record is durable; with [`Durability::Periodic`] does not wait.
    ///
    /// # Errors
    /// Where it could not be written: then nothing of it is on the disk.
    pub async fn durable(&self, appended: &Appended) -> Result<(), Refusal> {
        let Some(waiter) = appended.waiter else {
            return Ok(());
        };
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            let entry = &mut state.waiters[waiter];
            if let Some(outcome) = entry.outcome {
                state.waiters.remove(waiter);
                return Poll::Ready(outcome);
            }
            entry.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Notes that a record's changes are in the pages, or that it was refused.
    pub fn settle(&self, appended: Appended) {
        let mut state = self.state.borrow_mut();
        let index = (appended.position.0 - state.settled_from) as usize;
        assert!(
            !mem::replace(&mut state.unsettled[index], true),
            "a record settles once"
        );
        while state.unsettled.front() == Some(&true) {
            state.unsettled.pop_front();
            state.settled_from += 1;
        }
        drop(state);
        self.settled.notify();
    }

    /// Waits until every record written or refused before this call is settled. Gives the position
    /// up to which a checkpoint that starts now will have everything.
    ///
    /// What still waits to be written does not count: where the log is at its limit, it waits for
    /// this very checkpoint.
    pub async fn mark(&self) -> Position {
        let mark = self.state.borrow().first_waiting();
        loop {
            let moment = self.settled.moment();
            if self.state.borrow().settled_from >= mark {
                return Position(mark);
            }
            self.settled.after(moment).await;
        }
    }

    /// Has every record appended before this call written at once, and waits until it is durable or
    /// refused: what pages may be written to disk after this holds nothing that a crash could take
    /// back. A log at its limit takes another segment for this, because only the checkpoint that
    /// waits here can free one.
    pub async fn flush(&self) {
        let mark = {
            let mut state = self.state.borrow_mut();
            state.flush_to = state.next_position;
            state.next_position
        };
        self.flush_wanted.notify();
        self.recycled.notify();
        loop {
            let moment = self.drained.moment();
            if self.state.borrow().first_waiting() >= mark {
                return;
            }
            self.drained.after(moment).await;
        }
    }

    /// Frees the segments whose records all lie before `mark`: a checkpoint holds them, as of
    /// `round`, and has left this on the disk.
    pub fn recycle(&self, mark: Position, round: u64, checkpointed: &Checkpointed) {
        let mut settings = self.settings.get();
        settings.round = round;
        self.settings.set(settings);
        let mut state = self.state.borrow_mut();
        while state.used.len() > 1 && state.used[0].end <= mark.0 {
            let segment = state.used.pop_front().expect("more than one is there");
            state.spare.push_back(SpareFile {
                file: segment.file,
                number: segment.file_number,
            });
        }
        state.checkpointed = state.checkpointed.or(checkpointed);
        state.saved_to = state.saved_to.max(mark.0);
        state.checkpoint_failed = false;
        state.counts.segments = state.used.len() as u64;
        let is_lost = state.is_lost;
        drop(state);
        self.recycled.notify();
        if is_lost {
            self.work.notify();
        }
    }

    /// Notes that a checkpoint failed, so that nobody waits for it to free a segment.
    pub fn checkpoint_failed(&self) {
        self.state.borrow_mut().checkpoint_failed = true;
        self.recycled.notify();
    }

    /// Changes the flush interval from now on.
    pub fn set_flush_interval(&self, flush_interval: Duration) {
        let mut settings = self.settings.get();
        settings.flush_interval = flush_interval;
        self.settings.set(settings);
    }

    /// Since when the disk has not answered for what is being written; `None` where nothing is.
    pub fn waits_since(&self) -> Option<Duration> {
        self.state.borrow().batch.map(|(since, _)| since)
    }

    /// Sets whether the disk does not answer. While it does not, no change is put in line, and
    /// those that have only waited for their turn are refused: nothing of them is on the disk. A
    /// write under way goes on, and its outcome is told when it comes.
    pub fn set_stalled(&self, is_stalled: bool) {
        let mut state = self.state.borrow_mut();
        state.is_stalled = is_stalled;
        if !is_stalled {
            return;
        }
        let is_answered = self.settings.get().durability == Durability::Periodic;
        if let Some((_, taken)) = state.batch
            && !is_answered
        {
            let waiting = state.queue.split_off(taken);
            state.backlog.clear();
            state.backlog_start = 0;
            drop(state);
            self.tell(waiting, Err(Refusal::Unavailable));
        } else {
            drop(state);
        }
        self.wake_line();
        self.drained.notify();
    }

    /// Counters since the log was opened.
    pub fn counts(&self) -> LogCounts {
        self.state.borrow().counts
    }

    /// Writes what waits, then ends. Later appends are refused. Waits for a segment that is being
    /// made: an executor that ends under a call it has handed to its blocking thread panics there.
    pub async fn close(&self) {
        self.state.borrow_mut().closing = true;
        self.wake_line();
        self.work.notify();
        self.flush_wanted.notify();
        self.spare_wanted.notify();
        loop {
            let moment = self.closed.moment();
            let is_over = {
                let state = self.state.borrow();
                state.ended && !state.making_spare
            };
            if is_over {
                return;
            }
            self.closed.after(moment).await;
        }
    }

    async fn write_batches(self: Rc<Self>) {
        let mut frame = Vec::new();
        loop {
            let moment = self.work.moment();
            let (empty, closing) = {
                let state = self.state.borrow();
                (state.queue.is_empty(), state.closing)
            };
            if empty && (closing || self.state.borrow().is_lost) {
                self.unlist_what_is_saved().await;
            }
            if empty && closing {
                break;
            }
            if empty {
                self.work.after(moment).await;
                continue;
            }
            let settings = self.settings.get();
            if settings.durability == Durability::Periodic && !closing {
                let moment = self.flush_wanted.moment();
                if !self.state.borrow().is_flushing() {
                    let asked = pin!(self.flush_wanted.after(moment));
                    let interval = pin!(self.environment.sleep(settings.flush_interval));
                    select(interval, asked).await;
                }
            }
            self.write_batch(&mut frame).await;
        }
        self.mark_end().await;
        self.state.borrow_mut().ended = true;
        self.closed.notify();
    }

    /// Blanks the block after the last batch. A segment that is used again has an older batch
    /// there, perhaps the middle of one, which a reader cannot tell from a batch that was cut
    /// short.
    async fn mark_end(&self) {
        let segment_bytes = self.settings.get().segment_bytes;
        let end = {
            let state = self.state.borrow();
            let newest = state.used.back().filter(|_| !state.is_lost);
            let has_room = |s: &&Segment<_>| s.offset + BLOCK_BYTES as u64 <= segment_bytes;
            newest.filter(has_room).map(|s| (s.file.clone(), s.offset))
        };
        if let Some((file, offset)) = end
            && let Err(error) = file.write_at(&[0; BLOCK_BYTES], offset).await
        {
            let shard = self.settings.get().shard;
            tracing::debug!(shard, %error, "the end of the log is not marked");
        }
    }

    async fn write_batch(&self, frame: &mut Vec<u8>) {
        let room = self.settings.get().segment_bytes - FIRST_BATCH_OFFSET;
        let most = BATCH_BYTES_MAX.min(room as usize - BATCH_HEAD_BYTES);
        let taken = {
            let mut state = self.state.borrow_mut();
            let taken = state.fill_frame(frame, most);
            state.batch = Some((self.environment.monotonic(), taken));
            taken
        };
        self.wake_next();
        let length = frame.len();
        let outcome = loop {
            frame.truncate(length);
            let outcome = match self.segment_for(length).await {
                Ok(()) => self.write_frame(frame).await,
                Err(refusal) => Err(refusal),
            };
            let is_answered = self.settings.get().durability == Durability::Periodic;
            if outcome.is_ok() || !is_answered || self.state.borrow().closing {
                break outcome;
            }
            self.state.borrow_mut().failing = true;
            self.wake_line();
            self.drained.notify();
            self.environment.sleep(RETRY_PAUSE).await;
        };
        let mut batch = mem::take(&mut self.state.borrow_mut().ended_batch);
        {
            let mut state = self.state.borrow_mut();
            state.failing = false;
            state.batch = None;
            match outcome {
                Ok(()) => state.counts.records += taken as u64,
                Err(_) => state.counts.failures += 1,
            }
            batch.extend(state.queue.drain(..taken));
        }
        self.tell(batch.drain(..), outcome);
        self.state.borrow_mut().ended_batch = batch;
        self.wake_next();
        self.drained.notify();
    }

    /// Tells the listeners of these records, which are out of the line.
    fn tell(&self, records: impl IntoIterator<Item = Queued>, outcome: Result<(), Refusal>) {
        let mut state = self.state.borrow_mut();
        let mut tickets = mem::take(&mut state.tickets);
        let mut wakers = mem::take(&mut state.wakers);
        for queued in records {
            match queued.listener {
                Listener::Nobody => {}
                Listener::Ticket(ticket) => tickets.push(ticket),
                Listener::Waiter(waiter) => {
                    let entry = &mut state.waiters[waiter];
                    entry.outcome = Some(outcome);
                    wakers.extend(entry.waker.take());
                }
            }
        }
        drop(state); // a listener that is told may ask the log for more
        if !tickets.is_empty() {
            let listener = self.on_tickets.get();
            listener.expect("somebody listens before a ticket is given out")(&tickets, outcome);
        }
        wakers.drain(..).for_each(Waker::wake);
        tickets.clear();
        let mut state = self.state.borrow_mut();
        (state.tickets, state.wakers) = (tickets, wakers);
    }

    /// Writes a frame at the end of the newest segment and makes it durable, or undoes it.
    async fn write_frame(&self, frame: &mut Vec<u8>) -> Result<(), Refusal> {
        let (file, offset, crc) = {
            let state = self.state.borrow();
            let segment = state.used.back().expect("segment_for made sure of it");
            let usage = segment.header.usage;
            let crc = segment::seal_batch(frame, usage, state.next_batch, state.chain);
            (segment.file.clone(), segment.offset, crc)
        };
        let written = match file.write_at(frame, offset).await {
            Ok(()) => file.sync().await,
            Err(error) => Err(error),
        };
        let shard = self.settings.get().shard;
        if let Err(error) = written {
            if let Some(times) = self.failed_writes.met(self.environment.monotonic(), &error) {
                tracing::error!(shard, offset, times, %error, "a log write failed: its changes are refused");
            }
            self.undo(&file, offset, frame.len()).await;
            return Err(Refusal::Unavailable);
        }
        if file.is_unlinked() {
            self.lose();
            // Only a checkpoint, which waits for this, can save what was answered already.
            if self.settings.get().durability == Durability::Commit {
                self.undo(&file, offset, frame.len()).await;
                return Err(Refusal::Unavailable);
            }
        }
        if let Some(over) = self.failed_writes.over(self.environment.monotonic()) {
            tell_over(shard, over, "the log can be written again");
        }
        let mut state = self.state.borrow_mut();
        state.next_batch += 1;
        state.chain = crc;
        state.counts.batches += 1;
        state.counts.bytes += frame.len() as u64;
        let end = state.batch_end;
        let segment = state
            .used
            .back_mut()
            .expect("it was there before the write");
        segment.offset += frame.len() as u64;
        segment.end = end;
        Ok(())
    }

    /// Overwrites what a failed write may have left, for as long as it takes.
    async fn undo(&self, file: &FileOf<E>, offset: u64, length: usize) {
        self.state.borrow_mut().undoing = true;
        self.wake_line();
        let zeros = vec![0; length];
        loop {
            let undone = match file.write_at(&zeros, offset).await {
                Ok(()) => file.sync().await,
                Err(error) => Err(error),
            };
            match undone {
                Ok(()) => break,
                Err(error) => {
                    let now = self.environment.monotonic();
                    if let Some(times) = self.failed_undos.met(now, &error) {
                        tracing::error!(shard = self.settings.get().shard, offset, times, %error, "a failed log write cannot be undone yet: its requests wait");
                    }
                    self.environment.sleep(RETRY_PAUSE).await;
                }
            }
        }
        if let Some(over) = self.failed_undos.over(self.environment.monotonic()) {
            let shard = self.settings.get().shard;
            tell_over(shard, over, "the failed log write is undone");
        }
        self.state.borrow_mut().undoing = false;
    }

    /// Makes sure that the newest segment has room for a frame that will take up to
    /// `length` bytes before padding.
    async fn segment_for(&self, length: usize) -> Result<(), Refusal> {
        let padded = length.next_multiple_of(BLOCK_BYTES) as u64;
        let settings = self.settings.get();
        let (has_room, is_listed) = {
            let state = self.state.borrow();
            if state.is_lost && settings.durability == Durability::Commit {
                return Err(Refusal::Unavailable);
            }
            let newest = state.used.back();
            let has_room = |s: &Segment<_>| s.offset + padded <= settings.segment_bytes;
            (newest.is_some_and(has_room), state.is_listed)
        };
        if has_room {
            return match is_listed {
                true => Ok(()),
                false => self.list_segments().await,
            };
        }
        let spare = self.take_spare().await?;
        if self.state.borrow().listed.contains(&spare.number) {
            // A list that still names the file's old segment would report that as missing.
            let listed = self.list_segments().await;
            if let Err(refusal) = listed {
                self.state.borrow_mut().spare.push_front(spare);
                return Err(refusal);
            }
        }
        let header = {
            let mut usage = [0; 8];
            self.environment.random(&mut usage);
            let state = self.state.borrow();
            SegmentHeader {
                shard: settings.shard,
                number: state.next_segment,
                run: settings.run,
                usage: u64::from_le_bytes(usage),
                first_batch: state.next_batch,
                chain: state.chain,
                round: self.settings.get().round,
                has_list: true,
            }
        };
        let taken = match spare
            .file
            .write_at(&segment::encode_header(&header), 0)
            .await
        {
            Ok(()) => spare.file.sync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            self.cannot_take_segment(&error);
            let mut state = self.state.borrow_mut();
            state.spare.push_front(spare);
            // The header may be on the disk nevertheless, and says that the next batch is there. So
            // no more batches go into the segment before it.
            if let Some(segment) = state.used.back_mut() {
                segment.offset = settings.segment_bytes;
            }
            return Err(Refusal::Unavailable);
        }
        let used = {
            let mut state = self.state.borrow_mut();
            state.next_segment += 1;
            state.used.push_back(Segment {
                file: spare.file,
                file_number: spare.number,
                header,
                offset: FIRST_BATCH_OFFSET,
                end: 0,
            });
            state.is_listed = false;
            state.counts.segments = state.used.len() as u64;
            state.used.len()
        };
        self.spare_wanted.notify();
        if used >= SEGMENTS_CHECKPOINT {
            self.checkpoint_wanted.notify();
        }
        self.list_segments().await
    }

    /// Writes down which segments have to be there: those in use.
    async fn list_segments(&self) -> Result<(), Refusal> {
        let files = {
            let state = self.state.borrow();
            state
                .used
                .iter()
                .map(|segment| segment.file_number)
                .collect()
        };
        let written = self.write_list(files).await;
        let shard = self.settings.get().shard;
        if let Err(error) = written {
            self.cannot_take_segment(&error);
            return Err(Refusal::Unavailable);
        }
        if let Some(over) = self.failed_segments.over(self.environment.monotonic()) {
            tell_over(shard, over, "log segments can be taken into use again");
        }
        Ok(())
    }

    async fn write_list(&self, files: Vec<u64>) -> io::Result<()> {
        let settings = self.settings.get();
        let listed = {
            let mut state = self.state.borrow_mut();
            let known = mem::take(&mut state.listed);
            state.listed = known.iter().chain(&files).copied().collect();
            let oldest = state.used.front().map(|segment| segment.header.number);
            Listed {
                run: settings.run,
                round: settings.round,
                segment_bytes: settings.segment_bytes,
                first: oldest.unwrap_or(state.next_segment),
                files,
                checkpointed: state.checkpointed,
            }
        };
        self.list.write(self.environment.storage(), &listed).await?;
        let mut state = self.state.borrow_mut();
        state.is_listed = listed.files.len() == state.used.len();
        state.listed = listed.files;
        Ok(())
    }

    /// Takes all segments off the list where a checkpoint has all their records, so that no start
    /// misses them.
    async fn unlist_what_is_saved(&self) {
        let is_saved = {
            let state = self.state.borrow();
            let newest = state.used.back();
            let is_saved = newest.is_none_or(|segment| segment.end <= state.saved_to);
            is_saved && !state.listed.is_empty()
        };
        if is_saved && let Err(error) = self.write_list(Vec::new()).await {
            let shard = self.settings.get().shard;
            tracing::warn!(shard, %error, "cannot write down that the log holds nothing that counts any more");
        }
    }

    fn cannot_take_segment(&self, error: &io::Error) {
        let now = self.environment.monotonic();
        if let Some(times) = self.failed_segments.met(now, error) {
            let shard = self.settings.get().shard;
            tracing::error!(shard, times, %error, "a log segment cannot be taken into use: changes are refused");
        }
    }

    /// Refuses changes from now on, since a segment in use is gone. Logs this once.
    fn lose(&self) {
        let mut state = self.state.borrow_mut();
        if mem::replace(&mut state.is_lost, true) {
            return;
        }
        drop(state);
        let shard = self.settings.get().shard;
        tracing::error!(
            shard,
            "a log segment was removed or moved away under the running node: changes are refused until it is started again. What it answered is in its memory: stop it in order (SIGTERM, no kill -9), so that it writes that to the page files"
        );
        self.checkpoint_wanted.notify();
        self.wake_line();
        self.drained.notify();
    }

    /// Looks now and then whether the segments in use are still where a start will look for them.
    async fn watch_places(self: Rc<Self>) {
        loop {
            self.environment.sleep(PLACE_LOOK).await;
            let used: Vec<(u64, Rc<FileOf<E>>)> = {
                let state = self.state.borrow();
                if state.closing || state.is_lost {
                    return;
                }
                let used = state.used.iter();
                used.map(|segment| (segment.file_number, segment.file.clone()))
                    .collect()
            };
            for (number, file) in used {
                if !self.is_in_place(number, &file).await && self.is_used(number) {
                    self.lose();
                    break;
                }
            }
        }
    }

    async fn is_in_place(&self, number: u64, file: &FileOf<E>) -> bool {
        let name = segment_name(self.settings.get().shard, number);
        self.environment.storage().is_in_place(&name, file).await
    }

    fn is_used(&self, number: u64) -> bool {
        let state = self.state.borrow();
        let mut used = state.used.iter();
        used.any(|segment| segment.file_number == number)
    }

    async fn take_spare(&self) -> Result<SpareFile<FileOf<E>>, Refusal> {
        loop {
            let moment = self.recycled.moment();
            let spare = self.state.borrow_mut().spare.pop_front();
            if let Some(spare) = spare {
                if self.is_in_place(spare.number, &spare.file).await {
                    return Ok(spare);
                }
                // The file held no records.
                self.state.borrow_mut().files -= 1;
                continue;
            }
            {
                let state = self.state.borrow();
                if state.files >= SEGMENTS_MAX && !state.is_flushing() {
                    self.checkpoint_wanted.notify();
                    if state.checkpoint_failed || state.closing {
                        return Err(Refusal::Unavailable);
                    }
                }
            }
            let may_make = {
                let state = self.state.borrow();
                (state.files < SEGMENTS_MAX || state.is_flushing()) && !state.making_spare
            };
            if may_make {
                self.make_spare().await.map_err(|error| {
                    let now = self.environment.monotonic();
                    if let Some(times) = self.failed_segments.met(now, &error) {
                        tracing::warn!(shard = self.settings.get().shard, times, %error, "no room for a log segment: changes are refused");
                    }
                    self.checkpoint_wanted.notify();
                    Refusal::Unavailable
                })?;
            } else {
                self.recycled.after(moment).await;
            }
        }
    }

    /// Keeps a segment ready, so that a full one is followed at once: filling a new one takes
    /// longer than many commits.
    async fn keep_spare(self: Rc<Self>) {
        loop {
            let moment = self.spare_wanted.moment();
            let (closing, wanted) = {
                let state = self.state.borrow();
                let room = state.spare.is_empty() && state.files < SEGMENTS_MAX;
                (state.closing, room && !state.making_spare)
            };
            if closing {
                return;
            }
            if wanted && let Err(error) = self.make_spare().await {
                tracing::warn!(shard = self.settings.get().shard, %error, "no room for a spare log segment");
            }
            self.spare_wanted.after(moment).await;
        }
    }

    /// Makes a segment file, filled with zeros: blocks that the file system has already written
    /// once need no journal entry when they are written again.
    async fn make_spare(&self) -> io::Result<()> {
        let settings = self.settings.get();
        let number = {
            let mut state = self.state.borrow_mut();
            state.making_spare = true;
            state.next_file
        };
        let name = segment_name(settings.shard, number);
        let made = async {
            let file = self.environment.storage().open(&name, true).await?;
            let filled = fill(&file, settings.segment_bytes).await;
            if filled.is_err() {
                drop(file);
                // The file takes room that the disk lacks; a failure here changes nothing.
                let _ = self.environment.storage().remove(&name).await;
                filled?;
                unreachable!("the line above returns the error");
            }
            Ok(file)
        }
        .await;
        let mut state = self.state.borrow_mut();
        state.making_spare = false;
        let result = made.map(|file| {
            state.next_file += 1;
            state.files += 1;
            state.spare.push_back(SpareFile {
                file: Rc::new(file),
                number,
            });
        });
        drop(state);
        self.recycled.notify();
        self.closed.notify();
        result
    }
}

impl<E: Environment> Drop for Place<'_, E> {
    fn drop(&mut self) {
        let mut state = self.log.state.borrow_mut();
        let at = state.place_in_line(self.number);
        state.line.remove(at);
        drop(state);
        self.log.wake_next();
    }
}

impl<F> State<F> {
    fn takes_changes(&self) -> bool {
        let is_shut = self.is_lost || self.is_stalled || self.closing;
        !(is_shut || self.undoing || self.failing)
    }

    fn has_room(&self) -> bool {
        self.backlog.len() - self.backlog_start < BACKLOG_BYTES_MAX
    }

    /// Number of records in line before the one with this number.
    fn place_in_line(&self, number: u64) -> usize {
        let at = self
            .line
            .binary_search_by_key(&number, |standing| standing.number);
        at.expect("a place is in line until it is dropped")
    }

    /// The position of the oldest record that is neither durable nor refused.
    fn first_waiting(&self) -> u64 {
        let oldest = self.queue.front();
        oldest.map_or(self.next_position, |queued| queued.position)
    }

    /// Whether a checkpoint waits for records in line.
    fn is_flushing(&self) -> bool {
        self.first_waiting() < self.flush_to
    }

    /// Moves the oldest records into `frame`, behind room for the batch's head: one, and more while
    /// they take no more than `most` bytes. Gives how many.
    fn fill_frame(&mut self, frame: &mut Vec<u8>, most: usize) -> usize {
        let mut bytes = 0;
        let mut taken = 0;
        for queued in &self.queue {
            if taken > 0 && bytes + queued.bytes > most {
                break;
            }
            bytes += queued.bytes;
            taken += 1;
        }
        frame.clear();
        frame.resize(BATCH_HEAD_BYTES, 0);
        let start = self.backlog_start;
        frame.extend_from_slice(&self.backlog[start..start + bytes]);
        self.drop_from_backlog(bytes);
        self.batch_end = self.queue[taken - 1].position + 1;
        taken
    }

    /// Gives up the oldest bytes of the backlog. The bytes behind them move seldom: not for each
    /// batch of a long line.
    fn drop_from_backlog(&mut self, bytes: usize) {
        self.backlog_start += bytes;
        if self.backlog_start == self.backlog.len() {
            self.backlog_start = 0;
            self.backlog.clear();
            if self.backlog.capacity() > BACKLOG_BYTES_KEPT {
                self.backlog = Vec::new();
            }
        } else if self.backlog_start > self.backlog.len() / 2 {
            self.backlog.drain(..self.backlog_start);
            self.backlog_start = 0;
        }
    }
}

fn tell_over(shard: u16, over: Over, what: &str) {
    let seconds = over.lasted.as_secs_f32();
    tracing::warn!(shard, times = over.times, seconds, "{what}");
}

async fn fill<F: File>(file: &F, length: u64) -> io::Result<()> {
    file.reserve(length).await?;
    let zeros = vec![0; FILL_BYTES.min(length as usize)];
    let mut offset = 0;
    while offset < length {
        let bytes = FILL_BYTES.min((length - offset) as usize);
        file.write_at(&zeros[..bytes], offset).await?;
        offset += bytes as u64;
    }
    file.sync().await
}

/// The file of a log segment, relative to the data folder.
pub(super) fn segment_name(shard: u16, number: u64) -> String {
    format!("{}/{shard}-{number:06}.segment", super::LOG_FOLDER)
}

/// Shard and number of a segment file's name; `None` for a foreign file.
pub(super) fn parse_segment_name(name: &str) -> Option<(u16, u64)> {
    let (shard, number) = name.strip_suffix(".segment")?.split_once('-')?;
    // No log gets this far, and there has to be a next number.
    let number = number.parse().ok().filter(|&number| number < 1 << 60)?;
    Some((shard.parse().ok()?, number))
}
