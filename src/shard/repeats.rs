use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::Future,
    hash::Hasher,
    rc::Rc,
    time::Duration,
};

use foldhash::fast::FixedState;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    NotChanged, Shard, Stranger,
    ask::{Answered, Question},
    locks::TASKS_MAX,
};
use crate::runtime::{Environment, LINE_BYTES, Signal, prefetch};
use crate::{
    coin::{An, Coin},
    protocol::{Command, Status},
    store::{HUGE_PAGE_BYTES, wants_huge_pages},
};

/// Time for which a request that comes again is known (docs/protocol.md, "Repeats").
pub const REMEMBERED: Duration = Duration::from_secs(10);

/// Stands for a request that changes something: two with the same name are the same command with
/// the same decrypted payload. A keyed hash, so that nobody can make up two that share a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeName {
    hash: u128,
    /// The number of the first coin that it names, below 2^24; or any number, where it names none.
    first: u32,
}

/// What requests, and numbers that they give to coins, are hashed with: the same on all shards.
#[derive(Clone, Copy)]
pub struct RepeatKey {
    /// For what may be long.
    sip: [u64; 2],
    /// For a pown of one coin, which has to cost next to nothing: the key of an NH hash (Black et
    /// al., UMAC, 1999). Any two payloads that are chosen without knowledge of the key collide with
    /// a probability of 2^-64.
    nh: [u64; 6],
}

/// The name of a request, as far as its payload has been read.
pub struct Naming(SipHasher13);

/// Stands for the numbers that a request gives to its coins, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given(u64);

/// Who sent a request, as far as repeats depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Stands for the stranger.
    address: u32,
    /// Whether it waits for the outcome of the same request under way: over a stream.
    pub waits: bool,
}

/// A request that was carried out: every coin of it was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedOut {
    /// The numbers that it gave, where they do not follow from its payload.
    pub given: Given,
    /// The rest, where there is some.
    pub details: Option<Box<Details>>,
}

/// What neither follows from a request's payload nor from its coins' numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The coins that it changed, where it does not name them.
    pub coins: Vec<Coin>,
    /// The payload of its answer, where that cannot be made again.
    pub answer: Vec<u8>,
}

/// What a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The status.
    pub status: Status,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A request that is over.
#[derive(Debug)]
pub struct EndedChange {
    /// Its name.
    pub name: ChangeName,
    /// Who sent it.
    pub sender: Sender,
    /// Where it was carried out now.
    pub carried_out: Option<CarriedOut>,
    /// What it was answered, for those that wait for it.
    pub outcome: Outcome,
}

/// What a request that begins is told.
#[derive(Debug)]
pub enum Begun {
    /// It is under way from now on, until [`EndedChange`]. It is the same as one that was carried
    /// out lately, where there is one: whether the coins still have the numbers is the asker's to
    /// look at.
    New(Option<CarriedOut>),
    /// The same is under way, and its sender does not wait.
    UnderWay,
    /// The same was under way, and this came of it.
    Ended(Outcome),
}

/// Begin a request that changes something, which this shard is the home of; where the same is under
/// way, wait for that or not. Refused where too many wait for that.
#[derive(Debug)]
pub struct BeginChange {
    /// Its name.
    pub name: ChangeName,
    /// Whether its sender waits for the same one.
    pub waits: bool,
}

impl Question for BeginChange {
    type Answer = Result<Begun, NotChanged>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let now = shard.environment.monotonic();
        let begun = shard.repeats.borrow_mut().begin(self.name, now);
        match begun {
            Ok(known) => Answered::Now(Ok(Begun::New(known))),
            Err(_) if !self.waits => Answered::Now(Ok(Begun::UnderWay)),
            Err(under_way) if under_way.is_crowded() => Answered::Now(Err(NotChanged::Crowded)),
            Err(under_way) => {
                Answered::Later(async move { Ok(Begun::Ended(under_way.outcome().await)) })
            }
        }
    }
}

/// Which requests that change something are under way, and which were carried out lately: those
/// that this shard is the home of.
///
/// What was carried out takes 24 bytes in a table of fixed size. A name belongs to one bucket of
/// eight; where all are taken, the address that has most of them loses its oldest. So a client that
/// changes much pushes out what others need only where others have no less.
pub(super) struct Repeats {
    buckets: Buckets,
    under_way: HashMap<ChangeName, Rc<UnderWay>, FixedState>,
    /// Changes of one coin that others wait for, by where they have their entries.
    waited_for: HashMap<Place, Rc<UnderWay>, FixedState>,
    details: VecDeque<Kept>,
    details_bytes: usize,
    kept: usize,
}

/// A bucket, in three cache lines: eight tags; for each entry, when it was made and by whom; and
/// the numbers that it gave. Of a change of one coin these follow from its name, so the last line
/// is not touched.
type Words = [u64; 3 * ENTRIES];

const ENTRIES: usize = 8;

/// Plain numbers, since the system gives zeros for these in pages that take no memory before they
/// are used. A large table asks for huge pages: each change looks at a place of its own, and
/// finding where a small page is takes as long as fetching what is there.
struct Buckets {
    words: Box<[u64]>,
    /// Where the first bucket is: at the start of a cache line, or of a huge page.
    start: usize,
    count: usize,
}

/// A bucket that is being looked at.
struct Bucket<'a>(&'a mut Words);

/// What came of putting an entry.
enum Put {
    At(Place),
    /// One with the same name is under way.
    UnderWay,
    /// All of the bucket are under way.
    Full,
}

/// Half of a request's name; 0 where nothing is there.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tag(u64);

#[derive(Clone, Copy)]
struct Entry {
    /// `None` of a change of one coin.
    given: Option<Given>,
    /// In [`TICKS_A_SECOND`] since the shard began.
    at: u32,
    /// 31 bits of the sender's.
    address: u32,
}

/// Set in the word of an entry that has numbers.
const HAS_GIVEN: u64 = 1 << 31;

/// A request under way that has an entry and nothing else.
const UNDER_WAY: u32 = u32::MAX;
const TICKS_A_SECOND: u32 = 32;

/// Details of a request that was carried out.
struct Kept {
    name: ChangeName,
    address: u32,
    details: Box<Details>,
}

/// Details that a shard keeps, in bytes, and one address's share.
const DETAILS_BYTES: usize = 1 << 20;
const DETAILS_SHARE: usize = DETAILS_BYTES / 8;
/// This number can be looked through in some microseconds.
const DETAILS_COUNT: usize = 1_024;
const DETAILS_COUNT_SHARE: usize = DETAILS_COUNT / 8;

/// A request under way, for those who wait for what comes of it.
#[derive(Default)]
pub(super) struct UnderWay {
    outcome: RefCell<Option<Rc<Outcome>>>,
    waiting: Cell<usize>,
    ended: Signal,
}

/// Where a change of one coin that is under way has its entry: no other takes that before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

impl Place {
    /// For tests that end nothing.
    #[cfg(test)]
    pub const NONE: Place = Place(u32::MAX);

    fn new(bucket: usize, index: usize) -> Place {
        Place((bucket * ENTRIES + index) as u32)
    }

    fn bucket(self) -> usize {
        self.0 as usize / ENTRIES
    }

    fn index(self) -> usize {
        self.0 as usize % ENTRIES
    }
}

/// What a change of one coin that begins is told.
#[derive(Debug)]
pub(super) enum BegunSingle {
    /// It is under way from now on.
    New(Place),
    /// The same is under way.
    UnderWay,
    /// There is no entry for it now.
    NoPlace,
}

impl RepeatKey {
    /// A key from bytes that nobody else knows.
    pub fn new(secret: &[u8; 32]) -> RepeatKey {
        let (words, _) = secret.as_chunks();
        let sip = [0, 1].map(|word: usize| u64::from_le_bytes(words[word]));
        let nh = [0, 1, 2, 3, 4, 5].map(|number: u64| {
            let mut hasher = SipHasher13::new_with_keys(
                u64::from_le_bytes(words[2]),
                u64::from_le_bytes(words[3]),
            );
            hasher.write(&number.to_le_bytes());
            hasher.finish() | 1
        });
        RepeatKey { sip, nh }
    }

    fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.sip[0], self.sip[1])
    }

    /// Begins the name of a request of this command; its payload is [added](Naming::add) next. A
    /// pown of one coin has a name of [another sort](RepeatKey::name_pown).
    pub fn name(&self, command: Command) -> Naming {
        let mut hasher = self.hasher();
        hasher.write(&[command.group(), command.code()]);
        Naming(hasher)
    }

    /// Names a pown of one coin.
    #[inline]
    pub fn name_pown(&self, coin: Coin, an: An, proposed: An) -> ChangeName {
        let first = coin.number();
        let [an_low, an_high] = words(an);
        let [new_low, new_high] = words(proposed);
        let [a, b, c, d, e, f] = self.nh;
        let product = |x: u64, x_key: u64, y: u64, y_key: u64| {
            u128::from(x.wrapping_add(x_key)) * u128::from(y.wrapping_add(y_key))
        };
        let hash = product(first.into(), a, an_low, b)
            .wrapping_add(product(an_high, c, new_low, d))
            .wrapping_add(product(new_high, e, 0, f));
        ChangeName { hash, first }
    }

    /// Stands for a coin's number.
    #[inline]
    pub fn given(&self, coin: Coin, an: An) -> Given {
        let mut bytes = [0; Coin::SIZE + An::SIZE];
        bytes[..Coin::SIZE].copy_from_slice(&coin.to_bytes());
        bytes[Coin::SIZE..].copy_from_slice(an.expose());
        let mut hasher = self.hasher();
        hasher.write(&bytes);
        Given(hasher.finish())
    }

    /// This stranger as a sender.
    #[inline]
    pub fn sender(&self, stranger: Stranger, waits: bool) -> Sender {
        let [a, b, ..] = self.nh;
        let product = u128::from(stranger.number() ^ a) * u128::from(b);
        Sender {
            address: (product >> 64) as u32 ^ product as u32,
            waits,
        }
    }
}

impl std::fmt::Debug for RepeatKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RepeatKey(secret)")
    }
}

impl std::fmt::Debug for ChangeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChangeName(secret)")
    }
}

impl Naming {
    /// Adds a part of the payload; the number of parts does not matter.
    #[inline]
    pub fn add(&mut self, payload: &[u8]) {
        self.0.write(payload);
    }

    /// The name of a request that names this coin first, or none.
    pub fn finish(self, first: Option<Coin>) -> ChangeName {
        let hash = self.0.finish128().as_u128();
        ChangeName {
            hash,
            first: first.map_or(hash as u32 >> 8, Coin::number),
        }
    }
}

impl ChangeName {
    /// Some number from 0 to `end - 1`, the same for the same name.
    pub fn modulo(&self, end: u16) -> u16 {
        (self.hash % u128::from(end)) as u16
    }

    #[inline]
    fn tag(&self) -> Tag {
        // Never 0, which means an empty entry.
        Tag(self.folded() | 1)
    }

    fn folded(&self) -> u64 {
        (self.hash >> 64) as u64 ^ self.hash as u64 ^ u64::from(self.first)
    }
}

impl Tag {
    #[inline]
    fn is_free(&self) -> bool {
        self.0 == 0
    }
}

#[inline]
fn words(an: An) -> [u64; 2] {
    let number = u128::from_le_bytes(*an.expose());
    [number as u64, (number >> 64) as u64]
}

impl Given {
    /// Stands for these numbers and those together.
    #[inline]
    pub fn and(self, other: Given) -> Given {
        Given(self.0.wrapping_add(other.0))
    }
}

impl Details {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.answer.len() + self.coins.len() * size_of::<Coin>()
    }
}

impl Outcome {
    /// Of a change of one coin.
    pub fn of_one(ended: Result<bool, NotChanged>) -> Outcome {
        Outcome {
            status: match ended {
                Ok(true) => Status::ALL_PASS,
                Ok(false) => Status::ALL_FAIL,
                Err(NotChanged::Crowded) => Status::OUT_OF_MEMORY,
                Err(NotChanged::Unavailable) => Status::UNAVAILABLE,
            },
            payload: Vec::new(),
        }
    }
}

impl UnderWay {
    /// Whether as many wait for it as may.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.get() >= TASKS_MAX
    }

    /// Waits until it is over.
    pub(super) async fn outcome(&self) -> Outcome {
        self.waiting.set(self.waiting.get() + 1);
        loop {
            let moment = self.ended.moment();
            if let Some(outcome) = &*self.outcome.borrow() {
                return Outcome::clone(outcome);
            }
            self.ended.after(moment).await;
        }
    }

    fn end(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(Rc::new(outcome));
        self.ended.notify();
    }
}

impl Repeats {
    /// Remembers at most `most` requests.
    pub(super) fn new(most: usize) -> Repeats {
        Repeats {
            buckets: Buckets::new((most / ENTRIES).max(1)),
            under_way: HashMap::default(),
            waited_for: HashMap::default(),
            details: VecDeque::new(),
            details_bytes: 0,
            kept: 0,
        }
    }

    /// Entries that are in use, those included that are older than [`REMEMBERED`] and not replaced
    /// yet.
    pub(super) fn len(&self) -> usize {
        self.kept
    }

    /// Begins a request, unless the same is under way: then gives that one.
    pub(super) fn begin(
        &mut self,
        name: ChangeName,
        now: Duration,
    ) -> Result<Option<CarriedOut>, Rc<UnderWay>> {
        if let Some(under_way) = self.under_way.get(&name) {
            return Err(under_way.clone());
        }
        let found = self.entry(name);
        if let Some((place, entry)) = found
            && entry.at == UNDER_WAY
        {
            return Err(self.waited_for.entry(place).or_default().clone());
        }
        self.under_way.insert(name, Rc::default());
        let known = found.filter(|(_, entry)| entry.is_known(now));
        Ok(known.map(|(_, entry)| {
            let mut details = self.details.iter();
            CarriedOut {
                given: entry.given.unwrap_or_default(),
                details: details
                    .find(|kept| kept.name == name)
                    .map(|kept| kept.details.clone()),
            }
        }))
    }

    /// Ends a request.
    ///
    /// # Panics
    /// When it was not under way.
    pub(super) fn end(&mut self, ended: EndedChange, now: Duration) {
        let EndedChange {
            name,
            sender,
            carried_out,
            outcome,
        } = ended;
        let under_way = self.under_way.remove(&name);
        let under_way = under_way.expect("a request is under way until it ends, and ends once");
        if under_way.waiting.get() > 0 {
            under_way.end(outcome);
        }
        if let Some(CarriedOut { given, details }) = carried_out {
            if let Some(details) = details
                && !self.keep(name, sender, details)
            {
                return;
            }
            let entry = Entry {
                given: Some(given),
                at: ticks(now),
                address: sender.address,
            };
            self.put(name, entry);
        }
    }

    /// Begins a change of one coin that waits for the log alone.
    #[inline]
    pub(super) fn begin_single(&mut self, name: ChangeName, sender: Sender) -> BegunSingle {
        if !self.under_way.is_empty() && self.under_way.contains_key(&name) {
            return BegunSingle::UnderWay;
        }
        let entry = Entry {
            given: None,
            at: UNDER_WAY,
            address: sender.address,
        };
        match self.put(name, entry) {
            Put::At(place) => BegunSingle::New(place),
            Put::UnderWay => BegunSingle::UnderWay,
            Put::Full => BegunSingle::NoPlace,
        }
    }

    /// Ends a change of one coin: with its change in force, or not.
    #[inline]
    pub(super) fn end_single(
        &mut self,
        place: Place,
        ended: Result<bool, NotChanged>,
        now: Duration,
    ) {
        let passed = ended == Ok(true);
        let (mut bucket, index) = (self.buckets.of(place.bucket()), place.index());
        let mut entry = bucket.entry(index);
        assert_eq!(entry.at, UNDER_WAY, "what is under way keeps its entry");
        match passed {
            true => {
                entry.at = ticks(now);
                bucket.set(index, bucket.tag(index), entry);
            }
            false => {
                bucket.clear(index);
                self.kept -= 1;
            }
        }
        if !self.waited_for.is_empty()
            && let Some(waited_for) = self.waited_for.remove(&place)
        {
            waited_for.end(Outcome::of_one(ended));
        }
    }

    /// Whether this was carried out lately.
    pub(super) fn was_carried_out(&self, name: ChangeName, now: Duration) -> bool {
        self.entry(name)
            .is_some_and(|(_, entry)| entry.is_known(now))
    }

    /// Has the processor fetch what a change of this name, soon to begin, will look into.
    #[inline]
    pub(super) fn prefetch(&self, name: ChangeName) {
        self.buckets.prefetch(self.bucket(name));
    }

    /// Has the processor fetch what the end of a change, soon to come, will look into.
    #[inline]
    pub(super) fn prefetch_end(&self, place: Place) {
        self.buckets.prefetch(place.bucket());
    }

    #[inline]
    fn bucket(&self, name: ChangeName) -> usize {
        // Fibonacci hashing: the high bits of the product depend on all of the name.
        let hash = name.folded().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((hash * self.buckets.count as u64) >> 32) as usize
    }

    fn entry(&self, name: ChangeName) -> Option<(Place, Entry)> {
        let at = self.bucket(name);
        let words = self.buckets.words(at);
        let mut tags = words[..ENTRIES].iter();
        let index = tags.position(|tag| *tag == name.tag().0)?;
        Some((Place::new(at, index), Entry::from_words(words, index)))
    }

    /// Puts an entry into its bucket, in place of one with the same name, a free one, or the one to
    /// be given up first. One that is under way stays.
    #[inline]
    fn put(&mut self, name: ChangeName, new: Entry) -> Put {
        let (at, tag) = (self.bucket(name), name.tag());
        let mut bucket = self.buckets.of(at);
        let (mut free, mut found) = (None, None);
        for index in 0..ENTRIES {
            let other = bucket.tag(index);
            if other.is_free() {
                free = Some(index);
            } else if other == tag {
                found = Some(index);
            }
        }
        let index = match (found, free) {
            (Some(index), _) if bucket.entry(index).at == UNDER_WAY => return Put::UnderWay,
            (Some(index), _) => index,
            (None, Some(index)) => {
                self.kept += 1;
                index
            }
            (None, None) => match bucket.given_up_first() {
                Some(index) => index,
                None => return Put::Full,
            },
        };
        bucket.set(index, tag, new);
        Put::At(Place::new(at, index))
    }

    /// Keeps details of a request; `false` where there is no room in its address's share.
    fn keep(&mut self, name: ChangeName, sender: Sender, details: Box<Details>) -> bool {
        let bytes = details.bytes();
        if bytes > DETAILS_SHARE {
            return false;
        }
        self.give_up_details(|kept| kept.name == name);
        let is_own = |kept: &Kept| kept.address == sender.address;
        loop {
            let own = self.details.iter().filter(|&kept| is_own(kept));
            let (count, taken) = own.fold((0, 0), |(count, taken), kept| {
                (count + 1, taken + kept.details.bytes())
            });
            match count == DETAILS_COUNT_SHARE || taken + bytes > DETAILS_SHARE {
                true => self.give_up_details(is_own),
                false => break,
            }
        }
        while self.details.len() == DETAILS_COUNT || self.details_bytes + bytes > DETAILS_BYTES {
            self.give_up_details(|_| true);
        }
        self.details_bytes += bytes;
        self.details.push_back(Kept {
            name,
            address: sender.address,
            details,
        });
        true
    }

    /// Gives up the oldest details that meet a condition, and the entry that they belong to.
    fn give_up_details(&mut self, which: impl Fn(&Kept) -> bool) {
        let Some(kept) = self.details.iter().position(which) else {
            return;
        };
        let Some(kept) = self.details.remove(kept) else {
            return;
        };
        self.details_bytes -= kept.details.bytes();
        let at = self.bucket(kept.name);
        let mut bucket = self.buckets.of(at);
        let index = (0..ENTRIES).find(|&index| bucket.tag(index) == kept.name.tag());
        if let Some(index) = index.filter(|&index| bucket.entry(index).at != UNDER_WAY) {
            bucket.clear(index);
            self.kept -= 1;
        }
    }
}

impl Buckets {
    fn new(count: usize) -> Buckets {
        let bytes = count * size_of::<Words>();
        let is_huge = bytes >= HUGE_PAGE_BYTES;
        let align = if is_huge { HUGE_PAGE_BYTES } else { LINE_BYTES };
        let bytes = bytes.next_multiple_of(align);
        let spare = align / size_of::<u64>();
        let mut words: Box<[u64]> = vec![0; bytes / size_of::<u64>() + spare].into();
        let start = words.as_ptr().align_offset(align).min(spare);
        if is_huge {
            // SAFETY: the memory is ours.
            unsafe { wants_huge_pages(words[start..].as_mut_ptr().cast(), bytes) };
        }
        Buckets {
            words,
            start,
            count,
        }
    }

    #[inline]
    fn at(&self, bucket: usize) -> usize {
        self.start + bucket * 3 * ENTRIES
    }

    #[inline]
    fn words(&self, bucket: usize) -> &Words {
        let words = self.words[self.at(bucket)..].first_chunk();
        words.expect("the last bucket ends before the words do")
    }

    #[inline]
    fn of(&mut self, bucket: usize) -> Bucket<'_> {
        let at = self.at(bucket);
        let words = self.words[at..].first_chunk_mut();
        Bucket(words.expect("the last bucket ends before the words do"))
    }

    #[inline]
    fn prefetch(&self, bucket: usize) {
        let words = self.words(bucket);
        prefetch(&words[0]);
        prefetch(&words[ENTRIES]);
    }
}

impl Bucket<'_> {
    #[inline]
    fn tag(&self, index: usize) -> Tag {
        Tag(self.0[index])
    }

    #[inline]
    fn entry(&self, index: usize) -> Entry {
        Entry::from_words(self.0, index)
    }

    #[inline]
    fn set(&mut self, index: usize, tag: Tag, entry: Entry) {
        self.0[index] = tag.0;
        let given = entry.given.map_or(0, |Given(given)| {
            self.0[2 * ENTRIES + index] = given;
            HAS_GIVEN
        });
        self.0[ENTRIES + index] = u64::from(entry.at) << 32 | given | u64::from(entry.address >> 1);
    }

    fn clear(&mut self, index: usize) {
        self.0[index] = 0;
    }

    /// In a full bucket, the oldest entry of the address that has most, except those under way.
    #[cold]
    fn given_up_first(&self) -> Option<usize> {
        let entries: [Entry; ENTRIES] = std::array::from_fn(|index| self.entry(index));
        let count = |address| {
            entries
                .iter()
                .filter(|other| other.address == address)
                .count()
        };
        let settled = entries.iter().enumerate();
        let settled = settled.filter(|(_, entry)| entry.at != UNDER_WAY);
        let first = settled.min_by_key(|(_, entry)| (ENTRIES - count(entry.address), entry.at));
        first.map(|(index, _)| index)
    }
}

impl Entry {
    #[inline]
    fn from_words(words: &Words, index: usize) -> Entry {
        let word = words[ENTRIES + index];
        let has_given = word & HAS_GIVEN != 0;
        Entry {
            given: has_given.then(|| Given(words[2 * ENTRIES + index])),
            at: (word >> 32) as u32,
            address: (word as u32) << 1,
        }
    }

    fn is_known(&self, now: Duration) -> bool {
        let longest = REMEMBERED.as_secs() as u32 * TICKS_A_SECOND;
        self.at != UNDER_WAY && ticks(now).saturating_sub(self.at) <= longest
    }
}

/// A moment as entries have it: good for four years.
#[inline]
fn ticks(now: Duration) -> u32 {
    let fraction = now.subsec_nanos() / (1_000_000_000 / TICKS_A_SECOND);
    now.as_secs() as u32 * TICKS_A_SECOND + fraction
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::coin::PageId;

    const SECOND: Duration = Duration::from_secs(1);

    fn coin(page: usize, place: usize) -> Coin {
        PageId::from_index(page).unwrap().coin(place)
    }

    fn key() -> RepeatKey {
        RepeatKey::new(&[7; 32])
    }

    fn name(payload: u64) -> ChangeName {
        let mut naming = key().name(Command::Pown);
        naming.add(&payload.to_le_bytes());
        naming.finish(None)
    }

    fn sender(last: u8) -> Sender {
        key().sender(Stranger::V4(last.into()), false)
    }

    fn outcome(status: Status) -> Outcome {
        Outcome {
            status,
            payload: vec![1, 2],
        }
    }

    fn end(repeats: &mut Repeats, of: u64, from: u8, details: Option<Details>, now: Duration) {
        assert!(matches!(repeats.begin(name(of), now), Ok(None)));
        let ended = EndedChange {
            name: name(of),
            sender: sender(from),
            carried_out: Some(CarriedOut {
                given: Given(of),
                details: details.map(Box::new),
            }),
            outcome: outcome(Status::ALL_PASS),
        };
        repeats.end(ended, now);
    }

    /// Whether it is remembered; it does not stay under way.
    fn knows(repeats: &mut Repeats, of: u64, now: Duration) -> bool {
        let known = repeats.begin(name(of), now).ok().expect("not under way");
        repeats.under_way.remove(&name(of));
        known.is_some_and(|known| known.given == Given(of))
    }

    #[test]
    fn a_name_is_of_the_command_and_the_whole_payload() {
        let named = |command, parts: &[&[u8]]| {
            let mut naming = key().name(command);
            parts.iter().for_each(|part| naming.add(part));
            naming.finish(None)
        };
        let one = named(Command::Pown, &[b"abcdefghij"]);
        assert_eq!(one, named(Command::Pown, &[b"abc", b"", b"defghij"]));
        assert_ne!(one, named(Command::PownSum, &[b"abcdefghij"]));
        assert_ne!(one, named(Command::Pown, &[b"abcdefghi"]));
        let pown = |place, old, new| {
            key().name_pown(coin(2, place), An::new([old; 16]), An::new([new; 16]))
        };
        let all = [
            pown(3, 1, 2),
            pown(4, 1, 2),
            pown(3, 2, 2),
            pown(3, 1, 3),
            pown(3, 2, 1),
        ];
        for (index, name) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other != name));
            assert!(
                all[index + 1..]
                    .iter()
                    .all(|other| other.tag() != name.tag())
            );
        }
    }

    #[test]
    fn given_numbers_have_no_order_and_each_counts() {
        let given = |number: u8, n| key().given(coin(0, n), An::new([number; 16]));
        let both = given(1, 1).and(given(2, 2));
        assert_eq!(both, given(2, 2).and(given(1, 1)));
        assert_ne!(both, given(1, 2).and(given(2, 1)));
    }

    #[test]
    fn what_was_carried_out_is_known_for_ten_seconds() {
        let mut repeats = Repeats::new(64);
        end(&mut repeats, 1, 1, None, SECOND);
        assert!(knows(&mut repeats, 1, SECOND * 11 - SECOND / 10));
        assert!(!knows(&mut repeats, 1, SECOND * 11 + SECOND / 10));
        assert!(!knows(&mut repeats, 2, SECOND));
    }

    #[test]
    fn the_same_request_waits_for_the_one_under_way_and_gets_its_outcome() {
        let mut repeats = Repeats::new(64);
        assert!(matches!(repeats.begin(name(1), SECOND), Ok(None)));
        let under_way = repeats.begin(name(1), SECOND).unwrap_err();
        let mut waits = pin!(under_way.outcome());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        let ended = EndedChange {
            name: name(1),
            sender: sender(1),
            carried_out: None,
            outcome: outcome(Status::MIXED),
        };
        repeats.end(ended, SECOND);
        let Poll::Ready(got) = waits.as_mut().poll(&mut context) else {
            panic!("it is over");
        };
        assert_eq!(got, outcome(Status::MIXED));
        assert!(!knows(&mut repeats, 1, SECOND), "it was not carried out");
    }

    #[test]
    fn no_more_wait_for_the_same_request_than_may() {
        let mut repeats = Repeats::new(64);
        assert!(matches!(repeats.begin(name(1), SECOND), Ok(None)));
        let under_way = repeats.begin(name(1), SECOND).unwrap_err();
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        for _ in 0..TASKS_MAX {
            assert!(!under_way.is_crowded());
            let mut waits = Box::pin(under_way.outcome());
            assert!(waits.as_mut().poll(&mut context).is_pending());
            waiting.push(waits);
        }
        assert!(under_way.is_crowded());
    }

    #[test]
    fn a_change_of_one_coin_is_under_way_and_then_known_unless_it_failed() {
        let mut repeats = Repeats::new(64);
        let ends = [
            (Err(NotChanged::Unavailable), Status::UNAVAILABLE),
            (Err(NotChanged::Crowded), Status::OUT_OF_MEMORY),
            (Ok(false), Status::ALL_FAIL),
            (Ok(true), Status::ALL_PASS),
        ];
        for (ended, status) in ends {
            let passed = ended == Ok(true);
            let BegunSingle::New(place) = repeats.begin_single(name(1), sender(1)) else {
                panic!("it is not under way");
            };
            let again = repeats.begin_single(name(1), sender(1));
            assert!(matches!(again, BegunSingle::UnderWay));
            let under_way = repeats.begin(name(1), SECOND).unwrap_err();
            repeats.end_single(place, ended, SECOND);
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(got) = pin!(under_way.outcome()).poll(&mut context) else {
                panic!("it is over");
            };
            let payload = vec![];
            assert_eq!(got, Outcome { status, payload });
            assert_eq!(repeats.was_carried_out(name(1), SECOND), passed);
            assert_eq!(repeats.len(), usize::from(passed));
        }
    }

    #[test]
    fn a_bucket_takes_three_cache_lines() {
        for count in [1, 2, 1_000, 16_384] {
            let mut buckets = Buckets::new(count);
            for bucket in 0..count {
                let words = buckets.words(bucket).as_ptr();
                assert_eq!(words.addr() % LINE_BYTES, 0);
                assert_eq!(buckets.of(bucket).0.as_ptr(), words);
            }
        }
    }

    #[test]
    fn who_changes_much_pushes_out_his_own() {
        let mut repeats = Repeats::new(256);
        (0..32).for_each(|of| end(&mut repeats, of, 1, None, SECOND));
        (1_000..50_000).for_each(|of| end(&mut repeats, of, 2, None, SECOND * 2));
        // 32 buckets, and one of the first address's in each on average: where it has two, the
        // other may have no more.
        let known = (0..32)
            .filter(|&of| knows(&mut repeats, of, SECOND * 3))
            .count();
        assert!(known >= 30, "{known} of 32");
        assert_eq!(repeats.len(), 256);
    }

    #[test]
    fn changes_of_one_coin_that_wait_for_each_other_are_under_way_together() {
        let mut repeats = Repeats::new(16_384);
        let an = |number| An::new([number; 16]);
        let name = |old, new| key().name_pown(coin(2, 3), an(old), an(new));
        let places: Vec<Place> = (1..49)
            .map(
                |number| match repeats.begin_single(name(number, number + 1), sender(1)) {
                    BegunSingle::New(place) => place,
                    other => panic!("{other:?}"),
                },
            )
            .collect();
        for place in places {
            repeats.end_single(place, Ok(true), SECOND);
        }
        assert!((1..49).all(|number| repeats.was_carried_out(name(number, number + 1), SECOND)));
        assert_eq!(repeats.len(), 48);
    }

    #[test]
    fn details_have_room_for_all_and_an_address_its_share() {
        let mut repeats = Repeats::new(4_096);
        let details = |bytes| Details {
            answer: vec![5; bytes],
            coins: vec![coin(0, 1)],
        };
        end(&mut repeats, 0, 1, Some(details(100)), SECOND);
        let known = repeats.begin(name(0), SECOND).ok().flatten().unwrap();
        assert_eq!(known.details, Some(Box::new(details(100))));
        repeats.under_way.clear();
        (1..1_000).for_each(|of| end(&mut repeats, of, 2, Some(details(1_000)), SECOND));
        assert!(repeats.details_bytes <= DETAILS_SHARE + 1_000);
        assert!(knows(&mut repeats, 0, SECOND), "another's");
        assert!(!knows(&mut repeats, 1, SECOND), "its oldest");
        assert!(knows(&mut repeats, 999, SECOND), "its newest");
        end(&mut repeats, 5_000, 3, Some(details(DETAILS_SHARE)), SECOND);
        assert!(!knows(&mut repeats, 5_000, SECOND), "more than a share");
        assert!(repeats.details.len() < DETAILS_COUNT);
    }
}
