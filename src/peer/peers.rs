use std::{
    cell::{Cell, RefCell},
    fmt,
    net::IpAddr,
    rc::Rc,
    time::Instant,
};

use super::{
    Book, Call, Counters, Lost, PeerSettings,
    call::Seat,
    counters::Counting,
    keeper::{Common, Peer},
};
use crate::protocol::{RaidaId, healing::TicketId};

/// The network's other servers, as one core sees them. Nothing is connected before it is needed.
pub struct Peers {
    common: Rc<Common>,
    servers: Vec<Rc<Peer>>,
}

impl Peers {
    /// The servers of this book, for the glommio executor that this runs on. Calls go on in tasks
    /// of their own, which end with the executor.
    pub fn new(settings: PeerSettings, book: Book) -> Rc<Peers> {
        let common = Rc::new(Common {
            settings,
            copied: RefCell::new(book.copy()),
            book,
            counting: Rc::new(Counting::default()),
            in_flight: Rc::new(Cell::new(0)),
        });
        let peer = |raida| Peer::new(raida, common.clone());
        Rc::new(Peers {
            servers: RaidaId::all().map(peer).collect(),
            common,
        })
    }

    /// Claims a ticket that a server issued, in this node's name ("validate"; docs/protocol.md
    /// section 5). Gives its coins. It is asked at once, whether or not the result is awaited.
    ///
    /// # Errors
    /// [`Lost`]: there is no such vote.
    pub fn claim(&self, issuer: RaidaId, ticket: TicketId) -> Call {
        let Common {
            settings,
            counting,
            in_flight,
            ..
        } = &*self.common;
        counting.count(|counters| counters.calls += 1);
        self.common.refresh();
        if issuer == settings.own || self.common.copied.borrow().addresses(issuer).is_none() {
            return Call::lost(Lost::NoSuchPeer, counting);
        }
        let peer = &self.servers[usize::from(issuer.get())];
        let seat = Seat::take(
            (&peer.in_flight, settings.calls_per_server_max),
            (in_flight, settings.calls_max),
        );
        let Some(seat) = seat else {
            return Call::lost(Lost::Busy, counting);
        };
        let due = Instant::now() + settings.reply_timeout;
        let (call, asked) = Call::begin(ticket, due, seat, counting);
        peer.ask(asked);
        call
    }

    /// Whether this is an address of that server, among all that its name has.
    pub fn is_address_of(&self, raida: RaidaId, address: IpAddr) -> bool {
        self.common.refresh();
        let copied = self.common.copied.borrow();
        copied.is_address_of(raida, address)
    }

    /// Whether a claim in this server's name may come from this address. Without a list of servers,
    /// or where [`PeerSettings::verify_source`] is off, from any.
    pub fn may_claim(&self, claimant: RaidaId, address: IpAddr) -> bool {
        if !self.common.settings.verify_source {
            return true;
        }
        self.common.refresh();
        let copied = self.common.copied.borrow();
        copied.is_empty() || copied.is_address_of(claimant, address)
    }

    /// Has it looked up where a server is now, since it may have moved.
    pub fn look_again(&self, raida: RaidaId) {
        self.common.book.look_again(raida);
    }

    /// Whether [that](Peers::may_claim) depends on the address.
    pub fn verifies(&self) -> bool {
        self.common.settings.verify_source && self.are_known()
    }

    /// Whether there is a list of servers.
    pub fn are_known(&self) -> bool {
        self.common.refresh();
        !self.common.copied.borrow().is_empty()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.common.counting.get()
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
