use std::{collections::VecDeque, time::Duration};

use crate::coin::{COINS_PER_PAGE, Coin, PAGES};

/// When something last happened to each coin, for as long as that matters. Each coin takes one
/// byte, in pages that exist only while something in them matters; all possible pages take 15 MB.
///
/// A byte is the number of an [`Era`]: a stretch of time in which the same was so, one or some
/// `step`s long at most. What is older than `keep` is forgotten. Before the number of a forgotten
/// era is used again, a sweep over the pages takes it out of all bytes, some pages each time that
/// an era begins.
pub(super) struct Moments<T> {
    keep: Duration,
    step: Duration,
    /// By page index; empty before the first note.
    pages: Vec<Option<Box<[u8; COINS_PER_PAGE]>>>,
    /// The oldest first. Their numbers follow one another.
    eras: VecDeque<Era<T>>,
    /// The number of the oldest era, or of the next one where there is none.
    first: EraNumber,
    /// Eras before `first` that are forgotten, and still in some bytes.
    forgotten: usize,
    sweep: Option<Sweep>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era<T> {
    /// The first moment that was noted in it.
    pub(super) began: Duration,
    /// The last.
    pub(super) last: Duration,
    /// What was so.
    pub(super) what: T,
}

/// What is so in an era.
pub(super) trait What: Copy + PartialEq {
    /// What holds of a moment when one of the two was so. Where there are more eras than numbers,
    /// two become one.
    fn or(self, other: Self) -> Self;

    /// How many steps an era lasts in which this is so, 1 to [`STEPS_MAX`].
    fn steps(self) -> u32 {
        1
    }
}

const STEPS_MAX: u32 = 3;

/// The number of an era: 1 to 255, round and round. 0 is for what never happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EraNumber(u8);

/// Some forgotten eras on their way out of all bytes.
struct Sweep {
    first: EraNumber,
    count: usize,
    /// The page that is next.
    next: usize,
}

/// Numbers of eras.
const NUMBERS: usize = u8::MAX as usize;
/// Number of eras after whose beginning a sweep is over.
const SWEEP_ERAS: usize = 16;
/// Pages swept when an era begins: one takes a tenth of a microsecond.
const SWEPT_A_TURN: usize = PAGES.div_ceil(SWEEP_ERAS);

impl EraNumber {
    /// The number `count` after this one.
    fn after(self, count: usize) -> EraNumber {
        // Numbers start at 1, places at 0.
        let number = (usize::from(self.0) - 1 + count) % NUMBERS + 1;
        EraNumber(number as u8)
    }

    /// How many numbers this one is after another.
    fn since(self, other: EraNumber) -> usize {
        (usize::from(self.0) + NUMBERS - usize::from(other.0)) % NUMBERS
    }
}

impl<T: What> Moments<T> {
    /// Moments that matter for `keep`. Eras should be so long that 190 numbers are enough for what
    /// is kept: the others are on their way out.
    pub(super) fn new(keep: Duration, step: Duration) -> Moments<T> {
        Moments {
            keep,
            step,
            pages: Vec::new(),
            eras: VecDeque::new(),
            first: EraNumber(1),
            forgotten: 0,
            sweep: None,
        }
    }

    /// The era of now, in which this is so; `forget` hears of those that are too old.
    pub(super) fn era(&mut self, now: Duration, what: T, forget: impl FnMut(Era<T>)) -> EraNumber {
        for (index, era) in self.eras.iter_mut().enumerate().rev() {
            if era.began + self.step * STEPS_MAX <= now {
                break;
            }
            if era.what == what && era.began + self.step * what.steps() > now {
                era.last = era.last.max(now);
                return self.first.after(index);
            }
        }
        self.begin(now, what, forget)
    }

    #[cold]
    fn begin(&mut self, now: Duration, what: T, mut forget: impl FnMut(Era<T>)) -> EraNumber {
        while let Some(&era) = self.eras.front()
            && era.last + self.keep <= now
        {
            self.eras.pop_front();
            self.first = self.first.after(1);
            self.forgotten += 1;
            forget(era);
        }
        self.sweep_some();
        // After more eras than numbers, and a long pause: every number is one that is forgotten.
        while self.eras.is_empty() && self.forgotten == NUMBERS {
            self.sweep_some();
        }
        if self.forgotten + self.eras.len() < NUMBERS {
            let (began, last) = (now, now);
            self.eras.push_back(Era { began, last, what });
        } else if let Some(newest) = self.eras.back_mut() {
            // Coins of either are taken for coins of both from now on.
            newest.what = newest.what.or(what);
            newest.last = newest.last.max(now);
        }
        self.first.after(self.eras.len() - 1)
    }

    /// Notes that it happened to this coin in this era, which began or went on just now.
    #[inline]
    pub(super) fn note(&mut self, coin: Coin, era: EraNumber) {
        if self.pages.is_empty() {
            self.pages.resize_with(PAGES, || None);
        }
        let page = &mut self.pages[coin.page().index()];
        let page = page.get_or_insert_with(|| Box::new([0; COINS_PER_PAGE]));
        page[coin.place()] = era.0;
    }

    /// Forgets that it happened to this coin.
    #[inline]
    pub(super) fn clear(&mut self, coin: Coin) {
        if let Some(Some(page)) = self.pages.get_mut(coin.page().index()) {
            page[coin.place()] = 0;
        }
    }

    /// When it last happened to this coin, as far as that is not forgotten.
    #[inline]
    pub(super) fn of(&self, coin: Coin) -> Option<&Era<T>> {
        let page = self.pages.get(coin.page().index())?.as_ref()?;
        let number = page[coin.place()];
        if number == 0 {
            return None;
        }
        // A forgotten one is after all that are not.
        self.eras.get(EraNumber(number).since(self.first))
    }

    fn sweep_some(&mut self) {
        if self.sweep.is_none() && self.forgotten > 0 {
            self.sweep = Some(Sweep {
                first: self.first.after(NUMBERS - self.forgotten),
                count: self.forgotten,
                next: 0,
            });
        }
        let Some(sweep) = &mut self.sweep else {
            return;
        };
        let end = (sweep.next + SWEPT_A_TURN).min(self.pages.len());
        for page in &mut self.pages[sweep.next..end] {
            if let Some(bytes) = page
                && !sweep.clear(bytes)
            {
                *page = None;
            }
        }
        sweep.next = end;
        if end == self.pages.len() {
            self.forgotten -= sweep.count;
            self.sweep = None;
        }
    }

    /// Pages that are in memory.
    #[cfg(test)]
    fn page_count(&self) -> usize {
        self.pages.iter().flatten().count()
    }
}

impl Sweep {
    /// Clears bytes of forgotten eras; says whether any other is left.
    fn clear(&self, bytes: &mut [u8; COINS_PER_PAGE]) -> bool {
        let (first, last) = (self.first.0, self.first.after(self.count - 1).0);
        // In loops without a branch, which the compiler makes fast ones.
        let mut left = 0;
        match first <= last {
            true => bytes.iter_mut().for_each(|byte| {
                let is_forgotten = (*byte >= first) & (*byte <= last);
                *byte = if is_forgotten { 0 } else { *byte };
                left |= *byte;
            }),
            false => bytes.iter_mut().for_each(|byte| {
                let is_forgotten = (*byte >= first) | (*byte <= last);
                *byte = if is_forgotten { 0 } else { *byte };
                left |= *byte;
            }),
        }
        left != 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::coin::PageId;

    impl What for u8 {
        fn or(self, other: u8) -> u8 {
            self.max(other)
        }

        fn steps(self) -> u32 {
            if self == 1 { STEPS_MAX } else { 1 }
        }
    }

    const KEEP: Duration = Duration::from_secs(720);
    const STEP: Duration = Duration::from_secs(6);

    fn coin(number: usize) -> Coin {
        let page = PageId::from_index(number * 37 % PAGES).unwrap();
        page.coin(number % COINS_PER_PAGE)
    }

    fn note(moments: &mut Moments<u8>, coin: Coin, now: Duration, what: u8) {
        let era = moments.era(now, what, |_| {});
        moments.note(coin, era);
    }

    #[test]
    fn what_happened_is_known_to_within_a_step_for_as_long_as_it_matters_and_not_for_ever() {
        let mut random = SmallRng::seed_from_u64(5);
        let mut moments = Moments::new(KEEP, STEP);
        let mut known: HashMap<usize, (Duration, u8)> = HashMap::new();
        let mut now = Duration::ZERO;
        for round in 0..60_000 {
            now += Duration::from_millis(random.random_range(0..400));
            let (number, what) = (random.random_range(0..3_000), random.random_range(0..2));
            note(&mut moments, coin(number), now, what);
            known.insert(number, (now, what));
            if round % 50 != 0 {
                continue;
            }
            for (&number, &(at, what)) in &known {
                let era = moments.of(coin(number));
                if at + KEEP > now {
                    let era = era.expect("it matters");
                    assert_eq!(era.what, what);
                    assert!(era.began <= at && at <= era.last);
                    assert!(era.last < era.began + STEP * what.steps());
                } else if at + KEEP + STEP * 2 * STEPS_MAX <= now {
                    assert_eq!(era, None, "{number} at {at:?}, now {now:?}");
                }
            }
        }
    }

    #[test]
    fn a_coin_that_nothing_happens_to_any_more_is_not_taken_for_one_of_later() {
        let mut moments = Moments::new(KEEP, STEP);
        note(&mut moments, coin(1), Duration::ZERO, 7);
        let mut now = Duration::ZERO;
        for round in 0..3_000 {
            now += STEP;
            note(&mut moments, coin(2), now, 7);
            assert_eq!(moments.of(coin(1)).is_some(), now < KEEP, "{round}");
            assert!(moments.of(coin(2)).is_some_and(|era| era.last == now));
        }
        assert_eq!(moments.page_count(), 1, "the other page is given back");
    }

    #[test]
    fn more_than_there_are_numbers_for_is_taken_for_newer_than_it_is_and_never_for_older() {
        let mut moments = Moments::new(KEEP, STEP);
        let at = |number: usize| Duration::from_millis(number as u64);
        for number in 0..2_000 {
            // Another one each time.
            note(&mut moments, coin(number), at(number), number as u8);
        }
        for number in 0..2_000 {
            let era = moments.of(coin(number)).unwrap();
            assert!(era.last >= at(number) && era.what >= number as u8);
        }
        // And later there are numbers again.
        let mut now = at(2_000);
        for _ in 0..1_000 {
            now += STEP;
            note(&mut moments, coin(1), now, 3);
        }
        assert_eq!(moments.of(coin(1)).unwrap().began, now);
        assert_eq!(moments.of(coin(2)), None);
    }

    #[test]
    fn all_numbers_are_used_again_after_a_long_pause() {
        let mut moments = Moments::new(KEEP, STEP);
        for number in 0..NUMBERS {
            let at = Duration::from_millis(number as u64);
            note(&mut moments, coin(number), at, number as u8);
        }
        note(&mut moments, coin(1), 10 * KEEP, 7);
        assert!(moments.of(coin(1)).is_some_and(|era| era.what == 7));
        assert!((2..NUMBERS).all(|number| moments.of(coin(number)).is_none()));
        assert_eq!(moments.page_count(), 1);
    }

    #[test]
    fn what_is_cleared_did_not_happen() {
        let mut moments = Moments::new(KEEP, STEP);
        moments.clear(coin(1));
        note(&mut moments, coin(1), STEP, 7);
        assert!(moments.of(coin(1)).is_some());
        moments.clear(coin(1));
        assert_eq!(moments.of(coin(1)), None);
    }
}
