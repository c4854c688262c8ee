use std::path::PathBuf;
use std::time::Duration;

use super::CliError;
use crate::client::{Hosts, Raidas};

/// Which network a command talks to. A command that needs one says so by a group of its own.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
pub struct RaidasArgs {
    /// File with the 25 servers: HOST:PORT, one a line, RAIDA 0 first
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Folder of a network on this machine; its file `hosts` has the servers
    #[arg(long, value_name = "DIR")]
    network: Option<PathBuf>,
}

impl RaidasArgs {
    /// The servers.
    ///
    /// # Errors
    /// The list of hosts cannot be read.
    pub fn raidas(&self, coin_id: u16, timeout_ms: u64) -> Result<Raidas, CliError> {
        let file = match (&self.hosts, &self.network) {
            (Some(file), _) => file.clone(),
            (None, Some(folder)) => folder.join("hosts"),
            (None, None) => unreachable!("the command line asks for one of the two"),
        };
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Raidas::new(Hosts::read(&file)?, coin_id, timeout))
    }
}
