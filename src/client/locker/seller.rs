use std::collections::BTreeMap;
use std::time::Instant;

use crate::client::{PerRaida, Raidas};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::protocol::lockers::{Address, TradeName};

/// Where, by the servers' answers, the seller of an offer wants to be paid.
#[derive(Clone, Debug, Default)]
pub struct Seller {
    by_address: BTreeMap<Vec<u8>, Vec<RaidaId>>,
}

impl Seller {
    /// Each address, and the servers that state it; the one with most servers first.
    pub fn by_votes(&self) -> Vec<(Address, &[RaidaId])> {
        let mut said: Vec<_> = self.by_address.iter().collect();
        said.sort_by_key(|(_, servers)| std::cmp::Reverse(servers.len()));
        said.into_iter()
            .filter_map(|(bytes, servers)| Some((Address::new(bytes)?, servers.as_slice())))
            .collect()
    }

    /// The address that at least 13 servers state: a buyer who believes fewer may pay a liar.
    pub fn agreed(&self) -> Option<Address> {
        let (address, servers) = self.by_votes().into_iter().next()?;
        (servers.len() >= VOTES_NEEDED).then_some(address)
    }

    /// Records a server's answer.
    pub fn add(&mut self, raida: RaidaId, address: &Address) {
        let servers = self.by_address.entry(address.as_bytes().to_vec());
        servers.or_default().push(raida);
    }
}

/// Asks every server where the sellers of offers there want to be paid: offer by offer, as they are
/// named there; nothing where the server does not say. A server has twice the time of one answer
/// for all offers, however many it has for sale.
pub fn addresses(
    named: &PerRaida<Vec<TradeName>>,
    raidas: &Raidas,
) -> PerRaida<Vec<Option<Address>>> {
    let until = Instant::now() + 2 * raidas.timeout;
    let said = raidas.ask_all(raidas.timeout, |client, raida| {
        let (addresses, _) = client.trade_addresses(&named[raida], until);
        Ok(addresses)
    });
    said.map(|said| said.unwrap_or_default())
}
