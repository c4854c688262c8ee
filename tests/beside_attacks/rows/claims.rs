use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::attack::{Attack, OWNER, Victim, honest};
use crate::crowd::{Crowd, Datagrams, Load, Streams};
use crate::site::{Site, coins};
use crate::wire::{
    ALL_PASS, GET_TICKET, NO_SUCH_TICKET, SUCCESS, TICKET_CLAIMED, VALIDATE_TICKET, ask, detect,
    request, with_numbers,
};

/// Guesses a second.
const PER_SECOND: f64 = 10_000.0;
const CONNECTIONS: usize = 4;
const DEPTH: usize = 64;
const PATIENCE: Duration = Duration::from_secs(1);
/// The server in whose name tickets are claimed, and from whose address.
const NAMED: u8 = 1;
/// Another server, which claims what is its own.
const HONEST: u8 = 2;
/// One guess of so many may be looked up: of 65,536 tickets with 32-bit numbers, 10,000 guesses a second
/// that are all looked up use up a ticket each 7 s.
const LOOKED_UP_MAX: f64 = 0.01;

fn address_of(raida: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 3, raida)
}

/// A network in which each server has an address of its own.
fn settings() -> Vec<(&'static str, String)> {
    let server = |raida| format!("\"{}:50000\"", address_of(raida));
    let servers: Vec<String> = (0..25).map(server).collect();
    vec![("peers.servers", format!("[{}]", servers.join(", ")))]
}

fn guesses() -> Vec<Vec<u8>> {
    let guess = |_| {
        let ticket: [u8; 4] = rand::random();
        request(VALIDATE_TICKET, &[&[NAMED][..], &ticket].concat())
    };
    (0..16_384).map(guess).collect()
}

fn detects() -> Vec<Vec<u8>> {
    coins().crowd.iter().map(|coin| detect(&[*coin])).collect()
}

/// What share of the guesses the node has looked up, where that is too much.
fn looked_up(load: &Load) -> Option<String> {
    let of = |status: u8| load.tally.answers[usize::from(status)];
    let looked_up = of(NO_SUCH_TICKET) + of(TICKET_CLAIMED) + of(SUCCESS);
    let share = looked_up as f64 / load.tally.sent.max(1) as f64;
    (share > LOOKED_UP_MAX).then(|| {
        let sent = load.tally.sent;
        format!("{looked_up} of {sent} guesses at tickets were looked up")
    })
}

/// Another server claims the ticket of an honest client.
fn honest_claim(site: &Site) -> Victim {
    let node = site.address();
    let get = request(GET_TICKET, &with_numbers(&coins().aimed_at[..1]));
    Box::new(move || {
        let ticket = match ask(OWNER, node, &get, PATIENCE) {
            Ok(answer) if answer.status == ALL_PASS => answer.payload,
            other => return Err(format!("no ticket: {other:?}")),
        };
        let claim = request(VALIDATE_TICKET, &[&[HONEST][..], &ticket].concat());
        match ask(address_of(HONEST), node, &claim, PATIENCE) {
            Ok(answer) if answer.status == SUCCESS => Ok(()),
            Ok(answer) => Err(format!("status {} for an honest claim", answer.status)),
            Err(error) => Err(format!("no answer to an honest claim: {error}")),
        }
    })
}

/// Guesses at tickets in datagrams, whose source anybody can write.
pub struct OverUdp;

impl Attack for OverUdp {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn what(&self) -> &'static str {
        "14: 10,000 guesses at tickets a second in the name of a server, UDP, with its address as \
         source"
    }

    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        settings()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), [address_of(NAMED)]);
        Box::new(Datagrams::new(node, &from, guesses(), PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, detects(), per_second))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(honest_claim(site))
    }

    fn fault_in(&self, load: &Load) -> Option<String> {
        looked_up(load)
    }
}

/// The same over connections, by somebody who shares the server's address.
pub struct OverTcp;

impl Attack for OverTcp {
    fn name(&self) -> &'static str {
        "claims-tcp"
    }

    fn what(&self) -> &'static str {
        "14: 10,000 guesses at tickets a second in the name of a server, 4 TCP connections from its \
         address"
    }

    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        settings()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), [address_of(NAMED)]);
        let requests = guesses();
        Box::new(Streams::new(
            node,
            &from,
            CONNECTIONS,
            DEPTH,
            requests,
            PER_SECOND,
        ))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), honest(1));
        Box::new(Streams::new(
            node,
            &from,
            CONNECTIONS,
            DEPTH,
            detects(),
            per_second,
        ))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(honest_claim(site))
    }

    fn fault_in(&self, load: &Load) -> Option<String> {
        looked_up(load)
    }
}
