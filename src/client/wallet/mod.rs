//! Wallets: folders of coin files (docs/protocol.md section 7), in the format of existing programs.
//!
//! | room | what it is |
//! |---|---|
//! | [`CoinFile`] | the bytes of one coin's file |
//! | [`PownString`], [`Mark`], [`Grade`] | what the servers said, and what that makes of a coin |
//! | [`Filing`] | the steps by which a file gets to its place and none is lost |
//! | [`Wallet`] | the folders: what is in them, and what is not understood |

mod coin_file;
mod filing;
mod folders;
mod pown_string;

pub use coin_file::{CoinFile, NotACoinFile};
pub use filing::{Filing, Step};
pub use folders::{Access, Filed, Folder, LeftAlone, UnreadableCoin, Wallet, WalletError};
pub use pown_string::{Grade, Mark, PownString};
