//! Healing of keys. A client may have lost a server's authenticity numbers, so that it cannot even
//! talk to the server in private. The server then takes a new number for a coin if two others vouch
//! for it (docs/protocol.md section 6). This module brings one coin back on each such server;
//! [`heal`](crate::client::heal) then repairs the others' numbers.
//!
//! An eavesdropper learns nothing of the new number from what is sent here. The look that commands
//! begin with, and [`heal`](crate::client::heal) afterwards, are not encrypted and show every
//! number of the coins to an eavesdropper there. From the next look on that includes the new
//! number.
//!
//! | room | what it is |
//! |---|---|
//! | [`EncryptionHealth`] | which servers are broken, since when, and when to try again; kept in the wallet |
//! | [`standing`], [`observe`], [`choose`] | what coins say of the servers, and which coin and helpers will do |
//! | [`Network`] | what is asked of the servers |
//! | [`fix_encryption`] | tickets from helpers, and the fix, with every number on disk before a server may have it |
//! | [`mend`] | all of it, with waits for servers that take no tickets yet |
//! | [`under_way()`] | where a number in doubt must not be replaced yet |

mod choose;
mod fix;
mod health;
mod network;
mod patience;
mod under_way;

pub use choose::{Chosen, Standing, choose, observe, standing};
pub use fix::{
    HelperFault, KeyFix, KeyHealingError, PAIRS_IN_VAIN_MAX, REQUESTS_AT_ONCE, Settings,
    fix_encryption,
};
pub use health::{
    COOL_DOWN, COOL_DOWN_MAX, EncryptionHealth, FAILURES_MAX, HEALTH_FILE, HealthError,
    ServerHealth, State, UnixSeconds,
};
pub use network::Network;
pub use patience::{Patience, WAITS_MAX, mend};
pub use under_way::under_way;
