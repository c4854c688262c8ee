//! The attacks, one file for each kind of thing that they are aimed at.

mod claims;
mod coins;
mod connections;
mod datagrams;
mod lockers;
mod memory;
mod tickets;
mod trades;

use crate::attack::Attack;

/// Every attack, in the order in which they are measured.
pub fn all() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(datagrams::Forged),
        Box::new(datagrams::Reflection),
        Box::new(coins::OneCoinUdp),
        Box::new(coins::OneCoinTcp),
        Box::new(memory::Peeks),
        Box::new(memory::PeeksUdp),
        Box::new(memory::PeeksWide),
        Box::new(memory::WrongPowns),
        Box::new(memory::SlowBodies),
        Box::new(tickets::ManyCoins),
        Box::new(tickets::OneCoinManyTimes),
        Box::new(tickets::OneCoinForLong),
        Box::new(coins::WrongSums),
        Box::new(memory::PutsUdp),
        Box::new(trades::UnpaidBuys),
        Box::new(trades::PaymentsOfOthers),
        Box::new(connections::Silent),
        Box::new(connections::HalfSent),
        Box::new(connections::Descriptors),
        Box::new(lockers::SharedFiveBytes),
        Box::new(claims::OverUdp),
        Box::new(claims::OverTcp),
        Box::new(claims::ByFix),
    ]
}
