use std::path::PathBuf;

use crate::client::LISTED_COINS_MAX;
use crate::client::heal::HealError;
use crate::client::wallet::WalletError;
use crate::coin::{Coin, Worth};
use crate::protocol::healing::VOTES_NEEDED;
use crate::shown::Shown;

/// Why nothing was done with a locker, or only a part. Its text never holds a key.
#[derive(Debug, thiserror::Error)]
pub enum LockerError {
    /// The wallet cannot be read or written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The servers could not be asked about the wallet's coins, or do not know them.
    #[error(transparent)]
    Look(#[from] HealError),
    /// The coins that an interrupted run had begun with are unknown.
    #[error(
        "{file} says which coins an interrupted command had begun to take, and cannot be used: {what}; move it to another folder and give the command again: `raida heal` files coins of the interrupted one that stay in Limbo",
        file = file.shown()
    )]
    Takes {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Too few servers answered to say what lies in a locker.
    #[error(
        "only {answered} of 25 servers say what lies there and {VOTES_NEEDED} are needed, so nothing was changed ({first}); is the network up, and is the list of hosts right?"
    )]
    TooFewServers {
        /// Servers that answered.
        answered: usize,
        /// The reason of the first that did not answer.
        first: String,
    },
    /// The wallet's coins are not worth this much.
    #[error(
        "the wallet's coins in Bank and Fracked whose numbers are not in doubt do not make {wanted}: there are {coins}, worth {have}; name another amount, or the coins themselves"
    )]
    NoSuchAmount {
        /// What was asked for.
        wanted: Worth,
        /// Number of coins.
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
        /// Number of coins.
        coins: usize,
        /// What they are worth.
        worth: Worth,
    },
    /// More coins in one place than anybody reads in a list.
    #[error(
        "{coins} coins would be in one place with {before} that are there, and nobody reads a list of more than {LISTED_COINS_MAX}, so that they could not be taken out again; put them into several: nothing was changed"
    )]
    TooMany {
        /// Number of coins that should go there.
        coins: usize,
        /// Number of coins known to be there.
        before: usize,
    },
    /// Too few servers know the coins to give them to anybody.
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
