use std::collections::{BTreeMap, BTreeSet};

use super::groups::{FixesSoFar, Group, Orders, Round, add_groups};
use super::{Network, Questions};
use crate::client::wallet::{
    CoinFile, Filed, Folder, Grade, Mark, PownString, Wallet, WalletError,
};
use crate::client::{ClientError, PerRaida};
use crate::coin::Coin;
use crate::protocol::RaidaId;
use crate::protocol::healing::{Found, PartialGenerator, VOTES_NEEDED};

/// Maximum number of rounds of fixing. A second one is for servers that came back, or had no ticket
/// to give, during the first.
pub const ROUNDS_MAX: usize = 3;

/// The present step of healing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asks all servers about the coins.
    Looking,
    /// Asks for the tickets of some coins.
    Tickets {
        /// The round, counted from 1.
        round: usize,
        /// Number of coins.
        coins: usize,
    },
    /// Waits for servers that fix coins.
    Fixing {
        /// The round, counted from 1.
        round: usize,
        /// Number of coins.
        coins: usize,
        /// Number of servers.
        servers: usize,
    },
    /// Asks all servers once more about the coins that had to be fixed.
    Checking,
    /// Moves the files to their folders.
    Filing,
}

/// The result for a wallet's coins.
#[derive(Clone, Debug)]
pub struct Healed {
    /// Each coin.
    pub coins: Vec<HealedCoin>,
    /// Number of rounds of fixing.
    pub rounds: usize,
    /// Why servers did not answer the last question.
    pub silent: PerRaida<Option<String>>,
    /// Why servers gave no ticket or fixed nothing.
    pub refusals: Refusals,
    /// Changes to coins that servers made unasked.
    pub lost: Vec<Lost>,
}

/// A coin that some servers knew a moment before and no longer know: somebody changed its number
/// there, or they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The coin.
    pub coin: Coin,
    /// Servers that passed it before and had nothing to change.
    pub passed_before: Vec<RaidaId>,
    /// Servers that reported a fix of it.
    pub fixed_before: Vec<RaidaId>,
    /// Servers that were asked to fix it. They have had the tickets for it, by which anybody can
    /// have it fixed elsewhere.
    pub had_tickets: Vec<RaidaId>,
}

/// The first reason why each server did not do its part in the fixes.
#[derive(Clone, Debug)]
pub struct Refusals {
    /// The server gave no ticket.
    pub tickets: PerRaida<Option<String>>,
    /// The server did not carry a fix out, or did not report it.
    pub fixes: PerRaida<Option<String>>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            tickets: PerRaida::from_fn(|_| None),
            fixes: PerRaida::from_fn(|_| None),
        }
    }
}

/// The result for a coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealedCoin {
    /// The coin.
    pub coin: Coin,
    /// What the servers said at first.
    pub before: PownString,
    /// What they said at last.
    pub after: PownString,
    /// The resulting grade: where it is filed.
    pub grade: Grade,
    /// Whether a server may still have either of two numbers; the file keeps both.
    pub in_doubt: bool,
}

impl HealedCoin {
    /// A coin as it is now, beside the servers' earlier answers.
    pub fn new(file: &CoinFile, before: PownString) -> HealedCoin {
        HealedCoin {
            coin: file.coin,
            before,
            after: file.pown,
            grade: file.grade(),
            in_doubt: file.is_in_doubt(),
        }
    }
}

/// Why a wallet was not healed, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// The wallet cannot be read or written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// Too few servers answered to judge any coin.
    #[error(
        "only {answered} of 25 servers answer and {VOTES_NEEDED} are needed, so nothing was done ({first}); is the network up, and is the list of hosts right?"
    )]
    TooFewServers {
        /// Servers that answered.
        answered: usize,
        /// The reason of the first that did not answer.
        first: String,
    },
    /// The servers know no coin of the wallet.
    #[error(
        "each of the {coins} coins that stood in Bank or Fracked fails on {VOTES_NEEDED} or more servers, so nothing was changed: this is probably another network than theirs; name the right one with --hosts or --network"
    )]
    AnotherNetwork {
        /// Number of coins that other servers passed at some time.
        coins: usize,
    },
    /// Too few servers answered to judge the result.
    #[error(
        "coins were fixed, but only {answered} of 25 servers answered when they were asked about them once more, and {VOTES_NEEDED} are needed ({first}): it is not known whether the coins are authentic now. The files hold every number; heal again when the network is up"
    )]
    NotConfirmed {
        /// Servers that answered.
        answered: usize,
        /// The reason of the first that did not answer.
        first: String,
    },
    /// The system has no random numbers to give.
    #[error(
        "no random numbers from the system: {0}; the files hold every number that was sent: heal again when this is mended"
    )]
    NoRandomness(#[from] getrandom::Error),
}

/// Asks the servers about all coins: which of two numbers each has, where that is in doubt; whether
/// it knows the one number, where not. Sets marks and settles doubts in memory only. Returns why
/// servers did not answer.
///
/// # Errors
/// Fewer than 13 servers answer.
pub fn look(
    coins: &mut [Filed],
    network: &impl Network,
) -> Result<PerRaida<Option<String>>, HealError> {
    for filed in coins.iter_mut() {
        filed.file.pown = PownString::all(Mark::Untried);
    }
    let silent = ask_unknown(coins, network);
    match too_few(&silent) {
        Some((answered, first)) => Err(HealError::TooFewServers { answered, first }),
        None => Ok(silent),
    }
}

/// Returns how many servers answered, and the reason of the first that did not, where they are too
/// few to judge any coin.
fn too_few(silent: &PerRaida<Option<String>>) -> Option<(usize, String)> {
    let answered = silent.count(Option::is_none);
    let mut reasons = (silent.iter()).filter_map(|(raida, why)| Some((raida, why.as_ref()?)));
    let (raida, why) = reasons.next().filter(|_| answered < VOTES_NEEDED)?;
    Some((answered, format!("RAIDA {raida}: {why}")))
}

/// Checks whether these servers, which were just asked, are those that passed the coins in Bank and
/// Fracked before. A single coin may be counterfeit. That several coins all became counterfeit is
/// less likely than that the wrong servers were asked.
///
/// # Errors
/// The servers fail all of them, and pass no other coin either.
pub fn recognise(coins: &[Filed]) -> Result<(), HealError> {
    let passed_before = |filed: &&Filed| matches!(filed.folder, Folder::Bank | Folder::Fracked);
    let known: Vec<&Filed> = coins.iter().filter(passed_before).collect();
    let fails = |filed: &&Filed| filed.file.pown.count(Mark::Failed) >= VOTES_NEEDED;
    let passes = |filed: &Filed| filed.file.pown.count(Mark::Passed) >= VOTES_NEEDED;
    if known.len() > 1 && known.iter().all(fails) && !coins.iter().any(passes) {
        return Err(HealError::AnotherNetwork { coins: known.len() });
    }
    Ok(())
}

/// What the servers said of a wallet's coins before anything was changed.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Their marks.
    pub before: Vec<PownString>,
    /// Why servers did not answer.
    pub silent: PerRaida<Option<String>>,
    /// Coins that some server changed since; the result of the change still has to be found out.
    pub changed: BTreeSet<Coin>,
}

impl Looked {
    /// Looks at a wallet, and brings the marks and the settled doubts to disk.
    ///
    /// # Errors
    /// As [`look`] and [`recognise`], and then nothing is changed; the disk fails.
    pub fn at(wallet: &mut Wallet, network: &impl Network) -> Result<Looked, HealError> {
        let silent = look(wallet.coins_mut(), network)?;
        recognise(wallet.coins())?;
        let before = wallet.coins().iter().map(|filed| filed.file.pown).collect();
        wallet.save()?;
        let changed = BTreeSet::new();
        Ok(Looked {
            before,
            silent,
            changed,
        })
    }
}

/// Heals a wallet. First it settles limbo coins by finding which numbers are in force. Then it
/// repairs coins that servers fail by tickets and fixes, in rounds while that helps. Then it grades
/// and files the coins.
///
/// A new number is on disk in the coin's file, beside the old one, before the request that brings
/// it into force is sent. Either number leaves the file only when the server has said that it has
/// the other, or when a new fix that 13 tickets back replaces the one in doubt. So a crash at any
/// moment loses neither, and the next run finds out which one counts. A fix may take effect after
/// it was given up; therefore the next round's fix wants the same number: coins stay in the group
/// that they were first fixed in, and a group keeps the base of its numbers.
///
/// `draw` returns that base for a server and some coins;
/// [`draw_generator`](crate::client::draw_generator) does it.
///
/// At the end it asks all servers once more about every coin that had to be fixed, and grades the
/// coins by these answers: a server that fixes has the tickets of all others.
///
/// # Errors
/// Fewer than 13 servers answer at first, or they are probably another network's, and then nothing
/// is changed; fewer than 13 answer in the end; the disk fails.
pub fn heal(
    wallet: &mut Wallet,
    network: &impl Network,
    draw: impl FnMut(RaidaId, &[Coin]) -> Result<PartialGenerator, getrandom::Error>,
    mut at: impl FnMut(Stage),
) -> Result<Healed, HealError> {
    at(Stage::Looking);
    let looked = Looked::at(wallet, network)?;
    let mut so_far = FixesSoFar::default();
    heal_looked(
        wallet,
        looked,
        &BTreeSet::new(),
        &mut so_far,
        network,
        draw,
        at,
    )
}

/// Like `heal`, for a wallet that was looked at a moment ago. No number in doubt is replaced where
/// `spared` says so: something other than tickets may be about to bring it into force there, such
/// as a fix of keys ([`under_way`](crate::client::key_healing::under_way())). If that came last,
/// nobody would know the number any more.
///
/// `so_far` says which servers left a fix unanswered earlier in the same run: they get no further
/// one.
///
/// # Errors
/// The disk fails, or there are no random numbers.
pub fn heal_looked(
    wallet: &mut Wallet,
    looked: Looked,
    spared: &BTreeSet<(RaidaId, Coin)>,
    so_far: &mut FixesSoFar,
    network: &impl Network,
    mut draw: impl FnMut(RaidaId, &[Coin]) -> Result<PartialGenerator, getrandom::Error>,
    mut at: impl FnMut(Stage),
) -> Result<Healed, HealError> {
    let Looked {
        before,
        mut silent,
        changed,
    } = looked;
    let mut groups: Vec<Group> = vec![];
    let mut refusals = Refusals::default();
    let mut rounds = 0;
    while rounds < ROUNDS_MAX {
        let sick = sick(wallet.coins(), spared, so_far);
        if sick.is_empty() {
            break;
        }
        rounds += 1;
        let passes = passes(wallet.coins());
        add_groups(&mut groups, &sick, wallet.coins());
        let round = Round {
            number: rounds,
            wallet: &mut *wallet,
            spared,
            refusals: &mut refusals,
            so_far: &mut *so_far,
            draw: &mut draw,
            at: &mut at,
            groups: &mut groups,
        };
        round.carry_out(&sick, network)?;
        let in_doubt = |filed: &Filed| filed.file.is_in_doubt();
        let is_sick = !self::sick(wallet.coins(), spared, so_far).is_empty();
        if !is_sick && !wallet.coins().iter().any(in_doubt) {
            break;
        }
        at(Stage::Looking);
        silent = ask_unknown(wallet.coins_mut(), network);
        wallet.save()?;
        if self::passes(wallet.coins()) == passes {
            break;
        }
    }
    let mut lost = vec![];
    if rounds > 0 || !changed.is_empty() {
        at(Stage::Checking);
        let orders = groups.iter().flat_map(|group| &group.orders);
        let mut orders: BTreeMap<usize, &Orders> = orders.map(|(&place, o)| (place, o)).collect();
        let none = Orders::default();
        let is_changed = |&place: &usize| changed.contains(&wallet.coins()[place].file.coin);
        for place in (0..wallet.coins().len()).filter(is_changed) {
            orders.entry(place).or_insert(&none);
        }
        if !orders.is_empty() {
            (lost, silent) = look_again(wallet.coins_mut(), &orders, network)?;
            wallet.save()?;
        }
    }
    say_who_was_given_up(&mut refusals, so_far, wallet.coins(), &groups);
    at(Stage::Filing);
    let coins = wallet.coins().iter().zip(before);
    let coins = coins
        .map(|(filed, before)| HealedCoin::new(&filed.file, before))
        .collect();
    wallet.file_by_grade()?;
    Ok(Healed {
        coins,
        rounds,
        silent,
        refusals,
        lost,
    })
}

/// Asks all servers about these coins as if nothing were known of them, and returns what they knew
/// before and no longer know.
fn look_again(
    coins: &mut [Filed],
    orders: &BTreeMap<usize, &Orders>,
    network: &impl Network,
) -> Result<(Vec<Lost>, PerRaida<Option<String>>), HealError> {
    let mut before = vec![];
    for &place in orders.keys() {
        let pown = &mut coins[place].file.pown;
        before.push(std::mem::replace(pown, PownString::all(Mark::Untried)));
    }
    let silent = ask_unknown(coins, network);
    if let Some((answered, first)) = too_few(&silent) {
        return Err(HealError::NotConfirmed { answered, first });
    }
    let lost = orders
        .iter()
        .zip(before)
        .filter_map(|((&place, orders), before)| {
            let file = &coins[place].file;
            let fails = RaidaId::all().filter(|&raida| file.pown.0[raida] == Mark::Failed);
            let known = fails.filter(|&raida| before.0[raida] == Mark::Passed);
            let (fixed_before, passed_before): (Vec<RaidaId>, Vec<RaidaId>) =
                known.partition(|raida| orders.fixed.contains(raida));
            let is_lost = !fixed_before.is_empty() || !passed_before.is_empty();
            is_lost.then(|| Lost {
                coin: file.coin,
                passed_before,
                fixed_before,
                had_tickets: orders.asked.iter().copied().collect(),
            })
        });
    Ok((lost.collect(), silent))
}

/// Records for the servers that were given up that coins were left unfixed there for that reason.
fn say_who_was_given_up(
    refusals: &mut Refusals,
    so_far: &FixesSoFar,
    coins: &[Filed],
    groups: &[Group],
) {
    for raida in RaidaId::all() {
        let Some(why) = so_far.given_up(raida) else {
            continue;
        };
        let was_asked = |place: usize| {
            let mut orders = groups.iter().filter_map(|group| group.orders.get(&place));
            orders.any(|orders| orders.asked.contains(&raida))
        };
        let left = coins.iter().enumerate().filter(|(place, filed)| {
            let pown = &filed.file.pown;
            pown.count(Mark::Passed) >= VOTES_NEEDED
                && pown.0[raida] == Mark::Failed
                && !was_asked(*place)
        });
        match left.count() {
            0 => {}
            left => {
                refusals.fixes[raida] = Some(format!(
                    "{why}; it gets no further fix in this run, and {left} coins that it fails were not sent to it: heal again later"
                ));
            }
        }
    }
}

/// The coins that enough servers pass and some fail that were not given up, by rising place.
fn sick(coins: &[Filed], spared: &BTreeSet<(RaidaId, Coin)>, so_far: &FixesSoFar) -> Vec<usize> {
    let is_sick = |filed: &Filed| {
        let pown = last_words(&filed.file, spared);
        let fails = |(raida, &mark): (RaidaId, &Mark)| {
            mark == Mark::Failed && so_far.given_up(raida).is_none()
        };
        pown.count(Mark::Passed) >= VOTES_NEEDED && pown.0.iter().any(fails)
    };
    (0..coins.len())
        .filter(|&place| is_sick(&coins[place]))
        .collect()
}

/// A coin's marks as a round uses them: where a number in doubt is spared, the server's answer is
/// not final yet.
pub(super) fn last_words(file: &CoinFile, spared: &BTreeSet<(RaidaId, Coin)>) -> PownString {
    let mut marks = file.pown;
    let is_spared =
        |&raida: &RaidaId| file.pan(raida).is_some() && spared.contains(&(raida, file.coin));
    for raida in RaidaId::all().filter(is_spared) {
        marks.0[raida] = Mark::NoAnswer;
    }
    marks
}

/// Number of passes by all servers.
fn passes(coins: &[Filed]) -> usize {
    let passes = |filed: &Filed| filed.file.pown.count(Mark::Passed);
    coins.iter().map(passes).sum()
}

/// Asks each server about the coins that it has not said anything about yet, and again about those
/// for which it had neither of two numbers: a fix that was given up may have taken effect since.
fn ask_unknown(coins: &mut [Filed], network: &impl Network) -> PerRaida<Option<String>> {
    let unknown = PerRaida::from_fn(|raida| -> Vec<usize> {
        let said = |file: &CoinFile| match file.pown.0[raida] {
            Mark::Passed => true,
            Mark::Failed => file.pan(raida).is_none(),
            _ => false,
        };
        let places = 0..coins.len();
        places.filter(|&place| !said(&coins[place].file)).collect()
    });
    let questions = PerRaida::from_fn(|raida| {
        let mut questions = Questions::default();
        for &place in &unknown[raida] {
            let file = &coins[place].file;
            match file.pan(raida) {
                Some(pan) => questions.find.push((file.coin, file.an(raida), pan)),
                None => questions.detect.push((file.coin, file.an(raida))),
            }
        }
        (!unknown[raida].is_empty()).then_some(questions)
    });
    let answers = network.look(questions);
    let mut silent = PerRaida::from_fn(|_| None);
    for (raida, answer) in answers {
        match answer {
            None => {}
            Some(Ok(replies)) => {
                let (mut detected, mut found) = (replies.detect.iter(), replies.find.iter());
                for &place in &unknown[raida] {
                    let file = &mut coins[place].file;
                    let found = match file.pan(raida) {
                        Some(_) => found.next().copied(),
                        None => detected.next().map(|&passed| match passed {
                            true => Found::An,
                            false => Found::Neither,
                        }),
                    };
                    if let Some(found) = found {
                        file.settle(raida, found);
                    }
                }
            }
            Some(Err(error)) => {
                for &place in &unknown[raida] {
                    coins[place].file.pown.0[raida] = mark_of(&error);
                }
                silent[raida] = Some(error.to_string());
            }
        }
    }
    silent
}

/// The mark in a coin file for a server that gave this error instead of an answer.
pub(in crate::client) fn mark_of(error: &ClientError) -> Mark {
    match error {
        ClientError::Unreachable(..) | ClientError::Broken(..) | ClientError::TimedOut(..) => {
            Mark::NoAnswer
        }
        _ => Mark::Error,
    }
}
