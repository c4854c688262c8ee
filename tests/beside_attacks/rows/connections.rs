use std::path::Path;

use crate::attack::{Attack, attackers, honest};
use crate::crowd::{Crowd, Held, Visits};
use crate::honest::Manner;
use crate::site::{Site, coins};
use crate::wire::{DETECT, ECHO, detect, header};

/// Connections from one address that a node takes by default.
const AN_ADDRESS: usize = 1_000;

const MANNERS: &[Manner] = &[Manner::Visits, Manner::Udp];

fn visits(site: &Site, from: u8, per_second: f64) -> Box<dyn Crowd> {
    let request = detect(&coins().crowd[..1]);
    Box::new(Visits::new(
        site.address(),
        honest(from),
        request,
        per_second,
    ))
}

/// Connections that never say anything.
pub struct Silent;

impl Silent {
    const ADDRESSES: u8 = 10;
}

impl Attack for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn what(&self) -> &'static str {
        "12: 10,000 silent connections of 10 addresses; beside: as many connections a second as are \
         opened again, with a detect each"
    }

    fn manners(&self) -> &'static [Manner] {
        MANNERS
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let from = attackers(Self::ADDRESSES);
        Box::new(Held::new(site.address(), from, AN_ADDRESS, Vec::new(), 0.0))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        visits(site, Self::ADDRESSES, per_second)
    }
}

/// Connections that begin a request and never end it.
pub struct HalfSent;

impl Attack for HalfSent {
    fn name(&self) -> &'static str {
        "half-sent"
    }

    fn what(&self) -> &'static str {
        "12, a relative: 10,000 connections of 10 addresses that send a header and no body; beside: as \
         many connections a second as are opened again, with a detect each"
    }

    fn is_relative(&self) -> bool {
        true
    }

    fn manners(&self) -> &'static [Manner] {
        MANNERS
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let from = attackers(Silent::ADDRESSES);
        let header = header(0, DETECT, 600);
        Box::new(Held::new(site.address(), from, AN_ADDRESS, header, 1e6))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        visits(site, Silent::ADDRESSES, per_second)
    }
}

/// More connections than the node can have descriptors; each has asked once.
pub struct Descriptors;

impl Descriptors {
    const ADDRESSES: u8 = 6;
    /// Fewer than the attackers open, and more than the node's own files take.
    const LIMIT: u64 = 4_096;
}

impl Attack for Descriptors {
    fn name(&self) -> &'static str {
        "descriptors"
    }

    fn what(&self) -> &'static str {
        "13: 6,000 connections of 6 addresses that asked once, to a node of 4,096 descriptors that \
         opens files; beside: as many connections a second, with a detect each"
    }

    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("storage.segment_bytes", (1 << 20).to_string()),
            ("storage.checkpoint_interval_s", 1.to_string()),
        ]
    }

    fn descriptors(&self) -> Option<u64> {
        Some(Self::LIMIT)
    }

    fn manners(&self) -> &'static [Manner] {
        MANNERS
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let from = attackers(Self::ADDRESSES);
        let echo = header(0, ECHO, 0);
        Box::new(Held::new(site.address(), from, AN_ADDRESS, echo, 1e6))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        visits(site, Self::ADDRESSES, per_second)
    }

    fn victim(&self, site: &Site) -> Option<crate::attack::Victim> {
        Some(super::coins::owner_powns(site))
    }
}
