//! Mending keys of broken servers, against 25 servers in this process, as helpers and as broken
//! servers: who is asked for what, and what is on disk at each moment that may count.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use raida::client::heal::{self, FixesSoFar, HealError, Healed, Looked, heal_looked};
use raida::client::key_healing::{
    EncryptionHealth, FAILURES_MAX, HelperFault, KeyFix, KeyHealingError, Network,
    PAIRS_IN_VAIN_MAX, Patience, Settings, State, UnixSeconds, WAITS_MAX, fix_encryption, mend,
    observe, under_way,
};
use raida::client::wallet::{Access, CoinFile, Folder, Mark, PownString, Wallet};
use raida::client::{ClientError, FixOrder, Outcome, PerRaida, draw_an, draw_generator};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::protocol::healing::{Found, TicketId};
use raida::protocol::key_healing::{
    EncryptionTicket, GetEncryptionTicket, KeyPart, Presented, TOO_EARLY_WAIT, Verdict, join, split,
};
use raida::protocol::response::ResponseError;
use raida::protocol::{RaidaId, Status};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const NOW: UnixSeconds = UnixSeconds(1_795_231_955);

/// What servers that have lost a coin have instead of its number.
const LOST: An = An::new([0xee; 16]);

/// How a server helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Helper {
    /// It is not there.
    Down,
    /// It says so.
    Refuses(Status),
    /// Its answer comes too late.
    Slow,
    /// Its tickets are no good.
    Useless,
    /// It answers once a fix was asked for on another server.
    AfterAFix,
}

/// What happens to the fixes of a broken server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It says no.
    Refuses(Status),
    /// It is not there.
    Down,
    /// Carried out, and the answer is lost.
    AnswerLost,
    /// Carried out, and so is the answer that cannot be used.
    Garbled,
    /// Neither.
    RequestLost,
    /// Carried out, and the program that asked is killed.
    AskerKilled,
    /// It is too early for tickets this often; then the fix is carried out.
    TooEarly(usize),
    /// It is too early for the first half's ticket, and the other one is no good.
    HalfTooEarly,
}

/// A network in this process. Servers that are not named help, and take what two others vouch for.
struct Fake {
    wallet: PathBuf,
    helpers: BTreeMap<u8, Helper>,
    fates: BTreeMap<u8, Fate>,
    state: Mutex<Servers>,
    fixed: Condvar,
    /// Nobody answers any look.
    is_cut_off: AtomicBool,
}

#[derive(Default)]
struct Servers {
    held: BTreeMap<(RaidaId, Coin), An>,
    /// What each ticket says: by whom, to whom, which part.
    tickets: BTreeMap<[u8; 16], (RaidaId, GetEncryptionTicket)>,
    used: BTreeSet<[u8; 16]>,
    /// Helper, broken server and part of every request for a ticket.
    asked: Vec<(u8, u8, KeyPart)>,
    /// Helper and coin of the same.
    vouched: Vec<(u8, Coin)>,
    /// Broken server and helpers of every fix.
    fixes: Vec<(u8, [u8; 2])>,
    /// Server and number of every question whether it has it.
    finds: Vec<(u8, An)>,
    /// Server and coin of what was fixed by 13 tickets.
    healed: Vec<(u8, Coin)>,
    /// How many are asked right now, and were at most.
    under_way: usize,
    under_way_max: usize,
}

fn host() -> String {
    "nowhere:1".to_owned()
}

fn late<T>() -> Result<T, ClientError> {
    Err(ClientError::TimedOut(host(), Duration::from_secs(1)))
}

fn down<T>() -> Result<T, ClientError> {
    Err(ClientError::Unreachable(
        host(),
        std::io::ErrorKind::ConnectionRefused.into(),
    ))
}

fn refused<T>(status: Status) -> Result<T, ClientError> {
    Err(ClientError::Refused(host(), status))
}

fn verdict(is_accepted: bool) -> Verdict {
    match is_accepted {
        true => Verdict::Accepted,
        false => Verdict::Refused,
    }
}

impl Fake {
    /// The coin's file as it is on disk now.
    fn on_disk(&self, coin: Coin) -> CoinFile {
        let path = |folder: &str| self.wallet.join(folder).join(format!("{coin}.bin"));
        let file = CoinFile::read(&path("Fracked")).or_else(|_| CoinFile::read(&path("Bank")));
        file.unwrap()
    }

    fn counted<T>(&self, ask: impl FnOnce() -> T) -> T {
        {
            let mut state = self.state.lock().unwrap();
            state.under_way += 1;
            state.under_way_max = state.under_way_max.max(state.under_way);
        }
        let answer = ask();
        self.state.lock().unwrap().under_way -= 1;
        answer
    }
}

impl Network for Fake {
    fn ticket(
        &self,
        helper: RaidaId,
        an: An,
        asked: &GetEncryptionTicket,
    ) -> Result<EncryptionTicket, ClientError> {
        self.counted(|| {
            let mut state = self.state.lock().unwrap();
            let broken = asked.broken;
            state.asked.push((helper.get(), broken.get(), asked.part));
            state.vouched.push((helper.get(), asked.coin));
            assert_ne!(helper, broken);
            assert_eq!(asked.an, None, "the coin is the request's key");
            if state.held.get(&(helper, asked.coin)) != Some(&an) {
                return refused(Status::UNKNOWN_KEY_COIN);
            }
            match self.helpers.get(&helper.get()) {
                Some(Helper::Down) => return down(),
                Some(Helper::Refuses(status)) => return refused(*status),
                Some(Helper::Slow) => return late(),
                Some(Helper::AfterAFix) => {
                    let waited =
                        self.fixed
                            .wait_timeout_while(state, Duration::from_secs(60), |state| {
                                state.fixes.is_empty()
                            });
                    let (waited, timed_out) = waited.unwrap();
                    assert!(!timed_out.timed_out(), "one server waits for another");
                    state = waited;
                }
                Some(Helper::Useless) | None => {}
            }
            // The same within the minute for the same part.
            let known = (state.tickets.iter()).find(|(_, of)| **of == (helper, *asked));
            if let Some((ticket, _)) = known {
                return Ok(EncryptionTicket::new(*ticket));
            }
            let mut ticket = [helper.get(); 16];
            ticket[..8].copy_from_slice(&(state.tickets.len() as u64).to_be_bytes());
            state.tickets.insert(ticket, (helper, *asked));
            Ok(EncryptionTicket::new(ticket))
        })
    }

    fn fix(
        &self,
        broken: RaidaId,
        coin: Coin,
        tickets: &[Presented],
    ) -> Result<Vec<Verdict>, ClientError> {
        self.counted(|| {
            let mut state = self.state.lock().unwrap();
            let helpers: Vec<u8> = tickets.iter().map(|t| t.helper.get()).collect();
            state
                .fixes
                .push((broken.get(), helpers.try_into().unwrap()));
            self.fixed.notify_all();
            let said = |ticket: &Presented| state.tickets.get(ticket.ticket.expose()).copied();
            let parts = [said(&tickets[0]).unwrap(), said(&tickets[1]).unwrap()];
            let pan = join(parts.map(|(_, asked)| asked.part));
            let file = self.on_disk(coin);
            assert_eq!(file.pan(broken), Some(pan), "it is not on disk");
            let fate = self.fates.get(&broken.get()).copied();
            match fate {
                Some(Fate::Refuses(status)) => return refused(status),
                Some(Fate::Down) => return down(),
                Some(Fate::RequestLost) => return late(),
                Some(Fate::TooEarly(times)) => {
                    let asked = state.fixes.iter().filter(|(of, _)| *of == broken.get());
                    if asked.count() <= times {
                        return Ok(vec![Verdict::TooEarly; 2]);
                    }
                }
                Some(Fate::HalfTooEarly) => {
                    return Ok(vec![Verdict::TooEarly, Verdict::Refused]);
                }
                _ => {}
            }
            let is_good = |(half, presented): (usize, &Presented)| {
                let (helper, asked) = parts[half];
                let is_useless = self.helpers.get(&helper.get()) == Some(&Helper::Useless);
                let is_meant =
                    (helper, asked.broken, asked.coin) == (presented.helper, broken, coin);
                let is_half = presented.half as usize == half;
                is_meant
                    && is_half
                    && !is_useless
                    && !state.used.contains(presented.ticket.expose())
            };
            let accepted: Vec<bool> = tickets.iter().enumerate().map(is_good).collect();
            for (presented, _) in tickets.iter().zip(&accepted).filter(|(_, good)| **good) {
                state.used.insert(*presented.ticket.expose());
            }
            if accepted == [true, true] && tickets[0].helper != tickets[1].helper {
                state.held.insert((broken, coin), pan);
            }
            match fate {
                Some(Fate::AnswerLost) => late(),
                Some(Fate::Garbled) => {
                    Err(ClientError::Malformed(host(), ResponseError::WrongTrailer))
                }
                Some(Fate::AskerKilled) => {
                    drop(state);
                    panic!("killed")
                }
                _ => Ok(accepted.into_iter().map(verdict).collect()),
            }
        })
    }

    fn has(&self, raida: RaidaId, coin: Coin, an: An) -> Result<bool, ClientError> {
        self.counted(|| {
            let mut state = self.state.lock().unwrap();
            state.finds.push((raida.get(), an));
            if self.fates.get(&raida.get()) == Some(&Fate::Down) {
                return down();
            }
            Ok(state.held.get(&(raida, coin)) == Some(&an))
        })
    }
}

/// The same servers as healing sees them: all answer, list what they know, and take what they are
/// told.
impl heal::Network for Fake {
    fn look(
        &self,
        questions: PerRaida<Option<heal::Questions>>,
    ) -> PerRaida<Option<Result<heal::Replies, ClientError>>> {
        let state = self.state.lock().unwrap();
        let held = |raida, coin: &Coin| state.held[&(raida, *coin)];
        let mut answers = PerRaida::from_fn(|_| None);
        for (raida, asked) in questions {
            if self.is_cut_off.load(SeqCst) {
                answers[raida] = asked.map(|_| late());
                continue;
            }
            answers[raida] = asked.map(|asked| {
                let find = |(coin, an, pan): &(Coin, An, An)| match held(raida, coin) {
                    now if now == *an => Found::An,
                    now if now == *pan => Found::Pan,
                    _ => Found::Neither,
                };
                let detect = |(coin, an): &(Coin, An)| held(raida, coin) == *an;
                Ok(heal::Replies {
                    detect: asked.detect.iter().map(detect).collect(),
                    find: asked.find.iter().map(find).collect(),
                })
            });
        }
        answers
    }

    fn tickets(
        &self,
        coins: PerRaida<Option<Vec<(Coin, An)>>>,
    ) -> PerRaida<Option<Result<heal::Ticketed, ClientError>>> {
        let state = self.state.lock().unwrap();
        let mut answers = PerRaida::from_fn(|_| None);
        for (raida, coins) in coins {
            answers[raida] = coins.map(|coins| {
                let passed = coins.iter();
                let passed = passed.map(|(coin, an)| state.held[&(raida, *coin)] == *an);
                Ok(heal::Ticketed {
                    passed: passed.collect(),
                    ticket: TicketId::new(1),
                })
            });
        }
        answers
    }

    fn fix(&self, raida: RaidaId, order: &FixOrder) -> heal::Fixed {
        let mut state = self.state.lock().unwrap();
        for &coin in &order.coins {
            state.healed.push((raida.get(), coin));
            let an = order.generator.an(raida, coin);
            state.held.insert((raida, coin), an);
        }
        heal::Fixed {
            outcomes: vec![Outcome::Changed; order.coins.len()],
            error: None,
        }
    }
}

/// A wallet whose every coin some servers have lost.
struct Trial {
    network: Fake,
    folder: tempfile::TempDir,
}

const COINS: u32 = 3;

impl Trial {
    fn broken_on(broken: impl IntoIterator<Item = u8>) -> Trial {
        // In memory where that can be: nothing here is about disks.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let broken: BTreeSet<u8> = broken.into_iter().collect();
        let mut state = Servers::default();
        let mut files = vec![];
        for sn in 0..COINS {
            let an = |raida: RaidaId| An::new([(25 * sn as u8) + raida.get() + 1; 16]);
            let is_broken = |raida: RaidaId| broken.contains(&raida.get());
            for raida in RaidaId::all() {
                let held = match is_broken(raida) {
                    true => LOST,
                    false => an(raida),
                };
                state.held.insert((raida, coin(sn)), held);
            }
            let mark = |raida| match is_broken(raida) {
                true => Mark::Failed,
                false => Mark::Passed,
            };
            let pown = PownString(PerRaida::from_fn(mark));
            files.push(CoinFile::new(coin(sn), 6, PerRaida::from_fn(an), pown));
        }
        let mut wallet = Wallet::open(folder.path(), Access::Create).unwrap();
        wallet.add(Folder::Fracked, files).unwrap();
        let network = Fake {
            wallet: folder.path().to_owned(),
            helpers: BTreeMap::new(),
            fates: BTreeMap::new(),
            state: Mutex::new(state),
            fixed: Condvar::new(),
            is_cut_off: AtomicBool::new(false),
        };
        Trial { network, folder }
    }

    fn wallet(&self) -> Wallet {
        Wallet::open(self.folder.path(), Access::Change).unwrap()
    }

    fn health(&self) -> EncryptionHealth {
        EncryptionHealth::read(self.folder.path()).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Wallet)) {
        let mut wallet = self.wallet();
        change(&mut wallet);
        wallet.save().unwrap();
    }

    /// Helpers are asked by rising number, so that it can be said here who is.
    fn fix_at(&self, now: UnixSeconds) -> Vec<(u8, KeyFix)> {
        self.fix_with(Settings {
            order: |_| Ok(()),
            ..Settings::at(now)
        })
    }

    fn fix_with(&self, settings: Settings) -> Vec<(u8, KeyFix)> {
        let mut wallet = self.wallet();
        let mut health = self.health();
        observe(&mut health, wallet.coins());
        let results = fix_encryption(&mut wallet, &mut health, &self.network, settings, draw_an);
        let results = results.unwrap().into_iter();
        // What is in memory is what is on disk.
        assert_eq!(self.health(), health);
        for filed in wallet.coins() {
            assert!(self.network.on_disk(filed.file.coin) == filed.file);
        }
        results.map(|(raida, fix)| (raida.get(), fix)).collect()
    }

    fn fix(&self) -> Vec<(u8, KeyFix)> {
        self.fix_at(NOW)
    }

    /// As `raida heal` does: looks, mends keys, and then what 13 others vouch for. What became of
    /// the keys; [`Trial::healed`] has what was fixed after it.
    fn heal_at(&self, now: UnixSeconds) -> Vec<(RaidaId, KeyFix)> {
        self.network.state.lock().unwrap().healed.clear();
        let (mut wallet, mut health) = (self.wallet(), self.health());
        let looked = Looked::at(&mut wallet, &self.network).unwrap();
        observe(&mut health, wallet.coins());
        let settings = Settings::at(now);
        let results = fix_encryption(&mut wallet, &mut health, &self.network, settings, draw_an);
        let spared = under_way(wallet.coins(), &health, now);
        let network = &self.network;
        heal_looked(
            &mut wallet,
            looked,
            &spared,
            &mut FixesSoFar::default(),
            network,
            draw_generator,
            |_| {},
        )
        .unwrap();
        results.unwrap()
    }

    fn healed(&self) -> Vec<(u8, Coin)> {
        let mut healed = self.network.state.lock().unwrap().healed.clone();
        // Servers fix at the same time: their order means nothing.
        healed.sort_by_key(|&(server, _)| server);
        healed
    }

    /// The one result.
    fn fix_one(&self) -> KeyFix {
        let mut results = self.fix();
        assert_eq!(results.len(), 1, "{results:?}");
        results.pop().unwrap().1
    }

    /// Whether the first coin's numbers for a server are what the server has, without doubt.
    fn is_right(&self, number: u8) -> bool {
        self.is_right_of(coin(0), number)
    }

    /// The same of another coin.
    fn is_right_of(&self, coin: Coin, number: u8) -> bool {
        let file = self.network.on_disk(coin);
        let held = self.network.state.lock().unwrap().held[&(raida(number), coin)];
        file.an(raida(number)) == held
            && file.pan(raida(number)).is_none()
            && file.pown.0[raida(number)] == Mark::Passed
    }

    /// Whether each of these servers was mended, and has what the file of its coin says.
    fn are_mended(&self, results: &[(u8, KeyFix)]) -> bool {
        results.iter().all(|(number, fix)| match fix {
            KeyFix::Fixed { coin, .. } => self.is_right_of(*coin, *number),
            _ => false,
        })
    }

    fn mark(&self, number: u8) -> Mark {
        self.network.on_disk(coin(0)).pown.0[raida(number)]
    }

    /// Asks all servers about all coins, as a look does.
    fn look(&self) {
        self.change(|wallet| {
            let state = self.network.state.lock().unwrap();
            for filed in wallet.coins_mut() {
                let file = &mut filed.file;
                for raida in RaidaId::all() {
                    let held = state.held[&(raida, file.coin)];
                    let found = match file.pan(raida) {
                        Some(pan) if pan == held => Found::Pan,
                        _ if file.an(raida) == held => Found::An,
                        _ => Found::Neither,
                    };
                    file.settle(raida, found);
                }
            }
        });
    }

    /// No server has a number that the wallet's files lack.
    fn assert_nothing_is_lost(&self, case: &str) {
        let state = self.network.state.lock().unwrap();
        for ((raida, coin), held) in &state.held {
            let file = self.network.on_disk(*coin);
            let is_known = file.an(*raida) == *held || file.pan(*raida) == Some(*held);
            assert!(is_known || *held == LOST, "{case}: RAIDA {raida}, {coin}");
        }
    }

    fn fixes(&self) -> Vec<(u8, [u8; 2])> {
        self.network.state.lock().unwrap().fixes.clone()
    }

    fn asked(&self) -> Vec<(u8, u8, KeyPart)> {
        self.network.state.lock().unwrap().asked.clone()
    }

    fn finds(&self) -> Vec<(u8, An)> {
        self.network.state.lock().unwrap().finds.clone()
    }

    fn helpers_asked(&self) -> Vec<u8> {
        let mut helpers: Vec<u8> = self.asked().iter().map(|asked| asked.0).collect();
        helpers.sort_unstable();
        helpers
    }
}

fn coin(sn: u32) -> Coin {
    Coin {
        denomination: Denomination::new(0).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    }
}

fn raida(number: u8) -> RaidaId {
    RaidaId::new(number).unwrap()
}

fn is_fixed(fix: &KeyFix) -> bool {
    matches!(fix, KeyFix::Fixed { .. })
}

#[test]
fn two_servers_vouch_for_a_half_each_and_the_third_takes_the_number() {
    let trial = Trial::broken_on([7]);
    let fix = trial.fix_one();
    let KeyFix::Fixed {
        coin: fixed,
        helpers,
    } = fix
    else {
        panic!("{fix:?}");
    };
    assert_eq!((fixed, helpers), (coin(0), Some([raida(0), raida(1)])));
    assert!(trial.is_right(7));
    let parts: BTreeMap<u8, KeyPart> = trial.asked().iter().map(|a| (a.0, a.2)).collect();
    let an = trial.network.on_disk(coin(0)).an(raida(7));
    assert_eq!([parts[&0], parts[&1]], split(an));
    assert_eq!(trial.finds(), []);
    assert_eq!(trial.health().broken(), []);
    assert_eq!(trial.health().of(raida(7)).last_attempt, Some(NOW));
}

#[test]
fn nobody_can_foresee_who_vouches() {
    let helpers = |_| {
        let trial = Trial::broken_on([7]);
        match trial.fix_with(Settings::at(NOW)).as_slice() {
            [
                (
                    _,
                    KeyFix::Fixed {
                        helpers: Some(helpers),
                        ..
                    },
                ),
            ] => helpers.map(RaidaId::get),
            other => panic!("{other:?}"),
        }
    };
    let drawn: Vec<[u8; 2]> = (0..40).map(helpers).collect();
    assert!(
        drawn
            .iter()
            .all(|[one, other]| one != other && *one != 7 && *other != 7)
    );
    // Each of 80 draws takes one of 24 servers: fewer than 12 different ones come up once in 10^20
    // times.
    let different: BTreeSet<u8> = drawn.iter().flatten().copied().collect();
    assert!(different.len() >= 12, "{drawn:?}");
    let pairs: BTreeSet<&[u8; 2]> = drawn.iter().collect();
    assert!(pairs.len() > 20, "{drawn:?}");
}

#[test]
fn a_wallet_without_broken_servers_is_asked_nothing_about() {
    let trial = Trial::broken_on([]);
    assert!(trial.fix().is_empty());
    assert_eq!(trial.asked().len(), 0);
}

#[test]
fn a_helper_that_is_down_slow_or_refuses_is_replaced() {
    for helper in [
        Helper::Down,
        Helper::Slow,
        Helper::Refuses(Status::KEY_NOT_FOUND),
        Helper::Refuses(Status::RAIDA_OUT_OF_RANGE),
        Helper::Refuses(Status::HEALING_RAIDA_OUT_OF_RANGE),
        Helper::Refuses(Status::new(160)),
    ] {
        for unhelpful in [vec![0], vec![1], vec![0, 1, 2], (0..23).collect()] {
            let mut trial = Trial::broken_on([24]);
            trial.network.helpers = unhelpful.iter().map(|&number| (number, helper)).collect();
            let fix = trial.fix_one();
            assert!(
                is_fixed(&fix) == (unhelpful.len() < 23),
                "{helper:?} {fix:?}"
            );
            assert_eq!(trial.is_right(24), unhelpful.len() < 23);
        }
    }
}

#[test]
fn a_server_that_nobody_vouches_for_is_told_with_the_reasons() {
    let mut trial = Trial::broken_on([3, 9]);
    let refusal = Helper::Refuses(Status::HEALING_RAIDA_OUT_OF_RANGE);
    for number in 0..25 {
        trial.network.helpers.insert(number, refusal);
    }
    trial.network.helpers.insert(5, Helper::Slow);
    for (_, fix) in trial.fix() {
        let KeyFix::NotEnoughHelpers { failed, .. } = fix else {
            panic!("{fix:?}");
        };
        assert_eq!(failed.len(), 23);
        for (helper, fault) in failed {
            match fault {
                HelperFault::NoTicket(ClientError::TimedOut(..)) => assert_eq!(helper, raida(5)),
                HelperFault::NoTicket(ClientError::Refused(_, status)) => {
                    assert_eq!(status, Status::HEALING_RAIDA_OUT_OF_RANGE);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(trial.fixes(), []);
    // Nothing was sent to the broken servers, so nothing is in doubt.
    assert!(!trial.network.on_disk(coin(0)).is_in_doubt());
    assert_eq!(trial.health().of(raida(3)).failures, 1);
}

#[test]
fn after_a_ticket_that_was_not_accepted_two_others_vouch_for_the_same_number() {
    let mut trial = Trial::broken_on([3]);
    trial.network.helpers.insert(1, Helper::Useless);
    assert!(is_fixed(&trial.fix_one()));
    assert_eq!(trial.fixes(), [(3, [0, 1]), (3, [2, 4])]);
    assert_eq!(trial.helpers_asked(), [0, 1, 2, 4]);
    let parts: BTreeSet<[u8; 16]> = (trial.asked().chunks(2))
        .map(|pair| {
            let mut pair = [pair[0], pair[1]];
            pair.sort_by_key(|asked| asked.0);
            *join(pair.map(|asked| asked.2)).expose()
        })
        .collect();
    assert_eq!(parts.len(), 1);
    assert!(trial.is_right(3));
}

#[test]
fn tickets_that_are_never_accepted_end_in_too_few_helpers_and_no_write() {
    let mut trial = Trial::broken_on([3]);
    // 0 is asked together with 1, and 2 with 4: never the two good ones.
    for number in (0..25).filter(|number| ![0, 2].contains(number)) {
        trial.network.helpers.insert(number, Helper::Useless);
    }
    let before = trial.network.state.lock().unwrap().held.clone();
    let fix = trial.fix_one();
    let KeyFix::NotEnoughHelpers { failed, .. } = &fix else {
        panic!("{fix:?}");
    };
    let used_up = |(_, fault): &&(RaidaId, HelperFault)| matches!(fault, HelperFault::UsedUp);
    // The tickets of 0 and 2, and then those of the maximum number of pairs with neither ticket
    // accepted.
    let tried = 4 + 2 * PAIRS_IN_VAIN_MAX;
    assert_eq!(
        (failed.len(), failed.iter().filter(used_up).count()),
        (tried, 2)
    );
    assert_eq!(trial.fixes().len(), tried / 2);
    assert_eq!(trial.network.state.lock().unwrap().held, before);
    assert_eq!(trial.mark(3), Mark::Failed);
}

#[test]
fn a_server_that_accepts_nobodys_tickets_is_given_up_after_a_few() {
    let mut trial = Trial::broken_on([3]);
    trial.network.helpers = (0..25).map(|number| (number, Helper::Useless)).collect();
    let fix = trial.fix_one();
    let KeyFix::NotEnoughHelpers { failed, .. } = &fix else {
        panic!("{fix:?}");
    };
    assert_eq!(failed.len(), 2 * PAIRS_IN_VAIN_MAX);
    let not_accepted =
        |(_, fault): &(RaidaId, HelperFault)| matches!(fault, HelperFault::NotAccepted);
    assert!(failed.iter().all(not_accepted), "{failed:?}");
    assert_eq!(
        trial.fixes(),
        [(3, [0, 1]), (3, [2, 4]), (3, [5, 6]), (3, [7, 8])]
    );
}

#[test]
fn a_lost_answer_is_found_out_about() {
    for fate in [Fate::AnswerLost, Fate::Garbled] {
        let mut trial = Trial::broken_on([3]);
        trial.network.fates.insert(3, fate);
        let fix = trial.fix_one();
        assert!(
            matches!(fix, KeyFix::Fixed { helpers: None, .. }),
            "{fix:?}"
        );
        assert!(trial.is_right(3));
        assert_eq!(trial.fixes().len(), 1);
    }
}

#[test]
fn a_lost_request_leaves_both_numbers_and_the_same_one_is_asked_for_again() {
    let mut trial = Trial::broken_on([3]);
    trial.network.fates.insert(3, Fate::RequestLost);
    let fix = trial.fix_one();
    assert!(
        matches!(
            fix,
            KeyFix::NoAnswer {
                error: ClientError::TimedOut(..),
                ..
            }
        ),
        "{fix:?}"
    );
    assert_eq!(trial.fixes().len(), 1);
    let proposed = trial.network.on_disk(coin(0)).pan(raida(3)).unwrap();
    assert_eq!(trial.health().of(raida(3)).failures, 1);
    assert_eq!(trial.mark(3), Mark::NoAnswer);

    // The next look finds the server with neither.
    trial.network.fates.clear();
    trial.change(|wallet| wallet.coins_mut()[0].file.settle(raida(3), Found::Neither));
    assert!(is_fixed(&trial.fix_one()));
    assert!(trial.is_right(3));
    assert_eq!(trial.network.on_disk(coin(0)).an(raida(3)), proposed);
    // The wallet first checked whether the number had come into force meanwhile, and left other
    // coins alone.
    let old = An::new([4; 16]);
    let asked = [(3, proposed), (3, old)];
    assert_eq!(trial.finds(), [asked, asked].concat());
    assert!(!trial.network.on_disk(coin(1)).is_in_doubt());
}

#[test]
fn a_number_that_came_into_force_late_is_found_and_nobody_is_asked_to_vouch_again() {
    let trial = Trial::broken_on([3]);
    let proposed = An::new([0x77; 16]);
    trial.change(|wallet| wallet.coins_mut()[1].file.propose(raida(3), proposed));
    let mut state = trial.network.state.lock().unwrap();
    state.held.insert((raida(3), coin(1)), proposed);
    drop(state);
    let fix = trial.fix_one();
    let KeyFix::Fixed {
        coin: fixed,
        helpers: None,
    } = fix
    else {
        panic!("{fix:?}");
    };
    assert_eq!(fixed, coin(1));
    assert!(trial.asked().is_empty());
    let file = trial.network.on_disk(coin(1));
    assert_eq!((file.an(raida(3)), file.pan(raida(3))), (proposed, None));
}

#[test]
fn a_program_killed_between_fix_and_answer_finds_its_number_in_the_next_run() {
    let mut trial = Trial::broken_on([3]);
    trial.network.fates.insert(3, Fate::AskerKilled);
    let killed = catch_unwind(AssertUnwindSafe(|| trial.fix()));
    assert!(killed.is_err());
    let file = trial.network.on_disk(coin(0));
    let held = trial.network.state.lock().unwrap().held[&(raida(3), coin(0))];
    assert_eq!(file.pan(raida(3)), Some(held));

    trial.network.fates.clear();
    let fix = trial.fix_one();
    assert!(
        matches!(fix, KeyFix::Fixed { helpers: None, .. }),
        "{fix:?}"
    );
    assert!(trial.is_right(3));
}

#[test]
fn healing_replaces_no_number_that_a_fix_of_keys_may_still_bring_into_force() {
    let lost = Fate::RequestLost;
    let unavailable = Fate::Refuses(Status::UNAVAILABLE);
    let no_help = Helper::Refuses(Status::KEY_NOT_FOUND);
    // What happens to a fix of keys before, to the one that healing begins with, and who helps
    // then.
    for (before, fate, helper) in [
        (None, lost, None),
        (None, unavailable, None),
        (Some(lost), lost, None),
        (Some(lost), unavailable, None),
        (Some(lost), lost, Some(no_help)),
        (Some(unavailable), lost, Some(no_help)),
    ] {
        let case = format!("{before:?}, {fate:?}, {helper:?}");
        let mut trial = Trial::broken_on([3, 9]);
        // What is repaired in the first round brings about a second one.
        // Each coin has one such server, so that the first coin is as good as any.
        let mut state = trial.network.state.lock().unwrap();
        for sn in 0..COINS {
            state.held.insert((raida(11 + sn as u8), coin(sn)), LOST);
        }
        drop(state);
        if let Some(before) = before {
            trial.network.fates.insert(3, before);
            trial.fix();
        }
        trial.network.fates.insert(3, fate);
        let helpers = (0..25).filter_map(|number| Some((number, helper?)));
        trial.network.helpers.extend(helpers);
        let (results, healed) = (trial.heal_at(UnixSeconds(NOW.0 + 60)), trial.healed());
        let of_3 = results.iter().find(|(broken, _)| *broken == raida(3));
        assert!(!is_fixed(&of_3.unwrap().1), "{case}: {results:?}");
        assert!(!healed.contains(&(3, coin(0))), "{case}");
        assert!(healed.contains(&(11, coin(0))), "{case}");
        assert!(healed.contains(&(3, coin(1))), "{case}");
        let proposed = trial.network.on_disk(coin(0)).pan(raida(3));
        // The other coins make the server work again; this one waits.
        let (results, healed) = (trial.heal_at(UnixSeconds(NOW.0 + 120)), trial.healed());
        assert!(
            results.is_empty() && healed.is_empty(),
            "{case}: {healed:?}"
        );
        assert_eq!(trial.network.on_disk(coin(0)).pan(raida(3)), proposed);
        // The request arrives after all.
        let mut state = trial.network.state.lock().unwrap();
        state
            .held
            .insert((raida(3), coin(0)), proposed.expect("it is in doubt"));
        drop(state);
        trial.assert_nothing_is_lost(&case);
        trial.heal_at(UnixSeconds(NOW.0 + 180));
        assert_eq!(trial.healed(), [], "{case}");
        assert!(trial.is_right(3), "{case}");
    }
}

#[test]
fn a_server_that_said_no_has_its_coins_repaired_at_once() {
    // Its operator has given it no secrets, or not those of the helpers.
    let refuses = Fate::Refuses(Status::HEALING_RAIDA_OUT_OF_RANGE);
    for (fate, helper) in [(Some(refuses), None), (None, Some(Helper::Useless))] {
        let mut trial = Trial::broken_on([3]);
        trial.network.fates.extend(fate.map(|fate| (3, fate)));
        let helpers = (0..25).filter_map(|number| Some((number, helper?)));
        trial.network.helpers.extend(helpers);
        let results = trial.heal_at(NOW);
        assert!(!is_fixed(&results[0].1), "{results:?}");
        let all: Vec<_> = (0..COINS).map(|sn| (3, coin(sn))).collect();
        assert_eq!(trial.healed(), all);
        assert!(trial.is_right(3));
    }
}

#[test]
fn healing_repairs_what_a_fix_of_keys_left_in_doubt_once_that_can_no_longer_arrive() {
    let mut trial = Trial::broken_on([3]);
    trial.network.fates.insert(3, Fate::RequestLost);
    trial.heal_at(NOW);
    assert_eq!(trial.healed(), [(3, coin(1)), (3, coin(2))]);
    trial.heal_at(UnixSeconds(NOW.0 + 3_600));
    assert_eq!(trial.healed(), [(3, coin(0))]);
    assert!(trial.is_right(3));
}

#[test]
fn a_broken_server_that_refuses_or_is_down_is_told_apart() {
    for (fate, mark) in [
        (Fate::Refuses(Status::NO_TICKET_SLOT), Mark::Failed),
        (Fate::Down, Mark::NoAnswer),
    ] {
        let mut trial = Trial::broken_on([3]);
        trial.network.fates.insert(3, fate);
        match trial.fix_one() {
            KeyFix::Refused { status, .. } => assert_eq!(fate, Fate::Refuses(status)),
            KeyFix::NoAnswer {
                error: ClientError::Unreachable(..),
                ..
            } => assert_eq!(fate, Fate::Down),
            other => panic!("{fate:?}: {other:?}"),
        }
        assert_eq!(trial.fixes().len(), 1);
        assert_eq!(trial.mark(3), mark);
        assert_eq!(trial.health().broken(), [raida(3)]);
    }
}

#[test]
fn servers_with_the_same_coin_have_different_helpers_and_a_slot_each() {
    let trial = Trial::broken_on([3, 9]);
    assert!(trial.fix().iter().all(|(_, fix)| is_fixed(fix)));
    assert_eq!(trial.helpers_asked(), [0, 1, 2, 4]);
    assert!(trial.is_right(3) && trial.is_right(9));
    let file = trial.network.on_disk(coin(0));
    assert_ne!(file.an(raida(3)), file.an(raida(9)));
}

/// Of these servers only the first two can vouch for coins that more servers pass than fail.
fn only_two_vouch(file: &mut CoinFile, servers: [u8; 3]) {
    for raida in RaidaId::all() {
        let is_silent = file.pown.0[raida] == Mark::Passed && !servers.contains(&raida.get());
        if is_silent {
            file.pown.0[raida] = Mark::NoAnswer;
        }
    }
    file.propose(raida(servers[2]), An::new([0x42; 16]));
}

#[test]
fn two_servers_share_their_helpers_where_there_are_only_two() {
    let trial = Trial::broken_on([3, 9]);
    trial.change(|wallet| {
        for filed in wallet.coins_mut() {
            only_two_vouch(&mut filed.file, [0, 1, 2]);
        }
    });
    let results = trial.fix();
    assert!(trial.are_mended(&results), "{results:?}");
    assert_eq!(trial.helpers_asked(), [0, 0, 1, 1]);
}

#[test]
fn two_servers_share_helpers_and_coin_where_there_is_no_other() {
    let trial = Trial::broken_on([3, 9]);
    trial.change(|wallet| {
        let (first, others) = wallet.coins_mut().split_first_mut().unwrap();
        only_two_vouch(&mut first.file, [0, 1, 2]);
        for filed in others {
            filed.file.pown = PownString::all(Mark::NoAnswer);
        }
    });
    assert!(trial.fix().iter().all(|(_, fix)| is_fixed(fix)));
    assert_eq!(trial.helpers_asked(), [0, 0, 1, 1]);
    assert!(trial.is_right(3) && trial.is_right(9));
}

#[test]
fn twelve_broken_servers_are_mended_by_the_other_thirteen_all_at_once() {
    let trial = Trial::broken_on(0..12);
    let results = trial.fix();
    assert_eq!(results.len(), 12);
    assert!(trial.are_mended(&results), "{results:?}");
    assert_eq!(trial.health().broken(), []);
    // 24 halves of 13 helpers: nobody vouches for more than two.
    let mut helped: BTreeMap<u8, usize> = BTreeMap::new();
    for helper in trial.helpers_asked() {
        *helped.entry(helper).or_default() += 1;
    }
    assert_eq!(helped.values().max(), Some(&2));
    let state = trial.network.state.lock().unwrap();
    assert!(state.under_way_max <= raida::client::key_healing::REQUESTS_AT_ONCE);
}

#[test]
fn no_server_vouches_twice_for_one_coin_where_there_are_others() {
    // 18 can vouch to 7, and four of them are left for the last one. Of 17 to 8 there are three. By
    // 13, one coin can serve five of the 12 in this way.
    for (broken, coins_used) in [(7, 1), (8, 2), (12, 3)] {
        // By number, and as it is drawn.
        for is_drawn in [false, true, true, true] {
            let trial = Trial::broken_on(0..broken);
            let results = match is_drawn {
                false => trial.fix(),
                true => trial.fix_with(Settings::at(NOW)),
            };
            assert!(trial.are_mended(&results), "{results:?}");
            let state = trial.network.state.lock().unwrap();
            let vouched: BTreeSet<_> = state.vouched.iter().collect();
            assert_eq!(vouched.len(), 2 * usize::from(broken), "{broken} broken");
            let coins: BTreeSet<Coin> = state.vouched.iter().map(|&(_, coin)| coin).collect();
            assert_eq!(coins.len(), coins_used, "{broken} broken");
        }
    }
}

#[test]
fn a_server_whose_helpers_are_slow_holds_up_no_other() {
    let mut trial = Trial::broken_on([3, 9]);
    // 3's helpers, who answer only once 9 was sent its fix.
    for number in [0, 1] {
        trial.network.helpers.insert(number, Helper::AfterAFix);
    }
    assert!(trial.fix().iter().all(|(_, fix)| is_fixed(fix)));
    assert_eq!(trial.fixes(), [(9, [2, 4]), (3, [0, 1])]);
}

#[test]
fn a_server_that_no_coin_is_good_for_is_told_and_not_counted_as_tried() {
    let trial = Trial::broken_on([3]);
    trial.change(|wallet| {
        for filed in wallet.coins_mut() {
            only_two_vouch(&mut filed.file, [0, 1, 2]);
            filed.file.propose(raida(1), An::new([0x43; 16]));
        }
    });
    assert!(matches!(trial.fix_one(), KeyFix::NoSuitableCoin));
    assert!(trial.asked().is_empty());
    assert_eq!(trial.health().of(raida(3)).failures, 0);
    assert_eq!(trial.health().broken(), [raida(3)]);
}

#[test]
fn a_server_that_fails_too_often_is_left_alone_until_its_cool_down_is_over() {
    let mut trial = Trial::broken_on([3]);
    trial
        .network
        .fates
        .insert(3, Fate::Refuses(Status::NO_TICKET_SLOT));
    for _ in 0..FAILURES_MAX {
        trial.fix_one();
    }
    assert_eq!(trial.health().of(raida(3)).state, State::PersistentlyBroken);
    trial.network.fates.clear();
    let asked = trial.asked().len();
    let fix = trial.fix_one();
    let KeyFix::CoolingDown { until } = fix else {
        panic!("{fix:?}");
    };
    assert_eq!(until, UnixSeconds(NOW.0 + 1_800));
    assert_eq!(trial.asked().len(), asked);
    assert_eq!(trial.health().of(raida(3)).failures, FAILURES_MAX);
    let results = trial.fix_at(until);
    assert!(is_fixed(&results[0].1), "{results:?}");
    assert_eq!(trial.health().of(raida(3)).failures, 0);
}

/// A clock that moves only during a wait.
struct Clock<'a> {
    now: UnixSeconds,
    /// How often the asker is ready to wait.
    patience: usize,
    /// For which servers, and how long.
    waits: Vec<(Vec<u8>, Duration)>,
    /// What happens in each wait.
    meanwhile: &'a mut dyn FnMut(),
}

impl Patience for Clock<'_> {
    fn now(&mut self) -> UnixSeconds {
        self.now
    }

    fn wait(&mut self, servers: &[RaidaId], time: Duration) -> bool {
        if self.patience == 0 {
            return false;
        }
        self.patience -= 1;
        let servers = servers.iter().map(|raida| raida.get()).collect();
        self.waits.push((servers, time));
        self.now.0 += time.as_secs();
        (self.meanwhile)();
        true
    }
}

/// What came of a wallet that was mended with patience.
type Mended = Result<(), KeyHealingError>;

impl Trial {
    /// As `raida fix-encryption` does; with `heals`, as `raida heal` does.
    #[allow(clippy::type_complexity, reason = "what came of it, said once")]
    fn mend(
        &self,
        heals: bool,
        patience: usize,
        meanwhile: &mut dyn FnMut(),
    ) -> (Mended, Vec<(u8, KeyFix)>, Vec<(Vec<u8>, Duration)>) {
        let (mut wallet, mut health) = (self.wallet(), self.health());
        let mut clock = Clock {
            now: NOW,
            patience,
            waits: vec![],
            meanwhile,
        };
        let network = &self.network;
        let mut so_far = FixesSoFar::default();
        let then = |wallet: &mut Wallet, looked: Looked, spared: &BTreeSet<(RaidaId, Coin)>| {
            let so_far = &mut so_far;
            let draw = draw_generator;
            let heal = || heal_looked(wallet, looked, spared, so_far, network, draw, |_| {});
            heals.then(heal).transpose()
        };
        let mended: Result<(Option<Healed>, _), KeyHealingError> = mend(
            &mut wallet,
            &mut health,
            network,
            FAILURES_MAX,
            &mut clock,
            draw_an,
            then,
        );
        if mended.is_ok() {
            assert_eq!(self.health(), health, "it is on disk");
        }
        let waits = clock.waits;
        match mended {
            Ok((_, fixes)) => {
                let fixes = fixes.into_iter().map(|(raida, fix)| (raida.get(), fix));
                (Ok(()), fixes.collect(), waits)
            }
            Err(error) => (Err(error), vec![], waits),
        }
    }
}

#[test]
fn a_server_that_takes_no_tickets_yet_is_waited_for_and_mended_with_new_ones() {
    let mut trial = Trial::broken_on([3, 8]);
    trial.network.fates.insert(3, Fate::TooEarly(1));
    let (folder, network) = (trial.folder.path(), &trial.network);
    let mut meanwhile = || {
        let health = EncryptionHealth::read(folder).unwrap();
        assert_eq!(health.broken(), [raida(3)], "the other one is mended");
        assert_eq!(health.of(raida(3)).failures, 0);
        // After an interrupted wait nothing is in doubt.
        let file = network.on_disk(coin(0));
        assert_eq!(file.pan(raida(3)), None);
    };
    let (mended, fixes, waits) = trial.mend(false, 9, &mut meanwhile);
    mended.unwrap();
    assert_eq!(waits, [(vec![3], TOO_EARLY_WAIT)]);
    assert_eq!(
        fixes.iter().map(|(raida, _)| *raida).collect::<Vec<_>>(),
        [3, 8]
    );
    assert!(fixes.iter().all(|(_, fix)| is_fixed(fix)), "{fixes:?}");
    assert_eq!(trial.health().broken(), []);
    assert_eq!(trial.health().of(raida(3)).failures, 0);
    // Other tickets for another number: a helper may have had either half of the first one.
    let parts: BTreeSet<[u8; 8]> = (trial.asked().iter())
        .filter(|(_, broken, _)| *broken == 3)
        .map(|(_, _, part)| part_bytes(*part))
        .collect();
    assert_eq!(parts.len(), 4);
    trial.assert_nothing_is_lost("at the end");
    assert_eq!(trial.fixes().iter().filter(|(of, _)| *of == 8).count(), 1);
}

/// A part's bytes, which are printed nowhere.
fn part_bytes(part: KeyPart) -> [u8; 8] {
    let whole = join([part; 2]);
    whole.expose()[..8].try_into().unwrap()
}

#[test]
fn who_does_not_wait_is_told_when_to_come_back_and_it_is_no_failure() {
    for fate in [Fate::TooEarly(1), Fate::HalfTooEarly] {
        let mut trial = Trial::broken_on([3]);
        trial.network.fates.insert(3, fate);
        let (mended, fixes, waits) = trial.mend(false, 0, &mut || {});
        mended.unwrap();
        assert_eq!(waits, []);
        let [(3, KeyFix::TooEarly { again, .. })] = fixes.as_slice() else {
            panic!("{fixes:?}");
        };
        assert_eq!(*again, UnixSeconds(NOW.0 + 180));
        let of = trial.health().of(raida(3));
        assert_eq!((of.failures, of.last_attempt), (0, None));
        assert_eq!(trial.health().broken(), [raida(3)]);
        assert_eq!(trial.network.on_disk(coin(0)).pan(raida(3)), None);
        trial.network.fates.clear();
        let results = trial.fix_at(*again);
        assert!(is_fixed(&results[0].1), "{results:?}");
    }
}

#[test]
fn a_cool_down_that_is_over_stays_over_while_it_is_too_early() {
    let mut trial = Trial::broken_on([3]);
    let refuses = Fate::Refuses(Status::NO_TICKET_SLOT);
    trial.network.fates.insert(3, refuses);
    for _ in 0..FAILURES_MAX {
        assert!(!is_fixed(&trial.fix_at(UnixSeconds(NOW.0 - 1_800))[0].1));
    }
    assert_eq!(trial.health().of(raida(3)).state, State::PersistentlyBroken);
    let tried = trial.fixes().len();
    trial.network.fates.insert(3, Fate::TooEarly(tried + 1));
    let (mended, fixes, waits) = trial.mend(false, 9, &mut || {});
    mended.unwrap();
    assert_eq!(waits.len(), 1);
    assert!(is_fixed(&fixes[0].1), "{fixes:?}");
}

#[test]
fn a_server_that_always_says_that_it_is_too_early_is_not_waited_for_for_ever() {
    let mut trial = Trial::broken_on([3]);
    trial.network.fates.insert(3, Fate::TooEarly(1_000));
    let (mended, fixes, waits) = trial.mend(false, 1_000, &mut || {});
    mended.unwrap();
    assert_eq!(waits.len(), WAITS_MAX);
    assert!(matches!(fixes[0].1, KeyFix::TooEarly { .. }), "{fixes:?}");
    assert_eq!(trial.fixes().len(), 1 + WAITS_MAX);
    assert_eq!(trial.health().of(raida(3)).failures, 0);
}

#[test]
fn a_server_that_tickets_mend_is_not_waited_for() {
    let mut trial = Trial::broken_on([3]);
    trial.network.fates.insert(3, Fate::TooEarly(1));
    let (mended, fixes, waits) = trial.mend(true, 9, &mut || {});
    mended.unwrap();
    assert_eq!(waits, []);
    assert!(matches!(fixes[0].1, KeyFix::TooEarly { .. }), "{fixes:?}");
    assert_eq!(trial.health().broken(), []);
    assert_eq!(trial.healed().len(), COINS as usize);
}

#[test]
fn a_network_that_is_gone_after_a_wait_changes_nothing_on_disk() {
    let mut trial = Trial::broken_on([3]);
    trial.network.fates.insert(3, Fate::TooEarly(1));
    let cut_off = &trial.network.is_cut_off;
    let (mended, ..) = trial.mend(false, 9, &mut || cut_off.store(true, SeqCst));
    let error = mended.unwrap_err();
    assert!(
        matches!(
            error,
            KeyHealingError::Heal(HealError::TooFewServers { .. })
        ),
        "{error}"
    );
    let pown = trial.network.on_disk(coin(0)).pown;
    assert_eq!(pown.count(Mark::Passed), 24);
}

#[test]
fn a_file_of_health_that_is_not_understood_stops_everything() {
    let trial = Trial::broken_on([3]);
    std::fs::write(trial.folder.path().join("encryption-health.json"), "{}").unwrap();
    let mut health = EncryptionHealth::default();
    let mut wallet = trial.wallet();
    observe(&mut health, wallet.coins());
    let settings = Settings::at(NOW);
    let result = fix_encryption(&mut wallet, &mut health, &trial.network, settings, draw_an);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("cannot be understood"), "{error}");
    assert!(trial.asked().is_empty());
}

#[test]
fn whatever_fails_however_often_no_number_is_lost_and_in_the_end_all_servers_are_mended() {
    // 60 networks, each with more out of order than the one before, three times each.
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut some = |most: usize| -> BTreeSet<u8> {
            let count = rng.random_range(0..=most);
            (0..count).map(|_| rng.random_range(0..25)).collect()
        };
        let mut trial = Trial::broken_on(some(12));
        for run in 0..3 {
            let case = format!("seed {seed}, run {run}");
            trial.network.helpers.clear();
            for helper in [
                Helper::Down,
                Helper::Slow,
                Helper::Useless,
                Helper::Refuses(Status::KEY_NOT_FOUND),
            ] {
                let helpers = some(8).into_iter().map(|number| (number, helper));
                trial.network.helpers.extend(helpers);
            }
            trial.network.fates.clear();
            for fate in [
                Fate::Down,
                Fate::Refuses(Status::NO_TICKET_SLOT),
                Fate::AnswerLost,
                Fate::Garbled,
                Fate::RequestLost,
                Fate::AskerKilled,
            ] {
                let fates = some(4).into_iter().map(|number| (number, fate));
                trial.network.fates.extend(fates);
            }
            trial.look();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| trial.fix())) {
                assert_eq!(panic.downcast_ref(), Some(&"killed"), "{case}");
            }
            trial.assert_nothing_is_lost(&case);
        }
        trial.network.helpers.clear();
        trial.network.fates.clear();
        trial.look();
        let day_later = UnixSeconds(NOW.0 + 86_400);
        let results = trial.fix_at(day_later);
        assert!(
            results.iter().all(|(_, fix)| is_fixed(fix)),
            "seed {seed}: {results:?}"
        );
        assert_eq!(trial.health().broken(), [], "seed {seed}");
        trial.assert_nothing_is_lost("at the end");
        let file = |sn| trial.network.on_disk(coin(sn)).pown;
        for raida in RaidaId::all() {
            assert!(
                (0..COINS).any(|sn| file(sn).0[raida] == Mark::Passed),
                "seed {seed}"
            );
        }
    }
}
