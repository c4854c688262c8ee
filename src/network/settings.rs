use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use crate::protocol::RaidaId;

/// What a network on this machine should be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `raida` program. Each node is a process of it.
    pub program: PathBuf,
    /// The network's folder; made where it is missing.
    pub folder: PathBuf,
    /// Where the nodes listen.
    pub address: IpAddr,
    /// RAIDA 0's port; the others have those after it. At most 65,535 - 24.
    pub base_port: u16,
    /// Nodes that are not started until someone asks for them.
    pub down: Vec<RaidaId>,
    /// The coin that the nodes serve, if `keys` says so too.
    pub coin_id: u16,
    /// Keys of every node's configuration beside its number, folder, address and peers.
    pub keys: Vec<Key>,
}

/// One key of every node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its section, as in `shards`.
    pub section: String,
    /// Its name, as in `count`.
    pub name: String,
    /// Its value, as TOML.
    pub value: String,
}

impl Settings {
    /// The address that this node listens on.
    pub(super) fn listens(&self, raida: RaidaId) -> SocketAddr {
        SocketAddr::new(self.address, self.base_port + u16::from(raida.get()))
    }

    /// The address that reaches it from this machine: a different address where it listens on all.
    pub(super) fn host(&self, raida: RaidaId) -> SocketAddr {
        let mut host = self.listens(raida);
        if host.ip().is_unspecified() {
            host.set_ip(match self.address {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        host
    }
}
