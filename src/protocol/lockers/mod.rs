//! Group 8: lockers and the marketplace (docs/protocol.md section 5). Sizes here are sizes of the
//! payload: 18 bytes (challenge and trailer) less than on that page.
//!
//! | room | what it is |
//! |---|---|
//! | `keys` | the keys of lockers and of trade lockers, and what a listing tells of the latter |
//! | `terms` | what is for sale for how much |
//! | `store` | putting coins into lockers |
//! | `contents` | looking into lockers, and taking coins out |
//! | `sale` | offering a trade locker, and taking it back |
//! | `listing` | what is on offer |
//! | `purchase` | buying |
//!
//! Where several refusals apply, the page does not say which wins. Here lengths are checked first
//! (16, 39), then keys and values (50, 198, 199), then coins (40), so that no refusal costs more
//! than it has to. A key that cannot be any locker's gets the same answer as a key that no locker
//! has: 242.
//!
//! The statuses of this group are the same in both dialects; two answers differ, and their
//! documentation says so.

mod contents;
mod keys;
mod listing;
mod purchase;
mod sale;
mod store;
mod terms;

pub use contents::{Contents, Peek, PeekTrade, Remove, Removed, TradePart};
pub use keys::{LockerKey, PublicId, PublicIdKey, TradeKey, TradeName};
pub use listing::{ListForSale, Listed, Listing};
pub use purchase::{Buy, Memo, ReceiptId, TransactionId};
pub use sale::{Address, PutForSale, RemoveTrade};
pub use store::{StoreAnswer, StoreMultiple, StoreSum, Stored};
pub use terms::{Currency, Offer, Price, Value};
