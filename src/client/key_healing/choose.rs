use std::collections::{BTreeMap, BTreeSet};

use super::EncryptionHealth;
use crate::client::PerRaida;
use crate::client::wallet::{Filed, Folder, Mark};
use crate::coin::Coin;
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// A server's state by a wallet's coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It passes a coin.
    Works,
    /// It passes none and fails some.
    Broken,
    /// It passes none and fails none: it was silent, or was never asked.
    Unknown,
}

/// Each server's state by the marks of the coins in Bank and Fracked. One whole coin, which all
/// servers pass, shows that none is broken.
///
/// A coin that most servers fail does not count, nor does a coin that fewer servers pass than fail,
/// however many were silent. It belongs to somebody else by now, and the servers that still pass it
/// were down when it changed hands. If it counted, a wallet of such a coin alone would have the new
/// owner's number replaced on all other servers; two servers that lag behind would be enough for
/// that.
pub fn standing(coins: &[Filed]) -> PerRaida<Standing> {
    let mut standing = PerRaida::from_fn(|_| Standing::Unknown);
    for filed in coins.iter().filter(|filed| is_evidence(filed)) {
        for (raida, mark) in filed.file.pown.0.iter() {
            match (mark, standing[raida]) {
                (Mark::Passed, _) => standing[raida] = Standing::Works,
                (Mark::Failed, Standing::Unknown) => standing[raida] = Standing::Broken,
                _ => {}
            }
        }
    }
    standing
}

fn is_evidence(filed: &Filed) -> bool {
    let is_ours = matches!(filed.folder, Folder::Bank | Folder::Fracked);
    let failed = filed.file.pown.count(Mark::Failed);
    is_ours && failed < VOTES_NEEDED && failed < filed.file.pown.count(Mark::Passed)
}

/// Takes note of what the coins say. A server that they say nothing about stays what it was.
pub fn observe(health: &mut EncryptionHealth, coins: &[Filed]) {
    for (raida, standing) in standing(coins) {
        match standing {
            Standing::Works => health.mark_fixed(raida),
            Standing::Broken => health.mark_broken(raida),
            Standing::Unknown => {}
        }
    }
}

/// Number of servers, among those that vouch for a coin to nobody yet, that are enough: two to ask,
/// and as many to stand in for them.
const IDLE_WANTED: usize = 4;

/// The coin that mends a broken server, and the servers that can vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The coin's place among the wallet's coins.
    pub place: usize,
    /// The servers that pass it, by rising number: two or more.
    pub helpers: Vec<RaidaId>,
}

/// Chooses the coin for a broken server: one that it fails and two or more working servers pass. Of
/// several, the one that most servers pass; of those, one with a number in doubt there, so that the
/// doubt ends. `None` where there is none.
///
/// `others` are choices made already, for other servers. Where few of a coin's servers are left
/// that vouch for it to none of those, another coin comes first. The reason: a ticket does not say
/// which way it goes. Two tickets of one helper for one coin are both on the wire in plain. With
/// them anybody can go to the helper itself as if the two broken servers had vouched to it; it then
/// takes a number of two halves that do not belong together, which destroys the one that it had.
///
/// A coin whose number in doubt is the key of a locker or an offer is not suitable: it was on its
/// way there.
pub fn choose(
    coins: &[Filed],
    health: &EncryptionHealth,
    broken: RaidaId,
    others: &[Chosen],
) -> Option<Chosen> {
    let will_do = |filed: &Filed| {
        let file = &filed.file;
        let fails = file.pown.0[broken] == Mark::Failed;
        fails && is_evidence(filed) && !file.pan(broken).is_some_and(|pan| pan.is_marked())
    };
    let working = health.working();
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    for other in others {
        *taken.entry(other.place).or_default() += 1;
    }
    let rank = |place: usize, filed: &Filed| {
        let helpers = vouching(filed, &working, broken).count();
        let idle = helpers.saturating_sub(2 * taken.get(&place).unwrap_or(&0));
        (
            idle.min(IDLE_WANTED),
            helpers,
            filed.file.pan(broken).is_some(),
        )
    };
    let coins = coins.iter().enumerate();
    let (_, place, filed) = coins
        .filter(|(_, filed)| will_do(filed))
        .map(|(place, filed)| (rank(place, filed), place, filed))
        .filter(|&((_, helpers, _), ..)| helpers >= 2)
        // The first of the best: `max_by_key` would take the last.
        .reduce(|best, other| if other.0 > best.0 { other } else { best })?;
    Some(Chosen {
        place,
        helpers: vouching(filed, &working, broken).collect(),
    })
}

/// Shuffles servers into an order that nobody can foresee, for choosing helpers. If the helpers
/// were known beforehand, two servers would be enough to wait for.
///
/// # Errors
/// The system has no random numbers to give.
pub fn shuffle(servers: &mut [RaidaId]) -> Result<(), getrandom::Error> {
    for last in (1..servers.len()).rev() {
        // Of 2^32 values, the remainder by 25 at most favours none by more than one in 10^8.
        let drawn = getrandom::u32()? as usize % (last + 1);
        servers.swap(last, drawn);
    }
    Ok(())
}

/// Those of the working servers that can vouch for a coin.
fn vouching<'a>(
    filed: &'a Filed,
    working: &'a [RaidaId],
    broken: RaidaId,
) -> impl Iterator<Item = RaidaId> + 'a {
    let file = &filed.file;
    let passes = |raida: RaidaId| file.pown.0[raida] == Mark::Passed && file.pan(raida).is_none();
    let others = working.iter().copied();
    others.filter(move |&raida| raida != broken && passes(raida))
}

/// How many servers each server helps in a round, and with which coins.
#[derive(Debug)]
pub(super) struct Busy {
    helped: PerRaida<usize>,
    vouched: BTreeSet<(RaidaId, Coin)>,
}

impl Busy {
    pub(super) fn new() -> Busy {
        Busy {
            helped: PerRaida::from_fn(|_| 0),
            vouched: BTreeSet::new(),
        }
    }

    /// Takes one of the helpers that are left, the first of several equals. It prefers a helper
    /// that has not vouched for this coin to another server ([`choose`] says why), and of those the
    /// one that helps the fewest others. So all share its work and its limit of tickets.
    pub(super) fn take(&mut self, coin: Coin, left: &mut Vec<RaidaId>) -> Option<RaidaId> {
        let rank = |raida| (self.vouched.contains(&(raida, coin)), self.helped[raida]);
        let (place, &helper) = (left.iter().enumerate()).min_by_key(|&(_, &raida)| rank(raida))?;
        left.remove(place);
        self.helped[helper] += 1;
        self.vouched.insert((helper, coin));
        Some(helper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::wallet::{CoinFile, PownString};
    use crate::coin::{An, Denomination, SerialNumber};

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    /// A coin as letters: the last letter also stands for the rest of the 25.
    fn filed(folder: Folder, letters: &str) -> Filed {
        let coin = Coin {
            denomination: Denomination::new(0).unwrap(),
            serial_number: SerialNumber::new(7).unwrap(),
        };
        let mark = |raida: RaidaId| {
            let mut letters = letters.chars();
            let last = letters.clone().last().unwrap();
            match letters.nth(raida.get().into()).unwrap_or(last) {
                'p' => Mark::Passed,
                'f' => Mark::Failed,
                'n' => Mark::NoAnswer,
                'e' => Mark::Error,
                'u' => Mark::Untried,
                other => panic!("{other}"),
            }
        };
        let ans = PerRaida::from_fn(|raida| An::new([raida.get() + 1; 16]));
        let pown = PownString(PerRaida::from_fn(mark));
        Filed::new(CoinFile::new(coin, 6, ans, pown), folder)
    }

    fn fracked(letters: &str) -> Filed {
        filed(Folder::Fracked, letters)
    }

    fn broken(coins: &[Filed]) -> Vec<u8> {
        let standing = standing(coins).into_iter();
        let broken = standing.filter(|&(_, standing)| standing == Standing::Broken);
        broken.map(|(raida, _)| raida.get()).collect()
    }

    fn chosen(coins: &[Filed], number: u8) -> Option<(usize, usize)> {
        let mut health = EncryptionHealth::default();
        observe(&mut health, coins);
        let chosen = choose(coins, &health, raida(number), &[])?;
        Some((chosen.place, chosen.helpers.len()))
    }

    #[test]
    fn a_server_is_broken_where_no_coin_passes_and_one_fails() {
        assert_eq!(broken(&[fracked("fpfp"), fracked("fpnp")]), [0, 2]);
        assert_eq!(broken(&[fracked("fpfp"), fracked("ppfp")]), [2]);
        assert_eq!(broken(&[fracked("fpfp"), filed(Folder::Bank, "npp")]), [0]);
    }

    #[test]
    fn a_whole_coin_shows_that_no_server_is_broken() {
        let coins = [fracked("ffffp"), filed(Folder::Bank, "p")];
        assert_eq!(broken(&coins), [0u8; 0]);
        assert_eq!(standing(&coins), PerRaida::from_fn(|_| Standing::Works));
    }

    #[test]
    fn a_server_that_only_was_silent_stays_what_it_was() {
        let mut health = EncryptionHealth::default();
        health.mark_broken(raida(1));
        observe(&mut health, &[fracked("nnneufp")]);
        assert_eq!(health.broken(), [raida(1), raida(5)]);
        observe(&mut health, &[fracked("nppp")]);
        assert_eq!(health.broken(), []);
        observe(&mut health, &[]);
        assert_eq!(health, EncryptionHealth::default());
    }

    #[test]
    fn coins_of_other_folders_and_coins_that_most_servers_fail_say_nothing() {
        for folder in [Folder::Limbo, Folder::Grade, Folder::Suspect] {
            assert_eq!(broken(&[filed(folder, "fp")]), [0u8; 0]);
        }
        let somebody_elses = [fracked("ppf")];
        assert_eq!(broken(&somebody_elses), [0u8; 0]);
        assert_eq!(chosen(&somebody_elses, 5), None);
        for silent in ['n', 'e', 'u'] {
            // Two that lag behind, eleven that fail it, and twelve that are silent.
            let sold = [fracked(&format!("pp{}{silent}", "f".repeat(11)))];
            assert_eq!(broken(&sold), [0u8; 0]);
            let mut health = EncryptionHealth::default();
            health.mark_broken(raida(5));
            assert_eq!(choose(&sold, &health, raida(5), &[]), None);
            // As many for it as against it.
            let torn = [fracked(&format!("ppff{silent}"))];
            assert_eq!(broken(&torn), [0u8; 0]);
            let ours = [fracked(&format!("pppff{silent}"))];
            assert_eq!(broken(&ours), [3, 4]);
        }
        let twelve = [fracked("ffffffffffffp")];
        assert_eq!(broken(&twelve).len(), 12);
        assert_eq!(chosen(&twelve, 5), Some((0, 13)));
    }

    #[test]
    fn the_coin_is_one_that_fails_there_and_passes_on_most_servers() {
        let coins = [
            fracked("fffp"),
            fracked("npp"),
            fracked("fpfp"),
            fracked("fpffp"),
        ];
        assert_eq!(chosen(&coins, 0), Some((2, 23)));
        assert_eq!(chosen(&coins, 24), None);
    }

    #[test]
    fn a_coin_that_passes_on_one_working_server_will_not_do() {
        assert_eq!(chosen(&[fracked("fpn")], 0), None);
        assert_eq!(chosen(&[fracked("fppn")], 0), Some((0, 2)));
        let mut health = EncryptionHealth::default();
        health.mark_broken(raida(0));
        assert_eq!(choose(&[fracked("fpn")], &health, raida(0), &[]), None);
        // One of the two is broken itself, as far as anybody knows.
        let mut health = EncryptionHealth::default();
        health.mark_broken(raida(2));
        assert_eq!(choose(&[fracked("fppn")], &health, raida(0), &[]), None);
    }

    #[test]
    fn of_equal_coins_one_with_a_number_in_doubt_there_comes_first_unless_it_went_into_a_locker() {
        let mut doubtful = fracked("fp");
        doubtful.file.propose(raida(0), An::new([9; 16]));
        let mut on_its_way = fracked("fp");
        on_its_way.file.propose(raida(0), An::new([0xff; 16]));
        let coins = [on_its_way, fracked("fp"), doubtful, fracked("fp")];
        assert_eq!(chosen(&coins, 0), Some((2, 24)));
        assert_eq!(chosen(&coins[..1], 0), None);
    }

    #[test]
    fn a_server_whose_number_is_in_doubt_vouches_for_nothing() {
        let mut coin = fracked("fppn");
        coin.file.propose(raida(1), An::new([9; 16]));
        assert_eq!(chosen(&[coin], 0), None);
    }

    #[test]
    fn another_coin_comes_first_where_few_servers_are_left_that_vouch_for_one_to_nobody() {
        // Four can vouch for the first one, and three for the second.
        let coins = [fracked("ffppppn"), fracked("ffpppn")];
        let mut health = EncryptionHealth::default();
        health.mark_broken(raida(0));
        health.mark_broken(raida(1));
        let mut others: Vec<Chosen> = vec![];
        let mut places = vec![];
        for _ in 0..5 {
            let chosen = choose(&coins, &health, raida(0), &others).unwrap();
            places.push(chosen.place);
            others.push(chosen);
        }
        // The second one finds two idle servers with the first coin and three with the other, the
        // third two and one, the fourth none and one, and the fifth none at all.
        assert_eq!(places, [0, 1, 0, 1, 0]);
    }

    #[test]
    fn idle_servers_help_first_and_busy_ones_when_no_other_is_left() {
        let mut busy = Busy::new();
        let coin = fracked("p").file.coin;
        let mut take = |left: &mut Vec<RaidaId>| busy.take(coin, left).map(RaidaId::get);
        let mut first: Vec<RaidaId> = (0..4).map(raida).collect();
        let mut second = first.clone();
        assert_eq!([take(&mut first), take(&mut first)], [Some(0), Some(1)]);
        assert_eq!([take(&mut second), take(&mut second)], [Some(2), Some(3)]);
        assert_eq!([take(&mut first), take(&mut first)], [Some(2), Some(3)]);
        assert_eq!([take(&mut second), take(&mut second)], [Some(0), Some(1)]);
        assert_eq!(take(&mut second), None);
    }

    #[test]
    fn a_server_that_vouched_for_another_coin_helps_before_one_that_did_for_this_one() {
        let mut busy = Busy::new();
        let this = fracked("p").file.coin;
        let other = Coin {
            serial_number: SerialNumber::new(8).unwrap(),
            ..this
        };
        let of = |number| vec![raida(number)];
        busy.take(this, &mut of(0));
        for _ in 0..3 {
            busy.take(other, &mut of(1));
        }
        let mut left = vec![raida(0), raida(1)];
        assert_eq!(busy.take(this, &mut left), Some(raida(1)));
        assert_eq!(busy.take(this, &mut left), Some(raida(0)));
    }
}
