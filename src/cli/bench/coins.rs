use std::path::{Path, PathBuf};

use crate::cli::CliError;
use crate::cli::new_numbers::this_month;
use crate::cli::node::NodeArgs;
use crate::client::{
    Client, CoinListError, CoinListReader, CoinListWriter, CoinRecord, Existing, Months,
};
use crate::coin::{An, COINS_PER_PAGE, Coin, Denomination, PageId};
use crate::load::{MintJournal, Purse, Settled};
use crate::protocol::AdminKey;
use crate::shown::Shown;

/// Coins, and what has to be done to leave them as they were.
pub(super) struct Coins {
    pub(super) purse: Purse,
    /// Coins of it that requests are encrypted with.
    pub(super) keys: Vec<(Coin, An)>,
    client: Client,
    spare_file: Option<PathBuf>,
}

impl Coins {
    /// Has the node make coins; the owner of the journal takes them out of circulation.
    pub(super) fn mint(
        node: &NodeArgs,
        key: &AdminKey,
        count: usize,
        journal: &mut MintJournal,
    ) -> Result<Coins, CliError> {
        let mut client = node.connect_tcp()?;
        Ok(Coins {
            purse: Purse::mint(&mut client, key, count, journal)?,
            keys: vec![],
            client,
            spare_file: None,
        })
    }

    /// Takes those of a file.
    pub(super) fn from_file(file: &Path, node: &NodeArgs) -> Result<Coins, CliError> {
        let client = node.connect_tcp()?;
        let list = CoinListReader::open(file, Months::Optional)?
            .map(|record| record.map(|CoinRecord { coin, an, .. }| (coin, an)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Coins {
            purse: Purse::new(list)?,
            keys: vec![],
            client,
            spare_file: None,
        })
    }

    /// Writes down the other numbers of a file's coins, which are to change.
    pub(super) fn write_spares(&mut self, file: &Path) -> Result<(), CliError> {
        let name = spare_file(file);
        let mut writer = match CoinListWriter::create(&name, Existing::Keep) {
            Err(CoinListError::Exists(name)) => {
                return Err(CliError::Unfinished(format!(
                    "{name} is there: a bench of these coins was killed, and some may have the numbers in it; `raida find {file} --proposed {name}` says which, move it away when you have both",
                    file = file.shown(),
                    name = name.shown()
                )));
            }
            other => other?,
        };
        // The month in which a pown would give a coin its other number.
        for (coin, an) in self.purse.spares() {
            writer.write(&CoinRecord {
                coin,
                an,
                mfs: Some(this_month()),
            })?;
        }
        writer.finish()?;
        self.spare_file = Some(name);
        Ok(())
    }

    /// Compares them with the node, and leaves them as they were.
    pub(super) fn settle(mut self) -> Result<Settled, CliError> {
        let settled = self.purse.settle(&mut self.client)?;
        if settled.astray > 0 {
            return Ok(settled);
        }
        if let Some(file) = &self.spare_file {
            std::fs::remove_file(file)?;
        }
        Ok(settled)
    }
}

/// Where the other numbers of a file's coins are while they change.
pub(super) fn spare_file(file: &Path) -> PathBuf {
    let mut name = file.to_owned().into_os_string();
    name.push(".spare.csv");
    PathBuf::from(name)
}

/// The first coins of the first pages, this many, for a load that is about no coin: Redis is asked
/// about them.
pub(super) fn any(count: usize) -> Vec<Coin> {
    let pages = Denomination::all().filter_map(|denomination| PageId::new(denomination, 0));
    let coins = pages.flat_map(|page| (0..COINS_PER_PAGE).map(move |place| page.coin(place)));
    coins.take(count).collect()
}
