use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Does, FixKind, KINDS, Kind, KindCount, KindEntry, Numbers, Setup, Verdict};
use crate::load::LoadError;
use crate::load::purse::{Held, deal};
use crate::protocol::{Command, Status};

/// Kinds with their shares, as a person writes them: `detect=90,pown=10`. A single kind is a mix
/// too.
#[derive(Clone, Debug)]
pub struct Mix {
    parts: Vec<(&'static KindEntry, u32)>,
}

/// Requests of several kinds, drawn at random by their shares. Each kind has its own coins: if one
/// kind's request changed a coin, the right answer to another kind's request about it would be
/// unknown.
pub struct MixKind {
    parts: Vec<Part>,
    /// The sum of all shares.
    shares: u32,
    /// By slot: the part that its request belongs to.
    part_of: Vec<usize>,
    /// The part that was drawn and had nothing to ask: it is still its turn, or the shares would
    /// not be as specified.
    waits: Option<usize>,
}

struct Part {
    kind: Box<dyn Kind>,
    /// Draws below this limit belong to it, or to an earlier part.
    below: u32,
    count: KindCount,
}

impl Mix {
    /// A mix of one kind; `None` where no kind has this name.
    pub fn one(name: &str) -> Option<Mix> {
        let entry = KINDS.iter().find(|entry| entry.name == name)?;
        Some(Mix {
            parts: vec![(entry, 1)],
        })
    }

    /// Reads `KIND=SHARE` a line, or several with commas between them; lines that begin with # are
    /// remarks.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Mix, String> {
        let mut parts: Vec<(&'static KindEntry, u32)> = Vec::new();
        let lines = text.lines().filter(|line| !line.trim().starts_with('#'));
        let items = lines.flat_map(|line| line.split(',')).map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            let (name, share) = item
                .split_once('=')
                .ok_or_else(|| format!("\"{item}\" is not KIND=SHARE"))?;
            if name.trim() == FixKind::NAME {
                return Err(format!(
                    "{} takes a network and is no part of a mix: ask for it alone",
                    FixKind::NAME
                ));
            }
            let entry = KINDS.iter().find(|entry| entry.name == name.trim());
            let entry = entry.ok_or_else(|| {
                let names: Vec<&str> = KINDS.iter().map(|entry| entry.name).collect();
                format!("there is no kind \"{name}\": {}", names.join(", "))
            })?;
            let share = match share.trim().parse() {
                Ok(share @ 1..=1_000_000) => share,
                _ => return Err(format!("\"{share}\" is no share: 1 to 1000000")),
            };
            if parts.iter().any(|(other, _)| other.name == entry.name) {
                return Err(format!("{} is named twice", entry.name));
            }
            parts.push((entry, share));
        }
        match parts.is_empty() {
            true => Err("no kind is named".to_owned()),
            false => Ok(Mix { parts }),
        }
    }

    /// Whether any of its kinds is about coins.
    pub fn is_about_coins(&self) -> bool {
        (self.parts.iter()).any(|(entry, _)| entry.does != Does::Nothing)
    }

    /// Whether it contains the kind of this name.
    pub fn asks_for(&self, name: &str) -> bool {
        self.parts.iter().any(|(entry, _)| entry.name == name)
    }

    /// The part of its requests that change coins, 0 to 1.
    pub fn changing_share(&self) -> f64 {
        let share = |parts: &mut dyn Iterator<Item = &(&KindEntry, u32)>| {
            parts.map(|&(_, share)| f64::from(share)).sum::<f64>()
        };
        let mut changing = (self.parts.iter()).filter(|(entry, _)| entry.does == Does::Changes);
        share(&mut changing) / share(&mut self.parts.iter())
    }

    /// Its kind, if any, for which coins get numbers that are drawn on the way; `in_lockers` tells
    /// whether the coins lie in lockers already.
    pub fn drawing(&self, in_lockers: bool) -> Option<&'static str> {
        let draws = |numbers| match numbers {
            Numbers::Known | Numbers::KnownBySum => false,
            Numbers::KnownInLockers => !in_lockers,
            Numbers::Drawn => true,
        };
        let entries = self.parts.iter().map(|&(entry, _)| entry);
        let mut drawing = entries.filter(|entry| draws(entry.numbers));
        drawing.next().map(|entry| entry.name)
    }

    /// Its kind, if any, that proves coins by a sum of their numbers, and so cannot be about
    /// several coins of a locker at a time.
    pub fn summing(&self) -> Option<&'static str> {
        let mut entries = self.parts.iter().map(|&(entry, _)| entry);
        let summing = entries.find(|entry| entry.numbers == Numbers::KnownBySum);
        summing.map(|entry| entry.name)
    }

    /// Whether any of its kinds looks into existing lockers.
    pub fn takes_lockers(&self) -> bool {
        let mut entries = self.parts.iter().map(|&(entry, _)| entry);
        entries.any(|entry| entry.numbers == Numbers::KnownInLockers)
    }

    /// Minimum number of coins, with `slots` requests under way at a time, all threads together.
    pub fn coins_needed(&self, slots: usize, threads: usize, coins_per_request: usize) -> usize {
        let needs = self.parts.iter().map(|(entry, _)| match entry.does {
            Does::Nothing => 0,
            Does::Reads => slots.max(threads * coins_per_request),
            // Some more than are under way, so that none is missed when one rests.
            Does::Changes => slots * coins_per_request * 2,
        });
        // All kinds about coins get the same number of them.
        needs.max().unwrap_or(0) * self.parts_about_coins()
    }

    /// In words: "detect", "detect 90 %, pown 10 %".
    pub fn words(&self) -> String {
        if let [(entry, _)] = self.parts[..] {
            return entry.name.to_owned();
        }
        let all: u32 = self.parts.iter().map(|(_, share)| share).sum();
        let part = |&(entry, share): &(&KindEntry, u32)| {
            let percent = f64::from(share) * 100.0 / f64::from(all);
            format!("{} {percent:.4}", entry.name)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + " %"
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    /// Makes the requests of one thread.
    ///
    /// # Panics
    /// When there are fewer coins than [`Mix::coins_needed`].
    pub fn kind(&self, setup: Setup) -> Box<dyn Kind> {
        if let [(entry, _)] = self.parts[..] {
            return (entry.make)(setup);
        }
        let mut dealt = deal(setup.coins.iter().copied(), self.parts_about_coins().max(1));
        let mut shares = 0;
        let parts = self.parts.iter().map(|&(entry, share)| {
            let coins = match entry.does {
                Does::Nothing => vec![],
                _ => dealt.pop().expect("as many parts as kinds about coins"),
            };
            let setup = Setup {
                coins,
                ..setup.clone()
            };
            shares += share;
            Part {
                kind: (entry.make)(setup),
                below: shares,
                count: KindCount {
                    name: entry.name,
                    right: 0,
                    wrong: 0,
                    refused: 0,
                    lost: 0,
                },
            }
        });
        Box::new(MixKind {
            parts: parts.collect(),
            shares,
            part_of: vec![0; setup.slots],
            waits: None,
        })
    }

    /// Minimum number of lockers, where its coins lie in lockers.
    pub fn lockers_needed(&self, threads: usize) -> usize {
        threads * self.parts_about_coins()
    }

    fn parts_about_coins(&self) -> usize {
        let about_coins = |(entry, _): &&(&KindEntry, u32)| entry.does != Does::Nothing;
        self.parts.iter().filter(about_coins).count()
    }
}

impl Kind for MixKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let part = match self.waits.take() {
            Some(part) => part,
            None => {
                let draw = rng.random_range(0..self.shares);
                self.parts.iter().position(|part| draw < part.below)?
            }
        };
        self.part_of[slot] = part;
        let asked = self.parts[part].kind.request(slot, rng, payload);
        if asked.is_none() {
            self.waits = Some(part);
        }
        asked
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        let Part { kind, count, .. } = &mut self.parts[self.part_of[slot]];
        let verdict = kind.answer(slot, status, payload);
        match verdict {
            Verdict::Right => count.right += 1,
            Verdict::Wrong => count.wrong += 1,
            Verdict::Refused => count.refused += 1,
        }
        verdict
    }

    fn lost(&mut self, slot: usize) {
        let Part { kind, count, .. } = &mut self.parts[self.part_of[slot]];
        count.lost += 1;
        kind.lost(slot);
    }

    fn withdraw(&mut self, slot: usize) {
        self.parts[self.part_of[slot]].kind.withdraw(slot);
    }

    fn prepare(&mut self) {
        self.parts.iter_mut().for_each(|part| part.kind.prepare());
    }

    fn is_spent(&self) -> bool {
        (self.waits).is_some_and(|part| self.parts[part].kind.is_spent())
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        let parts = self.parts.iter_mut();
        let finished: Vec<_> = parts.map(|part| part.kind.finish()).collect();
        finished.into_iter().collect()
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        let parts = self.parts.into_iter();
        parts.flat_map(|part| part.kind.coins()).collect()
    }

    fn counts(&self) -> Vec<KindCount> {
        self.parts.iter().map(|part| part.count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_as_it_is_written_on_one_line_or_several() {
        for text in ["detect=90,pown=10", "# shares\ndetect = 90\n\npown=10\n"] {
            let mix = Mix::parse(text).unwrap();
            assert_eq!(mix.words(), "detect 90 %, pown 10 %");
            assert!((mix.changing_share() - 0.1).abs() < 1e-9);
        }
    }

    #[test]
    fn a_mix_that_cannot_be_is_refused() {
        for text in [
            "",
            "detect",
            "detect=0",
            "seek=1",
            "echo=1,echo=2",
            "echo=x",
            "detect=1,fix=1",
        ] {
            assert!(Mix::parse(text).is_err(), "{text}");
        }
    }
}
