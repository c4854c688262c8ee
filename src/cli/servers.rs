use std::time::Duration;

use super::CliError;
use super::node::{EncryptionArgs, NodeArgs};
use super::raidas::RaidasArgs;
use crate::client::{Client, Raidas};

/// Whom a command talks to: one node, or all 25 servers of a network at the same time.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("servers").args(["hosts", "network"]).conflicts_with_all(["host", "raida", "udp", "encryption", "key_file", "continue_counter"])))]
pub struct ServersArgs {
    #[command(flatten)]
    network: Option<RaidasArgs>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
}

/// The servers that were named.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, for as long as the program runs"
)]
pub enum Servers {
    /// One node.
    One(Client),
    /// All servers of a network.
    All(Raidas),
}

impl ServersArgs {
    /// The flags that another command about the same node needs, each after a space.
    pub fn flags_needed(&self) -> String {
        self.node.flags_needed()
    }

    /// How long to wait for an answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.node.timeout_ms)
    }

    /// Connects to the node, or reads where the servers are.
    ///
    /// # Errors
    /// The node cannot be reached; the list of hosts or the key coins cannot be read.
    pub fn open(&self) -> Result<Servers, CliError> {
        Ok(match &self.network {
            Some(network) => Servers::All(network.raidas(self.node.coin_id, self.node.timeout_ms)?),
            None => Servers::One(self.node.connect_encrypted(&self.encryption)?),
        })
    }
}
