//! Healing a wallet against 25 servers that keep their coins in a map and repair by vote: which
//! server is asked for what, and what is on disk at each moment that may count.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use raida::client::heal::{
    COINS_A_TICKET, Fixed, FixesSoFar, GROUPS_AT_ONCE, HealError, Healed, Looked, Lost, Network,
    Questions, Replies, Ticketed, heal, heal_looked, look,
};
use raida::client::wallet::{Access, CoinFile, Folder, Grade, Mark, PownString, Wallet};
use raida::client::{ClientError, FixOrder, Outcome, PerRaida, draw_generator};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::protocol::RaidaId;
use raida::protocol::healing::{Found, PartialGenerator, TicketId, VOTES_NEEDED};

/// What happens to the fixes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Carried out and answered.
    Answered,
    /// Carried out, and the answer is lost.
    AnswerLost,
    /// Neither.
    RequestLost,
    /// The connection breaks, and it is carried out when the server is asked for the next one,
    /// which it refuses.
    Late,
    /// Carried out, and the program that asked is killed.
    AskerKilled,
    /// Carried out; then the server uses the tickets to fix the coin on all others, to numbers of
    /// its own.
    Steals,
    /// Nothing is carried out, and the server says that it was.
    Lies,
    /// Carried out, and then nobody answers any more.
    CutsOff,
}

/// A network in this process.
struct Fake {
    state: Mutex<State>,
    /// A fix was asked for.
    asked: Condvar,
    down: BTreeSet<u8>,
    fate: Fate,
    /// Have no ticket to give.
    without_tickets: BTreeSet<u8>,
    /// What happens on some servers instead.
    fates: BTreeMap<u8, Fate>,
    /// What servers wait for before they act on a fix.
    waits: BTreeMap<u8, fn(&State) -> bool>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<(RaidaId, Coin), An>,
    tickets: BTreeMap<(RaidaId, u32), BTreeSet<Coin>>,
    /// Server and coins of every fix asked for.
    fixes: Vec<(u8, Vec<Coin>)>,
    /// Fixes that take effect later.
    under_way: BTreeMap<RaidaId, FixOrder>,
    /// Groups of coins that tickets were asked for.
    groups: usize,
    /// How many there were when a server first went on with a fix.
    groups_at_first: usize,
    /// How many fixes each server is at, and was at most.
    at_work: BTreeMap<u8, (usize, usize)>,
    looks: usize,
    /// Coins asked about by each look.
    looked_at: Vec<usize>,
    is_cut_off: bool,
}

impl State {
    fn fixes_of(&self, server: u8) -> usize {
        let fixes = self.fixes.iter();
        fixes.filter(|(raida, _)| *raida == server).count()
    }
}

impl Fake {
    fn error() -> ClientError {
        ClientError::TimedOut("nowhere:1".to_owned(), Duration::from_secs(1))
    }

    /// Each server that is asked something and up says what `answer` gives.
    fn each<Q, T>(
        &self,
        questions: PerRaida<Option<Q>>,
        mut answer: impl FnMut(&mut State, RaidaId, Q) -> T,
    ) -> PerRaida<Option<Result<T, ClientError>>> {
        let mut state = self.state.lock().unwrap();
        let mut answers = PerRaida::from_fn(|_| None);
        for (raida, question) in questions {
            answers[raida] = question.map(|question| match self.down.contains(&raida.get()) {
                true => Err(Fake::error()),
                false => Ok(answer(&mut state, raida, question)),
            });
        }
        answers
    }

    fn holds(&self, raida: RaidaId, coin: Coin, an: An) -> bool {
        self.state.lock().unwrap().held.get(&(raida, coin)) == Some(&an)
    }

    /// Makes servers forget a coin.
    fn lose(&self, sn: u32, servers: impl IntoIterator<Item = u8>) {
        for server in servers {
            let other = An::new([0xee; 16]);
            self.state
                .lock()
                .unwrap()
                .held
                .insert((raida(server), coin(sn)), other);
        }
    }
}

impl Network for Fake {
    fn look(
        &self,
        questions: PerRaida<Option<Questions>>,
    ) -> PerRaida<Option<Result<Replies, ClientError>>> {
        {
            let mut state = self.state.lock().unwrap();
            state.looks += 1;
            let asked = questions.iter().filter_map(|(_, asked)| asked.as_ref());
            let most = asked
                .map(|asked| asked.detect.len() + asked.find.len())
                .max();
            state.looked_at.push(most.unwrap_or(0));
            if state.is_cut_off {
                return questions.map(|asked| asked.map(|_| Err(Fake::error())));
            }
        }
        self.each(questions, |state, raida, asked| Replies {
            detect: (asked.detect.iter())
                .map(|(coin, an)| state.held.get(&(raida, *coin)) == Some(an))
                .collect(),
            find: (asked.find.iter())
                .map(|(coin, an, pan)| match state.held.get(&(raida, *coin)) {
                    Some(held) if held == an => Found::An,
                    Some(held) if held == pan => Found::Pan,
                    _ => Found::Neither,
                })
                .collect(),
        })
    }

    fn tickets(
        &self,
        coins: PerRaida<Option<Vec<(Coin, An)>>>,
    ) -> PerRaida<Option<Result<Ticketed, ClientError>>> {
        self.state.lock().unwrap().groups += 1;
        let mut answers = self.each(coins, |state, raida, coins| {
            let passed: Vec<bool> = (coins.iter())
                .map(|(coin, an)| state.held.get(&(raida, *coin)) == Some(an))
                .collect();
            let listed = coins.iter().zip(&passed).filter(|(_, passed)| **passed);
            let listed: BTreeSet<Coin> = listed.map(|((coin, _), _)| *coin).collect();
            let number = state.tickets.len() as u32 + 1;
            state.tickets.insert((raida, number), listed);
            Ticketed {
                passed,
                ticket: TicketId::new(number),
            }
        });
        for &server in &self.without_tickets {
            answers[raida(server)] = Some(Err(Fake::error()));
        }
        answers
    }

    fn fix(&self, broken: RaidaId, order: &FixOrder) -> Fixed {
        let server = broken.get();
        assert!(
            !self.down.contains(&server),
            "only servers that are up are asked"
        );
        let mut state = self.state.lock().unwrap();
        state.fixes.push((server, order.coins.clone()));
        let (now, most) = state.at_work.entry(server).or_default();
        *now += 1;
        *most = (*most).max(*now);
        self.asked.notify_all();
        if let Some(is_reached) = self.waits.get(&server) {
            let limit = Duration::from_secs(60);
            let waited = self
                .asked
                .wait_timeout_while(state, limit, |state| !is_reached(state));
            let (waited, timed_out) = waited.unwrap();
            state = waited;
            let is_late = timed_out.timed_out();
            if is_late {
                drop(state);
                panic!("one group waits for another");
            }
            if state.groups_at_first == 0 {
                state.groups_at_first = state.groups;
            }
        }
        let outcomes = self.carry_out(&mut state, broken, order);
        state.at_work.entry(server).or_default().0 -= 1;
        drop(state);
        assert_ne!(self.fate, Fate::AskerKilled, "killed");
        let is_answer = |outcome| matches!(outcome, &Outcome::Changed | &Outcome::Failed);
        let error = match self.fates.get(&server) {
            _ if outcomes.iter().all(is_answer) => None,
            Some(Fate::Late) => {
                let cause = std::io::ErrorKind::ConnectionReset.into();
                Some(ClientError::Broken("nowhere:1".to_owned(), cause))
            }
            _ => Some(Fake::error()),
        };
        Fixed { outcomes, error }
    }
}

impl Fake {
    /// What a server makes of a fix.
    fn carry_out(&self, state: &mut State, broken: RaidaId, order: &FixOrder) -> Vec<Outcome> {
        let fate = *self.fates.get(&broken.get()).unwrap_or(&self.fate);
        if fate == Fate::RequestLost {
            return vec![Outcome::Unknown; order.coins.len()];
        }
        if fate == Fate::Late {
            let Some(earlier) = state.under_way.remove(&broken) else {
                state.under_way.insert(broken, order.clone());
                return vec![Outcome::Unknown; order.coins.len()];
            };
            for coin in earlier.coins {
                let an = earlier.generator.an(broken, coin);
                state.held.insert((broken, coin), an);
            }
            return vec![Outcome::NotAsked; order.coins.len()];
        }
        let outcome = |coin: &Coin| {
            let lists = |(issuer, ticket): (RaidaId, &Option<TicketId>)| {
                assert!(issuer != broken || ticket.is_none(), "its own ticket");
                let listed = state.tickets.get(&(issuer, ticket.as_ref()?.get()))?;
                listed.contains(coin).then_some(())
            };
            let votes = order.tickets.iter().filter_map(lists).count();
            if votes < VOTES_NEEDED {
                return Outcome::Failed;
            }
            if fate == Fate::Lies {
                return Outcome::Changed;
            }
            if fate == Fate::Steals {
                let own = PartialGenerator::new([0x66; 16]);
                for victim in RaidaId::all().filter(|&victim| victim != broken) {
                    let stolen = own.an(victim, *coin);
                    state.held.insert((victim, *coin), stolen);
                }
            }
            state.is_cut_off |= fate == Fate::CutsOff;
            let an = order.generator.an(broken, *coin);
            state.held.insert((broken, *coin), an);
            match fate {
                Fate::AnswerLost => Outcome::Unknown,
                _ => Outcome::Changed,
            }
        };
        order.coins.iter().map(outcome).collect()
    }
}

/// A network and a wallet of coins that all servers know.
struct Trial {
    network: Fake,
    folder: tempfile::TempDir,
}

const COINS: u32 = 4;

impl Trial {
    fn new() -> Trial {
        Trial::of(COINS)
    }

    fn of(coins: u32) -> Trial {
        // In memory where that can be: thousands of files take a disk seconds, and nothing here is
        // about disks.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let mut state = State::default();
        let files: Vec<CoinFile> = (0..coins)
            .map(|sn| {
                let an = |raida: RaidaId| An::new([(25 * (sn % 8) as u8) + raida.get() + 1; 16]);
                state
                    .held
                    .extend(RaidaId::all().map(|raida| ((raida, coin(sn)), an(raida))));
                let pown = PownString::all(Mark::Passed);
                CoinFile::new(coin(sn), 6, PerRaida::from_fn(an), pown)
            })
            .collect();
        let mut wallet = Wallet::open(folder.path(), Access::Create).unwrap();
        wallet.add(Folder::Bank, files).unwrap();
        let network = Fake {
            state: Mutex::new(state),
            asked: Condvar::new(),
            down: BTreeSet::new(),
            fate: Fate::Answered,
            without_tickets: BTreeSet::new(),
            fates: BTreeMap::new(),
            waits: BTreeMap::new(),
        };
        Trial { network, folder }
    }

    fn wallet(&self) -> Wallet {
        Wallet::open(self.folder.path(), Access::Change).unwrap()
    }

    fn heal(&self) -> Result<Healed, HealError> {
        let mut wallet = self.wallet();
        heal(&mut wallet, &self.network, draw_generator, |_| {})
    }

    fn fixes(&self) -> Vec<(u8, Vec<Coin>)> {
        let mut fixes = self.network.state.lock().unwrap().fixes.clone();
        // Servers fix at the same time: their order means nothing.
        fixes.sort_by_key(|&(server, _)| server);
        fixes
    }

    /// The files' folders, by serial number, and whether their numbers are those that servers hold.
    fn filed(&self) -> Vec<(Folder, bool)> {
        let wallet = self.wallet();
        let files = wallet.coins().iter();
        files
            .map(|filed| {
                let mut all = RaidaId::all();
                let held = |raida| {
                    let file = &filed.file;
                    self.network.holds(raida, file.coin, file.an(raida))
                        && file.pan(raida).is_none()
                };
                (filed.folder, all.all(held))
            })
            .collect()
    }

    /// Every file with its bytes.
    fn bytes(&self) -> Vec<(Folder, Vec<u8>)> {
        let wallet = self.wallet();
        let files = wallet.coins().iter();
        files
            .map(|filed| (filed.folder, filed.file.to_bytes().to_vec()))
            .collect()
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

const HEALED: (Folder, bool) = (Folder::Bank, true);

#[test]
fn each_server_is_asked_to_fix_the_coins_it_lost_and_no_others() {
    let trial = Trial::new();
    trial.network.lose(0, [3, 24]);
    trial.network.lose(2, [3]);
    let healed = trial.heal().unwrap();
    assert_eq!(
        trial.fixes(),
        [(3, vec![coin(0), coin(2)]), (24, vec![coin(0)])]
    );
    assert_eq!(
        healed.coins[0].before.to_string(),
        "pppfppppppppppppppppppppf"
    );
    assert_eq!(healed.coins[0].after, PownString::all(Mark::Passed));
    assert_eq!(healed.rounds, 1);
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn more_coins_than_a_ticket_holds_are_fixed_in_groups() {
    let many = COINS_A_TICKET as u32 + 1;
    let trial = Trial::of(many);
    for sn in 0..many {
        trial.network.lose(sn, [11]);
    }
    assert_eq!(trial.heal().unwrap().rounds, 1);
    let mut sizes: Vec<usize> = trial.fixes().iter().map(|(_, coins)| coins.len()).collect();
    sizes.sort();
    assert_eq!(sizes, [1, COINS_A_TICKET]);
    assert!(trial.filed().iter().all(|&filed| filed == HEALED));
}

#[test]
fn a_server_that_takes_a_fix_and_does_not_answer_gets_no_other_one_in_the_run_and_it_is_said() {
    let many = 2 * COINS_A_TICKET as u32 + 1;
    let mut trial = Trial::of(many);
    (0..many).for_each(|sn| trial.network.lose(sn, [11, 12]));
    trial.network.fates.insert(11, Fate::RequestLost);
    let mut wallet = trial.wallet();
    let mut so_far = FixesSoFar::default();
    let mut heal = |wallet: &mut Wallet| {
        let looked = Looked::at(wallet, &trial.network).unwrap();
        let spared = BTreeSet::new();
        let network = &trial.network;
        let at = |_| {};
        heal_looked(
            wallet,
            looked,
            &spared,
            &mut so_far,
            network,
            draw_generator,
            at,
        )
        .unwrap()
    };
    let mut healed = heal(&mut wallet);
    for runs in 0..2 {
        let state = trial.network.state.lock().unwrap();
        assert_eq!((state.fixes_of(11), state.fixes_of(12)), (1, 3), "{runs}");
        let sent = state.fixes.iter().find(|(server, _)| *server == 11);
        let sent = sent.unwrap().1.clone();
        drop(state);
        // Two numbers may be in force of those coins that it was sent, and of no others.
        let on_disk = Wallet::open(trial.folder.path(), Access::Look).unwrap();
        for filed in on_disk.coins() {
            let is_sent = sent.contains(&filed.file.coin);
            assert_eq!(filed.file.is_in_doubt(), is_sent, "{}", filed.file.coin);
            assert_eq!(filed.file.grade(), Grade::Fracked);
        }
        let why = healed.refusals.fixes[raida(11)].clone().unwrap();
        assert!(why.starts_with(&Fake::error().to_string()), "{why}");
        assert!(why.contains("no further fix in this run"), "{why}");
        if runs == 0 {
            assert!(
                why.contains(&format!("and {} coins", many as usize - sent.len())),
                "{why}"
            );
            // Does what a command does after it waited for other servers.
            healed = heal(&mut wallet);
        }
    }
    drop(wallet);
    // The next run asks it again.
    trial.network.fates.clear();
    trial.heal().unwrap();
    assert!(trial.filed().iter().all(|&filed| filed == HEALED));
}

#[test]
fn a_number_in_doubt_that_was_not_sent_a_successor_stays_in_the_file() {
    let mut trial = Trial::of(COINS_A_TICKET as u32 + 1);
    let last = coin(COINS_A_TICKET as u32);
    for sn in [0, COINS_A_TICKET as u32] {
        trial.network.lose(sn, [11]);
    }
    // So that there are two groups; the second has only the last coin.
    (1..COINS_A_TICKET as u32).for_each(|sn| trial.network.lose(sn, [12]));
    trial.network.lose(COINS_A_TICKET as u32, [21]);
    let earlier = An::new([0x77; 16]);
    let mut wallet = trial.wallet();
    let place = wallet.coins().len() - 1;
    assert_eq!(wallet.coins()[place].file.coin, last);
    wallet.coins_mut()[place].file.propose(raida(11), earlier);
    wallet.save().unwrap();
    drop(wallet);
    trial.network.fates.insert(11, Fate::RequestLost);
    // The first group's fix is given up when the other group has its new numbers, or the other way
    // round.
    trial
        .network
        .waits
        .insert(11, |state| state.fixes_of(12) > 0 && state.fixes_of(21) > 0);
    trial.heal().unwrap();
    let sent: Vec<Coin> = (trial.fixes().into_iter())
        .filter(|(server, _)| *server == 11)
        .flat_map(|(_, coins)| coins)
        .collect();
    assert_eq!(sent.len(), 1);
    let wallet = trial.wallet();
    let pan = |sn: u32| {
        let mut files = wallet.coins().iter().map(|filed| &filed.file);
        files
            .find(|file| file.coin == coin(sn))
            .unwrap()
            .pan(raida(11))
    };
    let (first, second) = (pan(0), pan(COINS_A_TICKET as u32));
    match sent == [last] {
        false => assert_eq!((first.is_some(), second), (true, Some(earlier))),
        true => assert!(first.is_none() && second.is_some() && second != Some(earlier)),
    }
}

#[test]
fn groups_go_side_by_side_and_no_more_than_some() {
    // One group more than run at once, all with the same server, each with one of its own.
    let many = GROUPS_AT_ONCE * COINS_A_TICKET + 1;
    assert_eq!(GROUPS_AT_ONCE, 4);
    let mut trial = Trial::of(many as u32);
    (0..many as u32).for_each(|sn| trial.network.lose(sn, [11]));
    for group in 0..=GROUPS_AT_ONCE {
        let sn = (group * COINS_A_TICKET) as u32;
        trial.network.lose(sn, [20 + group as u8]);
    }
    // It answers its first fix when other servers have those of three other groups, and the next
    // ones when it has three at the same time.
    trial.network.waits.insert(11, |state| {
        let others = (20..24).all(|server| state.fixes_of(server) > 0);
        others && (state.fixes_of(11) == 1 || state.fixes_of(11) >= GROUPS_AT_ONCE)
    });
    trial.heal().unwrap();
    let state = trial.network.state.lock().unwrap();
    assert_eq!(state.fixes_of(11), GROUPS_AT_ONCE + 1);
    assert_eq!(state.at_work[&11], (0, GROUPS_AT_ONCE - 1));
    assert_eq!(state.groups_at_first, GROUPS_AT_ONCE);
    drop(state);
    assert!(trial.filed().iter().all(|&filed| filed == HEALED));
}

#[test]
fn generators_are_drawn_for_the_coins_of_one_fix_on_the_servers_that_carry_it_out() {
    let many = COINS_A_TICKET as u32 + 2;
    let mut trial = Trial::of(many + 1);
    for sn in 0..many {
        trial.network.lose(sn, [11]);
    }
    trial.network.lose(0, [12]);
    // The second round draws nothing new.
    trial.network.fates.insert(12, Fate::Late);
    let mut drawn = vec![];
    let draw = |raida: RaidaId, coins: &[Coin]| {
        drawn.push((raida.get(), coins.len()));
        draw_generator(raida, coins)
    };
    let healed = heal(&mut trial.wallet(), &trial.network, draw, |_| {}).unwrap();
    assert_eq!(healed.rounds, 2);
    drawn.sort();
    assert_eq!(drawn, [(11, 2), (11, COINS_A_TICKET), (12, COINS_A_TICKET)]);
    assert!(trial.filed().iter().all(|&filed| filed == HEALED));
}

#[test]
fn a_server_that_uses_the_tickets_elsewhere_is_found_out_and_its_coin_is_not_authentic() {
    let mut trial = Trial::new();
    trial.network.lose(1, [5]);
    trial.network.lose(2, [6]);
    trial.network.fates.insert(5, Fate::Steals);
    let healed = trial.heal().unwrap();
    let others: Vec<RaidaId> = RaidaId::all().filter(|raida| raida.get() != 5).collect();
    assert_eq!(
        healed.lost,
        [Lost {
            coin: coin(1),
            passed_before: others,
            fixed_before: vec![],
            had_tickets: vec![raida(5)],
        }]
    );
    assert_eq!(healed.coins[1].after.count(Mark::Failed), 24);
    let grades: Vec<Grade> = healed.coins.iter().map(|coin| coin.grade).collect();
    let mut expected = [Grade::Authentic; 4];
    expected[1] = Grade::Counterfeit;
    assert_eq!(grades, expected);
}

#[test]
fn a_server_that_says_it_fixed_a_coin_and_did_not_is_found_out() {
    let mut trial = Trial::new();
    trial.network.lose(1, [5, 6]);
    trial.network.fates.insert(5, Fate::Lies);
    let healed = trial.heal().unwrap();
    assert_eq!(
        healed.lost,
        [Lost {
            coin: coin(1),
            passed_before: vec![],
            fixed_before: vec![raida(5)],
            had_tickets: vec![raida(5), raida(6)],
        }]
    );
    assert_eq!(healed.coins[1].grade, Grade::Fracked);
    assert_eq!(healed.coins[1].after.count(Mark::Failed), 1);
}

#[test]
fn all_servers_are_asked_once_more_about_the_coins_that_were_to_be_fixed_and_no_others() {
    let trial = Trial::new();
    trial.network.lose(1, [5]);
    let healed = trial.heal().unwrap();
    assert!(healed.lost.is_empty());
    let state = trial.network.state.lock().unwrap();
    assert_eq!(state.looked_at, [COINS as usize, 1]);
}

#[test]
fn without_a_last_word_of_thirteen_servers_no_coin_is_called_authentic() {
    let mut trial = Trial::new();
    trial.network.lose(1, [5]);
    trial.network.fates.insert(5, Fate::CutsOff);
    let error = trial.heal().unwrap_err();
    assert!(matches!(error, HealError::NotConfirmed { answered: 0, .. }));
    let said = error.to_string();
    assert!(said.contains("heal again"), "{said}");
    trial.network.state.lock().unwrap().is_cut_off = false;
    trial.network.fates.clear();
    let healed = trial.heal().unwrap();
    assert_eq!(healed.rounds, 0);
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn a_healthy_wallet_is_only_looked_at() {
    let trial = Trial::new();
    let before = trial.bytes();
    assert_eq!(trial.heal().unwrap().rounds, 0);
    assert_eq!(trial.network.state.lock().unwrap().looks, 1);
    assert_eq!(trial.network.state.lock().unwrap().tickets.len(), 0);
    assert_eq!(trial.bytes(), before);
}

#[test]
fn as_many_servers_may_be_down_as_leave_thirteen_to_vote() {
    for down in [0, 6, 11] {
        let mut trial = Trial::new();
        trial.network.down = (0..down).collect();
        trial.network.lose(1, [20]);
        trial.heal().unwrap();
        trial.network.down.clear();
        assert_eq!(trial.filed(), [HEALED; 4], "{down} down");
        assert_eq!(trial.fixes(), [(20, vec![coin(1)])]);
    }
}

#[test]
fn with_thirteen_down_nothing_is_changed_and_it_is_said() {
    let mut trial = Trial::new();
    trial.network.lose(1, [20]);
    trial.network.down = (0..13).collect();
    let before = trial.bytes();
    let error = trial.heal().unwrap_err();
    assert!(error.to_string().contains("only 12 of 25"), "{error}");
    assert!(
        error
            .to_string()
            .contains("RAIDA 0: no answer from nowhere:1"),
        "{error}"
    );
    assert_eq!(trial.bytes(), before);
    assert_eq!(trial.fixes(), []);
}

#[test]
fn a_coin_that_thirteen_servers_fail_is_counterfeit_and_not_fixed() {
    let trial = Trial::new();
    trial.network.lose(0, 0..13);
    let healed = trial.heal().unwrap();
    assert_eq!(trial.fixes(), []);
    assert_eq!(healed.coins[0].after.grade(), Grade::Counterfeit);
    // Coins in Counterfeit no longer count as the wallet's own.
    assert_eq!(trial.filed(), [HEALED; 3]);
    let path = trial.folder.path().join("Counterfeit/0.0.bin");
    assert!(path.exists());
}

#[test]
fn limbo_coins_take_the_number_that_each_server_has() {
    let trial = Trial::new();
    let proposed = An::new([0x77; 16]);
    let mut wallet = trial.wallet();
    for number in 0..25 {
        wallet.coins_mut()[0].file.propose(raida(number), proposed);
    }
    wallet.coins_mut()[0].file.pown = PownString::all(Mark::NoAnswer);
    wallet.file_by_grade().unwrap();
    drop(wallet);
    // Servers 0 to 9 took the new number over, 10 has lost the coin.
    for number in 0..10 {
        let mut state = trial.network.state.lock().unwrap();
        state.held.insert((raida(number), coin(0)), proposed);
    }
    trial.network.lose(0, [10]);
    let healed = trial.heal().unwrap();
    assert_eq!(
        healed.coins[0].before.to_string(),
        "ppppppppppfpppppppppppppp"
    );
    assert_eq!(trial.fixes(), [(10, vec![coin(0)])]);
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn a_server_that_does_not_say_keeps_both_numbers_in_the_file() {
    let mut trial = Trial::new();
    let mut wallet = trial.wallet();
    wallet.coins_mut()[0]
        .file
        .propose(raida(5), An::new([0x77; 16]));
    wallet.save().unwrap();
    drop(wallet);
    trial.network.down.insert(5);
    let healed = trial.heal().unwrap();
    assert!(healed.coins[0].in_doubt);
    assert_eq!(
        trial.wallet().coins()[0].file.pan(raida(5)),
        Some(An::new([0x77; 16]))
    );
    trial.network.down.clear();
    trial.heal().unwrap();
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn a_kill_between_fix_and_filing_loses_no_number() {
    let mut trial = Trial::new();
    trial.network.lose(1, [7, 8]);
    trial.network.fate = Fate::AskerKilled;
    let killed = catch_unwind(AssertUnwindSafe(|| trial.heal()));
    assert!(killed.is_err());
    // The servers have the new numbers, and the file has them too.
    let wallet = trial.wallet();
    let file = &wallet.coins()[1].file;
    for number in [7, 8] {
        let pan = file.pan(raida(number)).expect("the new number is on disk");
        assert!(trial.network.holds(raida(number), coin(1), pan));
    }
    drop(wallet);
    trial.network.fate = Fate::Answered;
    let healed = trial.heal().unwrap();
    assert_eq!(healed.rounds, 0, "find says that they are healed already");
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn a_fix_whose_answer_is_lost_is_found_in_the_same_run() {
    let mut trial = Trial::new();
    trial.network.lose(1, [7]);
    trial.network.fate = Fate::AnswerLost;
    let healed = trial.heal().unwrap();
    assert_eq!(trial.fixes().len(), 1);
    assert_eq!(healed.coins[1].after, PownString::all(Mark::Passed));
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn fixing_ends_when_a_round_has_not_helped() {
    let mut trial = Trial::new();
    trial.network.lose(1, [7]);
    trial.network.fate = Fate::RequestLost;
    let healed = trial.heal().unwrap();
    assert_eq!((healed.rounds, trial.fixes().len()), (1, 1));
    assert_eq!(healed.coins[1].after.grade(), Grade::Fracked);
    // The server had neither number when it was asked, but the fix may still take effect: it may
    // wait for the others' votes for 32 s.
    assert!(healed.coins[1].in_doubt);
}

#[test]
fn limbo_coins_that_a_wrong_network_does_not_know_keep_both_numbers() {
    let trial = Trial::new();
    let proposed = An::new([0x77; 16]);
    let mut wallet = trial.wallet();
    for number in 0..25 {
        wallet.coins_mut()[0].file.propose(raida(number), proposed);
    }
    wallet.coins_mut()[0].file.pown = PownString::all(Mark::NoAnswer);
    wallet.file_by_grade().unwrap();
    drop(wallet);
    trial.network.lose(0, 0..25);
    let healed = trial.heal().unwrap();
    assert_eq!(healed.coins[0].grade, Grade::Limbo);
    let wallet = trial.wallet();
    let filed = &wallet.coins()[0];
    assert_eq!(filed.folder, Folder::Limbo);
    assert!(RaidaId::all().all(|raida| filed.file.pan(raida) == Some(proposed)));
}

#[test]
fn a_network_that_knows_no_coin_of_the_wallet_is_told_of_and_nothing_is_changed() {
    let trial = Trial::new();
    for sn in 0..COINS {
        trial.network.lose(sn, 0..13);
    }
    let before = trial.bytes();
    let error = trial.heal().unwrap_err();
    assert!(matches!(error, HealError::AnotherNetwork { coins: 4 }));
    assert!(error.to_string().contains("--network"), "{error}");
    assert_eq!(trial.bytes(), before);
    // One coin that they know shows that they are the right servers.
    let an = trial.wallet().coins()[3].file.an(raida(0));
    let mut state = trial.network.state.lock().unwrap();
    state.held.insert((raida(0), coin(3)), an);
    drop(state);
    assert_eq!(trial.heal().unwrap().coins[3].grade, Grade::Authentic);
    assert_eq!(trial.wallet().counterfeits().unwrap(), 3);
}

#[test]
fn a_coin_of_another_network_is_left_alone() {
    let trial = Trial::new();
    let mut wallet = trial.wallet();
    wallet.coins_mut()[2].file.coin_id = 7;
    wallet.save().unwrap();
    wallet.keep_only(6);
    assert_eq!(wallet.coins().len(), 3);
    let left = &wallet.left_alone()[0];
    assert!(left.may_be_coin && left.reason.contains("coin id 7"));
}

#[test]
fn a_fix_that_is_refused_keeps_the_number_that_an_earlier_one_left_in_doubt() {
    let mut trial = Trial::new();
    trial.network.lose(1, [7]);
    // Another coin is healed, so that there is a second round.
    trial.network.lose(2, [8]);
    trial.network.fates.insert(7, Fate::Late);
    let healed = trial.heal().unwrap();
    let on_seven = trial
        .fixes()
        .iter()
        .filter(|(server, _)| *server == 7)
        .count();
    assert_eq!((healed.rounds, on_seven), (2, 2));
    // The first fix took effect while the second was refused.
    assert_eq!(healed.coins[1].after, PownString::all(Mark::Passed));
    assert_eq!(trial.filed(), [HEALED; 4]);
}

#[test]
fn why_servers_gave_no_ticket_or_fixed_nothing_is_told() {
    let mut trial = Trial::new();
    trial.network.lose(1, [7, 8]);
    trial.network.without_tickets = BTreeSet::from([3]);
    trial.network.fates.insert(7, Fate::RequestLost);
    let refusals = trial.heal().unwrap().refusals;
    let servers = |whys: &PerRaida<Option<String>>| -> Vec<(u8, String)> {
        let whys = whys.iter();
        whys.filter_map(|(raida, why)| Some((raida.get(), why.clone()?)))
            .collect()
    };
    let why = Fake::error().to_string();
    assert_eq!(servers(&refusals.tickets), [(3, why.clone())]);
    assert_eq!(servers(&refusals.fixes), [(7, why)]);
}

#[test]
fn looking_alone_asks_and_changes_no_file() {
    let trial = Trial::new();
    trial.network.lose(1, [7]);
    let before = trial.bytes();
    let mut wallet = Wallet::open(trial.folder.path(), Access::Look).unwrap();
    look(wallet.coins_mut(), &trial.network).unwrap();
    assert_eq!(wallet.coins()[1].file.pown.count(Mark::Failed), 1);
    drop(wallet);
    assert_eq!(trial.bytes(), before);
    assert_eq!(trial.fixes(), []);
}
