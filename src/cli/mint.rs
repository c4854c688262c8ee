use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::CliError;
use super::mint_network::MintNetwork;
use super::new_numbers::this_month;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::{Answer, print, print_json, progress, warn};
use crate::client::{Client, ClientError, CoinListError, CoinListWriter, Existing};
use crate::coin::{An, Coin, Denomination, SerialNumber, Worth};
use crate::protocol::AdminKey;
use crate::protocol::executive::SessionId;
use crate::shown::Shown;

/// Create coins and write them to a CSV; or with --network, the same coins on all 25 nodes, and
/// file them in a wallet.
///
/// Each batch of coins is written down before the node is asked for it, in a file beside the CSV,
/// and with its numbers before the next one; coins that cannot be written are taken out of
/// circulation again. Where the command is interrupted, give it again: it takes over the coins that
/// were made, makes what is missing, and says which coins may be in circulation although nobody
/// knows their numbers. For a wallet it says that too, and makes the full count again: coins that
/// were filed are in the wallet already.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida mint --count <N> --denomination <DN>... (--out <FILE.csv> | --network <DIR> --wallet <WALLET>) [OPTIONS]"
)]
#[command(after_help = "Examples:
  raida mint --data raida-data --count 5 --denomination 1 --out coins.csv
  raida mint --admin-key-file admin.key --count 1000 --denomination 0 -1 --out coins.csv
  raida mint --network raida-network --count 20 --denomination 1 --wallet wallet")]
pub struct MintCommand {
    #[command(flatten)]
    admin: AdminKeyArgs,
    /// How many coins of each denomination, 1,024,000 at most: a denomination has no more
    #[arg(long, value_name = "N", value_parser = count)]
    count: u32,
    /// What each is worth, as a power of ten: -8 to 6
    #[arg(long, value_name = "DN", required = true, num_args = 1.., allow_negative_numbers = true, value_parser = denomination)]
    denomination: Vec<Denomination>,
    /// CSV to write; must not exist
    #[arg(long, value_name = "FILE.csv", required_unless_present = "network")]
    out: Option<PathBuf>,
    /// Make the coins on all nodes of this network, whose folder is on this machine
    #[arg(long, value_name = "DIR", requires = "wallet", conflicts_with_all = ["out", "host", "raida", "udp", "admin_key_file", "config", "data"])]
    network: Option<PathBuf>,
    /// Wallet to file them in, in its folder Bank; created if it does not exist
    #[arg(
        long,
        value_name = "WALLET",
        requires = "network",
        conflicts_with = "out"
    )]
    wallet: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl MintCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The admin key cannot be read, the CSV cannot be written; the node gives no answer, or
    /// refuses. The coins made before are in the CSV.
    pub fn run(mut self) -> Result<Answer, CliError> {
        self.node.name_by(&self.admin)?;
        let mut missing: BTreeMap<Denomination, u32> = BTreeMap::new();
        for &denomination in &self.denomination {
            *missing.entry(denomination).or_default() += self.count;
        }
        let asked: u64 = missing.values().map(|&count| u64::from(count)).sum();
        let bar = progress(asked, "minting");
        let out = match (&self.network, &self.wallet, &self.out) {
            (Some(network), Some(wallet), _) => {
                let timeout = Duration::from_millis(self.node.timeout_ms);
                let mut minting = MintNetwork::open(network, wallet, self.node.coin_id, timeout)?;
                let made = minting.make(missing, |made| bar.set_position(made as u64))?;
                bar.finish_and_clear();
                self.report(
                    wallet,
                    &format!(
                        "raida detect --all --network {} {}",
                        network.shown(),
                        wallet.shown()
                    ),
                    &made,
                )?;
                return Ok(Answer::Yes);
            }
            (_, _, Some(out)) => out.clone(),
            _ => unreachable!("the command line asks for --out, or --network and --wallet"),
        };
        let key = self.admin.read()?;
        let mut session = [0; SessionId::SIZE];
        getrandom::fill(&mut session)?;
        let mut minting = Minting {
            node: &self.node,
            client: self.node.connect()?,
            session: SessionId::new(u32::from_be_bytes(session)),
            key,
            made: vec![],
        };
        let left_over = CoinListWriter::left_over(&out)?;
        if let Some((part, None)) = left_over.iter().find(|(_, lock)| lock.is_none()) {
            return Err(CoinListError::BeingWritten(part.clone()).into());
        }
        let mut writer = CoinListWriter::create(&out, Existing::Keep)?;
        let mut unknown = Vec::new();
        for (part, _lock) in &left_over {
            unknown.extend(minting.take_over(part, &mut missing, &mut writer)?);
        }
        self.tell_unknown(&out, &unknown)?;
        // Only now there is a second copy of what is in them.
        for (part, _lock) in left_over {
            let failed = |cause| CoinListError::Unwritable(out.clone(), Some(part.clone()), cause);
            std::fs::remove_file(&part).map_err(failed)?;
        }
        let taken_over = minting.made.len();
        let mut ended: Option<CliError> = None;
        while ended.is_none() && !missing.is_empty() {
            ended = minting.round(&mut missing, &mut writer).err();
            bar.set_position(minting.made.len() as u64);
        }
        bar.finish_and_clear();

        let made = minting.made;
        if made.is_empty() && !writer.is_in_doubt() {
            // Nothing was written, so nothing is kept.
            return Err(ended.expect("a first round makes coins or fails"));
        }
        let so_far = writer.so_far().to_owned();
        if writer.is_in_doubt() {
            let ended = ended.map_or(String::new(), |ended| format!("{ended}; "));
            return Err(CliError::Unfinished(format!(
                "{ended}what was made before is safe in {}: give the same command again to go on with it",
                so_far.shown()
            )));
        }
        if let Err(error) = writer.finish() {
            let before = ended.map_or(String::new(), |ended| format!("{ended}; then "));
            return Err(CliError::Unfinished(format!(
                "{before}{error}; the {} coins made are safe in {}: rename it",
                made.len(),
                so_far.shown()
            )));
        }
        if let Some(ended) = ended {
            return Err(CliError::Unfinished(format!(
                "{ended}; {} of {asked} coins were made before, they are in {}",
                made.len(),
                out.shown()
            )));
        }
        if taken_over > 0 && !self.json {
            print(&format!(
                "{taken_over} of them by a mint of this name that was interrupted\n"
            ))?;
        }
        let next = format!("raida detect {}{}", out.shown(), self.node.flags_needed());
        self.report(&out, &next, &made)?;
        Ok(Answer::Yes)
    }

    /// Writes into a file of their own the coins that an interrupted mint asked for and whose
    /// numbers nobody knows.
    fn tell_unknown(&self, out: &Path, unknown: &[Coin]) -> Result<(), CliError> {
        if unknown.is_empty() {
            return Ok(());
        }
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(format!(".unknown-{}.csv", std::process::id()));
        let file = out.with_file_name(name);
        let mut writer = CoinListWriter::create(&file, Existing::Keep)?;
        writer.ask(unknown, this_month())?;
        writer.finish()?;
        let coins = match unknown.len() {
            1 => "1 coin that it asked for is".to_owned(),
            more => format!("{more} coins that it asked for are"),
        };
        warn(&format!(
            "a mint of this name was interrupted: {coins} in circulation, and nobody knows the numbers; where no other mint has made coins of these serial numbers since, take them out of circulation: `raida delete {} --whatever-number{}{}`",
            file.shown(),
            self.node.flags(),
            self.admin.flags()
        ));
        Ok(())
    }

    fn report(&self, out: &Path, next: &str, made: &[Coin]) -> Result<(), CliError> {
        let worth = made
            .iter()
            .map(|coin| u128::from(coin.denomination.worth_units()))
            .sum();
        let worth = Worth(worth);
        if self.json {
            let worth = worth.to_string();
            return print_json(&json!({ "out": out, "coins": made.len(), "worth": worth }));
        }
        let out = out.shown();
        let coins = match made.len() {
            1 => "1 coin".to_owned(),
            more => format!("{more} coins"),
        };
        print(&format!(
            "{coins} worth {worth} in {out}, which is all there is of them: keep it safe\ntry: {next}\n"
        ))
    }
}

/// Coins being made, in rounds; a round has the coins that one answer lists.
struct Minting<'a> {
    node: &'a NodeArgs,
    client: Client,
    session: SessionId,
    key: AdminKey,
    made: Vec<Coin>,
}

/// How long pages stay reserved for a session (docs/protocol.md section 5), less some time on the
/// way.
pub const RESERVED: Duration = Duration::from_secs(14);

impl Minting<'_> {
    /// Makes coins that are free and still missing, and removes them from the missing ones.
    fn round(
        &mut self,
        missing: &mut BTreeMap<Denomination, u32>,
        writer: &mut CoinListWriter,
    ) -> Result<(), CliError> {
        let reserved = Instant::now();
        let denominations: Vec<Denomination> = missing.keys().copied().collect();
        let free = (self.client).available_sns(self.session, &self.key, &denominations)?;
        let mut wanted: Vec<Coin> = Vec::new();
        for (&denomination, &count) in missing.iter() {
            let before = wanted.len();
            let of_it = free.iter().filter(|coin| coin.denomination == denomination);
            wanted.extend(of_it.take(count as usize));
            if wanted.len() == before {
                return Err(CliError::Unfinished(format!(
                    "no serial number of denomination {denomination} is free, or others have reserved them: try again in 16 seconds"
                )));
            }
        }
        for coins in wanted.chunks(self.client.created_at_once()) {
            if reserved.elapsed() > RESERVED {
                // A slow node: the next round reserves again.
                return Ok(());
            }
            self.create(coins, reserved, writer)?;
            for coin in coins {
                let left = missing.get_mut(&coin.denomination);
                let left = left.expect("only coins that are missing are asked for");
                *left -= 1;
                if *left == 0 {
                    missing.remove(&coin.denomination);
                }
            }
            self.made.extend(coins);
        }
        Ok(())
    }

    /// Takes over what a mint that was interrupted left: coins with their numbers go into the new
    /// file and count as made. Coins without numbers are returned if they are in circulation.
    fn take_over(
        &mut self,
        part: &Path,
        missing: &mut BTreeMap<Denomination, u32>,
        writer: &mut CoinListWriter,
    ) -> Result<Vec<Coin>, CliError> {
        let mut unknown: Vec<Coin> = Vec::new();
        let records = CoinListWriter::read_left_over(part)?;
        // Numbers that were being written when it ended may be in the file in part.
        let claimed: Vec<(Coin, An)> = records.iter().map(|r| (r.coin, r.an)).collect();
        let passed = self.client.detect(&claimed)?;
        for (record, passed) in records.into_iter().zip(passed) {
            let denomination = record.coin.denomination;
            if record.is_unknown() || !passed {
                unknown.push(record.coin);
                continue;
            }
            writer.write(&record)?;
            self.made.push(record.coin);
            if let Some(left) = missing.get_mut(&denomination) {
                *left -= 1;
                missing.retain(|_, left| *left > 0);
            }
        }
        writer.sync()?;
        Ok(self.client.in_circulation(&self.key, unknown)?)
    }

    /// Makes these coins and writes them down; what cannot be written down is freed again.
    fn create(
        &mut self,
        coins: &[Coin],
        reserved: Instant,
        writer: &mut CoinListWriter,
    ) -> Result<(), CliError> {
        writer
            .ask(coins, this_month())
            .map_err(|error| match error {
                // What was written before gets the file's own name.
                CoinListError::Unwritable(file, _, cause) => {
                    CoinListError::Unwritable(file, None, cause)
                }
                other => other,
            })?;
        let created = self.client.create_coins(self.session, &self.key, coins);
        let written: Result<(), CliError> = match created {
            Ok(ans) => writer.answered(&ans).map_err(CliError::from),
            Err(error @ (ClientError::Refused(..) | ClientError::TooLong(_))) => {
                writer.forget()?;
                return Err(error.into());
            }
            Err(doubtful) => Err(doubtful.into()),
        };
        let Err(error) = written else {
            return Ok(());
        };
        let freed = if reserved.elapsed() > RESERVED {
            Err("the reservation has run out".to_owned())
        } else {
            self.free(coins).map_err(|error| error.to_string())
        };
        Err(CliError::Unfinished(match freed {
            Ok(()) => {
                writer.forget()?;
                format!("{error}; the coins this was about were taken out of circulation again")
            }
            Err(cause) => format!(
                "{error}; {} coins may be in circulation without an owner, and could not be freed ({cause})",
                coins.len()
            ),
        }))
    }

    fn free(&mut self, coins: &[Coin]) -> Result<(), CliError> {
        // After a missing answer the old connection is of no more use.
        self.client = self.node.connect()?;
        Ok(self.client.free_coins(self.session, &self.key, coins)?)
    }
}

fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if (1..=SerialNumber::COUNT).contains(&count) => Ok(count),
        _ => Err(format!(
            "permitted is a whole number from 1 to {}: a denomination has so many serial numbers",
            SerialNumber::COUNT
        )),
    }
}

fn denomination(text: &str) -> Result<Denomination, String> {
    text.parse()
        .ok()
        .and_then(Denomination::new)
        .ok_or_else(|| "permitted is a whole number from -8 to 6".to_owned())
}
