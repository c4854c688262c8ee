use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::attack::{Attack, OWNER, Victim, attackers, honest};
use crate::crowd::{Crowd, Datagrams, Load, Streams};
use crate::site::{Site, coins};
use crate::wire::{
    ALL_PASS, FIX, GET_TICKET, NO_SUCH_TICKET, SUCCESS, TICKET_CLAIMED, VALIDATE_TICKET, ask,
    detect, request, request_to, with_numbers, without_numbers,
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
/// Guesses that may be looked up while the attack is measured: what `limits.wrong_claims_per_min`
/// allows in two minutes by default.
const LOOKED_UP_MAX: u64 = 12_000;

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

/// How many of the guesses the node has looked up, where those are too many.
fn looked_up(load: &Load, most: u64) -> Option<String> {
    let of = |status: u8| load.tally.answers[usize::from(status)];
    let looked_up = of(NO_SUCH_TICKET) + of(TICKET_CLAIMED) + of(SUCCESS);
    let sent = load.tally.sent;
    (looked_up > most).then(|| format!("{looked_up} of {sent} guesses at tickets were looked up"))
}

/// Another server claims the ticket of an honest client.
fn honest_claim(site: &Site) -> Victim {
    claim(site, HONEST, address_of(HONEST))
}

/// A server claims the ticket of an honest client, from this address.
fn claim(site: &Site, raida: u8, address: Ipv4Addr) -> Victim {
    let node = site.address();
    // Another coin each time: each is in few tickets at a time.
    let mut coins = coins().aimed_at.chunks(1).cycle();
    Box::new(move || {
        let coin = coins.next().expect("it goes round");
        let get = request(GET_TICKET, &with_numbers(coin));
        let ticket = match ask(OWNER, node, &get, PATIENCE) {
            Ok(answer) if answer.status == ALL_PASS => answer.payload,
            other => return Err(format!("no ticket: {other:?}")),
        };
        let claim = request(VALIDATE_TICKET, &[&[raida][..], &ticket].concat());
        match ask(address, node, &claim, PATIENCE) {
            Ok(answer) if answer.status == SUCCESS => Ok(()),
            Ok(answer) => Err(format!("status {} for an honest claim", answer.status)),
            Err(error) => Err(format!("no answer to an honest claim: {error}")),
        }
    })
}

/// Fixes with guessed tickets, sent to another server: that one claims them here in its own name.
pub struct ByFix;

impl ByFix {
    /// Each counts twice for `limits.healing_per_s`: it has one ticket.
    const PER_SECOND: f64 = 300.0;

    fn fixes() -> Vec<Vec<u8>> {
        let fix = |_| {
            let mut tickets = [0; 25 * 4];
            tickets[..4].copy_from_slice(&rand::random::<[u8; 4]>());
            let group: [u8; 16] = rand::random();
            let payload = [
                &without_numbers(&coins().attacker[..1])[..],
                &group,
                &tickets,
            ];
            request_to(NAMED, FIX, &payload.concat())
        };
        (0..4_096).map(fix).collect()
    }
}

impl Attack for ByFix {
    fn name(&self) -> &'static str {
        "fix-claims"
    }

    fn what(&self) -> &'static str {
        "14, a relative: 300 fixes a second with a guessed ticket, to another server, which claims it \
         here in its own name, and is to be heard afterwards; on a 20th of the default for wrong claims (30 s \
         in 1.5)"
    }

    fn is_relative(&self) -> bool {
        true
    }

    /// RAIDA 1 asks from the address of this machine, as the other servers would from theirs.
    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("peers.servers", servers("127.0.0.1:50000")),
            ("limits.wrong_claims_per_min", 300.to_string()),
        ]
    }

    fn other_node(&self, node: SocketAddr) -> Option<Vec<(&'static str, String)>> {
        Some(vec![("peers.servers", servers(&node.to_string()))])
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let other = site.other.as_ref().expect("another node").address;
        let from = attackers(1);
        Box::new(Datagrams::new(
            other,
            &from,
            Self::fixes(),
            Self::PER_SECOND,
        ))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, detects(), per_second))
    }

    fn victim(&self, site: &Site) -> Option<Victim> {
        Some(claim(site, NAMED, Ipv4Addr::LOCALHOST))
    }
}

/// A network whose servers 0 and 1 have this address.
fn servers(address: &str) -> String {
    let others = (2..25).map(|raida| format!("{}:50000", address_of(raida)));
    let servers = [address, address]
        .map(str::to_owned)
        .into_iter()
        .chain(others);
    let servers: Vec<String> = servers.map(|server| format!("\"{server}\"")).collect();
    format!("[{}]", servers.join(", "))
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
        looked_up(load, 0)
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
        looked_up(load, LOOKED_UP_MAX)
    }
}
