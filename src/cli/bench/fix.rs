use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;

use crate::cli::CliError;
use crate::cli::same_coins::{COINS_A_ROUND, SameCoins};
use crate::client::heal::FIX_TIMEOUT;
use crate::client::{Client, ClientError, FixOrder, Outcome, PerRaida, Raidas, draw_generator};
use crate::coin::{An, Coin, Denomination};
use crate::load::kind::FixKind;
use crate::load::{
    Held, Kind, LoadError, MintJournal, Purse, PurseError, Repair, Settled, TicketStock, Vouched,
};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// How long a server has to answer before the run, or it counts as down.
const PROBE: Duration = Duration::from_secs(2);

/// How often serial numbers are drawn: well within the 16 s for which a node keeps those that it
/// offered.
const DRAWS_MAX: usize = 16;

/// What a node fixes.
pub(super) struct FixPlan<'a> {
    /// The network's folder, and where its nodes are.
    pub(super) network: &'a Path,
    pub(super) raidas: Raidas,
    /// The measured node.
    pub(super) raida: RaidaId,
    /// Groups of coins, and coins of a group: one request is about one group.
    pub(super) groups: usize,
    pub(super) coins_per_request: usize,
    pub(super) expects_refusal: bool,
}

/// Coins on all nodes that are up, and a stock of tickets for them.
pub(super) struct Fixes {
    raida: RaidaId,
    raidas: Raidas,
    coins_per_request: usize,
    repair: Repair,
    /// Other servers that are up.
    others: usize,
    purse: Purse,
    stock: Arc<TicketStock>,
}

/// What came of fixes beside their answers.
pub(super) struct Ended {
    /// How the node's coins were found; `None` where they could not be looked at.
    pub(super) settled: Option<Settled>,
    /// Why tickets ended early, or coins were not left as they were.
    pub(super) fault: Result<(), CliError>,
}

/// Authenticity numbers on each node that is up.
type Answers = PerRaida<Option<Vec<An>>>;

impl FixPlan<'_> {
    /// Finds out who is there, makes coins on all of them, and opens a stock of tickets.
    ///
    /// If fixes have to succeed, the measured node gets the coins by a fix as well: a node fixes no
    /// coin that something else changed less than 300 s before (docs/protocol.md, "Fix").
    ///
    /// # Errors
    /// Fixes would have another outcome than is expected; a node refuses. Coins that were made are
    /// taken out of circulation again.
    pub(super) fn prepare(
        &self,
        is_up: &PerRaida<bool>,
        journal: &mut MintJournal,
    ) -> Result<Fixes, CliError> {
        let others = is_up.count(|&is_up| is_up) - 1;
        let repair = self.repair(others)?;
        let (coins, ans) = self.coins(is_up, repair, journal)?;
        let (purse, stock) = self.open(repair, &coins, &ans)?;
        Ok(Fixes {
            raida: self.raida,
            raidas: self.raidas.clone(),
            coins_per_request: self.coins_per_request,
            repair,
            others,
            purse,
            stock: Arc::new(stock),
        })
    }

    /// Takes coins out of circulation on the nodes that are up.
    ///
    /// # Errors
    /// A node gives no answer, or refuses; the others have done it.
    pub(super) fn free(&self, is_up: &PerRaida<bool>, coins: &[Coin]) -> Result<(), CliError> {
        match coins.is_empty() {
            true => Ok(()),
            false => self.nodes(is_up)?.free(coins),
        }
    }

    /// Those of these coins that are in circulation on a node that is up.
    ///
    /// # Errors
    /// A node gives no answer, or refuses.
    pub(super) fn in_circulation(
        &self,
        is_up: &PerRaida<bool>,
        coins: &[Coin],
    ) -> Result<Vec<Coin>, CliError> {
        self.nodes(is_up)?.in_circulation(coins)
    }

    fn nodes(&self, is_up: &PerRaida<bool>) -> Result<SameCoins, CliError> {
        SameCoins::open(self.raidas.clone(), self.network, |raida| is_up[raida])
    }

    /// Makes the coins on all nodes that are up.
    ///
    /// The node fixes no coin whose serial number something else changed lately, such as the end of
    /// another bench. Then other serial numbers are drawn: each session is offered pages that no
    /// session before it reserved.
    fn coins(
        &self,
        is_up: &PerRaida<bool>,
        repair: Repair,
        journal: &mut MintJournal,
    ) -> Result<(Vec<Coin>, Answers), CliError> {
        let is_made = |raida| repair == Repair::None || raida != self.raida;
        for _ in 0..DRAWS_MAX {
            let nodes = self.nodes(is_up)?;
            let (coins, mut ans) = self.mint(&nodes, is_made, journal)?;
            let is_there = match repair {
                Repair::All => self.bring(&coins, &mut ans)?,
                Repair::None => true,
            };
            if is_there {
                return Ok((coins, ans));
            }
            nodes.free(&coins)?;
            journal.gone(&coins);
        }
        Err(CliError::Unfinished(format!(
            "RAIDA {} does not fix the coins that were made for this on the others, of {DRAWS_MAX} draws of serial numbers: where its log says changed_lately, coins of these serial numbers were there less than five minutes ago, as after another bench; wait so long and start it again",
            self.raida
        )))
    }

    /// Who answers.
    ///
    /// # Errors
    /// The measured node does not answer, or a server is another one than expected.
    pub(super) fn probe(&self) -> Result<PerRaida<bool>, CliError> {
        let timeout = self.raidas.timeout.min(PROBE);
        let asked = (self.raidas).ask(timeout, |_| Some(()), |client, ()| client.echo());
        let mut is_up = PerRaida::from_fn(|_| false);
        for (raida, answer) in asked {
            match answer.expect("every server was asked") {
                Ok(_) => is_up[raida] = true,
                Err(error) if raida == self.raida => {
                    let next = "this is the node to be measured: start it";
                    return Err(CliError::Raida { raida, error, next });
                }
                Err(error @ ClientError::OtherRaida(..)) => {
                    let next = "is the list of hosts in the network's folder right?";
                    return Err(CliError::Raida { raida, error, next });
                }
                Err(_) => {}
            }
        }
        Ok(is_up)
    }

    /// The expected outcome of a fix while this many other servers are up.
    fn repair(&self, others: usize) -> Result<Repair, CliError> {
        let refused = |what: String| Err(LoadError::Plan(what).into());
        match (others >= VOTES_NEEDED, self.expects_refusal) {
            (true, false) => Ok(Repair::All),
            (false, true) => Ok(Repair::None),
            (false, false) => refused(format!(
                "only {others} of the 24 other servers answer and a fix takes {VOTES_NEEDED}, so that none would succeed: start more (`raida network start N`), or measure how fast RAIDA {} says that it repaired nothing with --expect-refusal",
                self.raida
            )),
            (true, true) => refused(format!(
                "{others} of the 24 other servers answer, so that fixes would succeed: stop all but {} of them (`raida network stop N`), or leave --expect-refusal away",
                VOTES_NEEDED - 1
            )),
        }
    }

    /// Has the measured node fix coins that all others have, a thousand at a time, and adds their
    /// numbers there. Returns whether it fixed all.
    fn bring(&self, coins: &[Coin], ans: &mut Answers) -> Result<bool, CliError> {
        let raida = self.raida;
        let failed = |error| {
            let next = "it fixes no coin before the bench begins";
            CliError::Raida { raida, error, next }
        };
        let mut client = self.raidas.connect(raida, FIX_TIMEOUT).map_err(failed)?;
        for part in coins.chunks(COINS_A_ROUND) {
            let at = ans[raida].as_ref().map_or(0, Vec::len);
            let claimed = |other| {
                let ans = ans[other].as_ref().filter(|_| other != raida)?;
                let claimed = part.iter().copied().zip(ans[at..].iter().copied());
                Some(claimed.collect::<Vec<(Coin, An)>>())
            };
            let get = |client: &mut Client, claimed: Vec<(Coin, An)>| client.get_ticket(&claimed);
            let tickets = self.raidas.ask(self.raidas.timeout, claimed, get);
            let ticket = |other| {
                let issued = tickets[other].as_ref()?.as_ref().ok()?;
                issued.issued.first().map(|&(_, ticket)| ticket)
            };
            let order = FixOrder {
                coins: part.to_vec(),
                generator: draw_generator(raida, part)?,
                tickets: PerRaida::from_fn(ticket),
            };
            let (outcomes, error) = client.fix(&order);
            if let Some(error) = error {
                return Err(failed(error));
            }
            if outcomes.iter().any(|&outcome| outcome != Outcome::Changed) {
                return Ok(false);
            }
            let numbers = part.iter().map(|&coin| order.generator.an(raida, coin));
            ans[raida].get_or_insert_default().extend(numbers);
        }
        Ok(true)
    }

    /// Makes the coins. The coins of a group are spread over as many denominations, and so pages,
    /// as possible.
    fn mint(
        &self,
        nodes: &SameCoins,
        is_made: impl Fn(RaidaId) -> bool,
        journal: &mut MintJournal,
    ) -> Result<(Vec<Coin>, Answers), CliError> {
        let (groups, of_group) = (self.groups, self.coins_per_request);
        let count = groups * of_group;
        let of_each = count.div_ceil(Denomination::all().count());
        let offered: BTreeMap<Denomination, u32> =
            Denomination::all().map(|dn| (dn, u32::MAX)).collect();
        let reserved = Instant::now();
        let offered = nodes.offered(&offered)?;
        // Side by side, so that few pages are read; not the first ones each time, which the run
        // before had.
        let of_denomination = offered.chunk_by(|one, next| one.denomination == next.denomination);
        let free: Vec<Coin> = of_denomination
            .flat_map(|offered| {
                let runs: Vec<&[Coin]> = offered.chunks_exact(of_each).collect();
                let run = runs.choose(&mut rand::rng()).copied();
                run.unwrap_or(offered).to_vec()
            })
            .collect();
        if free.len() < count {
            return Err(PurseError::NoneFree.into());
        }
        let coins: Vec<Coin> = (0..groups)
            .flat_map(|group| (0..of_group).map(move |place| place * groups + group))
            .map(|index| free[index])
            .collect();
        let mut ans: Answers = PerRaida::from_fn(|_| None);
        journal.ask(&coins)?;
        for part in coins.chunks(COINS_A_ROUND) {
            nodes.create_on(&is_made, part, reserved, |created| {
                for (raida, created) in created {
                    if let Some(created) = created {
                        ans[raida].get_or_insert_default().extend(created);
                    }
                }
                Ok(())
            })?;
        }
        Ok((coins, ans))
    }

    fn open(
        &self,
        repair: Repair,
        coins: &[Coin],
        ans: &Answers,
    ) -> Result<(Purse, TicketStock), CliError> {
        let vouched = |group: usize| {
            let part = group * self.coins_per_request..(group + 1) * self.coins_per_request;
            let ans = |raida| Some(ans[raida].as_ref()?[part.clone()].to_vec());
            Vouched {
                coins: coins[part.clone()].to_vec(),
                ans: PerRaida::from_fn(ans),
            }
        };
        let groups = (0..self.groups).map(vouched).collect();
        let stock = TicketStock::open(self.raida, repair, &self.raidas, groups)?;
        let own = ans[self.raida].as_ref().expect("the node answered before");
        let purse = Purse::new(coins.iter().copied().zip(own.iter().copied()))?;
        Ok((purse, stock))
    }
}

impl Fixes {
    /// In words: the expected outcome of the fixes, and the servers whose votes count.
    pub(super) fn words(&self) -> String {
        let refused = match self.repair {
            Repair::All => "",
            Repair::None => "to be refused, ",
        };
        format!("({refused}tickets of {} of 24 others)", self.others)
    }

    /// A kind for each thread.
    pub(super) fn kinds(&mut self, threads: usize, slots: usize) -> Vec<Box<dyn Kind>> {
        let held = self.purse.deal(1).swap_remove(0);
        let mut dealt = vec![Vec::new(); threads];
        for (number, group) in held.chunks(self.coins_per_request).enumerate() {
            dealt[number % threads].push((number, group.to_vec()));
        }
        let kind = |groups: Vec<(usize, Vec<Held>)>| -> Box<dyn Kind> {
            let stock = Arc::clone(&self.stock);
            Box::new(FixKind::new(self.raida, self.repair, stock, groups, slots))
        };
        dealt.into_iter().map(kind).collect()
    }

    /// Compares the coins with the node.
    pub(super) fn end(mut self, held: Vec<Held>) -> Ended {
        // No kind is left that has it.
        let closed = Arc::into_inner(self.stock).map_or(Ok(()), TicketStock::close);
        self.purse.collect(held);
        let settled = (self.raidas)
            .connect(self.raida, self.raidas.timeout)
            .map_err(CliError::from)
            .and_then(|mut client| Ok(self.purse.settle(&mut client)?));
        match settled {
            Ok(settled) => Ended {
                settled: Some(settled),
                fault: closed.map_err(CliError::from),
            },
            Err(error) => Ended {
                settled: None,
                fault: Err(error),
            },
        }
    }
}
