use std::path::PathBuf;

use crate::client::LISTED_COINS_MAX;
use crate::client::heal::HealError;
use crate::client::wallet::WalletError;
use crate::coin::{Coin, Worth};
use crate::protocol::healing::VOTES_NEEDED;
use crate::shown::Shown;

/// Why nothing was done with a locker, or not to the end. The text of it never holds a key.
#[derive(Debug, thiserror::Error)]
pub enum LockerError {
    /// The wallet cannot be read or written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The servers could not be asked about the wallet's coins, or do not know them.
    #[error(transparent)]
    Look(#[from] HealError),
    /// It is not known what an interrupted run had begun with.
    #[error(
        "{file} says which coins an interrupted command had begun to take, and cannot be used: {what}; move it to another folder and give the command again: `raida heal` files coins of the interrupted one that stay in Limbo",
        file = file.shown()
    )]
    Takes {
        /// The file.
        file: PathBuf,
        /// What is the matter with it.
        what: String,
    },
    /// Too few servers to say what lies in a locker.
    #[error(
        "only {answered} of 25 servers say what lies there and {VOTES_NEEDED} are needed, so nothing was changed ({first}); is the network up, and is the list of hosts right?"
    )]
    TooFewServers {
        /// Servers that answered.
        answered: usize,
        /// What came of the first that did not.
        first: String,
    },
    /// The wallet has not this much in coins.
    #[error(
        "the wallet's coins in Bank and Fracked whose numbers are not in doubt do not make {wanted}: there are {coins}, worth {have}; name another amount, or the coins themselves"
    )]
    NoSuchAmount {
        /// What was asked for.
        wanted: Worth,
        /// How many coins there are.
        coins: usize,
        /// What they are worth.
        have: Worth,
    },
    /// The wallet has no coin to give.
    #[error(
        "the wallet has no coin in Bank or Fracked whose numbers are not in doubt; `raida heal` settles doubts"
    )]
    NoCoins,
    /// A coin is not in the wallet.
    #[error("coin {0} is not in the wallet's Bank or Fracked; its folders list what is")]
    NotInWallet(Coin),
    /// An earlier run has put coins into the locker.
    #[error(
        "coins of this wallet were put there before ({coins}, worth {worth}), so that this may be the same once more: look what is there, with the same --key and servers (`raida locker peek`, `raida trade show`); with --more this command puts more into a locker"
    )]
    PutBefore {
        /// How many.
        coins: usize,
        /// What they are worth.
        worth: Worth,
    },
    /// More coins in one place than anybody reads the list of.
    #[error(
        "{coins} coins would be in one place with {before} that are there, and nobody reads a list of more than {LISTED_COINS_MAX}, so that they could not be taken out again; put them into several: nothing was changed"
    )]
    TooMany {
        /// How many are to go there.
        coins: usize,
        /// How many are known to be there.
        before: usize,
    },
    /// Coins that too few servers know are nothing to give to anybody.
    #[error(
        "{} of the coins pass on fewer than {VOTES_NEEDED} servers, so nothing was changed: {}; `raida heal` the wallet first",
        .0.len(),
        list(.0)
    )]
    NotPassed(Vec<Coin>),
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}; nothing was sent")]
    NoRandomness(#[from] getrandom::Error),
}

fn list(coins: &[Coin]) -> String {
    const MOST: usize = 10;
    let some = coins.iter().take(MOST).map(Coin::to_string);
    let mut text = some.collect::<Vec<_>>().join(" ");
    if coins.len() > MOST {
        text += " ...";
    }
    text
}
